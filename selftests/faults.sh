#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory that runs out: while the module is loaded, while a netns is made, while files are written
# and read, for flows, for zones, and for tables that want to grow. What fails fails whole; what goes
# on goes on, without loss; and nothing is left behind. (That nothing leaked says kmemleak, at the
# end of the guest's run.)

. ./lib.sh
# Memory is there again for those who come after.
at_end() {
	python3 faults.py stop >/dev/null 2>&1 || true
}
plan 29

TRIED=0

# each_point LEAST WHAT...: every allocation fails once; there were at least so many.
each_point() {
	local least=$1 result points
	shift
	result=$(python3 faults.py "$@") || return 1
	points=${result#points=}
	points=${points%% *}
	echo "# $1: $result"
	TRIED=$((TRIED + points))
	[ "$points" -ge "$least" ]
}

each_point_in_r() {
	local result
	result=$(in_ns r python3 faults.py "$@") || return 1
	echo "# $1 ${2##*/}: $result"
	result=${result#points=}
	TRIED=$((TRIED + ${result%% *}))
	[ "${result%% *}" -ge 1 ]
}

stop_faults() {
	FAILS=$(python3 faults.py stop)
	TRIED=$((TRIED + FAILS))
}

# The kernel shows the call chain of every cache and of per-CPU memory that it cannot make. Nothing
# else may be in its log.
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

check 'loading: fails with ENOMEM or works, at every allocation of its own' \
	each_point 100 load nf_zoneroute.ko
check 'and the kernel complains of nothing but that' only_that_failed
load
check 'and works when all is well' eval '[ "$(cat /proc/net/nf_zoneroute/stats | wc -l)" -gt 30 ]'
check 'a new netns: made whole or not at all, at every allocation of ours' each_point 10 netns
unload
check 'and all of them go' eval '[ ! -d /sys/module/nf_zoneroute ]'

load
router
serve udp
# traffic_is_answered FIRST COUNT ROUNDS
traffic_is_answered() {
	is "$(traffic c flows "$SERVER" "$PORT" "$1" "$2" "$3" | sed 's/.*answered=//')" $(($2 * $3))
}

# Every N-th allocation on the packet's way, and on that of what makes zones for it.
sport=20000
for every in 1 2 3 5; do
	python3 faults.py every "$every" module
	check "every allocation in $every fails: not a packet is lost" traffic_is_answered $sport 60 4
	stop_faults
	echo "# $FAILS allocations failed"
	check "every allocation in $every fails: some did" eval '[ "$FAILS" -ge 60 ]'
	check "every allocation in $every fails: these flows are served when all is well again" eval \
		'traffic_is_answered $sport 60 3 && [ "$(gained hit traffic c flows "$SERVER" "$PORT" $sport 60 1 2>/dev/null)" -ge 110 ]'
	sport=$((sport + 100))
done
check 'flows and routes that there was no memory for are counted' eval \
	'[ "$(stat_of flow_no_memory)" -gt 0 ] && [ "$(stat_of miss_no_memory)" -gt 0 ] && [ "$(stat_of no_extension)" -gt 0 ]'

{
	echo 'add table ip tenants'
	echo 'add chain ip tenants raw { type filter hook prerouting priority raw; }'
	for i in $(seq 0 59); do
		echo "add rule ip tenants raw iifname \"c1\" udp sport $((20500 + i)) ct original zone set $((100 + i))"
	done
} | in_ns r nft -f -
before=$(stat_of flow_no_zone)
python3 faults.py every 1 module
check 'zones that there is no memory for: not a packet is lost' traffic_is_answered 20500 60 4
stop_faults
echo "# $FAILS allocations failed"
check 'zones that there is no memory for: some there was not' eval '[ "$FAILS" -ge 60 ]'
check 'zones that there is no memory for: counted' eval "[ $(stat_of flow_no_zone) -gt $before ]"
check 'zones that there is no memory for: they come when all is well again' eval \
	'traffic_is_answered 20500 60 3 && until_true 5 eval "[ \$(shown zones | wc -l) -ge 20 ]"'
in_ns r nft delete table ip tenants
forget_flows

# Tables that cannot grow: the kernel tries again and again, until it may.
python3 faults.py every 1 rht_deferred_worker 60
check 'tables that cannot grow: not a packet is lost' traffic_is_answered 21000 400 2
stop_faults
echo "# $FAILS allocations failed"
check 'tables that cannot grow: some could not' eval '[ "$FAILS" -ge 1 ]'
check 'they grow when all is well again' eval 'traffic_is_answered 21000 400 2 &&
	until_true 5 eval "[ \"\$(shown zones | field buckets)\" -ge 256 ]"'

forget_flows
ask c udp 3 --sport 4000 >/dev/null
check 'writing a sysctl' each_point_in_r write /proc/sys/net/nf_zoneroute/max_age_ms 50000
check 'reading routes' each_point_in_r read /proc/net/nf_zoneroute/routes
check 'reading stats' each_point_in_r read /proc/net/nf_zoneroute/stats
forget_flows
check 'and nothing is held in the end' no_references
echo "# fault points tried: $TRIED"
