// SPDX-License-Identifier: GPL-2.0
/*
 * The firewall that forwarded packets of a family pass: a record of it, and whether it is still the
 * same. Softirq or process context, under rcu_read_lock().
 *
 * nf_tables publishes a transaction by base_seq and then gencursor; a chain chooses its rules by
 * gencursor. The policy of a chain is not part of that, and neither is the end of a hook, which may
 * happen in place. So the chains are compared one by one, by the set of hooks that is in force: a
 * chain that is no longer hooked may be freed.
 *
 * A set of hooks may be freed and another one allocated at its address. That is noticed within a
 * jiffy, unless it changes a chain of the record or the number of hooks: then at once.
 */
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <net/netfilter/nf_tables.h>

/* Returns the set of hooks that is in force at a point. */
static __always_inline const struct nf_hook_entries *
nfzr_hooks_at(const struct net *net, const u8 pf, const unsigned int hooknum)
{
	struct nf_hook_entries __rcu *const *live = pf == NFPROTO_IPV4 ?
							    &net->nf.hooks_ipv4[hooknum] :
							    &net->nf.hooks_ipv6[hooknum];

	return rcu_dereference(*live);
}

static __always_inline bool nfzr_is_point(const struct net *net, const u8 pf,
					  const unsigned int hooknum,
					  const struct nfzr_ruleset_point *p)
{
	const struct nf_hook_entries *set = nfzr_hooks_at(net, pf, hooknum);

	return set == p->set && (!set || set->num_hook_entries == p->count);
}

static __always_inline bool nfzr_is_hook(const struct nf_hook_entry *is,
					 const struct nfzr_ruleset_hook *was)
{
	return READ_ONCE(is->hook) == was->hook && READ_ONCE(is->priv) == was->priv;
}

/* The set that holds the entry is in force, and the entry must be the chain's. */
static __always_inline bool nfzr_is_chain(const struct nfzr_ruleset_chain *c)
{
	return nfzr_is_hook(c->entry, &c->hook) && READ_ONCE(*c->policy_at) == c->policy;
}

/* Returns whether the hooks of a point, whose set was in force just now, are those from `was' on. */
static bool nfzr_has_same_hooks(const struct nfzr_ruleset_point *p,
				const struct nfzr_ruleset_hook *was)
{
	const struct nf_hook_entries *set = p->set;
	unsigned int i;

	for (i = 0; i < p->count; i++)
		if (!nfzr_is_hook(&set->hooks[i], &was[i]))
			return false;
	return true;
}

/*
 * Returns whether all hooks are those of the record. Its sets were in force in this read-side critical
 * section, so they have not been freed. Others may be in force by now.
 */
static noinline bool nfzr_has_all_hooks(const struct nfzr_ruleset *r)
{
	const struct nfzr_ruleset_hook *was = r->hook;

	return nfzr_has_same_hooks(&r->pre, was) &&
	       nfzr_has_same_hooks(&r->forward, was + r->pre.count) &&
	       nfzr_has_same_hooks(&r->post, was + r->pre.count + r->forward.count);
}

static __always_inline bool nfzr_ruleset_is(const struct net *net, const u8 pf,
					    struct nfzr_ruleset *r)
{
	const struct nfzr_ruleset_chain *c = r->chain, *end = c + r->chains;
	const u32 now = (u32)jiffies;

	/* A chain that is entered later has the rules of this number, or later ones. */
	if (smp_load_acquire(&net->nft.base_seq) != r->base_seq ||
	    READ_ONCE(net->nft.gencursor) != r->gencursor)
		return false;
	if (!nfzr_is_point(net, pf, NF_INET_PRE_ROUTING, &r->pre) ||
	    !nfzr_is_point(net, pf, NF_INET_FORWARD, &r->forward) ||
	    !nfzr_is_point(net, pf, NF_INET_POST_ROUTING, &r->post))
		return false;
	for (; c != end; c++)
		if (!nfzr_is_chain(c))
			return false;
	if (unlikely(READ_ONCE(r->checked) != now)) {
		/* If packets may not skip it, the record is not whole. */
		if (r->fit == NFZR_RULESET_FIT && !nfzr_has_all_hooks(r))
			return false;
		WRITE_ONCE(r->checked, now);
	}
	return true;
}

struct nfzr_known_hook {
	const char *symbol;
	const char *module;	/* in brackets, or NULL if it is always built in */
	bool is_chain;		/* of nf_tables */
	bool may_be_last;	/* may come after the hook that observes packets */
};

/*
 * Hooks that packets of an established connection may skip, if their addresses are translated as the
 * connection says. All that a chain does is observed.
 */
static const struct nfzr_known_hook nfzr_known_hooks[] = {
	{ "nft_do_chain_ipv4", "[nf_tables]", .is_chain = true },
	{ "nft_do_chain_ipv6", "[nf_tables]", .is_chain = true },
	{ "nft_do_chain_inet", "[nf_tables]", .is_chain = true },
	{ "ipv4_conntrack_in", "[nf_conntrack]" },
	{ "ipv6_conntrack_in", "[nf_conntrack]" },
	{ "ipv4_conntrack_defrag", "[nf_defrag_ipv4]" },
	{ "ipv6_defrag", "[nf_defrag_ipv6]" },
	{ "nf_nat_ipv4_pre_routing", "[nf_nat]" },
	{ "nf_nat_ipv4_out", "[nf_nat]" },
	{ "nf_nat_ipv6_in", "[nf_nat]" },
	{ "nf_nat_ipv6_out", "[nf_nat]" },
	{ "nf_confirm", "[nf_conntrack]", .may_be_last = true },
	/* In place of a hook that ended. */
	{ "accept_all", .may_be_last = true },
	/* These do nothing with a packet that is not of a bridge, or has no socket. */
	{ "ip_sabotage_in", "[br_netfilter]" },
	{ "apparmor_ip_postroute" },
	{ "apparmor_ipv6_postroute" },
};

/* Returns whether a symbol is that of a hook: the name, and a module's in brackets. */
static bool nfzr_is_known_hook(const struct nfzr_known_hook *known, const char *symbol)
{
	const size_t len = strlen(known->symbol);

	if (strncmp(symbol, known->symbol, len))
		return false;
	symbol += len;
	return !*symbol || (known->module && *symbol == ' ' && !strcmp(symbol + 1, known->module));
}

/*
 * Returns what is known of a hook, or NULL. Writes the name of the hook's function to `symbol', which
 * is not known where the kernel has no names: then it would be the function's address.
 */
static const struct nfzr_known_hook *nfzr_known_hook(unsigned long hook, char symbol[KSYM_SYMBOL_LEN])
{
	unsigned int i;

	sprint_symbol_no_offset(symbol, hook);
	for (i = 0; i < ARRAY_SIZE(nfzr_known_hooks); i++)
		if (nfzr_is_known_hook(&nfzr_known_hooks[i], symbol))
			return &nfzr_known_hooks[i];
	if (symbol[0] == '0')
		strscpy(symbol, "?", KSYM_SYMBOL_LEN);
	return NULL;
}

static bool nfzr_is_own_hook(unsigned long hook)
{
	return within_module(hook, THIS_MODULE);
}

/* Adds a hook of nf_tables to the record. */
static enum nfzr_ruleset_fit nfzr_record_chain(struct nfzr_ruleset *r,
					       const struct nf_hook_entry *entry,
					       const struct nfzr_ruleset_hook *was)
{
	const struct nft_chain *chain = was->priv;
	const u8 *policy_at = &nft_base_chain(chain)->policy;

	if (r->chains == NFZR_RULESET_CHAINS)
		return NFZR_RULESET_MANY;
	r->chain[r->chains++] = (struct nfzr_ruleset_chain) {
		.entry = entry,
		.hook = *was,
		.policy_at = policy_at,
		.policy = READ_ONCE(*policy_at),
	};
	return NFZR_RULESET_FIT;
}

/*
 * Adds the hooks of a point to the record. `observer' is the priority of the hook that observes
 * packets, if the point has it. `symbol' is memory for a name.
 */
static enum nfzr_ruleset_fit nfzr_record_hooks(struct nfzr_ruleset *r,
					       const struct nf_hook_entries *set, int observer,
					       char *symbol)
{
	enum nfzr_ruleset_fit fit = NFZR_RULESET_FIT;
	const struct nfzr_known_hook *known;
	bool is_observed = false, is_early = set == r->pre.set;
	unsigned int i;

	if (set->num_hook_entries > NFZR_RULESET_HOOKS - r->hooks)
		return NFZR_RULESET_MANY;
	for (i = 0; i < set->num_hook_entries && fit == NFZR_RULESET_FIT; i++) {
		struct nfzr_ruleset_hook *was = &r->hook[r->hooks++];
		const struct nf_hook_ops *ops = READ_ONCE(nf_hook_entries_get_hook_ops(set)[i]);

		was->hook = READ_ONCE(set->hooks[i].hook);
		was->priv = READ_ONCE(set->hooks[i].priv);
		if (nfzr_is_own_hook((unsigned long)was->hook)) {
			is_observed |= ops->priority == observer;
			is_early = false;
			continue;
		}
		known = nfzr_known_hook((unsigned long)was->hook, symbol);
		if (!known) {
			strscpy(r->unknown, symbol, sizeof(r->unknown));
			fit = NFZR_RULESET_UNKNOWN;
		} else if (is_observed && !known->may_be_last) {
			fit = NFZR_RULESET_BEHIND;
		} else if (known->is_chain) {
			fit = nfzr_record_chain(r, &set->hooks[i], was);
			r->is_early |= is_early;
		}
	}
	return fit;
}

static void nfzr_record_point(const struct net *net, struct nfzr_ruleset *r,
			      struct nfzr_ruleset_point *p, unsigned int hooknum, int observer,
			      char *symbol)
{
	const struct nf_hook_entries *set;

	set = nfzr_hooks_at(net, r->pf, hooknum);
	p->set = set;
	p->count = set ? set->num_hook_entries : 0;
	if (set && r->fit == NFZR_RULESET_FIT)
		r->fit = nfzr_record_hooks(r, set, observer, symbol);
}

/*
 * Records the firewall of a family, and whether packets may skip it. The record may be of more than
 * one firewall if that changes meanwhile; then nfzr_helper_ruleset_is() returns false. Takes
 * rcu_read_lock() itself.
 */
void nfzr_helper_ruleset_record(const struct net *net, u8 pf,
				struct nfzr_observer __percpu *observer, struct nfzr_ruleset *r)
{
	char symbol[KSYM_SYMBOL_LEN];

	rcu_read_lock();
	r->pf = pf;
	r->observer = observer;
	r->base_seq = smp_load_acquire(&net->nft.base_seq);
	r->gencursor = READ_ONCE(net->nft.gencursor);
	r->chains = 0;
	r->hooks = 0;
	r->is_early = false;
	r->unknown[0] = '\0';
	r->checked = (u32)jiffies - 1;
	r->fit = NFZR_RULESET_FIT;
	/* No hook of ours has the priority 0. */
	nfzr_record_point(net, r, &r->pre, NF_INET_PRE_ROUTING, 0, symbol);
	nfzr_record_point(net, r, &r->forward, NF_INET_FORWARD, 0, symbol);
	nfzr_record_point(net, r, &r->post, NF_INET_POST_ROUTING, NF_IP_PRI_LAST, symbol);
	rcu_read_unlock();
}

/* Returns whether the firewall is still the one of the record. */
bool nfzr_helper_ruleset_is(const struct net *net, struct nfzr_ruleset *r)
{
	return r->pf == NFPROTO_IPV4 ? nfzr_ruleset_is(net, NFPROTO_IPV4, r) :
				       nfzr_ruleset_is(net, NFPROTO_IPV6, r);
}
