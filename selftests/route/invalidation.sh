#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# After a change of routes, rules, addresses or devices has returned, no packet of a cached flow
# takes the old path. Each change is made while the stream is stopped, so that the count is exact,
# and undone under the stream's traffic. Routes do not expire by age here.
#
# Group: fitness
# Kernel: stock quick

. lib/test.sh
plan 38

load
router
serve udp

# stream SPORT: starts a case's steady one-way stream, counted where it arrives.
stream() {
	SPORT=$1
	background c python3 tools/traffic.py ask udp "$SERVER" "$PORT" 1000000 --sport "$SPORT" \
		--oneway --interval 0.004
	STREAM=${JOBS[-1]}
}

# end_stream: ends the stream, which was the last job, and its flow.
end_stream() {
	end_jobs "$STREAM"
	unset 'JOBS[-1]'
	# A packet on its way would make a new connection.
	settle
	forget_flows
}

# settle: waits for packets that have passed the router to arrive.
settle() {
	sleep 0.1
}

# counts: prints how many packets arrived by path A and by path B, and the number of hits.
counts() {
	echo "$(arrived by_a) $(arrived by_b) $(stat_of hit)"
}

# on_a: waits until the stream is served by path A.
on_a() {
	until_true 20 routes "sport=$SPORT" dir=orig state=live oif=s1
	settle
}

# to_b NAME CHANGE...: CHANGE moves the stream from path A to path B.
to_b() {
	local name=$1 a b hits a0 b0 hits0
	shift
	on_a
	read -r a0 _ hits0 <<<"$(counts)"
	sleep 0.2
	read -r a b hits <<<"$(counts)"
	kill -STOP "$STREAM"
	settle
	check "$name: served on the old path before" \
		eval "[ $((a - a0)) -gt 10 ] && [ $((hits - hits0)) -gt 10 ]"
	read -r a0 b0 hits0 <<<"$(counts)"
	"$@"
	kill -CONT "$STREAM"
	sleep 0.3
	read -r a b hits <<<"$(counts)"
	check "$name: no packet takes the old path" is $((a - a0)) 0
	check "$name: served on the new path" \
		eval "[ $((b - b0)) -gt 10 ] && [ $((hits - hits0)) -gt 10 ]"
}

# back_to_a NAME CHANGE...: CHANGE moves the stream back to path A, under traffic.
back_to_a() {
	local name=$1 b
	shift
	"$@"
	settle
	b=$(arrived by_b)
	on_a
	sleep 0.2
	check "$name, undone under traffic: no packet takes the old path" \
		is $(($(arrived by_b) - b)) 0
}

# stopped NAME CHANGE...: after CHANGE no packet arrives.
stopped() {
	local name=$1 a b a0 b0
	shift
	on_a
	a=$(arrived by_a)
	sleep 0.2
	[ "$(arrived by_a)" -gt "$a" ] || echo '# the stream does not run' "$((FAILED = 1))"
	kill -STOP "$STREAM"
	settle
	read -r a0 b0 _ <<<"$(counts)"
	"$@"
	kill -CONT "$STREAM"
	sleep 0.3
	read -r a b _ <<<"$(counts)"
	check "$name: no packet passes" is "$((a - a0)) $((b - b0))" '0 0'
}

test_replaced_route_takes_effect_at_once() {
	stream 4000
	to_b 'route replaced' ip -n r route replace "$SERVER" via 10.0.3.2
	back_to_a 'route replaced' ip -n r route replace "$SERVER" via 10.0.2.2
	end_stream
}

test_deleted_route_takes_effect_at_once() {
	stream 4001
	ip -n r route add 10.9.9.0/24 via 10.0.3.2
	to_b 'route deleted, a less specific one takes over' ip -n r route del "$SERVER"
	back_to_a 'route deleted' ip -n r route add "$SERVER" via 10.0.2.2
	ip -n r route del 10.9.9.0/24
	end_stream
}

test_more_specific_route_takes_effect_at_once() {
	stream 4002
	ip -n r route add 10.9.9.0/24 via 10.0.2.2
	ip -n r route del "$SERVER"
	to_b 'more specific route added' ip -n r route add "$SERVER" via 10.0.3.2
	back_to_a 'more specific route added' ip -n r route del "$SERVER"
	ip -n r route add "$SERVER" via 10.0.2.2
	ip -n r route del 10.9.9.0/24
	end_stream
}

test_added_rule_takes_effect_at_once() {
	stream 4003
	ip -n r route add "$SERVER" via 10.0.3.2 table 100
	to_b 'rule added' ip -n r rule add from 10.0.1.2 lookup 100
	back_to_a 'rule added' ip -n r rule del from 10.0.1.2 lookup 100
	ip -n r route del "$SERVER" table 100
	end_stream
}

test_renamed_device_takes_effect_at_once() {
	stream 4004
	ip -n r route add "$SERVER" via 10.0.3.2 table 100
	ip -n r rule add iif elsewhere lookup 100
	to_b 'device renamed to a name in a rule' ip -n r link set c1 name elsewhere
	back_to_a 'device renamed' ip -n r link set elsewhere name c1
	ip -n r rule del iif elsewhere lookup 100
	ip -n r route del "$SERVER" table 100
	end_stream
}

test_replaced_nexthop_object_takes_effect_at_once() {
	stream 4005
	ip -n r nexthop add id 1 via 10.0.2.2 dev s1
	ip -n r route replace "$SERVER" nhid 1
	to_b 'nexthop object replaced' ip -n r nexthop replace id 1 via 10.0.3.2 dev t1
	back_to_a 'nexthop object replaced' ip -n r nexthop replace id 1 via 10.0.2.2 dev s1
	ip -n r route replace "$SERVER" via 10.0.2.2
	ip -n r nexthop del id 1
	end_stream
}

test_deleted_address_takes_effect_at_once() {
	stream 4006
	ip -n r route add "$SERVER" via 10.0.3.2 metric 50
	to_b 'address deleted together with its routes' ip -n r addr del 10.0.2.1/24 dev s1
	ip -n r addr add 10.0.2.1/24 dev s1
	ip -n r route replace "$SERVER" via 10.0.2.2
	ip -n r route del "$SERVER" via 10.0.3.2 metric 50
	end_stream
}

test_device_down_takes_effect_at_once() {
	stream 4007
	ip -n r route add "$SERVER" via 10.0.3.2 metric 50
	to_b 'device down' ip -n r link set s1 down
	ip -n r link set s1 up
	ip -n r route replace "$SERVER" via 10.0.2.2
	ip -n r route del "$SERVER" via 10.0.3.2 metric 50
	end_stream
}

# back_again: creates the device s1 again after it was deleted.
back_again() {
	link s s0 10.0.2.2/24 r s1 10.0.2.1/24
	ip -n s route replace default via 10.0.2.1
	ip -n r route replace "$SERVER" via 10.0.2.2
}

# A route ends when its device goes down. The collector, which runs once a second, may see that
# before the device is gone, so this may take several tries.
test_routes_of_a_deleted_device_are_dropped_at_once() {
	local try dropped
	dropped=$(stat_of slot_device_gone)
	for try in 1 2 3 4 5 6 7 8; do
		ask c udp 5 --sport $((4020 + try)) >/dev/null
		ip -n r link del s1
		until_true 5 eval '[ "$(stat_of dst_references)" = 0 ]' || true
		back_again
		[ "$(stat_of slot_device_gone)" -eq "$dropped" ] || break
	done
	check 'device deleted: its routes were dropped at once' [ "$(stat_of slot_device_gone)" -gt "$dropped" ]
}

test_deleted_device_takes_effect_at_once() {
	local invalidated
	stream 4008
	ip -n r route add "$SERVER" via 10.0.3.2 metric 50
	invalidated=$(stat_of invalidated_device_unregister)
	to_b 'device deleted' ip -n r link del s1
	check 'device deleted: counted' \
		eval "[ $(stat_of invalidated_device_unregister) -gt $invalidated ]"
	back_again
	on_a
	ip -n r route del "$SERVER" via 10.0.3.2 metric 50
	end_stream
}

test_disabled_forwarding_takes_effect_at_once() {
	stream 4009
	# So that packets could pass by path B as well.
	ip -n r route add "$SERVER" via 10.0.3.2 metric 50
	stopped 'forwarding disabled' in_ns r sysctl -qw net.ipv4.conf.c1.forwarding=0
	in_ns r sysctl -qw net.ipv4.conf.c1.forwarding=1
	ip -n r route del "$SERVER" via 10.0.3.2 metric 50
	end_stream
}

test_blackhole_takes_effect_at_once() {
	stream 4010
	stopped 'blackhole' ip -n r route replace blackhole "$SERVER"
	ip -n r route replace "$SERVER" via 10.0.2.2
	end_stream
}

test_no_references_remain() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
