#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Verify mode compares the predicted connection, TCP state, timeout and route of each packet with
# the kernel's own result: for regular and irregular TCP, UDP and IPv6; and how each packet leaves, with
# how it would have left by a jump. Then packets are really attached: conntrack must find none of them
# invalid.
#
# NFZR_VERIFY_PACKETS=N: continues until N packets were compared.
#
# Group: tracking
# Kernel: stock quick

. lib/test.sh
plan 44

TARGET=${NFZR_VERIFY_PACKETS:-$((60000 / SLOW))}
SEED=${NFZR_SEED:-$RANDOM}
SIZE=$((4096 / SLOW))K

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
ip -n s route add blackhole 10.9.9.77
serve udp
for port in 5201 5202; do
	background s iperf3 -s -p "$port"
	until_true 10 in_ns s grep -q ":$(printf %04X "$port") " /proc/net/tcp6
done
background s python3 tools/transfer.py serve 5300
until_true 10 in_ns s grep -q ':14B4 ' /proc/net/tcp

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

# single_segments: stops the devices from merging and splitting segments, from the first call to the
# end of the script. A case that needs this calls it; it is not undone, because the defaults of the
# devices differ.
single_segments() {
	local ns
	[ -z "${SINGLE_SEGMENTS-}" ] || return 0
	for ns in 'c c0' 'r c1' 'r s1' 's s0'; do
		read -ra ns <<<"$ns"
		in_ns "${ns[0]}" ethtool -K "${ns[1]}" tso off gso off gro off >/dev/null
	done
	SINGLE_SEGMENTS=1
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

# lossy BYTES [OPTION...]: like iperf, with delay, loss, duplicates and reordering.
lossy() {
	local status=0
	netem delay 1ms 1ms loss 2% duplicate 2% reorder 25% 50%
	iperf "$@" || status=$?
	netem
	return "$status"
}

# without_options BYTES [OPTION...]: like iperf, without SACK, timestamps and window scaling.
without_options() {
	local status=0
	tcp_sysctls sack=0 timestamps=0 window_scaling=0
	iperf "$@" || status=$?
	tcp_sysctls sack=1 timestamps=1 window_scaling=1
	return "$status"
}

# segments COUNT: sends random segments from both sides; each call has another seed.
segments() {
	local seed=$SEED
	SEED=$((SEED + 1))
	in_ns c python3 tools/segments.py "$(mac_of r c1)" "$(mac_of r s1)" "$1" "$seed"
}

# transfer KIND: makes an unusual TCP connection.
transfer() {
	in_ns c python3 tools/transfer.py "$@" "$SERVER" 5300
}

# All cases but the last one run in verify mode, and predict jumps.
in_ns r nft -f - <<-'END'
	table inet fast {
		chain forward {
			type filter hook forward priority 10
			ct state established ct mark set ct mark or 0x100
		}
	}
END
in_ns r sysctl -qw net.nf_zoneroute.jump_mark=0x100 net.nf_zoneroute.jump_mask=0x100 \
	net.nf_zoneroute.jump=1
# A listener: events wait to be reported.
background r conntrack -E
verify 1

test_tcp_is_predicted() {
	checked 'TCP' iperf "$SIZE"
	checked 'TCP, server to client' iperf "$SIZE" -R
}

test_tcp_with_small_segments_is_predicted() {
	single_segments
	checked 'TCP, small segments' iperf "$((1024 / SLOW))K" -M 200
}

test_tcp_with_loss_duplicates_and_reordering_is_predicted() {
	single_segments
	checked 'TCP, loss, duplicates and reordering' lossy "$((512 / SLOW))K" -M 500
	checked 'TCP, the same, server to client' lossy "$((512 / SLOW))K" -M 500 -R
}

test_tcp_with_small_windows_is_predicted() {
	single_segments
	checked 'TCP, small windows' iperf "$((256 / SLOW))K" -w 2K -M 500
}

test_tcp_without_options_is_predicted() {
	single_segments
	checked 'TCP without SACK, timestamps and window scaling' \
		without_options "$((1024 / SLOW))K" -M 500
}

test_tcp_sequence_numbers_that_wrap_are_predicted() {
	single_segments
	checked 'TCP, sequence numbers wrap' transfer wrap
}

test_tcp_keepalives_and_closed_windows_are_predicted() {
	single_segments
	checked 'TCP, keepalives' transfer keepalive
	checked 'TCP, closed windows' transfer stall
}

test_tcp_half_close_and_reset_are_predicted() {
	single_segments
	checked 'TCP, half-closed' transfer halfclose
	checked 'TCP, reset' transfer reset
}

test_random_tcp_segments_are_predicted() {
	single_segments
	checked 'TCP, random segments' segments $((20000 / SLOW))
	in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1
	checked 'TCP, random segments, be_liberal' segments $((8000 / SLOW))
	in_ns r sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0
}

test_tcp_with_a_timeout_policy_is_predicted() {
	single_segments
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
	checked 'TCP, a ct timeout policy' lossy "$((256 / SLOW))K" -M 500
	in_ns r nft delete table ip timeouts
}

test_ipv6_tcp_is_predicted() {
	single_segments
	local before
	before=$(stat_of verify_jumps)
	checked 'IPv6 TCP' in_ns c iperf3 -6 -c fd00:9::9 -p 5202 -n "$SIZE"
	check 'IPv6 TCP: jumps were compared' [ "$(stat_of verify_jumps)" -gt $((before + 200 / SLOW)) ]
}

test_udp_is_predicted() {
	checked 'UDP, before and after it becomes a stream' ask c udp 30 --sport 4000 --interval 0.1
}

# Counts the packets of the cases above too, and adds those that are missing.
test_the_required_number_of_packets_matches() {
	local deadline=$((SECONDS + 120 * SLOW + TARGET / 500))
	single_segments
	while [ "$(stat_of verify_packets)" -lt "$TARGET" ] && [ "$SECONDS" -lt "$deadline" ]; do
		segments $((20000 / SLOW)) >/dev/null
		iperf "$((4096 / SLOW))K" -M 200 >/dev/null || true
		lossy "$((1024 / SLOW))K" -M 300 >/dev/null || true
		[ "$TARGET" -lt 1000000 ] || {
			iperf 60M -M 200 >/dev/null || true
			iperf 40M -M 120 -R >/dev/null || true
		}
	done
	echo "# verified $(stat_of verify_packets) packets, $(stat_of verify_routes) routes and" \
		"$(stat_of verify_jumps) jumps in all, $(stat_of verify_skipped) skipped:" \
		"$(mismatches) mismatches"
	check 'the required number of packets was compared' \
		[ "$(stat_of verify_packets)" -ge "$TARGET" ]
	check 'routes were compared' [ "$(stat_of verify_routes)" -gt 1000 ]
	check 'jumps were compared' [ "$(stat_of verify_jumps)" -gt $((TARGET / 2)) ]
	check 'no mismatch in total' is "$(mismatches)" 0
}

# Attached packets, mixed with packets that conntrack still handles. This case ends verify mode: the
# first check is about the cases above.
test_conntrack_finds_no_attached_packet_invalid() {
	local hits before kind pid
	single_segments
	in_ns r sysctl -qw net.nf_zoneroute.jump=0
	verify 0
	check 'no packet was attached in verify mode' is "$(shown zones | field hits)" 0
	hits=$(stat_of lookup_hit)
	netem delay 1ms 1ms reorder 25% 50% duplicate 2%
	iperf "$((512 / SLOW))K" -M 500 >/dev/null || true
	netem
	dmesg -C
	before=$(ct_stat invalid)
	iperf "$SIZE" >/dev/null || true
	for kind in wrap keepalive stall halfclose; do
		transfer "$kind" >/dev/null || true
	done
	check 'packets were attached' [ "$(stat_of lookup_hit)" -gt "$((hits + 500))" ]
	iperf "$((2048 / SLOW))K" -M 200 >/dev/null &
	pid=$!
	while [ -d "/proc/$pid" ]; do
		verify 1
		sleep 0.1
		verify 0
		sleep 0.1
	done
	check 'attaching and comparing in turn: no mismatch' is "$(mismatches)" 0
	check 'conntrack found no invalid packet' is "$(ct_stat invalid)" "$before"
	dmesg | grep nf_ct_proto >/tmp/said || true
	check 'and logged nothing' eval \
		'[ ! -s /tmp/said ] || { head -n 5 /tmp/said | sed "s/^/# /"; false; }'
}

run_cases
