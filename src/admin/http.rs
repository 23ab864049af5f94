//! `/metrics`, `/livez`, `/readyz`, `/startupz`. Runs on the control thread; a slow scrape holds up nobody else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::upstream::gate::Gates;
use crate::upstream::tokens::Tokens;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// What the pages are made of.
pub struct Pages {
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// The login budgets.
    pub gates: Arc<Gates>,
    /// The tokens.
    pub tokens: Arc<Tokens>,
    /// Whether clients can be served, and why not.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
}

/// The state of the process.
#[derive(Clone, Debug)]
pub struct Health {
    /// The start is over, whatever it came to.
    pub started: bool,
    /// New clients can be served.
    pub ready: bool,
    /// What is missing.
    pub reason: String,
    /// What the checks at the start have found, a line for each.
    pub report: String,
}

/// Serves `pages` on `listener` for as long as it is polled.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept an HTTP client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            debug!(%peer, "too many HTTP clients");
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let _place = place;
            let connection = answer_all(tcp, peer, pages);
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}

async fn answer_all(tcp: TcpStream, peer: SocketAddr, pages: Arc<Pages>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = served {
        debug!(%peer, %error, "an HTTP connection has failed");
    }
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return page(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        }
        match path {
            "/metrics" => {
                self.look_up();
                let mut response = page(StatusCode::OK, self.metrics.expose());
                let exposition =
                    hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response
                    .headers_mut()
                    .insert(hyper::header::CONTENT_TYPE, exposition);
                response
            }
            "/livez" => page(StatusCode::OK, "alive\n"),
            "/readyz" => {
                let Health { ready, reason, .. } = (self.health)();
                verdict(ready, "ready", &reason)
            }
            "/startupz" => {
                let Health { started, report, .. } = (self.health)();
                match started {
                    true => page(StatusCode::OK, format!("started\n{report}")),
                    false => verdict(false, "started", &report),
                }
            }
            _ => page(
                StatusCode::NOT_FOUND,
                "there are /metrics, /livez, /readyz and /startupz\n",
            ),
        }
    }

    fn look_up(&self) {
        self.metrics.ready.set(i64::from((self.health)().ready));
        let iam = &self.metrics.iam;
        for (endpoint, usage) in self.gates.usage(Instant::now()) {
            let label = &[endpoint.to_string()];
            let limit = i64::from(usage.budget.logins_per_second());
            iam.budget_limit.with_label_values(label).set(limit);
            iam.budget_queue.with_label_values(label).set(usage.queued as i64);
            iam.budget_in_flight
                .with_label_values(label)
                .set(usage.in_flight as i64);
            iam.budget_available
                .with_label_values(label)
                .set(usage.available.into());
        }
        for held in self.tokens.held() {
            let since_1970 = held.usable_until.duration_since(SystemTime::UNIX_EPOCH);
            iam.tokens_expire
                .with_label_values(&[held.endpoint.as_str(), held.user.as_str()])
                .set(since_1970.unwrap_or_default().as_secs_f64());
        }
    }
}

fn verdict(good: bool, word: &str, reason: &str) -> Response<Full<Bytes>> {
    if good {
        page(StatusCode::OK, format!("{word}\n"))
    } else {
        page(StatusCode::SERVICE_UNAVAILABLE, format!("not {word}: {reason}\n"))
    }
}

fn page(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
