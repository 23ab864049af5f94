//! Targets that RDS is asked for: how they are found, what counts of that and how long, and that RDS's silence changes nothing.

use std::time::{Duration, Instant};

use postern_lab::{AwsFault, Instance, Lab, LabConfig, LoginFault};

use crate::gateway::{Gateway, Options, PATIENCE, free_port, stderr, stdout};
use crate::raw::{Raw, rows};
use crate::rules::reload;

const ALL: &str = "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"*\"]\nusers = [\"app_ro\"]\n\
                   [[rules]]\nprincipals = [\"trust:\"]\nconsole = \"admin\"\n";

const CLUSTER: &str = "{ cluster = \"orders\" }";

const READER: &str = "orders.cluster-ro-abc123.us-east-1.rds.amazonaws.com";

const INSTANCE: &str = "orders-1.abc123.us-east-1.rds.amazonaws.com";

/// Who may go there is told so.
const ABSENT: &str = "it isn't known where the database of target";

/// A gateway in front of `lab` whose target `orders` is looked for like that, with `more` configuration.
fn before(lab: &Lab, discover: &'static str, more: &str, not_ready: bool) -> Gateway {
    let options = Options {
        discover: Some(discover),
        rules: format!("{ALL}{more}").leak(),
        log: "info",
        not_ready,
        ..Options::default()
    };
    Gateway::start(lab, &options)
}

fn started(discover: &'static str) -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = before(&lab, discover, "", false);
    (lab, gateway)
}

/// Another target at the lab's address.
fn target(lab: &Lab, name: &str, place: &str) -> String {
    format!(
        "[[targets]]\nname = \"{name}\"\n{place}\ndial_address = \"{}\"\ntls_ca_file = {:?}\ndatabases = [\"orders\"]\n\
         users = [\"app_ro\"]\npool.min_idle = 0\niam = {{ logins_per_second = 200, burst = 200 }}\n",
        lab.dial_address(),
        lab.ca_file()
    )
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn looks(gateway: &Gateway) -> f64 {
    gateway.metric("postern_discovery_looks_total", &[])
}

/// Has it look again now, and waits until it has.
fn look(gateway: &Gateway) {
    let before = looks(gateway);
    gateway.signal("HUP");
    until("it looks", || looks(gateway) > before);
}

/// How often it asks for clusters and for instances when it looks.
fn calls_of_a_look(lab: &Lab, gateway: &Gateway) -> (u64, u64) {
    let calls = || ["DescribeDBClusters", "DescribeDBInstances"].map(|call| lab.aws_requests()[call]);
    // The checks at the start ask too.
    gateway.wait_for("/startupz");
    let before = calls();
    look(gateway);
    let after = calls();
    (after[0] - before[0], after[1] - before[1])
}

/// What comes of connecting to the database `name`.
fn connects(gateway: &Gateway, name: &str) -> Result<String, String> {
    let output = gateway.psql(&format!("user=app_ro dbname={name}"), "select 42");
    match output.status.success() {
        true => Ok(stdout(&output)),
        false => Err(stderr(&output)),
    }
}

/// The console's answer.
fn targets(gateway: &Gateway) -> Vec<(String, String)> {
    let found = rows(&Raw::visit(gateway).query("show targets"));
    found
        .iter()
        .map(|row| (row["name"].clone(), row["endpoint"].clone()))
        .collect()
}

#[test]
fn a_cluster_is_found_by_its_identifier() {
    let (lab, gateway) = started(CLUSTER);
    assert_eq!(connects(&gateway, "orders").unwrap(), "42");
    let endpoint = format!("{}:5432", lab.endpoint_host());
    assert_eq!(
        targets(&gateway),
        [("orders/orders".to_owned(), endpoint.clone())]
    );
    let log = gateway.log();
    assert!(
        log.contains(&format!(
            "a target was discovered target=orders endpoint={endpoint}"
        )),
        "{log}"
    );
    // One call for it and one for its members, of which its authority is known.
    assert_eq!(calls_of_a_look(&lab, &gateway), (1, 1));
    assert_eq!(gateway.metric("postern_targets_absent", &[]), 0.0);
    assert!(gateway.metric("postern_discovery_last_success_timestamp_seconds", &[]) > 1e9);
}

#[test]
fn readers_and_instances_have_endpoints_of_their_own() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let more = [
        target(
            &lab,
            "readers",
            "discover = { cluster = \"orders\", endpoint = \"reader\" }",
        ),
        target(&lab, "first", "discover = { instance = \"orders-1\" }"),
    ];
    let gateway = before(&lab, CLUSTER, &more.concat(), false);
    for (name, host) in [
        ("readers", READER),
        ("first", INSTANCE),
        ("orders", lab.endpoint_host()),
    ] {
        assert_eq!(
            connects(&gateway, &format!("{name}/orders")).unwrap(),
            "42",
            "{name}"
        );
        let is_there = targets(&gateway).contains(&(format!("{name}/orders"), format!("{host}:5432")));
        assert!(is_there, "{name}: {:?}", targets(&gateway));
    }
    // The lab has refused whatever wasn't signed for the endpoint that the connection was for.
    assert!(lab.logins().len() >= 3);
}

#[test]
fn all_that_has_the_tags_is_found_on_whatever_page_it_is() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.change_rds(|rds| {
        let like = rds.instances[0].clone();
        let one = |name: String, tags: &[(&str, &str)]| Instance {
            endpoint: format!("{name}.abc123.us-east-1.rds.amazonaws.com"),
            identifier: name,
            cluster: None,
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..like.clone()
        };
        let of_others = (0..230).map(|number| one(format!("other-{number}"), &[("postern", "no")]));
        rds.instances.extend(of_others);
        rds.instances.push(one(
            "billing".to_owned(),
            &[("postern", "yes"), ("team", "money")],
        ));
        rds.instances.push(Instance {
            engine: "mysql".to_owned(),
            ..one("shop".to_owned(), &[("postern", "yes")])
        });
    });
    let more = [
        target(&lab, "all-*", "discover = { tags = { postern = \"yes\" } }"),
        target(
            &lab,
            "*-ro",
            "discover = { tags = { postern = \"yes\" }, endpoint = \"reader\" }",
        ),
    ];
    let gateway = before(&lab, CLUSTER, &more.concat(), false);
    let expected = [
        ("orders/orders", lab.endpoint_host()),
        ("all-orders/orders", lab.endpoint_host()),
        ("all-billing/orders", "billing.abc123.us-east-1.rds.amazonaws.com"),
        ("orders-ro/orders", READER),
    ];
    let expected = expected.map(|(name, host)| (name.to_owned(), format!("{host}:5432")));
    assert_eq!(targets(&gateway), expected);
    assert!(
        gateway
            .log()
            .contains("instance billing isn't a target: instance billing has no reader endpoint")
    );
    assert_eq!(calls_of_a_look(&lab, &gateway), (1, 3), "three pages");
    assert_eq!(connects(&gateway, "all-orders/orders").unwrap(), "42");
}

#[test]
fn while_rds_does_not_answer_all_goes_on() {
    let (lab, gateway) = started(CLUSTER);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("begin");
    let last_success = || gateway.metric("postern_discovery_last_success_timestamp_seconds", &[]);
    let succeeded = last_success();
    for fault in [
        AwsFault::Throttled,
        AwsFault::Unauthorized,
        AwsFault::Status(500),
        AwsFault::SlowMs(10_000),
        AwsFault::Down,
    ] {
        lab.set_api_fault(fault);
        let failed = || gateway.metric("postern_discovery_looks_total", &["failed"]);
        let before = failed();
        gateway.signal("HUP");
        until("it has failed", || failed() > before);
        assert_eq!(connects(&gateway, "orders").unwrap(), "42", "{fault:?}");
    }
    assert_eq!(last_success(), succeeded);
    assert!(client.query("select 1").iter().any(|answer| answer.tag == 'D'));
    assert!(
        gateway
            .log()
            .contains("databases are looked for in vain, those that are known go on: RDS in us-east-1")
    );
    assert_eq!(gateway.page("/readyz").unwrap().0, 200);
    lab.set_api_fault(AwsFault::None);
    look(&gateway);
    assert_eq!(targets(&gateway).len(), 1);
}

#[test]
fn what_is_gone_for_three_answers_ends_and_can_come_back() {
    let (lab, gateway) = started(CLUSTER);
    let (mut busy, _) = Raw::login(&gateway, "app_ro");
    let mut taken = Vec::new();
    lab.change_rds(|rds| taken = std::mem::take(&mut rds.clusters));
    for _ in 0..2 {
        look(&gateway);
        assert_eq!(connects(&gateway, "orders").unwrap(), "42");
    }
    busy.query("begin");
    look(&gateway);
    until("it is gone", || connects(&gateway, "orders").is_err());
    let error = connects(&gateway, "orders").unwrap_err();
    for part in [
        ABSENT,
        "RDS knows no cluster orders in us-east-1",
        "postern check",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(
        busy.query("select 1").iter().any(|answer| answer.tag == 'D'),
        "in its transaction"
    );
    busy.message('Q', b"commit\0");
    assert_eq!(busy.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    assert_eq!(gateway.page("/readyz").unwrap().0, 503);
    assert_eq!(gateway.metric("postern_targets_absent", &[]), 1.0);
    lab.change_rds(|rds| rds.clusters = taken.clone());
    look(&gateway);
    until("it is there", || connects(&gateway, "orders").is_ok());
    assert_eq!(gateway.metric("postern_targets_absent", &[]), 0.0);
}

#[test]
fn a_start_without_rds_goes_well_once_it_answers() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.set_api_fault(AwsFault::Down);
    let own = free_port();
    let listen = format!("discover = {{ instance = \"orders-1\" }}\nlisten = [\"127.0.0.1:{own}\"]");
    let fixed = format!("endpoint = \"{READER}\"");
    let only_for_rw =
        target(&lab, "others", "discover = { cluster = \"others\" }").replace("app_ro", "app_rw");
    let more = [
        target(&lab, "first", &listen),
        target(&lab, "readers", &fixed),
        only_for_rw,
    ];
    let gateway = before(&lab, CLUSTER, &more.concat(), true);
    assert_eq!(gateway.page("/readyz").unwrap().0, 503);
    // What is known works, and nobody gets there by mistake.
    assert_eq!(connects(&gateway, "readers/orders").unwrap(), "42");
    let error = connects(&gateway, "orders").unwrap_err();
    assert!(error.contains("it is not clear which target is meant"), "{error}");
    let error = connects(&gateway, "orders/orders").unwrap_err();
    assert!(
        error.contains(ABSENT) && error.contains("RDS can't be asked"),
        "{error}"
    );
    // What AWS says to the host is for its log.
    assert!(!error.contains("us-east-1"), "{error}");
    let error = stderr(&gateway.psql(&format!("user=app_ro port={own}"), "select 42"));
    assert!(error.contains(ABSENT) && error.contains("\"first\""), "{error}");
    // Who may not go there isn't told that it is meant to be there, nor who asks for what it doesn't have.
    for (user, database) in [
        ("app_rw", "orders/orders"),
        ("app_ro", "orders/billing"),
        ("app_ro", "others/orders"),
    ] {
        let error = stderr(&gateway.psql(&format!("user={user} dbname={database}"), "select 42"));
        assert!(
            error.contains("no rule admits") && !error.contains("isn't known"),
            "{user} {database}: {error}"
        );
    }
    lab.set_api_fault(AwsFault::None);
    until("it is found", || connects(&gateway, "orders/orders").is_ok());
    assert_eq!(
        stdout(&gateway.psql(&format!("user=app_ro port={own}"), "select 42")),
        "42"
    );
    assert_eq!(
        gateway.metric("postern_targets_absent", &[]),
        1.0,
        "there is no cluster \"others\""
    );
    let instead = |text: &str| text.replace("{ cluster = \"others\" }", CLUSTER);
    reload(&gateway, instead, "4 target(s) count now");
    until("it is ready", || gateway.page("/readyz").unwrap().0 == 200);
}

#[test]
fn names_of_the_file_are_not_taken_by_what_is_found() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    // Somebody who may make and tag databases makes one that is called as another is.
    lab.change_rds(|rds| {
        let impostor = Instance {
            identifier: "orders".to_owned(),
            cluster: None,
            endpoint: INSTANCE.to_owned(),
            ..rds.instances[0].clone()
        };
        rds.instances.push(impostor);
    });
    let more = target(&lab, "*", "discover = { tags = { postern = \"yes\" } }");
    let gateway = before(&lab, CLUSTER, &more, false);
    let of_cluster = [(
        "orders/orders".to_owned(),
        format!("{}:5432", lab.endpoint_host()),
    )];
    assert_eq!(targets(&gateway), of_cluster);
    let log = gateway.log();
    assert!(
        log.contains("instance orders isn't a target: there is another that is called orders"),
        "{log}"
    );
    // Not even when the one that is meant is gone.
    lab.change_rds(|rds| rds.clusters.clear());
    for _ in 0..3 {
        look(&gateway);
    }
    until("it is gone", || targets(&gateway).is_empty());
    assert!(connects(&gateway, "orders/orders").unwrap_err().contains(ABSENT));
}

#[test]
fn what_is_not_as_it_should_be_is_told_once() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.change_rds(|rds| {
        rds.set_iam(false);
        rds.instances[0].ca = "rds-ca-2019".to_owned();
    });
    let gateway = before(&lab, CLUSTER, "", true);
    look(&gateway);
    look(&gateway);
    let log = gateway.log();
    let told = "IAM database authentication of cluster orders is off, so it takes no tokens: aws rds modify-db-cluster --region us-east-1 \
                --db-cluster-identifier orders --enable-iam-database-authentication --apply-immediately";
    assert_eq!(log.matches(told).count(), 1, "{log}");
    // The lab's authority is given by a file, so it doesn't matter which of RDS's that is.
    assert!(!log.contains("rds-ca-2019"));
}

#[test]
fn a_reload_changes_what_is_looked_for() {
    let (lab, gateway) = started(CLUSTER);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    client.query("begin");
    let by_instance = |text: &str| text.replace(CLUSTER, "{ instance = \"orders-2\" }");
    reload(&gateway, by_instance, "2 rule(s) and 1 target(s) count now");
    assert_eq!(
        targets(&gateway)[0].1,
        "orders-2.abc123.us-east-1.rds.amazonaws.com:5432"
    );
    // It is another server: whoever is in goes after his transaction.
    assert!(client.query("select 1").iter().any(|answer| answer.tag == 'D'));
    client.message('Q', b"commit\0");
    assert_eq!(client.until('\0').pop().unwrap().field(b'C').unwrap(), "57P01");
    let by_nothing = |text: &str| text.replace("orders-2", "nothing");
    reload(
        &gateway,
        by_nothing,
        "0 target(s) count now; it isn't known where these are: orders",
    );
    lab.set_api_fault(AwsFault::Down);
    let back = |text: &str| text.replace("{ instance = \"nothing\" }", CLUSTER);
    reload(&gateway, back, "it isn't known where these are: orders");
    lab.set_api_fault(AwsFault::None);
    until("it is found", || connects(&gateway, "orders").is_ok());
}

#[test]
fn what_a_reload_brings_back_during_a_look_stays() {
    let (lab, gateway) = started(CLUSTER);
    lab.set_api_fault(AwsFault::SlowMs(2_500));
    // Three calls, which take longer than a reload waits.
    let other = target(&lab, "other", "discover = { instance = \"orders-2\" }");
    let before = looks(&gateway);
    reload(
        &gateway,
        |text| text.replace(CLUSTER, "{ cluster = \"none\" }") + &other,
        "it isn't known where these are: orders, other",
    );
    reload(
        &gateway,
        |text| {
            text.replace("{ cluster = \"none\" }", CLUSTER)
                .replace(&other, "")
        },
        "1 target(s) count now",
    );
    assert_eq!(looks(&gateway), before, "the look isn't over");
    until("it is over", || {
        assert_eq!(connects(&gateway, "orders").unwrap(), "42");
        looks(&gateway) > before
    });
    for _ in 0..10 {
        assert_eq!(connects(&gateway, "orders").unwrap(), "42");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_look_that_changes_nothing_is_no_change_of_the_configuration() {
    let (lab, gateway) = started(CLUSTER);
    lab.set_api_fault(AwsFault::Throttled);
    let before = looks(&gateway);
    reload(&gateway, str::to_owned, "1 target(s) count now");
    until("it looks", || looks(&gateway) > before);
    lab.set_api_fault(AwsFault::None);
    look(&gateway);
    std::thread::sleep(Duration::from_millis(300));
    let (log, changed) = (gateway.log(), "the configuration was changed");
    assert_eq!(
        log.matches(changed).count(),
        log.matches("reloaded:").count(),
        "{log}"
    );
}

#[test]
fn a_budget_of_what_was_discovered_changes_with_a_restart() {
    let (_lab, gateway) = started(CLUSTER);
    reload(
        &gateway,
        |text| text.replace("logins_per_second = 200", "logins_per_second = 190"),
        "changes of targets.orders.iam need a restart",
    );
}

#[test]
fn the_start_tells_what_is_not_found() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = before(&lab, "{ cluster = \"none\" }", "", true);
    gateway.wait_for("/startupz");
    let report = gateway.page("/startupz").unwrap().1;
    let told = "RDS knows no cluster none in us-east-1";
    let line = report.lines().find(|line| line.contains(told));
    assert!(
        line.is_some_and(|line| line.starts_with("failed   discovery")),
        "{report}"
    );
    assert_eq!(gateway.metric("postern_start_checks", &["failed"]), 1.0);
}

#[test]
fn slow_regions_do_not_add_up() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.set_api_fault(AwsFault::SlowMs(2_000));
    let there = |region: &str| {
        let place = format!("discover = {{ instance = \"orders-1\" }}\nregion = \"{region}\"");
        target(&lab, region, &place)
    };
    let more = [there("us-east-1"), there("eu-west-1"), there("eu-west-2")];
    let gateway = before(&lab, "{ instance = \"orders-2\" }", &more.concat(), true);
    // One after the other they take longer than a start waits for the first look.
    let log = gateway.log();
    assert!(!log.contains("RDS hasn't answered yet"), "{log}");
    assert_eq!(connects(&gateway, "us-east-1/orders").unwrap(), "42");
    let elsewhere = "it isn't known where target eu-west-1 is: RDS in eu-west-1: it answers";
    assert!(log.contains(elsewhere), "{log}");
}

#[test]
fn what_is_found_after_the_start_must_be_usable_for_the_gateway_to_be_ready() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.set_api_fault(AwsFault::Down);
    lab.faults().every_login(LoginFault::RefuseToken);
    let gateway = before(&lab, CLUSTER, "", true);
    lab.set_api_fault(AwsFault::None);
    until("it is found", || {
        gateway.metric("postern_targets_absent", &[]) == 0.0
    });
    until("it says what is wrong", || {
        let (status, text) = gateway.page("/readyz").unwrap();
        status == 503 && text.contains("orders/orders/app_r")
    });
}
