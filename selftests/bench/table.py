#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tables of the benchmark's results, from the guests' logs: table.py DIRECTORY LOG...

Prints the cost of each method above the floor, and its ratio to conntrack's. Writes the same to
results.tsv and results.md in DIRECTORY, and the rows that do not measure single packets to
whole.tsv and memory.tsv.
"""

import sys

# The plots: the quantity that grows, and the rows along it.
PLOTS = {
    "rules": {"0": "udp4", "10": "rules-10", "100": "rules-100", "1000": "rules-1000"},
    "routes": {"a few": "udp4", "20,000": "routes-20000", "500,000": "routes-500000"},
    "flows": {"100": "tcp4", "10,000": "flows-10000", "1,000,000": "flows-1000000"},
    "zones": {"1": "zones-1", "1,000": "zones-1000"},
}
WAYS = ["floor", "plain", "idle", "conntrack", "flowtable", "ft_counter", "off", "route", "zone", "both", "jump", "ingress"]


def main():
    directory, logs = sys.argv[1], sys.argv[2:]
    rows, whole, memory, served = {}, [], [], {}
    for log in logs:
        with open(log, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if line.startswith("# bench "):
                    rows.setdefault(words[2], {})[words[3]] = int(words[5]) / int(words[4])
                elif line.startswith("# whole "):
                    whole.append(words[3:])
                elif line.startswith("# memory "):
                    memory.append((" ".join(words[3:-2]), words[-2]))
                elif line.startswith("# served "):
                    served[words[2], words[3]] = int(words[4]) / int(words[5])
    with open(f"{directory}/results.tsv", "w", encoding="ascii") as file:
        print("row", "way", "instructions", "above_floor", "to_conntrack", "served", sep="\t", file=file)
        for row, costs in rows.items():
            for way, cost in costs.items():
                above = cost - costs["floor"]
                base = costs["conntrack"] - costs["floor"]
                print(row, way, f"{cost:.1f}", f"{above:.1f}", f"{above / base:.4f}",
                      f"{served[row, way]:.3f}" if (row, way) in served else "-", sep="\t", file=file)
    with open(f"{directory}/whole.tsv", "w", encoding="ascii") as file:
        print("what", "way", "value", "unit", "to_conntrack", sep="\t", file=file)
        for what, way, value, unit in whole:
            base = next((float(v) for w, y, v, _ in whole if w == what and y == "conntrack"), float("nan"))
            print(what, way, value, unit, f"{float(value) / base:.3f}", sep="\t", file=file)
    with open(f"{directory}/memory.tsv", "w", encoding="ascii") as file:
        print("what", "bytes", sep="\t", file=file)
        for what, size in memory:
            print(what, size, sep="\t", file=file)
    for plot, points in PLOTS.items():
        with open(f"{directory}/{plot}.dat", "w", encoding="ascii") as file:
            print("", "plain", "conntrack", "flowtable", "zoneroute", "jump", "ingress", sep="\t", file=file)
            for tick, row in points.items():
                costs = rows.get(row)
                if costs:
                    print(tick, *(f"{costs[way] - costs['floor']:.0f}"
                                  for way in ("plain", "conntrack", "flowtable", "both", "jump", "ingress")),
                          sep="\t", file=file)
    with open(f"{directory}/results.md", "w", encoding="ascii") as file:
        print("| row | floor | " + " | ".join(WAYS[1:]) + " | served |", file=file)
        print("|---|" + "---:|" * (len(WAYS) + 1), file=file)
        for row, costs in rows.items():
            base = costs["conntrack"] - costs["floor"]
            cells = [f"{costs[way] - costs['floor']:.0f} ({(costs[way] - costs['floor']) / base:.2f})"
                     if way in costs else "-" for way in WAYS[1:]]
            part = f"{served[row, 'both']:.0%}" if (row, "both") in served else ""
            print(f"| {row} | {costs['floor']:.0f} | " + " | ".join(cells) + f" | {part} |", file=file)
    if rows:
        print(f"{'above the floor, in instructions':34s}" + "".join(f"{way:>16s}" for way in WAYS[1:]))
        for row, costs in rows.items():
            floor, line = costs["floor"], ""
            base = costs["conntrack"] - floor
            for way in WAYS[1:]:
                if way in costs:
                    line += f"{costs[way] - floor:9.0f} ({(costs[way] - floor) / base:4.2f})"
                else:
                    line += f"{'-':>16s}"
            print(f"{row + ' (floor ' + format(floor, '.0f') + ')':34s}{line}")
    for name in ("whole", "memory"):
        if whole if name == "whole" else memory:
            with open(f"{directory}/{name}.tsv", encoding="ascii") as file:
                print(file.read(), end="")


if __name__ == "__main__":
    sys.exit(main())
