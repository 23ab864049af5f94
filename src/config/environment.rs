//! The file's text with the environment laid over it.
//!
//! `POSTERN_LISTEN__MAX_CLIENTS=100` is `max_clients` of `[listen]`; a number in the path picks an entry of a list
//! (`POSTERN_TARGETS__0__POOL__SIZE=5`). A value is TOML, or else a string as it stands.

use toml::{Table, Value};

use super::error::ConfigError;
use super::file::File;

const PREFIX: &str = "POSTERN_";

pub(super) fn read(
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<File, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    let mut variables: Vec<(String, String)> = environment
        .filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__"))
        .collect();
    if variables.is_empty() {
        return Ok(file);
    }
    variables.sort();
    let mut table: Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    for (name, value) in &variables {
        lay_over(&mut table, name, value)?;
    }
    File::deserialize_table(table).map_err(|error| {
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        let message = with_nearest(error.message());
        ConfigError::value(format!("environment ({})", names.join(", ")), message)
    })
}

impl File {
    fn deserialize_table(table: Table) -> Result<Self, toml::de::Error> {
        serde::Deserialize::deserialize(table)
    }
}

fn lay_over(table: &mut Table, name: &str, text: &str) -> Result<(), ConfigError> {
    let path = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    let mut steps: Vec<&str> = path.split("__").collect();
    let last = steps.pop().unwrap_or_default();
    let mut place = table;
    let mut steps = steps.into_iter().peekable();
    while let Some(step) = steps.next() {
        let entry = place.entry(step).or_insert_with(|| Value::Table(Table::new()));
        let entry = match (entry, steps.peek().and_then(|next| next.parse::<usize>().ok())) {
            (Value::Array(list), Some(index)) => {
                steps.next();
                let len = list.len();
                list.get_mut(index).ok_or_else(|| {
                    ConfigError::value(
                        name,
                        format!("there is no entry {index} in {step}: it has {len}, counted from 0"),
                    )
                })?
            }
            (entry, _) => entry,
        };
        place = entry.as_table_mut().ok_or_else(|| {
            ConfigError::value(name, format!("{step} is not a table, so it has no key {last}"))
        })?;
    }
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    place.insert(
        last.to_owned(),
        value.unwrap_or_else(|| Value::String(text.to_owned())),
    );
    Ok(())
}

fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let place = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or_else(String::new, |before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("{line}:{column}: ")
        });
    ConfigError::Syntax {
        place,
        message: with_nearest(error.message()),
    }
}

/// Errors of serde quote the value that is of the wrong type, which may be a verifier.
fn without_secrets(message: &str) -> &str {
    if message.contains("SCRAM-SHA-256") || message.contains("md5") {
        "a value (hidden here) is of the wrong type; verifiers are written as a table of name = \"SCRAM-SHA-256$…\""
    } else {
        message
    }
}

/// Adds the nearest known name to serde's "unknown field `x`, expected one of `a`, `b`".
fn with_nearest(message: &str) -> String {
    let message = without_secrets(message);
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return message.to_owned();
    }
    let unknown = quoted.next().unwrap_or_default();
    let nearest = quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, nearest)) => format!("{message}; did you mean `{nearest}`?"),
        None => message.to_owned(),
    }
}
