#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# If a packet differs from the cached route in mark, DSCP or incoming device, it is a miss and takes
# the path that the rules select. A packet that rp_filter would drop is dropped. The DSCP counts once
# there was a rule or route that looks at it. Each of two incoming devices has a route.
#
# Group: basics
# Kernel: stock
# Long: quick

. lib/test.sh
plan 33

# by_path COMMAND...: prints how many packets arrived by path A and by path B.
by_path() {
	local a b
	a=$(arrived by_a)
	b=$(arrived by_b)
	"$@" >&2
	echo "$(($(arrived by_a) - a)) $(($(arrived by_b) - b))"
}

# marked SPORT MARK: sets the mark that packets from port SPORT get in mangle.
marked() {
	in_ns r nft -f - <<-END
		table ip tag
		delete table ip tag
		table ip tag {
			chain pre {
				type filter hook prerouting priority mangle
				udp sport $1 meta mark set $2
			}
		}
	END
}

# from_d DPORT SPORT COUNT: sends packets from d with c's address.
from_d() {
	traffic d frame d0 "$mac_of_r_d" 10.0.1.2 "$SERVER" --dport "$1" --sport "$2" --count "$3"
}

load
router
serve udp
mac_of_r_d=$(mac_of r d1)

# Path B is in table 100, for rules to select.
ip -n r route add "$SERVER" via 10.0.3.2 table 100
ip -n r route flush cache

test_mark_is_part_of_the_key() {
	local sport=4000 n=3 before route
	ip -n r rule add fwmark 7 lookup 100
	ask c udp 10 --sport "$sport" >/dev/null
	check 'no mark: path A' is "$(by_path ask c udp "$n" --sport "$sport" 2>/dev/null)" "$n 0"
	marked "$sport" 7
	before=$(stat_of miss_mark)
	check 'a mark mid-flow: path B from the first packet on' \
		is "$(by_path ask c udp "$n" --sport "$sport" 2>/dev/null)" "0 $n"
	check 'a mark mid-flow: one miss by mark' is $(($(stat_of miss_mark) - before)) 1
	route=$(routes "sport=$sport" dir=orig state=live || true)
	check 'the new route is live, with its mark' \
		is "$(field mark <<<"$route") $(field oif <<<"$route")" '0x7 t1'
	marked "$sport" 0
	check 'no mark any more: path A at once' \
		is "$(by_path ask c udp "$n" --sport "$sport" 2>/dev/null)" "$n 0"
	in_ns r nft delete table ip tag
	ip -n r rule del fwmark 7 lookup 100
}

# by_dscp SPORT: sends packets with six DSCPs. Those of one DSCP come one after the other.
by_dscp() {
	local dscp
	for dscp in 0 4 18 26 34 46; do
		ask c udp 2 --sport "$1" --tos $((dscp << 2)) >/dev/null
	done
}

# dscp_of SPORT: prints the DSCP of the original direction's route.
dscp_of() {
	routes "sport=$1" dir=orig | field dscp
}

# Runs before any test with a rule or route that looks at the DSCP.
test_any_dscp_is_served_unless_rules_or_routes_look_at_it() {
	local sport=4006
	# A rule that looks at something else. The main table is in its place afterwards.
	ip -n r rule add fwmark 7 lookup 100
	ask c udp 10 --sport "$sport" >/dev/null
	check 'no rule by DSCP: the route is for any' is "$(dscp_of "$sport")" any
	check 'no rule by DSCP: all are served' is "$(gained hit by_dscp "$sport" 2>/dev/null)" 24
	ip -n r rule del fwmark 7 lookup 100
	ip -n r route add 10.55.0.0/24 via 10.0.3.2
	check 'no route by DSCP: all are served' \
		until_true 10 eval '[ "$(gained hit by_dscp "$sport" 2>/dev/null)" = 24 ]'
	ip -n r route add "$SERVER" via 10.0.3.2 dsfield 0x10
	check 'a route by DSCP is added: path B' \
		is "$(by_path ask c udp 3 --sport "$sport" --tos 0x10 2>/dev/null)" '0 3'
	check 'a route by DSCP is added: path A for the others' \
		is "$(by_path ask c udp 3 --sport "$sport" 2>/dev/null)" '3 0'
	check 'a route by DSCP is added: the route is for one' is "$(dscp_of "$sport")" 0
	ip -n r route del "$SERVER" via 10.0.3.2 dsfield 0x10
	check 'there was a route by DSCP: not all are served' \
		[ "$(gained miss_dscp by_dscp "$sport" 2>/dev/null)" -ge 5 ]
}

test_dscp_is_part_of_the_key() {
	local sport=4001 dscp=10 n=3 before
	ip -n r rule add dscp "$dscp" lookup 100
	ask c udp 10 --sport "$sport" >/dev/null
	before=$(stat_of miss_dscp)
	check 'a DSCP mid-flow: path B from the first packet on' \
		is "$(by_path ask c udp "$n" --sport "$sport" --tos $((dscp << 2)) 2>/dev/null)" "0 $n"
	check 'a DSCP mid-flow: one miss by DSCP' is $(($(stat_of miss_dscp) - before)) 1
	check 'the old DSCP again: path A at once' \
		is "$(by_path ask c udp "$n" --sport "$sport" 2>/dev/null)" "$n 0"
	ip -n r rule del dscp "$dscp" lookup 100
}

test_incoming_device_is_part_of_the_key() {
	local sport=4002 n=3 before
	ip -n r rule add iif d1 lookup 100
	ask c udp 10 --sport "$sport" >/dev/null
	check 'a new connection from another device: path B' \
		is "$(by_path from_d "$SINK" "$sport" "$n" 2>/dev/null)" "0 $n"
	# The same tuple as that of c, and so the same connection.
	before=$(stat_of miss_iif)
	check 'another device mid-flow, the same connection: path B' \
		is "$(by_path from_d "$PORT" "$sport" 1 2>/dev/null)" '0 1'
	check 'another device mid-flow: one miss by device' is $(($(stat_of miss_iif) - before)) 1
	check 'the first device again: path A' \
		is "$(by_path ask c udp "$n" --sport "$sport" 2>/dev/null)" "$n 0"
	ip -n r rule del iif d1 lookup 100
}

# both_devices SPORT N: sends N packets from c and N from d, in turns.
both_devices() {
	local n
	for n in $(seq "$2"); do
		ask c udp 1 --sport "$1" --oneway >/dev/null
		from_d "$PORT" "$1" 1 >/dev/null
	done
}

test_each_of_two_devices_has_a_route() {
	local PORT=$SINK sport=4007 n=5 mac
	mac=$(mac_of r s1)
	ip -n r rule add iif d1 lookup 100
	both_devices "$sport" 10
	check 'two devices: each has a live route' is \
		"$(routes "sport=$sport" dir=orig state=live | grep -o 'iif=[^ ]*' | sort | paste -sd ' ')" \
		'iif=c1 iif=d1'
	check 'two devices: all packets are served' \
		is "$(gained hit both_devices "$sport" "$n" 2>/dev/null)" $((2 * n))
	check 'two devices: each takes its path' \
		is "$(by_path both_devices "$sport" "$n" 2>/dev/null)" "$n $n"
	check 'two devices: the hits are counted once' \
		is "$(routes "sport=$sport" dir=orig | grep -c ' hits=- ')" 1
	check 'a third device: miss' misses iif "$n" \
		traffic s frame s0 "$mac" 10.0.1.2 "$SERVER" --dport "$PORT" --sport "$sport" --count "$n"
	check 'a third device: it evicts nothing' \
		is "$(gained hit both_devices "$sport" "$n" 2>/dev/null)" $((2 * n))
	ip -n r rule del iif d1 lookup 100
	check 'two devices, after a change: each takes its path' \
		is "$(by_path both_devices "$sport" "$n" 2>/dev/null)" "$((2 * n)) 0"
}

# With rp_filter off, packets from d with c's address pass; then rp_filter is enabled mid-flow.
test_rp_filter_enabled_mid_flow_drops_spoofed_packets() {
	local PORT=$SINK sport=4003 burst=10 n=5
	ask c udp 10 --sport "$sport" --oneway >/dev/null
	from_d "$PORT" "$sport" "$burst" >/dev/null
	check 'rp_filter off: packets with a spoofed source pass' \
		is "$(by_path from_d "$PORT" "$sport" "$burst" 2>/dev/null)" "$burst 0"
	check 'rp_filter off: there is a route from d' \
		[ -n "$(routes "sport=$sport" dir=orig state=live iif=d1)" ]
	in_ns r sysctl -qw net.ipv4.conf.d1.rp_filter=1
	check 'rp_filter on: no spoofed packet passes' \
		is "$(by_path from_d "$PORT" "$sport" "$burst" 2>/dev/null)" '0 0'
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=1
	check 'rp_filter on: packets of the true source pass' \
		is "$(by_path ask c udp "$n" --sport "$sport" --oneway 2>/dev/null)" "$n 0"
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=0 net.ipv4.conf.d1.rp_filter=0
}

# A burst from the wrong device neither evicts the true device's route nor is served by it.
test_spoofed_burst_evicts_nothing() {
	local PORT=$SINK sport=4004 burst=10 n=5
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=1
	ask c udp 10 --sport "$sport" --oneway >/dev/null
	in_ns r sysctl -qw net.ipv4.conf.d1.rp_filter=1
	from_d "$PORT" "$sport" "$burst" >/dev/null
	check 'a spoofed burst that rp_filter drops evicts nothing' \
		is "$(gained hit ask c udp "$n" --sport "$sport" --oneway 2>/dev/null)" "$n"
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=0 net.ipv4.conf.d1.rp_filter=0
}

test_changed_source_checks_cause_one_miss() {
	local PORT=$SINK sport=4005
	local send=(ask c udp 5 --sport "$sport" --oneway --interval 0.01)
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=1
	ask c udp 10 --sport "$sport" --oneway >/dev/null
	in_ns r sysctl -qw net.ipv4.conf.all.rp_filter=2
	check 'rp_filter for all devices: looked up again, once' \
		is "$(gained miss_source_check "${send[@]}" 2>/dev/null)" 1
	in_ns r sysctl -qw net.ipv4.conf.all.src_valid_mark=1
	check 'src_valid_mark: looked up again, once' \
		is "$(gained miss_source_check "${send[@]}" 2>/dev/null)" 1
	in_ns r sysctl -qw net.ipv4.conf.all.src_valid_mark=0 net.ipv4.conf.all.rp_filter=0 \
		net.ipv4.conf.c1.rp_filter=0
}

run_cases
