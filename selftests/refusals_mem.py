#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: refusals_mem.py [--show] [TEST...]

As refusals.py: that each refusal is seen, and none is invented, where packets are
lost for want of a protocol's memory, of memory for packet buffers, and in a CPU's
queue or one of a tunnel's. TESTs are functions below, without test_.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
import time

from khealthd_lib import (FAULTS, Netns, Router, Saved, Udp, ends, equal, fault,
                          is_short, kthreads, main, mib, rcvq_drops, read, run, snmp,
                          snmp6, sockstat_mem, softnet_drops, true, write)

SO_SNDBUFFORCE = 32


# === A CPU's queue ============================================================

def overflows(helper, limit, send, drops):
    """Packets come at once, some 5 more each time, until the queue loses some."""
    before = drops()
    with Saved("/proc/sys/net/core/netdev_max_backlog", limit):
        for size in range(limit * 275, 65000, 2500):    # fragments of 556 bytes
            told = helper.events("backlog")
            send(size)
            if drops() > before:
                break
            if is_short("backlog"):
                helper.find("backlog", "low")
        true("exhausted" not in told, "exhausted, but nothing was dropped")
        helper.find("backlog", "exhausted")
        for _ in range(3):
            send(limit * 640)
        lost = drops() - before
        ends(helper, "backlog", lost)
    equal(helper.events("backlog")[0], "low", "the first event")


def test_backlog(helper):
    """A CPU's queue overflows, against softnet_stat."""
    router = Router(576)
    overflows(helper, 100, router.send, softnet_drops)
    router.close()


def ethtool(ns, device, command, value):
    """Switch something of a device's on or off."""
    data = ctypes.create_string_buffer(struct.pack("II", command, value))
    with ns, socket.socket() as sock:
        fcntl.ioctl(sock, 0x8946, struct.pack(          # SIOCETHTOOL
            "16sQ16x", device.encode(), ctypes.addressof(data)))


def test_gro_cells(helper):
    """A tunnel's queue overflows, against the tunnel's rx_dropped: the CPU's own is empty."""
    router = Router(65000)
    r, b = router.r, router.b
    for ns, here, there in ((r, 1, 2), (b, 2, 1)):
        if "g0" not in run(f"""ip -n {ns.name} link add g0 mtu 576 type geneve id 1 \
                remote 10.2.0.{there} && ip -n {ns.name} addr add 10.7.0.{here}/24 dev g0 &&
                ip -n {ns.name} link set g0 up && ip -n {ns.name} -o link""", check=False):
            router.close()
            return "this kernel has no GENEVE"
    # Frames come to b as from a real device, and not by the CPU's queue.
    ethtool(r, "r1", 0x1f, 0)                           # ETHTOOL_STSO
    ethtool(b, "b0", 0x2c, 1)                           # ETHTOOL_SGRO

    def send(size):
        router.sock.sendto(b"x" * size, ("10.7.0.2", 9))

    def drops():
        return int(run(f"ip netns exec {b.name} cat /proc/net/dev | tr : ' ' | "
                       "awk '$1 == \"g0\" { print $5 }'"))

    send(1)                     # so that addresses are known
    before = softnet_drops()
    overflows(helper, 50, send, drops)      # the tunnel's is polled after 64
    equal(softnet_drops(), before, "drops of the CPU's queue")
    router.close()
    return None


# === A protocol's memory ======================================================

TCP_MEM = ("/proc/sys/net/ipv4/tcp_mem", "1500 2000 3000")


class Connections:
    """TCP connections whose receivers do not read."""

    def __init__(self, n, address="127.0.0.1", ns=contextlib.nullcontext(),
                 protocol=socket.IPPROTO_TCP):
        self.pairs = []
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        server.bind((address, 0))
        server.listen(n)
        for _ in range(n):
            with ns:
                tx = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            tx.connect(server.getsockname())
            tx.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tx.setblocking(False)
            self.pairs.append((tx, server.accept()[0]))
        server.close()

    def send(self, size, first=0):
        for tx, _ in self.pairs[first:]:
            with contextlib.suppress(BlockingIOError):
                tx.send(b"x" * size)

    def close(self, last=None):
        for pair in self.pairs[:last]:
            for sock in pair:
                # Reset: nothing of it stays.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("II", 1, 0))
                sock.close()
        del self.pairs[:last]


def pressure(helper, protocol, drops):
    """TCP's memory is under pressure: receivers are refused it, and long after it, too."""
    with Saved(*TCP_MEM):
        before, idle = drops(), Connections(200)
        active = Connections(100, protocol=protocol)
        told = None
        for _ in range(1000):
            refused = helper.count("proto_mem", "exhausted")
            if drops() > before:
                break
            equal(refused, 0, "exhausted")
            if is_short("proto_mem"):
                told = helper.find("proto_mem", "low", protocol=6)
            active.send(4000)
        true(told, "low did not come before the first drop")
        env = helper.find("proto_mem", "exhausted", protocol=6)
        equal(env["KHEALTHD_CAPACITY"], "2000", "capacity")

        # The pressure lasts until usage is below the first number.
        while sockstat_mem("TCP") > 1900:
            true(active.pairs, "memory is not given back")
            active.close(2)
        true(sockstat_mem("TCP") > 1500, "too much memory is given back")
        now = drops()
        for _ in range(1000):
            if drops() > now + 10:
                break
            active.send(4000)
            time.sleep(0.01)
        true(drops() > now, "nothing is lost below the second number")
        active.close()
        idle.close()
        lost = drops() - before
        ends(helper, "proto_mem", lost, protocol=6)


def test_tcp_pressure(helper):
    """TCP's memory is under pressure, against TCPRcvQDrop, TCPOFODrop and OfoPruned."""
    pressure(helper, socket.IPPROTO_TCP, rcvq_drops)


def test_mptcp_pressure(helper):
    """The same with connections of MPTCP's, against MPTcpExtRcvPruned, too."""
    if not os.path.exists("/proc/sys/net/mptcp/enabled"):
        return "this kernel has no MPTCP"
    # Since it has that, a subflow's queue is empty, and then TCP takes any segment.
    if "OFOPruned" in read("/proc/net/netstat").split():
        return "this kernel's MPTCP is refused nothing under pressure"
    pressure(helper, 262, lambda: rcvq_drops() + mib("netstat", "MPTcpExt:", "RcvPruned"))
    return None


def test_tcp_send_buffers(helper):
    """Send buffers have all of TCP's memory, and a fresh connection gets nothing."""
    here, there = Netns(), Netns()
    run(f"""set -e
    ip -n {here.name} link add v0 type veth peer name v1 netns {there.name}
    ip -n {here.name} addr add 10.4.0.1/24 dev v0; ip -n {here.name} link set v0 up
    ip -n {there.name} addr add 10.4.0.2/24 dev v1; ip -n {there.name} link set v1 up""")
    with Saved(*TCP_MEM):
        with there:
            senders = Connections(100, "10.4.0.2", here)
            before = rcvq_drops()
        for tx, _ in senders.pairs:
            tx.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20)
        run(f"ip -n {there.name} link set v1 down")
        for _ in range(100):
            if is_short("proto_mem"):
                break
            senders.send(16384)
        helper.find("proto_mem", "low", protocol=6)
        for _ in range(10):
            senders.send(16384)
        equal(helper.count("proto_mem", "exhausted"), 0, "exhausted, but nothing is lost")
        with here:
            fresh = Connections(1)
            before = rcvq_drops()
            while rcvq_drops() == before:
                fresh.send(4000)
                time.sleep(0.01)
            helper.find("proto_mem", "exhausted", protocol=6)
            fresh.close()
            lost = rcvq_drops() - before
        senders.close()
        ends(helper, "proto_mem", lost, protocol=6)
    here.delete()
    there.delete()


def mem_errors():
    return snmp("Udp:", "MemErrors") + snmp6("Udp6MemErrors")


def test_udp_least(helper):
    """Past udp_mem's first number, each socket still has udp_rmem_min: nothing is lost."""
    before = mem_errors(), snmp("Udp:", "RcvbufErrors")
    with Saved("/proc/sys/net/ipv4/udp_rmem_min", 131072), \
         Saved("/proc/sys/net/ipv4/udp_mem", "1024 2048 8192"):
        pairs = [Udp(rcvbuf=106496) for _ in range(60)]
        while sockstat_mem("UDP") < 1200:
            for pair in pairs:
                pair.send(2, 1000)
        equal((mem_errors(), snmp("Udp:", "RcvbufErrors")), before, "the kernel's counters")
        helper.find("proto_mem", "low", protocol=17)
        equal(helper.count("proto_mem", "exhausted"), 0, "exhausted")

        # One that has more is refused.
        greedy = Udp(rcvbuf=4 << 20)
        while mem_errors() == before[0]:
            equal(helper.count("proto_mem", "exhausted"), 0, "exhausted")
            greedy.send(1, 1000)
        helper.find("proto_mem", "exhausted", protocol=17)
        greedy.send(50, 1000)
        lost = mem_errors() - before[0]
        for pair in pairs + [greedy]:
            pair.close()
        ends(helper, "proto_mem", lost, protocol=17)


# === Memory for packet buffers ================================================

ATOMIC_FAILS = {"probability": 100, "times": -1, "verbose": 0, "ignore-gfp-wait": "Y"}
SLAB = "/sys/kernel/slab/skbuff_head_cache/failslab"
LO = struct.pack("4s4si", b"", b"", 1)      # struct ip_mreqn: lo


def have_fault(kind):
    return os.path.exists(FAULTS + kind)


def have_slab_fault():
    return have_fault("failslab") and os.stat(SLAB).st_mode & 0o200


def clones_fail(helper, family, to, join, errors):
    """Packets to a group of 20 sockets on lo, while skbs cannot be cloned."""
    space = Netns()
    # IPv6 has no route on lo for this.
    run(f"ip -n {space.name} -6 route add local ff02::1234 dev lo table local")
    with space:
        tx = socket.socket(family, socket.SOCK_DGRAM)
        tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, LO)
        members = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(20)]
        for sock in members:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(to)
            sock.setsockopt(*join)
        before = errors()
        tx.sendto(b"x", to)
        for sock in members:
            sock.recv(1, socket.MSG_DONTWAIT)
        equal(errors(), before, "errors without a fault")
        with Saved(SLAB, 1), \
             fault("failslab", **{"cache-filter": "Y"}, **ATOMIC_FAILS):
            for _ in range(10):
                tx.sendto(b"x", to)
        # The last of them gets the packet itself.
        equal(errors(), before + 10 * 19, "errors")
    helper.find("skb_alloc", "exhausted")
    for sock in members + [tx]:
        sock.close()
    ends(helper, "skb_alloc", 10 * 19)
    space.delete()


def test_clones_fail(helper):
    """Multicast is lost for want of memory to clone skbs, against RcvbufErrors."""
    if not have_slab_fault():
        return "this kernel cannot let one slab fail"
    group = "239.1.2.3"
    clones_fail(helper, socket.AF_INET, (group, 5999),
                (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + LO[4:]),
                lambda: snmp("Udp:", "RcvbufErrors"))
    return None


def test_clones_fail6(helper):
    """The same with IPv6, against Udp6RcvbufErrors."""
    if not have_slab_fault():
        return "this kernel cannot let one slab fail"
    group = "ff02::1234"
    clones_fail(helper, socket.AF_INET6, (group, 5999, 0, 1),
                (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                 socket.inet_pton(socket.AF_INET6, group) + struct.pack("I", 1)),
                lambda: snmp6("Udp6RcvbufErrors"))
    return None


def test_may_fail(helper):
    """pktgen does without if there is no memory at once: that is no refusal."""
    run("modprobe -q pktgen", check=False)
    if not have_fault("failslab") or not os.path.exists("/proc/net/pktgen"):
        return "no fault injection or no pktgen in this kernel"
    space = Netns()
    run(f"ip -n {space.name} link add d0 type dummy; ip -n {space.name} link set d0 up")
    with space:
        write("/proc/net/pktgen/kpktgend_0", "add_device d0")
        for line in ("pkt_size 500", "count 200", "dst 10.5.0.1", "clone_skb 0", "delay 0"):
            write("/proc/net/pktgen/d0", line)
        for pid in kthreads("kpktgend"):
            write(f"/proc/{pid}/make-it-fail", 1)
        with fault("failslab", **{"task-filter": "Y", "probability": 100, "verbose": 0,
                                  "ignore-gfp-wait": "Y", "times": 50}):
            write("/proc/net/pktgen/pgctrl", "start")
            left = read(f"{FAULTS}failslab/times")
        equal(left, "0", "faults that are left of 50")
        true("Result: OK" in read("/proc/net/pktgen/d0"), "pktgen failed")
        write("/proc/net/pktgen/kpktgend_0", "rem_device_all")
    space.delete()
    equal(helper.alerts("skb_alloc"), [], "alerts")
    return None


def test_fragmented(helper):
    """No pages in a row are free: packets are lost, but memory is not short."""
    if not have_fault("fail_page_alloc"):
        return "no fault injection in this kernel"
    router = Router(16000)
    with router.r:
        before = mib("snmp", "Ip:", "FragFails")
        with fault("fail_page_alloc", **{"min-order": 1}, **ATOMIC_FAILS):
            for _ in range(10):
                router.send(60000)
        true(mib("snmp", "Ip:", "FragFails") > before, "no allocation failed")
    router.close()
    equal(helper.alerts("skb_alloc"), [], "alerts")
    return None


if __name__ == "__main__":
    sys.exit(main(globals()))
