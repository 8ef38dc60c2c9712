#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets on several CPUs at once, in both directions, by the same flows and by different ones, while
# routes change and files are read. KCSAN then sees what CPUs do at the same time.
#
# Group: basics
# Kernel: quick
# Long: kcsan

. lib/test.sh
. lib/meanwhile.sh
at_end() {
	end_meanwhile
}
plan 3

SECONDS_IN_ALL=10
# KCSAN looks at one access in so many, for so many microseconds, on each CPU.
KCSAN=/sys/module/kcsan/parameters
if [ -d "$KCSAN" ]; then
	SECONDS_IN_ALL=60
	echo 50 >"$KCSAN/skip_watch"
	echo 200 >"$KCSAN/udelay_interrupt"
	echo 200 >"$KCSAN/udelay_task"
fi

load
router
serve udp

changes() {
	ip -n r -b - <<-'END'
		route add blackhole 10.77.0.1/32
		route del blackhole 10.77.0.1/32
	END
}
read_all() {
	shown routes
	shown zones
	shown stats
}

test_packets_on_several_cpus() {
	local hits ns
	hits=$(stat_of hit)
	# One sender for each CPU. The receiving softirq runs on the CPU of the sender.
	for ns in c c d d; do
		background "$ns" python3 tools/traffic.py flows "$SERVER" "$PORT" \
			$((10000 + 1000 * ${#JOBS[@]})) 20 1000000 --timeout 0.5
	done
	background c python3 tools/traffic.py ask udp "$SERVER" 11 100000000 --sport 5000 --oneway
	meanwhile changes 0.1 changes
	meanwhile reads 0.3 read_all
	sleep "$SECONDS_IN_ALL"
	until_true 60 each_succeeded 2 || true
	end_meanwhile
	check 'routes changed and files were read meanwhile' each_succeeded 2
	check 'packets were served' [ $(($(stat_of hit) - hits)) -ge 100 ]
	echo "# $(($(stat_of hit) - hits)) packets were served"
	end_jobs "${JOBS[@]}"
	JOBS=()
}

test_no_reference_is_left() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
