#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: rcvpath.py [--show] [TEST...]

khealthd: a real overload for each monitor of the receive path, but for skb_alloc:
whoever eats up memory from here meets the OOM killer first, so that is a KUnit
test. --show prints the alerts that the helper was told of; TESTs are functions
below, without test_.

What the helper was told is compared with the kernel's own counters: softnet_stat,
snmp, sockstat, PACKET_STATISTICS, ENOBUFS.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
import time

from khealthd_lib import (Helper, Netns, SYSFS, Saved, Udp, all_told, cookie, count,
                          end_episodes, equal, main, offenders, read, run,
                          set_rcvbuf, settings, snmp, sockstat_mem, true, wait_for,
                          write)


def softnet_drops():
    return sum(int(line.split()[1], 16)
               for line in read("/proc/net/softnet_stat").splitlines())


def test_backlog(helper):
    """A router splits packets up faster than the next hop takes them in."""
    a, r, b = Netns(), Netns(), Netns()
    run(f"""set -e
    ip -n {a.name} link add a0 mtu 65535 type veth peer name r0 mtu 65535 netns {r.name}
    ip -n {r.name} link add r1 mtu 576 type veth peer name b0 mtu 576 netns {b.name}
    ip -n {a.name} addr add 10.1.0.1/24 dev a0; ip -n {r.name} addr add 10.1.0.2/24 dev r0
    ip -n {r.name} addr add 10.2.0.1/24 dev r1; ip -n {b.name} addr add 10.2.0.2/24 dev b0
    for l in "{a.name} a0" "{r.name} r0" "{r.name} r1" "{b.name} b0"; do
        set -- $l; ip -n $1 link set $2 up
    done
    ip -n {a.name} route add default via 10.1.0.2
    ip -n {b.name} route add default via 10.2.0.1
    ip netns exec {r.name} sysctl -q net.ipv4.ip_forward=1""")
    with a:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, 10, 0)   # IP_MTU_DISCOVER: may be split up
    to = ("10.2.0.2", 9)
    sock.sendto(b"x", to)       # so that addresses are known
    drops = softnet_drops()
    with Saved("/proc/sys/net/core/netdev_max_backlog", 80):
        # Some 62 fragments at once: low, but nothing is dropped.
        sock.sendto(b"x" * 34000, to)
        env = helper.find("backlog", "low")
        equal(softnet_drops(), drops, "drops at low")
        equal(env["TROUBLED_DS"], "2", "TROUBLED_DS")
        equal(env["KHEALTHD_CAPACITY"], "80", "capacity")
        equal(env["KHEALTHD_UNIT"], "packets", "unit")
        equal(env["KHEALTHD_NETNS"], str(b.inode), "netns")
        equal(env["KHEALTHD_IFINDEX"],
              run(f"ip -n {b.name} -o link show b0").split(":")[0], "ifindex")
        true(int(env["KHEALTHD_CPU"]) < os.cpu_count(), "cpu")
        # And some 118: more than there is room for.
        sock.sendto(b"x" * 65000, to)
        helper.find("backlog", "exhausted")
        true(softnet_drops() > drops, "nothing was dropped when exhausted")
        end_episodes()
        helper.find("backlog", "recovered")
    sock.close()
    for ns in (a, r, b):
        ns.delete()


def fill_udp(condition):
    """Fill UDP's memory until a condition holds. Return who has it."""
    pair = Udp(rcvbuf=64 << 20)
    for _ in range(100000):
        if condition():
            return pair
        pair.send(10, 1400)
    raise AssertionError("UDP's memory does not run short")


def is_short(monitor):
    return read(f"{SYSFS}{monitor}/state") != "ok"


# UDP is refused memory from the first number on, TCP from the third.
UDP_LIMIT, TCP_LIMIT = 4096, 3072
UDP_MEM = ("/proc/sys/net/ipv4/udp_mem", f"{UDP_LIMIT} {UDP_LIMIT * 2} {UDP_LIMIT * 3}")
TCP_MEM = ("/proc/sys/net/ipv4/tcp_mem", f"1024 2048 {TCP_LIMIT}")


def test_proto_mem_udp(helper):
    """UDP's memory runs out; it stays low for as long as the memory is held."""
    errors = snmp("Udp:", "MemErrors")
    with Saved(*UDP_MEM):
        pair = fill_udp(lambda: is_short("proto_mem"))
        env = helper.find("proto_mem", "low", protocol=17)
        equal(snmp("Udp:", "MemErrors"), errors, "UDP's memory errors at low")
        equal(env["KHEALTHD_CAPACITY"], str(UDP_LIMIT), "capacity")
        equal(env["KHEALTHD_UNIT"], "pages", "unit")
        true(sockstat_mem("UDP") * 10 > UDP_LIMIT * 7, "sockstat disagrees")
        more = fill_udp(lambda: snmp("Udp:", "MemErrors") > errors)
        helper.find("proto_mem", "exhausted", protocol=17)
        # Nothing is sent any more, yet the memory is gone.
        settings(quiet_ms=1)
        time.sleep(0.5)
        all_told()
        true(is_short("proto_mem"), "recovered too early")
        pair.close()
        more.close()
        helper.find("proto_mem", "recovered")
        true(sockstat_mem("UDP") * 10 < UDP_LIMIT * 6, "sockstat disagrees")


class Tcp:
    """A connection whose reader does not read."""

    def __init__(self, rcvbuf=None):
        server = socket.socket()
        if rcvbuf:
            set_rcvbuf(server, rcvbuf)
        server.bind(("127.0.0.1", 0))
        server.listen()
        self.tx = socket.create_connection(server.getsockname())
        self.rx, _ = server.accept()
        self.tx.setblocking(False)
        server.close()

    def fill(self):
        """Send until nothing more goes. Return how much did."""
        sent = 0
        try:
            while True:
                sent += self.tx.send(b"x" * 65536)
        except BlockingIOError:
            return sent

    def close(self):
        self.tx.close()
        self.rx.close()


def test_two_protocols(helper):
    """TCP and UDP run short at once: neither masks the other."""
    with Saved(*UDP_MEM), Saved(*TCP_MEM):
        pair = fill_udp(lambda: is_short("proto_mem"))
        helper.find("proto_mem", "low", protocol=17)
        connections = []
        while not any(o["protocol"] == "6" for o in offenders("proto_mem")):
            true(len(connections) < 500, "TCP's memory does not run short")
            connections.append(Tcp())
            connections[-1].fill()
        true(sockstat_mem("TCP") * 2 > TCP_LIMIT, "sockstat disagrees")
        wait_for(lambda: [e for e in helper.alerts("proto_mem")
                          if e["KHEALTHD_PROTOCOL"] == "6"], "TCP is named")
        equal({o["protocol"] for o in offenders("proto_mem")}, {"6", "17"}, "offenders")
        for c in connections:
            c.close()
        pair.close()
        end_episodes()
        helper.find("proto_mem", "recovered")
        equal(offenders("proto_mem"), [], "offenders after the end")


def protocols_mem(protocol):
    """Pages of a protocol's memory, as another of the kernel's files shows them."""
    for line in read("/proc/net/protocols").splitlines():
        words = line.split()
        if words[0] == protocol:
            return int(words[3])
    raise AssertionError(f"no {protocol} in protocols")


def send_until(sock, condition):
    for _ in range(100000):
        if condition():
            return
        try:
            for _ in range(16):
                sock.send(b"x" * 4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(0.01)
    raise AssertionError("space does not run short")


def send_all(sock):
    """Send until nothing more goes now."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 4096, socket.MSG_DONTWAIT)


def test_sctp(helper):
    """SCTP's memory runs out."""
    try:
        rx, tx = (socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132) for _ in "12")
    except OSError:
        return "this kernel has no SCTP"
    # It is counted in steps of net.core.mem_pcpu_rsv, 256 pages.
    limit = 3072
    with Saved("/proc/sys/net/sctp/sctp_mem", f"{limit - 8} {limit - 4} {limit}"):
        set_rcvbuf(rx, 64 << 20)
        rx.bind(("127.0.0.1", 0))
        rx.listen()
        tx.connect(rx.getsockname())
        connection, _ = rx.accept()
        send_until(tx, lambda: is_short("proto_mem"))
        env = helper.find("proto_mem", "low", protocol=132)
        equal(env["KHEALTHD_CAPACITY"], str(limit), "capacity")
        true(protocols_mem("SCTP") * 4 > limit * 3, "/proc/net/protocols disagrees")
        send_until(tx, lambda: read(SYSFS + "proto_mem/state") == "exhausted")
        helper.find("proto_mem", "exhausted", protocol=132)
        for sock in (tx, connection, rx):
            sock.close()
        end_episodes()
        helper.find("proto_mem", "recovered")
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
    send_all(connection.tx)
    all_told()
    equal(count("sock_rcvbuf/crossings"), before, "crossings of a full connection")

    # What is on its way when there is suddenly less room is refused. The kernel's
    # worker brings it; it shall not come before us.
    cookies = set()
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    for i in range(500):
        connection.close()
        connection = Vsock()
        cookies.add(str(cookie(connection.rx)))
        connection.rx.setsockopt(socket.AF_VSOCK, VSOCK_MIN_SIZE, 1)
        connection.tx.send(b"x" * (1 << 12 + i % 6), socket.MSG_DONTWAIT)
        connection.rx.setsockopt(socket.AF_VSOCK, VSOCK_SIZE, 1)
        if is_short("sock_rcvbuf"):
            break
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    env = helper.find("sock_rcvbuf", "exhausted", family=int(socket.AF_VSOCK))
    true(env["KHEALTHD_SOCK_COOKIE"] in cookies, "a foreign cookie")
    connection.close()
    return None


def test_netlink(helper):
    """A program listens for changes of links and does not read."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    set_rcvbuf(sock, 16384)
    sock.bind((0, 1))           # RTMGRP_LINK
    run("ip link add khealthd0 type dummy; ip link set khealthd0 up")
    for i in range(100):
        run(f"ip link set khealthd0 alias x{i}")
        if read(SYSFS + "sock_rcvbuf/state") == "exhausted":
            break
    run("ip link del khealthd0")
    env = helper.find("sock_rcvbuf", "exhausted", family=int(socket.AF_NETLINK))
    equal(env["KHEALTHD_PROTOCOL"], "0", "protocol")
    equal(env["KHEALTHD_SOCK_COOKIE"], str(cookie(sock)), "cookie")
    true("KHEALTHD_PORT" not in env, "a netlink socket has no port")
    helper.find("sock_rcvbuf", "low", family=int(socket.AF_NETLINK))
    try:
        while True:
            sock.recv(65536, socket.MSG_DONTWAIT)
    except OSError as e:
        equal(e.errno, errno.ENOBUFS, "errno of the listener")
    sock.close()


def test_packet(helper):
    """A packet socket sees all packets and does not read."""
    sock = set_rcvbuf(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)),
                      32768)
    sock.bind(("lo", 0))
    pair = Udp(rcvbuf=1 << 20)
    while read(SYSFS + "sock_rcvbuf/state") == "ok":
        pair.send()
    helper.find("sock_rcvbuf", "low", family=int(socket.AF_PACKET))
    drops = 0
    while not drops:
        pair.send()
        drops = struct.unpack("II", sock.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS
    env = helper.find("sock_rcvbuf", "exhausted", family=int(socket.AF_PACKET))
    equal(env["KHEALTHD_SOCK_COOKIE"], str(cookie(sock)), "cookie")
    sock.close()
    pair.close()


def test_tcp_rcvbuf(helper):
    """A slow reader: not a word by default, and by name if wanted."""
    before = count("tcp_rcvbuf/crossings")
    connection = Tcp()
    connection.fill()
    connection.close()
    equal(read(SYSFS + "tcp_rcvbuf/state"), "off", "state")
    equal(count("tcp_rcvbuf/crossings"), before, "crossings")

    settings(tcp_rcvbuf="50 60")
    connection = Tcp(rcvbuf=65536)
    connection.fill()
    env = wait_for(lambda: (helper.alerts("tcp_rcvbuf") or [None])[0], "an alert")
    equal(env["TROUBLED_DS"], "5", "TROUBLED_DS")
    equal(env["KHEALTHD_PORT"], str(connection.rx.getsockname()[1]), "port")
    equal(env["KHEALTHD_PROTOCOL"], "6", "protocol")
    equal(env["KHEALTHD_SOCK_COOKIE"], str(cookie(connection.rx)), "cookie")
    # ss finds the socket by what the alert says.
    line = run("ss -Htnem")
    true(f"sk:{cookie(connection.rx):x}" in line, "ss does not show the cookie")
    connection.close()


def test_namespaces(helper):
    """Three namespaces: each is named, and none fills the table alone."""
    spaces = [Netns() for _ in range(3)]
    pairs = []
    for ns, sockets in zip(spaces, (10, 1, 1)):
        with ns:
            new = [Udp() for _ in range(sockets)]
        for pair in new:
            pair.send(200)
        pairs += new
        helper.find("sock_rcvbuf", "exhausted", netns=ns.inode)
    table = offenders("sock_rcvbuf")
    equal(len(table), 8, "offenders")
    equal({o["netns"] for o in table}, {str(ns.inode) for ns in spaces}, "namespaces")
    equal(count("sock_rcvbuf/offenders_lost"), 4, "offenders without a place")
    equal(helper.alerts("sock_rcvbuf")[-1]["KHEALTHD_OTHERS"], "11", "others")
    cookies = {str(cookie(pair.rx)) for pair in pairs}
    true({o["sock_cookie"] for o in table} <= cookies, "foreign cookies")
    equal(oct(os.stat(SYSFS + "sock_rcvbuf/offenders").st_mode & 0o777), "0o400", "mode")

    # They die while they are short.
    for pair in pairs:
        pair.close()
    for ns in spaces:
        ns.delete()
    end_episodes()
    helper.find("sock_rcvbuf", "recovered")
    equal(helper.crossings("sock_rcvbuf"), 12, "crossings")


def test_repeat(helper):
    """While it lasts it is told again, and no more after that."""
    settings(repeat_ms=200)
    pair = Udp()
    pair.send(300)
    wait_for(lambda: helper.events("sock_rcvbuf").count("repeat") >= 3, "repeats")
    env = helper.find("sock_rcvbuf", "repeat")
    equal(env["KHEALTHD_SOCK_COOKIE"], str(cookie(pair.rx)), "cookie")
    true(int(env["KHEALTHD_DURATION_MS"]) > 0, "duration")
    pair.close()
    end_episodes()
    helper.find("sock_rcvbuf", "recovered")
    all_told()
    equal(helper.events("sock_rcvbuf")[-1], "recovered", "the last event")


def feeds_itself(helper, prefix=""):
    """Does a helper that logs to a full socket cause its next run?"""
    pair = Udp()
    Helper(helper.dir, f"""exec {prefix} python3 -c 'import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x" * 1000, ("127.0.0.1", {pair.to[1]}))'""")
    settings(quiet_ms=1)
    pair.send(300)
    helper.find("sock_rcvbuf", "recovered")
    for _ in range(2):
        all_told()              # runs the helper, for each monitor
    end_episodes()
    equal(read(SYSFS + "helper/last_status"), "0", "the helper's status")
    events = helper.events("sock_rcvbuf")
    pair.close()
    # If it does, each run of the helper is an episode of its own.
    true(events.count("recovered") <= 2, f"it feeds itself: {events}")


def test_own_doing(helper):
    """A helper that logs to a full socket does not cause its next run."""
    feeds_itself(helper)


def test_own_doing_elsewhere(helper):
    """Nor if another CPU puts what it logs into the socket."""
    if os.sysconf("SC_NPROCESSORS_ONLN") < 2:
        return "only one CPU"
    with Saved("/sys/class/net/lo/queues/rx-0/rps_cpus", 2):
        feeds_itself(helper, "taskset -c 0")
    return None


def test_again_while_told(helper):
    """The same socket runs short again while the helper hangs: that is seen."""
    Helper(helper.dir, f"""[ $KHEALTHD_EVENT != recovered ] ||
while [ ! -e {helper.dir}/go ]; do sleep 0.1; done""")
    pair = Udp()
    settings(quiet_ms=1)
    pair.send(300)
    helper.find("sock_rcvbuf", "recovered")
    pair.drain()
    alerts = count("sock_rcvbuf/alerts")
    pair.send(300)
    wait_for(lambda: count("sock_rcvbuf/alerts") > alerts, "an alert")
    write(f"{helper.dir}/go", "")
    pair.close()


def test_hotplug(helper):
    """A CPU goes while its queue is short."""
    online = "/sys/devices/system/cpu/cpu1/online"
    if not os.path.exists(online):
        return "only one CPU, or no hotplug"
    settings(backlog="98 99")
    with Saved("/proc/sys/net/core/netdev_max_backlog", 50):
        run("taskset -c 1 ping -q -f -c 2000 -l 20 127.0.0.1")
        with Saved(online, 0):
            end_episodes()
            equal([o for o in offenders("backlog")], [], "offenders")
    all_told()
    if helper.alerts("backlog"):
        equal(helper.events("backlog")[-1], "recovered", "the last event")
    return None


if __name__ == "__main__":
    sys.exit(main(globals()))
