//! What is looked at once after the start: everything between this host and a query.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio::task::spawn_local;
use tracing::{info, warn};

use crate::aws::credentials::CredentialCache;
use crate::config::Config;
use crate::gateway::Readiness;
use crate::metrics::Metrics;
use crate::upstream::Services;

/// What there is at the start, for what looks at it.
pub struct Started {
    /// What was configured, with the targets that were discovered.
    pub config: Config,
    /// What connections are opened with.
    pub services: Services,
    /// The host's credentials.
    pub credentials: CredentialCache,
    /// How the pools come on.
    pub readiness: watch::Receiver<Readiness>,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Checked {
    /// All of it, a line for each.
    pub report: String,
    /// What isn't as it should be, with cause and remedy.
    pub wrong: Vec<String>,
    /// How many checks have ended how, by a word for that.
    pub counts: Vec<(&'static str, usize)>,
}

impl Checked {
    /// It couldn't be looked.
    pub fn failed(reason: &str) -> Self {
        Self {
            report: format!("the checks at the start were given up: {reason}\n"),
            wrong: vec![format!("the checks at the start were given up: {reason}")],
            counts: Vec::new(),
        }
    }
}

/// Looks at everything between this host and a query, without a login of its own.
pub type StartCheck = fn(Started) -> Pin<Box<dyn Future<Output = Checked>>>;

/// Looks once and tells what isn't well.
pub(super) async fn look(
    check: StartCheck,
    started: Started,
    metrics: Arc<Metrics>,
    checked: Arc<OnceLock<Checked>>,
) {
    // A defect in what looks must not hold up for ever whoever waits for the start.
    let found = spawn_local(check(started))
        .await
        .unwrap_or_else(|error| Checked::failed(&error.to_string()));
    for wrong in &found.wrong {
        warn!("{wrong}");
    }
    for (state, count) in &found.counts {
        metrics
            .start_checks
            .with_label_values(&[state])
            .set(*count as i64);
    }
    info!("checked: {}", found.report.lines().last().unwrap_or_default());
    let _ = checked.set(found);
}
