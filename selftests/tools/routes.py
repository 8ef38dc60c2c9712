#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Changes IPv4 routes at random and compares the way of packets with the kernel's own answer. Run by
reach.sh, in the router's netns.

After each change, a packet is sent by each of some flows, out of many that have cached routes. Then
the kernel is asked which way such a packet takes: RTM_GETROUTE with a receiving device does the lookup
that the packet would have got. The packet must arrive at the other end of that device. For a while,
most packets are sent by the same few flows, so that their routes get to serve some.

routes.py CHANGES FLOWS SEED
"""

import ctypes
import os
import random
import select
import socket
import struct
import sys

SRC, DPORT = "10.0.1.2", 12
NEW, DEL, GET = 24, 25, 26
REQUEST, ACK, REPLACE, EXCL, CREATE, APPEND = 1, 4, 0x100, 0x200, 0x400, 0x800
DST, SRC_ATTR, IIF, OIF, GATEWAY, PRIORITY, TABLE, MULTIPATH = 1, 2, 3, 4, 5, 6, 15, 9
UNICAST, LOCAL, BLACKHOLE, UNREACHABLE, THROW = 1, 2, 6, 7, 9
MAIN, BESIDE = 254, 77
DSCP = 0x20
A, B = "10.0.2.2", "10.0.3.2"
OTHER_END = {"s1": "s0", "t1": "t0"}
# The networks of the flows' destinations.
BASE = 10 << 24 | 64 << 16


def enter(name):
    fd = os.open("/run/netns/" + name, os.O_RDONLY)
    os.setns(fd, os.CLONE_NEWNET)
    os.close(fd)


def number(text):
    return struct.unpack("!I", socket.inet_aton(text))[0]


def attribute(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


class Kernel:
    """A netlink socket of the router."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.index = {name: index for index, name in socket.if_nameindex()}
        self.names = {index: name for name, index in self.index.items()}

    def request(self, kind, flags, body):
        """Returns the answer's error and body."""
        self.sock.send(struct.pack("IHHII", 16 + len(body), kind, flags | REQUEST, 1, 0) + body)
        data = self.sock.recv(65536)
        _, kind, _, _, _ = struct.unpack_from("IHHII", data)
        if kind == 2:  # NLMSG_ERROR
            return -struct.unpack_from("i", data, 16)[0], b""
        return 0, data[16:]

    def change(self, kind, flags, route):
        return self.request(kind, flags | ACK, route)[0]

    def way(self, flow):
        """Returns the device of s to which the kernel sends a flow's packets, or None."""
        body = struct.pack("BBBBBBBBI", socket.AF_INET, 32, 32, flow.tos, 0, 0, 0, 0, 0)
        body += attribute(DST, struct.pack("!I", flow.to)) + attribute(SRC_ATTR, socket.inet_aton(SRC))
        body += attribute(IIF, struct.pack("I", self.index["c1"]))
        error, answer = self.request(GET, 0, body)
        if error:
            return None
        at = 12
        while at + 4 <= len(answer):
            size, kind = struct.unpack_from("HH", answer, at)
            if kind == OIF:
                return OTHER_END[self.names[struct.unpack_from("I", answer, at + 4)[0]]]
            at += size + 3 & ~3
        return None


class Flow:
    def __init__(self, to, tos):
        self.to, self.tos = to, tos
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        self.sock.connect((socket.inet_ntoa(struct.pack("!I", to)), DPORT))


class Changer:
    """Changes one route at a time. Knows which routes there are, to delete and replace them."""

    def __init__(self, kernel, flows, rng):
        self.kernel, self.flows, self.rng = kernel, flows, rng
        self.routes = []
        self.rules = 0
        # The last changed route, if it may keep every packet from its destination.
        self.block = None

    def prefix(self):
        """Chooses a prefix: most are beside all flows, some contain one."""
        rng = self.rng
        kind = rng.random()
        length = rng.choice((32, 32, 28, 26, 25, 24, 24, 24, 23, 22, 20, 18, 16, 15, 12))
        if kind < 0.70:
            addr = BASE | rng.getrandbits(22)
        elif kind < 0.95:
            addr = rng.choice(self.flows).to
        elif kind < 0.98:
            # The sources.
            addr, length = number(SRC), rng.choice((32, 30, 28))
        else:
            addr, length = BASE, rng.choice((10, 8, 7, 0))
        return addr & (0xFFFFFFFF << 32 - length), length

    def body(self, addr, length, tos, metric, table, kind=UNICAST):
        body = struct.pack("BBBBBBBBI", socket.AF_INET, length, 0, tos, table, 4, 0, kind, 0)
        if length:
            body += attribute(DST, struct.pack("!I", addr))
        if metric:
            body += attribute(PRIORITY, struct.pack("I", metric))
        return body

    def target(self):
        """Returns a type of route, and its attributes."""
        rng = self.rng
        kind = rng.choice((UNICAST,) * 12 + (BLACKHOLE, UNREACHABLE, THROW))
        if kind != UNICAST:
            return kind, b""
        if rng.random() < 0.1:
            hops = b""
            for gateway, dev in ((A, "s1"), (B, "t1")):
                hop = attribute(GATEWAY, socket.inet_aton(gateway))
                hops += struct.pack("HBBI", 8 + len(hop), 0, 0, self.kernel.index[dev]) + hop
            return kind, attribute(MULTIPATH, hops)
        return kind, attribute(GATEWAY, socket.inet_aton(rng.choice((A, B))))

    def add(self):
        rng = self.rng
        addr, length = self.prefix()
        tos = rng.choice((0, 0, 0, 0, 0, 0, DSCP))
        metric = rng.choice((0, 0, 10, 20))
        table = rng.choice((MAIN, MAIN, BESIDE))
        kind, attributes = self.target()
        flags = CREATE | rng.choice((EXCL, EXCL, APPEND))
        if not self.kernel.change(NEW, flags, self.body(addr, length, tos, metric, table, kind) + attributes):
            self.routes.append((addr, length, tos, metric, table))
            self.note(self.routes[-1], kind)

    def replace(self):
        if not self.routes:
            return
        route = self.rng.choice(self.routes)
        kind, attributes = self.target()
        if not self.kernel.change(NEW, REPLACE, self.body(*route, kind) + attributes):
            self.note(route, kind)

    def note(self, route, kind):
        addr, length = route[:2]
        is_of_all = length <= 10 or addr >> 32 - length == number(SRC) >> 32 - length
        self.block = route if kind != UNICAST and is_of_all else None

    def delete(self, route):
        self.routes.remove(route)
        self.kernel.change(DEL, 0, self.body(*route, kind=0))

    def rule(self):
        """Adds a rule, from a mark that no packet has, or deletes it."""
        kind = (32, 33)[self.rules % 2]
        self.rules += 1
        body = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, BESIDE, 0, 0, 1, 0)
        body += attribute(6, struct.pack("I", 300)) + attribute(10, struct.pack("I", 0x99))
        self.kernel.change(kind, CREATE | EXCL if kind == 32 else 0, body)

    def silent(self):
        """Makes the kernel bump its genid without an event."""
        with open("/proc/sys/net/ipv4/route/flush", "w") as flush:
            flush.write("1")

    def step(self):
        chance = self.rng.random()
        if self.block:
            self.delete(self.block)
            self.block = None
        elif chance < 0.005:
            self.rule()
        elif chance < 0.01:
            self.silent()
        elif chance < 0.20:
            self.replace()
        elif chance < 0.20 + 0.8 * len(self.routes) / (len(self.routes) + 300):
            self.delete(self.rng.choice(self.routes))
        else:
            self.add()


class Sinks:
    """Tells by which device packets arrive at s."""

    def __init__(self):
        self.arrived = {}
        self.sinks = {}
        for dev in ("s0", "t0"):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())
            sock.bind(("0.0.0.0", DPORT))
            sock.setblocking(False)
            self.sinks[sock] = dev

    def look(self, timeout):
        """Notes what arrived, or arrives within a time. Returns whether there was anything."""
        ready = select.select(list(self.sinks), [], [], timeout)[0]
        for sock in ready:
            while True:
                try:
                    data = sock.recv(64)
                except BlockingIOError:
                    break
                self.arrived[struct.unpack_from("!Q", data)[0]] = self.sinks[sock]
        return bool(ready)


def main():
    changes, count, seed = (int(text) for text in sys.argv[1:])
    rng = random.Random(seed)
    kernel = Kernel()
    enter("s")
    sinks = Sinks()
    enter("c")
    flows = [Flow(BASE | rng.getrandbits(22), rng.choice((0, 0, 0, DSCP))) for _ in range(count)]
    # Writing a sysctl of the netns needs its /proc.
    enter("r")
    changer = Changer(kernel, flows, rng)
    packet = 0
    ways = {}
    waiting = []
    wrong = 0
    for _ in range(2):
        for flow in flows:
            flow.sock.send(struct.pack("!Q", 0))
        sinks.look(5)
    for change in range(changes):
        changer.step()
        if change % 40 == 0:
            busy = rng.sample(flows, 5)
        for flow in rng.sample(busy, 3) + [rng.choice(flows)]:
            packet += 1
            flow.sock.send(struct.pack("!Q", packet))
            ways[packet] = kernel.way(flow)
            waiting.append((packet, flow, change))
        while any(ways[number] and number not in sinks.arrived for number, _, _ in waiting):
            if not sinks.look(20):
                break
        # A packet that should not arrive may do so later.
        sinks.look(0)
        if len(waiting) > 30:
            for number, flow, at in waiting[:-3]:
                if sinks.arrived.get(number) != ways[number]:
                    wrong += 1
                    to = socket.inet_ntoa(struct.pack("!I", flow.to))
                    print(f"# change {at}, packet {number} to {to} (tos {flow.tos:#x}): the kernel says "
                          f"{ways[number]}, it took {sinks.arrived.get(number)}", flush=True)
                sinks.arrived.pop(number, None)
                del ways[number]
            del waiting[:-3]
        if wrong > 20:
            break
    print(f"packets={packet} wrong={wrong} routes={len(changer.routes)}", flush=True)


main()
