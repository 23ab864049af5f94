//! One visit: messages come, and each is answered before the next is looked at.

use std::future::pending;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::command::Command;
use super::extended::{Portal, Prepared, Wrong};
use super::show::Show;
use super::{Visit, no_such_command, run, wrong};
use crate::gateway::clients::Client;
use crate::gateway::deadlines::Late;
use crate::gateway::error::ClientError;
use crate::gateway::pump::{End, Traffic};
use crate::gateway::serve::{Departure, say};
use crate::gateway::shard::{Shard, Shutdown};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::reply::{self, Format};

/// As much may be said while a command is carried out.
const MAX_AHEAD_BYTES: usize = 65_536;

/// A Terminate message.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// The longest command.
const MAX_COMMAND_BYTES: usize = 4_096;

impl Visit {
    /// Serves it to its end.
    pub(in crate::gateway) async fn run(mut self, shard: &Rc<Shard>, client: &Client) {
        let mut traffic = Traffic::default();
        let departure = Departure::of(shard, client.session, self.began);
        let reason = self.serve(shard, client, &mut traffic).await;
        info!(session = %client.session, reason, "disconnect");
        departure.record(reason, &traffic);
    }

    /// Answers what it asks, one by one, until it goes, and says why it does.
    async fn serve(&mut self, shard: &Rc<Shard>, client: &Client, traffic: &mut Traffic) -> String {
        let mut prepared = Prepared::default();
        let mut is_skipping = false;
        loop {
            // Who goes on sending has to go all the same.
            if client.shutdown_now() != Shutdown::No {
                return self.leave(shard, Box::new(client.farewell())).await;
            }
            if self.ends.is_some_and(|ends| ends <= Instant::now()) {
                return self
                    .leave(shard, Box::new(ClientError::late(Late::Session)))
                    .await;
            }
            let mut out = BytesMut::new();
            match next_message(&mut self.received) {
                Err(why) => return why.to_owned(),
                Ok(Some((b'X', _))) => return End::Terminated.to_string(),
                Ok(Some((b'S', _))) => {
                    is_skipping = false;
                    prepared.synced();
                    reply::ready_for_query(&mut out);
                }
                Ok(Some((tag, _))) if is_skipping && tag != b'Q' => {}
                Ok(Some((tag, body))) => {
                    let answered = self.answer(shard, client, tag, &body, &mut prepared, &mut out);
                    match answered.await {
                        Ok(went_well) => is_skipping = !went_well && tag != b'Q',
                        Err(Left::Gone) => return End::ClientLost.to_string(),
                        Err(Left::Told(farewell)) => return self.leave(shard, farewell).await,
                    }
                }
                Ok(None) => {
                    let stream = &mut self.stream;
                    let received = &mut self.received;
                    match unless_over(client, self.ends, stream.read_into(received)).await {
                        Ok(Ok(read)) if read > 0 => traffic.received += read as u64,
                        Ok(_) => return End::ClientLost.to_string(),
                        Err(farewell) => return self.leave(shard, farewell).await,
                    }
                }
            }
            traffic.sent += out.len() as u64;
            match unless_over(client, self.ends, self.stream.send(&out)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::ClientLost.to_string(),
                Err(farewell) => return self.leave(shard, farewell).await,
            }
            // Others have their turn.
            yield_now().await;
        }
    }

    /// Answers one message; whether that went well.
    async fn answer(
        &mut self,
        shard: &Rc<Shard>,
        client: &Client,
        tag: u8,
        body: &[u8],
        prepared: &mut Prepared,
        out: &mut BytesMut,
    ) -> Result<bool, Left> {
        let done = match tag {
            b'Q' => {
                let text = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned();
                match Command::read(&text) {
                    Some(command) => {
                        let formats = Vec::new();
                        let portal = Portal {
                            text,
                            command,
                            formats,
                        };
                        self.execute(shard, client, &portal, true, out).await?;
                    }
                    None => reply::report(&no_such_command(), out),
                }
                reply::ready_for_query(out);
                return Ok(true);
            }
            b'P' => prepared.parse(body).map(|()| reply::parse_complete(out)),
            b'B' => prepared.bind(body).map(|()| reply::bind_complete(out)),
            b'D' => prepared
                .described(body)
                .map(|(command, formats)| describe(command, formats, out)),
            b'C' => prepared.close(body).map(|()| reply::close_complete(out)),
            b'H' => Ok(()),
            b'E' => match prepared.executed(body) {
                Ok(portal) => return self.execute(shard, client, &portal, false, out).await,
                Err(wrong) => Err(wrong),
            },
            _ => Err(Wrong::Layout),
        };
        if let Err(what) = done {
            reply::report(&wrong(what), out);
        }
        Ok(done.is_ok())
    }

    /// Does what a command says. What takes as long as clients like ends when the visitor goes.
    async fn execute(
        &mut self,
        shard: &Rc<Shard>,
        client: &Client,
        portal: &Portal,
        describes: bool,
        out: &mut BytesMut,
    ) -> Result<bool, Left> {
        let done = run(shard, client, portal, self.level, describes, out);
        if !portal.command.waits() {
            return Ok(done.await);
        }
        let Self {
            stream,
            received,
            ends,
            ..
        } = self;
        let gone = async {
            // What it says meanwhile is answered later, unless it is goodbye, or too much.
            while received.len() < MAX_AHEAD_BYTES && !received.ends_with(&TERMINATE) {
                if !matches!(stream.read_into(received).await, Ok(read) if read > 0) {
                    return;
                }
            }
        };
        tokio::select! {
            // It is begun also if the visitor has gone already.
            biased;
            done = unless_over(client, *ends, done) => done.map_err(Left::Told),
            () = gone => Err(Left::Gone),
        }
    }

    async fn leave(&mut self, shard: &Shard, farewell: Box<ClientError>) -> String {
        say(shard, &mut self.stream, &farewell).await;
        farewell.report.message
    }
}

/// Why a visitor isn't there any more.
enum Left {
    Gone,
    /// It has to go, and is told why.
    Told(Box<ClientError>),
}

/// What a statement, or a portal with these formats, returns.
fn describe(command: &Command, formats: Option<&[Format]>, out: &mut BytesMut) {
    if formats.is_none() {
        reply::no_parameters(out);
    }
    let columns = match command {
        Command::Show(show) => Show::columns(*show),
        _ => None,
    };
    match columns {
        Some(columns) => reply::row_description(columns, formats.unwrap_or_default(), out),
        None => reply::no_data(out),
    }
}

/// What comes of `step`, or what the client is told if it has to go before that.
async fn unless_over<T>(
    client: &Client,
    ends: Option<Instant>,
    step: impl Future<Output = T>,
) -> Result<T, Box<ClientError>> {
    let over = async {
        match ends {
            Some(ends) => sleep_until(ends).await,
            None => pending().await,
        }
    };
    tokio::select! {
        // What is answered first goes out first.
        biased;
        done = step => Ok(done),
        () = client.shutdown() => Err(Box::new(client.farewell())),
        () = over => Err(Box::new(ClientError::late(Late::Session))),
    }
}

/// Takes the first message out of what was received: its type and its body. Nothing if it isn't there in full.
fn next_message(received: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, &'static str> {
    let [tag, a, b, c, d, ..] = *received.as_slice() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_COMMAND_BYTES).contains(&length) {
        return Err("a message had a length that can't be");
    }
    if received.len() <= length {
        return Ok(None);
    }
    let mut message: Vec<u8> = received.drain(..=length).collect();
    Ok(Some((tag, message.split_off(HEADER_BYTES))))
}
