//! The configuration file as it is written, key by key, with every default. This is the reference: the schema that
//! `postern config schema` prints is made from these comments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Written;
use crate::policy::{Console, Recorded};
use crate::pool::PoolMode;

/// A Postern configuration.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where clients connect, and what they may cost.
    #[serde(default)]
    pub listen: Listen,
    /// The HTTP server for metrics and health.
    #[serde(default)]
    pub admin: Admin,
    /// The certificate that is shown to clients. Without it, one is made at every start: that encrypts, but clients
    /// can't verify it.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Who may come in, and how they prove who they are.
    pub identity: Identity,
    /// The databases.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Who may use what: the first rule that matches decides, and nobody is let in without one.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// The log, which goes to standard error.
    #[serde(default)]
    pub log: Log,
    /// The record of who used what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// The record of who used what: a line of JSON for each login, refusal, cancel and disconnect, and for statements where a rule says so.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The file that lines are appended to, or `"-"` for standard output. If it is moved away, or at SIGHUP, another is begun.
    pub file: PathBuf,
    /// What happens while it can't be written and as many events wait as may.
    #[serde(default)]
    pub on_full: OnFull,
}

/// What happens while events can't be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// Nobody is let in; those who are in go on.
    #[default]
    RefuseLogins,
    /// They are lost, and counted.
    Drop,
}

/// Where clients connect, and what they may cost.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Addresses to listen on. The agent of SSM dials `localhost`, which may be `::1` before `127.0.0.1`: keep both.
    pub addresses: Vec<SocketAddr>,
    /// Client connections at a time. Each costs a few KiB and a file descriptor, each server connection another.
    pub max_clients: usize,
    /// From a client's first byte to the end of its login, waiting for a server connection not counted.
    pub login_timeout: Written,
    /// How long a connection on which nothing was sent yet is kept. SSM may dial long before a person connects.
    pub silent_timeout: Written,
    /// How long SIGTERM lets running transactions go on.
    pub drain_timeout: Written,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            addresses: vec![
                SocketAddr::from(([127, 0, 0, 1], 5432)),
                SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 5432)),
            ],
            max_clients: 10_000,
            login_timeout: Written::seconds(60),
            silent_timeout: Written::seconds(20 * 60),
            drain_timeout: Written::seconds(30),
        }
    }
}

/// The HTTP server for metrics and health.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where it listens: `/metrics`, `/livez`, `/readyz`, `/startupz`. `false` switches it off.
    pub http: Switchable,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            http: Switchable::At(SocketAddr::from(([127, 0, 0, 1], 9187))),
        }
    }
}

/// An address, or `false`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "an address such as \"127.0.0.1:9187\", or false")]
pub enum Switchable {
    /// Listen here.
    At(SocketAddr),
    /// `false`: don't listen. (`true` is refused: it doesn't say where.)
    Off(bool),
}

/// The certificate that is shown to clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate and what leads to its authority.
    pub certificate_file: PathBuf,
    /// PEM file with the certificate's private key.
    pub key_file: PathBuf,
}

/// Who may come in, and how they prove who they are.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `"ssm"`: whoever has started the session of Session Manager that the connection came through; the principal is an ARN.
    /// `"sts"`: whoever has signed the request to STS that is the password (`postern connect`); the principal is an ARN.
    /// `"scram"`: a password, checked against a verifier from this file; the principal is `scram:NAME`, where NAME is
    /// the user that the client asks for. `"trust"`: nobody is asked, whoever reaches the port is let in, as the
    /// principal `trust:`. With `["ssm", "sts"]` or `["ssm", "scram"]`, who doesn't come through Session Manager is asked for a password.
    pub sources: Vec<String>,
    /// For `ssm`.
    #[serde(default)]
    pub ssm: Ssm,
    /// For `sts`.
    #[serde(default)]
    pub sts: Sts,
    /// For `scram`.
    #[serde(default)]
    pub scram: Scram,
}

/// Session Manager.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ssm {
    /// Where `postern attribute` listens, the process that looks up which session a connection came through.
    pub socket: PathBuf,
    /// Documents that sessions may be started with; `*` and `?` as in rules. Rules may ask for less.
    pub documents: Vec<String>,
    /// Who says who has started a session.
    pub source: SsmSource,
    /// The region whose Session Manager is asked; that of the targets, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Who says who has started a session of Session Manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SsmSource {
    /// The file that the agent keeps on this host. No call to AWS is made.
    #[default]
    AgentState,
    /// Session Manager itself (`ssm:DescribeSessions`).
    DescribeSessions,
    /// Both must say the same.
    Both,
}

impl Default for Ssm {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/postern/attribute.sock"),
            documents: vec!["AWS-StartPortForwardingSession".to_owned()],
            source: SsmSource::default(),
            region: None,
        }
    }
}

/// Proofs that STS vouches for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sts {
    /// The gateway's name, which callers sign: what they prove to one gateway is nothing to one of another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Accounts whose principals may come, twelve digits each: in an account of his own, anybody can give roles and users any name.
    pub accounts: Vec<String>,
    /// Regions whose STS may be asked; those of the targets, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<String>>,
}

/// Passwords.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scram {
    /// Verifiers by user name, in PostgreSQL's form: `SCRAM-SHA-256$4096:salt$stored key:server key`, as
    /// `SELECT rolpassword FROM pg_authid` shows it.
    pub verifiers: BTreeMap<String, String>,
}

/// A database endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What people, rules and metrics call it. Of targets that are discovered by tags, `*` in it stands for what RDS calls each: `"*"`, `"aurora-*"`.
    pub name: String,
    /// Host, or host and port, exactly as RDS shows it: tokens are signed for it, and its certificate must name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Instead of `endpoint`: what RDS is asked for, again every minute. The host's role needs `rds:DescribeDBClusters` and
    /// `rds:DescribeDBInstances`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<Discover>,
    /// Addresses at which clients come to this target whatever else they say, beside `listen.addresses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<SocketAddr>,
    /// Dial this address instead of the endpoint's own. The certificate and the tokens are the endpoint's all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial_address: Option<SocketAddr>,
    /// Region of the endpoint. Taken from an endpoint in `….REGION.rds.amazonaws.com` if it isn't given; for `discover`, this host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// PEM file with the authorities that may sign the endpoint's certificate, instead of the built-in ones of RDS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Databases that clients may ask for.
    pub databases: Vec<String>,
    /// Database users that clients may ask for. Each must be a member of `rds_iam`, and this host's role must be
    /// allowed `rds-db:connect` as each.
    pub users: Vec<String>,
    /// The pool of each database and user.
    #[serde(default)]
    pub pool: Pool,
    /// Pools that are otherwise. For a database and user the first entry counts that names both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolOf>,
    /// How many IAM logins the endpoint is asked for.
    #[serde(default)]
    pub iam: Iam,
    /// Deadlines of connecting to it.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// What of RDS a target is: one of `cluster`, `instance` and `tags`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    /// The identifier of an Aurora or Multi-AZ cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The identifier of an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Tags, all of which a PostgreSQL cluster, or an instance of its own, must have with these values: each that has is a target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Which endpoint of a cluster; an instance has only the one.
    pub endpoint: Role,
}

/// An endpoint of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Of the instance that writes.
    #[default]
    Writer,
    /// Of the instances that only read.
    Reader,
}

/// The pool of each database and user.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// When a client gives its server connection back.
    pub mode: PoolMode,
    /// Server connections at most.
    pub size: usize,
    /// Idle server connections that are opened at the start and kept, so that nobody waits for an IAM login.
    pub min_idle: usize,
    /// How long a server connection beyond `min_idle` may be idle.
    pub idle_timeout: Written,
    /// How long a server connection is used. It outlives a token, and a permission that was taken away: this bounds
    /// by how much. Each lives up to a tenth less, by chance.
    pub lifetime: Written,
    /// How long a client waits for a server connection before it gets an error.
    pub wait_timeout: Written,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: PoolMode::Auto,
            size: 20,
            min_idle: 1,
            idle_timeout: Written::seconds(600),
            lifetime: Written::seconds(3600),
            wait_timeout: Written::seconds(60),
        }
    }
}

/// The pools of some databases and users. What isn't said is as in `pool`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolOf {
    /// These databases; without them, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// These users; without them, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// When a client gives its server connection back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PoolMode>,
    /// Server connections at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Idle server connections that are opened at the start and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_idle: Option<usize>,
    /// How long a server connection beyond `min_idle` may be idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Written>,
    /// How long a server connection is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Written>,
    /// How long a client waits for a server connection before it gets an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_timeout: Option<Written>,
}

/// How many IAM logins an endpoint is asked for. AWS advises to stay under 200 new IAM connections a second and says
/// that less may be possible with smaller instance classes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Iam {
    /// Logins in any one second, over all pools of the endpoint.
    pub logins_per_second: u32,
    /// Logins at one moment.
    pub burst: u32,
    /// Logins under way at a time.
    pub logins_in_flight: u32,
}

impl Default for Iam {
    fn default() -> Self {
        Self {
            logins_per_second: 20,
            burst: 20,
            logins_in_flight: 8,
        }
    }
}

/// Deadlines, each for its whole phase: of connecting to a server, and, if they are set, of what clients do.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Name resolution and TCP.
    pub connect: Written,
    /// The TLS handshake.
    pub tls: Written,
    /// The login. RDS can take many seconds for one when it is busy.
    pub login: Written,
    /// A cancel request, and cleaning a connection after a client.
    pub reset: Written,
    /// One query, until it is answered. It is cancelled then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Written>,
    /// One transaction, a statement outside of one included. The client's connection ends then, and what is open is
    /// rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Written>,
    /// A client's pause in a transaction. The same happens then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction: Option<Written>,
    /// A client's pause outside of one. Its connection ends then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_idle: Option<Written>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Written::seconds(5),
            tls: Written::seconds(5),
            login: Written::seconds(30),
            reset: Written::seconds(10),
            query: None,
            transaction: None,
            idle_in_transaction: None,
            client_idle: None,
        }
    }
}

/// One rule. All lists that are given must match; `*` stands for any text and `?` for one character.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Principals: ARNs (`arn:aws:sts::ACCOUNT:assumed-role/AWSReservedSSO_SET_????????????????/NAME`, `…:assumed-role/ROLE/*`,
    /// `arn:aws:iam::ACCOUNT:user/NAME`), `scram:NAME`, `trust:`.
    pub principals: Vec<String>,
    /// AWS accounts of principals, twelve digits; any if it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// Permission sets of IAM Identity Center; any principal if it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_sets: Option<Vec<String>>,
    /// Documents of Session Manager that the session was started with; any way to come in if it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Vec<String>>,
    /// Targets, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Databases; all of the target's if it isn't given.
    #[serde(default = "any")]
    pub databases: Vec<String>,
    /// Database users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Lets them use the console, the database `postern`, and is about no target: `"stats"` to look, `"admin"` to act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
    /// When it holds: `"Mon-Fri 07:00-19:00"`, `"Sat,Sun 22:00-06:00"`, `"07:00-24:00"`; always if it isn't given. Connections end with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Vec<String>>,
    /// By which clock, as `"Europe/Berlin"`; UTC if it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Client connections at a time that each principal may have by this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<usize>,
    /// The same of each session of Session Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_clients_per_session: Option<usize>,
    /// How long a connection may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Written>,
    /// Whether they may only read. PostgreSQL refuses to write then, and whatever would change that is refused (PostgreSQL 14 or later).
    #[serde(default)]
    pub read_only: bool,
    /// When they give their server connections back, if not as the pool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PoolMode>,
    /// Which of what they ask the database goes to the audit log.
    #[serde(default)]
    pub statements: Recorded,
}

fn any() -> Vec<String> {
    vec!["*".to_owned()]
}

/// The log, which goes to standard error.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Text for people, JSON for programs.
    pub format: LogFormat,
    /// `error`, `warn`, `info` or `debug`, or a filter by module as in `info,postern::upstream=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
