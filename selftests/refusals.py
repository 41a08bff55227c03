#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: refusals.py [--show] [TEST...]

khealthd sees each refusal of a socket's receive buffer or ring, and invents none.
For each kind of socket the space shrinks step by step: `low` comes before the first
packet is lost, `exhausted` with it, `recovered` not while packets are lost, and
KHEALTHD_REFUSED is what the kernel's own counter says. What these were tried on was
reported by people who run such machines. TESTs are functions below, without test_.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from khealthd_lib import (Links, Netns, Udp, all_told, cookie, count, ends, equal,
                          is_short, main, read, run, set_rcvbuf, settings, shrinks,
                          snmp, snmp6, true, wait_for)


# In /proc/net: which columns hold a socket's inode and its drops, from the right.
COLUMNS = {"netlink": (-1, -2)}


def drops_in(file, sock):
    """How many packets a socket lost, as a file in /proc/net has it."""
    inode, drops = COLUMNS.get(file, (-4, -1))
    for line in read(f"/proc/net/{file}").splitlines()[1:]:
        words = line.split()
        if words[inode] == str(os.fstat(sock.fileno()).st_ino):
            return int(words[drops])
    raise AssertionError(f"the socket is not in /proc/net/{file}")


def meminfo(sock):
    """SO_MEMINFO: the first number is what is in the receive buffer."""
    return struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, 55, 36))


def meminfo_drops(sock):
    """How many packets any socket lost."""
    return meminfo(sock)[8]


def stays(helper, monitor, step, **identity):
    """
    As long as it refuses, there is no end. What comes in 50 times a second may come
    later on a busy machine: then this says nothing.
    """
    settings(quiet_ms=500)
    longest, begin = 0, time.monotonic()
    while (now := time.monotonic()) < begin + 1.5:
        step()
        longest = max(longest, time.monotonic() - now)
        time.sleep(0.02)
    if longest < 0.2:
        equal(helper.count(monitor, "recovered", **identity), 0, f"{monitor}: recovered")
    settings(quiet_ms=3600000)


def fill_and_end(helper, sock, step, drops, **identity):
    """A socket that nobody reads, from the first packet to the end of the episode."""
    name = cookie(sock)
    lost = shrinks(helper, "sock_rcvbuf", step, drops, sock_cookie=name, **identity)
    true(lost, "nothing is lost")
    ends(helper, "sock_rcvbuf", drops(), sock_cookie=name)
    sock.close()


# === UDP ======================================================================

def test_udp(helper):
    """UDP over IPv4, packets of several sizes, against /proc/net/udp and RcvbufErrors."""
    for size in (10, 100, 1400, 9000):
        pair, errors = Udp(rcvbuf=256 << 10), snmp("Udp:", "RcvbufErrors")
        fill_and_end(helper, pair.rx, lambda p=pair, n=size: p.send(size=n),
                     lambda p=pair: drops_in("udp", p.rx), port=pair.to[1])
        true(snmp("Udp:", "RcvbufErrors") > errors, "RcvbufErrors disagrees")
        pair.close()
        settings(quiet_ms=3600000)


def test_udp6(helper):
    """UDP over IPv6."""
    rx = set_rcvbuf(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), 65536)
    rx.bind(("::1", 0))
    tx = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    errors = snmp6("Udp6RcvbufErrors")
    fill_and_end(helper, rx, lambda: tx.sendto(b"x" * 100, rx.getsockname()),
                 lambda: drops_in("udp6", rx))
    true(snmp6("Udp6RcvbufErrors") > errors, "Udp6RcvbufErrors disagrees")
    tx.close()


def test_large_in_step(helper):
    """What is read in time is no shortage, however large: not a word."""
    small, large = Udp(rcvbuf=1152), Udp()      # doubled: 2304, the least there is
    one = set_rcvbuf(socket.socket(socket.AF_INET, socket.SOCK_RAW, 253), 2304)
    large.rx.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 106496)    # the default
    errors, before = snmp("Udp:", "RcvbufErrors"), count("sock_rcvbuf/crossings")
    for _ in range(100):
        small.send()
        small.rx.recv(65536)
        one.sendto(bytes(2000), ("127.0.0.1", 0))   # an empty buffer takes any
        one.recv(65536)
        large.send(2, 60000)                    # two in flight
        large.rx.recv(65536)
        large.rx.recv(65536)
    equal(snmp("Udp:", "RcvbufErrors"), errors, "RcvbufErrors")
    equal(count("sock_rcvbuf/crossings"), before, "crossings")
    equal(helper.alerts(), [], "alerts")
    one.close()
    small.close()
    large.close()


# === Raw and ping sockets =====================================================

def raw(helper, family, protocol, ping):
    """A raw socket that nobody reads, as keepalived has it."""
    file = "raw" if family == socket.AF_INET else "raw6"
    sock = set_rcvbuf(socket.socket(family, socket.SOCK_RAW, protocol), 32768)
    name = cookie(sock)
    shrinks(helper, "sock_rcvbuf", lambda: run(f"{ping} -q -c 2 -i 0.002"),
            lambda: drops_in(file, sock), sock_cookie=name)
    stays(helper, "sock_rcvbuf", lambda: run(f"{ping} -q -c 1"), sock_cookie=name)
    run(f"{ping} -q -f -c 200")
    ends(helper, "sock_rcvbuf", drops_in(file, sock), sock_cookie=name)
    sock.close()


def test_raw(helper):
    """Pings go on and on into a raw socket: refused to the end, /proc/net/raw."""
    raw(helper, socket.AF_INET, socket.IPPROTO_ICMP, "ping 127.0.0.1")


def test_raw6(helper):
    """The same with IPv6, /proc/net/raw6."""
    raw(helper, socket.AF_INET6, socket.IPPROTO_ICMPV6, "ping -6 ::1")


def test_ping_socket(helper):
    """A ping socket that does not read its replies."""
    def send():
        sock.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1), ("127.0.0.1", 0))

    ours = run("sysctl -n net.ipv4.ping_group_range")
    run("sysctl -q -w net.ipv4.ping_group_range='0 0'")
    try:
        sock = set_rcvbuf(socket.socket(socket.AF_INET, socket.SOCK_DGRAM,
                                        socket.IPPROTO_ICMP), 32768)
        sock.bind(("127.0.0.1", 0))
    finally:
        run(f"sysctl -q -w net.ipv4.ping_group_range='{ours.strip()}'")
    fill_and_end(helper, sock, send, lambda: drops_in("icmp", sock))


# === Netlink ==================================================================

def test_netlink_congested(helper):
    """One that lost a message refuses all until it is empty, and not only while full."""
    links = Links(65536)
    name = cookie(links.sock)

    def drops():
        with links.space:
            return drops_in("netlink", links.sock)

    shrinks(helper, "sock_rcvbuf", links.change, drops, sock_cookie=name)
    with contextlib.suppress(OSError):
        links.sock.recv(1 << 16)    # ENOBUFS, once
    for _ in range(10):
        links.sock.recv(1 << 16)
    before = drops()
    links.change()
    equal(drops(), before + 1, "drops of a congested socket with room")
    stays(helper, "sock_rcvbuf", links.change, sock_cookie=name)
    ends(helper, "sock_rcvbuf", drops(), sock_cookie=name)
    links.sock.close()
    links.space.delete()


def test_netlink_dump(helper):
    """A dump that is not read in time waits, and refuses nothing."""
    space = Netns()
    run(f"""ip -n {space.name} link add d0 type dummy
    for i in $(seq 200); do echo addr add 10.6.0.$i/24 dev d0; done |
        ip -n {space.name} -batch -""")
    with space:
        sock = set_rcvbuf(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), 2304)
    before = count("sock_rcvbuf/crossings")
    # RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP
    sock.send(struct.pack("IHHIIBxxx", 20, 22, 0x301, 1, 0, 0))
    parts = 0
    while struct.unpack("IH", sock.recv(1000)[:6])[1] != 3:     # NLMSG_DONE
        parts += 1
    true(parts > 3, "the dump is too short")
    equal(meminfo_drops(sock), 0, "drops")
    equal(count("sock_rcvbuf/crossings"), before, "crossings")
    equal(helper.alerts(), [], "alerts")
    sock.close()
    space.delete()


# === The error queue ==========================================================

def timestamps(helper, sock, send):
    """
    Ask for a timestamp of all that is sent, and do not fetch them. Those that are
    not there in the end were refused; the kernel does not count them.
    """
    sock.setsockopt(socket.SOL_SOCKET, 37, 2 | 16 | 2048)   # SO_TIMESTAMPING
    set_rcvbuf(sock, 65536)
    name, sent = cookie(sock), 0
    while not is_short("sock_rcvbuf"):
        true(sent < 10000, "it is never short")
        send()
        sent += 1
    if sock.type == socket.SOCK_DGRAM:
        helper.find("sock_rcvbuf", "low", sock_cookie=name)
    while sent < 300 or not helper.count("sock_rcvbuf", "exhausted", sock_cookie=name):
        true(sent < 10000, "nothing is refused")
        send()
        sent += 1
    kept = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recvmsg(1, 1000, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            kept += 1
    ends(helper, "sock_rcvbuf", sent - kept, sock_cookie=name)


def test_error_queue(helper):
    """The timestamps of 2000 datagrams are not fetched: most of them are lost."""
    sink = Udp(rcvbuf=4 << 20)
    timestamps(helper, sink.tx, sink.send)
    sink.close()


def test_error_queue_of_tcp(helper):
    """A TCP socket has such a queue, too: it is in sock_rcvbuf."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        tx = socket.create_connection(server.getsockname())
        rx, _ = server.accept()

    def send():
        tx.send(b"x")
        rx.recv(100)

    tx.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    timestamps(helper, tx, send)
    tx.close()
    rx.close()


# === Packet sockets ===========================================================

def test_packet(helper):
    """A packet socket without a ring."""
    sock = set_rcvbuf(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0), 65536)
    sock.bind(("lo", 3))        # all protocols
    pair = Udp(rcvbuf=1 << 20)
    fill_and_end(helper, sock, pair.send, lambda: meminfo_drops(sock))
    pair.close()


def ring(helper, version, size=1 << 14, frames=64):
    """A ring, for one of the three ways in which programs use it."""
    sock, total = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0), [0]
    sock.setsockopt(263, 10, version - 1)       # SOL_PACKET, PACKET_VERSION
    if version == 3:
        frames *= 8                             # 64 blocks; here these count
    frame = 2048
    req = struct.pack("IIII", size, frames * frame // size, frame, frames)
    if version == 3:
        req += struct.pack("III", 10, 0, 0)     # ms until a block is handed over
    sock.setsockopt(263, 5, req)                # PACKET_RX_RING
    sock.bind(("lo", 3))

    def drops():
        total[0] += struct.unpack("II", sock.getsockopt(263, 6, 8))[1]
        return total[0]                         # reading sets it back

    pair, name = Udp(rcvbuf=1 << 20), cookie(sock)
    lost = shrinks(helper, "packet_ring", lambda: pair.send(size=1000), drops,
                   sock_cookie=name)
    true(lost, "nothing is lost")
    env = helper.find("packet_ring", "low", sock_cookie=name)
    equal((env["KHEALTHD_CAPACITY"], env["KHEALTHD_UNIT"]),
          ("64", "frames"), "capacity and unit")
    ends(helper, "packet_ring", lost, sock_cookie=name)
    sock.close()
    pair.close()


def test_ring_v1(helper):
    """TPACKET_V1, against tp_drops."""
    ring(helper, 1)


def test_ring_v2(helper):
    """TPACKET_V2."""
    ring(helper, 2)


def test_ring_v3(helper):
    """TPACKET_V3, which is counted in blocks."""
    ring(helper, 3)


def tcpdump(helper, *arguments):
    """tcpdump is stopped while packets come: what it says of them in the end."""
    with subprocess.Popen(["tcpdump", "-n", "-i", "lo", "-Z", "root", "-w", "/dev/null",
                           *arguments], stderr=subprocess.PIPE, text=True) as program:
        try:
            while "listening on" not in program.stderr.readline():
                true(program.poll() is None, "tcpdump does not run")
            program.send_signal(signal.SIGSTOP)
            wait_for(lambda: run(f"ps -o stat= -p {program.pid}").startswith("T"), "stop")
            pings = 0
            while not helper.count("packet_ring", "exhausted"):
                true(pings < 1000, "nothing is refused")
                # Few at a time: the thread comes to look in between.
                run("ping -q -f -c 5 -s 1000 127.0.0.1")
                pings += 1
            program.send_signal(signal.SIGCONT)
            program.send_signal(signal.SIGINT)
            said = program.communicate()[1]
        finally:
            program.kill()
    lost = int(re.search(r"(\d+) packets? dropped by kernel", said).group(1))
    true(lost, "tcpdump lost nothing")
    ends(helper, "packet_ring", lost)


def test_tcpdump(helper):
    """tcpdump with a small ring, stopped."""
    if not shutil.which("tcpdump"):
        return "no tcpdump"
    tcpdump(helper, "-B", "64")
    return None


def test_tcpdump_immediate(helper):
    """tcpdump that wants each packet at once: another kind of ring."""
    if not shutil.which("tcpdump"):
        return "no tcpdump"
    tcpdump(helper, "-B", "64", "-s", "100", "--immediate-mode")
    helper.find("packet_ring", "low")
    return None


# === Others ===================================================================

def test_can(helper):
    """A CAN socket that nobody reads."""
    if not hasattr(socket, "AF_CAN") or "vcan" not in run(
            "ip link add kh-vcan type vcan && ip -o link show kh-vcan", check=False):
        return "this kernel has no vcan"
    run("ip link set kh-vcan up")
    try:
        rx, tx = (socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
                  for _ in "12")
        for sock in (rx, tx):
            sock.bind(("kh-vcan",))
        tx.setsockopt(101, 1, b"")              # SOL_CAN_RAW, CAN_RAW_FILTER: hears none
        set_rcvbuf(rx, 32768)
        fill_and_end(helper, rx,
                     lambda: tx.send(struct.pack("IB3x8s", 1, 8, b"x" * 8)),
                     lambda: meminfo_drops(rx))
        tx.close()
    finally:
        run("ip link del kh-vcan")
    return None


def test_tipc(helper):
    """TIPC: messages to a name whose socket does not read."""
    try:
        rx, tx = (socket.socket(socket.AF_TIPC, socket.SOCK_DGRAM) for _ in "12")
    except OSError:
        return "this kernel has no TIPC"
    rx.bind((socket.TIPC_ADDR_NAMESEQ, 4711, 1, 1, socket.TIPC_NODE_SCOPE))
    set_rcvbuf(rx, 32768)
    fill_and_end(helper, rx,
                 lambda: tx.sendto(b"x" * 100, (socket.TIPC_ADDR_NAME, 4711, 1, 0)),
                 lambda: meminfo_drops(rx))
    tx.close()
    return None


def test_af_key(helper):
    """AF_KEY, as IKE daemons have it: nothing is counted, but it shows in the buffer."""
    try:
        rx, tx = (socket.socket(15, socket.SOCK_RAW, 2) for _ in "12")
    except OSError:
        return "this kernel has no AF_KEY"
    sent, one = 0, 0

    def send():
        nonlocal sent, one
        # SADB_X_PROMISC, off: everybody hears of it
        tx.send(struct.pack("BBBBHHII", 2, 11, 0, 0, 2, 0, 0, 0))
        tx.recv(100)
        sent += 1
        one = one or meminfo(rx)[0]

    set_rcvbuf(rx, 32768)
    fill_and_end(helper, rx, send, lambda: sent and sent - meminfo(rx)[0] // one)
    tx.close()
    return None


VSOCK_SIZE, VSOCK_MIN_SIZE = 0, 1       # SO_VM_SOCKETS_BUFFER_...


class Vsock:
    """A connection whose reader does not read."""

    def __init__(self):
        with socket.socket(socket.AF_VSOCK) as server:
            server.bind((socket.VMADDR_CID_ANY, 4321))
            server.listen()
            self.tx = socket.socket(socket.AF_VSOCK)
            self.tx.connect((1, 4321))      # VMADDR_CID_LOCAL
            self.rx, _ = server.accept()

    def close(self):
        self.tx.close()
        self.rx.close()


def test_vsock(helper):
    """A full vsock connection is not told of, a packet that is refused is."""
    run("modprobe -q vsock_loopback", check=False)
    try:
        connection = Vsock()
    except OSError:
        return "this kernel has no vsock, or no loopback for it"
    before = count("sock_rcvbuf/crossings")
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.tx.send(b"x" * 4096, socket.MSG_DONTWAIT)
    all_told()
    equal(count("sock_rcvbuf/crossings"), before, "crossings of a full connection")

    # What is on its way when there is suddenly less room is refused. The kernel's
    # worker brings it; it shall not come before us.
    cookies = set()
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        for i in range(500):
            connection.close()
            connection = Vsock()
            cookies.add(str(cookie(connection.rx)))
            connection.rx.setsockopt(socket.AF_VSOCK, VSOCK_MIN_SIZE, 1)
            connection.tx.send(b"x" * (1 << 12 + i % 6), socket.MSG_DONTWAIT)
            connection.rx.setsockopt(socket.AF_VSOCK, VSOCK_SIZE, 1)
            if is_short("sock_rcvbuf"):
                break
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    env = helper.find("sock_rcvbuf", "exhausted", family=int(socket.AF_VSOCK))
    true(env["KHEALTHD_SOCK_COOKIE"] in cookies, "a foreign cookie")
    connection.close()
    return None


if __name__ == "__main__":
    sys.exit(main(globals()))
