"""A small PostgreSQL client for loads that pgbench has no form of.

    client.py idle  --port P --clients N [--tls] [--select]    opens N sessions, prints "ready", closes at end of input
    client.py bulk  --port P --what out|in|select --mb N       moves N MB, prints the seconds it took
    client.py burst --port P --clients N [--spread S] [--sql]  N clients at once (or over S seconds), prints their times

Everything is printed as one line of JSON. TLS is not verified: this is a load, not a check.
"""

import argparse
import heapq
import json
import resource
import select
import socket
import ssl
import struct
import sys
import time

READY = b"Z\0\0\0\5I"


def frame(tag, body=b""):
    return tag + struct.pack("!I", len(body) + 4) + body


def startup(user, database):
    body = struct.pack("!I", 196608)
    for key, value in (("user", user), ("database", database), ("application_name", "bench")):
        body += key.encode() + b"\0" + value.encode() + b"\0"
    return struct.pack("!I", len(body) + 5) + body + b"\0"


def query(sql):
    return frame(b"Q", sql.encode() + b"\0")


def password(text):
    return frame(b"p", text.encode() + b"\0")


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


SSL_REQUEST = struct.pack("!II", 8, 80877103)


class Failed(Exception):
    """The server said no, or went away."""


def error_text(body):
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return f"{fields.get(b'C', '?')} {fields.get(b'M', '?')}"


class Session:
    """A blocking session."""

    def __init__(self, arguments, context=None):
        self.socket = socket.create_connection(("127.0.0.1", arguments.port), timeout=arguments.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            self.socket.sendall(SSL_REQUEST)
            if self.socket.recv(1) != b"S":
                raise Failed("no TLS")
            self.socket = context.wrap_socket(self.socket)
        self.buffer = b""
        self.socket.sendall(startup(arguments.user, arguments.database))
        while True:
            tag, body = self.read()
            if tag == b"R" and body[:4] == b"\0\0\0\3":
                self.socket.sendall(password(arguments.password))
            elif tag == b"E":
                raise Failed(error_text(body))
            elif tag == b"Z":
                return

    def exact(self, count):
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise Failed("connection closed")
            self.buffer += data
        head, self.buffer = self.buffer[:count], self.buffer[count:]
        return head

    def read(self):
        head = self.exact(5)
        return head[:1], self.exact(struct.unpack("!I", head[1:])[0] - 4)

    def simple(self, sql):
        self.socket.sendall(query(sql))
        problem = None
        while True:
            tag, body = self.read()
            if tag == b"E":
                problem = error_text(body)
            if tag == b"Z":
                if problem:
                    raise Failed(problem)
                return

    def close(self):
        self.socket.sendall(frame(b"X"))
        self.socket.close()


def idle(arguments):
    hard = max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], arguments.clients + 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = tls_context() if arguments.tls else None
    sessions = []
    for number in range(arguments.clients):
        try:
            session = Session(arguments, context)
            if arguments.select:
                session.simple("select 1")
        except (OSError, Failed) as problem:
            print(json.dumps({"error": f"client {number + 1}: {problem}"}), flush=True)
            sys.exit(1)
        sessions.append(session)
    print(json.dumps({"ready": len(sessions)}), flush=True)
    sys.stdin.read()
    for session in sessions:
        session.close()


def receive_rest(session):
    """Reads and drops everything up to ReadyForQuery, which is looked for at the end of what has come."""
    view = memoryview(bytearray(1 << 18))
    total, tail = 0, session.buffer[-200:]
    total += len(session.buffer)
    session.buffer = b""
    while not tail.endswith(READY):
        count = session.socket.recv_into(view)
        if count == 0:
            raise Failed("connection closed")
        total += count
        tail = (tail + bytes(view[max(0, count - 200):count]))[-200:]
    complete = tail.rfind(b"C\0\0\0")
    if complete < 0:
        raise Failed(f"no CommandComplete: {tail!r}")
    return total, tail[complete + 5:-6].split(b"\0")[0].decode()


def bulk(arguments):
    session = Session(arguments, tls_context() if arguments.tls else None)
    rows = arguments.mb * 10000
    started = time.monotonic()
    if arguments.what == "in":
        row = b"1234567\t1\t0\t" + b"x" * 87 + b"\n"
        block = frame(b"d", row * 82) * 128
        wanted = max(1, rows // (82 * 128))
        session.socket.sendall(query("copy bulk_in from stdin where false"))
        tag, body = session.read()
        if tag != b"G":
            raise Failed(error_text(body))
        for _ in range(wanted):
            session.socket.sendall(block)
        session.socket.sendall(frame(b"c"))
        _, tag = receive_rest(session)
        moved = wanted * len(block)
    else:
        table = f"(select * from bulk limit {rows})"
        sql = f"copy {table} to stdout" if arguments.what == "out" else f"select * from {table} as t"
        session.socket.sendall(query(sql))
        moved, tag = receive_rest(session)
        if tag != f"{'COPY' if arguments.what == 'out' else 'SELECT'} {rows}":
            raise Failed(f"{rows} rows wanted, server says {tag!r}")
    print(json.dumps({"bytes": moved, "seconds": time.monotonic() - started, "tag": tag}))
    session.close()


class Racer:
    """One client of a burst: logs in, asks once, notes when it was greeted and when the first row came, leaves."""

    def __init__(self, arguments, context, begin):
        self.arguments = arguments
        self.context = context
        self.begin = begin
        self.greeted = None
        self.first_row = None
        self.problem = None
        self.buffer = b""
        self.asked = False
        self.socket = None
        self.state = "new"

    def start(self, poll):
        self.begin = time.monotonic()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", self.arguments.port))
        self.state = "connecting"
        poll.register(self.socket, select.EPOLLOUT | select.EPOLLERR)
        return self.socket.fileno()

    def step(self, poll):
        """Goes on as far as it can; true when this client has finished."""
        try:
            if self.state == "connecting":
                error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise Failed(f"connect: errno {error}")
                if self.context:
                    self.socket.send(SSL_REQUEST)
                    self.state = "asked for TLS"
                else:
                    self.hello()
                poll.modify(self.socket, select.EPOLLIN)
                return False
            if self.state == "asked for TLS":
                if self.socket.recv(1) != b"S":
                    raise Failed("no TLS")
                poll.unregister(self.socket)
                self.socket = self.context.wrap_socket(self.socket, do_handshake_on_connect=False)
                poll.register(self.socket, select.EPOLLIN)
                self.state = "TLS"
            if self.state == "TLS":
                self.socket.do_handshake()
                self.hello()
            while True:
                data = self.socket.recv(65536)
                if not data:
                    raise Failed("connection closed")
                self.buffer += data
                if self.parse():
                    return True
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except (OSError, Failed) as problem:
            self.problem = str(problem)
            return True

    def hello(self):
        self.socket.send(startup(self.arguments.user, self.arguments.database))
        self.state = "session"

    def parse(self):
        at = 0
        while len(self.buffer) - at >= 5:
            tag = self.buffer[at:at + 1]
            end = at + 1 + struct.unpack_from("!I", self.buffer, at + 1)[0]
            if len(self.buffer) < end:
                break
            body = self.buffer[at + 5:end]
            at = end
            if tag == b"R" and body[:4] == b"\0\0\0\3":
                self.socket.send(password(self.arguments.password))
            elif tag == b"E":
                raise Failed(error_text(body))
            elif tag == b"D":
                self.first_row = time.monotonic()
            elif tag == b"Z" and not self.asked:
                self.asked = True
                self.greeted = time.monotonic()
                self.socket.send(query(self.arguments.sql))
            elif tag == b"Z":
                self.socket.send(frame(b"X"))
                return True
        self.buffer = self.buffer[at:]
        return False


def burst(arguments):
    context = tls_context() if arguments.tls else None
    poll = select.epoll()
    zero = time.monotonic() + 0.05
    waiting = []
    for number in range(arguments.clients):
        begin = zero + arguments.spread * number / arguments.clients
        heapq.heappush(waiting, (begin, number, Racer(arguments, context, begin)))
    running, finished = {}, []
    deadline = zero + arguments.spread + arguments.timeout
    while waiting or running:
        now = time.monotonic()
        if now > deadline:
            break
        while waiting and waiting[0][0] <= now:
            racer = heapq.heappop(waiting)[2]
            running[racer.start(poll)] = racer
        pause = min(deadline, waiting[0][0]) - time.monotonic() if waiting else deadline - time.monotonic()
        for descriptor, _ in poll.poll(max(0.0, pause)):
            racer = running.get(descriptor)
            if racer and racer.step(poll):
                try:
                    poll.unregister(descriptor)
                except (OSError, ValueError):
                    pass
                racer.socket.close()
                finished.append(running.pop(descriptor))
    problems = [racer.problem for racer in finished if racer.problem]
    problems += ["no answer in time"] * (len(running) + len(waiting))
    rows = [racer for racer in finished if racer.first_row]
    print(json.dumps({
        "milliseconds": sorted(1000 * (racer.first_row - racer.begin) for racer in rows),
        "greeted": sorted(1000 * (racer.greeted - racer.begin) for racer in rows),
        "total": 1000 * (max(racer.first_row for racer in rows) - zero) if rows else None,
        "problems": problems,
    }))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("load", choices=("idle", "bulk", "burst"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="bench")
    parser.add_argument("--database", default="bench")
    parser.add_argument("--password", default="bench-password")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--spread", type=float, default=0)
    parser.add_argument("--sql", default="select 1")
    parser.add_argument("--what", choices=("out", "in", "select"))
    parser.add_argument("--mb", type=int, default=100)
    arguments = parser.parse_args()
    try:
        {"idle": idle, "bulk": bulk, "burst": burst}[arguments.load](arguments)
    except (OSError, Failed) as problem:
        print(f"client.py {arguments.load}: {problem}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
