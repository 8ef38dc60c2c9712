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

# What must never be in the kernel's log.
BAD='WARNING:|BUG:|INFO: (task|possible)|Oops|general protection|KASAN|KFENCE|UBSAN|refcount_t|waiting for .* to become free|Slab cache still has objects|kmemleak|rcu.*stall|Call Trace|deprecated'

for script; do
	echo "# $script"
	began=$SECONDS
	dmesg -C
	output=$(timeout 300 bash "./$script" 2>&1)
	status=$?
	printf '%s\n' "$output"
	ok=$(grep -c '^ok ' <<<"$output")
	skip=$(grep -c '^ok .* # SKIP' <<<"$output")
	bad=$(grep -c '^not ok ' <<<"$output")
	planned=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' <<<"$output" | head -n 1)
	if [ "$((ok + bad))" -ne "${planned:--1}" ] || { [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; }; then
		echo "not ok - $script: status $status, $((ok + bad)) of ${planned:-no} planned checks made"
		bad=$((bad + 1))
	fi
	# The script deleted its netns; a reference that leaked keeps one, and so the module, for ever.
	if [ -d /sys/module/nf_zoneroute ] && ! timeout 20 rmmod nf_zoneroute; then
		echo "not ok - $script: the module cannot be removed"
		bad=$((bad + 1))
	fi
	if dmesg | grep -qE "$BAD"; then
		echo "not ok - $script: the kernel complains"
		dmesg | grep -vE 'nf_zoneroute: (un)?loaded|IPVS|nf_conntrack:' | head -n 40 | sed 's/^/# /'
		bad=$((bad + 1))
	fi
	passed=$((passed + ok - skip))
	skipped=$((skipped + skip))
	failed=$((failed + bad))
	echo "# $script took $((SECONDS - began)) s"
done

echo "guest: $# scripts, $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
