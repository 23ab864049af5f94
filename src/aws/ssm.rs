//! Asks Session Manager whose a session is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::credentials::{CredentialCache, chain_of};
use super::https::{Https, endpoint};
use crate::identity::ssm::{Described, Unattributed};

/// How often one question is asked.
const ATTEMPTS: u32 = 3;

/// Before the second time; longer each time.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a login waits, whatever is tried meanwhile, and by whomever.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// A session may be in use before it is listed.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// Questions under way at a time; AWS allows only so many a second.
const MAX_ASKED: usize = 16;

/// Whoever asks again so soon is told the same.
const FAILURE_KEPT: Duration = Duration::from_secs(2);

/// The id of a session that there isn't.
const NOBODYS: &str = "postern-check-00000000000000000";

/// Sessions that are remembered: whose one is never changes.
const MAX_KNOWN: usize = 10_000;

/// Asks `DescribeSessions`, once for each session.
pub struct Sessions {
    https: Https,
    credentials: CredentialCache,
    region: String,
    endpoint: Option<String>,
    runtime: Handle,
    /// Questions that may be under way.
    asking: Semaphore,
    known: Mutex<HashMap<Box<str>, Told>>,
}

/// What is said of one session, once it is.
type Told = watch::Receiver<Option<Result<Described, Unattributed>>>;

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions(of {})", self.region)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    sessions: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    session_id: String,
    owner: String,
    document_name: String,
}

/// Why there is no answer.
enum Failure {
    /// It may be otherwise next time.
    Passing(String),
    /// It won't.
    Lasting(String),
}

impl Sessions {
    /// Of this host's `region`; asks by the runtime that this is called in.
    pub fn new(region: String, credentials: CredentialCache) -> std::io::Result<Self> {
        Ok(Self {
            https: Https::new()?,
            credentials,
            region,
            endpoint: endpoint("SSM")?,
            runtime: Handle::current(),
            asking: Semaphore::new(MAX_ASKED),
            known: Mutex::default(),
        })
    }

    /// Who has started the session that is now active under this `id`, and with which document. One question is under way for each
    /// session, whoever waits for its answer, and goes on if nobody does.
    pub async fn describe(self: &Arc<Self>, id: &str) -> Result<Described, Unattributed> {
        let mut told = self.told(id);
        let described = timeout(ANSWERED_WITHIN, told.wait_for(Option::is_some)).await;
        match described {
            Ok(Ok(described)) => described.clone().unwrap_or(Err(Unattributed::NotListed)),
            Ok(Err(_)) | Err(_) => Err(Unattributed::Unavailable {
                reason: format!("no answer within {} s", ANSWERED_WITHIN.as_secs()),
            }),
        }
    }

    /// Whether it may be asked at all; an error says why not.
    pub async fn may_be_asked(&self) -> Result<(), String> {
        match self.once(NOBODYS).await {
            Ok(_) => Ok(()),
            Err(Failure::Passing(reason) | Failure::Lasting(reason)) => Err(reason),
        }
    }

    /// Where it is told what Session Manager says of that session.
    fn told(self: &Arc<Self>, id: &str) -> Told {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = known.get(id) {
            return told.clone();
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|_, told| told.borrow().is_none());
        }
        let (tells, told) = watch::channel(None);
        known.insert(id.into(), told.clone());
        let (asks, id) = (self.clone(), id.to_owned());
        self.runtime.spawn(async move {
            let answer = asks.ask(&id).await;
            let is_failed = answer.is_err();
            tells.send_replace(Some(answer));
            if is_failed {
                sleep(FAILURE_KEPT).await;
                let mut known = asks.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.remove(id.as_str());
            }
        });
        told
    }

    async fn ask(&self, id: &str) -> Result<Described, Unattributed> {
        let began = Instant::now();
        loop {
            match self.listed(id).await? {
                Some(Listed {
                    owner, document_name, ..
                }) => {
                    return Ok(Described {
                        owner,
                        document: document_name,
                    });
                }
                None if began.elapsed() > LISTED_WITHIN => return Err(Unattributed::NotListed),
                None => sleep(PAUSE).await,
            }
        }
    }

    async fn listed(&self, id: &str) -> Result<Option<Listed>, Unattributed> {
        let mut attempt = 1;
        loop {
            let reason = match self.once(id).await {
                Ok(answer) => return Ok(answer.sessions.into_iter().find(|listed| listed.session_id == id)),
                Err(Failure::Passing(_)) if attempt < ATTEMPTS => {
                    sleep(PAUSE * attempt).await;
                    attempt += 1;
                    continue;
                }
                Err(Failure::Passing(reason) | Failure::Lasting(reason)) => reason,
            };
            return Err(Unattributed::Unavailable { reason });
        }
    }

    async fn once(&self, id: &str) -> Result<Answer, Failure> {
        let _ = timeout(ANSWERED_WITHIN, self.credentials.clone().loaded()).await;
        let _one = self.asking.acquire().await;
        let request = self.request(id).map_err(Failure::Lasting)?;
        let answer = self.https.send(request).await.map_err(Failure::Passing)?;
        let (status, body) = (answer.status(), answer.body());
        if status == StatusCode::OK {
            return serde_json::from_slice(body)
                .map_err(|error| Failure::Lasting(format!("its answer can't be read: {error}")));
        }
        #[derive(Deserialize)]
        struct Error {
            #[serde(rename = "__type")]
            kind: String,
        }
        let kind =
            serde_json::from_slice(body).map_or_else(|_| "no reason".to_owned(), |error: Error| error.kind);
        let reason = format!("it answers {status}, {kind}");
        let passes = status.is_server_error() || kind.contains("Throttling");
        Err(if passes {
            Failure::Passing(reason)
        } else {
            Failure::Lasting(reason)
        })
    }

    fn request(&self, id: &str) -> Result<Request<Full<Bytes>>, String> {
        let now = SystemTime::now();
        let keys = self.credentials.keys(now).map_err(|error| error.to_string())?;
        let body = json!({ "State": "Active", "Filters": [{ "key": "SessionId", "value": id }] }).to_string();
        let domain = if self.region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        let real = format!("https://ssm.{}.{domain}", self.region);
        let url = format!("{}/", self.endpoint.as_deref().unwrap_or(&real));
        let mut request = Request::post(&url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "AmazonSSM.DescribeSessions")
            .body(Full::from(body.clone()))
            .map_err(|error| error.to_string())?;
        let identity: Identity = keys.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ssm")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let headers = request.headers().iter();
        let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new("POST", &url, headers, SignableBody::Bytes(body.as_bytes()))
            .map_err(|error| chain_of(&error))?;
        let (instructions, _) = sign(signable, &parameters)
            .map_err(|error| chain_of(&error))?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}
