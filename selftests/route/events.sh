#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Each kind of event invalidates the cached routes that it may have changed, is counted, and is shown
# in a direction's `last'. Events that cannot change a route do none of this. The changes here do not
# change the flow's route, so that only the event can reveal them.
#
# Group: changes
# Kernel: stock
# Long: quick

. lib/test.sh
plan 63

# Packets of one exchange: two directions of two families.
PACKETS=$((2 * 2))

# The source port of the flows: `warm` starts new ones for each change.
SPORT=4000

load
router
six_router
serve udp
serve6 udp

# send FAMILY: sends one packet there and back.
send() {
	local to=$SERVER
	[ "$1" = 4 ] || to=$SERVER6
	traffic c ask udp "$to" "$PORT" 1 --sport "$SPORT" >/dev/null
}

# exchange: sends one packet there and back by the flow of each family.
exchange() {
	send 4
	send 6
}

# is_served: succeeds if an exchange is served in both directions of both families.
is_served() {
	local hits
	hits=$(stat_of hit)
	exchange
	[ $(($(stat_of hit) - hits)) -eq "$PACKETS" ]
}

# warm: starts a flow of each family and gets both served from the cache.
warm() {
	local family
	SPORT=$((SPORT + 1))
	for family in 4 6; do
		for _ in 1 2 3; do
			send "$family"
			sleep 0.02
		done
	done
	until_true 5 is_served ||
		echo "# the flows from port $SPORT are not being served" "$((FAILED = 1))"
}

# missed REASON: prints how many packets missed for REASON, because the collector had dropped the
# route before they came, or for a reason that a nexthop object's change brings with it.
missed() {
	shown stats | awk -v reason="$1" '
		$1 ~ "^miss_(" reason "|empty|unsettled|neighbour_changed)$" { sum += $2 }
		END { print sum }'
}

# shown_last REASON: prints for how many original directions routes show REASON, or a reason that a
# nexthop object's change brings with it.
shown_last() {
	routes "sport=$SPORT" dir=orig | grep -cE "last=($1|unsettled|neighbour_changed) "
}

# invalidates NAME REASON CHANGE...: CHANGE is counted as NAME, and routes of both families, or of
# $ONLY, are looked up again because of REASON.
invalidates() {
	local name=$1 reason=$2 counted missed families='both families' wanted="$PACKETS 2"
	shift 2
	[ -z "${ONLY-}" ] || families=$ONLY wanted="$((PACKETS / 2)) 1"
	warm
	counted=$(stat_of "invalidated_$name") missed=$(missed "$reason")
	"$@" >/dev/null 2>&1
	# A nexthop object takes some ms to settle.
	sleep 0.05
	exchange
	missed=$(($(missed "$reason") - missed))
	# These are served, which does not change the reason.
	exchange
	check "$name ($*): counted" [ "$(stat_of "invalidated_$name")" -gt "$counted" ]
	check "$name ($*): looked up again in both directions of $families" \
		is "$missed $(shown_last "$reason")" "$wanted"
}

# keeps NAME CHANGE...: CHANGE does not affect the flows.
keeps() {
	local hits
	warm
	hits=$(stat_of hit)
	"${@:2}" >/dev/null 2>&1
	exchange
	check "$1: still served" is $(($(stat_of hit) - hits)) "$PACKETS"
}

# counts_as NAME CHANGE...: CHANGE is counted as NAME, perhaps among other events.
counts_as() {
	local before
	before=$(stat_of "invalidated_$1")
	"${@:2}" >/dev/null 2>&1
	check "$1 (${*:2}): counted" [ "$(stat_of "invalidated_$1")" -gt "$before" ]
}

# others_do_not_matter NAME: changes neighbours that are no gateways; nearly none of the changes may
# be counted. (A neighbour may share a slot with a gateway in the set of gateways.)
others_do_not_matter() {
	local before neighbour neighbours
	mapfile -t neighbours <<<"$(seq -f '10.0.3.%g' 101 116)"
	for neighbour in "${neighbours[@]}"; do
		ip -n r neigh add "$neighbour" lladdr 02:00:00:00:01:00 dev t1 nud reachable
	done
	before=$(stat_of invalidated_neighbour)
	for neighbour in "${neighbours[@]}"; do
		ip -n r neigh change "$neighbour" lladdr 02:00:00:00:02:00 dev t1 nud reachable
	done
	check "$1: other neighbours do not matter" \
		[ $(($(stat_of invalidated_neighbour) - before)) -le 4 ]
	forget_neighbours "${neighbours[@]}"
}

# add_neighbours ADDRESS...: adds reachable neighbours on t1.
add_neighbours() {
	local neighbour
	for neighbour; do
		ip -n r neigh add "$neighbour" lladdr 02:00:00:00:00:99 dev t1 nud reachable
	done
}

forget_neighbours() {
	local neighbour
	for neighbour; do
		ip -n r neigh del "$neighbour" dev t1
	done
}

test_route_changes_invalidate() {
	local ONLY=IPv4
	invalidates route route_changed ip -n r route add 10.9.0.0/16 via 10.0.3.2
	invalidates route route_changed ip -n r route del 10.9.0.0/16 via 10.0.3.2
	ONLY=IPv6
	invalidates route route_changed ip -n r -6 route add fd00:77::/64 via fd00:3::2 dev t1
	invalidates route route_changed ip -n r -6 route del fd00:77::/64 via fd00:3::2 dev t1
}

test_rule_changes_invalidate() {
	local ONLY=IPv4
	invalidates rule rule_changed ip -n r rule add from 10.77.0.0/16 lookup main pref 50
	invalidates rule rule_changed ip -n r rule del pref 50
	ONLY=IPv6
	invalidates rule rule_changed ip -n r -6 rule add from fd00:77::/64 lookup main pref 50
	invalidates rule rule_changed ip -n r -6 rule del pref 50
}

# Neighbours do not matter as long as no route depends on them. A redirect, which the kernel
# announces as a change of a neighbour, ends the routes that it changes by itself.
test_neighbours_matter_only_while_the_choice_of_nexthops_depends_on_them() {
	local change=(ip -n r neigh change 10.0.3.99 dev t1 nud)
	add_neighbours 10.0.3.99
	keeps 'a neighbour' "${change[@]}" stale lladdr 02:00:00:00:00:98
	in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.t1.accept_redirects=1
	keeps 'a neighbour, redirects are accepted' "${change[@]}" reachable lladdr 02:00:00:00:00:97
	in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.fib_multipath_use_neigh=1
	invalidates neighbour neighbour_changed "${change[@]}" stale lladdr 02:00:00:00:00:96
	in_ns r sysctl -qw net.ipv4.fib_multipath_use_neigh=0
	forget_neighbours 10.0.3.99
}

# Of the nexthop objects, only groups depend on neighbours: on those of their gateways.
test_gateway_of_a_nexthop_object_in_no_group_does_not_matter() {
	local change=(ip -n r neigh change 10.0.3.99 dev t1 nud)
	ip -n r neigh add 10.0.3.99 lladdr 02:00:00:00:00:99 dev t1 nud stale
	invalidates nexthop nexthop_changed ip -n r nexthop add id 77 via 10.0.3.99 dev t1
	keeps 'a gateway of a nexthop object, in no group' \
		"${change[@]}" reachable lladdr 02:00:00:00:00:90
	ip -n r nexthop del id 77
	forget_neighbours 10.0.3.99
}

test_gateway_of_a_nexthop_group_matters() {
	local change=(ip -n r neigh change 10.0.3.99 dev t1 nud)
	add_neighbours 10.0.3.99
	ip -n r nexthop add id 77 via 10.0.3.99 dev t1
	invalidates nexthop nexthop_changed ip -n r nexthop add id 78 group 77
	others_do_not_matter 'a nexthop group'
	invalidates neighbour neighbour_changed "${change[@]}" stale lladdr 02:00:00:00:00:91
	invalidates nexthop nexthop_changed ip -n r nexthop add id 79 via 10.0.2.2 dev s1
	invalidates neighbour neighbour_changed "${change[@]}" reachable lladdr 02:00:00:00:00:92
	ip -n r nexthop flush >/dev/null
	forget_neighbours 10.0.3.99
}

test_gateways_follow_changes_of_members_and_groups() {
	add_neighbours 10.0.3.97 10.0.3.98 10.0.3.99
	ip -n r nexthop add id 77 via 10.0.3.99 dev t1
	ip -n r nexthop add id 78 group 77
	invalidates nexthop nexthop_changed ip -n r nexthop replace id 77 via 10.0.3.98 dev t1
	invalidates neighbour neighbour_changed \
		ip -n r neigh change 10.0.3.98 dev t1 nud stale lladdr 02:00:00:00:00:93
	ip -n r nexthop add id 82 via 10.0.3.97 dev t1
	invalidates nexthop nexthop_changed ip -n r nexthop replace id 78 group 82
	invalidates neighbour neighbour_changed \
		ip -n r neigh change 10.0.3.97 dev t1 nud stale lladdr 02:00:00:00:00:89
	ip -n r nexthop flush >/dev/null
	forget_neighbours 10.0.3.97 10.0.3.98 10.0.3.99
}

test_no_neighbour_matters_after_the_last_group_is_deleted() {
	ip -n r neigh add 10.0.3.98 lladdr 02:00:00:00:00:99 dev t1 nud stale
	ip -n r nexthop add id 77 via 10.0.3.98 dev t1
	ip -n r nexthop add id 78 group 77
	invalidates nexthop nexthop_changed ip -n r nexthop del id 78
	others_do_not_matter 'no nexthop group left'
	keeps 'a gateway, its group deleted' \
		ip -n r neigh change 10.0.3.98 dev t1 nud reachable lladdr 02:00:00:00:00:94
	ip -n r nexthop del id 77
	forget_neighbours 10.0.3.98
}

test_ipv6_gateway_of_a_group_matters_until_the_group_is_flushed() {
	add_neighbours 10.0.3.99 fd00:3::99
	invalidates nexthop nexthop_changed ip -n r -6 nexthop add id 80 via fd00:3::99 dev t1
	invalidates nexthop nexthop_changed ip -n r nexthop add id 81 group 80
	invalidates neighbour neighbour_changed \
		ip -n r -6 neigh change fd00:3::99 dev t1 nud stale lladdr 02:00:00:00:00:95
	invalidates nexthop nexthop_changed ip -n r nexthop flush
	keeps 'a neighbour, the nexthop objects deleted' \
		ip -n r neigh change 10.0.3.99 dev t1 nud stale lladdr 02:00:00:00:00:96
	forget_neighbours 10.0.3.99 fd00:3::99
}

test_hash_policy_invalidates() {
	local policy
	for policy in net.ipv4.fib_multipath_hash_policy net.ipv6.fib_multipath_hash_policy; do
		invalidates hash_policy hash_changed in_ns r sysctl -qw "$policy=1"
		in_ns r sysctl -qw "$policy=0"
	done
}

test_address_changes_are_counted() {
	counts_as address ip -n r addr add 10.77.0.1/24 dev t1
	counts_as address ip -n r -6 addr add fd00:77::1/64 dev t1 nodad
	ip -n r addr del 10.77.0.1/24 dev t1
	ip -n r -6 addr del fd00:77::1/64 dev t1
}

test_device_changes_are_counted() {
	local mac
	mac=$(mac_of r d1)
	counts_as device_change ip -n r link set t1 group 7
	ip -n r link set d1 down
	counts_as device_up ip -n r link set d1 up
	counts_as device_address ip -n r link set d1 address 02:00:00:00:01:01
	ip -n r link set t1 group 0
	ip -n r link set d1 address "$mac"
}

test_no_references_remain() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
