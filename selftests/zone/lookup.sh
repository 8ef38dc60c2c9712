#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets are found in the table of their zone and in no other: for each way to set the zone, in
# both directions, with and without NAT, for IPv4 and IPv6. The tenants use the same tuples. Each
# server appends its name to its answers: no tenant may get an answer of another tenant's server.
#
# Group: lookup
# Kernel: stock
# Long: debug kcsan

. lib/test.sh
plan 68

# Requests of each tenant in an exchange: by UDP, in two turns, and over one TCP connection.
UDP_TURN=5
UDP_REQUESTS=$((2 * UDP_TURN))
TCP_REQUESTS=20

# Hits of one tenant in an exchange: every packet except the first of each direction. With TCP, the
# last packets go to conntrack too, and now and then a pure ACK is one more hit: it is a minimum.
UDP_FOUND=$((2 * (UDP_REQUESTS - 1)))
TCP_FOUND=$((2 * (TCP_REQUESTS - 1)))

# The result of an exchange in which all requests of both tenants are answered.
ALL_ANSWERED="$UDP_TURN $UDP_TURN $UDP_TURN $UDP_TURN / $TCP_REQUESTS $TCP_REQUESTS"

declare -A ADDR=([IPv4]=$SERVER [IPv6]=$SERVER6)
# Addresses that DNAT maps to the server.
declare -A DNAT_ADDR=([IPv4]=10.8.8.8 [IPv6]=fd00:8::8)

load
twins

# rules CHAINS...: replaces the test's nft table by one with these chains, and flushes conntrack, so
# that each case starts with fresh connections although all use the same ports.
rules() {
	in_ns r nft -f - <<-END
		table inet test
		delete table inet test
		table inet test {
			chain forward {
				type filter hook forward priority filter; policy accept;
				ct state invalid counter drop
			}
			$(printf '%s\n' "$@")
		}
	END
	in_ns r conntrack -F >/dev/null 2>&1
	in_ns r conntrack -F -f ipv6 >/dev/null 2>&1
	until_true 10 no_references
}

# tally NAME...: prints the sum of these counters.
tally() {
	local name sum=0
	for name; do
		sum=$((sum + $(stat_of "$name")))
	done
	echo "$sum"
}

# exchange ADDR SERVER-OF-D [PORT-OF-D]: c and d make UDP_REQUESTS requests each, in turns; then,
# both at the same time, TCP_REQUESTS requests over one TCP connection each. The numbers of answers
# go to /tmp/exchange, those of lookup hits to UDP_HITS, TCP_HITS and ALL_HITS, and that of packets
# which were left to conntrack because they assure their connection to ASSURING.
exchange() {
	local addr=$1 server=$2 port=${3:-4000} udp tcp hits line before assuring c d
	before=$(stat_of lookup_hit)
	assuring=$(stat_of lookup_miss_assuring)
	# An empty zone is freed, and its counters would start again from 0.
	until_true 10 eval '! shown zones | grep -q " flows=0 "' || echo '# empty zones stay'
	BEFORE=()
	for line in $(shown zones | sed 's/^zone=\([0-9]*\) .* hits=\([0-9]*\) .*/\1:\2/'); do
		BEFORE[${line%:*}]=${line#*:}
	done
	hits=$(tally lookup_hit lookup_miss_assuring)
	c=(twin c udp "$addr" s "$UDP_TURN" --sport 4000 --timeout 10)
	d=(twin d udp "$addr" "$server" "$UDP_TURN" --sport "$port" --timeout 10)
	udp="$("${c[@]}") $("${d[@]}") $("${c[@]}") $("${d[@]}")"
	UDP_HITS=$(($(tally lookup_hit lookup_miss_assuring) - hits))
	hits=$(stat_of lookup_hit)
	twin d tcp "$addr" "$server" "$TCP_REQUESTS" --sport "$port" --timeout 10 >/tmp/twin.d &
	tcp=$(twin c tcp "$addr" s "$TCP_REQUESTS" --sport 4000 --timeout 10)
	wait $!
	TCP_HITS=$(($(stat_of lookup_hit) - hits))
	ALL_HITS=$(($(stat_of lookup_hit) - before))
	ASSURING=$(($(stat_of lookup_miss_assuring) - assuring))
	echo "$udp / $tcp $(cat /tmp/twin.d)" >/tmp/exchange
}

# matrix NAME ADDR SERVER-OF-D [PORT-OF-D]: checks the answers and the hits of an exchange.
matrix() {
	local name=$1
	shift
	exchange "$@"
	check "$name: tenants reach their own servers" is "$(cat /tmp/exchange)" "$ALL_ANSWERED"
	check "$name: UDP hits from each direction's second packet on" \
		is "$UDP_HITS" $((2 * UDP_FOUND))
	check "$name: TCP is found" [ "$TCP_HITS" -ge $((2 * TCP_FOUND)) ]
}

# Hits of each zone at the start of the last exchange.
declare -A BEFORE=()

# zone_hits ZONE: prints the zone's hits during the last exchange.
zone_hits() {
	local hits
	hits=$(zone "$1" hits)
	echo $((${hits/none/0} - ${BEFORE[$1]-0}))
}

# both_hit ZONE ZONE: each has about half of the hits (now and then TCP sends a pure ACK).
both_hit() {
	local least=$((UDP_FOUND + TCP_FOUND))
	[ "$(zone_hits "$1")" -ge "$least" ] && [ "$(zone_hits "$2")" -ge "$least" ]
}

BOTH='chain raw {
	type filter hook prerouting priority raw
	iifname { "c1", "s1" } ct zone set 1
	iifname { "d1", "t1" } ct zone set 2
}'
NAT='chain pre {
	type nat hook prerouting priority dstnat
	ip daddr 10.8.8.8 dnat ip to 10.9.9.9
	ip6 daddr fd00:8::8 dnat ip6 to fd00:9::9
}
chain post {
	type nat hook postrouting priority srcnat
	oifname { "s1", "t1" } meta l4proto { tcp, udp } snat ip to 10.0.2.1:5000-5999
	oifname { "s1", "t1" } meta l4proto { tcp, udp } snat ip6 to [fd00:2::1]:5000-5999
}'
# A zone for the original direction only: NAT must make the reply tuples differ.
ORIGINAL='chain raw {
	type filter hook prerouting priority raw
	iifname "c1" ct original zone set 21
	iifname "d1" ct original zone set 22
}'
MARKS='chain mangle {
	type filter hook prerouting priority mangle
	iifname "c1" ct mark set 1
	iifname "d1" ct mark set 2
	iifname "s1" meta mark set ct mark
}
chain post {
	type nat hook postrouting priority srcnat
	ct mark 1 snat ip to 10.0.2.101
	ct mark 2 snat ip to 10.0.2.102
	ct mark 1 snat ip6 to fd00:2::101
	ct mark 2 snat ip6 to fd00:2::102
}'
# A zone for the reply direction only: the original tuples differ, the reply tuples do not.
REPLY='chain raw {
	type filter hook prerouting priority raw
	iifname { "c1", "s1" } ct reply zone set 31
	iifname { "d1", "t1" } ct reply zone set 32
}'
REPLY_NAT='chain post {
	type nat hook postrouting priority srcnat
	iifname "d1" udp sport 4001 snat ip to 10.0.1.2:4000
	iifname "d1" tcp sport 4001 snat ip to 10.0.1.2:4000
	iifname "d1" udp sport 4001 snat ip6 to [fd00:1::2]:4000
	iifname "d1" tcp sport 4001 snat ip6 to [fd00:1::2]:4000
}'

# one_server add|del: both tenants use server s, whose replies are routed by the connection mark.
one_server() {
	ip -n r -b - <<-END
		route $1 10.0.1.0/24 dev d1 table 3
		rule $1 fwmark 2 lookup 3 pref 90
		route $1 $SERVER via 10.0.2.2 dev s1 table 4
		rule $1 iif d1 lookup 4 pref 91
	END
	ip -n r -6 -b - <<-END
		route $1 fd00:1::/64 dev d1 table 3
		rule $1 fwmark 2 lookup 3 pref 90
		route $1 $SERVER6 via fd00:2::2 dev s1 table 4
		rule $1 iif d1 lookup 4 pref 91
	END
}
ip -n r -b - <<-'END'
	addr add 10.0.2.101/32 dev s1
	addr add 10.0.2.102/32 dev s1
	addr add fd00:2::101/128 dev s1 nodad
	addr add fd00:2::102/128 dev s1 nodad
END

# raw ARGUMENT...: changes iptables' raw table.
raw() {
	in_xtables r iptables -t raw "$@"
}

# zones_by OPTION C-ZONE D-ZONE: sets the tenants' zones by iptables.
zones_by() {
	local dev
	for dev in c1 s1; do
		raw -A PREROUTING -i "$dev" -j CT "$1" "$2"
	done
	for dev in d1 t1; do
		raw -A PREROUTING -i "$dev" -j CT "$1" "$3"
	done
}

test_packets_are_found_with_a_zone_for_both_directions() {
	local family
	for family in IPv4 IPv6; do
		rules "$BOTH"
		matrix "$family, ct zone set" "${ADDR[$family]}" t
		check "$family, ct zone set: each zone has its own hits" both_hit 1 2
		check "$family, ct zone set: zone 0 has none" is "$(zone_hits 0)" 0
	done
}

test_packets_are_found_with_a_zone_for_both_directions_with_nat() {
	local family
	for family in IPv4 IPv6; do
		rules "$BOTH" "$NAT"
		matrix "$family, ct zone set, SNAT and DNAT" "${DNAT_ADDR[$family]}" t
	done
}

test_packets_are_found_with_a_zone_for_the_original_direction() {
	local family
	for family in IPv4 IPv6; do
		rules "$ORIGINAL" "$MARKS"
		one_server add
		matrix "$family, ct original zone set" "${ADDR[$family]}" s
		check "$family, ct original zone set: half of the hits are replies, in zone 0" \
			is "$(zone_hits 0)" $((ALL_HITS - $(zone_hits 21) - $(zone_hits 22)))
		one_server del
	done
}

test_packets_are_found_with_a_zone_for_the_reply_direction() {
	local family
	for family in IPv4 IPv6; do
		rules "$REPLY" "$REPLY_NAT"
		matrix "$family, ct reply zone set" "${ADDR[$family]}" t 4001
		check "$family, ct reply zone set: the original direction is found in zone 0" \
			is "$(zone_hits 0)" $((ALL_HITS - $(zone_hits 31) - $(zone_hits 32)))
	done
}

# iptables sets the same templates, and can also take the zone from the mark.
test_packets_are_found_with_a_zone_by_iptables() {
	rules ''
	zones_by --zone 41 42
	matrix 'iptables CT --zone' "$SERVER" t
	raw -F
}

test_packets_are_found_with_a_zone_by_ip6tables() {
	local dev
	rules ''
	for dev in c1:43 s1:43 d1:44 t1:44; do
		in_xtables r ip6tables -t raw -A PREROUTING -i "${dev%:*}" \
			-j CT --zone "${dev#*:}"
	done
	matrix 'ip6tables CT --zone' "$SERVER6" t
	in_xtables r ip6tables -t raw -F
}

test_packets_are_found_with_a_zone_by_iptables_from_the_mark() {
	# The lower half of the marks: 51 and 52.
	rules 'chain early {
		type filter hook prerouting priority -310
		iifname { "c1", "s1" } meta mark set 0x10033
		iifname { "d1", "t1" } meta mark set 0x20034
	}'
	zones_by --zone mark mark
	matrix 'iptables CT --zone mark' "$SERVER" t
	check 'iptables CT --zone mark: the zone is the lower half of the mark' both_hit 51 52
	raw -F
}

test_packets_are_found_with_an_original_zone_by_iptables() {
	rules "$MARKS"
	raw -A PREROUTING -i c1 -j CT --zone-orig 61
	raw -A PREROUTING -i d1 -j CT --zone-orig 62
	one_server add
	matrix 'iptables CT --zone-orig' "$SERVER" s
	one_server del
	raw -F
}

test_packets_are_found_with_a_reply_zone_by_iptables() {
	rules "$REPLY_NAT"
	zones_by --zone-reply 71 72
	matrix 'iptables CT --zone-reply' "$SERVER" t 4001
	raw -F
}

# The DSCP of a packet selects its zone.
test_the_same_tuple_in_eight_zones_is_eight_connections() {
	local dscp
	rules 'chain raw {
		type filter hook prerouting priority raw
		ct zone set ip dscp map {
			0 : 100, 1 : 101, 2 : 102, 3 : 103, 4 : 104, 5 : 105, 6 : 106, 7 : 107
		}
	}'
	for dscp in 0 1 2 3 4 5 6 7; do
		twin c udp "$SERVER" s 2 --sport 4000 --tos $((dscp << 2)) >/dev/null
	done
	# The server's answers do not match connections in other zones, because they have DSCP 0 and
	# so are in zone 100.
	check 'the same tuple in eight zones: eight connections' \
		is "$(in_ns r conntrack -L -p udp --orig-port-src 4000 2>/dev/null | grep -c .)" 8
	check 'the same tuple in eight zones: each zone has one flow' \
		is "$(shown zones | awk -F'[ =]' '$2 >= 100 && $2 < 108 && $4 == 1' | wc -l)" 8
}

# A zone for the original direction only: reply tuples are in zone 0, original tuples are not.
test_the_same_tuple_in_zone_0_is_not_matched() {
	local before
	rules 'chain raw {
		type filter hook prerouting priority raw
		ip dscp 1 ct original zone set 110
	}'
	twin c udp "$SERVER" s 3 --sport 4000 >/dev/null
	before=$(stat_of lookup_miss_unknown)
	twin c udp "$SERVER" s 1 --sport 4000 --tos 4 --timeout 0.1 >/dev/null
	check 'a packet of a zone does not match the same tuple in zone 0' \
		is $(($(stat_of lookup_miss_unknown) - before)) 1
}

test_packets_without_a_template_are_found_in_zone_0() {
	local family before answered
	rules ''
	for family in IPv4 IPv6; do
		before=$(tally lookup_hit lookup_miss_assuring)
		answered=$(twin c udp "${ADDR[$family]}" s "$UDP_REQUESTS" --sport 4000)
		check "$family, no template: answered" is "$answered" "$UDP_REQUESTS"
		check "$family, no template: found in zone 0" \
			is $(($(tally lookup_hit lookup_miss_assuring) - before)) "$UDP_FOUND"
	done
}

test_untracked_packets_are_not_looked_up() {
	local n=5 before
	rules 'chain raw {
		type filter hook prerouting priority raw
		udp dport 4001 notrack
		udp sport 4001 notrack
	}'
	# Create a flow: without any flow there are no lookups at all.
	twin c udp "$SERVER" s "$n" --sport 4000 >/dev/null
	before=$(tally lookup_hit lookup_miss_unknown)
	check 'untracked packets: answered' is "$(twin c udp "$SERVER" s "$n" --sport 4001)" "$n"
	check 'untracked packets are not looked up' \
		is "$(stat_of ct_references) $(tally lookup_hit lookup_miss_unknown)" "1 $before"
}

# Double NAT, as in the kernel's description of conntrack zones: two tunnels with the same network,
# one zone each. SNAT maps each to a network of its own; the packets then pass a veth pair into
# zone 0, where SNAT is applied again.
test_double_nat_is_found_in_both_zones() {
	local dev pref difference
	ip -n r link add v0 type veth peer name v1
	for dev in v0 v1; do
		in_ns r sysctl -qw "net.ipv4.conf.$dev.rp_filter=0" \
			"net.ipv4.conf.$dev.accept_local=1"
		ip -n r link set "$dev" up
	done
	ip -n r -b - <<-END
		addr add 172.31.0.1/30 dev v0
		neigh add 172.31.0.2 lladdr $(mac_of r v1) dev v0 nud permanent
		neigh add 172.31.0.6 lladdr $(mac_of r v0) dev v1 nud permanent
		route add default via 172.31.0.2 dev v0 table 5
		route add 10.100.0.0/16 via 172.31.0.6 dev v1 onlink table 6
		route add $SERVER via 10.0.2.2 dev s1 table 6
		route add 10.0.1.0/24 dev c1 table 7
		route add 10.0.1.0/24 dev d1 table 8
		rule add iif c1 lookup 5 pref 80
		rule add iif d1 lookup 5 pref 81
		rule add iif v1 lookup 6 pref 82
		rule add iif s1 lookup 6 pref 83
		rule add iif v0 fwmark 1 lookup 7 pref 84
		rule add iif v0 fwmark 2 lookup 8 pref 85
	END
	rules 'chain raw {
		type filter hook prerouting priority raw
		iifname "c1" ct zone set 81
		iifname "d1" ct zone set 82
		iifname "v0" ip daddr 10.100.1.2 meta mark set 1 ct zone set 81
		iifname "v0" ip daddr 10.100.2.2 meta mark set 2 ct zone set 82
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "v0" iifname "c1" snat ip to 10.100.1.2
		oifname "v0" iifname "d1" snat ip to 10.100.2.2
		oifname "s1" snat ip to 10.0.2.1
	}'
	exchange "$SERVER" s
	check 'double NAT: both tenants are answered' is "$(cat /tmp/exchange)" "$ALL_ANSWERED"
	# Two tenants, and two zones each.
	check 'double NAT: UDP hits in both zones that it crosses' \
		is "$UDP_HITS" $((2 * 2 * UDP_FOUND))
	check 'double NAT: TCP is found' [ "$TCP_HITS" -ge $((2 * 2 * TCP_FOUND)) ]
	# The two connections of a stream may be assured by different packets, because the 2 s of
	# each begin and end at their own times. Each such packet is a hit in one zone only.
	difference=$(($(zone_hits 0) - $(zone_hits 81) - $(zone_hits 82)))
	check 'double NAT: zone 0 has as many hits as both tunnel zones together' \
		[ "${difference#-}" -le "$ASSURING" ]
	forget_flows
	# Without the rules, no lookup reaches the tables 5 to 8.
	for pref in 80 81 82 83 84 85; do
		ip -n r rule del pref "$pref"
	done
	ip -n r link del v0
}

# With route_cache=0, found packets have no work in the later hooks. Packets without a flow have.
test_flows_are_created_without_the_route_cache() {
	rules ''
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=0 net.nf_zoneroute.enable=0
	twin c udp "$SERVER" s 2 --sport 4000 >/dev/null
	in_ns r sysctl -qw net.nf_zoneroute.enable=1
	twin c udp "$SERVER" s 2 --sport 4001 >/dev/null
	check 'route_cache=0: a new connection gets a flow' is "$(stat_of ct_references)" 1
	twin c udp "$SERVER" s 2 --sport 4000 >/dev/null
	check 'route_cache=0: a connection older than enable=1 gets one' \
		is "$(stat_of ct_references)" 2
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=1
}

test_packets_of_a_batch_are_found() {
	rules "$BOTH"
	receive_in_batches r c1 d1 s1 t1
	matrix 'receive batches' "$SERVER" t
	check 'receive batches: by NAPI' [ "$(by_napi r c1)" -gt 0 ]
}

# Depends on all cases.
test_no_reference_is_left() {
	rules ''
	check 'no reference to a template or connection is left at the end' no_references
}

run_cases
