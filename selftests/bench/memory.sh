#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What connections, zones and network namespaces take of the router's memory, by what is used before and
# after: so many connections by conntrack, and with the module; so many zones with a limit and nothing else;
# so many namespaces, each a tenant's router of its own.
#
# memory.sh ROW [SETTING=VALUE...], see selftests/bench/rows.

# shellcheck source=selftests/bench/router.sh
. ./router.sh

MANY=10000
NETNS=100
flows=$MANY ports=1 CLIENTS=$MANY
plan 5
sinks
start_send

# used: bytes of the slabs' objects, of per-CPU memory and of what is mapped on its own.
used() {
	local slab rest
	slab=$(awk 'NR > 2 { sum += $2 * $4 } END { printf "%d", sum }' /proc/slabinfo)
	rest=$(awk '$1 == "Percpu:" || $1 == "VmallocUsed:" || $1 == "PageTables:" || $1 == "KernelStack:" { sum += $2 }
		END { print sum * 1024 }' /proc/meminfo)
	echo $((slab + rest))
}

# took NAME COUNT BEFORE
took() {
	local bytes=$((($(used) - $3) / $2))
	echo "# memory $ROW $1 $bytes bytes"
	check "$1 takes memory" [ "$bytes" -gt 0 ]
}

# connections WAY
connections() {
	set_way "$1"
	tell open
	sleep 2.1
	for _ in 1 2 3; do
		tell run $((MANY * 2))
	done
}

set_way floor
before=$(used)
connections conntrack
took 'a connection, by conntrack' "$MANY" "$before"
set_way floor
before=$(used)
connections both
took 'a connection, with the module' "$MANY" "$before"
check 'a flow with both routes takes no more than 256 bytes' [ "$(awk '$1 == "nf_zoneroute_flow" { flow = $4 }
	$1 == "nf_zoneroute_slot" { slot = $4 } END { print flow + 2 * slot }' /proc/slabinfo)" -le 256 ]
set_way floor
until_true 60 no_references
before=$(used)
in_ns r python3 -c '
import sys
for zone in range(1, int(sys.argv[1]) + 1):
    with open("/proc/net/nf_zoneroute/zones", "w") as file:
        file.write(f"zone {zone} max 100\n")' "$MANY"
took 'a zone with a limit and no connection' "$MANY" "$before"

# Each with two devices, a firewall that tracks, and routes.
before=$(used)
for i in $(seq "$NETNS"); do
	ip netns add "tenant$i"
	ip -n "tenant$i" -b - <<-END
		link set lo up
		link add in0 type veth peer name out0
		addr add 10.0.1.1/24 dev in0
		addr add 10.0.2.1/24 dev out0
		link set in0 up
		link set out0 up
		route add $SERVER via 10.0.2.2
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
took 'a network namespace' "$NETNS" "$before"
