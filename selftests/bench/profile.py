#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Profiles the instructions of a packet; runs on the host beside a guest that runs bench.sh.

profile.py CONTROL-DIR GUEST-LOG TRACE ROW

From the guest's "ready" until its "done", the emulator logs the address of each instruction. The
symbols come from the guest.
"""

import bisect
import collections
import os
import re
import socket
import sys
import time


def wait_for(log, pattern, since):
    """Returns the match and its end in the log; None if the guest ended, or after 20 minutes."""
    until = time.monotonic() + 1200
    while time.monotonic() < until:
        if os.path.exists(log):
            with open(log, encoding="utf-8", errors="replace") as file:
                file.seek(since)
                text = file.read()
            found = re.search(pattern, text)
            if found:
                return found, since + len(text[:found.end()].encode())
            if re.search(r"^(guest: |the guest died|# the script ended)", text, re.M):
                return None, since
        time.sleep(0.2)
    return None, since


class Socket:
    """A line-based connection to the emulator."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

    def say(self, line):
        self.sock.sendall(line.encode() + b"\n")

    def command(self, line):
        """Sends a monitor command; returns its output up to the next prompt."""
        self.say(line)
        answer = b""
        while not answer.rstrip().endswith(b"(qemu)"):
            answer += self.sock.recv(4096)
        return answer


def main():
    control, log, trace, row = sys.argv[1:]
    place = 0
    traces = {}
    symbols = []
    monitor = guest = None
    while True:
        found, place = wait_for(log, r"# profile (ready|done|symbols)(?: (\S+) (\d+))?\n", place)
        if not found:
            break
        if found[1] == "symbols":
            end, place_end = wait_for(log, r"# profile end\n", place)
            with open(log, encoding="utf-8", errors="replace") as file:
                file.seek(place)
                for line in file.read(place_end - place).splitlines():
                    words = line.split()
                    if len(words) >= 2 and re.fullmatch("[0-9a-f]{16}", words[0]):
                        symbols.append((int(words[0], 16), words[1] + (" " + words[2] if len(words) > 2 else "")))
            break
        if monitor is None:
            monitor, guest = Socket(f"{control}/monitor"), Socket(f"{control}/guest")
            monitor.sock.recv(4096)
        if found[1] == "ready":
            way = found[2]
            traces[way] = (f"{trace}.{way}", int(found[3]))
            monitor.command(f"logfile {trace}.{way}")
            monitor.command("one-insn-per-tb on")
            monitor.command("log exec,nochain")
        else:
            monitor.command("log none")
            monitor.command("one-insn-per-tb off")
        guest.say("go")
    symbols.sort()
    addresses = [address for address, _ in symbols]
    costs = {}
    for way, (path, packets) in traces.items():
        counts = collections.Counter()
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                part = line.split("/", 2)
                if len(part) < 3 or not line.startswith("Trace"):
                    continue
                address = int(part[1], 16)
                if address < 1 << 63:
                    counts["(the sender)"] += 1
                else:
                    at = bisect.bisect_right(addresses, address) - 1
                    counts[symbols[at][1] if at >= 0 else "?"] += 1
        costs[way] = {name: count / packets for name, count in counts.items()}
        os.unlink(path)
    ways = list(costs)
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
