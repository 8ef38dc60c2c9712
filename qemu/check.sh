#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# What can be checked without booting: format, lints, the layer rule, where unsafe code stands, and
# the scripts.

. "$(dirname -- "$0")/lib.sh"

cd "$NFZR_TOP"
lock_clone

rust_files() {
	find rust selftests/host -name '*.rs' ! -name '*_generated.rs' | sort
}

format() {
	rust_files | xargs bash "$NFZR_TOP/qemu/in-toolchain.sh" rustfmt --check --edition 2021
}

scripts() {
	in_toolchain sh -c 'exec shellcheck -x qemu/*.sh qemu/guest-init qemu/initramfs-init \
		selftests/*.sh selftests/run selftests/host/run \
		selftests/mutants/run selftests/mutants/one \
		selftests/bench/*.sh selftests/bench/run selftests/bench/profile .ci/run'
	in_toolchain python3 -c 'import glob
for name in glob.glob("selftests/*.py") + glob.glob("selftests/bench/*.py"): compile(open(name).read(), name, "exec")'
}

# bad PATTERN WHAT FILE...: fail if a line of the files that is no comment matches.
bad() {
	local pattern=$1 what=$2
	shift 2
	if grep -nE "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+: *//'; then
		die "$what"
	fi
}

# bindings, helpers <- kapi <- conntrack, route, stats <- netns, hooks, lookup, verify, events, proc,
# sysctl, main.
layers() {
	local kapi middle top
	kapi=$(find rust/kapi -name '*.rs')
	middle=$(find rust/conntrack rust/route rust/stats.rs -name '*.rs')
	top=$(find rust -maxdepth 1 -name '*.rs' ! -name stats.rs)
	# Lists of file names without blanks.
	# shellcheck disable=SC2086
	{
		bad '\b(crate|super)::(conntrack|route|stats|netns|hooks|lookup|verify|events|proc|sysctl)\b' \
			'a file of rust/kapi names a layer above it' $kapi
		bad '\bcrate::(netns|hooks|lookup|verify|events|proc|sysctl)\b|\b(netns|hooks|events|proc)::' \
			'a file of rust/conntrack or rust/route names a layer above it' $middle
		bad '\bbindings::' 'bindings are for rust/kapi only' $middle $top
		bad '\bunsafe (\{|fn|impl|extern)' 'unsafe code is for rust/kapi and rust/bindings only' \
			$middle $top
		bad '\.(unwrap|expect)\(|\b(panic|unreachable|todo|unimplemented)!' \
			'no panic path outside tests' $kapi $middle $top
	}
	local file
	for file in $middle $top; do
		case $file in
		# The root has its crate's attributes; the pure files are also built on the host, where
		# the crate denies it for them; and the macro of KUnit makes unsafe code.
		*/tests.rs | */tests/*.rs) ;;
		rust/nf_zoneroute_main.rs | rust/route/key.rs | rust/route/reason.rs) ;;
		rust/conntrack/command.rs | rust/conntrack/handle.rs | rust/conntrack/outcome.rs) ;;
		rust/conntrack/tcp.rs | rust/conntrack/udp.rs) ;;
		*) grep -q '^#!\[deny(unsafe_code)\]$' "$file" || die "$file does not deny unsafe code" ;;
		esac
	done
}

say_step 'rustfmt' format
say_step 'layers and unsafe code' layers
say_step 'shellcheck' scripts
"$NFZR_TOP/qemu/build.sh" clippy
