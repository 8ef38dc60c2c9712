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

nft -f - <<-'END'
	table ip firewall {
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state new counter accept
		}
	}
END

ask c udp 5 --sport 4000 >/dev/null
check 'without act_ct: served' eval '[ "$(first hit)" -gt 0 ]'

for dev in c1 s1; do
	tc qdisc add dev "$dev" clsact
	tc filter add dev "$dev" ingress protocol ip flower ip_proto udp ct_state -trk \
		action ct pipe action ct commit pipe action ok 2>/dev/null ||
		tc filter add dev "$dev" ingress protocol ip matchall action ct
done

# A connection that the module has seen first: act_ct overwrites the handle with its index.
before=$(first hit)
check 'a known connection that act_ct sees: answered' is "$(ask c udp 5 --sport 4000)" 5
check 'a known connection that act_ct sees: served' is $(($(first hit) - before)) 10

# A connection that act_ct created, with the extension.
before=$(first hit)
check 'a connection of act_ct: answered' is "$(ask c udp 10 --sport 4001)" 10
check 'a connection of act_ct: served, found by its tuple' eval "[ $(($(first hit) - before)) -ge 15 ]"
check 'act_ct saw the packets' eval \
	'[ "$(tc -s filter show dev c1 ingress | sed -n "s/.*Sent [0-9]* bytes \([0-9]*\) pkt.*/\1/p" | head -n 1)" -ge 15 ]'
check 'one flow per connection' is "$(grep -c ' udp .*dir=orig' /proc/net/nf_zoneroute/routes)" 2

tc qdisc del dev c1 clsact
tc qdisc del dev s1 clsact
conntrack -F >/dev/null 2>&1
check 'no references remain' until_true 5 eval \
	'[ "$(first ct_references) $(first dst_references)" = "0 0" ]'
nft delete table ip firewall
ip link del c1
ip link del s1
