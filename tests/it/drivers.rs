//! Real clients doing their ordinary work, against every PostgreSQL that is at hand.
//!
//! What these need is prepared by `tests/run` and found through `POSTERN_TEST_ENV`; without it, a test says so and
//! passes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, Options, PATIENCE, stderr};

/// A lab as a process of its own, so that it can have a PostgreSQL of its own choice.
struct Outside {
    child: Child,
    directory: tempfile::TempDir,
}

impl Outside {
    fn start(bin: &Path, program: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(["up", "--dir"])
            .arg(directory.path())
            .env("PGBIN", bin)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !directory.path().join("ready").exists() {
            assert!(Instant::now() < deadline, "the lab isn't ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, directory }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn environment() -> Option<PathBuf> {
    let directory = std::env::var_os("POSTERN_TEST_ENV")
        .map(PathBuf::from)
        .filter(|directory| directory.is_dir());
    if directory.is_none() {
        println!("skipped: POSTERN_TEST_ENV isn't set; tests/run prepares it");
    }
    directory
}

/// Runs each of `commands`, and then `check`.
fn work(major: &str, pool: &'static str, commands: &[&[&str]], check: fn(&Gateway)) {
    let Some(environment) = environment() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lab_program = Path::new(env!("CARGO_BIN_EXE_postern")).with_file_name("postern-lab");
    assert!(
        lab_program.exists(),
        "{} isn't built: cargo build --workspace --bins",
        lab_program.display()
    );
    let lab = Outside::start(&environment.join(major).join("bin"), &lab_program);
    let gateway = Gateway::before(
        lab.directory.path(),
        &Options {
            pool,
            ..Options::default()
        },
    );
    for command in commands {
        let program = match command[0] {
            "python3" => environment.join("venv/bin/python3"),
            other => PathBuf::from(other),
        };
        let output = Command::new(program)
            .arg(root.join("tests/drivers").join(command[1]))
            .args(["127.0.0.1", &gateway.port.to_string(), "app_rw", "orders"])
            .args(&command[2..])
            .env("CLASSPATH", PGJDBC)
            .env("NODE_PATH", environment.join("node/node_modules"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{major} {command:?}: {said}{}",
            stderr(&output)
        );
        println!("{major}: {}", said.trim());
        check(&gateway);
    }
    assert_eq!(gateway.metric("postern_panics_total", &[]), 0.0);
}

/// Debian's, which `tests/run` installs.
const PGJDBC: &str = "/usr/share/java/postgresql.jar";

const ORDINARY: &[&[&str]] = &[
    &["python3", "psycopg_work.py"],
    &["python3", "asyncpg_work.py"],
    &["node", "node_work.js"],
    &["python3", "libpq18_work.py"],
    &["bash", "pgbench_work.sh"],
    &["bash", "copy_gigabyte.sh", "64"],
];

#[test]
fn drivers_work_with_postgresql_15() {
    work("pg15", "size = 80", ORDINARY, |_| {});
}

#[test]
fn drivers_work_with_postgresql_17() {
    work("pg17", "size = 80", ORDINARY, |_| {});
}

#[test]
fn drivers_work_with_postgresql_18() {
    work("pg18", "size = 80", ORDINARY, |_| {});
}

/// pgbench's own work isn't among it: it prepares statements while its other clients' transactions wait for it, so it
/// needs a connection for each of them through any pooler.
const SHARED: &[&[&str]] = &[
    &["python3", "psycopg_work.py"],
    &["python3", "asyncpg_work.py"],
    &["node", "node_work.js"],
    &["python3", "libpq18_work.py"],
    &["bash", "copy_gigabyte.sh", "64"],
];

#[test]
fn drivers_work_on_shared_connections_of_postgresql_15() {
    work("pg15", "mode = \"auto\"\nsize = 3", SHARED, |_| {});
}

#[test]
fn drivers_work_on_shared_connections_of_postgresql_18() {
    work("pg18", "mode = \"auto\"\nsize = 3", SHARED, |_| {});
}

/// Fifty clients of each kind, each with settings of its own: 25 for each server connection.
const CROWDS: &[&[&str]] = &[
    &["python3", "crowd.py", "psycopg"],
    &["python3", "crowd.py", "asyncpg"],
    &["python3", "crowd.py", "sqlalchemy"],
    &["python3", "crowd.py", "django"],
    &["python3", "crowd.py", "rails"],
    &["node", "crowd.js"],
    &["java", "Crowd.java"],
];

#[test]
fn crowds_work_on_two_connections_and_nothing_ties_them() {
    work("pg15", "mode = \"auto\"\nsize = 2", CROWDS, |gateway| {
        let log = gateway.log();
        let tied: Vec<_> = log
            .lines()
            .filter(|line| line.contains("keeps its server"))
            .collect();
        assert_eq!(gateway.metric("postern_pool_pins_total", &[]), 0.0, "{tied:?}");
        let connections = gateway.metric("postern_pool_connections", &["app_rw"]);
        assert!(connections <= 2.0, "{connections} server connections");
        assert_eq!(gateway.metric("postern_pool_discards_total", &["app_rw"]), 0.0);
    });
}
