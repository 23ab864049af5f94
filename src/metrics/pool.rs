//! Pools.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::SECONDS;
use crate::ids::PoolKey;
use crate::pin::Reason;

const POOL: [&str; 3] = ["target", "database", "user"];

/// Bounds in seconds for how long clients keep a connection: from one transaction to a day.
const PINNED_SECONDS: &[f64] = &[0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0];

/// All pools.
#[derive(Debug)]
pub struct PoolMetrics {
    connections: IntGaugeVec,
    size: IntGaugeVec,
    waiting: IntGaugeVec,
    wait_seconds: HistogramVec,
    timeouts: IntCounterVec,
    leases: IntCounterVec,
    cleaned: IntCounterVec,
    discarded: IntCounterVec,
    probes: IntCounterVec,
    handovers: IntCounterVec,
    query_timeouts: IntCounterVec,
    pins: IntCounterVec,
    pinned: IntGaugeVec,
    pinned_seconds: HistogramVec,
    refused: IntCounterVec,
    statements: IntCounterVec,
    transactions: IntCounterVec,
    queries: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    paused: IntGaugeVec,
}

/// One pool, looked up once.
#[derive(Clone, Debug)]
pub struct OnePool {
    /// Idle connections.
    pub idle: IntGauge,
    /// Connections that a client has, or that are being cleaned after one.
    pub leased: IntGauge,
    /// Connections that are being opened.
    pub opening: IntGauge,
    /// The limit.
    pub size: IntGauge,
    /// Clients that wait.
    pub waiting: IntGauge,
    /// How long clients waited.
    pub wait_seconds: Histogram,
    /// Clients that waited in vain.
    pub timeouts: IntCounter,
    /// Connections lent.
    pub leases: IntCounter,
    /// Connections that were reset after a client.
    pub cleaned: IntCounter,
    /// Connections that were closed and not given back.
    pub discarded: IntCounter,
    /// Questions to a server what a client has left behind.
    pub probes: IntCounter,
    /// Leases that had to begin with settings of the client's.
    pub handovers: IntCounter,
    /// Queries that were cancelled because they took too long.
    pub query_timeouts: IntCounter,
    /// Clients that began to keep their connection; by reason, each of which has a series once there was one: with a thousand pools
    /// they would be most of an exposition.
    pins: IntCounterVec,
    labels: [String; 3],
    /// Clients that keep their connection now.
    pub pinned: IntGauge,
    /// How long clients have kept theirs.
    pub pinned_seconds: Histogram,
    /// Prepared statements that a connection had when a client used them.
    pub statements_found: IntCounter,
    /// Those that it had to be told first.
    pub statements_prepared: IntCounter,
    /// Those that it had to forget for others.
    pub statements_evicted: IntCounter,
    /// Requests that a rule didn't let through.
    pub refused: IntCounter,
    /// Transactions of clients, statements outside of one included; these four are of what they did with connections that they gave back.
    pub transactions: IntCounter,
    /// Their requests: queries, and whatever ends with a Sync.
    pub queries: IntCounter,
    /// Bytes from them.
    pub received: IntCounter,
    /// Bytes to them.
    pub sent: IntCounter,
    /// 1 while nothing is lent.
    pub paused: IntGauge,
}

impl OnePool {
    /// Counts one that begins to keep its connection.
    pub fn pins(&self, reason: Reason) {
        let [target, database, user] = self.labels.each_ref().map(String::as_str);
        self.pins
            .with_label_values(&[target, database, user, reason.label()])
            .inc();
    }
}

impl PoolMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let counters_by = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counters = |name: &str, help: &str| counters_by(name, help, &POOL);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, &POOL)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let [target, database, user] = POOL;
        Ok(Self {
            connections: gauges(
                "postern_pool_connections",
                "Server connections, by state.",
                &[target, database, user, "state"],
            )?,
            size: gauges("postern_pool_size", "Server connections at most.", &POOL)?,
            waiting: gauges(
                "postern_pool_waiting_clients",
                "Clients that wait for a server connection.",
                &POOL,
            )?,
            wait_seconds: histogram(
                "postern_pool_wait_seconds",
                "How long clients waited for a server connection.",
                SECONDS,
            )?,
            timeouts: counters("postern_pool_wait_timeouts_total", "Clients that waited in vain.")?,
            leases: counters("postern_pool_leases_total", "Server connections lent to clients.")?,
            cleaned: counters(
                "postern_pool_resets_total",
                "Server connections that were reset after a client.",
            )?,
            discarded: counters(
                "postern_pool_discards_total",
                "Server connections that were closed after a client.",
            )?,
            probes: counters(
                "postern_pool_probes_total",
                "Questions to a server what a client has left behind.",
            )?,
            handovers: counters(
                "postern_pool_handovers_total",
                "Leases that began with setting what the client had set before.",
            )?,
            query_timeouts: counters(
                "postern_pool_query_timeouts_total",
                "Queries that were cancelled because they took too long.",
            )?,
            pins: counters_by(
                "postern_pool_pins_total",
                "Clients that began to keep their server connection, by reason.",
                &[target, database, user, "reason"],
            )?,
            pinned: gauges(
                "postern_pool_pinned_clients",
                "Clients that keep their server connection between transactions.",
                &POOL,
            )?,
            pinned_seconds: histogram(
                "postern_pool_pinned_seconds",
                "How long clients kept their server connection.",
                PINNED_SECONDS,
            )?,
            statements: counters_by(
                "postern_pool_statements_total",
                "Prepared statements: found on a connection, prepared on it, evicted from it.",
                &[target, database, user, "outcome"],
            )?,
            transactions: counters(
                "postern_pool_transactions_total",
                "Transactions of clients, of those that gave their server connection back.",
            )?,
            queries: counters(
                "postern_pool_queries_total",
                "Requests of clients, of those that gave their server connection back.",
            )?,
            received: counters(
                "postern_pool_received_bytes_total",
                "Bytes from clients, of those that gave their server connection back.",
            )?,
            sent: counters(
                "postern_pool_sent_bytes_total",
                "Bytes to clients, of those that gave their server connection back.",
            )?,
            paused: gauges(
                "postern_pool_paused",
                "1 while the pool is paused at the console, so that clients wait.",
                &POOL,
            )?,
            refused: counters(
                "postern_pool_refused_requests_total",
                "Requests that weren't let through, since a rule says read_only.",
            )?,
        })
    }

    /// The metrics of the pool `key`.
    pub fn of(&self, key: &PoolKey) -> OnePool {
        let labels = [key.target.as_str(), key.database.as_str(), key.user.as_str()];
        let [target, database, user] = labels;
        let in_state = |state: &str| {
            self.connections
                .with_label_values(&[target, database, user, state])
        };
        let statements = |outcome: &str| {
            self.statements
                .with_label_values(&[target, database, user, outcome])
        };
        OnePool {
            idle: in_state("idle"),
            leased: in_state("leased"),
            opening: in_state("opening"),
            size: self.size.with_label_values(&labels),
            waiting: self.waiting.with_label_values(&labels),
            wait_seconds: self.wait_seconds.with_label_values(&labels),
            timeouts: self.timeouts.with_label_values(&labels),
            leases: self.leases.with_label_values(&labels),
            cleaned: self.cleaned.with_label_values(&labels),
            discarded: self.discarded.with_label_values(&labels),
            probes: self.probes.with_label_values(&labels),
            handovers: self.handovers.with_label_values(&labels),
            query_timeouts: self.query_timeouts.with_label_values(&labels),
            pins: self.pins.clone(),
            labels: labels.map(str::to_owned),
            pinned: self.pinned.with_label_values(&labels),
            pinned_seconds: self.pinned_seconds.with_label_values(&labels),
            statements_found: statements("found"),
            statements_prepared: statements("prepared"),
            statements_evicted: statements("evicted"),
            refused: self.refused.with_label_values(&labels),
            transactions: self.transactions.with_label_values(&labels),
            queries: self.queries.with_label_values(&labels),
            received: self.received.with_label_values(&labels),
            sent: self.sent.with_label_values(&labels),
            paused: self.paused.with_label_values(&labels),
        }
    }
}
