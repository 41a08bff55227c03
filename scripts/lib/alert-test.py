#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: alert-test.py host BUILD SRCTREE FOLDER [TEST...]
       alert-test.py guest BUILD SRCTREE FOLDER [TEST...]

Tests tools/khealthd, built in BUILD with the kernel tree SRCTREE. "host": in
namespaces on this machine, with made-up alerts, in seconds; "guest": in a booted
kernel with khealthd, against programs that are not ours: a mail system, journald,
Alertmanager, promtool. FOLDER has their packages, unpacked; "" is none.
TESTs are functions of alert/*.py, without test_.

Nothing depends on how long something takes.
"""

import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from alert import world                                     # noqa: E402


def modules(where):
    # pylint: disable=import-outside-toplevel
    from alert import (test_table, test_send, test_lost, test_say, test_tool)
    found = [test_table, test_send, test_lost, test_say, test_tool]
    if where == "guest":
        from alert import test_guest
        found = [test_guest, test_send]
    return found


def run_test(number, test):
    name = f"{test.__name__[5:]}: {test.__doc__.splitlines()[0]}"
    try:
        world.reset()
        begin = time.time()
        skip = test()
        print(f"ok {number} {name}{' # SKIP ' + skip if skip else ''}")
        print(f"# {time.time() - begin:.1f} s")
        return True
    except Exception:       # pylint: disable=broad-except
        print("# " + traceback.format_exc().strip().replace("\n", "\n# "))
        print(f"not ok {number} {name}")
        return False


def main():
    argv = sys.argv[1:]
    if argv in ([], ["--help"]):
        print(__doc__.strip())
        return 0
    inside = argv[0] == "--inside"
    where, build, srctree, folder, *wanted = argv[1:] if inside else argv
    if where == "host" and not inside:
        from alert import host      # pylint: disable=import-outside-toplevel
        host.enter(sys.argv)
    if where == "host":
        from alert import host      # pylint: disable=import-outside-toplevel
        host.build(build, srctree, folder)
    else:
        from alert import guest     # pylint: disable=import-outside-toplevel
        guest.build(build, srctree, folder)
    world.IN_GUEST = where == "guest"
    world.BUILD, world.SRCTREE = build, srctree
    world.start_web()
    world.start_alertmanager()
    tests = [f for module in modules(where) for name, f in vars(module).items()
             if name.startswith("test_") and callable(f)]
    if wanted:
        tests = [f for f in tests if f.__name__[5:] in wanted]
    print("TAP version 13")
    print(f"1..{len(tests)}")
    good = True
    for number, test in enumerate(tests, 1):
        good = run_test(number, test) and good
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
