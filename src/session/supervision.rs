//! What a rule holds a client to: that it only reads, and that what it asks is heard.

use std::collections::HashMap;
use std::rc::Rc;

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

/// Something that a client asks. Texts are as they came; of one that is longer than
/// [`MAX_STATEMENT_BYTES`](super::statements::MAX_STATEMENT_BYTES), the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Query.
    Query(&'a [u8]),
    /// Parse.
    Parse {
        /// Of the statement; empty for the unnamed one.
        name: &'a [u8],
        /// Its text.
        text: &'a [u8],
        /// Object identifiers of its parameters' types, as far as the client says them: four bytes each.
        types: &'a [u8],
    },
    /// Execute.
    Execute {
        /// Of the portal; empty for the unnamed one.
        portal: &'a [u8],
        /// The text of the statement that was bound to it, if that is known.
        text: Option<&'a [u8]>,
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

/// What one client is held to.
#[derive(Debug, Default)]
pub struct Supervision {
    pub(super) reads_only: bool,
    pub(super) listener: Option<Box<dyn Listener>>,
    /// A transaction may have ended within the pipeline, and whatever comes now begins another.
    pub(super) has_ended: bool,
    /// The body of the error that the client gets in place of the server's for what it was refused.
    pub(super) refusal: Option<Vec<u8>>,
    /// What was bound to portals, for who listens.
    pub(super) portals: HashMap<Box<[u8]>, Rc<[u8]>>,
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
}
