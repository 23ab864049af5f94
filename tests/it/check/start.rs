//! What a gateway finds that has just started, and where it tells of it.

use postern_lab::{AwsFault, Lab, LabConfig, LoginFault};

use crate::gateway::{Gateway, Options};

/// What `/startupz` says once the start is over.
fn report(gateway: &Gateway) -> String {
    gateway.wait_for("/startupz");
    gateway.page("/startupz").unwrap().1
}

fn started(lab: &Lab) -> Gateway {
    // Pools whose catalogs aren't looked at have the one connection each.
    with_pool(lab, "mode = \"session\"")
}

fn with_pool(lab: &Lab, pool: &'static str) -> Gateway {
    let options = Options {
        pool,
        log: "info",
        not_ready: true,
        ..Options::default()
    };
    Gateway::start(lab, &options)
}

/// The line of a check, with its spaces made one.
fn line(report: &str, check: &str, subject: &str) -> String {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = report.lines().map(words);
    let wanted = format!(" {check} {subject} ");
    lines
        .find(|line| line.contains(&wanted))
        .unwrap_or_else(|| panic!("no {wanted} in {report}"))
}

#[test]
fn all_is_well_without_a_login_of_its_own() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab);
    let report = report(&gateway);
    assert!(report.starts_with("started\n"), "{report}");
    for (check, subject) in [
        ("role", "postern-gateway"),
        ("clock", "this host"),
        ("tls", "orders"),
        ("rds", "orders"),
        ("iam_auth", "orders"),
        ("token", "orders"),
        ("login", "app_ro@orders"),
        ("login", "app_rw@orders"),
    ] {
        assert!(line(&report, check, subject).starts_with("ok "), "{report}");
    }
    assert!(report.contains(" 0 failed"), "{report}");
    assert_eq!(gateway.metric("postern_start_checks", &["failed"]), 0.0);
    assert!(gateway.metric("postern_start_checks", &["\"ok\""]) >= 8.0);
    assert!(gateway.log().contains("0 failed"), "{}", gateway.log());
    // Those of the two pools, which keep them.
    assert_eq!(lab.logins().len(), 2);
    assert_eq!(lab.open_connections(), 2);
}

#[test]
fn what_is_wrong_is_told_with_cause_and_remedy() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().every_login(LoginFault::RefuseToken);
    lab.faults()
        .change(|faults| faults.login_user = Some("app_rw".to_owned()));
    let gateway = started(&lab);
    let report = report(&gateway);
    assert!(
        line(&report, "login", "app_rw@orders").starts_with("failed "),
        "{report}"
    );
    assert!(
        line(&report, "login", "app_ro@orders").starts_with("ok "),
        "{report}"
    );
    for told in [&report, &gateway.log()] {
        assert!(told.contains(super::STATEMENT_FOR_APP_RW), "{told}");
        assert!(
            !told.contains("rds_iam"),
            "another user's login tells that this is right: {told}"
        );
    }
    assert_eq!(gateway.metric("postern_start_checks", &["failed"]), 1.0);
    let (status, ready) = gateway.page("/readyz").unwrap();
    assert!(
        status == 503 && ready.contains("orders/orders/app_rw: "),
        "{ready}"
    );
}

#[test]
fn a_start_without_aws_is_over_as_well() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.imds().set_fault(AwsFault::Down);
    lab.set_api_fault(AwsFault::Down);
    let gateway = started(&lab);
    let report = report(&gateway);
    assert!(
        report.lines().any(|line| line.starts_with("failed   imds")),
        "{report}"
    );
    for user in ["app_ro", "app_rw"] {
        let login = line(&report, "login", &format!("{user}@orders"));
        assert!(
            login.starts_with("skipped ") && login.contains("because of imds"),
            "{login}"
        );
    }
    assert_eq!(lab.logins().len(), 0);
}

#[test]
fn what_was_not_tried_is_not_told_as_well() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = with_pool(&lab, "mode = \"session\"\nmin_idle = 0");
    let report = report(&gateway);
    let login = line(&report, "login", "app_ro@orders");
    assert!(
        login.starts_with("skipped ") && login.contains("no pool has min_idle"),
        "{login}"
    );
    assert_eq!(lab.logins().len(), 0);
}

#[test]
fn not_ready_tells_of_one_pool_and_how_many_more() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.faults().every_login(LoginFault::RefuseToken);
    let gateway = started(&lab);
    report(&gateway);
    let (status, ready) = gateway.page("/readyz").unwrap();
    assert!(
        status == 503 && ready.contains("orders/orders/app_ro: ") && ready.contains("; and 1 more"),
        "{ready}"
    );
}
