//! What the bastion's role may do in AWS is what the program asks there and what is listed here, and nothing else; likewise what people
//! may do and what `postern connect` has `aws` do. The policies are the texts that Terraform fills in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Asked in the name of the bastion's role by others than this program.
const OTHERS: &[(&str, &str)] = &[
    ("ssm:GetParameter", "the image: postern.toml, and what to ship"),
    (
        "kms:Decrypt",
        "Parameter Store, for whoever reads a parameter that has a key of its own",
    ),
    ("ssm:UpdateInstanceInformation", "the SSM agent: that it is there"),
    (
        "ssmmessages:CreateControlChannel",
        "the SSM agent: to be told of sessions",
    ),
    (
        "ssmmessages:OpenControlChannel",
        "the SSM agent: to be told of sessions",
    ),
    (
        "ssmmessages:CreateDataChannel",
        "the SSM agent: a session's bytes",
    ),
    ("ssmmessages:OpenDataChannel", "the SSM agent: a session's bytes"),
    (
        "logs:CreateLogStream",
        "the CloudWatch agent: one for each bastion",
    ),
    ("logs:PutLogEvents", "the CloudWatch agent"),
    (
        "autoscaling:CompleteLifecycleAction",
        "the image: that it is ready",
    ),
];

/// Asked in people's name by others than `postern connect` itself.
const PLUGINS: &[(&str, &str)] = &[
    (
        "ssm:TerminateSession",
        "the session-manager-plugin, at its end; aws, if that is missing",
    ),
    (
        "ssm:ResumeSession",
        "the session-manager-plugin, when it was cut off",
    ),
    (
        "ssmmessages:OpenDataChannel",
        "the session-manager-plugin: a session's bytes",
    ),
];

/// How the names of operations begin.
const VERBS: &[&str] = &[
    "add",
    "authorize",
    "complete",
    "create",
    "delete",
    "describe",
    "failover",
    "get",
    "list",
    "modify",
    "put",
    "reboot",
    "remove",
    "resume",
    "send",
    "start",
    "stop",
    "terminate",
    "update",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// As IAM compares them: case doesn't count.
fn lower(actions: impl IntoIterator<Item = impl AsRef<str>>) -> BTreeSet<String> {
    actions
        .into_iter()
        .map(|action| action.as_ref().to_ascii_lowercase())
        .collect()
}

/// The statements of a policy, by name; what Terraform fills in stays as it is written.
fn statements(name: &str) -> BTreeMap<String, Value> {
    let text = read(format!("deploy/terraform/policies/{name}.json.tftpl"));
    let json: String = text
        .lines()
        .map(|line| match line.split_once(": ${") {
            Some((key, rest)) => {
                let (filled, rest) = rest.split_once('}').unwrap();
                format!("{key}: \"{filled}\"{rest}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    let policy: Value = serde_json::from_str(&json).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let named = statements
        .iter()
        .map(|statement| (statement["Sid"].as_str().unwrap().to_owned(), statement.clone()));
    let named: BTreeMap<_, _> = named.collect();
    assert_eq!(named.len(), statements.len(), "two of {name} have one Sid");
    named
}

fn actions(statement: &Value) -> BTreeSet<String> {
    let action = &statement["Action"];
    match action.as_array() {
        Some(actions) => lower(actions.iter().map(|action| action.as_str().unwrap())),
        None => lower([action.as_str().unwrap()]),
    }
}

fn allowed(policy: &str) -> BTreeSet<String> {
    statements(policy)
        .values()
        .filter(|statement| statement["Effect"] == "Allow")
        .flat_map(actions)
        .collect()
}

/// The program's sources, without tests and comments, and what is left without blanks.
fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code = code.flat_map(|line| line.chars().filter(|c| !c.is_whitespace()));
            found.push((path, code.collect()));
        }
    }
}

/// The word that `text` begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// What one file asks of AWS, in IAM's words. A way to ask that this doesn't know fails the test.
fn asked_in(path: &Path, code: &str) -> Vec<String> {
    let mut asked = Vec::new();
    // By the SDK: client.describe_db_instances()…send().
    let services: BTreeSet<&str> = code.split("aws_sdk_").skip(1).map(word).collect();
    if !services.is_empty() {
        assert_eq!(
            services.len(),
            1,
            "{}: one service to a file, so that it is clear whose a call is",
            path.display()
        );
        let service = services.first().unwrap();
        let called = code
            .split('.')
            .map(|call| (word(call), call))
            .filter(|(name, call)| {
                let verb = name.split('_').next().unwrap_or_default();
                name.contains('_') && VERBS.contains(&verb) && call[name.len()..].starts_with("()")
            });
        let before = asked.len();
        asked.extend(called.map(|(name, _)| format!("{service}:{}", name.replace('_', ""))));
        let sent = code.matches(".send()").count();
        assert!(
            asked.len() - before >= sent,
            "{}: {sent} requests are sent, of which only these are known: {asked:?}; see VERBS",
            path.display()
        );
    }
    // By hand, with JSON.
    for named in code.split("\"x-amz-target\",\"").skip(1) {
        let (service, operation) = named.split('"').next().unwrap().split_once('.').unwrap();
        let service = match service {
            "AmazonSSM" => "ssm",
            other => panic!("{}: by which name does IAM know {other}?", path.display()),
        };
        asked.push(format!("{service}:{operation}"));
    }
    // By hand, with a query.
    for named in code.split("Action=").skip(1) {
        match word(named) {
            "connect" => asked.push("rds-db:connect".to_owned()),
            // Whoever has credentials may ask whose they are (STS API Reference).
            "GetCallerIdentity" => {}
            other => panic!("{}: of which service is {other}?", path.display()),
        }
    }
    asked
}

#[test]
fn the_bastion_may_do_what_is_asked_of_it_and_nothing_else() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let asked = lower(files.iter().flat_map(|(path, code)| asked_in(path, code)));
    for expected in [
        "rds-db:connect",
        "rds:describedbinstances",
        "rds:describedbclusters",
        "ssm:describesessions",
    ] {
        assert!(asked.contains(expected), "{expected} isn't seen in {asked:?}");
    }
    let others = lower(OTHERS.iter().map(|(action, _)| action));
    assert!(
        asked.is_disjoint(&others),
        "asked by the program after all: {:?}",
        asked.intersection(&others)
    );
    let needed: BTreeSet<String> = asked.union(&others).cloned().collect();
    let granted = allowed("bastion");
    let lacking: Vec<_> = needed.difference(&granted).collect();
    let idle: Vec<_> = granted.difference(&needed).collect();
    assert!(
        lacking.is_empty() && idle.is_empty(),
        "deploy/terraform/policies/bastion.json.tftpl lacks {lacking:?}, and grants what nobody asks: {idle:?}"
    );
}

#[test]
fn people_may_do_what_connecting_takes_and_nothing_else() {
    // "ssm", "start-session": as arguments of aws.
    let mut files = Vec::new();
    sources(&root().join("src/cli/connect"), &mut files);
    let code: String = files.into_iter().map(|(_, code)| code).collect();
    let mut needed = lower(PLUGINS.iter().map(|(action, _)| action));
    for service in ["ec2", "ssm", "sts", "sso", "rds", "iam"] {
        for command in code.split(&format!("\"{service}\",\"")).skip(1) {
            let command = command.split('"').next().unwrap_or_default();
            needed.insert(format!("{service}:{}", command.replace('-', "")));
        }
    }
    assert!(needed.contains("ssm:startsession"), "{needed:?}");
    assert_eq!(allowed("person"), needed);
}

#[test]
fn what_a_check_says_to_add_is_what_the_policy_has() {
    let granted: Vec<BTreeSet<String>> = statements("bastion").values().map(actions).collect();
    let mut files = vec![(PathBuf::from("README.md"), read("README.md").replace(' ', ""))];
    sources(&root().join("src/cli"), &mut files);
    let mut seen = 0;
    for (path, text) in files {
        for said in text.split("\"Effect\":\"Allow\",\"Action\":").skip(1) {
            let said = match said.strip_prefix('[') {
                Some(list) => list.split(']').next().unwrap(),
                None => said.split(',').next().unwrap(),
            };
            let said = lower(said.split(',').map(|action| action.trim_matches('"')));
            assert!(
                granted.contains(&said),
                "{}: the bastion's policy has no statement for {said:?}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} statements are seen");
    // Named, and not written out.
    for name in ["BeManaged", "CarrySessions"] {
        assert!(read("src/cli/check/ssm.rs").contains(name));
        assert!(
            statements("bastion").contains_key(name),
            "{name} is called otherwise"
        );
    }
}

#[test]
fn connecting_finds_the_bastion_that_terraform_makes() {
    let tag = "postern=bastion";
    assert!(read("src/cli/connect.rs").contains(&format!("default_value = \"{tag}\"")));
    let (key, value) = tag.split_once('=').unwrap();
    let default = format!("{{ key = \"{key}\", value = \"{value}\" }}");
    assert!(read("deploy/terraform/variables.tf").contains(&default));
}

#[test]
fn what_terraform_writes_is_a_configuration() {
    // The unit lets the gateway write nowhere else.
    let audit_log = "file = \"/var/log/postern/live/audit.jsonl\"";
    assert!(read("deploy/package/postern.toml").contains(audit_log));
    assert!(read("deploy/terraform/tests/expected/postern.toml").contains(audit_log));
    for file in ["postern.toml", "discovered.toml"] {
        let checked = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["config", "check", "--config"])
            .arg(root().join("deploy/terraform/tests/expected").join(file))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{file}: {said}");
    }
}
