//! Settings whose values or names are odd.

use super::{TWO, sleep};
use crate::gateway::with_pool;
use crate::short::{Client, ONE, clients, settled, with_free_pool};

#[test]
fn update_behind_a_column_named_key() {
    for with in ["cycle a set b using key", "search depth first by a set key"] {
        let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
        let [mut one, mut two] = clients(&gateway);
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
fn default_behind_a_column_named_key() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
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
fn settings_of_a_transaction() {
    let (_lab, gateway) = with_pool(ONE);
    for (name, value) in [
        ("transaction_read_only", "on"),
        ("transaction_read_only", "off"),
        ("transaction_isolation", "'serializable'"),
        ("transaction_deferrable", "off"),
    ] {
        let [mut one, mut two] = clients(&gateway);
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
fn custom_settings_called_transaction() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
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
fn isolation_by_default_of_the_role() {
    let (lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 1\nlifetime = \"1s\"");
    lab.superuser_sql("alter role app_rw set default_transaction_isolation = 'serializable'")
        .unwrap();
    sleep(3_000);
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two] = clients(&gateway);
    let length = "Q select length(current_setting('app.tenant'))";
    one.say(&["Q set app.tenant = '\u{e9}'"]);
    one.say(&["Q set client_encoding = 'LATIN1'"]);
    assert_eq!(one.say(&[length]), "(1) SELECT 1 I");
    two.say(&["Q set app.tenant = 'two'"]);
    assert_eq!(one.say(&[length]), "(1) SELECT 1 I");
}
