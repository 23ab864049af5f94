//! What several clients see that share connections and statements under changing settings, compared with a pool in session mode.

use super::compared::{AUTO1, AUTO3, compare, nowhere};
use super::readings::bind_seven;
use crate::gateway::Gateway;
use crate::short::{Client, clients, settled};

/// A constant in a transaction that `sets` something, and behind what ends it in the same flight.
fn ends(g: &Gateway, sets: &[&str], together: &[&str]) -> Vec<String> {
    let [mut one, mut two, mut three] = clients(g);
    two.say(&["Q create procedure pc() language plpgsql as $$ begin perform set_config('DateStyle', 'German, DMY', true); commit; end $$",
     "Q create procedure pd() language plpgsql as $$ begin perform set_config('DateStyle', 'German, DMY', true); end $$",
     "Q create function fd() returns text language sql set datestyle = 'German, DMY' as $$ select (date '01/02/2026')::text $$"]);
    settled();
    let p = "P s select extract(month from date '01/02/2026')";
    let mut said = vec![one.say(&[p, "B s", "S"])];
    said.push(one.say(&[
        "P c commit",
        "P r rollback",
        "P b begin",
        "P rt rollback to a",
        "P l set local datestyle = 'German, DMY'",
        "S",
    ]));
    nowhere(&mut two);
    if !sets.is_empty() {
        for s in sets {
            said.push(one.say(&[s]));
        }
    }
    said.push(one.say(together));
    said.push(one.say(&["B s", "S"]));
    said.push(one.say(&["Q show datestyle"]));
    said.push(one.say(&["Q rollback"]));
    settled();
    said.push(one.say(&["B s", "S", "Q show datestyle"]));
    settled();
    said.push(two.say(&[p, "B s", "S"]));
    settled();
    said.push(three.say(&["Q set datestyle = 'ISO, DMY'"]));
    settled();
    said.push(three.say(&[p, "B s", "S"]));
    settled();
    said.push(two.say(&["B s", "S"]));
    said
}

#[test]
fn transactions_that_end_somehow() {
    compare(AUTO1, "ends", |_, g| {
        let local = "Q set local datestyle = 'German, DMY'";
        let mut all = vec![];
        let a: &[(&[&str], &[&str])] = &[
            (&["Q begin", local], &["Q select 1; commit; begin", "B s", "S"]),
            (&["Q begin", local], &["Q commit and chain", "B s", "S"]),
            (
                &["Q begin", "Q savepoint a", local],
                &["Q rollback to a", "B s", "S"],
            ),
            (&["Q begin", "Q savepoint a", local], &["B rt", "B s", "S"]),
            (&["Q begin", "Q savepoint a", local], &["Q release a", "B s", "S"]),
            (&["Q begin", local], &["Q select 1/0", "Q rollback", "B s", "S"]),
            (
                &["Q begin", local],
                &["P - select 1/0", "B -", "S", "B r", "B s", "S"],
            ),
            (&["Q begin"], &["B l", "H", "B s", "S"]),
            (&["Q begin"], &["B l", "S", "B s", "S", "B c", "S", "B s", "S"]),
            (&[], &["B b", "B l", "S", "B c", "S", "B s", "S"]),
            (&[], &["Q call pc()", "B s", "S"]),
            (&["Q begin"], &["Q call pd()", "B s", "S"]),
            (&["Q begin"], &["Q select fd()", "B s", "S"]),
            (
                &[],
                &[
                    "Q begin; set local datestyle = 'German, DMY'; commit; begin",
                    "B s",
                    "S",
                ],
            ),
            (&[], &["Q begin; set local datestyle = 'German, DMY'", "B s", "S"]),
            (
                &["Q begin; set local datestyle = 'German, DMY'"],
                &[
                    "P - savepoint x",
                    "B -",
                    "B s",
                    "P - rollback to x",
                    "B -",
                    "S",
                    "B s",
                    "S",
                ],
            ),
            (
                &["Q begin; set local datestyle = 'German, DMY'"],
                &[
                    "P - savepoint x",
                    "B -",
                    "B s",
                    "P - select 1/0",
                    "B -",
                    "S",
                    "Q rollback to x",
                    "B s",
                    "S",
                ],
            ),
        ];
        for (n, (s, t)) in a.iter().enumerate() {
            if n > 0 {
                let [mut x] = clients(g);
                x.say(&["Q drop procedure pc; drop procedure pd; drop function fd"]);
            }
            all.push(format!("\n   {n}: {:?}", ends(g, s, t)));
        }
        all
    });
}

/// A number in binary for a parameter whose column has type `ty` by now.
fn params(g: &Gateway, ty: &str, text: &str) -> Vec<String> {
    let [mut one] = clients(g);
    let ty = format!("Q create table p2.t (a {ty})");
    one.say(&[
        "Q create schema p1",
        "Q create schema p2",
        "Q create table p1.t (a int)",
        &ty,
        "Q insert into p2.t values (7)",
        "Q insert into p1.t values (7)",
    ]);
    settled();
    let mut said = vec![one.say(&["Q set search_path = p1"])];
    settled();
    said.push(one.say(&[text, "S"]));
    said.push(bind_seven(&mut one));
    settled();
    said.push(one.say(&["Q set search_path = p2"]));
    settled();
    said.push(bind_seven(&mut one));
    said
}

#[test]
fn parameters_of_another_integer_type() {
    compare(AUTO1, "params8", |_, g| {
        params(g, "int8", "P s select 1 from t where a = $1")
    });
}

#[test]
fn parameters_of_another_number_type() {
    compare(AUTO1, "paramsnum", |_, g| {
        params(g, "numeric", "P s insert into t values ($1) returning a")
    });
}

#[test]
fn constants_behind_a_semicolon() {
    compare(AUTO1, "semileaks", |_, g| {
        let [mut one, mut two, mut three] = clients(g);
        let p = ";SELECT extract(month from date '01/02/2026')";
        let p = format!("P s {p}");
        let mut said = vec![one.say(&[&p, "B s", "S"])];
        settled();
        three.say(&[&p, "B s", "S"]);
        nowhere(&mut two);
        said.push(one.say(&["Q begin", "Q set local datestyle = 'German, DMY'"]));
        said.push(one.say(&["B s", "S", "Q commit"]));
        settled();
        said.push(three.say(&["B s", "S"]));
        settled();
        said.push(two.say(&[&p, "B s", "S"]));
        said
    });
}

/// Four clients do what a seed says, one at a time, each with the same `text` prepared.
fn turns(g: &Gateway, text: &str, sets: &[&str], seeds: std::ops::Range<u64>) -> Vec<String> {
    let mut said = vec![];
    let mut cs: [Client; 4] = clients(g);
    cs[0].say(&[
        "Q create schema p1",
        "Q create schema p2",
        "Q create table p1.t (a int)",
        "Q create table p2.t (a int)",
        "Q create table public.t (a int)",
        "Q insert into p1.t values (1)",
        "Q insert into p2.t values (2)",
        "Q insert into public.t values (3)",
        "Q create schema ra",
        "Q create table ra.t (a int)",
        "Q insert into ra.t values (4)",
        "Q grant usage on schema ra, p1, p2 to public",
        "Q grant all on ra.t, p1.t, p2.t, public.t to public",
    ]);
    settled();
    for seed in seeds {
        let mut cs: [Client; 4] = clients(g);
        for c in &mut cs {
            said.push(c.say(&[text, "B s", "S"]));
        }
        let mut x: u64 = seed;
        let mut open = None;
        for _ in 0..100 {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let c = open.unwrap_or((x >> 33) as usize % 4);
            let s = sets[(x >> 40) as usize % sets.len()];
            let t = (x >> 50) % 6;
            said.push(format!(
                "\n {seed} {c} {t} {s}: {}",
                match t {
                    0 => cs[c].say(&["B s", "S", s, "B s", "S"]),
                    1 => cs[c].say(&[s]) + " | " + &cs[c].say(&["B s", "P - select 1/0", "B -", "B s", "S"]),
                    2 => cs[c].say(&[s]) + " | " + &cs[c].say(&["C s", text, "B s", "S"]),
                    _ => {
                        let a = cs[c].say(&[s]);
                        a + " | " + &cs[c].say(&["B s", "S"])
                    }
                }
            ));
            let state = said.last().unwrap().ends_with('I');
            open = (!state).then_some(c);
            if state {
                std::thread::sleep(std::time::Duration::from_millis(12));
            }
        }
    }
    said
}

#[test]
fn clients_in_turn_under_other_names() {
    for pool in [AUTO1, AUTO3] {
        compare(pool, "turns", |lab, g| {
            lab.superuser_sql("create role ra; create role rb; grant ra to app_rw; grant rb to app_rw")
                .unwrap();
            turns(
                g,
                "P s select a, current_user from t",
                &[
                    "Q set search_path = p1",
                    "Q set search_path = p2",
                    "Q reset search_path",
                    "Q set role ra",
                    "Q reset role",
                    "Q begin; set local search_path = p2",
                    "Q begin; set local role ra",
                    "Q commit",
                    "Q rollback",
                    "Q select 1",
                    "Q select 1; commit; begin; set local search_path = p1",
                    "Q savepoint a; set local search_path = p2",
                    "Q rollback to a",
                    "Q release a",
                    "Q begin; create schema pz; create table pz.t as select 5 a; set local search_path = pz",
                ],
                1..3,
            )
        });
    }
}

#[test]
fn clients_in_turn_under_other_styles() {
    for pool in [AUTO1, AUTO3] {
        compare(pool, "turns", |_, g| {
            turns(
                g,
                "P s select extract(month from date '01/02/2026'), timestamptz '2026-01-01 00:00:00' = timestamptz '2026-01-01 00:00:00+00', array_length('{null}'::text[], 1)",
                &[
                    "Q set datestyle = 'ISO, DMY'",
                    "Q reset datestyle",
                    "Q set timezone = 'Asia/Tokyo'",
                    "Q reset timezone",
                    "Q begin; set local datestyle = 'German, DMY'",
                    "Q begin; set local timezone = 'Asia/Tokyo'",
                    "Q begin",
                    "Q set local datestyle = 'ISO, DMY'",
                    "Q set local array_nulls = off",
                    "Q commit",
                    "Q rollback",
                    "Q savepoint a",
                    "Q savepoint a; set local datestyle = 'ISO, DMY'",
                    "Q rollback to a",
                    "Q release a",
                    "Q select 1; commit; begin",
                    "Q select 1",
                ],
                1..3,
            )
        });
    }
}
