#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Neighbours, devices, the module and the netns change while packets jump.
#
# Group: debug
# Long: stock debug

. lib/test.sh
plan 21

load
router
serve udp
serve tcp
SPORT=4000
in_ns r nft -f - <<-'END'
	table inet fast {
		chain forward {
			type filter hook forward priority filter
			ct state established ct mark set ct mark or 0x100
		}
	}
END

jumps_on() {
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000 net.nf_zoneroute.jump_mark=0x100 \
		net.nf_zoneroute.jump_mask=0x100 net.nf_zoneroute.jump="${LEVEL:-1}"
}
jumps_on

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 2
}
both_jump() {
	[ "$(gained jumped talk 2>/dev/null)" = 2 ]
}

# neighbour_is STATE...: succeeds if r knows s as a neighbour in one of these states.
neighbour_is() {
	local state now
	now=$(ip -n r neigh show 10.0.2.2 dev s1 | awk '{ print $NF }')
	for state; do
		[ "$now" != "$state" ] || return 0
	done
	echo "# the neighbour is $now"
	return 1
}

# A jump asks for the neighbour as the kernel does.
test_neighbours() {
	check 'the flow jumps' until_true 20 both_jump
	ip -n r neigh change 10.0.2.2 dev s1 nud stale
	check 'a stale neighbour: all packets jump' is "$(gained jumped talk 10 2>/dev/null)" 20
	check 'a stale neighbour is used, so it is confirmed' neighbour_is DELAY PROBE REACHABLE
	ip -n r neigh change 10.0.2.2 dev s1 nud failed
	check 'a failed neighbour: all are answered' is "$(talk 10)" 10
	check 'a failed neighbour is resolved' neighbour_is REACHABLE DELAY
	ip -n r neigh del 10.0.2.2 dev s1
	check 'a deleted neighbour: all are answered' is "$(talk 10)" 10
	ip -n s link set s0 address 02:00:00:00:77:01
	ip -n r neigh replace 10.0.2.2 dev s1 lladdr 02:00:00:00:77:01 nud reachable
	check 'another MAC: all are answered' is "$(talk 10)" 10
	check 'then, packets jump' until_true 20 both_jump
}

test_a_device_goes_down() {
	local passed
	ip -n r link set s1 down
	passed=$(ask c udp 5 --sport "$SPORT" --timeout 0.1)
	check 'the device is down: no packet passes' is "$passed" 0
	ip -n r link set s1 up
	ip -n r route replace "$SERVER" via 10.0.2.2
	check 'the device is up: packets jump again' until_true 20 both_jump
	ip -n r link del t1
	check 'another device is gone: packets jump' until_true 20 both_jump
}

# With jump=2, the device has a hook that must not go with it.
test_a_device_leaves_the_netns() {
	check 'packets of another device jump' until_true 20 eval \
		'[ "$(gained jumped ask d udp 5 --sport 4100 --timeout 2 2>/dev/null)" = 10 ]'
	sleep 0.5
	ip -n r link set d1 netns c
	ip -n c link set d1 up
	ip -n c addr add 10.0.4.1/24 dev d1
	check 'the device is in another netns: it answers there' until_true 10 \
		in_ns d ping -q -c 3 -i 0.1 10.0.4.1
}

# all_answered FILE: succeeds if the client that wrote FILE got an answer to each request.
all_answered() {
	grep -q '^sent=\([1-9][0-9]*\) answered=\1$' "$1" || {
		sed 's/^/# /' "$1"
		return 1
	}
}

# both_clients_jump: succeeds if packets of both clients jump, by routes.
both_clients_jump() {
	routes sport=4001 path=jump && routes sport=4002 path=jump
}

test_the_module_is_unloaded() {
	local rounds=$((10 / SLOW + 1)) jumped=0 end=/tmp/load.end udp tcp
	rm -f "$end"
	in_ns c python3 tools/traffic.py ask udp "$SERVER" "$PORT" 1000000 --sport 4001 \
		--interval 0.002 --until "$end" >/tmp/udp &
	udp=$!
	in_ns c python3 tools/traffic.py ask tcp "$SERVER" "$PORT" 1000000 --sport 4002 \
		--interval 0.002 --until "$end" >/tmp/tcp &
	tcp=$!
	for _ in $(seq "$rounds"); do
		! until_true 20 both_clients_jump || jumped=$((jumped + 1))
		unload
		load
		jumps_on
	done
	check "unloaded $rounds times: packets jump each time" is "$jumped" "$rounds"
	check 'packets jump again' until_true 20 both_clients_jump
	for _ in $(seq 20); do
		in_ns r sysctl -qw net.nf_zoneroute.jump=0
		in_ns r sysctl -qw net.nf_zoneroute.jump="${LEVEL:-1}"
	done
	check 'jumps are switched off and on: packets jump again' until_true 20 both_clients_jump
	touch "$end"
	wait "$udp" "$tcp"
	check 'no UDP packet was lost' all_answered /tmp/udp
	check 'no TCP request was lost' all_answered /tmp/tcp
	check 'no reference is left' forget_flows
}

test_the_netns_ends() {
	background c python3 tools/traffic.py ask udp "$SERVER" "$PORT" 1000000 --sport 4003 \
		--interval 0.0005 --timeout 0.0005
	until_true 20 routes sport=4003 path=jump || true
	end_jobs "${HOLDER[r]}"
	unset 'HOLDER[r]'
	ip netns del r
	check 'the netns is torn down' until_true 20 eval '! ip -n c link show c0'
	rmmod nf_zoneroute >/dev/null 2>&1 &
	check 'the module can be unloaded' until_true 20 test ! -d /sys/module/nf_zoneroute
}

run_cases
