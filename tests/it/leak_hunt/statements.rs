//! SQL by chance: everything that changes, hides or shows the state of a session.

use super::dice::Dice;

/// What keeps a client on its server connection, in order of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hold {
    None,
    /// Until DISCARD ALL.
    Discard,
    /// Until it leaves.
    Leave,
}

/// A statement.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) hold: Hold,
    /// Takes settings back to what they were at login.
    pub(super) resets: bool,
    /// What it shows can't be compared.
    pub(super) opaque: bool,
}

impl Statement {
    fn new(sql: impl Into<String>) -> Self {
        let sql = sql.into();
        let hold = if may_do_anything(&sql) {
            Hold::Discard
        } else {
            Hold::None
        };
        Self {
            sql,
            hold,
            resets: false,
            opaque: false,
        }
    }

    fn holding(sql: impl Into<String>) -> Self {
        Self {
            hold: Hold::Discard,
            ..Self::new(sql)
        }
    }

    /// Whether it may be prepared before names in it mean something else, and run behind what the gateway prepares anew: behind
    /// that, a transaction can't get another isolation level. A DEALLOCATE or PREPARE knows no statement that comes after it, and
    /// FETCH and EXECUTE are described by what they name when they are prepared anew. PostgreSQL
    /// sees a temporary object that comes to stand before another of its name only if it is the first in the server process,
    /// whoever made it, and a plan whose result has other columns by now only if it is the one from before. Behind DISCARD ALL
    /// the gateway sets again what the client began with, and nothing can follow that can't run within a pipeline.
    /// Constants that settings decide about are read anew when others make PostgreSQL forget its plans.
    pub(super) fn may_be_kept(&self) -> bool {
        let others = [
            "isolation level",
            "deallocate s1",
            "prepare s1",
            "fetch",
            "execute q",
            "t1",
            "t2",
            "'sq'",
            "lastval",
            "currval",
            "discard",
            "select *",
            "returning *",
        ];
        let decided = ["timestamptz '", "date '", "::date", "::text[]"];
        let is_decided = decided.iter().any(|what| self.sql.contains(what));
        let is_other = others.iter().any(|name| self.sql.contains(name));
        !self.opaque && !is_other && !is_decided && postern::sql::reads_alike(self.sql.as_bytes())
    }

    fn resetting(sql: impl Into<String>) -> Self {
        Self {
            resets: true,
            ..Self::new(sql)
        }
    }
}

/// Whether it runs what neither a text nor the server can tell of: SQL that is computed, or settings whose names are.
pub(super) fn may_do_anything(sql: &str) -> bool {
    let computed = [
        "hide_run",
        "hide_call",
        "hide_commit",
        "hide_set",
        "hide_plain",
        "hide_undone",
        "tripwire",
        "late",
        "peephole",
        "defaulted",
        "guarded",
        "ruled",
        "checked",
        "dressed",
        // Somebody else may just have defined something of such a name.
        "pg_temp.f",
        "from t3",
    ];
    // What may be read in two ways can't be judged any more once catalogs have changed, and what isn't SQL could be any.
    let is_odd = ["selec", "select 'unfinished"].contains(&sql);
    if is_odd || !postern::sql::reads_alike(sql.as_bytes()) {
        return true;
    }
    let sql = sql.to_ascii_lowercase();
    computed.iter().any(|name| sql.contains(name)) || sql.trim_start().starts_with("do ")
}

/// Who asks, and in what state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) index: usize,
    /// Of its last ReadyForQuery.
    pub(super) status: u8,
    /// Whether it has called setseed.
    pub(super) seeded: bool,
    /// Whether it has drawn a number of a sequence and read it.
    pub(super) drawn: bool,
    /// It has run nothing yet that draws from a sequence.
    pub(super) fresh: bool,
    /// Whether it may ask which settings come from a session.
    pub(super) sources: bool,
}

pub(super) fn statement(dice: &mut Dice, asker: Asker) -> Statement {
    if asker.status == b'E' && dice.percent(60) || asker.status == b'T' && dice.percent(20) {
        return transaction(dice);
    }
    if asker.drawn && dice.percent(15) {
        return Statement::holding(dice.pick(&["select lastval()", "select currval('public.sq')"]));
    }
    if asker.fresh && dice.percent(1) {
        // Nobody's number may be seen.
        return Statement::holding("select lastval()");
    }
    match dice.weighted(&[48, 52, 16, 14, 16, 8, 8, 10, 10, 1, 22, 10, 6, 6, 4]) {
        0 => change(dice),
        1 => look(dice, asker.sources),
        2 => transaction(dice),
        3 => temporary(dice),
        4 => lock(dice, asker.index),
        5 => notification(dice),
        6 => prepared(dice),
        7 => cursor(dice),
        8 => sequence(dice, asker),
        9 => random(dice, asker.seeded),
        10 => hidden(dice),
        11 => own_table(dice, asker.index),
        12 => wrong(dice),
        13 => discard(dice),
        _ => defined(dice, asker.index),
    }
}

/// Settings and values for them, all of them harmless.
const SETTINGS: &[(&str, &[&str])] = &[
    (
        "timezone",
        &["UTC", "Europe/Berlin", "America/New_York", "nowhere"],
    ),
    ("datestyle", &["ISO, MDY", "German", "SQL, DMY", "YMD"]),
    ("intervalstyle", &["postgres", "iso_8601", "sql_standard"]),
    ("application_name", &["", "one", "two 'quoted'", "drei é"]),
    ("client_encoding", &["UTF8", "LATIN1", "SQL_ASCII", "WIN1252"]),
    ("standard_conforming_strings", &["on", "off"]),
    ("default_transaction_read_only", &["off", "on"]),
    (
        "default_transaction_isolation",
        &["read committed", "repeatable read", "serializable"],
    ),
    ("work_mem", &["1MB", "2MB", "3MB", "nonsense"]),
    ("statement_timeout", &["60s", "90s", "0"]),
    ("lock_timeout", &["61s", "0"]),
    ("idle_in_transaction_session_timeout", &["1h", "0"]),
    ("enable_seqscan", &["on", "off"]),
    ("enable_indexscan", &["on", "off"]),
    ("enable_bitmapscan", &["on", "off"]),
    ("extra_float_digits", &["0", "1", "-3"]),
    ("bytea_output", &["hex", "escape"]),
    ("client_min_messages", &["notice", "warning", "error"]),
    ("array_nulls", &["on", "off"]),
    ("lc_numeric", &["C", "POSIX"]),
    ("synchronous_commit", &["on", "off"]),
    ("escape_string_warning", &["on", "off"]),
    ("row_security", &["on", "off"]),
    ("session_replication_role", &["replica"]),
    ("app.tenant", &["red", "green", ""]),
    ("app.person", &["alice", "bob 'o''clock'", ""]),
    ("app.loose", &["x", "y"]),
];

/// By each of them, tables of all names are found that prepared statements use: elsewhere these couldn't be prepared anew.
const PATHS: &[&str] = &[
    "public",
    "side, public",
    "pg_temp, public",
    "\"$user\", public",
    "public, side",
];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn change(dice: &mut Dice) -> Statement {
    match dice.weighted(&[70, 10, 7, 4, 4]) {
        0 => {
            let (name, values) = dice.pick(SETTINGS);
            let value = dice.pick(values);
            set(
                dice,
                name,
                value,
                &if name == "datestyle" {
                    value.to_owned()
                } else {
                    quoted(value)
                },
            )
        }
        1 => {
            let path = dice.pick(PATHS);
            let statement = set(dice, "search_path", path, path);
            Statement {
                hold: Hold::Discard,
                ..statement
            }
        }
        2 => role(dice),
        3 => Statement::new(dice.pick(&[
            "set session characteristics as transaction read only",
            "set session characteristics as transaction read write",
            "set session characteristics as transaction isolation level repeatable read",
            "set time zone 'Asia/Kolkata'",
            "set time zone -7",
            "set time zone interval '-08:00' hour to minute",
            "set names 'LATIN1'",
            "set names 'UTF8'",
            "set nonsense = 1",
            "set local transaction isolation level serializable",
            "set transaction read only",
        ])),
        _ => Statement::resetting(dice.pick(&[
            "reset all",
            "set time zone local",
            "set time zone default",
            "set names default",
            "select set_config('work_mem', null, false)",
            "select hide_run('reset all')",
            "select hide_run('set timezone to default')",
            "do $$ begin execute 'reset all'; end $$",
        ])),
    }
}

/// One setting changed in one of the ways that there are.
fn set(dice: &mut Dice, name: &str, value: &str, written: &str) -> Statement {
    let text = quoted(value);
    // Whether a name that isn't declared is known depends on what else has used the server connection.
    let declared = if name == "app.loose" { 0 } else { 6 };
    Statement::new(
        match dice.weighted(&[30, 5, 20, 15, 10, declared, declared, declared]) {
            0 => format!("set {name} = {written}"),
            1 => format!("SET SESSION {name} TO {written}"),
            2 => format!("set local {name} to {written}"),
            3 => format!("select set_config('{name}', {text}, false)"),
            4 => format!("select set_config('{name}', {text}, true)"),
            5 => return Statement::resetting(format!("set {name} to default")),
            6 => return Statement::resetting(format!("reset {name}")),
            _ => match dice.below(8) {
                0 => format!("select hide_set('{name}', {text}, false)"),
                1 => format!("select hide_set('{name}', {text}, true)"),
                2 => format!("select hide_plain('{name}', {text})"),
                3 => format!("select hide_undone('{name}', {text})"),
                4 => format!("do $$ begin perform set_config('{name}', {text}, false); end $$"),
                5 => format!("call hide_call({})", quoted(&format!("set {name} to {written}"))),
                6 => format!(
                    "with s as materialized (select set_config('{name}', {text}, false)) select * from s"
                ),
                _ => format!(
                    "select hide_run({})",
                    quoted(&format!("set local {name} = {written}"))
                ),
            },
        },
    )
}

fn role(dice: &mut Dice) -> Statement {
    let sql = dice.pick(&[
        "set role hunter",
        "set local role hunter",
        "set role none",
        "reset role",
        "set role nobody_such",
        "set session authorization app_rw",
        "set session authorization default",
        "reset session authorization",
        "set session authorization hunter",
        "select set_config('role', 'hunter', false)",
        "select hide_run('set role hunter')",
        "select hide_run('reset role')",
    ]);
    Statement {
        resets: sql.contains("reset") || sql.contains("default"),
        ..Statement::holding(sql)
    }
}

const LOOKS: &[&str] = &[
    "select current_user, session_user, current_role",
    "select timestamptz '2020-07-01 12:00+00', date '2020-02-03', interval '1 day 2:03:04'",
    "select '01/02/03'::date",
    "select 1.1::float8 / 3, '\\x4142'::bytea, 'é'",
    "select 'a\\\\b', E'a\\\\b', length('a\\\\b')",
    "select '{a,NULL}'::text[]",
    "select place, n from t1",
    "select * from t1",
    "table t2",
    "table t4",
    "select place, n from t4",
    "select place from t3",
    "explain (costs off) select word from fixed where id = 7",
    "select word from fixed where id = 7",
    "select name, setting, source in ('session', 'client') from pg_settings where name in ('work_mem', 'timezone')",
    "select pg_temp.f()",
    "select name, statement, parameter_types, from_sql from pg_prepared_statements where from_sql order by name",
    "select name, statement, is_holdable, is_binary, is_scrollable from pg_cursors order by name",
    "select * from pg_listening_channels() order by 1",
    "select relname, relkind from pg_class where relnamespace = pg_my_temp_schema() order by 1",
    "select mode, classid, objid, objsubid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3, 4",
    "select setting from pg_settings where name = 'application_name'",
    "select pg_is_in_recovery(), pg_current_xact_id_if_assigned() is null",
    "show transaction isolation level",
    "show transaction_read_only",
    "select to_char(1234.5, '9G999D9'), quote_ident('select'), pg_client_encoding()",
    "select current_setting('app.tenant') || ' ' || current_setting('app.person') || ' ' || current_setting('app.event')",
    "select coalesce(current_setting('app.loose', true), '')",
    "select coalesce(current_setting('app.odd', true), '')",
    "",
    "-- nothing",
    "select 'with a tail' /* of comment */ ; ",
    "select generate_series(1, 3)",
    "copy t1 to stdout",
    "copy (select word from fixed where id < 3) to stdout with (format csv)",
    "values (1, 'x'), (2, null)",
];

/// All settings that a client can change, but for those of the socket and of what may be loaded or not.
const SWEEP: &str = "select name, setting from pg_settings where context in ('user', 'superuser') and name !~ '^(tcp_|plpgsql)' order by name";
const SWEEP_SESSION: &str = "select name, setting from pg_settings where source in ('session', 'client') and name !~ '^(tcp_|client_encoding|plpgsql|transaction)' order by name";

fn look(dice: &mut Dice, sources: bool) -> Statement {
    match dice.weighted(&[35, 15, 44, 2, if sources { 2 } else { 0 }, 2]) {
        0 => {
            let (name, _) = dice.pick(SETTINGS);
            if name == "app.loose" {
                return Statement::new("select coalesce(current_setting('app.loose', true), '') as loose");
            }
            Statement::new(format!("show {name}"))
        }
        1 => {
            let (name, _) = dice.pick(SETTINGS);
            Statement::new(format!("select coalesce(current_setting('{name}', true), '')"))
        }
        2 => {
            let sql = dice.pick(LOOKS);
            Statement::new(sql)
        }
        3 => Statement::new(SWEEP),
        4 => Statement::new(SWEEP_SESSION),
        _ => Statement {
            opaque: true,
            ..Statement::new("select pg_backend_pid()")
        },
    }
}

fn transaction(dice: &mut Dice) -> Statement {
    Statement::new(dice.pick(&[
        "begin",
        "BEGIN",
        "start transaction isolation level repeatable read",
        "begin read only",
        "commit",
        "COMMIT",
        "end",
        "commit and chain",
        "rollback",
        "ROLLBACK",
        "abort",
        "rollback and chain",
        "savepoint a",
        "savepoint a",
        "savepoint b",
        "rollback to a",
        "rollback to a",
        "rollback to savepoint b",
        "release a",
        "release b",
        "prepare transaction 'p'",
        "do $$ begin commit; end $$",
    ]))
}

fn temporary(dice: &mut Dice) -> Statement {
    Statement::holding(dice.pick(&[
        "create temp table t1 (place text, n int)",
        "create temp table t3 as select 'temp' as place, 9 as n",
        "create temporary table t2 (x int) on commit drop",
        "create temp table if not exists t2 (x int) on commit delete rows",
        "create table pg_temp.t3 (place text)",
        "select 'into' as place, 5 as n into temp t3",
        "set search_path = pg_temp, public; create table t3 (place text, n int); insert into t3 values ('first in path', 6)",
        "insert into pg_temp.t1 values ('temp', 1)",
        "insert into pg_temp.t2 values (1), (2)",
        "alter table pg_temp.t1 add column more int default 5",
        "drop table pg_temp.t1",
        "drop table if exists pg_temp.t2",
        "drop table if exists pg_temp.t3 cascade",
        "create temp view v1 as select place from t1",
        "drop view pg_temp.v1",
        "create or replace temp view v1 as select 'view' as place",
        "create temp sequence sq",
        "drop sequence pg_temp.sq",
        "create or replace function pg_temp.f() returns int language sql as 'select 11'",
        "create domain pg_temp.d as int check (value > 1)",
        "select '0'::pg_temp.d",
        "do $$ begin create temp table t3 as select 'do' as place, 12 as n; end $$",
        "select hide_run('create temp table t1 (place text, n int)')",
        "select hide_run('drop table if exists pg_temp.t1, pg_temp.t3')",
        "truncate pg_temp.t3",
        "discard temp",
    ]))
}

fn lock(dice: &mut Dice, client: usize) -> Statement {
    let key = if dice.percent(50) {
        dice.below(4).to_string()
    } else {
        (100 + client).to_string()
    };
    Statement::holding(match dice.below(12) {
        0 | 1 => format!("select pg_try_advisory_lock({key})"),
        2 => format!("select pg_try_advisory_lock_shared({key})"),
        3 | 4 => format!("select pg_advisory_unlock({key})"),
        5 => format!("select pg_advisory_unlock_shared({key})"),
        6 => "select pg_advisory_unlock_all()".to_owned(),
        7 | 8 => format!("select pg_try_advisory_xact_lock({key})"),
        9 => format!("select pg_try_advisory_xact_lock_shared({key}, 1)"),
        10 => format!("do $$ begin perform pg_try_advisory_lock({key}); end $$"),
        _ => format!("select count(*) filter (where pg_try_advisory_lock({key})) from generate_series(1, 2)"),
    })
}

fn notification(dice: &mut Dice) -> Statement {
    let channel = dice.pick(&["news", "mail", "\"Odd one\""]);
    match dice.below(9) {
        0 | 1 => Statement::holding(format!("listen {channel}")),
        2 => Statement::holding(format!("unlisten {channel}")),
        3 => Statement::holding("unlisten *"),
        4 => Statement::holding(format!("do $$ begin execute 'listen {channel}'; end $$")),
        5 => Statement::new(format!("notify {channel}")),
        6 => Statement::new(format!("notify {channel}, 'payload {}'", dice.below(9))),
        7 => Statement::new("select pg_notify('news', n::text) from generate_series(1, 2) n"),
        _ => Statement::holding("select hide_run('unlisten *')"),
    }
}

fn prepared(dice: &mut Dice) -> Statement {
    let name = dice.pick(&["q1", "q2", "s1"]);
    Statement::holding(match dice.below(9) {
        0 => format!("prepare {name} as select 'prepared', current_setting('app.tenant')"),
        1 => format!("prepare {name}(int) as select $1 + {}", dice.below(9)),
        // Not "s1": PostgreSQL 15 ends the connection over an EXECUTE of a ROLLBACK TO that was prepared by protocol.
        2 => "execute q1".to_owned(),
        3 => "execute q2(5)".to_owned(),
        4 => format!("deallocate {name}"),
        5 => "deallocate all".to_owned(),
        6 => "select hide_run('deallocate all')".to_owned(),
        7 => format!("select hide_run('prepare {name} as select 1')"),
        _ => format!("prepare {name} as select place from t4"),
    })
}

fn cursor(dice: &mut Dice) -> Statement {
    let name = dice.pick(&["c1", "c2"]);
    Statement::holding(match dice.below(10) {
        0 | 1 => format!("declare {name} cursor with hold for select generate_series(1, 9)"),
        2 => format!("declare {name} scroll cursor for select word from fixed order by id"),
        3 => format!("declare {name} cursor for select place from t1"),
        4 | 5 => format!("fetch 2 from {name}"),
        6 => format!("move backward 1 in {name}"),
        7 => format!("close {name}"),
        8 => "close all".to_owned(),
        _ => format!("do $$ begin execute 'declare {name} cursor with hold for values (1), (2)'; end $$"),
    })
}

/// What makes the number that was drawn last the client's own.
pub(super) const DRAWS: &str = "select nextval('public.sq'), lastval()";

fn sequence(dice: &mut Dice, asker: Asker) -> Statement {
    Statement::holding(match dice.below(9) {
        0 | 1 => "select nextval('sq')".to_owned(),
        // Before it is, it may be lost.
        2..5 if !asker.drawn => DRAWS.to_owned(),
        2 => "select currval('public.sq')".to_owned(),
        3 | 4 => "select lastval()".to_owned(),
        5 | 6 => format!("insert into log (who) values ('{}') returning id", asker.index),
        7 => "do $$ begin perform nextval('side.sq'); end $$".to_owned(),
        _ => "discard sequences".to_owned(),
    })
}

fn random(dice: &mut Dice, seeded: bool) -> Statement {
    let seed = dice.pick(&["0.25", "0.5", "-0.5"]);
    match dice.below(4) {
        // Nobody's seed but one's own may be seen; without one, nothing is certain.
        0 | 1 if seeded => Statement::new("select random()"),
        0 => Statement::new(format!("select setseed({seed}) is null, random()")).until_it_leaves(),
        1 => Statement::new(format!("set seed = {seed}")).until_it_leaves(),
        2 if seeded => Statement::new("select gen.n, random() from generate_series(1, 2) gen(n)"),
        _ => Statement::new(format!("select setseed({seed})")).until_it_leaves(),
    }
}

impl Statement {
    fn until_it_leaves(self) -> Self {
        Self {
            hold: Hold::Leave,
            ..self
        }
    }
}

fn hidden(dice: &mut Dice) -> Statement {
    let word = dice.pick(&["red", "green", "blue"]);
    if dice.percent(10) {
        // Nobody else knows of it.
        return Statement::new(format!("select hide_set('app.odd', '{word}', false)"));
    }
    let kind = dice.pick(&[
        "set", "set", "local", "zone", "path", "temp", "lock", "listen", "notify", "prepare", "cursor",
        "sequence", "role", "wrong",
    ]);
    match dice.below(17) {
        0..=3 => Statement::holding(format!("insert into tripwire values ('{kind}', '{word}')")),
        4 | 5 => Statement::holding(format!("insert into late values ('{kind}', '{word}')")),
        6 => Statement::new("select * from peephole"),
        7 => Statement::new("insert into defaulted default values"),
        8 => Statement::new("select * from guarded"),
        9 => Statement::new(format!("insert into ruled values ('{word}')")),
        10 => Statement::new(format!("select '{word}'::checked")),
        11 => Statement::new(format!("select @! '{word}'")),
        12 => Statement::new(format!("insert into indexed values ('{word}')")),
        13 => Statement::new(format!("select dressed('{word}')")),
        14 => Statement::new(format!("call hide_commit('{word}')")),
        15 => Statement::holding("set constraints all immediate"),
        // For each row: with a constant it would be run when it is planned, and how often that is depends on the connection.
        _ => Statement::new(format!(
            "select hide_immutable(v) from (select '{word}'::text offset 0) as w (v)"
        )),
    }
}

fn own_table(dice: &mut Dice, client: usize) -> Statement {
    let table = format!("own_{client}");
    Statement::new(match dice.below(10) {
        0 => format!("update {table} set v = '{}' where id = 1", dice.below(99)),
        1 => format!("insert into {table} values ({}, 'new')", dice.below(5)),
        // Where rows lie is no concern of the gateway's.
        2 => format!("with d as (delete from {table} where id > 1 returning *) select * from d order by id"),
        3 | 4 => format!("select * from {table} order by id"),
        5 => format!("alter table {table} add column if not exists more int"),
        6 => format!("alter table {table} drop column if exists more"),
        7 => format!("select id, v from {table} order by id for update"),
        8 => format!("lock table {table} in exclusive mode"),
        _ => format!("insert into {table} values ({}, 'é')", 5 + dice.below(3)),
    })
}

/// Code that changes what it does, and what leads to it.
fn defined(dice: &mut Dice, client: usize) -> Statement {
    let of = |index: usize| format!("made_{index}");
    let own = of(client);
    let any = of(dice.below(12));
    let body = dice.pick(&[
        "upper(t)",
        "t || current_setting(''app.tenant'')",
        "set_config(''app.tenant'', t, false)",
        "set_config(''app.person'', t, true)",
        "pg_try_advisory_lock(6)::text",
    ]);
    Statement::holding(match dice.below(9) {
        0 | 1 => {
            format!("create or replace function {own}(t text) returns text language sql as 'select {body}'")
        }
        2 => format!("drop function if exists {own}(text) cascade"),
        3 => format!("create or replace view seen_{client} as select {own}('view') as t"),
        4 => format!("alter table own_{client} alter v set default {own}('default')"),
        5 => format!("insert into own_{client} (id) values ({})", 20 + dice.below(9)),
        6 => format!("select * from seen_{}", dice.below(12)),
        _ => format!("select {any}('red')"),
    })
}

fn wrong(dice: &mut Dice) -> Statement {
    let sql = dice.pick(&[
        "select 1/0",
        "selec",
        "select nothing from nowhere",
        "select 'unfinished",
        "do $$ begin raise exception 'odd' using errcode = 'AB123', detail = 'd', hint = 'h'; end $$",
        "do $$ begin raise warning 'a warning'; raise notice 'a notice'; end $$",
        "select 'x'::int",
        "load 'nothing'",
        "vacuum fixed",
        "checkpoint",
    ]);
    let statement = Statement::new(sql);
    // Whatever becomes of it.
    if sql.starts_with("load") {
        statement.until_it_leaves()
    } else {
        statement
    }
}

fn discard(dice: &mut Dice) -> Statement {
    match dice.below(6) {
        0 | 1 => Statement::resetting("discard all"),
        2 => Statement::new("discard plans"),
        3 => Statement::holding("discard temp"),
        4 => Statement::new("discard sequences"),
        _ => Statement::resetting("select hide_run('discard all')"),
    }
}
