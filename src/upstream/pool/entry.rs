//! What can be seen of a pool from outside: its server connections, and what has gone through them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::ids::SessionId;
use crate::upstream::connection::Connection;

/// A server connection, for as long as it is open.
#[derive(Debug)]
pub struct Entry {
    /// Its number in this process, from 1.
    pub id: u64,
    /// The process id of its backend, if the server has told.
    pub pid: Option<u32>,
    /// The server's address.
    pub remote: Option<SocketAddr>,
    /// Ours.
    pub local: Option<SocketAddr>,
    /// When it was opened.
    pub since: SystemTime,
    /// When that began: where it leads is what was said then.
    pub opened_at: Instant,
    lent: Cell<Option<Instant>>,
    client: Cell<SessionId>,
    usage: Rc<Usage>,
}

/// What has become of a pool's connections, beside what its metrics say.
#[derive(Debug, Default)]
pub struct Usage {
    /// Clients that have come in.
    pub logins: Cell<u64>,
    /// For how long clients had connections.
    pub lent: Cell<Duration>,
    /// Connections that have ended.
    pub closed: Cell<u64>,
    /// How long those had been open.
    pub lifetime: Cell<Duration>,
}

impl Usage {
    /// Counts one that has come in.
    pub fn has_come(&self) {
        add(&self.logins, 1);
    }
}

fn add<T: Copy + std::ops::Add<Output = T>>(count: &Cell<T>, more: T) {
    count.set(count.get() + more);
}

impl Entry {
    pub(super) fn of(connection: &Connection, began: Instant, usage: Rc<Usage>) -> Rc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let tcp = connection.stream.tcp();
        let key = connection.cancellable().map(|server| &server.key);
        Rc::new(Self {
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            pid: key.map(|key| key.pid.cast_unsigned()),
            remote: tcp.peer_addr().ok(),
            local: tcp.local_addr().ok(),
            since: SystemTime::now(),
            opened_at: began,
            lent: Cell::new(None),
            client: Cell::new(SessionId(0)),
            usage,
        })
    }

    /// Since when somebody has it.
    pub fn lent(&self) -> Option<Instant> {
        self.lent.get()
    }

    /// Which client has it, if one does; it is the gateway's own for moments.
    pub fn client(&self) -> Option<SessionId> {
        Some(self.client.get()).filter(|client| *client != SessionId(0))
    }

    #[inline]
    pub(super) fn note_lent(&self, now: Instant) {
        self.lent.set(Some(now));
    }

    #[inline]
    pub(super) fn note_client(&self, client: SessionId) {
        self.client.set(client);
    }

    #[inline]
    pub(super) fn note_back(&self, now: Instant) {
        self.client.set(SessionId(0));
        if let Some(since) = self.lent.take() {
            add(&self.usage.lent, now.saturating_duration_since(since));
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.note_back(Instant::now());
        add(&self.usage.closed, 1);
        add(&self.usage.lifetime, self.opened_at.elapsed());
    }
}
