//! Whether a text leaves a transaction that only reads one that only reads.
//!
//! PostgreSQL itself refuses to write in such a transaction, and to make one that has read anything write again (`check_transaction_read_only`
//! in `variable.c`). What is left to be watched is how the next transaction begins: what says READ WRITE, what sets the two settings,
//! what commits in its midst (DO, CALL), and what comes behind the end of a transaction before anybody has seen how things are then.

use super::identifier::{Identifier, MAX_NAME_BYTES};
use super::lexer::{Kind, Lexer, Token};

/// The setting with which a session's transactions only read; the server reports it (PostgreSQL 14 and later).
pub const READ_ONLY: &str = "default_transaction_read_only";

/// The same of the transaction under way.
const THIS_READ_ONLY: &str = "transaction_read_only";

/// What statements begin with that a session may run which only reads. Those of them that may write, the server refuses.
const MAY_READ: [&[u8]; 24] = [
    b"close",
    b"copy",
    b"deallocate",
    b"declare",
    b"delete",
    b"execute",
    b"explain",
    b"fetch",
    b"insert",
    b"listen",
    b"lock",
    b"merge",
    b"move",
    b"notify",
    b"prepare",
    b"release",
    b"savepoint",
    b"select",
    b"show",
    b"table",
    b"unlisten",
    b"update",
    b"values",
    b"with",
];

/// What EXPLAIN may explain.
const EXPLAINED: [&[u8]; 9] = [
    b"declare", b"delete", b"insert", b"merge", b"select", b"table", b"update", b"values", b"with",
];

/// How the settings are set that leave things as they are.
const TRUE: [&[u8]; 4] = [b"on", b"true", b"yes", b"1"];

/// Why a session that only reads may not run a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReading {
    /// A statement in it isn't one that only reads, or can't be understood.
    Statement,
    /// It makes a transaction, or those that follow, write.
    ReadWrite,
    /// Something stands behind the end of a transaction.
    BehindEnd,
    /// It can't be told how the server reads it.
    Uncertain,
}

/// Whether a statement begins or ends cursors by their names, or isn't understood that far.
pub fn names_cursors(text: &[u8]) -> bool {
    let first = Lexer::new(text, true).find(|token| token.kind != Kind::Symbol(b';'));
    let Some(first) = first.filter(|first| first.kind == Kind::Word) else {
        return first.is_some_and(|first| first.kind != Kind::Symbol(b'('));
    };
    let word = text.get(first.start..first.end).unwrap_or_default();
    let mut words = [&b"close"[..], b"declare", b"discard"].into_iter();
    words.any(|known| word.eq_ignore_ascii_case(known))
}

/// Whether a session that only reads may run `text`, and if so, whether a transaction ends with it. It is judged however the server may
/// read strings.
pub fn reads_only(text: &[u8]) -> Result<bool, NotReading> {
    let ends = read(text, true)?;
    Ok(read(text, false)? || ends)
}

fn read(text: &[u8], standard_conforming_strings: bool) -> Result<bool, NotReading> {
    let mut tokens = Lexer::new(text, standard_conforming_strings).peekable();
    let mut ends = false;
    let mut statement = Vec::new();
    while tokens.peek().is_some() {
        statement.clear();
        let is_end = |token: &Token| token.kind == Kind::Symbol(b';');
        statement.extend(tokens.by_ref().take_while(|token| !is_end(token)));
        if statement.is_empty() {
            continue;
        }
        if ends {
            return Err(NotReading::BehindEnd);
        }
        ends = ends_transaction(&Statement {
            text,
            tokens: &statement,
        })?;
    }
    Ok(ends)
}

struct Statement<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
}

impl Statement<'_> {
    fn bytes(&self, token: &Token) -> &[u8] {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// Whether there is this word at that place.
    fn is(&self, place: usize, word: &[u8]) -> bool {
        let token = self.tokens.get(place).filter(|token| token.kind == Kind::Word);
        token.is_some_and(|token| self.bytes(token).eq_ignore_ascii_case(word))
    }

    fn is_any(&self, place: usize, words: &[&[u8]]) -> bool {
        words.iter().any(|word| self.is(place, word))
    }

    /// Whether there is this word behind the first.
    fn has(&self, word: &[u8]) -> bool {
        (1..self.tokens.len()).any(|place| self.is(place, word))
    }

    fn is_symbol(&self, place: usize, symbol: u8) -> bool {
        let token = self.tokens.get(place);
        token.is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    /// Whether what EXPLAIN at that place explains is something that only reads, or that the server would refuse. It doesn't refuse CREATE
    /// TABLE AS, SELECT INTO and REFRESH, nor EXECUTE of a SELECT INTO (`ExplainOneUtility`, PostgreSQL 15 to 18).
    fn explains_reading(&self, explain: usize) -> bool {
        let Some(inner) = self.explained(explain) else {
            return false;
        };
        if !self.is_symbol(inner, b'(') && !self.is_any(inner, &EXPLAINED) {
            return false;
        }
        // INTO is no name. Behind INSERT and MERGE it makes nothing, but these may be names: not at the beginning of a statement.
        (inner..self.tokens.len()).all(|place| {
            let begins = |verb: usize| verb == inner || verb > inner && self.is_symbol(verb - 1, b'(');
            !self.is(place, b"into")
                || place > inner && self.is_any(place - 1, &[b"insert", b"merge"]) && begins(place - 1)
        })
    }

    /// Where that begins.
    fn explained(&self, explain: usize) -> Option<usize> {
        let mut place = explain + 1;
        let is_query = self.is_symbol(place + 1, b'(')
            || self.is_any(place + 1, &[b"select", b"values", b"table", b"with"]);
        if self.is_symbol(place, b'(') && !is_query {
            let mut depth = 0;
            loop {
                depth += i32::from(self.is_symbol(place, b'(')) - i32::from(self.is_symbol(place, b')'));
                place += 1;
                if depth == 0 {
                    return Some(place);
                }
                self.tokens.get(place)?;
            }
        }
        while self.is_any(place, &[b"analyze", b"analyse", b"verbose"]) {
            place += 1;
        }
        Some(place)
    }

    /// Whether the setting at that place is one of the two; nothing if it can't be told.
    fn names_access(&self, place: usize) -> Option<bool> {
        let mut buffer = [0; MAX_NAME_BYTES];
        let token = self.tokens.get(place)?;
        let name = Identifier::of(self.text, token)?.fold(&mut buffer)?;
        let is_access = [READ_ONLY, THIS_READ_ONLY]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        Some(is_access)
    }

    /// Whether there is a value at that place, alone, which makes transactions read only.
    fn is_true(&self, place: usize) -> bool {
        let Some([token]) = self.tokens.get(place..) else {
            return false;
        };
        let written = self.bytes(token);
        let value = match token.kind {
            Kind::Word | Kind::Number => written,
            Kind::String | Kind::EscapeString => written
                .strip_prefix(b"'")
                .and_then(|rest| rest.strip_suffix(b"'"))
                .unwrap_or_default(),
            _ => return false,
        };
        TRUE.iter().any(|known| value.eq_ignore_ascii_case(known))
    }
}

/// Whether the statement ends a transaction, if it may be run.
fn ends_transaction(statement: &Statement<'_>) -> Result<bool, NotReading> {
    let is_parenthesis = |token: &&Token| token.kind == Kind::Symbol(b'(');
    let parentheses = statement.tokens.iter().take_while(is_parenthesis).count();
    if statement.is(0, b"prepare") && statement.is(1, b"transaction") {
        return Err(NotReading::Statement);
    }
    if statement.is(parentheses, b"explain") && !statement.explains_reading(parentheses) {
        return Err(NotReading::Statement);
    }
    if statement.is_any(parentheses, &MAY_READ) {
        return Ok(false);
    }
    if statement.is_any(0, &[b"begin", b"start"]) {
        return match statement.has(b"write") {
            true => Err(NotReading::ReadWrite),
            false => Ok(false),
        };
    }
    if statement.is_any(0, &[b"commit", b"end", b"rollback", b"abort"]) {
        return match statement.has(b"prepared") {
            true => Err(NotReading::Statement),
            false => Ok(!statement.has(b"to")),
        };
    }
    if statement.is(0, b"discard") {
        // DISCARD ALL commits at once (`PreventInTransactionBlock`).
        return Ok(true);
    }
    if statement.is(0, b"set") {
        return set(statement).map(|()| false);
    }
    if statement.is(0, b"reset") {
        return match statement.names_access(1) {
            Some(false) => Ok(false),
            Some(true) => Err(NotReading::ReadWrite),
            None => Err(NotReading::Statement),
        };
    }
    Err(NotReading::Statement)
}

fn set(statement: &Statement<'_>) -> Result<(), NotReading> {
    let place = if statement.is_any(1, &[b"local", b"session"]) {
        2
    } else {
        1
    };
    if statement.is_any(place, &[b"transaction", b"characteristics"]) {
        return match statement.has(b"write") {
            true => Err(NotReading::ReadWrite),
            false => Ok(()),
        };
    }
    match statement.names_access(place) {
        Some(false) => Ok(()),
        Some(true) if statement.is_true(place + 2) => Ok(()),
        Some(true) => Err(NotReading::ReadWrite),
        None => Err(NotReading::Statement),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reads_may_be_run() {
        for text in [
            "",
            ";;",
            "select 1; select 2;",
            "((select 1) union (select 2))",
            "with a as (select 1) table a",
            "BEGIN; select set_config('x', 'y', false)",
            "begin isolation level serializable read only deferrable",
            "set session characteristics as transaction read only",
            "set local work_mem = '1MB'; set time zone 'UTC'; set names 'utf8'",
            "set default_transaction_read_only = on",
            "SET SESSION \"Default_Transaction_Read_Only\" TO 'true'",
            "reset all; reset work_mem; reset transaction isolation level",
            "explain (analyze) insert into t select 1",
            "explain with a as (insert into t values (1) returning *) select refresh from a",
            "EXPLAIN ANALYZE VERBOSE merge into t using s on true when matched then delete",
            "explain ((select 1))",
            "explain (costs off, format json) table t",
            "prepare p as select 1; execute p; deallocate all",
            "rollback to savepoint a; select 1",
            "copy t to stdout",
            "select 'a;do $$begin end$$'",
        ] {
            assert_eq!(reads_only(text.as_bytes()), Ok(false), "{text}");
        }
        for text in [
            "commit",
            "end; ",
            "abort",
            "rollback and chain",
            "discard all",
            "begin; select 1; commit",
        ] {
            assert_eq!(reads_only(text.as_bytes()), Ok(true), "{text}");
        }
    }

    #[test]
    fn what_may_write_may_not() {
        use NotReading::{BehindEnd, ReadWrite, Statement};
        for (text, why) in [
            ("do $$begin end$$", Statement),
            ("call p()", Statement),
            ("select 1; call p()", Statement),
            ("vacuum", Statement),
            ("explain analyze create table t as select 1", Statement),
            ("explain (analyze, verbose) select 1 into t", Statement),
            (
                "EXPLAIN ANALYZE VERBOSE with a as (select 1) select * INTO/**/temp t from a",
                Statement,
            ),
            ("explain analyze refresh materialized view v", Statement),
            ("explain analyze execute p", Statement),
            ("explain (analyze) execute p(1)", Statement),
            ("explain analyze select 1 as insert into t", Statement),
            (
                "explain (analyze) select q.merge into t from (select 1 as merge) q",
                Statement,
            ),
            ("explain analyze select (insert) into t", Statement),
            ("explain (analyze", Statement),
            ("create temp table t()", Statement),
            ("load 'x'", Statement),
            ("prepare transaction 'a'", Statement),
            ("commit prepared 'a'", Statement),
            ("\"select\" 1", Statement),
            ("begin read write", ReadWrite),
            (
                "start transaction isolation level serializable, read/**/WRITE",
                ReadWrite,
            ),
            ("set transaction read write", ReadWrite),
            ("set session characteristics as transaction read write", ReadWrite),
            ("set transaction_read_only = off", ReadWrite),
            ("set local \"transaction_read_only\" to false", ReadWrite),
            ("SET Default_Transaction_Read_Only TO DEFAULT", ReadWrite),
            ("set default_transaction_read_only = on, off", ReadWrite),
            ("set default_transaction_read_only from current", ReadWrite),
            ("reset transaction_read_only", ReadWrite),
            ("reset default_transaction_read_only", ReadWrite),
            ("set U&\"transaction\\005fread_only\" = off", Statement),
            ("commit; insert into t values (1)", BehindEnd),
            ("discard all; select 1", BehindEnd),
            ("rollback; begin; select 1", BehindEnd),
            // With standard_conforming_strings off the string goes on.
            ("select 'a\\'; select 'b'; vacuum; --'", Statement),
            ("select 'a\\''; do $$ begin end $$; --'", Statement),
        ] {
            assert_eq!(reads_only(text.as_bytes()), Err(why), "{text}");
        }
    }
}
