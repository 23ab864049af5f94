//! One client from its first byte to its last.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info};

use super::admit::{Admitted, admit};
use super::attach::{NoServer, attach, greet};
use super::cancel::Registered;
use super::clients::{Client, Counted, Silent};
use super::deadlines::Deadlines;
use super::error::ClientError;
use super::identify::{Attribution, Identified};
use super::multiplex::Sharer;
use super::negotiate::{Conversation, LoginFailure, negotiate};
use super::pump::{End, First, Traffic, first_message, look_at, pump};
use super::route::{Routed, route};
use super::seats::Seat;
use super::shard::Shard;
use crate::net::options::{self, Liveness};
use crate::net::stream::Stream;
use crate::session::client::ClientSession;
use crate::session::parameters::Parameters;
use crate::session::settings::{self, Settings};
use crate::session::tracker::Tracker;
use crate::upstream::connection::Farewell;
use crate::upstream::pool::{Lease, ServerPool};
use crate::wire::reply;

/// How long a client that is told of an error may take to read it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a client beyond the limit may take to begin.
const OVER_LIMIT_PATIENCE: Duration = Duration::from_secs(5);

/// A client that is logged in.
struct Session {
    stream: Stream,
    key: Registered,
    pool: Rc<ServerPool>,
    settings: Settings,
    /// What it was told of the server.
    greeted: Rc<Parameters>,
    /// What it sent together with its login, before it could know that it was let in.
    early: Vec<u8>,
    lease: Option<Box<Lease>>,
    /// Who it is, for `application_name`.
    person: Option<Rc<str>>,
    /// Counts for as long as it is here.
    _seat: Option<Seat>,
    /// When it must end.
    ends: Option<Instant>,
}

/// Serves the client that has connected with `tcp`. `over_limit`: there are too many, it is only told so.
pub(super) async fn serve(
    shard: Rc<Shard>,
    tcp: TcpStream,
    client: Client,
    silent: Silent,
    over_limit: bool,
) {
    if let Some(session) = Box::pin(log_in(&shard, &client, tcp, silent, over_limit)).await {
        session.run(&shard, &client).await;
    }
}

/// Everything up to the greeting; `None` if the client isn't let in, or didn't want to be.
async fn log_in(
    shard: &Rc<Shard>,
    client: &Client,
    tcp: TcpStream,
    silent: Silent,
    over_limit: bool,
) -> Option<Box<Session>> {
    let loopback = tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    // The kernel of this host tells when a loopback peer ends; it needs no asking.
    let tuned = if loopback {
        tcp.set_nodelay(true)
    } else {
        options::apply(&tcp, Liveness::CLIENT)
    };
    if let Err(error) = tuned {
        debug!(session = %client.session, %error, "socket options could not be set");
    }
    let metrics = &shard.shared.metrics.client;
    let attribution = if over_limit {
        None
    } else {
        shard.identifier.attribute(&tcp)
    };
    let mut conversation = Conversation::new(Stream::plain(tcp));
    if !speaks(shard, client, &mut conversation, silent, over_limit).await {
        metrics.abandoned.inc();
        return None;
    }
    let began = Instant::now();
    let _logging_in = Counted::new(&metrics.logging_in);
    conversation.limit(shard.shared.limits.login_timeout);
    let admitted = tokio::select! {
        admitted = introduce(shard, client, conversation, over_limit, attribution) => admitted,
        () = client.shutdown() => {
            metrics.abandoned.inc();
            return None;
        }
    };
    let session = match admitted {
        Ok(Some(admitted)) => Box::pin(welcome(shard, client, admitted)).await,
        Ok(None) => None,
        Err((conversation, LoginFailure::Refused(error))) => {
            refuse(shard, client, conversation, &error).await;
            None
        }
        Err((_, LoginFailure::Gone(error))) => {
            metrics.abandoned.inc();
            debug!(session = %client.session, error = error.map(|error| error.to_string()), "the client went away during its login");
            None
        }
    };
    if session.is_some() {
        metrics.login_seconds.observe(began.elapsed().as_secs_f64());
    }
    session
}

/// Waits for the first byte. Clients that connect and say nothing are normal: SSM's agent may dial long before a person
/// does. They are kept, but for those beyond the limit, and until their place is wanted.
async fn speaks(
    shard: &Shard,
    client: &Client,
    conversation: &mut Conversation,
    silent: Silent,
    over_limit: bool,
) -> bool {
    let patience = if over_limit {
        OVER_LIMIT_PATIENCE
    } else {
        shard.shared.limits.silent_timeout
    };
    tokio::select! {
        first = timeout(patience, conversation.first_byte()) => matches!(first, Ok(Ok(()))),
        () = silent.evicted() => false,
        () = client.shutdown() => false,
    }
}

/// The steps up to the decision; `None` for a cancel request, which is done then.
async fn introduce(
    shard: &Rc<Shard>,
    client: &Client,
    mut conversation: Conversation,
    over_limit: bool,
    attribution: Option<Attribution>,
) -> Result<Option<Admitted>, (Conversation, LoginFailure)> {
    let startup = match negotiate(&mut conversation, &shard.shared.acceptor).await {
        Ok(Ok(startup)) => startup,
        Ok(Err(key)) => {
            let caller = match attribution {
                Some(attribution) => attribution.end().await.ok(),
                None => None,
            };
            let outcome = shard.shared.cancels.cancel(&key, caller.as_ref()).await;
            shard
                .shared
                .metrics
                .client
                .cancels
                .with_label_values(&[outcome.label()])
                .inc();
            info!(session = %client.session, outcome = outcome.label(), "cancel request");
            // libpq takes the end of TCP without the end of TLS for a failure.
            let _ = timeout(LAST_WORDS, conversation.stream.close()).await;
            return Ok(None);
        }
        Err(failure) => return Err((conversation, failure)),
    };
    if over_limit {
        let error = ClientError::too_many_clients(shard.shared.limits.max_clients);
        return Err((conversation, error.into()));
    }
    let negotiated = conversation.settle(startup);
    let request = route(
        &negotiated.parameters,
        negotiated.server_name.as_deref(),
        &shard.shared.targets,
    );
    let request = match request {
        Ok(request) => request,
        Err(error) => return Err((negotiated.conversation, error.into())),
    };
    let identified = shard
        .identifier
        .identify(negotiated, client.session, request.user.as_str(), attribution)
        .await?;
    match admit(
        Routed { identified, request },
        &shard.shared.rules,
        &shard.shared.seats,
    ) {
        Ok(admitted) => Ok(Some(admitted)),
        Err(refused) => {
            let (identified, error) = *refused;
            Err((identified.conversation, error.into()))
        }
    }
}

/// AuthenticationOk, the server's parameters, the cancel key, ReadyForQuery.
async fn welcome(shard: &Rc<Shard>, client: &Client, admitted: Admitted) -> Option<Box<Session>> {
    let Admitted {
        identified,
        target,
        pool,
        settings,
        rule,
        seat,
        max_duration,
    } = admitted;
    let Identified {
        mut conversation,
        version,
        principal,
        source,
        session,
    } = identified;
    let (Some(pool), Some(key)) = (
        shard.pool(&target, &pool),
        shard.shared.cancels.register(version, session.as_ref()),
    ) else {
        refuse(shard, client, conversation, &ClientError::internal()).await;
        return None;
    };
    reply::authentication_ok(&mut conversation.reply);
    let person = principal.person();
    let settings = match person {
        Some(person) => settings::signed(person, &settings::settings(settings)),
        None => settings::settings(settings),
    };
    let (settings, parameters) = match pool.greeting(&settings) {
        Some(known) => known,
        None => {
            // What follows may take its time; the client learns that it was let in.
            conversation.flush().await.ok()?;
            match attach(&mut conversation.stream, client, &pool, &settings).await {
                Ok(lease) => {
                    let parameters = lease.session.parameters.clone();
                    // Whoever logs in and asks nothing keeps no server.
                    if pool.is_shared() {
                        lease.give_back_settled();
                    } else {
                        lease.give_back(Tracker::default(), Farewell::Said).await;
                    }
                    (settings, parameters)
                }
                Err(NoServer::ClientGone) => return None,
                Err(NoServer::Refused(error)) => {
                    refuse(shard, client, conversation, &error).await;
                    return None;
                }
            }
        }
    };
    greet(&parameters, key.key(), &mut conversation.reply);
    conversation.flush().await.ok()?;
    shard
        .shared
        .metrics
        .client
        .logins
        .with_label_values(&[source.name()])
        .inc();
    let ssm_session = session.as_ref().map(|session| &*session.id);
    info!(session = %client.session, %principal, ssm_session, pool = %pool.key(), rule, "login");
    let Conversation {
        stream,
        received: early,
        ..
    } = conversation;
    Some(Box::new(Session {
        stream,
        key,
        pool,
        settings,
        greeted: parameters,
        early,
        lease: None,
        person: person.map(Rc::from),
        _seat: seat,
        ends: max_duration.map(|longest| Instant::now() + longest),
    }))
}

impl Session {
    async fn run(mut self: Box<Self>, shard: &Rc<Shard>, client: &Client) {
        let mut tracker = Tracker::default();
        let mut traffic = Traffic::default();
        let end = self.exchange(client, &mut tracker, &mut traffic).await;
        let metrics = &shard.shared.metrics.client;
        metrics.received_bytes.inc_by(traffic.received);
        metrics.sent_bytes.inc_by(traffic.sent);
        metrics.answers.inc_by(traffic.answers + tracker.answered());
        let reason = match &end {
            Ok(end) => end.to_string(),
            Err(error) => error.report.message.clone(),
        };
        info!(session = %client.session, reason, received = traffic.received, sent = traffic.sent, "disconnect");
        Box::pin(self.end(shard, end, tracker)).await;
    }

    /// Tells the client why, if it isn't its own doing, and gives the server back.
    async fn end(self: Box<Self>, shard: &Shard, end: Result<End, Box<ClientError>>, tracker: Tracker) {
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
            Ok(End::Shutdown) => (Some(Farewell::None), Some(ClientError::shutdown())),
            // A server that has said why it goes has said enough.
            Ok(End::ServerLost(None)) if tracker.ends_in_error() => (None, None),
            Ok(End::ServerLost(_) | End::ServerBroke(_)) => (None, Some(ClientError::server_lost())),
            Err(error) => (Some(Farewell::None), Some(*error)),
        };
        if let Some(error) = error.filter(|_| tracker.is_between_answers()) {
            say(shard, &mut stream, &error).await;
        } else if farewell.is_none() {
            // The server's last words may still be on their way.
            let _ = timeout(LAST_WORDS, stream.close()).await;
        }
        drop(stream);
        let is_untouched = key.detach().await;
        match (lease, farewell) {
            (Some(lease), Some(farewell)) if is_untouched => lease.give_back(tracker, farewell).await,
            (Some(lease), Some(_)) => lease.cancel_and_close().await,
            _ => {}
        }
    }

    async fn exchange(
        &mut self,
        client: &Client,
        tracker: &mut Tracker,
        traffic: &mut Traffic,
    ) -> Result<End, Box<ClientError>> {
        let early = std::mem::take(&mut self.early);
        if self.pool.is_shared() {
            return Box::pin(self.share(client, early, tracker, traffic)).await;
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
}

impl Session {
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
        let mut lease = match Box::pin(attach(&mut self.stream, client, &self.pool, &self.settings)).await {
            Ok(lease) => lease,
            Err(NoServer::ClientGone) => return Ok(End::ClientLost),
            Err(NoServer::Refused(error)) => return Err(error),
        };
        self.key.attach(lease.cancellable());
        lease.touch();
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

    /// Serves a client that shares its server connections with others.
    fn deadlines(&self, client: &Client) -> Option<Box<Deadlines>> {
        let timeouts = &self.pool.target().timeouts;
        Deadlines::of(
            timeouts,
            self.ends.map(Into::into),
            client.session,
            self.pool.metrics(),
        )
    }

    async fn share(
        &mut self,
        client: &Client,
        early: Vec<u8>,
        tracker: &mut Tracker,
        traffic: &mut Traffic,
    ) -> Result<End, Box<ClientError>> {
        let deadlines = self.deadlines(client);
        let sharer = Sharer {
            stream: &mut self.stream,
            client,
            key: &self.key,
            pool: &self.pool,
            session: ClientSession::new(
                client.session,
                self.settings.clone(),
                self.greeted.clone(),
                self.person.clone(),
            ),
            deadlines,
            traffic,
        };
        let ended = sharer.run(early).await;
        self.lease = ended.lease.map(Box::new);
        *tracker = ended.tracker;
        ended.end
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

/// Sends the error and ends the connection.
async fn refuse(shard: &Shard, client: &Client, mut conversation: Conversation, error: &ClientError) {
    info!(session = %client.session, kind = error.kind.label(), error = error.report.message, detail = error.report.detail, "login refused");
    let before = conversation.reply.split();
    let _ = timeout(LAST_WORDS, conversation.stream.send(&before)).await;
    say(shard, &mut conversation.stream, error).await;
}

async fn say(shard: &Shard, stream: &mut Stream, error: &ClientError) {
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
