#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Sends the same packets with zone_lookup off and on. Conntrack's entries, packets, bytes, states
# and timeouts must be the same at the end, and so must the events on the way.
#
# Group: tracking
# Kernel: stock
# Long: quick

. lib/test.sh
plan 9

COUNT=$((6000 / SLOW))
# Found packets of each play.
declare -A HITS

load
router
serve udp
in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1
ip -n r neigh add 10.0.1.77 lladdr 02:00:00:00:00:77 dev c1 nud permanent
ip -n r route add 10.9.9.77 via 10.0.2.2
ip -n s route add blackhole 10.9.9.77
# Each state has a different timeout, long enough not to expire before it is read.
for timeout in close=100 time_wait=130 last_ack=160 close_wait=190 fin_wait=220 syn_recv=250 \
	syn_sent=280; do
	in_ns r sysctl -qw "net.netfilter.nf_conntrack_tcp_timeout_$timeout"
done
in_ns r sysctl -qw net.netfilter.nf_conntrack_udp_timeout=100

# entries: prints conntrack's entries, sorted, without their use counts.
entries() {
	in_ns r conntrack -L 2>/dev/null | sed 's/ use=[0-9]*//' | sort -k 4
}

# play LOOKUP: sends the packets with zone_lookup=LOOKUP, and writes conntrack's entries and events
# to files named after LOOKUP.
play() {
	local events hits
	in_ns r sysctl -qw "net.nf_zoneroute.zone_lookup=$1"
	in_ns r conntrack -F >/dev/null 2>&1
	until_true 10 no_references
	# exec, so that the job is conntrack itself and not a shell around it.
	(exec nsenter --net=/run/netns/r conntrack -E) >"/tmp/events.$1" 2>/tmp/listening &
	events=$!
	JOBS+=("$events")
	# Repeat new connections until conntrack -E reports one: from then on it is listening.
	until_true 10 eval 'in_ns r conntrack -D -p udp --orig-port-src 3999 || true
		ask c udp 1 --sport 3999; grep -q sport=3999 "/tmp/events.'"$1"'"'
	hits=$(stat_of lookup_hit)
	# Random segments, the same ones each time. On one CPU, so that they arrive in order.
	in_ns c taskset -c 0 \
		python3 tools/segments.py "$(mac_of r c1)" "$(mac_of r s1)" "$COUNT" 42 >/dev/null
	ask c udp 30 --sport 4000 --interval 0.1 >/dev/null
	ask c udp 5 --sport 4001 >/dev/null
	HITS[$1]=$(($(stat_of lookup_hit) - hits))
	entries >"/tmp/entries.$1"
	ask c udp 1 --sport 4002 >/dev/null
	until_true 10 grep -q 'sport=4002' "/tmp/events.$1"
	end_jobs "$events"
	unset 'JOBS[-1]'
	sed -i '/port=3999/d; /port=4002/d' "/tmp/events.$1" "/tmp/entries.$1"
}

# same FILE FILE: succeeds if both are equal; prints the differences if not.
same() {
	diff "$1" "$2" >/tmp/diff || {
		head -n 10 /tmp/diff | sed 's/^/# /'
		return 1
	}
}

# timeless_entries FILE: prints the entries without their timeouts.
timeless_entries() {
	sed -E 's/^([a-z]+ +[0-9]+) [0-9]+/\1/' "$1"
}

# timeless_events FILE: prints the events without the timeouts in them.
timeless_events() {
	sed -E 's/^ *\[([A-Z]+)\]/\1/; s/([a-z]+ +[0-9]+) [0-9]+ /\1 /' "$1"
}

# timeouts FILE: prints only the timeouts of the entries.
timeouts() {
	awk '{ print $3 }' "$1"
}

# What all cases compare: the same packets, with the lookup off (0) and on (1).
play 0
play 1
for file in 0 1; do
	timeless_entries "/tmp/entries.$file" >"/tmp/entries-timeless.$file"
	timeouts "/tmp/entries.$file" >"/tmp/timeouts.$file"
	timeless_events "/tmp/events.$file" >"/tmp/events-timeless.$file"
done

test_packets_are_found_only_with_the_lookup_on() {
	check 'lookup off: no hits' is "${HITS[0]}" 0
	check 'lookup on: many hits' [ "${HITS[1]}" -ge $((COUNT / 10)) ]
}

test_entries_are_the_same() {
	check 'there are TCP and UDP connections' eval \
		'[ "$(grep -c "^tcp" /tmp/entries.0)" -ge 5 ] &&
		[ "$(grep -c "^udp" /tmp/entries.0)" -eq 2 ]'
	check 'entries, states, packets and bytes are the same' \
		same /tmp/entries-timeless.0 /tmp/entries-timeless.1
	check 'packets and bytes are counted' \
		grep -q 'packets=[1-9].*bytes=[1-9]' /tmp/entries-timeless.1
	check 'timeouts are the same, apart from the time of reading' eval \
		'paste /tmp/timeouts.0 /tmp/timeouts.1 | awk -v slow="$SLOW" "
			{ d = \$1 - \$2; if (d < 0) d = -d }
			d > 15 * slow { print \"# \" \$0; bad = 1 }
			END { exit bad }"'
}

test_events_are_the_same() {
	check 'events are the same, in the same order' \
		same /tmp/events-timeless.0 /tmp/events-timeless.1
	check 'the events include NEW and UPDATE' eval \
		'grep -q NEW /tmp/events-timeless.1 && grep -q UPDATE /tmp/events-timeless.1'
}

# The flows are those of the last play.
test_no_references_remain() {
	forget_flows
	check 'no references remain' no_references
}

run_cases
