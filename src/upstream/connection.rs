//! One authenticated server connection, and what Postern itself says on it: settings, probes, the clean-up.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::timeout;

use super::cancel::cancel;
use super::login::Greeting;
use crate::config::Target;
use crate::ids::SessionId;
use crate::net::stream::{Stream, StreamError};
use crate::pin::{Question, Row, Told};
use crate::session::ledger::TransactionStatus;
use crate::session::parameters::Parameters;
use crate::session::server::ServerSession;
use crate::session::settings::Settings;
use crate::session::statements::NAME_PREFIX;
use crate::session::tracker::Tracker;
use crate::wire::body::Body;
use crate::wire::frame::{BadLength, Frames, MAX_GATHERED_BYTES};
use crate::wire::reply::state_and_message;
use crate::wire::request;
use crate::wire::sqlstate::QUERY_CANCELED;
use crate::wire::startup::CancelKey;

/// How often a question of Postern's own is asked again that somebody has cancelled.
const MAX_CANCELLED: u32 = 5;

/// A connection that is logged in.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// What it has of its clients.
    pub session: ServerSession,
    cancel: Option<Arc<Cancellable>>,
    target: Arc<Target>,
    touched: bool,
    notifications: Vec<u8>,
}

/// Where a query on a connection can be cancelled.
#[derive(Debug)]
pub struct Cancellable {
    /// At whose server.
    pub target: Arc<Target>,
    /// By which key.
    pub key: CancelKey,
}

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
    /// The server didn't tell what the session has.
    #[error("the server refused to tell the state of the session: {message}")]
    NotTold {
        /// The server's SQLSTATE, or none.
        state: String,
        /// Its text.
        message: String,
    },
    /// There is no key to cancel with.
    #[error("a query is running and the server gave no key to cancel it")]
    NotCancellable,
}

impl Broken {
    fn not_told(why: &str) -> Self {
        Self::NotTold {
            state: String::new(),
            message: why.to_owned(),
        }
    }
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
    /// The rows, as far as they are wanted.
    rows: Option<Vec<RawRow>>,
    /// A row that is none was among them.
    is_unreadable: bool,
    /// Notifications that came in between, as they came. They are the client's who listens.
    notifications: Vec<u8>,
    keeps_notifications: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, greeting: Greeting, target: Arc<Target>) -> Self {
        let Greeting {
            cancel_key,
            parameters,
        } = greeting;
        let cancel = cancel_key.map(|key| {
            Arc::new(Cancellable {
                target: target.clone(),
                key,
            })
        });
        Self {
            stream,
            session: ServerSession::new(parameters, target.pool.is_shared),
            cancel,
            target,
            touched: false,
            notifications: Vec::new(),
        }
    }

    /// Notifications that came while Postern itself asked the server, as they came, for the client that holds the connection.
    pub fn take_notifications(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.notifications)
    }

    /// How to cancel what runs on it, if the server gave a key.
    pub fn cancellable(&self) -> Option<&Arc<Cancellable>> {
        self.cancel.as_ref()
    }

    /// Whose connection it is.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Notes that a client's bytes are about to be sent.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    /// Notes that all that its last client has left behind is known, so that it can be handed over as it is.
    pub fn untouch(&mut self) {
        self.touched = false;
    }

    /// Makes the session's settings what a client wants, by difference to what they are; `keeps_constants` as
    /// [`ServerSession::hand_over`](crate::session::server::ServerSession::hand_over) has it.
    pub async fn apply(
        &mut self,
        id: SessionId,
        settings: &Settings,
        keeps_constants: bool,
    ) -> Result<(), SettingsError> {
        let (mut message, mut tags) = (Vec::new(), Vec::new());
        self.session
            .hand_over(id, settings, keeps_constants, &mut message, &mut tags);
        if tags.is_empty() {
            return Ok(());
        }
        self.touched = true;
        let wanted = Answer {
            keeps_notifications: true,
            ..Answer::default()
        };
        let limit = self.target.timeouts.reset;
        let answer = timeout(limit, self.ask(&message, &tags, wanted))
            .await
            .map_err(|_| Broken::TimedOut)??;
        match answer.error {
            None => {
                self.session.handed_over(id);
                Ok(())
            }
            Some((state, message)) => Err(SettingsError::Refused { state, message }),
        }
    }

    /// Asks the server what the session has.
    pub async fn tell(&mut self, question: &Question<'_>) -> Result<Told, Broken> {
        let limit = self.target.timeouts.reset;
        // Whatever a transaction of the session's is by default: this one waits for nobody.
        let query = format!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY, NOT DEFERRABLE;{}",
            question.sql(NAME_PREFIX)
        );
        let mut cancelled = 0;
        let rows = loop {
            match self.rows(&query, limit).await {
                // By a cancel that its client had meant for what is done by now.
                Err(Broken::NotTold { state, .. })
                    if state == QUERY_CANCELED && cancelled < MAX_CANCELLED =>
                {
                    cancelled += 1;
                }
                told => break told?,
            }
        };
        let rows: Option<Vec<Row>> = rows.into_iter().map(strict).collect();
        let rows = rows.ok_or_else(|| Broken::not_told("a setting's value isn't UTF-8"))?;
        question.read(rows).ok_or(Broken::Lost)
    }

    /// Runs a query of Postern's own whose rows are three texts each.
    pub(super) async fn rows(&mut self, query: &str, limit: Duration) -> Result<Vec<RawRow>, Broken> {
        let mut message = Vec::new();
        request::query(query, &mut message);
        let wanted = Answer {
            rows: Some(Vec::new()),
            keeps_notifications: true,
            ..Answer::default()
        };
        let answer = timeout(limit, self.ask(&message, b"Q", wanted))
            .await
            .map_err(|_| Broken::TimedOut)??;
        match answer.error {
            Some((state, message)) => Err(Broken::NotTold { state, message }),
            None if answer.is_unreadable => Err(Broken::not_told("a row is too long")),
            None => Ok(answer.rows.unwrap_or_default()),
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
            let drained = timeout(
                limit,
                drain(
                    &mut self.stream,
                    &mut self.session.parameters,
                    &mut tracker,
                    Answer::default(),
                ),
            )
            .await;
            // What isn't done by now is cancelled below.
            drained.unwrap_or_else(|_| Ok(Answer::default()))?;
        }
        timeout(limit, Box::pin(self.wind_up(tracker)))
            .await
            .map_err(|_| Broken::TimedOut)??;
        self.session.discarded();
        self.notifications = Vec::new();
        self.touched = false;
        Ok(())
    }

    /// Looks without waiting whether the connection is still good: the server may have ended it, or reported a change.
    pub fn is_dead(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let parameters = &mut self.session.parameters;
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
        // What isn't synced may still be under way.
        if tracker.is_busy() || tracker.is_unsynced() {
            let server = self.cancel.clone().ok_or(Broken::NotCancellable)?;
            // The server may be blocked on sending: read on while the cancel is under way.
            let (cancelled, drained) = tokio::join!(
                cancel(&server),
                drain(
                    &mut self.stream,
                    &mut self.session.parameters,
                    &mut tracker,
                    Answer::default()
                )
            );
            drained?;
            cancelled.map_err(|_| Broken::NotCancellable)?;
        }
        if tracker.is_unsynced() {
            // A Sync of ours would commit what the client hasn't; a server whose client goes rolls that back.
            return Err(Broken::Lost);
        }
        if !tracker.is_settled() {
            return Err(Broken::Lost);
        }
        let (mut message, mut queries) = (Vec::new(), Vec::new());
        if tracker.status() != TransactionStatus::Idle {
            request::query("ROLLBACK", &mut message);
            queries.push(b'Q');
        }
        if self.session.may_wait() {
            request::query("RESET default_transaction_deferrable", &mut message);
            queries.push(b'Q');
        }
        request::query("DISCARD ALL", &mut message);
        queries.push(b'Q');
        let answer = self.ask(&message, &queries, Answer::default()).await?;
        match answer.error {
            Some((_, message)) => Err(Broken::NotReset(message)),
            // Were this the answer to something else, the account of what is owed would be wrong.
            None if answer.completed != b"DISCARD ALL\0" => Err(Broken::Lost),
            None => Ok(()),
        }
    }

    /// Sends `message`, which holds messages of the types `tags`, and waits until all are answered.
    async fn ask(&mut self, message: &[u8], tags: &[u8], answer: Answer) -> Result<Answer, Broken> {
        let mut tracker = Tracker::default();
        tags.iter().for_each(|tag| tracker.sent_own(*tag));
        self.session.lose_unnamed();
        self.stream.send(message).await?;
        let parameters = &mut self.session.parameters;
        let mut answer = drain(&mut self.stream, parameters, &mut tracker, answer).await?;
        self.notifications.append(&mut answer.notifications);
        Ok(answer)
    }
}

/// Reads until everything that `tracker` knows of is answered; the last error that came is in the answer.
async fn drain(
    stream: &mut Stream,
    parameters: &mut Rc<Parameters>,
    tracker: &mut Tracker,
    mut answer: Answer,
) -> Result<Answer, Broken> {
    let mut frames = Frames::default();
    let wants_rows = answer.rows.is_some();
    let wanted = |tag| match tag {
        b'E' | b'C' | b'A' => MAX_GATHERED_BYTES,
        b'D' if wants_rows => MAX_GATHERED_BYTES,
        _ => 0,
    };
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
                while let Some(frame) = frames.next(&mut rest, wanted)? {
                    match frame.tag {
                        b'E' => answer.error = Some(state_and_message(frame.body)),
                        b'C' => answer.completed = frame.body.to_vec(),
                        b'A' if answer.keeps_notifications && !frame.is_cut() => {
                            request::header(b'A', frame.length, &mut answer.notifications);
                            answer.notifications.extend_from_slice(frame.body);
                        }
                        b'D' => match (row(frame.body), &mut answer.rows) {
                            (Some(row), Some(rows)) => rows.push(row),
                            _ => answer.is_unreadable = true,
                        },
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
fn idle_bytes(bytes: &[u8], parameters: &mut Rc<Parameters>) -> bool {
    let mut frames = Frames::default();
    let mut rest = bytes;
    let mut alive = !bytes.is_empty();
    while alive && let Ok(Some(frame)) = frames.next(&mut rest, |_| MAX_GATHERED_BYTES) {
        match frame.tag {
            b'S' => Rc::make_mut(parameters).report(frame.body),
            b'N' => {}
            _ => alive = false,
        }
    }
    alive && rest.is_empty() && frames.at_boundary()
}

/// Three texts as they came.
pub(super) type RawRow = [Vec<u8>; 3];

/// The cells of a row whose columns are three texts that aren't null; anything else is no row.
fn row(body: &[u8]) -> Option<RawRow> {
    let mut body = Body::new(body);
    if body.bytes(2) != Ok(&[0, 3]) {
        return None;
    }
    let mut cell = || {
        let len = usize::try_from(body.i32().ok()?).ok()?;
        Some(body.bytes(len).ok()?.to_vec())
    };
    Some([cell()?, cell()?, cell()?])
}

fn strict([kind, name, value]: RawRow) -> Option<Row> {
    let text = |cell| String::from_utf8(cell).ok();
    Some([text(kind)?, text(name)?, text(value)?])
}
