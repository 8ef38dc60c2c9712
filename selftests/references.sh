#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What is held is let go: flows end with their connections, routes with what they depend on; and
# packets that are served really do without the FIB.

. ./lib.sh
plan 22

load
router
serve udp

ask c udp 5 --sport 4000 >/dev/null
check 'a flow holds one connection and two routes' \
	is "$(stat_of ct_references) $(stat_of dst_references)" '1 2'
check 'the zone counts it' is "$(shown zones | field zone) $(shown zones | field flows)" '0 1'
in_ns r conntrack -D -p udp --orig-port-src 4000 >/dev/null 2>&1
check 'a connection that is deleted is let go' until_true 5 no_references
check 'and is counted' is "$(stat_of flow_gone)" "$(stat_of flow_new)"

in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1 net.netfilter.nf_conntrack_udp_timeout_stream=1
ask c udp 5 --sport 4001 >/dev/null
check 'a connection that times out is let go' until_true 10 no_references
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
check 'each has its two lines' is "$(shown routes | sort -u | wc -l)" 1000
check 'the table grew' eval '[ "$(shown zones | field buckets)" -ge 512 ]'
ip -n r link del s1
check 'a device that goes takes its routes with it' is "$(stat_of dst_references)" 0
check 'but no flow' is "$(stat_of ct_references)" 500
forget_flows
check 'and the flows go with their connections' no_references
check 'the table shrank or went' until_true 10 eval \
	'[ "$(shown zones | field buckets)" = "" ]'

link s s0 10.0.2.2/24 r s1 10.0.2.1/24
ip -n s route replace default via 10.0.2.1
ip -n r route replace "$SERVER" via 10.0.2.2
ask c udp 5 --sport 4002 >/dev/null
ip -n r route replace "$SERVER" via 10.0.3.2
check 'an idle flow does not keep routes that are obsolete' until_true 5 eval \
	'[ "$(stat_of dst_references)" = 0 ]'
ip -n r route replace "$SERVER" via 10.0.2.2

# The kernel counts its IPv4 routes, of all netns: each change makes new ones, and the old ones must
# go although flows held them.
routes_alive() {
	echo $((16#$(awk 'NR == 2 { print $1 }' /proc/net/stat/rt_cache)))
}
background c python3 traffic.py ask udp "$SERVER" "$SINK" 1000000 --sport 4004 --oneway --interval 0.001
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

# The kernel's own count of its lookups, for a hundred packets that are served and a hundred not.
# All netns trace into one buffer, and the hosts look their own packets up: what counts is the
# difference. "iif 1" is what a host sends.
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
check 'packets that are not served are looked up' eval "[ $unserved -ge 100 ]"
check 'packets that are served are looked up once fewer each' eval "[ $((unserved - served)) -ge 100 ]"
# A netns that is nearly full of connections: what conntrack drops early must really be gone.
in_ns r sysctl -qw net.nf_zoneroute.route_cache=1
forget_flows
old_max=$(sysctl -n net.netfilter.nf_conntrack_max)
old_buckets=$(sysctl -n net.netfilter.nf_conntrack_buckets)
# Few buckets: conntrack looks for a victim in eight of them.
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
check 'connections up to three quarters of the most have flows' \
	eval "[ $(stat_of ct_references) -ge 138 ]"
flood 1000
check 'beyond, unassured ones have none' eval "[ $(stat_of ct_references) -le 155 ]"
check 'and it is counted' eval "[ $(stat_of flow_scarce) -ge 500 ]"
count=$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)
echo "# $count connections of 200"
# But for those that had flows before: they are let go within a second.
check 'what conntrack drops early is gone, so that there are no more than may be' eval "[ $count -le 350 ]"
sysctl -qw net.netfilter.nf_conntrack_max="$old_max" net.netfilter.nf_conntrack_buckets="$old_buckets"
check 'nothing failed for lack of memory' is "$(stat_of miss_no_memory) $(stat_of flow_no_memory)" '0 0'
