#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes memory allocations fail, each one in turn.

  faults.py load MODULE          while the module is loaded
  faults.py rounds MODULE COUNT  the same COUNT times, while others load and unload it, too: each
                                 seventh allocation, then those after them; prints the last one
  faults.py netns                while a network namespace is created
  faults.py write FILE VALUE     while a file is written
  faults.py read FILE            while a file is read
  faults.py every N WHERE [MOST] system-wide: fails each N-th allocation whose call chain leads
                                 through WHERE ("module" or a kernel function), until MOST have
                                 failed or `faults.py stop` ends it
  faults.py stop                 stops that; prints how many allocations were made to fail

All but the last two repeat the same operation. The first allocation fails the first time, the second
one the second time, and so on until there is none left to fail. They print "points=N failed=N
worked=N": how many allocations there were, and how often the operation failed with ENOMEM or
worked nevertheless. Any other result is an error.
"""

import ctypes
import errno
import os
import sys

# Of the allocations that `rounds` makes fail in one turn.
STRIDE = 7
DEBUGFS = "/sys/kernel/debug"
libc = ctypes.CDLL(None, use_errno=True)


def write(path, text):
    with open(path, "w") as file:
        file.write(str(text))


def set_up(start=0, end=0xFFFF_FFFF_FFFF_FFFF):
    """Restricts failures to call chains that lead through these addresses."""
    for kind in ("failslab", "fail_page_alloc"):
        base = f"{DEBUGFS}/{kind}"
        write(f"{base}/probability", 0)
        write(f"{base}/verbose", 0)
        write(f"{base}/times", -1)
        write(f"{base}/stacktrace-depth", 32)
        write(f"{base}/ignore-gfp-wait", "N")
        write(f"{base}/require-start", hex(start))
        write(f"{base}/require-end", hex(end))
    write(f"{DEBUGFS}/fail_page_alloc/min-order", 0)


def function(name):
    """Returns the addresses of a kernel function and of the next one."""
    with open("/proc/kallsyms") as file:
        symbols = sorted((int(address, 16), symbol)
                         for address, _, symbol, *_ in map(str.split, file))
    for (address, symbol), (end, _) in zip(symbols, symbols[1:]):
        if symbol == name:
            return address, end
    raise SystemExit(f"the kernel has no function {name}")


def module_text():
    """Returns the range of addresses of the module's functions."""
    with open("/proc/kallsyms") as file:
        at = sorted(int(line.split()[0], 16) for line in file
                    if line.endswith("[nf_zoneroute]\n") and line.split()[1] in "tT")
    if not at:
        raise SystemExit("the module is not loaded")
    # The last function is no longer than a page.
    return at[0], at[-1] + 4096


def missing():
    """Returns the module's files that a netns should have, but does not."""
    files = [f"/proc/net/nf_zoneroute/{name}" for name in ("zones", "routes", "stats")]
    files += [f"/proc/sys/net/nf_zoneroute/{name}" for name in ("enable", "route_cache", "max_age_ms")]
    return [name for name in files if not os.path.exists(name)]


def system_call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fail_nth(n, action):
    """Returns the error of the action, if any, and whether it reached its n-th allocation."""
    fd = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
    error = None
    os.write(fd, str(n).encode())
    try:
        action()
    except OSError as err:
        error = err.errno
    left = int(os.pread(fd, 32, 0))
    if left:
        os.pwrite(fd, b"0", 0)
    os.close(fd)
    return error, not left


def each_point(attempt, most):
    points = failed = worked = 0
    while True:
        error, reached = attempt(points + 1)
        if error not in (None, errno.ENOMEM):
            raise SystemExit(f"point {points + 1}: {errno.errorcode.get(error, error)}")
        if not reached:
            if error:
                raise SystemExit(f"point {points + 1}: failed though nothing was made to fail")
            break
        points += 1
        if error:
            failed += 1
        else:
            worked += 1
        if points >= most:
            raise SystemExit(f"more than {most} points: something goes on for ever")
    print(f"points={points} failed={failed} worked={worked}")


def load(path):
    # finit_module() and delete_module() of x86-64.
    set_up(*function("do_init_module"))
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def attempt(n):
        result = fail_nth(n, lambda: system_call(313, file, b"", 0))
        if os.path.isdir("/sys/module/nf_zoneroute"):
            if result[0]:
                raise SystemExit(f"point {n}: loading failed, and the module is there")
            if missing():
                raise SystemExit(f"point {n}: loading worked, without {missing()}")
            system_call(176, b"nf_zoneroute", os.O_NONBLOCK)
        elif not result[0]:
            raise SystemExit(f"point {n}: loading worked, and the module is not there")
        return result

    each_point(attempt, 3000)


def rounds(path, count):
    set_up(*function("do_init_module"))
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # The first allocation of this turn, and the one that fails next. Neighbours do much the same.
    first = n = 1
    last = failed = worked = 0
    # Others loaded it, are doing so, or have unloaded it.
    races = (errno.EEXIST, errno.EBUSY, errno.EAGAIN, errno.ENOENT)
    while failed + worked < count:
        error, reached = fail_nth(n, lambda: system_call(313, file, b"", 0))
        if error in races:
            continue
        if error not in (None, errno.ENOMEM):
            raise SystemExit(f"point {n}: {errno.errorcode.get(error, error)}")
        last = max(last, n)
        if not error and not reached:
            first = n = first % STRIDE + 1
        else:
            n += STRIDE
        if error:
            failed += 1
            continue
        worked += 1
        try:
            system_call(176, b"nf_zoneroute", os.O_NONBLOCK)
        except OSError as err:
            if err.errno not in races:
                raise
    print(f"last={last} failed={failed} worked={worked}")


def netns():
    set_up(*module_text())

    def attempt(n):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            error, reached = fail_nth(n, lambda: os.unshare(os.CLONE_NEWNET))
            os.write(writer, f"{error or 0} {int(reached)} {int(not missing())}".encode())
            os._exit(0)
        os.close(writer)
        error, reached, files = map(int, os.read(reader, 64).split())
        os.close(reader)
        os.waitpid(child, 0)
        # If a netns was created, it must have all of the module's files.
        if not error and not files:
            raise SystemExit(f"point {n}: a netns without its files")
        return error or None, bool(reached)

    each_point(attempt, 1000)


def write_file(path, value):
    set_up()

    def action():
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def attempt(n):
        with open(path) as file:
            before = file.read().strip()
        result = fail_nth(n, action)
        with open(path) as file:
            after = file.read().strip()
        if after not in (before, value) or (not result[0] and after != value):
            raise SystemExit(f"point {n}: {before} became {after}")
        return result

    each_point(attempt, 1000)


def read_file(path):
    set_up()
    with open(path, "rb") as file:
        whole = file.read()

    def action():
        fd = os.open(path, os.O_RDONLY)
        try:
            parts = []
            while part := os.read(fd, 1 << 16):
                parts.append(part)
        finally:
            os.close(fd)
        if b"".join(parts).count(b"\n") != whole.count(b"\n"):
            raise SystemExit("read without an error, but not all")

    each_point(lambda n: fail_nth(n, action), 1000)


# More failures than any run causes.
MANY = 1_000_000
# Tells `stop` the limit on failures that `every` has set.
MOST = "/tmp/faults.most"


def every(n, where, most=MANY):
    set_up(*(module_text() if where == "module" else function(where)))
    write(MOST, most)
    for kind in ("failslab", "fail_page_alloc"):
        base = f"{DEBUGFS}/{kind}"
        write(f"{base}/interval", n)
        write(f"{base}/times", most)
        write(f"{base}/probability", 100)


def stop():
    failed = 0
    with open(MOST) as file:
        most = int(file.read())
    for kind in ("failslab", "fail_page_alloc"):
        write(f"{DEBUGFS}/{kind}/probability", 0)
        with open(f"{DEBUGFS}/{kind}/times") as file:
            failed += most - int(file.read())
    set_up()
    print(failed)


def main():
    verb, *args = sys.argv[1:]
    {"load": load, "rounds": lambda path, count: rounds(path, int(count)), "netns": netns, "write": write_file, "read": read_file,
     "every": every, "stop": stop}[verb](*args)


if __name__ == "__main__":
    main()
