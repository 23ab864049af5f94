//! SQL as far as a pooler needs it: tokens, statements, and what running a text may leave behind in its session.
//!
//! Nothing here parses SQL. [`Lexer`] cuts a text into tokens exactly as PostgreSQL does, [`analyse`] recognises
//! statements by their first words and everything else by the names in them, and [`routine_effects`] does the same for the
//! body of a function. The rule throughout: what isn't recognised has the effect [`Effects::UNKNOWN`], never none.
//!
//! What a text can't show is the caller's business: user-defined functions (it is asked for every name),
//! triggers, operators, casts, defaults, rules and policies, and text in a client encoding whose characters
//! contain ASCII bytes (SJIS, BIG5, GBK, UHC, GB18030, JOHAB), which must not be given to this module at all.
//!
//! Reading order: `effects.rs`, `lexer.rs`, `statement.rs`; then `words.rs`, `setting.rs`, `routine.rs`.

mod access;
mod effects;
mod identifier;
mod lexer;
mod redact;
mod routine;
mod scan;
mod setting;
mod statement;
mod words;

pub use access::{NotReading, READ_ONLY, names_cursors, reads_only};
pub use effects::Effects;
pub use identifier::{Identifier, MAX_NAME_BYTES};
pub use lexer::{Kind, Lexer, Token, has_constants, is_analysed, reads_alike};
pub use redact::{without_constants, without_passwords};
pub use routine::{Found, Language, routine_effects};
pub use setting::{DECIDING_REPORTED, DECIDING_UNREPORTED, names_deciding, setting_name};
pub use statement::{Analysis, Command, Discarded, Options, analyse, split};
