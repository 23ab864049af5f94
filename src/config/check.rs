//! From what was typed to what is ready: every value is checked here, once.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::duration::Written;
use super::error::ConfigError;
use super::file::{self, File, Switchable};
use super::identity::identity;
use super::rules::rules;
use super::{Audit, ClientTimeouts, Config, Endpoint, Limits, Log, PoolConfig, PoolOf, Target, Timeouts};
use crate::iam::{self, Budget};
use crate::identity::Source;
use crate::ids::{DbUser, TargetName};
use crate::policy::Recorded;
use crate::pool::PoolMode;
use crate::tls;
use tracing_subscriber::EnvFilter;

/// The database that is the console.
pub const CONSOLE: &str = "postern";

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// The most that a count may be; beyond it is a typing error.
const MAX_COUNT: usize = 1_000_000;

/// The longest that a duration may be; beyond it is a typing error.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The shortest lifetime of a server connection: below it, the login budget is spent on replacements.
const LIFETIME_LEAST: Duration = Duration::from_secs(1);

/// A new process doesn't know what its predecessor spent; it comes up to its full rate over this time.
const SLOW_START: Duration = Duration::from_secs(10);

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
    let targets: Vec<Arc<Target>> = file
        .targets
        .iter()
        .map(|typed| target(typed, &roots, rules.need_understanding(&typed.name)).map(Arc::new))
        .collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    if let Some(twice) = targets.iter().find(|target| !names.insert(&target.name)) {
        return Err(ConfigError::value(
            "targets",
            format!("the name \"{}\" is there twice", twice.name),
        ));
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
    let has_console = |target: &&Arc<Target>| target.databases.iter().any(|name| name.as_str() == CONSOLE);
    if let Some(target) = targets.iter().find(has_console)
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
        identity: identity(&file.identity, &targets)?,
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
        targets,
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

/// `is_understood`: what clients send is, whatever the pools' modes.
fn target(typed: &file::Target, roots: &tls::Roots, is_understood: bool) -> Result<Target, ConfigError> {
    let key = |name: &str| format!("targets.{}.{name}", typed.name);
    if typed.name.is_empty()
        || !typed
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        let message = format!(
            "\"{}\" can't be a name; expected letters, digits, '-', '_' and '.'",
            typed.name
        );
        return Err(ConfigError::value("targets.name", message));
    }
    let endpoint =
        endpoint(&typed.endpoint).map_err(|message| ConfigError::value(key("endpoint"), message))?;
    let region = match (&typed.region, region_of(&endpoint.host)) {
        (Some(region), _) if is_region(region) => region.clone(),
        (Some(region), _) => {
            let message = format!("\"{region}\" is not a region; expected one such as \"eu-west-1\"");
            return Err(ConfigError::value(key("region"), message));
        }
        (None, Some(region)) => region.to_owned(),
        (None, None) => {
            let message = format!(
                "is missing, and \"{}\" doesn't end in REGION.rds.amazonaws.com",
                endpoint.host
            );
            return Err(ConfigError::value(key("region"), message));
        }
    };
    for (name, list) in [("databases", &typed.databases), ("users", &typed.users)] {
        if list.is_empty() || list.iter().any(|entry| entry.is_empty() || entry.contains('\0')) {
            return Err(ConfigError::value(
                key(name),
                "expected at least one name, and none of them empty",
            ));
        }
        let mut names = HashSet::new();
        if let Some(twice) = list.iter().find(|name| !names.insert(*name)) {
            return Err(ConfigError::value(
                key(name),
                format!("\"{twice}\" is there twice"),
            ));
        }
    }
    let users: Vec<DbUser> = typed.users.iter().map(|user| user.as_str().into()).collect();
    for user in &users {
        iam::encode_db_user(user)
            .map_err(|error| ConfigError::value(key("users"), format!("\"{user}\": {error}")))?;
    }
    let tls = connector(&endpoint.host, typed.tls_ca_file.as_deref(), roots)
        .map_err(|message| ConfigError::value(key("tls_ca_file"), message))?;
    let authorities = typed.tls_ca_file.as_deref().map(std::fs::read).transpose();
    let authorities =
        authorities.map_err(|error| ConfigError::value(key("tls_ca_file"), error.to_string()))?;
    let iam = &typed.iam;
    let budget = Budget::new(
        iam.logins_per_second,
        iam.burst.min(iam.logins_per_second),
        iam.logins_in_flight,
        SLOW_START,
    )
    .map_err(|error| ConfigError::value(key("iam"), error.to_string()))?;
    let pools = typed.pools.iter().enumerate();
    let pools =
        pools.map(|(number, of)| pool_of(of, typed, is_understood, &key(&format!("pools[{number}]"))));
    Ok(Target {
        name: TargetName::from(typed.name.as_str()),
        endpoint,
        listen: typed.listen.clone(),
        dial_address: typed.dial_address,
        region,
        tls,
        authorities: authorities.map(Arc::from),
        databases: typed.databases.iter().map(|name| name.as_str().into()).collect(),
        users,
        pool: pool(&typed.pool, is_understood, &key("pool"))?,
        other_pools: pools.collect::<Result<_, _>>()?,
        budget,
        timeouts: timeouts(&typed.timeouts, &key("timeouts"))?,
    })
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (
            host,
            port.parse()
                .map_err(|_| format!("\"{port}\" in \"{text}\" is not a port"))?,
        ),
        None => (text, DEFAULT_PORT),
    };
    let host = host.to_ascii_lowercase();
    let valid =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if host.parse::<std::net::IpAddr>().is_ok() || !host.split('.').all(valid) {
        return Err(format!(
            "\"{text}\" is not HOST or HOST:PORT; a token and a certificate need the endpoint's own name"
        ));
    }
    if port == 0 || port == 443 {
        // The signed text of a token would leave out the default port of https.
        return Err(format!("port {port} can't be used with IAM tokens"));
    }
    Ok(Endpoint { host, port })
}

/// Whether this may be the name of a region.
pub fn is_region(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The label before `rds.amazonaws.com` or `rds.amazonaws.com.cn` (RDS User Guide, "Finding the endpoint").
pub fn region_of(host: &str) -> Option<&str> {
    let rest = host
        .strip_suffix(".rds.amazonaws.com")
        .or_else(|| host.strip_suffix(".rds.amazonaws.com.cn"))?;
    rest.rsplit_once('.').map(|(_, region)| region)
}

fn connector(host: &str, ca_file: Option<&Path>, rds: &tls::Roots) -> Result<tls::Connector, String> {
    let connector = match ca_file {
        Some(path) => {
            let roots =
                tls::Roots::from_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
            tls::Connector::new(host, &roots)
        }
        None => tls::Connector::new(host, rds),
    };
    connector.map_err(|error| error.to_string())
}

/// `is_understood`: what clients send is, whatever the mode.
fn pool(typed: &file::Pool, is_understood: bool, key: &str) -> Result<PoolConfig, ConfigError> {
    let size = at_least_one(&format!("{key}.size"), typed.size)?;
    if typed.min_idle > size {
        let message = format!("is {}, more than size, which is {size}", typed.min_idle);
        return Err(ConfigError::value(format!("{key}.min_idle"), message));
    }
    Ok(PoolConfig {
        mode: typed.mode,
        is_shared: typed.mode != PoolMode::Session || is_understood,
        size,
        min_idle: typed.min_idle,
        idle_timeout: positive(&format!("{key}.idle_timeout"), typed.idle_timeout)?,
        lifetime: match positive(&format!("{key}.lifetime"), typed.lifetime)? {
            lifetime if lifetime < LIFETIME_LEAST => {
                return Err(ConfigError::value(
                    format!("{key}.lifetime"),
                    "is below 1s; the login budget would go into replacements",
                ));
            }
            lifetime => lifetime,
        },
        wait_timeout: positive(&format!("{key}.wait_timeout"), typed.wait_timeout)?,
    })
}

fn pool_of(
    of: &file::PoolOf,
    target: &file::Target,
    is_understood: bool,
    key: &str,
) -> Result<PoolOf, ConfigError> {
    let named = |what: &str, these: &[String], all: &[String]| {
        if let Some(unknown) = these.iter().find(|name| !all.contains(name)) {
            let message = format!("\"{unknown}\" is not among the target's {what}");
            return Err(ConfigError::value(format!("{key}.{what}"), message));
        }
        Ok(if these.is_empty() {
            all.to_vec()
        } else {
            these.to_vec()
        })
    };
    let databases = named("databases", &of.databases, &target.databases)?;
    let users = named("users", &of.users, &target.users)?;
    if of.databases.is_empty() && of.users.is_empty() {
        return Err(ConfigError::value(
            key,
            "names neither databases nor users; what counts for all belongs into pool",
        ));
    }
    let general = &target.pool;
    let size = of.size.unwrap_or(general.size);
    let typed = file::Pool {
        mode: of.mode.unwrap_or(general.mode),
        size,
        min_idle: of.min_idle.unwrap_or_else(|| general.min_idle.min(size)),
        idle_timeout: of.idle_timeout.unwrap_or(general.idle_timeout),
        lifetime: of.lifetime.unwrap_or(general.lifetime),
        wait_timeout: of.wait_timeout.unwrap_or(general.wait_timeout),
    };
    Ok(PoolOf {
        databases: databases.iter().map(|name| name.as_str().into()).collect(),
        users: users.iter().map(|name| name.as_str().into()).collect(),
        pool: pool(&typed, is_understood, key)?,
    })
}

fn timeouts(typed: &file::Timeouts, key: &str) -> Result<Timeouts, ConfigError> {
    let optional = |name: &str, value: Option<Written>| {
        let checked = value.map(|value| positive(&format!("{key}.{name}"), value));
        checked.transpose()
    };
    Ok(Timeouts {
        connect: positive(&format!("{key}.connect"), typed.connect)?,
        tls: positive(&format!("{key}.tls"), typed.tls)?,
        login: positive(&format!("{key}.login"), typed.login)?,
        reset: positive(&format!("{key}.reset"), typed.reset)?,
        client: ClientTimeouts {
            query: optional("query", typed.query)?,
            transaction: optional("transaction", typed.transaction)?,
            idle_in_transaction: optional("idle_in_transaction", typed.idle_in_transaction)?,
            client_idle: optional("client_idle", typed.client_idle)?,
        },
    })
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
