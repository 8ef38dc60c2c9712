#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The same random packets with jump=0, and with jump=1 or jump=2: each frame that leaves is the same,
# byte for byte and in the same order, and so are the counters of IP, of the devices and of the
# connection. UDP and TCP, IPv4 and IPv6, both directions, every kind of NAT.
#
# Group: jump
# Kernel: stock
# Long: stock quick

. lib/test.sh
. lib/exact.sh

KINDS=(both)
if [ -n "${NFZR_LONG-}" ]; then
	# 100,000 packets a family.
	KINDS=(none snat masquerade dnat both)
	COUNT=$((5000 / SLOW))
fi
plan $((${#KINDS[@]} * 8 * ${#LEVELS[@]} * 5 + 1))

load
exact_router

test_all_kinds() {
	local kind family proto direction
	for kind in "${KINDS[@]}"; do
		nat "$kind"
		for family in 4 6; do
			for proto in udp tcp; do
				for direction in orig reply; do
					compare '' "$family" "$kind" "$proto" "$direction"
				done
			done
		done
	done
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
