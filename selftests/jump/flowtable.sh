#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What nft's flowtable does with packets of its flows, and what a jump does with the same: the table of
# docs/performance.md. Each row is tried on a new connection of each.
#
# Group: jump
# Kernel: stock

. lib/test.sh
plan 23

load
router
serve udp
serve tcp
in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1 net.nf_zoneroute.jump_mark=0x100 \
	net.nf_zoneroute.jump_mask=0x100
# s counts the frames that reach it, also those that its IP drops.
in_ns s nft -f - <<-'END'
	table netdev seen {
		counter asked {}
		counter with_padding {}
		counter strays {}
		chain in {
			type filter hook ingress device s0 priority 0
			udp dport 7 counter name asked
			udp dport 7 meta length 62 counter name with_padding
			tcp sequence 305419896 counter name strays
		}
	}
END
SPORT=4000

# rules flowtable|jump
rules() {
	local flowtable='' fast='ct mark set ct mark or 0x100'
	if [ "$1" = flowtable ]; then
		flowtable='flowtable ft { hook ingress priority 0; devices = { c1, s1 }; }'
		fast='flow add @ft'
	fi
	in_ns r nft -f - <<-END
		table inet fast
		delete table inet fast
		table inet fast {
			$flowtable
			counter slow {}
			chain forward {
				type filter hook forward priority filter
				counter name slow
				ct state invalid drop
				ct mark 7 drop
				ct state established meta l4proto { tcp, udp } $fast
			}
		}
	END
}

counted() {
	in_ns "$1" nft -j list counter "${@:2}" | grep -o '"packets": *[0-9]*' | tr -dc 0-9
}

talk() {
	ask c udp "${1:-1}" --sport "$SPORT" --timeout 1
}

# is_fast flowtable|jump: succeeds if the connection's packets skip the firewall.
is_fast() {
	local slow
	slow=$(counted r inet fast slow)
	talk >/dev/null
	[ "$(counted r inet fast slow)" = "$slow" ]
}

# row NAME FLOWTABLE JUMP COMMAND...: what COMMAND prints, with a new connection of each.
row() {
	local name=$1 flowtable=$2 jump=$3 way expected
	shift 3
	for way in flowtable jump; do
		in_ns r sysctl -qw net.nf_zoneroute.enable="$([ "$way" = jump ] && echo 1 || echo 0)" \
			net.nf_zoneroute.jump="$([ "$way" = jump ] && echo 2 || echo 0)"
		rules "$way"
		SPORT=$((SPORT + 1))
		until_true 20 is_fast || echo "# $name, $way: the connection did not get fast"
		expected=$flowtable
		[ "$way" = flowtable ] || expected=$jump
		check "$name, $way: $expected" is "$("$@")" "$expected"
	done
}

# seen COUNTER COMMAND...: prints how many frames more arrive.
seen() {
	local before
	before=$(counted s netdev seen "$1")
	"${@:2}" >/dev/null
	sleep 0.2
	echo $(($(counted s netdev seen "$1") - before))
}

# packet OPTION...: sends a packet of the connection.
packet() {
	packet_to "$(mac_of r c1)" "$@"
}

packet_to() {
	in_ns c python3 tools/traffic.py frame c0 "$1" 10.0.1.2 "$SERVER" --sport "$SPORT" --dport "$PORT" \
		"${@:2}"
}

after_a_rule() {
	in_ns r nft insert rule inet fast forward udp dport 7 drop
	ask c udp 5 --sport "$SPORT" --timeout 0.2
}

after_another_mark() {
	in_ns r conntrack -U -p udp --orig-port-src "$SPORT" --mark 7 >/dev/null 2>&1
	ask c udp 5 --sport "$SPORT" --timeout 0.2
}

after_the_neighbour_went() {
	ip -n r neigh flush dev s1
	talk 3
}

after_a_route() {
	local slow
	slow=$(counted r inet fast slow)
	ip -n r route add 198.51.100.0/24 via 10.0.3.2
	talk 5 >/dev/null
	ip -n r route del 198.51.100.0/24
	[ "$(counted r inet fast slow)" = "$slow" ] && echo no || echo yes
}

# packets_of: prints how many packets the connection has counted.
packets_of() {
	in_ns r conntrack -L -p udp --orig-port-src "$SPORT" 2>/dev/null | sed 's/.*\(packets=\)/\1/; s/packets=\([0-9]*\) .*/\1/'
}

packets_counted() {
	local before
	before=$(packets_of)
	talk 5 >/dev/null
	echo $(($(packets_of) - before))
}

forwarded() {
	in_ns r awk '/^Ip: [0-9]/ { print $7 }' /proc/net/snmp
}

packets_in_statistics() {
	local before
	before=$(forwarded)
	talk 5 >/dev/null
	echo $(($(forwarded) - before))
}

test_rows() {
	row 'answers after a rule that drops' 5 0 after_a_rule
	row 'answers after another mark that is dropped' 5 0 after_another_mark
	row 'frames for another host that pass' 1 0 seen asked packet_to 02:00:00:00:00:99
	row 'packets with a wrong IP checksum that pass' 1 0 seen asked packet --ip-checksum 1
	row 'packets with a wrong UDP checksum that pass' 1 0 seen asked packet --checksum 1
	row 'TCP segments outside of the window that pass' 1 0 seen strays stray
	row 'padded packets that keep their padding' 1 0 seen with_padding packet --padding 18
	row 'answers after the neighbour entry went' 0 3 after_the_neighbour_went
	row 'packets meet the firewall after a new route of others' yes no after_a_route
	row 'packets that the connection counts' 0 5 packets_counted
	row 'packets that the statistics of IP count' 0 10 packets_in_statistics
}

# stray: sends a segment of a TCP connection outside of its window.
stray() {
	local sport=$((SPORT + 1000))
	background c python3 tools/traffic.py ask tcp "$SERVER" "$PORT" 200 --sport "$sport" --interval 0.05
	sleep 3
	in_ns c python3 tools/traffic.py frame c0 "$(mac_of r c1)" 10.0.1.2 "$SERVER" --sport "$sport" \
		--dport "$PORT" --tcp 305419896
	end_jobs "${JOBS[-1]}"
	unset 'JOBS[-1]'
}

test_no_reference_is_left() {
	in_ns r nft delete table inet fast
	check 'no reference is left' forget_flows
}

run_cases
