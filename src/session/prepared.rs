//! Which prepared statements of the protocol a server connection has.

use std::collections::HashMap;

use super::statements::Statement;
use crate::ids::SessionId;

/// Statements on one server connection; PostgreSQL keeps each one's plan in the memory of its process.
const MAX_PREPARED: usize = 500;

/// The statements that a server connection has, and when each was last used.
#[derive(Debug, Default)]
pub struct Prepared {
    used: HashMap<u64, Used>,
    clock: u64,
    /// Some are spoiled.
    has_spoiled: bool,
    /// There may be more than these: they must be closed before they are prepared anew.
    is_doubtful: bool,
}

/// A statement on a server connection.
#[derive(Debug)]
struct Used {
    /// When.
    clock: u64,
    name: Box<str>,
    state: State,
}

/// How the server has read a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it was read first.
    Good,
    /// That client has used it under settings that aren't known, and the server may have read it anew; nobody's, if it was prepared
    /// under such.
    Spoiled(Option<SessionId>),
    /// The client is done: others must prepare it anew, or everybody.
    Stale(Option<SessionId>),
}

impl Prepared {
    /// Whether the connection has it for `id`, or for whoever it is; then it counts as used.
    #[inline]
    pub fn touch(&mut self, statement: &Statement, id: Option<SessionId>) -> bool {
        self.clock += 1;
        match self.used.get_mut(&statement.id) {
            Some(used) if !matches!(used.state, State::Stale(by) if by.is_none() || by != id) => {
                used.clock = self.clock;
                true
            }
            _ => false,
        }
    }

    /// Whether [`Self::touch`] would say so.
    pub fn has(&self, statement: &Statement, id: SessionId) -> bool {
        let used = self.used.get(&statement.id);
        used.is_some_and(|used| !matches!(used.state, State::Stale(by) if by != Some(id)))
    }

    /// Notes that it is being prepared; the name of the one that has to make room for it.
    pub fn insert(&mut self, statement: &Statement) -> Option<Box<str>> {
        let evicted = if self.used.len() >= MAX_PREPARED && !self.used.contains_key(&statement.id) {
            let oldest = self.used.iter().min_by_key(|(_, used)| used.clock);
            oldest.map(|(id, _)| *id)
        } else {
            None
        };
        let evicted = evicted.and_then(|id| self.used.remove(&id)).map(|used| used.name);
        self.clock += 1;
        let used = Used {
            clock: self.clock,
            name: statement.server_name.clone(),
            state: State::Good,
        };
        self.used.insert(statement.id, used);
        evicted
    }

    /// Notes that it returns something else there.
    pub fn is_other(&mut self, statement: &Statement) {
        if let Some(used) = self.used.get_mut(&statement.id) {
            used.state = State::Stale(None);
        }
    }

    /// Notes that it isn't there after all.
    pub fn remove(&mut self, statement: &Statement) {
        self.used.remove(&statement.id);
    }

    /// Notes that `id` uses it under settings that aren't known; without one, that it was prepared under such.
    pub fn spoil(&mut self, statement: &Statement, id: Option<SessionId>) {
        if let Some(used) = self.used.get_mut(&statement.id)
            && used.state != State::Spoiled(None)
        {
            used.state = State::Spoiled(id);
            self.has_spoiled = true;
        }
    }

    /// Notes that its client is done: what it has spoiled others must prepare anew.
    #[inline]
    pub fn settle(&mut self) {
        if !std::mem::take(&mut self.has_spoiled) {
            return;
        }
        for used in self.used.values_mut() {
            if let State::Spoiled(by) = used.state {
                used.state = State::Stale(by);
            }
        }
    }

    /// Notes that the server will plan all of them anew, and perhaps read them otherwise than before.
    pub fn replan(&mut self) {
        self.used
            .values_mut()
            .for_each(|used| used.state = State::Stale(None));
    }

    /// Notes that all of them may be gone, or may still be there.
    pub fn doubt(&mut self) {
        self.used.clear();
        self.is_doubtful = true;
    }

    /// Whether it may be there though [`Self::touch`] says that it isn't: then it must be closed first.
    pub fn may_have(&self, statement: &Statement) -> bool {
        self.is_doubtful || self.used.contains_key(&statement.id)
    }

    /// How many are known of.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether none is known of.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}
