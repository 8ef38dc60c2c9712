// SPDX-License-Identifier: GPL-2.0
/*
 * RCU callbacks.
 */
#include <linux/rcupdate.h>

/* An inline function where the kernel has no lazy callbacks. */
void nfzr_helper_call_rcu_hurry(struct rcu_head *head, rcu_callback_t func)
{
	call_rcu_hurry(head, func);
}
