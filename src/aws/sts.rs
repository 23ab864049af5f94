//! Asks STS whose signature is under a proof ([`crate::identity::sts`]), and signs proofs for callers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::credentials::Keys;
use super::https::{Https, endpoint};
use super::presign::{Scope, SignError, presign};
use crate::identity::iam::{BadArn, IamPrincipal};
use crate::identity::sts::{self, AHEAD, Accepts, HEADER, LIFETIME, Proof};

/// How long a caller waits for others.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// Questions to one region at a time; more wait. Whoever reaches the port can make the gateway ask.
const MAX_ASKED: usize = 32;

/// How long it is remembered that a proof was used: longer than it can be good.
const REMEMBERED: Duration = Duration::from_secs(2 * (LIFETIME.as_secs() + AHEAD.as_secs()));

/// Proofs that somebody has come in with or is about to, and until when that is remembered.
type Used = Arc<Mutex<HashMap<[u8; 32], Instant>>>;

/// Asks STS. Shared by all threads; the questions are asked by the thread whose runtime this was made in.
pub struct Sts {
    https: Https,
    /// What is asked in place of the host that a proof is signed for.
    endpoint: Option<String>,
    accounts: Vec<String>,
    /// When this process began. What was used before it doesn't know.
    began: SystemTime,
    used: Used,
    /// Of each host.
    asked: HashMap<String, Semaphore>,
}

/// Nobody vouches for a proof.
#[derive(Debug, thiserror::Error)]
pub enum NotVouched {
    /// Somebody came in with it before.
    #[error("the proof was used before: each is good for one connection")]
    Used,
    /// It is from before this process, which can't know whether it was used.
    #[error("the proof was signed before the gateway began, which can't know whether it was used")]
    BeforeStart,
    /// STS doesn't take it.
    #[error(
        "STS refuses the proof ({0}): it was altered, or signed for a gateway of another name, or its credentials are void"
    )]
    Refused(String),
    /// STS can't be asked.
    #[error("STS could not be asked: {0}")]
    Unavailable(String),
    /// Who signed it can't be let in.
    #[error("STS names {arn}, and {why}")]
    Arn {
        /// The ARN.
        arn: String,
        /// What is wrong with it.
        why: BadArn,
    },
    /// Who signed it is of an account that isn't accepted.
    #[error("STS names {arn}, which is of none of the accounts in identity.sts.accounts")]
    OtherAccount {
        /// The ARN.
        arn: String,
    },
}

impl NotVouched {
    /// All metric labels.
    pub const LABELS: [&str; 6] = [
        "used",
        "before_start",
        "refused",
        "unavailable",
        "other_principal",
        "other_account",
    ];

    /// What the caller may know: nothing of this host's network.
    pub fn told(&self) -> String {
        match self {
            Self::Unavailable(_) => "STS could not be asked; the proof may be tried again".to_owned(),
            reason => reason.to_string(),
        }
    }

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::BeforeStart => "before_start",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Arn { .. } => "other_principal",
            Self::OtherAccount { .. } => "other_account",
        }
    }
}

impl std::fmt::Debug for Sts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sts")
    }
}

impl Sts {
    /// Of what `accepts` says; asks by the runtime that this is called in.
    pub fn new(accepts: &Accepts) -> std::io::Result<Self> {
        let hosts = accepts.regions.iter().map(|region| sts::sts_host(region));
        Ok(Self {
            https: Https::new()?,
            endpoint: endpoint("STS")?,
            accounts: accepts.accounts.clone(),
            began: SystemTime::now(),
            used: Arc::default(),
            asked: hosts.map(|host| (host, Semaphore::new(MAX_ASKED))).collect(),
        })
    }

    /// Whose signature is under `proof`, which nobody can come in with again then. One that STS couldn't be asked about may be tried again.
    pub async fn caller(&self, proof: Proof) -> Result<IamPrincipal, NotVouched> {
        if proof.signed_at <= self.began {
            return Err(NotVouched::BeforeStart);
        }
        let mut using = Using::begin(&self.used, proof.id)?;
        // A gateway that begins later takes nothing from before its start, and so nothing that was used here.
        if let Ok(ahead) = proof.signed_at.duration_since(SystemTime::now()) {
            sleep(ahead).await;
        }
        let request = self.request(&proof).map_err(unavailable)?;
        let asked = self
            .asked
            .get(&proof.host)
            .ok_or_else(|| unavailable("no such region"))?;
        let permit = timeout(TURN_WITHIN, asked.acquire())
            .await
            .map_err(|_| unavailable("too many callers wait for it"))?;
        let answer = self.https.send(request).await.map_err(NotVouched::Unavailable)?;
        drop(permit);
        let arn = read(answer.status(), answer.body())?;
        let principal = IamPrincipal::parse(&arn).map_err(|why| NotVouched::Arn {
            arn: arn.clone(),
            why,
        })?;
        if !self.accounts.iter().any(|account| account == principal.account()) {
            return Err(NotVouched::OtherAccount { arn });
        }
        using.is_over = true;
        Ok(principal)
    }

    fn request(&self, proof: &Proof) -> http::Result<Request<Full<Bytes>>> {
        let real = format!("https://{}", proof.host);
        let base = self.endpoint.as_deref().unwrap_or(&real);
        let url = Zeroizing::new(format!("{base}{}", *proof.path_and_query()));
        Request::get(url.parse::<Uri>()?)
            .header(HOST, &proof.host)
            .header(HEADER, &proof.header)
            .header(ACCEPT, "application/json")
            .body(Full::default())
    }
}

/// A proof that somebody is about to come in with. If he doesn't, it may be used again.
struct Using {
    used: Used,
    id: [u8; 32],
    is_over: bool,
}

impl Using {
    fn begin(used: &Used, id: [u8; 32]) -> Result<Self, NotVouched> {
        let now = Instant::now();
        let mut known = used.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, until| *until > now);
        match known.entry(id) {
            Entry::Occupied(_) => Err(NotVouched::Used),
            Entry::Vacant(free) => {
                free.insert(now + REMEMBERED);
                Ok(Self {
                    used: used.clone(),
                    id,
                    is_over: false,
                })
            }
        }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        if !self.is_over {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.remove(&self.id);
        }
    }
}

/// STS's answer in JSON, which it gives to whoever accepts that.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    get_caller_identity_response: Option<Identified>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Identified {
    get_caller_identity_result: Caller,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Caller {
    arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    code: String,
}

/// The ARN in STS's answer.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<String, NotVouched> {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    let (caller, error) = answer.map_or((None, None), |answer| {
        (answer.get_caller_identity_response, answer.error)
    });
    match (status, caller, error) {
        (StatusCode::OK, Some(caller), _) => Ok(caller.get_caller_identity_result.arn),
        (StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST, _, Some(error))
            if !error.code.contains("Throttl") =>
        {
            Err(NotVouched::Refused(error.code))
        }
        (_, _, Some(error)) => Err(NotVouched::Unavailable(format!(
            "it answers {status}, {}",
            error.code
        ))),
        _ => Err(NotVouched::Unavailable(format!("it answers {status}"))),
    }
}

fn unavailable(error: impl std::fmt::Display) -> NotVouched {
    NotVouched::Unavailable(error.to_string())
}

/// Signs a proof for the gateway of this name with `keys`, and with a `nonce` that no other has.
pub fn prove(
    keys: &Keys,
    gateway: &str,
    region: &str,
    nonce: &str,
    now: SystemTime,
) -> Result<Zeroizing<String>, SignError> {
    let url = format!(
        "https://{}/?Action=GetCallerIdentity&Version=2011-06-15",
        sts::sts_host(region)
    );
    let header = sts::header(gateway, nonce);
    let scope = Scope {
        service: "sts",
        region,
        lifetime: LIFETIME,
    };
    let signed = presign(keys, &url, &[(HEADER, &header)], &scope, now)?;
    Ok(sts::password(&signed, nonce))
}
