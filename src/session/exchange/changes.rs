//! What requests that aren't answered change, and what is so after all when the server skips them.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Sides;
use super::desk::Desk;
use crate::session::client::Unnamed;
use crate::session::ledger::{Request, TransactionStatus};
use crate::session::statements::{ClientStatements, NAME_PREFIX, Statement};
use crate::sql::{Command, Discarded, Effects};
use crate::wire::frame::Frame;

/// Names that are kept only to be put into errors.
pub(super) const MAX_FORMER: usize = 1_000;

/// What a Parse or a Close changes if it isn't skipped.
#[derive(Debug)]
pub(super) enum Change {
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
pub(super) struct Forgotten {
    pub(super) statements: ClientStatements,
    pub(super) unnamed: Unnamed,
    /// The ReadyForQuery, counted in this lease, before which it is known.
    pub(super) known_at: u64,
}

/// Changes in the order of their messages.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) queue: VecDeque<Change>,
    /// How many of them decide what names stand for.
    pub(super) named: usize,
}

impl Change {
    pub(super) fn is_named(&self) -> bool {
        matches!(self, Self::Defined(..) | Self::Closed(..) | Self::Own)
    }
}

impl Changes {
    pub(super) fn push(&mut self, change: Change) {
        self.named += usize::from(change.is_named());
        self.queue.push_back(change);
    }

    pub(super) fn pop(&mut self) {
        if let Some(change) = self.queue.pop_front() {
            self.named -= usize::from(change.is_named());
        }
    }

    /// The first `count` are void.
    pub(super) fn take(&mut self, count: usize) -> VecDeque<Change> {
        let rest = self.queue.split_off(count.min(self.queue.len()));
        let taken = std::mem::replace(&mut self.queue, rest);
        self.named -= taken.iter().filter(|change| change.is_named()).count();
        taken
    }
}

impl Desk {
    /// Whether names may stand for something else once what was asked before the last Sync is answered: if it fails, what it
    /// would have defined isn't, and what it would have closed still is, on the server connection too.
    #[inline]
    pub(super) fn is_undecided(&self) -> bool {
        self.ledger.owes_ready() && (self.changes.named > 0 || self.forgotten.is_some())
    }

    /// Takes back what requests would have changed that the server will skip, the last one first.
    pub(super) fn undo(&mut self, sides: &mut Sides<'_>) {
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
    pub(super) fn forget(
        &mut self,
        effects: Effects,
        command: &Command,
        is_query: bool,
        sides: &mut Sides<'_>,
    ) {
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
                if is_query {
                    std::mem::swap(&mut unnamed, &mut sides.client.unnamed);
                }
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
    pub(super) fn remember(&mut self, by: u64, sides: &mut Sides<'_>) {
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
    pub(super) fn renamed(&self, frame: Frame<'_>, sides: &Sides<'_>) -> Option<Vec<u8>> {
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
