//! One client from its first byte to its last.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::info;

use super::attach::{NoServer, attach};
use super::cancel::Registered;
use super::clients::{Client, Silent};
use super::deadlines::{Deadlines, Late};
use super::error::ClientError;
use super::login::{LoggedIn, log_in};
use super::multiplex::Sharer;
use super::presence::Activity;
use super::pump::{End, First, Traffic, first_message, look_at, pump};
use super::shard::{Shard, Shutdown};
use crate::audit::Event;
use crate::ids::SessionId;
use crate::net::stream::Stream;
use crate::pool::PoolMode;
use crate::session::client::ClientSession;
use crate::session::parameters::Parameters;
use crate::session::settings::Settings;
use crate::session::supervision::Supervision;
use crate::session::tracker::Tracker;
use crate::upstream::connection::Farewell;
use crate::upstream::pool::{Lease, ServerPool};
use crate::wire::reply;

/// How long a client that is told of an error may take to read it.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// A client that is logged in.
pub(super) struct Session {
    pub(super) stream: Stream,
    pub(super) key: Registered,
    pub(super) pool: Rc<ServerPool>,
    pub(super) settings: Settings,
    /// What it was told of the server.
    pub(super) greeted: Rc<Parameters>,
    /// What it sent together with its login, before it could know that it was let in.
    pub(super) early: Vec<u8>,
    pub(super) lease: Option<Box<Lease>>,
    /// Who it is, for `application_name`.
    pub(super) person: Option<Rc<str>>,
    pub(super) began: Instant,
    /// When it must end.
    pub(super) ends: Option<tokio::time::Instant>,
    /// When it gives its server connection back, if not as the pool says.
    pub(super) mode: Option<PoolMode>,
    /// What its rule holds it to.
    pub(super) supervision: Option<Box<Supervision>>,
}

/// Serves the client that has connected with `tcp`. `over_limit`: there are too many, it is only told so.
pub(super) async fn serve(
    shard: Rc<Shard>,
    tcp: TcpStream,
    client: Client,
    silent: Silent,
    over_limit: bool,
) {
    match Box::pin(log_in(&shard, &client, tcp, silent, over_limit)).await {
        Some(LoggedIn::Session(session)) => session.run(&shard, &client).await,
        // Boxed: few come there.
        Some(LoggedIn::Console(visit)) => Box::pin(visit.run(&shard, &client)).await,
        None => {}
    }
}

/// What is recorded when a client that was in is gone, also if nobody gets to serve it to its end: when the process ends, or a task
/// panics.
pub(super) struct Departure<'a> {
    shard: &'a Shard,
    client: SessionId,
    began: Instant,
}

impl<'a> Departure<'a> {
    pub(super) fn of(shard: &'a Shard, client: SessionId, began: Instant) -> Self {
        Self { shard, client, began }
    }

    pub(super) fn record(self, reason: String, traffic: &Traffic) {
        self.say(reason, traffic);
        std::mem::forget(self);
    }

    fn say(&self, reason: String, traffic: &Traffic) {
        self.shard.shared.audit.record(|| Event::Disconnect {
            session: self.client.to_string(),
            reason,
            received: traffic.received,
            sent: traffic.sent,
            duration_ms: self.began.elapsed().as_millis() as u64,
        });
    }
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        self.say("it was not served to its end".to_owned(), &Traffic::default());
    }
}

impl Session {
    async fn run(mut self: Box<Self>, shard: &Rc<Shard>, client: &Client) {
        let mut traffic = Traffic::default();
        let departure = Departure::of(shard, client.session, self.began);
        // Boxed: only one of them is needed.
        let (end, tracker) = if self.pool.is_shared() {
            Box::pin(self.share(client, &mut traffic)).await
        } else {
            Box::pin(self.stay_alone(client, &mut traffic)).await
        };
        let end = match end {
            Ok(End::Shutdown) => Ok(client.ending().map_or(End::Shutdown, End::Ended)),
            end => end,
        };
        if !self.pool.is_shared() {
            let (transactions, queries) = (tracker.transactions(), tracker.answered());
            self.pool
                .used(transactions, queries, traffic.received, traffic.sent);
        }
        let metrics = &shard.shared.metrics.client;
        metrics.received_bytes.inc_by(traffic.received);
        metrics.sent_bytes.inc_by(traffic.sent);
        metrics.answers.inc_by(traffic.answers + tracker.answered());
        let reason = match &end {
            Ok(end) => end.to_string(),
            Err(error) => error.report.message.clone(),
        };
        info!(session = %client.session, reason, received = traffic.received, sent = traffic.sent, "disconnect");
        departure.record(reason, &traffic);
        Box::pin(self.end(shard, client, end, tracker)).await;
    }

    /// Tells the client why, if it isn't its own doing, and gives the server back.
    async fn end(
        self: Box<Self>,
        shard: &Shard,
        client: &Client,
        end: Result<End, Box<ClientError>>,
        tracker: Tracker,
    ) {
        let Self {
            mut stream,
            key,
            lease,
            ..
        } = *self;
        let (farewell, error) = match end {
            Ok(End::Terminated) => (Some(Farewell::Said), None),
            Ok(End::ClientLost) => (Some(Farewell::None), None),
            Ok(End::ClientBroke(error)) => (Some(Farewell::None), Some(*error)),
            Ok(End::Late(late)) => (Some(Farewell::None), Some(ClientError::late(late))),
            Ok(End::Shutdown | End::Ended(_)) => (Some(Farewell::None), Some(client.farewell())),
            // A server that has said why it goes has said enough.
            Ok(End::ServerLost(None)) if tracker.ends_in_error() => (None, None),
            Ok(End::ServerLost(_) | End::ServerBroke(_)) => (None, Some(ClientError::server_lost())),
            Err(error) => (Some(Farewell::None), Some(*error)),
        };
        let error = error.filter(|_| tracker.is_between_answers());
        let tells = async move {
            if let Some(error) = error {
                say(shard, &mut stream, &error).await;
            } else if farewell.is_none() {
                // The server's last words may still be on their way.
                let _ = timeout(LAST_WORDS, stream.close()).await;
            }
        };
        // Whatever the client does with what it is told, its query ends, and others may have the connection.
        let gives_back = async move {
            let is_untouched = key.detach().await;
            match (lease, farewell) {
                (Some(lease), Some(farewell)) if is_untouched => lease.give_back(tracker, farewell).await,
                (Some(lease), Some(_)) => lease.cancel_and_close().await,
                _ => {}
            }
        };
        tokio::join!(tells, gives_back);
    }

    /// Serves a client that keeps its server connection; and what is owed on that.
    async fn stay_alone(
        &mut self,
        client: &Client,
        traffic: &mut Traffic,
    ) -> (Result<End, Box<ClientError>>, Tracker) {
        let mut tracker = Tracker::default();
        let end = self.alone(client, &mut tracker, traffic).await;
        (end, tracker)
    }

    async fn alone(
        &mut self,
        client: &Client,
        tracker: &mut Tracker,
        traffic: &mut Traffic,
    ) -> Result<End, Box<ClientError>> {
        let early = std::mem::take(&mut self.early);
        if client.shutdown_now() != Shutdown::No {
            return Ok(End::Shutdown);
        }
        let mut deadlines = self.deadlines(client);
        let begun = (!early.is_empty()).then(|| look_at(&early, tracker)).flatten();
        drop(early);
        let first = match begun {
            Some(first) => first,
            None => first_message(&mut self.stream, client, tracker, &mut deadlines, &self.key).await,
        };
        match first {
            // Boxed: who asks nothing needs no room for that.
            First::Bytes(first, end) => {
                Box::pin(self.keep(client, first, end, tracker, traffic, deadlines)).await
            }
            First::End(end) => Ok(end),
        }
    }

    /// Serves a client that keeps its server connection from its `first` bytes on.
    async fn keep(
        &mut self,
        client: &Client,
        first: Vec<u8>,
        end: Option<End>,
        tracker: &mut Tracker,
        traffic: &mut Traffic,
        mut deadlines: Option<Box<Deadlines>>,
    ) -> Result<End, Box<ClientError>> {
        traffic.received += first.len() as u64;
        let mut lease = match Box::pin(attach(
            &mut self.stream,
            client,
            &self.pool,
            &self.settings,
            self.ends,
        ))
        .await
        {
            Ok(lease) => lease,
            Err(NoServer::ClientGone) => return Ok(End::ClientLost),
            Err(NoServer::Late) => return Ok(End::Late(Late::Session)),
            Err(NoServer::Refused(error)) => return Err(error),
        };
        if client.shutdown_now() != Shutdown::No {
            lease.give_back(Tracker::default(), Farewell::Said).await;
            return Ok(End::Shutdown);
        }
        self.key.attach(lease.cancellable());
        lease.touch();
        lease.note_client(client.session);
        client.note_activity(Activity::Active(lease.id()));
        let corrections = corrections(&lease.session.parameters, &self.greeted);
        let sent = poll_fn(|cx| Poll::Ready(lease.stream.poll_send(cx, &first))).await;
        let corrected = poll_fn(|cx| Poll::Ready(self.stream.poll_send(cx, &corrections))).await;
        self.lease = Some(Box::new(lease));
        if let Err(error) = sent {
            return Ok(End::ServerLost(Some(error)));
        }
        if corrected.is_err() {
            return Ok(End::ClientLost);
        }
        if let Some(end) = end {
            return Ok(end);
        }
        let Some(lease) = &mut self.lease else {
            return Ok(End::ClientLost);
        };
        let (stream, key) = (&mut self.stream, &self.key);
        Ok(pump(stream, client, lease, tracker, traffic, &mut deadlines, key).await)
    }

    fn deadlines(&self, client: &Client) -> Option<Box<Deadlines>> {
        let timeouts = self.pool.with_target(|target| target.timeouts);
        Deadlines::of(&timeouts, self.ends, client.session, self.pool.metrics())
    }

    /// Serves a client that shares its server connections with others; and what is owed on the last.
    async fn share(
        &mut self,
        client: &Client,
        traffic: &mut Traffic,
    ) -> (Result<End, Box<ClientError>>, Tracker) {
        let early = std::mem::take(&mut self.early);
        let deadlines = self.deadlines(client);
        let mut sharer = Sharer {
            stream: &mut self.stream,
            client,
            key: &self.key,
            pool: &self.pool,
            session: ClientSession::new(
                client.session,
                self.settings.clone(),
                self.greeted.clone(),
                self.person.clone(),
                self.supervision.take(),
            ),
            mode: self
                .mode
                .unwrap_or_else(|| self.pool.with_target(|target| target.pool.mode)),
            deadlines,
            ends: self.ends,
            traffic,
        };
        let ended = sharer.run(early).await;
        self.lease = ended.lease.map(Box::new);
        (ended.end, ended.tracker)
    }
}

/// What a client was told of the server and isn't so, on the server that it has got.
fn corrections(parameters: &Parameters, greeted: &Parameters) -> BytesMut {
    let mut message = BytesMut::new();
    for (name, value) in parameters.differing_from(greeted) {
        reply::parameter_status(name, value, &mut message);
    }
    message
}

pub(super) async fn say(shard: &Shard, stream: &mut Stream, error: &ClientError) {
    shard
        .shared
        .metrics
        .client
        .errors
        .with_label_values(&[error.kind.label()])
        .inc();
    let mut message = BytesMut::new();
    reply::report(&error.report, &mut message);
    let last_words = async {
        stream.send(&message).await?;
        stream.close().await?;
        // Closing with unread bytes would reset the connection and with it the message on its way.
        let mut rest = Vec::new();
        while stream.read_into(&mut rest).await? > 0 {
            rest.clear();
        }
        Ok::<_, crate::net::stream::StreamError>(())
    };
    let _ = timeout(LAST_WORDS, last_words).await;
}
