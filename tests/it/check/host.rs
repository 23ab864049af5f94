//! Faults of this host: files, ports, Session Manager.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use postern_lab::agent::Agent;
use postern_lab::{AwsFault, Lab, LabConfig};

use super::{Found, Setup};
use crate::attribution::{helper, helper_by, lab_program, rustix_uid};
use crate::gateway::{Gateway, Options};

#[test]
fn fault_too_few_files() {
    let mut setup = Setup::new();
    setup.max_clients = 1_000;
    let program = env!("CARGO_BIN_EXE_postern");
    let line = format!(
        "ulimit -n 1000; exec {program} check --json --config {}",
        setup.file().display()
    );
    let found = Found::of(&setup.run(Command::new("/bin/sh").args(["-c", &line])));
    // 1,000 clients, two pools of 20, and 256 for all else.
    found.only("warning", "files", "let in fewer clients", "LimitNOFILE=1296");
}

#[test]
fn fault_another_program_listens() {
    let setup = Setup::new();
    let _other = TcpListener::bind(setup.listen).unwrap();
    let found = setup.check(&[]);
    let process = format!("process {}", std::process::id());
    found.only("failed", "listen", &process, "give listen.addresses another port");
    drop(found);
    let _third = TcpListener::bind(setup.admin).unwrap();
    setup
        .check(&[])
        .has("failed", "listen", &process, "give listen.addresses another port");
}

#[test]
fn fault_the_address_is_not_this_hosts() {
    let mut setup = Setup::new();
    setup.admin = "192.0.2.1:9187".parse().unwrap();
    setup.check(&[]).only(
        "failed",
        "listen",
        "isn't one of this host's",
        "take it out of admin.http",
    );
}

#[test]
fn a_gateway_that_runs_is_told_from_another_program() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(&lab, &Options::default());
    let mut setup = Setup::new();
    setup.listen = gateway.address();
    let found = setup.check(&[]);
    assert_eq!(found.wrong(), [""; 0]);
    let told = found.of_check("listen", &gateway.address().to_string()).1;
    assert_eq!(told, format!("served by postern, process {}", gateway.pid()));
}

/// A host with Session Manager's agent.
struct Host {
    setup: Setup,
    agent: Agent,
    socket: PathBuf,
    helper: Option<Child>,
}

impl Host {
    fn new(documents: &str) -> Self {
        let mut setup = Setup::new();
        let directory = setup.directory.path();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let agent = Agent::install(&directory.join("agent"), &lab_program()).unwrap();
        let socket = directory.join("attribute.sock");
        setup.identity = format!("sources = [\"ssm\"]\nssm.socket = {socket:?}\nssm.documents = {documents}");
        Self {
            setup,
            agent,
            socket,
            helper: None,
        }
    }

    fn helped(documents: &str) -> Self {
        let mut host = Self::new(documents);
        host.helper = Some(helper(&host.agent, &host.socket, rustix_uid()));
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(helper) = &mut self.helper {
            let _ = helper.kill();
            let _ = helper.wait();
        }
    }
}

const PORT_DOCUMENT: &str = "[\"AWS-StartPortForwardingSession\", \"pg-gateway-port\"]";

#[test]
fn session_manager_is_all_ok_where_all_of_it_is_there() {
    let host = Host::helped(PORT_DOCUMENT);
    let found = host.setup.check(&[]);
    assert!(
        found.findings.iter().all(|finding| finding["state"] == "ok"),
        "{found:#?}"
    );
    let told = found.of_check("ssm.helper", &host.socket.display().to_string()).1;
    assert_eq!(
        told,
        format!(
            "root's, and answers, process {}",
            host.helper.as_ref().unwrap().id()
        )
    );
    let told = found
        .of_check("ssm.agent", &host.agent.state().display().to_string())
        .1;
    assert_eq!(told, "of i-0123456789abcdef0");
}

#[test]
fn fault_the_helper_does_not_run() {
    let host = Host::new(PORT_DOCUMENT);
    let found = host.setup.check(&[]);
    found.only("failed", "ssm.helper", "doesn't run", "postern attribute --uid");
    found.skips(
        "ssm.agent",
        "amazon-ssm-agent",
        &format!("ssm.helper ({})", host.socket.display()),
    );
}

#[test]
fn fault_the_helper_has_died() {
    let host = Host::new(PORT_DOCUMENT);
    drop(UnixListener::bind(&host.socket).unwrap());
    host.setup.check(&[]).only(
        "failed",
        "ssm.helper",
        "nobody listens there any more",
        "postern attribute --uid",
    );
}

#[test]
fn fault_the_helper_hangs() {
    let host = Host::new(PORT_DOCUMENT);
    let _silent = UnixListener::bind(&host.socket).unwrap();
    host.setup.check(&[]).only(
        "failed",
        "ssm.helper",
        "doesn't answer questions",
        "postern attribute --uid",
    );
}

#[test]
fn fault_the_helper_answers_another_user() {
    let host = Host::helped(PORT_DOCUMENT);
    chown(&host.socket, Some(65_534), None).unwrap();
    host.setup.check(&[]).only(
        "warning",
        "ssm.helper",
        "it answers user 65534 alone",
        "setpriv --reuid 65534",
    );
}

#[test]
fn fault_the_agent_is_not_installed() {
    let mut host = Host::helped(PORT_DOCUMENT);
    std::fs::remove_dir_all(host.agent.state()).unwrap();
    host.setup.check(&[]).only(
        "failed",
        "ssm.agent",
        "isn't installed",
        "install and start amazon-ssm-agent",
    );
    std::fs::create_dir(host.agent.state()).unwrap();
    host.setup.check(&[]).only(
        "failed",
        "ssm.agent",
        "never registered this host",
        "AmazonSSMManagedInstanceCore",
    );
    host.helper.as_mut().unwrap().kill().unwrap();
}

#[test]
fn fault_the_agents_worker_is_elsewhere() {
    let host = Host::helped(PORT_DOCUMENT);
    std::fs::remove_file(host.agent.worker()).unwrap();
    host.setup
        .check(&[])
        .only("failed", "ssm.agent", "no session worker at", "--worker");
}

#[test]
fn fault_a_document_is_for_a_shell() {
    let host = Host::helped("[\"AWS-StartPortForwardingSession\", \"SSM-*\"]");
    host.setup.check(&[]).only(
        "warning",
        "ssm.document",
        "SSM-SessionManagerRunShell is for more than a port",
        "one of your own that pins the port",
    );
}

#[test]
fn fault_no_document_is_called_so() {
    let host = Host::helped("[\"AWS StartPortForwardingSession\"]");
    host.setup.check(&[]).only(
        "failed",
        "ssm.document",
        "no session fits it",
        "aws ssm list-documents",
    );
}

#[test]
fn a_worker_is_found_by_a_glob() {
    let mut host = Host::new(PORT_DOCUMENT);
    let snap = host.setup.directory.path().join("agent/snap/9876");
    std::fs::create_dir_all(&snap).unwrap();
    std::fs::rename(host.agent.worker(), snap.join("ssm-session-worker")).unwrap();
    let glob = Path::new(&snap).with_file_name("*").join("ssm-session-worker");
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    host.helper = Some(helper_by(&mut command, &host.agent, &host.socket, rustix_uid()));
    host.setup
        .check(&[])
        .only("failed", "ssm.agent", "no session worker at", "--worker");
    let helper = host.helper.as_mut().unwrap();
    helper.kill().unwrap();
    helper.wait().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args([
            "attribute",
            "--uid",
            &rustix_uid().to_string(),
            "--log",
            "error",
            "--socket",
        ])
        .arg(&host.socket)
        .arg("--worker")
        .arg(glob)
        .arg("--state")
        .arg(host.agent.state())
        .spawn()
        .unwrap();
    host.helper = Some(child);
    let deadline = std::time::Instant::now() + crate::gateway::PATIENCE;
    while std::os::unix::net::UnixStream::connect(&host.socket).is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(host.setup.check(&[]).wrong(), [""; 0]);
}

#[test]
fn fault_session_manager_may_not_be_asked() {
    let mut host = Host::helped(PORT_DOCUMENT);
    host.setup.identity.push_str("\nssm.source = \"both\"");
    let found = host.setup.check(&[]);
    found.is_like(
        "ssm.sessions",
        "Session Manager in us-east-1",
        "ok",
        "may be asked",
    );
    assert_eq!(found.wrong(), [""; 0]);
    host.setup.lab.set_api_fault(AwsFault::Unauthorized);
    let found = host.setup.check(&[]);
    found.has(
        "failed",
        "ssm.sessions",
        "may not ask whose a session is",
        r#""Action": "ssm:DescribeSessions""#,
    );
    host.setup.lab.set_api_fault(AwsFault::Down);
    let found = host.setup.check(&[]);
    found.has(
        "failed",
        "ssm.sessions",
        "no way from this host to ssm.us-east-1",
        "interface endpoint",
    );
}
