//! The console: the database `postern`, for whom a rule lets in there.
//!
//! It speaks the simple query protocol. Who may look sees who is in; who may act ends connections and has the configuration read
//! again, and each of these commands is recorded.

use std::future::pending;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;
use tokio::time::sleep_until;
use tracing::info;

use super::clients::Client;
use super::deadlines::Late;
use super::error::ClientError;
use super::identify::Identified;
use super::presence::{Ending, InForce, Presence};
use super::pump::{End, Traffic};
use super::serve::{Departure, say};
use super::shard::Shard;
use crate::audit::Event;
use crate::config::CONSOLE;
use crate::ids::DbUser;
use crate::net::stream::Stream;
use crate::policy::Console;
use crate::wire::frame::Frames;
use crate::wire::reply::{self, Report, Severity};
use crate::wire::sqlstate;

/// The longest command.
const MAX_COMMAND_BYTES: u32 = 4_096;

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

const HELP: &str = "SHOW HELP | VERSION | CLIENTS; and for whom a rule says console = \"admin\": KILL_CLIENT id, KILL PERSON 'name or principal', \
     KILL SESSION 'session of Session Manager', RELOAD";

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Empty,
    Help,
    Version,
    Clients,
    KillClient(String),
    KillPerson(String),
    KillSession(String),
    Reload,
}

impl Command {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let words: Vec<&str> = text.split_whitespace().collect();
        let is = |place: usize, word: &str| {
            words
                .get(place)
                .is_some_and(|known| known.eq_ignore_ascii_case(word))
        };
        let named = |place: usize| {
            let name = words.get(place)?;
            let quoted = name.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            Some(quoted.unwrap_or(name).to_owned())
        };
        match words.len() {
            0 => Some(Self::Empty),
            1 if is(0, "reload") => Some(Self::Reload),
            2 if is(0, "show") && is(1, "help") => Some(Self::Help),
            2 if is(0, "show") && is(1, "version") => Some(Self::Version),
            2 if is(0, "show") && is(1, "clients") => Some(Self::Clients),
            2 if is(0, "kill_client") => named(1).map(Self::KillClient),
            3 if is(0, "kill") && is(1, "person") => named(2).map(Self::KillPerson),
            3 if is(0, "kill") && is(1, "session") => named(2).map(Self::KillSession),
            _ => None,
        }
    }

    /// Whether it only looks.
    fn looks(&self) -> bool {
        matches!(self, Self::Empty | Self::Help | Self::Version | Self::Clients)
    }
}

/// Somebody whom a rule lets in at the console.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) identified: Identified,
    pub(super) user: DbUser,
    pub(super) level: Console,
    pub(super) rule: usize,
    pub(super) in_force: InForce,
}

/// One who was greeted.
pub(super) struct Visit {
    pub(super) stream: Stream,
    /// What it has sent already.
    pub(super) early: Vec<u8>,
    pub(super) level: Console,
    pub(super) began: Instant,
    /// When it must end.
    pub(super) ends: Option<tokio::time::Instant>,
}

/// Takes the step that [`admit`](super::admit::admit) is for databases.
pub(super) fn admit(
    identified: Identified,
    user: DbUser,
    in_force: InForce,
) -> Result<Visitor, Box<(Identified, ClientError)>> {
    let document = identified.session.as_ref().map(|session| &*session.document);
    let decision = in_force
        .rules
        .decide_console(&identified.principal, document, SystemTime::now());
    match decision {
        Some((rule, level)) => Ok(Visitor {
            identified,
            user,
            level,
            rule,
            in_force,
        }),
        None => {
            let error = ClientError::not_admitted(&identified.principal, CONSOLE, CONSOLE, user.as_str());
            Err(Box::new((identified, error)))
        }
    }
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

    /// Answers what it asks until it goes, and says why it does.
    async fn serve(&mut self, shard: &Rc<Shard>, client: &Client, traffic: &mut Traffic) -> String {
        let (mut frames, mut is_skipping) = (Frames::default(), false);
        let mut input = std::mem::take(&mut self.early);
        loop {
            let mut out = BytesMut::new();
            let mut rest = &*input;
            traffic.received += rest.len() as u64;
            loop {
                let frame = match frames.next(&mut rest, |_| MAX_COMMAND_BYTES) {
                    Ok(None) => break,
                    Ok(Some(frame)) if frame.is_cut() => return "a command was too long".to_owned(),
                    Ok(Some(frame)) => frame,
                    Err(error) => return error.to_string(),
                };
                match frame.tag {
                    b'X' => return End::Terminated.to_string(),
                    b'Q' => {
                        let text = frame.body.strip_suffix(b"\0").unwrap_or(frame.body);
                        let text = String::from_utf8_lossy(text);
                        run(shard, client, &text, self.level, &mut out).await;
                        reply::ready_for_query(&mut out);
                    }
                    b'S' => {
                        is_skipping = false;
                        reply::ready_for_query(&mut out);
                    }
                    b'H' => {}
                    _ if is_skipping => {}
                    _ => {
                        is_skipping = true;
                        let error = refusal(
                            sqlstate::FEATURE_NOT_SUPPORTED,
                            "the console speaks only the simple query protocol",
                            "Send commands without parameters, as psql does.",
                        );
                        reply::report(&error, &mut out);
                    }
                }
            }
            input.clear();
            traffic.sent += out.len() as u64;
            let stream = &mut self.stream;
            let next = async {
                stream.send(&out).await?;
                stream.read_into(&mut input).await
            };
            let over = async {
                match self.ends {
                    Some(ends) => sleep_until(ends).await,
                    None => pending().await,
                }
            };
            let farewell = tokio::select! {
                // What is answered first goes out first.
                biased;
                read = next => match read {
                    Ok(0) | Err(_) => return End::ClientLost.to_string(),
                    Ok(_) => continue,
                },
                () = client.shutdown() => client.farewell(),
                () = over => ClientError::late(Late::Session),
            };
            say(shard, &mut self.stream, &farewell).await;
            return farewell.report.message;
        }
    }
}

async fn run(shard: &Rc<Shard>, client: &Client, text: &str, level: Console, out: &mut BytesMut) {
    let Some(command) = Command::read(text) else {
        let error = refusal(
            sqlstate::SYNTAX_ERROR,
            "there is no such command",
            &format!("There are {HELP}."),
        );
        return reply::report(&error, out);
    };
    if !command.looks() && level != Console::Admin {
        let error = refusal(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            "the rule that admits you to the console lets you only look",
            "Ask whoever runs this gateway for a rule with console = \"admin\".",
        );
        return reply::report(&error, out);
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
    if !command.looks() {
        let outcome = outcome.clone().unwrap_or_else(|error| error);
        info!(session = %client.session, command = text, outcome, "console");
        shard.shared.audit.record(|| Event::Command {
            session: client.session.to_string(),
            command: text.chars().take(256).collect(),
            outcome,
        });
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
            ("reload", Some(Command::Reload)),
            ("select 1", None),
            ("kill person", None),
            ("show clients; reload", None),
        ] {
            assert_eq!(Command::read(text), command, "{text}");
        }
    }
}
