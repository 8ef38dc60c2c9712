#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Connections that end, change or are created in unusual ways while packets are looked up, and
# conntrack's special cases: helpers, SYNPROXY, queues, ICMP errors, entries made by ctnetlink.
#
# Group: tracking
# Kernel: stock quick

. lib/test.sh
plan 55

load
router
ip -n r route add 10.9.9.77 via 10.0.2.2
serve udp
serve tcp

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

steady 4000
check 'a steady flow is found' is "$(found ask c udp 5 --sport 4000 2>/dev/null)" 10
in_ns r conntrack -D -p udp --orig-port-src 4000 >/dev/null 2>&1
before=$(stat_of flow_new)
check 'deleted mid-flow: answered' is "$(ask c udp 5 --sport 4000)" 5
check 'deleted mid-flow: one new connection' is $(($(stat_of flow_new) - before)) 1
check 'deleted mid-flow: the new one is found' is "$(found ask c udp 5 --sport 4000 2>/dev/null)" 10

steady 4001
in_ns r conntrack -F >/dev/null 2>&1
check 'flushed mid-flow: answered' is "$(ask c udp 5 --sport 4001)" 5
check 'flushed mid-flow: found again' is "$(found ask c udp 5 --sport 4001 2>/dev/null)" 10

in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1 net.netfilter.nf_conntrack_udp_timeout_stream=1
steady 4002
sleep 1.2
before=$(stat_of flow_new)
check 'expired mid-flow: answered' is "$(ask c udp 5 --sport 4002)" 5
check 'expired mid-flow: one new connection' is $(($(stat_of flow_new) - before)) 1
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=30 net.netfilter.nf_conntrack_udp_timeout_stream=120

# A packet that a rule drops never confirms its connection.
rules 'chain f { type filter hook forward priority 10; udp dport 99 drop; }'
before=$(stat_of flow_new)
PORT=99 ask c udp 3 --sport 4003 --oneway >/dev/null
check 'dropped before confirm: no flow' is "$(stat_of flow_new)" "$before"

# A clash: two packets with the same tuple, neither confirmed when the other arrives. At confirm,
# the second one is given the connection of the first.
rules 'chain f { type filter hook forward priority -150; udp dport 7 udp sport 4004 ct state new queue num 5; }'
mkfifo /tmp/queue
background r sh -c 'exec python3 tools/nfqueue.py 5 2 >/tmp/queue'
read -r _ </tmp/queue
before=$(ct_stat clash_resolve)
in_ns c python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 4004)); s.connect(("10.9.9.9", 7)); s.settimeout(10)
s.send(b"one"); s.send(b"two")
print(sorted([s.recv(9), s.recv(9)]))' >/tmp/clash
check 'a clash: both packets are answered' is "$(cat /tmp/clash)" "[b'one', b'two']"
check 'a clash: conntrack resolved it' is $(($(ct_stat clash_resolve) - before)) 1
check 'a clash: one connection' is "$(in_ns r conntrack -L -p udp --orig-port-src 4004 2>/dev/null | grep -c .)" 1
rules ''
check 'a clash: the connection is found' is "$(found ask c udp 5 --sport 4004 2>/dev/null)" 10

# NFQUEUE before the lookup, and after it.
background r sh -c 'exec python3 tools/nfqueue.py 6 >/tmp/queue'
read -r _ </tmp/queue
steady 4005
rules 'chain raw { type filter hook prerouting priority raw; udp sport 4005 queue num 6; udp dport 4005 queue num 6; }'
check 'NFQUEUE in raw: answered' is "$(ask c udp 2 --sport 4005)" 2
check 'NFQUEUE in raw: found' is "$(found ask c udp 5 --sport 4005 2>/dev/null)" 10
rules 'chain raw { type filter hook prerouting priority mangle; udp sport 4005 queue num 6; udp dport 4005 queue num 6; }'
check 'NFQUEUE in mangle: answered' is "$(ask c udp 2 --sport 4005)" 2
check 'NFQUEUE in mangle: found' is "$(found ask c udp 5 --sport 4005 2>/dev/null)" 10
# The connection is deleted while its packet waits in the queue.
rules 'chain raw { type filter hook prerouting priority mangle; udp sport 4005 queue num 7; }'
background r sh -c 'exec python3 tools/nfqueue.py 7 2 >/tmp/queue'
read -r _ </tmp/queue
ask c udp 1 --sport 4005 --oneway >/dev/null
in_ns r conntrack -D -p udp --orig-port-src 4005 >/dev/null 2>&1
sleep 0.2
check 'deleted while a packet waits in a queue: packets get through' \
	is "$(ask c udp 1 --sport 4005 --timeout 5)" 1
rules ''
forget_flows
check 'no reference is left' no_references

# ICMP errors about a connection in our table.
rules 'chain f { type filter hook forward priority 10; ct state related counter; }'
background s python3 tools/traffic.py echo udp "$SERVER" 77
server=${JOBS[-1]}
until_true 10 in_ns s grep -q ':004D ' /proc/net/udp
PORT=77 ask c udp 5 --sport 4006 >/dev/null
kill "$server"
until_true 10 eval '! in_ns s grep -q ":004D " /proc/net/udp'
PORT=77 ask c udp 1 --sport 4006 --timeout 0.2 >/dev/null
check 'an ICMP error about a flow is RELATED' is "$(in_ns r nft list table ip special | grep -o 'packets [0-9]*')" 'packets 1'

# Options, fragments and wrong checksums mid-flow are left to conntrack.
rules ''
steady 4007
before=$(looked_up miss_options)
check 'with IP options: answered' is "$(ask c udp 3 --sport 4007 --options 01010101)" 3
check 'with IP options: not looked up' [ $(($(looked_up miss_options) - before)) -ge 3 ]
check 'in fragments: answered' is "$(ask c udp 3 --sport 4007 --size 4000)" 3
check 'in fragments: reassembled, and found' is "$(found ask c udp 3 --sport 4007 --size 4000 2>/dev/null)" 6
wrong() {
	in_ns c python3 tools/traffic.py frame c0 "$(mac_of r c1)" 10.0.1.2 "$SERVER" --sport 4007 --dport "$PORT" --checksum 1 --count 3 >/dev/null
}
before=$(ct_stat invalid)
check 'with a wrong checksum: not attached' is "$(gained lookup_miss_checksum wrong)" 3
check 'with a wrong checksum: conntrack finds it invalid' is $(($(ct_stat invalid) - before)) 3
in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
check 'with a wrong checksum and nf_conntrack_checksum=0: attached' is "$(found wrong)" 3
in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=1

# Entries made through ctnetlink, as conntrackd does.
in_ns r conntrack -I -p udp -s 10.0.1.2 -d "$SERVER" --sport 4008 --dport "$PORT" -t 100 -u SEEN_REPLY,ASSURED >/dev/null 2>&1
check 'an entry made by ctnetlink, UDP: answered' is "$(ask c udp 3 --sport 4008)" 3
check 'an entry made by ctnetlink, UDP: found' is "$(found ask c udp 5 --sport 4008 2>/dev/null)" 10
# An entry with a fixed timeout: it is found, and its timeout keeps running down.
in_ns r conntrack -I -p udp -s 10.0.1.2 -d "$SERVER" --sport 4014 --dport "$PORT" -t 100 \
	-u SEEN_REPLY,ASSURED,FIXED_TIMEOUT >/dev/null 2>&1
ask c udp 2 --sport 4014 >/dev/null
sleep 2
check 'a fixed timeout: found' is "$(found ask c udp 5 --sport 4014 2>/dev/null)" 10
check 'a fixed timeout: not extended' \
	[ "$(in_ns r conntrack -L -p udp --orig-port-src 4014 2>/dev/null | awk '{ print $3 }')" -le 98 ]
mkfifo /tmp/words
in_ns c timeout 60 python3 -c '
import socket, sys
s = socket.socket(); s.bind(("", 4009)); s.connect(("10.9.9.9", 7))
for line in sys.stdin:
    s.sendall(line.encode()); print(s.recv(99).decode(), end="", flush=True)' </tmp/words >/tmp/answers &
words=$!
exec 7>/tmp/words
echo one >&7
until_true 10 grep -q one /tmp/answers
in_ns r conntrack -D -p tcp --orig-port-src 4009 >/dev/null 2>&1
in_ns r conntrack -I -p tcp -s 10.0.1.2 -d "$SERVER" --sport 4009 --dport "$PORT" -t 100 --state ESTABLISHED -u SEEN_REPLY,ASSURED >/dev/null 2>&1
for word in two three four five; do
	echo "$word" >&7
	until_true 10 grep -q "$word" /tmp/answers
done
before=$(looked_up hit)
echo six >&7
check 'an entry made by ctnetlink, TCP: answered' until_true 10 grep -q six /tmp/answers
check 'an entry made by ctnetlink, TCP: found' [ $(($(looked_up hit) - before)) -ge 2 ]
exec 7>&-
wait "$words"

# FTP: the control connection has a helper, the data connections are expected.
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
	check "FTP, $mode: file received" is "$(in_ns c python3 tools/ftp.py get "$SERVER" "$mode")" got=200000
	check "FTP, $mode: the control connection is left to conntrack" [ "$(looked_up miss_helper)" -gt "$before" ]
	check "FTP, $mode: the data connection is found" [ "$(looked_up hit)" -gt "$hits" ]
done
check 'FTP: the data connections were RELATED' \
	is "$(in_ns r nft list chain ip ftp forward | grep -o 'packets [0-9]*')" 'packets 2'
in_ns r nft delete table ip ftp

# SYNPROXY adjusts the server's sequence numbers.
in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0
in_ns r nft -f - <<-'END'
	table ip proxy {
		chain raw {
			type filter hook prerouting priority raw
			tcp dport 7 tcp flags syn notrack
		}
		chain forward {
			type filter hook forward priority -5
			tcp dport 7 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
			tcp dport 7 ct state invalid drop
		}
	}
END
before=$(looked_up miss_seq_adjust)
check 'SYNPROXY: answered' is "$(ask c tcp 20 --sport 4010 --timeout 10)" 20
check 'SYNPROXY: left to conntrack' [ $(($(looked_up miss_seq_adjust) - before)) -ge 20 ]
in_ns r nft delete table ip proxy
in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1

# Packets of a flow in a flowtable bypass our hooks.
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
check 'flowtable: answered' is "$(ask c udp 10 --sport 4011)" 10
check 'flowtable: offloaded' eval 'in_ns r conntrack -L -p udp --orig-port-src 4011 2>/dev/null | grep -q OFFLOAD'
in_ns r nft delete table ip fast
check 'flowtable deleted: answered' is "$(ask c udp 10 --sport 4011)" 10

# A sender opens and resets the same connection over and over.
in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
before=$(stat_of flow_new)
in_ns c python3 - "/proc/${HOLDER[r]}/net/nf_zoneroute/zones" >/tmp/flows <<-'END'
	import re, socket, sys
	s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
	def segment(flags):
	    # Without a checksum: nf_conntrack_checksum is 0.
	    return (bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 1, 2, 10, 9, 9, 77])
	            + bytes([40, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 16, 0, 0, 0, 0, 0]))
	most = 0
	for i in range(400):
	    for flags in (2, 2, 4):
	        s.sendto(segment(flags), ("10.9.9.77", 0))
	    if i % 50 == 49:
	        flows = re.search("zone=0 flows=([0-9]+)", open(sys.argv[1]).read())
	        most = max(most, int(flows[1]))
	print(most)
END
in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=1
check 'opened and reset repeatedly: a flow each time' [ $(($(stat_of flow_new) - before)) -ge 300 ]
check 'opened and reset repeatedly: they do not pile up' [ "$(cat /tmp/flows)" -le 20 ]

# No rule needs connection tracking any more.
steady 4013
in_ns r nft delete table ip firewall
check 'no rule needs conntrack: flows end' until_true 5 eval '[ "$(stat_of ct_references)" = 0 ]'
check 'no rule needs conntrack: flow_untracked counts them' [ "$(stat_of flow_untracked)" -ge 1 ]
check 'no rule needs conntrack: answered' is "$(ask c udp 5 --sport 4013)" 5
track
steady 4013
check 'a rule needs it again: found' is "$(found ask c udp 5 --sport 4013 2>/dev/null)" 10

# Disabled, and enabled again.
steady 4012
in_ns r sysctl -qw net.nf_zoneroute.zone_lookup=0
check 'zone_lookup=0: answered' is "$(ask c udp 5 --sport 4012)" 5
check 'zone_lookup=0: no lookup, but routes are served' \
	is "$(found ask c udp 5 --sport 4012 2>/dev/null) $(gained hit ask c udp 5 --sport 4012 2>/dev/null)" '0 10'
in_ns r sysctl -qw net.nf_zoneroute.zone_lookup=1
check 'zone_lookup=1: found again' is "$(found ask c udp 5 --sport 4012 2>/dev/null)" 10
forget_flows
check 'no reference is left at the end' no_references
