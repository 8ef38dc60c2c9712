#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# One scenario of the benchmark: what a packet through the router costs, by every way there is to forward
# it, one after the other in one boot. Runs where the clock counts instructions, so that times are numbers
# of these. Before a cost is believed, counters say that the packets went the way that it is for.
#
# send (send.c) is both ends of all connections; what arrives at an end is dropped there at once.
#
# bench.sh ROW [SETTING=VALUE...], see selftests/bench/rows.

# shellcheck source=selftests/bench/router.sh
. ./router.sh

# The ways, in the order in which they are tried; from `off' on with the module loaded.
WAYS=(floor plain conntrack flowtable off route zone both)
# NAT needs connections.
[ "$snat" = 0 ] || WAYS=(floor conntrack flowtable off route zone both)
[ -z "$profile" ] || read -ra WAYS <<<"${profile//,/ }"

N=$((flows * 2 > 20000 ? flows * 2 : 20000))
[ "$new" = 0 ] || N=$new
plan $((${#WAYS[@]} + 1))
sinks
start_send

# forwarded: packets that r's IP layer forwarded.
forwarded() {
	if [ "$family" = 6 ]; then
		awk '$1 == "Ip6OutForwDatagrams" { print $2 }' "/proc/${HOLDER[r]}/net/snmp6"
	else
		awk '$1 == "Ip:" && $2 ~ /^[0-9]/ { print $7 }' "/proc/${HOLDER[r]}/net/snmp"
	fi
}

# got: packets that came to both ends.
got() {
	awk '$1 ~ /^[cs]0:/ { sum += $3 } END { print sum + 0 }' \
		"/proc/${HOLDER[c]}/net/dev" "/proc/${HOLDER[s]}/net/dev"
}

# counted NAME: a counter of the module, if it is there.
counted() {
	if [ -d /sys/module/nf_zoneroute ]; then stat_of "$1"; else echo 0; fi
}

TRACING=/sys/kernel/tracing
[ -d "$TRACING/events" ] || mount -t tracefs none "$TRACING"

# fib_lookups: how many the kernel makes for as many packets as are told then.
fib_lookups() {
	echo >"$TRACING/trace"
	echo 1 | tee "$TRACING"/events/fib*/*_table_lookup/enable >/dev/null
	tell "$@"
	echo 0 | tee "$TRACING"/events/fib*/*_table_lookup/enable >/dev/null
	LOOKUPS=$(grep -c 'table_lookup' "$TRACING/trace") || true
}

# about COUNT: whether so many packets came to the ends, but for a stray one of the hosts' own.
about() {
	if [ "$GOT" -lt "$1" ] || [ "$GOT" -gt $(($1 + 10)) ]; then
		is "arrived $GOT" "arrived $1"
	fi
}

# went WAY: whether as many packets as were sent went by this way and no other. FORWARDED, GOT, HITS
# and FOUND are what the counters gained meanwhile, LOOKUPS what the kernel looked up for FEW others.
went() {
	local wanted_hits=0 wanted_found=0 forwarded=$SENT
	case $1 in
	floor)
		is "$FORWARDED $CONNECTIONS" '0 0' && about 0
		return
		;;
	plain) is "$CONNECTIONS" 0 || return 1 ;;
	flowtable)
		# Each unrelated change ends its routes, and with them its flows, for a while.
		forwarded=0
		[ "$churn" = 0 ] || forwarded=$FORWARDED
		[ "$flows" -gt 10000 ] || is "$OFFLOADED" "$flows" || return 1
		;;
	route) wanted_hits=$SENT ;;
	zone) wanted_found=$SENT ;;
	both) wanted_hits=$SENT wanted_found=$SENT ;;
	esac
	[ "$1" = plain ] || [ "$CONNECTIONS" -ge "$flows" ] || is "$CONNECTIONS connections" "$flows" || return 1
	is "forwarded $FORWARDED" "forwarded $forwarded" && about "$SENT" || return 1
	is "found $FOUND" "found $wanted_found" || return 1
	case $1 in
	route | both)
		# Each unrelated change makes the routes old.
		[ "$churn" != 0 ] || is "served $HITS, lookups $LOOKUPS" "served $wanted_hits, lookups 0"
		;;
	flowtable) [ "$churn" != 0 ] || is "served $HITS, lookups $LOOKUPS" 'served 0, lookups 0' ;;
	*) is "served $HITS" 'served 0' && [ "$LOOKUPS" -ge "$FEW" ] ;;
	esac
}

# went_new WAY: the same for connections that come and go.
went_new() {
	case $1 in
	floor) is "$FORWARDED" 0 && about 0 ;;
	plain) is "$FORWARDED" $((8 * SENT)) && about $((8 * SENT)) ;;
	flowtable) about $((8 * SENT)) && [ "$FORWARDED" -lt $((8 * SENT)) ] ;;
	conntrack | off) is "$FORWARDED $NEW" "$((8 * SENT)) 0" && about $((8 * SENT)) ;;
	route | zone | both) is "$FORWARDED $NEW" "$((8 * SENT)) $SENT" && about $((8 * SENT)) ;;
	esac
}

# warm WAY: until all packets go that way; zones are put in use some at a time.
warm() {
	local hits found rounds
	for rounds in $(seq 50); do
		hits=$(counted hit) found=$(counted lookup_hit)
		tell run $((flows * 2))
		read -r SENT _ <<<"$ANSWER"
		[ "$rounds" -ge 3 ] || continue
		case $1 in
		route) if [ "$churn" != 0 ] || [ $(($(counted hit) - hits)) -ge "$SENT" ]; then break; fi ;;
		zone | both) [ $(($(counted lookup_hit) - found)) -lt "$SENT" ] || break ;;
		*) break ;;
		esac
		sleep 0.1
	done
}

FEW=$((flows < 100 ? flows : 100))
for way in "${WAYS[@]}"; do
	set_way "$way"
	if [ "$new" = 0 ]; then
		tell open
		# A UDP connection is ASSURED when it is two seconds old.
		sleep 2.1
		warm "$way"
	else
		tell new 100
	fi
	# Each instruction is written down by the host meanwhile: see profile.py.
	if [ -n "$profile" ]; then
		few=$([ "$new" = 0 ] && echo run $((FEW * 2)) || echo new 50)
		echo "# profile ready $way ${few#* }"
		read -r _ </dev/hvc2
		# shellcheck disable=SC2086
		tell $few
		echo "# profile done"
		read -r _ </dev/hvc2
	fi
	forwarded=$(forwarded) got=$(got) hits=$(counted hit) found=$(counted lookup_hit) made=$(counted flow_new)
	tell "$([ "$new" = 0 ] && echo run || echo new)" "$N"
	read -r SENT ns <<<"$ANSWER"
	FORWARDED=$(($(forwarded) - forwarded)) GOT=$(($(got) - got)) HITS=$(($(counted hit) - hits))
	FOUND=$(($(counted lookup_hit) - found)) NEW=$(($(counted flow_new) - made))
	CONNECTIONS=$(in_ns r conntrack -C)
	OFFLOADED=0
	[ "$way" != flowtable ] || [ "$flows" -gt 10000 ] ||
		OFFLOADED=$(in_ns r conntrack -L -f "ipv$family" 2>/dev/null | grep -c OFFLOAD) || true
	if [ "$new" = 0 ]; then
		fib_lookups run $((FEW * 2))
		check "$way: the packets went that way" went "$way"
	else
		check "$way: the connections went that way" went_new "$way"
	fi
	echo "# bench $ROW $way $SENT $ns"
	if [ "$churn" != 0 ] && [ "$HITS" -gt 0 ]; then
		echo "# served $ROW $way $HITS $SENT"
	fi
done
if [ -n "$profile" ]; then
	echo '# profile symbols'
	awk '$2 ~ /^[tTwW]$/ { print $1, $3, $4 }' /proc/kallsyms
	echo '# profile end'
fi
exec 7>&-
# Bad page, oops, warning.
check 'the kernel has nothing to complain of' [ $(($(cat /proc/sys/kernel/tainted) & (1 << 5 | 1 << 7 | 1 << 9))) = 0 ]
