#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Packets for the selftests, sent one at a time, so that a test can count them.

  traffic.py echo PROTO ADDR PORT            answer every packet until killed
  traffic.py ask PROTO DST PORT COUNT [...]  send COUNT requests, each after the last one's answer
  traffic.py flows DST PORT FIRST COUNT ROUNDS
                                             ROUNDS requests of each of COUNT UDP flows
  traffic.py frame DEV [...]                 send handmade IPv4 packets unchanged
  traffic.py agent REQUESTS ANSWERS          run commands from one FIFO, answer on the other

PROTO is udp, tcp or the number of an IP protocol. `ask` prints "sent=N answered=M".
"""

import argparse
import os
import socket
import struct
import sys
import time


# For how long, in seconds, to wait for an answer after one did not come.
HURRY = 1.0
STREAMS = ("tcp", "mptcp")
# The protocols with ports.
PORTS = ("udp", *STREAMS)


def open_socket(proto, addr):
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    if proto == "udp":
        return socket.socket(family, socket.SOCK_DGRAM)
    if proto == "tcp":
        return socket.socket(family, socket.SOCK_STREAM)
    if proto == "mptcp":
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    return socket.socket(family, socket.SOCK_RAW, int(proto))


def echo(args):
    sock = open_socket(args.proto, args.addr)
    name = args.name.encode()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if args.transparent:
        six = sock.family == socket.AF_INET6
        sock.setsockopt(socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP, 75 if six else 19, 1)
    sock.bind((args.addr, args.port if args.proto in PORTS else 0))
    if args.proto in STREAMS:
        sock.listen(64)
        while True:
            conn, _ = sock.accept()
            if os.fork() == 0:
                sock.close()
                while data := conn.recv(2048):
                    conn.sendall(data + name)
                os._exit(0)
            conn.close()
    while True:
        data, peer = sock.recvfrom(2048)
        # A raw socket receives the IP header too.
        sock.sendto((data if args.proto == "udp" else data[20:]) + name, peer)


def ask(args):
    sock = open_socket(args.proto, args.dst)
    name = args.name.encode()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if args.mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, 36, args.mark)
    if args.tos is not None:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, args.tos)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, args.tos)
    if args.options:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes.fromhex(args.options))
    if args.sport or args.src:
        sock.bind((args.src or ("::" if ":" in args.dst else "0.0.0.0"), args.sport))
    sock.settimeout(args.timeout)
    if args.proto in STREAMS:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect((args.dst, args.port if args.proto in PORTS else 0))
    sent = answered = strange = 0
    for number in range(args.count):
        request = struct.pack("!I", number) + bytes(args.size - 4)
        try:
            sent += 1
            sock.sendall(request)
            if args.oneway:
                answered += 1
            else:
                while True:
                    answer = sock.recv(args.size + 64)
                    if not answer:
                        raise OSError("closed")
                    answer = answer if args.proto in PORTS else answer[20:]
                    if answer[:4] == request[:4]:
                        answered += answer[args.size:] == name
                        strange += answer[args.size:] != name
                        break
        except OSError:
            sock.settimeout(min(args.timeout, HURRY))
        if args.until and os.path.exists(args.until):
            break
        if args.interval:
            time.sleep(args.interval)
    return f"sent={sent} answered={answered}" + (f" by-others={strange}" if strange else "")


def flows(args):
    """Sends requests of many flows in turn, each after the previous one's answer."""
    sent = answered = 0
    timeout = args.timeout
    for _ in range(args.rounds):
        for sport in range(args.first, args.first + args.count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("0.0.0.0", sport))
                sock.connect((args.dst, args.port))
                sock.settimeout(timeout)
                sent += 1
                try:
                    sock.send(b"x" * 16)
                    answered += len(sock.recv(64)) == 16
                except OSError:
                    timeout = min(args.timeout, HURRY)
        time.sleep(args.interval)
    return f"sent={sent} answered={answered}"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip_header(proto, src, dst, payload, tos=0, options=b"", flags=0, ident=1, ttl=64):
    ihl = 5 + len(options) // 4

    def pack(sum_):
        return struct.pack("!BBHHHBBH4s4s", 4 << 4 | ihl, tos, ihl * 4 + len(payload), ident,
                           flags, ttl, proto, sum_, socket.inet_aton(src), socket.inet_aton(dst)
                           ) + options

    return pack(checksum(pack(0)))


def frame(args):
    if args.quote:
        # An ICMP "fragmentation needed" error about an echo reply of dst: of the packets that dst
        # sends itself, the only kind whose errors the kernel accepts without a socket.
        echo_reply = struct.pack("!BBHHH", 0, 0, checksum(struct.pack("!BBHHH", 0, 0, 0, 1, 1)),
                                 1, 1)
        inner = ip_header(1, args.dst, args.quote, echo_reply, flags=0x4000) + echo_reply
        body = struct.pack("!BBHHH", 3, 4, 0, 0, args.mtu) + inner
        payload = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        proto = 1
    else:
        data = bytes(args.size)
        payload = struct.pack("!HHHH", args.sport, args.dport, 8 + len(data), args.checksum) + data
        proto = 17
        if args.tcp is not None:
            proto = 6
            payload = struct.pack("!HHIIBBHHH", args.sport, args.dport, args.tcp, 0, 0x50, 0x10, 64, 0, 0)
            pseudo = socket.inet_aton(args.src) + socket.inet_aton(args.dst) + struct.pack("!HH", 6, 20)
            payload = payload[:16] + struct.pack("!H", checksum(pseudo + payload)) + payload[18:]
    packets = [ip_header(proto, args.src, args.dst, payload, tos, bytes.fromhex(args.options),
                         flags=args.flags, ttl=args.ttl) + payload for tos in args.tos]
    if args.ip_checksum:
        packets = [one[:10] + struct.pack("!H", args.ip_checksum) + one[12:] for one in packets]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((args.dev, 0))
    source = mac(args.source) if args.source else sock.getsockname()[4]
    for number in range(args.count * args.spread):
        packet = packets[number % len(packets)]
        if args.spread > 1:
            # Their checksums become wrong.
            packet = packet[:15] + bytes([packet[15] + number % args.spread]) + packet[16:]
        sock.send(mac(args.mac) + source + b"\x08\x00" + packet + bytes(args.padding))
        if args.interval:
            time.sleep(args.interval)
    return f"sent={args.count}"


def agent(args):
    """Runs the command in each line of a FIFO, and answers with a line."""
    # Both FIFOs stay open for reading and writing, so that nothing is lost between two requests.
    with open(args.requests, "r+b", buffering=0) as requests, \
            open(args.answers, "r+b", buffering=0) as answers:
        line = b""
        while True:
            line += requests.read(4096)
            if not line.endswith(b"\n"):
                continue
            try:
                answer = run(line.decode().split())
            except (Exception, SystemExit) as err:
                answer = f"error: {err!r}"
            answers.write(answer.encode() + b"\n")
            line = b""


def run(arguments):
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(required=True)

    verb = verbs.add_parser("agent")
    verb.add_argument("requests")
    verb.add_argument("answers")
    verb.set_defaults(run=agent)

    verb = verbs.add_parser("echo")
    verb.add_argument("proto")
    verb.add_argument("addr")
    verb.add_argument("port", type=int)
    verb.add_argument("--transparent", action="store_true", help="set IP_TRANSPARENT, for TPROXY")
    verb.add_argument("--name", default="", help="appended to each answer")
    verb.set_defaults(run=echo)

    verb = verbs.add_parser("ask")
    verb.add_argument("proto")
    verb.add_argument("dst")
    verb.add_argument("port", type=int)
    verb.add_argument("count", type=int)
    verb.add_argument("--src")
    verb.add_argument("--sport", type=int, default=0)
    verb.add_argument("--mark", type=int)
    verb.add_argument("--tos", type=lambda text: int(text, 0))
    verb.add_argument("--options", help="IP options, in hex")
    verb.add_argument("--size", type=int, default=16)
    verb.add_argument("--timeout", type=float, default=1.0)
    verb.add_argument("--until", help="end early once this file exists")
    verb.add_argument("--interval", type=float, default=0)
    verb.add_argument("--oneway", action="store_true")
    verb.add_argument("--name", default="", help="expected at the end of each answer")
    verb.set_defaults(run=ask)

    verb = verbs.add_parser("flows")
    verb.add_argument("dst")
    verb.add_argument("port", type=int)
    verb.add_argument("first", type=int, help="source port of the first flow")
    verb.add_argument("count", type=int)
    verb.add_argument("rounds", type=int)
    verb.add_argument("--timeout", type=float, default=10.0)
    verb.add_argument("--interval", type=float, default=0)
    verb.set_defaults(run=flows)

    verb = verbs.add_parser("frame")
    verb.add_argument("dev")
    verb.add_argument("mac")
    verb.add_argument("src")
    verb.add_argument("dst")
    verb.add_argument("--sport", type=int, default=0)
    verb.add_argument("--dport", type=int, default=0)
    verb.add_argument("--tos", type=int, nargs="+", default=[0], help="in turn")
    verb.add_argument("--options", default="")
    verb.add_argument("--flags", type=int, default=0, help="and fragment offset")
    verb.add_argument("--ttl", type=int, default=64)
    verb.add_argument("--source", help="source MAC")
    verb.add_argument("--size", type=int, default=16)
    verb.add_argument("--checksum", type=int, default=0, help="of UDP; 0: none")
    verb.add_argument("--ip-checksum", type=int, help="in place of the right one")
    verb.add_argument("--spread", type=int, default=1, help="from so many addresses, from src on")
    verb.add_argument("--padding", type=int, default=0, help="behind the packet")
    verb.add_argument("--tcp", type=int, help="a segment with this sequence number, not UDP")
    verb.add_argument("--count", type=int, default=1)
    verb.add_argument("--interval", type=float, default=0)
    verb.add_argument("--quote", help="send fragmentation needed about this destination")
    verb.add_argument("--mtu", type=int, default=1400)
    verb.set_defaults(run=frame)

    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    print(run(sys.argv[1:]))
