#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The sysctls: their effect on flows that are being served, and the values that they reject.
#
# Group: basics
# Kernel: stock
# Long: quick

. lib/test.sh
plan 35

# Requests that are counted in each check. Each is two packets, one for each direction.
REQUESTS=5

load
router
serve udp

# refuses NAME VALUE ERROR: writing VALUE fails with ERROR and changes nothing.
refuses() {
	local file=/proc/sys/net/nf_zoneroute/$1 before error
	before=$(in_ns r cat "$file")
	error=$(in_ns r python3 -c '
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
try:
    os.write(fd, sys.argv[2].encode())
    print("none")
except OSError as err:
    print(errno.errorcode[err.errno])' "$file" "$2")
	is "$error $(in_ns r cat "$file")" "$3 $before"
}

# as_nobody SETPRIV-OPTION... -- PROGRAM: runs a Python statement as the user nobody; prints "done"
# or its error.
as_nobody() {
	local options=()
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	in_ns r setpriv --reuid 65534 --regid 65534 --clear-groups "${options[@]}" python3 -c "
import errno
try:
    $2
    print('done')
except OSError as err:
    print(errno.errorcode[err.errno])"
}

# set_to NAME=VALUE: sets a sysctl of the module in r.
set_to() {
	in_ns r sysctl -qw "net.nf_zoneroute.$1"
}

# hits SPORT: prints how many packets of REQUESTS requests are served.
hits() {
	gained hit ask c udp "$REQUESTS" --sport "$1" 2>/dev/null
}

# hooks: prints how many of the module's hooks are registered in r.
hooks() {
	in_ns r nft list hooks 2>/dev/null | grep -c '\[nf_zoneroute\]' || true
}

test_values_out_of_range_are_rejected() {
	local value
	for value in 2 4294967295 4294967296; do
		check "enable rejects $value" refuses enable "$value" EINVAL
	done
	for value in -1 on 0x 1x; do
		check "route_cache rejects '$value'" refuses route_cache "$value" EINVAL
	done
	check 'max_age_ms rejects 0' refuses max_age_ms 0 EINVAL
	check 'max_age_ms rejects more than a minute' refuses max_age_ms 60001 EINVAL
	check 'jump rejects 3' refuses jump 3 EINVAL
	check 'jump_mask rejects more than 32 bits' refuses jump_mask 4294967296 EINVAL
	check 'jump_mark takes all of 32 bits' eval \
		'set_to jump_mark=0xffffffff && is "$(in_ns r cat /proc/sys/net/nf_zoneroute/jump_mark)" 4294967295'
	set_to jump_mark=0
}

# The last value is the one that the router had before.
test_max_age_ms_takes_values_in_range() {
	local value
	for value in 1 1000 60000; do
		check "max_age_ms takes $value" eval 'set_to "max_age_ms=$value" &&
			is "$(in_ns r sysctl -n net.nf_zoneroute.max_age_ms)" "$value"'
	done
}

test_a_write_needs_root_or_cap_net_admin() {
	local write='open("/proc/sys/net/nf_zoneroute/enable", "w").write("1")'
	check 'user nobody cannot write' is "$(as_nobody -- "$write")" EACCES
	check 'user nobody with CAP_NET_ADMIN can write' \
		is "$(as_nobody --inh-caps +net_admin --ambient-caps +net_admin -- "$write")" 'done'
	check 'user nobody can read a sysctl' \
		is "$(as_nobody -- 'open("/proc/sys/net/nf_zoneroute/enable").read()')" 'done'
	check 'user nobody cannot read the files' \
		is "$(as_nobody -- 'open("/proc/net/nf_zoneroute/routes").read()')" EACCES
	check 'the files are not writable' eval \
		"! in_ns r sh -c 'echo x >/proc/net/nf_zoneroute/stats' 2>/dev/null"
}

test_each_netns_has_its_own_sysctls() {
	check 'each netns has its own sysctls' eval 'in_ns c sysctl -qw net.nf_zoneroute.enable=0 &&
		is "$(in_ns r sysctl -n net.nf_zoneroute.enable)" 1'
	in_ns c sysctl -qw net.nf_zoneroute.enable=1
}

test_max_age_ms_bounds_how_long_a_route_serves() {
	local aged
	ask c udp 10 --sport 4000 >/dev/null
	check 'max_age_ms=60000: served' is "$(hits 4000)" $((2 * REQUESTS))
	set_to max_age_ms=1
	sleep 0.1
	aged=$(stat_of miss_aged)
	check 'max_age_ms=1: answered' \
		is "$(ask c udp "$REQUESTS" --sport 4000 --interval 0.05)" "$REQUESTS"
	check 'max_age_ms=1: every later packet is looked up' \
		is $(($(stat_of miss_aged) - aged)) $((2 * REQUESTS))
	set_to max_age_ms=60000
	forget_flows
}

test_route_cache_0_keeps_no_route() {
	ask c udp 10 --sport 4010 >/dev/null
	set_to route_cache=0
	check 'route_cache=0: no packet is served' is "$(hits 4010)" 0
	check 'route_cache=0: answered' is "$(ask c udp "$REQUESTS" --sport 4010)" "$REQUESTS"
	check 'route_cache=0: no route is kept' \
		until_true 5 eval '[ "$(stat_of dst_references)" = 0 ]'
	check 'route_cache=0: the flow stays' is "$(stat_of ct_references)" 1
	set_to route_cache=1
	ask c udp 2 --sport 4010 >/dev/null
	check 'route_cache=1: served again' is "$(hits 4010)" $((2 * REQUESTS))
	forget_flows
}

# The connection of port 4020 is older than the switch; that of port 4021 is created while the
# module is disabled.
test_enable_0_ends_every_flow() {
	ask c udp 10 --sport 4020 >/dev/null
	if [ "$(hooks)" -gt 0 ]; then
		set_to enable=0
		check 'enable=0: no hook is registered' is "$(hooks)" 0
	else
		skip 'enable=0: no hook is registered' 'this kernel does not list hooks'
	fi
	set_to enable=0
	check 'enable=0: answered' is "$(ask c udp "$REQUESTS" --sport 4020)" "$REQUESTS"
	check 'enable=0: every flow ends' until_true 5 no_references
	check 'enable=0: no flow is created' eval \
		'ask c udp 5 --sport 4021 >/dev/null; no_references'
	set_to enable=1
	ask c udp 3 --sport 4020 >/dev/null
	check 'enable=1: an older connection is served again' is "$(hits 4020)" $((2 * REQUESTS))
	ask c udp 3 --sport 4021 >/dev/null
	check 'enable=1: so is a connection created while disabled' \
		is "$(hits 4021)" $((2 * REQUESTS))
	forget_flows
}

run_cases
