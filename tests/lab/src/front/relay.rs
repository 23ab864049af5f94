//! Bytes from client to server and back, after a login.
//!
//! Nothing is looked at, so BackendKeyData gets through as it is, and a CancelRequest finds its server process.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use super::Client;
use crate::Shared;
use crate::wire::send;

/// Relays until the server has closed, the client is gone, or a reset is ordered.
pub(super) async fn relay<C: Client, S>(shared: &Shared, client: C, server: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let _counted = shared.relays.enter();
    let mut orders = shared.faults.relay_orders();
    let resets = orders.borrow_and_update().resets;
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let reset = {
        let upward = async {
            pump(&mut from_client, &mut to_server).await?;
            to_server.shutdown().await?;
            // The server ends the connection when it has read all.
            std::future::pending().await
        };
        let mut copying = std::pin::pin!(async {
            tokio::select! {
                end = upward => end,
                end = pump(&mut from_server, &mut to_client) => end,
            }
        });
        loop {
            let order = *orders.borrow_and_update();
            if order.resets != resets {
                break true;
            }
            if order.frozen {
                orders.changed().await.map_err(io::Error::other)?;
                continue;
            }
            tokio::select! {
                // Orders first: no byte that is sent after an order slips past it.
                biased;
                changed = orders.changed() => changed.map_err(io::Error::other)?,
                end = &mut copying => {
                    end?;
                    break false;
                }
            }
        }
    };
    let mut client = from_client.unsplit(to_client);
    if reset {
        client.tcp().set_zero_linger()
    } else {
        client.shutdown().await
    }
}

async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(from: &mut R, to: &mut W) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => send(to, bytes).await?,
            _ => return Ok(()),
        }
    }
}

const BUFFER_BYTES: usize = 65_536;
