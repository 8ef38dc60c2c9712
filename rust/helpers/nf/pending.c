// SPDX-License-Identifier: GPL-2.0
/*
 * The packets of each CPU that have something to commit: see rust/kapi/nf/pending.rs. Any context.
 */
#include <linux/hash.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>

static unsigned int nfzr_pending_slot(const struct sk_buff *skb)
{
	return hash_ptr(skb, ilog2(NFZR_PENDING));
}

void nfzr_helper_pending_note(struct nfzr_pending __percpu *pending, const struct sk_buff *skb)
{
	this_cpu_write(pending->skb[nfzr_pending_slot(skb)], skb);
}

void nfzr_helper_pending_forget(struct nfzr_pending __percpu *pending, const struct sk_buff *skb)
{
	this_cpu_write(pending->skb[nfzr_pending_slot(skb)], NULL);
}

/* Returns whether this CPU noted a packet at the address of skb. */
bool nfzr_helper_is_noted(const struct nfzr_pending __percpu *pending, const struct sk_buff *skb)
{
	return this_cpu_read(pending->skb[nfzr_pending_slot(skb)]) == skb;
}

/*
 * Returns whether a packet may have something to commit: this CPU noted it, or another CPU may have.
 * A packet that waited in a queue of nfnetlink_queue continues in the task that gives the verdict, a
 * user's. Received packets are in a softirq or in a kernel thread.
 */
bool nfzr_helper_is_pending(const struct nfzr_pending __percpu *pending, const struct sk_buff *skb)
{
	return nfzr_helper_is_noted(pending, skb) || (in_task() && !(current->flags & PF_KTHREAD));
}
