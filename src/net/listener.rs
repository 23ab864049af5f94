//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted. SSM's agent dials inside the loop that serves all streams of a session,
/// so a full queue would stall them all; the kernel cuts this to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;

/// Binds `address`, which nobody else may have: two gateways on one port would each spend a whole login budget. An
/// IPv6 socket takes IPv6 only, so that peers always show as what they are.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
