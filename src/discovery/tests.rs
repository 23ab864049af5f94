use super::*;

const REGION: &str = "us-east-1";

fn described(kind: Kind, identifier: &str) -> Described {
    Described {
        kind,
        identifier: identifier.to_owned(),
        resource_id: "cluster-1".to_owned(),
        arn: "arn".to_owned(),
        cluster: None,
        has_iam: true,
        engine: "postgres".to_owned(),
        status: "available".to_owned(),
        host: Some(format!("{identifier}.x.{REGION}.rds.amazonaws.com")),
        reader: None,
        port: Some(5432),
        authority: None,
        tags: vec![
            ("team".to_owned(), "a".to_owned()),
            ("postern".to_owned(), "yes".to_owned()),
        ],
    }
}

fn member(identifier: &str, cluster: &str) -> Described {
    Described {
        cluster: Some(cluster.to_owned()),
        authority: Some("rds-ca-ecc384-g1".to_owned()),
        ..described(Kind::Instance, identifier)
    }
}

fn search(selector: Selector) -> Search {
    Search {
        selector,
        region: None,
    }
}

fn tagged(tags: &[(&str, &str)]) -> Search {
    let tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    search(Selector::Tags(tags.collect()))
}

fn names(found: &Found, search: &Search) -> Vec<String> {
    let databases = found.databases(search);
    databases
        .map(|database| format!("{} {}", database.kind, database.identifier))
        .collect()
}

#[test]
fn what_is_called_or_tagged_so_is_found_and_nothing_else() {
    let mysql = Described {
        engine: "aurora-mysql".to_owned(),
        ..described(Kind::Cluster, "shop")
    };
    let all = [
        described(Kind::Cluster, "orders"),
        member("orders-1", "orders"),
        described(Kind::Instance, "orders"),
        mysql,
    ];
    let instance = described(Kind::Instance, "alone");
    let all = [&all[..], &[instance]].concat();
    for (search, expected) in [
        (
            search(Selector::Cluster("orders".to_owned())),
            &["cluster orders"][..],
        ),
        (
            search(Selector::Instance("orders-1".to_owned())),
            &["instance orders-1"],
        ),
        (search(Selector::Instance("order".to_owned())), &[]),
        (search(Selector::Cluster("shop".to_owned())), &[]),
        (
            tagged(&[("postern", "yes")]),
            &["cluster orders", "instance orders", "instance alone"],
        ),
        (
            tagged(&[("postern", "yes"), ("team", "a")]),
            &["cluster orders", "instance orders", "instance alone"],
        ),
        (tagged(&[("postern", "yes"), ("team", "b")]), &[]),
        (tagged(&[("Postern", "yes")]), &[]),
    ] {
        let mut found = Found::default();
        found.answered(&search, &all, REGION, 0);
        assert_eq!(names(&found, &search), expected, "{search:?}");
        assert_eq!(
            found.trouble(&search).is_some(),
            expected.is_empty(),
            "{search:?}"
        );
    }
}

#[test]
fn what_is_not_usable_says_why() {
    let creating = Described {
        host: None,
        status: "creating".to_owned(),
        ..described(Kind::Cluster, "orders")
    };
    let mysql = Described {
        engine: "aurora-mysql".to_owned(),
        ..described(Kind::Cluster, "orders")
    };
    let search = search(Selector::Cluster("orders".to_owned()));
    for (all, reason) in [
        (vec![creating], "cluster orders has no endpoint: it is creating"),
        (
            vec![mysql],
            "cluster orders is of aurora-mysql, not of PostgreSQL",
        ),
        (vec![], "RDS knows no cluster orders in us-east-1"),
    ] {
        let mut found = Found::default();
        assert_eq!(found.trouble(&search), Some("RDS hasn't answered yet"));
        found.answered(&search, &all, REGION, 0);
        assert_eq!(found.trouble(&search), Some(reason));
    }
}

#[test]
fn a_clusters_authority_is_that_of_its_members() {
    let search = search(Selector::Cluster("orders".to_owned()));
    let mut found = Found::default();
    let all = [
        member("other-1", "other"),
        described(Kind::Cluster, "orders"),
        Described {
            authority: Some("rds-ca-rsa2048-g1".to_owned()),
            ..member("orders-1", "orders")
        },
    ];
    found.answered(&search, &all, REGION, 0);
    let database = found.databases(&search).next().unwrap();
    assert_eq!(database.authority.as_deref(), Some("rds-ca-rsa2048-g1"));
}

#[test]
fn what_was_found_outlives_failures_and_odd_answers_but_not_its_end() {
    let search = tagged(&[("postern", "yes")]);
    let both = [
        described(Kind::Cluster, "orders"),
        described(Kind::Instance, "alone"),
    ];
    let mut found = Found::default();
    found.answered(&search, &both, REGION, 0);
    for _ in 0..100 {
        found.failed(&search, "throttled");
    }
    assert_eq!(names(&found, &search), ["cluster orders", "instance alone"]);
    assert_eq!(found.trouble(&search), Some("throttled"));
    for _ in 0..2 {
        found.answered(&search, &both[1..], REGION, 0);
        assert_eq!(names(&found, &search), ["cluster orders", "instance alone"]);
    }
    // It is there again: those answers don't count any more.
    found.answered(&search, &both, REGION, 0);
    for _ in 0..2 {
        found.answered(&search, &both[1..], REGION, 0);
    }
    assert_eq!(names(&found, &search), ["cluster orders", "instance alone"]);
    found.answered(&search, &both[1..], REGION, 0);
    assert_eq!(names(&found, &search), ["instance alone"]);
    assert_eq!(found.trouble(&search), None);
}

#[test]
fn what_has_changed_is_taken_over_and_who_was_first_stays_first() {
    let search = tagged(&[("postern", "yes")]);
    let mut found = Found::default();
    found.answered(&search, &[described(Kind::Instance, "orders")], REGION, 0);
    let moved = Described {
        port: Some(5433),
        has_iam: false,
        ..described(Kind::Instance, "orders")
    };
    found.answered(&search, &[described(Kind::Cluster, "orders"), moved], REGION, 0);
    assert_eq!(names(&found, &search), ["instance orders", "cluster orders"]);
    let first = found.databases(&search).next().unwrap();
    assert_eq!((first.port, first.has_iam), (5433, false));
    found.keep(&[]);
    assert_eq!(names(&found, &search), [""; 0]);
}

#[test]
fn pauses_grow_with_failures_and_are_short_while_nothing_is_known() {
    let seconds = |failed, has_all, chance| pause(failed, has_all, chance).as_secs();
    assert_eq!(
        [0, 1, 2, 4, 5, 99].map(|failed| seconds(failed, true, 0.0)),
        [60, 60, 120, 480, 900, 900]
    );
    assert_eq!(
        [0, 1, 2, 3, 7, 99].map(|failed| seconds(failed, false, 0.0)),
        [60, 1, 2, 4, 60, 60]
    );
    assert_eq!(seconds(0, true, 1.0), 54);
}

#[test]
fn what_aws_says_to_this_host_is_not_for_clients() {
    let search = tagged(&[("postern", "yes")]);
    let mut found = Found::default();
    assert_eq!(found.trouble_told(&search), Some("RDS hasn't answered yet"));
    found.failed(&search, "arn:aws:sts::1:assumed-role/gateway/i-1 may not");
    assert_eq!(found.trouble_told(&search), Some("RDS can't be asked"));
    found.answered(&search, &[], REGION, 1);
    assert_eq!(found.trouble_told(&search), found.trouble(&search));
}

#[test]
fn regions_are_told_by_names_of_endpoints() {
    for (host, expected) in [
        ("a.cluster-x1.eu-west-1.rds.amazonaws.com", Some("eu-west-1")),
        ("a.x1.cn-north-1.rds.amazonaws.com.cn", Some("cn-north-1")),
        ("a.x1.rds.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("a.x1.cn-north-1.amazonaws.com.cn", None),
        ("a.x1.rds.eu-west-1.amazonaws.com", None),
        ("db.example.com", None),
    ] {
        assert_eq!(region_of(host), expected, "{host}");
    }
}
