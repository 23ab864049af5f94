//! A waiting line: first come, first served, each waiter with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Ticket;

/// Waiters in the order of their tickets, which are numbered as they are drawn. Every operation is
/// logarithmic in the number of waiters.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<Ticket, Instant>,
    deadlines: BTreeSet<(Instant, Ticket)>,
}

impl Line {
    pub(super) fn join(&mut self, ticket: Ticket, deadline: Instant) {
        self.waiting.insert(ticket, deadline);
        self.deadlines.insert((deadline, ticket));
    }

    /// Takes out the one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Ticket> {
        let (ticket, deadline) = self.waiting.pop_first()?;
        self.deadlines.remove(&(deadline, ticket));
        Some(ticket)
    }

    /// Takes out one whose deadline has come, the earliest first.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Ticket> {
        let &(deadline, ticket) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.leave(ticket);
        Some(ticket)
    }

    /// Takes `ticket` out, wherever it stands.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if let Some(deadline) = self.waiting.remove(&ticket) {
            self.deadlines.remove(&(deadline, ticket));
        }
    }

    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
