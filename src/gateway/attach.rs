//! From an admitted client to one that has its server: the greeting, the wait for a connection, the settings.
//!
//! The greeting needs no server when the pool knows what one would report to a client with these settings. A client
//! whose settings are new to the pool is attached before it is greeted, so that a wrong one fails its login.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use super::clients::Client;
use super::error::{ClientError, waiting_notice};
use super::presence::Activity;
use super::shard::Shutdown;
use crate::net::stream::Stream;
use crate::session::parameters::Parameters;
use crate::session::settings::Settings;
use crate::session::tracker::Tracker;
use crate::upstream::connection::{Farewell, SettingsError};
use crate::upstream::pool::{Lease, ServerPool};
use crate::wire::reply;
use crate::wire::startup::CancelKey;

/// After this long a client is told that it waits.
const NOTICE_AFTER: Duration = Duration::from_secs(5);

/// Connections that may turn out to be broken before a client is told so.
const ATTEMPTS: usize = 3;

/// Why a client got no server.
#[derive(Debug)]
pub(super) enum NoServer {
    /// It is told why.
    Refused(Box<ClientError>),
    /// It is gone.
    ClientGone,
    /// Its session has to end.
    Late,
}

/// Leases a connection from `pool` for the client on `stream`, which is told when that takes long, and
/// makes its settings the client's. `ends`: when its session has to end.
pub(super) async fn attach(
    stream: &mut Stream,
    client: &Client,
    pool: &Rc<ServerPool>,
    settings: &Settings,
    ends: Option<Instant>,
) -> Result<Lease, NoServer> {
    let mut attempts = ATTEMPTS;
    loop {
        let mut lease = checked_out(stream, client, pool, ends).await?;
        attempts -= 1;
        match lease.apply(client.session, settings, false).await {
            Ok(()) => {
                pool.learn(settings, &mut lease.session.parameters);
                return Ok(lease);
            }
            // Nothing of the client's was sent: another connection will do.
            Err(SettingsError::Broken(error)) if attempts > 0 => {
                debug!(session = %client.session, %error, "a server connection was broken, trying another");
            }
            Err(error) => {
                if let SettingsError::Refused { .. } = &error {
                    lease.give_back(Tracker::default(), Farewell::Said).await;
                }
                return Err(NoServer::Refused(Box::new(ClientError::settings(&error))));
            }
        }
    }
}

/// An idle connection of `pool`, or the first that comes free; none once the client's session `ends`.
#[inline]
pub(super) async fn checked_out(
    stream: &mut Stream,
    client: &Client,
    pool: &Rc<ServerPool>,
    ends: Option<Instant>,
) -> Result<Lease, NoServer> {
    if ends.is_some_and(|ends| ends <= Instant::now()) {
        return Err(NoServer::Late);
    }
    if let Some(lease) = pool.try_lease() {
        return Ok(lease);
    }
    client.note_activity(Activity::Waiting(std::time::Instant::now()));
    let waited = Box::pin(wait(stream, client, pool, ends)).await;
    client.note_activity(Activity::Idle);
    waited
}

async fn wait(
    stream: &mut Stream,
    client: &Client,
    pool: &Rc<ServerPool>,
    ends: Option<Instant>,
) -> Result<Lease, NoServer> {
    let user = pool.key().user.clone();
    let mut lease = Box::pin(pool.lease());
    let mut notice = Box::pin(sleep(NOTICE_AFTER));
    let mut noticed = false;
    let mut end = ends.map(|ends| Box::pin(sleep_until(ends)));
    poll_fn(|cx| {
        if end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(NoServer::Late));
        }
        if client.poll_shutdown(cx) != Shutdown::No {
            return Poll::Ready(Err(NoServer::Refused(Box::new(client.farewell()))));
        }
        if let Poll::Ready(result) = lease.as_mut().poll(cx) {
            let refused = |error| NoServer::Refused(Box::new(ClientError::lease(&error, user.as_str())));
            return Poll::Ready(result.map_err(refused));
        }
        if is_gone(stream, cx) {
            return Poll::Ready(Err(NoServer::ClientGone));
        }
        if !noticed && notice.as_mut().poll(cx).is_ready() {
            noticed = true;
            let mut message = BytesMut::new();
            reply::report(&waiting_notice(), &mut message);
            if stream.poll_send(cx, &message).is_err() {
                return Poll::Ready(Err(NoServer::ClientGone));
            }
        }
        if stream.has_unsent() && matches!(stream.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Err(NoServer::ClientGone));
        }
        Poll::Pending
    })
    .await
}

/// Whether the client has closed. If it has sent something first, that hides the end: then this says no.
fn is_gone(stream: &Stream, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    matches!(
        stream.tcp().poll_peek(cx, &mut ReadBuf::new(&mut byte)),
        Poll::Ready(Ok(0) | Err(_))
    )
}

/// The messages from ParameterStatus to ReadyForQuery.
pub(super) fn greet(parameters: &Parameters, key: &CancelKey, reply: &mut BytesMut) {
    for (name, value) in parameters.iter() {
        reply::parameter_status(name, value, reply);
    }
    reply::backend_key_data(key, reply);
    reply::ready_for_query(reply);
}
