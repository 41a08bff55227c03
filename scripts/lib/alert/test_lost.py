# SPDX-License-Identifier: GPL-2.0
"""What a second review found: alerts that got lost, came twice, or were not ended."""

import contextlib
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import time

from alert import world
from alert.test_table import labels
from alert.world import (KHEALTH, OUTPUTS, RUN, STATE, Process, Web, alert, aside, complaints,
                         config, due_now, equal, has, lacks, mails, notify, posted, program, read,
                         run, spooled, true, waiting, write)


def test_unreadable():
    """Settings and secrets that the sender cannot read: nothing is given up, and check says so."""
    secret = "/etc/khealthd/secret"
    write(secret, "", 0o600)
    config("mail", webhook_curl=secret)
    folder = os.path.dirname(world.CONFIG)
    for path, mode in (world.CONFIG, 0o600), (folder, 0o700):
        was = os.stat(path).st_mode & 0o7777
        os.chmod(path, mode)
        try:
            alert("low", status=1)
            has(complaints(), f"{world.CONFIG} cannot be read: nothing is sent")
            told = run([KHEALTH, "check"], check=False).stdout
        finally:
            os.chmod(path, was)
        for name in world.CONFIG, secret:
            has(told, f"MISSING  {name}: the user who sends cannot read it")
    equal(mails(), [], "mails")
    equal(len(glob.glob(f"{STATE}/spool/[0-9]*")), 2, "in the spool")
    lacks(run([KHEALTH, "check"], check=False).stdout, f"MISSING  {world.CONFIG}")
    notify()
    equal(len(mails()), 2, "mails")


@contextlib.contextmanager
def out_of_reach(path):
    """The file is there, and cannot be read for now."""
    was = os.stat(path)
    os.chown(path, 0, 0)
    os.chmod(path, 0)
    try:
        yield
    finally:
        os.chmod(path, was.st_mode & 0o7777)
        os.chown(path, was.st_uid, was.st_gid)


def test_message_out_of_reach():
    """A message that cannot be read for now, in the spool or in a queue: it is not given up."""
    config("mail")
    spooled(("low", {}))
    with out_of_reach(glob.glob(f"{STATE}/spool/[0-9]*")[0]):
        true(notify(check=False).returncode, "status")
        has(complaints(), "cannot be read: Permission denied")
    notify()
    equal(len(mails()), 1, "mails")
    config("mail", mail_command="/bin/false")
    alert("low", port=2, status=1)
    config("mail")
    due_now("mail")
    with out_of_reach(waiting("mail")[0]):
        true(notify(check=False).returncode, "status")
        has(complaints(), "mail: a message of")
    equal(aside("mail"), [], "set aside")
    notify()
    equal(len(mails()), 2, "mails")


def test_no_outputs():
    """Outputs that cannot be found for now: nothing is given up."""
    config("mail")
    vendor = "/usr/lib/khealthd/outputs"
    for mode in 755, 700:   # there are none; there is one of ours, and others are unknown
        run(f"mount -t tmpfs -o mode={mode} tmpfs {vendor}")
        try:
            alert("low", status=1)
        finally:
            run(f"umount {vendor}")
        program(f"{OUTPUTS}/own", "exit 0")
    os.chmod(OUTPUTS, 0o700)
    try:
        alert("low", status=1)
    finally:
        os.chmod(OUTPUTS, 0o755)
    equal(mails(), [], "mails")
    has(complaints(), "cannot be read, or has nothing: nothing is sent")
    notify()
    equal(len(mails()), 3, "mails")


def spool_anew(seq, place):
    """As if it were the last that was put into the spool there."""
    path = glob.glob(f"{STATE}/spool/*{seq}")[0]
    text = read(path)
    os.unlink(path)
    path = f"{place}/spool/{os.path.basename(path)}"
    write(path, text)
    shutil.chown(path, "khealthd")


def test_last_word():
    """An older "it is over" is never the last that is heard of what is short again."""
    config("mail", min_duration=1000)
    seqs = spooled(*[(event, {"port": port}) for port in (1, 2) for event in ("low", "recovered")])
    spool_anew(seqs[2], STATE)
    notify()
    equal((mails(), waiting("mail")), ([], []), "what did not last, in whatever order it is found")
    config("alertmanager", "mail", alertmanager_url="http://127.0.0.1:8000", mail_command="/bin/false")
    for place in STATE, RUN:
        spool_anew(spooled(("recovered", {}), ("exhausted", {}))[0], place)
        Web.got.clear()
        notify(check=False)
        equal([body[0]["annotations"]["event"] for body in posted("/api/v2/alerts")],
              ["exhausted"], "what Alertmanager is told")
    equal(len(waiting("mail")), 4, "waiting")
    config("mail")
    due_now("mail")
    notify()
    equal([m["X-Khealthd-Event"] for m in mails()], ["exhausted"] * 2, "mails")
    alert("recovered")
    equal(len(mails()), 3, "mails when it is over")


def test_no_descriptors():
    """Started with standard input, output and error closed: a whole mail, and a post."""
    config("mail", "webhook")
    # With nothing else open either: there is no folder to lock.
    shutil.rmtree(STATE)
    shutil.rmtree(f"{RUN}/spool")
    for path in STATE, f"{RUN}/spool":
        write(path, "")
    for closed in "<&-", "<&- >&-", "<&- >&- 2>&-":
        alert("low", before=["sh", "-c", f'exec "$@" {closed}', "sh"], status=None)
    equal(len(posted("/hook")), 3, "posts")
    equal(len(mails()), 3, "mails")
    for mail in mails():
        has(mail.get_payload(), "What is usually turned")


def test_read_only():
    """A disk that is read-only: what is new, waits, or is in the spool is sent, and once."""
    run(f"mount -t tmpfs -o mode=711,uid=$(id -u khealthd),gid=$(id -g khealthd) tmpfs {STATE}")
    try:
        config("mail", mail_command="/bin/false")
        alert("low", port=1, status=1)
        alert("low", port=2, status=1)
        due_now("mail")
        config("mail")
        spooled(("low", {"port": 3}))
        run(f"mount -o remount,ro {STATE}")
        alert("low", port=4, status=1)
        equal(len(mails()), 4, "mails")
        has(complaints(), "cannot be taken out of the queue: Read-only file system")
        notify()
        equal(len(mails()), 4, "mails, after another run")
        run(f"mount -o remount,rw {STATE}")
        notify()
        equal(waiting("mail") + glob.glob(f"{STATE}/spool/[0-9]*"), [], "left behind")
        equal(os.listdir(f"{RUN}/queue/.gone"), [], "notes of it")
    finally:
        run(f"umount {STATE}")
    equal(len(mails()), 4, "mails, in the end")


def test_hung_members():
    """Servers that take a connection and never answer: the other one has it, and once."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    urls = [f"http://127.0.0.1:{sock.getsockname()[1]}/" for sock in socks]
    config("webhook", webhook_url=" ".join(urls + ["http://127.0.0.1:8000/hook"]))
    seqs = spooled(("low", {}))
    # The run has less time than webhook_timeout.
    run([KHEALTH, "notify", "--seconds", "8"])
    for sock in socks:
        sock.close()
    equal([b["seq"] for b in posted("/hook")], seqs, "posts")
    equal(waiting("webhook"), [], "waiting")


def test_clock_set():
    """A clock that is set, back or forth: what waits is neither kept nor given up for that."""
    config("mail", mail_command="/bin/false")
    for port in 1, 2:
        alert("low", port=port, status=1)
    for path, step in zip(waiting("mail"), (365 * 86400, -365 * 86400)):
        entry = json.loads(read(path))
        entry["time"] += step
        write(path, json.dumps(entry))
        parts = os.path.basename(path).split(".")
        parts[0], parts[2] = str(int(parts[0]) + step), str(entry["time"])
        os.rename(path, os.path.join(os.path.dirname(path), ".".join(parts)))
    config("mail")
    notify()
    equal(len(mails()), 2, "mails")
    for mail in mails():
        lacks(mail["Subject"], "(of ")


UNIT = f"docker-{'0123456789abcdef' * 4}.scope"
FOUND = "same", UNIT, "docker 0123456789ab"
HOLDER = """
import socket, time
rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
rx.bind(("", 5201))
print(int.from_bytes(rx.getsockopt(socket.SOL_SOCKET, 57, 8), "little"), flush=True)
time.sleep(1000)"""


def found(alerts):
    """What is found out of an alert's labels."""
    names = "netns", "service", "container"
    return {tuple(a["labels"].get(name) for name in names) for a in alerts}


@contextlib.contextmanager
def held():
    """A socket whose holder can be found, and then no more."""
    run("ip netns add same")
    try:
        netns = os.stat("/run/netns/same").st_ino
        with Process(["ip", "netns", "exec", "same", sys.executable, "-c", HOLDER],
                     stdout=subprocess.PIPE, text=True) as holder:
            cookie = holder.stdout.readline().strip()
            write("/run/t.cgroup", f"0::/system.slice/{UNIT}\n")
            run(f"mount --bind /run/t.cgroup /proc/{holder.pid}/cgroup")
            yield {"netns": netns, "sock_cookie": cookie}
    finally:
        run("ip netns del same")


def test_same_labels():
    """What ends an alert has its labels, whatever is found out by then."""
    config("alertmanager", alertmanager_url="http://127.0.0.1:8000")
    with held() as same:
        alert("low", **same)
    alert("exhausted", **same)
    Web.answer = 503                # it is tried again
    alert("recovered", status=1, **same)
    Web.answer = 200
    due_now("alertmanager")
    notify()
    alert("low", **same)
    *sent, anew = posted("/api/v2/alerts")
    for body in sent:
        equal(found(body), {FOUND}, "labels")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for before, after in zip(sent, sent[1:]):
        fired = [a["labels"] for a in before if a["endsAt"] > now]
        ended = [a["labels"] for a in after if a["endsAt"] <= now]
        equal([one for one in fired if one in ended], fired, "what ends")
    equal([len([a for a in body if a["endsAt"] > now]) for body in sent], [1, 1, 0], "what fires")
    equal(found(anew), {(str(same["netns"]), None, None)}, "labels of the next episode")


def test_first_labels():
    """Labels stay as first sent if more is found out later; those of 200 instances are kept."""
    on = {"alertmanager_url": "http://127.0.0.1:8000"}
    write(f"{STATE}/labels", "no JSON")
    with held() as same:
        config("alertmanager", facts_ms=0, **on)
        alert("low", **same)
        kept = json.loads(read(f"{STATE}/labels"))
        write(f"{STATE}/labels", json.dumps({**{f"x {i}": {} for i in range(199)}, **kept}))
        config("alertmanager", **on)
        run(f"mount --bind {STATE} {STATE}; mount -o remount,bind,ro {STATE}")
        try:
            alert("low", monitor="packet_ring", **same)
            alert("exhausted", **same)
        finally:
            run(f"umount {STATE}")
    number = (str(same["netns"]), None, None)
    equal([found(body) for body in posted("/api/v2/alerts")], [{number}, {FOUND}, {number}],
          "labels")
    names = list(json.loads(read(f"{RUN}/queue/labels")))
    equal((len(names), names[0], names[198]), (200, "x 1", *kept), "what is kept")


def test_own_label():
    """No label of ours is replaced, as the severity that pages."""
    config("alertmanager", alertmanager_url="http://127.0.0.1:8000")
    for name in (*labels(sock_cookie=1), "cpu", "node", "service", "container"):
        config("alertmanager", alertmanager_url="http://127.0.0.1:8000",
               alertmanager_labels=f"team=net {name}=page")
        true("page" not in labels(sock_cookie=1).values(), f"{name} is replaced")
    has(complaints(), "alertmanager_labels: a label of this name is there already")
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  settings that can be understood")
