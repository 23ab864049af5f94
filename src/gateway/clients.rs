//! The clients of one thread, so that they can be told of a shutdown.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::shard::Shutdown;
use crate::ids::SessionId;

/// The clients of a thread.
#[derive(Debug, Default)]
pub(super) struct Clients {
    wakers: RefCell<HashMap<SessionId, Option<Waker>>>,
    shutdown: Cell<Shutdown>,
}

/// One client's place among them.
#[derive(Debug)]
pub(super) struct Client {
    /// Its name in the log.
    pub(super) session: SessionId,
    clients: Rc<Clients>,
    waker: RefCell<Option<Waker>>,
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

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.wakers.borrow_mut().remove(&self.session);
    }
}
