//! Faults of the way to the database.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use postern_lab::{AwsFault, Certificate, LoginFault};
use socket2::{Domain, Socket, Type};

use super::Setup;
use crate::gateway::free_port;

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
fn fault_the_endpoint_is_misspelt() {
    let mut setup = Setup::new();
    setup.endpoint = "ordres.cluster-abc123.us-east-1.rds.amazonaws.com:5432".to_owned();
    setup.dial = None;
    setup
        .environment
        .push(("RES_OPTIONS".to_owned(), "attempts:1 timeout:1".to_owned()));
    let found = setup.check(&[]);
    found.only(
        "failed",
        "dns",
        "it is misspelt, gone",
        "Check the target's endpoint",
    );
    found.skips("rds", "orders", "dns (orders)");
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
