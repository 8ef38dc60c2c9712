#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A change of the firewall takes effect at the next packet of connections that jump.
#
# Group: jump
# Kernel: quick
# Long: stock

. lib/test.sh
. lib/meanwhile.sh
at_end() {
	end_meanwhile
}
plan 35

load
router
serve udp
SPORT=4000
in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 net.nf_zoneroute.jump="${LEVEL:-1}"

# The rules before each change.
base_rules() {
	in_ns r nft -f - <<-'END'
		flush ruleset
		table ip fast {
			set bad { type ipv4_addr; flags interval; elements = { 192.0.2.9 }; }
			set often { type ipv4_addr; flags dynamic, timeout; timeout 1h; }
			map verdicts { type ipv4_addr : verdict; }
			chain other {
				ip saddr 192.0.2.1 drop
			}
			chain forward {
				type filter hook forward priority filter
				ct mark and 0x200 == 0x200 drop
				ip daddr @bad drop
				ip saddr @often drop
				ip saddr vmap @verdicts
				jump other
				ct state established ct mark set ct mark or 0x100
			}
			chain post {
				type filter hook postrouting priority mangle
			}
			chain pre {
				type filter hook prerouting priority mangle
			}
		}
		table ip asleep {
			flags dormant
			chain forward {
				type filter hook forward priority filter + 1
				drop
			}
		}
	END
	in_ns r conntrack -U -p udp --orig-port-src "$SPORT" --mark 0x100 >/dev/null 2>&1 || true
}

talk() {
	ask c udp 1 --sport "$SPORT" --timeout "${1:-2}"
}
both_jump() {
	[ "$(gained jumped talk 2>/dev/null)" = 2 ]
}

# prepare NAME: loads the base rules. Fails, as a check, if packets do not jump.
prepare() {
	base_rules
	until_true 20 both_jump || ! check "$1: packets jump before" false
}

# bites NAME COMMAND...: packets jump; after COMMAND the next packet is dropped, and so is a later one.
bites() {
	local name=$1 passed
	prepare "$name" || return 0
	"${@:2}" || echo "# $name: the change failed"
	passed=$(talk 0.2)
	check "$name: the next packet is dropped, and so is a later one" is "$passed $(talk 0.1)" '0 0'
}

# meets NAME COMMAND...: packets jump; after COMMAND the next packet of each direction meets the rules.
meets() {
	local name=$1
	prepare "$name" || return 0
	"${@:2}" || echo "# $name: the change failed"
	check "$name: the next packets meet the rules" is "$(gained jumped talk 2>/dev/null)" 0
}

rule() {
	in_ns r nft "$@"
}

test_rules() {
	bites 'a rule' rule insert rule ip fast forward drop
	bites 'a rule in a chain that is jumped to' rule add rule ip fast other udp dport 7 drop
	bites 'a rule in POST_ROUTING' rule add rule ip fast post drop
	bites 'a rule in PRE_ROUTING' rule add rule ip fast pre udp dport 7 drop
	bites 'a rule about the reply' rule insert rule ip fast forward ip saddr "$SERVER" drop
	bites 'a policy' rule chain ip fast forward '{ policy drop; }'
	bites 'the policy of POST_ROUTING' rule chain ip fast post '{ policy drop; }'
}

test_sets_and_maps() {
	bites 'an element of a set' rule add element ip fast bad '{ 10.9.0.0/16 }'
	bites 'an element of a dynamic set' rule add element ip fast often '{ 10.0.1.2 }'
	bites 'an element of a map' rule add element ip fast verdicts '{ 10.0.1.2 : drop }'
}

test_tables_and_chains() {
	bites 'a new table' rule -f - <<<'table ip new { chain c { type filter hook forward priority 10; drop; }; }'
	bites 'a new table of inet' rule -f - <<<'table inet new { chain c { type filter hook postrouting priority 10; drop; }; }'
	bites 'a new chain in PRE_ROUTING' rule -f - <<<'table ip new { chain c { type filter hook prerouting priority 0; drop; }; }'
	bites 'a table wakes up' rule add table ip asleep
	bites 'another ruleset' rule -f - <<<'flush ruleset; table ip new { chain c { type filter hook forward priority 0; ct state vmap { new : accept, established : drop }; }; }'
}

test_changes_that_end_a_chain() {
	meets 'a table sleeps' rule add table ip fast '{ flags dormant; }'
	meets 'the ruleset is flushed' rule flush ruleset
	meets 'an element of a set is deleted' rule delete element ip fast bad '{ 192.0.2.9 }'
	# The kernel ends the table with its owner, without a transaction.
	rm -f /tmp/owner
	mkfifo /tmp/owner
	in_ns r nft -i </tmp/owner >/dev/null 2>&1 &
	exec 5>/tmp/owner
	echo 'add table ip owned { flags owner; }; add chain ip owned c { type filter hook forward priority 5; }' >&5
	check 'there is a table with an owner' until_true 5 eval 'rule list tables | grep -q owned'
	check 'an owner ends: packets jump before' until_true 20 both_jump
	exec 5>&-
	check 'the table has ended' until_true 5 eval '! rule list tables | grep -q owned'
	check 'an owner ends: the next packets meet the rules' is "$(gained jumped talk 2>/dev/null)" 0
}

# The policy of a chain changes after the rules of its transaction are in force.
test_a_policy_that_comes_late() {
	local rules=$((20000 / SLOW))
	prepare 'a policy at the end of a large transaction' || return 0
	rule add chain ip fast many
	# The kernel composes a message for each rule, which takes time.
	background r nft monitor
	{
		seq "$rules" | sed 's/.*/add rule ip fast many ip saddr 192.0.2.3/'
		echo 'chain ip fast forward { policy drop; }'
	} >/tmp/many
	background c python3 tools/traffic.py ask udp "$SERVER" "$PORT" 1000000 --sport "$SPORT" \
		--timeout 0.01 --interval 0.001
	rule -f /tmp/many
	end_jobs "${JOBS[-1]}"
	unset 'JOBS[-1]'
	check 'a policy at the end of a large transaction: the next packet is dropped' is "$(talk 0.2)" 0
}

test_mark() {
	bites 'a mark' in_ns r conntrack -U -p udp --orig-port-src "$SPORT" --mark 0x300
}

test_deletion() {
	base_rules
	check 'packets jump' until_true 20 both_jump
	in_ns r conntrack -D -p udp --orig-port-src "$SPORT" >/dev/null 2>&1
	in_ns r nft insert rule ip fast forward ct state new drop
	check 'a deleted connection: the next packet is a new one' is "$(talk 0.2)" 0
}

# A change that does not concern the packets.
test_packets_jump_again() {
	meets 'another rule' rule add rule ip fast other ip saddr 192.0.2.2 drop
	check 'later packets jump again' until_true 20 both_jump
}

# The last chain of a hook point ends while its hooks are compared.
test_chains_that_come_and_go() {
	base_rules
	check 'packets jump' until_true 20 both_jump
	echo 'table ip fast { chain forward {
		type filter hook forward priority 0
		ct state established ct mark set ct mark or 0x100
	}; }' >/tmp/lone
	meanwhile rules 0 in_ns r nft -f /tmp/lone
	meanwhile none 0 in_ns r nft flush ruleset
	meanwhile routes 0 shown routes
	check 'chains come and go: all are answered' is "$(talk 2>/dev/null; ask c udp $((2000 / SLOW)) --sport "$SPORT")" \
		"1
$((2000 / SLOW))"
	end_meanwhile
	base_rules
	check 'then, packets jump again' until_true 20 both_jump
}

# The legacy iptables change their rules without a trace, so no packet skips them.
test_iptables() {
	bites 'iptables' in_xtables r iptables -I FORWARD -j DROP
	in_xtables r iptables -D FORWARD -j DROP
	if [ "$XTABLES" = legacy ]; then
		talk >/dev/null
		check 'legacy iptables: no packet jumps' is "$(gained jumped talk 2>/dev/null)" 0
		check 'legacy iptables: stats say why' eval \
			'shown stats | grep -q "^rules_ipv4 unknown:ipt_do_table"'
	else
		skip 'legacy iptables' 'there are none'
		skip 'legacy iptables: stats say why' 'there are none'
	fi
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
