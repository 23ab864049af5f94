//! The server behind the front: cancelling, refusals of its own, and its end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use postern_lab::{Lab, LabConfig, Outcome, count};

use crate::client::{Login, Tls, until};

#[test]
fn a_cancel_request_reaches_the_query_it_is_for() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for (minor, tls) in [
        (0, Tls::None),
        (0, Tls::Requested),
        (2, Tls::Requested),
        (2, Tls::Direct),
    ] {
        let mut session = Login {
            minor,
            ..Login::good(&lab, "app_ro")
        }
        .go()
        .unwrap();
        session.send_query("SELECT pg_sleep(60)").unwrap();
        until(|| lab.superuser_sql(RUNNING).unwrap() == "1");
        let mut other = Login {
            tls,
            ..Login::good(&lab, "app_ro")
        }
        .connect()
        .unwrap();
        other.write_all(&session.cancel_request()).unwrap();
        other.flush().unwrap();
        other.read_to_end(&mut Vec::new()).unwrap();
        let failure = session.answer().unwrap_err();
        assert_eq!(failure.sqlstate(), "57014", "{minor} {tls:?}");
    }
    assert_eq!(lab.cancel_requests(), 4);
}

const RUNNING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND wait_event = 'PgSleep'";

#[test]
fn the_servers_own_refusals_come_through() {
    let lab = Lab::start(LabConfig {
        max_connections: 8,
        ..LabConfig::default()
    })
    .unwrap();
    let failure = Login {
        database: "nowhere".into(),
        ..Login::good(&lab, "app_ro")
    }
    .go()
    .unwrap_err();
    assert_eq!(failure.sqlstate(), "3D000");
    let mut sessions = Vec::new();
    let failure = loop {
        match Login::good(&lab, "app_ro").go() {
            Ok(session) => sessions.push(session),
            Err(failure) => break failure,
        }
        assert!(sessions.len() <= 8);
    };
    assert_eq!(failure.sqlstate(), "53300");
    assert_eq!(count(&lab.logins(), Outcome::Accepted), sessions.len() + 2);
}

#[test]
fn garbage_is_hung_up_on() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0x16; 64],
        &[0, 0, 0, 9, 0, 3, 0, 0, 1],
        &[0; 8],
    ] {
        let mut tcp = TcpStream::connect(lab.dial_address()).unwrap();
        tcp.write_all(bytes).unwrap();
        // Either end of the connection will do, in order or not.
        tcp.read_to_end(&mut Vec::new()).ok();
    }
    Login::good(&lab, "app_ro").go().unwrap();
    assert_eq!(lab.logins().len(), 1);
}

#[test]
fn nothing_is_left_behind() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let directory = lab.directory().parent().unwrap().to_owned();
    assert!(directory.join("data/postmaster.pid").exists());
    drop(lab);
    assert!(!directory.exists());
}

/// Runs the binary, kills it, and waits until its server has gone too.
#[test]
fn the_server_ends_even_when_the_lab_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_postern-lab"));
    let lab = lab
        .arg("up")
        .arg("--dir")
        .arg(directory.path())
        .args(["--latency", "1", "--throttle", "50"]);
    let mut lab = lab.stdout(Stdio::null()).spawn().unwrap();
    until(|| {
        assert!(lab.try_wait().unwrap().is_none(), "postern-lab up has failed");
        directory.path().join("ready").exists()
    });
    let token = Command::new(env!("CARGO_BIN_EXE_postern-lab"))
        .arg("token")
        .arg("--dir")
        .arg(directory.path())
        .output();
    let token = String::from_utf8(token.unwrap().stdout).unwrap();
    assert!(token.starts_with(
        "orders.cluster-abc123.us-east-1.rds.amazonaws.com:5432/?Action=connect&DBUser=app_ro&"
    ));
    let configuration = std::fs::read_to_string(directory.path().join("postern.toml")).unwrap();
    assert!(
        configuration.contains(
            directory
                .path()
                .canonicalize()
                .unwrap()
                .join("ca.pem")
                .to_str()
                .unwrap()
        )
    );
    let env = std::fs::read_to_string(directory.path().join("env")).unwrap();
    let absent = env
        .lines()
        .find_map(|line| line.strip_prefix("export AWS_CONFIG_FILE='"))
        .unwrap();
    let server = std::path::Path::new(absent).ancestors().nth(2).unwrap();
    assert!(server.join("data/postmaster.pid").exists());
    lab.kill().unwrap();
    lab.wait().unwrap();
    until(|| !server.exists());
}
