//! The body of a function, procedure or DO: what calling it may leave behind.
//!
//! A body in SQL is read like any text. PL/pgSQL is read with the same lexer, and its statements are looked for where
//! they can begin; its expressions only for names. A body in any other language is unknown to begin with.

use super::effects::Effects;
use super::identifier::Identifier;
use super::lexer::Kind;
use super::scan::{Scan, Visitor};
use super::words::Word;

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `LANGUAGE sql`.
    Sql,
    /// `LANGUAGE plpgsql`.
    PlPgSql,
}

/// Something that a body contains.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A name: perhaps of a routine, whose effects are the body's as well.
    Identifier(Identifier<'a>),
    /// A setting that is set or reset for the session, by its name as written or given to `set_config`.
    Setting(&'a str),
}

/// Reads the source text of a routine and says what calling it may leave behind, apart from what the routines do that
/// `found` is told of. A setting whose name isn't literal is [`Effects::DYNAMIC_SETTING`]; EXECUTE is
/// [`Effects::DYNAMIC`].
///
/// Which value `standard_conforming_strings` has when the body is read can't be known, so where it matters both readings
/// count, and `found` may be told of things twice.
pub fn routine_effects(body: &[u8], language: Language, mut found: impl FnMut(Found<'_>)) -> Effects {
    let mut effects = read(body, language, true, &mut found);
    if body.contains(&b'\\') {
        effects |= read(body, language, false, &mut found);
    }
    // Where a procedure may do that, it runs in no transaction of the caller's.
    effects.without(Effects::ENDS_TRANSACTION)
}

fn read(body: &[u8], language: Language, conforming: bool, found: &mut impl FnMut(Found<'_>)) -> Effects {
    let mut scan = Scan::new(body, conforming, Report(found));
    match language {
        Language::Sql => {
            scan.statements(|_| {});
        }
        Language::PlPgSql => scan.block(),
    }
    if scan.creates_routine {
        // Nor is code that code makes.
        scan.effects |= CODE_IN_CODE;
    }
    scan.finish().0
}

/// What may be done by code that is quoted within code, where it isn't read.
const CODE_IN_CODE: Effects = Effects::CODE
    .union(Effects::DYNAMIC)
    .union(Effects::DYNAMIC_SETTING);

struct Report<F>(F);

impl<F: FnMut(Found<'_>)> Visitor for Report<F> {
    fn identifier(&mut self, identifier: &Identifier<'_>) -> Effects {
        (self.0)(Found::Identifier(*identifier));
        Effects::NONE
    }

    fn setting(&mut self, name: &str) {
        (self.0)(Found::Setting(name));
    }
}

impl<V: Visitor> Scan<'_, V> {
    /// All of a body in PL/pgSQL.
    fn block(&mut self) {
        while let Some(step) = self.step() {
            let begins = self.previous.is(b';')
                || matches!(
                    self.previous.word,
                    Word::Begin | Word::Then | Word::Else | Word::Loop
                );
            match step.word {
                // The query of FOR, OPEN or RETURN QUERY can be computed, or an EXPLAIN of nearly anything.
                Word::Execute | Word::Explain => self.effects |= Effects::DYNAMIC,
                Word::Copy => self.effects |= Effects::SEQUENCE_WRITE,
                // Code in code isn't read. ON CONFLICT DO isn't followed by a string.
                Word::Do if self.peek().is_some_and(|next| is_string(next.token.kind)) => {
                    self.effects |= CODE_IN_CODE;
                }
                Word::Set
                | Word::Reset
                | Word::Discard
                | Word::Listen
                | Word::Unlisten
                | Word::Load
                | Word::Call
                | Word::Prepare
                | Word::Deallocate
                | Word::Create
                | Word::Alter
                | Word::Analyze
                | Word::Maintain
                | Word::Ddl
                    if begins =>
                {
                    self.begin();
                    self.statement(step);
                }
                _ => {}
            }
        }
    }
}

fn is_string(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::String | Kind::EscapeString | Kind::UnicodeString | Kind::DollarString
    )
}

#[cfg(test)]
mod tests;
