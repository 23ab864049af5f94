//! One pool of server connections: [`pool::Pool`](crate::pool::Pool) decides, here it happens.
//!
//! A pool belongs to one thread. A [`Lease`] that is dropped closes its connection; only [`Lease::give_back`] returns
//! it, and only after [`Connection::clean`].

mod entry;
mod lease;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{debug, info, warn};

pub use entry::{Entry, Usage};
pub use lease::Lease;
use lease::Waiting;

use super::Services;
use super::catalog;
use super::connection::{Broken, Connection};
use super::error::OpenError;
use super::login;
use super::texts::KnownTexts;
use crate::config::{PoolConfig, Target};
use crate::ids::PoolKey;
use crate::metrics::OnePool;
use crate::pool::{Census, Limits, Member, Placement, Pool};
use crate::session::parameters::Parameters;
use crate::session::settings::{Setting, Settings};

/// First pause after a failed attempt; doubled up to [`RETRY_MOST`].
const RETRY_LEAST: Duration = Duration::from_millis(250);
/// Longest pause between two attempts that fail.
const RETRY_MOST: Duration = Duration::from_secs(15);

/// A connection that is about to end is replaced at least this long before: a login may take seconds.
const REPLACE_AHEAD_LEAST: Duration = Duration::from_secs(5);

/// Sets of settings whose outcome is remembered. Drivers send the same few; a client that makes up
/// new ones only takes longer to log in.
const MAX_KNOWN_SETTINGS: usize = 256;

type Waiter = oneshot::Sender<Result<Lease, Arc<OpenError>>>;

/// A connection of the pool, and what is seen of it.
struct Held {
    connection: Connection,
    entry: Rc<Entry>,
}

impl Held {
    fn close(self) {
        self.connection.close();
    }
}

/// A pool of connections to one database as one user.
pub struct ServerPool {
    key: PoolKey,
    target: RefCell<Arc<Target>>,
    services: Services,
    metrics: OnePool,
    members: RefCell<Pool<Held, Waiter>>,
    /// Those that are open, whoever has them.
    entries: RefCell<Vec<Weak<Entry>>>,
    usage: Rc<Usage>,
    is_disabled: Cell<bool>,
    /// Another shows in the metrics by its name.
    is_replaced: Cell<bool>,
    since: Since,
    greetings: RefCell<Greetings>,
    texts: KnownTexts,
    catalogs: catalog::Watch,
    /// One is about to look at the catalogs.
    is_looking: Cell<bool>,
    trouble: RefCell<Option<Trouble>>,
    has_succeeded: Cell<bool>,
    is_closing: Cell<bool>,
}

/// What servers report to a client with these settings, so that its login needs no server. Without settings it is what
/// they report to Postern.
type Greetings = HashMap<Settings, Rc<Parameters>>;

/// Since when a pool is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Since the gateway's start.
    Start,
    /// Since the configuration was read again, which has it anew.
    Added,
    /// The same, in the place of another.
    Replaced,
}

/// The last attempt to open a connection has failed.
#[derive(Debug)]
struct Trouble {
    error: Arc<OpenError>,
    since: Instant,
    pause: Duration,
    retry_at: Instant,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum LeaseError {
    /// None could be opened.
    Open(Arc<OpenError>),
    /// None came free in time; the last failed attempt, if attempts fail.
    TimedOut(Duration, Option<Arc<OpenError>>),
}

impl ServerPool {
    /// An empty pool, which begins to open its minimum; in the place of `before`, it is paused and disabled if that is.
    pub fn new(
        key: PoolKey,
        target: Arc<Target>,
        services: Services,
        since: Since,
        before: Option<&Self>,
    ) -> Rc<Self> {
        let metrics = services.metrics.pool.of(&key);
        metrics.size.set(target.pool.size as i64);
        let limits = limits(&target.pool);
        let pool = Rc::new(Self {
            key,
            target: RefCell::new(target),
            services,
            metrics,
            members: RefCell::new(Pool::new(limits)),
            entries: RefCell::default(),
            usage: Rc::default(),
            is_disabled: Cell::new(false),
            is_replaced: Cell::new(false),
            since,
            greetings: RefCell::default(),
            texts: KnownTexts::default(),
            catalogs: catalog::Watch::default(),
            is_looking: Cell::new(false),
            trouble: RefCell::new(None),
            has_succeeded: Cell::new(false),
            is_closing: Cell::new(false),
        });
        if let Some(before) = before {
            pool.is_disabled.set(before.is_disabled());
            if before.is_paused() {
                pool.pause();
            }
        }
        pool.tend();
        pool
    }

    /// Which pool it is.
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// Whose connections these are.
    pub fn target(&self) -> Arc<Target> {
        self.target.borrow().clone()
    }

    /// Goes on with what the configuration says of its target now, which is [where](Target::is_where) it was, and whose clients are understood
    /// if they were.
    pub fn retarget(self: &Rc<Self>, target: Arc<Target>) {
        self.metrics.size.set(target.pool.size as i64);
        self.members.borrow_mut().set_limits(limits(&target.pool));
        *self.target.borrow_mut() = target;
        self.tend();
    }

    /// What the configuration says of it.
    #[inline]
    pub fn with_target<T>(&self, look: impl FnOnce(&Target) -> T) -> T {
        look(&self.target.borrow())
    }

    /// Newcomers don't come to it any more, and it opens nothing ahead: it is only there for the clients that it has, and to these it lends
    /// nothing new if its server isn't the target's any more (`is_elsewhere`). `is_replaced`: another shows in the metrics by its name.
    pub fn leave(self: &Rc<Self>, is_replaced: bool, is_elsewhere: bool) {
        let mut target = (*self.target()).clone();
        target.pool.min_idle = 0;
        self.is_replaced.set(is_replaced);
        if !is_replaced {
            self.metrics.size.set(0);
            self.metrics.paused.set(0);
        }
        self.members.borrow_mut().set_limits(limits(&target.pool));
        *self.target.borrow_mut() = Arc::new(target);
        if is_elsewhere {
            self.close();
            self.members.borrow_mut().retire(Instant::now());
        }
        self.tend();
    }

    /// Whether the gateway is ready without it: it came later, and has had no connection yet.
    pub fn may_be_missing(&self) -> bool {
        !self.has_succeeded.get()
            && match self.since {
                Since::Start => false,
                Since::Added => true,
                Since::Replaced => self.trouble.borrow().is_none(),
            }
    }

    /// Whether it has ever had a connection, or is known to be unable to get one.
    pub fn has_settled(&self) -> bool {
        self.has_succeeded.get() || self.trouble.borrow().is_some()
    }

    /// Whether a client could get a connection: there was one, and the last attempt hasn't failed for good.
    pub fn is_usable(&self) -> bool {
        self.has_succeeded.get()
            && self
                .trouble
                .borrow()
                .as_ref()
                .is_none_or(|trouble| !trouble.error.is_permanent())
    }

    /// What a server would report to a client with these settings, if that is known; and the settings, shared.
    pub fn greeting(&self, settings: &[Setting]) -> Option<(Settings, Rc<Parameters>)> {
        let greetings = self.greetings.borrow();
        greetings
            .get_key_value(settings)
            .map(|(settings, parameters)| (settings.clone(), parameters.clone()))
    }

    /// The counts.
    pub fn metrics(&self) -> &OnePool {
        &self.metrics
    }

    /// Whether clients may give connections back between transactions.
    pub fn is_shared(&self) -> bool {
        self.target.borrow().pool.is_shared
    }

    /// What is known of texts.
    pub fn texts(&self) -> &KnownTexts {
        &self.texts
    }

    /// Remembers what a server reports once `settings` have taken; `parameters` is shared with whoever has the same.
    pub fn learn(&self, settings: &Settings, parameters: &mut Rc<Parameters>) {
        let mut greetings = self.greetings.borrow_mut();
        if let Some(known) = greetings.get(settings) {
            if **known == **parameters {
                *parameters = known.clone();
            }
            return;
        }
        if greetings.len() >= MAX_KNOWN_SETTINGS {
            greetings.retain(|settings, _| settings.is_empty());
        }
        greetings.insert(settings.clone(), parameters.clone());
    }

    /// An idle connection, if there is one and nobody waits.
    pub fn try_lease(self: &Rc<Self>) -> Option<Lease> {
        let now = Instant::now();
        while let Some(member) = self.checkout(now) {
            let mut lease = Lease::of(member, self.clone(), now);
            if !lease.is_dead() {
                self.metrics.leases.inc();
                self.tend();
                return Some(lease);
            }
            debug!(pool = %self.key, "an idle server connection has ended");
        }
        None
    }

    /// The first connection that comes free or is opened.
    pub async fn lease(self: &Rc<Self>) -> Result<Lease, LeaseError> {
        match self.known_trouble() {
            Some(error) => Err(LeaseError::Open(error)),
            None => self.wait().await,
        }
    }

    fn checkout(&self, now: Instant) -> Option<Member<Held>> {
        self.members.borrow_mut().checkout(now)
    }

    async fn wait(self: &Rc<Self>) -> Result<Lease, LeaseError> {
        let (sender, receiver) = oneshot::channel();
        let id = self.members.borrow_mut().wait(sender);
        let mut waiting = Waiting::new(self.clone(), id, receiver);
        self.tend();
        let patience = self.target.borrow().pool.wait_timeout;
        match tokio::time::timeout(patience, &mut waiting.receiver).await {
            Ok(Ok(Ok(lease))) => {
                self.metrics.leases.inc();
                Ok(lease)
            }
            Ok(Ok(Err(error))) => Err(LeaseError::Open(error)),
            Ok(Err(_)) | Err(_) => {
                self.metrics.timeouts.inc();
                let error = self
                    .trouble
                    .borrow()
                    .as_ref()
                    .map(|trouble| trouble.error.clone());
                Err(LeaseError::TimedOut(patience, error))
            }
        }
    }

    /// Why the last attempt to open a connection has failed, if it has.
    pub fn trouble(&self) -> Option<Arc<OpenError>> {
        self.trouble
            .borrow()
            .as_ref()
            .map(|trouble| trouble.error.clone())
    }

    /// The failure that whoever asks now would only meet again.
    fn known_trouble(&self) -> Option<Arc<OpenError>> {
        let trouble = self.trouble.borrow();
        let trouble = trouble.as_ref()?;
        (trouble.error.is_permanent() && Instant::now() < trouble.retry_at).then(|| trouble.error.clone())
    }

    /// Ends what has lived or idled long enough or was closed by the server, and opens what is wanted.
    /// To be called now and then, and whenever something has changed.
    pub fn tend(self: &Rc<Self>) {
        let now = Instant::now();
        let (over, wanted) = {
            let mut members = self.members.borrow_mut();
            let over = members.expire(now);
            let at_most = self.may_open(now, members.census());
            let wanted = members.start_opening(now, at_most);
            (over, wanted)
        };
        over.into_iter().for_each(Held::close);
        for _ in 0..wanted {
            let pool = self.clone();
            tokio::task::spawn_local(Box::pin(async move { pool.open().await }));
        }
        self.publish();
    }

    /// Sees to it that the catalogs are known as far as they have changed by now. An error of
    /// [`Broken::NotTold`] leaves the connection as it is.
    pub async fn know_catalogs(&self, connection: &mut Connection) -> Result<(), Broken> {
        self.catalogs.catch_up(connection, &self.texts).await
    }

    /// Whether nothing is known of the catalogs, and nobody has tried to read them.
    #[inline]
    pub fn is_new(&self) -> bool {
        self.catalogs.is_new()
    }

    /// Looks whether the catalogs have changed, unless that was done just now. Takes an idle connection, if there is one.
    pub fn look_at_catalogs(self: &Rc<Self>) {
        let census = self.members.borrow().census();
        let has_connections = census.idle + census.leased > 0;
        if self.is_shared() && has_connections && !self.is_looking.get() && self.catalogs.is_due(&self.texts)
        {
            self.is_looking.set(true);
            let pool = self.clone();
            tokio::task::spawn_local(Box::pin(async move {
                pool.read_catalogs().await;
                pool.is_looking.set(false);
            }));
        }
    }

    async fn read_catalogs(self: &Rc<Self>) {
        let lease = match self.try_lease() {
            Some(lease) => Ok(lease),
            None => self.lease().await,
        };
        let Ok(mut lease) = lease else { return };
        if !self.catalogs.is_due(&self.texts) {
            return lease.give_back_unused();
        }
        match self.catalogs.read(&mut lease, &self.texts).await {
            Ok(()) => lease.give_back_settled(),
            Err(error) => {
                warn!(pool = %self.key, %error, "the database's catalogs could not be read: every statement counts as one that may leave something behind");
                self.texts.lose_routines();
            }
        }
    }

    /// Takes out idle connections that the server has closed.
    pub fn remove_dead(&self) {
        let dead = self
            .members
            .borrow_mut()
            .remove_dead(|held| held.connection.is_dead());
        if !dead.is_empty() {
            info!(pool = %self.key, connections = dead.len(), "the server has closed idle connections");
        }
    }

    /// Counts what a client has done with a connection.
    pub fn used(&self, transactions: u64, queries: u64, received: u64, sent: u64) {
        self.metrics.transactions.inc_by(transactions);
        self.metrics.queries.inc_by(queries);
        self.metrics.received.inc_by(received);
        self.metrics.sent.inc_by(sent);
    }

    /// What has become of its connections.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Its connections that are open, and whether each will end when it is given back.
    pub fn each_entry(&self, mut look: impl FnMut(&Entry, bool)) {
        let members = self.members.borrow();
        let entries = self.entries.borrow();
        for entry in entries.iter().filter_map(Weak::upgrade) {
            look(&entry, members.is_paused() || members.is_retired(entry.opened_at));
        }
    }

    /// What it holds.
    pub fn census(&self) -> Census {
        self.members.borrow().census()
    }

    /// Lends nothing until [`Self::resume`]: whoever asks waits. Connections end as soon as nobody has them.
    pub fn pause(self: &Rc<Self>) {
        self.members.borrow_mut().pause(Instant::now());
        self.metrics.paused.set(1);
        self.tend();
    }

    /// The end of that.
    pub fn resume(self: &Rc<Self>) {
        self.members.borrow_mut().resume();
        self.metrics.paused.set(0);
        self.tend();
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.members.borrow().is_paused()
    }

    /// Ends the connections that there are now as soon as nobody has them; others are opened in their place.
    pub fn reconnect(self: &Rc<Self>) {
        self.members.borrow_mut().retire(Instant::now());
        self.tend();
    }

    /// Whether newcomers are refused.
    pub fn is_disabled(&self) -> bool {
        self.is_disabled.get()
    }

    /// Refuses newcomers, or doesn't any more.
    pub fn disable(&self, is_disabled: bool) {
        self.is_disabled.set(is_disabled);
    }

    /// Opens no connection any more: whoever comes after this process has the login budget.
    pub fn close(&self) {
        self.is_closing.set(true);
    }

    /// Closes all idle connections.
    pub fn close_idle(&self) {
        self.members.borrow_mut().drain().for_each(Held::close);
    }

    /// How many attempts may begin: while they fail, one at a time, after a pause.
    fn may_open(&self, now: Instant, census: Census) -> usize {
        match &*self.trouble.borrow() {
            _ if self.is_closing.get() => 0,
            None => usize::MAX,
            Some(trouble) => usize::from(now >= trouble.retry_at && census.opening == 0),
        }
    }

    async fn open(self: Rc<Self>) {
        let began = Instant::now();
        let mut opening = Opening {
            pool: Some(self.clone()),
        };
        let target = self.target();
        let opened = login::open(&target, &self.key, &self.services).await;
        let logins = self.services.metrics.login.of(&self.key.target);
        opening.pool = None;
        match opened {
            Ok(connection) => {
                logins.ended("ok");
                debug!(pool = %self.key, took = ?began.elapsed(), "server connection opened");
                self.opened(connection, began);
                self.look_at_catalogs();
            }
            Err(error) => {
                logins.ended(error.label());
                self.failed(error, began);
            }
        }
        self.tend();
    }

    fn opened(self: &Rc<Self>, mut connection: Connection, began: Instant) {
        self.has_succeeded.set(true);
        *self.trouble.borrow_mut() = None;
        let known = self.greeting(&[]);
        if known.is_none_or(|(_, known)| known != connection.session.parameters) {
            // Another server, or another version of it: what its settings led to isn't known any more.
            self.greetings.borrow_mut().clear();
        }
        self.learn(&Settings::default(), &mut connection.session.parameters);
        connection.session.known_as_of(self.texts.surprises());
        let expires_at = Instant::now() + jittered(self.target.borrow().pool.lifetime);
        let entry = Entry::of(&connection, began, self.usage.clone());
        let mut entries = self.entries.borrow_mut();
        entries.retain(|entry| entry.strong_count() > 0);
        entries.push(Rc::downgrade(&entry));
        drop(entries);
        let member = Member {
            opened_at: entry.opened_at,
            connection: Held { connection, entry },
            expires_at,
        };
        let placement = self.members.borrow_mut().opened(member, Instant::now());
        self.place(placement);
    }

    fn failed(self: &Rc<Self>, mut error: OpenError, began: Instant) {
        if let OpenError::Refused { succeeded_before, .. } = &mut error {
            *succeeded_before = self.has_succeeded.get();
        }
        let error = Arc::new(error);
        let now = Instant::now();
        let known = self.trouble.borrow_mut().take();
        let trouble = match known {
            // It began before the last failure was known: one and the same trouble.
            Some(known) if began < known.since => Trouble {
                error: error.clone(),
                ..known
            },
            known => {
                let pause = known.map_or(RETRY_LEAST, |known| (known.pause * 2).min(RETRY_MOST));
                Trouble {
                    error: error.clone(),
                    since: now,
                    pause,
                    retry_at: now + jittered(pause),
                }
            }
        };
        let wait = trouble.retry_at.saturating_duration_since(now);
        warn!(pool = %self.key, %error, permanent = error.is_permanent(), retry_in = ?wait, "cannot open a server connection");
        *self.trouble.borrow_mut() = Some(trouble);
        let disappointed: Vec<Waiter> = {
            let mut members = self.members.borrow_mut();
            members.open_failed();
            if error.is_permanent() {
                members.abandon_all().collect()
            } else {
                Vec::new()
            }
        };
        for waiter in disappointed {
            let _ = waiter.send(Err(error.clone()));
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            sleep(wait).await;
            pool.tend();
        });
    }

    /// Does what was decided about a connection. One who waits may have gone in the meantime; then it goes to the next.
    fn place(self: &Rc<Self>, mut placement: Placement<Held, Waiter>) {
        loop {
            match placement {
                Placement::Parked => break,
                Placement::Expired(connection) => {
                    connection.close();
                    break;
                }
                Placement::HandOff(waiter, member) => {
                    let lease = Lease::of(member, self.clone(), Instant::now());
                    let Err(Ok(lease)) = waiter.send(Ok(lease)) else {
                        break;
                    };
                    let Some(member) = lease.into_member() else { break };
                    placement = self.members.borrow_mut().returned(member, Instant::now());
                }
            }
        }
        self.publish();
    }

    fn publish(&self) {
        if self.is_replaced.get() {
            return;
        }
        let census = self.members.borrow().census();
        self.metrics.idle.set(census.idle as i64);
        self.metrics.leased.set(census.leased as i64);
        self.metrics.opening.set(census.opening as i64);
        self.metrics.waiting.set(census.waiting as i64);
    }
}

impl std::fmt::Debug for ServerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ServerPool({}, {:?})",
            self.key,
            self.members.borrow().census()
        )
    }
}

/// An attempt that is dropped before its end must not count as one that goes on.
struct Opening {
    pool: Option<Rc<ServerPool>>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.members.borrow_mut().open_failed();
        }
    }
}

/// The bounds that a configuration has.
fn limits(pool: &PoolConfig) -> Limits {
    Limits {
        size: pool.size,
        min_idle: pool.min_idle,
        idle_timeout: pool.idle_timeout,
        replace_ahead: (pool.lifetime / 20)
            .max(REPLACE_AHEAD_LEAST)
            .min(pool.lifetime / 2),
    }
}

/// Up to a tenth less than `duration`, by chance, so that what began together doesn't end together.
fn jittered(duration: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness it merely isn't spread.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    duration.mul_f64(1.0 - f64::from(byte) / 2550.0)
}
