//! Requests that are signed by their query and sent by somebody else (IAM User Guide, "Signature Version 4", query string).

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign as sign_request,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use zeroize::Zeroizing;

use super::credentials::Keys;

/// The signer refused the request.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign: {0}")]
pub struct SignError(String);

/// What a signature is good for.
pub(super) struct Scope<'a> {
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    pub(super) lifetime: Duration,
}

/// The URL of a GET of `url` with these `headers`, signed at the time `now`.
pub(super) fn presign(
    keys: &Keys,
    url: &str,
    headers: &[(&str, &str)],
    scope: &Scope<'_>,
    now: SystemTime,
) -> Result<Zeroizing<String>, SignError> {
    let failed = |error: &dyn std::fmt::Display| SignError(error.to_string());
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(scope.lifetime);
    settings.signature_location = SignatureLocation::QueryParams;
    let identity: Identity = keys.credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let mut request = http::Request::get(url).body(()).map_err(|error| failed(&error))?;
    let signable = SignableRequest::new("GET", url, headers.iter().copied(), SignableBody::empty())
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign_request(signable, &parameters)
        .map_err(|error| failed(&error))?
        .into_parts();
    instructions.apply_to_request_http1x(&mut request);
    Ok(Zeroizing::new(request.uri().to_string()))
}
