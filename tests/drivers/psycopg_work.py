#!/usr/bin/env python3
"""Ordinary work of psycopg 3 against one database. Usage: psycopg_work.py [HOST PORT USER DATABASE]"""

import datetime
import decimal
import sys
import time
import uuid

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

sys.dont_write_bytecode = True
from work import CONNECT_TIMEOUT_S, Clock, Later, expect, expect_that, finish, md5, target, unique  # noqa: E402

BIG = 20 * 1024 * 1024


def connect(where, **options):
    return psycopg.connect(host=where.host, port=where.port, user=where.user, dbname=where.database,
                           connect_timeout=CONNECT_TIMEOUT_S, application_name="psycopg_work", **options)


def simple(connection, where, table):
    row = connection.execute("select current_user, current_database(), 1 + 1").fetchone()
    expect("who and where", row, (where.user, where.database, 2))
    cursor = connection.execute("select 1; select 2; select 3")
    found = []
    while True:
        found.append(cursor.fetchone()[0])
        if not cursor.nextset():
            break
    expect("several statements at once", found, [1, 2, 3])
    expect("no row", connection.execute("select 1 where false").fetchall(), [])
    expect("an empty statement", connection.execute("").statusmessage, None)


def types(connection, where, table):
    values = {
        "int4": -2147483648, "int8": 9223372036854775807, "numeric": decimal.Decimal("12345678901234567890.000000001"),
        "float8": 1.5e300, "bool": True, "text": "Grüße 🐘 \\ ' \" \t\n", "bytea": bytes(range(256)),
        "date": datetime.date(1, 1, 1), "timestamp": datetime.datetime(2026, 2, 28, 23, 59, 59, 999999),
        "interval": datetime.timedelta(days=3, seconds=4), "uuid": uuid.UUID(int=7), "int4[]": [1, None, 3],
    }
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            for kind, value in values.items():
                mark = "%b" if binary else "%t"
                cursor.execute(f"select {mark}::{kind}, null::{kind}", (value,))
                expect(f"{kind}, binary={binary}", cursor.fetchone(), (value, None))
            cursor.execute("select %s::jsonb", (Jsonb({"a": [1, {"b": None}]}),))
            expect(f"jsonb, binary={binary}", cursor.fetchone()[0], {"a": [1, {"b": None}]})


def prepared(connection, where, table):
    connection.prepare_threshold = 2
    for number in range(50):
        row = connection.execute("select %s::int8 * 2, %s::text", (number, "x" * number)).fetchone()
        expect("a prepared statement", row, (number * 2, "x" * number))
    count = connection.execute("select count(*) from pg_prepared_statements").fetchone()[0]
    expect_that(f"nothing was prepared at the server: {count}", count >= 1)
    for number in range(150):
        connection.execute(f"select %s::int8 + {number}", (1,), prepare=True)
    expect("after more statements than the driver keeps", connection.execute("select %s::int", (7,)).fetchone(), (7,))


def pipeline(connection, where, table):
    with connection.pipeline():
        cursors = [connection.execute("select %s::int", (number,)) for number in range(500)]
        expect("a pipeline of selects", [cursor.fetchone()[0] for cursor in cursors], list(range(500)))
    with connection.cursor() as cursor:
        cursor.executemany(sql.SQL("insert into {} (id, body) values (%s, %s)").format(sql.Identifier(table)),
                           [(number, f"row {number}") for number in range(2000)])
        expect("rows of executemany", cursor.rowcount, 2000)
    try:
        with connection.pipeline():
            connection.execute("select 1")
            connection.execute("select 1/0")
            connection.execute("select 2")
        expect_that("an error in a pipeline was not told", False)
    except errors.DivisionByZero:
        pass
    expect("after an error in a pipeline", connection.execute("select 3").fetchone(), (3,))


def copy(connection, where, table):
    name = sql.Identifier(table)
    connection.execute(sql.SQL("truncate {}").format(name))
    rows = [(number, f"Zeile {number}\t\\N ü" if number % 7 else None) for number in range(50000)]
    for binary in (False, True):
        form = sql.SQL(" (format binary)" if binary else "")
        with connection.cursor().copy(sql.SQL("copy {} (id, body) from stdin{}").format(name, form)) as stream:
            if binary:
                stream.set_types(["int4", "text"])
            for row in rows:
                stream.write_row(row)
        with connection.cursor().copy(
                sql.SQL("copy (select id, body from {} order by id) to stdout{}").format(name, form)) as stream:
            stream.set_types(["int4", "text"])
            expect(f"copy in and out, binary={binary}", list(stream.rows()), rows)
        connection.execute(sql.SQL("truncate {}").format(name))
    try:
        with connection.cursor().copy(sql.SQL("copy {} (id, body) from stdin").format(name)) as stream:
            for number in range(20000):
                stream.write(f"{number}\tfine\n")
            stream.write("not a number\tx\n")
        expect_that("bad data in copy were not refused", False)
    except errors.InvalidTextRepresentation:
        pass
    try:
        with connection.cursor().copy(sql.SQL("copy {} (id, body) from stdin").format(name)) as stream:
            stream.write("1\tx\n")
            raise KeyError("the client gives up")
    except (errors.QueryCanceled, KeyError):
        pass
    expect("rows after refused copies", connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone(), (0,))
    try:
        with connection.cursor().copy("copy (select generate_series(1, 3000000)) to stdout") as stream:
            for seen, _ in enumerate(stream):
                if seen == 1000:
                    raise KeyError("the client has seen enough")  # the driver cancels, and drops what still comes
    except KeyError:
        pass
    expect("after leaving a copy early", connection.execute("select 4").fetchone(), (4,))


def cursors(connection, where, table):
    with connection.transaction():
        with connection.cursor(name="forward") as cursor:
            cursor.itersize = 500
            cursor.execute("select generate_series(1, 10000)")
            expect("a server-side cursor", sum(row[0] for row in cursor), 50005000)
        with connection.cursor(name="scroll", scrollable=True) as cursor:
            cursor.execute("select generate_series(1, 100)")
            cursor.scroll(50)
            expect("scrolled", cursor.fetchone(), (51,))
            cursor.scroll(-10)
            expect("scrolled back", cursor.fetchone(), (42,))


def transactions(connection, where, table):
    name = sql.Identifier(table)
    connection.execute(sql.SQL("truncate {}").format(name))
    insert = sql.SQL("insert into {} (id) values (%s)").format(name)
    with connection.transaction():
        connection.execute(insert, (1,))
        try:
            with connection.transaction():
                connection.execute(insert, (2,))
                connection.execute(insert, (1,))
            expect_that("a duplicate key was let in", False)
        except errors.UniqueViolation as problem:
            expect("the table an error names", problem.diag.table_name, table)
        connection.execute(insert, (3,))
    try:
        with connection.transaction():
            connection.execute(insert, (4,))
            raise KeyError
    except KeyError:
        pass
    rows = connection.execute(sql.SQL("select id from {} order by id").format(name)).fetchall()
    expect("what was committed", rows, [(1,), (3,)])
    connection.execute("begin")
    try:
        connection.execute("select no_such_column")
    except errors.UndefinedColumn:
        pass
    try:
        connection.execute("select 1")
        expect_that("a statement in a failed transaction was let through", False)
    except errors.InFailedSqlTransaction:
        pass
    connection.execute("rollback")
    expect("state after rollback", connection.info.transaction_status, psycopg.pq.TransactionStatus.IDLE)
    with connection.transaction():
        connection.execute("set transaction isolation level serializable read only")
        try:
            with connection.transaction():
                connection.execute(insert, (5,))
            expect_that("a write in a read-only transaction was let through", False)
        except errors.ReadOnlySqlTransaction:
            pass


def failures(connection, where, table):
    for statement, kind in (("select 1/0", errors.DivisionByZero), ("selec 1", errors.SyntaxError),
                            ("select * from no_such_table", errors.UndefinedTable),
                            ("select 'x'::int", errors.InvalidTextRepresentation)):
        for prepare in (False, True):
            try:
                connection.execute(statement, prepare=prepare)
                expect_that(f"no error for {statement}", False)
            except kind as problem:
                expect_that(f"{statement}: no severity or message", problem.diag.severity and problem.diag.message_primary)
    expect("after errors", connection.execute("select 5").fetchone(), (5,))
    notices = []
    connection.add_notice_handler(lambda diagnostic: notices.append((diagnostic.severity, diagnostic.message_primary)))
    connection.execute("do $$ begin raise notice 'hello %', 1; raise warning 'careful'; end $$")
    expect("notices", notices, [("NOTICE", "hello 1"), ("WARNING", "careful")])


def settings(connection, where, table):
    connection.execute("set timezone to 'Asia/Tokyo'")
    expect("a reported parameter", connection.info.parameter_status("TimeZone"), "Asia/Tokyo")
    expect("a setting", connection.execute("show timezone").fetchone(), ("Asia/Tokyo",))
    connection.execute("set work_mem to '7MB'")
    expect("another setting", connection.execute("show work_mem").fetchone(), ("7MB",))
    connection.execute("create temp table mine (a int) on commit preserve rows")
    connection.execute("insert into mine values (1)")
    expect("a temporary table", connection.execute("select a from mine").fetchone(), (1,))
    connection.execute("reset all")
    connection.execute("drop table mine")
    with connect(where, autocommit=True, options="-c statement_timeout=12345 -c search_path=pg_catalog") as other:
        expect("an option at login", other.execute("show statement_timeout").fetchone(), ("12345ms",))
        expect("another one", other.execute("show search_path").fetchone(), ("pg_catalog",))
    with connect(where, autocommit=True) as other:
        expect("a new session", other.execute("show statement_timeout").fetchone()[0] != "12345ms", True)


def notifications(connection, where, table):
    with connect(where, autocommit=True) as sender:
        connection.execute(f"listen {table}")
        wanted = [f"{number} " + "x" * 7000 for number in range(20)]
        for payload in wanted:
            sender.execute("select pg_notify(%s, %s)", (table, payload))
        found = [note.payload for note in connection.notifies(timeout=10, stop_after=20)]
        expect("notifications", found, wanted)
        connection.execute(f"unlisten {table}")
        sender.execute("select pg_notify(%s, 'late')", (table,))
        expect("after unlisten", [note.payload for note in connection.notifies(timeout=0.2)], [])


def cancels(connection, where, table):
    for cancel in (lambda: connection.cancel_safe(timeout=5), connection.cancel):
        clock = Clock()
        timer = Later(0.3, cancel)
        try:
            connection.execute("select pg_sleep(20)")
            expect_that("a cancel had no effect", False)
        except errors.QueryCanceled:
            expect_that(f"a cancel took {clock():.1f} s", clock() < 10)
        timer.join()
        expect("after a cancel", connection.execute("select 6").fetchone(), (6,))
    connection.cancel_safe(timeout=5)
    time.sleep(0.2)
    expect("after a cancel of nothing", connection.execute("select 7").fetchone(), (7,))
    connection.execute("set statement_timeout to 200")
    try:
        connection.execute("select pg_sleep(20)")
        expect_that("statement_timeout had no effect", False)
    except errors.QueryCanceled:
        pass
    connection.execute("reset statement_timeout")


def large(connection, where, table):
    text = connection.execute("select repeat('0123456789abcdef', %s)", (BIG // 16,)).fetchone()[0]
    expect("length of a large value", len(text), BIG)
    expect("a large value", md5(text.encode()), md5(b"0123456789abcdef" * (BIG // 16)))
    body = bytes(range(256)) * (BIG // 256)
    row = connection.execute("select length(%b::bytea), md5(%b::bytea)", (body, body)).fetchone()
    expect("a large parameter", row, (BIG, md5(body)))
    wide = connection.execute("select " + ", ".join(f"{number} as c{number}" for number in range(1600))).fetchone()
    expect("1,600 columns", wide, tuple(range(1600)))
    statement = "select " + "+".join(["1"] * 200000)
    try:
        connection.execute(statement)
    except errors.StatementTooComplex:
        pass  # whether the parser's stack is deep enough for it is the server's business
    many = connection.execute("select n, repeat('y', 1000) from generate_series(1, 20000) as n").fetchall()
    expect("many rows", (len(many), many[-1][0], {len(row[1]) for row in many}), (20000, 20000, {1000}))


STEPS = (simple, types, prepared, pipeline, copy, cursors, transactions, failures, settings, notifications, cancels, large)


def main():
    where = target(__doc__)
    clock, problem, done = Clock(), None, ""
    try:
        table = unique("psycopg")
        with connect(where, autocommit=True) as connection:
            connection.execute(f"create table {table} (id int primary key, body text)")
            try:
                for step in STEPS:
                    done = step.__name__
                    step(connection, where, table)
            finally:
                connection.close()
                with connect(where, autocommit=True) as other:
                    other.execute(f"drop table if exists {table}")
    except Exception as error:  # whatever it is, it is the answer
        problem = error
    finish("psycopg", problem, done, f"{len(STEPS)} kinds of work in {clock():.1f} s (psycopg {psycopg.__version__}, "
                               f"libpq {psycopg.pq.version()})")


if __name__ == "__main__":
    main()
