//! Socket options.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When a peer that doesn't answer counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Silence after which the kernel asks.
    pub keepalive_idle: Duration,
    /// Between two questions.
    pub keepalive_interval: Duration,
    /// Questions without an answer that end the connection.
    pub keepalive_retries: u32,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Duration,
}

impl Liveness {
    /// Clients. An SSM agent is on the same host; a client elsewhere may sit behind a laptop's lid, so minutes.
    pub const CLIENT: Self = Self {
        keepalive_idle: Duration::from_secs(60),
        keepalive_interval: Duration::from_secs(15),
        keepalive_retries: 4,
        user_timeout: Duration::from_secs(120),
    };

    /// Servers. A host that is lost in a failover must be noticed in seconds, not in the kernel's minutes.
    pub const SERVER: Self = Self {
        keepalive_idle: Duration::from_secs(10),
        keepalive_interval: Duration::from_secs(5),
        keepalive_retries: 3,
        user_timeout: Duration::from_secs(20),
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
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(liveness.user_timeout))?;
    Ok(())
}
