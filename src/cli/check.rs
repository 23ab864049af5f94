//! `postern check`: everything between this host and a query, step by step, with cause and remedy of what isn't well.
//!
//! Steps that don't depend on each other are taken at the same time, and each has an end: credentials and the ways to the endpoints
//! (12 s at most), STS and RDS (5 s), logins and what is asked on them (13 s). What comes after a step that has failed isn't tried and says so,
//! so that one fault is told once. No user logs in to an endpoint more than once; a gateway that has just started looks at all of it as well, and
//! takes its pools' first logins for these.

mod account;
mod discovered;
mod endpoint;
mod host;
mod login;
mod report;
mod room;
mod server;
mod ssm;
mod why;

use std::collections::HashMap;
use std::io::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ConfigFile;
use crate::app::{Checked, Started};
use crate::aws::credentials::{CredentialCache, Keys};
use crate::config::{Config, Target, region_of};
use crate::gateway::Readiness;
use crate::identity::Source;
use crate::ids::TargetName;
use crate::metrics::Metrics;
use crate::upstream::Services;
use crate::upstream::gate::Gates;
use crate::upstream::tokens::Tokens;
use login::{Before, Server};
use report::{Finding, Report, State};

/// However many endpoints and users there are, and whatever hangs, it ends within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How long a gateway's first connections may take until they aren't waited for.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How long a start may take in all.
const STARTED_WITHIN: Duration = Duration::from_secs(90);

/// Look at everything between this host and a query, and say what is wrong, why, and what to do about it.
///
/// Logs in to each endpoint once as each user, and changes nothing. Exit status 0 if nothing has failed, 1 if something has, 78 if the
/// configuration can't be used.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// How many gateways with this configuration share the databases
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    gateways: u16,
    /// Look at this target alone
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let config = self.file.load()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        let findings = runtime.block_on(async {
            let looking = findings(
                config,
                self.target.as_deref(),
                self.gateways.into(),
                Looking::alone()?,
            );
            timeout(ENDS_WITHIN, looking)
                .await
                .with_context(|| format!("not done within {} s", ENDS_WITHIN.as_secs()))?
        });
        // A look-up that hangs in the resolver isn't waited for.
        runtime.shutdown_background();
        let report = Report::new(findings?);
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            report.text()
        };
        std::io::stdout()
            .write_all(text.as_bytes())
            .context("cannot write to standard output")?;
        match report.failed() {
            (0, _) => Ok(()),
            (failed, all) => bail!("{failed} of {all} checks failed"),
        }
    }
}

/// Those of `among` that are to be looked at: all, or the one of that name.
fn named<'a>(among: &'a [Arc<Target>], name: Option<&str>) -> Vec<&'a Arc<Target>> {
    let is_meant = |target: &&Arc<Target>| name.is_none_or(|name| target.name.as_str() == name);
    among.iter().filter(is_meant).collect()
}

/// With what it is looked.
struct Looking {
    credentials: CredentialCache,
    services: Services,
    /// By a gateway that runs: how its pools come on, so that no login is tried.
    running: Option<watch::Receiver<Readiness>>,
}

impl Looking {
    /// By a process that does nothing else.
    fn alone() -> anyhow::Result<Self> {
        let credentials = account::credentials();
        let metrics = Arc::new(Metrics::new()?);
        Ok(Self {
            services: Services {
                tokens: Arc::new(Tokens::new(credentials.clone(), metrics.clone())),
                gates: Arc::new(Gates::new()),
                metrics,
            },
            credentials,
            running: None,
        })
    }
}

/// What a gateway finds that has just started.
pub(super) fn at_start(started: Started) -> Pin<Box<dyn Future<Output = Checked>>> {
    Box::pin(async move {
        let Started {
            config,
            services,
            credentials,
            readiness,
        } = started;
        let looking = Looking {
            credentials,
            services,
            running: Some(readiness),
        };
        match timeout(STARTED_WITHIN, findings(config, None, 1, looking)).await {
            Ok(Ok(findings)) => {
                let report = Report::new(findings);
                Checked {
                    report: report.text(),
                    wrong: report.wrong(),
                    counts: report.counts(),
                }
            }
            Ok(Err(error)) => Checked::failed(&format!("{error:#}")),
            Err(_) => Checked::failed(&format!("not done within {} s", STARTED_WITHIN.as_secs())),
        }
    })
}

async fn findings(
    config: Config,
    name: Option<&str>,
    gateways: usize,
    looking: Looking,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![host::files(&config)];
    if looking.running.is_none() {
        findings.extend(host::ports(&config));
    }
    let fixed = named(&config.targets, name);
    let regions = fixed
        .iter()
        .map(|target| region_of(&target.endpoint.host).unwrap_or(&target.region));
    let searched = config
        .discoveries
        .iter()
        .filter_map(|discovery| discovery.search.region.as_deref());
    let region = match regions.chain(searched).next() {
        Some(region) => region.to_owned(),
        None => discovered::own_region().await,
    };
    let ssm = async {
        match config.identity.sources.contains(&Source::Ssm) {
            true => ssm::check(&config.identity.ssm).await,
            false => Vec::new(),
        }
    };
    let (ssm, account, mut ways_there) = tokio::join!(
        ssm,
        Box::pin(account::check(&config, looking.credentials.clone(), &region)),
        ways(&fixed)
    );
    let (config, of_discovery) = match looking.running {
        Some(_) => (config.clone(), discovered::absent_at_start(&config)),
        None => discovered::look(&config, &account.keys).await,
    };
    let targets = named(&config.targets, name);
    if let (Some(name), []) = (name, targets.as_slice())
        && !config.absent.iter().any(|absent| absent.is_called(name))
    {
        let names: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target \"{name}\"; there are: {}", names.join(", "));
    }
    let (_, found) = targets.split_at(ways_there.len());
    ways_there.extend(ways(found).await);
    let (config, ways) = (&config, ways_there);
    findings.extend(ssm);
    looking.services.gates.watch_over(config.targets.iter());
    let known = Known {
        keys: account.keys.clone(),
        arn: account.arn.clone(),
        services: looking.services,
        running: looking.running,
        gateways,
    };
    let servers = servers(config, &targets);
    let ways: Rc<HashMap<_, _>> = Rc::new(ways.into_iter().collect());
    let one_each = servers
        .into_iter()
        .map(|server| server_checked(server, ways.clone(), known.clone()));
    let (sessions, of_servers) = tokio::join!(account::sessions(config, &account), all(one_each));
    let of_servers: Vec<Finding> = of_servers.into_iter().flatten().collect();
    findings.extend(account.findings);
    findings.extend(sessions);
    findings.extend(of_discovery);
    for target in &targets {
        findings.extend(ways.get(&target.name).into_iter().flatten().cloned());
    }
    explain_by_rds(&mut findings, &of_servers);
    findings.extend(of_servers);
    Ok(findings)
}

/// Of a way that can't work because the target is wrong, by what RDS says of it, that alone is told.
fn explain_by_rds(ways: &mut [Finding], of_servers: &[Finding]) {
    let wrong = of_servers
        .iter()
        .filter(|finding| finding.check == "rds" && finding.state == State::Failed);
    for rds in wrong {
        let prerequisite = rds.is_in_the_way().unwrap_or_default();
        let is_failed = |way: &&mut Finding| {
            matches!(way.check, "tcp" | "tls") && way.subject == rds.subject && way.state != State::Ok
        };
        for way in ways.iter_mut().filter(is_failed) {
            *way = Finding::skipped(way.check, &way.subject, &prerequisite);
        }
    }
}

/// What is known before there are logins.
#[derive(Clone)]
struct Known {
    /// What can be signed with, or what stands in the way of it.
    keys: Result<Arc<Keys>, String>,
    arn: Option<String>,
    services: Services,
    running: Option<watch::Receiver<Readiness>>,
    gateways: usize,
}

/// The ways to all targets.
async fn ways(targets: &[&Arc<Target>]) -> Vec<(TargetName, Vec<Finding>)> {
    let ways = targets.iter().map(|target| {
        let target = (*target).clone();
        async move { (target.name.clone(), endpoint::way(&target).await) }
    });
    all(ways).await
}

/// The endpoints of `targets`, in their order.
fn servers(config: &Config, targets: &[&Arc<Target>]) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for target in targets {
        let target = (*target).clone();
        match servers
            .iter_mut()
            .find(|server| server.endpoint == target.endpoint)
        {
            Some(server) => server.targets.push(target),
            None => servers.push(Server {
                endpoint: target.endpoint.clone(),
                all: config
                    .targets
                    .iter()
                    .filter(|other| other.endpoint == target.endpoint)
                    .cloned()
                    .collect(),
                targets: vec![target],
            }),
        }
    }
    servers
}

/// What RDS says of an endpoint, then tokens and logins.
async fn server_checked(
    server: Server,
    ways: Rc<HashMap<TargetName, Vec<Finding>>>,
    known: Known,
) -> Vec<Finding> {
    let Some(first) = server.targets.first() else {
        return Vec::new();
    };
    let way = |target: &Target| ways.get(&target.name).into_iter().flatten();
    // A name that nobody knows RDS doesn't know either.
    let unknown = way(first)
        .find(|finding| finding.check == "dns")
        .and_then(Finding::is_in_the_way);
    let keys = unknown.map_or_else(|| known.keys.clone(), Err);
    let (mut findings, database) = endpoint::described(first, &keys).await;
    let of_rds = findings
        .iter()
        .find(|finding| finding.state == State::Failed)
        .and_then(Finding::is_in_the_way);
    let mut in_the_way = Vec::new();
    for target in &server.targets {
        let token = login::token(
            target,
            &known.services,
            known.keys.as_ref().err().map(String::as_str),
        );
        let way = way(target).find_map(Finding::is_in_the_way);
        in_the_way.push(token.is_in_the_way().or_else(|| of_rds.clone()).or(way));
        findings.push(token);
    }
    let before = Before {
        services: &known.services,
        in_the_way,
        database: database.as_ref(),
        arn: known.arn.as_deref(),
        gateways: known.gateways,
    };
    findings.extend(match known.running {
        Some(mut readiness) => {
            // What can't work isn't waited for.
            if before.in_the_way.iter().any(Option::is_none) {
                let _ = timeout(SETTLED_WITHIN, readiness.wait_for(|now| now.settled)).await;
            }
            login::of_pools(&server, &before, &readiness.borrow())
        }
        None => login::check(&server, before).await,
    });
    findings
}

/// Does all of it at the same time.
async fn all<T: 'static>(doing: impl Iterator<Item = impl Future<Output = T> + 'static>) -> Vec<T> {
    let mut tasks = JoinSet::new();
    for (number, doing) in doing.enumerate() {
        tasks.spawn_local(async move { (number, doing.await) });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, done)| done).collect()
}
