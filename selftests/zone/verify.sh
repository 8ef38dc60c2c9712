#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Verify mode compares the predicted connection, TCP state, timeout and route of each packet with
# the
# kernel's own result: for regular and irregular TCP, UDP and IPv6. Then packets are really
# attached: conntrack must find none of them invalid.
#
# NFZR_VERIFY_PACKETS=N: continues until N packets were compared.
#
# Group: tracking
# Kernel: stock quick

. lib/test.sh
plan 42

TARGET=${NFZR_VERIFY_PACKETS:-$((60000 / SLOW))}
SEED=${NFZR_SEED:-$RANDOM}

modprobe -a nf_log_syslog
load
router
for ns in c r s; do
	in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.all.accept_dad=0 \
		net.ipv6.conf.default.accept_dad=0
done
in_ns r sysctl -qw net.ipv6.conf.all.forwarding=1 net.netfilter.nf_conntrack_acct=1 \
	net.netfilter.nf_conntrack_log_invalid=255
sysctl -qw net.netfilter.nf_log_all_netns=1
in_ns r nft -f - <<-'END'
	table ip6 firewall {
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state invalid counter drop
		}
	}
END
ip -n c -b - <<-'END'
	addr add fd00:1::2/64 dev c0 nodad
	route add default via fd00:1::1
END
ip -n r -b - <<-'END'
	addr add fd00:1::1/64 dev c1 nodad
	addr add fd00:2::1/64 dev s1 nodad
	route add fd00:9::9 via fd00:2::2
	neigh add 10.0.1.77 lladdr 02:00:00:00:00:77 dev c1 nud permanent
	route add 10.9.9.77 via 10.0.2.2
END
ip -n s -b - <<-'END'
	addr add fd00:2::2/64 dev s0 nodad
	addr add fd00:9::9/128 dev lo nodad
	route add default via fd00:2::1
END
serve udp
for port in 5201 5202; do
	background s iperf3 -s -p "$port"
	until_true 10 in_ns s grep -q ":$(printf %04X "$port") " /proc/net/tcp6
done

verify() {
	in_ns r sysctl -qw "net.nf_zoneroute.verify=$1"
}

# checked NAME COMMAND...: the command's packets are compared, and all match the prediction.
checked() {
	local name=$1 before wrong
	shift
	before=$(stat_of verify_packets) wrong=$(mismatches)
	local status=0
	"$@" >/tmp/checked 2>&1 || status=$?
	[ "$status" -eq 0 ] || sed 's/^/# /' /tmp/checked
	check "$name: succeeded, and packets were compared" \
		is "$status $(($(stat_of verify_packets) > before))" '0 1'
	check "$name: no mismatch" is "$(mismatches)" "$wrong"
	echo "# verified $(($(stat_of verify_packets) - before)) packets: $name"
}

# iperf BYTES [OPTION...]: sends BYTES of TCP through the router.
iperf() {
	in_ns c timeout 300 iperf3 -c "$SERVER" -p 5201 -n "$1" "${@:2}"
}

# netem [OPTION...]: sets netem on both ends; without options, removes it.
netem() {
	local ns
	for ns in 'c c0' 's s0'; do
		read -ra ns <<<"$ns"
		if [ $# -gt 0 ]; then
			in_ns "${ns[0]}" tc qdisc replace dev "${ns[1]}" root netem "$@"
		else
			in_ns "${ns[0]}" tc qdisc del dev "${ns[1]}" root
		fi
	done
}

offloads() {
	local ns
	for ns in 'c c0' 'r c1' 'r s1' 's s0'; do
		read -ra ns <<<"$ns"
		in_ns "${ns[0]}" ethtool -K "${ns[1]}" tso "$1" gso "$1" gro "$1" >/dev/null
	done
}

# tcp_sysctls NAME=VALUE...: sets net.ipv4.tcp_NAME on both ends.
tcp_sysctls() {
	local ns setting
	for ns in c s; do
		for setting; do
			in_ns "$ns" sysctl -qw "net.ipv4.tcp_$setting"
		done
	done
}

spoilt() {
	netem delay 1ms 1ms loss 2% duplicate 2% reorder 25% 50%
	iperf "$1" "${@:2}"
	netem
}

plain() {
	tcp_sysctls sack=0 timestamps=0 window_scaling=0
	iperf "$@"
	tcp_sysctls sack=1 timestamps=1 window_scaling=1
}

segments() {
	in_ns c python3 tools/segments.py "$(mac_of r c1)" "$(mac_of r s1)" "$1" "$SEED"
	SEED=$((SEED + 1))
}

odd() {
	in_ns c python3 tools/transfer.py "$@" "$SERVER" 5300
}
ip -n s route add blackhole 10.9.9.77
background s python3 tools/transfer.py serve 5300
until_true 10 in_ns s grep -q ':14B4 ' /proc/net/tcp

SIZE=$((4096 / SLOW))K
verify 1
checked 'TCP' iperf "$SIZE"
checked 'TCP, server to client' iperf "$SIZE" -R
offloads off
checked 'TCP, small segments' iperf "$((1024 / SLOW))K" -M 200
checked 'TCP, loss, duplicates and reordering' spoilt "$((512 / SLOW))K" -M 500
checked 'TCP, the same, server to client' spoilt "$((512 / SLOW))K" -M 500 -R
checked 'TCP, small windows' iperf "$((256 / SLOW))K" -w 2K -M 500
checked 'TCP without SACK, timestamps and window scaling' plain "$((1024 / SLOW))K" -M 500
checked 'TCP, sequence numbers wrap' odd wrap
checked 'TCP, keepalives' odd keepalive
checked 'TCP, closed windows' odd stall
checked 'TCP, half-closed' odd halfclose
checked 'TCP, reset' odd reset
checked 'TCP, random segments' segments $((20000 / SLOW))
in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1
checked 'TCP, random segments, be_liberal' segments $((8000 / SLOW))
in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0
in_ns r nft -f - <<-'END'
	table ip timeouts {
		ct timeout short {
			protocol tcp;
			l3proto ip;
			policy = { established: 100s, unack: 50s, retrans: 40s }
		}
		chain pre {
			type filter hook prerouting priority raw
			ip protocol tcp ct timeout set "short"
		}
		chain out {
			type filter hook output priority raw
			ip protocol tcp ct timeout set "short"
		}
	}
END
checked 'TCP, a ct timeout policy' spoilt "$((256 / SLOW))K" -M 500
in_ns r nft delete table ip timeouts
checked 'IPv6 TCP' in_ns c iperf3 -6 -c fd00:9::9 -p 5202 -n "$SIZE"
checked 'UDP, before and after it becomes a stream' ask c udp 30 --sport 4000 --interval 0.1

until=$((SECONDS + 120 * SLOW + TARGET / 500))
while [ "$(stat_of verify_packets)" -lt "$TARGET" ] && [ "$SECONDS" -lt "$until" ]; do
	segments $((20000 / SLOW)) >/dev/null
	iperf "$((4096 / SLOW))K" -M 200 >/dev/null || true
	spoilt "$((1024 / SLOW))K" -M 300 >/dev/null || true
	[ "$TARGET" -lt 1000000 ] || {
		iperf 60M -M 200 >/dev/null || true
		iperf 40M -M 120 -R >/dev/null || true
	}
done
echo "# verified $(stat_of verify_packets) packets and $(stat_of verify_routes) routes in all, $(stat_of verify_skipped) skipped: $(mismatches) mismatches"
check 'the required number of packets was compared' [ "$(stat_of verify_packets)" -ge "$TARGET" ]
check 'routes were compared' [ "$(stat_of verify_routes)" -gt 1000 ]
check 'no mismatch in total' is "$(mismatches)" 0
verify 0
check 'no packet was attached in verify mode' is "$(shown zones | field hits)" 0

# Attached packets, mixed with packets that conntrack still handles.
hits=$(stat_of lookup_hit)
netem delay 1ms 1ms reorder 25% 50% duplicate 2%
iperf "$((512 / SLOW))K" -M 500 >/dev/null || true
netem
dmesg -C
before=$(ct_stat invalid)
iperf "$SIZE" >/dev/null || true
for kind in wrap keepalive stall halfclose; do
	odd "$kind" >/dev/null || true
done
check 'packets were attached' [ "$(stat_of lookup_hit)" -gt "$((hits + 500))" ]
iperf "$((2048 / SLOW))K" -M 200 >/dev/null &
iperf=$!
while [ -d "/proc/$iperf" ]; do
	verify 1
	sleep 0.1
	verify 0
	sleep 0.1
done
check 'attaching and comparing in turn: no mismatch' is "$(mismatches)" 0
check 'conntrack found no invalid packet' is "$(ct_stat invalid)" "$before"
dmesg | grep nf_ct_proto >/tmp/said || true
check 'and logged nothing' eval '[ ! -s /tmp/said ] || { head -n 5 /tmp/said | sed "s/^/# /"; false; }'
