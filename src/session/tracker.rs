//! What a server connection still owes, so that "clean" is a fact and not a guess.
//!
//! Both directions are scanned as they are forwarded. A ReadyForQuery is owed for every Query, Sync and
//! FunctionCall; a Sync that arrives in the middle of a COPY FROM STDIN is ignored by the server
//! (PostgreSQL documentation, "COPY Operations") and so owes none. Where the order of things can't be known
//! (a COPY that fails while Syncs are under way), the tracker says so ([`Tracker::is_lost`]) and the connection
//! is never given to anybody else.

use std::collections::VecDeque;

use super::parameters::Parameters;
use crate::wire::frame::{BadLength, Frame, Frames};

/// What the last ReadyForQuery said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a transaction block that has failed.
    Failed,
}

/// What a chunk of a client's bytes amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientChunk {
    /// How many bytes of the chunk go to the server now. What is left of a chunk that doesn't end the session is
    /// the beginning of a header ([`Tracker::held_back`]).
    pub forward: usize,
    /// Whether the session ends here; what comes after is void.
    pub ended: Option<Ended>,
}

/// How a client ends its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a Terminate.
    Goodbye,
    /// With a length that can't be.
    BadLength(BadLength),
    /// With a message that no client may send now. PostgreSQL would end the server connection over it.
    BadType(u8),
    /// With more requests that nothing has answered than anybody could keep account of.
    TooMuch,
}

/// Runs of unanswered requests that are kept account of; a pipeline of one kind is a single run.
const MAX_OWED: usize = 10_000;

/// The state of one lease.
#[derive(Debug, Default)]
pub struct Tracker {
    client: Frames,
    server: Frames,
    ledger: Ledger,
}

/// What was asked and not yet answered.
#[derive(Debug)]
struct Ledger {
    owed: VecDeque<Owed>,
    unsynced: bool,
    copy: Copying,
    /// A COPY into which void Syncs fell has been ended by the client and not yet by the server. If it fails after all,
    /// nobody knows which of those Syncs the server will answer.
    doubtful: bool,
    /// A Query was sent after extended-protocol messages without a Sync between them. If one of those fails, the server
    /// skips the Query, and there is no answer to it.
    skippable: bool,
    lost: bool,
    status: TransactionStatus,
    answered: u64,
    last_was_error: bool,
}

/// One thing that the client has sent and whose answer isn't complete, with how often it stands there in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owed {
    what: Request,
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Query or FunctionCall.
    Query,
    Sync,
    /// CopyDone or CopyFail: no ReadyForQuery of its own, but it parts the Syncs that count from those that don't.
    CopyEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    No,
    /// The server takes CopyData.
    In,
    /// The same, and at least one Sync was void in it.
    InPastSync,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            owed: VecDeque::new(),
            unsynced: false,
            copy: Copying::No,
            doubtful: false,
            skippable: false,
            lost: false,
            status: TransactionStatus::Idle,
            answered: 0,
            last_was_error: false,
        }
    }
}

impl Tracker {
    /// Looks at bytes from the client before they are forwarded.
    ///
    /// What [`Tracker::held_back`] returned before this call goes to the server in front of the chunk, unless
    /// nothing of the chunk does.
    #[inline]
    pub fn from_client(&mut self, chunk: &[u8]) -> ClientChunk {
        let mut input = chunk;
        let mut boundary = self.client.body_end(0, chunk.len());
        let ended = loop {
            match self.client.next(&mut input, |_| false) {
                Ok(None) => break None,
                Ok(Some(Frame { tag: b'X', .. })) => break Some(Ended::Goodbye),
                Ok(Some(Frame { tag, .. })) if !is_frontend(tag) => break Some(Ended::BadType(tag)),
                Ok(Some(Frame { tag, .. })) => {
                    self.ledger.sent(tag);
                    if self.ledger.owed.len() > MAX_OWED {
                        self.ledger.lost = true;
                        self.ledger.owed = VecDeque::new();
                        break Some(Ended::TooMuch);
                    }
                }
                Err(error) => break Some(Ended::BadLength(error)),
            }
            boundary = self.client.body_end(chunk.len() - input.len(), chunk.len());
        };
        let forward = match ended {
            None => chunk.len().saturating_sub(self.client.partial_header().len()),
            Some(_) => {
                // The server never hears of the message that ends the session.
                self.client = Frames::default();
                boundary
            }
        };
        ClientChunk { forward, ended }
    }

    /// The beginning of a header, which goes to the server together with what follows.
    pub fn held_back(&self) -> &[u8] {
        self.client.partial_header()
    }

    /// Looks at bytes from the server as they are forwarded, and keeps `parameters` up to date.
    #[inline]
    pub fn from_server(&mut self, chunk: &[u8], parameters: &mut Parameters) -> Result<(), BadLength> {
        let mut input = chunk;
        while let Some(frame) = self.server.next(&mut input, |tag| matches!(tag, b'Z' | b'S'))? {
            self.ledger.last_was_error = frame.tag == b'E';
            match frame.tag {
                b'Z' => self.ledger.ready(frame.body),
                b'S' => parameters.report(frame.body),
                b'G' => self.ledger.copy_begins(),
                b'E' => self.ledger.failed(),
                b'C' => self.ledger.doubtful = false,
                // CopyBothResponse belongs to replication, which is never let through.
                b'W' => self.ledger.lost = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the server has answered everything, outside any transaction: nothing of this client is under way.
    pub fn is_idle(&self) -> bool {
        self.is_settled() && self.ledger.status == TransactionStatus::Idle
    }

    /// Whether the server has answered everything, in or outside a transaction.
    pub fn is_settled(&self) -> bool {
        self.ledger.owed.is_empty() && !self.ledger.unsynced && !self.is_lost() && self.server.at_boundary()
    }

    /// Whether the last message from the server is complete, so that one of our own may follow it.
    pub fn is_between_answers(&self) -> bool {
        self.server.at_boundary()
    }

    /// Whether a ReadyForQuery is owed that is worth waiting for.
    pub fn is_busy(&self) -> bool {
        let mut owed = self.ledger.owed.iter();
        !self.is_lost() && owed.any(|owed| owed.what != Request::CopyEnd)
    }

    /// Whether extended-protocol messages were sent that no Sync has closed.
    pub fn is_unsynced(&self) -> bool {
        self.ledger.unsynced
    }

    /// Whether it can't be known any more what the server will send: in the middle of a client's message or a COPY,
    /// or after a COPY failed among Syncs.
    pub fn is_lost(&self) -> bool {
        self.ledger.lost || self.ledger.copy != Copying::No || self.client.in_body()
    }

    /// What the last ReadyForQuery said.
    pub fn status(&self) -> TransactionStatus {
        self.ledger.status
    }

    /// Whether the last message from the server was an ErrorResponse. If it closes then, it has said why.
    pub fn ends_in_error(&self) -> bool {
        self.ledger.last_was_error
    }

    /// How many ReadyForQuery messages have come.
    pub fn answered(&self) -> u64 {
        self.ledger.answered
    }

    /// Notes that a Query or Sync of Postern's own was sent.
    pub fn sent_own(&mut self, tag: u8) {
        self.ledger.sent(tag);
    }
}

/// Whether a client may send a message of this type once it is logged in (PostgreSQL documentation, "Message Formats").
#[inline]
fn is_frontend(tag: u8) -> bool {
    matches!(
        tag,
        b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'F' | b'd' | b'c' | b'f'
    )
}

impl Ledger {
    #[inline]
    fn sent(&mut self, tag: u8) {
        match tag {
            b'Q' | b'F' => {
                self.skippable |= self.unsynced;
                self.push(Request::Query);
            }
            b'S' if self.copy == Copying::No => {
                self.unsynced = false;
                self.push(Request::Sync);
            }
            b'S' => self.copy = Copying::InPastSync,
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' => self.unsynced = true,
            b'c' | b'f' => {
                self.doubtful |= self.copy == Copying::InPastSync;
                self.copy = Copying::No;
                if !self.owed.is_empty() || self.unsynced {
                    self.push(Request::CopyEnd);
                }
            }
            _ => {}
        }
    }

    #[inline]
    fn push(&mut self, what: Request) {
        match self.owed.back_mut() {
            Some(last) if last.what == what && last.times < u32::MAX => last.times += 1,
            _ => self.owed.push_back(Owed { what, times: 1 }),
        }
    }

    #[inline]
    fn ready(&mut self, body: &[u8]) {
        self.answered += 1;
        self.status = match body {
            [b'T'] => TransactionStatus::InTransaction,
            [b'E'] => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        };
        self.lost |= !matches!(body, [b'I' | b'T' | b'E']);
        if self.copy != Copying::No {
            // A ReadyForQuery can't come while the server waits for CopyData.
            self.lost = true;
        }
        self.drop_copy_ends();
        match self.owed.front_mut() {
            Some(first) if first.times > 1 => first.times -= 1,
            Some(_) => drop(self.owed.pop_front()),
            None => self.lost = true,
        }
        self.drop_copy_ends();
        self.skippable &= !self.owed.is_empty();
    }

    fn drop_copy_ends(&mut self) {
        while self
            .owed
            .front()
            .is_some_and(|first| first.what == Request::CopyEnd)
        {
            self.owed.pop_front();
        }
    }

    /// CopyInResponse: the server reads until CopyDone or CopyFail, and every Sync before that is void.
    fn copy_begins(&mut self) {
        let first_end = self.owed.iter().position(|owed| owed.what == Request::CopyEnd);
        let before_end = first_end.unwrap_or(self.owed.len());
        let had_sync = self
            .owed
            .range(..before_end)
            .any(|owed| owed.what == Request::Sync);
        let mut place = 0;
        self.owed.retain(|owed| {
            place += 1;
            place > before_end || owed.what != Request::Sync
        });
        self.unsynced |= had_sync;
        match (first_end, had_sync) {
            (None, false) => self.copy = Copying::In,
            (None, true) => self.copy = Copying::InPastSync,
            (Some(_), false) => {}
            // Void Syncs and an end that was sent already: if the COPY fails in between, nobody knows which count.
            (Some(_), true) => self.lost = true,
        }
    }

    fn failed(&mut self) {
        self.lost |= self.doubtful | self.skippable;
        match self.copy {
            Copying::No => {}
            Copying::In => self.copy = Copying::No,
            Copying::InPastSync => self.lost = true,
        }
    }
}

#[cfg(test)]
mod tests;
