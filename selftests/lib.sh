# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every selftest shares: KTAP, the router that most of them use, and readings of /proc.
# Sourced in the guest, by a script that says `plan N` first and then makes N checks.
#
#   c (10.0.1.2) --- c1 r ---+--- s1: 10.0.2.0/24 --- s0 s   (path A)
#   d (10.0.4.2) --- d1   \--+--- t1: 10.0.3.0/24 --- t0     (path B)
#                                            10.9.9.9 is on s's loopback
#
# r routes 10.9.9.9 by path A. s counts what comes to it by s0 and by t0.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

SERVER=10.9.9.9
PORT=7
# A port of s that swallows what comes.
# shellcheck disable=SC2034
SINK=11
CHECKS=0
JOBS=()

# The debug kernel takes its time: what is waited for may take so many times longer, and what is done
# many times over is done so many times less.
SLOW=1
case $(uname -r) in *-debug) SLOW=4 ;; esac

# What a check that failed leaves behind for its reader.
FAILED=0

plan() {
	PLAN=$1
	echo "1..$PLAN"
	trap finish EXIT
	set -o errtrace
	trap 'echo "# ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR
}

ok() {
	CHECKS=$((CHECKS + 1))
	echo "ok $CHECKS - $*"
}

not_ok() {
	CHECKS=$((CHECKS + 1))
	FAILED=1
	echo "not ok $CHECKS - $*"
}

skip() {
	CHECKS=$((CHECKS + 1))
	echo "ok $CHECKS - $1 # SKIP $2"
}

# check NAME COMMAND...: one test, which passes if the command does.
check() {
	local name=$1
	shift
	if "$@"; then
		ok "$name"
	else
		not_ok "$name"
		printf '# failed: %s\n' "$*"
		show_state
	fi
}

# is ACTUAL EXPECTED: equal; says so if not.
is() {
	[ "$1" = "$2" ] || {
		printf '# is %s, expected %s\n' "$1" "$2"
		return 1
	}
}

show_state() {
	shown stats 2>/dev/null | sed '/ 0$/d; s/^/# /' || true
	shown routes 2>/dev/null | sed 's/^/# /; 12q' || true
}

# What a script must undo whatever becomes of it; it defines its own.
at_end() {
	:
}

# end_jobs PID...
end_jobs() {
	local job
	for job; do
		kill "$job" 2>/dev/null || true
		kill -CONT "$job" 2>/dev/null || true
		# For these alone: an rmmod that hangs cannot be waited for.
		wait "$job" 2>/dev/null || true
	done
}

# agree NS: each flow that is listed holds a connection, and nothing else does; each route that is
# shown is held, and no more than two of a direction.
agree() {
	local lines routes flows slots
	read -r lines routes <<<"$(shown routes "$1" | awk '!/ state=none / { routes++ } END { print NR, routes + 0 }')"
	flows=$(stat_of ct_references "$1") slots=$(stat_of dst_references "$1")
	[ "$flows" -eq $((lines / 2)) ] && [ "$slots" -ge "$routes" ] && [ "$slots" -le $((2 * lines)) ]
}

# After every script, in every netns: what is held is what is listed, and all is let go with its
# connections. (But for the largest numbers, which take their time to be listed.)
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

finish() {
	local status=$?
	at_end
	end_jobs "${JOBS[@]}"
	[ "$status" -ne 0 ] || references_agree || status=1
	end_jobs "${HOLDER[@]}"
	rm -f /tmp/agent.*
	for ns in $(ip netns list | awk '{ print $1 }'); do
		ip netns del "$ns"
	done
	if [ "$status" -ne 0 ]; then
		echo "# the script ended early with status $status"
	fi
	[ "$status" -ne 0 ] || [ "$CHECKS" -eq "$PLAN" ] || status=1
	[ "$status" -ne 0 ] || status=$FAILED
	exit "$status"
}

# until_true SECONDS COMMAND...: poll.
until_true() {
	local limit=$((SECONDS + $1 * SLOW))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$limit" ] || return 1
		sleep 0.05
	done
}

# in_ns NS COMMAND...: with the network of NS, but /sys as it is. (`ip netns exec` takes its time.)
in_ns() {
	nsenter --net="/run/netns/$1" "${@:2}"
}

# background NS COMMAND...: run until the script ends.
background() {
	# exec: what is killed in the end must be the command, not a shell around it.
	(exec nsenter --net="/run/netns/$1" "${@:2}") >/dev/null 2>&1 &
	JOBS+=($!)
}

load() {
	insmod /nf_zoneroute/nf_zoneroute.ko "$@"
}

unload() {
	rmmod nf_zoneroute
}

# What stays in a netns, so that others can look at its /proc/net without going there.
declare -A HOLDER=()

make_ns() {
	local ns
	for ns; do
		ip netns add "$ns"
		background "$ns" sleep infinity
		HOLDER[$ns]=${JOBS[-1]}
		unset 'JOBS[-1]'
		until_true 10 test "/proc/${HOLDER[$ns]}/ns/net" -ef "/run/netns/$ns"
		ip -n "$ns" link set lo up
		# No duplicate address detection, no router solicitations: no packets but the test's.
		in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
	done
}

# link NS DEV ADDR PEER-NS PEER-DEV PEER-ADDR
link() {
	ip link add "$2" netns "$1" type veth peer name "$5" netns "$4"
	ip -n "$1" addr add "$3" dev "$2"
	ip -n "$4" addr add "$6" dev "$5"
	ip -n "$1" link set "$2" up
	ip -n "$4" link set "$5" up
}

# agent NS...: a process that `traffic` has do its work there.
agent() {
	local ns
	for ns; do
		mkfifo "/tmp/agent.$ns.in" "/tmp/agent.$ns.out"
		background "$ns" python3 traffic.py agent "/tmp/agent.$ns.in" "/tmp/agent.$ns.out"
	done
}

# traffic NS ARGUMENT...: what traffic.py does with them, and prints.
traffic() {
	local ns=$1 answer
	shift
	if [ -p "/tmp/agent.$ns.in" ]; then
		printf '%s\n' "$*" >"/tmp/agent.$ns.in"
		read -r answer <"/tmp/agent.$ns.out"
		printf '%s\n' "$answer"
	else
		in_ns "$ns" python3 traffic.py "$@"
	fi
}

# mac_of NS DEV: the link-layer address of a device.
mac_of() {
	ip -n "$1" -o link show dev "$2" | sed 's/.*link\/ether \([0-9a-f:]*\).*/\1/'
}

# The router of the picture above, tracking connections, with old age out of the way.
router() {
	make_ns c d r s
	agent c d
	link c c0 10.0.1.2/24 r c1 10.0.1.1/24
	link d d0 10.0.4.2/24 r d1 10.0.4.1/24
	link s s0 10.0.2.2/24 r s1 10.0.2.1/24
	link s t0 10.0.3.2/24 r t1 10.0.3.1/24
	ip -n s addr add "$SERVER/32" dev lo
	ip -n c route add default via 10.0.1.1
	ip -n d route add default via 10.0.4.1
	ip -n s route add default via 10.0.2.1
	ip -n r route add "$SERVER" via 10.0.2.2
	in_ns r sysctl -qw net.ipv4.ip_forward=1
	for ns in r s; do
		in_ns "$ns" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
	done
	in_ns r sysctl -qw net.nf_zoneroute.max_age_ms=60000
	track
	in_ns s nft -f - <<-'END'
		table ip count {
			counter by_a {}
			counter by_b {}
			chain pre {
				type filter hook prerouting priority raw
				ip daddr 10.9.9.9 meta l4proto udp iifname "s0" counter name by_a
				ip daddr 10.9.9.9 meta l4proto udp iifname "t0" counter name by_b
				udp dport 11 drop
			}
		}
	END
	# Neighbours known, so that no packet waits for one.
	in_ns c ping -q -c 1 10.0.2.2 >/dev/null
	in_ns d ping -q -c 1 10.0.3.2 >/dev/null
	in_ns r ping -q -c 1 -I t1 10.0.3.2 >/dev/null
	# What the set-up itself set going. Where it stays, the checks find it.
	forget_flows || echo '# the flows of the set-up stay'
}

# The same router's IPv6: fd00:1::2, fd00:4::2 and fd00:9::9, by way of fd00:2::/64 (path A) and
# fd00:3::/64 (path B).
SERVER6=fd00:9::9
six_router() {
	local ns
	for ns in c d r s; do
		in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.accept_dad=0 \
			net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0 \
			net.ipv6.conf.all.keep_addr_on_down=1
		# A flow label is a socket's, not a connection's: but for that, another socket's packet is as good.
		in_ns "$ns" sysctl -qw net.ipv6.auto_flowlabels=0
	done
	in_ns r sysctl -qw net.ipv6.conf.all.forwarding=1
	ip -n c -b - <<-END
		addr add fd00:1::2/64 dev c0 nodad
		route add default via fd00:1::1
	END
	ip -n d -b - <<-END
		addr add fd00:4::2/64 dev d0 nodad
		route add default via fd00:4::1
	END
	ip -n s -b - <<-END
		addr add fd00:2::2/64 dev s0 nodad
		addr add fd00:3::2/64 dev t0 nodad
		addr add $SERVER6/128 dev lo nodad
		route add default via fd00:2::1
	END
	ip -n r -b - <<-END
		addr add fd00:1::1/64 dev c1 nodad
		addr add fd00:4::1/64 dev d1 nodad
		addr add fd00:2::1/64 dev s1 nodad
		addr add fd00:3::1/64 dev t1 nodad
		route add $SERVER6 via fd00:2::2 dev s1
	END
	in_ns s nft -f - <<-'END'
		table ip6 sink {
			chain pre {
				type filter hook prerouting priority raw
				udp dport 11 drop
			}
		}
	END
	in_ns r nft -f - <<-'END'
		table ip6 firewall {
			chain forward {
				type filter hook forward priority filter; policy accept;
				ct state invalid counter drop
				ct state new counter accept
			}
		}
	END
	until_true 10 in_ns c ping -6 -q -c 1 -W 1 fd00:2::2
	until_true 10 in_ns r ping -6 -q -c 1 -W 1 fd00:3::2
	forget_flows || echo '# the flows of the set-up stay'
}

# Two tenants with the same addresses, behind one router, and a server for each, also with the same:
#
#   c (10.0.1.2) --- c1 r s1 --- s (10.9.9.9)
#   d (10.0.1.2) --- d1 r t1 --- t (10.9.9.9)
#
# and so with fd00:1::2 and fd00:9::9. r routes by the device; the caller gives each a zone.
twins() {
	local ns link other table=1
	make_ns c d r s t
	agent c d
	for ns in c d r s t; do
		in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.accept_dad=0 \
			net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0
	done
	in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
		net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
		net.nf_zoneroute.max_age_ms=60000
	for link in 'c c1 s s1' 'd d1 t t1'; do
		read -ra link <<<"$link"
		ns=${link[0]} other=${link[2]}
		link "$ns" c0 10.0.1.2/24 r "${link[1]}" 10.0.1.1/24
		link "$other" s0 10.0.2.2/24 r "${link[3]}" 10.0.2.1/24
		ip -n "$ns" -b - <<-END
			addr add fd00:1::2/64 dev c0 nodad
			route add default via 10.0.1.1
		END
		ip -n r -b - <<-END
			addr add fd00:1::1/64 dev ${link[1]} nodad
			addr add fd00:2::1/64 dev ${link[3]} nodad
			route add 10.0.1.0/24 dev ${link[1]} table $table
			route add $SERVER via 10.0.2.2 dev ${link[3]} table $table
			rule add iif ${link[1]} lookup $table pref 10$table
			rule add iif ${link[3]} lookup $table pref 11$table
		END
		ip -n r -6 -b - <<-END
			route add fd00:1::/64 dev ${link[1]} table $table
			route add fd00:2::/64 dev ${link[3]} table $table
			route add $SERVER6 via fd00:2::2 dev ${link[3]} table $table
			rule add iif ${link[1]} lookup $table pref 10$table
			rule add iif ${link[3]} lookup $table pref 11$table
		END
		ip -n "$other" -b - <<-END
			addr add $SERVER/32 dev lo
			addr add $SERVER6/128 dev lo nodad
			addr add fd00:2::2/64 dev s0 nodad
			route add default via 10.0.2.1
		END
		ip -n "$ns" -6 route add default via fd00:1::1
		ip -n "$other" -6 route add default via fd00:2::1
		for proto in udp tcp; do
			background "$other" python3 traffic.py echo "$proto" "$SERVER" "$PORT" --name "$other"
			background "$other" python3 traffic.py echo "$proto" "$SERVER6" "$PORT" --name "$other"
		done
		table=$((table + 1))
	done
	for ns in s t; do
		until_true 10 eval "in_ns $ns grep -q ':0007 ' /proc/net/udp && in_ns $ns grep -q ':0007 ' /proc/net/udp6 &&
			in_ns $ns grep -q ':0007 ' /proc/net/tcp && in_ns $ns grep -q ':0007 ' /proc/net/tcp6"
	done
}

# twin NS PROTO ADDR NAME COUNT [OPTION...]: COUNT requests of a tenant, to be answered by the server
# of that name; prints how many were.
twin() {
	traffic "$1" ask "$2" "$3" "$PORT" "$5" --name "$4" "${@:6}" | sed 's/^sent=[0-9]* answered=//'
}

# Connection tracking in r, by a rule as operators have it.
track() {
	in_ns r nft -f - <<-'END'
		table ip firewall {
			chain forward {
				type filter hook forward priority filter; policy accept;
				ct state invalid counter drop
				ct state new counter accept
			}
		}
	END
}

forget_flows() {
	in_ns r conntrack -F >/dev/null 2>&1 || true
	in_ns r conntrack -F -f ipv6 >/dev/null 2>&1 || true
	until_true 10 no_references
}

no_references() {
	[ "$(stat_of ct_references)" = 0 ] && [ "$(stat_of dst_references)" = 0 ]
}

# ipsec FROM-NS FROM TO-NS TO DIRECTION-IN: what FROM sends to the server reaches TO by ESP.
ipsec() {
	local key=0x0123456789abcdef0123456789abcdef01234567 all=0.0.0.0/0 server=$SERVER ns
	[[ $2 != *:* ]] || all=::/0 server=$SERVER6
	for ns in "$1" "$3"; do
		ip -n "$ns" xfrm state add src "$2" dst "$4" proto esp spi 100 mode tunnel \
			auth 'hmac(sha1)' "$key" enc 'ecb(cipher_null)' ''
	done
	ip -n "$1" xfrm policy add src "$all" dst "$server" dir out \
		tmpl src "$2" dst "$4" proto esp mode tunnel
	ip -n "$3" xfrm policy add src "$all" dst "$server" dir "$5" \
		tmpl src "$2" dst "$4" proto esp mode tunnel level use
}

no_ipsec() {
	local ns
	for ns; do
		ip -n "$ns" xfrm policy flush
		ip -n "$ns" xfrm state flush
	done
}

# decrypted NS: how many packets it got by ESP.
decrypted() {
	ip -n "$1" -s xfrm state | grep -A1 'lifetime current' | grep -o '[0-9]*(packets)' | tr -dc 0-9
}

# serve PROTO: answers on SERVER.
serve() {
	background s python3 traffic.py echo "$1" "$SERVER" "$PORT"
	case $1 in
	udp) until_true 10 in_ns s grep -q ':0007 ' /proc/net/udp ;;
	tcp) until_true 10 in_ns s grep -q ':0007 ' /proc/net/tcp ;;
	*) until_true 10 in_ns s grep -q '09090' /proc/net/raw ;;
	esac
}

# ask NS PROTO COUNT [OPTION...]: requests to SERVER; prints how many were answered.
ask() {
	local ns=$1 proto=$2 count=$3
	shift 3
	traffic "$ns" ask "$proto" "$SERVER" "$PORT" "$count" "$@" | sed 's/.*answered=//'
}

# shown FILE [NS]: what is in a file of /proc/net/nf_zoneroute.
shown() {
	local ns=${2:-r}
	if [ -n "${HOLDER[$ns]-}" ]; then
		cat "/proc/${HOLDER[$ns]}/net/nf_zoneroute/$1"
	else
		in_ns "$ns" cat "/proc/net/nf_zoneroute/$1"
	fi
}

# stat_of NAME [NS]: a counter of /proc/net/nf_zoneroute/stats.
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

# gained NAME COMMAND...: how much a counter grew over a command, whose output goes to stderr.
gained() {
	local name=$1 before
	shift
	before=$(stat_of "$name")
	"$@" >&2
	echo $(($(stat_of "$name") - before))
}

# mismatches: what verify mode found wrong, all in all.
mismatches() {
	shown stats | awk '/^mismatch_/ { sum += $2 } END { print sum }'
}

# ct_stat NAME: one of conntrack's own counters in r.
ct_stat() {
	in_ns r conntrack -S 2>/dev/null | tr ' ' '\n' |
		awk -F= -v name="$1" '$1 == name { sum += $2 } END { print sum + 0 }'
}

# zone ID FIELD: of r's zones; "none": there is no such zone.
zone() {
	local value
	value=$(shown zones | sed -n "s/^zone=$1 \(.* \)\?$2=\([^ ]*\).*/\2/p")
	echo "${value:-none}"
}

# found COMMAND...: how many packets of a command were found in their zone, but for the one that made a
# UDP connection ASSURED, two seconds after its first.
found() {
	local before after
	before=$(($(stat_of lookup_hit) + $(stat_of lookup_miss_assuring)))
	"$@" >&2
	after=$(($(stat_of lookup_hit) + $(stat_of lookup_miss_assuring)))
	echo $((after - before))
}

# routes PATTERN...: the lines of /proc/net/nf_zoneroute/routes that have every word.
routes() {
	local lines
	lines=$(shown routes | awk -v words="$(printf '%s\n' "$@")" '
		BEGIN { n = split(words, word, "\n") }
		{ for (i = 1; i <= n; i++) if (!index($0, word[i])) next; print }')
	[ -n "$lines" ] && printf '%s\n' "$lines"
}

# field NAME: of the line on standard input.
field() {
	tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# arrived by_a|by_b: packets that came to the server by a path.
arrived() {
	local counter
	counter=$(in_ns s nft list counter ip count "$1")
	counter=${counter#*packets }
	echo "${counter%% *}"
}
