#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Devices other than veth between the client and the router: packets jump from them, and to them, with
# the same frames and counters as without jumps. Packets of a VLAN or a bridge port jump at the ingress
# of the device above.
#
# Group: jump
# Kernel: stock
# Long: stock

. lib/test.sh
. lib/exact.sh

COUNT=40
LEVELS=(2)
KINDS=(vlan bridge ipip)
# Tunnels carry no IPv6 here, and are too narrow for a TCP packet of full size.
PLAYS=('4 tcp orig' '4 udp reply')
PLAYS6=('6 tcp reply')
if [ -n "${NFZR_LONG-}" ]; then
	COUNT=500
	LEVELS=(1 2)
	KINDS+=(vlan-inline bond macvlan gretap vxlan)
	PLAYS+=('4 udp orig')
	PLAYS6+=('6 udp orig' '6 udp reply')
fi
# plays KIND: prints what is played with devices of a kind.
plays() {
	printf '%s\n' "${PLAYS[@]}"
	case $1 in
	vlan* | bridge | bond | macvlan) printf '%s\n' "${PLAYS6[@]}" ;;
	esac
}
COMPARED=$(for kind in "${KINDS[@]}"; do plays "$kind"; done | wc -l)
plan $((COMPARED * ${#LEVELS[@]} * 5 + 3))

# The notes of packets that stay are per CPU.
taskset -pc 0 $$ >/dev/null
load
exact_router
CLIENT=10.5.0.2 GATEWAY=10.5.0.1 CLIENT6=fd00:5::2 GATEWAY6=fd00:5::1
nat none
modprobe -a 8021q bridge bonding macvlan ip_gre vxlan ipip

# make KIND: connects c and r by devices of a kind above c0 and c1.
make() {
	C0=c0 C1=k
	case $1 in
	bridge | bond | macvlan) ;;
	*) C0=k ;;
	esac
	case $1 in
	vlan*)
		ip -n c link add link c0 name k type vlan id 5
		ip -n r link add link c1 name k type vlan id 5
		;;
	bridge)
		ip -n r link add k type bridge
		ip -n r link set c1 master k
		;;
	bond)
		ip -n r link add k type bond mode active-backup
		ip -n r link set c1 down
		ip -n r link set c1 master k
		;;
	macvlan) ip -n r link add link c1 name k type macvlan ;;
	vxlan)
		ip -n c link add k type vxlan id 5 local 10.0.1.2 remote 10.0.1.1 dstport 4789
		ip -n r link add k type vxlan id 5 local 10.0.1.1 remote 10.0.1.2 dstport 4789
		;;
	*)
		ip -n c link add k type "$1" local 10.0.1.2 remote 10.0.1.1
		ip -n r link add k type "$1" local 10.0.1.1 remote 10.0.1.2
		;;
	esac
	configure c "$C0" "$CLIENT" "$CLIENT6"
	configure r "$C1" "$GATEWAY" "$GATEWAY6"
	lasting_client
}

# configure NS DEV ADDR ADDR6
configure() {
	in_ns "$1" sysctl -qw "net.ipv6.conf.$2.router_solicitations=0"
	ip -n "$1" link set "$2" up
	ip -n "$1" addr add "$3/24" dev "$2"
	ip -n "$1" addr add "$4/64" dev "$2" nodad
}

unmake() {
	ip -n r link del k
	[ "$C0" != k ] || ip -n c link del k
	ip -n r link set c1 up
	ip -n c addr flush dev c0 to 10.5.0.0/24
	ip -n c addr flush dev c0 to fd00:5::/64
}

# tags NS DEV on|off: whether a device adds and takes VLAN tags itself.
tags() {
	in_ns "$1" ethtool -K "$2" txvlan "$3" rxvlan "$3" >/dev/null
}

test_all_kinds() {
	local kind play plays family proto direction
	for kind in "${KINDS[@]}"; do
		if [ "$kind" = vlan-inline ]; then
			tags c c0 off
			tags r c1 off
		fi
		make "$kind"
		plays "$kind" >/tmp/plays
		mapfile -t plays </tmp/plays
		for play in "${plays[@]}"; do
			read -r family proto direction <<<"$play"
			compare "$kind, " "$family" none "$proto" "$direction"
		done
		unmake
		if [ "$kind" = vlan-inline ]; then
			tags c c0 on
			tags r c1 on
		fi
	done
}

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 2
}

# both_jump: succeeds if an exchange jumps at ingress in both directions.
both_jump() {
	[ "$(gained jumped_at_ingress talk 2>/dev/null)" = 2 ]
}

# A packet that stays keeps later ones between its addresses from jumping, but not those of the device
# below: there it only came by.
test_packets_of_a_vlan_are_not_those_of_the_device_below() {
	SPORT=$((SPORT + 1))
	make vlan
	serve udp
	# Requests come without a tag, answers go with one.
	ip -n c route replace "$SERVER" via 10.0.1.1 src "$CLIENT"
	in_ns r sysctl -qw net.nf_zoneroute.jump=2
	check 'requests without a tag jump at ingress' until_true 20 both_jump
	in_ns c python3 tools/traffic.py frame k "$(mac_of r k)" "$CLIENT" "$SERVER" --sport 4999 \
		--dport "$SINK" >/dev/null
	check 'they do after one with a tag that stayed' both_jump
	unmake
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
