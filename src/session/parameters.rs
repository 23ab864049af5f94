//! The run-time parameters that a server reports (ParameterStatus).

use std::collections::BTreeMap;

use super::settings::Settings;
use crate::sql::DECIDING_REPORTED;
use crate::wire::body::Body;

/// Names and values as the server last reported them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
    reading: Option<Reading>,
    deciding: Settings,
}

/// How the server reads the text of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whether a backslash in an ordinary string constant is only a backslash.
    pub standard_conforming_strings: bool,
    /// Whether client and server both write text in UTF-8: then names are what they are in the catalogs, and only letters of
    /// ASCII are folded (`downcase_identifier` in PostgreSQL's `scansup.c`).
    pub is_utf8: bool,
}

/// Encodings whose characters may contain bytes that look like ASCII: those that clients may use and servers may not
/// (PostgreSQL documentation, "Supported Character Sets").
const CONTAIN_ASCII: [&str; 8] = [
    "BIG5",
    "GB18030",
    "GBK",
    "JOHAB",
    "MULE_INTERNAL",
    "SHIFT_JIS_2004",
    "SJIS",
    "UHC",
];

impl Parameters {
    /// Those that decide what constants mean.
    #[inline]
    pub fn deciding(&self) -> &Settings {
        &self.deciding
    }

    fn decide(&self) -> Settings {
        let known = DECIDING_REPORTED.iter().filter_map(|name| {
            let value = self.get(name)?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        known.collect()
    }

    /// Takes over the body of one ParameterStatus. What isn't two strings is ignored: the frame is passed on
    /// to the client as it is, and nothing of it can be asked for.
    pub fn report(&mut self, body: &[u8]) {
        let mut body = Body::new(body);
        if let (Ok(name), Ok(value)) = (body.cstring(), body.cstring())
            && let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value))
        {
            match self.values.get_mut(name) {
                Some(known) => value.clone_into(known),
                None => drop(self.values.insert(name.to_owned(), value.to_owned())),
            }
            if matches!(
                name,
                "client_encoding" | "server_encoding" | "standard_conforming_strings"
            ) {
                self.reading = self.read();
            }
            if DECIDING_REPORTED.contains(&name) {
                self.deciding = self.decide();
            }
        }
    }

    /// How the server reads the text of a statement; `None` if that can't be told, or if what looks like a quote or a
    /// semicolon may be a part of a character.
    #[inline]
    pub fn reading(&self) -> Option<Reading> {
        self.reading
    }

    fn read(&self) -> Option<Reading> {
        let encoding = self.values.get("client_encoding")?;
        let is_safe = !CONTAIN_ASCII
            .iter()
            .any(|known| encoding.eq_ignore_ascii_case(known));
        let conforming = self.values.get("standard_conforming_strings")?;
        let is_utf8 = |name| self.values.get(name).is_some_and(|value| value == "UTF8");
        is_safe.then_some(Reading {
            is_utf8: is_utf8("client_encoding") && is_utf8("server_encoding"),
            standard_conforming_strings: conforming == "on",
        })
    }

    /// The value of `name`, whose case doesn't matter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .iter()
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value.as_str()))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What stands here with another value than in `other`, or not there at all.
    pub fn differing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter()
            .filter(|(name, value)| other.values.get(*name).map(String::as_str) != Some(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_counts() {
        let mut before = Parameters::default();
        before.report(b"TimeZone\0UTC\0");
        before.report(b"client_encoding\0UTF8\0");
        let mut after = before.clone();
        after.report(b"TimeZone\0Europe/Berlin\0");
        after.report(b"garbage without an end");
        assert_eq!(after.get("timezone"), Some("Europe/Berlin"));
        assert_eq!(
            after.differing_from(&before).collect::<Vec<_>>(),
            [("TimeZone", "Europe/Berlin")]
        );
        assert_eq!(before.differing_from(&before).count(), 0);
    }
}
