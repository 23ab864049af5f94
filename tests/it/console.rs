//! The console: who may look and who may act, and what comes of it.

use std::path::Path;

use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options, stderr};
use crate::raw::{Message, Raw, frame, rows};

mod commands;
mod shows;

const CONSOLE: &str = "host=127.0.0.1 user=somebody dbname=postern";

/// A gateway at whose console `trust:` has this `level`, and whose database everybody may use.
fn started(lab: &Lab, level: &str, audit: Option<&Path>) -> Gateway {
    let audit = audit.map_or(String::new(), |file| format!("[audit]\nfile = {file:?}\n"));
    let rules =
        format!("[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n{level}\n{audit}");
    let options = Options {
        pool: "mode = \"auto\"",
        rules: rules.leak(),
        ..Options::default()
    };
    Gateway::start(lab, &options)
}

fn rule(level: &str) -> String {
    format!("[[rules]]\nprincipals = [\"trust:\"]\nconsole = \"{level}\"")
}

fn error(answers: &[Message]) -> String {
    let error = answers.iter().find(|message| message.tag == 'E').unwrap();
    error.field(b'C').unwrap()
}

#[test]
fn who_may_act_sees_who_is_in_and_ends_connections() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.jsonl");
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("admin"), Some(&audit));
    let (mut reads, _) = Raw::login(&gateway, "app_ro");
    let (mut writes, _) = Raw::login(&gateway, "app_rw");
    let shown = rows(&Raw::visit(&gateway).query("show clients"));
    let of = |user: &str| shown.iter().find(|row| row["user"] == user).unwrap();
    let has = |user: &str, columns: &[&str]| {
        columns
            .iter()
            .map(|name| of(user)[*name].clone())
            .collect::<Vec<_>>()
    };
    let columns = ["type", "database", "addr", "principal", "rule", "state"];
    assert_eq!(
        has("app_ro", &columns),
        ["C", "orders/orders", "127.0.0.1", "trust:", "0", "idle"]
    );
    assert_eq!(has("somebody", &["database", "rule"]), ["postern", "1"]);
    let id = of("app_ro")["id"].clone();

    reads.message('Q', b"select pg_sleep(60)\0");
    let killed = gateway.psql(CONSOLE, &format!("kill_client {id}"));
    assert!(killed.status.success(), "{}", stderr(&killed));
    let end = reads.until('\0').pop().unwrap();
    assert_eq!(end.field(b'C').unwrap(), "57P01");
    assert!(end.field(b'M').unwrap().contains("administrator command"));
    assert!(end.field(b'D').unwrap().contains("user \"app_ro\""));
    assert_eq!(writes.query("select 1").last().unwrap().tag, 'Z');
    // Nor is it still there to be ended.
    let mut console = Raw::visit(&gateway);
    let again = console.query(&format!("KILL_CLIENT {id};"));
    assert_eq!(again[0].body, b"KILL 0\0");
    assert_eq!(
        console.query("kill person 'trust:'")[0].body,
        b"KILL 1\0",
        "but not at the console"
    );
    assert_eq!(writes.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    let killed = format!("\"command\":\"kill_client {id}\",\"outcome\":\"KILL 1\"");
    let is_recorded = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let log = std::fs::read_to_string(&audit).unwrap();
        log.matches("\"event\":\"command\"").count() == 3 && log.contains(&killed)
    });
    assert!(is_recorded);
}

#[test]
fn who_may_only_look_cannot_act_and_others_do_not_get_in() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("stats"), None);
    let (mut inside, _) = Raw::login(&gateway, "app_ro");
    let mut console = Raw::visit(&gateway);
    for command in [
        "kill_client 00000001",
        "kill person x",
        "kill session x",
        "reload",
    ] {
        assert_eq!(error(&console.query(command)), "42501", "{command}");
    }
    assert_eq!(
        console
            .query("show clients")
            .iter()
            .filter(|message| message.tag == 'D')
            .count(),
        2
    );
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');

    // A rule for all databases is none for the console, but to see what it lets use.
    let gateway = started(&lab, "", None);
    let mut console = Raw::visit(&gateway);
    for command in ["show clients", "kill_client 00000001", "reload"] {
        assert_eq!(error(&console.query(command)), "42501", "{command}");
    }
    assert_eq!(console.query("show targets")[1].tag, 'D');
    let gateway = started(&lab, "documents = [\"none\"]", None);
    let refused = gateway.psql(CONSOLE, "show targets");
    assert!(stderr(&refused).contains("no rule admits this connection to database \"postern\""));
}

#[test]
fn what_the_console_does_not_understand() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("admin"), None);
    let mut console = Raw::visit(&gateway);
    assert_eq!(error(&console.query("select 1")), "42601");
    assert_eq!(console.query("").first().unwrap().tag, 'I');
    // After an error everything up to Sync is skipped.
    let mut pipeline = frame('P', b"\0show clients $1\0\0\0");
    pipeline.extend(frame('B', &[0; 8]));
    pipeline.extend(frame('E', &[0; 5]));
    pipeline.extend(frame('S', b""));
    console.send(&pipeline);
    let answers = console.until('Z');
    assert_eq!((answers.len(), error(&answers).as_str()), (2, "42601"));
    // In pieces, and several at once.
    for byte in frame('Q', b"show version\0") {
        console.send(&[byte]);
    }
    assert!(console.until('Z').iter().any(|message| message.tag == 'D'));
    console.send(&[frame('Q', b"show help\0"), frame('Q', b"show version\0")].concat());
    assert_eq!(console.until('Z').len() + console.until('Z').len(), 7);
    console.message('Q', &[b'x'; 5_000]);
    assert!(console.is_closed());
}

#[test]
fn the_configuration_is_read_again_on_command() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.jsonl");
    let gateway = started(&lab, &rule("admin"), Some(&audit));
    let (mut inside, _) = Raw::login(&gateway, "app_ro");
    let mut console = Raw::visit(&gateway);
    let told = console.query("reload");
    let notice = told.iter().find(|message| message.tag == 'N').unwrap();
    assert_eq!(notice.field(b'M').unwrap(), "2 rule(s) and 1 target(s) count now");
    let path = gateway.config();
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("targets = [\"*\"]", "targts = [\"*\"]")).unwrap();
    let refused = console.query("reload");
    assert_eq!(error(&refused), "55000");
    let message = refused[0].field(b'M').unwrap();
    assert!(
        message.contains("targts") && message.contains("postern.toml"),
        "{message}"
    );
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    // Whom the rules don't let in at the console any more has to go as well.
    std::fs::write(&path, good.replace("console = \"admin\"", "console = \"stats\"")).unwrap();
    let answers = console.query("reload");
    assert!(answers.iter().any(|message| message.body == b"RELOAD\0"));
    assert_eq!(console.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    let is_recorded = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let log = std::fs::read_to_string(&audit).unwrap();
        log.contains("\"event\":\"rules\",\"rules\":2,\"ended\":1")
    });
    assert!(is_recorded);
}

#[test]
fn who_is_about_to_come_in_can_be_ended_as_well() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.superuser_sql("create table w (a int); grant all on w to app_rw")
        .unwrap();
    for mode in ["auto", "session"] {
        let rules = format!(
            "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n{}",
            rule("admin")
        );
        let options = Options {
            pool: format!("mode = \"{mode}\"\nsize = 1").leak(),
            rules: rules.leak(),
            ..Options::default()
        };
        let gateway = Gateway::start(&lab, &options);
        let (mut holds, _) = Raw::login(&gateway, "app_rw");
        holds.query("begin");
        // Its settings are new to the pool, so that it waits for a server before it is greeted; its query is there.
        let mut waits = Raw::connect(&gateway);
        waits.send(&postern::wire::startup::startup_message(
            postern::wire::startup::ProtocolVersion::V3_0,
            &[("user", "app_rw"), ("database", "orders"), ("work_mem", "77MB")],
        ));
        waits.message('Q', b"insert into w values (1)\0");
        let mut console = Raw::visit(&gateway);
        let is_shown = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            console
                .query("show clients")
                .iter()
                .filter(|message| message.tag == 'D')
                .count()
                == 3
        });
        assert!(is_shown, "{mode}");
        assert_eq!(console.query("kill person trust:")[0].body, b"KILL 2\0", "{mode}");
        assert_eq!(waits.last_error().field(b'C').unwrap(), "57P01", "{mode}");
        let (mut next, _) = Raw::login(&gateway, "app_rw");
        next.query("select 1");
        assert_eq!(
            lab.superuser_sql("select count(*) from w").unwrap().trim(),
            "0",
            "{mode}"
        );
    }
}

#[test]
fn who_asks_without_reading_costs_only_himself() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("stats"), None);
    let clients: Vec<_> = (0..100).map(|_| Raw::login(&gateway, "app_ro").0).collect();
    let mut floods: Vec<_> = (0..7).map(|_| Raw::visit(&gateway)).collect();
    let before = gateway.private_kib();
    let storm = frame('Q', b"show clients\0").repeat(3_000);
    std::thread::scope(|scope| {
        for flood in &mut floods {
            flood
                .tcp
                .set_write_timeout(Some(std::time::Duration::from_secs(1)))
                .unwrap();
            // It is taken as far as the sockets do.
            scope.spawn(|| drop(std::io::Write::write_all(&mut flood.tcp, &storm)));
        }
    });
    let (mut inside, _) = Raw::login(&gateway, "app_rw");
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    let grown = gateway.private_kib() - before;
    assert!(grown < 15_000, "{grown} KiB");
    // More aren't let in of one and the same.
    let _eighth = Raw::visit(&gateway);
    let mut refused = Raw::connect(&gateway);
    refused.send(&postern::wire::startup::startup_message(
        postern::wire::startup::ProtocolVersion::V3_0,
        &[("user", "x"), ("database", "postern")],
    ));
    assert_eq!(refused.last_error().field(b'C').unwrap(), "53300");
    drop(clients);
}

#[test]
fn a_configuration_that_hangs_holds_up_nobody() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("admin"), None);
    let mut console = Raw::visit(&gateway);
    std::fs::remove_file(gateway.config()).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(gateway.config())
        .status()
        .unwrap();
    assert!(made.success());
    console.message('Q', b"reload\0");
    let (mut inside, _) = Raw::login(&gateway, "app_ro");
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    assert_eq!(gateway.page("/livez").unwrap().0, 200);
    let refused = console.until('Z');
    assert!(
        refused[0]
            .field(b'M')
            .unwrap()
            .contains("can't be read within 5 s"),
        "{refused:?}"
    );
    let again = console.query("reload");
    assert!(
        again[0].field(b'M').unwrap().contains("is still being read"),
        "{again:?}"
    );
}
