#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Boots an interactive guest with the module loaded; `exit` ends it.

. "$(dirname -- "$0")/lib.sh"

cd "$NFZR_TOP"
lock_clone
[ -t 0 ] || die "make shell needs a terminal"
qemu/build.sh stock
rm -rf build/shell
mkdir -p build/shell
. selftests/lib/host.sh
cp build/stock/nf_zoneroute.ko build/shell/
copy_selftests build/shell
qemu/boot.sh --interactive build/shell '
	modprobe -a nf_conntrack nf_nat
	insmod nf_zoneroute.ko
	echo "nf_zoneroute is loaded: see /proc/net/nf_zoneroute. The selftests are in $PWD."
	echo "\"exit\" ends the guest."
	exec bash -i'
