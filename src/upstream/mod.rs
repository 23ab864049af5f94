//! Connections to servers: opening them within the login budget, pooling them, cleaning them, cancelling on them.
//!
//! The way of a connection: [`gate`] (a slot) → `dial` → TLS → [`gate`] (a login of the budget) → [`tokens`] →
//! `login` → [`pool`]. A token leaves the process in `login` and nowhere else.

pub mod cancel;
mod catalog;
pub mod connection;
mod dial;
pub mod error;
pub mod gate;
mod login;
pub mod pool;
pub mod texts;
pub mod tokens;
pub mod trial;

use std::sync::Arc;

use crate::metrics::Metrics;

/// What opening a connection needs besides its target; shared by all threads.
#[derive(Clone, Debug)]
pub struct Services {
    /// The passwords.
    pub tokens: Arc<tokens::Tokens>,
    /// The login budgets.
    pub gates: Arc<gate::Gates>,
    /// The counts.
    pub metrics: Arc<Metrics>,
}
