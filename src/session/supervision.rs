//! What a rule holds a client to: that it only reads, and that what it asks is heard.

use std::collections::HashMap;

/// Who hears what a client asks the database.
pub trait Listener: std::fmt::Debug {
    /// The client has asked this.
    fn heard(&mut self, heard: Heard<'_>, how: How);
}

/// How something was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// The rule doesn't let it, and the database isn't asked.
    pub is_refused: bool,
    /// The client's encoding is one in which texts can be taken apart.
    pub is_readable: bool,
}

/// Something that a client asks. Of texts the beginning, as far as [`MAX_HEARD_BYTES`], as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Query.
    Query(Text<'a>),
    /// Parse.
    Parse {
        /// Of the statement; empty for the unnamed one.
        name: &'a [u8],
        /// Its text.
        text: Text<'a>,
        /// Object identifiers of its parameters' types, as far as the client says them: four bytes each.
        types: &'a [u8],
    },
    /// Execute.
    Execute {
        /// Of the portal; empty for the unnamed one.
        portal: &'a [u8],
        /// The text of the statement that was bound to it, if that is known.
        text: Option<Text<'a>>,
    },
    /// The end of the data of a COPY FROM.
    Copy {
        /// Data, without the headers of messages.
        bytes: u64,
        /// The client gave up.
        is_failed: bool,
    },
    /// FunctionCall, by the function's object identifier.
    FunctionCall(u32),
}

/// As much of a text as is heard.
pub const MAX_HEARD_BYTES: usize = 8 * 1024;

/// A statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Its beginning.
    pub bytes: &'a [u8],
    /// How long it is.
    pub length: usize,
}

impl<'a> Text<'a> {
    /// One of that `length` whose beginning is among `bytes`.
    pub fn new(bytes: &'a [u8], length: usize) -> Self {
        Self {
            bytes: bytes.get(..MAX_HEARD_BYTES).unwrap_or(bytes),
            length,
        }
    }
}

/// What was bound to a portal.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) beginning: Box<[u8]>,
    pub(super) length: usize,
}

/// What one client is held to.
#[derive(Debug, Default)]
pub struct Supervision {
    pub(super) reads_only: bool,
    pub(super) listener: Option<Box<dyn Listener>>,
    /// Something was bound that ends a transaction, or may: whatever is executed may be that.
    pub(super) has_bound_end: bool,
    /// A transaction may have ended within the pipeline, and whatever comes now begins another.
    pub(super) has_ended: bool,
    /// How often it was tried to have transactions only read again, since they last did.
    pub(super) tries: u32,
    /// The body of the error that the client gets in place of the server's for what it was refused.
    pub(super) refusal: Option<Vec<u8>>,
    /// What was bound to portals, for who listens, by as much of their names as counts.
    pub(super) portals: HashMap<Box<[u8]>, Bound>,
    /// Data of the COPY under way.
    pub(super) copied: u64,
}

impl Supervision {
    /// Of a client that `reads_only`, and to whom `listener` listens; nothing if neither is asked for.
    pub fn of(reads_only: bool, listener: Option<Box<dyn Listener>>) -> Option<Box<Self>> {
        (reads_only || listener.is_some()).then(|| {
            Box::new(Self {
                reads_only,
                listener,
                ..Self::default()
            })
        })
    }

    /// Nothing is known any more of what portals are.
    pub(super) fn forget_portals(&mut self) {
        if !self.portals.is_empty() {
            self.portals = HashMap::new();
        }
    }
}
