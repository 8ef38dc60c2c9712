#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets of connections with the jump mark leave from the hook before conntrack, once a packet of
# their direction was observed.
#
# Group: jump
# Kernel: stock
# Long: quick

. lib/test.sh
plan 31

# Notes of packets that did not jump are per CPU.
taskset -pc 0 $$ >/dev/null
load
router
six_router
serve udp
serve tcp
serve6 udp
SPORT=4000

# jumps on|off: switches jumps.
jumps() {
	in_ns r sysctl -qw net.nf_zoneroute.jump="$([ "$1" = on ] && echo "${LEVEL:-1}" || echo 0)"
}

# rules [RULES]: loads the rules of the forward chain after the one that sets the mark.
rules() {
	in_ns r nft -f - <<-END
		table inet fast
		delete table inet fast
		table inet fast {
			counter forwarded {}
			chain forward {
				type filter hook forward priority filter
				counter name forwarded
				ct state established ct mark set ct mark or 0x100
				${1-}
			}
		}
	END
}

in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100
rules

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 2
}
talk6() {
	traffic c ask udp "$SERVER6" "$PORT" "${1:-1}" --sport "$SPORT" --timeout 2 | sed 's/.*answered=//'
}

# both_jump COMMAND: succeeds if an exchange jumps in both directions.
both_jump() {
	[ "$(gained jumped "$@" 2>/dev/null)" = 2 ]
}

# soon NAME COMMAND...: a command of one exchange jumps soon.
soon() {
	check "$1" until_true 20 both_jump "${@:2}"
}

# at_ingress: succeeds if packets jump at ingress, or with jump=1 do not.
at_ingress() {
	if [ "${LEVEL:-1}" = 1 ]; then
		is "$(gained jumped_at_ingress talk 5 2>/dev/null)" 0
	else
		until_true 10 eval '[ "$(gained jumped_at_ingress talk 5 2>/dev/null)" = 10 ]'
	fi
}

# counted FAMILY TABLE COUNTER: prints how many packets a counter has counted.
counted() {
	in_ns r nft -j list counter "$@" | grep -o '"packets": *[0-9]*' | tr -dc 0-9
}

test_nothing_jumps_by_default() {
	talk 20 >/dev/null
	check 'without the sysctl, no packet jumps' is "$(gained jumped talk 20 2>/dev/null)" 0
	jumps on
}

test_udp_jumps() {
	local before
	soon 'UDP: both directions jump' talk
	before=$(counted inet fast forwarded)
	check 'UDP: all packets jump' is "$(gained jumped talk 50 2>/dev/null)" 100
	check 'UDP: at ingress, with jump=2 only' at_ingress
	check 'UDP: no packet meets the forward chain' is "$(counted inet fast forwarded)" "$before"
	check 'UDP: routes shows the path' is "$(routes ' udp ' path=jump | wc -l)" 2
	check 'UDP: all packets are hits' is "$(gained hit talk 50 2>/dev/null)" 100
	check 'UDP: all packets are looked up' [ "$(gained lookup_hit talk 50 2>/dev/null)" -ge 99 ]
}

# The kernel then considers all its routes outdated.
test_a_new_route_of_another_prefix() {
	ip -n r route add 198.51.100.0/24 via 10.0.3.2
	check 'a new route of another prefix: all packets jump' is "$(gained jumped talk 5 2>/dev/null)" 10
	ip -n r route del 198.51.100.0/24
	soon 'without it, packets jump again' talk
}

# A chain that may choose a zone.
test_a_chain_before_the_lookup() {
	in_ns r nft -f - <<-'END'
		table ip early {
			chain raw {
				type filter hook prerouting priority raw
			}
		}
	END
	soon 'a chain before the lookup: packets jump' talk
	sleep 0.5
	check 'a chain before the lookup: no packet jumps at ingress' is \
		"$(gained jumped_at_ingress talk 5 2>/dev/null)" 0
	in_ns r nft delete table ip early
	soon 'without it, packets jump again' talk
}

# A packet that IP drops passes the ingress, but not PRE_ROUTING.
test_packets_that_get_lost_do_not_keep_others_from_jumping() {
	local counter=jumped jumped
	[ "${LEVEL:-1}" = 1 ] || counter=jumped_at_ingress
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=200
	in_ns c python3 tools/traffic.py frame c0 "$(mac_of r c1)" 10.0.1.20 10.0.1.1 --ip-checksum 1 \
		--spread 200 >/dev/null
	jumped=$(gained "$counter" talk 1000 2>/dev/null)
	echo "# $counter: $jumped of 2000"
	check "lost packets from many addresses: $counter counts most packets" [ "$jumped" -ge 1500 ]
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

# Devices get their hooks by packets that are learned from then on.
test_from_one_level_to_the_other() {
	in_ns r sysctl -qw net.nf_zoneroute.jump=1
	soon 'jump=1: packets jump' talk
	jumps on
	check 'back: packets jump at ingress with jump=2 only' at_ingress
}

test_udp6_jumps() {
	soon 'IPv6: both directions jump' talk6
	check 'IPv6: all packets jump' is "$(gained jumped talk6 50 2>/dev/null)" 100
}

test_tcp_jumps() {
	check 'TCP: answered' is "$(ask c tcp 300 --sport 4001)" 300
	check 'TCP: most packets jump' [ "$(gained jumped ask c tcp 300 --sport 4002 2>/dev/null)" -ge 400 ]
	check 'TCP: the connection closes as without' until_true 5 eval \
		'in_ns r conntrack -L -p tcp --orig-port-src 4002 2>/dev/null | grep -q -e TIME_WAIT -e CLOSE'
}

# What rules set beside the packet.
test_marks_and_priorities_of_packets() {
	local before
	in_ns r nft -f - <<-'END'
		table netdev out {
			counter as_set {}
			chain out {
				type filter hook egress device s1 priority 0
				udp dport 7 meta mark 7 meta priority 1:2 counter name as_set
			}
		}
	END
	rules 'iifname "c1" meta mark set 7 meta priority set 1:2'
	soon 'rules set a mark and a priority: both directions jump' talk
	before=$(counted netdev out as_set)
	check 'all packets jump' is "$(gained jumped talk 20 2>/dev/null)" 40
	check 'they have the mark and the priority' is $(($(counted netdev out as_set) - before)) 20
	in_ns r nft delete table netdev out
	rules
}

# proxy_ndp is not announced. With `forwarding`, the kernel changes routes.
test_sysctls_of_ipv6() {
	soon 'IPv6: both directions jump again' talk6
	in_ns r sysctl -qw net.ipv6.conf.all.proxy_ndp=1
	check 'proxy_ndp: no packet jumps' is "$(gained stay_device talk6 5 2>/dev/null)" 10
	in_ns r sysctl -qw net.ipv6.conf.all.proxy_ndp=0
	soon 'without proxy_ndp, both directions jump' talk6
	in_ns r sysctl -qw net.ipv6.conf.all.forwarding=0
	check 'IPv6 is not forwarded: no packet passes' is \
		"$(traffic c ask udp "$SERVER6" "$PORT" 1 --sport "$SPORT" --timeout 0.2 | sed 's/.*answered=//')" 0
	in_ns r sysctl -qw net.ipv6.conf.all.forwarding=1
}

test_unmarked_connections_do_not_jump() {
	soon 'UDP: both directions jump again' talk
	in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x200 net.nf_zoneroute.jump_mask=0x200
	talk 5 >/dev/null
	check 'another mark: no packet jumps' is "$(gained jumped talk 20 2>/dev/null)" 0
	in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
