#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Jiffies of 32 bits, which ages and timeouts are kept in, wrap five minutes after the start. What
# was made before is as old after it as it is, and ends when it should. (This boots by --icount, so
# that the five minutes pass at once.)

. ./lib.sh
plan 19

HZ=250

# jiffies: the low 32 bits.
jiffies() {
	echo $(($(awk '$1 == "jiffies:" { print $2; exit }' /proc/timer_list) & 0xffffffff))
}

# Seconds until the wrap.
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
sleep "$(($(until_wrap) - 8))"
check 'jiffies have not wrapped yet' eval '! wrapped'

# One connection whose time is up after the wrap, and two that stay.
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=20 net.netfilter.nf_conntrack_udp_timeout_stream=20
ask c udp 5 --sport 4001 >/dev/null
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=100 net.netfilter.nf_conntrack_udp_timeout_stream=100
ask c udp 5 --sport 4000 >/dev/null
ask c udp 5 --sport 4002 >/dev/null
check 'three connections are served' is "$(routes state=live | wc -l)" 6
check 'all that before the wrap' eval '! wrapped'

# Over the wrap, packets are compared with what conntrack makes of them.
in_ns r sysctl -qw net.nf_zoneroute.verify=1
rounds=$((($(until_wrap) + 2) * 5))
in_ns c python3 traffic.py ask tcp "$SERVER" "$PORT" "$rounds" --sport 4003 --interval 0.2 >/tmp/tcp &
tcp=$!
in_ns c python3 traffic.py ask udp "$SERVER" "$PORT" "$rounds" --sport 4003 --interval 0.2 >/tmp/udp &
udp=$!
sleep "$(until_wrap)"
until_true 10 wrapped
wait "$tcp" "$udp"
check 'TCP and UDP that lasted over the wrap were answered' \
	is "$(cat /tmp/tcp /tmp/udp | paste -sd ' ')" "sent=$rounds answered=$rounds sent=$rounds answered=$rounds"
check 'their packets were compared' [ "$(stat_of verify_packets)" -ge $((rounds * 3)) ]
check 'and were as predicted' is "$(mismatches)" 0
in_ns r sysctl -qw net.nf_zoneroute.verify=0
check 'what was made before the wrap is found after it' \
	is "$(found ask c udp 5 --sport 4000 2>/dev/null)" 10
aged=$(stat_of miss_aged)
gone=$(stat_of flow_gone)
check 'a route from before the wrap is as old as it is' eval \
	'age=$(routes sport=4000 dir=orig | field age_ms) && [ "$age" -ge 1000 ] && [ "$age" -le 20000 ]'
check 'a route from before the wrap serves after it' \
	is "$(gained hit ask c udp 5 --sport 4000 2>/dev/null)" 10
check 'a route from before the wrap is not old' is "$(stat_of miss_aged)" "$aged"
check 'the connection whose time comes is still there' routes sport=4001 dir=orig
in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=500
check 'with a shorter age it is old, once in each direction' \
	is "$(gained miss_aged ask c udp 1 --sport 4002 2>/dev/null)" 2
check 'and serves afresh' is "$(gained hit ask c udp 3 --sport 4002 2>/dev/null)" 6
sleep 1
check 'what was made after the wrap gets old too' \
	is "$(gained miss_aged ask c udp 1 --sport 4002 2>/dev/null)" 2
in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
check 'the connection ends when its time is up' until_true 30 eval '! routes sport=4001'
check 'and only that one' is "$(routes dir=orig | grep -vc sport=4003)" 2
check 'and is counted' is "$(stat_of flow_gone)" $((gone + 1))
ip -n r route replace "$SERVER" via 10.0.3.2
check 'the garbage collector still lets go of obsolete routes' until_true 5 eval \
	'[ "$(stat_of dst_references)" = 0 ]'
forget_flows
check 'and nothing is held in the end' no_references
