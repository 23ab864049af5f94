//! The console: the database `postern`.
//!
//! It speaks the simple query protocol. Whoever may use anything may see what that is. Whom a rule lets look sees who is in; whom one lets
//! act ends connections and has the configuration read again, and each of these commands is recorded.

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::clients::Client;
use super::deadlines::Late;
use super::error::ClientError;
use super::identify::Identified;
use super::negotiate::Conversation;
use super::offers::Offers;
use super::presence::{Admission, Ending, Presence};
use super::pump::{End, Traffic};
use super::serve::{Departure, say};
use super::shard::{Shard, Shutdown};
use crate::audit::Event;
use crate::config::CONSOLE;
use crate::ids::{DbUser, PoolKey};
use crate::net::stream::Stream;
use crate::policy::Console;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::reply::{self, Report, Severity};
use crate::wire::sqlstate;

/// The longest command.
const MAX_COMMAND_BYTES: usize = 4_096;

/// Visits at a time, of those whom a rule lets in and of others; each may have one answer of some MB under way.
const MAX_VISITS: usize = 16;

/// How long who only sees what he may use stays.
const LONGEST_OWN: Duration = Duration::from_secs(60);

/// What a question for databases has in it that psql asks for `\l`.
const LIST: &str = "from pg_catalog.pg_database d";

/// The columns of SHOW TARGETS and `\l`.
const TARGETS: [&str; 3] = ["name", "users", "endpoint"];

/// What somebody may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// See what he may use.
    Own,
    /// Look.
    Stats,
    /// Look and act.
    Admin,
}

impl From<Console> for Level {
    fn from(console: Console) -> Self {
        match console {
            Console::Stats => Self::Stats,
            Console::Admin => Self::Admin,
        }
    }
}

/// What clients are told of a server that isn't one. Drivers look at the version; the texts are read as PostgreSQL reads them.
const PARAMETERS: [(&str, &str); 7] = [
    (
        "server_version",
        concat!("14.0 (Postern ", env!("CARGO_PKG_VERSION"), ")"),
    ),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

/// The columns of SHOW CLIENTS: PgBouncer's, as far as they apply, and then ours.
const CLIENTS: [&str; 13] = [
    "type",
    "user",
    "database",
    "addr",
    "port",
    "connect_time",
    "id",
    "target",
    "principal",
    "person",
    "ssm_session",
    "document",
    "rule",
];

const HELP: &str = "SHOW HELP | VERSION | TARGETS; for whom a rule says console = \"stats\" or \"admin\": SHOW CLIENTS; for whom it says \"admin\": \
     KILL_CLIENT id, KILL PERSON 'name or principal', KILL SESSION 'session of Session Manager', RELOAD";

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Empty,
    Help,
    Version,
    Targets,
    Clients,
    KillClient(String),
    KillPerson(String),
    KillSession(String),
    Reload,
}

impl Command {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        let (second, name) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let words = (first.to_ascii_lowercase(), second.to_ascii_lowercase());
        let named = |name: &str| {
            let name = name.trim_start();
            let quoted = name.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            Some(quoted.unwrap_or(name).to_owned()).filter(|name| !name.is_empty())
        };
        match (words.0.as_str(), words.1.as_str(), name) {
            ("", ..) => Some(Self::Empty),
            ("reload", "", _) => Some(Self::Reload),
            ("show", "help", "") => Some(Self::Help),
            ("show", "version", "") => Some(Self::Version),
            ("show", "targets", "") => Some(Self::Targets),
            ("show", "clients", "") => Some(Self::Clients),
            ("select", ..) if is_list(text) => Some(Self::Targets),
            ("kill_client", ..) => named(rest).map(Self::KillClient),
            ("kill", "person", name) => named(name).map(Self::KillPerson),
            ("kill", "session", name) => named(name).map(Self::KillSession),
            _ => None,
        }
    }

    /// For whom it is.
    fn needs(&self) -> Level {
        match self {
            Self::Empty | Self::Help | Self::Version | Self::Targets => Level::Own,
            Self::Clients => Level::Stats,
            Self::KillClient(_) | Self::KillPerson(_) | Self::KillSession(_) | Self::Reload => Level::Admin,
        }
    }
}

/// Whether psql asks for that when it is told `\l` (`listAllDbs`, `bin/psql/describe.c` of PostgreSQL).
fn is_list(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let rest = text.split_once(LIST).map(|(_, rest)| rest);
    rest.is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

/// Somebody whom a rule lets in at the console.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) conversation: Conversation,
    pub(super) presence: Rc<Presence>,
    pub(super) level: Level,
    /// When it must end.
    pub(super) ends: Option<Instant>,
}

/// One who was greeted.
pub(super) struct Visit {
    pub(super) stream: Stream,
    /// What it has sent.
    pub(super) received: Vec<u8>,
    pub(super) level: Level,
    pub(super) began: std::time::Instant,
    /// When it must end.
    pub(super) ends: Option<Instant>,
}

/// Takes the step that [`admit`](super::admit::admit) is for databases, for one who comes `from` there.
pub(super) fn admit(
    shard: &Shard,
    identified: Identified,
    user: DbUser,
    from: Option<SocketAddr>,
) -> Result<Visitor, Box<(Identified, ClientError)>> {
    let in_force = shard.in_force();
    let document = identified.session.as_ref().map(|session| &*session.document);
    let at = SystemTime::now();
    let by_rule = in_force.rules.decide_console(&identified.principal, document, at);
    let level = by_rule
        .map(|(rule, console)| (rule, Level::from(console)))
        .or_else(|| {
            let offers = Offers::to(&identified, &in_force.rules, &shard.shared.targets);
            Some((offers.offers.first()?.users.first()?.1, Level::Own))
        });
    let Some((rule, level)) = level else {
        let asked = [CONSOLE, CONSOLE, user.as_str()];
        let error = ClientError::not_admitted(&identified.principal, asked, &Offers::default());
        return Err(Box::new((identified, error)));
    };
    let mut visits = 0;
    shard.clients.each(|_, presence| {
        let is_alike = |other: Level| (other == Level::Own) == (level == Level::Own);
        visits += usize::from(presence.console.is_some_and(is_alike));
    });
    if visits >= MAX_VISITS {
        return Err(Box::new((
            identified,
            ClientError::too_many_at_console(MAX_VISITS),
        )));
    }
    let longest = match level {
        Level::Own => Some(LONGEST_OWN),
        Level::Stats | Level::Admin => in_force.rules.terms(rule, at).max_duration,
    };
    let Identified {
        conversation,
        principal,
        source,
        session,
        ..
    } = identified;
    let place = PoolKey {
        target: CONSOLE.into(),
        database: CONSOLE.into(),
        user,
    };
    let admission = Admission {
        in_force,
        rule,
        _seats: Box::default(),
    };
    let presence = Presence::new(principal, source, session, place, from, Some(level), admission);
    Ok(Visitor {
        conversation,
        presence: Rc::new(presence),
        level,
        ends: longest.map(|longest| Instant::now() + longest),
    })
}

/// AuthenticationOk, parameters, ReadyForQuery.
pub(super) fn greet(out: &mut BytesMut) {
    reply::authentication_ok(out);
    for (name, value) in PARAMETERS {
        reply::parameter_status(name, value, out);
    }
    reply::ready_for_query(out);
}

impl Visit {
    /// Serves it to its end.
    pub(super) async fn run(mut self, shard: &Rc<Shard>, client: &Client) {
        let mut traffic = Traffic::default();
        let departure = Departure::of(shard, client.session, self.began);
        let reason = self.serve(shard, client, &mut traffic).await;
        info!(session = %client.session, reason, "disconnect");
        departure.record(reason, &traffic);
    }

    /// Answers what it asks, one by one, until it goes, and says why it does.
    async fn serve(&mut self, shard: &Rc<Shard>, client: &Client, traffic: &mut Traffic) -> String {
        let mut is_skipping = false;
        loop {
            // Who goes on sending has to go all the same.
            if client.shutdown_now() != Shutdown::No {
                return self.leave(shard, Box::new(client.farewell())).await;
            }
            if self.ends.is_some_and(|ends| ends <= Instant::now()) {
                return self
                    .leave(shard, Box::new(ClientError::late(Late::Session)))
                    .await;
            }
            let mut out = BytesMut::new();
            match next_message(&mut self.received) {
                Err(why) => return why.to_owned(),
                Ok(Some((b'Q', text))) => {
                    run(shard, client, &text, self.level, &mut out).await;
                    reply::ready_for_query(&mut out);
                }
                Ok(Some((b'X', _))) => return End::Terminated.to_string(),
                Ok(Some((b'S', _))) => {
                    is_skipping = false;
                    reply::ready_for_query(&mut out);
                }
                Ok(Some((b'H', _))) => {}
                Ok(Some(_)) if is_skipping => {}
                Ok(Some(_)) => {
                    is_skipping = true;
                    let error = refusal(
                        sqlstate::FEATURE_NOT_SUPPORTED,
                        "the console speaks only the simple query protocol",
                        "Send commands without parameters, as psql does.",
                    );
                    reply::report(&error, &mut out);
                }
                Ok(None) => {
                    let stream = &mut self.stream;
                    let received = &mut self.received;
                    match unless_over(client, self.ends, stream.read_into(received)).await {
                        Ok(Ok(read)) if read > 0 => traffic.received += read as u64,
                        Ok(_) => return End::ClientLost.to_string(),
                        Err(farewell) => return self.leave(shard, farewell).await,
                    }
                }
            }
            traffic.sent += out.len() as u64;
            match unless_over(client, self.ends, self.stream.send(&out)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::ClientLost.to_string(),
                Err(farewell) => return self.leave(shard, farewell).await,
            }
            // Others have their turn.
            yield_now().await;
        }
    }

    async fn leave(&mut self, shard: &Shard, farewell: Box<ClientError>) -> String {
        say(shard, &mut self.stream, &farewell).await;
        farewell.report.message
    }
}

/// What comes of `step`, or what the client is told if it has to go before that.
async fn unless_over<T>(
    client: &Client,
    ends: Option<Instant>,
    step: impl Future<Output = T>,
) -> Result<T, Box<ClientError>> {
    let over = async {
        match ends {
            Some(ends) => sleep_until(ends).await,
            None => pending().await,
        }
    };
    tokio::select! {
        // What is answered first goes out first.
        biased;
        done = step => Ok(done),
        () = client.shutdown() => Err(Box::new(client.farewell())),
        () = over => Err(Box::new(ClientError::late(Late::Session))),
    }
}

/// Takes the first message out of what was received: its type, and its body as text. Nothing if it isn't there in full.
fn next_message(received: &mut Vec<u8>) -> Result<Option<(u8, String)>, &'static str> {
    let [tag, a, b, c, d, ..] = *received.as_slice() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_COMMAND_BYTES).contains(&length) {
        return Err("a message had a length that can't be");
    }
    if received.len() <= length {
        return Ok(None);
    }
    let message: Vec<u8> = received.drain(..=length).collect();
    let body = message.get(HEADER_BYTES..).unwrap_or_default();
    let text = body.strip_suffix(b"\0").unwrap_or(body);
    Ok(Some((tag, String::from_utf8_lossy(text).into_owned())))
}

async fn run(shard: &Rc<Shard>, client: &Client, text: &str, level: Level, out: &mut BytesMut) {
    let Some(command) = Command::read(text) else {
        let error = refusal(
            sqlstate::SYNTAX_ERROR,
            "there is no such command",
            &format!("There are {HELP}."),
        );
        return reply::report(&error, out);
    };
    if command.needs() > level {
        shard
            .shared
            .audit
            .record_unasked(|| told(client, text, "refused"));
        let (message, needed) = match command.needs() {
            Level::Admin if level == Level::Stats => (
                "the rule that admits you to the console lets you only look",
                "admin",
            ),
            Level::Admin => ("no rule lets you act at the console", "admin"),
            Level::Own | Level::Stats => ("no rule lets you look who is in", "stats"),
        };
        let hint = format!("Ask whoever runs this gateway for a rule with console = \"{needed}\".");
        return reply::report(&refusal(sqlstate::INSUFFICIENT_PRIVILEGE, message, &hint), out);
    }
    let outcome = match &command {
        Command::Empty => return reply::empty_query(out),
        Command::Help => {
            let help = Report {
                severity: Severity::Notice,
                ..refusal(
                    sqlstate::SUCCESSFUL_COMPLETION,
                    "the console's commands",
                    &format!("{HELP}."),
                )
            };
            reply::report(&help, out);
            Ok("SHOW".to_owned())
        }
        Command::Version => {
            reply::row_description(&["version"], out);
            reply::data_row(
                &[Some(concat!("Postern ", env!("CARGO_PKG_VERSION")).to_owned())],
                out,
            );
            Ok("SHOW".to_owned())
        }
        Command::Targets => {
            reply::row_description(&TARGETS, out);
            let rules = shard.in_force().rules;
            let note = |rule| {
                if rules.terms_of(rule).read_only {
                    " (read-only)"
                } else {
                    ""
                }
            };
            for offer in offers(shard, client).offers {
                let row = [offer.name(), offer.users(note), offer.target.endpoint.to_string()];
                reply::data_row(&row.map(Some), out);
            }
            Ok("SHOW".to_owned())
        }
        Command::Clients => {
            reply::row_description(&CLIENTS, out);
            shard.clients.each(|session, presence| {
                let row = row(&session.to_string(), presence);
                reply::data_row(&row, out);
            });
            Ok("SHOW".to_owned())
        }
        Command::KillClient(id) => Ok(kill(shard, |session, _| session == id)),
        Command::KillPerson(name) => Ok(kill(shard, |_, presence| {
            presence.principal.person() == Some(name) || presence.principal.to_string() == *name
        })),
        Command::KillSession(id) => Ok(kill(shard, |_, presence| {
            presence
                .session
                .as_ref()
                .is_some_and(|session| *session.id == **id)
        })),
        Command::Reload => shard.shared.reload().await.map(|told| {
            let notice = Report {
                severity: Severity::Notice,
                ..refusal(sqlstate::SUCCESSFUL_COMPLETION, &told, "")
            };
            reply::report(&Report { hint: None, ..notice }, out);
            "RELOAD".to_owned()
        }),
    };
    if command.needs() == Level::Admin {
        record(
            shard,
            client,
            text,
            outcome.as_ref().unwrap_or_else(|error| error),
        );
    }
    match outcome {
        Ok(tag) => reply::command_complete(&tag, out),
        Err(error) => {
            let error = refusal(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                &error,
                "Mend it and RELOAD again; until then, all goes on as before.",
            );
            reply::report(&error, out);
        }
    }
}

/// What the visitor may use by the rules that count now.
fn offers(shard: &Shard, client: &Client) -> Offers {
    let Some(presence) = client.presence() else {
        return Offers::default();
    };
    let document = presence.session.as_ref().map(|session| &*session.document);
    let rules = shard.in_force().rules;
    Offers::for_principal(&presence.principal, document, &rules, &shard.shared.targets)
}

/// Records what somebody does.
fn record(shard: &Shard, client: &Client, text: &str, outcome: &str) {
    info!(session = %client.session, command = text, outcome, "console");
    shard.shared.audit.record(|| told(client, text, outcome));
}

fn told(client: &Client, text: &str, outcome: &str) -> Event {
    Event::Command {
        session: client.session.to_string(),
        command: text.chars().take(256).collect(),
        outcome: outcome.chars().take(512).collect(),
    }
}

/// Ends the connections that are meant, but for those to the console. The answer has their number.
fn kill(shard: &Shard, is_meant: impl Fn(&str, &Presence) -> bool) -> String {
    let ended = shard.clients.each(|session, presence| {
        if presence.console.is_none() && is_meant(&session.to_string(), presence) {
            presence.end(Ending::Killed);
        }
    });
    format!("KILL {ended}")
}

fn row(id: &str, presence: &Presence) -> [Option<String>; CLIENTS.len()] {
    let session = presence.session.as_ref();
    let since = humantime::format_rfc3339_seconds(presence.since);
    let clock = since.to_string().replace('T', " ").replace('Z', " UTC");
    [
        Some("C".to_owned()),
        Some(presence.pool.user.to_string()),
        Some(presence.pool.database.to_string()),
        presence.address.map(|address| address.ip().to_string()),
        presence.address.map(|address| address.port().to_string()),
        Some(clock),
        Some(id.to_owned()),
        Some(presence.pool.target.to_string()),
        Some(presence.principal.to_string()),
        presence.principal.person().map(str::to_owned),
        session.map(|session| session.id.to_string()),
        session.map(|session| session.document.to_string()),
        Some(presence.admission.borrow().rule.to_string()),
    ]
}

fn refusal(state: sqlstate::SqlState, message: &str, hint: &str) -> Report {
    Report {
        severity: Severity::Error,
        state,
        message: message.to_owned(),
        detail: None,
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        for (text, command) in [
            (" ; ", Some(Command::Empty)),
            ("show CLIENTS;", Some(Command::Clients)),
            (
                "KILL person 'alice@example.com' ;",
                Some(Command::KillPerson("alice@example.com".to_owned())),
            ),
            ("kill session a-1", Some(Command::KillSession("a-1".to_owned()))),
            (
                "KILL_CLIENT 0000002a",
                Some(Command::KillClient("0000002a".to_owned())),
            ),
            (
                "kill person 'scram:a  b'",
                Some(Command::KillPerson("scram:a  b".to_owned())),
            ),
            ("reload", Some(Command::Reload)),
            ("show targets", Some(Command::Targets)),
            (
                "SELECT d.datname as \"Name\"\nFROM pg_catalog.pg_database d\nORDER BY 1;",
                Some(Command::Targets),
            ),
            ("SELECT * FROM pg_catalog.pg_database db", None),
            ("select 1", None),
            ("kill person", None),
            ("show clients; reload", None),
        ] {
            assert_eq!(Command::read(text), command, "{text}");
        }
    }
}
