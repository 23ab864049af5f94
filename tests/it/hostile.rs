//! Promise 5: any bytes at any moment cost at most the client that sent them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postern::identity::Verifier;
use postern::wire::startup::{ProtocolVersion, ssl_request, startup_message};
use postern_lab::{Lab, LabConfig};
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Options, connect};
use crate::raw::{Raw, frame};

mod memory;
mod messages;
mod random;

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

/// What comes after the login is looked at in one way or the other.
const POOLS: [&str; 2] = ["mode = \"session\"", "mode = \"auto\""];

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
