//! Configuration: what is typed ([`mod@file`]) becomes checked, ready values ([`Config`]) with every default explicit.
//!
//! Nothing behind this module looks at text that a person typed. A configuration that is wrong anywhere is refused
//! as a whole, and the error names the key, the value, what was expected, and the line where it can be known.

mod check;
mod discover;
pub mod duration;
mod environment;
mod error;
pub mod file;
mod identity;
mod origin;
mod rules;
mod target;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::iam::Budget;
use crate::identity::sts::Accepts;
use crate::identity::{Source, Verifier};
use crate::ids::{DatabaseName, DbUser, TargetName};
use crate::policy::{Glob, Rules};
use crate::pool::PoolMode;
use crate::tls;

pub use crate::discovery::region_of;
pub use check::CONSOLE;
pub use discover::{Absent, Discovery, Remark};
pub use error::ConfigError;
pub use origin::Origin;
pub use target::is_region;

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// Where `/metrics` and the health pages are served.
    pub admin: Option<SocketAddr>,
    /// The certificate that is shown to clients.
    pub tls: tls::Acceptor,
    /// Whether that is from files, and wasn't made for this start.
    pub has_certificate: bool,
    /// Who is let in, and how they prove who they are.
    pub identity: Identity,
    /// The databases, in the order of the file; those that are discovered come behind, once they are.
    pub targets: Vec<Arc<Target>>,
    /// Those that are to be discovered.
    pub discoveries: Arc<[Discovery]>,
    /// Those of these that aren't known.
    pub absent: Arc<[Absent]>,
    /// Who may use what.
    pub rules: Arc<Rules>,
    /// Bounds on what clients may cost.
    pub limits: Limits,
    /// How to log.
    pub log: Log,
    /// The record of who used what, if there is one.
    pub audit: Option<Audit>,
}

/// Where and how it is recorded who used what.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The file.
    pub file: PathBuf,
    /// What happens while it can't be written.
    pub on_full: file::OnFull,
}

/// Sources of identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// In the order in which they are tried.
    pub sources: Vec<Source>,
    /// Password verifiers by name, for [`Source::Scram`].
    pub verifiers: HashMap<String, Arc<Verifier>>,
    /// For [`Source::Ssm`].
    pub ssm: Ssm,
    /// For [`Source::Sts`], if that is one of them.
    pub sts: Option<Accepts>,
}

/// How sessions of Session Manager are told.
#[derive(Clone, Debug)]
pub struct Ssm {
    /// Where the helper listens.
    pub socket: PathBuf,
    /// Documents that sessions may be started with.
    pub documents: Vec<Glob>,
    /// Who says whose a session is.
    pub source: file::SsmSource,
    /// Where Session Manager is asked, if it is.
    pub region: Option<String>,
}

/// Bounds on what clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections at a time, in whatever phase.
    pub max_clients: usize,
    /// From accept to the end of the login; a client that sends nothing at all may wait longer.
    pub login_timeout: Duration,
    /// How long a connection on which nothing was ever sent is kept.
    pub silent_timeout: Duration,
    /// How long SIGTERM waits for transactions to end.
    pub drain_timeout: Duration,
}

/// How to log.
#[derive(Clone, Debug)]
pub struct Log {
    /// As text or as JSON lines.
    pub format: file::LogFormat,
    /// A filter as `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
}

/// One database endpoint.
#[derive(Clone, Debug)]
pub struct Target {
    /// What people and rules call it.
    pub name: TargetName,
    /// What tokens, SNI and the certificate name.
    pub endpoint: Endpoint,
    /// Addresses at which clients come to it whatever else they say.
    pub listen: Vec<SocketAddr>,
    /// Where to dial instead of the endpoint's own address.
    pub dial_address: Option<SocketAddr>,
    /// The region that tokens are signed for.
    pub region: String,
    /// Opens verified TLS sessions to the endpoint.
    pub tls: tls::Connector,
    /// What the file had that names the authorities, if one does.
    pub authorities: Option<Arc<[u8]>>,
    /// Databases that may be asked for.
    pub databases: Vec<DatabaseName>,
    /// Roles that may be asked for.
    pub users: Vec<DbUser>,
    /// The pool of each database and user, but for [`Self::other_pools`].
    pub pool: PoolConfig,
    /// Pools that are otherwise; the first that names the database and the user counts.
    pub other_pools: Vec<PoolOf>,
    /// The login budget of the endpoint.
    pub budget: Budget,
    /// Deadlines of connecting.
    pub timeouts: Timeouts,
}

impl Target {
    /// Whether connections to it are as good as connections to `other`: to the same server, seen to be that in the same way.
    pub fn is_where(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
            && self.dial_address == other.dial_address
            && self.region == other.region
            && self.authorities == other.authorities
    }

    /// All its pools.
    pub fn pools(&self) -> impl Iterator<Item = (&DatabaseName, &DbUser, PoolConfig)> {
        let databases = self.databases.iter();
        let pairs = databases.flat_map(|database| self.users.iter().map(move |user| (database, user)));
        pairs.map(|(database, user)| {
            let names = |of: &&PoolOf| of.databases.contains(database) && of.users.contains(user);
            let pool = self
                .other_pools
                .iter()
                .find(names)
                .map_or(self.pool, |of| of.pool);
            (database, user, pool)
        })
    }
}

/// The pools of some databases and users.
#[derive(Clone, Debug)]
pub struct PoolOf {
    /// The databases.
    pub databases: Vec<DatabaseName>,
    /// The users.
    pub users: Vec<DbUser>,
    /// How each of them behaves.
    pub pool: PoolConfig,
}

/// Host and port as RDS names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Lower-case host name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How the pools of a target behave.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// When a client gives its server connection back.
    pub mode: PoolMode,
    /// Whether what clients send is understood, so that they can give connections back between transactions: for the mode, or for a rule.
    pub is_shared: bool,
    /// Server connections at most, per database and user.
    pub size: usize,
    /// Idle server connections that are kept open, per database and user.
    pub min_idle: usize,
    /// How long a connection beyond `min_idle` may be idle.
    pub idle_timeout: Duration,
    /// How long a connection is used; each lives up to a tenth less, by chance, so that they don't end together.
    pub lifetime: Duration,
    /// How long a client waits for a connection.
    pub wait_timeout: Duration,
}

/// Deadlines of the phases of connecting to a server.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// DNS and TCP.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// From the startup message to ReadyForQuery. IAM logins take seconds under load.
    pub login: Duration,
    /// A cancel request, or cleaning a connection for its next client.
    pub reset: Duration,
    /// Those of what clients do.
    pub client: ClientTimeouts,
}

/// Deadlines of what clients do; none unless they are set.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientTimeouts {
    /// One query, until it is answered.
    pub query: Option<Duration>,
    /// One transaction, or a statement outside of one.
    pub transaction: Option<Duration>,
    /// A pause in a transaction.
    pub idle_in_transaction: Option<Duration>,
    /// A pause outside of one.
    pub client_idle: Option<Duration>,
}

impl Config {
    /// Reads a file's `text` and the `POSTERN_…` variables in `environment`.
    pub fn parse(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        check::config(&environment::read(text, environment)?)
    }

    /// Checks what was typed elsewhere than in a file.
    pub fn from_file(file: &file::File) -> Result<Self, ConfigError> {
        check::config(file)
    }
}

/// The environment's variables, as far as they are text; no other can be one of ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What the file and the environment say together, defaults written out.
pub fn effective(
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<file::File, ConfigError> {
    environment::read(text, environment)
}

#[cfg(test)]
mod tests;
