//! Promise 5: any bytes at any moment cost at most the client that sent them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use postern::identity::Verifier;
use postern::wire::startup::{CancelKey, ProtocolVersion, cancel_request, ssl_request, startup_message};
use postern_lab::{Lab, LabConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::gateway::{Gateway, Options};
use crate::raw::{Raw, frame};

/// A gateway and a client of it that must not notice anything.
struct Scene {
    gateway: Gateway,
    bystander: Raw,
    _lab: Lab,
}

impl Scene {
    fn new(identity: &str, listen: &'static str) -> Self {
        let lab = Lab::start(LabConfig::default()).unwrap();
        let identity = if identity.is_empty() {
            "sources = [\"trust\"]"
        } else {
            identity
        }
        .to_owned();
        let is_trust = identity.contains("trust");
        let gateway = Gateway::start(
            &lab,
            &Options {
                identity,
                listen,
                ..Options::default()
            },
        );
        let bystander = if is_trust {
            Raw::login(&gateway, "app_ro").0
        } else {
            Raw::connect(&gateway)
        };
        let mut scene = Self {
            gateway,
            bystander,
            _lab: lab,
        };
        if is_trust {
            scene.check();
        }
        scene
    }

    fn check(&mut self) {
        assert!(self.gateway.is_alive(), "the gateway has died");
        let answer = self.bystander.query("select 'all well'");
        assert_eq!(
            answer.last().unwrap().tag,
            'Z',
            "the bystander was disturbed: {answer:?}"
        );
    }

    /// Sends `bytes` on a new connection, hangs up its half, and waits for the end.
    fn throw(&self, bytes: &[u8]) {
        let mut tcp = TcpStream::connect(self.gateway.address()).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = tcp.write_all(bytes);
        let _ = tcp.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let ended = tcp.read_to_end(&mut answer);
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "not ended after {:?}", &bytes[..bytes.len().min(40)]);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.gateway.metric("postern_panics_total", &[]), 0.0);
            assert!(!self.gateway.log().contains("panicked"));
        }
    }
}

fn startup() -> Vec<u8> {
    startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    )
}

fn with_length(tag: Option<u8>, length: u32, body: &[u8]) -> Vec<u8> {
    tag.into_iter()
        .chain(length.to_be_bytes())
        .chain(body.iter().copied())
        .collect()
}

#[test]
fn impossible_startup_packets() {
    let mut scene = Scene::new("", "");
    let code = 196_608u32.to_be_bytes();
    for length in [0, 3, 4, 7, 8, 9, 10_001, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        scene.throw(&with_length(None, length, &code));
        scene.throw(&with_length(
            None,
            length,
            &[&code[..], b"user\0app_ro\0\0"].concat(),
        ));
    }
    let parameters = |body: &[u8]| with_length(None, body.len() as u32 + 8, &[&code[..], body].concat());
    for body in [
        &b""[..],
        b"\0",
        b"user",
        b"user\0app_ro",
        b"user\0\xff\xfe\0\0",
        b"user\0app_ro\0\0trailing",
        b"user\0app_ro\0user\0app_rw\0\0",
        &[b"user\0".as_slice(), &[b'u'; 9_000], b"\0\0"].concat(),
        &b"a\0b\0".repeat(2_000),
    ] {
        scene.throw(&parameters(body));
    }
    for secret in [0, 1, 3, 5, 256, 257, 4_000] {
        scene.throw(&cancel_request(&CancelKey {
            pid: 7,
            secret: vec![1; secret],
        }));
    }
    let gss = with_length(None, 8, &80_877_104u32.to_be_bytes());
    for bytes in [
        [ssl_request(), ssl_request()].concat(),
        [gss.clone(), gss.clone()].concat(),
        [gss, startup()].concat(),
        vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        vec![0x16; 20_000],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ] {
        scene.throw(&bytes);
    }
    scene.check();
}

#[test]
fn impossible_lengths_after_the_login() {
    let mut scene = Scene::new("", "");
    for tag in *b"QPBDECSFHdcfpXz\0\xff" {
        for length in [0, 1, 3, 0x4000_0000, 0x7fff_ffff, u32::MAX] {
            let (mut raw, _) = Raw::login(&scene.gateway, "app_ro");
            raw.send(&with_length(Some(tag), length, b"select 1\0"));
            let told = raw.until('E');
            // A goodbye is believed whatever its length says; anything else is answered.
            let refused = told
                .iter()
                .any(|message| message.field(b'C').as_deref() == Some("08P01"));
            assert!(refused || raw.is_closed(), "{tag:#04x} {length:#x}: {told:?}");
        }
    }
    scene.check();
}

#[test]
fn impossible_sasl() {
    let verifier = Verifier::from_password("x", b"0123456789abcdef", 4096).to_string();
    let scene = Scene::new(
        &format!("sources = [\"scram\"]\n[identity.scram.verifiers]\napp_ro = \"{verifier}\""),
        "",
    );
    let initial = |mechanism: &[u8], length: i32, data: &[u8]| {
        frame('p', &[mechanism, &length.to_be_bytes(), data].concat())
    };
    let first = b"n,,n=,r=abcdefghijkl";
    let len = i32::try_from(first.len()).unwrap();
    for bytes in [
        initial(b"SCRAM-SHA-256\0", -1, first),
        initial(b"SCRAM-SHA-256\0", i32::MAX, first),
        initial(b"SCRAM-SHA-256\0", i32::MIN, first),
        initial(b"SCRAM-SHA-256\0", len + 1, first),
        initial(b"SCRAM-SHA-256\0", len - 1, first),
        initial(b"SCRAM-SHA-256", 0, b""),
        initial(b"SCRAM-SHA-256-PLUS\0", len, first),
        initial(b"PLAIN\0", len, first),
        frame('p', b""),
        frame('p', b"\0"),
        frame('p', &[b'a'; 70_000]),
        frame('Q', b"select 1\0"),
        with_length(Some(b'p'), 0, b""),
        with_length(Some(b'p'), u32::MAX, b""),
        [
            initial(b"SCRAM-SHA-256\0", len, first),
            frame('p', b"c=biws,r=,p="),
        ]
        .concat(),
        [
            initial(b"SCRAM-SHA-256\0", len, first),
            frame('p', &[0xff; 60_000]),
        ]
        .concat(),
    ] {
        scene.throw(&[startup(), bytes].concat());
    }
}

#[test]
fn slow_senders_end_by_the_deadline() {
    let verifier = Verifier::from_password("x", b"0123456789abcdef", 4096).to_string();
    let scene = Scene::new(
        &format!("sources = [\"scram\"]\n[identity.scram.verifiers]\napp_ro = \"{verifier}\""),
        "login_timeout = \"500ms\"",
    );
    let (hello, half) = (startup(), startup()[..20].to_vec());
    for bytes in [
        vec![0],
        half,
        ssl_request(),
        vec![0x16],
        vec![0x16, 3, 1, 2, 0, 1],
        hello.clone(),
        [hello, vec![b'p']].concat(),
    ] {
        let mut raw = Raw::connect(&scene.gateway);
        raw.send(&bytes);
        let mut rest = Vec::new();
        let ended = raw.tcp.read_to_end(&mut rest);
        assert!(
            !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "{bytes:?} is still there"
        );
    }
}

/// What a hostile client may say, piece by piece.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let piece = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(startup()),
        1 => Just(ssl_request()),
        6 => (prop::sample::select(&b"QPBDECSFHdcfpX"[..]), body.clone()).prop_map(|(tag, body)| frame(char::from(tag), &body)),
        1 => (any::<u8>(), any::<u32>(), body).prop_map(|(tag, length, body)| with_length(Some(tag), length, &body)),
        2 => prop::sample::select(&["begin", "commit", "copy t from stdin", "copy t to stdout", "select 1", "listen x"][..])
            .prop_map(|sql| frame('Q', format!("{sql}\0").as_bytes())),
    ];
    prop::collection::vec(piece, 0..10)
}

#[test]
fn random_conversations() {
    let mut scene = Scene::new("", "login_timeout = \"2s\"");
    scene.bystander.query("create temp table t (x text)");
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(
            &(any::<bool>(), pieces(), prop::collection::vec(1usize..80, 0..6)),
            |(logged_in, pieces, cuts)| {
                let prefix = if logged_in { startup() } else { Vec::new() };
                let bytes = [prefix, pieces.concat()].concat();
                let mut tcp = TcpStream::connect(scene.gateway.address()).unwrap();
                tcp.set_nodelay(true).unwrap();
                tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut rest = bytes.as_slice();
                for cut in cuts {
                    let (part, tail) = rest.split_at(cut.min(rest.len()));
                    rest = tail;
                    let _ = tcp.write_all(part);
                    std::thread::sleep(Duration::from_micros(300));
                }
                let _ = tcp.write_all(rest);
                let _ = tcp.shutdown(std::net::Shutdown::Write);
                let ended = tcp.read_to_end(&mut Vec::new());
                prop_assert!(
                    !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
                    "still there"
                );
                Ok(())
            },
        )
        .unwrap();
    scene.check();
    scene
        .gateway
        .wait_for_metric("postern_client_connections", &[], 1.0);
}

#[test]
fn memory_stays_where_it_was() {
    let mut scene = Scene::new("", "");
    let garbage = [startup(), frame('Q', &[b'x'; 50_000]), vec![b'Q', 0xff]].concat();
    for _ in 0..200 {
        scene.throw(&garbage);
    }
    let before = scene.gateway.private_kib();
    for _ in 0..1_500 {
        scene.throw(&garbage);
    }
    let grown = scene.gateway.private_kib().saturating_sub(before);
    assert!(grown < 4_096, "{grown} KiB more");
    scene.check();
}

#[test]
fn clients_that_do_not_read_hold_little() {
    let mut scene = Scene::new("", "");
    let before = scene.gateway.private_kib();
    let deaf: Vec<Raw> = (0..15)
        .map(|_| {
            let (mut raw, _) = Raw::login(&scene.gateway, "app_ro");
            raw.message('Q', b"select repeat('x', 50000000)\0");
            raw
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    let grown = scene.gateway.private_kib().saturating_sub(before);
    assert!(grown < 15 * 400, "{grown} KiB for 15 clients that don't read");
    scene.check();
    drop(deaf);
}

#[test]
fn a_huge_message_is_passed_on_and_not_held() {
    let mut scene = Scene::new("", "");
    let before = scene.gateway.private_kib();
    let (mut raw, _) = Raw::login(&scene.gateway, "app_ro");
    let text = vec![b' '; 1024 * 1024];
    let head = b"select 'end'";
    raw.send(&with_length(
        Some(b'Q'),
        4 + 100 * 1024 * 1024 + head.len() as u32 + 1,
        b"",
    ));
    for _ in 0..100 {
        raw.send(&text);
        assert!(scene.gateway.private_kib().saturating_sub(before) < 2_048);
    }
    raw.send(head);
    raw.send(b"\0");
    assert_eq!(raw.until('Z').last().unwrap().tag, 'Z');
    scene.check();
}
