#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The same random packets with jump=0 and jump=1: each frame that leaves is the same, byte for byte and
# in the same order, and so are the counters of IP, of the devices and of the connection. UDP and TCP,
# IPv4 and IPv6, both directions, every kind of NAT.
#
# Group: jump
# Kernel: stock
# Long: stock quick

. lib/test.sh

SEED=${NFZR_SEED:-$RANDOM}
DPORT=77
KINDS=(none both)
COUNT=300
if [ -n "${NFZR_LONG-}" ]; then
	# 100,000 packets a family.
	KINDS=(none snat masquerade dnat both)
	COUNT=$((5000 / SLOW))
fi
plan $((${#KINDS[@]} * 8 * 5 + 1))

load
router
six_router
echo "# seed $SEED"
# lasting NS DEV ADDR OF-NS OF-DEV: a neighbour that is never probed.
lasting() {
	ip -n "$1" neigh replace "$3" dev "$2" lladdr "$(mac_of "$4" "$5")" nud permanent
}
for addr in 10.0.1. fd00:1::; do
	lasting r c1 "${addr}2" c c0
	lasting c c0 "${addr}1" r c1
done
for addr in 10.0.2. fd00:2::; do
	lasting r s1 "${addr}2" s s0
	lasting s s0 "${addr}1" r s1
done
# All packets that the router receives are those of the test.
for dev in c.c0 d.d0 s.s0 s.t0; do
	in_ns "${dev%.*}" sysctl -qw "net.ipv6.conf.${dev#*.}.router_solicitations=0"
done
in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1 net.nf_zoneroute.jump_mark=0x100 \
	net.nf_zoneroute.jump_mask=0x100

# nat KIND: loads the rules of a kind of NAT, and those that set the mark.
nat() {
	local snat4='' snat6='' dnat4='' dnat6=''
	case $1 in
	snat | both) snat4='snat ip to 10.0.2.1:6000' snat6='snat ip6 to [fd00:2::1]:6000' ;;
	masquerade) snat4=masquerade snat6=masquerade ;;
	esac
	case $1 in
	dnat | both) dnat4="dnat ip to $SERVER:$DPORT" dnat6="dnat ip6 to [$SERVER6]:$DPORT" ;;
	esac
	in_ns r nft -f - <<-END
		table inet exact
		delete table inet exact
		table inet exact {
			chain forward {
				type filter hook forward priority filter
				ct state established ct mark set ct mark or 0x100
			}
			chain in {
				type nat hook prerouting priority dstnat
				ip daddr 10.0.1.1 meta l4proto { tcp, udp } th dport 99 $dnat4
				ip6 daddr fd00:1::1 meta l4proto { tcp, udp } th dport 99 $dnat6
			}
			chain out {
				type nat hook postrouting priority srcnat
				meta nfproto ipv4 meta l4proto { tcp, udp } oifname s1 $snat4
				meta nfproto ipv6 meta l4proto { tcp, udp } oifname s1 $snat6
			}
		}
	END
}

# tuples FAMILY KIND: prints the tuple of the original direction at c, and at s.
tuples() {
	local src=10.0.1.2 sport=$SPORT dst=$SERVER dport=$DPORT at_c
	[ "$1" = 4 ] || src=fd00:1::2 dst=$SERVER6
	at_c="$src $sport $dst $dport"
	case $2 in
	snat | both) src=10.0.2.1 sport=6000 ;;
	masquerade) src=10.0.2.1 ;;
	esac
	[ "$1" = 4 ] || src=${src/10.0.2.1/fd00:2::1}
	case $2-$1 in
	dnat-4 | both-4) at_c="10.0.1.2 $sport 10.0.1.1 99" ;;
	dnat-6 | both-6) at_c="fd00:1::2 $sport fd00:1::1 99" ;;
	esac
	case $2 in both) at_c=${at_c/ 6000 / $SPORT } ;; esac
	printf '%s\n%s\n' "$at_c" "$src $sport $dst $dport"
}

# ip_counters: prints the counters of IP and of the devices in r.
ip_counters() {
	in_ns r awk '
		/^Ip(Ext)?:/ && !($1 in names) { names[$1] = $0; next }
		/^Ip(Ext)?:/ { n = split(names[$1], name); for (i = 2; i <= n; i++) print name[i], $i }
		/^Ip6/ && !/Mcast|Reasm/ { print }
		/^ *[cs]1:/ { print $1, $2, $3, $10, $11 }' \
		/proc/net/snmp /proc/net/netstat /proc/net/snmp6 /proc/net/dev
}

# difference BEFORE: prints by how much the counters have risen since BEFORE.
difference() {
	printf '%s\n' "$1" >/tmp/before
	ip_counters | paste -d ' ' /tmp/before - | awk '
		NF == 4 { print $1, $4 - $2 }
		NF == 10 { print $1, $7 - $2, $8 - $3, $9 - $4, $10 - $5 }'
}

# connection PROTO: prints the packets and bytes of the connection.
connection() {
	local family
	for family in ipv4 ipv6; do
		in_ns r conntrack -L -f "$family" -p "$1" 2>/dev/null |
			sed -n "/sport=$SPORT /s/ /\n/gp" | sed -n '/^packets=/p; /^bytes=/p'
	done
}

# play NAME FAMILY KIND PROTO DIRECTION: sends the packets, and writes the frames that arrive and the
# counters to files of that name.
play() {
	local at before
	at=$(tuples "$2" "$3")
	forget_flows
	before=$(ip_counters)
	in_ns r python3 tools/exact.py "$4" "$5" "$COUNT" "$SEED" "$(mac_of r c1)" "$(mac_of r s1)" \
		"${at%$'\n'*}" "${at#*$'\n'}" >"/tmp/frames.$1"
	difference "$before" >"/tmp/counters.$1"
	connection "$4" >"/tmp/connection.$1"
}

# play_both WHAT PLAY-ARGUMENT...: plays without and with jumps, on a new connection.
play_both() {
	local jumped
	SPORT=$((SPORT + 1))
	in_ns r sysctl -qw net.nf_zoneroute.jump=0
	play off "${@:2}"
	in_ns r sysctl -qw net.nf_zoneroute.jump=1
	jumped=$(stat_of jumped)
	play on "${@:2}"
	JUMPED=$(($(stat_of jumped) - jumped))
	echo "# $1: $JUMPED jumped"
}

compare() {
	local what="$3, IPv$1, $2, $4" try
	# Hosts also send packets of their own, as multicast listeners do. If the counters differ because
	# of these, they are the same another time.
	for try in 1 2 3; do
		play_both "$what" "$@"
		! cmp -s /tmp/counters.off /tmp/counters.on || break
		echo "# $what: the counters of IP differ, try $try"
	done
	check "$what: most packets jump" [ "$JUMPED" -gt $((COUNT / 2)) ]
	awk '/lost/ { print "# " $0 }' /tmp/frames.on
	check "$what: no packet is lost" eval '! grep -q lost /tmp/frames.on'
	check "$what: the frames are the same" cmp /tmp/frames.off /tmp/frames.on
	check "$what: the counters of IP are the same" diff /tmp/counters.off /tmp/counters.on
	check "$what: those of the connection are the same" eval \
		'[ -s /tmp/connection.on ] && diff /tmp/connection.off /tmp/connection.on'
}

SPORT=4500
test_all_kinds() {
	local kind family proto direction
	for kind in "${KINDS[@]}"; do
		nat "$kind"
		for family in 4 6; do
			for proto in udp tcp; do
				for direction in orig reply; do
					compare "$family" "$kind" "$proto" "$direction"
				done
			done
		done
	done
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
