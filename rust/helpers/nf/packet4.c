// SPDX-License-Identifier: GPL-2.0
/*
 * IPv4: reading a packet for the hooks, the kernel's own route lookup, and attaching a cached route
 * to a packet. All functions run in a netfilter hook: softirq or process context, under
 * rcu_read_lock().
 */
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <net/inet_dscp.h>
#include <net/ip.h>
#include <net/route.h>

/* As nfzr_is_tuple_ports(), but compares the addresses too. */
static __always_inline bool nfzr_is_tuple4(const struct sk_buff *skb, const struct iphdr *iph,
					   const struct nfzr_ct_ref *c)
{
	const struct nf_conntrack_tuple *this = nfzr_tuple_of(c, false);
	const struct nf_conntrack_tuple *other = nfzr_tuple_of(c, true);

	return iph->saddr == this->src.u3.ip && iph->daddr == other->src.u3.ip &&
	       nfzr_is_tuple_ports(skb, sizeof(*iph), iph->protocol, this, other);
}

static __always_inline enum nfzr_fit nfzr_packet_fit4(const struct sk_buff *skb,
						      const struct iphdr *iph,
						      const struct nf_hook_state *state,
						      const struct nfzr_ct_ref *c)
{
	enum nfzr_fit fit;

	if (iph->ihl != sizeof(*iph) / 4)
		return NFZR_UNFIT_OPTIONS;
	if (ip_is_fragment(iph) || IPCB(skb)->frag_max_size)
		return NFZR_UNFIT_FRAGMENT;
	fit = nfzr_packet_fit(skb, state, c);
	if (fit == NFZR_FIT && !nfzr_is_tuple4(skb, iph, c))
		return NFZR_UNFIT_REWRITTEN;
	return fit;
}

/* Returns the last part of a packet's key. */
static __always_inline u32 nfzr_key_rest4(const struct iphdr *iph, const struct in_device *in_dev)
{
	u32 check = min(IN_DEV_RPFILTER(in_dev), 3) | !!IN_DEV_SRC_VMARK(in_dev) << 2;

	return (u32)inet_dscp_to_dsfield(ip4h_dscp(iph)) << NFZR_KEY_CLASS_SHIFT |
	       check << NFZR_KEY_CHECK_SHIFT;
}

/* Returns false if the packet has no receiving device with an IPv4 configuration. */
bool nfzr_helper_headers4(struct sk_buff *skb, const struct nf_hook_state *state,
			  const struct nfzr_ct_ref *c, struct nfzr_headers *h)
{
	const struct iphdr *iph = ip_hdr(skb);
	const struct in_device *in_dev = state->in ? __in_dev_get_rcu(state->in) : NULL;

	if (!in_dev)
		return false;
	h->key.iif = state->in->ifindex;
	h->key.mark = skb->mark;
	h->key.rest = nfzr_key_rest4(iph, in_dev);
	h->path_hash = nfzr_path_hash(skb);
	h->fit = nfzr_packet_fit4(skb, iph, state, c);
	return true;
}

static bool nfzr_rules_keyed4(const struct net *net, u8 protocol)
{
	return !net->ipv4.fib_has_custom_rules ||
	       nfzr_rules_keyed(net->ipv4.rules_ops,
				READ_ONCE(net->ipv4.fib_rules_require_fldissect), protocol);
}

/*
 * Returns whether the choice of the nexthop depends only on what the connection fixes: its
 * addresses (policy 0), and its ports if it has any, or the packet's path hash (policy 1; without
 * ports, the hash may cover an SPI or a tunnelled packet). Groups of nexthop objects also look at neighbours, but changes of
 * those are announced.
 */
static bool nfzr_multipath_keyed4(const struct net *net, u8 protocol)
{
	u8 policy = READ_ONCE(net->ipv4.sysctl_fib_multipath_hash_policy);

	return !READ_ONCE(net->ipv4.sysctl_fib_multipath_use_neigh) &&
	       (policy == 0 || (policy == 1 && nfzr_has_ports(protocol)));
}

/*
 * Returns whether a redirect may change the choice of the route without ending the route. A redirect
 * ends the routes that the nexthop has cached, by dst->obsolete, but not those that it could not
 * cache.
 */
static bool nfzr_is_missed_by_redirects(const struct rtable *rt, const struct net_device *out)
{
	const struct in_device *in_dev;

	if (likely(list_empty(&rt->dst.rt_uncached)))
		return false;
	in_dev = __in_dev_get_rcu(out);
	return in_dev && IN_DEV_RX_REDIRECTS(in_dev);
}

static enum nfzr_fit nfzr_route_fit4(const struct net *net, const struct sk_buff *skb)
{
	u8 protocol = ip_hdr(skb)->protocol;
	const struct dst_entry *dst = skb_dst(skb);
	const struct rtable *rt = dst_rtable(dst);
	const struct net_device *out = dst_dev_rcu(dst);

	if (!rt_is_input_route(rt) || rt->rt_type != RTN_UNICAST || dst->error ||
	    (rt->rt_flags & (RTCF_LOCAL | RTCF_BROADCAST | RTCF_MULTICAST | RTCF_REDIRECTED)) ||
	    (dst->flags & (DST_METADATA | DST_FAKE_RTABLE)))
		return NFZR_UNFIT_NOT_UNICAST;
	if (out == skb->dev || (IPCB(skb)->flags & IPSKB_DOREDIRECT))
		return NFZR_UNFIT_SAME_DEVICE;
	if (nfzr_is_l3(out))
		return NFZR_UNFIT_L3MDEV;
	if (dst->lwtstate)
		return NFZR_UNFIT_LWTUNNEL;
	/* The kernel tells only a route that it keeps of what it learns or forgets. */
	if (rt->rt_pmtu && !list_empty(&dst->rt_uncached))
		return NFZR_UNFIT_PMTU;
	if (nfzr_is_missed_by_redirects(rt, out))
		return NFZR_UNFIT_UNCACHED;
	if ((IPCB(skb)->flags & IPSKB_MULTIPATH) && !nfzr_multipath_keyed4(net, protocol))
		return NFZR_UNFIT_MULTIPATH;
	if (!nfzr_rules_keyed4(net, protocol))
		return NFZR_UNFIT_RULES;
	return NFZR_FIT;
}

/*
 * Does the lookup that ip_rcv_finish() would do next, with the same arguments. On success, the
 * packet has its route as if the kernel had done the lookup. On failure, it has none, so that the
 * kernel repeats the lookup and drops the packet with its own drop reason.
 */
void nfzr_helper_route4(struct sk_buff *skb, struct nfzr_route *r)
{
	const struct iphdr *iph = ip_hdr(skb);
	struct net *net = dev_net_rcu(skb->dev);
	struct dst_entry *dst;
	u32 genid = rt_genid_ipv4(net);

	r->dst = NULL;
	r->choice = (struct nfzr_choice){ .genid = genid };
	if (skb_dst(skb)) {
		r->fit = NFZR_UNFIT_HAS_DST;
		return;
	}
	/* A route found before a change gets the genid from before the change. */
	smp_rmb();
	if (ip_route_input_noref(skb, iph->daddr, iph->saddr, ip4h_dscp(iph), skb->dev)) {
		r->fit = NFZR_UNFIT_NO_ROUTE;
		return;
	}
	dst = skb_dst(skb);
	r->fit = nfzr_route_fit4(net, skb);
	if (r->fit != NFZR_FIT)
		return;
	/*
	 * A route found before a change but allocated after it has the new genid. The kernel sends
	 * this packet by it, but it must not be cached for other packets.
	 */
	if (dst_rtable(dst)->rt_genid != genid) {
		r->fit = NFZR_UNFIT_GONE;
		return;
	}
	r->dst = dst;
	r->oif = dst_dev_rcu(dst)->ifindex;
	if (IPCB(skb)->flags & IPSKB_MULTIPATH) {
		r->choice.flags = NFZR_MULTIPATH;
		if (READ_ONCE(net->ipv4.sysctl_fib_multipath_hash_policy) == 1)
			r->choice.path_hash = nfzr_path_hash(skb);
	}
	/*
	 * If a neighbour does not answer, its routes expire (ipv4_link_failure()), but the kernel goes
	 * on using them. Without a learned MTU this means nothing. With one, it ends the MTU, but not
	 * the route.
	 */
	if (dst_rtable(dst)->rt_pmtu && time_before(jiffies, READ_ONCE(dst->expires)))
		r->choice.flags |= NFZR_EXPIRES;
}

/*
 * Attaches the route to a packet if it was chosen for such packets, and is valid for the kernel now,
 * and increments *hits.
 */
enum nfzr_served nfzr_helper_serve4(struct sk_buff *skb, const struct nf_hook_state *state,
				    const struct nfzr_ct_ref *c, const struct nfzr_key *key,
				    const struct nfzr_cached *cached, atomic64_t *hits)
{
	const struct iphdr *iph = ip_hdr(skb);
	const struct in_device *in_dev = state->in ? __in_dev_get_rcu(state->in) : NULL;

	if (unlikely(!nfzr_dst_is_valid4(cached)))
		return NFZR_SERVED_ENDED;
	if (!in_dev || !nfzr_is_for(skb, state, nfzr_key_rest4(iph, in_dev), key, cached) ||
	    nfzr_packet_fit4(skb, iph, state, c) != NFZR_FIT)
		return NFZR_SERVED_NOT;
	if (unlikely(cached->flags & (NFZR_MULTIPATH | NFZR_EXPIRES))) {
		if (nfzr_has_expired(cached))
			return NFZR_SERVED_ENDED;
		/* Keeps list receive from using this packet's route as a hint for other flows. */
		if (cached->flags & NFZR_MULTIPATH)
			IPCB(skb)->flags |= IPSKB_MULTIPATH;
	}
	skb_dst_set_noref(skb, cached->dst);
	atomic64_inc(hits);
	return NFZR_SERVED;
}
