// SPDX-License-Identifier: GPL-2.0
/*
 * Reads the arguments of notifiers. Called by the notifier chains: process context or softirq.
 */
#include <linux/capability.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <net/addrconf.h>
#include <net/neighbour.h>
#include <net/netevent.h>

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

/*
 * Returns which routes a change of a neighbour's state may affect. The choice among nexthops looks
 * at the neighbours of groups of nexthop objects, or at all neighbours if the sysctl
 * fib_multipath_use_neigh is set. In both cases *bit is the neighbour's bit in the set of gateways.
 *
 * IPv4 announces redirects by this event too, but cannot be told apart from other changes. It ends
 * the routes that a redirect changes: see nfzr_is_missed_by_redirects().
 */
enum nfzr_neigh_effect nfzr_helper_neigh_effect(void *info, u32 *bit)
{
	const struct neighbour *neigh = info;
	const struct net *net = dev_net_rcu(neigh->dev);

	/*
	 * A reader that finds the set without a gateway reads it before the gateway was added. That
	 * is long before a route by the gateway is cached again, and the lookup of that route sees
	 * the neighbour's current state.
	 */
	smp_mb();
	*bit = nfzr_gateway_bit(neigh->dev, neigh->tbl->family, neigh->primary_key);
	if (neigh->tbl->family == AF_INET &&
	    READ_ONCE(net->ipv4.sysctl_fib_multipath_use_neigh))
		return NFZR_NEIGH_ALL_ROUTES;
	return NFZR_NEIGH_GATEWAY_ROUTES;
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

/*
 * Returns the netns of an event of netlink if a process closed a socket of netfilter and may
 * administrate the netns, else NULL: other processes change nothing by their sockets. The sockets
 * that a kernel thread closes may be those of any process. The socket keeps the netns alive during
 * the event. (Sockets of the kernel, which do not, are not reported.)
 */
struct net *nfzr_helper_netfilter_socket_net(unsigned long event, void *info)
{
	const struct netlink_notify *n = info;

	if (event != NETLINK_URELEASE || n->protocol != NETLINK_NETFILTER ||
	    current->flags & PF_KTHREAD || !ns_capable_noaudit(n->net->user_ns, CAP_NET_ADMIN))
		return NULL;
	return n->net;
}
