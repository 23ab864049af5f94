//! Constants of prepared statements, which settings decide about when they are read.

use super::TWO;
use crate::raw::frame;
use crate::short::{Client, ONE, clients, seen, sets, settled, with_free_pool};

/// The same in other words.
const OTHER: &str = "P b select date '01/02/2026' - date '2026-01-01' as b";

/// 1 if it is read with the month first, 31 if with the day.
const DATE: &str = "P s select date '01/02/2026' - date '2026-01-01'";

/// Makes a table of a date that is the first of a month, and of none.
fn with_dates(client: &mut Client) {
    client.say(&[
        "Q create table t (a date)",
        "Q insert into t values ('2026-02-01'), (null)",
    ]);
    settled();
}

#[test]
fn constants_are_read_as_when_their_statement_was_prepared() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    one.say(&["P d select date '01/02/2026' - date '2026-01-01'", "S"]);
    one.say(&[
        "Q set standard_conforming_strings = off",
        "Q set datestyle = 'SQL, DMY'",
    ]);
    one.say(&["P s select length('a\\\\b')", "S"]);
    one.say(&["Q set standard_conforming_strings = on"]);
    // Each has both connections in turn, and is at last on one that has neither statement.
    for _ in 0..2 {
        assert_eq!(
            one.say(&["B d", "S", "B s", "S"]),
            "(1) SELECT 1 I (3) SELECT 1 I"
        );
        two.say(&["Q begin"]);
        assert_eq!(one.say(&["B d", "B s", "S"]), "(1) SELECT 1 (3) SELECT 1 I");
        two.say(&["Q deallocate all", "Q rollback"]);
    }
    assert_eq!(
        one.say(&[
            "Q begin",
            "B d",
            "S",
            "Q show datestyle",
            "Q commit",
            "Q show datestyle"
        ]),
        "BEGIN T (1) SELECT 1 T (SQL, DMY) SHOW T COMMIT I (SQL, DMY) SHOW I"
    );
    // What isn't answered yet may change it: then as it is at last.
    two.say(&["Q begin", "Q deallocate all"]);
    let answers = one.say(&[
        "Q begin; set local datestyle = 'ISO, MDY'",
        "B d",
        "S",
        "Q commit",
    ]);
    assert!(
        answers.ends_with("(1) SELECT 1 T COMMIT [DateStyle=SQL, DMY] I"),
        "{answers}"
    );
    two.say(&["Q rollback"]);
    assert_eq!(two.say(&["Q show datestyle"]), "(ISO, MDY) SHOW I");
    // Nobody knows of what was changed in the pipeline of its Parse: as they are when it comes elsewhere.
    let answers = one.say(&[
        "P - set datestyle = 'SQL, MDY'",
        "B -",
        "P e select date '01/02/2026' - date '2026-01-01'",
        "B e",
        "S",
    ]);
    assert!(answers.contains("SET (1) SELECT 1 "), "{answers}");
    for _ in 0..2 {
        assert_eq!(one.say(&["B e", "S"]), "(1) SELECT 1 I");
        two.say(&["Q begin"]);
        assert_eq!(one.say(&["B e", "S"]), "(1) SELECT 1 I");
        two.say(&["Q deallocate all", "Q rollback"]);
    }
}

#[test]
fn plans_that_another_discards() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&["P d select date '01/02/2026' - date '2026-01-01'", "S"]);
    one.say(&["Q set datestyle = 'SQL, DMY'"]);
    assert_eq!(one.say(&["B d", "S"]), "(1) SELECT 1 I");
    // The server would read it anew.
    two.say(&["Q discard plans"]);
    assert_eq!(one.say(&["B d", "S"]), "(1) SELECT 1 I");
}

#[test]
fn a_statement_that_another_has_read_anew() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    with_dates(&mut two);
    for client in [&mut one, &mut two] {
        client.say(&["P s select count(*) from t where a = '01/02/2026'", "S"]);
    }
    one.say(&["Q set datestyle = 'SQL, DMY'"]);
    // The server reads it anew for whoever comes first.
    two.say(&["Q analyze t"]);
    settled();
    one.say(&["B s", "S"]);
    assert_eq!(
        two.say(&["Q show datestyle", "B s", "S"]),
        "(ISO, MDY) SHOW I (0) SELECT 1 I"
    );
}

#[test]
fn a_statement_that_another_has_prepared_under_settings_of_its_own() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two, mut three] = clients(&gateway);
    for client in [&mut one, &mut two] {
        client.say(&[DATE, "S"]);
        settled();
    }
    // One comes to the connection that hasn't got it, in a pipeline behind what nobody can know of.
    three.say(&["Q begin"]);
    one.say(&[
        "Q begin; set local datestyle = 'SQL, DMY'",
        "B s",
        "S",
        "Q commit",
    ]);
    settled();
    assert_eq!(two.say(&["B s", "S"]), "(1) SELECT 1 I");
}

#[test]
fn what_the_server_does_not_report() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two, mut three] = clients(&gateway);
    let text = "P s select '{NULL}'::text[] = array['NULL'], coalesce(null = null, false)";
    let seen = two.say(&[text, "B s", "S"]);
    one.say(&["Q set array_nulls = off", "Q set transform_null_equals = on"]);
    one.say(&[text, "S"]);
    settled();
    one.say(&["Q reset array_nulls", "Q reset transform_null_equals"]);
    settled();
    for _ in 0..2 {
        three.say(&["Q begin"]);
        let others = one.say(&["B s", "S"]);
        assert!(others != seen && others.contains("SELECT 1"), "{others}");
        assert_eq!(two.say(&["B s", "S"]), seen);
        one.say(&[
            "Q begin; set local transform_null_equals = on",
            "B s",
            "S",
            "Q commit",
        ]);
        three.say(&["Q deallocate all", "Q rollback"]);
        assert_eq!(two.say(&["B s", "S"]), seen);
    }
}

#[test]
fn a_setting_of_an_open_pipeline_stays() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    one.say(&[DATE, "S"]);
    one.say(&["Q set datestyle = 'SQL, DMY'"]);
    settled();
    two.say(&["Q begin"]);
    one.say(&["P - set datestyle = 'German, DMY'", "B -", "H"]);
    settled();
    let answer = one.say(&["B s", "P - show datestyle", "B -", "S"]);
    assert!(answer.contains("(German, DMY) SHOW"), "{answer}");
}

#[test]
fn a_statement_that_makes_room() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&[DATE, "S"]);
    one.say(&["Q set datestyle = 'SQL, DMY'"]);
    settled();
    two.say(&["Q deallocate all"]);
    settled();
    one.say(&["Q begin", "Q set local work_mem = '5MB'"]);
    assert_eq!(one.say(&["B s", "S"]), "(1) SELECT 1 T");
}

#[test]
fn a_statement_that_another_has_read_anew_in_a_transaction() {
    for (before, condition) in [
        ("Q begin; set local datestyle = 'SQL, DMY'", "a = '01/02/2026'"),
        (
            "Q begin; do $$ begin perform set_config('datestyle', 'SQL, DMY', false); end $$",
            "a = '01/02/2026'",
        ),
        ("Q begin; set local transform_null_equals = on", "a = null"),
    ] {
        let (_lab, gateway) = with_free_pool(ONE);
        let [mut one, mut two] = clients(&gateway);
        with_dates(&mut two);
        for client in [&mut one, &mut two] {
            client.say(&[&format!("P s select count(*) from t where {condition}"), "S"]);
        }
        two.say(&["Q analyze t"]);
        settled();
        one.say(&[before, "B s", "S", "Q rollback"]);
        settled();
        assert_eq!(two.say(&["B s", "S"]), "(0) SELECT 1 I", "{before}");
    }
}

#[test]
fn a_statement_that_execute_names() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    with_dates(&mut two);
    let text = "P s select count(*) from t where a = '01/02/2026'";
    two.say(&[text, "S"]);
    one.say(&[text, "S", "Q set datestyle = 'SQL, DMY'"]);
    two.say(&["Q analyze t"]);
    settled();
    one.say(&["Q execute s", "P - execute s", "B -", "S"]);
    settled();
    assert_eq!(two.say(&["B s", "S"]), "(0) SELECT 1 I");
    one.say(&["C s", DATE, "S", "Q reset datestyle"]);
    assert_eq!(
        one.say(&["Q execute s", "B s", "S"]),
        "(31) SELECT 1 I (31) SELECT 1 I"
    );
}

#[test]
fn a_setting_of_each_transaction_has_statements_prepared_once() {
    for setting in [
        "set local time zone 'UTC'",
        "select set_config('timezone', 'UTC', true)",
        "set local lc_monetary = 'C'",
    ] {
        let (_lab, gateway) = with_free_pool(TWO);
        let [mut one, mut two] = clients(&gateway);
        two.say(&["Q begin"]);
        one.say(&[DATE, "S"]);
        two.say(&["Q rollback"]);
        for _ in 0..10 {
            one.say(&["Q begin", &format!("Q {setting}")]);
            for _ in 0..10 {
                assert_eq!(one.say(&["B s", "S"]), "(1) SELECT 1 T");
            }
            one.say(&["Q commit"]);
        }
        let prepared = gateway.metric("postern_pool_statements_total", &["app_rw", "prepared"]);
        assert!(prepared <= 12.0, "{setting}: {prepared}");
    }
}

#[test]
fn a_setting_of_one_transaction_ends_no_sharing() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&[
        "Q begin; set local time zone 'Europe/Berlin'",
        DATE,
        "B s",
        "S",
        "Q commit",
    ]);
    for _ in 0..20 {
        two.say(&[DATE, "B s", "C s", "S"]);
    }
    let prepared = gateway.metric("postern_pool_statements_total", &["app_rw", "prepared"]);
    assert!(prepared <= 2.0, "{prepared}");
}

#[test]
fn statements_on_a_connection_are_bounded() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    let parses: Vec<_> = (0..700)
        .map(|number| format!("P s{number} select '{number}'"))
        .collect();
    let mut said: Vec<_> = parses.iter().map(String::as_str).collect();
    said.push("S");
    one.say(&said);
    two.say(&["Q begin"]);
    let binds: Vec<_> = (0..700).map(|number| format!("B s{number}")).collect();
    let mut said: Vec<_> = vec!["Q begin; set local lc_monetary = 'C'"];
    said.extend(binds.iter().map(String::as_str));
    said.push("S");
    one.say(&said);
    let count = one.say(&["Q select count(*) < 510 from pg_prepared_statements"]);
    assert_eq!(count, "(t) SELECT 1 T");
}

#[test]
fn what_was_told_is_known_in_a_pipeline() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one] = clients(&gateway);
    one.say(&[DATE, OTHER, "S"]);
    for round in 0..20 {
        one.say(&["Q begin", "Q set local datestyle = 'SQL, DMY'"]);
        let answers = one.say(&["B s", "B b", "S"]);
        one.say(&["Q commit"]);
        assert_eq!(answers, "(1) SELECT 1 (1) SELECT 1 T", "round {round}");
    }
    let prepared = gateway.metric("postern_pool_statements_total", &["app_rw", "prepared"]);
    assert!(prepared <= 5.0, "{prepared}");
}

#[test]
fn constants_behind_what_may_set_anything() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one] = clients(&gateway);
    one.say(&["Q create procedure p() language plpgsql as $$ begin perform 1; end $$"]);
    settled();
    one.say(&["P x select 1", OTHER, "S", "Q set datestyle = 'SQL, DMY'"]);
    settled();
    for round in 0..3 {
        assert_eq!(
            one.say(&["P - call p()", "B -", "B b", "S"]),
            "CALL (1) SELECT 1 I",
            "round {round}"
        );
        for before in ["Q set local lc_monetary = 'C'", "Q execute x"] {
            one.say(&["Q begin", before]);
            let answers = one.say(&["B b", "S"]);
            one.say(&["Q commit"]);
            assert_eq!(answers, "(1) SELECT 1 T", "{before}, round {round}");
        }
    }
}

#[test]
fn constants_while_another_defines_code() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table u (a int)"]);
    settled();
    one.say(&[DATE, OTHER, "S", "Q set datestyle = 'SQL, DMY'"]);
    settled();
    two.say(&["Q begin", &format!("Q {}", sets("f"))]);
    for _ in 0..3 {
        assert_eq!(one.say(&["B s", "B b", "S"]), "(1) SELECT 1 (1) SELECT 1 I");
    }
}

#[test]
fn constants_behind_code_that_is_new_in_its_transaction() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    with_dates(&mut two);
    for client in [&mut one, &mut two] {
        client.say(&["P s select count(*) from t where a = null", "S"]);
        settled();
    }
    assert_eq!(two.say(&["B s", "S"]), "(0) SELECT 1 I");
    two.say(&["Q analyze t"]);
    settled();
    one.say(&["Q begin; create function f() returns text language sql as $$ select set_config('transform_null_equals', 'on', true) $$"]);
    one.say(&["Q select f()"]);
    one.say(&["B s", "S"]);
    one.say(&["Q rollback"]);
    settled();
    assert_eq!(two.say(&["B s", "S"]), "(0) SELECT 1 I");
}

#[test]
fn a_zone_of_each_transaction_keeps_sharing() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    let parses: Vec<_> = (0..200)
        .map(|number| format!("P s{number} select '{number}'"))
        .collect();
    let mut said: Vec<_> = parses.iter().map(String::as_str).collect();
    said.push("S");
    one.say(&said);
    settled();
    two.say(&said);
    for _ in 0..3 {
        for client in [&mut one, &mut two] {
            client.say(&["Q begin", "Q set local time zone 'Europe/Berlin'"]);
            for number in 0..200 {
                client.say(&[&format!("B s{number}"), "S"]);
            }
            client.say(&["Q commit"]);
            settled();
        }
    }
    let prepared = gateway.metric("postern_pool_statements_total", &["app_rw", "prepared"]);
    assert!(prepared < 500.0, "{prepared}");
}

#[test]
fn a_statement_that_was_prepared_while_words_were_read_otherwise() {
    let text = "P s select 'a\\', $q$', set_config('app.x', 'evil', false), '$q$ -- '";
    for own in [false, true] {
        let (_lab, gateway) = with_free_pool(TWO);
        let [mut one, mut two] = clients(&gateway);
        if own {
            one.say(&["Q begin", "Q set local work_mem = '5MB'", text, "S", "Q commit"]);
        } else {
            one.say(&[text, "S"]);
        }
        settled();
        two.say(&["Q deallocate all"]);
        settled();
        let described = [
            frame('Q', b"begin; set local standard_conforming_strings = off\0"),
            frame('D', b"Ss\0"),
            frame('S', b""),
            frame('Q', b"rollback\0"),
        ];
        one.0.send(&described.concat());
        one.told(3);
        settled();
        one.say(&["B s", "S"]);
        settled();
        assert_eq!(two.say(&[&seen("x")]), "() SELECT 1 I", "{own}");
    }
}

#[test]
fn constants_after_a_transaction_that_read_them_otherwise() {
    let set = "Q begin; set local datestyle = 'SQL, DMY'";
    for later in [vec!["B s", "S"], vec!["C s", DATE, "B s", "S"]] {
        let (_lab, gateway) = with_free_pool(ONE);
        let [mut one, mut two] = clients(&gateway);
        one.say(&[DATE, "B s", "S"]);
        two.say(&["Q deallocate all"]);
        settled();
        one.say(&[set, "B s", "S", "Q commit"]);
        settled();
        assert_eq!(one.say(&later), "(1) SELECT 1 I", "{later:?}");
    }
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    with_dates(&mut one);
    let text = "P s select count(*) from t where a = null";
    one.say(&[text, "B s", "S"]);
    two.say(&["Q analyze t"]);
    settled();
    let on = "Q set local transform_null_equals = on";
    one.say(&["Q begin", on, "B s", "S", "Q commit"]);
    settled();
    assert_eq!(one.say(&["C s", text, "B s", "S"]), "(0) SELECT 1 I");
}

#[test]
fn a_text_that_is_none_is_nobody_elses() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    let zone = one.say(&["Q show timezone"]);
    let zone = zone.trim_start_matches('(').split(')').next().unwrap().to_owned();
    one.say(&[DATE, "S"]);
    settled();
    let text = DATE.strip_prefix("P s ").unwrap().as_bytes();
    let mut body = [b"x\0", text, b"\0\0\0"].concat();
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("DateStyle", "SQL, DMY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", zone.as_str()),
        ("standard_conforming_strings", "on"),
    ] {
        body.extend([b"\0\0", name.as_bytes(), b"\0\0", value.as_bytes()].concat());
    }
    two.0.send(&[frame('P', &body), frame('S', b"")].concat());
    two.told(1);
    settled();
    one.say(&["Q begin", "Q set local datestyle = 'SQL, DMY'"]);
    assert_eq!(one.say(&["B s", "S"]), "(1) SELECT 1 T");
}

#[test]
fn what_code_sets_stays() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q create function f(v text) returns int language plpgsql as \
         $$ begin execute format('set local datestyle = %L', v); return 1; end $$"]);
    settled();
    one.say(&[DATE, "S"]);
    one.say(&["Q set datestyle = 'SQL, DMY'"]);
    settled();
    two.say(&["Q begin"]);
    let answers = one.say(&[
        "P - select f('German, DMY')",
        "B -",
        "B s",
        "P - show datestyle",
        "B -",
        "S",
    ]);
    assert!(answers.contains("(German, DMY) SHOW"), "{answers}");
}
