//! The configuration is changed while clients are served: nobody loses anything by that who may go on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options, stderr, stdout};
use crate::raw::{Raw, rows};
use crate::rules::reload;

const READER: &str = "orders.cluster-ro-abc123.us-east-1.rds.amazonaws.com";

const INSTANCE: &str = "orders-instance-1.abc123.us-east-1.rds.amazonaws.com";

const RULES: &str = "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n\
                     [[rules]]\nprincipals = [\"trust:\"]\nconsole = \"admin\"";

const COUNT_NOW: &str = "count now";

fn started(pool: &'static str, tls: &str) -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let options = Options {
        pool,
        tls: tls.to_owned(),
        rules: RULES,
        log: "info",
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    (lab, gateway)
}

/// Another target of the same server.
fn reports(lab: &Lab) -> String {
    format!(
        "[[targets]]\nname = \"reports\"\nendpoint = \"{READER}\"\ndial_address = \"{}\"\ntls_ca_file = {:?}\n\
         databases = [\"orders\"]\nusers = [\"app_ro\"]\n",
        lab.dial_address(),
        lab.ca_file()
    )
}

fn certificate(directory: &Path, name: &str) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-keyout")
        .arg(directory.join("new.key"))
        .arg("-out")
        .arg(directory.join("new.pem"))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    for (from, to) in [("new.key", "key"), ("new.pem", "pem")] {
        std::fs::rename(directory.join(from), directory.join(to)).unwrap();
    }
}

/// The name in the certificate that the gateway shows.
fn shown(gateway: &Gateway) -> String {
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-starttls",
            "postgres",
            "-connect",
            &gateway.address().to_string(),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stdout.take().unwrap(), &mut text).unwrap();
    client.wait().unwrap();
    let subject = text
        .lines()
        .find_map(|line| line.strip_prefix("subject="))
        .unwrap();
    subject.replace("CN = ", "CN=").trim().to_owned()
}

#[test]
fn fifty_reloads_under_load_fail_no_query() {
    let files = tempfile::tempdir().unwrap();
    certificate(files.path(), "zero");
    let tls = format!(
        "[tls]\ncertificate_file = {:?}\nkey_file = {:?}",
        files.path().join("pem"),
        files.path().join("key")
    );
    let (lab, gateway) = started("mode = \"auto\"\nsize = 6", &tls);
    let script = files.path().join("script.sql");
    std::fs::write(
        &script,
        "begin;\nselect 1;\nselect count(*) from pg_class;\ncommit;\n",
    )
    .unwrap();
    let pgbench = |more: &[&str]| {
        Command::new("pgbench")
            .args(["-n", "-T", "20", "-f"])
            .arg(&script)
            .args(more)
            .arg(format!(
                "host=localhost port={} user=app_ro dbname=orders/orders sslmode=require",
                gateway.port
            ))
            .env("PGGSSENCMODE", "disable")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // Those who stay, and those who come anew for each transaction.
    let loads = [
        pgbench(&["-c", "8", "-j", "8", "-M", "prepared"]),
        pgbench(&["-c", "2", "-C"]),
    ];
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    for round in 1..=50 {
        let change = |_: &str| {
            let mut text = good.clone();
            if round % 2 == 1 {
                text.push_str(&reports(&lab));
            }
            if round % 3 == 1 {
                text = text.replace("size = 6", "size = 3\nmin_idle = 2");
            }
            if round % 4 == 1 {
                text = text.replacen(
                    "[[rules]]",
                    "[[rules]]\nprincipals = [\"scram:*\"]\ntargets = [\"x\"]\nusers = [\"y\"]\n[[rules]]",
                    1,
                );
            }
            if round % 4 == 3 {
                // Elsewhere; nobody is there.
                text = text.replace(READER, INSTANCE);
            }
            if round % 7 == 1 {
                text = text.replace("[listen]", "[listen]\nmax_clients = 500");
            }
            text
        };
        if round % 6 == 1 {
            certificate(files.path(), &format!("round{round}"));
        }
        reload(&gateway, change, COUNT_NOW);
        if round % 6 == 1 {
            assert_eq!(shown(&gateway), format!("CN=round{round}"));
        }
        if round % 10 == 0 {
            let broken = |text: &str| format!("{text}\n[[targets]]\nnam = \"x\"");
            reload(&gateway, broken, "the configuration of before goes on");
        }
    }
    for load in loads {
        let output = load.wait_with_output().unwrap();
        let told = stdout(&output);
        assert!(
            told.contains("number of failed transactions: 0 (0.000%)"),
            "{told} {}",
            stderr(&output)
        );
        assert!(
            stderr(&output)
                .lines()
                .all(|line| !line.contains("error") && !line.contains("aborted")),
            "{}",
            stderr(&output)
        );
    }
    gateway.wait_for_metric("postern_config_reloads_total", &["ok"], 50.0);
    gateway.wait_for_metric("postern_config_reloads_total", &["refused"], 5.0);
}

#[test]
fn targets_come_and_go() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    let reports = reports(&lab);
    reload(&gateway, |text| format!("{text}\n{reports}"), COUNT_NOW);
    let connection = "host=127.0.0.1 user=app_ro dbname=reports/orders";
    assert_eq!(stdout(&gateway.psql(connection, "select 5")), "5");
    let (mut inside, _) = Raw::login_to(&gateway, "app_ro", "reports/orders");
    inside.query("begin");
    let (mut other, _) = Raw::login_to(&gateway, "app_rw", "orders/orders");
    reload(
        &gateway,
        |text| text.replace(&reports, ""),
        "these clients have to go ended=1",
    );
    // Its transaction may end, and nothing more.
    assert!(inside.query("select 1").iter().any(|answer| answer.tag == 'D'));
    inside.message('Q', b"commit\0");
    let end = inside.until('\0').pop().unwrap();
    assert_eq!(end.field(b'C').unwrap(), "57P01");
    assert!(
        end.field(b'M').unwrap().contains("isn't configured any more"),
        "{end:?}"
    );
    let refused = stderr(&gateway.psql(connection, "select 5"));
    assert!(refused.contains("no rule admits"), "{refused}");
    assert_eq!(other.query("select 1").last().unwrap().tag, 'Z');
    // Nor are its server connections there for long.
    let mut console = Raw::visit(&gateway);
    let is_gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        rows(&console.query("show servers"))
            .iter()
            .all(|row| row["database"] != "reports/orders")
    });
    assert!(is_gone);
}

#[test]
fn a_transaction_that_takes_too_long_is_ended() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    let reports = reports(&lab);
    let brief = |text: &str| {
        format!(
            "{}\n{reports}",
            text.replace("[listen]", "[listen]\ndrain_timeout = \"1s\"")
        )
    };
    reload(&gateway, brief, COUNT_NOW);
    let (mut inside, _) = Raw::login_to(&gateway, "app_ro", "reports/orders");
    inside.query("begin");
    reload(
        &gateway,
        |text| text.replace(&reports, ""),
        "these clients have to go ended=1",
    );
    let end = inside.until('\0').pop().unwrap();
    assert!(
        end.field(b'M').unwrap().contains("isn't configured any more"),
        "{end:?}"
    );
}

#[test]
fn drained_databases_lose_their_clients_between_transactions() {
    let (_lab, gateway) = started("mode = \"auto\"", "");
    let (mut idle, _) = Raw::login(&gateway, "app_rw");
    let (mut busy, _) = Raw::login(&gateway, "app_ro");
    busy.query("begin");
    let mut console = Raw::visit(&gateway);
    assert_eq!(console.query("drain orders")[0].body, b"DRAIN 2\0");
    assert!(
        idle.until('\0')
            .pop()
            .unwrap()
            .field(b'M')
            .unwrap()
            .contains("is drained")
    );
    assert!(busy.query("select 1").iter().any(|answer| answer.tag == 'D'));
    busy.message('Q', b"commit\0");
    assert!(
        busy.until('\0')
            .pop()
            .unwrap()
            .field(b'M')
            .unwrap()
            .contains("is drained")
    );
    assert_eq!(Raw::login(&gateway, "app_ro").1.last().unwrap().tag, 'E');
    console.query("enable orders");
    assert_eq!(Raw::login(&gateway, "app_ro").1.last().unwrap().tag, 'Z');
}

#[test]
fn sizes_count_at_once() {
    let (_lab, gateway) = started("mode = \"auto\"\nsize = 4\nmin_idle = 4", "");
    let mut console = Raw::visit(&gateway);
    let mut servers = |wanted: usize| {
        let has = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let servers = rows(&console.query("show servers"));
            servers.iter().filter(|row| row["user"] == "app_ro").count() == wanted
        });
        assert!(has, "{wanted}");
    };
    servers(4);
    reload(
        &gateway,
        |text| text.replace("size = 4\nmin_idle = 4", "size = 2\nmin_idle = 2"),
        COUNT_NOW,
    );
    servers(2);
    reload(
        &gateway,
        |text| text.replace("size = 2\nmin_idle = 2", "size = 6\nmin_idle = 5"),
        COUNT_NOW,
    );
    servers(5);
}

#[test]
fn a_rule_that_needs_clients_to_be_understood_counts_for_newcomers() {
    let (lab, gateway) = started("mode = \"session\"", "");
    lab.superuser_sql("create table t (a int); grant all on t to app_rw")
        .unwrap();
    let (mut before, _) = Raw::login(&gateway, "app_rw");
    let reads = |text: &str| text.replacen("users = [\"*\"]", "users = [\"*\"]\nread_only = true", 1);
    reload(&gateway, reads, "these clients have to go ended=1");
    assert_eq!(before.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    let (mut reader, _) = Raw::login(&gateway, "app_rw");
    for sql in [
        "insert into t values (1)",
        "set default_transaction_read_only = off",
    ] {
        assert!(reader.query(sql).iter().any(|answer| answer.tag == 'E'), "{sql}");
    }
    assert!(reader.query("select 1").iter().any(|answer| answer.tag == 'D'));
}

#[test]
fn where_clients_connect_is_fixed() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    let own = reports(&lab).replace("databases", "listen = [\"127.0.0.1:1\"]\ndatabases");
    reload(
        &gateway,
        |text| format!("{text}\n{own}"),
        "can only be changed by a restart",
    );
    let budget = |text: &str| {
        text.replace(&own, "")
            .replace("logins_per_second = 200", "logins_per_second = 100")
    };
    reload(&gateway, budget, "changes of targets.orders.iam need a restart");
}

/// Everything to the same server by another name.
fn elsewhere(lab: &Lab) -> impl Fn(&str) -> String {
    let writer = lab.endpoint_host().to_owned();
    move |text: &str| text.replacen(&writer, READER, 1)
}

#[test]
fn clients_go_when_their_database_is_elsewhere() {
    let (lab, gateway) = started("mode = \"auto\"\nsize = 1", "");
    let (mut holds, _) = Raw::login(&gateway, "app_ro");
    let (mut waits, _) = Raw::login(&gateway, "app_ro");
    let (mut idle, _) = Raw::login(&gateway, "app_rw");
    holds.query("begin");
    waits.message('Q', b"select 4\0");
    let mut console = Raw::visit(&gateway);
    let is_seen = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        rows(&console.query("show pools"))
            .iter()
            .any(|pool| pool["cl_waiting"] == "1")
    });
    assert!(is_seen);
    // Code that what is known of the catalogs doesn't have.
    lab.superuser_sql(
        "create function whoami() returns text language sql as $$ select set_config('app.who', 'somebody', false) $$",
    )
    .unwrap();
    reload(&gateway, elsewhere(&lab), "these clients have to go ended=3");
    for client in [&mut waits, &mut idle] {
        let end = client.until('\0').pop().unwrap();
        assert_eq!(end.field(b'C').unwrap(), "57P01");
        assert!(end.field(b'M').unwrap().contains("elsewhere now"), "{end:?}");
    }
    // What is known of one server is nothing on another.
    let (mut one, _) = Raw::login(&gateway, "app_ro");
    one.query("select whoami()");
    let (mut other, _) = Raw::login(&gateway, "app_ro");
    let seen = other.query("select current_setting('app.who', true)");
    assert!(seen.iter().any(|answer| answer.tag == 'D'));
    assert!(
        seen.iter()
            .all(|answer| !answer.body.windows(8).any(|bytes| bytes == b"somebody"))
    );
    // A transaction that had begun may end, and its connection with it.
    assert!(holds.query("select 1").iter().any(|answer| answer.tag == 'D'));
    holds.message('Q', b"commit\0");
    assert!(
        holds
            .until('\0')
            .pop()
            .unwrap()
            .field(b'M')
            .unwrap()
            .contains("elsewhere now")
    );
    let left = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let all = lab
            .superuser_sql("select count(*) from pg_stat_activity where usename = 'app_ro'")
            .unwrap();
        all.trim() == "1"
    });
    assert!(left);
}

#[test]
fn what_was_paused_or_disabled_stays_so() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    let mut console = Raw::visit(&gateway);
    console.query("pause");
    console.query("disable orders");
    reload(&gateway, elsewhere(&lab), COUNT_NOW);
    let database = &rows(&console.query("show databases"))[0];
    assert_eq!(
        (database["paused"].as_str(), database["disabled"].as_str()),
        ("1", "1")
    );
    assert!(
        client
            .until('\0')
            .pop()
            .unwrap()
            .field(b'M')
            .unwrap()
            .contains("elsewhere now")
    );
    console.query("enable orders");
    assert_eq!(console.query("resume")[0].body, b"RESUME\0");
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    assert!(client.query("select 3").iter().any(|answer| answer.tag == 'D'));
    gateway.wait_for_metric("postern_pool_paused", &[], 0.0);
}

#[test]
fn rules_do_not_count_for_an_identity_that_does_not() {
    let (_lab, gateway) = started("mode = \"auto\"", "");
    let other = |text: &str| {
        text.replace("sources = [\"trust\"]", "sources = [\"ssm\"]")
            .replace("trust:", "arn:*")
    };
    reload(&gateway, other, "identity can only be changed by a restart");
    assert_eq!(Raw::login(&gateway, "app_ro").1.last().unwrap().tag, 'Z');
}

#[test]
fn a_gateway_that_goes_down_opens_nothing_new() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    let (mut within, _) = Raw::login(&gateway, "app_rw");
    within.query("begin");
    gateway.signal("TERM");
    gateway.wait_for_metric("postern_ready", &[], 0.0);
    let before = lab.logins().len();
    let more = reports(&lab).replace("users", "pool.min_idle = 5\nusers");
    reload(&gateway, |text| format!("{text}\n{more}"), COUNT_NOW);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(lab.logins().len(), before);
    assert!(within.query("select 1").iter().any(|answer| answer.tag == 'D'));
}

#[test]
fn a_new_target_that_cannot_be_reached_is_nobody_elses_trouble() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    let dead = reports(&lab).replace(&lab.dial_address().to_string(), "127.0.0.1:1");
    reload(&gateway, |text| format!("{text}\n{dead}"), COUNT_NOW);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(gateway.page("/readyz").unwrap().0, 200);
    assert_eq!(gateway.page("/startupz").unwrap().0, 200);
}

#[test]
fn other_authorities_replace_connections() {
    let (lab, gateway) = started("mode = \"auto\"\nmin_idle = 1", "");
    let mut console = Raw::visit(&gateway);
    let mut servers = || -> Vec<String> {
        let all = rows(&console.query("show servers"));
        all.iter().map(|row| row["id"].clone()).collect()
    };
    let before = servers();
    assert!(!before.is_empty());
    let ca = std::fs::read_to_string(lab.ca_file()).unwrap();
    std::fs::write(lab.ca_file(), format!("{ca}\n# The same, written otherwise.\n")).unwrap();
    reload(&gateway, str::to_owned, COUNT_NOW);
    let are_replaced = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let now = servers();
        !now.is_empty() && now.iter().all(|id| !before.contains(id))
    });
    assert!(are_replaced);
}

#[test]
fn a_reload_does_not_end_the_pause_after_a_failed_login() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let options = Options {
        users: &["app_ro", "ghost"],
        pool: "mode = \"auto\"",
        rules: RULES,
        not_ready: true,
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    let of_ghost = || lab.logins().iter().filter(|login| login.user == "ghost").count();
    while of_ghost() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..30 {
        reload(&gateway, str::to_owned, COUNT_NOW);
    }
    assert!(of_ghost() < 15, "{}", of_ghost());
}

#[test]
fn the_time_to_drain_is_that_of_the_last_reload() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let options = Options {
        listen: "drain_timeout = \"10m\"",
        rules: RULES,
        ..Options::default()
    };
    let mut gateway = Gateway::start(&lab, &options);
    let (mut inside, _) = Raw::login(&gateway, "app_ro");
    inside.query("begin");
    reload(&gateway, |text| text.replace("\"10m\"", "\"1s\""), COUNT_NOW);
    gateway.signal("TERM");
    assert_eq!(inside.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert!(gateway.wait().success());
}

#[test]
fn commands_reach_clients_of_a_pool_that_was_replaced() {
    let (_lab, gateway) = started("mode = \"session\"", "");
    let (mut before, _) = Raw::login(&gateway, "app_ro");
    before.query("select 1");
    reload(
        &gateway,
        |text| text.replace("mode = \"session\"", "mode = \"auto\""),
        COUNT_NOW,
    );
    assert!(
        before.query("select 2").iter().any(|answer| answer.tag == 'D'),
        "it goes on"
    );
    let (mut waits, mut sees) = (Raw::visit(&gateway), Raw::visit(&gateway));
    waits.message('Q', b"pause\0");
    while rows(&sees.query("show databases"))[0]["paused"] != "1" {
        std::thread::sleep(Duration::from_millis(5));
    }
    waits.tcp.set_nonblocking(true).unwrap();
    let is_answered = waits.tcp.peek(&mut [0]).is_ok();
    waits.tcp.set_nonblocking(false).unwrap();
    assert!(!is_answered, "a client has a server yet");
    drop(before);
    assert_eq!(waits.until('Z')[0].body, b"PAUSE\0");
    sees.query("resume");
    let (mut after, _) = Raw::login(&gateway, "app_ro");
    assert!(after.query("select 3").iter().any(|answer| answer.tag == 'D'));
}
