#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""TCP segments that no real TCP would send, from both ends of connections through a router.

  segments.py ROUTER-MAC-OF-C ROUTER-MAC-OF-S COUNT SEED

Sends COUNT segments from c (10.0.1.77) and s (10.9.9.77), addresses at which no host answers:
handshakes, then segments with sequence numbers inside the windows, at their edges and at random,
with flags and options of all kinds. Reproducible by its seed. Prints "sent=N connections=N seed=N".
"""

import os
import random
import socket
import struct
import sys

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
ADDRS = [socket.inet_aton("10.0.1.77"), socket.inet_aton("10.9.9.77")]
TIMESTAMP = bytes([1, 1, 8, 10]) + bytes(8)
MASK = 0xFFFFFFFF


def open_in(ns, dev):
    """Returns a packet socket in a network namespace, and the device's link-layer address."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{ns}", os.O_RDONLY)
    os.setns(there, os.CLONE_NEWNET)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((dev, 0))
    os.setns(here, os.CLONE_NEWNET)
    return sock, sock.getsockname()[4]


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Side:
    """One end of a connection: its next sequence number, window and options."""

    def __init__(self, rng):
        self.nxt = rng.choice([rng.getrandbits(32), MASK - rng.getrandbits(10)])
        self.scale = rng.choice([0, 0, 2, 7, 14])
        self.win = rng.choice([1, 500, 5000, 65535])
        self.options = rng.choice([0, 1, 2, 3])


class Wire:
    def __init__(self, macs):
        self.out = []
        for (ns, dev), mac in zip((("c", "c0"), ("s", "s0")), macs):
            sock, own = open_in(ns, dev)
            self.out.append((sock, bytes.fromhex(mac.replace(":", "")) + own + b"\x08\x00"))
        self.sent = 0

    def send(self, end, port, seq, ack, flags, win, options=b"", length=0):
        ports = (port, 80) if end == 0 else (80, port)
        tcp = struct.pack("!HHIIBBHHH", *ports, seq & MASK, ack & MASK,
                          (5 + len(options) // 4) << 4, flags, win, 0, 0) + options + bytes(length)
        src, dst = ADDRS[end], ADDRS[1 - end]
        pseudo = src + dst + struct.pack("!HH", 6, len(tcp))
        sum_ = checksum(pseudo + tcp + bytes(len(tcp) % 2))
        tcp = tcp[:16] + struct.pack("!H", sum_) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + src + dst
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        sock, ether = self.out[end]
        sock.send(ether + ip + tcp)
        self.sent += 1


def handshake(rng, wire, port):
    sides = [Side(rng), Side(rng)]
    client, server = sides
    # SACK permitted and window scale: both, one of them, or none.
    options = [(bytes([4, 2, 1, 1]) if side.options & 1 else b"")
               + (bytes([3, 3, side.scale, 1]) if side.options & 2 else b"") for side in sides]
    wire.send(0, port, client.nxt, 0, SYN, client.win, options[0])
    client.nxt += 1
    wire.send(1, port, server.nxt, client.nxt, SYN | ACK, server.win, options[1])
    server.nxt += 1
    wire.send(0, port, client.nxt, server.nxt, ACK, client.win)
    return sides


def segment(rng, wire, port, sides):
    end = rng.randrange(2)
    side, other = sides[end], sides[1 - end]
    kind = rng.random()
    seq, ack, flags, win = side.nxt, other.nxt, ACK, side.win
    options = rng.choice([b"", b"", TIMESTAMP])
    length = rng.choice([0, 0, 1, 100, 1400])
    if kind < 0.55:
        side.nxt += length
    elif kind < 0.65:
        # A retransmission, or out of order.
        seq -= rng.choice([0, 1, 100, 1400, 5000])
    elif kind < 0.75:
        ack -= rng.choice([0, 1, 100, 65999, 66000, 66001, 67000])
    elif kind < 0.85:
        # Near the edges of the receiver's window.
        seq += (other.win << other.scale) + rng.choice([-1401, -1, 0, 1, 2])
    elif kind < 0.9:
        win = side.win = rng.choice([0, 1, 500, 65535])
    elif kind < 0.93:
        seq, ack = rng.getrandbits(32), rng.getrandbits(32)
    elif kind < 0.95:
        ack += rng.choice([1, 100, 70000])
    elif kind < 0.97:
        start = ack + rng.choice([0, 100])
        options = bytes([1, 1, 5, 10]) + struct.pack("!II", start & MASK, start + 100 & MASK)
    elif kind < 0.985:
        options = rng.choice([bytes([1, 1, 1, 0]), bytes([8, 10]) + bytes(8) + b"\1\1",
                              bytes([19, 18]) + bytes(16) + b"\1\1"])
    else:
        flags = rng.choice([PSH, URG, ECE | ACK, CWR | ACK, 0, SYN | ACK, SYN | FIN, RST, RST | ACK,
                            FIN | ACK, SYN])
    flags |= rng.choice([0, 0, PSH, ECE, URG]) if flags & ACK else 0
    wire.send(end, port, seq, ack, flags, win, options, length)
    return not flags & (RST | FIN | SYN)


def main(mac_c, mac_s, count, seed):
    rng = random.Random(int(seed))
    wire = Wire((mac_c, mac_s))
    connections = 0
    while wire.sent < int(count):
        port = 10000 + connections % 50000
        connections += 1
        sides = handshake(rng, wire, port)
        for _ in range(rng.randrange(1, 400)):
            # After a segment that may have closed the connection, send a few more.
            if not segment(rng, wire, port, sides) and rng.random() < 0.5:
                break
    print(f"sent={wire.sent} connections={connections} seed={seed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
