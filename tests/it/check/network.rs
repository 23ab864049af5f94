//! Faults of AWS and of the way to the database.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use postern_lab::{AwsFault, Certificate, LabConfig, LoginFault};
use socket2::{Domain, Socket, Type};

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
    setup.check(&[]).only(
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
fn fault_the_database_is_stopped() {
    let setup = Setup::new();
    setup
        .lab
        .change_rds(|rds| rds.clusters[0].status = "stopping".to_owned());
    setup
        .check(&[])
        .only("warning", "rds", "isn't available but stopping", "start it");
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

#[test]
fn fault_tokens_for_another_region() {
    let mut setup = Setup::new();
    setup.region = "eu-west-1".to_owned();
    let found = setup.check(&[]);
    found.only(
        "failed",
        "token",
        "the endpoint is of us-east-1",
        "region = \"us-east-1\"",
    );
    assert!(setup.lab.logins().is_empty(), "a login would have been refused");
}

#[test]
fn fault_the_name_is_not_known() {
    let mut setup = Setup::new();
    setup.endpoint = "orders.invalid:5432".to_owned();
    setup.dial = None;
    setup
        .environment
        .push(("RES_OPTIONS".to_owned(), "attempts:1 timeout:1".to_owned()));
    let found = setup.check(&[]);
    found.only(
        "failed",
        "dns",
        "resolver has no address for orders.invalid",
        "DNS of the bastion host",
    );
    found.skips("tcp", "orders", "dns (orders)");
    found.skips("login", "app_ro@orders", "dns (orders)");
}

#[test]
fn fault_nobody_listens() {
    let mut setup = Setup::new();
    setup.dial = Some(SocketAddr::from(([127, 0, 0, 1], free_port())));
    let found = setup.check(&[]);
    found.only("failed", "tcp", "nobody listens there", "security group");
    found.skips("tls", "orders", "tcp (orders)");
}

#[test]
fn fault_packets_are_dropped() {
    let mut setup = Setup::new();
    // Whose queue is full doesn't answer, as a security group that doesn't let in (listen(2), backlog).
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let in_queue = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let waiting: Vec<_> = (0..3).filter_map(in_queue).collect();
    assert!(waiting.len() < 3, "the queue isn't full");
    setup.dial = Some(address);
    setup.check(&[]).only(
        "failed",
        "tcp",
        "doesn't admit this host on this port",
        "security group",
    );
}

#[test]
fn fault_the_certificate_is_for_another_name() {
    certificate(Certificate::OtherName, "endpoint is an alias", "not an alias");
}

#[test]
fn fault_the_certificate_is_of_an_unknown_authority() {
    certificate(Certificate::OtherAuthority, "isn't trusted here", "tls_ca_file");
}

#[test]
fn fault_the_certificate_has_expired() {
    certificate(
        Certificate::Expired,
        "certificate is over",
        "Check the server's certificate",
    );
}

fn certificate(shown: Certificate, cause: &str, remedy: &str) {
    let setup = Setup::new();
    setup.lab.faults().change(|faults| faults.certificate = shown);
    let found = setup.check(&[]);
    found.only("failed", "tls", cause, remedy);
    found.skips("login", "app_ro@orders", "tls (orders)");
    assert!(setup.lab.logins().is_empty());
}

#[test]
fn fault_no_tls() {
    let setup = Setup::new();
    setup.lab.faults().every_login(LoginFault::RefuseTls);
    setup
        .check(&[])
        .only("failed", "tls", "TLS switched off", "nothing in between");
}

#[test]
fn whatever_hangs_it_ends_in_time() {
    let mut setup = Setup::new();
    // Accepts, by the kernel, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    setup.dial = Some(silent.local_addr().unwrap());
    setup.lab.set_api_fault(AwsFault::SlowMs(60_000));
    let began = Instant::now();
    let found = setup.check(&[]);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(
        found.wrong(),
        [
            "warning caller (STS in us-east-1)",
            "failed tls (orders)",
            "warning rds (orders)"
        ]
    );
    found.has("failed", "tls", "doesn't go on", "try again");
}
