//! The second step: who is it? The sources of identity are tried in the order of the configuration; none of them
//! succeeding is a refusal.

use std::net::{IpAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::{digest, hmac, rand};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tracing::info;
use zeroize::Zeroizing;

use super::error::ClientError;
use super::negotiate::{Conversation, LoginFailure, Negotiated};
use crate::aws::ssm::Sessions;
use crate::aws::sts::Sts;
use crate::config::Identity;
use crate::config::file::SsmSource;
use crate::identity::iam::IamPrincipal;
use crate::identity::scram::{ChannelBinding, Exchange, Mechanism, NONCE_LEN, ScramError};
use crate::identity::ssm::{SsmSession, Unattributed};
use crate::identity::sts::{MAX_BYTES, Proof};
use crate::identity::{Principal, Source, Verifier};
use crate::ids::SessionId;
use crate::metrics::Metrics;
use crate::peer::Connection;
use crate::peer::client::Helper;
use crate::wire::body::Body;
use crate::wire::reply;
use crate::wire::startup::ProtocolVersion;

/// The longest message with a proof: its length and a NUL belong to it.
const MAX_PASSWORD_MESSAGE_BYTES: u32 = MAX_BYTES as u32 + 5;

/// A client that is known.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) conversation: Conversation,
    pub(super) version: ProtocolVersion,
    pub(super) principal: Principal,
    pub(super) source: Source,
    /// The session of Session Manager that it came through.
    pub(super) session: Option<Arc<SsmSession>>,
}

/// The look for the session of Session Manager that a connection came through, which begins when it is accepted: the process at
/// the other end may not be there for long. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Attribution {
    look: JoinHandle<Result<SsmSession, Unattributed>>,
    began: Instant,
}

/// A failure from longer ago may be over. Session Manager's agent may connect long before anybody speaks.
const OLD: Duration = Duration::from_secs(5);

impl Attribution {
    /// What was found.
    pub(super) async fn end(mut self) -> Result<SsmSession, Unattributed> {
        (&mut self.look).await.unwrap_or(Err(Unattributed::Gone))
    }
}

impl Drop for Attribution {
    fn drop(&mut self) {
        self.look.abort();
    }
}

/// What of AWS is asked who somebody is, as far as that is configured. Shared by all threads.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// For [`Source::Sts`].
    pub sts: Option<Arc<Sts>>,
    /// For [`Source::Ssm`].
    pub sessions: Option<Arc<Sessions>>,
}

/// What identifying needs.
#[derive(Debug)]
pub(super) struct Identifier {
    identity: Identity,
    helper: Rc<Helper>,
    sts: Option<Arc<Sts>>,
    sessions: Option<Arc<Sessions>>,
    metrics: Arc<Metrics>,
    mock_secret: [u8; 32],
    /// What the verifiers look like from outside, one for each: iteration count and length of the salt.
    shapes: Vec<(u32, usize)>,
}

impl Identifier {
    pub(super) fn new(identity: Identity, Asked { sts, sessions }: Asked, metrics: Arc<Metrics>) -> Self {
        let mock_secret = mock_secret(&identity);
        let verifiers = identity.verifiers.values();
        let mut shapes: Vec<_> = verifiers
            .map(|known| (known.iterations(), known.salt().len()))
            .collect();
        shapes.sort_unstable();
        Self {
            helper: Rc::new(Helper::at(identity.ssm.socket.clone())),
            identity,
            sts,
            sessions,
            metrics,
            mock_secret,
            shapes,
        }
    }

    /// Begins to look for the session of Session Manager, if that is asked for.
    pub(super) fn attribute(&self, tcp: &TcpStream) -> Option<Attribution> {
        if !self.identity.sources.contains(&Source::Ssm) {
            return None;
        }
        let ends = (tcp.peer_addr(), tcp.local_addr());
        let ssm = self.identity.ssm.clone();
        let helper = self.helper.clone();
        let sessions = self.sessions.clone();
        let metrics = self.metrics.clone();
        let look = spawn_local(async move {
            let (Ok(dialler), Ok(listener)) = ends else {
                return Err(Unattributed::Gone);
            };
            let _timer = metrics.client.attribution_seconds.start_timer();
            // Session Manager's agent is on this host.
            let is_here = is_own(dialler.ip());
            let allows = |document: &str| ssm.documents.iter().any(|glob| glob.matches(document));
            let needs_record = ssm.source != SsmSource::DescribeSessions;
            let attributed = async {
                if !is_here {
                    return Err(Unattributed::OtherHost);
                }
                let facts = helper.ask(Connection { dialler, listener }, needs_record).await?;
                let id = facts.session.clone();
                match (ssm.source, &sessions) {
                    (SsmSource::AgentState, _) => facts.attribute(listener.port(), allows),
                    (SsmSource::DescribeSessions, Some(sessions)) => {
                        facts.attribute_to(sessions.describe(&id).await?, allows)
                    }
                    (SsmSource::Both, Some(sessions)) => {
                        let session = facts.attribute(listener.port(), allows)?;
                        session.if_described(&sessions.describe(&id).await?)
                    }
                    // Whoever needs one has it.
                    (SsmSource::DescribeSessions | SsmSource::Both, None) => Err(Unattributed::Gone),
                }
            };
            let attributed = attributed.await;
            let outcome = attributed.as_ref().map_or_else(Unattributed::label, |_| "ok");
            metrics.client.attributions.with_label_values(&[outcome]).inc();
            attributed
        });
        Some(Attribution {
            look,
            began: Instant::now(),
        })
    }

    /// Takes the step for the user of that name.
    pub(super) async fn identify(
        &self,
        negotiated: Negotiated,
        session: SessionId,
        user: &str,
        attribution: Option<Attribution>,
    ) -> Result<Identified, (Conversation, LoginFailure)> {
        let Negotiated {
            mut conversation,
            version,
            ..
        } = negotiated;
        let mut reason = None;
        if let Some(attribution) = attribution {
            let is_old = attribution.began.elapsed() > OLD;
            let mut attributed = attribution.end().await;
            if is_old
                && attributed.as_ref().is_err_and(Unattributed::may_pass)
                && let Some(again) = self.attribute(conversation.stream.tcp())
            {
                attributed = again.end().await;
            }
            match attributed {
                Ok(session) => {
                    return Ok(Identified {
                        conversation,
                        version,
                        principal: Principal::Iam(session.owner.clone()),
                        source: Source::Ssm,
                        session: Some(Arc::new(session)),
                    });
                }
                Err(why) => {
                    info!(session = %session, reason = %why, "not attributed to a session of Session Manager");
                    reason = Some(why);
                }
            }
        }
        // None of these can fail and leave room for another: `trust` takes everybody, and a wrong password ends
        // the login as it does with PostgreSQL.
        let source = self.identity.sources.last().copied().unwrap_or(Source::Scram);
        // Who comes through Session Manager in a way that isn't allowed must not be taken for somebody else instead. A password is
        // somebody's whichever way it comes, so it does while nobody can say which way that is.
        let may_go_on = reason
            .as_ref()
            .is_none_or(|reason| reason.is_elsewhere() || source != Source::Trust && reason.is_outage());
        let principal = match source {
            source if source == Source::Ssm || !may_go_on => {
                let error = ClientError::unattributed(&reason.unwrap_or(Unattributed::Gone));
                return Err((conversation, error.into()));
            }
            Source::Scram => match self.scram(&mut conversation, user).await {
                Ok(()) => Principal::Scram(user.into()),
                Err(failure) => return Err((conversation, failure)),
            },
            Source::Sts => match self.sts(&mut conversation, session).await {
                Ok(principal) => Principal::Iam(principal),
                Err(failure) => return Err((conversation, failure)),
            },
            Source::Trust | Source::Ssm => Principal::Trust,
        };
        Ok(Identified {
            conversation,
            version,
            principal,
            source,
            session: None,
        })
    }

    /// Asks for a proof, and STS whose it is.
    async fn sts(
        &self,
        conversation: &mut Conversation,
        session: SessionId,
    ) -> Result<IamPrincipal, LoginFailure> {
        let (Some(sts), Some(accepts)) = (&self.sts, &self.identity.sts) else {
            return Err(ClientError::internal().into());
        };
        let peer = conversation.stream.tcp().peer_addr();
        if conversation.stream.tls().is_none() && !peer.is_ok_and(|peer| peer.ip().is_loopback()) {
            return Err(ClientError::unencrypted().into());
        }
        reply::authentication_cleartext_password(&mut conversation.reply);
        conversation.flush().await?;
        let message = Zeroizing::new(conversation.password_message(MAX_PASSWORD_MESSAGE_BYTES).await?);
        let password = message
            .strip_suffix(&[0])
            .and_then(|text| str::from_utf8(text).ok());
        let now = SystemTime::now();
        let counts = &self.metrics.client.proofs;
        let proof = match Proof::read(password.unwrap_or_default(), accepts, now) {
            Ok(proof) => proof,
            Err(why) => {
                counts.with_label_values(&[why.label()]).inc();
                return Err(ClientError::unproved(&why.to_string(), accepts).into());
            }
        };
        match sts.caller(proof).await {
            Ok(principal) => {
                counts.with_label_values(&["ok"]).inc();
                Ok(principal)
            }
            Err(why) => {
                counts.with_label_values(&[why.label()]).inc();
                info!(%session, reason = %why, "STS doesn't vouch for this client");
                Err(ClientError::unproved(&why.told(), accepts).into())
            }
        }
    }

    async fn scram(&self, conversation: &mut Conversation, user: &str) -> Result<(), LoginFailure> {
        let binding = match conversation.end_point() {
            Some(hash) => ChannelBinding::ServerEndPoint(hash.to_vec()),
            None => ChannelBinding::Unavailable,
        };
        let offered = binding.mechanisms();
        let names: Vec<&str> = offered.iter().map(|mechanism| mechanism.name()).collect();
        reply::authentication_sasl(&names, &mut conversation.reply);
        conversation.flush().await?;

        let message = conversation.sasl_message().await?;
        let (mechanism, client_first) = initial_response(&message)?;
        if !offered.contains(&mechanism) {
            return Err(ClientError::unexpected("SASL mechanism").into());
        }
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| ClientError::internal())?;
        let failed = |error: ScramError| refusal(&error, user);
        let exchange = Exchange::begin(self.verifier(user), binding, &nonce);
        let (exchange, server_first) = exchange.client_first(mechanism, client_first).map_err(failed)?;
        reply::authentication_sasl_continue(server_first, &mut conversation.reply);
        conversation.flush().await?;

        let client_final = conversation.sasl_message().await?;
        let server_final = exchange.client_final(&client_final).map_err(failed)?;
        reply::authentication_sasl_final(server_final, &mut conversation.reply);
        Ok(())
    }

    /// The verifier of `user`, or one that nothing matches and that looks the same from outside.
    fn verifier(&self, user: &str) -> Arc<Verifier> {
        match self.identity.verifiers.get(user) {
            Some(verifier) => verifier.clone(),
            None => Arc::new(Verifier::mock(user, &self.mock_secret, &self.shapes)),
        }
    }
}

/// Whether the address is one of this host's: nobody can listen on another's.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// SASLInitialResponse: a mechanism, a length, data.
fn initial_response(message: &[u8]) -> Result<(Mechanism, &[u8]), ClientError> {
    let malformed = || ClientError::unexpected("form of a SASL message");
    let mut body = Body::new(message);
    let name = body.cstring().map_err(|_| malformed())?;
    let mechanism = str::from_utf8(name).ok().and_then(Mechanism::from_name);
    let mechanism = mechanism.ok_or_else(|| ClientError::unexpected("SASL mechanism"))?;
    let len = body.i32().map_err(|_| malformed())?;
    // -1 would be "no data", which SCRAM has always.
    let len = usize::try_from(len).map_err(|_| malformed())?;
    let data = body.bytes(len).map_err(|_| malformed())?;
    if body.is_empty() {
        Ok((mechanism, data))
    } else {
        Err(malformed())
    }
}

fn refusal(error: &ScramError, user: &str) -> ClientError {
    match error {
        ScramError::Malformed(_) => ClientError::unexpected("form of a SCRAM message"),
        ScramError::Downgraded | ScramError::OtherChannel => ClientError::channel_binding(&error.to_string()),
        ScramError::WrongPassword => ClientError::authentication(user),
    }
}

/// The salts of unknown users must not change from one start to the next, as those of known ones don't: derived from
/// the verifiers, which nobody outside knows.
fn mock_secret(identity: &Identity) -> [u8; 32] {
    let mut lines: Vec<String> = identity
        .verifiers
        .iter()
        .map(|(name, verifier)| format!("{name}\0{verifier}\0"))
        .collect();
    lines.sort_unstable();
    let key = hmac::Key::new(
        hmac::HMAC_SHA256,
        digest::digest(&digest::SHA256, lines.concat().as_bytes()).as_ref(),
    );
    let mut secret = [0; 32];
    secret
        .iter_mut()
        .zip(hmac::sign(&key, b"salts of unknown users").as_ref())
        .for_each(|(slot, byte)| *slot = *byte);
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_is_known() {
        for own in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        // Reserved for documentation (RFC 5737, RFC 3849).
        for other in ["203.0.113.7", "2001:db8::7"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
