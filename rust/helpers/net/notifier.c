// SPDX-License-Identifier: GPL-2.0
/*
 * Reads the arguments of notifiers. Called by the notifier chains: process context or softirq.
 */
#include <linux/inetdevice.h>
#include <linux/jhash.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <net/addrconf.h>
#include <net/fib_notifier.h>
#include <net/neighbour.h>
#include <net/netevent.h>
#include <net/nexthop.h>

struct net_device *nfzr_helper_notifier_dev(void *info)
{
	return netdev_notifier_info_to_dev(info);
}

struct net *nfzr_helper_ifa4_net(void *info)
{
	const struct in_ifaddr *ifa = info;

	return dev_net(ifa->ifa_dev->dev);
}

struct net *nfzr_helper_ifa6_net(void *info)
{
	const struct inet6_ifaddr *ifa = info;

	return dev_net(ifa->idev->dev);
}

/* Returns false for multicast routing. */
bool nfzr_helper_fib_is_ip(void *info)
{
	const struct fib_notifier_info *fib = info;

	return fib->family == AF_INET || fib->family == AF_INET6;
}

/*
 * Returns the bit of a gateway in a set, which it may share with other gateways: a hash of its
 * device and of its address in the form that the neighbour table uses.
 */
static u32 nfzr_gateway_place(const struct net_device *dev, u8 family, const void *addr)
{
	/* As in __ipv4_neigh_lookup_noref(). */
	if (family == AF_INET && dev->flags & (IFF_LOOPBACK | IFF_POINTOPOINT))
		return jhash_1word(0, dev->ifindex) % NFZR_GATEWAY_PLACES;
	return jhash(addr, family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr),
		     dev->ifindex) % NFZR_GATEWAY_PLACES;
}

static void nfzr_add_gateway(u64 *set, const struct net_device *dev, u8 family, const void *addr)
{
	u32 place = nfzr_gateway_place(dev, family, addr);

	set[place / 64] |= BIT_ULL(place % 64);
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

/*
 * Returns which routes a change of a neighbour's state may affect. The choice among nexthops looks
 * at the neighbours of groups of nexthop objects, or at all neighbours if the sysctl
 * fib_multipath_use_neigh is set. Where IPv4 accepts redirects, it announces them by this event
 * too. In both cases *place is the neighbour's bit in the set of gateways.
 */
enum nfzr_neigh_news nfzr_helper_neigh_news(void *info, u32 *place)
{
	const struct neighbour *neigh = info;
	const struct net *net = dev_net_rcu(neigh->dev);
	const struct in_device *in_dev;

	/*
	 * A reader that finds the set without a gateway reads it before the gateway was added. That
	 * is long before a route by the gateway is cached again, and the lookup of that route sees
	 * the neighbour's current state.
	 */
	smp_mb();
	*place = nfzr_gateway_place(neigh->dev, neigh->tbl->family, neigh->primary_key);
	if (neigh->tbl->family != AF_INET)
		return NFZR_NEIGH_OF_GATEWAY;
	in_dev = __in_dev_get_rcu(neigh->dev);
	if (READ_ONCE(net->ipv4.sysctl_fib_multipath_use_neigh) ||
	    (in_dev && IN_DEV_RX_REDIRECTS(in_dev)))
		return NFZR_NEIGH_OF_ALL;
	return NFZR_NEIGH_OF_GATEWAY;
}

/* Returns the netns of a netevent, or NULL if the event is irrelevant. Under rcu_read_lock(). */
struct net *nfzr_helper_netevent_net(unsigned long event, void *info)
{
	const struct neighbour *neigh = info;
	const struct netevent_redirect *redirect = info;

	switch (event) {
	case NETEVENT_NEIGH_UPDATE:
		return dev_net_rcu(neigh->dev);
	case NETEVENT_REDIRECT:
		return dev_net_rcu(redirect->neigh->dev);
	case NETEVENT_IPV4_MPATH_HASH_UPDATE:
	case NETEVENT_IPV6_MPATH_HASH_UPDATE:
		return info;
	default:
		return NULL;
	}
}
