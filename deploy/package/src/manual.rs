//! Man pages.

use std::path::Path;

use anyhow::Context as _;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::reference::{Default, Key, Reference};

/// A page for `command` and one for each command below it.
pub(crate) fn commands(command: &clap::Command, directory: &Path) -> anyhow::Result<()> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    page(&command, directory)
}

fn page(command: &clap::Command, directory: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        page(below, directory)?;
    }
    let source = format!("Postern {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("Postern");
    let path = directory.join(man.get_filename());
    let mut roff = Vec::new();
    man.render(&mut roff)?;
    let mut files = Roff::new();
    if command.get_display_name().is_none_or(|name| name == "postern") {
        also(&mut files);
    }
    roff.extend_from_slice(files.render().as_bytes());
    std::fs::write(&path, roff).with_context(|| format!("cannot write {}", path.display()))
}

/// What belongs to the page of the program itself.
fn also(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    for (path, what) in FILES {
        roff.control("TP", []);
        roff.text([italic(*path)]);
        roff.text(words(what));
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (status, what) in STATUSES {
        roff.control("TP", []);
        roff.text([bold(*status)]);
        roff.text(words(what));
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("postern.toml"),
        roman("(5), "),
        bold("systemctl"),
        roman("(1), "),
        bold("psql"),
        roman("(1)"),
    ]);
}

/// postern.toml(5).
pub(crate) fn configuration(reference: &Reference) -> String {
    let mut roff = Roff::new();
    let source = concat!("Postern ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["postern.toml", "5", "", source, "Postern"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "postern.toml - configuration of the PostgreSQL gateway postern",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        roff.control("PP", []);
        roff.text(words(paragraph));
    }
    for section in &reference.sections {
        roff.control("SH", [section.title.as_str()]);
        roff.text(words(&section.text));
        for key in &section.keys {
            add(&mut roff, key);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("postern"),
        roman("(1), "),
        bold("postern-config-check"),
        roman("(1)"),
    ]);
    roff.render()
}

fn add(roff: &mut Roff, key: &Key) {
    roff.control("TP", []);
    let default = match &key.default {
        Default::Required => ", required".to_owned(),
        Default::None => String::new(),
        Default::Value(value) => format!(", default {value}"),
    };
    roff.text([bold(key.name.clone()), roman(format!(" ({}{default})", key.kind))]);
    roff.text(words(&key.text));
    for choice in &key.choices {
        roff.control("br", []);
        let mut line = vec![bold(format!("\"{}\"", choice.word)), roman(": ")];
        line.extend(words(&choice.text));
        roff.text(line);
    }
}

/// What stands between backticks is bold.
fn words(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    let inline = |(at, part): (usize, &str)| if at % 2 == 1 { bold(part) } else { roman(part) };
    parts.filter(|(_, part)| !part.is_empty()).map(inline).collect()
}

const DESCRIPTION: &[&str] = &[
    "The file is TOML. A key that isn't listed here is an error, which names the line and the nearest key. `postern config check` says whether \
     a file can be used; a running gateway reads it again at SIGHUP, or goes on with what it has and logs why.",
    "Any value can be given by the environment, which wins: `POSTERN_LISTEN__MAX_CLIENTS=100`, and `POSTERN_TARGETS__0__POOL__SIZE=5` for an \
     entry of a list that is there. Durations are strings of numbers with units: `\"250ms\"`, `\"30s\"`, `\"1h 30m\"`.",
];

const FILES: &[(&str, &str)] = &[
    ("/etc/postern/postern.toml", "The configuration."),
    (
        "/etc/postern/environment",
        "Variables for both services, a line each, such as POSTERN_LISTEN__MAX_CLIENTS=100; needn't be there.",
    ),
    (
        "/run/postern/attribute.sock",
        "Where `postern attribute` answers the gateway.",
    ),
    (
        "/var/log/postern/live/audit.jsonl",
        "The audit log. What is rotated goes to `/var/log/postern`, compressed, where the gateway can't write.",
    ),
];

const STATUSES: &[(&str, &str)] = &[
    ("0", "Done, or drained after a signal."),
    (
        "1",
        "Anything that isn't listed here: an address is taken, a check has failed.",
    ),
    ("2", "Wrong arguments."),
    ("78", "The configuration can't be used."),
];
