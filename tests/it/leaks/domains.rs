//! Code that runs without being named: what checks values, wherever the server reads them.

use postern_lab::Lab;

use super::compared::{AUTO1, AUTO3, compare, nowhere};
use crate::gateway::Gateway;
use crate::raw::frame;
use crate::short::{Client, after_seed, clients, settled, with_free_pool};

const SHOW: &str = "Q select coalesce(current_setting('app.x', true), ''), current_setting('work_mem'), \
                    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())";

/// A domain whose check leaves something behind, and nobody who has left it yet.
fn check_with(gateway: &Gateway, does: &str) -> [Client; 3] {
    let [mut one, two, three] = clients(gateway);
    for text in [
        &format!(
            "Q create function chk(int) returns bool language plpgsql as $$ begin {does}; return true; end $$"
        ),
        "Q create domain d as int check (chk(value))",
        "Q create type c as (x d)",
        "Q create table t (x d[])",
        "Q discard all",
    ] {
        one.say(&[text]);
    }
    settled();
    // As often as it takes to have them known.
    std::thread::sleep(std::time::Duration::from_millis(500));
    [one, two, three]
}

const SETS: &str = "perform set_config('app.x', 'evil', false), set_config('work_mem', '77kB', false)";
const LOCKS: &str = "perform pg_advisory_lock(9)";

fn said(mut one: Client, mut two: Client, says: &[&str]) -> Vec<String> {
    let mut said = vec![one.say(says)];
    settled();
    said.push(two.say(&[SHOW]));
    settled();
    said.push(one.say(&[SHOW]));
    said
}

#[test]
fn constants_are_checked_where_they_are_prepared() {
    for says in [
        ["P s select '{1}'::d[]", "S"],
        ["P s select '(1)'::c", "S"],
        ["P s insert into t values ('{1}')", "S"],
        ["P - select '{1}'::d[]", "S"],
    ] {
        for does in [SETS, LOCKS] {
            compare(AUTO3, says[0], |_, gateway| {
                let [one, two, _] = check_with(gateway, does);
                said(one, two, &says)
            });
        }
    }
}

#[test]
fn constants_are_checked_where_the_gateway_prepares_them() {
    for (prepares, says) in [
        (["P s select '{1}'::d[]", "S"], ["D s", "S"]),
        (["P - select '{1}'::d[]", "S"], ["D -", "S"]),
    ] {
        compare(AUTO1, says[0], |_, gateway| {
            let [mut one, mut two, three] = check_with(gateway, SETS);
            one.say(&prepares);
            settled();
            one.say(&["Q reset all"]);
            two.say(&["P - select 1", "B -", "S"]);
            nowhere(&mut two);
            // What it does to the client itself is done where the client has it prepared, and here.
            one.say(&says);
            settled();
            said(three, two, &["Q select 1"])
        });
    }
}

#[test]
fn constants_are_checked_again_after_a_change() {
    compare(AUTO1, "described", |_, gateway| {
        let [mut one, mut two, three] = check_with(gateway, "null");
        one.say(&["P s select '{1}'::d[]", "S"]);
        settled();
        two.say(&[&format!(
            "Q create or replace function chk(int) returns bool language plpgsql as $$ begin {SETS}; return true; end $$; \
             create table d_changed (x d); alter domain d add check (value < 100)"
        )]);
        two.say(&["Q reset all", "Q discard plans"]);
        settled();
        said(one, three, &["D s", "S"])
    });
}

#[test]
fn parameters_are_checked_by_the_types_they_are_said_to_have() {
    for (name, is_array) in [("s", false), ("s", true), ("", false)] {
        compare(AUTO3, name, |lab: &Lab, gateway| {
            let [mut one, two, _] = check_with(gateway, SETS);
            let typname = if is_array { "_d" } else { "d" };
            let oid = lab
                .superuser_sql(&format!("select oid from pg_type where typname = '{typname}'"))
                .unwrap();
            let oid: u32 = oid.trim().parse().unwrap();
            let value: &[u8] = if is_array { b"{1}" } else { b"1" };
            let of = |name: &str, rest: &[u8]| [name.as_bytes(), b"\0", rest].concat();
            let parse = [&b"select $1\0\0\x01"[..], &oid.to_be_bytes()].concat();
            let length = u32::try_from(value.len()).unwrap();
            let bind = [&b"\0\0\0\x01"[..], &length.to_be_bytes(), value, &[0; 2]].concat();
            one.0.send(
                &[
                    frame('P', &of(name, &parse)),
                    frame('B', &[b"\0", &of(name, &bind)[..]].concat()),
                    frame('E', &[0; 5]),
                ]
                .concat(),
            );
            said(one, two, &["S"])
        });
    }
}

#[test]
fn checks_that_lead_to_other_checks() {
    for (define, says) in [
        (
            "Q create domain e as text check (value::int::d is not null)",
            "Q select '5'::e",
        ),
        (
            "Q create domain e as text check ((value::c).x is not null); create table te (x e)",
            "Q insert into te values ('(1)')",
        ),
    ] {
        for does in [SETS, LOCKS] {
            compare(AUTO3, define, |_, gateway| {
                let [mut one, two, _] = check_with(gateway, does);
                one.say(&[define]);
                settled();
                one.say(&["Q discard all"]);
                settled();
                said(one, two, &[says])
            });
        }
    }
}

#[test]
fn texts_that_are_not_understood_are_read_as_well() {
    for says in [
        ["P s select '{1}'::U&\"_d\"", "S"],
        ["P - select '{1}'::U&\"_d\"", "S"],
        // In another encoding.
        ["P - select '{1}'::d[] as \u{e9}", "S"],
    ] {
        compare(AUTO3, says[0], |_, gateway| {
            let [mut one, two, _] = check_with(gateway, SETS);
            if says[0].contains('\u{e9}') {
                one.say(&["Q set client_encoding = latin1"]);
                settled();
            }
            said(one, two, &says)
        });
    }
}

#[test]
fn code_that_is_gone_has_been_read_by_whoever_defined_it() {
    let (_lab, gateway) = with_free_pool(AUTO3);
    let [mut one, mut two, mut three] = check_with(&gateway, "null");
    let seeded = after_seed(&mut three);
    // The error undoes what was defined.
    one.say(&[
        "P - create or replace function chk(int) returns bool language plpgsql as $$ begin perform setseed(0.5); return true; end $$",
        "B -",
        "P s select '{1}'::d[]",
        "P - selec",
        "S",
    ]);
    settled();
    assert!(!two.say(&["Q select random()"]).contains(&seeded));
}

#[test]
fn checks_that_maintain_or_change_catalogs() {
    for does in ["analyze", "create table zz (a int)"] {
        let (lab, gateway) = with_free_pool(AUTO3);
        let [mut one, mut two, mut three] = clients(&gateway);
        let check = format!(
            "Q create function chk(int) returns bool language plpgsql as $$ begin {does}; return true; end $$"
        );
        one.say(&[
            "Q create table u (a int)",
            "Q insert into u select generate_series(1, 1000)",
            "Q create function f(int) returns int language plpgsql immutable as $$ begin perform setseed(0.5); return $1; end $$",
            "Q create index ui on u (f(a))",
            &check,
            "Q create domain d as int check (chk(value))",
        ]);
        drop(one);
        lab.superuser_sql(
            "create function public.evt() returns event_trigger language plpgsql as $$ begin perform setseed(0.5); end $$; \
             create event trigger et on ddl_command_end execute function public.evt()",
        )
        .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(4000));
        let seeded = after_seed(&mut three);
        two.say(&["P s select '{1}'::d[]", "S"]);
        settled();
        let mut four = Client::new(&gateway, &[]);
        assert!(!four.say(&["Q select random()"]).contains(&seeded), "{does}");
    }
}

/// How often clients were tied, for reasons that no server tells of.
fn ties(gateway: &Gateway) -> f64 {
    let of = |reason: &str| gateway.metric("postern_pool_pins_total", &[&format!("reason=\"{reason}\"")]);
    of("opaque") + of("sequence") + of("seed") + of("unknown")
}

#[test]
fn nothing_else_is_run_where_a_statement_is_prepared() {
    compare(AUTO1, "not run", |_, gateway| {
        let [mut one, mut two] = clients(gateway);
        let mut said = vec![one.say(&[
            "P a select set_config('datestyle', 'German, DMY', false)",
            "P b select date '01/02/2026'",
            "S",
        ])];
        nowhere(&mut two);
        said.push(one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]));
        said.push(one.say(&["B b", "S"]));
        said
    });
    let (_lab, gateway) = with_free_pool(AUTO3);
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create procedure p(text) language sql as 'select 1'; create sequence s"]);
    settled();
    for says in [
        &["P - call p('a')", "B -", "S"][..],
        &["P - call p('\u{e9}')", "B -", "S"],
        &["P s select currval('s')", "D s", "S"],
    ] {
        one.say(says);
        settled();
        assert!(ties(&gateway).abs() < f64::EPSILON, "{says:?}");
    }
    two.say(&[
        "Q begin",
        "Q create function zz() returns text language sql as $$ select set_config('a.b', 'x', false) $$",
    ]);
    one.say(&["P - select '\u{e9}'", "B -", "S"]);
    settled();
    assert!(ties(&gateway).abs() < f64::EPSILON, "while others define code");
}

#[test]
fn a_parameter_of_an_execute_that_is_checked_otherwise_since() {
    let (lab, gateway) = with_free_pool(AUTO3);
    let [mut one, mut two, mut three] = check_with(&gateway, "null");
    let oid = lab
        .superuser_sql("select oid from pg_type where typname = 'd'")
        .unwrap();
    let oid: u32 = oid.trim().parse().unwrap();
    let seeded = after_seed(&mut three);
    one.say(&["P s select 1", "S"]);
    let parse = [&b"\0execute s\0\0\x01"[..], &oid.to_be_bytes()].concat();
    one.0.send(&[frame('P', &parse), frame('S', b"")].concat());
    one.told(1);
    settled();
    three.say(&[
        "Q create or replace function chk(int) returns bool language plpgsql as $$ begin perform setseed(0.5); return true; end $$",
    ]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    one.0
        .send(&[frame('B', b"\0\0\0\0\0\x01\0\0\0\x011\0\0"), frame('E', &[0; 5])].concat());
    one.say(&["S"]);
    settled();
    assert!(!two.say(&["Q select random()"]).contains(&seeded));
}

#[test]
fn what_is_not_shown_to_everybody_is_nobody_elses() {
    // The second is Debian's.
    for name in ["dynamic_library_path", "extension_destdir"] {
        compare(AUTO3, name, |lab: &Lab, gateway| {
            let define = |sql: &str| lab.superuser_sql(sql).unwrap();
            define(&format!(
                "create function public.sd() returns text language sql security definer as $$ select set_config('{name}', '/evil', false) $$"
            ));
            define(&format!(
                "create function public.rd() returns text language sql security definer as $$ select current_setting('{name}', true) $$"
            ));
            let [mut one, mut two] = clients(gateway);
            one.say(&["Q discard all"]);
            // Long enough for what is defined from outside to be known.
            std::thread::sleep(std::time::Duration::from_millis(4000));
            let mut said = vec![one.say(&["Q select public.sd()"])];
            settled();
            said.push(two.say(&["Q select public.rd()"]));
            settled();
            said.push(one.say(&["Q select public.rd()"]));
            said
        });
    }
}

#[test]
fn what_is_not_shown_is_set_by_who_may() {
    compare(AUTO3, "SET dynamic_library_path", |lab: &Lab, gateway| {
        lab.superuser_sql("grant set on parameter dynamic_library_path to app_rw")
            .unwrap();
        lab.superuser_sql(
            "create function public.rd() returns text language sql security definer as \
             $$ select current_setting('dynamic_library_path') $$",
        )
        .unwrap();
        let [mut one, mut two] = clients(gateway);
        let mut said = vec![one.say(&["Q set dynamic_library_path = '/mine'"])];
        settled();
        said.push(two.say(&["Q select public.rd()"]));
        settled();
        said.push(one.say(&["Q select public.rd()"]));
        said
    });
}
