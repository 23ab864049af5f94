//! Who has which server connection: idle, leased, being opened, waited for.
//!
//! Pure bookkeeping of one pool (one [`PoolKey`](crate::ids::PoolKey)): it neither opens nor closes anything and
//! knows neither what a connection nor what a waiter is. Whoever drives it does what it decides. The invariant:
//! idle + leased + opening never exceeds [`Limits::size`], and nobody overtakes an earlier waiter.

mod mode;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use mode::PoolMode;

/// The bounds of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at most, whatever they are doing.
    pub size: usize,
    /// Idle connections that are opened ahead and kept.
    pub min_idle: usize,
    /// How long a connection beyond `min_idle` may be idle.
    pub idle_timeout: Duration,
    /// How long before its end a connection stops counting as one of `min_idle`, so that its replacement is
    /// there in time.
    pub replace_ahead: Duration,
}

/// A connection and the time after which it isn't lent any more.
#[derive(Debug)]
pub struct Member<C> {
    /// The connection.
    pub connection: C,
    /// When it was opened.
    pub opened_at: Instant,
    /// When its lifetime ends.
    pub expires_at: Instant,
}

/// Names one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitId(u64);

/// Where a connection goes that has come free.
#[derive(Debug)]
#[must_use = "a connection that isn't placed is lost"]
pub enum Placement<C, W> {
    /// To the one who has waited longest; it counts as leased.
    HandOff(W, Member<C>),
    /// Into the pool.
    Parked,
    /// Nowhere: its lifetime is over. It is no longer counted.
    Expired(C),
}

/// What a pool holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Connections that wait for a client.
    pub idle: usize,
    /// Connections that a client has, or that are being cleaned after one.
    pub leased: usize,
    /// Connections that are being opened.
    pub opening: usize,
    /// Clients that wait for a connection.
    pub waiting: usize,
}

/// One pool.
#[derive(Debug)]
pub struct Pool<C, W> {
    limits: Limits,
    idle: Vec<Idle<C>>,
    waiting: VecDeque<(WaitId, W)>,
    next_wait: u64,
    leased: usize,
    opening: usize,
    /// Connections that were opened until then aren't lent any more.
    retired_at: Option<Instant>,
    is_paused: bool,
}

#[derive(Debug)]
struct Idle<C> {
    member: Member<C>,
    since: Instant,
}

impl<C, W> Pool<C, W> {
    /// An empty pool.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            next_wait: 0,
            leased: 0,
            opening: 0,
            retired_at: None,
            is_paused: false,
        }
    }

    /// Other bounds from now on. What is beyond them ends once it is idle, or returned.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Lends none of the connections any more that were opened until `now`: [`Self::expire`] takes out those that are idle, and the others end
    /// when they are returned.
    pub fn retire(&mut self, now: Instant) {
        self.retired_at = Some(now);
    }

    /// Whether a connection that was opened then isn't to be lent any more.
    pub fn is_retired(&self, opened_at: Instant) -> bool {
        self.retired_at.is_some_and(|retired_at| opened_at <= retired_at)
    }

    /// Lends and opens none until [`Self::resume`]: whoever asks waits, and connections end when they are returned.
    pub fn pause(&mut self, now: Instant) {
        self.is_paused = true;
        self.retire(now);
    }

    /// The end of that.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    fn is_over(&self, member: &Member<C>, now: Instant) -> bool {
        self.is_paused || member.expires_at <= now || self.is_retired(member.opened_at)
    }

    /// Lends the connection that was used last, if one is idle and nobody waits.
    pub fn checkout(&mut self, now: Instant) -> Option<Member<C>> {
        if !self.waiting.is_empty() {
            return None;
        }
        let last = self
            .idle
            .iter()
            .rposition(|idle| !self.is_over(&idle.member, now))?;
        self.leased += 1;
        Some(self.idle.remove(last).member)
    }

    /// Queues `waiter`.
    pub fn wait(&mut self, waiter: W) -> WaitId {
        let id = WaitId(self.next_wait);
        self.next_wait += 1;
        self.waiting.push_back((id, waiter));
        id
    }

    /// Takes a waiter out of the queue; `None` if a connection was handed to it already.
    pub fn abandon(&mut self, id: WaitId) -> Option<W> {
        let place = self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.waiting.remove(place).map(|(_, waiter)| waiter)
    }

    /// Empties the queue.
    pub fn abandon_all(&mut self) -> impl Iterator<Item = W> {
        self.waiting.drain(..).map(|(_, waiter)| waiter)
    }

    /// How many connections are to be opened now, `at_most` so many; they count as opening from here on.
    pub fn start_opening(&mut self, now: Instant, at_most: usize) -> usize {
        if self.is_paused {
            return 0;
        }
        let fresh = self
            .idle
            .iter()
            .filter(|idle| !self.is_over(&idle.member, now + self.limits.replace_ahead))
            .count();
        let wanted = self.waiting.len() + self.limits.min_idle.saturating_sub(fresh);
        let room = self.limits.size.saturating_sub(self.total());
        let start = wanted.saturating_sub(self.opening).min(room).min(at_most);
        self.opening += start;
        start
    }

    /// A connection was opened.
    pub fn opened(&mut self, member: Member<C>, now: Instant) -> Placement<C, W> {
        self.opening -= 1;
        self.place(member, now)
    }

    /// An attempt to open one has failed.
    pub fn open_failed(&mut self) {
        self.opening -= 1;
    }

    /// A leased connection is back, and clean.
    pub fn returned(&mut self, member: Member<C>, now: Instant) -> Placement<C, W> {
        self.leased -= 1;
        self.place(member, now)
    }

    /// A leased connection is gone.
    pub fn discarded(&mut self) {
        self.leased -= 1;
    }

    /// Takes out the idle connections that have lived or idled long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<C> {
        let mut kept = self.idle.len();
        let Limits {
            min_idle,
            idle_timeout,
            ..
        } = self.limits;
        let (is_paused, retired_at) = (self.is_paused, self.retired_at);
        let mut beyond = self.total().saturating_sub(self.limits.size);
        self.idle
            .extract_if(.., |idle| {
                let idled = kept > min_idle && now.saturating_duration_since(idle.since) >= idle_timeout;
                let is_retired = is_paused || retired_at.is_some_and(|at| idle.member.opened_at <= at);
                let out = beyond > 0 || idled || is_retired || idle.member.expires_at <= now;
                kept -= usize::from(out);
                beyond = beyond.saturating_sub(usize::from(out));
                out
            })
            .map(|idle| idle.member.connection)
            .collect()
    }

    /// Takes out the idle connections that `is_dead` says so of.
    pub fn remove_dead(&mut self, mut is_dead: impl FnMut(&mut C) -> bool) -> Vec<C> {
        let dead = self
            .idle
            .extract_if(.., |idle| is_dead(&mut idle.member.connection));
        dead.map(|idle| idle.member.connection).collect()
    }

    /// Takes out every idle connection.
    pub fn drain(&mut self) -> impl Iterator<Item = C> {
        self.idle.drain(..).map(|idle| idle.member.connection)
    }

    /// The counts.
    pub fn census(&self) -> Census {
        Census {
            idle: self.idle.len(),
            leased: self.leased,
            opening: self.opening,
            waiting: self.waiting.len(),
        }
    }

    fn place(&mut self, member: Member<C>, now: Instant) -> Placement<C, W> {
        if self.is_over(&member, now) || self.total() >= self.limits.size {
            return Placement::Expired(member.connection);
        }
        if let Some((_, waiter)) = self.waiting.pop_front() {
            self.leased += 1;
            return Placement::HandOff(waiter, member);
        }
        self.idle.push(Idle { member, since: now });
        Placement::Parked
    }

    fn total(&self) -> usize {
        self.idle.len() + self.leased + self.opening
    }
}

#[cfg(test)]
mod tests;
