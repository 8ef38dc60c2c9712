#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loading fails at each allocation in turn, while other CPUs load and unload this module and another.
# What a failed load leaves behind, such as a queued work, would run in memory that now is another
# module's.
#
# Group: basics
# Kernel: quick
# Long: quick four

. lib/test.sh
. lib/faults.sh
# End the other loads, even if the script ends early.
at_end() {
	touch /tmp/loading.end
}
plan 4

ROUNDS=40
[ -z "${NFZR_LONG-}" ] || ROUNDS=200
rm -f /tmp/loading.*

# over_and_over NAME COMMAND...: runs the command until the test ends, and counts how often it
# succeeded.
over_and_over() {
	local name=$1 times=0
	shift
	(
		trap - ERR EXIT
		set +e
		while [ ! -e /tmp/loading.end ]; do
			if "$@" >/dev/null 2>&1; then
				times=$((times + 1))
				echo "$times" >"/tmp/loading.$name"
			fi
		done
	) &
	OTHERS+=($!)
}
OTHERS=()

this_one() {
	insmod nf_zoneroute.ko && rmmod nf_zoneroute
}
another_one() {
	modprobe nft_redir && modprobe -r nft_redir
}

test_failed_loads_leave_nothing_behind() {
	local result
	over_and_over this this_one
	over_and_over another another_one
	result=$(python3 tools/faults.py rounds nf_zoneroute.ko "$ROUNDS") || result="failed: $result"
	touch /tmp/loading.end
	wait "${OTHERS[@]}" || true
	echo "# loading: $result; meanwhile loaded $(cat /tmp/loading.this) times, another module" \
		"$(cat /tmp/loading.another) times"
	check "$ROUNDS loads fail as a whole or work" grep -q '^failed=[1-9][0-9]* worked=[0-9]*$' <<<"$result"
	check 'others loaded and unloaded it meanwhile' [ "$(cat /tmp/loading.this)" -ge 3 ]
	check 'the kernel log has nothing but failed allocations' only_that_failed
	load
	check 'loading works afterwards' grep -q '^hit ' /proc/net/nf_zoneroute/stats
	unload
}

run_cases
