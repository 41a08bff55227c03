#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: cost-trace.py record MONITOR READY LOG
       cost-trace.py show MARK VMLINUX LOG TRACE

Where a row of cost.c spends its instructions.

record: wait for the file READY, have QEMU, whose monitor is the socket MONITOR,
write each instruction that it executes to LOG for a while, and end it.

show: take from LOG an iteration such as most are, from one execution of the
address MARK (hexadecimal) to the next, write its instructions to TRACE as VMLINUX
has them, and print how many there are in each function. Where a kernel changes
its own code, as for static keys, VMLINUX has what the code was at first.
"""
import bisect
import collections
import os
import re
import socket
import subprocess
import sys
import time

ENOUGH = 40 << 20    # bytes of log: some 400,000 instructions


def wait_for(what, condition):
    """Wait until the condition holds, or give up."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.1)
    sys.exit(f"cost-trace.py: waited in vain for {what}")


def record(path, ready, log):
    """See above."""
    wait_for(ready, lambda: os.path.exists(ready))
    time.sleep(5)
    monitor = socket.socket(socket.AF_UNIX)
    monitor.connect(path)
    for command in ("stop", "one-insn-per-tb on", f"logfile {log}",
                    "log exec,nochain", "cont"):
        monitor.sendall(command.encode() + b"\n")
    wait_for(log, lambda: os.path.exists(log) and os.path.getsize(log) > ENOUGH)
    monitor.sendall(b"quit\n")
    while monitor.recv(4096):
        pass


def instructions(vmlinux):
    """Return {address: instruction}, and sorted [(address, function)]."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", vmlinux],
                          check=True, capture_output=True, text=True).stdout
    code, functions = {}, []
    for line in text.splitlines():
        if match := re.match(r"([0-9a-f]+) <(.*)>:", line):
            functions.append((int(match[1], 16), match[2]))
        elif match := re.match(r"([0-9a-f]+):\t(.*?)\s*$", line):
            # Addresses differ from kernel to kernel, names do not.
            code[int(match[1], 16)] = re.sub(
                r"0x[0-9a-f]{6,}|\b[0-9a-f]{16}\b|\+0x[0-9a-f]+>", "", match[2])
    return code, sorted(functions)


def iteration(log, mark):
    """Return the addresses of an iteration such as most are."""
    found, current = [], None
    with open(log, encoding="ascii", errors="replace") as file:
        for line in file:
            match = re.match(r"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", line)
            if not match:
                continue
            address = int(match[1], 16)
            if address == mark:
                if current is not None:
                    found.append(current)
                current = []
            if current is not None:
                current.append(address)
    if not found:
        sys.exit(f"cost-trace.py: no iteration in {log}")
    count = collections.Counter(map(len, found))
    usual, times = count.most_common(1)[0]
    print(f"{usual} instructions, as in {times} of {len(found)} iterations")
    return next(way for way in found if len(way) == usual)


def show(mark, vmlinux, log, trace):
    """See above."""
    code, functions = instructions(vmlinux)
    starts = [address for address, _ in functions]
    count = collections.Counter()
    with open(trace, "w", encoding="ascii") as out:
        for address in iteration(log, int(mark, 16)):
            name = "(program)"
            if address >> 63:
                name = functions[bisect.bisect(starts, address) - 1][1]
            count[name] += 1
            print(name, code.get(address, ""), file=out)
    for name, number in sorted(count.items()):
        print(number, name)


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "record":
        record(*sys.argv[2:])
    elif len(sys.argv) == 6 and sys.argv[1] == "show":
        show(*sys.argv[2:])
    else:
        sys.exit(__doc__)
