#!/usr/bin/env python3
"""Many clients of one kind at once, each with settings of its own, on few server connections.

Usage: crowd.py HOST PORT USER DATABASE KIND, where KIND is psycopg, asyncpg, sqlalchemy, django or rails.
"""

import asyncio
import sys
import threading
import time

sys.dont_write_bytecode = True
from work import CONNECT_TIMEOUT_S, expect, finish, target  # noqa: E402

CLIENTS = 50
ROUNDS = 8
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata")


def zone_of(number):
    return ZONES[number % len(ZONES)]


def at_once(one):
    """Runs `one(number, meet)` for each client on a thread of its own; `meet` waits until all of them are there."""
    barrier = threading.Barrier(CLIENTS, timeout=120)
    problems = []

    def run(number):
        try:
            one(number, barrier.wait)
        except Exception as problem:  # noqa: BLE001 (told below, whatever it is)
            problems.append(problem)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        # The others were only told that somebody has failed.
        raise next((one for one in problems if not isinstance(one, threading.BrokenBarrierError)), problems[0])


def prepare(where, table):
    import psycopg

    with psycopg.connect(host=where.host, port=where.port, user=where.user, dbname=where.database) as connection:
        connection.execute(f"drop table if exists {table}")
        connection.execute(f"create table {table} (id bigint generated always as identity primary key, "
                           "owner int not null, n int not null, note text)")


def psycopg_crowd(where):
    """Server-side binding, everything prepared from its first use on, pipelines, transactions and savepoints."""
    import psycopg

    def one(number, meet):
        with psycopg.connect(host=where.host, port=where.port, user=where.user, dbname=where.database,
                             connect_timeout=CONNECT_TIMEOUT_S, options=f"-c TimeZone={zone_of(number)}",
                             autocommit=True, prepare_threshold=0) as connection:
            meet()
            for n in range(ROUNDS):
                with connection.pipeline():
                    inserted = connection.execute("insert into crowd_psycopg (owner, n) values (%s, %s) returning id", (number, n))
                    counted = connection.execute("select count(*) from crowd_psycopg where owner = %s", (number,))
                expect("rows of one's own", counted.fetchone(), (n + 1,))
                row = inserted.fetchone()[0]
                with connection.transaction():
                    connection.execute("select n from crowd_psycopg where id = %s for update", (row,))
                    with connection.transaction():
                        connection.execute("update crowd_psycopg set note = %s where id = %s", (f"{number}/{n}", row))
                found = connection.execute("select owner, n, note from crowd_psycopg where id = %s", (row,)).fetchone()
                expect("the row", found, (number, n, f"{number}/{n}"))
                expect("the time zone", connection.execute("show timezone").fetchone(), (zone_of(number),))

    at_once(one)


def asyncpg_crowd(where):
    """With its statement cache, from a pool of its own that resets each connection when it comes back."""
    import asyncpg

    async def run():
        pool = await asyncpg.create_pool(host=where.host, port=where.port, user=where.user, database=where.database,
                                         min_size=CLIENTS, max_size=CLIENTS, timeout=60, ssl=False)
        there = 0
        everybody = asyncio.Event()

        async def one(number):
            nonlocal there
            async with pool.acquire() as connection:
                there += 1
                if there == CLIENTS:
                    everybody.set()
                await everybody.wait()
            for n in range(ROUNDS):
                async with pool.acquire() as connection:
                    await connection.execute(f"set timezone = '{zone_of(number)}'")
                    row = await connection.fetchval("insert into crowd_asyncpg (owner, n) values ($1, $2) returning id", number, n)
                    async with connection.transaction():
                        await connection.fetchval("select n from crowd_asyncpg where id = $1 for update", row)
                        await connection.execute("update crowd_asyncpg set note = $1 where id = $2", f"{number}/{n}", row)
                    found = await connection.fetchrow("select owner, n, note from crowd_asyncpg where id = $1", row)
                    expect("the row", tuple(found), (number, n, f"{number}/{n}"))
                    counted = await connection.fetchval("select count(*) from crowd_asyncpg where owner = $1", number)
                    expect("rows of one's own", counted, n + 1)
                    expect("the time zone", await connection.fetchval("show timezone"), zone_of(number))

        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
        await pool.close()

    asyncio.run(run())


def sqlalchemy_crowd(where):
    """Its ORM with a session for each unit of work, and an engine whose connections stay open."""
    import sqlalchemy
    from sqlalchemy import orm

    engine = sqlalchemy.create_engine(f"postgresql+psycopg://{where.user}@{where.host}:{where.port}/{where.database}",
                                      pool_size=CLIENTS, max_overflow=0, pool_pre_ping=True)

    class Base(orm.DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "crowd_sqlalchemy"
        id: orm.Mapped[int] = orm.mapped_column(sqlalchemy.BigInteger, sqlalchemy.Identity(always=True), primary_key=True)
        owner: orm.Mapped[int]
        n: orm.Mapped[int]
        note: orm.Mapped[str | None]

    def one(number, meet):
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
            connection.commit()
            meet()
        for n in range(ROUNDS):
            with orm.Session(engine) as session, session.begin():
                session.execute(sqlalchemy.text("select set_config('TimeZone', :zone, true)"), {"zone": zone_of(number)})
                item = Item(owner=number, n=n)
                session.add(item)
                session.flush()
                item.note = f"{number}/{n}"
                expect("the time zone", session.scalar(sqlalchemy.text("show timezone")), zone_of(number))
            with orm.Session(engine) as session:
                found = session.scalars(sqlalchemy.select(Item).where(Item.owner == number).order_by(Item.id)).all()
                expect("rows of one's own", [(item.n, item.note) for item in found],
                       [(m, f"{number}/{m}") for m in range(n + 1)])
        with engine.connect() as connection:
            expect("the time zone", connection.execute(sqlalchemy.text("show timezone")).scalar(), "UTC")

    at_once(one)
    engine.dispose()


def django_crowd(where):
    """Its ORM on persistent connections, one for each thread."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": where.host, "PORT": where.port,
                               "USER": where.user, "NAME": where.database, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}},
        USE_TZ=True, TIME_ZONE="UTC", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
    django.setup()
    from django.db import connection, models, transaction

    class Item(models.Model):
        owner = models.IntegerField()
        n = models.IntegerField()
        note = models.TextField(null=True)

        class Meta:
            app_label = "crowd"
            db_table = "crowd_django"

    def one(number, meet):
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        meet()
        for n in range(ROUNDS):
            with transaction.atomic():
                item = Item.objects.create(owner=number, n=n)
                locked = Item.objects.select_for_update().get(pk=item.pk)
                with transaction.atomic():
                    locked.note = f"{number}/{n}"
                    locked.save(update_fields=["note"])
            found = list(Item.objects.filter(owner=number).order_by("id").values_list("n", "note"))
            expect("rows of one's own", found, [(m, f"{number}/{m}") for m in range(n + 1)])
            expect("one row less", Item.objects.filter(owner=number, n__lt=n).aggregate(models.Count("id"))["id__count"], n)
        connection.close()

    at_once(one)


def rails_crowd(where):
    """What Rails' adapter says when it connects, and statements that it has prepared as a1, a2 and so on."""
    import psycopg

    def one(number, meet):
        with psycopg.connect(host=where.host, port=where.port, user=where.user, dbname=where.database,
                             connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as connection:
            for said in ("SET client_min_messages TO 'warning'", "SET standard_conforming_strings = on",
                         "SET intervalstyle = iso_8601", f"SET SESSION timezone TO '{zone_of(number)}'"):
                connection.execute(said)
            connection.execute("SELECT t.oid, t.typname FROM pg_type as t WHERE t.typname IN ('int2', 'int4', 'int8', 'text', 'bool')")
            connection.execute("SHOW max_identifier_length")
            raw = connection.pgconn
            texts = {b"a1": b"INSERT INTO crowd_rails (owner, n) VALUES ($1, $2) RETURNING id",
                     b"a2": b"UPDATE crowd_rails SET note = $1 WHERE crowd_rails.id = $2",
                     b"a3": b"SELECT crowd_rails.owner, crowd_rails.n, crowd_rails.note FROM crowd_rails WHERE crowd_rails.id = $1 LIMIT $2",
                     b"a4": b"SELECT COUNT(*) FROM crowd_rails WHERE crowd_rails.owner = $1"}
            for name, text in texts.items():
                expect("PREPARE", raw.prepare(name, text).error_message, b"")

            def run(name, *values):
                result = raw.exec_prepared(name, [str(value).encode() for value in values])
                expect(f"an error of {name}", result.error_message, b"")
                return [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []

            meet()
            for n in range(ROUNDS):
                connection.execute("BEGIN")
                row = int(run(b"a1", number, n)[0])
                run(b"a2", f"{number}/{n}", row)
                connection.execute("COMMIT")
                expect("the row", run(b"a3", row, 1), [str(number).encode(), str(n).encode(), f"{number}/{n}".encode()])
                expect("rows of one's own", run(b"a4", number), [str(n + 1).encode()])
                expect("the time zone", connection.execute("SHOW timezone").fetchone(), (zone_of(number),))
                expect("the interval style", connection.execute("SHOW intervalstyle").fetchone(), ("iso_8601",))

    at_once(one)


KINDS = {"psycopg": psycopg_crowd, "asyncpg": asyncpg_crowd, "sqlalchemy": sqlalchemy_crowd, "django": django_crowd,
         "rails": rails_crowd}


def main():
    kind = sys.argv.pop()
    where = target(__doc__)
    began = time.monotonic()
    problem = None
    try:
        prepare(where, f"crowd_{kind}")
        KINDS[kind](where)
    except Exception as error:  # noqa: BLE001 (told by finish)
        problem = error
    finish(f"crowd {kind}", problem, "its work", f"{CLIENTS} clients in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
