//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side, as PostgreSQL speaks it.
//!
//! RFC 5802 (the exchange), RFC 7677 (SHA-256), RFC 5929 section 4 (`tls-server-end-point`), and
//! PostgreSQL's documentation, "SASL Authentication", for where it differs: the user name within the
//! exchange is ignored in favour of the one in the startup message, and authorization
//! identities are not supported.
//!
//! Two steps, each of which consumes the one before, so that they can't be taken out of order or twice:
//! [`Exchange::client_first`] and [`AwaitFinal::client_final`]. Bytes in, bytes out; wrapping them into
//! protocol messages, and limiting their size, is the caller's job. Memory and time are linear in what
//! the client sent. An unknown user is given a [`Verifier::mock`] and no other treatment.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::verifier::{Verifier, decode_key, hmac_sha256, sha256};

/// How many random bytes the server adds to the nonce; PostgreSQL's own number (`SCRAM_RAW_NONCE_LEN`).
pub const NONCE_LEN: usize = 18;

/// A SASL mechanism, by the names in the IANA registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// `SCRAM-SHA-256`
    ScramSha256,
    /// `SCRAM-SHA-256-PLUS`: bound to the TLS connection that it takes place on.
    ScramSha256Plus,
}

/// Whether the exchange can be bound to the TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// It can't: there is no TLS, or the certificate has no `tls-server-end-point` hash.
    Unavailable,
    /// It can, to the server's certificate: its hash, by the hash function of its signature, or SHA-256
    /// in place of MD5 and SHA-1 (RFC 5929 section 4.1).
    ServerEndPoint(Vec<u8>),
}

/// How an exchange fails. The client is told PostgreSQL's message and SQLSTATE, as noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The client's software is at fault: 08P01 (protocol_violation).
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// Authentication failed: the client could have bound the channel, and was made to believe that the
    /// server couldn't. Somebody may be between them. 28000 (invalid_authorization_specification).
    #[error("SCRAM channel binding negotiation error")]
    Downgraded,
    /// Authentication failed: the client is connected to another certificate than ours. Somebody may be
    /// between them. 28000 (invalid_authorization_specification).
    #[error("SCRAM channel binding check failed")]
    OtherChannel,
    /// Authentication failed: a wrong password, or a user that doesn't exist. 28P01 (invalid_password).
    #[error("password authentication failed")]
    WrongPassword,
}

/// An exchange that nobody has said anything in yet.
pub struct Exchange {
    verifier: Arc<Verifier>,
    channel_binding: ChannelBinding,
    nonce: String,
}

/// An exchange in which the server has spoken and waits for the proof.
pub struct AwaitFinal {
    verifier: Arc<Verifier>,
    /// client-first-message-bare `,` server-first-message `,`
    transcript: Vec<u8>,
    /// The client's nonce and the server's.
    nonce: Vec<u8>,
    /// What the client must repeat of its first message, in base64.
    expected_binding: String,
    is_bound: bool,
}

impl Mechanism {
    /// Its name in SASL messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// The mechanism of this name, upper case as it is written; `None` if there is none such here.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::ScramSha256, Self::ScramSha256Plus];
        all.into_iter().find(|mechanism| mechanism.name() == name)
    }
}

impl ChannelBinding {
    /// The mechanisms to offer, the better one first.
    pub fn mechanisms(&self) -> &'static [Mechanism] {
        match self {
            Self::Unavailable => &[Mechanism::ScramSha256],
            Self::ServerEndPoint(_) => &[Mechanism::ScramSha256Plus, Mechanism::ScramSha256],
        }
    }
}

impl ScramError {
    /// Whether the message was malformed, so that nothing is known of the password.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

impl Exchange {
    /// An exchange over a connection with this `channel_binding`. `nonce` is fresh from a
    /// cryptographic random number generator.
    pub fn begin(verifier: Arc<Verifier>, channel_binding: ChannelBinding, nonce: &[u8; NONCE_LEN]) -> Self {
        Self {
            verifier,
            channel_binding,
            nonce: STANDARD.encode(nonce),
        }
    }

    /// Takes client-first-message and the mechanism that the client chose; gives server-first-message.
    pub fn client_first(
        self,
        mechanism: Mechanism,
        data: &[u8],
    ) -> Result<(AwaitFinal, Vec<u8>), ScramError> {
        let first = ClientFirst::parse(data)?;
        let bound_to = self.negotiated(mechanism, first.binding)?;
        let nonce = [first.nonce, self.nonce.as_bytes()].concat();
        let salt = STANDARD.encode(self.verifier.salt());
        let parameters = format!(",s={salt},i={}", self.verifier.iterations());
        let server_first = [b"r=", nonce.as_slice(), parameters.as_bytes()].concat();
        let expected_binding = [first.header, bound_to.unwrap_or_default()].concat();
        let next = AwaitFinal {
            transcript: [first.bare, b",", &server_first, b","].concat(),
            nonce,
            expected_binding: STANDARD.encode(expected_binding),
            is_bound: bound_to.is_some(),
            verifier: self.verifier,
        };
        Ok((next, server_first))
    }

    /// Whether what the client says of channel binding fits what it chose and what it was offered; gives
    /// the data to bind to, if any (RFC 5802 section 6).
    fn negotiated(&self, mechanism: Mechanism, flag: BindingFlag<'_>) -> Result<Option<&[u8]>, ScramError> {
        use ChannelBinding::ServerEndPoint;
        use Mechanism::{ScramSha256, ScramSha256Plus};

        match (mechanism, &self.channel_binding, flag) {
            (ScramSha256, _, BindingFlag::Unsupported) => Ok(None),
            (ScramSha256, ChannelBinding::Unavailable, BindingFlag::NotOffered) => Ok(None),
            (ScramSha256, ServerEndPoint(_), BindingFlag::NotOffered) => Err(ScramError::Downgraded),
            (ScramSha256, _, BindingFlag::Required(_)) => Err(ScramError::Malformed(
                "channel binding data without SCRAM-SHA-256-PLUS",
            )),
            (ScramSha256Plus, ServerEndPoint(hash), BindingFlag::Required(b"tls-server-end-point")) => {
                Ok(Some(hash))
            }
            (ScramSha256Plus, ServerEndPoint(_), BindingFlag::Required(_)) => {
                Err(ScramError::Malformed("unsupported channel binding type"))
            }
            (ScramSha256Plus, ServerEndPoint(_), _) => Err(ScramError::Malformed(
                "SCRAM-SHA-256-PLUS without channel binding data",
            )),
            (ScramSha256Plus, ChannelBinding::Unavailable, _) => {
                Err(ScramError::Malformed("SCRAM-SHA-256-PLUS was not offered"))
            }
        }
    }
}

impl AwaitFinal {
    /// Takes client-final-message. If it proves the password, gives server-final-message, which proves in
    /// turn that the server knows the verifier; the client is authenticated.
    pub fn client_final(self, data: &[u8]) -> Result<Vec<u8>, ScramError> {
        let last = ClientFinal::parse(data)?;
        if last.binding != self.expected_binding.as_bytes() {
            return Err(match self.is_bound {
                true => ScramError::OtherChannel,
                false => ScramError::Malformed("unexpected channel binding data"),
            });
        }
        if last.nonce != self.nonce {
            return Err(ScramError::Malformed("the nonce doesn't match"));
        }
        let proof = decode_key(last.proof).ok_or(ScramError::Malformed("malformed proof"))?;

        let transcript: [&[u8]; 2] = [&self.transcript, last.without_proof];
        let mut client_key = hmac_sha256(self.verifier.stored_key(), &transcript);
        for (key, proof) in client_key.iter_mut().zip(proof.iter()) {
            *key ^= proof;
        }
        let server_signature = hmac_sha256(self.verifier.server_key(), &transcript);
        let stored_key = sha256(&*client_key);
        let is_equal =
            constant_time::verify_slices_are_equal(&*stored_key, self.verifier.stored_key()).is_ok();
        if !(is_equal & self.verifier.is_genuine()) {
            return Err(ScramError::WrongPassword);
        }
        Ok(format!("v={}", STANDARD.encode(*server_signature)).into_bytes())
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl fmt::Debug for AwaitFinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitFinal").finish_non_exhaustive()
    }
}

/// The channel binding flag of the GS2 header (RFC 5802 section 7, gs2-cbind-flag).
#[derive(Clone, Copy)]
enum BindingFlag<'a> {
    /// `n`: the client doesn't support it.
    Unsupported,
    /// `y`: the client does, and thinks that the server doesn't.
    NotOffered,
    /// `p`: the client demands it, of this type.
    Required(&'a [u8]),
}

/// client-first-message = gs2-header client-first-message-bare
struct ClientFirst<'a> {
    binding: BindingFlag<'a>,
    /// gs2-header with the comma at its end.
    header: &'a [u8],
    bare: &'a [u8],
    nonce: &'a [u8],
}

impl<'a> ClientFirst<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, ScramError> {
        let (flag, rest) = cut_first(data)?;
        let (authorization, bare) = cut_first(rest)?;
        let binding = match flag {
            b"n" => BindingFlag::Unsupported,
            b"y" => BindingFlag::NotOffered,
            [b'p', b'=', binding_type @ ..] => BindingFlag::Required(binding_type),
            _ => return Err(ScramError::Malformed("unexpected channel binding flag")),
        };
        if !authorization.is_empty() {
            return Err(ScramError::Malformed(
                "authorization identities are not supported",
            ));
        }
        if bare.starts_with(b"m=") {
            return Err(ScramError::Malformed("a required extension is not supported"));
        }
        let mut attributes = attributes(bare);
        attributes.expect(b'n', "user name expected")?;
        let nonce = attributes.expect(b'r', "nonce expected")?;
        if nonce.is_empty() || !nonce.iter().all(u8::is_ascii_graphic) {
            return Err(ScramError::Malformed("the nonce is empty or not printable"));
        }
        attributes.ignore_rest()?;
        Ok(Self {
            binding,
            // The bare message is the end of the data.
            header: data.strip_suffix(bare).unwrap_or_default(),
            bare,
            nonce,
        })
    }
}

/// client-final-message = client-final-message-without-proof `,` proof
struct ClientFinal<'a> {
    without_proof: &'a [u8],
    /// In base64.
    binding: &'a [u8],
    nonce: &'a [u8],
    /// In base64.
    proof: &'a [u8],
}

impl<'a> ClientFinal<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, ScramError> {
        let mut backwards = data.rsplitn(2, |byte| *byte == b',');
        let (Some(last), Some(without_proof)) = (backwards.next(), backwards.next()) else {
            return Err(ScramError::Malformed("comma expected"));
        };
        let Some(proof) = last.strip_prefix(b"p=") else {
            return Err(ScramError::Malformed("the proof is not the last attribute"));
        };
        let mut attributes = attributes(without_proof);
        let binding = attributes.expect(b'c', "channel binding data expected")?;
        let nonce = attributes.expect(b'r', "nonce expected")?;
        attributes.ignore_rest()?;
        Ok(Self {
            without_proof,
            binding,
            nonce,
            proof,
        })
    }
}

/// What stands before the first comma, and after it.
fn cut_first(data: &[u8]) -> Result<(&[u8], &[u8]), ScramError> {
    let mut parts = data.splitn(2, |byte| *byte == b',');
    match (parts.next(), parts.next()) {
        (Some(before), Some(after)) => Ok((before, after)),
        _ => Err(ScramError::Malformed("comma expected")),
    }
}

/// The attributes of `data`: a letter, `=`, a value, with commas between them.
fn attributes(data: &[u8]) -> Attributes<'_, impl Iterator<Item = &[u8]>> {
    Attributes(data.split(|byte| *byte == b','))
}

struct Attributes<'a, I: Iterator<Item = &'a [u8]>>(I);

impl<'a, I: Iterator<Item = &'a [u8]>> Attributes<'a, I> {
    /// The value of the next attribute, which has to be called `name`.
    fn expect(&mut self, name: u8, otherwise: &'static str) -> Result<&'a [u8], ScramError> {
        match self.0.next() {
            Some([found, b'=', value @ ..]) if *found == name && !value.contains(&0) => Ok(value),
            _ => Err(ScramError::Malformed(otherwise)),
        }
    }

    /// Optional extensions, none of which we know (RFC 5802 section 7: "ignored by" those who don't).
    fn ignore_rest(self) -> Result<(), ScramError> {
        for attribute in self.0 {
            match attribute {
                [name, b'=', value @ ..] if name.is_ascii_alphabetic() && !value.contains(&0) => {}
                _ => return Err(ScramError::Malformed("attribute expected")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
