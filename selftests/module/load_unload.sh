#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loads and unloads the module, also under traffic: the kernel log, and the files that appear and
# disappear.
#
# Group: basics
# Kernel: stock quick

. lib/test.sh
plan 17

# Each case loads the module and unloads it again.
load
router
serve udp
serve tcp
unload

# lines: prints the module's lines of the kernel log.
lines() {
	dmesg | sed 's/^\[[^]]*\] //' | grep '^nf_zoneroute: '
}

# all_answered FILE LEAST: succeeds if the client that wrote FILE sent at least LEAST requests, and
# got an answer to each.
all_answered() {
	local sent
	sent=$(sed -n 's/^sent=\([0-9]*\) answered=\1$/\1/p' "$1")
	[ "${sent:-0}" -ge "$2" ] || {
		sed 's/^/# /' "$1"
		return 1
	}
}

# conntrack_is_empty: succeeds if conntrack has no entries in r.
conntrack_is_empty() {
	[ "$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)" = 0 ]
}

test_loading_and_unloading_are_logged() {
	load
	# The set-up loaded and unloaded the module before.
	check 'loading logs one line' \
		is "$(lines | grep -v taint | sed 's/^nf_zoneroute: //' | paste -sd ' ')" \
		'loaded unloaded loaded'
	check 'the line is as expected' is "$(lines | tail -n 1)" 'nf_zoneroute: loaded'
	unload
	check 'unloading logs a line' is "$(lines | tail -n 1)" 'nf_zoneroute: unloaded'
}

test_every_netns_has_the_files_and_sysctls() {
	local files=(routes stats zones)
	local sysctls=(drop_mark drop_mask enable jump jump_mark jump_mask learn_after max_age_ms
		route_cache verify zone_lookup)
	local dir=/proc/net/nf_zoneroute
	load
	check 'a netns that existed before has the files' \
		is "$(in_ns c ls "$dir" | paste -sd ' ')" "${files[*]}"
	check 'a netns that existed before has the sysctls' \
		is "$(in_ns c ls /proc/sys/net/nf_zoneroute | paste -sd ' ')" "${sysctls[*]}"
	make_ns later
	# ls prints a heading for each directory too.
	check 'a netns that was created later has both' \
		is "$(in_ns later ls "$dir" /proc/sys/net/nf_zoneroute | grep -c .)" \
		$((${#files[@]} + ${#sysctls[@]} + 2))
	check 'only root can read the files, and write to zones' \
		is "$(in_ns c stat -c %a "$dir"/{routes,stats,zones} | paste -sd ' ')" \
		'440 440 640'
	unload
	check 'files and sysctls are gone after unloading' eval \
		'! in_ns c ls /proc/net/nf_zoneroute 2>/dev/null &&
		! in_ns later ls /proc/sys/net/nf_zoneroute 2>/dev/null'
	end_jobs "${HOLDER[later]}"
	unset 'HOLDER[later]'
	ip netns del later
}

test_the_enable_parameter_sets_the_initial_state() {
	load
	check 'the module starts enabled' is "$(in_ns c sysctl -n net.nf_zoneroute.enable)" 1
	unload
	load enable=0
	check 'with enable=0 the module starts disabled' \
		is "$(in_ns c sysctl -n net.nf_zoneroute.enable)" 0
	unload
	check 'an invalid parameter value is refused' eval '! load enable=perhaps 2>/dev/null'
}

test_the_module_depends_on_nf_nat() {
	load
	check 'the module keeps nf_nat loaded' test -d /sys/module/nf_nat/holders/nf_zoneroute
	unload
}

test_unloading_under_traffic_loses_no_packet() {
	local rounds=$((20 / SLOW)) most=1000000 served=0 end=/tmp/traffic.end udp tcp
	# First with the module before conntrack; each later load comes after it.
	in_ns r nft delete table ip firewall
	load
	track
	# As long as it takes, because a busy host needs longer.
	rm -f "$end"
	in_ns c python3 tools/traffic.py ask udp "$SERVER" "$PORT" "$most" --sport 4000 \
		--interval 0.01 --until "$end" >/tmp/udp &
	udp=$!
	in_ns c python3 tools/traffic.py ask tcp "$SERVER" "$PORT" "$most" --sport 4001 \
		--interval 0.01 --until "$end" >/tmp/tcp &
	tcp=$!
	until_true 10 routes sport=4000 dir=orig state=live
	for _ in $(seq "$rounds"); do
		unload
		sleep 0.1
		load
		until_true 5 eval 'routes sport=4000 dir=orig state=live | grep -q "hits=[1-9]" &&
			routes dport=4001 dir=reply state=live | grep -q "hits=[1-9]"' &&
			served=$((served + 1))
	done
	check "unloaded and loaded $rounds times under traffic: both flows are served again each time" \
		is "$served" "$rounds"
	unload
	touch "$end"
	wait "$udp" "$tcp"
	check 'no UDP packet was lost' all_answered /tmp/udp "$rounds"
	check 'no TCP request was lost' all_answered /tmp/tcp "$rounds"
	in_ns r conntrack -F >/dev/null 2>&1 || true
	check 'conntrack can free all its entries' until_true 5 conntrack_is_empty
}

# With a process that reads the files, and a process that holds a file open.
test_the_module_can_be_unloaded_while_its_files_are_open() {
	load
	background r bash -c 'while :; do cat /proc/net/nf_zoneroute/{routes,stats,zones}; done'
	background r bash -c 'exec sleep 100 5</proc/net/nf_zoneroute/routes'
	sleep 0.5
	unload
	check 'unloaded while the files are read' [ ! -d /sys/module/nf_zoneroute ]
}

run_cases
