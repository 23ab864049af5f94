//! What a client asks the database, recorded as its rule says.

use std::sync::Arc;

use super::shard::Shared;
use crate::audit::{Asked, Event};
use crate::ids::SessionId;
use crate::policy::Recorded;
use crate::session::supervision::{Heard, How, Listener, MAX_HEARD_BYTES};
use crate::sql;

/// As much of a name.
const MAX_NAME_BYTES: usize = 128;

/// As many types of parameters.
const MAX_TYPES: usize = 100;

/// What stands for a text in an encoding whose characters contain ASCII bytes.
const UNREADABLE: &str = "(not shown: in the client's encoding, it can't be told where constants are)";

/// Records what one client asks.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    session: SessionId,
    is_full: bool,
}

impl Recorder {
    /// What a rule wants recorded of the `session`; nothing, if there is no audit log.
    pub(super) fn of(
        recorded: Recorded,
        shared: &Arc<Shared>,
        session: SessionId,
    ) -> Option<Box<dyn Listener>> {
        if recorded == Recorded::No {
            return None;
        }
        Some(Box::new(Self {
            shared: shared.clone(),
            session,
            is_full: recorded == Recorded::Full,
        }))
    }

    fn shown(&self, text: &[u8], how: How) -> String {
        let mut shown = match self.is_full {
            _ if !how.is_readable => UNREADABLE.to_owned(),
            true => sql::without_passwords(text),
            false => sql::without_constants(text),
        };
        // In JSON, a byte may take six.
        shown.truncate(shown.floor_char_boundary(MAX_HEARD_BYTES));
        shown.shrink_to_fit();
        shown
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({})", self.session)
    }
}

impl Listener for Recorder {
    fn heard(&mut self, heard: Heard<'_>, how: How) {
        let mut asked = Asked {
            is_refused: how.is_refused,
            ..Asked::default()
        };
        let mut text = None;
        asked.kind = match heard {
            Heard::Query(of) => {
                text = Some(of);
                "query"
            }
            Heard::Parse {
                name,
                text: of,
                types,
            } => {
                text = Some(of);
                asked.name = Some(short(name));
                let types = types.as_chunks().0.iter().take(MAX_TYPES);
                asked.types = types.map(|oid| u32::from_be_bytes(*oid)).collect();
                "parse"
            }
            Heard::Execute { portal, text: of } => {
                text = of;
                asked.name = Some(short(portal));
                "execute"
            }
            Heard::Copy { bytes, is_failed } => {
                asked.bytes = Some(bytes);
                if is_failed { "copy_fail" } else { "copy_done" }
            }
            Heard::FunctionCall(function) => {
                asked.function = Some(function);
                "function_call"
            }
        };
        asked.length = text.map(|text| text.length);
        asked.text = text.map(|text| self.shown(text.bytes, how));
        self.shared.audit.record_statement(|| Event::Statement {
            session: self.session.to_string(),
            asked,
        });
    }
}

fn short(name: &[u8]) -> String {
    let name = name.get(..MAX_NAME_BYTES).unwrap_or(name);
    String::from_utf8_lossy(name).into_owned()
}
