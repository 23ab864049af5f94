//! What code does that has come, changed or gone while clients were at work.

use super::{TWO, sleep};
use crate::short::{Client, after_seed, clients, seen, sets, settled, with_free_pool};

#[test]
fn sequences_drawn_by_code_that_is_gone() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
fn a_surprise_together_with_an_announced_change() {
    let (lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
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
fn execute_of_what_changes_catalogs() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
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
fn code_that_code_defines_is_not_announced() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let mut four = Client::new(&gateway, &[]);
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
fn a_view_of_pg_settings_that_is_gone() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 4");
    let [mut one, mut two, mut three] = clients(&gateway);
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
        let [mut one, mut two] = clients(&gateway);
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

#[test]
fn code_within_code() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q create function outer_() returns void language plpgsql as $$ begin \
              create function inner_() returns void language plpgsql as \
              $i$ begin perform set_config('app.nested', 'evil', false); end $i$; perform inner_(); drop function inner_(); end $$"]);
    settled();
    assert_eq!(one.say(&["Q select outer_()"]), "() SELECT 1 I");
    assert_eq!(two.say(&[&seen("nested")]), "() SELECT 1 I");
    assert_eq!(one.say(&[&seen("nested")]), "(evil) SELECT 1 I");
}

#[test]
fn a_seed_within_code() {
    let (_lab, gateway) = with_free_pool(TWO);
    let [mut one, mut two] = clients(&gateway);
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
fn settings_of_views_defaults_and_rules_that_are_gone() {
    for (define, uses, undo) in [
        (
            "Q create view v as select set_config('app.x', 'evil', false) a",
            "Q table v",
            "Q drop view v",
        ),
        (
            "Q alter table d alter a set default set_config('app.x', 'evil', false)",
            "Q insert into d default values",
            "Q alter table d alter a drop default",
        ),
        (
            "Q create rule r as on insert to d do also select set_config('app.x', 'evil', false)",
            "Q insert into d values ('')",
            "Q drop rule r on d",
        ),
    ] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
        let [mut one, mut two, mut three] = clients(&gateway);
        one.say(&["Q create table d (a text)"]);
        settled();
        one.say(&[define]);
        two.say(&[uses]);
        one.say(&[undo]);
        settled();
        for client in [&mut three, &mut one] {
            assert_eq!(client.say(&[&seen("x")]), "() SELECT 1 I", "{define}");
        }
        assert_eq!(two.say(&[&seen("x")]), "(evil) SELECT 1 I", "{define}");
    }
}

/// What there is before a pool knows anything of it.
#[test]
fn code_that_code_from_before_the_pool_defines() {
    let (lab, mut gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    lab.superuser_sql(
        "create function mk() returns void language plpgsql as $$ begin create function i() returns text \
             language sql as 'select set_config(''app.x'', ''evil'', false)'; end $$; \
             create function un() returns void language plpgsql as $$ begin drop function i(); end $$",
    )
    .unwrap();
    gateway.restart();
    let [mut one, mut two, mut three] = clients(&gateway);
    one.say(&["Q select mk()"]);
    two.say(&["Q select i()"]);
    one.say(&["Q select un()"]);
    settled();
    for client in [&mut three, &mut one] {
        assert_eq!(client.say(&[&seen("x")]), "() SELECT 1 I");
    }
}

#[test]
fn locks_of_indexes_and_statistics_that_no_text_names() {
    for (define, uses) in [
        ("Q create index on t (f(a))", "Q analyze"),
        ("Q create index on t (f(a))", "Q vacuum (analyze)"),
        ("Q create statistics st on (f(a)), b from t", "Q analyze t"),
        (
            "Q create index ti on t using brin (f(a)) with (pages_per_range = 2); insert into t select g, g from generate_series(1, 5000) g",
            "Q select brin_summarize_new_values('ti')",
        ),
        (
            "Q create index ti on t using brin (f(a)) with (pages_per_range = 2); insert into t select g, g from generate_series(1, 5000) g; \
             create view v as select brin_summarize_new_values('ti') > 0 as a",
            "Q select * from v",
        ),
        (
            "Q create index ti on t (f(a)); create function m() returns void language plpgsql as $$ begin analyze; end $$",
            "Q select m()",
        ),
        (
            "Q create index ti on t (f(a)); create function m() returns void language plpgsql as $$ begin reindex index ti; end $$",
            "Q select m()",
        ),
    ] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
        let [mut one, mut two] = clients(&gateway);
        one.say(&[
            "Q create table t (a int, b int)",
            "Q insert into t select g, g from generate_series(1, 1000) g",
            "Q create function f(int) returns int language plpgsql immutable as \
             $$ begin perform pg_advisory_lock(7); return $1; end $$",
            define,
            "Q select pg_advisory_unlock_all()",
        ]);
        settled();
        one.say(&["Q discard all"]);
        settled();
        one.say(&[uses]);
        settled();
        let taken = two.say(&["Q select pg_try_advisory_lock(7)"]);
        assert_eq!(taken, "(f) SELECT 1 I", "{define}, {uses}");
    }
}

#[test]
fn a_seed_that_a_function_sets_while_it_runs() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
    one.say(&["Q create function f() returns int language sql set seed = 0.5 as 'select 1'"]);
    settled();
    let seeded = after_seed(&mut one);
    two.say(&["Q select f()"]);
    settled();
    assert!(!three.say(&["Q select random()"]).contains(&seeded), "{seeded}");
    assert!(two.say(&["Q select random()"]).contains(&seeded), "{seeded}");
}

#[test]
fn a_seed_of_an_index_that_no_text_names() {
    for uses in ["Q analyze", "Q reindex index ti", "Q select m()"] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
        let [mut one, mut two, mut three] = clients(&gateway);
        one.say(&[
            "Q create table t (a int)",
            "Q insert into t select generate_series(1, 1000)",
            "Q create function f(int) returns int language plpgsql immutable as \
             $$ begin perform setseed(0.5); return $1; end $$",
            "Q create index ti on t (f(a))",
            "Q create function m() returns void language plpgsql as $$ begin analyze; end $$",
        ]);
        drop(one);
        settled();
        let seeded = after_seed(&mut three);
        two.say(&[uses]);
        settled();
        let mut four = Client::new(&gateway, &[]);
        assert!(!four.say(&["Q select random()"]).contains(&seeded), "{uses}");
        assert!(two.say(&["Q select random()"]).contains(&seeded), "{uses}");
    }
}

#[test]
fn what_statistics_call_of_postgresqls_own() {
    for uses in ["Q analyze", "Q analyze t"] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
        let [mut one, mut two, mut three] = clients(&gateway);
        one.say(&[
            "Q create table t (a int, b int)",
            "Q insert into t select 7, g from generate_series(1, 10) g",
            "Q create statistics st on (setseed(0.5) is null), (pg_try_advisory_lock(a)) from t",
        ]);
        drop(one);
        std::thread::sleep(std::time::Duration::from_millis(700));
        let seeded = after_seed(&mut three);
        two.say(&[uses]);
        settled();
        let mut four = Client::new(&gateway, &[]);
        assert!(!four.say(&["Q select random()"]).contains(&seeded), "{uses}");
        assert_eq!(
            four.say(&["Q select pg_try_advisory_lock(7)"]),
            "(f) SELECT 1 I",
            "{uses}"
        );
    }
}

#[test]
fn a_seed_that_a_routine_sets_and_no_longer() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
    one.say(&["Q create function f() returns int language sql as 'select 1'"]);
    settled();
    let seeded = after_seed(&mut one);
    two.say(&[
        "Q alter routine f() set seed = 0.5",
        "Q select f()",
        "Q alter routine f() reset seed",
    ]);
    settled();
    assert!(!three.say(&["Q select random()"]).contains(&seeded), "{seeded}");
}
