// SPDX-License-Identifier: GPL-2.0
/*
 * The FIB and nexthop objects. The context is documented at each function.
 */
#include <linux/jhash.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <net/fib_notifier.h>
#include <net/fib_rules.h>
#include <net/ip_fib.h>
#include <net/netlink.h>
#include <net/nexthop.h>

/* Returns the family of a FIB event: AF_INET, AF_INET6, or one of multicast routing. */
u32 nfzr_helper_fib_family(void *info)
{
	const struct fib_notifier_info *fib = info;

	return fib->family;
}

/*
 * Writes the prefix of the route that an event is about, and returns true, if the route is one of IPv4
 * that only matters to packets from or to the prefix.
 */
bool nfzr_helper_fib_prefix(void *info, struct nfzr_prefix *prefix)
{
	const struct fib_entry_notifier_info *route = info;

	if (route->info.family != AF_INET ||
	    !nfzr_is_limited_route(route->fi->fib_net, route->type))
		return false;
	prefix->addr = route->dst;
	prefix->len = route->dst_len;
	return true;
}

static struct fib_rules_ops *nfzr_rules_ops(const struct net *net, int family)
{
#ifdef CONFIG_IP_MULTIPLE_TABLES
	if (family == AF_INET)
		return net->ipv4.rules_ops;
#endif
#ifdef CONFIG_IPV6_MULTIPLE_TABLES
	if (family == AF_INET6)
		return net->ipv6.fib6_rules_ops;
#endif
	return NULL;
}

/*
 * Returns whether a rule may look at the DSCP. Only the code of its family knows that, and tells it in
 * a message for user space.
 */
static bool nfzr_rule_has_dscp(const struct fib_rules_ops *ops, struct fib_rule *rule)
{
	struct fib_rule_hdr header = {};
	struct sk_buff *skb;
	bool has;

	if (!ops->nlmsg_payload)
		return true;
	skb = nlmsg_new(ops->nlmsg_payload(rule), GFP_ATOMIC | __GFP_NOWARN);
	if (!skb)
		return true;
	has = ops->fill(rule, skb, &header) || header.tos ||
	      nla_find((struct nlattr *)skb->data, skb->len, FRA_DSCP);
	consume_skb(skb);
	return has;
}

/*
 * Returns whether a rule of a family may look at the DSCP. Waits for rules that are being added: they
 * are announced before they are in the list. Process context; sleeps.
 */
bool nfzr_helper_rules_have_dscp(const struct net *net, u32 family)
{
	struct fib_rules_ops *ops = nfzr_rules_ops(net, family);
	struct fib_rule *rule;
	bool has = false;

	if (!ops)
		return false;
	mutex_lock(&ops->lock);
	list_for_each_entry(rule, &ops->rules_list, list)
		has = has || nfzr_rule_has_dscp(ops, rule);
	mutex_unlock(&ops->lock);
	return has;
}

/*
 * Returns whether an event is about a new route or rule by which the choice of a route may depend on
 * the DSCP. If a prefix of an IPv4 table has a route with a DSCP, its first route has one, so there is
 * an event about it. IPv6 has no such routes. Any context; does not sleep.
 */
bool nfzr_helper_fib_has_dscp(unsigned long event, void *info)
{
	const struct fib_notifier_info *fib = info;
	const struct fib_rules_ops *ops;
	struct fib_rule *rule;

	switch (event) {
	case FIB_EVENT_ENTRY_REPLACE:
	case FIB_EVENT_ENTRY_APPEND:
	case FIB_EVENT_ENTRY_ADD:
		return fib->family == AF_INET &&
		       ((const struct fib_entry_notifier_info *)info)->dscp;
	case FIB_EVENT_RULE_ADD:
		rule = ((const struct fib_rule_notifier_info *)info)->rule;
		ops = nfzr_rules_ops(rule->fr_net, fib->family);
		return !ops || nfzr_rule_has_dscp(ops, rule);
	default:
		return false;
	}
}

/*
 * Returns the bit of a gateway in a set, which it may share with other gateways: a hash of its
 * device and of its address in the form that the neighbour table uses.
 */
static u32 nfzr_gateway_bit(const struct net_device *dev, u8 family, const void *addr)
{
	/* As in __ipv4_neigh_lookup_noref(). */
	if (family == AF_INET && dev->flags & (IFF_LOOPBACK | IFF_POINTOPOINT))
		return jhash_1word(0, dev->ifindex) % NFZR_GATEWAY_BITS;
	return jhash(addr, family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr),
		     dev->ifindex) % NFZR_GATEWAY_BITS;
}

static void nfzr_add_gateway(u64 *set, const struct net_device *dev, u8 family, const void *addr)
{
	u32 bit = nfzr_gateway_bit(dev, family, addr);

	set[bit / 64] |= BIT_ULL(bit % 64);
}

static void nfzr_add_member(u64 *set, const struct nexthop *nh)
{
	const struct nh_info *nhi = rtnl_dereference(nh->nh_info);

	if (nhi->family == AF_INET6)
		nfzr_add_gateway(set, nhi->fib6_nh.fib_nh_dev, AF_INET6, &nhi->fib6_nh.fib_nh_gw6);
	else
		nfzr_add_gateway(set, nhi->fib_nh.fib_nh_dev, AF_INET, &nhi->fib_nh.fib_nh_gw4);
}

/*
 * Adds to the set the gateways of the netns' groups in which the choice of a nexthop depends on the
 * state of neighbours: nexthop_select_path_hthr(). Under RTNL.
 */
void nfzr_helper_group_gateways(const struct net *net, u64 set[NFZR_GATEWAY_WORDS])
{
	struct rb_node *node;
	unsigned int i;

	for (node = rb_first(&net->nexthop.rb_root); node; node = rb_next(node)) {
		const struct nexthop *nh = rb_entry(node, struct nexthop, rb_node);
		const struct nh_group *group;

		if (!nh->is_group)
			continue;
		group = rtnl_dereference(nh->nh_grp);
		/* Groups of bridge FDB nexthops have no devices, and do not look at neighbours. */
		if (!group->hash_threshold || group->fdb_nh)
			continue;
		for (i = 0; i < group->num_nh; i++)
			nfzr_add_member(set, group->nh_entries[i].nh);
	}
}

/*
 * Waits until every announced bucket of a resilient group has moved. nh_res_bucket_migrate() calls
 * the chain, under the chain's semaphore, and then moves the bucket before it sleeps. It moves idle
 * buckets without RTNL. Process context without RTNL; sleeps.
 */
void nfzr_helper_wait_for_buckets(struct net *net)
{
	struct rw_semaphore *called = &net->nexthop.notifier_chain.rwsem;

	down_write(called);
	up_write(called);
	synchronize_rcu_tasks();
}
