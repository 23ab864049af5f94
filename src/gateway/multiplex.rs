//! A client that shares server connections: it has one while it needs one, from a message to the end of the transaction,
//! or for as long as something ties it to it.
//!
//! What passes is decided by [`Exchange`]; what a client has left behind is asked of the server here, between two
//! transactions, after the client has had its answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::attach::{NoServer, checked_out};
use super::cancel::Registered;
use super::clients::{Client, Counted};
use super::deadlines::{Deadlines, Phase};
use super::error::ClientError;
use super::pump::{End, READS_PER_TURN, Traffic, end_of};
use super::shard::Shutdown;
use crate::config::file::PoolMode;
use crate::ids::SessionId;
use crate::net::stream::Stream;
use crate::pin::{Question, Reason, Told};
use crate::session::client::ClientSession;
use crate::session::exchange::{Exchange, Sides, StatementUse};
use crate::session::settings::{Settings, changed, settings};
use crate::session::statements::{ClientStatements, MAX_STATEMENT_BYTES};
use crate::session::tracker::{Tracker, is_frontend};
use crate::sql::Effects;
use crate::upstream::connection::{Broken, Connection, Farewell, SettingsError};
use crate::upstream::pool::{Lease, ServerPool};
use crate::wire::frame::{BadLength, HEADER_BYTES, MAX_FRAME_BYTES};

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
    pub(super) deadlines: Option<Box<Deadlines>>,
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
    pub(super) async fn run(mut self, early: Vec<u8>) -> Ended {
        let mut pending = early;
        loop {
            if let Err(end) = self.message(&mut pending).await {
                return Ended::alone(end);
            }
            let lease = match checked_out(self.stream, self.client, self.pool).await {
                Ok(lease) => lease,
                Err(NoServer::ClientGone) => return Ended::alone(End::ClientLost),
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
                self.traffic.received += pending.len() as u64;
                return Ok(());
            }
            poll_fn(|cx| {
                if self.client.poll_shutdown(cx) != Shutdown::No {
                    return Poll::Ready(Err(End::Shutdown));
                }
                if let Some(deadlines) = &mut self.deadlines
                    && let Some(end) = deadlines.poll(cx, Phase::Idle, 0, self.key)
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
        let mut exchange = Exchange::default();
        let served = self.serve(&mut lease, &mut exchange, first).await;
        self.count(exchange.statements());
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
        if !lease
            .session
            .is_ready_for(self.session.id, &self.session.settings)
        {
            let handed_over = Box::pin(self.hand_over(lease)).await;
            handed_over.map_err(|error| Box::new(ClientError::settings(&error)))?;
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
            let Some(reason) = self.session.pins.reasons().next() else {
                return Ok(None);
            };
            if self.pool.target().pool.mode == PoolMode::Transaction {
                return Err(Box::new(ClientError::not_shareable(reason)));
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
        match lease.apply(id, settings).await {
            Err(SettingsError::Refused { .. }) => {
                lease.clean(Tracker::default(), Farewell::Said).await?;
                lease.touch();
                lease.apply(id, settings).await
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
        Ended {
            end,
            tracker: exchange.into_tracker(),
            lease: is_clean.then_some(lease),
        }
    }

    /// Whether what the next client runs on the connection will be its own.
    async fn can_give_back(&self, lease: &mut Lease) -> bool {
        // The client may have another one by the time it comes back.
        lease.session.lose_unnamed();
        if lease.session.settings.iter().any(|(name, _)| name == ENDS_IDLE)
            && let Err(error) = Box::pin(lease.apply(SessionId(0), &Settings::default())).await
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
        let mut first = first;
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
            };
            if let Some(first) = first.take()
                && let Some(end) = turn.begin(&first, cx)
            {
                return Poll::Ready(Pause::End(end));
            }
            if let Some(pause) = turn.serve_client(cx).or_else(|| turn.feed_server(cx)) {
                return Poll::Ready(pause);
            }
            if let Some(deadlines) = &mut self.deadlines {
                let phase = Phase::of(turn.exchange.is_idle(), turn.exchange.owes_ready());
                if let Some(end) = deadlines.poll(cx, phase, turn.exchange.answered(), self.key) {
                    return Poll::Ready(Pause::End(end));
                }
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

    /// Finds out what the client has left behind, unless it is known to have left nothing.
    #[inline]
    async fn settled(&mut self, lease: &mut Lease, exchange: &mut Exchange) -> Result<(), SettingsError> {
        if self.session.run.effects.is_empty() && !self.pool.texts().are_outdated(&lease.session.ran) {
            lease.session.ran.clear();
            self.session.leaves_nothing();
            return Ok(());
        }
        Box::pin(self.settle_and_tell(lease, exchange)).await
    }

    /// The same as [`Self::settle`]; what the client has to hear of that, and notifications that come meanwhile, are passed on.
    async fn settle_and_tell(
        &mut self,
        lease: &mut Lease,
        exchange: &mut Exchange,
    ) -> Result<(), SettingsError> {
        self.settle(lease).await?;
        let mut news = lease.take_notifications();
        if !self.session.pins.is_empty() {
            // Nobody will hand the connection over to it.
            let mut sides = Sides {
                client: &mut self.session,
                server: &mut lease.session,
                texts: self.pool.texts(),
            };
            exchange.begin(&mut sides, &mut news);
        }
        if !news.is_empty() {
            self.traffic.sent += news.len() as u64;
            // A client that is gone shows at the next read.
            let _ = poll_fn(|cx| Poll::Ready(self.stream.poll_send(cx, &news))).await;
        }
        Ok(())
    }

    /// Whether it must be judged again what the client has run, and no connection but this one is needed for that yet.
    fn may_go_on(&self, lease: &Lease, since: Option<Instant>) -> bool {
        // What was reset the client may read next, and it begins with what it came with.
        self.session.pins.is_empty()
            && !self.session.run.effects.intersects(Effects::RESET)
            && self.pool.texts().is_doubtful()
            && lease.session.ran.has_room()
            && !(since.is_some_and(|since| since.elapsed() > MAX_UNSETTLED) && lease.is_awaited())
    }

    /// Finds out what the client has left behind, as far as what it has run may have left anything.
    async fn settle(&mut self, lease: &mut Lease) -> Result<(), SettingsError> {
        let is_outdated = self.pool.texts().are_outdated(&lease.session.ran);
        let before = self.session.pins;
        // Who is tied anyway needs it only when nothing ties it any more.
        if is_outdated && (before.is_empty() || !lease.session.ran.has_room()) {
            self.judge_again(lease).await?;
        }
        self.ask(lease).await?;
        if self.session.pins.is_empty() && self.pool.texts().are_outdated(&lease.session.ran) {
            self.judge_again(lease).await?;
            self.ask(lease).await?;
        }
        let metrics = self.pool.metrics();
        let pins = self.session.pins;
        for reason in pins.reasons().filter(|reason| !before.contains(*reason)) {
            debug!(session = %self.client.session, reason = reason.label(), "a client keeps its server connection");
            if let Some(pins) = metrics.pins.get(reason as usize) {
                pins.inc();
            }
        }
        if !pins.is_empty() {
            // It stays, so nobody will hand the connection over to it.
            let (id, wanted) = (self.session.id, self.session.settings.clone());
            lease.apply(id, &wanted).await?;
        }
        Ok(())
    }

    /// Judges what the client has run by the catalogs as they are now.
    async fn judge_again(&mut self, lease: &mut Lease) -> Result<(), Broken> {
        let changes = self.session.run.effects.intersects(Effects::DDL);
        match self.pool.know_catalogs(lease).await {
            Ok(()) => {
                let texts = self.pool.texts();
                texts.judge_again(&mut self.session.run, self.session.id, &lease.session);
                if !changes && self.session.run.effects.intersects(Effects::DDL) {
                    texts.changed();
                }
            }
            Err(Broken::NotTold(message)) => {
                debug!(session = %self.client.session, message, "the catalogs could not be read");
                self.session.run.is_unknown();
            }
            Err(error) => return Err(error),
        }
        lease.session.ran.clear();
        lease.session.noted(self.session.id, self.session.run.effects);
        Ok(())
    }

    /// Asks the server what the session has, as far as that may have changed, and takes it over.
    async fn ask(&mut self, lease: &mut Lease) -> Result<(), Broken> {
        let run = &self.session.run;
        let ties = !self.session.pins.is_empty();
        let asks_all = run.unnamed
            || run
                .effects
                .intersects(Effects::PROBE | Effects::DYNAMIC_SETTING | Effects::DOUBT)
            || (run.effects.intersects(Effects::RESET) && !self.session.startup.is_empty())
            || (ties && run.effects.intersects(Effects::ENDS | Effects::DISCARD));
        let mut pins = self.session.pins;
        if run.discarded {
            pins = pins.without_discarded();
        }
        let mut custom = Vec::new();
        let question = if asks_all {
            let present = lease.session.settings.iter().map(|(name, _)| name);
            let known = run.named.iter().chain(present);
            custom.extend(known.filter(|name| name.contains('.')).cloned());
            custom.extend(self.pool.texts().custom().iter().cloned());
            Some(Question::Everything {
                custom: &custom,
                user: self.pool.key().user.as_str(),
            })
        } else {
            (!run.named.is_empty()).then_some(Question::Settings(&run.named))
        };
        if let Some(question) = question {
            self.pool.metrics().probes.inc();
            match lease.tell(&question).await {
                Ok(told) if asks_all => {
                    pins.seen(told.found);
                    if told.prepared == Some(0) && !lease.session.prepared.is_empty() {
                        // Code that no text shows has run DEALLOCATE ALL.
                        self.session.statements = ClientStatements::default();
                    }
                    self.session.settings = all_settled(lease, &self.session.startup, told);
                }
                Ok(told) => {
                    let settings = changed(&self.session.settings, told.settings);
                    lease.session.settled(settings.clone());
                    self.session.settings = settings;
                }
                Err(Broken::NotTold(message)) => {
                    debug!(session = %self.client.session, message, "the server did not tell");
                    pins.add(Reason::Unknown);
                }
                Err(error) => return Err(error),
            }
        }
        self.session.settle(pins);
        if !self.pool.texts().are_outdated(&lease.session.ran) {
            lease.session.ran.clear();
        }
        Ok(())
    }
}

/// Notes the settings that the server has `told` of, all that there are; those that the client wants, which began with `startup`.
fn all_settled(lease: &mut Lease, startup: &Settings, told: Told) -> Settings {
    lease.session.settled(settings(told.settings));
    if told.prepared != Some(lease.session.prepared.len()) {
        lease.session.prepared.doubt();
    }
    // What isn't set was reset: to what the client began with.
    let present = &lease.session.settings;
    let is_missing = |name: &String| !present.iter().any(|(known, _)| known == name);
    let missing: Vec<_> = startup
        .iter()
        .filter(|(name, _)| is_missing(name))
        .cloned()
        .collect();
    if missing.is_empty() {
        present.clone()
    } else {
        changed(present, missing)
    }
}

/// Both sides for one poll.
struct Turn<'a> {
    client: &'a mut Stream,
    server: &'a mut Stream,
    sides: Sides<'a>,
    exchange: &'a mut Exchange,
    traffic: &'a mut Traffic,
}

impl Turn<'_> {
    /// Sends what makes the connection the client's, and its first bytes.
    fn begin(&mut self, first: &[u8], cx: &mut Context<'_>) -> Option<End> {
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
    fn serve_client(&mut self, cx: &mut Context<'_>) -> Option<Pause> {
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

    #[inline]
    fn feed_server(&mut self, cx: &mut Context<'_>) -> Option<Pause> {
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
                if self.exchange.is_undecided() {
                    return None;
                }
                continue;
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
