#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Whole systems, hosts and router together: the TCP throughput of iperf3, with segments as large as
# the devices take and with packet-sized ones, and the latency of a request and its answer. With
# every forwarding method, in one boot, where the clock counts instructions.
#
# whole.sh ROW [SETTING=VALUE...], see selftests/bench/rows.

# shellcheck source=selftests/bench/router.sh
. ./router.sh

WAYS=(plain conntrack flowtable both jump ingress)
plan $((${#WAYS[@]} * 4))

ip -n s addr add "$SERVER/32" dev lo
ip -n c route add default via 10.0.1.1
ip -n s route add default via 10.0.2.1

# passed: prints the packets that the router received, that its IP layer forwarded, and that the
# module served.
passed() {
	awk '$1 ~ /^[cs]1:/ { sum += $3 } END { printf "%d ", sum }' "/proc/${HOLDER[r]}/net/dev"
	awk '$1 == "Ip:" && $2 ~ /^[0-9]/ { printf "%s ", $7 }' "/proc/${HOLDER[r]}/net/snmp"
	if [ -d /sys/module/nf_zoneroute ]; then stat_of hit; else echo 0; fi
}

# measured WAY WHAT UNIT COMMAND...: prints the command's value; whether its packets took that path,
# except the first ones.
measured() {
	local way=$1 what=$2 unit=$3 came forwarded hits before value
	shift 3
	read -ra before <<<"$(passed)"
	value=$("$@")
	read -r came forwarded hits <<<"$(passed)"
	came=$((came - before[0])) forwarded=$((forwarded - before[1])) hits=$((hits - before[2]))
	echo "# whole $ROW $what $way $value $unit"
	echo "# $came packets, $forwarded forwarded, $hits served"
	[ "$value" -gt 0 ] && [ "$came" -ge 1000 ] || return 1
	case $way in
	flowtable) [ "$forwarded" -le $((came / 10)) ] ;;
	both | jump | ingress) [ "$hits" -ge $((came * 9 / 10)) ] ;;
	*) [ "$forwarded" -ge $((came * 9 / 10)) ] && [ "$hits" = 0 ] ;;
	esac
}

# throughput: prints Mbit/s.
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
		check "$way: $size segments, that path" measured "$way" "throughput-$size" Mbit/s throughput
	done
	check "$way: requests took that path" measured "$way" latency ns ./rr c s "$SERVER" 5000
	case $way in
	plain) check "$way: no connection is tracked" is "$(in_ns r conntrack -C)" 0 ;;
	*) check "$way: connections are tracked" [ "$(in_ns r conntrack -C)" -ge 3 ] ;;
	esac
done
