#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: caught.py OUT DIR TRACE...

Who noticed the bursts that caught.c made, in one guest or several: the tables
OUT/caught.csv and OUT/caught-ahead.csv, and DIR/caught-ahead-*.dat for the picture.

A burst is noticed by whoever says so between its begin and that of the next one,
and under the right name if the socket is named, or its port and namespace.
"""
import bisect
import collections
import csv
import math
import pathlib
import sys

LATE = 20.0         # seconds: how long after a burst something may still be about it
STEPS = (1, 10)     # seconds between two looks of a poller


class Run:
    """What caught.c printed."""

    def __init__(self, path):
        self.bursts, self.alerts, self.polls, self.drops = [], [], [], []
        self.victims, self.full = [], []
        self.has_drop_monitor = False
        self.drops_lost = 0
        for line in pathlib.Path(path).read_text().splitlines():
            word, *rest = line.split()
            fields = dict(field.split("=", 1) for field in rest if "=" in field)
            if word == "burst":
                self.bursts.append({name: int(value) for name, value in fields.items()})
            elif word == "alert":
                self.alerts.append({name: int(value) if value.isdigit() else value
                                    for name, value in fields.items()})
            elif word == "poll":
                self.polls.append((int(fields["time"]), int(fields["errors"]), rest[2:]))
            elif word == "drop":
                self.drops.append((int(fields["time"]), int(fields["port"])))
            elif word in ("victim", "full"):
                (self.victims if word == "victim" else self.full).append(
                    {name: int(value) for name, value in fields.items()})
            elif word == "drop_monitor":
                self.has_drop_monitor = rest[0] == "yes"
                self.drops_lost = int(fields["lost"])
        begins = [burst["begin"] for burst in self.bursts]
        for burst, following in zip(self.bursts, begins[1:] + [math.inf]):
            burst["until"] = min(following, burst["end"] + LATE * 1e9)
            burst["home"] = burst["victim"] < len(self.victims) // 2
            burst["said"] = {}      # event: alert
            burst["seen"] = set()   # who noticed it otherwise
        self.begins = begins

    def burst_at(self, when):
        """Return the burst that something at that time may be about, or None."""
        i = bisect.bisect(self.begins, when) - 1
        if i >= 0 and when < self.bursts[i]["until"]:
            return self.bursts[i]
        return None


def take_alerts(run):
    """Give each alert to its burst; return those of nothing that happened."""
    cookies = {victim["cookie"]: n for n, victim in enumerate(run.victims)}
    full = {socket["cookie"] for socket in run.full}
    invented = []
    for alert in run.alerts:
        if alert.get("sock_cookie") in full:
            continue
        burst = run.burst_at(alert["time"])
        victim = cookies.get(alert.get("sock_cookie"))
        right = burst and victim == burst["victim"] and \
            alert["port"] == run.victims[victim]["port"]
        true = right and (alert["event"] == "recovered" or
                          (burst["lost"] if alert["event"] == "exhausted" else
                           burst["below"]))
        if not true:
            invented.append(alert)
        else:
            burst["said"].setdefault(alert["event"], alert)
    return invented


def about_full(run):
    """Return the alerts of the sockets that are full all the time, by event."""
    full = {socket["cookie"] for socket in run.full}
    return collections.Counter(alert["event"] for alert in run.alerts
                               if alert.get("sock_cookie") in full)


def polled_by_ss(run, step):
    """Mark bursts in the poller's namespace that were seen while low, and as a loss."""
    last = None
    for when, _, sockets in run.polls[::step]:
        drops = [int(value.rstrip("!")) for value in sockets]
        burst = run.burst_at(when)
        if burst and burst["home"]:
            n = burst["victim"]
            if sockets[n].endswith("!") and when < (burst["lost"] or math.inf):
                burst["seen"].add(f"ss {step} below")
            if last and drops[n] != last[n]:
                burst["seen"].add(f"ss {step}")
        last = drops


def polled_snmp(run, step):
    """
    Mark bursts in the poller's namespace during which the counter grew by more than it
    ever does without: the socket that is full keeps it growing.
    """
    homes = [burst for burst in run.bursts if burst["home"] and burst["lost"]]
    at = [burst["lost"] for burst in homes]
    usual, found, last, ended = 0, [], None, -math.inf
    for when, errors, _ in run.polls[::step]:
        if last is not None:
            begin, before = last
            i = bisect.bisect(at, begin)
            if i < len(at) and at[i] <= when:
                found.append((homes[i], errors - before))
                ended = homes[i]["end"]
            elif begin > ended:
                usual = max(usual, errors - before)
        last = when, errors
    for burst, grown in found:
        if grown > usual:
            burst["seen"].add(f"snmp {step}")


def dropped(run):
    """Mark bursts that drop_monitor told of."""
    ports = {victim["port"]: n for n, victim in enumerate(run.victims)}
    for when, port in run.drops:
        burst = run.burst_at(when)
        if burst and ports.get(port) == burst["victim"] and burst["lost"]:
            burst["seen"].add("dropped")


def percentile(values, percent):
    """The value that so many percent are not above."""
    values = sorted(values)
    return values[min(len(values) - 1, max(0, math.ceil(len(values) * percent / 100) - 1))]


def distribution(path, values):
    """For gnuplot: of all bursts, percent that are at this value or above."""
    with open(path, "w", encoding="ascii") as file:
        values = sorted(values)
        for i, value in enumerate(values):
            if i % max(1, len(values) // 200) == 0 or i == len(values) - 1:
                print(f"{value:.4f} {100 * (len(values) - i) / len(values):.2f}", file=file)


def table(bursts, invented, has_drop_monitor):
    """Rows of caught.csv."""
    losing = [b for b in bursts if b["lost"]]
    away = [b for b in losing if not b["home"]]
    near = [b for b in bursts if b["below"] and not b["lost"]]

    def of(total, which):
        return f"{len([b for b in total if which(b)])} of {len(total)}"

    def seen(what):
        return lambda b: what in b["seen"]

    def row(name, noticed, before, named, false):
        return [name, of(losing, noticed), of(losing, before), named, of(away, noticed),
                of(near, before), false]

    yield [f"of {len(bursts)} bursts", "lost packets: noticed", "before the first loss", "named",
           "of these in another namespace: noticed", "close to it, none lost: noticed", "false"]
    yield row("khealthd", lambda b: "exhausted" in b["said"],
              lambda b: "low" in b["said"] and
              b["said"]["low"]["time"] < (b["lost"] or math.inf),
              "socket, port, namespace, cgroup, uid", str(invented))
    for step in STEPS:
        yield row(f"``ss -uam`` every {step} s", seen(f"ss {step}"), seen(f"ss {step} below"),
                  "socket, port", "0")
        yield row(f"``/proc/net/snmp`` every {step} s", seen(f"snmp {step}"), seen(None),
                  "nothing", "0")
    if has_drop_monitor:
        yield row("drop_monitor, each packet", seen("dropped"), seen(None), "port", "0")
    print(f"{len(bursts)} bursts, {len(losing)} lost packets, {len(away)} of these in another "
          f"namespace, {len(near)} came close", file=sys.stderr)


def ahead_table(bursts, raw):
    """Rows of caught-ahead.csv, and the picture's lines."""
    losing = [b for b in bursts if b["lost"] and "low" in b["said"]]
    time = [(b["lost"] - b["said"]["low"]["time"]) / 1e6 for b in losing]
    packets = [b["lost_at"] - 1 - b["said"]["low"]["sent"] for b in losing]
    distribution(raw / "caught-ahead-ms.dat", [max(value, 0) for value in time])
    distribution(raw / "caught-ahead-packets.dat", [max(value, 0) for value in packets])
    yield ["ahead of the first loss", "least", "1 %", "10 %", "median", "90 %", "most"]
    for name, values, form in (("time, ms", time, "{:.3f}"), ("packets", packets, "{}")):
        yield [name] + [form.format(value) for value in (
            min(values), *(percentile(values, p) for p in (1, 10, 50, 90)), max(values))]


def look(run):
    """Who noticed what in one guest; return the alerts of nothing that happened."""
    invented = take_alerts(run)
    for step in STEPS:
        polled_by_ss(run, step)
        polled_snmp(run, step)
    dropped(run)
    for burst in run.bursts:
        for when, event in (("below", "low"), ("lost", "exhausted")):
            if burst[when] and event not in burst["said"]:
                print(f"not told: {event} of {burst}", file=sys.stderr)
    for alert in invented:
        print(f"of nothing that happened: {alert}", file=sys.stderr)
    print(f"of the sockets that are full: {dict(about_full(run))}", file=sys.stderr)
    return invented


def write(path, rows):
    """A file of comma-separated values."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    print(path, file=sys.stderr)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    out, raw = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    runs = [Run(path) for path in sys.argv[3:]]
    invented = sum(len(look(run)) for run in runs)
    bursts = [burst for run in runs for burst in run.bursts]
    write(out / "caught.csv",
          table(bursts, invented, all(run.has_drop_monitor for run in runs)))
    write(out / "caught-ahead.csv", ahead_table(bursts, raw))


if __name__ == "__main__":
    main()
