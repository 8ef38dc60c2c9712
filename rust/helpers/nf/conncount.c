// SPDX-License-Identifier: GPL-2.0
/*
 * How many connections a zone has, counted in nf_conncount's lists, which find out by themselves which
 * of their connections are gone, and do not count one twice: both by walking a list. So there are many
 * short ones, chosen by a connection's original tuple. The one that a new connection comes into is
 * walked with it; the others some at a time when the limit is reached, and all by the collector.
 *
 * One that waits in an NFQUEUE before it is confirmed is taken for gone, as everywhere with
 * nf_conncount.
 *
 * Locks: a list's own here, then nf_conncount's. Both keep bottom halves off.
 */
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/siphash.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_count.h>

/* Connections to a list, when there are as many as may be. */
#define NFZR_COUNT_PER_LIST 8

#define NFZR_COUNT_MIN_LISTS 64U
#define NFZR_COUNT_MAX_LISTS 16384U

/* Connections that may be looked at in a jiffy while the limit is reached, on each CPU. */
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

/* For about max connections. False: no memory. Process context. */
bool nfzr_helper_conncount_init(struct nfzr_conncount *c, u32 max)
{
	u32 i;

	memset(c, 0, sizeof(*c));
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

/* Nobody else uses it any more. Process context. */
void nfzr_helper_conncount_free(struct nfzr_conncount *c)
{
	u32 i;

	for (i = 0; i <= c->mask; i++)
		nf_conncount_cache_free(&c->lists[i].list);
	kvfree(c->lists);
}

/* Whether lists are still short with max connections. */
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

/* Has nf_conncount walk the list, which it does once in a jiffy only, and notes what that changed. */
static int nfzr_conncount_walk(struct nfzr_conncount *c, struct nfzr_count_list *l, struct net *net,
			       const struct sk_buff *skb, u16 l3num)
{
	u32 before;
	int err = 0;

	lockdep_assert_held(&l->lock);
	before = READ_ONCE(l->list.count);
	WRITE_ONCE(l->list.last_gc, (u32)jiffies - 1);
	if (skb)
		err = nf_conncount_add_skb(net, skb, l3num, &l->list);
	else
		nf_conncount_gc_list(net, &l->list);
	atomic_add((int)(READ_ONCE(l->list.count) - before), &c->count);
	return err;
}

/* Forgets all connections that are gone. Process context. */
void nfzr_helper_conncount_collect(struct nfzr_conncount *c)
{
	struct net *net = READ_ONCE(c->net);
	u32 i;

	for (i = 0; net && i <= c->mask; i++) {
		struct nfzr_count_list *l = &c->lists[i];

		if (READ_ONCE(l->list.count)) {
			spin_lock_bh(&l->lock);
			nfzr_conncount_walk(c, l, net, NULL, 0);
			spin_unlock_bh(&l->lock);
		}
		cond_resched();
	}
}

/* Forgets some that are gone, from where it left off last time, until there are fewer than max. */
static void nfzr_conncount_make_room(struct nfzr_conncount *c, struct net *net, u32 max)
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
		nfzr_conncount_walk(c, l, net, NULL, 0);
		spin_unlock_bh(&l->lock);
		if (nfzr_helper_conncount_count(c) < max)
			return;
	}
}

/*
 * Counts the new connection of a packet. 0: it is counted; -EDQUOT: there are max without it; -ENOMEM:
 * it is not counted.
 */
int nfzr_helper_conncount_add(struct nfzr_conncount *c, const struct sk_buff *skb,
			      const struct nf_hook_state *state, u32 max)
{
	const struct nf_conn *ct = (struct nf_conn *)skb_nfct(skb);
	const struct nf_conntrack_tuple *t = nf_ct_tuple(ct, IP_CT_DIR_ORIGINAL);
	struct nfzr_count_list *l;
	int err;

	if (nfzr_helper_conncount_count(c) >= max) {
		nfzr_conncount_make_room(c, state->net, max);
		if (nfzr_helper_conncount_count(c) >= max)
			return -EDQUOT;
	}
	WRITE_ONCE(c->net, state->net);
	l = &c->lists[hsiphash(t, offsetofend(struct nf_conntrack_tuple, dst.__nfct_hash_offsetend),
			       &c->key) & c->mask];
	spin_lock_bh(&l->lock);
	err = nfzr_conncount_walk(c, l, state->net, skb, state->pf);
	/* Another CPU took the last place: this one is not confirmed, so a walk forgets it again. */
	if (nfzr_helper_conncount_count(c) > max) {
		nfzr_conncount_walk(c, l, state->net, NULL, 0);
		err = -EDQUOT;
	}
	spin_unlock_bh(&l->lock);
	if (err == -EDQUOT || !err || err == -EEXIST)
		return err == -EDQUOT ? err : 0;
	return -ENOMEM;
}
