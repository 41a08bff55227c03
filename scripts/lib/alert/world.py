# SPDX-License-Identifier: GPL-2.0
"""
What the tests of khealth share: the world around it, on the host in namespaces of
its own, or in a guest with khealthd; alerts; and what became of them.
"""

import fcntl
import glob
import http.server
import json
import mailbox
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))

sys.path.insert(0, f"{TOP}/selftests")
from khealthd_lib import PATIENCE, equal, true, wait_for    # noqa: E402, pylint: disable=wrong-import-position

HELPER = "/usr/sbin/khealth-alert"
KHEALTH = "/usr/bin/khealth"
CONFIG = "/etc/khealthd/khealth.conf"
OUTPUTS = "/etc/khealthd/outputs"
STATE = "/var/lib/khealthd"
RUN = "/run/khealthd"
MBOX = "/var/mail/root"
SYSCTL = "/proc/sys/kernel/khealthd/"
SYSFS = "/sys/kernel/khealthd/"
ALERTMANAGER = "http://127.0.0.1:9093"
NOBODY = 65534

IN_GUEST = False        # set by the runner
BUILD = SRCTREE = None


# === Small things =============================================================

def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


def write_kernel(path, value):
    with open(path, "w", encoding="latin-1") as f:
        f.write(f"{value}\n")


def program(path, text):
    """A shell script."""
    write(path, "#!/bin/sh\n" + text, 0o755)


def no_report(text):
    """Of a sanitizer, whatever the status is that it ended with."""
    true("Sanitizer" not in text and "runtime error" not in text, f"a report: {text}")


def run(command, check=True, **more):
    done = subprocess.run(command, shell=isinstance(command, str), check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **more)
    no_report(done.stdout)
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}")
    return done.stdout if check else done


class Process(subprocess.Popen):
    """One that is gone when its test is over, however that ended."""

    def __exit__(self, *how):
        self.kill()
        super().__exit__(*how)


def has(text, part):
    true(part in text, f"no {part!r} in:\n{text}")


def lacks(text, part):
    true(part not in text, f"{part!r} in:\n{text}")


# === The world around =========================================================

class Web(http.server.BaseHTTPRequestHandler):
    """A web server: keeps what it gets, and answers as it is told."""

    got = []
    asked = 0                       # how often, whatever the answer was
    answer = 200
    answers = {}                    # by the alert's number
    hang = threading.Event()        # set: it answers; cleared: it does not
    hang.set()

    def do_POST(self):              # pylint: disable=invalid-name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Web.asked += 1
        Web.hang.wait()
        seq = body.get("seq") if isinstance(body, dict) else None
        answer = Web.answers.get(seq, Web.answer)
        if answer == 200:
            Web.got.append((self.path, self.headers, body))
        try:
            self.send_response(answer)
            self.end_headers()
        except (BrokenPipeError, ConnectionResetError):
            pass                    # it was tired of waiting

    def log_message(self, *_):      # pylint: disable=arguments-differ
        pass


def start_web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Web)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def start_alertmanager():
    if not shutil.which("prometheus-alertmanager"):
        return
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


class Log:
    """A syslog of our own: what the program has to say."""

    lines = []
    sock = None

    @classmethod
    def start(cls):
        if os.path.exists("/dev/log"):
            os.unlink("/dev/log")
        cls.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        cls.sock.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        threading.Thread(target=cls.listen, daemon=True).start()

    @classmethod
    def listen(cls):
        while True:
            line = cls.sock.recv(65536).decode(errors="replace")
            cls.lines.append(line)

    @classmethod
    def text(cls):
        """All of it: what came before a line of our own is there when that is."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
            mark.sendto(b"mark", "/dev/log")
        wait_for(lambda: cls.lines and cls.lines[-1] == "mark", "the log")
        cls.lines.remove("mark")
        return "\n".join(cls.lines)


def complaints():
    """What the program has to say itself, since the test began."""
    if IN_GUEST and os.path.exists("/run/systemd/journal/socket"):
        run("journalctl --sync")
        return run(f"journalctl -q -o cat -t khealth -p err --since @{World.started}")
    return Log.text()


def mails():
    """All that were delivered. dma locks the file while it writes one to it."""
    with open(MBOX, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return sorted(mailbox.mbox(MBOX), key=lambda m: f"{m['Date']} {m['X-Khealthd-Seq']}")


def wait_mails(count):
    wait_for(lambda: len(mails()) >= count, f"{count} mail(s)")
    return mails()


def posted(path):
    return [body for where, _, body in Web.got if where == path]


def active(*matchers):
    """The alerts that Alertmanager has, that are not over."""
    filters = urllib.parse.urlencode([("filter", m) for m in matchers])
    with urllib.request.urlopen(f"{ALERTMANAGER}/api/v2/alerts?{filters}") as answer:
        return json.load(answer)


def amtool(*matchers):
    """The same as a person sees it."""
    return run(["amtool", f"--alertmanager.url={ALERTMANAGER}", "alert", "query", *matchers])


def waiting(output, base=STATE):
    """What waits, as it is sorted by the program's own name for it."""
    return sorted(glob.glob(f"{base}/queue/{output}/[0-9]*"))


def aside(output):
    return sorted(glob.glob(f"{STATE}/aside/{output}/[0-9]*"))


def due_now(output):
    """As if the time to try again had come."""
    for path in waiting(output):
        parts = os.path.basename(path).split(".")
        parts[0] = "0"
        os.rename(path, os.path.join(os.path.dirname(path), ".".join(parts)))


def notify(check=True):
    return run([KHEALTH, "notify"], check=check)


# === Alerts ===================================================================

class World:
    """What changes from test to test."""
    started = 0
    last_seq = 1000000


OFF = ("log", "mail", "webhook", "alertmanager", "apprise")


def config(*on, **settings):
    lines = [f"{output}={'on' if output in on else 'off'}\n" for output in OFF]
    known = {"webhook_url": "http://127.0.0.1:8000/hook", "alertmanager_url": ALERTMANAGER,
             "facts_ms": 5000}
    # No test is about how fast something is, but for those that set it.
    known.update({f"{output}_timeout": 60 for output in OFF})
    known.update(settings)
    write(CONFIG, "".join(lines) + "".join(f"{k}={v}\n" for k, v in known.items()))


def environment(event, **more):
    """What the kernel sets, in a made-up case."""
    World.last_seq += 1
    env = dict(TROUBLED_DS="4", KHEALTHD_ABI="1", KHEALTHD_MONITOR="sock_rcvbuf",
               KHEALTHD_EVENT=event, KHEALTHD_SEQ=str(World.last_seq), KHEALTHD_UNIT="bytes",
               KHEALTHD_LOW="12", KHEALTHD_HIGH="25", KHEALTHD_CROSSINGS="1",
               KHEALTHD_CROSSINGS_OTHERS="0",
               HOME="/", PATH="/sbin:/bin:/usr/sbin:/usr/bin")
    if event != "test":
        env.update(KHEALTHD_STATE={"exhausted": "exhausted", "recovered": "ok"}.get(event, "low"),
                   KHEALTHD_REFUSED="3" if event == "exhausted" else "0",
                   KHEALTHD_OTHERS="0", KHEALTHD_DURATION_MS="0",
                   KHEALTHD_FREE="0" if event == "exhausted" else "1000",
                   KHEALTHD_CAPACITY="212992", KHEALTHD_FAMILY="2",
                   KHEALTHD_PROTOCOL="17", KHEALTHD_PORT="5201", KHEALTHD_UID="0",
                   KHEALTHD_SOCK_COOKIE="987654",
                   KHEALTHD_NETNS=str(os.stat("/proc/self/ns/net").st_ino))
    if event == "recovered":    # it has no level that was above the high watermark
        del env["KHEALTHD_FREE"], env["KHEALTHD_CAPACITY"]
    for name, value in more.items():
        name = name if name.isupper() and "_" in name else f"KHEALTHD_{name.upper()}"
        if value is None:
            env.pop(name, None)
        else:
            env[name] = str(value)
    return env


# What the kernel's own alerts have that are of no socket.
NO_SOCKET = dict(family=None, protocol=None, port=None, sock_cookie=None, uid=None, netns=None)


def alert(event="low", status=0, before=(), **more):
    """Run the program as the kernel does. Return the alert's number."""
    env = environment(event, **more)
    done = subprocess.run([*before, HELPER], env=env, stdin=subprocess.DEVNULL, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True)
    no_report(done.stdout)
    if status not in (None, done.returncode):
        equal(done.returncode, status,
              f"exit status (it said: {done.stdout}{complaints()})")
    return int(env["KHEALTHD_SEQ"])


def spooled(*alerts):
    """Alerts that nobody has sent yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{RUN}/notify")
        seqs = [alert(event, **more) for event, more in alerts]
    os.unlink(f"{RUN}/notify")
    return seqs


def cookie_of(sock):
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 57, 8), sys.byteorder)


# === Each test begins with nothing ============================================

def reset():
    if IN_GUEST:
        for name, value in (("enabled", 1), ("holdoff_ms", 0), ("quiet_ms", 1),
                            ("repeat_ms", 300000), ("helper_timeout_ms", 300000)):
            write_kernel(SYSCTL + name, value)
    for path in (STATE, RUN, "/run/evil", "/run/good", *glob.glob("/run/t.*")):
        run(["rm", "-rf", path])
    for path in glob.glob(f"{OUTPUTS}/*") + glob.glob("/etc/khealthd/[ks]*"):
        os.unlink(path)
    run(f"systemd-tmpfiles --create {TMPFILES}")
    write(MBOX, "", 0o660 if IN_GUEST else 0o666)
    shutil.chown(MBOX, "root", "mail")
    Web.got.clear()
    Web.answers.clear()
    Web.answer = 200
    Web.hang.set()
    Log.lines.clear()
    World.started = time.time()


TMPFILES = "/usr/lib/tmpfiles.d/khealthd.conf"
