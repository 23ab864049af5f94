//! Sessions of Session Manager: what the agent of SSM keeps about one, and whose it is.
//!
//! The agent writes a file for each session while it lives (`docmanager.go`, `PersistDocumentState`, of amazon-ssm-agent). Its form is
//! the agent's own business and may change, so a key that is missing here is missing knowledge, and missing knowledge refuses.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::iam::{BadArn, IamPrincipal};

/// The longest session id (`DescribeSessions`, `SessionId`: at most 96 characters).
const MAX_ID_BYTES: usize = 96;

/// A session that a connection came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsmSession {
    /// Its id: a name that the caller has chosen, `-`, and what AWS adds.
    pub id: Arc<str>,
    /// The document that it was started with.
    pub document: Arc<str>,
    /// Who has started it.
    pub owner: IamPrincipal,
}

/// What is known of a connection: facts of the kernel's, and what the agent's file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The session id, from the command line of the worker that has the other end.
    pub session: String,
    /// The worker.
    pub pid: u32,
    /// What the agent's file says of the session, if it can be used.
    pub record: Result<Record, Unattributed>,
}

/// What Session Manager says of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// ARN of who has started it.
    pub owner: String,
    /// Its document.
    pub document: String,
}

/// What is used of an agent's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The session that it is about.
    pub session: String,
    /// Its document.
    pub document: String,
    /// ARN of who has started it.
    pub owner: String,
    /// The worker.
    pub pid: u32,
    /// The port that the document leads to.
    pub port: String,
}

/// The longest text that is taken from an agent's file. ARNs have at most 256 characters.
const MAX_FIELD_BYTES: usize = 512;

/// Why nobody is behind a connection as far as Session Manager goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unattributed {
    /// The other end is of a process that isn't root's.
    NotRoot {
        /// Whose it is.
        uid: u32,
    },
    /// The other end is on another host.
    OtherHost,
    /// The other end was gone before anybody could look.
    Gone,
    /// The other end is no worker of the agent.
    NotAWorker,
    /// It calls itself one, and its executable isn't one of the agent's.
    Executable {
        /// What it is.
        path: String,
    },
    /// Its command line has no session id.
    SessionId,
    /// The agent keeps no file about the session.
    NoRecord,
    /// There is such a file, and it can't be used.
    BadRecord {
        /// Why.
        reason: String,
    },
    /// The file is about another session or another process.
    OtherSession,
    /// The session leads to another port.
    OtherPort {
        /// Which.
        port: String,
    },
    /// The session was started with a document that isn't allowed.
    Document {
        /// Which.
        name: String,
    },
    /// The file names nobody who may be let in.
    Owner {
        /// What is wrong with whom it names.
        reason: String,
    },
    /// Session Manager knows no such session, or none that is active.
    NotListed,
    /// Session Manager and the agent's file say different things.
    Contradicted,
    /// Session Manager can't be asked.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The process that looks things up doesn't answer.
    NoHelper {
        /// What happened instead.
        reason: String,
    },
}

/// How the agent writes its file. Every key may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct File {
    document_information: Information,
    instance_plugins_information: Vec<Plugin>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Information {
    #[serde(rename = "DocumentID")]
    document_id: String,
    document_name: String,
    session_owner: String,
    proc_info: ProcInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ProcInfo {
    pid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Plugin {
    configuration: Configuration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Configuration {
    plugin_name: String,
    properties: Properties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Properties {
    #[serde(rename = "portNumber")]
    port_number: String,
}

impl Record {
    /// Reads the agent's file.
    pub fn parse(json: &[u8]) -> Result<Self, Unattributed> {
        let file: File = serde_json::from_slice(json).map_err(|error| Unattributed::BadRecord {
            reason: format!(
                "it isn't as it should be, in line {} column {}",
                error.line(),
                error.column()
            ),
        })?;
        let information = file.document_information;
        let plugins = file.instance_plugins_information.into_iter();
        let port = plugins
            .map(|plugin| plugin.configuration)
            .find(|configuration| configuration.plugin_name == "Port")
            .map(|configuration| configuration.properties.port_number);
        let record = Self {
            session: information.document_id,
            document: information.document_name,
            owner: information.session_owner,
            pid: information.proc_info.pid,
            port: port.unwrap_or_default(),
        };
        let fields = [&record.session, &record.document, &record.owner, &record.port];
        if fields.iter().any(|field| field.len() > MAX_FIELD_BYTES) {
            // Who starts the session chooses the port, as far as the document lets him.
            return Err(Unattributed::BadRecord {
                reason: format!("it has something in it that is longer than {MAX_FIELD_BYTES} bytes"),
            });
        }
        Ok(record)
    }
}

impl Facts {
    /// The session that these show a connection to `port` to have come through; `allows` says which documents are.
    pub fn attribute(self, port: u16, allows: impl Fn(&str) -> bool) -> Result<SsmSession, Unattributed> {
        let Self { session, pid, record } = self;
        let record = record?;
        if record.session != session || record.pid != pid {
            return Err(Unattributed::OtherSession);
        }
        if record.port.parse() != Ok(port) {
            return Err(Unattributed::OtherPort { port: record.port });
        }
        SsmSession::of(session, record.document, &record.owner, allows)
    }

    /// The session as Session Manager has `described` it, whatever the agent's file says.
    pub fn attribute_to(
        self,
        described: Described,
        allows: impl Fn(&str) -> bool,
    ) -> Result<SsmSession, Unattributed> {
        SsmSession::of(self.session, described.document, &described.owner, allows)
    }
}

impl SsmSession {
    fn of(
        id: String,
        document: String,
        owner: &str,
        allows: impl Fn(&str) -> bool,
    ) -> Result<Self, Unattributed> {
        if !allows(&document) {
            return Err(Unattributed::Document { name: document });
        }
        let owner = IamPrincipal::parse(owner).map_err(|error| Unattributed::Owner {
            reason: match error {
                BadArn::Malformed if owner.is_empty() => "nobody is written down".to_owned(),
                error => format!("{owner:?}: {error}"),
            },
        })?;
        Ok(Self {
            id: id.into(),
            document: document.into(),
            owner,
        })
    }

    /// The same, if Session Manager has `described` it so.
    pub fn if_described(self, described: &Described) -> Result<Self, Unattributed> {
        let is_same = described.owner == self.owner.arn() && described.document == *self.document;
        is_same.then_some(self).ok_or(Unattributed::Contradicted)
    }

    /// Whether AWS says that whoever has started this one has started that one, too: of a name that can be chosen it is the session
    /// that says so.
    pub fn is_of_same_person(&self, other: &Self) -> bool {
        self.owner == other.owner && (self.owner.is_person_vouched_for() || self.id == other.id)
    }
}

/// Whether `text` is a session id, so that it can be the name of a file, too.
pub fn is_session_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(is_allowed)
        && !text.starts_with('.')
        && text.contains('-')
}

impl Unattributed {
    /// Every label.
    pub const LABELS: [&str; 16] = [
        "other_host",
        "not_root",
        "gone",
        "not_a_worker",
        "executable",
        "session_id",
        "no_record",
        "bad_record",
        "other_session",
        "other_port",
        "document",
        "owner",
        "not_listed",
        "contradicted",
        "unavailable",
        "no_helper",
    ];

    /// Whether it may be otherwise soon.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoHelper { .. } | Self::Unavailable { .. })
    }

    /// Whether nobody can say now where the connection comes from.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::NoHelper { .. })
    }

    /// Whether the connection is known not to come through Session Manager, so that it may be asked otherwise who it is.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::NotRoot { .. } | Self::NotAWorker | Self::OtherHost)
    }

    /// What the client may know: nothing of this host's files.
    pub fn told(&self) -> String {
        match self {
            Self::Executable { .. } => {
                "the connection comes from a process that calls itself a session worker and isn't the agent's"
                    .to_owned()
            }
            Self::BadRecord { .. } => "the file of SSM's agent about the session can't be used".to_owned(),
            Self::Unavailable { .. } => "Session Manager can't be asked".to_owned(),
            Self::NoHelper { .. } => "`postern attribute` doesn't answer".to_owned(),
            reason => reason.to_string(),
        }
    }

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotRoot { .. } => "not_root",
            Self::OtherHost => "other_host",
            Self::Gone => "gone",
            Self::NotAWorker => "not_a_worker",
            Self::Executable { .. } => "executable",
            Self::SessionId => "session_id",
            Self::NoRecord => "no_record",
            Self::BadRecord { .. } => "bad_record",
            Self::OtherSession => "other_session",
            Self::OtherPort { .. } => "other_port",
            Self::Document { .. } => "document",
            Self::Owner { .. } => "owner",
            Self::NotListed => "not_listed",
            Self::Contradicted => "contradicted",
            Self::Unavailable { .. } => "unavailable",
            Self::NoHelper { .. } => "no_helper",
        }
    }
}

impl fmt::Display for Unattributed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot { uid } => write!(
                f,
                "the connection comes from a process of user {uid} and not from SSM's agent"
            ),
            Self::OtherHost => f.write_str("the connection comes from another host"),
            Self::Gone => {
                f.write_str("the other end of the connection was gone before it could be looked at")
            }
            Self::NotAWorker => {
                f.write_str("the connection doesn't come from a session worker of SSM's agent")
            }
            Self::Executable { path } => write!(
                f,
                "the connection comes from {path:?}, which isn't a session worker of SSM's agent"
            ),
            Self::SessionId => {
                f.write_str("the session worker of SSM's agent doesn't say which session it serves")
            }
            Self::NoRecord => f.write_str("SSM's agent keeps no file about the session"),
            Self::BadRecord { reason } => write!(
                f,
                "the file of SSM's agent about the session can't be used: {reason}"
            ),
            Self::OtherSession => {
                f.write_str("the file of SSM's agent is about another session or another process")
            }
            Self::OtherPort { port } => write!(f, "the session leads to port {port:?} and not here"),
            Self::Document { name } => write!(
                f,
                "the session was started with document {name:?}, which identity.ssm.documents doesn't allow"
            ),
            Self::Owner { reason } => write!(f, "it isn't known who has started the session: {reason}"),
            Self::NotListed => f.write_str("Session Manager lists no such session as active"),
            Self::Contradicted => f.write_str(
                "Session Manager names another owner or document of the session than the file of SSM's agent",
            ),
            Self::Unavailable { reason } => write!(f, "Session Manager can't be asked: {reason}"),
            Self::NoHelper { reason } => write!(f, "`postern attribute` doesn't answer: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests;
