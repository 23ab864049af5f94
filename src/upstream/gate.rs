//! The login governors of all endpoints, shared by all threads, and the waiting in front of them.
//!
//! [`Governor`] decides; here its verdicts find those who asked. One task on the control thread
//! ([`Gates::watch_over`]) wakes it when time alone changes something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use crate::config::{Endpoint, Target};
use crate::iam::governor::GUARD;
use crate::iam::{Budget, Governor, LoginOutcome, Outcome, Ticket, Verdict};

/// The governors by endpoint: one, whatever the number of targets, pools, users and threads.
#[derive(Debug, Default)]
pub struct Gates {
    gates: Mutex<HashMap<Endpoint, Arc<Gate>>>,
}

/// One endpoint's.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    governor: Governor,
    waiting: HashMap<Ticket, oneshot::Sender<(Outcome, Instant)>>,
    verdicts: Vec<Verdict>,
}

/// What a governor has granted and counted at a moment, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Requests that wait.
    pub queued: usize,
    /// Logins under way.
    pub in_flight: usize,
    /// Logins that could be made at this moment.
    pub available: u32,
    /// Logins made so far.
    pub spent: u64,
    /// What it may use.
    pub budget: Budget,
}

/// The right to have one login under way. Dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    gate: Arc<Gate>,
    ticket: Ticket,
    outcome: LoginOutcome,
}

impl Gates {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One gate for each endpoint of `targets`, from now on, each with a task of this runtime that wakes those whose time has come. An
    /// endpoint that was there keeps its budget, and one that is gone from the configuration what it has spent.
    pub fn watch_over<'a>(&self, targets: impl Iterator<Item = &'a Arc<Target>>) {
        let mut gates = self.lock();
        for target in targets {
            gates.entry(target.endpoint.clone()).or_insert_with(|| {
                let gate = Arc::new(Gate::new(Governor::new(target.budget, Instant::now())));
                let driven = gate.clone();
                tokio::spawn(async move { driven.drive().await });
                gate
            });
        }
    }

    /// The gate of `endpoint`, if it is configured.
    pub fn get(&self, endpoint: &Endpoint) -> Option<Arc<Gate>> {
        self.lock().get(endpoint).cloned()
    }

    /// Each endpoint with its usage, in the order of their names.
    pub fn usage(&self, now: Instant) -> Vec<(Endpoint, Usage)> {
        let gates = self.lock();
        let usage = gates
            .iter()
            .map(|(endpoint, gate)| (endpoint.clone(), gate.usage(now)));
        let mut usage: Vec<_> = usage.collect();
        usage.sort_by_key(|(endpoint, _)| endpoint.to_string());
        usage
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, Arc<Gate>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    fn new(governor: Governor) -> Self {
        let state = State {
            governor,
            waiting: HashMap::new(),
            verdicts: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// Waits for the right to have a login under way; `None` if the deadline comes first.
    pub async fn slot(self: &Arc<Self>, deadline: Instant) -> Option<Slot> {
        let (ticket, _) = self
            .ask(|governor, now| governor.request_slot(now, deadline))
            .await?;
        Some(Slot {
            gate: self.clone(),
            ticket,
            outcome: LoginOutcome::NotAttempted,
        })
    }

    /// Waits until one login more is within the budget, and counts it; `false` if the deadline comes first. The
    /// password must be sent at once.
    pub async fn spend(&self, deadline: Instant) -> bool {
        loop {
            let Some((_, granted)) = self
                .ask(|governor, now| governor.request_spend(now, deadline))
                .await
            else {
                return false;
            };
            // A grant that was picked up late would fall into a later second's budget: it is lost.
            if granted.elapsed() < GUARD / 2 {
                return true;
            }
        }
    }

    fn usage(&self, now: Instant) -> Usage {
        let state = self.lock();
        Usage {
            queued: state.governor.queued(),
            in_flight: state.governor.in_flight(),
            available: state.governor.available(now),
            spent: state.governor.spent_total(),
            budget: *state.governor.budget(),
        }
    }

    async fn ask(&self, request: impl FnOnce(&mut Governor, Instant) -> Ticket) -> Option<(Ticket, Instant)> {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut state = self.lock();
            // Read under the lock: a time from before it could be older than what the governor has seen.
            let now = Instant::now();
            let ticket = request(&mut state.governor, now);
            state.waiting.insert(ticket, sender);
            state.settle(now);
            ticket
        };
        self.changed.notify_one();
        let mut leaving = Leaving {
            gate: self,
            ticket: Some(ticket),
        };
        let verdict = receiver.await;
        leaving.ticket = None;
        match verdict {
            Ok((Outcome::Granted, at)) => Some((ticket, at)),
            _ => None,
        }
    }

    async fn drive(&self) {
        loop {
            let wakeup = {
                let mut state = self.lock();
                state.settle(Instant::now());
                state.governor.next_wakeup()
            };
            match wakeup {
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The governor's own state is consistent between any two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settle(&mut self, now: Instant) {
        self.governor.poll(now, &mut self.verdicts);
        for Verdict { ticket, outcome } in self.verdicts.drain(..) {
            let told = self
                .waiting
                .remove(&ticket)
                .is_some_and(|waiter| waiter.send((outcome, now)).is_ok());
            if !told {
                self.governor.abandon(ticket);
            }
        }
    }
}

/// Takes a request back when the one who made it goes away.
struct Leaving<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut state = self.gate.lock();
            state.waiting.remove(&ticket);
            state.governor.abandon(ticket);
            drop(state);
            self.gate.changed.notify_one();
        }
    }
}

impl Slot {
    /// Notes how the login went.
    pub fn set_outcome(&mut self, outcome: LoginOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let now = Instant::now();
        state.governor.release_slot(self.ticket, self.outcome, now);
        state.settle(now);
        drop(state);
        self.gate.changed.notify_one();
    }
}
