//! What code, and statements that are prepared anew, take constants and names for.

use super::TWO;
use crate::raw::frame;
use crate::short::{Client, ONE, clients, settled, with_free_pool};

/// A date that is another one under another `DateStyle`.
const DAY: &str = "P s select date '01/02/2026'";

/// Runs these, each in a transaction of its own and once it is known what the one before has left.
fn makes(client: &mut Client, texts: &[&str]) {
    for text in texts {
        client.say(&[text]);
        settled();
    }
}

/// Each of them prepares `text` as `s`.
fn prepare(text: &str, clients: &mut [&mut Client]) {
    for client in clients {
        client.say(&[&format!("P s {text}"), "S"]);
        settled();
    }
}

/// Binds the number 7, in binary, to `s`.
pub(super) fn bind_seven(client: &mut Client) -> String {
    let body = [&b"\0s\0"[..], &[0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0]].concat();
    client
        .0
        .send(&[frame('B', &body), frame('E', &[0; 5]), frame('S', b"")].concat());
    client.told(1)
}

/// `one` has [`DAY`] prepared, which is a day in February, and no server connection has it.
fn nowhere(one: &mut Client, two: &mut Client) {
    one.say(&["Q set datestyle = 'SQL, DMY'"]);
    one.say(&[DAY, "S"]);
    one.say(&["Q reset datestyle"]);
    settled();
    two.say(&["Q deallocate all"]);
    settled();
}

#[test]
fn code_that_another_has_called() {
    let (_lab, gateway) = with_free_pool(ONE);
    let mut one = Client::new(&gateway, &[("timezone", "Asia/Tokyo")]);
    let mut two = Client::new(&gateway, &[("timezone", "UTC")]);
    let mut three = Client::new(&gateway, &[]);
    three.say(
        &["Q create function f() returns int8 language plpgsql as $$ begin \
         return extract(epoch from timestamptz '2026-01-01 00:00:00'); end $$"],
    );
    settled();
    for _ in 0..2 {
        for (client, epoch) in [
            (&mut one, "(1767193200)"),
            (&mut two, "(1767225600)"),
            (&mut three, "(1767225600)"),
        ] {
            assert_eq!(client.say(&["Q select f()"]), format!("{epoch} SELECT 1 I"));
            settled();
        }
    }
    // Under settings that are gone by the time that the other comes.
    three.say(&[
        "Q discard plans",
        "Q begin",
        "Q set local timezone = 'Asia/Tokyo'",
        "Q select f()",
        "Q commit",
    ]);
    settled();
    assert_eq!(two.say(&["Q select f()"]), "(1767225600) SELECT 1 I");
    three.say(&[
        "Q set timezone = 'Asia/Tokyo'",
        "Q discard plans",
        "Q select f()",
        "Q reset timezone",
    ]);
    settled();
    assert_eq!(two.say(&["Q select f()"]), "(1767225600) SELECT 1 I");
}

#[test]
fn code_within_a_statement_that_another_has_run() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create function f() returns timestamptz language sql stable as $$ select timestamptz '2026-01-01 00:00:00' $$"]);
    settled();
    prepare("select extract(epoch from f())::int8", &mut [&mut one, &mut two]);
    one.say(&["Q begin", "Q set local time zone 'Asia/Tokyo'"]);
    one.say(&["B s", "S"]);
    one.say(&["Q commit"]);
    settled();
    assert_eq!(two.say(&["B s", "S"]), "(1767225600) SELECT 1 I");
}

#[test]
fn names_that_stand_for_other_tables_by_now() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two, mut three] = clients(&gateway);
    makes(
        &mut two,
        &[
            "Q create schema p1",
            "Q create schema p2",
            "Q create table p1.t (a int)",
            "Q create table p2.t (a text, b text)",
            "Q insert into p1.t values (1)",
        ],
    );
    for client in [&mut one, &mut two] {
        client.say(&["Q set search_path = p1"]);
        settled();
    }
    prepare("select * from t", &mut [&mut one, &mut two]);
    one.say(&["Q set search_path = p2"]);
    settled();
    // So that the others have the connection that hasn't got it.
    three.say(&["Q begin"]);
    assert_eq!(one.say(&["B s", "S"]), "0A000 I", "as on a server of its own");
    settled();
    assert_eq!(two.say(&["B s", "S"]), "(1) SELECT 1 I");
    let mut four = Client::new(&gateway, &[]);
    four.say(&["Q set search_path = p1"]);
    assert_eq!(four.say(&["P x select * from t", "B x", "S"]), "(1) SELECT 1 I");
}

#[test]
fn types_of_parameters_under_another_search_path() {
    for sets in [
        &["Q set search_path = p2"][..],
        &["Q begin", "Q set local search_path = p2"],
    ] {
        let (_lab, gateway) = with_free_pool(TWO);
        let [mut one, mut two, mut three] = clients(&gateway);
        makes(
            &mut two,
            &[
                "Q create table t (a int)",
                "Q create schema p2",
                "Q create table p2.t (a int8)",
            ],
        );
        prepare("insert into t values ($1)", &mut [&mut one, &mut two]);
        three.say(&["Q begin"]);
        one.say(sets);
        let status = if sets.len() > 1 { "T" } else { "I" };
        assert_eq!(bind_seven(&mut one), format!("INSERT 0 1 {status}"));
        one.say(&["Q commit", "Q set search_path = public"]);
        settled();
        for client in [&mut two, &mut one] {
            assert_eq!(bind_seven(client), "INSERT 0 1 I");
        }
        assert_eq!(one.say(&["Q select a from p2.t"]), "(7) SELECT 1 I");
    }
}

#[test]
fn tables_that_only_one_of_them_sees() {
    for (begins, ends) in [
        (
            &["Q create temp table t (a text, b text)"][..],
            "Q drop table pg_temp.t",
        ),
        (&["Q begin", "Q alter table t alter a type int8"], "Q rollback"),
    ] {
        let (_lab, gateway) = with_free_pool(TWO);
        let [mut one, mut two, mut three] = clients(&gateway);
        makes(
            &mut two,
            &["Q create table t (a int)", "Q insert into t values (1)"],
        );
        prepare("select * from t", &mut [&mut one, &mut two]);
        three.say(&["Q begin"]);
        one.say(begins);
        one.say(&["B s", "S"]);
        one.say(&[ends]);
        settled();
        for client in [&mut two, &mut one] {
            assert_eq!(client.say(&["B s", "S"]), "(1) SELECT 1 I", "{ends}");
        }
    }
}

#[test]
fn settings_that_end_in_the_same_pipeline() {
    for (sets, ends, shows) in [
        ("Q set local datestyle = 'German, DMY'", "Q commit", "COMMIT"),
        ("Q set local datestyle = 'German, DMY'", "Q rollback", "ROLLBACK"),
        ("Q set datestyle = 'German, DMY'", "Q rollback", "ROLLBACK"),
        ("Q set datestyle = 'German, DMY'", "Q rollback to a", "ROLLBACK"),
    ] {
        let (_lab, gateway) = with_free_pool(ONE);
        let [mut one, mut two] = clients(&gateway);
        nowhere(&mut one, &mut two);
        one.say(&["Q begin", "Q savepoint a", sets]);
        let answers = one.say(&[ends, "B s", "P - show datestyle", "B -", "S"]);
        let status = if ends == "Q rollback to a" { 'T' } else { 'I' };
        assert_eq!(
            answers,
            format!("{shows} [DateStyle=ISO, MDY] {status} (2026-02-01) SELECT 1 (ISO, MDY) SHOW {status}"),
            "{sets} {ends}"
        );
        one.say(&["Q rollback"]);
        assert_eq!(one.say(&["Q show datestyle"]), "(ISO, MDY) SHOW I");
    }
}

#[test]
fn settings_that_end_while_the_next_transaction_begins() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    nowhere(&mut one, &mut two);
    one.say(&["Q begin", "Q set datestyle = 'German, DMY'"]);
    let answers = one.say(&["Q rollback", "Q begin", "B s", "S"]);
    assert!(answers.ends_with("(2026-02-01) SELECT 1 T"), "{answers}");
    assert_eq!(one.say(&["Q show datestyle"]), "(ISO, MDY) SHOW T");
}

#[test]
fn what_the_server_does_not_report_stays_set_where_a_statement_is_prepared() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two, mut three] = clients(&gateway);
    prepare("select '{NULL}'::text[]::text", &mut [&mut one, &mut two]);
    three.say(&["Q begin"]);
    one.say(&["Q begin", "Q savepoint a", "Q set local array_nulls = off"]);
    assert_eq!(one.say(&["B s", "S"]), "({NULL}) SELECT 1 T");
    assert_eq!(one.say(&["Q show array_nulls"]), "(off) SHOW T");
    assert_eq!(one.say(&["Q release a"]), "RELEASE T");
    one.say(&["Q commit"]);
    settled();
    assert_eq!(two.say(&["B s", "S"]), "({NULL}) SELECT 1 I");
}
