// SPDX-License-Identifier: GPL-2.0
/*
 * Numbers for objects. Any context; does not sleep.
 */
#include <linux/idr.h>

/* Allocates the lowest free number in min..=max. Returns -ENOSPC if there is none. */
int nfzr_helper_ida_alloc(struct ida *ida, u32 min, u32 max)
{
	/* rust/kapi/mem/ids.rs repeats this value. */
	BUILD_BUG_ON(IDA_BITMAP_BITS != 1024);
	return ida_alloc_range(ida, min, max, GFP_ATOMIC | __GFP_NOWARN);
}

void nfzr_helper_ida_init(struct ida *ida)
{
	ida_init(ida);
}
