#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes the guest's images: a root image with Debian's tools and the pinned kernel's modules, and
# the small initramfs that mounts it. Neither contains project files except the initramfs's init
# script. boot.sh puts the project on a disk of its own, so the images stay cached while the
# project changes.

. "$(dirname -- "$0")/lib.sh"
. "$NFZR_TOP/qemu/bootstrap.sh"

make_guest() {
	local kernel=$1 release=$2 to=$3
	bootstrap "$NFZR_TOP/qemu/guest.packages" "$to/root"
	cp -a -- "$kernel/lib/modules" "$to/root/usr/lib/"
	mkdir -p "$to/root/nf_zoneroute"
	in_toolchain mkfs.ext2 -q -d "$to/root" -L guest "$to/root.ext2" 700M
	remove_tree "$to/root"
	make_initramfs "$kernel" "$release" "$to/initramfs"
	in_toolchain sh -c 'cd "$1" && find . | cpio --quiet -o -H newc | gzip -1 >"$1.cpio.gz"' \
		sh "$to/initramfs"
	remove_tree "$to/initramfs"
}

make_initramfs() {
	local kernel=$1 release=$2 to=$3 module modules=$3/modules/$2
	mkdir -p "$to/bin" "$modules" "$to/root" "$to/dev" "$to/proc"
	cp -- "$(toolchain_root)/bin/busybox" "$to/bin/busybox"
	install -m 755 "$NFZR_TOP/qemu/initramfs-init" "$to/init"
	# In load order. Modules that do not exist are built in.
	for module in virtio_pci virtio_blk virtio_console ext4; do
		in_toolchain modprobe -d "$kernel" -S "$release" --show-depends "$module" 2>/dev/null || true
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
		in_toolchain xz -dc "$module" >"$modules/$(basename "${module%.xz}")"
		printf '%s\n' "$(basename "${module%.xz}")" >>"$modules/order"
	done
}

main() {
	local release version kernel
	read -r release version <<<"$(pinned_kernel)"
	kernel=$(kernel_dir image "$release" "$version")
	lock_cache
	cached "$(guest_dir)" 'guest image' make_guest "$kernel" "$release"
}

main "$@"
