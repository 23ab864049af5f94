//! What a rule holds a client to, request by request.
//!
//! Who may only read has sessions in which transactions only read, and PostgreSQL sees to the rest; here it is seen to that they stay so.
//! What may change the transaction to come is refused. What code has set is set back before the next transaction begins, which
//! waits until the server has told how things are.

use bytes::BytesMut;

use super::Sides;
use super::desk::{Desk, runs};
use crate::session::ledger::Copying;
use crate::session::supervision::{Bound, Heard, How, Supervision, Text};
use crate::session::tracker::Ended;
use crate::sql::{self, MAX_NAME_BYTES, NotReading, READ_ONLY};
use crate::wire::body::Body;
use crate::wire::frame::Frame;
use crate::wire::reply::{self, Report, Severity};
use crate::wire::request;
use crate::wire::sqlstate;

/// A text that the server refuses, for what a rule refuses.
const REFUSED: &[u8] = b"\"postern: refused\"";

/// Sets back what code has set.
const READS_AGAIN: &str = "SET default_transaction_read_only TO 'on'";

/// How often that is tried: the client may have set a timeout, or somebody cancel it.
const MAX_TRIES: u32 = 10;

/// Portals whose statements are remembered.
const MAX_PORTALS: usize = 100;

impl Desk {
    /// Whether the client may only read.
    fn reads_only(sides: &Sides<'_>) -> bool {
        let reads_only = |held: &Supervision| held.reads_only;
        sides.client.supervision.as_deref().is_some_and(reads_only)
    }

    /// Whether the request has to wait until the server has told how things are; if they aren't as they have to be when a transaction
    /// begins, asks it to change that.
    pub(super) fn awaits_report(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Ended> {
        self.holds_for_report = false;
        if !Self::reads_only(sides)
            || self.ledger.copy != Copying::No
            || matches!(frame.tag, b'd' | b'c' | b'f')
        {
            return Ok(false);
        }
        self.holds_for_report = self.ledger.owes_ready() || self.reads_again(frame, sides, out)?;
        Ok(self.holds_for_report)
    }

    /// Before a transaction begins in a session that doesn't only read any more, asks for it to; whether it did.
    fn reads_again(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Ended> {
        let Some(held) = sides.client.supervision.as_deref_mut() else {
            return Ok(false);
        };
        let begins = self.ledger.begins_transaction() && !matches!(frame.tag, b'S' | b'H');
        if !begins || sides.server.parameters.get(READ_ONLY) == Some("on") {
            held.tries = 0;
            return Ok(false);
        }
        held.tries += 1;
        if held.tries > MAX_TRIES {
            return Err(Ended::Writable);
        }
        request::query(READS_AGAIN, out);
        self.sent_own(b'Q');
        let analysis = sides.texts.analyse(READS_AGAIN.as_bytes(), sides.server);
        runs(sides, READS_AGAIN.as_bytes(), analysis.effects, analysis.lone);
        sides.server.lose_unnamed();
        Ok(true)
    }

    /// Type and body of what to send instead, if the client may not ask that. It is asked before anything is noted of the request.
    pub(super) fn supervised(
        &self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
    ) -> Result<Option<(u8, Vec<u8>)>, Ended> {
        let Some(held) = sides.client.supervision.as_deref_mut() else {
            return Ok(None);
        };
        if self.ledger.begins_transaction() {
            held.forget_portals();
            held.has_bound_end = false;
        }
        if !held.reads_only {
            return Ok(None);
        }
        let has_ended = held.has_ended;
        let is_of_statement = frame.body.first() == Some(&b'S');
        let why = match frame.tag {
            b'Q' | b'P' | b'B' | b'E' | b'F' if has_ended => Some(NotReading::BehindEnd),
            b'D' if has_ended && is_of_statement => Some(NotReading::BehindEnd),
            b'Q' => self.not_reading(frame.body.strip_suffix(b"\0").unwrap_or(frame.body), true, sides),
            b'P' => self.not_reading(text_of_parse(frame).unwrap_or_default(), false, sides),
            _ => None,
        };
        let is_unread = frame.is_cut() && matches!(frame.tag, b'Q' | b'P');
        if is_unread || why.is_some() && (frame.is_cut() || frame.tag == b'F') {
            // What follows of it can't be taken back.
            self.hears(frame, true, sides);
            return Err(Ended::Unread);
        }
        let Some(why) = why else { return Ok(None) };
        if let Some(held) = sides.client.supervision.as_deref_mut() {
            held.refusal.get_or_insert_with(|| refusal(why));
        }
        Ok(Some(refused_instead(frame)))
    }

    /// Why a text may not be run; one with `several` statements may be cut by an encoding that the server has not told of yet.
    fn not_reading(&self, text: &[u8], several: bool, sides: &Sides<'_>) -> Option<NotReading> {
        let is_certain = sides.server.parameters.reading().is_some() && !(several && self.ledger.unsynced);
        if !is_certain && !sql::reads_alike(text) {
            return Some(NotReading::Uncertain);
        }
        sql::reads_only(text).err()
    }

    /// Notes that a request was taken.
    pub(super) fn supervises(&self, frame: Frame<'_>, is_refused: bool, sides: &mut Sides<'_>) {
        let ends = frame.tag == b'B'
            && Self::reads_only(sides)
            && !is_refused
            && bound(frame, sides).is_none_or(|text| sql::reads_only(text) == Ok(true));
        let Some(held) = sides.client.supervision.as_deref_mut() else {
            return;
        };
        held.has_bound_end |= ends;
        match frame.tag {
            b'E' => held.has_ended |= held.has_bound_end,
            b'S' | b'Q' | b'F' => held.has_ended = false,
            _ => {}
        }
        self.hears(frame, is_refused, sides);
    }

    /// Lets who listens hear it.
    fn hears(&self, frame: Frame<'_>, is_refused: bool, sides: &mut Sides<'_>) {
        let Some(mut held) = sides.client.supervision.take() else {
            return;
        };
        if let Some(listener) = &mut held.listener {
            let is_readable = |text: &[u8]| {
                text.is_ascii()
                    || sides.server.parameters.reading().is_some() && self.misread(text, sides).is_empty()
            };
            let mut hear = |heard: Heard<'_>, text: &[u8]| {
                listener.heard(
                    heard,
                    How {
                        is_refused,
                        is_readable: is_readable(text),
                    },
                );
            };
            let whole = (frame.length as usize).saturating_sub(5);
            let mut body = Body::new(frame.body);
            match frame.tag {
                b'Q' => {
                    let text = frame.body.strip_suffix(b"\0").unwrap_or(frame.body);
                    hear(Heard::Query(Text::new(text, whole)), text);
                }
                b'P' => {
                    let name = body.cstring().unwrap_or_default();
                    let rest = body.rest();
                    let mut rest = Body::new(rest);
                    let (text, length, types) = match rest.cstring() {
                        Ok(text) => (text, text.len(), rest.rest().get(2..).unwrap_or_default()),
                        Err(_) => (body.rest(), whole.saturating_sub(name.len()), &[][..]),
                    };
                    let parse = Heard::Parse {
                        name,
                        text: Text::new(text, length),
                        types,
                    };
                    hear(parse, text);
                }
                b'E' => {
                    let portal = body.cstring().unwrap_or(frame.body);
                    let known = held.portals.get(counting(portal)).filter(|_| !frame.is_cut());
                    let text = known.map(|bound| Text::new(&bound.beginning, bound.length));
                    let bytes = text.map_or(&[][..], |text| text.bytes);
                    hear(Heard::Execute { portal, text }, bytes);
                }
                b'F' => {
                    let function = body.i32().unwrap_or_default();
                    hear(Heard::FunctionCall(function as u32), &[]);
                }
                b'c' | b'f' => {
                    let copy = Heard::Copy {
                        bytes: std::mem::take(&mut held.copied),
                        is_failed: frame.tag == b'f',
                    };
                    hear(copy, &[]);
                }
                _ => {}
            }
            held.note_portals(frame, sides);
        }
        sides.client.supervision = Some(held);
    }

    /// The error that the client gets in place of the server's, if this is the one for what a rule refuses.
    pub(super) fn not_let(&self, frame: Frame<'_>, sides: &mut Sides<'_>) -> Option<Vec<u8>> {
        let held = sides.client.supervision.as_deref_mut()?;
        // A Bind that fails leaves the portal what it was.
        held.forget_portals();
        let is_ours = frame.body.windows(REFUSED.len()).any(|window| window == REFUSED);
        held.refusal.take_if(|_| is_ours)
    }
}

impl Supervision {
    /// Keeps account of what portals are, for who listens.
    fn note_portals(&mut self, frame: Frame<'_>, sides: &Sides<'_>) {
        let mut body = Body::new(frame.body);
        match frame.tag {
            b'B' => {
                let portal = counting(body.cstring().unwrap_or_default());
                let text = bound(frame, sides);
                // A cursor may come in its place.
                if text.is_none_or(sql::names_cursors) {
                    self.forget_portals();
                }
                match text {
                    Some(text) if self.portals.len() < MAX_PORTALS => {
                        let bound = Bound {
                            beginning: Text::new(text, text.len()).bytes.into(),
                            length: text.len(),
                        };
                        self.portals.insert(portal.into(), bound);
                    }
                    _ => drop(self.portals.remove(portal)),
                }
            }
            b'C' if frame.body.first() == Some(&b'P') => {
                let portal = frame.body.get(1..).unwrap_or_default();
                let portal = portal.strip_suffix(b"\0").unwrap_or(portal);
                self.portals.remove(counting(portal));
            }
            b'Q' => self.forget_portals(),
            b'd' => self.copied += u64::from(frame.length.saturating_sub(4)),
            _ => {}
        }
    }
}

/// As much of a portal's name as tells it from others.
fn counting(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME_BYTES).unwrap_or(name)
}

/// What the server refuses in place of a request: a Query, or, in an extended query, a Parse of the unnamed statement. No name would do that
/// a client could give to something.
fn refused_instead(frame: Frame<'_>) -> (u8, Vec<u8>) {
    match frame.tag {
        b'Q' => (b'Q', [REFUSED, b"\0"].concat()),
        _ => (b'P', [b"\0", REFUSED, b"\0\0\0"].concat()),
    }
}

/// The text of a Parse.
fn text_of_parse(frame: Frame<'_>) -> Option<&[u8]> {
    let mut body = Body::new(frame.body);
    body.cstring().ok()?;
    body.cstring().ok()
}

/// The text of the statement that a Bind is about, if it is known.
fn bound<'a>(frame: Frame<'_>, sides: &'a Sides<'_>) -> Option<&'a [u8]> {
    let mut body = Body::new(frame.body);
    body.cstring().ok()?;
    let name = body.cstring().ok()?;
    if name.is_empty() {
        return Body::new(&sides.client.unnamed.tail).cstring().ok();
    }
    sides
        .client
        .statements
        .get(name)
        .map(|statement| statement.text())
}

fn refusal(why: NotReading) -> Vec<u8> {
    let (message, hint) = match why {
        NotReading::Statement => (
            "this connection may only read, and this statement isn't one that only reads",
            "Use SELECT and the like; DO, CALL, and what changes or maintains the database are for connections that may write.",
        ),
        NotReading::ReadWrite => (
            "this connection may only read, and its transactions can't be made to write",
            "Leave out READ WRITE, and leave default_transaction_read_only on.",
        ),
        NotReading::BehindEnd => (
            "this connection may only read, and nothing may follow the end of a transaction in the same message or pipeline",
            "End the transaction in a message of its own, and send Sync after it.",
        ),
        NotReading::Uncertain => (
            "this connection may only read, and it can't be told how the server reads this statement",
            "Leave out backslashes and what isn't ASCII, or set client_encoding to UTF8, in a message of its own.",
        ),
    };
    let mut out = BytesMut::new();
    let report = Report {
        severity: Severity::Error,
        state: sqlstate::READ_ONLY_SQL_TRANSACTION,
        message: message.to_owned(),
        detail: Some("The rule of this gateway that admits the connection says read_only.".to_owned()),
        hint: Some(hint.to_owned()),
    };
    reply::report(&report, &mut out);
    out.split_off(crate::wire::frame::HEADER_BYTES).to_vec()
}
