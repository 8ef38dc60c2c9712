#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every kind of NAT: both directions are served, and packets arrive translated.
#
# Group: fitness
# Kernel: stock
# Long: quick

. lib/test.sh
plan 18

N=10

# served NAME COMMAND...: the command's N requests are answered, and all packets are hits but the
# first two of the original direction and the first one of the reply direction.
served() {
	local name=$1 hits answered
	shift
	hits=$(stat_of hit)
	answered=$("$@")
	check "$name: answered" is "$answered" "$N"
	check "$name: both directions are served" is $(($(stat_of hit) - hits)) $((N - 2 + N - 1))
}

# warm SPORT: makes a flow that is served from the cache in both directions.
warm() {
	ask c udp "$N" --sport "$1" >/dev/null
	[ "$(gained hit ask c udp 1 --sport "$1" 2>/dev/null)" = 2 ] ||
		echo "# the flow from port $1 is not being served" "$((FAILED = 1))"
}

# source_seen PORT: prints the source address that the server saw, from conntrack in s.
source_seen() {
	in_ns s conntrack -L -p udp --orig-port-src "$1" 2>/dev/null | tr ' ' '\n' |
		sed -n 's/^src=//p' | head -n 1
}

# ask_at ADDR PORT OPTION...: sends N requests to an address other than the server's own; prints how
# many were answered.
ask_at() {
	traffic c ask udp "$1" "$2" "$N" "${@:3}" | sed 's/.*answered=//'
}

load
router
serve udp

in_ns s nft add rule ip count pre ct state new counter
in_ns r nft -f - <<-'END'
	table ip nat {
		chain post {
			type nat hook postrouting priority srcnat
			udp sport { 4000, 4004, 4005 } snat to 10.0.2.50
			udp sport { 4001, 4006 } oifname "s1" masquerade
		}
		chain pre {
			type nat hook prerouting priority dstnat
			ip daddr 10.8.8.8 dnat to 10.9.9.9
			ip daddr 10.8.8.7 udp dport 70 dnat to 10.9.9.9:7
		}
	}
END
ip -n r addr add 10.0.2.50/32 dev s1

test_snat_is_served() {
	local sport=4000
	served SNAT ask c udp "$N" --sport "$sport"
	check 'SNAT: the server sees the new source' is "$(source_seen "$sport")" 10.0.2.50
}

test_masquerade_is_served() {
	local sport=4001
	served masquerade ask c udp "$N" --sport "$sport"
	check 'masquerade: the server sees the device address' is "$(source_seen "$sport")" 10.0.2.1
}

test_dnat_is_served() {
	local sport=4002
	served DNAT ask_at 10.8.8.8 "$PORT" --sport "$sport"
	check 'DNAT: the server sees the client' is "$(source_seen "$sport")" 10.0.1.2
}

test_dnat_of_address_and_port_is_served() {
	local sport=4003 dst src
	served 'DNAT of address and port' ask_at 10.8.8.7 70 --sport "$sport"
	dst=$(routes "sport=$sport" dir=orig | field dst || true)
	src=$(routes "dport=$sport" dir=reply | field src || true)
	check 'DNAT: the routes file shows the tuples of conntrack' is "$dst $src" "10.8.8.7 $SERVER"
}

test_snat_follows_a_route_change() {
	local sport=4004 before
	warm "$sport"
	ip -n r route replace "$SERVER" via 10.0.3.2
	before=$(arrived by_b)
	check 'SNAT: the route changes mid-flow: answered' is "$(ask c udp "$N" --sport "$sport")" "$N"
	check 'SNAT: the route changes mid-flow: all packets take the new path' \
		is $(($(arrived by_b) - before)) "$N"
	ip -n r route replace "$SERVER" via 10.0.2.2
}

test_snat_follows_a_change_of_the_reply_route() {
	local sport=4005 n=3
	warm "$sport"
	ip -n r route add 10.0.1.2/32 via 10.0.4.2 dev d1
	check 'the reply route changes mid-flow: no answer takes the old path' \
		is "$(ask c udp "$n" --sport "$sport" --timeout 0.2)" 0
	ip -n r route del 10.0.1.2/32 via 10.0.4.2 dev d1
	check 'the reply route is restored: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
}

# When the masquerading address is deleted, conntrack ends the flow, and the module must not keep
# it.
test_flow_ends_with_its_masquerade_address() {
	local sport=4006
	warm "$sport"
	ip -n r route add "$SERVER" via 10.0.3.2 metric 50
	ip -n r addr del 10.0.2.1/24 dev s1
	check 'masquerade: the flow ends when its address is deleted' until_true 5 \
		eval '! routes "sport=$sport"'
	ip -n r addr add 10.0.2.1/24 dev s1
	ip -n r route replace "$SERVER" via 10.0.2.2
	ip -n r route del "$SERVER" via 10.0.3.2 metric 50
}

test_no_reference_is_left() {
	forget_flows
	check 'no reference is left at the end' no_references
}

run_cases
