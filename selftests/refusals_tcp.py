#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: refusals_tcp.py [--show] [TEST...]

As refusals.py: that each refusal of a TCP socket's buffer and backlog is seen, and
of MPTCP's. TESTs are functions below, without test_.
"""

import ctypes
import errno
import fcntl
import hashlib
import itertools
import mmap
import os
import select
import socket
import struct
import sys
import threading

from khealthd_lib import (Netns, cookie, ends, equal, main, mib, netstat, read, rcvq_drops, run,
                          set_rcvbuf, settings, shrinks, wait_for)


class SlowPage:
    """A page that is not there before it is wanted (userfaultfd): who touches it waits."""

    def __init__(self):
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        self.fd = ctypes.CDLL(None).syscall(323, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(errno.ENOSYS, "no userfaultfd")
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        # UFFDIO_API; UFFDIO_REGISTER, of missing pages
        fcntl.ioctl(self.fd, 0xc018aa3f, struct.pack("QQQ", 0xaa, 0, 0))
        fcntl.ioctl(self.fd, 0xc020aa00, struct.pack("QQQQ", address, mmap.PAGESIZE, 1, 0))

    def is_wanted(self):
        return select.select([self.fd], [], [], 0)[0]

    def comes(self):
        os.close(self.fd)


def test_tcp_backlog(helper):
    """A thread waits for a page while it reads from a socket: TCPBacklogDrop."""
    try:
        slow = SlowPage()
    except OSError:
        return "this kernel has no userfaultfd"
    settings(tcp_rcvbuf="12 25")
    space = Netns()
    # What is sent comes at once, and is not sent again.
    run(f"ip -n {space.name} route change local 127.0.0.1 dev lo table local initcwnd 2000 rto_min 60s")
    with space, set_rcvbuf(socket.socket(), 4096) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()
        tx = socket.create_connection(server.getsockname())
        tx.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tx.setblocking(False)
        rx, _ = server.accept()

    def drops():
        with space:
            return netstat("TCPBacklogDrop")

    name = cookie(rx)
    tx.send(b"x")
    reader = threading.Thread(target=lambda: rx.recv_into(slow.page, 1))
    reader.start()
    wait_for(slow.is_wanted, "somebody waits for the page")
    shrinks(helper, "tcp_rcvbuf", lambda: tx.send(b"x"), drops, sock_cookie=name)
    slow.comes()
    reader.join()
    for sock in (tx, rx):
        sock.close()
    lost = drops()
    space.delete()
    ends(helper, "tcp_rcvbuf", lost, sock_cookie=name)
    return None


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Peer:
    """A TCP peer whose segments come in any order that is wanted."""

    def __init__(self, rcvbuf, protocol=socket.IPPROTO_TCP):
        self.ns, self.there = Netns(), Netns()
        run(f"""set -e
        ip -n {self.ns.name} link add v0 address 02:00:00:00:00:01 type veth \
            peer name v1 address 02:00:00:00:00:02 netns {self.there.name}
        ip -n {self.ns.name} addr add 10.3.0.1/24 dev v0
        ip -n {self.ns.name} link set v0 up; ip -n {self.there.name} link set v1 up
        ip -n {self.ns.name} neigh add 10.3.0.2 lladdr 02:00:00:00:00:02 dev v0""")
        with self.ns:
            server = set_rcvbuf(socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol),
                                rcvbuf)
            server.bind(("10.3.0.1", 7))
            server.listen()
        with self.there:
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.wire.bind(("v1", 0x800))
        self.seq, self.ack = 1000, 0
        self.segment(0, 2, options=self.syn())      # SYN
        while True:
            frame = self.wire.recv(2000)
            if frame[23] == 6 and frame[47] == 0x12:  # SYN, ACK
                break
        self.seq, self.ack = 1001, struct.unpack("!I", frame[38:42])[0] + 1
        self.segment(0, 16, options=self.answer(frame))
        self.rx, _ = server.accept()
        server.close()

    def syn(self):
        return b""

    def answer(self, _):
        return b""

    def segment(self, offset, flags, data=b"", options=b""):
        addresses = socket.inet_aton("10.3.0.2") + socket.inet_aton("10.3.0.1")
        tcp = struct.pack("!HHIIBBHHH", 1234, 7, self.seq + offset, self.ack,
                          20 + len(options) << 2, flags, 8192, 0, 0) + options
        length = len(tcp) + len(data)
        padded = data + b"\0" * (len(data) % 2)
        check = checksum(addresses + struct.pack("!HH", 6, length) + tcp + padded)
        tcp = tcp[:16] + struct.pack("!H", check) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 6, 0) + addresses
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        self.wire.send(b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + ip + tcp + data)

    def drops(self):
        with self.ns:
            return rcvq_drops()

    def close(self):
        for sock in (self.rx, self.wire):
            sock.close()
        for ns in (self.ns, self.there):
            ns.delete()


def out_of_order(helper, names, offsets):
    settings(tcp_rcvbuf="12 25")
    peer = Peer(16384)
    socket_cookie = cookie(peer.rx)
    lost = shrinks(helper, "tcp_rcvbuf", lambda: peer.segment(next(offsets), 24, b"x"),
                   peer.drops, sock_cookie=socket_cookie)
    with peer.ns:
        equal(sum(netstat(name) for name in names), lost, names)
    ends(helper, "tcp_rcvbuf", lost, sock_cookie=socket_cookie)
    peer.close()


def test_out_of_order(helper):
    """Segments after a gap, more than there is room for: TCPOFODrop, or OfoPruned."""
    # 6.1 makes room for the new one even if it is the last.
    out_of_order(helper, ("TCPOFODrop", "OfoPruned"), iter(range(2, 8000, 2)))


def test_out_of_order_pruned(helper):
    """The same from the last one to the first: OfoPruned."""
    out_of_order(helper, ("OfoPruned",), iter(range(8000, 0, -2)))


# === MPTCP ====================================================================

MPTCP_MIBS = ("RcvPruned", "OFOPruned", "BacklogDrop")     # 6.12 has only the first


DATA = 80       # the least of which no two share a buffer


class MptcpPeer(Peer):
    """The same with one subflow of MPTCP's, whose data have numbers of their own."""

    KEY = b"khealthd"

    def __init__(self, rcvbuf):
        super().__init__(rcvbuf, 262)
        with self.ns:
            self.mibs = [name for name in MPTCP_MIBS if name in read("/proc/net/netstat").split()]
        self.sent = 0

    def syn(self):
        return struct.pack("BBBB", 30, 4, 1, 1)             # MP_CAPABLE, version 1

    def answer(self, frame):
        at = frame.index(b"\x1e\x0c", 54)                   # the kernel's
        key = frame[at + 4:at + 12]
        self.data_ack = self.first(key)
        return struct.pack("BBBB", 30, 20, 1, 1) + self.KEY + key

    @staticmethod
    def first(key):
        """The first number of a direction."""
        return struct.unpack("!Q", hashlib.sha256(key).digest()[-8:])[0] + 1

    def data(self, number):
        """Send what comes next in the subflow, as what has this number in the data."""
        self.segment(self.sent, 24, b"x" * DATA, struct.pack(   # DSS: 64 bits of all numbers
            "!BBBBQQIHBB", 30, 26, 0x20, 0x0f, self.data_ack, self.first(self.KEY) + number,
            self.sent + 1, DATA, 1, 1))
        self.sent += DATA

    def drops(self):
        with self.ns:
            return rcvq_drops() + sum(mib("netstat", "MPTcpExt:", name) for name in self.mibs)


def mptcp(helper, numbers, pruned):
    """Not the connection is short on 6.12, but its subflow, which keeps the data."""
    settings(tcp_rcvbuf="12 25")
    try:
        peer = MptcpPeer(16384)
    except OSError:
        return "this kernel has no MPTCP"
    if pruned and "OFOPruned" not in peer.mibs:
        peer.close()
        return "this kernel's MPTCP keeps what there is no room for in the subflow"
    lost = shrinks(helper, "tcp_rcvbuf", lambda: peer.data(next(numbers)), peer.drops,
                   netns=peer.ns.inode)
    peer.rx.close()
    ends(helper, "tcp_rcvbuf", lost, netns=peer.ns.inode)
    peer.close()
    return None


def test_mptcp(helper):
    """A connection of MPTCP's that is not read: MPTcpExtRcvPruned or TCPRcvQDrop."""
    return mptcp(helper, itertools.count(0, DATA), False)


def test_mptcp_out_of_order(helper):
    """One with gaps, for what is missing came by no other subflow: MPTcpExtRcvPruned."""
    return mptcp(helper, itertools.chain([0], itertools.count(2 * DATA, 2 * DATA)),
                 True)


if __name__ == "__main__":
    sys.exit(main(globals()))
