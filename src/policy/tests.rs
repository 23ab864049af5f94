use super::*;

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| Glob::new(text)).collect()
}

fn rule(principals: &[&str], targets: &[&str], databases: &[&str], users: &[&str]) -> Rule {
    Rule {
        principals: globs(principals),
        accounts: None,
        permission_sets: None,
        documents: None,
        targets: globs(targets),
        databases: globs(databases),
        users: globs(users),
        hours: None,
        console: None,
        terms: Terms::default(),
    }
}

fn ask(rules: &Rules, who: &str, target: &str, database: &str, user: &str) -> Decision {
    let principal = match who {
        "" => Principal::Trust,
        name => Principal::Scram(name.into()),
    };
    rules.decide(&Request {
        principal: &principal,
        document: None,
        target: &target.into(),
        database: &database.into(),
        user: &user.into(),
        at: SystemTime::UNIX_EPOCH,
    })
}

fn policy() -> Rules {
    Rules::new(vec![
        rule(&["scram:alice"], &["orders"], &["orders"], &["app_ro"]),
        rule(&["scram:a*", "scram:bob"], &["orders"], &["*"], &["app_r?"]),
        rule(&["scram:bob"], &["billing", "stock"], &["*"], &["*"]),
    ])
}

#[test]
fn first_match_wins_and_nothing_matching_is_refused() {
    use Decision::{Allow, Refuse};
    let rows = [
        (("alice", "orders", "orders", "app_ro"), Allow { rule: 0 }),
        (("alice", "orders", "orders", "app_rw"), Allow { rule: 1 }),
        (("alice", "orders", "other", "app_ro"), Allow { rule: 1 }),
        (("bob", "stock", "x", "y"), Allow { rule: 2 }),
        (("", "orders", "orders", "app_ro"), Refuse(Refusal::Principal)),
        (
            ("Alice", "orders", "orders", "app_ro"),
            Refuse(Refusal::Principal),
        ),
        (("alice", "billing", "orders", "app_ro"), Refuse(Refusal::Target)),
        (("alice", "no-such", "orders", "app_ro"), Refuse(Refusal::Target)),
        (("alice", "orders", "orders", "postgres"), Refuse(Refusal::User)),
        (("alice", "orders", "orders", ""), Refuse(Refusal::User)),
    ];
    for ((who, target, database, user), expected) in rows {
        assert_eq!(
            ask(&policy(), who, target, database, user),
            expected,
            "{who} {target} {database} {user}"
        );
    }
}

#[test]
fn no_rules_refuse_everybody() {
    assert_eq!(
        ask(&Rules::default(), "alice", "orders", "orders", "app_ro"),
        Decision::Refuse(Refusal::NoRules)
    );
}

#[test]
fn a_rule_holds_in_its_hours_and_until_they_are_over() {
    let mut office = rule(&["*"], &["*"], &["*"], &["*"]);
    let spans = vec!["Thu 00:00-01:00".parse().unwrap()];
    office.hours = Some(Hours::new(spans, jiff::tz::TimeZone::UTC));
    office.terms.max_duration = Some(Duration::from_secs(3_000));
    let rules = Rules::new(vec![office]);
    // A Thursday's beginning.
    assert_eq!(ask(&rules, "alice", "t", "d", "u"), Decision::Allow { rule: 0 });
    let left = |minutes: u64| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * minutes);
        rules.terms(0, at).max_duration
    };
    assert_eq!(left(0), Some(Duration::from_secs(3_000)));
    assert_eq!(left(50), Some(Duration::from_secs(600)));
    let request = Request {
        principal: &Principal::Trust,
        document: None,
        target: &"t".into(),
        database: &"d".into(),
        user: &"u".into(),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(3_600),
    };
    assert_eq!(rules.decide(&request), Decision::Refuse(Refusal::Hours));
}

#[test]
fn an_empty_list_matches_nothing() {
    let full = ["*"].as_slice();
    let rows = [
        (rule(&[], full, full, full), Refusal::Principal),
        (rule(full, &[], full, full), Refusal::Target),
        (rule(full, full, &[], full), Refusal::Database),
        (rule(full, full, full, &[]), Refusal::User),
    ];
    for (rule, expected) in rows {
        assert_eq!(
            ask(&Rules::new(vec![rule]), "alice", "t", "d", "u"),
            Decision::Refuse(expected)
        );
    }
}

#[test]
fn the_nearest_miss_is_told_wherever_it_stands() {
    let near = rule(&["*"], &["orders"], &["orders"], &["app_ro"]);
    let far = rule(&["scram:bob"], &["*"], &["*"], &["*"]);
    for rules in [vec![near.clone(), far.clone()], vec![far, near]] {
        let rules = Rules::new(rules);
        assert_eq!(
            ask(&rules, "alice", "orders", "orders", "root"),
            Decision::Refuse(Refusal::User)
        );
        assert_eq!(
            ask(&rules, "alice", "orders", "other", "app_ro"),
            Decision::Refuse(Refusal::Database)
        );
    }
}

#[test]
fn a_name_cannot_pass_for_another_kind_of_principal() {
    let rules = Rules::new(vec![rule(&["trust:"], &["*"], &["*"], &["*"])]);
    assert_eq!(ask(&rules, "", "t", "d", "u"), Decision::Allow { rule: 0 });
    assert_eq!(
        ask(&rules, "trust:", "t", "d", "u"),
        Decision::Refuse(Refusal::Principal)
    );
}
