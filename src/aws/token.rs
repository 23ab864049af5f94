//! Signing of RDS IAM tokens: a presigned GET for `rds-db`, without its scheme (RDS User Guide, "Connecting using
//! IAM authentication"; `aws_sdk_rds::auth_token` 1.159). The SDK's generator isn't used: it panics on a user name
//! with a space, lets one with `&` smuggle a second `DBUser`, and signs for us-east-1 when no region is known.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign as sign_request,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use zeroize::Zeroizing;

use super::credentials::Keys;
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
    #[error("cannot sign the token: {0}")]
    Signing(String),
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
    let failed = |error: &dyn std::fmt::Display| SignError::Signing(error.to_string());
    let url = format!(
        "https://{host}:{port}/?Action=connect&DBUser={}",
        iam::encode_db_user(user)?
    );
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(TOKEN_LIFETIME);
    settings.signature_location = SignatureLocation::QueryParams;
    let identity: Identity = keys.credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("rds-db")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let mut request = http::Request::get(&url)
        .body(())
        .map_err(|error| failed(&error))?;
    let signable = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::empty())
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign_request(signable, &parameters)
        .map_err(|error| failed(&error))?
        .into_parts();
    instructions.apply_to_request_http1x(&mut request);
    let signed = Zeroizing::new(request.uri().to_string());
    let text = signed
        .strip_prefix("https://")
        .ok_or_else(|| failed(&"no https URL"))?;
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
