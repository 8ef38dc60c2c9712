#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Prepares a Debian kernel for building Rust modules against it, and the pinned kernel for booting.
#
# kernel.sh                 the pinned kernel: prepared tree, bootable image, modules; if NFZR_KREL is
#                           set, that kernel of the archive
# kernel.sh --prepare KREL  a prepared tree for the kernel release KREL that a Debian machine runs
# kernel.sh --debug         the debug kernel, from the pinned kernel's source: tree, image, modules;
#                           with NFZR_DEBUG=kcsan the KCSAN kernel
#
# Debian's headers have no Rust metadata. Therefore the tree is prepared from the kernel's source
# package of the same version, with the .config and Module.symvers of the headers.

. "$(dirname -- "$0")/lib.sh"

# Finds the newest release of the pinned series whose headers and source the archive has in the
# same version.
resolve_pinned() {
	local to=$1 source version release
	in_toolchain apt-get update -o Acquire::Retries=3
	source=linux-source-$KERNEL_SERIES
	version=$(candidate_of "$source")
	[ -n "$version" ] ||
		die "the archive has no $source any more: set KERNEL_SERIES in qemu/kernel.pin to a series that it has"
	release=$(in_toolchain apt-cache pkgnames "linux-headers-$KERNEL_SERIES." |
		sed -n "s/^linux-headers-\(.*-$KERNEL_FLAVOUR\)$/\1/p" | grep -v -e -rt- |
		while read -r release; do
			[ "$(candidate_of "linux-headers-$release")" != "$version" ] || printf '%s\n' "$release"
		done | sort -V | tail -n 1)
	[ -n "$release" ] ||
		die "the archive has no $KERNEL_FLAVOUR headers of version $version (an update is under way?): try again later"
	printf '%s %s\n' "$release" "$version" >"$to.new"
	mv -- "$to.new" "$to"
}

# Writes down the version of the kernel NFZR_KREL.
resolve_given() {
	local to=$1 version
	in_toolchain apt-get update -o Acquire::Retries=3
	version=$(candidate_of "linux-headers-$NFZR_KREL")
	[ -n "$version" ] || die "the archive has no linux-headers-$NFZR_KREL"
	[ "$(printf '%s\n' 7.3 "$NFZR_KREL" | sort -V | head -n 1)" = 7.3 ] ||
		die "this needs Linux 7.3 or newer, and NFZR_KREL is $NFZR_KREL"
	printf '%s %s\n' "$NFZR_KREL" "$version" >"$to.new"
	mv -- "$to.new" "$to"
}

candidate_of() {
	in_toolchain apt-cache policy "$1" | sed -n 's/^ *Candidate: \([^(].*\)$/\1/p'
}

# download TO VERSION PACKAGE...: fetch packages at one version (checked by apt) and unpack them.
download() {
	local to=$1 version=$2 package
	shift 2
	mkdir -p "$to/debs"
	for package; do
		in_toolchain sh -c 'cd "$1" && apt-get download -o Acquire::Retries=3 "$2=$3"' \
			sh "$to/debs" "$package" "$version"
	done
	for package in "$to"/debs/*.deb; do
		in_toolchain dpkg -x "$package" "$to"
	done
	remove_tree "$to/debs"
}

unpack_source() {
	local version=$1 series=$2 to=$3
	download "$to/package" "$version" "linux-source-$series"
	in_toolchain tar -C "$to" --strip-components=1 -xJf "$to/package/usr/src/linux-source-$series.tar.xz"
	remove_tree "$to/package"
}

# prepare SOURCE RELEASE VERSION TO: run the kernel's own "modules_prepare" in the toolchain root.
prepare() {
	local source=$1 release=$2 version=$3 to=$4 headers local_version
	headers=$to/headers
	download "$headers" "$version" "linux-headers-$release"
	cp -- "$headers/usr/src/linux-headers-$release/.config" "$to/.config"
	grep -q '^CONFIG_RUST=y' "$to/.config" ||
		die "the kernel $release is built without Rust (CONFIG_RUST): nf_zoneroute needs one that has it"
	check_rustc "$source" "$release" "$to/.config"
	# vermagic: the release string must come out equal to the running kernel's.
	local_version=${release#"$(in_toolchain make -s -C "$source" kernelversion)"}
	in_toolchain make -C "$source" O="$to" CC="$KERNEL_CC" LOCALVERSION="$local_version" \
		-j "$(nproc)" olddefconfig modules_prepare
	[ "$(cat "$to/include/config/kernel.release")" = "$release" ] ||
		die "the prepared tree calls itself $(cat "$to/include/config/kernel.release"), not $release"
	cp -- "$headers/usr/src/linux-headers-$release/Module.symvers" "$to/Module.symvers"
	remove_tree "$headers"
}

# The names of Rust symbols depend on the version of the compiler.
check_rustc() {
	local source=$1 release=$2 config=$3 theirs ours
	theirs=$(sed -n 's/^CONFIG_RUSTC_VERSION=//p' "$config")
	ours=$(in_toolchain "$source/scripts/rustc-version.sh" rustc)
	[ "$theirs" = "$ours" ] ||
		die "the kernel $release was built by another rustc ($theirs) than the one of $DEBIAN_SUITE ($ours): no module can match it"
}

unpack_image() {
	local release=$1 version=$2 to=$3
	download "$to" "$version" "linux-binary-$release" "linux-modules-$release"
	find "$to" -type f -name 'vmlinuz*' -exec mv -t "$to" -- {} +
	mv -- "$to"/vmlinuz* "$to/vmlinuz.new"
	mv -- "$to/vmlinuz.new" "$to/vmlinuz"
	mkdir -p "$to/lib"
	find "$to" -type d -path '*/lib/modules' -prune -exec mv -t "$to/lib" -- {} +
	remove_tree "$to/boot"
	remove_tree "$to/usr"
	in_toolchain depmod -b "$to" "$release"
}

# debug_lines: print the lines of the debug kernel's configuration. A line of a later file replaces
# that of an earlier one.
debug_lines() {
	cat "${DEBUG_CONFIGS[@]}" |
		awk -F= '/^CONFIG_/ { line[$1] = $0 } END { for (name in line) print line[name] }'
}

# configure_debug SOURCE TO: make tinyconfig plus these lines, each of which must take effect.
configure_debug() {
	local source=$1 to=$2 line refused=()
	in_toolchain make -s -C "$source" O="$to" LLVM="$DEBUG_LLVM" tinyconfig
	in_toolchain env KCONFIG_CONFIG="$to/.config" "$source/scripts/kconfig/merge_config.sh" \
		-m -O "$to" "$to/.config" "${DEBUG_CONFIGS[@]}"
	in_toolchain make -s -C "$source" O="$to" LLVM="$DEBUG_LLVM" olddefconfig
	while read -r line; do
		case $line in
		CONFIG_*=n) ! grep -q "^${line%n}" "$to/.config" || refused+=("$line") ;;
		CONFIG_*) grep -qxF "$line" "$to/.config" || refused+=("$line") ;;
		esac
	done < <(debug_lines)
	[ "${#refused[@]}" -eq 0 ] ||
		die "the kernel's configuration does not take these lines of ${DEBUG_CONFIGS[*]##*/}: ${refused[*]}"
}

# build_debug SOURCE RELEASE TO: build the debug kernel: in TO the tree for external modules, in
# TO/image the bootable image and its modules.
build_debug() {
	local source=$1 release=$2 to=$3
	configure_debug "$source" "$to"
	in_toolchain make -s -C "$source" O="$to" LLVM="$DEBUG_LLVM" LOCALVERSION="$DEBUG_LOCALVERSION" \
		-j "$(nproc)" bzImage modules
	[ "$(cat "$to/include/config/kernel.release")" = "$release" ] ||
		die "the debug kernel calls itself $(cat "$to/include/config/kernel.release"), not $release"
	in_toolchain make -s -C "$source" O="$to" LLVM="$DEBUG_LLVM" LOCALVERSION="$DEBUG_LOCALVERSION" \
		INSTALL_MOD_PATH="$to/image" modules_install
	cp -- "$to/arch/x86/boot/bzImage" "$to/image/vmlinuz"
	rm -f -- "$to/image/lib/modules/$release/build"
	# Linked objects are not needed any more, except those of the build tools.
	find "$to" -type f \( -name '*.o' -o -name '*.a' -o -name '.*.cmd' \) \
		! -path "$to/scripts/*" ! -path "$to/tools/*" -delete
	rm -f -- "$to"/.tmp_vmlinux* "$to/vmlinux" "$to/arch/x86/boot/compressed/vmlinux"*
}

make_source() {
	cached "$NFZR_CACHE/source-$2" "kernel source $2" unpack_source "$2" "$1"
}

make_tree() {
	local release=$1 version=$2 series source
	series=$(printf '%s\n' "$release" | cut -d. -f1-2)
	source=$NFZR_CACHE/source-$version
	make_source "$series" "$version"
	cached "$(kernel_dir build "$release" "$version")" "prepare the tree of $release" \
		prepare "$source" "$release" "$version"
}

# is_complete FILE: succeed if the cache has the tree and the image of the kernel named in FILE.
is_complete() {
	local release version
	[ -s "$1" ] || return 1
	read -r release version <"$1"
	[ -e "$(kernel_dir build "$release" "$version")/.complete" ] &&
		[ -e "$(kernel_dir image "$release" "$version")/.complete" ]
}

main() {
	local release version file
	lock_cache
	if [ "${1-}" = --prepare ]; then
		release=${2:?usage: kernel.sh --prepare KREL}
		say_step 'update package lists' in_toolchain apt-get update -o Acquire::Retries=3
		version=$(candidate_of "linux-headers-$release")
		[ -n "$version" ] ||
			die "the archive has no linux-headers-$release: prepare a kernel of $DEBIAN_SUITE or $DEBIAN_KERNEL_SUITE (7.3 or newer, installed by apt)"
		make_tree "$release" "$version"
		printf 'prepared: %s\n' "$(kernel_dir build "$release" "$version")"
		return
	fi
	if [ "${1-}" = --debug ]; then
		read -r release version <<<"$(pinned_kernel)"
		make_source "$KERNEL_SERIES" "$version"
		cached "$(debug_kernel_dir)" "debug kernel $(debug_release)" \
			build_debug "$NFZR_CACHE/source-$version" "$(debug_release)"
		return
	fi
	file=$(pinned_kernel_file)
	# If not all packages were fetched, the archive may no longer have the resolved version.
	if is_complete "$file"; then
		:
	elif [ -n "${NFZR_KREL-}" ]; then
		say_step "version of $NFZR_KREL" resolve_given "$file"
	else
		say_step "newest kernel of the series $KERNEL_SERIES" resolve_pinned "$file"
	fi
	read -r release version <"$file"
	make_tree "$release" "$version"
	cached "$(kernel_dir image "$release" "$version")" "stock kernel $release" \
		unpack_image "$release" "$version"
}

main "$@"
