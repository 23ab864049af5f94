//! A session that is cut.

use std::io::Write as _;

use postern_lab::laptop::Instance;

use super::{BASTION, Laptop, Running, at_terminal, free_port, signal};
use crate::gateway::stdout;

const EXPIRED: &str = "The SSO session associated with this profile has expired or is otherwise invalid. To refresh this SSO session run aws sso login \
                       with the corresponding profile.";

#[test]
fn psql_loses_its_connection_and_gets_another_at_the_same_port() {
    let laptop = Laptop::new();
    let mut running = Running::start(&mut at_terminal(&laptop, &laptop.to_orders(&[])));
    let mut input = running.child.stdin.take().unwrap();
    running.wait_for("=>", 1);
    writeln!(input, "select 'one ' || current_user;").unwrap();
    running.wait_for("one app_ro", 1);
    laptop.service.cut();
    running.wait_for("the session was cut", 1);
    running.wait_for("Your session timed out due to inactivity.", 1);
    running.wait_for("through again", 1);
    // psql finds out when it asks, and connects anew to where it was connected.
    writeln!(input, "select 'lost';").unwrap();
    running.wait_for("connection to the server was lost", 1);
    writeln!(input, "\\c\nselect 'two ' || current_user;").unwrap();
    running.wait_for("two app_ro", 1);
    // Whoever asks too early has psql forget where it was; the rest is in its environment.
    laptop.service.set_fault(Some(("StartSession", EXPIRED)));
    laptop.service.cut();
    running.wait_for("aws sso login", 2);
    writeln!(input, "select 'lost as well';").unwrap();
    running.wait_for("Attempting reset: Failed", 1);
    laptop.service.set_fault(None);
    running.wait_for("through again", 2);
    writeln!(input, "\\c host=127.0.0.1\nselect 'three ' || current_user;").unwrap();
    running.wait_for("three app_ro", 1);
    writeln!(input, "\\q").unwrap();
    assert_eq!(running.wait().code(), Some(0), "{}", running.out());
    laptop.nothing_is_left();
    assert_eq!(
        laptop
            .service
            .log()
            .iter()
            .filter(|line| line.starts_with("terminated"))
            .count(),
        1
    );
}

#[test]
fn a_plugin_that_is_killed_is_started_anew() {
    let laptop = Laptop::new();
    let port = free_port();
    let mut running = Running::start(&mut laptop.to_orders(&["--print", "--local-port", &port]));
    running.wait_for("until Ctrl-C", 1);
    for (times, victim) in ["session-manager-plugin", "hold session"].into_iter().enumerate() {
        let pids = laptop.pids(victim);
        signal("KILL", pids.first().unwrap());
        running.wait_for("through again", times + 1);
        let query = "select current_database()";
        let psql = format!("psql -XAt 'host=127.0.0.1 port={port} user=app_ro dbname=orders' -c '{query}'");
        assert_eq!(
            stdout(&laptop.command("sh").args(["-c", &psql]).output().unwrap()),
            "orders"
        );
    }
    running.signal("INT");
    running.wait();
    laptop.nothing_is_left();
}

#[test]
fn it_goes_on_trying_and_finds_the_bastion_that_has_taken_the_place() {
    let laptop = Laptop::new();
    let mut running = Running::start(&mut laptop.to_orders(&["--print"]));
    running.wait_for("until Ctrl-C", 1);

    laptop.service.set_fault(Some(("StartSession", EXPIRED)));
    laptop.service.cut();
    running.wait_for("aws sso login", 2); // aws' own words, and what to do
    let replaced = Instance::new("i-0000000000000000f", "2026-11-26T05:00:00+00:00");
    laptop.service.set_instances(vec![replaced]);
    laptop.service.set_fault(None);
    running.wait_for("through again", 1);
    let log = laptop.service.log();
    assert!(
        log.contains(&"StartSession i-0000000000000000f".to_owned()),
        "{log:?}"
    );
    assert!(log.contains(&format!("StartSession {BASTION}")), "{log:?}");
    running.signal("INT");
    running.wait();
    laptop.nothing_is_left();
}
