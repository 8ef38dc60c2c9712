#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs selftests in the guest. Each script starts with the module unloaded and the kernel log
# cleared; the log is checked after it. The last line is parsed by selftests/run on the host.
#
# run-guest.sh SCRIPT...

set -uo pipefail

cd -- "$(dirname -- "$0")" || exit
passed=0
failed=0
skipped=0

# A busy machine may delay a task for minutes.
[ ! -e /proc/sys/kernel/hung_task_timeout_secs ] || echo 480 >/proc/sys/kernel/hung_task_timeout_secs
modprobe -a nf_conntrack nf_nat nft_ct nft_nat nft_chain_nat

# Messages that must never appear in the kernel log. (The debug kernel has KASAN, lockdep, and
# object and reference tracking. The stock kernel has KFENCE and the checks of slab_debug, which
# selftests/run enables.)
export BAD='WARNING:|BUG|INFO: (task|possible|trying|lockdep)|Oops|general protection|KASAN|KFENCE|UBSAN|refcount_t|ref_tracker|ODEBUG|waiting for .* to become free|still has objects|kmemleak|stall|Call Trace|deprecated|hung'
# The corresponding taint flags: bad page, oops, warning.
BAD_TAINT=$((1 << 5 | 1 << 7 | 1 << 9))

# kernel_log: prints the kernel's log, without the data races that KCSAN found in other code.
kernel_log() {
	dmesg | awk '
		/====================/ {
			if (report !~ /BUG: KCSAN/ || report ~ /nf_zoneroute|nfzr_/)
				printf "%s", report
			report = ""
			next
		}
		{ report = report $0 "\n" }
		END { printf "%s", report }'
}

# remove_module: unloads the module; fails after 30 s. A leaked reference keeps its netns, and so
# the module, forever, and the rmmod that waits for it cannot be killed.
remove_module() {
	[ -d /sys/module/nf_zoneroute ] || return 0
	rmmod nf_zoneroute </dev/null >/dev/null 2>&1 &
	local limit=$((SECONDS + 30))
	while [ -d /sys/module/nf_zoneroute ]; do
		[ "$SECONDS" -lt "$limit" ] || return 1
		sleep 0.1
	done
}

# uptime: prints the uptime in seconds.
uptime() {
	cut -d. -f1 /proc/uptime
}

# check_leaks: fails if memory is unreferenced, and prints it with the script that ran when it was
# allocated. Jiffies start 300 s before they wrap. A leak is only certain if two scans find it.
KMEMLEAK=/sys/kernel/debug/kmemleak
HZ=250
check_leaks() {
	[ -e "$KMEMLEAK" ] || return 0
	! grep -qw kmemleak=off /proc/cmdline || return 0
	# kmemleak ignores objects younger than 5 s. A write error means that it has disabled
	# itself.
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

# check_lockdep: fails if lockdep is off. It disables itself for good at its first report, or when
# it runs out of room.
check_lockdep() {
	[ ! -e /proc/lockdep_stats ] || grep -q '^ *debug_locks: *1$' /proc/lockdep_stats
}

done_scripts=0
spans=()
# The debug kernel must provide the checks that it is used for.
case $(uname -r) in
*-debug)
	if [ ! -e "$KMEMLEAK" ] || [ ! -e /proc/lockdep_stats ] || [ ! -e /sys/kernel/debug/failslab ]; then
		echo 'not ok - the debug kernel has no kmemleak, no lockdep or no failslab'
		failed=$((failed + 1))
	fi
	;;
*-kcsan)
	if ! grep -qx 'enabled: 1' /sys/kernel/debug/kcsan; then
		echo 'not ok - the KCSAN kernel has no KCSAN'
		failed=$((failed + 1))
	fi
	;;
esac
# Messages from boot are not the module's and are ignored, except for those that taint the kernel.
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
	# Write to a file, because a child that hangs would keep a pipe open.
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
		echo "not ok - $script: the module cannot be removed: a netns still waits for a reference"
		bad=$((bad + 1))
		hangs=1
	fi
	taint=$(($(cat /proc/sys/kernel/tainted) & BAD_TAINT & ~seen_taint))
	if kernel_log | grep -qE "$BAD" || [ "$taint" -ne 0 ]; then
		echo "not ok - $script: the kernel complains (taint $taint)"
		kernel_log | grep -E -B2 -A30 "$BAD" | head -n 60 | sed 's/^/# /'
		bad=$((bad + 1))
		seen_taint=$((seen_taint | taint))
	fi
	dmesg -C
	passed=$((passed + ok - skip))
	skipped=$((skipped + skip))
	failed=$((failed + bad))
	done_scripts=$((done_scripts + 1))
	spans+=("$script:$up:$(uptime)")
	[ ! -e /sys/kernel/debug/kcsan ] ||
		awk '/^(setup_watchpoints|data_races|races_unknown)/ { printf "# KCSAN since boot: %s\n", $0 }' \
			/sys/kernel/debug/kcsan
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
		echo 'not ok - lockdep disabled itself'
		failed=$((failed + 1))
	fi
fi

echo "guest: $done_scripts scripts, $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$done_scripts" -eq $# ]
