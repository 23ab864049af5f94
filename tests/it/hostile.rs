//! Promise 5: any bytes at any moment cost at most the client that sent them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postern::identity::Verifier;
use postern::wire::startup::{CancelKey, ProtocolVersion, cancel_request, ssl_request, startup_message};
use postern_lab::{Lab, LabConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Options, connect};
use crate::raw::{Message, Raw, frame};

/// How long the gateway may take to end a connection that has to be ended at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Every type of message that there is, and some that there aren't.
const TAGS: [u8; 19] = *b"QPBDECSFHdcfpXzv\0\x16\xff";

/// Lengths that no message can have.
const LENGTHS: [u32; 8] = [0, 1, 2, 3, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// A gateway and a client of it that must not notice anything.
struct Scene {
    gateway: Gateway,
    bystander: tokio_postgres::Client,
    runtime: Runtime,
    _lab: Lab,
}

/// How far a client has come before it turns hostile.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Fresh,
    TlsGranted,
    GssDenied,
    /// Asked for its first SCRAM message.
    Sasl,
    /// Asked for its proof.
    Proof,
    LoggedIn,
}

const WITH_TRUST: [Phase; 4] = [Phase::Fresh, Phase::TlsGranted, Phase::GssDenied, Phase::LoggedIn];
const WITH_SCRAM: [Phase; 2] = [Phase::Sasl, Phase::Proof];

impl Scene {
    fn new(options: Options) -> Self {
        let lab = Lab::start(LabConfig::default()).unwrap();
        let gateway = Gateway::start(&lab, &options);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let config = gateway.client("app_ro").password("secret").to_owned();
        let bystander = runtime.block_on(connect(&config)).unwrap();
        let scene = Self {
            gateway,
            bystander,
            runtime,
            _lab: lab,
        };
        scene.bystand("create temp table mine as select 'all well' as news");
        scene
    }

    /// The process lives, and the bystander has still its server with what it keeps there.
    fn check(&mut self) {
        assert!(self.gateway.is_alive(), "the gateway has died");
        let rows = self.bystand("select news from mine");
        let news = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(news, Some("all well"));
    }

    fn bystand(&self, sql: &str) -> Vec<tokio_postgres::SimpleQueryMessage> {
        let answer = async { tokio::time::timeout(AT_ONCE, self.bystander.simple_query(sql)).await };
        let answer = self.runtime.block_on(answer).expect("the bystander waits");
        answer.expect("the bystander was disturbed")
    }

    /// A client that has come as far as that.
    fn reach(&self, phase: Phase) -> Raw {
        let mut raw = Raw::connect(&self.gateway);
        match phase {
            Phase::Fresh => {}
            Phase::TlsGranted => answered(&mut raw, &ssl_request(), b'S'),
            Phase::GssDenied => answered(&mut raw, &gss_request(), b'N'),
            Phase::Sasl | Phase::Proof => {
                raw.send(&startup());
                assert_eq!(raw.next().unwrap().tag, 'R');
                if matches!(phase, Phase::Proof) {
                    raw.send(&initial(b"SCRAM-SHA-256\0", FIRST.len() as i32, FIRST));
                    assert_eq!(raw.next().unwrap().tag, 'R');
                }
            }
            Phase::LoggedIn => {
                raw.send(&startup());
                assert_eq!(raw.until('Z').last().unwrap().tag, 'Z');
            }
        }
        raw
    }

    /// Sends `bytes` in that phase. The connection must end although the client leaves it open; gives what was said
    /// before.
    fn ends(&self, phase: Phase, bytes: &[u8]) -> Vec<u8> {
        let mut raw = self.reach(phase);
        // The gateway may well have closed before it got all of it.
        let _ = raw.tcp.write_all(bytes);
        until_the_end(&mut raw, AT_ONCE)
            .unwrap_or_else(|| panic!("{phase:?}: not ended after {:?}", &bytes[..bytes.len().min(40)]))
    }

    /// The same, and the client is told that it broke the protocol.
    fn is_refused(&self, phase: Phase, bytes: &[u8]) {
        let answer = self.ends(phase, bytes);
        let is_violation = answer.first() == Some(&b'E') && answer.windows(7).any(|seen| seen == b"C08P01\0");
        assert!(
            is_violation,
            "{phase:?}: {:?} was answered with {:?}",
            &bytes[..bytes.len().min(40)],
            String::from_utf8_lossy(&answer)
        );
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

fn with_scram(listen: &'static str) -> Options {
    let verifier = Verifier::from_password("secret", b"0123456789abcdef", 4096);
    Options {
        identity: format!("sources = [\"scram\"]\n[identity.scram.verifiers]\napp_ro = \"{verifier}\""),
        listen,
        ..Options::default()
    }
}

fn startup() -> Vec<u8> {
    startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    )
}

fn gss_request() -> Vec<u8> {
    with_length(None, 8, &80_877_104u32.to_be_bytes())
}

const FIRST: &[u8] = b"n,,n=,r=abcdefghijkl";

/// SASLInitialResponse with any length.
fn initial(mechanism: &[u8], length: i32, data: &[u8]) -> Vec<u8> {
    frame('p', &[mechanism, &length.to_be_bytes(), data].concat())
}

fn with_length(tag: Option<u8>, length: u32, body: &[u8]) -> Vec<u8> {
    tag.into_iter()
        .chain(length.to_be_bytes())
        .chain(body.iter().copied())
        .collect()
}

fn answered(raw: &mut Raw, request: &[u8], answer: u8) {
    raw.send(request);
    let mut byte = [0];
    raw.tcp.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [answer]);
}

/// What comes up to the end of the stream; `None` if it doesn't come in time.
fn until_the_end(raw: &mut Raw, patience: Duration) -> Option<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        raw.tcp
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        match raw.tcp.read(&mut buffer) {
            Ok(0) => return Some(answer),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            Err(_) => return Some(answer),
        }
    }
}

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
    let mut scene = Scene::new(Options::default());
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

/// A client that sends `bytes` over TLS and stays; it reads as far as its output is read.
fn through_tls(gateway: &Gateway, bytes: &[u8]) -> Child {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-starttls", "postgres", "-connect"])
        .arg(gateway.address().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    client
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
    let mut scene = Scene::new(Options::default());
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
    let scene = std::cell::RefCell::new(&mut scene);
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
    random_conversations(Scene::new(Options::default()), &WITH_TRUST);
}

#[test]
fn random_conversations_in_scram() {
    random_conversations(Scene::new(with_scram("")), &WITH_SCRAM);
}

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
    const PLAIN: usize = 10;
    const TLS: usize = 5;
    let mut scene = Scene::new(Options::default());
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
    const MIB: usize = 200;
    let mut scene = Scene::new(Options::default());
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
