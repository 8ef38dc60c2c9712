#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything changes at once for a while: flows that live for a second, flushes of conntrack's
# table, our tables growing and shrinking, network namespaces, the module itself, device names,
# routes. At the end no reference is left.
#
# NFZR_SOAK_SECONDS=N: the duration.
#
# Group: debug
# Kernel: debug
# Long: four kcsan

. lib/test.sh
. lib/meanwhile.sh
at_end() {
	end_meanwhile
}
plan 13

SECONDS_IN_ALL=${NFZR_SOAK_SECONDS:-60}

: >/tmp/served
load
router
serve udp
udp_timeouts r 1 1
# netns_count: prints the number of netns, from the kernel's reference trackers.
netns_count() {
	find /sys/kernel/debug/ref_tracker -name 'netns-*-refcnt' | wc -l
}
NETNS_BEFORE=$(netns_count)

route_flaps() {
	ip -n r -b - <<-END
		route replace $SERVER via 10.0.3.2
		rule add fwmark 9 lookup main
		route replace $SERVER via 10.0.2.2
		rule del fwmark 9 lookup main
	END
}
rename() {
	ip -n r link set d1 name elsewhere &&
		ip -n r link set elsewhere name d1
}
other_netns() {
	ip netns add x && ip -n x -b - <<-'END' && ip netns del x
		link add x0 type veth peer name x1
		addr add 10.7.0.1/24 dev x0
		link set x0 up
		link set x1 up
	END
}
# note: appends how many packets the loaded module served and how many flows it created.
note() {
	echo "$(stat_of hit) $(stat_of flow_new)" >>/tmp/served
}
# noted COLUMN: prints the sum of a column of what was noted: 1 for packets, 2 for flows.
noted() {
	awk -v column="$1" '{ n += $column } END { print n + 0 }' /tmp/served
}
# module: notes what the module did and loads it again. The modules make flows with the first, second
# and third packet in turn: on a slow machine, few connections live until their second.
module() {
	note
	PARAMETERS=("learn_after=$(($(wc -l </tmp/served) % 3))")
	rmmod nf_zoneroute && sleep 0.5 && load &&
		in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}
# enough_happened: whether each command ran twice and modules that are gone again made flows.
enough_happened() {
	each_succeeded 2 && [ "$(noted 2)" -ge 100 ]
}
flush() {
	in_ns r conntrack -F
}
read_all() {
	shown routes
	shown zones
	shown stats
}
switches() {
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=0 &&
		in_ns r sysctl -qw net.nf_zoneroute.route_cache=1
}

test_packets_are_served_while_everything_changes() {
	local name round rounds=0 served created
	background c python3 tools/traffic.py flows "$SERVER" "$PORT" 10000 400 1000000 \
		--timeout 0.05 --interval 0.3
	background d python3 tools/traffic.py flows "$SERVER" "$PORT" 20000 40 1000000 \
		--timeout 0.05 --interval 0.5
	background c python3 tools/traffic.py ask udp "$SERVER" "$SINK" 100000000 --sport 5000 \
		--oneway --interval 0.005
	meanwhile routes 0.05 route_flaps
	meanwhile names 0.2 rename
	meanwhile netns 0.2 other_netns
	meanwhile module 3 module
	meanwhile flush 0.7 flush
	meanwhile reads 0.3 read_all
	meanwhile switches 1.1 switches
	sleep "$SECONDS_IN_ALL"
	# A slow machine gets more time.
	until_true $((SECONDS_IN_ALL * 3)) enough_happened || true
	end_meanwhile

	for name in "${MEANWHILE_NAMES[@]}"; do
		round=$(times_of "$name")
		echo "# $name: $round rounds"
		rounds=$((rounds + round))
		check "$name: at least 2 rounds" [ "$round" -ge 2 ]
	done
	echo "# soak cycles: $rounds in $SECONDS_IN_ALL s"
	if [ -d /sys/module/nf_zoneroute ]; then
		note
	else
		load
	fi
	served=$(noted 1)
	created=$(noted 2)
	echo "# $served packets served of $created flows"
	check 'packets were served' [ "$served" -ge 100 ]
	check 'flows were created' [ "$created" -ge 100 ]
	end_jobs "${JOBS[@]}"
	JOBS=()
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

# After the changes of the case before.
test_no_reference_is_left_at_the_end() {
	in_ns r conntrack -F >/dev/null 2>&1 || true
	check 'no reference is left at the end' until_true 10 no_references
	unload
	check 'no connection is left in conntrack' until_true 10 eval \
		'in_ns r conntrack -F >/dev/null 2>&1;
			[ "$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)" = 0 ]'
	check 'the netns of the test were counted' [ "$NETNS_BEFORE" -ge 5 ]
	check 'no netns is half torn down' until_true 20 eval '[ "$(netns_count)" -le "$NETNS_BEFORE" ]'
}

run_cases
