//! Texts without what isn't meant for whoever reads a record of them.

use super::lexer::{Kind, Lexer, Token};

/// What stands in place of a constant.
const CONSTANT: &str = "?";

/// What stands in place of a text of which nobody can tell where its constants are.
const TEXT: &str = "(not shown: how the server reads its constants isn't certain)";

/// Behind this stands a password.
const PASSWORD: &str = "password";

/// The text without its constants and comments; space of any length is one space.
pub fn without_constants(text: &[u8]) -> String {
    if !is_cut_alike(text) {
        return TEXT.to_owned();
    }
    let mut shown = String::new();
    let mut end = 0;
    for token in Lexer::new(text, true) {
        if token.start > end && !shown.is_empty() {
            shown.push(' ');
        }
        end = token.end;
        if is_constant(&token) {
            shown.push_str(CONSTANT);
        } else {
            shown.push_str(&written(text, &token));
        }
    }
    shown
}

/// The text without the constants behind PASSWORD, and those that have a password in them as connection strings do.
pub fn without_passwords(text: &[u8]) -> String {
    if !has(text, PASSWORD.as_bytes()) {
        return String::from_utf8_lossy(text).into_owned();
    }
    if !is_cut_alike(text) {
        return TEXT.to_owned();
    }
    let mut shown = String::new();
    let mut end = 0;
    let mut is_behind = false;
    for token in Lexer::new(text, true) {
        shown.push_str(&String::from_utf8_lossy(
            text.get(end..token.start).unwrap_or_default(),
        ));
        end = token.end;
        let written = written(text, &token);
        if is_constant(&token) && (is_behind || has(written.as_bytes(), PASSWORD.as_bytes())) {
            shown.push_str(CONSTANT);
        } else {
            is_behind = written.trim_matches('"').eq_ignore_ascii_case(PASSWORD)
                || is_behind && matches!(token.kind, Kind::Symbol(_) | Kind::Operator);
            shown.push_str(&written);
        }
    }
    shown.push_str(&String::from_utf8_lossy(text.get(end..).unwrap_or_default()));
    shown
}

/// Whether its tokens stand at the same places however the server reads strings.
fn is_cut_alike(text: &[u8]) -> bool {
    let places = |conforming| Lexer::new(text, conforming).map(|token| (token.start, token.end));
    places(true).eq(places(false))
}

fn written<'a>(text: &'a [u8], token: &Token) -> std::borrow::Cow<'a, str> {
    String::from_utf8_lossy(text.get(token.start..token.end).unwrap_or_default())
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
    fn passwords_are_left_out() {
        for (text, shown) in [
            (
                "ALTER ROLE a PASSWORD 'x' VALID UNTIL 'y'",
                "ALTER ROLE a PASSWORD ? VALID UNTIL 'y'",
            ),
            (
                "create user mapping for a server s options (user 'u', \"password\" 'x')",
                "create user mapping for a server s options (user 'u', \"password\" ?)",
            ),
            (
                "select dblink('host=h password=x'), 'y' -- as is",
                "select dblink(?), 'y' -- as is",
            ),
            ("alter role a password = E'x'", "alter role a password = ?"),
            ("alter role a password 'open", "alter role a password ?"),
            ("select 'a\\' from t", "select 'a\\' from t"),
        ] {
            assert_eq!(without_passwords(text.as_bytes()), shown, "{text}");
        }
        assert_eq!(without_passwords(b"alter role a password 'a\\'b'"), TEXT);
    }
}
