//! Against verifiers that PostgreSQL made, and every way to spoil one.

use proptest::prelude::*;

use super::*;

/// Made by PostgreSQL 15.18 (`CREATE ROLE … PASSWORD`). SASLprep: leaves the first as it is, drops
/// the soft hyphen, composes the numeral, can't take an unassigned character, turns the no-break
/// space into a space, can't take the tab, would leave nothing, can't mix directions like that.
#[rustfmt::skip]
const BY_POSTGRES: [(&str, &str); 8] = [
    ("pencil", "SCRAM-SHA-256$4096:R4vS5zWV4O1Zg28CYIcNOA==$v7tMNMSlpHEXA+/s0l6efXSg2CwOS7fgmalFIXj19PU=:0w8Lrf13WLibibmbOCX+qjHoVckbqpNfWGYxvHqKIC0="),
    ("I\u{AD}X", "SCRAM-SHA-256$4096:Gb/2zT7p93cYpzuNRYPsHQ==$HkSoy3l7EA+8tPtppPMxImiwAws7JHgP6phRpwbnpcM=:vP2ktO9eUuTxo8mNqMRLnJ3Jsq6ET8+8mqnMYvzavMo="),
    ("\u{2177} a", "SCRAM-SHA-256$4096:DaFkWB6CHZ3Z8FWGUdM5PA==$gptR0iKcV2/wKERZRM7muW7mRzZNrgQ2ObFdkwnjNTI=:5aydqb8mAjYmWVlhfUTpb2Keu0FQN1zPiMQkeceY+ww="),
    ("x\u{378}y", "SCRAM-SHA-256$4096:kOCB/M7ac/CSvd0xjYuqqQ==$Cmy/hCHzggCB5ufirGihWNoMITEjZbicz8hbnA5Geyo=:sGbITOPTt0/taCaJDDnH7G6xGuffOGgl9417h2+1WT8="),
    ("a\u{A0}b", "SCRAM-SHA-256$4096:kmuC+d1MNTtAwa9e/h2rxw==$98P/tAfPs7wKQLc5FkJr4zKdUK3KNw1oiI2jSmeMVgw=:Ym0PevGNCiVuQdglSw/rp2bGv0ZLR/+GxcHUIqIwrho="),
    ("tab\there", "SCRAM-SHA-256$4096:Go6MjOdpYEon5nIdW3n1Ew==$qfaXrrzIdeFZkLxjyfFnu2VJLXzIyhAdmV1H2MKJD0M=:WamW9LYJ/7jbeTA4SG0e2SPU9SlcJXnuwDtwGxOYzVU="),
    ("\u{AD}\u{AD}", "SCRAM-SHA-256$4096:iuUdFkC+LTt7XpofRpqm7w==$jduTmYKKXpzUzarUvkEdOveMU1BgDiGVN9wmysFeT1s=:gp6qgJY4kyl1F/op4Q/tkofcyDVFZDIISgdRMmt1Z7s="),
    ("\u{627}1", "SCRAM-SHA-256$4096:TpU+/ho3Ad8iiKqEGfI7dA==$5f/YwTjER5n/M6RIb0EhFh41BTaaQ1cXq744KPRCtRI=:R6sqcem7szehU8LP/HnV1qudZ4+lJ7y+mtf2Q27KD0s="),
];

#[test]
fn agrees_with_postgres_on_every_kind_of_password() {
    for (password, text) in BY_POSTGRES {
        let parsed: Verifier = text.parse().unwrap();
        assert_eq!(parsed.to_string(), text);
        let made = Verifier::from_password(password, parsed.salt(), parsed.iterations());
        assert_eq!(made.to_string(), text, "{password:?}");
    }
}

#[test]
fn what_is_wrong_with_a_text_is_said_without_repeating_it() {
    let key = "v7tMNMSlpHEXA+/s0l6efXSg2CwOS7fgmalFIXj19PU=";
    let short = "v7tMNMSlpHEXA+/s0l6efXSg2CwOS7fgmalFIXj19A==";
    let rows = [
        (String::new(), VerifierError::Form),
        ("hunter2".into(), VerifierError::Form),
        (format!("md5{}", "0".repeat(32)), VerifierError::Md5),
        (
            format!("scram-sha-256$4096:c2FsdA==${key}:{key}"),
            VerifierError::Form,
        ),
        (
            format!("SCRAM-SHA-1$4096:c2FsdA==${key}:{key}"),
            VerifierError::Form,
        ),
        (
            format!("SCRAM-SHA-256$4096$c2FsdA=={key}{key}"),
            VerifierError::Form,
        ),
        (format!("SCRAM-SHA-256$4096:c2FsdA==:{key}"), VerifierError::Form),
        (format!("SCRAM-SHA-256$4096:c2FsdA==${key}"), VerifierError::Form),
        (
            format!("SCRAM-SHA-256$:c2FsdA==${key}:{key}"),
            VerifierError::Iterations,
        ),
        (
            format!("SCRAM-SHA-256$0:c2FsdA==${key}:{key}"),
            VerifierError::Iterations,
        ),
        (
            format!("SCRAM-SHA-256$+1:c2FsdA==${key}:{key}"),
            VerifierError::Iterations,
        ),
        (
            format!("SCRAM-SHA-256$-1:c2FsdA==${key}:{key}"),
            VerifierError::Iterations,
        ),
        (
            format!("SCRAM-SHA-256$2147483648:c2FsdA==${key}:{key}"),
            VerifierError::Iterations,
        ),
        (format!("SCRAM-SHA-256$4096:${key}:{key}"), VerifierError::Salt),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA=${key}:{key}"),
            VerifierError::Salt,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2 FsdA==${key}:{key}"),
            VerifierError::Salt,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==$:{key}"),
            VerifierError::StoredKey,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==${short}:{key}"),
            VerifierError::StoredKey,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:"),
            VerifierError::ServerKey,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{short}"),
            VerifierError::ServerKey,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}\n"),
            VerifierError::ServerKey,
        ),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}:{key}"),
            VerifierError::ServerKey,
        ),
    ];
    for (text, expected) in rows {
        let error = text.parse::<Verifier>().unwrap_err();
        assert_eq!(error, expected, "{text}");
        assert!(!error.to_string().contains(key), "{text}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let verifier = Verifier::from_password("pencil", b"0123456789abcdef", 1);
    assert_eq!(format!("{verifier:?}"), "Verifier { iterations: 1, .. }");
}

#[test]
fn a_mock_looks_like_a_verifier_and_stays_the_same() {
    let secret = [7; 32];
    let mock = Verifier::mock("nobody", &secret, &[]);
    let again = Verifier::mock("nobody", &secret, &[]);
    assert_eq!(mock.salt(), again.salt());
    assert_eq!(mock.salt().len(), Verifier::SALT_LEN);
    assert_eq!(mock.iterations(), 4096);
    assert_ne!(mock.salt(), Verifier::mock("nobody2", &secret, &[]).salt());
    assert_ne!(mock.salt(), Verifier::mock("nobody", &[8; 32], &[]).salt());
    assert!(!mock.is_genuine());
}

#[test]
fn mocks_have_the_shapes_of_the_genuine_ones() {
    let secret = [7; 32];
    let shapes = [(4096, 16), (4096, 16), (4096, 16), (600_000, 40)];
    let shape = |user: usize| {
        let mock = Verifier::mock(&format!("nobody{user}"), &secret, &shapes);
        (mock.iterations(), mock.salt().len())
    };
    let seen: Vec<_> = (0..400).map(shape).collect();
    let rare = seen.iter().filter(|seen| **seen == (600_000, 40)).count();
    assert!((50..150).contains(&rare), "{rare} of 400 where 100 are expected");
    assert!(seen.iter().all(|seen| shapes.contains(seen)));
    assert_eq!(seen, (0..400).map(shape).collect::<Vec<_>>());
}

#[test]
fn no_iterations_are_one() {
    let none = Verifier::from_password("x", b"salt", 0);
    assert_eq!(
        none.to_string(),
        Verifier::from_password("x", b"salt", 1).to_string()
    );
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(
        text in ".{0,200}|SCRAM-SHA-256\\$[0-9]{0,11}:[A-Za-z0-9+/=]{0,9}\\$.{0,50}:.{0,50}",
    ) {
        let _ = text.parse::<Verifier>();
    }

    #[test]
    fn text_and_back(
        password in ".{0,20}",
        salt in proptest::collection::vec(any::<u8>(), 1..40),
        iterations in 1_u32..3,
    ) {
        let made = Verifier::from_password(&password, &salt, iterations);
        let parsed: Verifier = made.to_string().parse().unwrap();
        prop_assert_eq!(parsed.to_string(), made.to_string());
    }
}
