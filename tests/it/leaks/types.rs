//! Statements that take or return something else than when they were prepared, compared with a pool in session mode.

use postern_lab::Lab;

use super::compared::{AUTO1, AUTO3, compare, nowhere};
use super::readings::bind_seven;
use crate::gateway::Gateway;
use crate::raw::frame;
use crate::short::{Client, clients, settled, with_free_pool};

const MAKE: &str = "Q create table t (a int, b int); insert into t values (7, 2)";

/// `one` prepares these while a table is as it was made; `change` changes it, and then no connection has any.
fn changed(gateway: &Gateway, prepares: &[&str], change: &str) -> [Client; 3] {
    let [mut one, mut two, three] = clients(gateway);
    two.say(&[MAKE]);
    settled();
    one.say(&[prepares, &["S"]].concat());
    settled();
    two.say(&[change]);
    nowhere(&mut two);
    [one, two, three]
}

fn all_of_it(_: &Lab, gateway: &Gateway) -> Vec<String> {
    let [mut one, mut two, _three] = changed(
        gateway,
        &["P s select * from t"],
        "Q alter table t alter b type float8",
    );
    let mut said = vec![
        one.say(&["B s", "S"]),
        one.say(&["D s", "S"]),
        one.say(&["Q begin"]),
        one.say(&["Q select 1", "B s", "S"]),
        one.say(&["B s", "S"]),
        one.say(&["Q rollback"]),
        // Skipped with it.
        one.say(&["B s", "P r select 1", "B r", "S"]),
        one.say(&["B r", "S"]),
        one.say(&[
            "P - select 1",
            "B -",
            "B s",
            "P - select 2",
            "S",
            "P - select 3",
            "B -",
            "S",
        ]),
        one.say(&["C s", "P s select * from t", "B s", "S"]),
    ];
    two.say(&["Q alter table t alter b type int"]);
    settled();
    said.push(one.say(&["B s", "S"]));
    said
}

#[test]
fn rows_of_another_type() {
    compare(AUTO1, "one", all_of_it);
    compare(AUTO3, "three", all_of_it);
}

#[test]
fn the_refusal_is_known_by_what_drivers_look_at() {
    compare(AUTO1, "fields", |_, gateway| {
        let [mut one, ..] = changed(gateway, &["P s select * from t"], "Q alter table t add c int");
        one.0
            .send(&[frame('B', b"\0s\0\0\0\0\0\0\0"), frame('S', b"")].concat());
        let refused = one.0.until('E').pop().unwrap();
        let fields = b"SVCMFR".iter();
        fields
            .map(|code| refused.field(*code).unwrap_or_default())
            .collect()
    });
}

#[test]
fn types_that_come_back() {
    compare(AUTO1, "back", |_, gateway| {
        let [mut one, mut two, _three] =
            changed(gateway, &["P s select * from t"], "Q alter table t add c int");
        let mut said = vec![one.say(&["B s", "S"])];
        two.say(&["Q alter table t drop c"]);
        settled();
        said.push(one.say(&["B s", "S"]));
        said
    });
}

#[test]
fn a_table_in_place_of_another() {
    compare(AUTO1, "same", |_, gateway| {
        let again = "Q drop table t; create table t (a int, b int); insert into t values (3, 4)";
        let [mut one, ..] = changed(gateway, &["P s select * from t"], again);
        vec![one.say(&["B s", "S"]), one.say(&["D s", "B s", "B s", "S"])]
    });
}

#[test]
fn parameters_keep_their_types() {
    for change in [
        "Q alter table t alter a type text",
        "Q alter table t alter a type int8",
        "Q drop table t",
    ] {
        compare(AUTO1, change, |_, gateway| {
            let [mut one, ..] = changed(gateway, &["P s select b from t where a = $1"], change);
            vec![
                bind_seven(&mut one),
                one.say(&["Q select 1"]),
                bind_seven(&mut one),
            ]
        });
    }
}

#[test]
fn several_in_a_pipeline() {
    compare(AUTO1, "several", |_, gateway| {
        let prepares = [
            "P s select a from t",
            "P r select b from t",
            "P u insert into t values (5, 6)",
        ];
        let [mut one, ..] = changed(gateway, &prepares, "Q alter table t alter b type text");
        vec![
            one.say(&["B u", "B s", "S", "B u", "B r", "B u", "S", "B s", "S"]),
            one.say(&["Q select count(*) from t"]),
            one.say(&["Q begin", "B u", "B s", "S", "Q commit", "B s", "S", "Q select 7"]),
        ]
    });
}

#[test]
fn another_search_path_for_a_transaction() {
    compare(AUTO1, "local", |_, gateway| {
        let [mut one, mut two] = clients(gateway);
        two.say(&[
            MAKE,
            "Q create schema p2",
            "Q create table p2.t (a text, b int8)",
            "Q insert into p2.t values ('x', 9)",
        ]);
        settled();
        let mut said = vec![
            one.say(&["Q begin", "Q set local search_path = p2"]),
            one.say(&["P s select a, b from t", "B s", "S"]),
            one.say(&["Q commit", "B s", "S"]),
        ];
        nowhere(&mut two);
        said.push(one.say(&["B s", "S"]));
        said.push(one.say(&["Q begin", "Q set local search_path = p2", "B s", "S", "Q commit"]));
        nowhere(&mut two);
        said.push(one.say(&["Q begin", "Q set local search_path = p2", "B s", "S", "Q commit"]));
        said.push(one.say(&["B s", "S"]));
        said
    });
}

/// Nobody here has made the change, and so nobody knows of it.
#[test]
fn tables_that_somebody_else_changes() {
    for pool in [AUTO1, AUTO3] {
        compare(pool, "from outside", |lab, gateway| {
            let [mut one, mut two, mut three] = clients(gateway);
            two.say(&[MAKE]);
            settled();
            one.say(&["P s select * from t", "S"]);
            lab.superuser_sql("alter table t alter b type float8").unwrap();
            nowhere(&mut three);
            vec![
                two.say(&["P s select * from t", "B s", "S"]),
                one.say(&["B s", "S"]),
                two.say(&["B s", "S"]),
                one.say(&["B s", "S"]),
                one.say(&["C s", "P s select * from t", "B s", "S"]),
                two.say(&["B s", "S", "B s", "S"]),
            ]
        });
    }
}

/// What one who has prepared it later is told isn't what the first was.
#[test]
fn each_has_what_it_was_told() {
    compare(AUTO1, "each", |_, gateway| {
        let [mut one, mut two, mut three] =
            changed(gateway, &["P s select * from t"], "Q alter table t add c int");
        let mut said = vec![two.say(&["P s select * from t", "B s", "S"])];
        for _ in 0..2 {
            said.push(one.say(&["B s", "S"]));
            said.push(two.say(&["B s", "S"]));
            nowhere(&mut three);
        }
        said
    });
}

/// The server connection has the statement as it was, and only the server knows that it is outdated.
#[test]
fn a_statement_that_is_outdated_and_known() {
    let (lab, gateway) = with_free_pool(AUTO1);
    let [mut one, mut two, mut three] = clients(&gateway);
    two.say(&[MAKE]);
    settled();
    one.say(&["P s select * from t", "B s", "S"]);
    settled();
    lab.superuser_sql("alter table t alter b type float8").unwrap();
    assert_eq!(one.say(&["B s", "S"]), "0A000 I");
    for client in [&mut two, &mut three, &mut one] {
        let said = client.say(&["C s", "P s select * from t", "B s", "S"]);
        assert!(said.ends_with("SELECT 1 I"), "{said}");
    }
}

#[test]
fn a_client_that_has_adopted_an_outdated_statement_is_refused_once() {
    for defines in [
        &["P s select * from t", "S"][..],
        &["P s select * from t", "B s", "S"],
    ] {
        let (lab, gateway) = with_free_pool(AUTO1);
        let [mut one, mut two] = clients(&gateway);
        two.say(&[MAKE]);
        settled();
        one.say(&["P s select * from t", "B s", "S"]);
        settled();
        lab.superuser_sql("alter table t alter b type float8").unwrap();
        two.say(defines);
        two.say(&["B s", "S"]);
        let said = two.say(&["B s", "S"]);
        assert!(said.ends_with("SELECT 1 I"), "{said}");
        // Who was told what it returned before is refused.
        assert_eq!(one.say(&["B s", "S", "B s", "S"]), "0A000 I 0A000 I");
    }
}

/// The name of the column can't be written in the client's encoding.
#[test]
fn names_that_the_client_cannot_be_told() {
    compare(AUTO3, "names", |_, gateway| {
        let [mut two, mut three] = clients(gateway);
        two.say(&["Q create table u (a int, \"€\" int); insert into u values (1, 2)"]);
        settled();
        let mut one = Client::new(gateway, &[("client_encoding", "LATIN1")]);
        let mut said = vec![one.say(&["P s select * from u", "B s", "S", "B s", "S"])];
        said.push(two.say(&[
            "P s select * from u",
            "B s",
            "Q set client_encoding = latin1",
            "B s",
            "S",
        ]));
        nowhere(&mut three);
        said.push(two.say(&["B s", "S"]));
        said.push(one.say(&["B s", "S"]));
        said.push(two.say(&["Q reset client_encoding", "B s", "S"]));
        said
    });
}

#[test]
fn columns_whose_names_are_exchanged() {
    compare(AUTO1, "exchanged", |_, gateway| {
        let [mut one, mut two] = clients(gateway);
        two.say(&["Q create table u (\"é\" int, \"è\" int)"]);
        settled();
        one.say(&["P s select * from u", "S"]);
        settled();
        two.say(&["Q alter table u rename \"é\" to x; alter table u rename \"è\" to \"é\"; alter table u rename x to \"è\""]);
        nowhere(&mut two);
        vec![one.say(&["B s", "S"])]
    });
}

#[test]
fn a_statement_without_its_table_is_ended() {
    compare(AUTO1, "ended", |_, gateway| {
        let [mut one, mut two, _three] = changed(
            gateway,
            &["P s select * from t", "P r select 1 from t"],
            "Q drop table t",
        );
        let mut said = vec![
            one.say(&["Q prepare s as select 1"]),
            one.say(&["Q deallocate s"]),
            one.say(&["P s select 1", "B s", "S"]),
            one.say(&["P d deallocate r", "S"]),
        ];
        nowhere(&mut two);
        said.push(one.say(&["B d", "S"]));
        said.push(one.say(&["P r select 2", "B r", "S"]));
        said
    });
}

#[test]
fn statements_are_described_in_a_transaction_that_has_failed() {
    compare(AUTO1, "failed", |_, gateway| {
        let prepares = [
            "P s insert into t values ($1)",
            "P r select 1",
            "P u set timezone = 'UTC'",
            "P e rollback",
        ];
        let [mut one, ..] = changed(gateway, &prepares, "Q select 1");
        let mut said = vec![one.say(&["Q begin", "Q select 1/0"])];
        for describes in [
            &["D s", "S"][..],
            &["D u", "S"],
            &["D r", "S"],
            &["D s", "D u", "B e", "S"],
        ] {
            let frames: Vec<u8> = describes
                .iter()
                .flat_map(|text| match text.split_at(1) {
                    ("D", name) => frame('D', &[b"S", name.trim().as_bytes(), b"\0"].concat()),
                    ("B", name) => [
                        frame('B', &[b"\0", name.trim().as_bytes(), &[0; 7]].concat()),
                        frame('E', &[0; 5]),
                    ]
                    .concat(),
                    _ => frame('S', b""),
                })
                .collect();
            one.0.send(&frames);
            let answers = one.0.until('Z').into_iter();
            said.extend(answers.map(|answer| match answer.field(b'C') {
                Some(state) if answer.tag == 'E' => state,
                _ => format!("{} {:?}", answer.tag, answer.body),
            }));
        }
        said.push(one.say(&["B u", "S"]));
        said
    });
}

/// Both clients have both statements, and the second was told of neither.
fn adopted(gateway: &Gateway) -> [Client; 2] {
    let [mut one, mut two] = clients(gateway);
    two.say(&[
        "Q create table t (x int)",
        "Q create table u (x int)",
        "Q insert into t values (1)",
        "Q insert into u values (5)",
    ]);
    // Until the catalogs were read again, statements are nobody else's.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let prepares = ["P s select * from t", "P r select * from u"];
    one.say(&[&prepares[..], &["B s", "B r", "S"]].concat());
    settled();
    [one, two]
}

#[test]
fn what_was_told_before_another_was_refused_is_held_to() {
    compare(AUTO1, "told", |lab, gateway| {
        let [_one, mut two] = adopted(gateway);
        two.say(&["P s select * from t", "P r select * from u", "S"]);
        lab.superuser_sql("alter table u add column y int").unwrap();
        let mut said = vec![two.say(&["D s", "B r", "S"])];
        lab.superuser_sql("alter table t add column y int").unwrap();
        said.push(two.say(&["B s", "S"]));
        said.push(two.say(&["D s", "S"]));
        said
    });
}

#[test]
fn what_is_refused_behind_another_sync_is_refused_once() {
    let (lab, gateway) = with_free_pool(AUTO1);
    let [_one, mut two] = adopted(&gateway);
    lab.superuser_sql("alter table u add column y int").unwrap();
    two.say(&["P s select * from t", "P r select * from u", "S"]);
    assert_eq!(two.say(&["B s", "S", "B r", "S"]), "(1) SELECT 1 I 0A000 I");
    let said = two.say(&["B r", "S"]);
    assert!(said.ends_with("SELECT 1 I"), "{said}");
}
