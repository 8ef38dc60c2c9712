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

# lines: prints the module's lines of the kernel log.
lines() {
	dmesg | sed 's/^\[[^]]*\] //' | grep '^nf_zoneroute: '
}

make_ns c
load
check 'loading logs one line' is "$(lines | grep -cv taint)" 1
check 'the line is as expected' is "$(lines | tail -n 1)" 'nf_zoneroute: loaded'
check 'a netns that existed before has the files' \
	is "$(in_ns c ls /proc/net/nf_zoneroute | paste -sd ' ')" 'routes stats zones'
check 'a netns that existed before has the sysctls' \
	is "$(in_ns c ls /proc/sys/net/nf_zoneroute | paste -sd ' ')" 'enable max_age_ms route_cache verify zone_lookup'
make_ns d
check 'a netns that was created later has both' \
	is "$(in_ns d ls /proc/net/nf_zoneroute /proc/sys/net/nf_zoneroute | grep -c .)" 10
check 'only root can read the files, and write to zones' \
	is "$(in_ns c stat -c %a /proc/net/nf_zoneroute/{routes,stats,zones} | paste -sd ' ')" '440 440 640'
check 'the module starts enabled' is "$(in_ns c sysctl -n net.nf_zoneroute.enable)" 1
check 'the module keeps nf_nat loaded' test -d /sys/module/nf_nat/holders/nf_zoneroute
unload
check 'unloading logs a line' is "$(lines | tail -n 1)" 'nf_zoneroute: unloaded'
check 'files and sysctls are gone after unloading' eval \
	'! in_ns c ls /proc/net/nf_zoneroute 2>/dev/null && ! in_ns d ls /proc/sys/net/nf_zoneroute 2>/dev/null'
load enable=0
check 'with enable=0 the module starts disabled' is "$(in_ns c sysctl -n net.nf_zoneroute.enable)" 0
unload
check 'an invalid parameter value is refused' eval '! load enable=perhaps 2>/dev/null'
ip netns del c
ip netns del d

load
router
serve udp
serve tcp
in_ns c python3 tools/traffic.py ask udp "$SERVER" "$PORT" 1500 --sport 4000 --interval 0.01 >/tmp/udp &
udp=$!
in_ns c python3 tools/traffic.py ask tcp "$SERVER" "$PORT" 1500 --sport 4001 --interval 0.01 >/tmp/tcp &
tcp=$!
until_true 10 routes sport=4000 dir=orig state=live
served=0
ROUNDS=$((20 / SLOW))
for _ in $(seq "$ROUNDS"); do
	unload
	sleep 0.1
	load
	until_true 5 eval 'routes sport=4000 dir=orig state=live | grep -q "hits=[1-9]" &&
		routes dport=4001 dir=reply state=live | grep -q "hits=[1-9]"' && served=$((served + 1))
done
check "unloaded and loaded $ROUNDS times under traffic: both flows are served again each time" is "$served" "$ROUNDS"
unload
wait "$udp" "$tcp"
check 'no UDP packet was lost' is "$(cat /tmp/udp)" 'sent=1500 answered=1500'
check 'no TCP request was lost' is "$(cat /tmp/tcp)" 'sent=1500 answered=1500'
check 'conntrack can free all its entries' eval 'in_ns r conntrack -F >/dev/null 2>&1
	until_true 5 eval "[ \$(nsenter --net=/run/netns/r sysctl -n net.netfilter.nf_conntrack_count) = 0 ]"'

# With a process that reads the files, and one that holds a file open, while the module is unloaded.
load
background r bash -c 'while :; do cat /proc/net/nf_zoneroute/{routes,stats,zones}; done'
background r bash -c 'exec sleep 100 5</proc/net/nf_zoneroute/routes'
sleep 0.5
unload
check 'unloaded while the files are read' eval '[ ! -d /sys/module/nf_zoneroute ]'
