#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: picture.py TRACE DIR

Make of what picture.c printed what picture.gp draws: picture.dat, the free space
over time; and picture.vars, gnuplot's commands with the moments.
"""
import pathlib
import sys


def read(path):
    """Return the lines as (word, {name: value})."""
    for line in pathlib.Path(path).read_text().splitlines():
        word, *fields = line.split()
        yield word, dict(field.split("=", 1) for field in fields if "=" in field)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[2])
    begin, levels, moments, polls, lost = 0, [], {}, [], []
    for word, fields in read(sys.argv[1]):
        at = (int(fields.get("time", 0)) - begin) / 1e9
        if word == "begin":
            begin = int(fields["time"])
        elif word in ("level", "poll"):
            free = 100 - 100 * int(fields["used"]) / int(fields["capacity"])
            if word == "level":
                levels.append((at, max(free, 0)))
            else:
                polls.append((at, free, int(fields["drops"])))
        elif word == "lost":
            lost.append((at, int(fields["drops"])))
        elif word == "alert":
            moments[fields["event"]] = at
    if sorted(moments) != ["exhausted", "low", "recovered"] or not lost:
        sys.exit(f"picture.py: not the run that it was to be: {moments}, {len(lost)} losses")
    # A step a packet would be some thousand lines.
    with open(out / "picture.dat", "w", encoding="ascii") as file:
        shown = None
        for at, free in levels:
            if shown is None or abs(free - shown) >= 1.5:
                print(f"{at:.3f} {free:.2f}", file=file)
                shown = free
        print(f"{polls[-1][0]:.3f} {levels[-1][1]:.2f}", file=file)
    with open(out / "picture-polls.dat", "w", encoding="ascii") as file:
        for at, free, drops in polls:
            print(f"{at:.3f} {free:.2f} {drops}", file=file)
    with open(out / "picture.vars", "w", encoding="ascii") as file:
        for name, at in moments.items():
            print(f"{name} = {at:.4f}", file=file)
        print(f"lost = {lost[0][0]:.4f}", file=file)
        print(f"losses = {lost[-1][1]}", file=file)
        print(f"ahead_ms = {(lost[0][0] - moments['low']) * 1000:.0f}", file=file)
    print(f"low {moments['low']:.3f} s, first loss {lost[0][0]:.3f} s, "
          f"exhausted {moments['exhausted']:.4f} s, recovered {moments['recovered']:.3f} s, "
          f"{lost[-1][1]} lost")


if __name__ == "__main__":
    main()
