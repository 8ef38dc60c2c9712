#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# References are dropped: flows end with their connections, routes with the objects that they depend
# on. Served packets cause no FIB lookup.
#
# Group: basics
# Kernel: stock quick

. lib/test.sh
plan 22

load
router
serve udp

ask c udp 5 --sport 4000 >/dev/null
check 'a flow holds one connection and two routes' \
	is "$(stat_of ct_references) $(stat_of dst_references)" '1 2'
check 'the zone counts the flow' is "$(shown zones | field zone) $(shown zones | field flows)" '0 1'
in_ns r conntrack -D -p udp --orig-port-src 4000 >/dev/null 2>&1
check 'a deleted connection is released' until_true 5 no_references
check 'and flow_gone counts it' is "$(stat_of flow_gone)" "$(stat_of flow_new)"

in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1 net.netfilter.nf_conntrack_udp_timeout_stream=1
ask c udp 5 --sport 4001 >/dev/null
check 'a connection that timed out is released' until_true 10 no_references
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=30 net.netfilter.nf_conntrack_udp_timeout_stream=120

in_ns c python3 - <<-'END'
	import socket
	for sport in range(4100, 4600):
	    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	    s.bind(("0.0.0.0", sport)); s.connect(("10.9.9.9", 7)); s.settimeout(1)
	    for _ in range(3):
	        s.send(b"x" * 16); s.recv(64)
END
check 'five hundred flows' is "$(stat_of ct_references) $(stat_of dst_references)" '500 1000'
check 'each flow has two lines' is "$(shown routes | sort -u | wc -l)" 1000
check 'the table grew' eval '[ "$(shown zones | field buckets)" -ge 512 ]'
ip -n r link del s1
check 'deleting a device drops its routes' is "$(stat_of dst_references)" 0
check 'but drops no flow' is "$(stat_of ct_references)" 500
forget_flows
check 'flows end with their connections' no_references
check 'the table shrank or was freed' until_true 10 eval \
	'[ "$(shown zones | field buckets)" = "" ]'

link s s0 10.0.2.2/24 r s1 10.0.2.1/24
ip -n s route replace default via 10.0.2.1
ip -n r route replace "$SERVER" via 10.0.2.2
ask c udp 5 --sport 4002 >/dev/null
ip -n r route replace "$SERVER" via 10.0.3.2
check 'an idle flow does not keep obsolete routes' until_true 5 eval \
	'[ "$(stat_of dst_references)" = 0 ]'
ip -n r route replace "$SERVER" via 10.0.2.2

# The kernel counts its IPv4 routes, in all netns together: each change allocates new ones, and the
# old ones must be freed although flows held references to them.
routes_alive() {
	echo $((16#$(awk 'NR == 2 { print $1 }' /proc/net/stat/rt_cache)))
}
background c python3 tools/traffic.py ask udp "$SERVER" "$SINK" 1000000 --sport 4004 --oneway --interval 0.001
stream=${JOBS[-1]}
until_true 10 routes sport=4004 dir=orig state=live
before=$(routes_alive)
committed=$(stat_of committed)
for _ in $(seq 50); do
	ip -n r route replace "$SERVER" via 10.0.3.2
	sleep 0.03
	ip -n r route replace "$SERVER" via 10.0.2.2
	sleep 0.03
done
kill "$stream"
check 'a hundred changes under traffic: new routes each time' \
	eval "[ $(($(stat_of committed) - committed)) -ge 90 ]"
check 'a hundred changes under traffic: the old routes are freed' until_true 10 \
	eval '[ "$(routes_alive)" -le $((before + 10)) ]'

# The kernel's own count of FIB lookups, for a hundred served and a hundred unserved packets. All
# netns trace into one buffer, and the hosts route their own packets too: the difference is what
# counts. "iif 1" marks packets that a host sends.
trace=/sys/kernel/tracing
echo 1 >$trace/events/fib/fib_table_lookup/enable
lookups() {
	echo >$trace/trace
	ask c udp 50 --sport 4002 >/dev/null
	grep 'fib_table_lookup:' "$trace"/trace | grep -v ' iif 1 ' |
		grep -c -e '10.0.1.2/[0-9]* -> 10.9.9.9/' -e '10.9.9.9/[0-9]* -> 10.0.1.2/' || true
}
ask c udp 5 --sport 4002 >/dev/null
served=$(lookups)
in_ns r sysctl -qw net.nf_zoneroute.route_cache=0
ask c udp 5 --sport 4002 >/dev/null
unserved=$(lookups)
echo 0 >$trace/events/fib/fib_table_lookup/enable
echo "# FIB lookups for 100 packets: served $served, not served $unserved"
check 'each unserved packet is looked up' eval "[ $unserved -ge 100 ]"
check 'each served packet saves a lookup' eval "[ $((unserved - served)) -ge 100 ]"
# conntrack is nearly full: connections that it drops early must really be freed.
in_ns r sysctl -qw net.nf_zoneroute.route_cache=1
forget_flows
old_max=$(sysctl -n net.netfilter.nf_conntrack_max)
old_buckets=$(sysctl -n net.netfilter.nf_conntrack_buckets)
# Few buckets: early drop searches only eight of them for a victim.
sysctl -qw net.netfilter.nf_conntrack_max=200 net.netfilter.nf_conntrack_buckets=32
flood() {
	in_ns c python3 - "$1" <<-'END'
		import socket, sys
		for sport in range(10000, 10000 + int(sys.argv[1])):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.bind(("0.0.0.0", sport)); s.sendto(b"x", ("10.9.9.9", 11))
	END
}
flood 140
check 'up to three quarters of the maximum, connections get flows' \
	eval "[ $(stat_of ct_references) -ge 138 ]"
flood 1000
check 'beyond that, unassured ones get none' eval "[ $(stat_of ct_references) -le 155 ]"
check 'and flow_scarce counts them' eval "[ $(stat_of flow_scarce) -ge 500 ]"
count=$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)
echo "# $count connections of 200"
# The maximum may be exceeded by connections that had flows before: these are released within a
# second.
check 'early-dropped connections are freed: their number stays bounded' eval "[ $count -le 350 ]"
sysctl -qw net.netfilter.nf_conntrack_max="$old_max" net.netfilter.nf_conntrack_buckets="$old_buckets"
check 'no allocation failed' is "$(stat_of miss_no_memory) $(stat_of flow_no_memory)" '0 0'
