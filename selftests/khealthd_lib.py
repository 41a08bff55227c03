# SPDX-License-Identifier: GPL-2.0
"""
What khealthd's tests in Python share: its files, a helper that keeps what it was
told, sockets that do not read, and how tests are run.

Nothing depends on how long something takes: it is waited for, and only if it
never comes, a test fails. KHEALTHD_PATIENCE says after how many seconds.
"""

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

SYSCTL = "/proc/sys/kernel/khealthd/"
SYSFS = "/sys/kernel/khealthd/"
PATIENCE = int(os.environ.get("KHEALTHD_PATIENCE") or 60)
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


def monitors():
    """Those that this kernel has now: one in a module comes and goes."""
    return sorted(set(os.listdir(SYSFS)) - {"helper"})


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


def sockstat_mem(protocol):
    """Pages of a protocol's memory, as the kernel shows them."""
    for line in read("/proc/net/sockstat").splitlines():
        words = line.split()
        if words[0] == protocol + ":":
            return int(words[words.index("mem") + 1])
    raise AssertionError(f"no {protocol} in sockstat")


def mib(file, protocol, name):
    """One of the kernel's counters in a file such as snmp or netstat."""
    names, values = [line.split() for line in read(f"/proc/net/{file}").splitlines()
                     if line.startswith(protocol)]
    return int(values[names.index(name)])


def snmp(protocol, name):
    return mib("snmp", protocol, name)


def netstat(name):
    return mib("netstat", "TcpExt:", name)


def rcvq_drops():
    return netstat("TCPRcvQDrop") + netstat("TCPOFODrop") + netstat("OfoPruned")


def snmp6(name):
    return int(next(line.split()[1] for line in read("/proc/net/snmp6").splitlines()
                    if line.split()[0] == name))


def softnet_drops():
    return sum(int(line.split()[1], 16)
               for line in read("/proc/net/softnet_stat").splitlines())


class Saved:
    """A setting that is given its old value back."""

    def __init__(self, path, value):
        self.path = path
        self.old = read(path)
        if "[" in self.old:         # what is chosen of some
            self.old = self.old.partition("[")[2].partition("]")[0]
        write(path, value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        write(self.path, self.old)


# === Faults ===================================================================

FAULTS = "/sys/kernel/debug/"


@contextlib.contextmanager
def fault(kind, **values):
    """Let a fault happen."""
    base = f"{FAULTS}{kind}/"
    old = {name: read(base + name) for name in values}
    try:
        for name, value in values.items():
            write(base + name, value)
        yield
    finally:
        for name, value in old.items():
            write(base + name, value)


def kthreads(prefix):
    """Process numbers of the kernel threads with such a name."""
    for path in glob.glob("/proc/[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if read(path).startswith(prefix) and not read(path[:-4] + "cmdline"):
                yield int(path.split("/")[2])


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

    def needs_one_task(self):
        """It starts no other program, so that it can do its work if there is no task."""
        write(self.path, f"#!/bin/sh\nexec cat /proc/$$/environ >{self.dir}/alert.$KHEALTHD_SEQ")

    def _told(self, monitor):
        found = []
        for path in glob.glob(f"{self.dir}/alert.*"):
            with open(path, "rb") as f:
                env = dict(v.decode().split("=", 1)
                           for v in f.read().split(b"\0") if v)
            if env and monitor in (None, env["KHEALTHD_MONITOR"]):
                found.append(env)
        return sorted(found, key=lambda env: int(env["KHEALTHD_SEQ"]))

    def alerts(self, monitor=None):
        return [env for env in self._told(monitor) if env["KHEALTHD_EVENT"] != "test"]

    def tests(self, monitor):
        return [env for env in self._told(monitor) if env["KHEALTHD_EVENT"] == "test"]

    def all(self, monitor, event, **identity):
        """Those with these values."""
        return [env for env in self.alerts(monitor) if env["KHEALTHD_EVENT"] == event and
                all(env.get(f"KHEALTHD_{k.upper()}") == str(v) for k, v in identity.items())]

    def find(self, monitor, event, **identity):
        """The first alert with these values; waits for it."""
        return wait_for(lambda: self.all(monitor, event, **identity),
                        f"{monitor} {event} {identity}")[0]

    def events(self, monitor):
        return [env["KHEALTHD_EVENT"] for env in self.alerts(monitor)]

    def crossings(self, monitor):
        return sum(int(env["KHEALTHD_CROSSINGS"]) +
                   int(env["KHEALTHD_CROSSINGS_OTHERS"])
                   for env in self.alerts(monitor))

    def count(self, monitor, event, **identity):
        return len(self.all(monitor, event, **identity))


def all_told():
    """Helpers run one after the other: after this none of before does."""
    def tried():
        return count("helper/runs") + count("helper/start_failures")

    for monitor in monitors():
        alerts, before = count(f"{monitor}/alerts"), tried()
        write(f"{SYSFS}{monitor}/test", 1)
        wait_for(lambda m=monitor, n=alerts: count(f"{m}/alerts") > n, "a test alert")
        if read(SYSCTL + "helper"):
            wait_for(lambda n=before: tried() > n, "the helper")


def end_episodes():
    settings(quiet_ms=1)
    wait_for(lambda: all(read(f"{SYSFS}{m}/state") in ("ok", "off")
                         for m in monitors()), "all is well")


def flush():
    """One more alert of sock_rcvbuf: it takes along what waits for the next one."""
    settings(holdoff_ms=0)
    alerts = count("sock_rcvbuf/alerts")
    pair = Udp()
    while count("sock_rcvbuf/alerts") == alerts:
        pair.send(10)
    pair.close()
    end_episodes()


def episodes(monitor):
    return [dict(word.split("=") for word in line.split())
            for line in read(f"{SYSFS}{monitor}/episodes").splitlines()]


def is_short(monitor):
    return read(f"{SYSFS}{monitor}/state") != "ok"


def ends(helper, monitor, lost, **identity):
    """
    The episode ends, and those before it have, if somebody was slow. As many were refused
    in all of them as the kernel's own counter says. Words may have become one.
    """
    def refused():
        return sum(int(env.get("KHEALTHD_REFUSED", 0))
                   for event in ("low", "exhausted", "recovered")
                   for env in helper.all(monitor, event, **identity)
                   if env["KHEALTHD_STATE"] == "ok")

    end_episodes()
    helper.find(monitor, "recovered", **identity)
    with contextlib.suppress(AssertionError):
        wait_for(lambda: refused() >= lost, "")
    equal(refused(), lost, f"{monitor}: KHEALTHD_REFUSED")


def arrived():
    """
    Wait until what was sent on this machine has been received: on a busy one ksoftirqd
    does that, and this process may run before.
    """
    wait_for(lambda: not any(int(line.split()[11], 16) for line in
                             read("/proc/net/softnet_stat").splitlines()), "the packets")


def shrinks(helper, monitor, step, drops, **identity):
    """
    The space shrinks step by step, until something is refused, and 20 steps more.
    The kernel's own counter of drops says whether it is told in time, and not too
    early. Return how many were lost.
    """
    before = drops()
    for _ in range(100000):
        if is_short(monitor):
            break
        step()
        arrived()
    env = helper.find(monitor, "low", **identity)
    equal(drops(), before, f"{monitor}: the kernel's counter at low")
    true(env["KHEALTHD_FREE"] != "0", f"{monitor}: nothing is free at low")
    for _ in range(100000):
        told = helper.count(monitor, "exhausted", **identity)
        if drops() != before:
            break
        equal(told, 0, f"{monitor}: exhausted")
        step()
        arrived()
    helper.find(monitor, "exhausted", **identity)
    for _ in range(20):
        step()
    arrived()
    return drops() - before


# === Sockets ==================================================================

def cookie(sock):
    # Python lets a vsock socket have options of its own family only.
    with socket.socket(socket.AF_INET, fileno=os.dup(sock.fileno())) as any_family:
        return struct.unpack("Q", any_family.getsockopt(socket.SOL_SOCKET, SO_COOKIE,
                                                        8))[0]


def set_rcvbuf(sock, size):
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
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
        self.name = f"{os.path.basename(os.environ['KHEALTHD_DIR'])}.{Netns.names}"
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


def as_user(uid, function):
    """Run a function in a process of another user's. Return the process."""
    pid = os.fork()
    if not pid:
        try:
            os.setgid(uid)
            os.setuid(uid)
            function()
        finally:
            os._exit(0)
    return pid


def user_namespaces(n):
    """Become root of a user namespace, and enter @n network namespaces in turn."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(4, 1)                    # PR_SET_DUMPABLE: our files in /proc are ours
    if libc.unshare(0x10000000):        # CLONE_NEWUSER
        return
    write("/proc/self/uid_map", "0 65534 1")
    for i in range(n):
        if libc.unshare(0x40000000):    # CLONE_NEWNET
            return
        run("ip link set lo mtu 1500 up")
        yield i


class Links:
    """A netlink socket that hears of a namespace's links, and does not read."""

    def __init__(self, rcvbuf):
        self.space, self.changes = Netns(), 0
        with self.space:
            self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        set_rcvbuf(self.sock, rcvbuf)
        self.sock.bind((0, 1))      # RTMGRP_LINK

    def change(self):
        self.changes += 1
        run(f"ip -n {self.space.name} link set lo alias x{self.changes}")


class Router:
    """
    A network behind a router, which splits up packets that are larger than @mtu;
    sock sends to a host, b, that takes them in.
    """

    def __init__(self, mtu):
        self.a, self.r, self.b = Netns(), Netns(), Netns()
        a, r, b = self.a.name, self.r.name, self.b.name
        run(f"""set -e
        ip -n {a} link add a0 mtu 65535 type veth peer name r0 mtu 65535 netns {r}
        ip -n {r} link add r1 mtu {mtu} type veth peer name b0 mtu {mtu} netns {b}
        ip -n {a} addr add 10.1.0.1/24 dev a0; ip -n {r} addr add 10.1.0.2/24 dev r0
        ip -n {r} addr add 10.2.0.1/24 dev r1; ip -n {b} addr add 10.2.0.2/24 dev b0
        for l in "{a} a0" "{r} r0" "{r} r1" "{b} b0"; do
            set -- $l; ip -n $1 link set $2 up
        done
        ip -n {a} route add default via 10.1.0.2
        ip -n {b} route add default via 10.2.0.1
        ip netns exec {r} sysctl -q net.ipv4.ip_forward=1""")
        with self.a:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: may be split
        self.send(1)            # so that addresses are known

    def send(self, size):
        self.sock.sendto(b"x" * size, ("10.2.0.2", 9))

    def close(self):
        self.sock.close()
        for ns in (self.a, self.r, self.b):
            ns.delete()


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


def kill_helpers(directory):
    """Those in the directory, with what they started."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):      # gone meanwhile
            with open(path, "rb") as f:
                if directory.encode() in f.read():
                    os.killpg(int(path.split("/")[2]), signal.SIGKILL)


def run_test(test):
    directory = tempfile.mkdtemp(dir=os.environ["KHEALTHD_DIR"])
    saved = {f: read(SYSCTL + f) for f in os.listdir(SYSCTL)}
    try:
        settings(enabled=0)
        settings(helper="", holdoff_ms=0, repeat_ms=0, quiet_ms=1)
        settings(enabled=1)
        end_episodes()
        flush()
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
        try:
            write(SYSCTL + "helper", "")
            settings(holdoff_ms=0, repeat_ms=0)
            end_episodes()
            all_told()
        finally:
            for name, value in saved.items():
                write(SYSCTL + name, value)
            kill_helpers(directory)
            shutil.rmtree(directory, ignore_errors=True)


def need_guard():
    """Begin again below khealthd_guard, which puts the machine back as it was."""
    guard = os.path.dirname(os.path.abspath(__file__)) + "/khealthd_guard"
    if "KHEALTHD_DIR" not in os.environ:
        os.execv(guard, [guard, sys.executable, *sys.argv])


def main(functions):
    """Run the tests among them, or those that the command line names."""
    tests = {name[5:]: f for name, f in functions.items() if name.startswith("test_")}
    wanted = [w for w in sys.argv[1:] if w != "--show"]
    if unknown := [w for w in wanted if w not in tests]:
        print(functions["__doc__"].strip(), file=sys.stderr)
        sys.exit(f"\nunknown: {' '.join(unknown)}; there are {' '.join(tests)}"
                 if unknown != ["--help"] else 0)
    if not os.path.exists(SYSCTL + "backlog"):
        print("1..0 # SKIP this kernel has no khealthd for the receive path")
        return 4
    if os.geteuid():
        print("1..0 # SKIP must be root")
        return 4
    need_guard()

    tests = [f for name, f in tests.items() if not wanted or name in wanted]
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
