# SPDX-License-Identifier: GPL-2.0
"""The host's part of a profile: follows a guest that runs bench.sh, and starts and stops what the
emulator records."""

import bisect
import os
import re
import socket
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


class Symbols:
    """The functions of the guest's kernel."""

    def __init__(self, lines):
        found = []
        for line in lines:
            words = line.split()
            if len(words) >= 2 and re.fullmatch("[0-9a-f]{16}", words[0]):
                found.append((int(words[0], 16), " ".join(words[1:3])))
        found.sort()
        self.addresses = [address for address, _ in found]
        self.names = [name for _, name in found]

    def start(self, address):
        """Returns where the function at an address begins."""
        at = bisect.bisect_right(self.addresses, address) - 1
        return self.addresses[at] if at >= 0 else 0

    def name(self, address):
        """Returns the name of the function at an address, with its module."""
        at = bisect.bisect_right(self.addresses, address) - 1
        return self.names[at] if at >= 0 else "?"


def follow(control, log, start, stop):
    """Calls start(monitor, way) and stop(monitor, way) around the packets of each method. Returns the
    number of packets of each, and the symbols."""
    place = 0
    packets = {}
    way = monitor = guest = None
    while True:
        found, place = wait_for(log, r"# profile (ready|done|symbols)(?: (\S+) (\d+))?\n", place)
        if not found:
            return packets, Symbols([])
        if found[1] == "symbols":
            _, end = wait_for(log, r"# profile end\n", place)
            with open(log, encoding="utf-8", errors="replace") as file:
                file.seek(place)
                return packets, Symbols(file.read(end - place).splitlines())
        if monitor is None:
            monitor, guest = Socket(f"{control}/monitor"), Socket(f"{control}/guest")
            monitor.sock.recv(4096)
        if found[1] == "ready":
            way = found[2]
            packets[way] = int(found[3])
            start(monitor, way)
        else:
            stop(monitor, way)
        guest.say("go")
