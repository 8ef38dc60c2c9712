// SPDX-License-Identifier: GPL-2.0
/*
 * Connections. Any context; the caller has a reference on the ct or is under rcu_read_lock() with
 * one that something else holds.
 */
#include <linux/netfilter_ipv4.h>
#include <net/netfilter/nf_conntrack_act_ct.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_zones.h>
#include <net/netfilter/nf_nat.h>

/*
 * A ct that we hold stays linked in nf_nat's table by source. Using a symbol of nf_nat keeps that
 * module, and so that table, loaded for as long as we are.
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

/* Nothing tells a module that a ct died; this is what can be seen of it. */
bool nfzr_helper_ct_gone(const struct nf_conn *ct)
{
	return nf_ct_is_dying(ct) || nf_ct_is_expired(ct);
}

bool nfzr_helper_ct_assured(const struct nf_conn *ct)
{
	return test_bit(IPS_ASSURED_BIT, &ct->status);
}

/* Whether the netns has so many connections that conntrack will soon drop some early. */
bool nfzr_helper_ct_scarce(const struct net *net)
{
	unsigned int max = READ_ONCE(nf_conntrack_max);

	return max && nf_conntrack_count(net) > max - max / 4;
}

/*
 * Whether conntrack looks at packets of a family that come in: it does while a rule wants it. Its
 * hooks have no name that others can see, but a priority of their own. Under rcu_read_lock().
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
		/* Chains of rules, which users give priorities, have a type. */
		if (READ_ONCE(ops[i])->priority == NF_IP_PRI_CONNTRACK &&
		    READ_ONCE(ops[i])->hook_ops_type == NF_HOOK_OP_UNDEFINED)
			return true;
	return false;
}

struct net *nfzr_helper_ct_net(const struct nf_conn *ct)
{
	return nf_ct_net(ct);
}

bool nfzr_helper_ct_is_ipv6(const struct nf_conn *ct)
{
	return nf_ct_l3num(ct) == NFPROTO_IPV6;
}

bool nfzr_helper_ct_is_tcp(const struct nf_conn *ct)
{
	return nf_ct_protonum(ct) == IPPROTO_TCP;
}

/* Whichever directions it counts in. */
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

static void nfzr_read_ext(const struct nf_conn *ct, u64 *handle, bool *has_ext)
{
	const struct nf_conn_act_ct_ext *ext = nf_conn_act_ct_ext_find(ct);

	BUILD_BUG_ON(sizeof(*ext) != sizeof(u64));
	*has_ext = ext;
	*handle = ext ? READ_ONCE(*(const u64 *)ext) : 0;
}

/*
 * Only for an unconfirmed ct, which nobody else has seen yet: the extension, with a first handle.
 * False: there is one, or no memory.
 */
bool nfzr_helper_ct_ext_add(struct nf_conn *ct, u64 handle)
{
	u64 *ext = nf_ct_ext_add(ct, NF_CT_EXT_ACT_CT, GFP_ATOMIC | __GFP_NOWARN);

	if (ext)
		WRITE_ONCE(*ext, handle);
	return ext;
}

void nfzr_helper_ct_ext_set(struct nf_conn *ct, u64 handle)
{
	struct nf_conn_act_ct_ext *ext = nf_conn_act_ct_ext_find(ct);

	if (ext)
		WRITE_ONCE(*(u64 *)ext, handle);
}
