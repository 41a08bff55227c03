#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: cost.py DIR OUT

Make OUT/cost.csv of DIR/cost.COLUMN, which cost.c printed in each of the kernels.

The first number is what a packet takes without khealthd (with the option off, if the
unpatched kernel was not measured); the others are how much more it is. Numbers can be
compared if they are of the same state of the loop: each has to be what more than half
of the batches agree on, and to be no further from the first than hooks could bring
it. "?" is one that cannot.
"""
import csv
import pathlib
import re
import sys

# Rows: name, in good health, while it is short.
ROWS = (("UDP, IPv4", "udp4", "udp4_short"), ("UDP, IPv4, 70 % full", "udp4_half", None),
        ("UDP, IPv6", "udp6", None),
        ("UDP through veth and a backlog (RPS)", "veth", None),
        ("UDP, dropped at a full socket", "udp4_full", "udp4_full"),
        ("TCP stream", "tcp", None), ("raw", "raw", "raw_short"),
        ("netlink", "netlink", "netlink_short"), ("packet", "packet", "packet_short"),
        ("packet ring", "ring", "ring_short"),
        ("packet ring, dropped", "ring_full", "ring_full"),
        ("a TCP connection: made, accepted, reset", "accept", None),
        ("UDP, each packet a new connection to conntrack", "conntrack", None),
        ("a neighbour: made and deleted by rtnetlink", "neighbour", None),
        ("UDP, each packet in two fragments", "fragments", None),
        ("a file: opened and closed", "file", None),
        ("a task: vfork() and exit", "task", None))
# Where watch.bpf.c has no program.
NO_PROGRAM = {"packet", "ring", "ring_full", "file", "task"}
ANOTHER_STATE = 600


def read(path):
    """Return {row: (instructions, sure)}, or {} if it was not measured."""
    if not path.exists():
        return {}
    found = re.finditer(r"^(\w+): ([0-9.]+) instructions, in (\d+) of (\d+) batches",
                        path.read_text(), re.M)
    return {match[1]: (float(match[2]), int(match[3]) * 2 > int(match[4]))
            for match in found}


def more(values, row, before):
    """How much more a row takes than before, as a cell."""
    if not row or row not in values or row not in before:
        return "-"
    (value, sure), (base, base_sure) = values[row], before[row]
    if not (sure and base_sure) or abs(value - base) > ANOTHER_STATE:
        return "?"
    return f"{value - base:+.1f}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    kernel = {column: read(source / f"cost.{column}")
              for column in ("none", "n", "off", "on", "bench", "kprobe", "fentry")}
    none = kernel["none"] or kernel["n"]
    first = "unpatched" if kernel["none"] else "option off"
    path = pathlib.Path(sys.argv[2]) / "cost.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["a packet: instructions", first, "option off", "disabled", "enabled",
                      "enabled, short", "eBPF, kprobe", "eBPF, fentry"])
        for name, row, short in ROWS:
            healthy = "-" if row == short else more(kernel["on"], row, none)
            watched = None if row in NO_PROGRAM else row
            out.writerow([name, f"{none[row][0]:.1f}", more(kernel["n"], row, none),
                          more(kernel["off"], row, none), healthy,
                          more(kernel["on"], short, none),
                          more(kernel["kprobe"], watched, kernel["bench"]),
                          more(kernel["fentry"], watched, kernel["bench"])])
    print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
