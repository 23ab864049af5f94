//! Rust source as tokens, roughly: as much as it takes to tell code from comments and strings.

/// A name, a `::`, or any other single character of the code.
#[derive(Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// The code of `source`, without comments, strings, characters and blanks.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut line, mut rest) = (1, source);
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = lexeme(rest, first);
        let (text, after) = rest.split_at(length);
        if is_code {
            tokens.push(Token { line, text });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of what `rest` begins with, in bytes, and whether it is code.
fn lexeme(rest: &str, first: char) -> (usize, bool) {
    let name = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment(rest), false)
    } else if let Some(length) = string(rest) {
        (length, false)
    } else if first == '\'' {
        (character(rest).unwrap_or(1), false)
    } else if rest.starts_with("::") {
        (2, true)
    } else if name > 0 {
        (name, true)
    } else {
        (first.len_utf8(), !first.is_whitespace())
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the token `text` is a name or a keyword.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(is_name_char)
}

/// The length of the block comment, with all those within it, that `text` begins with.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut rest) = (0_usize, text);
    loop {
        let mut step = rest.chars();
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth = depth.saturating_sub(1);
            rest = after;
        } else if step.next().is_some() {
            rest = step.as_str();
        }
        if depth == 0 || rest.is_empty() {
            return text.len() - rest.len();
        }
    }
}

/// The length of the string literal of whatever sort that `text` begins with.
fn string(text: &str) -> Option<usize> {
    let unprefixed = text.strip_prefix(['b', 'c']).unwrap_or(text);
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let hashes = raw.len() - body.len();
        let body = body.strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |place| place + end.len());
        return Some(text.len() - body.len() + length);
    }
    let body = unprefixed.strip_prefix('"')?;
    Some(text.len() - body.len() + until_unescaped(body, '"'))
}

/// The length of the character literal that `text` begins with; `None` if it is a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if body.starts_with('\\') {
        return Some(1 + until_unescaped(body, '\''));
    }
    let after = body.strip_prefix(|_: char| true)?;
    let after = after.strip_prefix('\'')?;
    Some(text.len() - after.len())
}

/// How far it is until after the first `end` that has no backslash before it.
fn until_unescaped(text: &str, end: char) -> usize {
    let mut is_escaped = false;
    for (place, c) in text.char_indices() {
        if c == end && !is_escaped {
            return place + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}
