//! The clients of one thread, so that they can be told of a shutdown.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use prometheus::IntGauge;
use tokio::sync::Notify;

use super::shard::Shutdown;
use crate::ids::SessionId;

/// The clients of a thread.
#[derive(Debug, Default)]
pub(super) struct Clients {
    wakers: RefCell<HashMap<SessionId, Option<Waker>>>,
    shutdown: Cell<Shutdown>,
    /// Those that haven't sent anything yet, the oldest first.
    silent: RefCell<BTreeMap<SessionId, Rc<Notify>>>,
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
        self.wakers.borrow_mut().insert(session, None);
        Client {
            session,
            clients: self.clone(),
            waker: RefCell::new(None),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wakers.borrow().len()
    }

    /// Makes the one go that has been silent for the longest; whether there was one.
    pub(super) fn evict_silent(&self) -> bool {
        let oldest = self.silent.borrow_mut().pop_first();
        oldest.inspect(|(_, told)| told.notify_one()).is_some()
    }

    /// Tells every client.
    pub(super) fn shut_down(&self, shutdown: Shutdown) {
        self.shutdown.set(shutdown);
        self.wakers
            .borrow()
            .values()
            .flatten()
            .for_each(Waker::wake_by_ref);
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
            self.clients
                .wakers
                .borrow_mut()
                .insert(self.session, known.clone());
        }
        self.clients.shutdown.get()
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
    pub(super) fn shutdown_now(&self) -> Shutdown {
        self.clients.shutdown.get()
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
        self.clients.wakers.borrow_mut().remove(&self.session);
    }
}
