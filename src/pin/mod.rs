//! What ties a client to its server connection: one reason for each kind of state that can't travel.
//!
//! Pure: it is told what a statement may have done ([`Effects`]) and what the server has said of the session
//! ([`Found`]), and decides. A pin ends when the server says that the state has ended.

mod question;
mod routines;

pub use question::{Question, Row, Told};
pub use routines::{Catalogs, Routine, Routines};

use crate::sql::Effects;

/// Why a client keeps its server connection; the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It listens on a channel.
    Listen,
    /// It has temporary objects.
    Temporary,
    /// It has a cursor WITH HOLD.
    Cursor,
    /// It holds a session-level advisory lock.
    Advisory,
    /// It has prepared a statement in SQL.
    Prepared,
    /// It has read `currval` or `lastval`.
    Sequence,
    /// It has seeded `random()`.
    Seed,
    /// It has loaded a library, or something else that lasts as long as the connection.
    Lasting,
    /// It has changed the session's user.
    User,
    /// It has set what needs a privilege, which the role may not have when it is to be set again.
    Privileged,
    /// It ran code whose effects can be neither told nor asked for.
    Opaque,
    /// It has prepared a statement that is too large to be remembered.
    Large,
    /// The server didn't tell what state the session is in.
    Unknown,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Listen,
        Self::Temporary,
        Self::Cursor,
        Self::Advisory,
        Self::Prepared,
        Self::Sequence,
        Self::Seed,
        Self::Lasting,
        Self::User,
        Self::Privileged,
        Self::Opaque,
        Self::Large,
        Self::Unknown,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Temporary => "temporary",
            Self::Cursor => "cursor",
            Self::Advisory => "advisory",
            Self::Prepared => "prepared",
            Self::Sequence => "sequence",
            Self::Seed => "seed",
            Self::Lasting => "lasting",
            Self::User => "user",
            Self::Privileged => "privileged",
            Self::Opaque => "opaque",
            Self::Large => "large",
            Self::Unknown => "unknown",
        }
    }

    /// What the client has done, for an error.
    pub fn text(self) -> &'static str {
        match self {
            Self::Listen => "LISTEN",
            Self::Temporary => "temporary objects",
            Self::Cursor => "a cursor WITH HOLD",
            Self::Advisory => "a session-level advisory lock",
            Self::Prepared => "PREPARE",
            Self::Sequence => "currval or lastval",
            Self::Seed => "setseed",
            Self::Lasting => "LOAD, or something else that lasts as long as the connection",
            Self::User => "SET SESSION AUTHORIZATION",
            Self::Privileged => "a setting that needs a privilege",
            Self::Opaque => "code whose effects can't be known",
            Self::Large => "a prepared statement that is too large",
            Self::Unknown => "state that could not be found out",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u16);

/// What the server says of a session in which no transaction is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Channels are listened on.
    pub listens: bool,
    /// There are temporary objects.
    pub has_temporary: bool,
    /// Cursors are open.
    pub has_cursors: bool,
    /// Session-level advisory locks are held.
    pub has_advisory_locks: bool,
    /// There are prepared statements that aren't Postern's.
    pub has_prepared: bool,
    /// The session's user isn't the one who logged in.
    pub is_other_user: bool,
    /// Settings are set that need a privilege.
    pub has_privileged: bool,
}

impl Pins {
    /// Whether the client may give its connection back.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `reason` is one.
    pub fn contains(self, reason: Reason) -> bool {
        self.0 & reason.bit() != 0
    }

    /// The reasons.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .filter(move |reason| self.contains(*reason))
    }

    /// Those that DISCARD ALL doesn't end.
    #[must_use]
    pub fn without_discarded(self) -> Self {
        Self(self.0 & (Reason::Seed.bit() | Reason::Lasting.bit()))
    }

    /// Whether the connection can't be lent to anybody else any more, not even after DISCARD ALL.
    pub fn are_lasting(self) -> bool {
        !self.without_discarded().is_empty()
    }

    /// Adds one.
    pub fn add(&mut self, reason: Reason) {
        self.0 |= reason.bit();
    }

    /// The reasons after a transaction in which statements with these `effects` ran, as far as no server can tell.
    pub fn unseen(&mut self, effects: Effects) {
        let rules = [
            (Effects::SEQUENCE_READ, Reason::Sequence),
            (Effects::SEED, Reason::Seed),
            (Effects::LASTING, Reason::Lasting),
            (Effects::DYNAMIC.union(Effects::DYNAMIC_SETTING), Reason::Opaque),
        ];
        for (effect, reason) in rules {
            if effects.intersects(effect) {
                self.add(reason);
            }
        }
    }

    /// The reasons after the server has told what it `found`: those that it can tell of are as it says, the others stay.
    pub fn seen(&mut self, found: Found) {
        let rules = [
            (found.listens, Reason::Listen),
            (found.has_temporary, Reason::Temporary),
            (found.has_cursors, Reason::Cursor),
            (found.has_advisory_locks, Reason::Advisory),
            (found.has_prepared, Reason::Prepared),
            (found.is_other_user, Reason::User),
            (found.has_privileged, Reason::Privileged),
            (false, Reason::Unknown),
        ];
        for (is_there, reason) in rules {
            self.0 &= !reason.bit();
            if is_there {
                self.add(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_ends_when_the_server_says_so() {
        let mut pins = Pins::default();
        pins.unseen(Effects::SEQUENCE_READ);
        pins.seen(Found {
            listens: true,
            has_temporary: true,
            ..Found::default()
        });
        let reasons = |pins: Pins| pins.reasons().map(Reason::label).collect::<Vec<_>>();
        assert_eq!(reasons(pins), ["listen", "temporary", "sequence"]);
        pins.seen(Found::default());
        assert_eq!(reasons(pins), ["sequence"], "what the server can't tell of stays");
        assert!(!pins.is_empty());
    }
}
