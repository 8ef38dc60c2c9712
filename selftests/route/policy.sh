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
# Kernel: stock quick

. lib/test.sh
plan 75

load
router
six_router
link s u0 10.0.5.2/24 r u1 10.0.5.1/24
link c e0 10.0.6.2/24 r e1 10.0.6.1/24
ip -n s addr add fd00:5::2/64 dev u0 nodad
ip -n r addr add fd00:5::1/64 dev u1 nodad
ip -n c addr add fd00:6::2/64 dev e0 nodad
ip -n r addr add fd00:6::1/64 dev e1 nodad
in_ns c sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.c0.rp_filter=0 net.ipv4.conf.e0.rp_filter=0
ip -n r -b - <<-END
	route add $SERVER via 10.0.3.2 dev t1 table 102
	route add $SERVER via 10.0.5.2 dev u1 table 103
	route add $SERVER6 via fd00:3::2 dev t1 table 102
	route add $SERVER6 via fd00:5::2 dev u1 table 103
	route add 10.0.1.2 via 10.0.6.2 dev e1 table 104
	route add fd00:1::2 via fd00:6::2 dev e1 table 104
END
for server in "$SERVER" "$SERVER6"; do
	for proto in udp tcp; do
		for port in 7 8; do
			background s python3 tools/traffic.py echo "$proto" "$server" "$port"
		done
	done
done
for file in udp udp6 tcp tcp6; do
	until_true 30 eval "in_ns s grep -q ':0007 ' /proc/net/$file && in_ns s grep -q ':0008 ' /proc/net/$file"
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

# talk FAMILY PROTO COUNT [OPTION...]: requests from port FROM to port TO; prints the answers'
# number.
talk() {
	local to=$SERVER
	[ "$1" = 4 ] || to=$SERVER6
	traffic c ask "$2" "$to" "$TO" "$3" --sport "$FROM" "${@:4}" | sed 's/.*answered=//'
}

# goes FAMILY PROTO WAY [OPTION...]: a connection takes only the uplink WAY, mostly from the cache.
goes() {
	local family=$1 proto=$2 way=$3 hits answered
	ways s "$FROM" >/dev/null
	hits=$(stat_of hit)
	answered=$(talk "$family" "$proto" 10 "${@:4}")
	hits=$(($(stat_of hit) - hits))
	is "$answered $(ways s "$FROM") $([ "$hits" -ge 8 ] && echo served || echo "$hits hits")" "10 $way served"
}

# selects NAME RULE WAY OPTION...: with the rule, packets take WAY; without the rule, uplink A.
FROM=4000 TO=7
selects() {
	local name=$1 rule=$2 way=$3 family proto source words
	shift 3
	for family in 4 6; do
		for proto in udp tcp; do
			[[ $rule != *ipproto* ]] || [[ $rule = *"$proto"* ]] || continue
			source=10.0.1.2
			[ "$family" = 4 ] || source=fd00:1::2
			read -ra words <<<"${rule/SRC/$source}"
			ip -n r "-$family" rule add "${words[@]}" pref 50
			FROM=$((FROM + 1))
			check "IPv$family $proto, by $name: with the rule" goes "$family" "$proto" "$way" "$@"
			ip -n r "-$family" rule del pref 50
			FROM=$((FROM + 1))
			check "IPv$family $proto, by $name: without the rule" goes "$family" "$proto" s0 "$@"
		done
	done
}
selects 'source' 'from SRC lookup 102' t0
selects 'DSCP' 'dscp 18 lookup 103' u0 --tos 0x48
selects 'receiving device' 'iif c1 lookup 102' t0
selects 'protocol, UDP' 'ipproto udp lookup 103' u0
selects 'protocol, TCP' 'ipproto tcp lookup 102' t0
selects 'port' 'dport 7 lookup 103' u0

# Rules that select single connections by their source ports.
for family in 4 6; do
	ip -n r "-$family" rule add ipproto udp sport 4200 lookup 102 pref 50
	ip -n r "-$family" rule add ipproto udp sport 4201 lookup 103 pref 51
	for port in 4200:t0 4201:u0 4202:s0; do
		FROM=${port%:*}
		check "IPv$family, three connections by their ports: ${port#*:}" goes "$family" udp "${port#*:}"
	done
	ip -n r "-$family" rule del pref 50
	ip -n r "-$family" rule del pref 51
done

# A connection mark: set once, restored for each packet, and changed mid-flow.
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
	FROM=$((4296 + family))
	ip -n r "-$family" rule add fwmark 5 lookup 102 pref 50
	ip -n r "-$family" rule add fwmark 6 lookup 103 pref 51
	check "IPv$family, by the connection's mark" goes "$family" udp t0
	in_ns r conntrack -U -f "ipv$family" -p udp --orig-port-src "$FROM" --mark 6 >/dev/null 2>&1
	ways s "$FROM" >/dev/null
	talk "$family" udp 1 >/dev/null
	check "IPv$family, the mark changes: the next packet takes the new path" is "$(ways s "$FROM")" u0
	check "IPv$family, the mark changed" goes "$family" udp u0
	in_ns r conntrack -U -f "ipv$family" -p udp --orig-port-src "$FROM" --mark 7 >/dev/null 2>&1
	talk "$family" udp 1 >/dev/null
	check "IPv$family, a mark without a rule: the next packet takes uplink A" is "$(ways s "$FROM")" s0
	ip -n r "-$family" rule del pref 50
	ip -n r "-$family" rule del pref 51
done
in_ns r nft delete table inet marks

# Each direction has its own route: requests from c1 by B, answers from s1 by e1.
for family in 4 6; do
	server=$SERVER
	[ "$family" = 4 ] || server=$SERVER6
	ip -n r "-$family" rule add iif c1 lookup 102 pref 50
	ip -n r "-$family" rule add from "$server" lookup 104 pref 51
	FROM=$((4400 + family))
	ways c "$FROM" >/dev/null
	check "IPv$family, a rule for each direction: requests" goes "$family" udp t0
	check "IPv$family, a rule for each direction: answers" is "$(ways c "$FROM")" e0
	check "IPv$family, a rule for each direction: both are cached" \
		eval "routes 'ipv$family ' 'sport=$FROM ' dir=orig iif=c1 oif=t1 state=live >/dev/null &&
			routes 'ipv$family ' 'dport=$FROM ' dir=reply iif=s1 oif=e1 state=live >/dev/null"
	ip -n r "-$family" rule del pref 50
	ip -n r "-$family" rule del pref 51
done

# One-way flows: the first packet creates the flow, and its route is served from the third on.
for family in 4 6; do
	server=$SERVER
	[ "$family" = 4 ] || server=$SERVER6
	check "IPv$family, one-way: served" [ "$(gained hit traffic c ask udp "$server" 11 20 --sport 4500 --oneway --interval 0.01 2>/dev/null)" -ge 17 ]
	check "IPv$family, one-way: one direction only" \
		is "$(routes "ipv$family " 'port=4500 ' | sed 's/.*dir=\([a-z]*\) .*state=\([a-z]*\) .*/\1:\2/' | paste -sd ' ')" 'orig:live reply:none'
done

# Several nexthops: a connection stays on its nexthop, and moves to the other one if that is lost.
for family in 4 6; do
	server=$SERVER
	[ "$family" = 4 ] || server=$SERVER6
	if [ "$family" = 4 ]; then
		gateways=(10.0.2.2 10.0.3.2)
	else
		gateways=(fd00:2::2 fd00:3::2)
	fi
	in_ns r sysctl -qw "net.ipv$family.fib_multipath_hash_policy=1"
	ip -n r "-$family" route replace "$server" nexthop via "${gateways[0]}" dev s1 nexthop via "${gateways[1]}" dev t1
	used='' mixed=0
	for FROM in $(seq 4600 4615); do
		ways s "$FROM" >/dev/null
		talk "$family" udp 6 >/dev/null
		way=$(ways s "$FROM")
		case $way in
		s0 | t0) used+="$way " ;;
		*) mixed=$((mixed + 1)) ;;
		esac
	done
	check "IPv$family, two nexthops: each connection uses only one" is "$mixed" 0
	check "IPv$family, two nexthops: both are used" eval '[[ $used = *s0* && $used = *t0* ]]'
	hits=$(stat_of hit)
	for FROM in $(seq 4600 4615); do
		talk "$family" udp 2 >/dev/null
	done
	check "IPv$family, two nexthops: served" [ $(($(stat_of hit) - hits)) -ge 32 ]
	ways s 4600 >/dev/null
	ip -n r link set t1 down
	answered=0
	for FROM in $(seq 4600 4615); do
		answered=$((answered + $(talk "$family" udp 2)))
	done
	check "IPv$family, one nexthop down: all requests are answered" is "$answered" 32
	ip -n r link set t1 up
	ip -n r "-$family" route replace "$server" via "${gateways[0]}" dev s1
done

# Rules that select by a field missing in the key prevent caching, visibly; for IPv6 too.
ip -n r -6 rule add uidrange 5-6 lookup main pref 50
FROM=4700
talk 6 udp 3 >/dev/null
check 'IPv6, a rule that selects by user: a miss, shown in routes' eval \
	'[ "$(gained miss_rules talk 6 udp 3 --interval 0.01 2>/dev/null)" -ge 5 ] && routes "ipv6 " "sport=4700 " last=rules >/dev/null'
ip -n r -6 rule del pref 50
check 'IPv6, without that rule' goes 6 udp s0
forget_flows
check 'no reference is left at the end' no_references
