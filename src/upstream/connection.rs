//! One authenticated server connection, and what Postern itself says on it: settings, probes, the clean-up.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::timeout;

use super::cancel::cancel;
use super::login::Greeting;
use crate::config::Target;
use crate::net::stream::{Stream, StreamError};
use crate::session::ledger::TransactionStatus;
use crate::session::parameters::Parameters;
use crate::session::tracker::Tracker;
use crate::wire::frame::{BadLength, Frames, MAX_GATHERED_BYTES, whole};
use crate::wire::reply::state_and_message;
use crate::wire::startup::CancelKey;

/// A connection that is logged in.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// The parameters as the server last reported them.
    pub parameters: Parameters,
    cancel_key: Option<CancelKey>,
    target: Arc<Target>,
    touched: bool,
}

/// A run-time setting: name and value.
pub type Setting = (String, String);

/// How a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// With a Terminate: what it had asked for before is carried out, as a server does.
    Said,
    /// Without a word: nobody wants the answer any more.
    None,
}

/// Why a connection can't be used any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The server sent what can't be.
    #[error(transparent)]
    Length(#[from] BadLength),
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// It can't be told what the server will send next.
    #[error("the state of the protocol is unknown")]
    Lost,
    /// Not done in time.
    #[error("no answer in time")]
    TimedOut,
    /// The clean-up itself failed.
    #[error("the server refused to reset the session: {0}")]
    NotReset(String),
    /// There is no key to cancel with.
    #[error("a query is running and the server gave no key to cancel it")]
    NotCancellable,
}

/// Why settings didn't take.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The server refused one; nothing has changed.
    #[error("{message}")]
    Refused {
        /// The server's SQLSTATE.
        state: String,
        /// The server's text.
        message: String,
    },
    /// The connection is gone.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// The server's answer to what Postern itself asked.
#[derive(Debug, Default)]
struct Answer {
    error: Option<(String, String)>,
    /// The last command tag, with its NUL.
    completed: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: Stream, greeting: Greeting, target: Arc<Target>) -> Self {
        let Greeting {
            cancel_key,
            parameters,
        } = greeting;
        Self {
            stream,
            parameters,
            cancel_key,
            target,
            touched: false,
        }
    }

    /// The server's process and its key, if the server gave one.
    pub fn cancel_key(&self) -> Option<&CancelKey> {
        self.cancel_key.as_ref()
    }

    /// Whose connection it is.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Notes that a client's bytes are about to be sent.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    /// Makes the session's settings what a client asked for, by difference to what they are, in one round trip.
    pub async fn apply(&mut self, settings: &[Setting]) -> Result<(), SettingsError> {
        let mut wanted: Vec<&Setting> = settings
            .iter()
            .filter(|(name, value)| self.parameters.get(name) != Some(value))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        // The encoding last: what follows it would be read in it.
        wanted.sort_by_key(|(name, _)| name.eq_ignore_ascii_case("client_encoding"));
        self.touched = true;
        let limit = self.target.timeouts.reset;
        let answer = timeout(limit, self.ask(&set_config(&wanted), b"S"))
            .await
            .map_err(|_| Broken::TimedOut)??;
        match answer.error {
            None => Ok(()),
            Some((state, message)) => Err(SettingsError::Refused { state, message }),
        }
    }

    /// Makes the connection as good as new after a client whose bytes `tracker` followed; whoever calls
    /// must see to it that no cancel for it is under way.
    ///
    /// A running query is cancelled, at once if the client is lost and else when it doesn't end by itself; a
    /// transaction is rolled back, the session discarded. An error means that the connection must be closed.
    pub async fn clean(&mut self, mut tracker: Tracker, farewell: Farewell) -> Result<(), Broken> {
        if !self.touched && tracker.is_idle() {
            return Ok(());
        }
        let limit = self.target.timeouts.reset;
        if farewell == Farewell::Said && !tracker.is_lost() {
            let drained = timeout(limit, drain(&mut self.stream, &mut self.parameters, &mut tracker)).await;
            // What isn't done by now is cancelled below.
            drained.unwrap_or_else(|_| Ok(Answer::default()))?;
        }
        timeout(limit, Box::pin(self.wind_up(tracker)))
            .await
            .map_err(|_| Broken::TimedOut)??;
        self.touched = false;
        Ok(())
    }

    /// Looks without waiting whether the connection is still good: the server may have ended it, or reported a change.
    pub fn is_dead(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let parameters = &mut self.parameters;
            match self
                .stream
                .poll_read_with(&mut context, |_, bytes| idle_bytes(bytes, parameters))
            {
                Poll::Pending => return self.stream.has_unsent(),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return true,
            }
        }
    }

    /// Ends the connection in order, without waiting for anything.
    pub fn close(mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let _ = self.stream.poll_send(&mut context, b"X\0\0\0\x04");
    }

    async fn wind_up(&mut self, mut tracker: Tracker) -> Result<(), Broken> {
        if tracker.is_lost() {
            return Err(Broken::Lost);
        }
        if tracker.is_busy() {
            let key = self.cancel_key.clone().ok_or(Broken::NotCancellable)?;
            let target = self.target.clone();
            // The server may be blocked on sending: read on while the cancel is under way.
            let (cancelled, drained) = tokio::join!(
                cancel(&target, &key),
                drain(&mut self.stream, &mut self.parameters, &mut tracker)
            );
            drained?;
            cancelled.map_err(|_| Broken::NotCancellable)?;
        }
        if tracker.is_unsynced() {
            tracker.sent_own(b'S');
            self.stream.send(b"S\0\0\0\x04").await?;
            drain(&mut self.stream, &mut self.parameters, &mut tracker).await?;
        }
        if !tracker.is_settled() {
            return Err(Broken::Lost);
        }
        let mut message = Vec::new();
        if tracker.status() != TransactionStatus::Idle {
            query("ROLLBACK", &mut message);
        }
        query("DISCARD ALL", &mut message);
        let queries = if tracker.status() == TransactionStatus::Idle {
            &b"Q"[..]
        } else {
            b"QQ"
        };
        let answer = self.ask(&message, queries).await?;
        match answer.error {
            Some((_, message)) => Err(Broken::NotReset(message)),
            // Were this the answer to something else, the account of what is owed would be wrong.
            None if answer.completed != b"DISCARD ALL\0" => Err(Broken::Lost),
            None => Ok(()),
        }
    }

    /// Sends `message`, which holds a Query or a Sync for each of `tags`, and waits until all are answered.
    async fn ask(&mut self, message: &[u8], tags: &[u8]) -> Result<Answer, Broken> {
        let mut tracker = Tracker::default();
        tags.iter().for_each(|tag| tracker.sent_own(*tag));
        self.stream.send(message).await?;
        drain(&mut self.stream, &mut self.parameters, &mut tracker).await
    }
}

/// Reads until everything that `tracker` knows of is answered; the last error that came is in the answer.
async fn drain(
    stream: &mut Stream,
    parameters: &mut Parameters,
    tracker: &mut Tracker,
) -> Result<Answer, Broken> {
    let mut answer = Answer::default();
    let mut errors = Frames::default();
    while tracker.is_busy() {
        poll_fn(|cx| {
            if stream.has_unsent() {
                // The server can't answer what it hasn't got.
                let _ = stream.poll_flush(cx)?;
            }
            stream.poll_read_with(cx, |_, bytes| {
                if bytes.is_empty() {
                    return Err(Broken::Closed);
                }
                let mut rest = bytes;
                while let Some(frame) = errors.next(&mut rest, whole(b"EC"))? {
                    match frame.tag {
                        b'E' => answer.error = Some(state_and_message(frame.body)),
                        b'C' => answer.completed = frame.body.to_vec(),
                        _ => {}
                    }
                }
                tracker.from_server(bytes, parameters)?;
                Ok(())
            })
        })
        .await??;
    }
    if tracker.is_lost() {
        return Err(Broken::Lost);
    }
    Ok(answer)
}

/// What an idle server may say: parameters and notices. Anything else, or half a message, ends the connection.
fn idle_bytes(bytes: &[u8], parameters: &mut Parameters) -> bool {
    let mut frames = Frames::default();
    let mut rest = bytes;
    let mut alive = !bytes.is_empty();
    while alive && let Ok(Some(frame)) = frames.next(&mut rest, |_| MAX_GATHERED_BYTES) {
        match frame.tag {
            b'S' => parameters.report(frame.body),
            b'N' => {}
            _ => alive = false,
        }
    }
    alive && rest.is_empty() && frames.at_boundary()
}

/// Parse once, Bind and Execute for each, Sync: one transaction, so that all take or none.
fn set_config(settings: &[&Setting]) -> Vec<u8> {
    let mut message = Vec::new();
    frame(b'P', &mut message, |body| {
        body.extend_from_slice(b"\0SELECT pg_catalog.set_config($1,$2,false)\0");
        // Two parameters of type text (object identifier 25).
        body.extend_from_slice(&[0, 2, 0, 0, 0, 25, 0, 0, 0, 25]);
    });
    for (name, value) in settings {
        frame(b'B', &mut message, |body| {
            body.extend_from_slice(&[0, 0, 0, 0, 0, 2]);
            for text in [name, value] {
                body.extend_from_slice(&(text.len() as u32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
            body.extend_from_slice(&[0, 0]);
        });
        frame(b'E', &mut message, |body| {
            body.extend_from_slice(&[0, 0, 0, 0, 0])
        });
    }
    frame(b'S', &mut message, |_| {});
    message
}

fn query(text: &str, message: &mut Vec<u8>) {
    frame(b'Q', message, |body| {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    });
}

fn frame(tag: u8, message: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    message.push(tag);
    let start = message.len();
    message.extend_from_slice(&[0; 4]);
    body(message);
    let length = ((message.len() - start) as u32).to_be_bytes();
    message
        .iter_mut()
        .skip(start)
        .zip(length)
        .for_each(|(slot, byte)| *slot = byte);
}
