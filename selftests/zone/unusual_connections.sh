#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Connections that end, change or are created in unusual ways while packets are looked up, and
# conntrack's special cases: helpers, SYNPROXY, queues, ICMP errors, entries made by ctnetlink.
#
# Group: tracking
# Kernel: stock quick

. lib/test.sh
plan 59

load
router
ip -n r route add 10.9.9.77 via 10.0.2.2
serve udp
serve tcp
mkfifo /tmp/queue /tmp/words

# looked_up NAME: prints how many lookups had that outcome.
looked_up() {
	stat_of "lookup_$1"
}

# rules BODY: replaces the nft table of this test in r.
rules() {
	in_ns r nft -f - <<-END
		table ip special
		delete table ip special
		table ip special {
			$1
		}
	END
}

# steady SPORT: brings a UDP flow past its first packets.
steady() {
	ask c udp 3 --sport "$1" >/dev/null
}

# connections SPORT: prints conntrack's UDP entries with this source port.
connections() {
	in_ns r conntrack -L -p udp --orig-port-src "$1" 2>/dev/null
}

# insert PROTO SPORT TIMEOUT OPTION...: makes an entry through ctnetlink, as conntrackd does.
insert() {
	in_ns r conntrack -I -p "$1" -s 10.0.1.2 -d "$SERVER" --sport "$2" --dport "$PORT" \
		-t "$3" "${@:4}" >/dev/null 2>&1
}

# queue NUMBER [HOLD]: starts a program that accepts the packets of an NFQUEUE in r, on the last CPU:
# at once, or as soon as HOLD packets are queued.
queue() {
	background r sh -c "exec taskset -c $(($(nproc) - 1)) python3 tools/nfqueue.py $* >/tmp/queue"
	read -r _ </tmp/queue
}

# wrong SPORT COUNT: sends packets of a UDP flow with a wrong checksum.
wrong() {
	in_ns c python3 tools/traffic.py frame c0 "$(mac_of r c1)" 10.0.1.2 "$SERVER" \
		--sport "$1" --dport "$PORT" --checksum 1 --count "$2" >/dev/null
}

test_steady_flow_is_found() {
	local sport=4000 n=5
	steady "$sport"
	check 'a steady flow is found' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

test_connection_deleted_mid_flow_is_replaced() {
	local sport=4015 n=5 before
	steady "$sport"
	in_ns r conntrack -D -p udp --orig-port-src "$sport" >/dev/null 2>&1
	before=$(stat_of flow_new)
	check 'deleted mid-flow: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	check 'deleted mid-flow: one new connection' is $(($(stat_of flow_new) - before)) 1
	check 'deleted mid-flow: the new one is found' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

test_connections_flushed_mid_flow_are_replaced() {
	local sport=4001 n=5
	steady "$sport"
	in_ns r conntrack -F >/dev/null 2>&1
	check 'flushed mid-flow: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	check 'flushed mid-flow: found again' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

test_connection_expired_mid_flow_is_replaced() {
	local sport=4002 n=5 before
	udp_timeouts r 1 1
	steady "$sport"
	sleep 1.2
	before=$(stat_of flow_new)
	check 'expired mid-flow: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	check 'expired mid-flow: one new connection' is $(($(stat_of flow_new) - before)) 1
	udp_timeouts r 600 700
}

# A packet that a rule drops never confirms its connection.
test_packet_dropped_before_confirm_makes_no_flow() {
	local before
	rules 'chain f { type filter hook forward priority 10; udp dport 99 drop; }'
	before=$(stat_of flow_new)
	PORT=99 ask c udp 3 --sport 4003 --oneway >/dev/null
	check 'dropped before confirm: no flow' is "$(stat_of flow_new)" "$before"
	rules ''
}

# A clash: two packets with the same tuple, neither confirmed when the other arrives. At confirm,
# the second packet is given the connection of the first.
test_clash_leaves_one_connection() {
	local sport=4004 n=5 before
	rules "chain f {
		type filter hook forward priority -150
		udp dport 7 udp sport $sport ct state new queue num 5
	}"
	queue 5 2
	before=$(ct_stat clash_resolve)
	in_ns c python3 - "$sport" >/tmp/clash <<-'END'
		import socket, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.bind(("", int(sys.argv[1]))); s.connect(("10.9.9.9", 7)); s.settimeout(10)
		s.send(b"one"); s.send(b"two")
		print(sorted([s.recv(9), s.recv(9)]))
	END
	check 'a clash: both packets are answered' is "$(cat /tmp/clash)" "[b'one', b'two']"
	check 'a clash: conntrack resolved it' is $(($(ct_stat clash_resolve) - before)) 1
	check 'a clash: one connection' is "$(connections "$sport" | grep -c .)" 1
	rules ''
	check 'a clash: the connection is found' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

# The queue is before the lookup in raw, and after it in mangle.
test_queued_packets_are_found() {
	local sport=4005 n=5 hook
	queue 6
	steady "$sport"
	for hook in raw mangle; do
		rules "chain raw {
			type filter hook prerouting priority $hook
			udp sport $sport queue num 6
			udp dport $sport queue num 6
		}"
		check "NFQUEUE in $hook: answered" is "$(ask c udp 2 --sport "$sport")" 2
		check "NFQUEUE in $hook: found" \
			is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
	done
	rules ''
}

# Packets are received on the first CPU and continue on the last one, where no hook has noted them.
test_packets_queued_after_routing_are_served() {
	local sport=4017 n=20 port=78
	background s taskset -c 0 python3 tools/traffic.py echo udp "$SERVER" "$port"
	until_true 10 in_ns s grep -q ':004E ' /proc/net/udp
	queue 8
	rules "chain forward {
		type filter hook forward priority 0
		udp sport $sport queue num 8
		udp dport $sport queue num 8
	}"
	check 'NFQUEUE in forward: answered' is "$(in_ns c taskset -c 0 python3 tools/traffic.py \
		ask udp "$SERVER" "$port" "$n" --sport "$sport" | sed 's/.*answered=//')" "$n"
	check 'NFQUEUE in forward: served in both directions, after the first packets' is \
		"$(routes ' udp ' "port=$sport " | awk '{ for (i = 1; i <= NF; i++)
			if ($i ~ /^hits=/ && substr($i, 6) >= '$((n - 3))') served++ }
			END { print served + 0 }')" 2
	rules ''
}

# The connection is deleted while its packet waits in the queue.
test_connection_deleted_while_a_packet_waits_is_replaced() {
	local sport=4016
	steady "$sport"
	rules "chain raw {
		type filter hook prerouting priority mangle
		udp sport $sport queue num 7
	}"
	queue 7 2
	ask c udp 1 --sport "$sport" --oneway >/dev/null
	in_ns r conntrack -D -p udp --orig-port-src "$sport" >/dev/null 2>&1
	sleep 0.2
	check 'deleted while a packet waits in a queue: packets get through' \
		is "$(ask c udp 1 --sport "$sport" --timeout 5)" 1
	rules ''
	forget_flows
	check 'deleted while a packet waits in a queue: no reference is left' no_references
}

# An ICMP error about a connection in the table.
test_icmp_error_is_related() {
	local sport=4006 server
	rules 'chain f { type filter hook forward priority 10; ct state related counter; }'
	background s python3 tools/traffic.py echo udp "$SERVER" 77
	server=${JOBS[-1]}
	until_true 10 in_ns s grep -q ':004D ' /proc/net/udp
	PORT=77 ask c udp 5 --sport "$sport" >/dev/null
	end_jobs "$server"
	unset 'JOBS[-1]'
	until_true 10 eval '! in_ns s grep -q ":004D " /proc/net/udp'
	PORT=77 ask c udp 1 --sport "$sport" --timeout 0.2 >/dev/null
	check 'an ICMP error about a flow is RELATED' \
		is "$(in_ns r nft list table ip special | grep -o 'packets [0-9]*')" 'packets 1'
	rules ''
}

test_ip_options_are_left_to_conntrack() {
	local sport=4007 n=3 before
	steady "$sport"
	before=$(looked_up miss_options)
	check 'with IP options: answered' \
		is "$(ask c udp "$n" --sport "$sport" --options 01010101)" "$n"
	check 'with IP options: not looked up' [ $(($(looked_up miss_options) - before)) -ge "$n" ]
}

# An MPTCP segment has options that conntrack does not look at.
test_mptcp_is_found() {
	local n=20 hits
	if [ ! -e /proc/sys/net/mptcp ]; then
		skip 'MPTCP: answered' 'this kernel has no MPTCP'
		skip 'MPTCP: found' 'this kernel has no MPTCP'
		return
	fi
	PORT=78 serve mptcp
	hits=$(PORT=78 found ask c mptcp "$n" 2>/tmp/answered)
	check 'MPTCP: answered' is "$(cat /tmp/answered)" "$n"
	check 'MPTCP: found' [ "$hits" -ge $((2 * n)) ]
}

test_fragments_are_reassembled_and_found() {
	local sport=4017 n=3
	steady "$sport"
	check 'in fragments: answered' is "$(ask c udp "$n" --sport "$sport" --size 4000)" "$n"
	check 'in fragments: reassembled, and found' \
		is "$(found ask c udp "$n" --sport "$sport" --size 4000 2>/dev/null)" $((2 * n))
}

test_wrong_checksum_is_left_to_conntrack() {
	local sport=4018 n=3 before
	steady "$sport"
	before=$(ct_stat invalid)
	check 'with a wrong checksum: not attached' \
		is "$(gained lookup_miss_checksum wrong "$sport" "$n")" "$n"
	check 'with a wrong checksum: conntrack finds it invalid' \
		is $(($(ct_stat invalid) - before)) "$n"
	in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
	check 'with a wrong checksum and nf_conntrack_checksum=0: attached' \
		is "$(found wrong "$sport" "$n")" "$n"
	in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=1
}

test_udp_entry_made_by_ctnetlink_is_found() {
	local sport=4008 n=5
	insert udp "$sport" 100 -u SEEN_REPLY,ASSURED
	check 'an entry made by ctnetlink, UDP: answered' is "$(ask c udp 3 --sport "$sport")" 3
	check 'an entry made by ctnetlink, UDP: found' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

# An entry with a fixed timeout: it is found, and its timeout keeps running down.
test_fixed_timeout_is_not_extended() {
	local sport=4014 n=5 timeout=100 slept=2
	insert udp "$sport" "$timeout" -u SEEN_REPLY,ASSURED,FIXED_TIMEOUT
	ask c udp 2 --sport "$sport" >/dev/null
	sleep "$slept"
	check 'a fixed timeout: found' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
	check 'a fixed timeout: not extended' \
		[ "$(connections "$sport" | awk '{ print $3 }')" -le $((timeout - slept)) ]
}

test_tcp_entry_made_by_ctnetlink_is_found() {
	local sport=4009 words word before
	in_ns c timeout 60 python3 -c '
import socket, sys
s = socket.socket(); s.bind(("", int(sys.argv[1]))); s.connect(("10.9.9.9", 7))
for line in sys.stdin:
    s.sendall(line.encode()); print(s.recv(99).decode(), end="", flush=True)' \
		"$sport" </tmp/words >/tmp/answers &
	words=$!
	exec 7>/tmp/words
	echo one >&7
	until_true 10 grep -q one /tmp/answers
	in_ns r conntrack -D -p tcp --orig-port-src "$sport" >/dev/null 2>&1
	insert tcp "$sport" 100 --state ESTABLISHED -u SEEN_REPLY,ASSURED
	for word in two three four five; do
		echo "$word" >&7
		until_true 10 grep -q "$word" /tmp/answers
	done
	before=$(looked_up hit)
	echo six >&7
	check 'an entry made by ctnetlink, TCP: answered' until_true 10 grep -q six /tmp/answers
	# A request and its answer.
	check 'an entry made by ctnetlink, TCP: found' [ $(($(looked_up hit) - before)) -ge 2 ]
	exec 7>&-
	wait "$words"
}

# FTP: the control connection has a helper, the data connections are expected.
test_ftp_data_is_found_and_its_control_is_left_to_conntrack() {
	local mode before hits
	modprobe nf_nat_ftp
	in_ns r nft -f - <<-'END'
		table ip ftp {
			ct helper ftp-standard {
				type "ftp" protocol tcp
			}
			chain pre {
				type filter hook prerouting priority filter
				tcp dport 21 ct helper set "ftp-standard"
			}
			chain forward {
				type filter hook forward priority 5
				ct state related counter
			}
			chain post {
				type nat hook postrouting priority srcnat
				oifname "s1" snat to 10.0.2.100
			}
		}
	END
	ip -n r addr add 10.0.2.100/32 dev s1
	background s python3 tools/ftp.py serve "$SERVER"
	until_true 10 in_ns s grep -q ':0015 ' /proc/net/tcp
	for mode in passive active; do
		before=$(looked_up miss_helper) hits=$(looked_up hit)
		check "FTP, $mode: file received" \
			is "$(in_ns c python3 tools/ftp.py get "$SERVER" "$mode")" got=200000
		check "FTP, $mode: the control connection is left to conntrack" \
			[ "$(looked_up miss_helper)" -gt "$before" ]
		check "FTP, $mode: the data connection is found" [ "$(looked_up hit)" -gt "$hits" ]
	done
	check 'FTP: the data connections were RELATED' \
		is "$(in_ns r nft list chain ip ftp forward | grep -o 'packets [0-9]*')" 'packets 2'
	in_ns r nft delete table ip ftp
	ip -n r addr del 10.0.2.100/32 dev s1
}

# SYNPROXY adjusts the server's sequence numbers.
test_synproxy_is_left_to_conntrack() {
	local n=20 before
	synproxy
	before=$(looked_up miss_seq_adjust)
	check 'SYNPROXY: answered' is "$(ask c tcp "$n" --sport 4010 --timeout 10)" "$n"
	check 'SYNPROXY: left to conntrack' [ $(($(looked_up miss_seq_adjust) - before)) -ge "$n" ]
	no_synproxy
}

# Packets of a flow in a flowtable bypass the module's hooks.
test_flowtable_works_beside_the_module() {
	local sport=4011 n=10
	in_ns r nft -f - <<-'END'
		table ip fast {
			flowtable ft {
				hook ingress priority 0
				devices = { "c1", "s1" }
			}
			chain forward {
				type filter hook forward priority 0
				udp dport 7 flow add @ft
				udp sport 7 flow add @ft
			}
		}
	END
	check 'flowtable: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	check 'flowtable: offloaded' eval 'connections "$sport" | grep -q OFFLOAD'
	in_ns r nft delete table ip fast
	check 'flowtable deleted: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
}

# A sender opens and resets the same connection over and over.
test_flows_of_a_reused_tuple_do_not_pile_up() {
	local rounds=400 before
	# Flows of other cases would count too. One UDP flow keeps zone 0 listed.
	forget_flows
	steady 4019
	in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
	before=$(stat_of flow_new)
	in_ns c python3 - "/proc/${HOLDER[r]}/net/nf_zoneroute/zones" "$rounds" >/tmp/flows <<-'END'
		import re, socket, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		def segment(flags):
		    # Without a checksum: nf_conntrack_checksum is 0.
		    ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 1, 2, 10, 9, 9, 77]
		    tcp = [40, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 16, 0, 0, 0, 0, 0]
		    return bytes(ip + tcp)
		most = 0
		for i in range(int(sys.argv[2])):
		    for flags in (2, 2, 4):
		        s.sendto(segment(flags), ("10.9.9.77", 0))
		    if i % 50 == 49:
		        flows = re.search("zone=0 flows=([0-9]+)", open(sys.argv[1]).read())
		        most = max(most, int(flows[1]))
		print(most)
	END
	in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=1
	check 'opened and reset repeatedly: a flow each time' \
		[ $(($(stat_of flow_new) - before)) -ge $((rounds * 3 / 4)) ]
	check 'opened and reset repeatedly: they do not pile up' [ "$(cat /tmp/flows)" -le 20 ]
}

test_flows_end_when_no_rule_needs_conntrack() {
	local sport=4013 n=5 before
	steady "$sport"
	before=$(stat_of flow_untracked)
	in_ns r nft delete table ip firewall
	check 'no rule needs conntrack: flows end' \
		until_true 5 eval '[ "$(stat_of ct_references)" = 0 ]'
	check 'no rule needs conntrack: flow_untracked counts them' \
		[ $(($(stat_of flow_untracked) - before)) -ge 1 ]
	check 'no rule needs conntrack: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	track
	steady "$sport"
	check 'a rule needs it again: found' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

test_lookup_disabled_and_enabled_again() {
	local sport=4012 n=5 counts
	steady "$sport"
	in_ns r sysctl -qw net.nf_zoneroute.zone_lookup=0
	check 'zone_lookup=0: answered' is "$(ask c udp "$n" --sport "$sport")" "$n"
	counts=$(found ask c udp "$n" --sport "$sport" 2>/dev/null)
	counts="$counts $(gained hit ask c udp "$n" --sport "$sport" 2>/dev/null)"
	check 'zone_lookup=0: no lookup, but routes are served' is "$counts" "0 $((2 * n))"
	in_ns r sysctl -qw net.nf_zoneroute.zone_lookup=1
	check 'zone_lookup=1: found again' \
		is "$(found ask c udp "$n" --sport "$sport" 2>/dev/null)" $((2 * n))
}

test_no_reference_is_left() {
	forget_flows
	check 'no reference is left at the end' no_references
}

run_cases
