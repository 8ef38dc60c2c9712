#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Whole systems, hosts and router together: what iperf3 has of TCP throughput, with segments as large as the
# devices take them and with each of a packet's size, and how long a request and its answer take. By every
# way there is, in one boot, where the clock counts instructions.
#
# whole.sh ROW [SETTING=VALUE...], see selftests/bench/rows.

# shellcheck source=selftests/bench/router.sh
. ./router.sh

WAYS=(plain conntrack flowtable both)
plan $((${#WAYS[@]} * 2))

ip -n s addr add "$SERVER/32" dev lo
ip -n c route add default via 10.0.1.1
ip -n s route add default via 10.0.2.1

# throughput: Mbit/s.
throughput() {
	in_ns c iperf3 -c "$SERVER" -t 3 -O 1 -J |
		python3 -c 'import json, sys; print(int(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e6))'
}

background s iperf3 -s
until_true 10 in_ns s grep -q ':1451 ' /proc/net/tcp6
for way in "${WAYS[@]}"; do
	set_way "$way"
	for size in large packet; do
		for end in 'c c0' 's s0'; do
			read -ra end <<<"$end"
			in_ns "${end[0]}" ethtool -K "${end[1]}" tso "$([ "$size" = large ] && echo on || echo off)" \
				gso "$([ "$size" = large ] && echo on || echo off)" gro off
		done
		echo "# whole $ROW throughput-$size $way $(throughput) Mbit/s"
	done
	hits=$([ "$way" != both ] || stat_of hit)
	./rr c s "$SERVER" 5000 >/tmp/rr
	echo "# whole $ROW latency $way $(cat /tmp/rr) ns"
	check "$way: requests were answered" [ "$(cat /tmp/rr)" -gt 0 ]
	case $way in
	both) check "$way: they went that way" [ $(($(stat_of hit) - hits)) -ge 10000 ] ;;
	flowtable) check "$way: they went that way" eval '[ "$(in_ns r conntrack -L 2>/dev/null | grep -c OFFLOAD)" -ge 1 ]' ;;
	plain) check "$way: they went that way" is "$(in_ns r conntrack -C)" 0 ;;
	*) check "$way: they went that way" [ "$(in_ns r conntrack -C)" -ge 1 ] ;;
	esac
done
