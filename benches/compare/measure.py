"""What a process costs: processor time, private memory, system calls."""

import os
import re
import signal
import subprocess
import tempfile
import time


def cpu_seconds(pid):
    """User and system time of all threads of a process, in seconds.

    The scheduler's own count of nanoseconds where the kernel has it; /proc/PID/stat otherwise, in ticks of 10 ms.
    Threads that have ended are only in the latter, so a process that loses threads is read there.
    """
    ticks = stat_seconds(pid)
    try:
        nanoseconds = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as text:
                nanoseconds += int(text.read().split()[0])
    except OSError:
        return ticks
    exact = nanoseconds / 1e9
    return exact if abs(exact - ticks) < 0.05 else ticks


def stat_seconds(pid):
    """utime + stime of /proc/PID/stat."""
    with open(f"/proc/{pid}/stat") as text:
        fields = text.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_kib(pid):
    """Memory that only this process has and has written to."""
    with open(f"/proc/{pid}/smaps_rollup") as text:
        return int(re.search(r"^Private_Dirty:\s+(\d+) kB", text.read(), re.M).group(1))


class Strace:
    """Counts the system calls of a running process between start and stop."""

    def __init__(self, pid):
        self.output = tempfile.NamedTemporaryFile(prefix="strace.")
        self.process = subprocess.Popen(
            ["strace", "-c", "-f", "-q", "-p", str(pid), "-o", self.output.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        deadline = time.monotonic() + 10
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"strace ended: {self.process.stderr.read().strip()}")
            with open(f"/proc/{pid}/status") as text:
                if not re.search(r"^TracerPid:\s+0$", text.read(), re.M):
                    break
            if time.monotonic() > deadline:
                raise RuntimeError(f"strace did not attach to {pid}")
            time.sleep(0.02)
        time.sleep(0.3)

    def stop(self):
        """A dictionary: call → how often."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        counts = {}
        with open(self.output.name) as text:
            for line in text:
                fields = line.split()
                if len(fields) >= 5 and re.fullmatch(r"[\d.]+", fields[0]) and fields[-1] != "total":
                    counts[fields[-1]] = int(fields[3])
        return counts


SENDS = ("sendto", "sendmsg", "sendmmsg", "write", "writev")
RECEIVES = ("recvfrom", "recvmsg", "recvmmsg", "read", "readv")
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select")


def syscall_groups(counts):
    """Sorts counts by call into sends, receives, waits, futex, epoll_ctl and the rest."""
    groups = {"send": 0, "recv": 0, "wait": 0, "futex": 0, "epoll_ctl": 0, "other": 0}
    for call, count in counts.items():
        if call in SENDS:
            groups["send"] += count
        elif call in RECEIVES:
            groups["recv"] += count
        elif call in WAITS:
            groups["wait"] += count
        elif call in ("futex", "epoll_ctl"):
            groups[call] += count
        else:
            groups["other"] += count
    groups["all"] = sum(counts.values())
    return groups
