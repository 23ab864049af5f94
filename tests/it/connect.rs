//! `postern connect`, and the same in shell, on a laptop whose `aws` and plugin are the lab's.

mod ends;
mod errors;
mod reconnect;
mod shell;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postern_lab::agent::Agent;
use postern_lab::laptop::{Instance, SERVICE, Service};
use postern_lab::{Lab, LabConfig};

use crate::attribution::{self, lab_program};
use crate::gateway::{Gateway, Options, PATIENCE, stderr, stdout};

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

#[test]
fn psql_runs_through_a_forward_that_is_found_by_its_tag() {
    let laptop = Laptop::new();
    let script = laptop.directory.path().join("script.sql");
    std::fs::write(
        &script,
        "\\pset format unaligned\n\\t on\nselect current_user, current_database();\n",
    )
    .unwrap();
    let output = laptop.output(laptop.to_orders(&[]).stdin(std::fs::File::open(&script).unwrap()));
    assert!(stdout(&output).contains("app_ro|orders"), "{output:?}");
    assert_eq!(
        laptop.service.log()[..2],
        ["DescribeInstances", &format!("StartSession {BASTION}")]
    );
    // The plugin was asked to end the session, not only killed.
    assert!(
        laptop
            .service
            .log()
            .last()
            .unwrap()
            .starts_with("terminated alice"),
        "{:?}",
        laptop.service.log()
    );
}

#[test]
fn who_comes_this_way_is_known() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = Agent::install(&directory.path().join("agent"), &lab_program()).unwrap();
    let socket = directory.path().join("attribute.sock");
    let mut helper = attribution::helper(&agent, &socket, 0);
    let laptop = Laptop::with(
        directory,
        agent,
        &format!("sources = [\"ssm\"]\nssm.socket = {socket:?}"),
    );
    let output = laptop.output(&mut laptop.to_orders(&["--exec", "psql", "-XAtc", "show application_name"]));
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert_eq!(stdout(&output), "alice@example.com|psql");
}

/// The stand-in for the AWS CLI takes what the real one takes: here it is that, if it is installed.
#[test]
fn a_real_aws_cli_understands_what_it_is_asked() {
    let laptop = Laptop::new();
    std::fs::remove_file(laptop.programs().join("aws")).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&path).any(|directory| directory.join("aws").exists()) {
        eprintln!("the AWS CLI isn't installed");
        return;
    }
    laptop.have("aws");
    laptop.service.set_instances(vec![
        Instance::new("i-00000000000000001", "2026-11-26T00:00:00.000Z"),
        Instance::new(BASTION, "2026-11-26T01:00:00.000Z"),
    ]);
    let real = |command: &mut Command| {
        let address = format!("http://{}", laptop.service.address());
        let output = command
            .env("AWS_ENDPOINT_URL", address)
            .envs([
                ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ])
            .output()
            .unwrap();
        laptop.nothing_is_left();
        output
    };
    let query = ["--exec", "psql", "-XAtc", "select current_user"];
    assert_eq!(stdout(&real(&mut laptop.to_orders(&query))), "app_ro");
    let log = laptop.service.log();
    assert_eq!(
        log[..2],
        ["DescribeInstances", &format!("StartSession {BASTION}")]
    );
    assert!(log.last().unwrap().starts_with("terminated"), "{log:?}");

    let script = ["-x", "orders", "psql", "-XAtc", "select current_user"];
    assert_eq!(stdout(&real(&mut laptop.script(&free_port(), &script))), "app_ro");

    let output = real(&mut laptop.to_orders(&["--bastion", "i-00000000000000009", "--exec", "true"]));
    let told = stderr(&output);
    assert!(
        told.contains("(TargetNotConnected)") && told.contains("aws ssm get-connection-status"),
        "{told}"
    );
}

#[test]
fn a_command_has_the_variables_and_its_exit_status_is_passed_on() {
    let laptop = Laptop::new();
    let port = free_port();
    let show = "echo $PGHOST:$PGPORT $PGUSER $PGDATABASE ${PGHOSTADDR-none} ${PGSERVICE-none}; exit 23";
    let output = laptop.output(
        laptop
            .to_orders(&["--local-port", &port, "--exec", "sh", "-c", show])
            .env("PGHOSTADDR", "192.0.2.1")
            .env("PGSERVICE", "another"),
    );
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told.trim(),
        format!("127.0.0.1:{port} app_ro orders/orders none none")
    );
    assert_eq!(output.status.code(), Some(23), "{}", stderr(&output));

    let output = laptop.output(&mut laptop.to_orders(&["--exec", "sh", "-c", "kill -TERM $$"]));
    assert_eq!(output.status.code(), Some(128 + 15), "{}", stderr(&output));

    // Whatever follows is the command's, options of the same name too.
    let query = "select current_database()";
    let output = laptop
        .output(&mut laptop.to_orders(&["--exec", "--", "psql", "-XAt", "--user", "app_rw", "-c", query]));
    assert_eq!(stdout(&output), "orders");
}

#[test]
fn names_come_from_the_environment_as_well() {
    let laptop = Laptop::new();
    let output = laptop.output(
        laptop
            .command(env!("CARGO_BIN_EXE_postern"))
            .args(["connect", "--exec", "psql", "-XAtc", "select current_user"])
            .envs([
                ("POSTERN_CONNECT_BASTION", BASTION),
                ("POSTERN_CONNECT_DOCUMENT", "pinned"),
                ("PGUSER", "app_ro"),
                ("PGDATABASE", "orders"),
            ]),
    );
    assert_eq!(stdout(&output), "app_ro");
    // Nothing is looked up for an instance that is named, and a document of one's own may pin the port.
    assert_eq!(laptop.service.log()[0], format!("StartSession {BASTION}"));
}

#[test]
fn what_is_printed_works_when_pasted() {
    let laptop = Laptop::new();
    let mut running = Running::start(&mut laptop.to_orders(&["--print"]));
    running.wait_for("until Ctrl-C", 1);
    let printed = running.out();
    let line = |start: &str| printed.lines().find(|line| line.starts_with(start)).unwrap();
    let query = "select current_user || '@' || current_database()";

    let shell = |script: &str| stdout(&laptop.command("sh").args(["-c", script]).output().unwrap());
    let pasted = format!("{} -XAtc \"{query}\"", line("psql "));
    assert_eq!(shell(&pasted), "app_ro@orders");
    let pasted = format!("{}\npsql -XAtc \"{query}\"", line("export "));
    assert_eq!(shell(&pasted), "app_ro@orders");

    let section = &printed[printed.find("[orders]").unwrap()..];
    for service in [section, &printed] {
        std::fs::write(laptop.directory.path().join(".pg_service.conf"), service).unwrap();
        assert_eq!(
            shell(&format!("psql service=orders -XAtc \"{query}\"")),
            "app_ro@orders"
        );
    }
    let port = section
        .lines()
        .find_map(|line| line.strip_prefix("port="))
        .unwrap();
    assert!(
        printed.contains(&format!(
            "jdbc:postgresql://127.0.0.1:{port}/orders%2Forders?user=app_ro"
        )),
        "{printed}"
    );

    running.signal("INT");
    assert_eq!(running.wait().code(), Some(0));
    laptop.nothing_is_left();
}

#[test]
fn the_newest_bastion_that_session_manager_knows_is_taken() {
    let laptop = Laptop::new();
    let mut away = Instance::new("i-00000000000000003", "2026-11-26T02:00:00+00:00");
    away.is_connected = false;
    let mut stopped = Instance::new("i-00000000000000004", "2026-11-26T03:00:00+00:00");
    stopped.state = "stopped".to_owned();
    let mut other = Instance::new("i-00000000000000005", "2026-11-26T04:00:00+00:00");
    other.tags = [("postern".to_owned(), "other".to_owned())].into();
    laptop.service.set_instances(vec![
        Instance::new("i-00000000000000001", "2026-11-26T00:00:00+00:00"),
        Instance::new("i-00000000000000002", "2026-11-26T01:00:00+00:00"),
        away,
        stopped,
        other,
    ]);
    let output = laptop.output(&mut laptop.to_orders(&["--exec", "true"]));
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(
        told.contains("3 instances have the tag postern=bastion; i-00000000000000003")
            && told.contains("before i-00000000000000002, i-00000000000000001"),
        "{told}"
    );
    assert_eq!(
        laptop.service.log()[..3],
        [
            "DescribeInstances",
            "StartSession i-00000000000000003",
            "StartSession i-00000000000000002"
        ]
    );

    let output = laptop.output(&mut laptop.to_orders(&["--tag", "postern=other", "--exec", "true"]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        laptop
            .service
            .log()
            .contains(&"StartSession i-00000000000000005".to_owned())
    );
}

/// Lines of a process' standard output, one by one.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
}
