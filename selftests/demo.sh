#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Shows the case that conntrack zones exist for: two tenants with the SAME addresses behind one
# router, each in its own zone, both talking to one server; and what the module shows of them.
#
#   red   10.0.0.2 --- red  \          / wan1 198.51.100.0/24 \
#                             router --                         -- server 203.0.113.1
#   blue  10.0.0.2 --- blue /          \ wan2 192.0.2.0/24    /

. lib/test.sh

SERVER=203.0.113.1
ASKERS=()

trap 'kill "${JOBS[@]}" "${HOLDER[@]}" 2>/dev/null || true' EXIT

say() {
	printf '\n== %s\n' "$*"
}

# step NAME COMMAND...: prints whether COMMAND succeeded.
step() {
	local name=$1
	shift
	if "$@"; then
		printf '   [ok] %s\n' "$name"
	else
		printf '   [FAILED] %s (%s)\n' "$name" "$*"
		FAILED=1
	fi
}

# show WORD...: prints the lines of routes that contain every word, indented.
show() {
	local word lines
	lines=$(in_ns router cat /proc/net/nf_zoneroute/routes)
	for word; do
		lines=$(grep -F -- "$word" <<<"$lines" || true)
	done
	[ -z "$lines" ] || printf '   %s\n' "${lines//$'\n'/$'\n'   }"
}

# tx_packets DEV: prints how many packets the router sent by a device.
tx_packets() {
	in_ns router awk -v dev="$1:" '$1 == dev { print $11 }' /proc/net/dev
}

network() {
	local ns
	for ns in red blue router server; do
		ip netns add "$ns"
		ip -n "$ns" link set lo up
		in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv4.conf.all.rp_filter=0 \
			net.ipv4.conf.default.rp_filter=0
	done
	for ns in red blue; do
		ip link add eth0 netns "$ns" type veth peer name "$ns" netns router
		ip -n "$ns" addr add 10.0.0.2/24 dev eth0
		ip -n router addr add 10.0.0.1/24 dev "$ns" noprefixroute
		ip -n "$ns" link set eth0 up
		ip -n router link set "$ns" up
		ip -n "$ns" route add default via 10.0.0.1
	done
	ip link add wan1 netns router type veth peer name wan1 netns server
	ip link add wan2 netns router type veth peer name wan2 netns server
	ip -n router -b - <<-END
		addr add 198.51.100.1/24 dev wan1
		addr add 198.51.100.101/32 dev wan1
		addr add 198.51.100.102/32 dev wan1
		addr add 192.0.2.1/24 dev wan2
		link set wan1 up
		link set wan2 up
		route add $SERVER via 198.51.100.2
		route add 10.0.0.0/24 dev red table 1
		route add 10.0.0.0/24 dev blue table 2
		rule add fwmark 1 lookup 1 pref 100
		rule add fwmark 2 lookup 2 pref 200
	END
	ip -n server -b - <<-END
		addr add 198.51.100.2/24 dev wan1
		addr add 192.0.2.2/24 dev wan2
		addr add $SERVER/32 dev lo
		link set wan1 up
		link set wan2 up
	END
	in_ns router sysctl -qw net.ipv4.ip_forward=1
	in_ns router nft -f - <<-'END'
		table ip tenants {
			chain zones {
				type filter hook prerouting priority raw
				iifname "red" ct zone set 1
				iifname "blue" ct zone set 2
				iifname "wan*" ip daddr 198.51.100.101 ct zone set 1
				iifname "wan*" ip daddr 198.51.100.102 ct zone set 2
			}
			chain marks {
				type filter hook prerouting priority mangle
				iifname "red" ct state new ct mark set 1
				iifname "blue" ct state new ct mark set 2
				iifname "wan*" meta mark set ct mark and 0xff
			}
			chain forward {
				type filter hook forward priority filter; policy drop;
				ct state established,related counter accept
				iifname { "red", "blue" } ct state new counter accept
			}
			chain nat {
				type nat hook postrouting priority srcnat
				ct mark 1 snat to 198.51.100.101
				ct mark 2 snat to 198.51.100.102
			}
		}
	END
}

# download SECONDS: starts a download; prints the MB received, and the longest pause in ms.
download() {
	in_ns red python3 -c '
import socket, sys, time
s = socket.create_connection((sys.argv[1], 8080))
total, longest, last, end = 0, 0, time.time(), time.time() + float(sys.argv[2])
while time.time() < end:
    data = s.recv(65536)
    if not data: break
    now = time.time()
    longest, last, total = max(longest, now - last), now, total + len(data)
print(total // 1000000, int(longest * 1000))' "$SERVER" "$1" >/tmp/download &
	DOWNLOAD=$!
}

say 'Two tenants, red and blue, both 10.0.0.2, behind one router; nft puts each in its own zone'
network
modprobe -a nf_conntrack nf_nat nft_ct
insmod nf_zoneroute.ko
step 'the module is loaded' test -d /sys/module/nf_zoneroute
background server iperf3 -s -p 5201
background server iperf3 -s -p 5202
background server python3 tools/traffic.py echo udp "$SERVER" 7
background server python3 -c '
import os, socket
s = socket.create_server(("203.0.113.1", 8080))
while True:
    conn, _ = s.accept()
    if os.fork() == 0:
        try:
            while True: conn.sendall(bytes(65536))
        except OSError: os._exit(0)'
step 'the servers are up' until_true 10 eval 'ip netns exec server grep -q :1F90 /proc/net/tcp && ip netns exec server grep -q :0007 /proc/net/udp &&
	ip netns exec server grep -q :1452 /proc/net/tcp6 /proc/net/tcp'

say 'Traffic from both: iperf3, UDP requests and responses from the same port, ping'
in_ns red iperf3 -c "$SERVER" -p 5201 -t 2 --cport 40000 >/tmp/red &
red=$!
in_ns blue iperf3 -c "$SERVER" -p 5202 -t 2 --cport 40000 >/tmp/blue &
blue=$!
for ns in red blue; do
	answered=$(in_ns "$ns" python3 tools/traffic.py ask udp "$SERVER" 7 50 --sport 4000)
	step "$ns: UDP: $answered" test "$answered" = 'sent=50 answered=50'
	step "$ns: ping: 20 of 20" eval "in_ns $ns ping -q -c 20 -i 0.02 $SERVER | grep -q ' 20 received'"
done
step 'red: iperf3 completed' wait "$red"
step 'blue: iperf3 completed' wait "$blue"
for ns in red blue; do
	printf '   %s: TCP: %s\n' "$ns" "$(awk '/receiver/ { print $7, $8 }' "/tmp/$ns")"
done

# Both tenants keep sending requests meanwhile.
for ns in red blue; do
	background "$ns" python3 tools/traffic.py ask udp "$SERVER" 7 100000 --sport 4000 --interval 0.005
	ASKERS+=("${JOBS[-1]}")
done
step 'both tenants are served from the cache, in both directions' until_true 10 eval \
	'[ "$(show " udp " 4000 state=live | grep -c hits=)" = 4 ]'
say '/proc/net/nf_zoneroute/zones'
in_ns router sed 's/^/   /' /proc/net/nf_zoneroute/zones
say '/proc/net/nf_zoneroute/routes: the same tuple twice, told apart by zone (UDP from port 4000, and its replies)'
show ' udp ' 4000
for zone in 1 2; do
	step "zone $zone: a live route with hits in each direction" until_true 2 eval \
		"[ \"\$(show ' udp ' zone=$zone 4000 state=live | grep -c ' hits=[1-9]')\" = 2 ]"
done
kill "${ASKERS[@]}"

say 'A served packet needs no FIB lookup: the kernel traces each one (fib:fib_table_lookup)'
trace=/sys/kernel/tracing
# lookups: prints how many FIB lookups 200 requests cause in the router. Lookups of the red host are
# left out: their input device is 1, its loopback device.
lookups() {
	echo >$trace/trace
	in_ns red python3 tools/traffic.py ask udp "$SERVER" 7 200 --sport 4000 >/dev/null
	grep 'fib_table_lookup:' "$trace"/trace | grep -v ' iif 1 ' |
		grep -cE -- "10.0.0.2/[0-9]+ -> $SERVER/|$SERVER/[0-9]+ -> 10.0.0.2/" || true
}
echo 1 >$trace/events/fib/fib_table_lookup/enable
hits=$(stat_of hit router)
lookups_on=$(lookups)
hits=$(($(stat_of hit router) - hits))
in_ns router sysctl -qw net.nf_zoneroute.route_cache=0
lookups_off=$(lookups)
in_ns router sysctl -qw net.nf_zoneroute.route_cache=1
echo 0 >$trace/events/fib/fib_table_lookup/enable
echo "   400 packets, route_cache=1: $lookups_on lookups by the router ($hits packets served)"
echo "   400 packets, route_cache=0: $lookups_off lookups by the router"
step 'lookups no longer grow with the packets' test $((lookups_on * 10)) -lt "$lookups_off"

say 'A long download by red; halfway, the route to the server moves from wan1 to wan2'
download 14
step 'the download is served from the cache' until_true 5 eval \
	'show " tcp " zone=1 dir=orig dport=8080 state=live | grep -q "hits=[1-9][0-9]"'
show ' tcp ' zone=1 dir=orig dport=8080
obsolete=$(stat_of miss_route_changed router)
ip -n router route replace "$SERVER" via 192.0.2.2
sleep 0.2
wan1=$(tx_packets wan1)
wan2=$(tx_packets wan2)
sleep 1
# A busy host may let the sender wait.
until_true 5 eval '[ $(($(tx_packets wan2) - wan2)) -gt 10 ]' || true
wan1=$(($(tx_packets wan1) - wan1))
wan2=$(($(tx_packets wan2) - wan2))
show ' tcp ' zone=1 dir=orig dport=8080
echo "   in one second after the change: wan1 $wan1 packets, wan2 $wan2; miss_route_changed +$(($(stat_of miss_route_changed router) - obsolete))"
step 'no packet takes the old path' test "$wan1" = 0
step 'the flow takes the new path, and is served from the cache there' until_true 5 eval \
	"[ $wan2 -gt 10 ] && show ' tcp ' zone=1 dir=orig dport=8080 | grep 'oif=wan2 .*state=live'"
step '/proc/net/nf_zoneroute/stats shows the reason: miss_route_changed' test "$(stat_of miss_route_changed router)" -gt "$obsolete"

say 'One nft rule lets the download jump: its packets leave before conntrack'
in_ns router sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 \
	net.nf_zoneroute.jump=1
in_ns router nft insert rule ip tenants forward ct state established ct mark set ct mark or 0x100
step 'routes shows path=jump for both directions' until_true 5 eval \
	'[ "$(show " tcp " zone=1 8080 path=jump | grep -c hits=)" = 2 ]'
show ' tcp ' zone=1 8080
# firewall: prints how many packets the forward chain has accepted.
firewall() {
	in_ns router nft -j list chain ip tenants forward | grep -o '"packets": *[0-9]*' | tr -dc '0-9\n' |
		awk '{ n += $1 } END { print n }'
}
echo >$trace/trace
echo 1 >$trace/events/fib/fib_table_lookup/enable
before=$(firewall) jumped=$(stat_of jumped router)
sleep 1
jumped=$(($(stat_of jumped router) - jumped))
met=$(($(firewall) - before))
echo 0 >$trace/events/fib/fib_table_lookup/enable
lookups=$(grep -cE -- "fib_table_lookup:.*(10.0.0.2/[0-9]+ -> $SERVER/|$SERVER/[0-9]+ -> 10.0.0.2/)" $trace/trace || true)
echo "   in one second: $jumped packets jumped; the firewall counted $met, the FIB was asked $lookups times"
step 'the firewall and the FIB see hardly any packet' eval "[ $jumped -gt 20 ] && [ $((met * 10)) -lt $jumped ] && [ $((lookups * 10)) -lt $jumped ]"

say 'A new rule drops the very next packet'
in_ns router nft insert rule ip tenants forward tcp sport 8080 drop
before=$(tx_packets red)
sleep 0.5
before=$(($(tx_packets red) - before))
echo "   in half a second after the rule: $before packets to red"
step 'no packet of the download passes' test "$before" = 0
in_ns router nft delete rule ip tenants forward handle "$(in_ns router nft -a list chain ip tenants forward |
	sed -n 's/.*tcp sport 8080 drop # handle //p')"
before=$(tx_packets red)
step 'without the rule, the download goes on' until_true 5 eval '[ "$(tx_packets red)" -gt $((before + 10)) ]'

say 'The module is unloaded during the download'
rmmod nf_zoneroute
step 'the module is unloaded' test ! -d /sys/module/nf_zoneroute
wait "$DOWNLOAD"
read -r megabytes pause </tmp/download
step "the download completed: $megabytes MB, longest pause $pause ms" \
	eval "[ $megabytes -gt 1 ] && [ $pause -lt 5000 ]"

say "The kernel log of all this"
dmesg | grep nf_zoneroute | sed 's/^/   /'
step 'the log has nothing but loading and unloading' eval \
	"! dmesg -l err,warn,crit,alert,emerg | grep -v -e 'taint' | grep -i -e zoneroute -e WARNING -e BUG -e rcu"

echo
[ "$FAILED" -eq 0 ] && echo 'demo: all steps passed' || echo 'demo: FAILED'
exit "$FAILED"
