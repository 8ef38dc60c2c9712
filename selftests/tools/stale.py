#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes changes that affect the route of a cached flow, and counts the packets that still take the
old path although they were sent after the change returned. Run by stale.sh, in the router's netns.

Numbered packets are sent as fast as possible. The device at which a packet arrives shows its path:
s0 (through s1, the old path), t0 (through t1), or m0, a second link-layer address behind s1. Right
after the change returned, the number of the last packet is read: packets with higher numbers were
sent later.
"""

import argparse
import ctypes
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

from traffic import checksum, mac

SPORT, DPORT = 4000, 12
# Packets that must arrive by the new path, and that must have taken the old path before the change.
ENOUGH = 20


class Failed(Exception):
    """A kind of change could not be tested."""


class Family:
    """The differences between IPv4 and IPv6."""

    def __init__(self, number):
        six = number == 6
        self.number = number
        self.af = socket.AF_INET6 if six else socket.AF_INET
        self.src = "fd00:1::2" if six else "10.0.1.2"
        self.srv = "fd00:9::9" if six else "10.9.9.9"
        self.length = 128 if six else 32
        self.wide = "fd00:9::/64" if six else "10.9.9.0/24"
        self.gw_a = "fd00:2::2" if six else "10.0.2.2"
        self.gw_b = "fd00:3::2" if six else "10.0.3.2"
        self.own_a = "fd00:2::1" if six else "10.0.2.1"
        self.plen = 64 if six else 24
        self.gw_m = "fd00:2::3" if six else "10.0.2.3"
        self.ip = ["ip", "-6" if six else "-4"]


class Bench:
    def __init__(self, family, routes, max_age, jumps):
        self.family = Family(family)
        self.routes = routes
        self.max_age = max_age
        self.jumps = jumps
        # Written and read atomically: struct.pack_into() would make it 0 for a moment.
        self.shared = ctypes.c_uint64.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
        self.sender = None
        self.sinks = {}
        self.size = 32
        self.seen = {}
        self.open_sinks()

    # Packets.

    def in_netns(self, name, do):
        """Runs `do` in another netns, in a process of its own."""
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            if status:
                raise Failed("the process in the other netns failed")
            return
        try:
            enter(name)
            do()
            os._exit(0)
        except BaseException as err:
            print(f"# {err!r}", flush=True)
            os._exit(1)

    def open_sinks(self):
        """Opens the sockets in s and returns to this netns: a socket stays in its netns."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        enter("s")
        for dev in ("s0", "t0", "m0"):
            sock = socket.socket(self.family.af, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())
            except OSError:
                # There is no such device.
                sock.close()
                continue
            sock.bind((self.family.srv, DPORT))
            sock.setblocking(False)
            self.sinks[dev] = sock
        os.setns(here, os.CLONE_NEWNET)
        os.close(here)

    def start(self):
        self.sender = os.fork()
        if self.sender:
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        enter("c")
        sock = socket.socket(self.family.af, socket.SOCK_DGRAM)
        if self.family.number == 4:
            sock.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER: IP_PMTUDISC_PROBE
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, 23, 3)
        sock.bind((self.family.src, SPORT))
        sock.connect((self.family.srv, DPORT))
        number = self.last()
        while True:
            number += 1
            self.shared.value = number
            packet = struct.pack("QQ", number, time.monotonic_ns()).ljust(self.size, b"\0")
            try:
                sock.send(packet)
            except OSError:
                # An ICMP error about an earlier packet.
                pass

    def churn(self):
        """Adds and deletes unrelated routes in batches, 4 ms apart, in a process of its own."""
        child = os.fork()
        if child:
            return child
        six = self.family.number == 6
        lines = []
        for number in range(64):
            to = f"fd00:77:{number:x}::/64" if six else f"10.77.{number}.0/24"
            gateway = f"via {self.family.gw_b} dev t1"
            lines += [f"route add {to} {gateway}", f"route del {to} {gateway}"]
        batch = subprocess.Popen(self.family.ip + ["-b", "-"], text=True,
                                 stdin=subprocess.PIPE)
        while True:
            for first in range(0, len(lines), 16):
                batch.stdin.write("\n".join(lines[first:first + 16]) + "\n")
                batch.stdin.flush()
                time.sleep(0.004)

    def stop(self):
        if self.sender:
            os.kill(self.sender, signal.SIGKILL)
            os.waitpid(self.sender, 0)
            self.sender = None

    def last(self):
        return self.shared.value

    def drain(self):
        """Returns the packets that arrived by each path: their numbers, and when they were sent."""
        arrived = {}
        for dev, sock in self.sinks.items():
            arrived[dev] = []
            while True:
                try:
                    arrived[dev].append(struct.unpack_from("QQ", sock.recv(4096)))
                except BlockingIOError:
                    break
                except OSError:
                    # The device is gone.
                    break
        return arrived

    # The router.

    def run(self, command):
        if callable(command):
            command(self)
            return
        words = command.format(**vars(self.family)).split()
        if words[0] == "sysctl":
            for setting in words[1:]:
                name, value = setting.split("=")
                path = "/proc/sys/" + "/".join(
                    part.replace("%", ".") for part in name.split("."))
                with open(path, "w", encoding="ascii") as file:
                    file.write(value)
            return
        # A nexthop group belongs to no family.
        if words[0] == "ip" and "group" not in words:
            words = self.family.ip + words[1:]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{' '.join(words)}: {done.stderr.strip()}")

    def line(self):
        """Returns the flow's line of `routes`, in the direction of the packets."""
        with open(self.routes, encoding="ascii") as file:
            for line in file:
                if f"ipv{self.family.number} " in line and f"sport={SPORT} " in line \
                        and "dir=orig" in line:
                    return line
        return ""

    def warm(self, oif):
        """Waits until the cached route serves through the device `oif`."""
        until = time.monotonic() + 20
        while True:
            line = self.line()
            if "state=live" in line and f"oif={oif} " in line:
                return
            if time.monotonic() > until:
                raise Failed(f"the flow is not served by {oif}: {line.strip()}")
            self.drain()
            time.sleep(0.02)

    def until_flowing(self, kind):
        """Waits until enough packets took the old path and, if the kind says so, were served."""
        hits, jumped, arrived = self.hits(), self.jumped(), 0
        until = time.monotonic() + 20
        self.drain()
        while True:
            time.sleep(0.05)
            if kind.old:
                arrived += len(self.drain()[kind.old])
            if self.jumps:
                self.answer()
            if (arrived >= ENOUGH or not kind.old) and \
                    (self.hits() - hits >= ENOUGH or not kind.served) and \
                    (self.jumped() - jumped >= ENOUGH or not (self.jumps and kind.served)):
                return
            if time.monotonic() > until:
                raise Failed(f"{arrived} came by {kind.old}: {self.line().strip()}")

    def answer(self):
        """Sends a packet back, because only packets of connections with answers jump."""
        for sock in self.sinks.values():
            try:
                sock.sendto(b"", (self.family.src, SPORT))
            except OSError:
                # The device is down, or has no route back.
                pass

    def jumped(self):
        """Returns how many packets jumped."""
        with open(self.routes.replace("routes", "stats"), encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("jumped "))

    def hits(self):
        line = self.line()
        return int(line.split("hits=")[1].split()[0]) if line else 0

    # A change.

    def judge(self, kind):
        """Returns packets as (stale, ms until the last of these, by the new path, lost)."""
        self.size = kind.size
        self.run(f"sysctl net.nf_zoneroute.max_age_ms={self.max_age if kind.aged else 60000}")
        for command in kind.setup:
            self.run(command)
        self.start()
        try:
            if kind.served:
                self.warm(kind.oif)
            self.until_flowing(kind)
            for command in kind.change:
                self.run(command)
            returned, number = time.monotonic_ns(), self.last()
            until = time.monotonic() + kind.wait + (self.max_age / 1000 * 2 if kind.aged else 0)
            arrived = {dev: [] for dev in self.sinks}
            # A slow machine takes longer to send, and to resolve a neighbour.
            enough = lambda: self.last() - number >= ENOUGH and \
                (not kind.new or sum(n > number for n, _ in arrived[kind.new]) >= ENOUGH)
            while time.monotonic() < until or (not enough() and time.monotonic() < until + 20):
                time.sleep(0.02)
                for dev, packets in self.drain().items():
                    arrived[dev] += packets
        finally:
            self.stop()
        end = self.last()
        time.sleep(0.05)
        for dev, packets in self.drain().items():
            arrived[dev] += packets
        later = {dev: [sent for n, sent in packets if n > number]
                 for dev, packets in arrived.items()}
        stale = [sent for dev, sent_at in later.items() if dev != kind.new for sent in sent_at]
        new = len(later[kind.new]) if kind.new else 0
        if kind.new and new < ENOUGH:
            raise Failed(f"only {new} came by {kind.new}: {self.line().strip()}")
        if end - number < ENOUGH:
            raise Failed("too few were sent after it")
        latest = max((sent - returned for sent in stale), default=0) / 1e6
        return len(stale), latest, new, end - number - new - len(stale)

    def undo(self, kind):
        self.stop()
        for command in kind.undo:
            try:
                self.run(command)
            except (Failed, OSError) as err:
                print(f"# undoing '{kind.name}': {err}", flush=True)
        self.base()

    def base(self):
        for dev in ("s1", "t1"):
            self.run(f"ip link set {dev} up")
        until = time.monotonic() + 20
        for gateway in (self.family.gw_a, self.family.gw_b):
            # After a link was down, its other end may take a second.
            while subprocess.run(["ping", "-q", "-c", "1", "-W", "1", gateway],
                                 capture_output=True, check=False).returncode:
                if time.monotonic() > until:
                    raise Failed(f"{gateway} does not answer")
        self.run("ip route replace {srv}/{length} via {gw_a} dev s1")
        self.drain()


def enter(name):
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    os.setns(fd, os.CLONE_NEWNET)
    os.close(fd)


def address_of(ns, dev):
    shown = subprocess.run(["ip", "-n", ns, "-o", "link", "show", "dev", dev],
                           capture_output=True, text=True, check=True).stdout
    return shown.split("link/ether ")[1].split()[0]


def frame(bench, sender, payload, source, protocol):
    """Sends a frame from s to r's s1: the payload behind an IP header."""
    family = bench.family
    to, own = mac(address_of("r", "s1")), mac(address_of("s", "s0"))
    if family.number == 4:
        def header(total):
            return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 255, protocol,
                               total, socket.inet_aton(source), socket.inet_aton(family.own_a))
        packet = header(checksum(header(0))) + payload
        kind = b"\x08\x00"
    else:
        packet = struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, 255,
                             socket.inet_pton(family.af, source),
                             socket.inet_pton(family.af, family.own_a)) + payload
        kind = b"\x86\xdd"

    def send():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind((sender, 0))
        sock.send(to + own + kind + packet)
    bench.in_netns("s", send)


def quoted(family):
    """Returns an echo packet from r to the server: r accepts errors about it without a socket."""
    if family.number == 4:
        echo = struct.pack("!BBHHH", 0, 0, checksum(struct.pack("!BBHHH", 0, 0, 0, 1, 1)), 1, 1)
        return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0x4000, 64, 1, 0,
                           socket.inet_aton(family.own_a), socket.inet_aton(family.srv)) + echo
    return struct.pack("!IHBB16s16s", 6 << 28, 8, 58, 64, socket.inet_pton(family.af, family.own_a),
                       socket.inet_pton(family.af, family.srv)) + struct.pack("!BBHHH", 128, 0, 0, 1, 1)


def icmp6(family, source, message):
    pseudo = socket.inet_pton(family.af, source) + socket.inet_pton(family.af, family.own_a) + \
        struct.pack("!II", len(message), 58)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def learn_mtu(bench):
    family = bench.family
    if family.number == 4:
        body = struct.pack("!BBHHH", 3, 4, 0, 0, 1280) + quoted(family)
        frame(bench, "s0", body[:2] + struct.pack("!H", checksum(body)) + body[4:], family.gw_a, 1)
    else:
        body = struct.pack("!BBHI", 2, 0, 0, 1280) + quoted(family)
        frame(bench, "s0", icmp6(family, family.gw_a, body), family.gw_a, 58)
    until_routed(bench, "mtu 1280")


def until_routed(bench, words):
    """Waits until the route to the server shows `words`: the frame took effect."""
    family = bench.family
    until = time.monotonic() + 5
    while words not in subprocess.run(family.ip + ["route", "get", family.srv],
                                      capture_output=True, text=True, check=True).stdout:
        if time.monotonic() > until:
            raise Failed(f"the route did not become {words}")


def addresses_of_s1(_bench):
    """Restores the addresses of both families that s1 lost."""
    for address in ("10.0.2.1/24", "fd00:2::1/64"):
        subprocess.run(["ip", "addr", "replace", address, "dev", "s1"], check=True)


def redirect(bench):
    family = bench.family
    if family.number == 4:
        body = struct.pack("!BBH4s", 5, 1, 0, socket.inet_aton(family.gw_m)) + quoted(family)
        frame(bench, "s0", body[:2] + struct.pack("!H", checksum(body)) + body[4:], family.gw_a, 1)
    else:
        # Routers send redirects from their link-local addresses.
        body = struct.pack("!BBHI16s16s", 137, 0, 0, 0, socket.inet_pton(family.af, "fe80::3"),
                           socket.inet_pton(family.af, family.srv))
        body += struct.pack("!BB", 2, 1) + mac(address_of("s", "m0"))
        frame(bench, "s0", icmp6(family, "fe80::2", body), "fe80::2", 58)
    until_routed(bench, "via fe80::3" if family.number == 6 else f"via {family.gw_m}")


def neighbour_is(dev):
    def change(bench):
        bench.run(f"ip neigh replace {{gw_a}} lladdr {address_of('s', dev)} dev s1 nud permanent")
    return change


def flush_neighbours(bench):
    """Flushes the neighbours behind s1. ip(8) gives up after ten rounds if packets under way make new
    entries in each: it has flushed the old ones then."""
    done = subprocess.run([*bench.family.ip, "neigh", "flush", "dev", "s1"],
                          capture_output=True, text=True, check=False)
    if done.returncode and "Flush not complete" not in done.stdout:
        raise Failed(f"neigh flush: {done.stdout.strip()} {done.stderr.strip()}")


def in_s(*command):
    if subprocess.run(["nsenter", "--net=/run/netns/s", *command], check=False).returncode:
        raise Failed(" ".join(command))


def deaf(bench):
    """Makes s ignore neighbour solicitations, which packets under way may cause, and send none."""
    bench.run(f"ip -n s neigh replace {{own_a}} lladdr {address_of('r', 's1')} dev s0 nud permanent")
    in_s("sysctl", "-qw", "net.ipv4.conf.s0.arp_ignore=8")
    in_s("nft", "add table ip6 deaf; "
         "add chain ip6 deaf in { type filter hook input priority 0; }; "
         "add rule ip6 deaf in icmpv6 type nd-neighbor-solicit drop")


def hearing(bench):
    in_s("nft", "delete table ip6 deaf")
    in_s("sysctl", "-qw", "net.ipv4.conf.s0.arp_ignore=1")
    bench.run("ip -n s neigh del {own_a} dev s0")


def buckets_moved(bench):
    """Waits until no bucket of the resilient group uses the first nexthop."""
    until = time.monotonic() + 20
    while " nhid 1 " in subprocess.run(["ip", "nexthop", "bucket", "show", "id", "10"],
                                       capture_output=True, text=True, check=True).stdout:
        if time.monotonic() > until:
            raise Failed("the buckets did not move")


class Kind:
    """A kind of change: commands that make and undo it, and the packets' paths before and after."""

    def __init__(self, name, change, undo=(), setup=(), *, new="t0", old="s0", oif="s1",
                 aged=False, only=None, size=32, served=True, wait=0.2):
        self.name = name
        self.change = [change] if isinstance(change, str) or callable(change) else list(change)
        self.undo = [undo] if isinstance(undo, str) or callable(undo) else list(undo)
        self.setup = [setup] if isinstance(setup, str) or callable(setup) else list(setup)
        # The device at which packets arrive afterwards; None: they do not arrive.
        self.new, self.old, self.oif = new, old, oif
        # The kernel raises no event: bounded by max_age_ms.
        self.aged = aged
        self.only = only
        self.size = size
        # For how long packets are observed afterwards, in seconds.
        self.wait = wait
        # Whether the flow is served from the cache before the change.
        self.served = served


VIA_B = "via {gw_b} dev t1"
TO_B = "ip route add {srv}/{length} " + VIA_B
KINDS = [
    Kind("route replaced", "ip route replace {srv}/{length} " + VIA_B),
    Kind("route added, more specific", TO_B, "ip route del {srv}/{length} " + VIA_B,
         ["ip route add {wide} via {gw_a} dev s1", "ip route del {srv}/{length} via {gw_a} dev s1"]),
    Kind("that route deleted", "ip route del {srv}/{length} " + VIA_B, "ip route del {wide}",
         ["ip route del {srv}/{length} via {gw_a} dev s1", TO_B], old="t0", oif="t1", new="s0"),
    Kind("route added, with a better metric", "ip route add {srv}/{length} " + VIA_B + " metric 100",
         ["ip route del {srv}/{length} " + VIA_B + " metric 100",
          "ip route del {srv}/{length} via {gw_a} dev s1 metric 200"],
         ["ip route del {srv}/{length} via {gw_a} dev s1",
          "ip route add {srv}/{length} via {gw_a} dev s1 metric 200"]),
    Kind("that route deleted again", "ip route del {srv}/{length} " + VIA_B + " metric 100",
         "ip route del {srv}/{length} metric 200",
         ["ip route del {srv}/{length} via {gw_a} dev s1",
          "ip route add {srv}/{length} via {gw_a} dev s1 metric 200",
          "ip route add {srv}/{length} " + VIA_B + " metric 100"], old="t0", oif="t1", new="s0"),
    Kind("route became a blackhole", ["ip route del {srv}/{length}", "ip route add blackhole {srv}/{length}"],
         "ip route del blackhole {srv}/{length}", new=None),
    Kind("route became unreachable", ["ip route del {srv}/{length}", "ip route add unreachable {srv}/{length}"],
         "ip route del unreachable {srv}/{length}", new=None),
    Kind("rule added, by source", "ip rule add from {src} lookup 100 pref 50",
         ["ip rule del pref 50", "ip route flush table 100"], TO_B + " table 100"),
    Kind("rule deleted", "ip rule del pref 50", "ip route flush table 100",
         [TO_B + " table 100", "ip rule add from {src} lookup 100 pref 50"],
         old="t0", oif="t1", new="s0"),
    Kind("rule added, by mark", "ip rule add fwmark 9 lookup 100 pref 50",
         ["ip rule del pref 50", "ip route flush table 100", "nft delete table inet tag"],
         [TO_B + " table 100", "nft add table inet tag",
          "nft add chain inet tag pre {{ type filter hook prerouting priority mangle ; }}",
          "nft add rule inet tag pre udp dport 12 meta mark set 9"]),
    Kind("mark changed by nft", "nft add rule inet tag pre udp dport 12 meta mark set 9",
         ["ip rule del pref 50", "ip route flush table 100", "nft delete table inet tag"],
         [TO_B + " table 100", "nft add table inet tag",
          "nft add chain inet tag pre {{ type filter hook prerouting priority mangle ; }}",
          "ip rule add fwmark 9 lookup 100 pref 50"]),
    Kind("rule added, by port", "ip rule add ipproto udp dport 12 lookup 100 pref 50",
         ["ip rule del pref 50", "ip route flush table 100"], TO_B + " table 100"),
    Kind("route added in another table", TO_B + " table 100",
         ["ip rule del pref 50", "ip route flush table 100"], "ip rule add from {src} lookup 100 pref 50"),
    Kind("route added in another table, of a shorter prefix", "ip route add {wider} " + VIA_B + " table 100",
         ["ip rule del pref 50", "ip route flush table 100"], "ip rule add from {src} lookup 100 pref 50"),
    Kind("route added in another table, of all addresses", "ip route add default " + VIA_B + " table 100",
         ["ip rule del pref 50", "ip route flush table 100"], "ip rule add from {src} lookup 100 pref 50"),
    Kind("route added, long enough for suppress_prefixlength", "ip route add {wide} " + VIA_B + " table 100",
         ["ip rule del pref 50", "ip route flush table 100"],
         ["ip route add {wider} " + VIA_B + " table 100",
          "ip rule add from {src} lookup 100 suppress_prefixlength {wider_length} pref 50"]),
    Kind("route became a throw route", "ip route replace throw {srv}/{length} table 100",
         ["ip rule del pref 50", "ip route flush table 100"],
         ["ip route add {srv}/{length} via {gw_a} dev s1 table 100", "ip rule add from {src} lookup 100 pref 50",
          "ip route replace {srv}/{length} " + VIA_B]),
    Kind("route added, with a better metric, behind one with a DSCP",
         "ip route add {srv}/{length} " + VIA_B + " metric 100",
         ["ip route del {srv}/{length} metric 100", "ip route del {srv}/{length} metric 200",
          "ip route del {srv}/{length} dsfield 0x20"],
         ["ip route del {srv}/{length}", "ip route add {srv}/{length} via {gw_a} dev s1 dsfield 0x20",
          "ip route add {srv}/{length} via {gw_a} dev s1 metric 200"], only=4),
    Kind("route replaced, behind one with a DSCP", "ip route replace {srv}/{length} " + VIA_B,
         "ip route del {srv}/{length} dsfield 0x20",
         "ip route add {srv}/{length} via {gw_a} dev s1 dsfield 0x20", only=4),
    Kind("route deleted, behind one with a DSCP", "ip route del {srv}/{length} metric 100",
         ["ip route del {srv}/{length} metric 200", "ip route del {srv}/{length} dsfield 0x20"],
         ["ip route del {srv}/{length}", "ip route add {srv}/{length} via {gw_a} dev s1 dsfield 0x20",
          "ip route add {srv}/{length} via {gw_a} dev s1 metric 100",
          "ip route add {srv}/{length} " + VIA_B + " metric 200"], only=4),
    Kind("route added, for one source", "ip route add {srv}/{length} from {src} " + VIA_B,
         "ip route del {srv}/{length} from {src}", only=6),
    Kind("nexthop object replaced", "ip nexthop replace id 1 via {gw_b} dev t1",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip route replace {srv}/{length} nhid 1"]),
    Kind("nexthop object deleted, and with it the route", "ip nexthop del id 1", "ip route del {wide}",
         ["ip route add {wide} " + VIA_B, "ip nexthop add id 1 via {gw_a} dev s1",
          "ip route replace {srv}/{length} nhid 1"]),
    Kind("route of a nexthop object deleted", "ip route del {srv}/{length}",
         ["ip route del {wide}", "ip nexthop flush"],
         ["ip route add {wide} " + VIA_B, "ip nexthop add id 1 via {gw_a} dev s1",
          "ip route replace {srv}/{length} nhid 1"]),
    Kind("nexthop group replaced", "ip nexthop replace id 10 group 2",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 2 via {gw_b} dev t1",
          "ip nexthop add id 10 group 1", "ip route replace {srv}/{length} nhid 10"]),
    Kind("member of a nexthop group replaced", "ip nexthop replace id 1 via {gw_b} dev t1",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 10 group 1",
          "ip route replace {srv}/{length} nhid 10"]),
    Kind("member of a nexthop group deleted", "ip nexthop del id 1",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 2 via {gw_b} dev t1",
          # Weights so uneven that the flow uses the first nexthop.
          "ip nexthop add id 10 group 1,255/2,1", "ip route replace {srv}/{length} nhid 10"]),
    Kind("resilient nexthop group replaced", "ip nexthop replace id 10 group 2 type resilient buckets 4",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 2 via {gw_b} dev t1",
          "ip nexthop add id 10 group 1 type resilient buckets 4 idle_timer 0",
          "ip route replace {srv}/{length} nhid 10"]),
    Kind("member of a resilient nexthop group replaced", "ip nexthop replace id 1 via {gw_b} dev t1",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1",
          "ip nexthop add id 10 group 1 type resilient buckets 4",
          "ip route replace {srv}/{length} nhid 10"]),
    # One bucket: no event of another bucket can hide a route that was cached too early.
    Kind("member of a resilient nexthop group deleted", "ip nexthop del id 1",
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 2 via {gw_b} dev t1",
          "ip nexthop add id 10 group 1,255/2,1 type resilient buckets 1",
          "ip route replace {srv}/{length} nhid 10"]),
    Kind("idle bucket of a resilient nexthop group moved",
         ["ip nexthop replace id 10 group 1,1/2,255 type resilient buckets 1 idle_timer 1", buckets_moved],
         ["ip route del {srv}/{length}", "ip nexthop flush"],
         ["ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 2 via {gw_b} dev t1",
          "ip nexthop add id 10 group 1,255/2,1 type resilient buckets 1 idle_timer 1",
          "ip route replace {srv}/{length} nhid 10"]),
    Kind("gateway of a nexthop group became unreachable", "ip neigh replace {gw_a} dev s1 nud failed",
         [hearing, "ip route del {srv}/{length}", "ip nexthop flush", "ip neigh del {gw_a} dev s1"],
         [deaf, neighbour_is("s0"), "ip nexthop add id 1 via {gw_a} dev s1", "ip nexthop add id 2 via {gw_b} dev t1",
          "ip nexthop add id 10 group 1,255/2,1", "ip route replace {srv}/{length} nhid 10"]),
    Kind("one of several nexthops went", "ip route replace {srv}/{length} " + VIA_B, (),
         "ip route replace {srv}/{length} nexthop via {gw_a} dev s1 weight 250 nexthop via {gw_b} dev t1 weight 1"),
    Kind("address deleted, and with it the way to the gateway", "ip addr del {own_a}/{plen} dev s1",
         ["ip addr add {own_a}/{plen} dev s1", "ip route del {wide}"],
         "ip route add {wide} " + VIA_B, only=4),
    Kind("address added: the packets are for the router", "ip addr add {srv}/{length} dev lo",
         "ip addr del {srv}/{length} dev lo", new=None),
    Kind("link down", "ip link set s1 down",
         ["ip link set s1 up", "ip addr replace {own_a}/{plen} dev s1", "ip route del {wide}"],
         "ip route add {wide} " + VIA_B),
    Kind("link up, with a more specific route", "ip link set t1 up",
         ["ip addr del {wide_own} dev t1", "ip route replace {srv}/{length} via {gw_a} dev s1"],
         ["ip link set t1 down", "ip addr add {wide_own} dev t1",
          "ip route add {wider} via {gw_a} dev s1", "ip route del {srv}/{length}"], wait=3),
    Kind("receiving device joined a VRF", "ip link set c1 master vrf0",
         ["ip link set c1 nomaster", "ip link del vrf0", "ip addr replace {gw_c}/{plen} dev c1",
          "ip route flush table 77"],
         ["ip link add vrf0 type vrf table 77", "ip link set vrf0 up",
          "ip route add {srv}/{length} " + VIA_B + " table 77"]),
    Kind("receiving device left the VRF", "ip link set c1 nomaster",
         ["ip link del vrf0", "ip addr replace {gw_c}/{plen} dev c1"],
         ["ip link add vrf0 type vrf table 77", "ip link set vrf0 up", "ip link set c1 master vrf0",
          "ip addr replace {gw_c}/{plen} dev c1",
          "ip route add {srv}/{length} " + VIA_B + " table 77"], served=False, old="t0", new="s0"),
    Kind("device renamed, to the name in a rule", "ip link set c1 name elsewhere",
         ["ip link set elsewhere name c1", "ip rule del pref 50", "ip route flush table 100"],
         [TO_B + " table 100", "ip rule add iif elsewhere lookup 100 pref 50"]),
    Kind("device moved to another netns", "ip link set s1 netns d",
         ["ip -n d link set s1 netns r", "ip link set s1 up", addresses_of_s1, "ip route del {wide}"],
         "ip route add {wide} " + VIA_B),
    Kind("neighbour has another link-layer address", neighbour_is("m0"), "ip neigh del {gw_a} dev s1",
         new="m0"),
    Kind("neighbours flushed", flush_neighbours, new="s0"),
    Kind("MTU learned, for packets that are longer", learn_mtu,
         ["sysctl net.ipv4.ip_forward_use_pmtu=0", "ip route flush cache", "ip route del {srv}/{length}"],
         "sysctl net.ipv4.ip_forward_use_pmtu=1", new=None, size=1400),
    Kind("redirect", redirect, ["ip route flush cache", "ip route del {srv}/{length}"],
         ["sysctl net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.s1.accept_redirects=1 "
          "net.ipv4.conf.all.secure_redirects=0 net.ipv4.conf.s1.secure_redirects=0",
          lambda bench: bench.run(f"ip neigh replace {{gw_m}} lladdr {address_of('s', 'm0')} dev s1 nud permanent")],
         new="m0", only=4),
    Kind("redirect", redirect, ["sysctl net.ipv6.conf.s1.forwarding=1", "ip route del {srv}/{length}"],
         ["ip route replace {srv}/{length} via fe80::2 dev s1",
          "sysctl net.ipv6.conf.s1.forwarding=0 net.ipv6.conf.s1.accept_redirects=1"],
         new="m0", only=6),
    Kind("rp_filter", "sysctl net.ipv4.conf.c1.rp_filter=1",
         ["sysctl net.ipv4.conf.c1.rp_filter=0", "ip route del {src}/{length}"],
         "ip route add {src}/{length} dev d1", new=None, only=4),
    Kind("src_valid_mark", "sysctl net.ipv4.conf.c1.src_valid_mark=0",
         ["sysctl net.ipv4.conf.c1.rp_filter=0", "ip rule del pref 50", "ip route flush table 100",
          "ip route del {src}/{length}", "nft delete table inet tag"],
         ["nft add table inet tag",
          "nft add chain inet tag pre {{ type filter hook prerouting priority mangle ; }}",
          "nft add rule inet tag pre udp dport 12 meta mark set 9",
          "ip route add {src}/{length} dev c1 table 100", "ip route add {srv}/{length} via {gw_a} dev s1 table 100",
          "ip rule add fwmark 9 lookup 100 pref 50", "ip route add {src}/{length} dev d1",
          "sysctl net.ipv4.conf.c1.src_valid_mark=1 net.ipv4.conf.c1.rp_filter=1"], new=None, only=4),
    Kind("accept_local", "sysctl net.ipv4.conf.c1.accept_local=0",
         "ip addr del {src}/{length} dev lo",
         ["sysctl net.ipv4.conf.c1.accept_local=1", "ip addr add {src}/{length} dev lo"], new=None, only=4),
    Kind("forwarding of the device switched off", "sysctl net.ipv4.conf.c1.forwarding=0",
         "sysctl net.ipv4.conf.c1.forwarding=1", (), new=None, only=4),
    Kind("forwarding switched off", "sysctl net.ipv6.conf.all.forwarding=0",
         "sysctl net.ipv6.conf.all.forwarding=1", (), new=None, only=6),
    Kind("ignore_routes_with_linkdown", "sysctl net.ipv4.conf.s1.ignore_routes_with_linkdown=1",
         ["sysctl net.ipv4.conf.s1.ignore_routes_with_linkdown=0", "ip -n s link set p0 up",
          "ip route del {wide}"],
         ["ip route add {wide} " + VIA_B, "ip -n s link set p0 down"], aged=True, only=4, old=None),
    Kind("IPsec policy: block", "ip xfrm policy add dst {srv} dir fwd action block",
         "ip xfrm policy flush", (), new=None),
    Kind("IPsec policy: by a tunnel that is not there",
         "ip xfrm policy add dst {srv} dir out tmpl src {own_a} dst {gw_a} proto esp mode tunnel",
         "ip xfrm policy flush", (), new=None),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("family", type=int)
    parser.add_argument("routes", help="/proc/.../nf_zoneroute/routes of the router")
    parser.add_argument("max_age", type=int, help="max_age_ms")
    parser.add_argument("--kinds", default="", help="only those whose names match")
    parser.add_argument("--jumps", action="store_true", help="packets are to jump before a change")
    parser.add_argument("--count", action="store_true", help="print their number")
    parser.add_argument("--churn", type=int, help="route changes to make, while others change")
    args = parser.parse_args()
    kinds = [kind for kind in KINDS if kind.only in (None, args.family)
             and re.search(args.kinds, kind.name)]
    if args.count:
        print(len(kinds))
        return
    bench = Bench(args.family, args.routes, args.max_age, args.jumps)
    family = bench.family
    six = args.family == 6
    family.gw_c = "fd00:1::1" if six else "10.0.1.1"
    family.wider = "fd00:9::/48" if six else "10.9.0.0/16"
    family.wider_length = 48 if six else 16
    family.wide_own = "fd00:9::1/64" if six else "10.9.9.1/24"
    bench.base()
    churn = None
    if args.churn:
        there = Kind("route replaced", "ip route replace {srv}/{length} " + VIA_B, served=False)
        back = Kind("route replaced back", "ip route replace {srv}/{length} via {gw_a} dev s1", (),
                    "ip route replace {srv}/{length} " + VIA_B, old="t0", new="s0", served=False)
        kinds = [there, back] * (args.churn // 2)
        churn = bench.churn()
    for kind in kinds:
        try:
            stale, latest, new, lost = bench.judge(kind)
            late = latest > bench.max_age + 20 if kind.aged else stale > 0
            verdict = "stale" if late else "ok"
            print(f"{verdict}|{kind.name}|{stale} stale, the last {latest:.1f} ms after it; "
                  f"{new} by the new path, {lost} by none", flush=True)
        except (Failed, OSError) as err:
            print(f"failed|{kind.name}|{err}", flush=True)
        try:
            bench.undo(kind)
        except Failed as err:
            print(f"# after '{kind.name}': {err}", flush=True)
    if churn:
        os.kill(churn, signal.SIGKILL)
        os.waitpid(churn, 0)


if __name__ == "__main__":
    sys.exit(main())
