# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Readings of /proc and of conntrack.

# agree NS: succeeds if ct_references equals the number of listed flows, and dst_references is at
# least the number of listed routes and at most two per direction, or three where packets jump. (The
# second route of a direction has a line without hits.)
agree() {
	local directions routes flows slots
	read -r directions routes <<<"$(shown routes "$1" | awk '
		!/ state=none / { routes++ }
		!/ hits=- / { directions++ }
		END { print directions + 0, routes + 0 }')"
	flows=$(stat_of ct_references "$1") slots=$(stat_of dst_references "$1")
	[ "$flows" -eq $((directions / 2)) ] && [ "$slots" -ge "$routes" ] &&
		[ "$slots" -le $((directions * ($(stat_of jump_learned "$1") ? 3 : 2))) ]
}

# After every script, in every netns: the reference counts match the listed flows and routes, and
# all references are dropped with their connections. (A netns with more than `many` references is
# skipped, because listing them takes too long.)
references_agree() {
	local ns many=50000 status=0
	[ -d /sys/module/nf_zoneroute ] || return 0
	for ns in "${!HOLDER[@]}"; do
		[ -e "/proc/${HOLDER[$ns]}/net/nf_zoneroute/stats" ] || continue
		[ "$(stat_of ct_references "$ns")" -le "$many" ] || continue
		if ! until_true 10 agree "$ns"; then
			echo "not ok - references held in $ns: $(shown stats "$ns" | grep references | xargs), $(shown routes "$ns" | wc -l) lines of routes"
			status=1
		fi
		in_ns "$ns" conntrack -F >/dev/null 2>&1 || true
		in_ns "$ns" conntrack -F -f ipv6 >/dev/null 2>&1 || true
		if ! until_true 10 eval '[ "$(stat_of ct_references "$ns") $(stat_of dst_references "$ns")" = "0 0" ]'; then
			echo "not ok - references left in $ns: $(shown stats "$ns" | grep references | xargs)"
			status=1
		fi
	done
	return "$status"
}

forget_flows() {
	in_ns r conntrack -F >/dev/null 2>&1 || true
	in_ns r conntrack -F -f ipv6 >/dev/null 2>&1 || true
	until_true 10 no_references
}

no_references() {
	[ "$(stat_of ct_references)" = 0 ] && [ "$(stat_of dst_references)" = 0 ]
}

# shown FILE [NS]: prints a file of /proc/net/nf_zoneroute.
shown() {
	local ns=${2:-r}
	if [ -n "${HOLDER[$ns]-}" ]; then
		cat "/proc/${HOLDER[$ns]}/net/nf_zoneroute/$1"
	else
		in_ns "$ns" cat "/proc/net/nf_zoneroute/$1"
	fi
}

# stat_of NAME [NS]: prints a counter of /proc/net/nf_zoneroute/stats.
stat_of() {
	local name count ns=${2:-r} file
	file=/proc/${HOLDER[$ns]-none}/net/nf_zoneroute/stats
	if [ ! -r "$file" ]; then
		in_ns "$ns" cat /proc/net/nf_zoneroute/stats >/tmp/stats
		file=/tmp/stats
	fi
	while read -r name count; do
		if [ "$name" = "$1" ]; then
			echo "$count"
			return 0
		fi
	done <"$file"
	return 1
}

# gained NAME COMMAND...: prints by how much COMMAND increased a counter; its output goes to stderr.
gained() {
	local name=$1 before
	shift
	before=$(stat_of "$name")
	"$@" >&2
	echo $(($(stat_of "$name") - before))
}

# misses REASON COUNT COMMAND...: succeeds if COMMAND makes COUNT packets miss for REASON, or fewer,
# if the others are limited: if several come in a jiffy, the route is looked up for the first only.
misses() {
	local reason=$1 count=$2 limited missed
	shift 2
	limited=$(stat_of miss_limited)
	missed=$(gained "miss_$reason" "$@" 2>/dev/null)
	limited=$(($(stat_of miss_limited) - limited))
	if [ "$missed" = 0 ] || [ "$missed" -gt "$count" ] || [ $((missed + limited)) -lt "$count" ]; then
		is "$missed, and $limited limited" "$count"
	fi
}

# jiffies: prints the kernel's jiffies.
jiffies() {
	awk '$1 == "jiffies:" { print $2; exit }' /proc/timer_list
}

# mismatches: prints the sum of verify mode's mismatch counters.
mismatches() {
	shown stats | awk '/^mismatch_/ { sum += $2 } END { print sum }'
}

# ct_stat NAME: prints one of conntrack's own counters in r, summed over the CPUs.
ct_stat() {
	in_ns r conntrack -S 2>/dev/null | tr ' ' '\n' |
		awk -F= -v name="$1" '$1 == name { sum += $2 } END { print sum + 0 }'
}

# zone ID FIELD: prints a field of a zone in r; "none" if there is no such zone.
zone() {
	local value
	value=$(shown zones | sed -n "s/^zone=$1 \(.* \)\?$2=\([^ ]*\).*/\2/p")
	echo "${value:-none}"
}

# found COMMAND...: prints how many packets of COMMAND were found in their zone. The packet that
# makes a UDP connection ASSURED, two seconds after its first, counts as found.
found() {
	local before after
	before=$(($(stat_of lookup_hit) + $(stat_of lookup_miss_assuring)))
	"$@" >&2
	after=$(($(stat_of lookup_hit) + $(stat_of lookup_miss_assuring)))
	echo $((after - before))
}

# routes PATTERN...: prints the lines of routes that contain every pattern; fails if there are none.
routes() {
	local lines
	lines=$(shown routes | awk -v words="$(printf '%s\n' "$@")" '
		BEGIN { n = split(words, word, "\n") }
		{ for (i = 1; i <= n; i++) if (!index($0, word[i])) next; print }')
	[ -n "$lines" ] && printf '%s\n' "$lines"
}

# field NAME: prints a field of the line on standard input.
field() {
	tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}
