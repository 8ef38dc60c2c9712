// SPDX-License-Identifier: GPL-2.0
/*
 * A zone's table: the kernel's rhashtable, keyed by the tuple of a ct's direction, which it reads
 * in the ct itself. Insert, remove: any context with BH on or off. Find: under rcu_read_lock().
 * Init, destroy: process context.
 */
#include <linux/jhash.h>
#include <linux/rhashtable.h>

struct nfzr_key {
	const struct nf_conn *ct;
	u8 dir;
};

static struct nfzr_key nfzr_key_of(const struct rhash_head *link)
{
	const struct nfzr_links *links = (void *)((unsigned long)link & ~15UL);

	BUILD_BUG_ON(offsetof(struct nfzr_links, link) || sizeof(links->link) != 16);
	return (struct nfzr_key){ .ct = links->ct, .dir = link != &links->link[0] };
}

static u32 nfzr_hash(const void *data, u32 len, u32 seed)
{
	const struct nfzr_key *key = data;
	const struct nf_conntrack_tuple *t = nf_ct_tuple(key->ct, key->dir);
	u32 ports = (u32)t->src.u.all << 16 | t->dst.u.all;

	if (t->src.l3num == NFPROTO_IPV4)
		return jhash_3words((__force u32)t->src.u3.ip, (__force u32)t->dst.u3.ip, ports,
				    seed ^ t->dst.protonum);
	seed = jhash2(t->src.u3.all, ARRAY_SIZE(t->src.u3.all), seed ^ t->dst.protonum);
	seed = jhash2(t->dst.u3.all, ARRAY_SIZE(t->dst.u3.all), seed);
	return jhash_1word(ports, seed);
}

static u32 nfzr_obj_hash(const void *obj, u32 len, u32 seed)
{
	struct nfzr_key key = nfzr_key_of(obj);

	return nfzr_hash(&key, 0, seed);
}

static int nfzr_obj_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct nfzr_key *key = arg->key;
	struct nfzr_key other = nfzr_key_of(obj);

	return key->ct != other.ct || key->dir != other.dir;
}

static const struct rhashtable_params nfzr_table_params = {
	.key_len = sizeof(struct nfzr_key),
	.head_offset = 0,
	.hashfn = nfzr_hash,
	.obj_hashfn = nfzr_obj_hash,
	.obj_cmpfn = nfzr_obj_cmp,
	.min_size = 16,
	.nelem_hint = 12,
	.automatic_shrinking = true,
};

int nfzr_helper_table_init(struct rhashtable *ht)
{
	return rhashtable_init(ht, &nfzr_table_params);
}

/* -EEXIST: that direction of that ct is in the table. */
int nfzr_helper_table_insert(struct rhashtable *ht, struct rhash_head *link)
{
	struct nfzr_key key = nfzr_key_of(link);

	return rhashtable_lookup_insert_key(ht, &key, link, nfzr_table_params);
}

void nfzr_helper_table_remove(struct rhashtable *ht, struct rhash_head *link)
{
	rhashtable_remove_fast(ht, link, nfzr_table_params);
}

struct rhash_head *nfzr_helper_table_find(struct rhashtable *ht, const struct nf_conn *ct, u8 dir)
{
	struct nfzr_key key = { .ct = ct, .dir = dir };

	return rhashtable_lookup(ht, &key, nfzr_table_params);
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
