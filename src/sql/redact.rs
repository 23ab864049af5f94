//! Texts without what isn't meant for whoever reads a record of them.

use super::lexer::{Kind, Lexer, Token};

/// What stands in place of a constant.
const CONSTANT: &str = "?";

/// What stands in place of a text of which nobody can tell where its constants are.
const TEXT: &str = "(not shown: how the server reads its constants isn't certain)";

/// Behind this stands a password.
const PASSWORD: &[u8] = b"password";

/// The text without its constants, what settings are set to, and comments; space of any length is one space.
pub fn without_constants(text: &[u8]) -> String {
    redacted(text, |_| true)
}

/// The text without constants, comments, and what settings are set to, from where a password is spoken of to the end of the statement.
pub fn without_passwords(text: &[u8]) -> String {
    if !has(text, PASSWORD) {
        return String::from_utf8_lossy(text).into_owned();
    }
    let mut is_spoken_of = false;
    redacted(text, |token| {
        is_spoken_of &= token != b";";
        is_spoken_of |= has(token, PASSWORD);
        is_spoken_of
    })
}

/// Leaves out what isn't to be shown from where `hides` says so, which is asked with each token.
fn redacted(text: &[u8], mut hides: impl FnMut(&[u8]) -> bool) -> String {
    if !is_cut_alike(text) {
        return TEXT.to_owned();
    }
    let mut shown = String::new();
    let mut end = 0;
    let mut setting = Setting::Begins;
    for token in Lexer::new(text, true) {
        if token.start > end && !shown.is_empty() {
            shown.push(' ');
        }
        end = token.end;
        let written = text.get(token.start..token.end).unwrap_or_default();
        let hides = hides(written);
        let was_value = setting == Setting::Value;
        setting = setting.behind(&token, written);
        if hides && was_value && setting == Setting::Value {
            // The whole of it was left out at its beginning.
            shown.truncate(shown.trim_end().len());
        } else if hides && (is_constant(&token) || was_value && setting != Setting::Begins) {
            shown.push_str(CONSTANT);
        } else {
            shown.push_str(&String::from_utf8_lossy(written));
        }
        if hides && !was_value && setting == Setting::Value {
            shown.push(' ');
            shown.push_str(CONSTANT);
        }
    }
    shown
}

/// Where in SET, or in ALTER … SET, something stands. Values may be words there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// A statement begins.
    Begins,
    /// It is ALTER, and SET may come.
    Alters,
    /// The name of a setting comes, and then TO or `=`.
    Name,
    /// The value.
    Value,
    /// It is another statement.
    No,
}

impl Setting {
    fn behind(self, token: &Token, written: &[u8]) -> Self {
        let is = |word: &str| token.kind == Kind::Word && written.eq_ignore_ascii_case(word.as_bytes());
        match self {
            _ if token.kind == Kind::Symbol(b';') => Self::Begins,
            Self::Begins if is("alter") => Self::Alters,
            Self::Begins | Self::Alters if is("set") => Self::Name,
            Self::Begins => Self::No,
            Self::Name if is("to") || token.kind == Kind::Symbol(b'=') => Self::Value,
            _ => self,
        }
    }
}

/// Whether its tokens stand at the same places however the server reads strings.
fn is_cut_alike(text: &[u8]) -> bool {
    let places = |conforming| Lexer::new(text, conforming).map(|token| (token.start, token.end));
    places(true).eq(places(false))
}

/// Whether it is a constant, or something that may be the beginning of one.
fn is_constant(token: &Token) -> bool {
    match token.kind {
        Kind::String
        | Kind::EscapeString
        | Kind::UnicodeString
        | Kind::BitString
        | Kind::DollarString
        | Kind::Number
        | Kind::Junk
        | Kind::Unterminated => true,
        Kind::Word
        | Kind::Quoted
        | Kind::EscapedIdentifier
        | Kind::Parameter
        | Kind::Symbol(_)
        | Kind::Operator => false,
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len())
        .any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_comments_are_left_out() {
        for (text, shown) in [
            (
                "select  a, 'it''s', 1.5e3 -- 'secret'\n from \"T\" where b=$1 and c = $x$;$x$ /* 7 */",
                "select a, ?, ? from \"T\" where b=$1 and c = ?",
            ),
            ("select E'a\\'b', x'ff', U&'\\0041'", "select ?, ?, ?"),
            ("select 'open", "select ?"),
            ("select 1a", "select ?"),
            ("copy t from stdin", "copy t from stdin"),
            ("", ""),
        ] {
            assert_eq!(without_constants(text.as_bytes()), shown, "{text}");
        }
        assert_eq!(without_constants(b"select 'a\\'; select 'b'"), TEXT);
    }

    #[test]
    fn what_settings_are_set_to_is_left_out() {
        for (text, shown) in [
            ("set my.token to hunter2; select a", "set my.token to ?; select a"),
            ("SET LOCAL my.token = \"a\", b", "SET LOCAL my.token = ?"),
            ("alter role a set my.token to x", "alter role a set my.token to ?"),
            ("set role admin", "set role admin"),
            ("set transaction read only", "set transaction read only"),
            (
                "alter table t alter a set default 5",
                "alter table t alter a set default ?",
            ),
            ("update t set a = b + 1", "update t set a = b + ?"),
        ] {
            assert_eq!(without_constants(text.as_bytes()), shown, "{text}");
        }
    }

    #[test]
    fn passwords_are_left_out() {
        for (text, shown) in [
            (
                "ALTER ROLE a VALID UNTIL 'y' PASSWORD 'x' -- is x",
                "ALTER ROLE a VALID UNTIL 'y' PASSWORD ?",
            ),
            (
                "create user mapping for a server s options (user 'u', \"password\" 'x')",
                "create user mapping for a server s options (user 'u', \"password\" ?)",
            ),
            (
                "select dblink('host=h password=x'), 'y'; select 'z'",
                "select dblink(?), ?; select 'z'",
            ),
            ("alter role a password = E'x'", "alter role a password = ?"),
            ("alter role a password 'open", "alter role a password ?"),
            ("set my.password to hunter2", "set my.password to ?"),
            (
                "select set_config('my.password', 'x', false)",
                "select set_config(?, ?, false)",
            ),
            ("set password = md5('x'); select 1", "set password = ?; select 1"),
            ("select 'a\\' from t -- 1", "select 'a\\' from t -- 1"),
        ] {
            assert_eq!(without_passwords(text.as_bytes()), shown, "{text}");
        }
        assert_eq!(without_passwords(b"alter role a password 'a\\'b'"), TEXT);
    }
}
