#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes the root directory with the tools that draw the benchmark's plots.

. "$(dirname -- "$0")/lib.sh"
. "$NFZR_TOP/qemu/bootstrap.sh"

make_root() {
	bootstrap "$NFZR_TOP/qemu/plot.packages" "$1"
}

main() {
	need_root
	lock_cache
	cached "$(plot_root)" 'root for plots (gnuplot)' make_root
}

main "$@"
