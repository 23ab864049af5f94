//! The lines of the record, each of which has a hash over itself and the hash of the one before.
//!
//! A line is a JSON object whose last two members are `prev` and `hash`: `{"v":1,"n":7,…,"prev":"HEX","hash":"HEX"}`. The hash is the SHA-256
//! of everything ahead of `,"hash":`, in 64 lower-case hex digits; `prev` is the hash of the line before, and 64 zeros in the first of
//! all. `n` counts the lines from 1. Whoever can write the file can make a whole new chain: a copy of the last hash, kept elsewhere,
//! shows that, and that lines were taken from the end.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::{Entry, Event};

/// The version of the lines' form.
const VERSION: u32 = 1;

/// What comes before the hash.
const HASH: &str = ",\"hash\":\"";

/// What stands where the hash before the first line would.
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Where a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many lines there are.
    pub n: u64,
    /// The hash of the last.
    pub hash: String,
}

/// Why a line isn't the next one of a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It isn't a line of a record.
    #[error("it isn't a line of an audit log")]
    Form,
    /// Its hash is another.
    #[error("it was changed: its hash isn't that of what it says")]
    Changed,
    /// It is the first of a chain.
    #[error(
        "another chain begins with it: the file before it is missing, or it was written to standard output"
    )]
    Begins,
    /// It follows another line.
    #[error("it follows another line than the one before it: lines were removed, added or moved")]
    Moved,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    n: u64,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
    prev: &'a str,
}

#[derive(Deserialize)]
struct Known {
    v: u32,
    n: u64,
    prev: String,
    event: String,
}

/// The event that a gateway's last line says.
const STOP: &str = "stop";

impl Default for Head {
    fn default() -> Self {
        Self {
            n: 0,
            hash: NONE.to_owned(),
        }
    }
}

impl Head {
    /// Appends the line of `entry` to `into`, and goes on to it.
    pub(super) fn append(&mut self, entry: &Entry, into: &mut String) -> serde_json::Result<()> {
        let line = Line {
            v: VERSION,
            n: self.n + 1,
            time: humantime::format_rfc3339_micros(entry.at).to_string(),
            event: &entry.event,
            prev: &self.hash,
        };
        let mut text = serde_json::to_string(&line)?;
        text.pop();
        *self = Self {
            n: self.n + 1,
            hash: hash(&text),
        };
        into.push_str(&text);
        into.push_str(HASH);
        into.push_str(&self.hash);
        into.push_str("\"}\n");
        Ok(())
    }

    /// The one after a line, which has no newline, whatever comes before it; and whether that says that the gateway has stopped.
    pub fn last(line: &str) -> Result<(Self, bool), Broken> {
        let (known, hash) = known(line)?;
        Ok((Self { n: known.n, hash }, known.event == STOP))
    }

    /// Goes on to `line`, which is in order if it is the next one.
    pub fn follow(&mut self, line: &str) -> Result<(), Broken> {
        let (prev, head) = read(line)?;
        let is_next = prev == self.hash && head.n == self.n + 1;
        *self = head;
        match is_next {
            true => Ok(()),
            false if prev == NONE => Err(Broken::Begins),
            false => Err(Broken::Moved),
        }
    }
}

/// The hash before a line, and the chain after it.
pub fn read(line: &str) -> Result<(String, Head), Broken> {
    let (known, hash) = known(line)?;
    Ok((known.prev, Head { n: known.n, hash }))
}

/// What a line says, and its hash, which is right.
fn known(line: &str) -> Result<(Known, String), Broken> {
    let (text, rest) = line.rsplit_once(HASH).ok_or(Broken::Form)?;
    let written = rest.strip_suffix("\"}").ok_or(Broken::Form)?;
    let known: Known = serde_json::from_str(&format!("{text}}}")).map_err(|_| Broken::Form)?;
    if known.v != VERSION {
        return Err(Broken::Form);
    }
    let hash = hash(text);
    if hash != written {
        return Err(Broken::Changed);
    }
    Ok((known, hash))
}

fn hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut hex = String::with_capacity(64);
    for byte in digest.as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<String> {
        let mut head = Head::default();
        let mut text = String::new();
        for count in 0..5 {
            let entry = Entry {
                at: std::time::SystemTime::UNIX_EPOCH,
                event: Box::new(Event::Lost { count }),
            };
            head.append(&entry, &mut text).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    }

    fn verify(lines: &[String]) -> Result<Head, (usize, Broken)> {
        let mut head = Head::default();
        for (number, line) in lines.iter().enumerate() {
            head.follow(line).map_err(|error| (number, error))?;
        }
        Ok(head)
    }

    #[test]
    fn a_chain_is_whole_as_it_was_written() {
        let lines = lines();
        let head = verify(&lines).unwrap();
        assert_eq!(head.n, 5);
        assert_eq!(Head::last(&lines[4]), Ok((head, false)));
        let first =
            r#"{"v":1,"n":1,"time":"1970-01-01T00:00:00.000000Z","event":"lost","count":0,"prev":"0000"#;
        assert!(lines[0].starts_with(first), "{}", lines[0]);
    }

    #[test]
    fn whatever_is_done_to_it_shows() {
        let whole = lines();
        let mut removed = whole.clone();
        removed.remove(2);
        assert_eq!(verify(&removed), Err((2, Broken::Moved)));
        assert_eq!(verify(&whole[1..]), Err((0, Broken::Moved)));
        let mut moved = whole.clone();
        moved.swap(2, 3);
        assert_eq!(verify(&moved), Err((2, Broken::Moved)));
        let mut twice = whole.clone();
        twice.insert(2, whole[2].clone());
        assert_eq!(verify(&twice), Err((3, Broken::Moved)));
        for place in 0..whole[2].len() {
            let mut changed = whole.clone();
            let mut bytes = changed[2].clone().into_bytes();
            bytes[place] ^= 1;
            changed[2] = String::from_utf8(bytes).unwrap();
            let (number, _) = verify(&changed).unwrap_err();
            assert_eq!(number, 2, "byte {place}");
        }
    }
}
