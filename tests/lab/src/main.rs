//! `postern-lab`: runs a lab in the foreground, or prints a token.
//!
//! What it can do is in the library; this file only reads arguments and writes files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use postern_lab::{FaultSet, KeyType, Lab, LabConfig, Latency, Throttle, TokenParams, uri_encode};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "postern-lab",
    about = "A stand-in for RDS with IAM logins and for the AWS APIs",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a lab until SIGTERM or SIGINT. Writes env, ca.pem, postern.toml, sockets and, when all works, ready.
    Up(Box<Up>),
    /// Prints a token: of a running lab (--dir), or made from the key that is given.
    Token(Box<Token>),
}

#[derive(Args)]
struct Up {
    /// Where the files go. Made if absent.
    #[arg(long)]
    dir: PathBuf,
    /// Where the database endpoint listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    front: SocketAddr,
    /// Port of the database endpoint; overrides the one in --front.
    #[arg(long)]
    front_port: Option<u16>,
    /// Port of the AWS side and the control interface, on 127.0.0.1.
    #[arg(long, default_value_t = 0)]
    aws_port: u16,
    /// The endpoint's name.
    #[arg(long)]
    endpoint: Option<String>,
    /// The region.
    #[arg(long)]
    region: Option<String>,
    /// How long a login takes: none, milliseconds, or P50:P95:MAX in milliseconds.
    #[arg(long, default_value = "none", value_parser = latency)]
    latency: Latency,
    /// How many logins per second are let in.
    #[arg(long)]
    throttle: Option<usize>,
    /// The server's max_connections.
    #[arg(long)]
    max_connections: Option<u32>,
    /// How many seconds the role's credentials are valid.
    #[arg(long)]
    credentials_lifetime: Option<u64>,
    /// Shows a certificate with an RSA-2048 key, as RDS does, instead of P-256.
    #[arg(long)]
    rsa: bool,
    /// A further setting of the server, NAME=VALUE; may be repeated.
    #[arg(long = "postgres-setting", value_parser = setting)]
    postgres_settings: Vec<(String, String)>,
}

#[derive(Args)]
struct Token {
    /// The database user.
    #[arg(long, default_value = "app_ro")]
    user: String,
    /// Directory of a running lab, which then makes the token.
    #[arg(long, conflicts_with_all = ["access_key_id", "secret_access_key"])]
    dir: Option<PathBuf>,
    /// The endpoint's name.
    #[arg(long, default_value = "orders.cluster-abc123.us-east-1.rds.amazonaws.com")]
    host: String,
    /// The endpoint's port.
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// The region.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// The key's id.
    #[arg(long, required_unless_present = "dir")]
    access_key_id: Option<String>,
    /// The key's secret.
    #[arg(long, required_unless_present = "dir")]
    secret_access_key: Option<String>,
    /// The session token of a temporary key.
    #[arg(long)]
    session_token: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    if postern_lab::laptop::is_one_of() {
        return postern_lab::laptop::run();
    }
    if postern_lab::agent::is_worker() {
        postern_lab::agent::work()?;
        return Ok(ExitCode::SUCCESS);
    }
    match Arguments::parse().command {
        Command::Up(up) => run(&up)?,
        Command::Token(token) => {
            let mut text = token.make()?;
            text.push('\n');
            std::io::stdout().write_all(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs until it is told to end.
fn run(up: &Up) -> anyhow::Result<()> {
    // Before anything is started, so that no signal comes too early.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    fs::create_dir_all(&up.dir).with_context(|| format!("can't make {}", up.dir.display()))?;
    let directory = fs::canonicalize(&up.dir)?;
    let ready = directory.join("ready");
    let sockets = directory.join("sockets");
    remove(&ready)?;
    remove(&sockets)?;
    let lab = Lab::start(up.config())?;
    write_files(&lab, &directory)?;
    // The way past the front, for whoever may read the directory that it leads to.
    symlink(lab.postgres().socket_directory(), &sockets)?;
    fs::write(&ready, format!("{}\n", std::process::id()))?;
    let text = format!(
        "database endpoint {} (as {}:{})\ncontrol interface http://{}/lab/status\nfiles in {}\n",
        lab.dial_address(),
        lab.endpoint_host(),
        lab.endpoint_port(),
        lab.aws_address(),
        directory.display()
    );
    // Nobody may be reading any more, and that is no reason to end.
    std::io::stdout().write_all(text.as_bytes()).ok();
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    remove(&sockets)?;
    remove(&ready)
}

impl Up {
    fn config(&self) -> LabConfig {
        let mut config = LabConfig {
            front: self.front,
            ..LabConfig::default()
        };
        if let Some(port) = self.front_port {
            config.front.set_port(port);
        }
        config.aws.set_port(self.aws_port);
        if let Some(endpoint) = &self.endpoint {
            config.endpoint.clone_from(endpoint);
        }
        if let Some(region) = &self.region {
            config.region.clone_from(region);
        }
        if let Some(connections) = self.max_connections {
            config.max_connections = connections;
        }
        if let Some(seconds) = self.credentials_lifetime {
            config.credentials_lifetime = Duration::from_secs(seconds);
        }
        if self.rsa {
            config.key_type = KeyType::Rsa2048;
        }
        config.postgres_settings.clone_from(&self.postgres_settings);
        let throttle = self.throttle.map(Throttle::per_second);
        config.faults = FaultSet {
            latency: self.latency,
            throttle,
            ..FaultSet::default()
        };
        config
    }
}

impl Token {
    fn make(&self) -> anyhow::Result<String> {
        if let Some(directory) = &self.dir {
            return ask_for_token(directory, &self.user);
        }
        let params = TokenParams {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            region: self.region.clone(),
            service: "rds-db".to_owned(),
            access_key_id: self.access_key_id.clone().unwrap_or_default(),
            secret: self.secret_access_key.clone().unwrap_or_default(),
            session_token: self.session_token.clone(),
            signed_at: SystemTime::now(),
            expires: 900,
            tamper: None,
        };
        Ok(params.mint())
    }
}

/// Asks a running lab, whose address is in its `env` file.
fn ask_for_token(directory: &Path, user: &str) -> anyhow::Result<String> {
    let env = fs::read_to_string(directory.join("env")).context("no lab runs there")?;
    let url = env
        .lines()
        .find_map(|line| line.strip_prefix("export AWS_ENDPOINT_URL_RDS='http://"));
    let address = url
        .and_then(|url| url.strip_suffix('\''))
        .context("no address in env")?;
    let mut stream = TcpStream::connect(address).context("the lab doesn't answer")?;
    let path = format!("/lab/token?user={}", uri_encode(user));
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "the lab answered: {body}");
    Ok(body.to_owned())
}

fn write_files(lab: &Lab, directory: &Path) -> anyhow::Result<()> {
    let ca = directory.join("ca.pem");
    fs::copy(lab.ca_file(), &ca)?;
    let env: String = lab
        .env()
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    fs::write(directory.join("env"), env)?;
    let gateway = CONFIGURATION
        .replace(
            "ENDPOINT",
            &format!("{}:{}", lab.endpoint_host(), lab.endpoint_port()),
        )
        .replace("DIAL_ADDRESS", &lab.dial_address().to_string())
        .replace("CA_FILE", &ca.display().to_string());
    Ok(fs::write(directory.join("postern.toml"), gateway)?)
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Reads `none`, `MS` or `P50:P95:MAX`.
fn latency(text: &str) -> Result<Latency, String> {
    if text == "none" {
        return Ok(Latency::None);
    }
    if let Ok(ms) = text.parse() {
        return Ok(Latency::FixedMs(ms));
    }
    let numbers: Vec<f64> = text.split(':').filter_map(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [p50_ms, p95_ms, max_ms] if 0.0 < *p50_ms && p50_ms < p95_ms && p95_ms <= max_ms => {
            Ok(Latency::Lognormal {
                p50_ms: *p50_ms,
                p95_ms: *p95_ms,
                max_ms: *max_ms,
            })
        }
        _ => Err("expected none, MS, or P50:P95:MAX with 0 < P50 < P95 <= MAX".to_owned()),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A configuration of the gateway that works with this lab.
const CONFIGURATION: &str = r#"# Written by postern-lab. Lets everybody in: for trying out only.
[listen]
addresses = ["127.0.0.1:6432", "[::1]:6432"]
[admin]
http = "127.0.0.1:9187"
[identity]
sources = ["trust"]
[[targets]]
name = "orders"
endpoint = "ENDPOINT"
dial_address = "DIAL_ADDRESS"
tls_ca_file = "CA_FILE"
databases = ["orders"]
users = ["app_ro", "app_rw"]
[targets.pool]
size = 20
min_idle = 1
[[rules]]
principals = ["trust:"]
targets = ["orders"]
users = ["app_ro", "app_rw"]
"#;
