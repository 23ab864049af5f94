//! Faults of AWS: the metadata service, credentials, the clock, STS and RDS.

use std::net::SocketAddr;
use std::time::Duration;

use postern_lab::{AwsFault, LabConfig, LoginFault};

use super::Setup;
use crate::gateway::free_port;

#[test]
fn fault_the_metadata_service_does_not_answer() {
    let setup = Setup::new();
    setup.lab.imds().set_fault(AwsFault::SlowMs(60_000));
    let found = setup.check(&[]);
    found.only("failed", "imds", "hop limit 1", "--http-put-response-hop-limit 2");
    let imds = format!("imds (http://{})", setup.lab.aws_address());
    found.skips("role", "credentials", &imds);
    found.skips("caller", "STS in us-east-1", &imds);
    found.skips("login", "app_ro@orders", &imds);
    assert_eq!(found.of_check("tls", "orders").0, "ok", "that needs no role");
}

#[test]
fn fault_the_metadata_service_is_switched_off() {
    let setup = Setup::new();
    setup.lab.imds().set_fault(AwsFault::Status(403));
    let found = setup.check(&[]);
    found.only(
        "failed",
        "imds",
        "switched off for this instance",
        "--http-endpoint enabled",
    );
}

#[test]
fn without_the_metadata_service_other_credentials_do() {
    let mut setup = Setup::new();
    setup.lab.imds().set_fault(AwsFault::Down);
    let arn = "arn:aws:sts::123456789012:assumed-role/Gateway/task";
    let key = setup.lab.add_key(arn, Some(Duration::from_secs(3_600))).unwrap();
    setup.environment.extend([
        ("AWS_ACCESS_KEY_ID".to_owned(), key.access_key_id),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), key.secret),
        ("AWS_SESSION_TOKEN".to_owned(), key.session_token.unwrap()),
    ]);
    let found = setup.check(&[]);
    assert_eq!(found.wrong(), [""; 0]);
    let imds = format!("http://{}", setup.lab.aws_address());
    assert_eq!(found.of_check("imds", &imds).0, "skipped");
    assert_eq!(found.of_check("caller", "STS in us-east-1").1, arn);
}

#[test]
fn fault_keys_of_a_user_are_in_use() {
    let mut setup = Setup::new();
    let key = setup
        .lab
        .add_key("arn:aws:iam::123456789012:user/ops", None)
        .unwrap();
    setup.environment.extend([
        ("AWS_ACCESS_KEY_ID".to_owned(), key.access_key_id),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), key.secret),
    ]);
    let found = setup.check(&[]);
    let (_, role) = found.of_check("role", "credentials");
    assert!(role.ends_with(", without an end"), "{role}");
    found.only(
        "warning",
        "caller",
        "long-lived keys of a user",
        "instance profile",
    );
}

#[test]
fn fault_no_instance_profile() {
    let setup = Setup::new();
    setup.lab.imds().set_has_role(false);
    let found = setup.check(&[]);
    found.only(
        "failed",
        "role",
        "no instance profile",
        "aws ec2 associate-iam-instance-profile --instance-id i-0123456789abcdef0",
    );
    assert!(setup.lab.logins().is_empty());
}

#[test]
fn fault_credentials_end_soon_and_are_not_renewed() {
    let setup = Setup::with(LabConfig {
        credentials_lifetime: Duration::from_secs(200),
        ..LabConfig::default()
    });
    setup.lab.imds().set_renews(false);
    setup
        .check(&[])
        .only("warning", "role", "nothing newer", "trust policy");
}

#[test]
fn fault_credentials_have_expired() {
    let setup = Setup::with(LabConfig {
        credentials_lifetime: Duration::ZERO,
        ..LabConfig::default()
    });
    setup.lab.imds().set_renews(false);
    let found = setup.check(&[]);
    found.only("failed", "role", "nothing newer", "trust policy");
    found.skips("token", "orders", "role (postern-gateway)");
}

#[test]
fn fault_credentials_were_revoked() {
    let setup = Setup::new();
    setup.lab.imds().revoke(None);
    let found = setup.check(&[]);
    found.only(
        "failed",
        "caller",
        "the credentials are void",
        "look at the role in IAM",
    );
    found.skips("rds", "orders", "caller (STS in us-east-1)");
    assert!(setup.lab.logins().is_empty(), "a login would have been refused");
}

#[test]
fn fault_the_clock_is_wrong() {
    let setup = Setup::new();
    setup.lab.set_clock_offset(-3_600);
    let found = setup.check(&[]);
    found.only("failed", "clock", "more than five minutes off", "169.254.169.123");
    found.skips("caller", "STS in us-east-1", "clock (this host)");
    let detail = found.of_check("clock", "this host").1;
    assert!(
        detail.ends_with("s ahead of STS") && detail.starts_with("360"),
        "{detail}"
    );
    assert!(setup.lab.logins().is_empty(), "a login would have been refused");
}

#[test]
fn fault_the_clock_drifts() {
    let setup = Setup::new();
    setup.lab.set_clock_offset(120);
    setup
        .check(&[])
        .only("warning", "clock", "isn't looked after", "chrony");
}

#[test]
fn fault_no_way_to_the_apis_of_aws() {
    let setup = Setup::new();
    setup.lab.set_api_fault(AwsFault::Down);
    let found = setup.check(&[]);
    assert_eq!(
        found.wrong(),
        ["warning caller (STS in us-east-1)", "warning rds (orders)"]
    );
    found.has(
        "warning",
        "caller",
        "no way from this host to sts.us-east-1.amazonaws.com",
        "interface endpoint",
    );
    found.has(
        "warning",
        "rds",
        "no way from this host to RDS's API",
        "interface endpoint",
    );
    assert!(
        found
            .of_check("clock", "this host")
            .1
            .ends_with("the metadata service")
    );
    assert_eq!(
        found.of_check("login", "app_rw@orders").0,
        "ok",
        "the gateway needs neither"
    );
}

#[test]
fn fault_callers_are_to_be_asked_about_and_sts_is_out_of_reach() {
    let mut setup = Setup::new();
    setup.identity =
        "sources = [\"sts\"]\nsts = { gateway = \"bastion\", accounts = [\"123456789012\"] }".to_owned();
    setup.lab.set_api_fault(AwsFault::Down);
    let found = setup.check(&[]);
    found.has(
        "failed",
        "caller",
        "identity.sources has \"sts\", which needs it",
        "com.amazonaws.REGION.sts",
    );
    assert_eq!(
        found.of_check("login", "app_rw@orders").0,
        "ok",
        "that needs no STS"
    );
}

#[test]
fn fault_rds_may_not_be_asked() {
    let setup = Setup::new();
    setup.lab.set_api_fault(AwsFault::Unauthorized);
    let found = setup.check(&[]);
    found.only(
        "warning",
        "rds",
        "may not ask RDS",
        r#""Action": ["rds:DescribeDBInstances", "rds:DescribeDBClusters"]"#,
    );
    found.skips("iam_auth", "orders", "rds (orders)");
}

#[test]
fn what_rds_does_not_tell_is_left_open_in_the_statement() {
    let setup = Setup::new();
    setup.lab.set_api_fault(AwsFault::Unauthorized);
    setup.lab.faults().every_login(LoginFault::RefuseToken);
    let found = setup.check(&[]);
    found.has(
        "failed",
        "login",
        "IAM database authentication is off (RDS couldn't be asked)",
        r#""Resource": "arn:aws:rds-db:us-east-1:123456789012:dbuser:RESOURCE_ID/app_ro"}"#,
    );
}

#[test]
fn fault_iam_authentication_is_off() {
    let setup = Setup::new();
    setup.lab.change_rds(|rds| rds.set_iam(false));
    let found = setup.check(&[]);
    found.only(
        "failed",
        "iam_auth",
        "takes no tokens",
        "aws rds modify-db-cluster --region us-east-1 --db-cluster-identifier orders --enable-iam-database-authentication",
    );
    found.skips("login", "app_ro@orders", "iam_auth (orders)");
    assert!(setup.lab.logins().is_empty(), "a login would have been refused");
}

#[test]
fn an_instance_is_told_from_a_cluster() {
    let setup = Setup::with(LabConfig {
        endpoint: "stock.abc123.us-east-1.rds.amazonaws.com".to_owned(),
        ..LabConfig::default()
    });
    assert_eq!(setup.check(&[]).wrong(), [""; 0]);
    setup.lab.change_rds(|rds| rds.set_iam(false));
    setup.check(&[]).only(
        "failed",
        "iam_auth",
        "off",
        "modify-db-instance --region us-east-1 --db-instance-identifier stock",
    );
}

#[test]
fn fault_the_database_is_on_another_port() {
    let setup = Setup::new();
    setup.lab.change_rds(|rds| rds.clusters[0].port = 5433);
    setup
        .check(&[])
        .only("failed", "rds", "its port is 5433", ".rds.amazonaws.com:5433\"");
}

#[test]
fn what_rds_tells_of_the_port_explains_that_nobody_listens() {
    let mut setup = Setup::new();
    setup.dial = Some(SocketAddr::from(([127, 0, 0, 1], free_port())));
    setup.lab.change_rds(|rds| rds.clusters[0].port = 5433);
    let found = setup.check(&[]);
    found.only("failed", "rds", "its port is 5433", ":5433\"");
    for check in ["tcp", "tls"] {
        found.skips(check, "orders", "rds (orders)");
    }
}

#[test]
fn fault_the_database_is_stopped() {
    let setup = Setup::new();
    let change = |status: &str| {
        setup
            .lab
            .change_rds(|rds| rds.clusters[0].status = status.to_owned())
    };
    change("backing-up");
    assert_eq!(setup.check(&[]).wrong(), [""; 0], "it serves all the same");
    change("stopping");
    setup.check(&[]).only(
        "warning",
        "rds",
        "while it is stopping it may refuse connections",
        "start it",
    );
}

#[test]
fn fault_no_such_database_in_the_account() {
    let setup = Setup::new();
    setup.lab.change_rds(|rds| rds.clusters.clear());
    setup.check(&[]).only(
        "warning",
        "rds",
        "misspelt, gone, or of another account",
        "RDS console",
    );
}

const DISCOVERED: &str =
    "[[targets]]\nname = \"NAME\"\ndiscover = WHAT\ndatabases = [\"orders\"]\nusers = [\"odd user+x\"]\n";

/// A lab with another target, which is looked for like that.
fn discovering(name: &str, what: &str) -> Setup {
    let mut setup = Setup::new();
    let place = format!(
        "dial_address = \"{}\"\ntls_ca_file = {:?}\n",
        setup.lab.dial_address(),
        setup.lab.ca_file()
    );
    setup.others = DISCOVERED.replace("NAME", name).replace("WHAT", what) + &place;
    setup
}

#[test]
fn what_is_discovered_is_checked_like_the_others() {
    let setup = discovering("readers", "{ cluster = \"orders\", endpoint = \"reader\" }");
    let found = setup.check(&[]);
    assert_eq!(found.wrong(), [""; 0]);
    assert_eq!(
        found.of_check("discovery", "readers").1,
        "cluster orders in us-east-1"
    );
    assert_eq!(found.of_check("tls", "readers").0, "ok");
    let found = setup.check(&["--target", "readers"]);
    assert_eq!(found.wrong(), [""; 0]);
    assert_eq!(found.of_check("login", "odd user+x@readers").0, "ok");
    let output = setup.output(&["--target", "nothing"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("there are: orders, readers"), "{error}");
}

#[test]
fn fault_what_is_discovered_is_not_there() {
    for (name, what, cause, remedy) in [
        (
            "other",
            "{ cluster = \"stock\" }",
            "misspelt, gone",
            "aws rds describe-db-clusters",
        ),
        (
            "other",
            "{ instance = \"stock\" }",
            "misspelt, gone",
            "aws rds describe-db-instances",
        ),
        (
            "*",
            "{ tags = { team = \"money\" } }",
            "has all these tags",
            "add-tags-to-resource",
        ),
    ] {
        discovering(name, what)
            .check(&[])
            .only("failed", "discovery", cause, remedy);
    }
    // Whoever asks for it alone is told of it.
    discovering("other", "{ cluster = \"stock\" }")
        .check(&["--target", "other"])
        .has("failed", "discovery", "misspelt, gone", "describe-db-clusters");
}

#[test]
fn fault_what_is_discovered_does_not_fit() {
    let what = "{ cluster = \"orders\" }\niam.logins_per_second = 1";
    discovering("other", what).check(&["--target", "other"]).has(
        "failed",
        "discovery",
        "not as the target wants it",
        "the iam of",
    );
}

#[test]
fn fault_rds_may_not_be_asked_for_what_is_discovered() {
    let setup = discovering("readers", "{ cluster = \"orders\", endpoint = \"reader\" }");
    setup.lab.set_api_fault(AwsFault::Unauthorized);
    let found = setup.check(&[]);
    found.has(
        "failed",
        "discovery",
        "may not ask RDS",
        "\"rds:DescribeDBInstances\"",
    );
}

#[test]
fn fault_two_databases_for_one_name() {
    let setup = discovering("*", "{ tags = { postern = \"yes\" } }");
    setup.check(&[]).only(
        "warning",
        "discovery",
        "a name and a place of its own",
        "another name",
    );
}
