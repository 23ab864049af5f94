//! Texts and what they leave behind, many of them written to be taken for harmless.

use super::*;

const CONFORMING: Options = Options {
    standard_conforming_strings: true,
};
const BACKSLASHES: Options = Options {
    standard_conforming_strings: false,
};

const NONE: Effects = Effects::NONE;
const SETTING: Effects = Effects::SETTING;
const DYNAMIC_SETTING: Effects = Effects::SETTING.union(Effects::DYNAMIC_SETTING);
const RESET: Effects = SETTING.union(Effects::RESET);
const RESET_DYNAMIC: Effects = DYNAMIC_SETTING.union(Effects::RESET);
const WRITE: Effects = Effects::SEQUENCE_WRITE;
const READ: Effects = Effects::SEQUENCE_READ;
const DDL: Effects = Effects::DDL.union(WRITE);
const TEMPORARY: Effects = DDL.union(Effects::TEMPORARY);
const ADVISORY: Effects = Effects::ADVISORY.union(WRITE);
const PREPARED: Effects = Effects::PREPARED.union(WRITE);
const CODE: Effects = Effects::CODE.union(WRITE);
const DYNAMIC: Effects = Effects::DYNAMIC.union(WRITE);
const ENDS: Effects = Effects::ENDS;
const DEALLOCATE: Effects = Effects::DEALLOCATE.union(ENDS);
const UNKNOWN: Effects = Effects::UNKNOWN.union(WRITE);

/// Knows one function.
fn lookup(identifier: &Identifier<'_>) -> Effects {
    if identifier.eq_folded("leaky") {
        Effects::LISTEN
    } else {
        NONE
    }
}

fn read(text: &str) -> Analysis {
    analyse(text.as_bytes(), CONFORMING, lookup)
}

fn check(rows: &[(&str, Effects)]) {
    for (text, effects) in rows {
        let left_behind = read(text).effects.without(Effects::PASSING);
        assert_eq!(left_behind, *effects, "{text}");
    }
}

#[test]
fn settings_that_decide_how_texts_are_read_are_seen() {
    for text in [
        "SET DateStyle = DMY",
        "SET LOCAL standard_conforming_strings = off",
        "SET TIME ZONE 'UTC'",
        "SET NAMES 'UTF8'",
        "SET XML OPTION DOCUMENT",
        "RESET array_nulls",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT set_config('TimeZone', $1, true)",
        "SELECT set_config($1, $2, false)",
        "SELECT 1; SET client_encoding = 'LATIN1'",
    ] {
        assert!(read(text).effects.intersects(Effects::DECIDES), "{text}");
    }
    for text in [
        "SET work_mem = '1MB'",
        "SET LOCAL app.datestyle = 'x'",
        "SELECT set_config('app.tenant', $1, true)",
        "DISCARD TEMP",
        "SELECT 'SET DateStyle = DMY'",
    ] {
        assert!(!read(text).effects.intersects(Effects::DECIDING), "{text}");
    }
    let kinds = |text| read(text).effects.common(Effects::DECIDING);
    assert_eq!(kinds("SET TIME ZONE 'UTC'"), Effects::DECIDES);
    assert_eq!(
        kinds("SET NAMES 'UTF8'"),
        Effects::DECIDES | Effects::DECIDES_WORDS
    );
    let unreported = Effects::DECIDES | Effects::DECIDES_UNREPORTED;
    assert_eq!(kinds("SELECT set_config('Array_Nulls', 'off', true)"), unreported);
    assert_eq!(kinds("SELECT set_config($1, 'off', true)"), Effects::DECIDING);
}

#[test]
fn what_runs_the_expressions_of_indexes_without_naming_their_table_may_do_anything() {
    for (text, all) in [
        ("VACUUM t", false),
        ("vacuum (analyze, verbose on) a.t (c), only \"T\"", false),
        ("vacuum (analyze)", true),
        ("vacuum full freeze verbose analyze", true),
        ("ANALYZE", true),
        ("analyse t", false),
        ("analyze verbose; select t", true),
        ("REINDEX TABLE concurrently t", false),
        ("REINDEX (verbose) INDEX i", true),
        ("REINDEX SCHEMA a", true),
        ("analyze index", false),
        ("vacuum t (schema), s.database", false),
        ("reindex \"index\"", false),
        ("reindex (tablespace a, verbose) table concurrently t", false),
        ("CLUSTER", true),
        ("cluster t using i", false),
    ] {
        let expected = if all {
            Effects::UNKNOWN | Effects::MAINTAINS
        } else {
            Effects::NONE
        };
        let known = Effects::UNKNOWN | Effects::MAINTAINS;
        assert_eq!(read(text).effects.common(known), expected, "{text}");
    }
}

#[test]
fn what_ends_a_transaction_is_seen() {
    let ends = |text| read(text).effects.intersects(Effects::ENDS_TRANSACTION);
    for text in [
        "COMMIT",
        "end work",
        "ABORT AND CHAIN",
        "ROLLBACK TO a",
        "SELECT 1; COMMIT; SELECT 2",
        "PREPARE TRANSACTION 'a'",
    ] {
        assert!(ends(text), "{text}");
    }
    for text in [
        "BEGIN",
        "SAVEPOINT a",
        "RELEASE a",
        "SELECT 'COMMIT'",
        "PREPARE a AS SELECT 1",
    ] {
        assert!(!ends(text), "{text}");
    }
}

#[test]
fn settings_of_a_transaction_are_seen() {
    for text in [
        "SET LOCAL x = 1",
        "BEGIN; SET LOCAL x TO DEFAULT",
        "SELECT set_config('a', 'b', true)",
    ] {
        assert!(read(text).effects.contains(Effects::LOCAL), "{text}");
    }
    assert_eq!(read("SET x = 1").effects, SETTING);
}

#[test]
fn harmless_statements_leave_nothing_behind() {
    for text in [
        "",
        " ",
        "-- SET x = 1",
        "/* SET x = 1; /* nested */ LISTEN a */",
        ";",
        ";;  ; /* */ ; --",
        "SELECT 1",
        "select\t1;",
        "\u{b}SELECT 1",
        "SeLeCt abalance FROM pgbench_accounts WHERE aid = 12345;",
        "( SELECT 1 )",
        "((SELECT 1) UNION (SELECT 2)) ORDER BY 1",
        "VALUES (1), (2)",
        "TABLE x",
        "WITH a AS (SELECT 1), b (c) AS MATERIALIZED (SELECT 2) SELECT * FROM a, b",
        "SELECT 'SET x = 1; SELECT set_config(''a'',''b'',false)'",
        "SELECT ';', '; SET x = 1; '",
        "SELECT $$ ; SET x = 1; $$",
        "SELECT $a$ $$ ; SET x = 1; $b$ $a $a$",
        "SELECT E'\\'; SET x = 1; --'",
        "SELECT e'\\\\', 'x; SET y = 1'",
        "SELECT E'a'\n  -- between\n  'b\\'; SET x = 1; --'",
        "SELECT U&'\\0041; SET x = 1'",
        "SELECT B'101', x'1f', N'; SET x = 1'",
        "SELECT 1 -- ; SET x = 1",
        "SELECT 1 --; SET x = 1\r+ 2",
        "SELECT 1 /* ; SET x = 1 */ + 2",
        "SELECT 1 +/* ; SET x = 1; */ 2",
        "SELECT 1 +-- ; SET x = 1;\n 2",
        "SELECT 1 /*/* ; */ ; SET x = 1; */",
        "SELECT \"set\", \"reset\" FROM \"into\"",
        "SELECT a.into, a.default, \"INTO\" FROM t",
        "SELECT temp, temporary, hold FROM weather",
        "SELECT * FROM pg_settings",
        "SELECT * FROM pg_settings FOR UPDATE; SELECT 1 FROM t FOR NO KEY UPDATE",
        "SELECT * FROM pg_settings; UPDATE t SET a = 1; SELECT * FROM pg_settings",
        "SELECT current_setting('a')",
        "SELECT set_config('a', 'b', true)",
        "SELECT pg_catalog.set_config('a', $1, TRUE)",
        "SELECT set_config('a', f(1, (2), ARRAY[3, 4]), true)",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
        "SELECT x FROM t FOR UPDATE",
        "UPDATE t SET x = 1, y = 2 WHERE z",
        "UPDATE ONLY set SET set = 1 RETURNING *",
        "DELETE FROM t USING u WHERE t.a = u.a",
        "TRUNCATE t",
        "BEGIN",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "START TRANSACTION READ WRITE",
        "COMMIT AND CHAIN",
        "END",
        "ROLLBACK TO SAVEPOINT a",
        "ABORT",
        "SAVEPOINT a",
        "RELEASE a",
        "PREPARE TRANSACTION 'a'",
        "PREPARE TRANSACTION E'a'",
        "COMMIT PREPARED 'a'",
        "ROLLBACK PREPARED 'a'",
        "SHOW x",
        "SHOW ALL",
        "SET LOCAL x = 1",
        "SET LOCAL a.b = 1",
        "SET/**/LOCAL--\nrole x",
        "SET LOCAL SESSION AUTHORIZATION x",
        "SET LOCAL TIME ZONE 'UTC'",
        "SET TRANSACTION READ ONLY",
        "SET SESSION TRANSACTION READ ONLY",
        "SET LOCAL TRANSACTION READ ONLY",
        "SET TRANSACTION SNAPSHOT '1'",
        "SET CONSTRAINTS ALL DEFERRED",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN ANALYZE VERBOSE UPDATE t SET x = 1",
        "EXPLAIN VERBOSE (SELECT 1)",
        "EXPLAIN (SELECT 1)",
        "EXPLAIN ((SELECT 1))",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
        "LOCK TABLE t IN EXCLUSIVE MODE",
        "NOTIFY a, 'b'",
        "FETCH 10 FROM c",
        "MOVE c",
        "CHECKPOINT",
        "COPY t TO STDOUT",
        "COPY (SELECT a FROM t) TO STDOUT WITH (FORMAT csv)",
        "COPY (DELETE FROM t RETURNING a) TO STDOUT",
        "DECLARE c CURSOR FOR SELECT 1",
        "DECLARE c SCROLL CURSOR WITHOUT HOLD FOR SELECT 1 FROM t",
        "DISCARD PLANS",
        "ALTER SYSTEM SET work_mem = 1",
        "SELECT 0x1f, 0b1, 0o7, 1_000, .5, 1., 1.e5, 1..2, $1",
    ] {
        check(&[(text, NONE)]);
    }
}

#[test]
fn settings_for_the_session_are_seen() {
    check(&[
        ("SET x = 1", SETTING),
        ("set x to 1", SETTING),
        ("SET SESSION x = 1", SETTING),
        ("/* */ SET--\nx = 1", SETTING),
        ("SET a.b.c = 1", SETTING),
        ("SET \"A\".b TO 1", SETTING),
        ("SET TIME ZONE 'UTC'", SETTING),
        ("SET SESSION ROLE x", SETTING),
        ("SET NAMES 'x'", SETTING),
        ("SET SESSION AUTHORIZATION x", SETTING),
        ("SET XML OPTION DOCUMENT", SETTING),
        ("SET x FROM CURRENT", DYNAMIC_SETTING),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SETTING),
        (
            "SET SESSION SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            DYNAMIC_SETTING,
        ),
        // Keywords that are the names of settings here.
        ("SET local.x = 1", SETTING),
        ("SET local . x = 1", SETTING),
        ("SET local TO 1", SETTING),
        ("SET session.x = 1", SETTING),
        ("SET session = 1", SETTING),
        ("SET SESSION local = 1", SETTING),
        ("SET SESSION local.x = 1", SETTING),
        ("SET transaction.x = 1", SETTING),
        ("SET constraints.x TO 1", SETTING),
        ("SET constraints = 1", SETTING),
        ("SET \"local\" x = 1", DYNAMIC_SETTING),
        ("SET \"transaction\" = 1", SETTING),
        ("SET transaction_read_only = on", SETTING),
        ("RESET x", RESET),
        ("SET x TO DEFAULT", RESET),
        ("SET SESSION x = default;", RESET),
        ("SET TIME ZONE LOCAL", RESET),
        ("SET TIME ZONE DEFAULT", RESET),
        ("SET SESSION AUTHORIZATION DEFAULT", RESET),
        ("SET LOCAL x TO DEFAULT", Effects::RESET),
        ("SELECT set_config('x', NULL, false)", RESET),
        ("SELECT set_config('x', null, true)", Effects::RESET),
        ("RESET a.b", RESET),
        ("RESET ALL", Effects::SETTING | Effects::RESET),
        ("RESET TIME ZONE", RESET),
        ("RESET SESSION AUTHORIZATION", RESET_DYNAMIC),
        // Behind something harmless.
        ("BEGIN; SET x = 1", SETTING),
        ("SELECT 1;SET x = 1", SETTING),
        ("SELECT 1;;/**/;\nSET x = 1;", SETTING),
        ("SET LOCAL x = 1; SET y = 1", SETTING),
        ("SELECT ';'; SET x = 1", SETTING),
        ("SELECT $$;$$; SET x = 1", SETTING),
        ("SELECT 'a\\'; SET x = 1; --'", SETTING),
        ("SELECT E'a\\\\'; SET x = 1; --'", SETTING),
        ("SELECT '\n' ; SET x = 1 --'", SETTING),
        ("SELECT 1 /* /* */ */; SET x = 1", SETTING),
        ("SELECT 1 -- \n; SET x = 1", SETTING),
        ("SELECT 1 -- \r; SET x = 1", SETTING),
        ("SELECT a$$; SET x = 1; --$$", SETTING),
        ("SELECT $1$$ $$; SET x = 1", SETTING),
        ("SELECT \"a\"\";\"; SET x = 1", SETTING),
        ("SELECT B'1' '\\'; SET x = 1; --'", SETTING),
        ("SELECT e '\\'; SET x = 1; --'", SETTING),
        // set_config.
        ("SELECT set_config('a', 'b', false)", SETTING),
        ("SELECT SET_CONFIG ( 'a', 'b', false)", SETTING),
        ("SELECT \"set_config\"('a', 'b', false)", SETTING),
        ("SELECT pg_catalog . /* */ set_config('a', 'b', false)", SETTING),
        ("SELECT pg_catalog.\"set_config\"('a', 'b', false)", SETTING),
        ("SELECT set_config('a', 'b', $1)", SETTING),
        ("SELECT set_config('a', 'b', not true)", SETTING),
        ("SELECT set_config('a', 'b', true and false)", SETTING),
        ("SELECT set_config('a', 'b', \"true\")", SETTING),
        ("SELECT set_config('a', 'b', 'true')", SETTING),
        ("SELECT set_config('a', 'b', (true))", SETTING),
        ("SELECT set_config('a', (SELECT 'b', true), false)", SETTING),
        (
            "SELECT set_config('a', set_config('b', 'c', false), true)",
            SETTING,
        ),
        ("SELECT set_config('a', ',', false), true)", SETTING),
        ("SELECT set_config('a', 'b', true, x)", SETTING),
        (
            "SELECT set_config(is_local => true, setting_name => 'a', new_value => 'b')",
            DYNAMIC_SETTING,
        ),
        ("SELECT set_config($1, $2, false)", DYNAMIC_SETTING),
        ("SELECT set_config('a' || 'b', 'c', false)", DYNAMIC_SETTING),
        ("SELECT set_config(E'\\x61', 'c', false)", DYNAMIC_SETTING),
        ("SELECT set_config($1, $2, true)", Effects::DYNAMIC_SETTING),
        ("SELECT set_config", DYNAMIC_SETTING),
        ("SELECT set_config(VARIADIC x)", DYNAMIC_SETTING),
        ("SELECT set_config('a'", DYNAMIC_SETTING),
        (
            "INSERT INTO t SELECT set_config('a', 'b', false)",
            SETTING.union(WRITE),
        ),
        ("COPY (SELECT set_config('a', 'b', false)) TO STDOUT", SETTING),
        ("EXPLAIN ANALYZE SELECT set_config('a', 'b', false)", SETTING),
        ("EXPLAIN (ANALYZE) SELECT set_config('a', 'b', false)", SETTING),
        ("EXPLAIN (SELECT set_config('a', 'b', false))", SETTING),
        ("DELETE FROM t WHERE set_config('a', 'b', false) = ''", SETTING),
        ("WITH a AS (SELECT set_config('a', 'b', false)) TABLE a", SETTING),
        (
            "UPDATE pg_settings SET setting = 1 WHERE name = 'x'",
            DYNAMIC_SETTING,
        ),
        (
            "update pg_catalog.\"pg_settings\" s set setting = 1",
            DYNAMIC_SETTING,
        ),
        (
            "WITH a AS (UPDATE pg_settings SET setting = 1) SELECT 1",
            DYNAMIC_SETTING,
        ),
        // The seed of random() isn't put back at the end of a transaction.
        ("SET seed = 0.5", SETTING.union(Effects::SEED)),
        ("SET LOCAL seed TO 0.5", Effects::SEED),
        ("SET LOCAL \"SEED\" = 0.5", Effects::SEED),
        ("SELECT set_config('Seed', '0.5', true)", Effects::SEED),
        ("SELECT setseed(0.5)", Effects::SEED),
    ]);
}

#[test]
fn state_that_only_the_server_can_tell_is_seen() {
    let holdable = Effects::CURSOR | WRITE;
    let listen = Effects::LISTEN | WRITE;
    check(&[
        ("CREATE TABLE t (a int)", DDL),
        ("CREATE TABLE t AS SELECT 1", DDL),
        ("CREATE TABLE t AS EXECUTE p", DDL.union(PREPARED)),
        ("CREATE TEMP TABLE t (a int)", TEMPORARY),
        ("CREATE LOCAL TEMPORARY TABLE t (a int)", TEMPORARY),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", TEMPORARY),
        ("CREATE TABLE pg_temp.t (a int)", TEMPORARY),
        ("CREATE TABLE \"pg_temp\".t (a int)", TEMPORARY),
        ("DROP TABLE t", DDL),
        ("ALTER TABLE t ADD a int", DDL),
        ("ALTER SYSTEM_OF t", DDL),
        ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", DDL),
        ("SECURITY LABEL ON TABLE t IS 'x'", DDL),
        ("COMMENT ON TABLE t IS 'x'", DDL),
        ("GRANT SELECT ON t TO u", DDL),
        ("REVOKE ALL ON t FROM u", DDL),
        ("REFRESH MATERIALIZED VIEW v", DDL),
        ("REASSIGN OWNED BY a TO b", DDL),
        ("CREATE INDEX ON t (leaky(a))", DDL.union(Effects::LISTEN)),
        ("SELECT 1 INTO t", DDL),
        ("SELECT 1 INTO TEMP t", TEMPORARY),
        ("SELECT * INTO TEMPORARY t FROM x", TEMPORARY),
        ("(SELECT 1 INTO t)", DDL),
        ("WITH a AS (SELECT 1) SELECT * INTO t FROM a", DDL),
        ("EXPLAIN ANALYZE SELECT 1 INTO t", DDL),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", DDL),
        ("EXPLAIN (ANALYZE) (SELECT 1 INTO t)", DDL),
        // `insert` as the name of a column.
        ("SELECT insert INTO t FROM x", DDL),
        ("SELECT a, insert INTO t FROM x", DDL),
        ("SELECT (a) insert INTO t FROM x", DDL),
        ("SELECT DISTINCT ON (a) insert INTO t FROM x", DDL),
        ("SELECT ALL insert INTO t FROM x", DDL),
        ("WITH a AS (SELECT 1) SELECT (b) insert INTO t FROM a", DDL),
        ("WITH a AS (SELECT 1) (SELECT (b) merge INTO t FROM a)", DDL),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", holdable),
        (
            "DECLARE c NO SCROLL CURSOR WITH /* */ hold FOR SELECT 1",
            holdable,
        ),
        ("CLOSE c", ENDS),
        ("CLOSE ALL", ENDS),
        ("LISTEN a", listen),
        ("UNLISTEN *", ENDS),
        ("PREPARE p AS SELECT 1", PREPARED),
        ("PREPARE p (int, text) AS SELECT $1", PREPARED),
        ("PREPARE transaction AS SELECT 1", PREPARED),
        ("PREPARE transaction (int) AS SELECT $1", PREPARED),
        (
            "PREPARE p AS SELECT set_config('a', 'b', false)",
            PREPARED.union(SETTING),
        ),
        ("PREPARE p AS SELECT 1; SET x = 1", PREPARED.union(SETTING)),
        ("EXECUTE p", PREPARED),
        ("EXECUTE p (leaky(1))", PREPARED.union(Effects::LISTEN)),
        ("EXPLAIN EXECUTE p", PREPARED),
        ("EXPLAIN ANALYZE EXECUTE p", PREPARED),
        ("EXPLAIN (COSTS off) EXECUTE p", PREPARED),
        ("DEALLOCATE p", DEALLOCATE),
        ("DEALLOCATE PREPARE ALL", DEALLOCATE),
        ("DO $$ BEGIN NULL; END $$", CODE),
        ("DO LANGUAGE plpgsql 'x'", CODE),
        ("CALL p()", CODE),
        ("CALL leaky()", CODE.union(Effects::LISTEN)),
        ("LOAD 'x'", Effects::LASTING),
        ("SELECT pg_backup_start('x')", Effects::LASTING),
        ("SELECT pg_advisory_lock(1)", ADVISORY),
        ("SELECT pg_catalog.PG_TRY_ADVISORY_LOCK_SHARED(1)", ADVISORY),
        ("SELECT pg_advisory_unlock(1)", ENDS),
        ("SELECT pg_advisory_unlock_all()", ENDS),
        ("SELECT query_to_xml('SELECT 1', true, true, '')", DYNAMIC),
        ("SELECT database_to_xml_and_xmlschema(true, true, '')", DYNAMIC),
        ("SELECT * FROM ts_stat('SELECT 1')", DYNAMIC),
        ("SELECT dblink_exec('x')", DYNAMIC),
        ("SELECT \"dblink\"('x')", DYNAMIC),
        ("SELECT pg_temp.f()", Effects::TEMPORARY.union(WRITE)),
        ("SELECT pg_temp_3.f()", Effects::TEMPORARY.union(WRITE)),
        (
            "DISCARD ALL",
            Effects::DISCARD | Effects::RESET | SETTING | DEALLOCATE,
        ),
        ("DISCARD TEMP", Effects::DISCARD | ENDS),
        ("DISCARD TEMPORARY", Effects::DISCARD | ENDS),
        ("DISCARD SEQUENCES", Effects::DISCARD),
    ]);
}

#[test]
fn sequences_are_seen() {
    check(&[
        ("INSERT INTO t VALUES (1)", WRITE),
        ("INSERT INTO t SELECT 1", WRITE),
        (
            "MERGE INTO t USING s ON a = b WHEN NOT MATCHED THEN INSERT VALUES (1)",
            WRITE,
        ),
        (
            "WITH a AS (INSERT INTO t VALUES (1) RETURNING x) SELECT * FROM a",
            WRITE,
        ),
        ("WITH a AS (SELECT 1) INSERT INTO t TABLE a", WRITE),
        (
            "WITH a (b) AS (SELECT 1), c AS (INSERT INTO t VALUES (1)) MERGE INTO t USING a ON true",
            WRITE,
        ),
        ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", WRITE),
        (
            "EXPLAIN (ANALYZE) WITH a AS (SELECT 1) INSERT INTO t TABLE a",
            WRITE,
        ),
        ("COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT", WRITE),
        ("COPY t FROM STDIN", WRITE),
        ("COPY BINARY t (a, b) FROM '/x'", WRITE),
        ("UPDATE t SET id = DEFAULT", WRITE),
        ("SELECT nextval('s')", WRITE),
        ("SELECT setval('s', 1)", WRITE),
        ("SELECT currval('s'), pg_catalog.lastval()", READ),
    ]);
}

#[test]
fn what_is_not_understood_is_unknown() {
    let unknown = |text: &str| {
        let analysis = read(text);
        assert!(analysis.effects.contains(UNKNOWN), "{text}");
        assert_eq!(analysis.lone, Command::Other, "{text}");
    };
    for text in [
        "x",
        "1",
        "\"select\" 1",
        "U&\"select\" 1",
        "SELECT U&\"set_\\0063onfig\"('a', 'b', false)",
        "SELECT u&\"!0073et_config\" UESCAPE '!' ('a', 'b', false)",
        "SELECT '",
        "SELECT E'\\'",
        "SELECT \"",
        "SELECT $$ $a$",
        "SELECT 1 /* /* */",
        "SELECT \\",
        "SELECT {",
        "SELECT \0",
        "SELECT 1a",
        "SELECT 0x",
        "SELECT 1e",
        "SELECT $1a",
        "SELECT \"\"",
        "SET x = '",
        "EXPLAIN x",
        "PREPARE p AS x",
        "SELECT 1; x",
        "x; SELECT 1",
        "ſet x = 1",
        "PREPARE",
    ] {
        unknown(text);
    }
    assert!(
        analyse(b"SELECT U&'a'", BACKSLASHES, lookup)
            .effects
            .contains(UNKNOWN)
    );
}

#[test]
fn strings_are_read_as_the_server_will() {
    let text = b"SELECT 'a\\'; SET x = 1; --'";
    assert_eq!(analyse(text, CONFORMING, lookup).effects, SETTING);
    assert_eq!(analyse(text, BACKSLASHES, lookup).effects, NONE);
    let text = b"SELECT 'a\\' ; SELECT '; SET x = 1; --'";
    assert_eq!(analyse(text, CONFORMING, lookup).effects, NONE);
    assert_eq!(analyse(text, BACKSLASHES, lookup).effects, SETTING);
    let text = b"SELECT N'\\'; SET x = 1; --'";
    assert_eq!(analyse(text, BACKSLASHES, lookup).effects, NONE);
    let text = b"SELECT B'\\'; SET x = 1; --'";
    assert_eq!(analyse(text, BACKSLASHES, lookup).effects, SETTING);
    let text = b"SELECT 'a'\n'\\'; SET x = 1; --'";
    assert_eq!(analyse(text, BACKSLASHES, lookup).effects, NONE);
    assert_eq!(analyse(text, CONFORMING, lookup).effects, SETTING);
}

#[test]
fn the_caller_is_asked_for_names() {
    let listen = Effects::LISTEN | WRITE;
    check(&[
        ("SELECT leaky()", listen),
        ("SELECT LEAKY ()", listen),
        ("SELECT a.leaky()", listen),
        ("SELECT \"leaky\"()", listen),
        ("SELECT \"Leaky\"()", NONE),
        ("SELECT (x).leaky FROM t", listen),
        ("SELECT 'leaky'", NONE),
        ("UPDATE t SET a = leaky()", listen),
        ("FETCH leaky()", listen),
        ("COPY (TABLE leaky) TO STDOUT", listen),
        ("VALUES (leaky())", listen),
        ("CREATE FUNCTION a.leaky(b int) RETURNS int AS ''", DDL),
        ("CREATE OR REPLACE PROCEDURE \"leaky\" () AS ''", DDL),
        ("CREATE FUNCTION leaky(b leaky) AS ''", DDL | listen),
        ("CREATE FUNCTION leaky(b int DEFAULT leaky()) AS ''", DDL | listen),
        (
            "CREATE FUNCTION leaky() BEGIN ATOMIC SELECT leaky(); END",
            DDL | listen,
        ),
        ("CREATE FUNCTION leaky; SELECT leaky()", DDL | listen),
        ("CREATE TABLE leaky (a int)", DDL | listen),
        (
            "CREATE TABLE t AS SELECT replace function FROM leaky",
            DDL | listen,
        ),
        ("CREATE VIEW function AS SELECT leaky", DDL | listen),
    ]);
    let asked = std::cell::RefCell::new(Vec::new());
    analyse(
        b"UPDATE a SET b = \"C\"\"d\" FROM left(x.select) WHERE begin",
        CONFORMING,
        |name| {
            let mut buffer = [0; 63];
            let name = name.fold(&mut buffer).unwrap();
            asked.borrow_mut().push(String::from_utf8(name.to_vec()).unwrap());
            NONE
        },
    );
    assert_eq!(
        asked.into_inner(),
        ["a", "set", "b", "C\"d", "left", "x", "select", "begin"]
    );
}

#[test]
fn a_lone_statement_is_named() {
    let named = |text: &str| match read(text).lone {
        Command::Set { local, name } => format!("{}set {}", if local { "local " } else { "" }, &text[name]),
        Command::Reset { name } => format!("reset {}", &text[name]),
        Command::Prepare { name } => format!("prepare {}", &text[name]),
        Command::Execute { name } => format!("execute {}", &text[name]),
        Command::Deallocate { name } => format!("deallocate {}", &text[name]),
        Command::Discard(what) => format!("discard {what:?}"),
        other => format!("{other:?}"),
    };
    for (text, expected) in [
        ("", "Empty"),
        (" ; -- x", "Empty"),
        ("BEGIN", "Begin"),
        ("; BEGIN READ ONLY ;", "Begin"),
        ("START TRANSACTION", "Begin"),
        ("COMMIT WORK;", "Commit"),
        ("END TRANSACTION", "Commit"),
        ("COMMIT AND CHAIN", "Other"),
        ("COMMIT PREPARED 'x'", "Other"),
        ("ROLLBACK", "Rollback"),
        ("ABORT WORK", "Rollback"),
        ("ROLLBACK TO a", "Other"),
        ("ROLLBACK WORK TO SAVEPOINT a", "Other"),
        ("ROLLBACK PREPARED 'x'", "Other"),
        ("SET x = 1", "set x"),
        ("SET SESSION \"X\" TO 'a' ;", "set \"X\""),
        ("SET \"X\" TO DEFAULT ;", "reset \"X\""),
        ("SET LOCAL x TO DEFAULT", "Other"),
        ("SET a . /* */ b = 1, 2", "set a . /* */ b"),
        ("SET LOCAL x = 1", "local set x"),
        ("SET local.x = 1", "set local.x"),
        ("SET LOCAL local = 1", "local set local"),
        ("SET U&\"x\" = 1", "Other"),
        ("SET x FROM CURRENT", "Other"),
        ("SET TIME ZONE 1", "Other"),
        ("SET TRANSACTION READ ONLY", "Other"),
        ("SET SESSION AUTHORIZATION x", "Other"),
        ("SET", "Other"),
        ("SET x", "Other"),
        ("SET x = 1; SET y = 2", "Other"),
        ("SET x = 1; ", "set x"),
        ("RESET x.y;", "reset x.y"),
        ("RESET ALL", "ResetAll"),
        ("RESET TIME ZONE", "Other"),
        ("RESET SESSION AUTHORIZATION", "Other"),
        ("RESET", "Other"),
        ("PREPARE p AS SELECT 1", "prepare p"),
        ("PREPARE \"P\" (int) AS SELECT 1", "prepare \"P\""),
        ("PREPARE p", "Other"),
        ("PREPARE TRANSACTION 'x'", "Other"),
        ("EXECUTE p", "execute p"),
        ("EXECUTE p (1)", "execute p"),
        ("EXPLAIN EXECUTE p", "Other"),
        ("DEALLOCATE p", "deallocate p"),
        ("DEALLOCATE PREPARE p;", "deallocate p"),
        ("DEALLOCATE prepare", "deallocate prepare"),
        ("DEALLOCATE ALL", "DeallocateAll"),
        ("DEALLOCATE PREPARE ALL;", "DeallocateAll"),
        ("DEALLOCATE \"all\"", "deallocate \"all\""),
        ("DISCARD ALL", "discard All"),
        ("DISCARD PLANS", "discard Plans"),
        ("DISCARD SEQUENCES", "discard Sequences"),
        ("DISCARD TEMP", "discard Temp"),
        ("SELECT 1", "Other"),
        ("SELECT 1; SELECT 2", "Other"),
    ] {
        assert_eq!(named(text), expected, "{text}");
    }
}

#[test]
fn statements_are_counted() {
    for (text, statements) in [
        ("", 0),
        (";;", 0),
        ("SELECT 1", 1),
        ("SELECT 1;", 1),
        (";SELECT 1;;SELECT 2;", 2),
        ("SELECT ';'; SELECT 2", 2),
        (
            "CREATE RULE r AS ON UPDATE TO t DO (SELECT 1; SELECT 2); SELECT 3",
            2,
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
            2,
        ),
        (
            "CREATE OR REPLACE PROCEDURE f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END",
            1,
        ),
        (
            "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'x'; SELECT 1",
            2,
        ),
        ("BEGIN; SELECT 1; END", 3),
    ] {
        assert_eq!(read(text).statements, statements, "{text}");
    }
}

#[test]
fn texts_are_split_into_statements() {
    for (text, statements) in [
        ("", &[][..]),
        ("/* ; */", &[]),
        ("a; ; b ';' c", &["a; ; ", "b ';' c"]),
        (
            "create rule r as on insert to t do (select 1; select 2); x",
            &["create rule r as on insert to t do (select 1; select 2); ", "x"],
        ),
        (
            "create function f() begin atomic select case when 1 then 2 end; end; x",
            &[
                "create function f() begin atomic select case when 1 then 2 end; end; ",
                "x",
            ],
        ),
    ] {
        let expected: Vec<_> = statements.iter().map(|text| text.as_bytes()).collect();
        assert_eq!(split(text.as_bytes(), CONFORMING), expected, "{text}");
    }
}

#[test]
fn a_semicolon_taken_for_part_of_a_statement_hides_nothing() {
    for text in [
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'x'; SET x = 1",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; END; SET x = 1",
        "CREATE FUNCTION f(begin atomic) RETURNS int LANGUAGE sql AS 'x'; SET x = 1",
        "CREATE TABLE t (; SET x = 1",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SET x = 1",
    ] {
        assert!(read(text).effects.contains(SETTING.union(DDL)), "{text}");
    }
}

#[test]
fn deep_and_long_texts_are_read_in_linear_time() {
    let lookup = |_: &Identifier<'_>| NONE;
    for unit in [
        "EXPLAIN ",
        "PREPARE a AS ",
        "(",
        "set_config(",
        "set_config('",
        "+-",
        "/*",
        "$a$",
        "$a",
        "'\n",
        "'a'\n",
        ";",
        "a.",
        "SET ",
        "CREATE FUNCTION BEGIN ATOMIC ",
        "\"\"",
        "1e",
    ] {
        // In quadratic time this would take minutes.
        let text = unit.repeat(300_000 / unit.len());
        analyse(text.as_bytes(), CONFORMING, lookup);
    }
}
