//! What one data thread has: its listeners, its pools, its clients.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::info;

use super::accept::accept;
use super::cancel::Cancels;
use super::clients::Clients;
use super::console::Averages;
use super::identify::{Asked, Identifier};
use super::presence::{Current, Ending, InForce};
use crate::audit::{Audit, Event};
use crate::config::{Absent, Identity, Limits, Target};
use crate::ids::{PoolKey, SessionId};
use crate::metrics::Metrics;
use crate::net::listener::bind;
use crate::tls::Acceptor;
use crate::upstream::Services;
use crate::upstream::error::OpenError;
use crate::upstream::pool::{ServerPool, Since};

/// Between two looks at idle connections, lifetimes and minima.
const TICK: Duration = Duration::from_secs(1);

/// How long clients that are told to go at once may take.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How a process ends, in steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// It doesn't.
    #[default]
    No,
    /// Nobody new is accepted, and clients go when their transaction is over.
    Drain,
    /// Clients go now.
    Now,
}

/// What all data threads share.
#[derive(Debug)]
pub struct Shared {
    /// The cancel keys.
    pub cancels: Arc<Cancels>,
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// Where it is recorded who used what.
    pub audit: Audit,
    /// Who is asked who somebody is.
    pub(super) asked: Asked,
    /// Who reads the configuration again.
    reloads: mpsc::Sender<Asker>,
    /// Who ends the process.
    ends: mpsc::Sender<Shutdown>,
    sessions: AtomicU64,
}

/// Somebody who wants the configuration read again is told what came of it: what there is to know, or why all is as it was.
pub type Asker = oneshot::Sender<Result<String, String>>;

/// One data thread's.
#[derive(Debug)]
pub struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) identifier: Identifier,
    pub(super) clients: Rc<Clients>,
    services: Services,
    pools: RefCell<HashMap<PoolKey, Rc<ServerPool>>>,
    /// Those that newcomers don't come to any more.
    leaving: RefCell<Vec<Rc<ServerPool>>>,
    /// What counts here: the pools are those of this and no other.
    current: RefCell<Current>,
    /// Targets that it isn't known where they are since the start: the gateway isn't ready without them.
    awaited: RefCell<Vec<Absent>>,
    /// What is to count.
    changes: watch::Receiver<Current>,
    /// For the console.
    pub(super) averages: RefCell<Averages>,
}

impl Shared {
    /// All that is shared.
    pub fn new(
        metrics: Arc<Metrics>,
        audit: Audit,
        asked: Asked,
        reloads: mpsc::Sender<Asker>,
        ends: mpsc::Sender<Shutdown>,
    ) -> Self {
        Self {
            cancels: Arc::default(),
            metrics,
            audit,
            asked,
            reloads,
            ends,
            sessions: AtomicU64::new(1),
        }
    }

    /// Has the configuration read again.
    pub(super) async fn reload(&self) -> Result<String, String> {
        let gone = || "the gateway goes down".to_owned();
        let (asker, told) = oneshot::channel();
        self.reloads.send(asker).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// Has the process end.
    pub(super) fn end(&self, how: Shutdown) {
        // If the queue is full, it ends anyway.
        let _ = self.ends.try_send(how);
    }

    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

impl Shard {
    /// Opens the pools of all targets.
    pub fn new(
        shared: Arc<Shared>,
        identity: Identity,
        changes: watch::Receiver<Current>,
        services: Services,
    ) -> Rc<Self> {
        let current = changes.borrow().clone();
        let shard = Rc::new(Self {
            identifier: Identifier::new(identity, shared.asked.clone(), shared.metrics.clone()),
            shared,
            clients: Rc::default(),
            services,
            pools: RefCell::default(),
            leaving: RefCell::default(),
            awaited: RefCell::new(current.absent.to_vec()),
            current: RefCell::new(current),
            changes,
            averages: RefCell::default(),
        });
        shard.retarget(Since::Start);
        shard
    }

    /// Makes the pools those of the targets that count: changed ones go on with their clients, and those that are gone, or whose target is
    /// another server now, are only there until these have gone. Of which pools they have to go, and why.
    fn retarget(&self, since: Since) -> HashMap<PoolKey, Ending> {
        let mut gone = std::mem::take(&mut *self.pools.borrow_mut());
        let mut ends = HashMap::new();
        for target in &*self.targets() {
            let is_awaited = |absent: &Absent| absent.is_called(target.name.as_str());
            let since = match self.awaited.borrow().iter().any(is_awaited) {
                true => Since::Start,
                false => since,
            };
            for (database, user, pool) in target.pools() {
                let key = PoolKey {
                    target: target.name.clone(),
                    database: database.clone(),
                    user: user.clone(),
                };
                let known = gone.remove(&key);
                let mut target = Target {
                    pool,
                    ..(**target).clone()
                };
                // Clients that are understood go on to be.
                target.pool.is_shared |= known.as_ref().is_some_and(|known| known.is_shared());
                let target = Arc::new(target);
                let services = self.services.clone();
                let pool = match known {
                    None => ServerPool::new(key.clone(), target, services, since, None),
                    Some(known) => {
                        // What is known of one server is nothing on another, and a client's statements were judged by that.
                        let is_elsewhere = !known.target().is_where(&target);
                        if is_elsewhere {
                            ends.insert(key.clone(), Ending::Moved);
                        }
                        if is_elsewhere || known.is_shared() != target.pool.is_shared {
                            let new = Since::Replaced;
                            let new = ServerPool::new(key.clone(), target, services, new, Some(&known));
                            self.leave(known, true, is_elsewhere);
                            new
                        } else {
                            known.retarget(target);
                            known
                        }
                    }
                };
                self.pools.borrow_mut().insert(key, pool);
            }
        }
        let absent = self.absent();
        let is_absent = |awaited: &Absent| absent.iter().any(|absent| absent.name == awaited.name);
        self.awaited.borrow_mut().retain(is_absent);
        for pool in gone.into_values() {
            ends.insert(pool.key().clone(), Ending::NoTarget);
            self.leave(pool, false, false);
        }
        ends
    }

    fn leave(&self, pool: Rc<ServerPool>, is_replaced: bool, is_elsewhere: bool) {
        pool.leave(is_replaced, is_elsewhere);
        self.leaving.borrow_mut().push(pool);
    }

    /// Binds the addresses.
    pub fn listen(addresses: &[SocketAddr]) -> io::Result<Vec<tokio::net::TcpListener>> {
        let bind = |address: &SocketAddr| {
            bind(*address)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
        };
        addresses.iter().map(bind).collect()
    }

    /// Serves clients until `shutdown` says to end and they are gone. `readiness` hears what
    /// the pools are up to.
    pub async fn run(
        self: Rc<Self>,
        listeners: Vec<tokio::net::TcpListener>,
        mut shutdown: watch::Receiver<Shutdown>,
        readiness: watch::Sender<Readiness>,
    ) {
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| spawn_local(accept(self.clone(), listener)))
            .collect();
        let mut changes = self.changes.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fast = interval(Duration::from_millis(50));
        fast.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.tend(),
                _ = fast.tick(), if !readiness.borrow().settled => {}
                Ok(()) = changes.changed() => self.enforce(),
                changed = shutdown.changed() => if changed.is_err() { break },
            }
            readiness.send_if_modified(|known| std::mem::replace(known, self.readiness()) != *known);
            let asked = *shutdown.borrow();
            if asked != Shutdown::No && self.clients.shutdown() != asked {
                accepting.iter().for_each(tokio::task::JoinHandle::abort);
                self.pools.borrow().values().for_each(|pool| pool.close());
                self.leaving.borrow().iter().for_each(|pool| pool.close());
                self.clients.shut_down(asked);
            }
            if asked != Shutdown::No {
                break;
            }
        }
        self.drain(shutdown).await;
    }

    /// The rules that count now.
    pub(super) fn in_force(&self) -> InForce {
        self.current.borrow().in_force.clone()
    }

    /// The databases that there are now.
    pub(super) fn targets(&self) -> Arc<[Arc<Target>]> {
        self.current.borrow().targets.clone()
    }

    /// Those that it isn't known where they are.
    pub(super) fn absent(&self) -> Arc<[Absent]> {
        self.current.borrow().absent.clone()
    }

    /// The certificate for clients.
    pub(super) fn acceptor(&self) -> Acceptor {
        self.current.borrow().acceptor.clone()
    }

    /// Bounds on clients.
    pub(super) fn limits(&self) -> Limits {
        self.current.borrow().limits
    }

    /// Makes count what was changed, and ends the connections of those whom the rules don't admit any more, or on other terms, or whose
    /// database isn't there any more.
    pub(super) fn enforce(self: &Rc<Self>) {
        let now = self.changes.borrow().clone();
        let before = self.current.replace(now);
        let ends = if self.clients.shutdown() == Shutdown::No {
            self.retarget(Since::Added)
        } else {
            // Whoever comes after this process has the login budget.
            self.current.borrow_mut().targets = before.targets;
            HashMap::new()
        };
        let in_force = self.in_force();
        let ended = self.clients.each(|_, presence| {
            presence.judge(&in_force);
            if presence.console.is_none()
                && let Some(ending) = ends.get(&presence.pool)
            {
                presence.end(*ending);
            }
        });
        let rules = in_force.rules.len();
        info!(ended, "the configuration was changed: these clients have to go");
        if ended > 0 || !Arc::ptr_eq(&before.in_force.rules, &in_force.rules) {
            self.shared.audit.record(|| Event::Rules { rules, ended });
        }
        self.hurry_later();
    }

    /// Those who may end their transaction may do so until `drain_timeout` is over.
    pub(super) fn hurry_later(self: &Rc<Self>) {
        let shard = self.clone();
        spawn_local(async move {
            let patience = shard.limits().drain_timeout;
            sleep(patience).await;
            shard.clients.each(|_, presence| presence.hurry(patience));
        });
    }

    async fn drain(self: &Rc<Self>, mut shutdown: watch::Receiver<Shutdown>) {
        let mut changes = self.changes.clone();
        while self.clients.len() > 0 && *shutdown.borrow() != Shutdown::Now {
            tokio::select! {
                () = sleep(Duration::from_millis(20)) => {}
                Ok(()) = changes.changed() => self.enforce(),
                changed = shutdown.changed() => if changed.is_err() { break },
            }
        }
        self.clients.shut_down(Shutdown::Now);
        let gone = async {
            while self.clients.len() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_CALL, gone).await;
        self.pools.borrow().values().for_each(|pool| pool.close_idle());
        self.leaving.borrow().iter().for_each(|pool| pool.close_idle());
    }

    /// The pool of `key`; every pool that can be asked for is there.
    pub(super) fn pool(&self, key: &PoolKey) -> Option<Rc<ServerPool>> {
        self.pools.borrow().get(key).cloned()
    }

    /// All pools, in the order of their names.
    pub(super) fn pools(&self) -> Vec<Rc<ServerPool>> {
        let mut pools: Vec<_> = self.pools.borrow().values().cloned().collect();
        pools.sort_by(|one, other| one.key().cmp(other.key()));
        pools
    }

    /// Those that newcomers don't come to any more.
    pub(super) fn leaving(&self) -> Vec<Rc<ServerPool>> {
        self.leaving.borrow().clone()
    }

    /// What connections are opened with.
    pub(super) fn services(&self) -> &Services {
        &self.services
    }

    fn tend(&self) {
        self.shared.audit.watch();
        self.averages.borrow_mut().turn(self);
        let (principals, sessions) = self.clients.people();
        let metrics = &self.shared.metrics.client;
        metrics.principals.set(principals as i64);
        metrics.ssm_sessions.set(sessions as i64);
        self.leaving.borrow_mut().retain(|pool| {
            pool.remove_dead();
            pool.tend();
            let has_clients = Rc::strong_count(pool) > 1;
            if !has_clients {
                pool.close_idle();
                pool.tend();
            }
            has_clients
        });
        for pool in self.pools.borrow().values() {
            pool.remove_dead();
            pool.tend();
            pool.look_at_catalogs();
        }
    }

    fn readiness(&self) -> Readiness {
        let pools = self.pools.borrow();
        let warm = |pool: &&Rc<ServerPool>| pool.target().pool.min_idle > 0;
        let counts = |pool: &&Rc<ServerPool>| warm(pool) && !pool.may_be_missing();
        let failing = pools.values().filter(counts).filter_map(|pool| {
            let error = pool.trouble().filter(|_| !pool.is_usable())?;
            let pool = pool.key().clone();
            Some(Failing { pool, error })
        });
        let mut failing: Vec<_> = failing.collect();
        failing.sort_by(|one, other| one.pool.cmp(&other.pool));
        Readiness {
            settled: pools.values().filter(counts).all(|pool| pool.has_settled()),
            usable: pools.values().filter(counts).all(|pool| pool.is_usable()) && self.absent().is_empty(),
            failing: failing.into(),
        }
    }
}

/// Whether clients can be served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readiness {
    /// Every pool that opens connections ahead has opened one, or has failed to.
    pub settled: bool,
    /// Every such pool has a server to lend, and of every target it is known where it is.
    pub usable: bool,
    /// Those that have none, as far as it is known why.
    pub failing: Arc<[Failing]>,
}

/// A pool that can't open connections.
#[derive(Clone, Debug)]
pub struct Failing {
    /// Which.
    pub pool: PoolKey,
    /// Why.
    pub error: Arc<OpenError>,
}

impl PartialEq for Failing {
    fn eq(&self, other: &Self) -> bool {
        self.pool == other.pool && Arc::ptr_eq(&self.error, &other.error)
    }
}
