//! Who comes through Session Manager: the lab's agent, its workers as processes of their own, and those that want to be taken for one.

mod described;
mod helper;
mod seen;
mod terms;

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postern::wire::startup::{ProtocolVersion, cancel_request, startup_message};
use postern_lab::agent::{Agent, Session, SessionOptions};
use postern_lab::{Lab, LabConfig};

use crate::cancel::cancel_key;
use crate::gateway::{Gateway, Options, PATIENCE, stderr, stdout};
use crate::raw::{Message, Raw};

const ALICE: &str =
    "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/alice@example.com";
const ALICES: &str = "alice-07a16060613c408b5";
const BOB: &str = "arn:aws:sts::123456789012:assumed-role/Deploy/bob";
const BOBS: &str = "bob-07a16060613c408b6";

/// Alice's permission set may read, and the role Deploy may do anything.
const RULES: &str = "[[rules]]\nprincipals = [\"arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_????????????????/*\"]\n\
    targets = [\"orders\"]\nusers = [\"app_ro\"]\n\
    [[rules]]\nprincipals = [\"arn:aws:sts::123456789012:assumed-role/Deploy/*\"]\ntargets = [\"orders\"]\nusers = [\"*\"]\n\
    [[rules]]\nprincipals = [\"scram:carol\"]\ntargets = [\"orders\"]\nusers = [\"*\"]";

/// A user who isn't root.
const NOBODY: u32 = 65_534;

/// A host with the agent, the helper and the gateway.
struct Host {
    agent: Agent,
    helper: Child,
    gateway: Gateway,
    directory: tempfile::TempDir,
    lab: Lab,
}

impl Host {
    fn new() -> Self {
        Self::with("sources = [\"ssm\"]")
    }

    fn with(identity: &str) -> Self {
        Self::with_pool(identity, "session")
    }

    fn with_pool(identity: &str, mode: &str) -> Self {
        Self::with_rules(identity, &format!("mode = \"{mode}\""), RULES)
    }

    fn with_rules(identity: &str, pool: &str, rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Agent::install(&directory.path().join("agent"), &lab_program()).unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = directory.path().join("attribute.sock");
        let helper = helper(&agent, &socket, rustix_uid());
        let lab = Lab::start(LabConfig::default()).unwrap();
        let audit = directory.path().join("audit.jsonl");
        let options = Options {
            identity: format!("{identity}\nssm.socket = {socket:?}"),
            rules: format!("{rules}\n[audit]\nfile = {audit:?}").leak(),
            pool: pool.to_owned().leak(),
            log: "info",
            ..Options::default()
        };
        let gateway = Gateway::start(&lab, &options);
        Self {
            agent,
            helper,
            gateway,
            directory,
            lab,
        }
    }

    fn session(&self, id: &str, owner: &str) -> Session {
        self.start(&SessionOptions::new(id, owner))
    }

    fn start(&self, options: &SessionOptions) -> Session {
        self.agent.start(self.gateway.port, options).unwrap()
    }

    fn audit(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    /// The lines of the log with `part` in them, once there are so many: they are written by a thread of its own.
    fn logged(&self, part: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.gateway.log();
            let lines: Vec<_> = log
                .lines()
                .filter(|line| line.contains(part))
                .map(str::to_owned)
                .collect();
            if lines.len() >= count {
                return lines;
            }
            assert!(
                Instant::now() < deadline,
                "{part}: {} of {count} in {log}",
                lines.len()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn found(&self, outcome: &str) -> f64 {
        let label = format!("outcome=\"{outcome}\"");
        self.gateway.metric("postern_attribution_total", &[&label])
    }

    /// Somebody who comes this way is refused for this reason, and it is counted as such.
    fn refuses(&self, session: &Session, outcome: &str, detail: &str) {
        let before = self.found(outcome);
        let (_, answers) = log_in(session.address, "app_ro");
        let error = answers.last().unwrap();
        assert_eq!(
            error.field(b'C').as_deref(),
            Some("28000"),
            "{outcome}: {error:?}"
        );
        let said = error.field(b'D').unwrap();
        assert!(said.contains(detail), "{outcome}: {said}");
        assert!(error.field(b'H').is_some());
        assert!(
            (self.found(outcome) - before - 1.0).abs() < f64::EPSILON,
            "{outcome}"
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}

/// Lets a process run on one processor only, if there is that one.
fn keep_on_cpu(number: usize, process: u32) {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(number);
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let thread = thread.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let _ = rustix::thread::sched_setaffinity(rustix::process::Pid::from_raw(thread), &cpus);
    }
}

pub(crate) fn rustix_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

pub(crate) fn lab_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_postern")).with_file_name("postern-lab");
    assert!(program.exists(), "not built: cargo build --workspace --bins");
    program
}

/// The helper of a gateway that runs as this user.
pub(crate) fn helper(agent: &Agent, socket: &Path, uid: u32) -> Child {
    helper_by(
        &mut Command::new(env!("CARGO_BIN_EXE_postern")),
        agent,
        socket,
        uid,
    )
}

/// Started by `command`.
pub(crate) fn helper_by(command: &mut Command, agent: &Agent, socket: &Path, uid: u32) -> Child {
    let child = command
        .args(["attribute", "--log", "info", "--uid", &uid.to_string()])
        .arg("--socket")
        .arg(socket)
        .arg("--worker")
        .arg(agent.worker())
        .arg("--state")
        .arg(agent.state())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < deadline, "the helper doesn't listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn log_in(address: SocketAddr, user: &str) -> (Raw, Vec<Message>) {
    let mut raw = Raw::dial(address);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", user), ("database", "orders")],
    ));
    let answers = raw.until('Z');
    (raw, answers)
}

fn is_in(answers: &[Message]) -> bool {
    answers.last().is_some_and(|last| last.tag == 'Z')
}

#[test]
fn the_audit_log_names_person_session_and_document() {
    let host = Host::with("sources = [\"ssm\"]");
    let alices = host.session(ALICES, ALICE);
    assert!(is_in(&log_in(alices.address, "app_ro").1));
    let bobs = host.session(BOBS, BOB);
    assert!(is_in(&log_in(bobs.address, "app_rw").1));
    let deadline = Instant::now() + PATIENCE;
    let logins = loop {
        let text = std::fs::read_to_string(host.audit()).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let logins: Vec<_> = lines.filter(|line| line["event"] == "login").collect();
        if logins.len() == 2 {
            break logins;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    for (login, principal, person, session) in [
        (&logins[0], ALICE, "alice@example.com", ALICES),
        (
            &logins[1],
            "arn:aws:sts::123456789012:assumed-role/Deploy/",
            "Deploy/bob",
            BOBS,
        ),
    ] {
        for (name, value) in [
            ("principal", principal),
            ("person", person),
            ("ssm_session", session),
            ("document", "AWS-StartPortForwardingSession"),
            ("source", "ssm"),
        ] {
            assert_eq!(login[name], value, "{login}");
        }
    }
}

#[test]
fn psql_through_a_session_is_whoever_has_started_it() {
    let host = Host::new();
    let alices = host.session(ALICES, ALICE);
    let psql = |user: &str| {
        Command::new("psql")
            .arg(format!(
                "host=127.0.0.1 port={} user={user} dbname=orders",
                alices.address.port()
            ))
            .args(["-X", "-A", "-t", "-w", "-c", "select current_user"])
            .output()
            .unwrap()
    };
    assert_eq!(stdout(&psql("app_ro")), "app_ro");
    let login = host.logged("login session", 1).remove(0);
    assert!(login.contains(ALICE) && login.contains(ALICES), "{login}");
    assert!(
        host.gateway
            .metric("postern_client_logins_total", &["source=\"ssm\""])
            >= 1.0
    );
    // What no rule gives her.
    let refused = stderr(&psql("app_rw"));
    assert!(
        refused.contains(&format!("Principal \"{ALICE}\", target \"orders\"")),
        "{refused}"
    );
    assert!(
        refused.contains(
            "ask whoever runs this gateway for a rule with these four. You may use orders/orders as app_ro."
        ),
        "{refused}"
    );
}

#[test]
fn a_session_name_that_anybody_can_choose_is_no_principal() {
    let host = Host::new();
    // Whoever may assume the role calls himself what he likes.
    for owner in [
        BOB,
        "arn:aws:sts::123456789012:assumed-role/Deploy/alice@example.com",
    ] {
        let session = host.session("x-07a16060613c408b6", owner);
        assert!(is_in(&log_in(session.address, "app_rw").1), "{owner}");
    }
    let other = host.session(
        "x-07a16060613c408b7",
        "arn:aws:sts::123456789012:assumed-role/Other/Deploy",
    );
    let (_, answers) = log_in(other.address, "app_rw");
    let detail = answers.last().unwrap().field(b'D').unwrap();
    assert!(detail.contains("assumed-role/Other/\""), "{detail}");
}

#[test]
fn whoever_wants_to_be_taken_for_the_agent_is_refused() {
    let host = Host::new();
    let honest = host.session(ALICES, ALICE);
    let options = |id: &str| SessionOptions::new(id, ALICE);

    let forged = host.start(&SessionOptions {
        uid: NOBODY,
        ..options("forged-07a16060613c408b5")
    });
    host.refuses(&forged, "not_root", "of user 65534");

    let elsewhere = host.directory.path().join("ssm-session-worker");
    host.agent.copy_worker(&lab_program(), &elsewhere).unwrap();
    let replaced = host.start(&SessionOptions {
        executable: Some(elsewhere),
        ..options("elsewhere-07a16060613c408b5")
    });
    host.refuses(&replaced, "executable", "isn't the agent's");

    let foreign = host.start(&SessionOptions {
        document: "SSM-SessionManagerRunShell".to_owned(),
        ..options("foreign-07a16060613c408b5")
    });
    host.refuses(&foreign, "document", "SSM-SessionManagerRunShell");

    let other_port = host.start(&SessionOptions {
        port_in_file: Some(5_433),
        ..options("port-07a16060613c408b5")
    });
    host.refuses(&other_port, "other_port", "5433");

    let unknown = host.start(&SessionOptions {
        has_file: false,
        ..options("unknown-07a16060613c408b5")
    });
    host.refuses(&unknown, "no_record", "no file");

    // Somebody else's file by another name.
    let linked = host.start(&SessionOptions {
        has_file: false,
        ..options("linked-07a16060613c408b5")
    });
    symlink(&honest.file, &linked.file).unwrap();
    host.refuses(&linked, "bad_record", "can't be used");

    let copied = host.start(&SessionOptions {
        has_file: false,
        ..options("copied-07a16060613c408b5")
    });
    std::fs::copy(&honest.file, &copied.file).unwrap();
    host.refuses(&copied, "other_session", "another session");

    let theirs = host.session("theirs-07a16060613c408b5", ALICE);
    std::os::unix::fs::chown(&theirs.file, Some(NOBODY), None).unwrap();
    host.refuses(&theirs, "bad_record", "can't be used");
    host.logged("somebody else than root may have written it", 1);

    let garbled = host.session("garbled-07a16060613c408b5", ALICE);
    std::fs::write(&garbled.file, "{\"DocumentInformation\": ").unwrap();
    host.refuses(&garbled, "bad_record", "can't be used");

    let nobodys = host.session("nobodys-07a16060613c408b5", "alice");
    host.refuses(&nobodys, "owner", "alice");

    let above = host.session("..-07a16060613c408b5", ALICE);
    host.refuses(&above, "session_id", "which session");

    // Not through Session Manager at all, as root and as somebody else.
    let (_, answers) = log_in(host.gateway.address(), "app_ro");
    assert!(
        answers
            .last()
            .unwrap()
            .field(b'D')
            .unwrap()
            .contains("session worker")
    );
    assert!((host.found("not_a_worker") - 1.0).abs() < f64::EPSILON);
    let psql = Command::new("psql")
        .arg(format!(
            "host=127.0.0.1 port={} user=app_ro dbname=orders",
            host.gateway.port
        ))
        .args(["-X", "-w", "-c", "select 1"])
        .uid(NOBODY)
        .output()
        .unwrap();
    assert!(stderr(&psql).contains("of user 65534"), "{}", stderr(&psql));

    assert!(
        is_in(&log_in(honest.address, "app_ro").1),
        "whoever is honest still gets in"
    );
}

/// Whoever begins next has the process id `pid`, unless others begin as well.
fn next_is(pid: u32) {
    std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
}

#[test]
fn a_worker_that_has_the_process_id_of_another_is_itself() {
    let host = Host::new();
    // Another test's process may come first.
    for number in 0..50 {
        let mut before = host.session(&format!("alice-a{number:016x}"), ALICE);
        assert!(is_in(&log_in(before.address, "app_ro").1), "the helper knows it");
        before.end();
        next_is(before.pid());
        let next = host.session(&format!("alice-b{number:016x}"), ALICE);
        if next.pid() == before.pid() {
            assert!(is_in(&log_in(next.address, "app_ro").1));
            return;
        }
    }
    panic!("no process has the id of another");
}

#[test]
fn what_a_file_says_at_length_is_nobody_elses_trouble() {
    let host = Host::new();
    let long = host.session("mallory-07a16060613c408b5", &"m".repeat(20_000));
    let good = host.session(ALICES, ALICE);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..5).for_each(|_| drop(log_in(long.address, "app_ro"))));
        }
        for _ in 0..20 {
            assert!(is_in(&log_in(good.address, "app_ro").1));
        }
    });
    assert!(host.found("bad_record") > 0.0);
    assert!(host.found("no_helper").abs() < f64::EPSILON);
}

#[test]
fn a_process_that_is_gone_is_nobody() {
    let host = Host::new();
    let helper = |signal: &str| {
        let pid = host.helper.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    let mut session = host.session(ALICES, ALICE);
    helper("-STOP");
    let mut raw = Raw::dial(session.address);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    host.gateway
        .wait_for_metric("postern_client_accepted_total", &[], 1.0);
    session.end();
    // The next one of the same name has it no longer.
    let next = host.session(ALICES, ALICE);
    helper("-CONT");
    assert!(is_in(&log_in(next.address, "app_ro").1));
    assert!((host.found("ok") - 1.0).abs() < f64::EPSILON);
    assert!(host.found("gone") <= 1.0, "the gateway may have noticed before");
}

#[test]
fn the_agent_may_dial_either_localhost_and_be_replaced_while_a_session_lasts() {
    let host = Host::new();
    let session = host.start(&SessionOptions {
        is_ipv6: true,
        ..SessionOptions::new(ALICES, ALICE)
    });
    assert!(is_in(&log_in(session.address, "app_ro").1));
    std::fs::remove_file(host.agent.worker()).unwrap();
    assert!(
        is_in(&log_in(session.address, "app_ro").1),
        "its executable is deleted"
    );
    host.agent
        .copy_worker(&lab_program(), &host.agent.worker())
        .unwrap();
    assert!(
        is_in(&log_in(session.address, "app_ro").1),
        "another has its path"
    );
}

#[test]
fn many_connections_of_many_sessions_are_each_their_own() {
    // Clients, workers and the database beside the gateway and its helper, so that these times say something
    // (`benches/attribution`).
    keep_on_cpu(0, std::process::id());
    let host = Host::new();
    keep_on_cpu(1, host.gateway.pid());
    keep_on_cpu(1, host.helper.id());
    let sessions: Vec<_> = (0..50)
        .map(|number| {
            let owner = format!(
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/person{number}"
            );
            host.session(&format!("person{number}-07a16060613c408b5"), &owner)
        })
        .collect();
    std::thread::scope(|scope| {
        for session in &sessions {
            for _ in 0..10 {
                scope.spawn(|| assert!(is_in(&log_in(session.address, "app_ro").1)));
            }
        }
    });
    let log = host.logged("login session", 500);
    for number in 0..50 {
        let person = format!("/person{number} ");
        let session = format!("person{number}-07a16060613c408b5");
        let both = log
            .iter()
            .filter(|line| line.contains(&person) && line.contains(&session));
        assert_eq!(both.count(), 10, "{person}");
    }
    assert!((host.found("ok") - 500.0).abs() < f64::EPSILON);
    let (_, page) = host.gateway.page("/metrics").unwrap();
    let times = page
        .lines()
        .filter(|line| line.starts_with("postern_attribution_seconds"));
    println!("{}", times.collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_server_shows_the_person() {
    for mode in ["session", "auto"] {
        let host = Host::with_pool("sources = [\"ssm\"]", mode);
        let alices = host.session(ALICES, ALICE);
        let mut raw = Raw::dial(alices.address);
        raw.send(&startup_message(
            ProtocolVersion::V3_0,
            &[
                ("user", "app_ro"),
                ("database", "orders"),
                ("application_name", "psql"),
            ],
        ));
        raw.until('Z');
        let shown = "select application_name from pg_stat_activity where pid = pg_backend_pid()";
        assert_eq!(first_value(&raw.query(shown)), "alice@example.com|psql", "{mode}");
        if mode == "auto" {
            raw.query("set application_name = 'other'");
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(first_value(&raw.query(shown)), "alice@example.com|other");
            raw.query("reset application_name");
            assert_eq!(first_value(&raw.query(shown)), "alice@example.com|psql");
        }
    }
}

#[test]
fn nobody_cancels_for_somebody_else() {
    let host = Host::new();
    let (alices, bobs) = (
        host.session(ALICES, ALICE),
        host.session("bob-07a16060613c408b5", BOB),
    );
    let (mut inside, answers) = log_in(alices.address, "app_ro");
    let key = cancel_key(&answers);
    inside.message('Q', b"select pg_sleep(30)\0");
    // Time for it to begin.
    std::thread::sleep(Duration::from_millis(300));
    for (session, outcome) in [(&bobs, "foreign"), (&alices, "forwarded")] {
        let mut cancel = Raw::dial(session.address);
        cancel.send(&cancel_request(&key));
        // As libpq waits for the end.
        assert_eq!(cancel.next(), None);
        host.gateway.wait_for_metric(
            "postern_cancel_requests_total",
            &[&format!("outcome=\"{outcome}\"")],
            1.0,
        );
    }
    let error = inside
        .until('Z')
        .into_iter()
        .find(|message| message.tag == 'E')
        .unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57014"));
}

#[test]
fn the_configuration_explains_who_may_what() {
    let host = Host::new();
    let explain = |principal: &str, user: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["config", "explain", "--target", "orders", "--database", "orders"])
            .args(["--principal", principal, "--user", user])
            .arg("--config")
            .arg(host.gateway.config())
            .output()
            .unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output))
    };
    let alices = explain(ALICE, "app_ro");
    assert!(alices.ends_with("rules[0]: matches\nrules[1]: not this principal\nrules[2]: not this principal\nadmitted by rules[0]\n"), "{alices}");
    let refused = explain(ALICE, "app_rw");
    assert!(refused.contains("rules[0]: not this user"), "{refused}");
    assert!(
        refused.ends_with("refused: no rule allows this principal this database user\n"),
        "{refused}"
    );
    assert!(explain(BOB, "other").ends_with("refused: targets.orders.users doesn't have other\n"));
    assert!(explain("alice", "app_ro").contains("expected an ARN"));
}

/// The first value of the first row.
fn first_value(answers: &[Message]) -> String {
    let row = answers.iter().find(|message| message.tag == 'D').unwrap();
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

#[test]
fn who_comes_in_a_way_that_is_not_allowed_is_nobody_else_instead() {
    let host = Host::with("sources = [\"ssm\", \"trust\"]");
    let foreign = host.start(&SessionOptions {
        document: "SSM-SessionManagerRunShell".to_owned(),
        ..SessionOptions::new(ALICES, ALICE)
    });
    host.refuses(&foreign, "document", "SSM-SessionManagerRunShell");
    // Whoever doesn't come through a session is `trust:`, for whom there is no rule here.
    let (_, answers) = log_in(host.gateway.address(), "app_ro");
    let detail = answers.last().unwrap().field(b'D').unwrap();
    assert!(detail.contains("Principal \"trust:\""), "{detail}");
}

#[test]
fn one_name_that_can_be_chosen_does_not_cancel_for_another() {
    let host = Host::new();
    let sessions = ["1", "2"].map(|end| host.session(&format!("bob-07a16060613c408b{end}"), BOB));
    let (_inside, answers) = log_in(sessions[0].address, "app_ro");
    let key = cancel_key(&answers);
    for (session, outcome) in sessions.iter().rev().zip(["foreign", "idle"]) {
        let mut cancel = Raw::dial(session.address);
        cancel.send(&cancel_request(&key));
        assert_eq!(cancel.next(), None);
        let label = format!("outcome=\"{outcome}\"");
        host.gateway
            .wait_for_metric("postern_cancel_requests_total", &[&label], 1.0);
    }
}
