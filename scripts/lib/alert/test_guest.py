# SPDX-License-Identifier: GPL-2.0
"""From the kernel to a person, with a mail system, a journal and an Alertmanager."""

import json
import os
import re
import socket
import subprocess
import time

from alert import world
from alert.guest import settings, state
from alert.world import (CONFIG, HELPER, KHEALTH, OUTPUTS, STATE, SYSCTL, SYSFS, Process,
                         active, alert, amtool, config, cookie_of, equal, has, lacks, mails,
                         notify, posted, program, read, run, true, wait_for, wait_mails, waiting,
                         write, write_kernel)


class Overload:
    """A UDP socket that nobody reads from, and the kernel's alerts of it."""

    def __init__(self):
        settings(holdoff_ms=0, quiet_ms=3600000)
        self.rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rx.bind(("127.0.0.1", 0))
        self.port = self.rx.getsockname()[1]
        self.cookie = cookie_of(self.rx)
        self.tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def fill(self, until):
        while state() != until:
            self.tx.sendto(b"x" * 100, ("127.0.0.1", self.port))

    def end(self):
        self.rx.close()
        self.tx.close()
        settings(quiet_ms=1)
        wait_for(lambda: state() == "ok", "the end of the episode")


def journal(seq):
    run("journalctl --sync")
    return [json.loads(line) for line in
            run(f"journalctl -q -o json -t khealth-alert KHEALTHD_SEQ={seq}").splitlines()]


def helper_is_done():
    """No helper runs, and none waits."""
    wait_for(lambda: not re.search(r"^khealth(-alert)?$", run("ps -eo comm"), re.M),
             "the helper's end")


def test_install():
    """What is installed is enabled, and an upgrade spares local files."""
    write(CONFIG, "mail=off\n")
    program(f"{OUTPUTS}/mine", "")
    settings(enabled=0)
    write_kernel(SYSCTL + "helper", "")
    run(f"make -s -C {world.TOP}/tools/khealthd srctree={world.SRCTREE} O={world.BUILD} install")
    run("/lib/systemd/systemd-sysctl /usr/lib/sysctl.d/60-khealthd.conf")
    equal(read(SYSCTL + "helper").strip(), HELPER, "helper")
    equal(read(SYSCTL + "enabled").strip(), "1", "enabled")
    equal(read(CONFIG), "mail=off\n", "the local file after an upgrade")
    true(os.path.exists(f"{OUTPUTS}/mine"), "an own output is gone after an upgrade")
    run("systemd-tmpfiles --create /usr/lib/tmpfiles.d/khealthd.conf")
    equal(os.stat(f"{STATE}/spool").st_mode & 0o7777, 0o700, "mode")
    has(run([KHEALTH, "check"], check=False).stdout, "ok       the helper is " + HELPER)


def test_check():
    """check says what is missing of the kernel's part."""
    config("log", alertmanager="on")
    settings(repeat_ms=0)
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  alertmanager: a repeat within")
    settings(repeat_ms=300000)
    equal(run([KHEALTH, "check"], check=False).returncode, 0, "status")
    settings(helper_timeout_ms=1000)
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  time for the helper")
    settings(enabled=0)
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  khealthd is off")


def test_test():
    """khealth test: from the kernel's test file to each output."""
    config("log", "mail", "webhook", "alertmanager")
    program(f"{OUTPUTS}/keep", "env >/run/khealthd/metrics/env; cat >/run/khealthd/metrics/text")
    told = run([KHEALTH, "test"])
    for line in "log", "mail", "webhook", "alertmanager", "keep":
        has(told, f"ok       {line}\n")
    equal(posted("/hook")[0]["event"], "test", "the webhook's event")
    has(read("/run/khealthd/metrics/text"), "This is a test")
    has(read("/run/khealthd/metrics/env"), "KHEALTHD_EVENT=test\n")
    equal(wait_mails(1)[0]["X-Khealthd-Event"], "test", "the mail's event")
    # It is not left open: it ends by itself within minutes.
    end = time.mktime(time.strptime(active("severity=info")[0]["endsAt"][:19],
                                    "%Y-%m-%dT%H:%M:%S"))
    true(end < time.time() + 180, "a test stays open")
    world.Web.answer = 400
    done = run([KHEALTH, "test", "backlog"], check=False)
    has(done.stdout, "MISSING  webhook: refused: the server answers 400")
    equal(done.returncode, 1, "status")


def check_overload_mails(load):
    first, second, third = wait_mails(3)
    equal(first["Subject"].replace("\n", ""),
          f"[khealthd] demo.example: sock_rcvbuf low: UDP port {load.port}, python3", "subject")
    has(second["Subject"], "sock_rcvbuf exhausted")
    has(third["Subject"], "sock_rcvbuf recovered")
    equal({m["References"] for m in (second, third)}, {first["References"]}, "thread")
    has(first["Received"], "DragonFly Mail Agent")
    has(second.get_payload().replace("\n", " "), " refused so far.")
    body = first.get_payload()
    for part in ("of 212992 bytes free", "low is 12 %", f"port {load.port}",
                 f'python3 (pid {os.getpid()})', "User       0, root", "the initial one",
                 "net.core.rmem_max = " + read("/proc/sys/net/core/rmem_max").strip(),
                 "net.core.rmem_default = ", "Nothing is lost yet"):
        has(body, part)


def test_overload():
    """One overload: three mails in a thread, and one alert that is critical, then over."""
    config("log", "mail", "webhook", "alertmanager", alertmanager_labels="team=net")
    load = Overload()
    load.fill("low")
    wait_for(lambda: len(posted("/hook")) == 1, "a post of low")
    wait_for(lambda: active("alertname=Khealthd", "severity!=info"), "an alert")
    one = active("alertname=Khealthd", "severity!=info")
    equal(len(one), 1, "alerts after low")
    equal(one[0]["labels"],
          dict(alertname="Khealthd", monitor="sock_rcvbuf", code="4", socket=str(load.cookie),
               instance="demo.example:9100", nodename="demo.example", netns="initial",
               family="IPv4", protocol="UDP", port=str(load.port), severity="warning",
               team="net"), "labels")
    has(one[0]["annotations"]["description"], "Little is left")
    load.fill("exhausted")
    wait_for(lambda: active("alertname=Khealthd", "severity=critical"), "a critical alert")
    equal(len(active("alertname=Khealthd", "severity!=info")), 1, "alerts after exhausted")
    has(amtool("severity=critical"), f"sock_rcvbuf exhausted: UDP port {load.port}")
    metrics = run([KHEALTH, "metrics"])
    has(metrics, 'khealthd_state{monitor="sock_rcvbuf",code="4",state="exhausted"} 1\n')
    run(["promtool", "check", "metrics"], input=metrics)
    load.end()
    wait_for(lambda: len(posted("/hook")) == 3, "a post of recovered")
    wait_for(lambda: not active("alertname=Khealthd", "severity!=info"), "the alert's end")
    lacks(amtool("severity!=info"), "sock_rcvbuf")
    check_overload_mails(load)
    equal([b["event"] for b in posted("/hook")], ["low", "exhausted", "recovered"], "events")
    fields = journal(posted("/hook")[1]["seq"])[0]
    equal(fields["MESSAGE_ID"], "6a4ee2ab7a1c4bc49bb7e3b1b1b57c0e", "MESSAGE_ID")
    equal(fields["PRIORITY"], "3", "PRIORITY")
    equal(fields["KHEALTHD_PORT"], str(load.port), "KHEALTHD_PORT")
    equal(fields["TROUBLED_DS"], "4", "TROUBLED_DS")
    for status in "firing", "resolved":
        wait_for(lambda s=status: ("critical", s) in
                 [(a["labels"]["severity"], a["status"])
                  for told in posted("/notified") for a in told["alerts"]],
                 f"a notification that it is {status}")
    helper_is_done()


def test_status():
    """status: the program, what it lost, and the status of a plugin."""
    config()
    equal(run([KHEALTH, "status"], check=False).returncode, 0, "status while all is well")
    load = Overload()
    load.fill("low")
    done = run([KHEALTH, "status"], check=False)
    equal(done.returncode, 1, "status while little is left")
    has(done.stdout.splitlines()[0], f"WARNING - sock_rcvbuf low: UDP port {load.port}")
    load.fill("exhausted")
    done = run([KHEALTH, "status"], check=False)
    equal(done.returncode, 2, "status while something is lost")
    true(re.match(rf"CRITICAL - python3 lost \d+ packet\(s\), sock_rcvbuf: UDP port {load.port}",
                  done.stdout), done.stdout)
    has(done.stdout, f"held by python3 (pid {os.getpid()})")
    told = json.loads(run([KHEALTH, "status", "--json"], check=False).stdout)
    episode = [m for m in told["monitors"] if m["monitor"] == "sock_rcvbuf"][0]["episodes"][0]
    equal((episode["state"], episode["port"], episode["pid"]),
          ("exhausted", load.port, os.getpid()), "the episode")
    true(episode["refused"] > 0, "refused")
    # Of another namespace than ours, not root: that there is one, not whose.
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = run(["unshare", "-n", *nobody, KHEALTH, "status"], check=False)
    equal(done.returncode, 2, "status, unprivileged in another namespace")
    lacks(done.stdout, str(load.port))
    has(done.stdout, "episode(s) are not shown")
    has(run([*nobody, KHEALTH, "status"], check=False).stdout, f"UDP port {load.port}")
    has(run([KHEALTH, "who", str(load.cookie)]), f"(pid {os.getpid()})")
    load.end()
    settings(enabled=0)
    done = run([KHEALTH, "status"], check=False)
    equal(done.returncode, 3, "status while it is off")
    has(done.stdout, "sysctl kernel.khealthd.enabled=1")
    helper_is_done()


def test_watch():
    """watch: a line for each alert; without privileges for those of one's own namespace."""
    config()
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with Process([KHEALTH, "watch", "--json"], stdout=subprocess.PIPE, text=True) as root, \
         Process([*nobody, KHEALTH, "watch"], stdout=subprocess.PIPE, text=True) as user:
        time.sleep(1)
        load = Overload()
        load.fill("low")
        line = json.loads(root.stdout.readline())
        equal((line["event"], line["port"], line["pid"]), ("low", load.port, os.getpid()),
              "what root sees")
        has(user.stdout.readline(), f"demo.example: sock_rcvbuf low: UDP port {load.port}")
        load.end()
        for process in root, user:
            process.kill()
    helper_is_done()


def test_top():
    """top: the episode is on the screen, and q ends it."""
    config()
    load = Overload()
    load.fill("exhausted")
    done = run(["script", "-qec", f"stty rows 40 cols 120; (sleep 3; printf q) | {KHEALTH} top",
                "/dev/null"], check=False, env=dict(os.environ, TERM="linux"),
               stdin=subprocess.DEVNULL)
    load.end()
    has(done.stdout, "sock_rcvbuf")
    has(done.stdout, "exhausted")
    has(done.stdout, f"port {load.port}")
    helper_is_done()


def test_who():
    """A service in a namespace: named by process, unit, cgroup, namespace."""
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
    settings(holdoff_ms=0, quiet_ms=3600000)
    with Process(["sh", "-c", "echo $$ >/sys/fs/cgroup/web.slice/shop.service/x.service/"
                  "cgroup.procs; exec ip netns exec blue python3 /tmp/server"]) as server:
        wait_mails(1)
        server.kill()
    body = mails()[0].get_payload()
    for part in ("IPv4 UDP port 5300", f"python3 (pid {server.pid})", "Service    shop.service",
                 "/web.slice/shop.service/x.service", ", blue"):
        has(body, part)
    settings(quiet_ms=1)
    wait_for(lambda: state() == "ok", "the end")
    helper_is_done()
    run("ip netns del blue")


def test_14_activation():
    """14: the service is that of the process that holds the socket, not where it was made."""
    config("mail", "webhook")
    for unit in "init.scope", "snmptrapd.service":
        os.makedirs(f"/sys/fs/cgroup/{unit}", exist_ok=True)
    maker = """
import os, socket
open("/sys/fs/cgroup/init.scope/cgroup.procs", "w").write("0")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 162))
open("/sys/fs/cgroup/snmptrapd.service/cgroup.procs", "w").write("0")
print(int.from_bytes(s.getsockopt(1, 57, 8), "little"),
      os.stat("/sys/fs/cgroup/init.scope").st_ino, flush=True)
input()"""
    with Process(["python3", "-c", maker], stdin=subprocess.PIPE,
                 stdout=subprocess.PIPE) as holder:
        cookie, cgroup = holder.stdout.readline().split()
        alert("exhausted", port=162, sock_cookie=cookie.decode(), cgroup=cgroup.decode())
    has(wait_mails(1)[0].get_payload(),
        "Service    snmptrapd.service (the socket was made in init.scope)")
    has(mails()[0]["Subject"].replace("\n", ""), "snmptrapd.service")
    equal(posted("/hook")[0]["service"], "snmptrapd.service", "service")
    has(mails()[0].get_payload(), "SNMP traps: what is lost does not come again.")


def test_netlink():
    """13: a netlink socket that lost a message of the kernel's: its process is named."""
    config("webhook")
    settings(holdoff_ms=0, quiet_ms=3600000)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        sock.bind((0, 1))
        while state() != "exhausted":
            run("ip link set lo down; ip link set lo up")
        wait_for(lambda: [b for b in posted("/hook") if b["event"] == "exhausted"], "a post")
    body = [b for b in posted("/hook") if b["event"] == "exhausted"][0]
    equal((body["pid"], body["protocol_name"], body["severity"]),
          (os.getpid(), "route", "critical"), "what is told")
    settings(quiet_ms=1)
    wait_for(lambda: state() == "ok", "the end")
    helper_is_done()


def test_killed_by_kernel():
    """The kernel kills it while mail hangs: others got theirs, the mail comes later, whole."""
    config("mail", "webhook", mail_command="/run/hang")
    program("/run/hang", "exec sleep 1000")
    settings(helper_timeout_ms=6000)
    timeouts = int(read(SYSFS + "helper/timeouts"))
    try:
        write_kernel(SYSFS + "sock_rcvbuf/test", 1)
        wait_for(lambda: int(read(SYSFS + "helper/timeouts")) > timeouts, "the kill")
        wait_for(lambda: read(SYSFS + "helper/last_status").strip() == "137", "its end")
    finally:
        settings(helper_timeout_ms=300000)
    equal(len(posted("/hook")), 1, "posts")
    equal(len(waiting("mail")), 1, "waiting")
    wait_for(lambda: "sleep 1000" not in run("ps -eo args"), "the end of all that it started")
    config("mail")
    notify()
    equal([m["X-Khealthd-Event"] for m in wait_mails(1)], ["test"], "mails")


def test_journal():
    """Names that users choose are one field of one entry in the journal."""
    config("log")
    rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rx.bind(("127.0.0.1", 5240))
    comm = read("/proc/self/comm").strip()
    try:
        write_kernel("/proc/self/comm", "x\nPRIORITY=0")
        seq = alert("exhausted", port=5240, sock_cookie=cookie_of(rx))
    finally:
        write_kernel("/proc/self/comm", comm)
        rx.close()
    entries = journal(seq)
    equal(len(entries), 1, "entries")
    equal((entries[0]["PRIORITY"], entries[0]["KHEALTH_PROCESS"]), ("3", "x PRIORITY=0"), "fields")


def test_syslog():
    """Without journald: syslog."""
    config("log")
    os.rename("/run/systemd/journal/socket", "/run/systemd/journal/away")
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if os.path.lexists("/dev/log"):
            os.unlink("/dev/log")
        log.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        alert("exhausted")
        log.settimeout(world.PATIENCE)
        line = log.recv(10000).decode()
        true(re.match(r"<27>.* khealth-alert: demo.example: sock_rcvbuf exhausted: "
                      r"UDP port 5201: 3 lost: 0 of 212992 bytes free", line), f"syslog: {line}")
    finally:
        log.close()
        os.unlink("/dev/log")
        os.symlink("/run/systemd/journal/dev-log", "/dev/log")
        os.rename("/run/systemd/journal/away", "/run/systemd/journal/socket")


def test_fleet():
    """The fragment for Alertmanager sends who is to be told; rules are as promtool wants."""
    fragment = "/usr/share/khealthd/prometheus/alertmanager.yml"
    has(run(["amtool", "check-config", fragment]), "SUCCESS")
    for severity, receiver in ("critical", "pager"), ("warning", "mail"), ("info", "nobody"):
        told = run(["amtool", "config", "routes", "test", "--config.file=" + fragment,
                    "alertname=Khealthd", "severity=" + severity])
        equal(told.split()[-1], receiver, f"who is told of {severity}")
    run("promtool test rules khealthd.rules.test.yml", cwd=f"{world.TOP}/tools/khealthd/fleet")


def forks():
    """How many processes and threads were started since the boot."""
    return int(re.search(r"processes (\d+)", read("/proc/stat")).group(1))


def test_cost():
    """Processes and time of one alert, by what it is sent to: no more than a few each."""
    for on, most in ((("log",), 20), (("log", "mail"), 35),
                     (("log", "webhook", "alertmanager"), 45)):
        config(*on)
        helper_is_done()
        before, begin = forks(), time.time()
        alert("exhausted", sock_cookie=None)
        spent = time.time() - begin
        processes = forks() - before
        print(f"# one alert, to {' and '.join(on)}: {processes} processes, {spent:.2f} s")
        true(processes < most, f"{processes} processes, to {' and '.join(on)}")
    alert("recovered", sock_cookie=None)    # nothing of it is left in Alertmanager
