#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many network namespaces: those that forward nothing cost nothing, those that cannot be set up do
# not keep the module out, and the module leaves them quickly.
#
# Group: basics
# Kernel: stock quick
# Long: scale kcsan

. lib/test.sh
plan 17

MANY=$((60 / SLOW))
[ -z "${NFZR_LONG-}" ] || MANY=$((1000 / SLOW / SLOW))

# hooks_of NS: prints how many hooks the module has in NS.
hooks_of() {
	in_ns "$1" nft list hooks 2>/dev/null | grep -c '\[nf_zoneroute\]' || true
}

load
router
serve udp
LISTS=
[ "$(hooks_of r)" -eq 0 ] || LISTS=1

# check_hooks NAME COMMAND...: as check, if the kernel lists hooks with their module.
check_hooks() {
	if [ -n "$LISTS" ]; then
		check "$@"
	else
		skip "$1" 'this kernel does not list hooks'
	fi
}

# has_hooks NS: succeeds if the module has hooks in NS.
has_hooks() {
	[ "$(hooks_of "$1")" -gt 0 ]
}

# rules_for NS HOOK: enables conntrack in NS by a rule at HOOK.
rules_for() {
	in_ns "$1" nft -f - <<-END
		table inet firewall {
			chain rules {
				type filter hook $2 priority filter; policy accept;
				ct state established accept
			}
		}
	END
}

# gets_hooks NS: succeeds if the module registers hooks in NS within some seconds. It asks by one
# netlink socket, because the end of a socket wakes a netns.
gets_hooks() {
	in_ns "$1" python3 - $((10 * SLOW)) <<-'END'
		import socket, struct, sys, time
		# NETLINK_NETFILTER, NFNL_SUBSYS_HOOK, a dump of the IPv4 hooks of PRE_ROUTING
		s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
		s.bind((0, 0))
		s.settimeout(1)
		request = struct.pack("=IHHII", 28, 12 << 8, 0x301, 1, 0) + bytes([2, 0, 0, 0])
		request += struct.pack("=HH", 8, 1) + struct.pack(">I", 0)
		end = time.time() + int(sys.argv[1])
		while time.time() < end:
		    s.send(request)
		    answer = b""
		    # The dump ends with a message of its own: NLMSG_DONE, or NLMSG_ERROR.
		    while answer[4:6] not in (b"\2\0", b"\3\0"):
		        answer = s.recv(65536)
		        if b"nf_zoneroute" in answer:
		            sys.exit(0)
		    time.sleep(0.2)
		sys.exit(1)
	END
}

test_a_netns_that_forwards_nothing_has_no_hook() {
	make_ns idle
	# A netns inherits this from the first one.
	in_ns idle sysctl -qw net.ipv4.ip_forward=0
	check_hooks 'idle: no hook' is "$(hooks_of idle)" 0
	rules_for idle input
	# Long enough to be asked.
	sleep 2
	check_hooks 'tracked, but not forwarding: no hook' is "$(hooks_of idle)" 0
	in_ns idle sysctl -qw net.ipv4.ip_forward=1
	check_hooks 'forwarding later: it is woken' gets_hooks idle
}

# A netns that forwards is awake as soon as its rules are loaded.
test_a_netns_is_awake_when_its_rules_are_loaded() {
	make_ns quick
	in_ns quick sysctl -qw net.ipv4.ip_forward=1
	rules_for quick forward
	check_hooks 'rules loaded: awake at once' has_hooks quick
}

# A limit wakes a netns, too: it holds for connections of the netns itself.
test_a_limit_wakes_a_netns() {
	make_ns lone
	rules_for lone input
	in_ns lone sh -c 'echo "zone 0 max 3" >/proc/net/nf_zoneroute/zones'
	in_ns lone python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(9000, 9010):
    try: s.sendto(b"x", ("127.0.0.1", port))
    except OSError: pass'
	check 'a limit holds in a netns that forwards nothing' \
		is "$(in_ns lone conntrack -L -p udp 2>/dev/null | grep -c .)" 3
	unload
}

# fill NS: makes 1024 chains at a hook of NS. The kernel accepts no other hook there then. Any user can
# make such a netns.
fill() {
	local i
	python3 - >/tmp/chains <<-'END'
		print("table ip full {")
		print("  chain f { type filter hook forward priority 0; ct state new accept; }")
		for i in range(1024):
		    print(f"  chain c{i} {{ type filter hook prerouting priority {i}; }}")
		print("}")
	END
	in_ns "$1" nft -f /tmp/chains 2>/dev/null || true
	# The kernel may refuse the last ones, because conntrack has hooks there too.
	sed -i '/chain c10[012]/d' /tmp/chains
	in_ns "$1" nft -f /tmp/chains 2>/dev/null || true
	for i in $(seq 2000 2050); do
		in_ns "$1" nft add chain ip full "c$i" "{ type filter hook prerouting priority $i; }" \
			2>/dev/null || break
	done
}

test_a_netns_that_cannot_be_set_up_does_not_keep_the_module_out() {
	make_ns full
	in_ns full sysctl -qw net.ipv4.ip_forward=1
	fill full
	dmesg -C
	check 'a full netns: the module is loaded' load
	check 'a full netns: it stays off' is "$(in_ns full sysctl -n net.nf_zoneroute.enable)" 0
	check 'a full netns: one warning says so' \
		is "$(dmesg | grep -c 'nf_zoneroute: stays off in the network namespace [0-9]*: error -7')" 1
	check 'a full netns: switching it on fails' eval \
		'! in_ns full sysctl -w net.nf_zoneroute.enable=1 >/dev/null 2>&1'
	check 'a full netns: others work' eval \
		'ask c udp 5 --sport 4001 >/dev/null; [ "$(stat_of hit)" -gt 0 ]'
	in_ns full nft flush ruleset
	in_ns full nft add table ip t
	in_ns full nft add chain ip t f '{ type filter hook forward priority 0; }'
	in_ns full nft add rule ip t f ct state new accept
	check 'a full netns, emptied: it can be switched on' \
		in_ns full sysctl -qw net.nf_zoneroute.enable=1
	check 'a full netns, emptied: it is on' is "$(in_ns full sysctl -n net.nf_zoneroute.enable)" 1
	unload
}

# A limit that failed must not keep the netns from being woken later.
test_a_netns_in_which_a_limit_failed_wakes_later() {
	load
	make_ns crowded
	in_ns crowded sysctl -qw net.ipv4.ip_forward=0
	fill crowded
	check 'a full netns: a limit is refused' eval \
		'! in_ns crowded sh -c "echo zone 1 max 5 >/proc/net/nf_zoneroute/zones" 2>/dev/null'
	in_ns crowded nft flush ruleset
	in_ns crowded sysctl -qw net.ipv4.ip_forward=1
	rules_for crowded forward
	check_hooks 'a limit failed, and forwarding later: it is woken' gets_hooks crowded
	unload
}

# longest_set_up COMMAND...: runs the command. Prints how many ms the set-up of a netns took at most
# meanwhile, because both need pernet_ops_rwsem.
longest_set_up() {
	python3 - "$@" <<-'END'
		import os, subprocess, sys, time
		command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
		longest = 0
		while True:
		    ended = command.poll() is not None
		    before = time.monotonic()
		    child = os.fork()
		    if child == 0:
		        os.unshare(os.CLONE_NEWNET)
		        os._exit(0)
		    if os.waitpid(child, 0)[1]:
		        sys.exit("cannot make a netns")
		    longest = max(longest, time.monotonic() - before)
		    if ended:
		        break
		print(int(longest * 1000))
		sys.exit(command.returncode)
	END
}

# Every one of them forwards and has conntrack, so each has hooks and notifiers.
test_many_netns_end_together() {
	local i took longest
	for i in $(seq "$MANY"); do
		ip netns add "many$i"
		in_ns "many$i" sysctl -qw net.ipv4.ip_forward=1
	done
	for i in $(seq "$MANY"); do
		in_ns "many$i" nft -f - <<-'END'
			table ip t {
				chain f {
					type filter hook forward priority 0;
					ct state new accept
				}
			}
		END
	done
	load
	check_hooks "$MANY netns: the last one is woken" gets_hooks "many$MANY"
	longest=$(longest_set_up sleep 2)
	echo "# set-up of a netns beside $MANY others: at most $longest ms"
	took=$(date +%s%N)
	longest=$(longest_set_up rmmod nf_zoneroute) || true
	took=$((($(date +%s%N) - took) / 1000000))
	check "$MANY netns: the module is unloaded" [ ! -e /sys/module/nf_zoneroute ]
	echo "# unloading with $MANY netns took $took ms; set-up of a netns meanwhile: at most $longest ms"
	load
	took=$(date +%s%N)
	for i in $(seq "$MANY"); do
		ip netns del "many$i"
	done
	check "$MANY netns: all end" until_true 60 eval '! rmmod nf_zoneroute 2>&1 | grep -q .'
	took=$((($(date +%s%N) - took) / 1000000))
	echo "# deleting $MANY netns took $took ms"
}

run_cases
