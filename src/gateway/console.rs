//! The console: the database `postern`.
//!
//! It speaks PostgreSQL's simple and extended query protocol. Whoever may use anything may see what that is. Whom a rule lets look sees who is
//! in and what pools do; whom one lets act ends connections, pauses pools and has the configuration read again, and each of these commands
//! is recorded.

mod act;
mod clients;
mod command;
mod extended;
mod pools;
mod show;
mod stats;
mod table;
mod visit;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::time::Instant;
use tracing::info;

use super::clients::Client;
use super::error::ClientError;
use super::identify::Identified;
use super::negotiate::Conversation;
use super::offers::Offers;
use super::presence::{Admission, Presence};
use super::shard::Shard;
use crate::audit::Event;
use crate::config::CONSOLE;
use crate::ids::{DbUser, PoolKey};
use crate::net::stream::Stream;
use crate::wire::reply::{self, Report, Severity};
use crate::wire::sqlstate;
use command::Command;
pub(super) use command::Level;
use extended::{Portal, Wrong};
pub(super) use stats::Averages;

/// Those of one principal.
const MAX_OWN_VISITS: usize = 8;

/// Visits at a time, of those who may act, of those who may look and of others; each may have one answer of some MB under way.
const MAX_VISITS: usize = 16;

/// How long who only sees what he may use stays.
const LONGEST_OWN: Duration = Duration::from_secs(60);

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
            let offers = Offers::to(&identified, &in_force.rules, &shard.targets());
            Some((offers.offers.first()?.users.first()?.1, Level::Own))
        });
    let Some((rule, level)) = level else {
        let asked = [CONSOLE, CONSOLE, user.as_str()];
        let error = ClientError::not_admitted(&identified.principal, asked, &Offers::default());
        return Err(Box::new((identified, error)));
    };
    let (mut visits, mut own) = (0, 0);
    shard.clients.each(|_, presence| {
        // Whoever looks takes no place of those who act, and nobody all of those of his kind.
        if presence.console == Some(level) {
            visits += 1;
            own += usize::from(presence.principal == identified.principal);
        }
    });
    let most = if visits >= MAX_VISITS {
        MAX_VISITS
    } else {
        MAX_OWN_VISITS
    };
    if visits >= MAX_VISITS || own >= MAX_OWN_VISITS {
        return Err(Box::new((identified, ClientError::too_many_at_console(most))));
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

/// The commands, as HELP has them.
fn help() -> String {
    format!(
        "SHOW {}; for whom a rule says console = \"admin\" also KILL_CLIENT id, KILL PERSON 'name or principal', KILL SESSION 'session of Session \
         Manager', and KILL, PAUSE, RESUME, RECONNECT, WAIT_CLOSE [database], DISABLE, ENABLE, DRAIN database, RELOAD, SHUTDOWN [WAIT_FOR_SERVERS]",
        show::names()
    )
}

fn no_such_command() -> Report {
    let hint = format!("There are {}.", help());
    refusal(sqlstate::SYNTAX_ERROR, "there is no such command", &hint)
}

/// What is wrong with a message of the extended protocol.
fn wrong(wrong: Wrong) -> Report {
    match wrong {
        Wrong::Command => no_such_command(),
        Wrong::Layout => refusal(
            sqlstate::PROTOCOL_VIOLATION,
            "a message isn't laid out as the protocol says",
            "The client's library may be at fault.",
        ),
        Wrong::Parameters => refusal(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "the console's commands have no parameters",
            "Write the value into the command.",
        ),
        Wrong::Name => refusal(
            sqlstate::INVALID_SQL_STATEMENT_NAME,
            "there is no prepared statement or portal of that name",
            "Prepare it first.",
        ),
        Wrong::TooMany => refusal(
            sqlstate::TOO_MANY_CONNECTIONS,
            "too many prepared statements",
            "Close those that aren't needed any more.",
        ),
    }
}

/// Does what `portal` says; whether that went well. `describes`: the rows are described before they are sent.
async fn run(
    shard: &Rc<Shard>,
    client: &Client,
    portal: &Portal,
    level: Level,
    describes: bool,
    out: &mut BytesMut,
) -> bool {
    let Portal {
        text,
        command,
        formats,
    } = portal;
    if command.needs() > level {
        shard
            .shared
            .audit
            .record_unasked(|| told(client, text, "refused"));
        reply::report(&not_allowed(command.needs(), level), out);
        return false;
    }
    match command {
        Command::Empty => reply::empty_query(out),
        Command::Set => reply::command_complete("SET", out),
        Command::NotApplicable(why) => {
            let message = "this command of PgBouncer's isn't there";
            let report = Report {
                detail: Some((*why).to_owned()),
                ..refusal(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    message,
                    &format!("There are {}.", help()),
                )
            };
            reply::report(&report, out);
            return false;
        }
        Command::Show(show) => {
            if let Some(table) = show.table(shard, client) {
                if describes {
                    reply::row_description(table.columns, formats, out);
                }
                table.write(formats, out);
            } else {
                let hint = format!("{}.", help());
                let help = refusal(sqlstate::SUCCESSFUL_COMPLETION, "the console's commands", &hint);
                let severity = Severity::Notice;
                reply::report(&Report { severity, ..help }, out);
            }
            reply::command_complete("SHOW", out);
        }
        Command::Act(act) => {
            if command.waits() {
                // Its end may not be seen.
                shard.shared.audit.record(|| told(client, text, "begun"));
            }
            let outcome = act.run(shard).await;
            let shown = match &outcome {
                Ok((tag, _)) => tag,
                Err(report) => &report.message,
            };
            info!(session = %client.session, command = text, outcome = shown, "console");
            shard.shared.audit.record(|| told(client, text, shown));
            match outcome {
                Ok((tag, notice)) => {
                    notice.iter().for_each(|notice| reply::report(notice, out));
                    reply::command_complete(&tag, out);
                }
                Err(report) => {
                    reply::report(&report, out);
                    return false;
                }
            }
        }
    }
    true
}

fn not_allowed(needed: Level, level: Level) -> Report {
    let (message, console) = match needed {
        Level::Admin if level == Level::Stats => (
            "the rule that admits you to the console lets you only look",
            "admin",
        ),
        Level::Admin => ("no rule lets you act at the console", "admin"),
        Level::Own | Level::Stats => ("no rule lets you look at this", "stats"),
    };
    let hint = format!("Ask whoever runs this gateway for a rule with console = \"{console}\".");
    refusal(sqlstate::INSUFFICIENT_PRIVILEGE, message, &hint)
}

/// With one blank where there are several: what it says can't be pushed out of sight.
fn shown(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ")
}

/// What is recorded of a command.
fn told(client: &Client, text: &str, outcome: &str) -> Event {
    Event::Command {
        session: client.session.to_string(),
        command: shown(text).chars().take(256).collect(),
        outcome: outcome.chars().take(512).collect(),
    }
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
