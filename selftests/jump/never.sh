#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets that do not jump though others of their connection do; and rules that change a packet in a
# way that a jump would not repeat: where they are, no packet jumps.
#
# Group: jump
# Kernel: stock
# Long: quick

. lib/test.sh
plan 59

SPORT=4000

# The notes of packets that did not jump are per CPU.
taskset -pc 0 $$ >/dev/null
load
router
rm -f /tmp/never.queue
mkfifo /tmp/never.queue
in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 \
	net.nf_zoneroute.jump="${LEVEL:-1}"
# While s receives nothing, no answer disturbs the counts.
in_ns s nft add table ip mute
in_ns s nft add chain ip mute in '{ type filter hook prerouting priority raw; }'

# rules [FORWARD [RAW [POST]]]: loads rules behind those that set the mark.
rules() {
	in_ns r nft -f - <<-END
		table inet fast
		delete table inet fast
		table inet fast {
			chain raw {
				type filter hook prerouting priority raw
				${2-}
			}
			chain forward {
				type filter hook forward priority filter
				ct state established ct mark set ct mark or 0x100
				${1-}
			}
			chain post {
				type filter hook postrouting priority mangle
				${3-}
			}
		}
	END
}
rules
serve udp

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 2
}

both_jump() {
	[ "$(gained jumped talk 2>/dev/null)" = 2 ]
}

# packet OPTION...: sends a packet of the flow.
packet() {
	in_ns c python3 tools/traffic.py frame c0 "$(mac_of r c1)" 10.0.1.2 "$SERVER" --sport "$SPORT" \
		--dport "$PORT" "$@" >/dev/null
}

# has_gained COUNTER BEFORE COUNT: succeeds if a counter has risen by COUNT.
has_gained() {
	[ $(($(stat_of "$1") - $2)) -eq "$3" ]
}

# stays NAME COUNTER OPTION...: a packet of the flow jumps, and one with these options does not, which
# that counter counts.
stays() {
	local name=$1 counter=$2 jumped before
	shift 2
	check "$name: the flow jumps" until_true 20 both_jump
	in_ns s nft add rule ip mute in udp dport "$PORT" drop
	jumped=$(stat_of jumped)
	before=$(stat_of "$counter")
	change
	packet "$@"
	check "$name: $counter" until_true 5 has_gained "$counter" "$before" 1
	check "$name: not such a packet" is "$(stat_of jumped)" "$jumped"
	in_ns s nft flush chain ip mute in
}

# What `stays` does before the packet.
change() {
	:
}

test_packets_that_do_not_jump() {
	stays 'TTL 1' stay_ttl --ttl 1
	stays 'another DSCP' stay_entry --tos 32
	stays 'another source MAC' stay_entry --source 02:00:00:00:00:01
	stays 'IP options' lookup_miss_options --options 01010100
	stays 'a wrong checksum' lookup_miss_checksum --checksum 1
	ip -n r link set s1 mtu 600
	stays 'longer than the MTU, DF' stay_mtu --size 800 --flags 16384
	stays 'longer than the MTU' stay_mtu --size 800
	ip -n r link set s1 mtu 1500
}

test_facts_that_keep_packets_from_jumping() {
	change() {
		in_ns r sysctl -qw net.ipv4.ip_forward_update_priority=0
	}
	stays 'the sysctl of the priority' stay_entry
	in_ns r sysctl -qw net.ipv4.ip_forward_update_priority=1
	change() {
		in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=2
	}
	stays 'rp_filter' stay_entry
	in_ns r sysctl -qw net.ipv4.conf.c1.rp_filter=0
	# A policy makes the kernel choose all routes anew. A route of other packets, later, does not.
	change() {
		ip -n r xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir fwd tmpl proto esp mode tunnel
		ip -n r route add 198.51.100.0/24 via 10.0.3.2
	}
	stays 'an IPsec policy' stay_ipsec
	ip -n r xfrm policy flush
	ip -n r route del 198.51.100.0/24
	change() {
		in_ns r conntrack -U -p udp --orig-port-src "$SPORT" --mark 0x101 >/dev/null 2>&1
	}
	stays 'another mark of the connection' stay_ct_mark
	change() {
		:
	}
}

# never NAME FORWARD [RAW [POST]]: with these rules, no packet of a new flow jumps, and all arrive.
never() {
	local name=$1 jumped
	shift
	SPORT=$((SPORT + 1))
	rules "$@"
	jumped=$(stat_of jumped)
	talk 3 >/dev/null
	sleep 2.2
	check "$name: all arrive" is "$(talk 20)" 20
	check "$name: no packet jumps" is "$(stat_of jumped)" "$jumped"
}

test_rules_that_keep_packets_from_jumping() {
	rules
	SPORT=$((SPORT + 1))
	check 'without them, a flow jumps' until_true 20 both_jump
	never 'the DSCP is set' 'ip dscp set cs1'
	never 'the TTL is set' 'ip ttl set 33'
	never 'the id is set' '' '' 'ip id set 7'
	never 'a packet is traced' 'meta nftrace set 1'
	if [ "$SLOW" = 1 ]; then
		never 'a label is set' 'ct label set 3'
	else
		skip 'a label is set: all arrive' 'this kernel has no labels'
		skip 'a label is set: no packet jumps' 'this kernel has no labels'
	fi
	never "the connection's mark changes" 'ct mark set ct mark xor 0x1'
	background r sh -c 'exec python3 tools/nfqueue.py 5 >/tmp/never.queue'
	read -r _ </tmp/never.queue
	never 'packets wait for a verdict' 'queue num 5'
	rules
	check 'without them, the flow jumps again' until_true 20 both_jump
	rules '' '' 'udp dport 7 @th,64,8 set 0x78'
	talk 3 >/dev/null
	sleep 0.2
	talk 3 >/dev/null
	in_ns s nft add rule ip mute in udp dport "$PORT" drop
	check 'the payload is set: no packet jumps' is "$(gained jumped packet 2>/dev/null)" 0
	in_ns s nft flush chain ip mute in
}

# refused NAME VALUE: with the present rules, no packet jumps, and stats says why.
refused() {
	talk 3 >/dev/null
	check "$1: no packet jumps" is "$(gained jumped talk 5 2>/dev/null)" 0
	check "$1: stats says so" until_true 5 eval '[ "$(stat_of rules_ipv4)" = '"$2"' ]'
}

test_firewalls_that_are_not_skipped() {
	local number
	rules
	check 'the flow jumps' until_true 20 both_jump
	for number in $(seq 16); do
		in_ns r nft add chain inet fast "more$number" \
			"{ type filter hook forward priority $number; }"
	done
	refused 'too many chains' many
	# A hook of equal priority runs after those that are registered later.
	in_ns r sysctl -qw net.nf_zoneroute.jump=0
	rules
	in_ns r nft add chain inet fast late '{ type filter hook postrouting priority 2147483647; }'
	in_ns r sysctl -qw net.nf_zoneroute.jump="${LEVEL:-1}"
	refused 'a chain behind the last hook' behind
	rules
	check 'without it, the flow jumps again' until_true 20 both_jump
}

# Packets add an element to a set without a transaction.
test_what_nothing_announces_holds_after_max_age() {
	local passed
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=$((1000 * SLOW))
	in_ns r nft -f - <<-'END'
		table inet seen {
			set bad { type ipv4_addr; flags dynamic; }
			chain pre {
				type filter hook prerouting priority raw
				udp dport 4999 add @bad { 10.0.1.2 }
			}
			chain forward {
				type filter hook forward priority 10
				ip saddr @bad drop
			}
		}
	END
	check 'before, the flow jumps' until_true 20 eval '[ "$(gained jumped talk 3 2>/dev/null)" -ge 2 ]'
	in_ns d python3 tools/traffic.py frame d0 "$(mac_of r d1)" 10.0.4.2 "$SERVER" --dport 4999 >/dev/null
	sleep "$SLOW.1"
	passed=$(ask c udp 20 --sport "$SPORT" --timeout 0.05)
	check 'no later packet passes' is "$passed" 0
	in_ns r nft delete table inet seen
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
