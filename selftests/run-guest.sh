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

modprobe -a nf_conntrack nf_nat nft_ct nft_nat nft_chain_nat

# What must never be in the kernel's log. (KASAN, lockdep and kmemleak are not built into a stock
# kernel; KFENCE is, and so are the checks of slab_debug, which selftests/run switches on.)
BAD='WARNING:|BUG|INFO: (task|possible|trying)|Oops|general protection|KASAN|KFENCE|UBSAN|refcount_t|waiting for .* to become free|still has objects|kmemleak|stall|Call Trace|deprecated|hung'
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

done_scripts=0
for script; do
	echo "# $script"
	began=$SECONDS
	# To a file: a child that hangs would keep a pipe open.
	timeout 300 bash "./$script" </dev/null >/tmp/output 2>&1
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
	taint=$(($(cat /proc/sys/kernel/tainted) & BAD_TAINT & ~${seen_taint:-0}))
	if dmesg | grep -qE "$BAD" || [ "$taint" -ne 0 ]; then
		echo "not ok - $script: the kernel complains (taint $taint)"
		dmesg | grep -E -B2 -A30 "$BAD" | head -n 60 | sed 's/^/# /'
		bad=$((bad + 1))
		seen_taint=$((${seen_taint:-0} | taint))
	fi
	dmesg -C
	passed=$((passed + ok - skip))
	skipped=$((skipped + skip))
	failed=$((failed + bad))
	done_scripts=$((done_scripts + 1))
	echo "# $script took $((SECONDS - began)) s"
	[ -z "$hangs" ] || break
done

echo "guest: $done_scripts scripts, $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$done_scripts" -eq $# ]
