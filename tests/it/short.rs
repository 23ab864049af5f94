//! A client that says much in few words, and what is said around it.

use std::fmt::Write as _;

use postern::wire::startup::{ProtocolVersion, startup_message};
use postern_lab::Lab;

use crate::gateway::{Gateway, with_pool};
use crate::raw::{Message, Raw, frame};

/// One client's connection, which speaks in short.
pub(crate) struct Client(pub(crate) Raw);

impl Client {
    pub(crate) fn new(gateway: &Gateway, settings: &[(&str, &str)]) -> Self {
        let mut raw = Raw::connect(gateway);
        let mut parameters = vec![("user", "app_rw"), ("database", "orders")];
        parameters.extend(settings);
        raw.send(&startup_message(ProtocolVersion::V3_0, &parameters));
        raw.until('Z');
        Self(raw)
    }

    /// Says all at once and tells the answers in short. `Q text`; `P name text`; `B name`, which also executes; `D name`; `C name`; `H`; `S`, and `void` if the
    /// server must ignore it; `d text`, whose lines end with `/`; `c`.
    /// The unnamed statement is `-`.
    pub(crate) fn say(&mut self, said: &[&str]) -> String {
        let mut bytes = Vec::new();
        let mut readies = 0;
        for message in said {
            let (tag, rest) = message.split_once(' ').unwrap_or((message, ""));
            let named = |name: &str| [name.trim_matches('-').as_bytes(), b"\0"].concat();
            match tag {
                "Q" => bytes.extend(frame('Q', &[rest.as_bytes(), b"\0"].concat())),
                "P" => {
                    let (name, text) = rest.split_once(' ').unwrap();
                    let body = [&named(name)[..], text.as_bytes(), &[0; 3]].concat();
                    bytes.extend(frame('P', &body));
                }
                "B" => {
                    bytes.extend(frame('B', &[&[0], &named(rest)[..], &[0; 6]].concat()));
                    bytes.extend(frame('E', &[0; 5]));
                }
                "D" => bytes.extend(frame('D', &[b"S", &named(rest)[..]].concat())),
                "C" => bytes.extend(frame('C', &[b"S", &named(rest)[..]].concat())),
                "d" => bytes.extend(frame('d', rest.replace('/', "\n").as_bytes())),
                "c" => bytes.extend(frame('c', b"")),
                "void" => bytes.extend(frame('S', b"")),
                "H" => bytes.extend(frame('H', b"")),
                _ => bytes.extend(frame('S', b"")),
            }
            readies += usize::from(matches!(tag, "Q" | "S"));
        }
        self.0.send(&bytes);
        self.told(readies)
    }

    /// So many answers in short.
    pub(crate) fn told(&mut self, readies: usize) -> String {
        let answers: Vec<Message> = (0..readies).flat_map(|_| self.0.until('Z')).collect();
        told(&answers)
    }

    /// Says all at once and waits for the first answer only.
    pub(crate) fn say_and_go_on(&mut self, said: &[&str]) -> String {
        let bytes: Vec<u8> = said
            .iter()
            .flat_map(|text| frame('Q', &[text.as_bytes(), b"\0"].concat()))
            .collect();
        self.0.send(&bytes);
        self.told(1)
    }
}

fn told(answers: &[Message]) -> String {
    let mut told = String::new();
    for message in answers {
        let text = |from: usize| {
            String::from_utf8_lossy(message.body.get(from..).unwrap_or_default())
                .trim_end_matches('\0')
                .replace('\0', "=")
        };
        let _ = match message.tag {
            'D' => write!(told, "({}) ", text(6)),
            'C' => write!(told, "{} ", text(0)),
            'E' => write!(told, "{} ", message.field(b'C').unwrap()),
            'S' => write!(told, "[{}] ", text(0)),
            'Z' => write!(told, "{} ", text(0)),
            _ => Ok(()),
        };
    }
    told.trim_end().to_owned()
}

pub(crate) const ONE: &str = "mode = \"auto\"\nsize = 1";

/// As many clients as are asked for.
pub(crate) fn clients<const N: usize>(gateway: &Gateway) -> [Client; N] {
    std::array::from_fn(|_| Client::new(gateway, &[]))
}

/// A function that sets a setting for whoever calls it.
pub(crate) fn sets(name: &str) -> String {
    format!(
        "create or replace function {name}() returns text language sql as \
         $$ select set_config('app.{name}', 'evil', false) $$"
    )
}

/// Asks for that setting.
pub(crate) fn seen(name: &str) -> String {
    format!("Q select coalesce(current_setting('app.{name}', true), '')")
}

/// What `random()` begins with after the seed that tests set, as `client` is told it.
pub(crate) fn after_seed(client: &mut Client) -> String {
    let told = client.say(&["Q set seed = 0.5", "Q select random()"]);
    settled();
    told.split(['(', ')']).nth(1).unwrap().to_owned()
}

/// Long enough for connections to be given back that clients have had their answers on: the last one is lent first.
pub(crate) fn settled() {
    std::thread::sleep(std::time::Duration::from_millis(200));
}

/// A lab in whose database `app_rw` may create what it likes, and a gateway before it with this pool.
pub(crate) fn with_free_pool(pool: &'static str) -> (Lab, Gateway) {
    let (lab, gateway) = with_pool(pool);
    lab.superuser_sql("grant create on database orders to app_rw")
        .unwrap();
    (lab, gateway)
}
