// SPDX-License-Identifier: GPL-2.0
/*
 * The packets that each CPU served: see rust/kapi/nf/served.rs. Any context.
 */
#include <linux/hash.h>
#include <linux/percpu.h>

static unsigned int nfzr_served_slot(const struct sk_buff *skb)
{
	return hash_ptr(skb, ilog2(NFZR_SERVED));
}

/* Notes that this CPU served skb, or did not. */
void nfzr_helper_served_note(struct nfzr_served __percpu *served, const struct sk_buff *skb,
			     bool is_served)
{
	const struct sk_buff *now = is_served ? skb : NULL;

	this_cpu_write(served->skb[nfzr_served_slot(skb)], now);
}

/* Returns whether this CPU last noted that it served a packet at the address of skb. */
bool nfzr_helper_is_served(const struct nfzr_served __percpu *served, const struct sk_buff *skb)
{
	return this_cpu_read(served->skb[nfzr_served_slot(skb)]) == skb;
}
