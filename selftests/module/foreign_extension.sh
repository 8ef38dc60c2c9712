#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# act_ct uses the conntrack extension that the module borrows, in the first netns. act_ct must not
# find a valid interface index in it, and the module must not take data of act_ct for a handle.
# Connections of act_ct are found by tuple.
#
# Group: fitness
# Kernel: stock quick

. lib/test.sh
plan 8

modprobe act_ct
load

# The router is the first netns here, because act_ct writes the extension only there.
make_ns c s
agent c
ip link add c0 netns c type veth peer name c1
ip link add s0 netns s type veth peer name s1
ip -n c addr add 10.0.1.2/24 dev c0
ip -n s addr add 10.0.2.2/24 dev s0
ip -n s addr add "$SERVER/32" dev lo
ip addr add 10.0.1.1/24 dev c1
ip addr add 10.0.2.1/24 dev s1
for dev in c0 s0; do ip -n "${dev%0}" link set "$dev" up; done
# Without IPv6, no address is added while packets are sent.
for dev in c1 s1; do
	sysctl -qw "net.ipv6.conf.$dev.disable_ipv6=1"
	ip link set "$dev" up
done
ip -n c route add default via 10.0.1.1
ip -n s route add default via 10.0.2.1
ip route add "$SERVER" via 10.0.2.2
sysctl -qw net.ipv4.ip_forward=1 net.nf_zoneroute.max_age_ms=60000
serve udp

# first NAME: prints a counter of the first netns.
first() {
	awk -v name="$1" '$1 == name { print $2 }' /proc/net/nf_zoneroute/stats
}

# first_is_empty: succeeds if no reference is held in the first netns.
first_is_empty() {
	[ "$(first ct_references) $(first dst_references)" = '0 0' ]
}

# act_ct: passes the packets from both sides through act_ct.
act_ct() {
	local dev
	for dev in c1 s1; do
		tc qdisc add dev "$dev" clsact
		tc filter add dev "$dev" ingress protocol ip flower ip_proto udp ct_state -trk \
			action ct pipe action ct commit pipe action ok 2>/dev/null ||
			tc filter add dev "$dev" ingress protocol ip matchall action ct
	done
}

# acted: prints how many packets from c passed through act_ct.
acted() {
	tc -s filter show dev c1 ingress |
		sed -n 's/.*Sent [0-9]* bytes \([0-9]*\) pkt.*/\1/p' | head -n 1
}

no_act_ct() {
	local dev
	for dev in c1 s1; do
		tc qdisc del dev "$dev" clsact
	done
}

# The first netns stays after the script.
at_end() {
	nft delete table ip firewall || true
	ip link del c1 || true
	ip link del s1 || true
}

nft -f - <<-'END'
	table ip firewall {
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state new counter accept
		}
	}
END

test_packets_are_served_without_act_ct() {
	local before
	before=$(first hit)
	ask c udp 5 --sport 4000 >/dev/null
	check 'without act_ct: served' [ "$(first hit)" -gt "$before" ]
	conntrack -F >/dev/null 2>&1
	until_true 5 first_is_empty
}

# Port 4010: a connection that the module has seen first; act_ct overwrites the handle with its
# index. Port 4011: a connection that act_ct created, with the extension.
test_connections_that_act_ct_sees_are_served() {
	local known=5 created=10 before
	ask c udp 5 --sport 4010 >/dev/null
	act_ct

	before=$(first hit)
	check 'a known connection that act_ct sees: answered' \
		is "$(ask c udp "$known" --sport 4010)" "$known"
	check 'a known connection that act_ct sees: served' \
		is $(($(first hit) - before)) $((2 * known))

	# Some packets at the beginning of a connection are not served.
	before=$(first hit)
	check 'a connection of act_ct: answered' \
		is "$(ask c udp "$created" --sport 4011)" "$created"
	check 'a connection of act_ct: served, found by its tuple' \
		[ $(($(first hit) - before)) -ge $((2 * created - 5)) ]

	check 'act_ct saw the packets' [ "$(acted)" -ge $((known + created)) ]
	check 'one flow per connection' \
		is "$(grep -c ' udp .*dir=orig' /proc/net/nf_zoneroute/routes)" 2

	no_act_ct
	conntrack -F >/dev/null 2>&1
	check 'no references remain' until_true 5 first_is_empty
}

run_cases
