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
        /// Whether what recorded here before has said that it stops. If not, the last of what it knew may be missing.
        clean: bool,
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
