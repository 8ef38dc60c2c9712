# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every script here shares: where the cache is, how a step is shown, how a cached
# directory comes to be whole or not at all, and how an error reads. Sourced, not run.

set -euo pipefail

NFZR_TOP=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
NFZR_CACHE=$(realpath -m -- "${NFZR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nf_zoneroute}")
export NFZR_TOP NFZR_CACHE

# shellcheck source=qemu/kernel.pin
. "$NFZR_TOP/qemu/kernel.pin"

# One clear line that says what to do, and no more.
die() {
	printf 'nf_zoneroute: %s\n' "$*" >&2
	exit 1
}

# say_step NAME COMMAND...: run a step, its output in a log, its name and time on the terminal.
say_step() {
	local name=$1 log began status=0
	shift
	mkdir -p "$NFZR_CACHE/logs"
	log=$NFZR_CACHE/logs/${name//[^A-Za-z0-9]/_}.log
	began=$SECONDS
	printf '  %-46s ' "$name"
	# A subshell with errexit of its own: a function called in a condition would lose it.
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1
	status=$?
	set -e
	if [ "$status" -ne 0 ]; then
		printf 'failed after %d s\n' $((SECONDS - began))
		explain_failure "$log"
	fi
	printf '%4d s\n' $((SECONDS - began))
}

# explain_failure LOG: turn a failed step's log into one line.
explain_failure() {
	local log=$1
	# The log may be on that very disk, and so empty.
	if [ "$(free_mib)" -lt 20 ] || grep -q 'No space left on device' "$log"; then
		die "the disk of $NFZR_CACHE is full: free some space or set NFZR_CACHE to another directory, then run the same command again"
	fi
	if grep -qE 'Could not resolve|Unable to connect|Connection (timed out|refused)|Could not connect|Temporary failure|does not have a Release file' "$log"; then
		die "the Debian mirror cannot be reached: check the network or set NFZR_MIRROR to one that answers, then run the same command again (log: $log)"
	fi
	if grep -qE 'Could not get lock|Unable to acquire the dpkg' "$log"; then
		die "another package manager is at work on this host: wait for it, then run the same command again"
	fi
	if grep -q '^nf_zoneroute: ' "$log"; then
		grep '^nf_zoneroute: ' "$log" | tail -n 1 >&2
		exit 1
	fi
	printf 'the last lines of %s:\n' "$log" >&2
	tail -n 15 "$log" >&2
	die "this step failed: see $log"
}

# key_of WORD...: a short name for what a cached thing depends on.
key_of() {
	printf '%s\n' "$@" | sha256sum | cut -c1-12
}

# cached DIR NAME COMMAND...: run COMMAND with DIR as its last argument, to fill DIR, unless that
# was done. A directory is whole when it holds .complete, which is written last; without it
# DIR is what an interrupted run left, and goes. (Built in place, since a prepared kernel tree
# holds its own path.) The caller holds the lock.
cached() {
	local dir=$1 name=$2
	shift 2
	[ ! -e "$dir/.complete" ] || return 0
	need_space
	remove_tree "$dir"
	mkdir -p "$dir"
	say_step "$name" "$@" "$dir"
	sync -f "$dir"
	touch "$dir/.complete"
}

# remove_tree DIR: delete a tree, but never across a mount point.
remove_tree() {
	[ -e "$1" ] || return 0
	rm -rf --one-file-system -- "$1"
}

# MiB that are free where the cache is.
free_mib() {
	df -Pk "$NFZR_CACHE" | awk 'NR == 2 { print int($4 / 1024) }'
}

need_space() {
	local free
	mkdir -p "$NFZR_CACHE" 2>/dev/null ||
		die "cannot write to $NFZR_CACHE: set NFZR_CACHE to a directory that can be written"
	free=$(free_mib)
	[ "$free" -ge 3000 ] ||
		die "only $free MiB are free in $NFZR_CACHE and a step needs up to 3000: free some or set NFZR_CACHE to another directory"
}

# One set-up at a time in one cache. The lock goes with the process, however it ends.
lock_cache() {
	mkdir -p "$NFZR_CACHE" 2>/dev/null ||
		die "cannot write to $NFZR_CACHE: set NFZR_CACHE to a directory that can be written"
	exec 9>"$NFZR_CACHE/lock"
	if ! flock -n 9; then
		echo '  waiting for another run that is setting up the same cache'
		flock 9
	fi
}

# One run at a time in one clone, since they share build/. The lock goes with the process.
lock_clone() {
	mkdir -p "$NFZR_TOP/build"
	exec 8>"$NFZR_TOP/build/.lock"
	flock -n 8 || die "another demo, test or check is at work in this clone: wait for it to end"
}

need_root() {
	[ "$(id -u)" -eq 0 ] ||
		die "this needs root (chroot, mounts, packages): run it as 'sudo make …' or in a root shell"
}

# The toolchain root's path: named by what goes into it.
toolchain_root() {
	printf '%s/toolchain-%s\n' "$NFZR_CACHE" \
		"$(key_of "$DEBIAN_SUITE" "$DEBIAN_KERNEL_SUITE" "$(cat "$NFZR_TOP/qemu/toolchain.packages")")"
}

# in_toolchain COMMAND...: run a command inside the toolchain root, with the
# project and the cache visible at their own paths. The mounts live in a mount namespace of
# the command's own, so nothing is left behind however it ends.
in_toolchain() {
	local root
	root=$(toolchain_root)
	[ -e "$root/.complete" ] || die "the toolchain root is missing: run 'make setup' first"
	need_root
	unshare --mount --propagation private --fork --kill-child \
		"$NFZR_TOP/qemu/enter.sh" "$root" "$@"
}

# What draws the benchmark's plots is in a root of its own, since nobody else needs it.
plot_root() {
	printf '%s/plot-%s\n' "$NFZR_CACHE" "$(key_of "$DEBIAN_SUITE" "$(cat "$NFZR_TOP/qemu/plot.packages")")"
}

# in_plot_root COMMAND...: as in_toolchain.
in_plot_root() {
	need_root
	unshare --mount --propagation private --fork --kill-child \
		"$NFZR_TOP/qemu/enter.sh" "$(plot_root)" "$@"
}

# The pinned kernel's release string ("7.3.4+deb13-cloud-amd64") and Debian version, as resolved.
pinned_kernel() {
	local file
	file=$(pinned_kernel_file)
	[ -s "$file" ] || die "the kernel is not set up: run 'make setup' first"
	cat "$file"
}

pinned_kernel_file() {
	printf '%s/kernel-%s\n' "$NFZR_CACHE" \
		"$(key_of "$KERNEL_SERIES" "$KERNEL_FLAVOUR" "$DEBIAN_KERNEL_SUITE")"
}

# kernel_dir KIND RELEASE VERSION: where kernel.sh keeps a kernel's "build" tree or its "image".
kernel_dir() {
	printf '%s/%s-%s-%s\n' "$NFZR_CACHE" "$1" "$2" "$(key_of "$3" "$(toolchain_root)")"
}

# The debug kernel's release string: the pinned version, marked.
debug_release() {
	local release version
	read -r release version <<<"$(pinned_kernel)"
	printf '%s%s\n' "${release%%[+-]*}" "$DEBUG_LOCALVERSION"
}

# Where kernel.sh keeps the debug kernel: named by its source, its configuration and its compilers.
debug_kernel_dir() {
	local release version
	read -r release version <<<"$(pinned_kernel)"
	printf '%s/debug-%s\n' "$NFZR_CACHE" "$(key_of "$version" "$(toolchain_root)" \
		"$(grep -h '^[A-Z]' "$NFZR_TOP/qemu/debug.config" "$NFZR_TOP/qemu/kernel.pin")")"
}

# The guest image's path: named by what goes into it.
guest_dir() {
	printf '%s/guest-%s\n' "$NFZR_CACHE" "$(key_of "$(pinned_kernel)" "$DEBIAN_SUITE" \
		"$(cat "$NFZR_TOP/qemu/guest.packages" "$NFZR_TOP/qemu/initramfs-init" "$NFZR_TOP/qemu/guest.sh")")"
}
