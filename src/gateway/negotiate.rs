//! The first step: encryption, protocol version, startup parameters, or a cancel request.
//!
//! (PostgreSQL documentation, "Message Flow: Start-up", "SSL Session Encryption", "GSSAPI Session Encryption".) Bytes
//! that arrive between a request for encryption and its answer are refused: they would be taken for encrypted ones
//! (CVE-2021-3935 of PgBouncer).

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Sleep, sleep};

use super::error::ClientError;
use crate::net::stream::{Stream, StreamError};
use crate::tls::Acceptor;
use crate::wire::frame::{BadLength, HEADER_BYTES};
use crate::wire::reply;
use crate::wire::startup::{self, CancelKey, Opening, ProtocolVersion, Startup, TLS_HANDSHAKE};

/// The newest protocol that is spoken here.
const NEWEST: ProtocolVersion = ProtocolVersion::V3_2;

/// The longest message of a SASL exchange, as PostgreSQL has it (`PG_MAX_SASL_MESSAGE_LENGTH`, `auth-sasl.h`).
const MAX_SASL_MESSAGE_BYTES: u32 = 1_024;

/// A client that has said what it wants.
#[derive(Debug)]
pub(super) struct Negotiated {
    /// The way to talk with it.
    pub(super) conversation: Conversation,
    /// The protocol that both sides speak.
    pub(super) version: ProtocolVersion,
    /// What it asks for, without `_pq_.` options.
    pub(super) parameters: Vec<(String, String)>,
    /// The server name that it asked for by TLS.
    pub(super) server_name: Option<String>,
}

/// A stream, what was read from it and not yet used, and what is to be sent.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) stream: Stream,
    pub(super) received: Vec<u8>,
    pub(super) reply: BytesMut,
    /// What binds passwords to the certificate that the client was shown.
    end_point: Option<Arc<[u8]>>,
    /// When the whole login must be over; it runs from the first byte.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Why a client didn't get through the login.
#[derive(Debug)]
pub(super) enum LoginFailure {
    /// It is told why.
    Refused(Box<ClientError>),
    /// It is gone, or TLS failed: nobody is left to be told.
    Gone(Option<StreamError>),
}

impl From<ClientError> for LoginFailure {
    fn from(error: ClientError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<StreamError> for LoginFailure {
    fn from(error: StreamError) -> Self {
        Self::Gone(Some(error))
    }
}

/// Takes the step.
pub(super) async fn negotiate(
    conversation: &mut Conversation,
    acceptor: &Acceptor,
) -> Result<Result<Startup, CancelKey>, LoginFailure> {
    let (mut may_ask_tls, mut may_ask_gss) = (true, true);
    loop {
        if conversation.received.first() == Some(&TLS_HANDSHAKE) && may_ask_tls && may_ask_gss {
            conversation.accept_tls(acceptor).await?;
            if !conversation
                .stream
                .tls()
                .is_some_and(crate::tls::Session::speaks_postgresql)
            {
                return Err(ClientError::no_alpn().into());
            }
            (may_ask_tls, may_ask_gss) = (false, false);
            continue;
        }
        let packet = conversation.opening_packet().await?;
        match startup::parse(&packet).map_err(|error| ClientError::opening(&error))? {
            Opening::SslRequest if may_ask_tls => {
                conversation.refuse_early_bytes()?;
                conversation.answer(b"S").await?;
                conversation.accept_tls(acceptor).await?;
                (may_ask_tls, may_ask_gss) = (false, false);
            }
            Opening::GssEncRequest if may_ask_gss => {
                conversation.refuse_early_bytes()?;
                conversation.answer(b"N").await?;
                may_ask_gss = false;
            }
            Opening::SslRequest | Opening::GssEncRequest => {
                return Err(ClientError::unexpected("second request for encryption").into());
            }
            Opening::Cancel(key) => return Ok(Err(key)),
            Opening::Startup(startup) => return Ok(Ok(startup)),
        }
    }
}

impl Conversation {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            reply: BytesMut::new(),
            end_point: None,
            deadline: None,
        }
    }

    /// Waits for the first byte.
    pub(super) async fn first_byte(&mut self) -> Result<(), LoginFailure> {
        self.fill().await
    }

    /// From here on, the login must be over within `limit`.
    pub(super) fn limit(&mut self, limit: Duration) {
        self.deadline = Some(Box::pin(sleep(limit)));
    }

    /// Settles on a version and tells the client, if it asked for more than there is.
    pub(super) fn settle(mut self, startup: Startup) -> Negotiated {
        let version = startup.version.min(NEWEST);
        // 3.1 was never a version of its own.
        let version = if version < NEWEST {
            ProtocolVersion::V3_0
        } else {
            version
        };
        let (options, parameters): (Vec<_>, Vec<_>) = startup
            .parameters
            .into_iter()
            .partition(|(name, _)| name.starts_with("_pq_."));
        if startup.version > version || !options.is_empty() {
            let unknown = options.into_iter().map(|(name, _)| name).collect();
            reply::negotiate_protocol_version(version, unknown, &mut self.reply);
        }
        let server_name = self
            .stream
            .tls()
            .and_then(|tls| tls.server_name())
            .map(str::to_owned);
        Negotiated {
            conversation: self,
            version,
            parameters,
            server_name,
        }
    }

    /// Sends what has been put together.
    pub(super) async fn flush(&mut self) -> Result<(), LoginFailure> {
        let reply = self.reply.split();
        self.answer(&reply).await
    }

    async fn answer(&mut self, bytes: &[u8]) -> Result<(), LoginFailure> {
        let Self { stream, deadline, .. } = self;
        in_time(deadline, stream.send(bytes)).await
    }

    /// The body of the next message, which must be a part of SASL.
    pub(super) async fn sasl_message(&mut self) -> Result<Vec<u8>, LoginFailure> {
        self.password_message(MAX_SASL_MESSAGE_BYTES).await
    }

    /// The body of the next message, which must be of type `p` and no longer than `most`.
    pub(super) async fn password_message(&mut self, most: u32) -> Result<Vec<u8>, LoginFailure> {
        while self.received.len() < HEADER_BYTES {
            self.fill().await?;
        }
        if let [tag, a, b, c, d, ..] = *self.received.as_slice() {
            let length = u32::from_be_bytes([a, b, c, d]);
            if tag != b'p' {
                return Err(ClientError::unexpected("message instead of a password").into());
            }
            if !(4..=most).contains(&length) {
                return Err(ClientError::bad_length(BadLength { tag, length }).into());
            }
            let end = length as usize + 1;
            while self.received.len() < end {
                self.fill().await?;
            }
            return Ok(self.received.drain(..end).skip(HEADER_BYTES).collect());
        }
        Err(ClientError::internal().into())
    }

    async fn opening_packet(&mut self) -> Result<Vec<u8>, LoginFailure> {
        loop {
            match startup::packet_len(&self.received).map_err(|error| ClientError::opening(&error))? {
                Some(len) if self.received.len() >= len => return Ok(self.received.drain(..len).collect()),
                _ => self.fill().await?,
            }
        }
    }

    async fn accept_tls(&mut self, acceptor: &Acceptor) -> Result<(), LoginFailure> {
        let session = acceptor.accept().map_err(StreamError::Tls)?;
        self.end_point = acceptor.end_point().cloned();
        let first = std::mem::take(&mut self.received);
        let Self {
            stream,
            received,
            deadline,
            ..
        } = self;
        in_time(deadline, stream.upgrade(session, &first, received)).await
    }

    /// What binds passwords to the certificate that the client was shown (RFC 5929 §4.1), if it was shown one.
    pub(super) fn end_point(&self) -> Option<&Arc<[u8]>> {
        self.end_point.as_ref()
    }

    fn refuse_early_bytes(&self) -> Result<(), ClientError> {
        if self.received.is_empty() {
            Ok(())
        } else {
            Err(ClientError::early_bytes())
        }
    }

    /// Reads more; the end of the stream is an end of the login.
    async fn fill(&mut self) -> Result<(), LoginFailure> {
        let Self {
            stream,
            received,
            deadline,
            ..
        } = self;
        match in_time(deadline, stream.read_into(received)).await? {
            0 => Err(LoginFailure::Gone(None)),
            _ => Ok(()),
        }
    }
}

async fn in_time<T>(
    deadline: &mut Option<Pin<Box<Sleep>>>,
    step: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, LoginFailure> {
    let over = async {
        match deadline {
            Some(deadline) => deadline.await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        done = step => Ok(done?),
        () = over => Err(ClientError::login_timeout().into()),
    }
}
