//! Counts spends: when the next login may be made.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Budget;
use super::GUARD;

/// The sliding window and the token bucket of one endpoint. A spend must fit both.
#[derive(Debug)]
pub(super) struct Meter {
    budget: Budget,
    born: Instant,
    /// The latest spends, oldest first; always as many as the budget allows per second.
    recent: VecDeque<Instant>,
    /// The bucket's content at `filled_at`, in billionths of a login: at 1 login per second, 1 of
    /// them per nanosecond. Whole numbers, so that nothing is lost or gained by rounding.
    nano_tokens: u64,
    filled_at: Instant,
    total: u64,
}

impl Meter {
    /// A predecessor may have spent its whole budget just now, so this begins as if it had: the
    /// window full, the bucket empty.
    pub(super) fn new(budget: Budget, now: Instant) -> Self {
        Self {
            budget,
            born: now,
            recent: (0..budget.logins_per_second()).map(|_| now).collect(),
            nano_tokens: 0,
            filled_at: now,
            total: 0,
        }
    }

    /// Spends one login if that is within the budget at `now`, which never goes backwards.
    pub(super) fn try_spend(&mut self, now: Instant) -> bool {
        let tokens = self.nano_tokens_at(now);
        if self.window_opens_at(now) > now || tokens < NANO {
            return false;
        }
        self.nano_tokens = tokens - NANO;
        self.filled_at = now;
        self.recent.pop_front();
        self.recent.push_back(now);
        self.total += 1;
        true
    }

    /// How many spends would succeed at `now`.
    pub(super) fn available(&self, now: Instant) -> u32 {
        let in_window = self.recent.iter().rev();
        let in_window = in_window.take_while(|&&spent| spent + WINDOW > now).count();
        let allowed = self.budget.allowed_at(now.saturating_duration_since(self.born));
        let window = allowed.saturating_sub(u32::try_from(in_window).unwrap_or(u32::MAX));
        let tokens = u32::try_from(self.nano_tokens_at(now) / NANO).unwrap_or(u32::MAX);
        window.min(tokens)
    }

    /// The earliest time, seen from `now`, at which a spend may become possible: `now` if one is
    /// possible already, and otherwise always later than `now`. At that time it may turn out that
    /// there is a little longer to wait.
    pub(super) fn next_chance(&self, now: Instant) -> Instant {
        let missing = NANO.saturating_sub(self.nano_tokens_at(now));
        let wait = missing.div_ceil(self.budget.logins_per_second().into());
        let bucket = now + Duration::from_nanos(wait);
        self.window_opens_at(now).max(bucket)
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// `now` if the window has room, else when it may have: its oldest spend leaves, or it widens.
    fn window_opens_at(&self, now: Instant) -> Instant {
        let age = now.saturating_duration_since(self.born);
        let allowed = self.budget.allowed_at(age);
        // With `allowed` spends since that one, and itself among them, the window is full.
        let oldest = self.recent.len().checked_sub(allowed as usize);
        let Some(&oldest) = oldest.and_then(|index| self.recent.get(index)) else {
            return now;
        };
        let leaves = oldest + WINDOW;
        if leaves <= now {
            return now;
        }
        match self.budget.next_step(age) {
            Some(step) => leaves.min(self.born + step),
            None => leaves,
        }
    }

    fn nano_tokens_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.filled_at).as_nanos();
        let gained = elapsed.saturating_mul(self.budget.logins_per_second().into());
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        let full = u64::from(self.budget.burst()) * NANO;
        self.nano_tokens.saturating_add(gained).min(full)
    }
}

/// One login in billionths.
const NANO: u64 = 1_000_000_000;

/// What the window really spans.
const WINDOW: Duration = Duration::from_secs(1).saturating_add(GUARD);
