//! The login governor of one database endpoint.
//!
//! **Its promise**: the logins per second that leave for the endpoint never exceed the budget, over any
//! schedule of clients, retries, health checks and restarts. Past some rate RDS throttles IAM logins
//! and refuses them just as it refuses a wrong token, so a storm of logins looks like a broken
//! configuration and feeds itself through retries; the only cure is not to start one. There is one
//! governor per endpoint, and everything that logs in to it asks this one: pools, retries, warm-up
//! and health checks.
//!
//! Two things are needed for a login, both handed out first come, first served:
//!
//! 1. A **slot**, from the dial until the outcome is known: caps the logins that are under way, each of
//!    which costs the server a process and an IAM call.
//! 2. The **spend**, immediately before the password is sent. A spend that was granted counts, even if
//!    the password is then never sent. Whoever can't send within [`GUARD`] of the grant must drop the
//!    connection and ask for another spend: the promise is about what the server sees.
//!
//! A spend has to fit two measures. An exact sliding window holds the promise: no more than
//! `logins_per_second` in any second. The window is [`GUARD`] longer than the second, so that passwords
//! which were sent a second apart, and arrive closer together, still don't meet in one. A token bucket
//! of capacity `burst`, refilled at `logins_per_second`, spreads them out within the second.
//!
//! A new process can't know what its predecessor spent in the last second, so it begins as if that
//! were the whole budget: the window full, the bucket empty. That keeps the promise over restarts
//! without a file, for about a second's wait, provided the predecessor has made its last login when
//! the successor's governor is made. And since after a restart everybody returns at once, to a
//! database that may itself be recovering, the window starts at a quarter of its size (at least 1)
//! and grows linearly to the whole over `slow_start`.
//!
//! The governor waits for nothing: it is told the time, and says when to ask again. The call order is
//! `request_*`, `abandon` or `release_slot`, then [`poll`](Governor::poll), then sleep until
//! [`next_wakeup`](Governor::next_wakeup). The time is to be read immediately before each call (under the
//! same lock, if there is one): a grant is entered under the time that the call brought. How long its
//! lines may get is up to the callers: each waiter stands for a waiting client or a background task,
//! both limited where they arise.

mod budget;
mod line;
mod meter;
#[cfg(test)]
mod tests;

pub use budget::{Budget, BudgetError};

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use line::Line;
use meter::Meter;

/// By how much the way to the server may delay one password more than the next without two seconds'
/// logins meeting in one. 50 ms is chosen well above the jitter to be expected within an AWS region, and
/// costs 5 % of the rate.
pub const GUARD: Duration = Duration::from_millis(50);

/// A place in one of a governor's lines, and the name of what is granted. Drawn in order, never reused
/// by the same governor; meaningless to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The request.
    pub ticket: Ticket,
    /// Its end.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The slot is the asker's until [`Governor::release_slot`] or [`Governor::abandon`]; or the
    /// spend has been counted.
    Granted,
    /// The deadline came first.
    Expired,
}

/// How a login ended. The governor only counts these; a rate that follows them would start here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The server let us in.
    Succeeded,
    /// The server said no to the password (SQLSTATE 28000 or 28P01): wrong, or throttled.
    Refused,
    /// The password was sent and there was no answer to it: timeout, reset, another error.
    Failed,
    /// It never came to the password.
    NotAttempted,
}

/// The state. See the module's documentation for what it promises and how to drive it.
#[derive(Debug)]
pub struct Governor {
    budget: Budget,
    meter: Meter,
    slots: Line,
    spends: Line,
    /// Granted slots.
    held: BTreeSet<Ticket>,
    next_ticket: u64,
    /// The latest time that any call brought. Callers on several threads may read the clock in one
    /// order and get here in another; an earlier time than this is taken for this.
    now: Instant,
    succeeded: bool,
    consecutive_refusals: u32,
}

impl Governor {
    /// The governor of a process that begins to log in at `now`.
    pub fn new(budget: Budget, now: Instant) -> Self {
        Self {
            budget,
            meter: Meter::new(budget, now),
            slots: Line::default(),
            spends: Line::default(),
            held: BTreeSet::new(),
            next_ticket: 0,
            now,
            succeeded: false,
            consecutive_refusals: 0,
        }
    }

    /// Gets in line for a slot. The verdict comes from a later [`poll`](Self::poll).
    pub fn request_slot(&mut self, now: Instant, deadline: Instant) -> Ticket {
        let ticket = self.draw(now);
        self.slots.join(ticket, deadline);
        ticket
    }

    /// Gets in line for a spend. The verdict comes from a later [`poll`](Self::poll).
    pub fn request_spend(&mut self, now: Instant, deadline: Instant) -> Ticket {
        let ticket = self.draw(now);
        self.spends.join(ticket, deadline);
        ticket
    }

    /// Appends the verdicts that are due to `verdicts`: first those whose deadline has come (one that
    /// falls on `now` has), then grants, in the order of the requests within each of the two lines.
    pub fn poll(&mut self, now: Instant, verdicts: &mut Vec<Verdict>) {
        let now = self.advance(now);
        for line in [&mut self.slots, &mut self.spends] {
            while let Some(ticket) = line.pop_expired(now) {
                verdicts.push(Verdict {
                    ticket,
                    outcome: Outcome::Expired,
                });
            }
        }
        let granted = |ticket| Verdict {
            ticket,
            outcome: Outcome::Granted,
        };
        while self.has_free_slot() {
            let Some(ticket) = self.slots.pop() else {
                break;
            };
            self.held.insert(ticket);
            verdicts.push(granted(ticket));
        }
        while !self.spends.is_empty() && self.meter.try_spend(now) {
            verdicts.extend(self.spends.pop().map(granted));
        }
    }

    /// When to [`poll`](Self::poll) again if nothing else happens: the earliest time at which
    /// something may be granted or expires. A time that has passed means at once; `None` means
    /// that nothing is due before somebody asks for something or gives something back.
    ///
    /// It never overlooks a grant or a deadline. It may be early by a step of the slow start, and
    /// then the next one is later than the time of that poll.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let slot = (!self.slots.is_empty() && self.has_free_slot()).then_some(self.now);
        let spend = (!self.spends.is_empty()).then(|| self.meter.next_chance(self.now));
        let deadlines = [self.slots.first_deadline(), self.spends.first_deadline()];
        [slot, spend].into_iter().chain(deadlines).flatten().min()
    }

    /// The asker is gone. Leaves the line, or frees the slot if it was granted already; a granted
    /// spend stays counted. Does nothing for a ticket that is over and done with.
    pub fn abandon(&mut self, ticket: Ticket) {
        self.slots.leave(ticket);
        self.spends.leave(ticket);
        self.held.remove(&ticket);
    }

    /// Gives a granted slot back and tells what came of it. Does nothing for any other ticket, so
    /// a slot can't be given back twice.
    pub fn release_slot(&mut self, ticket: Ticket, outcome: LoginOutcome, now: Instant) {
        self.advance(now);
        if !self.held.remove(&ticket) {
            return;
        }
        match outcome {
            LoginOutcome::Succeeded => {
                self.succeeded = true;
                self.consecutive_refusals = 0;
            }
            LoginOutcome::Refused => {
                self.consecutive_refusals = self.consecutive_refusals.saturating_add(1);
            }
            LoginOutcome::Failed | LoginOutcome::NotAttempted => {}
        }
    }

    /// The budget that is kept.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How many requests wait, for slots and spends together.
    pub fn queued(&self) -> usize {
        self.slots.len() + self.spends.len()
    }

    /// How many slots are taken.
    pub fn in_flight(&self) -> usize {
        self.held.len()
    }

    /// How many spends were granted since this governor began.
    pub fn spent_total(&self) -> u64 {
        self.meter.total()
    }

    /// How many spends could be granted at `now`, waiters not considered.
    pub fn available(&self, now: Instant) -> u32 {
        self.meter.available(now.max(self.now))
    }

    /// Whether any login has succeeded since this governor began. A refusal before that points to the
    /// configuration, one after it to throttling or an outage.
    pub fn has_succeeded(&self) -> bool {
        self.succeeded
    }

    /// How many logins were refused since the last that succeeded.
    pub fn consecutive_refusals(&self) -> u32 {
        self.consecutive_refusals
    }

    fn has_free_slot(&self) -> bool {
        self.held.len() < self.budget.logins_in_flight() as usize
    }

    fn draw(&mut self, now: Instant) -> Ticket {
        self.advance(now);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }
}
