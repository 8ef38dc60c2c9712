#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs under constant change: a thousand route changes a second under live flows, tens of thousands
# of connections that come and go while /proc is read, devices that come and go under traffic. No
# packet may take a stale path, no line may be lost or doubled, and nothing may be left behind.
#
# Group: changes
# Kernel: stock quick

. lib/test.sh
plan 17

load
router
six_router

TIMES=$((20 / SLOW / 2 * 2))
# Changes unrelated to the flow, with changes of its own route in between.
for family in 4 6; do
	changed=$(stat_of invalidated_route) hits=$(stat_of hit)
	misses=$(shown stats | awk '/^miss_/ { sum += $2 } END { print sum }')
	begun=$(cut -d' ' -f1 /proc/uptime)
	in_ns r python3 tools/stale.py "$family" "/proc/${HOLDER[r]}/net/nf_zoneroute/routes" 1000 --churn "$TIMES" >/tmp/stale 2>&1 || true
	sed 's/^/# /' /tmp/stale
	seconds=$(echo "$(cut -d' ' -f1 /proc/uptime) $begun" | awk '{ print $1 - $2 }')
	changed=$(($(stat_of invalidated_route) - changed)) hits=$(($(stat_of hit) - hits))
	misses=$(($(shown stats | awk '/^miss_/ { sum += $2 } END { print sum }') - misses))
	rate=$(awk "BEGIN { print int($changed / $seconds) }")
	check "IPv$family: no packet takes a stale path while routes change" \
		is "$(grep -c '^ok|' /tmp/stale) $(grep -vc '^ok|' /tmp/stale)" "$TIMES 0"
	check "IPv$family: routes did change fast enough" [ "$rate" -ge $((1000 / SLOW / SLOW)) ]
	check "IPv$family: the flow was served meanwhile" [ "$hits" -ge $((1000 / SLOW / SLOW)) ]
	echo "# churn IPv$family: $rate route changes a second for $seconds s; of $((hits + misses)) packets $((hits * 100 / (hits + misses + 1))) % were served"
done
forget_flows || echo '# flows remain'

# Readers of /proc. Connections of zone 1 stay, those of zone 2 come and go.
in_ns r nft -f - <<-'END'
	table ip zones {
		chain pre {
			type filter hook prerouting priority raw
			iifname "c1" ct zone set 1
			iifname "d1" ct zone set 2
			iifname "s1" ip daddr 10.0.1.0/24 ct zone set 1
			iifname "s1" ip daddr 10.0.4.0/24 ct zone set 2
		}
	}
END
STAY=200 COME=$((100000 / SLOW / SLOW))
sysctl -qw net.netfilter.nf_conntrack_max=262144
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3600 net.netfilter.nf_conntrack_udp_timeout_stream=3600
serve udp
until [ "$(routes zone=1 dir=orig state=live | wc -l)" -ge "$STAY" ]; do
	traffic c flows "$SERVER" "$PORT" 20000 "$STAY" 2 >/dev/null
done
check "$STAY connections are there to stay" is "$(routes zone=1 dir=orig | wc -l)" "$STAY"
flood() {
	in_ns d python3 - "$1" "$2" <<-'END'
		import socket, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		ip = bytes([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 4])
		for number in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
		    source = bytes([2 + number // 50000])
		    port = 10000 + number % 50000
		    s.sendto(ip + source + bytes([10, 9, 9, 9]) + port.to_bytes(2, "big") + b"\0\x0b\0\x10\0\0" + bytes(8),
		             ("10.9.9.9", 0))
	END
}
read_all() {
	python3 - "/proc/${HOLDER[r]}/net/nf_zoneroute/routes" /tmp/reading <<-'END'
		import collections, os, sys
		reads = most = bad = 0
		while os.path.exists(sys.argv[2]) or reads < 3:
		    seen = collections.Counter()
		    lines = 0
		    with open(sys.argv[1]) as file:
		        for line in file:
		            lines += 1
		            words = line.split()
		            if "zone=1" in words:
		                seen[tuple(words[1:8])] += 1
		    reads += 1
		    most = max(most, lines)
		    bad += len(seen) != 400 or set(seen.values()) != {1}
		print(reads, most, bad)
	END
}
: >/tmp/reading
read_all >/tmp/read &
reader=$!
most=0
for round in 1 2 3 4; do
	flood $(((round - 1) * COME / 4)) $((COME / 4))
	flows=$(zone 2 flows)
	most=$((most + flows))
	in_ns r sh -c 'echo zone 2 flush >/proc/net/nf_zoneroute/zones'
done
rm /tmp/reading
wait "$reader"
read -r reads lines bad </tmp/read
echo "# reading: $reads times, up to $lines lines, while $most connections came and went"
check 'other connections came and went while routes was read' [ "$most" -ge $((COME * 9 / 10)) ]
check 'each read has each line of the connections that stay exactly once' is "$bad" 0
check 'reads had lines of the other connections, too' [ "$lines" -gt $((COME / 8)) ]
forget_flows || echo '# flows remain'
in_ns r nft delete table ip zones

# Devices, and a whole netns, are removed under traffic of both families.
steady() {
	background c python3 tools/traffic.py ask udp "$1" 11 1000000 --sport 4000 --oneway --interval 0.002
}
steady "$SERVER"
steady "$SERVER6"
gone=0
for _ in $(seq $((20 / SLOW))); do
	until_true 10 eval 'routes "ipv4 " sport=4000 oif=s1 state=live && routes "ipv6 " sport=4000 oif=s1 state=live' || break
	ip -n r link del s1
	gone=$((gone + 1))
	link s s0 10.0.2.2/24 r s1 10.0.2.1/24
	ip -n s addr add fd00:2::2/64 dev s0 nodad
	ip -n r addr add fd00:2::1/64 dev s1 nodad
	ip -n r -b - <<-END
		route replace $SERVER via 10.0.2.2
		route replace $SERVER6 via fd00:2::2 dev s1
	END
done
check 'removing a device under traffic, again and again, does not hang' is "$gone" $((20 / SLOW))
check 'routes of removed devices were dropped' [ "$(stat_of slot_device_gone)" -ge $((20 / SLOW)) ]
check 'no device waits for a reference' eval '! dmesg | grep -q "waiting for .* to become free"'
check 'ct_references equals the number of flows' \
	is "$(stat_of ct_references)" "$(shown zones | awk '{ sub(/.* flows=/, ""); sum += $1 } END { print sum + 0 }')"
until_true 10 routes 'ipv6 ' sport=4000 oif=s1 state=live
kill "${HOLDER[r]}"
ip netns del r
check 'a netns that is removed under traffic of both families is torn down' \
	until_true 20 eval '! ip -n s link show s0 && ! ip -n c link show c0'
rmmod nf_zoneroute >/dev/null 2>&1 &
check 'the module can be unloaded afterwards' until_true 30 test ! -d /sys/module/nf_zoneroute
check 'no page allocation failed' eval '! dmesg | grep -q "page allocation failure"'
