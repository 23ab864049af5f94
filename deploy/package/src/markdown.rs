//! `deploy/CONFIGURATION.md`.

use std::fmt::Write as _;

use crate::reference::{Default, Key, Reference, Section};

/// The reference as a page.
pub(crate) fn page(reference: &Reference) -> String {
    let mut page = HEAD.to_owned();
    for section in &reference.sections {
        add(&mut page, section);
    }
    page
}

fn add(page: &mut String, section: &Section) {
    let _ = write!(page, "\n## `{}`\n\n{}\n", section.title, section.text);
    if section.keys.is_empty() {
        return;
    }
    page.push_str("\n| key | type | default | |\n|---|---|---|---|\n");
    for key in &section.keys {
        let default = match &key.default {
            Default::Required => "required".to_owned(),
            Default::None => "none".to_owned(),
            Default::Value(value) => format!("`{value}`"),
        };
        let cells = [format!("`{}`", key.name), key.kind.clone(), default, text(key)];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
}

fn text(key: &Key) -> String {
    let choices = key.choices.iter();
    choices.fold(key.text.clone(), |text, choice| {
        format!("{text}<br>`\"{}\"`: {}", choice.word, choice.text)
    })
}

const HEAD: &str = "\
# Every key of postern.toml

Made from the code by `cargo run -p postern-package >deploy/CONFIGURATION.md`, and the same as postern.toml(5). The README's \"Configuration\" has
them in one table, with what else there is to say.

The file is TOML. A key that isn't listed is an error, which names the line and the nearest key. Any value can be given by the environment, which
wins: `POSTERN_LISTEN__MAX_CLIENTS=100`, and `POSTERN_TARGETS__0__POOL__SIZE=5` for an entry of a list that is there. Durations are strings
of numbers with units: `\"250ms\"`, `\"30s\"`, `\"1h 30m\"`. `postern config check` says whether a file can be used, `postern config schema` prints its JSON schema.
";
