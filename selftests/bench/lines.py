#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Counts the cache lines that a packet touches; runs on the host beside a guest that runs bench.sh.

lines.py CONTROL-DIR GUEST-LOG TRACE WAYS

From the guest's "ready" until its "done", lines.c records the kernel's accesses to memory. One half of
the connections is used on one CPU, then the other half on the other one. A packet counts from
__netif_receive_skb_core() to the first __dev_queue_xmit() or dev_hard_start_xmit(), without the lines
of the stack, unless an interrupt came in between. The first table has the lines per packet, and those
among them that are written, by function. A line that several functions touch counts for each of them,
but once in all. The second table has the lines that one CPU writes and the other one touches, by the
function that writes: those would move between the caches of two CPUs that forward different connections.
"""

import collections
import os
import re
import struct
import sys

from tracing import follow

LINE = 64
ACCESS = struct.Struct("<QQBBBB4x")
BEGIN, ENDS = "__netif_receive_skb_core", ("__dev_queue_xmit", "dev_hard_start_xmit")
# The kernel's stack of a task or of a softirq, in bytes.
STACK = 16384
# A packet during which the CPU did something else does not count.
INTERRUPTS = ("sysvec_", "irqentry_", "common_interrupt", "__schedule")
# The first push is among the first bytes of a function.
ENTRY = 12


def short(name):
    """Returns the last two parts of a mangled name of Rust, or the name."""
    if not name.startswith("_R"):
        return name
    mangled, _, module = name.partition(" ")
    # References to earlier parts.
    mangled = re.sub(r"B[0-9a-z]+_", "", mangled)
    parts, at = [], 0
    while found := re.search(r"(\d+)_?(?=[A-Za-z_])", mangled[at:]):
        end = at + found.end() + int(found[1])
        parts.append(mangled[at + found.end():end])
        at = end
    return "::".join([part for part in parts if part][-2:]) + " " + module


def plain(name):
    """Returns a function's name without the compiler's suffix (.constprop.0)."""
    return name.split(".")[0]


def packets_of(path, symbols):
    """Yields (phase, CPU, accesses) of each packet; an access is (function, line, whether it writes)."""
    names = {}
    current = {}
    with open(path, "rb") as file:
        data = file.read()
    for code, address, cpu, is_write, size, phase in ACCESS.iter_unpack(
            data[:len(data) // ACCESS.size * ACCESS.size]):
        name = names.get(code)
        if name is None:
            name = names[code] = short(symbols.name(code))
        if is_write and plain(name) == BEGIN and code - symbols.start(code) < ENTRY:
            # It begins with a push. (A packet that did not leave ends here, too.)
            current[cpu] = (address, [])
            continue
        packet = current.get(cpu)
        if packet is None:
            continue
        if plain(name) in ENDS:
            yield phase, cpu, packet[1]
            del current[cpu]
            continue
        if name.startswith(INTERRUPTS):
            del current[cpu]
            continue
        stack, accesses = packet
        if not -STACK < address - stack < STACK // 4:
            accesses.append((name, address // LINE, is_write))
            if address % LINE + size > LINE:
                accesses.append((name, address // LINE + 1, is_write))


class Way:
    """What the packets of a method touched."""

    def __init__(self):
        self.packets = 0
        self.all = [0, 0]
        self.functions = collections.defaultdict(lambda: [0, 0])
        # For each CPU: the lines, and the functions that wrote each of them.
        self.touched = collections.defaultdict(set)
        self.writers = collections.defaultdict(lambda: collections.defaultdict(set))

    def add(self, cpu, accesses):
        self.packets += 1
        touched, written = set(), set()
        for name, line, is_write in accesses:
            touched.add((name, line))
            if is_write:
                written.add((name, line))
                self.writers[cpu][line].add(name)
            self.touched[cpu].add(line)
        for kind, pairs in enumerate((touched, written)):
            self.all[kind] += len({line for _, line in pairs})
            for name, _ in pairs:
                self.functions[name][kind] += 1

    def shared(self):
        """Returns the lines that one CPU wrote and another one touched, with their writers."""
        return {line: self.writers[cpu][line] for cpu in self.writers for line in self.writers[cpu]
                if any(line in lines for other, lines in self.touched.items() if other != cpu)}


def main():
    control, log, trace, wanted = sys.argv[1:]
    phases = []

    def switch(phase):
        with open(f"{trace}.on", "r+b") as file:
            file.write(bytes([phase]))

    def start(_monitor, way):
        phases.append(way.split(".")[0])
        switch(len(phases))

    def stop(_monitor, _way):
        switch(0)

    _, symbols = follow(control, log, start, stop)
    ways = {way: Way() for way in wanted.split(",")}
    for phase, cpu, accesses in packets_of(trace, symbols):
        ways[phases[phase - 1]].add(cpu, accesses)
    os.unlink(trace)
    if not all(way.packets for way in ways.values()):
        sys.exit("lines.py: not all methods have packets")
    table(ways)


def table(ways):
    """Prints both tables."""
    print(f"{'cache lines per packet, and written ones':52s}" + "".join(f"{way:>16s}" for way in ways))
    print(f"{'all':52s}" + "".join(
        f"{way.all[0] / way.packets:9.1f} {way.all[1] / way.packets:6.1f}" for way in ways.values()))
    names = {name for way in ways.values() for name in way.functions}
    most = {name: max(way.functions[name][0] / way.packets for way in ways.values()) for name in names}
    for name in sorted(names, key=lambda name: -most[name]):
        if most[name] >= 0.5:
            print(f"{name:52s}" + "".join(
                f"{way.functions[name][0] / way.packets:9.1f} {way.functions[name][1] / way.packets:6.1f}"
                for way in ways.values()))
    print()
    print(f"{'lines that a CPU writes and the other one touches':52s}" + "".join(f"{way:>16s}" for way in ways))
    shared = {way: ways[way].shared() for way in ways}
    print(f"{'all':52s}" + "".join(f"{len(shared[way]):16d}" for way in ways))
    for name in sorted({name for lines in shared.values() for writers in lines.values() for name in writers}):
        print(f"{name:52s}" + "".join(
            f"{sum(name in writers for writers in shared[way].values()):16d}" for way in ways))


if __name__ == "__main__":
    sys.exit(main())
