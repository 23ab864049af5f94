//! What can't be, and what is said about it.

use std::net::TcpStream;
use std::time::Duration;

use super::{Laptop, free_port};
use crate::gateway::{Gateway, stderr};

/// Runs it, and it fails: each part is said.
#[track_caller]
fn fails(laptop: &Laptop, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = laptop.output(&mut laptop.to_orders(arguments));
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in parts {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn what_isnt_installed_is_named_before_anything_begins() {
    let laptop = Laptop::new();
    let run = |arguments: &[&str], parts: &[&str], code| {
        let output = laptop.output(laptop.to_orders(arguments).env("PATH", laptop.programs()));
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    };
    run(&["--exec", "nowhere"], &["nowhere isn't there to be run"], 127);
    std::fs::remove_file(laptop.programs().join("psql")).unwrap();
    run(&[], &["psql isn't there to be run", "--print"], 127);
    std::fs::remove_file(laptop.programs().join("session-manager-plugin")).unwrap();
    let plugin = [
        "(session-manager-plugin) isn't in PATH",
        "https://docs.aws.amazon.com/systems-manager/",
    ];
    run(&["--print"], &plugin, 1);
    std::fs::remove_file(laptop.programs().join("aws")).unwrap();
    let aws = ["(aws) isn't in PATH", "https://docs.aws.amazon.com/cli/"];
    run(&["--print"], &aws, 1);
    assert!(laptop.service.log().is_empty());
}

#[test]
fn what_aws_says_is_shown_with_what_to_do() {
    let laptop = Laptop::new();
    let expired = "Error when retrieving token from sso: Token has expired and refresh failed";
    let denied = "An error occurred (AccessDeniedException) when calling the StartSession operation: User: arn:aws:sts::123456789012:assumed-role/A/b \
                  is not authorized to perform: ssm:StartSession on resource: arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0";
    let unauthorized = "An error occurred (UnauthorizedOperation) when calling the DescribeInstances operation: You are not authorized to perform this operation.";
    let run = ["--profile", "work", "--exec", "true"];
    for operation in ["DescribeInstances", "StartSession"] {
        laptop.service.set_fault(Some((operation, expired)));
        fails(&laptop, &run, 1, &[expired, "aws sso login --profile work"]);
    }
    laptop.service.set_fault(Some(("StartSession", denied)));
    fails(
        &laptop,
        &run,
        1,
        &[denied, "ask whoever gives out permissions for ssm:StartSession"],
    );
    laptop
        .service
        .set_fault(Some(("DescribeInstances", unauthorized)));
    fails(&laptop, &run, 1, &[unauthorized, "name it with --bastion"]);
    laptop.service.set_fault(None);

    fails(
        &laptop,
        &["--profile", "nobody", "--exec", "true"],
        1,
        &[
            "The config profile (nobody) could not be found",
            "aws configure list-profiles",
        ],
    );
    fails(
        &laptop,
        &["--document", "nowhere", "--exec", "true"],
        1,
        &[
            "Document with name nowhere does not exist",
            "aws ssm get-document",
        ],
    );
    fails(
        &laptop,
        &["--document", "pinned", "--exec", "true"],
        1,
        &["Parameter portNumber is not defined", "takes no --remote-port"],
    );
    let output = laptop.output(laptop.to_orders(&["--exec", "true"]).env_remove("AWS_REGION"));
    let told = stderr(&output);
    assert!(
        told.contains("You must specify a region") && told.contains("--region"),
        "{told}"
    );
}

#[test]
fn a_bastion_that_isnt_there_is_told() {
    let laptop = Laptop::new();
    fails(
        &laptop,
        &["--tag", "role=db gate, too", "--exec", "true"],
        1,
        &["no running instance has the tag role=db gate, too", "--bastion"],
    );
    fails(
        &laptop,
        &["--tag", "bastion", "--exec", "true"],
        1,
        &["expected KEY=VALUE"],
    );
    fails(
        &laptop,
        &["--bastion", "bastion", "--exec", "true"],
        1,
        &["\"bastion\" is no id of an instance"],
    );
    fails(
        &laptop,
        &["--bastion", "i-00000000000000009", "--exec", "true"],
        1,
        &[
            "i-00000000000000009 is not connected",
            "aws ssm get-connection-status",
        ],
    );
}

#[test]
fn a_port_without_a_gateway_is_told_and_one_in_use_here_as_well() {
    let laptop = Laptop::new();
    let nobody = free_port();
    let output = laptop.output(laptop.command(env!("CARGO_BIN_EXE_postern")).args([
        "connect",
        "--remote-port",
        &nobody,
        "--wait",
        "2s",
        "--exec",
        "true",
    ]));
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("no PostgreSQL answered through i-0123456789abcdef0 within 2s")
            && told.contains(&format!("listens on port {nobody}")),
        "{told}"
    );

    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(
        &laptop,
        &["--local-port", &port, "--exec", "true"],
        1,
        &[
            &format!("port {port} of this computer can't be had"),
            "--local-port",
        ],
    );
}

#[test]
fn the_command_begins_only_once_the_gateway_answers() {
    let mut laptop = Laptop::new();
    let port = laptop.gateway.port;
    // A host on which nothing listens yet: the plugin does all the same.
    laptop.gateway.signal("KILL");
    laptop.gateway.wait();
    let local = free_port();
    let script = "touch \"$HOME/begun\"; psql -XAtc 'select 1'";
    let mut command = laptop.to_orders(&["--local-port", &local, "--exec", "sh", "-c", script]);
    let running = std::thread::spawn(move || command.output().unwrap());
    while TcpStream::connect(("127.0.0.1", local.parse().unwrap())).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Whatever took the plugin for the gateway would begin now.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!laptop.directory.path().join("begun").exists());
    Gateway::restart(&mut laptop.gateway);
    assert_eq!(laptop.gateway.port, port);
    assert_eq!(crate::gateway::stdout(&running.join().unwrap()), "1");
    laptop.nothing_is_left();
}

#[test]
fn names_that_would_lead_elsewhere_are_refused() {
    let laptop = Laptop::new();
    let run = |arguments: &[&str]| stderr(&laptop.output(&mut laptop.connect(arguments)));
    assert!(run(&["a/b", "--exec", "true"]).contains("can't be the name of a target"));
    assert!(run(&["--user", "a\nb", "--exec", "true"]).contains("can't be the name of a user"));
    assert!(run(&["--database", "", "--exec", "true"]).contains("can't be the name of a database"));
    assert!(run(&["--print", "--exec", "true"]).contains("cannot be used with"));
    assert!(run(&["--print-password"]).contains("--gateway"));
    assert!(laptop.service.log().is_empty());
}
