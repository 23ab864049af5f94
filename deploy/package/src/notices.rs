//! The licences of what is in the program and isn't ours. Nearly all of them ask that their text goes along with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The package whose program it is.
const PROGRAM: &str = "pg-postern";

/// How files begin that a licence, or what it asks for, is in.
const FILES: &[&str] = &[
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// Each text once, with whose it is.
pub(crate) fn page() -> anyhow::Result<String> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])?)?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let used = used()?;
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    let mut without = String::new();
    for package in packages.context("no packages")? {
        let part = |key| package.get(key).and_then(Value::as_str).unwrap_or_default();
        if !used.contains(&format!("{} v{}", part("name"), part("version"))) {
            continue;
        }
        let called = format!("{} {} ({})", part("name"), part("version"), part("license"));
        let directory = Path::new(part("manifest_path")).parent();
        let found = texts_in(directory.context("a package without a place")?)?;
        if found.is_empty() {
            without += &format!("{called}: {}\n", part("repository"));
        }
        for text in found {
            texts.entry(text).or_default().push(called.clone());
        }
    }
    ensure!(texts.len() > 10, "hardly any licence was found");
    let mut page = format!("{HEAD}\n{without}");
    for (text, whose) in &texts {
        page += &format!("\n{LINE}\n{}\n{LINE}\n\n{text}\n", whose.join("\n"));
    }
    Ok(page)
}

/// What the program is built of, without what only builds or tests it, as `name v1.2.3`.
fn used() -> anyhow::Result<BTreeSet<String>> {
    let edges = "normal,no-proc-macro";
    let tree = cargo(&[
        "tree",
        "--package",
        PROGRAM,
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let names = tree.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?))
    });
    Ok(names.filter(|name| !name.starts_with(PROGRAM)).collect())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("cargo")
        .args(arguments)
        .args(["--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn texts_in(directory: &Path) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        if FILES.iter().any(|begin| name.starts_with(begin)) && path.is_file() {
            let text = fs::read(&path)?;
            texts.push(String::from_utf8_lossy(&text).replace('\r', "").trim().to_owned());
        }
    }
    texts.sort();
    Ok(texts)
}

const LINE: &str = "================================================================================";

const HEAD: &str = "\
Postern is under the Apache License 2.0. What follows is about the packages of others that its program is built of, and
is theirs. Of these, the following have no text of a licence of their own, but the one that they name:
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_program_is_named_and_what_tests_it_is_not() -> anyhow::Result<()> {
        let page = page()?;
        for name in ["aws-lc-sys ", "rustls ", "tokio ", "serde_json "] {
            assert!(page.contains(&format!("\n{name}")), "{name}");
        }
        for name in [
            "ring ",
            "proptest ",
            "clap_mangen ",
            "postern-lab ",
            "pg-postern ",
        ] {
            assert!(!page.contains(&format!("\n{name}")), "{name}");
        }
        assert!(page.contains("Permission is hereby granted"));
        Ok(())
    }
}
