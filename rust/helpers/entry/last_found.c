// SPDX-License-Identifier: GPL-2.0
/*
 * The last entry that each CPU found, and the packets that it served: see rust/kapi/entry/last_found.rs. Any
 * context. No other task runs on the CPU while its slot is read or written, but a softirq may.
 */
#include <linux/hash.h>
#include <linux/percpu.h>
#include <linux/preempt.h>

void nfzr_helper_recent_found(struct nfzr_recent __percpu *recent, struct nfzr_links *links, u64 ended)
{
	struct nfzr_recent *r;

	preempt_disable();
	r = this_cpu_ptr(recent);
	/* In this order: a softirq between the writes leaves its entry with an earlier count. */
	WRITE_ONCE(r->links, links);
	WRITE_ONCE(r->ended, ended);
	preempt_enable();
}

/*
 * Returns the links of the ct's entry if this CPU found it last and no entry has ended since, else
 * NULL. Under rcu_read_lock().
 */
struct nfzr_links *nfzr_helper_recent_entry(const struct nfzr_recent __percpu *recent, const u64 *ended,
					    const struct nf_conn *ct)
{
	const struct nfzr_recent *r;
	struct nfzr_links *links;
	u64 since;

	preempt_disable();
	r = this_cpu_ptr(recent);
	/* In this order: if a softirq runs between the reads, the count is an earlier one. */
	since = READ_ONCE(r->ended);
	links = READ_ONCE(r->links);
	preempt_enable();
	/* links may be dereferenced only if no entry has ended since. */
	if (!links || smp_load_acquire(ended) != since || links->ct != ct)
		return NULL;
	return links;
}

static unsigned int nfzr_served_slot(const struct sk_buff *skb)
{
	return hash_ptr(skb, ilog2(NFZR_SERVED));
}

void nfzr_helper_recent_serve(struct nfzr_recent __percpu *recent, const struct sk_buff *skb, bool served)
{
	const struct sk_buff *now = served ? skb : NULL;

	this_cpu_write(recent->served[nfzr_served_slot(skb)], now);
}

bool nfzr_helper_recent_is_served(const struct nfzr_recent __percpu *recent, const struct sk_buff *skb)
{
	return this_cpu_read(recent->served[nfzr_served_slot(skb)]) == skb;
}
