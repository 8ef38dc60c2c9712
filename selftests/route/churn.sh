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
# End the reader, even if the script ends early.
at_end() {
	rm -f /tmp/reading
}
plan 17

load
router
six_router

# all_misses: prints how many packets were not served, for any reason.
all_misses() {
	shown stats | awk '/^miss_/ { sum += $2 } END { print sum }'
}

# Changes unrelated to the flow, with changes of its own route in between.
test_no_packet_takes_a_stale_path_while_routes_change() {
	local times=$((20 / SLOW / 2 * 2)) enough=$((1000 / SLOW / SLOW))
	local family changed hits misses begun seconds rate percent
	for family in 4 6; do
		changed=$(stat_of invalidated_route) hits=$(stat_of hit)
		misses=$(all_misses)
		begun=$(cut -d' ' -f1 /proc/uptime)
		in_ns r python3 tools/stale.py "$family" \
			"/proc/${HOLDER[r]}/net/nf_zoneroute/routes" 1000 --churn "$times" \
			>/tmp/stale 2>&1 || true
		sed 's/^/# /' /tmp/stale
		seconds=$(echo "$(cut -d' ' -f1 /proc/uptime) $begun" | awk '{ print $1 - $2 }')
		changed=$(($(stat_of invalidated_route) - changed)) hits=$(($(stat_of hit) - hits))
		misses=$(($(all_misses) - misses))
		rate=$(awk "BEGIN { print int($changed / $seconds) }")
		percent=$((hits * 100 / (hits + misses + 1)))
		check "IPv$family: no packet takes a stale path while routes change" \
			is "$(grep -c '^ok|' /tmp/stale) $(grep -vc '^ok|' /tmp/stale)" "$times 0"
		# Counted for each change of its own route, because a busy host slows down both.
		check "IPv$family: many other routes changed meanwhile" \
			[ "$changed" -ge $((times * enough / 2)) ]
		check "IPv$family: the flow was served meanwhile" [ "$hits" -ge "$enough" ]
		echo "# churn IPv$family: $rate route changes a second for $seconds s;" \
			"of $((hits + misses)) packets $percent % were served"
	done
	forget_flows || echo '# flows remain'
}

# flood FIRST COUNT: makes COUNT one-way connections of d, those of numbers FIRST and up.
flood() {
	in_ns d python3 - "$1" "$2" <<-'END'
		import socket, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		ip = bytes([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 4])
		for number in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
		    source = bytes([2 + number // 50000])
		    port = 10000 + number % 50000
		    s.sendto(ip + source + bytes([10, 9, 9, 9]) + port.to_bytes(2, "big") +
		             b"\0\x0b\0\x10\0\0" + bytes(8), ("10.9.9.9", 0))
	END
}

# read_all LINES: reads routes as long as /tmp/reading exists; prints how often, the most lines of a
# read, and how many reads did not have LINES lines of zone 1, each once.
read_all() {
	python3 - "/proc/${HOLDER[r]}/net/nf_zoneroute/routes" /tmp/reading "$1" <<-'END'
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
		    bad += len(seen) != int(sys.argv[3]) or set(seen.values()) != {1}
		print(reads, most, bad)
	END
}

# Connections of zone 1 stay, those of zone 2 come and go.
test_each_read_has_each_line_once_while_connections_come_and_go() {
	local stay=200 come=$((100000 / SLOW / SLOW)) rounds=4
	local max reader most=0 round flows reads lines bad
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
	max=$(sysctl -n net.netfilter.nf_conntrack_max)
	sysctl -qw net.netfilter.nf_conntrack_max=262144
	udp_timeouts r 3600 3600
	serve udp
	until [ "$(routes zone=1 dir=orig state=live | wc -l)" -ge "$stay" ]; do
		traffic c flows "$SERVER" "$PORT" 20000 "$stay" 2 >/dev/null
	done
	check "$stay connections are there to stay" is "$(routes zone=1 dir=orig | wc -l)" "$stay"
	: >/tmp/reading
	read_all $((2 * stay)) >/tmp/read &
	reader=$!
	for ((round = 0; round < rounds; round++)); do
		flood $((round * come / rounds)) $((come / rounds))
		flows=$(zone 2 flows)
		most=$((most + flows))
		in_ns r sh -c 'echo zone 2 flush >/proc/net/nf_zoneroute/zones'
	done
	rm /tmp/reading
	wait "$reader"
	read -r reads lines bad </tmp/read
	echo "# reading: $reads times, up to $lines lines, while $most connections came and went"
	check 'other connections came and went while routes was read' \
		[ "$most" -ge $((come * 9 / 10)) ]
	check 'each read has each line of the connections that stay exactly once' is "$bad" 0
	check 'reads had lines of the other connections, too' [ "$lines" -gt $((come / 8)) ]
	forget_flows || echo '# flows remain'
	in_ns r nft delete table ip zones
	udp_timeouts r 600 700
	sysctl -qw net.netfilter.nf_conntrack_max="$max"
}

# steady SPORT: starts a steady one-way stream of each family, which nothing answers.
steady() {
	local to
	for to in "$SERVER" "$SERVER6"; do
		background c python3 tools/traffic.py ask udp "$to" "$SINK" 1000000 --sport "$1" \
			--oneway --interval 0.002
	done
}

# end_steady: ends both streams, which were the last jobs.
end_steady() {
	end_jobs "${JOBS[@]: -2}"
	unset 'JOBS[-1]' 'JOBS[-1]'
}

# both_live SPORT: succeeds if both streams are served by path A.
both_live() {
	routes 'ipv4 ' "sport=$1" oif=s1 state=live && routes 'ipv6 ' "sport=$1" oif=s1 state=live
}

test_devices_are_removed_under_traffic() {
	local sport=4001 times=$((20 / SLOW)) removed=0 dropped
	dropped=$(stat_of slot_device_gone)
	steady "$sport"
	for _ in $(seq "$times"); do
		until_true 10 both_live "$sport" || break
		ip -n r link del s1
		removed=$((removed + 1))
		link s s0 10.0.2.2/24 r s1 10.0.2.1/24
		ip -n s addr add fd00:2::2/64 dev s0 nodad
		ip -n r addr add fd00:2::1/64 dev s1 nodad
		ip -n r -b - <<-END
			route replace $SERVER via 10.0.2.2
			route replace $SERVER6 via fd00:2::2 dev s1
		END
	done
	check 'removing a device under traffic, again and again, does not hang' \
		is "$removed" "$times"
	check 'routes of removed devices were dropped' \
		[ $(($(stat_of slot_device_gone) - dropped)) -ge "$times" ]
	check 'no device waits for a reference' \
		is "$(dmesg | grep -c 'waiting for .* to become free' || true)" 0
	check 'ct_references equals the number of flows' is "$(stat_of ct_references)" \
		"$(shown zones | awk '{ sub(/.* flows=/, ""); sum += $1 } END { print sum + 0 }')"
	end_steady
	# The routes of s by s0 went with it.
	ip -n s -b - <<-END
		route replace default via 10.0.2.1
		route replace default via fd00:2::1
	END
}

# Only the checks of the kernel log may follow: r and the module are gone afterwards.
test_netns_is_removed_under_traffic() {
	local sport=4002
	steady "$sport"
	until_true 10 both_live "$sport"
	kill "${HOLDER[r]}"
	ip netns del r
	check 'a netns that is removed under traffic of both families is torn down' \
		until_true 20 eval '! ip -n s link show s0 && ! ip -n c link show c0'
	rmmod nf_zoneroute >/dev/null 2>&1 &
	check 'the module can be unloaded afterwards' \
		until_true 30 test ! -d /sys/module/nf_zoneroute
}

test_no_page_allocation_failed() {
	check 'no page allocation failed' is "$(dmesg | grep -c 'page allocation failure' || true)" 0
}

run_cases
