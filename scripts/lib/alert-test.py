#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: alert-test.py FOLDER [TEST...]

Tests scripts/khealth-alert in a booted kernel with khealthd, against programs that
are not ours: a mail system, journald, Alertmanager, promtool. FOLDER has their
packages, unpacked. TESTs are functions below, without test_.

Alerts come from the kernel where it matters that they do, and elsewhere from a
made-up environment. Nothing depends on how long something takes.
"""

import glob
import http.server
import json
import mailbox
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))

sys.path.insert(0, f"{TOP}/selftests")
from khealthd_lib import equal, true    # noqa: E402, pylint: disable=wrong-import-position

PROGRAM = "/usr/sbin/khealth-alert"
CONFIG = "/etc/khealth-alert.conf"
VENDOR = "/usr/share/khealth-alert/khealth-alert.conf"
DROPINS = "/etc/khealth-alert.d"
SPOOL = "/var/lib/khealth-alert/spool"
STATE = "/run/khealth-alert"
MBOX = "/var/mail/root"
TEXTFILE = "/run/textfile/khealthd.prom"
SYSCTL = "/proc/sys/kernel/khealthd/"
SYSFS = "/sys/kernel/khealthd/"
ALERTMANAGER = "http://127.0.0.1:9093"
PATIENCE = 90


# === Small things =============================================================

def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


def run(command, check=True, **more):
    done = subprocess.run(command, shell=isinstance(command, str), check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **more)
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}")
    return done.stdout if check else done


class Process(subprocess.Popen):
    """One that is gone when its test is over, however that ended."""

    def __exit__(self, *how):
        self.kill()
        super().__exit__(*how)


def wait_for(condition, what):
    for _ in range(PATIENCE * 10):
        result = condition()
        if result:
            return result
        time.sleep(0.1)
    raise AssertionError(f"waited in vain: {what}")


def has(text, part):
    true(part in text, f"no {part!r} in:\n{text}")


def lacks(text, part):
    true(part not in text, f"{part!r} in:\n{text}")


# === The world around =========================================================

class Web(http.server.BaseHTTPRequestHandler):
    """A web server: keeps what it gets, and answers as it is told."""

    got = []
    answer = 200
    hang = threading.Event()        # set: it answers; cleared: it does not
    hang.set()

    def do_POST(self):              # pylint: disable=invalid-name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Web.hang.wait()
        if Web.answer == 200:
            Web.got.append((self.path, self.headers, json.loads(body)))
        try:
            self.send_response(Web.answer)
            self.end_headers()
        except BrokenPipeError:
            pass                    # it was tired of waiting

    def log_message(self, *_):      # pylint: disable=arguments-differ
        pass


def start_web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Web)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def start_journald():
    os.makedirs("/run/systemd/journal", exist_ok=True)
    subprocess.Popen(["/lib/systemd/systemd-journald"])     # pylint: disable=R1732
    wait_for(lambda: os.path.exists("/run/systemd/journal/socket") and
             run("journalctl -q -n 1", check=False).returncode == 0, "journald")


def start_alertmanager():
    write("/tmp/alertmanager.yml", """
route: {receiver: web, group_by: [instance, monitor], group_wait: 1s, group_interval: 1s}
receivers:
- name: web
  webhook_configs: [{url: 'http://127.0.0.1:8000/notified', send_resolved: true}]
""")
    with open("/tmp/alertmanager.log", "w", encoding="utf-8") as log:
        subprocess.Popen(                                   # pylint: disable=R1732
            ["prometheus-alertmanager", "--config.file=/tmp/alertmanager.yml",
             "--storage.path=/tmp/alertmanager", "--cluster.listen-address=",
             "--web.listen-address=127.0.0.1:9093"], stdout=log, stderr=log)
    wait_for(lambda: run(f"curl -fsS {ALERTMANAGER}/-/ready", check=False).returncode == 0,
             "Alertmanager")


def mails():
    return sorted(mailbox.mbox(MBOX), key=lambda m: f"{m['Date']} {m['X-Khealthd-Seq']}")


def wait_mails(count):
    wait_for(lambda: len(mails()) >= count, f"{count} mail(s)")
    return mails()


def posted(path):
    return [body for where, _, body in Web.got if where == path]


def journal(seq):
    run("journalctl --sync")
    return [json.loads(line) for line in
            run(f"journalctl -q -o json -t khealth-alert KHEALTHD_SEQ={seq}").splitlines()]


def complaints():
    """What the program has to say itself, since the test began."""
    run("journalctl --sync")
    return run(f"journalctl -q -o cat -t khealth-alert -p err --since @{started}")


def active(*matchers):
    """The alerts that Alertmanager has, that are not over."""
    filters = urllib.parse.urlencode([("filter", m) for m in matchers])
    with urllib.request.urlopen(f"{ALERTMANAGER}/api/v2/alerts?{filters}") as answer:
        return json.load(answer)


def amtool(*matchers):
    """The same as a person sees it."""
    return run(["amtool", f"--alertmanager.url={ALERTMANAGER}", "alert", "query", *matchers])


def waiting(output):
    return sorted(glob.glob(f"{SPOOL}/{output}/[0-9]*"))


# === Alerts ===================================================================

OFF = ("log", "mail", "webhook", "alertmanager", "textfile")
started = 0
last_seq = 1000000


def config(*on, **settings):
    lines = [f"{output}={'on' if output in on else 'off'}\n" for output in OFF]
    # No test is about how fast something is, but for those that set it.
    known = {f"{output}_timeout": 60 for output in OFF[:-1] + ("facts", "dropin")}
    known.update(webhook_url="http://127.0.0.1:8000/hook", alertmanager_url=ALERTMANAGER,
                 textfile_path=TEXTFILE)
    known.update(settings)
    write(CONFIG, "".join(lines) + "".join(f"{k}={v}\n" for k, v in known.items()))


def environment(event, **more):
    """What the kernel sets, in a made-up case."""
    global last_seq         # pylint: disable=global-statement
    last_seq += 1
    env = dict(TROUBLED_DS="4", KHEALTHD_ABI="1", KHEALTHD_MONITOR="sock_rcvbuf",
               KHEALTHD_EVENT=event, KHEALTHD_SEQ=str(last_seq), KHEALTHD_UNIT="bytes",
               KHEALTHD_LOW="12", KHEALTHD_HIGH="25", KHEALTHD_CROSSINGS="1",
               HOME="/", PATH="/sbin:/bin:/usr/sbin:/usr/bin")
    if event != "test":
        env.update(KHEALTHD_FREE="0" if event == "exhausted" else "1000",
                   KHEALTHD_CAPACITY="212992", KHEALTHD_FAMILY="2",
                   KHEALTHD_PROTOCOL="17", KHEALTHD_PORT="5201",
                   KHEALTHD_SOCK_COOKIE="987654",
                   KHEALTHD_NETNS=str(os.stat("/proc/self/ns/net").st_ino))
    for name, value in more.items():
        name = name if name.isupper() and "_" in name else f"KHEALTHD_{name.upper()}"
        if value is None:
            env.pop(name, None)
        else:
            env[name] = str(value)
    return env


def alert(event="low", status=0, **more):
    """Run the program as the kernel does. Return the alert's number."""
    env = environment(event, **more)
    done = subprocess.run([PROGRAM], env=env, stdin=subprocess.DEVNULL, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True)
    if status is not None:
        equal(done.returncode, status,
              f"exit status (it said: {done.stdout}{complaints()})")
    return int(env["KHEALTHD_SEQ"])


def settings(**values):
    for name, value in values.items():
        write_kernel(SYSCTL + name, value)


def write_kernel(path, value):
    with open(path, "w", encoding="latin-1") as f:
        f.write(f"{value}\n")


class Overload:
    """A UDP socket that nobody reads from, and the kernel's alerts of it."""

    def __init__(self):
        settings(holdoff_ms=0, quiet_ms=3600000)
        self.rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rx.bind(("127.0.0.1", 0))
        self.port = self.rx.getsockname()[1]
        self.tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def state(self):
        return read(SYSFS + "sock_rcvbuf/state").strip()

    def fill(self, until):
        while self.state() != until:
            self.tx.sendto(b"x" * 100, ("127.0.0.1", self.port))

    def end(self):
        self.rx.close()
        self.tx.close()
        settings(quiet_ms=1)
        wait_report("recovered")


def wait_report(event):
    """Until the run for that event is over."""
    wait_for(lambda: os.path.exists(f"{STATE}/report") and
             read(f"{STATE}/report").splitlines()[0].endswith(f" sock_rcvbuf {event}"),
             f"a run for {event}")


# === Tests ====================================================================

def test_install():
    """--install puts all of it in its place and enables it; an upgrade spares local files."""
    write(CONFIG, "mail=off\n")
    write(f"{DROPINS}/mine", "#!/bin/sh\n", 0o755)
    os.unlink(PROGRAM)
    settings(enabled=0)
    has(run(f"{TOP}/scripts/khealth-alert --install"), "ok       the helper is " + PROGRAM)
    equal(read(SYSCTL + "helper").strip(), PROGRAM, "helper")
    equal(read(SYSCTL + "enabled").strip(), "1", "enabled")
    equal(os.stat(PROGRAM).st_mode & 0o7777, 0o755, "mode")
    equal(os.stat(VENDOR).st_mode & 0o7777, 0o644, "mode")
    equal(read(CONFIG), "mail=off\n", "the local file after an upgrade")
    true(os.path.exists(f"{DROPINS}/mine"), "a drop-in is gone after an upgrade")
    run("/lib/systemd/systemd-sysctl /usr/lib/sysctl.d/60-khealth-alert.conf")
    run("systemd-tmpfiles --create /usr/lib/tmpfiles.d/khealth-alert.conf")
    equal(os.stat("/var/lib/khealth-alert").st_mode & 0o7777, 0o700, "mode")
    os.makedirs("/tmp/root")
    run(f"{TOP}/scripts/khealth-alert --install --root /tmp/root")
    true(os.path.exists("/tmp/root/usr/lib/sysctl.d/60-khealth-alert.conf"), "--root")
    run(f"{TOP}/scripts/khealth-alert --uninstall --root /tmp/root")
    equal([f for _, _, files in os.walk("/tmp/root") for f in files], [], "left behind")


def test_settings():
    """The file that explains the settings has all of them, with their defaults."""
    explained = [line for line in read(VENDOR).splitlines() if line and line[0] != "#"]
    os.rename(VENDOR, VENDOR + ".away")
    try:
        equal(run([PROGRAM, "--config"]).splitlines(), explained, "--config")
    finally:
        os.rename(VENDOR + ".away", VENDOR)


def test_check():
    """--check says what is missing."""
    config("mail", mail_command="/nonexistent/sendmail")
    done = run([PROGRAM, "--check"], check=False)
    equal(done.returncode, 1, "status")
    has(done.stdout, "MISSING  mail: /nonexistent/sendmail")
    config("alertmanager", facts_timeout=6, log_timeout=5)
    settings(repeat_ms=0)
    has(run([PROGRAM, "--check"], check=False).stdout, "MISSING  a repeat within")
    settings(repeat_ms=300000, helper_timeout_ms=300000)
    equal(run([PROGRAM, "--check"], check=False).returncode, 0, "status")
    settings(helper_timeout_ms=30000)
    has(run([PROGRAM, "--check"], check=False).stdout, "MISSING  time for all outputs")


def test_test():
    """--test: from the kernel's test file to each output."""
    config("log", "mail", "webhook", "alertmanager", "textfile")
    write(f"{DROPINS}/keep", "#!/bin/sh\ncat >/run/dropin\nenv >/run/dropin.env\n", 0o755)
    told = run([PROGRAM, "--test"])
    for line in ("ok       log", "shows it", "ok       mail", "ok       webhook",
                 "ok       alertmanager", "has it", "ok       textfile", "ok       dropin-keep"):
        has(told, line)
    equal(posted("/hook")[0]["event"], "test", "the webhook's event")
    has(read("/run/dropin"), "This is a test")
    has(read("/run/dropin.env"), "KHEALTHD_EVENT=test\n")
    has(read("/run/dropin.env"), "TROUBLED_DS=4\n")
    # It is not left open: it ends by itself within minutes.
    found = active("severity=info")[0]
    end = time.mktime(time.strptime(found["endsAt"][:19], "%Y-%m-%dT%H:%M:%S"))
    true(end < time.time() + 180, "a test stays open")


def test_overload():
    """One overload: three mails in a thread, and one alert that is critical, then over."""
    config("log", "mail", "webhook", "alertmanager", "textfile",
           alertmanager_labels="team=net")
    load = Overload()
    load.fill("low")
    wait_report("low")
    one = active("alertname=Khealthd", "severity!=info")
    equal(len(one), 1, "alerts after low")
    equal({k: v for k, v in one[0]["labels"].items() if k != "service"},
          dict(alertname="Khealthd", monitor="sock_rcvbuf", code="4",
               instance="demo.example", netns="initial", family="IPv4", protocol="UDP",
               port=str(load.port), severity="warning", team="net"), "labels")
    has(one[0]["annotations"]["description"], "Little is left")
    begin = one[0]["startsAt"]
    load.fill("exhausted")
    wait_report("exhausted")
    one = active("alertname=Khealthd", "severity!=info")
    equal(len(one), 1, "alerts after exhausted")
    has(amtool("severity=critical"), f"sock_rcvbuf exhausted: UDP port {load.port}")
    equal(one[0]["labels"]["severity"], "critical", "severity")
    equal(one[0]["startsAt"], begin, "startsAt")
    has(read(TEXTFILE), 'khealthd_state{monitor="sock_rcvbuf",code="4"} 2\n')
    run("promtool check metrics <" + TEXTFILE)
    equal(os.stat(TEXTFILE).st_mode & 0o7777, 0o644, "mode")
    load.end()
    equal(active("alertname=Khealthd", "severity!=info"), [], "alerts after recovery")
    lacks(amtool("severity!=info"), "sock_rcvbuf")

    first, second, third = wait_mails(3)
    equal(first["Subject"],
          f"[khealthd] demo.example: sock_rcvbuf low: UDP port {load.port}", "subject")
    has(second["Subject"], "sock_rcvbuf exhausted")
    has(third["Subject"], "sock_rcvbuf recovered")
    equal(second["In-Reply-To"], first["Message-ID"], "thread")
    equal(third["References"], first["Message-ID"], "thread")
    has(first["Received"], "DragonFly Mail Agent")
    body = first.get_payload()
    for part in ("of 212992 bytes free", "low is 12 %", f"port {load.port}",
                 f'python3 (pid {os.getpid()})', "the initial one",
                 "net.core.rmem_max = " + read("/proc/sys/net/core/rmem_max").strip(),
                 "net.core.rmem_default = "):
        has(body, part)
    equal([b["event"] for b in posted("/hook")], ["low", "exhausted", "recovered"], "events")
    equal(posted("/hook")[0]["port"], load.port, "the webhook's port")
    fields = journal(posted("/hook")[1]["seq"])[0]
    equal(fields["MESSAGE_ID"], "6a4ee2ab7a1c4bc49bb7e3b1b1b57c0e", "MESSAGE_ID")
    equal(fields["PRIORITY"], "3", "PRIORITY")
    equal(fields["KHEALTHD_PORT"], str(load.port), "KHEALTHD_PORT")
    equal(fields["TROUBLED_DS"], "4", "TROUBLED_DS")
    # Alertmanager told its receiver that it began, and that it is over.
    for status in "firing", "resolved":
        wait_for(lambda s=status: ("critical", s) in
                 [(a["labels"]["severity"], a["status"])
                  for told in posted("/notified") for a in told["alerts"]],
                 f"a notification that it is {status}")


def test_who():
    """A service in a namespace: named by socket, process, unit, cgroup, namespace."""
    os.makedirs("/sys/fs/cgroup/web.slice/shop.service/x.service", exist_ok=True)
    run("ip netns add blue; ip -n blue link set lo up")
    config("mail")
    write("/tmp/server", f"""
import socket, time
rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
rx.bind(("127.0.0.1", 5300))
tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while open("{SYSFS}sock_rcvbuf/state").read() == "ok\\n":
    tx.sendto(b"x" * 100, ("127.0.0.1", 5300))
time.sleep(1000)
""")
    load = Overload()
    with Process(["sh", "-c", "echo $$ >/sys/fs/cgroup/web.slice/shop.service/x.service/"
                  "cgroup.procs; exec ip netns exec blue python3 /tmp/server"]) as server:
        wait_report("low")
        server.kill()
    body = wait_mails(1)[0].get_payload()
    for part in ("IPv4 UDP port 5300", ":5300", f"python3 (pid {server.pid})", "Service    shop.service",
                 "/web.slice/shop.service/x.service", ", blue"):
        has(body, part)
    load.end()
    run("ip netns del blue")


def test_interface():
    """An interface of a namespace without a name: by a process in it."""
    config("mail", "webhook")
    with Process(["unshare", "-n", "sh", "-c",
                  "ip link add eth7 index 77 type dummy; echo; exec sleep 1000"],
                 stdout=subprocess.PIPE) as inside:
        inside.stdout.readline()
        netns = os.stat(f"/proc/{inside.pid}/ns/net").st_ino
        alert(monitor="backlog", unit="packets", TROUBLED_DS=2, netns=netns, ifindex=77,
              cpu=0, family=None, protocol=None, port=None, sock_cookie=None)
        inside.kill()
    body = wait_mails(1)[0].get_payload()
    has(body, f"{netns}, process {inside.pid} (sleep) is in it")
    has(body, "eth7, index 77")
    has(body, "net.core.netdev_max_backlog = ")
    equal(posted("/hook")[0]["interface"], "eth7", "interface")


def test_unknown():
    """What cannot be found is left out, and what is not known is not named."""
    config("webhook", "mail")
    alert(netns=1, ifindex=1, cgroup=999999999, sock_cookie=123456)
    alert(free=None, capacity=None, netns=None, port=None, sock_cookie=None)
    body = wait_mails(2)[0].get_payload()
    for part in ("ss  ", "Process", "Service", "Cgroup", "lo, index"):
        lacks(body, part)
    has(body, "Namespace  1\n")
    lacks(mails()[1].get_payload(), "Level")
    for name in ("socket", "process", "service", "netns_name", "interface"):
        true(name not in posted("/hook")[0], name)
    true("free" not in posted("/hook")[1], "free")


def test_repeat():
    """repeat keeps all alerts of the episode alive; recovered ends all of them."""
    config("alertmanager", alertmanager_lifetime=20)
    alert("low")
    alert("exhausted", port=5202, duration_ms=1000)
    ours = ("alertname=Khealthd", "severity!=info")
    equal({(a["labels"]["port"], a["labels"]["severity"]) for a in active(*ours)},
          {("5201", "warning"), ("5202", "critical")}, "alerts")
    before = {a["labels"]["port"]: a["endsAt"] for a in active(*ours)}
    config("alertmanager", alertmanager_lifetime=900)
    alert("repeat", port=5202, free=1000, duration_ms=2000)
    after = {a["labels"]["port"]: a["endsAt"] for a in active(*ours)}
    for port in before:
        true(after[port] > before[port], f"port {port} is not kept alive")
    # It stays critical until it is over, although the level is better.
    equal([a["labels"]["severity"] for a in active(*ours) if a["labels"]["port"] == "5202"],
          ["critical"], "severity")
    alert("recovered", duration_ms=3000)
    equal(active(*ours), [], "alerts after recovery")
    # The end of an episode was not told: the next one's beginning ends it.
    alert("low", port=5203)
    alert("low", port=5204)
    equal([a["labels"]["port"] for a in active(*ours)], ["5204"], "alerts")
    alert("recovered", port=5204, duration_ms=3000)
    equal(active(*ours), [], "alerts after recovery")


def test_cluster():
    """Two Alertmanagers, of which one is dead: it arrives."""
    config("alertmanager", alertmanager_url=f"http://127.0.0.1:1 {ALERTMANAGER}/")
    alert("low", port=5210)
    equal(len(active("port=5210")), 1, "alerts")
    alert("recovered", port=5210, duration_ms=1000)


def test_hung():
    """A web server that does not answer: others get theirs meanwhile, it gets it later."""
    config("mail", "webhook", "alertmanager")
    write(f"{DROPINS}/last", "#!/bin/sh\ntouch /run/good\n", 0o755)
    Web.hang.clear()
    try:
        with Process([PROGRAM], env=environment("low", port=5250)) as helper:
            wait_mails(1)
            wait_for(lambda: active("port=5250"), "the alert in Alertmanager")
            wait_for(lambda: os.path.exists("/run/good"), "the drop-in")
            equal(helper.poll(), None, "status while the server hangs")
            Web.hang.set()
            equal(helper.wait(), 0, "status after it answered")
        Web.hang.clear()
        config("webhook", webhook_timeout=2)
        seq = alert("low", port=5250, status=1)
    finally:
        Web.hang.set()
    equal(len(waiting("webhook")), 1, "in the spool")
    has(complaints(), "webhook: no answer in time; 1 message(s) wait for the next alert")
    Web.got.clear()
    config("webhook", "alertmanager")
    alert("recovered", port=5250, duration_ms=1000)
    equal([b["seq"] for b in posted("/hook")], [seq, seq + 1], "posts")
    equal(waiting("webhook"), [], "in the spool")


def test_dead_mail():
    """A mail system that fails: mails wait, and come in order; --flush tries, too."""
    config("mail", "webhook", mail_command="/bin/false")
    alert("low", status=1)
    alert("exhausted", status=1, duration_ms=1000)
    equal(len(posted("/hook")), 2, "posts")
    equal(len(waiting("mail")), 2, "in the spool")
    has(complaints(), "mail: /bin/false ended with 1; 2 message(s) wait")
    equal(run([PROGRAM, "--flush"], check=False).returncode, 1, "--flush")
    config("mail")
    run([PROGRAM, "--flush"])
    equal([m["X-Khealthd-Event"] for m in wait_mails(2)], ["low", "exhausted"], "events")
    equal(waiting("mail"), [], "in the spool")


def test_refused():
    """What a server will never take does not hold up what comes after it."""
    config("webhook")
    Web.answer = 400
    try:
        alert("low")
    finally:
        Web.answer = 200
    has(complaints(), "is given up: the server answers 400")
    equal(waiting("webhook"), [], "in the spool")
    # But an error of the server's own is tried again.
    Web.answer = 503
    try:
        alert("low", status=1)
    finally:
        Web.answer = 200
    equal(len(waiting("webhook")), 1, "in the spool")


def test_bounded():
    """The spool has a bound: the oldest go, and are counted."""
    config("mail", "textfile", mail_command="/bin/false", spool_files=2)
    seqs = [alert("low", status=1) for _ in range(4)]
    equal([int(f.rsplit(".", 1)[1]) for f in waiting("mail")], seqs[2:], "in the spool")
    has(complaints(), "is given up: the spool is full")
    has(read(TEXTFILE), 'khealth_alert_dropped_total{output="mail"} 2\n')
    config("mail", mail_command="/bin/false", spool_kbytes=3)
    alert("low", status=1)
    true(sum(os.path.getsize(f) for f in waiting("mail")) <= 3072, "too large")


def test_full_disk():
    """A full disk: everything is sent all the same, and what cannot be waits elsewhere."""
    os.makedirs("/var/lib/khealth-alert", exist_ok=True)
    run("mount -t tmpfs -o size=64k tmpfs /var/lib/khealth-alert")
    try:
        run("cat /dev/zero >/var/lib/khealth-alert/fill", check=False)
        config("mail", "webhook", mail_command="/bin/false")
        alert("low", status=1)
        equal(len(posted("/hook")), 1, "posts")
        equal(len(glob.glob(f"{STATE}/spool/mail/[0-9]*")), 1, "in the other spool")
        config("mail", "webhook")
        alert("exhausted", duration_ms=1000)
        equal(len(wait_mails(2)), 2, "mails")
        true(all("What is usually turned" in m.get_payload() for m in mails()), "cut mail")
    finally:
        run("umount /var/lib/khealth-alert")


def test_full_everything():
    """No disk takes a file: it is sent from memory."""
    places = "/var/lib/khealth-alert", STATE
    for place in places:
        os.makedirs(place, exist_ok=True)
        run(f"mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs {place}; cat /dev/zero >{place}/fill; true")
    try:
        config("mail", "webhook", "alertmanager", "log", "textfile")
        seq = alert("low", port=5220)
        equal(len(wait_mails(1)), 1, "mails")
        has(mails()[0].get_payload(), "What is usually turned")
        equal(len(posted("/hook")), 1, "posts")
        equal(len(active("port=5220")), 1, "alerts")
        equal(len(journal(seq)), 1, "log")
    finally:
        for place in places:
            run(f"umount {place}")
    alert("recovered", port=5220, duration_ms=1000)


def test_killed_by_kernel():
    """The kernel kills it while mail hangs: others got theirs, the mail comes later, whole."""
    config("mail", "webhook", mail_command="/run/hang", mail_timeout=60)
    write("/run/hang", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    settings(helper_timeout_ms=15000)
    timeouts = int(read(SYSFS + "helper/timeouts"))
    try:
        write_kernel(SYSFS + "sock_rcvbuf/test", 1)
        wait_for(lambda: int(read(SYSFS + "helper/timeouts")) > timeouts, "the kill")
        wait_for(lambda: read(SYSFS + "helper/last_status").strip() == "137", "its end")
    finally:
        settings(helper_timeout_ms=300000)
    equal(len(posted("/hook")), 1, "posts")
    equal(len(waiting("mail")), 1, "in the spool")
    config("mail")
    alert("low")
    equal([m["X-Khealthd-Event"] for m in wait_mails(2)], ["test", "low"], "mails")
    true(all("What is usually turned" in m.get_payload() for m in mails()), "cut mail")


def test_killed_anywhere():
    """Killed again and again in the middle: no half mail, no half post, and it goes on."""
    config("mail", "webhook", "textfile")
    seqs = []
    for tenths in (4, 9, 14, 18, 22, 28):
        env = environment("low")
        seqs.append(int(env["KHEALTHD_SEQ"]))
        with Process([PROGRAM], env=env, start_new_session=True,
                     stdin=subprocess.DEVNULL) as helper:
            time.sleep(tenths / 10)
            try:
                os.killpg(helper.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    seqs.append(alert("low"))
    equal(waiting("mail") + waiting("webhook"), [], "in the spool")
    wait_for(lambda: str(seqs[-1]) in [m["X-Khealthd-Seq"] for m in mails()], "the last mail")
    for m in mails():
        has(m.get_payload(), "LOW HIGH in percent")
    true({b["seq"] for b in posted("/hook")} <= set(seqs), "strange posts")
    # What was in the spool when it was killed came to both, or to the one it was for.
    run("promtool check metrics <" + TEXTFILE)


def test_at_once():
    """Two runs at once: everything comes once."""
    config("mail", "webhook", "alertmanager")
    envs = [environment("low", port=5230) for _ in range(3)]
    runs = [subprocess.Popen([PROGRAM], env=env) for env in envs]   # pylint: disable=R1732
    for helper in runs:
        helper.wait()
    alert("recovered", port=5230, duration_ms=1000)
    seqs = [int(env["KHEALTHD_SEQ"]) for env in envs] + [last_seq]
    equal(sorted(int(m["X-Khealthd-Seq"]) for m in wait_mails(4)), seqs, "mails")
    equal(sorted(b["seq"] for b in posted("/hook")), seqs, "posts")
    equal(active("port=5230"), [], "alerts")


def test_environment():
    """An environment that lies: nothing of it is run, sent or believed."""
    config("mail", "webhook", "log", "alertmanager")
    evil = "$(touch /run/evil)`touch /run/evil`"
    alert(free=f"1;{evil}", port="5201\nBcc: mallory", cgroup="../../..", netns="1/d;e",
          family="010", ifindex=f"a[{evil}]", capacity="99999999999999999999999", foo=evil)
    alert(monitor="x\nBcc: mallory", status=1)
    alert(event="low\n", status=1)
    alert(event=evil, status=1)
    mail = wait_mails(1)[0]
    equal(len(mails()), 1, "mails")
    true(not os.path.exists("/run/evil"), "it was run")
    lacks(mail.as_string(), "mallory")
    lacks(mail.as_string(), "touch")
    body = posted("/hook")[0]
    for name in ("free", "port", "cgroup", "netns", "family", "ifindex", "capacity", "foo"):
        true(name not in body, f"{name} is believed")
    has(complaints(), "KHEALTHD_PORT has a value that the kernel does not set")
    alert("recovered", duration_ms=1000)


def test_names():
    """Names that users choose: in mail, JSON and journal as text, and nothing else."""
    config("mail", "webhook", "log", "alertmanager")
    rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rx.bind(("127.0.0.1", 5240))
    cookie = int.from_bytes(rx.getsockopt(socket.SOL_SOCKET, 57, 8), sys.byteorder)
    comm = read("/proc/self/comm").strip()
    seqs = []
    try:
        for name in 'x",pid=1,fd=3', 'a"b\\c\x07\n\xe4<':
            with open("/proc/self/comm", "w", encoding="latin-1") as f:
                f.write(name)
            seqs.append(alert(port=5240, sock_cookie=cookie))
    finally:
        write_kernel("/proc/self/comm", comm)
        rx.close()
    pid = f"(pid {os.getpid()})"
    # It says it is process 1.
    equal(posted("/hook")[0]["process"], 'x",pid=1,fd=3 ' + pid, "process")
    equal(posted("/hook")[1]["process"], 'a"b\\c? ?< ' + pid, "process")
    has(active("port=5240")[0]["annotations"]["process"], 'a"b\\c?')
    has(wait_mails(2)[1].get_payload(), 'a"b\\c?')
    equal([len(journal(seq)) for seq in seqs], [1, 1], "log entries")
    alert("recovered", port=5240, duration_ms=1000)


def test_bad_config():
    """Bad settings: a clear line in the log, and the default; nothing is run."""
    write(CONFIG, "mail=off\nwebhook=perhaps\nlog_timeout=1h\nmail_to=root;id\nnonsense\n"
          "no_such=1\nwebhook_url=$(touch /run/evil)\nmail_per_hour=\n  mail=on\n"
          "textfile=off\nmail_events=low often\n")
    alert("low")
    told = complaints()
    for part in (f"{CONFIG}, line 2: webhook cannot be 'perhaps': it stays 'auto'",
                 "line 3: log_timeout cannot be '1h': it stays '5'",
                 "line 4: mail_to cannot be 'root;id': it stays 'root'",
                 "line 5: there is no such setting: 'nonsense'",
                 "line 6: there is no such setting: 'no_such=1'",
                 "line 8: mail_per_hour cannot be ''",
                 "line 9: there is no such setting: '  mail=on'",
                 "line 11: mail_events cannot be 'low often'"):
        has(told, part)
    true(not os.path.exists("/run/evil"), "it was run")
    equal(mails(), [], "mails")
    equal(run([PROGRAM, "--check"], check=False).returncode, 1, "--check")


def test_trust():
    """Files that others can write to are neither read nor run."""
    config("mail")
    os.chmod(CONFIG, 0o666)
    write(f"{DROPINS}/bad", "#!/bin/sh\ntouch /run/evil\n", 0o777)
    write(f"{DROPINS}/other", "#!/bin/sh\ntouch /run/evil\n", 0o755)
    os.chown(f"{DROPINS}/other", 65534, 65534)
    write(f"{DROPINS}/save~", "#!/bin/sh\ntouch /run/evil\n", 0o755)
    write(f"{DROPINS}/good", "#!/bin/sh\ntouch /run/good\n", 0o755)
    alert("low")
    true(os.path.exists("/run/good"), "the good one was not run")
    true(not os.path.exists("/run/evil"), "a bad one was run")
    has(complaints(), f"{CONFIG} is left out: it is not root's, or others can write to it")


def test_flood():
    """More mails than the limit: they are in the log, and the next mail says how many."""
    config("mail", "log", mail_per_hour=1)
    seqs = [alert("low") for _ in range(3)]
    equal(len(wait_mails(1)), 1, "mails")
    has(mails()[0].get_payload(), "The limit of 1 in an hour is reached")
    equal([len(journal(seq)) for seq in seqs], [1, 1, 1], "in the log")
    # An hour later.
    write(f"{STATE}/sent.mail", "1\n")
    alert("low")
    has(wait_mails(2)[1].get_payload(), "2 alert(s) before this one went to the log only")


def test_dropin_fails():
    """A drop-in that fails is run again with the next alert, as it would have been."""
    config()
    write(f"{DROPINS}/flaky", "#!/bin/sh\n[ -e /run/works ] || exit 1\n"
          "echo $KHEALTHD_SEQ >>/run/flaky\n", 0o755)
    seq = alert("low", status=1)
    write("/run/works", "")
    alert("low")
    equal(read("/run/flaky").split(), [str(seq), str(seq + 1)], "runs")


def test_busybox():
    """With busybox as the shell, the same mail arrives."""
    config("mail", "webhook")
    run(["busybox", "sh", PROGRAM], env=environment("low"))
    has(wait_mails(1)[0].get_payload(), "1000 of 212992 bytes free")
    equal(posted("/hook")[0]["event"], "low", "event")


def test_syslog():
    """Without journald: syslog; and without that, the kernel's log."""
    config("log")
    os.rename("/run/systemd/journal/socket", "/run/systemd/journal/away")
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        log.bind("/dev/log")
        alert("exhausted")
        log.settimeout(PATIENCE)
        line = log.recv(10000).decode()
        true(re.match(r"<27>.* khealth-alert: demo.example: sock_rcvbuf exhausted: "
                      r"UDP port 5201: 0 of 212992 bytes free", line), f"syslog: {line}")
        os.unlink("/dev/log")
        alert("low")
        has(run("dmesg"), "khealth-alert: demo.example: sock_rcvbuf low: UDP port 5201")
    finally:
        log.close()
        os.rename("/run/systemd/journal/away", "/run/systemd/journal/socket")


def test_curl_file():
    """A secret of the webhook's: it is sent, and in no process' arguments."""
    write("/run/secret", 'header = "Authorization: Bearer s3cret"\n', 0o600)
    config("webhook", webhook_curl="/run/secret", webhook_timeout=5,
           webhook_url="http://127.0.0.1:8000/hook?token=t0ken")
    Web.hang.clear()
    try:
        with Process([PROGRAM], env=environment("low")) as helper:
            seen = wait_for(lambda: run("pgrep -a curl", check=False).stdout, "curl")
            helper.wait()
    finally:
        Web.hang.set()
    lacks(seen, "t0ken")
    Web.got.clear()
    config("webhook", webhook_curl="/run/secret")
    alert("low")
    equal(Web.got[-1][1]["Authorization"], "Bearer s3cret", "the header")


def test_guide():
    """The configuration that the guide has for Alertmanager is a good one."""
    guide = read(f"{TOP}/Documentation/admin-guide/khealthd-alerts.rst")
    example = guide.split("``alertmanager.yml``::\n\n")[1].split("\n\n..")[0]
    lines = []
    for line in example.splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line[4:])
    write("/tmp/example.yml", "\n".join(lines) + "\n")
    has(run(["amtool", "check-config", "/tmp/example.yml"]), "SUCCESS")
    for severity, receiver in ("critical", "pager"), ("warning", "mail"), ("info", "nobody"):
        told = run(["amtool", "config", "routes", "test", "--config.file=/tmp/example.yml",
                    "alertname=Khealthd", "severity=" + severity])
        equal(told.split()[-1], receiver, f"who is told of {severity}")


# === Main =====================================================================

def reset():
    """As if nothing had happened yet."""
    global started          # pylint: disable=global-statement
    settings(enabled=1, holdoff_ms=0, quiet_ms=1, repeat_ms=300000, helper_timeout_ms=300000)
    for path in (STATE, "/var/lib/khealth-alert", "/run/evil", "/run/good"):
        run(["rm", "-rf", path])
    for path in glob.glob(f"{DROPINS}/*") + glob.glob(CONFIG):
        os.unlink(path)
    write(MBOX, "", 0o660)
    shutil.chown(MBOX, "root", "mail")
    os.makedirs("/run/textfile", exist_ok=True)
    Web.got.clear()
    started = time.time()


def main():
    folder, wanted = sys.argv[1], sys.argv[2:]
    run([f"{HERE}/distro-guest", folder])
    start_web()
    start_journald()
    start_alertmanager()
    run(f"{TOP}/scripts/khealth-alert --install")
    tests = [f for name, f in globals().items() if name.startswith("test_")]
    if wanted:
        tests = [f for f in tests if f.__name__[5:] in wanted]
    failed = 0
    print("TAP version 13")
    print(f"1..{len(tests)}")
    for number, test in enumerate(tests, 1):
        name = f"{test.__name__[5:]}: {test.__doc__}"
        try:
            reset()
            begin = time.time()
            test()
            print(f"ok {number} {name}")
            print(f"# {time.time() - begin:.1f} s")
        except Exception:       # pylint: disable=broad-except
            failed += 1
            print("# " + traceback.format_exc().strip().replace("\n", "\n# "))
            print(f"not ok {number} {name}")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
