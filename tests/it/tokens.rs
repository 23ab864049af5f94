//! Credentials come, go, rotate and stay away: no client login fails, and no token outlives its credentials.

use std::time::{Duration, Instant};

use postern_lab::{AwsFault, Lab, LabConfig, Outcome};

use crate::gateway::{Gateway, Options};
use crate::raw::Raw;

/// Connections live for a second, so that logins to the server go on all the time.
const SHORT_LIVES: &str = "size = 3\nmin_idle = 1\nlifetime = \"1s\"";

fn run_for(gateway: &Gateway, duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let (mut client, _) = Raw::login(gateway, "app_rw");
        assert_eq!(client.query("select 1").last().unwrap().tag, 'Z');
        client.message('X', b"");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn assert_sound(lab: &Lab) {
    let logins = lab.logins();
    assert!(logins.len() > 5, "the test needs logins: {}", logins.len());
    for login in &logins {
        assert!(
            matches!(login.outcome, Outcome::Accepted | Outcome::Pending),
            "{login:?}"
        );
        // One that is under way when the test ends may not have come to its password yet.
        let Some(token) = &login.token else {
            assert_eq!(login.outcome, Outcome::Pending, "{login:?}");
            continue;
        };
        assert!(
            token.key_expires.is_none_or(|end| login.wall < end),
            "a token older than its credentials: {login:?}"
        );
    }
}

#[test]
fn short_credentials_rotation_and_an_outage_of_imds() {
    let lab = Lab::start(LabConfig {
        credentials_lifetime: Duration::from_secs(120),
        ..LabConfig::default()
    })
    .unwrap();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: SHORT_LIVES,
            ..Options::default()
        },
    );
    run_for(&gateway, Duration::from_secs(2));
    lab.imds().rotate().unwrap();
    run_for(&gateway, Duration::from_secs(2));
    lab.imds().set_fault(AwsFault::Down);
    run_for(&gateway, Duration::from_secs(60));
    lab.imds().set_fault(AwsFault::None);
    for _ in 0..60 {
        run_for(&gateway, Duration::from_secs(1));
        if gateway.metric("postern_credential_loads_total", &["new"]) >= 2.0 {
            break;
        }
    }
    assert_sound(&lab);
    assert!(
        gateway.metric("postern_credential_loads_total", &["new"]) >= 2.0,
        "rotated ones were taken over"
    );
    assert!(gateway.metric("postern_tokens_signed_total", &[]) >= 2.0);
}

#[test]
fn credentials_of_a_few_seconds_are_renewed_in_time() {
    let lab = Lab::start(LabConfig {
        credentials_lifetime: Duration::from_secs(14),
        ..LabConfig::default()
    })
    .unwrap();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: SHORT_LIVES,
            ..Options::default()
        },
    );
    run_for(&gateway, Duration::from_secs(25));
    assert_sound(&lab);
}

#[test]
fn nothing_secret_is_logged_or_shown() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(&lab, &Options::default());
    run_for(&gateway, Duration::from_millis(300));
    let shown = gateway.log() + &gateway.page("/metrics").unwrap().1;
    for secret in ["X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Credential"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let key = lab.imds().current_key().unwrap();
    assert!(!shown.contains(&key.secret));
}
