//! Whose a socket is: one question to the kernel by addresses (sock_diag(7)), however many sockets there are.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::Connection;

/// `AF_NETLINK` and `NETLINK_SOCK_DIAG` (`linux/socket.h`, `linux/netlink.h`).
const NETLINK: (i32, i32) = (16, 4);

/// A socket that no number stands for yet (`INET_DIAG_NOCOOKIE`, `linux/inet_diag.h`).
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// `TCP_ESTABLISHED` (`net/tcp_states.h`).
const ESTABLISHED: u8 = 1;

/// For as many connections it is quicker to ask for all that lead to their port.
const WORTH_A_LIST: usize = 8;

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

    /// Whose the dialling end of each connection is; `None` if it isn't open any more.
    pub fn diallers_of(&mut self, connections: &[Connection]) -> Vec<io::Result<Option<Owner>>> {
        let listed = if connections.len() < WORTH_A_LIST {
            HashMap::new()
        } else {
            // Who isn't in the list is asked for.
            self.list(connections).unwrap_or_default()
        };
        let of = |connection: &Connection| match listed.get(connection) {
            Some(owner) => Ok(Some(*owner)),
            None => self.dialler_of(*connection),
        };
        connections.iter().map(of).collect()
    }

    /// Whose the dialling end of `connection` is; `None` if it isn't open any more.
    fn dialler_of(&mut self, connection: Connection) -> io::Result<Option<Owner>> {
        let Connection { dialler, listener } = connection;
        let socket_id = SocketId {
            source_port: dialler.port(),
            destination_port: listener.port(),
            source_address: dialler.ip(),
            destination_address: listener.ip(),
            interface_id: 0,
            cookie: NO_COOKIE,
        };
        self.ask(socket_id, NLM_F_REQUEST)?;
        let mut found = None;
        self.answers(|response| {
            // One that its process has closed has no inode and looks like root's.
            found = owner_of(response).filter(|(of, _)| *of == connection);
            false
        })?;
        Ok(found.map(|(_, owner)| owner))
    }

    /// All that are open to the ports of these.
    fn list(&mut self, connections: &[Connection]) -> io::Result<HashMap<Connection, Owner>> {
        let ports = connections
            .iter()
            .map(|connection| (connection.dialler.is_ipv4(), connection.listener.port()));
        let ports: HashSet<_> = ports.collect();
        let mut owners = HashMap::new();
        for (is_ipv4, port) in ports {
            let any: IpAddr = if is_ipv4 {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            // Of a list, the kernel compares ports alone (`inet_diag_dump_icsk`).
            let socket_id = SocketId {
                source_port: 0,
                destination_port: port,
                source_address: any,
                destination_address: any,
                interface_id: 0,
                cookie: NO_COOKIE,
            };
            self.ask(socket_id, NLM_F_REQUEST | NLM_F_DUMP)?;
            self.answers(|response| {
                owners.extend(owner_of(response));
                true
            })?;
        }
        Ok(owners)
    }

    fn ask(&mut self, socket_id: SocketId, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let request = InetRequest {
            family: if socket_id.source_address.is_ipv4() {
                AF_INET
            } else {
                AF_INET6
            },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes)?;
        Ok(())
    }

    /// Gives each answer to `take`, which says whether there may be more.
    fn answers(&self, mut take: impl FnMut(&InetResponseHeader) -> bool) -> io::Result<()> {
        let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            let mut buffer = [0; 32 * 1024];
            let length = io::Read::read(&mut &self.socket, &mut buffer)?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .map_err(|error| invalid(error.to_string()))?;
                // Each begins at a multiple of four (netlink(7)).
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    // Of a question that was given up.
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        if !take(&response.header) {
                            return Ok(());
                        }
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error)
                        if error.raw_code() == -rustix::io::Errno::NOENT.raw_os_error() =>
                    {
                        return Ok(());
                    }
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => return Err(invalid("an answer of another kind".to_owned())),
                }
            }
        }
    }
}

/// Whose the socket is that is told of, if it is open, and which connection it dials.
fn owner_of(found: &InetResponseHeader) -> Option<(Connection, Owner)> {
    let id = &found.socket_id;
    let connection = Connection {
        dialler: SocketAddr::new(id.source_address, id.source_port),
        listener: SocketAddr::new(id.destination_address, id.destination_port),
    };
    let is_open = found.state == ESTABLISHED && found.inode != 0;
    let owner = Owner {
        uid: found.uid,
        inode: found.inode,
    };
    is_open.then_some((connection, owner))
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

    #[test]
    fn many_are_told_as_one_is() {
        let mut kernel = Kernel::open().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let dialled: Vec<_> = (0..100)
                .map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap())
                .collect();
            let accepted: Vec<_> = (0..100).map(|_| listener.accept().unwrap().0).collect();
            let connections: Vec<_> = accepted
                .iter()
                .map(|stream| Connection {
                    dialler: stream.peer_addr().unwrap(),
                    listener: stream.local_addr().unwrap(),
                })
                .collect();
            let owners = kernel.diallers_of(&connections);
            for (connection, owner) in connections.iter().zip(owners) {
                let alone = kernel.dialler_of(*connection).unwrap();
                assert!(alone.is_some());
                assert_eq!(owner.unwrap(), alone);
            }
            let listed = kernel.list(&connections).unwrap();
            assert_eq!(listed.len(), 100);
            drop(dialled);
            assert!(
                kernel
                    .diallers_of(&connections)
                    .into_iter()
                    .all(|owner| owner.unwrap().is_none())
            );
        }
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
