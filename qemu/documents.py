#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Writes the generated tables of docs/: the benchmark's results from selftests/bench/results, and the
stale packets by change from the logs of "make test TESTS=stale.sh".

--check writes nothing. It fails if a table has other rows than its source, if a link leads nowhere,
if README.md is long, or if a counter, reason or sysctl is not documented.

Run in the root of the clone.
"""

import importlib
import pathlib
import re
import sys

PERFORMANCE = pathlib.Path("docs/performance.md")
CORRECTNESS = pathlib.Path("docs/correctness.md")
RESULTS = pathlib.Path("selftests/bench/results/results.md")
# Documents that name every counter, reason and sysctl.
REFERENCES = [pathlib.Path("docs/proc.md"), pathlib.Path("docs/nf_zoneroute.4")]
README_LINES = 120
# The cell of a change for which the kernel raises no event.
NONE_LATER = "0 later than `max_age_ms`"


def between(name):
    """Returns a pattern for the generated table with this name: start, table, end."""
    return re.compile(rf"(<!-- {name}:[^>]*-->\n)(.*?)(<!-- end -->)", re.S)


def table_of(path, name):
    return between(name).search(path.read_text()).group(2)


def write_table(path, name, table):
    text = between(name).sub(lambda found: found.group(1) + table + found.group(3), path.read_text())
    path.write_text(text)


def kinds():
    """Returns the changes that stale.py makes, by name, with their families, and the names of those
    for which the kernel raises no event."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, "selftests/tools")
    found, aged = {}, set()
    for kind in importlib.import_module("stale").KINDS:
        found.setdefault(kind.name, set()).update([kind.only] if kind.only else [4, 6])
        if kind.aged:
            aged.add(kind.name)
    return found, aged


def stale_table():
    """Returns the table of stale packets, from the logs of the guests."""
    changes, aged = kinds()
    cells = {}
    logs = [log.read_text() for log in pathlib.Path("build").glob("guest-*.log")]
    passed = set(re.findall(r"^ok \d* ?-? ?(.*)$", "\n".join(logs), re.M))
    for name, family, change, count in re.findall(
            r"^# stale ((?:held up, )?IPv([46]): (.*?)): (\d+) stale", "\n".join(logs), re.M):
        if name not in passed:
            sys.exit(f"documents.py: {name} did not pass")
        cells[change, int(family)] = NONE_LATER if change in aged else count
    rows = ["| change | IPv4 | IPv6 |", "|---|---|---|"]
    for name, families in changes.items():
        row = []
        for family in (4, 6):
            if family not in families:
                row.append("-")
            elif (name, family) in cells:
                row.append(cells[name, family])
            else:
                sys.exit(f"documents.py: no result of '{name}' for IPv{family}: "
                         "run make test TESTS=stale.sh first")
        rows.append(f"| {name} | {row[0]} | {row[1]} |")
    return "\n".join(rows) + "\n"


def printed_names():
    """Yields the names that the module prints or accepts: counters, reasons and sysctls."""
    for path in ("rust/route/miss.rs", "rust/track/outcome.rs", "rust/state/stats.rs"):
        yield from re.findall(r'^        \w+ = "(\w+)",', pathlib.Path(path).read_text(), re.M)
    yield from re.findall(r'c"(\w+)"', pathlib.Path("rust/netns/sysctl.rs").read_text())


def faults():
    if table_of(PERFORMANCE, "bench-table") != RESULTS.read_text():
        yield f"the table in {PERFORMANCE} is not that of {RESULTS}: run make docs"
    rows = [row.strip("| ").split(" | ") for row in table_of(CORRECTNESS, "stale-table").splitlines()]
    found = {row[0]: {family for family in (4, 6) if row[family // 2 - 1] != "-"} for row in rows[2:]}
    if found != kinds()[0]:
        yield f"the table in {CORRECTNESS} has other rows than selftests/tools/stale.py: run make docs"
    lines = len(pathlib.Path("README.md").read_text().splitlines())
    if lines > README_LINES:
        yield f"README.md has {lines} lines, more than {README_LINES}"
    for path in [pathlib.Path("README.md"), *pathlib.Path("docs").glob("*.md")]:
        text = path.read_text()
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            if not (path.parent / target).exists():
                yield f"{path}: there is no {target}"
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]*)\)", text):
            titles = re.findall(r"^#+ (.*)$", (path.parent / target if target else path).read_text(), re.M)
            if anchor not in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]:
                yield f"{path}: there is no section #{anchor} in {target or path}"
    for path in REFERENCES:
        words = set(re.findall(r"\w+", path.read_text().replace("\\&", "")))
        for name in printed_names():
            if name not in words:
                yield f"{path} does not name {name}"


def main():
    if sys.argv[1:] == ["--check"]:
        found = list(faults())
        print(*found, sep="\n")
        return 1 if found else 0
    write_table(PERFORMANCE, "bench-table", RESULTS.read_text())
    write_table(CORRECTNESS, "stale-table", stale_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
