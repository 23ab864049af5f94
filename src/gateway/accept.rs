//! Accepting clients.

use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{error, warn};

use super::serve::serve;
use super::shard::Shard;

/// Connections beyond `max_clients` that are let in to be told so, or to bring a cancel request.
const RESERVE: i64 = 100;

/// After a failed accept, which is a lack of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts for as long as it is polled.
pub(super) async fn accept(shard: Rc<Shard>, listener: TcpListener) {
    let metrics = shard.shared.metrics.client.connections.clone();
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) if is_the_peers(&error) => continue,
            Err(error) => {
                warn!(%error, "cannot accept a client");
                sleep(PAUSE).await;
                continue;
            }
        };
        shard.shared.metrics.client.accepted.inc();
        let limit = i64::try_from(shard.limits().max_clients).unwrap_or(i64::MAX);
        let over_limit = metrics.get() >= limit && !shard.clients.evict_silent();
        if over_limit && metrics.get() >= limit.saturating_add(RESERVE) {
            warn!(limit, "a client was closed at once: far too many");
            continue;
        }
        metrics.inc();
        let id = shard.shared.next_session();
        // Before its task has run: the next to be accepted may have to take its place.
        let client = shard.clients.join(id);
        let silent = client.be_silent();
        let mut task = Box::pin(serve(shard.clone(), tcp, client, silent, over_limit));
        let done = Done(shard.clone());
        // A defect costs one client.
        spawn_local(std::future::poll_fn(move |cx| {
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)));
            polled.unwrap_or_else(|_| {
                error!(session = %id, "a session panicked; its client is lost");
                done.0.shared.metrics.client.panics.inc();
                Poll::Ready(())
            })
        }));
    }
}

/// Errors of the connection that was to be accepted and not of the listener (accept(2), "Error handling").
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

struct Done(Rc<Shard>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.shared.metrics.client.connections.dec();
    }
}
