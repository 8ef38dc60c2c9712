#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets that no device has summed: with the right checksum they are looked up, with a wrong one they
# are left to conntrack.
#
# Group: tracking
# Kernel: stock quick

. lib/test.sh
plan 12

SPORT=4000
COUNT=100

load
router
six_router
serve udp
serve6 udp
ask c udp 3 --sport "$SPORT" >/dev/null
traffic c ask udp "$SERVER6" "$PORT" 3 --sport "$SPORT" >/dev/null

# send FAMILY right|wrong: sends packets of the flow.
send() {
	case $1 in
	4) set -- 10.0.1.2 "$SERVER" "$2" ;;
	6) set -- fd00:1::2 "$SERVER6" "$2" ;;
	esac
	in_ns c python3 tools/sums.py c0 "$(mac_of r c1)" "$1" "$SPORT" "$2" "$PORT" "$COUNT" "$3"
}

# wrong_sums: prints how many UDP packets the server found wrong.
wrong_sums() {
	in_ns s awk '
		$1 == "Udp:" && at { sum += $at; next }
		$1 == "Udp:" { for (i = 2; i <= NF; i++) if ($i == "InCsumErrors") at = i }
		$1 == "Udp6InCsumErrors" { sum += $2 }
		END { print sum }' /proc/net/snmp /proc/net/snmp6
}

test_right_checksums() {
	local family before
	for family in 4 6; do
		before=$(wrong_sums)
		check "IPv$family: packets with the right checksum are looked up" \
			[ "$(gained lookup_hit send "$family" right)" -ge "$COUNT" ]
		check "IPv$family: none of them is left to conntrack for it" \
			is "$(gained lookup_miss_checksum send "$family" right)" 0
		check "IPv$family: the receiver finds none of them wrong" is "$(wrong_sums)" "$before"
	done
}

test_wrong_checksums() {
	local family before
	for family in 4 6; do
		before=$(ct_stat invalid)
		check "IPv$family: packets with a wrong checksum are left to conntrack" \
			is "$(gained lookup_miss_checksum send "$family" wrong)" "$COUNT"
		check "IPv$family: conntrack finds them invalid" \
			is $(($(ct_stat invalid) - before)) "$COUNT"
	done
}

test_nothing_is_logged() {
	check 'no device is said to have summed wrongly' is "$(dmesg | grep -c 'hw csum' || true)" 0
	check 'no reference is left' forget_flows
}

run_cases
