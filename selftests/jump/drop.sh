#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets of connections with the drop mark are dropped before conntrack, once it is certain that rules
# drop an earlier packet of their direction; and not as soon as the rules or the mark change.
#
# Group: jump
# Kernel: stock
# Long: quick

. lib/test.sh
plan 27

load
router
serve udp
SPORT=4000
in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1 net.nf_zoneroute.drop_mark=0x200 \
	net.nf_zoneroute.drop_mask=0x200 net.nf_zoneroute.jump="${LEVEL:-1}"

# rules WHAT: loads a chain that counts packets with the mark, and does this with them.
rules() {
	in_ns r nft -f - <<-END
		table inet fast
		delete table inet fast
		table inet fast {
			counter met {}
			chain forward {
				type filter hook forward priority filter
				ct mark and 0x200 == 0x200 counter name met $1
			}
		}
	END
}

met() {
	in_ns r nft -j list counter inet fast met | grep -o '"packets": *[0-9]*' | tr -dc 0-9
}

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 0.2
}

# packets COUNT [OPTION...]: sends packets of the connection, and prints how many arrive.
packets() {
	local before
	before=$(arrived by_a)
	in_ns c python3 tools/traffic.py frame c0 "$(mac_of r c1)" 10.0.1.2 "$SERVER" --sport "$SPORT" \
		--dport "$PORT" --count "$1" --interval 0.01 "${@:2}" >/dev/null
	sleep 0.2
	echo $(($(arrived by_a) - before))
}

mark() {
	in_ns r conntrack -U -p udp --orig-port-src "$SPORT" --mark "$1" >/dev/null 2>&1
}

# connect: makes a connection of two seconds, whose routes are cached, and marks it.
connect() {
	SPORT=$((SPORT + 1))
	talk 3 >/dev/null
	sleep 2.2
	talk 3 >/dev/null
	mark 0x200
}

# is_dropped: succeeds if a packet is dropped early.
is_dropped() {
	[ "$(gained dropped packets 1 2>/dev/null)" = 1 ]
}

# packets_of: prints how many packets the connection has counted.
packets_of() {
	in_ns r conntrack -L -p udp --orig-port-src "$SPORT" 2>/dev/null |
		sed 's/.* packets=\([0-9]*\) bytes=[0-9]* \(\[.*\] \)*src=.*/\1/; s/.*dport=7 packets=\([0-9]*\) .*/\1/'
}

test_packets_are_dropped_early() {
	local met dropped packets
	rules drop
	connect
	check 'a packet is dropped early soon' until_true 20 is_dropped
	met=$(met) dropped=$(stat_of dropped) packets=$(packets_of)
	check 'none arrives' is "$(packets 20)" 0
	check 'none meets the rules' is "$(met)" "$met"
	check 'all are counted' is $(($(stat_of dropped) - dropped)) 20
	check 'they count for the connection' is $(($(packets_of) - packets)) 20
	check 'routes says so' is "$(routes ' udp ' path=drop | wc -l)" 1
}

test_a_change_holds_for_the_next_packet() {
	rules accept
	check 'rules accept them: all arrive' is "$(packets 20)" 20
	check 'none of them is dropped early' is "$(gained dropped packets 20 2>/dev/null)" 0
	rules drop
	check 'rules drop them again: none arrives' is "$(packets 20)" 0
	check 'they are dropped early again' until_true 20 is_dropped
	mark 0
	check 'the mark is gone: all arrive' is "$(packets 20)" 20
	mark 0x200
	check 'the mark is back: none arrives' is "$(packets 5)" 0
	check 'they are dropped early once more' until_true 20 is_dropped
	in_ns r sysctl -qw net.nf_zoneroute.drop_mask=0
	check 'without drop_mask: none is dropped early' is "$(gained dropped packets 5 2>/dev/null)" 0
	in_ns r sysctl -qw net.nf_zoneroute.drop_mask=0x200
}

# They are dropped before FORWARD, or are not forwarded, or are dropped only later.
test_packets_that_are_not_dropped_early() {
	local dropped
	check 'a packet is dropped early' until_true 20 is_dropped
	dropped=$(stat_of dropped)
	packets 3 --ttl 1 >/dev/null
	check 'not if its TTL ends here' is "$(stat_of dropped)" "$dropped"
	packets 1 --tos 32 >/dev/null
	check 'not with another DSCP' is "$(stat_of dropped)" "$dropped"
}

# Its packets were those that may jump, and the last one has not left.
test_a_connection_with_both_marks() {
	rules drop
	in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100
	connect
	mark 0x100
	check 'with the mark for jumps, packets jump' until_true 20 eval \
		'[ "$(gained jumped packets 1 2>/dev/null)" -ge 1 ]'
	in_ns r nft add rule inet fast forward drop
	check 'rules drop all: none arrives' is "$(packets 5)" 0
	mark 0x300
	check 'with both marks, packets are dropped early' until_true 20 is_dropped
	in_ns r sysctl -qw net.nf_zoneroute.jump_mask=0
}

test_a_rule_that_accepts() {
	rules accept
	connect
	check 'rules accept: all are answered' is "$(talk 50)" 50
	check 'rules accept: none is dropped early' is "$(gained dropped talk 20 2>/dev/null)" 0
}

# They go into the route, but the kernel drops them before FORWARD.
test_packets_that_do_not_reach_forward_say_nothing() {
	packets 3 --ttl 1 >/dev/null
	sleep 0.5
	check 'rules accept, after packets whose TTL ends here: all arrive' is "$(packets 20)" 20
	ip -n r link set s1 mtu 600
	packets 3 >/dev/null
	packets 3 --size 800 --flags 16384 >/dev/null
	sleep 0.5
	check 'rules accept, after packets that are too long: all arrive' is "$(packets 20)" 20
	ip -n r link set s1 mtu 1500
}

test_a_chain_before_the_route_is_chosen() {
	rules accept
	in_ns r nft add chain inet fast pre '{ type filter hook prerouting priority -100; }'
	in_ns r nft add rule inet fast pre ct mark and 0x200 == 0x200 udp dport 7 drop
	connect
	check 'a chain at PREROUTING drops: none arrives' is "$(packets 20)" 0
	check 'none is dropped early' is "$(gained dropped packets 20 2>/dev/null)" 0
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
