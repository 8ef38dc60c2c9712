// SPDX-License-Identifier: GPL-2.0
/*
 * What the arguments of notifiers say. Called by the chains: in process context or softirq.
 */
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
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

/* Not so for multicast routing. */
bool nfzr_helper_fib_is_ip(void *info)
{
	const struct fib_notifier_info *fib = info;

	return fib->family == AF_INET || fib->family == AF_INET6;
}

/*
 * Whether a change of the neighbour's state may be, or make, a change of a route. The choice among
 * nexthops looks at neighbours only where there are nexthop objects, or the sysctl says so; and IPv4
 * tells in this way of redirects, where they are accepted.
 */
static bool nfzr_is_neigh_news(const struct net *net, const struct neighbour *neigh)
{
	const struct in_device *in_dev;

	if (READ_ONCE(net->nexthop.rb_root.rb_node))
		return true;
	if (neigh->tbl->family != AF_INET)
		return false;
	in_dev = __in_dev_get_rcu(neigh->dev);
	return READ_ONCE(net->ipv4.sysctl_fib_multipath_use_neigh) ||
	       (in_dev && IN_DEV_RX_REDIRECTS(in_dev));
}

/* The netns that a netevent is about. NULL: it is of no interest. Under rcu_read_lock(). */
struct net *nfzr_helper_netevent_net(unsigned long event, void *info)
{
	const struct neighbour *neigh = info;
	const struct netevent_redirect *redirect = info;
	struct net *net;

	switch (event) {
	case NETEVENT_NEIGH_UPDATE:
		net = dev_net_rcu(neigh->dev);
		return nfzr_is_neigh_news(net, neigh) ? net : NULL;
	case NETEVENT_REDIRECT:
		return dev_net_rcu(redirect->neigh->dev);
	case NETEVENT_IPV4_MPATH_HASH_UPDATE:
	case NETEVENT_IPV6_MPATH_HASH_UPDATE:
		return info;
	default:
		return NULL;
	}
}
