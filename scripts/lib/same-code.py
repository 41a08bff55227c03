#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Do two object files have the same code and data?

Usage: same-code.py [--help] OBJECT OTHER

What may differ is what a few more lines in the source change by themselves: line
numbers in warnings, the numbers in generated names, the order of functions. So
constants in instructions are not compared; each function's instructions, registers,
offsets and the symbols that it refers to are, and so are the sizes of all sections
that are loaded and of all symbols. Exits with 1 if they differ, and says where.

The kernel's own scripts/objdiff compares all that objdump prints, line numbers included.
"""

import collections
import re
import subprocess
import sys


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def plain(name):
    """A name without what the compiler and __COUNTER__ number."""
    name = re.sub(r"(__UNIQUE_ID_\w*?|__initcall__.*?)\d[\w.]*$", r"\1#", name)
    return re.sub(r"\.\d+", ".#", name)


def sections(path):
    """The names and sizes of the sections that are loaded."""
    lines = output_of("objdump", "-h", path).splitlines()
    found = collections.Counter()
    for line, flags in zip(lines, lines[1:]):
        field = line.split()
        if len(field) == 7 and field[0].isdigit() and "ALLOC" in flags:
            found[field[1], int(field[2], 16)] += 1
    return found


def symbols(path):
    """Names, kinds and sizes."""
    found = collections.Counter()
    for line in output_of("nm", "-S", path).splitlines():
        field = line.split()
        if len(field) == 4:
            found[plain(field[3]), field[2], int(field[1], 16)] += 1
    return found


def functions(path):
    """The instructions of each function, without where they are."""
    found = collections.Counter()
    name, body, start = None, [], 0
    for line in output_of("objdump", "-dr", "--no-show-raw-insn", path).splitlines():
        head = re.match(r"([0-9a-f]+) <(.+)>:$", line)
        if head:
            if name:
                found[name, tuple(body)] += 1
            start, name, body = int(head[1], 16), plain(head[2]), []
            continue
        relocation = re.match(r"\s+[0-9a-f]+: (R_\w+)\s+(.+)$", line)
        if relocation:
            # What is in a section of its own, such as a string, has no name.
            target = re.sub(r"^(\.[\w.]+?)[+-]0x[0-9a-f]+$", r"\1", relocation[2])
            body.append((relocation[1], plain(target)))
            continue
        instruction = re.match(r"\s+[0-9a-f]+:\s+(.+?)\s*$", line)
        if not instruction:
            continue
        text = re.sub(r"\$-?0x[0-9a-f]+", "$#", instruction[1])
        # Where it jumps to: in this function, in another one, or what a relocation says.
        jump = re.match(r"(\S+\s+)([0-9a-f]+) <([^>+]+)(\+0x[0-9a-f]+)?>$", text)
        if jump:
            target = plain(jump[3])
            text = jump[1] + (f"{int(jump[2], 16) - start:+x}" if target == name
                              else target + (jump[4] or ""))
        body.append(re.sub(r"\s+# [0-9a-f]+ <.*", "", text))
    if name:
        found[name, tuple(body)] += 1
    return found


def differences(path, other):
    for what in sections, symbols, functions:
        one, two = what(path), what(other)
        for which, those in (path, one - two), (other, two - one):
            for item in those:
                size = len(item[1]) if what is functions else item[-1]
                yield f"{which} alone: {item[0]} ({what.__name__}, {size})"


def main():
    if len(sys.argv) == 2 and sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if len(sys.argv) != 3:
        print("same-code.py: two object files, please; --help says more", file=sys.stderr)
        return 2
    found = list(differences(*sys.argv[1:]))
    for line in found:
        print(line)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
