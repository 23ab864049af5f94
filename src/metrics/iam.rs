//! Credentials, tokens and the login budget.

use std::time::SystemTime;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::aws::credentials::{Load, Observer};

/// What IAM logins depend on.
#[derive(Debug)]
pub struct IamMetrics {
    /// Tokens signed.
    pub tokens_signed: IntCounter,
    /// Loads of the host's credentials, by outcome.
    pub credential_loads: IntCounterVec,
    /// When the credentials expire, in seconds since 1970; 0 if never or not known.
    pub credentials_expire: Gauge,
    /// Until when a login with the token that is held can succeed, in seconds since 1970, by endpoint and user.
    pub tokens_expire: GaugeVec,
    /// Logins that wait for the budget, by endpoint.
    pub budget_queue: IntGaugeVec,
    /// Logins under way, by endpoint.
    pub budget_in_flight: IntGaugeVec,
    /// Logins that the budget would allow at this moment, by endpoint.
    pub budget_available: IntGaugeVec,
    /// Logins in any second at most, by endpoint.
    pub budget_limit: IntGaugeVec,
}

impl IamMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let by_endpoint = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["endpoint"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let tokens_signed = IntCounter::new("postern_tokens_signed_total", "IAM tokens signed.")?;
        registry.register(Box::new(tokens_signed.clone()))?;
        let credential_loads = IntCounterVec::new(
            Opts::new(
                "postern_credential_loads_total",
                "Loads of the host's AWS credentials, by outcome.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(credential_loads.clone()))?;
        let credentials_expire = Gauge::new(
            "postern_credentials_expiry_timestamp_seconds",
            "When the host's AWS credentials expire, in seconds since 1970; 0 if never or not known.",
        )?;
        registry.register(Box::new(credentials_expire.clone()))?;
        let tokens_expire = GaugeVec::new(
            Opts::new(
                "postern_token_expiry_timestamp_seconds",
                "Until when a login with the IAM token that is held can succeed, in seconds since 1970.",
            ),
            &["endpoint", "user"],
        )?;
        registry.register(Box::new(tokens_expire.clone()))?;
        Ok(Self {
            tokens_expire,
            tokens_signed,
            credential_loads,
            credentials_expire,
            budget_queue: by_endpoint("postern_budget_queue", "Logins that wait for the login budget.")?,
            budget_in_flight: by_endpoint(
                "postern_budget_in_flight",
                "Logins to the server that are under way.",
            )?,
            budget_available: by_endpoint(
                "postern_budget_available",
                "Logins that the budget would allow now.",
            )?,
            budget_limit: by_endpoint("postern_budget_limit", "Logins in any one second at most.")?,
        })
    }
}

impl Observer for IamMetrics {
    fn loaded(&self, load: Load, expires_at: Option<SystemTime>) {
        self.credential_loads.with_label_values(&[load.label()]).inc();
        let since_1970 = expires_at.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.credentials_expire
            .set(since_1970.unwrap_or_default().as_secs_f64());
    }
}
