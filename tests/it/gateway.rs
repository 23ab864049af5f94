//! A gateway under test: the real binary, as a process of its own, in front of a lab.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use postern_lab::Lab;
use tokio_postgres::{Client, Config, NoTls};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What differs from the ordinary configuration: TOML that goes into the section of that name.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: &'static str,
    /// Addresses besides the loopback ones.
    pub(crate) hosts: Vec<std::net::IpAddr>,
    pub(crate) identity: String,
    pub(crate) pool: &'static str,
    pub(crate) iam: &'static str,
    pub(crate) timeouts: &'static str,
    pub(crate) users: &'static [&'static str],
    pub(crate) tls: String,
    /// The rules, with their headings.
    pub(crate) rules: &'static str,
    /// The level of the log.
    pub(crate) log: &'static str,
    /// What is looked for, instead of the lab's endpoint.
    pub(crate) discover: Option<&'static str>,
    /// More variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Don't wait until it is ready.
    pub(crate) not_ready: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "",
            hosts: Vec::new(),
            identity: "sources = [\"trust\"]".to_owned(),
            pool: "",
            iam: "logins_per_second = 200\nburst = 200",
            timeouts: "",
            users: &["app_ro", "app_rw"],
            tls: String::new(),
            rules: "[[rules]]\nprincipals = [\"*\"]\ntargets = [\"orders\"]\nusers = [\"*\"]",
            log: "debug",
            discover: None,
            environment: Vec::new(),
            not_ready: false,
        }
    }
}

/// A running gateway; it ends with the test.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
    pub(crate) port: u16,
    pub(crate) admin: u16,
}

/// A lab, and a gateway before it with this `[targets.pool]`.
pub(crate) fn with_pool(pool: &'static str) -> (Lab, Gateway) {
    let lab = Lab::start(postern_lab::LabConfig::default()).unwrap();
    let options = Options {
        pool,
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    (lab, gateway)
}

impl Gateway {
    /// A gateway in front of `lab`, ready for clients.
    pub(crate) fn start(lab: &Lab, options: &Options) -> Self {
        let behind = Behind {
            endpoint: format!("{}:{}", lab.endpoint_host(), lab.endpoint_port()),
            region: lab.region().to_owned(),
            dial: lab.dial_address(),
            ca: lab.ca_file(),
            environment: lab.env(),
        };
        Self::in_front_of(behind, options)
    }

    /// The same in front of a lab that runs as a process of its own and has written its files to `directory`.
    pub(crate) fn before(directory: &Path, options: &Options) -> Self {
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        let (config, environment) = (read("postern.toml"), read("env"));
        let value = |key: &str| {
            let line = config.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_matches([' ', '=', '"']).to_owned()
        };
        let behind = Behind {
            endpoint: value("endpoint"),
            region: "us-east-1".to_owned(),
            dial: value("dial_address").parse().unwrap(),
            ca: directory.join("ca.pem"),
            environment: environment
                .lines()
                .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
                .collect(),
        };
        Self::in_front_of(behind, options)
    }

    fn in_front_of(behind: Behind, options: &Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, admin) = (free_port(), free_port());
        let config = configuration(&behind, options, port, admin);
        std::fs::write(directory.path().join("postern.toml"), config).unwrap();
        let environment = [behind.environment, options.environment.clone()].concat();
        let child = spawn(&directory, &environment);
        let gateway = Self {
            child,
            directory,
            environment,
            port,
            admin,
        };
        gateway.wait_for(if options.not_ready { "/livez" } else { "/readyz" });
        gateway
    }

    /// Ends it without mercy and starts it anew at the same place.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.directory, &self.environment);
        self.wait_for("/readyz");
    }

    /// Sends a signal by name, as `kill` knows it.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway doesn't end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the process runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("postern.toml")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Memory of its own, in KiB.
    pub(crate) fn private_kib(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = rollup
            .lines()
            .find(|line| line.starts_with("Private_Dirty:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A page of the admin server: status and text.
    pub(crate) fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            tcp,
            "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut text = String::new();
        tcp.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    /// The sum of a metric over all series whose labels contain each of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, page) = self.page("/metrics").unwrap();
        page.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until `metric` has that value.
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[&str], value: f64) {
        let deadline = Instant::now() + PATIENCE;
        while (self.metric(name, labels) - value).abs() > f64::EPSILON {
            assert!(
                Instant::now() < deadline,
                "{name}{labels:?} is {}, not {value}",
                self.metric(name, labels)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A client's configuration.
    pub(crate) fn client(&self, user: &str) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .dbname("orders")
            .application_name("it");
        config
    }

    /// Runs psql against it.
    pub(crate) fn psql(&self, connection: &str, sql: &str) -> Output {
        Command::new("psql")
            .arg(format!(
                "host=127.0.0.1 port={} dbname=orders {connection}",
                self.port
            ))
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap()
    }

    /// Waits until that page says that all is well.
    pub(crate) fn wait_for(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.page(path) {
                Some((200, _)) => return,
                other => assert!(Instant::now() < deadline, "{path}: {other:?}\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!(
                "the gateway's log:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// Logs in; the connection is driven in the background and ends with the client.
pub(crate) async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The text that a command has printed.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The text of a command's errors.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn spawn(directory: &tempfile::TempDir, environment: &[(String, String)]) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.path().join("log"))
        .unwrap();
    Command::new(PathBuf::from(env!("CARGO_BIN_EXE_postern")))
        .args(["run", "--config"])
        .arg(directory.path().join("postern.toml"))
        .env_clear()
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What a gateway stands in front of.
struct Behind {
    endpoint: String,
    region: String,
    dial: SocketAddr,
    ca: PathBuf,
    environment: Vec<(String, String)>,
}

fn configuration(behind: &Behind, options: &Options, port: u16, admin: u16) -> String {
    let mut text = String::new();
    let users = format!("{:?}", options.users);
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let hosts = loopback.iter().chain(&options.hosts);
    let addresses: Vec<String> = hosts
        .map(|host| SocketAddr::new(*host, port).to_string())
        .collect();
    let Behind {
        endpoint,
        region,
        dial,
        ca,
        ..
    } = behind;
    let place = match options.discover {
        Some(discover) => format!("discover = {discover}"),
        None => format!("endpoint = \"{endpoint}\"\nregion = \"{region}\""),
    };
    write!(
        text,
        "log.level = \"{}\"\n[listen]\naddresses = {addresses:?}\n{}\n\
         [admin]\nhttp = \"127.0.0.1:{admin}\"\n{}\n[identity]\n{}\n\
         [[targets]]\nname = \"orders\"\n{place}\ndial_address = \"{dial}\"\n\
         tls_ca_file = {ca:?}\ndatabases = [\"orders\"]\nusers = {users}\n\
         [targets.pool]\n{}\n[targets.iam]\n{}\n[targets.timeouts]\n{}\n\
         {}\n",
        options.log,
        options.listen,
        options.tls,
        options.identity,
        options.pool,
        options.iam,
        options.timeouts,
        options.rules,
    )
    .unwrap();
    text
}

/// A port that nobody listens on, below those that the kernel gives to whoever dials (ip(7), `ip_local_port_range`): one of these could be
/// taken again before the gateway has it.
pub(crate) fn free_port() -> u16 {
    loop {
        let chance = RandomState::new().build_hasher().finish();
        let port = 10_000 + (chance % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
