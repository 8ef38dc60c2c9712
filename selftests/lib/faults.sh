# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Judging the kernel's log after allocations were made to fail.

# only_that_failed: the kernel logs a call trace for every slab cache and per-CPU area that it
# cannot create. Nothing else may be in its log.
only_that_failed() {
	dmesg >/tmp/dmesg
	if is "$(grep -c 'Call Trace:' /tmp/dmesg)" "$(grep -cE \
		'__kmem_cache_create_args\(nf_zoneroute_.*\) failed with error|percpu: allocation failed' \
		/tmp/dmesg)" &&
		! grep -v 'Call Trace' /tmp/dmesg | grep -qE "$BAD"; then
		dmesg -C
	else
		grep -B 8 -A 8 'Call Trace:' /tmp/dmesg | sed 's/^/# /' | head -n 150
		return 1
	fi
}
