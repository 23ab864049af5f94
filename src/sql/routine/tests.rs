//! Bodies and what calling them may leave behind.

use super::*;

/// Effects, settings and names.
fn read(body: &str, language: Language) -> (Effects, Vec<String>, Vec<String>) {
    let (mut settings, mut names) = (Vec::new(), Vec::new());
    let effects = routine_effects(body.as_bytes(), language, |found| match found {
        Found::Setting(name) => settings.push(name.to_owned()),
        Found::Identifier(identifier) => {
            let mut buffer = [0; 63];
            let name = identifier.fold(&mut buffer).unwrap_or_default();
            names.push(String::from_utf8(name.to_vec()).unwrap());
        }
    });
    (effects.without(Effects::LOCAL), settings, names)
}

const WRITE: Effects = Effects::SEQUENCE_WRITE;
const DDL: Effects = Effects::DDL.union(WRITE);
const DYNAMIC: Effects = Effects::DYNAMIC.union(WRITE);
const CODE: Effects = Effects::CODE.union(WRITE);

#[test]
fn harmless_bodies_leave_nothing_behind() {
    for body in [
        "",
        "BEGIN NULL; END",
        "DECLARE a int := 1; b text; BEGIN UPDATE t SET x = 1; RETURN a; END",
        "BEGIN IF a THEN UPDATE t SET x = 1; ELSE UPDATE ONLY t AS u SET y = 1; END IF; END",
        "#variable_conflict use_column\n<<a>> BEGIN FOR i IN 1..2 LOOP DELETE FROM t; END LOOP; END a",
        "BEGIN SELECT a INTO STRICT b FROM t; END",
        "BEGIN RAISE NOTICE 'SET x = 1; EXECUTE %', a; END",
        "BEGIN -- SET x = 1;\n NULL; END",
        "BEGIN SET LOCAL x = 1; PERFORM set_config('x', 'y', true); END",
        "BEGIN SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED; END",
        "BEGIN RETURN NEW.set; OPEN c FOR SELECT 1; FETCH c INTO a; CLOSE c; END",
        "BEGIN x := f($1) + pg_advisory_xact_lock(2); COMMIT; ROLLBACK; END",
    ] {
        let (effects, settings, _) = read(body, Language::PlPgSql);
        assert_eq!((effects, settings), (Effects::NONE, vec![]), "{body}");
    }
    for body in [
        "SELECT $1 + 1",
        "SELECT 1; UPDATE t SET x = 1",
        "BEGIN ATOMIC SELECT 1; END",
        "RETURN a + 1",
    ] {
        assert_eq!(read(body, Language::Sql).0, Effects::NONE, "{body}");
    }
}

#[test]
fn effects_are_seen_wherever_a_statement_can_begin() {
    for (body, expected) in [
        ("BEGIN CREATE TEMP TABLE t (a int); END", DDL | Effects::TEMPORARY),
        ("BEGIN IF a THEN CREATE TABLE t AS SELECT 1; END IF; END", DDL),
        ("BEGIN NULL; DROP TABLE t; END", DDL),
        ("BEGIN LOOP ALTER TABLE t ADD a int; END LOOP; END", DDL),
        (
            "BEGIN IF a THEN NULL; ELSE LISTEN x; END IF; END",
            Effects::LISTEN | WRITE,
        ),
        ("BEGIN EXECUTE a; END", DYNAMIC),
        ("BEGIN RETURN QUERY EXECUTE 'x' || a; END", DYNAMIC),
        (
            "BEGIN FOR r IN EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1 LOOP NULL; END LOOP; END",
            DYNAMIC,
        ),
        (
            "BEGIN DO $$ x $$; INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING; END",
            CODE | DYNAMIC | Effects::DYNAMIC_SETTING,
        ),
        ("BEGIN CALL p(); END", CODE),
        ("BEGIN LOAD 'x'; END", Effects::LASTING),
        ("BEGIN DISCARD PLANS; END", Effects::NONE),
        ("BEGIN PREPARE p AS SELECT 1; END", Effects::PREPARED | WRITE),
        (
            "BEGIN PERFORM pg_advisory_lock(1); END",
            Effects::ADVISORY | WRITE,
        ),
        (
            "BEGIN RETURN QUERY INSERT INTO t VALUES (1) RETURNING a; END",
            WRITE,
        ),
        ("BEGIN RETURN nextval('s'); END", WRITE),
        ("BEGIN RETURN currval('s'); END", Effects::SEQUENCE_READ),
        ("BEGIN UPDATE t SET a = DEFAULT; END", WRITE),
        ("BEGIN COPY t FROM '/x'; END", WRITE),
        ("BEGIN PERFORM setseed(1); END", Effects::SEED),
        ("BEGIN SET LOCAL seed = 1; END", Effects::SEED),
        (
            "BEGIN U&\"a\"; END",
            Effects::UNKNOWN | Effects::DYNAMIC_SETTING | WRITE,
        ),
        ("BEGIN '", Effects::UNKNOWN | WRITE),
        ("DECLARE a int := nextval('s'); BEGIN NULL; END", WRITE),
    ] {
        assert_eq!(read(body, Language::PlPgSql).0, expected, "{body}");
    }
    for (body, expected) in [
        ("SELECT 1 INTO t", DDL),
        ("SELECT 1; SET x = 1", Effects::SETTING),
        ("EXECUTE p", Effects::PREPARED | WRITE),
        (
            "BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT nextval('s'); END",
            WRITE,
        ),
        ("BEGIN ATOMIC SELECT setseed(1); END", Effects::SEED),
        ("x", Effects::UNKNOWN | WRITE),
    ] {
        assert_eq!(read(body, Language::Sql).0, expected, "{body}");
    }
}

#[test]
fn settings_are_named() {
    let dynamic = Effects::SETTING | Effects::DYNAMIC_SETTING;
    for (body, effects, settings) in [
        ("BEGIN SET x = 1; END", Effects::SETTING, vec!["x"]),
        (
            "BEGIN SET \"A\".b TO 1; SET LOCAL c = 1; END",
            Effects::SETTING,
            vec!["a.b"],
        ),
        (
            "BEGIN IF a THEN SET SESSION x = 1; END IF; END",
            Effects::SETTING,
            vec!["x"],
        ),
        (
            "BEGIN SET TIME ZONE 'UTC'; SET ROLE x; END",
            Effects::SETTING,
            vec!["timezone", "role"],
        ),
        (
            "BEGIN SET SESSION AUTHORIZATION x; END",
            Effects::SETTING,
            vec!["session_authorization"],
        ),
        ("BEGIN RESET x; END", Effects::SETTING | Effects::RESET, vec!["x"]),
        ("BEGIN RESET ALL; END", Effects::SETTING | Effects::RESET, vec![]),
        (
            "BEGIN PERFORM set_config('x', y, false); END",
            Effects::SETTING,
            vec!["x"],
        ),
        ("BEGIN PERFORM set_config(x, y, false); END", dynamic, vec![]),
        (
            "BEGIN PERFORM set_config('x', y, z); END",
            Effects::SETTING,
            vec!["x"],
        ),
        (
            "BEGIN a := set_config(E'x', set_config('y', 'z', false), true); END",
            Effects::SETTING,
            vec!["y"],
        ),
    ] {
        let (found, names, _) = read(body, Language::PlPgSql);
        assert_eq!(found.without(Effects::DECIDING), effects, "{body}");
        assert_eq!(names, settings, "{body}");
    }
}

#[test]
fn names_are_reported() {
    let (_, _, names) = read(
        "BEGIN PERFORM a.F(x), \"G\"() FROM t WHERE 'h()' = $$i()$$; END",
        Language::PlPgSql,
    );
    for name in ["a", "f", "x", "G", "t"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|found| found == "h" || found == "i"));
}

#[test]
fn both_readings_of_a_backslash_count() {
    let conforming = "BEGIN a := 'x\\'; SET b = 1; --'; END";
    assert_eq!(read(conforming, Language::PlPgSql).0, Effects::SETTING);
    let escaping = "BEGIN a := 'x\\' ; b := '; SET c = 1; --'; END";
    assert!(read(escaping, Language::PlPgSql).0.contains(Effects::SETTING));
}
