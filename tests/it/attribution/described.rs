//! Session Manager, asked whose a session is.

use std::net::TcpStream;
use std::time::Duration;

use postern_lab::agent::SessionOptions;
use postern_lab::{AwsFault, SsmSession};

use super::{ALICE, ALICES, BOB, BOBS, Host, is_in, log_in};

/// What Session Manager lists.
fn listed(id: &str, owner: &str, status: &str) -> SsmSession {
    SsmSession {
        session_id: id.into(),
        target: "i-0123456789abcdef0".into(),
        status: status.into(),
        start_date: 0.0,
        document_name: "AWS-StartPortForwardingSession".into(),
        owner: owner.into(),
    }
}

/// A failure is remembered for so long.
fn forgotten() {
    std::thread::sleep(Duration::from_millis(2_500));
}

const DESCRIBED: &str = "sources = [\"ssm\"]\nssm.source = \"describe-sessions\"";

/// How often Session Manager was asked, the gateway's own question at its start not counted.
fn questions(host: &Host) -> u64 {
    host.gateway.wait_for("/startupz");
    host.lab.aws_requests()["DescribeSessions"] - 1
}

#[test]
fn session_manager_is_asked_whose_a_session_is() {
    let host = Host::with(DESCRIBED);
    host.lab.set_ssm_sessions(vec![
        listed(BOBS, BOB, "Connected"),
        listed(ALICES, ALICE, "Connected"),
    ]);
    // The agent's file says nothing that is understood.
    let alices = host.session(ALICES, "nobody");
    std::fs::write(&alices.file, "{").unwrap();
    let clients: Vec<_> = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| log_in(alices.address, "app_ro")))
            .collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    assert!(clients.iter().all(|(_, answers)| is_in(answers)));
    assert!(host.logged(ALICE, 20).iter().all(|line| line.contains(ALICES)));
    assert_eq!(questions(&host), 1, "one session, one question");
}

#[test]
fn what_session_manager_does_not_say_refuses() {
    let host = Host::with(DESCRIBED);
    let alices = host.session(ALICES, ALICE);
    host.refuses(&alices, "not_listed", "lists no such session as active");
    forgotten();
    host.lab
        .set_ssm_sessions(vec![listed(ALICES, ALICE, "Terminated")]);
    host.refuses(&alices, "not_listed", "lists no such session as active");
    forgotten();
    host.lab.set_ssm_sessions(vec![listed(ALICES, "", "Connected")]);
    host.refuses(&alices, "owner", "it isn't known who has started the session");
    host.lab.set_ssm_sessions(Vec::new());
    for fault in [AwsFault::Throttled, AwsFault::Unauthorized, AwsFault::Down] {
        let bobs = host.session(BOBS, BOB);
        host.lab.set_api_fault(fault);
        host.refuses(&bobs, "unavailable", "Session Manager can't be asked");
        host.lab.set_api_fault(AwsFault::None);
        forgotten();
    }
}

#[test]
fn the_agent_and_session_manager_must_agree() {
    let host = Host::with("sources = [\"ssm\"]\nssm.source = \"both\"");
    host.lab.set_ssm_sessions(vec![
        listed(ALICES, ALICE, "Connected"),
        listed(BOBS, ALICE, "Connected"),
    ]);
    let alices = host.session(ALICES, ALICE);
    assert!(is_in(&log_in(alices.address, "app_ro").1));
    let bobs = host.session(BOBS, BOB);
    host.refuses(&bobs, "contradicted", "names another owner or document");
    let carols = host.start(&SessionOptions {
        has_file: false,
        ..SessionOptions::new("carol-07a16060613c408b7", ALICE)
    });
    host.refuses(&carols, "no_record", "keeps no file");
}

#[test]
fn a_session_that_is_listed_late() {
    let host = Host::with(DESCRIBED);
    let alices = host.session(ALICES, ALICE);
    let login = std::thread::scope(|scope| {
        let login = scope.spawn(|| log_in(alices.address, "app_ro"));
        std::thread::sleep(Duration::from_secs(1));
        host.lab
            .set_ssm_sessions(vec![listed(ALICES, ALICE, "Connected")]);
        login.join().unwrap()
    });
    assert!(is_in(&login.1));
}

#[test]
fn while_session_manager_does_not_answer() {
    let host = Host::with(DESCRIBED);
    let alices = host.session(ALICES, ALICE);
    host.lab.set_api_fault(AwsFault::SlowMs(60_000));
    // Not one after the other.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| log_in(alices.address, "app_ro").1))
            .collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    for answer in answers {
        let error = answer.last().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("28000"), "{error:?}");
    }
    assert!((host.found("unavailable") - 6.0).abs() < f64::EPSILON);
}

#[test]
fn a_question_is_asked_once_whoever_goes_meanwhile() {
    let host = Host::with(DESCRIBED);
    let alices = host.session(ALICES, ALICE);
    host.lab
        .set_ssm_sessions(vec![listed(ALICES, ALICE, "Connected")]);
    assert_eq!(questions(&host), 0);
    host.lab.set_api_fault(AwsFault::SlowMs(2_000));
    for _ in 0..100 {
        drop(TcpStream::connect(alices.address).unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_in(&log_in(alices.address, "app_ro").1));
    assert_eq!(questions(&host), 1);
}

#[test]
fn who_is_not_listed_is_asked_for_no_password_however_many_there_are() {
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$rs9eWHpnB8aSTMvC/0iEeWNKKWtAXVrPQGDGa4FuKzo=:\
                    mCD0x0RiOHpyT0HtoVTKSuKmjWhiJ7mVfrhVWdmLQlY=";
    let identity = format!(
        "sources = [\"ssm\", \"scram\"]\nssm.source = \"both\"\nscram.verifiers.app_ro = \"{verifier}\""
    );
    let host = Host::with(&identity);
    let alices = host.session(ALICES, ALICE);
    let together = |outcome: &str, detail: &str| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let error = log_in(alices.address, "app_ro").1.pop().unwrap();
                    assert_eq!(error.field(b'C').as_deref(), Some("28000"), "{error:?}");
                    assert!(error.field(b'D').unwrap().contains(detail), "{error:?}");
                });
            }
        });
        let found = host.found(outcome);
        assert!((found - 4.0).abs() < f64::EPSILON, "{outcome}: {found}");
    };
    together("not_listed", "lists no such session as active");
    forgotten();
    // Whose it is nobody says; that it comes this way is known.
    host.lab.set_api_fault(AwsFault::Down);
    together("unavailable", "Session Manager can't be asked");
}

#[test]
fn whoever_comes_while_credentials_are_loaded_waits() {
    let mut host = Host::with(DESCRIBED);
    let alices = host.session(ALICES, ALICE);
    host.lab
        .set_ssm_sessions(vec![listed(ALICES, ALICE, "Connected")]);
    let address = alices.address;
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let early = scope.spawn(|| {
                // As a program does that connects again from the moment at which its connection ends.
                loop {
                    std::thread::sleep(Duration::from_millis(2));
                    if let Some(last) = log_in(address, "app_ro").1.pop()
                        && last.field(b'C').as_deref() != Some("57P01")
                    {
                        return last;
                    }
                }
            });
            host.gateway.restart();
            let last = early.join().unwrap();
            assert_eq!(last.tag, 'Z', "{last:?}");
        });
    }
}
