//! A client that shares server connections is answered as by a server of its own, wherever the bytes are cut and whenever
//! they come, by whichever connection; and what is made ready at once is bounded.

use std::rc::Rc;

use postern::ids::SessionId;
use postern::pin::Pins;
use postern::session::client::ClientSession;
use postern::session::exchange::{Exchange, Sides};
use postern::session::parameters::Parameters;
use postern::session::server::ServerSession;
use postern::session::settings::{Settings, settings};
use postern::upstream::texts::KnownTexts;
use proptest::prelude::*;

use crate::raw::frame;

mod server;

use server::Server;

/// What the client began with, and what servers begin with.
const ZONE: &str = "Asia/Tokyo";
const DEFAULT_ZONE: &str = "UTC";

/// A server connection: what is known of it, and how it is.
struct Connection {
    session: ServerSession,
    server: Server,
}

/// A client with a connection, and all that has come out of it.
struct Lease {
    exchange: Exchange,
    client: ClientSession,
    connection: Connection,
    /// Which it had before.
    other: Connection,
    texts: KnownTexts,
    /// What the client has sent and isn't taken before what waits is.
    backlog: Vec<u8>,
    /// What the server has said and hasn't come yet.
    on_the_way: Vec<u8>,
    to_client: Vec<u8>,
    /// The most that was made ready for the server at once.
    most: usize,
    sent: usize,
    has_ended: bool,
}

fn zone_is(zone: &str) -> Settings {
    settings([("timezone".to_owned(), zone.to_owned())])
}

fn report(parameters: &mut Rc<Parameters>, name: &str, value: &str) {
    let report = [name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat();
    Rc::make_mut(parameters).report(&report);
}

impl Connection {
    /// One that is the client's.
    fn new() -> Self {
        let mut parameters = Rc::<Parameters>::default();
        for (name, value) in [
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("TimeZone", DEFAULT_ZONE),
        ] {
            report(&mut parameters, name, value);
        }
        let mut connection = Self {
            session: ServerSession::new((*parameters).clone(), true),
            server: Server::new(DEFAULT_ZONE, ZONE),
        };
        connection.hand_over(ZONE);
        connection
    }

    fn hand_over(&mut self, zone: &str) {
        self.session.settled(zone_is(zone));
        report(&mut self.session.parameters, "TimeZone", zone);
    }
}

impl Lease {
    fn new() -> Self {
        let connection = Connection::new();
        let told = connection.session.parameters.clone();
        Self {
            exchange: Exchange::default(),
            client: ClientSession::new(SessionId(1), zone_is(ZONE), told, None, None),
            connection,
            other: Connection::new(),
            texts: KnownTexts::default(),
            backlog: Vec::new(),
            on_the_way: Vec::new(),
            to_client: Vec::new(),
            most: 0,
            sent: 0,
            has_ended: false,
        }
    }

    /// Takes what the client has sent, as far as it can be taken by now.
    fn take(&mut self) {
        loop {
            let waits = self.exchange.is_waiting();
            if self.has_ended || self.exchange.is_undecided() || !waits && self.backlog.is_empty() {
                return;
            }
            let mut sides = Sides {
                client: &mut self.client,
                server: &mut self.connection.session,
                texts: &self.texts,
            };
            let (to_server, to_client) = (&mut Vec::new(), &mut self.to_client);
            let ended = if waits {
                self.exchange.resume(&mut sides, to_server, to_client)
            } else {
                let chunk = std::mem::take(&mut self.backlog);
                self.exchange
                    .from_client(&chunk, &mut sides, to_server, to_client)
            };
            self.most = self.most.max(to_server.len());
            self.sent += to_server.len();
            self.on_the_way
                .append(&mut self.connection.server.hears(to_server));
            self.has_ended = ended.is_some();
        }
    }

    fn client_says(&mut self, chunk: &[u8]) {
        self.backlog.extend_from_slice(chunk);
        self.take();
    }

    /// So many bytes of what the server has said come.
    fn server_is_heard(&mut self, most: usize) {
        let chunk: Vec<u8> = self.on_the_way.drain(..most.min(self.on_the_way.len())).collect();
        let mut sides = Sides {
            client: &mut self.client,
            server: &mut self.connection.session,
            texts: &self.texts,
        };
        let mut edited = Vec::new();
        match self.exchange.from_server(&chunk, &mut sides, &mut edited) {
            Ok(false) => self.to_client.extend_from_slice(&chunk),
            Ok(true) => self.to_client.append(&mut edited),
            Err(_) => self.has_ended = true,
        }
        self.take();
    }

    fn until_all_is_answered(&mut self, mut cut: impl FnMut() -> usize) {
        while !self.on_the_way.is_empty() && !self.has_ended {
            self.server_is_heard(cut());
        }
    }

    /// If nothing is under way, the connection is given back, and the next one is the other. Others use it meanwhile.
    fn give_back(&mut self) {
        if !self.exchange.is_idle() {
            return;
        }
        let zone = self.connection.server.zone.clone();
        self.exchange = Exchange::default();
        self.client.settle(Pins::default());
        self.client.settings = zone_is(&zone);
        self.connection.session.ran.clear();
        self.connection.session.lose_unnamed();
        self.connection.server.used_by_another(&zone);
        std::mem::swap(&mut self.connection, &mut self.other);
        self.connection.hand_over(&zone);
        self.connection.server.used_by_another(&zone);
    }
}

/// What the client is told if it says all that, each when everything before is answered.
fn shared(said: &[Vec<u8>], mut cut: impl FnMut() -> usize) -> Vec<u8> {
    let mut lease = Lease::new();
    for bytes in said {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(cut().clamp(1, rest.len()));
            lease.client_says(chunk);
            if cut().is_multiple_of(2) {
                lease.server_is_heard(cut());
            }
            rest = later;
        }
        lease.until_all_is_answered(&mut cut);
        lease.give_back();
    }
    let exchange = &lease.exchange;
    assert!(
        !exchange.is_lost() && !lease.has_ended && exchange.refusal().is_none(),
        "{exchange:?}"
    );
    lease.to_client
}

fn direct(said: &[Vec<u8>]) -> Vec<u8> {
    let mut server = Server::new(ZONE, ZONE);
    said.iter().flat_map(|bytes| server.hears(bytes)).collect()
}

/// Frames in short, and the time zone that the client knows of in the end: a pipeline may hide others. Of errors in a failed
/// transaction, only that there is one.
fn told(mut bytes: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    let mut has_failed = false;
    let mut zone = format!("S TimeZone\\x00{ZONE}\\x00");
    while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4;
        let (body, later) = rest.split_at(length);
        let frame = format!("{} {}", char::from(header[0]), body.escape_ascii());
        has_failed = if header[0] == b'Z' {
            body == b"E"
        } else {
            has_failed
        };
        match header[0] {
            b'S' => zone = frame,
            b'E' if has_failed => told.push("E".to_owned()),
            _ => told.push(frame),
        }
        bytes = later;
    }
    told.push(zone);
    told
}

const NAMES: [&[u8]; 3] = [b"\0", b"s\0", b"t\0"];

const TEXTS: [&str; 11] = [
    "select 1",
    "selec",
    "select 2",
    "show timezone",
    "set timezone = 'Asia/Seoul'",
    "reset timezone",
    "begin",
    "commit",
    "rollback",
    "deallocate all",
    "deallocate s",
];

fn request((kind, name, text): (usize, usize, usize)) -> Vec<u8> {
    // What a text names is looked up when it is prepared, and not when it is executed.
    let text = if kind < 4 { text % (TEXTS.len() - 1) } else { text };
    let (name, text) = (NAMES[name], [TEXTS[text].as_bytes(), b"\0"].concat());
    match kind {
        0..4 => frame('P', &[name, &text, &[0; 2]].concat()),
        // What is bound counts as executed.
        4..12 => [frame('B', &[b"\0", name, &[0; 6]].concat()), frame('E', &[0; 5])].concat(),
        12 => frame('C', &[b"S", name].concat()),
        13 => frame('H', b""),
        14..17 => frame('S', b""),
        // A Query that a server skips, since something has failed before it and no Sync came between, loses the account.
        _ => [frame('S', b""), frame('Q', &text)].concat(),
    }
}

/// Some messages, and a Sync, so that all of it is answered.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let some = prop::collection::vec((0..19usize, 0..3usize, 0..TEXTS.len()), 1..12);
    some.prop_map(|all| {
        let messages = all.into_iter().flat_map(request);
        messages.chain(frame('S', b"")).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5_000) })]

    #[test]
    fn a_client_is_answered_as_by_a_server_of_its_own(
        said in prop::collection::vec(said(), 1..6),
        cuts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let wanted = told(&direct(&said));
        prop_assert_eq!(&told(&shared(&said, || usize::MAX)), &wanted);
        let mut cuts = cuts.into_iter().cycle();
        prop_assert_eq!(&told(&shared(&said, || cuts.next().unwrap())), &wanted);
    }
}

#[test]
fn what_is_made_ready_for_a_server_is_bounded() {
    let mut lease = Lease::new();
    let text = |number: usize| format!("select '{number}{}'\0\0\0", "x".repeat(200_000));
    let names: Vec<_> = (0..60).map(|number| format!("s{number}\0")).collect();
    for (number, name) in names.iter().enumerate() {
        lease.client_says(&frame('P', &[name.as_bytes(), text(number).as_bytes()].concat()));
        lease.client_says(&frame('S', b""));
        lease.until_all_is_answered(|| usize::MAX);
    }
    // The other server connection has none of them.
    lease.give_back();
    (lease.most, lease.sent) = (0, 0);
    let binds = names
        .iter()
        .map(|name| frame('B', &[b"\0", name.as_bytes(), &[0; 6]].concat()));
    lease.client_says(&binds.collect::<Vec<_>>().concat());
    lease.until_all_is_answered(|| usize::MAX);
    assert!(lease.most < 2 * 1024 * 1024, "{} bytes at once", lease.most);
    assert!(lease.sent > 60 * 200_000, "and all of them are");
}
