#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Connections that conntrack ended are let go at once: its count, its early drop and the ports of
# NAT are as without the module. Each case runs without the module and with it.
#
# Group: tracking
# Kernel: stock quick
# Long: stock kcsan

. lib/test.sh
plan 11

ROUNDS=$((4 / SLOW))
[ -z "${NFZR_LONG-}" ] || ROUNDS=$((20 / SLOW))
MAX=/proc/sys/net/netfilter/nf_conntrack_max

# Conntrack's maximum is that of the initial netns.
OLD_MAX=$(cat "$MAX")
at_end() {
	echo "$OLD_MAX" >"$MAX"
}

insmod_module() {
	load
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
}

load
router
in_ns r nft add table ip nat
background s python3 tools/traffic.py echo udp "$SERVER" "$PORT"
unload

# count: prints how many connections conntrack counts in r.
count() {
	in_ns r sysctl -n net.netfilter.nf_conntrack_count
}

# open COUNT FIRST [PAUSE]: opens a UDP flow from each of COUNT ports, and uses each again after
# PAUSE seconds; prints how many got all their answers. A UDP flow is assured when it is answered
# two seconds after it began.
ASSURED=2.1
open() {
	in_ns c python3 - "$1" "$2" "${3-0}" <<-'END'
		import socket, sys, time
		count, first = int(sys.argv[1]), int(sys.argv[2])
		socks = []
		for sport in range(first, first + count):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.bind(("10.0.1.2", sport))
		    s.connect(("10.9.9.9", 7))
		    s.settimeout(1)
		    socks.append(s)
		answered = [0] * count
		def ask():
		    for i, s in enumerate(socks):
		        try:
		            s.send(b"0123")
		            answered[i] += s.recv(99) == b"0123"
		        except OSError:
		            pass
		ask()
		time.sleep(float(sys.argv[3]))
		ask()
		ask()
		print(sum(n == 3 for n in answered))
	END
}

# flush_and_open: fills the table by assured flows, flushes it and opens as many others. Prints what
# is counted right after the flush, and how many of the others got through.
flush_and_open() {
	local flows=220
	open "$flows" 10000 "$ASSURED" >/dev/null
	in_ns r conntrack -F >/dev/null 2>&1
	echo "$(count) $(open "$flows" 20000)"
	in_ns r conntrack -F >/dev/null 2>&1
}

# each_round COMMAND: prints the different results of ROUNDS runs.
each_round() {
	local round
	for round in $(seq "$ROUNDS"); do
		"$@" || echo "round $round failed"
	done | sort -u | paste -sd ' '
}

test_a_flushed_table_has_room() {
	local without with
	echo 300 >"$MAX"
	without=$(flush_and_open)
	insmod_module
	with=$(each_round flush_and_open)
	check 'flush: without the module, nothing is counted and nothing is lost' is "$without" '0 220'
	check 'flush: with the module, neither' is "$with" '0 220'
	unload
	echo "$OLD_MAX" >"$MAX"
}

# The port that a flow from d with c's source port gets after the connections of both were flushed:
# prints the ports that the server sees, for c before and d after.
ports_after_a_flush() {
	ask c udp 5 --sport 5000 >/dev/null
	ask d udp 5 --sport 5000 >/dev/null
	"$@"
	ask d udp 5 --sport 5000 >/dev/null
	in_ns r conntrack -L -p udp --orig-src 10.0.4.2 2>/dev/null |
		sed -n 's/.* dst=10.0.2.1 sport=7 dport=\([0-9]*\) .*/\1/p'
	in_ns r conntrack -F >/dev/null 2>&1
}

flush() {
	in_ns r conntrack -F >/dev/null 2>&1
}

delete_both() {
	in_ns r conntrack -D -p udp --orig-src 10.0.1.2 >/dev/null 2>&1
	in_ns r conntrack -D -p udp --orig-src 10.0.4.2 >/dev/null 2>&1
}

flush_the_zone() {
	if [ -d /sys/module/nf_zoneroute ]; then
		in_ns r sh -c 'echo "zone 0 flush" >/proc/net/nf_zoneroute/zones'
	else
		flush
	fi
}

test_flushed_connections_give_their_ports_back() {
	local how without with
	in_ns r nft -f - <<-'END'
		table ip nat {
			chain post {
				type nat hook postrouting priority srcnat
				oifname "s1" masquerade
			}
		}
	END
	for how in flush delete_both flush_the_zone; do
		without=$(ports_after_a_flush "$how")
		insmod_module
		with=$(each_round ports_after_a_flush "$how")
		check "NAT: after ${how//_/ }, the source port is as without the module" \
			is "$with" "$without"
		unload
	done
	check 'NAT: it is the free one' is "$without" 5000
	in_ns r nft flush table ip nat
}

# delete_all: deletes all connections by a netlink socket that stays open, so that nothing tells when
# they are deleted.
delete_all() {
	background r python3 -c '
import socket, struct, time
# NETLINK_NETFILTER. IPCTNL_MSG_CT_DELETE without attributes deletes all connections.
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.bind((0, 0))
s.send(struct.pack("=IHHII", 20, 1 << 8 | 2, 5, 1, 0) + struct.pack("=BBH", 0, 0, 0))
s.recv(4096)
open("/tmp/deleted", "w")
time.sleep(600)'
	until_true 10 test -e /tmp/deleted
	rm /tmp/deleted
}

# counts_after_closing: deletes all connections by a socket that stays open. Prints how many are
# counted after user nobody, and then root, closed another socket.
counts_after_closing() {
	in_ns r python3 -c '
import os, socket, struct
def socket_of_netfilter():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.bind((0, 0))
    return s
def count():
    with open("/proc/sys/net/netfilter/nf_conntrack_count") as file:
        return int(file.read())
s = socket_of_netfilter()
s.send(struct.pack("=IHHII", 20, 1 << 8 | 2, 5, 1, 0) + struct.pack("=BBH", 0, 0, 0))
s.recv(4096)
child = os.fork()
if child == 0:
    os.setuid(65534)
    socket_of_netfilter().close()
    os._exit(0)
os.waitpid(child, 0)
nobody = count()
socket_of_netfilter().close()
print(nobody, count(), flush=True)
s.close()'
}

# A process that may not delete connections must not make the module look for deleted ones, which
# takes time. (The collector finds them within a second, so it may come first in a try.)
test_only_the_socket_of_an_administrator_is_heard() {
	local flows=20 try counts
	insmod_module
	for try in 1 2 3 4 5; do
		open "$flows" $((10000 + 1000 * try)) "$ASSURED" >/dev/null
		counts=$(counts_after_closing)
		[ "${counts% *}" = 0 ] || break
	done
	check 'a socket of user nobody is closed: not heard' [ "${counts% *}" -gt 0 ]
	check 'a socket of root is closed: the connections are let go' is "${counts#* }" 0
	unload
}

# The packets of new connections look for connections that ended, and for those that conntrack may
# drop early, so that the table never overflows.
test_new_connections_find_the_ended_ones() {
	local flows=220
	insmod_module
	open "$flows" 10000 "$ASSURED" >/dev/null
	echo 230 >"$MAX"
	delete_all
	check 'silent deletion: all new connections find room' is "$(open "$flows" 20000)" "$flows"
	echo "$OLD_MAX" >"$MAX"
	flush
	unload
}

# flood COUNT FIRST: sends packets of COUNT new UDP connections from c, and prints the highest number of
# connections that conntrack of r counted meanwhile. The sender reads the count itself: another
# process may be late.
flood() {
	# An open sysctl file stays with the netns in which it was opened.
	in_ns r python3 - "$1" "$2" "$SERVER" <<-'END'
		import os, socket, sys
		count, first, server = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
		counted = os.open("/proc/sys/net/netfilter/nf_conntrack_count", os.O_RDONLY)
		there = os.open("/run/netns/c", os.O_RDONLY)
		os.setns(there, os.CLONE_NEWNET)
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
		most = 0
		for sport in range(first, first + count):
		    # To the port at which s drops packets. The second one makes the flow, because the
		    # module was loaded after conntrack was enabled.
		    for _ in range(2):
		        s.sendto(sport.to_bytes(2, "big") + b"\0\13\0\x10\0\0" + bytes(8), (server, 0))
		    most = max(most, int(os.pread(counted, 20, 0)))
		print(most)
	END
}

# Connections that are not assured, more than the table holds, and faster than the collector looks at
# them: few, and several times. Conntrack drops one early for each new one, because the buckets are
# full. A dropped one must not be held: not even until a packet finds it among many.
test_the_table_does_not_overflow() {
	local max=600 buckets most=0 try counted
	buckets=$(cat /proc/sys/net/netfilter/nf_conntrack_buckets)
	insmod_module
	echo "$max" >"$MAX"
	echo 256 >/proc/sys/net/netfilter/nf_conntrack_buckets
	for try in 1 2 3 4 5; do
		counted=$(flood $((max * 7 / 4)) $((10000 + 2000 * try)))
		[ "$counted" -le "$most" ] || most=$counted
		flush
	done
	check 'overflow: the table was full' [ "$most" -ge "$max" ]
	echo "# overflow: counted $most at most, $(stat_of flow_scarce) flows ended early"
	check 'overflow: conntrack counts at most its maximum and one for each CPU' \
		[ "$most" -le $((max + $(nproc))) ]
	echo "$buckets" >/proc/sys/net/netfilter/nf_conntrack_buckets
	echo "$OLD_MAX" >"$MAX"
	unload
}

run_cases
