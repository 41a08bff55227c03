# SPDX-License-Identifier: GPL-2.0
"""
What khealthd's tests in Python share: its files, a helper that keeps what it was
told, sockets that do not read, and how tests are run.

Nothing depends on how long something takes: it is waited for, and only if it
never comes, a test fails.
"""

import ctypes
import glob
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

SYSCTL = "/proc/sys/kernel/khealthd/"
SYSFS = "/sys/kernel/khealthd/"
MONITORS = ("skb_alloc", "backlog", "proto_mem", "sock_rcvbuf", "tcp_rcvbuf")
PATIENCE = 60
SO_COOKIE = 57
SO_RCVBUFFORCE = 33
SHOW = "--show" in sys.argv


# === Files ====================================================================

def read(path):
    with open(path, encoding="ascii") as f:
        return f.read().strip()


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(f"{text}\n")


def count(name):
    return int(read(SYSFS + name))


def settings(**values):
    for name, value in values.items():
        write(SYSCTL + name, value)


def run(command, check=True):
    return subprocess.run(command, shell=True, check=check, capture_output=True,
                          text=True).stdout


def wait_for(condition, what):
    for _ in range(PATIENCE * 50):
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"waited in vain: {what}")


def equal(is_value, should, what):
    if is_value != should:
        raise AssertionError(f"{what} is {is_value}, not {should}")


def true(value, what):
    if not value:
        raise AssertionError(what)


def snmp(protocol, name):
    names, values = [line.split() for line in read("/proc/net/snmp").splitlines()
                     if line.startswith(protocol)]
    return int(values[names.index(name)])


def sockstat_mem(protocol):
    """Pages of a protocol's memory, as the kernel shows them."""
    for line in read("/proc/net/sockstat").splitlines():
        words = line.split()
        if words[0] == protocol + ":":
            return int(words[words.index("mem") + 1])
    raise AssertionError(f"no {protocol} in sockstat")


class Saved:
    """A setting that is given its old value back."""

    def __init__(self, path, value):
        self.path = path
        self.old = read(path)
        write(path, value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        write(self.path, self.old)


# === Alerts ===================================================================

class Helper:
    """The helper, and what it was told since the test began."""

    def __init__(self, directory, more=""):
        self.dir = directory
        self.path = f"{directory}/helper"
        write(self.path, f"""#!/bin/sh
cat /proc/$$/environ >{directory}/tmp.$$
mv {directory}/tmp.$$ {directory}/alert.$KHEALTHD_SEQ
{more}""")
        os.chmod(self.path, 0o700)

    def _told(self, monitor):
        found = []
        for path in glob.glob(f"{self.dir}/alert.*"):
            with open(path, "rb") as f:
                env = dict(v.decode().split("=", 1)
                           for v in f.read().split(b"\0") if v)
            if monitor in (None, env["KHEALTHD_MONITOR"]):
                found.append(env)
        return sorted(found, key=lambda env: int(env["KHEALTHD_SEQ"]))

    def alerts(self, monitor=None):
        return [env for env in self._told(monitor) if env["KHEALTHD_EVENT"] != "test"]

    def tests(self, monitor):
        return [env for env in self._told(monitor) if env["KHEALTHD_EVENT"] == "test"]

    def find(self, monitor, event, **identity):
        """The first alert with these values; waits for it."""
        def look():
            for env in self.alerts(monitor):
                if env["KHEALTHD_EVENT"] == event and \
                   all(env.get(f"KHEALTHD_{k.upper()}") == str(v)
                       for k, v in identity.items()):
                    return env
            return None
        return wait_for(look, f"{monitor} {event} {identity}")

    def events(self, monitor):
        return [env["KHEALTHD_EVENT"] for env in self.alerts(monitor)]

    def crossings(self, monitor):
        return sum(int(env["KHEALTHD_CROSSINGS"]) for env in self.alerts(monitor))


def all_told():
    """Helpers run one after the other: after this none of before does."""
    def tried():
        return count("helper/runs") + count("helper/start_failures")

    for monitor in MONITORS:
        alerts, before = count(f"{monitor}/alerts"), tried()
        write(f"{SYSFS}{monitor}/test", 1)
        wait_for(lambda m=monitor, n=alerts: count(f"{m}/alerts") > n, "a test alert")
        if read(SYSCTL + "helper"):
            wait_for(lambda n=before: tried() > n, "the helper")


def end_episodes():
    settings(quiet_ms=1)
    wait_for(lambda: all(read(f"{SYSFS}{m}/state") in ("ok", "off")
                         for m in MONITORS), "all is well")


def offenders(monitor):
    return [dict(word.split("=") for word in line.split())
            for line in read(f"{SYSFS}{monitor}/offenders").splitlines()]


# === Sockets ==================================================================

def cookie(sock):
    # Python lets a vsock socket have options of its own family only.
    with socket.socket(socket.AF_INET, fileno=os.dup(sock.fileno())) as any_family:
        return struct.unpack("Q", any_family.getsockopt(socket.SOL_SOCKET, SO_COOKIE,
                                                        8))[0]


def set_rcvbuf(sock, size):
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    return sock


class Udp:
    """A receiver that does not read, and who sends to it."""

    def __init__(self, rcvbuf=16384):
        self.rx = set_rcvbuf(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), rcvbuf)
        self.rx.bind(("127.0.0.1", 0))
        self.tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.to = self.rx.getsockname()

    def send(self, n=1, size=100):
        for _ in range(n):
            self.tx.sendto(b"x" * size, self.to)

    def drain(self):
        self.rx.setblocking(False)
        try:
            while True:
                self.rx.recv(65536)
        except BlockingIOError:
            pass

    def close(self):
        self.rx.close()
        self.tx.close()


class Netns:
    """A network namespace; sockets that are opened within it are in it."""

    names = 0

    def __init__(self):
        Netns.names += 1
        self.name = f"khealthd{Netns.names}"
        run(f"ip netns add {self.name}; ip -n {self.name} link set lo up")
        self.inode = os.stat(f"/run/netns/{self.name}").st_ino

    def __enter__(self):
        self.here = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._enter(f"/run/netns/{self.name}")
        return self

    def __exit__(self, *_):
        self._enter(f"/proc/self/fd/{self.here}")
        os.close(self.here)

    @staticmethod
    def _enter(path):
        fd = os.open(path, os.O_RDONLY)
        true(not ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000), "setns")
        os.close(fd)

    def delete(self):
        run(f"ip netns del {self.name}")


# === Running tests ============================================================

def show(helper):
    """Print the first alert of each monitor's events."""
    seen = set()
    for env in helper.alerts():
        key = env["KHEALTHD_MONITOR"], env["KHEALTHD_EVENT"]
        if key in seen:
            continue
        seen.add(key)
        print(f"    {key[0]} {key[1]}:")
        for name in sorted(env):
            if name.startswith(("KHEALTHD_", "TROUBLED_")):
                print(f"        {name}={env[name]}")


def run_test(test):
    directory = tempfile.mkdtemp(prefix="khealthd.", dir="/tmp")
    saved = {f: read(SYSCTL + f) for f in os.listdir(SYSCTL)}
    try:
        settings(enabled=0)
        settings(helper="", holdoff_ms=0, repeat_ms=0, quiet_ms=1)
        settings(enabled=1)
        end_episodes()
        all_told()
        helper = Helper(directory)
        settings(helper=helper.path)
        all_told()
        settings(quiet_ms=3600000)
        skipped = test(helper)
        if SHOW:
            show(helper)
        return skipped
    finally:
        write(SYSCTL + "helper", "")
        settings(holdoff_ms=0, repeat_ms=0)
        end_episodes()
        all_told()
        for name, value in saved.items():
            write(SYSCTL + name, value)
        shutil.rmtree(directory, ignore_errors=True)


def main(functions):
    """Run the tests among them, or those that the command line names."""
    if not os.path.exists(SYSCTL + "backlog"):
        print("1..0 # SKIP this kernel has no khealthd for the receive path")
        return 4
    if os.geteuid():
        print("1..0 # SKIP must be root")
        return 4

    tests = [f for name, f in functions.items() if name.startswith("test_")]
    wanted = [w for w in sys.argv[1:] if w != "--show"]
    if wanted:
        tests = [f for f in tests if f.__name__[5:] in wanted]
    failed = 0
    print("TAP version 13")
    print(f"1..{len(tests)}")
    for number, test in enumerate(tests, 1):
        name = f"{test.__name__[5:]}: {test.__doc__}"
        try:
            skipped = run_test(test)
            print(f"ok {number} {name}" + (f" # SKIP {skipped}" if skipped else ""))
        except Exception:       # pylint: disable=broad-except
            failed += 1
            print("# " + traceback.format_exc().strip().replace("\n", "\n# "))
            print(f"not ok {number} {name}")
        sys.stdout.flush()
    return 1 if failed else 0
