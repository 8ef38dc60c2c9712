// SPDX-License-Identifier: GPL-2.0
/*
 * Counts the connections of a zone in nf_conncount lists. nf_conncount detects dead connections and
 * duplicates by walking a list. Therefore there are many short lists, selected by a connection's
 * original tuple. Adding a connection walks its list. When the limit is reached, some of the other
 * lists are walked. The collector walks all of them.
 *
 * A connection that waits in an NFQUEUE before it is confirmed counts as dead, as with every user
 * of nf_conncount.
 *
 * Locks: the list's lock here, then nf_conncount's. Both disable bottom halves.
 */
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/siphash.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_count.h>

/* Target connections per list at the limit. */
#define NFZR_COUNT_PER_LIST 8

#define NFZR_COUNT_MIN_LISTS 64U
#define NFZR_COUNT_MAX_LISTS 16384U

/*
 * Connections scanned per jiffy while the limit is reached. CPUs share the count without a lock, so
 * several of them may each scan that many.
 */
#define NFZR_GC_PER_JIFFY 256

struct nfzr_count_list {
	spinlock_t lock;
	struct nf_conncount_list list;
};

static u32 nfzr_count_lists(u32 max)
{
	return roundup_pow_of_two(clamp(max / NFZR_COUNT_PER_LIST, NFZR_COUNT_MIN_LISTS,
					NFZR_COUNT_MAX_LISTS));
}

/* Initialises c for about max connections. Returns false without memory. Process context. */
bool nfzr_helper_conncount_init(struct nfzr_conncount *c, struct net *net, u32 max)
{
	u32 i;

	memset(c, 0, sizeof(*c));
	c->net = net;
	c->mask = nfzr_count_lists(max) - 1;
	c->lists = kvcalloc(c->mask + 1, sizeof(*c->lists), GFP_KERNEL_ACCOUNT);
	if (!c->lists)
		return false;
	for (i = 0; i <= c->mask; i++) {
		spin_lock_init(&c->lists[i].lock);
		nf_conncount_list_init(&c->lists[i].list);
	}
	get_random_bytes(&c->key, sizeof(c->key));
	return true;
}

/* Frees the lists. The caller is the last user of c. Process context. */
void nfzr_helper_conncount_free(struct nfzr_conncount *c)
{
	u32 i;

	for (i = 0; i <= c->mask; i++)
		nf_conncount_cache_free(&c->lists[i].list);
	kvfree(c->lists);
}

/* Returns whether the lists stay short with max connections. */
bool nfzr_helper_conncount_fits(const struct nfzr_conncount *c, u32 max)
{
	return max / (c->mask + 1) < 8 * NFZR_COUNT_PER_LIST ||
	       c->mask + 1 == NFZR_COUNT_MAX_LISTS;
}

u32 nfzr_helper_conncount_count(const struct nfzr_conncount *c)
{
	int count = atomic_read(&c->count);

	return count < 0 ? 0 : count;
}

/*
 * Makes nf_conncount walk the list and adds the change to c->count. nf_conncount would walk a list
 * only once per jiffy, so last_gc is set back.
 */
static int nfzr_conncount_walk(struct nfzr_conncount *c, struct nfzr_count_list *l,
			       const struct sk_buff *skb, u16 l3num)
{
	u32 before;
	int err = 0;

	lockdep_assert_held(&l->lock);
	before = READ_ONCE(l->list.count);
	WRITE_ONCE(l->list.last_gc, (u32)jiffies - 1);
	if (skb)
		err = nf_conncount_add_skb(c->net, skb, l3num, &l->list);
	else
		nf_conncount_gc_list(c->net, &l->list);
	atomic_add((int)(READ_ONCE(l->list.count) - before), &c->count);
	return err;
}

/* Removes all dead connections. Process context; may sleep. */
void nfzr_helper_conncount_collect(struct nfzr_conncount *c)
{
	u32 i;

	for (i = 0; i <= c->mask; i++) {
		struct nfzr_count_list *l = &c->lists[i];

		if (READ_ONCE(l->list.count)) {
			spin_lock_bh(&l->lock);
			nfzr_conncount_walk(c, l, NULL, 0);
			spin_unlock_bh(&l->lock);
		}
		cond_resched();
	}
}

/* Removes dead connections, continuing after the last scan, until there are fewer than max. */
static void nfzr_conncount_make_room(struct nfzr_conncount *c, u32 max)
{
	u32 i, now = (u32)jiffies;

	if (READ_ONCE(c->gc_jiffy) != now) {
		WRITE_ONCE(c->gc_jiffy, now);
		WRITE_ONCE(c->gc_done, 0);
	}
	for (i = 0; i <= c->mask && READ_ONCE(c->gc_done) < NFZR_GC_PER_JIFFY; i++) {
		u32 next = READ_ONCE(c->gc_next);
		struct nfzr_count_list *l = &c->lists[next & c->mask];

		WRITE_ONCE(c->gc_next, next + 1);
		WRITE_ONCE(c->gc_done, READ_ONCE(c->gc_done) + 1 + READ_ONCE(l->list.count));
		if (!READ_ONCE(l->list.count))
			continue;
		spin_lock_bh(&l->lock);
		nfzr_conncount_walk(c, l, NULL, 0);
		spin_unlock_bh(&l->lock);
		if (nfzr_helper_conncount_count(c) < max)
			return;
	}
}

/*
 * Counts the new connection of a packet. Returns 0 if it is counted, -EDQUOT if there are already
 * max others, -ENOMEM if it could not be counted.
 */
int nfzr_helper_conncount_add(struct nfzr_conncount *c, const struct sk_buff *skb,
			      const struct nf_conn *ct, u32 max)
{
	const struct nf_conntrack_tuple *t = nf_ct_tuple(ct, IP_CT_DIR_ORIGINAL);
	struct nfzr_count_list *l;
	int err;

	if (nfzr_helper_conncount_count(c) >= max) {
		nfzr_conncount_make_room(c, max);
		if (nfzr_helper_conncount_count(c) >= max)
			return -EDQUOT;
	}
	l = &c->lists[hsiphash(t, offsetofend(struct nf_conntrack_tuple, dst.__nfct_hash_offsetend),
			       &c->key) & c->mask];
	spin_lock_bh(&l->lock);
	err = nfzr_conncount_walk(c, l, skb, nf_ct_l3num(ct));
	/*
	 * Another CPU used up the limit. This connection is not confirmed yet, so a walk removes it
	 * again.
	 */
	if (nfzr_helper_conncount_count(c) > max) {
		nfzr_conncount_walk(c, l, NULL, 0);
		err = -EDQUOT;
	}
	spin_unlock_bh(&l->lock);
	if (err == -EDQUOT || !err || err == -EEXIST)
		return err == -EDQUOT ? err : 0;
	return -ENOMEM;
}
