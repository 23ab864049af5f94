//! What hostile clients can make the gateway hold.

use std::io::{ErrorKind, Write as _};
use std::net::Shutdown;
use std::process::Child;
use std::time::{Duration, Instant};

use postern::wire::startup::{ProtocolVersion, startup_message};

use super::{AT_ONCE, POOLS, Phase, Scene, startup, through_tls, until_the_end, with_length};
use crate::gateway::Options;
use crate::raw::{Message, Raw, frame};

#[test]
fn memory_stays_where_it_was() {
    let mut scene = Scene::new(Options::default());
    let attacks = [
        [startup(), frame('Q', &[b'x'; 50_000]), vec![b'Q', 0xff]].concat(),
        [startup(), with_length(Some(b'd'), 0x3fff_ffff, &[0; 9_000])].concat(),
        startup_message(ProtocolVersion::V3_2, &[("user", &"u".repeat(9_900))]),
        [&b"\x16\x03\x01\x40\x00"[..], &[1; 5_000]].concat(),
        with_length(None, u32::MAX, &[0; 5_000]),
    ];
    let round = |connections: usize| {
        for attack in attacks.iter().cycle().take(connections) {
            let mut raw = scene.reach(Phase::Fresh);
            let _ = raw.tcp.write_all(attack);
            let _ = raw.tcp.shutdown(Shutdown::Write);
            assert!(until_the_end(&mut raw, AT_ONCE).is_some(), "{:?}", &attack[..30]);
        }
    };
    round(300);
    let before = scene.gateway.private_kib();
    round(2_000);
    let grown = scene.gateway.private_kib().saturating_sub(before);
    assert!(grown < 2_048, "{grown} KiB more");
    scene.check();
}

#[test]
fn settings_that_nobody_else_has_are_not_kept_for_ever() {
    let mut scene = Scene::new(Options::default());
    let padding = "x".repeat(8_000);
    let round = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let name = format!("{number}{padding}");
            let mut raw = scene.reach(Phase::Fresh);
            raw.send(&startup_message(
                ProtocolVersion::V3_0,
                &[
                    ("user", "app_ro"),
                    ("database", "orders"),
                    ("application_name", &name),
                ],
            ));
            assert_eq!(raw.until('Z').last().unwrap().tag, 'Z');
            raw.message('X', b"");
        }
    };
    round(0..600);
    let before = scene.gateway.private_kib();
    round(600..1_600);
    let grown = scene.gateway.private_kib().saturating_sub(before);
    assert!(grown < 2_048, "{grown} KiB more");
    scene.check();
}

#[test]
fn clients_that_do_not_read_hold_little() {
    POOLS
        .into_iter()
        .for_each(clients_that_do_not_read_hold_little_in);
}

fn clients_that_do_not_read_hold_little_in(pool: &'static str) {
    const PLAIN: usize = 10;
    const TLS: usize = 5;
    let mut scene = Scene::new(Options {
        pool,
        ..Options::default()
    });
    let query = frame('Q', b"select repeat('x', 50000000)\0");
    let before = scene.gateway.private_kib();
    let deaf: Vec<Raw> = (0..PLAIN)
        .map(|_| {
            let mut raw = scene.reach(Phase::LoggedIn);
            raw.send(&query);
            raw
        })
        .collect();
    let deaf_over_tls: Vec<Child> = (0..TLS)
        .map(|_| through_tls(&scene.gateway, &[startup(), query.clone()].concat()))
        .collect();
    scene
        .gateway
        .wait_for_metric("postern_client_connections", &[], (PLAIN + TLS + 1) as f64);
    std::thread::sleep(Duration::from_secs(3));
    let grown = scene.gateway.private_kib().saturating_sub(before);
    assert!(
        grown < 300 * (PLAIN + TLS) as u64,
        "{grown} KiB for {} clients that don't read",
        PLAIN + TLS
    );
    scene.check();
    drop(deaf);
    for mut client in deaf_over_tls {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    scene
        .gateway
        .wait_for_metric("postern_client_connections", &[], 1.0);
    scene.check();
}

#[test]
fn a_huge_message_is_passed_on_and_not_held() {
    POOLS
        .into_iter()
        .for_each(a_huge_message_is_passed_on_and_not_held_in);
}

fn a_huge_message_is_passed_on_and_not_held_in(pool: &'static str) {
    const MIB: usize = 200;
    let mut scene = Scene::new(Options {
        pool,
        ..Options::default()
    });
    let before = scene.gateway.private_kib();
    let mut raw = scene.reach(Phase::LoggedIn);
    let text = vec![b' '; 1024 * 1024];
    let head = b"select 'end'\0";
    raw.send(&with_length(
        Some(b'Q'),
        (4 + MIB * text.len() + head.len()) as u32,
        b"",
    ));
    for _ in 0..MIB {
        raw.send(&text);
        assert!(scene.gateway.private_kib().saturating_sub(before) < 2_048);
    }
    scene.check();
    raw.send(head);
    let answer: Vec<Message> = raw.until('Z');
    assert!(
        answer
            .iter()
            .any(|row| row.tag == 'D' && row.body.ends_with(b"end"))
    );
    scene.check();
}

#[test]
fn a_flood_that_nobody_takes_is_not_held() {
    let options = Options {
        pool: "size = 2\nmin_idle = 0",
        ..Options::default()
    };
    let mut scene = Scene::new(options);
    let before = scene.gateway.private_kib();
    // The first keeps its server busy, the second waits for one, the third waits for one before it is greeted.
    let mut busy = scene.reach(Phase::LoggedIn);
    busy.message('Q', b"select pg_sleep(60)\0");
    scene
        .gateway
        .wait_for_metric("postern_pool_connections", &["leased", "app_ro"], 2.0);
    let waiting = scene.reach(Phase::LoggedIn);
    let mut early = scene.reach(Phase::Fresh);
    early.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders"), ("work_mem", "5MB")],
    ));
    for raw in &mut [busy, waiting, early] {
        let flood = frame('Q', &[b' '; 1024 * 1024]);
        let until = Instant::now() + Duration::from_millis(500);
        raw.tcp.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while Instant::now() < until {
            match raw.tcp.write(&flood[sent % flood.len()..]) {
                Ok(written) => sent += written,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken");
        let grown = scene.gateway.private_kib().saturating_sub(before);
        assert!(grown < 2_048, "{grown} KiB more");
        scene.check();
    }
}
