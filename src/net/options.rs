//! Socket options.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When a silent peer counts as gone.
///
/// `TCP_USER_TIMEOUT` isn't used: on Linux it also ends a connection whose peer merely doesn't read for that long, and
/// a backend that waits for a lock doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Silence after which the kernel asks.
    pub keepalive_idle: Duration,
    /// Between two questions.
    pub keepalive_interval: Duration,
    /// Questions without an answer that end the connection.
    pub keepalive_retries: u32,
}

impl Liveness {
    /// Clients. An SSM agent is on the same host; a client elsewhere may sit behind a laptop's lid, so minutes.
    pub const CLIENT: Self = Self {
        keepalive_idle: Duration::from_secs(60),
        keepalive_interval: Duration::from_secs(15),
        keepalive_retries: 4,
    };

    /// Servers. A host that is lost in a failover must be noticed in seconds, not in the kernel's minutes.
    pub const SERVER: Self = Self {
        keepalive_idle: Duration::from_secs(10),
        keepalive_interval: Duration::from_secs(5),
        keepalive_retries: 3,
    };
}

/// No Nagle delay, and `liveness`.
pub fn apply(socket: &TcpStream, liveness: Liveness) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(liveness.keepalive_idle)
        .with_interval(liveness.keepalive_interval)
        .with_retries(liveness.keepalive_retries);
    socket.set_tcp_keepalive(&keepalive)?;
    Ok(())
}
