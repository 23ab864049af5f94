//! What a server keeps of a SCRAM-SHA-256 password: enough to check a proof, not enough to make one.
//!
//! The text form is PostgreSQL's own (documentation of `pg_authid`, column `rolpassword`), so one can be
//! copied out of a database:
//! `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in base64.
//! The keys are those of RFC 5802 section 3. StoredKey doesn't let anybody in; but whoever has it and
//! sees one login can impersonate the user from then on, so it is kept out of logs and errors, and
//! wiped when it is dropped.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The size of a SHA-256 digest, and so of every key and proof: bytes.
pub(super) const KEY_LEN: usize = 32;

/// A key, a signature or a proof of SCRAM-SHA-256, wiped when dropped.
pub(super) type Key = Zeroizing<[u8; KEY_LEN]>;

/// The verifier of one user's password, or the [mock](Verifier::mock) of one.
///
/// [`Debug`](fmt::Debug) shows nothing that is secret. [`Display`](fmt::Display) writes PostgreSQL's
/// text, keys included: for the operator who makes a verifier, never for a log.
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
    genuine: bool,
}

/// What is wrong with the text of a verifier. Never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// It isn't of the form that [`Verifier`] has; perhaps it is a password.
    #[error(
        "expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as in pg_authid.rolpassword"
    )]
    Form,
    /// It is of the form that PostgreSQL calls md5.
    #[error(
        "this is an md5 hash, which SCRAM can't use; \
        set the password again with password_encryption = 'scram-sha-256'"
    )]
    Md5,
    /// The iteration count is not a number from 1 to 2147483647.
    #[error("the iteration count is not a whole number from 1 to 2147483647")]
    Iterations,
    /// The salt is not base64, or empty.
    #[error("the salt is not base64 of at least one byte")]
    Salt,
    /// StoredKey is not base64 of 32 bytes.
    #[error("StoredKey is not base64 of 32 bytes")]
    StoredKey,
    /// ServerKey is not base64 of 32 bytes.
    #[error("ServerKey is not base64 of 32 bytes")]
    ServerKey,
}

impl Verifier {
    /// The iteration count that PostgreSQL uses unless told otherwise (documentation of
    /// `scram_iterations`), and the least that RFC 7677 section 4 recommends.
    pub const DEFAULT_ITERATIONS: u32 = 4096;

    /// How much salt PostgreSQL makes for each password (`SCRAM_DEFAULT_SALT_LEN`): bytes.
    pub const SALT_LEN: usize = 16;

    /// The verifier of `password` (RFC 5802 section 3, RFC 7677).
    ///
    /// The password is normalised by SASLprep, and used as it is where that isn't possible, just as
    /// PostgreSQL and libpq do (PostgreSQL documentation, "SASL Authentication"). `salt` should be
    /// [`SALT_LEN`](Self::SALT_LEN) random bytes; `iterations` of 0 is taken for 1. Takes some
    /// milliseconds for every few thousand iterations, on purpose.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let salted = salted_password(password, salt, iterations);
        let client_key = hmac_sha256(&*salted, &[b"Client Key"]);
        Self {
            iterations,
            salt: salt.into(),
            stored_key: sha256(&*client_key),
            server_key: hmac_sha256(&*salted, &[b"Server Key"]),
            genuine: true,
        }
    }

    /// What to use for a user that there is no verifier of, so that a stranger can't find out which
    /// users exist: the exchange takes the same course and the same work, and ends like one with a wrong
    /// password, whatever the client knows.
    ///
    /// The salt is always the same for the same user and `secret`. The secret should be random and live as
    /// long as the genuine verifiers, because a salt that changes gives a mock away. So do an iteration count
    /// and a length of the salt that no genuine one has: `shapes` are those of the genuine ones, one
    /// for each, and a user is given one of them by chance, but always the same. PostgreSQL does
    /// likewise with a single iteration count (`mock_scram_secret` in `auth-scram.c`).
    pub fn mock(user: &str, secret: &[u8; 32], shapes: &[(u32, usize)]) -> Self {
        let [choice, salt, more_salt] = [&b"shape"[..], b"salt", b"more salt"]
            .map(|what| hmac_sha256(secret, &[what, b"\0", user.as_bytes()]));
        let choice = choice
            .iter()
            .take(8)
            .fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
        let place = choice
            .checked_rem(shapes.len() as u64)
            .and_then(|place| usize::try_from(place).ok());
        let (iterations, salt_len) = place
            .and_then(|place| shapes.get(place).copied())
            .unwrap_or((Self::DEFAULT_ITERATIONS, Self::SALT_LEN));
        Self {
            iterations: NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN),
            salt: salt
                .iter()
                .chain(more_salt.iter())
                .cycle()
                .copied()
                .take(salt_len)
                .collect(),
            stored_key: Key::default(),
            server_key: Key::default(),
            genuine: false,
        }
    }

    /// How often the client has to hash the password.
    pub fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// The salt, which any client that names the user is told.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(super) fn stored_key(&self) -> &[u8; KEY_LEN] {
        &self.stored_key
    }

    pub(super) fn server_key(&self) -> &[u8; KEY_LEN] {
        &self.server_key
    }

    #[cfg(test)]
    pub(super) fn into_mock(self) -> Self {
        Self {
            genuine: false,
            ..self
        }
    }

    pub(super) fn is_genuine(&self) -> bool {
        self.genuine
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        if text.starts_with("md5") && text.len() == 35 {
            return Err(VerifierError::Md5);
        }
        let parts = text.strip_prefix("SCRAM-SHA-256$").ok_or(VerifierError::Form)?;
        let (iterations, parts) = parts.split_once(':').ok_or(VerifierError::Form)?;
        let (salt, parts) = parts.split_once('$').ok_or(VerifierError::Form)?;
        let (stored_key, server_key) = parts.split_once(':').ok_or(VerifierError::Form)?;
        let salt = STANDARD.decode(salt).map_err(|_| VerifierError::Salt)?;
        if salt.is_empty() {
            return Err(VerifierError::Salt);
        }
        Ok(Self {
            iterations: parse_iterations(iterations).ok_or(VerifierError::Iterations)?,
            salt: salt.into(),
            stored_key: decode_key(stored_key.as_bytes()).ok_or(VerifierError::StoredKey)?,
            server_key: decode_key(server_key.as_bytes()).ok_or(VerifierError::ServerKey)?,
            genuine: true,
        })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = STANDARD.encode(&self.salt);
        let stored_key = Zeroizing::new(STANDARD.encode(*self.stored_key));
        let server_key = Zeroizing::new(STANDARD.encode(*self.server_key));
        write!(
            f,
            "SCRAM-SHA-256${}:{salt}${}:{}",
            self.iterations, *stored_key, *server_key
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// SaltedPassword of RFC 5802 section 3.
pub(super) fn salted_password(password: &str, salt: &[u8], iterations: NonZeroU32) -> Key {
    let prepared = match stringprep::saslprep(password) {
        Ok(prepared) if !prepared.is_empty() => prepared.into_owned(),
        _ => password.to_owned(),
    };
    let prepared = Zeroizing::new(prepared);
    let mut salted = Key::default();
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, salt, prepared.as_bytes(), &mut *salted);
    salted
}

/// HMAC-SHA-256 of `parts` one after another.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = Key::default();
    // Both are the size of a SHA-256 digest.
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> Key {
    let mut out = Key::default();
    // Both are the size of a SHA-256 digest.
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Base64 of exactly a key: padded, canonical, nothing around it.
pub(super) fn decode_key(text: &[u8]) -> Option<Key> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let key: [u8; KEY_LEN] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(key))
}

/// A count as PostgreSQL writes it: an `int` without sign.
fn parse_iterations(text: &str) -> Option<NonZeroU32> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i32 = text.parse().ok()?;
    NonZeroU32::new(number.unsigned_abs())
}

#[cfg(test)]
mod tests;
