//! A look at the instance metadata service, for `postern check`. The gateway itself leaves it to the SDK, which doesn't tell a service
//! that doesn't answer from an instance without a role.
//!
//! Version 2 only: a session token by PUT, then GETs with it (EC2 User Guide, "Use the Instance Metadata Service").

use std::time::{Duration, SystemTime};

use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::date::date;
use super::https::Https;

/// How long each of the requests may take. The SDK gives it 1 s (`imds/client.rs` of aws-config 1.13), four times.
const PATIENCE: Duration = Duration::from_secs(2);

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// What the service says of this host.
#[derive(Debug)]
pub struct Metadata {
    /// The instance's id.
    pub instance: String,
    /// The role of its instance profile, if it has one.
    pub role: Option<Role>,
    /// What time it is by its clock.
    pub date: Option<SystemTime>,
}

/// A role, and what was last handed out for it.
#[derive(Debug)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// The access key that is handed out, which is no secret.
    pub access_key_id: Option<String>,
    /// When the credentials that are handed out for it expire, as they say themselves; the SDK's own answer may be later (its "static
    /// stability").
    pub expires_at: Option<SystemTime>,
}

/// The service can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum NoMetadata {
    /// It is switched off by the environment.
    #[error("AWS_EC2_METADATA_DISABLED is set")]
    Disabled,
    /// There is no answer.
    #[error("{0}")]
    Unreachable(String),
    /// There is one, but not to the question.
    #[error("it answers {status} to {what}")]
    Refused {
        /// How it answers.
        status: StatusCode,
        /// What it was asked for.
        what: &'static str,
    },
}

/// What isn't secret of what the service hands out. All else stays unread.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HandedOut {
    access_key_id: Option<String>,
    expiration: Option<String>,
}

/// Where the service is (AWS SDKs Reference Guide, "IMDS credential provider").
pub fn address() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let is_ipv6 = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
        .is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    let usual = if is_ipv6 {
        "http://[fd00:ec2::254]"
    } else {
        "http://169.254.169.254"
    };
    let address = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| usual.to_owned());
    address.trim_end_matches('/').to_owned()
}

/// Asks it.
pub async fn look() -> Result<Metadata, NoMetadata> {
    let is_off =
        std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|text| text.eq_ignore_ascii_case("true"));
    if is_off {
        return Err(NoMetadata::Disabled);
    }
    let https = Https::new().map_err(|error| NoMetadata::Unreachable(error.to_string()))?;
    let address = address();
    let request = Request::put(format!("{address}/latest/api/token")).header(TTL_HEADER, "60");
    let answer = send(&https, request).await?;
    let token = match answer.status() {
        StatusCode::OK => String::from_utf8_lossy(answer.body()).into_owned(),
        status => {
            return Err(NoMetadata::Refused {
                status,
                what: "a request for a session token",
            });
        }
    };
    let date = date(answer.headers());
    let get = async |path: &str| {
        let request = Request::get(format!("{address}/latest/meta-data/{path}")).header(TOKEN_HEADER, &token);
        send(&https, request).await
    };
    let refused = |status, what| Err(NoMetadata::Refused { status, what });
    let answer = get("instance-id").await?;
    if answer.status() != StatusCode::OK {
        return refused(answer.status(), "a request with that token");
    }
    let instance = String::from_utf8_lossy(answer.body()).into_owned();
    let answer = get("iam/security-credentials/").await?;
    let role = match answer.status() {
        StatusCode::OK => {
            let name = String::from_utf8_lossy(answer.body()).trim().to_owned();
            let answer = get(&format!("iam/security-credentials/{name}")).await?;
            let handed_out: HandedOut = serde_json::from_slice(answer.body()).unwrap_or_default();
            let expiration = handed_out.expiration;
            Some(Role {
                name,
                access_key_id: handed_out.access_key_id,
                expires_at: expiration.and_then(|text| humantime::parse_rfc3339(&text).ok()),
            })
        }
        StatusCode::NOT_FOUND => None,
        status => return refused(status, "a request for its role"),
    };
    Ok(Metadata { instance, role, date })
}

async fn send(https: &Https, request: http::request::Builder) -> Result<http::Response<Bytes>, NoMetadata> {
    let request = request
        .body(Full::default())
        .map_err(|error| NoMetadata::Unreachable(error.to_string()))?;
    match timeout(PATIENCE, https.send(request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(reason)) => Err(NoMetadata::Unreachable(reason)),
        Err(_) => Err(NoMetadata::Unreachable(format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}
