#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# If a packet differs from the cached route in mark, DSCP or incoming device, it is a miss and takes
# the path that the rules select. A packet that rp_filter would drop is dropped.
#
# Group: basics
# Kernel: stock quick

. lib/test.sh
plan 19

load
router
serve udp
mac_of_r_d=$(mac_of r d1)

# Path B is in table 100, for rules to select.
ip -n r route add "$SERVER" via 10.0.3.2 table 100
ip -n r route flush cache

# by_path COMMAND...: prints how many packets arrived by path A and by path B.
by_path() {
	local a b
	a=$(arrived by_a)
	b=$(arrived by_b)
	"$@" >&2
	echo "$(($(arrived by_a) - a)) $(($(arrived by_b) - b))"
}

# marked MARK: sets the mark that packets from port 4000 get in mangle.
marked() {
	in_ns r nft -f - <<-END
		table ip tag
		delete table ip tag
		table ip tag {
			chain pre {
				type filter hook prerouting priority mangle
				udp sport 4000 meta mark set $1
			}
		}
	END
}

ip -n r rule add fwmark 7 lookup 100
ask c udp 10 --sport 4000 >/dev/null
check 'no mark: path A' is "$(by_path ask c udp 3 --sport 4000 2>/dev/null)" '3 0'
marked 7
before=$(stat_of miss_mark)
check 'a mark mid-flow: path B from the first packet on' \
	is "$(by_path ask c udp 3 --sport 4000 2>/dev/null)" '0 3'
check 'a mark mid-flow: one miss by mark' is $(($(stat_of miss_mark) - before)) 1
check 'the new route is live, with its mark' \
	is "$(routes sport=4000 dir=orig state=live | field mark) $(routes sport=4000 dir=orig | field oif)" '0x7 t1'
marked 0
check 'no mark any more: path A at once' is "$(by_path ask c udp 3 --sport 4000 2>/dev/null)" '3 0'
ip -n r rule del fwmark 7 lookup 100

ip -n r rule add dscp 10 lookup 100
ask c udp 10 --sport 4001 >/dev/null
before=$(stat_of miss_dscp)
check 'a DSCP mid-flow: path B from the first packet on' \
	is "$(by_path ask c udp 3 --sport 4001 --tos 0x28 2>/dev/null)" '0 3'
check 'a DSCP mid-flow: one miss by DSCP' is $(($(stat_of miss_dscp) - before)) 1
check 'the old DSCP again: path A at once' \
	is "$(by_path ask c udp 3 --sport 4001 2>/dev/null)" '3 0'
ip -n r rule del dscp 10 lookup 100

ip -n r rule add iif d1 lookup 100
ask c udp 10 --sport 4002 >/dev/null
check 'another device mid-flow: path B' is "$(by_path traffic d frame d0 \
	"$mac_of_r_d" 10.0.1.2 "$SERVER" --sport 4002 --dport "$SINK" --count 3 2>/dev/null)" '0 3'
# The same tuple as that of c, and so the same connection.
before=$(stat_of miss_iif)
check 'another device mid-flow, the same connection: path B' is "$(by_path traffic d \
	frame d0 "$mac_of_r_d" 10.0.1.2 "$SERVER" --sport 4002 --dport "$PORT" 2>/dev/null)" '0 1'
check 'another device mid-flow: one miss by device' is $(($(stat_of miss_iif) - before)) 1
check 'the first device again: path A' is "$(by_path ask c udp 3 --sport 4002 2>/dev/null)" '3 0'
ip -n r rule del iif d1 lookup 100

# spoof: sends packets from d with c's address. With rp_filter off they pass; then rp_filter is
# enabled mid-flow.
spoof() {
	traffic d frame d0 "$mac_of_r_d" 10.0.1.2 "$SERVER" --sport 4003 --dport "$PORT" \
		--count 10
}
PORT=$SINK
ask c udp 10 --sport 4003 --oneway >/dev/null
spoof
check 'rp_filter off: packets with a spoofed source pass' is "$(by_path spoof 2>/dev/null)" '10 0'
check 'rp_filter off: the route of the flow is that from d' is "$(routes sport=4003 dir=orig | field iif)" d1
in_ns r sysctl -qw net.ipv4.conf.d1.rp_filter=1
check 'rp_filter on: no spoofed packet passes' is "$(by_path spoof 2>/dev/null)" '0 0'
in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=1
check 'rp_filter on: packets of the true source pass' \
	is "$(by_path ask c udp 5 --sport 4003 --oneway 2>/dev/null)" '5 0'
in_ns r sysctl -qw net.ipv4.conf.d1.rp_filter=0
# A burst from the wrong device neither evicts the true device's route nor is served by it.
ask c udp 5 --sport 4003 --oneway >/dev/null
in_ns r sysctl -qw net.ipv4.conf.d1.rp_filter=1
spoof
check 'a spoofed burst that rp_filter drops evicts nothing' \
	is "$(gained hit ask c udp 5 --sport 4003 --oneway 2>/dev/null)" 5
in_ns r sysctl -qw net.ipv4.conf.all.rp_filter=2
check 'rp_filter for all devices: looked up again, once' \
	is "$(gained miss_source_check ask c udp 5 --sport 4003 --oneway --interval 0.01 2>/dev/null)" 1
in_ns r sysctl -qw net.ipv4.conf.all.src_valid_mark=1
check 'src_valid_mark: looked up again, once' \
	is "$(gained miss_source_check ask c udp 5 --sport 4003 --oneway --interval 0.01 2>/dev/null)" 1
