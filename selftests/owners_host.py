#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: owners_host.py [--show] [TEST...]

khealthd: a real overflow of what the machine has of open files and tasks; see
owners.py.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import subprocess
import sys

from khealthd_lib import (Saved, count, end_episodes, equal, main, read, run, true,
                          wait_for, write)
from khealthd_owners import (is_low, is_short_for_good, needs, order, state,
                             stays_ok, step_until, until)

NOBODY = 65534
AS_NOBODY = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"


class Nobody:
    """A user's process that takes more and more of something, and counts refusals."""

    def __init__(self, take, error, nproc=20000, before=None):
        self.ours, theirs = socket.socketpair()
        self.refused = 0
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        try:
            if before:
                before()
            resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
            resource.setrlimit(resource.RLIMIT_NPROC, (nproc, nproc))
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            self.ours.close()
            taken = []
            while theirs.recv(1):
                try:
                    taken.append(take())
                    theirs.send(b"+")
                except OSError as e:
                    theirs.send(b"-" if e.errno == error else b"?")
        finally:
            os._exit(0)

    def take(self, n=1):
        for _ in range(n):
            self.ours.send(b"x")
            answer = self.ours.recv(1)
            true(answer in b"+-", "another error than the one that was expected")
            self.refused += answer == b"-"

    def end(self):
        self.ours.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def stressed(arguments, limits=""):
    """In this context stress-ng is at work, as a user."""
    with subprocess.Popen(f"cd /tmp && exec {limits} {AS_NOBODY} stress-ng --quiet "
                          f"--timeout 600 {arguments}", shell=True) as process:
        try:
            yield
        finally:
            process.terminate()


# === files ====================================================================

FILE_MAX = "/proc/sys/fs/file-max"


def open_files():
    return int(read("/proc/sys/fs/file-nr").split()[0])


def open_null():
    return os.open("/dev/null", os.O_RDONLY)


@needs("files")
def test_files(helper):
    """A user opens all files that the machine may have; root may open more."""
    limit = open_files() + 1500
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
    with Saved(FILE_MAX, limit):
        nobody = Nobody(open_null, errno.ENFILE)
        with stays_ok("files", "four fifths full"):
            nobody.take(limit * 4 // 5 - open_files())
        until("files", "low", nobody.take)
        equal(nobody.refused, 0, "ENFILE at low")
        env = is_low(helper, "files", 32)
        equal(env["KHEALTHD_CAPACITY"], str(limit), "capacity")
        true("KHEALTHD_NETNS" not in env, "files belong to no namespace")
        # Root goes beyond the limit.
        mine = []
        while open_files() <= limit + 100:
            mine.append(open_null())
        is_short_for_good("files")
        equal(state("files"), "low", "state beyond the limit")
        nobody.take(5)
        equal(nobody.refused, 5, "ENFILE")
        helper.find("files", "exhausted")
        nobody.end()
        for fd in mine:
            os.close(fd)
        end_episodes()
        env = helper.find("files", "recovered")
        equal(env["KHEALTHD_REFUSED"], "5", "refused")
        true(int(env["KHEALTHD_FREE"]) > 1000, "free after all")
        order(helper, "files")


@needs("files", "stress-ng", "setpriv")
def test_files_stress(helper):
    """stress-ng opens files, as a user."""
    limit = open_files() + 2000
    with Saved(FILE_MAX, limit):
        with stressed("--open 1 --open-max 4000", "prlimit --nofile=5000"):
            helper.find("files", "exhausted")
            wait_for(lambda: open_files() > limit * 9 // 10, "file-nr near file-max")
        end_episodes()
        helper.find("files", "recovered")


# === threads ==================================================================

def tasks():
    return int(read("/proc/loadavg").split()[3].partition("/")[2])


def start_task():
    """Start a thread that does nothing, for as long as its process is there."""
    libc = ctypes.CDLL(None)
    error = libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None)
    if error:
        raise OSError(error, "pthread_create")


def overflow_tasks(helper, capacity):
    """A user starts tasks until there can be no more."""
    helper.needs_one_task()
    nobody = Nobody(start_task, errno.EAGAIN)
    with stays_ok("threads", "three quarters full"):
        nobody.take(capacity * 3 // 4 - tasks())
    until("threads", "low", nobody.take)
    equal(nobody.refused, 0, "EAGAIN at low")
    env = is_low(helper, "threads", 33)
    equal(env["KHEALTHD_CAPACITY"], str(capacity), "capacity")
    is_short_for_good("threads")
    retries = count("helper/retries")
    step_until(lambda: nobody.refused, nobody.take, "EAGAIN")
    equal(state("threads"), "exhausted", "state")
    # Nor is there one for the helper, until somebody makes room; or some task, such as
    # the helper before, has just ended.
    wait_for(lambda: count("helper/retries") > retries or
             helper.all("threads", "exhausted"), "the helper is tried again")
    retried = count("helper/retries") > retries
    nobody.end()
    helper.find("threads", "exhausted")
    end_episodes()
    env = helper.find("threads", "recovered")
    true(int(env["KHEALTHD_REFUSED"]) >= nobody.refused + retried, "refused")
    true(int(env["KHEALTHD_FREE"]) > 100, "free after all")
    order(helper, "threads")


@needs("threads")
def test_threads(helper):
    """Tasks reach threads-max."""
    limit = tasks() + 200
    with Saved("/proc/sys/kernel/threads-max", limit):
        overflow_tasks(helper, limit)


@needs("threads")
def test_threads_pids(helper):
    """Pids reach pid_max, of which 300 are reserved."""
    limit = tasks() + 200
    with Saved("/proc/sys/kernel/pid_max", limit + 300):
        overflow_tasks(helper, limit)


@needs("threads")
def test_threads_rlimit(_):
    """A user reaches a limit of his own: that is nobody else's trouble."""
    with stays_ok("threads", "RLIMIT_NPROC"):
        nobody = Nobody(start_task, errno.EAGAIN, nproc=5)
        nobody.take(10)
        true(nobody.refused, "no EAGAIN")
        nobody.end()


@needs("threads")
def test_threads_namespace(_):
    """A pid namespace reaches a limit of its own: likewise."""
    if [int(n) for n in os.uname().release.split(".")[:2]] < [6, 14]:
        return "this kernel has one pid_max for all"

    def unshare():
        if ctypes.CDLL(None).unshare(0x20020000):       # CLONE_NEWPID, CLONE_NEWNS
            raise OSError
        if os.fork():
            os.wait()
            os._exit(0)
        run("mount --make-rprivate / && mount -t proc none /proc")
        write("/proc/sys/kernel/pid_max", 310)

    with stays_ok("threads", "pid_max of a namespace"):
        nobody = Nobody(start_task, errno.EAGAIN, before=unshare)
        nobody.take(320)
        true(nobody.refused, "no EAGAIN")
        nobody.end()
    return None


@needs("threads", "stress-ng", "setpriv")
def test_threads_stress(helper):
    """stress-ng starts threads, as a user."""
    helper.needs_one_task()
    with Saved("/proc/sys/kernel/threads-max", tasks() + 200):
        with stressed("--pthread 1 --pthread-max 1000"):
            helper.find("threads", "exhausted")
        end_episodes()
        helper.find("threads", "recovered")


if __name__ == "__main__":
    sys.exit(main(globals()))
