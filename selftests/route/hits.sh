#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# From a stated packet of each direction on, every packet of a forwarded flow is a hit. The first
# packet creates the flow, the route of the next one is staged, and the rest are hits. If conntrack
# was enabled before the module was loaded, the second packet creates the flow, because the
# connection is confirmed only after the module's hook.
#
# Group: basics
# Kernel: stock
# Long: quick

. lib/test.sh
plan 19

N=20

# hits_of PROTO-WORD [SPORT]: prints the hits of the original direction and of the reply direction.
hits_of() {
	printf '%s %s' "$(routes " $1 " dir=orig ${2:+"sport=$2"} | field hits)" \
		"$(routes " $1 " dir=reply ${2:+"dport=$2"} | field hits)"
}

# load_after_conntrack: loads the module when conntrack is enabled in r already. The hooks then run
# in the other order.
load_after_conntrack() {
	load
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

load
router
in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1
serve udp

test_udp_is_served_from_the_third_packet_on() {
	local sport=4000 route
	check 'all UDP requests are answered' is "$(ask c udp "$N" --sport "$sport")" "$N"
	check 'UDP: hits from the third original packet and from the second reply on' \
		is "$(hits_of udp "$sport")" "$((N - 2)) $((N - 1))"
	check 'the routes of both directions are live' \
		is "$(routes ' udp ' "port=$sport" state=live | wc -l)" 2
	route=$(routes ' udp ' dir=orig "sport=$sport" || true)
	check 'a route shows its device and gateway' \
		is "$(field oif <<<"$route") $(field via <<<"$route")" 's1 10.0.2.2'
	check 'a route without gateway shows onlink' \
		is "$(routes ' udp ' dir=reply "dport=$sport" | field via)" onlink
}

test_tcp_is_served_from_the_third_packet_on() {
	local sport=4001 packets orig reply
	serve tcp
	check 'all TCP requests are answered' is "$(ask c tcp "$N" --sport "$sport")" "$N"
	# Expect the packets that conntrack itself counted, less the first ones.
	until_true 5 eval 'in_ns r conntrack -L -p tcp 2>/dev/null | grep -q -e TIME_WAIT -e CLOSE'
	packets=$(in_ns r conntrack -L -p tcp 2>/dev/null | tr ' ' '\n' |
		sed -n 's/^packets=//p' | paste -sd ' ')
	read -r orig reply <<<"$packets"
	check 'TCP: hits from the same packets on' \
		is "$(hits_of tcp "$sport")" "$((orig - 2)) $((reply - 1))"
}

test_icmp_is_served_from_the_third_packet_on() {
	in_ns c ping -q -c "$N" -i 0.01 "$SERVER" >/dev/null
	check 'ICMP: hits from the same packets on' is "$(hits_of icmp)" "$((N - 2)) $((N - 1))"
}

test_protocol_without_ports_is_served() {
	serve 253
	check 'requests of a protocol without ports are answered' is "$(ask c 253 "$N")" "$N"
	check 'a protocol without ports: hits from the same packets on' \
		is "$(hits_of proto-253)" "$((N - 2)) $((N - 1))"
}

test_one_way_flow_is_served() {
	local sport=4002
	PORT=$SINK ask c udp "$N" --sport "$sport" --oneway >/dev/null
	check 'a one-way flow is cached in the direction seen' \
		is "$(routes ' udp ' dir=orig "sport=$sport" | field hits)" $((N - 2))
}

test_local_delivery_creates_no_flow() {
	in_ns c ping -q -c 3 -i 0.01 10.0.1.1 >/dev/null
	check 'a packet delivered locally creates no flow' \
		is "$(routes ' icmp ' dst=10.0.1.1 | wc -l)" 0
}

# All packets of a batch pass a hook before the first one passes the next.
test_batches_are_served() {
	local sport=4006 burst=200 before
	receive_in_batches r c1 s1
	check 'receive batches: all requests are answered, by NAPI' \
		eval '[ "$(ask c udp "$N" --sport "$sport" --timeout 10)" = "$N" ] && [ "$(by_napi r c1)" -ge "$N" ]'
	check 'receive batches: hits from the same packets on' \
		is "$(hits_of udp "$sport")" "$((N - 2)) $((N - 1))"
	before=$(arrived by_a)
	PORT=$SINK ask c udp "$burst" --sport 4007 --oneway >/dev/null
	until_true 5 eval '[ $(($(arrived by_a) - before)) -ge "$burst" ]' || true
	check 'receive batches: a burst arrives' is "$(($(arrived by_a) - before))" "$burst"
	# At most the first batch is not served: a poll of the device takes up to 64 packets.
	check 'receive batches: a burst is served' \
		[ "$(routes ' udp ' dir=orig sport=4007 | field hits)" -ge $((burst - 3 * 64)) ]
	receive_singly r c1 s1
}

# The remaining cases load the module after conntrack. They come last, because nothing restores the
# order of the hooks.

# A connection from before the module lacks the module's extension.
test_connection_older_than_the_module_is_found_by_its_tuple() {
	local sport=4003
	unload
	ask c udp 2 --sport "$sport" >/dev/null
	load_after_conntrack
	ask c udp "$N" --sport "$sport" >/dev/null
	check 'a connection older than the module is found by its tuple: hits from the same packets on' \
		is "$(hits_of udp "$sport")" "$((N - 2)) $((N - 1))"
}

test_second_packet_creates_the_flow_if_conntrack_was_first() {
	local sport=4004 one_way=4005
	unload
	load_after_conntrack
	ask c udp "$N" --sport "$sport" >/dev/null
	check 'conntrack before the module: the second packet creates the flow' \
		is "$(hits_of udp "$sport")" "$((N - 2)) $((N - 2))"
	PORT=$SINK ask c udp "$N" --sport "$one_way" --oneway >/dev/null
	check 'conntrack before the module: hits of a one-way flow from the fourth packet on' \
		is "$(routes ' udp ' dir=orig "sport=$one_way" | field hits)" $((N - 3))
}

run_cases
