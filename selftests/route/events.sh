#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Each kind of event invalidates every cached route, is counted, and is shown in a direction's
# `last'. Events that cannot change a route do none of this. The changes here are unrelated to the
# flow's route, so that only the event can reveal them.
#
# Group: changes
# Kernel: stock quick

. lib/test.sh
plan 63

load
router
six_router
serve udp
background s python3 tools/traffic.py echo udp "$SERVER6" "$PORT"
until_true 10 in_ns s grep -q ':0007 ' /proc/net/udp6

# one FAMILY: sends one packet there and back.
one() {
	local to=$SERVER
	[ "$1" = 4 ] || to=$SERVER6
	traffic c ask udp "$to" "$PORT" 1 --sport 4000 >/dev/null
}

# warm: gets the flows of both families served from the cache.
warm() {
	local family
	for family in 4 6; do
		for _ in 1 2 3; do
			one "$family"
			sleep 0.02
		done
	done
}

# missed REASON: prints how many packets missed for REASON, because the collector had dropped the
# route before they came, or for a reason that a nexthop object's change brings with it.
missed() {
	shown stats | awk -v reason="$1" '$1 ~ "^miss_(" reason "|empty|unsettled|neighbour_changed)$" { sum += $2 }
		END { print sum }'
}

# told NAME REASON CHANGE...: CHANGE is counted as NAME, and routes of both families are looked up
# again because of REASON.
told() {
	local name=$1 reason=$2 counted missed
	shift 2
	warm
	counted=$(stat_of "invalidated_$name") missed=$(missed "$reason")
	"$@" >/dev/null 2>&1
	# A nexthop object takes some ms to settle.
	sleep 0.05
	one 4
	one 6
	missed=$(($(missed "$reason") - missed))
	# These are served, which does not change the reason.
	one 4
	one 6
	check "$name ($*): counted" [ "$(stat_of "invalidated_$name")" -gt "$counted" ]
	check "$name ($*): looked up again in both directions of both families" \
		is "$missed $(routes sport=4000 dir=orig | grep -cE "last=($reason|unsettled|neighbour_changed)$")" '4 2'
}

# untold NAME CHANGE...: CHANGE does not affect the flows.
untold() {
	local hits
	warm
	hits=$(stat_of hit)
	"${@:2}" >/dev/null 2>&1
	one 4
	one 6
	check "$1: still served" is $(($(stat_of hit) - hits)) 4
}

told route route_changed ip -n r route add 10.77.0.0/16 via 10.0.3.2
told route route_changed ip -n r route del 10.77.0.0/16 via 10.0.3.2
told route route_changed ip -n r -6 route add fd00:77::/64 via fd00:3::2 dev t1
told route route_changed ip -n r -6 route del fd00:77::/64 via fd00:3::2 dev t1
told rule rule_changed ip -n r rule add from 10.77.0.0/16 lookup main pref 50
told rule rule_changed ip -n r rule del pref 50
told rule rule_changed ip -n r -6 rule add from fd00:77::/64 lookup main pref 50
told rule rule_changed ip -n r -6 rule del pref 50

# Neighbours do not matter as long as no route depends on them.
ip -n r neigh add 10.0.3.99 lladdr 02:00:00:00:00:99 dev t1 nud reachable
untold 'a neighbour' ip -n r neigh change 10.0.3.99 lladdr 02:00:00:00:00:98 dev t1 nud stale
in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.t1.accept_redirects=1
told neighbour neighbour_changed ip -n r neigh change 10.0.3.99 lladdr 02:00:00:00:00:97 dev t1 nud reachable
in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=0
untold 'a neighbour, redirects refused again' ip -n r neigh change 10.0.3.99 lladdr 02:00:00:00:00:96 dev t1 nud stale

# Of the nexthop objects, only groups depend on neighbours: on those of their gateways. (Another
# neighbour may share a slot with these in the set of gateways.)
neighbours=$(seq -f '10.0.3.%g' 101 116)
for neighbour in $neighbours; do
	ip -n r neigh add "$neighbour" lladdr 02:00:00:00:01:00 dev t1 nud reachable
done
# of_others NAME: changes these neighbours; nearly none of the changes may be counted.
of_others() {
	local before neighbour
	before=$(stat_of invalidated_neighbour)
	mac=$((${mac:-10} + 1))
	for neighbour in $neighbours; do
		ip -n r neigh change "$neighbour" lladdr "02:00:00:00:02:$mac" dev t1 nud reachable
	done
	check "$1: other neighbours do not matter" [ $(($(stat_of invalidated_neighbour) - before)) -le 4 ]
}
change=(ip -n r neigh change 10.0.3.99 dev t1 nud)
told nexthop nexthop_changed ip -n r nexthop add id 77 via 10.0.3.99 dev t1
untold 'a gateway of a nexthop object, in no group' "${change[@]}" reachable lladdr 02:00:00:00:00:90
told nexthop nexthop_changed ip -n r nexthop add id 78 group 77
of_others 'a nexthop group'
told neighbour neighbour_changed "${change[@]}" stale lladdr 02:00:00:00:00:91
told nexthop nexthop_changed ip -n r nexthop add id 79 via 10.0.2.2 dev s1
told neighbour neighbour_changed "${change[@]}" reachable lladdr 02:00:00:00:00:92
ip -n r neigh add 10.0.3.98 lladdr 02:00:00:00:00:98 dev t1 nud reachable
told nexthop nexthop_changed ip -n r nexthop replace id 77 via 10.0.3.98 dev t1
told neighbour neighbour_changed ip -n r neigh change 10.0.3.98 dev t1 nud stale lladdr 02:00:00:00:00:93
ip -n r neigh add 10.0.3.97 lladdr 02:00:00:00:00:97 dev t1 nud reachable
ip -n r nexthop add id 82 via 10.0.3.97 dev t1
told nexthop nexthop_changed ip -n r nexthop replace id 78 group 82
told neighbour neighbour_changed ip -n r neigh change 10.0.3.97 dev t1 nud stale lladdr 02:00:00:00:00:89
told nexthop nexthop_changed ip -n r nexthop del id 78
of_others 'no nexthop group left'
untold 'a gateway, its group deleted' ip -n r neigh change 10.0.3.98 dev t1 nud reachable lladdr 02:00:00:00:00:94
ip -n r -6 neigh add fd00:3::99 lladdr 02:00:00:00:00:99 dev t1 nud reachable
told nexthop nexthop_changed ip -n r -6 nexthop add id 80 via fd00:3::99 dev t1
told nexthop nexthop_changed ip -n r nexthop add id 81 group 80
told neighbour neighbour_changed ip -n r -6 neigh change fd00:3::99 dev t1 nud stale lladdr 02:00:00:00:00:95
told nexthop nexthop_changed ip -n r nexthop flush
untold 'a neighbour, the nexthop objects deleted' "${change[@]}" stale lladdr 02:00:00:00:00:96

told hash_policy hash_changed in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=1
told hash_policy hash_changed in_ns r sysctl -qw net.ipv6.fib_multipath_hash_policy=1

# counted NAME CHANGE...: CHANGE is counted as NAME, perhaps among other events.
counted() {
	local before
	before=$(stat_of "invalidated_$1")
	"${@:2}" >/dev/null 2>&1
	check "$1 (${*:2}): counted" [ "$(stat_of "invalidated_$1")" -gt "$before" ]
}
counted address ip -n r addr add 10.77.0.1/24 dev t1
counted address ip -n r -6 addr add fd00:77::1/64 dev t1 nodad
counted device_change ip -n r link set t1 group 7
ip -n r link set d1 down
counted device_up ip -n r link set d1 up
counted device_address ip -n r link set d1 address 02:00:00:00:01:01
forget_flows
check 'no references remain' no_references
