//! What is recorded.

use serde::Serialize;

/// Something that has happened, with the fields of its line in the order in which they stand there. `session` is the client
/// connection, as in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The gateway has begun to record.
    Start {
        /// Its version.
        version: String,
        /// The process.
        pid: u32,
        /// Whether what recorded here before has said that it stops. If not, the last of what it knew may be missing. Nothing if nothing
        /// is recorded here yet.
        clean: Option<bool>,
    },
    /// The file before this one was moved away.
    Reopened,
    /// The gateway stops, and all that it has recorded is written.
    Stop,
    /// A client is in.
    Login {
        /// Which.
        session: String,
        /// Who it is, as rules see it: an ARN, `scram:NAME` or `trust:`.
        principal: String,
        /// The human or program, as `application_name` shows it.
        person: Option<String>,
        /// How that is known: `ssm`, `sts`, `scram` or `trust`.
        source: &'static str,
        /// The session of Session Manager that it came through.
        ssm_session: Option<String>,
        /// The document that this was started with.
        document: Option<String>,
        /// Where it came from.
        client: Option<String>,
        /// What it uses.
        target: String,
        /// What it uses.
        database: String,
        /// Whom the database takes it for.
        user: String,
        /// The rule that has admitted it, counted from 0.
        rule: usize,
    },
    /// A client wasn't let in.
    Refusal {
        /// Which.
        session: String,
        /// Where it came from.
        client: Option<String>,
        /// Why, as the metric has it.
        kind: &'static str,
        /// The SQLSTATE that it was told.
        state: &'static str,
        /// What it was told.
        message: String,
        /// The same, with whom and what it asked for.
        detail: Option<String>,
    },
    /// A cancel request came.
    Cancel {
        /// The connection that it came on.
        session: String,
        /// Where it came from.
        client: Option<String>,
        /// What became of it, as the metric has it.
        outcome: &'static str,
    },
    /// A client asks the database something, and its rule wants that recorded.
    Statement {
        /// Which.
        session: String,
        /// What.
        #[serde(flatten)]
        asked: Asked,
    },
    /// Somebody at the console has done something, and not only looked.
    Command {
        /// Which client.
        session: String,
        /// What it has written.
        command: String,
        /// What came of it.
        outcome: String,
    },
    /// The configuration was read again, and its rules count now.
    Rules {
        /// How many there are.
        rules: usize,
        /// How many clients have to go for it.
        ended: usize,
    },
    /// A client that was in is gone.
    Disconnect {
        /// Which.
        session: String,
        /// Why.
        reason: String,
        /// Bytes that it has sent.
        received: u64,
        /// Bytes that it was sent.
        sent: u64,
        /// Milliseconds since its login.
        duration_ms: u64,
    },
    /// So many events couldn't be recorded before this one.
    Lost {
        /// How many.
        count: u64,
    },
    /// So many refusals and cancels before this one aren't listed: there were too many at a time.
    Unlisted {
        /// How many.
        count: u64,
    },
}

impl Event {
    /// How many bytes of a statement's it has.
    pub(super) fn statement_bytes(&self) -> u64 {
        match self {
            Self::Statement { asked, .. } => asked.text.as_ref().map_or(0, String::len) as u64,
            _ => 0,
        }
    }
}

/// What a client asks the database. What doesn't apply isn't there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// `query`, `parse`, `execute`, `copy_done`, `copy_fail` or `function_call`.
    pub kind: &'static str,
    /// Of the prepared statement, or of the portal; empty for the unnamed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The statement, as the rule wants it shown; what is longer than 8 KiB, up to there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many bytes it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// The types of its parameters that the client names, by object identifier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<u32>,
    /// Bytes that were copied in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The function's object identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<u32>,
    /// The rule doesn't let it, and the database wasn't asked.
    #[serde(rename = "refused", skip_serializing_if = "std::ops::Not::not")]
    pub is_refused: bool,
}
