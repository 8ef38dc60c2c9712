#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Accepts the packets of an NFQUEUE until killed: at once, or as soon as HOLD packets are queued.

  nfqueue.py QUEUE [HOLD]
"""

import socket
import struct
import sys

NETLINK_NETFILTER = 12
QUEUE_SUBSYSTEM = 3 << 8
PACKET, VERDICT, CONFIG = 0, 1, 2
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NF_ACCEPT = 1


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def send(sock, kind, flags, queue, payload):
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, queue) + payload
    sock.send(struct.pack("=IHHII", 16 + len(body), QUEUE_SUBSYSTEM | kind,
                          NLM_F_REQUEST | flags, 0, 0) + body)


def packet_ids(data):
    """Yields the IDs of the packets in a received buffer."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind == QUEUE_SUBSYSTEM | PACKET:
            attributes = data[20:length]
            while len(attributes) >= 4:
                size, name = struct.unpack_from("=HH", attributes)
                if name & 0x3FFF == 1:
                    yield struct.unpack_from("!I", attributes, 4)[0]
                attributes = attributes[size + -size % 4:]
        data = data[length + -length % 4:]


def main(queue, hold="1"):
    queue, hold = int(queue), int(hold)
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    sock.bind((0, 0))
    send(sock, CONFIG, NLM_F_ACK, queue, attribute(1, struct.pack("!BBH", 1, 0, 0)))
    sock.recv(65536)
    send(sock, CONFIG, NLM_F_ACK, queue, attribute(2, struct.pack("!IB", 0, 1)))
    sock.recv(65536)
    print("ready", flush=True)
    held = []
    while True:
        held += packet_ids(sock.recv(65536))
        if len(held) >= hold:
            for number in held:
                send(sock, VERDICT, 0, queue, attribute(2, struct.pack("!II", NF_ACCEPT, number)))
            held = []


if __name__ == "__main__":
    main(*sys.argv[1:])
