//! The second step: who is it? The sources of identity are tried in the order of the configuration; none of them
//! succeeding is a refusal. (Attribution of SSM sessions and STS proofs are further sources, in this place.)

use std::sync::Arc;

use aws_lc_rs::{digest, hmac, rand};

use super::error::ClientError;
use super::negotiate::{Conversation, LoginFailure, Negotiated};
use crate::config::Identity;
use crate::identity::scram::{ChannelBinding, Exchange, Mechanism, NONCE_LEN, ScramError};
use crate::identity::{Principal, Source, Verifier};
use crate::tls::Acceptor;
use crate::wire::body::Body;
use crate::wire::reply;
use crate::wire::startup::ProtocolVersion;

/// A client that is known.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) conversation: Conversation,
    pub(super) version: ProtocolVersion,
    pub(super) principal: Principal,
    pub(super) source: Source,
}

/// What identifying needs.
#[derive(Debug)]
pub(super) struct Identifier {
    identity: Identity,
    acceptor: Acceptor,
    mock_secret: [u8; 32],
    /// What the verifiers look like from outside, one for each: iteration count and length of the salt.
    shapes: Vec<(u32, usize)>,
}

impl Identifier {
    pub(super) fn new(identity: Identity, acceptor: Acceptor) -> Self {
        let mock_secret = mock_secret(&identity);
        let verifiers = identity.verifiers.values();
        let mut shapes: Vec<_> = verifiers
            .map(|known| (known.iterations(), known.salt().len()))
            .collect();
        shapes.sort_unstable();
        Self {
            identity,
            acceptor,
            mock_secret,
            shapes,
        }
    }

    /// Takes the step for the user of that name.
    pub(super) async fn identify(
        &self,
        negotiated: Negotiated,
        user: &str,
    ) -> Result<Identified, (Conversation, LoginFailure)> {
        let Negotiated {
            mut conversation,
            version,
            ..
        } = negotiated;
        // Neither of these can fail and leave room for another: `trust` takes everybody, and a wrong password ends
        // the login as it does with PostgreSQL.
        let source = self.identity.sources.first().copied().unwrap_or(Source::Scram);
        let principal = match source {
            Source::Scram => match self.scram(&mut conversation, user).await {
                Ok(()) => Principal::Scram(user.into()),
                Err(failure) => return Err((conversation, failure)),
            },
            Source::Trust => Principal::Trust,
        };
        Ok(Identified {
            conversation,
            version,
            principal,
            source,
        })
    }

    async fn scram(&self, conversation: &mut Conversation, user: &str) -> Result<(), LoginFailure> {
        let binding = match (conversation.stream.tls(), self.acceptor.end_point()) {
            (Some(_), Some(hash)) => ChannelBinding::ServerEndPoint(hash.to_vec()),
            _ => ChannelBinding::Unavailable,
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
