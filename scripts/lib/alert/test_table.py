# SPDX-License-Identifier: GPL-2.0
"""What a review found in the helper before this one, each as a test."""

import glob
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

from alert import world
from alert.world import (CONFIG, HELPER, KHEALTH, NO_SOCKET, NOBODY, RUN, STATE, Process, Web,
                         World, alert, aside, complaints, config, cookie_of, due_now, environment,
                         equal, has, lacks, mails, notify, posted, program, read, run, true,
                         wait_for, waiting, write)


def fake_sysfs():
    """Two monitors, as a kernel has them; in this namespace only."""
    if not os.path.exists(world.SYSFS):
        run("mount -t tmpfs tmpfs /sys/kernel")
    run(["rm", "-rf", world.SYSFS])
    for name, code, unit in ("sock_rcvbuf", 4, "bytes"), ("skb_alloc", 1, "pages"):
        os.makedirs(f"{world.SYSFS}{name}")
        for file, value in (("code", code), ("unit", unit), ("state", "ok"), ("crossings", 12),
                            ("alerts", 3), ("suppressed", 1)):
            write(f"{world.SYSFS}{name}/{file}", f"{value}\n")
    os.makedirs(f"{world.SYSFS}helper")
    for file in ("runs", "failures", "start_failures", "exit_failures", "signal_failures",
                 "retries", "timeouts", "dropped", "last_status"):
        write(f"{world.SYSFS}helper/{file}", "0\n")


def test_01_textfile():
    """1: root writes into no folder that others own, and through no link."""
    fake_sysfs()
    secret = "/etc/khealthd/secret"
    write(secret, "secret\n", 0o600)
    os.makedirs("/run/t.prom/in")
    os.chown("/run/t.prom", NOBODY, NOBODY)
    done = run([KHEALTH, "metrics", "--file", "/run/t.prom/in/khealthd.prom"], check=False)
    equal(done.returncode, 3, "status for a folder below another user's")
    has(done.stdout, "is not root's, or others can write to it")
    equal(os.listdir("/run/t.prom/in"), [], "written")
    os.chown("/run/t.prom", 0, 0)
    os.symlink("/run/t.prom/in", "/run/t.prom/link")
    os.lchown("/run/t.prom/link", NOBODY, NOBODY)
    equal(run([KHEALTH, "metrics", "--file", "/run/t.prom/link/x.prom"], check=False).returncode,
          3, "status by another user's link")
    # Links where the file is to be, and where it is made.
    for name in "khealthd.prom", ".khealthd.prom.new":
        os.symlink(secret, f"/run/t.prom/in/{name}")
    run([KHEALTH, "metrics", "--file", "/run/t.prom/in/khealthd.prom"])
    equal(read(secret), "secret\n", "the link's target")
    equal(os.stat(secret).st_mode & 0o777, 0o600, "mode of the link's target")
    equal(os.lstat("/run/t.prom/in/khealthd.prom").st_mode & 0o170777, 0o100644, "the file")
    os.unlink(secret)


def test_01_spool():
    """1: nor does the helper: the folders of the user that sends lead nowhere."""
    config("mail")
    os.makedirs("/run/t.target/spool")
    for place in STATE, RUN:
        shutil.rmtree(f"{place}/spool")
        os.symlink("/run/t.target/spool", f"{place}/spool")
    alert("low")
    equal(os.listdir("/run/t.target/spool"), [], "written through a link")
    equal(len(mails()), 1, "mails: from memory")
    # A link in place of the file that it makes.
    os.unlink(f"{STATE}/spool")
    os.makedirs(f"{STATE}/spool")
    shutil.chown(f"{STATE}/spool", "khealthd", "khealthd")
    write("/run/t.target/file", "mine\n", 0o600)
    env = environment("low")
    for when in range(int(time.time()), int(time.time()) + 20):
        name = f"{when:011}.{int(env['KHEALTHD_SEQ']):020}"
        os.symlink("/run/t.target/file", f"{STATE}/spool/{name}")
        os.symlink("/run/t.target/file", f"{STATE}/spool/.{name}.new")
    run([HELPER], env=env)
    equal(read("/run/t.target/file"), "mine\n", "written through a link")
    equal(len(mails()), 2, "mails")


def test_01_unprivileged():
    """1: what sends is not root, where there is a user for it."""
    config("mail", mail_command="/run/t.sendmail")
    program("/run/t.sendmail", "id -u >/run/khealthd/metrics/uid; id -G >>/run/khealthd/metrics/uid")
    alert("low")
    uid = int(run("id -u khealthd"))
    equal(read("/run/khealthd/metrics/uid").split(), [str(uid), run("id -g khealthd").strip()],
          "who sends")


def test_02_mute():
    """2: no user can use up what others have: not root's limit, nor another one's."""
    config("mail", mail_limit=5)
    for i in range(15):
        alert("exhausted", uid=1000, sock_cookie=1)
        alert("low", uid=1000, sock_cookie=1, port=i + 1)
    equal(len(mails()), 10, "mails of the one who floods")
    alert("exhausted", uid=1001, sock_cookie=2)
    alert("low", uid=1001, sock_cookie=2)
    alert("recovered", uid=1001, sock_cookie=2)
    equal(len(mails()), 13, "another user's")
    alert("exhausted", monitor="skb_alloc", TROUBLED_DS=1, unit="pages", node=0, **NO_SOCKET)
    equal(len(mails()), 14, "the machine's")
    alert("low", uid=1000)
    result = json.loads(read(f"{STATE}/results"))["mail"]["result"]
    equal(result, "held back by the limit", "what became of it")


def test_02_holder():
    """2: another user's many files do not take the time in which the process is found."""
    wait = "import sys; print('there', flush=True); sys.stdin.read()"
    files = ("import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000)); "
             "os.setgid(65534); os.setuid(65534); "
             f"fds = [os.open('/dev/null', 0) for _ in range(19000)]; {wait}")
    holder = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
              f"s.bind(('127.0.0.1', 5245)); {wait}")
    # The one with the socket has the highest number.
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
                 for code in [files] * 3 + [holder]]
    try:
        for process in processes:
            equal(process.stdout.readline(), "there\n", "a process")
        link = os.readlink(f"/proc/{processes[-1].pid}/fd/3")
        cookie = int(re.search(r"5245.* sk:([0-9a-f]+)", run("ss -uane")).group(1), 16)
        config("webhook", facts_ms=60000)
        run(["strace", "-f", "-qq", "-e", "trace=readlinkat", "-o", "/run/new/links", HELPER],
            env=environment("exhausted", uid=0, sock_cookie=cookie, port=5245))
        looked = read("/run/new/links").splitlines()
        found = next(i for i, line in enumerate(looked) if link in line)
        true(found < 19000, f"{found} looks at files before the one of the socket's owner")
    finally:
        for process in processes:
            process.communicate()


def test_02_digest():
    """2: what the limit held back is told when the hour is over."""
    config("mail", mail_limit=1)
    for _ in range(4):
        alert("low")
    equal(len(mails()), 1, "mails")
    limits = json.loads(read(f"{STATE}/limits"))
    for bucket in limits.values():
        bucket["start"] -= 3601
    write(f"{STATE}/limits", json.dumps(limits))
    shutil.rmtree(f"{STATE}/queue")
    write(f"{STATE}/queue", "")     # it goes where there is room
    notify()
    equal(len(mails()), 2, "mails after an hour")
    digest = [m for m in mails() if m["X-Khealthd-Event"] == "digest"][0]
    has(digest["Subject"], "3 more alerts in the last hour")
    has(digest.get_payload(), "3 sock_rcvbuf low")
    notify()
    equal(len(mails()), 2, "mails: once")
    alert("low")
    equal(len(mails()), 3, "mails in the next hour")


def test_03_curl_owner():
    """3: a file with secrets and options for curl must be root's alone."""
    write("/run/t.curl", 'header = "X-Evil: 1"\n')
    os.chown("/run/t.curl", NOBODY, NOBODY)
    config("webhook", webhook_curl="/run/t.curl")
    alert("low")
    true("X-Evil" not in Web.got[0][1], "another user's options are used")
    has(complaints(), "webhook_curl: /run/t.curl is not root's")
    os.chown("/run/t.curl", 0, 0)
    alert("low")
    equal(Web.got[1][1]["X-Evil"], "1", "root's options")


def test_04_secret_value():
    """4: the value of a mistyped setting is in no log and no argument."""
    config()
    with open(CONFIG, "a", encoding="utf-8") as f:
        f.write("webhook_ulr=http://x/t0ken\nmail_timeout=t0ken\nwebhook_url=t0ken\nt0ken\n"
                "t0ken=1\n")
    alert("low")
    lines = len(read(CONFIG).splitlines())
    has(complaints(), f"line {lines - 4}: webhook_ulr: there is no such setting")
    has(complaints(), f"line {lines - 3}: mail_timeout: it cannot have this value")
    has(complaints(), f"line {lines - 1}: it is not NAME=VALUE")
    lacks(complaints(), "t0ken")
    lacks(run([KHEALTH, "check"], check=False).stdout, "t0ken")


def test_05_killed():
    """5: what the kernel kills is gone with all it started, and is not sent twice."""
    config("mail", mail_timeout=1000)
    write("/run/t.mail-hangs", "")
    env = environment("low")
    with Process([HELPER], env=env, start_new_session=True) as helper:
        wait_for(lambda: "sleep" in run(f"ps -o comm= -s {helper.pid}", check=False).stdout,
                 "sendmail")
        os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
        wait_for(lambda: not [line for line in run("ps -eo stat,comm").splitlines()
                              if line[0] != "Z" and ("sleep" in line or "sendmail" in line)],
                 "the end of all that it started")
    os.unlink("/run/t.mail-hangs")
    notify()
    equal([m["X-Khealthd-Seq"] for m in mails()], [env["KHEALTHD_SEQ"]], "mails")


def test_05_time_out():
    """5: an output that hangs is killed with all it started, and tried again."""
    config("mail", mail_timeout=1, mail_command="/run/t.sendmail")
    program("/run/t.sendmail", "sh -c 'sleep 1000; :'; :")
    alert("low", status=1)
    equal([line for line in run("ps -eo stat,args").splitlines() if "sleep 1000" in line
           and line[0] != "Z"], [], "left behind")
    has(complaints(), "mail: no answer in time; it is tried again")
    equal(len(waiting("mail")), 1, "waiting")


def test_06_backlog():
    """6: 10,000 messages for a mail system that hangs hold up no other output."""
    config("mail", "webhook", mail_timeout=1)
    write("/run/t.mail-dead", "")
    alert("low", status=1)
    path = waiting("mail")[0]
    for i in range(10000):
        os.link(path, f"{os.path.dirname(path)}/0.1.{int(time.time()) - 50}.{i}."
                      f"{i:016x}.0")
    os.unlink("/run/t.mail-dead")
    write("/run/t.mail-hangs", "")
    Web.got.clear()
    seq = alert("exhausted", status=1)
    equal([b["seq"] for b in posted("/hook")], [seq], "posts")
    true(len(waiting("mail")) <= 500, f"{len(waiting('mail'))} wait")
    has(complaints(), "message(s) are given up: too many wait")
    # The newest and worst was first, and is still there.
    true(any(f".{seq}." in f for f in waiting("mail")), "the worst is given up")


def test_07_refused():
    """7: one message that is not taken blocks no other one."""
    config("webhook")
    for answer, folder in (404, waiting), (500, waiting), (401, waiting), (400, aside):
        seq = World.last_seq + 1
        Web.answers[seq] = answer
        alert("exhausted", status=None)
        Web.got.clear()
        due_now("webhook")
        after = alert("low", status=None)
        equal([b["seq"] for b in posted("/hook")], [after], f"posts after a {answer}")
        true(any(str(seq) in f for f in folder("webhook")), f"where the {answer} is")
    has(complaints(), "webhook: a message is set aside: the server answers 400")
    # When the server is well again, they come.
    Web.answers.clear()
    Web.got.clear()
    due_now("webhook")
    notify()
    equal(len(posted("/hook")), 3, "posts")
    equal(waiting("webhook"), [], "waiting")


def test_07_no_message():
    """7: a spool file that is no message is set aside."""
    config("mail")
    write(f"{STATE}/spool/00000000001.0", "")
    write(f"{STATE}/spool/00000000001.1", "{" * 100)
    write(f"{STATE}/spool/00000000001.2", '{"monitor": 1}')
    write(f"{STATE}/spool/00000000001.3", "x" * 200000)
    os.mkfifo(f"{STATE}/spool/00000000001.4")
    os.symlink("/etc/shadow", f"{STATE}/spool/00000000001.5")
    alert("low")
    equal(len(mails()), 1, "mails")
    equal(os.listdir(f"{STATE}/spool"), [], "in the spool")
    has(complaints(), "is no message, and is set aside")


def syscalls(names, **more):
    """The system calls of one alert, until the entry has its name."""
    run(["strace", "-f", "-qq", "-o", "/run/t.strace", "-e", f"trace={names}", HELPER],
        env=environment("low", **more))
    lines = read("/run/t.strace").splitlines()
    end = [i for i, line in enumerate(lines) if "renameat(" in line and ".new" in line][0]
    return lines[:end + 1], lines[end + 1:]


def test_07_synced():
    """7: what is in the spool is on the disk: data before the name, name before the rest."""
    config("mail")
    before, after = syscalls("fsync,renameat,sendto,execve")
    true(any("fsync(" in line for line in before), "no fsync before it has its name")
    has(after[0], "fsync(")


def test_07_queue():
    """7: what cannot be put into a queue is not gone: it stays in the spool, and is sent later."""
    places = [f"{base}/queue" for base in (STATE, RUN)]
    config("mail")
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        write(place, "")
    alert("low", status=1)
    equal(len(mails()), 0, "mails")
    has(complaints(), "stays in the spool")
    fake_sysfs()
    has(run([KHEALTH, "check"], check=False).stdout, "1 alert(s) wait in the spool")
    has(run([KHEALTH, "metrics"]), "khealthd_spool_waiting 1\n")
    os.unlink(places[0])    # the other one does
    notify()
    equal(len(mails()), 1, "mails")
    alert("low")
    equal(len(mails()), 2, "mails: the next one")


def test_07_one_queue():
    """7: what cannot be put into one output's queue holds up no later one for another's."""
    config("mail", "webhook")
    places = [f"{base}/queue" for base in (STATE, RUN)]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        write(place, "")
    seqs = {alert("low", status=1, port=port) for port in (1, 2, 3)}
    for place in places:
        os.unlink(place)
        os.mkdir(place)
        write(f"{place}/mail", "")
        run(f"chown khealthd: {place}")
    notify(check=False)
    equal({b["seq"] for b in posted("/hook")}, seqs, "posts")
    equal(len(mails()), 0, "mails")


def test_07_not_removed():
    """7: a message that cannot be taken out of its queue is not sent without end."""
    config("mail")
    alert("low")
    queue = f"{STATE}/queue/mail"
    run(f"chattr +a {queue}", check=False)
    if "a" not in run(f"lsattr -d {queue}", check=False).stdout.split(" ")[0]:
        return "no folder here can be made to keep its files"
    try:
        alert("exhausted", status=1)
        equal(len(mails()), 2, "mails")
        has(complaints(), "cannot be taken out of the queue")
    finally:
        run(f"chattr -a {queue}")
    # Nor is one that is refused for good.
    config("webhook")
    Web.answer = 400
    queue = f"{STATE}/queue/webhook"
    os.makedirs(queue)
    run(f"chown khealthd: {queue}; chattr +a {queue}")
    asked = Web.asked
    try:
        alert("exhausted", status=1)
        equal(Web.asked - asked, 1, "posts")
    finally:
        run(f"chattr -a {queue}")


def test_08_switched_off():
    """8: an output that is switched off while messages wait is no error."""
    config("webhook", "mail")
    Web.answer = 503
    alert("low", status=1)
    config("mail")
    alert("low")
    due_now("webhook")
    notify()
    equal(complaints().count("tried again"), 1, "complaints")
    Web.answer = 200
    config("webhook", "mail")
    notify()
    equal(len(posted("/hook")), 1, "posts when it is on again")


def pids_cgroup():
    """A cgroup with a limit of processes, if this machine lets us have one."""
    for top in "/sys/fs/cgroup/pids", "/sys/fs/cgroup":
        place = f"{top}/khealth-test-{os.getpid()}"
        try:
            os.mkdir(place)
        except OSError:
            continue
        if os.path.exists(f"{place}/pids.max"):
            return place
        os.rmdir(place)
    return None


def with_few(pids, megabytes):
    """A command that starts what follows with so few processes and so much memory."""
    place = pids_cgroup()
    if not place:
        return None, None
    write(f"{place}/pids.max", f"{pids}\n")
    limit = f"ulimit -v {megabytes * 1024};" if megabytes else ""
    return place, ["sh", "-c", f'echo $$ >{place}/cgroup.procs; {limit} exec "$@"', "sh"]


def test_09_few_processes():
    """9: at 10 processes and 16 MB it is in the spool, and so it is with not one more."""
    for pids, megabytes in (10, 16), (1, 0):
        World.last_seq += 1
        config("mail")
        write("/run/t.mail-dead", "")
        place, before = with_few(pids, megabytes)
        if not place:
            return "no cgroup with a limit of processes can be made here"
        try:
            seq = alert("exhausted", status=None, before=before)
        finally:
            wait_for(lambda p=place: not read(f"{p}/cgroup.procs").strip(), "its end")
            os.rmdir(place)
        found = glob.glob(f"{STATE}/spool/*.{seq:020}") + \
            [f for f in waiting("mail") if f".{seq}." in f]
        equal(len(found), 1, f"in the spool with {pids}")
    os.unlink("/run/t.mail-dead")
    due_now("mail")
    notify()
    equal(len(mails()), 2, "mails, later")
    return None


def test_10_old():
    """10: what is old says so, and what is too old pages nobody."""
    config("mail", "alertmanager", alertmanager_url="http://127.0.0.1:8000")
    write("/run/t.mail-dead", "")
    Web.answer = 503
    ago = {}
    for event, age in ("exhausted", 3 * 86400), ("low", 1200):
        seq = alert(event, status=1, port=age)
        for output in "mail", "alertmanager":
            path = [f for f in waiting(output) if f".{seq}." in f][0]
            entry = json.loads(read(path))
            entry["boot"] = "another"
            entry["time"] -= age
            write(path, json.dumps(entry))
            parts = os.path.basename(path).split(".")
            parts[0], parts[2], parts[5] = "0", str(int(parts[2]) - age), "0"
            os.rename(path, f"{os.path.dirname(path)}/{'.'.join(parts)}")
            ago[event] = entry["time"]
    os.unlink("/run/t.mail-dead")
    Web.answer = 200
    notify(check=False)
    equal([m["X-Khealthd-Event"] for m in mails()], ["low"], "mails")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ago["low"]))
    has(mails()[0]["Subject"].replace("\n", ""), f"(of {when}")
    has(mails()[0]["Subject"].replace("\n", ""), "before the reboot)")
    equal(Web.got, [], "pages of what is over")
    equal((len(aside("mail")), len(aside("alertmanager"))), (1, 2), "set aside")


def labels(**more):
    Web.got.clear()
    alert("exhausted", **more)
    return [a["labels"] for a in Web.got[0][2] if a["labels"]["severity"] == "critical"][0]


def test_11_labels():
    """11: each instance has its own alert, with labels that join with node_exporter's."""
    config("alertmanager", alertmanager_url="http://127.0.0.1:8000", alertmanager_labels="team=net")
    cpu = dict(NO_SOCKET, monitor="backlog", TROUBLED_DS=2, unit="packets")
    one, two = labels(cpu=0, **cpu), labels(cpu=3, **cpu)
    true(one != two, "two CPUs are one alert")
    true(labels(sock_cookie=1) != labels(sock_cookie=2), "two sockets are one alert")
    equal((one["instance"], one["nodename"], one["team"]),
          ("demo.example:9100", "demo.example", "net"), "labels to join by")
    config("alertmanager", alertmanager_url="http://127.0.0.1:8000", alertmanager_labels="=x a=")
    true("" not in labels(sock_cookie=1), "a label without a name")
    has(complaints(), "alertmanager_labels: it cannot have this value")


def test_12_no_time():
    """12: with no time to find out anything it is sent all the same, and says so."""
    config("mail", "webhook", facts_ms=0)
    alert("exhausted", sock_cookie=1)
    has(mails()[0].get_payload(), "there was no time to find out more")
    true(len(json.dumps(posted("/hook")[0])) < 20000, "the size of a post")


def test_12_namespaces():
    """12: a namespace among two hundred is found."""
    config("webhook")
    names = [f"t{i}" for i in range(200)]
    try:
        run("for i in $(seq 0 199); do echo netns add t$i; done | ip -batch - 2>&1 || "
            "for i in $(seq 0 199); do ip netns add t$i; done")
        with Process(["ip", "netns", "exec", "t150", "sleep", "1000"]):
            alert("low", netns=os.stat("/run/netns/t150").st_ino, sock_cookie=None)
    finally:
        run("; ".join(f"ip netns del {name}" for name in names))
    equal(posted("/hook")[0]["netns_name"], "t150", "its name")


def test_13_netlink():
    """13: the process of a netlink socket is found; and one among many UDP sockets."""
    config("webhook")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        alert("exhausted", family=16, protocol=0, port=None, sock_cookie=cookie_of(sock))
    equal(posted("/hook")[0]["pid"], os.getpid(), "who holds the netlink socket")
    has(posted("/hook")[0]["meaning"], "Changes of links, addresses and routes")
    many = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE,
                       (many + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(many)]
    try:
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        alert("exhausted", port=socks[-1].getsockname()[1], sock_cookie=cookie_of(socks[-1]))
    finally:
        for sock in socks:
            sock.close()
    equal(posted("/hook")[1]["pid"], os.getpid(), "who holds one of many")


def test_13_any_family():
    """13: so is that of a packet socket, whose namespace we are not in."""
    config("webhook")
    with Process(["unshare", "-n", "python3", "-c", """
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
print(int.from_bytes(s.getsockopt(1, 57, 8), "little"), flush=True)
time.sleep(1000)"""], stdout=subprocess.PIPE) as other:
        cookie = other.stdout.readline().decode().strip()
        alert("exhausted", family=17, protocol=3, port=None, sock_cookie=cookie, netns=1)
        equal(posted("/hook")[0].get("pid"), other.pid, "who holds it")


def test_15_waiting():
    """15: all is well: nothing waits, and a setting of two words is no setting."""
    fake_sysfs()
    config("mail")
    alert("low")
    metrics = run([KHEALTH, "metrics"])
    has(metrics, 'khealthd_messages_waiting{output="mail"} 0\n')
    if shutil.which("promtool"):
        run(["promtool", "check", "metrics"], input=metrics)
        run("promtool test rules khealthd.rules.test.yml",
            cwd=f"{world.TOP}/tools/khealthd/fleet")
    write(CONFIG, "mail=on off\n")
    done = run([KHEALTH, "check"], check=False)
    has(done.stdout, "MISSING  settings")
    has(run([KHEALTH, "check", "--settings"], check=False).stdout, "mail=auto\n")


def test_16_processes():
    """16: two processes at most, and nothing executed, until it is safe."""
    config("mail")
    rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rx.bind(("127.0.0.1", 0))
    before, _ = syscalls("process,renameat", port=rx.getsockname()[1], sock_cookie=cookie_of(rx))
    rx.close()
    started = [line for line in before if re.search(r"(clone3?|v?fork|execve)\(", line)]
    equal(len([line for line in started if "execve(" in line]), 1, f"programs: {started}")
    true(len(started) <= 3, f"processes: {started}")
