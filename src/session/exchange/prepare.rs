//! Prepared statements: which of a client's stands for which on the server connection, and what makes it have that.

use std::ops::Range;
use std::rc::Rc;

use super::Sides;
use super::changes::Change;
use super::desk::{Desk, UNREAD, leaves, malformed, runs};
use crate::pin::Reason;
use crate::session::client::{Knowledge, Unnamed};
use crate::session::ledger::{TransactionStatus, Whose};
use crate::session::statements::{MAX_CLIENT_BYTES, NAME_PREFIX, Statement, has_own_types};
use crate::sql::{self, Command, Effects, Identifier, MAX_NAME_BYTES};
use crate::wire::body::Body;
use crate::wire::frame::{BadLength, Frame};
use crate::wire::request;

/// What follows the name in the Parse of an empty statement: no text, no types.
const EMPTY: &[u8] = b"\0\0\0";

/// What follows the text in a Parse that names no types.
const NO_PARAMETERS: &[u8] = b"\0\0";

impl Desk {
    /// The prepared statement of the protocol that the SQL names, and where.
    pub(super) fn statement_of(
        &self,
        text: &[u8],
        command: &Command,
        sides: &Sides<'_>,
    ) -> Option<(Range<usize>, Rc<Statement>)> {
        let (Command::Deallocate { name: place }
        | Command::Execute { name: place }
        | Command::Prepare { name: place }) = command
        else {
            return None;
        };
        if self.is_in_failed() {
            return None;
        }
        let mut buffer = [0; MAX_NAME_BYTES];
        let name = Identifier::parse(text.get(place.clone())?)?;
        let statement = sides.client.statements.get(name.fold(&mut buffer)?)?;
        Some((place.clone(), statement.clone()))
    }

    pub(super) fn parse(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadLength> {
        let mut body = Body::new(frame.body);
        let name = body.cstring().map_err(|_| malformed(frame))?;
        let tail = body.rest();
        if name.is_empty() {
            self.parse_unnamed(frame, tail, sides, out);
            return Ok(());
        }
        if sides.client.statements.get(name).is_some() {
            self.parse_taken(frame, name, sides, out);
            return Ok(());
        }
        let has_own = sides.client.pins.contains(Reason::Prepared);
        if has_own || sides.client.run.effects.intersects(Effects::PREPARED) {
            // It has prepared statements in SQL, which share their names with these. It keeps its connection, and so may they.
            runs(sides, &[], UNREAD, Command::Other);
            self.changes.push(Change::Nothing);
            self.unknown(frame, name, 0, out);
            return Ok(());
        }
        if frame.is_cut() || sides.client.statements.bytes() + tail.len() > MAX_CLIENT_BYTES {
            sides.client.pin(Reason::Large);
            runs(sides, &[], UNREAD, Command::Other);
            self.changes.push(Change::Nothing);
            self.unknown(frame, name, 0, out);
            return Ok(());
        }
        // What may be read under settings that aren't the session's is nobody else's.
        let is_shared = !sides.client.run.may_set();
        let mut statement = sides.texts.intern(tail, is_shared, sides.server);
        let has_it = sides.client.statements.has(&statement);
        let is_outdated = sides
            .server
            .ran
            .since()
            .is_some_and(|epoch| epoch != sides.texts.epoch());
        if has_it || is_outdated || sides.client.pins.contains(Reason::Temporary) {
            // A second name for the same text, and errors must tell the two apart.
            statement = sides.texts.apart(&statement, None, None);
        }
        if let Some(named) = self.statement_of(statement.text(), &statement.command, sides) {
            statement = sides.texts.apart(&statement, None, Some(named));
        }
        if let Some(own) = Rc::get_mut(&mut statement) {
            let (reported, unreported) = self.knows_constants(sides);
            let knows = reported != Knowledge::Changed && unreported != Knowledge::Changed;
            own.is_read_now(sides.server, knows);
        }
        let is_there = sides.server.prepared.touch(&statement, None);
        sides.client.statements.insert(name.into(), statement.clone());
        self.used.found += u32::from(is_there);
        if is_there && !self.is_in_failed() {
            self.changes.push(Change::Defined(Some(name.into()), None));
            self.ledger.sent(b'P', Whose::Made);
            sides.client.adopts(&statement);
            return Ok(());
        }
        let prepared = (!is_there).then(|| statement.clone());
        self.reads(&statement, sides);
        if !is_there {
            self.make_room(&statement, sides, out);
        }
        self.changes.push(Change::Defined(Some(name.into()), prepared));
        self.prepare(&statement, &statement.tail, Whose::Client, out);
        if !is_there {
            self.ask_shape(&statement, Some(name), sides, out);
        }
        Ok(())
    }

    /// The client has a statement of that name, and if nothing else is wrong with the new one, the server must say so. Whether
    /// it could prepare the old one here doesn't matter; one without a text it always can.
    fn parse_taken(&mut self, frame: Frame<'_>, name: &[u8], sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let taken = sides.texts.intern(EMPTY, false, sides.server);
        self.ensure(&taken, sides, out);
        self.was(name, &taken);
        self.changes.push(Change::Nothing);
        self.rename(frame, name.len(), 0, &taken.server_name, out);
    }

    pub(super) fn parse_unnamed(
        &mut self,
        frame: Frame<'_>,
        tail: &[u8],
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) {
        let text = Body::new(tail).cstring().unwrap_or_default();
        let misread = self.misread(text, sides);
        let before = Self::take_unnamed(sides);
        if frame.is_cut() {
            // Wherever else it went, it would have none.
            sides.client.pin(Reason::Large);
            sides.client.unnamed_effects = (sides.texts.epoch(), UNREAD);
            runs(sides, &[], UNREAD, Command::Other);
            self.pass(frame, out);
        } else {
            let analysis = sides.texts.analyse(text, sides.server);
            let mut effects = analysis.effects | misread;
            if has_own_types(tail) {
                sides.client.unnamed.has_own_types = true;
                effects |= sides.texts.own_types();
            }
            sides.client.unnamed_effects = (sides.texts.epoch(), effects);
            sides.client.unnamed.copies = analysis.lone == Command::CopyFrom;
            match self.statement_of(text, &analysis.lone, sides) {
                Some((place, statement)) => {
                    let executes = matches!(analysis.lone, Command::Execute { .. });
                    self.ensure_named(executes, &statement, sides, out);
                    sides.client.unnamed = Unnamed {
                        tail: statement.named_in(tail, place),
                        names: Some(statement),
                        executes,
                        has_own_types: has_own_types(tail),
                        ..Unnamed::default()
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
        self.reads_unnamed(sides);
        sides.server.unnamed_of = Some(sides.client.id);
        self.has_new_unnamed = true;
        self.changes.push(Change::Unnamed(before));
    }

    /// The server reads the constants of `statement`, and what checks their types runs: that of an array or composite of domains.
    pub(super) fn reads(&self, statement: &Statement, sides: &mut Sides<'_>) {
        if statement.has_constants {
            let effects = self.effects_of(statement, sides);
            checks(statement.text(), effects, sides);
        }
    }

    /// The same of the unnamed one.
    pub(super) fn reads_unnamed(&self, sides: &mut Sides<'_>) {
        let (epoch, mut effects) = sides.client.unnamed_effects;
        let tail = std::mem::take(&mut sides.client.unnamed.tail);
        let text = Body::new(&tail).cstring().unwrap_or_default();
        if epoch != sides.texts.epoch() {
            effects |= sides.texts.analyse(text, sides.server).effects;
        }
        if sql::is_analysed(text) && sql::has_constants(text) {
            checks(text, effects, sides);
        }
        sides.client.unnamed.tail = tail;
    }

    /// Sees to it that the server connection has `statement`; whether it must be told to.
    #[inline]
    pub(super) fn ensure(
        &mut self,
        statement: &Rc<Statement>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let spoils = self.spoils(statement, sides);
        if sides.server.prepared.touch(statement, Some(sides.client.id)) {
            self.used.found += 1;
            if spoils {
                sides.server.prepared.spoil(statement, Some(sides.client.id));
            }
            return false;
        }
        let mut knows = Knowledge::Sure;
        if statement.has_constants {
            let (reported, unreported) = self.knows_constants(sides);
            knows = reported.max(unreported);
        }
        let can_nest = self.ledger.status == TransactionStatus::InTransaction && sides.client.run.goes_on();
        self.make_room(statement, sides, out);
        let nests = knows != Knowledge::Sure && can_nest && statement.knows_constants();
        if nests {
            self.prepare_nested(statement, sides, out);
        } else if knows == Knowledge::Changed {
            self.prepare_own(statement, sides, out);
        } else {
            let others = statement.read_otherwise(sides.server);
            let then = others.iter().map(|(name, then, _)| (*name, then.as_deref()));
            self.set_locally(then, sides, out);
            self.prepare_own(statement, sides, out);
            let now = others.iter().map(|(name, _, now)| (*name, now.as_deref()));
            self.set_locally(now, sides, out);
        }
        let is_read_as_first = nests || knows == Knowledge::Sure;
        if !is_read_as_first {
            // Nobody knows how it was read just now.
            sides.server.prepared.spoil(statement, None);
            if sides.client.run.changes_reading() && !sql::reads_alike(statement.text()) {
                runs(sides, &[], UNREAD, Command::Other);
            }
        } else if spoils {
            sides.server.prepared.spoil(statement, Some(sides.client.id));
        }
        true
    }

    /// Sees to it that SQL finds `statement` by its name; whether the server must be told to. Where it isn't executed, one of that name
    /// is enough, and that can always be made.
    pub(super) fn ensure_named(
        &mut self,
        executes: bool,
        statement: &Rc<Statement>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        if executes {
            return self.ensure(statement, sides, out);
        }
        if sides.server.prepared.touch(statement, Some(sides.client.id)) {
            return false;
        }
        self.prepare_empty(statement, NO_PARAMETERS, sides, out);
        true
    }

    /// Prepares an empty statement with such parameters in place of `statement`, where nobody can tell the two apart.
    pub(super) fn prepare_empty(
        &mut self,
        statement: &Rc<Statement>,
        parameters: &[u8],
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) {
        self.make_room(statement, sides, out);
        self.changes.push(Change::Defined(None, Some(statement.clone())));
        self.prepare(statement, &[b"\0", parameters].concat(), Whose::Own, out);
        sides.server.prepared.is_other(statement);
    }

    /// In a transaction, prepares `statement` as it was read first, whatever is set now, and leaves that as it is: what is prepared
    /// within a savepoint stays so, and what is set doesn't.
    fn prepare_nested(&mut self, statement: &Rc<Statement>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        self.run_own(r#"SAVEPOINT "postern: prepares""#, out);
        let then: Vec<_> = statement.first_read_under().collect();
        let then = then.iter().map(|(name, value)| (*name, value.as_deref()));
        self.set_locally(then, sides, out);
        self.prepare_own(statement, sides, out);
        self.run_own(r#"ROLLBACK TO "postern: prepares""#, out);
        self.run_own(r#"RELEASE "postern: prepares""#, out);
        sides.server.unnamed_of = None;
    }

    fn prepare_own(&mut self, statement: &Rc<Statement>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        self.reads(statement, sides);
        self.changes.push(Change::Defined(None, Some(statement.clone())));
        match statement.shape() {
            // The server keeps the types of parameters, whatever they would be by now.
            Some(shape) => {
                let tail = [statement.text(), b"\0", &shape.parameters].concat();
                self.prepare(statement, &tail, Whose::Own, out);
            }
            None => self.prepare(statement, &statement.tail, Whose::Own, out),
        }
        self.ask_shape(statement, None, sides, out);
    }

    fn run_own(&mut self, text: &str, out: &mut Vec<u8>) {
        request::run(text, out);
        request::RUN_TYPES.iter().for_each(|tag| self.sent_own(*tag));
    }

    /// Whether nobody else must have `statement` once it was used: the server may read its text anew, and that under settings that
    /// aren't those of all who share it, or that nobody knows.
    #[inline]
    fn spoils(&self, statement: &Statement, sides: &Sides<'_>) -> bool {
        statement.has_constants
            && statement.is_shared()
            && (!self.is_sure(sides) || !statement.is_used_under(sides.server))
    }

    /// The client's statement of this `name`, or the one in its place of all whose settings are the client's: where they are others
    /// than when it was prepared, the server may read its text anew, and it would be another one for those who have these.
    #[inline]
    pub(super) fn own(
        &mut self,
        name: &[u8],
        statement: Rc<Statement>,
        sides: &mut Sides<'_>,
    ) -> Rc<Statement> {
        if !statement.has_constants
            || !statement.is_shared()
            || statement.is_used_under(sides.server)
            || !self.is_sure(sides)
        {
            return statement;
        }
        let mut own = sides.texts.under(&statement, sides.server);
        if sides.client.statements.has(&own) {
            // It has another name for that one.
            own = sides.texts.apart(&statement, None, None);
        }
        self.was(name, &statement);
        sides.client.statements.insert(name.into(), own.clone());
        own
    }

    /// What is known of what the server takes constants for, by settings that it reports, and by others.
    #[inline]
    fn knows_constants(&self, sides: &Sides<'_>) -> (Knowledge, Knowledge) {
        let run = &sides.client.run;
        if self.is_in_failed() {
            return (Knowledge::Changed, Knowledge::Changed);
        }
        (run.reported(), run.unreported())
    }

    #[inline]
    pub(super) fn is_sure(&self, sides: &Sides<'_>) -> bool {
        self.knows_constants(sides) == (Knowledge::Sure, Knowledge::Sure)
    }

    /// Sets these until the transaction ends.
    fn set_locally<'a>(
        &mut self,
        settings: impl ExactSizeIterator<Item = (&'a str, Option<&'a str>)>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) {
        let count = settings.len();
        if count > 0 {
            sides.server.unnamed_of = None;
            request::set_config(settings, true, out);
            request::set_config_types(count).for_each(|tag| self.sent_own(tag));
        }
    }

    fn prepare(&mut self, statement: &Statement, tail: &[u8], whose: Whose, out: &mut Vec<u8>) {
        request::message(b'P', out, |body| {
            body.extend_from_slice(statement.server_name.as_bytes());
            body.push(0);
            body.extend_from_slice(tail);
        });
        self.ledger.sent(b'P', whose);
    }

    /// Notes that `statement` is about to be prepared.
    pub(super) fn make_room(&mut self, statement: &Rc<Statement>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let may_have = sides.server.prepared.may_have(statement);
        let evicted = sides.server.prepared.insert(statement);
        self.used.prepared += 1;
        self.used.evicted += u32::from(evicted.is_some());
        let doubtful = may_have.then(|| statement.server_name.clone());
        for name in evicted.into_iter().chain(doubtful) {
            request::close_statement(&name, out);
            self.changes.push(Change::Room);
            self.ledger.sent(b'C', Whose::Own);
        }
    }

    /// The client's unnamed statement, which ends.
    pub(super) fn take_unnamed(sides: &mut Sides<'_>) -> Unnamed {
        Unnamed {
            was_there: sides.server.unnamed_of == Some(sides.client.id),
            ..std::mem::take(&mut sides.client.unnamed)
        }
    }

    /// Sees to it that the unnamed statement of the server connection is the client's, if the client has one.
    pub(super) fn ensure_unnamed(&mut self, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        if sides.server.unnamed_of == Some(sides.client.id) {
            return;
        }
        sides.server.unnamed_of = Some(sides.client.id);
        self.changes.push(Change::OwnUnnamed);
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
    pub(super) fn rename(
        &mut self,
        frame: Frame<'_>,
        len: usize,
        place: usize,
        new: &str,
        out: &mut Vec<u8>,
    ) {
        self.ledger.sent(frame.tag, Whose::Client);
        let length = (frame.length as usize + new.len()).saturating_sub(len);
        request::header(frame.tag, length as u32, out);
        out.extend_from_slice(frame.body.get(..place).unwrap_or_default());
        out.extend_from_slice(new.as_bytes());
        out.extend_from_slice(frame.body.get(place + len..).unwrap_or_default());
    }

    /// Passes on a frame that names a statement which Postern doesn't know: one that was prepared in SQL, or none. What looks
    /// like a name of Postern's own becomes one that nobody has.
    pub(super) fn unknown(&mut self, frame: Frame<'_>, name: &[u8], place: usize, out: &mut Vec<u8>) {
        if name.starts_with(NAME_PREFIX.as_bytes()) {
            let nobodys = format!("{NAME_PREFIX}of_nobody");
            self.rename(frame, name.len(), place, &nobodys, out);
        } else {
            self.pass(frame, out);
        }
    }
}

/// Notes that constants of `text`, which has these `effects` if it is run, are read. No more of it is run than checks of types.
fn checks(text: &[u8], effects: Effects, sides: &mut Sides<'_>) {
    sides.server.ran.note_read(text, sides.texts.epoch());
    let effects = sides.texts.checks_within(effects);
    if !effects.is_empty() {
        leaves(sides, text, effects, Command::Other);
    }
}
