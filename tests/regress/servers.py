"""A lab and a gateway before it, as processes that end with this one."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

BIN = "/usr/lib/postgresql/15/bin"
SUPERUSER = "rdsadmin"
DATABASES = ["postgres", "regression", "isolation_regression"]
SETTINGS = {
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "posix",
    "max_prepared_transactions": "20",  # or else the tests of two-phase commit only see that it is off
}
# What pg_regress has its clients ask for when they log in.
CLIENT_SETTINGS = {"timezone": "America/Los_Angeles", "datestyle": "Postgres, MDY", "intervalstyle": "postgres_verbose"}
SECONDS_TO_START = 60


class Process:
    """A program with its output in a file, ended politely, and if need be not."""

    def __init__(self, command, log, environment=None):
        self.name = os.path.basename(command[0])
        self.log = log
        with open(log, "w") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def wait_until(self, ready):
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = "".join(pathlib.Path(self.log).read_text(errors="replace").splitlines(True)[-15:])
                self.stop()
                raise SystemExit(f"{self.name} doesn't start, see {self.log}\n{tail}")
            time.sleep(0.05)

    def stop(self):
        for end in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            self.process.send_signal(end)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                pass


class Lab:
    """A fresh cluster behind a stand-in for RDS, whose superuser may log in by token."""

    def __init__(self, program, directory, connections, same_defaults):
        self.directory = directory
        settings = {**SETTINGS, **(CLIENT_SETTINGS if same_defaults else {})}
        settings = [f"--postgres-setting={name}={value}" for name, value in settings.items()]
        self.process = Process(
            [program, "up", "--dir", directory, "--max-connections", str(connections), *settings],
            os.path.join(directory, "lab.log"), {"PGBIN": BIN},
        )
        self.process.wait_until(lambda: os.path.exists(os.path.join(directory, "ready")))
        self.sockets = os.path.realpath(os.path.join(directory, "sockets"))
        self.port = re.search(r"\.s\.PGSQL\.(\d+)\b", " ".join(os.listdir(self.sockets)))[1]
        done = subprocess.run([f"{BIN}/psql", "-X", "-q", "-h", self.sockets, "-p", self.port, "-U", SUPERUSER,
                               "-c", f"GRANT rds_iam TO {SUPERUSER}", "postgres"])
        if done.returncode:
            raise SystemExit("the lab's superuser can't be let in by token")

    def address(self):
        """Past everything, by the unix socket."""
        return self.sockets, self.port

    def setting(self, key):
        """A value of the configuration that the lab wrote for a gateway."""
        return re.search(rf'^{key} = "(.*)"$', self.read("postern.toml"), re.MULTILINE)[1]

    def environment(self):
        return dict(re.findall(r"^export (\w+)='(.*)'$", self.read("env"), re.MULTILINE))

    def read(self, name):
        return pathlib.Path(self.directory, name).read_text()

    def stop(self):
        self.process.stop()


class Gateway:
    """A gateway before a lab."""

    def __init__(self, program, directory, lab, mode, pool_size):
        self.port, self.admin = free_port(), free_port()
        config = os.path.join(directory, "gateway.toml")
        pathlib.Path(config).write_text(CONFIGURATION.format(
            port=self.port, admin=self.admin, endpoint=lab.setting("endpoint"), dial=lab.setting("dial_address"),
            ca=lab.setting("tls_ca_file"), databases=DATABASES, user=SUPERUSER, mode=mode, size=pool_size,
        ).replace("'", '"'))
        self.process = Process([program, "run", "--config", config], os.path.join(directory, "gateway.log"),
                               lab.environment())
        self.process.wait_until(lambda: self.page("/readyz") is not None)

    def address(self):
        return "127.0.0.1", str(self.port)

    def page(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    def stop(self):
        self.process.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The database isn't there before the tests make it, so no pool has idle connections at the start.
CONFIGURATION = """\
[listen]
addresses = ["127.0.0.1:{port}"]
[admin]
http = "127.0.0.1:{admin}"
[identity]
sources = ["trust"]
[[targets]]
name = "regress"
endpoint = "{endpoint}"
dial_address = "{dial}"
tls_ca_file = "{ca}"
databases = {databases}
users = ["{user}"]
[targets.pool]
mode = "{mode}"
size = {size}
min_idle = 0
[targets.iam]
logins_per_second = 1000
burst = 1000
logins_in_flight = 100
[[rules]]
principals = ["trust:"]
targets = ["regress"]
users = ["{user}"]
"""
