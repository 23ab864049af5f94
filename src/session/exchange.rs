//! One lease of a client that shares server connections with others: what is passed on, renamed, put in and left out.
//!
//! Pure, and streaming: whole frames are looked at where names or texts count, and passed through where they don't. Both
//! directions are accounted for in one ledger; an answer that isn't the client's never reaches it, and one that Postern
//! owes it (of a Parse that the server was never sent) comes in its place.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use super::client::ClientSession;
use super::ledger::{Ledger, Request, TransactionStatus, Whose};
use super::server::ServerSession;
use super::settings::Setting;
use super::statements::{MAX_CLIENT_BYTES, MAX_STATEMENT_BYTES, NAME_PREFIX, Statement};
use super::tracker::{Ended, Tracker, is_frontend};
use crate::pin::Reason;
use crate::sql::{Analysis, Command, Discarded, Effects, Identifier, Lexer, MAX_NAME_BYTES, setting_name};
use crate::wire::body::Body;
use crate::wire::frame::{BadLength, Frame, Frames, MAX_GATHERED_BYTES};
use crate::wire::reply::{self, state_and_message};
use crate::wire::request;

/// As much of a Bind, Describe or Close as is gathered: the names stand at its beginning.
const MAX_NAMES_BYTES: u32 = 1_024;

/// What a text may leave behind that isn't read.
const UNREAD: Effects = Effects::UNKNOWN.union(Effects::DYNAMIC_SETTING);

/// As much of a CommandComplete as is gathered.
const MAX_TAG_BYTES: u32 = 16;

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
    changes: VecDeque<Change>,
    /// Names that requests which aren't answered may still have used: closed since, or never defined.
    former: Vec<(Box<[u8]>, Rc<Statement>)>,
    /// A statement that resets settings was bound: what the client began with is set again after the next Sync.
    must_restore: Restore,
    /// For each restoring of settings that isn't answered, which ReadyForQuery of this lease comes right before its answer: it
    /// waits for that, so that the client never hears of values that it won't see.
    restores: VecDeque<u64>,
    /// One waits.
    owes_ready: bool,
    /// Something that Postern asked for itself has failed: what the session is like isn't known.
    refusal: Option<(String, String)>,
}

/// Settings to go back to.
#[derive(Debug, Default, PartialEq, Eq)]
enum Restore {
    #[default]
    Nothing,
    One(String),
    All,
}

impl Restore {
    /// What a statement resets, as far as its text alone shows it.
    fn of(text: &[u8], effects: Effects, command: &Command) -> Self {
        match command {
            Command::Other if effects.intersects(Effects::SETTING) && resets_time_zone(text) => {
                Self::One("timezone".to_owned())
            }
            _ if !effects.intersects(Effects::RESET) => Self::Nothing,
            Command::Set { local: false, name } | Command::Reset { name } => {
                setting_name(text.get(name.clone()).unwrap_or_default()).map_or(Self::Nothing, Self::One)
            }
            Command::ResetAll | Command::Discard(Discarded::All) => Self::All,
            _ => Self::Nothing,
        }
    }

    fn add(&mut self, more: Self) {
        match (&*self, &more) {
            (_, Self::Nothing) => {}
            (Self::Nothing, _) => *self = more,
            // One after another in one pipeline: the settling after it finds out what is missing.
            _ => *self = Self::All,
        }
    }
}

/// What a Parse or a Close changes if it isn't skipped.
#[derive(Debug)]
enum Change {
    Nothing,
    /// A named statement is defined: the client's name, if it was the client who asked, and the statement, if the server
    /// connection gets it by this.
    Defined(Option<Box<[u8]>>, Option<Rc<Statement>>),
    /// A named statement of the client's has ended.
    Closed(Box<[u8]>, Rc<Statement>),
    /// The unnamed statement is another one, or none; what it was before.
    Unnamed(Vec<u8>),
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
                changes: VecDeque::new(),
                former: Vec::new(),
                must_restore: Restore::Nothing,
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
                b'P' | b'B' | b'D' | b'C' | b'Q' if self.desk.is_undecided() => {
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
        b'B' | b'D' | b'C' => MAX_NAMES_BYTES,
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
                if tag == b'S' {
                    let what = std::mem::take(&mut self.must_restore);
                    self.restore(what, sides, out);
                }
                Ok(())
            }
        }
    }

    /// Whether names may stand for something else once what was asked before the last Sync is answered: if it fails, what it
    /// would have defined isn't, and what it would have closed still is.
    #[inline]
    fn is_undecided(&self) -> bool {
        let is_named = |change: &Change| matches!(change, Change::Defined(Some(_), _) | Change::Closed(..));
        !self.changes.is_empty() && self.ledger.owes_ready() && self.changes.iter().any(is_named)
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
            self.changes.push_back(Change::Nothing);
        }
        self.ledger.sent(tag, Whose::Own);
    }

    fn pass(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        self.ledger.sent(frame.tag, Whose::Client);
        request::header(frame.tag, frame.length, out);
        out.extend_from_slice(frame.body);
    }

    fn query(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        sides.client.unnamed.clear();
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
                    sides
                        .client
                        .statements
                        .retain(|_, known| !Rc::ptr_eq(known, &statement));
                }
            }
            None => self.pass(frame, out),
        }
        forget(self.ledger.status, effects, &first, sides);
        self.restore(Restore::of(text, effects, &first), sides, out);
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
    /// are set again right behind it.
    fn restore(&mut self, what: Restore, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let settings: Vec<&Setting> = match what {
            Restore::Nothing => return,
            Restore::One(name) => sides
                .client
                .startup
                .iter()
                .filter(|(known, _)| *known == name)
                .collect(),
            Restore::All => sides.client.startup.iter().collect(),
        };
        if settings.is_empty() {
            return;
        }
        sides.server.unnamed_of = None;
        self.restores
            .push_back(self.ledger.answered + self.ledger.readies());
        request::set_config(
            settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
            out,
        );
        request::set_config_types(settings.len()).for_each(|tag| self.sent_own(tag));
    }

    fn parse(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        let mut body = Body::new(frame.body);
        let name = body.cstring().map_err(|_| malformed(frame))?;
        let tail = body.rest();
        if name.is_empty() {
            self.parse_unnamed(frame, tail, sides);
            self.pass(frame, out);
            return Ok(());
        }
        if let Some(known) = sides.client.statements.get(name).cloned() {
            // The server refuses it, as it should: that name is taken.
            self.ensure(&known, sides, out);
            self.changes.push_back(Change::Nothing);
            self.rename(frame, name.len(), 0, &known.server_name, out);
            return Ok(());
        }
        let has_own = sides.client.pins.contains(Reason::Prepared);
        if has_own || sides.client.run.effects.intersects(Effects::PREPARED) {
            // It has prepared statements in SQL, which share their names with these. It keeps its connection, and so may they.
            self.changes.push_back(Change::Nothing);
            self.unknown(frame, name, 0, out);
            return Ok(());
        }
        if frame.is_cut() || sides.client.statement_bytes() + tail.len() > MAX_CLIENT_BYTES {
            sides.client.pin(Reason::Large);
            self.changes.push_back(Change::Nothing);
            self.unknown(frame, name, 0, out);
            return Ok(());
        }
        let mut statement = sides.texts.intern(tail, sides.server);
        let has_it = sides
            .client
            .statements
            .values()
            .any(|known| Rc::ptr_eq(known, &statement));
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
            self.changes.push_back(Change::Defined(Some(name.into()), None));
            self.ledger.sent(b'P', Whose::Made);
            return Ok(());
        }
        let prepared = (!is_there).then(|| statement.clone());
        if !is_there {
            self.make_room(&statement, sides, out);
        }
        self.changes
            .push_back(Change::Defined(Some(name.into()), prepared));
        self.rename(frame, name.len(), 0, &statement.server_name, out);
        Ok(())
    }

    fn parse_unnamed(&mut self, frame: Frame<'_>, tail: &[u8], sides: &mut Sides<'_>) {
        let misread = self.misread(sides);
        let client = &mut *sides.client;
        let before = std::mem::take(&mut client.unnamed);
        if frame.is_cut() {
            client.unnamed_effects = (sides.texts.epoch(), UNREAD);
        } else {
            let text = Body::new(tail).cstring().unwrap_or_default();
            let analysis = sides.texts.analyse(text, sides.server);
            client.unnamed_effects = (sides.texts.epoch(), analysis.effects | misread);
            client.unnamed.extend_from_slice(tail);
        }
        sides.server.unnamed_of = Some(client.id);
        self.changes.push_back(Change::Unnamed(before));
    }

    fn bind(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> Result<(), BadLength> {
        let mut body = Body::new(frame.body);
        let portal = body.cstring().map_err(|_| malformed(frame))?;
        let name = body.cstring().map_err(|_| malformed(frame))?;
        if name.is_empty() {
            self.ensure_unnamed(sides, out);
            let (epoch, effects) = sides.client.unnamed_effects;
            let tail = std::mem::take(&mut sides.client.unnamed);
            let text = Body::new(&tail).cstring().unwrap_or_default();
            if !effects.is_empty() || epoch != sides.texts.epoch() {
                self.runs_unnamed(text, sides);
            } else {
                sides.server.ran.note(text, epoch);
            }
            sides.client.unnamed = tail;
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
            self.must_restore
                .add(Restore::of(statement.text(), effects, &statement.command));
            forget(self.ledger.status, effects, &statement.command, sides);
        }
        self.rename(frame, name.len(), portal.len() + 1, &statement.server_name, out);
        Ok(())
    }

    /// A statement of the unnamed kind is run; what it is has to be looked at anew.
    fn runs_unnamed(&mut self, text: &[u8], sides: &mut Sides<'_>) {
        let Analysis {
            mut effects,
            lone: command,
            ..
        } = sides.texts.analyse(text, sides.server);
        // Of a text that was too long to be kept, nothing is known.
        let (_, before) = sides.client.unnamed_effects;
        effects |= before | self.misread(sides);
        self.must_restore.add(Restore::of(text, effects, &command));
        forget(self.ledger.status, effects, &command, sides);
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
                self.changes.push_back(Change::Closed(name, statement));
                self.ledger.sent(b'C', Whose::Made);
            }
            (Some(name), None) => {
                let change = if name.is_empty() {
                    Change::Unnamed(std::mem::take(&mut sides.client.unnamed))
                } else {
                    Change::Nothing
                };
                self.changes.push_back(change);
                self.unknown(frame, name, 1, out);
            }
            (None, _) => {
                self.changes.push_back(Change::Nothing);
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
        self.changes
            .push_back(Change::Defined(None, Some(statement.clone())));
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
            self.sent_own(b'C');
        }
    }

    /// Sees to it that the unnamed statement of the server connection is the client's, if the client has one.
    fn ensure_unnamed(&mut self, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        if sides.server.unnamed_of == Some(sides.client.id) {
            return;
        }
        sides.server.unnamed_of = Some(sides.client.id);
        if sides.client.unnamed.is_empty() {
            // Whose it is, it is nobody's any more: the server says that there is none.
            request::close_statement("", out);
            self.sent_own(b'C');
            return;
        }
        request::message(b'P', out, |body| {
            body.push(0);
            body.extend_from_slice(&sides.client.unnamed);
        });
        self.sent_own(b'P');
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
            self.changes.pop_front();
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
            b'1' | b'3' => drop(self.changes.pop_front()),
            b'C' if whose == Whose::Client && frame.body == b"DISCARD ALL\0" => {
                sides.client.run.has_discarded();
            }
            b'S' => {
                Rc::make_mut(&mut sides.server.parameters).report(frame.body);
                if whose == Whose::Client && self.restores.is_empty() {
                    sides.client.told = sides.server.parameters.clone();
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
            (Whose::Client, b'S') if !self.restores.is_empty() => Verdict::Withhold,
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
        let void = self.ledger.void().min(self.changes.len());
        let fails = self.ledger.front() == Some(Request::Parse);
        let mut unnamed = None;
        for (place, change) in self.changes.drain(..void).enumerate().rev() {
            match change {
                // One of Postern's own may be among them, such as the Close of what had to make room.
                Change::Nothing => sides.server.prepared.doubt(),
                Change::Defined(name, statement) => {
                    let name = name.and_then(|name| sides.client.statements.remove_entry(&name));
                    self.former.extend(name);
                    if let Some(statement) = statement {
                        sides.server.prepared.remove(&statement);
                    }
                }
                Change::Closed(name, statement) => drop(sides.client.statements.insert(name, statement)),
                // A Parse that fails ends the one before, and one that is skipped doesn't.
                Change::Unnamed(_) if place == 0 && fails => unnamed = Some(Vec::new()),
                Change::Unnamed(before) => unnamed = Some(before),
            }
        }
        let Some(before) = unnamed else { return };
        sides.server.unnamed_of = None;
        let later = self.changes.iter_mut().find_map(|later| match later {
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

/// Whether the text begins with SET TIME ZONE LOCAL or DEFAULT, which is RESET in other words.
fn resets_time_zone(text: &[u8]) -> bool {
    let lexer = Lexer::new(text, true);
    let mut words = lexer
        .map_while(|token| Identifier::of(text, &token))
        .filter(|word| !word.eq_folded("session"));
    let mut next_is = |names: &[&str]| {
        let word = words.next();
        word.is_some_and(|word| names.iter().any(|name| word.eq_folded(name)))
    };
    next_is(&["set"]) && next_is(&["time"]) && next_is(&["zone"]) && next_is(&["local", "default"])
}

/// DEALLOCATE ALL and DISCARD ALL end the statements of everybody who has used this connection.
fn forget(status: TransactionStatus, effects: Effects, command: &Command, sides: &mut Sides<'_>) {
    if effects.intersects(Effects::PREPARED | Effects::DEALLOCATE) {
        // It may have named one of Postern's, or be refused.
        sides.server.prepared.doubt();
    }
    let is_one = matches!(command, Command::Deallocate { .. });
    if !effects.intersects(Effects::DEALLOCATE) || is_one || status == TransactionStatus::Failed {
        return;
    }
    sides.server.prepared.doubt();
    if matches!(command, Command::DeallocateAll | Command::Discard(Discarded::All)) {
        sides.client.statements.clear();
        sides.client.unnamed.clear();
    }
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
