//! Clients that share server connections and say in one go what depends on itself: what is skipped leaves everything as it was.

use crate::gateway::with_pool;
use crate::raw::frame;
use crate::short::{Client, ONE, clients, settled, with_free_pool};

#[test]
fn an_unnamed_statement_that_was_skipped_is_nobody_elses() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two] = clients(&gateway);
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
fn what_is_set_behind_a_reset_is_told_at_once() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[("TimeZone", "Asia/Tokyo")]);
    one.say(&["Q begin", "Q reset work_mem"]);
    assert_eq!(one.say(&["Q set timezone = 'UTC'"]), "SET [TimeZone=UTC] T");
    assert_eq!(one.say(&["Q reset timezone"]), "RESET [TimeZone=Asia/Tokyo] T");
    one.say(&["Q commit"]);
}

#[test]
fn statements_that_a_pipeline_skips_are_prepared_after_it() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
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
    one.say(&["P s select 's'", "S", "Q prepare sql as select 1"]);
    assert_eq!(
        one.say(&[
            "P first deallocate sql",
            "P second deallocate s",
            "B first",
            "B nowhere",
            "B second",
            "S",
            "B s",
            "S"
        ]),
        "DEALLOCATE 26000 I (s) SELECT 1 I"
    );
}

#[test]
fn a_text_that_was_read_under_settings_of_a_transaction_is_nobody_elses() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
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
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q set session characteristics as transaction read only"]);
    assert_eq!(two.say(&["Q show transaction_read_only"]), "(off) SHOW I");
    assert_eq!(one.say(&["Q show transaction_read_only"]), "(on) SHOW I");
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 0.0);
}

#[test]
fn a_pipeline_ends_with_a_query_and_flush_alone_begins_none() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    assert_eq!(one.say(&["Q select 1", "H"]), "(1) SELECT 1 I");
    assert_eq!(two.say(&["Q select 2"]), "(2) SELECT 1 I");
    one.say(&["P s select 's'", "H"]);
    assert_eq!(one.say(&["Q select 3"]), "(3) SELECT 1 I");
    assert_eq!(two.say(&["Q select 4"]), "(4) SELECT 1 I");
    assert_eq!(one.say(&["B s", "S"]), "(s) SELECT 1 I");
}

#[test]
fn a_copy_that_fails_behind_its_sync_fails_alone() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&[
        "Q create table t (a int check (a > 0))",
        "P in copy t from stdin",
        "S",
    ]);
    for name in ["in", "-"] {
        let parse = if name == "-" { "P - copy t from stdin" } else { "H" };
        let bind = format!("B {name}");
        let copy = |data| [parse, &bind, "void", data, "c", "S"];
        assert_eq!(one.say(&copy("d 1/2/")), "COPY 2 I");
        assert_eq!(one.say(&copy("d 1/x/")), "22P02 I");
        assert_eq!(one.say(&copy("d 1/-1/")), "23514 I");
        // That Sync isn't void: the server never asks for data.
        let refused = [
            "Q begin read only",
            parse,
            &bind,
            "S",
            "d 1/",
            "c",
            "S",
            "Q commit",
        ];
        assert_eq!(one.say(&refused), "BEGIN T 25006 E E ROLLBACK I");
        assert_eq!(two.say(&["Q select count(*) from t"]), "(2) SELECT 1 I");
        two.say(&["Q delete from t"]);
    }
    // Nor is one behind a COPY that has ended.
    assert_eq!(
        one.say(&["B in", "void", "d 1/", "c", "S", "P - select 'more'", "B -", "S"]),
        "COPY 1 I (more) SELECT 1 I"
    );
    assert_eq!(one.say(&["P - copy t to stdout", "B -", "S"]), "COPY 1 I");
}

#[test]
fn a_client_that_goes_while_what_it_said_waits_is_seen_to_go() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table t (a int)", "Q begin", "Q lock table t"]);
    one.say(&["P - copy t from stdin", "B -", "void"]);
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 2.0);
    drop(one);
    gateway.wait_for_metric("postern_client_connections", &[], 1.0);
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 1.0);
    two.say(&["Q rollback"]);
}

#[test]
fn what_was_said_ahead_of_a_goodbye_is_carried_out_though_it_must_wait() {
    let (_lab, gateway) = with_free_pool("mode = \"auto\"\nsize = 2");
    let [mut one, mut two] = clients(&gateway);
    two.say(&["Q create table t (a int)"]);
    let run = [
        frame('B', b"\0s\0\0\0\0\0\0\0"),
        frame('E', &[0; 5]),
        frame('S', b""),
    ]
    .concat();
    let parse = frame('P', b"s\0insert into t select 1 from pg_sleep(0.3)\0\0\0");
    one.0.send(&[parse, run.clone(), run, frame('X', b"")].concat());
    drop(one);
    gateway.wait_for_metric("postern_client_connections", &[], 1.0);
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 0.0);
    assert_eq!(two.say(&["Q select count(*) from t"]), "(2) SELECT 1 I");
}

#[test]
fn a_copy_that_fails_before_it_takes_data_answers_its_sync() {
    for pool in ["mode = \"session\"\nsize = 1", ONE] {
        let (_lab, gateway) = with_free_pool(pool);
        let [mut one] = clients(&gateway);
        one.say(&[
            "Q create table t (a int)",
            "Q create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$",
            "Q create trigger no before insert on t for each statement execute function no()",
        ]);
        settled();
        assert_eq!(
            one.say(&["P - copy t from stdin", "B -", "S"]),
            "P0001 I",
            "{pool}"
        );
        assert_eq!(one.say(&["Q select 1"]), "(1) SELECT 1 I", "{pool}");
    }
}

#[test]
fn what_a_pipeline_ends_is_bounded() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    let run = [frame('B', &[0; 8]), frame('E', &[0; 5])].concat();
    let mut bytes = [frame('P', b"\0select pg_sleep(60)\0\0\0"), run.clone()].concat();
    bytes.extend(frame('P', b"\0deallocate all\0\0\0"));
    (0..20_000).for_each(|_| bytes.extend(&run));
    one.0.send(&bytes);
    assert_eq!(one.0.last_error().field(b'C').unwrap(), "08P01");
    assert_eq!(two.say(&["Q select 1"]), "(1) SELECT 1 I");
}

#[test]
fn a_name_is_taken_whether_or_not_its_statement_can_be_prepared() {
    let (_lab, gateway) = with_free_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    one.say(&["Q create table gone (a int)", "P s select a from gone", "S"]);
    two.say(&["Q drop table gone", "Q deallocate all"]);
    assert_eq!(one.say(&["P s select 1", "S"]), "42P05 I");
    assert_eq!(one.say(&["P s selec", "S"]), "42601 I");
    let failed = one.say(&[
        "Q begin",
        "Q select 1/0",
        "P s rollback",
        "S",
        "P s select 1",
        "S",
        "Q rollback",
    ]);
    assert_eq!(failed, "BEGIN T 22012 E 42P05 E 25P02 E ROLLBACK I");
    assert_eq!(one.say(&["B s", "S"]), "42P01 I");
}

#[test]
fn an_unnamed_statement_that_is_gone_leaves_nothing_behind() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    for ends in ["Q select 1", "C -"] {
        one.say(&["P - do $$ begin execute 'select 1'; end $$", "S", ends, "S"]);
        assert_eq!(one.say(&["B -", "S"]), "26000 I", "{ends}");
        gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 0.0);
    }
}

#[test]
fn discard_all_ends_what_was_run_before_it_in_one_go() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[]);
    let opaque = "Q do $$ begin execute 'select 1'; end $$";
    assert_eq!(one.say(&[opaque, "Q discard all"]), "DO I DISCARD ALL I");
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 0.0);
    assert_eq!(one.say(&["Q discard all", opaque]), "DISCARD ALL I DO I");
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
    // The last one fails.
    one.say(&["Q discard all"]);
    gateway.wait_for_metric("postern_pool_connections", &["app_rw", "leased"], 0.0);
    assert_eq!(
        one.say(&[
            "Q discard all",
            opaque,
            "P - discard all",
            "B nobody's",
            "B -",
            "S"
        ]),
        "DISCARD ALL I DO I 26000 I"
    );
    gateway.wait_for_metric("postern_pool_pinned_clients", &["app_rw"], 1.0);
}

#[test]
fn what_is_set_in_a_text_that_resets_something_else_stays_set() {
    let (_lab, gateway) = with_pool(ONE);
    let mut one = Client::new(&gateway, &[("default_transaction_read_only", "on")]);
    let mut two = Client::new(&gateway, &[]);
    let text = "Q set session characteristics as transaction read write; set session authorization default";
    let mut told = one.say(&[text]);
    two.say(&["Q set default_transaction_read_only = on"]);
    told += &one.say(&["Q show default_transaction_read_only"]);
    assert!(told.contains("[default_transaction_read_only=off]"), "{told}");
    assert!(told.ends_with("(off) SHOW I"), "{told}");
}

#[test]
fn what_was_not_set_after_all_is_not_set_again() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
    assert_eq!(one.say(&["Q set work_mem = 'nonsense'"]), "22023 I");
    one.say(&["Q begin", "Q set lock_timeout = '1s'", "Q rollback"]);
    one.say(&[
        "Q begin",
        "Q savepoint a",
        "Q set statement_timeout = '61s'",
        "Q rollback to a",
    ]);
    one.say(&["Q commit"]);
    assert_eq!(two.say(&["Q show timezone"]), "(UTC) SHOW I");
    let sources = "Q select string_agg(source, ' ') from pg_settings \
                   where name in ('work_mem', 'lock_timeout', 'statement_timeout')";
    assert_eq!(one.say(&[sources]), "(default default default) SELECT 1 I");
}

#[test]
fn nothing_of_the_gateway_s_own_waits_for_others_transactions() {
    let (_lab, gateway) = with_pool("mode = \"auto\"\nsize = 2");
    let mut writer = Client::new(&gateway, &[]);
    writer.say(&["Q begin isolation level serializable", "Q select 1"]);
    let [mut one, mut two] = clients(&gateway);
    // Then its seed and its sequences may be anything.
    one.say(&["Q do $$ begin execute 'select 1'; end $$"]);
    one.say(&["Q discard all"]);
    one.say(&[
        "Q set session characteristics as transaction isolation level serializable, read only, deferrable",
    ]);
    assert_eq!(one.say(&["Q set work_mem = '1MB'"]), "SET I");
    assert_eq!(two.say(&["Q show work_mem"]), "(4MB) SHOW I");
    assert_eq!(one.say(&["Q show work_mem"]), "(1MB) SHOW I");
    assert_eq!(one.say(&["Q show default_transaction_deferrable"]), "(on) SHOW I");
    writer.say(&["Q rollback"]);
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
    let [mut one, mut two] = clients(&gateway);
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

#[test]
fn a_query_that_names_a_statement_ends_as_any_other() {
    let (_lab, gateway) = with_pool(ONE);
    let [mut one, mut two] = clients(&gateway);
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

#[test]
fn a_server_that_has_said_why_it_goes_has_said_enough() {
    let (_lab, gateway) = with_free_pool(ONE);
    let ends = "select pg_terminate_backend(pg_backend_pid())";
    for before in ["", "create schema mine; ", "select setseed(0.5); "] {
        let mut one = Client::new(&gateway, &[]);
        one.say(&["Q select 1"]);
        one.0
            .message('Q', &[before.as_bytes(), ends.as_bytes(), b"\0"].concat());
        let last = one.0.last_error();
        assert_eq!(last.field(b'C').as_deref(), Some("57P01"), "{before}");
    }
}

#[test]
fn names_are_free_behind_what_ends_a_failed_transaction_and_them() {
    let (_lab, gateway) = with_free_pool(ONE);
    for rollback in ["B r", "P - rollback"] {
        let mut one = Client::new(&gateway, &[]);
        one.say(&["P d deallocate all", "P r rollback", "P s select 1", "S"]);
        assert_eq!(one.say(&["Q begin", "Q select 1/0"]), "BEGIN T 22012 E");
        let rest = ["B d", "P s select 2", "B s", "S"];
        let said: Vec<_> = match rollback {
            "B r" => [&["B r"][..], &rest].concat(),
            parse => [&[parse, "B -"][..], &rest].concat(),
        };
        let answers = one.say(&said);
        assert_eq!(answers, "ROLLBACK DEALLOCATE ALL (2) SELECT 1 I");
    }
}
