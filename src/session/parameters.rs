//! The run-time parameters that a server reports (ParameterStatus).

use std::collections::BTreeMap;

use crate::wire::body::Body;

/// Names and values as the server last reported them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Takes over the body of one ParameterStatus. What isn't two strings is ignored: the frame is passed on
    /// to the client as it is, and nothing of it can be asked for.
    pub fn report(&mut self, body: &[u8]) {
        let mut body = Body::new(body);
        if let (Ok(name), Ok(value)) = (body.cstring(), body.cstring())
            && let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value))
        {
            match self.0.get_mut(name) {
                Some(known) => value.clone_into(known),
                None => drop(self.0.insert(name.to_owned(), value.to_owned())),
            }
        }
    }

    /// The value of `name`, whose case doesn't matter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value.as_str()))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What stands here with another value than in `other`, or not there at all.
    pub fn differing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter()
            .filter(|(name, value)| other.0.get(*name).map(String::as_str) != Some(*value))
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
