//! Targets: from what was typed of one to what is ready.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::check::{at_least_one, positive};
use super::discover::Discovery;
use super::duration::Written;
use super::error::ConfigError;
use super::{ClientTimeouts, Endpoint, PoolConfig, PoolOf, Target, Timeouts, file};
use crate::discovery::region_of;
use crate::iam::{self, Budget};
use crate::ids::{DbUser, TargetName};
use crate::pool::PoolMode;
use crate::tls;

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// The shortest lifetime of a server connection: below it, the login budget is spent on replacements.
const LIFETIME_LEAST: Duration = Duration::from_secs(1);

/// A new process doesn't know what its predecessor spent; it comes up to its full rate over this time.
const SLOW_START: Duration = Duration::from_secs(10);

/// A target as far as the file says where it is.
pub(super) enum Typed {
    /// All of it.
    Whole(Target),
    /// RDS is to be asked.
    Discovered(Discovery),
}

/// `is_understood`: what clients send is, whatever the pools' modes.
pub(super) fn target(
    typed: &file::Target,
    roots: &tls::Roots,
    is_understood: bool,
) -> Result<Typed, ConfigError> {
    let key = |name: &str| format!("targets.{}.{name}", typed.name);
    let stars = match &typed.discover {
        Some(file::Discover { tags: Some(_), .. }) => 1,
        _ => 0,
    };
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
    if typed.name.is_empty() || !typed.name.chars().all(is_good) || typed.name.matches('*').count() != stars {
        let expected = match stars {
            0 => "letters, digits, '-', '_' and '.'",
            _ => "those of many targets: letters, digits, '-', '_', '.', and one '*' for what RDS calls each",
        };
        let message = format!("\"{}\" can't be a name; expected {expected}", typed.name);
        return Err(ConfigError::value("targets.name", message));
    }
    let region = match &typed.region {
        Some(region) if !is_region(region) => {
            let message = format!("\"{region}\" is not a region; expected one such as \"eu-west-1\"");
            return Err(ConfigError::value(key("region"), message));
        }
        region => region.clone(),
    };
    match (&typed.endpoint, &typed.discover) {
        (Some(text), None) => {
            let endpoint = endpoint(text).map_err(|message| ConfigError::value(key("endpoint"), message))?;
            let region = match region.or_else(|| region_of(&endpoint.host).map(str::to_owned)) {
                Some(region) => region,
                None => {
                    let message = format!(
                        "is missing, and \"{}\" doesn't end in REGION.rds.amazonaws.com",
                        endpoint.host
                    );
                    return Err(ConfigError::value(key("region"), message));
                }
            };
            ready(typed, endpoint, region, roots, is_understood).map(Typed::Whole)
        }
        (None, Some(discover)) => {
            // Wherever it will be: all else is checked now.
            let anywhere = Endpoint {
                host: "not-found-yet".to_owned(),
                port: DEFAULT_PORT,
            };
            let authorities = match &typed.tls_ca_file {
                Some(path) => {
                    authorities(path).map_err(|message| ConfigError::value(key("tls_ca_file"), message))?
                }
                None => roots.clone(),
            };
            let target = ready(typed, anywhere, String::new(), roots, is_understood)?;
            Discovery::new(discover, region, target, authorities).map(Typed::Discovered)
        }
        (Some(_), Some(_)) => Err(ConfigError::value(
            key("discover"),
            "is there beside endpoint; expected one of the two",
        )),
        (None, None) => Err(ConfigError::value(
            key("endpoint"),
            "is missing; expected HOST or HOST:PORT as RDS shows it, or discover = { cluster = \"…\" }",
        )),
    }
}

fn ready(
    typed: &file::Target,
    endpoint: Endpoint,
    region: String,
    roots: &tls::Roots,
    is_understood: bool,
) -> Result<Target, ConfigError> {
    let key = |name: &str| format!("targets.{}.{name}", typed.name);
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

pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
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

fn connector(host: &str, ca_file: Option<&Path>, rds: &tls::Roots) -> Result<tls::Connector, String> {
    let connector = match ca_file {
        Some(path) => tls::Connector::new(host, &authorities(path)?),
        None => tls::Connector::new(host, rds),
    };
    connector.map_err(|error| error.to_string())
}

fn authorities(path: &Path) -> Result<tls::Roots, String> {
    tls::Roots::from_file(path).map_err(|error| format!("{}: {error}", path.display()))
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
