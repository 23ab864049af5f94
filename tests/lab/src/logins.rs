//! The record of every login attempt, which tests judge login rates and token handling by.
//!
//! A token itself is never kept: only the start of its SHA-256, and what it says about itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use crate::clock::iso8601;
use crate::faults::LoginFault;
use crate::keys::KeyRing;
use crate::sigv4::sha256_hex;
use crate::token::{Claims, Refusal};

/// How a login attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Not decided yet, or the client went away first.
    Pending,
    /// Let in.
    Accepted,
    /// The token was refused, for this reason.
    Refused(Refusal),
    /// Above the limit of logins.
    Throttled,
    /// A commanded fault ended it.
    Fault(LoginFault),
    /// Refused because the connection had no TLS.
    NoTls,
    /// Not a member of `rds_iam`: left to the server's SCRAM, whose verdict isn't known here.
    LeftToServer,
    /// The server behind the front refused it, or the client's message was malformed.
    Failed,
}

/// One login attempt: one startup message that arrived.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LoginAttempt {
    /// When the password arrived, or the startup message, if no password did.
    #[serde(skip)]
    pub at: Instant,
    /// The same by the lab's clock.
    #[serde(serialize_with = "as_iso8601")]
    pub wall: SystemTime,
    /// The user of the startup message.
    pub user: String,
    /// Its database.
    pub database: String,
    /// What came as the password, if one came.
    pub token: Option<TokenFacts>,
    /// Whether the password came without TLS.
    pub in_clear: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// From `at` to the answer.
    #[serde(serialize_with = "as_seconds")]
    pub latency: Duration,
}

/// What is remembered of a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenFacts {
    /// The first 16 hex digits of its SHA-256.
    pub sha256: String,
    /// When it says it was signed; none if it isn't a token.
    #[serde(serialize_with = "as_optional_iso8601")]
    pub signed_at: Option<SystemTime>,
    /// The access key it names.
    pub access_key_id: Option<String>,
    /// When that key expires, if there is such a key.
    #[serde(serialize_with = "as_optional_iso8601")]
    pub key_expires: Option<SystemTime>,
}

impl TokenFacts {
    /// What a password says about itself, whether or not it is true.
    pub(crate) fn of(password: &str, keys: &KeyRing) -> Self {
        let claims = Claims::parse(password).ok();
        let key = claims
            .as_ref()
            .and_then(|claims| keys.find(&claims.access_key_id));
        Self {
            sha256: sha256_hex(password.as_bytes()).chars().take(16).collect(),
            signed_at: claims.as_ref().map(|claims| claims.signed_at),
            access_key_id: claims.map(|claims| claims.access_key_id),
            key_expires: key.and_then(|key| key.expires),
        }
    }
}

/// The largest number of attempts that carried a password within any second, its start included, its end not.
#[must_use]
pub fn max_logins_in_any_second(attempts: &[LoginAttempt]) -> usize {
    let mut times: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.token.is_some())
        .map(|a| a.at)
        .collect();
    times.sort_unstable();
    let within = |(index, start): (usize, &Instant)| {
        let later = times.iter().skip(index);
        later
            .take_while(|time| time.duration_since(*start) < Duration::from_secs(1))
            .count()
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// How many attempts ended so.
#[must_use]
pub fn count(attempts: &[LoginAttempt], outcome: Outcome) -> usize {
    attempts
        .iter()
        .filter(|attempt| attempt.outcome == outcome)
        .count()
}

/// Attempts in the order in which their startup messages arrived.
#[derive(Debug, Default)]
pub(crate) struct LoginLog {
    attempts: Mutex<Vec<LoginAttempt>>,
}

impl LoginLog {
    /// Adds an attempt and returns the number by which to complete it.
    pub(crate) fn begin(&self, user: &str, database: &str, wall: SystemTime) -> usize {
        let mut attempts = self.lock();
        attempts.push(LoginAttempt {
            at: Instant::now(),
            wall,
            user: user.to_owned(),
            database: database.to_owned(),
            token: None,
            in_clear: false,
            outcome: Outcome::Pending,
            latency: Duration::ZERO,
        });
        attempts.len() - 1
    }

    pub(crate) fn password(&self, number: usize, token: TokenFacts, in_clear: bool, wall: SystemTime) {
        if let Some(attempt) = self.lock().get_mut(number) {
            attempt.at = Instant::now();
            attempt.wall = wall;
            attempt.token = Some(token);
            attempt.in_clear = in_clear;
        }
    }

    pub(crate) fn end(&self, number: usize, outcome: Outcome) {
        if let Some(attempt) = self.lock().get_mut(number) {
            attempt.outcome = outcome;
            attempt.latency = attempt.at.elapsed();
        }
    }

    pub(crate) fn all(&self) -> Vec<LoginAttempt> {
        self.lock().clone()
    }

    /// Only their number: clearing the log would mix up the numbers of attempts under way.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LoginAttempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts how many of something there are now, and the most there ever were.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    pub(crate) fn enter(&self) -> Entered<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Entered(self)
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// One that is counted until this is dropped.
#[must_use]
pub(crate) struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

fn as_iso8601<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&iso8601(*time))
}

fn as_optional_iso8601<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(iso8601).serialize(serializer)
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(times_ms: &[u64]) -> Vec<LoginAttempt> {
        let start = Instant::now();
        let log = LoginLog::default();
        for _ in times_ms {
            let number = log.begin("u", "d", SystemTime::now());
            let token = TokenFacts {
                sha256: String::new(),
                signed_at: None,
                access_key_id: None,
                key_expires: None,
            };
            log.password(number, token, false, SystemTime::now());
        }
        let mut attempts = log.all();
        for (attempt, ms) in attempts.iter_mut().zip(times_ms) {
            attempt.at = start + Duration::from_millis(*ms);
        }
        attempts
    }

    #[test]
    fn the_busiest_second_is_found_wherever_it_begins() {
        assert_eq!(max_logins_in_any_second(&[]), 0);
        assert_eq!(max_logins_in_any_second(&attempts(&[0])), 1);
        assert_eq!(max_logins_in_any_second(&attempts(&[0, 1_000, 2_000])), 1);
        assert_eq!(
            max_logins_in_any_second(&attempts(&[2_100, 900, 0, 1_100, 1_899])),
            3
        );
    }
}
