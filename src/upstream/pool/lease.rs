//! A connection for as long as one client has it, and the wait for one.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::debug;

use super::{Held, ServerPool};
use crate::ids::SessionId;
use crate::pool::{Member, WaitId};
use crate::session::tracker::Tracker;
use crate::upstream::cancel::cancel;
use crate::upstream::connection::{Broken, Connection, Farewell};
use crate::upstream::error::OpenError;

/// A connection that is one client's alone.
#[must_use = "a lease that is dropped closes its connection"]
pub struct Lease {
    member: Option<Member<Held>>,
    pool: Rc<ServerPool>,
}

impl Lease {
    pub(super) fn of(member: Member<Held>, pool: Rc<ServerPool>, now: Instant) -> Self {
        member.connection.entry.note_lent(now);
        Self {
            member: Some(member),
            pool,
        }
    }

    /// The connection, if nobody was given it.
    pub(super) fn into_member(mut self) -> Option<Member<Held>> {
        self.member.take()
    }

    /// Notes whose it is.
    #[inline]
    pub fn note_client(&self, client: SessionId) {
        if let Some(member) = &self.member {
            member.connection.entry.note_client(client);
        }
    }

    /// The number of the connection.
    pub fn id(&self) -> u64 {
        self.member
            .as_ref()
            .map_or(0, |member| member.connection.entry.id)
    }

    /// Cleans the connection after a client whose bytes `tracker` followed, and returns it to the pool; or closes it.
    pub async fn give_back(mut self, tracker: Tracker, farewell: Farewell) {
        let ran = std::mem::take(&mut self.session.ran);
        match self.deref_mut().clean(tracker, farewell).await {
            // What was carried out meanwhile may have done what DISCARD ALL doesn't end.
            Ok(()) if self.pool.texts.are_outdated(&ran) => {}
            Ok(()) => {
                self.pool.metrics.cleaned.inc();
                self.park();
            }
            Err(error) => {
                debug!(pool = %self.pool.key, %error, "a server connection is closed and not given back");
                if !matches!(error, Broken::Closed | Broken::Stream(_)) {
                    self.cancel_and_close().await;
                }
            }
        }
    }

    /// Closes the connection once that is carried out which a client, whose bytes `tracker` followed, had asked for before its
    /// goodbye.
    pub async fn carry_out_and_close(mut self, tracker: Tracker) {
        if self.deref_mut().clean(tracker, Farewell::Said).await.is_err() {
            self.cancel_and_close().await;
        }
    }

    /// Closes the connection. A backend goes on with its query when its connection ends, so that is cancelled, and its place
    /// isn't free before.
    pub async fn cancel_and_close(self) {
        if let Some(server) = self.cancellable().cloned() {
            let _ = cancel(&server).await;
        }
    }

    /// Whether others wait for a connection.
    pub fn is_awaited(&self) -> bool {
        self.pool.members.borrow().census().waiting > 0
    }

    /// Returns the connection, on which nothing was sent.
    pub fn give_back_unused(mut self) {
        self.park();
    }

    /// Returns the connection, of which all is known that was left behind.
    pub fn give_back_settled(mut self) {
        self.untouch();
        self.park();
    }

    fn park(&mut self) {
        if let Some(member) = self.member.take() {
            let now = Instant::now();
            member.connection.entry.note_back(now);
            let placement = self.pool.members.borrow_mut().returned(member, now);
            self.pool.place(placement);
            self.pool.tend();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.member.take().is_some() {
            self.pool.metrics.discarded.inc();
            self.pool.members.borrow_mut().discarded();
            self.pool.tend();
        }
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[expect(
        clippy::expect_used,
        reason = "the member is taken out only by methods that end the lease"
    )]
    fn deref(&self) -> &Connection {
        &self
            .member
            .as_ref()
            .expect("a lease has its connection until it ends")
            .connection
            .connection
    }
}

impl DerefMut for Lease {
    #[expect(
        clippy::expect_used,
        reason = "the member is taken out only by methods that end the lease"
    )]
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self
            .member
            .as_mut()
            .expect("a lease has its connection until it ends")
            .connection
            .connection
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.pool.key)
    }
}

/// One who waits, and may go away: before a connection was handed over, or just after.
pub(super) struct Waiting {
    pool: Rc<ServerPool>,
    id: WaitId,
    pub(super) receiver: oneshot::Receiver<Result<Lease, Arc<OpenError>>>,
    asked: Instant,
}

impl Waiting {
    pub(super) fn new(
        pool: Rc<ServerPool>,
        id: WaitId,
        receiver: oneshot::Receiver<Result<Lease, Arc<OpenError>>>,
    ) -> Self {
        Self {
            pool,
            id,
            receiver,
            asked: Instant::now(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pool
            .metrics
            .wait_seconds
            .observe(self.asked.elapsed().as_secs_f64());
        drop(self.pool.members.borrow_mut().abandon(self.id));
        if let Ok(Ok(lease)) = self.receiver.try_recv() {
            lease.give_back_unused();
        }
        self.pool.publish();
    }
}
