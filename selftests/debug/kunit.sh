#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the module's KUnit suites by loading a build that contains them. If KUnit is not built in,
# the suites are silently absent. So the expected numbers of suites and cases are stated here.
#
# Group: debug
# Kernel: debug

SUITES=24
CASES=120

. lib/test.sh
plan $((CASES + 2))

insmod /nf_zoneroute/nf_zoneroute_kunit.ko
dmesg | sed 's/^\[[^]]*\] //' >/tmp/kunit

# The line of a case is indented, that of a suite is not.
sed -n -e 's/^ \+\(ok\) [0-9]* /\1 /p' -e 's/^ \+not \(ok\) [0-9]* /not_\1 /p' /tmp/kunit >/tmp/cases
while read -r verdict name; do
	"$verdict" "$name"
	[ "$verdict" = ok ] || grep -A4 "# $name: " /tmp/kunit | sed 's/^/# /' || true
done </tmp/cases
sed -n 's/.*kunit: \(seed [0-9]*\|[0-9]* of [0-9]* segments predicted\)$/# \1/p' /tmp/kunit
cases=$CHECKS
check 'every suite ran' is "$(grep -c '^ok [0-9]* nfzr_' /tmp/kunit)" "$SUITES"
check 'every case ran' is "$cases" "$CASES"
