#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The KUnit suites of the module, run by loading a build that has them. They vanish silently when
# KUnit is not built in, so how many there are is said here.

SUITES=21
CASES=98

. ./lib.sh
plan $((CASES + 2))

insmod /nf_zoneroute/nf_zoneroute_kunit.ko
dmesg | sed 's/^\[[^]]*\] //' >/tmp/kunit

# A case's line is indented, a suite's is not.
sed -n -e 's/^ \+\(ok\) [0-9]* /\1 /p' -e 's/^ \+not \(ok\) [0-9]* /not_\1 /p' /tmp/kunit >/tmp/cases
while read -r verdict name; do
	"$verdict" "$name"
	[ "$verdict" = ok ] || grep -A4 "# $name: " /tmp/kunit | sed 's/^/# /' || true
done </tmp/cases
sed -n 's/.*kunit: \(seed [0-9]*\|[0-9]* of [0-9]* segments predicted\)$/# \1/p' /tmp/kunit
cases=$CHECKS
check 'every suite ran' is "$(grep -c '^ok [0-9]* nfzr_' /tmp/kunit)" "$SUITES"
check 'every case ran' is "$cases" "$CASES"
