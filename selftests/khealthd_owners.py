# SPDX-License-Identifier: GPL-2.0
"""
What the tests of the second series share: for each data structure outside of the
receive path, the same is to be shown.
"""

import contextlib
import functools
import os
import shutil
import socket
import time

from khealthd_lib import (Netns, SYSFS, all_told, count, equal, read, run, settings, true)


def needs(monitor, *programs):
    """Skip a test without the monitor, or without the programs that it runs."""
    def decorate(test):
        @functools.wraps(test)
        def maybe(helper):
            if monitor == "conntrack":
                run("modprobe -q nf_conntrack", check=False)
            if not os.path.exists(SYSFS + monitor):
                return f"this kernel has no monitor {monitor}"
            for program in programs:
                if not shutil.which(program):
                    return f"there is no {program}"
            return test(helper)
        return maybe
    return decorate


def state(monitor):
    return read(f"{SYSFS}{monitor}/state")


def step_until(done, step, what):
    """Take a step again and again until that has happened."""
    for _ in range(5000):
        if done():
            return
        step()
    raise AssertionError(f"never: {what}")


def until(monitor, wanted, step):
    """The same, until the monitor is in that state."""
    step_until(lambda: state(monitor) == wanted, step, f"{monitor} {wanted}")


@contextlib.contextmanager
def stays_ok(monitor, what):
    """In this context there is not a single crossing."""
    before = count(f"{monitor}/crossings")
    yield
    equal(state(monitor), "ok", f"state, {what}")
    equal(count(f"{monitor}/crossings"), before, f"crossings, {what}")


def is_low(helper, monitor, code, **identity):
    """The helper hears of it, and in the words of that monitor."""
    env = helper.find(monitor, "low", **identity)
    equal(env["TROUBLED_DS"], str(code), "TROUBLED_DS")
    equal(env["KHEALTHD_REFUSED"], "0", "refused at low")
    equal(count(monitor + "/code"), code, "the code in sysfs")
    equal(env["KHEALTHD_UNIT"], read(f"{SYSFS}{monitor}/unit"), "unit")
    return env


def order(helper, monitor):
    """In which order the events came."""
    equal(helper.events(monitor), ["low", "exhausted", "recovered"], "events")


def is_short_for_good(monitor):
    """Nothing comes any more, but it is full: it is read again, and goes on."""
    settings(quiet_ms=1)
    time.sleep(0.5)
    all_told()
    true(state(monitor) != "ok", "recovered too early")
    settings(quiet_ms=3600000)


class Log:
    """The kernel's log from here on."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)
        self.text = ""

    def has(self, text):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.text += os.read(self.fd, 8192).decode()
        return text in self.text


CT_MAX = "/proc/sys/net/netfilter/nf_conntrack_max"
CT_BUCKETS = "/proc/sys/net/netfilter/nf_conntrack_buckets"


class Tracked:
    """A network namespace whose connections are tracked."""

    def __init__(self):
        self.space = Netns()
        self.inside = f"ip netns exec {self.space.name}"
        self.port = 1000
        run(f"""{self.inside} nft -f - <<'EOT'
            table inet khealthd {{
                chain input {{
                    type filter hook input priority 0
                    ct state new accept
                }}
            }}
EOT""")

    def add(self, n, zone=0):
        """Connections that are up, and that the kernel does not evict for new ones."""
        lines = "".join(
            f"-A -t 600 -u SEEN_REPLY,ASSURED -s 10.0.0.1 -d 10.0.0.2 -p udp "
            f"--sport {self.port + i} --dport 53 {f'-w {zone}' if zone else ''}\n"
            for i in range(n))
        path = f"{os.environ['KHEALTHD_DIR']}/connections"
        with open(path, "w", encoding="ascii") as f:
            f.write(lines)
        run(f"{self.inside} conntrack -R {path}")
        if not zone:
            self.port += n

    def count(self):
        return int(run(f"{self.inside} conntrack -C"))

    def counter(self, name):
        return sum(int(word.partition("=")[2])
                   for word in run(f"{self.inside} conntrack -S").split()
                   if word.startswith(name + "="))

    def send(self, n=1):
        """Open connections that get no answer. Return how many packets are dropped."""
        dropped = 0
        with self.space, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(n):
                self.port += 1
                try:
                    sock.sendto(b"x", ("127.0.0.1", self.port))
                except PermissionError:
                    dropped += 1
        return dropped
