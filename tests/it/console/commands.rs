//! What changes something, and who may do it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use postern_lab::{Lab, LabConfig};

use super::{error, rule, started};
use crate::gateway::{Gateway, Options, PATIENCE};
use crate::raw::{Raw, rows};

/// Clients that ask one thing after the other while `meanwhile` is done, without an error. How much they asked.
fn under_load(gateway: &Gateway, meanwhile: impl FnOnce(&AtomicU64)) -> u64 {
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (mut client, _) = Raw::login(gateway, "app_ro");
                while !is_over.load(Ordering::Relaxed) {
                    for query in ["begin", "select 1", "commit"] {
                        let answers = client.query(query);
                        assert!(answers.iter().all(|answer| answer.tag != 'E'), "{answers:?}");
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        meanwhile(&asked);
        is_over.store(true, Ordering::Relaxed);
    });
    asked.into_inner()
}

/// Waits until more has been asked than so far.
fn goes_on(asked: &AtomicU64) {
    let (before, began) = (asked.load(Ordering::Relaxed), std::time::Instant::now());
    while asked.load(Ordering::Relaxed) < before + 20 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn small(lab: &Lab) -> Gateway {
    let rules = format!(
        "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n{}",
        rule("admin")
    );
    let options = Options {
        pool: "mode = \"auto\"\nsize = 3",
        rules: rules.leak(),
        log: "info",
        ..Options::default()
    };
    Gateway::start(lab, &options)
}

fn pool(console: &mut Raw, column: &str) -> String {
    let pools = rows(&console.query("show pools"));
    let pool = pools.into_iter().find(|pool| pool["user"] == "app_ro");
    pool.unwrap()[column].clone()
}

#[test]
fn pause_holds_clients_and_resume_lets_them_go_on() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = small(&lab);
    let asked = under_load(&gateway, |asked| {
        let mut console = Raw::visit(&gateway);
        for _ in 0..5 {
            goes_on(asked);
            assert_eq!(console.query("pause orders")[0].body, b"PAUSE\0");
            // Nobody has a server any more, and no server is there.
            let servers = ["sv_active", "sv_idle"].map(|column| pool(&mut console, column));
            assert_eq!(servers, ["0", "0"]);
            while pool(&mut console, "cl_waiting") != "8" {
                std::thread::sleep(Duration::from_millis(5));
            }
            let before = asked.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(asked.load(Ordering::Relaxed), before);
            let databases = rows(&console.query("show databases"));
            assert_eq!(databases[0]["paused"], "1");
            assert_eq!(console.query("resume orders/orders")[0].body, b"RESUME\0");
        }
        goes_on(asked);
        assert_eq!(error(&console.query("resume")), "55000");
    });
    assert!(asked > 100);
}

#[test]
fn pause_waits_for_transactions() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = small(&lab);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("begin");
    let mut console = Raw::visit(&gateway);
    console.message('Q', b"pause\0");
    let mut other = Raw::visit(&gateway);
    while pool(&mut other, "cl_active") != "1" || rows(&other.query("show state"))[1]["value"] != "yes" {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(client.query("select 1").iter().any(|answer| answer.tag == 'D'));
    client.query("commit");
    assert_eq!(console.until('Z')[0].body, b"PAUSE\0");
    other.query("resume");
    assert!(client.query("select 1").iter().any(|answer| answer.tag == 'D'));
    // Who goes while it waits leaves it paused, and goes also if he says goodbye.
    client.query("begin");
    console.message('Q', b"  pause     \0");
    console.message('X', b"");
    assert!(console.is_closed());
    while rows(&other.query("show clients"))
        .iter()
        .filter(|row| row["database"] == "postern")
        .count()
        != 1
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rows(&other.query("show state"))[1]["value"], "yes");
}

#[test]
fn reconnect_replaces_every_server_and_nobody_notices() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = small(&lab);
    let servers = |console: &mut Raw| -> Vec<String> {
        let all = rows(&console.query("show servers"));
        let of = all.iter().filter(|row| row["user"] == "app_ro");
        of.map(|row| row["id"].clone()).collect()
    };
    under_load(&gateway, |asked| {
        let mut console = Raw::visit(&gateway);
        for _ in 0..5 {
            goes_on(asked);
            let before = servers(&mut console);
            assert_eq!(console.query("RECONNECT orders;")[0].body, b"RECONNECT\0");
            assert_eq!(console.query("WAIT_CLOSE orders/orders")[0].body, b"WAIT_CLOSE\0");
            let after = servers(&mut console);
            assert!(
                after.iter().all(|id| !before.contains(id)),
                "{before:?} {after:?}"
            );
            goes_on(asked);
        }
    });
}

#[test]
fn kill_ends_clients_and_holds_newcomers() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = small(&lab);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.message('Q', b"select pg_sleep(60)\0");
    let mut console = Raw::visit(&gateway);
    while pool(&mut console, "sv_active") != "1" {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(console.query("kill orders/orders")[0].body, b"KILL 1\0");
    assert_eq!(client.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    while pool(&mut console, "sv_active") != "0" {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut next, _) = Raw::login(&gateway, "app_ro");
    next.message('Q', b"select 7\0");
    while pool(&mut console, "cl_waiting") != "1" {
        std::thread::sleep(Duration::from_millis(5));
    }
    console.query("resume");
    assert!(next.until('Z').iter().any(|answer| answer.tag == 'D'));
}

#[test]
fn disabled_databases_take_nobody_new() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = small(&lab);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    let mut console = Raw::visit(&gateway);
    assert_eq!(console.query("disable orders/orders")[0].body, b"DISABLE\0");
    assert!(client.query("select 1").iter().any(|answer| answer.tag == 'D'));
    let (_, answers) = Raw::login(&gateway, "app_ro");
    assert!(answers.last().unwrap().field(b'M').unwrap().contains("disabled"));
    console.query("enable orders");
    assert_eq!(Raw::login(&gateway, "app_ro").1.last().unwrap().tag, 'Z');
    assert_eq!(error(&console.query("disable nowhere")), "3D000");
}

#[test]
fn shutdown_ends_the_gateway() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut gateway = small(&lab);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("begin");
    let mut console = Raw::visit(&gateway);
    console.message('Q', b"shutdown wait_for_servers\0");
    // A transaction may end, and no longer.
    while gateway.page("/readyz").is_none_or(|(status, _)| status == 200) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(client.query("select 1").iter().any(|answer| answer.tag == 'D'));
    client.message('Q', b"commit\0");
    assert_eq!(client.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert!(gateway.wait().success());

    let mut gateway = small(&lab);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("begin");
    Raw::visit(&gateway).message('Q', b"shutdown\0");
    assert_eq!(client.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert!(gateway.wait().success());
}

/// Every command that there is, and from which level on it is allowed.
const COMMANDS: [(&str, u8); 47] = [
    ("", 0),
    ("set extra_float_digits = 3", 0),
    ("show help", 0),
    ("show version", 0),
    ("show targets", 0),
    ("show clients", 1),
    ("show servers", 1),
    ("show pools", 1),
    ("show databases", 1),
    ("show users", 1),
    ("show lists", 1),
    ("show stats", 1),
    ("show stats_totals", 1),
    ("show stats_averages", 1),
    ("show totals", 1),
    ("show config", 1),
    ("show mem", 1),
    ("show state", 1),
    ("show dns_hosts", 1),
    ("show dns_zones", 1),
    ("show peers", 1),
    ("show peer_pools", 1),
    ("show tokens", 1),
    ("show budget", 1),
    ("show pins", 1),
    ("show sessions", 1),
    ("show rules", 1),
    ("kill_client 1", 2),
    ("kill person nobody", 2),
    ("kill session none", 2),
    ("pause orders", 2),
    ("resume orders", 2),
    ("pause", 2),
    ("resume", 2),
    ("kill orders", 2),
    ("resume orders", 2),
    ("kill", 2),
    ("resume", 2),
    ("reconnect", 2),
    ("reconnect orders", 2),
    ("wait_close", 2),
    ("disable orders", 2),
    ("enable orders", 2),
    ("drain orders", 2),
    ("enable orders", 2),
    ("reload", 2),
    ("shutdown wait_for_servers", 2),
];

#[test]
fn each_command_is_for_those_whom_it_is_for() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for (level, rule) in ["".to_owned(), rule("stats"), rule("admin")].iter().enumerate() {
        let gateway = started(&lab, rule, None);
        let mut console = Raw::visit(&gateway);
        for (command, needed) in COMMANDS {
            let answers = console.query(command);
            let refused = answers.iter().find(|answer| answer.tag == 'E');
            let state = refused.map(|refused| refused.field(b'C').unwrap());
            let expected = (level < usize::from(needed)).then(|| "42501".to_owned());
            assert_eq!(state, expected, "{command} with {rule:?}");
        }
    }
}

#[test]
fn what_takes_long_is_recorded_when_it_begins() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.jsonl");
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("admin"), Some(&audit));
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("begin");
    // Its name can't be pushed out of the record.
    let mut console = Raw::visit(&gateway);
    console.message(
        'Q',
        format!("{}pause{}orders\0", " ".repeat(300), " ".repeat(300)).as_bytes(),
    );
    drop(console);
    let is_recorded = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let log = std::fs::read_to_string(&audit).unwrap();
        log.contains("\"command\":\"pause orders\",\"outcome\":\"begun\"")
    });
    assert!(is_recorded);
}

#[test]
fn visits_can_be_ended_too() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = small(&lab);
    let mut one = Raw::visit(&gateway);
    let visits = rows(&one.query("show clients"));
    let id = visits.iter().find(|row| row["database"] == "postern").unwrap()["id"].clone();
    let mut other = Raw::visit(&gateway);
    assert_eq!(other.query(&format!("kill_client {id}"))[0].body, b"KILL 1\0");
    assert_eq!(one.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert_eq!(other.query("show version").last().unwrap().tag, 'Z');
}

#[test]
fn reconnect_is_about_connections_that_are_being_opened_too() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults()
        .change(|faults| faults.latency = postern_lab::Latency::FixedMs(1_500));
    let rules = format!(
        "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n{}",
        rule("admin")
    );
    let options = Options {
        pool: "mode = \"auto\"\nsize = 1\nmin_idle = 0",
        users: &["app_ro"],
        rules: rules.leak(),
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    let mut console = Raw::visit(&gateway);
    std::thread::scope(|scope| {
        let login = scope.spawn(|| Raw::login(&gateway, "app_ro").1.last().unwrap().tag);
        while lab.logins().is_empty() && pool(&mut console, "sv_login") != "1" {
            std::thread::sleep(Duration::from_millis(5));
        }
        console.query("reconnect");
        assert_eq!(login.join().unwrap(), 'Z');
    });
    assert_eq!(
        lab.logins().len(),
        2,
        "the first led to where the server was before"
    );
}
