//! Micro benches of what a query, a lease or a login goes through. Compare runs on one machine; absolute numbers don't
//! carry over.
#![allow(clippy::unwrap_used, reason = "a bench that can't go on has failed")]

use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use divan::Bencher;
use divan::counter::BytesCount;
use postern::aws::credentials::Keys;
use postern::aws::token;
use postern::iam::{Budget, Governor, LoginOutcome};
use postern::pool::{Limits, Member, Placement, Pool};
use postern::session::parameters::Parameters;
use postern::session::tracker::Tracker;

fn main() {
    divan::main();
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A simple query and its answer of one row, both ways through the tracker.
#[divan::bench]
fn scan_simple_query(bencher: Bencher<'_, '_>) {
    let query = frame(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0");
    let answer = [
        frame(b'T', &[7; 28]),
        frame(b'D', &[0; 11]),
        frame(b'C', b"SELECT 1\0"),
        frame(b'Z', b"I"),
    ]
    .concat();
    let (mut tracker, mut parameters) = (Tracker::default(), std::rc::Rc::<Parameters>::default());
    bencher
        .counter(BytesCount::new(query.len() + answer.len()))
        .bench_local(|| {
            tracker.from_client(divan::black_box(&query));
            tracker
                .from_server(divan::black_box(&answer), &mut parameters)
                .unwrap();
        });
}

/// Parse, Bind, Describe, Execute, Sync and the answer.
#[divan::bench]
fn scan_extended_query(bencher: Bencher<'_, '_>) {
    let query: Vec<u8> = b"PBDES".iter().flat_map(|tag| frame(*tag, &[0; 24])).collect();
    let answer: Vec<u8> = b"12TDC"
        .iter()
        .flat_map(|tag| frame(*tag, &[0; 16]))
        .chain(frame(b'Z', b"I"))
        .collect();
    let (mut tracker, mut parameters) = (Tracker::default(), std::rc::Rc::<Parameters>::default());
    bencher
        .counter(BytesCount::new(query.len() + answer.len()))
        .bench_local(|| {
            tracker.from_client(divan::black_box(&query));
            tracker
                .from_server(divan::black_box(&answer), &mut parameters)
                .unwrap();
        });
}

/// 64 KiB of rows of 100 bytes.
#[divan::bench]
fn scan_rows(bencher: Bencher<'_, '_>) {
    let rows: Vec<u8> = std::iter::repeat_with(|| frame(b'D', &[0; 95]))
        .take(655)
        .flatten()
        .collect();
    let (mut tracker, mut parameters) = (Tracker::default(), std::rc::Rc::<Parameters>::default());
    bencher.counter(BytesCount::new(rows.len())).bench_local(|| {
        tracker
            .from_server(divan::black_box(&rows), &mut parameters)
            .unwrap()
    });
}

/// One IAM token, with a session token of the usual length.
#[divan::bench]
fn sign_token(bencher: Bencher<'_, '_>) {
    let credentials = Credentials::new("ASIAEXAMPLE", "secret", Some("t".repeat(900)), None, "bench");
    let keys = Keys::new(credentials, None);
    let user = "app_ro".into();
    let now = SystemTime::now();
    bencher.bench(|| {
        token::sign(
            &keys,
            "orders.abc.eu-west-1.rds.amazonaws.com",
            5432,
            "eu-west-1",
            &user,
            now,
        )
        .unwrap()
    });
}

/// A slot and a spend, granted at once.
#[divan::bench]
fn governor_login(bencher: Bencher<'_, '_>) {
    let mut now = Instant::now();
    let mut governor = Governor::new(Budget::new(1000, 1000, 8, Duration::ZERO).unwrap(), now);
    let mut verdicts = Vec::new();
    bencher.bench_local(|| {
        now += Duration::from_millis(2);
        let slot = governor.request_slot(now, now + Duration::from_secs(1));
        governor.request_spend(now, now + Duration::from_secs(1));
        governor.poll(now, &mut verdicts);
        verdicts.clear();
        governor.release_slot(slot, LoginOutcome::Succeeded, now);
    });
}

/// Checkout and return of an idle connection.
#[divan::bench]
fn pool_checkout(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        size: 20,
        min_idle: 0,
        idle_timeout: hour,
        replace_ahead: Duration::ZERO,
    };
    let mut pool: Pool<u64, ()> = Pool::new(limits);
    for _ in 0..20 {
        pool.wait(());
    }
    let opening = pool.start_opening(now, usize::MAX);
    let opened: Vec<_> = (0..opening as u64)
        .filter_map(|id| {
            match pool.opened(
                Member {
                    connection: id,
                    opened_at: now,
                    expires_at: now + hour,
                },
                now,
            ) {
                Placement::HandOff((), member) => Some(member),
                Placement::Parked | Placement::Expired(_) => None,
            }
        })
        .collect();
    for member in opened {
        assert!(matches!(pool.returned(member, now), Placement::Parked));
    }
    bencher.bench_local(|| {
        let member = pool.checkout(now).unwrap();
        matches!(pool.returned(member, now), Placement::Parked)
    });
}
