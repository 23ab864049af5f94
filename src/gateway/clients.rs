//! The clients of one thread, so that they can be told to go.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use prometheus::IntGauge;
use tokio::sync::Notify;

use super::error::ClientError;
use super::presence::{Activity, Ending, Presence};
use super::shard::Shutdown;
use crate::ids::SessionId;

/// The clients of a thread.
#[derive(Debug, Default)]
pub(super) struct Clients {
    places: RefCell<HashMap<SessionId, Place>>,
    shutdown: Cell<Shutdown>,
    /// Those that haven't sent anything yet, the oldest first.
    silent: RefCell<BTreeMap<SessionId, Rc<Notify>>>,
    principals: Tally,
    ssm_sessions: Tally,
}

/// How many of each there are.
#[derive(Debug, Default)]
struct Tally(RefCell<HashMap<String, usize>>);

impl Tally {
    fn add(&self, which: String) {
        *self.0.borrow_mut().entry(which).or_default() += 1;
    }

    fn take(&self, which: &str) {
        let mut all = self.0.borrow_mut();
        if let Some(count) = all.get_mut(which) {
            *count -= 1;
            if *count == 0 {
                all.remove(which);
            }
        }
    }

    fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

#[derive(Debug, Default)]
struct Place {
    waker: Option<Waker>,
    /// Once it is in.
    presence: Option<Rc<Presence>>,
}

/// A client's place among those that haven't sent anything yet.
pub(super) struct Silent {
    clients: Rc<Clients>,
    session: SessionId,
    told: Rc<Notify>,
}

/// One client's place among them.
#[derive(Debug)]
pub(super) struct Client {
    /// Its name in the log.
    pub(super) session: SessionId,
    clients: Rc<Clients>,
    waker: RefCell<Option<Waker>>,
    presence: OnceCell<Rc<Presence>>,
}

/// Counts in a gauge for as long as it lives.
pub(super) struct Counted(IntGauge);

impl Counted {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Clients {
    pub(super) fn join(self: &Rc<Self>, session: SessionId) -> Client {
        self.places.borrow_mut().insert(session, Place::default());
        Client {
            session,
            clients: self.clone(),
            waker: RefCell::new(None),
            presence: OnceCell::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// How many principals, and how many sessions of Session Manager, have a client that is in.
    pub(super) fn people(&self) -> (usize, usize) {
        (self.principals.len(), self.ssm_sessions.len())
    }

    /// Makes the one go that has been silent for the longest; whether there was one.
    pub(super) fn evict_silent(&self) -> bool {
        let oldest = self.silent.borrow_mut().pop_first();
        oldest.inspect(|(_, told)| told.notify_one()).is_some()
    }

    /// Tells every client.
    pub(super) fn shut_down(&self, shutdown: Shutdown) {
        self.shutdown.set(shutdown);
        let places = self.places.borrow();
        let wakers = places.values().filter_map(|place| place.waker.as_ref());
        wakers.for_each(Waker::wake_by_ref);
    }

    /// Calls `look` with each client that is in, and wakes those that have to go then. How many those are that hadn't to before.
    pub(super) fn each(&self, mut look: impl FnMut(SessionId, &Presence)) -> usize {
        let mut told = 0;
        for (session, place) in &*self.places.borrow() {
            let Some(presence) = &place.presence else { continue };
            let before = presence.shutdown();
            look(*session, presence);
            if presence.shutdown() != before {
                told += 1;
                place.waker.iter().for_each(Waker::wake_by_ref);
            }
        }
        told
    }

    pub(super) fn shutdown(&self) -> Shutdown {
        self.shutdown.get()
    }
}

impl Client {
    /// What is asked of this client now. The task of `cx` is woken when that changes.
    #[inline]
    pub(super) fn poll_shutdown(&self, cx: &Context<'_>) -> Shutdown {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *known = Some(cx.waker().clone());
            if let Some(place) = self.clients.places.borrow_mut().get_mut(&self.session) {
                place.waker.clone_from(&known);
            }
        }
        self.shutdown_now()
    }
}

impl Client {
    /// Counts as silent until the guard is dropped.
    pub(super) fn be_silent(&self) -> Silent {
        let told = Rc::new(Notify::new());
        self.clients
            .silent
            .borrow_mut()
            .insert(self.session, told.clone());
        Silent {
            clients: self.clients.clone(),
            session: self.session,
            told,
        }
    }

    /// What is asked of this client now.
    #[inline]
    pub(super) fn shutdown_now(&self) -> Shutdown {
        let of_its_own = self
            .presence
            .get()
            .map_or(Shutdown::No, |presence| presence.shutdown());
        of_its_own.max(self.clients.shutdown.get())
    }

    /// Who it is and by which rule it is in, once it is.
    pub(super) fn presence(&self) -> Option<&Rc<Presence>> {
        self.presence.get()
    }

    /// Notes what it is doing.
    #[inline]
    pub(super) fn note_activity(&self, activity: Activity) {
        if let Some(presence) = self.presence.get() {
            presence.activity.set(activity);
        }
    }

    /// Notes that it is in, and whether it came by TLS.
    pub(super) fn enter(&self, presence: Rc<Presence>, is_encrypted: bool) {
        presence.is_encrypted.set(is_encrypted);
        if let Some(place) = self.clients.places.borrow_mut().get_mut(&self.session) {
            place.presence = Some(presence.clone());
        }
        self.clients.principals.add(presence.principal.to_string());
        if let Some(session) = &presence.session {
            self.clients.ssm_sessions.add(session.id.to_string());
        }
        let _ = self.presence.set(presence);
    }

    /// Why it has to go, if it isn't that the gateway does.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.presence.get()?.ending()
    }

    /// What it is told when it has to go.
    pub(super) fn farewell(&self) -> ClientError {
        match (self.presence.get(), self.ending()) {
            (Some(presence), Some(ending)) => ClientError::ended(ending, presence),
            _ => ClientError::shutdown(),
        }
    }

    /// Returns when the gateway begins to go down.
    pub(super) async fn shutdown(&self) {
        poll_fn(|cx| match self.poll_shutdown(cx) {
            Shutdown::No => Poll::Pending,
            Shutdown::Drain | Shutdown::Now => Poll::Ready(()),
        })
        .await;
    }
}

impl Silent {
    /// Returns when its place is wanted for somebody who speaks.
    pub(super) async fn evicted(&self) {
        self.told.notified().await;
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.clients.silent.borrow_mut().remove(&self.session);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let place = self.clients.places.borrow_mut().remove(&self.session);
        drop(place);
        if let Some(presence) = self.presence.get() {
            self.clients.principals.take(&presence.principal.to_string());
            if let Some(session) = &presence.session {
                self.clients.ssm_sessions.take(&session.id);
            }
        }
    }
}
