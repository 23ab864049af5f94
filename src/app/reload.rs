//! Reading the configuration again while clients are served.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::discovery::{FIRST_LOOK_WITHIN, searches, tell_discovered};
use super::raise_file_limit;
use crate::config::{Config, Endpoint, Origin, Remark, Target};
use crate::discovery::{Found, Search};
use crate::gateway::{Asker, Current};
use crate::iam::Budget;
use crate::ids::TargetName;
use crate::metrics::Metrics;
use crate::upstream::gate::Gates;

/// How long reading the file may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Reads the configuration again.
pub(super) struct Reloader {
    /// Nothing if there is no file.
    pub(super) origin: Option<Arc<Origin>>,
    /// What the file says.
    pub(super) written: Config,
    /// What of it runs.
    pub(super) running: Running,
    /// What is to be looked for, and what of that was found.
    pub(super) wanted: watch::Sender<Vec<Search>>,
    pub(super) found: watch::Receiver<Found>,
    /// What was told of it.
    pub(super) remarks: Vec<Remark>,
    pub(super) current: watch::Sender<Current>,
    pub(super) gates: Arc<Gates>,
    pub(super) metrics: Arc<Metrics>,
    /// Set so that another audit log is begun.
    pub(super) reopen: Option<Arc<AtomicBool>>,
}

/// What of the configuration that runs can't be changed.
pub(super) struct Running {
    has_audit: bool,
    /// Where clients come, the targets' own addresses with whose they are.
    addresses: Vec<(Option<TargetName>, SocketAddr)>,
    budgets: HashMap<Endpoint, Budget>,
    /// The certificate for clients is that of a file.
    has_certificate: bool,
}

impl Running {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            has_audit: config.audit.is_some(),
            addresses: config.addresses(),
            budgets: budgets(config).collect(),
            has_certificate: config.has_certificate,
        }
    }

    /// Keys of login budgets that `config` has otherwise, which count only after a restart.
    fn budgets_differ(&self, config: &Config) -> Vec<String> {
        let differs = |target: &&Arc<Target>| {
            let known = self.budgets.get(&target.endpoint);
            known.is_some_and(|known| *known != target.budget)
        };
        let targets = config.targets.iter().filter(differs);
        targets
            .map(|target| format!("targets.{}.iam", target.name))
            .collect()
    }
}

fn budgets(config: &Config) -> impl Iterator<Item = (Endpoint, Budget)> {
    let targets = config.targets.iter();
    targets.map(|target| (target.endpoint.clone(), target.budget))
}

impl Reloader {
    /// Serves signals and askers for as long as it is polled.
    pub(super) async fn run(mut self, mut hangup: Signal, mut asked: mpsc::Receiver<Asker>) {
        loop {
            let asker = tokio::select! {
                Some(()) = hangup.recv() => None,
                Some(asker) = asked.recv() => Some(asker),
                Ok(()) = self.found.changed() => {
                    self.publish_found();
                    continue;
                }
                else => return,
            };
            if let Some(reopen) = &self.reopen {
                reopen.store(true, Ordering::Relaxed);
            }
            let outcome = self.reload().await;
            let label = if outcome.is_ok() { "ok" } else { "refused" };
            self.metrics.reloads.with_label_values(&[label]).inc();
            match &outcome {
                Ok(told) => info!("reloaded: {told}"),
                Err(error) => warn!("not reloaded, the configuration of before goes on: {error}"),
            }
            if let Some(asker) = asker {
                let _ = asker.send(outcome);
            }
        }
    }

    async fn reload(&mut self) -> Result<String, String> {
        let Some(origin) = &self.origin else {
            return Err("there is no configuration file to read again".to_owned());
        };
        let (config, sections) = read_again(origin.clone()).await?;
        if !self.running.has_audit && config.rules.record_statements() {
            return Err("rules have statements, and there is no audit log yet: restart".to_owned());
        }
        if sections.iter().any(|section| section == "identity") {
            // The rules are written for it: by another, they may let in anybody.
            return Err("identity can only be changed by a restart".to_owned());
        }
        if self.running.addresses != config.addresses() {
            // Whoever came to a target's own address might come to another.
            return Err(
                "where clients connect (listen.addresses, targets.listen) can only be changed by a restart"
                    .to_owned(),
            );
        }
        self.written = config;
        let searches = searches(&self.written);
        // Whoever reloads wants to have what there is now.
        self.wanted.send_replace(searches.clone());
        let is_done = |found: &Found| searches.iter().all(|search| found.is_asked(search));
        let _ = timeout(FIRST_LOOK_WITHIN, self.found.wait_for(is_done)).await;
        let (counts, differs) = self.publish();
        let needs: Vec<_> = sections.into_iter().chain(differs).collect();
        Ok(if needs.is_empty() {
            counts
        } else {
            format!("{counts}; changes of {} need a restart", needs.join(", "))
        })
    }

    /// Makes count what was found, if that changes where anything is.
    fn publish_found(&mut self) {
        let (config, remarks) = self.written.with_found(&self.found.borrow_and_update());
        let is_known = {
            let known = self.current.borrow();
            let places = |targets: &[Arc<Target>]| -> Vec<_> {
                let places = targets.iter();
                places
                    .map(|target| {
                        (
                            target.name.clone(),
                            target.endpoint.clone(),
                            target.region.clone(),
                        )
                    })
                    .collect()
            };
            places(&known.targets) == places(&config.targets) && known.absent == config.absent
        };
        match is_known {
            true => self.tell(&config, remarks),
            false => drop(self.publish()),
        }
    }

    /// Makes count what is written, with the targets that were found. What counts then, and what of it would only after a restart.
    fn publish(&mut self) -> (String, Vec<String>) {
        let (mut config, remarks) = self.written.with_found(&self.found.borrow_and_update());
        raise_file_limit(&mut config);
        self.tell(&config, remarks);
        let differs = self.running.budgets_differ(&config);
        self.gates.watch_over(config.targets.iter());
        for (endpoint, budget) in budgets(&config) {
            self.running.budgets.entry(endpoint).or_insert(budget);
        }
        self.metrics.client.limit.set(config.limits.max_clients as i64);
        self.metrics.discovery.absent.set(config.absent.len() as i64);
        let mut current = Current::of(&config);
        let before = self.current.borrow().clone();
        // Who is in by the same rules stays, whatever the time of day.
        if before.in_force.are(&config.rules) {
            current.in_force = before.in_force;
        }
        if !config.has_certificate && !self.running.has_certificate {
            // It would be another one for nothing.
            current.acceptor = before.acceptor;
        }
        self.running.has_certificate = config.has_certificate;
        self.current.send_replace(current);
        let (rules, targets) = (config.rules.len(), config.targets.len());
        let counts = format!("{rules} rule(s) and {targets} target(s) count now");
        let absent: Vec<_> = config.absent.iter().map(|absent| absent.name.as_str()).collect();
        let counts = match absent.as_slice() {
            [] => counts,
            names => format!("{counts}; it isn't known where these are: {}", names.join(", ")),
        };
        (counts, differs)
    }

    /// Logs what wasn't told yet of targets that are discovered.
    fn tell(&mut self, config: &Config, remarks: Vec<Remark>) {
        for remark in remarks.iter().filter(|remark| !self.remarks.contains(remark)) {
            warn!("{remark}");
        }
        self.remarks = remarks;
        tell_discovered(&self.current.borrow().targets, &self.written, config);
    }
}

/// Reads the file without holding up anybody if that takes long. One that is still being read isn't read once more.
async fn read_again(origin: Arc<Origin>) -> Result<(Config, Vec<String>), String> {
    if Arc::strong_count(&origin) > 2 {
        return Err("the configuration file is still being read: its disk hangs".to_owned());
    }
    let (tells, told) = oneshot::channel();
    thread::Builder::new()
        .name("postern-reload".to_owned())
        .spawn(move || {
            let read = origin.read_again();
            // Before it is told, or the next reload would take this one for one that hangs.
            drop(origin);
            drop(tells.send(read));
        })
        .map_err(|error| error.to_string())?;
    match timeout(READ_WITHIN, told).await {
        Ok(Ok(read)) => read.map_err(|error| error.to_string()),
        Ok(Err(_)) | Err(_) => Err(format!(
            "the configuration file can't be read within {} s",
            READ_WITHIN.as_secs()
        )),
    }
}
