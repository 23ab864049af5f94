//! A real PostgreSQL server in a temporary directory, gone when the lab is gone.
//!
//! It trusts everybody on its unix socket, which lies in a private directory, and asks for SCRAM-SHA-256 on its
//! loopback port. It knows nothing of IAM; [`crate::front`] stands before it.
//!
//! The server runs under a small shell script that waits for the end of a pipe which only this process holds, so
//! no server outlives its lab, not even when this process is killed.

mod install;
mod sql;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

pub use install::SUPERUSER;
pub(crate) use install::{Install, server_user};
pub(crate) use sql::{identifier, literal};

use sql::Connection;

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub(crate) struct PostgresConfig {
    pub(crate) max_connections: u32,
    /// Further lines for `postgresql.conf`.
    pub(crate) settings: Vec<(String, String)>,
    /// Lines that come first in `pg_hba.conf`.
    pub(crate) hba: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    version: String,
    port: u16,
    /// A connection kept for questions that the login front asks at every login.
    questions: Mutex<Option<Connection>>,
    watchdog: Mutex<Option<Watchdog>>,
    directory: TempDir,
}

impl Postgres {
    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(config: &PostgresConfig) -> anyhow::Result<Self> {
        let install = Install::find()?;
        let directory = new_directory()?;
        let socket_directory = directory.path().join("s");
        let files = directory.path().join("files");
        fs::create_dir(&socket_directory)?;
        fs::create_dir(&files)?;
        install.own(directory.path(), 0o755)?;
        install.own(&socket_directory, 0o700)?;
        install.own(&files, 0o755)?;
        let data = directory.path().join("data");
        install.copy_template(&data)?;
        let mut hba = config.hba.join("\n");
        hba.push_str(HBA);
        fs::write(data.join("pg_hba.conf"), hba)?;
        let version = install.version().to_owned();
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port()?;
            fs::write(
                data.join("postgresql.conf"),
                settings(config, port, &socket_directory),
            )?;
            let mut watchdog = Watchdog::start(&install, directory.path())?;
            if watchdog.wait_until_ready(&socket_path(directory.path(), port), directory.path())? {
                let (questions, watchdog) = (Mutex::new(None), Mutex::new(Some(watchdog)));
                return Ok(Self {
                    version,
                    port,
                    questions,
                    watchdog,
                    directory,
                });
            }
        }
        bail!("found no free port for PostgreSQL")
    }

    /// The server's version, such as `17.11`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A directory for whatever should vanish together with the server.
    pub(crate) fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// The directory of its unix socket: what `psql -h` wants. Every user is trusted there.
    #[must_use]
    pub fn socket_directory(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// The unix socket itself.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_path(self.directory.path(), self.port)
    }

    /// The port of its socket's name and of its TCP listener.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens by TCP, without TLS, for password logins.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Ends the server and waits for its end.
    pub(crate) fn stop(&self) {
        drop(
            self.watchdog
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Runs SQL as superuser on a connection of its own. Rows are lines, columns are separated by `|`, NULL is empty.
    ///
    /// # Errors
    /// What the server answered, as `SQLSTATE: message`.
    pub fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let rows = Connection::connect(&self.socket(), SUPERUSER, database)?.query(sql)?;
        let lines = rows
            .into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>());
        Ok(lines
            .map(|values| values.join("|"))
            .collect::<Vec<_>>()
            .join("\n"))
    }

    /// Whether the role is a member of `rds_iam`, directly or by way of others. Unknown roles aren't.
    pub(crate) fn is_iam_user(&self, role: &str) -> anyhow::Result<bool> {
        let question = format!(
            "WITH RECURSIVE held AS (SELECT oid FROM pg_roles WHERE rolname = {} \
             UNION SELECT roleid FROM pg_auth_members JOIN held ON member = held.oid) \
             SELECT 1 FROM held JOIN pg_roles USING (oid) WHERE rolname = 'rds_iam'",
            literal(role)
        );
        let mut kept = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        // A test may have ended the kept one together with others; then a new one is asked.
        let answer = kept
            .take()
            .and_then(|mut connection| Some((connection.query(&question).ok()?, connection)));
        let (rows, connection) = match answer {
            Some(answer) => answer,
            None => {
                let mut connection = Connection::connect(&self.socket(), SUPERUSER, "postgres")?;
                (connection.query(&question)?, connection)
            }
        };
        *kept = Some(connection);
        Ok(!rows.is_empty())
    }
}

/// The shell that ends the server when this process ends.
#[derive(Debug)]
struct Watchdog {
    child: Child,
    /// Its closing is the sign to stop.
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn start(install: &Install, directory: &Path) -> anyhow::Result<Self> {
        let log = fs::File::create(directory.join("log"))?;
        let mut shell = install.as_server_user(Command::new("/bin/sh"));
        shell
            .args(["-c", WATCHDOG, "postern-lab-watchdog"])
            .arg(install.program("postgres"))
            .arg(directory);
        // A group of its own: Ctrl-C in a terminal must reach the lab, which then stops the server in order.
        shell
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = shell.spawn().context("can't start a shell")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// False when the server ended because somebody else took its port.
    fn wait_until_ready(&mut self, socket: &Path, directory: &Path) -> anyhow::Result<bool> {
        let started = Instant::now();
        loop {
            let answer = Connection::connect(socket, SUPERUSER, "postgres");
            let Err(error) = answer else { return Ok(true) };
            let ended = self.child.try_wait()?.is_some();
            if ended || started.elapsed() > START_DEADLINE {
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                if ended && log.contains("Address already in use") {
                    return Ok(false);
                }
                bail!("PostgreSQL doesn't start ({error}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Nothing to be done about an error here; the shell ends by itself.
        let _ended = self.child.wait();
    }
}

/// A directory whose sockets' names fit into the 108 bytes that there are for them.
fn new_directory() -> anyhow::Result<TempDir> {
    let mut parent = std::env::temp_dir();
    if parent.as_os_str().len() > 60 {
        parent = PathBuf::from("/tmp");
    }
    tempfile::Builder::new()
        .prefix("postern-lab-")
        .tempdir_in(parent)
        .context("no temporary directory")
}

fn socket_path(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!("s/.s.PGSQL.{port}"))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn settings(config: &PostgresConfig, port: u16, sockets: &Path) -> String {
    let mut text = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = {}\nmax_connections = {}\n{SETTINGS}",
        literal(&sockets.display().to_string()),
        config.max_connections
    );
    for (name, value) in &config.settings {
        text.push_str(&format!("{name} = {}\n", literal(value)));
    }
    text
}

/// Speed before durability; little memory; and shared memory where it vanishes with the directory.
const SETTINGS: &str = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nshared_buffers = '32MB'\n\
    dynamic_shared_memory_type = mmap\njit = off\npassword_encryption = 'scram-sha-256'\ntimezone = 'UTC'\n\
    log_timezone = 'UTC'\n";

const HBA: &str = "\nlocal all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// $1 is the server program, $2 the lab's directory. Stdin ends when the lab does.
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
"$1" -D "$2/data" 3<&- &
server=$!
( read -r _ <&3; : >"$2/ending"; kill -QUIT "$server" ) &
reader=$!
exec 3<&-
wait "$server"
status=$?
if [ -e "$2/ending" ]; then rm -rf "$2"; else kill "$reader"; fi
exit "$status"
"#;
const PORT_ATTEMPTS: u32 = 5;
const START_DEADLINE: Duration = Duration::from_secs(60);
