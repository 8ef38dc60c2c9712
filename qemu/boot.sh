#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Boots the pinned kernel, or the debug kernel, with a directory as its disk and runs a command in it:
# boot.sh [--debug] [--smp N] [--memory MIB] [--timeout S] [--console FILE] [--icount]
#         [--control DIR] [--plugin FILE,ARGUMENT] [--interactive] DIR COMMAND
#
# --icount: the guest's time is the count of its instructions. It does not pass while the guest
# idles, so sleeps and timers end at once. One CPU only.
#
# --control: creates two sockets in DIR, which is below the clone: `monitor', for QEMU's own
# commands, and `guest', whose lines come out of the guest's /dev/hvc2.
#
# --plugin: loads a plugin of QEMU's emulator.
#
# bash runs COMMAND in the guest's /nf_zoneroute, a read-only copy of DIR. Its output is printed
# here, and its exit status is this script's. The kernel's messages go to FILE.

. "$(dirname -- "$0")/lib.sh"

smp=1
memory=2048
timeout=1800
console=
interactive=
control=
icount=
plugin=
debug=
while [ $# -gt 0 ]; do
	case $1 in
	--smp) smp=$2; shift 2 ;;
	--memory) memory=$2; shift 2 ;;
	--timeout) timeout=$2; shift 2 ;;
	--console) console=$2; shift 2 ;;
	--interactive) interactive=1; shift ;;
	--icount) icount=1; shift ;;
	--control) control=$(realpath -- "$2"); shift 2 ;;
	--plugin) plugin=$2; shift 2 ;;
	--debug) debug=1; shift ;;
	*) break ;;
	esac
done
[ $# -eq 2 ] || die "usage: boot.sh [OPTION]... DIR COMMAND"

read -r release version <<<"$(pinned_kernel)"
kernel=$(kernel_dir image "$release" "$version")
if [ -n "$debug" ]; then
	kernel=$(debug_kernel_dir)/image
	[ -e "$kernel/vmlinuz" ] || die "the debug kernel is missing: run 'make debug-kernel' first"
fi
guest=$(guest_dir)
[ -e "$guest/.complete" ] || die "the guest image is missing: run 'make setup' first"

work=$(mktemp -d "$NFZR_CACHE/boot.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
console=${console:-$work/console}

mkdir "$work/disk"
[ "$(free_mib)" -ge 200 ] ||
	die "less than 200 MiB are free in $NFZR_CACHE: free some or set NFZR_CACHE to another directory"
cp -a -- "$1/." "$work/disk/"
install -m 755 "$NFZR_TOP/qemu/guest-init" "$work/disk/guest-init"
printf '%s\n' "$2" >"$work/disk/command"
# The guest's root has only the modules of the pinned kernel.
[ -z "$debug" ] || cp -a -- "$kernel/lib/modules" "$work/disk/modules"
[ -z "$interactive" ] || touch "$work/disk/interactive"
in_toolchain mkfs.ext2 -q -d "$work/disk" -L project "$work/disk.ext2" 64M

append="console=ttyS0 panic=-1 reboot=t quiet loglevel=4 ${NFZR_APPEND-}"
# Without ACPI the debug kernel has no reference to calibrate the TSC, which under emulation is the
# host's. If the host shows another rate than the TSC's (on bare metal it shows the CPU's current
# rate), seconds in the guest are longer or shorter. Nothing in the guest depends on that.
if [ -n "$debug" ]; then
	mhz=$(sed -n 's/^cpu MHz[^0-9]*\([0-9]*\).*/\1/p' /proc/cpuinfo | head -n 1)
	append="$append tsc=reliable tsc_early_khz=${mhz:-2000}000"
fi

# The commas are part of QEMU's arguments.
# shellcheck disable=SC2054
qemu=(qemu-system-x86_64 -M q35 -accel tcg -cpu max,la57=off -smp "$smp,sockets=$smp,cores=1,threads=1"
	-m "$memory" -nographic -no-reboot -nic none
	-kernel "$kernel/vmlinuz" -initrd "$guest/initramfs.cpio.gz"
	-drive "id=root,file=$guest/root.ext2,format=raw,if=none,snapshot=on"
	-drive "id=disk,file=$work/disk.ext2,format=raw,if=none,read-only=on"
	-device "virtio-blk-pci,drive=root" -device "virtio-blk-pci,drive=disk"
	-device "virtio-serial-pci"
	-chardev "file,id=status,path=$work/status")
# shellcheck disable=SC2054
[ -z "$icount" ] || qemu+=(-icount shift=0,sleep=off)
[ -z "$plugin" ] || qemu+=(-plugin "$plugin")
if [ -n "$interactive" ]; then
	# shellcheck disable=SC2054
	qemu+=(-serial mon:stdio -chardev null,id=output)
else
	# shellcheck disable=SC2054
	qemu+=(-serial "file:$console" -chardev stdio,id=output,signal=off)
fi
# shellcheck disable=SC2054
qemu+=(-device virtconsole,chardev=output -device virtconsole,chardev=status
	-append "$append")
# shellcheck disable=SC2054
if [ -n "$control" ]; then
	qemu+=(-monitor "unix:$control/monitor,server=on,wait=off"
		-chardev "socket,id=guest,path=$control/guest,server=on,wait=off" -device virtconsole,chardev=guest)
else
	qemu+=(-monitor none)
fi

died=0
if [ -n "$interactive" ]; then
	in_toolchain env TMPDIR=/tmp "${qemu[@]}" || died=$?
else
	in_toolchain env TMPDIR=/tmp timeout --foreground "$timeout" "${qemu[@]}" </dev/null || died=$?
fi

if [ ! -s "$work/status" ]; then
	[ -n "$interactive" ] && exit 0
	[ "$died" -ne 124 ] || printf 'the guest did not finish within %s s\n' "$timeout" >&2
	printf 'the guest died; the last kernel messages:\n' >&2
	tail -n 40 "$console" >&2
	exit 1
fi
exit "$(tr -dc '0-9' <"$work/status")"
