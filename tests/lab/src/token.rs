//! RDS IAM tokens: what RDS checks before it lets a token in, and how to make tokens, good and bad.
//!
//! A token is a presigned URL without its scheme: `HOST:PORT/?Action=connect&DBUser=…&X-Amz-…`. The client
//! never learns why one was refused; [`Refusal`] is for the login log.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::clock::{amz_date, parse_amz_date};
use crate::keys::{Key, KeyRing};
use crate::sigv4::{CanonicalRequest, Scope, parse_query, same_signature, sha256_hex, uri_encode};

/// Why a token or a signed request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// Not `HOST:PORT/?name=value&…` in strict percent-encoding, or a part is missing.
    Malformed,
    /// A parameter appears twice.
    DuplicateParameter,
    /// `Action` isn't `connect`.
    WrongAction,
    /// The host is not the endpoint's name.
    WrongHost,
    /// The port is not the endpoint's port.
    WrongPort,
    /// `DBUser` is not the user of the startup message.
    WrongUser,
    /// Not `AWS4-HMAC-SHA256`.
    WrongAlgorithm,
    /// The credential's service or ending is wrong, or its date isn't that of `X-Amz-Date`.
    WrongScope,
    /// Signed for another region.
    WrongRegion,
    /// Signed headers other than exactly those expected.
    WrongSignedHeaders,
    /// Claims to be valid for more than 900 s.
    ExpiresTooLong,
    /// Older than it may be.
    TooOld,
    /// Signed more than five minutes from now.
    FromTheFuture,
    /// No such access key.
    UnknownKey,
    /// The session token is missing, superfluous or another key's.
    WrongSessionToken,
    /// The signing key has expired.
    KeyExpired,
    /// The signing key was revoked.
    KeyRevoked,
    /// The signature isn't that of this text under this key.
    BadSignature,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::DuplicateParameter => "a parameter appears twice",
            Self::WrongAction => "Action is not connect",
            Self::WrongHost => "signed for another host",
            Self::WrongPort => "signed for another port",
            Self::WrongUser => "signed for another user",
            Self::WrongAlgorithm => "unknown algorithm",
            Self::WrongScope => "wrong credential scope",
            Self::WrongRegion => "signed for another region",
            Self::WrongSignedHeaders => "wrong signed headers",
            Self::ExpiresTooLong => "valid for too long",
            Self::TooOld => "too old",
            Self::FromTheFuture => "signed in the future",
            Self::UnknownKey => "unknown access key",
            Self::WrongSessionToken => "wrong session token",
            Self::KeyExpired => "the signing key has expired",
            Self::KeyRevoked => "the signing key was revoked",
            Self::BadSignature => "bad signature",
        })
    }
}

/// What tokens must be signed for.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The names it answers to, lower case.
    pub(crate) names: Vec<String>,
    pub(crate) port: u16,
    pub(crate) region: String,
}

/// What a token says, before any of it is believed.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    host: String,
    port: String,
    /// All parameters, decoded, without the signature.
    query: Vec<(String, String)>,
    values: HashMap<String, String>,
    pub(crate) access_key_id: String,
    date: String,
    region: String,
    service: String,
    ending: String,
    pub(crate) signed_at: SystemTime,
    expires: Duration,
    signature: String,
}

impl Claims {
    /// Takes a token apart.
    pub(crate) fn parse(token: &str) -> Result<Self, Refusal> {
        let (authority, query) = token.split_once("/?").ok_or(Refusal::Malformed)?;
        let (host, port) = authority.rsplit_once(':').ok_or(Refusal::Malformed)?;
        let mut query = parse_query(query).ok_or(Refusal::Malformed)?;
        let mut values = HashMap::new();
        for (name, value) in &query {
            if values.insert(name.clone(), value.clone()).is_some() {
                return Err(Refusal::DuplicateParameter);
            }
        }
        query.retain(|(name, _)| name != "X-Amz-Signature");
        let value = |name: &str| values.get(name).ok_or(Refusal::Malformed);
        let credential: Vec<_> = value("X-Amz-Credential")?.split('/').map(str::to_owned).collect();
        let [access_key_id, date, region, service, ending] =
            <[String; 5]>::try_from(credential).map_err(|_| Refusal::Malformed)?;
        let expires = value("X-Amz-Expires")?;
        if expires.is_empty() || !expires.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.to_owned(),
            access_key_id,
            date,
            region,
            service,
            ending,
            signed_at: parse_amz_date(value("X-Amz-Date")?).ok_or(Refusal::Malformed)?,
            expires: Duration::from_secs(expires.parse().unwrap_or(u64::MAX)),
            signature: value("X-Amz-Signature")?.clone(),
            query,
            values,
        })
    }

    /// Everything RDS checks. `user` is the one of the startup message.
    pub(crate) fn check(
        &self,
        user: &str,
        endpoint: &Endpoint,
        keys: &KeyRing,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        self.check_target(user, endpoint)?;
        let key = keys.find(&self.access_key_id).ok_or(Refusal::UnknownKey)?;
        check_session_token(&key, self.values.get("X-Amz-Security-Token").map(String::as_str))?;
        if !same_signature(&self.expected_signature(&key.secret), &self.signature) {
            return Err(Refusal::BadSignature);
        }
        if self.expires > MAX_AGE {
            return Err(Refusal::ExpiresTooLong);
        }
        check_age(self.signed_at, self.expires, now)?;
        check_validity(&key, now)
    }

    fn check_target(&self, user: &str, endpoint: &Endpoint) -> Result<(), Refusal> {
        let host = self.host.to_ascii_lowercase();
        let value = |name: &str| self.values.get(name).map_or("", String::as_str);
        let checks = [
            (value("Action") == "connect", Refusal::WrongAction),
            (endpoint.names.contains(&host), Refusal::WrongHost),
            (self.port == endpoint.port.to_string(), Refusal::WrongPort),
            (!user.is_empty() && value("DBUser") == user, Refusal::WrongUser),
            (
                value("X-Amz-Algorithm") == "AWS4-HMAC-SHA256",
                Refusal::WrongAlgorithm,
            ),
            (
                self.service == SERVICE && self.ending == "aws4_request",
                Refusal::WrongScope,
            ),
            (
                amz_date(self.signed_at).starts_with(&format!("{}T", self.date)),
                Refusal::WrongScope,
            ),
            (self.region == endpoint.region, Refusal::WrongRegion),
            (
                value("X-Amz-SignedHeaders") == "host",
                Refusal::WrongSignedHeaders,
            ),
        ];
        checks
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, refusal)| Err(*refusal))
    }

    fn expected_signature(&self, secret: &str) -> String {
        let scope = Scope {
            date: self.date.clone(),
            region: self.region.clone(),
            service: self.service.clone(),
            amz_date: amz_date(self.signed_at),
        };
        sign(&self.host, &self.port, &self.query, secret, &scope)
    }
}

/// Refuses a session token that isn't the key's.
pub(crate) fn check_session_token(key: &Key, presented: Option<&str>) -> Result<(), Refusal> {
    if key.session_token.as_deref() == presented {
        Ok(())
    } else {
        Err(Refusal::WrongSessionToken)
    }
}

/// Refuses what was signed longer ago than `valid_for`, or will only be signed later than clocks may differ.
pub(crate) fn check_age(signed_at: SystemTime, valid_for: Duration, now: SystemTime) -> Result<(), Refusal> {
    if signed_at > now + MAX_SKEW {
        return Err(Refusal::FromTheFuture);
    }
    if now > signed_at + valid_for {
        Err(Refusal::TooOld)
    } else {
        Ok(())
    }
}

/// Refuses keys that have expired or were revoked.
pub(crate) fn check_validity(key: &Key, now: SystemTime) -> Result<(), Refusal> {
    if key.revoked {
        return Err(Refusal::KeyRevoked);
    }
    if key.expires.is_some_and(|expires| expires <= now) {
        Err(Refusal::KeyExpired)
    } else {
        Ok(())
    }
}

/// All that goes into a token. Every field may be wrong: that is what it is for.
#[derive(Debug, Clone)]
pub struct TokenParams {
    /// Written into the token as it is; signed in lower case.
    pub host: String,
    /// The port it is for.
    pub port: u16,
    /// The database user it is for, not yet percent-encoded.
    pub user: String,
    /// The region it is for.
    pub region: String,
    /// `rds-db` in good tokens.
    pub service: String,
    /// Who signs.
    pub access_key_id: String,
    /// What signs.
    pub secret: String,
    /// Goes with temporary keys.
    pub session_token: Option<String>,
    /// `X-Amz-Date`.
    pub signed_at: SystemTime,
    /// `X-Amz-Expires`, in seconds.
    pub expires: u64,
    /// After signing, every occurrence of the first text is replaced by the second.
    pub tamper: Option<(String, String)>,
}

impl TokenParams {
    /// The token.
    #[must_use]
    pub fn mint(&self) -> String {
        let amz_date = amz_date(self.signed_at);
        let date = amz_date.get(..8).unwrap_or_default().to_owned();
        let credential = format!(
            "{}/{date}/{}/{}/aws4_request",
            self.access_key_id, self.region, self.service
        );
        let mut query: Vec<(String, String)> = [
            ("Action", "connect"),
            ("DBUser", &self.user),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &amz_date),
            ("X-Amz-Expires", &self.expires.to_string()),
            ("X-Amz-SignedHeaders", "host"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let Some(token) = &self.session_token {
            query.push(("X-Amz-Security-Token".to_owned(), token.clone()));
        }
        let scope = Scope {
            date,
            region: self.region.clone(),
            service: self.service.clone(),
            amz_date,
        };
        let signature = sign(&self.host, &self.port.to_string(), &query, &self.secret, &scope);
        query.push(("X-Amz-Signature".to_owned(), signature));
        let text: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", uri_encode(value)))
            .collect();
        let token = format!("{}:{}/?{}", self.host, self.port, text.join("&"));
        match &self.tamper {
            Some((from, to)) => token.replace(from, to),
            None => token,
        }
    }
}

fn sign(host: &str, port: &str, query: &[(String, String)], secret: &str, scope: &Scope) -> String {
    let headers = [("host".to_owned(), format!("{}:{port}", host.to_ascii_lowercase()))];
    let payload_hash = sha256_hex(b"");
    CanonicalRequest {
        method: "GET",
        path: "/",
        query,
        headers: &headers,
        payload_hash: &payload_hash,
    }
    .signature(secret, scope)
}

/// The longest a token, or any signed request, is good for.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(900);
/// How far the signer's clock may be ahead.
const MAX_SKEW: Duration = Duration::from_secs(300);
const SERVICE: &str = "rds-db";

#[cfg(test)]
mod tests;
