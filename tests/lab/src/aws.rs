//! The AWS side on one loopback HTTP server: the instance metadata service, the STS, RDS and SSM calls that the
//! gateway makes, and the lab's own control interface.
//!
//! It speaks as much of each protocol as the real SDK needs. Requests to STS, RDS and SSM must be signed by a key of
//! the lab's account; [`authorization`] checks that.

mod authorization;
mod control;
mod image;
mod imds;
mod rds;
mod ssm;
mod sts;
mod xml;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Shared;
use crate::clock::http_date;
use crate::sigv4::parse_query;

pub use image::ImageModel;
pub use imds::Imds;
pub use rds::{Cluster, Instance, RdsModel};
pub use ssm::SsmSession;

pub(crate) use imds::ImdsState;

use authorization::authorise;
use xml::query_error;

/// What a part of AWS does instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwsFault {
    /// Nothing of the kind.
    #[default]
    None,
    /// Closes the connection.
    Down,
    /// Answers with this HTTP status.
    Status(u16),
    /// Answers after so many milliseconds.
    SlowMs(u64),
    /// The metadata service answers 401 whatever the token; the others refuse as if no policy allowed the call,
    /// GetCallerIdentity excepted, which takes none.
    Unauthorized,
    /// Refuses for being called too often.
    Throttled,
}

/// The state of everything that is reached by HTTP.
#[derive(Debug)]
pub(crate) struct AwsState {
    pub(crate) imds: Mutex<ImdsState>,
    pub(crate) rds: Mutex<RdsModel>,
    pub(crate) sessions: Mutex<Vec<SsmSession>>,
    pub(crate) image: Mutex<ImageModel>,
    pub(crate) fault: Mutex<AwsFault>,
    requests: Mutex<BTreeMap<String, u64>>,
}

impl AwsState {
    pub(crate) fn new(rds: RdsModel) -> Self {
        Self {
            imds: Mutex::default(),
            rds: Mutex::new(rds),
            sessions: Mutex::default(),
            image: Mutex::default(),
            fault: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    /// How often each thing was asked for.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        lock(&self.requests).clone()
    }

    fn count(&self, name: &str) {
        *lock(&self.requests).entry(name.to_owned()).or_default() += 1;
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answer = Response<Full<Bytes>>;

/// The connection is closed without an answer.
#[derive(Debug)]
struct HungUp;

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for HungUp {}

impl From<Infallible> for HungUp {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Serves until it is dropped.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        // An error here is a client that went away, or one that was hung up on.
        tokio::spawn(async move {
            http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .await
                .ok()
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, HungUp> {
    let mut answer = route(&shared, request).await?;
    if let Ok(date) = http_date(shared.clock.now()).parse() {
        answer.headers_mut().insert(DATE, date);
    }
    Ok(answer)
}

async fn route(shared: &Shared, request: Request<Incoming>) -> Result<Answer, HungUp> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|_| HungUp)?
        .to_bytes();
    let path = parts.uri.path();
    if path.starts_with("/lab/") {
        return Ok(control::answer(shared, &parts, &body));
    }
    if path.starts_with("/latest/") {
        return imds::answer(shared, &parts).await;
    }
    api(shared, &parts, &body).await
}

/// A call of STS, RDS or SSM.
async fn api(shared: &Shared, parts: &Parts, body: &[u8]) -> Result<Answer, HungUp> {
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let form = match parts.method {
        Method::GET => parts.uri.query().unwrap_or_default().to_owned(),
        _ => String::from_utf8_lossy(body).replace('+', "%20"),
    };
    let form: BTreeMap<_, _> = parse_query(&form).unwrap_or_default().into_iter().collect();
    let action = match target {
        Some(target) => target.strip_prefix("AmazonSSM.").unwrap_or(target),
        None => form.get("Action").map_or("", String::as_str),
    };
    shared.aws.count(action);
    let is_json = target.is_some();
    let fault = *lock(&shared.aws.fault);
    // GetCallerIdentity takes no permission, and no policy can deny it (STS API Reference).
    let is_free = action == "GetCallerIdentity" && fault == AwsFault::Unauthorized;
    if !is_free && let Some(answer) = meet(fault, is_json).await? {
        return Ok(answer);
    }
    let speaks_json = parts
        .headers
        .get(ACCEPT)
        .is_some_and(|accept| accept == "application/json");
    let caller = match authorise(shared, parts, body) {
        Ok(caller) => caller,
        Err(refusal) if speaks_json && action == "GetCallerIdentity" => {
            return Ok(sts::refuse(refusal));
        }
        Err(refusal) => return Ok(authorization::refuse(refusal, is_json)),
    };
    let region = &shared.endpoint.region;
    Ok(match (caller.service.as_str(), action) {
        ("sts", "GetCallerIdentity") => sts::caller_identity(&caller.key, speaks_json),
        ("rds", "DescribeDBInstances") => rds::describe_instances(&lock(&shared.aws.rds), region, &form),
        ("rds", "DescribeDBClusters") => rds::describe_clusters(&lock(&shared.aws.rds), region, &form),
        ("ssm", "GetParameter") => image::parameter(&lock(&shared.aws.image), body),
        ("autoscaling", "CompleteLifecycleAction") => image::complete(&mut lock(&shared.aws.image), &form),
        ("ssm", "DescribeSessions") => ssm::describe_sessions(&lock(&shared.aws.sessions), body),
        _ => error(
            StatusCode::BAD_REQUEST,
            "InvalidAction",
            "the lab doesn't know this call",
            is_json,
        ),
    })
}

/// What a fault makes of a call; `None` lets it go on.
async fn meet(fault: AwsFault, is_json: bool) -> Result<Option<Answer>, HungUp> {
    match fault {
        AwsFault::None => Ok(None),
        AwsFault::Down => Err(HungUp),
        AwsFault::SlowMs(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(None)
        }
        AwsFault::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(Some(error(
                status,
                "InternalFailure",
                "a commanded fault",
                is_json,
            )))
        }
        AwsFault::Unauthorized => {
            let (code, text) = ("AccessDenied", "User is not authorized to perform this action");
            Ok(Some(error(
                StatusCode::FORBIDDEN,
                if is_json { "AccessDeniedException" } else { code },
                text,
                is_json,
            )))
        }
        AwsFault::Throttled => {
            let code = if is_json {
                "ThrottlingException"
            } else {
                "Throttling"
            };
            Ok(Some(error(
                StatusCode::BAD_REQUEST,
                code,
                "Rate exceeded",
                is_json,
            )))
        }
    }
}

fn error(status: StatusCode, code: &str, text: &str, is_json: bool) -> Answer {
    if is_json {
        let body = serde_json::json!({ "__type": code, "message": text });
        return respond(status, "application/x-amz-json-1.1", body.to_string());
    }
    query_error(status, code, text)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    answer
}

const MAX_BODY_BYTES: usize = 1 << 20;
