#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# After a change of routes, rules, addresses or devices has returned, no packet of a cached flow
# goes the old way. Two numbered streams run meanwhile, and old age is out of the question.

. ./lib.sh
plan 22

load
router
serve udp

# A steady one-way stream, counted where it comes out; started once.
stream() {
	background c python3 traffic.py ask udp "$SERVER" "$PORT" 1000000 --sport "$1" --oneway --interval 0.001
	until_true 10 routes sport="$1" dir=orig state=live
	sleep 0.2
}

# settle: packets that were past the router when the change returned are through.
settle() {
	sleep 0.1
}

# only_by_b NAME CHANGE...: after the change every packet of the stream goes by path B.
only_by_b() {
	local name=$1 a b hits
	shift
	hits=$(stat_of hit)
	a=$(arrived by_a)
	sleep 0.2
	[ "$(arrived by_a)" -gt "$a" ] || echo '# the stream was not on path A'
	[ "$(stat_of hit)" -gt "$hits" ] || echo '# the stream was not served'
	"$@"
	settle
	a=$(arrived by_a)
	b=$(arrived by_b)
	hits=$(stat_of hit)
	sleep 0.3
	check "$name: no packet on the old path" is $(($(arrived by_a) - a)) 0
	check "$name: packets on the new path, served there" \
		eval "[ $(($(arrived by_b) - b)) -gt 20 ] && [ $(($(stat_of hit) - hits)) -gt 20 ]"
}

back_to_a() {
	"$@"
	until_true 5 routes sport=4000 dir=orig state=live oif=s1
	settle
}

stream 4000

only_by_b 'route replaced' ip -n r route replace "$SERVER" via 10.0.3.2
back_to_a ip -n r route replace "$SERVER" via 10.0.2.2

ip -n r route add 10.9.9.0/24 via 10.0.3.2
only_by_b 'route deleted, a wider one takes over' ip -n r route del "$SERVER"
back_to_a ip -n r route add "$SERVER" via 10.0.2.2
ip -n r route del 10.9.9.0/24

ip -n r route del "$SERVER"
back_to_a ip -n r route add 10.9.9.0/24 via 10.0.2.2
only_by_b 'more specific route added' ip -n r route add "$SERVER" via 10.0.3.2
back_to_a ip -n r route del "$SERVER"
ip -n r route add "$SERVER" via 10.0.2.2
ip -n r route del 10.9.9.0/24

ip -n r route add "$SERVER" via 10.0.3.2 table 100
only_by_b 'rule added' ip -n r rule add from 10.0.1.2 lookup 100
back_to_a ip -n r rule del from 10.0.1.2 lookup 100

ip -n r route replace "$SERVER" nhid 0 2>/dev/null || true
ip -n r nexthop add id 1 via 10.0.2.2 dev s1
ip -n r route replace "$SERVER" nhid 1
back_to_a true
only_by_b 'nexthop object replaced' ip -n r nexthop replace id 1 via 10.0.3.2 dev t1
back_to_a ip -n r nexthop replace id 1 via 10.0.2.2 dev s1
ip -n r route replace "$SERVER" via 10.0.2.2
ip -n r nexthop del id 1
back_to_a true

ip -n r route add "$SERVER" via 10.0.3.2 metric 50
only_by_b 'address deleted, and with it its routes' ip -n r addr del 10.0.2.1/24 dev s1
ip -n r addr add 10.0.2.1/24 dev s1
back_to_a ip -n r route replace "$SERVER" via 10.0.2.2

only_by_b 'device down' ip -n r link set s1 down
ip -n r link set s1 up
back_to_a ip -n r route replace "$SERVER" via 10.0.2.2

invalidated=$(stat_of invalidated_device_unregister)
purged=$(stat_of slot_device_gone)
only_by_b 'device deleted' ip -n r link del s1
check 'device deleted: counted' eval "[ $(stat_of invalidated_device_unregister) -gt $invalidated ]"
check 'device deleted: its routes were let go at once' eval "[ $(stat_of slot_device_gone) -gt $purged ]"
link s s0 10.0.2.2/24 r s1 10.0.2.1/24
back_to_a ip -n r route replace "$SERVER" via 10.0.2.2

# Forwarding and addresses: what must stop, stops.
in_ns r sysctl -qw net.ipv4.conf.c1.forwarding=0
settle
a=$(arrived by_a)
sleep 0.3
check 'forwarding switched off: no packet passes' is $(($(arrived by_a) - a)) 0
in_ns r sysctl -qw net.ipv4.conf.c1.forwarding=1
settle
ip -n r route add blackhole "$SERVER" metric 0 2>/dev/null || ip -n r route replace blackhole "$SERVER"
ip -n r route del "$SERVER" via 10.0.2.2 2>/dev/null || true
ip -n r route del "$SERVER" via 10.0.3.2 metric 50 2>/dev/null || true
settle
a=$(arrived by_a)
b=$(arrived by_b)
sleep 0.3
check 'blackhole: no packet passes' is "$(($(arrived by_a) - a)) $(($(arrived by_b) - b))" '0 0'

kill "${JOBS[@]}" 2>/dev/null || true
forget_flows
check 'and nothing is held in the end' no_references
check 'no fallback on lack of memory' is "$(stat_of miss_no_memory)" 0
