//! Signing of RDS IAM tokens: a presigned GET for `rds-db`, without its scheme (RDS User Guide, "Connecting using
//! IAM authentication"; `aws_sdk_rds::auth_token` 1.159). The SDK's generator isn't used: it panics on a user name
//! with a space, lets one with `&` smuggle a second `DBUser`, and signs for us-east-1 when no region is known.

use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::credentials::Keys;
use super::presign::{Scope, presign};
use crate::iam::validity::TOKEN_LIFETIME;
use crate::iam::{self, TokenTimes};
use crate::ids::DbUser;

/// A password for one user of one endpoint.
pub struct Token {
    text: Zeroizing<String>,
    times: TokenTimes,
    access_key_id: String,
}

impl Token {
    /// The password itself.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// How long it is good.
    pub fn times(&self) -> &TokenTimes {
        &self.times
    }

    /// The key that signed it, which is no secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(signed by {})", self.access_key_id)
    }
}

/// Why a token can't be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The user's name can't be in a token.
    #[error(transparent)]
    User(#[from] iam::DbUserError),
    /// The signer refused the request.
    #[error(transparent)]
    Signing(#[from] super::presign::SignError),
}

/// Signs a token for `user` of the endpoint `host:port` in `region`, at the time `now`.
pub fn sign(
    keys: &Keys,
    host: &str,
    port: u16,
    region: &str,
    user: &DbUser,
    now: SystemTime,
) -> Result<Token, SignError> {
    let url = format!(
        "https://{host}:{port}/?Action=connect&DBUser={}",
        iam::encode_db_user(user)?
    );
    let scope = Scope {
        service: "rds-db",
        region,
        lifetime: TOKEN_LIFETIME,
    };
    let signed = presign(keys, &url, &[], &scope, now)?;
    // It was put before it above.
    let text = signed.strip_prefix("https://").unwrap_or(&signed);
    Ok(Token {
        text: Zeroizing::new(text.to_owned()),
        times: TokenTimes {
            signed_at: whole_seconds(now),
            credentials_expire: keys.expires_at(),
        },
        access_key_id: keys.access_key_id().to_owned(),
    })
}

/// As `X-Amz-Date` has it.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests;
