//! The record of who used what: one line of JSON for each login, refusal, cancel and disconnect.
//!
//! AWS records no login to a database with IAM (RDS User Guide, "IAM database authentication": neither CloudWatch nor CloudTrail logs it), so
//! this is the only one there is.
//! Whoever serves clients hands events to [`Audit`] and never waits; a thread of its own writes them ([`writer`]), each chained to
//! the one before ([`chain`]), so that a line that is taken out, changed or moved shows.

pub mod chain;
mod event;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::SystemTime;

pub use event::Event;

use crate::config::file::OnFull;
use crate::metrics::Metrics;

/// Events that may wait to be written: some 10 MB.
pub const MAX_WAITING: u64 = 20_000;

/// Of these, as many may wait when somebody logs in: the others are for what becomes of those who are in.
const MAX_WAITING_AT_LOGIN: u64 = MAX_WAITING / 2;

/// An event and when it was.
#[derive(Debug)]
pub struct Entry {
    at: SystemTime,
    event: Box<Event>,
}

/// Where events go.
#[derive(Debug)]
pub struct Audit {
    /// Nothing if there is no audit.
    entries: Option<SyncSender<Entry>>,
    state: Arc<State>,
    on_full: OnFull,
    metrics: Arc<Metrics>,
}

/// What both sides know.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Events that wait to be written.
    waiting: AtomicU64,
    /// Events that were lost since the last line was written.
    lost: AtomicU64,
}

impl Audit {
    /// None.
    pub fn off(metrics: Arc<Metrics>) -> Self {
        Self {
            entries: None,
            state: Arc::default(),
            on_full: OnFull::Drop,
            metrics,
        }
    }

    /// Whether somebody may log in: not if that couldn't be recorded, unless it may be lost.
    pub fn admits(&self) -> bool {
        self.on_full == OnFull::Drop || self.state.waiting.load(Ordering::Relaxed) < MAX_WAITING_AT_LOGIN
    }

    /// Records that this has happened just now. What can't be recorded is counted, in a metric and, once there is room, in the record.
    pub fn record(&self, event: impl FnOnce() -> Event) {
        let Some(entries) = &self.entries else { return };
        let entry = Entry {
            at: SystemTime::now(),
            event: Box::new(event()),
        };
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = entries.try_send(entry) {
            self.state.waiting.fetch_sub(1, Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
            self.metrics.audit.lost.inc();
        }
    }
}
