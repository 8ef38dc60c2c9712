#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Network namespaces and devices are deleted over and over while flows are live in them.
#
# Group: basics
# Kernel: stock quick

. lib/test.sh
plan 3

# How many ports of the server the client sends to: each is a flow.
PORTS=20

load
make_ns c s
ip -n s addr add "$SERVER/32" dev lo
background s python3 tools/traffic.py echo udp "$SERVER" "$PORT"
until_true 10 in_ns s grep -q ':0007 ' /proc/net/udp

# A client that sends without end.
background c python3 -c '
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 4000))
s.setblocking(False)
while True:
    for port in range(7, 7 + '"$PORTS"'):
        try: s.sendto(b"x" * 16, ("10.9.9.9", port))
        except OSError: pass
    time.sleep(0.002)
'

# make_router: creates r between c and s.
make_router() {
	ip netns add r
	in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=1
	ip -b - <<-END
		link add c0 netns c type veth peer name c1 netns r
		link add s0 netns s type veth peer name s1 netns r
	END
	ip -n r -b - <<-END
		addr add 10.0.1.1/24 dev c1
		addr add 10.0.2.1/24 dev s1
		link set c1 up
		link set s1 up
		route add $SERVER via 10.0.2.2 dev s1
	END
	ip -n c -b - <<-END
		addr add 10.0.1.2/24 dev c0
		link set c0 up
		route replace default via 10.0.1.1
	END
	ip -n s -b - <<-END
		addr add 10.0.2.2/24 dev s0
		link set s0 up
		route replace default via 10.0.2.1
	END
	track
}

# One case, because rmmod waits for every netns that is being torn down: when it returns, all
# teardowns are complete.
test_a_netns_with_live_flows_can_be_deleted() {
	local rounds=$((50 / SLOW)) live=0
	for _ in $(seq "$rounds"); do
		make_router
		if until_true 5 eval '[ "$(stat_of ct_references)" -ge "$PORTS" ] &&
			[ "$(stat_of hit)" -ge 20 ]'; then
			live=$((live + 1))
		fi
		ip netns del r
		# The devices disappear with the netns, once it is really torn down.
		until_true 10 eval '! ip -n c link show c0 && ! ip -n s link show s0' || break
	done
	check "$rounds netns deleted: each had live flows" is "$live" "$rounds"
	check 'each was torn down' eval '! ip -n c link show c0 2>/dev/null'

	rmmod nf_zoneroute >/dev/null 2>&1 &
	check 'no netns hangs' until_true 20 test ! -d /sys/module/nf_zoneroute
}

run_cases
