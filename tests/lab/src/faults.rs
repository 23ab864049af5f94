//! What can be made to go wrong at the database's door, commanded while the lab runs.
//!
//! [`FaultSet`] is the whole state; it reads and writes as JSON for the control interface. Faults of the AWS side
//! are in [`crate::aws`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::tls::Certificate;

/// All faults of the login front. The default is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultSet {
    /// How long a login takes, from the arrival of the password.
    pub latency: Latency,
    /// How many logins are let in.
    pub throttle: Option<Throttle>,
    /// What a login meets instead of its normal course.
    pub login: Option<LoginFault>,
    /// For how many logins `login` applies; none means until it is taken back.
    pub login_times: Option<u32>,
    /// For which user `login` applies; none means all. Faults before the startup message apply to all.
    pub login_user: Option<String>,
    /// The certificate that is shown.
    pub certificate: Certificate,
    /// New connections get a server that says it is a standby: `in_hot_standby` and `default_transaction_read_only` are
    /// reported on, `pg_is_in_recovery()` is true, writes fail with 25006. It is the same server all the same, so
    /// nothing keeps a client from setting the transaction to read-write.
    pub standby: bool,
    /// Connections that are logged in stand still: no byte moves in either direction, none is closed.
    pub frozen: bool,
}

/// How long logins take.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Latency {
    /// No longer than they have to.
    #[default]
    None,
    /// Always the same.
    FixedMs(u64),
    /// Log-normal with this median and 95th percentile, cut off at a maximum. RDS is about 170, 570, 1,000 to 15,000.
    Lognormal {
        /// Median in milliseconds.
        p50_ms: f64,
        /// 95th percentile in milliseconds.
        p95_ms: f64,
        /// Upper limit in milliseconds.
        max_ms: f64,
    },
}

/// A limit on the rate of logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// How many logins are let in within one window.
    pub logins: usize,
    /// The sliding window.
    #[serde(default = "one_second")]
    pub window_ms: u64,
    /// How long those above the limit wait for their refusal.
    #[serde(default)]
    pub delay_ms: u64,
}

impl Throttle {
    /// So many logins per second; others are refused after a quarter of a second.
    #[must_use]
    pub const fn per_second(logins: usize) -> Self {
        Self {
            logins,
            window_ms: one_second(),
            delay_ms: 250,
        }
    }
}

/// What a login may meet instead of its normal course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginFault {
    /// TCP reset right after the connection was accepted.
    ResetAtAccept,
    /// `N` to SSLRequest.
    RefuseTls,
    /// `N` to SSLRequest and then a request for the password in clear: nobody may answer that one.
    AskPasswordWithoutTls,
    /// TCP reset after the startup message.
    ResetAtStartup,
    /// TCP reset after the password.
    ResetAtPassword,
    /// No answer to the startup message.
    StallAtStartup,
    /// No answer to the password.
    StallAtPassword,
    /// 28000, as for a host that `pg_hba.conf` doesn't know.
    NoHbaEntry,
    /// 53300.
    TooManyConnections,
    /// 57P03.
    StartingUp,
    /// A request for SCRAM-SHA-256, as for a user who isn't in `rds_iam`.
    AskScram,
    /// An ErrorResponse of random bytes.
    GarbageError,
    /// An ErrorResponse with a message, but without SQLSTATE and severity.
    ErrorWithoutSqlstate,
    /// An ErrorResponse that says it is 512 MiB long, and goes on for as long as anybody reads.
    OversizedError,
    /// NoticeResponses without end after the startup message.
    EndlessNotices,
    /// 28000 `PAM authentication failed`, however good the token is, as when IAM is down.
    RefuseToken,
}

/// The handle by which faults are commanded.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
    relays: watch::Sender<RelayOrder>,
    seed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    set: FaultSet,
    let_in: VecDeque<Instant>,
}

/// What relays are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RelayOrder {
    pub(crate) frozen: bool,
    /// Counts the orders to reset all connections.
    pub(crate) resets: u64,
}

impl Faults {
    pub(crate) fn new(set: FaultSet, seed: u64) -> Self {
        let order = RelayOrder {
            frozen: set.frozen,
            resets: 0,
        };
        let state = State {
            set,
            let_in: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            relays: watch::Sender::new(order),
            seed: AtomicU64::new(seed),
        }
    }

    /// The faults as they are now.
    #[must_use]
    pub fn current(&self) -> FaultSet {
        self.lock().set.clone()
    }

    /// Replaces all of them.
    pub fn set(&self, set: FaultSet) {
        self.change(|current| *current = set);
    }

    /// Changes some of them, for example `faults.change(|f| f.standby = true)`.
    pub fn change(&self, change: impl FnOnce(&mut FaultSet)) {
        let frozen = {
            let mut state = self.lock();
            change(&mut state.set);
            state.set.frozen
        };
        self.relays
            .send_if_modified(|order| std::mem::replace(&mut order.frozen, frozen) != frozen);
    }

    /// Takes all of them back.
    pub fn clear(&self) {
        self.set(FaultSet::default());
    }

    /// Every login meets this from now on.
    pub fn every_login(&self, fault: LoginFault) {
        self.change(|set| (set.login, set.login_times) = (Some(fault), None));
    }

    /// The next so many logins meet this.
    pub fn next_logins(&self, times: u32, fault: LoginFault) {
        self.change(|set| (set.login, set.login_times) = (Some(fault), Some(times)));
    }

    /// Resets all connections that are logged in.
    pub fn reset_connections(&self) {
        self.relays.send_modify(|order| order.resets += 1);
    }

    pub(crate) fn relay_orders(&self) -> watch::Receiver<RelayOrder> {
        self.relays.subscribe()
    }

    /// The fault that a connection meets before its user is known, if it is one of `wanted`. Uses up one of its times.
    pub(crate) fn meet(&self, wanted: &[LoginFault], user: Option<&str>) -> Option<LoginFault> {
        let mut state = self.lock();
        let set = &mut state.set;
        let fault = set.login.filter(|fault| wanted.contains(fault))?;
        if user.is_some_and(|user| set.login_user.as_deref().is_some_and(|only| only != user)) {
            return None;
        }
        match &mut set.login_times {
            Some(0) => return None,
            Some(times) => *times -= 1,
            None => {}
        }
        Some(fault)
    }

    /// Whether a login that arrives now is within the limit; if not, how long it waits for its refusal.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        let Some(throttle) = state.set.throttle else {
            return Ok(());
        };
        let window = Duration::from_millis(throttle.window_ms);
        while state
            .let_in
            .front()
            .is_some_and(|earlier| now.duration_since(*earlier) >= window)
        {
            state.let_in.pop_front();
        }
        if state.let_in.len() >= throttle.logins {
            return Err(Duration::from_millis(throttle.delay_ms));
        }
        state.let_in.push_back(now);
        Ok(())
    }

    /// How long the next login takes.
    pub(crate) fn next_latency(&self) -> Duration {
        let latency = self.lock().set.latency;
        match latency {
            Latency::None => Duration::ZERO,
            Latency::FixedMs(ms) => Duration::from_millis(ms),
            Latency::Lognormal {
                p50_ms,
                p95_ms,
                max_ms,
            } => {
                let sigma = (p95_ms / p50_ms).ln() / NORMAL_P95;
                let normal =
                    (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
                let ms = (p50_ms * (sigma * normal).exp()).min(max_ms);
                Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default()
            }
        }
    }

    /// A number in (0, 1], by SplitMix64, so that a seed fixes the sequence.
    fn uniform(&self) -> f64 {
        let mut bits = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let top = u32::try_from((bits ^ (bits >> 31)) >> 32).unwrap_or(u32::MAX);
        (f64::from(top) + 1.0) / (f64::from(u32::MAX) + 1.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn one_second() -> u64 {
    1_000
}

/// The 95th percentile of the standard normal distribution.
const NORMAL_P95: f64 = 1.644_853_6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_distribution_that_was_asked_for() {
        let latency = Latency::Lognormal {
            p50_ms: 170.0,
            p95_ms: 570.0,
            max_ms: 1_000.0,
        };
        let faults = Faults::new(
            FaultSet {
                latency,
                ..FaultSet::default()
            },
            7,
        );
        let mut drawn: Vec<_> = (0..10_000).map(|_| faults.next_latency().as_millis()).collect();
        drawn.sort_unstable();
        assert!((160..180).contains(&drawn[5_000]), "median {}", drawn[5_000]);
        assert!((530..610).contains(&drawn[9_500]), "p95 {}", drawn[9_500]);
        assert_eq!(drawn.last(), Some(&1_000));
    }

    #[test]
    fn a_throttle_lets_in_so_many_per_window() {
        let throttle = Some(Throttle {
            logins: 3,
            window_ms: 1_000,
            delay_ms: 40,
        });
        let faults = Faults::new(
            FaultSet {
                throttle,
                ..FaultSet::default()
            },
            0,
        );
        let start = Instant::now();
        let at = |ms| faults.admit(start + Duration::from_millis(ms));
        assert_eq!([at(0), at(400), at(400)], [Ok(()); 3]);
        assert_eq!(at(999), Err(Duration::from_millis(40)));
        assert_eq!(at(1_000), Ok(()));
        assert!(at(1_399).is_err());
        assert_eq!([at(1_400), at(1_400)], [Ok(()); 2]);
    }

    #[test]
    fn a_limited_fault_is_used_up_and_keeps_to_its_user() {
        let faults = Faults::new(FaultSet::default(), 0);
        faults.next_logins(1, LoginFault::StartingUp);
        faults.change(|set| set.login_user = Some("app_rw".into()));
        let wanted = [LoginFault::StartingUp];
        assert_eq!(faults.meet(&[LoginFault::RefuseTls], None), None);
        assert_eq!(faults.meet(&wanted, Some("app_ro")), None);
        assert_eq!(faults.meet(&wanted, Some("app_rw")), Some(LoginFault::StartingUp));
        assert_eq!(faults.meet(&wanted, Some("app_rw")), None);
    }

    #[test]
    fn faults_read_as_json() {
        let set: FaultSet = serde_json::from_str(
            r#"{"latency":{"lognormal":{"p50_ms":170,"p95_ms":570,"max_ms":1000}},"throttle":{"logins":20},
                "login":"reset_at_password","certificate":"other_name"}"#,
        )
        .unwrap();
        assert_eq!(set.throttle.map(|throttle| throttle.window_ms), Some(1_000));
        assert_eq!(set.login, Some(LoginFault::ResetAtPassword));
        assert!(serde_json::from_str::<FaultSet>(r#"{"latncy":"none"}"#).is_err());
    }
}
