//! Who signed a request, by header or, presigned, by query.
//!
//! All headers that must be signed are demanded: `host` and every `x-amz-*` that is there.

use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request::Parts;

use super::{Answer, error};
use crate::Shared;
use crate::clock::parse_amz_date;
use crate::keys::Key;
use crate::sigv4::{CanonicalRequest, Scope, parse_query, same_signature, sha256_hex};
use crate::token::{MAX_AGE, Refusal, check_age, check_session_token, check_validity};

/// A caller whose signature was right.
pub(super) struct Caller {
    pub(super) key: Key,
    /// The service that the signature is for.
    pub(super) service: String,
}

/// A signature with all that belongs to it, taken from wherever it was.
struct Signature {
    credential: String,
    signed_headers: String,
    signature: String,
    amz_date: String,
    session_token: Option<String>,
    valid_for: Duration,
    query: Vec<(String, String)>,
    presigned: bool,
}

/// Checks a request's signature, age and key.
pub(super) fn authorise(shared: &Shared, parts: &Parts, body: &[u8]) -> Result<Caller, Refusal> {
    let signature = find_signature(parts)?;
    let credential: Vec<_> = signature.credential.split('/').collect();
    let [access_key_id, date, region, service, "aws4_request"] = credential.as_slice() else {
        return Err(Refusal::WrongScope);
    };
    if *region != shared.endpoint.region {
        return Err(Refusal::WrongRegion);
    }
    let signed_at = parse_amz_date(&signature.amz_date).ok_or(Refusal::Malformed)?;
    if !signature.amz_date.starts_with(date) {
        return Err(Refusal::WrongScope);
    }
    let key = shared.keys.find(access_key_id).ok_or(Refusal::UnknownKey)?;
    check_session_token(&key, signature.session_token.as_deref())?;
    let scope = Scope {
        date: (*date).to_owned(),
        region: (*region).to_owned(),
        service: (*service).to_owned(),
        amz_date: signature.amz_date.clone(),
    };
    let request = CanonicalRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: &signature.query,
        headers: &signed_headers(parts, &signature)?,
        payload_hash: &sha256_hex(body),
    };
    if !same_signature(&request.signature(&key.secret, &scope), &signature.signature) {
        return Err(Refusal::BadSignature);
    }
    check_age(signed_at, signature.valid_for, shared.clock.now())?;
    check_validity(&key, shared.clock.now())?;
    Ok(Caller {
        key,
        service: (*service).to_owned(),
    })
}

/// AWS's code for a refusal.
pub(super) fn code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownKey | Refusal::WrongSessionToken | Refusal::KeyRevoked => "InvalidClientTokenId",
        Refusal::KeyExpired => "ExpiredToken",
        Refusal::Malformed => "MissingAuthenticationToken",
        _ => "SignatureDoesNotMatch",
    }
}

/// AWS's words for a refusal.
pub(super) fn refuse(refusal: Refusal, is_json: bool) -> Answer {
    let code = code(refusal);
    let code = if is_json {
        format!("{code}Exception")
    } else {
        code.to_owned()
    };
    error(StatusCode::FORBIDDEN, &code, &refusal.to_string(), is_json)
}

fn find_signature(parts: &Parts) -> Result<Signature, Refusal> {
    let query = match parts.uri.query() {
        Some(query) => parse_query(query).ok_or(Refusal::Malformed)?,
        None => Vec::new(),
    };
    if let Some(authorization) = parts.headers.get(AUTHORIZATION) {
        let authorization = authorization.to_str().map_err(|_| Refusal::Malformed)?;
        return by_header(authorization, &parts.headers, query);
    }
    presigned(query)
}

fn by_header(
    authorization: &str,
    headers: &HeaderMap,
    query: Vec<(String, String)>,
) -> Result<Signature, Refusal> {
    let fields = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or(Refusal::WrongAlgorithm)?;
    let fields: HashMap<_, _> = fields
        .split(',')
        .filter_map(|field| field.trim().split_once('='))
        .collect();
    let field = |name: &str| {
        fields
            .get(name)
            .map(|value| (*value).to_owned())
            .ok_or(Refusal::Malformed)
    };
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    Ok(Signature {
        credential: field("Credential")?,
        signed_headers: field("SignedHeaders")?,
        signature: field("Signature")?,
        amz_date: header("x-amz-date").ok_or(Refusal::Malformed)?,
        session_token: header("x-amz-security-token"),
        valid_for: MAX_AGE,
        query,
        presigned: false,
    })
}

fn presigned(mut query: Vec<(String, String)>) -> Result<Signature, Refusal> {
    let mut values = HashMap::new();
    for (name, value) in &query {
        if values.insert(name.clone(), value.clone()).is_some() {
            return Err(Refusal::DuplicateParameter);
        }
    }
    let mut value = |name: &str| values.remove(name).ok_or(Refusal::Malformed);
    if value("X-Amz-Algorithm")? != "AWS4-HMAC-SHA256" {
        return Err(Refusal::WrongAlgorithm);
    }
    let signature = Signature {
        credential: value("X-Amz-Credential")?,
        signed_headers: value("X-Amz-SignedHeaders")?,
        signature: value("X-Amz-Signature")?,
        amz_date: value("X-Amz-Date")?,
        session_token: value("X-Amz-Security-Token").ok(),
        valid_for: Duration::from_secs(value("X-Amz-Expires")?.parse().map_err(|_| Refusal::Malformed)?),
        query: Vec::new(),
        presigned: true,
    };
    if signature.valid_for > MAX_AGE {
        return Err(Refusal::ExpiresTooLong);
    }
    query.retain(|(name, _)| name != "X-Amz-Signature");
    Ok(Signature { query, ..signature })
}

/// The signed headers with their values. Refuses when one is left out that has to be signed.
fn signed_headers(parts: &Parts, signature: &Signature) -> Result<Vec<(String, String)>, Refusal> {
    let names: Vec<_> = signature.signed_headers.split(';').collect();
    let must = |name: &str| name == "host" || name.starts_with("x-amz-");
    let left_out = |name: &str| must(name) && !names.contains(&name);
    if !names.contains(&"host") || parts.headers.keys().any(|name| left_out(name.as_str())) {
        return Err(Refusal::WrongSignedHeaders);
    }
    if !signature.presigned && !names.contains(&"x-amz-date") {
        return Err(Refusal::WrongSignedHeaders);
    }
    let value = |name: &&str| {
        let values: Option<Vec<_>> = parts
            .headers
            .get_all(*name)
            .iter()
            .map(|value| value.to_str().ok())
            .collect();
        let values = values
            .filter(|values| !values.is_empty())
            .ok_or(Refusal::WrongSignedHeaders)?;
        Ok(((*name).to_owned(), values.join(",")))
    };
    names.iter().map(value).collect()
}
