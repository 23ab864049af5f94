//! An identifier of a text and the name that PostgreSQL makes of it: folded to lower case or unquoted, and cut to 63 bytes.
//!
//! (`downcase_truncate_identifier` in PostgreSQL's `scansup.c`.) Only ASCII is folded, as PostgreSQL does in every multi-byte
//! encoding, and names are cut between characters of UTF-8. In a database with a single-byte encoding a name that
//! isn't [ASCII](Identifier::is_ascii) may therefore be another one than it seems.

use super::lexer::{Kind, Lexer, Token};

/// The longest name: `NAMEDATALEN - 1`.
pub const MAX_NAME_BYTES: usize = 63;

/// An identifier as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier<'a> {
    /// What is written, without the outer quotes.
    written: &'a [u8],
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Quoted,
    /// `U&"..."`: its name depends on escapes that may even be redefined after it (UESCAPE).
    Escaped,
}

impl<'a> Identifier<'a> {
    /// The identifier that `token` of `text` is, if it is one.
    pub fn of(text: &'a [u8], token: &Token) -> Option<Self> {
        let (form, before, after) = match token.kind {
            Kind::Word => (Form::Plain, 0, 0),
            Kind::Quoted => (Form::Quoted, 1, 1),
            Kind::EscapedIdentifier => (Form::Escaped, 3, 1),
            _ => return None,
        };
        let written = text.get(token.start + before..token.end.checked_sub(after)?)?;
        Some(Self { written, form })
    }

    /// The identifier that is all of `text`, for example where a [`Command`](super::Command) points to.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut lexer = Lexer::new(text, true);
        let token = lexer.next()?;
        if lexer.next().is_some() {
            return None;
        }
        Self::of(text, &token)
    }

    /// What is written, without the outer quotes.
    pub(super) fn written(&self) -> &'a [u8] {
        self.written
    }

    /// Whether it is written in quotes, so that it is no keyword.
    pub fn is_quoted(&self) -> bool {
        self.form != Form::Plain
    }

    /// Whether all of it is ASCII, so that its name is the same in every encoding.
    pub fn is_ascii(&self) -> bool {
        self.written.is_ascii()
    }

    /// Whether its name is `name`, which is given in lower case as PostgreSQL stores it. A name that can't
    /// be told is equal to none.
    pub fn eq_folded(&self, name: &str) -> bool {
        let mut buffer = [0; MAX_NAME_BYTES];
        self.fold(&mut buffer) == Some(name.as_bytes())
    }

    /// Its name, if it can be told, written to `buffer`. `None` for `U&"..."`: treat it as unknown.
    pub fn fold<'b>(&self, buffer: &'b mut [u8; MAX_NAME_BYTES]) -> Option<&'b [u8]> {
        if self.form == Form::Escaped {
            return None;
        }
        let mut len = 0;
        let mut written = self.written.iter();
        while let Some(&byte) = written.next() {
            let byte = match self.form {
                Form::Plain => byte.to_ascii_lowercase(),
                _ => byte,
            };
            let Some(slot) = buffer.get_mut(len) else {
                return buffer.get(..clipped(buffer, byte));
            };
            *slot = byte;
            len += 1;
            if byte == b'"' {
                // In quotes it is always doubled, and outside of them it can't be.
                written.next();
            }
        }
        buffer.get(..len)
    }
}

/// How much of a full buffer remains when `next` doesn't fit any more: whole characters.
fn clipped(full: &[u8], next: u8) -> usize {
    let continues = |byte: u8| byte & 0xc0 == 0x80;
    if !continues(next) {
        return full.len();
    }
    full.iter()
        .rposition(|&byte| !continues(byte))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(written: &str) -> Option<String> {
        let mut buffer = [0; MAX_NAME_BYTES];
        let name = Identifier::parse(written.as_bytes())?.fold(&mut buffer)?;
        Some(String::from_utf8(name.to_vec()).unwrap())
    }

    #[test]
    fn names_are_as_postgresql_stores_them() {
        let long = "x".repeat(62);
        for (written, expected) in [
            ("Abc", Some("abc")),
            ("\"Abc\"", Some("Abc")),
            ("\"a\"\"b\"", Some("a\"b")),
            ("ÄB", Some("Äb")),
            (" /* */ a --", Some("a")),
            ("a b", None),
            ("", None),
            ("'a'", None),
            ("U&\"a\"", None),
            ("U&\"\"", None),
            (&format!("{long}abc"), Some(&*format!("{long}a"))),
            (&format!("\"{long}\"\"bc\""), Some(&*format!("{long}\""))),
            // A character that doesn't fit isn't cut in two.
            (&format!("{long}é"), Some(&*long)),
            (&format!("{long}éa"), Some(&*long)),
            (&format!("{}éa", &long[1..]), Some(&*format!("{}é", &long[1..]))),
            (&format!("{}€", &long[1..]), Some(&long[1..])),
        ] {
            assert_eq!(name(written).as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn names_are_compared() {
        let is = |written: &str, name| Identifier::parse(written.as_bytes()).unwrap().eq_folded(name);
        assert!(is("NextVal", "nextval") && is("\"nextval\"", "nextval"));
        assert!(
            !is("\"NextVal\"", "nextval") && !is("nextval2", "nextval") && !is("U&\"nextval\"", "nextval")
        );
    }
}
