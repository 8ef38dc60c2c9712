// SPDX-License-Identifier: GPL-2.0
/*
 * The last entry that each CPU found: see rust/kapi/entry/last_found.rs. Any context. No other task
 * runs on the CPU while its slot is read or written, but a softirq may.
 */
#include <linux/percpu.h>
#include <linux/preempt.h>

void nfzr_helper_last_found(struct nfzr_last_found __percpu *last, struct nfzr_links *links,
			    u64 ended)
{
	struct nfzr_last_found *r;

	preempt_disable();
	r = this_cpu_ptr(last);
	/* In this order: a softirq between the writes leaves its entry with an earlier count. */
	WRITE_ONCE(r->links, links);
	WRITE_ONCE(r->ended, ended);
	preempt_enable();
}

/*
 * Returns the links of the entry that this CPU found last, or NULL if an entry has ended since.
 * Under rcu_read_lock().
 */
struct nfzr_links *nfzr_helper_last_entry(const struct nfzr_last_found __percpu *last,
					  const u64 *ended)
{
	const struct nfzr_last_found *r;
	struct nfzr_links *links;
	u64 since;

	preempt_disable();
	r = this_cpu_ptr(last);
	/* In this order: if a softirq runs between the reads, the count is an earlier one. */
	since = READ_ONCE(r->ended);
	links = READ_ONCE(r->links);
	preempt_enable();
	/*
	 * links may be dereferenced only if no entry has ended since. It may still have begun to
	 * end: the caller checks its state.
	 */
	if (!links || smp_load_acquire(ended) != since)
		return NULL;
	return links;
}
