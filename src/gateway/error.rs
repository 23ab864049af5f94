//! Everything that Postern itself tells a client when something goes wrong: one closed list.
//!
//! Each kind has one SQLSTATE and one metric label. A client sees the texts that are written here, with names from its
//! own request or from the configuration in them, and what a server said about the client's own request; source chains
//! go to the log. Nothing here implements `From<anyhow::Error>` or takes an arbitrary error, on purpose.

use super::deadlines::Late;
use super::offers::Offers;
use super::presence::{Ending, Presence};
use crate::identity::Principal;
use crate::identity::ssm::Unattributed;
use crate::identity::sts::Accepts;
use crate::ids::PoolKey;
use crate::pin::Reason;
use crate::session::statements::MAX_STATEMENT_BYTES;
use crate::upstream::connection::SettingsError;
use crate::upstream::error::OpenError;
use crate::upstream::pool::LeaseError;
use crate::wire::frame::BadLength;
use crate::wire::options::UnsupportedSwitch;
use crate::wire::reply::{Report, Severity};
use crate::wire::sqlstate::{self, SqlState};
use crate::wire::startup::BadOpening;

/// The kinds of errors; the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The client broke the protocol.
    Protocol,
    /// The client asks for something that isn't there.
    Unsupported,
    /// The login took too long.
    LoginTimeout,
    /// The password is wrong, or the user unknown.
    Authentication,
    /// It can't be told who it is.
    Unattributed,
    /// It can't be told which target is meant.
    NoTarget,
    /// No rule lets this principal in there.
    NotAdmitted,
    /// It couldn't be recorded in the audit log.
    NoAudit,
    /// More clients than are allowed.
    TooManyClients,
    /// No server connection came free in time.
    PoolTimeout,
    /// No server connection can be opened.
    Unavailable,
    /// The server refused a setting that the client asked for.
    Setting,
    /// The server connection was lost under the client.
    ServerLost,
    /// A query or transaction of the client's, or a pause, took too long.
    Late,
    /// It was killed, or the rules were changed.
    Ended,
    /// Postern is going down.
    Shutdown,
    /// A defect of Postern.
    Internal,
}

impl ErrorKind {
    /// All of them, so that metrics can begin at zero.
    pub const ALL: [Self; 17] = [
        Self::Protocol,
        Self::Unsupported,
        Self::LoginTimeout,
        Self::Authentication,
        Self::Unattributed,
        Self::NoTarget,
        Self::NotAdmitted,
        Self::NoAudit,
        Self::TooManyClients,
        Self::PoolTimeout,
        Self::Unavailable,
        Self::Setting,
        Self::ServerLost,
        Self::Late,
        Self::Ended,
        Self::Shutdown,
        Self::Internal,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Unsupported => "unsupported",
            Self::LoginTimeout => "login_timeout",
            Self::Authentication => "authentication",
            Self::Unattributed => "unattributed",
            Self::NoTarget => "no_target",
            Self::NotAdmitted => "not_admitted",
            Self::NoAudit => "no_audit",
            Self::TooManyClients => "too_many_clients",
            Self::PoolTimeout => "pool_timeout",
            Self::Unavailable => "unavailable",
            Self::Setting => "setting",
            Self::ServerLost => "server_lost",
            Self::Late => "late",
            Self::Ended => "ended",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }

    fn state(self) -> SqlState {
        match self {
            Self::Protocol => sqlstate::PROTOCOL_VIOLATION,
            Self::Unsupported => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::LoginTimeout | Self::ServerLost => sqlstate::CONNECTION_FAILURE,
            Self::Authentication => sqlstate::INVALID_PASSWORD,
            Self::NoTarget => sqlstate::INVALID_CATALOG_NAME,
            Self::Unattributed | Self::NotAdmitted => sqlstate::INVALID_AUTHORIZATION,
            Self::TooManyClients | Self::PoolTimeout => sqlstate::TOO_MANY_CONNECTIONS,
            Self::NoAudit => sqlstate::IO_ERROR,
            Self::Unavailable => sqlstate::UNABLE_TO_CONNECT,
            Self::Setting => sqlstate::INVALID_PARAMETER_VALUE,
            Self::Late => sqlstate::QUERY_CANCELED,
            Self::Ended | Self::Shutdown => sqlstate::ADMIN_SHUTDOWN,
            Self::Internal => sqlstate::INTERNAL_ERROR,
        }
    }
}

/// An error as a client sees it. It ends the client's connection.
#[derive(Clone, Debug)]
pub(super) struct ClientError {
    pub(super) kind: ErrorKind,
    pub(super) report: Report,
}

impl ClientError {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let report = Report {
            severity: Severity::Fatal,
            state: kind.state(),
            message: cut(message.into(), MAX_TEXT_BYTES),
            detail: None,
            hint: None,
        };
        Self { kind, report }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.report.detail = Some(cut(detail.into(), MAX_TEXT_BYTES));
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.report.hint = Some(cut(hint.into().trim_end().to_owned(), MAX_TEXT_BYTES));
        self
    }

    pub(super) fn opening(error: &BadOpening) -> Self {
        match error {
            BadOpening::Version { .. } => Self::new(ErrorKind::Unsupported, error.to_string()),
            error => Self::new(ErrorKind::Protocol, error.to_string()),
        }
    }

    pub(super) fn early_bytes() -> Self {
        Self::new(ErrorKind::Protocol, "received unencrypted data after a request for encryption")
            .detail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
    }

    pub(super) fn unexpected(what: &str) -> Self {
        Self::new(ErrorKind::Protocol, format!("unexpected {what}"))
    }

    pub(super) fn no_alpn() -> Self {
        Self::new(
            ErrorKind::Protocol,
            "received direct SSL connection request without ALPN protocol negotiation extension",
        )
    }

    pub(super) fn bad_length(error: BadLength) -> Self {
        Self::new(ErrorKind::Protocol, format!("invalid message length: {error}")).hint(
            "The client sent something that isn't PostgreSQL's protocol, or a message was cut; reconnect.",
        )
    }

    pub(super) fn bad_type(tag: u8) -> Self {
        Self::new(
            ErrorKind::Protocol,
            format!("invalid frontend message type {tag}"),
        )
        .hint("The client sent something that isn't PostgreSQL's protocol; reconnect.")
    }

    pub(super) fn too_much() -> Self {
        Self::new(ErrorKind::Protocol, "too many messages without an answer")
            .hint("End pipelines with Sync, and read the answers before sending more.")
    }

    pub(super) fn channel_binding(message: &str) -> Self {
        let mut error = Self::new(ErrorKind::Authentication, message).hint(
            "Somebody may stand between the client and this gateway; or the client's library is at fault.",
        );
        error.report.state = sqlstate::INVALID_AUTHORIZATION;
        error
    }

    pub(super) fn replication() -> Self {
        Self::new(ErrorKind::Unsupported, "replication connections are not supported")
            .detail("RDS doesn't accept IAM logins for replication unless rds.iam_auth_for_replication is set, and a replication connection can't be pooled.")
            .hint("Connect to the database directly for replication.")
    }

    pub(super) fn switch(error: &UnsupportedSwitch) -> Self {
        Self::new(ErrorKind::Unsupported, error.to_string())
            .hint("In \"options\", only settings are supported: -c name=value or --name=value.")
    }

    pub(super) fn no_user() -> Self {
        Self::new(
            ErrorKind::Protocol,
            "no PostgreSQL user name specified in startup packet",
        )
    }

    pub(super) fn login_timeout() -> Self {
        Self::new(ErrorKind::LoginTimeout, "the login took too long")
            .detail("The client didn't answer in time.")
            .hint("Connect again; see listen.login_timeout.")
    }

    pub(super) fn authentication(user: &str) -> Self {
        Self::new(
            ErrorKind::Authentication,
            format!("password authentication failed for user \"{user}\""),
        )
    }

    pub(super) fn no_target(offers: &Offers) -> Self {
        Self::new(ErrorKind::NoTarget, "it is not clear which target is meant")
            .detail("There is more than one, and neither the connection's server name nor its parameters name one.")
            .hint(format!(
                "Connect to the database TARGET/DATABASE, or set options=-cpostern.target=TARGET. {offers}"
            ))
    }

    pub(super) fn absent(target: &str, reason: &str) -> Self {
        let target = cut(target.to_owned(), MAX_NAME_BYTES);
        Self::new(
            ErrorKind::Unavailable,
            format!("it isn't known where the database of target \"{target}\" is"),
        )
        .detail(format!("{reason}."))
        .hint("RDS is asked again within a minute or so. `postern check` on the gateway's host says what is wrong.")
    }

    pub(super) fn unproved(reason: &str, accepts: &Accepts) -> Self {
        Self::new(
            ErrorKind::Authentication,
            "the password doesn't prove who this connection is from",
        )
        .detail(format!("{reason}."))
        .hint(format!(
            "Make one with your AWS credentials and connect with it within a minute: PGPASSWORD=\"$(postern connect --print-password \
             --gateway {} --region {})\" psql …",
            accepts.gateway,
            accepts.regions.first().map_or("", String::as_str)
        ))
    }

    pub(super) fn unencrypted() -> Self {
        Self::new(
            ErrorKind::Unsupported,
            "a password is only asked for over TLS, or over loopback",
        )
        .hint("Connect with sslmode=require, or better with verify-full.")
    }

    pub(super) fn unattributed(reason: &Unattributed) -> Self {
        let hint = match reason {
            Unattributed::NoHelper { .. } => {
                "Ask whoever runs this gateway to see to it that `postern attribute` runs and listens at identity.ssm.socket."
            }
            _ => {
                "Connect through a session of Session Manager that leads to this port: aws ssm start-session --target INSTANCE \
                 --document-name AWS-StartPortForwardingSession --parameters portNumber=PORT,localPortNumber=PORT"
            }
        };
        Self::new(
            ErrorKind::Unattributed,
            "it can't be told who this connection is from",
        )
        .detail(format!("{}.", reason.told()))
        .hint(hint)
    }

    /// `asked`: the target, the database and the user.
    pub(super) fn not_admitted(principal: &Principal, asked: [&str; 3], offers: &Offers) -> Self {
        let [target, database, user] = asked.map(|name| cut(name.to_owned(), MAX_NAME_BYTES));
        Self::new(
            ErrorKind::NotAdmitted,
            format!("no rule admits this connection to database \"{database}\" as user \"{user}\""),
        )
        .detail(format!(
            "Principal \"{principal}\", target \"{target}\", database \"{database}\", user \"{user}\"."
        ))
        .hint(format!(
            "Check how they are spelt, or ask whoever runs this gateway for a rule with these four. {offers}"
        ))
    }

    pub(super) fn disabled() -> Self {
        Self::new(ErrorKind::Unavailable, "this database is disabled")
            .detail("Whoever runs this gateway has it disabled, for the time being, at its console.")
            .hint("Try again later, or ask them.")
    }

    pub(super) fn too_many_clients(limit: usize) -> Self {
        Self::new(ErrorKind::TooManyClients, "sorry, too many clients already")
            .detail(format!(
                "This gateway takes {limit} client connections (listen.max_clients)."
            ))
            .hint("Close connections that aren't used, or try again in a moment.")
    }

    pub(super) fn no_audit() -> Self {
        Self::new(ErrorKind::NoAudit, "logins can't be recorded in the audit log, and so nobody is let in")
            .detail("The audit log can't be written, or as many events wait for that as may (audit.on_full = \"refuse-logins\").")
            .hint("Ask whoever runs this gateway to make room on the disk of audit.file.")
    }

    pub(super) fn too_many_of(principal: &Principal, rule: usize, most: usize) -> Self {
        Self::new(ErrorKind::TooManyClients, "too many connections for this principal")
            .detail(format!(
                "Principal \"{principal}\" has {most} client connections already, as many as rules[{rule}].max_clients allows."
            ))
            .hint("Close connections that aren't used, or ask whoever runs this gateway for more.")
    }

    pub(super) fn too_many_of_session(session: &str, rule: usize, most: usize) -> Self {
        Self::new(ErrorKind::TooManyClients, "too many connections through this session of Session Manager")
            .detail(format!(
                "Session \"{session}\" has {most} client connections already, as many as rules[{rule}].max_clients_per_session allows."
            ))
            .hint("Close connections that aren't used, or ask whoever runs this gateway for more.")
    }

    pub(super) fn too_many_at_console(most: usize) -> Self {
        Self::new(ErrorKind::TooManyClients, "too many connections to the console")
            .detail(format!("There are {most} already, as many as there may be."))
            .hint("Close one that isn't used.")
    }

    pub(super) fn read_only_unseen() -> Self {
        Self::new(ErrorKind::Unsupported, "this database can't be held to reading only")
            .detail("The rule that admits this connection says read_only, which takes PostgreSQL 14 or later.")
            .hint("Ask whoever runs this gateway for a rule without read_only, with a database user that may only read.")
    }

    pub(super) fn unread() -> Self {
        Self::new(ErrorKind::Unsupported, "a request can't be judged by this gateway")
            .detail(format!(
                "The rule that admits this connection says read_only. A statement of more than {MAX_STATEMENT_BYTES} bytes isn't judged, nor \
                 are long requests and function calls behind the end of a transaction in the same pipeline."
            ))
            .hint("Send the statement in parts, or its values as parameters, and a Sync after the end of a transaction.")
    }

    pub(super) fn writable() -> Self {
        Self::new(ErrorKind::Unsupported, "this connection can't be held to reading only any more")
            .detail("The rule that admits it says read_only; default_transaction_read_only was switched off, and setting it back failed.")
            .hint("Reconnect, and leave that setting, and timeouts of a few milliseconds, alone.")
    }

    pub(super) fn lease(error: &LeaseError, user: &str) -> Self {
        match error {
            LeaseError::Open(error) => Self::open(error, user),
            LeaseError::TimedOut(_, Some(error)) => Self::open(error, user),
            LeaseError::TimedOut(waited, None) => Self::new(
                ErrorKind::PoolTimeout,
                "no server connection came free in time",
            )
            .detail(format!(
                "For {waited:?}, all connections of this pool were in use or still being opened."
            ))
            .hint(
                "Close connections that aren't used, try again in a moment, or have the pool's size raised.",
            ),
        }
    }

    fn open(error: &OpenError, user: &str) -> Self {
        Self::new(ErrorKind::Unavailable, "cannot connect to the database")
            .detail(format!("{error}."))
            .hint(error.hint(user))
    }

    pub(super) fn settings(error: &SettingsError) -> Self {
        match error {
            SettingsError::Refused { state, message } => {
                let mut error = Self::new(ErrorKind::Setting, message.clone())
                    .detail(format!(
                        "The server refused a parameter of the connection (SQLSTATE {state})."
                    ))
                    .hint("Check the connection's parameters, PGOPTIONS among them.");
                error.report.state = sqlstate::of_setting(state);
                error
            }
            SettingsError::Broken(_) => Self::server_lost(),
        }
    }

    pub(super) fn not_shareable(reason: Reason) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("{} can't be kept in this pool mode", reason.text()),
        )
        .detail("In the mode \"transaction\" a client keeps no server connection after its transaction.")
        .hint("Have the mode of this database's or user's pool set to \"auto\" or \"session\" (targets[].pools, or pool.mode).")
    }

    pub(super) fn server_lost() -> Self {
        Self::new(ErrorKind::ServerLost, "the connection to the database was lost")
            .detail("What the last statement did, if it wasn't answered, isn't known.")
            .hint("Reconnect, and check before repeating a statement that changes something.")
    }

    pub(super) fn late(late: Late) -> Self {
        let (state, message, key) = match late {
            Late::Query => (
                sqlstate::QUERY_CANCELED,
                "terminating connection due to query timeout: the server hasn't heeded the cancel request",
                "timeouts.query",
            ),
            Late::Transaction => (
                sqlstate::TRANSACTION_TIMEOUT,
                "terminating connection due to transaction timeout",
                "timeouts.transaction",
            ),
            Late::IdleInTransaction => (
                sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                "terminating connection due to idle-in-transaction timeout",
                "timeouts.idle_in_transaction",
            ),
            Late::ClientIdle => (
                sqlstate::IDLE_SESSION_TIMEOUT,
                "terminating connection due to idle-session timeout",
                "timeouts.client_idle",
            ),
            Late::Session => (
                sqlstate::ADMIN_SHUTDOWN,
                "terminating connection due to the length of the session",
                "max_duration or the hours of the rule that admits you",
            ),
        };
        let mut error = Self::new(ErrorKind::Late, message)
            .detail(format!("This gateway's {key} has passed."))
            .hint("Reconnect; an open transaction was rolled back.");
        error.report.state = state;
        error
    }

    pub(super) fn shutdown() -> Self {
        Self::new(
            ErrorKind::Shutdown,
            "terminating connection because this gateway is going down",
        )
        .hint("Reconnect.")
    }

    pub(super) fn ended(ending: Ending, presence: &Presence) -> Self {
        let (message, hint) = match ending {
            Ending::Killed => (
                "terminating connection due to administrator command",
                "Ask whoever runs this gateway, or reconnect.",
            ),
            Ending::NotAdmitted => (
                "terminating connection because no rule admits it any more",
                "The rules of this gateway were changed; ask whoever runs it.",
            ),
            Ending::OtherTerms => (
                "terminating connection because the rule that admits it was changed",
                "Reconnect; what the rule says now counts then.",
            ),
            Ending::NoTarget => (
                "terminating connection because its database isn't configured any more",
                "Ask whoever runs this gateway; its configuration was changed.",
            ),
            Ending::Moved => (
                "terminating connection because its database is elsewhere now",
                "Reconnect; the configuration of this gateway was changed.",
            ),
            Ending::Drained => (
                "terminating connection because its database is drained",
                "Whoever runs this gateway wants it free of clients for the time being; try again later.",
            ),
        };
        let PoolKey {
            target,
            database,
            user,
        } = &presence.pool;
        Self::new(ErrorKind::Ended, message)
            .detail(format!(
                "Principal \"{}\", target \"{target}\", database \"{database}\", user \"{user}\".",
                presence.principal
            ))
            .hint(hint)
    }

    pub(super) fn internal() -> Self {
        Self::new(ErrorKind::Internal, "internal error of the gateway")
            .hint("Reconnect, and report it with the gateway's log.")
    }
}

/// A client chooses what its request is called, and may choose 10,000 bytes of it before anybody knows who it is. An
/// error's text also waits in the log's queue, so it is bounded.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// The longest text of an error.
const MAX_TEXT_BYTES: usize = 500;

/// The longest name in one; PostgreSQL's own are 63 bytes at most.
const MAX_NAME_BYTES: usize = 80;

/// The notice to a client that waits.
pub(super) fn waiting_notice() -> Report {
    Report {
        severity: Severity::Notice,
        state: sqlstate::SUCCESSFUL_COMPLETION,
        message: "waiting for a database connection".to_owned(),
        detail: Some("All connections of this pool are in use, or new ones are being opened.".to_owned()),
        hint: None,
    }
}
