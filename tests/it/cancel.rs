//! Cancels hit their own query or nobody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postern::wire::startup::{CancelKey, cancel_request};
use postern_lab::{Lab, LabConfig};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::gateway::{Gateway, Options, connect};
use crate::raw::{Message, Raw};

#[test]
fn a_cancel_ends_the_query_of_its_own_client() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(&lab, &Options::default());
    let (mut raw, greeting) = Raw::login(&gateway, "app_rw");
    let key = cancel_key(&greeting);
    raw.message('Q', b"select pg_sleep(600)\0");
    let wrong = CancelKey {
        pid: key.pid,
        secret: vec![0; 4],
    };
    for (key, outcome) in [(wrong, "unknown"), (key, "forwarded")] {
        let mut cancel = Raw::connect(&gateway);
        std::thread::sleep(Duration::from_millis(200));
        cancel.send(&cancel_request(&key));
        assert!(
            cancel.is_closed(),
            "the end of the connection says that it is done"
        );
        gateway.wait_for_metric("postern_cancel_requests_total", &[outcome], 1.0);
    }
    let error = raw
        .until('Z')
        .into_iter()
        .find(|message| message.tag == 'E')
        .unwrap();
    assert_eq!(error.field(b'C').unwrap(), "57014");
    assert_eq!(
        raw.query("select 1").last().unwrap().tag,
        'Z',
        "the session goes on"
    );
}

/// Somebody who repeats a cancel a thousand times costs the server a handful of connections.
#[test]
fn a_flood_of_cancels_does_not_reach_the_server() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(&lab, &Options::default());
    let (mut raw, greeting) = Raw::login(&gateway, "app_rw");
    let key = cancel_key(&greeting);
    raw.query("select 1");
    let flood: Vec<Raw> = (0..500)
        .map(|_| {
            let mut cancel = Raw::connect(&gateway);
            cancel.send(&cancel_request(&key));
            cancel
        })
        .collect();
    assert!(lab.open_sockets() < 40, "{}", lab.open_sockets());
    for mut cancel in flood {
        assert!(cancel.is_closed());
    }
    assert_eq!(raw.query("select 1").last().unwrap().tag, 'Z');
}

/// Clients come, run a short query, cancel it at a random moment, and leave, over few servers, while others run
/// queries that nobody cancels. An innocent one that is cancelled is the failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancels_hits_nobody_else() {
    for pool in [
        "mode = \"session\"\nsize = 4\nmin_idle = 4",
        "mode = \"auto\"\nsize = 4\nmin_idle = 4",
    ] {
        storm(pool).await;
    }
}

async fn storm(pool: &'static str) {
    const ROUNDS: usize = 5_000;
    const ATTACKERS: usize = 12;
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Arc::new(Gateway::start(
        &lab,
        &Options {
            pool,
            ..Options::default()
        },
    ));
    let rounds = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..ATTACKERS {
        let (gateway, rounds) = (gateway.clone(), rounds.clone());
        tasks.spawn(async move {
            loop {
                let round = rounds.fetch_add(1, Ordering::Relaxed);
                if round >= ROUNDS {
                    break;
                }
                let client = connect(&gateway.client("app_rw")).await.unwrap();
                let token = client.cancel_token();
                // While it waits for a server, while it runs, or after.
                let pause = Duration::from_micros(round as u64 * 6_113 % 16_000);
                let (answer, cancelled) =
                    tokio::join!(client.simple_query("select pg_sleep(0.003)"), async {
                        tokio::time::sleep(pause).await;
                        token.cancel_query(NoTls).await
                    });
                cancelled.unwrap();
                if let Err(error) = answer {
                    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
                }
                // A cancel that is sent as the client leaves must not find the next one on the same server.
                tokio::spawn(async move { token.cancel_query(NoTls).await });
            }
        });
    }
    let innocent = Arc::new(AtomicUsize::new(0));
    let mut bystanders = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (gateway, done, innocent) = (gateway.clone(), done.clone(), innocent.clone());
        bystanders.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let client = connect(&gateway.client("app_rw")).await.unwrap();
                client
                    .simple_query("select pg_sleep(0.001)")
                    .await
                    .expect("an innocent query was cancelled");
                innocent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    while let Some(task) = bystanders.join_next().await {
        task.unwrap();
    }
    assert!(innocent.load(Ordering::Relaxed) > 100, "{innocent:?}");
    assert!(lab.cancel_requests() > ROUNDS / 500, "{}", lab.cancel_requests());
}

pub(crate) fn cancel_key(greeting: &[Message]) -> CancelKey {
    let key = greeting.iter().find(|message| message.tag == 'K').unwrap();
    CancelKey {
        pid: i32::from_be_bytes(key.body[..4].try_into().unwrap()),
        secret: key.body[4..].to_vec(),
    }
}
