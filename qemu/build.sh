#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the module in the toolchain root.
#
# build.sh stock              for the pinned kernel, in build/stock; for NFZR_KREL, in build/stock-NFZR_KREL
# build.sh debug              for the debug kernel, in build/debug
# build.sh delay              selftests/tools/delay, for the debug kernel, in build/delay
# build.sh kcsan              for the KCSAN kernel, in build/kcsan; with NFZR_DEBUG=kcsan
# build.sh kunit              nf_zoneroute for the debug kernel with the KUnit suites, in build/kunit
# build.sh mutant KIND DIR    as KIND (stock, debug or kunit), from the copy of the sources in DIR
# build.sh clippy             as stock, with clippy in place of rustc; every warning is an error
# build.sh host KREL          for the kernel KREL that 'make prepare' prepared, in the clone itself
# build.sh rust-analyzer      rust-project.json for the pinned kernel

. "$(dirname -- "$0")/lib.sh"

# kbuild TREE DIR ARGUMENT...: run the kernel's make on a module's directory with Debian's compiler.
kbuild() {
	local tree=$1 dir=$2
	shift 2
	in_toolchain make -s -C "$tree" M="$dir" CC="$KERNEL_CC" -j "$(nproc)" "$@"
}

# kbuild_debug DIR ARGUMENT...: the same for the debug kernel, with clang.
kbuild_debug() {
	local dir=$1
	shift
	in_toolchain make -s -C "$(debug_kernel_dir)" M="$dir" LLVM="$DEBUG_LLVM" \
		LOCALVERSION="$DEBUG_LOCALVERSION" -j "$(nproc)" "$@" modules
}

pinned_tree() {
	local release version
	read -r release version <<<"$(pinned_kernel)"
	kernel_dir build "$release" "$version"
}

# Each kernel's build has its own copy of the sources, so that builds do not undo each other.
copy_sources() {
	mkdir -p "$1"
	in_toolchain rsync -a --delete --exclude='*.o' --exclude='.*.cmd' --exclude='*_generated.*' \
		"$NFZR_TOP/Kbuild" "$NFZR_TOP/include" "$NFZR_TOP/rust" "$1/"
}

build_debug_copy() {
	copy_sources "$1"
	kbuild_debug "$@"
}

build_copy() {
	local dir=$1
	shift
	copy_sources "$dir"
	kbuild "$(pinned_tree)" "$dir" "$@" modules
}

# Prints the tree that was prepared for a release; the newest if there are several versions.
prepared_tree() {
	local tree newest=
	for tree in "$NFZR_CACHE/build-$1"-*; do
		[ -e "$tree/.complete" ] || continue
		[ -n "$newest" ] && [ "$newest" -nt "$tree" ] || newest=$tree
	done
	[ -n "$newest" ] ||
		die "no kernel tree is prepared for $1: run 'make prepare KREL=$1' first, or give a prepared one as KDIR=…"
	printf '%s\n' "$newest"
}

case ${1-} in
stock)
	say_step 'build the module' build_copy "$NFZR_TOP/build/stock${NFZR_KREL:+-$NFZR_KREL}"
	;;
debug)
	say_step 'build the module for the debug kernel' build_debug_copy "$NFZR_TOP/build/debug"
	;;
kcsan)
	say_step 'build the module for the KCSAN kernel' build_debug_copy "$NFZR_TOP/build/kcsan"
	;;
kunit)
	say_step 'build the KUnit suites' build_debug_copy "$NFZR_TOP/build/kunit" KUNIT=1
	;;
delay)
	build_delay() {
		mkdir -p "$NFZR_TOP/build/delay"
		cp "$NFZR_TOP"/selftests/tools/delay/* "$NFZR_TOP/build/delay/"
		kbuild_debug "$NFZR_TOP/build/delay"
	}
	say_step "build the tests' own module" build_delay
	;;
mutant)
	dir=$(realpath -- "${3:?usage: build.sh mutant KIND DIR}")
	case $2 in
	stock) kbuild "$(pinned_tree)" "$dir" modules ;;
	debug) kbuild_debug "$dir" ;;
	kunit) kbuild_debug "$dir" KUNIT=1 ;;
	*) die "build.sh: there is no kind $2" ;;
	esac
	;;
clippy)
	say_step 'clippy' build_copy "$NFZR_TOP/build/clippy" CLIPPY=1 W=e
	;;
host)
	tree=$(prepared_tree "${2:?usage: build.sh host KREL}")
	kbuild "$tree" "$NFZR_TOP" modules
	printf 'built nf_zoneroute.ko for %s\n' "$2"
	;;
rust-analyzer)
	kbuild "$(pinned_tree)" "$NFZR_TOP" rust-analyzer
	# The sysroot is that of the toolchain root.
	sed -i "s|\"/usr/lib/rustlib|\"$(toolchain_root)/usr/lib/rustlib|g" "$NFZR_TOP/rust-project.json"
	;;
*)
	die "usage: build.sh stock | debug | delay | kcsan | kunit | mutant KIND DIR | clippy | host KREL | rust-analyzer"
	;;
esac
