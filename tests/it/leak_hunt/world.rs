//! The gateway, the server, and every client twice: through the gateway in one database, direct in another. Without a
//! gateway both are direct, which puts the hunt itself to the test.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use postern_lab::{Database, Lab, LabConfig, SUPERUSER};

use super::client::{Done, Login, Step};
use super::wire::{NO_ANSWER, Shown, Wire};
use crate::gateway::{Gateway, Options};
use crate::raw::Message;

/// The database behind the gateway, and its twin.
const DATABASES: [&str; 2] = ["orders", "twin"];

/// How long the traces of a client that has left may last.
const PATIENCE: Duration = Duration::from_secs(20);

/// A difference between what a client was shown and what its twin was.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) text: String,
    /// The same for differences that are alike.
    pub(super) kind: String,
}

impl Difference {
    /// Whether a client was told that no server connection came free (53300), where its own server answered.
    pub(super) fn is_refusal(&self) -> bool {
        self.text.contains("C53300")
    }

    fn new(kind: String, about: &str, seen: &str, expected: &str) -> Self {
        let text = format!("  {about}\n  through the gateway: {seen}\n  direct:              {expected}");
        Self { text, kind }
    }

    fn named(name: &str, seen: &str, expected: &str) -> Self {
        Self::new(name.to_owned(), name, seen, expected)
    }
}

/// Everything that runs.
pub(super) struct World {
    clients: Vec<Pair>,
    /// One for each database.
    monitors: [Wire; 2],
    socket: PathBuf,
    gateway: Option<Gateway>,
    lab: Lab,
}

struct Pair {
    gateway: Wire,
    twin: Wire,
}

impl World {
    /// With as many clients as there are logins; `pool` is the gateway's, if there is to be one.
    pub(super) fn new(pool: Option<&'static str>, logins: &[Login]) -> Self {
        let lab = Lab::start(LabConfig {
            databases: DATABASES.map(|name| Database::new(name, "app_rw")).into(),
            ..LabConfig::default()
        })
        .unwrap();
        lab.superuser_sql("create role hunter").unwrap();
        for database in DATABASES {
            lab.postgres().sql(database, include_str!("schema.sql")).unwrap();
            // So that these names are known on every server connection, whoever has used it before.
            for name in ["app.tenant", "app.person", "app.event"] {
                lab.superuser_sql(&format!("alter database {database} set {name} = ''"))
                    .unwrap();
            }
        }
        let gateway = pool.map(|pool| {
            let options = Options {
                pool,
                users: &["app_rw"],
                log: "info,postern::gateway::multiplex=debug",
                ..Options::default()
            };
            Gateway::start(&lab, &options)
        });
        let socket = lab.postgres().socket();
        let monitors =
            DATABASES.map(|database| Wire::direct(&socket, &[("user", SUPERUSER), ("database", database)]).0);
        let mut world = Self {
            clients: Vec::new(),
            monitors,
            socket,
            gateway,
            lab,
        };
        for login in logins {
            let pair = world
                .log_in(*login)
                .unwrap_or_else(|difference| panic!("{}", difference.text));
            world.clients.push(pair);
        }
        world
    }

    /// Runs a step on both sides.
    pub(super) fn run(&mut self, client: usize, step: &Step) -> Result<Done, Difference> {
        match step {
            Step::Say { said, data, opaque } => {
                let Pair { gateway, twin } = &mut self.clients[client];
                let (mut seen, mut expected) = (Shown::default(), Shown::default());
                twin.send(said);
                gateway.send(said);
                while twin.read(&mut expected) {
                    twin.send(data);
                }
                while gateway.read(&mut seen) {
                    gateway.send(data);
                }
                compare(&mut seen, &mut expected, *opaque)?;
                Ok(Done {
                    status: twin.status,
                    open: twin.is_open(),
                    went_well: !expected.messages.iter().any(|message| message.tag == 'E'),
                })
            }
            Step::Leave { said, goodbye, login } => {
                let Pair {
                    mut gateway,
                    mut twin,
                } = self.clients.remove(client);
                for wire in [&mut twin, &mut gateway] {
                    wire.send(said);
                    if *goodbye {
                        wire.terminate();
                    }
                }
                let pids = [gateway.pid, twin.pid];
                drop((gateway, twin));
                self.wait_until_gone(pids)?;
                self.compare_locks()?;
                let pair = self.log_in(*login)?;
                self.clients.insert(client, pair);
                Ok(Done {
                    status: b'I',
                    open: false,
                    went_well: true,
                })
            }
        }
    }

    /// What other sessions can tell of the locks that are held.
    pub(super) fn compare_locks(&mut self) -> Result<(), Difference> {
        let sql = "select mode, classid, objid, objsubid from pg_locks where locktype = 'advisory' \
                   and database = (select oid from pg_database where datname = current_database()) order by 1, 2, 3, 4";
        let [seen, expected] = &mut self.monitors;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (seen, expected) = (rows(seen, sql), rows(expected, sql));
            if seen == expected {
                return Ok(());
            }
            // The server process of a connection that was closed takes its time to end.
            if Instant::now() > deadline {
                return Err(Difference::named(
                    "advisory locks",
                    &format!("{seen:?}"),
                    &format!("{expected:?}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets everybody leave; then nothing of theirs may be left.
    pub(super) fn end(mut self) -> Result<(), Difference> {
        for Pair { gateway, twin } in &mut self.clients {
            gateway.terminate();
            twin.terminate();
        }
        self.clients.clear();
        if let Some(gateway) = &self.gateway {
            gateway.wait_for_metric("postern_client_connections", &[], 0.0);
            assert_eq!(gateway.metric("postern_panics_total", &[]), 0.0);
        }
        self.compare_locks()?;
        let sql = "select relname from pg_class where relpersistence = 't' and relkind in ('r', 'S')";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = rows(&mut self.monitors[0], sql);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Difference::named(
                    "temporary tables at the end",
                    &format!("{left:?}"),
                    "none",
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the server connections of the gateway do.
    pub(super) fn servers(&self) -> String {
        let sql = "select pid, state, wait_event_type, wait_event, left(query, 200) from pg_stat_activity \
                   where datname = 'orders' and usename = 'app_rw' order by 1";
        let servers = self.lab.superuser_sql(sql);
        let log = self.gateway.as_ref().map(Gateway::log).unwrap_or_default();
        let begin = log.lines().count().saturating_sub(60);
        let log: Vec<_> = log.lines().skip(begin).collect();
        format!(
            "{}\nthe gateway's log:\n{}",
            servers.unwrap_or_else(|error| error.to_string()),
            log.join("\n")
        )
    }

    fn log_in(&self, login: Login) -> Result<Pair, Difference> {
        let parameters = |database: &'static str| {
            [
                &[("user", "app_rw"), ("database", database)][..],
                login.parameters(),
            ]
            .concat()
        };
        let (gateway, mut seen) = match &self.gateway {
            Some(gateway) => Wire::through(gateway, &parameters(DATABASES[0])),
            None => Wire::direct(&self.socket, &parameters(DATABASES[0])),
        };
        let (twin, mut expected) = Wire::direct(&self.socket, &parameters(DATABASES[1]));
        compare(&mut seen, &mut expected, false)?;
        Ok(Pair { gateway, twin })
    }

    /// Waits until the server process of a direct connection is gone and the gateway has done with the client.
    fn wait_until_gone(&mut self, pids: [u32; 2]) -> Result<(), Difference> {
        let deadline = Instant::now() + PATIENCE;
        let connected = self.clients.len() as f64;
        let [first, second] = &mut self.monitors;
        let is_there = |monitor: &mut Wire, pid| {
            !rows(
                monitor,
                &format!("select 1 from pg_stat_activity where pid = {pid}"),
            )
            .is_empty()
        };
        loop {
            let seen = match &self.gateway {
                Some(gateway) => gateway.metric("postern_client_connections", &[]) > connected,
                None => is_there(first, pids[0]),
            };
            let expected = is_there(second, pids[1]);
            if !seen && !expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Difference::named(
                    "a client has left and is still there",
                    &seen.to_string(),
                    &expected.to_string(),
                ));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

fn rows(monitor: &mut Wire, sql: &str) -> Vec<String> {
    let mut shown = Shown::default();
    monitor.send(&[super::wire::Said::Query(sql.to_owned())]);
    monitor.read(&mut shown);
    let rows = shown.messages.iter().filter(|message| message.tag == 'D');
    rows.map(|row| printable(&row.body)).collect()
}

fn compare(seen: &mut Shown, expected: &mut Shown, opaque: bool) -> Result<(), Difference> {
    let ends_early = |shown: &Shown| {
        shown
            .messages
            .last()
            .is_some_and(|message| message.tag == NO_ANSWER)
    };
    let hangs = ends_early(seen) || ends_early(expected);
    if seen == expected && !hangs {
        return Ok(());
    }
    for (seen, expected) in seen.messages.iter().zip(&mut expected.messages) {
        level_bind(seen, expected);
    }
    for shown in [&mut *seen, &mut *expected] {
        shown
            .messages
            .iter_mut()
            .for_each(|message| level(message, opaque));
        level_describe(&mut shown.messages);
        // The sender's process.
        shown
            .notifications
            .iter_mut()
            .for_each(|message| message.body[..4].fill(0));
    }
    if seen == expected && !hangs {
        return Ok(());
    }
    let (seen, expected) = (items(seen), items(expected));
    // Equal items at the beginning say nothing, unless there is nothing else.
    let pairs = seen.iter().zip(&expected);
    let same = pairs.take_while(|(seen, expected)| seen == expected).count();
    let same = if seen == expected { 0 } else { same };
    let rest = |items: &[String]| {
        items[same..]
            .iter()
            .take(12)
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let first = |items: &[String]| items.get(same).cloned().unwrap_or_default();
    let mut kind = format!("{} {}", first(&seen), first(&expected));
    kind.retain(|character| !character.is_ascii_digit());
    let about = format!("after {same} equal items");
    Err(Difference::new(kind, &about, &rest(&seen), &rest(&expected)))
}

/// Takes out of a message what can't be the same in two databases.
fn level(message: &mut Message, opaque: bool) {
    match message.tag {
        'E' | 'N' => level_report(message),
        'T' => level_columns(&mut message.body),
        't' => message.body[2..].chunks_exact_mut(4).for_each(level_oid),
        'D' if opaque => message.body.clear(),
        _ => {}
    }
}

/// A Bind with a wrong number of parameters is told so even if its transaction has failed or its tables aren't found any more;
/// but the server connection may not have its statement, and then it can't be prepared.
fn level_bind(seen: &Message, expected: &mut Message) {
    let state = |message: &Message| (message.tag == 'E').then(|| message.field(b'C')).flatten();
    let text = expected.field(b'M').unwrap_or_default();
    if state(expected).as_deref() == Some("08P01")
        && text.starts_with("bind message supplies")
        && matches!(state(seen).as_deref(), Some("25P02" | "42P01"))
    {
        expected.body.clone_from(&seen.body);
    }
}

/// What a statement returns can't be told where its names mean nothing; its parameters can, but only by a server connection
/// that has it.
fn level_describe(messages: &mut Vec<Message>) {
    let tags: Vec<char> = messages.iter().map(|message| message.tag).collect();
    let mut place = 0;
    messages.retain(|_| {
        place += 1;
        tags[place - 1] != 't' || tags.get(place) != Some(&'E')
    });
}

fn level_report(message: &mut Message) {
    let text = message.field(b'M').unwrap_or_default();
    let dropped = ["table ", "view ", "sequence "]
        .iter()
        .any(|kind| text.starts_with(kind));
    let fields = message.body.split(|byte| *byte == 0);
    let kept: Vec<_> = if text.contains(" does not exist") && (dropped || text.contains("pg_temp")) {
        // Whether there is a schema for temporary objects depends on what else has used the server connection.
        fields
            .filter(|field| matches!(field.first(), Some(b'S' | b'W')))
            .collect()
    } else {
        // Where in PostgreSQL's source it was raised is of no concern, nor which temporary schema it is about, nor that the
        // gateway has something to say to it.
        fields
            .filter(|field| !matches!(field.first(), None | Some(b'F' | b'L' | b'R')))
            .filter(|field| !field.starts_with(b"HIn a shared pool"))
            .filter(|field| !field.starts_with(b"spg_temp_"))
            .collect()
    };
    message.body = kept.join(&0);
}

/// Object identifiers from here on are given out as objects are made.
const FIRST_OWN_OID: u32 = 16_384;

fn level_oid(bytes: &mut [u8]) {
    let oid = u32::from_be_bytes(bytes.try_into().unwrap());
    bytes.copy_from_slice(&oid.min(FIRST_OWN_OID).to_be_bytes());
}

fn level_columns(body: &mut [u8]) {
    let mut rest = &mut body[2..];
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        // Table, column, type, its length, its modifier, format.
        let (column, after) = rest[end + 1..].split_at_mut(18);
        level_oid(&mut column[..4]);
        level_oid(&mut column[6..10]);
        rest = after;
    }
}

fn items(shown: &Shown) -> Vec<String> {
    let messages = shown.messages.iter();
    let reports = shown.reports.iter();
    let notifications = shown.notifications.iter();
    messages
        .map(|Message { tag, body }| format!("{tag}[{}]", printable(body)))
        .chain(reports.map(|(name, value)| format!("S[{}={}]", printable(name), printable(value))))
        .chain(notifications.map(|message| format!("A[{}]", printable(&message.body[4..]))))
        .collect()
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\x00", "·")
}
