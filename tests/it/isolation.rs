//! Promise 1: nothing of one client is left for the next.

use std::io::Write as _;
use std::time::Duration;

use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options};
use crate::raw::{Raw, frame};

const ONE: &str = "mode = \"session\"\nsize = 1\nmin_idle = 0";

fn gateway() -> (Lab, Gateway) {
    gateway_with(ONE)
}

fn gateway_with(pool: &'static str) -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool,
            ..Options::default()
        },
    );
    (lab, gateway)
}

fn text(raw: &mut Raw, sql: &str) -> String {
    let messages = raw.query(sql);
    let row = messages
        .iter()
        .find(|message| message.tag == 'D')
        .unwrap_or_else(|| panic!("{sql}: {messages:?}"));
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

#[test]
fn session_state_does_not_outlive_its_client() {
    let (_lab, gateway) = gateway();
    let (mut first, _) = Raw::login(&gateway, "app_rw");
    let backend = text(&mut first, "select pg_backend_pid()::text");
    for sql in [
        "set work_mem = '7MB'",
        "set search_path = pg_catalog",
        "create temp table secrets as select 1 as one",
        "prepare p as select 1",
        "listen somewhere",
        "select pg_advisory_lock(42)",
        "declare c cursor with hold for select 1",
        "create sequence if not exists public.s",
        "select nextval('public.s')",
    ] {
        first.query(sql);
    }
    first.message('X', b"");
    let (mut second, _) = Raw::login(&gateway, "app_rw");
    assert_eq!(
        text(&mut second, "select pg_backend_pid()::text"),
        backend,
        "the test needs the same server"
    );
    let left = "select concat_ws(' ', current_setting('work_mem'), current_setting('search_path'), \
                (select count(*) from pg_class where relname = 'secrets'), (select count(*) from pg_prepared_statements), \
                (select count(*) from pg_listening_channels()), (select count(*) from pg_cursors), \
                (select count(*) from pg_locks where locktype = 'advisory'))";
    assert_eq!(text(&mut second, left), "4MB \"$user\", public 0 0 0 0 0");
    let lastval = second.query("select lastval()");
    assert!(lastval.iter().any(|message| message.tag == 'E'), "{lastval:?}");
}

#[test]
fn an_open_transaction_is_rolled_back() {
    let (_lab, gateway) = gateway();
    for goodbye in [true, false] {
        let (mut first, _) = Raw::login(&gateway, "app_rw");
        first.query("begin");
        first.query("create table left_over (x int)");
        if goodbye {
            first.message('X', b"");
        }
        drop(first);
        let (mut second, _) = Raw::login(&gateway, "app_rw");
        assert_eq!(
            text(
                &mut second,
                "select coalesce(to_regclass('left_over')::text, 'none')"
            ),
            "none"
        );
        second.message('X', b"");
    }
}

#[test]
fn a_failed_transaction_is_rolled_back() {
    let (_lab, gateway) = gateway();
    let (mut first, _) = Raw::login(&gateway, "app_rw");
    first.query("begin");
    first.query("select 1/0");
    drop(first);
    let (mut second, _) = Raw::login(&gateway, "app_rw");
    assert_eq!(text(&mut second, "select 'fine'"), "fine");
    assert_eq!(
        gateway.metric("postern_pool_discards_total", &[]),
        0.0,
        "and the server is kept"
    );
}

#[test]
fn a_query_whose_client_is_gone_is_cancelled() {
    let (lab, gateway) = gateway();
    let (mut first, _) = Raw::login(&gateway, "app_rw");
    first.message('Q', b"select pg_sleep(600)\0");
    wait_until_active(&lab, 1);
    drop(first);
    let (mut second, _) = Raw::login(&gateway, "app_rw");
    assert_eq!(text(&mut second, "select 'mine'"), "mine");
    assert_eq!(lab.cancel_requests(), 1);
    wait_until_active(&lab, 0);
}

#[test]
fn what_was_asked_before_a_goodbye_is_carried_out() {
    for pool in [ONE, "mode = \"auto\"\nsize = 1\nmin_idle = 1"] {
        let (_lab, gateway) = gateway_with(pool);
        // Who leaves before there is a server has asked nobody.
        Raw::login(&gateway, "app_rw").0.query("select 1");
        gateway.wait_for_metric("postern_pool_connections", &["app_rw", "idle"], 1.0);
        let (mut first, _) = Raw::login(&gateway, "app_rw");
        let bytes = [
            frame('Q', b"create table made as select 1 as x from pg_sleep(0.3)\0"),
            frame('X', b""),
        ]
        .concat();
        first.send(&bytes);
        drop(first);
        let (mut second, _) = Raw::login(&gateway, "app_rw");
        assert_eq!(
            text(&mut second, "select to_regclass('made')::text"),
            "made",
            "{pool}"
        );
    }
}

#[test]
fn half_a_message_or_an_open_copy_costs_the_server_connection() {
    let (_lab, gateway) = gateway();
    let (mut first, _) = Raw::login(&gateway, "app_rw");
    first.query("create table copied (x int)");
    let mut lost = gateway.metric("postern_pool_discards_total", &[]);
    for cut in [&b"Q\0\0\0\x20select"[..], b"Q\0\0", b"B\0\0\0\xff"] {
        let _ = first.tcp.write_all(cut);
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
        (first, _) = Raw::login(&gateway, "app_rw");
        assert_eq!(text(&mut first, "select 'next'"), "next", "{cut:?}");
    }
    lost = gateway.metric("postern_pool_discards_total", &[]) - lost;
    assert_eq!(lost, 2.0, "a cut header never reached the server; cut bodies did");
    first.message('Q', b"copy copied from stdin\0");
    assert_eq!(first.until('G').last().unwrap().tag, 'G');
    first.message('d', b"1\n");
    drop(first);
    let (mut next, _) = Raw::login(&gateway, "app_rw");
    assert_eq!(text(&mut next, "select count(*)::text from copied"), "0");
}

#[test]
fn an_extended_query_without_its_sync_does_not_reach_the_next() {
    let (_lab, gateway) = gateway();
    let (mut first, _) = Raw::login(&gateway, "app_rw");
    let parse = frame('P', b"\0select 'first'\0\0\0");
    let bind = frame('B', b"\0\0\0\0\0\0\0\0");
    let execute = frame('E', b"\0\0\0\0\0");
    first.send(&[parse, bind, execute, frame('H', b"")].concat());
    assert_eq!(first.until('C').last().unwrap().tag, 'C');
    drop(first);
    let (mut second, _) = Raw::login(&gateway, "app_rw");
    assert_eq!(text(&mut second, "select 'second'"), "second");
}

fn wait_until_active(lab: &Lab, count: usize) {
    let sql =
        "select count(*) from pg_stat_activity where query like 'select pg_sleep(600)%' and state = 'active'";
    for _ in 0..500 {
        if lab.superuser_sql(sql).unwrap().trim() == count.to_string() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never {count} active");
}

#[test]
fn what_a_client_has_not_synced_is_not_committed_for_it() {
    for pool in ["mode = \"auto\"\nsize = 1", "mode = \"session\"\nsize = 1"] {
        let (lab, gateway) = gateway_with(pool);
        lab.superuser_sql("create table w (a int); grant all on w to app_rw")
            .unwrap();
        for (says_goodbye, ends) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut raw, _) = Raw::login(&gateway, "app_rw");
            if ends {
                // The transaction that the server has told of last is over, and another has begun.
                raw.query("begin");
                raw.message('P', b"\0commit\0\0\0");
                raw.message('B', &[0; 8]);
                raw.message('E', &[0; 5]);
            }
            raw.message('P', b"\0insert into w values (1)\0\0\0");
            raw.message('B', &[0; 8]);
            raw.message('E', &[0; 5]);
            raw.message('H', b"");
            raw.until('C');
            if ends {
                raw.until('C');
            }
            if says_goodbye {
                raw.message('X', b"");
            }
            drop(raw);
            let (mut next, _) = Raw::login(&gateway, "app_rw");
            let counted = next.query("select count(*) from w");
            let row = counted.iter().find(|message| message.tag == 'D').unwrap();
            assert!(row.body.ends_with(b"0"), "{pool} {says_goodbye} {ends}: {row:?}");
        }
    }
}
