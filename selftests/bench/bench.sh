#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# One scenario of the benchmark: the cost of a packet through the router, for every forwarding
# method, one after the other in one boot. The guest's clock counts instructions, so times are
# instruction counts. A cost is accepted only if counters confirm that the packets took the method's
# path.
#
# send (send.c) is both ends of all connections; packets that arrive at an end are dropped at once.
#
# bench.sh ROW [SETTING=VALUE...], see selftests/bench/rows.

# shellcheck source=selftests/bench/router.sh
. ./router.sh

# The forwarding methods, in the order in which they are tried. From `off' on the module is loaded.
WAYS=(floor plain conntrack flowtable off route zone both jump ingress)
# "idle": as "plain", with the module loaded and nothing to do for it. "ft_counter": as "flowtable", which
# also counts.
[ "$idle" = 0 ] || WAYS=(floor plain conntrack flowtable ft_counter idle off route zone both jump ingress)
# NAT needs connections.
[ "$snat" = 0 ] || WAYS=(floor conntrack flowtable off route zone both jump ingress)
[ -z "$profile" ] || read -ra WAYS <<<"${profile//,/ }"

# The number of packets, or of connections, to measure. It covers more than a second if the scenario
# has events that happen once a second or more often.
N=20000
[ "$flows" -lt 10000 ] && [ "$churn$quote" = 00 ] || N=200000
[ "$new" = 0 ] || N=$new
# A million connections are opened only once. All get their flows and routes before a part of them
# is measured.
HUGE=
if [ "$flows" -gt 100000 ]; then
	HUGE=again N=500000
	WAYS=(floor plain conntrack off zone route both jump ingress flowtable)
fi
# If routes become stale during the run, not every packet is served.
PARTLY=
[ "$churn$quote" = 00 ] && [ "$max_age" -ge 60000 ] || PARTLY=1
# The counter by which the module shows that it noticed.
TELLER=invalidated_route
[ "$quote" = 0 ] || TELLER=miss_obsolete
# If nothing else happens during the run, it is measured twice.
TWICE=
[ "$new" != 0 ] || [ -n "$PARTLY$HUGE$profile" ] || TWICE=1
PER_WAY=1
[ -z "$TWICE" ] || PER_WAY=2
plan $((${#WAYS[@]} * PER_WAY + (${#HUGE} > 0 ? 3 : 1)))
sinks
start_send

# forwarded: prints the packets that r's IP layer forwarded.
forwarded() {
	if [ "$family" = 6 ]; then
		awk '$1 == "Ip6OutForwDatagrams" { print $2 }' "/proc/${HOLDER[r]}/net/snmp6"
	else
		awk '$1 == "Ip:" && $2 ~ /^[0-9]/ { print $7 }' "/proc/${HOLDER[r]}/net/snmp"
	fi
}

# quoted: prints the errors about packets of its own that r received.
quoted() {
	if [ "$family" = 6 ]; then
		awk '$1 == "Icmp6InPktTooBigs" { print $2 }' "/proc/${HOLDER[r]}/net/snmp6"
	else
		awk '$1 == "Icmp:" && $2 ~ /^[0-9]/ { print $5 }' "/proc/${HOLDER[r]}/net/snmp"
	fi
}

# got: prints the packets that arrived at both ends.
got() {
	awk '$1 ~ /^[cs]0:/ { sum += $3 } END { print sum + 0 }' \
		"/proc/${HOLDER[c]}/net/dev" "/proc/${HOLDER[s]}/net/dev"
}

# counted NAME: prints a counter of the module; 0 if the module is not loaded.
counted() {
	if [ -d /sys/module/nf_zoneroute ]; then stat_of "$1"; else echo 0; fi
}

# jumped: prints how many packets have jumped; of the way "ingress", at ingress.
jumped() {
	counted "$([ "$way" = ingress ] && echo jumped_at_ingress || echo jumped)"
}

TRACING=/sys/kernel/tracing
[ -d "$TRACING/events" ] || mount -t tracefs none "$TRACING"

# fib_lookups WORDS...: has `send' do it, and sets LOOKUPS to the FIB lookups that the kernel made.
fib_lookups() {
	echo >"$TRACING/trace"
	echo 1 | tee "$TRACING"/events/fib*/*_table_lookup/enable >/dev/null
	tell "$@"
	echo 0 | tee "$TRACING"/events/fib*/*_table_lookup/enable >/dev/null
	LOOKUPS=$(grep -c 'table_lookup' "$TRACING/trace") || true
}

# about COUNT: whether COUNT packets arrived at the ends; up to 10 more may be the hosts' own.
about() {
	if [ "$GOT" -lt "$1" ] || [ "$GOT" -gt $(($1 + 10)) ]; then
		is "arrived $GOT" "arrived $1"
	fi
}

# went WAY: whether all packets that were sent took this method's path. FORWARDED, GOT, HITS and
# FOUND are the increments of the counters; LOOKUPS is the number of FIB lookups for a later run of
# FEW * 2 packets.
went() {
	local wanted_hits=0 wanted_found=0 forwarded=$SENT
	case $1 in
	floor)
		is "$FORWARDED $CONNECTIONS" '0 0' && about 0
		return
		;;
	plain | idle) is "$CONNECTIONS" 0 || return 1 ;;
	flowtable | ft_counter)
		# Each change or error invalidates its routes, and with them its flows, for a while.
		forwarded=0
		[ "$churn$quote" = 00 ] || forwarded=$FORWARDED
		[ -n "$HUGE" ] || is "$OFFLOADED" "$flows" || return 1
		;;
	route) wanted_hits=$SENT ;;
	zone) wanted_found=$SENT ;;
	both | jump | ingress) wanted_hits=$SENT wanted_found=$SENT ;;
	esac
	[[ $1 != jump && $1 != ingress ]] || [ -n "$PARTLY" ] || is "jumped $JUMPED" "jumped $SENT" || return 1
	[ "$1" = plain ] || [ "$1" = idle ] || [ "$CONNECTIONS" -ge "$flows" ] || is "$CONNECTIONS connections" "$flows" || return 1
	is "forwarded $FORWARDED" "forwarded $forwarded" && about "$SENT" || return 1
	is "found $FOUND" "found $wanted_found" || return 1
	[ "$CHANGES" -ge $((churn + quote)) ] || is "$CHANGES changes" $((churn + quote)) || return 1
	[ "$quote" = 0 ] || [ "$QUOTED" -ge "$CHANGES" ] || is "$QUOTED errors" "$CHANGES" || return 1
	case $1 in
	route | both | jump | ingress)
		if [ "$churn" != 0 ]; then
			[ "$TOLD" -ge "$CHANGES" ] || is "told of $TOLD" "told of $CHANGES"
		elif [ "$quote" != 0 ]; then
			[ "$TOLD" -gt 0 ] || is 'no route was given up' 'some routes were given up'
		elif [ -n "$PARTLY" ]; then
			[ "$HITS" -gt 0 ]
		else
			is "served $HITS, lookups $LOOKUPS" "served $wanted_hits, lookups 0"
		fi
		;;
	flowtable | ft_counter) [ "$churn$quote" != 00 ] || is "served $HITS, lookups $LOOKUPS" 'served 0, lookups 0' ;;
	# In a list, a packet takes the route of the one before it if both have one destination.
	*)
		is "served $HITS" 'served 0' || return 1
		if [ "$napi" = 0 ]; then
			[ "$LOOKUPS" -ge $((FEW * 2 * (1 + rp_filter))) ]
		else
			[ "$LOOKUPS" -gt 0 ] && [ "$LOOKUPS" -lt $((FEW * 2)) ]
		fi
		;;
	esac
}

# went_new WAY: the same for connections that are opened and closed.
went_new() {
	case $1 in
	floor) is "$FORWARDED" 0 && about 0 ;;
	plain) is "$FORWARDED" $((8 * SENT)) && about $((8 * SENT)) ;;
	flowtable) about $((8 * SENT)) && [ "$FORWARDED" -lt $((8 * SENT)) ] ;;
	conntrack | off) is "$FORWARDED $NEW" "$((8 * SENT)) 0" && about $((8 * SENT)) ;;
	# They are too short for a flow. All packets but the first find that there is none.
	# If there are others in the zone, those are looked up that neither open nor close.
	route | zone | both | jump | ingress)
		is "$FORWARDED $NEW" "$((8 * SENT)) 0" && about $((8 * SENT)) || return 1
		[ "$1" = zone ] || is "without a flow $UNLEARNED" "without a flow $((7 * SENT))" || return 1
		[ "$1" = route ] || [ "$lasting" = 0 ] || is "looked up $UNKNOWN" "looked up $((4 * SENT))"
		;;
	esac
}

# warm WAY: sends until all packets take that path; only some zones at a time can be put in use.
warm() {
	local hits found jumped rounds
	for rounds in $(seq 50); do
		hits=$(counted hit) found=$(counted lookup_hit) jumped=$(jumped)
		tell run "$SLICE"
		read -r SENT _ <<<"$ANSWER"
		[ "$rounds" -ge 3 ] || continue
		hits=$(($(counted hit) - hits)) found=$(($(counted lookup_hit) - found))
		jumped=$(($(jumped) - jumped))
		case $1 in
		route) if [ -n "$PARTLY" ] || [ "$hits" -ge "$SENT" ]; then break; fi ;;
		zone) [ "$found" -lt "$SENT" ] || break ;;
		both) if [ "$found" -ge "$SENT" ] && { [ -n "$PARTLY" ] || [ "$hits" -ge "$SENT" ]; }; then break; fi ;;
		jump | ingress) if [ "$found" -ge "$SENT" ] && { [ -n "$PARTLY" ] || [ "$jumped" -ge "$SENT" ]; }; then break; fi ;;
		*) break ;;
		esac
		sleep 0.1
	done
}

# profiled NAME WORDS: has `send' do it. The host logs each instruction, or each access to memory,
# meanwhile: see profile.py and lines.py.
profiled() {
	echo "# profile ready $1 ${2#* }"
	read -r _ </dev/hvc2
	# shellcheck disable=SC2086
	tell $2
	echo "# profile done"
	read -r _ </dev/hvc2
}

FEW=$((flows < 100 ? flows : 100))
# One packet of each connection, in both directions.
SLICE=$((flows * 2))
for way in "${WAYS[@]}"; do
	set_way "$way" "$HUGE"
	if [ "$lasting" != 0 ]; then
		tell open
		sleep 2.1
		warm "$way"
	fi
	if [ "$new" != 0 ]; then
		# A first run, not measured: it bears the cost of everything that is used for the
		# first time.
		tell new "$N"
	elif [ -n "$HUGE" ]; then
		SLICE=20000
		tell slice "$flows"
		case $way in
		conntrack) tell open ;;
		zone | route | flowtable) tell run $((flows * 2)) ;;
		esac
		case $way in
		zone) check 'connections have their flows' [ "$(stat_of ct_references)" -ge $((flows * 99 / 100)) ] ;;
		both) check 'connections have their routes' [ "$(stat_of dst_references)" -ge $((flows * 198 / 100)) ] ;;
		esac
		tell slice $((SLICE / 2))
		# After a sysctl changed, the collector scans all connections once.
		sleep 2.1
		warm "$way"
	else
		tell open
		# A UDP connection becomes ASSURED when it is two seconds old.
		sleep 2.1
		warm "$way"
	fi
	if [ -n "$profile" ] && [ -z "$pair" ]; then
		few=$([ "$new" = 0 ] && echo run $((FEW * 2)) || echo new 50)
		profiled "$way" "$few"
	fi
	# One half of the connections on each CPU.
	half=$((flows / 2))
	for cpu in ${pair:+0 1}; do
		tell cpu "$cpu"
		tell slice "$half" $((half * cpu))
		tell run $((flows * 4))
		profiled "$way.$cpu" "run $((FEW * 2))"
		tell slice "$flows"
	done
	if [ -n "$TWICE" ]; then
		tell run "$N"
		read -r SENT before _ <<<"$ANSWER"
	fi
	forwarded=$(forwarded) got=$(got) hits=$(counted hit) found=$(counted lookup_hit) made=$(counted flow_new)
	told=$(counted "$TELLER") unlearned=$(counted miss_no_flow)
	unknown=$(counted lookup_miss_unknown) quoted=$(quoted) jumped=$(jumped)
	tell "$([ "$new" = 0 ] && echo run || echo new)" "$N"
	read -r SENT ns CHANGES <<<"$ANSWER"
	JUMPED=$(($(jumped) - jumped))
	TOLD=$(($(counted "$TELLER") - told)) QUOTED=$(($(quoted) - quoted))
	FORWARDED=$(($(forwarded) - forwarded)) GOT=$(($(got) - got)) HITS=$(($(counted hit) - hits))
	FOUND=$(($(counted lookup_hit) - found)) NEW=$(($(counted flow_new) - made))
	UNLEARNED=$(($(counted miss_no_flow) - unlearned))
	UNKNOWN=$(($(counted lookup_miss_unknown) - unknown))
	CONNECTIONS=$(in_ns r conntrack -C)
	OFFLOADED=0
	if [ -z "$HUGE" ] && [[ $way = flowtable || $way = ft_counter ]]; then
		OFFLOADED=$(in_ns r conntrack -L -f "ipv$family" 2>/dev/null | grep -c OFFLOAD) || true
	fi
	if [ "$new" = 0 ]; then
		fib_lookups run $((FEW * 2))
		check "$way: the packets took that path" went "$way"
	else
		check "$way: connections took that path" went_new "$way"
	fi
	if [ -n "$TWICE" ]; then
		off=$((ns > before ? ns - before : before - ns))
		check "$way: a second run is within 0.5 %" [ $((off * 200)) -le "$ns" ]
	fi
	echo "# bench $ROW $way $SENT $ns"
	case $PARTLY$way in
	1route | 1both) echo "# served $ROW $way $HITS $SENT" ;;
	esac
done
if [ -n "$profile" ]; then
	echo '# profile symbols'
	awk '$2 ~ /^[tTwW]$/ && $3 !~ /^__pfx_/ { print $1, $3, $4 }' /proc/kallsyms
	echo '# profile end'
fi
exec 7>&-
# Taint flags: bad page, oops, warning.
check 'the kernel is not tainted' [ $(($(cat /proc/sys/kernel/tainted) & (1 << 5 | 1 << 7 | 1 << 9))) = 0 ]
