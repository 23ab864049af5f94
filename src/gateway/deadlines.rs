//! Deadlines of what a client does: a query, a transaction, a pause in one, a pause between two.
//!
//! There is one timer for each client that has such deadlines, set for the first of them and looked at again when it
//! goes off: what a client does moves it only if it comes to be due earlier.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::info;

use super::cancel::Registered;
use super::pump::End;
use crate::config::{ClientTimeouts, Timeouts};
use crate::ids::SessionId;
use crate::metrics::OnePool;

/// The timer is never set for later than this.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// What a client is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is under way.
    Idle,
    /// The server has something to answer.
    Query,
    /// A transaction is open, or a pipeline, and it is the client's turn.
    Pause,
}

impl Phase {
    #[inline]
    pub(super) fn of(is_idle: bool, owes_ready: bool) -> Self {
        match (is_idle, owes_ready) {
            (true, _) => Self::Idle,
            (false, true) => Self::Query,
            (false, false) => Self::Pause,
        }
    }
}

/// What has taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// `timeouts.query`, and the server hasn't heeded the cancel request.
    Query,
    /// `timeouts.transaction`
    Transaction,
    /// `timeouts.idle_in_transaction`
    IdleInTransaction,
    /// `timeouts.client_idle`
    ClientIdle,
}

/// One client's.
pub(super) struct Deadlines {
    limits: ClientTimeouts,
    reset: Duration,
    session: SessionId,
    cancelled: IntCounter,
    phase: Phase,
    answered: u64,
    since: Instant,
    /// Since when it isn't idle.
    busy_since: Instant,
    is_cancelled: bool,
    alarm: Pin<Box<Sleep>>,
}

impl Deadlines {
    /// Those of a target; `None` if there are none.
    pub(super) fn of(timeouts: &Timeouts, session: SessionId, metrics: &OnePool) -> Option<Box<Self>> {
        let ClientTimeouts {
            query,
            transaction,
            idle_in_transaction,
            client_idle,
        } = timeouts.client;
        [query, transaction, idle_in_transaction, client_idle]
            .iter()
            .any(Option::is_some)
            .then(|| {
                let now = Instant::now();
                let mut deadlines = Self {
                    limits: timeouts.client,
                    reset: timeouts.reset,
                    session,
                    cancelled: metrics.query_timeouts.clone(),
                    phase: Phase::Idle,
                    answered: 0,
                    since: now,
                    busy_since: now,
                    is_cancelled: false,
                    alarm: Box::pin(sleep_until(now + FAR)),
                };
                deadlines.advance();
                Box::new(deadlines)
            })
    }

    /// Notes what the client is at, with so many answers so far, and says if its session has to end. A query that takes
    /// too long is cancelled first.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        phase: Phase,
        answered: u64,
        key: &Registered,
    ) -> Option<End> {
        if phase != self.phase || answered != self.answered {
            self.enter(phase, answered);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.due() {
                Some((due, Late::Query)) if due <= now && !self.is_cancelled => {
                    info!(session = %self.session, "a query takes longer than timeouts.query: cancelled");
                    self.cancelled.inc();
                    self.is_cancelled = true;
                    self.since = now;
                    key.cancel_running();
                }
                Some((due, late)) if due <= now => return Some(End::Late(late)),
                _ => {}
            }
            let due = self.due().map_or(now + FAR, |(due, _)| due);
            self.alarm.as_mut().reset(due.min(now + FAR));
        }
        None
    }

    fn enter(&mut self, phase: Phase, answered: u64) {
        let now = Instant::now();
        if self.phase == Phase::Idle {
            self.busy_since = now;
        }
        (self.phase, self.answered, self.since) = (phase, answered, now);
        self.is_cancelled = false;
        self.advance();
    }

    /// Sees to it that the timer goes off in time.
    fn advance(&mut self) {
        if let Some((due, _)) = self.due()
            && due < self.alarm.deadline()
        {
            self.alarm.as_mut().reset(due);
        }
    }

    /// What is late first, and when.
    fn due(&self) -> Option<(Instant, Late)> {
        let phase = match self.phase {
            Phase::Idle => (self.limits.client_idle, Late::ClientIdle),
            Phase::Query if self.is_cancelled => (Some(self.reset), Late::Query),
            Phase::Query => (self.limits.query, Late::Query),
            Phase::Pause => (self.limits.idle_in_transaction, Late::IdleInTransaction),
        };
        let transaction = self.limits.transaction.filter(|_| self.phase != Phase::Idle);
        let phase = phase.0.map(|limit| (self.since + limit, phase.1));
        let transaction = transaction.map(|limit| (self.busy_since + limit, Late::Transaction));
        [phase, transaction]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due)
    }
}
