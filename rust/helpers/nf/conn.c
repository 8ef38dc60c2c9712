// SPDX-License-Identifier: GPL-2.0
/*
 * Connections. Any context. The caller holds a reference to the ct, or is under rcu_read_lock()
 * while another owner holds a reference.
 */
#include <linux/inetdevice.h>
#include <linux/netfilter_ipv4.h>
#include <net/addrconf.h>
#include <net/netfilter/nf_conntrack_act_ct.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_zones.h>
#include <net/netfilter/nf_nat.h>

/*
 * A referenced ct stays linked in nf_nat's table by source. Using a symbol of nf_nat keeps that
 * module, and so its table, loaded as long as this module is.
 */
static void *const nfzr_pin_nf_nat __used = nf_nat_packet;

void nfzr_helper_ct_get(struct nf_conn *ct)
{
	nf_conntrack_get(&ct->ct_general);
}

void nfzr_helper_ct_put(struct nf_conn *ct)
{
	nf_ct_put(ct);
}

/* Returns whether the ct is dead. There is no notification of a ct's death, only these flags. */
static __always_inline bool nfzr_ct_is_gone(const struct nf_conn *ct)
{
	return nf_ct_is_dying(ct) || nf_ct_is_expired(ct);
}

bool nfzr_helper_ct_gone(const struct nf_conn *ct)
{
	return nfzr_ct_is_gone(ct);
}

bool nfzr_helper_ct_assured(const struct nf_conn *ct)
{
	return test_bit(IPS_ASSURED_BIT, &ct->status);
}

/* Returns whether the netns has so many connections that conntrack will soon start early drop. */
bool nfzr_helper_ct_nearly_full(const struct net *net)
{
	unsigned int max = READ_ONCE(nf_conntrack_max);

	return max && nf_conntrack_count(net) > max - max / 4;
}

/*
 * Returns whether conntrack processes incoming packets of a family, which it does while a rule
 * needs it. Its hook functions are not visible to modules, so the hook is recognised by its
 * priority. Under rcu_read_lock().
 */
bool nfzr_helper_ct_is_on(const struct net *net, u8 pf)
{
	const struct nf_hook_entries *hooks;
	struct nf_hook_ops **ops;
	int i;

	if (pf == NFPROTO_IPV4)
		hooks = rcu_dereference(net->nf.hooks_ipv4[NF_INET_PRE_ROUTING]);
	else
		hooks = rcu_dereference(net->nf.hooks_ipv6[NF_INET_PRE_ROUTING]);
	if (!hooks)
		return false;
	ops = nf_hook_entries_get_hook_ops(hooks);
	for (i = 0; i < hooks->num_hook_entries; i++)
		/* Chains of rules, whose priorities users choose, have a hook_ops_type. */
		if (READ_ONCE(ops[i])->priority == NF_IP_PRI_CONNTRACK &&
		    READ_ONCE(ops[i])->hook_ops_type == NF_HOOK_OP_UNDEFINED)
			return true;
	return false;
}

/*
 * Returns whether a device of the netns forwards packets of a family that conntrack processes.
 * Under rcu_read_lock().
 */
bool nfzr_helper_forwards_tracked(struct net *net)
{
	const bool on4 = nfzr_helper_ct_is_on(net, NFPROTO_IPV4);
	const bool on6 = nfzr_helper_ct_is_on(net, NFPROTO_IPV6);
	const struct in_device *in_dev;
	const struct inet6_dev *idev;
	struct net_device *dev;

	if (!on4 && !on6)
		return false;
	for_each_netdev_rcu(net, dev) {
		in_dev = on4 ? __in_dev_get_rcu(dev) : NULL;
		if (in_dev && IN_DEV_FORWARD(in_dev))
			return true;
		idev = on6 ? __in6_dev_get(dev) : NULL;
		if (idev && (READ_ONCE(idev->cnf.forwarding) ||
			     READ_ONCE(idev->cnf.force_forwarding)))
			return true;
	}
	return false;
}

/* Deletes a confirmed ct as ctnetlink does. Returns whether this call did. */
bool nfzr_helper_ct_delete(struct nf_conn *ct)
{
	return nf_ct_is_confirmed(ct) && nf_ct_delete(ct, 0, 0);
}

bool nfzr_helper_ct_is_ipv6(const struct nf_conn *ct)
{
	return nf_ct_l3num(ct) == NFPROTO_IPV6;
}

/* Writes the IPv4 addresses of a direction. The destination is that which DNAT left. */
void nfzr_helper_ct_ends(const struct nf_conn *ct, u8 dir, struct nfzr_ends *e)
{
	e->to = ntohl(ct->tuplehash[!dir].tuple.src.u3.ip);
	e->from = ntohl(ct->tuplehash[!!dir].tuple.src.u3.ip);
}

bool nfzr_helper_ct_is_tcp(const struct nf_conn *ct)
{
	return nf_ct_protonum(ct) == IPPROTO_TCP;
}

u32 nfzr_helper_ct_mark(const struct nf_conn *ct)
{
	return READ_ONCE(ct->mark);
}

/* Returns the zone id, regardless of the directions that it applies to. */
u16 nfzr_helper_ct_own_zone(const struct nf_conn *ct)
{
	return nf_ct_zone(ct)->id;
}

u16 nfzr_helper_ct_zone(const struct nf_conn *ct, u8 dir)
{
	return nf_ct_zone_id(nf_ct_zone(ct), dir);
}

void nfzr_helper_ct_tuple(const struct nf_conn *ct, u8 dir, struct nfzr_tuple *t)
{
	const struct nf_conntrack_tuple *tuple = nf_ct_tuple(ct, dir);

	memcpy(t->src, &tuple->src.u3, sizeof(t->src));
	memcpy(t->dst, &tuple->dst.u3, sizeof(t->dst));
	t->sport = ntohs(tuple->src.u.all);
	t->dport = ntohs(tuple->dst.u.all);
	t->zone = nfzr_helper_ct_zone(ct, dir);
	t->l3num = tuple->src.l3num;
	t->protonum = tuple->dst.protonum;
}

/* Returns the connection of a packet. NULL: it is untracked, or has none but a template. */
static __always_inline struct nf_conn *nfzr_skb_ct(const struct sk_buff *skb,
						   enum ip_conntrack_info *ctinfo)
{
	struct nf_conn *ct = nf_ct_get(skb, ctinfo);

	return ct && !nf_ct_is_template(ct) ? ct : NULL;
}

/* Returns the extension of a ct, or NULL if it has none. */
static __always_inline u64 *nfzr_ct_ext(const struct nf_conn *ct)
{
	BUILD_BUG_ON(sizeof(struct nf_conn_act_ct_ext) != sizeof(u64));
	return (u64 *)nf_conn_act_ct_ext_find(ct);
}

/* Reads a connection and its extension. Returns the extension, or NULL. */
static __always_inline u64 *nfzr_read_ext(struct nfzr_ct_ref *c)
{
	u64 *ext;

	c->confirmed = nf_ct_is_confirmed(c->ct);
	/* The extensions of a confirmed ct do not move: find ours after that is known. */
	smp_rmb();
	ext = nfzr_ct_ext(c->ct);
	c->has_ext = ext;
	c->handle = ext ? READ_ONCE(*ext) : 0;
	c->counted = false;
	c->links = NULL;
	return ext;
}

/* Reads the connection of a packet, and its extension. Returns false if the packet has none. */
static __always_inline bool nfzr_read_ct(const struct sk_buff *skb, struct nfzr_ct_ref *c)
{
	c->ct = nfzr_skb_ct(skb, &c->ctinfo);
	if (!c->ct)
		return false;
	nfzr_read_ext(c);
	return true;
}

/* Returns whether the packet is an ICMP error about the connection, not one of its own packets. */
static __always_inline bool nfzr_is_related(const struct nfzr_ct_ref *c)
{
	return c->ctinfo == IP_CT_RELATED || c->ctinfo == IP_CT_RELATED_REPLY;
}

bool nfzr_helper_read_ct(const struct sk_buff *skb, struct nfzr_ct_ref *c)
{
	return nfzr_read_ct(skb, c);
}

/*
 * As nfzr_helper_read_ct(). If the ct is confirmed and its handle is one of the `most' from `first'
 * on, increments the handle, unless it changes at the same moment, and sets c->counted.
 */
static __always_inline bool nfzr_count_ct(const struct sk_buff *skb, u64 first, u8 most,
					  struct nfzr_ct_ref *c)
{
	u64 *ext;

	c->ct = nfzr_skb_ct(skb, &c->ctinfo);
	if (!c->ct)
		return false;
	ext = nfzr_read_ext(c);
	if (c->handle - first < most && ext && c->confirmed) {
		cmpxchg(ext, c->handle, c->handle + 1);
		c->counted = true;
	}
	return true;
}

bool nfzr_helper_count_ct(const struct sk_buff *skb, u64 first, u8 most, struct nfzr_ct_ref *c)
{
	return nfzr_count_ct(skb, first, most, c);
}

/*
 * Adds the extension with an initial handle to an unconfirmed ct, which no other CPU can see yet.
 * Returns false if the ct is confirmed, if the extension exists or if there is no memory.
 */
bool nfzr_helper_ct_ext_add(struct nf_conn *ct, u64 handle)
{
	u64 *ext;

	if (nf_ct_is_confirmed(ct))
		return false;
	ext = nf_ct_ext_add(ct, NF_CT_EXT_ACT_CT, GFP_ATOMIC | __GFP_NOWARN);
	if (ext)
		WRITE_ONCE(*ext, handle);
	return ext;
}

/*
 * Replaces the handle *old in the extension of a confirmed ct, whose extensions do not move, by
 * `new'. Returns false if the extension has another content, which becomes *old, or if the ct is
 * not confirmed or has no extension, without a change of *old.
 */
bool nfzr_helper_ct_ext_replace(struct nf_conn *ct, u64 *old, u64 new)
{
	u64 *ext = nf_ct_is_confirmed(ct) ? nfzr_ct_ext(ct) : NULL;

	return ext && try_cmpxchg(ext, old, new);
}
