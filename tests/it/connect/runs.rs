//! What runs while the forward is up, and what it is told of the gateway.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use postern_lab::agent::Agent;
use postern_lab::laptop::Instance;

use super::{BASTION, Laptop, Running, free_port};
use crate::attribution::{self, lab_program};
use crate::gateway::{stderr, stdout};

#[test]
fn psql_runs_through_a_forward_that_is_found_by_its_tag() {
    let laptop = Laptop::new();
    let script = laptop.directory.path().join("script.sql");
    std::fs::write(
        &script,
        "\\pset format unaligned\n\\t on\nselect current_user, current_database();\n",
    )
    .unwrap();
    let output = laptop.output(laptop.to_orders(&[]).stdin(std::fs::File::open(&script).unwrap()));
    assert!(stdout(&output).contains("app_ro|orders"), "{output:?}");
    assert_eq!(
        laptop.service.log()[..2],
        ["DescribeInstances", &format!("StartSession {BASTION}")]
    );
    // The plugin was asked to end the session, not only killed.
    assert!(
        laptop
            .service
            .log()
            .last()
            .unwrap()
            .starts_with("terminated alice"),
        "{:?}",
        laptop.service.log()
    );
}

#[test]
fn who_comes_this_way_is_known() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = Agent::install(&directory.path().join("agent"), &lab_program()).unwrap();
    let socket = directory.path().join("attribute.sock");
    let mut helper = attribution::helper(&agent, &socket, 0);
    let laptop = Laptop::with(
        directory,
        agent,
        &format!("sources = [\"ssm\"]\nssm.socket = {socket:?}"),
    );
    let output = laptop.output(&mut laptop.to_orders(&["--exec", "psql", "-XAtc", "show application_name"]));
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert_eq!(stdout(&output), "alice@example.com|psql");
}

/// The stand-in for the AWS CLI takes what the real one takes: here it is that, if it is installed.
#[test]
fn a_real_aws_cli_understands_what_it_is_asked() {
    let laptop = Laptop::new();
    std::fs::remove_file(laptop.programs().join("aws")).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&path).any(|directory| directory.join("aws").exists()) {
        eprintln!("the AWS CLI isn't installed");
        return;
    }
    laptop.have("aws");
    laptop.service.set_instances(vec![
        Instance::new("i-00000000000000001", "2026-11-26T00:00:00.000Z"),
        Instance::new(BASTION, "2026-11-26T01:00:00.000Z"),
    ]);
    let real = |command: &mut Command| {
        let address = format!("http://{}", laptop.service.address());
        let output = command
            .env("AWS_ENDPOINT_URL", address)
            .envs([
                ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ])
            .output()
            .unwrap();
        laptop.nothing_is_left();
        output
    };
    let query = ["--exec", "psql", "-XAtc", "select current_user"];
    assert_eq!(stdout(&real(&mut laptop.to_orders(&query))), "app_ro");
    let log = laptop.service.log();
    assert_eq!(
        log[..2],
        ["DescribeInstances", &format!("StartSession {BASTION}")]
    );
    assert!(log.last().unwrap().starts_with("terminated"), "{log:?}");

    let script = ["-x", "orders", "psql", "-XAtc", "select current_user"];
    assert_eq!(stdout(&real(&mut laptop.script(&free_port(), &script))), "app_ro");

    let output = real(&mut laptop.to_orders(&["--bastion", "i-00000000000000009", "--exec", "true"]));
    let told = stderr(&output);
    assert!(
        told.contains("(TargetNotConnected)") && told.contains("aws ssm get-connection-status"),
        "{told}"
    );
}

#[test]
fn a_command_has_the_variables_and_its_exit_status_is_passed_on() {
    let laptop = Laptop::new();
    let port = free_port();
    let show = "echo $PGHOST:$PGPORT $PGUSER $PGDATABASE ${PGHOSTADDR-none} ${PGSERVICE-none}; exit 23";
    let output = laptop.output(
        laptop
            .to_orders(&["--local-port", &port, "--exec", "sh", "-c", show])
            .env("PGHOSTADDR", "192.0.2.1")
            .env("PGSERVICE", "another"),
    );
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told.trim(),
        format!("127.0.0.1:{port} app_ro orders/orders none none")
    );
    assert_eq!(output.status.code(), Some(23), "{}", stderr(&output));

    let output = laptop.output(&mut laptop.to_orders(&["--exec", "sh", "-c", "kill -TERM $$"]));
    assert_eq!(output.status.code(), Some(128 + 15), "{}", stderr(&output));

    // Whatever follows is the command's, options of the same name too.
    let query = "select current_database()";
    let output = laptop
        .output(&mut laptop.to_orders(&["--exec", "--", "psql", "-XAt", "--user", "app_rw", "-c", query]));
    assert_eq!(stdout(&output), "orders");
}

#[test]
fn names_come_from_the_environment_as_well() {
    let laptop = Laptop::new();
    let output = laptop.output(
        laptop
            .command(env!("CARGO_BIN_EXE_postern"))
            .args(["connect", "--exec", "psql", "-XAtc", "select current_user"])
            .envs([
                ("POSTERN_CONNECT_BASTION", BASTION),
                ("POSTERN_CONNECT_DOCUMENT", "pinned"),
                ("PGUSER", "app_ro"),
                ("PGDATABASE", "orders"),
            ]),
    );
    assert_eq!(stdout(&output), "app_ro");
    // Nothing is looked up for an instance that is named, and a document of one's own may pin the port.
    assert_eq!(laptop.service.log()[0], format!("StartSession {BASTION}"));
}

#[test]
fn what_is_printed_works_when_pasted() {
    let laptop = Laptop::new();
    let mut running = Running::start(&mut laptop.to_orders(&["--print"]));
    running.wait_for("until Ctrl-C", 1);
    let printed = running.out();
    let line = |start: &str| printed.lines().find(|line| line.starts_with(start)).unwrap();
    let query = "select current_user || '@' || current_database()";

    let shell = |script: &str| stdout(&laptop.command("sh").args(["-c", script]).output().unwrap());
    let pasted = format!("{} -XAtc \"{query}\"", line("psql "));
    assert_eq!(shell(&pasted), "app_ro@orders");
    let pasted = format!("{}\npsql -XAtc \"{query}\"", line("export "));
    assert_eq!(shell(&pasted), "app_ro@orders");

    let section = &printed[printed.find("[orders]").unwrap()..];
    for service in [section, &printed] {
        std::fs::write(laptop.directory.path().join(".pg_service.conf"), service).unwrap();
        assert_eq!(
            shell(&format!("psql service=orders -XAtc \"{query}\"")),
            "app_ro@orders"
        );
    }
    let port = section
        .lines()
        .find_map(|line| line.strip_prefix("port="))
        .unwrap();
    assert!(
        printed.contains(&format!(
            "jdbc:postgresql://127.0.0.1:{port}/orders%2Forders?user=app_ro"
        )),
        "{printed}"
    );

    running.signal("INT");
    assert_eq!(running.wait().code(), Some(0));
    laptop.nothing_is_left();
}

#[test]
fn the_newest_bastion_that_session_manager_knows_is_taken() {
    let laptop = Laptop::new();
    let mut away = Instance::new("i-00000000000000003", "2026-11-26T02:00:00+00:00");
    away.is_connected = false;
    let mut stopped = Instance::new("i-00000000000000004", "2026-11-26T03:00:00+00:00");
    stopped.state = "stopped".to_owned();
    let mut other = Instance::new("i-00000000000000005", "2026-11-26T04:00:00+00:00");
    other.tags = [("postern".to_owned(), "other".to_owned())].into();
    laptop.service.set_instances(vec![
        Instance::new("i-00000000000000001", "2026-11-26T00:00:00+00:00"),
        Instance::new("i-00000000000000002", "2026-11-26T01:00:00+00:00"),
        away,
        stopped,
        other,
    ]);
    let output = laptop.output(&mut laptop.to_orders(&["--exec", "true"]));
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(
        told.contains("3 instances have the tag postern=bastion; i-00000000000000003")
            && told.contains("before i-00000000000000002, i-00000000000000001"),
        "{told}"
    );
    assert_eq!(
        laptop.service.log()[..3],
        [
            "DescribeInstances",
            "StartSession i-00000000000000003",
            "StartSession i-00000000000000002"
        ]
    );

    let output = laptop.output(&mut laptop.to_orders(&["--tag", "postern=other", "--exec", "true"]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        laptop
            .service
            .log()
            .contains(&"StartSession i-00000000000000005".to_owned())
    );
}
