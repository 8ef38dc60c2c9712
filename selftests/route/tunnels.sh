#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# IPv4 packets into and out of a tunnel are served. For each packet that a tunnel encapsulates, it
# tells the kernel its own MTU, so that the route to each destination has a learned MTU.
#
# Group: basics
# Kernel: stock

. lib/test.sh
plan 18

load
router
six_router
serve udp
SPORT=4000

# answered N: makes N exchanges by the next case's tunnel.
answered() {
	ask c udp "$1" --sport "$SPORT" --timeout 10
}

# through NAME TYPE OPTION...: r and s have a tunnel, and use it for the server's packets in both
# directions. The options have R and S for the ends.
through() {
	local name=$1 ns ends rest n=10
	shift
	SPORT=$((SPORT + 1))
	for ns in r s; do
		rest=${*//R/$([ "$ns" = r ] && echo local || echo remote)}
		rest=${rest//S/$([ "$ns" = r ] && echo remote || echo local)}
		read -ra ends <<<"$rest"
		ip -n "$ns" link add tun type "${ends[@]}"
		ip -n "$ns" link set tun up
	done
	ip -n r route replace "$SERVER" dev tun
	ip -n s route add 10.0.1.0/24 dev tun
	check "$name: answered" until_true 10 eval '[ "$(answered 1)" = 1 ]'
	answered 3 >/dev/null
	check "$name: the kernel has the tunnel's MTU for the destination" \
		eval 'ip -n r route get "$SERVER" from 10.0.1.2 iif c1 | grep -q " mtu "'
	check "$name: served in both directions" \
		is "$(gained hit answered "$n" 2>/dev/null)" $((2 * n))
	check "$name: the routes go by the tunnel" is \
		"$(routes "port=$SPORT" dir=orig | field oif) $(routes "port=$SPORT" dir=reply | field iif)" \
		'tun tun'
	in_ns r sysctl -qw net.ipv4.ip_forward_use_pmtu=1
	check "$name, learned MTUs count: served in both directions" until_true 10 eval \
		'[ "$(gained hit answered 10 2>/dev/null)" = 20 ]'
	in_ns r sysctl -qw net.ipv4.ip_forward_use_pmtu=0
	ip -n r link del tun
	ip -n s link del tun
	ip -n r route add "$SERVER" via 10.0.2.2
	check "$name, deleted: answered by the other way" until_true 10 eval '[ "$(answered 1)" = 1 ]'
}

test_ipip_is_served() {
	modprobe ipip
	through IPIP ipip R 10.0.2.1 S 10.0.2.2
}

test_gre_is_served() {
	modprobe ip_gre
	through GRE gre R 10.0.2.1 S 10.0.2.2
}

test_ipv4_in_ipv6_is_served() {
	modprobe ip6_tunnel
	through '4in6' ip6tnl mode ipip6 R fd00:2::1 S fd00:2::2
}

run_cases
