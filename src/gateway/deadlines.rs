//! Deadlines of what a client does: a query, a transaction, a pause in one, a pause between two.
//!
//! There is one timer for each client that has such deadlines, set for the first of them and looked at again when it
//! goes off: what a client does moves it only if it comes to be due earlier.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::info;

use super::cancel::Registered;
use super::pump::End;
use crate::config::{ClientTimeouts, Timeouts};
use crate::ids::SessionId;
use crate::metrics::OnePool;
use crate::session::ledger::{Activity, Standing};

/// The timer is never set for later than this.
const FAR: Duration = Duration::from_secs(24 * 3600);

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
    /// `rules[].max_duration`
    Session,
}

/// One client's.
pub(super) struct Deadlines {
    limits: ClientTimeouts,
    /// When its session ends, whatever it is at.
    ends: Option<Instant>,
    reset: Duration,
    session: SessionId,
    cancelled: IntCounter,
    standing: Standing,
    since: Instant,
    /// When its transaction began.
    busy_since: Instant,
    is_cancelled: bool,
    cancelling: Option<JoinHandle<()>>,
    alarm: Pin<Box<Sleep>>,
}

impl Deadlines {
    /// Those of a target, and of a session that `ends`; `None` if there are none.
    pub(super) fn of(
        timeouts: &Timeouts,
        ends: Option<Instant>,
        session: SessionId,
        metrics: &OnePool,
    ) -> Option<Box<Self>> {
        let ClientTimeouts {
            query,
            transaction,
            idle_in_transaction,
            client_idle,
        } = timeouts.client;
        let limits = [query, transaction, idle_in_transaction, client_idle];
        (ends.is_some() || limits.iter().any(Option::is_some)).then(|| {
            let now = Instant::now();
            let mut deadlines = Self {
                limits: timeouts.client,
                ends,
                reset: timeouts.reset,
                session,
                cancelled: metrics.query_timeouts.clone(),
                standing: Standing::default(),
                since: now,
                busy_since: now,
                is_cancelled: false,
                cancelling: None,
                alarm: Box::pin(sleep_until(now + FAR)),
            };
            deadlines.advance();
            Box::new(deadlines)
        })
    }

    /// Whether a cancel request is under way: what the server gets now may be what it hits.
    pub(super) fn is_cancelling(&mut self, cx: &mut Context<'_>) -> bool {
        let is_under_way = |task: &mut JoinHandle<()>| Pin::new(task).poll(cx).is_pending();
        let is_cancelling = self.cancelling.as_mut().is_some_and(is_under_way);
        if !is_cancelling {
            self.cancelling = None;
        }
        is_cancelling
    }

    /// Notes what the client is at, and says if its session has to end. A query that takes too long is cancelled first.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, standing: Standing, key: &Registered) -> Option<End> {
        if standing != self.standing {
            self.enter(standing);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.due() {
                Some((due, Late::Query)) if due <= now && !self.is_cancelled => {
                    info!(session = %self.session, "a query takes longer than timeouts.query: cancelled");
                    self.cancelled.inc();
                    self.is_cancelled = true;
                    self.since = now;
                    self.cancelling = Some(key.cancel_running());
                }
                Some((due, late)) if due <= now => return Some(End::Late(late)),
                _ => {}
            }
            let due = self.due().map_or(now + FAR, |(due, _)| due);
            self.alarm.as_mut().reset(due.min(now + FAR));
        }
        None
    }

    fn enter(&mut self, standing: Standing) {
        let now = Instant::now();
        if self.standing.activity == Activity::Idle || self.standing.transactions != standing.transactions {
            self.busy_since = now;
        }
        (self.standing, self.since) = (standing, now);
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
        let activity = self.standing.activity;
        let (limit, late) = match activity {
            Activity::Idle => (self.limits.client_idle, Late::ClientIdle),
            Activity::Query if self.is_cancelled => (Some(self.reset), Late::Query),
            Activity::Query => (self.limits.query, Late::Query),
            Activity::Pause => (self.limits.idle_in_transaction, Late::IdleInTransaction),
            Activity::Pipeline => (None, Late::Query),
        };
        let transaction = self.limits.transaction.filter(|_| activity != Activity::Idle);
        let first = limit.map(|limit| (self.since + limit, late));
        let transaction = transaction.map(|limit| (self.busy_since + limit, Late::Transaction));
        let session = self.ends.map(|ends| (ends, Late::Session));
        [first, transaction, session]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due)
    }
}
