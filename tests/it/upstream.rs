//! Servers that aren't what they should be: each is refused with its own reason, and none gets a token that it
//! shouldn't (promise 2).

use postern::wire::startup::{ProtocolVersion, startup_message};
use postern_lab::{Certificate, Lab, LabConfig, LoginFault};

use crate::gateway::{Gateway, Options};
use crate::raw::{Message, Raw};

fn options() -> Options {
    Options {
        pool: "min_idle = 0\nwait_timeout = \"6s\"",
        timeouts: "connect = \"1s\"\ntls = \"1s\"\nlogin = \"1s\"",
        ..Options::default()
    }
}

fn refusal(gateway: &Gateway) -> Message {
    let mut raw = Raw::connect(gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    raw.last_error()
}

fn tokens_seen(lab: &Lab) -> usize {
    lab.logins().iter().filter(|login| login.token.is_some()).count()
}

#[test]
fn a_server_that_is_not_the_endpoint_gets_no_token() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for (certificate, part) in [
        (Certificate::OtherName, "not valid for orders."),
        (Certificate::OtherAuthority, "not signed by a trusted authority"),
        (Certificate::Expired, "expired"),
    ] {
        lab.faults().change(|faults| faults.certificate = certificate);
        let gateway = Gateway::start(&lab, &options());
        let error = refusal(&gateway);
        assert!(
            error.field(b'D').unwrap().contains(part),
            "{certificate:?}: {error:?}"
        );
        assert!(error.field(b'H').is_some(), "{error:?}");
    }
    assert_eq!(tokens_seen(&lab), 0);
}

#[test]
fn every_wrong_answer_has_its_own_error() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for (fault, part, tokens) in [
        (LoginFault::RefuseTls, "refuses TLS", 0),
        (LoginFault::AskPasswordWithoutTls, "refuses TLS", 0),
        (LoginFault::AskScram, "SCRAM", 0),
        (LoginFault::NoHbaEntry, "no pg_hba.conf entry", 0),
        (LoginFault::GarbageError, "", 0),
        (LoginFault::ErrorWithoutSqlstate, "", 0),
        (LoginFault::OversizedError, "", 0),
        (LoginFault::EndlessNotices, "endless", 0),
        (LoginFault::RefuseToken, "PAM authentication failed", 1),
        (LoginFault::StallAtStartup, "no answer within", 0),
        (LoginFault::StallAtPassword, "no answer within", 1),
        (LoginFault::TooManyConnections, "too many", 0),
        (LoginFault::StartingUp, "starting up", 0),
        (LoginFault::ResetAtAccept, "closed the connection", 0),
    ] {
        lab.faults().every_login(fault);
        let gateway = Gateway::start(&lab, &options());
        let before = tokens_seen(&lab);
        let error = refusal(&gateway);
        assert_eq!(error.field(b'C').unwrap(), "08001", "{fault:?}: {error:?}");
        let detail = error.field(b'D').unwrap();
        assert!(detail.contains(part), "{fault:?}: {detail}");
        assert!(!error.field(b'H').unwrap().is_empty());
        assert_eq!((tokens_seen(&lab) - before).min(1), tokens, "{fault:?}");
        lab.faults().clear();
    }
    assert!(
        lab.logins().iter().all(|login| !login.in_clear),
        "a token went out without TLS"
    );
}

#[test]
fn a_user_without_rds_iam_is_named() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(
        &lab,
        &Options {
            users: &["app_password"],
            ..options()
        },
    );
    let mut raw = Raw::connect(&gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_password"), ("database", "orders")],
    ));
    let error = raw.last_error();
    assert!(error.field(b'H').unwrap().contains("rds_iam"), "{error:?}");
    assert_eq!(tokens_seen(&lab), 0);
}

#[test]
fn names_that_need_encoding_work() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(
        &lab,
        &Options {
            users: &["odd user+x"],
            ..options()
        },
    );
    let (mut raw, _) = Raw::login(&gateway, "odd user+x");
    let rows = raw.query("select current_user");
    assert!(
        rows.iter()
            .any(|row| row.tag == 'D' && row.body.ends_with(b"odd user+x")),
        "{rows:?}"
    );
}

#[test]
fn a_server_that_is_lost_under_a_client_is_an_error_and_not_silence() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(&lab, &options());
    let (mut raw, _) = Raw::login(&gateway, "app_ro");
    // In whatever mode, it has its server connection now.
    raw.query("begin");
    lab.faults().reset_connections();
    assert_eq!(raw.last_error().field(b'C').unwrap(), "08006");
    let (mut next, _) = Raw::login(&gateway, "app_ro");
    assert_eq!(next.query("select 1").last().unwrap().tag, 'Z');
}

#[test]
fn a_refusal_by_the_server_is_not_repeated_in_a_loop() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().every_login(LoginFault::RefuseToken);
    let gateway = Gateway::start(
        &lab,
        &Options {
            not_ready: true,
            pool: "min_idle = 1",
            ..options()
        },
    );
    std::thread::sleep(std::time::Duration::from_secs(5));
    let attempts = lab.logins().len();
    assert!(
        (2..=14).contains(&attempts),
        "{attempts} attempts of two users in five seconds"
    );
    drop(gateway);
}
