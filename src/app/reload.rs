//! Reading the configuration again while clients are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{Config, Origin};
use crate::gateway::{Asker, InForce};
use crate::metrics::Metrics;

/// How long reading the file may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Reads the configuration again.
pub(super) struct Reloader {
    /// Nothing if there is no file.
    pub(super) origin: Option<Arc<Origin>>,
    /// What runs.
    pub(super) running: Running,
    pub(super) rules: watch::Sender<InForce>,
    pub(super) metrics: Arc<Metrics>,
    /// Set so that another audit log is begun.
    pub(super) reopen: Option<Arc<AtomicBool>>,
}

/// What of the configuration that runs decides about whether other rules can count.
pub(super) struct Running {
    /// Targets of whose pools some pass on what clients send without understanding it.
    not_understood: Vec<String>,
    has_audit: bool,
}

impl Running {
    pub(super) fn of(config: &Config) -> Self {
        let passes_on = config
            .targets
            .iter()
            .filter(|target| target.pools().any(|(_, _, pool)| !pool.is_shared));
        Self {
            not_understood: passes_on.map(|target| target.name.to_string()).collect(),
            has_audit: config.audit.is_some(),
        }
    }
}

impl Reloader {
    /// Serves signals and askers for as long as it is polled.
    pub(super) async fn run(self, mut hangup: Signal, mut asked: mpsc::Receiver<Asker>) {
        loop {
            let asker = tokio::select! {
                Some(()) = hangup.recv() => None,
                Some(asker) = asked.recv() => Some(asker),
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

    async fn reload(&self) -> Result<String, String> {
        let Some(origin) = &self.origin else {
            return Err("there is no configuration file to read again".to_owned());
        };
        let (config, changed) = read_again(origin.clone()).await?;
        let not_understood = self.running.not_understood.iter();
        let mut needs = not_understood.filter(|target| config.rules.need_understanding(target));
        if let Some(target) = needs.next() {
            return Err(format!(
                "rules for target {target} have read_only, mode or statements, for which its pools in the mode \"session\" must be begun \
                 anew: restart"
            ));
        }
        if !self.running.has_audit && config.rules.record_statements() {
            return Err("rules have statements, and there is no audit log yet: restart".to_owned());
        }
        let count = config.rules.len();
        self.rules.send_if_modified(|in_force| {
            // Who is in by the same rules stays, whatever the time of day.
            let differ = !in_force.are(&config.rules);
            if differ {
                *in_force = InForce::new(config.rules.clone());
            }
            differ
        });
        let rules = format!("{count} rule(s) count now");
        Ok(if changed.is_empty() {
            rules
        } else {
            format!("{rules}; changes of {} need a restart", changed.join(", "))
        })
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
