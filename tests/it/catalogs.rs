//! What a text may do depends on the database's catalogs, which change: no client may meet a change before Postern knows it.

use crate::gateway::with_pool;
use crate::short::{Client, ONE, clients, seen, sets, settled, with_free_pool};

#[test]
fn code_that_was_defined_just_now_is_known_for_what_it_does() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
    let set = |name: &str, tenant: &str| {
        format!(
            "create or replace function {name}() returns text language sql as \
             $$ select set_config('app.{tenant}', 'of one', false) $$"
        )
    };
    let seen = |tenant: &str| format!("Q select coalesce(current_setting('app.{tenant}', true), '')");
    one.say(&[&format!("Q {}", set("late", "tenant"))]);
    one.say(&["Q select late()"]);
    assert_eq!(one.say(&[&seen("tenant")]), "(of one) SELECT 1 I");
    assert_eq!(two.say(&[&seen("tenant")]), "() SELECT 1 I");
    // A function that isn't there any more by the time anybody looks.
    let text = format!(
        "Q begin; {}; select gone(); drop function gone(); commit",
        set("gone", "other")
    );
    one.say(&[&text]);
    for _ in 0..3 {
        assert_eq!(two.say(&[&seen("other")]), "() SELECT 1 I");
    }
    assert_eq!(one.say(&[&seen("other")]), "(of one) SELECT 1 I");
}

#[test]
fn code_counts_from_the_moment_on_that_others_can_run_it() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
    one.say(&["Q select 1"]);
    // Its definer goes on, or hasn't finished its text.
    one.say_and_go_on(&[&sets("early"), "select pg_sleep(1)"]);
    assert_eq!(two.say(&["Q select early()"]), "(evil) SELECT 1 I");
    for _ in 0..3 {
        assert_eq!(three.say(&[&seen("early")]), "() SELECT 1 I");
    }
    one.told(1);
    let text = format!("begin; {}; commit; select pg_sleep(1)", sets("middle"));
    one.0.message('Q', &[text.as_bytes(), b"\0"].concat());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(two.say(&["Q select middle()"]), "(evil) SELECT 1 I");
    for _ in 0..3 {
        assert_eq!(three.say(&[&seen("middle")]), "() SELECT 1 I");
    }
    one.told(1);
    // Somebody looks while it can't be seen yet.
    let text = format!(
        "begin; {}; select pg_sleep(0.6); commit; select pg_sleep(1)",
        sets("later")
    );
    one.0.message('Q', &[text.as_bytes(), b"\0"].concat());
    std::thread::sleep(std::time::Duration::from_millis(200));
    two.say(&["Q create table other (a int)"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(two.say(&["Q select later()"]), "(evil) SELECT 1 I");
    settled();
    for _ in 0..3 {
        assert_eq!(three.say(&[&seen("later")]), "() SELECT 1 I");
    }
    one.told(1);
}

#[test]
fn code_counts_that_is_gone_by_the_time_that_anybody_looks() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
    one.say(&["Q select 1"]);
    two.say(&["Q begin", "Q select 1"]);
    one.say_and_go_on(&[&sets("gone"), "select pg_sleep(0.5)", "drop function gone()"]);
    assert_eq!(two.say(&["Q select gone()"]), "(evil) SELECT 1 T");
    one.told(2);
    two.say(&["Q commit"]);
    settled();
    for _ in 0..3 {
        assert_eq!(three.say(&[&seen("gone")]), "() SELECT 1 I");
    }
    assert_eq!(two.say(&[&seen("gone")]), "(evil) SELECT 1 I");
}

#[test]
fn a_view_is_known_at_once_for_what_it_does() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q create sequence numbers; create view draws as select nextval('numbers')"]);
    settled();
    // Nobody's numbers any more.
    two.say(&["Q select 1"]);
    two.say(&["Q table draws"]);
    assert_eq!(one.say(&["Q select lastval()"]), "55000 I");
}

#[test]
fn who_sets_how_texts_are_read_is_not_tied() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q select 1"]);
    settled();
    // While nobody knows what texts do.
    one.say_and_go_on(&[&sets("meanwhile"), "select pg_sleep(0.5)"]);
    let set = "Q set standard_conforming_strings = on";
    assert_eq!(two.say(&[set, set, "Q select 2"]), "SET I SET I (2) SELECT 1 I");
    settled();
    assert_eq!(gateway.metric("postern_pool_pins_total", &["app_rw"]), 0.0);
    one.told(1);
    // A text that may be read in two ways may be anything.
    let off = "Q set standard_conforming_strings = off";
    let answers = two.say(&[off, "Q select 'it\\'s'"]);
    assert_eq!(
        answers,
        "SET [standard_conforming_strings=off] I (it's) SELECT 1 I"
    );
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
}

#[test]
fn a_seed_ends_with_its_client() {
    let (_lab, gateway) = with_free_pool(ONE);
    for (name, begin) in [("seeds", ""), ("seeds_in_transaction", "begin; ")] {
        let mut one = Client::new(&gateway, &[]);
        let define =
            format!("create function {name}() returns text language sql as $$ select setseed(0.5)::text $$");
        let answers = one.say_and_go_on(&[&define, &format!("{begin}select {name}()")]);
        assert_eq!(answers, "CREATE FUNCTION I");
        one.told(1);
        one.0.message('X', b"");
        drop(one);
        let mut two = Client::new(&gateway, &[]);
        let random = two.say(&["Q select random()"]);
        let seeded = two.say(&["Q select setseed(0.5)", "Q select random()"]);
        assert!(!seeded.ends_with(&random), "{random}");
    }
}

#[test]
fn what_code_has_left_that_others_have_changed_goes_once_that_is_known() {
    let (lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q create function turns() returns text language sql as $$ select 'harmless' $$"]);
    for client in [&mut one, &mut two] {
        assert_eq!(client.say(&["Q select turns()"]), "(harmless) SELECT 1 I");
    }
    settled();
    lab.superuser_sql(&sets("turns")).unwrap();
    assert_eq!(one.say(&["Q select turns()"]), "(evil) SELECT 1 I");
    let mut left = two.say(&[&seen("turns")]);
    for _ in 0..50 {
        if left == "() SELECT 1 I" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        left = two.say(&[&seen("turns")]);
    }
    assert_eq!(left, "() SELECT 1 I");
    // From now on it is known what it does.
    assert_eq!(one.say(&["Q select turns()"]), "(evil) SELECT 1 I");
    assert_eq!(two.say(&[&seen("turns")]), "() SELECT 1 I");
    assert_eq!(one.say(&[&seen("turns")]), "(evil) SELECT 1 I");
}

#[test]
fn who_is_at_work_while_others_define_code_is_not_tied() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two, mut three] = clients(&gateway);
    one.say(&["Q create table busy (a text); create view narrow as select a from busy"]);
    two.say(&["Q select 1"]);
    settled();
    let define = "create function computes() returns trigger language plpgsql as \
                  $$ begin perform set_config('app.' || 'late', 'evil', false); return new; end $$";
    let text = format!(
        "begin; {define}; create trigger t before insert on busy for each row execute function computes(); commit; \
         select pg_sleep(1); drop trigger t on busy; drop function computes()"
    );
    one.0.message('Q', &[text.as_bytes(), b"\0"].concat());
    std::thread::sleep(std::time::Duration::from_millis(300));
    // It ends when what it has run is gone.
    let answers = two.say(&[
        "Q insert into narrow values ('x')",
        "Q select 1 from pg_sleep_for('1.2 s')",
    ]);
    assert_eq!(answers, "INSERT 0 1 I (1) SELECT 1 I");
    one.told(1);
    // Who has defined it names it, and is tied.
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 1.0);
    assert_eq!(three.say(&[&seen("late")]), "() SELECT 1 I");
    assert_eq!(two.say(&["Q select 2"]), "(2) SELECT 1 I");
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 1.0);
}

#[test]
fn who_makes_tables_in_a_text_with_others_is_not_tied() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q create table first (a text default 'neither (code' check (a <> '^(x|y)')); select 'first'"]);
    // What was run together with a definition isn't defined by it, and its words are nobody's names.
    one.0.message(
        'Q',
        b"begin; create function computes() returns void language plpgsql as $$ begin execute 'select 1'; end $$; \
          select setseed(0.5); select pg_sleep(0.3); commit\0",
    );
    assert_eq!(
        two.say(&["Q select 'create' from pg_sleep_for('0.5 s')"]),
        "(create) SELECT 1 I"
    );
    one.told(1);
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 1.0);
    gateway.wait_for_metric("postern_pool_pins_total", &["app_rw", "opaque"], 0.0);
}

#[test]
fn values_are_read_in_any_encoding_and_names_in_one() {
    let (_lab, gateway) = with_free_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    one.say(
        &["Q create function \"\u{e9}\"() returns text language plpgsql as \
               $$ begin return set_config('app.' || 'tenant', 'evil', false); end $$"],
    );
    let (mut latin, mut other) = (
        Client::new(&gateway, &[("client_encoding", "LATIN1")]),
        Client::new(&gateway, &[]),
    );
    let mut say = |text: &[u8]| {
        latin.0.message('Q', &[text, b"\0"].concat());
        latin.told(1)
    };
    assert!(say(b"select length('\xe9'), E'\xe9\\'' -- \xe9").ends_with("SELECT 1 I"));
    assert!(say(b"set application_name = '\xe9'").starts_with("SET"));
    assert_eq!(other.say(&["Q select 1"]), "(1) SELECT 1 I");
    assert!(say(b"select \"\xe9\"()").ends_with("SELECT 1 I"));
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
    drop(latin);
    assert_eq!(other.say(&[&seen("tenant")]), "() SELECT 1 I");
}

#[test]
fn what_the_database_s_own_functions_do_under_other_names_is_nobody_elses() {
    for (define, run, seen) in [
        (
            "create operator z.@@@ (rightarg = bigint, function = pg_advisory_lock)",
            "select operator(z.@@@) 77::bigint",
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        ),
        (
            "create operator z.@@@ (rightarg = bigint, function = pg_advisory_lock); \
             create view z.w as select operator(z.@@@) 5::bigint is null as a",
            "select * from z.w",
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        ),
        (
            "create aggregate z.agg(text, bool) (sfunc = set_config, stype = text, initcond = 'app.zzz')",
            "select z.agg('1', false)",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
        (
            "create function z.part(int) returns int immutable language plpgsql as \
             $$ begin perform set_config('app.zzz', '1', false); return 1; end $$; \
             create table z.p (a int) partition by list (z.part(a)); create table z.q partition of z.p for values in (1)",
            "insert into z.p values (1)",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
        (
            "create domain z.d as int check (set_config('app.zzz', '1', false) = '1'); create type z.comp as (a z.d)",
            "select record_in('(1)', 'z.comp'::regtype, -1)",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
        (
            "create view z.s as select * from pg_settings",
            "update z.s set setting = '17MB' where name = 'work_mem'",
            "select count(*) where current_setting('work_mem') = '17MB'",
        ),
        (
            "create table z.t (a text); create rule r as on insert to z.t do also \
             update pg_settings set setting = new.a where name = 'work_mem'",
            "insert into z.t values ('17MB')",
            "select count(*) where current_setting('work_mem') = '17MB'",
        ),
        (
            "select 1",
            "do 'begin perform 1; '\n'set app.zzz = 1; end'",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
        (
            "create function z.f() returns void language sql as \
             $$ do 'begin perform set_config(''app.zzz'', ''1'', false); end' $$",
            "select z.f()",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
        (
            "select 1",
            "do $a$ begin do $b$ begin perform set_config('app.zzz', '1', false); end $b$; end $a$",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
        (
            "select 1",
            "do 'begin perform ''--''; set app.zzz = 1; end'",
            "select count(*) where current_setting('app.zzz', true) <> ''",
        ),
    ] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
        let mut definer = Client::new(&gateway, &[]);
        definer.say(&[&format!("Q create schema z; {define}"), "Q discard all"]);
        definer.0.message('X', b"");
        settled();
        let mut one = Client::new(&gateway, &[]);
        let answers = one.say(&[&format!("Q {run}")]);
        assert!(
            answers.ends_with(" I") && !answers.contains("42"),
            "{run}: {answers}"
        );
        settled();
        let mut two = Client::new(&gateway, &[]);
        assert_eq!(two.say(&[&format!("Q {seen}")]), "(0) SELECT 1 I", "{run}");
    }
}

#[test]
fn a_query_ends_with_its_client_though_its_connection_is_not_given_back() {
    let (lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and state = 'active' \
                   and pid <> pg_backend_pid()";
    let mut two = Client::new(&gateway, &[]);
    for doubtful in [false, true] {
        let mut one = Client::new(&gateway, &[]);
        one.say(&[if doubtful {
            "Q select 1"
        } else {
            "Q select setseed(0.5)"
        }]);
        settled();
        one.0.message('Q', b"select pg_sleep(600)\0");
        settled();
        assert_eq!(lab.superuser_sql(running).unwrap().trim(), "1");
        if doubtful {
            // What the other runs may be anything, now.
            two.say(&["Q create table mine_too (a int)"]);
        }
        drop(one);
        let mut left = String::new();
        for _ in 0..50 {
            left = lab.superuser_sql(running).unwrap();
            if left.trim() == "0" {
                break;
            }
            settled();
        }
        assert_eq!(left.trim(), "0", "doubtful: {doubtful}");
    }
}

#[test]
fn another_name_for_a_function_of_the_database_s_own_is_known_for_what_it_does() {
    let (lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    lab.superuser_sql(
        "create function public.mine(text, text, bool) returns text language internal as 'set_config_by_name'; \
         create function public.shout(text) returns text language internal as 'upper'; create extension citext",
    )
    .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let [mut one, mut two] = clients(&gateway);
    for harmless in ["Q select shout('a')", "Q select 'A'::citext = 'a'"] {
        one.say(&[harmless]);
        settled();
        assert_eq!(
            gateway.metric("postern_pool_connections", &["app_rw", "leased"]),
            0.0,
            "{harmless}"
        );
    }
    assert_eq!(
        one.say(&["Q select mine('app.zzz', '1', false)"]),
        "(1) SELECT 1 I"
    );
    settled();
    let seen = "Q select coalesce(current_setting('app.zzz', true), '')";
    assert_eq!(two.say(&[seen]), "() SELECT 1 I");
    assert_eq!(one.say(&[seen]), "(1) SELECT 1 I");
}

#[test]
fn what_was_prepared_by_sql_is_judged_by_what_it_does_by_now() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let mut other = Client::new(&gateway, &[]);
    other.say(&["Q create function turns() returns void language plpgsql as $$ begin end $$"]);
    let known = || std::thread::sleep(std::time::Duration::from_secs(2));
    known();
    let mut one = Client::new(&gateway, &[]);
    assert_eq!(one.say(&["Q prepare p as select turns()"]), "PREPARE I");
    settled();
    other.say(&[
        "Q create or replace function turns() returns void language plpgsql as \
                 $$ begin execute 'set app.' || 'turned = 1'; end $$",
    ]);
    known();
    assert_eq!(one.say(&["Q execute p"]), "() SELECT 1 I");
    settled();
    assert_eq!(one.say(&["Q deallocate p"]), "DEALLOCATE I");
    settled();
    let mut two = Client::new(&gateway, &[]);
    for client in [&mut other, &mut two] {
        let seen = [
            "Q begin",
            "Q select coalesce(current_setting('app.turned', true), '')",
        ];
        assert_eq!(client.say(&seen), "BEGIN T () SELECT 1 T");
        client.say(&["Q rollback"]);
    }
}

#[test]
fn who_only_defines_code_is_not_tied() {
    let (_lab, gateway) = with_free_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    one.say(&["Q select 1"]);
    let define = "create or replace function anything(a text) returns void language plpgsql as \
                  $$ begin execute a; end $$";
    for _ in 0..2 {
        assert_eq!(one.say(&[&format!("Q {define}")]), "CREATE FUNCTION I");
        gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 0.0);
    }
    one.say(&["Q select anything('select 1')"]);
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
}

#[test]
fn the_catalogs_are_read_whatever_is_locked() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q select 1"]);
    settled();
    one.say(&["Q create schema mine; create table mine.locked (a int); create sequence mine.numbers"]);
    one.say(&[
        "Q create function mine.counts() returns bigint begin atomic select count(*) from mine.locked; end",
        "Q create function mine.sets() returns text begin atomic select set_config('work_mem', '3MB', false); end",
    ]);
    let answers = one.say(&["Q begin; alter table mine.locked add column b int"]);
    assert_eq!(answers, "BEGIN ALTER TABLE T");
    let answers = two.say(&[
        "Q set lock_timeout = '300ms'",
        "Q create table mine.other (a int)",
    ]);
    assert_eq!(answers, "SET I CREATE TABLE I");
    assert_eq!(two.say(&["Q select 2"]), "(2) SELECT 1 I");
    // It was settled what the other has left, and it keeps nothing, while the table is locked.
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 1.0);
    one.say(&["Q rollback"]);
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 0.0);
    // What stands in a body that was parsed is known all the same.
    assert_eq!(one.say(&["Q select mine.sets()"]), "(3MB) SELECT 1 I");
    settled();
    for _ in 0..3 {
        assert_eq!(two.say(&["Q show work_mem"]), "(4MB) SHOW I");
    }
}

#[test]
fn a_client_goes_on_where_the_catalogs_cannot_be_read() {
    let (lab, gateway) = with_free_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    one.say(&["Q select 1"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.superuser_sql(
                "begin; lock table pg_catalog.pg_policy in access exclusive mode; select pg_sleep(4); commit",
            )
        });
        settled();
        let answers = one.say(&["Q create schema mine", "Q select 2"]);
        assert_eq!(answers, "CREATE SCHEMA I (2) SELECT 1 I");
        gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
        assert_eq!(one.say(&["Q select 3"]), "(3) SELECT 1 I");
    });
}

/// Each of these sets `app.leak` in words that don't show it; what a client is told then doesn't matter.
const HIDDEN: [&[&str]; 8] = [
    &[
        "Q set standard_conforming_strings = on",
        "Q do U&'begin perform set_config(''app.leak'', ''evil'', false); end'",
    ],
    &["Q select U&\"set_config\"('app.leak', 'evil', false)"],
    &[
        "P s select set_config('app.leak', 'evil', false)",
        "S",
        "Q execute s",
    ],
    &["P s set app.leak to 'evil'", "S", "P - execute s", "B -", "S"],
    &["P s set app.leak to 'evil'", "S", "P t execute s", "B t", "S"],
    &[
        "Q prepare p as select set_config('app.leak', 'evil', false)",
        "Q execute p",
        "Q deallocate p",
    ],
    &[
        "Q prepare p as select set_config('app.leak', 'evil', false)",
        "B p",
        "S",
        "Q deallocate p",
    ],
    &[
        "Q create function pg_temp.f() returns text language sql as $$ select U&\"set_config\"('app.leak', 'evil', false) $$; select pg_temp.f(); drop function pg_temp.f()",
    ],
];

#[test]
fn what_is_hidden_in_other_words_is_nobody_elses() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    let mut two = Client::new(&gateway, &[]);
    two.say(&["Q select 1"]);
    settled();
    for said in HIDDEN {
        let mut one = Client::new(&gateway, &[]);
        one.say(&["Q set standard_conforming_strings = off"]);
        if !said[0].contains("U&'begin") {
            one.say(&["Q reset standard_conforming_strings"]);
        }
        let answers = one.say(said);
        assert!(
            !answers.contains(" 42") && !answers.starts_with("42"),
            "{said:?}: {answers}"
        );
        assert_eq!(one.say(&["Q show app.leak"]), "(evil) SHOW I", "{said:?}");
        settled();
        for _ in 0..3 {
            let seen = two.say(&["Q select coalesce(current_setting('app.leak', true), '')"]);
            assert_eq!(seen, "() SELECT 1 I", "{said:?}");
        }
        one.0.message('X', b"");
        settled();
        let seen = two.say(&["Q select coalesce(current_setting('app.leak', true), '')"]);
        assert_eq!(seen, "() SELECT 1 I", "{said:?}");
    }
}

#[test]
fn a_seed_that_no_text_shows_is_nobody_elses() {
    let (_lab, gateway) = with_pool(ONE);
    let seeded = {
        let mut one = Client::new(&gateway, &[]);
        one.say(&["Q select setseed(0.5)", "Q select random()"])
    };
    for said in [
        "Q do $$ begin execute 'select setseed(0.5)'; end $$",
        "Q select U&\"setseed\"(0.5)",
    ] {
        settled();
        let mut one = Client::new(&gateway, &[]);
        one.say(&[said]);
        one.0.message('X', b"");
        drop(one);
        settled();
        let mut two = Client::new(&gateway, &[]);
        let random = two.say(&["Q select random()"]);
        assert!(!seeded.ends_with(&random), "{said}: {random}");
        two.0.message('X', b"");
    }
}
