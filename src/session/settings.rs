//! The settings of a session (run-time parameters, "GUCs") that travel with a client from one server connection to the next.
//!
//! What a setting means is never interpreted here: a value is what the server itself said, and it is compared as text.

use std::rc::Rc;

use crate::sql::{DECIDING_UNREPORTED, READ_ONLY};

/// A setting: name, in lower case, and value.
pub type Setting = (String, String);

/// Settings, each name once, by name.
pub type Settings = Rc<[Setting]>;

/// The encoding of the values of all others.
const ENCODING: &str = "client_encoding";

/// What has to change on a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference<'a> {
    /// These must be set.
    pub set: Vec<&'a Setting>,
    /// These must be reset.
    pub reset: Vec<&'a str>,
}

/// From `given` in any order, the last of a name counting.
pub fn settings(given: impl IntoIterator<Item = Setting>) -> Settings {
    let map: std::collections::BTreeMap<String, String> = given.into_iter().collect();
    map.into_iter().collect()
}

/// The same of a session that only reads, whatever is given about that.
pub fn read_only(given: impl IntoIterator<Item = Setting>) -> Settings {
    settings(given.into_iter().chain([(READ_ONLY.to_owned(), "on".to_owned())]))
}

/// Those of them that decide what constants mean, and that the server doesn't report.
pub fn deciding(settings: &Settings) -> impl Iterator<Item = &Setting> {
    settings
        .iter()
        .filter(|(name, _)| DECIDING_UNREPORTED.contains(&name.as_str()))
}

/// The value of `name`, whose case doesn't matter.
pub fn value<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    let mut known = settings.iter();
    known.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value.as_str()))
}

/// `old` with `changed` in place of what it has under their names.
pub fn changed(old: &Settings, changed: impl IntoIterator<Item = Setting>) -> Settings {
    settings(old.iter().cloned().chain(changed))
}

/// What pg_stat_activity shows of who a session is of.
const APPLICATION_NAME: &str = "application_name";

/// The longest that a server keeps (`NAMEDATALEN` - 1, `pg_config_manual.h`).
const MAX_APPLICATION_NAME_BYTES: usize = 63;

/// `settings` with the `person` in front of the `application_name` that is in them: `alice@example.com|psql`.
pub fn signed(person: &str, settings: &Settings) -> Settings {
    let chosen = value(settings, APPLICATION_NAME).unwrap_or_default();
    let is_signed = chosen
        .strip_prefix(person)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('|'));
    if is_signed || chosen.len() == MAX_APPLICATION_NAME_BYTES && person.starts_with(chosen) {
        return settings.clone();
    }
    let mut signed = person.to_owned();
    if !chosen.is_empty() {
        signed.push('|');
        signed.push_str(chosen);
    }
    signed.truncate(signed.floor_char_boundary(MAX_APPLICATION_NAME_BYTES));
    changed(settings, [(APPLICATION_NAME.to_owned(), signed)])
}

/// What must be done to a connection that has `present` so that it has `wanted`.
pub fn difference<'a>(present: &'a Settings, wanted: &'a Settings) -> Difference<'a> {
    let value = |settings: &'a Settings, name: &str| {
        let place = settings
            .binary_search_by(|(known, _)| known.as_str().cmp(name))
            .ok()?;
        settings.get(place).map(|(_, value)| value)
    };
    // Values are told and set in it.
    let is_same_encoding = value(present, ENCODING) == value(wanted, ENCODING);
    Difference {
        set: wanted
            .iter()
            .filter(|(name, wanted)| {
                value(present, name) != Some(wanted) || !is_same_encoding && !wanted.is_ascii()
            })
            .collect(),
        reset: present
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| value(wanted, name).is_none())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[(&str, &str)]) -> Settings {
        settings(
            text.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn a_person_stands_before_the_name_of_the_program() {
        let long = "p".repeat(80);
        for (person, chosen, expected) in [
            ("alice", Some("psql"), "alice|psql"),
            ("alice", None, "alice"),
            ("alice", Some(""), "alice"),
            ("alice", Some("alice"), "alice"),
            ("alice", Some("alice|psql"), "alice|psql"),
            ("alice", Some("alice2"), "alice|alice2"),
            ("alice", Some(&long), &format!("alice|{}", "p".repeat(57))),
            (&long, Some("psql"), &"p".repeat(63)),
        ] {
            let chosen = chosen.map(|name| ("application_name", name));
            let settings = of(chosen.as_slice());
            let once = signed(person, &settings);
            assert_eq!(value(&once, "application_name"), Some(expected));
            assert_eq!(signed(person, &once), once);
        }
    }

    #[test]
    fn only_what_differs_is_done() {
        let present = of(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let wanted = of(&[("d", "4"), ("b", "two"), ("c", "3")]);
        let difference = difference(&present, &wanted);
        assert_eq!(difference.reset, ["a"]);
        let set: Vec<_> = difference
            .set
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(set, [("b", "two"), ("d", "4")]);
        assert_eq!(super::difference(&wanted, &wanted), Difference::default());
        assert_eq!(
            changed(&present, [("b".to_owned(), "5".to_owned())]),
            of(&[("a", "1"), ("b", "5"), ("c", "3")])
        );
    }
}
