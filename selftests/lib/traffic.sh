# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Traffic: servers, clients and counters of what arrived.

# agent NS...: starts a process in each NS that executes the requests of `traffic` there.
agent() {
	local ns
	for ns; do
		mkfifo "/tmp/agent.$ns.in" "/tmp/agent.$ns.out"
		background "$ns" python3 tools/traffic.py agent "/tmp/agent.$ns.in" "/tmp/agent.$ns.out"
	done
}

# traffic NS ARGUMENT...: runs traffic.py in NS with these arguments and prints its output.
traffic() {
	local ns=$1 answer
	shift
	if [ -p "/tmp/agent.$ns.in" ]; then
		printf '%s\n' "$*" >"/tmp/agent.$ns.in"
		read -r answer <"/tmp/agent.$ns.out"
		printf '%s\n' "$answer"
	else
		in_ns "$ns" python3 tools/traffic.py "$@"
	fi
}

# serve PROTO: starts an echo server on SERVER.
serve() {
	local hex
	printf -v hex '%04X' "$PORT"
	background s python3 tools/traffic.py echo "$1" "$SERVER" "$PORT"
	case $1 in
	udp) until_true 10 in_ns s grep -q ":$hex " /proc/net/udp ;;
	tcp | mptcp) until_true 10 in_ns s grep -q ":$hex .* 0A " /proc/net/tcp ;;
	*) until_true 10 in_ns s grep -q '09090' /proc/net/raw ;;
	esac
}

# serve6 udp|tcp: starts an echo server on SERVER6.
serve6() {
	background s python3 tools/traffic.py echo "$1" "$SERVER6" "$PORT"
	until_true 10 in_ns s grep -q ':0007 ' "/proc/net/${1}6"
}

# ask NS PROTO COUNT [OPTION...]: sends COUNT requests to SERVER; prints how many were answered.
ask() {
	local ns=$1 proto=$2 count=$3
	shift 3
	traffic "$ns" ask "$proto" "$SERVER" "$PORT" "$count" "$@" | sed 's/.*answered=//'
}

# twin NS PROTO ADDR NAME COUNT [OPTION...]: sends COUNT requests from a tenant; prints how many the
# server of that NAME answered.
twin() {
	traffic "$1" ask "$2" "$3" "$PORT" "$5" --name "$4" "${@:6}" | sed 's/^sent=[0-9]* answered=//'
}

# decrypted NS: prints how many packets NS received by ESP.
decrypted() {
	ip -n "$1" -s xfrm state | grep -A1 'lifetime current' | grep -o '[0-9]*(packets)' | tr -dc 0-9
}

# arrived by_a|by_b: prints how many UDP packets reached the server by path A or B.
arrived() {
	local counter
	counter=$(in_ns s nft list counter ip count "$1")
	counter=${counter#*packets }
	echo "${counter%% *}"
}
