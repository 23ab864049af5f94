//! Messages that can't be, come at the wrong time, or never end.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use postern::wire::startup::{CancelKey, ProtocolVersion, cancel_request, ssl_request, startup_message};

use super::{
    AT_ONCE, FIRST, LENGTHS, POOLS, Phase, Scene, TAGS, WITH_SCRAM, answered, gss_request, initial, startup,
    through_tls, until_the_end, with_length, with_scram,
};
use crate::gateway::Options;
use crate::raw::{Raw, frame};

#[test]
fn impossible_startup_packets() {
    let mut scene = Scene::new(Options::default());
    let code = 196_608u32.to_be_bytes();
    for length in [0, 3, 4, 7, 8, 9, 10_001, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for phase in [Phase::Fresh, Phase::GssDenied] {
            let parameters = [&code[..], b"user\0app_ro\0\0"].concat();
            scene.is_refused(phase, &with_length(None, length, &parameters));
        }
    }
    for body in [
        &b""[..],
        b"user",
        b"user\0",
        b"user\0app_ro",
        b"user\0app_ro\0",
        b"user\0\xff\xfe\0\0",
        b"\xc3\x28\0app_ro\0\0",
        b"user\0app_ro\0\0trailing",
        b"user\0app_ro\0user\0app_rw\0\0",
        &b"a\0b\0".repeat(2_000),
        &[b'u'; 9_992],
    ] {
        let packet = with_length(None, body.len() as u32 + 8, &[&code[..], body].concat());
        scene.is_refused(Phase::Fresh, &packet);
    }
    for version in [0u32, 1, 0x0002_0000, 0x0004_0000, u32::MAX] {
        let packet = with_length(
            None,
            21,
            &[&version.to_be_bytes()[..], b"user\0app_ro\0\0"].concat(),
        );
        let answer = scene.ends(Phase::Fresh, &packet);
        assert_eq!(answer.first(), Some(&b'E'), "version {version:#x}");
    }
    scene.is_refused(Phase::Fresh, &[startup()[..8].to_vec(), vec![0; 65_536]].concat());
    scene.check();
}

#[test]
fn names_as_long_as_may_be() {
    let mut scene = Scene::new(Options::default());
    let long = "n".repeat(9_000);
    let many: Vec<String> = (0..1_500).map(|n| format!("a{n:x}")).collect();
    let mut many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    many.push(("user", "app_ro"));
    for parameters in [
        vec![("user", long.as_str())],
        vec![("user", "app_ro"), ("database", &long)],
        vec![("user", "app_ro"), ("application_name", &long)],
        vec![("user", "app_ro"), ("options", &long)],
        vec![("user", "app_ro"), (&long, "1")],
        vec![("user", "app_ro"), ("database", "orders"), (&long, "1")],
        vec![
            ("user", "\u{1}\u{7f}\u{202e}"),
            ("database", "'; drop table x; --"),
        ],
        many,
    ] {
        let mut raw = scene.reach(Phase::Fresh);
        raw.send(&startup_message(ProtocolVersion::V3_0, &parameters));
        let error = raw.last_error();
        let longest = error.body.split(|byte| *byte == 0).map(<[u8]>::len).max();
        assert!(longest < Some(4_096), "{error:?}");
    }
    let name = ("application_name", long.as_str());
    let mut raw = scene.reach(Phase::Fresh);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders"), name],
    ));
    assert_eq!(
        raw.until('Z').last().unwrap().tag,
        'Z',
        "the server cuts it itself"
    );
    scene.check();
}

#[test]
fn requests_out_of_order() {
    POOLS.into_iter().for_each(requests_out_of_order_in);
}

fn requests_out_of_order_in(pool: &'static str) {
    let mut scene = Scene::new(Options {
        pool,
        ..Options::default()
    });
    for requests in [
        [ssl_request(), ssl_request()],
        [gss_request(), gss_request()],
        [gss_request(), startup()],
        [ssl_request(), startup()],
    ] {
        let answer = scene.ends(Phase::Fresh, &requests.concat());
        assert_eq!(
            answer.first(),
            Some(&b'E'),
            "bytes before the answer to a request for encryption"
        );
    }
    scene.is_refused(Phase::GssDenied, &gss_request());
    scene.is_refused(Phase::LoggedIn, &startup());
    scene.is_refused(Phase::LoggedIn, &ssl_request());
    for bytes in [
        ssl_request(),
        startup(),
        vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        vec![0x16; 20_000],
    ] {
        scene.ends(Phase::TlsGranted, &bytes);
        scene.ends(
            Phase::Fresh,
            &[b"\x16\x03\x01\xff\xff", bytes.as_slice(), &[0; 70_000]].concat(),
        );
    }
    scene.is_refused(Phase::Fresh, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");

    let mut both = scene.reach(Phase::GssDenied);
    answered(&mut both, &ssl_request(), b'S');
    let _ = both.tcp.write_all(&startup());
    until_the_end(&mut both, AT_ONCE).expect("what isn't TLS goes on");

    let mut after_gss = scene.reach(Phase::GssDenied);
    after_gss.send(&startup());
    assert_eq!(after_gss.until('Z').last().unwrap().tag, 'Z');

    let mut again = Raw::connect(&scene.gateway);
    again.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "nowhere")],
    ));
    assert_eq!(again.until('E').last().unwrap().field(b'C').unwrap(), "28000");
    let _ = again.tcp.write_all(&startup());
    assert_eq!(
        until_the_end(&mut again, AT_ONCE),
        Some(Vec::new()),
        "one attempt for each connection"
    );
    scene.check();
}

#[test]
fn requests_within_tls() {
    let mut scene = Scene::new(Options::default());
    let code = 196_608u32.to_be_bytes();
    for bytes in [
        ssl_request(),
        gss_request(),
        with_length(None, 0, &code),
        with_length(None, u32::MAX, &code),
        vec![0x16, 3, 1, 0, 5],
        [startup(), with_length(Some(b'Q'), u32::MAX, b"x")].concat(),
    ] {
        let mut tls = through_tls(&scene.gateway, &bytes);
        let mut answer = Vec::new();
        tls.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
        tls.wait().unwrap();
        assert!(
            answer.windows(7).any(|seen| seen == b"C08P01\0"),
            "{bytes:?} was answered with {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    scene.check();
}

#[test]
fn impossible_cancel_requests() {
    let mut scene = Scene::new(Options::default());
    for secret in [0, 1, 2, 3, 257, 4_000] {
        let secret = vec![1; secret];
        scene.is_refused(Phase::Fresh, &cancel_request(&CancelKey { pid: 7, secret }));
    }
    for secret in [4, 5, 32, 256] {
        let secret = vec![1; secret];
        let answer = scene.ends(Phase::Fresh, &cancel_request(&CancelKey { pid: 7, secret }));
        assert_eq!(answer, b"", "nobody is told whether a key exists");
    }
    scene.check();
}

#[test]
fn impossible_lengths_after_the_login() {
    POOLS.into_iter().for_each(impossible_lengths_after_the_login_in);
}

fn impossible_lengths_after_the_login_in(pool: &'static str) {
    let mut scene = Scene::new(Options {
        pool,
        ..Options::default()
    });
    for tag in TAGS {
        for length in LENGTHS {
            let bytes = with_length(Some(tag), length, b"select 1\0");
            // A goodbye is believed whatever its length says; anything else is answered.
            if tag == b'X' {
                scene.ends(Phase::LoggedIn, &bytes);
            } else {
                scene.is_refused(Phase::LoggedIn, &bytes);
            }
        }
    }
    scene.check();
}

#[test]
fn impossible_lengths_before_the_login() {
    let mut scene = Scene::new(with_scram(""));
    for phase in WITH_SCRAM {
        for tag in TAGS {
            for length in LENGTHS {
                scene.is_refused(phase, &with_length(Some(tag), length, b"select 1\0"));
            }
        }
    }
    scene.check();
}

#[test]
fn a_muddle_that_is_left_behind_holds_no_server() {
    POOLS
        .into_iter()
        .for_each(a_muddle_that_is_left_behind_holds_no_server_in);
}

fn a_muddle_that_is_left_behind_holds_no_server_in(pool: &'static str) {
    let mut scene = Scene::new(Options {
        pool,
        ..Options::default()
    });
    let copy = frame('Q', b"create temp table t (x text); copy t from stdin\0");
    let bad_parse = frame('P', b"no end");
    let good_parse = frame('P', b"\0select 1\0\0\0");
    let query = frame('Q', b"select 1\0");
    let done = frame('c', b"");
    for bytes in [
        copy.clone(),
        [copy, query.clone()].concat(),
        [bad_parse.clone(), frame('H', b""), query.clone()].concat(),
        [good_parse.clone(), query].concat(),
        [good_parse, done.clone()].concat(),
        [bad_parse, done].concat(),
    ] {
        let mut raw = scene.reach(Phase::LoggedIn);
        raw.send(&bytes);
        // With what comes of it, or without.
        raw.tcp
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let _ = raw.tcp.read(&mut [0; 1024]);
        drop(raw);
        let left = Instant::now();
        scene
            .gateway
            .wait_for_metric("postern_client_connections", &[], 1.0);
        assert!(
            left.elapsed() < Duration::from_secs(5),
            "{:?} holds its server",
            String::from_utf8_lossy(&bytes)
        );
    }
    scene.check();
}

#[test]
fn impossible_sasl() {
    let mut scene = Scene::new(with_scram(""));
    let len = FIRST.len() as i32;
    for bytes in [
        initial(b"SCRAM-SHA-256\0", -1, b""),
        initial(b"SCRAM-SHA-256\0", -1, FIRST),
        initial(b"SCRAM-SHA-256\0", 0, FIRST),
        initial(b"SCRAM-SHA-256\0", i32::MAX, FIRST),
        initial(b"SCRAM-SHA-256\0", i32::MIN, FIRST),
        initial(b"SCRAM-SHA-256\0", len + 1, FIRST),
        initial(b"SCRAM-SHA-256\0", len - 1, FIRST),
        initial(b"SCRAM-SHA-256", 0, b""),
        initial(b"SCRAM-SHA-256", 0x0101_0101, FIRST),
        initial(b"SCRAM-SHA-256-PLUS\0", len, FIRST),
        initial(b"\xff\xfe\0", len, FIRST),
        initial(b"PLAIN\0", len, FIRST),
        frame('p', b"SCRAM-SHA-256\0\0\0"),
        frame('p', b""),
        frame('p', b"\0"),
        frame('p', b"secret\0"),
    ] {
        scene.is_refused(Phase::Sasl, &bytes);
    }
    for phase in WITH_SCRAM {
        scene.is_refused(phase, &frame('p', &[b'a'; 70_000]));
        scene.is_refused(phase, &frame('p', &[0xff; 1_020]));
        scene.is_refused(phase, &frame('Q', b"select 1\0"));
        scene.is_refused(phase, &startup());
    }
    for proof in [
        &b"c=biws,r=,p="[..],
        b"",
        b",",
        b"c=biws,r=abcdefghijkl,p=AAAA",
        b"p=p=p=",
    ] {
        scene.is_refused(Phase::Proof, &frame('p', proof));
    }
    scene.check();
}

#[test]
fn slow_senders_end_by_the_deadline() {
    let mut scene = Scene::new(with_scram("login_timeout = \"500ms\"\nsilent_timeout = \"1h\""));
    let began = Instant::now();
    let mut slow: Vec<(Phase, Vec<u8>, Raw)> = [
        (Phase::Fresh, vec![0]),
        (Phase::Fresh, startup()[..20].to_vec()),
        (Phase::Fresh, vec![0x16]),
        (Phase::Fresh, vec![0x16, 3, 1, 2, 0, 1]),
        (Phase::TlsGranted, vec![]),
        (Phase::TlsGranted, vec![0x16, 3, 1]),
        (Phase::GssDenied, vec![]),
        (Phase::GssDenied, vec![0]),
        (Phase::Sasl, vec![]),
        (Phase::Sasl, vec![b'p']),
        (Phase::Sasl, with_length(Some(b'p'), 100, b"SCRAM")),
        (Phase::Proof, vec![]),
        (Phase::Proof, vec![b'p', 0]),
    ]
    .into_iter()
    .map(|(phase, bytes)| {
        let mut raw = scene.reach(phase);
        raw.send(&bytes);
        (phase, bytes, raw)
    })
    .collect();
    for (phase, bytes, raw) in &mut slow {
        let left = Duration::from_secs(3).saturating_sub(began.elapsed());
        assert!(
            until_the_end(raw, left).is_some(),
            "{phase:?}, {bytes:?}: still there"
        );
    }
    // A byte now and then doesn't put it off.
    for (phase, bytes) in [(Phase::Fresh, startup()), (Phase::Sasl, frame('p', &[b'S'; 60]))] {
        let mut raw = scene.reach(phase);
        let began = Instant::now();
        let ended = bytes.iter().any(|byte| {
            raw.tcp.write_all(&[*byte]).is_err()
                || until_the_end(&mut raw, Duration::from_millis(50)).is_some()
        });
        assert!(
            ended && began.elapsed() < Duration::from_secs(2),
            "{phase:?} lasts byte by byte"
        );
    }
    scene.check();
}
