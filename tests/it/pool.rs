//! The pool: bounds, order, what clients hear while they wait, and how it ends.

use std::time::Duration;

use postern_lab::{Lab, LabConfig, Latency};

use crate::gateway::{Gateway, Options};
use crate::raw::{Message, Raw};

fn lab() -> Lab {
    Lab::start(LabConfig::default()).unwrap()
}

#[test]
fn the_minimum_is_there_before_the_first_client_and_the_maximum_is_never_passed() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "mode = \"session\"\nsize = 3\nmin_idle = 2",
            ..Options::default()
        },
    );
    gateway.wait_for_metric("postern_pool_connections", &["idle", "app_rw"], 2.0);
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::login(&gateway, "app_rw").0).collect();
    for client in &mut clients {
        client.query("select 1");
    }
    let (mut fourth, _) = Raw::login(&gateway, "app_rw");
    fourth.message('Q', b"select 4\0");
    gateway.wait_for_metric("postern_pool_waiting_clients", &["app_rw"], 1.0);
    assert_eq!(
        lab.peak_connections(),
        3 + 2,
        "three of app_rw and the minimum of app_ro"
    );
    clients.pop().unwrap().message('X', b"");
    assert_eq!(fourth.until('Z').last().unwrap().tag, 'Z');
    assert_eq!(lab.peak_connections(), 5, "handed on, not opened anew");
}

#[test]
fn who_waits_in_vain_gets_a_clear_error() {
    let pool = "mode = \"session\"\nsize = 1\nmin_idle = 0\nwait_timeout = \"3s\"";
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool,
            ..Options::default()
        },
    );
    let (mut holder, _) = Raw::login(&gateway, "app_rw");
    holder.query("select 1");
    let (mut waiter, _) = Raw::login(&gateway, "app_rw");
    waiter.message('Q', b"select 2\0");
    let error = waiter.last_error();
    assert_eq!(error.field(b'C').unwrap(), "53300");
    assert!(error.field(b'H').is_some());
    assert_eq!(
        gateway.metric("postern_pool_wait_timeouts_total", &["app_rw"]),
        1.0
    );
    assert_eq!(gateway.metric("postern_pool_waiting_clients", &["app_rw"]), 0.0);
    holder.query("select 3");
}

#[test]
fn who_waits_long_is_told_so() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "mode = \"session\"\nsize = 1\nmin_idle = 0",
            ..Options::default()
        },
    );
    let (mut holder, _) = Raw::login(&gateway, "app_rw");
    holder.query("select 1");
    let (mut waiter, _) = Raw::login(&gateway, "app_rw");
    waiter.message('Q', b"select 2\0");
    let notice: Message = waiter.until('N').pop().unwrap();
    assert_eq!(notice.field(b'M').unwrap(), "waiting for a database connection");
    drop(holder);
    assert_eq!(waiter.until('Z').last().unwrap().tag, 'Z');
}

#[test]
fn waiters_are_served_in_their_order_and_those_who_left_are_skipped() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "mode = \"session\"\nsize = 1\nmin_idle = 0",
            ..Options::default()
        },
    );
    let (mut holder, _) = Raw::login(&gateway, "app_rw");
    holder.query("create table served (place serial, who int)");
    let mut waiters = Vec::new();
    for who in 0..6 {
        let (mut waiter, _) = Raw::login(&gateway, "app_rw");
        waiter.message(
            'Q',
            format!("insert into served (who) values ({who})\0").as_bytes(),
        );
        gateway.wait_for_metric("postern_pool_waiting_clients", &["app_rw"], f64::from(who) + 1.0);
        waiters.push(waiter);
    }
    drop(waiters.remove(2));
    drop(holder);
    for mut waiter in waiters {
        assert_eq!(waiter.until('Z').last().unwrap().tag, 'Z');
        waiter.message('X', b"");
    }
    let (mut reader, _) = Raw::login(&gateway, "app_rw");
    let rows = reader.query("select string_agg(who::text, '' order by place) from served");
    let order = rows.iter().find(|row| row.tag == 'D').unwrap();
    let order = String::from_utf8_lossy(&order.body[6..]).replace('2', "");
    assert_eq!(order, "01345");
}

#[test]
fn connections_that_the_server_has_closed_are_replaced() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "mode = \"session\"\nmin_idle = 2",
            ..Options::default()
        },
    );
    for _ in 0..3 {
        lab.superuser_sql(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'app_rw'",
        )
        .unwrap();
        let (mut client, _) = Raw::login(&gateway, "app_rw");
        assert_eq!(client.query("select 1").last().unwrap().tag, 'Z');
        client.message('X', b"");
    }
    gateway.wait_for_metric("postern_pool_connections", &["leased", "app_rw"], 0.0);
    assert!(gateway.metric("postern_pool_connections", &["idle", "app_rw"]) >= 2.0);
}

#[test]
fn connections_end_with_their_lifetime_and_their_replacement_is_there() {
    let lab = lab();
    let pool = "min_idle = 2\nlifetime = \"3s\"";
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool,
            ..Options::default()
        },
    );
    let logins = lab.logins().len();
    for _ in 0..500 {
        assert!(gateway.metric("postern_pool_connections", &["app_rw", "idle"]) >= 1.0);
        if lab.logins().len() >= logins + 4 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing was replaced");
}

#[test]
fn connections_are_opened_beside_each_other() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "mode = \"session\"\nsize = 8\nmin_idle = 0",
            ..Options::default()
        },
    );
    lab.faults()
        .change(|faults| faults.latency = Latency::FixedMs(500));
    let mut clients: Vec<Raw> = (0..8)
        .map(|_| {
            let mut raw = Raw::connect(&gateway);
            raw.send(&postern::wire::startup::startup_message(
                postern::wire::startup::ProtocolVersion::V3_0,
                &[("user", "app_rw"), ("database", "orders")],
            ));
            raw
        })
        .collect();
    gateway.wait_for_metric("postern_budget_in_flight", &[], 8.0);
    for client in &mut clients {
        assert_eq!(client.until('Z').last().unwrap().tag, 'Z');
    }
}

#[test]
fn sigterm_lets_transactions_end_and_a_second_one_does_not() {
    let lab = lab();
    let listen = "drain_timeout = \"1h\"";
    let mut gateway = Gateway::start(
        &lab,
        &Options {
            listen,
            ..Options::default()
        },
    );
    let mut silent = Raw::connect(&gateway);
    let (mut idle, _) = Raw::login(&gateway, "app_rw");
    idle.query("select 1");
    let (mut fresh, _) = Raw::login(&gateway, "app_rw");
    let (mut busy, _) = Raw::login(&gateway, "app_rw");
    busy.query("begin");
    let (mut stuck, _) = Raw::login(&gateway, "app_rw");
    stuck.query("begin");
    gateway.signal("TERM");
    for raw in [&mut idle, &mut fresh] {
        assert_eq!(raw.last_error().field(b'C').unwrap(), "57P01");
    }
    assert!(silent.is_closed(), "who says nothing holds nothing up");
    assert_eq!(gateway.page("/readyz").unwrap().0, 503);
    assert_eq!(busy.query("select 'still here'").last().unwrap().body, b"T");
    assert_eq!(busy.query("commit").last().unwrap().body, b"I");
    assert_eq!(busy.last_error().field(b'C').unwrap(), "57P01");
    assert!(gateway.is_alive());
    gateway.signal("TERM");
    assert_eq!(stuck.last_error().field(b'C').unwrap(), "57P01");
    assert!(gateway.wait().success());
}
