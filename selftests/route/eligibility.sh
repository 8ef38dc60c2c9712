#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets that must not be served from the cache are not. For each rule, a flow that was a hit
# before misses for that very reason, and its packets go where the kernel sends them. (Packets whose
# route turns out to be unfit are sent some jiffies apart, because a route is tried once per jiffy.)
#
# Group: fitness
# Kernel: stock quick

. lib/test.sh
plan 76

# is_served NS SPORT: succeeds if the flow's next request and its answer are hits.
is_served() {
	[ "$(gained hit ask "$1" udp 1 --sport "$2" 2>/dev/null)" = 2 ]
}

# warm NS SPORT: gets a flow served from the cache.
warm() {
	ask "$1" udp 5 --sport "$2" >/dev/null
	is_served "$1" "$2" || echo "# the flow from port $2 is not being served" "$((FAILED = 1))"
}

# flow_lives NS SPORT [MISSES]: succeeds if each packet of the flow is a hit, except for MISSES.
flow_lives() {
	local n=3
	is "$(gained hit ask "$1" udp "$n" --sport "$2" 2>/dev/null)" $((2 * n - ${3-0}))
}

# to_r OPTION...: sends a handmade packet from c for r to forward.
to_r() {
	traffic c frame c0 "$mac_of_r" 10.0.1.2 "$SERVER" --dport "$PORT" "$@"
}

# refused SPORT: succeeds if c gets the ICMP error about a packet from port SPORT to a closed port.
refused() {
	in_ns c python3 - "$1" "$SERVER" <<-'END'
		import socket
		import sys
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.bind(("", int(sys.argv[1])))
		s.settimeout(2)
		s.connect((sys.argv[2], 9))
		s.send(b"x")
		try:
		    s.recv(9)
		    raise SystemExit(1)
		except ConnectionRefusedError:
		    pass
	END
}

# copied NAME SPORT: each request of the flow is copied to path B; the copies neither use nor change
# the cache.
copied() {
	local n=5 before kept hits
	ask c udp 5 --sport "$2" >/dev/null
	before=$(arrived by_b)
	kept=$(($(stat_of staged) + $(stat_of renewed) + $(stat_of committed) + $(stat_of flow_new)))
	hits=$(stat_of hit)
	check "$1: answered" is "$(ask c udp "$n" --sport "$2")" "$n"
	# The server answers the copies too.
	check "$1: the original packets and the replies are served" \
		is $(($(stat_of hit) - hits)) $((n + 2 * n))
	check "$1: the copies took path B" is $(($(arrived by_b) - before)) "$n"
	check "$1: the copies created no flow and no route" \
		is $(($(stat_of staged) + $(stat_of renewed) + $(stat_of committed) + $(stat_of flow_new))) "$kept"
}

# two_paths: r reaches the server by two nexthops, path A and path B.
two_paths() {
	ip -n r route del "$SERVER"
	ip -n r route add "$SERVER" nexthop via 10.0.2.2 nexthop via 10.0.3.2
}

# path_a: r reaches the server by path A only, as at the start.
path_a() {
	ip -n r route replace "$SERVER" via 10.0.2.2
}

# gateways STATE: sets the state of the neighbour entries of both gateways.
gateways() {
	local entry gateway out peer
	for entry in '10.0.2.2 s1 s0' '10.0.3.2 t1 t0'; do
		read -r gateway out peer <<<"$entry"
		ip -n r neigh replace "$gateway" lladdr "$(mac_of s "$peer")" dev "$out" nud "$1"
	done
}

load
router
serve udp
serve 253
mac_of_r=$(mac_of r c1)

# Properties of the packet.

test_ip_options_are_a_miss() {
	local sport=4000 n=3
	warm c "$sport"
	check 'IP options: miss' misses options "$n" ask c udp "$n" --sport "$sport" --options 01010101
	check 'IP options: answered' is "$(ask c udp "$n" --sport "$sport" --options 01010101)" "$n"
	check 'IP options: packets without options are served afterwards' flow_lives c "$sport"
}

test_fragments_are_a_miss() {
	local sport=4014 n=3
	warm c "$sport"
	check 'fragments, reassembled for conntrack: miss in both directions' \
		misses fragment $((2 * n)) ask c udp "$n" --sport "$sport" --size 3000
	check 'fragments: answered' is "$(ask c udp "$n" --sport "$sport" --size 3000)" "$n"
}

test_frame_to_the_broadcast_address_is_a_miss() {
	local sport=4015 before
	warm c "$sport"
	before=$(arrived by_a)
	check 'a frame to the broadcast address: miss' misses not_host 1 \
		traffic c frame c0 ff:ff:ff:ff:ff:ff 10.0.1.2 "$SERVER" --sport "$sport" --dport "$PORT"
	check 'a frame to the broadcast address: dropped by the kernel' is "$(arrived by_a)" "$before"
}

test_tproxy_is_a_miss() {
	local sport=4016
	warm c "$sport"
	modprobe nft_tproxy
	background r python3 tools/traffic.py echo udp 0.0.0.0 9999 --transparent
	in_ns r nft -f - <<-END
		table ip divert {
			chain pre {
				type filter hook prerouting priority mangle
				udp sport $sport tproxy to :9999 accept
			}
		}
	END
	until_true 5 in_ns r grep -q ':270F ' /proc/net/udp
	check 'a packet that TPROXY assigned to a socket: miss' misses socket 1 to_r --sport "$sport"
	in_ns r nft delete table ip divert
}

test_icmp_error_is_a_miss() {
	local sport=4010 n=3
	check 'an ICMP error about the flow: miss, although the flow is found' misses related "$n" \
		traffic c ask udp "$SERVER" 9 "$n" --sport "$sport" --timeout 0.2
	check 'an ICMP error about the flow: delivered' refused "$sport"
}

test_packet_rewritten_behind_conntrack_is_a_miss() {
	local sport=4001
	warm c "$sport"
	in_ns r nft -f - <<-END
		table ip rewrite {
			chain pre {
				type filter hook prerouting priority 0
				udp sport $sport ip saddr set 10.0.1.77
			}
		}
	END
	check 'source address rewritten behind conntrack: miss' \
		misses rewritten 1 to_r --sport "$sport"
	in_ns r nft flush chain ip rewrite pre
	in_ns r nft add rule ip rewrite pre udp sport "$sport" ip daddr set 10.0.3.2
	check 'destination address rewritten behind conntrack: miss' \
		misses rewritten 1 to_r --sport "$sport"
	in_ns r nft flush chain ip rewrite pre
	in_ns r nft add rule ip rewrite pre udp sport "$sport" udp dport set 8
	check 'port rewritten behind conntrack: miss' misses rewritten 1 to_r --sport "$sport"
	in_ns r nft delete table ip rewrite
	check 'no rewriting any more: served again' flow_lives c "$sport"
}

# A neighbour that does not answer: other hosts on its link share their route with it.
test_silent_neighbour_does_not_affect_other_hosts() {
	local sport=4013
	in_ns s ping -q -c 1 -W 5 10.0.1.99 >/dev/null 2>&1 || true
	until_true 10 eval 'ip -n r neigh show 10.0.1.99 | grep -q FAILED'
	warm c "$sport"
	check 'a neighbour that does not answer: flows of other hosts are served' flow_lives c "$sport"
}

# Copies of packets, which have their own route.

test_copies_by_nft_dup_leave_the_cache_alone() {
	local hook sport=4030
	for hook in prerouting postrouting; do
		in_ns r nft -f - <<-END
			table ip copies {
				chain copy {
					type filter hook $hook priority mangle
					udp sport $sport dup to 10.0.3.2 device "t1"
				}
			}
		END
		copied "nft dup in $hook" "$sport"
		in_ns r nft delete table ip copies
		sport=$((sport + 1))
	done
}

test_copies_by_iptables_tee_leave_the_cache_alone() {
	local sport=4012
	in_xtables r iptables -t mangle -A PREROUTING -p udp --sport "$sport" -j TEE --gateway 10.0.3.2
	copied 'iptables TEE' "$sport"
	in_xtables r iptables -t mangle -F PREROUTING
}

# Tunnels.

test_tunnel_metadata_is_a_miss() {
	local sport=4002 n=5
	ip -n r link add tun_r type ipip external
	ip -n r link set tun_r up
	ip -n c link add tun_c type ipip local 10.0.1.2 remote 10.0.1.1
	ip -n c addr add 10.0.5.2/24 dev tun_c
	ip -n c link set tun_c up
	ip -n c route add 10.0.3.2 dev tun_c
	ip -n r route add 10.0.5.0/24 via 10.0.1.2
	# The first packets may be lost while the tunnel comes up.
	until_true 10 eval 'traffic c ask udp 10.0.3.2 "$SINK" 1 --sport "$sport" --oneway >/dev/null
		routes src=10.0.5.2 "sport=$sport"'
	check 'packets with tunnel metadata: miss' misses has_dst "$n" \
		traffic c ask udp 10.0.3.2 "$SINK" "$n" --sport "$sport" --oneway
	check 'packets with tunnel metadata: no route is cached' \
		is "$(routes "sport=$sport" dir=orig | field state)" none
	ip -n c link del tun_c
	ip -n r link del tun_r
	ip -n r route del 10.0.5.0/24
}

test_out_of_ipsec_is_a_miss() {
	local sport=4003 n=3
	warm c "$sport"
	ipsec c 10.0.1.2 r 10.0.1.1 fwd
	check 'packets out of IPsec: miss' misses secpath "$n" ask c udp "$n" --sport "$sport"
	check 'packets out of IPsec: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	no_ipsec c r
}

test_into_ipsec_is_a_miss() {
	local sport=4004 n=3 committed hits
	warm c "$sport"
	ipsec r 10.0.2.1 s 10.0.2.2 in
	check 'packets into IPsec: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	committed=$(gained committed ask c udp "$n" --sport "$sport" 2>/dev/null)
	hits=$(gained hit ask c udp "$n" --sport "$sport" 2>/dev/null)
	# Only the replies are hits.
	check 'packets into IPsec: their route does not go live' is "$committed $hits" "0 $n"
	check 'packets into IPsec: each is a miss because of xfrm' \
		misses xfrm "$n" ask c udp "$n" --sport "$sport" --interval 0.03
	check 'packets into IPsec: they arrived by ESP' [ "$(decrypted s)" -ge $((2 * n)) ]
	no_ipsec r s
	warm c "$sport"
	check 'no IPsec any more: served again' flow_lives c "$sport"
}

test_lightweight_tunnel_is_a_miss() {
	local sport=4017 n=2
	warm c "$sport"
	modprobe mpls_iptunnel
	ip -n r route replace "$SERVER" encap mpls 100 via 10.0.2.2
	check 'a route with a lightweight tunnel: miss' misses lwtunnel "$n" \
		ask c udp "$n" --sport "$sport" --oneway --interval 0.03
	path_a
}

# Properties of the route.

test_unreachable_route_is_a_miss() {
	local sport=4005 n=2
	warm c "$sport"
	ip -n r route replace unreachable "$SERVER"
	check 'an unreachable route: miss' \
		misses not_unicast "$n" to_r --sport "$sport" --count "$n" --interval 0.03
	path_a
	warm c "$sport"
	check 'an unreachable route, replaced by a unicast route: served again' flow_lives c "$sport"
}

test_destination_that_became_local_is_a_miss() {
	local sport=4018 n=2
	warm c "$sport"
	ip -n r addr add "$SERVER/32" dev lo
	check 'a destination that became local: miss' \
		misses not_unicast "$n" to_r --sport "$sport" --count "$n" --interval 0.03
	ip -n r addr del "$SERVER/32" dev lo
}

test_route_out_of_the_incoming_device_is_a_miss() {
	local sport=4006 n=5
	ip -n c route add 10.7.7.7 via 10.0.1.1
	ip -n r route add 10.7.7.7 via 10.0.1.2
	# The first packet creates the flow.
	check 'a route out of the incoming device: miss' misses same_device $((n - 1)) \
		traffic c ask udp 10.7.7.7 9 "$n" --sport "$sport" --oneway --interval 0.03
	check 'a route out of the incoming device: no route is cached' \
		is "$(routes "sport=$sport" dir=orig | field state)" none
	ip -n c route del 10.7.7.7 via 10.0.1.1
	ip -n r route del 10.7.7.7 via 10.0.1.2
}

# is_dead SPORT: succeeds if the kernel has ended the route of the flow's packets from c.
is_dead() {
	[ "$(routes "sport=$1" dir=orig | grep -v ' state=live ' | grep -c ' last=obsolete ')" = 1 ]
}

test_learned_mtu_is_served_until_it_expires() {
	local sport=4019
	in_ns r sysctl -qw net.ipv4.route.mtu_expires=8
	warm c "$sport"
	traffic s frame s0 "$(mac_of r s1)" 10.0.2.2 10.0.2.1 --quote "$SERVER" --mtu 1300 >/dev/null
	check 'the kernel learned an MTU' eval 'ip -n r route get "$SERVER" | grep -q "mtu 1300"'
	check 'the route without it is not valid any more' is_dead "$sport"
	warm c "$sport"
	check 'a route with a learned MTU: served' flow_lives c "$sport"
	check 'a learned MTU expired: the route is not valid any more' until_true 30 is_dead "$sport"
	warm c "$sport"
	check 'a learned MTU expired: served' flow_lives c "$sport"
	in_ns r sysctl -qw net.ipv4.route.mtu_expires=600
	ip -n r route flush cache
}

test_several_nexthops_are_served() {
	local sport=4020
	two_paths
	warm c "$sport"
	check 'several nexthops: served, because the connection picks one' flow_lives c "$sport"
	path_a
}

test_hash_over_ports_is_a_miss_only_without_ports() {
	local sport=4021 n=3
	two_paths
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=1
	ip -n r route flush cache
	# Each socket sends with another hash, so the first packet of each is a miss.
	ask c udp 5 --sport "$sport" >/dev/null
	check 'several nexthops, hash over ports: served' flow_lives c "$sport" 1
	ask c 253 "$n" >/dev/null
	check 'several nexthops, hash over ports, protocol without ports: miss' \
		misses multipath "$n" ask c 253 "$n" --interval 0.03
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=0
	path_a
}

test_group_of_nexthop_objects_is_served() {
	local sport=4022 n=3
	warm c "$sport"
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=1
	# A group depends on its gateways' neighbour entries, so make them permanent.
	gateways permanent
	ip -n r -b - <<-END
		nexthop add id 1 via 10.0.2.2 dev s1
		nexthop add id 2 via 10.0.3.2 dev t1
		nexthop add id 10 group 1/2
		route replace $SERVER nhid 10
	END
	# As above: another socket, another hash.
	check 'a group of nexthop objects: served' until_true 10 flow_lives c "$sport" 1
	check 'a group of nexthop objects: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	ip -n r route del "$SERVER"
	ip -n r nexthop flush >/dev/null 2>&1
	ip -n r route add "$SERVER" via 10.0.2.2
	gateways reachable
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=0
	# No route is cached until the change of the nexthop objects is done.
	until_true 5 is_served c "$sport" || echo '# not served'
}

# With policy 1, a local sender's hash chooses the nexthop. When its segments are lost, it changes the
# hash to leave the path.
test_a_sender_that_changes_its_hash_changes_the_path() {
	local out device
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=1
	ip -n r route replace "$SERVER" nexthop via 10.0.2.2 nexthop via 10.0.3.2
	background s python3 tools/traffic.py echo tcp "$SERVER" "$PORT"
	until_true 10 in_ns s grep -q ':0007 ' /proc/net/tcp
	rm -f /tmp/rehashed
	background c python3 -c '
import os, socket, time
s = socket.create_connection(("10.9.9.9", 7), source_address=("10.0.1.2", 4029))
while True:
    s.sendall(b"0123")
    if s.recv(4) == b"0123" and os.path.exists("/tmp/dropping"):
        open("/tmp/rehashed", "w")
    time.sleep(0.05)'
	until_true 10 routes sport=4029 dir=orig state=live
	until_true 10 eval '[ "$(routes sport=4029 dir=orig | field hits)" -gt 3 ]'
	ok 'several nexthops, a sender with a hash: served'
	out=$(routes sport=4029 dir=orig | field oif)
	[ "$out" = s1 ] && device=s0 || device=t0
	in_ns s nft add table ip lossy
	in_ns s nft add chain ip lossy pre '{ type filter hook prerouting priority raw; }'
	in_ns s nft add rule ip lossy pre iifname "$device" tcp dport 7 drop
	touch /tmp/dropping
	check 'several nexthops, the path is dead: the sender leaves it' \
		until_true 40 test -e /tmp/rehashed
	check 'several nexthops, the hash changed: counted' eval '[ "$(stat_of miss_multipath)" -gt 0 ]'
	rm /tmp/dropping
	in_ns s nft delete table ip lossy
	end_jobs "${JOBS[-1]}"
	unset 'JOBS[-1]'
	ip -n r route replace "$SERVER" via 10.0.2.2
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=0
	forget_flows
}

test_several_nexthops_chosen_by_more_than_the_connection_are_a_miss() {
	local sport=4023 n=3
	two_paths
	warm c "$sport"
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=2
	ip -n r route flush cache
	check 'several nexthops, hash over inner headers: miss' \
		misses multipath "$n" ask c udp "$n" --sport "$sport" --interval 0.03
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=3
	ip -n r route flush cache
	check 'several nexthops, hash over custom fields: miss' \
		misses multipath "$n" ask c udp "$n" --sport "$sport" --interval 0.03
	in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=0 net.ipv4.fib_multipath_use_neigh=1
	ip -n r route flush cache
	check 'several nexthops, chosen by neighbours: miss' \
		misses multipath "$n" ask c udp "$n" --sport "$sport" --interval 0.03
	in_ns r sysctl -qw net.ipv4.fib_multipath_use_neigh=0
	path_a
}

test_rules_by_user_and_by_tunnel_are_a_miss() {
	local sport=4024 n=3
	warm c "$sport"
	ip -n r rule add uidrange 5-6 lookup main
	check 'a rule that selects by user: miss' \
		misses rules $((2 * n)) ask c udp "$n" --sport "$sport" --interval 0.03
	ip -n r rule del uidrange 5-6 lookup main
	ip -n r rule add tun_id 7 lookup main
	check 'a rule that selects by tunnel: miss' \
		misses rules $((2 * n)) ask c udp "$n" --sport "$sport" --interval 0.03
	ip -n r rule del tun_id 7 lookup main
	warm c "$sport"
	check 'no such rules any more: served again' flow_lives c "$sport"
}

test_rule_by_port_is_a_miss_only_without_ports() {
	local sport=4025 n=3
	ip -n r rule add dport 99 lookup main
	warm c "$sport"
	check 'a rule that selects by port: served, if the protocol has ports' flow_lives c "$sport"
	ask c 253 "$n" >/dev/null
	check 'a rule that selects by port: miss, if the protocol has no ports' \
		misses rules $((2 * n)) ask c 253 "$n" --interval 0.03
	ip -n r rule del dport 99 lookup main
}

# Devices.

test_vrf_is_a_miss() {
	local of_d=4007 of_c=4011 n=5 before
	ip -n r link add vrf0 type vrf table 10
	ip -n r link set vrf0 up
	ip -n r link set d1 master vrf0
	ip -n r route add "$SERVER" via 10.0.3.2 dev t1 table 10
	# Of each packet but the first, which creates the flow.
	check 'device in a VRF: miss in each pass' misses l3mdev $((2 * (n - 1))) \
		ask d udp "$n" --sport "$of_d" --oneway
	check 'device in a VRF: no route is cached' \
		is "$(routes "sport=$of_d" dir=orig | field state)" none
	ip -n r link set d1 nomaster
	ip -n r link set t1 master vrf0
	ip -n r route replace "$SERVER" via 10.0.3.2 dev t1
	in_ns r conntrack -F >/dev/null 2>&1
	before=$(arrived by_b)
	check 'outgoing device in a VRF: miss' misses l3mdev $((n - 1)) \
		ask c udp "$n" --sport "$of_c" --oneway --interval 0.03
	check 'outgoing device in a VRF: all packets arrive' is $(($(arrived by_b) - before)) "$n"
	ip -n r link set t1 nomaster
	path_a
	ip -n r link del vrf0
	ip -n r link set d1 down
	ip -n r link set d1 up
}

test_bridge_is_a_miss() {
	local sport=4008 n=3
	warm d "$sport"
	modprobe br_netfilter
	in_ns r sysctl -qw net.bridge.bridge-nf-call-iptables=1
	ip -n r link add br0 type bridge
	ip -n r addr del 10.0.4.1/24 dev d1
	ip -n r link set d1 master br0
	ip -n r addr add 10.0.4.1/24 dev br0
	ip -n r link set br0 address "$(mac_of r d1)"
	ip -n r link set br0 up
	until_true 5 in_ns d ping -q -c 1 -W 1 10.0.4.1
	check 'packets by way of br_netfilter: miss' misses bridge "$n" ask d udp "$n" --sport "$sport"
	check 'packets by way of br_netfilter: answered' is "$(ask d udp "$n" --sport "$sport")" "$n"
	ip -n r link del br0
	rmmod br_netfilter
	ip -n r addr add 10.0.4.1/24 dev d1
}

# A driver may leave all but the IP header in pages. A ring of packet(7) does so, too.
test_packets_in_pages_are_served() {
	local sport=4018 n=10
	warm c "$sport"
	check 'packets whose ports are in pages are served' is "$(gained hit in_ns c python3 - \
		c0 "$mac_of_r" "$sport" "$n" <<-'END' 2>/dev/null
			import mmap, socket, struct, sys, time
			dev, mac, sport, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
			# PACKET_VERSION 2, and a ring of one block with a frame for each packet.
			sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
			sock.setsockopt(263, 10, 1)
			sock.setsockopt(263, 13, struct.pack("IIII", 65536, 1, 2048, 32))
			ring = mmap.mmap(sock.fileno(), 65536)
			sock.bind((dev, 0x0800))
			data = b"x" * 64
			udp = struct.pack("!HHHH", sport, 7, 8 + len(data), 0) + data
			ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
			                 socket.inet_aton("10.0.1.2"), socket.inet_aton("10.9.9.9"))
			total = sum(struct.unpack("!10H", ip))
			total = (total & 0xffff) + (total >> 16)
			ip = ip[:10] + struct.pack("!H", ~total & 0xffff) + ip[12:]
			frame = bytes.fromhex(mac.replace(":", "")) + sock.getsockname()[4] + b"\x08\x00" + ip + udp
			for number in range(count):
			    at = number * 2048
			    ring[at + 32:at + 32 + len(frame)] = frame
			    struct.pack_into("II", ring, at + 4, len(frame), 0)
			    struct.pack_into("I", ring, at, 1)
			    sock.send(b"")
			    time.sleep(0.01)
		END
	)" $((2 * n))
}

# A direction stages at most one route in a jiffy, however many packets with other keys come. (How
# many come in a jiffy is a matter of the host.)
test_staging_is_limited() {
	local sport=4009 frames=500 staged limited began ticks
	ip -n r rule add dscp 1 lookup main
	warm c "$sport"
	limited=$(stat_of miss_limited)
	began=$(jiffies)
	staged=$(gained staged to_r --sport "$sport" --tos 4 8 12 16 20 --count "$frames" 2>/dev/null)
	ticks=$(($(jiffies) - began))
	limited=$(($(stat_of miss_limited) - limited))
	check 'many keys in turn: not every packet stages a route' \
		eval "[ $staged -gt 0 ] && [ $staged -le $((ticks + 1)) ]"
	# The rest are packets with the key of the route that became live last: every fifth.
	check 'many keys in turn: the others are counted' \
		[ $((staged + limited)) -ge $((frames / 2)) ]
	check 'no route failed for lack of memory' is "$(stat_of miss_no_memory)" 0
	ip -n r rule del dscp 1 lookup main
}

# After a lookup in vain, the kernel looks up again. So a route is tried only once per jiffy.
test_lookups_in_vain_are_limited() {
	local sport=4026 frames=50 tried
	warm c "$sport"
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=1
	ip -n r route add 10.0.1.2/32 dev d1
	tried=$(gained miss_no_route to_r --sport "$sport" --count "$frames" 2>/dev/null)
	check 'a source that rp_filter drops: miss, because there is no route' eval "[ $tried -gt 0 ]"
	check 'a source that rp_filter drops: not looked up for every packet' \
		eval "[ $tried -lt $frames ]"
	ip -n r route del 10.0.1.2/32 dev d1
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=0
}

test_no_references_remain() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
