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
plan 70

load
router
serve udp
mac_of_r=$(mac_of r c1)

# warm NS SPORT: gets a flow served from the cache.
warm() {
	ask "$1" udp 5 --sport "$2" >/dev/null
	[ "$(gained hit ask "$1" udp 1 --sport "$2" 2>/dev/null)" = 2 ] ||
		echo "# the flow from port $2 is not being served"
}

# misses REASON COUNT COMMAND...: succeeds if COMMAND makes COUNT packets miss for REASON.
misses() {
	local reason=$1 count=$2
	shift 2
	is "$(gained "miss_$reason" "$@" 2>/dev/null)" "$count"
}

# to_r OPTION...: sends a handmade packet from c for r to forward.
to_r() {
	traffic c frame c0 "$mac_of_r" 10.0.1.2 "$SERVER" --dport "$PORT" "$@"
}

# flow_lives NS SPORT: succeeds if each packet of the flow is a hit.
flow_lives() {
	is "$(gained hit ask "$1" udp 3 --sport "$2" 2>/dev/null)" 6
}

# Properties of the packet.

warm c 4000
check 'IP options: miss' misses options 3 ask c udp 3 --sport 4000 --options 01010101
check 'IP options: answered' is "$(ask c udp 3 --sport 4000 --options 01010101)" 3
check 'IP options: packets without options are served afterwards' flow_lives c 4000

check 'fragments, reassembled for conntrack: miss in both directions' \
	misses fragment 6 ask c udp 3 --sport 4000 --size 3000
check 'fragments: answered' is "$(ask c udp 3 --sport 4000 --size 3000)" 3

before=$(arrived by_a)
check 'a frame to the broadcast address: miss' misses not_host 1 \
	traffic c frame c0 ff:ff:ff:ff:ff:ff 10.0.1.2 "$SERVER" --sport 4000 --dport "$PORT"
check 'a frame to the broadcast address: dropped by the kernel' is "$(arrived by_a)" "$before"

modprobe nft_tproxy
background r python3 tools/traffic.py echo udp 0.0.0.0 9999 --transparent
in_ns r nft -f - <<-'END'
	table ip divert {
		chain pre {
			type filter hook prerouting priority mangle
			udp sport 4000 tproxy to :9999 accept
		}
	}
END
until_true 5 in_ns r grep -q ':270F ' /proc/net/udp
check 'a packet that TPROXY assigned to a socket: miss' misses socket 1 to_r --sport 4000
in_ns r nft delete table ip divert

check 'an ICMP error about the flow: miss, although the flow is found' misses related 3 \
	traffic c ask udp "$SERVER" 9 3 --sport 4010 --timeout 0.2
check 'an ICMP error about the flow: delivered' eval \
	'in_ns c python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 4010)); s.settimeout(2)
s.connect((\"'$SERVER'\", 9)); s.send(b\"x\")
try: s.recv(9); raise SystemExit(1)
except ConnectionRefusedError: pass"'

warm c 4001
in_ns r nft -f - <<-'END'
	table ip rewrite {
		chain pre {
			type filter hook prerouting priority 0
			udp sport 4001 ip saddr set 10.0.1.77
		}
	}
END
check 'source address rewritten behind conntrack: miss' misses rewritten 1 to_r --sport 4001
in_ns r nft flush chain ip rewrite pre
in_ns r nft add rule ip rewrite pre udp sport 4001 ip daddr set 10.0.3.2
check 'destination address rewritten behind conntrack: miss' misses rewritten 1 to_r --sport 4001
in_ns r nft flush chain ip rewrite pre
in_ns r nft add rule ip rewrite pre udp sport 4001 udp dport set 8
check 'port rewritten behind conntrack: miss' misses rewritten 1 to_r --sport 4001
in_ns r nft delete table ip rewrite
check 'no rewriting any more: served again' flow_lives c 4001

# A neighbour that does not answer: other hosts on its link share their route with it.
in_ns s ping -q -c 1 -W 5 10.0.1.99 >/dev/null 2>&1 || true
until_true 10 eval 'ip -n r neigh show 10.0.1.99 | grep -q FAILED'
warm c 4013
check "a neighbour that does not answer: flows of other hosts are served" flow_lives c 4013

# Copies of packets, which have their own route.

# copied NAME: each request of the flow from port 4012 is copied to path B; the copies neither use
# nor change the cache.
copied() {
	local before kept hits
	warm c 4012
	before=$(arrived by_b) kept=$(($(stat_of staged) + $(stat_of committed) + $(stat_of flow_new)))
	hits=$(stat_of hit)
	check "$1: answered" is "$(ask c udp 5 --sport 4012)" 5
	# The server answers the copies too.
	check "$1: the original packets and the replies are served" is $(($(stat_of hit) - hits)) 15
	check "$1: the copies took path B" is $(($(arrived by_b) - before)) 5
	check "$1: the copies created no flow and no route" \
		is $(($(stat_of staged) + $(stat_of committed) + $(stat_of flow_new))) "$kept"
}
for hook in prerouting postrouting; do
	in_ns r nft -f - <<-END
		table ip copies {
			chain copy {
				type filter hook $hook priority mangle
				udp sport 4012 dup to 10.0.3.2 device "t1"
			}
		}
	END
	copied "nft dup in $hook"
	in_ns r nft delete table ip copies
done
in_ns r iptables-legacy -t mangle -A PREROUTING -p udp --sport 4012 -j TEE --gateway 10.0.3.2
copied 'iptables TEE'
in_ns r iptables-legacy -t mangle -F PREROUTING

# Tunnels.

ip -n r link add tun_r type ipip external
ip -n r link set tun_r up
ip -n c link add tun_c type ipip local 10.0.1.2 remote 10.0.1.1
ip -n c addr add 10.0.5.2/24 dev tun_c
ip -n c link set tun_c up
ip -n c route add 10.0.3.2 dev tun_c
ip -n r route add 10.0.5.0/24 via 10.0.1.2
# The first packets may be lost while the tunnel comes up.
until_true 10 eval 'traffic c ask udp 10.0.3.2 "$SINK" 1 --sport 4002 --oneway >/dev/null; routes src=10.0.5.2 sport=4002'
check "packets with tunnel metadata: miss" misses has_dst 5 \
	traffic c ask udp 10.0.3.2 "$SINK" 5 --sport 4002 --oneway
check "packets with tunnel metadata: no route is cached" \
	is "$(routes sport=4002 dir=orig | field state)" none
ip -n c link del tun_c
ip -n r link del tun_r
ip -n r route del 10.0.5.0/24

warm c 4003
ipsec c 10.0.1.2 r 10.0.1.1 fwd
check 'packets out of IPsec: miss' misses secpath 3 ask c udp 3 --sport 4003
check 'packets out of IPsec: answered' is "$(ask c udp 3 --sport 4003)" 3
no_ipsec c r

warm c 4004
ipsec r 10.0.2.1 s 10.0.2.2 in
check 'packets into IPsec: answered' is "$(ask c udp 3 --sport 4004)" 3
check 'packets into IPsec: their route does not go live' \
	is "$(gained committed ask c udp 3 --sport 4004 2>/dev/null) $(gained hit ask c udp 3 --sport 4004 2>/dev/null)" '0 3'
check 'packets into IPsec: each is a miss because of xfrm' misses xfrm 3 ask c udp 3 --sport 4004 --interval 0.03
check 'packets into IPsec: they arrived by ESP' [ "$(decrypted s)" -ge 6 ]
no_ipsec r s
warm c 4004
check 'no IPsec any more: served again' flow_lives c 4004

modprobe mpls_iptunnel
ip -n r route replace "$SERVER" encap mpls 100 via 10.0.2.2
check 'a route with a lightweight tunnel: miss' misses lwtunnel 2 \
	ask c udp 2 --sport 4004 --oneway --interval 0.03
ip -n r route replace "$SERVER" via 10.0.2.2

# Properties of the route.

warm c 4005
ip -n r route replace unreachable "$SERVER"
check 'an unreachable route: miss' misses not_unicast 2 to_r --sport 4005 --count 2 --interval 0.03
ip -n r route replace "$SERVER" via 10.0.2.2
warm c 4005
check 'an unreachable route, replaced by a unicast route: served again' flow_lives c 4005
ip -n r addr add "$SERVER/32" dev lo
check 'a destination that became local: miss' misses not_unicast 2 to_r --sport 4005 --count 2 --interval 0.03
ip -n r addr del "$SERVER/32" dev lo
warm c 4005

ip -n c route add 10.7.7.7 via 10.0.1.1
ip -n r route add 10.7.7.7 via 10.0.1.2
check 'a route out of the incoming device: miss' misses same_device 4 \
	traffic c ask udp 10.7.7.7 9 5 --sport 4006 --oneway --interval 0.03
check 'a route out of the incoming device: no route is cached' \
	is "$(routes sport=4006 dir=orig | field state)" none

mac_to_r=$(mac_of r s1)
traffic s frame s0 "$mac_to_r" 10.0.2.2 10.0.2.1 --quote "$SERVER" --mtu 1300
check 'the kernel learned an MTU' eval 'ip -n r route get '$SERVER' | grep -q "mtu 1300"'
check 'a route with a learned MTU: miss' misses pmtu 3 ask c udp 3 --sport 4005 --interval 0.03
check 'a route with a learned MTU: answered' is "$(ask c udp 3 --sport 4005)" 3
ip -n r route flush cache
ip -n r route del "$SERVER"
ip -n r route add "$SERVER" nexthop via 10.0.2.2 nexthop via 10.0.3.2
warm c 4005
check 'several nexthops: served, because the connection picks one' flow_lives c 4005
in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=1
ip -n r route flush cache
warm c 4005
check 'several nexthops, hash over ports: served' flow_lives c 4005
serve 253
ask c 253 3 >/dev/null
check 'several nexthops, hash over ports, protocol without ports: miss' \
	misses multipath 3 ask c 253 3 --interval 0.03
# A group depends on its gateways' neighbour entries, so make them permanent.
for link in '10.0.2.2 s1 s0' '10.0.3.2 t1 t0'; do
	read -ra link <<<"$link"
	ip -n r neigh replace "${link[0]}" lladdr "$(mac_of s "${link[2]}")" dev "${link[1]}" nud permanent
done
ip -n r -b - <<-END
	nexthop add id 1 via 10.0.2.2 dev s1
	nexthop add id 2 via 10.0.3.2 dev t1
	nexthop add id 10 group 1/2
	route replace $SERVER nhid 10
END
until_true 5 eval '[ "$(gained hit ask c udp 1 --sport 4005 2>/dev/null)" = 2 ]' || echo '# not served'
check 'a group of nexthop objects: served' flow_lives c 4005
check 'a group of nexthop objects: answered' is "$(ask c udp 3 --sport 4005)" 3
ip -n r route del "$SERVER"
ip -n r nexthop flush >/dev/null 2>&1
ip -n r route add "$SERVER" nexthop via 10.0.2.2 nexthop via 10.0.3.2
in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=2
ip -n r route flush cache
check 'several nexthops, hash over inner headers: miss' misses multipath 3 ask c udp 3 --sport 4005 --interval 0.03
in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=3
ip -n r route flush cache
check 'several nexthops, hash over custom fields: miss' \
	misses multipath 3 ask c udp 3 --sport 4005 --interval 0.03
in_ns r sysctl -qw net.ipv4.fib_multipath_hash_policy=0 net.ipv4.fib_multipath_use_neigh=1
ip -n r route flush cache
check 'several nexthops, chosen by neighbours: miss' misses multipath 3 ask c udp 3 --sport 4005 --interval 0.03
in_ns r sysctl -qw net.ipv4.fib_multipath_use_neigh=0
ip -n r route replace "$SERVER" via 10.0.2.2
warm c 4005

ip -n r rule add uidrange 5-6 lookup main
check 'a rule that selects by user: miss' misses rules 6 ask c udp 3 --sport 4005 --interval 0.03
ip -n r rule del uidrange 5-6 lookup main
ip -n r rule add tun_id 7 lookup main
check 'a rule that selects by tunnel: miss' misses rules 6 ask c udp 3 --sport 4005 --interval 0.03
ip -n r rule del tun_id 7 lookup main
warm c 4005
check 'no such rules any more: served again' flow_lives c 4005
ip -n r rule add dport 99 lookup main
warm c 4005
check 'a rule that selects by port: served, if the protocol has ports' flow_lives c 4005
ask c 253 3 >/dev/null
check 'a rule that selects by port: miss, if the protocol has no ports' \
	misses rules 6 ask c 253 3 --interval 0.03
ip -n r rule del dport 99 lookup main

# Devices.

ip -n r link add vrf0 type vrf table 10
ip -n r link set vrf0 up
ip -n r link set d1 master vrf0
ip -n r route add "$SERVER" via 10.0.3.2 dev t1 table 10
check 'device in a VRF: miss in each pass' misses l3mdev 8 \
	ask d udp 5 --sport 4007 --oneway
check 'device in a VRF: no route is cached' is "$(routes sport=4007 dir=orig | field state)" none
ip -n r link set d1 nomaster
ip -n r link set t1 master vrf0
ip -n r route replace "$SERVER" via 10.0.3.2 dev t1
in_ns r conntrack -F >/dev/null 2>&1
before=$(arrived by_b)
check 'outgoing device in a VRF: miss' misses l3mdev 4 \
	ask c udp 5 --sport 4011 --oneway --interval 0.03
check 'outgoing device in a VRF: all packets arrive' is $(($(arrived by_b) - before)) 5
ip -n r link set t1 nomaster
ip -n r route replace "$SERVER" via 10.0.2.2
ip -n r link del vrf0
ip -n r link set d1 down
ip -n r link set d1 up
warm d 4008

modprobe br_netfilter
in_ns r sysctl -qw net.bridge.bridge-nf-call-iptables=1
ip -n r link add br0 type bridge
ip -n r addr del 10.0.4.1/24 dev d1
ip -n r link set d1 master br0
ip -n r addr add 10.0.4.1/24 dev br0
ip -n r link set br0 address "$(mac_of r d1)"
ip -n r link set br0 up
until_true 5 in_ns d ping -q -c 1 -W 1 10.0.4.1
check 'packets by way of br_netfilter: miss' misses bridge 3 ask d udp 3 --sport 4008
check 'packets by way of br_netfilter: answered' is "$(ask d udp 3 --sport 4008)" 3
ip -n r link del br0
rmmod br_netfilter

# Staging is limited, and a staged route evicts nothing.

warm c 4009
staged=$(gained staged to_r --sport 4009 --tos 4 8 12 16 20 --count 500 2>/dev/null)
check 'many keys in turn: not every packet stages a route' eval "[ $staged -gt 0 ] && [ $staged -lt 250 ]"
check 'many keys in turn: the others are counted' eval '[ "$(stat_of miss_limited)" -ge 250 ]'
check 'no route failed for lack of memory' is "$(stat_of miss_no_memory)" 0

# After a lookup in vain, the kernel looks up again. So a route is tried only once per jiffy.
in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=1
ip -n r route add 10.0.1.2/32 dev d1
tried=$(gained miss_no_route to_r --sport 4009 --count 50 2>/dev/null)
check 'a source that rp_filter drops: miss, because there is no route' eval "[ $tried -gt 0 ]"
check 'a source that rp_filter drops: not looked up for every packet' eval "[ $tried -lt 50 ]"
ip -n r route del 10.0.1.2/32 dev d1
forget_flows
check 'no references remain' no_references
