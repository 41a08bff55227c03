#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: audit.py [--list] TABLE TREE...

Find the places in kernel TREEs that drop or refuse a received packet, or memory
for it, for want of space; and those that look as if they did. Each is to be named
in TABLE, Documentation/admin-guide/khealthd-refusals.rst, by file and function,
with the monitor that sees it or the reason why none does. Print the places that
the TABLE does not know, and those it names that are in none of the TREEs, and fail
if there are any. With --list, print all places and what they were found by.

A place is found by the reason for which it drops, by the counter that it counts,
by what it compares with a receive buffer or a backlog, by an ENOBUFS or a full
queue in a function whose name says that it receives, or by its hook.
"""

import pathlib
import re
import sys

FOLDERS = ("net", "include/net", "include/linux/skbuff.h", "mm/page_frag_cache.c",
           "mm/page_alloc.c")

# What the rules are about: khealthd's own, and kinds of files with no packets.
OURS = re.compile(r"include/net/khealthd.h|net/core/khealthd\w*\.c|.*/tests?/|net/sched/")

SPACE = (r"SOCKET_RCVBUFF|SOCKET_BACKLOG|PROTO_MEM|CPU_BACKLOG|FULL_RING|NOMEM|PFMEMALLOC|"
         r"PACKET_SOCK_ERROR|TCP_OFO_QUEUE_PRUNE|TCP_ZEROWINDOW|\w*QUEUE_?FULL|\w*OVERLIMIT|"
         r"\w*LISTEN_?OVERFLOW\w*|\w*_ACCEPTQ\w*")
MIBS = (r"RCVBUFERRORS|MEMERRORS|TCPBACKLOGDROP|TCPRCVQDROP|TCPOFODROP|OFOPRUNED|RCVPRUNED|"
        r"BACKLOGDROP|LISTENOVERFLOWS|TCPREQQFULLDROP|PFMEMALLOCDROP|TCPZEROWINDOWDROP")
ROOM = r"sk_rcvbuf|sk_rmem_alloc|max_backlog"
RECEIVES = re.compile(r"rcv|recv|receive|input|deliver|broadcast|enqueue|queue_|attach|rx|"
                      r"ingress")
RULES = {
    "reason": re.compile(rf"SKB_DROP_REASON_({SPACE})\b"),
    "counter": re.compile(
        rf"MIB_({MIBS})\b|(sk|udp)_drops_(inc|add|skbadd)\(|numa_drop_add\(|"
        r"atomic_(inc|add)\([^;]*(sk_drops|tp_drops|rx_drop|->dropped)\b|"
        r"\b(queue_dropped|rx_queue_full)\+\+"),
    "room": re.compile(
        rf"({ROOM})\b[^;=]*(?<![->])[<>]=?[^>=]|(?<![->])[<>]=?[^>=;]*\b({ROOM})\b|"
        r"sk_rcvqueues_full\(|(?<!__)sk_add_backlog\(|sk_rmem_schedule\(|SK_MEM_RECV"),
    "hook": re.compile(r"\bkhealthd_\w+_(refused|overrun)\(|\bpacket_ring_refused\("),
}
FULL = re.compile(r"-ENOBUFS|(skb_queue_len\w*\([^;]*\)|qlen|queue_len|queue_total)\s*"
                  r"(?<!-)>=?(?!=?\s*[01]\b)")
# Quick to look for; a file without any of it has no such place.
HINT = re.compile(rf"SKB_DROP_REASON_|_drops|MIB_|drop|{ROOM}|ENOBUFS|qlen|queue_len|queue_total|"
                  r"sk_rcvqueues|rx_queue_full|sk_add_backlog|rmem_schedule|SK_MEM_RECV|khealthd_")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
NOT_CODE = re.compile(r"\s*(struct|enum|SNMP_MIB_ITEM|LINUX_MIB_\w+,|MPTCP_MIB_\w+,|FN\()")
HEAD = re.compile(r"\b(\w+)\s*\(")


def functions(text):
    """Each line of a file without its comments, with the function that it is in."""
    text = COMMENT.sub(lambda m: "\n" * m.group().count("\n"), text)
    name = None
    for line in text.split("\n"):
        if line[:1].isalpha() or line[:1] == "_":
            head = HEAD.search(line)
            if head and not line.rstrip().endswith(";"):
                name = head.group(1)
        elif name and not NOT_CODE.match(line):
            yield name, line
        if line.startswith("}"):
            name = None


def places(tree):
    """{(file, function): what it was found by}"""
    found = {}
    for folder in FOLDERS:
        top = pathlib.Path(tree, folder)
        for path in [top] if top.is_file() else sorted(top.rglob("*.[ch]")):
            file = str(path.relative_to(tree))
            if OURS.match(file):
                continue
            text = path.read_text(errors="replace")
            if not HINT.search(text):
                continue
            for name, line in functions(text):
                if not HINT.search(line):
                    continue
                why = {kind for kind, rule in RULES.items() if rule.search(line)}
                if RECEIVES.search(name) and FULL.search(line):
                    why.add("full")
                if why:
                    found.setdefault((file, name), set()).update(why)
    return found


def table(path):
    """The places that the table names: bullets of a file and its functions."""
    named, bullet = set(), None
    for line in path.read_text().split("\n") + [""]:
        if bullet and line.startswith("  "):
            bullet += line
            continue
        if bullet:
            file, names = bullet.split(":", 1)
            named |= {(file, name) for name in re.findall(r"\w+", names)}
        match = re.match(r"- ((net|mm|include)/\S+\.[ch]:.*)", line)
        bullet = match and match.group(1)
    return named


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    if "--help" in sys.argv or len(arguments) < 2:
        print(__doc__.strip())
        return "--help" not in sys.argv
    named, everywhere, wrong = table(pathlib.Path(arguments[0])), set(), 0
    for tree in arguments[1:]:
        found = places(tree)
        if not found:
            sys.exit(f"audit.py: {tree} is no kernel tree")
        everywhere |= set(found)
        for (file, name), why in sorted(found.items()):
            if "--list" in sys.argv:
                print(file, name, *sorted(why))
            elif (file, name) not in named:
                print(f"{tree}: {file}: {name}() is not in the table ({', '.join(why)})")
                wrong += 1
    if "--list" not in sys.argv:
        for file, name in sorted(named - everywhere):
            print(f"{arguments[0]}: {file}: {name}() is in no tree")
            wrong += 1
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
