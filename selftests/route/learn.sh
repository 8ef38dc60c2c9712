#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# When a connection gets its flow: after `learn_after' packets, counted in both directions; in every
# mode; and never with the first packet if its packets cannot be counted.
#
# Group: basics
# Kernel: stock
# Long: quick

. lib/test.sh
# shellcheck disable=SC2034
PARAMETERS=()
plan 25

N=8

# flows_of SPORT: prints how many flows a client's UDP port has.
flows_of() {
	routes ' udp ' dir=orig "sport=$1" | wc -l
}

# send SPORT COUNT [COMMAND...]: sends packets to the port at which the server drops them.
send() {
	PORT=$SINK ask c udp "$2" --sport "$1" --oneway --interval 0.005 >/dev/null
}

set_to() {
	in_ns r sysctl -qw "net.nf_zoneroute.$1"
}

load
router
set_to max_age_ms=60000
serve udp

test_a_connection_gets_its_flow_after_eight_packets() {
	local made
	check 'learn_after is 8 by default' is "$(in_ns r sysctl -n net.nf_zoneroute.learn_after)" "$N"
	made=$(stat_of flow_new)
	send 4000 "$N"
	check "$N packets: no flow" is "$(flows_of 4000) $(($(stat_of flow_new) - made))" '0 0'
	check 'no flow: no reference on the connection' is "$(stat_of ct_references)" 0
	check 'without a flow, packets count as no_flow' [ "$(stat_of miss_no_flow)" -ge $((N - 1)) ]
	send 4000 1
	check "$((N + 1)) packets: a flow" is "$(flows_of 4000)" 1
	# The next one stages its route, the others are served.
	send 4000 11
	check 'then the packets are served' is "$(routes ' udp ' sport=4000 dir=orig | field hits)" 10
}

test_the_packets_of_both_directions_count() {
	ask c udp $((N / 2)) --sport 4001 >/dev/null
	check "$((N / 2)) requests and answers: no flow" is "$(flows_of 4001)" 0
	ask c udp 1 --sport 4001 >/dev/null
	check 'one more request: a flow' is "$(flows_of 4001)" 1
}

test_the_sysctl_takes_effect_at_once() {
	set_to learn_after=3
	send 4010 3
	check 'learn_after=3: 3 packets, no flow' is "$(flows_of 4010)" 0
	send 4010 1
	check 'learn_after=3: 4 packets, a flow' is "$(flows_of 4010)" 1
	set_to learn_after=255
	send 4011 255
	check 'learn_after=255: 255 packets, no flow' is "$(flows_of 4011)" 0
	send 4011 1
	check 'learn_after=255: 256 packets, a flow' is "$(flows_of 4011)" 1
	send 4012 20
	set_to learn_after=0
	send 4012 1
	check 'a smaller value: the packets of before count' is "$(flows_of 4012)" 1
	set_to "learn_after=$N"
}

test_every_mode_counts() {
	local mode sport=4020
	for mode in route_cache=0 zone_lookup=0 verify=1; do
		set_to "$mode"
		send "$sport" "$N"
		check "$mode: $N packets, no flow" is "$(flows_of "$sport")" 0
		send "$sport" 1
		check "$mode: $((N + 1)) packets, a flow" is "$(flows_of "$sport")" 1
		set_to "${mode%=*}=$((1 - ${mode#*=}))"
		sport=$((sport + 1))
	done
}

test_only_forwarded_packets_make_a_flow() {
	local made
	made=$(stat_of flow_new)
	in_ns c ping -q -c $((3 * N)) -i 0.01 10.0.1.1 >/dev/null
	check 'packets to the router itself: no flow' is "$(($(stat_of flow_new) - made))" 0
	in_ns r nft add table ip stop
	in_ns r nft add chain ip stop f '{ type filter hook forward priority 0; }'
	send 4030 "$N"
	in_ns r nft add rule ip stop f udp sport 4030 drop
	send 4030 $((2 * N))
	check 'packets that the firewall drops: no flow' is "$(flows_of 4030)" 0
	in_ns r nft delete table ip stop
	send 4030 1
	check 'the first one that it lets through: a flow' is "$(flows_of 4030)" 1
}

# A flow that ended is made again at once, because the connection has lasted.
test_a_connection_that_lost_its_flow_gets_it_back() {
	send 4040 $((N + 1))
	set_to enable=0
	until_true 10 no_references
	set_to enable=1
	send 4040 1
	check 'switched off and on: the next packet makes the flow' is "$(flows_of 4040)" 1
}

# Connections that are older than the module have no extension in which packets could be counted.
# Their packets make a flow by chance.
test_an_older_connection_gets_its_flow_by_chance() {
	local ports=100 flows
	unload
	in_ns r nft add table ip keep
	in_ns r nft add chain ip keep f '{ type filter hook forward priority 0; }'
	in_ns r nft add rule ip keep f ct state new accept
	PORT=$SINK in_ns c python3 tools/traffic.py flows "$SERVER" "$SINK" 10000 "$ports" 1 --timeout 0.01 >/dev/null
	load learn_after=255
	set_to max_age_ms=60000
	PORT=$SINK in_ns c python3 tools/traffic.py flows "$SERVER" "$SINK" 10000 "$ports" 1 --timeout 0.01 >/dev/null
	flows=$(stat_of flow_new)
	check 'one packet of each older connection: hardly any flow' [ "$flows" -lt $((ports / 10)) ]
	set_to learn_after=2
	PORT=$SINK in_ns c python3 tools/traffic.py flows "$SERVER" "$SINK" 10000 "$ports" 10 --timeout 0.01 >/dev/null
	flows=$(stat_of flow_new)
	check 'ten packets of each, one in two is chosen: flows for nearly all' [ "$flows" -gt $((ports * 9 / 10)) ]
	in_ns r nft delete table ip keep
}

run_cases
