// SPDX-License-Identifier: GPL-2.0
/*
 * Seats: each conntrack entry that counts against the limit of its zone has one. A seat holds no
 * reference to its ct, so conntrack's own count and NAT's ports are as without it. It has a copy of
 * the original tuple instead, by which conntrack says whether the connection is still there.
 *
 * A connection gets its seat just before conntrack confirms it. It counts from then on, although
 * conntrack does not find it yet. Later packets note that it was confirmed. If none comes, a seat
 * whose connection is not found is free after NFZR_SEAT_CONFIRM.
 *
 * Locks, in this order: the lock of conntrack's hash bucket (in a walk only), the limit's lock, the
 * bucket lock of the rhashtable. All disable bottom halves. Conntrack is asked about a seat without
 * a lock, because it may then delete an expired connection.
 */
#include <linux/list.h>
#include <linux/rhashtable.h>
#include <linux/slab.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_zones.h>

/*
 * How long a connection may take from its seat until it is confirmed. Only few hooks are in between,
 * but a task or a softirq that is preempted there may take its time.
 */
#define NFZR_SEAT_CONFIRM (HZ / 10)

/* How many seats of full limits are asked about in a jiffy, in a netns, on all CPUs together. */
#define NFZR_SEATS_PER_JIFFY 1024

/* How often a seat in the way is removed, which another CPU may be about to do. */
#define NFZR_SEAT_TRIES 16

struct nfzr_seat {
	struct rhash_head node;		/* in nfzr_seats.by_ct unless `unhashed' is set */
	struct list_head list;		/* in nfzr_limit.seats, under its lock */
	struct nfzr_limit *limit;
	const struct nf_conn *ct;	/* by address, never dereferenced */
	struct nf_conntrack_tuple tuple;
	struct nf_conntrack_zone zone;
	u32 since;			/* when it was taken, in jiffies */
	bool confirmed;			/* a packet met the connection confirmed */
	int unhashed;			/* not in by_ct, or not any more: set by xchg() */
	bool removed;			/* not in the list any more; under the limit's lock */
	struct rcu_head rcu;
};

static const struct rhashtable_params nfzr_seat_params = {
	.key_len = sizeof_field(struct nfzr_seat, ct),
	.key_offset = offsetof(struct nfzr_seat, ct),
	.head_offset = offsetof(struct nfzr_seat, node),
	.automatic_shrinking = true,
};

/* Process context. */
int nfzr_helper_seats_init(struct nfzr_seats *s, struct net *net)
{
	s->net = net;
	s->jiffy = (u32)jiffies;
	s->asked = 0;
	return rhashtable_init(&s->by_ct, &nfzr_seat_params);
}

/* Process context. All limits have ended. */
void nfzr_helper_seats_destroy(struct nfzr_seats *s)
{
	rhashtable_destroy(&s->by_ct);
}

void nfzr_helper_limit_init(struct nfzr_limit *l, struct nfzr_seats *all)
{
	spin_lock_init(&l->lock);
	INIT_LIST_HEAD(&l->seats);
	l->all = all;
	l->count = 0;
}

u32 nfzr_helper_limit_count(const struct nfzr_limit *l)
{
	return READ_ONCE(l->count);
}

/* Takes a seat out of the table by ct. Under rcu_read_lock(). */
static void nfzr_seat_leave(struct nfzr_seats *all, struct nfzr_seat *seat)
{
	if (!xchg(&seat->unhashed, 1))
		rhashtable_remove_fast(&all->by_ct, &seat->node, nfzr_seat_params);
}

/* Removes a seat. Under the limit's lock and rcu_read_lock(). */
static void nfzr_seat_remove(struct nfzr_limit *l, struct nfzr_seat *seat)
{
	lockdep_assert_held(&l->lock);
	if (seat->removed)
		return;
	seat->removed = true;
	list_del(&seat->list);
	WRITE_ONCE(l->count, l->count - 1);
	nfzr_seat_leave(l->all, seat);
	kfree_rcu(seat, rcu);
}

/* Removes all seats. The caller is the last user of the limit. Process context; may sleep. */
void nfzr_helper_limit_end(struct nfzr_limit *l)
{
	struct nfzr_seat *seat;

	do {
		rcu_read_lock();
		spin_lock_bh(&l->lock);
		seat = list_first_entry_or_null(&l->seats, struct nfzr_seat, list);
		if (seat)
			nfzr_seat_remove(l, seat);
		spin_unlock_bh(&l->lock);
		rcu_read_unlock();
		cond_resched();
	} while (seat);
}

/*
 * Asks conntrack whether the connection of a seat has ended. An expired one is deleted, as by any
 * other lookup. Any context, without locks.
 */
static bool nfzr_seat_has_ended(struct net *net, const struct nfzr_seat *seat)
{
	const struct nf_conntrack_tuple_hash *h;
	struct nf_conn *ct;
	bool same;

	h = nf_conntrack_find_get(net, &seat->zone, &seat->tuple);
	if (!h)
		return READ_ONCE(seat->confirmed) ||
		       (u32)jiffies - seat->since > NFZR_SEAT_CONFIRM;
	ct = nf_ct_tuplehash_to_ctrack(h);
	same = ct == seat->ct;
	nf_ct_put(ct);
	return !same;
}

/*
 * Returns whether another seat counts the same connection: a packet met the connection while its seat
 * was not in the table by ct. Under rcu_read_lock().
 */
static bool nfzr_seat_is_double(const struct nfzr_limit *l, const struct nfzr_seat *seat)
{
	const struct nfzr_seat *other;

	if (likely(!READ_ONCE(seat->unhashed)))
		return false;
	other = rhashtable_lookup_fast(&l->all->by_ct, &seat->ct, nfzr_seat_params);
	return other && other->limit == l && nf_ct_tuple_equal(&other->tuple, &seat->tuple);
}

/*
 * Asks about the seat that was not asked about for the longest time. Returns false if there is no
 * seat. Any context, without locks.
 */
static bool nfzr_limit_ask(struct nfzr_limit *l)
{
	struct nfzr_seat *seat;

	rcu_read_lock();
	spin_lock_bh(&l->lock);
	seat = list_first_entry_or_null(&l->seats, struct nfzr_seat, list);
	if (seat)
		list_move_tail(&seat->list, &l->seats);
	spin_unlock_bh(&l->lock);
	/* RCU keeps the seat, and the fields that say whose it is do not change. */
	if (seat && (nfzr_seat_has_ended(l->all->net, seat) || nfzr_seat_is_double(l, seat))) {
		spin_lock_bh(&l->lock);
		nfzr_seat_remove(l, seat);
		spin_unlock_bh(&l->lock);
	}
	rcu_read_unlock();
	return seat;
}

/*
 * Asks about seats of a full limit, each at most once, until one is free or the jiffy's share is
 * used up.
 */
static void nfzr_limit_make_room(struct nfzr_limit *l, u32 max)
{
	u32 left = READ_ONCE(l->count), now = (u32)jiffies;
	struct nfzr_seats *all = l->all;

	if (READ_ONCE(all->jiffy) != now) {
		WRITE_ONCE(all->jiffy, now);
		WRITE_ONCE(all->asked, 0);
	}
	while (left-- && READ_ONCE(l->count) >= max &&
	       READ_ONCE(all->asked) < NFZR_SEATS_PER_JIFFY) {
		WRITE_ONCE(all->asked, READ_ONCE(all->asked) + 1);
		if (!nfzr_limit_ask(l))
			return;
	}
}

/*
 * Asks about up to `most' seats, each once. Returns how many it asked about. Process context; lets
 * other tasks run.
 */
u32 nfzr_helper_limit_collect(struct nfzr_limit *l, u32 most)
{
	u32 asked, left = min(READ_ONCE(l->count), most);

	for (asked = 0; asked < left; asked++) {
		if (!nfzr_limit_ask(l))
			break;
		cond_resched();
	}
	return asked;
}

static bool nfzr_seat_is_of(const struct nfzr_seat *seat, const struct nfzr_limit *l,
			    const struct nf_conn *ct)
{
	return seat->limit == l &&
	       nf_ct_tuple_equal(&seat->tuple, nf_ct_tuple(ct, IP_CT_DIR_ORIGINAL));
}

/* Returns whether the confirmed ct has a seat of the limit. Under rcu_read_lock(). */
bool nfzr_helper_limit_has_seat(const struct nfzr_limit *l, const struct nf_conn *ct)
{
	struct nfzr_seat *seat = rhashtable_lookup_fast(&l->all->by_ct, &ct, nfzr_seat_params);

	if (!seat || !nfzr_seat_is_of(seat, l, ct))
		return false;
	if (!READ_ONCE(seat->confirmed))
		WRITE_ONCE(seat->confirmed, true);
	return true;
}

/*
 * Inserts a seat. Seats of earlier connections at the same address are removed. While the table by
 * ct is being rebuilt, it may not take the seat. That of a new connection counts all the same. A
 * confirmed connection gets one from its next packet: returns false. Under the limit's lock and
 * rcu_read_lock().
 */
static bool nfzr_seat_insert(struct nfzr_limit *l, struct nfzr_seat *seat)
{
	int tries = NFZR_SEAT_TRIES;
	struct nfzr_seat *old;

	while ((old = rhashtable_lookup_get_insert_fast(&l->all->by_ct, &seat->node,
							nfzr_seat_params))) {
		if (IS_ERR(old) || !tries--) {
			if (seat->confirmed)
				return false;
			seat->unhashed = 1;
			break;
		}
		if (old->limit == l)
			nfzr_seat_remove(l, old);
		else
			/* Its own limit removes it when it asks about it. */
			nfzr_seat_leave(l->all, old);
	}
	list_add_tail(&seat->list, &l->seats);
	WRITE_ONCE(l->count, l->count + 1);
	return true;
}

/*
 * Takes a seat for a ct if less than max are taken. Returns 0, -EDQUOT if the limit is full, -ENOMEM
 * if no seat could be made. Any context, under rcu_read_lock(); the caller holds a reference to the
 * ct, or the lock of its hash bucket.
 */
int nfzr_helper_limit_take(struct nfzr_limit *l, const struct nf_conn *ct, u32 max)
{
	const struct nf_conntrack_tuple *tuple = nf_ct_tuple(ct, IP_CT_DIR_ORIGINAL);
	struct nfzr_seat *seat;
	int err = -EDQUOT;

	seat = kmalloc(sizeof(*seat), GFP_ATOMIC | __GFP_NOWARN | __GFP_ACCOUNT);
	if (!seat)
		return -ENOMEM;
	seat->limit = l;
	seat->ct = ct;
	seat->tuple = *tuple;
	seat->zone = *nf_ct_zone(ct);
	seat->since = (u32)jiffies;
	seat->confirmed = nf_ct_is_confirmed(ct);
	seat->unhashed = 0;
	seat->removed = false;
	spin_lock_bh(&l->lock);
	if (l->count < max)
		err = nfzr_seat_insert(l, seat) ? 0 : -ENOMEM;
	spin_unlock_bh(&l->lock);
	if (err)
		kfree(seat);
	return err;
}

/*
 * As nfzr_helper_limit_take(), but first looks for ended connections: among two seats, so that their
 * number does not grow while connections come and go, and if the limit is full, among many. Without
 * locks.
 */
int nfzr_helper_limit_admit(struct nfzr_limit *l, const struct nf_conn *ct, u32 max)
{
	if (READ_ONCE(l->count) >= max) {
		nfzr_limit_make_room(l, max);
	} else {
		nfzr_limit_ask(l);
		nfzr_limit_ask(l);
	}
	if (READ_ONCE(l->count) >= max)
		return -EDQUOT;
	return nfzr_helper_limit_take(l, ct, max);
}

/*
 * Calls visit for every connection of a netns that is in conntrack's hash table, under
 * rcu_read_lock() and the lock of a hash bucket. Process context; sleeps.
 */
struct nfzr_conn_walk {
	void (*visit)(void *context, struct nf_conn *ct);
	void *context;
};

static int nfzr_conn_visit(struct nf_conn *ct, void *data)
{
	const struct nfzr_conn_walk *walk = data;

	rcu_read_lock();
	walk->visit(walk->context, ct);
	rcu_read_unlock();
	/* Keep it. */
	return 0;
}

void nfzr_helper_conn_walk(struct net *net, void (*visit)(void *context, struct nf_conn *ct),
			   void *context)
{
	struct nfzr_conn_walk walk = { .visit = visit, .context = context };
	const struct nf_ct_iter_data data = { .net = net, .data = &walk };

	nf_ct_iterate_cleanup_net(nfzr_conn_visit, &data);
}

/* As in_vrf_postrouting(): conntrack confirms nothing here, because the packet comes again. */
bool nfzr_helper_in_vrf_postrouting(const struct nf_hook_state *state)
{
	return state->hook == NF_INET_POST_ROUTING && netif_is_l3_master(state->out);
}
