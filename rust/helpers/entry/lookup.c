// SPDX-License-Identifier: GPL-2.0
/*
 * The two ways from a packet to an entry, each in one call: by the packet's tuple before conntrack
 * sees it, and by the handle of its connection afterwards. Softirq or process context, under
 * rcu_read_lock().
 */
#include <linux/netfilter_bridge.h>
#include <linux/rhashtable.h>
#include <net/netfilter/nf_conntrack.h>

static __always_inline u32 nfzr_lookup_hash(const void *data, u32 len, u32 seed)
{
	const struct nfzr_lookup *l = data;

	return nfzr_tuple_hash(&l->probe.tuple, l->probe.net_mix, seed);
}

/* Returns whether the packet's zone does not depend on its direction. */
static __always_inline bool nfzr_is_one_zone(const struct nfzr_probe *p)
{
	return p->zone[IP_CT_DIR_ORIGINAL] == p->zone[IP_CT_DIR_REPLY];
}

/*
 * As nf_ct_key_equal(): compares the tuple, and the packet's zone for the tuple's direction, which
 * must be the table's zone. Entries of dead connections do not match.
 */
static __always_inline int nfzr_lookup_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	/* The caller's lookup, which counts the entries that do not match. */
	struct nfzr_lookup *l = (struct nfzr_lookup *)arg->key;
	struct nfzr_table_key key = nfzr_table_key_of(obj);

	if (nf_ct_tuple_equal(nf_ct_tuple(key.ct, key.dir), &l->probe.tuple) &&
	    (key.dir == l->at || nfzr_is_one_zone(&l->probe))) {
		if (!nfzr_ct_is_gone(key.ct))
			return 0;
		/* The place and the port of the original direction matter first. */
		if (!l->gone)
			l->gone = (struct nfzr_links *)nfzr_links_of(obj);
	}
	l->met[l->at]++;
	return 1;
}

/* A constant for lookups only; rhashtable's own code never sees it. */
static const struct rhashtable_params nfzr_lookup_params = {
	.key_len = sizeof(struct nfzr_lookup),
	.head_offset = 0,
	.hashfn = nfzr_lookup_hash,
	.obj_hashfn = nfzr_obj_hash,
	.obj_cmpfn = nfzr_lookup_cmp,
};

/*
 * Searches the zone that the packet belongs to if it goes in the direction `at'. Returns the ct of
 * the entry that was found, with a reference, or NULL.
 */
static __always_inline struct nf_conn *nfzr_lookup_at(struct __genradix *zones,
						      struct nfzr_lookup *l, u8 at)
{
	struct nfzr_tabled *zone = nfzr_array_load(zones, l->probe.zone[at]);
	struct nfzr_links *links;
	struct rhash_head *link;

	BUILD_BUG_ON(!__builtin_constant_p(nfzr_lookup_params.key_len));
	l->zone[at] = zone;
	if (!zone)
		return NULL;
	l->at = at;
	link = rhashtable_lookup_likely(zone->table, l, nfzr_lookup_params);
	if (!link)
		return NULL;
	links = (struct nfzr_links *)nfzr_links_of(link);
	l->found_in = zone;
	l->found = links;
	l->dir = nfzr_dir_of(link);
	return nfzr_links_get_ct(links) ? links->ct : NULL;
}

static noinline struct nf_conn *nfzr_lookup_at_reply(struct __genradix *zones,
						     struct nfzr_lookup *l)
{
	return nfzr_lookup_at(zones, l, IP_CT_DIR_REPLY);
}

static __always_inline enum nfzr_track nfzr_lookup(struct sk_buff *skb,
						   const struct nf_hook_state *state,
						   const struct nf_conn *tmpl,
						   struct __genradix *zones, struct nfzr_lookup *l)
{
	enum nfzr_track why = nfzr_probe(skb, state, tmpl, &l->probe);
	struct nf_conn *ct;

	if (why != NFZR_TRACK)
		return why;
	/* In the order of resolve_normal_ct(). */
	ct = nfzr_lookup_at(zones, l, IP_CT_DIR_ORIGINAL);
	if (!ct && !nfzr_is_one_zone(&l->probe))
		ct = nfzr_lookup_at_reply(zones, l);
	if (!ct)
		return NFZR_UNTRACK_UNKNOWN;
	why = nfzr_ct_why(ct);
	if (why == NFZR_TRACK && !nfzr_checksum_good(skb, state, &l->probe))
		why = NFZR_UNTRACK_CHECKSUM;
	if (unlikely(why != NFZR_TRACK)) {
		nf_ct_put(ct);
		return why;
	}
	if (l->probe.is_tcp)
		nfzr_read_tcp(state->net, ct, &l->tcp);
	else
		nfzr_read_udp(state->net, ct, &l->udp);
	return NFZR_TRACK;
}

/*
 * Looks up a packet that conntrack has not seen yet, in a PRE_ROUTING hook, and checks that conntrack
 * would do nothing unusual with it; zones is an array of struct nfzr_tabled.
 * Returns false if conntrack has seen the packet, if it is marked untracked, or if it comes from a
 * bridge. Otherwise l->why says whether the packet's connection was found. If it is NFZR_TRACK, the
 * caller gets a reference to the connection.
 */
bool nfzr_helper_lookup(struct sk_buff *skb, const struct nf_hook_state *state,
			struct __genradix *zones, struct nfzr_lookup *l)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *tmpl = nf_ct_get(skb, &ctinfo);

	if (ctinfo == IP_CT_UNTRACKED || (tmpl && !nf_ct_is_template(tmpl)))
		return false;
	if (nf_bridge_info_exists(skb))
		return false;
	l->zone[IP_CT_DIR_ORIGINAL] = NULL;
	l->zone[IP_CT_DIR_REPLY] = NULL;
	l->met[IP_CT_DIR_ORIGINAL] = 0;
	l->met[IP_CT_DIR_REPLY] = 0;
	l->gone = NULL;
	l->why = nfzr_lookup(skb, state, tmpl, zones, l);
	return true;
}

/*
 * As nfzr_helper_count_ct(). If the handle is one of zero + 1 to zero + NFZR_MAX_INDEX, also looks
 * for the entry with that number, and sets c->links if it is the live entry of the ct.
 *
 * A dead entry may be of an earlier connection at the same address. It died before that connection's
 * memory became the ct.
 */
bool nfzr_helper_find_entry(const struct sk_buff *skb, u64 first, u8 most, u64 zero,
			    struct __genradix *entries, struct nfzr_ct_ref *c)
{
	struct nfzr_links *links;

	if (!nfzr_count_ct(skb, first, most, c))
		return false;
	if (c->handle - zero > NFZR_MAX_INDEX)
		return true;
	links = nfzr_array_load(entries, c->handle - zero);
	if (links && links->ct == c->ct && READ_ONCE(links->state) == NFZR_LIVE)
		c->links = links;
	return true;
}
