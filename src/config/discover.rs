//! Targets that RDS is asked for: from what was found to what is ready.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::ConfigError;
use super::file::{self, Role};
use super::target::endpoint;
use super::{Config, Target};
use crate::discovery::{Database, Found, Search, Selector, enabling_iam};
use crate::ids::{DatabaseName, DbUser, TargetName};
use crate::policy::Rules;
use crate::tls;

/// Authorities of RDS that certificates of today come from (Amazon RDS User Guide, "Using SSL/TLS to encrypt a connection to a DB instance or
/// cluster": all are in the bundle that is built in).
const AUTHORITIES: [&str; 3] = ["rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1"];

/// Targets that are discovered: one, or, by tags, as many as there are.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// What is looked for.
    pub search: Search,
    role: Role,
    /// What each is, but for its name, its endpoint and its region.
    template: Target,
    authorities: tls::Roots,
}

/// A target that isn't known where it is, or any of those by tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// What it is called; of those by tags, `*` stands for what RDS calls each.
    pub name: TargetName,
    /// Its own addresses.
    pub listen: Vec<SocketAddr>,
    /// Its databases.
    pub databases: Vec<DatabaseName>,
    /// Its users.
    pub users: Vec<DbUser>,
    /// Why.
    pub reason: Arc<str>,
    /// Why, for its clients.
    pub told: Arc<str>,
}

/// What an operator should know of targets that are discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It isn't known where a target is.
    Absent(String),
    /// Something was found that can't be a target.
    Unfit(String),
    /// What was found isn't as it should be.
    Amiss(String),
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Absent(text) | Self::Unfit(text) | Self::Amiss(text)) = self;
        f.write_str(text)
    }
}

impl Absent {
    /// Whether it is called so, or may be.
    pub fn is_called(&self, name: &str) -> bool {
        is_called(&self.name, name)
    }

    /// Its name, if that is for certain.
    pub fn only_name(&self) -> Option<&str> {
        Some(self.name.as_str()).filter(|name| !name.contains('*'))
    }
}

/// Whether RDS may call something so (RDS API Reference, CreateDBInstance and CreateDBCluster).
fn is_identifier(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_good)
}

/// Whether `name` is `pattern`, or what that is with something for its `*`.
fn is_called(pattern: &TargetName, name: &str) -> bool {
    let pattern = pattern.as_str();
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, behind)) => {
            name.len() > before.len() + behind.len() && name.starts_with(before) && name.ends_with(behind)
        }
    }
}

impl Discovery {
    /// `target`: all that is known already.
    pub(super) fn new(
        typed: &file::Discover,
        region: Option<String>,
        target: Target,
        authorities: tls::Roots,
    ) -> Result<Self, ConfigError> {
        let wrong = |key: &str, message: &str| {
            Err(ConfigError::value(
                format!("targets.{}.{key}", target.name),
                message,
            ))
        };
        let selector = match (&typed.cluster, &typed.instance, &typed.tags) {
            (Some(name), None, None) => Selector::Cluster(name.to_ascii_lowercase()),
            (None, Some(name), None) => Selector::Instance(name.to_ascii_lowercase()),
            (None, None, Some(tags)) => Selector::Tags(tags.clone()),
            _ => {
                let expected = "must have one of cluster, instance and tags, as { cluster = \"orders\" }";
                return wrong("discover", expected);
            }
        };
        match &selector {
            Selector::Cluster(name) | Selector::Instance(name) if name.is_empty() => {
                return wrong("discover", "has an empty identifier");
            }
            // RDS would refuse the question, and with it what is asked of others.
            Selector::Cluster(name) | Selector::Instance(name) if !is_identifier(name) => {
                return wrong(
                    "discover",
                    "has what can't be an identifier of RDS: letters, digits and '-', 63 at most, a letter first",
                );
            }
            // All there is, or whatever somebody has left without a value, is hardly meant.
            Selector::Tags(tags) if tags.is_empty() || tags.iter().any(|(key, _)| key.is_empty()) => {
                return wrong(
                    "discover.tags",
                    "expected at least one tag, as { postern = \"yes\" }",
                );
            }
            Selector::Tags(_) if !target.listen.is_empty() => {
                return wrong("listen", "can't be the address of all that has these tags");
            }
            Selector::Instance(_) if typed.endpoint == Role::Reader => {
                return wrong(
                    "discover.endpoint",
                    "is \"reader\", and an instance has only one endpoint",
                );
            }
            _ => {}
        }
        Ok(Self {
            search: Search { selector, region },
            role: typed.endpoint,
            template: target,
            authorities,
        })
    }

    /// What the file calls it.
    pub fn name(&self) -> &TargetName {
        &self.template.name
    }

    /// Whether it may be any number of targets.
    fn is_many(&self) -> bool {
        matches!(self.search.selector, Selector::Tags(_))
    }

    /// The name of the target that `database` is.
    fn name_of(&self, database: &Database) -> TargetName {
        let name = self.template.name.as_str();
        name.replace('*', &database.identifier).as_str().into()
    }

    fn target(&self, database: &Database, rules: &Rules) -> Result<Target, String> {
        let name = self.name_of(database);
        let host = match self.role {
            Role::Writer => &database.host,
            Role::Reader => database
                .reader
                .as_ref()
                .ok_or_else(|| format!("{} {} has no reader endpoint", database.kind, database.identifier))?,
        };
        let endpoint = endpoint(&format!("{host}:{}", database.port))?;
        let is_understood = rules.need_understanding(name.as_str());
        let mut target = Target {
            name,
            region: database.region.clone(),
            tls: tls::Connector::new(&endpoint.host, &self.authorities).map_err(|error| error.to_string())?,
            endpoint,
            ..self.template.clone()
        };
        target.pool.is_shared |= is_understood;
        for of in &mut target.other_pools {
            of.pool.is_shared |= is_understood;
        }
        Ok(target)
    }

    /// It, if nothing was `found` that it could be.
    fn absent(&self, found: &Found) -> Option<Absent> {
        let is_usable = |database: &Database| self.role == Role::Writer || database.reader.is_some();
        if found.databases(&self.search).any(is_usable) {
            return None;
        }
        let no_reader = "it has no reader endpoint";
        let reason = found.trouble(&self.search).unwrap_or(no_reader);
        Some(self.absent_since(reason, found.trouble_told(&self.search).unwrap_or(no_reader)))
    }

    fn absent_since(&self, reason: &str, told: &str) -> Absent {
        let Target {
            name,
            listen,
            databases,
            users,
            ..
        } = self.template.clone();
        Absent {
            name,
            listen,
            databases,
            users,
            reason: reason.into(),
            told: told.into(),
        }
    }

    /// What isn't as it should be with a database that was found.
    fn remarks(&self, target: &Target, database: &Database) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let Database {
            kind,
            identifier,
            region,
            ..
        } = database;
        if !database.has_iam {
            remarks.push(Remark::Amiss(format!(
                "target {}: IAM database authentication of {kind} {identifier} is off, so it takes no tokens: {}",
                target.name,
                enabling_iam(*kind, identifier, region)
            )));
        }
        let is_ours = |authority: &String| AUTHORITIES.contains(&authority.as_str());
        if let Some(authority) = database
            .authority
            .as_ref()
            .filter(|authority| !is_ours(authority))
            && target.authorities.is_none()
        {
            remarks.push(Remark::Amiss(format!(
                "target {}: the certificate of {kind} {identifier} is from {authority}, which isn't among the authorities that are built in: \
                 give it another (aws rds modify-db-instance --ca-certificate-identifier {}), or set tls_ca_file",
                target.name, AUTHORITIES[0]
            )));
        }
        remarks
    }
}

/// All of `discoveries`, of which nothing is known yet.
pub(super) fn absent(discoveries: &[Discovery]) -> Arc<[Absent]> {
    let found = Found::default();
    let absent = discoveries
        .iter()
        .filter_map(|discovery| discovery.absent(&found));
    absent.collect()
}

impl Config {
    /// The same with the targets that were `found`, and what is to be known of them, and of those that weren't.
    ///
    /// Names that the file gives belong to what the file means, whatever else is found; of several that would be called the same, the one
    /// counts that was known first. A target of which what was found can't be it is as absent as one of which nothing was: what leads to it
    /// leads nowhere else.
    pub fn with_found(&self, found: &Found) -> (Self, Vec<Remark>) {
        let mut config = self.clone();
        let mut candidates = Vec::new();
        for (place, discovery) in self.discoveries.iter().enumerate() {
            for (since, database) in found.with_age(&discovery.search) {
                candidates.push((candidates.len(), since, place, discovery, database));
            }
        }
        candidates.sort_by_key(|(_, since, ..)| *since);
        let (mut turns, mut unfit) = (Vec::new(), Vec::new());
        let mut of_targets = Vec::new();
        for (turn, _, place, discovery, database) in candidates {
            match discovery
                .target(database, &self.rules)
                .and_then(|target| config.fits(discovery, target))
            {
                Ok(target) => {
                    of_targets.extend(discovery.remarks(&target, database));
                    config.targets.push(Arc::new(target));
                    turns.push((turn, place));
                }
                Err(reason) => {
                    let Database { kind, identifier, .. } = database;
                    unfit.push(format!("{kind} {identifier} isn't a target: {reason}"));
                }
            }
        }
        let absent = self
            .discoveries
            .iter()
            .enumerate()
            .filter_map(|(place, discovery)| {
                let is_there = || turns.iter().any(|(_, of)| *of == place) || discovery.is_many();
                discovery.absent(found).or_else(|| {
                    let unfit = "what RDS has of it can't be a target";
                    (!is_there()).then(|| discovery.absent_since(unfit, unfit))
                })
            });
        config.absent = absent.collect();
        // In the order of the file.
        let discovered = config.targets.split_off(self.targets.len());
        let mut discovered: Vec<_> = turns.into_iter().zip(discovered).collect();
        discovered.sort_by_key(|(turn, _)| *turn);
        config
            .targets
            .extend(discovered.into_iter().map(|(_, target)| target));
        let is_absent = |absent: &Absent| {
            Remark::Absent(format!(
                "it isn't known where target {} is: {}",
                absent.name, absent.reason
            ))
        };
        let mut remarks: Vec<Remark> = config.absent.iter().map(is_absent).collect();
        remarks.extend(unfit.into_iter().map(Remark::Unfit));
        remarks.extend(of_targets);
        (config, remarks)
    }

    /// Those of the targets that were found since `written`, which says nothing of them.
    pub fn discovered<'a>(&'a self, written: &Self) -> impl Iterator<Item = &'a Arc<Target>> + use<'a> {
        self.targets.iter().skip(written.targets.len())
    }

    /// Whether a `target` of `discovery` may be one beside the others; if not, why not.
    fn fits(&self, discovery: &Discovery, target: Target) -> Result<Target, String> {
        let mut others = self.discoveries.iter().map(|other| &other.template.name);
        let is_meant = discovery.template.name == target.name || others.all(|name| *name != target.name);
        if !is_meant || self.targets.iter().any(|other| other.name == target.name) {
            return Err(format!("there is another that is called {}", target.name));
        }
        let mut of_endpoint = self
            .targets
            .iter()
            .filter(|other| other.endpoint == target.endpoint);
        match of_endpoint.find(|other| other.budget != target.budget) {
            Some(other) => Err(format!(
                "its endpoint is that of target {}, whose iam is another, and an endpoint has one budget",
                other.name
            )),
            None => Ok(target),
        }
    }

    /// Where clients come, the targets' own addresses with whose they are.
    pub fn addresses(&self) -> Vec<(Option<TargetName>, SocketAddr)> {
        let fixed = self.targets.iter().map(|target| (&target.name, &target.listen));
        let discovered = self.discoveries.iter().map(|discovery| {
            let template = &discovery.template;
            (&template.name, &template.listen)
        });
        let own = fixed
            .chain(discovered)
            .flat_map(|(name, listen)| listen.iter().map(|address| (Some(name.clone()), *address)));
        let mut addresses: Vec<_> = self
            .listen
            .iter()
            .map(|address| (None, *address))
            .chain(own)
            .collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}
