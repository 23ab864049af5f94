//! HTTPS to AWS, asked for by any thread and done by one.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Handle;
use tokio::time::timeout;

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
    pub(super) fn new() -> std::io::Result<Self> {
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
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(timeout(PATIENCE, async move {
            let answer = client.request(request).await.map_err(|error| chain_of(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        }));
        match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is asked in place of `host`, if the environment says so (AWS SDKs Reference Guide, "Service-specific endpoints").
pub(super) fn endpoint(service: &str) -> Option<String> {
    [&*format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
        .map(|url| url.trim_end_matches('/').to_owned())
}
