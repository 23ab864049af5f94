//! One TLS session without a socket: records in, plaintext out, and back.

use std::io::{self, BufRead as _, Write as _};

use rustls::Connection;

use super::{ALPN_POSTGRESQL, Failure};

/// A session on either side.
pub struct Session {
    connection: Connection,
    peer: Box<str>,
    peer_has_closed: bool,
}

impl Session {
    pub(super) fn new(mut connection: Connection, peer: Box<str>) -> Self {
        // What may pile up is bounded by whoever writes: it stops reading while something is unsent.
        connection.set_buffer_limit(None);
        Self {
            connection,
            peer,
            peer_has_closed: false,
        }
    }

    /// Takes in `records` as they came from the socket and appends what they carry to `plain`.
    ///
    /// After an error, what [`Session::write_records`] has left is the alert for the peer.
    pub fn receive(&mut self, mut records: &[u8], plain: &mut Vec<u8>) -> Result<(), Failure> {
        while !records.is_empty() {
            match self.connection.read_tls(&mut records) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(Failure::Protocol(error.to_string())),
            }
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| Failure::new(&error, &self.peer))?;
            self.peer_has_closed |= state.peer_has_closed();
            let mut reader = self.connection.reader();
            while let Ok(chunk) = reader.fill_buf()
                && !chunk.is_empty()
            {
                plain.extend_from_slice(chunk);
                let taken = chunk.len();
                reader.consume(taken);
            }
        }
        Ok(())
    }

    /// Encrypts `plain`; [`Session::write_records`] sends it.
    pub fn send(&mut self, plain: &[u8]) -> Result<(), Failure> {
        self.connection
            .writer()
            .write_all(plain)
            .map_err(|error| Failure::Protocol(error.to_string()))
    }

    /// Queues the alert that ends the session in order.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether the peer has announced the end of what it sends.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Whether records wait to be written.
    pub fn has_records(&self) -> bool {
        self.connection.wants_write()
    }

    /// Hands records to `socket` in one write, and tells how many bytes it took.
    pub fn write_records(&mut self, socket: &mut dyn io::Write) -> io::Result<usize> {
        self.connection.write_tls(socket)
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether `postgresql` was negotiated as the application protocol.
    pub fn speaks_postgresql(&self) -> bool {
        self.connection.alpn_protocol() == Some(ALPN_POSTGRESQL)
    }

    /// The server name that a client asked for, on the server's side.
    pub fn server_name(&self) -> Option<&str> {
        match &self.connection {
            Connection::Server(connection) => connection.server_name(),
            Connection::Client(_) => None,
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}
