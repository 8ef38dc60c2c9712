// SPDX-License-Identifier: GPL-2.0
/*
 * Compares a packet's route for verify mode. Runs first in FORWARD: softirq or process context,
 * under rcu_read_lock().
 */
#include <net/inet_dscp.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/xfrm.h>

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

static bool nfzr_same_way(const struct dst_entry *a, const struct dst_entry *b)
{
	return b->ops->family == AF_INET6 ? nfzr_same_way6(a, b) : nfzr_same_way4(a, b);
}

/* Returns the route that the kernel chooses for the packet now, or NULL if there is none. */
static const struct dst_entry *nfzr_choose(struct sk_buff *skb, u16 family)
{
	const struct iphdr *iph = ip_hdr(skb);

	if (family == AF_INET6)
		ip6_route_input(skb);
	else if (ip_route_input_noref(skb, iph->daddr, iph->saddr, ip4h_dscp(iph), skb->dev))
		return NULL;
	return skb_dst(skb);
}

/*
 * Returns whether the packet's route leads the same way as dst, a route of the packet's family.
 * *known is false if that cannot be decided, because the packet's route was chosen before a change,
 * or was replaced. Call this before any hook modifies the packet.
 */
bool nfzr_helper_goes_by(struct sk_buff *skb, const struct dst_entry *dst, bool *known)
{
	const struct dst_entry *chosen;
	char cb[sizeof(skb->cb)];
	unsigned long has;

	/* IPsec policies are looked up after the route and may have put a bundle in its place. */
	*known = skb_dst(skb) && !dst_xfrm(skb_dst(skb));
	if (!*known || nfzr_same_way(skb_dst(skb), dst))
		return *known;
	memcpy(cb, skb->cb, sizeof(cb));
	has = skb_dstref_steal(skb);
	chosen = nfzr_choose(skb, dst->ops->family);
	*known = !chosen || !nfzr_same_way(chosen, dst);
	skb_dst_drop(skb);
	skb_dstref_restore(skb, has);
	memcpy(skb->cb, cb, sizeof(cb));
	return false;
}
