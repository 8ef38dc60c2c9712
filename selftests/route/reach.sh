#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A change of an IPv4 route leaves alone the cached routes that it cannot have changed: those of
# packets neither from nor to its prefix. They serve the next packet, without another lookup. All
# other changes, announced or not, make the kernel choose again.
#
# NFZR_CHANGES=N: makes N random changes.
#
# Group: changes
# Kernel: stock quick
# Long: stock

. lib/test.sh
plan 36

load
router
serve udp
SPORT=4000

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 10
}

# is_served: succeeds if an exchange is served in both directions.
is_served() {
	[ "$(gained hit talk 2>/dev/null)" = 2 ]
}

# after WANTED COMMAND...: succeeds if an exchange after COMMAND counts WANTED ("HITS RENEWED"). The
# collector may look at the routes first, so this is to be tried again.
after() {
	local wanted=$1 hit renewed
	shift
	until_true 20 is_served || return 1
	hit=$(stat_of hit) renewed=$(stat_of renewed)
	"$@" || return 1
	talk >/dev/null
	is "$(($(stat_of hit) - hit)) $(($(stat_of renewed) - renewed))" "$wanted"
}

LEFT='2 0' RENEWED='0 2'
NUMBER=0
# change TEXT...: runs a command of ip(8) in r; N in it is a number that grows.
change() {
	NUMBER=$((NUMBER % 250 + 1))
	# The words of the command.
	# shellcheck disable=SC2086
	ip -n r ${1//N/$NUMBER}
}

# left_by NAME TEXT, renewed_by NAME TEXT: a change leaves both routes alone, or has both chosen
# again.
left_by() {
	check "$1: the routes serve on" until_true 10 after "$LEFT" change "$2"
}
renewed_by() {
	check "$1: the routes are chosen again" until_true 10 after "$RENEWED" change "$2"
}

test_other_prefixes_are_left_alone() {
	left_by 'a host of another network' 'route add 10.77.1.N/32 via 10.0.2.2'
	left_by 'another network' 'route add 10.78.N.0/24 via 10.0.3.2'
	left_by 'a large network' 'route add 11.N.0.0/16 via 10.0.3.2'
	left_by 'a blackhole' 'route add blackhole 10.79.N.0/24'
	left_by 'an unreachable route' 'route add unreachable 10.80.N.0/24'
	left_by 'a prohibited network' 'route add prohibit 10.81.N.0/24'
	left_by 'a throw route of another table' 'route add throw 10.82.N.0/24 table 77'
	left_by 'several nexthops' \
		'route add 10.83.N.0/24 nexthop via 10.0.2.2 nexthop via 10.0.3.2'
	ip -n r route add 10.84.0.0/24 via 10.0.2.2
	left_by 'a route that no packet used is replaced' 'route replace 10.84.0.0/24 via 10.0.2.2 mtu 13N'
	for number in $(seq 250); do
		echo "route add 10.85.0.$number via 10.0.2.2"
	done | ip -n r -b -
	left_by 'a route that no packet used is deleted' 'route del 10.85.0.N'
}

# Not the first of their prefix: the FIB notifier does not tell of them.
test_routes_behind_others_are_left_alone() {
	ip -n r route add 10.90.0.0/24 via 10.0.2.2
	left_by 'a route behind another one of its prefix' 'route add 10.90.0.0/24 via 10.0.3.2 metric N'
	ip -n r route add 10.91.0.0/24 via 10.0.2.2 dsfield 0x20
	left_by 'a route behind one with a DSCP' 'route add 10.91.0.0/24 via 10.0.3.2 metric N'
}

test_a_prefix_of_an_end_counts() {
	renewed_by 'a host beside the server' 'route add blackhole 10.9.9.1N/32'
	renewed_by 'a network that contains the server' \
		'route add 10.9.0.0/17 via 10.0.2.2 metric N'
	renewed_by 'a host beside the client' 'route add blackhole 10.0.1.1N/32'
	renewed_by 'a network that contains both' 'route add 10.0.0.0/8 via 10.0.2.2 metric N'
	renewed_by 'a network shorter than /8' 'route add 8.0.0.0/6 via 10.0.2.2 metric N'
	renewed_by 'the default route' 'route add default via 10.0.2.2 metric N'
}

# A local route may change how all sources are checked, and so may a route with a realm.
test_some_routes_matter_to_all() {
	renewed_by 'a local route' 'route add local 10.33.N.0/24 dev lo'
	ip -n r route add 10.94.0.0/24 via 10.0.2.2 realm 7
	# Without CONFIG_IP_ROUTE_CLASSID, the kernel has no realms.
	if ip -n r route show 10.94.0.0/24 | grep -q realm; then
		renewed_by 'another network, while there are realms' \
			'route add 10.95.N.0/24 via 10.0.2.2'
	else
		skip 'another network, while there are realms' 'the kernel has no realms'
	fi
	ip -n r route del 10.94.0.0/24
	renewed_by 'a rule' 'rule add fwmark 0x9 pref 3N lookup 77'
}

flush_cache() {
	in_ns r sysctl -qw net.ipv4.route.flush=1
}

# use_route: adds a route, and sends a packet by it.
use_route() {
	ip -n r route replace 10.96.0.0/24 via 10.0.3.2
	in_ns r ping -q -c 1 -W 0.1 10.96.0.1 >/dev/null || true
}

# The kernel bumps its genid, and no event tells why.
test_bumps_without_a_reason_count() {
	check 'the routing cache is flushed: the routes are chosen again' \
		until_true 10 after "$RENEWED" flush_cache
	check 'another network after that: the routes are chosen again' until_true 10 after "$RENEWED" \
		eval 'flush_cache; change "route add 10.97.N.0/24 via 10.0.2.2"'
	left_by 'another network after that' 'route add 10.98.N.0/24 via 10.0.2.2'
	check 'a used route is replaced: the routes are chosen again' until_true 10 eval \
		'use_route; after "$RENEWED" change "route replace 10.96.0.0/24 via 10.0.3.2 mtu 13N"'
	check 'a used route is deleted: the routes are chosen again' until_true 10 eval \
		'use_route; after "$RENEWED" change "route del 10.96.0.0/24"'
}

# A process pretends to be the kernel: it announces a new route, so that the bump of the genid seems
# explained. (The collector must not come between the bump and the exchange.)
test_processes_cannot_explain_a_bump() {
	pretend() {
		in_ns r python3 - <<-'END'
			import socket, struct
			sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
			route = struct.pack("BBBBBBBBI", socket.AF_INET, 24, 0, 0, 254, 4, 0, 1, 0)
			route += struct.pack("HH4s", 8, 1, socket.inet_aton("10.99.0.0"))
			message = struct.pack("IHHII", 16 + len(route), 24, 0x600, 0, 0) + route
			with open("/proc/sys/net/ipv4/route/flush", "w") as flush:
			    flush.write("1")
			sock.sendto(message, (0, 1 << 7 - 1))
		END
	}
	# The first change after a bump without a reason is one of all routes.
	check 'a process announces a route: the routes are chosen again' until_true 10 eval \
		'change "route add 10.103.N.0/24 via 10.0.2.2"; after "$RENEWED" pretend'
}

# Where a nexthop's redirects count, a route is not used after the kernel made another one for the
# nexthop.
displace() {
	change 'route add 10.100.N.0/24 via 10.0.2.2'
	# The kernel makes other routes for both nexthops.
	ask c udp 1 --sport $((5000 + NUMBER)) >/dev/null
}
test_a_nexthop_with_redirects_counts() {
	check 'the kernel made other routes for the nexthops: the routes serve on' \
		until_true 10 after "$LEFT" displace
	in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.s1.accept_redirects=1 \
		net.ipv4.conf.c1.accept_redirects=1
	check 'the same, where redirects are accepted: the routes are chosen again' \
		until_true 10 after "$RENEWED" displace
	in_ns r sysctl -qw net.ipv4.conf.all.accept_redirects=0
	in_ns r sysctl -qw net.ipv4.ip_forward_use_pmtu=1
	check 'the same, where learned MTUs count: the routes are chosen again' \
		until_true 10 after "$RENEWED" displace
	in_ns r sysctl -qw net.ipv4.ip_forward_use_pmtu=0
}

# A flowtable takes no connection over whose route has an old genid.
test_a_device_of_a_flowtable_counts() {
	in_ns r nft add table ip fast
	in_ns r nft add flowtable ip fast ft '{ hook ingress priority 0; devices = { c1, s1 }; }'
	renewed_by 'another network, where there is a flowtable' 'route add 10.101.N.0/24 via 10.0.2.2'
	in_ns r nft delete table ip fast
	left_by 'another network, without the flowtable' 'route add 10.102.N.0/24 via 10.0.2.2'
}

# Random changes: all packets go the way that the kernel chooses. Their destinations are in 10.64.0.0/10,
# where no route may be local.
test_random_changes() {
	local few=$((3000 / SLOW)) flows=1000 seed=${NFZR_SEED:-$RANDOM}
	[ -z "${NFZR_LONG-}" ] || few=100000
	local changes=${NFZR_CHANGES:-$few} out hits renewed spared
	forget_flows
	ip -n s route add local 10.64.0.0/10 dev lo
	ip -n r -b - <<-'END'
		route add 10.64.0.0/10 via 10.0.2.2
		rule add pref 100 lookup 77 suppress_prefixlength 11
		rule add pref 200 from 10.0.1.2 lookup 77
		neigh replace 10.0.2.2 dev s1 lladdr 02:00:00:00:00:01 nud permanent
		neigh replace 10.0.3.2 dev t1 lladdr 02:00:00:00:00:02 nud permanent
	END
	ip -n s link set s0 address 02:00:00:00:00:01
	ip -n s link set t0 address 02:00:00:00:00:02
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=2
	hits=$(stat_of hit) renewed=$(stat_of renewed) spared=$(stat_of spared)
	out=$(in_ns r python3 tools/routes.py "$changes" "$flows" "$seed" 2>&1) || true
	awk '{ print "# " $0 }' <<<"$out"
	hits=$(($(stat_of hit) - hits)) renewed=$(($(stat_of renewed) - renewed))
	echo "# seed $seed, $changes changes, $flows flows: $hits hits, $renewed renewals, $(($(stat_of spared) - spared)) spared"
	check 'random changes: each packet took the way that the kernel chooses' \
		grep -q '^packets=.* wrong=0 ' <<<"$out"
	check 'random changes: packets were served' [ "$hits" -gt $((changes / 2)) ]
	check 'random changes: routes were spared' [ $(($(stat_of spared) - spared)) -gt $((changes / 4)) ]
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
