#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Malformed and odd packets, the same ones for the same seed.

  fuzz.py send DEV MAC SEED COUNT    send COUNT packets out of DEV to a router's MAC
  fuzz.py record FILE SECONDS DEV... record which IPv4 packets arrive on each DEV, until none has
                                     arrived for SECONDS; packets from the router are left out

Scapy builds several hundred packets of all kinds: IPv4 with options, fragments, TCP with any
flags and options, ICMP errors about live flows, tunnels; IPv6 with extension headers. Each packet
sent is one of them with some fields or bytes corrupted, and with its checksum corrected or not.
Each is sent four times, because building a packet takes longer than sending it.
"""

import collections
import hashlib
import random
import socket
import struct
import sys
import time

CLIENT, SERVER, SPOOFED = "10.0.1.2", "10.9.9.9", "10.0.4.2"
CLIENT6, SERVER6 = "fd00:1::2", "fd00:9::9"
ROUTER = {socket.inet_aton(f"10.0.{net}.1") for net in range(1, 5)}
LIVE_PORTS = range(4000, 4012)
SERVER_PORTS = (7, 11)
BATCH = 5000


class Packets:
    """An endless sequence of packets."""

    def __init__(self, seed):
        # Scapy takes a second to load, and longer in an emulator.
        from scapy import all as scapy

        self.scapy = scapy
        self.random = random.Random(seed)
        self.templates = [self.template() for _ in range(600)]
        self.whole = [self.fragments() for _ in range(20)]
        self.pending = []

    def template(self):
        make = self.ipv6 if self.random.random() < 0.2 else self.ipv4
        return bytes(make())

    def fragments(self):
        """Returns all fragments of a packet, in random order."""
        scapy = self.scapy
        packet = scapy.IP(src=CLIENT, dst=SERVER) / scapy.UDP(
            sport=self.random.choice(LIVE_PORTS), dport=7) / self.random.randbytes(1200)
        pieces = [bytes(piece) for piece in scapy.fragment(packet, self.random.choice((200, 400, 800)))]
        self.random.shuffle(pieces)
        return pieces

    def payload(self):
        return self.random.randbytes(self.random.choice((0, 0, 1, 8, 16, 100, 600, 1400)))

    def ports(self):
        pick = self.random
        return {
            "sport": pick.choice(LIVE_PORTS) if pick.random() < 0.8 else pick.randrange(65536),
            "dport": pick.choice(SERVER_PORTS) if pick.random() < 0.8 else pick.randrange(65536),
        }

    def tcp(self):
        pick, scapy = self.random, self.scapy
        options = pick.sample([
            ("MSS", pick.randrange(65536)), ("WScale", pick.randrange(256)), ("SAckOK", b""),
            ("Timestamp", (pick.randrange(1 << 32), 0)), ("NOP", None),
            ("SAck", (pick.randrange(1 << 32), pick.randrange(1 << 32))),
        ], pick.randrange(5))
        return scapy.TCP(**self.ports(), seq=pick.randrange(1 << 32), ack=pick.randrange(1 << 32),
                         flags=pick.choice((0x02, 0x10, 0x18, 0x11, 0x04, pick.randrange(512))),
                         window=pick.randrange(65536), urgptr=pick.choice((0, 0, 9)),
                         options=options) / self.payload()

    def quoted(self):
        """Returns a packet of a live flow, for an ICMP error to quote."""
        scapy = self.scapy
        return scapy.IP(src=CLIENT, dst=SERVER) / scapy.UDP(
            sport=self.random.choice(LIVE_PORTS), dport=7) / b"12345678"

    def icmp(self):
        pick, scapy = self.random, self.scapy
        if pick.random() < 0.4:
            kind, code = pick.choice(((3, 1), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0), (4, 0)))
            return scapy.ICMP(type=kind, code=code, nexthopmtu=pick.choice((0, 68, 1300))) / self.quoted()
        return scapy.ICMP(type=pick.choice((8, 8, 0, 13, 17, pick.randrange(256))),
                          id=pick.randrange(4), seq=pick.randrange(9),
                         ts_ori=1, ts_rx=2, ts_tx=3) / self.payload()

    def upper4(self):
        pick, scapy = self.random, self.scapy
        return pick.choice((
            *[lambda: scapy.UDP(**self.ports()) / self.payload()] * 4,
            self.tcp, self.tcp, self.icmp,
            lambda: scapy.SCTP(**self.ports()) / scapy.SCTPChunkInit() / self.payload(),
            lambda: scapy.GRE(proto=0x0800) / self.quoted(),
            lambda: scapy.IP(src=SPOOFED, dst=SERVER) / scapy.UDP() / self.payload(),
            lambda: scapy.ESP(spi=pick.randrange(1 << 32), seq=1, data=self.payload()),
            lambda: scapy.AH(spi=7, seq=1, nh=17) / scapy.UDP(**self.ports()),
            self.payload,
        ))()

    def ipv4(self):
        pick, scapy = self.random, self.scapy
        options = []
        if pick.random() < 0.25:
            options = pick.sample((
                scapy.IPOption_NOP(), scapy.IPOption_RR(routers=["0.0.0.0"] * 3),
                scapy.IPOption_LSRR(routers=[SERVER]), scapy.IPOption_SSRR(routers=["10.0.2.2"]),
                scapy.IPOption_Router_Alert(), scapy.IPOption_Stream_Id(security=5),
                scapy.IPOption_Timestamp(pointer=5),
                scapy.IPOption_Security(),
                scapy.IPOption_EOL(),
            ), pick.randrange(1, 4))
        header = scapy.IP(
            src=pick.choices((CLIENT, SPOOFED, "0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.5"),
                             (80, 12, 2, 2, 2, 2))[0],
            dst=pick.choices((SERVER, "10.0.2.2", "10.0.1.1", "10.0.1.255", "224.0.0.1", "10.250.0.1",
                              "255.255.255.255"), (80, 4, 6, 2, 2, 4, 2))[0],
            tos=pick.choice((0, 0, 0x28, 0xb8, pick.randrange(256))),
            ttl=pick.choices((64, 1, 2, 0, 255), (80, 5, 5, 5, 5))[0], id=pick.randrange(65536),
            flags=pick.choices((0, 2, 1, 4), (45, 45, 5, 5))[0],
            frag=pick.choices((0, 1, 185, 8191), (91, 3, 3, 3))[0], options=options)
        packet = header / self.upper4()
        if not isinstance(packet.payload, scapy.Raw) and pick.random() < 0.05:
            packet.proto = pick.randrange(256)
        return packet

    def ipv6(self):
        pick, scapy = self.random, self.scapy
        packet = scapy.IPv6(src=pick.choice((CLIENT6, CLIENT6, "fe80::1", "::", "ff02::1")),
                            dst=pick.choice((SERVER6, SERVER6, SERVER6, "ff02::1", "fd00:2::2", "::1")),
                            hlim=pick.choice((64, 64, 1, 0, 255)), fl=pick.randrange(1 << 20),
                            tc=pick.randrange(256))
        headers = (
            lambda: scapy.IPv6ExtHdrHopByHop(options=[scapy.RouterAlert()]),
            lambda: scapy.IPv6ExtHdrDestOpt(options=[scapy.PadN(optdata=b"1234")]),
            lambda: scapy.IPv6ExtHdrRouting(addresses=[SERVER6], type=pick.choice((0, 2, 4)), segleft=1),
            lambda: scapy.IPv6ExtHdrFragment(offset=pick.choice((0, 1, 100)), m=pick.randrange(2),
                                             id=pick.randrange(9)),
        )
        for _ in range(pick.choices((0, 1, 2, 5), (60, 25, 10, 5))[0]):
            packet /= pick.choice(headers)()
        return packet / pick.choice((
            lambda: scapy.UDP(**self.ports()) / self.payload(), self.tcp,
            lambda: scapy.ICMPv6EchoRequest(data=self.payload()),
            lambda: scapy.ICMPv6PacketTooBig(mtu=1280) / scapy.IPv6(src=CLIENT6, dst=SERVER6) / scapy.UDP(),
            self.payload))()

    def next(self):
        pick = self.random
        if not self.pending and pick.random() < 0.02:
            ident = pick.randbytes(2)
            self.pending = [bytearray(piece) for piece in pick.choice(self.whole)]
            for piece in self.pending:
                piece[4:6] = ident
                mend(piece)
        if self.pending:
            return self.pending.pop()
        packet = bytearray(pick.choice(self.templates))
        for _ in range(pick.choices((0, 1, 2, 4), (35, 35, 20, 10))[0]):
            packet = self.spoil(packet)
        if len(packet) >= 20 and packet[0] >> 4 == 4 and pick.random() < 0.85:
            mend(packet)
        return packet

    def spoil(self, packet):
        pick = self.random
        if len(packet) < 21:
            return packet
        how = pick.randrange(10)
        if how == 0:    # some byte
            packet[pick.randrange(len(packet))] = pick.randrange(256)
        elif how == 1:  # some bit of the headers
            packet[pick.randrange(min(len(packet), 64))] ^= 1 << pick.randrange(8)
        elif how == 2:  # version and header length
            packet[0] = pick.choice((0x44, 0x46, 0x4F, 0x40, 0x55, 0x60, 0x45))
        elif how == 3:  # total length (IPv4) or payload length (IPv6)
            at = 2 if packet[0] >> 4 == 4 else 4
            length = pick.choice((0, 19, 20, 21, len(packet) - 1, len(packet) + 1, 65535))
            packet[at:at + 2] = struct.pack("!H", length)
        elif how == 4:  # fragment offset and flags
            packet[6:8] = pick.randbytes(2)
        elif how == 5:  # protocol
            packet[9] = pick.choice((1, 2, 4, 6, 17, 33, 41, 47, 50, 51, 58, 132, 136, 255))
        elif how == 6:  # truncation
            del packet[pick.randrange(1, len(packet)):]
        elif how == 7:  # padding
            packet += pick.randbytes(pick.randrange(1, 64))
        elif how == 8:  # ports, or the bytes in their place
            at = min(20, len(packet) - 4)
            packet[at:at + 4] = struct.pack("!HH", pick.choice(LIVE_PORTS), 7)
        else:           # TCP: data offset and flags
            at = min(32, len(packet) - 2)
            packet[at:at + 2] = pick.randbytes(2)
        return packet


def mend(packet):
    """Corrects the checksum of the IPv4 header."""
    size = max(20, min((packet[0] & 15) * 4, len(packet) & ~3))
    packet[10:12] = b"\0\0"
    total = sum(struct.unpack_from(f"!{size // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = struct.pack("!H", ~total & 0xFFFF)


def send(dev, mac, seed, count):
    packets = Packets(int(seed))
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((dev, 0))
    head = bytes.fromhex(mac.replace(":", "")) + sock.getsockname()[4]
    began = time.monotonic()
    sent = 0
    while sent < int(count):
        # Build several thousand at a time, and send each batch four times in different orders.
        frames = []
        for _ in range(min(BATCH, -(-(int(count) - sent) // 4))):
            packet = packets.next()
            kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
            frames.append(head + kind + packet[:1486])
        for _ in range(4):
            for frame in frames[:int(count) - sent]:
                sock.send(frame)
                sent += 1
            packets.random.shuffle(frames)
    print(f"sent={sent} seed={seed} seconds={time.monotonic() - began:.0f}")


def record(path, seconds, *devs):
    seen = collections.Counter()
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
    # The sender is slow to start.
    sock.settimeout(120)
    with open(path + ".ready", "w"):
        pass
    while True:
        try:
            frame, (dev, protocol, kind, *_) = sock.recvfrom(65536)
        except TimeoutError:
            break
        packet = frame[14:]
        if dev not in devs or kind == socket.PACKET_OUTGOING or protocol != 0x0800:
            continue
        if packet[12:16] in ROUTER:
            continue
        sock.settimeout(float(seconds))
        # Leave out options and header checksum: the router writes the time into options.
        body = packet[:10] + packet[12:20] + packet[(packet[0] & 15) * 4:]
        seen[dev, hashlib.sha1(body).hexdigest(), body[:40].hex()] += 1
    with open(path, "w") as file:
        for key, count in sorted(seen.items()):
            print(*key, count, file=file)


if __name__ == "__main__":
    {"send": send, "record": record}[sys.argv[1]](*sys.argv[2:])
