#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# IPv6 routes: which packets are served, by which key, and which must not be: each of those is
# counted with its own reason and takes the kernel's path. Behaviour shared with IPv4 is tested
# elsewhere.
#
# Group: changes
# Kernel: stock quick

. lib/test.sh
plan 58

load
router
six_router
serve6 udp
serve6 tcp

in_ns s nft -f - <<-'END'
	table ip6 seen {
		counter hops {}
		counter any {}
		chain pre {
			type filter hook prerouting priority raw
			udp dport 7 counter name any
			udp dport 7 ip6 hoplimit 63 counter name hops
		}
	}
END

# ask6 SPORT COUNT [OPTION...]: UDP requests to the server; prints how many were answered.
ask6() {
	traffic c ask udp "$SERVER6" "$PORT" "$2" --sport "$1" "${@:3}" | sed 's/.*answered=//'
}

# warm SPORT: sends until the flow from SPORT is served.
warm() {
	ask6 "$1" 5 >/dev/null
	[ "$(gained hit ask6 "$1" 1 2>/dev/null)" = 2 ] ||
		echo "# the flow from port $1 is not being served" "$((FAILED = 1))"
}

# shown_as SPORT WORD...: the original direction's line contains these words.
shown_as() {
	routes 'ipv6 ' "sport=$1 " dir=orig "${@:2}" >/dev/null
}

# frame6 [OPTION...]: sends handmade packets from c for r to forward.
frame6() {
	in_ns c python3 - "$(mac_of r c1)" "$@" <<-'END'
		import argparse, socket, struct, time
		parser = argparse.ArgumentParser()
		parser.add_argument("mac")
		parser.add_argument("--sport", type=int)
		parser.add_argument("--src", default="fd00:1::2")
		parser.add_argument("--dst", default="fd00:9::9")
		parser.add_argument("--label", type=lambda text: int(text, 0), default=0)
		parser.add_argument("--hops", type=int, default=64)
		parser.add_argument("--options", action="store_true", help="destination options")
		parser.add_argument("--fragments", action="store_true")
		parser.add_argument("--count", type=int, default=1)
		args = parser.parse_args()
		src, dst = (socket.inet_pton(socket.AF_INET6, addr)
		            for addr in (args.src, args.dst))

		def checksum(data):
		    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
		    while total > 0xffff:
		        total = (total & 0xffff) + (total >> 16)
		    return ~total & 0xffff or 0xffff

		data = bytes(64)
		udp = struct.pack("!HHHH", args.sport, 7, 8 + len(data), 0) + data
		pseudo = src + dst + struct.pack("!II", len(udp), 17)
		udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp)) + udp[8:]

		def packet(header, payload):
		    return struct.pack("!IHBB", 6 << 28 | args.label, len(payload), header,
		                       args.hops) + src + dst + payload

		packets = [packet(17, udp)]
		if args.options:
		    packets = [packet(60, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + udp)]
		if args.fragments:
		    packets = [packet(44, struct.pack("!BBHI", 17, 0, 1, 77) + udp[:40]),
		               packet(44, struct.pack("!BBHI", 17, 0, 40, 77) + udp[40:])]
		sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
		sock.bind(("c0", 0))
		to = bytes.fromhex(args.mac.replace(":", ""))
		for _ in range(args.count):
		    for one in packets:
		        sock.send(to + sock.getsockname()[4] + b"\x86\xdd" + one)
		    time.sleep(0.01)
	END
}

# seen COUNTER COMMAND...: prints how many packets of the command COUNTER counted.
seen() {
	local name=$1
	shift
	in_ns s nft reset counter ip6 seen "$name" >/dev/null
	"$@" >/dev/null 2>&1
	in_ns s nft list counter ip6 seen "$name" | sed -n 's/.*packets \([0-9]*\) .*/\1/p'
}

test_udp_is_served() {
	local sport=4000 n=10
	check 'UDP: answered' is "$(ask6 "$sport" "$n")" "$n"
	check 'UDP: served' is "$(gained hit ask6 "$sport" "$n" 2>/dev/null)" $((2 * n))
	check 'the line shows the path' shown_as "$sport" \
		'iif=c1 mark=0x0 dscp=any flowlabel=0x' 'oif=s1 via=fd00:2::2 state=live'
}

test_tcp_is_served() {
	local n=20 hits
	hits=$(gained hit traffic c ask tcp "$SERVER6" "$PORT" "$n" --sport 4001 2>/dev/null)
	check 'TCP: served' [ "$hits" -ge $((2 * n)) ]
}

test_hop_limits_are_decremented() {
	local sport=4002 n=5 afterwards=3
	warm "$sport"
	check 'each hop limit is decremented by one' is "$(seen hops ask6 "$sport" "$n")" "$n"
	check 'an expired hop limit: no packet' \
		is "$(seen any frame6 --sport "$sport" --hops 1 --count 3)" 0
	check 'afterwards packets are served again' \
		is "$(gained hit ask6 "$sport" "$afterwards" 2>/dev/null)" $((2 * afterwards))
}

test_flow_label_is_part_of_the_key() {
	local sport=4003 n=3 label=0x12345 before
	warm "$sport"
	before=$(stat_of miss_flowlabel)
	check 'another flow label: arrives' \
		is "$(seen any frame6 --sport "$sport" --label "$label")" 1
	check 'another flow label: miss_flowlabel' is $(($(stat_of miss_flowlabel) - before)) 1
	check 'that flow label again: served in both directions' \
		is "$(gained hit frame6 --sport "$sport" --label "$label" --count "$n")" $((2 * n))
	check 'its line shows that flow label' shown_as "$sport" "flowlabel=$label"
}

test_dscp_is_part_of_the_key_once_there_is_a_rule_for_it() {
	local sport=4004 n=3
	warm "$sport"
	check 'another DSCP, no rule for it: served' \
		is "$(gained hit ask6 "$sport" "$n" --tos 0x48 2>/dev/null)" $((2 * n))
	ip -n r -6 rule add dscp 18 lookup main
	warm "$sport"
	check 'another DSCP, a rule for it: miss_dscp' \
		[ "$(gained miss_dscp ask6 "$sport" 1 --tos 0x48 2>/dev/null)" -ge 1 ]
	ip -n r -6 rule del dscp 18 lookup main
}

test_ecn_bits_are_not_part_of_the_key() {
	local sport=4005 before
	warm "$sport"
	before=$(stat_of miss_dscp)
	ask6 "$sport" 1 --tos 1 >/dev/null
	check 'the ECN bits do not matter' is $(($(stat_of miss_dscp) - before)) 0
}

# Misses because of the packet.

test_extension_headers_are_a_miss() {
	local sport=4006 n=3
	warm "$sport"
	check 'an extension header: a miss' \
		misses options "$n" frame6 --sport "$sport" --options --count "$n"
	check 'an extension header: arrives' \
		is "$(seen any frame6 --sport "$sport" --options --count "$n")" "$n"
}

test_fragments_are_a_miss() {
	local sport=4007 n=3
	warm "$sport"
	check 'fragments: a miss' \
		misses fragment "$n" frame6 --sport "$sport" --fragments --count "$n"
	check 'fragments: arrive' \
		is "$(seen any frame6 --sport "$sport" --fragments --count "$n")" "$n"
}

test_icmp_errors_are_a_miss() {
	local n=3
	check 'an ICMP error about the flow: a miss' misses related "$n" \
		traffic c ask udp "$SERVER6" 9 "$n" --sport 4008 --timeout 0.2
}

test_packets_rewritten_behind_conntrack_are_a_miss() {
	local sport=4009 n=3
	warm "$sport"
	in_ns r nft -f - <<-END
		table ip6 rewrite {
			chain pre {
				type filter hook prerouting priority 0
				udp sport $sport ip6 saddr set fd00:1::77
			}
		}
	END
	check 'a source rewritten behind conntrack: a miss' \
		misses rewritten 1 frame6 --sport "$sport"
	in_ns r nft flush chain ip6 rewrite pre
	in_ns r nft add rule ip6 rewrite pre udp sport "$sport" udp dport set 8
	check 'a rewritten port: a miss' misses rewritten 1 frame6 --sport "$sport"
	in_ns r nft delete table ip6 rewrite
	check 'served before and after' \
		is "$(gained hit ask6 "$sport" "$n" 2>/dev/null)" $((2 * n))
}

test_packets_assigned_to_a_socket_are_a_miss() {
	local sport=4010 n=3
	warm "$sport"
	modprobe nft_tproxy
	background r python3 tools/traffic.py echo udp :: 9999 --transparent
	in_ns r nft -f - <<-END
		table ip6 divert {
			chain pre {
				type filter hook prerouting priority mangle
				udp sport $sport tproxy to :9999 accept
			}
		}
	END
	until_true 5 in_ns r grep -q ':270F ' /proc/net/udp6
	check 'a packet assigned to a socket by TPROXY: a miss' \
		misses socket 1 frame6 --sport "$sport"
	in_ns r nft delete table ip6 divert
	check 'without TPROXY: served' is "$(gained hit ask6 "$sport" "$n" 2>/dev/null)" $((2 * n))
}

test_duplicated_packets_have_their_own_route() {
	local sport=4011 n=5 kept
	warm "$sport"
	in_ns r nft -f - <<-END
		table ip6 copies {
			chain copy {
				type filter hook prerouting priority mangle
				udp sport $sport dup to fd00:3::2 device "t1"
			}
		}
	END
	kept=$(($(stat_of staged) + $(stat_of renewed) + $(stat_of committed) + $(stat_of flow_new)))
	# The server also answers the copies: one request and two answers are served.
	check 'nft dup: the packets themselves are served' \
		is "$(gained hit ask6 "$sport" "$n" 2>/dev/null)" $((3 * n))
	check 'nft dup: all arrive, their copies by another path' \
		is "$(seen any ask6 "$sport" "$n")" $((2 * n))
	check 'nft dup: the copies create no flow and no route' \
		is $(($(stat_of staged) + $(stat_of renewed) + $(stat_of committed) + $(stat_of flow_new))) "$kept"
	in_ns r nft delete table ip6 copies
}

# NAT66.

# ask_nat SPORT COUNT: UDP requests to the address of the server before NAT; prints how many were
# answered.
ask_nat() {
	traffic c ask udp fd00:8::8 "$PORT" "$2" --sport "$1" | sed 's/.*answered=//'
}

test_nat66_is_served() {
	local sport=4012 n=5
	in_ns r nft -f - <<-END
		table ip6 nat {
			chain pre {
				type nat hook prerouting priority dstnat
				ip6 daddr fd00:8::8 dnat to fd00:9::9
			}
			chain post {
				type nat hook postrouting priority srcnat
				oifname "s1" udp sport $sport snat to fd00:2::1
			}
		}
	END
	check 'NAT66 of both addresses: answered' is "$(ask_nat "$sport" "$n")" "$n"
	check 'NAT66 of both addresses: served' \
		is "$(gained hit ask_nat "$sport" "$n" 2>/dev/null)" $((2 * n))
	in_ns r nft delete table ip6 nat
}

test_nat66_to_a_link_local_address_is_a_miss() {
	local sport=4013 missed
	in_ns r nft -f - <<-'END'
		table ip6 nat {
			chain pre {
				type nat hook prerouting priority dstnat
				ip6 daddr fd00:8::fe dnat to fe80::2
			}
		}
	END
	ip -n c addr add fe80::2/64 dev c0 nodad
	missed=$(gained miss_scope frame6 --sport "$sport" --dst fd00:8::fe --count 5)
	check 'NAT66 to a link-local address: a miss' [ "$missed" -ge 3 ]
	check 'NAT66 to a link-local address: no route is kept' shown_as "$sport" state=none
	ip -n c addr del fe80::2/64 dev c0
	in_ns r nft delete table ip6 nat
}

# Misses because of the route.

test_unreachable_and_missing_routes_are_a_miss() {
	local sport=4014 n=2
	warm "$sport"
	ip -n r -6 route replace unreachable "$SERVER6"
	ip -n r -6 route del "$SERVER6" via fd00:2::2 dev s1 2>/dev/null || true
	check 'an unreachable route: a miss' \
		misses not_unicast "$n" frame6 --sport "$sport" --count "$n"
	ip -n r -6 route del unreachable "$SERVER6"
	check 'no route at all: a miss' misses no_route "$n" frame6 --sport "$sport" --count "$n"
	ip -n r -6 route add "$SERVER6" via fd00:2::2 dev s1
}

test_local_destination_is_a_miss() {
	local sport=4015 n=2
	warm "$sport"
	ip -n r addr add "$SERVER6/128" dev lo nodad
	check 'a destination that is now local: a miss' \
		misses not_unicast "$n" frame6 --sport "$sport" --count "$n"
	ip -n r addr del "$SERVER6/128" dev lo
}

test_route_by_the_receiving_device_is_a_miss() {
	local missed
	ip -n r route add fd00:7::7 via fd00:1::2 dev c1
	missed=$(gained miss_same_device frame6 --sport 4016 --dst fd00:7::7 --count 5)
	check 'a route back out by the same device: a miss' [ "$missed" -ge 3 ]
	ip -n r route del fd00:7::7 via fd00:1::2 dev c1
}

test_route_with_a_lightweight_tunnel_is_a_miss() {
	local sport=4017 n=2
	warm "$sport"
	modprobe mpls_iptunnel
	ip -n r -6 route replace "$SERVER6" encap mpls 100 via inet6 fd00:2::2 dev s1
	check 'a route with a lightweight tunnel: a miss' \
		misses lwtunnel "$n" frame6 --sport "$sport" --count "$n"
	ip -n r -6 route del "$SERVER6"
	ip -n r -6 route add "$SERVER6" via fd00:2::2 dev s1
}

test_nexthops_are_served_only_if_the_key_fixes_their_choice() {
	local sport=4018 served=3 missed=2 policy
	ip -n r -6 route del "$SERVER6"
	ip -n r -6 route add "$SERVER6" nexthop via fd00:2::2 dev s1 nexthop via fd00:3::2 dev t1
	warm "$sport"
	check 'several nexthops, chosen by the addresses and the flow label: served' \
		is "$(gained hit ask6 "$sport" "$served" 2>/dev/null)" $((2 * served))
	for policy in 2 3; do
		in_ns r sysctl -qw net.ipv6.fib_multipath_hash_policy="$policy"
		check "several nexthops, chosen by policy $policy: a miss" \
			misses multipath "$missed" frame6 --sport "$sport" --count "$missed"
	done
	in_ns r sysctl -qw net.ipv6.fib_multipath_hash_policy=0
	ip -n r -6 route del "$SERVER6"
	ip -n r -6 route add "$SERVER6" via fd00:2::2 dev s1
}

test_rule_by_a_field_missing_in_the_key_is_a_miss() {
	local sport=4019 n=2
	warm "$sport"
	ip -n r -6 rule add tun_id 7 lookup main pref 50 2>/dev/null ||
		ip -n r -6 rule add uidrange 5-6 lookup main pref 50
	check 'a rule that selects by a field missing in the key: a miss' \
		misses rules $((2 * n)) frame6 --sport "$sport" --count "$n"
	ip -n r -6 rule del pref 50
}

test_forwarding_by_some_devices_only_is_a_miss() {
	local sport=4020 n=2
	warm "$sport"
	in_ns r sysctl -qw net.ipv6.conf.all.forwarding=0 \
		net.ipv6.conf.c1.force_forwarding=1 net.ipv6.conf.s1.force_forwarding=1
	check 'forwarding by some devices only: a miss' \
		misses multipath $((2 * n)) frame6 --sport "$sport" --count "$n"
	check 'forwarding by some devices only: arrives' \
		is "$(seen any frame6 --sport "$sport" --count "$n")" "$n"
	in_ns r sysctl -qw net.ipv6.conf.all.forwarding=1 \
		net.ipv6.conf.c1.force_forwarding=0 net.ipv6.conf.s1.force_forwarding=0
}

test_learned_mtu_is_a_miss() {
	local sport=4021 n=3
	warm "$sport"
	in_ns s python3 - <<-'END'
		import socket, struct
		src, dst = (socket.inet_pton(socket.AF_INET6, addr)
		            for addr in ("fd00:2::1", "fd00:9::9"))
		# Quotes an echo request of r: the only packet that r accepts an error for without a
		# socket.
		quoted = struct.pack("!IHBB", 6 << 28, 8, 58, 64) + src + dst + \
		    struct.pack("!BBHHH", 128, 0, 0, 1, 1)
		s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
		s.sendto(struct.pack("!BBHI", 2, 0, 0, 1280) + quoted, ("fd00:2::1", 0))
	END
	until_true 5 eval 'ip -n r -6 route get "$SERVER6" | grep -q "mtu 1280"'
	check 'a learned MTU: a miss' misses pmtu "$n" frame6 --sport "$sport" --count "$n"
	check 'a learned MTU: arrives' is "$(seen any frame6 --sport "$sport" --count "$n")" "$n"
	ip -n r -6 route flush cache
	ip -n r -6 route del "$SERVER6" via fd00:2::2 dev s1
	ip -n r -6 route add "$SERVER6" via fd00:2::2 dev s1
}

# IPsec.

test_packets_out_of_ipsec_are_a_miss() {
	local sport=4022 n=3
	warm "$sport"
	ipsec c fd00:1::2 r fd00:1::1 fwd
	check 'packets out of IPsec: a miss' misses secpath "$n" ask6 "$sport" "$n"
	check 'packets out of IPsec: answered' is "$(ask6 "$sport" "$n")" "$n"
	no_ipsec c r
}

test_packets_into_ipsec_are_a_miss() {
	local sport=4023 n=3 committed hits
	warm "$sport"
	ipsec r fd00:2::1 s fd00:2::2 in
	check 'packets into IPsec: answered' is "$(ask6 "$sport" "$n")" "$n"
	committed=$(gained committed ask6 "$sport" "$n" 2>/dev/null)
	# Only the answers are hits.
	hits=$(gained hit ask6 "$sport" "$n" 2>/dev/null)
	check 'packets into IPsec: none of their routes goes live' is "$committed $hits" "0 $n"
	check 'packets into IPsec: each counts as a miss' \
		misses xfrm "$n" ask6 "$sport" "$n" --interval 0.01
	check 'packets into IPsec: they were decrypted' [ "$(decrypted s)" -ge $((2 * n)) ]
	no_ipsec r s
}

# Tunnels.

# by_tunnel SPORT COUNT: one-way packets through the tunnel of the next case.
by_tunnel() {
	traffic c ask udp fd00:3::2 "$SINK" "$2" --sport "$1" --oneway --interval 0.01
}

test_packets_with_metadata_of_a_tunnel_are_a_miss() {
	local sport=4024 n=5
	modprobe ip6_tunnel
	ip -n r link add tun_r type ip6tnl external
	ip -n r link set tun_r up
	ip -n c link add tun_c type ip6tnl mode ip6ip6 \
		local fd00:1::2 remote fd00:1::1 encaplimit none
	ip -n c addr add fd00:5::2/64 dev tun_c nodad
	ip -n c link set tun_c up
	ip -n c -6 route add fd00:3::2 dev tun_c src fd00:5::2
	ip -n r -6 route add fd00:5::/64 via fd00:1::2 dev c1
	# The first packets may be lost while the tunnel comes up.
	until_true 10 eval 'by_tunnel "$sport" 1 >/dev/null; routes src=fd00:5::2 "sport=$sport"'
	check "packets with a tunnel's metadata: a miss" misses has_dst "$n" by_tunnel "$sport" "$n"
	check "packets with a tunnel's metadata: no route is kept" shown_as "$sport" state=none
	ip -n c link del tun_c
	ip -n r link del tun_r
	ip -n r -6 route del fd00:5::/64
}

# Devices.

test_device_in_a_vrf_is_a_miss() {
	local after=4026 missed
	ip -n r link add vrf0 type vrf table 10
	ip -n r link set vrf0 up
	ip -n r link set c1 master vrf0
	ip -n r addr replace fd00:1::1/64 dev c1 nodad
	ip -n r -6 route add "$SERVER6" via fd00:2::2 dev s1 table 10
	missed=$(gained miss_l3mdev frame6 --sport 4025 --count 5)
	check 'a device in a VRF: a miss' [ "$missed" -ge 4 ]
	ip -n r -6 route del "$SERVER6" table 10
	ip -n r link set c1 nomaster
	ip -n r addr replace fd00:1::1/64 dev c1 nodad
	ip -n r link del vrf0
	until_true 10 eval '[ "$(ask6 "$after" 1)" = 1 ]'
}

# bridged SPORT COUNT: UDP requests of d to the server; prints how many were answered.
bridged() {
	traffic d ask udp "$SERVER6" "$PORT" "$2" --sport "$1" | sed 's/.*answered=//'
}

test_packets_through_br_netfilter_are_a_miss() {
	local sport=4027 n=3
	modprobe br_netfilter
	in_ns r sysctl -qw net.bridge.bridge-nf-call-ip6tables=1
	ip -n r link add br0 type bridge
	ip -n r addr del fd00:4::1/64 dev d1
	ip -n r link set d1 master br0
	ip -n r link set br0 address "$(mac_of r d1)"
	ip -n r link set br0 up
	ip -n r addr add fd00:4::1/64 dev br0 nodad
	until_true 10 in_ns d ping -6 -q -c 1 -W 1 fd00:4::1
	bridged "$sport" 5 >/dev/null
	check 'packets through br_netfilter: a miss' misses bridge "$n" bridged "$sport" "$n"
	check 'packets through br_netfilter: answered' is "$(bridged "$sport" "$n")" "$n"
	ip -n r link del br0
	rmmod br_netfilter
	ip -n r addr add fd00:4::1/64 dev d1 nodad
}

# Proxied neighbours are handled by the kernel, with or without a cached route.
test_proxied_neighbours_change_nothing() {
	local sport=4028 n=5
	warm "$sport"
	in_ns r sysctl -qw net.ipv6.conf.all.proxy_ndp=1 net.ipv6.conf.c1.proxy_ndp=1
	ip -n r -6 neigh add proxy "$SERVER6" dev c1
	check 'proxy_ndp: answered as before' is "$(ask6 "$sport" "$n")" "$n"
	check 'proxy_ndp: served' is "$(gained hit ask6 "$sport" "$n" 2>/dev/null)" $((2 * n))
	ip -n r -6 neigh del proxy "$SERVER6" dev c1
	in_ns r sysctl -qw net.ipv6.conf.all.proxy_ndp=0 net.ipv6.conf.c1.proxy_ndp=0
}

test_no_reference_is_left() {
	forget_flows
	check 'no reference is left at the end' no_references
}

run_cases
