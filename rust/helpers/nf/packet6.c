// SPDX-License-Identifier: GPL-2.0
/*
 * IPv6: reading a packet for the hooks, the kernel's own route lookup, and attaching a cached route
 * to a packet. All functions run in a netfilter hook: softirq or process context, under
 * rcu_read_lock().
 */
#include <linux/ipv6.h>
#include <net/dsfield.h>
#include <net/inet_dscp.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>

/* As nfzr_is_tuple_ports(), but compares the addresses too. */
static __always_inline bool nfzr_is_tuple6(const struct sk_buff *skb, const struct ipv6hdr *ip6h,
					   const struct nfzr_ct_ref *c)
{
	const struct nf_conntrack_tuple *this = nfzr_tuple_of(c, false);
	const struct nf_conntrack_tuple *other = nfzr_tuple_of(c, true);

	return ipv6_addr_equal(&ip6h->saddr, &this->src.u3.in6) &&
	       ipv6_addr_equal(&ip6h->daddr, &other->src.u3.in6) &&
	       nfzr_is_tuple_ports(skb, sizeof(*ip6h), ip6h->nexthdr, this, other);
}

/* Returns whether an address is link-local or multicast. */
static bool nfzr_is_scoped(const struct in6_addr *addr)
{
	return ipv6_addr_type(addr) & (IPV6_ADDR_MULTICAST | IPV6_ADDR_LINKLOCAL);
}

static __always_inline enum nfzr_fit nfzr_packet_fit6(const struct sk_buff *skb,
						      const struct ipv6hdr *ip6h,
						      const struct nf_hook_state *state,
						      const struct nfzr_ct_ref *c)
{
	enum nfzr_fit fit;

	if (IP6CB(skb)->frag_max_size || (IP6CB(skb)->flags & IP6SKB_FRAGMENTED))
		return NFZR_UNFIT_FRAGMENT;
	fit = nfzr_packet_fit(skb, state, c);
	if (fit != NFZR_FIT)
		return fit;
	/* Rules see the protocol number of the first header. */
	if (ip6h->nexthdr != nf_ct_protonum(c->ct))
		return NFZR_UNFIT_OPTIONS;
	if (!nfzr_is_tuple6(skb, ip6h, c))
		return NFZR_UNFIT_REWRITTEN;
	return NFZR_FIT;
}

/* Returns the last part of a packet's key. IPv6 has no source check. */
static __always_inline u32 nfzr_key_rest6(const struct ipv6hdr *ip6h)
{
	u32 dscp = inet_dscp_to_dsfield(inet_dsfield_to_dscp(ipv6_get_dsfield(ip6h)));

	return ntohl(ip6_flowlabel(ip6h)) | dscp << NFZR_KEY_CLASS_SHIFT;
}

/* Returns false if the packet has no receiving device. */
bool nfzr_helper_headers6(struct sk_buff *skb, const struct nf_hook_state *state,
			  const struct nfzr_ct_ref *c, struct nfzr_headers *h)
{
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);

	if (!state->in)
		return false;
	h->key.iif = state->in->ifindex;
	h->key.mark = skb->mark;
	h->key.rest = nfzr_key_rest6(ip6h);
	h->path_hash = nfzr_path_hash(skb);
	h->fit = nfzr_packet_fit6(skb, ip6h, state, c);
	if (h->fit == NFZR_FIT && (nfzr_is_scoped(&ip6h->saddr) || nfzr_is_scoped(&ip6h->daddr)))
		h->fit = NFZR_UNFIT_SCOPE;
	return true;
}

static bool nfzr_rules_keyed6(const struct net *net, u8 protocol)
{
	return !fib6_has_custom_rules(net) ||
	       nfzr_rules_keyed(net->ipv6.fib6_rules_ops,
				READ_ONCE(net->ipv6.fib6_rules_require_fldissect), protocol);
}

/*
 * Returns whether the choice of the nexthop depends only on what the connection and the key fix.
 * Policy 0 hashes the addresses and the flow label; for policy 1 see nfzr_multipath_keyed4(). (A
 * route does not tell whether it is one of several, because routes by a nexthop object share that
 * object's nexthop.) If forwarding is off for the netns but on for one of its devices, every choice
 * depends on neighbours.
 */
static bool nfzr_multipath_keyed6(const struct net *net, const struct sk_buff *skb, u8 protocol)
{
	u8 policy = ip6_multipath_hash_policy(net);

	if (!READ_ONCE(net->ipv6.devconf_all->forwarding))
		return false;
	return !(IP6CB(skb)->flags & IP6SKB_MULTIPATH) || policy == 0 ||
	       (policy == 1 && nfzr_has_ports(protocol));
}

static enum nfzr_fit nfzr_route_fit6(const struct net *net, const struct sk_buff *skb)
{
	u8 protocol = ipv6_hdr(skb)->nexthdr;
	const struct dst_entry *dst = skb_dst(skb);
	const struct rt6_info *rt = dst_rt6_info(dst);
	const struct net_device *out = dst_dev_rcu(dst);

	if (rt == net->ipv6.ip6_null_entry)
		return NFZR_UNFIT_NO_ROUTE;
	if (dst->error || (dst->flags & (DST_METADATA | DST_FAKE_RTABLE)) ||
	    (rt->rt6i_flags & (RTF_LOCAL | RTF_ANYCAST | RTF_REJECT)))
		return NFZR_UNFIT_NOT_UNICAST;
	if (out == skb->dev)
		return NFZR_UNFIT_SAME_DEVICE;
	if (nfzr_is_l3(out))
		return NFZR_UNFIT_L3MDEV;
	if (dst->lwtstate)
		return NFZR_UNFIT_LWTUNNEL;
	/* A route exception: a learned MTU or a redirect. */
	if (rt->rt6i_flags & RTF_CACHE)
		return NFZR_UNFIT_PMTU;
	if (!nfzr_multipath_keyed6(net, skb, protocol))
		return NFZR_UNFIT_MULTIPATH;
	if (!nfzr_rules_keyed6(net, protocol))
		return NFZR_UNFIT_RULES;
	return NFZR_FIT;
}

/*
 * Does the lookup that ip6_rcv_finish() would do next. Afterwards the packet has its route as if
 * the kernel had done the lookup, even if that route drops the packet.
 */
void nfzr_helper_route6(struct sk_buff *skb, struct nfzr_route *r)
{
	struct net *net = dev_net_rcu(skb->dev);
	struct dst_entry *dst;

	r->dst = NULL;
	r->choice = (struct nfzr_choice){};
	if (skb_dst(skb)) {
		r->fit = NFZR_UNFIT_HAS_DST;
		return;
	}
	r->choice.genid = rt_genid_ipv6(net);
	/* A route found before a change gets the genid from before the change. */
	smp_rmb();
	ip6_route_input(skb);
	dst = skb_dst(skb);
	r->fit = nfzr_route_fit6(net, skb);
	if (r->fit != NFZR_FIT)
		return;
	r->dst = dst;
	r->oif = dst_dev_rcu(dst)->ifindex;
	if (IP6CB(skb)->flags & IP6SKB_MULTIPATH) {
		r->choice.flags = NFZR_MULTIPATH;
		if (ip6_multipath_hash_policy(net) == 1)
			r->choice.path_hash = nfzr_path_hash(skb);
	}
}

/*
 * As nfzr_helper_serve4(). The addresses are those that the connection fixes, so a route that was
 * chosen for one of its packets proves that they have no scope.
 */
enum nfzr_served nfzr_helper_serve6(struct sk_buff *skb, const struct nf_hook_state *state,
				    const struct nfzr_ct_ref *c, const struct nfzr_key *key,
				    const struct nfzr_cached *cached, atomic64_t *hits)
{
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);

	if (unlikely(!nfzr_dst_is_valid6(cached)))
		return NFZR_SERVED_ENDED;
	if (!state->in || !nfzr_is_for(skb, state, nfzr_key_rest6(ip6h), key, cached) ||
	    nfzr_packet_fit6(skb, ip6h, state, c) != NFZR_FIT)
		return NFZR_SERVED_NOT;
	/* Keeps list receive from using this packet's route as a hint for other flows. */
	if (cached->flags & NFZR_MULTIPATH)
		IP6CB(skb)->flags |= IP6SKB_MULTIPATH;
	skb_dst_set_noref(skb, cached->dst);
	atomic64_inc(hits);
	return NFZR_SERVED;
}
