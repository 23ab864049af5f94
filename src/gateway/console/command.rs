//! What can be said at the console: PgBouncer's commands, by its names, and ours.

use super::show::Show;
use crate::policy::Console;

/// What a question for databases has in it that psql asks for `\l` (`listAllDbs`, `bin/psql/describe.c` of PostgreSQL).
const LIST: &str = "from pg_catalog.pg_database d";

/// Settings that drivers set wherever they come.
const DRIVERS_SET: [&str; 6] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "timezone",
];

/// What somebody may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::gateway) enum Level {
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

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Empty,
    Show(Show),
    /// A driver sets what means nothing here.
    Set,
    Act(Act),
    /// PgBouncer has it, and there is a reason why it isn't here.
    NotApplicable(&'static str),
}

/// What changes something. Pools are named as SHOW DATABASES does, or by their target; without a name it is all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    KillClient(String),
    KillPerson(String),
    KillSession(String),
    Kill(Option<String>),
    Pause(Option<String>),
    Resume(Option<String>),
    Reconnect(Option<String>),
    Disable(String),
    Enable(String),
    WaitClose(Option<String>),
    Drain(String),
    Reload,
    Shutdown,
    ShutdownWaitForServers,
}

impl Command {
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let (first, rest) = split(text);
        let (second, name) = split(rest);
        let words = (first.to_ascii_lowercase(), second.to_ascii_lowercase());
        let maybe = || Some(named(rest));
        Some(match (words.0.as_str(), words.1.as_str()) {
            ("", _) => Self::Empty,
            ("select", _) if is_list(text) => Self::Show(Show::Targets),
            ("show", "fds" | "sockets" | "active_sockets") => Self::NotApplicable(
                "clients and servers are shown by SHOW CLIENTS and SHOW SERVERS; sockets aren't handed to another process",
            ),
            ("show", what) if name.is_empty() => Self::Show(Show::of(what)?),
            ("set", _) => Self::set(rest)?,
            ("kill_client", _) => Self::Act(Act::KillClient(named(rest)?)),
            ("kill", "person") => Self::Act(Act::KillPerson(named(name)?)),
            ("kill", "session") => Self::Act(Act::KillSession(named(name)?)),
            ("kill", _) => Self::Act(Act::Kill(maybe()?)),
            ("pause", _) => Self::Act(Act::Pause(maybe()?)),
            ("resume", _) => Self::Act(Act::Resume(maybe()?)),
            ("reconnect", _) => Self::Act(Act::Reconnect(maybe()?)),
            ("disable", _) => Self::Act(Act::Disable(named(rest)?)),
            ("enable", _) => Self::Act(Act::Enable(named(rest)?)),
            ("drain", _) => Self::Act(Act::Drain(named(rest)?)),
            ("wait_close", _) => Self::Act(Act::WaitClose(maybe()?)),
            ("reload", "") => Self::Act(Act::Reload),
            ("shutdown", "") => Self::Act(Act::Shutdown),
            ("shutdown", "wait_for_servers") if name.is_empty() => Self::Act(Act::ShutdownWaitForServers),
            ("shutdown", "wait_for_clients") => Self::NotApplicable(
                "clients of pools stay for days; SHUTDOWN WAIT_FOR_SERVERS lets their transactions end, and they connect again",
            ),
            ("suspend", _) => Self::NotApplicable(
                "no process takes over sockets; PAUSE holds clients, and SHUTDOWN WAIT_FOR_SERVERS lets them go between two transactions",
            ),
            _ => return None,
        })
    }

    fn set(rest: &str) -> Option<Self> {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace())?;
        let name = rest.get(..end)?.to_ascii_lowercase();
        Some(if DRIVERS_SET.contains(&name.as_str()) {
            Self::Set
        } else {
            Self::NotApplicable("what counts is what the configuration file says: change it there and RELOAD")
        })
    }

    /// Whether it isn't done before clients have done something.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Act(Act::Pause(_) | Act::WaitClose(_)))
    }

    /// For whom it is.
    pub(super) fn needs(&self) -> Level {
        match self {
            Self::Empty | Self::Set | Self::NotApplicable(_) => Level::Own,
            Self::Show(show) => show.needs(),
            Self::Act(_) => Level::Admin,
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim_start())
}

/// A name, which may stand in quotes.
fn named(name: &str) -> Option<String> {
    let unquoted = |quote: char| name.strip_prefix(quote)?.strip_suffix(quote);
    let name = unquoted('\'').or_else(|| unquoted('"')).unwrap_or(name);
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn is_list(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let rest = text.split_once(LIST).map(|(_, rest)| rest);
    rest.is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        let name = |name: &str| name.to_owned();
        for (text, command) in [
            (" ; ", Some(Command::Empty)),
            ("show CLIENTS;", Some(Command::Show(Show::Clients))),
            ("show targets", Some(Command::Show(Show::Targets))),
            (
                "SELECT d.datname as \"Name\"\nFROM pg_catalog.pg_database d\nORDER BY 1;",
                Some(Command::Show(Show::Targets)),
            ),
            ("SELECT * FROM pg_catalog.pg_database db", None),
            ("show clients; reload", None),
            ("show", None),
            (
                "KILL person 'alice@example.com' ;",
                Some(Command::Act(Act::KillPerson(name("alice@example.com")))),
            ),
            (
                "kill person 'scram:a  b'",
                Some(Command::Act(Act::KillPerson(name("scram:a  b")))),
            ),
            ("kill person", None),
            (
                "kill session a-1",
                Some(Command::Act(Act::KillSession(name("a-1")))),
            ),
            (
                "KILL_CLIENT 0000002a",
                Some(Command::Act(Act::KillClient(name("0000002a")))),
            ),
            ("kill_client", None),
            ("kill orders", Some(Command::Act(Act::Kill(Some(name("orders")))))),
            ("kill", Some(Command::Act(Act::Kill(None)))),
            (
                "PAUSE \"orders/a b\"",
                Some(Command::Act(Act::Pause(Some(name("orders/a b"))))),
            ),
            ("disable", None),
            ("reload", Some(Command::Act(Act::Reload))),
            ("reload now", None),
            (
                "shutdown wait_for_servers",
                Some(Command::Act(Act::ShutdownWaitForServers)),
            ),
            ("SET extra_float_digits = 3", Some(Command::Set)),
            ("set", None),
            ("select 1", None),
        ] {
            assert_eq!(Command::read(text), command, "{text}");
        }
        for text in ["SET pool_size = 5", "suspend", "show fds"] {
            assert!(
                matches!(Command::read(text), Some(Command::NotApplicable(_))),
                "{text}"
            );
        }
    }
}
