#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Profiles the instructions of a packet; runs on the host beside a guest that runs bench.sh.

profile.py CONTROL-DIR GUEST-LOG TRACE ROW

From the guest's "ready" until its "done", the emulator logs the address of each instruction. The
symbols come from the guest.
"""

import collections
import os
import sys

from tracing import follow


def main():
    control, log, trace, row = sys.argv[1:]

    def start(monitor, way):
        monitor.command(f"logfile {trace}.{way}")
        monitor.command("one-insn-per-tb on")
        monitor.command("log exec,nochain")

    def stop(monitor, _way):
        monitor.command("log none")
        monitor.command("one-insn-per-tb off")

    ways, symbols = follow(control, log, start, stop)
    costs = {}
    for way, packets in ways.items():
        counts = collections.Counter()
        with open(f"{trace}.{way}", encoding="ascii", errors="replace") as file:
            for line in file:
                part = line.split("/", 2)
                if len(part) < 3 or not line.startswith("Trace"):
                    continue
                address = int(part[1], 16)
                counts["(the sender)" if address < 1 << 63 else symbols.name(address)] += 1
        costs[way] = {name: count / packets for name, count in counts.items()}
        os.unlink(f"{trace}.{way}")
    print(f"{'instructions per packet or connection, ' + row:52s}" + "".join(f"{way:>11s}" for way in ways))
    names = sorted({name for cost in costs.values() for name in cost},
                   key=lambda name: -max(cost.get(name, 0) for cost in costs.values()))
    print(f"{'all':52s}" + "".join(f"{sum(costs[way].values()):11.1f}" for way in ways))
    for name in names:
        row = [costs[way].get(name, 0) for way in ways]
        if max(row) >= 1:
            print(f"{name:52s}" + "".join(f"{cost:11.1f}" for cost in row))


if __name__ == "__main__":
    sys.exit(main())
