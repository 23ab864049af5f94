//! Who is let in by token, who isn't, and what the client and the log are told.

use std::time::Duration;

use postern_lab::{Lab, LabConfig, Outcome, Refusal, TokenParams, count, max_logins_in_any_second};

use crate::client::{Failure, Login, Tls, until};

#[test]
fn good_tokens_are_let_in() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for user in ["app_ro", "app_rw", "odd user+x"] {
        for tls in [Tls::Requested, Tls::Direct] {
            let mut session = Login {
                tls,
                ..Login::good(&lab, user)
            }
            .go()
            .unwrap();
            assert_eq!(session.query("SELECT current_user").unwrap(), [user]);
        }
    }
    let mut writer = Login::good(&lab, "app_rw").go().unwrap();
    writer
        .query("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")
        .unwrap();
    let mut reader = Login {
        minor: 2,
        ..Login::good(&lab, "app_ro")
    }
    .go()
    .unwrap();
    assert_eq!(reader.query("SELECT a FROM t").unwrap(), ["7"]);
    assert_eq!(lab.superuser_sql("SELECT a, 'x' FROM t").unwrap(), "7|x");

    let logins = lab.logins();
    assert_eq!(count(&logins, Outcome::Accepted), 8);
    until(|| lab.open_connections() == 2);
    assert!((1..=8).contains(&max_logins_in_any_second(&logins)));
    let facts = logins[0].token.as_ref().unwrap();
    let key = lab.imds().current_key().unwrap();
    assert_eq!(facts.access_key_id.as_ref(), Some(&key.access_key_id));
    assert_eq!((facts.key_expires, facts.sha256.len()), (key.expires, 16));
}

/// Logs in as app_ro with a token that is wrong in one thing; the client must see the same as always.
fn refused(lab: &Lab, wrong: impl FnOnce(&mut TokenParams)) -> Refusal {
    let mut params = lab.token_params("app_ro").unwrap();
    wrong(&mut params);
    let failure = Login {
        password: lab.mint_token(&params),
        ..Login::good(lab, "app_ro")
    }
    .go()
    .unwrap_err();
    let text = "PAM authentication failed for user \"app_ro\"";
    assert_eq!(failure, Failure::Answer("28000".into(), text.into()));
    match lab.logins().last().unwrap().outcome {
        Outcome::Refused(refusal) => refusal,
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn wrong_tokens_are_refused_alike_and_logged_apart() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let second = Duration::from_secs(1);
    let other = lab
        .add_key("arn:aws:iam::123456789012:user/other", Some(second * 3_600))
        .unwrap();
    assert_eq!(refused(&lab, |t| t.user = "app_rw".into()), Refusal::WrongUser);
    assert_eq!(refused(&lab, |t| t.host = "127.0.0.1".into()), Refusal::WrongHost);
    assert_eq!(refused(&lab, |t| t.port = 5433), Refusal::WrongPort);
    assert_eq!(
        refused(&lab, |t| t.region = "eu-west-1".into()),
        Refusal::WrongRegion
    );
    assert_eq!(
        refused(&lab, |t| t.access_key_id = "ASIANOBODY".into()),
        Refusal::UnknownKey
    );
    assert_eq!(refused(&lab, |t| t.secret = other.secret), Refusal::BadSignature);
    assert_eq!(
        refused(&lab, |t| t.session_token = other.session_token),
        Refusal::WrongSessionToken
    );
    assert_eq!(
        refused(&lab, |t| t.session_token = None),
        Refusal::WrongSessionToken
    );
    assert_eq!(refused(&lab, |t| t.signed_at -= 902 * second), Refusal::TooOld);
    assert_eq!(
        refused(&lab, |t| t.signed_at += 400 * second),
        Refusal::FromTheFuture
    );
    assert_eq!(refused(&lab, |t| t.expires = 7_200), Refusal::ExpiresTooLong);
    assert_eq!(
        refused(&lab, |t| t.tamper =
            Some(("connect".into(), "connect&a=b".into()))),
        Refusal::BadSignature
    );
    assert_eq!(
        refused(&lab, |t| t.tamper =
            Some(("Amz-Expires=900".into(), "Amz-Expires=90".into()))),
        Refusal::BadSignature
    );
    let as_other_user = |t: &mut TokenParams| {
        t.user = "app_rw".into();
        t.tamper = Some(("app_rw".into(), "app_ro".into()));
    };
    assert_eq!(refused(&lab, as_other_user), Refusal::BadSignature);
    assert_eq!(
        refused(&lab, |t| t.tamper = Some(("/?".into(), "?".into()))),
        Refusal::Malformed
    );
    Login::good(&lab, "app_ro").go().unwrap();
}

#[test]
fn tokens_outlive_rotation_but_neither_expiry_nor_revocation_of_their_key() {
    let config = LabConfig {
        credentials_lifetime: Duration::from_secs(600),
        ..LabConfig::default()
    };
    let lab = Lab::start(config).unwrap();
    let before = Login::good(&lab, "app_ro");
    lab.imds().rotate().unwrap();
    before.go().unwrap();
    lab.set_clock_offset(601);
    assert_eq!(before.go().unwrap_err().sqlstate(), "28000");
    assert_eq!(
        lab.logins().last().unwrap().outcome,
        Outcome::Refused(Refusal::KeyExpired)
    );
    lab.set_clock_offset(0);
    lab.imds().revoke(None);
    assert_eq!(before.go().unwrap_err().sqlstate(), "28000");
    assert_eq!(
        lab.logins().last().unwrap().outcome,
        Outcome::Refused(Refusal::KeyRevoked)
    );
    lab.imds().rotate().unwrap();
    Login::good(&lab, "app_ro").go().unwrap();
}

#[test]
fn membership_decides_who_is_asked_for_a_token() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let token = Login::good(&lab, "app_password");
    let failure = token.go().unwrap_err();
    let text = "password authentication failed for user \"app_password\"";
    assert_eq!(failure, Failure::Answer("28P01".into(), text.into()));
    let password = Login {
        password: "secret".into(),
        ..token.clone()
    };
    password.go().unwrap();
    assert_eq!(count(&lab.logins(), Outcome::LeftToServer), 2);
    assert_eq!(Login::good(&lab, "nobody").go().unwrap_err().sqlstate(), "28P01");

    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    lab.superuser_sql(others).unwrap();
    lab.superuser_sql("CREATE ROLE analysts IN ROLE rds_iam; GRANT analysts TO app_password")
        .unwrap();
    assert_eq!(password.go().unwrap_err().sqlstate(), "28000");
    token.go().unwrap();
}

#[test]
fn without_tls_nobody_is_let_in() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for user in ["app_ro", "app_password"] {
        let failure = Login {
            tls: Tls::None,
            ..Login::good(&lab, user)
        }
        .go()
        .unwrap_err();
        let text = format!(
            "no pg_hba.conf entry for host \"127.0.0.1\", user \"{user}\", database \"orders\", no encryption"
        );
        assert_eq!(failure, Failure::Answer("28000".into(), text));
    }
    assert_eq!(count(&lab.logins(), Outcome::NoTls), 2);
}

#[test]
fn an_overlong_password_just_ends_the_connection() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let failure = Login {
        password: "x".repeat(70_000),
        ..Login::good(&lab, "app_ro")
    }
    .go()
    .unwrap_err();
    assert!(matches!(failure, Failure::Io(_)), "{failure:?}");
    let failure = Login {
        password: "x".repeat(60_000),
        ..Login::good(&lab, "app_ro")
    }
    .go()
    .unwrap_err();
    assert_eq!(failure.sqlstate(), "28000");
}
