// SPDX-License-Identifier: GPL-2.0
/*
 * A zone's table: an rhashtable keyed by the tuple of a ct's direction, which it reads in the ct
 * itself. Remove: any context. Insert, find, lookup: under rcu_read_lock(). Init, walk, destroy:
 * process context.
 *
 * A linked entry owns a reference to its ct, so the hash of an entry does not change while
 * rhashtable may compute it. A lookup may still compare an entry that was unlinked meanwhile. Its ct
 * may be another connection by then, because conntrack reuses the memory without a grace period
 * (SLAB_TYPESAFE_BY_RCU). A match therefore counts only if the ct is referenced, and the entry is
 * still live after that.
 *
 * The hash is keyed so that an outside sender cannot choose tuples that fall into one bucket. The
 * key is made of a secret of the module, the netns and the seed that rhashtable gives each table.
 */
#include <linux/random.h>
#include <linux/rhashtable.h>
#include <linux/sched/signal.h>
#include <linux/siphash.h>
#include <net/netfilter/nf_conntrack_tuple.h>
#include <net/netns/hash.h>

/* Written once, when the module is loaded. */
static hsiphash_key_t nfzr_secret __read_mostly;

struct nfzr_table_key {
	const struct nf_conn *ct;
	u8 dir;
};

static const struct nfzr_links *nfzr_links_of(const struct rhash_head *link)
{
	const struct nfzr_links *links = (void *)((unsigned long)link & ~15UL);

	BUILD_BUG_ON(offsetof(struct nfzr_links, link) || sizeof(links->link) != 16);
	return links;
}

static u8 nfzr_dir_of(const struct rhash_head *link)
{
	return (unsigned long)link / sizeof(*link) % IP_CT_DIR_MAX;
}

static struct nfzr_table_key nfzr_table_key_of(const struct rhash_head *link)
{
	return (struct nfzr_table_key){ .ct = nfzr_links_of(link)->ct, .dir = nfzr_dir_of(link) };
}

static __always_inline u32 nfzr_tuple_hash(const struct nf_conntrack_tuple *t, u8 pf, u32 net_mix,
					   u32 seed)
{
	hsiphash_key_t key = nfzr_secret;

	key.key[0] ^= seed;
	key.key[1] ^= net_mix ^ (u64)t->dst.protonum << 32;
	if (pf == NFPROTO_IPV4)
		return hsiphash_3u32((__force u32)t->src.u3.ip, (__force u32)t->dst.u3.ip,
				     (__force u32)t->src.u.all << 16 | (__force u32)t->dst.u.all,
				     &key);
	return hsiphash(t, offsetofend(struct nf_conntrack_tuple, dst.__nfct_hash_offsetend), &key);
}

static u32 nfzr_hash(const void *data, u32 len, u32 seed)
{
	const struct nfzr_table_key *key = data;
	const struct nf_conntrack_tuple *t = nf_ct_tuple(key->ct, key->dir);

	return nfzr_tuple_hash(t, t->src.l3num, net_hash_mix(nf_ct_net(key->ct)), seed);
}

static u32 nfzr_obj_hash(const void *obj, u32 len, u32 seed)
{
	struct nfzr_table_key key = nfzr_table_key_of(obj);

	return nfzr_hash(&key, 0, seed);
}

/*
 * Returns 0 if obj keeps a direction from being inserted: it is the same direction, or it has the
 * same tuple and is the live entry of a dead connection. An entry that is being linked or unlinked
 * does not keep it out, because the inserter could not end it.
 */
static int nfzr_obj_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct nfzr_table_key *key = arg->key;
	struct nfzr_table_key other = nfzr_table_key_of(obj);

	if (key->ct == other.ct)
		return key->dir != other.dir;
	return !nf_ct_tuple_equal(nf_ct_tuple(other.ct, other.dir), nf_ct_tuple(key->ct, key->dir)) ||
	       READ_ONCE(nfzr_links_of(obj)->state) != NFZR_LIVE || !nfzr_ct_is_gone(other.ct);
}

static const struct rhashtable_params nfzr_table_params = {
	.key_len = sizeof(struct nfzr_table_key),
	.head_offset = 0,
	.hashfn = nfzr_hash,
	.obj_hashfn = nfzr_obj_hash,
	.obj_cmpfn = nfzr_obj_cmp,
	.min_size = 16,
	.nelem_hint = 12,
	.automatic_shrinking = true,
};

/* Compares a connection and a direction. */
static int nfzr_find_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct nfzr_table_key *key = arg->key;
	struct nfzr_table_key other = nfzr_table_key_of(obj);

	return key->ct != other.ct || key->dir != other.dir;
}

/* A constant for nfzr_helper_table_find() only; rhashtable's own code never sees it. */
static const struct rhashtable_params nfzr_find_params = {
	.key_len = sizeof(struct nfzr_table_key),
	.head_offset = 0,
	.hashfn = nfzr_hash,
	.obj_hashfn = nfzr_obj_hash,
	.obj_cmpfn = nfzr_find_cmp,
};

/*
 * Draws the secret, at the first call only, because tables that have entries depend on it. Called
 * before the first table is created. get_random_once() is not an option, because it queues work that
 * patches the module's text, and if the module's init fails, do_init_module() frees the module
 * without waiting for that work.
 */
void nfzr_helper_table_draw_secret(void)
{
	static atomic_t drawn = ATOMIC_INIT(0);

	if (!atomic_xchg(&drawn, 1))
		get_random_bytes(&nfzr_secret, sizeof(nfzr_secret));
}

int nfzr_helper_table_init(struct rhashtable *ht)
{
	return rhashtable_init(ht, &nfzr_table_params);
}

/*
 * Inserts a link. Returns NULL on success, an error pointer, or the link that keeps it out: one of
 * the same ct, or of a dead ct with the same tuple. Under rcu_read_lock().
 */
struct rhash_head *nfzr_helper_table_insert(struct rhashtable *ht, struct rhash_head *link)
{
	struct nfzr_table_key key = nfzr_table_key_of(link);

	return rhashtable_lookup_get_insert_key(ht, &key, link, nfzr_table_params);
}

/* Returns false if the link was not found, which is a bug. */
bool nfzr_helper_table_remove(struct rhashtable *ht, struct rhash_head *link)
{
	return !rhashtable_remove_fast(ht, link, nfzr_table_params);
}

struct rhash_head *nfzr_helper_table_find(struct rhashtable *ht, const struct nf_conn *ct, u8 dir)
{
	struct nfzr_table_key key = { .ct = ct, .dir = dir };

	BUILD_BUG_ON(!__builtin_constant_p(nfzr_find_params.key_len));
	return rhashtable_lookup(ht, &key, nfzr_find_params);
}

/*
 * Takes a reference to the ct of an entry, unless the entry is not live. Pairs with the killer of
 * the entry, who changes the state before it gives the entry's own reference up: if the state is
 * still live after a reference was taken, it is a reference to the entry's own ct.
 */
static __always_inline bool nfzr_links_get_ct(const struct nfzr_links *links)
{
	if (!refcount_inc_not_zero(&links->ct->ct_general.use))
		return false;
	smp_acquire__after_ctrl_dep();
	if (likely(READ_ONCE(links->state) == NFZR_LIVE))
		return true;
	nf_ct_put(links->ct);
	return false;
}

bool nfzr_helper_links_get_ct(const struct nfzr_links *links)
{
	return nfzr_links_get_ct(links);
}

/* How often a walk starts over because the table was resized during it. */
#define NFZR_MAX_RESTARTS 64

/*
 * Calls visit for every link, under rcu_read_lock(); visit may remove the link. Links that are
 * added or removed during the walk may be visited or not, and other links may be visited twice. A
 * link that stays is visited unless a link was removed from its bucket. Returns 0 after a whole
 * walk, -EINTR after a fatal signal, -EAGAIN if the table was resized too often.
 */
int nfzr_helper_table_walk(struct rhashtable *ht,
			   void (*visit)(void *context, struct rhash_head *link), void *context)
{
	struct rhashtable_iter iter;
	struct rhash_head *link;
	int restarts = 0;

	rhashtable_walk_enter(ht, &iter);
	do {
		rhashtable_walk_start(&iter);
		while ((link = rhashtable_walk_next(&iter)) && !IS_ERR(link)) {
			visit(context, link);
			if (need_resched())
				break;
		}
		rhashtable_walk_stop(&iter);
		if (IS_ERR(link))
			restarts++;
		cond_resched();
	} while (link && restarts < NFZR_MAX_RESTARTS && !fatal_signal_pending(current));
	rhashtable_walk_exit(&iter);
	if (!link)
		return 0;
	return fatal_signal_pending(current) ? -EINTR : -EAGAIN;
}

u32 nfzr_helper_table_buckets(struct rhashtable *ht)
{
	u32 size;

	rcu_read_lock();
	size = rht_dereference_rcu(ht->tbl, ht)->size;
	rcu_read_unlock();
	return size;
}

void nfzr_helper_table_destroy(struct rhashtable *ht)
{
	rhashtable_destroy(ht);
}
