//! Ways by which what one client has left reached another, or was lost, each closed since.

use std::time::Duration;

use crate::gateway::with_pool;
use crate::raw::frame;
use crate::short::{Client, ONE, settled, with_free_pool};

const TWO: &str = "mode = \"auto\"\nsize = 2";

fn seen(name: &str) -> String {
    format!("Q select coalesce(current_setting('app.{name}', true), '')")
}

fn sets(name: &str) -> String {
    format!(
        "create or replace function {name}() returns text language sql as \
         $$ select set_config('app.{name}', 'evil', false) $$"
    )
}

fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[test]
fn discard_all_and_then_code_that_changes() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    two.say(&[
        "Q create function turns() returns text language plpgsql as $$ begin return 'harmless'; end $$",
    ]);
    settled();
    one.say(&["Q select turns()"]);
    settled();
    one.say_and_go_on(&["discard all", "select pg_sleep(0.6)", "select turns()"]);
    sleep(200);
    two.say(&[
        "Q create or replace function turns() returns text language plpgsql as \
               $$ begin return set_config('app.' || 'turns', 'evil', false); end $$",
    ]);
    assert_eq!(one.told(2), "() SELECT 1 I (evil) SELECT 1 I");
    settled();
    for _ in 0..3 {
        assert_eq!(three.say(&["Q begin", &seen("turns")]), "BEGIN T () SELECT 1 T");
        assert_eq!(two.say(&[&seen("turns")]), "() SELECT 1 I");
        three.say(&["Q commit"]);
    }
    assert_eq!(one.say(&[&seen("turns")]), "(evil) SELECT 1 I");
}

#[test]
fn update_behind_a_column_named_key() {
    for with in ["cycle a set b using key", "search depth first by a set key"] {
        let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
        let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
        let text = format!(
            "Q with recursive t(a) as (select 1 union all select a from t where false) {with} \
             update pg_settings set setting = '17MB' where name = 'work_mem'"
        );
        let answer = one.say(&[&text]);
        assert!(answer.ends_with('I'), "{answer}");
        settled();
        assert_eq!(two.say(&["Q show work_mem"]), "(4MB) SHOW I", "{with}: {answer}");
        assert_eq!(one.say(&["Q show work_mem"]), "(17MB) SHOW I", "{with}: {answer}");
    }
}

#[test]
fn sequences_drawn_by_code_that_is_gone() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q create sequence numbers"]);
    settled();
    two.say(&["Q begin", "Q select 1"]);
    one.say_and_go_on(&[
        "create function draw() returns bigint language sql as $$ select nextval('numbers') $$",
        "select pg_sleep(0.5)",
        "drop function draw()",
    ]);
    assert_eq!(two.say(&["Q select draw()"]), "(1) SELECT 1 T");
    one.told(2);
    two.say(&["Q commit"]);
    settled();
    one.say(&["Q begin"]);
    let first = three.say(&["Q select lastval()"]);
    one.say(&["Q commit"]);
    assert_eq!(first, "55000 I");
}

#[test]
fn sequences_drawn_by_code_that_is_new() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q create sequence numbers"]);
    settled();
    let text = "begin; create view draws as select nextval('numbers'); commit; select pg_sleep(1)";
    one.0.message('Q', &[text.as_bytes(), b"\0"].concat());
    sleep(300);
    assert_eq!(two.say(&["Q table draws"]), "(1) SELECT 1 I");
    let first = three.say(&["Q select lastval()"]);
    one.told(1);
    assert_eq!(first, "55000 I");
}

#[test]
fn tables_made_by_code_that_is_gone() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q select 1"]);
    two.say(&["Q set search_path = pg_temp, public"]);
    settled();
    two.say(&["Q begin", "Q select 1"]);
    one.say_and_go_on(&[
        "create function public.makes() returns void language plpgsql as $$ begin create table secret as select 'of two' as a; end $$",
        "select pg_sleep(0.5)",
        "drop function public.makes()",
    ]);
    assert_eq!(two.say(&["Q select public.makes()"]), "() SELECT 1 T");
    one.told(2);
    two.say(&["Q commit"]);
    settled();
    one.say(&["Q begin"]);
    let first = three.say(&["Q select a from secret"]);
    one.say(&["Q commit"]);
    assert_eq!(first, "42P01 I");
    assert_eq!(two.say(&["Q select a from secret"]), "(of two) SELECT 1 I");
}

#[test]
fn ddl_behind_something_else() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q create function late() returns text language sql as $$ select 'harmless' $$"]);
    settled();
    assert_eq!(two.say(&["Q select late()"]), "(harmless) SELECT 1 I");
    settled();
    one.say_and_go_on(&["select 1", "select pg_sleep(0.7)", &sets("late")]);
    // The catalogs are read meanwhile.
    assert_eq!(two.say(&["Q select 1"]), "(1) SELECT 1 I");
    one.told(2);
    sleep(150);
    assert_eq!(two.say(&["Q select late()"]), "(evil) SELECT 1 I");
    for _ in 0..3 {
        assert_eq!(three.say(&[&seen("late")]), "() SELECT 1 I");
    }
    assert_eq!(two.say(&[&seen("late")]), "(evil) SELECT 1 I");
}

#[test]
fn code_defined_before_and_gone_after() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q select 1"]);
    two.say(&["Q begin", "Q commit"]);
    settled();
    one.say_and_go_on(&[&sets("gone"), "select pg_sleep(0.08)", "drop function gone()"]);
    assert_eq!(
        two.say(&["Q begin", "Q select gone()"]),
        "BEGIN T (evil) SELECT 1 T"
    );
    one.told(2);
    two.say(&["Q commit"]);
    settled();
    // On both connections.
    let leaks = [
        one.say(&["Q begin", &seen("gone")]),
        three.say(&["Q begin", &seen("gone")]),
    ];
    one.say(&["Q commit"]);
    three.say(&["Q commit"]);
    assert_eq!(leaks, ["BEGIN T () SELECT 1 T", "BEGIN T () SELECT 1 T"]);
    assert_eq!(two.say(&[&seen("gone")]), "(evil) SELECT 1 I");
}

#[test]
fn code_defined_before_and_gone_after_without_a_pipeline() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q select 1"]);
    two.say(&["Q begin", "Q commit"]);
    settled();
    for round in 0..5 {
        let name = format!("gone{round}");
        one.say(&[&format!("Q {}", sets(&name))]);
        assert_eq!(
            two.say(&["Q begin", &format!("Q select {name}()")]),
            "BEGIN T (evil) SELECT 1 T"
        );
        one.say(&[&format!("Q drop function {name}()")]);
        two.say(&["Q commit"]);
        settled();
        let leaks = [
            one.say(&["Q begin", &seen(&name)]),
            three.say(&["Q begin", &seen(&name)]),
        ];
        one.say(&["Q commit"]);
        three.say(&["Q commit"]);
        assert_eq!(
            leaks,
            ["BEGIN T () SELECT 1 T", "BEGIN T () SELECT 1 T"],
            "{round}"
        );
        assert_eq!(two.say(&[&seen(&name)]), "(evil) SELECT 1 I", "{round}");
        settled();
    }
}

#[test]
fn a_statement_that_was_read_otherwise() {
    let (_lab, gateway) = with_free_pool(TWO);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
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
fn settings_of_a_transaction() {
    let (_lab, gateway) = with_pool(ONE);
    for (name, value) in [
        ("transaction_read_only", "on"),
        ("transaction_read_only", "off"),
        ("transaction_isolation", "'serializable'"),
        ("transaction_deferrable", "off"),
    ] {
        let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
        one.say(&["Q begin", &format!("Q set {name} = {value}"), "Q commit"]);
        two.say(&["Q set work_mem = '5MB'"]);
        assert_eq!(one.say(&["Q select 1"]), "(1) SELECT 1 I", "{name}");
        assert_eq!(
            one.say(&["Q show transaction_read_only"]),
            "(off) SHOW I",
            "{name}"
        );
        assert_eq!(two.say(&["Q select 1"]), "(1) SELECT 1 I", "{name}");
    }
}

#[test]
fn code_within_code() {
    let (_lab, gateway) = with_free_pool(TWO);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q select 1"]);
    settled();
    let answer = one.say(&["Q do $$ begin create function inner_() returns void language plpgsql as \
              $i$ begin perform set_config('app.nested', 'evil', false); end $i$; perform inner_(); drop function inner_(); end $$"]);
    assert_eq!(answer, "DO I");
    assert_eq!(two.say(&[&seen("nested")]), "() SELECT 1 I");
    assert_eq!(one.say(&[&seen("nested")]), "(evil) SELECT 1 I");
}

#[test]
fn code_within_a_function() {
    let (_lab, gateway) = with_free_pool(TWO);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q create function outer_() returns void language plpgsql as $$ begin \
              create function inner_() returns void language plpgsql as \
              $i$ begin perform set_config('app.nested', 'evil', false); end $i$; perform inner_(); drop function inner_(); end $$"]);
    settled();
    assert_eq!(one.say(&["Q select outer_()"]), "() SELECT 1 I");
    assert_eq!(two.say(&[&seen("nested")]), "() SELECT 1 I");
    assert_eq!(one.say(&[&seen("nested")]), "(evil) SELECT 1 I");
}

#[test]
fn a_statement_of_a_temporary_table() {
    let (_lab, gateway) = with_free_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    two.say(&["Q create table t (a int)", "Q insert into t values (1)"]);
    settled();
    one.say(&["Q create temp table t (a text, b text)"]);
    assert_eq!(one.say(&["P s select * from t", "B s", "S"]), "SELECT 0 I");
    one.say(&["Q discard temp"]);
    assert_eq!(two.say(&["P s select * from t", "B s", "S"]), "(1) SELECT 1 I");
}

#[test]
fn a_surprise_together_with_an_announced_change() {
    let (lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q create function turns() returns text language sql as $$ select 'harmless' $$"]);
    settled();
    one.say(&["Q select turns()"]);
    settled();
    two.say(&["Q begin"]);
    lab.superuser_sql(&sets("turns")).unwrap();
    assert_eq!(one.say(&["Q select turns()"]), "(evil) SELECT 1 I");
    settled();
    // Announced, and read together with what isn't.
    two.say(&["Q create table other (a int)", "Q commit"]);
    settled();
    sleep(6_000);
    for _ in 0..3 {
        let seen = ["Q begin", &seen("turns")];
        let (mut three, mut four) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
        assert_eq!(three.say(&seen), "BEGIN T () SELECT 1 T");
        assert_eq!(four.say(&seen), "BEGIN T () SELECT 1 T");
        three.say(&["Q commit"]);
        four.say(&["Q commit"]);
    }
}

#[test]
fn code_that_code_changes_behind_discard_all_or_not() {
    for first in ["discard all", "select 1"] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
        let clients = || Client::new(&gateway, &[]);
        let (mut one, mut two, mut three) = (clients(), clients(), clients());
        two.say(&[
            "Q create function turns() returns text language plpgsql as $$ begin return 'harmless'; end $$",
        ]);
        two.say(&[
            "Q create function mk() returns void language plpgsql as $$ begin \
                   create or replace function turns() returns text language plpgsql as \
                   $i$ begin return set_config('app.' || 'turns', 'evil', false); end $i$; end $$",
        ]);
        settled();
        one.say(&["Q select turns()"]);
        settled();
        one.say_and_go_on(&[first, "select pg_sleep(0.6)", "select turns()"]);
        sleep(200);
        assert_eq!(two.say(&["Q select mk()"]), "() SELECT 1 I");
        assert_eq!(one.told(2), "() SELECT 1 I (evil) SELECT 1 I");
        settled();
        for _ in 0..3 {
            assert_eq!(three.say(&["Q begin", &seen("turns")]), "BEGIN T () SELECT 1 T");
            assert_eq!(two.say(&[&seen("turns")]), "() SELECT 1 I");
            three.say(&["Q commit"]);
        }
        assert_eq!(one.say(&[&seen("turns")]), "(evil) SELECT 1 I");
    }
}

#[test]
fn isolation_by_default_of_the_role() {
    let (lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 1\nlifetime = \"1s\"");
    lab.superuser_sql("alter role app_rw set default_transaction_isolation = 'serializable'")
        .unwrap();
    sleep(3_000);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    assert_eq!(
        one.say(&["Q show transaction_isolation"]),
        "(serializable) SHOW I"
    );
    one.say(&[
        "Q begin",
        "Q set transaction_isolation = 'serializable'",
        "Q commit",
    ]);
    two.say(&["Q set work_mem = '5MB'"]);
    assert_eq!(
        one.say(&["Q show transaction_isolation"]),
        "(serializable) SHOW I"
    );
}

#[test]
fn a_seed_within_code() {
    let (_lab, gateway) = with_free_pool(TWO);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q select 1"]);
    settled();
    one.say(&[
        "Q do $$ begin create function inner_() returns void language plpgsql as \
              $i$ begin perform setseed(0.5); end $i$; perform inner_(); drop function inner_(); end $$",
    ]);
    let random = two.say(&["Q select random()"]);
    let seeded = two.say(&["Q select setseed(0.5)", "Q select random()"]);
    assert!(!seeded.ends_with(&random), "{random}");
}

#[test]
fn execute_of_what_changes_catalogs() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    two.say(&["Q create view late as select 'harmless'::text as a"]);
    two.say(&[
        "Q create function mk() returns void language plpgsql as $$ begin \
               create or replace view late as select set_config('app.late', 'evil', false) as a; end $$",
    ]);
    settled();
    assert_eq!(two.say(&["Q table late"]), "(harmless) SELECT 1 I");
    one.say(&["Q prepare p as select mk()"]);
    settled();
    assert_eq!(two.say(&["Q select 2"]), "(2) SELECT 1 I");
    assert_eq!(one.say(&["Q execute p"]), "() SELECT 1 I");
    settled();
    assert_eq!(two.say(&["Q table late"]), "(evil) SELECT 1 I");
    for _ in 0..3 {
        assert_eq!(three.say(&[&seen("late")]), "() SELECT 1 I");
    }
    assert_eq!(two.say(&[&seen("late")]), "(evil) SELECT 1 I");
}

#[test]
fn values_in_two_encodings() {
    let (_lab, gateway) = with_pool(ONE);
    let mut latin = Client::new(&gateway, &[("client_encoding", "LATIN1")]);
    let mut utf8 = Client::new(&gateway, &[("client_encoding", "UTF8")]);
    let say = |client: &mut Client, text: &[u8]| {
        client.0.message('Q', &[text, b"\0"].concat());
        client.told(1)
    };
    let length = b"select length(current_setting('app.tenant'))";
    assert_eq!(say(&mut utf8, b"set app.tenant = '\xc3\xa9'"), "SET I");
    assert_eq!(say(&mut latin, b"set app.tenant = '\xc3\xa9'"), "SET I");
    assert_eq!(say(&mut utf8, length), "(1) SELECT 1 I");
    assert_eq!(say(&mut latin, length), "(2) SELECT 1 I");
}

#[test]
fn values_told_in_another_encoding() {
    let (_lab, gateway) = with_pool(TWO);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    let length = "Q select length(current_setting('app.tenant'))";
    one.say(&["Q set app.tenant = '\u{e9}'"]);
    one.say(&["Q set client_encoding = 'LATIN1'"]);
    assert_eq!(one.say(&[length]), "(1) SELECT 1 I");
    two.say(&["Q set app.tenant = 'two'"]);
    assert_eq!(one.say(&[length]), "(1) SELECT 1 I");
}

#[test]
fn default_behind_a_column_named_key() {
    let (_lab, gateway) = with_free_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    two.say(&[
        "Q create table drawn (id serial, a int)",
        "Q insert into drawn (a) values (1)",
    ]);
    settled();
    two.say(&["Q discard all"]);
    one.say(&["Q select 1"]);
    let answer = one.say(&[
        "Q with recursive t(a) as (select 1 union all select a from t where false) cycle a set b using key \
              update drawn set id = default",
    ]);
    assert_eq!(answer, "UPDATE 1 I");
    assert_eq!(two.say(&["Q select lastval()"]), "55000 I");
}

#[test]
fn code_that_code_defines_is_not_announced() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    two.say(&[
        "Q create function turns() returns text language plpgsql as $$ begin return 'harmless'; end $$",
    ]);
    two.say(&[
        "Q create function mk() returns void language plpgsql as $$ begin \
               create or replace function turns() returns text language plpgsql as \
               $i$ begin return set_config('app.turns', 'evil', false); end $i$; end $$",
    ]);
    settled();
    assert_eq!(two.say(&["Q select turns()"]), "(harmless) SELECT 1 I");
    settled();
    one.0
        .message('Q', b"begin; select mk(); commit; select pg_sleep(1.2)\0");
    sleep(250);
    assert_eq!(two.say(&["Q select turns()"]), "(evil) SELECT 1 I");
    let mut four = clients();
    let first = [
        four.say(&["Q begin", &seen("turns")]),
        three.say(&["Q begin", &seen("turns")]),
    ];
    one.told(1);
    four.say(&["Q commit"]);
    three.say(&["Q commit"]);
    assert_eq!(first, ["BEGIN T () SELECT 1 T", "BEGIN T () SELECT 1 T"]);
    assert_eq!(two.say(&[&seen("turns")]), "(evil) SELECT 1 I");
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
fn a_temporary_table_hides_another() {
    let (_lab, gateway) = with_free_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
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
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
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
fn a_trigger_that_runs_what_was_defined_just_now() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three, mut four) = (clients(), clients(), clients(), clients());
    one.say(&["Q create table busy (a int)"]);
    two.say(&["Q select 1"]);
    settled();
    one.say(&["Q create function late() returns trigger language plpgsql as \
               $$ begin perform set_config('app.late', 'evil', false); return new; end $$"]);
    two.0.message(
        'Q',
        b"begin; create trigger t before insert on busy for each row execute function late(); select pg_sleep(0.5); commit; \
          select pg_sleep(1.5)\0",
    );
    sleep(100);
    // The catalogs are read.
    assert_eq!(four.say(&["Q select 1"]), "(1) SELECT 1 I");
    sleep(600);
    assert_eq!(three.say(&["Q insert into busy values (1)"]), "INSERT 0 1 I");
    settled();
    let leaks = [
        one.say(&["Q begin", &seen("late")]),
        four.say(&["Q begin", &seen("late")]),
    ];
    one.say(&["Q commit"]);
    four.say(&["Q commit"]);
    two.told(1);
    assert_eq!(leaks, ["BEGIN T () SELECT 1 T", "BEGIN T () SELECT 1 T"]);
    assert_eq!(three.say(&[&seen("late")]), "(evil) SELECT 1 I");
}

#[test]
fn cleaning_waits_for_others_transactions() {
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
    let begun = std::time::Instant::now();
    let mut two = Client::new(&gateway, &[]);
    assert_eq!(two.say(&["Q select 1"]), "(1) SELECT 1 I");
    let took = begun.elapsed();
    writer.say(&["Q rollback"]);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn custom_settings_called_transaction() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q set transaction_app.tenant = 'evil'"]);
    let seen = "Q select coalesce(current_setting('transaction_app.tenant', true), '')";
    let two_sees = two.say(&[seen]);
    two.say(&["Q set work_mem = '5MB'", "Q discard all"]);
    let one_sees = one.say(&[seen]);
    assert_eq!(
        (two_sees.as_str(), one_sees.as_str()),
        ("() SELECT 1 I", "(evil) SELECT 1 I")
    );
}

#[test]
fn a_seed_before_discard_all() {
    let (_lab, gateway) = with_free_pool(TWO);
    let mut zero = Client::new(&gateway, &[]);
    zero.say(&["Q select setseed(0.5)"]);
    let seeded = zero.say(&["Q select random()"]);
    drop(zero);
    settled();
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q select 1"]);
    settled();
    one.say(&[
        "Q create function seeds() returns void language sql as $$ select setseed(0.5) $$",
        "Q select seeds()",
        "Q discard all",
    ]);
    assert_ne!(two.say(&["Q select random()"]), seeded);
}

#[test]
fn a_seed_of_another_before_discard_all() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let mut zero = Client::new(&gateway, &[]);
    zero.say(&["Q select setseed(0.5)"]);
    let seeded = zero.say(&["Q select random()"]);
    drop(zero);
    settled();
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    two.say(&["Q create function seeds() returns void language sql as $$ select null::void $$"]);
    settled();
    one.say_and_go_on(&[
        "select 1",
        "select pg_sleep(0.6)",
        "select seeds()",
        "discard all",
    ]);
    sleep(200);
    two.say(&["Q create or replace function seeds() returns void language sql as $$ select setseed(0.5) $$"]);
    one.told(3);
    settled();
    let first = [
        two.say(&["Q begin", "Q select random()"]),
        three.say(&["Q begin", "Q select random()"]),
    ];
    two.say(&["Q commit"]);
    three.say(&["Q commit"]);
    assert!(
        first.iter().all(|first| !first.contains(&seeded[..10])),
        "{first:?} {seeded}"
    );
}

#[test]
fn a_seed_of_who_is_tied_before_discard_all() {
    let (_lab, gateway) = with_free_pool(TWO);
    let mut zero = Client::new(&gateway, &[]);
    zero.say(&["Q select setseed(0.5)"]);
    let seeded = zero.say(&["Q select random()"]);
    drop(zero);
    settled();
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q listen x"]);
    settled();
    one.say(&[
        "Q create function seeds() returns void language sql as $$ select setseed(0.5) $$",
        "Q select seeds()",
    ]);
    settled();
    one.say(&["Q select 1"]);
    settled();
    one.say(&["Q discard all"]);
    assert_ne!(two.say(&["Q select random()"]), seeded);
}

#[test]
fn a_seed_before_a_goodbye() {
    let (_lab, gateway) = with_free_pool(TWO);
    let mut zero = Client::new(&gateway, &[]);
    zero.say(&["Q select setseed(0.5)"]);
    let seeded = zero.say(&["Q select random()"]);
    drop(zero);
    settled();
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    two.say(&["Q create function seeds() returns void language sql as $$ select null::void $$"]);
    settled();
    one.say_and_go_on(&["select 1", "select pg_sleep(0.6)", "select seeds()"]);
    one.0.message('X', b"");
    sleep(200);
    two.say(&["Q create or replace function seeds() returns void language sql as $$ select setseed(0.5) $$"]);
    sleep(1000);
    let first = [
        two.say(&["Q begin", "Q select random()"]),
        three.say(&["Q begin", "Q select random()"]),
    ];
    assert!(
        first.iter().all(|first| !first.contains(&seeded[..10])),
        "{first:?} {seeded}"
    );
}

#[test]
fn ddl_of_code_before_discard_all() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    two.say(&[
        "Q create function late() returns text language sql as $$ select 'harmless' $$",
        "Q create function defines() returns void language plpgsql as $$ begin end $$",
    ]);
    settled();
    two.say(&["Q select late()"]);
    settled();
    one.say_and_go_on(&[
        "select 1",
        "select pg_sleep(0.6)",
        "select defines()",
        "discard all",
    ]);
    sleep(200);
    two.say(&[
        "Q create or replace function defines() returns void language plpgsql as $$ begin \
         create or replace function late() returns text language sql as $i$ select set_config('app.late', 'evil', false) $i$; end $$",
    ]);
    one.told(3);
    sleep(30);
    let evil = two.say(&["Q select late()"]);
    let seen = "Q select coalesce(current_setting('app.late', true), '')";
    let seen = three.say(&[seen]);
    assert_eq!(seen, "() SELECT 1 I", "{evil}");
}

#[test]
fn a_view_of_pg_settings_that_is_gone() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 4");
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
    one.say(&["Q begin"]);
    two.say(&["Q begin"]);
    three.say(&["Q begin"]);
    one.say(&["Q commit"]);
    two.say(&["Q commit"]);
    three.say(&["Q commit"]);
    settled();
    one.say_and_go_on(&[
        "create view kept as table pg_settings",
        "select pg_sleep(0.12)",
        "drop view kept",
    ]);
    let first = two.say_and_go_on(&[
        "update kept set setting = '17MB' where name = 'work_mem'",
        "select pg_sleep(0.3)",
    ]);
    let dropped = one.told(2);
    two.told(1);
    settled();
    let show = ["Q begin", "Q show work_mem"];
    let seen = [
        one.say(&show),
        three.say(&show),
        Client::new(&gateway, &[]).say(&show),
    ];
    one.say(&["Q commit"]);
    three.say(&["Q commit"]);
    assert!(
        seen.iter().all(|seen| seen.contains("(4MB)")),
        "{first} {dropped} {seen:?}"
    );
    assert_eq!(
        two.say(&["Q show work_mem"]),
        "(17MB) SHOW I",
        "{first} {dropped}"
    );
}

#[test]
fn a_temporary_view_that_sets() {
    for end in ["Q drop view v", "Q discard temp"] {
        let (_lab, gateway) = with_free_pool(TWO);
        let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
        one.say(&["Q select 1"]);
        settled();
        one.say(&["Q create temp view v as select set_config('app.zz', 'evil', false) as a"]);
        sleep(30);
        one.say(&["Q table v"]);
        sleep(30);
        one.say(&[end]);
        let seen = "Q select coalesce(current_setting('app.zz', true), '')";
        assert_eq!(two.say(&[seen]), "() SELECT 1 I", "{end}");
        assert_eq!(one.say(&[seen]), "(evil) SELECT 1 I", "{end}");
    }
}
