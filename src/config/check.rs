//! From what was typed to what is ready: every value is checked here, once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::duration::Written;
use super::error::ConfigError;
use super::file::{self, File, Switchable};
use super::identity::identity;
use super::rules::rules;
use super::target::{Typed, target};
use super::{Audit, Config, Endpoint, Limits, Log, Target, discover};
use crate::identity::Source;
use crate::policy::Recorded;
use crate::tls;
use tracing_subscriber::EnvFilter;

/// The database that is the console.
pub const CONSOLE: &str = "postern";

/// The most that a count may be; beyond it is a typing error.
const MAX_COUNT: usize = 1_000_000;

/// The longest that a duration may be; beyond it is a typing error.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn config(file: &File) -> Result<Config, ConfigError> {
    if file.targets.is_empty() {
        return Err(ConfigError::value(
            "targets",
            "there is none; expected at least one [[targets]] with name, endpoint, databases and users",
        ));
    }
    let roots = tls::Roots::rds()
        .map_err(|error| ConfigError::value("built-in RDS authorities", error.to_string()))?;
    let rules = rules(&file.rules)?;
    if file.audit.is_none()
        && let Some(number) = file.rules.iter().position(|rule| rule.statements != Recorded::No)
    {
        return Err(ConfigError::value(
            format!("rules[{number}].statements"),
            "wants statements recorded, and there is no audit log: add [audit] with file",
        ));
    }
    let (mut targets, mut discoveries) = (Vec::new(), Vec::new());
    let mut names = HashSet::new();
    for typed in &file.targets {
        if !names.insert(&typed.name) {
            return Err(ConfigError::value(
                "targets",
                format!("the name \"{}\" is there twice", typed.name),
            ));
        }
        match target(typed, &roots, rules.need_understanding(&typed.name))? {
            Typed::Whole(target) => targets.push(Arc::new(target)),
            Typed::Discovered(discovery) => discoveries.push(discovery),
        }
    }
    let mut budgets: HashMap<&Endpoint, &Target> = HashMap::new();
    for target in &targets {
        if let Some(other) = budgets.insert(&target.endpoint, target)
            && other.budget != target.budget
        {
            let message = format!(
                "differs from that of target \"{}\", which has the same endpoint: it has one budget",
                other.name
            );
            return Err(ConfigError::value(
                format!("targets.{}.iam", target.name),
                message,
            ));
        }
    }
    let has_console = |target: &&file::Target| target.databases.iter().any(|name| name == CONSOLE);
    if let Some(target) = file.targets.iter().find(has_console)
        && file.rules.iter().any(|rule| rule.console.is_some())
    {
        let message = format!(
            "has \"{CONSOLE}\", which is the console where no target is named: give no rule console, or leave it out"
        );
        return Err(ConfigError::value(
            format!("targets.{}.databases", target.name),
            message,
        ));
    }
    let of_targets = targets.iter().map(|target| Some(target.region.clone()));
    let regions = of_targets.chain(
        discoveries
            .iter()
            .map(|discovery| discovery.search.region.clone()),
    );
    let regions: Option<BTreeSet<String>> = regions.collect();
    let listen = &file.listen;
    let addresses = addresses(file)?;
    let open = addresses.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = open
        && file
            .identity
            .sources
            .iter()
            .any(|source| source == Source::Trust.name())
    {
        let message = format!(
            "\"trust\" lets in whoever reaches the port, and other hosts can reach {address} (listen); \
             listen on 127.0.0.1 and ::1 only, or use \"scram\""
        );
        return Err(ConfigError::value("identity.sources", message));
    }
    Ok(Config {
        listen: addresses,
        admin: match file.admin.http {
            Switchable::At(address) => Some(address),
            Switchable::Off(false) => None,
            Switchable::Off(true) => {
                return Err(ConfigError::value(
                    "admin.http",
                    "is true; expected an address such as \"127.0.0.1:9187\", or false",
                ));
            }
        },
        tls: acceptor(file.tls.as_ref())?,
        has_certificate: file.tls.is_some(),
        identity: identity(&file.identity, &regions.unwrap_or_default())?,
        rules: Arc::new(rules),
        limits: Limits {
            max_clients: at_least_one("listen.max_clients", listen.max_clients)?,
            login_timeout: positive("listen.login_timeout", listen.login_timeout)?,
            silent_timeout: positive("listen.silent_timeout", listen.silent_timeout)?,
            drain_timeout: at_most_a_year("listen.drain_timeout", listen.drain_timeout)?,
        },
        log: Log {
            format: file.log.format,
            level: log_level(&file.log.level)?,
        },
        audit: file.audit.as_ref().map(|audit| Audit {
            file: audit.file.clone(),
            on_full: audit.on_full,
        }),
        absent: discover::absent(&discoveries),
        targets,
        discoveries: discoveries.into(),
    })
}

/// Where clients may come, those places of which targets have for their own included.
fn addresses(file: &File) -> Result<Vec<SocketAddr>, ConfigError> {
    if file.listen.addresses.is_empty() {
        return Err(ConfigError::value(
            "listen.addresses",
            "is empty; expected at least one address",
        ));
    }
    let mut addresses = file.listen.addresses.clone();
    for target in &file.targets {
        let key = || format!("targets.{}.listen", target.name);
        for address in &target.listen {
            if address.port() == 0 {
                let message = format!("{address} has no port; expected one such as 5433");
                return Err(ConfigError::value(key(), message));
            }
            let is_same = |other: &&SocketAddr| {
                let is_any = other.ip().is_unspecified() || address.ip().is_unspecified();
                other.port() == address.port() && (is_any || other.ip() == address.ip())
            };
            if let Some(other) = addresses.iter().find(is_same) {
                let message =
                    format!("{address} is where {other} is, which leads elsewhere or is there twice");
                return Err(ConfigError::value(key(), message));
            }
            addresses.push(*address);
        }
    }
    Ok(addresses)
}

fn acceptor(tls: Option<&file::Tls>) -> Result<tls::Acceptor, ConfigError> {
    match tls {
        Some(files) => tls::Acceptor::from_files(&files.certificate_file, &files.key_file),
        None => tls::Acceptor::self_signed(),
    }
    .map_err(|error| ConfigError::value("tls", error.to_string()))
}

pub(super) fn at_least_one(key: &str, value: usize) -> Result<usize, ConfigError> {
    if !(1..=MAX_COUNT).contains(&value) {
        return Err(ConfigError::value(
            key,
            format!("is {value}; expected 1 to {MAX_COUNT}"),
        ));
    }
    Ok(value)
}

pub(super) fn positive(key: &str, value: Written) -> Result<Duration, ConfigError> {
    if value.0.is_zero() {
        return Err(ConfigError::value(key, "is 0; expected a duration above it"));
    }
    at_most_a_year(key, value)
}

fn at_most_a_year(key: &str, value: Written) -> Result<Duration, ConfigError> {
    if value.0 > YEAR {
        return Err(ConfigError::value(
            key,
            format!(
                "is {}; expected a year at most",
                humantime::format_duration(value.0)
            ),
        ));
    }
    Ok(value.0)
}

/// A filter that means nothing would switch the log off without a word.
fn log_level(text: &str) -> Result<String, ConfigError> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |text: &str| levels.contains(&text.to_ascii_lowercase().as_str());
    let good = !text.is_empty()
        && text
            .split(',')
            .map(str::trim)
            .all(|directive| match directive.rsplit_once('=') {
                Some((_, level)) => is_level(level),
                None => is_level(directive),
            });
    if good && EnvFilter::try_new(text).is_ok() {
        return Ok(text.to_owned());
    }
    let message = format!(
        "\"{text}\" is not a level or a filter; expected error, warn, info or debug, or as in \"info,postern::upstream=debug\""
    );
    Err(ConfigError::value("log.level", message))
}
