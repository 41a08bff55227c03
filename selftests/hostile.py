#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: hostile.py [TEST...]

khealthd when everything else goes wrong: no memory, injected faults, a system that
sleeps, CPUs, namespaces and modules that come and go, settings that change at
random. Alerts may come late, but they come, and the crossings that they tell of add
up to the crossings that were counted. TESTs are functions below, without test_.

Not for a machine that is needed, and so not run by run_kselftest.sh: it calls the OOM
killer, unplugs CPUs and freezes tasks. What it needs of the kernel beyond ./config is
not for everybody either: a test that lacks something is skipped, and names it.

KHEALTHD_CHURN says for how many seconds the settings change; 10 by default.
"""

import contextlib
import errno
import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from khealthd_lib import (FAULTS, Helper, Netns, Router, SYSFS, Saved, Udp, all_told,
                          cookie, count, end_episodes, episodes, equal, fault, flush,
                          kthreads, main, monitors, read, run, set_rcvbuf, settings,
                          true, wait_for, write)


def crossings():
    return {m: count(f"{m}/crossings") for m in monitors()}


def adds_up(helper, before):
    """Every crossing since then is in exactly one of the helper's alerts."""
    settings(holdoff_ms=0, repeat_ms=0)
    end_episodes()
    flush()
    all_told()
    for monitor, n in crossings().items():
        if monitor == "sock_rcvbuf":
            # Up to 32 alerts wait for the helper.
            wait_for(lambda m=monitor, all_of=n - before[monitor]:
                     helper.crossings(m) >= all_of, f"all crossings of {monitor}")
            equal(helper.crossings(monitor), n - before[monitor],
                  f"{monitor}: sum of crossings")
        # Some of the others may wait for the next alert.
        told = helper.crossings(monitor)
        true(told <= n - before[monitor], f"{monitor}: {told} crossings are too many")


def overload(helper):
    """One socket overflows, and it is told of."""
    settings(quiet_ms=3600000)
    pair = Udp()
    pair.send(300)
    helper.find("sock_rcvbuf", "exhausted", sock_cookie=cookie(pair.rx))
    pair.close()


# === Idle =====================================================================

def test_idle(helper):
    """When all is well the thread sleeps: no wake-up in 10 seconds of traffic."""
    end_episodes()
    all_told()
    pid = [p for p in kthreads("khealthd") if read(f"/proc/{p}/comm") == "khealthd"]
    equal(len(pid), 1, "threads")

    def switches():
        return [line for line in read(f"/proc/{pid[0]}/status").splitlines()
                if "ctxt_switches" in line]

    before = switches()
    pair = Udp()
    for _ in range(100):
        pair.send(5)
        pair.drain()
        time.sleep(0.1)
    pair.close()
    equal(switches(), before, "context switches")
    equal(helper.alerts(), [], "alerts")


# === Faults ===================================================================

def test_no_memory(helper):
    """An allocation fails in the thread or in what starts the helper: any one."""
    if not os.path.exists(FAULTS + "failslab"):
        return "wants CONFIG_FAILSLAB, _FAIL_PAGE_ALLOC, _FAULT_INJECTION_DEBUG_FS"
    before = crossings()
    # Each of these processes fails at its own nth allocation, once.
    with fault("failslab", probability=0, verbose=0, **{"ignore-gfp-wait": "N"}), \
         fault("fail_page_alloc", probability=0, verbose=0,
               **{"ignore-gfp-wait": "N", "min-order": 0}):
        for n in range(1, 13):
            for pid in [*kthreads("khealthd"), *kthreads("kworker/u")]:
                with contextlib.suppress(OSError):      # gone meanwhile
                    write(f"/proc/{pid}/task/{pid}/fail-nth", n)
            overload(helper)
            end_episodes()
        for pid in [*kthreads("khealthd"), *kthreads("kworker/u")]:
            with contextlib.suppress(OSError):
                write(f"/proc/{pid}/task/{pid}/fail-nth", 0)
    adds_up(helper, before)
    return None


@contextlib.contextmanager
def failing_start(error, times):
    base = FAULTS + "fail_function/"
    write(base + "inject", "khealthd_start_helper")
    try:
        write(base + "khealthd_start_helper/retval", hex(2 ** 64 - error))
        with fault("fail_function", probability=100, times=times, verbose=0):
            yield
    finally:
        write(base + "inject", "!khealthd_start_helper")


def test_start_fails(helper):
    """The helper cannot be started for a while: tried again. It is missing: not."""
    if not os.path.exists(FAULTS + "fail_function"):
        return "wants CONFIG_FAIL_FUNCTION, _FAULT_INJECTION_DEBUG_FS"
    before = crossings()
    retries, failures = count("helper/retries"), count("helper/start_failures")
    with failing_start(12, 3):          # ENOMEM
        overload(helper)
    equal(count("helper/retries"), retries + 3, "retries")
    equal(count("helper/start_failures"), failures, "failures")
    adds_up(helper, before)

    # It has sent a test alert for each monitor, as was done before the test began.
    wait_for(lambda: all(len(helper.tests(m)) == 2 for m in monitors()),
             "nothing waits any more")
    runs = count("helper/runs")
    with failing_start(2, 1):           # ENOENT
        write(SYSFS + "sock_rcvbuf/test", 1)
        wait_for(lambda: count("helper/start_failures") == failures + 1, "a failure")
    equal(count("helper/last_status"), -2, "status")
    equal(count("helper/retries"), retries + 3, "retries")
    equal(count("helper/runs"), runs, "runs")
    return None


def test_static_helper(helper):
    """CONFIG_STATIC_USERMODEHELPER: its program runs, or none, which is a failure."""
    kind = os.environ.get("KHEALTHD_STATIC")
    if not kind:
        return "KHEALTHD_STATIC does not say that this kernel has it"
    runs, failures = count("helper/runs"), count("helper/start_failures")
    if kind == "static-helper":
        Helper(helper.dir)
        shutil.copy(helper.path, "/run/static-helper")
        settings(helper="/nonexistent")
        write(SYSFS + "sock_rcvbuf/test", 1)
        wait_for(lambda: glob.glob(f"{helper.dir}/alert.*"), "the static helper")
        equal(count("helper/runs"), runs + 1, "runs")
        equal(count("helper/start_failures"), failures, "failures")
    else:
        write(SYSFS + "sock_rcvbuf/test", 1)
        wait_for(lambda: count("helper/start_failures") == failures + 1, "a failure")
        equal(count("helper/last_status"), -errno.ENOEXEC, "status")
        equal(count("helper/runs"), runs, "runs")
    return None


def test_oom(helper):
    """The OOM killer is at work."""
    before = crossings()
    hog = """
import mmap
with open("/proc/self/oom_score_adj", "w") as f:
    f.write("1000")
taken = []
while True:         # MAP_PRIVATE, MAP_ANONYMOUS, MAP_POPULATE
    taken.append(mmap.mmap(-1, 1 << 24, flags=0x8022))
"""
    with subprocess.Popen(["python3", "-c", hog]) as process:
        while process.poll() is None:
            overload(helper)
            end_episodes()
    equal(process.returncode, -signal.SIGKILL, "how the hog ended")
    adds_up(helper, before)


# === Asleep ===================================================================

def test_suspend(helper):
    """An episode ends about when processes are frozen: its helper runs all the same."""
    with contextlib.suppress(OSError):
        if "freeze" in read("/sys/power/state") and "freezer" in read("/sys/power/pm_test"):
            return suspend(helper)
    return "wants CONFIG_SUSPEND, _PM_DEBUG"


def suspend(helper):
    before, retries = crossings(), count("helper/retries")
    overload(helper)
    with Saved("/sys/module/suspend/parameters/pm_test_delay", 3), \
         Saved("/sys/power/pm_test", "freezer"):
        settings(quiet_ms=2000)
        write("/sys/power/state", "freeze")
    helper.find("sock_rcvbuf", "recovered")
    adds_up(helper, before)
    # One CPU is kept busy by the suspend test; so it depends whether it was tried
    # in the middle. That it is tried again is shown by the unit test too_early.
    print(f"# tried in vain: {count('helper/retries') - retries} time(s)")


# === Comings and goings =======================================================

def test_module(helper):
    """A module unloads while its socket's episode lasts."""
    if "af_packet" not in run("lsmod", check=False) and \
       subprocess.run(["modprobe", "af_packet"], check=False).returncode:
        return "packet sockets are built in, or not at all"
    before = crossings()
    sock = set_rcvbuf(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)),
                      16384)
    sock.bind(("lo", 0))
    pair = Udp(rcvbuf=1 << 20)
    pair.send(300)
    helper.find("sock_rcvbuf", "exhausted", family=int(socket.AF_PACKET))
    sock.close()
    pair.close()
    # With what holds it: ss(8) loads af_packet_diag.
    run("modprobe -r --remove-holders af_packet")
    true(f"family={int(socket.AF_PACKET)}" in read(SYSFS + "sock_rcvbuf/episodes"),
         "the episode ended too early")
    adds_up(helper, before)
    helper.find("sock_rcvbuf", "recovered")
    run("modprobe af_packet")
    return None


class Churn:
    """Threads that do something again and again, until they are told to end."""

    def __init__(self):
        self.end = threading.Event()
        self.failed = []
        self.threads = []
        self.rounds = {}

    def add(self, what):
        def repeat():
            name = what.__name__
            try:
                while not self.end.is_set():
                    what()
                    self.rounds[name] = self.rounds.get(name, 0) + 1
            except Exception as e:      # pylint: disable=broad-except
                self.failed.append(f"{name}: {e!r}")
        self.threads.append(threading.Thread(target=repeat))
        self.threads[-1].start()

    def run(self, seconds):
        self.end.wait(seconds)
        self.end.set()
        for thread in self.threads:
            thread.join()
        equal(self.failed, [], "what failed")


def flip_settings():
    low = random.randrange(1, 15)       # a ring's high watermark is 25 at most
    name, value = random.choice([
        ("enabled", random.choice((0, 1, 1))),
        ("quiet_ms", random.choice((1, 10, 200))),
        ("holdoff_ms", random.choice((0, 10, 200))),
        ("repeat_ms", random.choice((0, 10, 200))),
        *((m, random.choice(("0 0", f"{low} {low + 1}", f"{low} {low + 10}")))
          for m in monitors())])
    settings(**{name: value})
    time.sleep(0.01)


def overflow():
    pair = Udp(rcvbuf=random.choice((4096, 16384, 65536)))
    pair.send(200, random.choice((10, 100, 1000)))
    pair.drain()
    pair.send(200)
    pair.close()


def come_and_go():
    space = Netns()
    with space:
        pair = Udp(rcvbuf=8192)
    pair.send(100)
    pair.close()
    space.delete()


def ping():
    run("ping -q -f -c 300 -l 50 -s 1000 127.0.0.1", check=False)


def hotplug():
    online = random.choice(glob.glob("/sys/devices/system/cpu/cpu[1-9]*/online"))
    write(online, 0)
    time.sleep(0.05)
    write(online, 1)
    time.sleep(0.2)


def look():
    for path in glob.glob(SYSFS + "*/*"):
        if not path.endswith("/test"):
            with contextlib.suppress(OSError):
                read(path)
    time.sleep(0.05)


def test_churn(helper):
    """Settings, CPUs and namespaces change at random under traffic."""
    random.seed(1)
    before = crossings()
    churn = Churn()
    for what in (flip_settings, overflow, come_and_go, ping, look):
        churn.add(what)
    if glob.glob("/sys/devices/system/cpu/cpu[1-9]*/online"):
        churn.add(hotplug)
    churn.run(int(os.environ.get("KHEALTHD_CHURN") or 10))
    print(f"# rounds: {churn.rounds}")
    true(all(churn.rounds.values()), "something had no turn")
    settings(enabled=1, quiet_ms=1, sock_rcvbuf="12 25")
    adds_up(helper, before)
    for monitor in monitors():
        true(read(f"{SYSFS}{monitor}/state") in ("ok", "off"), f"{monitor} is stuck")


def test_hotplug(helper):
    """A CPU goes while its queue is short."""
    online = "/sys/devices/system/cpu/cpu1/online"
    if not os.path.exists(online):
        return "only one CPU, or no hotplug"
    router = Router(576)
    cpus = os.sched_getaffinity(0)
    with Saved("/proc/sys/net/core/netdev_max_backlog", 80):
        os.sched_setaffinity(0, {1})
        try:
            router.send(34000)
        finally:
            os.sched_setaffinity(0, cpus)
        equal(helper.find("backlog", "low")["KHEALTHD_CPU"], "1", "cpu")
        with Saved(online, 0):
            end_episodes()
            equal(episodes("backlog"), [], "episodes")
    helper.find("backlog", "recovered")
    router.close()
    return None


if __name__ == "__main__":
    sys.exit(main(globals()))
