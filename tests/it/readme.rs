//! The README names every metric and every configuration key that there is, and no metric that there isn't.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names that begin with `postern_` and stand between two of `quote`.
fn metrics(text: &str, quote: char) -> BTreeSet<String> {
    text.split(quote)
        .filter(|word| {
            word.starts_with("postern_") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_is_in_the_readme() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics");
    let code: String = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(metrics(&read("README.md"), '`'), metrics(&code, '"'));
}

#[test]
fn every_key_is_in_the_readme() {
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["config", "schema"])
        .output()
        .unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let readme = read("README.md");
    let mut keys = Vec::new();
    collect(&schema, &mut keys);
    assert!(keys.len() > 30, "{keys:?}");
    let table: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for key in keys {
        let named = |line: &&str| line.split(['`', '.', ' ', ',', '[', ']']).any(|word| word == key);
        assert!(table.iter().any(named), "{key} is missing in the README");
    }
}

fn collect(schema: &serde_json::Value, keys: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(map) => map.values().for_each(|value| collect(value, keys)),
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, keys)),
        _ => {}
    }
}
