#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Measures the cost of a routed packet with and without the cache, with many rules, many routes, and
# rp_filter. Runs on a clock that counts instructions, so that times are numbers of instructions.
# Costs are printed, not judged; only whether packets were served from the cache is. Packets come
# from pktgen: UDP, 60 bytes, 101 connections.
#
# NFZR_ROUTES=N: the largest number of routes, besides none and a twentieth of it (500000 takes some
# minutes).
#
# Group: scale
# Kernel: scale

. lib/test.sh

MOST=${NFZR_ROUTES:-20000}
PORTS=101
N=$((PORTS * 100))
RULES=(0 10 100 1000)
ROUTES=($((MOST / 20)) "$MOST")
plan $(((${#RULES[@]} + ${#ROUTES[@]}) * 4 + 1))

modprobe pktgen
load
make_ns c r s
link c c0 10.0.1.2/24 r c1 10.0.1.1/24
link s s0 10.0.2.2/24 r s1 10.0.2.1/24
in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
	net.ipv4.conf.c1.rp_filter=0 net.ipv4.conf.s1.rp_filter=0 \
	net.nf_zoneroute.max_age_ms=60000 net.nf_zoneroute.zone_lookup=0
udp_timeouts r 7200 7200
ip -n r route add "$SERVER" via 10.0.2.2
ip -n c route add default via 10.0.1.1
in_ns c ping -q -c 1 10.0.1.1 >/dev/null
in_ns r ping -q -c 1 10.0.2.2 >/dev/null
in_ns s nft -f - <<-'END'
	table netdev sink {
		chain in {
			type filter hook ingress device s0 priority 0
			udp dport 1500 drop
		}
	}
END
wake
track

# generate COUNT: sends COUNT packets; prints instructions per packet.
generate() {
	local line
	cat >/tmp/pktgen <<-END
		src_min 10.0.1.2
		src_max 10.0.1.2
		dst $SERVER
		udp_src_min 1000
		udp_src_max $((1000 + PORTS))
		udp_dst_min 1500
		udp_dst_max 1500
		count $1
		clone_skb 0
		pkt_size 60
		delay 0
		dst_mac $(mac_of r c1)
	END
	in_ns c bash -c "
		cd /proc/net/pktgen
		echo rem_device_all >kpktgend_0
		echo add_device c0 >kpktgend_0
		while read -r line; do echo \"\$line\" >c0; done </tmp/pktgen
		echo start >pgctrl
		cat c0" >/tmp/pktgen.out
	line=$(grep -o 'OK: [0-9]*' /tmp/pktgen.out)
	echo $((${line#OK: } * 1000 / $1))
}

# row NAME: measures with and without the cache, each with and without rp_filter.
row() {
	local rp_filter cache cost hits
	for rp_filter in 0 1; do
		for cache in 0 1; do
			in_ns r sysctl -qw "net.ipv4.conf.c1.rp_filter=$rp_filter" \
				"net.nf_zoneroute.route_cache=$cache"
			for _ in 1 2 3; do
				generate "$PORTS" >/dev/null
			done
			hits=$(stat_of hit)
			cost=$(generate "$N")
			hits=$(($(stat_of hit) - hits))
			check "$1, rp_filter=$rp_filter, route_cache=$cache: hits as expected" \
				is "$hits" $((cache * N))
			echo "# cost $1, rp_filter=$rp_filter, route_cache=$cache: $cost instructions per packet"
		done
	done
}

test_cost_with_many_rules() {
	local rules i
	for rules in "${RULES[@]}"; do
		# None of these rules matches.
		for i in $(seq "$rules"); do
			echo "rule add from 10.99.$((i / 256)).$((i % 256)) lookup 100 pref $((1000 + i))"
		done >/tmp/rules
		[ "$rules" = 0 ] || ip -n r -b /tmp/rules
		row "$rules rules"
		sed 's/rule add/rule del/' /tmp/rules >/tmp/unrules
		[ "$rules" = 0 ] || ip -n r -b /tmp/unrules
	done
}

# The routes stay, because deleting them takes long and no later case sends packets.
test_cost_with_many_routes() {
	local routes
	for routes in "${ROUTES[@]}"; do
		python3 - "$routes" >/tmp/routes <<-'END'
			import sys
			for i in range(int(sys.argv[1])):
			    print(f"route replace {20 + i // 65536}.{i // 256 % 256}.{i % 256}.0/24 via 10.0.2.2")
		END
		ip -n r -b /tmp/routes
		row "$routes routes"
	done
}

test_no_references_remain() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
