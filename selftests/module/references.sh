#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# References are dropped: flows end with their connections, routes with the objects that they depend
# on. Served packets cause no FIB lookup.
#
# Group: basics
# Kernel: stock
# Long: quick

. lib/test.sh
plan 22

load
router
serve udp

# routes_alive: prints the kernel's own count of its IPv4 routes, in all netns together.
routes_alive() {
	echo $((16#$(awk 'NR == 2 { print $1 }' /proc/net/stat/rt_cache)))
}

TRACE=/sys/kernel/tracing
# lookups SPORT REQUESTS: prints the kernel's own count of FIB lookups for REQUESTS from a port.
# "iif 1" marks packets that a host sends.
lookups() {
	echo >"$TRACE/trace"
	ask c udp "$2" --sport "$1" >/dev/null
	grep 'fib_table_lookup:' "$TRACE/trace" | grep -v ' iif 1 ' |
		grep -c -e '10.0.1.2/[0-9]* -> 10.9.9.9/' -e '10.9.9.9/[0-9]* -> 10.0.1.2/' || true
}

# flood COUNT: opens COUNT UDP connections that are never answered.
flood() {
	in_ns c python3 - "$1" <<-'END'
		import socket, sys
		for sport in range(10000, 10000 + int(sys.argv[1])):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.bind(("0.0.0.0", sport)); s.sendto(b"x", ("10.9.9.9", 11))
	END
}

test_a_deleted_connection_is_released() {
	ask c udp 5 --sport 4000 >/dev/null
	check 'a flow holds one connection and two routes' \
		is "$(stat_of ct_references) $(stat_of dst_references)" '1 2'
	check 'the zone counts the flow' \
		is "$(shown zones | field zone) $(shown zones | field flows)" '0 1'
	in_ns r conntrack -D -p udp --orig-port-src 4000 >/dev/null 2>&1
	check 'a deleted connection is released' until_true 5 no_references
	check 'and flow_gone counts it' is "$(stat_of flow_gone)" "$(stat_of flow_new)"
}

test_a_connection_that_timed_out_is_released() {
	udp_timeouts r 1 1
	ask c udp 5 --sport 4001 >/dev/null
	check 'a connection that timed out is released' until_true 10 no_references
	udp_timeouts r 600 700
}

test_routes_end_with_their_device_and_flows_with_their_connections() {
	local flows=500
	in_ns c python3 - "$flows" <<-'END'
		import socket, sys
		for sport in range(4100, 4100 + int(sys.argv[1])):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.bind(("0.0.0.0", sport)); s.connect(("10.9.9.9", 7)); s.settimeout(1)
		    for _ in range(3):
		        s.send(b"x" * 16); s.recv(64)
	END
	check 'five hundred flows' \
		is "$(stat_of ct_references) $(stat_of dst_references)" "$flows $((2 * flows))"
	check 'each flow has two lines' is "$(shown routes | sort -u | wc -l)" $((2 * flows))
	check 'the table grew' [ "$(shown zones | field buckets)" -ge 512 ]
	ip -n r link del s1
	check 'deleting a device drops its routes' \
		until_true 10 eval '[ "$(stat_of dst_references)" = 0 ]'
	check 'but drops no flow' is "$(stat_of ct_references)" "$flows"
	forget_flows
	check 'flows end with their connections' no_references
	check 'the table shrank or was freed' \
		until_true 10 eval '[ "$(shown zones | field buckets)" = "" ]'

	link s s0 10.0.2.2/24 r s1 10.0.2.1/24
	ip -n s route replace default via 10.0.2.1
	ip -n r route replace "$SERVER" via 10.0.2.2
}

test_an_idle_flow_drops_obsolete_routes() {
	ask c udp 5 --sport 4002 >/dev/null
	ip -n r route replace "$SERVER" via 10.0.3.2
	check 'an idle flow does not keep obsolete routes' \
		until_true 5 eval '[ "$(stat_of dst_references)" = 0 ]'
	ip -n r route replace "$SERVER" via 10.0.2.2
	forget_flows
}

# Each change allocates new routes, and the old ones must be freed although flows held references to
# them.
test_changed_routes_are_freed_under_traffic() {
	local rounds=50 stream before committed
	background c python3 tools/traffic.py ask udp "$SERVER" "$SINK" 1000000 --sport 4004 \
		--oneway --interval 0.001
	stream=${JOBS[-1]}
	until_true 10 routes sport=4004 dir=orig state=live
	before=$(routes_alive)
	committed=$(stat_of committed)
	for _ in $(seq "$rounds"); do
		ip -n r route replace "$SERVER" via 10.0.3.2
		sleep 0.03
		ip -n r route replace "$SERVER" via 10.0.2.2
		sleep 0.03
	done
	end_jobs "$stream"
	unset 'JOBS[-1]'
	# A tenth of the changes may be replaced before a packet uses them.
	check 'a hundred changes under traffic: new routes each time' \
		[ $(($(stat_of committed) - committed)) -ge $((2 * rounds * 9 / 10)) ]
	check 'a hundred changes under traffic: the old routes are freed' \
		until_true 10 eval '[ "$(routes_alive)" -le $((before + 10)) ]'
	forget_flows
}

# A hundred served and a hundred unserved packets. All netns trace into one buffer, and the hosts
# route their own packets too: the difference is what counts.
test_served_packets_cause_no_fib_lookup() {
	local requests=50 served unserved
	echo 1 >"$TRACE/events/fib/fib_table_lookup/enable"
	ask c udp 5 --sport 4003 >/dev/null
	served=$(lookups 4003 "$requests")
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=0
	ask c udp 5 --sport 4003 >/dev/null
	unserved=$(lookups 4003 "$requests")
	echo 0 >"$TRACE/events/fib/fib_table_lookup/enable"
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=1
	echo "# FIB lookups for $((2 * requests)) packets: served $served, not served $unserved"
	check 'each unserved packet is looked up' [ "$unserved" -ge $((2 * requests)) ]
	check 'each served packet saves a lookup' [ $((unserved - served)) -ge $((2 * requests)) ]
	forget_flows
}

# conntrack is nearly full: connections that it drops early must really be freed.
test_flows_do_not_keep_conntrack_full() {
	local max=200 few=140 many=1000 old_max old_buckets scarce count
	local scarce_from=$((max * 3 / 4))
	old_max=$(sysctl -n net.netfilter.nf_conntrack_max)
	old_buckets=$(sysctl -n net.netfilter.nf_conntrack_buckets)
	scarce=$(stat_of flow_scarce)
	# Few buckets: early drop searches only eight of them for a victim.
	sysctl -qw "net.netfilter.nf_conntrack_max=$max" net.netfilter.nf_conntrack_buckets=32
	flood "$few"
	check 'up to three quarters of the maximum, connections get flows' \
		[ "$(stat_of ct_references)" -ge $((few - 2)) ]
	flood "$many"
	check 'beyond that, unassured ones get none' \
		[ "$(stat_of ct_references)" -le $((scarce_from + 5)) ]
	scarce=$(($(stat_of flow_scarce) - scarce))
	check 'and flow_scarce counts them' [ "$scarce" -ge $((many / 2)) ]
	count=$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)
	echo "# $count connections of $max"
	# The maximum may be exceeded by connections that had flows before: these are released
	# within a second.
	check 'early-dropped connections are freed: their number stays bounded' \
		[ "$count" -le $((max + scarce_from)) ]
	sysctl -qw "net.netfilter.nf_conntrack_max=$old_max" \
		"net.netfilter.nf_conntrack_buckets=$old_buckets"
	forget_flows
}

# In any of the cases above.
test_no_allocation_failed() {
	check 'no allocation failed' is "$(stat_of miss_no_memory) $(stat_of flow_no_memory)" '0 0'
}

run_cases
