#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests the commands for a zone (limit and flush) and its counters, and that a flood of one tenant
# does not affect the other one. Tenants have the same addresses: c and s in zone 1, d and t in zone
# 2.
#
# Group: tracking
# Kernel: stock quick
# Long: kcsan

. lib/test.sh
plan 80

# Requests that `connect` sends for each connection.
REQUESTS=3

load
twins
in_ns r nft -f - <<-'END'
	table inet test {
		chain raw {
			type filter hook prerouting priority raw
		}
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state invalid counter drop
		}
	}
END

# assign_zones: puts each tenant and its server into their zone.
assign_zones() {
	in_ns r nft -f - <<-'END'
		flush chain inet test raw
		add rule inet test raw iifname { "c1", "s1" } ct zone set 1
		add rule inet test raw iifname { "d1", "t1" } ct zone set 2
	END
}
assign_zones

ZONES=/proc/${HOLDER[r]}/net/nf_zoneroute/zones

# put TEXT: writes TEXT to zones; prints the name of the error, if any.
put() {
	in_ns r python3 -c '
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
try:
    os.write(fd, sys.argv[2].encode("latin-1"))
except OSError as err:
    print(errno.errorcode[err.errno])' "$ZONES" "$1"
}

# nobody OPTION...: tries as user nobody to set a limit; prints "done" or the name of the error.
nobody() {
	in_ns r setpriv --reuid 65534 --regid 65534 --clear-groups "$@" python3 -c '
import errno, os, sys
try:
    fd = int(sys.argv[1]) if sys.argv[1].isdigit() else os.open(sys.argv[1], os.O_WRONLY)
    os.write(fd, b"zone 1 max 1")
    print("done")
except OSError as err:
    print(errno.errorcode[err.errno])' "${FILE:-$ZONES}"
}

# entries ZONE: prints how many connections conntrack has in the zone.
entries() {
	in_ns r conntrack -L -w "$1" 2>/dev/null | grep -c . || true
}

# entries_of_zone_9: prints how many connections have their original direction in zone 9.
entries_of_zone_9() {
	in_ns r conntrack -L -p udp 2>/dev/null | grep -c zone-orig=9 || true
}

# end_connection SPORT: ends a UDP connection in zone 1.
end_connection() {
	in_ns r conntrack -D -p udp --orig-port-src "$1" -w 1 >/dev/null 2>&1
}

# connect NS SPORT...: makes a UDP exchange from each port; prints how many were answered, or
# "partial" if a part of an exchange was.
connect() {
	local ns=$1 sport answered count=0
	shift
	for sport; do
		answered=$(twin "$ns" udp "$SERVER" "$([ "$ns" = c ] && echo s || echo t)" \
			"$REQUESTS" --sport "$sport" --timeout "${WAIT:-5}")
		case $answered in
		"$REQUESTS") count=$((count + 1)) ;;
		0) ;;
		*)
			count=partial
			break
			;;
		esac
	done
	echo "$count"
}

# exchange SPORT: makes two requests by TCP and closes the connection; prints how many were
# answered.
exchange() {
	twin c tcp "$SERVER" s 2 --sport "$1"
}

# flood COUNT: opens a UDP connection with each of COUNT packets.
flood() {
	in_ns c python3 -c '
import errno, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for sport in range(10000, 10000 + '"$1"'):
    while True:
        try:
            s.sendto(sport.to_bytes(2, "big") + b"\0\7\0\x10\0\0" + bytes(8), ("10.9.9.9", 0))
            break
        except OSError as err:
            # The receiver is slower.
            if err.errno != errno.ENOBUFS:
                raise
            time.sleep(0.001)'
}

# met COMMAND...: prints how many other entries lookups in zone 2 met during COMMAND. The output of
# COMMAND goes to /tmp/answered.
met() {
	local before
	before=$(zone 2 met)
	"$@" >/tmp/answered
	echo $(($(zone 2 met) - before))
}

# start_over: removes the limit of zone 1, and every connection.
start_over() {
	put 'zone 1 max none' >/dev/null
	forget_flows
}

# Each invalid command rejects the whole write.
test_invalid_commands_are_refused() {
	local error text=$'zone 1 max 5\n'
	check 'a limit is set' eval 'is "$(put "$text")" "" && is "$(zone 1 max)" 5'
	while read -r error text; do
		check "'$text' is refused: $error" eval \
			'is "$(put "$text")" "$error" && is "$(zone 1 max) $(zone 3 max)" "5 none"'
	done <<-'END'
		EINVAL zone
		EINVAL zone 1
		EINVAL zone 1 max
		EINVAL zone 1 max 1 2
		EINVAL zone 1 max -1
		EINVAL zone 1 max 1k
		EINVAL zone 1 min 1
		EINVAL zone 1 flush all
		EINVAL zone -1 flush
		EINVAL flush
		ERANGE zone 65536 max 1
		ERANGE zone 99999999999999999999 flush
		ERANGE zone 1 max 2147483648
	END
	check 'an empty line is refused' is "$(put $'\n')" EINVAL
	put 'zone 1 max none' >/dev/null
}

test_all_lines_of_a_write_are_applied_or_none() {
	local text
	put 'zone 1 max 5' >/dev/null
	text=$'zone 3 max 7\nzone 1 max 9\nzone 2 max x'
	check 'one bad line rejects all lines of a write' eval \
		'is "$(put "$text")" EINVAL && is "$(zone 1 max) $(zone 3 max)" "5 none"'
	text=$'zone 3 max 7\nzone 1 max 9\nzone 65535 max 0\n'
	check 'several lines in one write are all applied' eval \
		'is "$(put "$text")" "" &&
		is "$(zone 3 max) $(zone 1 max) $(zone 65535 max)" "7 9 0"'
	put $'zone 1 max none\nzone 3 max none\nzone 65535 max none' >/dev/null
}

# write_all FORMAT: writes a line for each possible zone, all in one write; prints the name of the
# error, if any.
write_all() {
	in_ns r python3 -c '
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
try:
    os.write(fd, b"".join(sys.argv[2].encode() % zone + b"\n" for zone in range(65536)))
except OSError as err:
    print(errno.errorcode[err.errno])' "$ZONES" "$1"
}

test_one_write_configures_all_zones() {
	check 'a limit for each zone in one write' \
		is "$(write_all 'zone %d max 7') $(zone 0 max) $(zone 65535 max)" ' 7 7'
	check 'bad lines among 65,536 reject them all' \
		is "$(write_all 'zone %d0 max 8') $(zone 0 max) $(zone 65535 max)" 'ERANGE 7 7'
	check 'more than 2 MiB is refused' is "$(write_all 'zone %d max 0000000000000000000000009') $(zone 0 max)" \
		'EINVAL 7'
	check 'all limits are removed in one write' \
		is "$(write_all 'zone %d max none') $(zone 1 max)" ' none'
	check 'the zones are freed' until_true 30 eval '[ "$(shown zones | wc -l)" -lt 10 ]'
}

test_a_zone_stays_while_it_has_a_limit() {
	local text=$'zone 3 max none\nzone 65535 max none'
	put $'zone 3 max 7\nzone 1 max 9\nzone 65535 max 0' >/dev/null
	check 'limits are removed' eval 'is "$(put "$text")" "" && is "$(zone 3 max)" none'
	check 'a zone without limit and flows is removed' \
		until_true 10 eval '[ "$(zone 3 flows)" = none ]'
	check 'a zone with a limit stays' is "$(zone 1 flows)" 0
	put 'zone 1 max none' >/dev/null
}

test_a_write_needs_permission_and_cap_net_admin() {
	local capable=(--inh-caps +net_admin --ambient-caps +net_admin)
	check 'user nobody cannot open zones for writing' is "$(nobody)" EACCES
	check 'user nobody cannot write to a file that root opened' \
		is "$(FILE=7 nobody 7>"$ZONES")" EPERM
	check 'CAP_NET_ADMIN does not override the mode of the file' \
		is "$(nobody "${capable[@]}")" EACCES
	check 'CAP_NET_ADMIN is enough to write to a file that root opened' \
		is "$(FILE=7 nobody "${capable[@]}" 7>"$ZONES") $(zone 1 max)" 'done 1'
	put 'zone 1 max none' >/dev/null
}

test_a_limit_refuses_only_what_exceeds_it() {
	local ports=({4000..4004}) others=({4000..4006}) limited in_all
	local max=${#ports[@]}
	put "zone 1 max $max" >/dev/null
	limited=$(zone 1 limited)
	in_all=$(stat_of zone_limited)
	check 'connections up to the limit are answered' is "$(connect c "${ports[@]}")" "$max"
	check 'one more connection is not answered' is "$(WAIT=0.5 connect c 4005)" 0
	limited=$(($(zone 1 limited) - limited))
	in_all=$(($(stat_of zone_limited) - in_all))
	check 'packets over the limit are counted' is "$limited $in_all" "$REQUESTS $REQUESTS"
	check 'established connections are not affected' is "$(connect c 4000 4004)" 2
	check 'the other tenant is not affected' is "$(connect d "${others[@]}")" "${#others[@]}"
	check 'the number of connections is shown' \
		is "$(zone 1 connections) $(zone 2 connections)" "$max ${#others[@]}"
	start_over
}

test_an_ended_connection_makes_room_for_one() {
	local ports=({4100..4104})
	put "zone 1 max ${#ports[@]}" >/dev/null
	connect c "${ports[@]}" >/dev/null
	end_connection 4100
	check 'a connection that ends makes room' \
		until_true 5 eval '[ "$(WAIT=0.5 connect c 4105)" = 1 ]'
	check 'but only for one more' is "$(WAIT=0.5 connect c 4106)" 0
	start_over
}

test_a_changed_limit_takes_effect_at_once() {
	local ports=({4200..4204}) raised=7
	local max=${#ports[@]}
	put "zone 1 max $max" >/dev/null
	connect c "${ports[@]}" >/dev/null
	put "zone 1 max $raised" >/dev/null
	check 'a higher limit takes effect at once' \
		is "$(WAIT=0.5 connect c 4205 4206 4207)" $((raised - max))
	put 'zone 1 max 0' >/dev/null
	check 'a limit of 0 admits no new connection' is "$(WAIT=0.5 connect c 4208)" 0
	check 'a limit of 0 does not affect established connections' \
		is "$(connect c 4201 4204 4206)" 3
	put 'zone 1 max none' >/dev/null
	check 'without limit all connections are admitted' is "$(connect c 4208 4209 4210)" 3
	start_over
}

test_closed_tcp_connections_count_while_conntrack_has_them() {
	put 'zone 1 max 3' >/dev/null
	check 'TCP: connections up to the limit are answered' \
		is "$(exchange 5000) $(exchange 5001) $(exchange 5002)" '2 2 2'
	check 'TCP: closed connections count' is "$(WAIT=0.5 connect c 5003)" 0
	in_ns r conntrack -D -p tcp -w 1 >/dev/null 2>&1
	check 'TCP: until conntrack ends them' until_true 5 eval \
		'[ "$(WAIT=0.5 connect c 5003)" = 1 ]'
	start_over
}

# Many short connections beside ten that stay, with room for two. Conntrack forgets a closed
# connection at once here.
test_a_full_zone_finds_its_ended_connections() {
	local rounds=$((200 / SLOW)) limited
	in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=0
	put 'zone 1 max 12' >/dev/null
	connect c {4300..4309} >/dev/null
	limited=$(zone 1 limited)
	in_ns c python3 -c '
import socket, time
answered = 0
for _ in range('"$rounds"'):
    with socket.create_connection(("10.9.9.9", 7), timeout=5) as s:
        s.sendall(b"x" * 16)
        answered += len(s.recv(99)) > 0
        s.shutdown(socket.SHUT_WR)
        # A FIN that is sent again, because the machine is slow, finds no connection.
        s.settimeout(2)
        try:
            s.recv(99)
        except TimeoutError:
            pass
print(answered)' >/tmp/answered
	check 'many short connections below the limit: all are answered' \
		is "$(cat /tmp/answered)" "$rounds"
	check 'many short connections below the limit: none is refused' \
		is "$(zone 1 limited)" "$limited"
	in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=120
	start_over
}

# resets COUNT: opens COUNT TCP connections, which the server answers, and resets each.
resets() {
	in_ns c python3 - "$1" <<-'END'
		import socket, struct, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
		def segment(sport, flags, seq):
		    fields = [sport, 7, seq >> 16, seq & 0xffff, 0, 0, 0x5000 | flags, 4096, 0, 0]
		    pseudo = [0x0a00, 0x0102, 0x0a09, 0x0909, 6, 20]
		    total = sum(fields + pseudo)
		    total = (total & 0xffff) + (total >> 16)
		    fields[8] = ~((total & 0xffff) + (total >> 16)) & 0xffff
		    return struct.pack("!10H", *fields)
		for sport in range(20000, 20000 + int(sys.argv[1])):
		    s.sendto(segment(sport, 2, 1), ("10.9.9.9", 0))
		    s.sendto(segment(sport, 4, 2), ("10.9.9.9", 0))
	END
}

# A tenant that opens and resets connections leaves closed ones behind, which count.
test_resets_do_not_evade_the_limit() {
	local max=50 sent=$((600 / SLOW))
	put "zone 1 max $max" >/dev/null
	resets "$sent"
	check 'opened and reset: no more than the limit' \
		is "$(entries 1) $(zone 1 connections)" "$max $max"
	start_over
	in_ns r nft flush chain inet test raw
	in_ns r nft add rule inet test raw iifname c1 ct original zone set 9
	put "zone 9 max $max" >/dev/null
	resets "$sent"
	check 'opened and reset, in a zone of one direction: no more than the limit' \
		is "$(in_ns r conntrack -L -p tcp 2>/dev/null | grep -c zone-orig=9)" "$max"
	put 'zone 9 max none' >/dev/null
	in_ns r conntrack -F >/dev/null 2>&1
	assign_zones
}

# Nothing listens on the server's port 80, so each connection is reset.
test_refused_connections_do_not_evade_the_limit() {
	local max=50 sent=$((400 / SLOW))
	put "zone 1 max $max" >/dev/null
	in_ns c python3 -c '
import socket
for _ in range('"$sent"'):
    with socket.socket() as s:
        s.setblocking(False)
        s.connect_ex(("10.9.9.9", 80))' || true
	check 'reset by the server: no more than the limit' eval \
		'[ "$(entries 1)" -le "$max" ] && is "$(zone 1 connections)" "$(entries 1)"'
	start_over
}

# Packets that arrive together pass each hook together, if the device hands them over as a list.
test_a_receive_batch_does_not_evade_the_limit() {
	local max=4
	receive_in_batches r c1
	put "zone 1 max $max" >/dev/null
	flood $((2000 / SLOW))
	check 'a batch: no more than the limit' is "$(entries 1)" "$max"
	check 'a batch: by NAPI' [ "$(by_napi r c1)" -gt 0 ]
	receive_singly r c1
	start_over
}

test_what_a_rule_drops_takes_no_place() {
	local max=3
	in_ns r nft insert rule inet test forward udp sport 10000-20000 drop
	put "zone 1 max $max" >/dev/null
	flood 100
	check 'dropped by a rule: the limit is not used up' is "$(connect c 4900 4901 4902)" "$max"
	check 'dropped by a rule: it holds' is "$(WAIT=0.5 connect c 4903)" 0
	in_ns r nft flush chain inet test forward
	in_ns r nft add rule inet test forward ct state invalid counter drop
	start_over
}

# make_entry SPORT: creates a connection by netlink, as conntrackd does.
make_entry() {
	in_ns r conntrack -I -p udp -s 10.0.1.2 -d "$SERVER" --sport "$1" --dport "$PORT" -w 1 \
		-t 600 -u SEEN_REPLY >/dev/null 2>&1
}

test_connections_made_in_another_way_count() {
	make_entry 6000
	put 'zone 1 max 3' >/dev/null
	connect c 6001 >/dev/null
	check 'made by netlink before the limit: counts' \
		is "$(WAIT=0.5 connect c 6002 6003) $(zone 1 connections)" '1 3'
	start_over
	put 'zone 1 max 2' >/dev/null
	make_entry 6004
	connect c 6004 >/dev/null
	check 'made by netlink after the limit: counts from its first packet on' \
		is "$(WAIT=0.5 connect c 6005 6006) $(zone 1 connections)" '1 2'
	start_over
}

# SYNPROXY answers a client itself, and makes the connection to the server when the client answers.
# That connection is in zone 0.
test_connections_made_by_synproxy_count() {
	local sport answered=
	in_ns r nft flush chain inet test raw
	synproxy
	ip -n r route add "$SERVER" via 10.0.2.2 dev s1
	put 'zone 0 max 2' >/dev/null
	for sport in 6300 6301 6302; do
		answered+=" $(twin c tcp "$SERVER" s 1 --sport "$sport" --timeout 10)"
	done
	check 'made by SYNPROXY: counts' is "$answered / $(entries 0)" ' 1 1 0 / 2'
	ip -n r route del "$SERVER" via 10.0.2.2 dev s1
	no_synproxy
	put 'zone 0 max none' >/dev/null
	assign_zones
	start_over
}

test_connections_made_while_the_module_is_off_count() {
	put 'zone 1 max 3' >/dev/null
	in_ns r sysctl -qw net.nf_zoneroute.enable=0
	connect c 6200 6201 >/dev/null
	in_ns r sysctl -qw net.nf_zoneroute.enable=1
	check 'connections that were made while the module was off count' \
		is "$(WAIT=0.5 connect c 6202 6203) $(zone 1 connections)" '1 3'
	start_over
}

# Connections that are older than the limit, with and without an extension of the module.
test_older_connections_count() {
	connect c 6100 6101 >/dev/null
	put 'zone 1 max 3' >/dev/null
	check 'connections that are older than the limit count' \
		is "$(WAIT=0.5 connect c 6102 6103) $(zone 1 connections)" '1 3'
	put 'zone 1 max none' >/dev/null
	check 'without a limit, connections are counted too' is "$(zone 1 connections)" 3
	start_over
}

test_connections_of_every_kind_count() {
	local ports=({4400..4402})
	put "zone 1 max ${#ports[@]}" >/dev/null
	connect c "${ports[@]}" >/dev/null
	check 'IPv6 connections count too' \
		is "$(twin c udp "$SERVER6" s 1 --sport 4403 --timeout 0.5)" 0
	check 'connections to the router itself count too' eval \
		'! in_ns c ping -q -c 1 -W 1 10.0.1.1 >/dev/null &&
		put "zone 1 max $((${#ports[@]} + 1))" &&
		in_ns c ping -q -c 1 -W 5 10.0.1.1 >/dev/null'
	start_over
}

# One tuple, opened and reset repeatedly, and open at the end.
test_a_reused_tuple_counts_once() {
	put 'zone 1 max 1000' >/dev/null
	in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
	# Read the count in each round from 50 on. Conntrack forgets a connection whose opening is
	# reset before an answer.
	in_ns c python3 - "$ZONES" >/tmp/counts <<-'END'
		import re, socket, sys
		s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		def segment(flags):
		    return (bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 1, 2, 10, 9, 9, 9])
		            + bytes([40, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 16, 0])
		            + bytes(4))
		counts = set()
		for i in range(60):
		    for flags in (2, 2, 4):
		        s.sendto(segment(flags), ("10.9.9.9", 0))
		    if i >= 50:
		        counts.add(re.search("zone=1 .*connections=([0-9]+)", open(sys.argv[1]).read())[1])
		s.sendto(segment(2), ("10.9.9.9", 0))
		print(*counts)
	END
	in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=1
	check 'one tuple again and again: counts once' \
		is "$(cat /tmp/counts) $(zone 1 connections)" '0 1'
	put 'zone 1 max 5' >/dev/null
	check 'one tuple again and again: room for others' is "$(connect c 4700 4701 4702 4703)" 4
	start_over
}

# A limit that is raised far beyond the number that it was sized for keeps its count.
test_a_limit_raised_a_lot_keeps_its_count() {
	local ports=({4500..4502})
	local older=${#ports[@]}
	put 'zone 1 max 5' >/dev/null
	connect c "${ports[@]}" >/dev/null
	put 'zone 1 max 1000000' >/dev/null
	check 'a limit raised a lot: established connections still count' \
		is "$(zone 1 max) $(zone 1 connections)" "1000000 $older"
	connect c 4503 >/dev/null
	put "zone 1 max $((older + 1))" >/dev/null
	check 'lowered again: they still count' \
		is "$(WAIT=0.5 connect c 4504) $(zone 1 connections)" "0 $((older + 1))"
	end_connection 4500
	check 'one of these connections ends: there is room again' \
		until_true 10 eval '[ "$(WAIT=0.5 connect c 4504)" = 1 ]'
	start_over
}

test_a_flush_ends_only_the_connections_of_its_zone() {
	local ports=({4600..4602}) others=(4600 4601) requests=5 flushed
	# A zone with a limit stays, and keeps its counters.
	put 'zone 1 max 100' >/dev/null
	connect c "${ports[@]}" >/dev/null
	twin c udp "$SERVER6" s 3 --sport 4600 >/dev/null
	connect d "${others[@]}" >/dev/null
	flushed=$(zone 1 flushed)
	check 'flush empties a zone' eval 'is "$(put "zone 1 flush")" "" && is "$(entries 1)" 0'
	# The IPv6 connection is one more.
	check 'flushed connections are counted' \
		is $(($(zone 1 flushed) - flushed)) $((${#ports[@]} + 1))
	check 'the other zone keeps its connections' is "$(entries 2)" "${#others[@]}"
	check 'they are found as before' \
		is "$(found twin d udp "$SERVER" t "$requests" --sport 4600 2>/dev/null)" \
		$((2 * requests))
	start_over
}

test_a_flush_of_a_missing_zone_succeeds() {
	check 'flushing a zone that does not exist succeeds' eval \
		'is "$(put "zone 77 flush")" "" && is "$(zone 77 flows)" none'
}

# Connections with only the reply direction in zone 0 belong to the other direction's zone.
test_a_connection_belongs_to_the_zone_of_its_original_direction() {
	local ports=(4620 4621)
	in_ns r nft flush chain inet test raw
	in_ns r nft add rule inet test raw iifname c1 ct original zone set 9
	connect c "${ports[@]}" >/dev/null
	put 'zone 0 flush' >/dev/null
	check 'flushing zone 0 spares connections with only replies there' \
		is "$(entries_of_zone_9)" "${#ports[@]}"
	put 'zone 9 flush' >/dev/null
	check 'flushing their own zone removes them' is "$(entries_of_zone_9)" 0
	assign_zones
	start_over
}

# A flood in zone 1 beyond its limit, while d sends requests.
test_a_flood_in_one_zone_does_not_affect_another() {
	local max=200 sent=$((4000 / SLOW)) requests=100 limited before during buckets pid answered
	put "zone 1 max $max" >/dev/null
	limited=$(zone 1 limited)
	connect d 4800 >/dev/null
	before=$(met twin d udp "$SERVER" t "$requests" --sport 4800)
	buckets=$(zone 2 buckets)
	flood "$sent" &
	pid=$!
	during=$(met twin d udp "$SERVER" t "$requests" --sport 4800)
	answered=$(cat /tmp/answered)
	wait "$pid"
	limited=$(($(zone 1 limited) - limited))
	check 'a flood in zone 1: no packet of zone 2 is lost' is "$answered" "$requests"
	check 'a flood in zone 1: most of it is refused' [ "$limited" -ge $((sent * 3 / 4)) ]
	check 'a flood in zone 1: the zone stays within its limit' [ "$(entries 1)" -le "$max" ]
	check 'a flood in zone 1: zone 2 keeps its connection' is "$(entries 2)" 1
	check 'a flood in zone 1: lookups in zone 2 meet no more other entries than before' \
		is "$during $(zone 2 buckets)" "$before $buckets"
	check 'a flood in zone 1: new connections of zone 2 are admitted' \
		is "$(connect d 4801 4802 4803)" 3
	put $'zone 1 max none\nzone 1 flush\nzone 2 flush' >/dev/null
	check 'no references remain' until_true 10 no_references
}

run_cases
