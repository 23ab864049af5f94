//! Walks over a text token by token and gathers the effects of every name on the way.
//!
//! Whoever drives it ([`statement`](super::statement) for SQL, [`routine`](super::routine) for PL/pgSQL) decides what the
//! tokens mean; no token is passed without its name having been looked up.

use super::effects::Effects;
use super::identifier::Identifier;
use super::lexer::{Kind, Lexer, Token};
use super::setting;
use super::words::{self, Word};

/// Who is told what is found.
pub(super) trait Visitor {
    /// A name; the answer is what using it may do.
    fn identifier(&mut self, identifier: &Identifier<'_>) -> Effects;

    /// A setting, by the name that it is set or reset by for the session.
    fn setting(&mut self, name: &str);
}

/// A token and what is known of it if it is a keyword.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) token: Token,
    pub(super) word: Word,
}

impl Step {
    pub(super) const fn is(&self, symbol: u8) -> bool {
        matches!(self.token.kind, Kind::Symbol(this) if this == symbol)
    }
}

pub(super) struct Scan<'a, V> {
    pub(super) text: &'a [u8],
    lexer: Lexer<'a>,
    pub(super) visitor: V,
    pub(super) effects: Effects,
    /// Where it stands; at first, on the end of a statement before the text.
    pub(super) current: Step,
    /// The step before that one.
    pub(super) previous: Step,
    before: Step,
    /// Open parentheses.
    pub(super) depth: usize,
    /// `BEGIN ATOMIC` and each `CASE` in it that hasn't come to its `END`.
    atomic: usize,
    /// Whether this is a CREATE, the only statement that can have semicolons within.
    creates: bool,
    /// Between `CREATE FUNCTION` and the arguments: what stands here is the name of something new, which isn't run.
    pub(super) names_new: bool,
    /// There is a CREATE FUNCTION.
    pub(super) creates_routine: bool,
    /// What is done by what the text names.
    by_names: Effects,
    updates: bool,
    names_pg_settings: bool,
    names_default: bool,
}

impl<'a, V: Visitor> Scan<'a, V> {
    pub(super) fn new(text: &'a [u8], standard_conforming_strings: bool, visitor: V) -> Self {
        let before = Step {
            token: Token {
                kind: Kind::Symbol(b';'),
                start: 0,
                end: 0,
            },
            word: Word::Other,
        };
        Self {
            text,
            lexer: Lexer::new(text, standard_conforming_strings),
            visitor,
            effects: Effects::NONE,
            current: before,
            previous: before,
            before,
            depth: 0,
            atomic: 0,
            creates: false,
            names_new: false,
            creates_routine: false,
            by_names: Effects::NONE,
            updates: false,
            names_pg_settings: false,
            names_default: false,
        }
    }

    /// Begins a statement with the current step.
    pub(super) fn begin(&mut self) {
        self.depth = usize::from(self.current.is(b'('));
        self.atomic = 0;
        self.creates = self.current.word == Word::Create;
        self.names_new = false;
    }

    /// Whether a semicolon here would be one within a statement.
    pub(super) fn within_statement(&self) -> bool {
        self.creates && (self.depth > 0 || self.atomic > 0)
    }

    /// Whether `[OR REPLACE] FUNCTION` or `PROCEDURE` comes next.
    pub(super) fn is_before_routine(&self) -> bool {
        let mut words = self.lexer.clone().map(|token| match token.kind {
            Kind::Word => self.bytes(&token),
            _ => &[],
        });
        let is = |word: Option<&[u8]>, text: &str| {
            word.is_some_and(|word| word.eq_ignore_ascii_case(text.as_bytes()))
        };
        let mut word = words.next();
        if is(word, "or") && is(words.next(), "replace") {
            word = words.next();
        }
        is(word, "function") || is(word, "procedure")
    }

    /// What comes next, without going there.
    pub(super) fn peek(&self) -> Option<Step> {
        let token = self.lexer.clone().next()?;
        let word = match token.kind {
            Kind::Word => words::find(self.bytes(&token)).word,
            _ => Word::Other,
        };
        Some(Step { token, word })
    }

    /// Goes to the next token.
    pub(super) fn step(&mut self) -> Option<Step> {
        let token = self.lexer.next()?;
        self.before = self.previous;
        self.previous = self.current;
        let mut step = Step {
            token,
            word: Word::Other,
        };
        match token.kind {
            Kind::Word => step.word = self.name(&token),
            Kind::Quoted => {
                self.name(&token);
            }
            Kind::Symbol(b'(') => {
                self.depth += 1;
                self.names_new = false;
            }
            Kind::Symbol(b';') => {
                self.names_new = false;
                if !self.within_statement() {
                    self.end();
                }
            }
            Kind::Symbol(b')') => self.depth = self.depth.saturating_sub(1),
            // It may be the name of anything.
            Kind::EscapedIdentifier => self.effects |= Effects::UNKNOWN | Effects::DYNAMIC_SETTING,
            Kind::Junk | Kind::Unterminated => self.effects |= Effects::UNKNOWN,
            _ => {}
        }
        self.current = step;
        Some(step)
    }

    /// Goes to the next semicolon, or to the end.
    pub(super) fn skip(&mut self) {
        while !self.current.is(b';') && self.step().is_some() {}
    }

    /// A statement has ended: what several words in it mean together.
    fn end(&mut self) {
        if self.updates && self.names_pg_settings {
            self.effects |= Effects::SETTING | Effects::DYNAMIC_SETTING;
        }
        // UPDATE t SET id = DEFAULT.
        if self.updates && self.names_default {
            self.effects |= Effects::SEQUENCE_WRITE;
        }
        (self.updates, self.names_pg_settings, self.names_default) = (false, false, false);
    }

    /// All effects, when the text has been walked over, and those of what it names.
    pub(super) fn finish(mut self) -> (Effects, Effects) {
        self.end();
        let mut effects = self.effects;
        if effects.intersects(Effects::PROBE) {
            effects |= Effects::SEQUENCE_WRITE;
        }
        (effects, self.by_names)
    }

    pub(super) fn bytes(&self, token: &Token) -> &'a [u8] {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// Whether UPDATE here would be the last word of FOR [NO KEY] UPDATE.
    fn locks_rows(&self) -> bool {
        let is = |step: &Step, word: &[u8]| self.bytes(&step.token).eq_ignore_ascii_case(word);
        is(&self.previous, b"for") || is(&self.previous, b"key") && is(&self.before, b"no")
    }

    /// A word or a quoted identifier. The answer is which keyword it may be.
    fn name(&mut self, token: &Token) -> Word {
        let Some(identifier) = Identifier::of(self.text, token) else {
            return Word::Other;
        };
        let entry = words::find(identifier.written());
        self.effects |= entry.effects;
        self.by_names |= entry.effects;
        match entry.word {
            Word::SetConfig => self.set_config(),
            Word::PgSettings => {
                self.names_pg_settings = true;
                // Whoever updates what is made of it sets.
                self.by_names |= Effects::SETTING | Effects::DYNAMIC_SETTING;
            }
            Word::Update => self.updates |= !self.locks_rows(),
            Word::Default => self.names_default = true,
            _ => {}
        }
        let may_be_keyword = !identifier.is_quoted() && !self.previous.is(b'.');
        if may_be_keyword {
            self.keyword(entry.word);
        }
        let begins_statement = self.previous.is(b';') && entry.word != Word::Other;
        let is_keyword = may_be_keyword && (entry.reserved || begins_statement);
        if !is_keyword && !self.names_new {
            let effects = self.visitor.identifier(&identifier);
            self.effects |= effects;
            self.by_names |= effects;
        }
        if may_be_keyword { entry.word } else { Word::Other }
    }

    fn keyword(&mut self, word: Word) {
        match (self.previous.word, word) {
            (Word::With, Word::Hold) => self.effects |= Effects::CURSOR,
            (Word::Create | Word::Replace | Word::Local | Word::Global | Word::Into, Word::Temp) => {
                self.effects |= Effects::TEMPORARY;
            }
            (Word::Begin, Word::Atomic) if self.creates => self.atomic += 1,
            (_, Word::Case) if self.atomic > 0 => self.atomic += 1,
            (_, Word::End) => self.atomic = self.atomic.saturating_sub(1),
            _ => {}
        }
    }

    fn set_config(&mut self) {
        let call = setting::Call::read(self.lexer.clone());
        self.decides(call.name);
        if call.local {
            self.effects |= Effects::LOCAL;
            if call.name.is_none() {
                self.effects |= Effects::DYNAMIC_SETTING;
            }
        } else {
            self.effects |= Effects::SETTING;
            self.sets(call.name);
        }
        if call.resets {
            self.effects |= Effects::RESET;
        }
        if call.name.is_some_and(setting::is_seed) {
            self.effects |= Effects::SEED;
        }
    }

    /// A setting is given another value for the session.
    pub(super) fn sets(&mut self, name: Option<&str>) {
        match name {
            Some(name) if !setting::is_hidden(name) => self.visitor.setting(name),
            _ => self.effects |= Effects::DYNAMIC_SETTING,
        }
    }
}
