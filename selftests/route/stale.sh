#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# No stale packet: for each kind of change that affects a route, for IPv4 and IPv6, no packet sent
# after the change returned takes the old path. If the kernel raises no event, no packet takes it
# later than max_age_ms. `make docs` makes the table in docs/correctness.md of the comments printed
# here.
#
# The debug kernel has another CPU, and a module that delays changes between their announcement and
# their taking effect, so that routes are looked up again in between.
#
# Group: stale
# Kernel: stock quick

. lib/test.sh

# The bound, in ms, if the kernel raises no event.
MAX_AGE=2000
# Changes that are announced before they take effect.
ANNOUNCED='^(route (replaced|added)|that route deleted$|address|rule|nexthop|route of a|member|resilient|idle bucket|one of several)'

count() {
	python3 tools/stale.py "$1" - 0 --kinds "$2" --count
}

# One check of each change, and one of the references at the end; two of the delays themselves.
checks=$(($(count 4 '') + $(count 6 '') + 1))
[ ! -e nfzr_delay.ko ] ||
	checks=$((checks + $(count 4 "$ANNOUNCED") + $(count 6 "$ANNOUNCED") + 2))
plan "$checks"

load
router
# A second link-layer address and gateway behind s1: s0 and m0 are on one bridge.
ip -n s link set s0 down
ip -n s addr flush dev s0
ip -n s link set s0 name p0
ip -n s -b - <<-END
	link add br0 type bridge
	link add s0 type veth peer name q0
	link add m0 type veth peer name q1
	link set p0 master br0
	link set q0 master br0
	link set q1 master br0
	link set br0 up
	link set p0 up
	link set q0 up
	link set q1 up
	link set s0 up
	link set m0 up
	addr add 10.0.2.2/24 dev s0
	addr add 10.0.2.3/24 dev m0
	route add default via 10.0.2.1
END
six_router
ip -n s -b - <<-END
	addr add fd00:2::3/64 dev m0 nodad
	addr add fe80::3/64 dev m0 nodad
	addr add fe80::2/64 dev s0 nodad
	neigh add proxy fd00:9::9 dev t0
END
# A fixed seed, so that the choice among nexthops is always the same.
in_ns r sysctl -qw net.ipv4.fib_multipath_hash_seed=1
in_ns s sysctl -qw net.ipv4.conf.m0.arp_ignore=1 net.ipv4.conf.s0.arp_ignore=1 \
	net.ipv4.conf.br0.arp_ignore=1 net.ipv6.conf.t0.forwarding=1 \
	net.ipv6.conf.t0.proxy_ndp=1 net.ipv6.neigh.t0.proxy_delay=0

if [ -n "${JUMPS-}" ]; then
	in_ns r nft -f - <<-'END'
		table inet fast {
			chain forward {
				type filter hook forward priority filter
				ct mark set ct mark or 0x100
			}
		}
	END
	in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 \
		net.nf_zoneroute.jump="${LEVEL:-1}"
fi

# try_changes KINDS [PREFIX]: makes one check of each change whose name matches KINDS, for both
# families.
try_changes() {
	local family verdict name figures
	for family in 4 6; do
		in_ns r python3 tools/stale.py "$family" \
			"/proc/${HOLDER[r]}/net/nf_zoneroute/routes" "$MAX_AGE" --kinds "$1" ${JUMPS:+--jumps} \
			>/tmp/stale 2>&1 ||
			echo '# stale.py came to an early end' "$((FAILED = 1))"
		while IFS='|' read -r verdict name figures; do
			name="${2-}IPv$family: $name"
			case $verdict in
			ok) ok "$name" ;;
			stale | failed) not_ok "$name" ;;
			*)
				echo "# $verdict"
				continue
				;;
			esac
			echo "# ${JUMPS:-stale} $name: $figures"
		done </tmp/stale
	done
}

test_no_packet_takes_the_old_path_after_a_change() {
	try_changes ''
}

test_no_packet_takes_the_old_path_if_changes_are_delayed() {
	[ -e nfzr_delay.ko ] || return 0
	insmod ./nfzr_delay.ko delay_ms=30
	try_changes "$ANNOUNCED" 'held up, '
	check 'changes were delayed' [ "$(cat /sys/module/nfzr_delay/parameters/held_up)" -ge 100 ]
	check 'buckets were delayed after all listeners were notified' \
		[ "$(cat /sys/module/nfzr_delay/parameters/held_up_after)" -ge 4 ]
	rmmod nfzr_delay
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
