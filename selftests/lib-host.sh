# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What selftests/run and selftests/mutants/run share: guests, and how many run at a time. Sourced
# after qemu/lib.sh, in the clone's root.

# What a guest of a kind is booted with: "stock" is the pinned kernel on one CPU, so that counts are
# exact; "wrap" the same on a clock that counts instructions and does not pass while it idles; "scale"
# that with more memory, and without what makes objects larger; "debug" the debug kernel on two CPUs;
# "quick" that without kmemleak, which takes a third of its time.
guest_options() {
	case $1 in
	stock) echo --smp 1 ;;
	wrap) echo --smp 1 --icount ;;
	scale) echo --smp 1 --icount --memory 3072 ;;
	debug | quick) echo --debug --smp 2 ;;
	*) die "there is no kind of guest $1" ;;
	esac
}

guest_append() {
	case $1 in
	debug) echo slab_nomerge ;;
	quick) echo slab_nomerge kmemleak=off ;;
	scale) echo slab_nomerge ;;
	*) echo kfence.sample_interval=50 slab_debug=FZPU,nf_zoneroute_flow,nf_zoneroute_slot,nf_conntrack ;;
	esac
}

# boot_guest KIND DISK LOG CONSOLE COMMAND: boot, with NFZR_BOOT_OPTIONS if there are some, run, and write
# down what is printed.
boot_guest() {
	local kind=$1 disk=$2 log=$3 console=$4 command=$5 options
	read -ra options <<<"$(guest_options "$kind") ${NFZR_BOOT_OPTIONS-}"
	NFZR_APPEND=$(guest_append "$kind") \
		qemu/boot.sh "${options[@]}" --timeout $((1500 + ${NFZR_PACKETS:-100000} / 100 + ${NFZR_SOAK_SECONDS:-0} * 2 +
			(${NFZR_SCALE:-0} + ${NFZR_VERIFY_PACKETS:-0}) / 500)) --console "$console" \
		"$disk" "$command" 2>&1 | sed -u 's/\r$//' >"$log"
}

# How many guests run at a time: one for each CPU, as each keeps about one busy, and no more than the
# memory is enough for.
SLOTS=$(awk -v cpus="$(nproc)" '$1 == "MemAvailable:" { room = int($2 / 1024 / 2560) }
	END { print room < 1 ? 1 : room < cpus ? room : cpus }' /proc/meminfo)
RUNNING=0

# in_slot LOG COMMAND...: start it as soon as there is room. What it prints comes when it ends, here
# and at the end of LOG.
in_slot() {
	local log=$1
	shift
	while [ "$RUNNING" -ge "$SLOTS" ]; do
		wait -n || true
		RUNNING=$((RUNNING - 1))
	done
	(
		output=$("$@" 2>&1) || true
		printf '%s\n' "$output" | tee -a "$log"
	) &
	RUNNING=$((RUNNING + 1))
}

all_ended() {
	while [ "$RUNNING" -gt 0 ]; do
		wait -n || true
		RUNNING=$((RUNNING - 1))
	done
}
