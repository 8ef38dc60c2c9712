// SPDX-License-Identifier: GPL-2.0
/*
 * The two ways from a packet to an entry, each in one call: by the packet's tuple before conntrack
 * sees it, and by the handle of its connection afterwards. The first one also finds out whether the
 * packet may jump. Softirq or process context, under rcu_read_lock().
 */
#include <linux/netfilter_bridge.h>
#include <linux/rhashtable.h>
#include <net/netfilter/nf_conntrack.h>

/* Returns whether the packet's zone does not depend on its direction. */
static __always_inline bool nfzr_is_one_zone(const struct nfzr_probe *p)
{
	return p->zone[IP_CT_DIR_ORIGINAL] == p->zone[IP_CT_DIR_REPLY];
}

/* Returns the port and the protocol's number behind it, of either end of a tuple. */
#define nfzr_port_and_number(end) (*(const u32 *)&(end).u)

/* As nf_ct_tuple_equal(), where one is a tuple of IPv4, whose other bytes are 0. */
static __always_inline bool nfzr_tuple_equal4(const struct nf_conntrack_tuple *a,
					      const struct nf_conntrack_tuple *b)
{
	const u32 without_dir = (__force u32)htonl(0xffffff00);

	BUILD_BUG_ON(offsetof(struct nf_conntrack_tuple, src.l3num) !=
		     offsetof(struct nf_conntrack_tuple, src.u) + 2);
	BUILD_BUG_ON(offsetof(struct nf_conntrack_tuple, dst.protonum) !=
		     offsetof(struct nf_conntrack_tuple, dst.u) + 2);
	return a->src.u3.ip == b->src.u3.ip && a->dst.u3.ip == b->dst.u3.ip &&
	       nfzr_port_and_number(a->src) == nfzr_port_and_number(b->src) &&
	       !((nfzr_port_and_number(a->dst) ^ nfzr_port_and_number(b->dst)) & without_dir);
}

/*
 * As nf_ct_key_equal(): compares the tuple, and the packet's zone for the tuple's direction, which
 * must be the table's zone. Entries of dead connections do not match.
 */
static __always_inline int nfzr_lookup_cmp(struct nfzr_lookup *l, const void *obj, const u8 pf)
{
	struct nfzr_table_key key = nfzr_table_key_of(obj);
	const struct nf_conntrack_tuple *tuple = nf_ct_tuple(key.ct, key.dir);
	bool is_equal = pf == NFPROTO_IPV4 ? nfzr_tuple_equal4(tuple, &l->probe.tuple) :
					     nf_ct_tuple_equal(tuple, &l->probe.tuple);

	if (is_equal && (key.dir == l->at || nfzr_is_one_zone(&l->probe))) {
		if (!nfzr_ct_is_gone(key.ct))
			return 0;
		/* The place and the port of the original direction matter first. */
		if (!l->gone)
			l->gone = (struct nfzr_links *)nfzr_links_of(obj);
	}
	l->met[l->at]++;
	return 1;
}

/* The key is the caller's lookup, which counts the entries that do not match. */
static __always_inline int nfzr_lookup_cmp4(struct rhashtable_compare_arg *arg, const void *obj)
{
	return nfzr_lookup_cmp((struct nfzr_lookup *)arg->key, obj, NFPROTO_IPV4);
}

static __always_inline int nfzr_lookup_cmp6(struct rhashtable_compare_arg *arg, const void *obj)
{
	return nfzr_lookup_cmp((struct nfzr_lookup *)arg->key, obj, NFPROTO_IPV6);
}

static __always_inline u32 nfzr_lookup_hash4(const void *data, u32 len, u32 seed)
{
	const struct nfzr_lookup *l = data;

	return nfzr_tuple_hash(&l->probe.tuple, NFPROTO_IPV4, l->probe.net_mix, seed);
}

static __always_inline u32 nfzr_lookup_hash6(const void *data, u32 len, u32 seed)
{
	const struct nfzr_lookup *l = data;

	return nfzr_tuple_hash(&l->probe.tuple, NFPROTO_IPV6, l->probe.net_mix, seed);
}

/* Constants for lookups only; rhashtable's own code never sees them. */
static const struct rhashtable_params nfzr_lookup_params4 = {
	.key_len = sizeof(struct nfzr_lookup),
	.head_offset = 0,
	.hashfn = nfzr_lookup_hash4,
	.obj_hashfn = nfzr_obj_hash,
	.obj_cmpfn = nfzr_lookup_cmp4,
};

static const struct rhashtable_params nfzr_lookup_params6 = {
	.key_len = sizeof(struct nfzr_lookup),
	.head_offset = 0,
	.hashfn = nfzr_lookup_hash6,
	.obj_hashfn = nfzr_obj_hash,
	.obj_cmpfn = nfzr_lookup_cmp6,
};

/*
 * Searches the zone that the packet belongs to if it goes in the direction `at'. Returns the ct of
 * the entry that was found, with a reference, or NULL.
 */
static __always_inline struct nf_conn *nfzr_lookup_at(struct __genradix *zones,
						      struct nfzr_lookup *l, u8 at, const u8 pf)
{
	struct nfzr_tabled *zone = nfzr_array_load(zones, l->probe.zone[at]);
	struct nfzr_links *links;
	struct rhash_head *link;

	BUILD_BUG_ON(!__builtin_constant_p(nfzr_lookup_params4.key_len));
	l->zone[at] = zone;
	if (!zone)
		return NULL;
	l->at = at;
	if (pf == NFPROTO_IPV4)
		link = rhashtable_lookup_likely(zone->table, l, nfzr_lookup_params4);
	else
		link = rhashtable_lookup_likely(zone->table, l, nfzr_lookup_params6);
	if (!link)
		return NULL;
	links = (struct nfzr_links *)nfzr_links_of(link);
	l->found_in = zone;
	l->found = links;
	l->dir = nfzr_dir_of(link);
	return nfzr_links_get_ct(links) ? links->ct : NULL;
}

static noinline struct nf_conn *nfzr_lookup_at_reply(struct __genradix *zones,
						     struct nfzr_lookup *l, u8 pf)
{
	return pf == NFPROTO_IPV4 ? nfzr_lookup_at(zones, l, IP_CT_DIR_REPLY, NFPROTO_IPV4) :
				    nfzr_lookup_at(zones, l, IP_CT_DIR_REPLY, NFPROTO_IPV6);
}

/* Returns the pass of the direction of a packet that was found, or NULL. */
static __always_inline const struct nfzr_pass *nfzr_find_pass(struct __genradix *passes, const u8 pf,
							      const struct nfzr_lookup *l)
{
	const struct nfzr_links *links = l->found;
	const struct nfzr_pass *p = nfzr_array_load(passes, links->index << 1 | l->dir);

	return p && p->owner == links && p->cached.family == (pf == NFPROTO_IPV6) ? p : NULL;
}

/*
 * Searches the connection of a packet of the family pf, as nfzr_probe(). At ingress, only a packet whose
 * direction has a pass is found.
 */
static __always_inline enum nfzr_track nfzr_lookup(struct sk_buff *skb, const u8 pf,
						   const bool at_ingress, u32 end,
						   const struct nf_hook_state *state,
						   const struct nf_conn *tmpl,
						   struct __genradix *zones,
						   struct __genradix *passes, struct nfzr_lookup *l)
{
	enum nfzr_track why = nfzr_probe(skb, pf, end, state, tmpl, &l->probe);
	struct nf_conn *ct;

	if (why != NFZR_TRACK)
		return why;
	/* In the order of resolve_normal_ct(). */
	ct = nfzr_lookup_at(zones, l, IP_CT_DIR_ORIGINAL, pf);
	if (!ct && !nfzr_is_one_zone(&l->probe))
		ct = nfzr_lookup_at_reply(zones, l, pf);
	if (!ct)
		return NFZR_UNTRACK_UNKNOWN;
	why = nfzr_ct_why(ct);
	l->pass = passes ? nfzr_find_pass(passes, pf, l) : NULL;
	if (at_ingress && !l->pass)
		why = NFZR_UNTRACK_UNKNOWN;
	if (why == NFZR_TRACK && !nfzr_checksum_good(skb, pf, at_ingress, end, state, &l->probe))
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

/* Looks at all that may keep a packet that was found from jumping. */
static __always_inline enum nfzr_stay nfzr_find_exit(struct sk_buff *skb, const u8 pf,
						     const bool at_ingress,
						     const struct nf_hook_state *state,
						     struct nfzr_ruleset *r, struct nfzr_lookup *l)
{
	const struct nf_conn *ct = l->found->ct;
	const struct nfzr_pass *p = l->pass;

	if (!p)
		return NFZR_STAY_UNLEARNED;
	if (!r)
		return NFZR_STAY_RULES;
	return pf == NFPROTO_IPV4 ?
		       nfzr_may_jump4(skb, at_ingress, state, ct, l->dir, p, r, &l->exit) :
		       nfzr_may_jump6(skb, at_ingress, state, ct, l->dir, p, r, &l->exit);
}

static __always_inline void nfzr_lookup_begin(struct nfzr_lookup *l)
{
	l->zone[IP_CT_DIR_ORIGINAL] = NULL;
	l->zone[IP_CT_DIR_REPLY] = NULL;
	l->met[IP_CT_DIR_ORIGINAL] = 0;
	l->met[IP_CT_DIR_REPLY] = 0;
	l->gone = NULL;
}

static __always_inline bool nfzr_lookup_new(struct sk_buff *skb, const u8 pf,
					    const struct nf_hook_state *state,
					    struct __genradix *zones, struct __genradix *passes,
					    struct nfzr_ruleset *r, struct nfzr_lookup *l)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *tmpl = nf_ct_get(skb, &ctinfo);

	if (r)
		nfzr_note_arrived(r->observer, skb, pf, state->in);
	if (ctinfo == IP_CT_UNTRACKED || (tmpl && !nf_ct_is_template(tmpl)))
		return false;
	if (nf_bridge_info_exists(skb))
		return false;
	nfzr_lookup_begin(l);
	l->why = nfzr_lookup(skb, pf, false, skb->len, state, tmpl, zones, passes, l);
	if (passes && l->why == NFZR_TRACK)
		l->stay = nfzr_find_exit(skb, pf, false, state, r, l);
	return true;
}

/*
 * Looks up a packet that conntrack has not seen yet, in a PRE_ROUTING hook, and checks that conntrack
 * would do nothing unusual with it; zones is an array of struct nfzr_tabled.
 * Returns false if conntrack has seen the packet, if it is marked untracked, or if it comes from a
 * bridge. Otherwise l->why says whether the packet's connection was found. If it is NFZR_TRACK, the
 * caller gets a reference to the connection.
 * If passes, an array of struct nfzr_pass, is not NULL, l->stay says whether a packet whose connection
 * was found may jump; r is the firewall that was recorded last, or NULL.
 */
bool __flatten nfzr_helper_lookup4(struct sk_buff *skb, const struct nf_hook_state *state,
			 struct __genradix *zones, struct __genradix *passes,
			 struct nfzr_ruleset *r, struct nfzr_lookup *l)
{
	return nfzr_lookup_new(skb, NFPROTO_IPV4, state, zones, passes, r, l);
}

bool __flatten nfzr_helper_lookup6(struct sk_buff *skb, const struct nf_hook_state *state,
			 struct __genradix *zones, struct __genradix *passes,
			 struct nfzr_ruleset *r, struct nfzr_lookup *l)
{
	return nfzr_lookup_new(skb, NFPROTO_IPV6, state, zones, passes, r, l);
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
