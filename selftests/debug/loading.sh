#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loading fails at each seventh allocation in turn, and at others in the next turn, while other CPUs
# load and unload this module and another. What a failed load leaves behind, such as a queued work,
# would run in memory that now is another module's.
#
# Group: basics
# Kernel: quick
# Long: quick four

. lib/test.sh
. lib/faults.sh
. lib/meanwhile.sh
at_end() {
	end_meanwhile
}
plan 4

ROUNDS=40
[ -z "${NFZR_LONG-}" ] || ROUNDS=200

this_one() {
	insmod nf_zoneroute.ko && rmmod nf_zoneroute
}
another_one() {
	modprobe nft_redir && modprobe -r nft_redir
}

test_failed_loads_leave_nothing_behind() {
	local result
	meanwhile this 0 this_one
	meanwhile another 0 another_one
	result=$(python3 tools/faults.py rounds nf_zoneroute.ko "$ROUNDS") || result="failed: $result"
	end_meanwhile
	echo "# loading: $result; meanwhile loaded $(times_of this) times, another module" \
		"$(times_of another) times"
	check "$ROUNDS loads fail as a whole or work" grep -q '^last=[0-9]* failed=[1-9][0-9]* worked=[0-9]*$' <<<"$result"
	check 'others loaded and unloaded it meanwhile' [ "$(times_of this)" -ge 3 ]
	check 'the kernel log has nothing but failed allocations' only_that_failed
	load
	check 'loading works afterwards' grep -q '^hit ' /proc/net/nf_zoneroute/stats
	unload
}

run_cases
