#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes allocations fail: while the module is loaded, while a netns is created, while files are
# written and read, for flows, for zones, and for tables that have to grow. Each operation either
# fails as a whole or works, no packet is lost, and nothing is left behind. (kmemleak checks for
# leaks at the end of the guest's run.)
#
# Group: debug
# Kernel: debug

. lib/test.sh
. lib/faults.sh
# Stop failing allocations before the scripts that run next.
at_end() {
	python3 tools/faults.py stop >/dev/null 2>&1 || true
}
plan 29

TRIED=0

# each_point LEAST WHAT...: fails every allocation once; there must be at least LEAST of them.
each_point() {
	local least=$1 result points
	shift
	result=$(python3 tools/faults.py "$@") || return 1
	points=${result#points=}
	points=${points%% *}
	echo "# $1: $result"
	TRIED=$((TRIED + points))
	[ "$points" -ge "$least" ]
}

# each_point_in_r WHAT...: the same in r, with at least one allocation.
each_point_in_r() {
	local result
	result=$(in_ns r python3 tools/faults.py "$@") || return 1
	echo "# $1 ${2##*/}: $result"
	result=${result#points=}
	TRIED=$((TRIED + ${result%% *}))
	[ "${result%% *}" -ge 1 ]
}

# stop_faults: stops failing allocations; FAILS is how many failed.
stop_faults() {
	FAILS=$(python3 tools/faults.py stop)
	TRIED=$((TRIED + FAILS))
	echo "# $FAILS allocations failed"
}

# with_router: loads the module and sets up the router, unless an earlier case has. The first cases
# do without it, because they load and unload the module.
with_router() {
	[ -z "${HOLDER[r]-}" ] || return 0
	load
	router
	serve udp
}

# traffic_is_answered FIRST COUNT ROUNDS: succeeds if every request of COUNT flows, ROUNDS each, is
# answered.
traffic_is_answered() {
	is "$(traffic c flows "$SERVER" "$PORT" "$1" "$2" "$3" | sed 's/.*answered=//')" $(($2 * $3))
}

# hits_of FIRST COUNT: sends one request of each of COUNT flows; prints how many packets, in both
# directions, were served.
hits_of() {
	gained hit traffic c flows "$SERVER" "$PORT" "$1" "$2" 1 2>/dev/null
}

test_loading_works_completely_or_not_at_all() {
	check 'loading fails with ENOMEM or works, for every allocation of its own' \
		each_point 100 load nf_zoneroute.ko
	check 'the kernel log has nothing but failed allocations' only_that_failed
	load
	check 'loading works without faults' \
		eval '[ "$(cat /proc/net/nf_zoneroute/stats | wc -l)" -gt 30 ]'
	unload
}

test_creating_a_netns_works_completely_or_not_at_all() {
	load
	check 'creating a netns works completely or not at all, for every allocation' \
		each_point 10 netns
	unload
	check 'the module can be unloaded afterwards' eval '[ ! -d /sys/module/nf_zoneroute ]'
}

# Fails every N-th allocation of the packet path, and of the work that creates zones for it.
test_no_packet_is_lost_while_flows_and_routes_cannot_be_allocated() {
	local every sport=20000 flows=60
	with_router
	for every in 1 2 3 5; do
		python3 tools/faults.py every "$every" module
		check "1 allocation in $every fails: no packet is lost" \
			traffic_is_answered "$sport" "$flows" 4
		stop_faults
		check "1 allocation in $every fails: some allocations did fail" \
			[ "$FAILS" -ge "$flows" ]
		# Served in both directions, but for a few packets.
		check "1 allocation in $every fails: these flows are served afterwards" eval \
			'traffic_is_answered "$sport" "$flows" 3 &&
				[ "$(hits_of "$sport" "$flows")" -ge $((2 * flows - 10)) ]'
		sport=$((sport + 100))
	done
	check 'flows and routes that could not be allocated are counted' eval \
		'[ "$(stat_of flow_no_memory)" -gt 0 ] && [ "$(stat_of miss_no_memory)" -gt 0 ] &&
			[ "$(stat_of no_extension)" -gt 0 ]'
}

test_no_packet_is_lost_while_zones_cannot_be_allocated() {
	local i before first=20500 flows=60
	with_router
	{
		echo 'add table ip tenants'
		echo 'add chain ip tenants raw { type filter hook prerouting priority raw; }'
		for i in $(seq 0 $((flows - 1))); do
			echo "add rule ip tenants raw iifname \"c1\" udp sport $((first + i))" \
				"ct original zone set $((100 + i))"
		done
	} | in_ns r nft -f -
	before=$(stat_of flow_no_zone)
	python3 tools/faults.py every 1 module
	check 'zones cannot be allocated: no packet is lost' traffic_is_answered "$first" "$flows" 4
	stop_faults
	check 'zones cannot be allocated: some allocations did fail' [ "$FAILS" -ge "$flows" ]
	check 'zones cannot be allocated: counted' [ "$(stat_of flow_no_zone)" -gt "$before" ]
	check 'zones cannot be allocated: they are created afterwards' eval \
		'traffic_is_answered "$first" "$flows" 3 &&
			until_true 5 eval "[ \$(shown zones | wc -l) -ge 20 ]"'
	in_ns r nft delete table ip tenants
}

# The kernel retries until a table has grown.
test_no_packet_is_lost_while_tables_cannot_grow() {
	local first=21000 flows=400
	with_router
	# The table is small again without the flows of earlier cases.
	forget_flows
	python3 tools/faults.py every 1 rht_deferred_worker 60
	check 'tables cannot grow: no packet is lost' traffic_is_answered "$first" "$flows" 2
	stop_faults
	check 'tables cannot grow: some allocations did fail' [ "$FAILS" -ge 1 ]
	check 'tables cannot grow: they grow afterwards' eval \
		'traffic_is_answered "$first" "$flows" 2 &&
			until_true 5 eval "[ \"\$(shown zones | field buckets)\" -ge 256 ]"'
}

test_files_are_written_and_read_as_a_whole_or_not_at_all() {
	with_router
	# Few flows, because every allocation of a read fails once.
	forget_flows
	ask c udp 3 --sport 4000 >/dev/null
	check 'sysctl write, no memory' \
		each_point_in_r write /proc/sys/net/nf_zoneroute/max_age_ms 50000
	check 'read of routes, no memory' each_point_in_r read /proc/net/nf_zoneroute/routes
	check 'read of stats, no memory' each_point_in_r read /proc/net/nf_zoneroute/stats
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

# After all the failures of the cases above.
test_no_references_remain() {
	with_router
	forget_flows
	check 'no references remain' no_references
	echo "# fault points tried: $TRIED"
}

run_cases
