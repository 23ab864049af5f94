//! Whose a socket is: one question to the kernel by addresses (sock_diag(7)), however many sockets there are.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::Connection;

/// `AF_NETLINK` and `NETLINK_SOCK_DIAG` (`linux/socket.h`, `linux/netlink.h`).
const NETLINK: (i32, i32) = (16, 4);

/// A socket that no number stands for yet (`INET_DIAG_NOCOOKIE`, `linux/inet_diag.h`).
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// `TCP_ESTABLISHED` (`net/tcp_states.h`).
const ESTABLISHED: u8 = 1;

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user that has made it.
    pub uid: u32,
    /// Its inode, by which processes have it.
    pub inode: u32,
}

/// Asks the kernel.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    sequence: u32,
}

impl Kernel {
    /// A way to ask.
    pub fn open() -> io::Result<Self> {
        let (family, protocol) = NETLINK;
        let socket = Socket::new(Domain::from(family), Type::DGRAM, Some(Protocol::from(protocol)))?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Whose the dialling end of `connection` is; `None` if it isn't open any more.
    pub fn dialler_of(&mut self, connection: Connection) -> io::Result<Option<Owner>> {
        let Connection { dialler, listener } = connection;
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let request = InetRequest {
            family: if dialler.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: dialler.port(),
                destination_port: listener.port(),
                source_address: dialler.ip(),
                destination_address: listener.ip(),
                interface_id: 0,
                cookie: NO_COOKIE,
            },
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes)?;
        loop {
            let mut buffer = [0; 8192];
            let length = io::Read::read(&mut &self.socket, &mut buffer)?;
            let answer =
                NetlinkMessage::<SockDiagMessage>::deserialize(buffer.get(..length).unwrap_or_default())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                // Of a question that was given up.
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let found = response.header;
                    let is_it = found.socket_id.source_port == dialler.port()
                        && found.socket_id.destination_port == listener.port()
                        && found.socket_id.source_address == dialler.ip()
                        && found.socket_id.destination_address == listener.ip();
                    // One that its process has closed has no inode and looks like root's.
                    let is_open = found.state == ESTABLISHED && found.inode != 0;
                    Ok((is_it && is_open).then_some(Owner {
                        uid: found.uid,
                        inode: found.inode,
                    }))
                }
                NetlinkPayload::Error(error)
                    if error.raw_code() == -rustix::io::Errno::NOENT.raw_os_error() =>
                {
                    Ok(None)
                }
                NetlinkPayload::Error(error) => Err(error.to_io()),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an answer of another kind",
                )),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair(address: &str) -> (TcpStream, TcpStream, Connection) {
        let listener = TcpListener::bind(address).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = Connection {
            dialler: dialled.local_addr().unwrap(),
            listener: dialled.peer_addr().unwrap(),
        };
        (dialled, listener.accept().unwrap().0, connection)
    }

    fn inode(stream: &TcpStream) -> String {
        use std::os::fd::AsRawFd as _;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap();
        link.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_dialling_end_is_told_from_the_other() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (dialled, accepted, connection) = pair(address);
            let mut kernel = Kernel::open().unwrap();
            let owner = kernel.dialler_of(connection).unwrap().unwrap();
            assert_eq!(format!("socket:[{}]", owner.inode), inode(&dialled));
            assert_ne!(format!("socket:[{}]", owner.inode), inode(&accepted));
            assert_eq!(owner.uid, rustix::process::geteuid().as_raw());
        }
    }

    #[test]
    fn what_is_closed_is_nobodys() {
        let (dialled, accepted, connection) = pair("127.0.0.1:0");
        let mut kernel = Kernel::open().unwrap();
        drop(dialled);
        assert_eq!(kernel.dialler_of(connection).unwrap(), None);
        drop(accepted);
        assert_eq!(kernel.dialler_of(connection).unwrap(), None);
        let (_dialled, _accepted, other) = pair("127.0.0.1:0");
        let swapped = Connection {
            dialler: other.dialler,
            listener: connection.listener,
        };
        assert_eq!(kernel.dialler_of(swapped).unwrap(), None);
    }
}
