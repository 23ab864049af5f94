//! `postern check`: a healthy lab, and each of the faults that it must name, with cause and remedy.
//!
//! Every run is also held to what is promised of all: one login for each user at most, and nothing secret in what is printed.

mod aws;
mod database;
mod host;
mod network;
mod start;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use postern_lab::{Lab, LabConfig};
use serde_json::Value;

use crate::gateway::free_port;

const STATEMENT_FOR_APP_RW: &str = r#"{"Effect": "Allow", "Action": "rds-db:connect", "Resource": "arn:aws:rds-db:us-east-1:123456789012:dbuser:cluster-POSTERNLAB0000000000001/app_rw"}"#;

/// A configuration that is right for a lab, to be changed where a test wants it.
struct Setup {
    lab: Lab,
    directory: tempfile::TempDir,
    listen: SocketAddr,
    max_clients: usize,
    admin: SocketAddr,
    identity: String,
    endpoint: String,
    region: String,
    dial: Option<SocketAddr>,
    databases: &'static [&'static str],
    users: &'static [&'static str],
    pool: &'static str,
    /// Other targets.
    others: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    fn new() -> Self {
        Self::with(LabConfig::default())
    }

    fn with(config: LabConfig) -> Self {
        let lab = Lab::start(config).unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            listen: SocketAddr::from(([127, 0, 0, 1], free_port())),
            max_clients: 100,
            admin: SocketAddr::from(([127, 0, 0, 1], free_port())),
            identity: "sources = [\"trust\"]".to_owned(),
            endpoint: format!("{}:{}", lab.endpoint_host(), lab.endpoint_port()),
            region: lab.region().to_owned(),
            dial: Some(lab.dial_address()),
            databases: &["orders"],
            users: &["app_ro", "app_rw"],
            pool: "size = 20",
            others: String::new(),
            environment: lab.env(),
            lab,
        }
    }

    fn file(&self) -> PathBuf {
        let Self {
            listen,
            max_clients,
            admin,
            identity,
            endpoint,
            region,
            databases,
            users,
            pool,
            others,
            ..
        } = self;
        let mut text = format!(
            "[listen]\naddresses = [\"{listen}\"]\nmax_clients = {max_clients}\n[admin]\nhttp = \"{admin}\"\n[identity]\n{identity}\n\
             [[targets]]\nname = \"orders\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\ntls_ca_file = {:?}\n\
             databases = {databases:?}\nusers = {users:?}\n",
            self.lab.ca_file()
        );
        if let Some(dial) = self.dial {
            writeln!(text, "dial_address = \"{dial}\"").unwrap();
        }
        writeln!(text, "[targets.pool]\n{pool}\n{others}").unwrap();
        let path = self.directory.path().join("postern.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.arg("check").arg("--config").arg(self.file());
        self.run(command.args(arguments))
    }

    fn run(&self, command: &mut Command) -> Output {
        let before = self.lab.logins().len();
        let output = command
            .env_clear()
            .envs(self.environment.iter().cloned())
            .output()
            .unwrap();
        let mut by_user: BTreeMap<String, usize> = BTreeMap::new();
        for login in self.lab.logins().into_iter().skip(before) {
            *by_user.entry(login.user).or_default() += 1;
        }
        assert!(by_user.values().all(|logins| *logins == 1), "{by_user:?}");
        let key = self.lab.imds().current_key().unwrap();
        let shown = [&output.stdout[..], &output.stderr[..]].concat();
        let shown = String::from_utf8_lossy(&shown);
        let session = key.session_token.unwrap();
        for secret in ["X-Amz-", key.secret.as_str(), session.as_str()] {
            assert!(!shown.contains(secret), "{shown}");
        }
        output
    }

    /// What is found with these further arguments.
    fn check(&self, arguments: &[&str]) -> Found {
        Found::of(&self.output(&[&["--json"], arguments].concat()))
    }
}

/// The findings of a run.
#[derive(Debug)]
struct Found {
    findings: Vec<Value>,
    status: i32,
}

impl Found {
    fn of(output: &Output) -> Self {
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
        let findings = report["findings"].as_array().unwrap().clone();
        let has_failed = findings.iter().any(|finding| finding["state"] == "failed");
        assert_eq!(report["ok"], !has_failed);
        let status = output.status.code().unwrap();
        assert_eq!(status, i32::from(has_failed), "{errors}");
        for finding in &findings {
            let is_wrong = is_wrong(finding);
            assert_eq!(finding["cause"].is_string(), is_wrong, "{finding}");
            assert_eq!(finding["remedy"].is_string(), is_wrong, "{finding}");
        }
        Self { findings, status }
    }

    /// The findings that aren't well, as `state check (subject)`.
    fn wrong(&self) -> Vec<String> {
        let wrong = self.findings.iter().filter(|finding| is_wrong(finding));
        wrong
            .map(|finding| {
                let text = |key: &str| finding[key].as_str().unwrap().to_owned();
                format!("{} {} ({})", text("state"), text("check"), text("subject"))
            })
            .collect()
    }

    /// This is found and nothing else, with these parts in its cause and its remedy.
    #[track_caller]
    fn only(&self, state: &str, check: &str, cause: &str, remedy: &str) {
        let wrong = self.wrong();
        assert_eq!(wrong.len(), 1, "{self:#?}");
        assert!(wrong[0].starts_with(&format!("{state} {check} (")), "{wrong:?}");
        self.has(state, check, cause, remedy);
    }

    /// This is found, with these parts in its cause and its remedy.
    #[track_caller]
    fn has(&self, state: &str, check: &str, cause: &str, remedy: &str) {
        let found = self
            .findings
            .iter()
            .find(|finding| finding["check"] == check && finding["state"] == state);
        let found = found.unwrap_or_else(|| panic!("no {check} {state} in {self:#?}"));
        assert!(found["cause"].as_str().unwrap().contains(cause), "{found:#}");
        assert!(found["remedy"].as_str().unwrap().contains(remedy), "{found:#}");
    }

    /// How a check of something has ended, and what is told of it.
    #[track_caller]
    fn of_check(&self, check: &str, subject: &str) -> (String, String) {
        let found = self
            .findings
            .iter()
            .find(|finding| finding["check"] == check && finding["subject"] == subject);
        let found = found.unwrap_or_else(|| panic!("no {check} ({subject}) in {self:#?}"));
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        (text("state"), text("detail"))
    }

    #[track_caller]
    fn is_like(&self, check: &str, subject: &str, state: &str, detail: &str) {
        let found = self.of_check(check, subject);
        assert_eq!((found.0.as_str(), found.1.as_str()), (state, detail));
    }

    /// It was skipped because of that.
    #[track_caller]
    fn skips(&self, check: &str, subject: &str, because: &str) {
        self.is_like(check, subject, "skipped", &format!("because of {because}"));
    }
}

fn is_wrong(finding: &Value) -> bool {
    finding["state"] == "failed" || finding["state"] == "warning"
}

#[test]
fn a_healthy_lab_is_all_ok_and_costs_one_login_for_each_user() {
    let setup = Setup::new();
    let found = setup.check(&[]);
    assert_eq!(found.status, 0);
    assert!(
        found.findings.iter().all(|finding| finding["state"] == "ok"),
        "{found:#?}"
    );
    let mut users: Vec<String> = setup.lab.logins().into_iter().map(|login| login.user).collect();
    users.sort();
    assert_eq!(users, ["app_ro", "app_rw"]);
    let mut checks: Vec<&str> = found
        .findings
        .iter()
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    checks.dedup();
    assert_eq!(
        checks,
        [
            "files",
            "listen",
            "imds",
            "role",
            "clock",
            "caller",
            "dns",
            "tcp",
            "tls",
            "rds",
            "iam_auth",
            "token",
            "login",
            "rds_iam",
            "login",
            "rds_iam",
            "database",
            "connections"
        ]
    );
    let (_, login) = found.of_check("login", "app_ro@orders");
    for phase in ["connect ", "tls ", "budget ", "login "] {
        assert!(login.contains(phase), "{login}");
    }
}

#[test]
fn users_of_several_targets_at_one_endpoint_log_in_once() {
    let mut setup = Setup::new();
    setup.others = format!(
        "[[targets]]\nname = \"reports\"\nendpoint = \"{}\"\ndial_address = \"{}\"\ntls_ca_file = {:?}\n\
         databases = [\"orders\"]\nusers = [\"app_ro\", \"odd user+x\"]\n",
        setup.endpoint,
        setup.lab.dial_address(),
        setup.lab.ca_file()
    );
    let found = setup.check(&[]);
    assert_eq!(found.wrong(), [""; 0]);
    assert_eq!(found.of_check("login", "odd user+x@reports").0, "ok");
    assert_eq!(setup.lab.logins().len(), 3);
    let found = setup.check(&["--target", "reports"]);
    assert_eq!(found.of_check("login", "app_ro@reports").0, "ok");
    let others: Vec<_> = found
        .findings
        .iter()
        .filter(|finding| {
            finding["subject"].as_str().unwrap().ends_with("orders") && finding["check"] != "database"
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let (_, room) = found.of_check("connections", &setup.endpoint);
    assert!(
        room.starts_with("pools 80 of 1 gateway(s)"),
        "pools of both: {room}"
    );
}

#[test]
fn lines_for_people_have_cause_and_remedy_under_them() {
    let setup = Setup::new();
    let output = setup.output(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        text.lines()
            .all(|line| line.starts_with("ok  ") || line.contains(" checks: ")),
        "{text}"
    );
    assert!(
        text.ends_with("\n19 checks: 19 ok, 0 warning, 0 failed, 0 skipped\n"),
        "{text}"
    );
    setup.lab.superuser_sql("revoke rds_iam from app_rw").unwrap();
    let output = setup.output(&[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with("failed   rds_iam "))
        .unwrap();
    assert!(lines[at].contains("app_rw@orders"), "{text}");
    assert!(
        lines[at + 1].starts_with("    why: \"app_rw\" isn't a member of rds_iam"),
        "{text}"
    );
    assert_eq!(lines[at + 2], "    do:  GRANT rds_iam TO \"app_rw\";");
    assert!(
        lines.last().unwrap().ends_with("0 warning, 1 failed, 1 skipped"),
        "{text}"
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("1 of 19 checks failed"),
        "{output:?}"
    );
}

#[test]
fn what_can_not_be_checked_has_an_exit_status_of_its_own() {
    let setup = Setup::new();
    let status = |output: Output| {
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = status(setup.output(&["--target", "nowhere"]));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("there is no target \"nowhere\"; there are: orders"),
        "{error}"
    );
    let (code, _) = status(setup.output(&["--gateways", "0"]));
    assert_eq!(code, Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    let (code, error) = status(setup.run(command.args(["check", "--config", "/nowhere"])));
    assert_eq!(code, Some(78));
    assert!(error.contains("/nowhere"), "{error}");
    assert!(setup.lab.logins().is_empty());
}
