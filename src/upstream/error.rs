//! Why a server connection could not be opened, by cause, and what that means for those who wait for it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::aws::credentials::NoCredentials;
use crate::aws::token::SignError;
use crate::tls;

/// A failed attempt to open a connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The endpoint's name has no address.
    #[error("cannot resolve {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nobody accepts there.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the kernel said.
        reason: String,
    },
    /// A phase took too long.
    #[error("no answer within {limit:?} while {phase}")]
    Timeout {
        /// What was under way.
        phase: Phase,
        /// Its deadline.
        limit: Duration,
    },
    /// The server doesn't speak TLS.
    #[error("the server refuses TLS")]
    TlsRefused,
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] tls::Failure),
    /// There is nothing to sign a token with.
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    /// The token can't be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The login budget didn't come round in time.
    #[error("the login budget of this endpoint was spent for {0:?}")]
    Budget(Duration),
    /// The server said no.
    #[error("the server refused the login: {message} (SQLSTATE {state})")]
    Refused {
        /// Its SQLSTATE; empty if it sent none.
        state: String,
        /// Its text.
        message: String,
        /// Whether a login of this user at this endpoint has succeeded before.
        succeeded_before: bool,
    },
    /// The server wants to know the user by other means than an IAM token.
    #[error(
        "the server asks for {0} and not for a cleartext password, which is how RDS asks for an IAM token"
    )]
    NotIam(&'static str),
    /// The server let us in without asking for anything.
    #[error("the server let us in without asking for a token")]
    NotAsked,
    /// The server said something that isn't the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The connection ended.
    #[error("the server closed the connection while {phase}: {reason}")]
    Closed {
        /// What was under way.
        phase: Phase,
        /// How it ended.
        reason: String,
    },
}

/// The phases of opening a connection; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Name resolution and TCP.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Waiting for the login budget.
    Budget,
    /// From the startup message to ReadyForQuery.
    Login,
}

impl Phase {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Budget => "budget",
            Self::Login => "login",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Tls => "negotiating TLS",
            Self::Budget => "waiting for the login budget",
            Self::Login => "logging in",
        })
    }
}

impl OpenError {
    /// Whether the next attempt will fail in the same way until somebody changes something, so that nobody should
    /// be kept waiting for it.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::TlsRefused
            | Self::Tls(_)
            | Self::Sign(_)
            | Self::NotIam(_)
            | Self::NotAsked
            | Self::Protocol(_) => true,
            Self::Refused {
                state,
                succeeded_before,
                ..
            } => match state.get(..2) {
                // Authorization: after earlier successes it is throttling or an outage (RDS says 28000 for both).
                Some("28") => !succeeded_before,
                // Too many connections, shutting down, starting up, broken pipe and the like pass.
                Some("53" | "57" | "08" | "58") => false,
                _ => true,
            },
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Credentials(_)
            | Self::Budget(_)
            | Self::Closed { .. } => false,
        }
    }

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::TlsRefused => "tls_refused",
            Self::Tls(_) => "tls",
            Self::Credentials(_) => "credentials",
            Self::Sign(_) => "sign",
            Self::Budget(_) => "budget",
            Self::Refused { .. } => "refused",
            Self::NotIam(_) => "not_iam",
            Self::NotAsked => "not_asked",
            Self::Protocol(_) => "protocol",
            Self::Closed { .. } => "closed",
        }
    }

    /// What to do about it, for the person whose client waits.
    pub fn hint(&self, user: &str) -> String {
        match self {
            Self::Resolve { .. } => "Check the target's endpoint, and the DNS of the bastion host.".to_owned(),
            Self::Connect { .. } | Self::Timeout { phase: Phase::Connect, .. } => {
                "Check that the database runs, and that its security group admits the bastion host on this port."
                    .to_owned()
            }
            Self::Timeout { .. } | Self::Budget(_) | Self::Closed { .. } => {
                "The database may be overloaded, starting or failing over; try again in a moment.".to_owned()
            }
            Self::TlsRefused => {
                "IAM logins need TLS. Check that the endpoint is RDS or Aurora itself, with nothing in between.".to_owned()
            }
            Self::Tls(tls::Failure::UnknownIssuer) => {
                "Set tls_ca_file of the target to the certificate bundle of its region (RDS Proxy and newer regions \
                 have other authorities than the built-in ones)."
                    .to_owned()
            }
            Self::Tls(tls::Failure::WrongName { .. }) => {
                "The target's endpoint must be the name that RDS itself gives it, not an alias.".to_owned()
            }
            Self::Tls(_) => "Check the server's certificate, and the clock of the bastion host.".to_owned(),
            Self::Credentials(_) => {
                "Check that the bastion host has an instance profile and that IMDSv2 answers on it.".to_owned()
            }
            Self::Sign(_) => "Check the database user's name.".to_owned(),
            Self::Refused { state, succeeded_before: true, .. } if state.starts_with("28") => {
                "It has worked before: RDS throttles IAM logins or its IAM service fails. Try again in a moment; see \
                 the CloudWatch metrics IamDbAuthConnectionFailure*."
                    .to_owned()
            }
            Self::Refused { state, .. } if state.starts_with("28P01") => {
                format!("The server wants a password from \"{user}\": GRANT rds_iam TO it.")
            }
            Self::Refused { state, .. } if state.starts_with("28") => format!(
                "In this order: the bastion's role may lack rds-db:connect as \"{user}\" on this database; IAM \
                 authentication may be off on the instance; region or endpoint of the target may be wrong; the clock \
                 may be off."
            ),
            Self::Refused { state, .. } if state.starts_with("3D") => {
                "Check the database's name in the target's configuration.".to_owned()
            }
            Self::Refused { state, .. } if state.starts_with("53") => {
                "The server has no connection left: lower the pool sizes or raise max_connections.".to_owned()
            }
            Self::Refused { .. } => "See the server's log.".to_owned(),
            Self::NotIam(_) => format!(
                "\"{user}\" is probably no member of rds_iam (GRANT rds_iam TO it), or IAM authentication is off on \
                 the instance."
            ),
            Self::NotAsked => "The endpoint is no RDS: its pg_hba.conf trusts this host.".to_owned(),
            Self::Protocol(_) => "Check that the endpoint is a PostgreSQL server.".to_owned(),
        }
    }
}
