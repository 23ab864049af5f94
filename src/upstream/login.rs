//! Opening one connection: TCP, TLS, a login of the budget, the token, and what the server says of itself.
//!
//! The token goes out only after a cleartext-password request over TLS whose certificate was verified for the
//! endpoint's name. Every other way a server may behave is an error of its own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Services;
use super::connection::Connection;
use super::dial::dial;
use super::error::{OpenError, Phase};
use super::gate::{Gate, Slot};
use crate::config::Target;
use crate::iam::LoginOutcome;
use crate::ids::PoolKey;
use crate::net::stream::{Stream, StreamError};
use crate::session::parameters::Parameters;
use crate::wire::body::{Body, Truncated};
use crate::wire::frame::{Frames, MAX_FRAME_BYTES};
use crate::wire::reply::state_and_message;
use crate::wire::startup::{self, CancelKey, ProtocolVersion};

/// The longest message that a server may send before it is ready for queries; PostgreSQL's own limit for messages
/// during authentication is 2,000 bytes, and an error text may be longer.
const MAX_LOGIN_BYTES: usize = 64 * 1024;

/// Messages that a server may send before it is ready: the parameters are fifteen, notices are rare.
const MAX_LOGIN_MESSAGES: usize = 1_000;

/// The name that idle server connections carry.
pub(super) const APPLICATION_NAME: &str = "postern";

/// Opens a connection for `key`, which belongs to `target`.
pub(super) async fn open(
    target: &Arc<Target>,
    key: &PoolKey,
    services: &Services,
) -> Result<Connection, OpenError> {
    let patience = target.pool.wait_timeout.max(target.timeouts.login);
    let deadline = Instant::now() + patience;
    let gate = services
        .gates
        .get(&target.endpoint)
        .ok_or_else(|| OpenError::Protocol(format!("{} has no login budget", target.endpoint)))?;
    let metrics = services.metrics.login.of(&target.name);
    // Without credentials there is no point in dialling; the token itself is fetched when it is sent.
    services.tokens.get(target, &key.user, patience).await?;
    let mut slot = gate.slot(deadline).await.ok_or(OpenError::Budget(patience))?;
    let phase = Instant::now();
    let tcp = dial(target).await?;
    metrics
        .phase(Phase::Connect.label())
        .observe(phase.elapsed().as_secs_f64());
    let phase = Instant::now();
    let limit = target.timeouts.tls;
    let mut stream = timeout(limit, encrypt(Stream::plain(tcp), target))
        .await
        .unwrap_or(Err(OpenError::Timeout {
            phase: Phase::Tls,
            limit,
        }))?;
    metrics
        .phase(Phase::Tls.label())
        .observe(phase.elapsed().as_secs_f64());

    let login = Login {
        stream: &mut stream,
        received: Vec::new(),
        messages: 0,
    };
    let greeting = login
        .run(
            target,
            key,
            services,
            Spend {
                gate: &gate,
                slot: &mut slot,
                deadline,
                patience,
            },
        )
        .await?;
    slot.set_outcome(LoginOutcome::Succeeded);
    Ok(Connection::new(stream, greeting, target.clone()))
}

/// The right to send one password, still to be asked for.
struct Spend<'a> {
    gate: &'a Gate,
    slot: &'a mut Slot,
    deadline: Instant,
    patience: Duration,
}

/// What a server says before it is ready.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) cancel_key: Option<CancelKey>,
    pub(super) parameters: Parameters,
}

/// Goes over to TLS as RDS wants it: SSLRequest, `S`, handshake.
pub(super) async fn encrypt(mut stream: Stream, target: &Target) -> Result<Stream, OpenError> {
    stream
        .send(&startup::ssl_request())
        .await
        .map_err(|error| closed(Phase::Tls, error))?;
    let mut answer = Vec::new();
    let read = stream
        .read_into(&mut answer)
        .await
        .map_err(|error| closed(Phase::Tls, error))?;
    match (read, answer.as_slice()) {
        (0, _) => return Err(closed_by_peer(Phase::Tls)),
        (_, b"S") => {}
        (_, b"N") => return Err(OpenError::TlsRefused),
        // An ErrorResponse in clear: the server couldn't even begin.
        (_, [b'E', ..]) => return Err(closed_by_peer(Phase::Tls)),
        // More than one byte would be plaintext that somebody slipped in before the handshake (CVE-2021-23222).
        _ => {
            return Err(OpenError::Protocol(
                "an unexpected answer to the request for TLS".to_owned(),
            ));
        }
    }
    let mut early = Vec::new();
    stream
        .upgrade(target.tls.connect()?, &[], &mut early)
        .await
        .map_err(|error| closed(Phase::Tls, error))?;
    if !early.is_empty() {
        return Err(OpenError::Protocol("bytes before the startup message".to_owned()));
    }
    Ok(stream)
}

struct Login<'a> {
    stream: &'a mut Stream,
    received: Vec<u8>,
    messages: usize,
}

impl Login<'_> {
    async fn run(
        mut self,
        target: &Target,
        key: &PoolKey,
        services: &Services,
        spend: Spend<'_>,
    ) -> Result<Greeting, OpenError> {
        let limit = target.timeouts.login;
        let late = OpenError::Timeout {
            phase: Phase::Login,
            limit,
        };
        let metrics = services.metrics.login.of(&target.name);
        let asked = Instant::now();
        timeout(limit, self.ask_to_log_in(key))
            .await
            .unwrap_or(Err(late))?;
        let until_asked = asked.elapsed();

        let waited = Instant::now();
        if !spend.gate.spend(spend.deadline).await {
            return Err(OpenError::Budget(spend.patience));
        }
        // From here on the server counts a login, whatever comes of it, and it counts now: nothing may come between.
        spend.slot.set_outcome(LoginOutcome::Failed);
        let token = services.tokens.get_now(target, &key.user, SystemTime::now())?;
        metrics
            .phase(Phase::Budget.label())
            .observe(waited.elapsed().as_secs_f64());
        let sent = Instant::now();
        let late = OpenError::Timeout {
            phase: Phase::Login,
            limit,
        };
        let greeting = timeout(limit, self.log_in(token.secret()))
            .await
            .unwrap_or(Err(late));
        metrics
            .phase(Phase::Login.label())
            .observe((until_asked + sent.elapsed()).as_secs_f64());
        greeting.inspect_err(|error| {
            if matches!(error, OpenError::Refused { state, .. } if state.starts_with("28")) {
                spend.slot.set_outcome(LoginOutcome::Refused);
            }
        })
    }

    /// Says who we are, and waits for the one request that RDS makes.
    async fn ask_to_log_in(&mut self, key: &PoolKey) -> Result<(), OpenError> {
        let parameters = [
            ("user", key.user.as_str()),
            ("database", key.database.as_str()),
            ("application_name", APPLICATION_NAME),
        ];
        self.send(&startup::startup_message(ProtocolVersion::V3_0, &parameters))
            .await?;
        match self.authentication().await? {
            3 => Ok(()),
            0 => Err(OpenError::NotAsked),
            code => Err(OpenError::NotIam(authentication_name(code))),
        }
    }

    /// Sends the token, once, and takes in what the server says of itself.
    async fn log_in(&mut self, token: &str) -> Result<Greeting, OpenError> {
        self.send(&password_message(token)).await?;
        match self.authentication().await? {
            0 => self.greeting().await,
            3 => Err(OpenError::Protocol("a second request for a password".to_owned())),
            code => Err(OpenError::NotIam(authentication_name(code))),
        }
    }

    /// The code of the next authentication message.
    async fn authentication(&mut self) -> Result<i32, OpenError> {
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'R' => return Body::new(&body).i32().map_err(truncated),
                tag => self.expect_notice(tag, &body)?,
            }
        }
    }

    async fn greeting(&mut self) -> Result<Greeting, OpenError> {
        let mut greeting = Greeting::default();
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'S' => greeting.parameters.report(&body),
                b'K' => {
                    let mut body = Body::new(&body);
                    let pid = body.i32().map_err(truncated)?;
                    let secret = body.rest().to_vec();
                    greeting.cancel_key = Some(CancelKey { pid, secret });
                }
                b'Z' if self.received.is_empty() => return Ok(greeting),
                b'Z' => return Err(OpenError::Protocol("bytes after ReadyForQuery".to_owned())),
                tag => self.expect_notice(tag, &body)?,
            }
        }
    }

    fn expect_notice(&self, tag: u8, body: &[u8]) -> Result<(), OpenError> {
        match tag {
            b'N' => Ok(()),
            b'E' => Err(refusal(body)),
            tag => Err(OpenError::Protocol(format!(
                "an unexpected message of type {tag:#04x} during the login"
            ))),
        }
    }

    /// The next message, whole.
    async fn message(&mut self) -> Result<(u8, Vec<u8>), OpenError> {
        self.messages += 1;
        if self.messages > MAX_LOGIN_MESSAGES {
            return Err(OpenError::Protocol(
                "endless messages during the login".to_owned(),
            ));
        }
        loop {
            let mut frames = Frames::default();
            let mut rest = self.received.as_slice();
            let frame = frames
                .next(&mut rest, |_| MAX_FRAME_BYTES)
                .map_err(|error| OpenError::Protocol(error.to_string()))?;
            if let Some(frame) = frame {
                let message = (frame.tag, frame.body.to_vec());
                let used = self.received.len() - rest.len();
                self.received.drain(..used);
                return Ok(message);
            }
            if self.received.len() > MAX_LOGIN_BYTES {
                return Err(OpenError::Protocol(
                    "a message of more than 64 KiB during the login".to_owned(),
                ));
            }
            let read = self
                .stream
                .read_into(&mut self.received)
                .await
                .map_err(|error| closed(Phase::Login, error))?;
            if read == 0 {
                return Err(closed_by_peer(Phase::Login));
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        self.stream
            .send(bytes)
            .await
            .map_err(|error| closed(Phase::Login, error))
    }
}

/// PasswordMessage.
fn password_message(token: &str) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(token.len() + 6));
    message.push(b'p');
    message.extend_from_slice(&(token.len() as u32 + 5).to_be_bytes());
    message.extend_from_slice(token.as_bytes());
    message.push(0);
    message
}

fn refusal(body: &[u8]) -> OpenError {
    let (state, message) = state_and_message(body);
    OpenError::Refused {
        state,
        message,
        succeeded_before: false,
    }
}

/// Names of the requests that aren't for a cleartext password (PostgreSQL documentation, "Message Formats").
fn authentication_name(code: i32) -> &'static str {
    match code {
        2 => "Kerberos V5",
        5 => "an MD5 password",
        7..=9 => "GSSAPI or SSPI",
        10..=12 => "a SCRAM password",
        _ => "an unknown proof",
    }
}

fn truncated(_: Truncated) -> OpenError {
    OpenError::Protocol("a message that is too short".to_owned())
}

pub(super) fn closed(phase: Phase, error: StreamError) -> OpenError {
    match error {
        StreamError::Tls(failure) => failure.into(),
        StreamError::Io(error) => OpenError::Closed {
            phase,
            reason: error.to_string(),
        },
    }
}

fn closed_by_peer(phase: Phase) -> OpenError {
    OpenError::Closed {
        phase,
        reason: "end of stream".to_owned(),
    }
}
