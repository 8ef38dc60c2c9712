#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many connections in one zone, and many zones: correctness and cost. The guest's clock counts
# instructions, so times are instruction counts and do not depend on the host's load. They are
# printed, not judged. pktgen sends the packets: UDP, 60 bytes.
#
# NFZR_SCALE=N: the number of connections (1000000 takes some minutes).
#
# Group: scale
# Kernel: scale
# Long: scale

. lib/test.sh
plan 25

SCALE=${NFZR_SCALE:-$([ -z "${NFZR_LONG-}" ] && echo 20000 || echo 100000)}
# Each address has 101 ports. pktgen increments both address and port with each packet, and none of
# the numbers of addresses used here is a multiple of 101.
PORTS=101
ADDRESSES=$((SCALE / PORTS))
TOTAL=$((ADDRESSES * PORTS))
# Packets of a measurement.
N=$((PORTS * 200))
# The number of the address 10.1.255.0, which has a zone of its own.
APART=$((255 * 256))

modprobe pktgen
echo $((SCALE * 2)) >/sys/module/nf_conntrack/parameters/hashsize
load
make_ns c r s
link c c0 10.0.1.2/24 r c1 10.0.1.1/24
link s s0 10.0.2.2/24 r s1 10.0.2.1/24
in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
	net.ipv4.conf.c1.rp_filter=0 net.ipv4.conf.s1.rp_filter=0 net.nf_zoneroute.max_age_ms=60000
sysctl -qw net.netfilter.nf_conntrack_max=$((SCALE * 2))
udp_timeouts r 7200 7200
ip -n r route add "$SERVER" via 10.0.2.2
ip -n c route add default via 10.0.1.1
ip -n r route add 10.1.0.0/16 via 10.0.1.2
in_ns c ping -q -c 1 10.0.1.1 >/dev/null
in_ns s ping -q -c 1 10.0.2.1 >/dev/null
for ns in 'c c0' 's s0'; do
	read -ra ns <<<"$ns"
	in_ns "${ns[0]}" nft -f - <<-END
		table netdev sink {
			chain in {
				type filter hook ingress device ${ns[1]} priority 0
				udp dport 1000-2000 drop
				udp sport 1000-2000 drop
			}
		}
	END
done

address() {
	echo "10.1.$(($1 / 256)).$(($1 % 256))"
}

# generate original|reply COUNT FIRST-ADDRESS ADDRESSES [DELAY-NS]: prints instructions per packet.
generate() {
	local ns dev to options line first last
	first=$(address "$3")
	last=$(address $(($3 + $4 - 1)))
	case $1 in
	original)
		ns=c dev=c0 to=$(mac_of r c1)
		options=("src_min $first" "src_max $last" "dst $SERVER"
			'udp_src_min 1000' "udp_src_max $((1000 + PORTS))"
			'udp_dst_min 1500' 'udp_dst_max 1500')
		;;
	reply)
		ns=s dev=s0 to=$(mac_of r s1)
		options=("src_min $SERVER" "src_max $SERVER" "dst_min $first" "dst_max $last"
			'udp_src_min 1500' 'udp_src_max 1500'
			'udp_dst_min 1000' "udp_dst_max $((1000 + PORTS))")
		;;
	esac
	printf '%s\n' "${options[@]}" "count $2" 'clone_skb 0' 'pkt_size 60' "delay ${5:-0}" \
		"dst_mac $to" >/tmp/pktgen
	in_ns "$ns" bash -c "
		cd /proc/net/pktgen
		echo rem_device_all >kpktgend_0
		echo add_device $dev >kpktgend_0
		while read -r line; do echo \"\$line\" >$dev; done </tmp/pktgen
		echo start >pgctrl
		cat $dev" >/tmp/pktgen.out
	line=$(grep -o 'OK: [0-9]*' /tmp/pktgen.out)
	echo $((${line#OK: } * 1000 / $2))
}

# both COUNT FIRST ADDRESSES: creates the connections, answers them, and sends again after their
# first two seconds.
both() {
	generate original "$@" >/dev/null
	generate reply "$@" >/dev/null
	sleep 2.1
	generate original "$@" >/dev/null
}

# hits DIRECTION COUNT FIRST ADDRESSES: sends packets; sets HITS to the number found and COST to the
# instructions per packet.
hits() {
	local before
	before=$(stat_of lookup_hit)
	COST=$(generate "$@")
	HITS=$(($(stat_of lookup_hit) - before))
}

rules() {
	in_ns r nft -f - <<-END
		table ip test
		delete table ip test
		table ip test {
			$1
			chain forward {
				type filter hook forward priority filter; policy accept;
				ct state invalid counter drop
			}
		}
	END
}

# flush ZONE: flushes the zone and prints the instructions it took.
flush() {
	in_ns r python3 -c '
import os, sys, time
fd = os.open("/proc/net/nf_zoneroute/zones", os.O_WRONLY)
begun = time.monotonic_ns()
os.write(fd, b"zone %s flush" % sys.argv[1].encode())
print(time.monotonic_ns() - begun)' "$1"
}

empty() {
	in_ns r conntrack -F >/dev/null 2>&1
	until_true 60 no_references
}

# seconds: prints the seconds since boot.
seconds() {
	cut -d. -f1 /proc/uptime
}

memory_left() {
	awk '/^MemAvailable/ { print $2 " KiB of memory left" }' /proc/meminfo
}

# Puts the connections of the address 10.1.255.0 into zone 77, and all others into zone 5.
two_zones() {
	rules 'chain raw {
		type filter hook prerouting priority raw
		ip saddr 10.1.255.0/24 ct zone set 77
		ip daddr 10.1.255.0/24 ct zone set 77
		ct zone set 5
	}'
}

# large_zone: fills zone 5 with TOTAL connections, unless an earlier case has, because that takes
# minutes with a million.
large_zone() {
	[ "$(zone 5 flows)" != "$TOTAL" ] || return 0
	two_zones
	both "$TOTAL" 0 "$ADDRESSES"
}

# full_zones: prints how many of the zones of many_zones have all their connections.
full_zones() {
	shown zones | awk -F'[ =]' -v n="$PORTS" '$2 >= 100 && $4 == n' | wc -l
}

# many_zones: fills a zone for each address, from 100 on, with PORTS connections, unless an earlier
# case has.
many_zones() {
	local i
	[ "$(full_zones)" -ne "$ADDRESSES" ] || return 0
	{
		echo 'chain raw {'
		echo 'type filter hook prerouting priority raw'
		echo 'iifname "c1" ct zone set ip saddr map @zones'
		echo 'iifname "s1" ct zone set ip daddr map @zones'
		echo '}'
		echo 'map zones { typeof ip saddr : ct zone; elements = {'
		for i in $(seq 0 $((ADDRESSES - 1))); do
			echo "$(address "$i") : $((i + 100)),"
		done
		echo '} }'
	} >/tmp/rules
	rules "$(cat /tmp/rules)"
	# A delay between the packets leaves time to refill the stock of zones.
	generate original "$TOTAL" 0 "$ADDRESSES" 20000 >/dev/null
	both "$TOTAL" 0 "$ADDRESSES"
}

# met: does N lookups in zone 101; sets MET to the non-matching entries compared and COST to the
# cost.
met() {
	local before
	before=$(zone 101 met)
	hits original "$N" 1 1
	MET=$(($(zone 101 met) - before))
}

# The cost of a packet, with 101 connections: untracked, tracked by conntrack, found in the zone's
# table.
test_cost_of_a_packet() {
	local untracked conntrack lookup
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=0
	rules 'chain raw { type filter hook prerouting priority raw; notrack; }'
	untracked=$(generate original "$N" 0 1)
	rules ''
	both "$PORTS" 0 1
	in_ns r sysctl -qw net.nf_zoneroute.zone_lookup=0
	hits original "$N" 0 1
	check 'zone_lookup=0: no packet is found' is "$HITS" 0
	conntrack=$COST
	in_ns r sysctl -qw net.nf_zoneroute.zone_lookup=1
	hits original "$N" 0 1
	check 'zone_lookup=1: all are found' is "$HITS" "$N"
	lookup=$COST
	echo "# instructions per packet, UDP, $PORTS connections: untracked $untracked;" \
		"tracking by conntrack +$((conntrack - untracked))," \
		"by lookup and attach +$((lookup - untracked))"
	in_ns r sysctl -qw net.nf_zoneroute.route_cache=1
	generate original "$PORTS" 0 1 >/dev/null
	generate original "$PORTS" 0 1 >/dev/null
	hits original "$N" 0 1
	check 'route_cache=1: all are found' is "$HITS" "$N"
	echo "# instructions per packet with the route cache too: $COST"
	empty
}

test_a_zone_is_flushed() {
	local cost
	two_zones
	both "$PORTS" "$APART" 1
	check 'a zone to flush has all its flows' is "$(zone 77 flows)" "$PORTS"
	cost=$(flush 77)
	check 'the zone is flushed' is "$(zone 77 flushed)" "$PORTS"
	echo "# flushing $PORTS connections: $cost instructions beside none"
	empty
}

test_all_of_many_connections_are_found() {
	local began what="$TOTAL connections in one zone"
	began=$(seconds)
	large_zone
	check "$what: all exist" is "$(zone 5 flows) $(stat_of ct_references)" "$TOTAL $TOTAL"
	check "$what: the table grew" [ "$(zone 5 buckets)" -ge "$TOTAL" ]
	hits original "$TOTAL" 0 "$ADDRESSES"
	check "$what: all are found" is "$HITS" "$TOTAL"
	hits reply "$TOTAL" 0 "$ADDRESSES"
	check "$what: in the reply direction too" is "$HITS" "$TOTAL"
	check "$what: no allocation failed" is "$(stat_of flow_no_memory) $(stat_of miss_no_memory)" '0 0'
	echo "# $what: $COST instructions per packet of the reply; $(zone 5 buckets) buckets," \
		"$(zone 5 met) others met in $(($(zone 5 hits) + $(zone 5 misses))) lookups;" \
		"$(memory_left); $(($(seconds) - began)) s"
	awk '/^(nf_zoneroute_flow|nf_zoneroute_slot|nf_conntrack) / {
		print "# slab " $1 ": " $3 " objects of " $4 " bytes" }' /proc/slabinfo
	check 'a flow with both slots takes at most 256 bytes' [ "$(awk '
		/^nf_zoneroute_flow / { sum += $4 }
		/^nf_zoneroute_slot / { sum += 2 * $4 }
		END { print sum }' /proc/slabinfo)" -le 256 ]
}

test_a_zone_is_flushed_beside_a_large_one() {
	local cost
	large_zone
	both "$PORTS" "$APART" 1
	check 'beside a large zone, a zone to flush has its flows' is "$(zone 77 flows)" "$PORTS"
	cost=$(flush 77)
	check 'only that zone is flushed' is "$(zone 77 flushed) $(zone 5 flows)" "$PORTS $TOTAL"
	echo "# flushing $PORTS connections: $cost instructions beside $TOTAL"
}

# The collector finds dead connections among more flows than it scans in a second. They expire, and
# send no packet after that, because other code would notice a deletion by netlink or a packet.
test_dead_connections_are_collected_beside_a_large_zone() {
	large_zone
	both "$PORTS" "$APART" 1
	udp_timeouts r 2 2
	generate original "$PORTS" "$APART" 1 >/dev/null
	udp_timeouts r 7200 7200
	check 'dead connections are collected beside a large zone' until_true 60 eval \
		'[ "$(zone 77 flows)" = 0 ] || [ "$(zone 77 flows)" = none ]'
}

test_a_large_zone_is_flushed() {
	large_zone
	check 'the large zone is flushed' eval 'flush 5 >/tmp/flush; is "$(zone 5 flushed)" "$TOTAL"'
	echo "# flushing $TOTAL connections: $(cat /tmp/flush) instructions"
	check 'no reference is left' until_true 60 no_references
	check 'the table shrank or was freed' until_true 60 eval '[ "$(zone 5 buckets)" = none ]'
}

# Before the process that deletes the connections goes on.
test_a_large_table_is_let_go_at_once() {
	large_zone
	check "$TOTAL connections: counted" [ "$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)" -ge "$TOTAL" ]
	in_ns r conntrack -F >/dev/null 2>&1
	check "$TOTAL connections, deleted: not counted any more" \
		is "$(in_ns r sysctl -n net.netfilter.nf_conntrack_count)" 0
}

test_packets_of_many_zones_are_found() {
	many_zones
	check "$ADDRESSES zones with $PORTS connections each" is "$(full_zones)" "$ADDRESSES"
	hits original "$TOTAL" 0 "$ADDRESSES"
	check "$ADDRESSES zones: all packets are found" is "$HITS" "$TOTAL"
	echo "# $ADDRESSES zones with $PORTS connections each: $COST instructions per packet;" \
		"$(memory_left)"
}

# A flood of new connections in one zone with a limit, and the cost of a packet in another zone
# meanwhile. The limit stays until the netns is deleted.
test_a_flood_in_a_limited_zone_does_not_affect_another_zone() {
	local quiet quiet_met flood limited
	many_zones
	met
	quiet=$COST quiet_met=$MET
	echo 'zone 100 max 50' >/tmp/max
	in_ns r sh -c 'cat /tmp/max >/proc/net/nf_zoneroute/zones'
	cat >/tmp/flood.py <<-'END'
		import socket
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		ip = bytes([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 0, 10, 9, 9, 9])
		while True:
		    for port in range(20000, 60000):
		        udp = port.to_bytes(2, "big") + b"\5\xdc\0\x10\0\0" + bytes(8)
		        s.sendto(ip + udp, ("10.9.9.9", 0))
	END
	background c python3 /tmp/flood.py
	flood=${JOBS[-1]}
	until_true 30 eval '[ "$(zone 100 limited)" -gt 1000 ]'
	limited=$(zone 100 limited)
	met
	check 'a flood in another zone: all packets are found' is "$HITS" "$N"
	check 'a flood in another zone: the limit rejected it' [ "$(zone 100 limited)" -gt "$limited" ]
	check 'a flood in another zone: no chain grew' is "$MET" "$quiet_met"
	echo "# a zone beside a flood: $(zone 101 flows) connections in $(zone 101 buckets) buckets," \
		"$MET others met in $N lookups, $quiet_met before it" \
		"($quiet instructions per packet before it)"
	end_jobs "$flood"
	unset 'JOBS[-1]'
}

test_no_reference_is_left_at_the_end() {
	empty
	check 'no reference is left at the end' no_references
}

run_cases
