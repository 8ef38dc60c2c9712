# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The networks: netns, veth pairs, routers and what they are configured with.
#
#   c (10.0.1.2) --- c1 r ---+--- s1: 10.0.2.0/24 --- s0 s   (path A)
#   d (10.0.4.2) --- d1   \--+--- t1: 10.0.3.0/24 --- t0     (path B)
#                                            10.9.9.9 is on s's loopback
#
# r routes 10.9.9.9 by path A. s counts the UDP packets to it that arrive on s0 and on t0.

SERVER=10.9.9.9
# The same server with IPv6.
SERVER6=fd00:9::9
PORT=7
# A UDP port on which s drops every packet.
# shellcheck disable=SC2034
SINK=11

# PID of a process that stays in each netns: /proc/PID/net is readable without entering the netns.
declare -A HOLDER=()

# in_ns NS COMMAND...: runs COMMAND in netns NS, with /sys unchanged. (`ip netns exec` is slow.)
in_ns() {
	nsenter --net="/run/netns/$1" "${@:2}"
}

# background NS COMMAND...: runs COMMAND in netns NS until the script ends.
background() {
	# exec: the PID that is killed at the end must be the command's, not a shell's around it.
	(exec nsenter --net="/run/netns/$1" "${@:2}") >/dev/null 2>&1 &
	JOBS+=($!)
}

# load [PARAMETER=VALUE...]: loads the module, with the parameters of PARAMETERS and those given.
PARAMETERS=()
load() {
	insmod /nf_zoneroute/nf_zoneroute.ko "${PARAMETERS[@]}" "$@"
}

unload() {
	rmmod nf_zoneroute
}

# udp_timeouts NS SECONDS STREAM-SECONDS: sets after how long without packets UDP connections expire.
udp_timeouts() {
	in_ns "$1" sysctl -qw "net.netfilter.nf_conntrack_udp_timeout=$2" \
		"net.netfilter.nf_conntrack_udp_timeout_stream=$3"
}

# make_ns NS...: creates netns, with UDP timeouts that also a busy machine does not reach.
make_ns() {
	local ns
	for ns; do
		ip netns add "$ns"
		background "$ns" sleep infinity
		HOLDER[$ns]=${JOBS[-1]}
		unset 'JOBS[-1]'
		until_true 10 test "/proc/${HOLDER[$ns]}/ns/net" -ef "/run/netns/$ns"
		ip -n "$ns" link set lo up
		# Without duplicate address detection and router solicitations, all packets are the
		# test's.
		in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
		udp_timeouts "$ns" 600 700
	done
}

# link NS DEV ADDR PEER-NS PEER-DEV PEER-ADDR: connects two netns by a veth pair.
link() {
	ip link add "$2" netns "$1" type veth peer name "$5" netns "$4"
	ip -n "$1" addr add "$3" dev "$2"
	ip -n "$4" addr add "$6" dev "$5"
	ip -n "$1" link set "$2" up
	ip -n "$4" link set "$5" up
}

# Sets up the router of the picture above, with conntrack and with a max_age_ms too long to matter.
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
	wake
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
	# Resolve the neighbours first, so that no packet of a test waits for one.
	in_ns c ping -q -c 1 10.0.2.2 >/dev/null
	in_ns d ping -q -c 1 10.0.3.2 >/dev/null
	in_ns r ping -q -c 1 -I t1 10.0.3.2 >/dev/null
	# Drop the flows of the set-up. If some remain, the checks will find them.
	forget_flows || echo '# flows of the set-up remain'
}

# Adds IPv6 to the same router: fd00:1::2, fd00:4::2 and fd00:9::9, by way of fd00:2::/64 (path A)
# and fd00:3::/64 (path B).
six_router() {
	local ns
	for ns in c d r s; do
		in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.accept_dad=0 \
			net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0 \
			net.ipv6.conf.all.keep_addr_on_down=1
		# Flow labels differ by socket, not by connection. Without them, packets of another
		# socket will do.
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
	forget_flows || echo '# flows of the set-up remain'
}

# Sets up two tenants with equal addresses behind one router, and one server each, also with equal
# addresses:
#
#   c (10.0.1.2) --- c1 r s1 --- s (10.9.9.9)
#   d (10.0.1.2) --- d1 r t1 --- t (10.9.9.9)
#
# and likewise fd00:1::2 and fd00:9::9. r routes by incoming device; the caller assigns the zones.
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
			background "$other" python3 tools/traffic.py echo "$proto" "$SERVER" "$PORT" --name "$other"
			background "$other" python3 tools/traffic.py echo "$proto" "$SERVER6" "$PORT" --name "$other"
		done
		table=$((table + 1))
	done
	wake
	for ns in s t; do
		until_true 10 eval "in_ns $ns grep -q ':0007 ' /proc/net/udp && in_ns $ns grep -q ':0007 ' /proc/net/udp6 &&
			in_ns $ns grep -q ':0007 ' /proc/net/tcp && in_ns $ns grep -q ':0007 ' /proc/net/tcp6"
	done
}

# Makes the module register its hooks in r, which it does when conntrack is enabled, and disables
# conntrack again. When it is enabled later, its hooks come before those of the module that have the
# same priority. So a connection is confirmed when its first packet makes its flow.
wake() {
	track
	in_ns r nft delete table ip firewall
}

# Enables conntrack in r by firewall rules, as an operator would.
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

# in_xtables NS iptables|ip6tables ARGUMENT...: runs the legacy program in NS, or the one on nf_tables
# if the kernel has no legacy tables.
in_xtables() {
	if [ -z "${XTABLES-}" ]; then
		XTABLES=legacy
		iptables-legacy -t raw -L >/dev/null 2>&1 || XTABLES=nft
	fi
	in_ns "$1" "$2-$XTABLES" "${@:3}"
}

# receive_in_batches NS DEV...: lets devices hand packets over in lists, as most NICs do, by threaded
# NAPI with GRO. A veth device does so if the other end has no TSO.
receive_in_batches() {
	receive on off "$@"
}

# receive_singly NS DEV...: undoes that.
receive_singly() {
	receive off on "$@"
}

# receive GRO TSO NS DEV...: a device in NS is named as the other end's namespace, with a 1. Without
# GRO it has no NAPI.
receive() {
	local gro=$1 tso=$2 ns=$3 dev other
	for dev in "${@:4}"; do
		for other in $(ip -n "${dev%1}" -o link show type veth | sed 's/^[0-9]*: \([^@:]*\).*/\1/'); do
			in_ns "${dev%1}" ethtool -K "$other" tso "$tso" >/dev/null
		done
		in_ns "$ns" ethtool -K "$dev" gro "$gro" >/dev/null
		[ "$gro" = off ] || in_ns "$ns" sh -c "mount -t sysfs sysfs /sys &&
			echo 1 >/sys/class/net/$dev/threaded && umount /sys"
	done
}

# by_napi NS DEV: prints how many packets a veth device has received by NAPI.
by_napi() {
	in_ns "$1" ethtool -S "$2" | awk '/rx_queue_.*_xdp_packets:/ { sum += $2 } END { print sum + 0 }'
}

# ipsec FROM-NS FROM TO-NS TO DIRECTION-IN: sends packets for the server from FROM to TO by ESP.
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

# mac_of NS DEV: prints the Ethernet address of a device, if it has one.
mac_of() {
	ip -n "$1" -o link show dev "$2" | sed -n 's/.*link\/ether \([0-9a-f:]*\).*/\1/p'
}

# synproxy: lets r's SYNPROXY answer TCP clients of port 7, until no_synproxy.
synproxy() {
	in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0
	in_ns r nft -f - <<-'END'
		table ip proxy {
			chain raw {
				type filter hook prerouting priority raw
				tcp dport 7 tcp flags syn notrack
			}
			chain forward {
				type filter hook forward priority -5
				tcp dport 7 ct state invalid,untracked \
					synproxy mss 1460 wscale 7 timestamp sack-perm
				tcp dport 7 ct state invalid drop
			}
		}
	END
}

no_synproxy() {
	in_ns r nft delete table ip proxy
	in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1
}
