//! Commanded faults do what they say.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use postern_lab::{Certificate, FaultSet, Lab, LabConfig, Latency, LoginFault, Outcome, Throttle, count};

use crate::client::{Failure, Login, Tls};

#[test]
fn a_throttle_refuses_what_is_above_it() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    // A window that no test outlasts makes the count exact.
    let throttle = Some(Throttle {
        logins: 3,
        window_ms: 3_600_000,
        delay_ms: 1,
    });
    lab.faults().set(FaultSet {
        throttle,
        ..FaultSet::default()
    });
    let login = Login::good(&lab, "app_ro");
    let results: Vec<_> = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..8).map(|_| scope.spawn(|| login.go())).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    for failure in results.into_iter().filter_map(Result::err) {
        assert_eq!(failure.sqlstate(), "28000");
    }
    assert_eq!(count(&lab.logins(), Outcome::Throttled), 5);
    lab.faults().clear();
    login.go().unwrap();
}

#[test]
fn without_iam_authentication_a_password_is_asked_for() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.change_rds(|rds| rds.set_iam(false));
    let refused = Login::good(&lab, "app_ro").go().unwrap_err();
    assert_eq!(refused.sqlstate(), "28P01");
    assert_eq!(count(&lab.logins(), Outcome::LeftToServer), 1);
    lab.change_rds(|rds| rds.set_iam(true));
    Login::good(&lab, "app_ro").go().unwrap();
}

#[test]
fn latency_is_added_to_good_and_bad_logins() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults()
        .change(|faults| faults.latency = Latency::FixedMs(60));
    Login::good(&lab, "app_ro").go().unwrap();
    Login {
        password: "x".into(),
        ..Login::good(&lab, "app_ro")
    }
    .go()
    .unwrap_err();
    for login in lab.logins() {
        assert!(login.latency.as_millis() >= 60, "{login:?}");
    }
}

#[test]
fn logins_break_down_as_commanded() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let answers = [
        (LoginFault::NoHbaEntry, "28000"),
        (LoginFault::RefuseToken, "28000"),
        (LoginFault::TooManyConnections, "53300"),
        (LoginFault::StartingUp, "57P03"),
        (LoginFault::AskScram, "28P01"),
        (LoginFault::GarbageError, "\u{fffd}("),
        (LoginFault::ErrorWithoutSqlstate, ""),
        (LoginFault::OversizedError, "too long"),
        (LoginFault::ResetAtStartup, "reset"),
        (LoginFault::ResetAtPassword, "reset"),
        (LoginFault::RefuseTls, "no TLS"),
    ];
    for (fault, expected) in answers {
        lab.faults().next_logins(1, fault);
        let seen = match Login::good(&lab, "app_ro").go().unwrap_err() {
            Failure::Answer(sqlstate, _) => sqlstate,
            Failure::NoTls => "no TLS".to_owned(),
            Failure::Io(std::io::ErrorKind::ConnectionReset) => "reset".to_owned(),
            Failure::Io(std::io::ErrorKind::InvalidData) => "too long".to_owned(),
            other => panic!("{fault:?}: {other:?}"),
        };
        if fault != LoginFault::GarbageError {
            assert_eq!(seen, expected, "{fault:?}");
        }
        Login::good(&lab, "app_ro").go().unwrap();
        if !matches!(fault, LoginFault::RefuseTls) {
            assert_eq!(count(&lab.logins(), Outcome::Fault(fault)), 1, "{fault:?}");
        }
    }
}

#[test]
fn a_stalled_login_ends_by_the_servers_timeout() {
    let config = LabConfig {
        authentication_timeout: Duration::from_millis(200),
        ..LabConfig::default()
    };
    let lab = Lab::start(config).unwrap();
    for fault in [LoginFault::StallAtStartup, LoginFault::StallAtPassword] {
        lab.faults().next_logins(1, fault);
        assert_eq!(Login::good(&lab, "app_ro").go().unwrap_err().sqlstate(), "57014");
        assert_eq!(count(&lab.logins(), Outcome::Fault(fault)), 1);
    }
}

#[test]
fn notices_without_end_are_sent() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().every_login(LoginFault::EndlessNotices);
    let login = Login::good(&lab, "app_ro");
    let mut stream = login.connect().unwrap();
    stream.write_all(b"\0\0\0\x15\0\x03\0\0user\0app_ro\0\0").unwrap();
    stream.flush().unwrap();
    let mut start = vec![0; 1 << 20];
    stream.read_exact(&mut start).unwrap();
    assert!(start.starts_with(b"N\0\0"));
}

#[test]
fn a_token_that_is_sent_in_clear_is_noticed() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().every_login(LoginFault::AskPasswordWithoutTls);
    assert_eq!(Login::good(&lab, "app_ro").go().unwrap_err(), Failure::NoTls);
    assert!(!lab.logins().iter().any(|login| login.in_clear));
    let failure = Login {
        tls: Tls::None,
        ..Login::good(&lab, "app_ro")
    }
    .go()
    .unwrap_err();
    assert_eq!(failure.sqlstate(), "28000");
    let login = lab.logins().pop().unwrap();
    assert!(login.in_clear && login.token.is_some());
}

#[test]
fn bad_certificates_are_bad() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for certificate in [
        Certificate::OtherName,
        Certificate::OtherAuthority,
        Certificate::Expired,
    ] {
        lab.faults().change(|faults| faults.certificate = certificate);
        let failure = Login::good(&lab, "app_ro").go().unwrap_err();
        assert_eq!(
            failure,
            Failure::Io(std::io::ErrorKind::InvalidData),
            "{certificate:?}"
        );
    }
    lab.faults().clear();
    Login::good(&lab, "app_ro").go().unwrap();
}

#[test]
fn a_standby_says_so_and_takes_no_writes() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().change(|faults| faults.standby = true);
    let mut session = Login::good(&lab, "app_rw").go().unwrap();
    assert_eq!(session.parameters["in_hot_standby"], "on");
    assert_eq!(session.parameters["default_transaction_read_only"], "on");
    assert_eq!(session.query("SELECT pg_is_in_recovery()").unwrap(), ["t"]);
    assert_eq!(
        session.query("CREATE TABLE t (a int)").unwrap_err().sqlstate(),
        "25006"
    );
    lab.faults().clear();
    let mut session = Login::good(&lab, "app_rw").go().unwrap();
    assert_eq!(session.parameters["in_hot_standby"], "off");
    assert_eq!(session.query("SELECT pg_is_in_recovery()").unwrap(), ["f"]);
}

#[test]
fn connections_freeze_and_are_reset_on_command() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut session = Login::good(&lab, "app_rw").go().unwrap();
    lab.faults().change(|faults| faults.frozen = true);
    session.send_query("CREATE SEQUENCE arrived").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let arrived = || {
        lab.superuser_sql("SELECT count(*) FROM pg_class WHERE relname = 'arrived'")
            .unwrap()
    };
    assert_eq!(arrived(), "0");
    lab.faults().change(|faults| faults.frozen = false);
    session.answer().unwrap();
    assert_eq!(arrived(), "1");
    lab.faults().reset_connections();
    let failure = session.query("SELECT 1").unwrap_err();
    assert!(matches!(failure, Failure::Io(_)), "{failure:?}");
    Login::good(&lab, "app_rw").go().unwrap();
}
