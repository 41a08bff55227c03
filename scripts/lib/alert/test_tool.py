# SPDX-License-Identifier: GPL-2.0
"""The commands and the settings, where no kernel of ours is needed."""

import json
import os
import re
import socket
import subprocess

from alert import world
from alert.test_table import fake_sysfs
from alert.world import (CONFIG, HELPER, KHEALTH, STATE, alert, complaints, config, cookie_of,
                         equal, has, lacks, mails, read, run, true, write)


def test_help():
    """khealth --help alone leads to the program that loses packets."""
    told = run([KHEALTH, "--help"])
    lines = told.splitlines()
    true(any("Which program loses packets" in line for line in lines[:4]), "the question")
    has(told, "  status [--json]")
    true(max(map(len, lines)) < 82, "a line is too long")
    for command in re.findall(r"^  ([a-z]+)", told, re.M):
        done = run([KHEALTH, command, "--no-such"], check=False) if command != "sysctl" else None
        if done:
            lacks(done.stdout, "there is no command")
            equal(done.returncode, 3, f"status of {command} --no-such")
    has(run([KHEALTH, "stauts"], check=False).stdout, "khealth --help lists them")


def test_no_kernel():
    """Without khealthd in the kernel, each command says so."""
    if world.IN_GUEST:
        return "this kernel has it"
    for command in "status", "watch", "top":
        done = run([KHEALTH, command], check=False)
        equal(done.returncode, 3, f"status of {command}")
        has(done.stdout, "this kernel has no khealthd (CONFIG_KHEALTHD)")
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  this kernel has no khealthd")
    return None


def test_settings():
    """The file that explains the settings has all of them, with their defaults."""
    explained = [line[1:] for line in
                 read(f"{world.TOP}/tools/khealthd/share/khealth.conf").splitlines()
                 if re.match(r"#[a-z_]+=", line)]
    equal(run([KHEALTH, "check", "--settings"]).splitlines(), explained, "settings")


def test_bad_settings():
    """Bad settings: a clear line, and the default; nothing is run."""
    write(CONFIG, "mail=off\nwebhook=perhaps\nmail_timeout=1h\nmail_to=root;id\nnonsense\n"
          "no_such=1\nwebhook_url=$(touch /run/evil)\nmail_limit=\n  mail=on\n"
          "mail_events=low often\nalertmanager_labels=a\nwebhook_limit=99999999999\n"
          "log=off\nmail_command=sendmail\nrunbook=\x1b[31m\n")
    alert("low")
    told = complaints()
    for line in (2, 3, 4, 7, 8, 10, 11, 12, 14, 15):
        has(told, f"{CONFIG}, line {line}: ")
    has(told, "line 5: it is not NAME=VALUE")
    has(told, "line 6: no_such: there is no such setting")
    has(told, "line 9: there is no such setting")
    true(not os.path.exists("/run/evil"), "it was run")
    equal(mails(), [], "mails")
    equal(run([KHEALTH, "check"], check=False).returncode, 1, "check")


def test_trust():
    """Settings that others can write to, or whose folder they can, are left out."""
    for path, mode in (CONFIG, 0o666), (CONFIG, 0o620), (os.path.dirname(CONFIG), 0o777):
        config("mail")
        os.chmod(CONFIG, 0o644)
        os.chmod(path, mode)
        try:
            has(run([KHEALTH, "check", "--settings"], check=False).stdout, "mail=auto\n")
            has(run([KHEALTH, "check"], check=False).stdout, "MISSING  settings")
        finally:
            os.chmod(os.path.dirname(CONFIG), 0o755)
    write("/run/t.conf", "mail=off\n")
    os.unlink(CONFIG)
    os.symlink("/run/t.conf", CONFIG)
    has(run([KHEALTH, "check", "--settings"]), "mail=off\n")
    os.lchown(CONFIG, world.NOBODY, world.NOBODY)
    has(run([KHEALTH, "check", "--settings"], check=False).stdout, "mail=auto\n")


def test_check():
    """check says what is missing, what waits, and what was refused."""
    config("mail", mail_command="/nonexistent/sendmail")
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  mail: /nonexistent/sendmail")
    config("webhook", webhook_url="")
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  webhook: the setting webhook_url")
    config("mail", mail_command="/bin/false")
    alert("low", status=1)
    has(run([KHEALTH, "check"], check=False).stdout, "MISSING  mail: 1 message(s) wait")
    config("webhook")
    world.Web.answer = 400
    alert("low")
    has(run([KHEALTH, "check"], check=False).stdout,
        f"webhook: 1 message(s) were refused for good, in {STATE}/aside/webhook")


def test_metrics():
    """Every counter of sysfs, and one unit a metric; as a whole file; what dashboard and rules want."""
    fake_sysfs()
    config("mail")
    write(f"{world.SYSFS}sock_rcvbuf/free", "1000\n")
    write(f"{world.SYSFS}sock_rcvbuf/state", "low\n")
    write(f"{world.SYSFS}skb_alloc/free", "7\n")
    told = run([KHEALTH, "metrics"])
    for part in ('khealthd_state{monitor="sock_rcvbuf",code="4",state="low"} 1\n',
                 'khealthd_state{monitor="sock_rcvbuf",code="4",state="exhausted"} 0\n',
                 'khealthd_free_bytes{monitor="sock_rcvbuf",code="4"} 1000\n',
                 'khealthd_free_pages{monitor="skb_alloc",code="1"} 7\n',
                 'khealthd_crossings_total{monitor="skb_alloc",code="1"} 12\n',
                 "khealthd_helper_signal_failures_total 0\n"):
        has(told, part)
    for name in os.listdir(f"{world.SYSFS}helper"):
        has(told, f"khealthd_helper_{name}")
    names = set(re.findall(r"^khealthd_\w+", told, re.MULTILINE))
    for file in "khealthd-dashboard.json", "khealthd.rules.yml":
        text = read(f"{world.TOP}/tools/khealthd/fleet/{file}")
        used = set(re.findall(r"khealthd_\w+", text))
        equal(used - names, set(), f"what {file} wants and there is not")
    json.loads(read(f"{world.TOP}/tools/khealthd/fleet/khealthd-dashboard.json"))
    run("setpriv --reuid khealthd --regid khealthd --clear-groups "
        "khealth metrics --file /run/khealthd/metrics/khealthd.prom")
    equal(read("/run/khealthd/metrics/khealthd.prom"), told, "the file")
    write(f"{world.SYSFS}sock_rcvbuf/unit", 'by"tes\n')
    lacks(run([KHEALTH, "metrics"]), '"tes')


def test_who():
    """who COOKIE: the process, by nothing but the number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        cookie = cookie_of(sock)
        told = run([KHEALTH, "who", str(cookie)])
        has(told, f"(pid {os.getpid()})")
        equal(json.loads(run([KHEALTH, "who", str(cookie), "--json"]))["pid"], os.getpid(), "pid")
    done = run([KHEALTH, "who", str(cookie)], check=False)
    equal(done.returncode, 3, "status for a socket that is closed")
    for bad in "", "-1", "0x10", "1;id", "99999999999999999999999":
        has(run([KHEALTH, "who", bad], check=False).stdout, "who wants a socket's cookie")


def test_explain():
    """explain: what it means, what to turn, and for proto_mem who holds most."""
    fake_sysfs()
    told = run([KHEALTH, "explain"])
    has(told, "sock_rcvbuf   the receive buffer of a socket")
    has(run([KHEALTH, "explain", "sock_rcvbuf"]),
        "net.core.rmem_max = " + read("/proc/sys/net/core/rmem_max").strip())
    rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rx.bind(("127.0.0.1", 0))
    for _ in range(50):
        tx.sendto(b"x" * 500, rx.getsockname())
    told = run([KHEALTH, "explain", "proto_mem"])
    rx.close()
    tx.close()
    has(told, f"UDP port {rx.getsockname()[1] if rx.fileno() >= 0 else ''}".strip())
    has(told, f"(pid {os.getpid()})")
    has(run([KHEALTH, "explain", "x"], check=False).stdout, "there is no monitor 'x'")


def test_postinst():
    """An upgrade of the package leaves the administrator's sysctl settings in effect."""
    own = "/etc/sysctl.d/70-khealthd.conf"
    write(own, "kernel.khealthd.enabled=0\n")
    run("mount -t tmpfs tmpfs /proc/sys/kernel && mkdir /proc/sys/kernel/khealthd")
    try:
        for name in "enabled", "helper", "repeat_ms":
            write(f"{world.SYSCTL}{name}", "")
        run(["sh", f"{world.TOP}/scripts/lib/debian/khealth.postinst", "configure"])
        equal([read(f"{world.SYSCTL}{name}").strip() for name in ("enabled", "helper", "repeat_ms")],
              ["0", HELPER, "300000"], "settings")
    finally:
        run("umount /proc/sys/kernel")
        os.unlink(own)


def test_by_hand():
    """The helper, started by a person without an alert: says so, and does nothing."""
    done = subprocess.run([HELPER], env={}, check=False)
    equal(done.returncode, 1, "status")
    has(complaints(), "no alert is in the environment")


def test_completion():
    """Completion knows each command of --help."""
    told = run([KHEALTH, "--help"])
    words = run(["bash", "-c", "source /usr/share/bash-completion/completions/khealth; "
                 'COMP_WORDS=(khealth ""); COMP_CWORD=1; _khealth; echo "${COMPREPLY[@]}"']).split()
    for command in set(re.findall(r"^  ([a-z]+)", told, re.M)) - {"sysctl"}:
        true(command in words, f"no {command}")
