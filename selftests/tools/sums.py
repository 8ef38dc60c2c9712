#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sends UDP packets of random sizes and bytes by a packet socket, so that the receiver has to sum them.

sums.py DEV MAC SRC SPORT DST DPORT COUNT right|wrong

The checksum is right, or a bit of the packet has changed since it was computed.
"""

import random
import socket
import struct
import sys

from traffic import checksum, ip_header, mac


def main():
    dev, to, src, sport, dst, dport, count, kind = sys.argv[1:]
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    addrs = socket.inet_pton(family, src) + socket.inet_pton(family, dst)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((dev, 0))
    source = sock.getsockname()[4]
    for _ in range(int(count)):
        data = random.randbytes(random.randrange(1, 1400))
        length = 8 + len(data)
        ports = struct.pack("!HHH", int(sport), int(dport), length)
        pseudo = addrs + struct.pack("!II", length, 17)
        sum_ = checksum(pseudo + ports + bytes(2) + data) or 0xFFFF
        if kind == "wrong":
            at = random.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1:]
        udp = ports + struct.pack("!H", sum_) + data
        if family == socket.AF_INET:
            packet = b"\x08\x00" + ip_header(17, src, dst, udp) + udp
        else:
            packet = b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, length, 17, 64) + addrs + udp
        sock.send(mac(to) + source + packet)


main()
