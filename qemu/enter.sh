#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# enter.sh ROOT COMMAND...: run a command in a root directory.
# The caller has made a mount namespace for it. The project, the cache and the kernel's own file
# systems are mounted at their own paths.

set -euo pipefail

root=$1
shift

bind() {
	mkdir -p "$root$2"
	mount --bind "$1" "$root$2"
}

mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# Mounted before the next two, which may be below it.
mount -t tmpfs tmpfs "$root/tmp"
bind "$NFZR_CACHE" "$NFZR_CACHE"
bind "$NFZR_TOP" "$NFZR_TOP"

# Of the host's environment (CFLAGS, LD_PRELOAD, a CARGO_HOME, …), only the proxy settings, which
# reach the mirror, are kept.
proxies=()
for name in http_proxy https_proxy no_proxy; do
	[ -z "${!name-}" ] || proxies+=("$name=${!name}")
done
exec env -i "${proxies[@]}" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" \
	NFZR_TOP="$NFZR_TOP" NFZR_CACHE="$NFZR_CACHE" \
	chroot "$root" sh -c 'cd "$0" && exec "$@"' "$NFZR_TOP" "$@"
