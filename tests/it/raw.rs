//! A client that says exactly what a test wants to be said.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use postern::wire::startup::{ProtocolVersion, startup_message};

use crate::gateway::{Gateway, PATIENCE};

/// A plain connection to a gateway.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) tcp: TcpStream,
}

/// One message from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: char,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// A field of an error or a notice.
    pub(crate) fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }
}

impl Raw {
    pub(crate) fn connect(gateway: &Gateway) -> Self {
        Self::dial(gateway.address())
    }

    /// A connection to another address, which leads there.
    pub(crate) fn dial(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp }
    }

    /// Logs in by trust; returns what came up to ReadyForQuery.
    pub(crate) fn login(gateway: &Gateway, user: &str) -> (Self, Vec<Message>) {
        Self::login_to(gateway, user, "orders")
    }

    /// The same to another database.
    pub(crate) fn login_to(gateway: &Gateway, user: &str, database: &str) -> (Self, Vec<Message>) {
        let mut raw = Self::connect(gateway);
        raw.send(&startup_message(
            ProtocolVersion::V3_0,
            &[("user", user), ("database", database)],
        ));
        let messages = raw.until('Z');
        (raw, messages)
    }

    /// Somebody at the console.
    pub(crate) fn visit(gateway: &Gateway) -> Self {
        let (visitor, messages) = Self::login_to(gateway, "somebody", "postern");
        assert_eq!(messages.last().unwrap().tag, 'Z', "{messages:?}");
        visitor
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).unwrap();
    }

    pub(crate) fn message(&mut self, tag: char, body: &[u8]) {
        self.send(&frame(tag, body));
    }

    pub(crate) fn query(&mut self, sql: &str) -> Vec<Message> {
        self.message('Q', &[sql.as_bytes(), b"\0"].concat());
        self.until('Z')
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        match self.tcp.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(_) => return None,
        }
        let len = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; len];
        self.tcp.read_exact(&mut body).ok()?;
        Some(Message {
            tag: char::from(header[0]),
            body,
        })
    }

    /// The messages up to the first of that type; an error ends it as well if it is fatal.
    pub(crate) fn until(&mut self, tag: char) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            let last = message.tag == tag
                || message
                    .field(b'S')
                    .is_some_and(|s| message.tag == 'E' && s == "FATAL");
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// The error that ends the connection.
    pub(crate) fn last_error(&mut self) -> Message {
        let messages = self.until('\0');
        let error = messages
            .into_iter()
            .find(|message| message.tag == 'E')
            .expect("no error came");
        assert!(self.is_closed(), "the connection goes on after {error:?}");
        error
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut byte = [0];
        match self.tcp.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

pub(crate) fn frame(tag: char, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag as u8];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The rows among `answers`, by the names of their columns; "NULL" is none.
pub(crate) fn rows(answers: &[Message]) -> Vec<HashMap<String, String>> {
    let names = answers.iter().find(|message| message.tag == 'T').map(columns);
    let names = names.unwrap_or_default();
    let row = |message: &Message| {
        let mut rest = &message.body[2..];
        let mut values = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
            values.push(match length {
                -1 => "NULL".to_owned(),
                _ => String::from_utf8_lossy(value).into_owned(),
            });
            rest = after;
        }
        names.iter().cloned().zip(values).collect()
    };
    let data = answers.iter().filter(|message| message.tag == 'D');
    data.map(row).collect()
}

/// The names that a RowDescription has.
pub(crate) fn columns(description: &Message) -> Vec<String> {
    let mut rest = &description.body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 1 + 18..];
    }
    names
}
