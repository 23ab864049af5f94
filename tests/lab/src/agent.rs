//! A stand-in for Session Manager's agent: a worker process for each session, as root, that carries connections to a port of this
//! host, and the file that the agent keeps about it.
//!
//! The worker's executable is this program under the agent's name ([`is_worker`]). It dials anew for each connection, in frames of
//! 1 KiB with a pause after each, and knows no half-close, as the agent's port plugin (`pkg/agent/session/plugins/port` of
//! amazon-ssm-agent). `i-…/document/state/current/SESSION` is what `docmanager.go` writes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::keys::INSTANCE_ID;

/// What the agent calls its workers.
const WORKER: &str = "ssm-session-worker";

/// Bytes in a frame of the agent's data channel.
const FRAME_BYTES: usize = 1_024;

/// What the agent waits after each.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a worker may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The agent of a host. Its files are gone when it is dropped.
#[derive(Debug)]
pub struct Agent {
    directory: PathBuf,
}

/// How a session is.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Its id.
    pub id: String,
    /// ARN of who has started it.
    pub owner: String,
    /// The document it was started with.
    pub document: String,
    /// Another port in the file than the one that is dialled.
    pub port_in_file: Option<u16>,
    /// The worker runs as this user.
    pub uid: u32,
    /// The worker's executable; the agent's own if it isn't given.
    pub executable: Option<PathBuf>,
    /// Whether the agent has written its file.
    pub has_file: bool,
    /// Whether `localhost` is `::1` to the worker.
    pub is_ipv6: bool,
}

/// A session that goes on until it is dropped.
#[derive(Debug)]
pub struct Session {
    child: Child,
    /// Where whoever has started it connects.
    pub address: SocketAddr,
    /// The agent's file about it.
    pub file: PathBuf,
}

impl SessionOptions {
    /// One of that id and owner, as it should be.
    pub fn new(id: &str, owner: &str) -> Self {
        Self {
            id: id.to_owned(),
            owner: owner.to_owned(),
            document: "AWS-StartPortForwardingSession".to_owned(),
            port_in_file: None,
            uid: 0,
            executable: None,
            has_file: true,
            is_ipv6: false,
        }
    }
}

impl Agent {
    /// An agent whose files are under `directory`, which others may look into; `program` is `postern-lab`.
    pub fn install(directory: &Path, program: &Path) -> anyhow::Result<Self> {
        let agent = Self {
            directory: directory.to_owned(),
        };
        fs::create_dir_all(agent.current())?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        agent.copy_worker(program, &agent.worker())?;
        Ok(agent)
    }

    /// Its workers' executable.
    pub fn worker(&self) -> PathBuf {
        self.directory.join(WORKER)
    }

    /// The directory with its state.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Puts an executable of a worker to `path`.
    pub fn copy_worker(&self, program: &Path, path: &Path) -> anyhow::Result<()> {
        fs::copy(program, path).with_context(|| format!("cannot copy {}", program.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn current(&self) -> PathBuf {
        self.state().join(INSTANCE_ID).join("document/state/current")
    }

    /// Starts a session to `port` of this host.
    pub fn start(&self, port: u16, options: &SessionOptions) -> anyhow::Result<Session> {
        let listens = self.directory.join(format!("{}.address", options.id));
        let _ = fs::remove_file(&listens);
        fs::write(&listens, "")?;
        fs::set_permissions(&listens, fs::Permissions::from_mode(0o666))?;
        let host = if options.is_ipv6 {
            IpAddr::from(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::from(Ipv4Addr::LOCALHOST)
        };
        let executable = options.executable.clone().unwrap_or_else(|| self.worker());
        let child = Command::new(executable)
            .arg0(format!("/usr/bin/{WORKER}"))
            .arg(&options.id)
            .env_clear()
            .env("LAB_DIALS", SocketAddr::new(host, port).to_string())
            .env("LAB_LISTENS", &listens)
            .uid(options.uid)
            .stdin(Stdio::null())
            .spawn()?;
        let file = self.current().join(&options.id);
        let mut session = Session {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            file,
            child,
        };
        if options.has_file {
            let port = options.port_in_file.unwrap_or(port);
            let text = state(options, session.child.id(), port).to_string();
            fs::write(&session.file, text)?;
            fs::set_permissions(&session.file, fs::Permissions::from_mode(0o600))?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(address) = fs::read_to_string(&listens)?.trim().parse() {
                session.address = address;
                return Ok(session);
            }
            if Instant::now() > deadline {
                bail!("the worker of {} doesn't listen", options.id);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Session {
    /// The worker's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as TerminateSession does.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// The agent's file, in its own spelling.
fn state(options: &SessionOptions, pid: u32, port: u16) -> Value {
    let SessionOptions {
        id, owner, document, ..
    } = options;
    json!({
        "DocumentInformation": {
            "DocumentID": id, "CommandID": id, "InstanceID": INSTANCE_ID, "MessageID": id, "RunID": "",
            "CreatedDate": "2026-11-26T00:00:00.000Z", "DocumentName": document, "DocumentStatus": "InProgress",
            "ProcInfo": {"Pid": pid, "StartTime": "2026-11-26T00:00:00Z"}, "ClientId": "", "RunAsUser": "", "SessionOwner": owner,
        },
        "DocumentType": "StartSession",
        "InstancePluginsInformation": [{
            "Configuration": {
                "PluginName": "Port", "SessionId": id, "SessionOwner": owner,
                "Properties": {"portNumber": port.to_string(), "type": "LocalPortForwarding", "host": "", "localPortNumber": "0"},
            },
            "Name": "Port", "Id": "Port",
        }],
        "IOConfig": {}, "UpstreamServiceName": "MessageGatewayService",
    })
}

/// Whether this process is to be a session's worker.
pub fn is_worker() -> bool {
    let name = env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == WORKER))
}

/// A session's worker, until it is killed.
pub fn work() -> anyhow::Result<()> {
    let dials: SocketAddr = env::var("LAB_DIALS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        fs::write(env::var("LAB_LISTENS")?, listener.local_addr()?.to_string())?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(dials).await else {
                    return;
                };
                let (client, server) = (client.into_split(), server.into_split());
                // Whichever ends first ends both.
                tokio::select! {
                    () = carry(client.0, server.1) => {}
                    () = carry(server.0, client.1) => {}
                }
            });
        }
    })
}

async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let mut frame = [0; FRAME_BYTES];
    while let Ok(length @ 1..) = from.read(&mut frame).await {
        if to
            .write_all(frame.get(..length).unwrap_or_default())
            .await
            .is_err()
        {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
