//! Anything, in any order, cut anywhere.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use postern::wire::startup::ssl_request;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{
    AT_ONCE, FIRST, POOLS, Phase, Scene, WITH_SCRAM, WITH_TRUST, gss_request, initial, startup,
    until_the_end, with_length, with_scram,
};
use crate::gateway::Options;
use crate::raw::frame;

/// What a hostile client may say, piece by piece.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let sql = [
        "begin",
        "commit",
        "create temp table t (x text); copy t from stdin",
        "copy (select generate_series(1, 1000)) to stdout",
        "select 1",
        "listen x",
        "",
    ];
    let piece = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..60),
        1 => prop::sample::select(vec![startup(), ssl_request(), gss_request()]),
        1 => Just(initial(b"SCRAM-SHA-256\0", FIRST.len() as i32, FIRST)),
        6 => (prop::sample::select(&b"QPBDECSFHdcfpX"[..]), body.clone())
            .prop_map(|(tag, body)| frame(char::from(tag), &body)),
        1 => (any::<u8>(), any::<u32>(), body).prop_map(|(tag, length, body)| with_length(Some(tag), length, &body)),
        3 => prop::sample::select(sql.to_vec()).prop_map(|sql| frame('Q', format!("{sql}\0").as_bytes())),
    ];
    prop::collection::vec(piece, 0..10)
}

fn random_conversations(mut scene: Scene, phases: &'static [Phase]) {
    let mut runner = TestRunner::new(Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    });
    let cuts = prop::collection::vec(1usize..80, 0..6);
    let conversation = (prop::sample::select(phases), pieces(), cuts, any::<bool>());
    let scene = RefCell::new(&mut scene);
    runner
        .run(&conversation, |(phase, pieces, cuts, says_when_done)| {
            let mut scene = scene.borrow_mut();
            let mut raw = scene.reach(phase);
            let bytes = pieces.concat();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (part, tail) = rest.split_at(cut.min(rest.len()));
                rest = tail;
                let _ = raw.tcp.write_all(part);
                std::thread::sleep(Duration::from_micros(300));
            }
            let _ = raw.tcp.write_all(rest);
            if says_when_done {
                let _ = raw.tcp.shutdown(Shutdown::Write);
                prop_assert!(until_the_end(&mut raw, AT_ONCE).is_some(), "still there");
            }
            drop(raw);
            scene.check();
            Ok(())
        })
        .unwrap();
    let scene = scene.into_inner();
    scene
        .gateway
        .wait_for_metric("postern_client_connections", &[], 1.0);
    scene.check();
}

#[test]
fn random_conversations_with_trust() {
    for pool in POOLS {
        let options = Options {
            pool,
            ..Options::default()
        };
        random_conversations(Scene::new(options), &WITH_TRUST);
    }
}

#[test]
fn random_conversations_in_scram() {
    random_conversations(Scene::new(with_scram("")), &WITH_SCRAM);
}
