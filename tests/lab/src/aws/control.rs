//! The control interface: what the library's handles do, over HTTP and in JSON, for the demo and for people.
//!
//! It is for loopback only, and asks nobody who they are.

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

use super::{Answer, AwsFault, Imds, SsmSession, lock, respond};
use crate::Shared;
use crate::clock::iso8601;
use crate::faults::FaultSet;
use crate::sigv4::parse_query;

pub(super) fn answer(shared: &Shared, parts: &Parts, body: &[u8]) -> Answer {
    let result = match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/lab/status") => Ok(status(shared)),
        (&Method::GET, "/lab/logins") => serde_json::to_value(shared.logins.all()).map_err(Into::into),
        (&Method::GET, "/lab/faults") => serde_json::to_value(shared.faults.current()).map_err(Into::into),
        (&Method::GET, "/lab/token") => return token(shared, parts.uri.query().unwrap_or_default()),
        (&Method::POST, "/lab/faults") => faults(shared, body),
        (&Method::POST, "/lab/imds") => imds(shared, body),
        (&Method::POST, "/lab/aws") => api(shared, body),
        (&Method::POST, "/lab/image") => image(shared, body),
        (&Method::POST, "/lab/clock") => clock(shared, body),
        (&Method::POST, "/lab/sessions") => sessions(shared, body),
        _ => return respond(StatusCode::NOT_FOUND, TEXT, format!("{HELP}\n")),
    };
    match result {
        Ok(value) => respond(StatusCode::OK, "application/json", format!("{value:#}\n")),
        Err(error) => respond(StatusCode::BAD_REQUEST, TEXT, format!("{error:#}\n")),
    }
}

fn status(shared: &Shared) -> Value {
    json!({
        "endpoint": shared.endpoint.names,
        "endpoint_port": shared.endpoint.port,
        "region": shared.endpoint.region,
        "dial_address": shared.front,
        "now": iso8601(shared.clock.now()),
        "clock_offset_s": shared.clock.offset(),
        "postgres": {
            "version": shared.postgres.version(),
            "socket_directory": shared.postgres.socket_directory(),
            "port": shared.postgres.port(),
        },
        "logins": shared.logins.len(),
        "open_sockets": shared.sockets.now(),
        "open_connections": shared.relays.now(),
        "peak_connections": shared.relays.peak(),
        "cancel_requests": shared.cancels.load(std::sync::atomic::Ordering::Relaxed),
        "aws_requests": shared.aws.requests(),
        "faults": shared.faults.current(),
    })
}

/// Keys that are given replace the present ones; `clear` takes all faults back first; `reset_connections` is done once.
fn faults(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let mut wanted: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
    let flag = |value: Option<Value>| value == Some(Value::Bool(true));
    let clear = flag(wanted.remove("clear"));
    let reset = flag(wanted.remove("reset_connections"));
    let base = if clear {
        FaultSet::default()
    } else {
        shared.faults.current()
    };
    let Value::Object(mut all) = serde_json::to_value(base)? else {
        anyhow::bail!("expected an object")
    };
    all.extend(wanted);
    shared.faults.set(serde_json::from_value(Value::Object(all))?);
    if reset {
        shared.faults.reset_connections();
    }
    Ok(serde_json::to_value(shared.faults.current())?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageOrders {
    /// A new version of a parameter: its name and its value.
    parameter: Option<(String, String)>,
    /// The group and the hook of a lifecycle action that begins to wait.
    waits: Option<(String, String)>,
}

fn image(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let orders: ImageOrders = serde_json::from_slice(body)?;
    let mut image = lock(&shared.aws.image);
    if let Some((name, value)) = orders.parameter {
        image.parameters.entry(name).or_default().push(value);
    }
    if let Some(waits) = orders.waits {
        image.waits = Some(waits);
        image.completed = None;
    }
    Ok(
        json!({ "parameters": image.parameters.keys().collect::<Vec<_>>(), "waits": image.waits, "completed": image.completed }),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImdsOrders {
    fault: Option<AwsFault>,
    credentials_lifetime_s: Option<u64>,
    renews: Option<bool>,
    role: Option<bool>,
    max_token_lifetime_s: Option<u64>,
    #[serde(default)]
    expire_tokens: bool,
    /// All that the role had until now.
    #[serde(default)]
    revoke: bool,
    #[serde(default)]
    rotate: bool,
}

fn imds(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let orders: ImdsOrders = serde_json::from_slice(body)?;
    let imds = Imds { shared };
    if let Some(fault) = orders.fault {
        imds.set_fault(fault);
    }
    if let Some(seconds) = orders.credentials_lifetime_s {
        imds.set_credentials_lifetime(Duration::from_secs(seconds));
    }
    if let Some(renews) = orders.renews {
        imds.set_renews(renews);
    }
    if let Some(has_role) = orders.role {
        imds.set_has_role(has_role);
    }
    if let Some(seconds) = orders.max_token_lifetime_s {
        imds.set_max_token_lifetime(Some(Duration::from_secs(seconds)));
    }
    if orders.expire_tokens {
        imds.expire_tokens();
    }
    if orders.revoke {
        imds.revoke(None);
    }
    if orders.rotate {
        imds.rotate()?;
    }
    let key = imds.current_key()?;
    Ok(
        json!({ "access_key_id": key.access_key_id, "expires": key.expires.map(iso8601), "revoked": key.revoked }),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiOrders {
    fault: Option<AwsFault>,
    /// IAM database authentication of all that RDS has.
    iam_enabled: Option<bool>,
}

fn api(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let orders: ApiOrders = serde_json::from_slice(body)?;
    if let Some(fault) = orders.fault {
        *lock(&shared.aws.fault) = fault;
    }
    if let Some(is_enabled) = orders.iam_enabled {
        lock(&shared.aws.rds).set_iam(is_enabled);
    }
    Ok(json!({ "fault": *lock(&shared.aws.fault), "iam_enabled": lock(&shared.aws.rds).takes_tokens() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockOrders {
    offset_s: i64,
}

fn clock(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let orders: ClockOrders = serde_json::from_slice(body)?;
    shared.clock.set_offset(orders.offset_s);
    Ok(json!({ "now": iso8601(shared.clock.now()), "offset_s": orders.offset_s }))
}

fn sessions(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let sessions: Vec<SsmSession> = serde_json::from_slice(body)?;
    let count = sessions.len();
    *lock(&shared.aws.sessions) = sessions;
    Ok(json!({ "sessions": count }))
}

fn token(shared: &Shared, query: &str) -> Answer {
    let pairs = parse_query(query).unwrap_or_default();
    let Some((_, user)) = pairs.iter().find(|(name, _)| name == "user") else {
        return respond(
            StatusCode::BAD_REQUEST,
            TEXT,
            "GET /lab/token?user=NAME\n".to_owned(),
        );
    };
    match shared.token_params(user) {
        Ok(params) => respond(StatusCode::OK, TEXT, params.mint()),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error:#}\n")),
    }
}

const TEXT: &str = "text/plain";
const HELP: &str = "GET /lab/status /lab/logins /lab/faults /lab/token?user=NAME\n\
    POST /lab/faults /lab/imds /lab/aws /lab/image /lab/clock /lab/sessions";
