//! Where answers are looked at.

use std::rc::Rc;

use super::Sides;
use super::desk::Desk;
use super::restore::hides;
use crate::session::ledger::{Request, TransactionStatus, Whose};
use crate::wire::frame::Frame;
use crate::wire::reply::state_and_message;
use crate::wire::request;

/// What becomes of a frame from the server.
pub(super) enum Verdict {
    Pass,
    Withhold,
    /// It isn't the client's, and what was asked for Postern itself is done: the client may have to hear of parameters.
    Correct,
    /// The body to send instead.
    Rename(Vec<u8>),
}

impl Desk {
    /// Appends the answers whose turn has come and that the server doesn't give.
    pub(super) fn make_due(&mut self, to_client: &mut Vec<u8>) {
        while let Some(what) = self.ledger.take_made() {
            self.changes.pop();
            let tag = if what == Request::Parse { b'1' } else { b'3' };
            request::header(tag, 4, to_client);
        }
    }

    /// An error as a server of the client's own would have given it, if it isn't that already.
    fn put_right(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>) -> Option<Vec<u8>> {
        if let Some(refused) = self.not_let(frame, sides).or_else(|| self.refused(frame, sides)) {
            return Some(refused);
        }
        let renamed = self.renamed(frame, sides);
        if renamed.is_some() {
            // The connection doesn't have what it was thought to have, or has it already.
            sides.server.prepared.doubt();
        }
        renamed.or_else(|| Self::hinted(frame, sides))
    }

    #[inline]
    pub(super) fn answer(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>) -> Verdict {
        let renamed = if frame.tag == b'E' {
            self.undo(sides);
            self.put_right(frame, sides)
        } else {
            None
        };
        let is_apart = frame.tag == b'E' && self.ledger.is_apart();
        let whose = self.ledger.received(frame.tag, frame.body);
        match frame.tag {
            b'1' | b'3' => self.changes.pop(),
            b'E' => {
                self.forget_unanswered(sides);
                sides.client.run.has_undone();
            }
            b't' | b'T' | b'n' if whose == Whose::Own => self.takes_shape(frame, sides),
            b'C' if frame.body == b"ROLLBACK\0" => sides.client.run.has_undone(),
            b'C' if whose == Whose::Client && frame.body.starts_with(b"D") => {
                self.completed(frame.body, sides);
                if frame.body == b"DISCARD ALL\0" {
                    sides.client.run.has_discarded();
                }
            }
            b'Z' => {
                self.rolls_back = false;
                self.refuses_nothing(sides);
                if whose == Whose::Client
                    && let Some(held) = sides.client.supervision.as_deref_mut()
                {
                    held.refusal = None;
                    if self.ledger.begins_transaction() {
                        held.forget_portals();
                    }
                }
                if self.ledger.is_told() {
                    sides.client.run.is_told();
                }
                self.remember(self.ledger.answered, 0, sides);
                if self.ledger.status == TransactionStatus::Idle && self.ledger.is_empty() {
                    sides.server.changing = None;
                    sides.server.prepared.settle();
                    self.resetting.clear();
                }
            }
            b'S' => {
                Rc::make_mut(&mut sides.server.parameters).report(frame.body);
                if whose == Whose::Client && self.restores.is_empty() && !hides(sides, frame) {
                    if sides.client.run.resets {
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
            // The client's own requests go down with it.
            (Whose::Own, b'E') if self.restores.is_empty() => {
                if is_apart {
                    Verdict::Withhold
                } else {
                    renamed.map_or(Verdict::Pass, Verdict::Rename)
                }
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
}
