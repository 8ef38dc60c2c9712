#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The memory that connections, zones and network namespaces take in the router, as the difference
# before and after: connections with conntrack alone and with the module; zones with only a limit;
# tenants with a zone or a network namespace each; network namespaces in which nothing is forwarded.
#
# memory.sh ROW [SETTING=VALUE...], see selftests/bench/rows.

# shellcheck source=selftests/bench/router.sh
. ./router.sh

MANY=10000
TENANTS=100
IDLE=500
flows=$MANY ports=1 CLIENTS=$MANY
plan 10
sinks
start_send

# used: prints the bytes in slabs, per-CPU memory, vmalloc areas, page tables and kernel stacks.
used() {
	awk '$1 == "Slab:" || $1 == "Percpu:" || $1 == "VmallocUsed:" || $1 == "PageTables:" || $1 == "KernelStack:" { sum += $2 }
		END { print sum * 1024 }' /proc/meminfo
}

# took NAME COUNT BEFORE: prints and checks the bytes that each of COUNT objects takes.
took() {
	local bytes=$((($(used) - $3) / $2))
	echo "# memory $ROW $1 $bytes bytes"
	check "$1 takes memory" [ "$bytes" -gt 0 ]
}

# connections WAY: opens MANY connections and sends packets on them.
connections() {
	set_way "$1"
	tell open
	sleep 2.1
	for _ in 1 2 3; do
		tell run $((MANY * 2))
	done
}

# lines FILE: prints the number of lines of a file of /proc/net/nf_zoneroute.
lines() {
	shown "$1" | wc -l
}

set_way floor
before=$(used)
connections conntrack
took 'a connection, by conntrack' "$MANY" "$before"
check 'all connections exist' is "$(in_ns r conntrack -C)" "$MANY"
set_way off
in_ns r conntrack -F 2>/dev/null
before=$(used)
connections both
took 'a connection, with the module' "$MANY" "$before"
check 'all connections exist, with their flows and routes' \
	is "$(in_ns r conntrack -C) $(stat_of ct_references) $(stat_of dst_references)" "$MANY $MANY $((MANY * 2))"
check 'a flow with both slots takes at most 256 bytes' [ "$(awk '$1 == "nf_zoneroute_flow" { flow = $4 }
	$1 == "nf_zoneroute_slot" { slot = $4 } END { print flow + 2 * slot }' /proc/slabinfo)" -le 256 ]
set_way off
until_true 60 no_references
before=$(used)
in_ns r python3 -c '
import sys
for zone in range(1001, int(sys.argv[1]) + 1001):
    with open("/proc/net/nf_zoneroute/zones", "w") as file:
        file.write(f"zone {zone} max 100\n")' "$MANY"
took 'a zone with a limit and no connection' "$MANY" "$before"
check 'all zones exist' [ "$(lines zones)" -ge "$MANY" ]

# Tenants, each with two devices, addresses, a route to the server and a firewall with connection
# tracking: either with a zone, a routing table and a rule, or with a network namespace.
before=$(used)
for i in $(seq "$TENANTS"); do
	echo "link add in$i type veth peer name out$i"
	echo "addr add 10.20.$i.1/24 dev in$i"
	echo "addr add 10.21.$i.1/24 dev out$i"
	echo "link set in$i up"
	echo "link set out$i up"
	echo "route add $SERVER via 10.21.$i.2 table $((1000 + i))"
	echo "rule add iif in$i lookup $((1000 + i)) pref $((1000 + i))"
done >/tmp/tenants
ip -n r -b /tmp/tenants
{
	echo 'table inet tenants { map zones { typeof iifname : ct zone; elements = {'
	for i in $(seq "$TENANTS"); do
		echo "in$i : $i, out$i : $i,"
	done
	echo '} }
	chain raw { type filter hook prerouting priority raw; ct zone set iifname map @zones; }
	}'
} >/tmp/firewall
in_ns r nft -f /tmp/firewall
in_ns r python3 -c '
import sys
for zone in range(1, int(sys.argv[1]) + 1):
    with open("/proc/net/nf_zoneroute/zones", "w") as file:
        file.write(f"zone {zone} max 100\n")' "$TENANTS"
took 'a tenant with a zone' "$TENANTS" "$before"
before=$(used)
for i in $(seq "$TENANTS"); do
	ip netns add "tenant$i"
	ip -n "tenant$i" -b - <<-END
		link set lo up
		link add in0 type veth peer name out0
		addr add 10.20.0.1/24 dev in0
		addr add 10.21.0.1/24 dev out0
		link set in0 up
		link set out0 up
		route add $SERVER via 10.21.0.2
	END
	in_ns "tenant$i" nft -f - <<-'END'
		table inet fw {
			chain forward {
				type filter hook forward priority filter; policy drop;
				ct state established,related accept
				ct state new accept
			}
		}
	END
done
took 'a tenant with a network namespace' "$TENANTS" "$before"

# loading: prints the bytes that loading the module takes.
loading() {
	local before
	before=$(used)
	load
	echo $(($(used) - before))
}

# Last, because netns are freed later than they are deleted.
unload
module=$(loading)
unload
for i in $(seq "$IDLE"); do
	ip netns add "idle$i"
done
bytes=$((($(loading) - module) / IDLE))
echo "# memory $ROW a network namespace that forwards nothing, by the module $bytes bytes"
check 'a network namespace that forwards nothing takes memory' [ "$bytes" -gt 0 ]
