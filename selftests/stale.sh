#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# No stale packet: for each kind of change that decides a route, IPv4 and IPv6, not one packet that was
# sent after the change had returned goes the old way; where the kernel raises no event at all, none
# later than max_age_ms. The comments make the table in README.md.

. ./lib.sh
plan $(($(python3 stale.py 4 - 0 --count) + $(python3 stale.py 6 - 0 --count) + 2))

# Where no event is raised, this bounds it.
MAX_AGE=2000

load
router
six_router
# Another link-layer address behind s1, and another gateway.
ip -n s link add m0 link s0 type macvlan mode bridge
ip -n s link set m0 up
ip -n s -b - <<-END
	addr add 10.0.2.3/24 dev m0
	addr add fd00:2::3/64 dev m0 nodad
	addr add fe80::3/64 dev m0 nodad
	addr add fe80::2/64 dev s0 nodad
	addr add fd00:9::9/128 dev t0 nodad
END
in_ns s sysctl -qw net.ipv4.conf.m0.rp_filter=0 net.ipv4.conf.m0.arp_ignore=1 net.ipv4.conf.s0.arp_ignore=1

for family in 4 6; do
	in_ns r python3 stale.py "$family" "/proc/${HOLDER[r]}/net/nf_zoneroute/routes" "$MAX_AGE" >/tmp/stale 2>&1 ||
		echo '# stale.py came to an early end' "$((FAILED = 1))"
	while IFS='|' read -r verdict name figures; do
		case $verdict in
		ok) ok "IPv$family: $name" ;;
		stale | failed) not_ok "IPv$family: $name" ;;
		*) echo "# $verdict" ;;
		esac
		[ -z "$figures" ] || echo "# stale IPv$family: $name: $figures"
	done </tmp/stale
done
check 'nothing is held' forget_flows
check 'verify mode was not needed' is "$(stat_of verify_routes)" 0
