#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# From a stated packet of each direction on, every packet of a forwarded flow is a hit. The first
# packet creates the flow, the route of the next one is staged, and the rest are hits. If conntrack
# was enabled before the module was loaded, the second packet creates the flow, because the
# connection is confirmed only after the module's hook.
#
# Group: basics
# Kernel: stock quick

. lib/test.sh
plan 15

N=20

# hits_of PROTO-WORD: prints the hits of the original direction and of the reply direction.
hits_of() {
	printf '%s %s' "$(routes " $1 " dir=orig | field hits)" "$(routes " $1 " dir=reply | field hits)"
}

load
router
in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1

serve udp
check 'all UDP requests are answered' is "$(ask c udp $N --sport 4000)" "$N"
check 'UDP: hits from the third original packet and from the second reply on' \
	is "$(hits_of udp)" "$((N - 2)) $((N - 1))"
check 'the routes of both directions are live' is "$(routes ' udp ' state=live | wc -l)" 2
check 'a route shows its device and gateway' \
	is "$(routes ' udp ' dir=orig | field oif) $(routes ' udp ' dir=orig | field via)" 's1 10.0.2.2'
check 'a route without gateway shows onlink' is "$(routes ' udp ' dir=reply | field via)" onlink

serve tcp
check 'all TCP requests are answered' is "$(ask c tcp $N --sport 4001)" "$N"
# Expect the packets that conntrack itself counted, less the first ones.
until_true 5 eval 'in_ns r conntrack -L -p tcp 2>/dev/null | grep -q -e TIME_WAIT -e CLOSE'
packets=$(in_ns r conntrack -L -p tcp 2>/dev/null | tr ' ' '\n' | sed -n 's/^packets=//p' | paste -sd ' ')
read -r orig reply <<<"$packets"
check 'TCP: hits from the same packets on' is "$(hits_of tcp)" "$((orig - 2)) $((reply - 1))"

in_ns c ping -q -c "$N" -i 0.01 "$SERVER" >/dev/null
check 'ICMP: hits from the same packets on' is "$(hits_of icmp)" "$((N - 2)) $((N - 1))"

serve 253
check 'requests of a protocol without ports are answered' is "$(ask c 253 $N)" "$N"
check 'a protocol without ports: hits from the same packets on' is "$(hits_of proto-253)" "$((N - 2)) $((N - 1))"

check 'a one-way flow is cached in the direction seen' \
	is "$(PORT=$SINK ask c udp $N --sport 4002 --oneway >/dev/null; routes ' udp ' dir=orig sport=4002 | field hits)" \
	$((N - 2))
check 'a packet delivered locally creates no flow' \
	is "$(in_ns c ping -q -c 3 -i 0.01 10.0.1.1 >/dev/null; routes ' icmp ' dst=10.0.1.1 | wc -l)" 0

# Conntrack first, then the module: connections lack its extension, and the hooks run in the other
# order.
unload
ask c udp 2 --sport 4003 >/dev/null
load
in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
ask c udp "$N" --sport 4003 >/dev/null
check 'a connection older than the module is found by its tuple: hits from the same packets on' \
	is "$(hits_of udp)" "$((N - 2)) $((N - 1))"
ask c udp "$N" --sport 4004 >/dev/null
check 'conntrack before the module: the second packet creates the flow' \
	is "$(routes ' udp ' dir=orig sport=4004 | field hits) $(routes ' udp ' dir=reply dport=4004 | field hits)" \
	"$((N - 2)) $((N - 2))"
PORT=$SINK ask c udp $N --sport 4005 --oneway >/dev/null
check 'conntrack before the module: hits of a one-way flow from the fourth packet on' \
	is "$(routes ' udp ' dir=orig sport=4005 | field hits)" $((N - 3))
