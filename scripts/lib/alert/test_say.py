# SPDX-License-Identifier: GPL-2.0
"""What a message says, and what it does not: who it is, in words nobody can twist."""

import json
import os
import socket
import subprocess

from alert.world import (KHEALTH, NO_SOCKET, OUTPUTS, Process, Web, alert, complaints, config, cookie_of,
                         equal, has, lacks, mails, posted, program, read, run, true)


def test_mail():
    """The mail at three in the morning has all that one asks then."""
    config("mail")
    with Process(["python3", "-c", """
import os, signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 5514))
print(int.from_bytes(s.getsockopt(1, 57, 8), "little"), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)"""], stdout=subprocess.PIPE) as reader:
        cookie = int(reader.stdout.readline())
        os.waitid(os.P_PID, reader.pid, os.WSTOPPED | os.WNOWAIT)
        alert("exhausted", port=5514, sock_cookie=cookie, refused=143, duration_ms=90000)
    mail = mails()[0]
    equal(mail["Subject"].replace("\n", ""), "[khealthd] demo.example: sock_rcvbuf exhausted: "
          "UDP port 5514, python3, 143 lost", "subject")
    body = mail.get_payload()
    for part in ("Packets are lost: the receive buffer of a socket has no room for them. 143\n"
                 "packets were refused so far.", "UDP: what is lost is lost",
                 "0 of 212992 bytes free (0 %), low is 12 %", "90.0 s ago", "Refused    143",
                 f"python3 (pid {reader.pid})", "It is      stopped by a signal",
                 "Command    python3 -c", "User       0, root", "the initial one",
                 "You hear again when it is over", "does not read fast enough",
                 "net.core.rmem_max = " + read("/proc/sys/net/core/rmem_max").strip(),
                 "What to do: https://docs.kernel.org/admin-guide/khealthd-alerts.html#sock-rcvbuf"):
        has(body, part)
    config("mail", cmdline="off", runbook="")
    alert("low")
    for part in "Command", "What to do":
        lacks(mails()[1].get_payload(), part)
    has(mails()[1].get_payload(), "Nothing is lost yet.")


def test_runbook():
    """Each link in a mail leads to a heading of the guide."""
    from alert.world import TOP     # pylint: disable=import-outside-toplevel
    guide = read(f"{TOP}/Documentation/admin-guide/khealthd-alerts.rst")
    for monitor in ("skb_alloc", "backlog", "proto_mem", "sock_rcvbuf", "tcp_rcvbuf",
                    "packet_ring", *OWNERS):
        has(guide, f"\n{monitor}\n{'-' * len(monitor)}\n")


# The second series' monitors, what the kernel says of one, and what a mail has of it.
OWNERS = {
    "accept_queue": (dict(protocol=6, port=80, unit="connections"), (
        "accept_queue exhausted: TCP port 80", "Connections are refused", "3\nconnections were",
        "the service seems slow or dead", "net.core.somaxconn = ", "Socket     IPv4 TCP port 80")),
    "conntrack": (dict(NO_SOCKET, netns="4026531840", unit="entries"), (
        "conntrack exhausted", "Packets are refused", "new connections", "conntrack -L")),
    "neighbour": (dict(NO_SOCKET, family=10, unit="entries"), (
        "neighbour exhausted: IPv6, 3 refused", "cannot be reached", "Protocol   IPv6",
        "net.ipv6.neigh.default.gc_thresh3 = ")),
    "reassembly": (dict(NO_SOCKET, family=10, protocol=44), (
        "reassembly exhausted: IPv6-Frag, 3 refused", "Fragments are refused",
        "net.ipv6.ip6frag_high_thresh = ")),
    "files": (dict(NO_SOCKET, unit="files"), (
        "files exhausted, 3 refused", "Files are refused", "fs.file-max = ")),
    "threads": (dict(NO_SOCKET, unit="tasks"), (
        "threads exhausted, 3 refused", "Tasks are refused", "kernel.threads-max = ",
        "kernel.pid_max = ")),
}


def test_owners():
    """A mail of each data structure outside of the receive path, and explain."""
    config("mail")
    for monitor, (more, parts) in OWNERS.items():
        alert("exhausted", monitor=monitor, **more)
        mail = mails()[-1]
        text = f"{mail['Subject']}\n{mail.get_payload()}"
        for part in parts:
            # Some settings are the initial namespace's only, where this may not run.
            if part.endswith(" = ") and not os.path.exists(
                    "/proc/sys/" + part.removesuffix(" = ").replace(".", "/")):
                continue
            # Wherever a line ends.
            has(" ".join(text.split()), " ".join(part.split()))
        lacks(text.replace("socket()", ""), " socket")
        knobs = [line for line in text.splitlines() if " = " in line]
        told = run([KHEALTH, "explain", monitor])
        has(told, f"{monitor} watches ")
        for line in knobs:
            has(told, line)
    lacks(mails()[2].get_payload(), "net.ipv4.neigh")


def test_unknown():
    """What cannot be found is left out, and what is not known is not named."""
    config("webhook", "mail")
    alert(netns=1, ifindex=1, cgroup=999999999, sock_cookie=123456, uid=999999)
    alert(free=None, capacity=None, netns=None, port=None, sock_cookie=None)
    body = mails()[0].get_payload()
    for part in "Process", "Service", "Cgroup", "lo, index":
        lacks(body, part)
    has(body, "Namespace  1\n")
    has(body, "User       999999\n")
    lacks(mails()[1].get_payload(), "Level")
    for name in "process", "service", "netns_name", "interface":
        true(name not in posted("/hook")[0], name)
    true("free" not in posted("/hook")[1], "free")


def test_interface():
    """An interface of a namespace without a name: by a process in it."""
    config("mail", "webhook")
    with Process(["unshare", "-n", "sh", "-c",
                  "ip link add eth7 index 77 type veth; echo; exec sleep 1000"],
                 stdout=subprocess.PIPE) as inside:
        inside.stdout.readline()
        netns = os.stat(f"/proc/{inside.pid}/ns/net").st_ino
        alert(monitor="backlog", unit="packets", TROUBLED_DS=2, ifindex=77, cpu=0,
              **dict(NO_SOCKET, netns=netns))
    body = mails()[0].get_payload()
    has(body, f"{netns}, process {inside.pid} (sleep) is in it")
    has(body, "eth7, index 77")
    equal(posted("/hook")[0]["interface"], "eth7", "interface")


def test_environment():
    """An environment that lies: nothing of it is run, sent or believed."""
    config("mail", "webhook")
    evil = "$(touch /run/evil)`touch /run/evil`"
    alert(free=f"1;{evil}", port="5201\nBcc: mallory", cgroup="../../..", netns="1/d;e",
          family="010", ifindex=f"a[{evil}]", capacity="99999999999999999999999", foo=evil,
          uid="-1", cpu="", LD_PRELOAD_X="x")
    alert(monitor="x\nBcc: mallory", status=1)
    alert(monitor="../../../etc", status=1)
    alert(event="low\n", status=1)
    alert(event=evil, status=1)
    equal(len(mails()), 1, "mails")
    true(not os.path.exists("/run/evil"), "it was run")
    lacks(mails()[0].as_string(), "mallory")
    lacks(mails()[0].as_string(), "touch")
    for name in ("free", "port", "cgroup", "netns", "family", "ifindex", "capacity", "foo", "uid",
                 "cpu"):
        true(name not in posted("/hook")[0], f"{name} is believed")
    has(complaints(), "KHEALTHD_PORT has a value that the kernel does not set")


def test_names():
    """Names that users choose: in mail and JSON as text, and nothing else."""
    config("mail", "webhook")
    program(f"{OUTPUTS}/own", "printf '%s\\n' \"$KHEALTH_PROCESS\" >>/run/khealthd/metrics/names")
    rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rx.bind(("127.0.0.1", 5240))
    comm = read("/proc/self/comm").strip()
    try:
        for name in 'x",pid=1,fd=3', 'a"b\\c\x07\n\xe4<', "x)\nState: R", "$(id)`id`":
            with open("/proc/self/comm", "w", encoding="latin-1") as f:
                f.write(name)
            alert(port=5240, sock_cookie=cookie_of(rx))
    finally:
        with open("/proc/self/comm", "w", encoding="latin-1") as f:
            f.write(comm)
        rx.close()
    equal([b["process"] for b in posted("/hook")],
          ['x",pid=1,fd=3', 'a"b\\c? ?<', "x) State: R", "$(id)`id`"], "process")
    equal({b["pid"] for b in posted("/hook")}, {os.getpid()}, "pid")
    has("\n".join(m.get_payload() for m in mails()), 'a"b\\c? ?< (pid')
    equal(read("/run/khealthd/metrics/names").splitlines()[3], "$(id)`id`", "name")


def test_units():
    """The unit and container of a cgroup's path, as docker, podman, kubelet and lxc write it."""
    config("webhook")
    one = "0123456789abcdef" * 4
    cases = {
        "/system.slice/rsyslog.service": ("rsyslog.service", None),
        "/user.slice/user-1000.slice/user@1000.service/app.slice/evil.service":
            ("user@1000.service", None),
        # What is below is named by the user.
        f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{one}.scope":
            ("user@1000.service", None),
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{one}.scope":
            ("user@1000.service", "podman 0123456789ab"),
        f"/system.slice/docker-{one}.scope": (f"docker-{one}.scope", "docker 0123456789ab"),
        f"/docker/{one}": (None, "docker 0123456789ab"),
        f"/machine.slice/libpod-{one}.scope": (f"libpod-{one}.scope", "podman 0123456789ab"),
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod01234567_89ab_cdef_0123_"
        f"456789abcdef.slice/cri-containerd-{one}.scope":
            (f"cri-containerd-{one}.scope",
             "containerd 0123456789ab, pod 01234567-89ab-cdef-0123-456789abcdef"),
        f"/kubepods/besteffort/pod01234567-89ab-cdef-0123-456789abcdef/{one}":
            (None, "container 0123456789ab, pod 01234567-89ab-cdef-0123-456789abcdef"),
        "/lxc.payload.web/system.slice/x.service": ("x.service", "lxc web"),
        "/a/docker-xyz/podkubepods/": (None, None),
    }
    told = json.loads(run(["/run/new/unit-test", *cases]))
    for path, (unit, container) in cases.items():
        equal((told[path]["unit"] or None, told[path]["container"] or None), (unit, container),
              path)
    Web.got.clear()
