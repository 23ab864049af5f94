//! Literals: strings, quoted identifiers, dollar quotes and numbers. Each function finds an end; `None` is no end.

use super::{Kind, Lexer, begins_word, continues_word, is_newline};

impl Lexer<'_> {
    /// The end of the string whose content begins here.
    pub(super) fn string(&self, mut at: usize, kind: Kind) -> Option<usize> {
        loop {
            at = self.run(at, |byte| byte != b'\'' && byte != b'\\');
            match *self.text.get(at)? {
                b'\\' if kind == Kind::EscapeString => at += 2,
                b'\'' if self.byte(at + 1) == b'\'' && kind != Kind::BitString => at += 2,
                b'\'' => match self.continuation(at + 1) {
                    Some(next) => at = next,
                    None => return Some(at + 1),
                },
                _ => at += 1,
            }
        }
    }

    /// Where a string goes on that seemed to end before `at`: behind a quote with a newline, space and `--` comments
    /// between. It goes on with the same rules for escapes.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut newline = false;
        loop {
            match self.byte(at) {
                b' ' | b'\t' | b'\x0b' | b'\x0c' => at += 1,
                b'\n' | b'\r' => {
                    newline = true;
                    at += 1;
                }
                b'-' if self.byte(at + 1) == b'-' => at = self.run(at, |byte| !is_newline(byte)),
                b'\'' if newline => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// The quoted identifier whose content begins here. One of no characters is refused.
    pub(super) fn quoted(&self, content: usize, kind: Kind) -> (Kind, Option<usize>) {
        let mut at = content;
        loop {
            at = self.run(at, |byte| byte != b'"');
            if at == self.text.len() {
                return (kind, None);
            }
            if self.byte(at + 1) != b'"' {
                let kind = if at == content { Kind::Junk } else { kind };
                return (kind, Some(at + 1));
            }
            at += 2;
        }
    }

    /// `$1`, `$tag$...$tag$`, or a dollar that is neither.
    pub(super) fn dollar(&self, start: usize) -> (Kind, Option<usize>) {
        let digits = self.run(start + 1, |byte| byte.is_ascii_digit());
        if digits > start + 1 {
            if begins_word(self.byte(digits)) {
                return (Kind::Junk, Some(self.run(digits, continues_word)));
            }
            return (Kind::Parameter, Some(digits));
        }
        let tag_end = self.run(start + 1, |byte| continues_word(byte) && byte != b'$');
        if self.byte(tag_end) != b'$' {
            return (Kind::Junk, Some(start + 1));
        }
        let delimiter = self.text.get(start..=tag_end).unwrap_or_default();
        let mut at = tag_end + 1;
        loop {
            // A tag has no dollar within, so each byte is compared once.
            at = self.run(at, |byte| byte != b'$');
            let Some(rest) = self.text.get(at..).filter(|rest| !rest.is_empty()) else {
                return (Kind::DollarString, None);
            };
            if rest.starts_with(delimiter) {
                return (Kind::DollarString, Some(at + delimiter.len()));
            }
            at += 1;
        }
    }

    pub(super) fn number(&self, start: usize) -> (Kind, usize) {
        let mut kind = Kind::Number;
        let mut end = self.radix_digits(start).unwrap_or_else(|| {
            let mut end = self.digits(start, |byte| byte.is_ascii_digit());
            if self.byte(end) == b'.' && self.byte(end + 1) != b'.' {
                end += 1;
                if self.byte(end).is_ascii_digit() {
                    end = self.digits(end, |byte| byte.is_ascii_digit());
                }
            }
            if matches!(self.byte(end), b'e' | b'E') {
                let sign = usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
                if self.byte(end + 1 + sign).is_ascii_digit() {
                    end = self.digits(end + 1 + sign, |byte| byte.is_ascii_digit());
                }
            }
            end
        });
        // After `1e5`, `1_0` or `0b1` a digit or dollar goes on with the word that the end of it would be.
        let written = self.text.get(start..end).unwrap_or_default();
        let wordy = || {
            let mut tail = written.iter().rev().take_while(|&&byte| continues_word(byte));
            tail.any(|&byte| begins_word(byte))
        };
        let next = self.byte(end);
        if begins_word(next) || continues_word(next) && wordy() {
            kind = Kind::Junk;
            end = self.run(end, continues_word);
        }
        (kind, end)
    }

    /// The end of `0x1f`, `0o17`, `0b11` (PostgreSQL 16).
    fn radix_digits(&self, start: usize) -> Option<usize> {
        if self.byte(start) != b'0' {
            return None;
        }
        let end = match self.byte(start + 1) {
            b'x' | b'X' => self.digits(start + 2, |byte| byte.is_ascii_hexdigit()),
            b'o' | b'O' => self.digits(start + 2, |byte| matches!(byte, b'0'..=b'7')),
            b'b' | b'B' => self.digits(start + 2, |byte| matches!(byte, b'0' | b'1')),
            _ => return None,
        };
        (end > start + 2).then_some(end)
    }

    /// The end of digits with single underscores between them (PostgreSQL 16).
    fn digits(&self, mut at: usize, is_digit: impl Fn(u8) -> bool) -> usize {
        loop {
            let underscore = usize::from(self.byte(at) == b'_');
            if !is_digit(self.byte(at + underscore)) {
                return at;
            }
            at += underscore + 1;
        }
    }
}
