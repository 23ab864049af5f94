//! Clients that share server connections and say in one go what depends on itself: what is skipped leaves everything as it was.

use std::fmt::Write as _;

use postern::wire::startup::{ProtocolVersion, startup_message};

use crate::gateway::{Gateway, with_pool};
use crate::raw::{Message, Raw, frame};

/// One client's connection, which speaks in short.
struct Client(Raw);

impl Client {
    fn new(gateway: &Gateway, settings: &[(&str, &str)]) -> Self {
        let mut raw = Raw::connect(gateway);
        let mut parameters = vec![("user", "app_rw"), ("database", "orders")];
        parameters.extend(settings);
        raw.send(&startup_message(ProtocolVersion::V3_0, &parameters));
        raw.until('Z');
        Self(raw)
    }

    /// Says all at once and tells the answers in short. `Q text`; `P name text`; `B name`, which also executes; `S`.
    /// The unnamed statement is `-`.
    fn say(&mut self, said: &[&str]) -> String {
        let mut bytes = Vec::new();
        let mut readies = 0;
        for message in said {
            let (tag, rest) = message.split_once(' ').unwrap_or((message, ""));
            let named = |name: &str| [name.trim_matches('-').as_bytes(), b"\0"].concat();
            match tag {
                "Q" => bytes.extend(frame('Q', &[rest.as_bytes(), b"\0"].concat())),
                "P" => {
                    let (name, text) = rest.split_once(' ').unwrap();
                    let body = [&named(name)[..], text.as_bytes(), &[0; 3]].concat();
                    bytes.extend(frame('P', &body));
                }
                "B" => {
                    bytes.extend(frame('B', &[&[0], &named(rest)[..], &[0; 6]].concat()));
                    bytes.extend(frame('E', &[0; 5]));
                }
                _ => bytes.extend(frame('S', b"")),
            }
            readies += usize::from(matches!(tag, "Q" | "S"));
        }
        self.0.send(&bytes);
        self.told(readies)
    }

    /// So many answers in short.
    fn told(&mut self, readies: usize) -> String {
        let answers: Vec<Message> = (0..readies).flat_map(|_| self.0.until('Z')).collect();
        told(&answers)
    }

    /// Says all at once and waits for the first answer only.
    fn say_and_go_on(&mut self, said: &[&str]) -> String {
        let bytes: Vec<u8> = said
            .iter()
            .flat_map(|text| frame('Q', &[text.as_bytes(), b"\0"].concat()))
            .collect();
        self.0.send(&bytes);
        self.told(1)
    }
}

fn told(answers: &[Message]) -> String {
    let mut told = String::new();
    for message in answers {
        let text = |from: usize| {
            String::from_utf8_lossy(message.body.get(from..).unwrap_or_default())
                .trim_end_matches('\0')
                .replace('\0', "=")
        };
        let _ = match message.tag {
            'D' => write!(told, "({}) ", text(6)),
            'C' => write!(told, "{} ", text(0)),
            'E' => write!(told, "{} ", message.field(b'C').unwrap()),
            'S' => write!(told, "[{}] ", text(0)),
            'Z' => write!(told, "{} ", text(0)),
            _ => Ok(()),
        };
    }
    told.trim_end().to_owned()
}

const ONE: &str = "mode = \"auto\"\nsize = 1";

#[test]
fn an_unnamed_statement_that_was_skipped_is_nobody_elses() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    assert_eq!(one.say(&["P - select 'one'", "S"]), "I");
    assert_eq!(two.say(&["P - select 'two'", "B -", "S"]), "(two) SELECT 1 I");
    assert_eq!(
        one.say(&["P s selec", "B -", "S", "B -", "S"]),
        "42601 I (one) SELECT 1 I"
    );
}

#[test]
fn an_unnamed_statement_is_the_one_from_before_what_was_skipped() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    for _ in 0..2 {
        one.say(&["P - select 'one'", "S"]);
        two.say(&["P - select 'two'", "B -", "S"]);
        let answers = one.say(&["B nowhere", "P - select 'new'", "S", "B -", "S"]);
        assert_eq!(answers, "26000 I (one) SELECT 1 I");
        two.say(&["P - select 'two'", "B -", "S"]);
        let answers = one.say(&[
            "P - select 'more'",
            "S",
            "B -",
            "P - select 'last'",
            "B -",
            "S",
            "B -",
            "S",
        ]);
        assert_eq!(answers, "I (more) SELECT 1 (last) SELECT 1 I (last) SELECT 1 I");
    }
}

#[test]
fn an_unnamed_statement_that_was_replaced_elsewhere_is_gone() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    assert_eq!(one.say(&["P - select 'first'", "S"]), "I");
    // The other connection is the only one that is free.
    two.say(&["Q begin"]);
    assert_eq!(one.say(&["P - select 'second'", "S"]), "I");
    two.say(&["Q commit"]);
    assert_eq!(one.say(&["B -", "S"]), "(second) SELECT 1 I");
    assert_eq!(
        one.say(&["P d deallocate all", "P - select 'kept'", "B d", "B -", "S"]),
        "DEALLOCATE ALL (kept) SELECT 1 I"
    );
    // Back on a connection that nobody has given another unnamed statement meanwhile.
    two.say(&["P begin begin", "P commit commit", "S"]);
    one.say(&["P - select 'third'", "S"]);
    two.say(&["B begin", "S"]);
    one.say(&["P - select 'fourth'", "S"]);
    two.say(&["B commit", "S"]);
    assert_eq!(one.say(&["B -", "S"]), "(fourth) SELECT 1 I");
}

#[test]
fn what_a_client_sets_after_discard_all_is_its_own() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    assert_eq!(
        one.say(&[
            "Q discard all",
            "Q select set_config('app.' || 'x', 'one', false)"
        ]),
        "DISCARD ALL I (one) SELECT 1 I"
    );
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
    one.say(&["Q discard all"]);
    gateway.wait_for_metric("postern_pool_pinned_seconds_count", &["app_rw"], 1.0);
}

#[test]
fn statements_that_a_pipeline_skips_are_prepared_after_it() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    assert_eq!(one.say(&["P s select 'of one'", "S"]), "I");
    two.say(&["Q deallocate all"]);
    assert_eq!(
        one.say(&["P t selec", "B s", "S", "B s", "S"]),
        "42601 I (of one) SELECT 1 I"
    );
}

#[test]
fn a_reset_that_was_skipped_resets_nothing() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[("TimeZone", "Asia/Tokyo")]);
    let mut two = Client::new(&gateway, &[]);
    one.say(&["Q set timezone = 'Asia/Seoul'", "P r reset timezone", "S"]);
    assert_eq!(one.say(&["P - selec", "B r", "S"]), "42601 I");
    assert_eq!(one.say(&["Q show timezone"]), "(Asia/Seoul) SHOW I");
    let answers = one.say(&["B r", "P - show timezone", "B -", "S"]);
    assert_eq!(answers, "RESET (Asia/Tokyo) SHOW [TimeZone=Asia/Tokyo] I");
    assert_eq!(two.say(&["Q show timezone"]), "(UTC) SHOW I");
    assert_eq!(one.say(&["Q show timezone"]), "(Asia/Tokyo) SHOW I");
    one.say(&["Q set timezone = 'Asia/Seoul'"]);
    let mut bind = frame('B', b"later\0r\0\0\0\0\0\0\0");
    one.say(&["Q begin"]);
    bind.extend(frame('S', b""));
    one.0.send(&bind);
    one.told(1);
    one.0
        .send(&[frame('E', b"later\0\0\0\0\0"), frame('S', b"")].concat());
    one.told(1);
    assert_eq!(
        one.say(&["Q show timezone", "Q commit"]),
        "(Asia/Tokyo) SHOW T COMMIT I"
    );
    assert_eq!(one.say(&["Q show timezone"]), "(Asia/Tokyo) SHOW I");
    // Beside a portal of the client's.
    one.say(&["P - select 42", "S"]);
    let beside = [
        frame('B', b"p\0r\0\0\0\0\0\0\0"),
        frame('B', b"\0\0\0\0\0\0\0\0"),
        frame('E', b"p\0\0\0\0\0"),
        frame('E', b"\0\0\0\0\0"),
        frame('S', b""),
    ];
    one.0.send(&beside.concat());
    assert_eq!(one.told(1), "RESET (42) SELECT 1 I");
    // More portals than anybody keeps account of.
    one.say(&["Q set timezone = 'Asia/Seoul'"]);
    let portals = (0..17).map(|n| frame('B', format!("p{n}\0r\0\0\0\0\0\0\0").as_bytes()));
    let mut many = portals.collect::<Vec<_>>().concat();
    many.extend((0..17).flat_map(|n| frame('E', format!("p{n}\0\0\0\0\0").as_bytes())));
    many.extend(frame('S', b""));
    one.0.send(&many);
    one.told(1);
    let answers = one.say(&["Q show timezone"]);
    assert_eq!(answers, "[TimeZone=Asia/Tokyo] (Asia/Tokyo) SHOW I");
    // Those that nobody has executed are forgotten.
    let bound = (0..17).map(|n| frame('B', format!("p{n}\0r\0\0\0\0\0\0\0").as_bytes()));
    let mut many = bound.collect::<Vec<_>>().concat();
    many.extend(frame('S', b""));
    one.0.send(&many);
    one.told(1);
    let answers = one.say(&[
        "Q set timezone = 'Asia/Seoul'",
        "P - show timezone",
        "B r",
        "B -",
        "S",
    ]);
    assert_eq!(
        answers,
        "SET [TimeZone=Asia/Seoul] I RESET (Asia/Tokyo) SHOW [TimeZone=Asia/Tokyo] I"
    );
    for reset in [
        "reset time zone",
        "set time zone local",
        "set session time zone default",
    ] {
        one.say(&["Q set timezone = 'Asia/Seoul'"]);
        one.say(&[&format!("Q {reset}")]);
        assert_eq!(one.say(&["Q show timezone"]), "(Asia/Tokyo) SHOW I", "{reset}");
    }
}

#[test]
fn what_fails_to_end_statements_leaves_them() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    one.say(&["P s select 's'", "S"]);
    assert_eq!(
        one.say(&["Q begin", "Q discard all", "Q rollback"]),
        "BEGIN T 25001 E ROLLBACK I"
    );
    assert_eq!(one.say(&["B s", "S"]), "(s) SELECT 1 I");
    assert_eq!(
        one.say(&["P - selec", "P d deallocate all", "B d", "S", "B s", "S"]),
        "42601 I (s) SELECT 1 I"
    );
    assert_eq!(
        one.say(&["P d deallocate all", "B d", "P s select 'new'", "B s", "S"]),
        "DEALLOCATE ALL (new) SELECT 1 I"
    );
    assert_eq!(one.say(&["Q discard all", "B s", "S"]), "DISCARD ALL I 26000 I");
    one.say(&["P s1 select '1'", "P s2 select '2'", "P all deallocate all", "S"]);
    assert_eq!(
        one.say(&[
            "P - deallocate s1",
            "B -",
            "P - select 1/0",
            "B -",
            "B all",
            "S",
            "B s2",
            "S"
        ]),
        "DEALLOCATE 22012 I (2) SELECT 1 I"
    );
    assert_eq!(
        one.say(&[
            "Q begin",
            "Q select 1/0",
            "Q deallocate s2",
            "Q rollback",
            "B s2",
            "S"
        ]),
        "BEGIN T 22012 E 25P02 E ROLLBACK I (2) SELECT 1 I"
    );
    one.say(&["P - select 'other'", "P one deallocate s2", "S"]);
    assert_eq!(
        one.say(&["B one", "B -", "S", "B s2", "S"]),
        "DEALLOCATE (other) SELECT 1 I 26000 I"
    );
}

#[test]
fn deallocate_knows_statements_of_the_protocol() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    one.say(&["P s select 's'", "S"]);
    assert_eq!(
        one.say(&["P - selec", "P - deallocate s", "B -", "S", "B s", "S"]),
        "42601 I (s) SELECT 1 I"
    );
    assert_eq!(one.say(&["P - deallocate s", "B -", "S"]), "DEALLOCATE I");
    assert_eq!(one.say(&["B s", "S"]), "26000 I");
    assert_eq!(one.say(&["P s select 'new'", "B s", "S"]), "(new) SELECT 1 I");
    assert_eq!(one.say(&["Q deallocate s", "B s", "S"]), "DEALLOCATE I 26000 I");
}

#[test]
fn a_text_that_was_read_under_settings_of_a_transaction_is_nobody_elses() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    let date = "P s select to_char(date '01/02/2026', 'DD.MM.')";
    assert_eq!(
        one.say(&[
            "Q begin; set local datestyle = 'DMY'",
            date,
            "B s",
            "S",
            "Q rollback"
        ]),
        "BEGIN SET [DateStyle=ISO, DMY] T (01.02.) SELECT 1 T ROLLBACK [DateStyle=ISO, MDY] I"
    );
    assert_eq!(two.say(&[date, "B s", "S"]), "(02.01.) SELECT 1 I");
}

#[test]
fn characteristics_of_the_session_travel() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q set session characteristics as transaction read only"]);
    assert_eq!(two.say(&["Q show transaction_read_only"]), "(off) SHOW I");
    assert_eq!(one.say(&["Q show transaction_read_only"]), "(on) SHOW I");
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 0.0);
}

#[test]
fn code_that_was_defined_just_now_is_known_for_what_it_does() {
    let (lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
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

/// A function that sets a setting for whoever calls it.
fn sets(name: &str) -> String {
    format!(
        "create or replace function {name}() returns text language sql as \
         $$ select set_config('app.{name}', 'evil', false) $$"
    )
}

/// Long enough for connections to be given back that clients have had their answers on: the last one is lent first.
fn settled() {
    std::thread::sleep(std::time::Duration::from_millis(200));
}

fn seen(name: &str) -> String {
    format!("Q select coalesce(current_setting('app.{name}', true), '')")
}

#[test]
fn code_counts_from_the_moment_on_that_others_can_run_it() {
    let (lab, gateway) = with_pool("mode = \"auto\"\nsize = 3");
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
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
    let (lab, gateway) = with_pool("mode = \"auto\"\nsize = 3");
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    let clients = || Client::new(&gateway, &[]);
    let (mut one, mut two, mut three) = (clients(), clients(), clients());
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
    let (lab, gateway) = with_pool(ONE);
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q create sequence numbers; create view draws as select nextval('numbers')"]);
    settled();
    // Nobody's numbers any more.
    two.say(&["Q select 1"]);
    two.say(&["Q table draws"]);
    assert_eq!(one.say(&["Q select lastval()"]), "55000 I");
}

#[test]
fn who_sets_how_texts_are_read_is_not_tied() {
    let (lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
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
    let (lab, gateway) = with_pool(ONE);
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
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
fn the_catalogs_are_read_whatever_is_locked() {
    let (lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
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
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 0.0);
    one.say(&["Q rollback"]);
    settled();
    // What stands in a body that was parsed is known all the same.
    assert_eq!(one.say(&["Q select mine.sets()"]), "(3MB) SELECT 1 I");
    settled();
    for _ in 0..3 {
        assert_eq!(two.say(&["Q show work_mem"]), "(4MB) SHOW I");
    }
}

#[test]
fn a_client_goes_on_where_the_catalogs_cannot_be_read() {
    let (lab, gateway) = with_pool(ONE);
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
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

#[test]
fn what_code_resets_is_told_once_it_is_known() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[("TimeZone", "Asia/Tokyo")]);
    one.say(&["Q select 1"]);
    let answers = one.say(&["Q do $$ begin execute 'reset timezone'; end $$"]);
    assert_eq!(answers, "DO [TimeZone=UTC] I");
    let answers = one.say(&["Q show timezone"]);
    assert_eq!(answers, "[TimeZone=Asia/Tokyo] (Asia/Tokyo) SHOW I");
    let answers = one.say(&[
        "Q set timezone = 'Asia/Seoul'",
        "Q select 1; reset timezone; select 2",
    ]);
    assert_eq!(
        answers,
        "SET [TimeZone=Asia/Seoul] I (1) SELECT 1 RESET (2) SELECT 1 I"
    );
    let answers = one.say(&["Q show timezone"]);
    assert_eq!(answers, "[TimeZone=Asia/Tokyo] (Asia/Tokyo) SHOW I");
}

#[test]
fn a_connection_that_waits_for_its_next_client_stays() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["Q set idle_session_timeout = '200ms'"]);
    let logins = gateway.metric("postern_upstream_logins_total", &["ok"]);
    std::thread::sleep(std::time::Duration::from_millis(800));
    assert_eq!(two.say(&["Q show idle_session_timeout"]), "(0) SHOW I");
    assert_eq!(gateway.metric("postern_upstream_logins_total", &["ok"]), logins);
    assert_eq!(one.say(&["Q show idle_session_timeout"]), "(200ms) SHOW I");
}

#[test]
fn what_is_never_answered_is_bounded() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    let parse = frame('P', &[b"\0select '", &[b'x'; 250_000][..], b"'\0\0\0"].concat());
    for _ in 0..200 {
        if std::io::Write::write_all(&mut one.0.tcp, &parse).is_err() {
            break;
        }
    }
    let error = one.0.last_error();
    assert_eq!(error.field(b'C').as_deref(), Some("08P01"), "{error:?}");
    assert_eq!(Client::new(&gateway, &[]).say(&["Q select 1"]), "(1) SELECT 1 I");
}

#[test]
fn very_large_texts_and_pipelines_are_carried() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    let large = format!("P - select length('{}')", "x".repeat(300_000));
    assert_eq!(one.say(&[&large, "S", "B -", "S"]), "I (300000) SELECT 1 I");
    drop(one);
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    let (mut two, mut three) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    let names: Vec<String> = (0..24).map(|n| format!("s{n}")).collect();
    let parses = names
        .iter()
        .map(|name| format!("P {name} select '{name}' --{}", "x".repeat(250_000)));
    for parse in parses {
        assert_eq!(two.say(&[&parse, "S"]), "I");
    }
    // Small messages, for which much has to be prepared where there is nothing yet.
    three.say(&["Q begin"]);
    let binds: Vec<String> = names.iter().map(|name| format!("B {name}")).collect();
    let mut said: Vec<&str> = binds.iter().map(String::as_str).collect();
    said.push("S");
    let answers = two.say(&said);
    assert!(
        answers.starts_with("(s0) SELECT 1 (s1)") && answers.ends_with("(s23) SELECT 1 I"),
        "{answers}"
    );
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

#[test]
fn a_query_that_names_a_statement_ends_as_any_other() {
    let (_lab, gateway) = with_pool(ONE);
    let (mut one, mut two) = (Client::new(&gateway, &[]), Client::new(&gateway, &[]));
    one.say(&["P s select 's'", "S"]);
    two.say(&["Q deallocate all"]);
    assert_eq!(one.say(&["Q execute s"]), "(s) SELECT 1 I");
    assert_eq!(two.say(&["Q select 2"]), "(2) SELECT 1 I");
    two.say(&["Q deallocate all"]);
    let answers = one.say(&["Q execute s", "Q select 1", "P - selec", "S"]);
    assert_eq!(answers, "(s) SELECT 1 I (1) SELECT 1 I 42601 I");
    // Out of a failed transaction, all in one.
    one.say(&["Q begin", "Q select 1/0"]);
    let answers = one.say(&["Q rollback", "Q discard all", "P s select 'new'", "S", "B s", "S"]);
    assert_eq!(answers, "ROLLBACK I DISCARD ALL I I (new) SELECT 1 I");
}
