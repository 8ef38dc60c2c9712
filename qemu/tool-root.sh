#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# tool-root.sh NAME: makes the root directory with the tools of qemu/NAME.packages.

. "$(dirname -- "$0")/lib.sh"
. "$NFZR_TOP/qemu/bootstrap.sh"

tools=${1:?usage: tool-root.sh NAME}

make_root() {
	bootstrap "$NFZR_TOP/qemu/$tools.packages" "$1"
}

need_root
lock_cache
cached "$(tool_root "$tools")" "tools for the $tools" make_root
