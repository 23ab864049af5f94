//! Promise 3: the login budget is never exceeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postern_lab::{Lab, LabConfig, Latency, Outcome, count, max_logins_in_any_second};

use crate::gateway::{Gateway, Options, connect};

/// 200 clients connect, query and leave, while the gateway is killed and started again.
#[test]
fn restarts_under_load_do_not_exceed_the_budget() {
    const SECONDS: u64 = 30;
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().change(|faults| {
        faults.latency = Latency::Lognormal {
            p50_ms: 40.0,
            p95_ms: 120.0,
            max_ms: 1000.0,
        }
    });
    let options = Options {
        pool: "size = 20\nmin_idle = 2",
        iam: "logins_per_second = 20\nburst = 20\nlogins_in_flight = 8",
        ..Options::default()
    };
    let mut gateway = Gateway::start(&lab, &options);
    let client = gateway.client("app_rw");
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (done, served) = (done.clone(), served.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let mut clients = tokio::task::JoinSet::new();
                for _ in 0..200 {
                    let (client, done, served) = (client.clone(), done.clone(), served.clone());
                    clients.spawn(async move {
                        while !done.load(Ordering::Relaxed) {
                            let answered = match connect(&client).await {
                                Ok(client) => client.simple_query("select 1").await,
                                Err(error) => Err(error),
                            };
                            match answered {
                                Ok(_) => drop(served.fetch_add(1, Ordering::Relaxed)),
                                // While the gateway is away, and when it goes under a client.
                                Err(error) if error.code().is_none() => {
                                    tokio::time::sleep(Duration::from_millis(20)).await
                                }
                                Err(error) => panic!("a client failed: {error:?}"),
                            }
                        }
                    });
                }
                while let Some(client) = clients.join_next().await {
                    client.unwrap();
                }
            });
        })
    };
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(4_700));
        gateway.restart();
    }
    done.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let logins = lab.logins();
    let most = max_logins_in_any_second(&logins);
    assert!(most <= 20, "{most} logins within a second");
    assert_eq!(count(&logins, Outcome::Throttled), 0);
    assert!(served.load(Ordering::Relaxed) > 1_000, "{served:?}");
    assert!(logins.len() > 40, "{}: the test needs logins", logins.len());
}

#[tokio::test]
async fn a_thousand_client_logins_cost_at_most_the_size_of_the_pool() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "size = 20\nmin_idle = 1",
            ..Options::default()
        },
    );
    let before = lab.logins().len();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..25 {
        let client = gateway.client("app_ro");
        clients.spawn(async move {
            for _ in 0..40 {
                let client = connect(&client).await.unwrap();
                client.simple_query("select 1").await.unwrap();
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(gateway.metric("postern_client_logins_total", &[]), 1_000.0);
    let cost = lab.logins().len() - before;
    assert!(cost <= 20, "{cost} IAM logins for 1,000 clients");
}
