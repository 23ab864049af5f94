//! How it ends: with its command, or by a signal, and nothing is left.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Laptop, Running, at_terminal, lines, signal};

/// A command that says when it is there, and runs until it is told to end.
const STAYS: &[&str] = &["--exec", "sh", "-c", "echo there; exec sleep 1000"];

#[test]
fn a_signal_ends_all_of_it() {
    let laptop = Laptop::new();
    for (name, number) in [("TERM", 15), ("HUP", 1)] {
        let mut running = Running::start(&mut laptop.to_orders(STAYS));
        running.wait_for("there", 1);
        running.signal(name);
        assert_eq!(running.wait().code(), Some(128 + number), "{}", running.error());
        assert!(laptop.processes().is_empty(), "{:?}", laptop.processes());
        laptop.nothing_is_left();
    }
    // A command that doesn't listen is killed.
    let deaf = [
        "--exec",
        "sh",
        "-c",
        "trap '' TERM; echo there; while :; do sleep 0.1; done",
    ];
    let mut running = Running::start(&mut laptop.to_orders(&deaf));
    running.wait_for("there", 1);
    running.signal("TERM");
    assert_eq!(running.wait().code(), Some(128 + 15));
    laptop.nothing_is_left();
    let terminated = laptop.service.log();
    let terminated = terminated.iter().filter(|line| line.starts_with("terminated"));
    assert_eq!(terminated.count(), 3);
}

#[test]
fn killed_without_mercy_it_leaves_nothing() {
    let laptop = Laptop::new();
    for arguments in [STAYS, &["--print"]] {
        let mut running = Running::start(&mut laptop.to_orders(arguments));
        running.wait_for(
            if arguments == STAYS {
                "there"
            } else {
                "until Ctrl-C"
            },
            1,
        );
        running.signal("KILL");
        assert_eq!(running.wait().signal(), Some(9));
        laptop.nothing_is_left();
        let log = laptop.service.log();
        assert!(log.last().unwrap().starts_with("terminated"), "{log:?}");
    }
}

#[test]
fn a_signal_while_it_begins_ends_it() {
    let mut laptop = Laptop::new();
    laptop.gateway.signal("KILL");
    laptop.gateway.wait();
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let mut running = Running::start(&mut laptop.to_orders(&["--exec", "true"]));
        while laptop.service.open() == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        running.signal(name);
        assert_eq!(running.wait().code(), Some(128 + number));
        laptop.nothing_is_left();
    }
}

/// At a terminal, Ctrl-C goes to the foreground's process group: here `postern` and its command are one.
#[test]
fn ctrl_c_is_the_commands_and_the_forward_outlives_it() {
    let laptop = Laptop::new();
    let mut command = laptop.to_orders(&["--exec", "psql", "-XAt"]);
    command.process_group(0).stdin(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut input = running.child.stdin.take().unwrap();
    writeln!(input, "select 'begins';\nselect pg_sleep(600);").unwrap();
    running.wait_for("begins", 1);
    laptop
        .gateway
        .wait_for_metric("postern_pool_connections", &["state=\"leased\""], 1.0);
    signal("INT", &format!("-{}", running.child.id()));
    // psql cancels its query by a connection of its own, which goes through the forward as well; without a terminal it ends at that.
    let status = running.wait();
    assert!(
        running
            .error()
            .contains("canceling statement due to user request")
            || status.code() == Some(130),
        "{status:?} {}",
        running.error()
    );
    laptop.nothing_is_left();

    // A command that goes on after it finds the forward up.
    let script = "trap 'echo caught' INT; echo there; while [ -z \"$done\" ]; do sleep 0.1; [ -e \"$HOME/go\" ] && done=1; done; \
                  psql -XAtc \"select 'still ' || current_user\"";
    let mut command = laptop.to_orders(&["--exec", "sh", "-c", script]);
    let mut running = Running::start(command.process_group(0));
    running.wait_for("there", 1);
    let sessions = laptop.service.log().len();
    signal("INT", &format!("-{}", running.child.id()));
    running.wait_for("caught", 1);
    std::fs::write(laptop.directory.path().join("go"), "").unwrap();
    running.wait_for("still app_ro", 1);
    assert_eq!(running.wait().code(), Some(0), "{}", running.error());
    laptop.nothing_is_left();
    assert!(!running.error().contains("cut"), "{}", running.error());
    assert_eq!(laptop.service.log().len(), sessions + 1);
}

#[test]
fn at_a_terminal_ctrl_c_cancels_what_psql_asks() {
    let laptop = Laptop::new();
    let mut running = Running::start(&mut at_terminal(&laptop, &laptop.to_orders(&[])));
    let mut input = running.child.stdin.take().unwrap();
    running.wait_for("orders/orders=>", 1);
    input.write_all(b"select pg_sleep(600);\n").unwrap();
    laptop
        .gateway
        .wait_for_metric("postern_pool_connections", &["state=\"leased\""], 1.0);
    input.write_all(b"\x03").unwrap();
    running.wait_for("canceling statement due to user request", 1);
    input.write_all(b"select 'still ' || current_user;\n").unwrap();
    running.wait_for("still app_ro", 1);
    input.write_all(b"\\q\n").unwrap();
    assert_eq!(running.wait().code(), Some(0), "{}", running.out());
    assert!(!running.out().contains("was cut"), "{}", running.out());
    laptop.nothing_is_left();
}

#[test]
fn a_terminal_that_is_closed_ends_all_of_it() {
    let laptop = Laptop::new();
    let mut command: Command = laptop.to_orders(STAYS);
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    assert_eq!(lines(&mut child).next().as_deref(), Some("there"));
    signal("HUP", &format!("-{}", child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(129));
    laptop.nothing_is_left();
}
