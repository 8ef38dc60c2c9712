# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by selftests/run and selftests/mutants/run: booting guests, and limiting how many run at a
# time. Sourced after qemu/lib.sh, in the clone's root.

# Boot options of each kind of guest. "stock": the pinned kernel on one CPU, so that counts are
# exact. "wrap": the same with a clock that counts instructions and stands still while the guest is
# idle. "scale": like "wrap", with more memory and without the options that make objects larger.
# "debug": the debug kernel on two CPUs. "quick": like "debug", without kmemleak, which takes a
# third of the time. "four": like "quick", on four CPUs. "kcsan": the KCSAN kernel on four CPUs.
# "pair": the pinned kernel on two CPUs, with the options of "scale".
guest_options() {
	case $1 in
	stock) echo --smp 1 ;;
	wrap) echo --smp 1 --icount ;;
	scale) echo --smp 1 --icount --memory 3072 ;;
	pair) echo --smp 2 --memory 3072 ;;
	debug | quick) echo --debug --smp 2 ;;
	four | kcsan) echo --debug --smp 4 ;;
	*) die "there is no kind of guest $1" ;;
	esac
}

# guest_append KIND: prints the options of the guest's kernel. Except for the kinds of the benchmark
# (scale, pair), its log has room for all that a script causes, so that no line is lost unread.
guest_append() {
	case $1 in
	debug) echo log_buf_len=8M slab_nomerge ;;
	quick | four) echo log_buf_len=8M slab_nomerge kmemleak=off ;;
	scale | pair) echo slab_nomerge ;;
	kcsan) echo log_buf_len=8M slab_nomerge ;;
	*) echo log_buf_len=8M kfence.sample_interval=50 slab_debug=FZPU,nf_zoneroute_flow,nf_zoneroute_slot,nf_conntrack ;;
	esac
}

# boot_guest KIND DISK LOG CONSOLE COMMAND: boots a guest, with NFZR_BOOT_OPTIONS if set, runs
# COMMAND and writes its output to LOG. A guest that dies before it runs COMMAND is booted again, at
# most twice: on a busy machine, an interrupt may come before a starting kernel can handle it. But not
# with NFZR_BOOT_OPTIONS: then another program follows LOG.
boot_guest() {
	local kind=$1 disk=$2 log=$3 console=$4 command=$5 options try
	read -ra options <<<"$(guest_options "$kind") ${NFZR_BOOT_OPTIONS-}"
	[ "$kind" != kcsan ] || local -x NFZR_DEBUG=kcsan
	for try in 1 2 3; do
		NFZR_APPEND=$(guest_append "$kind") \
			qemu/boot.sh "${options[@]}" --timeout $((4800 + ${NFZR_PACKETS:-100000} / 100 + ${NFZR_SOAK_SECONDS:-0} * 2 +
				(${NFZR_SCALE:-0} + ${NFZR_VERIFY_PACKETS:-0}) / 500)) --console "$console" \
			"$disk" "$command" 2>&1 | sed -u 's/\r$//' >"$log" && return
		[[ $(head -n 1 "$log") == "the guest died"* && -z ${NFZR_BOOT_OPTIONS-} ]] || return
		cp "$console" "$console.$try"
		echo "  a guest died before it began, see $console.$try" >&2
	done
	return 1
}

# How many guests run at a time: at most one per CPU, because each keeps about one busy, and no more
# than fit into memory (2560 MiB each).
SLOTS=$(awk -v cpus="$(nproc)" '$1 == "MemAvailable:" { room = int($2 / 1024 / 2560) }
	END { print room < 1 ? 1 : room < cpus ? room : cpus }' /proc/meminfo)
RUNNING=0

# in_slot LOG COMMAND...: starts COMMAND as soon as a slot is free. When it ends, its output is
# printed and appended to LOG.
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

# all_ended: waits until all commands of in_slot have ended.
all_ended() {
	while [ "$RUNNING" -gt 0 ]; do
		wait -n || true
		RUNNING=$((RUNNING - 1))
	done
}

# head_of SCRIPT NAME: prints a line of its head ("# Group: …", "# Kernel: …").
head_of() {
	sed -n "s/^# $2: //p; /^\$/q" "$1"
}

# all_scripts: prints the path of every test script in selftests/.
all_scripts() {
	(cd selftests && grep -l '^# Group: ' -- */*.sh)
}

# paths_of NAME...: prints the path in selftests/ of each script, which may be named without folder.
paths_of() {
	local name path
	for name; do
		path=$(all_scripts | grep -x -e "$name" -e "[a-z]*/$name") ||
			die "there is no test $name; the tests are: $(all_scripts | sed 's/.*\///' | xargs)"
		printf '%s ' "$path"
	done
}

# copy_selftests DIRECTORY: copies to a guest's disk what runs there.
copy_selftests() {
	cp -r docs selftests/*.sh selftests/{debug,jump,lib,module,route,scale,tools,zone} "$1/"
}
