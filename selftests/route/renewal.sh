#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# If the kernel chooses the same way again after a change, the live route is renewed at once and the
# next packet is served. A route that leads another way is staged, as a first one is. Remote hosts
# can make the kernel give up its routes by ICMP errors: this costs a renewal, and no packet.
#
# Group: changes
# Kernel: stock quick

. lib/test.sh
plan 21

load
router
six_router
serve udp
serve6 udp
ip -n r route add 10.8.0.0/24 via 10.0.2.2
ip -n r route add fd00:8::/64 via fd00:2::2

SPORT=4000
# talk FAMILY [COUNT]: sends requests by the flow of a family; prints how many were answered.
talk() {
	local to=$SERVER
	[ "$1" = 4 ] || to=$SERVER6
	traffic c ask udp "$to" "$PORT" "${2:-1}" --sport "$SPORT" --timeout 10 | sed 's/.*answered=//'
}

# is_served FAMILY: succeeds if an exchange is served in both directions.
is_served() {
	[ "$(gained hit talk "$1" 2>/dev/null)" = 2 ]
}

# Adds routes that might matter to the flows, but do not.
CHANGES=0
unrelated() {
	CHANGES=$((CHANGES + 1))
	ip -n r -b - <<-END
		route add blackhole 10.9.9.$((CHANGES % 200 + 10))/32 metric $CHANGES
		route add blackhole fd00:77::$CHANGES/128
	END
}

# after FAMILY RENEWED STAGED COMMAND...: succeeds if an exchange after COMMAND renews and stages so
# many routes. The collector may drop an outdated route first, so this is to be tried again.
after() {
	local family=$1 wanted="$2 $3" renewed staged
	until_true 20 is_served "$family" || return 1
	renewed=$(stat_of renewed) staged=$(stat_of staged)
	"${@:4}"
	talk "$family" >/dev/null
	[ "$(($(stat_of renewed) - renewed)) $(($(stat_of staged) - staged))" = "$wanted" ]
}

test_the_same_way_is_renewed() {
	local family
	for family in 4 6; do
		check "IPv$family: after an unrelated change, the routes of both directions are renewed" \
			until_true 20 after "$family" 2 0 unrelated
		check "IPv$family: they serve the next packets" until_true 20 eval \
			"after $family 2 0 unrelated && is_served $family"
	done
}

move4() {
	ip -n r route replace "$SERVER" via "$1"
}
move6() {
	ip -n r route replace "$SERVER6" via "$1"
}

# The way of the replies stays, and is renewed.
test_another_way_is_staged() {
	check 'IPv4: a route to another gateway is staged' eval \
		'until_true 20 eval "after 4 1 1 move4 10.0.3.2 || { move4 10.0.2.2; false; }"'
	check 'IPv4: packets take the new way' eval \
		'is_served 4 && routes "ipv4 " "sport=$SPORT " dir=orig via=10.0.3.2 oif=t1 >/dev/null'
	move4 10.0.2.2
	check 'IPv6: a route to another gateway is staged' eval \
		'until_true 20 eval "after 6 1 1 move6 fd00:3::2 || { move6 fd00:2::2; false; }"'
	check 'IPv6: packets take the new way' eval \
		'is_served 6 && routes "ipv6 " "sport=$SPORT " dir=orig via=fd00:3::2 oif=t1 >/dev/null'
	move6 fd00:2::2
}

# too_big FAMILY NUMBER: c claims that a packet of r to a host beyond the flow's gateway is too big.
too_big() {
	if [ "$1" = 4 ]; then
		traffic c frame c0 "$(mac_of r c1)" 10.0.1.2 10.0.1.1 --quote "10.8.0.$2" --mtu 1000 \
			>/dev/null
		return
	fi
	in_ns c python3 - "$2" <<-'END'
		import socket, struct, sys
		address = lambda text: socket.inet_pton(socket.AF_INET6, text)
		reply = struct.pack("!BBHHH", 129, 0, 0, 1, 1)
		inner = struct.pack("!IHBB", 6 << 28, len(reply), 58, 64) + address("fd00:1::1") \
		    + address("fd00:8::" + sys.argv[1]) + reply
		sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
		sock.sendto(struct.pack("!BBHI", 2, 0, 0, 1300) + inner, ("fd00:1::1", 0))
	END
}

# A fragmentation-needed error gives up the route that the nexthop has cached, a Packet Too Big all
# routes of the netns.
test_errors_of_other_hosts_cost_a_renewal() {
	local family number renewed hits answered n=20
	for family in 4 6; do
		until_true 20 is_served "$family" || true
		renewed=$(stat_of renewed) hits=$(stat_of hit) answered=0
		for number in $(seq "$n"); do
			too_big "$family" "$number"
			answered=$((answered + $(talk "$family" 2)))
		done
		renewed=$(($(stat_of renewed) - renewed)) hits=$(($(stat_of hit) - hits))
		check "IPv$family, errors about other hosts: all packets are answered" \
			is "$answered" $((2 * n))
		check "IPv$family, errors about other hosts: routes are renewed" \
			[ "$renewed" -ge $((n / 2)) ]
		check "IPv$family, errors about other hosts: packets are served between them" \
			[ "$hits" -ge "$n" ]
	done
}

# flapping COUNT [SECONDS]: c sends so many packets by a one-way flow, each after a change of another
# route, and so long after the packet before.
flapping() {
	in_ns r python3 - "$1" "${2:-0}" <<-'END'
		import os, socket, struct, sys, time
		routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
		os.setns(os.open("/run/netns/c", os.O_RDONLY), os.CLONE_NEWNET)
		flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		flow.bind(("", 4100))
		flow.connect(("10.9.9.9", 11))
		# struct rtmsg of a blackhole in the main table, and RTA_DST.
		route = struct.pack("BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 0, 6, 0)
		route += struct.pack("HH4s", 8, 1, socket.inet_aton("10.9.9.211"))
		for number in range(int(sys.argv[1])):
		    # RTM_NEWROUTE with NLM_F_CREATE, then RTM_DELROUTE.
		    kind, flags = ((24, 0x401), (25, 1))[number % 2]
		    routes.send(struct.pack("IHHII", 16 + len(route), kind, flags, 0, 0) + route)
		    flow.send(b"x" * 16)
		    time.sleep(float(sys.argv[2]))
	END
}

# While every packet finds its route outdated, a direction is renewed once in a jiffy.
test_renewals_are_limited() {
	local began ticks renewed changed n=1000
	PORT=11 ask c udp 5 --sport 4100 --oneway --interval 0.05 >/dev/null
	changed=$(stat_of invalidated_route) renewed=$(stat_of renewed) began=$(jiffies)
	flapping "$n"
	ticks=$(($(jiffies) - began)) changed=$(($(stat_of invalidated_route) - changed))
	renewed=$(($(stat_of renewed) - renewed))
	echo "# $renewed renewals in $ticks jiffies, $changed changes"
	check 'constant change: each packet found its route outdated' [ "$changed" -ge "$n" ]
	check 'constant change: renewals are limited' \
		eval "[ $renewed -gt 0 ] && [ $renewed -le $((ticks + 2)) ]"
}

# While no renewed route serves a packet, two in 17 packets renew.
test_renewals_in_vain_are_rare() {
	local renewed changed n=80
	PORT=11 ask c udp 5 --sport 4100 --oneway --interval 0.05 >/dev/null
	renewed=$(stat_of renewed) changed=$(stat_of miss_route_changed)
	flapping "$n" 0.02
	renewed=$(($(stat_of renewed) - renewed)) changed=$(($(stat_of miss_route_changed) - changed))
	check 'changes before each packet: some of them renew' [ "$renewed" -ge 3 ]
	check 'changes before each packet: most of them do not' [ "$renewed" -le $((n / 4)) ]
	check 'changes before each packet: the others are counted' [ "$changed" -ge $((n / 2)) ]
	check 'no changes any more: served after 16 packets at most' [ "$(
		gained hit eval 'PORT=11 ask c udp 30 --sport 4100 --oneway --interval 0.05' 2>/dev/null
	)" -ge 12 ]
}

test_no_reference_is_left() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
