//! Sockets: listeners, plain or TLS streams, the buffers that a thread's streams share.

pub mod buffer;
pub mod listener;
pub mod options;
pub mod stream;
