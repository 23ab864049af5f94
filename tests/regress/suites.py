"""PostgreSQL's three suites, each run as its own makefiles run it against an installed server.

A suite's results are a dictionary: test -> (verdict, file with its output).
"""

import os
import pathlib
import pwd
import re
import signal
import subprocess
import time

from servers import BIN, SUPERUSER

SUITES = ["regress", "isolation", "libpq_pipeline"]
PG_REGRESS = "/usr/lib/postgresql/15/lib/pgxs/src/test/regress/pg_regress"
VERDICT = re.compile(r"^(?:test)? +(\S+) +\.\.\. (ok|FAILED|failed \(ignored\))", re.MULTILINE)
ROWS = "700"  # as in libpq_pipeline's own script
# What the others depend on. Some depend on more: parallel_schedule says on what.
ALWAYS = {"regress": ["test_setup"]}
WITH_TRACE = {"simple_pipeline", "nosync", "multi_pipelines", "prepared", "singlerow", "pipeline_abort",
              "pipeline_idle", "transaction", "disallowed_in_pipeline"}


class Suites:
    """The suites, with where they are, what is to be run, and how long a single test may take."""

    def __init__(self, tests, only, left_out, max_connections, patience):
        self.tests = tests
        self.only = only
        self.left_out = left_out
        self.max_connections = max_connections
        self.patience = patience

    def run(self, name, address, directory):
        """Runs a suite against `address`, with its output in `directory`."""
        os.makedirs(directory)
        give_to_server_user(directory)
        if name == "libpq_pipeline":
            return self.libpq_pipeline(address, directory)
        return self.pg_regress(name, address, directory)

    def chosen(self):
        """The suites that are to be run."""
        named = {name.partition("/")[0] for name in self.only}
        return [suite for suite in SUITES if not named or suite in named]

    def wanted(self, suite):
        """The tests of a suite that are to be run, or None for all of them."""
        if not self.only or suite in self.only:
            return None
        named = [test for one, _, test in (name.partition("/") for name in self.only) if one == suite]
        return ALWAYS.get(suite, []) + named

    def includes(self, name):
        """Whether SUITE/TEST is to be run."""
        suite, _, test = name.partition("/")
        wanted = self.wanted(suite)
        return suite in self.chosen() and (wanted is None or test in wanted) and name not in self.left_out

    def shorten(self, suite, schedule, target):
        """Writes a schedule with only those of its tests that are to be run."""
        lines = []
        for line in pathlib.Path(schedule).read_text().splitlines():
            kind, colon, names = line.partition(":")
            kept = [name for name in names.split() if self.includes(f"{suite}/{name}")]
            if colon and not kind.startswith("#") and kept:
                lines.append(f"{kind}: {' '.join(kept)}\n")
        pathlib.Path(target).write_text("".join(lines))
        return target

    def pg_regress(self, suite, address, directory):
        program, schedule, options = {
            "regress": (PG_REGRESS, "parallel_schedule",
                        [f"--dlpath={self.tests}/lib", "--max-concurrent-tests=20"]),
            "isolation": (f"{self.tests}/bin/pg_isolation_regress", "isolation_schedule", []),
        }[suite]
        inputs = f"{self.tests}/{suite}"
        schedule = self.shorten(suite, f"{inputs}/{schedule}", f"{directory}/schedule")
        if self.max_connections:
            options.append(f"--max-connections={self.max_connections}")
        host, port = address
        output = self.watch(
            [program, f"--inputdir={inputs}", f"--outputdir={directory}", f"--bindir={BIN}", *options,
             f"--schedule={schedule}", f"--host={host}", f"--port={port}", f"--user={SUPERUSER}"], directory)
        return {test: (verdict, f"{directory}/results/{test}.out") for test, verdict in VERDICT.findall(output)}

    def libpq_pipeline(self, address, directory):
        program = f"{self.tests}/bin/libpq_pipeline"
        tests = subprocess.run([program, "tests"], check=True, capture_output=True, text=True).stdout.split()
        wanted, results = self.wanted("libpq_pipeline"), {}
        host, port = address
        for test in tests if wanted is None else wanted:
            out, trace = f"{directory}/{test}.out", f"{directory}/{test}.trace"
            options = ["-t", trace] if test in WITH_TRACE else []
            connection = f"host={host} port={port} user={SUPERUSER} dbname=postgres"
            text = self.watch([program, "-r", ROWS, *options, test, connection], directory, f"{directory}/{test}.log",
                              spare_leader=False)
            verdict = "ok" if text.endswith("\nexit status 0\n") else "FAILED"
            if test == "uniqviol":
                text = kinds_of_lines(text)
            if options and os.path.exists(trace):
                traced = pathlib.Path(trace).read_text(errors="replace")
                if traced != pathlib.Path(f"{self.tests}/libpq_pipeline/traces/{test}.trace").read_text():
                    verdict = "FAILED"
                text += traced
            pathlib.Path(out).write_text(text)
            results[test] = (verdict, out)
        return results

    def watch(self, command, directory, log=None, spare_leader=True):
        """Runs a program and ends whichever of the clients that it starts takes too long. Returns what it said."""
        log = log or f"{directory}/log"
        with open(log, "w") as output:
            process = subprocess.Popen(
                command, cwd=directory, env=environment(directory, self.patience), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True, **as_server_user(),
            )
            try:
                while True:
                    try:
                        status = process.wait(1)
                        break
                    except subprocess.TimeoutExpired:
                        end_old_clients(process.pid, self.patience, spare_leader)
            finally:
                end_group(process)
            output.write(f"exit status {status}\n")
        return pathlib.Path(log).read_text(errors="replace")


def kinds_of_lines(text):
    """uniqviol writes until the socket is full, so how many rows it reports, and when, depends on buffers alone."""
    *reports, status = text.splitlines()
    kinds = {re.sub(r"\d+", "N", line.lstrip(".E")) for line in reports}
    return "\n".join([*sorted(kinds), status, ""])


def environment(directory, patience):
    """Nothing of the caller's but the path: its PG* variables would change what is tested."""
    return {"PATH": os.environ["PATH"], "HOME": directory, "PGSSLMODE": "disable",
            "PGISOLATIONTIMEOUT": str(patience // 2)}  # when it cancels a step, so that it can still tell


def as_server_user():
    """What makes a child run as user postgres, who is the server's: tests have the server write into their output."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def give_to_server_user(directory):
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(directory, account.pw_uid, account.pw_gid)


def end_old_clients(session, seconds, spare_leader):
    """Ends the processes of a session that are older than this."""
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or (spare_leader and int(entry) == session):
            continue
        try:
            # After the name in parentheses: state, parent, group, session, …, start time in ticks as the 22nd field.
            fields = pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            age = uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
            if int(fields[3]) == session and age > seconds:
                os.kill(int(entry), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile


def end_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
