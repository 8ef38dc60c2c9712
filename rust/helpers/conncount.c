// SPDX-License-Identifier: GPL-2.0
/*
 * How many connections a zone has: nf_conncount's lists, which find out by themselves which of their
 * connections are gone. nf_conncount walks a list for the first new connection of each jiffy, which
 * with many of them costs more than a jiffy has, under the list's lock. Here a zone has several lists,
 * and they are walked when its limit is reached, so many connections in a jiffy, and by the collector;
 * in between they may hold connections that are gone. One that waits in an NFQUEUE before it is
 * confirmed is taken for gone, as everywhere with nf_conncount.
 *
 * Each list has a lock of its own, which keeps bottom halves off.
 */
#include <linux/sched.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_count.h>

/* Connections that may be looked at in a jiffy while the limit is reached. */
#define NFZR_GC_PER_JIFFY 256

/* nf_conncount ends a walk after forgetting more than so many: its CONNCOUNT_GC_MAX_COLLECT. */
#define NFZR_GC_COLLECTS 64

void nfzr_helper_conncount_init(struct nfzr_conncount *c)
{
	int i;

	for (i = 0; i < NFZR_COUNT_LISTS; i++)
		nf_conncount_list_init(&c->lists[i]);
	c->net = NULL;
	c->last_gc = (u32)jiffies - 1;
	c->next_list = 0;
}

/* Nobody else uses it any more. */
void nfzr_helper_conncount_free(struct nfzr_conncount *c)
{
	int i;

	for (i = 0; i < NFZR_COUNT_LISTS; i++)
		nf_conncount_cache_free(&c->lists[i]);
}

u32 nfzr_helper_conncount_count(const struct nfzr_conncount *c)
{
	u32 sum = 0;
	int i;

	for (i = 0; i < NFZR_COUNT_LISTS; i++)
		sum += READ_ONCE(c->lists[i].count);
	return sum;
}

/* Forgets all of a list's connections that are gone; how many were looked at, about. */
static u32 nfzr_conncount_walk(struct nf_conncount_list *list, struct net *net)
{
	u32 before, after, looked_at = 0;

	do {
		before = READ_ONCE(list->count);
		/* nf_conncount itself does nothing twice in a jiffy. */
		WRITE_ONCE(list->last_gc, (u32)jiffies - 1);
		nf_conncount_gc_list(net, list);
		after = READ_ONCE(list->count);
		looked_at += before;
	} while (before > after && before - after > NFZR_GC_COLLECTS);
	return looked_at;
}

/* Forgets all connections that are gone. Process context. */
void nfzr_helper_conncount_collect(struct nfzr_conncount *c)
{
	struct net *net = READ_ONCE(c->net);
	int i;

	for (i = 0; net && i < NFZR_COUNT_LISTS; i++) {
		nfzr_conncount_walk(&c->lists[i], net);
		cond_resched();
	}
}

/* Forgets some that are gone, where it left off last time. */
static void nfzr_conncount_make_room(struct nfzr_conncount *c, struct net *net)
{
	u32 looked_at = 0, now = (u32)jiffies;
	int i;

	/* One CPU in a jiffy; others may come in between, for once more. */
	if (READ_ONCE(c->last_gc) == now)
		return;
	WRITE_ONCE(c->last_gc, now);
	for (i = 0; i < NFZR_COUNT_LISTS && looked_at < NFZR_GC_PER_JIFFY; i++) {
		u32 list = READ_ONCE(c->next_list) % NFZR_COUNT_LISTS;

		WRITE_ONCE(c->next_list, list + 1);
		looked_at += nfzr_conncount_walk(&c->lists[list], net);
	}
}

/*
 * Counts the new connection of a packet. 0: it is counted; -EDQUOT: there are max already; -ENOMEM:
 * it is not counted. CPUs that count at the same moment may each count one when there is room for one.
 */
int nfzr_helper_conncount_add(struct nfzr_conncount *c, const struct sk_buff *skb,
			      const struct nf_hook_state *state, u32 max)
{
	struct nf_conncount_list *list;
	int err;

	if (nfzr_helper_conncount_count(c) >= max) {
		nfzr_conncount_make_room(c, state->net);
		if (nfzr_helper_conncount_count(c) >= max)
			return -EDQUOT;
	}
	WRITE_ONCE(c->net, state->net);
	list = &c->lists[get_random_u32_below(NFZR_COUNT_LISTS)];
	/* The list was walked just now, as far as nf_conncount is concerned. */
	WRITE_ONCE(list->last_gc, (u32)jiffies);
	WRITE_ONCE(list->last_gc_count, READ_ONCE(list->count));
	err = nf_conncount_add_skb(state->net, skb, state->pf, list);
	return err && err != -EEXIST ? -ENOMEM : 0;
}
