//! The credentials of this host, kept fresh in the background.
//!
//! The SDK's default chain finds them (environment, profile, web identity, container, and on a bastion the instance's
//! role over IMDSv2). The cache is ours for two reasons. The SDK's own reloads seconds before the end, and a token
//! dies with the credentials that signed it. And when IMDS has nothing new, the SDK hands out expired credentials
//! with a later expiry (its "static stability"): a token signed by those is refused by RDS like any wrong password.
//! So the earliest expiry ever seen for an access key counts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::iam;

/// First pause after a failed load; doubled up to [`RETRY_MOST`].
const RETRY_LEAST: Duration = Duration::from_millis(500);
/// Longest pause between two failed loads.
const RETRY_MOST: Duration = Duration::from_secs(15);
/// Longest pause between two loads that went well: a role's credentials rotate on IMDS well before they expire, and
/// the new ones live longer.
const REFRESH_MOST: Duration = Duration::from_secs(300);
/// A load that takes longer has failed. The SDK's own limit for IMDS is 30 s for each of two calls.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// The task is gone. The SDK panics where a host has no certificates of authorities (seen with aws-config 1.13 in a container without the
/// package ca-certificates, 2026-11-26).
const GIVEN_UP: &str =
    "what loads them has ended with a panic, which the log has: does this host have ca-certificates?";

/// Credentials that can sign.
pub struct Keys {
    pub(super) credentials: Credentials,
    expires_at: Option<SystemTime>,
}

impl Keys {
    /// Credentials that are good until `expires_at`, whatever they say of themselves.
    pub fn new(credentials: Credentials, expires_at: Option<SystemTime>) -> Self {
        Self {
            credentials,
            expires_at,
        }
    }

    /// The access key's id, which is no secret.
    pub fn access_key_id(&self) -> &str {
        self.credentials.access_key_id()
    }

    /// When what they have signed is void.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.access_key_id())
    }
}

/// What the last load came to.
#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<Arc<Keys>>,
    failure: Option<Arc<str>>,
}

/// There is nothing to sign with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCredentials {
    /// None could be loaded yet.
    #[error("no AWS credentials could be loaded: {0}")]
    NotLoaded(Arc<str>),
    /// Those that there are have expired.
    #[error("the AWS credentials of this host have expired and no new ones could be loaded: {0}")]
    Expired(Arc<str>),
}

/// How a load has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// With credentials that weren't known.
    New,
    /// With those that were known: there are no newer ones yet, or IMDS is away and the SDK doesn't say so.
    Unchanged,
    /// Without any.
    Failed,
}

impl Load {
    /// All of them, so that metrics can begin at zero.
    pub const ALL: [Self; 3] = [Self::New, Self::Unchanged, Self::Failed];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// Counts for metrics.
pub trait Observer: Send + Sync {
    /// A load has ended, and the credentials that are known now expire then.
    fn loaded(&self, load: Load, expires_at: Option<SystemTime>);
}

/// The current credentials, shared by all threads.
#[derive(Clone, Debug)]
pub struct CredentialCache {
    state: watch::Receiver<State>,
}

impl CredentialCache {
    /// An empty cache, and the task that fills it and keeps it fresh for as long as it is polled.
    pub fn new(observer: Arc<dyn Observer>) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, state) = watch::channel(State::default());
        (Self { state }, async move {
            let chain = DefaultCredentialsChain::builder().build().await;
            keep_fresh(&chain, &sender, &*observer).await;
        })
    }

    /// The credentials, if they are good at `now`.
    pub fn keys(&self, now: SystemTime) -> Result<Arc<Keys>, NoCredentials> {
        let state = self.state.borrow();
        let failure = || match (&state.failure, self.state.has_changed()) {
            (_, Err(_)) => GIVEN_UP.into(),
            (Some(failure), Ok(_)) => failure.clone(),
            (None, Ok(_)) => "still loading".into(),
        };
        match &state.keys {
            None => Err(NoCredentials::NotLoaded(failure())),
            Some(keys) if keys.expires_at.is_some_and(|end| end <= now) => {
                Err(NoCredentials::Expired(failure()))
            }
            Some(keys) => Ok(keys.clone()),
        }
    }

    /// Waits for the first load to end, well or not.
    pub async fn loaded(&mut self) {
        let is_loaded = |state: &State| state.keys.is_some() || state.failure.is_some();
        // An error says that nobody loads any more.
        let _ = self.state.wait_for(is_loaded).await;
    }

    /// Waits for the next load to end, well or not.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            // Nobody loads any more: the process is on its way out.
            std::future::pending::<()>().await;
        }
    }
}

async fn keep_fresh(
    provider: &impl ProvideCredentials,
    state: &watch::Sender<State>,
    observer: &dyn Observer,
) {
    let mut retry = RETRY_LEAST;
    loop {
        let loaded = tokio::time::timeout(LOAD_TIMEOUT, provider.provide_credentials()).await;
        let pause = match loaded {
            Ok(Ok(credentials)) => {
                retry = RETRY_LEAST;
                let known = state.borrow().keys.clone();
                let keys = accept(credentials, known.as_deref());
                let unchanged = known.is_some_and(|known| known.access_key_id() == keys.access_key_id());
                observer.loaded(
                    if unchanged { Load::Unchanged } else { Load::New },
                    keys.expires_at,
                );
                let pause = pause_after(&keys);
                publish(state, keys);
                pause
            }
            Ok(Err(error)) => failed(state, observer, &chain_of(&error), &mut retry),
            Err(_) => failed(state, observer, "no answer within 20 s", &mut retry),
        };
        tokio::time::sleep(pause).await;
    }
}

/// Takes over what was loaded, with the earliest expiry that is known for it.
fn accept(credentials: Credentials, known: Option<&Keys>) -> Keys {
    let expires_at = match known {
        Some(known) if known.access_key_id() == credentials.access_key_id() => {
            let earliest = [known.expires_at, credentials.expiry()]
                .into_iter()
                .flatten()
                .min();
            if earliest != credentials.expiry() {
                warn!(
                    access_key_id = credentials.access_key_id(),
                    "the same credentials came back with a later expiry: stale; keeping the earlier one"
                );
            }
            earliest
        }
        _ => credentials.expiry(),
    };
    Keys::new(credentials, expires_at)
}

fn publish(state: &watch::Sender<State>, keys: Keys) {
    state.send_modify(|state| {
        let rotated = state
            .keys
            .as_ref()
            .is_none_or(|old| old.access_key_id() != keys.access_key_id());
        if rotated {
            let lives = keys
                .expires_at
                .and_then(|end| end.duration_since(SystemTime::now()).ok());
            info!(access_key_id = keys.access_key_id(), expires_in = ?lives, "AWS credentials loaded");
        }
        *state = State {
            keys: Some(Arc::new(keys)),
            failure: None,
        };
    });
}

fn pause_after(keys: &Keys) -> Duration {
    let now = SystemTime::now();
    let Some(expiry) = keys.expires_at else {
        return REFRESH_MOST;
    };
    let due = iam::credentials_refresh_at(expiry, now, jitter());
    due.duration_since(now)
        .unwrap_or_default()
        .clamp(RETRY_LEAST, REFRESH_MOST)
}

fn failed(
    state: &watch::Sender<State>,
    observer: &dyn Observer,
    reason: &str,
    retry: &mut Duration,
) -> Duration {
    warn!(reason, retry_in = ?*retry, "AWS credentials could not be loaded");
    observer.loaded(
        Load::Failed,
        state.borrow().keys.as_ref().and_then(|keys| keys.expires_at),
    );
    state.send_modify(|state| state.failure = Some(reason.into()));
    let pause = retry.mul_f64(0.75 + jitter() / 2.0);
    *retry = (*retry * 2).min(RETRY_MOST);
    pause
}

/// The credentials that the SDK's default chain finds now; an error says why there are none.
pub async fn load() -> Result<Keys, String> {
    let chain = DefaultCredentialsChain::builder().build().await;
    match tokio::time::timeout(LOAD_TIMEOUT, chain.provide_credentials()).await {
        Ok(Ok(credentials)) => {
            let expiry = credentials.expiry();
            Ok(Keys::new(credentials, expiry))
        }
        Ok(Err(error)) => Err(chain_of(&error)),
        Err(_) => Err("no answer within 20 s".to_owned()),
    }
}

/// A number from 0 to 1, different in each process and at each call, for pauses between calls of AWS.
pub fn jitter() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the pauses are merely the same everywhere.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

/// An error and what has led to it.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What tests put into a cache.
#[cfg(test)]
pub struct HeldKeys(watch::Sender<State>);

#[cfg(test)]
impl CredentialCache {
    /// A cache that holds what a test says.
    pub fn held() -> (Self, HeldKeys) {
        let (sender, state) = watch::channel(State::default());
        (Self { state }, HeldKeys(sender))
    }
}

#[cfg(test)]
impl HeldKeys {
    /// A load has brought these.
    pub fn set(&self, id: &str, expires_at: SystemTime) {
        let credentials = Credentials::new(id, "secret", None, Some(expires_at), "test");
        publish(&self.0, Keys::new(credentials, Some(expires_at)));
    }

    /// There are none any more.
    pub fn lose(&self) {
        self.0.send_replace(State::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, expires_in: u64) -> Credentials {
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(expires_in);
        Credentials::new(id, "secret", None, Some(expiry), "test")
    }

    #[test]
    fn stale_credentials_keep_their_first_expiry() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let first = accept(credentials("A", 100), None);
        assert_eq!(first.expires_at(), at(100));
        let stale = accept(credentials("A", 900), Some(&first));
        assert_eq!(stale.expires_at(), at(100), "the SDK's extension isn't believed");
        let rotated = accept(credentials("B", 900), Some(&stale));
        assert_eq!(rotated.expires_at(), at(900));
    }

    struct Nobody;

    impl Observer for Nobody {
        fn loaded(&self, _: Load, _: Option<SystemTime>) {}
    }

    #[test]
    fn pauses_between_failed_loads_grow_up_to_a_bound() {
        let (sender, _state) = watch::channel(State::default());
        let mut retry = RETRY_LEAST;
        for grown in [2, 4, 8] {
            let before = retry;
            let pause = failed(&sender, &Nobody, "IMDS is away", &mut retry);
            assert!(pause >= before.mul_f64(0.75) && pause <= before.mul_f64(1.25));
            assert_eq!(retry, (RETRY_LEAST * grown).min(RETRY_MOST));
        }
        for _ in 0..10 {
            failed(&sender, &Nobody, "IMDS is away", &mut retry);
        }
        assert_eq!(retry, RETRY_MOST);
    }

    #[test]
    fn a_failed_load_keeps_the_last_good_credentials() {
        let (sender, state) = watch::channel(State::default());
        let cache = CredentialCache { state };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(50);
        assert!(matches!(cache.keys(now), Err(NoCredentials::NotLoaded(_))));
        publish(&sender, accept(credentials("A", 100), None));
        failed(&sender, &Nobody, "IMDS is away", &mut RETRY_LEAST.clone());
        assert_eq!(cache.keys(now).unwrap().access_key_id(), "A");
        let later = now + Duration::from_secs(50);
        assert_eq!(
            cache.keys(later).unwrap_err(),
            NoCredentials::Expired("IMDS is away".into())
        );
    }

    #[test]
    fn a_task_that_is_gone_is_told_of() {
        let (sender, state) = watch::channel(State::default());
        let cache = CredentialCache { state };
        drop(sender);
        let error = cache.keys(SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("ca-certificates"), "{error}");
    }
}
