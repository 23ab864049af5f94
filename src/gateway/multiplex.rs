//! A client that shares server connections: it has one while it needs one, from a message to the end of the transaction,
//! or for as long as something ties it to it.
//!
//! What passes is decided by [`Exchange`] and moved in `turn`; what a client has left behind is asked of the server in `settle`,
//! between two transactions, after the client has had its answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::attach::{NoServer, checked_out};
use super::cancel::Registered;
use super::clients::{Client, Counted};
use super::deadlines::{Deadlines, Late};
use super::error::ClientError;
use super::presence::Activity;
use super::pump::{End, Traffic, end_of};
use super::shard::Shutdown;
use crate::ids::SessionId;
use crate::net::stream::Stream;
use crate::pool::PoolMode;
use crate::session::client::ClientSession;
use crate::session::exchange::{Exchange, Sides, StatementUse};
use crate::session::ledger::Standing;
use crate::session::settings::Settings;
use crate::session::statements::MAX_STATEMENT_BYTES;
use crate::session::tracker::{Tracker, is_frontend};
use crate::sql::Effects;
use crate::upstream::connection::{Broken, Connection, Farewell, SettingsError};
use crate::upstream::pool::{Lease, ServerPool};
use crate::wire::frame::{BadLength, HEADER_BYTES, MAX_FRAME_BYTES};

mod settle;
mod turn;

use turn::Turn;

/// A client that is at changing catalogs asks for the next change within this time; they are read when it doesn't.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(10);

/// As long as others wait, it goes on so for no longer than this.
const MAX_UNSETTLED: Duration = Duration::from_millis(100);

/// A setting by which the server would end a connection that nobody uses.
const ENDS_IDLE: &str = "idle_session_timeout";

/// One who shares.
pub(super) struct Sharer<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) client: &'a Client,
    pub(super) key: &'a Registered,
    pub(super) pool: &'a Rc<ServerPool>,
    pub(super) session: ClientSession,
    /// When it gives its server connection back.
    pub(super) mode: PoolMode,
    pub(super) deadlines: Option<Box<Deadlines>>,
    /// When its session has to end.
    pub(super) ends: Option<tokio::time::Instant>,
    pub(super) traffic: &'a mut Traffic,
}

/// How it ended, and the connection that it had then.
pub(super) struct Ended {
    pub(super) end: Result<End, Box<ClientError>>,
    pub(super) lease: Option<Lease>,
    /// What is owed on the connection that it had last, even if that is gone.
    pub(super) tracker: Tracker,
}

impl Ended {
    fn alone(end: End) -> Self {
        Self {
            end: Ok(end),
            lease: None,
            tracker: Tracker::default(),
        }
    }
}

/// Why the traffic of a lease pauses.
enum Pause {
    /// Between two transactions, with everything answered.
    Idle,
    /// The same, and the client has asked for nothing more for a while.
    Silent,
    /// The server refused what makes the connection the client's.
    Refused,
    End(End),
}

impl Sharer<'_> {
    /// Serves the client to its end. `early` is what it has sent already.
    pub(super) async fn run(&mut self, early: Vec<u8>) -> Ended {
        let mut pending = early;
        loop {
            if let Err(end) = self.message(&mut pending).await {
                return Ended::alone(end);
            }
            let lease = match checked_out(self.stream, self.client, self.pool, self.ends).await {
                Ok(lease) => lease,
                Err(NoServer::ClientGone) => return Ended::alone(End::ClientLost),
                Err(NoServer::Late) => return Ended::alone(End::Late(Late::Session)),
                Err(NoServer::Refused(error)) => {
                    return Ended {
                        end: Err(error),
                        lease: None,
                        tracker: Tracker::default(),
                    };
                }
            };
            // Boxed: a client that waits for nothing has no room for it.
            if let Some(ended) = Box::pin(self.lease(lease, std::mem::take(&mut pending))).await {
                return ended;
            }
        }
    }

    /// Waits until `pending` begins with a message that a server is needed for.
    async fn message(&mut self, pending: &mut Vec<u8>) -> Result<(), End> {
        loop {
            drop_copy_rest(pending);
            if is_worth_a_server(pending)? {
                if self.client.shutdown_now() != Shutdown::No {
                    return Err(End::Shutdown);
                }
                self.traffic.received += pending.len() as u64;
                return Ok(());
            }
            poll_fn(|cx| {
                if self.client.poll_shutdown(cx) != Shutdown::No {
                    return Poll::Ready(Err(End::Shutdown));
                }
                if let Some(deadlines) = &mut self.deadlines
                    && let Some(end) = deadlines.poll(cx, Standing::default(), self.key)
                {
                    return Poll::Ready(Err(end));
                }
                if self.stream.has_unsent() {
                    match self.stream.poll_flush(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(End::ClientLost)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                let read = self.stream.poll_read_with(cx, |_, bytes| {
                    pending.extend_from_slice(bytes);
                    !bytes.is_empty()
                });
                match read {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(true)) => Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false) | Err(_)) => Poll::Ready(Err(End::ClientLost)),
                }
            })
            .await?;
        }
    }

    /// Uses `lease` from `first` on until it can be given back; else it is how the client has ended.
    async fn lease(&mut self, mut lease: Lease, first: Vec<u8>) -> Option<Ended> {
        self.key.attach(lease.cancellable());
        lease.touch();
        lease.note_client(self.client.session);
        self.client.note_activity(Activity::Active(lease.id()));
        // What came first was counted when it came.
        let before = (self.traffic.received - first.len() as u64, self.traffic.sent);
        let mut exchange = Exchange::default();
        let served = self.serve(&mut lease, &mut exchange, first).await;
        self.count(exchange.statements());
        let Traffic { received, sent, .. } = *self.traffic;
        let (received, sent) = (received - before.0, sent - before.1);
        self.pool
            .used(exchange.transactions(), exchange.answered(), received, sent);
        self.client.note_activity(Activity::Idle);
        match served {
            Ok(None) => {
                self.traffic.answers += exchange.answered();
                if self.can_give_back(&mut lease).await {
                    lease.give_back_settled();
                }
                None
            }
            Ok(Some(end)) => Some(Box::pin(self.ended(Ok(end), lease, exchange)).await),
            Err(error) => Some(Box::pin(self.ended(Err(error), lease, exchange)).await),
        }
    }

    fn count(&self, used: StatementUse) {
        if used != StatementUse::default() {
            let metrics = self.pool.metrics();
            metrics.statements_found.inc_by(used.found.into());
            metrics.statements_prepared.inc_by(used.prepared.into());
            metrics.statements_evicted.inc_by(used.evicted.into());
            metrics.refused.inc_by(used.refused.into());
        }
    }

    /// Serves the client on `lease` until nothing ties it to that any more, or it ends.
    async fn serve(
        &mut self,
        lease: &mut Lease,
        exchange: &mut Exchange,
        first: Vec<u8>,
    ) -> Result<Option<End>, Box<ClientError>> {
        // Nothing of the client's is sent before this is answered: it might run under another client's settings.
        let texts = self.pool.texts();
        if self.pool.is_new() {
            // Whoever comes first may run code that others define.
            match Box::pin(self.pool.know_catalogs(lease)).await {
                Ok(()) => {}
                Err(Broken::NotTold { message, .. }) => {
                    debug!(session = %self.client.session, message, "the catalogs could not be read");
                }
                Err(error) => {
                    debug!(session = %self.client.session, %error, "the catalogs could not be read");
                    return Ok(Some(End::ServerLost(None)));
                }
            }
        }
        let server = &lease.session;
        if !server.is_ready_for(self.session.id, &self.session.settings, || texts.keep_constants())
            || server.is_behind(texts.surprises())
        {
            let handed_over = Box::pin(self.hand_over(lease)).await;
            handed_over.map_err(|error| Box::new(ClientError::settings(&error)))?;
        }
        if self.client.shutdown_now() != Shutdown::No {
            return Ok(Some(End::Shutdown));
        }
        let mut begins = Some(first);
        let mut pinned = None;
        let mut unsettled = None;
        loop {
            let pause = if unsettled.is_some() {
                Box::pin(self.traffic_for(UNSETTLED_PAUSE, lease, exchange)).await
            } else {
                self.traffic(lease, exchange, begins.take()).await
            };
            if let Pause::Idle = pause
                && self.may_go_on(lease, unsettled)
            {
                unsettled.get_or_insert_with(Instant::now);
                continue;
            }
            unsettled = None;
            let settled = match pause {
                Pause::Idle | Pause::Silent => self.settled(lease, exchange).await,
                Pause::Refused => {
                    let (state, message) = exchange.refusal().cloned().unwrap_or_default();
                    Err(SettingsError::Refused { state, message })
                }
                Pause::End(end) => return Ok(Some(end)),
            };
            match settled {
                Ok(()) => {}
                Err(error @ SettingsError::Refused { .. }) => {
                    warn!(session = %self.client.session, %error, "a client's settings could not be set again");
                    return Err(Box::new(ClientError::settings(&error)));
                }
                Err(error) => {
                    debug!(session = %self.client.session, %error, "what a session has could not be found out");
                    return Ok(Some(End::ServerLost(None)));
                }
            }
            match (self.mode, self.session.pins.reasons().next()) {
                (PoolMode::Session, _) | (PoolMode::Auto, Some(_)) => {}
                (PoolMode::Transaction, Some(reason)) => {
                    return Err(Box::new(ClientError::not_shareable(reason)));
                }
                (PoolMode::Transaction | PoolMode::Auto, None) => return Ok(None),
            }
            if self.client.shutdown_now() != Shutdown::No {
                return Ok(Some(End::Shutdown));
            }
            pinned.get_or_insert_with(|| {
                let metrics = self.pool.metrics();
                (
                    Counted::new(&metrics.pinned),
                    metrics.pinned_seconds.start_timer(),
                )
            });
        }
    }

    /// Makes the connection the client's. If the server refuses that, its last client's settings may be why: then once more
    /// without these.
    async fn hand_over(&self, lease: &mut Lease) -> Result<(), SettingsError> {
        self.pool.metrics().handovers.inc();
        let (id, settings) = (self.session.id, &self.session.settings);
        let surprises = self.pool.texts().surprises();
        if lease.session.is_behind(surprises) {
            lease.clean(Tracker::default(), Farewell::Said).await?;
            lease.touch();
            lease.session.known_as_of(surprises);
        }
        let keeps_constants = self.pool.texts().keep_constants();
        match lease.apply(id, settings, keeps_constants).await {
            Err(SettingsError::Refused { .. }) => {
                lease.clean(Tracker::default(), Farewell::Said).await?;
                lease.touch();
                lease.apply(id, settings, keeps_constants).await
            }
            done => done,
        }
    }

    /// What is left when the client ends on a lease.
    async fn ended(
        &mut self,
        end: Result<End, Box<ClientError>>,
        mut lease: Lease,
        exchange: Exchange,
    ) -> Ended {
        let is_outdated = self.pool.texts().are_outdated(&lease.session.ran);
        let is_judged = !is_outdated || (exchange.is_idle() && self.judge_again(&mut lease).await.is_ok());
        // What DISCARD ALL doesn't end would be the next client's.
        let is_clean = is_judged
            && !self.session.pins.are_lasting()
            && !self.session.run.effects.intersects(Effects::UNSEEN);
        if is_clean {
            return Ended {
                end,
                lease: Some(lease),
                tracker: exchange.into_tracker(),
            };
        }
        let mut tracker = exchange.into_tracker();
        if matches!(end, Ok(End::Terminated)) {
            self.traffic.answers += tracker.answered();
            let owed = std::mem::take(&mut tracker);
            tokio::task::spawn_local(lease.carry_out_and_close(owed));
        } else {
            tokio::task::spawn_local(lease.cancel_and_close());
        }
        Ended {
            end,
            lease: None,
            tracker,
        }
    }

    /// Whether what the next client runs on the connection will be its own.
    async fn can_give_back(&self, lease: &mut Lease) -> bool {
        // The client may have another one by the time it comes back.
        lease.session.lose_unnamed();
        if lease.session.settings.iter().any(|(name, _)| name == ENDS_IDLE)
            && let Err(error) = Box::pin(lease.apply(SessionId(0), &Settings::default(), false)).await
        {
            debug!(session = %self.client.session, %error, "a server connection is closed and not given back");
            return false;
        }
        // Else a cancel may still hit it.
        self.key.detach().await
    }

    /// Moves bytes both ways until everything is answered outside a transaction, or one side ends.
    async fn traffic(&mut self, lease: &mut Lease, exchange: &mut Exchange, first: Option<Vec<u8>>) -> Pause {
        let pool = self.pool.clone();
        let patience = pool.with_target(|target| target.timeouts.reset);
        let (mut first, mut gone) = (first, None);
        poll_fn(|cx| {
            let shutdown = self.client.poll_shutdown(cx);
            let connection: &mut Connection = &mut *lease;
            let mut turn = Turn {
                client: self.stream,
                server: &mut connection.stream,
                sides: Sides {
                    client: &mut self.session,
                    server: &mut connection.session,
                    texts: pool.texts(),
                },
                exchange,
                traffic: self.traffic,
                gone: &mut gone,
                patience,
            };
            if let Some(first) = first.take()
                && let Some(end) = turn.begin(&first, cx)
            {
                return Poll::Ready(Pause::End(end));
            }
            let deadlines = &mut self.deadlines;
            let feeds = !deadlines
                .as_mut()
                .is_some_and(|deadlines| deadlines.is_cancelling(cx));
            let served = turn.serve_client(cx);
            if let Some(pause) = served.or_else(|| if feeds { turn.feed_server(cx) } else { None }) {
                return Poll::Ready(pause);
            }
            if let Some(deadlines) = deadlines
                && let Some(end) = deadlines.poll(cx, turn.exchange.standing(), self.key)
            {
                return Poll::Ready(Pause::End(end));
            }
            match shutdown {
                Shutdown::Now => Poll::Ready(Pause::End(End::Shutdown)),
                Shutdown::Drain if turn.exchange.is_idle() => Poll::Ready(Pause::End(End::Shutdown)),
                Shutdown::No | Shutdown::Drain => Poll::Pending,
            }
        })
        .await
    }

    /// The same as [`Self::traffic`] for a client that may have nothing more to ask for.
    async fn traffic_for(&mut self, patience: Duration, lease: &mut Lease, exchange: &mut Exchange) -> Pause {
        match timeout(patience, self.traffic(lease, exchange, None)).await {
            Ok(pause) => pause,
            Err(_) if exchange.is_idle() => Pause::Silent,
            Err(_) => self.traffic(lease, exchange, None).await,
        }
    }

    /// Whether it keeps its connection.
    fn stays(&self) -> bool {
        self.mode == PoolMode::Session || !self.session.pins.is_empty()
    }

    /// Whether it must be judged again what the client has run, and no connection but this one is needed for that yet.
    fn may_go_on(&self, lease: &Lease, since: Option<Instant>) -> bool {
        // What was reset the client may read next, and it begins with what it came with.
        !self.stays()
            && !self.session.run.effects.intersects(Effects::RESET)
            && self.pool.texts().is_doubtful()
            && lease.session.ran.has_room()
            && !(since.is_some_and(|since| since.elapsed() > MAX_UNSETTLED) && lease.is_awaited())
    }
}

/// Takes out what is left of a COPY that has ended already: a server ignores it.
fn drop_copy_rest(pending: &mut Vec<u8>) {
    let mut rest = 0;
    while let Some([b'd' | b'c' | b'f', a, b, c, d]) =
        pending.get(rest..).and_then(|bytes| bytes.first_chunk())
    {
        let end = rest + HEADER_BYTES - 4 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if end > pending.len() || end < rest + HEADER_BYTES {
            break;
        }
        rest = end;
    }
    pending.drain(..rest);
}

/// Whether `pending` holds a message that a server is needed for; an error if the client ends with it. A statement is
/// awaited in full, as far as it is gathered at all, so that who is slow to send one holds no server meanwhile.
fn is_worth_a_server(pending: &[u8]) -> Result<bool, End> {
    let [tag, a, b, c, d, ..] = *pending else {
        return Ok(false);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if tag == b'X' {
        return Err(End::Terminated);
    }
    if !(4..=MAX_FRAME_BYTES).contains(&length) {
        return Err(end_of(crate::session::tracker::Ended::BadLength(BadLength {
            tag,
            length,
        })));
    }
    if !is_frontend(tag) {
        return Err(end_of(crate::session::tracker::Ended::BadType(tag)));
    }
    let awaited = (HEADER_BYTES - 4 + length as usize).min(MAX_STATEMENT_BYTES);
    Ok(pending.len() >= awaited)
}
