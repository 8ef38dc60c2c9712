#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Policy routing: three uplinks, chosen by every selector that rules have. Each direction has its
# own route, a packet whose route differs takes it at once, and cached routes are served.
#
#   c (10.0.1.2) --- c1 r ---+--- s1 / t1 / u1 --- s   (uplinks A, B, C)
#   e0 ------------- e1 /         10.9.9.9 on its loopback; the same for IPv6
#
# The default is uplink A; tables 102 and 103 route by B and C.
#
# Group: changes
# Kernel: stock
# Long: quick

. lib/test.sh
plan 76

load
router
six_router
link s u0 10.0.5.2/24 r u1 10.0.5.1/24
link c e0 10.0.6.2/24 r e1 10.0.6.1/24
ip -n s addr add fd00:5::2/64 dev u0 nodad
ip -n r addr add fd00:5::1/64 dev u1 nodad
ip -n c addr add fd00:6::2/64 dev e0 nodad
ip -n r addr add fd00:6::1/64 dev e1 nodad
in_ns c sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.c0.rp_filter=0 \
	net.ipv4.conf.e0.rp_filter=0
ip -n r -b - <<-END
	route add 10.0.1.2 via 10.0.6.2 dev e1 table 104
	route add fd00:1::2 via fd00:6::2 dev e1 table 104
END

# route_by_uplinks: fills tables 102 and 103.
route_by_uplinks() {
	ip -n r -b - <<-END
		route replace $SERVER via 10.0.3.2 dev t1 table 102
		route replace $SERVER via 10.0.5.2 dev u1 table 103
		route replace $SERVER6 via fd00:3::2 dev t1 table 102
		route replace $SERVER6 via fd00:5::2 dev u1 table 103
	END
}
route_by_uplinks

for server in "$SERVER" "$SERVER6"; do
	for proto in udp tcp; do
		for port in 7 8; do
			background s python3 tools/traffic.py echo "$proto" "$server" "$port"
		done
	done
done
for file in udp udp6 tcp tcp6; do
	until_true 30 eval "in_ns s grep -q ':0007 ' /proc/net/$file &&
		in_ns s grep -q ':0008 ' /proc/net/$file"
done
for ns in c s; do
	in_ns "$ns" nft -f - <<-'END'
		table inet seen {
			set ways {
				typeof iifname . th dport . th sport
				flags dynamic
				counter
			}
			chain pre {
				type filter hook prerouting priority raw
				meta l4proto { tcp, udp } add @ways { iifname . th dport . th sport }
			}
		}
	END
done

# ways NS PORT: prints the devices by which packets to or from PORT arrived in NS, and resets them.
ways() {
	in_ns "$1" nft list set inet seen ways | tr ',{}' '\n' |
		sed -n "s/.*\"\([a-z0-9]*\)\" \. \([0-9]*\) \. \([0-9]*\) .*/\1 \2 \3/p" |
		awk -v port="$2" '$2 == port || $3 == port { print $1 }' | sort -u | paste -sd +
	in_ns "$1" nft flush set inet seen ways
}

# server_of FAMILY: prints the server's address.
server_of() {
	case $1 in
	4) echo "$SERVER" ;;
	6) echo "$SERVER6" ;;
	esac
}

# talk FAMILY PROTO SPORT COUNT [OPTION...]: sends requests; prints how many were answered.
talk() {
	traffic c ask "$2" "$(server_of "$1")" "$PORT" "$4" --sport "$3" "${@:5}" |
		sed 's/.*answered=//'
}

# goes FAMILY PROTO SPORT WAY [OPTION...]: a connection takes only the uplink WAY, mostly from the
# cache.
goes() {
	local family=$1 proto=$2 sport=$3 way=$4 n=10 hits answered
	ways s "$sport" >/dev/null
	hits=$(stat_of hit)
	answered=$(talk "$family" "$proto" "$sport" "$n" "${@:5}")
	hits=$(($(stat_of hit) - hits))
	is "$answered $(ways s "$sport") $([ "$hits" -ge 8 ] && echo served || echo "$hits hits")" \
		"$n $way served"
}

# selects SPORT NAME RULE WAY [OPTION...]: with the rule, packets take WAY; without the rule, uplink
# A. Each connection has its own source port, from SPORT on.
selects() {
	local sport=$1 name=$2 rule=$3 way=$4 family proto source words
	shift 4
	for family in 4 6; do
		for proto in udp tcp; do
			[[ $rule != *ipproto* ]] || [[ $rule = *"$proto"* ]] || continue
			source=10.0.1.2
			[ "$family" = 4 ] || source=fd00:1::2
			read -ra words <<<"${rule/SRC/$source}"
			ip -n r "-$family" rule add "${words[@]}" pref 50
			check "IPv$family $proto, by $name: with the rule" \
				goes "$family" "$proto" "$sport" "$way" "$@"
			ip -n r "-$family" rule del pref 50
			check "IPv$family $proto, by $name: without the rule" \
				goes "$family" "$proto" $((sport + 1)) s0 "$@"
			sport=$((sport + 2))
		done
	done
}

test_rules_select_by_source() {
	selects 4000 'source' 'from SRC lookup 102' t0
}

test_rules_select_by_dscp() {
	selects 4010 'DSCP' 'dscp 18 lookup 103' u0 --tos 0x48
}

test_rules_select_by_receiving_device() {
	selects 4020 'receiving device' 'iif c1 lookup 102' t0
}

test_rules_select_by_protocol() {
	selects 4030 'protocol, UDP' 'ipproto udp lookup 103' u0
	selects 4040 'protocol, TCP' 'ipproto tcp lookup 102' t0
}

test_rules_select_by_port() {
	selects 4050 'port' 'dport 7 lookup 103' u0
}

test_rules_select_single_connections_by_their_source_ports() {
	local family port
	for family in 4 6; do
		ip -n r "-$family" rule add ipproto udp sport 4200 lookup 102 pref 50
		ip -n r "-$family" rule add ipproto udp sport 4201 lookup 103 pref 51
		for port in 4200:t0 4201:u0 4202:s0; do
			check "IPv$family, three connections by their ports: ${port#*:}" \
				goes "$family" udp "${port%:*}" "${port#*:}"
		done
		ip -n r "-$family" rule del pref 50
		ip -n r "-$family" rule del pref 51
	done
}

# remark FAMILY SPORT MARK: changes the mark of a connection.
remark() {
	in_ns r conntrack -U -f "ipv$1" -p udp --orig-port-src "$2" --mark "$3" >/dev/null 2>&1
}

# The mark is set once, restored for each packet, and changed mid-flow.
test_rules_select_by_connection_mark() {
	local family sport
	in_ns r nft -f - <<-'END'
		table inet marks {
			chain pre {
				type filter hook prerouting priority mangle
				ct state new th sport 4300-4399 ct mark set 5
				meta mark set ct mark
			}
		}
	END
	for family in 4 6; do
		sport=$((4300 + family))
		ip -n r "-$family" rule add fwmark 5 lookup 102 pref 50
		ip -n r "-$family" rule add fwmark 6 lookup 103 pref 51
		check "IPv$family, by the connection's mark" goes "$family" udp "$sport" t0
		remark "$family" "$sport" 6
		ways s "$sport" >/dev/null
		talk "$family" udp "$sport" 1 >/dev/null
		check "IPv$family, the mark changes: the next packet takes the new path" \
			is "$(ways s "$sport")" u0
		check "IPv$family, the mark changed" goes "$family" udp "$sport" u0
		remark "$family" "$sport" 7
		talk "$family" udp "$sport" 1 >/dev/null
		check "IPv$family, a mark without a rule: the next packet takes uplink A" \
			is "$(ways s "$sport")" s0
		ip -n r "-$family" rule del pref 50
		ip -n r "-$family" rule del pref 51
	done
	in_ns r nft delete table inet marks
}

# are_cached FAMILY SPORT: succeeds if both directions of the next case have their live routes.
are_cached() {
	routes "ipv$1 " "sport=$2 " dir=orig iif=c1 oif=t1 state=live >/dev/null &&
		routes "ipv$1 " "dport=$2 " dir=reply iif=s1 oif=e1 state=live >/dev/null
}

# Requests from c1 go by B, answers from s1 by e1.
test_each_direction_has_its_own_route() {
	local family sport
	for family in 4 6; do
		sport=$((4400 + family))
		ip -n r "-$family" rule add iif c1 lookup 102 pref 50
		ip -n r "-$family" rule add from "$(server_of "$family")" lookup 104 pref 51
		ways c "$sport" >/dev/null
		check "IPv$family, a rule for each direction: requests" \
			goes "$family" udp "$sport" t0
		check "IPv$family, a rule for each direction: answers" is "$(ways c "$sport")" e0
		check "IPv$family, a rule for each direction: both are cached" \
			are_cached "$family" "$sport"
		ip -n r "-$family" rule del pref 50
		ip -n r "-$family" rule del pref 51
	done
}

# states FAMILY PORT: prints the state of each direction of a flow.
states() {
	routes "ipv$1 " "port=$2 " |
		sed 's/.*dir=\([a-z]*\) .*state=\([a-z]*\) .*/\1:\2/' | paste -sd ' '
}

# The first packet creates the flow, and its route is served from the third on. The threshold leaves
# room for one more miss.
test_one_way_flows_are_served() {
	local family sport=4500 n=20 hits
	for family in 4 6; do
		hits=$(gained hit traffic c ask udp "$(server_of "$family")" "$SINK" "$n" \
			--sport "$sport" --oneway --interval 0.01 2>/dev/null)
		check "IPv$family, one-way: served" [ "$hits" -ge $((n - 2 - 1)) ]
		check "IPv$family, one-way: one direction only" \
			is "$(states "$family" "$sport")" 'orig:live reply:none'
	done
}

# A connection stays on its nexthop, and moves to the other one if that is lost.
test_connections_stay_on_one_of_two_nexthops() {
	local first=4600 connections=16 requests=2 last family server gateways
	local sport way used mixed hits answered
	last=$((first + connections - 1))
	for family in 4 6; do
		server=$(server_of "$family")
		if [ "$family" = 4 ]; then
			gateways=(10.0.2.2 10.0.3.2)
		else
			gateways=(fd00:2::2 fd00:3::2)
		fi
		in_ns r sysctl -qw "net.ipv$family.fib_multipath_hash_policy=1"
		ip -n r "-$family" route replace "$server" \
			nexthop via "${gateways[0]}" dev s1 nexthop via "${gateways[1]}" dev t1
		used='' mixed=0
		for sport in $(seq "$first" "$last"); do
			ways s "$sport" >/dev/null
			talk "$family" udp "$sport" 6 >/dev/null
			way=$(ways s "$sport")
			case $way in
			s0 | t0) used+="$way " ;;
			*) mixed=$((mixed + 1)) ;;
			esac
		done
		check "IPv$family, two nexthops: each connection uses only one" is "$mixed" 0
		check "IPv$family, two nexthops: both are used" \
			eval '[[ $used = *s0* && $used = *t0* ]]'
		hits=$(stat_of hit)
		for sport in $(seq "$first" "$last"); do
			talk "$family" udp "$sport" "$requests" >/dev/null
		done
		check "IPv$family, two nexthops: served" \
			[ $(($(stat_of hit) - hits)) -ge $((connections * requests)) ]
		ways s "$first" >/dev/null
		ip -n r link set t1 down
		answered=0
		for sport in $(seq "$first" "$last"); do
			answered=$((answered + $(talk "$family" udp "$sport" "$requests")))
		done
		check "IPv$family, one nexthop down: all requests are answered" \
			is "$answered" $((connections * requests))
		ip -n r link set t1 up
		ip -n r "-$family" route replace "$server" via "${gateways[0]}" dev s1
		in_ns r sysctl -qw "net.ipv$family.fib_multipath_hash_policy=0"
	done
	# The routes by t1 went with it. IPv6 has its gateway only once the link is ready.
	until_true 10 route_by_uplinks
}

# Rules that select by a field missing in the key prevent caching, visibly; for IPv6 too.
test_rules_by_a_field_missing_in_the_key_prevent_caching() {
	local sport=4700 n=3 limited rules
	ip -n r -6 rule add uidrange 5-6 lookup main pref 50
	talk 6 udp "$sport" "$n" >/dev/null
	limited=$(stat_of miss_limited)
	rules=$(gained miss_rules talk 6 udp "$sport" "$n" --interval 0.01 2>/dev/null)
	limited=$(($(stat_of miss_limited) - limited))
	# A busy machine sends several packets in a jiffy: all but the first of them are limited.
	check 'IPv6, a rule that selects by user: a miss' \
		eval "[ $rules -ge 2 ] && [ $((rules + limited)) -ge $((2 * n - 1)) ]"
	check 'IPv6, a rule that selects by user: shown in routes' \
		eval 'routes "ipv6 " "sport=$sport " | grep -qE "last=(rules|limited) "'
	ip -n r -6 rule del pref 50
	check 'IPv6, without that rule' goes 6 udp "$sport" s0
}

test_no_reference_is_left() {
	forget_flows
	check 'no reference is left at the end' no_references
}

run_cases
