#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the recipes of docs/howto.md word for word, and their commands that show that they work.
#
# Group: basics
# Kernel: stock

. lib/test.sh
plan 29

# Each case builds its own gateway:
#
#   red  (10.0.0.2) --- red                +--- wan1: 198.51.100.0/24 --- w1
#   blue (10.0.0.2) --- blue   r (gateway) |                              s (203.0.113.9)
#   lan  (10.1.7.2) --- lan                +--- wan2: 192.0.2.0/24    --- w2
REMOTE=203.0.113.9
NETNS=(red blue lan r s)

gateway() {
	make_ns "${NETNS[@]}"
	link red up0 10.0.0.2/24 r red 10.0.0.251/24
	link blue up0 10.0.0.2/24 r blue 10.0.0.251/24
	link lan up0 10.1.7.2/16 r lan 10.1.0.1/16
	link r wan1 198.51.100.1/24 s w1 198.51.100.2/24
	link r wan2 192.0.2.1/24 s w2 192.0.2.2/24
	# The recipes give the tenants' devices their addresses.
	ip -n r addr flush dev red
	ip -n r addr flush dev blue
	ip -n red route add default via 10.0.0.1
	ip -n blue route add default via 10.0.0.1
	ip -n lan route add default via 10.1.0.1
	ip -n s addr add "$REMOTE/32" dev lo
	ip -n s route add default via 198.51.100.1
	ip -n r route add default via 198.51.100.2
	in_ns s sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
		net.ipv4.conf.w1.rp_filter=0 net.ipv4.conf.w2.rp_filter=0
	in_ns r sysctl -qw net.ipv4.ip_forward=1
	background s python3 tools/traffic.py echo udp "$REMOTE" "$PORT"
	until_true 10 in_ns s grep -q ':0007 ' /proc/net/udp
}

no_gateway() {
	local ns
	end_jobs "${JOBS[@]}" "${HOLDER[@]}"
	JOBS=()
	HOLDER=()
	for ns in "${NETNS[@]}"; do
		ip netns del "$ns"
	done
	rmmod nf_zoneroute
}

# block TITLE NUMBER: prints a block of commands of the recipe of that TITLE.
block() {
	awk -v title="## $1" -v wanted="$2" '
		/^## / { within = $0 == title }
		within && /^```sh/ { number++; code = 1; next }
		/^```/ { code = 0 }
		within && code && number == wanted' docs/howto.md | grep .
}

# recipe TITLE NUMBER: runs a block of commands on the gateway.
recipe() {
	local commands
	commands=$(block "$1" "$2")
	in_ns r bash -euc 'modprobe() {
			[ "$1" = nf_zoneroute ] && insmod /nf_zoneroute/nf_zoneroute.ko "${@:2}"
		}
		'"$commands"
}

# reach NS [OPTION...]: sends 10 requests to the remote server; prints how many were answered.
reach() {
	in_ns "$1" python3 tools/traffic.py ask udp "$REMOTE" "$PORT" 10 "${@:2}" |
		sed 's/.*answered=//'
}

# count PATTERN: prints how many lines of what a recipe has shown match.
count() {
	grep -cE "$1" /tmp/shown || true
}

test_overlapping_tenants() {
	local title='Overlapping tenants behind one router'
	gateway
	check 'tenants: the commands succeed' recipe "$title" 1
	check 'tenants: red is answered' is "$(reach red --sport 4000)" 10
	check 'tenants: blue is answered' is "$(reach blue --sport 4000)" 10
	recipe "$title" 2 >/tmp/shown
	check 'tenants: both zones have hits' is "$(count '^zone=[12] .* hits=[1-9]')" 2
	check 'tenants: the tuple of red is in zone 1' \
		is "$(count ' zone=1 dir=orig src=10.0.0.2 .* iif=red .* state=(live|stale) ')" 1
	check 'tenants: the tuple of blue is in zone 2' \
		is "$(count ' zone=2 dir=orig src=10.0.0.2 .* iif=blue .* state=(live|stale) ')" 1
	check 'tenants: replies find red' \
		is "$(count ' zone=1 dir=reply .* dst=198.51.100.101 .* oif=red .* state=(live|stale) ')" 1
	check 'tenants: replies find blue' \
		is "$(count ' zone=2 dir=reply .* dst=198.51.100.102 .* oif=blue .* state=(live|stale) ')" 1
	no_gateway
}

test_overlapping_tenants_with_uplinks_of_their_own() {
	local title='Overlapping tenants behind one router'
	gateway
	ip -n r addr add 10.0.0.1/24 dev red noprefixroute
	ip -n r addr add 10.0.0.1/24 dev blue noprefixroute
	# The servers of both uplinks are in one netns here, which needs a way back for each.
	ip -n s route add default via 192.0.2.1 table 2
	in_ns s nft -f - <<-'END'
		table ip back {
			chain in {
				type filter hook prerouting priority mangle
				iifname "w2" meta mark set 2
			}
		}
	END
	ip -n s rule add fwmark 2 lookup 2
	in_ns s sysctl -qw net.ipv4.fwmark_reflect=1
	check 'uplinks: the commands succeed' recipe "$title" 3
	in_ns red ping -q -c 10 -i 0.1 "$REMOTE" >/dev/null
	in_ns blue ping -q -c 10 -i 0.1 "$REMOTE" >/dev/null
	check 'uplinks: red leaves by wan1' routes zone=1 dir=orig iif=red oif=wan1
	check 'uplinks: blue leaves by wan2' routes zone=2 dir=orig iif=blue oif=wan2
	no_gateway
}

test_multi_wan_with_marks() {
	local title='Multi-WAN with marks' port answered=0
	gateway
	check 'multi-WAN: the commands succeed' recipe "$title" 1
	for port in 4000 4001 4002 4003; do
		answered=$((answered + $(reach lan --sport "$port")))
	done
	check 'multi-WAN: all are answered' is "$answered" 40
	recipe "$title" 2 >/tmp/shown
	check 'multi-WAN: half of the connections by each uplink' is \
		"$(count ' mark=0x1 .* oif=wan1 ') $(count ' mark=0x2 .* oif=wan2 ')" '2 2'
	check 'multi-WAN: every connection keeps its mark' is "$(count '^miss_mark 0$')" 1
	no_gateway
}

test_many_policy_rules() {
	local title='Many policy rules'
	gateway
	track
	check 'rules: the commands succeed' recipe "$title" 1
	check 'rules: answered' is "$(reach lan --sport 4000)" 10
	# The first packets were not served.
	reach lan --sport 4000 >/dev/null
	check 'rules: most packets are served' eval \
		'awk "\$1 < 0.5 { exit 1 }" <<<"$(recipe "$title" 2)"'
	no_gateway
}

test_a_limit_for_each_zone() {
	local title='A limit for each zone' port
	gateway
	recipe 'Overlapping tenants behind one router' 1
	check 'limit: the commands succeed' recipe "$title" 1
	check 'limit: the limits are set' is "$(zone 1 max) $(zone 2 max)" '10000 20000'
	check 'limit: nothing is close to its limit' is "$(recipe "$title" 5)" ''
	in_ns r bash -c 'echo "zone 1 max 4" >/proc/net/nf_zoneroute/zones'
	for port in 4000 4001 4002 4003 4004; do
		reach red --sport "$port" --timeout 0.2 >/dev/null
	done
	recipe "$title" 4 >/tmp/shown
	check 'limit: refused packets are counted' is "$(count '^zone_limited [1-9]')" 1
	recipe "$title" 5 >/tmp/shown
	check 'limit: the zone that is full is listed' is "$(count '^zone=1 ')" 1
	recipe "$title" 2
	check 'limit: changed and removed' is "$(zone 1 max) $(zone 2 max)" '15000 none'
	no_gateway
}

test_the_first_day() {
	local title='The first day: verify=1'
	gateway
	track
	check 'verify: the commands succeed' recipe "$title" 1
	check 'verify: answered' is "$(reach lan --sport 4000)" 10
	recipe "$title" 2 >/tmp/shown
	check 'verify: routes were compared' is "$(count '^verify_routes [1-9]')" 1
	check 'verify: nothing differed' is "$(mismatches)" 0
	recipe "$title" 3
	check 'verify: packets are served afterwards' eval \
		'[ "$(gained hit reach lan --sport 4000)" -gt 10 ]'
	no_gateway
}

run_cases
