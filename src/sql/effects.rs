//! What running a text may do to the state of its session that outlives the transaction.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of effects. Empty means: known to leave nothing behind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Effects(u32);

impl Effects {
    /// Nothing is left behind.
    pub const NONE: Self = Self(0);
    /// A session setting may have another value: SET, RESET, `set_config`, DISCARD ALL. Not SET LOCAL.
    pub const SETTING: Self = Self(1);
    /// A setting whose name the text doesn't show; it may be any (also `seed`, see [`Self::SEED`]).
    pub const DYNAMIC_SETTING: Self = Self(1 << 1);
    /// A setting is put back to what the *server connection* began with: RESET, SET x TO DEFAULT, DISCARD ALL,
    /// `set_config` of NULL. Without [`Self::SETTING`] it is so until the transaction ends.
    ///
    /// Only a NULL that the text shows counts; the value in `set_config('x', $1, false)` may be NULL as well.
    pub const RESET: Self = Self(1 << 2);
    /// DISCARD ALL, SEQUENCES or TEMP. (DISCARD PLANS changes nothing that anybody can see.)
    pub const DISCARD: Self = Self(1 << 3);
    /// Names a prepared statement, perhaps one of the protocol, to forget it: DEALLOCATE, DISCARD ALL.
    pub const DEALLOCATE: Self = Self(1 << 4);
    /// Can only end state, never begin any: UNLISTEN, CLOSE, DEALLOCATE, DISCARD, advisory unlocks.
    /// Worth asking the server about only while such state ties the client to its connection.
    pub const ENDS: Self = Self(1 << 5);
    /// Catalogs may have changed; a new object may be a temporary one (`search_path` can begin with `pg_temp`).
    pub const DDL: Self = Self(1 << 6);
    /// Names temporary objects.
    pub const TEMPORARY: Self = Self(1 << 7);
    /// A cursor WITH HOLD. Without HOLD it ends with the transaction.
    pub const CURSOR: Self = Self(1 << 8);
    /// LISTEN.
    pub const LISTEN: Self = Self(1 << 9);
    /// A session-level advisory lock.
    pub const ADVISORY: Self = Self(1 << 10);
    /// PREPARE or EXECUTE in SQL; EXECUTE may name a prepared statement of the protocol.
    pub const PREPARED: Self = Self(1 << 11);
    /// DO or CALL: code that the text only names or quotes.
    pub const CODE: Self = Self(1 << 12);
    /// Runs SQL that is computed: EXECUTE in PL/pgSQL, `query_to_xml`, `dblink`.
    pub const DYNAMIC: Self = Self(1 << 13);
    /// Seeds `random()`. No query shows it. (Also by SET LOCAL, which isn't rolled back: `assign_random_seed`
    /// in PostgreSQL's `variable.c`.)
    pub const SEED: Self = Self(1 << 14);
    /// Lasts until the connection ends and hardly shows: LOAD, backup mode, replication origins, temporary slots.
    pub const LASTING: Self = Self(1 << 15);
    /// May advance a sequence, which `currval` and `lastval` remember.
    pub const SEQUENCE_WRITE: Self = Self(1 << 16);
    /// Reads what the session remembers of sequences: `currval`, `lastval`.
    pub const SEQUENCE_READ: Self = Self(1 << 17);
    /// A setting has another value until the transaction ends: SET LOCAL. Leaves nothing behind.
    pub const LOCAL: Self = Self(1 << 20);
    /// What is set, for the session or the transaction, decides what constants in texts mean.
    pub const DECIDES: Self = Self(1 << 21);
    /// The same, and the server doesn't report it.
    pub const DECIDES_UNREPORTED: Self = Self(1 << 22);
    /// What is set decides where the words of a text begin and end.
    pub const DECIDES_WORDS: Self = Self(1 << 23);
    /// The expressions of indexes and statistics that the text needn't name may be run: ANALYZE, REINDEX, VACUUM, CLUSTER. Always with
    /// [`Self::UNKNOWN`].
    pub const MAINTAINS: Self = Self(1 << 24);
    /// A transaction may end, or go back to a savepoint, and with it what was set: COMMIT, ROLLBACK, PREPARE TRANSACTION.
    pub const ENDS_TRANSACTION: Self = Self(1 << 25);
    /// Not understood: may have any effect at all.
    pub const UNKNOWN: Self = Self(1 << 18);
    /// May have any effect, as long as it isn't known what names stand for; to be judged again once it is.
    pub const DOUBT: Self = Self(1 << 19);

    /// After any of these only the server can tell what is left, settings included.
    pub const PROBE: Self = Self(
        Self::DDL.0
            | Self::TEMPORARY.0
            | Self::CURSOR.0
            | Self::LISTEN.0
            | Self::ADVISORY.0
            | Self::PREPARED.0
            | Self::CODE.0
            | Self::DYNAMIC.0
            | Self::UNKNOWN.0,
    );

    /// After any of these sequences may have been advanced.
    pub const ADVANCES: Self = Self(Self::PROBE.0 | Self::SEQUENCE_WRITE.0);

    /// What is set decides how texts are read.
    pub const DECIDING: Self = Self(Self::DECIDES.0 | Self::DECIDES_UNREPORTED.0 | Self::DECIDES_WORDS.0);

    /// These leave nothing behind when the transaction is over.
    pub const PASSING: Self = Self(Self::LOCAL.0 | Self::DECIDING.0 | Self::ENDS_TRANSACTION.0);

    /// What no query to the server shows reliably.
    pub const UNSEEN: Self = Self(Self::SEED.0 | Self::LASTING.0);

    const NAMES: [(&'static str, Self); 26] = [
        ("SETTING", Self::SETTING),
        ("DYNAMIC_SETTING", Self::DYNAMIC_SETTING),
        ("RESET", Self::RESET),
        ("DISCARD", Self::DISCARD),
        ("DEALLOCATE", Self::DEALLOCATE),
        ("ENDS", Self::ENDS),
        ("DDL", Self::DDL),
        ("TEMPORARY", Self::TEMPORARY),
        ("CURSOR", Self::CURSOR),
        ("LISTEN", Self::LISTEN),
        ("ADVISORY", Self::ADVISORY),
        ("PREPARED", Self::PREPARED),
        ("CODE", Self::CODE),
        ("DYNAMIC", Self::DYNAMIC),
        ("SEED", Self::SEED),
        ("LASTING", Self::LASTING),
        ("SEQUENCE_WRITE", Self::SEQUENCE_WRITE),
        ("SEQUENCE_READ", Self::SEQUENCE_READ),
        ("UNKNOWN", Self::UNKNOWN),
        ("DOUBT", Self::DOUBT),
        ("LOCAL", Self::LOCAL),
        ("DECIDES", Self::DECIDES),
        ("DECIDES_UNREPORTED", Self::DECIDES_UNREPORTED),
        ("DECIDES_WORDS", Self::DECIDES_WORDS),
        ("MAINTAINS", Self::MAINTAINS),
        ("ENDS_TRANSACTION", Self::ENDS_TRANSACTION),
    ];

    /// These and those.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those of these that are among `other`.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among these.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing is left behind.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = false;
        for (name, effect) in Self::NAMES {
            if self.contains(effect) {
                write!(f, "{}{name}", if written { " " } else { "" })?;
                written = true;
            }
        }
        if written { Ok(()) } else { f.write_str("NONE") }
    }
}
