use super::*;
use crate::discovery::{Described, Found, Kind, Selector};
use crate::pool::PoolMode;

const MINIMAL: &str = r#"
[identity]
sources = ["trust"]
[[targets]]
name = "orders"
endpoint = "Orders.cluster-abc.eu-west-1.rds.amazonaws.com"
databases = ["orders"]
users = ["app"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, std::iter::empty())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn defaults_are_explicit() {
    let config = parse(MINIMAL).unwrap();
    let target = &config.targets[0];
    assert_eq!(
        target.endpoint.to_string(),
        "orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432"
    );
    assert_eq!(target.region, "eu-west-1");
    assert_eq!((target.pool.size, target.pool.min_idle), (20, 1));
    assert_eq!(config.listen.len(), 2, "both loopback families");
    assert!(config.rules.is_empty(), "without rules nobody is let in");
}

#[test]
fn an_unknown_key_names_its_line_and_its_neighbour() {
    let text = MINIMAL.replace("databases", "datbases");
    let message = error(&text);
    assert!(
        message.contains("7:1") && message.contains("did you mean `databases`?"),
        "{message}"
    );
}

#[test]
fn wrong_values_name_key_value_and_expectation() {
    for (from, to, part) in [
        ("\"app\"", "", "targets.orders.users"),
        ("\"app\"", "\"app\", \"b\", \"app\"", "is there twice"),
        ("\"app\"", "\"a\\u0000b\"", "targets.orders.users"),
        ("\"trust\"", "\"trsut\"", "identity.sources"),
        ("\"trust\"", "\"scram\"", "identity.scram.verifiers"),
        ("\"trust\"", "", "identity.sources"),
        ("name = \"orders\"", "name = \"a/b\"", "targets.name"),
        (
            "Orders.cluster-abc.eu-west-1.rds.amazonaws.com",
            "db.internal",
            "targets.orders.region",
        ),
        (
            "Orders.cluster-abc.eu-west-1.rds.amazonaws.com",
            "10.0.0.1:5432",
            "targets.orders.endpoint",
        ),
        ("amazonaws.com", "amazonaws.com:443", "targets.orders.endpoint"),
        ("amazonaws.com", "amazonaws.com:http", "targets.orders.endpoint"),
        (
            "users =",
            "pool.min_idle = 30\nusers =",
            "targets.orders.pool.min_idle",
        ),
        (
            "users =",
            "pool.idle_timeout = \"5 parsecs\"\nusers =",
            "is not a duration",
        ),
        (
            "users =",
            "iam.logins_per_second = 0\nusers =",
            "logins_per_second",
        ),
        (
            "users =",
            "tls_ca_file = \"/nowhere.pem\"\nusers =",
            "/nowhere.pem",
        ),
    ] {
        let message = error(&MINIMAL.replace(from, to));
        assert!(message.contains(part), "{from} -> {to}: {message}");
    }
}

#[test]
fn the_first_entry_that_names_a_pool_says_how_it_is() {
    let pools = r#"
[[targets.pools]]
users = ["reports"]
databases = ["archive"]
mode = "transaction"
[[targets.pools]]
users = ["reports"]
mode = "session"
size = 3
"#;
    let text = MINIMAL.replace("users = [\"app\"]", "users = [\"app\", \"reports\"]");
    let text = text.replace(
        "databases = [\"orders\"]",
        "databases = [\"orders\", \"archive\"]",
    );
    let text = text.replace("users =", "pool.min_idle = 5\nusers =") + pools;
    let target = parse(&text).unwrap().targets[0].clone();
    let pool = |database: &str, user: &str| {
        let these = (&database.into(), &user.into());
        let mut pools = target
            .pools()
            .filter(|(database, user, _)| (*database, *user) == these);
        let (_, _, pool) = pools.next().unwrap();
        (pool.mode, pool.size, pool.min_idle)
    };
    assert_eq!(pool("orders", "app"), (PoolMode::Auto, 20, 5));
    assert_eq!(pool("orders", "reports"), (PoolMode::Session, 3, 3));
    assert_eq!(pool("archive", "reports"), (PoolMode::Transaction, 20, 5));
    for (from, to, part) in [
        (
            "\"archive\"]\nmode",
            "\"archives\"]\nmode",
            "targets.orders.pools[0].databases",
        ),
        ("users = [\"reports\"]\nmode", "mode", "names neither"),
        ("size = 3", "size = 0", "targets.orders.pools[1].size"),
        ("size = 3", "sise = 3", "did you mean `size`?"),
    ] {
        let message = error(&text.replace(from, to));
        assert!(message.contains(part), "{from} -> {to}: {message}");
    }
}

#[test]
fn a_pattern_that_matches_no_principal_is_refused() {
    let rule = "[[rules]]\nprincipals = [\"trust\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n";
    assert!(error(&format!("{MINIMAL}{rule}")).contains("rules[0].principals"));
}

#[test]
fn a_verifier_is_not_repeated_in_an_error() {
    let text = MINIMAL.replace(
        "[[targets]]",
        "scram.verifiers = \"SCRAM-SHA-256$4096:SALT$STORED:KEY\"\n[[targets]]",
    );
    let message = error(&text);
    assert!(
        !message.contains("STORED") && message.contains("hidden"),
        "{message}"
    );
}

#[test]
fn one_endpoint_has_one_budget() {
    let second = MINIMAL
        .split_once("[[targets]]")
        .unwrap()
        .1
        .replace("\"orders\"\nend", "\"again\"\nend");
    let text = format!("{MINIMAL}[[targets]]{second}iam.logins_per_second = 7\n");
    assert!(error(&text).contains("one budget"), "{}", error(&text));
}

#[test]
fn the_environment_overrides_the_file() {
    let variables = [
        ("POSTERN_TARGETS__0__POOL__SIZE", "5"),
        ("POSTERN_LISTEN__ADDRESSES", "[\"127.0.0.1:7000\"]"),
        ("POSTERN_LOG__LEVEL", "debug"),
        ("UNRELATED__KEY", "x"),
    ];
    let environment = |list: &[(&str, &str)]| {
        let list: Vec<(String, String)> = list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::parse(MINIMAL, list.into_iter())
    };
    let config = environment(&variables).unwrap();
    assert_eq!(
        (
            config.targets[0].pool.size,
            config.listen.len(),
            config.log.level.as_str()
        ),
        (5, 1, "debug")
    );
    let message = environment(&[("POSTERN_LISTEN__MAX_CLIENT", "5")])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("POSTERN_LISTEN__MAX_CLIENT") && message.contains("max_clients"),
        "{message}"
    );
    let message = environment(&[("POSTERN_TARGETS__1__POOL__SIZE", "5")])
        .unwrap_err()
        .to_string();
    assert!(message.contains("no entry 1"), "{message}");
}

#[test]
fn a_pattern_that_matches_nobody_is_refused_with_one_that_does() {
    for (pattern, part) in [
        (
            "arn:aws:iam::123456789012:role/team/Deploy",
            "arn:aws:sts::123456789012:assumed-role/Deploy/*",
        ),
        (
            "arn:aws:sts::123456789012:assumed-role/Deploy/alice",
            "assumed-role/Deploy/*",
        ),
        (
            "arn:aws:sts::123456789012:assumed-role/Deploy",
            "assumed-role/Deploy/*",
        ),
        (
            "arn:aws:sts::123456789012:federated-user/alice",
            "federated-user/*",
        ),
        ("alice", "scram:NAME"),
    ] {
        let text = format!(
            "{MINIMAL}\n[[rules]]\nprincipals = [{pattern:?}]\ntargets = [\"orders\"]\nusers = [\"app\"]\n"
        );
        let error = Config::parse(&text, std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains(part), "{pattern}: {error}");
    }
    for pattern in [
        "arn:aws:sts::123456789012:assumed-role/Deploy/*",
        "arn:aws:sts::123456789012:assumed-role/Deploy/",
        "arn:aws:sts::*:assumed-role/*",
        "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_????????????????/alice",
        "arn:aws:iam::123456789012:user/alice",
        "*",
    ] {
        let text = format!(
            "{MINIMAL}\n[[rules]]\nprincipals = [{pattern:?}]\ntargets = [\"orders\"]\nusers = [\"app\"]\n"
        );
        Config::parse(&text, std::iter::empty()).unwrap();
    }
}

/// The only target, which is looked for like that.
fn discovering(discover: &str) -> String {
    let endpoint = "endpoint = \"Orders.cluster-abc.eu-west-1.rds.amazonaws.com\"";
    MINIMAL.replace(endpoint, discover)
}

#[test]
fn what_is_looked_for_is_checked_as_far_as_it_is_known() {
    for (discover, key, part) in [
        ("", "targets.orders.endpoint", "is missing"),
        (
            "endpoint = \"a.eu-west-1.rds.amazonaws.com\"\ndiscover = { cluster = \"a\" }",
            "targets.orders.discover",
            "one of the two",
        ),
        (
            "discover = {}",
            "targets.orders.discover",
            "one of cluster, instance and tags",
        ),
        (
            "discover = { cluster = \"a\", instance = \"b\" }",
            "targets.orders.discover",
            "one of cluster",
        ),
        (
            "discover = { cluster = \"\" }",
            "targets.orders.discover",
            "empty",
        ),
        (
            "discover = { cluster = \"or_ders\" }",
            "targets.orders.discover",
            "can't be an identifier",
        ),
        (
            "discover = { instance = \"arn:aws:rds:eu-west-1:123456789012:db:a\" }",
            "targets.orders.discover",
            "can't be an identifier",
        ),
        (
            "discover = { instance = \"a\", endpoint = \"reader\" }",
            "targets.orders.discover.endpoint",
            "only one endpoint",
        ),
        ("discover = { cluser = \"a\" }", "", "did you mean `cluster`?"),
        ("discover = { cluster = \"a\", endpoint = \"both\" }", "", "both"),
        ("discover = { tags = { a = \"b\" } }", "targets.name", "'*'"),
        (
            "discover = { cluster = \"a\" }\nregion = \"Ireland\"",
            "targets.orders.region",
            "is not a region",
        ),
        (
            "discover = { cluster = \"a\" }\npool.min_idle = 30",
            "targets.orders.pool.min_idle",
            "more than size",
        ),
        (
            "discover = { cluster = \"a\" }\ntls_ca_file = \"/nowhere.pem\"",
            "targets.orders.tls_ca_file",
            "/nowhere.pem",
        ),
    ] {
        let message = error(&discovering(discover));
        assert!(
            message.contains(key) && message.contains(part),
            "{discover}: {message}"
        );
    }
    for (from, to, part) in [
        ("{ a = \"b\" }", "{}", "at least one tag"),
        ("\"*-ro\"", "\"*-*\"", "one '*'"),
        (
            "users =",
            "listen = [\"127.0.0.1:5433\"]\nusers =",
            "all that has these tags",
        ),
    ] {
        let text =
            discovering("discover = { tags = { a = \"b\" } }").replace("\"orders\"\ndisc", "\"*-ro\"\ndisc");
        parse(&text).unwrap();
        let message = error(&text.replace(from, to));
        assert!(message.contains(part), "{to}: {message}");
    }
    // An endpoint that is written has a name without a star.
    assert!(error(&MINIMAL.replace("name = \"orders\"", "name = \"or*\"")).contains("can't be a name"));
}

#[test]
fn until_it_is_found_a_target_is_absent() {
    let text = discovering("discover = { cluster = \"Orders\" }\nlisten = [\"127.0.0.1:5433\"]");
    let config = parse(&text).unwrap();
    assert!(config.targets.is_empty());
    let absent = &config.absent[0];
    assert!(absent.is_called("orders") && !absent.is_called("order"));
    assert_eq!(&*absent.reason, "RDS hasn't answered yet");
    let own = (Some("orders".into()), "127.0.0.1:5433".parse().unwrap());
    assert!(
        config.addresses().contains(&own),
        "its own address is there all the same"
    );
    // RDS keeps identifiers in lower case.
    let Selector::Cluster(name) = &config.discoveries[0].search.selector else {
        panic!("{:?}", config.discoveries[0].search)
    };
    assert_eq!(name, "orders");
}

fn described(identifier: &str) -> Described {
    Described {
        kind: Kind::Cluster,
        identifier: identifier.to_owned(),
        resource_id: "cluster-1".to_owned(),
        arn: "arn".to_owned(),
        cluster: None,
        has_iam: true,
        engine: "aurora-postgresql".to_owned(),
        status: "available".to_owned(),
        host: Some(format!("{identifier}.cluster-a.eu-west-1.rds.amazonaws.com")),
        reader: None,
        port: Some(6000),
        authority: Some("rds-ca-2019".to_owned()),
        tags: vec![("a".to_owned(), "b".to_owned())],
    }
}

#[test]
fn what_is_found_is_understood_as_its_own_name_is() {
    let text = discovering("discover = { tags = { a = \"b\" } }\npool.mode = \"session\"")
        .replace("\"orders\"\ndisc", "\"*-ro\"\ndisc");
    let rule = "\n[[targets.pools]]\nusers = [\"app\"]\nsize = 3\n[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders-ro\"]\nusers = [\"app\"]\nread_only = true\n";
    let config = parse(&(text + rule)).unwrap();
    let mut found = Found::default();
    let all = [described("orders"), described("stock")];
    found.answered(&config.discoveries[0].search, &all, "eu-west-1", 0);
    let (config, remarks) = config.with_found(&found);
    let shown: Vec<_> = config
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.endpoint.port, target.pool.is_shared))
        .collect();
    assert_eq!(shown, [("orders-ro", 6000, true), ("stock-ro", 6000, false)]);
    let other_pools = config.targets.iter();
    let other_pools: Vec<_> = other_pools
        .map(|target| target.other_pools[0].pool.is_shared)
        .collect();
    assert_eq!(other_pools, [true, false]);
    assert!(config.absent.is_empty());
    let told = remarks[0].to_string();
    assert!(
        told.contains("rds-ca-2019") && told.contains("rds-ca-rsa2048-g1"),
        "{told}"
    );
}

#[test]
fn a_target_that_what_was_found_cannot_be_is_absent() {
    let fixed = "\n[[targets]]\nname = \"first\"\nendpoint = \"orders.cluster-a.eu-west-1.rds.amazonaws.com:6000\"\n\
                 databases = [\"orders\"]\nusers = [\"app\"]\niam.logins_per_second = 3\n";
    let text = discovering("discover = { cluster = \"orders\" }\nlisten = [\"127.0.0.1:5433\"]") + fixed;
    let config = parse(&text).unwrap();
    let mut found = Found::default();
    found.answered(
        &config.discoveries[0].search,
        &[described("orders")],
        "eu-west-1",
        1,
    );
    let (config, remarks) = config.with_found(&found);
    // Or its own address would lead to the other, and the other would be the only one.
    let absent: Vec<_> = config.absent.iter().map(|absent| absent.name.as_str()).collect();
    assert_eq!(absent, ["orders"]);
    assert_eq!(config.absent[0].listen, ["127.0.0.1:5433".parse().unwrap()]);
    assert_eq!(config.targets.len(), 1);
    // Clients of this target aren't told of the other.
    assert!(!config.absent[0].told.contains("first"));
    assert!(
        remarks
            .iter()
            .any(|remark| remark.to_string().contains("that of target first"))
    );
}

#[test]
fn a_name_is_whose_it_was_first_whatever_the_order_of_the_file() {
    let many = |name: &str, tag: &str| {
        format!(
            "\n[[targets]]\nname = \"{name}\"\ndiscover = {{ tags = {{ {tag} = \"yes\" }} }}\n\
             databases = [\"orders\"]\nusers = [\"app\"]\n"
        )
    };
    let config =
        parse(&(discovering("discover = { cluster = \"c\" }") + &many("*", "one") + &many("*-ro", "two")))
            .unwrap();
    let tagged = |identifier: &str, tag: &str| Described {
        tags: vec![(tag.to_owned(), "yes".to_owned())],
        ..described(identifier)
    };
    let places = |found: &Found| -> Vec<String> {
        let (config, _) = config.with_found(found);
        let shown = config.targets.iter();
        shown
            .map(|target| format!("{} {}", target.name, target.endpoint.host))
            .collect()
    };
    let mut found = Found::default();
    let mut look = |all: &[Described], number| {
        for discovery in &*config.discoveries {
            found.answered(&discovery.search, all, "eu-west-1", number);
        }
        places(&found)
    };
    let first = [tagged("stock", "two")];
    let stock = "stock-ro stock.cluster-a.eu-west-1.rds.amazonaws.com";
    assert_eq!(look(&first, 1), [stock]);
    // Somebody makes one of which the name by an earlier entry is the same.
    let both = [
        tagged("stock-ro", "one"),
        tagged("other", "one"),
        first[0].clone(),
    ];
    assert_eq!(
        look(&both, 2),
        ["other other.cluster-a.eu-west-1.rds.amazonaws.com", stock]
    );
    // Found together, the order of the file counts.
    let mut together = Found::default();
    for discovery in &*config.discoveries {
        together.answered(&discovery.search, &both, "eu-west-1", 1);
    }
    assert!(
        places(&together).contains(&"stock-ro stock-ro.cluster-a.eu-west-1.rds.amazonaws.com".to_owned())
    );
}

#[test]
fn what_the_file_says_where_it_is_was_not_discovered() {
    let text = MINIMAL.to_owned()
        + "\n[[targets]]\nname = \"*\"\ndiscover = { tags = { a = \"b\" } }\ndatabases = [\"orders\"]\nusers = [\"app\"]\n";
    let written = parse(&text).unwrap();
    let mut found = Found::default();
    found.answered(
        &written.discoveries[0].search,
        &[described("stock")],
        "eu-west-1",
        1,
    );
    let (config, _) = written.with_found(&found);
    let discovered: Vec<_> = config
        .discovered(&written)
        .map(|target| target.name.as_str())
        .collect();
    assert_eq!(discovered, ["stock"]);
}

#[test]
fn a_name_for_many_needs_something_for_its_star() {
    let text =
        discovering("discover = { tags = { a = \"b\" } }").replace("\"orders\"\ndisc", "\"db-*-ro\"\ndisc");
    let config = parse(&text).unwrap();
    let absent = &config.absent[0];
    for (name, is_called) in [
        ("db-a-ro", true),
        ("db--ro", false),
        ("db-ro", false),
        ("db-a-rw", false),
        ("a-ro", false),
    ] {
        assert_eq!(absent.is_called(name), is_called, "{name}");
    }
    assert_eq!(absent.only_name(), None);
}

#[test]
fn without_readers_there_is_no_target_for_them() {
    let config = parse(&discovering(
        "discover = { cluster = \"orders\", endpoint = \"reader\" }",
    ))
    .unwrap();
    let search = &config.discoveries[0].search;
    let mut found = Found::default();
    found.answered(search, &[described("orders")], "eu-west-1", 1);
    let (without, _) = config.with_found(&found);
    assert!(without.targets.is_empty());
    assert_eq!(&*without.absent[0].reason, "it has no reader endpoint");
    let with = Described {
        reader: Some("orders.cluster-ro-a.eu-west-1.rds.amazonaws.com".to_owned()),
        ..described("orders")
    };
    found.answered(search, &[with], "eu-west-1", 2);
    let (with, _) = config.with_found(&found);
    assert!(with.absent.is_empty());
    let Target { endpoint, region, .. } = &*with.targets[0];
    assert_eq!(
        endpoint.to_string(),
        "orders.cluster-ro-a.eu-west-1.rds.amazonaws.com:6000"
    );
    // For that tokens are signed.
    assert_eq!(region, "eu-west-1");
}
