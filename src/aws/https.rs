//! HTTPS to AWS, asked for by any thread and done by one.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::info;

use super::credentials::chain_of;
use crate::tls;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Asks by the runtime that it was made in.
#[derive(Clone)]
pub(super) struct Https {
    runtime: Handle,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Https {
    pub(super) fn new() -> io::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::public()?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            runtime: Handle::current(),
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends a request; an error says why there is no answer. No redirection is followed.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(timeout(PATIENCE, async move {
            let answer = client.request(request).await.map_err(|error| chain_of(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?;
            Ok(Response::from_parts(head, body.to_bytes()))
        }));
        match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is asked in place of a service, if the environment says so (`AWS_ENDPOINT_URL_STS`, AWS SDKs Reference Guide, "Service-specific
/// endpoints"). Who answers there says who callers are, so it is asked over TLS, or on this host.
pub(super) fn endpoint(service: &str) -> io::Result<Option<String>> {
    let name = format!("AWS_ENDPOINT_URL_{service}");
    let Some(url) = std::env::var(&name).ok().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let url = checked(&name, &url)?;
    info!(name, url, "AWS is asked at another place");
    Ok(Some(url.to_owned()))
}

fn checked<'a>(name: &str, url: &'a str) -> io::Result<&'a str> {
    let parsed: Uri = url
        .parse()
        .map_err(|error| io::Error::other(format!("{name} is no URL: {error}")))?;
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let is_bare = parsed.path() == "/" && parsed.query().is_none() && !host.is_empty();
    if !is_bare || !(parsed.scheme_str() == Some("https") || parsed.scheme_str() == Some("http") && is_here) {
        return Err(io::Error::other(format!(
            "{name} is {url:?}; expected https://HOST[:PORT], or http:// on this host"
        )));
    }
    Ok(url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_says_who_callers_are_is_asked_over_tls_or_on_this_host() {
        for (url, expected) in [
            (
                "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com/",
                "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com",
            ),
            ("http://127.0.0.1:4566", "http://127.0.0.1:4566"),
            ("http://[::1]:4566/", "http://[::1]:4566"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(checked("NAME", url).unwrap(), expected);
        }
        for url in [
            "http://sts.example",
            "http://127.0.0.1.example",
            "sts.example",
            "/",
            "https://",
            "ftp://127.0.0.1",
            "https://sts.example/path",
            "https://sts.example/?a=b",
        ] {
            let error = checked("NAME", url).unwrap_err().to_string();
            assert!(error.starts_with("NAME is"), "{error}");
        }
    }
}
