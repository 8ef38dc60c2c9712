#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Installs missing host packages and makes the toolchain root: a directory with exactly the
# compilers that Debian built the kernel with, the emulator and the checkers. The host's own tools
# are not used.

. "$(dirname -- "$0")/lib.sh"
. "$NFZR_TOP/qemu/bootstrap.sh"

check_host() {
	[ "$(uname -m)" = x86_64 ] ||
		die "this machine is $(uname -m); the pinned kernel and its tools are x86_64 only"
	unshare --mount --propagation private true 2>/dev/null ||
		die "mounts are not allowed here (a container without CAP_SYS_ADMIN?): run on a real or virtual machine"
	if ! command -v mmdebstrap >/dev/null || ! command -v mount >/dev/null; then
		command -v apt-get >/dev/null ||
			die "this host is not Debian: install mmdebstrap and mount, set NFZR_MIRROR to a Debian mirror, and run the same command again"
		say_step 'install mmdebstrap on this host' install_tools
	fi
}

# Installs everything that the host itself needs; the rest is in the toolchain root.
install_tools() {
	apt-get update -o DPkg::Lock::Timeout=120
	DEBIAN_FRONTEND=noninteractive apt-get install -y -o DPkg::Lock::Timeout=120 --no-install-recommends \
		mmdebstrap mount debian-archive-keyring
}

# apt's lists are kept, because kernel.sh resolves and downloads with them.
make_root() {
	bootstrap "$NFZR_TOP/qemu/toolchain.packages" "$1" --skip=cleanup/apt/lists
}

main() {
	need_root
	lock_cache
	check_host
	cached "$(toolchain_root)" 'toolchain root (rustc, gcc, clang, qemu)' make_root
}

main "$@"
