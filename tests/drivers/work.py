"""What the Python scripts here share: where to connect, and how a difference is told."""

import argparse
import hashlib
import os
import sys
import threading
import time
import traceback

CONNECT_TIMEOUT_S = 20


class Different(Exception):
    """Something came out otherwise than it should."""


def expect(what, found, wanted):
    if found != wanted:
        raise Different(f"{what}: found {shorten(found)}, wanted {shorten(wanted)}")


def expect_that(what, holds):
    if not holds:
        raise Different(what)


def shorten(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:200]}… ({len(text)} characters)"


def target(description):
    """HOST PORT USER DATABASE from the command line, or else from PGHOST and so on."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("host", nargs="?", default=os.environ.get("PGHOST", "127.0.0.1"))
    parser.add_argument("port", nargs="?", type=int, default=int(os.environ.get("PGPORT", "5432")))
    parser.add_argument("user", nargs="?", default=os.environ.get("PGUSER", "postgres"))
    parser.add_argument("database", nargs="?", default=os.environ.get("PGDATABASE"))
    arguments = parser.parse_args()
    arguments.database = arguments.database or arguments.user
    return arguments


def unique(name):
    """A table name that no other run uses at this moment."""
    return f"work_{name}_{os.getpid()}"


def finish(name, problem, step, details):
    """One line about how it went, and the exit code."""
    if problem is not None:
        kind = "" if isinstance(problem, Different) else f"{type(problem).__name__}: "
        print(f"FAILED {name}, {step}: {kind}{problem}", file=sys.stderr)
        if kind:
            traceback.print_exception(problem, limit=-4)
        sys.exit(1)
    print(f"ok {name} {details}")


def md5(data):
    return hashlib.md5(data).hexdigest()


class Later(threading.Thread):
    """Calls something after a while; join() raises what it raised."""

    def __init__(self, seconds, call):
        super().__init__(daemon=True)
        self.seconds = seconds
        self.call = call
        self.problem = None
        self.start()

    def run(self):
        time.sleep(self.seconds)
        try:
            self.call()
        except Exception as problem:  # told by join
            self.problem = problem

    def join(self, timeout=None):
        super().join(timeout)
        if self.problem is not None:
            raise self.problem


class Clock:
    """Seconds since it was made."""

    def __init__(self):
        self.begin = time.monotonic()

    def __call__(self):
        return time.monotonic() - self.begin
