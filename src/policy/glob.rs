//! Globs: the patterns in which rules name principals, targets, databases and users.
//!
//! `*` stands for any run of characters, including none and including `/` and `:`; `?` for exactly
//! one character; everything else, upper and lower case kept apart, for itself. There is no escape
//! character, because none of the names needs one: a literal `*` is matched by `?` or `*`.
//!
//! Names come from clients, patterns from the configuration. A match takes at most
//! pattern length × text length steps and no memory: only the latest `*` is ever reconsidered, so
//! patterns such as `*a*a*a*b` don't blow up.

use std::fmt;
use std::str::Chars;

/// A compiled pattern. Every text is a valid one; the empty pattern matches only the empty text.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: Box<str>,
    tokens: Box<[Token]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`
    Run,
    /// `?`
    One,
    Exactly(char),
}

impl Glob {
    /// Compiles `text`.
    pub fn new(text: &str) -> Self {
        let mut tokens: Vec<Token> = text
            .chars()
            .map(|c| match c {
                '*' => Token::Run,
                '?' => Token::One,
                c => Token::Exactly(c),
            })
            .collect();
        tokens.dedup_by(|a, b| *a == Token::Run && *b == Token::Run);
        Self {
            text: text.into(),
            tokens: tokens.into(),
        }
    }

    /// Whether it stands for more than one text.
    pub fn is_open(&self) -> bool {
        !self.tokens.iter().all(|token| matches!(token, Token::Exactly(_)))
    }

    /// Whether the pattern covers the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let mut pattern = &*self.tokens;
        let mut rest = text.chars();
        // Where to go on if what follows the latest `*` doesn't fit: what follows it, and the text
        // from which to try that again. An earlier `*` need not be tried again: whatever it could
        // give to a match, the latest one can take instead.
        let mut retry: Option<(&[Token], Chars<'_>)> = None;
        loop {
            match pattern {
                [] if rest.as_str().is_empty() => return true,
                [Token::Run] => return true,
                [Token::Run, after @ ..] => {
                    retry = Some((after, rest.clone()));
                    pattern = after;
                    continue;
                }
                [token, after @ ..] => match rest.next() {
                    Some(c) if token.accepts(c) => {
                        pattern = after;
                        continue;
                    }
                    Some(_) => {}
                    // Every other way leaves still less text for this pattern.
                    None => return false,
                },
                [] => {}
            }
            let Some((after, from)) = &mut retry else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            pattern = after;
            rest = from.clone();
        }
    }
}

impl Token {
    fn accepts(self, c: char) -> bool {
        match self {
            Self::Exactly(own) => own == c,
            Self::One | Self::Run => true,
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        let rows = [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("a", "a", true),
            ("a", "A", false),
            ("a", "aa", false),
            ("*", "", true),
            ("*", "a/b:c", true),
            ("**", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("?", "ab", false),
            ("??", "a", false),
            ("*?", "", false),
            ("*?", "a", true),
            ("?*", "abc", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab*", "aab", true),
            ("*aab", "aaab", true),
            ("a?c*e", "abcde", true),
            ("[a]", "a", false),
            ("\\*", "\\anything", true),
            ("scram:*", "scram:alice", true),
            ("scram:*", "trust:", false),
            ("trust:", "trust:", true),
            (
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_*/*",
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/a@example.com",
                true,
            ),
            (
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_*/*",
                "arn:aws:sts::999999999999:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/a@example.com",
                false,
            ),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn hostile_patterns_stay_cheap() {
        let pattern = "*a".repeat(500) + "b";
        let text = "a".repeat(10_000);
        assert!(!Glob::new(&pattern).matches(&text));
    }

    #[test]
    fn shows_the_pattern_as_written() {
        assert_eq!(Glob::new("a**?").to_string(), "a**?");
    }

    /// The definition, without regard to cost.
    fn defined(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', after)), None) => defined(after, text),
            (Some(('*', after)), Some((_, rest))) => defined(after, text) || defined(pattern, rest),
            (Some(('?', after)), Some((_, rest))) => defined(after, rest),
            (Some((p, after)), Some((t, rest))) => p == t && defined(after, rest),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
            let p: Vec<char> = pattern.chars().collect();
            let t: Vec<char> = text.chars().collect();
            prop_assert_eq!(Glob::new(&pattern).matches(&text), defined(&p, &t));
        }
    }
}
