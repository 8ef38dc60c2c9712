#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Unusual TCP connections, to a server that counts the bytes it receives.

  transfer.py serve PORT
  transfer.py wrap|keepalive|stall|halfclose|reset ADDR PORT

When the client has closed its side, serve answers with the number of bytes received. The first byte
is the number of 64 KiB blocks that serve sends back before.
"""

import os
import socket
import struct
import sys
import time

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
SEND_QUEUE = 2


def serve(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", int(port)))
    sock.listen(16)
    while True:
        conn, _ = sock.accept()
        if os.fork():
            conn.close()
            continue
        first = conn.recv(1)
        conn.sendall(bytes(65536) * (first[0] if first else 0))
        count = len(first)
        while data := conn.recv(65536):
            count += len(data)
        conn.sendall(struct.pack("!Q", count))
        conn.close()
        os._exit(0)


def begin_at(sock, seq):
    """Sets the socket's first sequence number, before it connects."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", seq))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)


def count_of(sock):
    """Closes our side, and returns the number of bytes that the server received."""
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return struct.unpack("!Q", answer[-8:])[0]


def wrap(sock, addr):
    begin_at(sock, 0xFFFFFFFF - 30000)
    sock.connect(addr)
    sock.sendall(bytes(300000))
    return count_of(sock), 300000


def keepalive(sock, addr):
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.connect(addr)
    sock.sendall(bytes(1000))
    time.sleep(3.5)
    sock.sendall(bytes(1000))
    return count_of(sock), 2000


def stall(sock, addr):
    # The server sends more than our buffer holds, and we do not read: it sends window probes.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(addr)
    sock.sendall(bytes([4]))
    time.sleep(2)
    sock.sendall(bytes(99))
    return count_of(sock), 100


def halfclose(sock, addr):
    sock.connect(addr)
    sock.sendall(bytes([8]) + bytes(999))
    return count_of(sock), 1000


def reset(sock, addr):
    sock.connect(addr)
    sock.sendall(bytes(5000))
    time.sleep(0.1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return 0, 0


def main(kind, addr, port=None):
    if kind == "serve":
        serve(addr)
    with socket.socket() as sock:
        got, sent = globals()[kind](sock, (addr, int(port)))
    print(f"{kind}: {got} of {sent} bytes")
    return got == sent


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
