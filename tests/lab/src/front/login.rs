//! One login: who is asked for a token, what is done with it, and which of the commanded faults it meets.
//!
//! As on RDS, a login holds a server connection from before the password is asked for: the real server is
//! connected first, and its AuthenticationOk is held back until the token has been checked.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::Client;
use crate::Shared;
use crate::aws::lock;
use crate::faults::LoginFault;
use crate::logins::{Outcome, TokenFacts};
use crate::token::Claims;
use crate::wire::{
    Startup, ask_cleartext_password, ask_scram, fatal, malformed, message, read_message, send,
};

/// The server's side of a connection that may be relayed.
pub(super) enum Upstream {
    /// Logged in, with a token that was good.
    Unix(UnixStream),
    /// Will log in by password.
    Tcp(TcpStream),
}

/// Leads a client through its login. `None` when it was refused, and told so.
pub(super) async fn login<C: Client>(
    shared: &Shared,
    client: &mut C,
    startup: &Startup,
    fault: Option<LoginFault>,
    peer: SocketAddr,
) -> io::Result<Option<Upstream>> {
    let number = shared
        .logins
        .begin(&startup.user, &startup.database, shared.clock.now());
    let login = Login {
        shared,
        startup,
        number,
    };
    if startup.user.is_empty() {
        let text = "no PostgreSQL user name specified in startup packet";
        return login.refuse(client, Outcome::Failed, &fatal("28000", text)).await;
    }
    if let Some(fault) = shared.faults.meet(&AT_STARTUP, Some(&startup.user)) {
        return login.break_down(client, fault, peer).await;
    }
    if !client.encrypted() {
        if fault == Some(LoginFault::AskPasswordWithoutTls) {
            return login.ask_in_clear(client).await;
        }
        return login
            .refuse(
                client,
                Outcome::NoTls,
                &no_hba_entry(startup, peer, "no encryption"),
            )
            .await;
    }
    let is_iam_user = {
        let (postgres, user) = (shared.postgres.clone(), startup.user.clone());
        tokio::task::spawn_blocking(move || postgres.is_iam_user(&user)).await?
    };
    // With IAM authentication off, RDS has no line for members of rds_iam in its pg_hba.conf.
    let takes_tokens = lock(&shared.aws.rds).takes_tokens();
    if is_iam_user.map_err(io::Error::other)? && takes_tokens {
        login.by_token(client).await
    } else {
        login.by_password().await
    }
}

struct Login<'a> {
    shared: &'a Shared,
    startup: &'a Startup,
    /// This attempt's number in the log.
    number: usize,
}

impl Login<'_> {
    /// Leaves the login to the server, which asks for SCRAM-SHA-256.
    async fn by_password(&self) -> io::Result<Option<Upstream>> {
        let mut server = TcpStream::connect(self.shared.postgres.address()).await?;
        server.set_nodelay(true)?;
        server.write_all(&self.startup.raw).await?;
        self.shared.logins.end(self.number, Outcome::LeftToServer);
        Ok(Some(Upstream::Tcp(server)))
    }

    async fn by_token<C: Client>(&self, client: &mut C) -> io::Result<Option<Upstream>> {
        let mut server = UnixStream::connect(self.shared.postgres.socket()).await?;
        let standby = self.shared.faults.current().standby;
        let startup = if standby {
            &self.startup.with(&AS_STANDBY)
        } else {
            &self.startup.raw
        };
        server.write_all(startup).await?;
        let welcome = loop {
            match read_message(&mut server, MAX_SERVER_MESSAGE).await? {
                // NegotiateProtocolVersion comes before any request for a password.
                (b'v', body) => send(client, &message(b'v', &body)).await?,
                (b'R', body) if body == [0; 4] => break message(b'R', &body),
                (tag, body) => return self.refuse(client, Outcome::Failed, &message(tag, &body)).await,
            }
        };
        if let Some(fault) = self
            .shared
            .faults
            .meet(&[LoginFault::AskScram], Some(&self.startup.user))
        {
            return self.ask_for_scram(client, fault).await;
        }
        let Some(token) = self.read_password(client).await? else {
            return Ok(None);
        };
        match self.decide(&token).await {
            Outcome::Accepted => {}
            Outcome::Fault(LoginFault::ResetAtPassword) => {
                self.shared
                    .logins
                    .end(self.number, Outcome::Fault(LoginFault::ResetAtPassword));
                client.tcp().set_zero_linger()?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Outcome::Fault(LoginFault::StallAtPassword) => {
                return self.stall(LoginFault::StallAtPassword).await;
            }
            outcome => return self.refuse(client, outcome, &self.pam_failure()).await,
        }
        self.shared.logins.end(self.number, Outcome::Accepted);
        send(client, &welcome).await?;
        if standby {
            report_standby(client, &mut server).await?;
        }
        Ok(Some(Upstream::Unix(server)))
    }

    /// Asks for the password in clear and reads it. `None` when the answer was something else.
    async fn read_password<C: Client>(&self, client: &mut C) -> io::Result<Option<String>> {
        send(client, &ask_cleartext_password()).await?;
        let (tag, mut body) = read_message(client, MAX_PASSWORD_BYTES).await?;
        let terminated = body.pop() == Some(0) && !body.contains(&0);
        if tag != b'p' || !terminated {
            let answer = fatal(
                "08P01",
                &format!("expected password response, got message type {tag}"),
            );
            self.refuse(client, Outcome::Failed, &answer).await?;
            return Ok(None);
        }
        let password = String::from_utf8(body).map_err(|_| malformed())?;
        let facts = TokenFacts::of(&password, &self.shared.keys);
        self.shared
            .logins
            .password(self.number, facts, !client.encrypted(), self.shared.clock.now());
        Ok(Some(password))
    }

    /// Judges a token, in as much time as a login is to take.
    async fn decide(&self, token: &str) -> Outcome {
        let Shared {
            faults,
            endpoint,
            keys,
            clock,
            ..
        } = self.shared;
        let now = clock.now();
        if let Err(delay) = faults.admit(Instant::now()) {
            sleep(delay).await;
            return Outcome::Throttled;
        }
        let latency = faults.next_latency();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        if let Some(fault) = faults.meet(&AT_PASSWORD, Some(&self.startup.user)) {
            return Outcome::Fault(fault);
        }
        match Claims::parse(token).and_then(|claims| claims.check(&self.startup.user, endpoint, keys, now)) {
            Ok(()) => Outcome::Accepted,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    async fn ask_for_scram<C: Client>(
        &self,
        client: &mut C,
        fault: LoginFault,
    ) -> io::Result<Option<Upstream>> {
        send(client, &ask_scram()).await?;
        read_message(client, MAX_PASSWORD_BYTES).await?;
        let text = format!(
            "password authentication failed for user \"{}\"",
            self.startup.user
        );
        self.refuse(client, Outcome::Fault(fault), &fatal("28P01", &text))
            .await
    }

    async fn ask_in_clear<C: Client>(&self, client: &mut C) -> io::Result<Option<Upstream>> {
        let outcome = Outcome::Fault(LoginFault::AskPasswordWithoutTls);
        self.shared.logins.end(self.number, outcome);
        if self.read_password(client).await?.is_some() {
            self.refuse(client, outcome, &self.pam_failure()).await?;
        }
        Ok(None)
    }

    /// The faults that come instead of an answer to the startup message.
    async fn break_down<C: Client>(
        &self,
        client: &mut C,
        fault: LoginFault,
        peer: SocketAddr,
    ) -> io::Result<Option<Upstream>> {
        let answer = match fault {
            LoginFault::NoHbaEntry => no_hba_entry(self.startup, peer, "SSL encryption"),
            LoginFault::TooManyConnections => fatal("53300", "sorry, too many clients already"),
            LoginFault::StartingUp => fatal("57P03", "the database system is starting up"),
            LoginFault::GarbageError => message(b'E', &GARBAGE),
            LoginFault::ErrorWithoutSqlstate => message(b'E', b"Msomething is wrong\0\0"),
            LoginFault::OversizedError => {
                self.shared.logins.end(self.number, Outcome::Fault(fault));
                send(
                    client,
                    &[&b"E"[..], &OVERSIZED_BYTES.to_be_bytes(), b"M"].concat(),
                )
                .await?;
                return repeat(client, &[b'x'; 8_192]).await;
            }
            LoginFault::EndlessNotices => {
                self.shared.logins.end(self.number, Outcome::Fault(fault));
                return repeat(client, &message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mwait\0\0")).await;
            }
            LoginFault::ResetAtStartup => {
                self.shared.logins.end(self.number, Outcome::Fault(fault));
                client.tcp().set_zero_linger()?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => return self.stall(fault).await,
        };
        self.refuse(client, Outcome::Fault(fault), &answer).await
    }

    /// Answers nothing until the time for logins is over.
    async fn stall(&self, fault: LoginFault) -> io::Result<Option<Upstream>> {
        self.shared.logins.end(self.number, Outcome::Fault(fault));
        std::future::pending().await
    }

    async fn refuse<C: Client>(
        &self,
        client: &mut C,
        outcome: Outcome,
        answer: &[u8],
    ) -> io::Result<Option<Upstream>> {
        self.shared.logins.end(self.number, outcome);
        send(client, answer).await?;
        Ok(None)
    }

    /// The one answer to every token that is refused, whatever the reason.
    fn pam_failure(&self) -> Vec<u8> {
        fatal(
            "28000",
            &format!("PAM authentication failed for user \"{}\"", self.startup.user),
        )
    }
}

fn no_hba_entry(startup: &Startup, peer: SocketAddr, encryption: &str) -> Vec<u8> {
    let Startup { user, database, .. } = startup;
    let host = peer.ip();
    let text = format!(
        "no pg_hba.conf entry for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
    );
    fatal("28000", &text)
}

/// Passes on the server's messages up to its first ReadyForQuery, with `in_hot_standby` turned on.
async fn report_standby<C: Client>(client: &mut C, server: &mut UnixStream) -> io::Result<()> {
    loop {
        let (tag, mut body) = read_message(server, MAX_SERVER_MESSAGE).await?;
        if tag == b'S' && body.starts_with(b"in_hot_standby\0") {
            body = b"in_hot_standby\0on\0".to_vec();
        }
        send(client, &message(tag, &body)).await?;
        if tag == b'Z' {
            return Ok(());
        }
    }
}

async fn repeat<C: Client>(client: &mut C, bytes: &[u8]) -> io::Result<Option<Upstream>> {
    loop {
        send(client, bytes).await?;
    }
}

/// Faults that are met after the startup message.
const AT_STARTUP: [LoginFault; 9] = [
    LoginFault::ResetAtStartup,
    LoginFault::StallAtStartup,
    LoginFault::NoHbaEntry,
    LoginFault::TooManyConnections,
    LoginFault::StartingUp,
    LoginFault::GarbageError,
    LoginFault::ErrorWithoutSqlstate,
    LoginFault::OversizedError,
    LoginFault::EndlessNotices,
];
/// Faults that are met after the password.
const AT_PASSWORD: [LoginFault; 3] = [
    LoginFault::ResetAtPassword,
    LoginFault::StallAtPassword,
    LoginFault::RefuseToken,
];
/// What makes the real server act as one in recovery does.
const AS_STANDBY: [(&str, &str); 2] = [
    ("default_transaction_read_only", "on"),
    ("postern_lab.standby", "on"),
];
/// PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH, less the length itself; above that it just closes.
const MAX_PASSWORD_BYTES: u32 = 65_535 - 4;
const MAX_SERVER_MESSAGE: u32 = 65_535;
const OVERSIZED_BYTES: u32 = 512 * 1_024 * 1_024;
/// No field ends, and none is UTF-8.
const GARBAGE: [u8; 12] = [
    0xff, 0x00, 0xfe, 0x43, 0xfd, 0xc3, 0x28, 0x53, 0xf0, 0x9f, 0x00, 0xff,
];
