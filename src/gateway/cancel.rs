//! Cancel keys, and the rule that makes a cancel hit its own query or nobody's.
//!
//! Keys are Postern's own: a server's key never reaches a client. A cancel goes to the server that the key's owner
//! holds at this moment. While it is under way the lease can't end: [`Registered::detach`] lets no further cancel begin
//! and waits for those that have begun, and only then is the connection cleaned and lent to somebody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{constant_time, rand};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use crate::identity::ssm::SsmSession;
use crate::upstream;
use crate::upstream::connection::Cancellable;
use crate::wire::startup::{CancelKey, ProtocolVersion};

/// Length of a secret under protocol 3.0 (PostgreSQL documentation, "BackendKeyData").
const SECRET_BYTES_3_0: usize = 4;
/// Length of a secret under protocol 3.2, which allows up to 256; PostgreSQL 18 sends 32.
const SECRET_BYTES_3_2: usize = 32;

/// Cancel requests to servers at a time; each is a connection with a TLS handshake.
const MAX_IN_FLIGHT: usize = 32;

/// Cancel requests of one client at a time: one that is under way, and one for a query that began since. More would hit
/// nothing else.
const MAX_IN_FLIGHT_PER_CLIENT: u32 = 2;

/// The keys of all clients, shared by all threads: a cancel may arrive at another thread than its query.
#[derive(Debug)]
pub struct Cancels {
    entries: Mutex<HashMap<i32, Arc<Entry>>>,
    places: Semaphore,
}

impl Default for Cancels {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            places: Semaphore::new(MAX_IN_FLIGHT),
        }
    }
}

#[derive(Debug)]
struct Entry {
    key: CancelKey,
    /// Who alone may cancel, if AWS has said who it is.
    owner: Option<Arc<SsmSession>>,
    lease: Mutex<Leased>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Leased {
    server: Option<Arc<Cancellable>>,
    in_flight: u32,
    /// A cancel may be on its way that nobody has seen the end of.
    tainted: bool,
}

/// What became of a cancel request; the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server was asked.
    Forwarded,
    /// The key's owner holds no server.
    Idle,
    /// There is no such key.
    Unknown,
    /// It comes from somebody else than the key's owner.
    Foreign,
    /// Enough of them are under way for this key already.
    Enough,
    /// The server couldn't be asked.
    Failed,
}

impl Outcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
            Self::Enough => "enough",
            Self::Failed => "failed",
        }
    }
}

/// A client's key, valid until it is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    cancels: Arc<Cancels>,
    entry: Arc<Entry>,
}

impl Cancels {
    /// A new key, of the length that `version` allows, for who comes through that `session`; `None` if there is no randomness.
    pub(super) fn register(
        self: &Arc<Self>,
        version: ProtocolVersion,
        session: Option<&Arc<SsmSession>>,
    ) -> Option<Registered> {
        let len = if version >= ProtocolVersion::V3_2 {
            SECRET_BYTES_3_2
        } else {
            SECRET_BYTES_3_0
        };
        let mut secret = vec![0; len];
        rand::fill(&mut secret).ok()?;
        let mut entries = self.lock();
        loop {
            let mut pid = [0; 4];
            rand::fill(&mut pid).ok()?;
            let pid = i32::from_be_bytes(pid) & i32::MAX;
            if pid == 0 || entries.contains_key(&pid) {
                continue;
            }
            let entry = Arc::new(Entry {
                key: CancelKey { pid, secret },
                owner: session.cloned(),
                lease: Mutex::default(),
                settled: Notify::new(),
            });
            entries.insert(pid, entry.clone());
            return Some(Registered {
                cancels: self.clone(),
                entry,
            });
        }
    }

    /// Carries out a cancel request that comes from `caller`, as far as that is known, and returns when the server has.
    pub(super) async fn cancel(&self, key: &CancelKey, caller: Option<&SsmSession>) -> Outcome {
        let entry = self.lock().get(&key.pid).cloned();
        let Some(entry) = entry
            .filter(|entry| constant_time::verify_slices_are_equal(&entry.key.secret, &key.secret).is_ok())
        else {
            return Outcome::Unknown;
        };
        if let Some(owner) = &entry.owner
            && !caller.is_some_and(|caller| caller.is_of_same_person(owner))
        {
            return Outcome::Foreign;
        }
        let server = match entry.begin() {
            Ok(server) => server,
            Err(outcome) => return outcome,
        };
        let mut in_flight = InFlight {
            entry: &entry,
            is_over: false,
        };
        let place = timeout(server.target.timeouts.reset, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            in_flight.is_over = true;
            return Outcome::Failed;
        };
        match upstream::cancel::cancel(&server).await {
            Ok(()) => {
                in_flight.is_over = true;
                Outcome::Forwarded
            }
            Err(error) => {
                tracing::warn!(endpoint = %server.target.endpoint, %error, "a cancel request could not be passed on");
                Outcome::Failed
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn begin(&self) -> Result<Arc<Cancellable>, Outcome> {
        let mut lease = self.lock();
        let server = lease.server.clone().ok_or(Outcome::Idle)?;
        if lease.in_flight >= MAX_IN_FLIGHT_PER_CLIENT {
            return Err(Outcome::Enough);
        }
        lease.in_flight += 1;
        Ok(server)
    }

    fn lock(&self) -> MutexGuard<'_, Leased> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InFlight<'a> {
    entry: &'a Entry,
    /// Whether the server is known to be done with it.
    is_over: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut lease = self.entry.lock();
        lease.in_flight -= 1;
        lease.tainted |= !self.is_over;
        drop(lease);
        self.entry.settled.notify_waiters();
    }
}

impl Registered {
    /// What the client is told.
    pub(super) fn key(&self) -> &CancelKey {
        &self.entry.key
    }

    /// Asks the server to cancel what it runs for the client now.
    pub(super) fn cancel_running(&self) -> JoinHandle<()> {
        let (cancels, entry) = (self.cancels.clone(), self.entry.clone());
        spawn_local(async move {
            cancels.cancel(&entry.key, entry.owner.as_deref()).await;
        })
    }

    /// From here on, cancels go to this server.
    pub(super) fn attach(&self, server: Option<&Arc<Cancellable>>) {
        let mut lease = self.entry.lock();
        lease.server = server.cloned();
        // None is under way: whoever detached before has waited for that, or closed the connection.
        lease.tainted = false;
    }

    /// From here on, cancels go nowhere; returns when none is under way any more. `false`: one may still reach the
    /// server at any time, and the connection must not be lent again.
    pub(super) async fn detach(&self) -> bool {
        self.entry.lock().server = None;
        loop {
            let settled = self.entry.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            {
                let lease = self.entry.lock();
                if lease.in_flight == 0 {
                    return !lease.tainted;
                }
            }
            settled.await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels.lock().remove(&self.entry.key.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_of_the_length_that_the_protocol_allows() {
        let cancels = Arc::new(Cancels::default());
        let old = cancels.register(ProtocolVersion::V3_0, None).unwrap();
        let new = cancels.register(ProtocolVersion::V3_2, None).unwrap();
        assert_eq!((old.key().secret.len(), new.key().secret.len()), (4, 32));
        assert_eq!(cancels.cancel(old.key(), None).await, Outcome::Idle);
        let wrong = CancelKey {
            pid: old.key().pid,
            secret: vec![0; 5],
        };
        assert_eq!(cancels.cancel(&wrong, None).await, Outcome::Unknown);
        let gone = new.key().clone();
        drop(new);
        assert_eq!(cancels.cancel(&gone, None).await, Outcome::Unknown);
    }
}
