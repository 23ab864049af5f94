//! The audit log.

use prometheus::{IntCounter, IntGauge, Registry};

/// Lines of the audit log.
#[derive(Debug)]
pub struct AuditMetrics {
    /// Events that became lines.
    pub written: IntCounter,
    /// Events that were lost: more were waiting than may.
    pub lost: IntCounter,
    /// 1 while it can't be written.
    pub failing: IntGauge,
}

impl AuditMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let written = IntCounter::new("postern_audit_events_total", "Events of the audit log.")?;
        registry.register(Box::new(written.clone()))?;
        let lost = IntCounter::new(
            "postern_audit_lost_total",
            "Events that couldn't be recorded in the audit log.",
        )?;
        registry.register(Box::new(lost.clone()))?;
        let failing = IntGauge::new("postern_audit_failing", "1 while the audit log can't be written.")?;
        registry.register(Box::new(failing.clone()))?;
        Ok(Self {
            written,
            lost,
            failing,
        })
    }
}
