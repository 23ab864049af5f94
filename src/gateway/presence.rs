//! Who is in, by which rule, and why he has to go.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::console::Level;
use super::seats::{Seat, Seats};
use super::shard::Shutdown;
use crate::config::{Absent, Config, Limits, Target};
use crate::identity::ssm::SsmSession;
use crate::identity::{Principal, Source};
use crate::ids::PoolKey;
use crate::pin::Pins;
use crate::policy::{Decision, Request, Rules};
use crate::session::settings::Settings;
use crate::tls::Acceptor;

/// The rules that count, and the connections that they allow only so many of.
#[derive(Clone, Debug)]
pub struct InForce {
    pub(super) rules: Arc<Rules>,
    pub(super) seats: Arc<Seats>,
}

impl InForce {
    /// These rules, by which nobody is in yet.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            seats: Arc::default(),
        }
    }

    /// Whether they are these.
    pub fn are(&self, rules: &Rules) -> bool {
        *self.rules == *rules
    }
}

/// What of the configuration can be changed while clients are served.
#[derive(Clone, Debug)]
pub struct Current {
    /// The rules.
    pub in_force: InForce,
    /// The databases.
    pub targets: Arc<[Arc<Target>]>,
    /// Those that it isn't known where they are.
    pub absent: Arc<[Absent]>,
    /// The certificate for clients.
    pub acceptor: Acceptor,
    /// Bounds on clients.
    pub limits: Limits,
}

impl Current {
    /// What `config` says.
    pub fn of(config: &Config) -> Self {
        Self {
            in_force: InForce::new(config.rules.clone()),
            targets: config.targets.clone().into(),
            absent: config.absent.clone(),
            acceptor: config.tls.clone(),
            limits: config.limits,
        }
    }
}

/// One client that is in.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) principal: Principal,
    /// How that is known.
    pub(super) source: Source,
    /// The session of Session Manager that it came through.
    pub(super) session: Option<Arc<SsmSession>>,
    pub(super) pool: PoolKey,
    pub(super) address: Option<SocketAddr>,
    pub(super) since: SystemTime,
    /// It is at the console.
    pub(super) console: Option<Level>,
    pub(super) admission: RefCell<Admission>,
    /// Whether it came by TLS.
    pub(super) is_encrypted: Cell<bool>,
    pub(super) activity: Cell<Activity>,
    /// What ties it to its server connection.
    pub(super) pins: Cell<Pins>,
    /// The settings that it has come with.
    pub(super) settings: OnceCell<Settings>,
    ending: Cell<Option<Ending>>,
    /// When it was told of that.
    told: Cell<Option<Instant>>,
    /// It has had long enough.
    is_overdue: Cell<bool>,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It has no server connection and needs none.
    Idle,
    /// It waits for one since then.
    Waiting(Instant),
    /// It has the one of that number.
    Active(u64),
}

/// By what a client is in.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) in_force: InForce,
    /// Which rule, from 0.
    pub(super) rule: usize,
    /// It counts, as far as that rule allows only so many.
    pub(super) _seats: Box<[Seat]>,
}

/// Why a client has to go, though the gateway stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Somebody wants it so.
    Killed,
    /// The rules were changed, and none admits it any more.
    NotAdmitted,
    /// The rules were changed, and what admits it now does so on other terms. It may end its transaction, as with those that follow.
    OtherTerms,
    /// The configuration was changed, and its database isn't in it any more.
    NoTarget,
    /// Its database is to be free of clients.
    Drained,
    /// The configuration was changed, and its database is on another server now.
    Moved,
}

impl Ending {
    fn shutdown(self) -> Shutdown {
        match self {
            Self::Killed | Self::NotAdmitted => Shutdown::Now,
            Self::OtherTerms | Self::NoTarget | Self::Drained | Self::Moved => Shutdown::Drain,
        }
    }
}

impl Presence {
    pub(super) fn new(
        principal: Principal,
        source: Source,
        session: Option<Arc<SsmSession>>,
        pool: PoolKey,
        address: Option<SocketAddr>,
        console: Option<Level>,
        admission: Admission,
    ) -> Self {
        Self {
            principal,
            source,
            session,
            pool,
            address,
            since: SystemTime::now(),
            console,
            admission: RefCell::new(admission),
            is_encrypted: Cell::default(),
            activity: Cell::new(Activity::Idle),
            pins: Cell::default(),
            settings: OnceCell::new(),
            ending: Cell::new(None),
            told: Cell::new(None),
            is_overdue: Cell::new(false),
        }
    }

    /// Why it has to go, if it has to.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// What is asked of it.
    #[inline]
    pub(super) fn shutdown(&self) -> Shutdown {
        match self.ending.get() {
            None => Shutdown::No,
            Some(_) if self.is_overdue.get() => Shutdown::Now,
            Some(ending) => ending.shutdown(),
        }
    }

    /// Doesn't wait for its transaction any longer than for `patience`.
    pub(super) fn hurry(&self, patience: Duration) {
        let is_overdue = self.told.get().is_some_and(|told| told.elapsed() >= patience);
        if is_overdue {
            self.is_overdue.set(true);
        }
    }

    /// Makes it go; what is more urgent counts.
    pub(super) fn end(&self, ending: Ending) {
        if self.shutdown() < ending.shutdown() {
            self.ending.set(Some(ending));
            self.told.set(Some(Instant::now()));
        }
    }

    /// Looks what the rules that are `in_force` now say of it: the same, or it has to go.
    pub(super) fn judge(&self, in_force: &InForce) {
        let mut admission = self.admission.borrow_mut();
        if Arc::ptr_eq(&admission.in_force.rules, &in_force.rules) {
            return;
        }
        let document = self.session.as_ref().map(|session| &*session.document);
        let at = SystemTime::now();
        if let Some(level) = self.console {
            match in_force.rules.decide_console(&self.principal, document, at) {
                // What it may use may be something else now.
                None if level == Level::Own => self.end(Ending::OtherTerms),
                None => self.end(Ending::NotAdmitted),
                Some((rule, console))
                    if Level::from(console) == level
                        && in_force
                            .rules
                            .agree(rule, &admission.in_force.rules, admission.rule) =>
                {
                    (admission.in_force, admission.rule) = (in_force.clone(), rule);
                }
                Some(_) => self.end(Ending::OtherTerms),
            }
            return;
        }
        let decision = in_force.rules.decide(&Request {
            principal: &self.principal,
            document,
            target: &self.pool.target,
            database: &self.pool.database,
            user: &self.pool.user,
            at,
        });
        let Decision::Allow { rule } = decision else {
            return self.end(Ending::NotAdmitted);
        };
        if !in_force
            .rules
            .agree(rule, &admission.in_force.rules, admission.rule)
        {
            return self.end(Ending::OtherTerms);
        }
        // Who is in stays, also if there are more than may come.
        let terms = in_force.rules.terms_of(rule);
        let seat = |most: Option<usize>, whom: Option<String>| {
            in_force.seats.take(rule, most.and(whom)?, usize::MAX)
        };
        let session = self.session.as_ref().map(|session| Seats::session(&session.id));
        *admission = Admission {
            in_force: in_force.clone(),
            rule,
            _seats: [
                seat(terms.max_clients, Some(self.principal.to_string())),
                seat(terms.max_clients_per_session, session),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
    }
}
