#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The 32-bit jiffies of ages and timeouts wrap five minutes after boot. Objects created before the
# wrap keep their true age after it and expire on time. (The guest boots with --icount, so the five
# minutes pass at once.)
#
# Jiffies wrap only once, so the cases build on one another: the first case creates the connections
# of the ports 4000, 4001 and 4002 before the wrap, the second case waits for the wrap, and each of
# the others looks at some of these connections.
#
# Group: wrap
# Kernel: wrap

. lib/test.sh
plan 19

HZ=250

# jiffies: prints the low 32 bits.
jiffies() {
	echo $(($(awk '$1 == "jiffies:" { print $2; exit }' /proc/timer_list) & 0xffffffff))
}

# until_wrap: prints the seconds until the wrap.
until_wrap() {
	echo $(((0x100000000 - $(jiffies)) / HZ))
}

wrapped() {
	[ "$(jiffies)" -lt $((60 * HZ)) ]
}

load
router
serve udp
serve tcp

test_connections_are_served_before_the_wrap() {
	local connections=3
	sleep "$(($(until_wrap) - 8))"
	check 'jiffies have not wrapped yet' eval '! wrapped'
	# One connection that expires after the wrap, and two that stay. The long timeout remains,
	# because each packet sets its connection's timeout anew.
	udp_timeouts r 20 20
	ask c udp 5 --sport 4001 >/dev/null
	udp_timeouts r 100 100
	ask c udp 5 --sport 4000 >/dev/null
	ask c udp 5 --sport 4002 >/dev/null
	check 'three connections are served' is "$(routes state=live | wc -l)" $((2 * connections))
	check 'jiffies still have not wrapped' eval '! wrapped'
}

# During the wrap, verify mode compares packets with conntrack's own result.
test_packets_match_the_prediction_across_the_wrap() {
	local rounds all tcp udp
	in_ns r sysctl -qw net.nf_zoneroute.verify=1
	rounds=$((($(until_wrap) + 2) * 5))
	all="sent=$rounds answered=$rounds"
	in_ns c python3 tools/traffic.py ask tcp "$SERVER" "$PORT" "$rounds" --sport 4003 \
		--interval 0.2 >/tmp/tcp &
	tcp=$!
	in_ns c python3 tools/traffic.py ask udp "$SERVER" "$PORT" "$rounds" --sport 4003 \
		--interval 0.2 >/tmp/udp &
	udp=$!
	sleep "$(until_wrap)"
	until_true 10 wrapped
	wait "$tcp" "$udp"
	check 'TCP and UDP across the wrap were answered' \
		is "$(cat /tmp/tcp /tmp/udp | paste -sd ' ')" "$all $all"
	check 'their packets were compared' [ "$(stat_of verify_packets)" -ge $((rounds * 3)) ]
	check 'their packets matched the prediction' is "$(mismatches)" 0
	in_ns r sysctl -qw net.nf_zoneroute.verify=0
}

test_connections_and_routes_outlive_the_wrap() {
	local n=5 aged age
	check 'a connection from before the wrap is found after it' \
		is "$(found ask c udp "$n" --sport 4000 2>/dev/null)" $((2 * n))
	aged=$(stat_of miss_aged)
	# For the case of the connection that expires, which may do so from now on.
	GONE=$(stat_of flow_gone)
	age=$(routes sport=4000 dir=orig | field age_ms || true)
	check 'a route from before the wrap shows its true age' \
		eval "[ ${age:-0} -ge 1000 ] && [ ${age:-0} -le 20000 ]"
	check 'a route from before the wrap is served after it' \
		is "$(gained hit ask c udp "$n" --sport 4000 2>/dev/null)" $((2 * n))
	check 'a route from before the wrap is not aged' is "$(stat_of miss_aged)" "$aged"
	check 'the connection that will expire still exists' routes sport=4001 dir=orig
}

test_routes_age_after_the_wrap() {
	local n=3
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=500
	check 'a route from before the wrap is aged with a shorter max_age_ms, once in each direction' \
		is "$(gained miss_aged ask c udp 1 --sport 4002 2>/dev/null)" 2
	check 'a fresh route is served' \
		is "$(gained hit ask c udp "$n" --sport 4002 2>/dev/null)" $((2 * n))
	sleep 1
	check 'a route from after the wrap ages too' \
		is "$(gained miss_aged ask c udp 1 --sport 4002 2>/dev/null)" 2
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

test_a_connection_expires_on_time_after_the_wrap() {
	check 'the connection expires on time' until_true 30 eval '! routes sport=4001'
	check 'no other connection expires' is "$(routes dir=orig | grep -vc sport=4003)" 2
	check 'flow_gone counts it' is "$(stat_of flow_gone)" $((GONE + 1))
}

test_obsolete_routes_are_dropped_after_the_wrap() {
	ip -n r route replace "$SERVER" via 10.0.3.2
	check 'the garbage collector still drops obsolete routes' until_true 5 eval \
		'[ "$(stat_of dst_references)" = 0 ]'
	ip -n r route replace "$SERVER" via 10.0.2.2
}

test_no_reference_is_left_at_the_end() {
	forget_flows
	check 'no reference is left at the end' no_references
}

run_cases
