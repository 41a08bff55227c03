# SPDX-License-Identifier: GPL-2.0
"""
A machine to install on, out of this one: everything that is written is in a
namespace of its own, and gone with it.
"""

import os
import signal
import subprocess
import sys

from alert import world
from alert.world import run, write


def enter(argv):
    """Start this program again, in namespaces, which are gone however we end."""
    if os.geteuid():
        sys.exit(f"{os.path.basename(argv[0])}: root is needed, for namespaces of its own")
    # unshare itself does not listen to signals while its child runs.
    with subprocess.Popen(["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork",
                           "--kill-child", "--mount-proc", sys.executable, argv[0], "--inside",
                           *argv[1:]]) as child:
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(number, lambda *_: child.kill())
        sys.exit(1 if child.wait() else 0)


def over(path, scratch):
    """Let path be written to, without a trace."""
    name = path.strip("/").replace("/", "-")
    for part in "upper", "work":
        os.makedirs(f"{scratch}/{name}-{part}")
    run(["mount", "-t", "overlay", "overlay", "-o",
         f"lowerdir={path},upperdir={scratch}/{name}-upper,workdir={scratch}/{name}-work", path])


# A mail system that takes what it is given, or does not, and keeps it in a mbox.
SENDMAIL = """
[ ! -e /run/t.mail-dead ] || exit 75
[ ! -e /run/t.mail-hangs ] || sleep 1000
mail=$(cat)
exec 9>>/var/mail/root
flock 9
printf 'From root Thu Jan  1 00:00:00 1970\\nReceived: by the test\\n%s\\n\\n' "$mail" >&9
"""


def build(build_dir, srctree, folder):
    scratch = "/run"
    for path in "/run", "/var/lib", "/var/mail", "/tmp":
        if world.TOP.startswith(path + "/") or build_dir.startswith(path + "/") or \
           srctree.startswith(path + "/"):
            continue            # what is below stays where it is
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path])
    os.makedirs("/run/new", exist_ok=True)
    run(["mount", "-t", "tmpfs", "tmpfs", "/run/new"])
    scratch = "/run/new"
    for path in "/etc", "/usr":
        over(path, scratch)
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/dev/shm"])
    run("mkdir -p /run/new/dev /var/mail /run/netns && "
        "for f in null zero full random urandom tty; do "
        "touch /run/new/dev/$f; mount --bind /dev/$f /run/new/dev/$f; done; "
        "mkdir /run/new/dev/shm /run/new/dev/pts; mount --bind /dev/pts /run/new/dev/pts; "
        "ln -s /proc/self/fd /run/new/dev/fd; ln -s pts/ptmx /run/new/dev/ptmx; "
        "mount --rbind /run/new/dev /dev")
    run("ip link set lo up")
    run("hostname demo.example")
    if folder:
        run(f"cp -a {folder}/usr/bin/. /usr/bin/; cp -a {folder}/usr/share/prometheus /usr/share/")
    write("/usr/sbin/sendmail", "#!/bin/sh\n" + SENDMAIL, 0o755)
    run(f"make -s -C {world.TOP}/tools/khealthd srctree={srctree} O={build_dir} install")
    run("systemd-sysusers /usr/lib/sysusers.d/khealthd.conf")
    run(["gcc", "-D_GNU_SOURCE", f"-I{world.TOP}/tools/khealthd", "-o", "/run/new/unit-test",
         f"{world.TOP}/scripts/lib/alert/units.c", f"{world.TOP}/tools/khealthd/cgroup.c",
         f"{world.TOP}/tools/khealthd/util.c"])
    world.Log.start()
