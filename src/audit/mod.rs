//! The record of who used what: one line of JSON for each login, refusal, cancel and disconnect, and for each statement where a rule
//! asks for that.
//!
//! AWS records no login to a database with IAM (RDS User Guide, "IAM database authentication": neither CloudWatch nor CloudTrail logs it), so
//! this is the only one there is.
//! Whoever serves clients hands events to [`Audit`] and never waits; a thread of its own writes them ([`writer`]), each chained to
//! the one before ([`chain`]), so that a line that is taken out, changed or moved shows.

pub mod chain;
mod event;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};

pub use event::{Asked, Event};

use crate::config::file::OnFull;
use crate::metrics::Metrics;

/// Events that may wait to be written when somebody logs in: some 5 MB. Beyond that there is room for what becomes of those who are in.
const MAX_WAITING_AT_LOGIN: u64 = 10_000;

/// Statements of which as many bytes wait may wait as well.
const MAX_STATEMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Refusals and cancels in a second that are recorded one by one. Whoever reaches the port can make as many as he likes, and mustn't
/// fill the disk with them.
const MAX_UNASKED: u64 = 100;

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
    began: Instant,
    metrics: Arc<Metrics>,
}

/// What both sides know.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Events that wait to be written.
    waiting: AtomicU64,
    /// Bytes of statements among them.
    bytes: AtomicU64,
    /// Events that were lost since the last line was written.
    lost: AtomicU64,
    /// Refusals and cancels that weren't recorded one by one since then.
    unlisted: AtomicU64,
    /// The second since the start in which refusals and cancels were last recorded, and how many.
    second: AtomicU64,
    recorded: AtomicU64,
    /// Milliseconds since the start at which those were taken that aren't written yet; 0 if there are none.
    unwritten_since: AtomicU64,
    /// Nobody writes any more.
    is_over: AtomicBool,
}

/// What isn't written within this time can't be, as far as logins go.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

impl State {
    /// Milliseconds since the start, from 1 on.
    fn now(&self, began: Instant) -> u64 {
        began.elapsed().as_millis() as u64 + 1
    }
}

impl Audit {
    /// None.
    pub fn off(metrics: Arc<Metrics>) -> Self {
        Self {
            entries: None,
            state: Arc::default(),
            on_full: OnFull::Drop,
            began: Instant::now(),
            metrics,
        }
    }

    /// Whether somebody may log in: not if that couldn't be recorded, unless it may be lost.
    pub fn admits(&self) -> bool {
        self.on_full == OnFull::Drop || self.has_room() && !self.is_stuck()
    }

    /// Whether it hasn't been possible to write for a while: the disk may refuse, or hang.
    pub fn is_stuck(&self) -> bool {
        let since = self.state.unwritten_since.load(Ordering::Relaxed);
        let is_late = since > 0 && self.state.now(self.began) > since + WRITTEN_WITHIN.as_millis() as u64;
        is_late || self.state.is_over.load(Ordering::Relaxed)
    }

    /// Shows in the metric that it is stuck, which who writes can't if it is.
    pub fn watch(&self) {
        if self.is_stuck() {
            self.metrics.audit.failing.set(1);
        }
    }

    fn has_room(&self) -> bool {
        self.state.waiting.load(Ordering::Relaxed) < MAX_WAITING_AT_LOGIN
    }

    /// The same of a refusal or a cancel, which anybody may cause: of more than so many in a second, or while much waits, only the number
    /// is recorded.
    pub fn record_unasked(&self, event: impl FnOnce() -> Event) {
        let state = &self.state;
        let second = self.began.elapsed().as_secs() + 1;
        if state.second.swap(second, Ordering::Relaxed) != second {
            state.recorded.store(0, Ordering::Relaxed);
        }
        if self.has_room() && state.recorded.fetch_add(1, Ordering::Relaxed) < MAX_UNASKED {
            self.record(event);
        } else if self.entries.is_some() {
            state.unlisted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same of a statement. Who asks much isn't slowed down, and leaves room for logins: what can't be recorded is lost, and counted.
    pub fn record_statement(&self, event: impl FnOnce() -> Event) {
        if self.has_room() && self.state.bytes.load(Ordering::Relaxed) < MAX_STATEMENT_BYTES {
            self.record(event);
        } else if self.entries.is_some() {
            self.lose();
        }
    }

    /// Records that this has happened just now. What can't be recorded is counted, in a metric and, once there is room, in the record.
    pub fn record(&self, event: impl FnOnce() -> Event) {
        let Some(entries) = &self.entries else { return };
        let entry = Entry {
            at: SystemTime::now(),
            event: Box::new(event()),
        };
        let bytes = entry.event.statement_bytes();
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        self.state.bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = entries.try_send(entry);
        if let Err(TrySendError::Disconnected(_)) = &sent {
            self.state.is_over.store(true, Ordering::Relaxed);
        }
        if sent.is_err() {
            self.state.waiting.fetch_sub(1, Ordering::Relaxed);
            self.state.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.lose();
        }
    }

    fn lose(&self) {
        self.state.lost.fetch_add(1, Ordering::Relaxed);
        self.metrics.audit.lost.inc();
    }
}
