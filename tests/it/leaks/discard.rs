//! What was run before DISCARD ALL, and what behind it.

use super::{TWO, sleep};
use crate::short::{Client, clients, seen, settled, with_free_pool};

#[test]
fn discard_all_and_then_code_that_changes() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
    let [mut one, mut two, mut three] = clients(&gateway);
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
fn code_that_code_changes_behind_discard_all_or_not() {
    for first in ["discard all", "select 1"] {
        let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 3");
        let [mut one, mut two, mut three] = clients(&gateway);
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
fn a_seed_before_discard_all() {
    let (_lab, gateway) = with_free_pool(TWO);
    let mut zero = Client::new(&gateway, &[]);
    zero.say(&["Q select setseed(0.5)"]);
    let seeded = zero.say(&["Q select random()"]);
    drop(zero);
    settled();
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
    let [mut one, mut two, mut three] = clients(&gateway);
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
