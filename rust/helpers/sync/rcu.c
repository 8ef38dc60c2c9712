// SPDX-License-Identifier: GPL-2.0
/*
 * RCU callbacks.
 */
#include <linux/rcupdate.h>

/* call_rcu_hurry() is an inline function in kernels without lazy callbacks. */
void nfzr_helper_call_rcu_hurry(struct rcu_head *head, rcu_callback_t func)
{
	call_rcu_hurry(head, func);
}
