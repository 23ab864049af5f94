//! The instance metadata service, version 2 only, as far as the SDK and the gateway ask it.
//!
//! Credentials are renewed while they are served, before they expire, unless that is switched off.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::{Answer, AwsFault, HungUp, lock, respond};
use crate::Shared;
use crate::clock::iso8601;
use crate::keys::{ACCOUNT, INSTANCE_ID, Key, ROLE, random};
use crate::sigv4::sha256_hex;

/// The service's state: the session tokens it gave out, and what it does instead of answering.
#[derive(Debug, Default)]
pub(crate) struct ImdsState {
    tokens: HashMap<String, SystemTime>,
    fault: AwsFault,
    max_token_lifetime: Option<Duration>,
    has_no_role: bool,
}

/// The handle by which the metadata service and the role's credentials are commanded.
#[derive(Debug, Clone, Copy)]
pub struct Imds<'a> {
    pub(crate) shared: &'a Shared,
}

impl Imds<'_> {
    /// What it does from now on instead of answering.
    pub fn set_fault(&self, fault: AwsFault) {
        lock(&self.shared.aws.imds).fault = fault;
    }

    /// Gives the role a new key now. The old one stays valid until it expires.
    ///
    /// # Errors
    /// When there is no randomness for a key.
    pub fn rotate(&self) -> anyhow::Result<Key> {
        self.shared.keys.rotate(self.shared.clock.now())
    }

    /// The key that the role has now.
    ///
    /// # Errors
    /// Never while the lab works.
    pub fn current_key(&self) -> anyhow::Result<Key> {
        self.shared.keys.current()
    }

    /// Withdraws one key, or with `None` all the role had until now (rotate afterwards to give it a new one).
    pub fn revoke(&self, access_key_id: Option<&str>) {
        self.shared.keys.revoke(access_key_id);
    }

    /// How long the keys that are made from now on are valid.
    pub fn set_credentials_lifetime(&self, lifetime: Duration) {
        self.shared.keys.set_lifetime(lifetime);
    }

    /// Whether the instance has a role.
    pub fn set_has_role(&self, has_role: bool) {
        lock(&self.shared.aws.imds).has_no_role = !has_role;
    }

    /// Whether it gives out new credentials before the old ones expire. If not, it serves expired ones.
    pub fn set_renews(&self, renews: bool) {
        self.shared.keys.set_renews(renews);
    }

    /// Upper limit for the life of its session tokens; none leaves it to who asks for one.
    pub fn set_max_token_lifetime(&self, lifetime: Option<Duration>) {
        lock(&self.shared.aws.imds).max_token_lifetime = lifetime;
    }

    /// Makes all its session tokens stale: they get 401 from now on.
    pub fn expire_tokens(&self) {
        lock(&self.shared.aws.imds).tokens.clear();
    }
}

pub(super) async fn answer(shared: &Shared, parts: &Parts) -> Result<Answer, HungUp> {
    let path = parts.uri.path();
    shared.aws.count(&format!("{} {path}", parts.method));
    let fault = lock(&shared.aws.imds).fault;
    match fault {
        AwsFault::None => {}
        AwsFault::Down => return Err(HungUp),
        AwsFault::SlowMs(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        AwsFault::Status(status) => {
            return Ok(plain(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                "",
            ));
        }
        AwsFault::Throttled => return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "")),
        AwsFault::Unauthorized if parts.method == Method::GET => {
            return Ok(plain(StatusCode::UNAUTHORIZED, ""));
        }
        AwsFault::Unauthorized => {}
    }
    let now = shared.clock.now();
    if path == "/latest/api/token" && parts.method == Method::PUT {
        return Ok(give_token(shared, parts, now));
    }
    let token = parts
        .headers
        .get("x-aws-ec2-metadata-token")
        .and_then(|token| token.to_str().ok());
    let known = token.and_then(|token| lock(&shared.aws.imds).tokens.get(token).copied());
    if parts.method != Method::GET || known.is_none_or(|expires| expires <= now) {
        return Ok(plain(StatusCode::UNAUTHORIZED, ""));
    }
    Ok(document(shared, path, now))
}

fn give_token(shared: &Shared, parts: &Parts, now: SystemTime) -> Answer {
    let wanted = parts
        .headers
        .get(TTL_HEADER)
        .and_then(|ttl| ttl.to_str().ok()?.parse::<u64>().ok());
    let Some(wanted) = wanted.filter(|ttl| (1..=MAX_TOKEN_SECONDS).contains(ttl)) else {
        return plain(StatusCode::BAD_REQUEST, "");
    };
    let Ok(token) = random(32) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
    };
    let token = sha256_hex(&token);
    let mut state = lock(&shared.aws.imds);
    let ttl = state
        .max_token_lifetime
        .map_or(wanted, |most| wanted.min(most.as_secs()));
    state.tokens.retain(|_, expires| *expires > now);
    state.tokens.insert(token.clone(), now + Duration::from_secs(ttl));
    let mut answer = plain(StatusCode::OK, &token);
    answer.headers_mut().insert(TTL_HEADER, ttl.into());
    answer
}

fn document(shared: &Shared, path: &str, now: SystemTime) -> Answer {
    let region = &shared.endpoint.region;
    match path.strip_prefix("/latest/").unwrap_or_default() {
        "meta-data/placement/region" => plain(StatusCode::OK, region),
        "meta-data/placement/availability-zone" => plain(StatusCode::OK, &format!("{region}a")),
        "meta-data/instance-id" => plain(StatusCode::OK, INSTANCE_ID),
        path if path.starts_with("meta-data/iam/") && lock(&shared.aws.imds).has_no_role => {
            plain(StatusCode::NOT_FOUND, "")
        }
        "meta-data/iam/security-credentials" | "meta-data/iam/security-credentials/" => {
            plain(StatusCode::OK, ROLE)
        }
        "dynamic/instance-identity/document" => {
            let document = json!({
                "accountId": ACCOUNT, "architecture": "x86_64", "availabilityZone": format!("{region}a"),
                "imageId": "ami-0123456789abcdef0", "instanceId": INSTANCE_ID, "instanceType": "t3.small",
                "privateIp": "10.0.0.10", "region": region, "version": "2017-09-30",
            });
            plain(StatusCode::OK, &document.to_string())
        }
        role if role.strip_prefix("meta-data/iam/security-credentials/") == Some(ROLE) => {
            credentials(shared, now)
        }
        _ => plain(StatusCode::NOT_FOUND, ""),
    }
}

fn credentials(shared: &Shared, now: SystemTime) -> Answer {
    let Ok(key) = shared.keys.served(now) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
    };
    let document = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": iso8601(now),
        "AccessKeyId": key.access_key_id, "SecretAccessKey": key.secret, "Token": key.session_token,
        "Expiration": key.expires.map(iso8601),
    });
    plain(StatusCode::OK, &document.to_string())
}

fn plain(status: StatusCode, text: &str) -> Answer {
    respond(status, "text/plain", text.to_owned())
}

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const MAX_TOKEN_SECONDS: u64 = 21_600;
