#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every kind of NAT: both directions are served, and packets arrive translated.
#
# Group: fitness
# Kernel: stock quick

. lib/test.sh
plan 18

load
router
serve udp

# served NAME COMMAND...: the command's 10 requests are answered, and all packets are hits but the
# first ones.
served() {
	local name=$1 hits answered
	shift
	hits=$(stat_of hit)
	answered=$("$@")
	check "$name: answered" is "$answered" 10
	check "$name: both directions are served" is $(($(stat_of hit) - hits)) 17
}

# source_seen PORT: prints the source address that the server saw, from conntrack in s.
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
check 'DNAT: the routes file shows the tuples of conntrack' \
	is "$(routes sport=4003 dir=orig | field dst) $(routes dport=4003 dir=reply | field src)" \
	'10.8.8.7 10.9.9.9'

# NAT and a route change, in each direction.
ip -n r route replace "$SERVER" via 10.0.3.2
before=$(arrived by_b)
check 'SNAT: the route changes mid-flow: answered' is "$(ask c udp 10 --sport 4000)" 10
check 'SNAT: the route changes mid-flow: all packets take the new path' is $(($(arrived by_b) - before)) 10
ip -n r route replace "$SERVER" via 10.0.2.2
ip -n r route add 10.0.1.2/32 via 10.0.4.2 dev d1
check 'the reply route changes mid-flow: no answer takes the old path' \
	is "$(ask c udp 3 --sport 4000 --timeout 0.2)" 0
ip -n r route del 10.0.1.2/32 via 10.0.4.2 dev d1
check 'the reply route is restored: answered' is "$(ask c udp 3 --sport 4000)" 3

# The masquerading address is deleted: conntrack ends the flow, and the module must not keep it.
ip -n r route add "$SERVER" via 10.0.3.2 metric 50
ip -n r addr del 10.0.2.1/24 dev s1
check 'masquerade: the flow ends when its address is deleted' until_true 5 \
	eval '! routes sport=4001'
forget_flows
check 'no reference is left at the end' no_references
