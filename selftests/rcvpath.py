#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: rcvpath.py [--show] [TEST...]

khealthd: a real overload for each monitor of the receive path, but for skb_alloc:
whoever eats up memory from here meets the OOM killer first, so that is a KUnit
test. --show prints the alerts that the helper was told of; TESTs are functions
below, without test_.

What the helper was told is compared with the kernel's own counters: softnet_stat,
snmp, sockstat, ENOBUFS.
"""

import errno
import os
import signal
import socket
import sys
import threading
import time

from khealthd_lib import (Helper, Links, Netns, Router, SYSFS, Saved, Udp, all_told,
                          as_user, cookie, count, end_episodes, episodes, equal, is_short,
                          main, read, run, set_rcvbuf, settings, snmp, sockstat_mem,
                          softnet_drops, true, user_namespaces, wait_for, write)


def test_backlog(helper):
    """A router splits packets up faster than the next hop takes them in."""
    router = Router(576)
    drops = softnet_drops()
    with Saved("/proc/sys/net/core/netdev_max_backlog", 80):
        # Some 62 fragments at once: low, but nothing is dropped.
        router.send(34000)
        env = helper.find("backlog", "low")
        equal(softnet_drops(), drops, "drops at low")
        equal(env["TROUBLED_DS"], "2", "TROUBLED_DS")
        equal(env["KHEALTHD_CAPACITY"], "80", "capacity")
        equal(env["KHEALTHD_UNIT"], "packets", "unit")
        equal(env["KHEALTHD_NETNS"], str(router.b.inode), "netns")
        equal(env["KHEALTHD_IFINDEX"],
              run(f"ip -n {router.b.name} -o link show b0").split(":")[0], "ifindex")
        true(int(env["KHEALTHD_CPU"]) < os.cpu_count(), "cpu")
        # And some 118: more than there is room for.
        router.send(65000)
        helper.find("backlog", "exhausted")
        true(softnet_drops() > drops, "nothing was dropped when exhausted")
        end_episodes()
        helper.find("backlog", "recovered")
    router.close()


def fill_udp(condition):
    """Fill UDP's memory until a condition holds. Return who has it."""
    pair = Udp(rcvbuf=64 << 20)
    for _ in range(100000):
        if condition():
            return pair
        pair.send(10, 1400)
    raise AssertionError("UDP's memory does not run short")


# UDP is refused memory from the first number on, TCP from the second.
UDP_LIMIT, TCP_LIMIT = 4096, 2048
UDP_MEM = ("/proc/sys/net/ipv4/udp_mem", f"{UDP_LIMIT} {UDP_LIMIT * 2} {UDP_LIMIT * 3}")
TCP_MEM = ("/proc/sys/net/ipv4/tcp_mem", f"1024 {TCP_LIMIT} 65536")


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
        while not any(e["protocol"] == "6" for e in episodes("proto_mem")):
            true(len(connections) < 500, "TCP's memory does not run short")
            connections.append(Tcp())
            connections[-1].fill()
        true(sockstat_mem("TCP") * 2 > TCP_LIMIT, "sockstat disagrees")
        wait_for(lambda: [e for e in helper.alerts("proto_mem")
                          if e["KHEALTHD_PROTOCOL"] == "6"], "TCP is named")
        equal({e["protocol"] for e in episodes("proto_mem")}, {"6", "17"}, "episodes")
        for c in connections:
            c.close()
        pair.close()
        end_episodes()
        helper.find("proto_mem", "recovered", protocol=6)
        env = helper.find("proto_mem", "recovered", protocol=17)
        # It is read again, so that there is a level to speak of.
        true(int(env["KHEALTHD_FREE"]) * 10 > UDP_LIMIT * 4, "the level it recovered to")
        equal(episodes("proto_mem"), [], "episodes after the end")


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


def test_netlink(helper):
    """A program listens for changes of links and does not read."""
    links = Links(16384)
    while read(SYSFS + "sock_rcvbuf/state") != "exhausted":
        links.change()
    links.space.delete()
    env = helper.find("sock_rcvbuf", "exhausted", family=int(socket.AF_NETLINK))
    equal(env["KHEALTHD_PROTOCOL"], "0", "protocol")
    equal(env["KHEALTHD_SOCK_COOKIE"], str(cookie(links.sock)), "cookie")
    true("KHEALTHD_PORT" not in env, "a netlink socket has no port")
    helper.find("sock_rcvbuf", "low", family=int(socket.AF_NETLINK))
    try:
        while True:
            links.sock.recv(65536, socket.MSG_DONTWAIT)
    except OSError as e:
        equal(e.errno, errno.ENOBUFS, "errno of the listener")
    links.sock.close()


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
    """Three namespaces: each socket in them is notified by name."""
    spaces = [Netns() for _ in range(3)]
    pairs = []
    for ns, sockets in zip(spaces, (10, 1, 1)):
        with ns:
            new = [Udp() for _ in range(sockets)]
        for pair in new:
            pair.send(200)
            helper.find("sock_rcvbuf", "exhausted", netns=ns.inode,
                        sock_cookie=cookie(pair.rx))
        pairs += new
    going_on = episodes("sock_rcvbuf")
    equal({e["sock_cookie"] for e in going_on}, {str(cookie(p.rx)) for p in pairs},
          "cookies")
    equal({e["netns"] for e in going_on}, {str(ns.inode) for ns in spaces}, "namespaces")
    equal(helper.alerts("sock_rcvbuf")[-1]["KHEALTHD_OTHERS"], "11", "others")
    equal(oct(os.stat(SYSFS + "sock_rcvbuf/episodes").st_mode & 0o777), "0o400", "mode")

    # They die while they are short.
    cookies = [cookie(pair.rx) for pair in pairs]
    for pair in pairs:
        pair.close()
    for ns in spaces:
        ns.delete()
    end_episodes()
    for number in cookies:
        helper.find("sock_rcvbuf", "recovered", sock_cookie=number)
    equal(helper.crossings("sock_rcvbuf"), 12, "crossings")


class Full:
    """A socket that nobody reads, and that gets a packet again and again."""

    def __init__(self, rcvbuf=16384):
        self.pair = Udp(rcvbuf)
        self.pair.send(300)
        self.longest = 0        # pause between two packets, in seconds
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._send)
        self.thread.start()

    def _send(self):
        last = time.monotonic()
        while not self.end.wait(0.02):
            self.pair.send()
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now

    def close(self):
        self.end.set()
        self.thread.join()
        self.pair.close()


def losses(helper, full, victim):
    """One socket is full for good; is another one's loss notified each time?"""
    settings(quiet_ms=1000, holdoff_ms=100)
    helper.find("sock_rcvbuf", "exhausted", sock_cookie=cookie(full.pair.rx))
    for n in (1, 2, 3):
        victim.send(300)
        wait_for(lambda n=n: helper.count("sock_rcvbuf", "exhausted",
                                          sock_cookie=cookie(victim.rx)) == n,
                 f"loss {n}")
        wait_for(lambda n=n: helper.count("sock_rcvbuf", "recovered",
                                          sock_cookie=cookie(victim.rx)) == n,
                 f"the end of loss {n}")
        equal(helper.count("sock_rcvbuf", "exhausted", sock_cookie=cookie(victim.rx)),
              n, "alerts of the loss")
        victim.drain()
        time.sleep(0.5)         # longer than its hold-off
    equal(helper.count("sock_rcvbuf", "exhausted", sock_cookie=cookie(full.pair.rx)), 1,
          "alerts of the one that is full for good")
    equal(helper.count("sock_rcvbuf", "recovered", sock_cookie=cookie(full.pair.rx)), 0,
          "ends of the one that is full for good")


def full_for_good(helper, full, victim):
    try:
        losses(helper, full, victim)
        number = cookie(full.pair.rx)
        full.close()
        helper.find("sock_rcvbuf", "recovered", sock_cookie=number)
    except AssertionError:
        # Half of what it takes for an episode to end.
        if full.longest < 0.5:
            raise
        return f"this machine is too busy: it sent nothing for {full.longest:.1f} s"
    finally:
        full.close()
        victim.close()
    return None


def test_full_for_good(helper):
    """Something is full for good: losses elsewhere are notified each time."""
    full_ns, victim_ns = Netns(), Netns()
    with full_ns:
        full = Full()
    with victim_ns:
        victim = Udp()
    skipped = full_for_good(helper, full, victim)
    for ns in (full_ns, victim_ns):
        ns.delete()
    return skipped


def test_full_for_good_here(helper):
    """The same in one network namespace."""
    return full_for_good(helper, Full(), Udp())


def test_no_buffer(helper):
    """A socket with SO_RCVBUF 0 is full for good and hides nobody."""
    return full_for_good(helper, Full(rcvbuf=0), Udp())


def test_slow_helper(helper):
    """Losses come faster than the helper: none is replaced by its end."""
    Helper(helper.dir, "sleep 0.5")
    pairs = [Udp() for _ in range(10)]
    for pair in pairs:
        pair.send(300)          # one episode, on a busy machine, too
        settings(quiet_ms=1)
        wait_for(lambda: read(SYSFS + "sock_rcvbuf/state") == "ok", "the end")
        settings(quiet_ms=3600000)
    for pair in pairs:
        # It may have been run for low before.
        helper.find("sock_rcvbuf", "exhausted", sock_cookie=cookie(pair.rx))
        pair.close()


def flap(sockets):
    """Sockets run short and are read, again and again, until this is killed."""
    pairs = [Udp() for _ in range(sockets)]
    while True:
        for pair in pairs:
            pair.send(300)
            pair.drain()
            time.sleep(0.002)   # others want the CPU, too


def test_flood(helper):
    """32 sockets of one user flap: others' losses are notified all the same."""
    settings(quiet_ms=20, holdoff_ms=1000)
    pid = as_user(65534, lambda: flap(32))
    wait_for(lambda: helper.count("sock_rcvbuf", "exhausted", uid=65534) >= 4, "a burst")

    mine, ns = Udp(), Netns()
    mine.send(300)
    helper.find("sock_rcvbuf", "exhausted", uid=0, sock_cookie=cookie(mine.rx))
    with ns:
        other = Udp()
    other.send(300)
    helper.find("sock_rcvbuf", "exhausted", sock_cookie=cookie(other.rx))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for pair in (mine, other):
        pair.close()
    ns.delete()


def many_namespaces(n):
    """Root of a user namespace makes network namespaces, with a short socket in each."""
    pairs = []
    for _ in user_namespaces(n):
        pairs.append(Udp())
        pairs[-1].send(300)


def test_namespaces_flood(helper):
    """200 namespaces of a user's run short: that is one group, and hides nobody."""
    settings(quiet_ms=20, holdoff_ms=1000)
    pid = as_user(65534, lambda: many_namespaces(200))
    wait_for(lambda: len(helper.alerts("sock_rcvbuf")) >= 4, "a burst")
    mine = Udp()
    mine.send(300)
    helper.find("sock_rcvbuf", "exhausted", sock_cookie=cookie(mine.rx))
    os.waitpid(pid, 0)
    mine.close()


def test_subordinate(helper):
    """64 of a user's subordinate IDs fill the table: that is one group, and hides nobody."""
    settings(holdoff_ms=1000)
    pairs = []
    try:
        # His are 100000 to 165535, and the next ones another user's.
        for uid in (*range(131040, 131104), 165536, 0):
            os.seteuid(uid)
            pairs.append(Udp())
            os.seteuid(0)
            pairs[-1].send(300)
        for uid, pair in zip((165536, 0), pairs[-2:]):
            helper.find("sock_rcvbuf", "exhausted", uid=uid, sock_cookie=cookie(pair.rx))
    finally:
        os.seteuid(0)
        for pair in pairs:
            pair.close()


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


def test_own_doing(helper):
    """A helper that logs to a full socket causes a few alerts, and no more."""
    pair = Udp()
    Helper(helper.dir, f"""exec python3 -c 'import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x" * 1000, ("127.0.0.1", {pair.to[1]}))'""")
    settings(quiet_ms=1, holdoff_ms=3600000)
    pair.send(300)
    helper.find("sock_rcvbuf", "exhausted")
    for _ in range(2):
        all_told()              # runs the helper, for each monitor
    end_episodes()
    equal(read(SYSFS + "helper/last_status"), "0", "the helper's status")
    equal(helper.count("sock_rcvbuf", "exhausted"), 1, "alerts of its own doing")
    pair.close()


def test_again_while_told(helper):
    """The same socket runs short again while the helper hangs: that is seen."""
    Helper(helper.dir, f"""[ $KHEALTHD_EVENT != recovered ] ||
while [ ! -e {helper.dir}/go ]; do sleep 0.1; done""")
    pair = Udp()
    pair.send(300)
    helper.find("sock_rcvbuf", "exhausted")
    settings(quiet_ms=1)
    helper.find("sock_rcvbuf", "recovered")
    pair.drain()
    alerts = count("sock_rcvbuf/alerts")
    pair.send(300)
    wait_for(lambda: count("sock_rcvbuf/alerts") > alerts, "an alert")
    write(f"{helper.dir}/go", "")
    pair.close()


if __name__ == "__main__":
    sys.exit(main(globals()))
