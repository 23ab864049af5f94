//! PostgreSQL's frontend/backend protocol as words: frames, startup packets, replies, SQLSTATEs.
//!
//! Nothing here touches a socket or keeps a connection's state. Bytes that come from outside are only
//! ever looked at through [`frame::Frames`] (a stream) or [`body::Body`] (one isolated frame): both are
//! bounded by the length they were given and neither can panic on what it reads.
//! What Postern originates is encoded by the `pgwire` crate's message structs.

pub mod body;
pub mod frame;
pub mod options;
pub mod reply;
pub mod request;
pub mod sqlstate;
pub mod startup;
