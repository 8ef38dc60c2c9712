# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The same random packets with and without jumps: the frames that leave, the counters of IP, of the
# devices and of the connection.
#
# COUNT: how many packets each play has; SEED: of their contents; SPORT, DPORT: the client's and the
# server's port; LEVELS: the values of the sysctl `jump'.

COUNT=150
SEED=${NFZR_SEED:-$RANDOM}
SPORT=4500
DPORT=77
LEVELS=(1 2)
JUMPED=()
# The client's addresses, and the router's on the device C1 to which c sends by C0.
C0=c0 C1=c1
CLIENT=10.0.1.2 GATEWAY=10.0.1.1 CLIENT6=fd00:1::2 GATEWAY6=fd00:1::1

# lasting NS DEV ADDR OF-NS OF-DEV: a neighbour that is never probed.
lasting() {
	ip -n "$1" neigh replace "$3" dev "$2" lladdr "$(mac_of "$4" "$5")" nud permanent
}

# lasting_client: such neighbours between c and r, unless the devices have no addresses.
lasting_client() {
	[ -n "$(mac_of r "$C1")" ] || return 0
	lasting r "$C1" "$CLIENT" c "$C0"
	lasting c "$C0" "$GATEWAY" r "$C1"
	lasting r "$C1" "$CLIENT6" c "$C0"
	lasting c "$C0" "$GATEWAY6" r "$C1"
}

# exact_router: a router that receives no other packets than those of the test.
exact_router() {
	local addr dev ns
	router
	six_router
	echo "# seed $SEED"
	lasting_client
	for addr in 10.0.2. fd00:2::; do
		lasting r s1 "${addr}2" s s0
		lasting s s0 "${addr}1" r s1
	done
	for dev in c.c0 d.d0 s.s0 s.t0; do
		in_ns "${dev%.*}" sysctl -qw "net.ipv6.conf.${dev#*.}.router_solicitations=0"
	done
	# All neighbours of the packets last, so no host need ask.
	for ns in c d s; do
		in_ns "$ns" nft -f - <<-'END'
			table ip6 quiet {
				chain out {
					type filter hook output priority raw
					meta l4proto icmpv6 drop
				}
			}
		END
	done
	in_ns r sysctl -qw net.netfilter.nf_conntrack_acct=1 net.nf_zoneroute.jump_mark=0x100 \
		net.nf_zoneroute.jump_mask=0x100
}

# nat KIND: loads the rules of a kind of NAT, and those that set the mark.
nat() {
	local snat4='' snat6='' dnat4='' dnat6=''
	case $1 in
	snat | both) snat4='snat ip to 10.0.2.1:6000' snat6='snat ip6 to [fd00:2::1]:6000' ;;
	masquerade) snat4=masquerade snat6=masquerade ;;
	esac
	case $1 in
	dnat | both) dnat4="dnat ip to $SERVER:$DPORT" dnat6="dnat ip6 to [$SERVER6]:$DPORT" ;;
	esac
	in_ns r nft -f - <<-END
		table inet exact
		delete table inet exact
		table inet exact {
			chain forward {
				type filter hook forward priority filter
				ct state established ct mark set ct mark or 0x100
			}
			chain in {
				type nat hook prerouting priority dstnat
				ip daddr $GATEWAY meta l4proto { tcp, udp } th dport 99 $dnat4
				ip6 daddr $GATEWAY6 meta l4proto { tcp, udp } th dport 99 $dnat6
			}
			chain out {
				type nat hook postrouting priority srcnat
				meta nfproto ipv4 meta l4proto { tcp, udp } oifname s1 $snat4
				meta nfproto ipv6 meta l4proto { tcp, udp } oifname s1 $snat6
			}
		}
	END
}

# tuples FAMILY KIND: prints the tuple of the original direction at c, and at s.
tuples() {
	local src=$CLIENT sport=$SPORT dst=$SERVER dport=$DPORT at_c
	[ "$1" = 4 ] || src=$CLIENT6 dst=$SERVER6
	at_c="$src $sport $dst $dport"
	case $2 in
	snat | both) src=10.0.2.1 sport=6000 ;;
	masquerade) src=10.0.2.1 ;;
	esac
	[ "$1" = 4 ] || src=${src/10.0.2.1/fd00:2::1}
	case $2-$1 in
	dnat-4 | both-4) at_c="$CLIENT $sport $GATEWAY 99" ;;
	dnat-6 | both-6) at_c="$CLIENT6 $sport $GATEWAY6 99" ;;
	esac
	case $2 in both) at_c=${at_c/ 6000 / $SPORT } ;; esac
	printf '%s\n%s\n' "$at_c" "$src $sport $dst $dport"
}

# ip_counters: prints the counters of IP and of the devices in r.
ip_counters() {
	in_ns r awk '
		/^Ip(Ext)?:/ && !($1 in names) { names[$1] = $0; next }
		/^Ip(Ext)?:/ { n = split(names[$1], name); for (i = 2; i <= n; i++) print name[i], $i }
		/^Ip6/ && !/Mcast|Reasm/ { print }
		/^ *([cs]1|k):/ { print $1, $2, $3, $10, $11 }' \
		/proc/net/snmp /proc/net/netstat /proc/net/snmp6 /proc/net/dev
}

# difference BEFORE: prints by how much the counters have risen since BEFORE.
difference() {
	printf '%s\n' "$1" >/tmp/before
	ip_counters | paste -d ' ' /tmp/before - | awk '
		NF == 4 { print $1, $4 - $2 }
		NF == 10 { print $1, $7 - $2, $8 - $3, $9 - $4, $10 - $5 }'
}

# connection PROTO: prints the packets and bytes of the connection.
connection() {
	local family
	for family in ipv4 ipv6; do
		in_ns r conntrack -L -f "$family" -p "$1" 2>/dev/null |
			sed -n "/sport=$SPORT /s/ /\n/gp" | sed -n '/^packets=/p; /^bytes=/p'
	done
}

# play NAME FAMILY KIND PROTO DIRECTION: sends the packets, and writes the frames that arrive and the
# counters to files of that name.
play() {
	local at before
	at=$(tuples "$2" "$3")
	forget_flows
	before=$(ip_counters)
	in_ns r python3 tools/exact.py "$4" "$5" "$COUNT" "$SEED" "$C0" "$(mac_of r "$C1")" "$(mac_of r s1)" \
		"${at%$'\n'*}" "${at#*$'\n'}" >"/tmp/frames.$1"
	difference "$before" >"/tmp/counters.$1"
	connection "$4" >"/tmp/connection.$1"
}

# jumped LEVEL: prints how many packets have jumped, with jump=2 at ingress.
jumped() {
	stat_of "$([ "$1" = 1 ] && echo jumped || echo jumped_at_ingress)"
}

# play_all WHAT PLAY-ARGUMENT...: plays without jumps and with each of LEVELS, on new connections. Sets
# JUMPED to how many packets jumped with each.
play_all() {
	local level before
	SPORT=$((SPORT + 1))
	in_ns r sysctl -qw net.nf_zoneroute.jump=0
	play 0 "${@:2}"
	for level in "${LEVELS[@]}"; do
		in_ns r sysctl -qw net.nf_zoneroute.jump="$level"
		before=$(jumped "$level")
		play "$level" "${@:2}"
		JUMPED[level]=$(($(jumped "$level") - before))
		echo "# $1 jump=$level: ${JUMPED[level]} jumped"
	done
}

# have_same_counters: succeeds if the counters of IP are those without jumps.
have_same_counters() {
	local level
	for level in "${LEVELS[@]}"; do
		cmp -s /tmp/counters.0 "/tmp/counters.$level" || return 1
	done
}

# compare WHERE FAMILY KIND PROTO DIRECTION: makes five checks for each level.
compare() {
	local what="$1$4, IPv$2, $3, $5" level try
	# Hosts also send packets of their own, as multicast listeners do. If the counters differ because
	# of these, they are the same another time.
	for try in 1 2 3; do
		play_all "$what" "${@:2}"
		! have_same_counters || break
		echo "# $what: the counters of IP differ, try $try"
	done
	for level in "${LEVELS[@]}"; do
		what="jump=$level: $1$4, IPv$2, $3, $5"
		check "$what: most packets jump" [ "${JUMPED[level]}" -gt $((COUNT / 2)) ]
		awk '/lost/ { print "# " $0 }' "/tmp/frames.$level"
		check "$what: no packet is lost" eval "! grep -q lost /tmp/frames.$level"
		check "$what: the frames are the same" cmp /tmp/frames.0 "/tmp/frames.$level"
		check "$what: the counters of IP are the same" diff /tmp/counters.0 "/tmp/counters.$level"
		check "$what: those of the connection are the same" eval \
			"[ -s /tmp/connection.$level ] && diff /tmp/connection.0 /tmp/connection.$level"
	done
}
