//! Cancelling a query on a server: a connection of its own, over TLS, that carries the key and ends.
//!
//! It isn't a login: no token, and no part of the login budget. Done means that the server has closed the connection,
//! which it does after it has signalled the backend (`src/backend/postmaster/postmaster.c`, `processCancelRequest`).

use tokio::time::timeout;

use super::connection::Cancellable;
use super::dial::dial;
use super::error::{OpenError, Phase};
use super::login::{closed, encrypt};
use crate::net::stream::Stream;
use crate::wire::startup;

/// Asks the server to stop what that backend is doing, and waits until it has.
pub async fn cancel(server: &Cancellable) -> Result<(), OpenError> {
    let limit = server.target.timeouts.reset;
    timeout(limit, send(server))
        .await
        .unwrap_or(Err(OpenError::Timeout {
            phase: Phase::Connect,
            limit,
        }))
}

async fn send(Cancellable { target, key }: &Cancellable) -> Result<(), OpenError> {
    let mut stream = encrypt(Stream::plain(dial(target).await?), target).await?;
    stream
        .send(&startup::cancel_request(key))
        .await
        .map_err(|error| closed(Phase::Login, error))?;
    let mut rest = Vec::new();
    // The server says nothing; it closes. Only that tells that the signal was sent.
    while stream
        .read_into(&mut rest)
        .await
        .map_err(|error| closed(Phase::Login, error))?
        > 0
    {
        rest.clear();
    }
    Ok(())
}
