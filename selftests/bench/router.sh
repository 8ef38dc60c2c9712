# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The router of the benchmark's scenarios, and its forwarding methods. Sourced, with the name of a
# row and its settings (selftests/bench/rows) as arguments.
#
#   c (c0) --- c1 r s1 --- (s0) s

# In the guest all scripts are in one directory.
. lib/test.sh
# Some of these are for the script that sources this one.
# shellcheck disable=SC2034
ROW=$1
shift
# shellcheck disable=SC2034
proto=udp family=4 flows=100 ports=100 zones=0 rules=0 routes=0 rp_filter=0 chain=2 snat=0 churn=0 quote=0 new=0 lasting=0 forget=0 \
	napi=0 max_age=60000 idle=0 profile='' pair=''
for setting; do
	declare "${setting%%=*}=${setting#*=}"
done
# New connections, and whole systems, find the defaults of the module. In the other rows, connections
# have their flows before the packets are counted.
if [ "$new" != 0 ] || [ "$ROW" = whole ]; then
	PARAMETERS=()
fi
modprobe -a nf_conntrack nf_nat nft_ct nft_nat nft_chain_nat nf_flow_table_inet nft_flow_offload

CLIENTS=$(((flows + ports - 1) / ports))
if [ "$family" = 6 ]; then
	ip6=-6
else
	ip6=-4
fi

# hashsize and limits large enough for the number of flows, the same for all methods.
echo $((flows > 32768 ? flows : 65536)) >/sys/module/nf_conntrack/parameters/hashsize
sysctl -qw net.netfilter.nf_conntrack_max=$((flows * 2 + 400000))
make_ns c r s
link c c0 10.0.1.2/24 r c1 10.0.1.1/24
link s s0 10.0.2.2/24 r s1 10.0.2.1/24
for ns in c r s; do
	in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.accept_dad=0 \
		net.ipv6.conf.default.router_solicitations=0 net.ipv6.conf.all.accept_ra=0
done
in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
	net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.c1.rp_filter="$rp_filter" net.ipv4.conf.s1.rp_filter="$rp_filter"
udp_timeouts r 7200 7200
ip -n r -b - <<-END
	neigh replace 10.0.1.2 lladdr $(mac_of c c0) dev c1 nud permanent
	neigh replace 10.0.2.2 lladdr $(mac_of s s0) dev s1 nud permanent
	addr add fd00:a::1/64 dev c1 nodad
	addr add fd00:b::1/64 dev s1 nodad
	neigh replace fd00:a::2 lladdr $(mac_of c c0) dev c1 nud permanent
	neigh replace fd00:b::2 lladdr $(mac_of s s0) dev s1 nud permanent
	route add 10.1.0.0/16 via 10.0.1.2
	route add $SERVER via 10.0.2.2
	route add fd00:1::/64 via fd00:a::2
	route add $SERVER6 via fd00:b::2
END
[ "$napi" = 0 ] || receive_in_batches r c1 s1
# Other hosts behind the gateway, about which the client sends errors.
if [ "$quote" != 0 ]; then
	ip -n r -b - <<-END
		route add 10.8.0.0/16 via 10.0.2.2
		route add fd00:8::/64 via fd00:b::2
	END
fi
# Rules that no packet matches, before those that match; and routes to other destinations.
if [ "$rules" -gt 0 ]; then
	for i in $(seq "$rules"); do
		if [ "$family" = 6 ]; then
			echo "rule add from fd00:99::$i lookup 100 pref $((1000 + i))"
		else
			echo "rule add from 10.99.$((i / 256)).$((i % 256)) lookup 100 pref $((1000 + i))"
		fi
	done >/tmp/rules
	ip -n r "$ip6" -b /tmp/rules
fi
if [ "$routes" -gt 0 ]; then
	# Prefixes of many lengths, the same in each run; 5 % of them near the packets'
	# destinations.
	python3 - "$routes" >/tmp/routes <<-'END'
		import random, sys
		random.seed(1)
		done = set()
		while len(done) < int(sys.argv[1]):
		    near = random.random() < 0.05
		    length = random.choice((20, 22, 24, 26, 28) if near else (16, 18, 19, 20, 21, 22, 22, 23, 24, 24, 24, 24))
		    first = 10 if near else random.choice([*range(1, 10), *range(11, 127), *range(128, 224)])
		    second = random.randrange(16, 256) if near else random.randrange(256)
		    addr = (first << 24 | second << 16 | random.getrandbits(16)) >> 32 - length << 32 - length
		    if (addr, length) not in done:
		        done.add((addr, length))
		        print(f"route add {addr >> 24}.{addr >> 16 & 255}.{addr >> 8 & 255}.{addr & 255}/{length} via 10.0.2.2")
	END
	ip -n r -b /tmp/routes
fi

# firewall [RULE] [BEFORE]: loads the forward chain, with RULE before the ct state rules and BEFORE
# (a flowtable) before the chain.
firewall() {
	local i
	{
		echo "table inet fw {"
		[ -z "${2-}" ] || echo "$2"
		echo "chain forward { type filter hook forward priority filter; policy drop;"
		for i in $(seq 3 "$chain"); do
			[ "$family" = 6 ] && echo "ip6 saddr fd00:88::$i drop" || echo "ip saddr 192.0.2.$i drop"
		done
		[ -z "${1-}" ] || echo "$1"
		echo "ct state established,related accept"
		echo "ct state new accept"
		printf '}\n}\n'
		if [ "$snat" = 1 ]; then
			echo 'table ip nat { chain post { type nat hook postrouting priority srcnat;
				snat ip prefix to ip saddr map { 10.1.0.0/16 : 10.2.0.0/16 }
			}
			}'
		fi
		if [ "$zones" -gt 0 ]; then
			echo 'table ip zones {'
			echo 'map zones { typeof ip saddr : ct zone; elements = {'
			for i in $(seq 0 $((CLIENTS - 1))); do
				echo "10.1.$(((i + 16) / 256)).$(((i + 16) % 256)) : $((i % zones + 1)),"
			done
			echo '} }
				chain raw { type filter hook prerouting priority raw;
				iifname "c1" ct zone set ip saddr map @zones
				iifname "s1" ct zone set ip daddr map @zones
				}
				}'
		fi
	} >/tmp/firewall
	in_ns r nft -f /tmp/firewall
}

# set_way WAY [again]: configures the router for a method and removes all state of the previous one;
# with `again' connections are kept.
set_way() {
	in_ns r nft flush ruleset
	[ "${2-}" = again ] || in_ns r conntrack -F >/dev/null 2>&1 || true
	case $1 in
	floor)
		in_ns r nft -f - <<-'END'
			table netdev floor {
				chain c { type filter hook ingress device "c1" priority 0; policy drop; }
				chain s { type filter hook ingress device "s1" priority 0; policy drop; }
			}
		END
		;;
	plain | idle) ;;
	conntrack | route | zone | both | off) firewall ;;
	jump | ingress) firewall 'meta l4proto { tcp, udp } ct mark set ct mark or 0x100' ;;
	flowtable | ft_counter)
		[ ! -d /sys/module/nf_zoneroute ] || in_ns r sysctl -qw net.nf_zoneroute.enable=0
		firewall 'meta l4proto { tcp, udp } flow add @ft' \
			"flowtable ft { hook ingress priority 0; devices = { c1, s1 };
				$([ "$1" = flowtable ] || echo counter); }"
		in_ns r sysctl -qw net.netfilter.nf_flowtable_udp_timeout=7200 net.netfilter.nf_flowtable_tcp_timeout=7200
		;;
	esac
	case $1 in
	idle) load ;;
	off | route | zone | both | jump | ingress)
		[ -d /sys/module/nf_zoneroute ] || load
		in_ns r sysctl -qw net.nf_zoneroute.max_age_ms="$max_age"
		[ "${2-}" = again ] || until_true 60 no_references
		in_ns r sysctl -qw net.nf_zoneroute.enable="$([ "$1" = off ] && echo 0 || echo 1)" \
			net.nf_zoneroute.route_cache="$([ "$1" = zone ] && echo 0 || echo 1)" \
			net.nf_zoneroute.zone_lookup="$([ "$1" = route ] && echo 0 || echo 1)" \
			net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 \
			net.nf_zoneroute.jump="$(case $1 in jump) echo 1 ;; ingress) echo 2 ;; *) echo 0 ;; esac)"
		;;
	esac
}

# sinks: makes both ends drop all packets on arrival.
sinks() {
	local end
	for end in 'c c0' 's s0'; do
		read -ra end <<<"$end"
		in_ns "${end[0]}" nft -f - <<-END
			table netdev sink {
				chain in {
					type filter hook ingress device ${end[1]} priority 0; policy drop;
				}
			}
		END
	done
}

# start_send: starts `send', which is both ends of the connections.
start_send() {
	mkfifo /tmp/send.in /tmp/send.out
	./send "$proto" "$family" "$flows" "$ports" "$snat" c c0 "$(mac_of r c1)" s s0 "$(mac_of r s1)" \
		</tmp/send.in >/tmp/send.out &
	JOBS+=($!)
	exec 7>/tmp/send.in 8</tmp/send.out
	[ "$churn" = 0 ] || tell churn "$churn" r
	[ "$quote" = 0 ] || tell quote "$quote"
	[ "$napi" = 0 ] || tell yield
	[ "$forget" = 0 ] || tell forget r
}

# tell WORDS...: gives `send' a command; sets ANSWER to its answer.
# shellcheck disable=SC2034
tell() {
	echo "$*" >&7
	read -r ANSWER <&8
}
