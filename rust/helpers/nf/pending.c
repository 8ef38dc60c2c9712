// SPDX-License-Identifier: GPL-2.0
/*
 * The packets of each CPU that have something to commit: see rust/kapi/nf/pending.rs. Any context.
 */
#include <linux/hash.h>
#include <linux/percpu.h>

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
bool nfzr_helper_is_pending(const struct nfzr_pending __percpu *pending, const struct sk_buff *skb)
{
	return this_cpu_read(pending->skb[nfzr_pending_slot(skb)]) == skb;
}
