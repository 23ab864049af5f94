//! What prepared statements do where settings change, compared with a pool in session mode, in which each client has a server
//! connection to itself.

use crate::gateway::Gateway;
use crate::raw::frame;
use crate::short::{Client, clients, settled, with_free_pool};
use postern_lab::Lab;

pub(super) const AUTO1: &str = "mode = \"auto\"\nsize = 1";
pub(super) const AUTO3: &str = "mode = \"auto\"\nsize = 3";
const SESSION: &str = "mode = \"session\"\nsize = 6";

/// Makes a function that says when a day without a zone begins.
const EPOCH: &str = "Q create function f() returns int8 language plpgsql as $$ begin return extract(epoch from timestamptz '2026-01-01 00:00:00'); end $$";

/// What is answered in this pool must be what is answered in one of session mode.
pub(super) fn compare(auto: &'static str, name: &str, what: impl Fn(&Lab, &Gateway) -> Vec<String>) {
    let (lab, gateway) = with_free_pool(SESSION);
    let direct = what(&lab, &gateway);
    drop(gateway);
    drop(lab);
    let (lab, gateway) = with_free_pool(auto);
    let shared = what(&lab, &gateway);
    assert!(
        direct == shared,
        "{name}\n  DIRECT {direct:?}\n  SHARED {shared:?}"
    );
}

/// No server connection has any statement by now.
pub(super) fn nowhere(two: &mut Client) {
    settled();
    two.say(&["Q deallocate all"]);
    settled();
}

#[test]
fn an_isolation_level_behind_another_search_path() {
    compare(AUTO1, "iso_session", |_, g| {
        let [mut one, mut two] = clients(g);
        one.say(&["P s set transaction isolation level serializable", "S"]);
        one.say(&["Q set search_path = public"]);
        nowhere(&mut two);
        vec![
            one.say(&["Q begin"]),
            one.say(&["B s", "S"]),
            one.say(&["Q show transaction_isolation"]),
        ]
    });
}

#[test]
fn what_cannot_run_in_a_pipeline_behind_another_search_path() {
    compare(AUTO1, "vacuum_session", |_, g| {
        let [mut one, mut two] = clients(g);
        one.say(&["Q create table t (a int)"]);
        one.say(&["P s vacuum t", "S"]);
        one.say(&["Q set search_path = public"]);
        nowhere(&mut two);
        vec![one.say(&["B s", "S"])]
    });
}

/// A prepared LOCK that waits for another's change, and then what is seen of that, with something set before the transaction or
/// within.
fn lock(g: &Gateway, before: &[&str], within: &[&str]) -> Vec<String> {
    let [mut one, mut two, mut three] = clients(g);
    two.say(&["Q create table t (a int)"]);
    settled();
    one.say(&["P s lock table t in share mode", "S"]);
    settled();
    one.say(before);
    settled();
    three.say(&["Q begin"]);
    two.say(&["Q begin", "Q insert into t values (1)"]);
    let mut said = vec![one.say(&["Q begin isolation level repeatable read"])];
    said.push(one.say(within));
    one.0.send(
        &[
            frame('B', b"\0s\0\0\0\0\0\0\0"),
            frame('E', &[0; 5]),
            frame('S', b""),
        ]
        .concat(),
    );
    settled();
    two.say(&["Q commit"]);
    said.push(one.told(1));
    said.push(one.say(&["Q select count(*) from t"]));
    said
}

#[test]
fn a_snapshot_is_taken_when_the_client_takes_it() {
    compare(AUTO3, "the session's", |_, g| {
        lock(g, &["Q set search_path = public"], &[])
    });
    compare(AUTO3, "the transaction's", |_, g| {
        lock(g, &[], &["Q set local search_path = public"])
    });
}

#[test]
fn a_role_that_is_gone() {
    compare(AUTO1, "role_revoked", |lab, g| {
        lab.superuser_sql("create role ra; grant ra to app_rw").unwrap();
        let [mut one, mut two] = clients(g);
        one.say(&["Q set role ra"]);
        settled();
        one.say(&["P s select 7", "B s", "S"]);
        settled();
        let mut said = vec![one.say(&["Q reset role"])];
        settled();
        lab.superuser_sql("revoke ra from app_rw; drop role ra").unwrap();
        nowhere(&mut two);
        said.push(one.say(&["B s", "S"]));
        said.push(one.say(&["Q begin", "Q set local search_path = public"]));
        said.push(one.say(&["B s", "S"]));
        said
    });
}

#[test]
fn copies_between_settings() {
    compare(AUTO1, "copies", |_, g| {
        let [mut one, mut two] = clients(g);
        one.say(&["Q create table t (a int)"]);
        one.say(&["P s select date '01/02/2026'", "S"]);
        nowhere(&mut two);
        let mut said = vec![one.say(&[
            "P - set timezone = 'Asia/Tokyo'",
            "B -",
            "S",
            "Q copy t from stdin",
            "d 1/",
            "c",
            "B s",
            "S",
        ])];
        nowhere(&mut two);
        said.push(one.say(&[
            "P - set timezone = 'UTC'",
            "B -",
            "S",
            "P - copy t from stdin",
            "B -",
            "d 1/",
            "c",
            "S",
            "B s",
            "S",
        ]));
        nowhere(&mut two);
        said.push(one.say(&[
            "P - set timezone = 'Asia/Tokyo'",
            "B -",
            "P - copy t from stdin",
            "B -",
            "void",
            "d 1/",
            "c",
            "S",
            "B s",
            "S",
        ]));
        nowhere(&mut two);
        said.push(one.say(&[
            "Q set timezone = 'UTC'",
            "Q copy t to stdout",
            "B s",
            "S",
            "P q select 5",
            "B q",
            "S",
        ]));
        said.push(one.say(&[
            "Q discard all",
            "P s select 1",
            "B s",
            "S",
            "Q set search_path = public",
            "C s",
            "P s select 2",
            "B s",
            "S",
        ]));
        said
    });
}

#[test]
fn settings_of_transactions_that_only_read() {
    compare(AUTO1, "deferrable", |_, g| {
        let [mut one, mut two] = clients(g);
        two.say(&[EPOCH]);
        settled();
        one.say(&["P s select date '01/02/2026'", "S"]);
        nowhere(&mut two);
        let mut said = vec![one.say(&[
            "Q begin isolation level serializable read only deferrable",
            "Q set local datestyle='German, DMY'",
        ])];
        said.push(one.say(&["B s", "S"]));
        said.push(one.say(&["Q commit"]));
        one.say(&[
            "Q set default_transaction_isolation = serializable",
            "Q set default_transaction_read_only = on",
            "Q set default_transaction_deferrable = on",
            "Q set timezone = 'Asia/Tokyo'",
        ]);
        nowhere(&mut two);
        two.say(&["Q select f()"]);
        settled();
        said.push(one.say(&[
            "Q select f()",
            "Q show transaction_deferrable",
            "Q show timezone",
            "Q show transaction_isolation",
        ]));
        settled();
        said.push(two.say(&[
            "Q select f()",
            "Q show transaction_deferrable",
            "Q show transaction_isolation",
        ]));
        settled();
        said.push(one.say(&["B s", "S"]));
        said
    });
}

#[test]
fn a_function_that_sets_for_those_that_it_calls() {
    compare(AUTO1, "set clause", |_, g| {
        set_clause_with(
            g,
            "create function f() returns int8 language plpgsql set timezone = 'Asia/Tokyo' as $$ begin return g(); end $$",
        )
    });
}

fn set_clause_with(g: &Gateway, f: &str) -> Vec<String> {
    let [mut one, mut two] = clients(g);
    one.say(&["Q create function g() returns int8 language plpgsql as $$ begin return extract(epoch from timestamptz '2026-01-01 00:00:00'); end $$"]);
    one.say(&[&format!("Q {f}")]);
    settled();
    let mut said = vec![one.say(&["Q select f()"])];
    settled();
    said.push(two.say(&["Q select g()"]));
    said
}

#[test]
fn constants_in_dollars() {
    compare(AUTO1, "dollar", |_, g| {
        let mut one = Client::new(g, &[("timezone", "Asia/Tokyo")]);
        let mut two = Client::new(g, &[]);
        one.say(&["Q create function g() returns int8 language plpgsql as $q$ begin return extract(epoch from timestamptz $x$2026-01-01 00:00:00$x$); end $q$"]);
        settled();
        let mut said = vec![one.say(&["Q select g()"])];
        settled();
        said.push(two.say(&["Q select g()"]));
        said
    });
}

/// The first of these says `first` and then `texts` on a connection that the third holds from then on, so that it gets another.
fn fresh(g: &Gateway, texts: &[&str], first: &[&str]) -> (Client, Client, Client) {
    let [mut one, two, mut three] = clients(g);
    if !first.is_empty() {
        one.say(first);
        settled();
    }
    one.say(texts);
    settled();
    three.say(&["Q begin"]);
    (one, two, three)
}

#[test]
fn a_constant_after_plans_were_discarded() {
    compare(AUTO1, "day_after_discard_plans", |_, g| {
        let mut one = Client::new(g, &[]);
        let mut two = Client::new(g, &[("timezone", "Asia/Tokyo")]);
        one.say(&[EPOCH]);
        settled();
        one.say(&["P s select date '01/02/2026'", "S"]);
        settled();
        two.say(&["Q select 1"]);
        settled();
        vec![
            one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]),
            one.say(&["B s", "S"]),
        ]
    });
}

#[test]
fn two_in_a_pipeline() {
    compare(AUTO3, "two_in_a_pipeline", |_, g| {
        let (mut one, _two, _three) = fresh(
            g,
            &[
                "P r select date '01/02/2026'",
                "P s select date '03/04/2026'",
                "S",
            ],
            &[],
        );
        vec![
            one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]),
            one.say(&["B r", "B s", "S"]),
        ]
    });
}

#[test]
fn behind_an_unnamed_statement() {
    compare(AUTO3, "unnamed_before", |_, g| {
        let (mut one, _two, _three) = fresh(g, &["P s select date '03/04/2026'", "S"], &[]);
        vec![
            one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]),
            one.say(&["P - select 1", "B -", "B s", "S"]),
        ]
    });
}

#[test]
fn cursors_and_portals_stay_open() {
    compare(AUTO3, "portals", |_, g| {
        let (mut one, _two, _three) = fresh(g, &["P s select date '03/04/2026'", "S"], &[]);
        let mut said = vec![one.say(&[
            "Q begin",
            "P v select generate_series(1, 5)",
            "Q declare c cursor for select generate_series(1, 5)",
            "Q fetch 1 from c",
        ])];
        one.0.send(
            &[
                frame('B', b"c1\0v\0\0\0\0\0\0\0"),
                frame('E', b"c1\0\0\0\0\x02"),
                frame('S', b""),
            ]
            .concat(),
        );
        said.push(one.told(1));
        said.push(one.say(&["Q set local datestyle = 'German, DMY'"]));
        said.push(one.say(&["B s", "S"]));
        one.0
            .send(&[frame('E', b"c1\0\0\0\0\x02"), frame('S', b"")].concat());
        said.push(one.told(1));
        said.push(one.say(&["Q fetch 1 from c", "Q commit"]));
        said
    });
}

#[test]
fn the_unnamed_statement_stays() {
    compare(AUTO3, "unnamed", |_, g| {
        let (mut one, _two, _three) = fresh(g, &["P s select date '03/04/2026'", "S"], &[]);
        let mut said = vec![one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"])];
        said.push(one.say(&["P - select date '05/06/2026'", "S"]));
        said.push(one.say(&["B s", "B -", "S"]));
        said.push(one.say(&["Q rollback", "B s", "S"]));
        said
    });
}

#[test]
fn nothing_of_it_is_told() {
    compare(AUTO3, "tags", |_, g| {
        let (mut one, _two, _three) = fresh(g, &["P s select date '03/04/2026'", "S"], &[]);
        one.say(&[
            "Q begin",
            "Q set local client_min_messages = debug1",
            "Q set local datestyle = 'German, DMY'",
        ]);
        one.0.send(
            &[
                frame('D', b"Ss\0"),
                frame('B', b"\0s\0\0\0\0\0\0\0"),
                frame('E', &[0; 5]),
                frame('S', b""),
            ]
            .concat(),
        );
        vec![one.0.until('Z').iter().map(|m| m.tag).collect::<String>()]
    });
}

#[test]
fn a_constant_behind_a_call() {
    compare(AUTO1, "day_after_call", |_, g| {
        let mut one = Client::new(g, &[]);
        let mut two = Client::new(g, &[("timezone", "Asia/Tokyo")]);
        one.say(&[EPOCH]);
        settled();
        one.say(&["P s select date '01/02/2026'", "B s", "S"]);
        settled();
        let mut said = vec![two.say(&["Q select f()"])];
        settled();
        said.push(one.say(&["Q begin", "Q select f()", "Q set local datestyle = 'German, DMY'"]));
        said.push(one.say(&["B s", "S"]));
        said
    });
}

#[test]
fn a_statement_that_was_evicted() {
    // 500 others push it out.
    compare(AUTO3, "evicted", |_, g| {
        let (mut one, mut two, mut three) = fresh(g, &["P s select date '01/02/2026'", "B s", "S"], &[]);
        three.say(&["Q rollback"]);
        for i in 0..5 {
            let texts: Vec<String> = (0..120).map(|k| format!("P s{i}_{k} select {i}, {k}")).collect();
            let mut said: Vec<&str> = texts.iter().map(|t| &**t).collect();
            said.push("S");
            two.say(&said);
        }
        settled();
        vec![
            one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]),
            one.say(&["B s", "S"]),
        ]
    });
}

#[test]
fn many_waits_in_one_pipeline() {
    compare(AUTO3, "many waits", |_, g| {
        let (mut one, _two, _three) = fresh(g, &["P s select date '01/02/2026'", "S"], &[]);
        let mut said = Vec::new();
        for i in 0..60 {
            said.push(format!("Q set search_path = p{i}"));
            said.push(format!("P n{i} select {i}"));
            said.push(format!("B n{i}"));
            said.push("S".into());
            said.push("Q set datestyle = 'ISO, MDY'".into());
            said.push("B s".into());
            said.push("H".into());
            said.push("S".into());
        }
        let said: Vec<&str> = said.iter().map(|t| &**t).collect();
        vec![one.say(&said)]
    });
}

#[test]
fn a_constant_behind_calls_of_another() {
    compare(AUTO1, "day_after_call_twice", |_, g| {
        let mut one = Client::new(g, &[]);
        let mut two = Client::new(g, &[("timezone", "Asia/Tokyo")]);
        one.say(&[EPOCH]);
        settled();
        one.say(&["P s select date '01/02/2026'", "B s", "S"]);
        let mut said = vec![];
        for _ in 0..3 {
            settled();
            said.push(two.say(&["Q select f()"]));
            settled();
            said.push(one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]));
            said.push(one.say(&["B s", "S"]));
            said.push(one.say(&["Q commit"]));
        }
        said
    });
}

fn leaves(g: &Gateway) -> Vec<String> {
    let mut two = Client::new(g, &[]);
    two.say(&["Q create table t (a int)"]);
    settled();
    let (mut one, mut two, _three) = fresh(g, &["P s insert into t values (1)", "S"], &[]);
    one.0.send(
        &[
            frame('Q', b"set search_path = public\0"),
            frame('Q', b"select pg_sleep(0.5)\0"),
            frame('B', b"\0s\0\0\0\0\0\0\0"),
            frame('E', &[0; 5]),
            frame('S', b""),
        ]
        .concat(),
    );
    one.0.tcp.shutdown(std::net::Shutdown::Write).unwrap();
    one.0.until('\0');
    std::thread::sleep(std::time::Duration::from_millis(1500));
    vec![two.say(&["Q select count(*) from t"])]
}

#[test]
fn a_client_that_sends_no_more() {
    compare(AUTO3, "half closed", |_, g| leaves(g));
}

#[test]
fn another_encoding() {
    compare(AUTO3, "encoding", |_, g| {
        let mut one = Client::new(g, &[("client_encoding", "LATIN1")]);
        let mut three = Client::new(g, &[]);
        let text = [
            &b"s\0select octet_length(convert_to('"[..],
            b"\xe9",
            b"', 'UTF8')), '",
            b"\xe9",
            b"'\0\0\0",
        ]
        .concat();
        one.0.send(&[frame('P', &text), frame('S', b"")].concat());
        one.told(1);
        settled();
        three.say(&["Q begin"]);
        let mut said = vec![one.say(&["Q begin", "Q set local client_encoding = 'UTF8'"])];
        said.push(one.say(&["B s", "S"]));
        said.push(one.say(&["Q show client_encoding", "Q commit", "B s", "S"]));
        said
    });
}

#[test]
fn backslashes() {
    compare(AUTO3, "scs", |_, g| {
        let (mut one, _two, _three) = fresh(
            g,
            &["P s select 'a\\\\b', $1::text", "P r select 'x\\\\y'", "S"],
            &[],
        );
        vec![
            one.say(&["Q begin", "Q set local standard_conforming_strings = off"]),
            one.say(&["B r", "S"]),
            one.say(&["Q select 'a\\\\b'", "Q rollback", "B r", "S"]),
        ]
    });
}

#[test]
fn an_index_behind_another_role() {
    compare(AUTO1, "create index concurrently", |_, g| {
        let [mut one, mut two] = clients(g);
        one.say(&[
            "Q create table t (a int)",
            "P s create index concurrently on t (a)",
            "S",
        ]);
        settled();
        one.say(&["Q set role app_rw"]);
        nowhere(&mut two);
        vec![one.say(&["B s", "S"])]
    });
}
