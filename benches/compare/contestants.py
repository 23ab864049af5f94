"""The servers that are compared: PostgreSQL itself, PgBouncer, Postern. Each knows how to start, where it listens and what was in its configuration."""

import base64
import hashlib
import hmac
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ENDPOINT = "bench.abc123.us-east-1.rds.amazonaws.com"
PASSWORD = "bench-password"
LOGIN_DELAY = 0.2
# pam_ftp asks for a password, as RDS does, and then has no opinion on any user but "ftp"; pam_permit lets everybody in.
PAM_ASK = "auth optional pam_ftp.so\n"
PAM_PERMIT = "auth required pam_permit.so\naccount required pam_permit.so\n"
# Named by process, so that two runs at a time don't remove each other's.
PAM_QUICK, PAM_SLOW = f"postern-bench-{os.getpid()}", f"postern-bench-{os.getpid()}-slow"
PAM_SERVICES = {
    PAM_QUICK: PAM_ASK + PAM_PERMIT,
    PAM_SLOW: PAM_ASK + f"auth optional pam_exec.so quiet /bin/sleep {LOGIN_DELAY}\n" + PAM_PERMIT,
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, check, process, log, seconds=20):
    """Polls check() until it is true; tells the end of the log when the process dies or time is up."""
    deadline = time.monotonic() + seconds
    while not check():
        if process.poll() is not None or time.monotonic() > deadline:
            why = f"ended with {process.returncode}" if process.poll() is not None else f"not ready in {seconds} s"
            with open(log, errors="replace") as text:
                raise RuntimeError(f"{what} {why}\n" + "".join(text.readlines()[-15:]))
        time.sleep(0.02)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def scram_verifier(password, iterations=4096):
    """What PostgreSQL keeps of a password (RFC 5803)."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    stored = hashlib.sha256(client).digest()
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


class Workplace:
    """A directory that user postgres can use, certificates in it, and the CPUs that processes are tied to."""

    def __init__(self, directory, pinned_cpu):
        self.directory = directory
        self.account = pwd.getpwnam("postgres")
        self.pinned = {pinned_cpu}
        self.everywhere = os.sched_getaffinity(0)
        self.cpus = self.pinned
        self.verifier = scram_verifier(PASSWORD)
        self.own(directory)
        self.make_certificates()

    def path(self, name):
        return os.path.join(self.directory, name)

    def own(self, path):
        os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        os.chmod(self.path(name), 0o600)
        self.own(self.path(name))
        return self.path(name)

    def start(self, command, log, environment=None, as_postgres=True):
        """Starts a process tied to the CPUs in force, as user postgres."""
        cpus = ",".join(map(str, sorted(self.cpus)))
        who = {"user": "postgres", "group": "postgres", "extra_groups": []} if as_postgres else {}
        with open(log, "a") as output:
            return subprocess.Popen(
                ["taskset", "-c", cpus, *command], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **(environment or {})}, **who,
            )

    def make_certificates(self):
        """One authority; the same name on an RSA-2048 and a P-256 certificate."""
        def openssl(*arguments):
            done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")

        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench authority",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.write("leaf.ext", f"subjectAltName=DNS:{ENDPOINT},DNS:localhost,IP:127.0.0.1\n"
                               "basicConstraints=critical,CA:false\nextendedKeyUsage=serverAuth\n")
        for kind, options in (("rsa", ["-newkey", "rsa:2048"]),
                              ("p256", ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])):
            openssl("req", *options, "-nodes", "-keyout", f"{kind}.key", "-out", f"{kind}.csr", "-subj", f"/CN={ENDPOINT}")
            openssl("x509", "-req", "-in", f"{kind}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-days", "30", "-extfile", "leaf.ext", "-out", f"{kind}.pem")
            os.chmod(self.path(f"{kind}.key"), 0o600)
        for name in os.listdir(self.directory):
            self.own(self.path(name))


class Postgres:
    """The server behind everybody. Logs users in through PAM, as RDS does for IAM, over TLS with an RSA-2048 certificate."""

    name = "direct"
    settings = {
        "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off", "max_connections": "400",
        "shared_buffers": "256MB", "ssl": "on", "log_min_messages": "fatal", "jit": "off",
    }

    def __init__(self, place, bin_directory, scale):
        self.place = place
        self.bin = bin_directory
        self.port = free_port()
        self.scale = scale
        self.process = None
        self.pid = None

    def start(self):
        place, data = self.place, self.place.path("data")
        for service, text in PAM_SERVICES.items():
            with open(f"/etc/pam.d/{service}", "w") as file:
                file.write(text)
        run = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": place.directory,
               "capture_output": True, "text": True}
        done = subprocess.run([f"{self.bin}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                               "--locale=C", "--no-sync"], **run)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr}")
        place.write("data/pg_hba.conf", "local all postgres trust\n"
                    f"hostssl all bench 127.0.0.1/32 pam pamservice={PAM_QUICK}\n"
                    f"hostssl all bench_slow 127.0.0.1/32 pam pamservice={PAM_SLOW}\n")
        options = dict(self.settings, port=self.port, listen_addresses="127.0.0.1",
                       unix_socket_directories=place.directory, ssl_cert_file=place.path("rsa.pem"),
                       ssl_key_file=place.path("rsa.key"))
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        self.process = place.start([f"{self.bin}/postgres", "-D", data, *arguments], place.path("postgres.log"))
        self.pid = self.process.pid
        wait_for("PostgreSQL", lambda: self.sql("select 1", check=False).returncode == 0, self.process,
                 place.path("postgres.log"))
        self.sql("create role bench login", "create role bench_slow login", "create database bench owner bench")
        self.sql("grant all on schema public to bench_slow",
                 "create unlogged table bulk_small (a int, b int, c int, filler char(87))",
                 "insert into bulk_small select 1000000 + n, 1, 0, 'x' from generate_series(1, 100000) as n",
                 "create view bulk as select s.* from generate_series(1, 1000) as again, bulk_small as s",
                 "create unlogged table bulk_in (a int, b int, c int, filler text)",
                 "grant all on all tables in schema public to bench", database="bench")
        done = subprocess.run([f"{self.bin}/pgbench", "-i", "-q", "-s", str(self.scale), "--unlogged-tables",
                               "-h", place.directory, "-p", str(self.port), "-U", "postgres", "bench"],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pgbench -i: {done.stderr}")
        self.sql("grant all on all tables in schema public to bench, bench_slow", "vacuum analyze", database="bench")

    def sql(self, *statements, database="postgres", check=True):
        command = [f"{self.bin}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.place.directory,
                   "-p", str(self.port), "-U", "postgres", "-d", database]
        done = subprocess.run(command + [part for one in statements for part in ("-c", one)], capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError(f"psql: {done.stderr}")
        return done

    def spread(self, cpus):
        """Moves the server, and so every backend that it starts from now on, to these CPUs."""
        for process in [self.pid] + [int(child) for child in children(self.pid)]:
            try:
                os.sched_setaffinity(process, cpus)
            except ProcessLookupError:
                pass  # a backend that has just ended

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(20)
        for service in PAM_SERVICES:
            if os.path.exists(f"/etc/pam.d/{service}"):
                os.remove(f"/etc/pam.d/{service}")

    def version(self):
        return self.sql("show server_version").stdout.strip()

    def configuration(self):
        return "\n".join(f"{key} = {value}" for key, value in self.settings.items())

    def connection(self, front):
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGSSLMODE": "require", "PGPASSWORD": PASSWORD}


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as text:
        return text.read().split()


class Proxy:
    """What PgBouncer and Postern have in common. Neither logs logins, or both do: log_logins."""

    log_logins = False

    def __init__(self, place, postgres, front, mode, pool, clients, user):
        self.place = place
        self.postgres = postgres
        self.front = front
        self.mode = mode
        self.pool = pool
        self.clients = clients
        self.user = user
        self.port = free_port()
        self.process = None
        self.tag = f"{type(self).__name__.lower()}-{self.port}"
        self.log = place.path(f"{self.tag}.log")

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def connection(self, front):
        settings = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGSSLMODE": "disable"}
        if front.startswith("tls"):
            settings["PGSSLMODE"] = "require"
        if front == "scram":
            settings["PGPASSWORD"] = PASSWORD
        return settings


class PgBouncer(Proxy):
    """PgBouncer, Debian's if no other is named."""

    name = "PgBouncer"
    program = "/usr/sbin/pgbouncer"

    def text(self):
        place = self.place
        lines = [
            "[databases]",
            f"bench = host=127.0.0.1 port={self.postgres.port} dbname=bench user={self.user} password={PASSWORD}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1", f"listen_port = {self.port}", "unix_socket_dir =",
            f"auth_type = {'scram-sha-256' if self.front == 'scram' else 'trust'}",
            f"auth_file = {place.path(self.tag + '.users')}",
            f"pool_mode = {self.mode.replace('auto', 'transaction')}", f"default_pool_size = {self.pool}", "min_pool_size = 0",
            f"max_client_conn = {self.clients}", "ignore_startup_parameters = extra_float_digits",
            "server_tls_sslmode = verify-full", f"server_tls_ca_file = {place.path('ca.pem')}",
            f"log_connections = {int(self.log_logins)}", f"log_disconnections = {int(self.log_logins)}",
        ]
        if self.front.startswith("tls"):
            kind = self.front.partition("-")[2]
            lines += ["client_tls_sslmode = require", f"client_tls_cert_file = {place.path(kind + '.pem')}",
                      f"client_tls_key_file = {place.path(kind + '.key')}"]
        return "\n".join(lines) + "\n"

    def start(self):
        secret = self.place.verifier if self.front == "scram" else PASSWORD
        users = {"bench", self.user}
        self.place.write(f"{self.tag}.users", "".join(f'"{user}" "{secret}"\n' for user in sorted(users)))
        config = self.place.write(f"{self.tag}.ini", self.text())
        limit = f"--nofile={self.clients + 1000}"
        self.process = self.place.start(["prlimit", limit, "setpriv", "--reuid=postgres", "--regid=postgres",
                                         "--clear-groups", self.program, "-q", config], self.log, as_postgres=False)
        wait_for("PgBouncer", lambda: listens(self.port), self.process, self.log)

    @classmethod
    def version(cls):
        done = subprocess.run([cls.program, "--version"], capture_output=True, text=True)
        return done.stdout.split()[1]


class PgBouncerAgain(PgBouncer):
    """PgBouncer in Postern's place: what two equal contestants differ by is what the machine's noise is worth."""

    name = "PgBouncer, again"


class Postern(Proxy):
    """The program of this repository, given credentials that sign tokens which nobody checks here."""

    name = "Postern"
    program = None

    @classmethod
    def use(cls, binary, place):
        """Copies the binary to where user postgres can run it."""
        cls.program = place.path("postern")
        shutil.copy(binary, cls.program)
        os.chmod(cls.program, 0o755)

    def text(self):
        place = self.place
        lines = ["[listen]", f'addresses = ["127.0.0.1:{self.port}"]', f"max_clients = {self.clients}"]
        lines += ["[admin]", f'http = "127.0.0.1:{self.http}"', "[log]", f'level = "{"info" if self.log_logins else "warn"}"', "[identity]"]
        if self.front == "scram":
            lines += ['sources = ["scram"]', "[identity.scram.verifiers]", f'{self.user} = "{place.verifier}"']
        else:
            lines += ['sources = ["trust"]']
        if self.front.startswith("tls"):
            kind = self.front.partition("-")[2]
            lines += ["[tls]", f'certificate_file = "{place.path(kind + ".pem")}"', f'key_file = "{place.path(kind + ".key")}"']
        lines += [
            "[[targets]]", 'name = "bench"', f'endpoint = "{ENDPOINT}:5432"',
            f'dial_address = "127.0.0.1:{self.postgres.port}"', f'tls_ca_file = "{place.path("ca.pem")}"',
            'databases = ["bench"]', f'users = ["{self.user}"]',
            "[targets.pool]", f'mode = "{self.mode}"', f"size = {self.pool}", "min_idle = 0",
            "[targets.iam]", "logins_per_second = 200", "burst = 200", "logins_in_flight = 20",
            "[[rules]]", 'principals = ["*"]', 'targets = ["bench"]', f'users = ["{self.user}"]',
        ]
        return "\n".join(lines) + "\n"

    def start(self):
        self.http = free_port()
        config = self.place.write(f"{self.tag}.toml", self.text())
        keys = {"AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy", "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true"}
        limit = f"--nofile={self.clients + 1000}"
        self.process = self.place.start(["prlimit", limit, "setpriv", "--reuid=postgres", "--regid=postgres",
                                         "--clear-groups", self.program, "run", "--config", config],
                                        self.log, environment=keys, as_postgres=False)
        wait_for("Postern", self.ready, self.process, self.log)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    @classmethod
    def version(cls):
        done = subprocess.run([cls.program, "--version"], capture_output=True, text=True)
        return (re.findall(r"\d+\.\d+\.\d+\S*", done.stdout) or ["?"])[0]
