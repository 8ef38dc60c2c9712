#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# NAT of every kind: both directions are served, and what arrives is what NAT made of it.

. ./lib.sh
plan 18

load
router
serve udp

# served NAME COMMAND...: the command's 10 requests are answered, and hits are all but the first.
served() {
	local name=$1 hits answered
	shift
	hits=$(stat_of hit)
	answered=$("$@")
	check "$name: answered" is "$answered" 10
	check "$name: both directions are served" is $(($(stat_of hit) - hits)) 17
}

# source_seen: the source address of the last packet that came to the server, from conntrack in s.
source_seen() {
	in_ns s conntrack -L -p udp --orig-port-src "$1" 2>/dev/null | tr ' ' '\n' |
		sed -n 's/^src=//p' | head -n 1
}

in_ns s nft add rule ip count pre ct state new counter
in_ns r nft -f - <<-'END'
	table ip nat {
		chain post {
			type nat hook postrouting priority srcnat
			udp sport 4000 snat to 10.0.2.50
			udp sport 4001 oifname "s1" masquerade
		}
		chain pre {
			type nat hook prerouting priority dstnat
			ip daddr 10.8.8.8 dnat to 10.9.9.9
			ip daddr 10.8.8.7 udp dport 70 dnat to 10.9.9.9:7
		}
	}
END
ip -n r addr add 10.0.2.50/32 dev s1

served SNAT ask c udp 10 --sport 4000
check 'SNAT: the server sees the new source' is "$(source_seen 4000)" 10.0.2.50
served masquerade ask c udp 10 --sport 4001
check 'masquerade: the server sees the device address' is "$(source_seen 4001)" 10.0.2.1

to_old() {
	traffic c ask udp "$@" | sed 's/.*answered=//'
}
served DNAT to_old 10.8.8.8 "$PORT" 10 --sport 4002
check 'DNAT: the server sees the client' is "$(source_seen 4002)" 10.0.1.2
served 'DNAT of address and port' to_old 10.8.8.7 70 10 --sport 4003
check 'DNAT: routes shows the connection as conntrack does' \
	is "$(routes sport=4003 dir=orig | field dst) $(routes dport=4003 dir=reply | field src)" \
	'10.8.8.7 10.9.9.9'

# NAT and a route that changes, in either direction.
ip -n r route replace "$SERVER" via 10.0.3.2
before=$(arrived by_b)
check 'SNAT: the route changes mid-flow: answered' is "$(ask c udp 10 --sport 4000)" 10
check 'SNAT: the route changes mid-flow: every packet goes the new way' is $(($(arrived by_b) - before)) 10
ip -n r route replace "$SERVER" via 10.0.2.2
ip -n r route add 10.0.1.2/32 via 10.0.4.2 dev d1
check 'the way back changes mid-flow: not one answer comes by the old one' \
	is "$(ask c udp 3 --sport 4000 --timeout 0.2)" 0
ip -n r route del 10.0.1.2/32 via 10.0.4.2 dev d1
check 'the way back is as before: answered' is "$(ask c udp 3 --sport 4000)" 3

# The masquerading address goes: conntrack ends the flow, and we must not keep it up.
ip -n r route add "$SERVER" via 10.0.3.2 metric 50
ip -n r addr del 10.0.2.1/24 dev s1
check 'masquerade: the flow ends with its address' until_true 5 \
	eval '! routes sport=4001'
forget_flows
check 'and nothing is held in the end' no_references
