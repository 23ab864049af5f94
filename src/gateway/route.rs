//! The third step: which target, which database, which user, which settings. Values are made canonical here, before
//! anybody decides on them: a database that isn't given is the user's name *now* and not after the check.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::ClientError;
use super::identify::Identified;
use crate::config::{Absent, CONSOLE, Target, region_of};
use crate::ids::{DatabaseName, DbUser, TargetName};
use crate::session::settings::Setting;
use crate::wire::options;

/// The setting that names a target.
const TARGET_SETTING: &str = "postern.target";

/// What a client asks for, in full.
#[derive(Debug)]
pub(super) struct Request {
    /// The target's name as the client gave it, or as it follows; there may be no such target. Nothing if it isn't clear which is meant.
    pub(super) target_name: Option<String>,
    /// The target, if there is one of that name.
    pub(super) target: Option<Arc<Target>>,
    /// The database, without a target's name before it.
    pub(super) database: DatabaseName,
    /// The database user.
    pub(super) user: DbUser,
    /// The settings for the session, each name once.
    pub(super) settings: Vec<Setting>,
}

/// Where a client wants to go.
#[derive(Debug)]
pub(super) enum Wanted {
    /// To a database.
    Database(Request),
    /// To the console, as a user of that name.
    Console(DbUser),
}

impl Wanted {
    /// Of the user of this name.
    pub(super) fn user(&self) -> &DbUser {
        match self {
            Self::Database(Request { user, .. }) | Self::Console(user) => user,
        }
    }
}

/// A client whose request is known.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) identified: Identified,
    pub(super) request: Request,
}

/// By which ways a client has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ways<'a> {
    /// The address at which it was accepted.
    pub(super) local: Option<SocketAddr>,
    /// The server name that it asked for by TLS.
    pub(super) server_name: Option<&'a str>,
}

impl Ways<'_> {
    /// The target whose own address that is, also if it isn't known where it is.
    fn own<'t>(&self, targets: &'t [Arc<Target>], absent: &'t [Absent]) -> Option<&'t TargetName> {
        let local = self.local?;
        let is_at = |address: &SocketAddr| {
            address.port() == local.port() && (address.ip() == local.ip() || address.ip().is_unspecified())
        };
        let there = targets.iter().map(|target| (&target.name, &target.listen));
        let mut all = there.chain(absent.iter().map(|absent| (&absent.name, &absent.listen)));
        all.find(|(_, listen)| listen.iter().any(is_at))
            .map(|(name, _)| name)
    }

    /// Whether the server name is that of an endpoint of RDS: one that no target has is none that any other target stands for.
    fn is_for_rds(&self) -> bool {
        let host = self.server_name.map(str::to_ascii_lowercase);
        host.is_some_and(|host| region_of(&host).is_some())
    }

    /// The target whose endpoint that is; if several have it, the name says nothing.
    fn named<'t>(&self, targets: &'t [Arc<Target>]) -> Option<&'t TargetName> {
        let host = self.server_name?;
        let mut named = targets
            .iter()
            .filter(|target| target.endpoint.host.eq_ignore_ascii_case(host));
        let first = named.next();
        first
            .filter(|_| named.next().is_none())
            .map(|target| &target.name)
    }
}

/// Takes the step. The first that applies names the target: the address at which the client was accepted, if a target has it for its own,
/// the TLS server name, `options=-c postern.target=NAME`, a database `NAME/database`, the only target there is, or would be if it were known
/// where it is; who asks by TLS for an endpoint of RDS that no target has doesn't mean the only one. The database `postern`, if none of the first three does, is the console.
pub(super) fn route(
    parameters: &[(String, String)],
    ways: Ways<'_>,
    targets: &[Arc<Target>],
    absent: &[Absent],
) -> Result<Wanted, ClientError> {
    let mut settings: Vec<Setting> = Vec::new();
    let (mut user, mut database) = (None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "user" => user = Some(value.as_str()),
            "database" => database = Some(value.as_str()),
            "replication" if is_false(value) => {}
            "replication" => return Err(ClientError::replication()),
            "options" => {
                let given = options::settings(value).map_err(|error| ClientError::switch(&error))?;
                given
                    .into_iter()
                    .for_each(|(name, value)| set(&mut settings, &name, &value));
            }
            _ => {}
        }
    }
    // As PostgreSQL does: parameters of their own win over those in `options`.
    for (name, value) in parameters {
        if !matches!(name.as_str(), "user" | "database" | "replication" | "options") {
            set(&mut settings, name, value);
        }
    }
    let user = user
        .filter(|user| !user.is_empty())
        .ok_or_else(ClientError::no_user)?;
    let database = database.filter(|database| !database.is_empty()).unwrap_or(user);
    let named = settings
        .iter()
        .position(|(name, _)| name == TARGET_SETTING)
        .map(|place| settings.remove(place).1);
    let by_way = ways.own(targets, absent).or_else(|| ways.named(targets));
    let known = targets.iter().map(|target| &target.databases);
    let mut databases = known
        .chain(absent.iter().map(|absent| &absent.databases))
        .flatten();
    if database == CONSOLE
        && by_way.is_none()
        && named.is_none()
        && !databases.any(|name| name.as_str() == CONSOLE)
    {
        return Ok(Wanted::Console(user.into()));
    }
    let only = match (targets, absent) {
        ([only], []) if !ways.is_for_rds() => Some(only.name.as_str()),
        ([], [only]) => only.only_name(),
        _ => None,
    };
    let (target_name, database) = match (by_way, named, database.split_once('/'), only) {
        (Some(name), ..) => (Some(name.to_string()), database),
        (None, Some(name), ..) => (Some(name), database),
        (None, None, Some((name, database)), _) => {
            let database = if database.is_empty() { user } else { database };
            (Some(name.to_owned()), database)
        }
        (None, None, None, only) => (only.map(str::to_owned), database),
    };
    let target = targets
        .iter()
        .find(|target| Some(target.name.as_str()) == target_name.as_deref())
        .cloned();
    Ok(Wanted::Database(Request {
        target_name,
        target,
        database: database.into(),
        user: user.into(),
        settings,
    }))
}

/// Names of settings have no case; the last value counts.
fn set(settings: &mut Vec<Setting>, name: &str, value: &str) {
    settings.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    settings.push((name.to_ascii_lowercase(), value.to_owned()));
}

/// The spellings of false that PostgreSQL's `parse_bool` takes, as far as drivers use them.
fn is_false(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "false" | "off" | "no" | "0" | "f" | "n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Those whose names begin with a `?` aren't known where they are.
    fn targets(names: &[&str]) -> Config {
        let mut text = "[identity]\nsources = [\"ssm\"]\n".to_owned();
        for name in names {
            let place = match name.strip_prefix('?') {
                None => format!("endpoint = \"{name}.x.us-east-1.rds.amazonaws.com\""),
                Some(name) => format!("discover = {{ cluster = \"{name}\" }}"),
            };
            let name = name.trim_start_matches('?');
            text.push_str(&format!(
                "[[targets]]\nname = \"{name}\"\n{place}\n\
                 databases = [\"d\"]\nusers = [\"u\"]\nlisten = [\"127.0.0.1:{}\", \"[::]:{}\"]\n",
                own_port(name),
                own_port(name) + 1,
            ));
        }
        Config::parse(&text, std::iter::empty()).unwrap()
    }

    /// 6001 of a, 6011 of b.
    fn own_port(name: &str) -> u16 {
        6_001 + 10 * u16::from(name.as_bytes()[0] - b'a')
    }

    fn ask(parameters: &[(&str, &str)], server_name: Option<&str>, names: &[&str]) -> Result<String, String> {
        ask_by(
            parameters,
            Ways {
                local: None,
                server_name,
            },
            names,
        )
    }

    fn ask_by(parameters: &[(&str, &str)], ways: Ways<'_>, names: &[&str]) -> Result<String, String> {
        let parameters: Vec<(String, String)> = parameters
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let config = targets(names);
        match route(&parameters, ways, &config.targets, &config.absent) {
            Ok(Wanted::Console(user)) => Ok(format!("console {user}")),
            Ok(Wanted::Database(Request {
                target_name,
                target,
                database,
                user,
                settings,
            })) => {
                let known = if target.is_some() { "" } else { "?" };
                let target_name = target_name.unwrap_or_default();
                Ok(format!("{target_name}{known} {database} {user} {settings:?}"))
            }
            Err(error) => Err(error.report.message),
        }
    }

    #[test]
    fn the_first_way_that_applies_names_the_target() {
        let two = &["a", "b"][..];
        let sni = Some("B.x.us-east-1.rds.amazonaws.com");
        let option = ("options", "-c postern.target=a");
        let user = ("user", "u");
        assert_eq!(
            ask(&[user, option, ("database", "a/d")], sni, two).unwrap(),
            "b a/d u []"
        );
        assert_eq!(
            ask(&[user, option, ("database", "b/d")], None, two).unwrap(),
            "a b/d u []"
        );
        assert_eq!(
            ask(&[user, ("database", "b/d")], Some("localhost"), two).unwrap(),
            "b d u []"
        );
        assert_eq!(ask(&[user, ("database", "b/")], None, two).unwrap(), "b u u []");
        assert_eq!(ask(&[user, ("database", "d")], None, &["a"]).unwrap(), "a d u []");
        assert_eq!(ask(&[user, ("database", "c/d")], None, two).unwrap(), "c? d u []");
        assert_eq!(ask(&[user, ("database", "d")], None, two).unwrap(), "? d u []");
        let postern = ("database", "postern");
        assert_eq!(ask(&[user, postern], None, two).unwrap(), "console u");
        assert_eq!(
            ask(&[user, option, postern], None, two).unwrap(),
            "a postern u []"
        );
        assert_eq!(ask(&[user, postern], sni, two).unwrap(), "b postern u []");
    }

    #[test]
    fn a_targets_own_address_leads_nowhere_else() {
        let two = &["a", "b"][..];
        let at = |local: &str, parameters: &[(&str, &str)]| {
            let ways = Ways {
                local: Some(local.parse().unwrap()),
                server_name: Some("a.x.us-east-1.rds.amazonaws.com"),
            };
            ask_by(parameters, ways, two).unwrap()
        };
        let user = ("user", "u");
        let option = ("options", "-c postern.target=a");
        assert_eq!(
            at("127.0.0.1:6011", &[user, option, ("database", "d")]),
            "b d u []"
        );
        assert_eq!(at("127.0.0.1:6011", &[user, ("database", "a/d")]), "b a/d u []");
        assert_eq!(
            at("127.0.0.1:6011", &[user, ("database", "postern")]),
            "b postern u []"
        );
        assert_eq!(at("[::1]:6012", &[user]), "b u u []");
        // Another address, the same port.
        assert_eq!(at("127.0.0.2:6011", &[user]), "a u u []");
    }

    #[test]
    fn what_is_not_known_where_it_is_leads_nowhere_else() {
        let user = ("user", "u");
        let at = |local: &str, names: &[&str]| {
            let ways = Ways {
                local: Some(local.parse().unwrap()),
                server_name: Some("a.x.us-east-1.rds.amazonaws.com"),
            };
            ask_by(&[user, ("database", "d")], ways, names).unwrap()
        };
        assert_eq!(at("127.0.0.1:6011", &["a", "?b"]), "b? d u []", "its own address");
        // Not the only one, and the only one.
        assert_eq!(
            ask(&[user, ("database", "d")], None, &["a", "?b"]).unwrap(),
            "? d u []"
        );
        assert_eq!(
            ask(&[user, ("database", "d")], None, &["?b"]).unwrap(),
            "b? d u []"
        );
        assert_eq!(
            ask(&[user, ("database", "b/d")], None, &["a", "?b"]).unwrap(),
            "b? d u []"
        );
    }

    #[test]
    fn the_only_target_is_not_meant_by_who_asks_for_another_endpoint() {
        let d = &[("user", "u"), ("database", "d")][..];
        let one = &["a"][..];
        for (name, expected) in [
            (Some("b.x.us-east-1.rds.amazonaws.com"), "? d u []"),
            (Some("B.x.rds.cn-north-1.amazonaws.com.CN"), "? d u []"),
            (Some("A.x.us-east-1.rds.amazonaws.com"), "a d u []"),
            (Some("localhost"), "a d u []"),
            (None, "a d u []"),
        ] {
            assert_eq!(ask(d, name, one).unwrap(), expected, "{name:?}");
        }
        // Whoever says which one has said so.
        let named = &[("user", "u"), ("database", "a/d")];
        assert_eq!(
            ask(named, Some("b.x.us-east-1.rds.amazonaws.com"), one).unwrap(),
            "a d u []"
        );
        // What isn't known where it is may have that endpoint.
        assert_eq!(
            ask(d, Some("b.x.us-east-1.rds.amazonaws.com"), &["?b"]).unwrap(),
            "b? d u []"
        );
    }

    #[test]
    fn the_console_is_not_where_an_absent_targets_database_is() {
        let mut config = targets(&["?a"]);
        let parameters = [
            ("user".to_owned(), "u".to_owned()),
            ("database".to_owned(), CONSOLE.to_owned()),
        ];
        let mut absent = config.absent.to_vec();
        absent[0].databases = vec![CONSOLE.into()];
        config.absent = absent.into();
        let wanted = route(&parameters, Ways::default(), &[], &config.absent);
        assert!(matches!(wanted, Ok(Wanted::Database(_))), "{wanted:?}");
    }

    #[test]
    fn a_server_name_that_several_targets_have_says_nothing() {
        let mut both = targets(&["a", "b"]).targets;
        let mut twin = (*both[1]).clone();
        twin.endpoint = both[0].endpoint.clone();
        both[1] = Arc::new(twin);
        let ways = Ways {
            local: None,
            server_name: Some("a.x.us-east-1.rds.amazonaws.com"),
        };
        let parameters = |database: &str| {
            [
                ("user".to_owned(), "u".to_owned()),
                ("database".into(), database.into()),
            ]
        };
        for (database, expected) in [("b/d", Some("b")), ("a/d", Some("a")), ("d", None)] {
            let Ok(Wanted::Database(request)) = route(&parameters(database), ways, &both, &[]) else {
                panic!("{database}")
            };
            assert_eq!(request.target_name.as_deref(), expected, "{database}");
        }
    }

    #[test]
    fn values_are_canonical_before_anybody_decides() {
        let one = &["a"][..];
        assert_eq!(ask(&[("user", "u")], None, one).unwrap(), "a u u []");
        assert_eq!(
            ask(&[("user", "u"), ("database", "")], None, one).unwrap(),
            "a u u []"
        );
        assert!(ask(&[("database", "d")], None, one).is_err());
        assert!(ask(&[("user", "")], None, one).is_err());
        assert!(
            ask(&[("user", "u"), ("replication", "database")], None, one)
                .unwrap_err()
                .contains("replication")
        );
        assert!(ask(&[("user", "u"), ("replication", "1")], None, one).is_err());
        assert!(ask(&[("user", "u"), ("replication", "off")], None, one).is_ok());
        assert!(ask(&[("user", "u"), ("options", "-S 3")], None, one).is_err());
        let parameters = [
            ("user", "u"),
            ("TimeZone", "UTC"),
            ("options", "-c timezone=CET -c WORK_MEM=1MB"),
        ];
        assert_eq!(
            ask(&parameters, None, one).unwrap(),
            r#"a u u [("work_mem", "1MB"), ("timezone", "UTC")]"#
        );
    }
}
