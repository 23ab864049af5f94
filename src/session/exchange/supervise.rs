//! What a rule holds a client to, request by request.
//!
//! Who may only read has sessions in which transactions only read, and PostgreSQL sees to the rest; here it is seen to that they stay so.
//! What may change the transaction to come is refused. What code has set is set back before the next transaction begins, which
//! waits until the server has told how things are.

use bytes::BytesMut;

use super::Sides;
use super::desk::{Desk, runs};
use crate::session::ledger::Copying;
use crate::session::supervision::{Heard, How, Supervision};
use crate::session::tracker::Ended;
use crate::sql::{self, NotReading, READ_ONLY};
use crate::wire::body::Body;
use crate::wire::frame::Frame;
use crate::wire::reply::{self, Report, Severity};
use crate::wire::request;
use crate::wire::sqlstate;

/// Stands in requests that the server is to refuse, since a rule does: no text, and no statement's name.
const REFUSED: &[u8] = b"\"postern: refused\"";

/// Sets back what code has set.
const READS_AGAIN: &str = "SET default_transaction_read_only TO 'on'";

/// Portals whose statements are remembered.
const MAX_PORTALS: usize = 1_000;

impl Desk {
    /// Whether the request has to wait until the server has told how things are.
    pub(super) fn awaits_report(&mut self, frame: Frame<'_>, sides: &Sides<'_>) -> bool {
        let reads_only = |held: &Supervision| held.reads_only;
        self.holds_for_report = sides.client.supervision.as_deref().is_some_and(reads_only)
            && self.ledger.owes_ready()
            && self.ledger.copy == Copying::No
            && !matches!(frame.tag, b'd' | b'c' | b'f');
        self.holds_for_report
    }

    /// The body to send instead, if the client may not ask that. It is asked before anything is noted of the request.
    pub(super) fn supervised(
        &mut self,
        frame: Frame<'_>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Ended> {
        let Some(held) = sides.client.supervision.as_deref_mut() else {
            return Ok(None);
        };
        if self.ledger.begins_transaction() {
            held.portals.clear();
        }
        if !held.reads_only {
            return Ok(None);
        }
        let has_ended = held.has_ended;
        if frame.is_cut() && (has_ended || matches!(frame.tag, b'Q' | b'P')) {
            return Err(Ended::Unread);
        }
        self.reads_again(frame, sides, out);
        let refused = match frame.tag {
            b'P' | b'B' if has_ended => Some(NotReading::BehindEnd),
            b'Q' if has_ended => Some(NotReading::BehindEnd),
            b'Q' | b'P' if sides.server.parameters.reading().is_none() => Some(NotReading::Statement),
            b'Q' => sql::reads_only(frame.body.strip_suffix(b"\0").unwrap_or(frame.body)).err(),
            b'P' => sql::reads_only(text_of_parse(frame).unwrap_or_default()).err(),
            _ => None,
        };
        let Some(why) = refused else { return Ok(None) };
        if let Some(held) = sides.client.supervision.as_deref_mut() {
            held.refusal.get_or_insert_with(|| refusal(why));
        }
        Ok(Some(self.refused_body(frame)))
    }

    fn refused_body(&self, frame: Frame<'_>) -> Vec<u8> {
        let mut body = Body::new(frame.body);
        let first = body.cstring().unwrap_or_default();
        match frame.tag {
            b'Q' => [REFUSED, b"\0"].concat(),
            b'P' => [first, b"\0", REFUSED, b"\0\0\0"].concat(),
            // A Bind without parameters, of a statement that isn't there.
            _ => [first, b"\0", REFUSED, &[0; 7]].concat(),
        }
    }

    /// Before a transaction begins in a session that doesn't only read any more, sees to it that it does.
    fn reads_again(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        if !self.ledger.begins_transaction()
            || matches!(frame.tag, b'S' | b'H' | b'd' | b'c' | b'f')
            || sides.server.parameters.get(READ_ONLY) == Some("on")
        {
            return;
        }
        request::query(READS_AGAIN, out);
        self.sent_own(b'Q');
        let analysis = sides.texts.analyse(READS_AGAIN.as_bytes(), sides.server);
        runs(sides, READS_AGAIN.as_bytes(), analysis.effects, analysis.lone);
        sides.server.lose_unnamed();
    }

    /// Notes that a request was taken.
    pub(super) fn supervises(&self, frame: Frame<'_>, is_refused: bool, sides: &mut Sides<'_>) {
        let Some(mut held) = sides.client.supervision.take() else {
            return;
        };
        match frame.tag {
            b'S' | b'Q' | b'F' => held.has_ended = false,
            b'B' if held.reads_only && !is_refused => {
                let text = bound(frame, sides).unwrap_or_default();
                held.has_ended |= sql::reads_only(text) == Ok(true);
            }
            _ => {}
        }
        self.hears(frame, is_refused, &mut held, sides);
        sides.client.supervision = Some(held);
    }

    /// Lets who listens hear it.
    fn hears(&self, frame: Frame<'_>, is_refused: bool, held: &mut Supervision, sides: &Sides<'_>) {
        let Some(listener) = &mut held.listener else {
            return;
        };
        let how = How {
            is_refused,
            is_readable: sides.server.parameters.reading().is_some(),
        };
        let mut body = Body::new(frame.body);
        match frame.tag {
            b'Q' => {
                let text = frame.body.strip_suffix(b"\0").unwrap_or(frame.body);
                listener.heard(Heard::Query(text), how);
            }
            b'P' => {
                let name = body.cstring().unwrap_or_default();
                let rest = body.rest();
                let mut rest = Body::new(rest);
                let (text, types) = match rest.cstring() {
                    Ok(text) => (text, rest.rest().get(2..).unwrap_or_default()),
                    Err(_) => (body.rest(), &[][..]),
                };
                listener.heard(Heard::Parse { name, text, types }, how);
            }
            b'B' => {
                let portal = body.cstring().unwrap_or_default();
                match bound(frame, sides) {
                    Some(text) if held.portals.len() < MAX_PORTALS => {
                        held.portals.insert(portal.into(), text.into());
                    }
                    _ => {
                        held.portals.remove(portal);
                    }
                }
            }
            b'E' => {
                let portal = body.cstring().unwrap_or_default();
                let text = held.portals.get(portal).map(|text| &**text);
                listener.heard(Heard::Execute { portal, text }, how);
            }
            b'F' => {
                let function = body.i32().unwrap_or_default();
                listener.heard(Heard::FunctionCall(function as u32), how);
            }
            b'd' => held.copied += u64::from(frame.length.saturating_sub(4)),
            b'c' | b'f' => {
                let copy = Heard::Copy {
                    bytes: std::mem::take(&mut held.copied),
                    is_failed: frame.tag == b'f',
                };
                listener.heard(copy, how);
            }
            _ => {}
        }
    }

    /// The error that the client gets in place of the server's, if this is the one for what a rule refuses.
    pub(super) fn not_let(&self, frame: Frame<'_>, sides: &mut Sides<'_>) -> Option<Vec<u8>> {
        let held = sides.client.supervision.as_deref_mut()?;
        let name = REFUSED.trim_ascii();
        let is_ours = frame.body.windows(name.len()).any(|window| window == name);
        held.refusal.take_if(|_| is_ours)
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
