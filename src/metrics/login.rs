//! Logins to servers.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::SECONDS;
use crate::ids::TargetName;

/// Logins to servers, by target.
#[derive(Debug)]
pub struct LoginMetrics {
    seconds: HistogramVec,
    outcomes: IntCounterVec,
}

/// Those of one target.
#[derive(Debug)]
pub struct TargetLogins<'a> {
    metrics: &'a LoginMetrics,
    target: &'a TargetName,
}

impl LoginMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let options = HistogramOpts::new("postern_upstream_login_seconds", "Logins to servers, by phase.");
        let seconds = HistogramVec::new(options.buckets(SECONDS.to_vec()), &["target", "phase"])?;
        registry.register(Box::new(seconds.clone()))?;
        let outcomes = IntCounterVec::new(
            Opts::new("postern_upstream_logins_total", "Logins to servers, by outcome."),
            &["target", "outcome"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        Ok(Self { seconds, outcomes })
    }

    /// Those of `target`.
    pub fn of<'a>(&'a self, target: &'a TargetName) -> TargetLogins<'a> {
        TargetLogins {
            metrics: self,
            target,
        }
    }
}

impl TargetLogins<'_> {
    /// How long one phase took; `phase` comes from a closed set.
    pub fn phase(&self, phase: &'static str) -> Histogram {
        self.metrics
            .seconds
            .with_label_values(&[self.target.as_str(), phase])
    }

    /// An attempt has ended; `outcome` comes from a closed set.
    pub fn ended(&self, outcome: &'static str) {
        self.metrics
            .outcomes
            .with_label_values(&[self.target.as_str(), outcome])
            .inc();
    }
}
