//! One lease of a client that shares server connections with others: what is passed on, renamed, put in and left out.
//!
//! Pure, and streaming: whole frames are looked at where names or texts count, and passed through where they don't. Both
//! directions are accounted for in one ledger; an answer that isn't the client's never reaches it, and one that Postern
//! owes it (of a Parse that the server was never sent) comes in its place.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use super::client::{ClientSession, Unnamed};
use super::ledger::{Ledger, Request, TransactionStatus, Whose};
use super::server::ServerSession;
use super::settings::Setting;
use super::statements::{ClientStatements, MAX_CLIENT_BYTES, MAX_STATEMENT_BYTES, NAME_PREFIX, Statement};
use super::tracker::{Ended, Tracker, is_frontend};
use crate::pin::Reason;
use crate::sql::{Analysis, Command, Discarded, Effects, Identifier, Lexer, MAX_NAME_BYTES, setting_name};
use crate::wire::body::Body;
use crate::wire::frame::{BadLength, Frame, Frames, MAX_GATHERED_BYTES};
use crate::wire::reply::{self, state_and_message};
use crate::wire::request;

/// As much of a Bind, Describe, Close or Execute as is gathered: the names stand at its beginning.
const MAX_NAMES_BYTES: u32 = 1_024;

/// What a text may leave behind that isn't read.
const UNREAD: Effects = Effects::UNKNOWN.union(Effects::DYNAMIC_SETTING);

/// As much of a CommandComplete as is gathered.
const MAX_TAG_BYTES: u32 = 19;

/// As much as is made ready for the server before it must have been taken.
const MAX_READY_BYTES: usize = 1024 * 1024;

/// Portals that reset settings and are kept account of; of more than these it is seen when it is settled.
const MAX_RESETTING: usize = 16;

/// Names that are kept only to be put into errors.
const MAX_FORMER: usize = 1_000;

/// What the pool knows of texts.
pub trait Texts {
    /// Grows when what was thought of texts is void.
    fn epoch(&self) -> u64;
    /// What running `text` may leave behind, read as a session with these `parameters` reads it.
    fn analyse(&self, text: &[u8], server: &ServerSession) -> Analysis;
    /// The statement whose Parse has this `tail`.
    fn intern(&self, tail: &[u8], server: &ServerSession) -> Rc<Statement>;
    /// The same, shared with nobody.
    fn apart(&self, statement: &Statement) -> Rc<Statement>;
}

/// The state of one lease.
#[derive(Debug)]
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

/// Where requests are taken down.
#[derive(Debug)]
struct Desk {
    ledger: Ledger,
    /// What each Parse and Close that isn't answered changes, in their order.
    changes: Changes,
    /// Names that requests which aren't answered may still have used: closed since, or never defined.
    former: Vec<(Box<[u8]>, Rc<Statement>)>,
    /// What DISCARD ALL or DEALLOCATE ALL has ended, if it succeeds.
    forgotten: Option<Box<Forgotten>>,
    /// Portals that reset settings: what the client began with is set again behind their Execute.
    resetting: Vec<(Box<[u8]>, Restore)>,
    /// For each restoring of settings that isn't answered, which ReadyForQuery of this lease comes right before its answer: it
    /// waits for that, so that the client never hears of values that it won't see.
    restores: VecDeque<u64>,
    /// One waits.
    owes_ready: bool,
    /// Something that Postern asked for itself has failed: what the session is like isn't known.
    refusal: Option<(String, String)>,
}

/// Settings to go back to.
#[derive(Debug, PartialEq, Eq)]
enum Restore {
    Nothing,
    One(String),
    All,
}

impl Restore {
    /// What a statement resets, as far as its text alone shows it.
    fn of(text: &[u8], effects: Effects, command: &Command) -> Self {
        match command {
            Command::Other if effects.intersects(Effects::SETTING) => {
                reset_in_other_words(text).map_or(Self::Nothing, |name| Self::One(name.to_owned()))
            }
            _ if !effects.intersects(Effects::RESET) => Self::Nothing,
            Command::Set { local: false, name } | Command::Reset { name } => {
                setting_name(text.get(name.clone()).unwrap_or_default()).map_or(Self::Nothing, Self::One)
            }
            Command::ResetAll | Command::Discard(Discarded::All) => Self::All,
            _ => Self::Nothing,
        }
    }
}

/// What a Parse or a Close changes if it isn't skipped.
#[derive(Debug)]
enum Change {
    Nothing,
    /// Postern makes room for another statement, or puts the client's unnamed statement in place of somebody else's.
    Own,
    /// A named statement is defined: the client's name, if it was the client who asked, and the statement, if the server
    /// connection gets it by this.
    Defined(Option<Box<[u8]>>, Option<Rc<Statement>>),
    /// A named statement of the client's has ended.
    Closed(Box<[u8]>, Rc<Statement>),
    /// The unnamed statement is another one, or none; what it was before.
    Unnamed(Unnamed),
}

/// A client's statements, until it is known that they have ended.
#[derive(Debug)]
struct Forgotten {
    statements: ClientStatements,
    unnamed: Unnamed,
    /// The ReadyForQuery, counted in this lease, before which it is known.
    known_at: u64,
}

/// Changes in the order of their messages.
#[derive(Debug, Default)]
struct Changes {
    queue: VecDeque<Change>,
    /// How many of them decide what names stand for.
    named: usize,
}

impl Change {
    fn is_named(&self) -> bool {
        matches!(self, Self::Defined(..) | Self::Closed(..) | Self::Own)
    }
}

impl Changes {
    fn push(&mut self, change: Change) {
        self.named += usize::from(change.is_named());
        self.queue.push_back(change);
    }

    fn pop(&mut self) {
        if let Some(change) = self.queue.pop_front() {
            self.named -= usize::from(change.is_named());
        }
    }

    /// The first `count` are void.
    fn take(&mut self, count: usize) -> VecDeque<Change> {
        let rest = self.queue.split_off(count.min(self.queue.len()));
        let taken = std::mem::replace(&mut self.queue, rest);
        self.named -= taken.iter().filter(|change| change.is_named()).count();
        taken
    }
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

impl Default for Exchange {
    fn default() -> Self {
        Self {
            client: Frames::default(),
            server: Frames::default(),
            desk: Desk {
                ledger: Ledger::fine(),
                changes: Changes::default(),
                former: Vec::new(),
                forgotten: None,
                resetting: Vec::new(),
                restores: VecDeque::new(),
                owes_ready: false,
                refusal: None,
            },
            waiting: Vec::new(),
            is_withheld: false,
            is_held: false,
        }
    }
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
            match frame.tag {
                b'X' => return Some(Ended::Goodbye),
                tag if !is_frontend(tag) => return Some(Ended::BadType(tag)),
                b'P' | b'B' | b'D' | b'C' | b'Q'
                    if self.desk.is_undecided() || to_server.len() > MAX_READY_BYTES =>
                {
                    request::header(frame.tag, frame.length, &mut self.waiting);
                    self.waiting.extend_from_slice(frame.body);
                    self.waiting.extend_from_slice(input);
                    self.client = Frames::default();
                    break;
                }
                _ => {}
            }
            if let Err(error) = self.desk.take(frame, sides, to_server) {
                return Some(Ended::BadLength(error));
            }
            if self.desk.ledger.overflows() {
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

    /// Takes what waits, if it can be looked at by now; as [`Self::from_client`].
    pub fn resume(
        &mut self,
        sides: &mut Sides<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Option<Ended> {
        if self.desk.is_undecided() {
            return None;
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
            let Some(frame) = self.server.next(&mut input, most_of_reply)? else {
                self.is_held = edits && seen == 0 && self.server.seen() > 0;
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

    /// What is owed, for whoever cleans up the connection.
    pub fn into_tracker(self) -> Tracker {
        Tracker::of(self.client, self.server, self.desk.ledger)
    }
}

/// What becomes of a frame from the server.
enum Verdict {
    Pass,
    Withhold,
    /// It isn't the client's, and what was asked for Postern itself is done: the client may have to hear of parameters.
    Correct,
    /// The body to send instead.
    Rename(Vec<u8>),
}

fn most_of_request(tag: u8) -> u32 {
    match tag {
        b'Q' | b'P' => MAX_STATEMENT_BYTES as u32,
        b'B' | b'D' | b'C' | b'E' => MAX_NAMES_BYTES,
        _ => 0,
    }
}

fn most_of_reply(tag: u8) -> u32 {
    match tag {
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

impl Desk {
    #[inline]
    fn take(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        match frame.tag {
            tag if self.ledger.is_skipping() && tag != b'S' => {
                self.pass(frame, out);
                Ok(())
            }
            b'Q' => self.query(frame, sides, out),
            b'P' => self.parse(frame, sides, out),
            b'B' => self.bind(frame, sides, out),
            b'D' => self.describe(frame, sides, out),
            b'C' => self.close(frame, sides, out),
            tag => {
                if tag == b'F' {
                    runs(sides, &[], UNREAD, Command::Other);
                }
                self.pass(frame, out);
                match tag {
                    // If the server skips the one, it skips the other.
                    b'E' if !self.resetting.is_empty() => self.restore_within(frame, sides, out),
                    b'S' => self.resetting.clear(),
                    _ => {}
                }
                Ok(())
            }
        }
    }

    /// Whether names may stand for something else once what was asked before the last Sync is answered: if it fails, what it
    /// would have defined isn't, and what it would have closed still is, on the server connection too.
    #[inline]
    fn is_undecided(&self) -> bool {
        self.ledger.owes_ready() && (self.changes.named > 0 || self.forgotten.is_some())
    }

    /// What a text may leave behind that is read before what decides how the server reads it is done.
    #[inline]
    fn misread(&self, sides: &Sides<'_>) -> Effects {
        if !self.ledger.is_empty() && sides.client.run.changes_reading() {
            UNREAD
        } else {
            Effects::NONE
        }
    }

    /// Notes a message of Postern's own.
    fn sent_own(&mut self, tag: u8) {
        if matches!(tag, b'P' | b'C') {
            self.changes.push(Change::Nothing);
        }
        self.ledger.sent(tag, Whose::Own);
    }

    fn pass(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        self.ledger.sent(frame.tag, Whose::Client);
        request::header(frame.tag, frame.length, out);
        out.extend_from_slice(frame.body);
    }

    fn query(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        sides.client.unnamed = Unnamed::default();
        sides.server.unnamed_of = None;
        if frame.is_cut() {
            runs(sides, &[], UNREAD, Command::Other);
            self.pass(frame, out);
            return Ok(());
        }
        let text = frame.body.strip_suffix(b"\0").unwrap_or(frame.body);
        let Analysis {
            mut effects,
            lone: first,
            ..
        } = sides.texts.analyse(text, sides.server);
        effects |= self.misread(sides);
        runs(sides, text, effects, first.clone());
        match self.statement_of(text, &first, sides) {
            Some((place, statement)) => {
                self.ensure(&statement, sides, out);
                let mut renamed = text.to_vec();
                renamed.splice(place, statement.server_name.bytes());
                renamed.push(0);
                request::message(b'Q', out, |body| body.extend_from_slice(&renamed));
                self.ledger.sent(b'Q', Whose::Client);
                if matches!(first, Command::Deallocate { .. }) {
                    sides.client.statements.remove(&statement);
                }
            }
            None => self.pass(frame, out),
        }
        self.forget(effects, &first, true, sides);
        self.restore(&Restore::of(text, effects, &first), sides, out);
        Ok(())
    }

    /// The prepared statement of the protocol that the SQL names, and where.
    fn statement_of(
        &self,
        text: &[u8],
        command: &Command,
        sides: &Sides<'_>,
    ) -> Option<(std::ops::Range<usize>, Rc<Statement>)> {
        let (Command::Deallocate { name: place }
        | Command::Execute { name: place }
        | Command::Prepare { name: place }) = command
        else {
            return None;
        };
        if self.ledger.status == TransactionStatus::Failed {
            return None;
        }
        let mut buffer = [0; MAX_NAME_BYTES];
        let name = Identifier::parse(text.get(place.clone())?)?;
        let statement = sides.client.statements.get(name.fold(&mut buffer)?)?;
        Some((place.clone(), statement.clone()))
    }

    /// RESET goes back to what the server connection began with, but the client began with settings of its own: they
    /// are set again right behind it. The ReadyForQuery of the RESET waits for that.
    fn restore(&mut self, what: &Restore, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let begin = self.ledger.answered + self.ledger.readies();
        if self.set_again(what, sides, out) {
            self.restores.push_back(begin);
            request::sync(out);
            self.sent_own(b'S');
        }
    }

    /// The same within an extended query: if the server skips the one, it skips the other.
    fn restore_within(&mut self, execute: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let portal = Body::new(execute.body).cstring().unwrap_or_default();
        let place = self.resetting.iter().position(|(name, _)| **name == *portal);
        // More of the Execute follows if it was too long to be gathered; what is reset then is seen when it is settled.
        if let Some(place) = place.filter(|_| !execute.is_cut()) {
            let (_, what) = self.resetting.swap_remove(place);
            self.set_again(&what, sides, out);
        }
    }

    /// Notes that `portal` runs a statement.
    fn binds(&mut self, portal: &[u8], what: Restore) {
        self.resetting.retain(|(name, _)| **name != *portal);
        if what != Restore::Nothing && self.resetting.len() < MAX_RESETTING {
            self.resetting.push((portal.into(), what));
        }
    }

    /// Sets again what the client began with, as far as it is reset; whether there is anything.
    fn set_again(&mut self, what: &Restore, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> bool {
        let startup = sides.client.startup.iter();
        let settings: Vec<&Setting> = match what {
            Restore::Nothing => return false,
            Restore::One(reset) => startup.filter(|(name, _)| name == reset).collect(),
            Restore::All => startup.collect(),
        };
        if settings.is_empty() {
            return false;
        }
        sides.server.unnamed_of = None;
        request::set_config(
            settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
            out,
        );
        request::set_config_types(settings.len()).for_each(|tag| self.sent_own(tag));
        true
    }

    fn parse(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        let mut body = Body::new(frame.body);
        let name = body.cstring().map_err(|_| malformed(frame))?;
        let tail = body.rest();
        if name.is_empty() {
            self.parse_unnamed(frame, tail, sides, out);
            return Ok(());
        }
        if let Some(known) = sides.client.statements.get(name).cloned() {
            // The server refuses it, as it should: that name is taken.
            self.ensure(&known, sides, out);
            self.changes.push(Change::Nothing);
            self.rename(frame, name.len(), 0, &known.server_name, out);
            return Ok(());
        }
        let has_own = sides.client.pins.contains(Reason::Prepared);
        if has_own || sides.client.run.effects.intersects(Effects::PREPARED) {
            // It has prepared statements in SQL, which share their names with these. It keeps its connection, and so may they.
            self.changes.push(Change::Nothing);
            self.unknown(frame, name, 0, out);
            return Ok(());
        }
        if frame.is_cut() || sides.client.statements.bytes() + tail.len() > MAX_CLIENT_BYTES {
            sides.client.pin(Reason::Large);
            self.changes.push(Change::Nothing);
            self.unknown(frame, name, 0, out);
            return Ok(());
        }
        let mut statement = sides.texts.intern(tail, sides.server);
        let has_it = sides.client.statements.has(&statement);
        let is_outdated = sides
            .server
            .ran
            .since()
            .is_some_and(|epoch| epoch != sides.texts.epoch());
        if has_it || is_outdated || sides.client.run.may_set() {
            // A second name for the same text, and errors must tell the two apart; or it may be read under settings that aren't
            // known.
            statement = sides.texts.apart(&statement);
        }
        let is_there = sides.server.prepared.touch(&statement);
        sides.client.statements.insert(name.into(), statement.clone());
        if is_there && self.ledger.status != TransactionStatus::Failed {
            self.changes.push(Change::Defined(Some(name.into()), None));
            self.ledger.sent(b'P', Whose::Made);
            return Ok(());
        }
        let prepared = (!is_there).then(|| statement.clone());
        if !is_there {
            self.make_room(&statement, sides, out);
        }
        self.changes.push(Change::Defined(Some(name.into()), prepared));
        self.rename(frame, name.len(), 0, &statement.server_name, out);
        Ok(())
    }

    fn parse_unnamed(&mut self, frame: Frame<'_>, tail: &[u8], sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let misread = self.misread(sides);
        let before = std::mem::take(&mut sides.client.unnamed);
        if frame.is_cut() {
            // Wherever else it went, it would have none.
            sides.client.pin(Reason::Large);
            sides.client.unnamed_effects = (sides.texts.epoch(), UNREAD);
            self.pass(frame, out);
        } else {
            let text = Body::new(tail).cstring().unwrap_or_default();
            let analysis = sides.texts.analyse(text, sides.server);
            sides.client.unnamed_effects = (sides.texts.epoch(), analysis.effects | misread);
            match self.statement_of(text, &analysis.lone, sides) {
                Some((place, statement)) => {
                    self.ensure(&statement, sides, out);
                    let mut renamed = tail.to_vec();
                    renamed.splice(place, statement.server_name.bytes());
                    sides.client.unnamed = Unnamed {
                        tail: renamed,
                        names: Some(statement),
                    };
                    request::message(b'P', out, |body| {
                        body.push(0);
                        body.extend_from_slice(&sides.client.unnamed.tail);
                    });
                    self.ledger.sent(b'P', Whose::Client);
                }
                None => {
                    sides.client.unnamed.tail.extend_from_slice(tail);
                    self.pass(frame, out);
                }
            }
        }
        sides.server.unnamed_of = Some(sides.client.id);
        self.changes.push(Change::Unnamed(before));
    }

    fn bind(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        let mut body = Body::new(frame.body);
        let portal = body.cstring().map_err(|_| malformed(frame))?;
        let name = body.cstring().map_err(|_| malformed(frame))?;
        if name.is_empty() {
            if let Some(named) = sides.client.unnamed.names.clone() {
                self.ensure(&named, sides, out);
            }
            self.ensure_unnamed(sides, out);
            let (epoch, effects) = sides.client.unnamed_effects;
            let tail = std::mem::take(&mut sides.client.unnamed.tail);
            let text = Body::new(&tail).cstring().unwrap_or_default();
            if !effects.is_empty() || epoch != sides.texts.epoch() {
                self.runs_unnamed(portal, text, sides);
            } else {
                sides.server.ran.note(text, epoch);
            }
            sides.client.unnamed.tail = tail;
            self.pass(frame, out);
            return Ok(());
        }
        let Some(statement) = sides.client.statements.get(name).cloned() else {
            // One that was prepared in SQL, or too large, which ties the client as it is; or none.
            runs(sides, &[], Effects::UNKNOWN, Command::Other);
            self.unknown(frame, name, portal.len() + 1, out);
            return Ok(());
        };
        self.ensure(&statement, sides, out);
        let epoch = sides.texts.epoch();
        let effects = statement.effects(epoch).unwrap_or_else(|| {
            let analysis = sides.texts.analyse(statement.text(), sides.server);
            statement.set_effects(epoch, analysis.effects);
            analysis.effects
        }) | self.misread(sides);
        if effects.is_empty() {
            sides.server.ran.note(statement.text(), epoch);
        } else {
            runs(sides, statement.text(), effects, statement.command.clone());
            self.binds(portal, Restore::of(statement.text(), effects, &statement.command));
            self.forget(effects, &statement.command, false, sides);
        }
        self.rename(frame, name.len(), portal.len() + 1, &statement.server_name, out);
        Ok(())
    }

    /// A statement of the unnamed kind is run; what it is has to be looked at anew.
    fn runs_unnamed(&mut self, portal: &[u8], text: &[u8], sides: &mut Sides<'_>) {
        let Analysis {
            mut effects,
            lone: command,
            ..
        } = sides.texts.analyse(text, sides.server);
        // Of a text that was too long to be kept, nothing is known.
        let (_, before) = sides.client.unnamed_effects;
        effects |= before | self.misread(sides);
        self.binds(portal, Restore::of(text, effects, &command));
        self.forget(effects, &command, false, sides);
        runs(sides, text, effects, command);
    }

    fn describe(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadLength> {
        let Some(name) = statement_name(frame)? else {
            self.pass(frame, out);
            return Ok(());
        };
        if name.is_empty() {
            self.ensure_unnamed(sides, out);
            self.pass(frame, out);
            return Ok(());
        }
        match sides.client.statements.get(name).cloned() {
            Some(statement) => {
                self.ensure(&statement, sides, out);
                self.rename(frame, name.len(), 1, &statement.server_name, out);
            }
            None => self.unknown(frame, name, 1, out),
        }
        Ok(())
    }

    fn close(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        let name = statement_name(frame)?;
        let known = name.and_then(|name| sides.client.statements.remove_entry(name));
        match (name, known) {
            // Others may use it.
            (Some(_), Some(entry)) => {
                if self.former.len() < MAX_FORMER {
                    self.former.push(entry.clone());
                }
                let (name, statement) = entry;
                self.changes.push(Change::Closed(name, statement));
                self.ledger.sent(b'C', Whose::Made);
            }
            (Some(name), None) => {
                let change = if name.is_empty() {
                    Change::Unnamed(std::mem::take(&mut sides.client.unnamed))
                } else {
                    Change::Nothing
                };
                self.changes.push(change);
                self.unknown(frame, name, 1, out);
            }
            (None, _) => {
                self.changes.push(Change::Nothing);
                self.pass(frame, out);
            }
        }
        Ok(())
    }

    /// Sees to it that the server connection has `statement`.
    #[inline]
    fn ensure(&mut self, statement: &Rc<Statement>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        if sides.server.prepared.touch(statement) {
            return;
        }
        self.make_room(statement, sides, out);
        self.changes.push(Change::Defined(None, Some(statement.clone())));
        request::message(b'P', out, |body| {
            body.extend_from_slice(statement.server_name.as_bytes());
            body.push(0);
            body.extend_from_slice(&statement.tail);
        });
        self.ledger.sent(b'P', Whose::Own);
    }

    /// Notes that `statement` is about to be prepared.
    fn make_room(&mut self, statement: &Rc<Statement>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let evicted = sides.server.prepared.insert(statement);
        let doubtful = sides
            .server
            .prepared
            .is_doubtful()
            .then(|| statement.server_name.clone());
        for name in evicted.into_iter().chain(doubtful) {
            request::close_statement(&name, out);
            self.changes.push(Change::Own);
            self.ledger.sent(b'C', Whose::Own);
        }
    }

    /// Sees to it that the unnamed statement of the server connection is the client's, if the client has one.
    fn ensure_unnamed(&mut self, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        if sides.server.unnamed_of == Some(sides.client.id) {
            return;
        }
        sides.server.unnamed_of = Some(sides.client.id);
        self.changes.push(Change::Own);
        if sides.client.unnamed.tail.is_empty() {
            // Whose it is, it is nobody's any more: the server says that there is none.
            request::close_statement("", out);
            self.ledger.sent(b'C', Whose::Own);
            return;
        }
        request::message(b'P', out, |body| {
            body.push(0);
            body.extend_from_slice(&sides.client.unnamed.tail);
        });
        self.ledger.sent(b'P', Whose::Own);
    }

    /// Passes `frame` on with `new` in place of the name of `len` bytes that stands at `place` in its body.
    fn rename(&mut self, frame: Frame<'_>, len: usize, place: usize, new: &str, out: &mut Vec<u8>) {
        self.ledger.sent(frame.tag, Whose::Client);
        let length = (frame.length as usize + new.len()).saturating_sub(len);
        request::header(frame.tag, length as u32, out);
        out.extend_from_slice(frame.body.get(..place).unwrap_or_default());
        out.extend_from_slice(new.as_bytes());
        out.extend_from_slice(frame.body.get(place + len..).unwrap_or_default());
    }

    /// Passes on a frame that names a statement which Postern doesn't know: one that was prepared in SQL, or none. What looks
    /// like a name of Postern's own becomes one that nobody has.
    fn unknown(&mut self, frame: Frame<'_>, name: &[u8], place: usize, out: &mut Vec<u8>) {
        if name.starts_with(NAME_PREFIX.as_bytes()) {
            let nobodys = format!("{NAME_PREFIX}of_nobody");
            self.rename(frame, name.len(), place, &nobodys, out);
        } else {
            self.pass(frame, out);
        }
    }

    /// Appends the answers whose turn has come and that the server doesn't give.
    fn make_due(&mut self, to_client: &mut Vec<u8>) {
        while let Some(what) = self.ledger.take_made() {
            self.changes.pop();
            let tag = if what == Request::Parse { b'1' } else { b'3' };
            request::header(tag, 4, to_client);
        }
    }

    #[inline]
    fn answer(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>) -> Verdict {
        let renamed = if frame.tag == b'E' {
            self.undo(sides);
            let renamed = self.renamed(frame, sides);
            if renamed.is_some() {
                // The connection doesn't have what it was thought to have, or has it already.
                sides.server.prepared.doubt();
            }
            renamed
        } else {
            None
        };
        let front = self.ledger.front();
        let whose = self.ledger.received(frame.tag, frame.body);
        match frame.tag {
            b'1' | b'3' => self.changes.pop(),
            b'C' if whose == Whose::Client && frame.body == b"DISCARD ALL\0" => {
                sides.client.run.has_discarded();
                self.forgotten = None;
            }
            b'C' if whose == Whose::Client && frame.body.starts_with(b"DEALLOCATE") => self.forgotten = None,
            b'Z' => self.remember(self.ledger.answered, sides),
            b'S' => {
                Rc::make_mut(&mut sides.server.parameters).report(frame.body);
                if whose == Whose::Client && self.restores.is_empty() && !hides(sides, frame) {
                    if may_reset(sides) {
                        Rc::make_mut(&mut sides.client.told).report(frame.body);
                    } else {
                        sides.client.told = sides.server.parameters.clone();
                    }
                }
            }
            _ => {}
        }
        match (whose, frame.tag) {
            // In a failed transaction nothing was reset before, either.
            (Whose::Own, b'E')
                if !self.restores.is_empty() && self.ledger.status == TransactionStatus::Failed =>
            {
                Verdict::Withhold
            }
            (Whose::Own, b'E') if front == Some(Request::Parse) && self.restores.is_empty() => {
                renamed.map_or(Verdict::Pass, Verdict::Rename)
            }
            (Whose::Own, b'E') => {
                self.refusal = Some(state_and_message(frame.body));
                Verdict::Withhold
            }
            (Whose::Client, b'E') => renamed.map_or(Verdict::Pass, Verdict::Rename),
            (Whose::Client, b'S') if !self.restores.is_empty() || hides(sides, frame) => Verdict::Withhold,
            (Whose::Client, b'Z') if self.restores.front() == Some(&self.ledger.answered) => {
                self.owes_ready = true;
                Verdict::Withhold
            }
            (_, b'A') | (Whose::Client | Whose::Made, _) => Verdict::Pass,
            (Whose::Own, b'Z') => {
                let last = self.ledger.answered.saturating_sub(1);
                while self.restores.front().is_some_and(|before| *before <= last) {
                    self.restores.pop_front();
                }
                Verdict::Correct
            }
            (Whose::Own, _) => Verdict::Withhold,
        }
    }

    /// Takes back what requests would have changed that the server will skip, the last one first.
    fn undo(&mut self, sides: &mut Sides<'_>) {
        let void = self.changes.take(self.ledger.void());
        if self.ledger.front() != Some(Request::Query) {
            // What was to end everything is skipped as well, if it stands before the next Sync.
            self.remember(self.ledger.answered + 1, sides);
        }
        let fails = self.ledger.front() == Some(Request::Parse);
        let mut unnamed = None;
        for (place, change) in void.into_iter().enumerate().rev() {
            match change {
                Change::Nothing => {}
                Change::Own => {
                    sides.server.prepared.doubt();
                    sides.server.unnamed_of = None;
                }
                Change::Defined(name, statement) => {
                    let name = name.and_then(|name| sides.client.statements.remove_entry(&name));
                    self.former.extend(name);
                    if let Some(statement) = statement {
                        sides.server.prepared.remove(&statement);
                    }
                }
                Change::Closed(name, statement) => sides.client.statements.insert(name, statement),
                // A Parse that fails ends the one before, and one that is skipped doesn't.
                Change::Unnamed(_) if place == 0 && fails => unnamed = Some(Unnamed::default()),
                Change::Unnamed(before) => unnamed = Some(before),
            }
        }
        let Some(before) = unnamed else { return };
        sides.server.unnamed_of = None;
        let later = self.changes.queue.iter_mut().find_map(|later| match later {
            Change::Unnamed(later) => Some(later),
            _ => None,
        });
        match later {
            // There is another since.
            Some(later) => *later = before,
            None => {
                sides.client.unnamed = before;
                sides.client.unnamed_effects = (u64::MAX, Effects::NONE);
            }
        }
    }

    /// DEALLOCATE ALL and DISCARD ALL end the statements of everybody who has used this connection; the client's come back
    /// should they fail. `is_query`: it comes in a Query, and not before a Sync.
    fn forget(&mut self, effects: Effects, command: &Command, is_query: bool, sides: &mut Sides<'_>) {
        if effects.intersects(Effects::PREPARED | Effects::DEALLOCATE) {
            // It may have named one of Postern's, or be refused.
            sides.server.prepared.doubt();
        }
        let is_all = matches!(command, Command::DeallocateAll | Command::Discard(Discarded::All));
        let named = match command {
            Command::Deallocate { .. } if !is_query => sides.client.unnamed.names.take(),
            _ => None,
        };
        if !is_all && named.is_none() || self.ledger.status == TransactionStatus::Failed {
            return;
        }
        // A Query is in the ledger already, and the Sync isn't.
        let known_at = self.ledger.answered + self.ledger.readies() + u64::from(!is_query);
        let (mut statements, mut unnamed) = (ClientStatements::default(), Unnamed::default());
        match named {
            Some(named) => {
                let entry = sides.client.statements.remove(&named);
                entry
                    .into_iter()
                    .for_each(|(name, statement)| statements.insert(name, statement));
            }
            None => {
                std::mem::swap(&mut statements, &mut sides.client.statements);
                std::mem::swap(&mut unnamed, &mut sides.client.unnamed);
            }
        }
        if let Some(before) = self.forgotten.take() {
            statements.restore(before.statements);
            unnamed = before.unnamed;
        }
        self.forgotten = Some(Box::new(Forgotten {
            statements,
            unnamed,
            known_at,
        }));
    }

    /// The statements that were to end are the client's still, if what was to end them was in vain by the ReadyForQuery `by`.
    fn remember(&mut self, by: u64, sides: &mut Sides<'_>) {
        if let Some(forgotten) = self.forgotten.take_if(|forgotten| forgotten.known_at <= by) {
            sides.client.statements.restore(forgotten.statements);
            if sides.client.unnamed.tail.is_empty() {
                sides.client.unnamed = forgotten.unnamed;
                sides.client.unnamed_effects = (u64::MAX, Effects::NONE);
            }
            sides.server.prepared.doubt();
        }
    }

    /// An error's text with the client's own name of a statement in place of Postern's.
    fn renamed(&self, frame: Frame<'_>, sides: &Sides<'_>) -> Option<Vec<u8>> {
        let quoted = format!("\"{NAME_PREFIX}");
        let begin = frame
            .body
            .windows(quoted.len())
            .position(|window| window == quoted.as_bytes())?;
        let begin = begin + 1;
        let (before, rest) = frame.body.split_at_checked(begin)?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let (written, after) = rest.split_at_checked(end)?;
        let former = self.former.iter().map(|(name, statement)| (name, statement));
        let mut known = sides.client.statements.iter().chain(former);
        let (name, _) = known.find(|(_, statement)| statement.server_name.as_bytes() == written)?;
        (!frame.is_cut()).then(|| [before, name, after].concat())
    }
}

/// The setting that a statement resets in other words than RESET name or SET name TO DEFAULT.
fn reset_in_other_words(text: &[u8]) -> Option<&'static str> {
    let lexer = Lexer::new(text, true);
    let mut words = lexer
        .map_while(|token| Identifier::of(text, &token))
        .filter(|word| !word.eq_folded("session"));
    let resets = words.next().is_some_and(|word| word.eq_folded("reset"));
    let what = words.next()?;
    let mut next_is = |names: &[&str]| {
        let word = words.next();
        word.is_some_and(|word| names.iter().any(|name| word.eq_folded(name)))
    };
    if what.eq_folded("names") {
        return (!resets && next_is(&["default"])).then_some("client_encoding");
    }
    let is_time_zone = what.eq_folded("time") && next_is(&["zone"]);
    (is_time_zone && (resets || next_is(&["local", "default"]))).then_some("timezone")
}

/// Whether what the client began with may have been reset, and isn't set again before it is settled what the client has.
fn may_reset(sides: &Sides<'_>) -> bool {
    sides.client.run.effects.intersects(Effects::RESET)
}

/// Whether a ParameterStatus says that such a setting is as the server has it: then the client is told of it when it is
/// settled what it has, if it is so then.
fn hides(sides: &Sides<'_>, frame: Frame<'_>) -> bool {
    if !may_reset(sides) {
        return false;
    }
    let mut body = Body::new(frame.body);
    let (Ok(name), Ok(value)) = (body.cstring(), body.cstring()) else {
        return false;
    };
    let mut startup = sides.client.startup.iter();
    let begins_otherwise = startup
        .any(|(known, wanted)| known.as_bytes().eq_ignore_ascii_case(name) && wanted.as_bytes() != value);
    let name = str::from_utf8(name).unwrap_or_default();
    begins_otherwise && sides.server.defaults.get(name).map(str::as_bytes) == Some(value)
}

/// Notes that `text`, which is `command`, is about to be run.
#[inline]
fn runs(sides: &mut Sides<'_>, text: &[u8], effects: Effects, command: Command) {
    sides.server.ran.note(text, sides.texts.epoch());
    sides.client.runs(text, effects, command);
    if sides.client.run.effects.intersects(Effects::ADVANCES) {
        sides.server.advanced(sides.client.id);
    }
}

/// The name of the statement that a Describe or Close is about; `None` if it is about a portal.
fn statement_name(frame: Frame<'_>) -> Result<Option<&[u8]>, BadLength> {
    let mut body = Body::new(frame.body);
    let kind = body.u8().map_err(|_| malformed(frame))?;
    let name = body.cstring().map_err(|_| malformed(frame))?;
    Ok((kind == b'S').then_some(name))
}

/// Names that don't end where the message does, or that are far longer than PostgreSQL's.
fn malformed(frame: Frame<'_>) -> BadLength {
    BadLength {
        tag: frame.tag,
        length: frame.length,
    }
}
