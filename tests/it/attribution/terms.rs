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
