//! Who may only read by a rule can't write, whatever it tries.

use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options};
use crate::raw::{Message, Raw, frame};

/// Everything that a client could write with: its user may write, and code of others' that it may call sets things.
const SCHEMA: &str = r#"
create table w (a int);
grant all on w to app_rw;
create sequence s; grant all on s to app_rw;
create function writes() returns int language plpgsql as 'begin insert into w values (1); return 1; end';
create procedure commits() language plpgsql as
  'begin perform set_config(''default_transaction_read_only'', ''off'', false); commit; insert into w values (2); end';
create function sets() returns text language sql as
  'select set_config(''default_transaction_read_only'', ''off'', false)';
create function checks(int) returns bool language plpgsql as
  'begin begin insert into w values ($1); exception when others then null; end; return true; end';
create domain checked as int check (checks(value));
create function sets_dynamically() returns text language plpgsql as
  'begin execute ''set default_'' || ''transaction_read_only = off''; return 1; end';
"#;

const READ_ONLY: &str = "25006";

/// DISCARD ALL within a transaction.
const IN_TRANSACTION: &str = "25001";

fn started(pool: &'static str, terms: &str) -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    lab.superuser_sql(SCHEMA).unwrap();
    let rules = format!(
        "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\"]\nusers = [\"app_rw\"]\nread_only = true\n{terms}\n"
    );
    let options = Options {
        pool,
        rules: rules.leak(),
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    (lab, gateway)
}

fn states(messages: &[Message]) -> Vec<String> {
    let errors = messages.iter().filter(|message| message.tag == 'E');
    errors.filter_map(|error| error.field(b'C')).collect()
}

/// Parse, Bind and Execute.
fn runs(text: &str) -> Vec<u8> {
    [
        frame('P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat()),
        frame('B', &[0; 8]),
        frame('E', &[0; 5]),
    ]
    .concat()
}

fn sync() -> Vec<u8> {
    frame('S', b"")
}

/// What is asked in one go, up to so many ReadyForQuery.
fn asked(raw: &mut Raw, bytes: &[u8], times: usize) -> Vec<Message> {
    raw.send(bytes);
    (0..times).flat_map(|_| raw.until('Z')).collect()
}

#[test]
fn nothing_that_a_client_sends_lets_it_write() {
    for (pool, terms) in [
        ("mode = \"auto\"\nsize = 1", ""),
        ("mode = \"session\"\nsize = 3", ""),
        ("mode = \"transaction\"\nsize = 1", ""),
        ("mode = \"auto\"\nsize = 3", "mode = \"session\""),
    ] {
        let (lab, gateway) = started(pool, terms);
        let is_refused = |what: &str, states: &[String]| {
            let is_known = |state: &String| [READ_ONLY, IN_TRANSACTION].contains(&state.as_str());
            assert!(states.iter().any(is_known), "{pool} {terms}: {what}: {states:?}");
        };
        for sql in [
            "insert into w values (1)",
            "select writes()",
            "select nextval('s')",
            "create temp table t ()",
            "do $$begin insert into w values (1); end$$",
            "call commits()",
            "vacuum w",
            "prepare transaction 'a'",
            "begin read write",
            "start transaction isolation level serializable, READ/**/Write",
            "set session characteristics as transaction read write",
            "set default_transaction_read_only = off",
            "reset default_transaction_read_only",
            "set \"Default_Transaction_Read_Only\" to default",
            "set transaction_read_only to off",
            "commit; insert into w values (1)",
            "select sets(); commit; insert into w values (1)",
            "begin; select sets(); rollback; insert into w values (1)",
            "reset all; insert into w values (1)",
            "explain analyze insert into w values (1)",
            "explain analyze create table made as select 1",
            "explain (analyze) select 1 as a into made",
            "explain analyze select 1 as insert into made",
            "explain analyze execute p",
            "with x as (insert into w values (1) returning a) select * from x",
        ] {
            let (mut raw, _) = Raw::login(&gateway, "app_rw");
            is_refused(sql, &states(&raw.query(sql)));
            let (mut raw, _) = Raw::login(&gateway, "app_rw");
            if !sql.contains(';') {
                is_refused(sql, &states(&asked(&mut raw, &[runs(sql), sync()].concat(), 1)));
            }
            // It goes on, and what follows may read.
            assert_eq!(states(&raw.query("select 1")), [""; 0], "{pool} {terms}: {sql}");
        }
        // What comes before the last message.
        for before in [
            &["begin"][..],
            &["select sets()"],
            &["select sets_dynamically()"],
            &["select set_config('default_transaction_read_only', 'off', false)"],
            &["begin", "select sets()", "commit"],
            &["begin", "savepoint a", "select sets()", "rollback to a", "commit"],
            &["begin", "select sets()", "select 1/0", "rollback"],
            &["reset all"],
            &["discard all"],
            &["set session authorization default"],
            &["begin", "set transaction read write"],
            &["begin", "set local transaction_read_only = off"],
            &["prepare p as insert into w values (1)", "execute p"],
        ] {
            let (mut raw, _) = Raw::login(&gateway, "app_rw");
            for sql in before {
                raw.query(sql);
            }
            // In the mode "transaction" what ties it has ended the connection.
            let answers = raw.query("insert into w values (1)");
            let is_done = answers.iter().any(|message| message.tag == 'C');
            assert!(!is_done, "{pool} {terms}: {before:?}: {answers:?}");
        }
        // In one go, with Syncs between them and without.
        let sets = "select set_config('default_transaction_read_only', 'off', false)";
        for between in [
            &[][..],
            &["commit"],
            &["begin", "commit"],
            &["discard all"],
            &["rollback"],
        ] {
            for syncs in [true, false] {
                let (mut raw, _) = Raw::login(&gateway, "app_rw");
                let texts = [&[sets], between, &["insert into w values (1)"]].concat();
                let mut bytes = Vec::new();
                for text in &texts {
                    bytes.extend(runs(text));
                    if syncs {
                        bytes.extend(sync());
                    }
                }
                bytes.extend(sync());
                let times = if syncs { texts.len() + 1 } else { 1 };
                is_refused(
                    &format!("{texts:?} {syncs}"),
                    &states(&asked(&mut raw, &bytes, times)),
                );
                let queries: Vec<u8> = texts
                    .iter()
                    .flat_map(|text| frame('Q', &[text.as_bytes(), b"\0"].concat()))
                    .collect();
                is_refused(
                    &format!("{texts:?}"),
                    &states(&asked(&mut raw, &queries, texts.len())),
                );
            }
        }
        let written = lab.superuser_sql("select count(*) from w").unwrap();
        assert_eq!(written.trim(), "0", "{pool} {terms}");
    }
}

#[test]
fn what_a_refused_client_is_told_says_why() {
    let (_lab, gateway) = started("mode = \"auto\"", "");
    let (mut raw, greeting) = Raw::login(&gateway, "app_rw");
    let told = |messages: &[Message]| {
        let reported = messages.iter().rev();
        let mut reported = reported.filter(|message| message.tag == 'S');
        reported
            .find_map(|message| message.body.strip_prefix(b"default_transaction_read_only\0"))
            .map(<[u8]>::to_vec)
    };
    assert_eq!(told(&greeting).unwrap(), b"on\0");
    let error = raw.query("do $$begin end$$").remove(0);
    assert_eq!(error.field(b'S').unwrap(), "ERROR");
    assert_eq!(error.field(b'C').unwrap(), READ_ONLY);
    assert!(error.field(b'D').unwrap().contains("read_only"));
    assert!(error.field(b'H').unwrap().contains("DO, CALL"));
    gateway.wait_for_metric("postern_pool_refused_requests_total", &["user=\"app_rw\""], 1.0);
    // Within a transaction, it fails as it would with PostgreSQL.
    raw.query("begin");
    let answers = raw.query("vacuum");
    assert_eq!(answers.last().unwrap().body, b"E");
    assert_eq!(states(&raw.query("select 1")), ["25P02"]);
    raw.query("rollback");
    // What code has set the client hears of, and that it is set back.
    assert_eq!(told(&raw.query("select sets()")).unwrap(), b"off\0");
    let answers = raw.query("show default_transaction_read_only");
    let row = answers.iter().find(|message| message.tag == 'D').unwrap();
    assert!(row.body.ends_with(b"on"), "{row:?}");
    // A statement that nobody can look at in full isn't let through.
    let long = format!("select '{}'", "x".repeat(300_000));
    raw.message('Q', &[long.as_bytes(), b"\0"].concat());
    let error = raw.last_error();
    assert_eq!(error.field(b'C').unwrap(), "0A000");
    assert!(error.field(b'M').unwrap().contains("can't be judged"));
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    frame(
        'P',
        &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat(),
    )
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    frame(
        'B',
        &[portal.as_bytes(), b"\0", name.as_bytes(), &[0; 7]].concat(),
    )
}

fn execute(portal: &str) -> Vec<u8> {
    frame('E', &[portal.as_bytes(), &[0; 5]].concat())
}

fn query(text: &[u8]) -> Vec<u8> {
    frame('Q', &[text, b"\0"].concat())
}

const SETS: &str = "select set_config('default_transaction_read_only', 'off', false)";
const INSERT: &str = "insert into w values (1)";

/// What is sent, and how many ReadyForQuery come then.
type Step = (Vec<u8>, usize);

fn pipelines() -> Vec<(&'static str, Vec<Step>)> {
    let sjis = b"select E'\x83\x5c'; commit; insert into w values (4); --'";
    vec![
        (
            "a portal that ends the transaction, bound before",
            vec![
                (query(b"begin"), 1),
                ([parse("c", "commit"), bind("c", "c"), sync()].concat(), 1),
                ([runs(SETS), execute("c"), runs(INSERT), sync()].concat(), 1),
            ],
        ),
        (
            "a statement that isn't kept account of",
            vec![
                (query(b"prepare x as select 1"), 1),
                ([parse("c", "commit"), sync()].concat(), 1),
                (
                    [runs(SETS), bind("", "c"), execute(""), runs(INSERT), sync()].concat(),
                    1,
                ),
            ],
        ),
        (
            "a statement that is described behind the end",
            vec![
                ([parse("s", "select '{6}'::checked[]"), sync()].concat(), 1),
                (
                    [
                        runs(SETS),
                        runs("set search_path to pg_catalog, public"),
                        runs("commit"),
                        frame('D', b"Ss\0"),
                        sync(),
                    ]
                    .concat(),
                    1,
                ),
            ],
        ),
        (
            "a text cut by an encoding that isn't told yet",
            vec![(
                [
                    runs("set client_encoding to 'SJIS'"),
                    runs(SETS),
                    query(sjis),
                    sync(),
                ]
                .concat(),
                2,
            )],
        ),
        (
            "a statement of any name in place of one that is refused",
            vec![
                (
                    [
                        parse("\"postern: refused\"", INSERT),
                        parse("postern: refused", INSERT),
                        parse("c", "commit"),
                        sync(),
                    ]
                    .concat(),
                    1,
                ),
                (query(b"begin"), 1),
                (query(SETS.as_bytes()), 1),
                (
                    [bind("", "c"), execute(""), bind("p", "x"), execute("p"), sync()].concat(),
                    1,
                ),
            ],
        ),
        (
            "the same, prepared in SQL",
            vec![
                (
                    query(b"prepare \"\"\"postern: refused\"\"\" as insert into w values (1)"),
                    1,
                ),
                ([parse("c", "commit"), sync()].concat(), 1),
                (query(b"begin"), 1),
                (query(SETS.as_bytes()), 1),
                (
                    [bind("", "c"), execute(""), bind("p", "x"), execute("p"), sync()].concat(),
                    1,
                ),
            ],
        ),
        (
            "a statement that was prepared before, behind the end",
            vec![
                ([parse("i", INSERT), sync()].concat(), 1),
                (
                    [runs(SETS), runs("commit"), bind("", "i"), execute(""), sync()].concat(),
                    1,
                ),
            ],
        ),
        (
            "a query behind the end",
            vec![(
                [runs(SETS), runs("commit"), query(INSERT.as_bytes()), sync()].concat(),
                1,
            )],
        ),
    ]
}

#[test]
fn no_pipeline_writes() {
    for pool in ["mode = \"auto\"\nsize = 1", "mode = \"session\"\nsize = 1"] {
        let (lab, gateway) = started(pool, "");
        for (what, steps) in pipelines() {
            let (mut raw, _) = Raw::login(&gateway, "app_rw");
            for (bytes, times) in steps {
                raw.send(&bytes);
                for _ in 0..times {
                    // A Query that is skipped has no answer, and costs the connection.
                    if raw.until('Z').last().is_none_or(|last| last.tag != 'Z') {
                        break;
                    }
                }
            }
            let written = lab.superuser_sql("select count(*) from w").unwrap();
            assert_eq!(written.trim(), "0", "{pool}: {what}");
        }
        // A function call behind the end can't be taken back, and ends the connection.
        let (mut raw, _) = Raw::login(&gateway, "app_rw");
        let writes = lab.superuser_sql("select 'writes()'::regprocedure::oid").unwrap();
        let oid: u32 = writes.trim().parse().unwrap();
        let call = frame('F', &[&oid.to_be_bytes()[..], &[0; 6]].concat());
        raw.send(&[runs(SETS), runs("commit"), call, sync()].concat());
        assert_eq!(raw.last_error().field(b'C').unwrap(), "0A000");
        assert_eq!(lab.superuser_sql("select count(*) from w").unwrap().trim(), "0");
    }
}

#[test]
fn nothing_is_asked_before_the_session_only_reads_again() {
    let (lab, gateway) = started("mode = \"auto\"", "");
    for round in 0..40 {
        let (mut raw, _) = Raw::login(&gateway, "app_rw");
        // What sets it back may time out, and so may all else.
        raw.query("set statement_timeout = 1");
        for _ in 0..25 {
            let bytes = [query(b"select sets()"), query(INSERT.as_bytes())].concat();
            raw.send(&bytes);
            let ends = (0..2).any(|_| raw.until('Z').last().is_none_or(|last| last.tag != 'Z'));
            if ends {
                break;
            }
        }
        let written = lab.superuser_sql("select count(*) from w").unwrap();
        assert_eq!(written.trim(), "0", "round {round}");
    }
}

#[test]
fn who_may_only_read_can_use_any_encoding_as_far_as_it_is_certain() {
    let (_lab, gateway) = started("mode = \"auto\"", "");
    let (mut raw, _) = Raw::login(&gateway, "app_rw");
    raw.query("set client_encoding to 'SJIS'");
    assert_eq!(states(&raw.query("select 1")), [""; 0]);
    raw.message('Q', b"select E'\x83\x5c'\0");
    let error = raw.until('Z').remove(0);
    assert_eq!(error.field(b'C').unwrap(), READ_ONLY);
    assert!(error.field(b'M').unwrap().contains("can't be told"), "{error:?}");
    assert_eq!(states(&raw.query("set client_encoding to 'UTF8'")), [""; 0]);
    assert_eq!(states(&raw.query("select E'\\n'")), [""; 0]);
    // Right behind what sets it back, refused is refused.
    raw.query("select sets()");
    assert_eq!(states(&raw.query("vacuum")), [READ_ONLY]);
}
