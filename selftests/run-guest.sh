#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs selftests in the guest, each script with the module not loaded and the kernel's log read
# before and after it. The last line is for selftests/run on the host.
#
# run-guest.sh SCRIPT...

set -uo pipefail

cd -- "$(dirname -- "$0")" || exit
passed=0
failed=0
skipped=0

modprobe -a nf_conntrack nf_nat nf_conncount nft_ct nft_nat nft_chain_nat

# What must never be in the kernel's log. (KASAN, lockdep, object and reference tracking are in the
# debug kernel; in the stock one KFENCE is, and the checks of slab_debug, which selftests/run
# switches on.)
export BAD='WARNING:|BUG|INFO: (task|possible|trying|lockdep)|Oops|general protection|KASAN|KFENCE|UBSAN|refcount_t|ref_tracker|ODEBUG|waiting for .* to become free|still has objects|kmemleak|stall|Call Trace|deprecated|hung'
# The same as the kernel's taint: bad page, oops, warning.
BAD_TAINT=$((1 << 5 | 1 << 7 | 1 << 9))

# remove_module: what leaks a reference keeps its netns, and so the module, for ever; the rmmod that
# waits for it cannot be killed.
remove_module() {
	[ -d /sys/module/nf_zoneroute ] || return 0
	rmmod nf_zoneroute </dev/null >/dev/null 2>&1 &
	local limit=$((SECONDS + 30))
	while [ -d /sys/module/nf_zoneroute ]; do
		[ "$SECONDS" -lt "$limit" ] || return 1
		sleep 0.1
	done
}

# uptime: in s.
uptime() {
	cut -d. -f1 /proc/uptime
}

# check_leaks: memory that nobody points to any more, with the script that ran when it was allocated.
# Jiffies start 300 s before they wrap, and a leak is only sure when two scans find it.
KMEMLEAK=/sys/kernel/debug/kmemleak
HZ=250
check_leaks() {
	[ -e "$KMEMLEAK" ] || return 0
	! grep -qw kmemleak=off /proc/cmdline || return 0
	# What is younger than 5 s it leaves out. An error: it has switched itself off.
	echo scan >"$KMEMLEAK" && sleep 6 && echo scan >"$KMEMLEAK" && cat "$KMEMLEAK" >/tmp/leaks || return 1
	[ -s /tmp/leaks ] || return 0
	awk -v hz="$HZ" -v scripts="${spans[*]}" '
		/jiffies/ {
			at = ($NF - (4294967296 - 300 * hz)) / hz
			n = split(scripts, span, " ")
			for (i = 1; i <= n; i++) {
				split(span[i], part, ":")
				if (at >= part[2] - 1 && at <= part[3] + 1)
					print "# leaked while " part[1] " ran"
			}
		}
		{ print "# " $0 }' /tmp/leaks | head -n 100
	return 1
}

# check_lockdep: it switches itself off for good at its first report, or when it has no more room.
check_lockdep() {
	[ ! -e /proc/lockdep_stats ] || grep -q '^ *debug_locks: *1$' /proc/lockdep_stats
}

done_scripts=0
spans=()
# The debug kernel must have what it is for.
case $(uname -r) in
*-debug)
	if [ ! -e "$KMEMLEAK" ] || [ ! -e /proc/lockdep_stats ] || [ ! -e /sys/kernel/debug/failslab ]; then
		echo 'not ok - the debug kernel has no kmemleak, no lockdep or no failslab'
		failed=$((failed + 1))
	fi
	;;
esac
# What the kernel said while it booted is its own, but for the worst.
seen_taint=$(($(cat /proc/sys/kernel/tainted) & BAD_TAINT))
if [ "$seen_taint" -ne 0 ]; then
	echo "not ok - the kernel complained while it booted (taint $seen_taint)"
	failed=$((failed + 1))
fi
dmesg -C
for script; do
	echo "# $script"
	began=$SECONDS
	up=$(uptime)
	# To a file: a child that hangs would keep a pipe open.
	timeout "${NFZR_SCRIPT_TIMEOUT:-300}" bash "./$script" </dev/null >/tmp/output 2>&1
	status=$?
	cat /tmp/output
	ok=$(grep -c '^ok ' /tmp/output)
	skip=$(grep -c '^ok .* # SKIP' /tmp/output)
	bad=$(grep -c '^not ok ' /tmp/output)
	planned=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' /tmp/output | head -n 1)
	if [ "$((ok + bad))" -ne "${planned:--1}" ] || { [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; }; then
		echo "not ok - $script: status $status, $((ok + bad)) of ${planned:-no} planned checks made"
		bad=$((bad + 1))
	fi
	hangs=
	if ! remove_module; then
		echo "not ok - $script: the module cannot be removed, since a netns still waits for a reference"
		bad=$((bad + 1))
		hangs=1
	fi
	taint=$(($(cat /proc/sys/kernel/tainted) & BAD_TAINT & ~seen_taint))
	if dmesg | grep -qE "$BAD" || [ "$taint" -ne 0 ]; then
		echo "not ok - $script: the kernel complains (taint $taint)"
		dmesg | grep -E -B2 -A30 "$BAD" | head -n 60 | sed 's/^/# /'
		bad=$((bad + 1))
		seen_taint=$((seen_taint | taint))
	fi
	dmesg -C
	passed=$((passed + ok - skip))
	skipped=$((skipped + skip))
	failed=$((failed + bad))
	done_scripts=$((done_scripts + 1))
	spans+=("$script:$up:$(uptime)")
	echo "# $script took $((SECONDS - began)) s"
	[ -z "$hangs" ] || break
	[ -z "${NFZR_UNTIL_FAILURE-}" ] || [ "$failed" -eq 0 ] || break
done

if [ -z "${NFZR_UNTIL_FAILURE-}" ] || [ "$failed" -eq 0 ]; then
	if ! check_leaks; then
		echo 'not ok - memory leaked'
		failed=$((failed + 1))
	fi
	if ! check_lockdep; then
		echo 'not ok - lockdep switched itself off'
		failed=$((failed + 1))
	fi
fi

echo "guest: $done_scripts scripts, $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$done_scripts" -eq $# ]
