//! Names that travel through every layer: targets, databases, database users, sessions.
//!
//! Each is a type of its own so that a database can't be passed where a user is meant. The text is
//! shared (`Arc<str>`): a name is cloned for every client and every pool, and compared far more often.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

name! {
    /// A configured database endpoint, by the name that the configuration gives it.
    TargetName
}
name! {
    /// A database of a target, as in the startup parameter `database`.
    DatabaseName
}
name! {
    /// The role that a pooled connection logs in as, as in the startup parameter `user`.
    DbUser
}

/// What upstream connections may be shared by: never across any two of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// Where the connections lead.
    pub target: TargetName,
    /// The database they are logged in to.
    pub database: DatabaseName,
    /// The role they are logged in as.
    pub user: DbUser,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.target, self.database, self.user)
    }
}

/// One client's session, for logs and the audit record. Unique within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
