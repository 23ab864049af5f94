//! The README names every metric and every configuration key that there is, and no metric that there isn't; the pages in `deploy` name every
//! alert, and only tests, files, metrics and policies that there are.

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

#[test]
fn every_alert_is_in_the_operations_page() {
    let lines = |path: &str, before: &str| -> Vec<String> {
        let text = read(path);
        let names = text.lines().filter_map(|line| line.trim().strip_prefix(before));
        names.map(str::to_owned).collect()
    };
    let alerts = lines("deploy/prometheus/alerts.yml", "- alert: ");
    assert!(alerts.len() > 20);
    assert_eq!(lines("deploy/OPERATIONS.md", "### "), alerts);
}

/// The pages for who runs it.
const PAGES: [&str; 4] = [
    "deploy/README.md",
    "deploy/OPERATIONS.md",
    "deploy/SECURITY.md",
    "deploy/MIGRATION.md",
];

/// The text of all files below `directory` whose names end in `.rs`.
fn code_below(directory: &Path) -> String {
    let mut code = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            code.push_str(&code_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    code
}

#[test]
fn the_pages_name_files_and_metrics_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = metrics(&read("README.md"), '`');
    for page in PAGES {
        let text = read(page);
        for word in text.split('`').skip(1).step_by(2) {
            let name = word.split('{').next().unwrap();
            if name.starts_with("postern_") && !name.contains('.') && name == name.to_lowercase() {
                let family = name.strip_suffix("_sum").unwrap_or(name);
                assert!(known.contains(family), "{page}: {word}");
            }
            let is_path = ["src/", "tests/", "deploy/", "ami/"]
                .iter()
                .any(|top| word.starts_with(top));
            if is_path && !word.contains(' ') {
                assert!(root.join(word).exists(), "{page}: {word}");
            }
        }
        let links = text
            .split("](")
            .skip(1)
            .map(|link| link.split(')').next().unwrap());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            if !file.is_empty() {
                assert!(
                    root.join(page).with_file_name("").join(file).exists(),
                    "{page}: {link}"
                );
            } else {
                let anchor = |heading: &str| -> String {
                    let kept = heading
                        .chars()
                        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
                    kept.collect::<String>().to_lowercase().replace(' ', "-")
                };
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim_start()));
                assert!(anchors.any(|anchor| anchor == part), "{page}: {link}");
            }
        }
    }
}

#[test]
fn each_claim_about_security_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = code_below(&root.join("src")) + &code_below(&root.join("tests"));
    let page = read("deploy/SECURITY.md");
    let is_test = |word: &&str| {
        let is_plain = word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_plain && word.matches('_').count() > 1
    };
    let tests: Vec<_> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(tests.len() > 50);
    for test in tests {
        assert!(code.contains(&format!("fn {test}(")), "{test}");
    }
}

/// What stands in `page` between a line that begins a block of JSON and its end.
fn json_blocks(page: &str) -> Vec<serde_json::Value> {
    let blocks = page.split("\n```json\n").skip(1);
    blocks
        .map(|block| serde_json::from_str(block.split("\n```").next().unwrap()).unwrap())
        .collect()
}

#[test]
fn policies_that_are_written_out_are_terraforms() {
    let expected = |name: &str| -> serde_json::Value {
        serde_json::from_str(&read(&format!("deploy/terraform/tests/expected/{name}.json"))).unwrap()
    };
    let statements = |policy: &serde_json::Value| policy["Statement"].as_array().unwrap().clone();
    let blocks = json_blocks(&read("deploy/README.md"));
    let [role, optional, session, person] = blocks.as_slice() else {
        panic!("{} blocks", blocks.len())
    };
    assert_eq!(*session, expected("session"));

    // The people's is the whole of it, and the role's what isn't the image's; databases are examples.
    let alike = |written: &serde_json::Value, made: &serde_json::Value| {
        let lists =
            [written, made].map(|statement| statement["Resource"].as_array().cloned().unwrap_or_default());
        let mut written = written.clone();
        if lists[0].iter().all(|resource| lists[1].contains(resource)) && !lists[0].is_empty() {
            written["Resource"] = made["Resource"].clone();
        }
        assert_eq!(written, *made);
    };
    let made = statements(&expected("person"));
    assert_eq!(statements(person).len(), made.len());
    for (written, made) in statements(person).iter().zip(&made) {
        alike(written, made);
    }
    let made = statements(&expected("bastion"));
    for written in &statements(role) {
        let made = made.iter().find(|made| made["Sid"] == written["Sid"]);
        alike(written, made.unwrap_or_else(|| panic!("{written}")));
    }
    let template = read("deploy/terraform/policies/bastion.json.tftpl");
    let without_spaces = |text: &str| text.replace([' ', '\n'], "");
    for written in optional.as_array().unwrap() {
        let sid = written["Sid"].as_str().unwrap();
        let (_, rest) = template.split_once(&format!("\"Sid\": \"{sid}\"")).unwrap();
        let made = format!("{{\"Sid\":\"{sid}\"{}}}", rest.split('}').next().unwrap());
        let made: serde_json::Value = serde_json::from_str(&without_spaces(&made)).unwrap();
        assert_eq!(*written, made);
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
