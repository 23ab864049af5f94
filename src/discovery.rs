//! Databases that are looked for by what RDS calls them or by their tags: what is looked for, what was found, and how long that counts.
//!
//! Decisions only. Asking RDS is an adapter's business (`aws/rds.rs`), when to ask a service's. What was found counts on when RDS
//! doesn't answer, and through a few answers that lack it: those who use it are not to be ended by one odd answer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Between two looks. RDS's limit of calls is an account's, shared with its consoles and pipelines; it isn't published.
const EVERY: Duration = Duration::from_secs(60);

/// The longest pause after looks that have failed.
const EVERY_AT_MOST: Duration = Duration::from_secs(15 * 60);

/// The first pause while something was never found out; doubled with each look.
const AT_FIRST: Duration = Duration::from_secs(1);

/// So many answers in a row must lack a database before it counts as gone. While one is renamed, as at the end of a blue/green deployment,
/// RDS may know neither name.
const GONE_AFTER: u8 = 3;

/// What of RDS is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The cluster with this identifier.
    Cluster(String),
    /// The instance with this identifier.
    Instance(String),
    /// The clusters, and the instances of their own, that have all these tags.
    Tags(BTreeMap<String, String>),
}

/// What is looked for, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Search {
    /// What.
    pub selector: Selector,
    /// In which region; this host's if it isn't said.
    pub region: Option<String>,
}

/// An instance, or a cluster, which an instance may be a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An instance.
    Instance,
    /// A cluster, of Aurora or Multi-AZ.
    Cluster,
}

/// A database as RDS describes it.
#[derive(Clone, Debug)]
pub struct Described {
    /// What it is.
    pub kind: Kind,
    /// What it is called.
    pub identifier: String,
    /// What `rds-db:connect` is about: `db-…` of an instance, `cluster-…` of a cluster (RDS User Guide, "Creating and using an IAM policy for
    /// IAM database access").
    pub resource_id: String,
    /// Its ARN.
    pub arn: String,
    /// The cluster that an instance is a member of.
    pub cluster: Option<String>,
    /// Whether IAM database authentication is on.
    pub has_iam: bool,
    /// `postgres`, `aurora-postgresql`, …
    pub engine: String,
    /// `available`, `failing-over`, …
    pub status: String,
    /// The endpoint, of a cluster the one that writes; none while it is being made.
    pub host: Option<String>,
    /// The endpoint of a cluster's readers.
    pub reader: Option<String>,
    /// The port of both.
    pub port: Option<u16>,
    /// Who signs its certificate: `rds-ca-rsa2048-g1`, …
    pub authority: Option<String>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

/// A database that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// What it is.
    pub kind: Kind,
    /// What it is called.
    pub identifier: String,
    /// Where it is.
    pub region: String,
    /// Its endpoint, of a cluster the one that writes.
    pub host: String,
    /// The endpoint of a cluster's readers.
    pub reader: Option<String>,
    /// The port of both.
    pub port: u16,
    /// Whether IAM database authentication is on.
    pub has_iam: bool,
    /// Who signs its certificate, if RDS says so.
    pub authority: Option<String>,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(HashMap<Search, Known>);

/// What is known of one search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    databases: Vec<Seen>,
    trouble: Option<Trouble>,
}

/// A database, since when it is known, and how many answers in a row lack it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    database: Database,
    /// The number of the look that has found it.
    since: u64,
    missed: u8,
}

/// Why nothing, or nothing newer, was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// By what RDS has said, in words of ours.
    Answer(String),
    /// RDS couldn't be asked, in words of AWS's.
    Silence(String),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Cluster => "cluster",
        })
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Instance(name) => write!(f, "instance {name}"),
            Self::Tags(tags) => {
                let tags: Vec<_> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "PostgreSQL database tagged {}", tags.join(", "))
            }
        }
    }
}

/// The command that switches IAM database authentication on.
pub fn enabling_iam(kind: Kind, identifier: &str, region: &str) -> String {
    format!(
        "aws rds modify-db-{kind} --region {region} --db-{kind}-identifier {identifier} --enable-iam-database-authentication \
         --apply-immediately"
    )
}

/// The label before `rds.amazonaws.com` or `rds.amazonaws.com.cn`, or, as new endpoints in China have it, behind `rds` (RDS User Guide, "Finding
/// the endpoint"; the drivers of AWS know both: aws-mysql-odbc #182).
pub fn region_of(host: &str) -> Option<&str> {
    let before = |suffix| host.strip_suffix(suffix)?.rsplit_once('.');
    let (_, region) = before(".rds.amazonaws.com")
        .or_else(|| before(".rds.amazonaws.com.cn"))
        .or_else(|| before(".amazonaws.com.cn").filter(|(rest, _)| rest.ends_with(".rds")))?;
    Some(region)
}

impl Described {
    /// Whether it speaks PostgreSQL's protocol.
    pub fn is_postgres(&self) -> bool {
        self.engine.contains("postgres")
    }

    /// As a database that can be connected to, or why it can't.
    fn found(&self, all: &[Self], region: &str) -> Result<Database, String> {
        let Self { kind, identifier, .. } = self;
        if !self.is_postgres() {
            return Err(format!(
                "{kind} {identifier} is of {}, not of PostgreSQL",
                self.engine
            ));
        }
        let (Some(host), Some(port)) = (self.host.clone(), self.port) else {
            return Err(format!(
                "{kind} {identifier} has no endpoint: it is {}",
                self.status
            ));
        };
        let is_member = |other: &&Self| other.cluster.as_deref() == Some(identifier);
        let of_member = || all.iter().find(is_member)?.authority.clone();
        Ok(Database {
            kind: *kind,
            identifier: identifier.clone(),
            region: region.to_owned(),
            host,
            reader: self.reader.clone(),
            port,
            has_iam: self.has_iam,
            authority: self.authority.clone().or_else(of_member),
        })
    }
}

impl Selector {
    fn selects(&self, described: &Described) -> bool {
        let is_called = |kind, name: &str| described.kind == kind && described.identifier == name;
        match self {
            Self::Cluster(name) => is_called(Kind::Cluster, name),
            Self::Instance(name) => is_called(Kind::Instance, name),
            Self::Tags(tags) => {
                let has = |(key, value): (&String, &String)| {
                    described.tags.iter().any(|(k, v)| (k, v) == (key, value))
                };
                described.cluster.is_none() && described.is_postgres() && tags.iter().all(has)
            }
        }
    }
}

impl Found {
    /// Forgets searches that aren't among `wanted`.
    pub fn keep(&mut self, wanted: &[Search]) {
        self.0.retain(|search, _| wanted.contains(search));
    }

    /// Takes over what RDS has said: `all` clusters and instances of `region`, or at least those that are called as wanted and the members of
    /// such clusters. `look`: the number of the look, so that it is known which were there before others.
    pub fn answered(&mut self, search: &Search, all: &[Described], region: &str, look: u64) {
        let selected = all.iter().filter(|described| search.selector.selects(described));
        let (mut seen, mut unusable) = (Vec::new(), Vec::new());
        for described in selected {
            match described.found(all, region) {
                Ok(database) => seen.push(database),
                Err(reason) => unusable.push(reason),
            }
        }
        let known = self.0.entry(search.clone()).or_default();
        known.databases.retain_mut(|known| {
            let of_known = (known.database.kind, &known.database.identifier);
            let is_same = |seen: &Database| (seen.kind, &seen.identifier) == of_known;
            match seen.iter().position(is_same) {
                Some(place) => (known.database, known.missed) = (seen.remove(place), 0),
                None => known.missed += 1,
            }
            known.missed < GONE_AFTER
        });
        known.databases.extend(seen.into_iter().map(|database| Seen {
            database,
            since: look,
            missed: 0,
        }));
        let nothing = || format!("RDS knows no {} in {region}", search.selector);
        let trouble = match known.databases.is_empty() {
            true => Some(unusable.into_iter().next().unwrap_or_else(nothing)),
            false => unusable.into_iter().next(),
        };
        known.trouble = trouble.map(Trouble::Answer);
    }

    /// RDS has said nothing; what was known counts on.
    pub fn failed(&mut self, search: &Search, reason: &str) {
        self.0.entry(search.clone()).or_default().trouble = Some(Trouble::Silence(reason.to_owned()));
    }

    /// What was found by a search. Those that were known first come first.
    pub fn databases(&self, search: &Search) -> impl Iterator<Item = &Database> {
        self.with_age(search).map(|(_, database)| database)
    }

    /// The same, each with the number of the look that has found it: what has a lower one was there first.
    pub fn with_age(&self, search: &Search) -> impl Iterator<Item = (u64, &Database)> {
        let known = self.0.get(search).map(|known| known.databases.iter());
        known
            .into_iter()
            .flatten()
            .map(|seen| (seen.since, &seen.database))
    }

    /// Whether RDS was asked, with whatever success.
    pub fn is_asked(&self, search: &Search) -> bool {
        self.0.contains_key(search)
    }

    /// Why nothing, or nothing newer, was found by it.
    pub fn trouble(&self, search: &Search) -> Option<&str> {
        match self.0.get(search) {
            None => Some("RDS hasn't answered yet"),
            Some(known) => known.trouble.as_ref().map(|trouble| match trouble {
                Trouble::Answer(text) | Trouble::Silence(text) => text.as_str(),
            }),
        }
    }

    /// The same for whoever isn't to read what AWS says to this host: its role's name, addresses.
    pub fn trouble_told(&self, search: &Search) -> Option<&str> {
        let known = self.0.get(search).and_then(|known| known.trouble.as_ref());
        match known {
            Some(Trouble::Silence(_)) => Some("RDS can't be asked"),
            _ => self.trouble(search),
        }
    }
}

/// How long to wait before RDS is asked again. `failed`: so many looks in a row didn't find out all; `has_all`: everything was found once. A
/// tenth of it is by chance, so that gateways don't ask together; `chance` is from 0 to 1.
pub fn pause(failed: u32, has_all: bool, chance: f64) -> Duration {
    let doubled = |least: Duration, times: u32| least.saturating_mul(2_u32.saturating_pow(times.min(16)));
    let pause = match (failed, has_all) {
        (0, _) => EVERY,
        (failed, true) => doubled(EVERY, failed - 1).min(EVERY_AT_MOST),
        (failed, false) => doubled(AT_FIRST, failed - 1).min(EVERY),
    };
    pause.mul_f64(1.0 - 0.1 * chance)
}

#[cfg(test)]
mod tests;
