#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: owners.py [--show] [TEST...]

khealthd: a real overflow of each of the network's other data structures: queues of
accept(), conntrack, neighbours, memory for reassembly. --show prints the alerts that
the helper was told of; TESTs are functions below, without test_.

Each is filled up step by step: not a word while it is healthy, low before the first
refusal, exhausted with it, recovered after it. That is compared with the kernel's own
counters and messages, and with what was told to those who were turned away.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from khealthd_lib import (Netns, SYSFS, Saved, arrived, as_user, cookie, end_episodes, episodes,
                          equal, main, netstat, read, run, settings, snmp, snmp6, true,
                          user_namespaces, wait_for, write)
from khealthd_owners import (CT_BUCKETS, CT_MAX, Log, Tracked, is_low,
                             is_short_for_good, needs, order, state, stays_ok,
                             step_until, until)


# === accept_queue =============================================================

class Server:
    """It listens, and does not accept."""

    def __init__(self, backlog, host="127.0.0.1", protocol=0, defer=False):
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(self.family, socket.SOCK_STREAM, protocol)
        if defer:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        self.sock.bind((host, 0))
        self.sock.listen(backlog)
        self.clients = []

    def connect(self, n=1, data=True):
        for _ in range(n):
            client = socket.socket(self.family)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(self.sock.getsockname())
            if data:
                with contextlib.suppress(BlockingIOError):
                    client.send(b"x")
            self.clients.append(client)
            arrived()

    def close(self):
        for sock in (self.sock, *self.clients):
            sock.close()


def overflow_queue(helper, host, family, **kind):
    """Fill a queue for 31 connections and one more until one is turned away."""
    space = Netns()
    with space:
        before = netstat("ListenOverflows")
        server = Server(31, host, **kind)
        with stays_ok("accept_queue", "three quarters full"):
            server.connect(24)
        until("accept_queue", "low", server.connect)
        equal(netstat("ListenOverflows"), before, "overflows at low")
        env = is_low(helper, "accept_queue", 7, family=family, netns=space.inode,
                     port=server.sock.getsockname()[1])
        equal(env["KHEALTHD_CAPACITY"], "32", "capacity")
        equal(env["KHEALTHD_FREE"], "3", "free")
        equal(env["KHEALTHD_PROTOCOL"], "6", "protocol")
        if not kind.get("protocol"):
            equal(env["KHEALTHD_SOCK_COOKIE"], str(cookie(server.sock)), "cookie")
        if kind.get("defer"):
            # Their handshakes are over, but for the last ACK.
            late = len(server.clients)
            server.connect(8, data=False)
            equal(netstat("ListenOverflows"), before, "overflows before there is data")
            for client in server.clients[late:]:
                client.send(b"x")
        else:
            until("accept_queue", "exhausted", server.connect)
        helper.find("accept_queue", "exhausted", family=family)
        true(netstat("ListenOverflows") > before, "nobody was turned away")
        server.close()
        lost = netstat("ListenOverflows") - before
    end_episodes()
    env = helper.find("accept_queue", "recovered", family=family)
    equal(env["KHEALTHD_REFUSED"], str(lost), "refused")
    order(helper, "accept_queue")
    space.delete()


@needs("accept_queue")
def test_accept_queue(helper):
    """A server does not accept: SYNs are dropped."""
    overflow_queue(helper, "127.0.0.1", 2)


@needs("accept_queue")
def test_accept_queue_ack(helper):
    """The same, but the last ACK is dropped: the client believes it is connected."""
    overflow_queue(helper, "127.0.0.1", 2, defer=True)


@needs("accept_queue")
def test_accept_queue_ipv6(helper):
    """The same over IPv6."""
    overflow_queue(helper, "::1", 10, defer=True)


@needs("accept_queue")
def test_accept_queue_mptcp(helper):
    """A server for MPTCP does not accept."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close()
    except OSError:
        return "this kernel has no MPTCP"
    overflow_queue(helper, "127.0.0.1", 2, protocol=262)
    return None


@needs("accept_queue")
def test_accept_queue_cookies(helper):
    """SYN cookies for everybody: they keep no connection for which there is no room."""
    space = Netns()
    with space:
        write("/proc/sys/net/ipv4/tcp_syncookies", 2)
        before, sent = netstat("ListenOverflows"), netstat("SyncookiesSent")
        server = Server(31)
        until("accept_queue", "low", server.connect)
        equal(netstat("ListenOverflows"), before, "overflows at low")
        # Before it is exhausted, which alone would be told otherwise.
        is_low(helper, "accept_queue", 7, netns=space.inode)
        until("accept_queue", "exhausted", server.connect)
        true(netstat("ListenOverflows") > before, "nobody was turned away")
        true(netstat("SyncookiesSent") > sent, "no cookie was sent")
        # The end of an episode joins what waits for the helper, and is no word of its own.
        helper.find("accept_queue", "exhausted")
        server.close()
    end_episodes()
    helper.find("accept_queue", "recovered")
    space.delete()


@needs("accept_queue")
def test_accept_queue_short(helper):
    """A queue for a few is full after each burst: only what it refuses is told."""
    server = Server(8)
    before = netstat("ListenOverflows")
    with stays_ok("accept_queue", "a short queue that is full"):
        server.connect(9)
    equal(netstat("ListenOverflows"), before, "overflows")
    until("accept_queue", "exhausted", server.connect)
    true(netstat("ListenOverflows") > before, "nobody was turned away")
    env = helper.find("accept_queue", "exhausted", sock_cookie=cookie(server.sock))
    equal(env["KHEALTHD_CAPACITY"], "9", "capacity")
    server.close()


# === conntrack ================================================================

@needs("conntrack", "conntrack", "nft")
def test_conntrack(helper):
    """The table of one namespace is full: new connections are dropped there."""
    tracked, log = Tracked(), Log()
    with Saved(CT_MAX, 200):
        with stays_ok("conntrack", "85 % full"):
            # The same connections in two zones: that is twice as many.
            tracked.add(80, zone=1)
            tracked.add(80, zone=2)
            tracked.add(10)
            equal(tracked.count(), 170, "conntrack -C")
        until("conntrack", "low", lambda: tracked.add(1))
        equal(tracked.count(), 181, "conntrack -C at low")
        env = is_low(helper, "conntrack", 8, netns=tracked.space.inode)
        equal(env["KHEALTHD_CAPACITY"], "200", "capacity")
        equal(env["KHEALTHD_FREE"], "19", "free")
        tracked.add(200 - tracked.count())
        is_short_for_good("conntrack")
        equal(state("conntrack"), "low", "state at the limit")
        equal(tracked.counter("drop"), 0, "drops at the limit")
        true(not log.has("table full"), "the kernel says that it is full")
        equal(tracked.send(7), 7, "packets that are dropped")
        equal(tracked.counter("drop"), 7, "conntrack -S")
        true(log.has("table full"), "the kernel does not say that it is full")
        helper.find("conntrack", "exhausted", netns=tracked.space.inode)
        run(f"{tracked.inside} conntrack -F")
        end_episodes()
        env = helper.find("conntrack", "recovered")
        equal(env["KHEALTHD_REFUSED"], "7", "refused")
        true(int(env["KHEALTHD_FREE"]) > 30, "free after all")
        order(helper, "conntrack")
    tracked.space.delete()


@needs("conntrack", "conntrack", "nft")
def test_conntrack_evicts(helper):
    """At its limit it evicts who never got an answer: low, and nothing is refused."""
    tracked = Tracked()
    # It looks for one in a few buckets only: in each there have to be some.
    with Saved(CT_BUCKETS, 512), Saved(CT_MAX, 2000):
        with stays_ok("conntrack", "80 % full"):
            tracked.send(1600)
        until("conntrack", "low", tracked.send)
        is_low(helper, "conntrack", 8, netns=tracked.space.inode)
        equal(tracked.send(500), 0, "packets that are dropped")
        true(tracked.counter("early_drop") > 0, "nobody was evicted")
        run(f"{tracked.inside} conntrack -F")
        end_episodes()
        helper.find("conntrack", "recovered")
        equal(helper.events("conntrack"), ["low", "recovered"], "events")
    tracked.space.delete()


@needs("conntrack", "conntrack", "nft")
def test_conntrack_unload(helper):
    """The module goes while its table is short, and comes back."""
    if not os.path.exists("/sys/module/nf_conntrack/initstate"):
        return "nf_conntrack is no module here"
    tracked = Tracked()
    with Saved(CT_MAX, 100):
        tracked.add(95)
        equal(state("conntrack"), "low", "state")
        run(f"{tracked.inside} nft flush ruleset")
        wait_for(lambda: subprocess.run(
            ["modprobe", "-r", "nft_ct", "nf_conntrack_netlink", "nf_conntrack"],
            check=False, capture_output=True).returncode == 0, "the module goes")
        true(not os.path.exists(SYSFS + "conntrack"), "its monitor is still there")
        env = helper.find("conntrack", "low", netns=tracked.space.inode)
        equal(env["KHEALTHD_UNIT"], "entries", "unit")
        run("modprobe nf_conntrack")
        wait_for(lambda: os.path.exists(CT_MAX), "the module comes back")
        equal(state("conntrack"), "ok", "state")
        equal(episodes("conntrack"), [], "episodes")
    tracked.space.delete()
    return None


# === neighbour ================================================================

class Neighbours:
    """A namespace in which peers are known that cannot be forgotten now."""

    def __init__(self, family):
        self.family = family
        self.space = Netns()
        self.known = 0
        version, net = (6, "fd00::1/64") if family == 10 else (4, "10.9.0.1/16")
        run(f"""ip -n {self.space.name} link add d0 type dummy
            ip -n {self.space.name} addr add {net} dev d0
            ip -n {self.space.name} link set d0 up""")
        with self.space:
            # What was reachable lately is not collected.
            write(f"/proc/sys/net/ipv{version}/neigh/d0/base_reachable_time_ms", 36000000)

    def add(self, n=1):
        """Return how many cannot be added."""
        lines = ""
        for i in range(self.known + 1, self.known + 1 + n):
            to = f"fd00::{i:x}" if self.family == 10 else f"10.9.{i >> 8}.{i & 255}"
            lines += f"neigh add {to} lladdr 02:00:00:00:00:01 dev d0 nud reachable\n"
        self.known += n
        errors = subprocess.run(["ip", "-n", self.space.name, "-force", "-batch", "-"],
                                input=lines, text=True, capture_output=True,
                                check=False).stderr
        return errors.count("RTNETLINK answers")


def neighbour_stat(cache, name):
    lines = read(f"/proc/net/stat/{cache}").splitlines()
    column = lines[0].split().index(name)
    return sum(int(line.split()[column], 16) for line in lines[1:])


def overflow_neighbours(helper, family, version, cache):
    """Peers become known in a container until the machine's table overflows."""
    neighbours, log = Neighbours(family), Log()
    base = f"/proc/sys/net/ipv{version}/neigh/default/gc_thresh"
    full = neighbour_stat(cache, "table_fulls")
    with Saved(base + "1", 16), Saved(base + "2", 100), Saved(base + "3", 200):
        with stays_ok("neighbour", "near gc_thresh2"):
            neighbours.add(120)
        until("neighbour", "low", neighbours.add)
        equal(neighbour_stat(cache, "table_fulls"), full, "overflows at low")
        env = is_low(helper, "neighbour", 9, family=family)
        equal(env["KHEALTHD_CAPACITY"], "200", "capacity")
        # IPv6 has neighbours of its own, too: those that groups are reported to.
        exact = family == 2
        true(env["KHEALTHD_FREE"] == "19" or
             (not exact and 0 < int(env["KHEALTHD_FREE"]) < 19), "free")
        true("KHEALTHD_NETNS" not in env, "the table belongs to no namespace")
        is_short_for_good("neighbour")
        lost = 0

        def add():
            nonlocal lost
            lost += neighbours.add()

        step_until(lambda: lost, add, "an overflow")
        helper.find("neighbour", "exhausted", family=family)
        lost += neighbours.add(5)
        true(log.has("neighbor table overflow"), "the kernel does not say so")
        run(f"ip -n {neighbours.space.name} link del d0")
        end_episodes()
        env = helper.find("neighbour", "recovered", family=family)
        full = neighbour_stat(cache, "table_fulls") - full
        true(full == lost or (not exact and full > lost), "overflows")
        equal(env["KHEALTHD_REFUSED"], str(full), "refused")
        true(int(env["KHEALTHD_FREE"]) > 100, "free after all")
        order(helper, "neighbour")
    neighbours.space.delete()


@needs("neighbour")
def test_neighbour_busy(helper):
    """gc keeps a busy table above gc_thresh2, which is near: that is no shortage."""
    neighbours = Neighbours(2)
    base = "/proc/sys/net/ipv4/neigh/default/gc_thresh"
    with Saved(base + "3", 1000), Saved(base + "2", 900), Saved(base + "1", 16):
        with stays_ok("neighbour", "above gc_thresh2, more than 90 %"):
            neighbours.add(940)
        until("neighbour", "low", neighbours.add)
        is_low(helper, "neighbour", 9, family=2)
        true(neighbours.known > 950, "too early")
        # Back to less than 950, which is still less than 20 % free.
        run(f"ip -n {neighbours.space.name} neigh flush dev d0 to 10.9.3.160/27")
        end_episodes()
        helper.find("neighbour", "recovered", family=2)
    neighbours.space.delete()
    # A limit below gc_thresh2: no gc comes before it.
    neighbours = Neighbours(2)
    with Saved(base + "3", 200):
        until("neighbour", "low", neighbours.add)
        true(neighbours.known <= 200, "too late")
    neighbours.space.delete()


@needs("neighbour")
def test_neighbour(helper):
    """The table of IPv4 neighbours overflows."""
    overflow_neighbours(helper, 2, 4, "arp_cache")


@needs("neighbour")
def test_neighbour_ipv6(helper):
    """That of IPv6 does."""
    overflow_neighbours(helper, 10, 6, "ndisc_cache")


# === reassembly ===============================================================

class Fragments:
    """First fragments of packets whose rest never comes, into a namespace."""

    def __init__(self, space, family):
        # Slow to load.
        from scapy.layers.inet import IP            # pylint: disable=C0415
        from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment     # pylint: disable=C0415
        self.number, data = 0, b"x" * 1000
        if family == 10:
            self.to = "::1"
            self.make = lambda i: (IPv6(src="::1", dst="::1") /
                                   IPv6ExtHdrFragment(id=i, m=1, nh=17) / data)
        else:
            self.to = "127.0.0.1"
            self.make = lambda i: IP(src="127.0.0.1", dst="127.0.0.1", id=i, flags="MF",
                                     proto=17) / data
        with space:
            self.sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(self, n=1):
        """Return how many are refused at once."""
        refused = 0
        for _ in range(n):
            self.number += 1
            try:
                self.sock.sendto(bytes(self.make(self.number)), (self.to, 0))
            except PermissionError:
                refused += 1
        return refused


def reassembly_failures(family):
    """As the namespace counts them that this thread is in."""
    return snmp6("Ip6ReasmFails") if family == 10 else snmp("Ip:", "ReasmFails")


def little_memory(space, prefix, time):
    """Room for some 40 fragments of 1000 bytes, which are kept for long."""
    with space:
        write(f"/proc/sys/net/{prefix}{time}", 3600)
        write(f"/proc/sys/net/{prefix}low_thresh", 50000)
        write(f"/proc/sys/net/{prefix}high_thresh", 100000)


def overflow_reassembly(helper, space, family, failures, **identity):
    """Fragments are sent until one is turned away."""
    fragments = Fragments(space, family)
    with stays_ok("reassembly", "three quarters full"):
        fragments.send(25)
    until("reassembly", "low", fragments.send)
    equal(failures(0), 0, "failures at low")
    env = is_low(helper, "reassembly", 10, family=family, netns=space.inode)
    equal(env["KHEALTHD_CAPACITY"], "100000", "capacity")
    lost = 0

    def send():
        nonlocal lost
        lost += fragments.send()

    until("reassembly", "exhausted", send)
    env = helper.find("reassembly", "exhausted", family=family)
    for name, value in identity.items():
        equal(env.get(name), value, name)
    lost += fragments.send(5)
    end_episodes()
    env = helper.find("reassembly", "recovered", family=family)
    equal(env["KHEALTHD_REFUSED"], str(failures(lost)), "refused")
    true(failures(lost) >= 5, "nothing was refused")
    order(helper, "reassembly")
    fragments.sock.close()
    space.delete()


def counted(space, family):
    """What the namespace has counted since."""
    def failures(_):
        with space:
            return reassembly_failures(family) - before
    before = 0
    before = failures(0)
    return failures


@needs("reassembly", "scapy")
def test_reassembly(helper):
    """IPv4 fragments of packets that never become whole."""
    space = Netns()
    little_memory(space, "ipv4/ipfrag_", "time")
    overflow_reassembly(helper, space, 2, counted(space, 2), KHEALTHD_PROTOCOL=None)


@needs("reassembly", "scapy")
def test_reassembly_ipv6(helper):
    """The same for IPv6."""
    space = Netns()
    little_memory(space, "ipv6/ip6frag_", "time")
    overflow_reassembly(helper, space, 10, counted(space, 10), KHEALTHD_PROTOCOL="44")


@needs("reassembly", "scapy", "nft")
def test_reassembly_conntrack(helper):
    """The same where connections are tracked, which has a memory of its own."""
    run("modprobe -q nf_conntrack", check=False)
    if not os.path.exists(CT_MAX):
        return "this kernel has no conntrack"
    space = Tracked().space
    little_memory(space, "netfilter/nf_conntrack_frag6_", "timeout")
    # The sender is told: netfilter drops what it cannot keep.
    overflow_reassembly(helper, space, 10, lambda lost: lost, KHEALTHD_PROTOCOL=None)
    return None


def overflow_namespaces(n):
    """Fragments that nobody keeps, in namespaces, again and again until this is killed."""
    senders = []
    for _ in user_namespaces(n):
        write("/proc/sys/net/ipv4/ipfrag_low_thresh", 1)
        write("/proc/sys/net/ipv4/ipfrag_high_thresh", 1)
        senders.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        senders[-1].connect(("127.0.0.1", 9))
    while True:
        for sender in senders:
            with contextlib.suppress(ConnectionRefusedError):
                sender.send(b"x" * 3000)
            time.sleep(0.002)       # others want the CPU, too


def fragments_memory():
    return int(read("/proc/net/sockstat").partition("FRAG:")[2].split()[3])


@needs("reassembly", "scapy")
def test_reassembly_flood(helper):
    """40 namespaces of a user's overflow: that is one group, and hides nobody."""
    settings(quiet_ms=5000, holdoff_ms=1000)
    space = Netns()
    little_memory(space, "ipv4/ipfrag_", "time")
    fragments = Fragments(space, 2)
    pid = as_user(65534, lambda: overflow_namespaces(40))
    wait_for(lambda: helper.count("reassembly", "exhausted") >= 9, "a burst")
    with space:
        while fragments_memory() < 91000:
            fragments.send()
    is_low(helper, "reassembly", 10, netns=space.inode)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    fragments.sock.close()
    space.delete()


@needs("reassembly", "hping3")
def test_reassembly_hping(helper):
    """hping3 sends fragments."""
    space = Netns()
    little_memory(space, "ipv4/ipfrag_", "time")
    failures = counted(space, 2)
    run(f"ip netns exec {space.name} hping3 -q -I lo -2 -x -d 1000 -i u10000 -c 100 127.0.0.1",
        check=False)
    helper.find("reassembly", "exhausted", netns=space.inode)
    end_episodes()
    env = helper.find("reassembly", "recovered", netns=space.inode)
    equal(env["KHEALTHD_REFUSED"], str(failures(0)), "refused")
    space.delete()


if __name__ == "__main__":
    sys.exit(main(globals()))
