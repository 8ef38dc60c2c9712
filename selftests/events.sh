#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Each kind of event makes every cached route old, is counted, and is what a direction's `last' says; what
# cannot change a route does not. The changes here have nothing to do with the flow's route, so that
# nothing but the event tells of them.

. ./lib.sh
plan 63

load
router
six_router
serve udp
background s python3 traffic.py echo udp "$SERVER6" "$PORT"
until_true 10 in_ns s grep -q ':0007 ' /proc/net/udp6

# one FAMILY: a packet there and back.
one() {
	local to=$SERVER
	[ "$1" = 4 ] || to=$SERVER6
	traffic c ask udp "$to" "$PORT" 1 --sport 4000 >/dev/null
}

warm() {
	local family
	for family in 4 6; do
		for _ in 1 2 3; do
			one "$family"
			sleep 0.02
		done
	done
}

# missed REASON: packets that missed for it; or since the collector was there before them, or what a
# nexthop object brings with it.
missed() {
	shown stats | awk -v reason="$1" '$1 ~ "^miss_(" reason "|empty|unsettled|neighbour_changed)$" { sum += $2 }
		END { print sum }'
}

# told NAME REASON CHANGE...: the change is counted as NAME, and routes of both families are looked up
# again, for REASON.
told() {
	local name=$1 reason=$2 counted missed
	shift 2
	warm
	counted=$(stat_of "invalidated_$name") missed=$(missed "$reason")
	"$@" >/dev/null 2>&1
	# A nexthop object takes some ms to be settled.
	sleep 0.05
	one 4
	one 6
	missed=$(($(missed "$reason") - missed))
	# Served, which does not make the reason another.
	one 4
	one 6
	check "$name ($*): counted" [ "$(stat_of "invalidated_$name")" -gt "$counted" ]
	check "$name ($*): looked up again, both ways, by both families" \
		is "$missed $(routes sport=4000 dir=orig | grep -cE "last=($reason|unsettled|neighbour_changed)$")" '4 2'
}

# untold NAME CHANGE...: nobody cares.
untold() {
	local hits
	warm
	hits=$(stat_of hit)
	"${@:2}" >/dev/null 2>&1
	one 4
	one 6
	check "$1: served all the same" is $(($(stat_of hit) - hits)) 4
}

told route route_changed ip -n r route add 10.77.0.0/16 via 10.0.3.2
told route route_changed ip -n r route del 10.77.0.0/16 via 10.0.3.2
told route route_changed ip -n r -6 route add fd00:77::/64 via fd00:3::2 dev t1
told route route_changed ip -n r -6 route del fd00:77::/64 via fd00:3::2 dev t1
told rule rule_changed ip -n r rule add from 10.77.0.0/16 lookup main pref 50
told rule rule_changed ip -n r rule del pref 50
told rule rule_changed ip -n r -6 rule add from fd00:77::/64 lookup main pref 50
told rule rule_changed ip -n r -6 rule del pref 50

# Neighbours do not matter, where nothing looks at them.
ip -n r neigh add 10.0.3.99 lladdr 02:00:00:00:00:99 dev t1 nud reachable
untold 'a neighbour' ip -n r neigh change 10.0.3.99 lladdr 02:00:00:00:00:98 dev t1 nud stale
in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.t1.accept_redirects=1
told neighbour neighbour_changed ip -n r neigh change 10.0.3.99 lladdr 02:00:00:00:00:97 dev t1 nud reachable
in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=0
untold 'a neighbour, redirects being refused again' ip -n r neigh change 10.0.3.99 lladdr 02:00:00:00:00:96 dev t1 nud stale

# Only groups of nexthop objects look at neighbours, at those of their gateways. (In the set of these
# others may share a place.)
neighbours=$(seq -f '10.0.3.%g' 101 116)
for neighbour in $neighbours; do
	ip -n r neigh add "$neighbour" lladdr 02:00:00:00:01:00 dev t1 nud reachable
done
# of_others NAME: how many of these changes are counted.
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
of_others 'no nexthop group any more'
untold 'a gateway, its group being gone' ip -n r neigh change 10.0.3.98 dev t1 nud reachable lladdr 02:00:00:00:00:94
ip -n r -6 neigh add fd00:3::99 lladdr 02:00:00:00:00:99 dev t1 nud reachable
told nexthop nexthop_changed ip -n r -6 nexthop add id 80 via fd00:3::99 dev t1
told nexthop nexthop_changed ip -n r nexthop add id 81 group 80
told neighbour neighbour_changed ip -n r -6 neigh change fd00:3::99 dev t1 nud stale lladdr 02:00:00:00:00:95
told nexthop nexthop_changed ip -n r nexthop flush
untold 'a neighbour, the objects being gone' "${change[@]}" stale lladdr 02:00:00:00:00:96

told hash_policy hash_changed in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=1
told hash_policy hash_changed in_ns r sysctl -qw net.ipv6.fib_multipath_hash_policy=1

# counted NAME CHANGE...: it is, whatever else comes with it.
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
check 'in the end nothing is held' no_references
