//! Statements of a text, told apart by their first words, and what running all of them may leave behind.
//!
//! A statement is taken for harmless only if its first word says so *and* no name in it has an effect. Where a word
//! could be a keyword or a name, it is taken for what has the greater effect.

use std::ops::Range;

use super::effects::Effects;
use super::identifier::Identifier;
use super::lexer::Kind;
use super::scan::{Scan, Step, Visitor};
use super::words::Word;

/// How the server will read the text.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The session's value of that setting; it is reported by the server.
    pub standard_conforming_strings: bool,
}

/// What is known of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// What running it may leave behind, all statements together.
    pub effects: Effects,
    /// As much of that as is done by what it names.
    pub by_names: Effects,
    /// How many statements there are that aren't empty.
    pub statements: u32,
    /// The statement, if it is the only one and understood.
    pub lone: Command,
}

/// A statement that a caller may want to act on. Ranges are places in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// No statement at all.
    Empty,
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT or END, without AND CHAIN.
    Commit,
    /// ROLLBACK or ABORT, without AND CHAIN; not to a savepoint.
    Rollback,
    /// SET name TO or = value, except DEFAULT; other forms of SET are [`Command::Other`].
    Set {
        /// SET LOCAL.
        local: bool,
        /// The name, for [`setting_name`](super::setting_name).
        name: Range<usize>,
    },
    /// RESET name, or SET name TO DEFAULT.
    Reset {
        /// The name, for [`setting_name`](super::setting_name).
        name: Range<usize>,
    },
    /// RESET ALL.
    ResetAll,
    /// PREPARE of a statement (not of a transaction).
    Prepare {
        /// The name, for [`Identifier::parse`].
        name: Range<usize>,
    },
    /// EXECUTE.
    Execute {
        /// The name, for [`Identifier::parse`].
        name: Range<usize>,
    },
    /// DEALLOCATE of one statement.
    Deallocate {
        /// The name, for [`Identifier::parse`].
        name: Range<usize>,
    },
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// DISCARD.
    Discard(Discarded),
    /// COPY FROM.
    CopyFrom,
    /// CREATE TEMP or TEMPORARY.
    CreateTemporary,
    /// CREATE FUNCTION or PROCEDURE.
    CreateRoutine {
        /// The name without its schema, for [`Identifier::parse`].
        name: Range<usize>,
    },
    /// Anything else, or several statements, or a text that isn't understood.
    Other,
}

/// What is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// All of the session's state.
    All,
    /// Cached plans.
    Plans,
    /// What the session remembers of sequences.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// What stands ahead of the tables of ANALYZE, VACUUM, CLUSTER and REINDEX.
const MAINTENANCE: [&str; 8] = [
    "analyse",
    "analyze",
    "concurrently",
    "freeze",
    "full",
    "only",
    "table",
    "verbose",
];

/// Behind these, REINDEX names something else than tables.
const ELSEWHERE: [&str; 4] = ["database", "index", "schema", "system"];

/// Reads `text` and says what running it may leave behind.
///
/// `lookup` is asked for every name in the text that could be a routine or a relation, and says what using it may
/// do. Built-in routines needn't be known to it.
pub fn analyse(text: &[u8], options: Options, lookup: impl Fn(&Identifier<'_>) -> Effects) -> Analysis {
    let mut scan = Scan::new(text, options.standard_conforming_strings, Lookup(lookup));
    let (statements, mut lone) = scan.statements(|_| {});
    let (effects, by_names) = scan.finish();
    if statements > 1 || effects.contains(Effects::UNKNOWN) {
        lone = Command::Other;
    }
    Analysis {
        effects,
        by_names,
        statements,
        lone,
    }
}

/// The statements of `text`, each with the semicolon behind it.
pub fn split(text: &[u8], options: Options) -> Vec<&[u8]> {
    let mut scan = Scan::new(
        text,
        options.standard_conforming_strings,
        Lookup(|_: &Identifier<'_>| Effects::NONE),
    );
    let mut begins = Vec::new();
    scan.statements(|begin| begins.push(begin));
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    let statements = begins.iter().zip(ends);
    statements
        .filter_map(|(begin, end)| text.get(*begin..end))
        .collect()
}

struct Lookup<L>(L);

impl<L: Fn(&Identifier<'_>) -> Effects> Visitor for Lookup<L> {
    fn identifier(&mut self, identifier: &Identifier<'_>) -> Effects {
        (self.0)(identifier)
    }

    fn setting(&mut self, _: &str) {}
}

impl<V: Visitor> Scan<'_, V> {
    /// Walks over all statements, and tells where each begins. The answer is their number and what the last one is.
    pub(super) fn statements(&mut self, mut begins: impl FnMut(usize)) -> (u32, Command) {
        let mut statements: u32 = 0;
        let mut last = Command::Empty;
        loop {
            let within = self.within_statement();
            let Some(step) = self.step() else { break };
            if step.is(b';') {
                continue;
            }
            if within {
                // In the body of a routine or rule. Should it in truth stand outside, its effects are seen here.
                self.statement(step);
                continue;
            }
            begins(step.token.start);
            self.begin();
            statements = statements.saturating_add(1);
            last = self.statement(step);
        }
        (statements, last)
    }

    /// Walks over one statement, to its semicolon or to the end. `first` is the current step.
    pub(super) fn statement(&mut self, mut first: Step) -> Command {
        let mut outermost = None;
        // Some contain another one. A loop, because EXPLAIN EXPLAIN EXPLAIN ... is no reason to run out of stack.
        loop {
            let inner = match first.word {
                // The body of a routine on its own.
                Word::Begin if self.peek().is_some_and(|next| next.word == Word::Atomic) => {
                    self.step();
                    self.step()
                }
                Word::Explain => {
                    outermost.get_or_insert(Command::Other);
                    self.explained()
                }
                Word::Prepare => {
                    let (command, inner) = self.prepare();
                    outermost.get_or_insert(command);
                    inner
                }
                _ => {
                    let command = self.simple_statement(&first);
                    return outermost.unwrap_or(command);
                }
            };
            match inner {
                Some(step) => first = step,
                None => return outermost.unwrap_or(Command::Other),
            }
        }
    }

    /// A statement that doesn't contain another one.
    fn simple_statement(&mut self, first: &Step) -> Command {
        match first.word {
            Word::Select | Word::Values | Word::Table | Word::With | Word::Insert | Word::Merge => {
                self.rest(first)
            }
            Word::Update | Word::Delete | Word::Harmless => self.rest(first),
            Word::Analyze | Word::Maintain => self.maintenance(first),
            Word::Copy | Word::Declare | Word::Create | Word::Ddl => self.rest(first),
            Word::Alter => {
                let alters_system = self.peek().is_some_and(|next| next.word == Word::System);
                if !alters_system {
                    self.effects |= Effects::DDL;
                }
                self.skip();
                Command::Other
            }
            Word::Set => self.set(),
            Word::Reset => self.reset(),
            Word::Discard => self.discard(),
            Word::Begin => self.with(Effects::NONE, Command::Begin),
            Word::Commit | Word::End => self.ends_transaction(Command::Commit),
            Word::Rollback => self.ends_transaction(Command::Rollback),
            Word::Execute => self.execute(),
            Word::Deallocate => self.deallocate(),
            Word::Listen => self.with(Effects::LISTEN, Command::Other),
            Word::Unlisten | Word::Close => self.with(Effects::ENDS, Command::Other),
            Word::Load => self.with(Effects::LASTING, Command::Other),
            Word::Do | Word::Call => self.with(Effects::CODE, Command::Other),
            _ if first.is(b'(') => self.rest(first),
            _ => self.with(Effects::UNKNOWN, Command::Other),
        }
    }

    /// ANALYZE, VACUUM, CLUSTER or REINDEX: of the tables that they name, which are known, or of all.
    fn maintenance(&mut self, first: &Step) -> Command {
        let is_among = |word: &[u8], words: &[&str]| {
            let mut words = words.iter();
            words.any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
        };
        let reindexes = is_among(self.bytes(&first.token), &["reindex"]);
        let mut names_table = false;
        while let Some(step) = self.step() {
            if step.is(b';') {
                break;
            }
            let word = self.bytes(&step.token);
            let is_word = step.token.kind == Kind::Word;
            if self.depth > 0 || is_word && is_among(word, &MAINTENANCE) {
                continue;
            }
            if is_word || step.token.kind == Kind::Quoted {
                names_table = !(reindexes && is_word && is_among(word, &ELSEWHERE));
                break;
            }
        }
        self.skip();
        if !names_table {
            self.effects |= Effects::UNKNOWN | Effects::MAINTAINS;
        }
        Command::Other
    }

    fn with(&mut self, effects: Effects, command: Command) -> Command {
        self.effects |= effects;
        self.skip();
        command
    }

    /// Everything behind a first word that is understood.
    fn rest(&mut self, first: &Step) -> Command {
        if matches!(first.word, Word::Create | Word::Ddl) {
            self.effects |= Effects::DDL;
        }
        self.names_new = first.word == Word::Create && self.is_before_routine();
        // INTO makes SELECT create a table; behind INSERT or MERGE it doesn't. But `SELECT insert INTO t` is
        // possible, `insert` being a column: it must be where only a statement can be.
        let mut inserts = matches!(first.word, Word::Insert | Word::Merge);
        let mut main_verb_seen = first.word != Word::With;
        let is_temporary =
            first.word == Word::Create && self.peek().is_some_and(|next| next.word == Word::Temp);
        let (mut routine, mut copies) = (None, false);
        while let Some(step) = self.step() {
            if self.names_new
                && matches!(
                    step.token.kind,
                    Kind::Word | Kind::Quoted | Kind::EscapedIdentifier
                )
            {
                routine = Some(step.token.start..step.token.end);
            }
            let in_main = self.depth == 0 && self.previous.is(b')');
            match step.word {
                Word::Insert | Word::Merge => {
                    inserts = self.previous.is(b'(') || in_main && !main_verb_seen;
                    main_verb_seen |= in_main;
                    continue;
                }
                Word::Select | Word::Values | Word::Table | Word::Update | Word::Delete => {
                    main_verb_seen |= in_main;
                }
                Word::Into if !inserts => self.effects |= Effects::DDL,
                // CREATE TABLE t AS EXECUTE p.
                Word::Execute if self.previous.word == Word::As => self.effects |= Effects::PREPARED,
                Word::From if first.word == Word::Copy && self.depth == 0 => {
                    self.effects |= Effects::SEQUENCE_WRITE;
                    copies = true;
                }
                _ if step.is(b';') => break,
                _ => {}
            }
            inserts = false;
        }
        match routine {
            Some(name) => {
                self.creates_routine = true;
                Command::CreateRoutine { name }
            }
            None if is_temporary => Command::CreateTemporary,
            None if copies => Command::CopyFrom,
            None => Command::Other,
        }
    }

    /// Goes from EXPLAIN to the first word of what is explained.
    fn explained(&mut self) -> Option<Step> {
        let mut step = self.step()?;
        if step.is(b'(') {
            // Options, or a query in parentheses.
            let inner = self.peek()?;
            let query = matches!(inner.word, Word::Select | Word::Values | Word::Table | Word::With);
            if query || inner.is(b'(') {
                return Some(step);
            }
            let outside = self.depth - 1;
            while self.depth > outside {
                step = self.step()?;
                if step.is(b';') {
                    return None;
                }
            }
            step = self.step()?;
        }
        while matches!(step.word, Word::Analyze | Word::Verbose) {
            step = self.step()?;
        }
        (!step.is(b';')).then_some(step)
    }

    /// PREPARE TRANSACTION, or PREPARE to the first word of what is prepared.
    fn prepare(&mut self) -> (Command, Option<Step>) {
        let Some(name) = self.step() else {
            return (self.with(Effects::UNKNOWN, Command::Other), None);
        };
        if name.word == Word::Transaction
            && self
                .peek()
                .is_some_and(|next| !next.is(b'(') && next.word != Word::As)
        {
            return (self.with(Effects::ENDS_TRANSACTION, Command::Other), None);
        }
        self.effects |= Effects::PREPARED;
        let command = match self.name_of(name) {
            Some(name) => Command::Prepare { name },
            None => Command::Other,
        };
        while let Some(step) = self.step() {
            if step.is(b';') {
                break;
            }
            if step.word == Word::As && self.depth == 0 {
                return (command, self.step().filter(|step| !step.is(b';')));
            }
        }
        (Command::Other, None)
    }

    fn execute(&mut self) -> Command {
        self.effects |= Effects::PREPARED;
        let name = self.step().and_then(|step| self.name_of(step));
        self.skip();
        name.map_or(Command::Other, |name| Command::Execute { name })
    }

    fn deallocate(&mut self) -> Command {
        self.effects |= Effects::DEALLOCATE | Effects::ENDS;
        let mut step = self.step();
        let more = self.peek().is_some_and(|next| !next.is(b';'));
        if more && step.is_some_and(|step| step.word == Word::Prepare) {
            step = self.step();
        }
        let all = step.is_some_and(|step| step.word == Word::All);
        let name = step.and_then(|step| self.name_of(step));
        self.skip();
        match name {
            _ if all => Command::DeallocateAll,
            Some(name) => Command::Deallocate { name },
            None => Command::Other,
        }
    }

    fn name_of(&self, step: Step) -> Option<Range<usize>> {
        let is_name = matches!(step.token.kind, Kind::Word | Kind::Quoted);
        is_name.then_some(step.token.start..step.token.end)
    }

    fn discard(&mut self) -> Command {
        let step = self.step();
        let (what, effects) = match step.map(|step| step.word) {
            Some(Word::Plans) => (Discarded::Plans, Effects::NONE),
            Some(Word::Sequences) => (Discarded::Sequences, Effects::DISCARD),
            Some(Word::Temp) => (Discarded::Temp, Effects::DISCARD | Effects::ENDS),
            // ALL, or an error.
            _ => (
                Discarded::All,
                Effects::DISCARD
                    | Effects::ENDS
                    | Effects::SETTING
                    | Effects::DECIDING
                    | Effects::RESET
                    | Effects::DEALLOCATE,
            ),
        };
        self.with(effects, Command::Discard(what))
    }

    /// COMMIT and ROLLBACK in their plain forms.
    fn ends_transaction(&mut self, plain: Command) -> Command {
        self.effects |= Effects::ENDS_TRANSACTION;
        let mut command = plain;
        while let Some(step) = self.step() {
            if step.is(b';') {
                break;
            }
            if !matches!(step.word, Word::Work | Word::Transaction) {
                command = Command::Other;
            }
        }
        command
    }
}

#[cfg(test)]
mod tests;
