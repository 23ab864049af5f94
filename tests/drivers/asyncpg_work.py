#!/usr/bin/env python3
"""Ordinary work of asyncpg against one database. Usage: asyncpg_work.py [HOST PORT USER DATABASE]"""

import asyncio
import datetime
import decimal
import io
import sys
import uuid

import asyncpg

sys.dont_write_bytecode = True
from work import CONNECT_TIMEOUT_S, Clock, expect, expect_that, finish, md5, target, unique  # noqa: E402

BIG = 20 * 1024 * 1024


def options(where):
    return {"host": where.host, "port": where.port, "user": where.user, "database": where.database,
            "timeout": CONNECT_TIMEOUT_S, "server_settings": {"application_name": "asyncpg_work"}}


async def simple(connection, where, table):
    row = await connection.fetchrow("select current_user::text, current_database()::text, $1::int + 1", 1)
    expect("who and where", tuple(row), (where.user, where.database, 2))
    expect("a script", await connection.execute("select 1; select 2"), "SELECT 1")


async def types(connection, where, table):
    values = {
        "int4": -2147483648, "int8": 9223372036854775807, "numeric": decimal.Decimal("12345678901234567890.000000001"),
        "float8": 1.5e300, "bool": True, "text": "Grüße 🐘 \\ ' \" \t\n", "bytea": bytes(range(256)),
        "date": datetime.date(1, 1, 1), "timestamp": datetime.datetime(2026, 2, 28, 23, 59, 59, 999999),
        "interval": datetime.timedelta(days=3, seconds=4), "uuid": uuid.UUID(int=7), "int4[]": [1, None, 3],
        "jsonb": '{"a": [1, null]}',
    }
    for kind, value in values.items():
        row = await connection.fetchrow(f"select $1::{kind}, null::{kind}", value)
        expect(kind, tuple(row), (value, None))
    await connection.execute(f"create type {table}_mood as enum ('fine', 'bad')")
    try:
        expect("an enum", await connection.fetchval(f"select $1::{table}_mood", "fine"), "fine")
        expect("an array of it", await connection.fetchval(f"select $1::{table}_mood[]", ["bad"]), ["bad"])
    finally:
        await connection.execute(f"drop type {table}_mood")


async def prepared(connection, where, table):
    for number in range(200):
        row = await connection.fetchrow("select $1::int8 * 2, $2::text", number, "x" * number)
        expect("a cached statement", tuple(row), (number * 2, "x" * number))
    for number in range(150):  # more than the cache holds
        expect("a statement", await connection.fetchval(f"select $1::int + {number}", 1), number + 1)
    statement = await connection.prepare("select generate_series(1, $1::int) as n")
    expect("a named statement", [row["n"] for row in await statement.fetch(5)], [1, 2, 3, 4, 5])
    expect("its attributes", [attribute.name for attribute in statement.get_attributes()], ["n"])


async def copy(connection, where, table):
    rows = [(number, f"Zeile {number}\t\\N ü" if number % 7 else None) for number in range(50000)]
    expect("copied in", await connection.copy_records_to_table(table, records=rows, columns=["id", "body"]), "COPY 50000")
    found = await connection.fetch(f"select id, body from {table} order by id")
    expect("after copying in", [tuple(row) for row in found], rows)
    out = io.BytesIO()
    expect("copied out", await connection.copy_from_query(f"select id, body from {table} order by id", output=out), "COPY 50000")
    await connection.execute(f"truncate {table}")
    out.seek(0)
    expect("copied in again", await connection.copy_to_table(table, source=out, columns=["id", "body"]), "COPY 50000")
    again = io.BytesIO()
    await connection.copy_from_query(f"select id, body from {table} order by id", output=again)
    expect("what was copied twice", md5(again.getvalue()), md5(out.getvalue()))
    try:
        await connection.copy_to_table(table, source=io.BytesIO(b"60000\tfine\nnot a number\tx\n"), columns=["id", "body"])
        expect_that("bad data in copy were not refused", False)
    except asyncpg.InvalidTextRepresentationError:
        pass
    await connection.execute(f"truncate {table}")


async def cursors(connection, where, table):
    total = 0
    async with connection.transaction():
        async for row in connection.cursor("select generate_series(1, 10000) as n", prefetch=500):
            total += row["n"]
        cursor = await connection.cursor("select generate_series(1, 100) as n")
        await cursor.forward(50)
        expect("a cursor", (await cursor.fetchrow())["n"], 51)
    expect("rows of a cursor", total, 50005000)


async def transactions(connection, where, table):
    async with connection.transaction():
        await connection.execute(f"insert into {table} (id) values ($1)", 1)
        try:
            async with connection.transaction():
                await connection.execute(f"insert into {table} (id) values ($1)", 2)
                await connection.execute(f"insert into {table} (id) values ($1)", 1)
            expect_that("a duplicate key was let in", False)
        except asyncpg.UniqueViolationError as problem:
            expect("the table an error names", problem.table_name, table)
        await connection.executemany(f"insert into {table} (id, body) values ($1, $2)",
                                     [(number, str(number)) for number in range(10, 1010)])
    try:
        async with connection.transaction(isolation="serializable"):
            await connection.execute(f"delete from {table}")
            raise KeyError
    except KeyError:
        pass
    expect("what was committed", await connection.fetchval(f"select count(*) from {table}"), 1001)
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(f"delete from {table}")
        expect_that("a write in a read-only transaction was let through", False)
    except asyncpg.ReadOnlySQLTransactionError:
        pass
    await connection.execute(f"truncate {table}")


async def failures(connection, where, table):
    for statement, kind in (("select 1/0", asyncpg.DivisionByZeroError), ("selec 1", asyncpg.PostgresSyntaxError),
                            ("select * from no_such_table", asyncpg.UndefinedTableError)):
        for run in (connection.execute, connection.fetch):
            try:
                await run(statement)
                expect_that(f"no error for {statement}", False)
            except kind:
                pass
    notices = []
    connection.add_log_listener(lambda _, message: notices.append(message.message))
    await connection.execute("do $$ begin raise notice 'hello %', 1; end $$")
    await asyncio.sleep(0.05)
    expect("notices", notices, ["hello 1"])


async def settings(connection, where, table):
    await connection.execute("set timezone to 'Asia/Tokyo'")
    expect("a reported parameter", connection.get_settings().TimeZone, "Asia/Tokyo")
    await connection.reset()
    expect_that("the parameter after a reset", connection.get_settings().TimeZone != "Asia/Tokyo")
    other = await asyncpg.connect(**{**options(where), "server_settings": {"statement_timeout": "12345"}})
    try:
        expect("a setting at login", await other.fetchval("show statement_timeout"), "12345ms")
    finally:
        await other.close()


async def notifications(connection, where, table):
    arrived = asyncio.Queue()
    await connection.add_listener(table, lambda *event: arrived.put_nowait(event[3]))
    other = await asyncpg.connect(**options(where))
    try:
        wanted = [f"{number} " + "x" * 7000 for number in range(20)]
        for payload in wanted:
            await other.execute("select pg_notify($1, $2)", table, payload)
        found = [await asyncio.wait_for(arrived.get(), 10) for _ in wanted]
        expect("notifications", found, wanted)
    finally:
        await other.close()
        await connection.reset()


async def cancels(connection, where, table):
    for _ in range(3):
        clock = Clock()
        try:
            await connection.execute("select pg_sleep(20)", timeout=0.3)
            expect_that("a timeout had no effect", False)
        except (asyncio.TimeoutError, asyncpg.QueryCanceledError):
            expect_that(f"a cancel took {clock():.1f} s", clock() < 10)
        expect("after a cancel", await connection.fetchval("select 6"), 6)
    task = asyncio.ensure_future(connection.fetch("select pg_sleep(20)"))
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        await task
        expect_that("a cancelled task went on", False)
    except asyncio.CancelledError:
        pass
    expect("after a cancelled task", await connection.fetchval("select 7"), 7)


async def large(connection, where, table):
    text = await connection.fetchval("select repeat('0123456789abcdef', $1)", BIG // 16)
    expect("a large value", md5(text.encode()), md5(b"0123456789abcdef" * (BIG // 16)))
    body = bytes(range(256)) * (BIG // 256)
    row = await connection.fetchrow("select length($1::bytea), md5($1::bytea)", body)
    expect("a large parameter", tuple(row), (BIG, md5(body)))


async def parallel(connection, where, table):
    """20 connections at once, each of which must only ever see its own answers."""
    async def worker(number):
        mine = await asyncpg.connect(**options(where))
        try:
            await mine.execute(f"set application_name to 'worker {number}'")
            for turn in range(50):
                row = await mine.fetchrow("select $1::int, $2::text, current_setting('application_name')", turn, f"{number}:{turn}")
                expect(f"worker {number}, turn {turn}", tuple(row), (turn, f"{number}:{turn}", f"worker {number}"))
        finally:
            await mine.close()

    await asyncio.gather(*(worker(number) for number in range(20)))
    async with asyncpg.create_pool(min_size=5, max_size=20, **options(where)) as pool:
        answers = await asyncio.gather(*(pool.fetchval("select $1::int * 3", number) for number in range(500)))
    expect("answers through the driver's pool", answers, [number * 3 for number in range(500)])


STEPS = (simple, types, prepared, copy, cursors, transactions, failures, settings, notifications, cancels, large, parallel)


async def work(where):
    table, done = unique("asyncpg"), "connect"
    try:
        connection = await asyncpg.connect(**options(where))
        await connection.execute(f"create table {table} (id int primary key, body text)")
        try:
            for step in STEPS:
                done = step.__name__
                await step(connection, where, table)
        finally:
            await connection.close(timeout=5)
            other = await asyncpg.connect(**options(where))
            await other.execute(f"drop table if exists {table}")
            await other.close()
    except Exception as problem:  # whatever it is, it is the answer
        return problem, done
    return None, done


def main():
    where, clock = target(__doc__), Clock()
    problem, done = asyncio.run(work(where))
    finish("asyncpg", problem, done, f"{len(STEPS)} kinds of work in {clock():.1f} s (asyncpg {asyncpg.__version__})")


if __name__ == "__main__":
    main()
