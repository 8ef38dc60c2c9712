#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Checks that need no boot: format, lints, the layers, the places of unsafe code, the scripts, and the
# documents.

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
		selftests/*.sh selftests/*/*.sh selftests/run selftests/host/run \
		selftests/mutants/run selftests/mutants/one selftests/bench/run selftests/bench/profile .ci/run'
	in_toolchain python3 -c 'import glob
for name in glob.glob("selftests/*/*.py"): compile(open(name).read(), name, "exec")'
}

# bad PATTERN WHAT FILE...: fail with WHAT if a line of the files that is no comment matches.
bad() {
	local pattern=$1 what=$2
	shift 2
	if grep -nE "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+: *//'; then
		die "$what"
	fi
}

layers() {
	local kapi above
	in_toolchain python3 qemu/layers.py
	kapi=$(find rust/kapi -name '*.rs')
	above=$(find rust -name '*.rs' ! -path 'rust/kapi/*' ! -path 'rust/bindings/*')
	# Lists of file names without blanks.
	# shellcheck disable=SC2086
	{
		bad '\bbindings::' 'bindings are for rust/kapi only' $above
		bad '\bunsafe (\{|fn|impl|extern)' 'unsafe code is for rust/kapi and rust/bindings only' $above
		bad '\.(unwrap|expect)\(|\b(panic|unreachable|todo|unimplemented)!' \
			'no panic path outside tests' $kapi $above
	}
}

# The manual page renders without warnings, and the documents are consistent.
documents() {
	local warnings
	in_toolchain python3 qemu/documents.py --check
	warnings=$(in_tool_root manual mandoc -T lint -W warning docs/nf_zoneroute.4) || true
	[ -z "$warnings" ] || die "the manual page has warnings: $warnings"
	in_tool_root manual mandoc -T utf8 docs/nf_zoneroute.4 >/dev/null
}

say_step 'rustfmt' format
say_step 'layers, names, lengths and unsafe code' layers
say_step 'shellcheck' scripts
"$NFZR_TOP/qemu/tool-root.sh" manual
say_step 'documents' documents
"$NFZR_TOP/qemu/build.sh" clippy
