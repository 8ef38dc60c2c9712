#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests the commands for a zone (limit and flush) and its counters, and that a flood of one tenant
# does not affect the other one. Tenants have the same addresses: c and s in zone 1, d and t in zone
# 2.
#
# Group: tracking
# Kernel: stock quick

. lib/test.sh
plan 62

load
twins
# No connection times out during the test.
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600
in_ns r nft -f - <<-'END'
	table inet test {
		chain raw {
			type filter hook prerouting priority raw
			iifname { "c1", "s1" } ct zone set 1
			iifname { "d1", "t1" } ct zone set 2
		}
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state invalid counter drop
		}
	}
END

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

# entries ZONE: prints how many connections conntrack has in the zone.
entries() {
	in_ns r conntrack -L -w "$1" 2>/dev/null | grep -c . || true
}

# connect NS SPORT...: makes a UDP exchange from each port; prints how many were answered.
connect() {
	local ns=$1 sport sum=0
	shift
	for sport; do
		sum=$((sum + $(twin "$ns" udp "$SERVER" "$([ "$ns" = c ] && echo s || echo t)" 3 --sport "$sport" --timeout "${WAIT:-5}")))
	done
	echo $((sum / 3))
}

# Invalid commands, of which each rejects the whole write.
check 'a limit is set' eval 'is "$(put "zone 1 max 5
")" "" && is "$(zone 1 max)" 5'
while read -r error text; do
	check "'$text' is refused: $error" eval 'is "$(put "$text")" '"$error"' && is "$(zone 1 max) $(zone 3 max)" "5 none"'
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
check 'an empty line is refused' is "$(put '
')" EINVAL
check 'one bad line rejects all lines of a write' eval 'is "$(put "zone 3 max 7
zone 1 max 9
zone 2 max x")" EINVAL && is "$(zone 1 max) $(zone 3 max)" "5 none"'
check 'several lines in one write are all applied' eval 'is "$(put "zone 3 max 7
zone 1 max 9
zone 65535 max 0
")" "" && is "$(zone 3 max) $(zone 1 max) $(zone 65535 max)" "7 9 0"'
check 'more than a page is refused' is "$(put "$(printf 'zone 1 max 3\n%.0s' {1..400})")" EINVAL
check 'limits are removed' eval 'is "$(put "zone 3 max none
zone 65535 max none")" "" && is "$(zone 3 max)" none'
check 'a zone without limit and flows is removed' until_true 10 eval '[ "$(zone 3 flows)" = none ]'
check 'a zone with a limit stays' is "$(zone 1 flows)" 0
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
check 'user nobody cannot open zones for writing' is "$(nobody)" EACCES
check 'user nobody cannot write to a file that root opened' is "$(FILE=7 nobody 7>"$ZONES")" EPERM
check 'CAP_NET_ADMIN does not override the mode of the file' \
	is "$(nobody --inh-caps +net_admin --ambient-caps +net_admin)" EACCES
check 'CAP_NET_ADMIN is enough to write to a file that root opened' \
	is "$(FILE=7 nobody --inh-caps +net_admin --ambient-caps +net_admin 7>"$ZONES") $(zone 1 max)" 'done 1'

# Limits.
put 'zone 1 max 5' >/dev/null
check 'connections up to the limit are answered' is "$(connect c 4000 4001 4002 4003 4004)" 5
check 'one more connection is not answered' is "$(WAIT=0.5 connect c 4005)" 0
check 'packets over the limit are counted' is "$(zone 1 limited) $(stat_of zone_limited)" '3 3'
check 'established connections are not affected' is "$(connect c 4000 4004)" 2
check 'the other tenant is not affected' is "$(connect d 4000 4001 4002 4003 4004 4005 4006)" 7
check 'the number of connections is shown' is "$(zone 1 connections) $(zone 2 connections)" '5 0'
in_ns r conntrack -D -p udp --orig-port-src 4000 -w 1 >/dev/null 2>&1
check 'a connection that ends makes room' until_true 5 eval '[ "$(WAIT=0.5 connect c 4005)" = 1 ]'
check 'but only for one more' is "$(WAIT=0.5 connect c 4006)" 0
put 'zone 1 max 7' >/dev/null
check 'a higher limit takes effect at once' is "$(WAIT=0.5 connect c 4006 4007 4008)" 2
put 'zone 1 max 0' >/dev/null
check 'a limit of 0 admits no new connection' is "$(WAIT=0.5 connect c 4009)" 0
check 'a limit of 0 does not affect established connections' is "$(connect c 4001 4005 4007)" 3
put 'zone 1 max none' >/dev/null
check 'without limit all connections are admitted' is "$(connect c 4009 4010 4011)" 3
put 'zone 1 max 3' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references
check 'TCP: connections up to the limit are answered' is "$(twin c tcp "$SERVER" s 2 --sport 5000) $(twin c tcp "$SERVER" s 2 --sport 5001)" '2 2'
check 'TCP: closed connections do not count' \
	is "$(twin c tcp "$SERVER" s 2 --sport 5002) $(twin c tcp "$SERVER" s 2 --sport 5003) $(twin c tcp "$SERVER" s 2 --sport 5004)" '2 2 2'
# Many short connections beside some that stay, with room for a few.
put 'zone 1 max none' >/dev/null
put 'zone 1 max 30' >/dev/null
connect c 4100 4101 4102 4103 4104 4105 4106 4107 4108 4109 >/dev/null
limited=$(zone 1 limited)
ROUNDS=$((200 / SLOW))
in_ns c python3 -c '
import socket
answered = 0
for _ in range('"$ROUNDS"'):
    with socket.create_connection(("10.9.9.9", 7), timeout=5) as s:
        s.sendall(b"x" * 16)
        answered += len(s.recv(99)) > 0
print(answered)' >/tmp/answered
check 'many short connections below the limit: all are answered' is "$(cat /tmp/answered)" "$ROUNDS"
check 'many short connections below the limit: none is refused' is "$(zone 1 limited)" "$limited"
put 'zone 1 max 3' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
check 'IPv6 connections count too' is "$(connect c 4000 4001 4002 >/dev/null
	twin c udp "$SERVER6" s 1 --sport 4003 --timeout 0.5)" 0
check 'connections to the router itself count too' \
	eval '! in_ns c ping -q -c 1 -W 1 10.0.1.1 >/dev/null && put "zone 1 max 4" && in_ns c ping -q -c 1 -W 5 10.0.1.1 >/dev/null'
put 'zone 1 max none' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
in_ns r conntrack -F -f ipv6 >/dev/null 2>&1
until_true 10 no_references

# One tuple, opened and reset repeatedly, and open at the end. It counts as one connection.
put 'zone 1 max 1000' >/dev/null
in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
# Read the count in each round from 50 on: if dead connections are only removed now and then, one of
# these counts is too high.
in_ns c python3 - "/proc/${HOLDER[r]}/net/nf_zoneroute/zones" >/tmp/counts <<-'END'
	import re, socket, sys
	s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
	def segment(flags):
	    return (bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 1, 2, 10, 9, 9, 9])
	            + bytes([40, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 16, 0, 0, 0, 0, 0]))
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
check 'one tuple again and again: counts once' is "$(cat /tmp/counts) $(zone 1 connections)" '1 1'
put 'zone 1 max 5' >/dev/null
check 'one tuple again and again: room for others' is "$(connect c 4000 4001 4002 4003)" 4
put 'zone 1 max none' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references

# A limit that is raised far beyond the number that it was sized for keeps its count.
put 'zone 1 max 5' >/dev/null
connect c 4000 4001 4002 >/dev/null
put 'zone 1 max 1000000' >/dev/null
check 'a limit raised a lot: established connections still count' is "$(zone 1 max) $(zone 1 connections)" '1000000 3'
connect c 4003 >/dev/null
put 'zone 1 max 4' >/dev/null
check 'lowered again: they still count' is "$(WAIT=0.5 connect c 4004) $(zone 1 connections)" '0 4'
in_ns r conntrack -D -p udp --orig-port-src 4000 -w 1 >/dev/null 2>&1
check 'one of these connections ends: there is room again' until_true 10 eval '[ "$(WAIT=0.5 connect c 4004)" = 1 ]'
put 'zone 1 max none' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references

# Flush.
connect c 4000 4001 4002 >/dev/null
twin c udp "$SERVER6" s 3 --sport 4000 >/dev/null
connect d 4000 4001 >/dev/null
flushed=$(zone 1 flushed)
check 'flush empties a zone' eval 'is "$(put "zone 1 flush")" "" && is "$(entries 1)" 0'
check 'flushed connections are counted' is $(($(zone 1 flushed) - flushed)) 4
check 'the other zone keeps its connections' is "$(entries 2)" 2
check 'they are found as before' is "$(found twin d udp "$SERVER" t 5 --sport 4000 2>/dev/null)" 10
check 'flushing a zone that does not exist succeeds' eval 'is "$(put "zone 77 flush")" "" && is "$(zone 77 flows)" none'
# Connections with only the reply direction in zone 0 belong to the other direction's zone.
in_ns r nft flush chain inet test raw
in_ns r nft add rule inet test raw iifname c1 ct original zone set 9
connect c 4020 4021 >/dev/null
in_zone_9() {
	in_ns r conntrack -L -p udp 2>/dev/null | grep -c zone-orig=9 || true
}
put 'zone 0 flush' >/dev/null
check 'flushing zone 0 spares connections with only replies there' is "$(in_zone_9)" 2
put 'zone 9 flush' >/dev/null
check 'flushing their own zone removes them' is "$(in_zone_9)" 0
in_ns r nft flush chain inet test raw
in_ns r nft -f - <<-'END'
	add rule inet test raw iifname { "c1", "s1" } ct zone set 1
	add rule inet test raw iifname { "d1", "t1" } ct zone set 2
END
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references

# A flood in zone 1 beyond its limit, while d sends requests.
put 'zone 1 max 200' >/dev/null
connect d 4000 >/dev/null
# met COMMAND...: prints how many other entries lookups in zone 2 met during COMMAND.
met() {
	local before
	before=$(zone 2 met)
	"$@" >/tmp/answered
	echo $(($(zone 2 met) - before))
}
met=$(met twin d udp "$SERVER" t 100 --sport 4000) buckets=$(zone 2 buckets)
flood() {
	in_ns c python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for sport in range(10000, 10000 + '"$((4000 / SLOW))"'):
    s.sendto(sport.to_bytes(2, "big") + b"\0\7\0\x10\0\0" + bytes(8), ("10.9.9.9", 0))'
}
flood &
flood=$!
met_then=$(met twin d udp "$SERVER" t 100 --sport 4000)
answered=$(cat /tmp/answered)
wait "$flood"
limited=$(zone 1 limited)
check 'a flood in zone 1: no packet of zone 2 is lost' is "$answered" 100
check 'a flood in zone 1: most of it is refused' [ "$limited" -ge $((3000 / SLOW)) ]
check 'a flood in zone 1: the zone stays within its limit' [ "$(entries 1)" -le 200 ]
check 'a flood in zone 1: zone 2 keeps its connection' is "$(entries 2)" 1
check 'a flood in zone 1: lookups in zone 2 meet no more other entries than before' \
	is "$met_then $(zone 2 buckets)" "$met $buckets"
check 'a flood in zone 1: new connections of zone 2 are admitted' is "$(connect d 4030 4031 4032)" 3
put 'zone 1 max none
zone 1 flush
zone 2 flush' >/dev/null
check 'no references remain' until_true 10 no_references
