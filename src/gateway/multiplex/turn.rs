//! What passes both ways in one poll of a lease.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::Pause;
use crate::gateway::pump::{End, READS_PER_TURN, Traffic, end_of};
use crate::net::stream::Stream;
use crate::session::exchange::{Exchange, Sides};

/// Both sides for one poll.
pub(super) struct Turn<'a> {
    pub(super) client: &'a mut Stream,
    pub(super) server: &'a mut Stream,
    pub(super) sides: Sides<'a>,
    pub(super) exchange: &'a mut Exchange,
    pub(super) traffic: &'a mut Traffic,
    /// The client says nothing more, and what it has said ahead of that is carried out until then.
    pub(super) gone: &'a mut Option<Pin<Box<Sleep>>>,
    /// For how long.
    pub(super) patience: Duration,
}

impl Turn<'_> {
    /// Sends what makes the connection the client's, and its first bytes.
    pub(super) fn begin(&mut self, first: &[u8], cx: &mut Context<'_>) -> Option<End> {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        self.exchange.begin(&mut self.sides, &mut to_client);
        let ended = self
            .exchange
            .from_client(first, &mut self.sides, &mut to_server, &mut to_client);
        self.send(&to_server, &to_client, cx)
            .or_else(|| ended.map(end_of))
    }

    fn resume(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let ended = self
            .exchange
            .resume(&mut self.sides, &mut to_server, &mut to_client);
        self.send(&to_server, &to_client, cx)
            .or_else(|| ended.map(end_of))
    }

    fn send(&mut self, to_server: &[u8], to_client: &[u8], cx: &mut Context<'_>) -> Option<End> {
        if !to_server.is_empty()
            && let Err(error) = self.server.poll_send(cx, to_server)
        {
            return Some(End::ServerLost(Some(error)));
        }
        if !to_client.is_empty() {
            self.traffic.sent += to_client.len() as u64;
            if self.client.poll_send(cx, to_client).is_err() {
                return Some(End::ClientLost);
            }
        }
        None
    }

    #[inline]
    pub(super) fn serve_client(&mut self, cx: &mut Context<'_>) -> Option<Pause> {
        for _ in 0..READS_PER_TURN {
            if self.client.has_unsent() {
                match self.client.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Some(Pause::End(End::ClientLost)),
                    Poll::Pending => return None,
                }
            }
            let Self {
                client,
                server,
                sides,
                exchange,
                traffic,
                ..
            } = self;
            let moved = server.poll_read_with(cx, |cx, bytes| {
                if bytes.is_empty() {
                    return Some(End::ServerLost(None));
                }
                let mut edited = Vec::new();
                let scanned = exchange.from_server(bytes, sides, &mut edited);
                let bytes = if matches!(scanned, Ok(false)) {
                    bytes
                } else {
                    &edited
                };
                traffic.sent += bytes.len() as u64;
                if !bytes.is_empty() && client.poll_send(cx, bytes).is_err() {
                    return Some(End::ClientLost);
                }
                scanned.err().map(End::ServerBroke)
            });
            match moved {
                Poll::Ready(Ok(None)) if self.exchange.refusal().is_some() => return Some(Pause::Refused),
                Poll::Ready(Ok(None)) if self.exchange.is_lost() => {
                    return Some(Pause::End(End::ServerLost(None)));
                }
                Poll::Ready(Ok(None)) if self.exchange.is_idle() => return Some(Pause::Idle),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(Some(end))) => return Some(Pause::End(end)),
                Poll::Ready(Err(error)) => return Some(Pause::End(End::ServerLost(Some(error)))),
                Poll::Pending => return None,
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    /// Takes what can't be looked at yet, as far as there is room: who is gone must be seen to be. Whether anything has come.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let mut has_come = false;
        while self.exchange.has_room() {
            let Self {
                client,
                exchange,
                traffic,
                ..
            } = self;
            let moved = client.poll_read_with(cx, |_, bytes| {
                traffic.received += bytes.len() as u64;
                exchange.wait_with(bytes);
                bytes.is_empty()
            });
            match moved {
                Poll::Ready(Ok(false)) => has_come = true,
                Poll::Ready(Ok(true)) => {
                    let patience = self.patience;
                    let gone = self.gone.get_or_insert_with(|| Box::pin(sleep(patience)));
                    if gone.as_mut().poll(cx).is_ready() {
                        return Err(Pause::End(End::ClientLost));
                    }
                    break;
                }
                Poll::Ready(Err(_)) => return Err(Pause::End(End::ClientLost)),
                Poll::Pending => break,
            }
        }
        Ok(has_come)
    }

    #[inline]
    pub(super) fn feed_server(&mut self, cx: &mut Context<'_>) -> Option<Pause> {
        for _ in 0..READS_PER_TURN {
            // Who doesn't take what it is answered isn't asked for more.
            if self.client.has_unsent() {
                return None;
            }
            if self.server.has_unsent() {
                match self.server.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Some(Pause::End(End::ServerLost(Some(error)))),
                    Poll::Pending => return None,
                }
            }
            if self.exchange.is_waiting() {
                if let Some(end) = self.resume(cx) {
                    return Some(Pause::End(end));
                }
                if !self.exchange.is_undecided() {
                    continue;
                }
                match self.wait(cx) {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(pause) => return Some(pause),
                }
            }
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let Self {
                client,
                sides,
                exchange,
                traffic,
                ..
            } = self;
            let moved = client.poll_read_with(cx, |_, bytes| {
                if bytes.is_empty() {
                    return Some(End::ClientLost);
                }
                traffic.received += bytes.len() as u64;
                exchange
                    .from_client(bytes, sides, &mut to_server, &mut to_client)
                    .map(end_of)
            });
            let end = match moved {
                Poll::Ready(Ok(end)) => end,
                Poll::Ready(Err(_)) => return Some(Pause::End(End::ClientLost)),
                Poll::Pending => return None,
            };
            if let Some(end) = self.send(&to_server, &to_client, cx).or(end) {
                return Some(Pause::End(end));
            }
            // What came may have been of no consequence: the rest of a COPY that has failed.
            if self.exchange.is_idle() {
                return Some(Pause::Idle);
            }
        }
        cx.waker().wake_by_ref();
        None
    }
}
