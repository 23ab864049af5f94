//! Statements and pipelines that are taken for others.

use super::{TWO, sleep};
use crate::gateway::with_pool;
use crate::raw::frame;
use crate::short::{Client, ONE, clients, seen, settled, with_free_pool};

#[test]
fn a_statement_that_was_read_otherwise() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table any (a int)"]);
    settled();
    one.say(&["Q set standard_conforming_strings = off"]);
    assert_eq!(
        one.say(&[
            "P s select '\\'', set_config('app.x', 'evil', false) as a --'",
            "S"
        ]),
        "I"
    );
    one.say(&["Q set standard_conforming_strings = on"]);
    // What was thought of texts is void.
    one.say(&["Q create table other (a int)"]);
    settled();
    let answer = one.say(&["B s", "S"]);
    assert!(answer.contains("evil"), "{answer}");
    assert_eq!(two.say(&[&seen("x")]), "() SELECT 1 I");
    assert_eq!(one.say(&[&seen("x")]), "(evil) SELECT 1 I");
}

#[test]
fn a_text_behind_what_decides_for_the_transaction_how_it_is_read() {
    let off = "Q set local standard_conforming_strings = off";
    let only_off = "Q select '\\'', set_config('app.x', 'evil', false) as a --'";
    let only_on = "Q select '\\', set_config('app.x', 'evil', false) as a --'";
    let hidden = "Q select set_config('standard_conforming_strings', 'off', true)";
    for (first, then) in [
        (vec!["Q begin"], vec![off, only_off, "Q commit"]),
        (vec!["Q begin"], vec![hidden, only_off, "Q commit"]),
        (vec!["Q begin", off], vec!["Q commit", only_on]),
    ] {
        let (_lab, gateway) = with_free_pool(TWO);
        let [mut one, mut two] = clients(&gateway);
        two.say(&["Q select 1"]);
        // While catalogs are unread, everything is looked after.
        settled();
        one.say(&first);
        one.say(&then);
        settled();
        assert_eq!(two.say(&[&seen("x")]), "() SELECT 1 I", "{then:?}");
    }
}

#[test]
fn a_statement_parsed_behind_what_decides_how_it_is_read() {
    let off = "set local standard_conforming_strings = off";
    let parse = "P s select '\\'', set_config('app.x', 'evil', false) as a --'";
    let session = vec!["P - set standard_conforming_strings = off", "B -", parse, "S"];
    let hidden = format!("Q begin; {off}");
    for (first, later) in [
        (session, vec!["B s", "S"]),
        (vec![&hidden, parse, "S"], vec!["B s", "S", "Q commit"]),
    ] {
        let (_lab, gateway) = with_free_pool(TWO);
        let [mut one, mut two] = clients(&gateway);
        two.say(&["Q select 1"]);
        settled();
        one.say(&first);
        settled();
        one.say(&later);
        settled();
        assert_eq!(two.say(&[&seen("x")]), "() SELECT 1 I", "{first:?}");
    }
}

#[test]
fn a_text_that_another_has_read_otherwise() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two, mut three] = clients(&gateway);
    three.say(&["Q select 1"]);
    settled();
    let text = "P s select '\\', set_config('app.x', 'evil', false) as a --'";
    one.say(&["Q begin", "Q set local standard_conforming_strings = off"]);
    one.say(&[text, "S", "Q rollback"]);
    settled();
    two.say(&[text, "S"]);
    settled();
    two.say(&["B s", "S"]);
    settled();
    assert_eq!(three.say(&[&seen("x")]), "() SELECT 1 I");
}

#[test]
fn a_time_zone_ties_nobody() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q select 1"]);
    settled();
    for zone in [
        "set local time zone 'UTC'",
        "select set_config('timezone', 'UTC', true)",
    ] {
        one.say(&[
            "P - begin",
            "B -",
            &format!("P - {zone}"),
            "B -",
            "P - select 'café'",
            "B -",
            "P - commit",
            "B -",
            "S",
        ]);
        one.say(&["Q begin", &format!("Q {zone}"), "Q select 'café'"]);
        two.say(&["Q create table if not exists u (a int)"]);
        one.say(&["Q commit"]);
        settled();
    }
    assert_eq!(gateway.metric("postern_pool_pinned_clients", &["app_rw"]), 0.0);
}

#[test]
fn a_text_behind_a_flush() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q select 1"]);
    settled();
    // All is answered, and what was set isn't reported before a ReadyForQuery.
    one.say(&["P - set standard_conforming_strings = off", "B -", "H"]);
    settled();
    one.say(&["Q select '\\'', set_config('app.x', 'evil', false) as a --'"]);
    settled();
    assert_eq!(two.say(&[&seen("x")]), "() SELECT 1 I");
}

#[test]
fn a_statement_of_a_temporary_table() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table t (a int)", "Q insert into t values (1)"]);
    settled();
    one.say(&["Q create temp table t (a text, b text)"]);
    assert_eq!(one.say(&["P s select * from t", "B s", "S"]), "SELECT 0 I");
    one.say(&["Q discard temp"]);
    assert_eq!(two.say(&["P s select * from t", "B s", "S"]), "(1) SELECT 1 I");
}

#[test]
fn a_temporary_table_hides_another() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table t as select 'of all' as a"]);
    settled();
    // From now on this server process has a schema for temporary objects.
    one.say(&["Q create temp table first (a int)", "Q drop table first"]);
    settled();
    assert_eq!(
        two.say(&["P s select a from t", "B s", "S"]),
        "(of all) SELECT 1 I"
    );
    one.say(&["Q create temp table t as select 'of one' as a"]);
    assert_eq!(one.say(&["Q select a from t"]), "(of one) SELECT 1 I");
    assert_eq!(
        one.say(&["P s select a from t", "B s", "S"]),
        "(of one) SELECT 1 I"
    );
}

#[test]
fn a_temporary_table_that_is_gone() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table t as select 'of all' as a"]);
    settled();
    one.say(&["Q create temp table t as select 'of one' as a"]);
    assert_eq!(
        one.say(&["P s select a from t", "B s", "S"]),
        "(of one) SELECT 1 I"
    );
    one.say(&["Q discard temp"]);
    assert_eq!(
        two.say(&["P s select a from t", "B s", "S"]),
        "(of all) SELECT 1 I"
    );
}

#[test]
fn a_pipeline_that_a_query_ends_leaves_nothing() {
    let (_lab, gateway) = with_free_pool(ONE);
    let mut two = Client::new(&gateway, &[]);
    two.say(&["Q create table l (a int)"]);
    settled();
    let check = |two: &mut Client, what: &str| {
        assert_eq!(two.say(&["Q show work_mem"]), "(4MB) SHOW I", "{what}");
        assert_eq!(two.say(&["P - select 2", "B -", "S"]), "(2) SELECT 1 I", "{what}");
        assert_eq!(two.say(&["Q rollback"]), "ROLLBACK I", "{what}");
    };
    let mut one = Client::new(&gateway, &[]);
    assert_eq!(
        one.say(&["P - set work_mem = '1MB'", "B -", "Q select 1/0"]),
        "SET 22012 I"
    );
    check(&mut two, "set and an error");
    assert_eq!(one.say(&["Q show work_mem"]), "(4MB) SHOW I");
    assert_eq!(
        one.say(&["P - set work_mem = '1MB'", "B -", "Q rollback"]),
        "SET ROLLBACK I"
    );
    check(&mut two, "set and rollback");
    assert_eq!(one.say(&["Q show work_mem"]), "(4MB) SHOW I");
    assert_eq!(
        one.say(&["P - begin", "B -", "Q set work_mem = '1MB'", "Q commit"]),
        "BEGIN SET T COMMIT I"
    );
    check(&mut two, "begin and set");
    assert_eq!(
        one.say(&["Q show work_mem", "Q reset work_mem"]),
        "(1MB) SHOW I RESET I"
    );
    one.0
        .send(&[frame('P', b"\0selec\0\0\0"), frame('H', b"")].concat());
    sleep(200);
    one.0.send(&frame('Q', b"set work_mem = '2MB'\0"));
    sleep(200);
    assert_eq!(one.say(&["S"]), "42601 I");
    check(&mut two, "a query that is skipped");
    assert_eq!(one.say(&["Q show work_mem"]), "(4MB) SHOW I");
    // COPY in a pipeline that a Query ends.
    one.0.send(
        &[
            frame('P', b"\0copy l from stdin\0\0\0"),
            frame('B', &[0; 8]),
            frame('E', &[0; 5]),
            frame('H', b""),
        ]
        .concat(),
    );
    sleep(200);
    one.0.send(&[frame('d', b"1\n"), frame('c', b"")].concat());
    assert_eq!(one.say(&["Q set work_mem = '3MB'"]), "COPY 1 SET I");
    check(&mut two, "copy and set");
    assert_eq!(
        one.say(&["Q show work_mem", "Q reset work_mem"]),
        "(3MB) SHOW I RESET I"
    );
    // A function call ends one, too.
    one.0.send(
        &[
            frame('P', b"\0set work_mem = '1MB'\0\0\0"),
            frame('B', &[0; 8]),
            frame('E', &[0; 5]),
            frame('F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        ]
        .concat(),
    );
    assert!(one.told(1).ends_with('I'));
    // It ties.
    one.say(&["Q discard all"]);
    check(&mut two, "a function call");
    assert_eq!(one.say(&["Q show work_mem"]), "(4MB) SHOW I");
}

#[test]
fn cleaning_waits_for_nobody_s_transaction() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    let mut writer = Client::new(&gateway, &[]);
    writer.say(&["Q begin isolation level serializable", "Q select 1"]);
    let mut one = Client::new(&gateway, &[]);
    one.say(&[
        "Q set session characteristics as transaction isolation level serializable, read only, deferrable",
    ]);
    one.say(&["Q listen a"]);
    one.0.message('X', b"");
    drop(one);
    let mut two = Client::new(&gateway, &[]);
    assert_eq!(two.say(&["Q select 1"]), "(1) SELECT 1 I");
    // One that couldn't be cleaned in time would have been closed, and another opened.
    assert_eq!(gateway.metric("postern_pool_discards_total", &["app_rw"]), 0.0);
    writer.say(&["Q rollback"]);
}
