#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets of a connection of which some jump and others do not leave in the order in which they came,
# if they are received as a batch.
#
# Group: jump
# Kernel: stock
# Long: quick

. lib/test.sh
plan 5

COUNT=200
SPORT=4000

load
router
in_ns r nft -f - <<-'END'
	table inet fast {
		chain forward {
			type filter hook forward priority filter
			ct state established ct mark set ct mark or 0x100
		}
	}
END
in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 \
	net.nf_zoneroute.jump="${LEVEL:-1}"
serve udp

# burst: sends packets of the flow at once, and prints how many arrive, and how many arrive after a
# later one. Each seventh has another DSCP, so that it does not jump.
burst() {
	in_ns s python3 - "$(mac_of r c1)" "$SPORT" "$PORT" "$COUNT" <<-'END'
		import os
		import select
		import socket
		import struct
		import sys

		sys.path.insert(0, "tools")
		from traffic import ip_header, mac

		router, sport, dport, count = mac(sys.argv[1]), *map(int, sys.argv[2:])
		sink = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
		sink.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
		sink.bind(("s0", 0x800))
		os.setns(os.open("/run/netns/c", os.O_RDONLY), os.CLONE_NEWNET)
		sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
		sock.bind(("c0", 0))
		packets = []
		for number in range(count):
		    data = struct.pack("!I", number) + bytes(60)
		    udp = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
		    tos = 0x20 if number % 7 == 3 else 0
		    packet = ip_header(17, "10.0.1.2", "10.9.9.9", udp, tos) + udp
		    packets.append(router + sock.getsockname()[4] + b"\x08\x00" + packet)
		# The router receives none of them before all are sent.
		os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
		for packet in packets:
		    sock.send(packet)
		os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
		arrived = []
		while select.select([sink], [], [], 2)[0]:
		    packet, addr = sink.recvfrom(2000)
		    if addr[2] != socket.PACKET_OUTGOING and packet[9] == 17 and len(packet) == 92:
		        arrived.append(struct.unpack("!I", packet[28:32])[0])
		late = sum(number < max(arrived[:at], default=0) for at, number in enumerate(arrived))
		print(len(arrived), late)
	END
}

test_a_batch_keeps_its_order() {
	local result jumped late=0 arrived=0 napi
	receive_in_batches r c1
	check 'the flow jumps' until_true 20 eval '[ "$(gained jumped ask c udp 1 --sport "$SPORT" 2>/dev/null)" = 2 ]'
	jumped=$(stat_of jumped)
	napi=$(by_napi r c1)
	for _ in 1 2 3 4 5; do
		result=$(burst)
		arrived=$((arrived + ${result% *}))
		late=$((late + ${result#* }))
	done
	echo "# of $arrived packets $late were late, $(($(stat_of jumped) - jumped)) jumped," \
		"$(stat_of stay_order) waited, $(($(by_napi r c1) - napi)) by NAPI"
	check 'all arrive' is "$arrived" $((5 * COUNT))
	check 'none arrives after a later one' is "$late" 0
	check 'some did not jump because an earlier one had not' [ "$(stat_of stay_order)" -gt 0 ]
}

test_no_reference_is_left() {
	check 'no reference is left' forget_flows
}

run_cases
