//! Looking for databases.

use std::time::SystemTime;

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

/// How it goes.
#[derive(Debug)]
pub struct DiscoveryMetrics {
    looks: IntCounterVec,
    last_success: Gauge,
    /// Targets that it isn't known where they are.
    pub absent: IntGauge,
}

impl DiscoveryMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let looks = IntCounterVec::new(
            Opts::new(
                "postern_discovery_looks_total",
                "How often RDS was asked for the targets that are discovered, by outcome.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(looks.clone()))?;
        for outcome in ["ok", "failed"] {
            looks.with_label_values(&[outcome]);
        }
        let last_success = Gauge::new(
            "postern_discovery_last_success_timestamp_seconds",
            "When RDS last said all that was asked, in seconds since 1970; 0 if never, or if nothing is discovered.",
        )?;
        registry.register(Box::new(last_success.clone()))?;
        let absent = IntGauge::new(
            "postern_targets_absent",
            "Targets of the configuration that RDS doesn't know.",
        )?;
        registry.register(Box::new(absent.clone()))?;
        Ok(Self {
            looks,
            last_success,
            absent,
        })
    }

    /// RDS was asked, and has said all or not.
    pub fn looked(&self, is_whole: bool) {
        let outcome = if is_whole { "ok" } else { "failed" };
        self.looks.with_label_values(&[outcome]).inc();
        if is_whole {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.last_success
                .set(since_1970.unwrap_or_default().as_secs_f64());
        }
    }
}
