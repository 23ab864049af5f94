//! The hot loop: bytes from the client to its server and back, scanned on the way.
//!
//! Nothing is copied but what a socket doesn't take at once, and then nothing more is read for that socket until it
//! has: that bounds the memory and passes the pressure on. There is no timer, no log line and no lock in here.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::cancel::Registered;
use super::clients::Client;
use super::deadlines::{Deadlines, Late};
use super::error::ClientError;
use super::presence::Ending;
use super::shard::Shutdown;
use crate::net::stream::{Stream, StreamError};
use crate::session::ledger::Standing;
use crate::session::tracker::{Ended, Tracker};
use crate::upstream::connection::Connection;
use crate::wire::frame::BadLength;

/// Why the loop has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client has sent Terminate.
    Terminated,
    /// The client is gone, or TLS with it failed.
    ClientLost,
    /// The client broke the protocol.
    ClientBroke(Box<ClientError>),
    /// The server has closed, or TLS with it failed.
    ServerLost(Option<StreamError>),
    /// The server broke the framing.
    ServerBroke(BadLength),
    /// The client, or the server for it, has taken too long.
    Late(Late),
    /// It has to go, though the gateway stays.
    Ended(Ending),
    /// The gateway goes down, and the client is between transactions or out of time.
    Shutdown,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Terminated => f.write_str("the client said goodbye"),
            Self::ClientLost => f.write_str("the client is gone"),
            Self::ClientBroke(error) => write!(f, "the client broke the protocol: {}", error.report.message),
            Self::ServerLost(None) => f.write_str("the server closed the connection"),
            Self::ServerLost(Some(error)) => write!(f, "the server is lost: {error}"),
            Self::ServerBroke(error) => write!(f, "the server broke the protocol: {error}"),
            Self::Late(Late::Query) => f.write_str("a query took too long"),
            Self::Late(Late::Transaction) => f.write_str("a transaction took too long"),
            Self::Late(Late::IdleInTransaction) => {
                f.write_str("the client was idle in a transaction for too long")
            }
            Self::Late(Late::Session) => f.write_str("the session has lasted as long as its rule allows"),
            Self::Late(Late::ClientIdle) => f.write_str("the client was idle for too long"),
            Self::Ended(Ending::Killed) => f.write_str("it was killed"),
            Self::Ended(Ending::NotAdmitted) => f.write_str("no rule admits it any more"),
            Self::Ended(Ending::OtherTerms) => f.write_str("the rule that admits it was changed"),
            Self::Ended(Ending::NoTarget) => f.write_str("its database is not configured any more"),
            Self::Ended(Ending::Moved) => f.write_str("its database is elsewhere now"),
            Self::Ended(Ending::Drained) => f.write_str("its database is drained"),
            Self::Shutdown => f.write_str("the gateway goes down"),
        }
    }
}

/// What has gone through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Bytes from the client.
    pub(super) received: u64,
    /// Bytes to the client.
    pub(super) sent: u64,
    /// ReadyForQuery messages, but for those of the last lease.
    pub(super) answers: u64,
}

/// What happens before a client that has no server says something.
#[derive(Debug)]
pub(super) enum First {
    /// Bytes for a server, and the end if it came right after them.
    Bytes(Vec<u8>, Option<End>),
    /// The end.
    End(End),
}

/// Waits for the first message of a client that has no server.
pub(super) async fn first_message(
    stream: &mut Stream,
    client: &Client,
    tracker: &mut Tracker,
    deadlines: &mut Option<Box<Deadlines>>,
    key: &Registered,
) -> First {
    poll_fn(|cx| {
        if client.poll_shutdown(cx) != Shutdown::No {
            return Poll::Ready(First::End(End::Shutdown));
        }
        if let Some(deadlines) = deadlines
            && let Some(end) = deadlines.poll(cx, Standing::default(), key)
        {
            return Poll::Ready(First::End(end));
        }
        loop {
            match stream.poll_read_with(cx, |_, bytes| look_at(bytes, tracker)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(First::End(End::ClientLost)),
                Poll::Ready(Ok(Some(first))) => return Poll::Ready(first),
                Poll::Ready(Ok(None)) => {}
            }
        }
    })
    .await
}

/// What the bytes amount to for a client that has no server; `None` if there is no message yet.
pub(super) fn look_at(bytes: &[u8], tracker: &mut Tracker) -> Option<First> {
    if bytes.is_empty() {
        return Some(First::End(End::ClientLost));
    }
    let held_back = tracker.held_back().to_vec();
    let chunk = tracker.from_client(bytes);
    let end = chunk.ended.map(end_of);
    if chunk.forward > 0 {
        let forward = bytes.get(..chunk.forward).unwrap_or_default();
        return Some(First::Bytes([&held_back, forward].concat(), end));
    }
    end.map(First::End)
}

pub(super) fn end_of(ended: Ended) -> End {
    match ended {
        Ended::Goodbye => End::Terminated,
        Ended::BadLength(error) => End::ClientBroke(Box::new(ClientError::bad_length(error))),
        Ended::BadType(tag) => End::ClientBroke(Box::new(ClientError::bad_type(tag))),
        Ended::Unread => End::ClientBroke(Box::new(ClientError::unread())),
        Ended::Writable => End::ClientBroke(Box::new(ClientError::writable())),
        Ended::TooMuch => End::ClientBroke(Box::new(ClientError::too_much())),
    }
}

/// Runs until one side ends.
pub(super) async fn pump(
    stream: &mut Stream,
    client: &Client,
    server: &mut Connection,
    tracker: &mut Tracker,
    traffic: &mut Traffic,
    deadlines: &mut Option<Box<Deadlines>>,
    key: &Registered,
) -> End {
    poll_fn(|cx| {
        let shutdown = client.poll_shutdown(cx);
        let mut pump = Pump {
            client: &mut *stream,
            server: &mut *server,
            tracker: &mut *tracker,
            traffic: &mut *traffic,
        };
        let feeds = !deadlines
            .as_mut()
            .is_some_and(|deadlines| deadlines.is_cancelling(cx));
        let served = pump.serve_client(cx);
        if let Some(end) = served.or_else(|| if feeds { pump.feed_server(cx) } else { None }) {
            return Poll::Ready(end);
        }
        if let Some(deadlines) = deadlines
            && let Some(end) = deadlines.poll(cx, tracker.standing(), key)
        {
            return Poll::Ready(end);
        }
        // Only now: what has just gone through may have ended the transaction.
        match shutdown {
            Shutdown::No => Poll::Pending,
            Shutdown::Drain if !tracker.is_idle() => Poll::Pending,
            Shutdown::Drain | Shutdown::Now => Poll::Ready(End::Shutdown),
        }
    })
    .await
}

/// Reads from one side before the other has its turn: a stream without end must not drown a Terminate.
pub(super) const READS_PER_TURN: usize = 16;

struct Pump<'a> {
    client: &'a mut Stream,
    server: &'a mut Connection,
    tracker: &'a mut Tracker,
    traffic: &'a mut Traffic,
}

impl Pump<'_> {
    /// Moves what the server has for the client, until one of them has to be waited for.
    #[inline]
    fn serve_client(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let Self {
            client,
            server,
            tracker,
            traffic,
        } = self;
        let Connection {
            stream: server,
            session,
            ..
        } = server;
        let parameters = &mut session.parameters;
        for _ in 0..READS_PER_TURN {
            if client.has_unsent() {
                match client.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Some(End::ClientLost),
                    Poll::Pending => return None,
                }
            }
            let moved = server.poll_read_with(cx, |cx, bytes| {
                if bytes.is_empty() {
                    return Some(End::ServerLost(None));
                }
                traffic.sent += bytes.len() as u64;
                let scanned = tracker.from_server(bytes, parameters);
                if client.poll_send(cx, bytes).is_err() {
                    return Some(End::ClientLost);
                }
                scanned.err().map(End::ServerBroke)
            });
            match moved {
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(end)) => return end,
                Poll::Ready(Err(error)) => return Some(End::ServerLost(Some(error))),
                Poll::Pending => return None,
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    /// Moves what the client has for the server, until one of them has to be waited for.
    #[inline]
    fn feed_server(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let Self {
            client,
            server,
            tracker,
            traffic,
        } = self;
        let server = &mut server.stream;
        for _ in 0..READS_PER_TURN {
            if server.has_unsent() {
                match server.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Some(End::ServerLost(Some(error))),
                    Poll::Pending => return None,
                }
            }
            let moved = client.poll_read_with(cx, |cx, bytes| {
                if bytes.is_empty() {
                    return Some(End::ClientLost);
                }
                traffic.received += bytes.len() as u64;
                send_on(bytes, server, tracker, cx)
            });
            match moved {
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(end)) => return end,
                Poll::Ready(Err(_)) => return Some(End::ClientLost),
                Poll::Pending => return None,
            }
        }
        cx.waker().wake_by_ref();
        None
    }
}

#[inline]
fn send_on(bytes: &[u8], server: &mut Stream, tracker: &mut Tracker, cx: &mut Context<'_>) -> Option<End> {
    let mut prefix = [0; crate::wire::frame::HEADER_BYTES];
    let held_back = tracker.held_back();
    let prefix_len = held_back.len();
    prefix
        .iter_mut()
        .zip(held_back)
        .for_each(|(slot, byte)| *slot = *byte);
    let chunk = tracker.from_client(bytes);
    if chunk.forward > 0 {
        let held_back = prefix.get(..prefix_len).unwrap_or_default();
        let forward = bytes.get(..chunk.forward).unwrap_or_default();
        let sent = match held_back {
            [] => server.poll_send(cx, forward),
            held_back => server.poll_send(cx, &[held_back, forward].concat()),
        };
        if let Err(error) = sent {
            return Some(End::ServerLost(Some(error)));
        }
    }
    chunk.ended.map(end_of)
}
