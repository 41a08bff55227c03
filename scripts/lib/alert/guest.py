# SPDX-License-Identifier: GPL-2.0
"""The world in a guest: a machine with khealthd, and programs that are not ours."""

import os
import subprocess

from alert import world
from alert.world import SYSCTL, SYSFS, read, run, wait_for, write_kernel


def start_journald():
    os.makedirs("/run/systemd/journal", exist_ok=True)
    subprocess.Popen(["/lib/systemd/systemd-journald"])     # pylint: disable=R1732
    wait_for(lambda: os.path.exists("/run/systemd/journal/socket") and
             run("journalctl -q -n 1", check=False).returncode == 0, "journald")
    os.symlink("/run/systemd/journal/dev-log", "/dev/log")


def build(build_dir, srctree, folder):
    run([f"{world.TOP}/scripts/lib/distro-guest", folder])
    run(f"make -s -C {world.TOP}/tools/khealthd srctree={srctree} O={build_dir} install")
    run("systemd-sysusers /usr/lib/sysusers.d/khealthd.conf")
    run("/lib/systemd/systemd-sysctl /usr/lib/sysctl.d/60-khealthd.conf")
    start_journald()


def settings(**values):
    for name, value in values.items():
        write_kernel(SYSCTL + name, value)


def state():
    return read(SYSFS + "sock_rcvbuf/state").strip()
