#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What an operator can do to a zone: bound it, count it, empty it; and what one tenant's flood does to
# another. Tenants have the same addresses, c and s in zone 1, d and t in zone 2.

. ./lib.sh
plan 62

load
twins
# Nobody's time is up by itself.
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

# put TEXT: write it to zones; prints the error's name, or nothing.
put() {
	in_ns r python3 -c '
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
try:
    os.write(fd, sys.argv[2].encode("latin-1"))
except OSError as err:
    print(errno.errorcode[err.errno])' "$ZONES" "$1"
}

# entries ZONE: how many connections conntrack has in it.
entries() {
	in_ns r conntrack -L -w "$1" 2>/dev/null | grep -c . || true
}

# connect NS SPORT...: a UDP exchange from each port; prints how many were answered.
connect() {
	local ns=$1 sport sum=0
	shift
	for sport; do
		sum=$((sum + $(twin "$ns" udp "$SERVER" "$([ "$ns" = c ] && echo s || echo t)" 3 --sport "$sport" --timeout "${WAIT:-5}")))
	done
	echo $((sum / 3))
}

# What is refused, whole.
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
check 'nothing at all is refused' is "$(put '
')" EINVAL
check 'of several lines one bad one refuses all' eval 'is "$(put "zone 3 max 7
zone 1 max 9
zone 2 max x")" EINVAL && is "$(zone 1 max) $(zone 3 max)" "5 none"'
check 'several lines are carried out together' eval 'is "$(put "zone 3 max 7
zone 1 max 9
zone 65535 max 0
")" "" && is "$(zone 3 max) $(zone 1 max) $(zone 65535 max)" "7 9 0"'
check 'more than a page is refused' is "$(put "$(printf 'zone 1 max 3\n%.0s' {1..400})")" EINVAL
check 'limits are taken away' eval 'is "$(put "zone 3 max none
zone 65535 max none")" "" && is "$(zone 3 max)" none'
check 'a zone without limit and flows goes' until_true 10 eval '[ "$(zone 3 flows)" = none ]'
check 'one with a limit stays' is "$(zone 1 flows)" 0
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
check 'nobody may not open it for writing' is "$(nobody)" EACCES
check 'nobody may not write to what root opened' is "$(FILE=7 nobody 7>"$ZONES")" EPERM
check 'CAP_NET_ADMIN alone does not help who may not open it' \
	is "$(nobody --inh-caps +net_admin --ambient-caps +net_admin)" EACCES
check 'but who was given the file, opened by root, needs no more' \
	is "$(FILE=7 nobody --inh-caps +net_admin --ambient-caps +net_admin 7>"$ZONES") $(zone 1 max)" 'done 1'

# Limits.
put 'zone 1 max 5' >/dev/null
check 'as many connections as may be: answered' is "$(connect c 4000 4001 4002 4003 4004)" 5
check 'one more is not' is "$(WAIT=0.5 connect c 4005)" 0
check 'its packets are counted' is "$(zone 1 limited) $(stat_of zone_limited)" '3 3'
check 'established ones are untouched' is "$(connect c 4000 4004)" 2
check 'the other tenant is untouched' is "$(connect d 4000 4001 4002 4003 4004 4005 4006)" 7
check 'the count is shown' is "$(zone 1 connections) $(zone 2 connections)" '5 0'
in_ns r conntrack -D -p udp --orig-port-src 4000 -w 1 >/dev/null 2>&1
check 'one that ends makes room' until_true 5 eval '[ "$(WAIT=0.5 connect c 4005)" = 1 ]'
check 'for one' is "$(WAIT=0.5 connect c 4006)" 0
put 'zone 1 max 7' >/dev/null
check 'a higher limit counts at once' is "$(WAIT=0.5 connect c 4006 4007 4008)" 2
put 'zone 1 max 0' >/dev/null
check 'a limit of 0 lets no new one in' is "$(WAIT=0.5 connect c 4009)" 0
check 'and leaves those that are there' is "$(connect c 4001 4005 4007)" 3
put 'zone 1 max none' >/dev/null
check 'without limit' is "$(connect c 4009 4010 4011)" 3
put 'zone 1 max 3' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references
check 'TCP: as many as may be' is "$(twin c tcp "$SERVER" s 2 --sport 5000) $(twin c tcp "$SERVER" s 2 --sport 5001)" '2 2'
check 'TCP: those that are closed do not count' \
	is "$(twin c tcp "$SERVER" s 2 --sport 5002) $(twin c tcp "$SERVER" s 2 --sport 5003) $(twin c tcp "$SERVER" s 2 --sport 5004)" '2 2 2'
# Many that come and go, among some that stay, with room for a few.
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
check 'many come and go below the limit: all are answered' is "$(cat /tmp/answered)" "$ROUNDS"
check 'many come and go below the limit: none is kept out' is "$(zone 1 limited)" "$limited"
put 'zone 1 max 3' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
check 'IPv6 counts too' is "$(connect c 4000 4001 4002 >/dev/null
	twin c udp "$SERVER6" s 1 --sport 4003 --timeout 0.5)" 0
check 'what the router itself is asked counts too' \
	eval '! in_ns c ping -q -c 1 -W 1 10.0.1.1 >/dev/null && put "zone 1 max 4" && in_ns c ping -q -c 1 -W 5 10.0.1.1 >/dev/null'
put 'zone 1 max none' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
in_ns r conntrack -F -f ipv6 >/dev/null 2>&1
until_true 10 no_references

# One tuple, over and over: opened and reset, and in the end open. It is one connection.
put 'zone 1 max 1000' >/dev/null
in_ns r sysctl -qw net.netfilter.nf_conntrack_checksum=0
# The counts after 50, 51 and so on: where they are cleaned now and then only, one of them shows it.
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
check 'one and the same connection, over and over, counts once' is "$(cat /tmp/counts) $(zone 1 connections)" '1 1'
put 'zone 1 max 5' >/dev/null
check 'and leaves room for others' is "$(connect c 4000 4001 4002 4003)" 4
put 'zone 1 max none' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references

# A limit that grows out of what it was made for counts on.
put 'zone 1 max 5' >/dev/null
connect c 4000 4001 4002 >/dev/null
put 'zone 1 max 1000000' >/dev/null
check 'a limit that is raised a lot: the connections still count' is "$(zone 1 max) $(zone 1 connections)" '1000000 3'
connect c 4003 >/dev/null
put 'zone 1 max 4' >/dev/null
check 'and lowered again: they still do' is "$(WAIT=0.5 connect c 4004) $(zone 1 connections)" '0 4'
in_ns r conntrack -D -p udp --orig-port-src 4000 -w 1 >/dev/null 2>&1
check 'one of the old ones ends: there is room again' until_true 10 eval '[ "$(WAIT=0.5 connect c 4004)" = 1 ]'
put 'zone 1 max none' >/dev/null
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references

# Flush.
connect c 4000 4001 4002 >/dev/null
twin c udp "$SERVER6" s 3 --sport 4000 >/dev/null
connect d 4000 4001 >/dev/null
flushed=$(zone 1 flushed)
check 'a zone is flushed' eval 'is "$(put "zone 1 flush")" "" && is "$(entries 1)" 0'
check 'as many as it had' is $(($(zone 1 flushed) - flushed)) 4
check 'the other zone keeps its own' is "$(entries 2)" 2
check 'and is found as before' is "$(found twin d udp "$SERVER" t 5 --sport 4000 2>/dev/null)" 10
check 'a zone that is not there is flushed' eval 'is "$(put "zone 77 flush")" "" && is "$(zone 77 flows)" none'
# With one direction in zone 0: they are the other zone's.
in_ns r nft flush chain inet test raw
in_ns r nft add rule inet test raw iifname c1 ct original zone set 9
connect c 4020 4021 >/dev/null
in_zone_9() {
	in_ns r conntrack -L -p udp 2>/dev/null | grep -c zone-orig=9 || true
}
put 'zone 0 flush' >/dev/null
check 'flushing zone 0 leaves what has only its replies there' is "$(in_zone_9)" 2
put 'zone 9 flush' >/dev/null
check 'flushing the zone ends them' is "$(in_zone_9)" 0
in_ns r nft flush chain inet test raw
in_ns r nft -f - <<-'END'
	add rule inet test raw iifname { "c1", "s1" } ct zone set 1
	add rule inet test raw iifname { "d1", "t1" } ct zone set 2
END
in_ns r conntrack -F >/dev/null 2>&1
until_true 10 no_references

# A flood in zone 1, over its limit, while d works; and one below its limit, that fills it.
put 'zone 1 max 200' >/dev/null
connect d 4000 >/dev/null
# met COMMAND...: how many others lookups in zone 2 met.
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
check 'a flood in zone 1: not one packet of zone 2 is lost' is "$answered" 100
check 'a flood in zone 1: most of it was kept out' [ "$limited" -ge $((3000 / SLOW)) ]
check 'a flood in zone 1: the zone has no more than it may' [ "$(entries 1)" -le 200 ]
check 'a flood in zone 1: nothing of zone 2 went' is "$(entries 2)" 1
check 'a flood in zone 1: lookups in zone 2 meet no more others than before' \
	is "$met_then $(zone 2 buckets)" "$met $buckets"
check 'new connections of zone 2 come in' is "$(connect d 4030 4031 4032)" 3
put 'zone 1 max none
zone 1 flush
zone 2 flush' >/dev/null
check 'in the end nothing is held' until_true 10 no_references
