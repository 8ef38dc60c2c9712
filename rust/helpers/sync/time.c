// SPDX-License-Identifier: GPL-2.0
/*
 * Jiffies and rescheduling.
 */
#include <linux/jiffies.h>
#include <linux/sched.h>

u32 nfzr_helper_jiffies_to_ms(u32 j)
{
	return jiffies_to_msecs(j);
}

void nfzr_helper_cond_resched(void)
{
	cond_resched();
}
