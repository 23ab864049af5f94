//! The access keys of the lab's AWS account: which there are, whose they are, until when they are valid.
//!
//! The instance role's keys are temporary and are renewed while the metadata service serves them. Other
//! principals' keys can be added. Nothing here checks a signature.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;

/// The account all of the lab's principals are in.
pub const ACCOUNT: &str = "123456789012";
/// The instance role's name.
pub const ROLE: &str = "postern-gateway";
/// The instance the metadata service speaks for.
pub const INSTANCE_ID: &str = "i-0123456789abcdef0";

/// One access key.
#[derive(Debug, Clone)]
pub struct Key {
    /// `ASIA…` for temporary keys, `AKIA…` for others.
    pub access_key_id: String,
    /// The secret that signs.
    pub secret: String,
    /// Must accompany whatever a temporary key signs.
    pub session_token: Option<String>,
    /// When a temporary key stops being valid.
    pub expires: Option<SystemTime>,
    /// Whether it was withdrawn before that.
    pub revoked: bool,
    /// Whose key it is.
    pub arn: String,
}

impl Key {
    /// A fresh random key. With `lifetime` it is a temporary one with a session token.
    pub(crate) fn generate(arn: &str, lifetime: Option<(SystemTime, Duration)>) -> anyhow::Result<Self> {
        let prefix = if lifetime.is_some() { "ASIA" } else { "AKIA" };
        let id: String = random(16)?
            .iter()
            .filter_map(|byte| ID_ALPHABET.get(usize::from(byte % 32)))
            .collect();
        let session_token = match lifetime {
            // About as long as real ones, and with the characters that need percent-encoding.
            Some(_) => Some(format!(
                "IQoJ+/{}==",
                base64::engine::general_purpose::STANDARD.encode(random(900)?)
            )),
            None => None,
        };
        Ok(Self {
            access_key_id: format!("{prefix}{id}"),
            secret: base64::engine::general_purpose::STANDARD.encode(random(30)?),
            session_token,
            expires: lifetime.map(|(now, lifetime)| now + lifetime),
            revoked: false,
            arn: arn.to_owned(),
        })
    }
}

/// All keys, and which of them the instance role has now.
#[derive(Debug)]
pub(crate) struct KeyRing {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: HashMap<String, Key>,
    current: String,
    lifetime: Duration,
    renews: bool,
}

impl KeyRing {
    pub(crate) fn new(now: SystemTime, lifetime: Duration) -> anyhow::Result<Self> {
        let key = Key::generate(&role_arn(), Some((now, lifetime)))?;
        let current = key.access_key_id.clone();
        let keys = HashMap::from([(current.clone(), key)]);
        Ok(Self {
            state: Mutex::new(State {
                keys,
                current,
                lifetime,
                renews: true,
            }),
        })
    }

    pub(crate) fn find(&self, access_key_id: &str) -> Option<Key> {
        self.lock().keys.get(access_key_id).cloned()
    }

    /// The role's key as it is, without renewing it.
    pub(crate) fn current(&self) -> anyhow::Result<Key> {
        let state = self.lock();
        state
            .keys
            .get(&state.current)
            .cloned()
            .context("the role has no key")
    }

    /// What the metadata service answers: the role's key, renewed first when it is about to expire.
    pub(crate) fn served(&self, now: SystemTime) -> anyhow::Result<Key> {
        let (key, lifetime, renews) = {
            let state = self.lock();
            let key = state
                .keys
                .get(&state.current)
                .cloned()
                .context("the role has no key")?;
            (key, state.lifetime, state.renews)
        };
        let lead = RENEWAL_LEAD.min(lifetime / 4);
        if renews && key.expires.is_some_and(|expires| expires <= now + lead) {
            self.rotate(now)
        } else {
            Ok(key)
        }
    }

    /// Gives the role a new key. The old one stays valid until it expires.
    pub(crate) fn rotate(&self, now: SystemTime) -> anyhow::Result<Key> {
        let mut state = self.lock();
        let key = Key::generate(&role_arn(), Some((now, state.lifetime)))?;
        state.current.clone_from(&key.access_key_id);
        state.keys.insert(key.access_key_id.clone(), key.clone());
        Ok(key)
    }

    /// Withdraws a key, or with `None` every key that the role had until now.
    pub(crate) fn revoke(&self, access_key_id: Option<&str>) {
        let mut state = self.lock();
        let role = role_arn();
        for key in state.keys.values_mut() {
            key.revoked |= access_key_id.map_or(key.arn == role, |id| key.access_key_id == id);
        }
    }

    pub(crate) fn insert(&self, key: Key) {
        self.lock().keys.insert(key.access_key_id.clone(), key);
    }

    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        self.lock().lifetime = lifetime;
    }

    pub(crate) fn set_renews(&self, renews: bool) {
        self.lock().renews = renews;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ARN that STS reports for the instance role.
pub(crate) fn role_arn() -> String {
    format!("arn:aws:sts::{ACCOUNT}:assumed-role/{ROLE}/{INSTANCE_ID}")
}

pub(crate) fn random(length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).context("no random bytes")?;
    Ok(bytes)
}

/// EC2 serves new credentials at least five minutes before the old ones expire; of short-lived ones, a quarter.
const RENEWAL_LEAD: Duration = Duration::from_secs(300);
const ID_ALPHABET: [char; 32] = [
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U',
    'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
];
