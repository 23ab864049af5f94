//! SET, RESET and `set_config`: which setting, and whether for longer than the transaction.

use std::ops::Range;

use super::effects::Effects;
use super::identifier::{Identifier, MAX_NAME_BYTES};
use super::lexer::{Kind, Lexer, Token};
use super::scan::{Scan, Step, Visitor};
use super::statement::Command;
use super::words::Word;

/// The name of a setting as SET has it (`a`, `"A"`, `a . b`), in lower case: settings are compared without regard to case,
/// even in quotes. `None` if it is no such name, or can't be told.
pub fn setting_name(written: &[u8]) -> Option<String> {
    let mut name = String::new();
    for (index, token) in Lexer::new(written, true).enumerate() {
        if index % 2 == 1 {
            if token.kind != Kind::Symbol(b'.') {
                return None;
            }
            name.push('.');
            continue;
        }
        let mut buffer = [0; MAX_NAME_BYTES];
        let part = Identifier::of(written, &token)?
            .fold(&mut buffer)?
            .to_ascii_lowercase();
        name.push_str(str::from_utf8(&part).ok()?);
    }
    (!name.is_empty() && !name.ends_with('.')).then_some(name)
}

/// Parameters that decide what a text or a constant in it means when it is parsed, and that the server reports (documentation,
/// "Client Connection Defaults", "String Constants"). A statement that is prepared keeps that.
pub const DECIDING_REPORTED: [&str; 5] = [
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
];

/// The same that it doesn't report (documentation, "Version and Platform Compatibility", "Statement Behavior", "Locale and
/// Formatting").
pub const DECIDING_UNREPORTED: [&str; 6] = [
    "array_nulls",
    "backslash_quote",
    "lc_monetary",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Whether `text` contains the name of a setting that decides about constants, in whatever place: a function may be defined to set it.
pub fn names_deciding(text: &[u8]) -> bool {
    let names = DECIDING_REPORTED
        .iter()
        .chain(&DECIDING_UNREPORTED)
        .chain(&["time zone"]);
    let mut names = names.map(|name| name.as_bytes());
    names.any(|name| {
        text.windows(name.len())
            .any(|part| part.eq_ignore_ascii_case(name))
    })
}

/// Settings that decide where the words of a text begin and end.
const DECIDING_WORDS: [&str; 3] = [
    "backslash_quote",
    "client_encoding",
    "standard_conforming_strings",
];

/// How setting this decides how texts are read.
fn decides(name: &str) -> Effects {
    let is_among = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let rules = [
        (is_among(&DECIDING_REPORTED), Effects::DECIDES),
        (
            is_among(&DECIDING_UNREPORTED),
            Effects::DECIDES | Effects::DECIDES_UNREPORTED,
        ),
        (is_among(&DECIDING_WORDS), Effects::DECIDES_WORDS),
    ];
    let applying = rules.into_iter().filter(|(applies, _)| *applies);
    applying.fold(Effects::NONE, |all, (_, effects)| all | effects)
}

/// Parameters that a session can set and that not everybody is shown (`GUC_SUPERUSER_ONLY` in `guc_tables.c`, PostgreSQL 18; `extension_destdir` is Debian's): who
/// has set one is in nobody's place.
const HIDDEN: [&str; 4] = [
    "dynamic_library_path",
    "extension_control_path",
    "extension_destdir",
    "session_preload_libraries",
];

/// Whether the server doesn't tell everybody what this is set to.
pub(super) fn is_hidden(name: &str) -> bool {
    HIDDEN.iter().any(|hidden| hidden.eq_ignore_ascii_case(name))
}

/// Whether setting this seeds `random()`.
pub(super) fn is_seed(name: &str) -> bool {
    name.eq_ignore_ascii_case("seed")
}

/// A call of `set_config`, as far as its arguments are plain.
pub(super) struct Call<'a> {
    /// The setting, if it is given literally.
    pub(super) name: Option<&'a str>,
    /// Whether the value is literally `NULL`, which stands for the default.
    pub(super) resets: bool,
    /// Whether the third argument is literally `true`.
    pub(super) local: bool,
}

impl<'a> Call<'a> {
    /// How many tokens are looked at. Calls may be nested in the arguments of calls, so that without a limit
    /// the time for a text would be quadratic.
    const MAX_TOKENS: usize = 64;

    /// Reads the arguments behind the word `set_config`.
    pub(super) fn read(lexer: Lexer<'a>) -> Self {
        let text = lexer.text();
        let mut call = Self {
            name: None,
            resets: false,
            local: false,
        };
        let mut tokens = lexer.take(Self::MAX_TOKENS);
        if tokens.next().map(|token| token.kind) != Some(Kind::Symbol(b'(')) {
            return call;
        }
        let (mut depth, mut argument, mut length) = (1, 1, 0);
        let mut last = None;
        for token in tokens {
            match token.kind {
                Kind::Symbol(b'(' | b'[') => depth += 1,
                Kind::Symbol(b')' | b']') => depth -= 1,
                Kind::Junk | Kind::Unterminated => return call,
                _ => {}
            }
            if depth == 0 || depth == 1 && token.kind == Kind::Symbol(b',') {
                let last = last.filter(|_| length == 1);
                match argument {
                    1 => call.name = last.and_then(|token| literal(text, &token)),
                    2 => call.resets = last.is_some_and(|token| is_word(text, &token, b"null")),
                    3 => call.local = depth == 0 && last.is_some_and(|token| is_word(text, &token, b"true")),
                    _ => {}
                }
                (argument, length) = (argument + 1, 0);
            } else {
                length += 1;
                last = Some(token);
            }
            if depth == 0 {
                // With fewer or more arguments it is another function, or an error.
                call.local &= argument == 4;
                return call;
            }
        }
        call.local = false;
        call
    }
}

/// The value of a string that stands for itself.
fn literal<'a>(text: &'a [u8], token: &Token) -> Option<&'a str> {
    let before = match token.kind {
        Kind::String => 1,
        Kind::EscapeString if text.get(token.start) == Some(&b'\'') => 1,
        Kind::EscapeString => 2,
        _ => return None,
    };
    let value = text.get(token.start + before..token.end.checked_sub(1)?)?;
    if value.contains(&b'\'') || value.contains(&b'\\') {
        return None;
    }
    str::from_utf8(value).ok()
}

fn is_word(text: &[u8], token: &Token, word: &[u8]) -> bool {
    let written = text.get(token.start..token.end).unwrap_or_default();
    token.kind == Kind::Word && written.eq_ignore_ascii_case(word)
}

impl<V: Visitor> Scan<'_, V> {
    /// A statement from its word SET on.
    pub(super) fn set(&mut self) -> Command {
        let mut step = self.step();
        let mut local = false;
        let mut scoped = false;
        if let Some(Step {
            word: word @ (Word::Local | Word::Session),
            ..
        }) = step
            && !self.is_name_of_setting()
        {
            local = word == Word::Local;
            scoped = true;
            step = self.step();
        }
        let Some(step) = step else { return Command::Other };
        let transactional = step.word == Word::Transaction || step.word == Word::Constraints && !scoped;
        if transactional && !self.is_name_of_setting() {
            self.skip();
            return Command::Other;
        }
        let name = self.dotted_name();
        let written = self.text.get(name.clone()).unwrap_or_default();
        let assigns = self
            .peek()
            .is_some_and(|next| next.is(b'=') || next.word == Word::To);
        let known = if assigns {
            setting_name(written)
        } else {
            other_form(written)
        };
        if known.as_deref().is_some_and(is_seed) {
            self.effects |= Effects::SEED;
        }
        self.decides(known.as_deref());
        if local {
            self.effects |= Effects::LOCAL;
        } else {
            self.effects |= Effects::SETTING;
            self.sets(known.as_deref());
        }
        let resets = self.skips_default(assigns);
        if resets {
            self.effects |= Effects::RESET;
        }
        match (assigns && known.is_some(), resets) {
            (true, false) => Command::Set { local, name },
            (true, true) if !local => Command::Reset { name },
            _ => Command::Other,
        }
    }

    /// Goes to the end of a SET. Whether the value is DEFAULT, or the LOCAL of SET TIME ZONE LOCAL, which
    /// means the same.
    fn skips_default(&mut self, assigns: bool) -> bool {
        let mut resets = false;
        while !self.current.is(b';')
            && let Some(step) = self.step()
        {
            resets |= step.word == Word::Default || step.word == Word::Local && !assigns;
        }
        resets
    }

    /// A statement from its word RESET on.
    pub(super) fn reset(&mut self) -> Command {
        self.effects |= Effects::SETTING | Effects::RESET;
        let Some(step) = self.step() else {
            return Command::Other;
        };
        let name = self.dotted_name();
        let ends = self.peek().is_none_or(|next| next.is(b';'));
        let written = self.text.get(name.clone()).unwrap_or_default();
        let known = match step.word {
            Word::All => None,
            _ if ends => setting_name(written),
            _ => other_form(written),
        };
        self.decides(known.as_deref());
        // RESET ALL sets nothing: it needs no name.
        if step.word != Word::All || !ends {
            self.sets(known.as_deref());
        }
        self.skip();
        match step.word {
            Word::All if ends => Command::ResetAll,
            _ if ends && known.is_some() => Command::Reset { name },
            _ => Command::Other,
        }
    }

    /// A setting is given another value, perhaps for the transaction only.
    pub(super) fn decides(&mut self, name: Option<&str>) {
        self.effects |= name.map_or(Effects::DECIDING, decides);
    }

    /// Whether the current word is a setting's name (or its beginning) rather than the keyword that it seems to be:
    /// `SET local.x = 1`, `SET session TO 1`.
    fn is_name_of_setting(&self) -> bool {
        self.peek()
            .is_some_and(|next| next.is(b'=') || next.is(b'.') || next.word == Word::To)
    }

    /// Goes to the last part of the name that begins with the current step.
    fn dotted_name(&mut self) -> Range<usize> {
        let start = self.current.token.start;
        while self.peek().is_some_and(|next| next.is(b'.')) {
            self.step();
            self.step();
        }
        start..self.current.token.end
    }
}

/// The setting that is meant by a form of SET without `TO`, by its first word behind SET or SET SESSION.
fn other_form(written: &[u8]) -> Option<String> {
    let name = match written.to_ascii_lowercase().as_slice() {
        b"authorization" => "session_authorization",
        // One of three; none of them is asked for by its name.
        b"characteristics" => "default_transaction_isolation",
        b"names" => "client_encoding",
        b"role" => "role",
        b"schema" => "search_path",
        b"time" => "timezone",
        b"xml" => "xmloption",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_settings_are_in_lower_case() {
        for (written, expected) in [
            ("Work_Mem", Some("work_mem")),
            ("\"Work_Mem\"", Some("work_mem")),
            ("a . /* */ \"B c\"", Some("a.b c")),
            ("a.b.c", Some("a.b.c")),
            ("a.", None),
            (".a", None),
            ("a b", None),
            ("a.1", None),
            ("U&\"a\"", None),
            ("", None),
        ] {
            assert_eq!(setting_name(written.as_bytes()).as_deref(), expected, "{written}");
        }
    }
}
