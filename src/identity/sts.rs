//! A proof of who is calling that goes into a password: a request to STS for the caller's own identity, signed by the caller and
//! sent by whoever is to be convinced (GetCallerIdentity needs no permission; STS API Reference). A signed header ties it to one
//! gateway and makes it good for one login.
//!
//! ```text
//! postern-v1.NONCE.BASE64URL(https://sts.REGION.amazonaws.com/?Action=GetCallerIdentity&…&X-Amz-Signature=…)
//! X-Postern-Gateway: GATEWAY NONCE
//! ```
//!
//! Nothing here asks STS: [`Proof::read`] says whether the request is one that may be sent.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// What such a password begins with.
pub const PREFIX: &str = "postern-v1.";

/// The header that is signed with the request.
pub const HEADER: &str = "x-postern-gateway";

/// How long a proof is good after it was signed. STS itself takes it for 15 minutes.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// How far the caller's clock may be ahead.
pub const AHEAD: Duration = Duration::from_secs(10);

/// The longest password that is read. Session tokens have no limit of their own (STS API Reference, "Credentials"); those of
/// assumed roles are about 1 KiB, and with encoding become twice that.
pub const MAX_BYTES: usize = 8 * 1024;

/// Characters of a nonce.
const NONCE_CHARS: std::ops::RangeInclusive<usize> = 16..=64;

/// The parameters of a presigned request (IAM User Guide, "Signature Version 4 … query string"), and whether each must be there.
const PARAMETERS: [(&str, bool); 9] = [
    ("Action", true),
    ("Version", true),
    ("X-Amz-Algorithm", true),
    ("X-Amz-Credential", true),
    ("X-Amz-Date", true),
    ("X-Amz-Expires", true),
    ("X-Amz-Security-Token", false),
    ("X-Amz-Signature", true),
    ("X-Amz-SignedHeaders", true),
];

/// What a gateway takes.
#[derive(Clone, Debug)]
pub struct Accepts {
    /// Its name, which callers sign.
    pub gateway: String,
    /// Accounts whose principals may come. Whoever has an account of his own can give his roles and users any names in it.
    pub accounts: Vec<String>,
    /// Regions whose STS it asks.
    pub regions: Vec<String>,
}

/// A request that may be sent.
pub struct Proof {
    query: Zeroizing<String>,
    /// The host that it is signed for.
    pub host: String,
    /// The value of [`HEADER`].
    pub header: String,
    /// What no other proof has.
    pub id: [u8; 32],
    /// When it was signed.
    pub signed_at: SystemTime,
}

/// Why a password is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// It isn't one at all.
    #[error("the password isn't a proof of `postern connect`")]
    NoProof,
    /// It is signed for another service than STS, or for STS in a region that isn't asked.
    #[error("the proof is for another host than the STS of a region that is accepted here")]
    OtherHost,
    /// It has parameters that it mustn't have, not all that it must, or one twice.
    #[error("the proof has other parameters than those of a presigned GetCallerIdentity")]
    OtherParameters,
    /// It asks for something else, or in another way.
    #[error("the proof is another request than a presigned GetCallerIdentity")]
    OtherRequest,
    /// It doesn't have exactly the headers signed that it must.
    #[error("the proof doesn't sign the headers host and {HEADER}, and no others")]
    OtherHeaders,
    /// It was signed too long ago.
    #[error("the proof is older than {} s", LIFETIME.as_secs())]
    Expired,
    /// It will be signed.
    #[error("the proof is from the future: one of the clocks is wrong")]
    Early,
}

impl BadProof {
    /// All metric labels.
    pub const LABELS: [&str; 7] = [
        "no_proof",
        "other_host",
        "other_parameters",
        "other_request",
        "other_headers",
        "expired",
        "early",
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoProof => "no_proof",
            Self::OtherHost => "other_host",
            Self::OtherParameters => "other_parameters",
            Self::OtherRequest => "other_request",
            Self::OtherHeaders => "other_headers",
            Self::Expired => "expired",
            Self::Early => "early",
        }
    }
}

impl Proof {
    /// The proof that is `password`, if `accepts` allows it at the time `now`.
    pub fn read(password: &str, accepts: &Accepts, now: SystemTime) -> Result<Self, BadProof> {
        let (nonce, encoded) = password
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('.'))
            .filter(|_| password.len() <= MAX_BYTES)
            .ok_or(BadProof::NoProof)?;
        let is_nonce =
            NONCE_CHARS.contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let url = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| BadProof::NoProof)?;
        let url = Zeroizing::new(String::from_utf8(url).map_err(|_| BadProof::NoProof)?);
        if !is_nonce || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadProof::NoProof);
        }
        let (host, query) = url
            .strip_prefix("https://")
            .and_then(|rest| rest.split_once("/?"))
            .ok_or(BadProof::OtherHost)?;
        let parameters = Parameters::read(query)?;
        let region = parameters.region()?;
        if !accepts.regions.iter().any(|accepted| accepted == region) || host != sts_host(region) {
            return Err(BadProof::OtherHost);
        }
        let signed_at = parameters.check()?;
        if signed_at > now + AHEAD {
            return Err(BadProof::Early);
        }
        let lifetime = parameters.expires()?.min(LIFETIME);
        if signed_at + lifetime < now {
            return Err(BadProof::Expired);
        }
        let id = digest(&SHA256, parameters.get("X-Amz-Signature").as_bytes());
        Ok(Self {
            host: host.to_owned(),
            header: header(&accepts.gateway, nonce),
            id: id.as_ref().try_into().map_err(|_| BadProof::NoProof)?,
            signed_at,
            query: Zeroizing::new(query.to_owned()),
        })
    }

    /// Path and query of the request.
    pub fn path_and_query(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("/?{}", *self.query))
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof(for {})", self.header)
    }
}

/// A nonce that no other proof has; `None` if the host has no random numbers.
pub fn nonce() -> Option<String> {
    let mut bytes = [0u8; 16];
    rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The password of the request `url`, which was signed with this `nonce`.
pub fn password(url: &str, nonce: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{PREFIX}{nonce}.{}", URL_SAFE_NO_PAD.encode(url)))
}

/// The value of [`HEADER`].
pub fn header(gateway: &str, nonce: &str) -> String {
    format!("{gateway} {nonce}")
}

/// STS in `region` (AWS General Reference, "AWS Security Token Service endpoints").
pub fn sts_host(region: &str) -> String {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!("sts.{region}.{domain}")
}

/// The parameters of a query, each as written.
struct Parameters<'a>([&'a str; PARAMETERS.len()]);

impl<'a> Parameters<'a> {
    /// All that must be there, none that mustn't, none twice.
    fn read(query: &'a str) -> Result<Self, BadProof> {
        let mut values = [None; PARAMETERS.len()];
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or(BadProof::OtherParameters)?;
            let place = PARAMETERS.iter().position(|(known, _)| *known == name);
            let slot = place.and_then(|place| values.get_mut(place));
            let slot = slot.ok_or(BadProof::OtherParameters)?;
            let is_written_out = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
            if slot.replace(value).is_some() || !value.bytes().all(is_written_out) {
                return Err(BadProof::OtherParameters);
            }
        }
        let is_complete = PARAMETERS
            .iter()
            .zip(values)
            .all(|((_, must), value)| !must || value.is_some());
        if is_complete {
            Ok(Self(values.map(Option::unwrap_or_default)))
        } else {
            Err(BadProof::OtherParameters)
        }
    }

    fn get(&self, name: &str) -> &'a str {
        let mut parameters = PARAMETERS.iter().zip(self.0);
        let found = parameters.find_map(|((known, _), value)| (*known == name).then_some(value));
        found.unwrap_or_default()
    }

    /// Key, date, region, service and end of the credential's scope.
    fn credential(&self) -> Result<[&'a str; 5], BadProof> {
        let written = self.get("X-Amz-Credential");
        let mut parts = written.split("%2F");
        let parts = std::array::from_fn(|_| parts.next().unwrap_or_default());
        let is_whole = written.matches("%2F").count() == 4 && !written.replace("%2F", "").contains('%');
        is_whole.then_some(parts).ok_or(BadProof::OtherRequest)
    }

    fn region(&self) -> Result<&'a str, BadProof> {
        let [_, _, region, service, end] = self.credential()?;
        if service == "sts" && end == "aws4_request" {
            Ok(region)
        } else {
            Err(BadProof::OtherHost)
        }
    }

    fn expires(&self) -> Result<Duration, BadProof> {
        let written = self.get("X-Amz-Expires");
        let seconds = written.parse().map_err(|_| BadProof::OtherRequest)?;
        Ok(Duration::from_secs(seconds))
    }

    /// Everything but the time and the host; when it was signed.
    fn check(&self) -> Result<SystemTime, BadProof> {
        let signature = self.get("X-Amz-Signature");
        let is_signature = signature.len() == 64
            && signature
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let is_the_request = self.get("Action") == "GetCallerIdentity"
            && self.get("Version") == "2011-06-15"
            && self.get("X-Amz-Algorithm") == "AWS4-HMAC-SHA256"
            && is_signature;
        if !is_the_request {
            return Err(BadProof::OtherRequest);
        }
        let headers = format!("host%3B{HEADER}");
        if self.get("X-Amz-SignedHeaders") != headers {
            return Err(BadProof::OtherHeaders);
        }
        let date = self.get("X-Amz-Date");
        let [_, day, ..] = self.credential()?;
        let signed_at = time(date).filter(|_| date.get(..8) == Some(day));
        signed_at.ok_or(BadProof::OtherRequest)
    }
}

/// The time that is written like `20261126T101500Z`.
fn time(written: &str) -> Option<SystemTime> {
    let number = |place: std::ops::Range<usize>| {
        let digits = written.get(place)?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        all_digits.then(|| digits.to_owned())
    };
    let is_form = written.len() == 16 && written.get(8..9) == Some("T") && written.get(15..) == Some("Z");
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    let rfc3339 = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    humantime::parse_rfc3339(&rfc3339).ok().filter(|_| is_form)
}

#[cfg(test)]
mod tests;
