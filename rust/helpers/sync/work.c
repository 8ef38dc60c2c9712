// SPDX-License-Identifier: GPL-2.0
/*
 * Work queues.
 */
#include <linux/workqueue.h>

/* Returns a queue for unbound works, of which at most max run at a time, or NULL. */
struct workqueue_struct *nfzr_helper_queue_alloc(const char *name, int max)
{
	return alloc_workqueue("%s", WQ_UNBOUND, max, name);
}
