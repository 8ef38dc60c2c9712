# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Functions that all scripts share: the paths of the cache, running a step, making a cached
# directory completely or not at all, and reporting errors. Sourced, not run.

set -euo pipefail

NFZR_TOP=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
NFZR_CACHE=$(realpath -m -- "${NFZR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nf_zoneroute}")
export NFZR_TOP NFZR_CACHE

# shellcheck source=qemu/kernel.pin
. "$NFZR_TOP/qemu/kernel.pin"

# NFZR_DEBUG=kcsan: the KCSAN kernel takes the place of the debug kernel.
DEBUG_CONFIGS=("$NFZR_TOP/qemu/debug.config")
if [ "${NFZR_DEBUG-}" = kcsan ]; then
	DEBUG_CONFIGS+=("$NFZR_TOP/qemu/kcsan.config")
	DEBUG_LOCALVERSION=-kcsan
fi

# die MESSAGE...: print one line that says what to do, and exit.
die() {
	printf 'nf_zoneroute: %s\n' "$*" >&2
	exit 1
}

# say_step NAME COMMAND...: run a step. Its output goes to a log, its name and time to the terminal.
say_step() {
	local name=$1 log began status=0
	shift
	mkdir -p "$NFZR_CACHE/logs"
	log=$NFZR_CACHE/logs/${name//[^A-Za-z0-9]/_}.log
	began=$SECONDS
	printf '  %-46s ' "$name"
	# A subshell with its own errexit, because a function called in a condition ignores errexit.
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
	# The log is on the same disk and may therefore be empty.
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

# key_of WORD...: print a short hash of everything that a cached directory depends on.
key_of() {
	printf '%s\n' "$@" | sha256sum | cut -c1-12
}

# cached DIR NAME COMMAND...: fill DIR by COMMAND, with DIR as its last argument, unless DIR is
# complete. A directory is complete if it has the file .complete, which is written last. Without it,
# DIR was left by an interrupted run and is removed. (DIR is filled in place, because a prepared
# kernel tree contains its own path.) The caller holds the lock.
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

# Prints the free MiB of the cache's file system.
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

# Allows one setup at a time per cache. The lock ends with the process, however it ends.
lock_cache() {
	mkdir -p "$NFZR_CACHE" 2>/dev/null ||
		die "cannot write to $NFZR_CACHE: set NFZR_CACHE to a directory that can be written"
	exec 9>"$NFZR_CACHE/lock"
	if ! flock -n 9; then
		echo '  waiting for another run that is setting up the same cache'
		flock 9
	fi
}

# Allows one run at a time per clone, because runs share build/. The lock ends with the process.
lock_clone() {
	mkdir -p "$NFZR_TOP/build"
	exec 8>"$NFZR_TOP/build/.lock"
	flock -n 8 || die "another demo, test or check is at work in this clone: wait for it to end"
}

need_root() {
	[ "$(id -u)" -eq 0 ] ||
		die "this needs root (chroot, mounts, packages): run it as 'sudo make …' or in a root shell"
}

# Prints the toolchain root's path, which is named after its inputs.
toolchain_root() {
	printf '%s/toolchain-%s\n' "$NFZR_CACHE" \
		"$(key_of "$DEBIAN_SUITE" "$DEBIAN_KERNEL_SUITE" "$(cat "$NFZR_TOP/qemu/toolchain.packages")")"
}

# in_toolchain COMMAND...: run a command in the toolchain root, with the project and the cache
# visible at their own paths. The mounts are in a mount namespace of the command, so nothing is left
# behind, however it ends.
in_toolchain() {
	local root
	root=$(toolchain_root)
	[ -e "$root/.complete" ] || die "the toolchain root is missing: run 'make setup' first"
	need_root
	unshare --mount --propagation private --fork --kill-child \
		"$NFZR_TOP/qemu/enter.sh" "$root" "$@"
}

# tool_root NAME: prints the path of a root with the tools of qemu/NAME.packages. These roots are
# separate from the toolchain root, because few commands need them.
tool_root() {
	printf '%s/%s-%s\n' "$NFZR_CACHE" "$1" \
		"$(key_of "$DEBIAN_SUITE" "$(cat "$NFZR_TOP/qemu/$1.packages")")"
}

# in_tool_root NAME COMMAND...: as in_toolchain, in the root with the tools of qemu/NAME.packages.
in_tool_root() {
	local root
	root=$(tool_root "$1")
	shift
	need_root
	unshare --mount --propagation private --fork --kill-child \
		"$NFZR_TOP/qemu/enter.sh" "$root" "$@"
}

# Prints the resolved release string ("7.3.4+deb13-cloud-amd64") and Debian version of the pinned
# kernel. If NFZR_KREL is set, that kernel of the archive takes the place of the pinned one.
pinned_kernel() {
	local file
	file=$(pinned_kernel_file)
	[ -s "$file" ] || die "the kernel is not set up: run 'make setup' first"
	cat "$file"
}

pinned_kernel_file() {
	printf '%s/kernel-%s\n' "$NFZR_CACHE" \
		"$(key_of "$KERNEL_SERIES" "$KERNEL_FLAVOUR" "$DEBIAN_KERNEL_SUITE" ${NFZR_KREL:+"$NFZR_KREL"})"
}

# kernel_dir KIND RELEASE VERSION: print where kernel.sh keeps a kernel's "build" tree or "image".
kernel_dir() {
	printf '%s/%s-%s-%s\n' "$NFZR_CACHE" "$1" "$2" "$(key_of "$3" "$(toolchain_root)")"
}

# Prints the debug kernel's release string: the pinned kernel's version with DEBUG_LOCALVERSION.
debug_release() {
	local release version
	read -r release version <<<"$(pinned_kernel)"
	printf '%s%s\n' "${release%%[+-]*}" "$DEBUG_LOCALVERSION"
}

# Prints where kernel.sh keeps the debug kernel. The path is named after its source, configuration
# and compilers.
debug_kernel_dir() {
	local release version
	read -r release version <<<"$(pinned_kernel)"
	printf '%s/debug-%s\n' "$NFZR_CACHE" "$(key_of "$version" "$(toolchain_root)" \
		"$(grep -h '^[A-Z]' "${DEBUG_CONFIGS[@]}" "$NFZR_TOP/qemu/kernel.pin")")"
}

# Prints the guest image's path, which is named after its inputs.
guest_dir() {
	printf '%s/guest-%s\n' "$NFZR_CACHE" "$(key_of "$(pinned_kernel)" "$DEBIAN_SUITE" \
		"$(cat "$NFZR_TOP/qemu/guest.packages" "$NFZR_TOP/qemu/initramfs-init" "$NFZR_TOP/qemu/guest.sh")")"
}
