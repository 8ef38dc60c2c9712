#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# install.sh KREL: put nf_zoneroute.ko where modprobe finds it, below INSTALL_MOD_PATH.

. "$(dirname -- "$0")/lib.sh"

release=${1:?usage: install.sh KREL}
module=$NFZR_TOP/nf_zoneroute.ko
root=${INSTALL_MOD_PATH:-/}

[ -e "$module" ] || die "nf_zoneroute.ko is not built: run 'make' first"
built=$(in_toolchain modinfo -F vermagic "$module" | cut -d' ' -f1)
[ "$built" = "$release" ] ||
	die "nf_zoneroute.ko is built for $built, not for $release: run 'make KREL=$release' first"
command -v depmod >/dev/null || die "depmod is missing: install kmod (apt-get install kmod)"
[ -d "$root/lib/modules/$release" ] ||
	die "there is no $root/lib/modules/$release: is that kernel installed?"
install -D -m 644 "$module" "$root/lib/modules/$release/updates/nf_zoneroute.ko"
depmod -b "$root" "$release"
printf 'installed: modprobe nf_zoneroute\n'
