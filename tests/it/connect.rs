//! `postern connect`, and the same in shell, on a laptop whose `aws` and plugin are the lab's.

mod ends;
mod errors;
mod reconnect;
mod runs;
mod shell;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postern_lab::agent::Agent;
use postern_lab::laptop::{Instance, SERVICE, Service};
use postern_lab::{Lab, LabConfig};

use crate::attribution::lab_program;
use crate::gateway::{Gateway, Options, PATIENCE};

/// The bastion that is the newest.
const BASTION: &str = "i-0123456789abcdef0";

/// A gateway on a bastion, Session Manager, and a laptop.
struct Laptop {
    service: Service,
    directory: tempfile::TempDir,
    gateway: Gateway,
    _lab: Lab,
}

impl Laptop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Agent::install(&directory.path().join("agent"), &lab_program()).unwrap();
        Self::with(directory, agent, "sources = [\"trust\"]")
    }

    fn with(directory: tempfile::TempDir, agent: Agent, identity: &str) -> Self {
        let lab = Lab::start(LabConfig::default()).unwrap();
        let options = Options {
            log: "info",
            identity: identity.to_owned(),
            ..Options::default()
        };
        let gateway = Gateway::start(&lab, &options);
        let bastion = Instance::new(BASTION, "2026-11-26T00:00:00+00:00");
        let service = Service::start(agent, gateway.port, vec![bastion]).unwrap();
        let laptop = Self {
            service,
            directory,
            gateway,
            _lab: lab,
        };
        std::fs::create_dir(laptop.programs()).unwrap();
        Service::install(&laptop.programs(), &lab_program()).unwrap();
        laptop.have("psql");
        laptop
    }

    /// The directory that PATH begins with.
    fn programs(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    /// Puts a program of this host there.
    fn have(&self, name: &str) {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|file| file.exists());
        symlink(found.unwrap(), self.programs().join(name)).unwrap();
    }

    /// `program` as somebody at this laptop runs it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.programs().display()))
            .env("HOME", self.directory.path())
            .env("AWS_REGION", "us-east-1")
            .env("PSQLRC", "/dev/null")
            .env(SERVICE, self.service.address())
            .stdin(Stdio::null());
        command
    }

    fn remote_port(&self) -> String {
        self.gateway.port.to_string()
    }

    /// `postern connect` with these arguments, to the gateway's port.
    fn connect(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_postern"));
        command
            .args(["connect", "--remote-port", &self.remote_port()])
            .args(arguments);
        command
    }

    /// The same, with target, user and database.
    fn to_orders(&self, arguments: &[&str]) -> Command {
        let mut command = self.connect(&["orders", "--user", "app_ro", "--database", "orders"]);
        command.args(arguments);
        command
    }

    fn output(&self, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        self.nothing_is_left();
        output
    }

    /// Waits until no process of this laptop's runs, and no session on the bastion.
    fn nothing_is_left(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (left, open) = (self.processes(), self.service.open());
            if left.is_empty() && open == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?}, {open} sessions");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What runs on this laptop: all that has its variable.
    fn processes(&self) -> BTreeSet<String> {
        let mark = format!("{SERVICE}={}\0", self.service.address());
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                std::fs::read(entry.path().join("environ")).is_ok_and(|environment| {
                    environment
                        .windows(mark.len())
                        .any(|part| part == mark.as_bytes())
                })
            })
            .map(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                format!("{} {line}", entry.file_name().to_string_lossy())
            })
            .collect()
    }

    /// Process ids of those whose command line has `part`.
    fn pids(&self, part: &str) -> Vec<String> {
        let has = |line: &&String| line.split_once(' ').is_some_and(|(_, line)| line.contains(part));
        let processes = self.processes();
        let found = processes.iter().filter(has);
        found
            .map(|line| line.split_once(' ').unwrap().0.to_owned())
            .collect()
    }
}

/// The same command at a terminal: script(1) makes one, and types what it is given.
fn at_terminal(laptop: &Laptop, command: &Command) -> Command {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let mut script = laptop.command("script");
    script
        .args([
            "-q",
            "-e",
            "-c",
            &format!("exec {}", words.join(" ")),
            "/dev/null",
        ])
        .env("PAGER", "cat")
        .env("TERM", "dumb")
        .stdin(Stdio::piped());
    script
}

/// One that runs, and what it says.
struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
    error: Arc<Mutex<String>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            out: collected(child.stdout.take().unwrap()),
            error: collected(child.stderr.take().unwrap()),
            child,
        }
    }

    fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    fn error(&self) -> String {
        self.error.lock().unwrap().clone()
    }

    /// Waits until that was said on standard output or as an error, so many times.
    fn wait_for(&mut self, part: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while format!("{}\n{}", self.out(), self.error()).matches(part).count() < times {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{ended:?}, no {part:?} in {}\n{}",
                self.out(),
                self.error()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        signal(name, &self.child.id().to_string());
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it doesn't end: {}\n{}",
                self.out(),
                self.error()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, process: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), "--", process])
        .status();
    assert!(sent.unwrap().success());
}

fn collected(mut pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let all = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut part = [0; 1024];
        while let Ok(length @ 1..) = pipe.read(&mut part) {
            all.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&part[..length]));
        }
    });
    text
}

/// A port that is free now.
fn free_port() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Lines of a process' standard output, one by one.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
}
