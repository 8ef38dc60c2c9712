#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Zones: tenants with the same addresses and ports behind one router. Each tenant has its own flows,
# routes and line in the zones file, for each way to set the zone.
#
# Group: fitness
# Kernel: stock quick
# Long: kcsan

. lib/test.sh
plan 22

load
make_ns c d r s
agent c d
in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
link s s0 10.0.2.2/24 r s1 10.0.2.1/24
ip -n s addr add "$SERVER/32" dev lo
ip -n s route add default via 10.0.2.1
ip -n r route add "$SERVER" via 10.0.2.2
# Two tenants, c and d, with the same address.
link c c0 10.0.1.2/24 r c1 10.0.1.1/24
link d c0 10.0.1.2/24 r d1 10.0.1.1/24
for ns in c d; do
	ip -n "$ns" route add default via 10.0.1.1
done
in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
wake
for dev in c1 d1 s1; do
	in_ns r sysctl -qw net.ipv4.conf.$dev.rp_filter=0
done
# Replies to a tenant go out by its device, selected by the connection mark.
ip -n r route add 10.0.1.0/24 dev c1 table 1
ip -n r route add 10.0.1.0/24 dev d1 table 2
ip -n r rule add fwmark 1 lookup 1 pref 100
ip -n r rule add fwmark 2 lookup 2 pref 101
serve udp

# tenants RAW-RULE-FOR-C RAW-RULE-FOR-D [RAW-RULE-FOR-REPLIES]: replaces the tenants' nft table.
tenants() {
	in_ns r nft -f - <<-END
		table ip tenants
		delete table ip tenants
		table ip tenants {
			chain raw {
				type filter hook prerouting priority raw
				$1
				$2
				${3-}
			}
			chain mangle {
				type filter hook prerouting priority mangle
				iifname "c1" ct mark set 1
				iifname "d1" ct mark set 2
				iifname "s1" meta mark set ct mark
			}
			chain post {
				type nat hook postrouting priority srcnat
				oifname "s1" ct mark 1 snat to 10.0.2.101
				oifname "s1" ct mark 2 snat to 10.0.2.102
			}
		}
	END
}
ip -n r addr add 10.0.2.101/32 dev s1
ip -n r addr add 10.0.2.102/32 dev s1

no_zones() {
	[ -z "$(shown zones)" ]
}

# fields FIELD PATTERN-C PATTERN-D PATTERN...: prints this field of the route of each tenant.
fields() {
	printf '%s %s' "$(routes "$2" "${@:4}" | field "$1")" "$(routes "$3" "${@:4}" | field "$1")"
}

# two_tenants NAME ZONE-C ZONE-D ZONE-REPLY-C ZONE-REPLY-D: checks that both tenants are answered
# and served in these zones; leaves the text of the zones file in the caller's `zones`. It flushes
# conntrack at its end, so that the next case may use the same tuples.
two_tenants() {
	local name=$1 n=10 answered hits
	hits=$(stat_of hit)
	answered="$(ask c udp "$n" --sport 4000) $(ask d udp "$n" --sport 4000)"
	check "$name: both tenants are answered" is "$answered" "$n $n"
	# Of each tenant, all but the first two requests and the first answer are hits.
	check "$name: both are served in both directions" \
		is $(($(stat_of hit) - hits)) $((2 * (n - 2 + n - 1)))
	check "$name: the same tuple is in two zones" \
		is "$(fields zone iif=c1 iif=d1 sport=4000 dir=orig)" "$2 $3"
	check "$name: the reply has its own direction's zone" \
		is "$(fields zone dst=10.0.2.101 dst=10.0.2.102 dir=reply)" "$4 $5"
	check "$name: each reply goes to its tenant" \
		is "$(fields oif dst=10.0.2.101 dst=10.0.2.102 dir=reply)" 'c1 d1'
	zones=$(shown zones)
	in_ns r conntrack -F >/dev/null 2>&1
	until_true 5 no_references
}

# flows_in ZONE: prints the zone's number of flows according to the caller's `zones`.
flows_in() {
	sed -n "s/^zone=$1 flows=\([0-9]*\) .*/\1/p" <<<"$zones"
}

test_zone_for_the_original_direction() {
	local zones
	tenants 'iifname "c1" ct original zone set 1' 'iifname "d1" ct original zone set 2'
	two_tenants 'a zone for the original direction' 1 2 0 0
	check 'a zone for the original direction: each zone counts its flow, zone 0 both' \
		is "$(flows_in 1) $(flows_in 2) $(flows_in 0)" '1 1 2'
}

test_zone_for_both_directions() {
	local zones
	tenants 'iifname "c1" ct zone set 1' 'iifname "d1" ct zone set 2' \
		'iifname "s1" ip daddr 10.0.2.101 ct zone set 1
		iifname "s1" ip daddr 10.0.2.102 ct zone set 2'
	two_tenants 'a zone for both directions' 1 2 1 2
	check 'a flow with both directions in a zone counts once' \
		is "$(flows_in 1) $(flows_in 2)" '1 1'
}

test_zone_by_iptables() {
	local zones
	tenants '' ''
	in_xtables r iptables -t raw -A PREROUTING -i c1 -j CT --zone-orig 11
	in_xtables r iptables -t raw -A PREROUTING -i d1 -j CT --zone-orig 12
	two_tenants 'iptables CT --zone-orig' 11 12 0 0
	in_xtables r iptables -t raw -F
	check 'iptables CT --zone-orig: each zone counts its flow, zone 0 both' \
		is "$(flows_in 11) $(flows_in 12) $(flows_in 0)" '1 1 2'
}

# More zones at once than the stock holds. Each gets its flow, from a later packet if need be.
test_each_of_a_hundred_zones_gets_its_flow() {
	local n=100 zone=100 sport=5000 i
	tenants '' ''
	for i in $(seq 0 $((n - 1))); do
		echo "add rule ip tenants raw iifname \"c1\"" \
			"udp sport $((sport + i)) ct original zone set $((zone + i))"
	done | in_ns r nft -f -
	in_ns c python3 - "$sport" "$n" <<-'END'
		import socket, sys, time
		first, count = map(int, sys.argv[1:])
		socks = []
		for i in range(count):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.bind(("0.0.0.0", first + i)); s.connect(("10.9.9.9", 7)); s.settimeout(10)
		    socks.append(s)
		for _ in range(3):
		    for s in socks:
		        s.send(b"x" * 16)
		        s.recv(64)
		    time.sleep(0.1)
	END
	check 'a hundred zones at once: each has a line' is "$(in_ns r awk -F'[ =]' \
		-v first="$zone" -v end=$((zone + n)) '$2 >= first && $2 < end && $4 == 1' \
		/proc/net/nf_zoneroute/zones | wc -l)" "$n"
	in_ns r conntrack -F >/dev/null 2>&1
	# The whole file is empty, because the earlier cases flushed conntrack too.
	check 'empty zones are freed' until_true 10 no_zones
	in_ns r nft flush chain ip tenants raw
}

# Depends on all cases: each flushed conntrack at its end.
test_nothing_is_left() {
	check 'no reference is left at the end' no_references
	check 'no flow allocation failed' is "$(stat_of flow_no_memory)" 0
}

run_cases
