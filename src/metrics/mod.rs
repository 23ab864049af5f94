//! What is counted, and the text that `/metrics` shows.
//!
//! One struct for each area, registered once; labels are closed sets or names from the configuration. Gauges of things
//! that can be looked up are set when somebody asks ([`Metrics::expose`]); nothing here is on the way of a query.

mod audit;
mod client;
mod discovery;
mod iam;
mod login;
mod pool;

use prometheus::{Encoder as _, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

pub use audit::AuditMetrics;
pub use client::ClientMetrics;
pub use discovery::DiscoveryMetrics;
pub use iam::IamMetrics;
pub use login::{LoginMetrics, TargetLogins};
pub use pool::{OnePool, PoolMetrics};

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Clients: connections, logins, refusals, cancels, bytes.
    pub client: ClientMetrics,
    /// Pools: connections, waits, leases, resets.
    pub pool: PoolMetrics,
    /// Logins to servers, by phase and outcome.
    pub login: LoginMetrics,
    /// Credentials, tokens, the login budget.
    pub iam: IamMetrics,
    /// Looking for databases.
    pub discovery: DiscoveryMetrics,
    /// The audit log.
    pub audit: AuditMetrics,
    /// How often the configuration was read again: `ok` or `refused`.
    pub reloads: IntCounterVec,
    /// What the checks at the start have found, by how they have ended.
    pub start_checks: IntGaugeVec,
    /// 1 if new clients can be served.
    pub ready: IntGauge,
}

impl Metrics {
    /// Registers all of it.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let reloads = IntCounterVec::new(
            Opts::new(
                "postern_config_reloads_total",
                "How often the configuration was read again, by outcome.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        for outcome in ["ok", "refused"] {
            reloads.with_label_values(&[outcome]);
        }
        let options = Opts::new("postern_build_info", "1; what runs says the label.");
        let build = IntGaugeVec::new(options, &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let options = Opts::new(
            "postern_start_checks",
            "What the checks at the start have found, as /startupz says.",
        );
        let start_checks = IntGaugeVec::new(options, &["state"])?;
        registry.register(Box::new(start_checks.clone()))?;
        for state in ["ok", "warning", "failed", "skipped"] {
            start_checks.with_label_values(&[state]);
        }
        let ready = IntGauge::new(
            "postern_ready",
            "1 if new clients can be served, as /readyz says.",
        )?;
        registry.register(Box::new(ready.clone()))?;
        Ok(Self {
            ready,
            start_checks,
            reloads,
            client: ClientMetrics::register(&registry)?,
            pool: PoolMetrics::register(&registry)?,
            login: LoginMetrics::register(&registry)?,
            iam: IamMetrics::register(&registry)?,
            discovery: DiscoveryMetrics::register(&registry)?,
            audit: AuditMetrics::register(&registry)?,
            registry,
        })
    }

    /// The exposition in Prometheus' text format.
    pub fn expose(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only for a family without a metric, which is then left out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Bounds in seconds for waits and logins: a warm login takes a millisecond, an IAM login up to many seconds.
const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];
