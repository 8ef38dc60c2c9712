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
}

# only_that_failed: the kernel logs a call trace for every slab cache and per-CPU area that it
# cannot create. Nothing else may be in its log.
only_that_failed() {
	dmesg >/tmp/dmesg
	if is "$(grep -c 'Call Trace:' /tmp/dmesg)" "$(grep -cE \
		'__kmem_cache_create_args\(nf_zoneroute_.*\) failed with error|percpu: allocation failed' /tmp/dmesg)" &&
		! grep -v 'Call Trace' /tmp/dmesg | grep -qE "$BAD"; then
		dmesg -C
	else
		grep -B 8 -A 8 'Call Trace:' /tmp/dmesg | sed 's/^/# /' | head -n 150
		return 1
	fi
}

check 'loading fails with ENOMEM or works, for every allocation of its own' \
	each_point 100 load nf_zoneroute.ko
check 'the kernel log has nothing but failed allocations' only_that_failed
load
check 'loading works without faults' eval '[ "$(cat /proc/net/nf_zoneroute/stats | wc -l)" -gt 30 ]'
check 'creating a netns works completely or not at all, for every allocation' each_point 10 netns
unload
check 'the module can be unloaded afterwards' eval '[ ! -d /sys/module/nf_zoneroute ]'

load
router
serve udp
# traffic_is_answered FIRST COUNT ROUNDS: succeeds if every request of COUNT flows, ROUNDS each, is
# answered.
traffic_is_answered() {
	is "$(traffic c flows "$SERVER" "$PORT" "$1" "$2" "$3" | sed 's/.*answered=//')" $(($2 * $3))
}

# Fail every N-th allocation of the packet path, and of the work that creates zones for it.
sport=20000
for every in 1 2 3 5; do
	python3 tools/faults.py every "$every" module
	check "1 allocation in $every fails: no packet is lost" traffic_is_answered $sport 60 4
	stop_faults
	echo "# $FAILS allocations failed"
	check "1 allocation in $every fails: some allocations did fail" eval '[ "$FAILS" -ge 60 ]'
	check "1 allocation in $every fails: these flows are served afterwards" eval \
		'traffic_is_answered $sport 60 3 && [ "$(gained hit traffic c flows "$SERVER" "$PORT" $sport 60 1 2>/dev/null)" -ge 110 ]'
	sport=$((sport + 100))
done
check 'flows and routes that could not be allocated are counted' eval \
	'[ "$(stat_of flow_no_memory)" -gt 0 ] && [ "$(stat_of miss_no_memory)" -gt 0 ] && [ "$(stat_of no_extension)" -gt 0 ]'

{
	echo 'add table ip tenants'
	echo 'add chain ip tenants raw { type filter hook prerouting priority raw; }'
	for i in $(seq 0 59); do
		echo "add rule ip tenants raw iifname \"c1\" udp sport $((20500 + i)) ct original zone set $((100 + i))"
	done
} | in_ns r nft -f -
before=$(stat_of flow_no_zone)
python3 tools/faults.py every 1 module
check 'zones cannot be allocated: no packet is lost' traffic_is_answered 20500 60 4
stop_faults
echo "# $FAILS allocations failed"
check 'zones cannot be allocated: some allocations did fail' eval '[ "$FAILS" -ge 60 ]'
check 'zones cannot be allocated: counted' eval "[ $(stat_of flow_no_zone) -gt $before ]"
check 'zones cannot be allocated: they are created afterwards' eval \
	'traffic_is_answered 20500 60 3 && until_true 5 eval "[ \$(shown zones | wc -l) -ge 20 ]"'
in_ns r nft delete table ip tenants
forget_flows

# Tables that cannot grow: the kernel retries until it succeeds.
python3 tools/faults.py every 1 rht_deferred_worker 60
check 'tables cannot grow: no packet is lost' traffic_is_answered 21000 400 2
stop_faults
echo "# $FAILS allocations failed"
check 'tables cannot grow: some allocations did fail' eval '[ "$FAILS" -ge 1 ]'
check 'tables cannot grow: they grow afterwards' eval 'traffic_is_answered 21000 400 2 &&
	until_true 5 eval "[ \"\$(shown zones | field buckets)\" -ge 256 ]"'

forget_flows
ask c udp 3 --sport 4000 >/dev/null
check 'sysctl write, no memory' each_point_in_r write /proc/sys/net/nf_zoneroute/max_age_ms 50000
check 'read of routes, no memory' each_point_in_r read /proc/net/nf_zoneroute/routes
check 'read of stats, no memory' each_point_in_r read /proc/net/nf_zoneroute/stats
forget_flows
check 'no references remain' no_references
echo "# fault points tried: $TRIED"
