#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sends random packets of one connection through the router, and prints each frame as it arrives at the
other end. Run by lib/exact.sh, which compares the frames with and without jumps.

exact.py udp|tcp orig|reply COUNT SEED DEV-C MAC-C MAC-S C-TUPLE S-TUPLE

A tuple is "SRC SPORT DST DPORT" of the original direction, as c sends it and as s receives it. The
device is that of c; the MACs are those of the router.

The packets differ in TTL, ECN, IP id, DF, size, payload, padding, TCP flags, window and options, and
in their checksum: it is right, or none (UDP over IPv4), or still to be made, or the packet is to be
segmented. Now and then one is of a kind that does not jump. Each frame is printed behind the header by
which the kernel says what is still to be done with it.
"""

import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

SOL_PACKET, PACKET_VNET_HDR = 263, 15
SO_RCVBUFFORCE = 33
ARPHRD_ETHER = 1
GSO = {(socket.AF_INET, 6): 1, (socket.AF_INET6, 6): 4}
GSO_UDP_L4 = 5
FIN, SYN, PSH, ACK = 1, 2, 8, 16


def enter(name):
    fd = os.open("/run/netns/" + name, os.O_RDONLY)
    os.setns(fd, os.CLONE_NEWNET)
    os.close(fd)


def sum16(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data):
    return ~sum16(data) & 0xFFFF


class Side:
    """An end of the connection: a packet socket, and the addresses and ports as seen there."""

    def __init__(self, name, dev, mac, tuple_, is_client, proto):
        enter(name)
        src, sport, dst, dport = tuple_.split()
        self.family = socket.AF_INET6 if ":" in src else socket.AF_INET
        self.proto = proto
        ends = [(socket.inet_pton(self.family, src), int(sport)),
                (socket.inet_pton(self.family, dst), int(dport))]
        self.own, self.peer = ends if is_client else ends[::-1]
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.sock.bind((dev, 3))
        self.kind = 0x86DD if self.family == socket.AF_INET6 else 0x0800
        name = self.sock.getsockname()
        self.ether = b""
        if name[3] == ARPHRD_ETHER:
            self.ether = bytes.fromhex(mac.replace(":", "")) + name[4] + struct.pack("!H", self.kind)
        # The kernel must not answer.
        subprocess.run(["nft", "-f", "-"], check=True, text=True, input=f"""
            table inet exact
            delete table inet exact
            table inet exact {{
                chain pre {{
                    type filter hook prerouting priority raw
                    {"tcp" if proto == 6 else "udp"} dport {self.own[1]} drop
                }}
            }}""")

    def send(self, l4, vnet=bytes(10), ttl=64, tos=0, ident=0, df=0, options=b"", padding=0):
        if self.family == socket.AF_INET:
            head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, tos,
                               20 + len(options) + len(l4), ident, df, ttl, self.proto, 0)
            head += self.own[0] + self.peer[0] + options
            packet = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        else:
            packet = struct.pack("!IHBB", 6 << 28 | tos << 20, len(l4), self.proto, ttl)
            packet += self.own[0] + self.peer[0]
        self.sock.send(vnet + self.ether + packet + l4 + bytes(padding))

    def pseudo(self, length):
        return self.own[0] + self.peer[0] + struct.pack("!II", length, self.proto)

    def finish(self, l4, at, partial):
        """Writes the checksum at an offset: of all, or of the pseudo header only."""
        data = self.pseudo(len(l4)) + (b"" if partial else l4)
        value = sum16(data) if partial else checksum(data) or (0xFFFF if self.proto == 17 else 0)
        return l4[:at] + struct.pack("!H", value) + l4[at + 2:]

    def vnet(self, header, at, size):
        """Returns the header that asks for a checksum, and for segments of a size."""
        start = len(self.ether) + (20 if self.family == socket.AF_INET else 40)
        kind = (GSO.get((self.family, self.proto)) or GSO_UDP_L4) if size else 0
        return struct.pack("=BBHHHH", 1, kind, start + header if size else 0, size, start, at)

    def arrived(self, timeout):
        """Returns the next frame that arrived for this end, or None."""
        own = struct.pack("!H", self.own[1])
        while select.select([self.sock], [], [], timeout)[0]:
            data, addr = self.sock.recvfrom(70000)
            packet = data[10 + len(self.ether):]
            head = (packet[0] & 15) * 4 if self.family == socket.AF_INET else 40
            if addr[2] != socket.PACKET_OUTGOING and addr[1] == self.kind and \
                    packet[9 if self.family == socket.AF_INET else 6] == self.proto and \
                    packet[head + 2:head + 4] == own:
                return data
        return None


class Udp:
    header, check_at = 8, 6

    def __init__(self, rng, sides):
        self.rng = rng
        for side in sides:
            side.seq = 0

    def open(self, client, server):
        # A UDP connection is assured once it has lasted for two seconds.
        for _ in range(50):
            client.send(self.plain(client, b"x"))
            server.send(self.plain(server, b"x"))
            time.sleep(0.05)

    def plain(self, side, payload):
        return side.finish(self.build(side, payload), 6, False)

    def build(self, side, payload):
        return struct.pack("!HHHH", side.own[1], side.peer[1], 8 + len(payload), 0) + payload


class Tcp:
    check_at = 16

    def __init__(self, rng, sides):
        self.rng = rng
        self.header = 20
        for side in sides:
            side.seq = rng.getrandbits(32)

    def segment(self, side, other, flags, payload=b"", options=b"", window=0xFFFF):
        ack = other.seq if flags & ACK else 0
        head = struct.pack("!HHIIBBHHH", side.own[1], side.peer[1], side.seq, ack,
                           (20 + len(options)) // 4 << 4, flags, window, 0, 0)
        side.seq = (side.seq + len(payload) + bool(flags & SYN)) & 0xFFFFFFFF
        return head + options + payload

    def open(self, client, server):
        self.ends = {client: server, server: client}
        scale = b"\x02\x04\x05\xb4\x03\x03\x0e\x00"
        for side, other, flags, options in ((client, server, SYN, scale),
                                            (server, client, SYN | ACK, scale), (client, server, ACK, b"")):
            side.send(side.finish(self.segment(side, other, flags, options=options), 16, False))
            time.sleep(0.02)
        for _ in range(15):
            for side in (client, server):
                side.send(self.plain(side, b"x"))
                time.sleep(0.02)

    def plain(self, side, payload):
        return side.finish(self.segment(side, self.ends[side], ACK, payload), 16, False)

    def build(self, side, payload):
        stamp = b"\x01\x01\x08\x0a" + self.rng.randbytes(8)
        options = self.rng.choice((b"", b"", stamp, b"\x01\x01\x01\x01"))
        self.header = 20 + len(options)
        return self.segment(side, self.ends[side], self.rng.choice((ACK, ACK | PSH)), payload, options,
                            self.rng.randrange(1, 0x10000))


def one(rng, side, proto):
    """Sends a random packet. Returns what it is."""
    is_ipv4 = side.family == socket.AF_INET
    payload = rng.randbytes(rng.choice((1, 2, 3, 17, 18, 64, 200, 1000, 1400)))
    kind = rng.choice(("right", "right", "none", "partial", "segments"))
    size = 0
    if kind == "segments":
        size = rng.choice((100, 536, 1000))
        payload = rng.randbytes(size * rng.randrange(2, 6) + rng.randrange(1, size))
    l4, vnet = proto.build(side, payload), bytes(10)
    if kind in ("partial", "segments"):
        l4 = side.finish(l4, proto.check_at, True)
        vnet = side.vnet(proto.header, proto.check_at, size)
    elif kind == "right" or side.proto == 6 or not is_ipv4:
        l4 = side.finish(l4, proto.check_at, False)
    # One of many does not jump.
    dscp = rng.choice((0,) * 30 + (8,))
    has_options = is_ipv4 and kind in ("right", "none") and rng.random() < 0.05
    options = b"\x01\x01\x01\x00" if has_options else b""
    ttl, ident, df = rng.choice((64, 64, 128, 255, 2, 3)), rng.getrandbits(16), rng.choice((0, 0x4000))
    padding = 0 if size else rng.choice((0, 0, 1, 18))
    side.send(l4, vnet, ttl, dscp << 2 | rng.randrange(4), ident, df, options, padding)
    return f"{kind} len={len(l4)} ttl={ttl} dscp={dscp} options={len(options)} padding={padding}"


def main():
    name, direction, count, seed, dev_c, mac_c, mac_s, tuple_c, tuple_s = sys.argv[1:]
    rng = random.Random(int(seed))
    number = 6 if name == "tcp" else 17
    client = Side("c", dev_c, mac_c, tuple_c, True, number)
    server = Side("s", "s0", mac_s, tuple_s, False, number)
    proto = (Tcp if name == "tcp" else Udp)(rng, (client, server))
    proto.open(client, server)
    sender, receiver = (client, server) if direction == "orig" else (server, client)
    while receiver.arrived(0.2):
        pass
    lost = 0
    for _ in range(int(count)):
        sent = one(rng, sender, proto)
        frame = receiver.arrived(2)
        print(frame.hex() if frame else "lost " + sent)
        lost += frame is None
        if lost == 5:
            break


if __name__ == "__main__":
    main()
