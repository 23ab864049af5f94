//! What clients ask, as far as a rule wants it recorded.

use super::*;
use crate::raw::frame;

/// A gateway that records to `file`, with `terms` in the rule.
fn recording_statements(lab: &Lab, file: &Path, pool: &'static str, terms: &str) -> Gateway {
    let rules = format!(
        "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\"]\nusers = [\"*\"]\n{terms}\n[audit]\nfile = {file:?}\n"
    );
    let options = Options {
        pool,
        rules: rules.leak(),
        ..Options::default()
    };
    Gateway::start(lab, &options)
}

#[test]
fn what_is_asked_is_recorded_as_a_rule_says() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    for (pool, terms, shown) in [
        (
            "mode = \"auto\"",
            "statements = \"masked\"",
            "select ?, a from t where b = $1",
        ),
        (
            "mode = \"session\"",
            "statements = \"full\"",
            "select 'secret', a from t where b = $1 -- 1",
        ),
        ("mode = \"session\"", "statements = \"no\"", ""),
    ] {
        let (_directory, file) = file();
        let gateway = recording_statements(&lab, &file, pool, terms);
        let (mut raw, _) = log_in(&gateway, "app_rw");
        raw.query("drop table if exists t; create table t (a int, b text)");
        raw.query("alter role app_rw password 'hush'");
        // Parse with a type, Bind, Execute twice.
        let text = b"select 'secret', a from t where b = $1 -- 1\0";
        raw.message('P', &[b"s\0", &text[..], &[0, 1, 0, 0, 0, 25]].concat());
        for _ in 0..2 {
            raw.message('B', b"p\0s\0\0\0\0\x01\0\0\0\x01x\0\0");
            raw.message('E', b"p\0\0\0\0\0");
            raw.message('C', b"Pp\0");
        }
        raw.message('S', b"");
        raw.until('Z');
        raw.message('Q', b"copy t (a) from stdin\0");
        raw.until('G');
        raw.message('d', b"1\n2\n");
        raw.message('d', b"3\n");
        raw.message('c', b"");
        raw.until('Z');
        // The function int4pl, of 1 and 2.
        raw.message('F', b"\0\0\0\xb1\0\x01\0\0\0\x02\0\0\0\x011\0\0\0\x012\0\0");
        raw.until('Z');
        raw.message('X', b"");
        assert!(raw.is_closed());
        if shown.is_empty() {
            assert!(lines(&file, 3).iter().all(|line| line["event"] != "statement"));
            continue;
        }
        let lines = lines(&file, 11);
        let statements: Vec<&Value> = lines.iter().filter(|line| line["event"] == "statement").collect();
        let kinds: Vec<_> = statements
            .iter()
            .map(|line| line["kind"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            [
                "query",
                "query",
                "parse",
                "execute",
                "execute",
                "query",
                "copy_done",
                "function_call"
            ]
        );
        assert_eq!(statements[1]["text"], "alter role app_rw password ?");
        let parse = statements[2];
        assert_eq!((&parse["name"], &parse["text"]), (&"s".into(), &shown.into()));
        assert_eq!(parse["types"], serde_json::json!([25]));
        assert_eq!(parse["length"], text.len() - 1);
        assert_eq!(
            (&statements[4]["name"], &statements[4]["text"]),
            (&"p".into(), &shown.into())
        );
        assert_eq!(statements[6]["bytes"], 6);
        assert_eq!(statements[7]["function"], 177);
        let log = std::fs::read_to_string(&file).unwrap();
        assert!(!log.contains("hush"));
        assert!(verify(&[&file]).status.success());
    }
}

#[test]
fn what_a_rule_does_not_let_is_recorded_as_refused() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let (_directory, file) = file();
    let gateway = recording_statements(
        &lab,
        &file,
        "mode = \"auto\"",
        "read_only = true\nstatements = \"full\"",
    );
    let (mut raw, _) = log_in(&gateway, "app_rw");
    raw.query("vacuum");
    raw.query(&format!("select '{}'", "x".repeat(20_000)));
    let lines = lines(&file, 4);
    assert_eq!(
        (&lines[2]["text"], &lines[2]["refused"]),
        (&"vacuum".into(), &true.into())
    );
    assert_eq!(lines[3]["refused"], Value::Null);
    assert_eq!(lines[3]["length"], 20_009);
    assert_eq!(lines[3]["text"].as_str().unwrap().len(), 8_192);
}

/// What a portal is recorded to be is what was bound to it last, or nothing.
#[test]
fn a_portal_is_not_recorded_as_what_it_is_not() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let (_directory, file) = file();
    let gateway = recording_statements(&lab, &file, "mode = \"auto\"", "statements = \"full\"");
    let (mut raw, _) = log_in(&gateway, "app_rw");
    let long = "a".repeat(63);
    let parse = |name: &str, text: &str| {
        frame(
            'P',
            &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat(),
        )
    };
    let bind = |portal: &str, name: &str| {
        frame(
            'B',
            &[portal.as_bytes(), b"\0", name.as_bytes(), &[0; 7]].concat(),
        )
    };
    let execute = |portal: &str| frame('E', &[portal.as_bytes(), &[0; 5]].concat());
    let close = |portal: &str| frame('C', &[b"P", portal.as_bytes(), b"\0"].concat());
    let mut asks = |messages: &[Vec<u8>]| {
        raw.send(&[messages.concat(), frame('S', b"")].concat());
        raw.until('Z');
    };
    asks(&[
        parse("good", "select 1"),
        parse("evil", "select 666"),
        parse("begin", "begin"),
        bind("", "begin"),
        execute(""),
    ]);
    // A Bind that fails.
    asks(&[
        parse("s", "savepoint a"),
        bind("", "s"),
        execute(""),
        bind("p", "evil"),
    ]);
    asks(&[bind("p", "good")]);
    asks(&[
        parse("r", "rollback to a"),
        bind("", "r"),
        execute(""),
        execute("p"),
    ]);
    // Names that differ behind what counts.
    asks(&[bind(&format!("{long}x"), "good"), close(&format!("{long}y"))]);
    asks(&[bind(&format!("{long}y"), "evil"), execute(&format!("{long}x"))]);
    // A name that is too long to be looked at in full.
    asks(&[bind("", "good"), execute(&"a".repeat(2_000))]);
    // One that was closed, and a cursor in its place.
    asks(&[
        bind("q", "good"),
        close("q"),
        parse("d", "declare q cursor for select 666"),
        bind("", "d"),
        execute(""),
        execute("q"),
    ]);
    raw.query("commit");
    let lines = lines(&file, 17);
    let of = |name: &str| {
        let of = lines
            .iter()
            .filter(|line| line["kind"] == "execute" && line["name"] == name);
        of.map(|line| line["text"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("p"), [Value::Null]);
    assert_eq!(of(&format!("{long}x")), [Value::from("select 666")]);
    assert_eq!(of(&"a".repeat(128)), [Value::Null]);
    assert_eq!(of("q"), [Value::Null]);
}
