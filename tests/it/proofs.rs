//! Passwords that prove by STS who somebody is.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern::aws::credentials::Keys;
use postern::aws::sts::prove;
use postern::identity::sts::{PREFIX, nonce};
use postern::wire::startup::{ProtocolVersion, startup_message};
use postern_lab::{AwsFault, Key, Lab, LabConfig};

use crate::gateway::{Gateway, Options, stderr};
use crate::raw::{Message, Raw};

const GATEWAY: &str = "bastion.example";
const REGION: &str = "us-east-1";
const ALICE: &str =
    "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/alice@example.com";

fn identity() -> String {
    format!("sources = [\"sts\"]\nsts.gateway = \"{GATEWAY}\"\nsts.accounts = [\"123456789012\"]")
}

fn started(options: Options) -> (Lab, Gateway, Key) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let alice = lab.add_key(ALICE, Some(Duration::from_secs(3_600))).unwrap();
    let gateway = Gateway::start(&lab, &options);
    // What was signed in the second of its start counts as signed before.
    std::thread::sleep(Duration::from_millis(1_100));
    (lab, gateway, alice)
}

fn with_sts() -> (Lab, Gateway, Key) {
    started(Options {
        identity: identity(),
        pool: "mode = \"auto\"",
        rules: "[[rules]]\nprincipals = [\"arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_*/*\"]\n\
                targets = [\"orders\"]\nusers = [\"app_ro\"]",
        ..Options::default()
    })
}

fn keys(key: &Key) -> Keys {
    let credentials = Credentials::new(
        &*key.access_key_id,
        &*key.secret,
        key.session_token.clone(),
        key.expires,
        "test",
    );
    Keys::new(credentials, key.expires)
}

/// A proof of this key's, for this gateway and signed so many seconds ago.
fn proof(key: &Key, gateway: &str, ago: i64) -> String {
    let now = SystemTime::now();
    let by = Duration::from_secs(ago.unsigned_abs());
    let then = if ago < 0 { now + by } else { now - by };
    let nonce = nonce().unwrap();
    prove(&keys(key), gateway, REGION, &nonce, then)
        .unwrap()
        .to_string()
}

/// A proof whose URL was changed after it was signed.
fn changed(key: &Key, change: impl Fn(&str) -> String) -> String {
    let good = proof(key, GATEWAY, 0);
    let (nonce, encoded) = good.strip_prefix(PREFIX).unwrap().split_once('.').unwrap();
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
    let other = change(&url);
    assert_ne!(other, url);
    format!("{PREFIX}{nonce}.{}", URL_SAFE_NO_PAD.encode(other))
}

fn begin(gateway: &Gateway) -> Raw {
    let mut raw = Raw::connect(gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    let asked = raw.next().unwrap();
    assert_eq!((asked.tag, &*asked.body), ('R', &[0, 0, 0, 3][..]));
    raw
}

/// What a login with this password ends with.
fn log_in(gateway: &Gateway, password: &str) -> Message {
    let mut raw = begin(gateway);
    raw.message('p', &[password.as_bytes(), b"\0"].concat());
    raw.until('Z').pop().unwrap()
}

fn is_in(answer: &Message) -> bool {
    answer.tag == 'Z'
}

#[track_caller]
fn refused(gateway: &Gateway, password: &str, outcome: &str, detail: &str) {
    let before = gateway.metric("postern_sts_proofs_total", &[&format!("outcome=\"{outcome}\"")]);
    let error = log_in(gateway, password);
    assert_eq!(error.field(b'C').as_deref(), Some("28P01"), "{error:?}");
    let told = error.field(b'D').unwrap();
    assert!(told.contains(detail), "{told}");
    let hint = error.field(b'H').unwrap();
    assert!(
        hint.contains("postern connect --print-password --gateway bastion.example --region us-east-1"),
        "{hint}"
    );
    let after = gateway.metric("postern_sts_proofs_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!(after - before, 1.0, "{outcome}");
}

fn environment(lab: &Lab, key: &Key) -> Vec<(String, String)> {
    let mut environment = lab.env();
    environment.extend([
        ("AWS_ACCESS_KEY_ID".into(), key.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY".into(), key.secret.clone()),
        ("AWS_SESSION_TOKEN".into(), key.session_token.clone().unwrap()),
    ]);
    environment
}

/// What `postern connect` prints.
fn printed(lab: &Lab, key: &Key) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args([
            "connect",
            "--print-password",
            "--gateway",
            GATEWAY,
            "--region",
            REGION,
        ])
        .envs(environment(lab, key))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn real_clients_come_in_as_whoever_has_signed() {
    let (lab, gateway, alice) = with_sts();
    let port = gateway.port.to_string();
    let test_env = std::env::var_os("POSTERN_TEST_ENV").map(PathBuf::from);
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    let connection = format!("host=127.0.0.1 port={port} user=app_ro dbname=orders sslmode=require");
    let mut clients = vec![("psql", {
        let mut psql = Command::new("psql");
        psql.args(["-XAtc", "show application_name", &connection]);
        psql
    })];
    if let Some(test_env) = test_env {
        let mut psycopg = Command::new(test_env.join("venv/bin/python3"));
        psycopg.args([
            "-c",
            "import psycopg, sys; print(psycopg.connect(sys.argv[1], application_name='psycopg').execute('show application_name').fetchone()[0])",
            &connection,
        ]);
        let mut jdbc = Command::new("java");
        jdbc.arg(drivers.join("Proof.java"))
            .args(["127.0.0.1", &port, "app_ro", "orders"])
            .env("CLASSPATH", "/usr/share/java/postgresql.jar");
        clients.extend([("psycopg", psycopg), ("jdbc", jdbc)]);
    }
    let count = clients.len();
    for (name, mut client) in clients {
        let output = client.env("PGPASSWORD", printed(&lab, &alice)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim_end(), format!("alice@example.com|{name}"));
    }
    let ok = gateway.metric("postern_sts_proofs_total", &["outcome=\"ok\""]);
    assert_eq!(ok, count as f64);
    let log = gateway.log();
    assert!(
        log.contains(ALICE) && !log.contains("X-Amz-Signature") && !log.contains(PREFIX),
        "{log}"
    );
}

#[test]
fn what_the_readme_makes_with_botocore() {
    let Some(test_env) = std::env::var_os("POSTERN_TEST_ENV").map(PathBuf::from) else {
        println!("skipped: POSTERN_TEST_ENV isn't set; tests/run prepares it");
        return;
    };
    let (lab, gateway, alice) = with_sts();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let script = readme
        .split("python3 - bastion.example eu-west-1 <<'PY'\n")
        .nth(1)
        .unwrap();
    let script = script.split("\nPY\n").next().unwrap();
    let output = Command::new(test_env.join("venv/bin/python3"))
        .args(["-c", script, GATEWAY, REGION])
        .envs(environment(&lab, &alice))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let password = String::from_utf8(output.stdout).unwrap();
    let answer = log_in(&gateway, password.trim_end());
    assert!(is_in(&answer), "{answer:?}");
}

#[test]
fn a_proof_is_good_once() {
    let (_lab, gateway, alice) = with_sts();
    let password = proof(&alice, GATEWAY, 0);
    assert!(is_in(&log_in(&gateway, &password)));
    refused(&gateway, &password, "used", "the proof was used before");
    let password = proof(&alice, GATEWAY, 0);
    let mut many: Vec<Raw> = (0..20).map(|_| begin(&gateway)).collect();
    for raw in &mut many {
        raw.message('p', &[password.as_bytes(), b"\0"].concat());
    }
    let answers = many.iter_mut().map(|raw| raw.until('Z').pop().unwrap());
    assert_eq!(answers.filter(is_in).count(), 1, "of all who came at once");
}

#[test]
fn old_ones_and_those_of_the_future() {
    let (_lab, gateway, alice) = with_sts();
    refused(
        &gateway,
        &proof(&alice, GATEWAY, 62),
        "expired",
        "the proof is older than 60 s",
    );
    refused(&gateway, &proof(&alice, GATEWAY, -20), "early", "from the future");
    std::thread::sleep(Duration::from_secs(3));
    assert!(is_in(&log_in(&gateway, &proof(&alice, GATEWAY, 2))));
    assert!(is_in(&log_in(&gateway, &proof(&alice, GATEWAY, -8))));
}

#[test]
fn one_of_the_future_that_was_used_is_not_good_after_a_restart() {
    let (_lab, mut gateway, alice) = with_sts();
    let password = proof(&alice, GATEWAY, -4);
    assert!(is_in(&log_in(&gateway, &password)));
    gateway.restart();
    refused(&gateway, &password, "before_start", "before the gateway began");
}

#[test]
fn a_gateway_does_not_take_what_another_may_have_taken_before_it() {
    let (_lab, mut gateway, alice) = with_sts();
    let password = proof(&alice, GATEWAY, 0);
    assert!(is_in(&log_in(&gateway, &password)));
    gateway.restart();
    refused(
        &gateway,
        &password,
        "before_start",
        "signed before the gateway began",
    );
}

#[test]
fn an_altered_copy_does_not_make_a_used_one_good_again() {
    let (_lab, gateway, alice) = with_sts();
    let good = proof(&alice, GATEWAY, -8);
    assert!(is_in(&log_in(&gateway, &good)));
    let (nonce, encoded) = good.strip_prefix(PREFIX).unwrap().split_once('.').unwrap();
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
    let short = url.replace("X-Amz-Expires=60", "X-Amz-Expires=1");
    let altered = format!("{PREFIX}{nonce}.{}", URL_SAFE_NO_PAD.encode(short));
    refused(&gateway, &altered, "used", "the proof was used before");
    refused(&gateway, &good, "used", "the proof was used before");
}

#[test]
fn accounts_of_others() {
    let (lab, gateway, _) = with_sts();
    let other = ALICE.replace("123456789012", "999999999999");
    let foreign = lab.add_key(&other, Some(Duration::from_secs(3_600))).unwrap();
    refused(
        &gateway,
        &proof(&foreign, GATEWAY, 0),
        "other_account",
        "of none of the accounts",
    );
}

#[test]
fn those_for_another_gateway() {
    let (_lab, gateway, alice) = with_sts();
    let other = proof(&alice, "other.example", 0);
    refused(
        &gateway,
        &other,
        "refused",
        "signed for a gateway of another name",
    );
    let good = proof(&alice, GATEWAY, 0);
    let (nonce, rest) = good.strip_prefix(PREFIX).unwrap().split_once('.').unwrap();
    let swapped: String = nonce.chars().rev().collect();
    let renamed = format!("{PREFIX}{swapped}.{rest}");
    refused(&gateway, &renamed, "refused", "it was altered");
    assert!(is_in(&log_in(&gateway, &good)), "nobody came in with it");
}

#[test]
fn altered_ones() {
    let (lab, gateway, alice) = with_sts();
    let signed = |url: &str| url.split("X-Amz-Signature=").nth(1).unwrap()[..64].to_owned();
    let flipped = |url: &str| {
        let signature = signed(url);
        let last = if signature.ends_with('0') { '1' } else { '0' };
        url.replace(&signature, &format!("{}{last}", &signature[..63]))
    };
    refused(
        &gateway,
        &changed(&alice, flipped),
        "refused",
        "SignatureDoesNotMatch",
    );
    let longer = |url: &str| url.replace("X-Amz-Expires=60", "X-Amz-Expires=59");
    refused(
        &gateway,
        &changed(&alice, longer),
        "refused",
        "SignatureDoesNotMatch",
    );
    let asked = lab.aws_requests().get("GetCallerIdentity").copied();
    let more = |url: &str| format!("{url}&x=1");
    refused(
        &gateway,
        &changed(&alice, more),
        "other_parameters",
        "other parameters",
    );
    let elsewhere = |url: &str| url.replace("sts.us-east-1.amazonaws.com", "evil.example");
    refused(
        &gateway,
        &changed(&alice, elsewhere),
        "other_host",
        "another host",
    );
    let action = |url: &str| url.replace("GetCallerIdentity", "GetSessionToken");
    refused(
        &gateway,
        &changed(&alice, action),
        "other_request",
        "another request",
    );
    let headers = |url: &str| url.replace("host%3Bx-postern-gateway", "host");
    refused(
        &gateway,
        &changed(&alice, headers),
        "other_headers",
        "doesn't sign the headers",
    );
    refused(&gateway, "secret", "no_proof", "isn't a proof");
    refused(&gateway, "", "no_proof", "isn't a proof");
    let after = lab.aws_requests().get("GetCallerIdentity").copied();
    assert_eq!(asked, after, "nobody else's request is sent");
}

#[test]
fn keys_that_are_no_more() {
    let (lab, gateway, alice) = with_sts();
    let gone = Key {
        access_key_id: "ASIAGONE000000000000".into(),
        ..alice
    };
    refused(
        &gateway,
        &proof(&gone, GATEWAY, 0),
        "refused",
        "InvalidClientTokenId",
    );
    let bob = lab.add_key("arn:aws:iam::123456789012:user/bob", None).unwrap();
    let error = log_in(&gateway, &proof(&bob, GATEWAY, 0));
    assert_eq!(error.field(b'C').as_deref(), Some("28000"), "no rule admits him");
    assert!(
        error
            .field(b'D')
            .unwrap()
            .contains("arn:aws:iam::123456789012:user/bob")
    );
    let root = lab.add_key("arn:aws:iam::123456789012:root", None).unwrap();
    refused(
        &gateway,
        &proof(&root, GATEWAY, 0),
        "other_principal",
        "root user",
    );
}

#[test]
fn while_sts_is_away() {
    let (lab, gateway, alice) = with_sts();
    let password = proof(&alice, GATEWAY, 0);
    for fault in [AwsFault::Down, AwsFault::Status(503), AwsFault::Throttled] {
        lab.set_api_fault(fault);
        refused(&gateway, &password, "unavailable", "STS could not be asked");
    }
    lab.set_api_fault(AwsFault::None);
    assert!(is_in(&log_in(&gateway, &password)), "nobody came in with it");
}

#[test]
fn whoever_goes_while_sts_is_asked() {
    let (lab, gateway, alice) = with_sts();
    lab.set_api_fault(AwsFault::SlowMs(1_000));
    let password = proof(&alice, GATEWAY, 0);
    let mut raw = begin(&gateway);
    raw.message('p', &[password.as_bytes(), b"\0"].concat());
    std::thread::sleep(Duration::from_millis(200));
    refused(&gateway, &password, "used", "the proof was used before");
    drop(raw);
    std::thread::sleep(Duration::from_millis(1_500));
    lab.set_api_fault(AwsFault::None);
    assert_eq!(gateway.metric("postern_panics_total", &[]), 0.0);
    assert!(is_in(&log_in(&gateway, &proof(&alice, GATEWAY, 0))));
}

#[test]
fn over_a_network_only_with_tls() {
    // No packet is sent: this only asks which address would be this host's own.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let has_network = socket.connect("192.0.2.1:9").is_ok();
    let Some(host) = has_network.then(|| socket.local_addr().unwrap().ip()) else {
        println!("skipped: this host has no network");
        return;
    };
    let (lab, gateway, alice) = started(Options {
        identity: identity(),
        hosts: vec![host],
        ..Options::default()
    });
    let mut raw = Raw::dial(SocketAddr::new(host, gateway.port));
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    let error = raw.last_error();
    assert_eq!(error.field(b'C').as_deref(), Some("0A000"));
    assert!(error.field(b'H').unwrap().contains("sslmode=require"));
    let connection = format!(
        "host={host} port={} user=app_ro dbname=orders sslmode=require",
        gateway.port
    );
    let output = Command::new("psql")
        .args(["-XAtc", "select 1", &connection])
        .env("PGPASSWORD", printed(&lab, &alice))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn passwords_that_are_too_long() {
    let (_lab, gateway, _) = with_sts();
    let mut raw = begin(&gateway);
    raw.message('p', &vec![b'x'; 9_000]);
    assert_eq!(raw.last_error().field(b'C').as_deref(), Some("08P01"));
}
