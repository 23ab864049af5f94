//! Tokens of SQL, cut as PostgreSQL's own scanner does (`src/backend/parser/scan.l`, versions 13 to 18).
//!
//! It finds where tokens begin and end and doesn't evaluate them. Any bytes will do: what PostgreSQL refuses
//! becomes [`Kind::Junk`] or [`Kind::Unterminated`], and time is linear in the length of the text. Where versions differ
//! (a number followed directly by a word), the token is junk, so that no version's reading is missed.

mod literal;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"..."`.
    Quoted,
    /// `U&"..."`.
    EscapedIdentifier,
    /// `'...'`. With `standard_conforming_strings` off it is an [`Kind::EscapeString`].
    String,
    /// `E'...'`: a backslash escapes.
    EscapeString,
    /// `U&'...'`.
    UnicodeString,
    /// `B'...'` or `X'...'`.
    BitString,
    /// `$tag$...$tag$`.
    DollarString,
    /// A number of any form.
    Number,
    /// `$1`.
    Parameter,
    /// One of `,()[].;:+-*/%^<>=` on its own.
    Symbol(u8),
    /// Any other operator, and `::`, `:=`, `..`, `=>`.
    Operator,
    /// What PostgreSQL refuses as a token, or what its versions read differently.
    Junk,
    /// A comment or anything quoted that doesn't end; goes to the end of the text.
    Unterminated,
}

/// A token and where it stands: `text[start..end]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub start: usize,
    /// Where the next byte is that doesn't belong to it.
    pub end: usize,
}

/// Walks over the tokens of a text. Space and comments lie between them.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    standard_conforming_strings: bool,
    /// Up to here there are only `+` and `-`, each a token of its own. Without it, `++++...` would be looked
    /// through to its end again for every token.
    signs_until: usize,
}

impl<'a> Lexer<'a> {
    /// At the beginning of `text`, which the server will read with this value of `standard_conforming_strings`.
    pub fn new(text: &'a [u8], standard_conforming_strings: bool) -> Self {
        Self {
            text,
            at: 0,
            standard_conforming_strings,
            signs_until: 0,
        }
    }

    /// The text that it walks over.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The byte at a place; 0 behind the end.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or_default()
    }

    /// The first place from `from` on whose byte isn't `wanted`.
    fn run(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        let len = rest.iter().position(|&byte| !wanted(byte));
        from + len.unwrap_or(rest.len())
    }

    /// Goes past space and comments. An error is a comment that doesn't end; it begins there.
    fn skip_space(&mut self) -> Result<(), usize> {
        loop {
            self.at = match self.byte(self.at) {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => self.at + 1,
                b'-' if self.byte(self.at + 1) == b'-' => self.run(self.at, |byte| !is_newline(byte)),
                b'/' if self.byte(self.at + 1) == b'*' => self.comment(self.at).ok_or(self.at)?,
                _ => return Ok(()),
            };
        }
    }

    /// The end of the comment that begins here with `/*`. They nest.
    fn comment(&self, start: usize) -> Option<usize> {
        let mut at = start + 2;
        let mut depth = 1;
        while depth > 0 {
            let next = *self.text.get(at + 1)?;
            at += match (self.byte(at), next) {
                (b'*', b'/') => {
                    depth -= 1;
                    2
                }
                (b'/', b'*') => {
                    depth += 1;
                    2
                }
                _ => 1,
            };
        }
        Some(at)
    }

    /// A token that begins with a letter, and perhaps is a literal.
    fn word(&self, start: usize) -> (Kind, Option<usize>) {
        match (self.byte(start), self.byte(start + 1), self.byte(start + 2)) {
            (b'e' | b'E', b'\'', _) => (Kind::EscapeString, self.string(start + 2, Kind::EscapeString)),
            (b'b' | b'B' | b'x' | b'X', b'\'', _) => {
                (Kind::BitString, self.string(start + 2, Kind::BitString))
            }
            (b'u' | b'U', b'&', b'"') => self.quoted(start + 3, Kind::EscapedIdentifier),
            (b'u' | b'U', b'&', b'\'') => {
                // PostgreSQL refuses these with standard_conforming_strings off.
                let kind = if self.standard_conforming_strings {
                    Kind::UnicodeString
                } else {
                    Kind::Junk
                };
                (kind, self.string(start + 3, Kind::UnicodeString))
            }
            _ => (Kind::Word, Some(self.run(start, continues_word))),
        }
    }

    /// An operator stops before a comment, and doesn't end with a sign unless a character occurs in it that
    /// isn't in any operator of standard SQL.
    fn operator(&mut self, start: usize) -> (Kind, usize) {
        let first = self.byte(start);
        if start < self.signs_until {
            return (Kind::Symbol(first), start + 1);
        }
        let run = self.run(start, is_operator);
        let run = self.text.get(start..run).unwrap_or_default();
        let comment = run.windows(2).position(|two| two == b"/*" || two == b"--");
        let run = run.get(..comment.unwrap_or(run.len())).unwrap_or_default();
        let mut len = run.len();
        if len > 1 && matches!(run.last(), Some(b'+' | b'-')) && !run.iter().any(|&byte| is_unusual(byte)) {
            let bare = run.iter().rposition(|byte| !matches!(byte, b'+' | b'-'));
            self.signs_until = start + len;
            len = bare.map_or(1, |last| last + 1);
        }
        let single = len == 1
            && matches!(
                first,
                b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'<' | b'>' | b'='
            );
        let kind = if single {
            Kind::Symbol(first)
        } else {
            Kind::Operator
        };
        (kind, start + len)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if let Err(start) = self.skip_space() {
            self.at = self.text.len();
            let (kind, end) = (Kind::Unterminated, self.at);
            return Some(Token { kind, start, end });
        }
        let start = self.at;
        let first = *self.text.get(start)?;
        let (kind, end) = match (first, self.byte(start + 1)) {
            (b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.., _) => self.word(start),
            (b'0'..=b'9', _) | (b'.', b'0'..=b'9') => {
                let (kind, end) = self.number(start);
                (kind, Some(end))
            }
            (b'\'', _) => {
                let kind = if self.standard_conforming_strings {
                    Kind::String
                } else {
                    Kind::EscapeString
                };
                (kind, self.string(start + 1, kind))
            }
            (b'"', _) => self.quoted(start + 1, Kind::Quoted),
            (b'$', _) => self.dollar(start),
            (b':', b':' | b'=') | (b'.', b'.') => (Kind::Operator, Some(start + 2)),
            (b',' | b'(' | b')' | b'[' | b']' | b'.' | b';' | b':', _) => {
                (Kind::Symbol(first), Some(start + 1))
            }
            (byte, _) if is_operator(byte) => {
                let (kind, end) = self.operator(start);
                (kind, Some(end))
            }
            _ => (Kind::Junk, Some(start + 1)),
        };
        let (kind, end) = match end {
            Some(end) => (kind, end),
            None => (Kind::Unterminated, self.text.len()),
        };
        self.at = end;
        Some(Token { kind, start, end })
    }
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    CONTINUES_WORD.get(usize::from(byte)).copied().unwrap_or_default()
}

fn is_operator(byte: u8) -> bool {
    is_unusual(byte) || matches!(byte, b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=')
}

/// Characters that are in no operator of standard SQL.
fn is_unusual(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
    )
}

/// A table, because most bytes of most texts are asked for it.
#[allow(clippy::indexing_slicing, reason = "runs in the compiler only")]
static CONTINUES_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(byte as u8, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'$' | 0x80..);
        byte += 1;
    }
    table
};

/// Whether a server reads `text` as the same tokens whatever `client_encoding` and `standard_conforming_strings` are: every
/// encoding contains ASCII, and the other decides about backslashes and `U&'…'` only (documentation, "String Constants").
pub fn reads_alike(text: &[u8]) -> bool {
    text.is_ascii() && !text.contains(&b'\\') && !text.windows(2).any(|pair| pair == b"&'")
}

/// How statements begin that the server looks into when they are prepared, and not only when they run (`transformStmt` in
/// PostgreSQL's `analyze.c`); with CREATE only if it makes what a query returns.
const ANALYSED: [&str; 12] = [
    "call", "create", "declare", "delete", "explain", "insert", "merge", "select", "table", "update",
    "values", "with",
];

/// Whether a server that prepares `text` decides then what its names and constants stand for.
pub fn is_analysed(text: &[u8]) -> bool {
    let mut words = Lexer::new(text, true)
        .skip_while(|token| matches!(token.kind, Kind::Symbol(b'(' | b';')))
        .filter_map(|token| text.get(token.start..token.end));
    let first = words.next().unwrap_or_default();
    let is = |word: &[u8], text: &str| word.eq_ignore_ascii_case(text.as_bytes());
    if is(first, "create") {
        // CREATE [UNLOGGED | LOCAL TEMPORARY …] TABLE, CREATE MATERIALIZED VIEW.
        return words
            .take(3)
            .any(|word| is(word, "table") || is(word, "materialized"));
    }
    ANALYSED.iter().any(|word| is(first, word))
}

/// Whether what `text` means may depend on more than its words: it has a constant in quotes, a NULL (`transform_null_equals`), or
/// characters that aren't ASCII.
pub fn has_constants(text: &[u8]) -> bool {
    !text.is_ascii()
        || text.contains(&b'\'')
        || text.windows(4).any(|word| word.eq_ignore_ascii_case(b"null"))
        || text
            .windows(2)
            .any(|pair| matches!(pair, [b'$', next] if !next.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
