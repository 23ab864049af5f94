//! Which process of this host has dialled us, and so which session of Session Manager a connection came through.
//!
//! Session Manager's agent runs a worker process for each session, as root, and that dials us from this host. The kernel
//! knows whose a socket is ([`socket`]), `/proc` which process has it and what it runs ([`worker`]), and the agent keeps a file about
//! each session ([`record`]). Looking that up takes capabilities that are as good as root's, which whoever reads bytes from
//! clients must not have: so a process of its own does it ([`helper`], `postern attribute`), which answers nothing else, and only the
//! gateway's user ([`client`]).

pub mod client;
pub mod helper;
pub mod record;
pub mod socket;
pub mod worker;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::ssm::{Facts, Unattributed};

/// A connection within this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The end that has dialled.
    pub dialler: SocketAddr,
    /// The end that was dialled.
    pub listener: SocketAddr,
}

/// What the helper says of one.
pub type Answer = Result<Facts, Unattributed>;

/// Bytes of a question or an answer, which is a line, at most.
const MAX_LINE_BYTES: usize = 16 * 1024;
