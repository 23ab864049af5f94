//! When connections are given back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a client gives its server connection back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// When it disconnects.
    Session,
    /// When its transaction is over. What needs a connection beyond that is refused.
    Transaction,
    /// When its transaction is over and nothing is left that ties it to the connection.
    Auto,
}

impl PoolMode {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Auto => "auto",
        }
    }
}
