//! What passes between a client and a server connection that it shares is the same wherever the bytes are cut, and bounded.

use std::rc::Rc;

use postern::ids::SessionId;
use postern::session::client::ClientSession;
use postern::session::exchange::{Exchange, Sides};
use postern::session::parameters::Parameters;
use postern::session::server::ServerSession;
use postern::session::settings::settings;
use postern::upstream::texts::KnownTexts;
use proptest::prelude::*;

use crate::raw::frame;

/// What one side says in whole messages, before the other says something.
#[derive(Clone, Debug)]
enum Said {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

/// A lease, and all that has come out of it.
struct Lease {
    exchange: Exchange,
    client: ClientSession,
    server: ServerSession,
    texts: KnownTexts,
    /// What the client has sent and isn't taken before what waits is.
    backlog: Vec<u8>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// The most that was made ready for the server at once.
    most: usize,
    has_ended: bool,
}

impl Lease {
    fn new() -> Self {
        let mut parameters = Rc::<Parameters>::default();
        for (name, value) in [
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("TimeZone", "UTC"),
        ] {
            let report = [name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat();
            Rc::make_mut(&mut parameters).report(&report);
        }
        let startup = settings([("timezone".to_owned(), "Asia/Tokyo".to_owned())]);
        Self {
            exchange: Exchange::default(),
            client: ClientSession::new(SessionId(1), startup, parameters.clone()),
            server: ServerSession::new((*parameters).clone(), true),
            texts: KnownTexts::default(),
            backlog: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            most: 0,
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
                server: &mut self.server,
                texts: &self.texts,
            };
            let before = self.to_server.len();
            let (to_server, to_client) = (&mut Vec::new(), &mut self.to_client);
            let ended = if waits {
                self.exchange.resume(&mut sides, to_server, to_client)
            } else {
                let chunk = std::mem::take(&mut self.backlog);
                self.exchange
                    .from_client(&chunk, &mut sides, to_server, to_client)
            };
            self.to_server.append(to_server);
            self.most = self.most.max(self.to_server.len() - before);
            self.has_ended = ended.is_some();
        }
    }

    fn client_says(&mut self, chunk: &[u8]) {
        self.backlog.extend_from_slice(chunk);
        self.take();
    }

    fn server_says(&mut self, chunk: &[u8]) {
        if self.has_ended {
            return;
        }
        let mut sides = Sides {
            client: &mut self.client,
            server: &mut self.server,
            texts: &self.texts,
        };
        let mut edited = Vec::new();
        match self.exchange.from_server(chunk, &mut sides, &mut edited) {
            Ok(false) => self.to_client.extend_from_slice(chunk),
            Ok(true) => self.to_client.append(&mut edited),
            Err(_) => self.has_ended = true,
        }
        self.take();
    }

    /// All that anybody can tell of it; sets have no order.
    fn shown(&self) -> String {
        let Self {
            exchange,
            client,
            server,
            to_server,
            to_client,
            ..
        } = self;
        let (to_server, to_client) = (to_server.escape_ascii(), to_client.escape_ascii());
        let state = (exchange.is_idle(), exchange.is_lost(), exchange.answered());
        let sides = format!("{client:#?}\n{server:#?}");
        let mut lines: Vec<_> = sides.lines().collect();
        lines.sort_unstable();
        let lines = lines.join("\n");
        format!("to the server {to_server}\nto the client {to_client}\n{state:?}\n{lines}")
    }
}

fn play(said: &[Said], mut cut: impl FnMut() -> usize) -> String {
    let mut lease = Lease::new();
    for one in said {
        let (bytes, is_client) = match one {
            Said::Client(bytes) => (bytes, true),
            Said::Server(bytes) => (bytes, false),
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(cut().clamp(1, rest.len()));
            if is_client {
                lease.client_says(chunk);
            } else {
                lease.server_says(chunk);
            }
            rest = later;
        }
    }
    lease.shown()
}

const NAMES: [&[u8]; 3] = [b"\0", b"s\0", b"t\0"];

const TEXTS: [&str; 12] = [
    "select 1",
    "selec",
    "set timezone = 'Asia/Seoul'",
    "reset timezone",
    "begin",
    "rollback",
    "deallocate s",
    "deallocate all",
    "discard all",
    "create table t (a int)",
    "prepare q as select 1",
    "listen mail",
];

fn request((kind, name, text): (usize, usize, usize)) -> Vec<u8> {
    let (name, text) = (NAMES[name], [TEXTS[text].as_bytes(), b"\0"].concat());
    match kind {
        0 | 1 => frame('P', &[name, &text, &[0; 2]].concat()),
        2..5 => frame('B', &[b"\0", name, &[0; 6]].concat()),
        5..8 => frame('E', &[0; 5]),
        8 => frame('D', &[b"S", name].concat()),
        9 => frame('C', &[b"S", name].concat()),
        10 => frame('H', b""),
        11..14 => frame('S', b""),
        14 => frame('c', b""),
        15 => frame('d', b"data"),
        _ => frame('Q', &text),
    }
}

fn reply((kind, which): (usize, usize)) -> Vec<u8> {
    let tag = [
        "SELECT 1\0",
        "DEALLOCATE ALL\0",
        "DISCARD ALL\0",
        "DEALLOCATE\0",
        "RESET\0",
    ][which];
    let zone = ["Asia/Tokyo", "UTC", "Asia/Seoul", "UTC", "UTC"][which];
    match kind {
        0..4 => frame('Z', [b"I", b"I", b"I", b"T", b"E"][which]),
        4 | 5 => frame('C', tag.as_bytes()),
        6 => frame(
            'E',
            b"SERROR\0C26000\0Mprepared statement \"postern_1\" does not exist\0\0",
        ),
        7 | 8 => frame('1', b""),
        9 => frame('2', b""),
        10 => frame('3', b""),
        11 => frame('T', b"\0\0"),
        12 => frame('D', b"\0\0"),
        13 => frame('S', format!("TimeZone\0{zone}\0").as_bytes()),
        14 => frame('G', b"\0\0\0"),
        15 => frame('I', b""),
        _ => frame('n', b""),
    }
}

fn said() -> impl Strategy<Value = Said> {
    let client = prop::collection::vec((0..19usize, 0..3usize, 0..12usize), 1..8);
    let server = prop::collection::vec((0..17usize, 0..5usize), 1..8);
    prop_oneof![
        client.prop_map(|all| Said::Client(all.into_iter().flat_map(request).collect())),
        server.prop_map(|all| Said::Server(all.into_iter().flat_map(reply).collect())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn cut_anywhere_the_same_passes(
        said in prop::collection::vec(said(), 1..8),
        cuts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let mut cuts = cuts.into_iter().cycle();
        prop_assert_eq!(play(&said, || usize::MAX), play(&said, || cuts.next().unwrap()));
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
        lease.server_says(&[frame('1', b""), frame('Z', b"I")].concat());
    }
    // On a server connection that has none of them.
    lease.server = ServerSession::new((*lease.server.parameters).clone(), true);
    lease.most = 0;
    let binds = names
        .iter()
        .map(|name| frame('B', &[b"\0", name.as_bytes(), &[0; 6]].concat()));
    lease.client_says(&binds.collect::<Vec<_>>().concat());
    assert!(lease.most < 2 * 1024 * 1024, "{} bytes at once", lease.most);
    let sent = lease.to_server.iter().filter(|byte| **byte == b'x').count();
    assert_eq!(sent, 2 * 60 * 200_000, "and all of them are");
}
