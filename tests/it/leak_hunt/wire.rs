//! One connection of a client, through the gateway or direct, and what it is shown there.
//!
//! Knows of every message that is sent what ends its answer, so that a reader never waits for what won't come.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use postern::wire::startup::{ProtocolVersion, startup_message};

use crate::gateway::Gateway;
use crate::raw::{Message, frame};

/// An answer that takes longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// The type of a message that stands for those that didn't come.
pub(super) const NO_ANSWER: char = '!';

/// What a client may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Query(String),
    /// Name, text, types of parameters.
    Parse(String, String, Vec<u32>),
    /// Portal, statement, values as text, whether results are to be binary.
    Bind(String, String, Vec<Option<String>>, bool),
    DescribeStatement(String),
    DescribePortal(String),
    /// Portal and the most rows.
    Execute(String, u32),
    CloseStatement(String),
    ClosePortal(String),
    Flush,
    Sync,
    CopyData(String),
    CopyDone,
    CopyFail(String),
    /// Bytes that are no whole message.
    Scrap(Vec<u8>),
}

impl Said {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let text = |text: &str| [text.as_bytes(), b"\0"].concat();
        let kind = |kind: u8, name: &str| [&[kind][..], name.as_bytes(), b"\0"].concat();
        match self {
            Self::Query(sql) => frame('Q', &text(sql)),
            Self::Parse(name, sql, types) => {
                let mut body = [text(name), text(sql), (types.len() as u16).to_be_bytes().into()].concat();
                types
                    .iter()
                    .for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
                frame('P', &body)
            }
            Self::Bind(portal, statement, values, binary) => {
                let mut body = [text(portal), text(statement), vec![0, 0]].concat();
                body.extend_from_slice(&(values.len() as u16).to_be_bytes());
                for value in values {
                    let length = value.as_ref().map_or(-1, |value| value.len() as i32);
                    body.extend_from_slice(&length.to_be_bytes());
                    body.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
                }
                body.extend_from_slice(if *binary { &[0, 1, 0, 1] } else { &[0, 0] });
                frame('B', &body)
            }
            Self::DescribeStatement(name) => frame('D', &kind(b'S', name)),
            Self::DescribePortal(name) => frame('D', &kind(b'P', name)),
            Self::Execute(portal, rows) => frame('E', &[text(portal), rows.to_be_bytes().into()].concat()),
            Self::CloseStatement(name) => frame('C', &kind(b'S', name)),
            Self::ClosePortal(name) => frame('C', &kind(b'P', name)),
            Self::Flush => frame('H', b""),
            Self::Sync => frame('S', b""),
            Self::CopyData(data) => frame('d', data.as_bytes()),
            Self::CopyDone => frame('c', b""),
            Self::CopyFail(why) => frame('f', &text(why)),
            Self::Scrap(bytes) => bytes.clone(),
        }
    }

    /// The answer that is owed for it.
    const fn owes(&self) -> Option<Owed> {
        Some(match self {
            Self::Query(_) => Owed::Query,
            Self::Parse(..) => Owed::Ends(b"1"),
            Self::Bind(..) => Owed::Ends(b"2"),
            Self::DescribeStatement(_) | Self::DescribePortal(_) => Owed::Ends(b"Tn"),
            Self::Execute(..) => Owed::Ends(b"CIs"),
            Self::CloseStatement(_) | Self::ClosePortal(_) => Owed::Ends(b"3"),
            Self::Sync => Owed::Sync,
            Self::Flush | Self::CopyData(_) | Self::CopyDone | Self::CopyFail(_) | Self::Scrap(_) => {
                return None;
            }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Query,
    Sync,
    /// Ends with a message of one of these types.
    Ends(&'static [u8]),
}

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// A connection.
pub(super) struct Wire {
    socket: BufReader<Box<dyn Socket>>,
    owed: VecDeque<Owed>,
    /// After an error until a Sync.
    skipping: bool,
    /// Whether a Sync is missing.
    open: bool,
    /// What the server has reported.
    parameters: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What came since somebody looked.
    notifications: Vec<Message>,
    /// Of ReadyForQuery.
    pub(super) status: u8,
    /// The server process, as told at login.
    pub(super) pid: u32,
}

/// What a step has shown to a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// As they came, but for those that follow.
    pub(super) messages: Vec<Message>,
    /// Changes of reported parameters: PostgreSQL gives no promise on their order within an answer.
    pub(super) reports: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Complete whenever the client is outside of a transaction.
    pub(super) notifications: Vec<Message>,
}

impl Wire {
    pub(super) fn through(gateway: &Gateway, parameters: &[(&str, &str)]) -> (Self, Shown) {
        let tcp = TcpStream::connect(gateway.address()).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::log_in(Box::new(tcp), parameters)
    }

    pub(super) fn direct(socket: &Path, parameters: &[(&str, &str)]) -> (Self, Shown) {
        let unix = UnixStream::connect(socket).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::log_in(Box::new(unix), parameters)
    }

    fn log_in(socket: Box<dyn Socket>, parameters: &[(&str, &str)]) -> (Self, Shown) {
        let mut wire = Self {
            socket: BufReader::new(socket),
            owed: VecDeque::from([Owed::Sync]),
            skipping: false,
            open: false,
            parameters: BTreeMap::new(),
            notifications: Vec::new(),
            status: b'I',
            pid: 0,
        };
        wire.send_bytes(&startup_message(ProtocolVersion::V3_0, parameters));
        let mut shown = Shown::default();
        wire.read(&mut shown);
        (wire, shown)
    }

    pub(super) fn send(&mut self, said: &[Said]) {
        let mut bytes = Vec::new();
        for said in said {
            bytes.extend(said.bytes());
            let Some(owed) = said.owes() else { continue };
            if owed == Owed::Sync {
                self.skipping = false;
            }
            if !self.skipping {
                self.owed.push_back(owed);
                self.open = matches!(owed, Owed::Ends(_));
            }
        }
        self.send_bytes(&bytes);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        // If the other side is gone, reading says so.
        let _ = self.socket.get_mut().write_all(bytes);
    }

    /// Says goodbye.
    pub(super) fn terminate(&mut self) {
        self.send_bytes(&frame('X', b""));
    }

    /// Whether a Sync is missing: that holds a server as a transaction does.
    pub(super) const fn is_open(&self) -> bool {
        self.open || self.skipping
    }

    /// Reads until everything is answered, or the server asks for data to copy: then true.
    pub(super) fn read(&mut self, shown: &mut Shown) -> bool {
        while let Some(&owed) = self.owed.front() {
            let message = match self.next() {
                Ok(message) => message,
                Err(error) => {
                    shown.messages.push(Message {
                        tag: NO_ANSWER,
                        body: format!("{error}, while {owed:?} was owed").into_bytes(),
                    });
                    self.owed.clear();
                    break;
                }
            };
            match message.tag {
                'S' => self.report(&message.body, shown),
                'A' => self.notifications.push(message),
                'K' => self.pid = u32::from_be_bytes(message.body[..4].try_into().unwrap()),
                tag => {
                    self.account(owed, tag as u8);
                    if tag == 'Z' {
                        self.status = message.body[0];
                    }
                    shown.messages.push(message);
                    if tag == 'G' {
                        return true;
                    }
                }
            }
        }
        // In a transaction, notifications wait for its end; before it, they come at no certain time.
        if self.status == b'I' && !self.is_open() {
            shown.notifications.append(&mut self.notifications);
        }
        false
    }

    fn account(&mut self, owed: Owed, tag: u8) {
        match (owed, tag) {
            (Owed::Query | Owed::Sync, b'Z') => drop(self.owed.pop_front()),
            (Owed::Ends(ends), tag) if ends.contains(&tag) => drop(self.owed.pop_front()),
            (Owed::Ends(_), b'E') => {
                // All up to the next Sync is left out.
                while self.owed.front().is_some_and(|owed| *owed != Owed::Sync) {
                    self.owed.pop_front();
                }
                self.skipping = self.owed.is_empty();
            }
            _ => {}
        }
    }

    /// Takes note of a parameter; what only repeats what is known shows nothing.
    fn report(&mut self, body: &[u8], shown: &mut Shown) {
        let mut parts = body.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        let (name, value) = (parts.next().unwrap(), parts.next().unwrap());
        if self.parameters.insert(name.clone(), value.clone()).as_ref() != Some(&value) {
            shown.reports.insert(name, value);
        }
    }

    fn next(&mut self) -> std::io::Result<Message> {
        let mut header = [0; 5];
        self.socket
            .read_exact(&mut header)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => std::io::Error::new(ErrorKind::TimedOut, "no answer"),
                _ => error,
            })?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body)?;
        Ok(Message {
            tag: char::from(header[0]),
            body,
        })
    }
}
