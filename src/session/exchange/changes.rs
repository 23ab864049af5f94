//! What requests that aren't answered change, and what is so after all when the server skips them.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Sides;
use super::desk::Desk;
use crate::session::client::Unnamed;
use crate::session::ledger::{Request, TransactionStatus};
use crate::session::statements::{ClientStatements, MAX_CLIENT_BYTES, NAME_PREFIX, Statement};
use crate::sql::{self, Command, Discarded, Effects};
use crate::wire::body::Body;
use crate::wire::frame::Frame;
use crate::wire::reply::state_and_message;
use crate::wire::sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE;

/// Why `currval` and `lastval` may fail, and what to do.
const LOST_VALUE: &str = "In a shared pool, a value that was drawn in an earlier transaction may be gone. Read it in the same \
     transaction (RETURNING does), or have this user's or database's pool set to mode = \"session\".";

/// Names that are kept only to be put into errors.
const MAX_FORMER: usize = 1_000;

/// What a Parse or a Close changes if it isn't skipped.
#[derive(Debug)]
pub(super) enum Change {
    Nothing,
    /// Postern makes room for another statement.
    Room,
    /// Postern puts the client's unnamed statement in place of somebody else's.
    OwnUnnamed,
    /// A named statement is defined: the client's name, if it was the client who asked, and the statement, if the server
    /// connection gets it by this.
    Defined(Option<Box<[u8]>>, Option<Rc<Statement>>),
    /// A named statement of the client's has ended.
    Closed(Box<[u8]>, Rc<Statement>),
    /// The unnamed statement is another one, or none; what it was before.
    Unnamed(Unnamed),
}

/// Statements of a client's that a statement in SQL is to end, until it is known whether it does.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// The statement's CommandComplete, with its NUL.
    pub(super) tag: &'static [u8],
    pub(super) statements: ClientStatements,
    /// The ReadyForQuery, counted in this lease, before which it is known.
    pub(super) known_at: u64,
    /// How many changes came before it.
    pub(super) after: u64,
}

/// Changes in the order of their messages.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) queue: VecDeque<Change>,
    /// How many there were in all.
    pushed: u64,
    /// Of these, how many a Query came behind.
    ended: u64,
    /// How many of them decide what names stand for.
    pub(super) named: usize,
    /// How many of them decide what the unnamed statement is.
    pub(super) unnamed: usize,
    /// The text that is kept only for them.
    bytes: usize,
}

impl Change {
    pub(super) fn is_named(&self) -> bool {
        matches!(
            self,
            Self::Defined(..) | Self::Closed(..) | Self::Room | Self::OwnUnnamed
        )
    }

    fn is_unnamed(&self) -> bool {
        matches!(self, Self::Unnamed(_))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Closed(name, statement) => name.len() + statement.tail.len(),
            Self::Unnamed(before) => before.tail.len(),
            Self::Nothing | Self::Room | Self::OwnUnnamed | Self::Defined(..) => 0,
        }
    }
}

impl Changes {
    pub(super) fn push(&mut self, change: Change) {
        self.named += usize::from(change.is_named());
        self.unnamed += usize::from(change.is_unnamed());
        self.bytes += change.bytes();
        self.pushed += 1;
        self.queue.push_back(change);
    }

    pub(super) fn pop(&mut self) {
        if let Some(change) = self.queue.pop_front() {
            self.named -= usize::from(change.is_named());
            self.unnamed -= usize::from(change.is_unnamed());
            self.bytes = self.bytes.saturating_sub(change.bytes());
        }
    }

    /// A Query has ended the unnamed statement, whichever it was by then.
    pub(super) fn end_unnamed(&mut self) {
        let first = self.pushed - self.queue.len() as u64;
        let begin = self.ended.saturating_sub(first) as usize;
        let Self { queue, bytes, .. } = self;
        let later = queue.iter_mut().skip(begin);
        for change in later.filter(|change| change.is_unnamed()) {
            *bytes = bytes.saturating_sub(change.bytes());
            *change = Change::Unnamed(Unnamed::default());
        }
        self.ended = self.pushed;
    }

    /// Whether more is kept for them than for anybody's statements.
    pub(super) fn overflow(&self) -> bool {
        self.bytes > MAX_CLIENT_BYTES
    }

    /// The first `count` are void.
    pub(super) fn take(&mut self, count: usize) -> VecDeque<Change> {
        let taken: VecDeque<_> = self.queue.drain(..count.min(self.queue.len())).collect();
        self.named -= taken.iter().filter(|change| change.is_named()).count();
        self.unnamed -= taken.iter().filter(|change| change.is_unnamed()).count();
        let bytes: usize = taken.iter().map(Change::bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }
}

impl Desk {
    /// Whether names may stand for something else once what was asked before the last Sync is answered: if it fails, what it
    /// would have defined isn't, and what it would have closed still is, on the server connection too. And it may end a
    /// transaction that has failed, in which nothing can be defined or closed.
    #[inline]
    pub(super) fn is_undecided(&self) -> bool {
        if self.shapes.is_awaited() {
            return true;
        }
        if self.holds_sync {
            return self.ledger.may_begin_copy();
        }
        let is_undecided = self.changes.named > 0
            || !self.forgotten.is_empty()
            || self.wants_unnamed && self.changes.unnamed > 0
            || self.wants_settings
            || self.ledger.status == TransactionStatus::Failed;
        is_undecided && self.ledger.owes_ready()
    }

    /// Whether what is asked now finds a transaction that has failed, in which nothing can be defined or closed.
    pub(super) fn is_in_failed(&self) -> bool {
        self.ledger.status == TransactionStatus::Failed && !self.rolls_back
    }

    /// Notes whether `frame` needs the unnamed statement as it was before the last Sync, or settings that aren't known yet.
    #[inline]
    pub(super) fn looks_at(&mut self, frame: Frame<'_>, sides: &Sides<'_>) {
        self.wants_settings = self.ledger.owes_ready() && self.is_new(frame, sides);
        self.wants_unnamed = !self.has_new_unnamed
            && match (frame.tag, frame.body) {
                (b'D', body) => body == b"S\0",
                (b'B', body) => {
                    let end_of_portal = body.iter().position(|byte| *byte == 0);
                    end_of_portal.is_some_and(|end| body.get(end + 1) == Some(&0))
                }
                _ => false,
            };
    }

    /// Whether `frame` is about a named statement with constants that the server is yet to be told, while it isn't known how it
    /// reads them.
    fn is_new(&self, frame: Frame<'_>, sides: &Sides<'_>) -> bool {
        if self.is_sure(sides) {
            return false;
        }
        let mut body = Body::new(frame.body);
        let (first, second) = (
            body.cstring().unwrap_or_default(),
            body.cstring().unwrap_or_default(),
        );
        let name = match frame.tag {
            b'P' => return !first.is_empty() && sql::is_analysed(second) && sql::has_constants(second),
            b'B' => second,
            b'D' => first.strip_prefix(b"S").unwrap_or_default(),
            _ => return false,
        };
        sides.client.statements.get(name).is_some_and(|statement| {
            statement.has_constants && !sides.server.prepared.has(statement, sides.client.id)
        })
    }

    /// Takes back what requests would have changed that the server will skip, the last one first.
    pub(super) fn undo(&mut self, sides: &mut Sides<'_>) {
        let first = self.changes.pushed - self.changes.queue.len() as u64;
        let void = self.changes.take(self.ledger.void());
        // What was to end everything is skipped as well, if it stands before the next Sync.
        let by = match self.ledger.front() {
            Some(Request::Query) => 0,
            _ => self.ledger.answered + 1,
        };
        let fails = self.ledger.front() == Some(Request::Parse);
        let mut unnamed: Option<Unnamed> = None;
        for (place, change) in void.into_iter().enumerate().rev() {
            self.remember(by, first + place as u64 + 1, sides);
            match change {
                Change::Nothing => {}
                Change::Room => sides.server.prepared.doubt(),
                Change::OwnUnnamed => {
                    sides.server.unnamed_of = None;
                    unnamed.iter_mut().for_each(|before| before.was_there = false);
                }
                Change::Defined(name, statement) => {
                    let entry = name.and_then(|name| sides.client.statements.remove_entry(&name));
                    entry
                        .into_iter()
                        .for_each(|(name, statement)| self.was(&name, &statement));
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
        self.remember(by, 0, sides);
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
                if before.was_there {
                    sides.server.unnamed_of = Some(sides.client.id);
                }
                sides.client.unnamed = before;
                sides.client.unnamed_effects = (u64::MAX, Effects::NONE);
            }
        }
    }

    /// DEALLOCATE and DISCARD ALL end statements, the last and DEALLOCATE ALL those of everybody who has used this connection;
    /// the client's come back should they fail. `named`: the one that DEALLOCATE names, if it is the client's. `is_query`: it
    /// comes in a Query, and not before a Sync.
    pub(super) fn forget(
        &mut self,
        effects: Effects,
        command: &Command,
        named: Option<&Statement>,
        is_query: bool,
        sides: &mut Sides<'_>,
    ) {
        let is_known = matches!(command, Command::Execute { .. }) && named.is_some();
        if effects.intersects(Effects::PREPARED | Effects::DEALLOCATE) && !is_known {
            // It may have named one of Postern's, or be refused.
            sides.server.prepared.doubt();
        }
        if self.is_in_failed() {
            self.rolls_back = matches!(command, Command::Commit | Command::Rollback);
            return;
        }
        let statements = &mut sides.client.statements;
        let (tag, statements): (&[u8], _) = match (command, named) {
            (Command::DeallocateAll, _) => (b"DEALLOCATE ALL\0", std::mem::take(statements)),
            (Command::Discard(Discarded::All), _) => (b"DISCARD ALL\0", std::mem::take(statements)),
            (Command::Deallocate { .. }, named) => {
                let mut one = ClientStatements::default();
                if let Some((name, statement)) = named.and_then(|named| statements.remove(named)) {
                    one.insert(name, statement);
                }
                // One of SQL counts too: their CommandCompletes are told apart by their order alone.
                (b"DEALLOCATE\0", one)
            }
            _ => return,
        };
        // A Query is in the ledger already, and the Sync isn't.
        let known_at = self.ledger.answered + self.ledger.readies() + u64::from(!is_query);
        self.forgotten.push_back(Forgotten {
            tag,
            statements,
            known_at,
            after: self.changes.pushed,
        });
    }

    /// A statement of the client's is done, and this is its CommandComplete: what it was to end has ended.
    pub(super) fn completed(&mut self, tag: &[u8], sides: &mut Sides<'_>) {
        let place = self.forgotten.iter().position(|forgotten| forgotten.tag == tag);
        if let Some(place) = place {
            self.forgotten.remove(place);
        } else if matches!(tag, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0") {
            // A portal from before.
            sides.client.statements = ClientStatements::default();
            sides.server.prepared.doubt();
        } else if tag == b"DISCARD PLANS\0" {
            // The server would read the texts of all its statements anew, under whatever is set then.
            sides.server.prepared.doubt();
        }
    }

    /// The statements that were to end are the client's still, if what was to end them was in vain by the ReadyForQuery `by`,
    /// and came after the first `changes`.
    pub(super) fn remember(&mut self, by: u64, changes: u64, sides: &mut Sides<'_>) {
        let is_void = |forgotten: &mut Forgotten| forgotten.known_at <= by && forgotten.after >= changes;
        while let Some(forgotten) = self.forgotten.pop_back_if(is_void) {
            sides.client.statements.restore(forgotten.statements);
            sides.server.prepared.doubt();
        }
    }

    /// The client's name of a statement no longer stands for it, but requests may have used it.
    pub(super) fn was(&mut self, name: &[u8], statement: &Statement) {
        if self.former.len() < MAX_FORMER {
            self.former.push((name.into(), statement.server_name.clone()));
        }
    }

    /// An error that says what to do, where what the client has drawn from a sequence may be gone with the connection.
    pub(super) fn hinted(frame: Frame<'_>, sides: &Sides<'_>) -> Option<Vec<u8>> {
        let (_, message) = (sides.client.drew && !frame.is_cut())
            .then(|| state_and_message(frame.body))
            .filter(|(state, _)| state == OBJECT_NOT_IN_PREREQUISITE_STATE)?;
        let is_lost = message.contains("lastval") || message.contains("currval");
        let fields = frame.body.strip_suffix(b"\0").filter(|_| is_lost)?;
        Some([fields, b"H", LOST_VALUE.as_bytes(), b"\0\0"].concat())
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
        let former = self.former.iter().map(|(name, known)| (name, known));
        let forgotten = self.forgotten.iter().flat_map(|one| one.statements.iter());
        let known = sides.client.statements.iter().chain(forgotten);
        let mut known = known
            .map(|(name, statement)| (name, &statement.server_name))
            .chain(former);
        let (name, _) = known.find(|(_, server_name)| server_name.as_bytes() == written)?;
        (!frame.is_cut()).then(|| [before, name, after].concat())
    }
}
