//! Where requests are taken down.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Sides;
use super::changes::{Change, Changes, Forgotten};
use super::restore::Restore;
use super::shapes::{Alike, Shapes};
use crate::session::client::Unnamed;
use crate::session::doubt::Changing;
use crate::session::ledger::{Ledger, Whose};
use crate::session::statements::{CHANGED_NAME, Statement};
use crate::sql::{self, Analysis, Command, Discarded, Effects};
use crate::wire::body::Body;
use crate::wire::frame::{BadLength, Frame};
use crate::wire::request;

/// What a text may leave behind that isn't read.
pub(super) const UNREAD: Effects = Effects::UNKNOWN.union(Effects::DYNAMIC_SETTING);

/// DEALLOCATE, DEALLOCATE ALL and DISCARD ALL that may be under way.
const MAX_FORGOTTEN: usize = 10_000;

/// Where requests are taken down.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    /// The transaction has failed, and what was asked since ends it.
    pub(super) rolls_back: bool,
    /// What each Parse and Close that isn't answered changes, in their order.
    pub(super) changes: Changes,
    /// The unnamed statement is of after the last Sync.
    pub(super) has_new_unnamed: bool,
    /// What is to be taken next needs one of before.
    pub(super) wants_unnamed: bool,
    /// What is to be taken next depends on settings that the server has yet to tell of.
    pub(super) wants_settings: bool,
    /// A COPY FROM was bound, and it isn't known yet whether the server wants its data.
    pub(super) may_copy: bool,
    /// What is to be taken next is a Sync that the server ignores if it does.
    pub(super) holds_sync: bool,
    /// What is to be taken next waits for the server to tell how things are.
    pub(super) holds_for_report: bool,
    /// What prepared statements take and return.
    pub(super) shapes: Shapes,
    /// What became of the prepared statements that were used.
    pub(super) used: StatementUse,
    /// Names that requests which aren't answered may still have used: closed since, or never defined.
    pub(super) former: Vec<(Box<[u8]>, Box<str>)>,
    /// What DEALLOCATE and DISCARD ALL have ended, if they succeed.
    pub(super) forgotten: VecDeque<Forgotten>,
    /// Portals that reset settings: what the client began with is set again behind their Execute.
    pub(super) resetting: Vec<(Box<[u8]>, Restore)>,
    /// For each restoring of settings that isn't answered, which ReadyForQuery of this lease comes right before its answer: it
    /// waits for that, so that the client never hears of values that it won't see.
    pub(super) restores: VecDeque<u64>,
    /// One waits.
    pub(super) owes_ready: bool,
    /// Something that Postern asked for itself has failed: what the session is like isn't known.
    pub(super) refusal: Option<(String, String)>,
}

/// What became of prepared statements that a client used, and of what it may not ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatementUse {
    /// The server connection had them.
    pub found: u32,
    /// It had to be told them.
    pub prepared: u32,
    /// It had to forget others for them.
    pub evicted: u32,
    /// Requests of the client's that its rule doesn't let.
    pub refused: u32,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            ledger: Ledger::fine(),
            rolls_back: false,
            changes: Changes::default(),
            has_new_unnamed: false,
            wants_unnamed: false,
            wants_settings: false,
            may_copy: false,
            holds_sync: false,
            holds_for_report: false,
            shapes: Shapes::default(),
            used: StatementUse::default(),
            former: Vec::new(),
            forgotten: VecDeque::new(),
            resetting: Vec::new(),
            restores: VecDeque::new(),
            owes_ready: false,
            refusal: None,
        }
    }
}

impl Desk {
    /// Whether more is kept account of than may be.
    pub(super) fn overflows(&mut self) -> bool {
        self.ledger.overflows() || self.changes.overflow() || self.forgotten.len() > MAX_FORGOTTEN
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadLength> {
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
                match tag {
                    b'c' | b'f' => self.may_copy = false,
                    b'F' => runs(sides, &[], UNREAD, Command::Other),
                    b'S' => self.has_new_unnamed = false,
                    _ => {}
                }
                self.pass(frame, out);
                if tag == b'E' && !self.resetting.is_empty() {
                    self.restore_within(frame, sides, out);
                }
                Ok(())
            }
        }
    }

    /// What a text may leave behind that is read before what decides how the server reads it is done.
    #[inline]
    pub(super) fn misread(&self, text: &[u8], sides: &Sides<'_>) -> Effects {
        if !self.ledger.is_told() && sides.client.run.changes_reading() && !sql::reads_alike(text) {
            UNREAD
        } else {
            Effects::NONE
        }
    }

    /// Notes a message of Postern's own.
    pub(super) fn sent_own(&mut self, tag: u8) {
        if matches!(tag, b'P' | b'C') {
            self.changes.push(Change::Nothing);
        }
        self.ledger.sent(tag, Whose::Own);
    }

    pub(super) fn pass(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        self.ledger.sent(frame.tag, Whose::Client);
        request::header(frame.tag, frame.length, out);
        out.extend_from_slice(frame.body);
    }

    pub(super) fn query(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadLength> {
        sides.client.unnamed = Unnamed::default();
        sides.client.unnamed_effects = (u64::MAX, Effects::NONE);
        sides.server.unnamed_of = None;
        if self.changes.unnamed > 0 {
            self.changes.end_unnamed();
        }
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
        effects |= self.misread(text, sides);
        runs(sides, text, effects, first.clone());
        let named = self.statement_of(text, &first, sides);
        match &named {
            Some((place, statement)) => {
                let begins = !self.ledger.unsynced;
                let executes = matches!(first, Command::Execute { .. });
                if self.ensure_named(executes, statement, sides, out) && begins {
                    // Should it fail, it doesn't take the Query with it.
                    request::sync(out);
                    self.sent_own(b'S');
                }
                let renamed = statement.named_in(frame.body, place.clone());
                request::message(b'Q', out, |body| body.extend_from_slice(&renamed));
                self.ledger.sent(b'Q', Whose::Client);
            }
            None => self.pass(frame, out),
        }
        let named = named.map(|(_, statement)| statement);
        self.executes(&first, named.as_ref(), sides);
        self.forget(effects, &first, named.as_deref(), true, sides);
        self.restore(&Restore::of(text, effects, &first), sides, out);
        Ok(())
    }

    pub(super) fn bind(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadLength> {
        let mut body = Body::new(frame.body);
        let portal = body.cstring().map_err(|_| malformed(frame))?;
        let name = body.cstring().map_err(|_| malformed(frame))?;
        if name.is_empty() {
            if let Some(named) = sides.client.unnamed.names.clone() {
                self.ensure_named(sides.client.unnamed.executes, &named, sides, out);
            }
            self.ensure_unnamed(sides, out);
            self.may_copy |= sides.client.unnamed.copies;
            let (epoch, effects) = sides.client.unnamed_effects;
            let tail = std::mem::take(&mut sides.client.unnamed.tail);
            let text = Body::new(&tail).cstring().unwrap_or_default();
            if !effects.is_empty() || epoch != sides.texts.epoch() || self.is_in_failed() {
                self.runs_unnamed(portal, text, sides);
            } else {
                sides.server.ran.note(text, epoch);
            }
            sides.client.unnamed.tail = tail;
            if sides.client.unnamed.has_own_types {
                sides.server.ran.takes_own_types();
            }
            self.pass(frame, out);
            return Ok(());
        }
        let Some(statement) = sides.client.statements.get(name).cloned() else {
            // One that was prepared in SQL, or too large, which ties the client as it is; or none.
            let effects = if sides.client.has_unknown_statements() {
                UNREAD
            } else {
                Effects::UNKNOWN
            };
            runs(sides, &[], effects, Command::Other);
            self.unknown(frame, name, portal.len() + 1, out);
            return Ok(());
        };
        let statement = self.own(name, statement, sides);
        if let Some(named) = &statement.names {
            let executes = matches!(statement.command, Command::Execute { .. });
            self.ensure_named(executes, named, sides, out);
        }
        match self.ensure_alike(&statement, sides, out) {
            Alike::Yes => {}
            Alike::Unknown => return Ok(()),
            Alike::No => {
                self.rename(frame, name.len(), portal.len() + 1, CHANGED_NAME, out);
                return Ok(());
            }
        }
        self.may_copy |= statement.command == Command::CopyFrom;
        let epoch = sides.texts.epoch();
        let effects = self.effects_of(&statement, sides);
        if statement.has_own_types {
            sides.server.ran.takes_own_types();
        }
        if effects.is_empty() && !self.is_in_failed() {
            sides.server.ran.note(statement.text(), epoch);
        } else {
            runs(sides, statement.text(), effects, statement.command.clone());
            let resets = Restore::of(statement.text(), effects, &statement.command);
            self.binds(portal, resets, sides);
            let named = statement.names.as_ref();
            self.executes(&statement.command, named, sides);
            self.forget(
                effects,
                &statement.command,
                named.map(|named| &**named),
                false,
                sides,
            );
        }
        self.rename(frame, name.len(), portal.len() + 1, &statement.server_name, out);
        Ok(())
    }

    /// What running a prepared statement may leave behind.
    #[inline]
    pub(super) fn effects_of(&self, statement: &Statement, sides: &Sides<'_>) -> Effects {
        let epoch = sides.texts.epoch();
        let effects = statement.effects(epoch).unwrap_or_else(|| {
            let is_read_alike = statement.reading == sides.server.parameters.reading();
            let effects = if is_read_alike || sql::reads_alike(statement.text()) {
                sides.texts.analyse(statement.text(), sides.server).effects
            } else {
                // The server may have read it as it was prepared.
                UNREAD
            };
            let types = if statement.has_own_types {
                sides.texts.own_types()
            } else {
                Effects::NONE
            };
            statement.set_effects(epoch, effects | types);
            effects | types
        });
        effects | self.misread(statement.text(), sides)
    }

    /// EXECUTE in SQL runs a prepared statement of the protocol.
    fn executes(&self, command: &Command, named: Option<&Rc<Statement>>, sides: &mut Sides<'_>) {
        if let (Command::Execute { .. }, Some(named)) = (command, named) {
            let effects = self.effects_of(named, sides);
            if named.has_own_types {
                sides.server.ran.takes_own_types();
            }
            runs(sides, named.text(), effects, named.command.clone());
        }
    }

    /// A statement of the unnamed kind is run; what it is has to be looked at anew.
    pub(super) fn runs_unnamed(&mut self, portal: &[u8], text: &[u8], sides: &mut Sides<'_>) {
        let Analysis {
            mut effects,
            lone: command,
            ..
        } = sides.texts.analyse(text, sides.server);
        // Of a text that was too long to be kept, nothing is known.
        let (_, before) = sides.client.unnamed_effects;
        effects |= before | self.misread(text, sides);
        if sides.client.unnamed.has_own_types {
            effects |= sides.texts.own_types();
        }
        self.binds(portal, Restore::of(text, effects, &command), sides);
        let named = sides.client.unnamed.names.clone();
        self.executes(&command, named.as_ref(), sides);
        self.forget(effects, &command, named.as_deref(), false, sides);
        runs(sides, text, effects, command);
    }

    pub(super) fn describe(
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
            self.reads_unnamed(sides);
            self.pass(frame, out);
            return Ok(());
        }
        match sides.client.statements.get(name).cloned() {
            Some(statement) => {
                let statement = self.own(name, statement, sides);
                if self.is_in_failed()
                    && !sides.server.prepared.has(&statement, sides.client.id)
                    && let Some(shape) = statement.shape().filter(|shape| !shape.has_rows())
                {
                    // A server that has it tells of it, but none can be told it any more.
                    self.prepare_empty(&statement, &shape.parameters, sides, out);
                    self.rename(frame, name.len(), 1, &statement.server_name, out);
                    return Ok(());
                }
                let server_name = match self.ensure_alike(&statement, sides, out) {
                    Alike::Yes => &statement.server_name,
                    Alike::Unknown => return Ok(()),
                    Alike::No => CHANGED_NAME,
                };
                // Perhaps anew, after a change of catalogs.
                self.reads(&statement, sides);
                self.rename(frame, name.len(), 1, server_name, out);
            }
            None => self.unknown(frame, name, 1, out),
        }
        Ok(())
    }

    pub(super) fn close(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadLength> {
        let name = statement_name(frame)?;
        let known = name.and_then(|name| sides.client.statements.remove_entry(name));
        match (name, known) {
            // Others may use it.
            (Some(_), Some(entry)) => {
                let (name, statement) = entry;
                self.was(&name, &statement);
                self.changes.push(Change::Closed(name, statement));
                self.ledger.sent(b'C', Whose::Made);
            }
            (Some(name), None) => {
                let change = if name.is_empty() {
                    self.has_new_unnamed = true;
                    sides.client.unnamed_effects = (u64::MAX, Effects::NONE);
                    Change::Unnamed(Self::take_unnamed(sides))
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
}

/// Notes that `text`, which is `command`, is about to be run.
#[inline]
pub(super) fn runs(sides: &mut Sides<'_>, text: &[u8], effects: Effects, command: Command) {
    let epoch = sides.texts.epoch();
    sides.server.ran.note(text, epoch);
    if command == Command::Discard(Discarded::All) {
        sides.server.ran.discards();
    }
    leaves(sides, text, effects, command);
}

/// Notes what `text`, which is `command`, may be about to leave behind.
#[inline]
pub(super) fn leaves(sides: &mut Sides<'_>, text: &[u8], effects: Effects, command: Command) {
    let epoch = sides.texts.epoch();
    let is_temporary = command == Command::CreateTemporary;
    // It may stand among others, or the text doesn't show it.
    let shows = command != Command::Other && Restore::of(text, effects, &command) != Restore::Nothing;
    // What it defines may set something while it runs, and be gone before anybody looks.
    let decides = effects.intersects(Effects::DDL) && sql::names_deciding(text);
    let effects = if decides {
        effects | Effects::DECIDES
    } else {
        effects
    };
    let effects = sides.client.runs(text, effects, command, epoch);
    sides.client.run.resets |= effects.intersects(Effects::RESET) && !shows;
    if effects.intersects(Effects::DDL)
        && let Some(changing) =
            sides
                .texts
                .changing(text, effects, is_temporary, sides.client.id, sides.server)
    {
        let known = sides.server.changing.take();
        sides.server.changing = Some(known.filter(Changing::is_pending).unwrap_or(changing));
    }
    sides.server.noted(sides.client.id, sides.client.run.traces());
}

/// The name of the statement that a Describe or Close is about; `None` if it is about a portal.
pub(super) fn statement_name(frame: Frame<'_>) -> Result<Option<&[u8]>, BadLength> {
    let mut body = Body::new(frame.body);
    let kind = body.u8().map_err(|_| malformed(frame))?;
    let name = body.cstring().map_err(|_| malformed(frame))?;
    Ok((kind == b'S').then_some(name))
}

/// Names that don't end where the message does, or that are far longer than PostgreSQL's.
pub(super) fn malformed(frame: Frame<'_>) -> BadLength {
    BadLength {
        tag: frame.tag,
        length: frame.length,
    }
}
