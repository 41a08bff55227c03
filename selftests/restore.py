#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: restore.py [TEST...]

khealthd: the other tests put the machine back as it was. Each is started, and killed
in the middle; then settings, network namespaces, links, files and processes are
compared with those before. TESTs are functions below, without test_.
"""

import contextlib
import glob
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from khealthd_lib import (SYSCTL, equal, main, read, run, settings, true, wait_for,
                          write)

HERE = os.path.dirname(os.path.abspath(__file__))

# What no test sets, and what is not the default either.
ODD = dict(enabled=0, helper="/nonexistent/helper", helper_timeout_ms=12345,
           holdoff_ms=2345, quiet_ms=3456, repeat_ms=4567, sock_rcvbuf="12 34")


# === How the machine is =======================================================

def files(*patterns):
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def content(path):
    try:
        return read(path)
    except (OSError, UnicodeDecodeError):
        return None


def processes(words=rb"OUTER_DIR|DIR|SEQ"):
    """All that has to do with the tests: they have KHEALTHD_DIR, a helper _SEQ."""
    found = {}
    for path in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            with open(path + "/environ", "rb") as env, open(path + "/cmdline", "rb") as line:
                if re.search(rb"KHEALTHD_(%b)=" % words, env.read()):
                    found[path] = line.read()
    return found


LISTS = {
    "files": lambda: files(*(f"{folder}/*" for folder in (
        "/run", "/run/netns", "/tmp", "/var/tmp", "/var/lib", "/root", "/dev/shm",
        "/sys/kernel/tracing/instances"))),
    "links": lambda: sorted(os.listdir("/sys/class/net")),
    "processes": processes,
}

SETTINGS = (
    SYSCTL + "*", "/proc/sys/net/core/*", "/proc/sys/net/ipv[46]/*",
    "/proc/sys/net/ipv[46]/neigh/default/gc_*", "/proc/sys/net/netfilter/*",
    "/proc/sys/net/sctp/*", "/proc/sys/fs/file-max", "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/threads-max", "/sys/class/net/lo/queues/*/*",
    "/sys/devices/system/cpu/cpu*/online", "/sys/kernel/debug/fail*/*",
    "/sys/kernel/tracing/events/*/enable", "/sys/kernel/tracing/tracing_on",
    "/sys/module/suspend/parameters/*", "/sys/power/pm_test")


def machine():
    """Everything that a test may change, by its name."""
    return {**{path: content(path) for path in files(*SETTINGS)},
            **{name: what() for name, what in LISTS.items()}}


def machine_before():
    """The same; but a helper that runs for an alert of before is gone soon."""
    return {**machine(), "processes": processes(rb"OUTER_DIR|DIR")}


def is_as(before, after_what):
    """Wait until it is: the kernel takes namespaces and processes apart by and by."""
    now = machine()
    different = {name for name in before.keys() | now.keys()
                 if before.get(name) != now.get(name)}

    def same():
        now.update({name: LISTS.get(name, lambda n=name: content(n))()
                    for name in different})
        return all(before.get(name) == now[name] for name in different)

    try:
        wait_for(same, "")
    except AssertionError:
        lines = [f"{name} was {before.get(name)}, is {now[name]}"
                 for name in sorted(different) if before.get(name) != now[name]]
        raise AssertionError("\n".join([f"after {after_what}:", *lines])) from None


# === Killing tests ============================================================

# What the last test printed: no pipe, for somebody it leaves might keep that open.
output = tempfile.TemporaryFile("w+")       # pylint: disable=consider-using-with


def said():
    output.seek(0)
    return output.read()


def start(command):
    """Start a test; it is not below our guard, but takes its own."""
    program, *arguments = command.split()
    env = {**os.environ, "KHEALTHD_OUTER_DIR": os.environ["KHEALTHD_DIR"]}
    del env["KHEALTHD_DIR"]
    env.pop("KHEALTHD_TEST_DIR", None)      # to fill the page cache takes a minute
    # What a shell without job control puts into the background would ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output.seek(0)
    output.truncate()
    return subprocess.Popen([os.path.join(HERE, program), *arguments], cwd=HERE, env=env,
                            stdout=output, stderr=output)


def look(what):
    """A file's content, the files that match, or the processes of that name."""
    if what.startswith("/"):
        return files(what) if "*" in what else content(what)
    return run(f"pgrep -x {what}", check=False)


@contextlib.contextmanager
def in_the_middle(command, what):
    """Start a test and wait until it has changed that. Yields None if it is skipped."""
    was = look(what)
    if was is None:
        yield None                      # this kernel does not have it
        return
    with start(command) as process:
        # It changes that, perhaps for a moment only, or ends.
        while (now := look(what)) == was and process.poll() is None:
            time.sleep(0.02)
        if now != was:
            yield process
        else:
            true("# SKIP" in said(), f"{command} did not change {what}:\n{said()}")
            yield None


def child_of(pid):
    return int(run(f"pgrep -P {pid}").split()[0])


def put_back(*cases):
    """Kill tests in the middle, by turns. Return why if none of them could be run."""
    done = 0
    settings(**ODD)
    before = machine_before()
    for (command, what), sig in zip(cases, itertools.cycle((signal.SIGTERM, signal.SIGINT))):
        with in_the_middle(command, what) as process:
            if process:
                process.send_signal(sig)
                equal(process.wait(), -sig, f"how {command} ended")
                done += 1
        is_as(before, f"{command}, {what}, {sig.name}")
    return None if done else "they are skipped here"


def test_rcvpath(_):
    """While limits are low, and namespaces are there."""
    return put_back(
        ("rcvpath.py repeat", SYSCTL + "repeat_ms"),
        ("rcvpath.py namespaces", "/run/netns/*"),
        ("rcvpath.py backlog", "/proc/sys/net/core/netdev_max_backlog"),
        ("rcvpath.py two_protocols", "/proc/sys/net/ipv4/udp_mem"))


def test_hostile(_):
    """While everything changes, memory is short, and faults are injected."""
    return put_back(
        ("hostile.py churn", "/run/netns/*"),
        ("hostile.py oom", SYSCTL + "helper"),
        ("hostile.py no_memory", "/sys/kernel/debug/failslab/ignore-gfp-wait"),
        ("hostile.py start_fails", "/sys/kernel/debug/fail_function/inject"))


def test_shell(_):
    """While other programs are at work."""
    return put_back(
        ("quiet.sh", "iperf3"),
        ("quiet.sh", SYSCTL + "enabled"),
        ("ynl.sh", "/run/khealthd.*/alerts"),
        ("ynl.sh", "/run/khealthd.*/alerts"))


def test_c(_):
    """While a helper hangs, or while the kernel is traced."""
    return put_back(
        ("khealthd_test -t helper_hangs", SYSCTL + "helper_timeout_ms"),
        ("khealthd_test -t storm", SYSCTL + "holdoff_ms"),
        ("khealthd_netlink_test -t helper_hangs", SYSCTL + "helper"),
        ("khealthd_netlink_test -t message_is_built", "/sys/kernel/tracing/instances/*"),
        ("khealthd_latency", SYSCTL + "holdoff_ms"),
        ("khealthd_latency", SYSCTL + "quiet_ms"))


def test_crash(_):
    """When the test itself is killed by somebody else."""
    settings(**ODD)
    before = machine_before()
    for command, what in (("rcvpath.py namespaces", "/run/netns/*"),
                          ("khealthd_test -t helper_hangs", SYSCTL + "helper_timeout_ms")):
        with in_the_middle(command, what) as process:
            os.kill(child_of(process.pid), signal.SIGKILL)
            equal(process.wait(), -signal.SIGKILL, f"how {command} ended")
        is_as(before, command)


def test_failure(helper):
    """When a test fails that tidies nothing up."""
    settings(**ODD)
    before = machine_before()
    write(f"{helper.dir}/fails.py", f"""#!/usr/bin/python3
import contextlib, os, subprocess, sys
sys.path.insert(0, "{HERE}")
from khealthd_lib import Helper, Netns, Saved, SYSFS, main, settings, wait_for, write

def test_fails(helper):
    Netns()
    for path, value in (("/proc/sys/net/core/netdev_max_backlog", 77),
                        ("/sys/class/net/lo/queues/rx-0/rps_cpus", 2),
                        ("/sys/devices/system/cpu/cpu1/online", 0),
                        ("/sys/power/pm_test", "freezer")):
        with contextlib.suppress(OSError):      # not in this kernel
            Saved(path, value)
    subprocess.Popen(["sleep", "98763"], start_new_session=True)
    Helper(helper.dir, "touch {helper.dir}/hangs; exec sleep 98763")
    write(SYSFS + "sock_rcvbuf/test", 1)
    wait_for(lambda: os.path.exists("{helper.dir}/hangs"), "the helper")
    raise AssertionError("it is to fail")

sys.exit(main(globals()))
""")
    os.chmod(f"{helper.dir}/fails.py", 0o700)
    with start(f"{helper.dir}/fails.py") as process:
        equal(process.wait(), 1, "how it ended")
    true("it is to fail" in said(), said())
    os.unlink(f"{helper.dir}/hangs")
    os.unlink(f"{helper.dir}/fails.py")
    is_as(before, "a test that fails")


def test_itself(_):
    """When this is killed while it runs another: a guard below a guard."""
    if "KHEALTHD_OUTER_DIR" in os.environ:
        return put_back(("rcvpath.py namespaces", "/nonexistent*"))
    return put_back(("restore.py itself", "/run/netns/*"))


def test_killed_guard(_):
    """What cannot be put back after SIGKILL does not make the next run fail."""
    settings(**ODD)
    before = machine_before()
    for command, what in (("rcvpath.py namespaces", "/run/netns/*"),
                          ("khealthd_test -t helper_hangs", SYSCTL + "helper_timeout_ms")):
        with in_the_middle(command, what) as process:
            process.kill()
        with start(command) as process:
            equal(process.wait(), 0, f"how the next run of {command} ended")
        settings(**ODD)
        is_as(before, f"{command} after SIGKILL")


if __name__ == "__main__":
    sys.exit(main(globals()))
