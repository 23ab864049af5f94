//! The same in shell: `deploy/client/postern-connect`.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use super::{BASTION, Laptop, Running, at_terminal, free_port};
use crate::gateway::{stderr, stdout};

impl Laptop {
    /// It, from a port of this laptop's.
    pub(super) fn script(&self, port: &str, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/client/postern-connect");
        let mut command = self.command(script);
        command
            .args([
                "-r",
                &self.remote_port(),
                "-l",
                port,
                "-u",
                "app_ro",
                "-d",
                "orders",
            ])
            .args(arguments);
        command
    }
}

#[test]
fn in_shell_psql_and_others_run_through_a_forward_as_well() {
    let laptop = Laptop::new();
    let port = free_port();
    let query = "select current_user || '@' || current_database()";
    let output = laptop.output(&mut laptop.script(&port, &["-x", "orders", "psql", "-XAtc", query]));
    assert_eq!(stdout(&output), "app_ro@orders");
    let log = laptop.service.log();
    assert_eq!(
        log[..2],
        ["DescribeInstances", &format!("StartSession {BASTION}")]
    );
    assert!(log.last().unwrap().starts_with("terminated"), "{log:?}");

    let show = "echo $PGHOST:$PGPORT $PGUSER $PGDATABASE; exit 23";
    let output = laptop.output(&mut laptop.script(&port, &["-i", BASTION, "-x", "", "sh", "-c", show]));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("127.0.0.1:{port} app_ro orders")
    );
    assert_eq!(output.status.code(), Some(23), "{}", stderr(&output));
}

#[test]
fn in_shell_what_is_printed_works_when_pasted() {
    let laptop = Laptop::new();
    let mut running = Running::start(&mut laptop.script(&free_port(), &["-p", "orders"]));
    running.wait_for("until Ctrl-C", 1);
    let printed = running.out();
    let line = |start: &str| printed.lines().find(|line| line.starts_with(start)).unwrap();
    std::fs::write(laptop.directory.path().join(".pg_service.conf"), &printed).unwrap();
    let query = "-XAtc \"select current_user || '@' || current_database()\"";
    for script in [
        format!("{} {query}", line("psql ")),
        format!("{}\npsql {query}", line("export ")),
        format!("psql service=orders {query}"),
    ] {
        let output = laptop.command("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(stdout(&output), "app_ro@orders", "{script}");
    }
    running.signal("INT");
    assert_eq!(running.wait().code(), Some(0));
    laptop.nothing_is_left();
}

#[test]
fn in_shell_it_begins_again_and_ctrl_c_is_psqls() {
    let laptop = Laptop::new();
    let port = free_port();
    let mut running = Running::start(&mut at_terminal(&laptop, &laptop.script(&port, &["orders"])));
    let mut input = running.child.stdin.take().unwrap();
    running.wait_for("=>", 1);
    input.write_all(b"select pg_sleep(600);\n").unwrap();
    laptop
        .gateway
        .wait_for_metric("postern_pool_connections", &["state=\"leased\""], 1.0);
    input.write_all(b"\x03").unwrap();
    running.wait_for("canceling statement due to user request", 1);
    running.wait_for("=>", 2);
    assert_eq!(laptop.service.open(), 1);
    laptop.service.cut();
    running.wait_for("the session was cut", 1);
    while laptop.service.open() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    writeln!(input, "select 'lost';").unwrap();
    running.wait_for("connection to the server was lost", 1);
    writeln!(input, "\\c\nselect 'still ' || current_user;").unwrap();
    running.wait_for("still app_ro", 1);
    writeln!(input, "\\q").unwrap();
    assert_eq!(running.wait().code(), Some(0), "{}", running.out());
    laptop.nothing_is_left();
}

#[test]
fn in_shell_nothing_is_left_however_it_ends() {
    let laptop = Laptop::new();
    for (name, number) in [("TERM", 15), ("HUP", 1), ("KILL", 9)] {
        let stays = ["-x", "orders", "sh", "-c", "echo there; exec sleep 1000"];
        let mut running = Running::start(&mut laptop.script(&free_port(), &stays));
        running.wait_for("there", 1);
        running.signal(name);
        assert_eq!(running.wait().signal(), Some(number));
        laptop.nothing_is_left();
        assert!(laptop.service.log().last().unwrap().starts_with("terminated"));
    }
}

#[test]
fn in_shell_errors_say_what_to_do() {
    let laptop = Laptop::new();
    let fails = |arguments: &[&str], parts: &[&str]| {
        let output = laptop.output(laptop.script(&free_port(), arguments).env("AWS_PROFILE", "work"));
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    };
    fails(
        &["-t", "role=other", "-p"],
        &["no running instance has the tag role=other"],
    );
    let expired = "Error when retrieving token from sso: Token has expired and refresh failed";
    for operation in ["DescribeInstances", "StartSession"] {
        laptop.service.set_fault(Some((operation, expired)));
        fails(&["-p"], &[expired, "aws sso login --profile work"]);
    }
    laptop.service.set_fault(None);
    let other = "i-00000000000000009";
    fails(
        &["-i", other, "-p"],
        &["TargetNotConnected", "get-connection-status"],
    );
    std::fs::remove_file(laptop.programs().join("session-manager-plugin")).unwrap();
    fails(&["-p"], &["session-manager-plugin isn't in PATH"]);
}

/// Whatever shellcheck(1) has to say, where it is installed.
#[test]
fn the_script_is_clean() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/client/postern-connect");
    let Ok(output) = Command::new("shellcheck").arg(script).output() else {
        eprintln!("shellcheck isn't installed");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
