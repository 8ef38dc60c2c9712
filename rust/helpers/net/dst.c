// SPDX-License-Identifier: GPL-2.0
/*
 * Routes: validity, references and comparison. Under rcu_read_lock().
 */
#include <linux/inetdevice.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/route.h>

/* Returns whether other hooks than the module's are at the ingress of a device. */
static bool nfzr_has_ingress(const struct net_device *dev)
{
	const struct nf_hook_entries *set = rcu_dereference(dev->nf_hooks_ingress);

	return set && set->num_hook_entries &&
	       (set->num_hook_entries > 1 ||
		!within_module((unsigned long)READ_ONCE(set->hooks[0].hook), THIS_MODULE));
}

/*
 * Returns whether an IPv4 route may be used although the kernel has bumped its genid since it was made.
 * A flowtable keeps a packet's route, but takes no connection over whose route has an old genid. Once
 * the kernel has made another route for the nexthop, it does not tell this one any more of what it
 * learns about the nexthop: a redirect or an MTU.
 */
static bool nfzr_outlives_genid(const struct rtable *rt, const struct net_device *dev)
{
	const struct in_device *in_dev;

	if (nfzr_has_ingress(dev))
		return false;
	if (list_empty(&rt->dst.rt_uncached))
		return true;
	in_dev = __in_dev_get_rcu(dev);
	return in_dev && !IN_DEV_RX_REDIRECTS(in_dev) &&
	       !READ_ONCE(dev_net_rcu(dev)->ipv4.sysctl_ip_fwd_use_pmtu);
}

/*
 * Returns whether the learned MTU of an IPv4 route has expired, so that the kernel would choose
 * another route.
 */
static __always_inline bool nfzr_has_expired(const struct nfzr_cached *cached)
{
	return cached->flags & NFZR_EXPIRES &&
	       time_after_eq(jiffies, READ_ONCE(cached->dst->expires));
}

/*
 * This is ipv4_dst_check(), but for a route that no change until the netns' present genid can have
 * changed. nfzr_has_expired() is left to the caller.
 */
static __always_inline bool nfzr_dst_is_valid4(const struct nfzr_cached *cached)
{
	const struct dst_entry *dst = cached->dst;
	const struct rtable *rt = dst_rtable(dst);
	const struct net_device *dev = dst_dev_rcu(dst);
	u32 now;

	if (READ_ONCE(dst->obsolete) != DST_OBSOLETE_FORCE_CHK)
		return false;
	now = rt_genid_ipv4(dev_net_rcu(dev));
	if (likely(rt->rt_genid == now))
		return true;
	/*
	 * When the route's device goes, the route gets this device, which is in another netns. If a
	 * route has a learned MTU, the kernel may change what it has learned when it bumps the genid.
	 */
	return READ_ONCE(cached->genid) == now && dev != blackhole_netdev &&
	       !(cached->flags & NFZR_EXPIRES) && nfzr_outlives_genid(rt, dev);
}

u32 nfzr_helper_genid4(struct net *net)
{
	return rt_genid_ipv4(net);
}

/* This is dst_check() with the cookie of now, inline for most routes: ip6_dst_check(). */
static __always_inline bool nfzr_dst_check6(struct dst_entry *dst)
{
	const struct rt6_info *rt = dst_rt6_info(dst);
	const struct fib6_info *from;

	if (unlikely(rt->sernum || rt->rt6i_flags & RTF_EXPIRES))
		return dst_check(dst, rt6_get_cookie(rt));
	from = rcu_dereference(rt->from);
	return READ_ONCE(dst->obsolete) == DST_OBSOLETE_FORCE_CHK && from &&
	       rcu_access_pointer(from->fib6_node) && !fib6_check_expired(from);
}

/*
 * Every completed insertion into any table bumps the netns' genid, as do changes of rules, devices and
 * exceptions. The kernel's own cookie covers only the table that holds the route. The check with its
 * current value detects a deletion.
 */
static __always_inline bool nfzr_dst_is_valid6(const struct nfzr_cached *cached)
{
	const struct net_device *dev = dst_dev_rcu(cached->dst);

	/* When the route's device goes, the route gets this device, which is in another netns. */
	return dev != blackhole_netdev &&
	       rt_genid_ipv6(dev_net_rcu(dev)) == READ_ONCE(cached->genid) &&
	       nfzr_dst_check6(cached->dst);
}

/* Returns whether the kernel has given a route up for good. */
static __always_inline bool nfzr_is_obsolete(const struct dst_entry *dst)
{
	return READ_ONCE(dst->obsolete) != DST_OBSOLETE_FORCE_CHK ||
	       dst_dev_rcu(dst) == blackhole_netdev;
}

/* Returns whether the route is still valid for the kernel. */
bool nfzr_helper_dst_valid(const struct nfzr_cached *cached)
{
	if (cached->dst->ops->family == AF_INET6)
		return nfzr_dst_is_valid6(cached);
	return nfzr_dst_is_valid4(cached) && !nfzr_has_expired(cached);
}

/* Takes a reference, unless the last one was released already. */
bool nfzr_helper_dst_hold(struct dst_entry *dst)
{
	return dst_hold_safe(dst);
}

void nfzr_helper_dst_put(struct dst_entry *dst)
{
	dst_release(dst);
}

/* Writes a route's gateway to gw and returns its address family, or 0 if the route is on link. */
u16 nfzr_helper_dst_gateway(const struct dst_entry *dst, u8 gw[16])
{
	const struct rtable *rt = dst_rtable(dst);
	u8 family;

	if (dst->ops->family == AF_INET6) {
		const struct rt6_info *rt6 = dst_rt6_info(dst);

		if (!(rt6->rt6i_flags & RTF_GATEWAY))
			return 0;
		memcpy(gw, &rt6->rt6i_gateway, sizeof(rt6->rt6i_gateway));
		return AF_INET6;
	}
	if (!rt->rt_uses_gateway)
		return 0;
	family = READ_ONCE(rt->rt_gw_family);
	if (family == AF_INET)
		memcpy(gw, &rt->rt_gw4, sizeof(rt->rt_gw4));
	else
		memcpy(gw, &rt->rt_gw6, sizeof(rt->rt_gw6));
	return family;
}

/* Returns whether two routes lead the same way. The kernel may keep several for one nexthop. */
static bool nfzr_same_way4(const struct dst_entry *a, const struct dst_entry *b)
{
	const struct rtable *ra = dst_rtable(a), *rb = dst_rtable(b);

	return a == b ||
	       (dst_dev_rcu(a) == dst_dev_rcu(b) && ra->rt_type == rb->rt_type &&
		ra->rt_flags == rb->rt_flags && ra->rt_uses_gateway == rb->rt_uses_gateway &&
		ra->rt_gw_family == rb->rt_gw_family &&
		(ra->rt_gw_family == AF_INET6 ? ipv6_addr_equal(&ra->rt_gw6, &rb->rt_gw6) :
						ra->rt_gw4 == rb->rt_gw4));
}

/* Returns whether two routes lead the same way. Each CPU has its own route for a nexthop. */
static bool nfzr_same_way6(const struct dst_entry *a, const struct dst_entry *b)
{
	const struct rt6_info *ra = dst_rt6_info(a), *rb = dst_rt6_info(b);

	return a == b ||
	       (dst_dev_rcu(a) == dst_dev_rcu(b) && a->error == b->error &&
		ra->rt6i_flags == rb->rt6i_flags &&
		ipv6_addr_equal(&ra->rt6i_gateway, &rb->rt6i_gateway));
}

/* Both routes are of one family. */
static bool nfzr_same_way(const struct dst_entry *a, const struct dst_entry *b)
{
	return b->ops->family == AF_INET6 ? nfzr_same_way6(a, b) : nfzr_same_way4(a, b);
}

bool nfzr_helper_same_way(const struct dst_entry *a, const struct dst_entry *b)
{
	return nfzr_same_way(a, b);
}
