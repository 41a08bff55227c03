# SPDX-License-Identifier: GPL-2.0
"""Messages on their way: what is sent, what waits, in what order, and when not."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from alert import world
from alert.world import (HELPER, NO_SOCKET, OUTPUTS, RUN, STATE, Process, Web, World, active,
                         alert, complaints, config, due_now, environment, equal, has, lacks, mails,
                         notify, posted, program, read, run, spooled, true, wait_for, wait_mails,
                         waiting, write)

NO_ALERTMANAGER = "there is no Alertmanager here"


def have_alertmanager():
    return bool(shutil.which("prometheus-alertmanager"))


def test_repeat():
    """Each instance has its own alert: repeat keeps it alive, recovered ends it."""
    if not have_alertmanager():
        return NO_ALERTMANAGER
    config("alertmanager", alertmanager_lifetime=20)
    ours = ("alertname=Khealthd", "severity!=info")
    alert("low")
    alert("exhausted", port=5202)
    equal({(a["labels"]["port"], a["labels"]["severity"]) for a in active(*ours)},
          {("5201", "warning"), ("5202", "critical")}, "alerts")
    before = {a["labels"]["port"]: a["endsAt"] for a in active(*ours)}
    config("alertmanager", alertmanager_lifetime=900)
    alert("repeat")
    alert("repeat", port=5202, free=1000, state="exhausted", duration_ms=2000)
    after = {a["labels"]["port"]: a["endsAt"] for a in active(*ours)}
    for port in before:
        true(after[port] > before[port], f"port {port} is not kept alive")
    # It stays critical until it is over, although the level is better.
    equal([a["labels"]["severity"] for a in active(*ours) if a["labels"]["port"] == "5202"],
          ["critical"], "severity")
    alert("recovered", port=5202, duration_ms=3000)
    equal([a["labels"]["port"] for a in active(*ours)], ["5201"], "alerts")
    alert("recovered", duration_ms=3000)
    equal(active(*ours), [], "alerts after recovery")
    # That it was over did not come: the next episode's is a warning again.
    alert("exhausted", port=5203)
    alert("low", port=5203)
    equal([a["labels"]["severity"] for a in active(*ours)], ["warning"], "severity")
    alert("recovered", port=5203)
    equal(active(*ours), [], "alerts after recovery")
    return None


def test_same_port():
    """Two sockets with the same port: each has its alert, and ends its own."""
    if not have_alertmanager():
        return NO_ALERTMANAGER
    config("alertmanager")
    for cookie in 1, 2:
        alert("low", port=5205, sock_cookie=cookie)
    equal(len(active("port=5205")), 2, "alerts")
    alert("recovered", port=5205, sock_cookie=1)
    equal([a["labels"]["socket"] for a in active("port=5205")], ["2"], "alerts")
    alert("recovered", port=5205, sock_cookie=2)
    equal(active("port=5205"), [], "alerts")
    return None


def test_over():
    """What is over when the helper runs: a mail, and an alert that ends by itself."""
    on = ("mail", "alertmanager") if have_alertmanager() else ("mail",)
    config(*on)
    alert("low", port=5206)
    alert("exhausted", port=5206, state="ok", refused=7, crossings_others=2, duration_ms=1500)
    if have_alertmanager():
        one = active("port=5206")
        equal([a["labels"]["severity"] for a in one], ["critical"], "severity")
        end = time.mktime(time.strptime(one[0]["endsAt"][:19], "%Y-%m-%dT%H:%M:%S"))
        true(end < time.time() + 180, "it stays open")
    first, second = wait_mails(2)
    equal(second["References"], first["References"], "thread")
    for part in ("Packets were lost", "7 packets were refused.", "Lasted     1.5 s",
                 "Crossings  1, and 2 of others", "Nothing more follows"):
        has(second.get_payload(), part)
    alert("recovered", port=5206)


def test_cluster():
    """Two Alertmanagers, of which one is dead: it arrives."""
    config("alertmanager", alertmanager_url="http://127.0.0.1:1 http://127.0.0.1:8000/")
    alert("low", port=5210)
    # Another test's program may come late.
    equal([path for path, _, _ in Web.got if path != "/notified"], ["/api/v2/alerts"],
          "posts")


def test_hung():
    """A web server that does not answer: others get theirs meanwhile, it gets it later."""
    config("mail", "webhook")
    program(f"{OUTPUTS}/last", "touch /run/khealthd/metrics/good")
    Web.hang.clear()
    try:
        with Process([HELPER], env=environment("low", port=5250)) as helper:
            wait_mails(1)
            wait_for(lambda: os.path.exists("/run/khealthd/metrics/good"), "the other program")
            equal(helper.poll(), None, "status while the server hangs")
            Web.hang.set()
            equal(helper.wait(), 0, "status after it answered")
        Web.hang.clear()
        config("webhook", webhook_timeout=2)
        seq = alert("low", port=5250, status=1)
    finally:
        Web.hang.set()
    equal(len(waiting("webhook")), 1, "waiting")
    Web.got.clear()
    config("webhook")
    due_now("webhook")
    after = alert("recovered", port=5250, duration_ms=1000)
    equal({b["seq"] for b in posted("/hook")}, {seq, after}, "posts")
    equal(waiting("webhook"), [], "waiting")


def test_dead_mail():
    """A mail system that fails: mails wait, and the worst comes first."""
    config("mail", "webhook", mail_command="/bin/false")
    first = alert("low", status=1)
    second = alert("exhausted", status=1, duration_ms=1000)
    equal(len(posted("/hook")), 2, "posts")
    equal(len(waiting("mail")), 2, "waiting")
    has(complaints(), "mail: it ended with 1; it is tried again")
    notify()                # not yet
    equal(len(waiting("mail")), 2, "waiting")
    program("/run/t.sendmail", "grep ^X-Khealthd-Seq: >>/run/khealthd/metrics/order")
    config("mail", mail_command="/run/t.sendmail")
    due_now("mail")
    notify()
    equal([int(line.split()[1]) for line in read("/run/khealthd/metrics/order").splitlines()],
          [second, first], "order")
    equal(waiting("mail"), [], "waiting")


def test_tried_again():
    """The time until it is tried again doubles."""
    config("mail", mail_command="/bin/false")
    alert("low", status=1)
    waits = []
    for _ in range(4):
        waits.append(int(os.path.basename(waiting("mail")[0]).split(".")[0]) - time.time())
        due_now("mail")
        notify(check=False)
    for i, wait in enumerate(waits):
        true(abs(wait - 60 * 2 ** i) < 30, f"waits: {waits}")


def test_bounded():
    """What waits has a bound: the least of it is given up."""
    config("mail", mail_command="/bin/false", waiting_max=2, mail_limit=0)
    worst = alert("exhausted", status=1)    # it was tried, and what is fresh was not
    seqs = spooled(*[("low", {"port": port, "uid": 1000}) for port in range(1, 5)])
    notify(check=False)
    left = sorted(int(os.path.basename(f).split(".")[3]) for f in waiting("mail"))
    equal(left, [worst, seqs[-1]], "waiting")
    has(complaints(), "are given up: too many wait")


def test_full_disk():
    """A full disk: it is sent all the same, and what cannot be waits in memory."""
    run(f"mount -t tmpfs -o size=16k,mode=711,uid=$(id -u khealthd) tmpfs {STATE}")
    try:
        run(f"cat /dev/zero >{STATE}/fill", check=False)
        config("mail", "webhook", mail_command="/bin/false")
        alert("low", status=1)
        equal(len(posted("/hook")), 1, "posts")
        equal(len(waiting("mail", RUN)), 1, "waiting in /run")
        config("mail", "webhook")
        alert("exhausted", duration_ms=1000)
        equal(len(wait_mails(1)), 1, "mails")
        true(all("What is usually turned" in m.get_payload() for m in mails()), "cut mail")
        config("webhook", webhook_limit=1)
        sent = len(posted("/hook"))
        for _ in range(4):
            alert("low", monitor="packet_ring", TROUBLED_DS=6, unit="frames")
        equal(len(posted("/hook")), sent + 1, "posts, of which one an hour may come")
    finally:
        run(f"umount {STATE}")


def test_full_everything():
    """No disk takes a file: it is sent from memory, to everybody."""
    places = STATE, RUN
    for place in places:
        run(f"mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs {place}; cat /dev/zero >{place}/fill; true")
    try:
        config("mail", "webhook")
        alert("low", port=5220, status=None)
        equal(len(wait_mails(1)), 1, "mails")
        has(mails()[0].get_payload(), "What is usually turned")
        equal(len(posted("/hook")), 1, "posts")
    finally:
        for place in places:
            run(f"umount {place}")


def test_killed_anywhere():
    """Killed again and again in the middle: no half mail, no half post, and it goes on."""
    config("mail", "webhook")
    seqs = []
    for hundredths in (1, 3, 6, 10, 15, 25, 40):
        env = environment("low")
        seqs.append(int(env["KHEALTHD_SEQ"]))
        with Process([HELPER], env=env, start_new_session=True,
                     stdin=subprocess.DEVNULL) as helper:
            time.sleep(hundredths / 100)
            try:
                os.killpg(helper.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    for output in "mail", "webhook":
        due_now(output)
    seqs.append(alert("low", status=None))
    equal(waiting("mail") + waiting("webhook"), [], "waiting")
    equal(glob.glob(f"{STATE}/spool/[0-9]*"), [], "in the spool")
    wait_for(lambda: str(seqs[-1]) in [m["X-Khealthd-Seq"] for m in mails()], "the last mail")
    for m in mails():
        has(m.get_payload(), "What is usually turned")
    true({b["seq"] for b in posted("/hook")} <= set(seqs), "strange posts")


def test_at_once():
    """Three runs at once: everything comes once."""
    config("mail", "webhook")
    envs = [environment("low", port=5230) for _ in range(3)]
    runs = [subprocess.Popen([HELPER], env=env) for env in envs]   # pylint: disable=R1732
    for helper in runs:
        equal(helper.wait(), 0, "status")
    seqs = [int(env["KHEALTHD_SEQ"]) for env in envs]
    equal(sorted(int(m["X-Khealthd-Seq"]) for m in wait_mails(3)), seqs, "mails")
    equal(sorted(b["seq"] for b in posted("/hook")), seqs, "posts")


def test_background():
    """A mail system that delivers by a child: it is waited for."""
    config("mail", mail_command="/run/t.sendmail")
    program("/run/t.sendmail", "cat >/dev/null; (sleep 2; touch /run/khealthd/metrics/good) "
            "</dev/null >/dev/null 2>&1 &")
    alert("low")
    true(os.path.exists("/run/khealthd/metrics/good"), "it was not waited for")


def test_own_output():
    """A program of one's own: what it finds, what it says, and whose it must be."""
    config()
    with open(world.CONFIG, "a", encoding="utf-8") as f:
        f.write("ticket_queue=net work\nticket_events=exhausted\n")
    program(f"{OUTPUTS}/ticket", "env >/run/khealthd/metrics/env; cat >/run/khealthd/metrics/text\n"
            "[ -e /run/good ] || { echo no queue >&2; exit 1; }")
    program(f"{OUTPUTS}/bad", "touch /run/khealthd/metrics/evil")
    os.chmod(f"{OUTPUTS}/bad", 0o777)
    program(f"{OUTPUTS}/other", "touch /run/khealthd/metrics/evil")
    os.chown(f"{OUTPUTS}/other", world.NOBODY, world.NOBODY)
    program(f"{OUTPUTS}/save~", "touch /run/khealthd/metrics/evil")
    alert("exhausted", status=1)
    env = read("/run/khealthd/metrics/env")
    for part in ("KHEALTH_TICKET_QUEUE=net work\n", "KHEALTHD_EVENT=exhausted\n",
                 "TROUBLED_DS=4\n", "KHEALTH_SEVERITY=critical\n",
                 "KHEALTH_SUMMARY=demo.example: sock_rcvbuf exhausted: UDP port 5201: 3 lost"):
        has(env, part)
    lacks(env, "LISTEN_FDS")
    has(read("/run/khealthd/metrics/text"), "Packets are lost")
    has(complaints(), "ticket: no queue; it is tried again")
    true(not os.path.exists("/run/khealthd/metrics/evil"), "another one's program was run")
    has(complaints(), f"bad is not run: {OUTPUTS}/bad is not root's, or others can write to it")
    write("/run/good", "")
    due_now("ticket")
    notify(check=False)
    equal(waiting("ticket"), [], "waiting")


def test_masked():
    """An administrator's file takes the place of ours; /dev/null switches one off."""
    config("webhook", "mail")
    program(f"{OUTPUTS}/webhook", "echo mine >/run/khealthd/metrics/good")
    alert("low")
    equal(read("/run/khealthd/metrics/good"), "mine\n", "which one was run")
    equal(Web.got, [], "posts")


def test_min_duration():
    """A low that did not last is in the log only; one that lasts is sent; so is worse."""
    config("mail", min_duration=1000)
    alert("low", port=1)
    alert("recovered", port=1, duration_ms=500)
    alert("low", port=2, state="ok", duration_ms=20)
    due_now("mail")
    notify()
    equal(mails(), [], "mails of what was short")
    alert("low", port=3)
    due_now("mail")
    notify()
    alert("low", port=4)
    alert("exhausted", port=4)
    equal(sorted(m["X-Khealthd-Event"] for m in mails()), ["exhausted", "low"], "mails")
    equal(waiting("mail"), [], "waiting")


def test_silence():
    """What is silenced goes to the log only, and until its date only."""
    config("mail", "webhook")
    write("/etc/khealthd/silences", "# nothing\nuntil=2099-01-01 port=5300-5310 uid=0\n"
          "until=2001-01-01 monitor=sock_rcvbuf\nuntil=2099-01-01\nmonitor=sock_rcvbuf\n"
          "until=2099-01-01 monitor=sock_rcvbuf port=5311 # maintenance\n")
    for port in 5300, 5310, 5311:
        alert("exhausted", port=port)
    equal(Web.got, [], "posts")
    for port in 5299, 5312:
        alert("exhausted", port=port)
    alert("exhausted", port=5300, uid=1)
    equal(len(mails()), 3, "mails")
    done = run([world.KHEALTH, "check"], check=False)
    for line in 4, 5:
        has(done.stdout, f"silences, line {line} cannot be understood")


def test_severity():
    """What it is worth: by the kind of listener, and by rules of one's own."""
    config("webhook")

    def severity(event, **more):
        Web.got.clear()
        alert(event, **more)
        return posted("/hook")[0]["severity"]

    equal(severity("exhausted", family=16, protocol=9, port=None), "critical", "auditd")
    equal(severity("low", uid=1000), "info", "a user's")
    equal(severity("exhausted", uid=1000), "warning", "a user's, exhausted")
    equal(severity("exhausted", uid=0), "critical", "a service's")
    equal(severity("exhausted", port=5353), "info", "discovery")
    write("/etc/khealthd/severity", "info protocol=udp port=5201\nloud monitor=*\n")
    equal(severity("exhausted"), "info", "by a rule")
    equal(severity("exhausted", port=1), "critical", "by the vendor's")
    os.chmod("/etc/khealthd/severity", 0o666)
    equal(severity("exhausted"), "critical", "by a file that others can write to")


def test_hand_over():
    """With a socket to knock on, the helper only knocks; without a listener it sends."""
    config("mail")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{RUN}/notify")
        alert("low")
        equal(mails(), [], "mails: that is the service's")
        sock.settimeout(world.PATIENCE)
        equal(sock.recv(10), b"1", "the knock")
    equal(len(glob.glob(f"{STATE}/spool/[0-9]*")), 1, "in the spool")
    alert("low")
    equal(len(wait_mails(2)), 2, "mails")


def test_apprise():
    """apprise: title, text and kind of message; its file must be root's alone."""
    place = "/etc/khealthd/kept-urls"
    write(place, "json://127.0.0.1:8000/apprise\n")
    config("apprise", apprise_config=place, apprise_timeout=600)

    def alert_by_service(event, **more):
        """The helper alone has 20 s for all; a Python program can need them to start."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(f"{RUN}/notify")
            alert(event, **more)
        os.unlink(f"{RUN}/notify")
        run([world.KHEALTH, "notify", "--seconds", "600"], check=False)

    alert_by_service("exhausted", **dict(NO_SOCKET, monitor="skb_alloc", unit="pages", node=0))
    body = posted("/apprise")[0]
    equal(body["type"], "failure", "type")
    has(body["title"], "skb_alloc exhausted")
    has(body["message"], "What is usually turned")
    Web.answer = 500
    alert_by_service("low")
    equal(len(waiting("apprise")), 1, "waiting")
    Web.answer = 200
    due_now("apprise")
    run([world.KHEALTH, "notify", "--seconds", "600"])
    equal([b["type"] for b in posted("/apprise")], ["failure", "warning"], "types")
    os.chown(place, world.NOBODY, world.NOBODY)
    alert_by_service("low")
    equal(len(posted("/apprise")), 2, "posts by another user's file")
    has(complaints(), f"apprise_config: {place} is not root's")


def test_secret():
    """A secret of the webhook's: it is sent, and in no process' arguments."""
    write("/etc/khealthd/secret", 'header = "Authorization: Bearer s3cret"\n', 0o640)
    shutil.chown("/etc/khealthd/secret", "root", "khealthd")
    config("webhook", webhook_curl="/etc/khealthd/secret", webhook_timeout=5,
           webhook_url="http://127.0.0.1:8000/hook?token=t0ken")
    os.chmod(world.CONFIG, 0o640)
    shutil.chown(world.CONFIG, "root", "khealthd")
    Web.hang.clear()
    try:
        with Process([HELPER], env=environment("low")) as helper:
            wait_for(lambda: "curl" in run("ps -eo args", check=False).stdout, "curl")
            seen = run("ps -eo args")
            Web.hang.set()
            helper.wait()
    finally:
        Web.hang.set()
        os.unlink("/etc/khealthd/secret")
    lacks(seen, "t0ken")
    lacks(seen, "s3cret")
    equal(Web.got[-1][1]["Authorization"], "Bearer s3cret", "the header")
    has(Web.got[-1][0], "token=t0ken")
    World.last_seq += 1


def test_results():
    """What became of the last message is on record, for khealth test."""
    config("mail", "webhook")
    Web.answer = 400
    alert("test")
    results = json.loads(read(f"{STATE}/results"))
    equal(results["mail"]["result"], "sent", "mail")
    equal(results["webhook"]["result"], "refused: the server answers 400", "webhook")
    equal(results["alertmanager"]["result"], "off", "Alertmanager")
