//! Who this host is to AWS, and what time it is there: GetCallerIdentity, which needs no permission (STS API Reference).

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, HOST};
use http::{Request, Uri};
use http_body_util::Full;

use super::credentials::Keys;
use super::date::date;
use super::https::{Https, endpoint};
use super::presign::{Scope, presign};
use super::sts::{NotVouched, read};
use crate::identity::sts::sts_host;

/// How long the signature is good. STS takes one for 15 minutes whatever it says (`pkg/token/token.go` of aws-iam-authenticator).
const LIFETIME: Duration = Duration::from_secs(900);

/// STS's answer.
#[derive(Debug)]
pub struct Answered {
    /// When it was given, by STS's clock.
    pub date: Option<SystemTime>,
    /// The ARN behind the credentials; an error says how STS refuses them.
    pub arn: Result<String, String>,
}

/// Asks the STS of `region` whose `keys` these are; an error says why there is no answer.
pub async fn caller(keys: &Keys, region: &str) -> Result<Answered, String> {
    let host = sts_host(region);
    let real = format!("https://{host}");
    let url = format!("{real}/?Action=GetCallerIdentity&Version=2011-06-15");
    let scope = Scope {
        service: "sts",
        region,
        lifetime: LIFETIME,
    };
    let signed = presign(keys, &url, &[], &scope, SystemTime::now()).map_err(|error| error.to_string())?;
    let asked = endpoint("STS").map_err(|error| error.to_string())?;
    let path = signed.strip_prefix(&real).unwrap_or(&signed);
    let url = format!("{}{path}", asked.as_deref().unwrap_or(&real));
    let request = url
        .parse::<Uri>()
        .map_err(http::Error::from)
        .and_then(|url| {
            Request::get(url)
                .header(HOST, &host)
                .header(ACCEPT, "application/json")
                .body(Full::default())
        })
        .map_err(|error| error.to_string())?;
    let https = Https::new().map_err(|error| error.to_string())?;
    let answer = https.send(request).await?;
    let date = date(answer.headers());
    let arn = match read(answer.status(), answer.body()) {
        Err(NotVouched::Unavailable(reason)) if date.is_none() => return Err(reason),
        Err(NotVouched::Refused(code) | NotVouched::Unavailable(code)) => Err(code),
        read => read.map_err(|error| error.to_string()),
    };
    Ok(Answered { date, arn })
}
