//! A client's login: everything up to the greeting, or the refusal.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info};

use super::admit::{Admitted, admit};
use super::attach::{NoServer, attach, greet};
use super::clients::{Client, Counted, Silent};
use super::console::{self, Visit, Visitor};
use super::deadlines::Late;
use super::error::ClientError;
use super::identify::Attribution;
use super::negotiate::{Conversation, LoginFailure, negotiate};
use super::presence::Presence;
use super::record::Recorder;
use super::route::{Routed, Wanted, Ways, route};
use super::serve::{LAST_WORDS, Session, say};
use super::shard::Shard;
use crate::audit::Event;
use crate::net::options::{self, Liveness};
use crate::net::stream::Stream;
use crate::session::settings;
use crate::session::supervision::Supervision;
use crate::session::tracker::Tracker;
use crate::sql::READ_ONLY;
use crate::upstream::connection::Farewell;
use crate::wire::reply;

/// How long a client beyond the limit may take to begin.
const OVER_LIMIT_PATIENCE: Duration = Duration::from_secs(5);

/// One who is in.
pub(super) enum LoggedIn {
    /// At a database.
    Session(Box<Session>),
    /// At the console.
    Console(Box<Visit>),
}

/// One who may come in.
enum Introduced {
    Database(Box<Admitted>),
    Console(Box<Visitor>),
    /// It was a cancel request, which is done.
    Cancel,
}

/// Everything up to the greeting; `None` if the client isn't let in, or didn't want to be.
pub(super) async fn log_in(
    shard: &Rc<Shard>,
    client: &Client,
    tcp: TcpStream,
    silent: Silent,
    over_limit: bool,
) -> Option<LoggedIn> {
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
    conversation.limit(shard.limits().login_timeout);
    let admitted = tokio::select! {
        admitted = introduce(shard, client, conversation, over_limit, attribution) => admitted,
        () = client.shutdown() => {
            metrics.abandoned.inc();
            return None;
        }
    };
    let session = match admitted {
        Ok(Introduced::Database(admitted)) => {
            let session = Box::pin(welcome(shard, client, *admitted)).await;
            session.map(LoggedIn::Session)
        }
        Ok(Introduced::Console(visitor)) => {
            let visit = Box::pin(welcome_to_console(shard, client, *visitor)).await;
            visit.map(LoggedIn::Console)
        }
        Ok(Introduced::Cancel) => None,
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
        shard.limits().silent_timeout
    };
    tokio::select! {
        first = timeout(patience, conversation.first_byte()) => matches!(first, Ok(Ok(()))),
        () = silent.evicted() => false,
        () = client.shutdown() => false,
    }
}

/// The steps up to the decision.
async fn introduce(
    shard: &Rc<Shard>,
    client: &Client,
    mut conversation: Conversation,
    over_limit: bool,
    attribution: Option<Attribution>,
) -> Result<Introduced, (Conversation, LoginFailure)> {
    let startup = match negotiate(&mut conversation, &shard.acceptor()).await {
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
            shard.shared.audit.record_unasked(|| Event::Cancel {
                session: client.session.to_string(),
                client: address(&conversation).map(|address| address.to_string()),
                outcome: outcome.label(),
            });
            // libpq takes the end of TCP without the end of TLS for a failure.
            let _ = timeout(LAST_WORDS, conversation.stream.close()).await;
            return Ok(Introduced::Cancel);
        }
        Err(failure) => return Err((conversation, failure)),
    };
    if over_limit {
        let error = ClientError::too_many_clients(shard.limits().max_clients);
        return Err((conversation, error.into()));
    }
    if !shard.shared.audit.admits() {
        return Err((conversation, ClientError::no_audit().into()));
    }
    let negotiated = conversation.settle(startup);
    let ways = Ways {
        local: negotiated.conversation.stream.tcp().local_addr().ok(),
        server_name: negotiated.server_name.as_deref(),
    };
    let targets = shard.targets();
    let wanted = match route(&negotiated.parameters, ways, &targets, &shard.absent()) {
        Ok(wanted) => wanted,
        Err(error) => return Err((negotiated.conversation, error.into())),
    };
    let identified = shard
        .identifier
        .identify(negotiated, client.session, wanted.user().as_str(), attribution)
        .await?;
    let from = address(&identified.conversation);
    let introduced = match wanted {
        Wanted::Database(request) => {
            let routed = Routed { identified, request };
            let admitted = admit(routed, shard.in_force(), &shard.targets(), &shard.absent(), from);
            admitted.map(|admitted| Introduced::Database(Box::new(admitted)))
        }
        Wanted::Console(user) => {
            let visitor = console::admit(shard, identified, user, from);
            visitor.map(|visitor| Introduced::Console(Box::new(visitor)))
        }
    };
    match &introduced {
        Ok(Introduced::Database(admitted)) => {
            let is_encrypted = admitted.conversation.stream.tls().is_some();
            client.enter(admitted.presence.clone(), is_encrypted);
        }
        Ok(Introduced::Console(visitor)) => {
            let is_encrypted = visitor.conversation.stream.tls().is_some();
            client.enter(visitor.presence.clone(), is_encrypted);
        }
        Ok(Introduced::Cancel) | Err(_) => {}
    }
    introduced.map_err(|refused| {
        let (identified, error) = *refused;
        (identified.conversation, error.into())
    })
}

/// The greeting at the console.
async fn welcome_to_console(shard: &Rc<Shard>, client: &Client, visitor: Visitor) -> Option<Box<Visit>> {
    let Visitor {
        mut conversation,
        presence,
        level,
        ends,
    } = visitor;
    console::greet(&mut conversation.reply);
    conversation.flush().await.ok()?;
    note_login(shard, client, &presence);
    let Conversation { stream, received, .. } = conversation;
    Some(Box::new(Visit {
        stream,
        received,
        level,
        began: Instant::now(),
        ends,
    }))
}

/// AuthenticationOk, the server's parameters, the cancel key, ReadyForQuery.
async fn welcome(shard: &Rc<Shard>, client: &Client, admitted: Admitted) -> Option<Box<Session>> {
    let Admitted {
        mut conversation,
        version,
        presence,
        settings,
        terms,
        ends,
    } = admitted;
    let (Some(pool), Some(key)) = (
        shard.pool(&presence.pool),
        shard.shared.cancels.register(version, presence.session.as_ref()),
    ) else {
        let error = match client.ending() {
            Some(_) => client.farewell(),
            None => ClientError::internal(),
        };
        refuse(shard, client, conversation, &error).await;
        return None;
    };
    if pool.is_disabled() {
        refuse(shard, client, conversation, &ClientError::disabled()).await;
        return None;
    }
    reply::authentication_ok(&mut conversation.reply);
    let person = presence.principal.person();
    let settings = if terms.read_only {
        settings::read_only(settings)
    } else {
        settings::settings(settings)
    };
    let settings = match person {
        Some(person) => settings::signed(person, &settings),
        None => settings,
    };
    let (settings, parameters) = match pool.greeting(&settings) {
        Some(known) => known,
        None => {
            // What follows may take its time; the client learns that it was let in.
            conversation.flush().await.ok()?;
            match attach(&mut conversation.stream, client, &pool, &settings, ends).await {
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
                Err(NoServer::Late) => {
                    refuse(shard, client, conversation, &ClientError::late(Late::Session)).await;
                    return None;
                }
                Err(NoServer::Refused(error)) => {
                    refuse(shard, client, conversation, &error).await;
                    return None;
                }
            }
        }
    };
    if terms.read_only && parameters.get(READ_ONLY).is_none() {
        refuse(shard, client, conversation, &ClientError::read_only_unseen()).await;
        return None;
    }
    let _ = presence.settings.set(settings.clone());
    pool.usage().has_come();
    greet(&parameters, key.key(), &mut conversation.reply);
    conversation.flush().await.ok()?;
    let person = person.map(Rc::from);
    note_login(shard, client, &presence);
    let began = Instant::now();
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
        person,
        began,
        ends,
        mode: terms.mode,
        supervision: Supervision::of(
            terms.read_only,
            Recorder::of(terms.statements, &shard.shared, client.session),
        ),
    }))
}

/// Records that a client is in.
fn note_login(shard: &Shard, client: &Client, presence: &Presence) {
    let Presence {
        principal,
        source,
        session,
        pool,
        address,
        admission,
        ..
    } = presence;
    let rule = admission.borrow().rule;
    let logins = &shard.shared.metrics.client.logins;
    logins.with_label_values(&[source.name()]).inc();
    shard.shared.audit.record(|| Event::Login {
        session: client.session.to_string(),
        principal: principal.to_string(),
        person: principal.person().map(str::to_owned),
        source: source.name(),
        ssm_session: session.as_ref().map(|session| session.id.to_string()),
        document: session.as_ref().map(|session| session.document.to_string()),
        client: address.map(|address| address.to_string()),
        target: pool.target.to_string(),
        database: pool.database.to_string(),
        user: pool.user.to_string(),
        rule,
    });
    let ssm_session = session.as_ref().map(|session| &*session.id);
    info!(session = %client.session, %principal, ssm_session, %pool, rule, "login");
}

/// Sends the error and ends the connection.
async fn refuse(shard: &Shard, client: &Client, mut conversation: Conversation, error: &ClientError) {
    info!(session = %client.session, kind = error.kind.label(), error = error.report.message, detail = error.report.detail, "login refused");
    shard.shared.audit.record_unasked(|| Event::Refusal {
        session: client.session.to_string(),
        client: address(&conversation).map(|address| address.to_string()),
        kind: error.kind.label(),
        state: error.report.state,
        message: error.report.message.clone(),
        detail: error.report.detail.clone(),
    });
    let before = conversation.reply.split();
    let _ = timeout(LAST_WORDS, conversation.stream.send(&before)).await;
    say(shard, &mut conversation.stream, error).await;
}

/// Where it comes from.
fn address(conversation: &Conversation) -> Option<SocketAddr> {
    conversation.stream.tcp().peer_addr().ok()
}
