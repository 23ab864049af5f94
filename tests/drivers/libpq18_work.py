#!/usr/bin/env python3
"""What only a libpq of version 18 does: TLS from the first byte, protocol 3.2, cancels over TLS.

Usage: libpq18_work.py [HOST PORT USER DATABASE]. The server must speak both; PGSSLMODE is not looked at.
"""

import socket
import ssl
import sys

import psycopg
from psycopg import errors

sys.dont_write_bytecode = True
from work import CONNECT_TIMEOUT_S, Clock, Later, expect, expect_that, finish, target  # noqa: E402

FORMS = {
    "direct TLS, 3.2": "sslmode=require sslnegotiation=direct min_protocol_version=3.2 max_protocol_version=3.2",
    "direct TLS, latest": "sslmode=require sslnegotiation=direct max_protocol_version=latest",
    "asked-for TLS, 3.2": "sslmode=require sslnegotiation=postgres min_protocol_version=3.2 max_protocol_version=latest",
    "asked-for TLS, 3.0": "sslmode=require sslnegotiation=postgres max_protocol_version=3.0",
}


def connect(where, form):
    return psycopg.connect(FORMS[form], host=where.host, port=where.port, user=where.user, dbname=where.database,
                           connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)


def one(where, form):
    with connect(where, form) as connection:
        expect_that(f"{form}: no TLS in use", connection.pgconn.ssl_in_use)
        expect(f"{form}: protocol", connection.info.full_protocol_version, 30000 if "3.0" in form else 30002)
        expect(f"{form}: a query", connection.execute("select current_user, %s::int", (7,)).fetchone(), (where.user, 7))
        for how in (lambda: connection.cancel_safe(timeout=5), connection.cancel):
            clock = Clock()
            timer = Later(0.3, how)
            try:
                connection.execute("select pg_sleep(20)")
                expect_that(f"{form}: a cancel had no effect", False)
            except errors.QueryCanceled:
                expect_that(f"{form}: a cancel took {clock():.1f} s", clock() < 10)
            timer.join()
        expect(f"{form}: after cancels", connection.execute("select 8").fetchone(), (8,))


def without_alpn(where):
    """TLS from the first byte without the protocol's name in it must be refused, so that nobody is talked to by mistake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((where.host, where.port), timeout=10) as plain:
            with context.wrap_socket(plain) as session:
                session.sendall(b"\0\0\0\x09\0\3\0\0\0")
                expect_that("direct TLS without ALPN was served", session.recv(1) in (b"", b"E"))
    except (ssl.SSLError, ConnectionError):
        pass


def main():
    where, clock = target(__doc__.splitlines()[0]), Clock()
    problem, done = None, "libpq"
    try:
        expect_that(f"libpq {psycopg.pq.version()} is older than 18", psycopg.pq.version() >= 180000)
        for form in FORMS:
            done = form
            one(where, form)
        done = "no ALPN"
        without_alpn(where)
    except Exception as error:  # whatever it is, it is the answer
        problem = error
    finish("libpq18", problem, done, f"{', '.join(FORMS)} in {clock():.1f} s (libpq {psycopg.pq.version()})")


if __name__ == "__main__":
    main()
