//! The terms of rules, for people who share a pool.

use super::*;

const WRITES: &str = "[[rules]]\nprincipals = [\"arn:aws:sts::123456789012:assumed-role/Deploy/*\"]\ntargets = [\"orders\"]\n\
    users = [\"*\"]\n";

fn reads(terms: &str) -> String {
    format!("{WRITES}[[rules]]\nprincipals = [\"*\"]\ntargets = [\"orders\"]\nusers = [\"*\"]\n{terms}\n")
}

fn state(answers: &[Message]) -> Option<String> {
    answers
        .iter()
        .find_map(|message| message.field(b'C').filter(|_| message.tag == 'E'))
}

#[test]
fn who_reads_and_who_writes_share_connections() {
    for pool in ["mode = \"auto\"\nsize = 1", "mode = \"session\"\nsize = 1\n"] {
        let host = Host::with_rules(
            "sources = [\"ssm\"]",
            pool,
            &reads("read_only = true\nmode = \"auto\""),
        );
        host.lab
            .superuser_sql("create table w (a int); grant all on w to app_rw")
            .unwrap();
        let (alices, bobs) = (host.session(ALICES, ALICE), host.session(BOBS, BOB));
        let (mut alice, _) = log_in(alices.address, "app_rw");
        for round in 0..3 {
            alice.query("select set_config('default_transaction_read_only', 'off', false)");
            assert_eq!(
                state(&alice.query("insert into w values (1)")).unwrap(),
                "25006",
                "{pool} {round}"
            );
            // In the mode "session" nobody else has the connection as long as he is there.
            let (mut bob, _) = log_in(bobs.address, "app_rw");
            assert_eq!(
                first_value(&bob.query("show default_transaction_read_only")),
                "off",
                "{pool} {round}"
            );
            assert_eq!(
                state(&bob.query("insert into w values (2)")),
                None,
                "{pool} {round}"
            );
            assert_eq!(
                state(&bob.query("do $$begin insert into w values (3); end$$")),
                None
            );
            bob.message('X', b"");
            assert!(bob.is_closed());
            assert_eq!(
                state(&alice.query("insert into w values (1)")).unwrap(),
                "25006",
                "{pool} {round}"
            );
            assert_eq!(
                first_value(&alice.query("select count(*) from w where a = 1")),
                "0"
            );
        }
    }
}

#[test]
fn what_is_set_back_for_who_reads_is_not_so_for_who_has_set_the_same() {
    let rules = reads("read_only = true");
    let host = Host::with_rules("sources = [\"ssm\"]", "mode = \"auto\"\nsize = 1", &rules);
    host.lab
        .superuser_sql("create table w (a int); grant all on w to app_rw")
        .unwrap();
    let (alices, bobs) = (host.session(ALICES, ALICE), host.session(BOBS, BOB));
    let (mut alice, _) = log_in(alices.address, "app_rw");
    let (mut bob, _) = log_in(bobs.address, "app_rw");
    bob.query("set default_transaction_read_only = off");
    for round in 0..3 {
        alice.query("select set_config('default_transaction_read_only', 'off', false)");
        alice.query("select 1");
        assert_eq!(state(&bob.query("insert into w values (1)")), None, "{round}");
        assert_eq!(
            state(&alice.query("insert into w values (1)")).unwrap(),
            "25006",
            "{round}"
        );
    }
}

#[test]
fn a_session_has_no_more_connections_than_a_rule_allows() {
    let rules = reads("max_clients_per_session = 1");
    let host = Host::with_rules("sources = [\"ssm\"]", "mode = \"auto\"", &rules);
    let (one, other) = (
        host.session(ALICES, ALICE),
        host.session("alice-07a16060613c408b7", ALICE),
    );
    let (_first, answers) = log_in(one.address, "app_ro");
    assert!(is_in(&answers));
    let (_second, answers) = log_in(one.address, "app_ro");
    let refused = answers.last().unwrap();
    assert_eq!(refused.field(b'C').unwrap(), "53300");
    assert!(refused.field(b'D').unwrap().contains(ALICES), "{refused:?}");
    assert!(
        refused
            .field(b'D')
            .unwrap()
            .contains("rules[1].max_clients_per_session")
    );
    let (_third, answers) = log_in(other.address, "app_ro");
    assert!(is_in(&answers), "hers, through another session");
}

#[test]
fn people_and_sessions_are_seen_and_ended_at_the_console() {
    let rules = format!(
        "{RULES}\n[[rules]]\nprincipals = [\"arn:aws:sts::123456789012:assumed-role/Deploy/*\"]\nconsole = \"admin\""
    );
    let host = Host::with_rules("sources = [\"ssm\"]", "mode = \"auto\"", &rules);
    let (one, other) = (
        host.session(ALICES, ALICE),
        host.session("alice-07a16060613c408b7", ALICE),
    );
    let bobs = host.session(BOBS, BOB);
    let (mut first, _) = log_in(one.address, "app_ro");
    let (mut second, _) = log_in(other.address, "app_ro");
    let (mut bob, _) = log_in(bobs.address, "app_ro");
    let startup = startup_message(ProtocolVersion::V3_0, &[("user", "bob"), ("database", "postern")]);
    let mut console = Raw::dial(bobs.address);
    console.send(&startup);
    assert!(is_in(&console.until('Z')));
    let shown = console.query("show clients");
    let rows = shown.iter().filter(|message| message.tag == 'D');
    let rows: Vec<String> = rows
        .map(|row| String::from_utf8_lossy(&row.body).into_owned())
        .collect();
    let is_shown = |parts: &[&str]| rows.iter().any(|row| parts.iter().all(|part| row.contains(part)));
    assert!(
        is_shown(&[
            "alice@example.com",
            ALICE,
            ALICES,
            "AWS-StartPortForwardingSession"
        ]),
        "{rows:?}"
    );
    assert!(
        is_shown(&["Deploy/bob", "assumed-role/Deploy/", BOBS]),
        "{rows:?}"
    );

    assert_eq!(
        console.query(&format!("kill session '{ALICES}'"))[0].body,
        b"KILL 1\0"
    );
    assert_eq!(first.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert_eq!(state(&second.query("select 1")), None);
    assert_eq!(
        console.query("kill person alice@example.com")[0].body,
        b"KILL 1\0"
    );
    assert_eq!(second.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert_eq!(state(&bob.query("select 1")), None);
    // Alice may not: she sees what she may use.
    let mut alice = Raw::dial(other.address);
    alice.send(&startup);
    assert!(is_in(&alice.until('Z')));
    assert!(state(&alice.query("show clients")).is_some_and(|state| state == "42501"));
    assert!(state(&alice.query("kill person Deploy/bob")).is_some_and(|state| state == "42501"));
    assert_eq!(state(&alice.query("show targets")), None);
}

#[test]
fn clients_end_with_their_session() {
    let host = Host::new();
    let alices = host.session(ALICES, ALICE);
    let (mut inside, answers) = log_in(alices.address, "app_ro");
    assert!(is_in(&answers));
    inside.message('Q', b"select pg_sleep(60)\0");
    std::thread::sleep(Duration::from_millis(300));
    drop(alices);
    let is_gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        host.lab
            .superuser_sql("select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()")
            .unwrap()
            .trim()
            == "0"
    });
    assert!(is_gone);
    host.gateway
        .wait_for_metric("postern_client_connections", &[], 0.0);
}
