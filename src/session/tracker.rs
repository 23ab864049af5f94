//! What a server connection still owes, so that "clean" is a fact and not a guess.
//!
//! Both directions are scanned as they are forwarded. A ReadyForQuery is owed for every Query, Sync and
//! FunctionCall; a Sync that arrives in the middle of a COPY FROM STDIN is ignored by the server
//! (PostgreSQL documentation, "COPY Operations") and so owes none. Where the order of things can't be known
//! (a COPY that fails while Syncs are under way), the tracker says so ([`Tracker::is_lost`]) and the connection
//! is never given to anybody else.

use std::rc::Rc;

use super::ledger::{Copying, Ledger, Standing, TransactionStatus, Whose};
use super::parameters::Parameters;
use crate::wire::frame::{BadLength, Frame, Frames, whole};

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
    /// With a statement that is too long to be judged, where it must be.
    Unread,
    /// With a session that can't be made to only read again.
    Writable,
    /// With more requests that nothing has answered than anybody could keep account of.
    TooMuch,
}

/// The state of one lease.
#[derive(Debug, Default)]
pub struct Tracker {
    client: Frames,
    server: Frames,
    ledger: Ledger,
}

impl Tracker {
    /// The tracker of a connection whose traffic was followed elsewhere.
    pub(super) fn of(client: Frames, server: Frames, ledger: Ledger) -> Self {
        Self {
            client,
            server,
            ledger,
        }
    }

    /// Looks at bytes from the client before they are forwarded.
    ///
    /// What [`Tracker::held_back`] returned before this call goes to the server in front of the chunk, unless
    /// nothing of the chunk does.
    #[inline]
    pub fn from_client(&mut self, chunk: &[u8]) -> ClientChunk {
        let mut input = chunk;
        let mut boundary = self.client.body_end(0, chunk.len());
        let ended = loop {
            match self.client.next(&mut input, |_| 0) {
                Ok(None) => break None,
                Ok(Some(Frame { tag: b'X', .. })) => break Some(Ended::Goodbye),
                Ok(Some(Frame { tag, .. })) if !is_frontend(tag) => break Some(Ended::BadType(tag)),
                Ok(Some(Frame { tag, .. })) => {
                    self.ledger.sent(tag, Whose::Client);
                    if self.ledger.overflows() {
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
    pub fn from_server(&mut self, chunk: &[u8], parameters: &mut Rc<Parameters>) -> Result<(), BadLength> {
        let mut input = chunk;
        while let Some(frame) = self.server.next(&mut input, whole(b"ZS"))? {
            if self.ledger.has_edits() {
                // Nobody waits for answers that the server doesn't give.
                while self.ledger.take_made().is_some() {}
            }
            if frame.tag == b'S' {
                Rc::make_mut(parameters).report(frame.body);
            }
            self.ledger.received(frame.tag, frame.body);
        }
        Ok(())
    }

    /// Whether the server has answered everything, outside any transaction: nothing of this client is under way.
    pub fn is_idle(&self) -> bool {
        self.is_settled() && self.ledger.status == TransactionStatus::Idle
    }

    /// Whether the server has answered everything, in or outside a transaction.
    pub fn is_settled(&self) -> bool {
        self.ledger.is_empty() && !self.ledger.unsynced && !self.is_lost() && self.server.at_boundary()
    }

    /// Whether the last message from the server is complete, so that one of our own may follow it.
    pub fn is_between_answers(&self) -> bool {
        self.server.at_boundary()
    }

    /// Whether a ReadyForQuery is owed that is worth waiting for.
    pub fn is_busy(&self) -> bool {
        !self.is_lost() && self.ledger.owes_ready()
    }

    /// What the client is at.
    #[inline]
    pub fn standing(&self) -> Standing {
        self.ledger.standing(self.client.goes_on())
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

    /// How many of those have said that no transaction is open.
    pub fn transactions(&self) -> u64 {
        self.ledger.transactions
    }

    /// Notes that a Query or Sync of Postern's own was sent.
    pub fn sent_own(&mut self, tag: u8) {
        self.ledger.sent(tag, Whose::Own);
    }
}

/// Whether a client may send a message of this type once it is logged in (PostgreSQL documentation, "Message Formats").
#[inline]
pub fn is_frontend(tag: u8) -> bool {
    matches!(
        tag,
        b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'F' | b'd' | b'c' | b'f'
    )
}

#[cfg(test)]
mod tests;
