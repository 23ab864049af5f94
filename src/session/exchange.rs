//! One lease of a client that shares server connections with others: what is passed on, renamed, put in and left out.
//!
//! Pure, and streaming: whole frames are looked at where names or texts count, and passed through where they don't. Both
//! directions are accounted for in one ledger; an answer that isn't the client's never reaches it, and one that Postern
//! owes it (of a Parse that the server was never sent) comes in its place.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use bytes::BytesMut;

use super::client::ClientSession;
use super::doubt::Changing;
use super::ledger::{Copying, Standing, TransactionStatus, Whose};
use super::server::ServerSession;
use super::shape::Shape;
use super::statements::{MAX_STATEMENT_BYTES, Statement};
use super::tracker::{Ended, Tracker, is_frontend};
use crate::ids::SessionId;
use crate::sql::{Analysis, Effects};
use crate::wire::frame::{BadLength, Frame, Frames, MAX_GATHERED_BYTES};
use crate::wire::reply;
use crate::wire::request;

mod answers;
mod changes;
mod desk;
mod prepare;
mod restore;
mod shapes;
mod supervise;

use answers::Verdict;
use desk::Desk;
pub use desk::StatementUse;

/// As much of a Bind, Describe, Close or Execute as is gathered: the names stand at its beginning.
const MAX_NAMES_BYTES: u32 = 1_024;

/// As much of a FunctionCall: which function.
const MAX_FUNCTION_BYTES: u32 = 4;

/// As much of a ParameterDescription or RowDescription as is gathered: of 65,535 parameters, and of 1,664 columns (`MaxTupleAttributeNumber`)
/// with names of 63 bytes.
const MAX_SHAPE_BYTES: u32 = 256 * 1024;

/// As much of a CommandComplete as is gathered.
const MAX_TAG_BYTES: u32 = 19;

/// Of a Sync.
const SYNC_LEN: usize = 5;

/// As much as is read while something waits for an answer, so that it shows when the client goes.
const MAX_WAITING_BYTES: usize = 64 * 1024;

/// As much as is made ready for the server before it must have been taken.
const MAX_READY_BYTES: usize = 1024 * 1024;

/// What the pool knows of texts.
pub trait Texts {
    /// Grows when what was thought of texts is void.
    fn epoch(&self) -> u64;
    /// What running `text` may leave behind, read as a session with these `parameters` reads it.
    fn analyse(&self, text: &[u8], server: &ServerSession) -> Analysis;
    /// What reading a parameter may leave behind whose type is the database's own.
    fn own_types(&self) -> Effects;
    /// What reading the constants of a text may leave behind that has these `effects` if it is run.
    fn checks_within(&self, effects: Effects) -> Effects;
    /// `by` is about to run `text`, which changes catalogs and has these `effects`. Nothing, if it only makes something temporary
    /// (`is_temporary`) that does nothing.
    fn changing(
        &self,
        text: &[u8],
        effects: Effects,
        is_temporary: bool,
        by: SessionId,
        server: &ServerSession,
    ) -> Option<Changing>;
    /// The statement whose Parse has this `tail`, one for all unless it isn't to be shared.
    fn intern(&self, tail: &[u8], is_shared: bool, server: &ServerSession) -> Rc<Statement>;
    /// The one in its place for all who share it and have the settings of now.
    fn under(&self, statement: &Statement, server: &ServerSession) -> Rc<Statement>;
    /// One like `statement`, its constants read as that one's were, that is prepared anew, shared with nobody. `shape`: what it
    /// takes and returns, once that is known, if it isn't what that one does. `named`: its text names that statement, and where.
    fn apart(
        &self,
        statement: &Statement,
        shape: Option<OnceCell<Shape>>,
        named: Option<(Range<usize>, Rc<Statement>)>,
    ) -> Rc<Statement>;
    /// Statements return something else by now: whoever prepares one of their texts gets another.
    fn forget_statements(&self);
}

/// The state of one lease.
#[derive(Debug, Default)]
pub struct Exchange {
    client: Frames,
    server: Frames,
    desk: Desk,
    /// What the client has sent and can't be looked at yet: which names stand for what depends on how requests before it end.
    waiting: Vec<u8>,
    /// The frame from the server whose body is under way isn't for the client.
    is_withheld: bool,
    /// What was seen of a frame from the server that isn't complete was not passed on.
    is_held: bool,
}

/// The two sides of a lease, and what the pool knows.
pub struct Sides<'a> {
    /// The client's.
    pub client: &'a mut ClientSession,
    /// The server connection's.
    pub server: &'a mut ServerSession,
    /// The pool's.
    pub texts: &'a dyn Texts,
}

impl Exchange {
    /// Begins with a connection that is the client's by now; appends what it has to hear of that to `to_client`.
    pub fn begin(&mut self, sides: &mut Sides<'_>, to_client: &mut Vec<u8>) {
        correct(sides.client, sides.server, to_client);
    }

    /// Takes bytes from the client, and appends what the server gets to `to_server`, and what the client is answered at once
    /// to `to_client`.
    #[inline]
    pub fn from_client(
        &mut self,
        chunk: &[u8],
        sides: &mut Sides<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Option<Ended> {
        if self.desk.ledger.is_empty() {
            self.desk.former.clear();
        }
        let mut input = chunk;
        loop {
            to_server.extend_from_slice(self.client.skip_unwanted(&mut input));
            let frame = match self.client.next(&mut input, most_of_request) {
                Ok(None) => break,
                Ok(Some(frame)) => frame,
                Err(error) => return Some(Ended::BadLength(error)),
            };
            self.desk.looks_at(frame, sides);
            if frame.tag != b'X' && is_frontend(frame.tag) {
                match self.desk.awaits_report(frame, sides, to_server) {
                    Ok(false) => {}
                    Ok(true) => {
                        wait(frame, input, &mut self.waiting);
                        self.client = Frames::default();
                        break;
                    }
                    Err(ended) => return Some(ended),
                }
            }
            match frame.tag {
                b'X' => return Some(Ended::Goodbye),
                tag if !is_frontend(tag) => return Some(Ended::BadType(tag)),
                b'P' | b'B' | b'D' | b'C' | b'Q'
                    if self.desk.is_undecided() || to_server.len() > MAX_READY_BYTES =>
                {
                    wait(frame, input, &mut self.waiting);
                    self.client = Frames::default();
                    break;
                }
                b'S' if self.desk.may_copy && self.desk.ledger.may_begin_copy() => {
                    // If the server takes data it ignores this; if it fails before, it doesn't, and then nobody could tell.
                    request::flush(to_server);
                    self.desk.ledger.sent(b'H', Whose::Own);
                    self.desk.holds_sync = true;
                    wait(frame, input, &mut self.waiting);
                    self.client = Frames::default();
                    break;
                }
                b'S' if self.desk.ledger.copy != Copying::No => continue,
                _ => {}
            }
            let instead = match self.desk.supervised(frame, sides) {
                Ok(instead) => instead,
                Err(ended) => return Some(ended),
            };
            self.desk.used.refused += u32::from(instead.is_some());
            let asked = match &instead {
                Some((tag, body)) => Frame {
                    tag: *tag,
                    length: body.len() as u32 + 4,
                    body,
                },
                None => frame,
            };
            if let Err(error) = self.desk.take(asked, sides, to_server) {
                return Some(Ended::BadLength(error));
            }
            if self.desk.shapes.is_awaited() {
                wait(frame, input, &mut self.waiting);
                self.client = Frames::default();
                break;
            }
            self.desk.supervises(frame, instead.is_some(), sides);
            if self.desk.overflows() {
                return Some(Ended::TooMuch);
            }
        }
        if self.desk.ledger.has_edits() && self.server.at_boundary() {
            self.desk.make_due(to_client);
        }
        None
    }

    /// Whether the client has sent what can't be looked at yet; nothing more is to be taken from it until
    /// [`Self::resume`] has taken that.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether what waits needs an answer of the server's before it can be looked at.
    pub fn is_undecided(&self) -> bool {
        self.is_waiting() && self.must_wait()
    }

    /// A COPY may also fail before the server has looked at what comes; if nothing has come behind the Sync by then, it counts.
    fn must_wait(&self) -> bool {
        let is_last = self.desk.holds_sync && self.waiting.len() <= SYNC_LEN;
        let ledger = &self.desk.ledger;
        let holds = self.desk.holds_for_report && ledger.owes_ready() && ledger.copy == Copying::No;
        self.desk.is_undecided() || holds || is_last && self.desk.ledger.copy != Copying::No
    }

    /// Whether more may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING_BYTES
    }

    /// Lets more wait behind what does.
    pub fn wait_with(&mut self, more: &[u8]) {
        self.waiting.extend_from_slice(more);
    }

    /// Takes what waits, if it can be looked at by now; as [`Self::from_client`].
    pub fn resume(
        &mut self,
        sides: &mut Sides<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Option<Ended> {
        if self.must_wait() {
            return None;
        }
        if std::mem::take(&mut self.desk.holds_sync) {
            self.desk.may_copy = false;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.from_client(&waiting, sides, to_server, to_client)
    }

    /// Takes bytes from the server. `false`: they are all for the client as they are. `true`: what is
    /// for the client was appended to `to_client`.
    #[inline]
    pub fn from_server(
        &mut self,
        chunk: &[u8],
        sides: &mut Sides<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<bool, BadLength> {
        let mut input = chunk;
        let mut edits = self.is_held || self.is_withheld || self.desk.ledger.has_edits();
        loop {
            let passing = self.server.skip_unwanted(&mut input);
            if edits {
                if !self.is_withheld {
                    to_client.extend_from_slice(passing);
                }
                if !self.server.has_unwanted() && self.server.seen() == 0 {
                    self.desk.make_due(to_client);
                }
            }
            let start = chunk.len() - input.len();
            let seen = if self.is_held { 0 } else { self.server.seen() };
            let is_asked = self.desk.shapes.is_asked();
            let most = |tag| most_of_reply(tag, is_asked);
            let Some(frame) = self.server.next(&mut input, most)? else {
                let is_wanted = self.server.begun().is_some_and(|tag| most(tag) > 0);
                self.is_held = seen == 0 && self.server.begun().is_some() && (edits || is_wanted);
                if self.is_held && !edits {
                    to_client.extend_from_slice(chunk.get(..start).unwrap_or_default());
                    return Ok(true);
                }
                if edits && seen > 0 {
                    // Its beginning was passed on already.
                    to_client.extend_from_slice(chunk.get(start..).unwrap_or_default());
                }
                return Ok(edits);
            };
            self.is_held = false;
            let mut verdict = self.desk.answer(frame, sides);
            if seen > 0 {
                // Begun already, it can't be changed any more.
                verdict = Verdict::Pass;
            }
            if !edits && !matches!(verdict, Verdict::Pass) {
                to_client.extend_from_slice(chunk.get(..start).unwrap_or_default());
                edits = true;
            }
            self.is_withheld = edits && matches!(verdict, Verdict::Withhold | Verdict::Correct);
            if edits {
                match verdict {
                    Verdict::Pass => pass(frame, seen, to_client),
                    Verdict::Rename(body) => {
                        request::header(frame.tag, body.len() as u32 + 4, to_client);
                        to_client.extend_from_slice(&body);
                    }
                    Verdict::Withhold => {}
                    Verdict::Correct => {
                        correct(sides.client, sides.server, to_client);
                        if std::mem::take(&mut self.desk.owes_ready) {
                            // What was restored leaves the transaction as it is.
                            pass(frame, 0, to_client);
                        }
                    }
                }
            }
        }
    }

    /// Whether the server has answered everything, outside any transaction, and the client isn't in the middle of a message.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.desk.ledger.is_empty()
            && self.desk.ledger.status == TransactionStatus::Idle
            && !self.desk.ledger.unsynced
            && !self.desk.ledger.lost
            && self.server.at_boundary()
            && self.client.at_boundary()
            && !self.is_waiting()
    }

    /// What the client is at.
    #[inline]
    pub fn standing(&self) -> Standing {
        self.desk.ledger.standing(self.client.goes_on())
    }

    /// Whether it isn't known any more what the server owes.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.desk.ledger.lost
    }

    /// SQLSTATE and text of what the server refused to do for Postern itself, so that the lease can't go on.
    pub fn refusal(&self) -> Option<&(String, String)> {
        self.desk.refusal.as_ref()
    }

    /// How many ReadyForQuery messages have come.
    pub fn answered(&self) -> u64 {
        self.desk.ledger.answered
    }

    /// How many of those have said that no transaction is open.
    pub fn transactions(&self) -> u64 {
        self.desk.ledger.transactions
    }

    /// What became of the prepared statements that the client used.
    pub fn statements(&self) -> StatementUse {
        self.desk.used
    }

    /// What is owed, for whoever cleans up the connection.
    pub fn into_tracker(self) -> Tracker {
        Tracker::of(self.client, self.server, self.desk.ledger)
    }
}

/// Keeps `frame` and the `rest` behind it, to be looked at later.
fn wait(frame: Frame<'_>, rest: &[u8], waiting: &mut Vec<u8>) {
    request::header(frame.tag, frame.length, waiting);
    waiting.extend_from_slice(frame.body);
    waiting.extend_from_slice(rest);
}

fn most_of_request(tag: u8) -> u32 {
    match tag {
        b'Q' | b'P' => MAX_STATEMENT_BYTES as u32,
        b'B' | b'D' | b'C' | b'E' => MAX_NAMES_BYTES,
        b'F' => MAX_FUNCTION_BYTES,
        _ => 0,
    }
}

/// `is_asked`: statements were described.
fn most_of_reply(tag: u8, is_asked: bool) -> u32 {
    match tag {
        b't' | b'T' if is_asked => MAX_SHAPE_BYTES,
        b'Z' | b'S' | b'E' => MAX_GATHERED_BYTES,
        b'C' => MAX_TAG_BYTES,
        _ => 0,
    }
}

/// A frame, or as much of it as is lent, without the first `seen` bytes.
fn pass(frame: Frame<'_>, seen: usize, into: &mut Vec<u8>) {
    let start = into.len();
    request::header(frame.tag, frame.length, into);
    into.extend_from_slice(frame.body);
    into.drain(start..start + seen.min(into.len() - start));
}

/// Tells the client what isn't as it was told.
fn correct(client: &mut ClientSession, server: &mut ServerSession, to_client: &mut Vec<u8>) {
    if Rc::ptr_eq(&client.told, &server.parameters) {
        return;
    }
    if client.told == server.parameters {
        // Clients that were told the same share it.
        server.parameters = client.told.clone();
        return;
    }
    let mut message = BytesMut::new();
    for (name, value) in server.parameters.differing_from(&client.told) {
        reply::parameter_status(name, value, &mut message);
    }
    to_client.extend_from_slice(&message);
    client.told = server.parameters.clone();
}
