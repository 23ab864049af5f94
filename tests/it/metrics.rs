//! What is measured, and what is made of it: the README's table, the alerts, the dashboard, and a real Prometheus that reads all that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options, PATIENCE, free_port, stdout};
use crate::raw::Raw;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// The README's table: each metric with its type and its labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `postern_"));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(str::to_owned).collect();
        (
            cells[1].trim_matches('`').to_owned(),
            (cells[2].to_owned(), labels),
        )
    };
    rows.map(row).collect()
}

/// What an exposition has: each metric with its type and its labels.
fn exposed(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut metrics = BTreeMap::new();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
        metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| metrics.get_key_value(name.strip_suffix(part)?));
        let family = family.map_or(name, |(family, _)| family).to_owned();
        let labels = rest
            .split("\",")
            .filter_map(|label| label.trim_start_matches(',').split_once("=\""));
        let labels = labels
            .map(|(name, _)| name.to_owned())
            .filter(|name| name != "le");
        metrics.get_mut(&family).unwrap().1.extend(labels);
    }
    metrics.retain(|name, _| name.starts_with("postern_"));
    metrics
}

fn busy() -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = Gateway::start(&lab, &Options::default());
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("select 1");
    (lab, gateway)
}

#[test]
fn the_exposition_is_what_the_readme_says() {
    let (_lab, gateway) = busy();
    let (documented, exposed) = (documented(), exposed(&gateway.page("/metrics").unwrap().1));
    assert!(exposed.len() > 40);
    for (name, found) in &exposed {
        assert_eq!(documented.get(name), Some(found), "{name}");
    }
    let missing: Vec<_> = documented
        .keys()
        .filter(|name| !exposed.contains_key(*name))
        .collect();
    // Of these there is nothing before somebody cancels, is tied, or comes through Session Manager or with a proof.
    assert_eq!(
        missing,
        [
            "postern_attribution_total",
            "postern_cancel_requests_total",
            "postern_pool_pins_total",
            "postern_sts_proofs_total"
        ]
    );
}

#[test]
fn every_kind_of_error_is_in_the_readme() {
    let (_lab, gateway) = busy();
    let (_, page) = gateway.page("/metrics").unwrap();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let row = readme
        .lines()
        .find(|line| line.starts_with("| `postern_client_errors_total`"))
        .unwrap();
    let kinds = page.lines().filter_map(|line| {
        line.strip_prefix("postern_client_errors_total{kind=\"")?
            .split_once('"')
    });
    let kinds: Vec<_> = kinds.map(|(kind, _)| kind).collect();
    assert!(kinds.len() > 15);
    for kind in kinds {
        assert!(row.contains(&format!("`{kind}`")), "{kind}");
    }
}

#[test]
fn alerts_and_dashboard_look_at_metrics_that_there_are() {
    let documented = documented();
    for file in ["prometheus/alerts.yml", "grafana/postern.json"] {
        let text = std::fs::read_to_string(deploy(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: BTreeSet<_> = words.filter(|word| word.starts_with("postern_")).collect();
        assert!(names.len() > 15, "{file}");
        for name in names {
            let is_there = ["_bucket", "_count", "_sum", ""].iter().any(|part| {
                let family = name.strip_suffix(part);
                family.is_some_and(|family| {
                    documented
                        .get(family)
                        .is_some_and(|(kind, _)| part.is_empty() || kind == "histogram")
                })
            });
            assert!(is_there, "{file}: {name}");
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(deploy("grafana/postern.json")).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 20);
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(deploy("prometheus"))
            .output();
        stdout(&output.expect("promtool: tests/run installs it"))
    };
    assert!(promtool(&["check", "rules", "alerts.yml"]).contains("25 rules found"));
    promtool(&["test", "rules", "alerts-test.yml"]);
    let tests = std::fs::read_to_string(deploy("prometheus/alerts-test.yml")).unwrap();
    let alerts = std::fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    for name in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        // Once where it fires, and once where it doesn't.
        assert_eq!(
            tests.matches(&format!("alertname: {name}\n")).count(),
            2,
            "{name}"
        );
    }
}

/// A Prometheus that scrapes a gateway.
struct Prometheus {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(gateway: &Gateway) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
             scrape_configs: [{{job_name: postern, static_configs: [{{targets: [\"127.0.0.1:{}\"]}}]}}]\n",
            deploy("prometheus/alerts.yml"),
            gateway.admin
        );
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let port = free_port();
        let child = Command::new("prometheus")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!(
                "--config.file={}",
                directory.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus: tests/run installs it");
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    fn get(&self, path: &str) -> Option<serde_json::Value> {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(tcp, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").ok()?;
        let mut text = String::new();
        tcp.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    /// Waits until an answer is as wanted.
    fn until(&self, path: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let began = Instant::now();
        loop {
            match self.get(path) {
                Some(answer) if is_it(&answer) => return answer,
                answer => assert!(began.elapsed() < PATIENCE, "{path}: {answer:?}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_it_and_its_alerts_are_quiet() {
    let (_lab, gateway) = busy();
    let prometheus = Prometheus::start(&gateway);
    let value = |answer: &serde_json::Value| {
        answer["data"]["result"][0]["value"][1]
            .as_str()
            .map(str::to_owned)
    };
    let is =
        |wanted: &'static str| move |answer: &serde_json::Value| value(answer).as_deref() == Some(wanted);
    prometheus.until("/api/v1/query?query=up", is("1"));
    prometheus.until("/api/v1/query?query=postern_ready", is("1"));
    let logins = "/api/v1/query?query=postern_client_logins_total%7Bsource%3D%22trust%22%7D";
    prometheus.until(logins, is("1"));
    let evaluated = |answer: &serde_json::Value| {
        let rules = answer["data"]["groups"][0]["rules"].as_array();
        rules.is_some_and(|rules| rules.len() == 25 && rules.iter().all(|rule| rule["health"] == "ok"))
    };
    let rules = prometheus.until("/api/v1/rules", evaluated);
    for rule in rules["data"]["groups"][0]["rules"].as_array().unwrap() {
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
}
