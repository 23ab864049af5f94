//! Clients.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::SECONDS;

/// Client connections, logins, refusals, cancels, bytes.
#[derive(Debug)]
pub struct ClientMetrics {
    /// Connections that are open, in whatever phase.
    pub connections: IntGauge,
    /// Connections at most.
    pub limit: IntGauge,
    /// Principals with a connection that is in.
    pub principals: IntGauge,
    /// Sessions of Session Manager with one.
    pub ssm_sessions: IntGauge,
    /// Connections that were accepted.
    pub accepted: IntCounter,
    /// Connections that are logging in.
    pub logging_in: IntGauge,
    /// Logins that went well, by source of identity.
    pub logins: IntCounterVec,
    /// Looks for the session of Session Manager that a connection came through, by what was found.
    pub attributions: IntCounterVec,
    /// How long they took.
    pub attribution_seconds: Histogram,
    /// Proofs that STS was to vouch for, by what became of them.
    pub proofs: IntCounterVec,
    /// Connections that went away before their login was done, without an error of ours.
    pub abandoned: IntCounter,
    /// Errors that were sent to clients, by kind.
    pub errors: IntCounterVec,
    /// From accept to ReadyForQuery.
    pub login_seconds: Histogram,
    /// Bytes from clients.
    pub received_bytes: IntCounter,
    /// Bytes to clients.
    pub sent_bytes: IntCounter,
    /// ReadyForQuery messages passed on: queries, roughly.
    pub answers: IntCounter,
    /// Cancel requests, by what became of them.
    pub cancels: IntCounterVec,
    /// Tasks that panicked; each cost one client.
    pub panics: IntCounter,
}

impl ClientMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let by = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let options = HistogramOpts::new("postern_client_login_seconds", "From accept to ReadyForQuery.");
        let login_seconds = Histogram::with_opts(options.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(login_seconds.clone()))?;
        let options = HistogramOpts::new(
            "postern_attribution_seconds",
            "Looks for the session of Session Manager that a connection came through.",
        );
        let attribution_seconds = Histogram::with_opts(options.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(attribution_seconds.clone()))?;
        Ok(Self {
            attributions: by(
                "postern_attribution_total",
                "Looks for the session of Session Manager that a connection came through, by what was found.",
                "outcome",
            )?,
            attribution_seconds,
            proofs: by(
                "postern_sts_proofs_total",
                "Passwords that were to be proofs that STS vouches for, by what became of them.",
                "outcome",
            )?,
            connections: gauge("postern_client_connections", "Client connections that are open.")?,
            limit: gauge("postern_client_limit", "Client connections at most.")?,
            principals: gauge(
                "postern_client_principals",
                "Principals with a connection that is logged in.",
            )?,
            ssm_sessions: gauge(
                "postern_client_ssm_sessions",
                "Sessions of Session Manager with a connection that is logged in.",
            )?,
            accepted: counter(
                "postern_client_accepted_total",
                "Client connections that were accepted.",
            )?,
            logging_in: gauge(
                "postern_client_logging_in",
                "Client connections that are logging in.",
            )?,
            logins: by(
                "postern_client_logins_total",
                "Client logins that went well, by source of identity.",
                "source",
            )?,
            abandoned: counter(
                "postern_client_abandoned_total",
                "Client connections that went away before their login was done.",
            )?,
            errors: by(
                "postern_client_errors_total",
                "Errors that were sent to clients, by kind.",
                "kind",
            )?,
            login_seconds,
            received_bytes: counter("postern_client_received_bytes_total", "Bytes from clients.")?,
            sent_bytes: counter("postern_client_sent_bytes_total", "Bytes to clients.")?,
            answers: counter(
                "postern_client_answers_total",
                "ReadyForQuery messages passed on to clients.",
            )?,
            cancels: by(
                "postern_cancel_requests_total",
                "Cancel requests, by what became of them.",
                "outcome",
            )?,
            panics: counter(
                "postern_panics_total",
                "Tasks that panicked; each cost one client.",
            )?,
        })
    }
}
