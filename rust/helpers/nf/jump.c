// SPDX-License-Identifier: GPL-2.0
/*
 * Jumps: what the kernel does with a forwarded packet between conntrack's first hook and the packet's
 * device, in two steps. The first one is here: nfzr_may_jump*() looks at all that may keep the packet
 * from it. If the packet stays, it is the same as before, though there may be a new neighbour entry,
 * which the packet would have made anyway. Otherwise the packet is tracked, and leaves: leave.c.
 *
 * nfzr_may_jump*() run at ingress or in PRE_ROUTING before conntrack: softirq, under rcu_read_lock().
 * The packet's IP header has been checked by ip_rcv() or ipv6_rcv(), or as they do, and its transport
 * header by the lookup. The functions that they share with observe.c also run in POST_ROUTING.
 */
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netdevice.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/arp.h>
#include <net/gso.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/ndisc.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack_ecache.h>
#include <net/netfilter/nf_conntrack_labels.h>
#include <net/route.h>

/* Returns whether forwarded packets of the netns may be subject to IPsec policies. */
static __always_inline bool nfzr_has_policies(const struct net *net)
{
#ifdef CONFIG_XFRM
	return READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_FWD]) |
	       READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_OUT]) ||
	       READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_FWD]) != XFRM_USERPOLICY_ACCEPT ||
	       READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_OUT]) != XFRM_USERPOLICY_ACCEPT;
#else
	return false;
#endif
}

/* As nfzr_is_marked(), but for a socket. */
static __always_inline bool nfzr_has_marks(const struct sk_buff *skb)
{
	bool marked = skb_vlan_tag_present(skb) || skb_pfmemalloc(skb) || skb->nf_trace;

#ifdef CONFIG_SKB_EXTENSIONS
	/* Of IPsec, bridges, MPTCP, tc. */
	marked |= skb->active_extensions;
#endif
#ifdef CONFIG_NET_REDIRECT
	marked |= skb->redirected;
#endif
#ifdef CONFIG_NET_SWITCHDEV
	marked |= skb->offload_l3_fwd_mark;
#endif
#if IS_ENABLED(CONFIG_IP_VS)
	marked |= skb->ipvs_property;
#endif
	return marked;
}

/* Returns whether a packet has something that only the kernel's own way takes care of. */
static __always_inline bool nfzr_is_marked(const struct sk_buff *skb)
{
	return skb->sk || nfzr_has_marks(skb);
}

/*
 * As nfzr_is_marked(), for a packet at the ingress of its device. The kernel takes a packet from its
 * sender's socket when it enters IP.
 */
static __always_inline bool nfzr_is_odd_at_ingress(const struct sk_buff *skb)
{
	return (skb->sk && skb_sk_is_prefetched((struct sk_buff *)skb)) || nfzr_has_marks(skb);
}

/* As nfzr_is_marked(), for a packet at ingress or just before conntrack. */
static __always_inline bool nfzr_is_peculiar(const struct sk_buff *skb, const bool at_ingress,
					     const struct nf_hook_state *state)
{
	return skb->pkt_type != PACKET_HOST || skb_dst(skb) ||
	       (at_ingress ? nfzr_is_odd_at_ingress(skb) : nfzr_is_marked(skb)) ||
	       nfzr_is_l3(state->in) || netif_has_l3_rx_handler(state->in) ||
	       /* The source MAC is compared. With a VLAN tag in it, the header is longer. */
	       (skb->mac_len && skb->mac_len != ETH_HLEN) ||
	       /* As skb_warn_if_lro(), which warns. */
	       (skb_is_nonlinear(skb) && skb_shinfo(skb)->gso_size && !skb_shinfo(skb)->gso_type);
}

/* Returns the last part of a packet's key, and whether its priority depends on its TOS. */
static __always_inline u32 nfzr_entry_rest4(const struct net *net, const struct iphdr *iph,
					    const struct in_device *in_dev)
{
	return nfzr_key_rest4(iph, in_dev) |
	       (READ_ONCE(net->ipv4.sysctl_ip_fwd_update_priority) ? NFZR_ENTRY_PRIORITY : 0);
}

/* Reads what a packet has, beyond its connection. `rest' is that part of its key. */
static __always_inline void nfzr_read_entry(const struct sk_buff *skb,
					    const struct nf_hook_state *state, u32 rest,
					    struct nfzr_entry *e)
{
	e->key.iif = state->in->ifindex;
	e->key.mark = skb->mark;
	e->key.rest = rest;
	e->priority = skb->priority;
	e->mac_len = skb->mac_len;
	if (skb->mac_len == ETH_HLEN)
		ether_addr_copy(e->source, eth_hdr(skb)->h_source);
	else
		eth_zero_addr(e->source);
}

static __always_inline bool nfzr_is_entry(const struct sk_buff *skb,
					  const struct nf_hook_state *state, u32 rest,
					  const struct nfzr_entry *e)
{
	return state->in->ifindex == e->key.iif && skb->mark == e->key.mark &&
	       rest == e->key.rest && skb->priority == e->priority &&
	       skb->mac_len == e->mac_len &&
	       (skb->mac_len != ETH_HLEN ||
		ether_addr_equal(eth_hdr(skb)->h_source, e->source));
}

/* Returns whether a connection is such that its packets may jump. */
static __always_inline enum nfzr_stay nfzr_ct_stay(const struct nf_conn *ct, u32 mark)
{
#ifdef CONFIG_NF_CONNTRACK_EVENTS
	const struct nf_conntrack_ecache *events = nf_ct_ecache_find(ct);

	/* nf_confirm() reports them. */
	if (events && (READ_ONCE(events->cache) || READ_ONCE(events->missed)))
		return NFZR_STAY_EVENTS;
#endif
	if (READ_ONCE(ct->mark) != mark)
		return NFZR_STAY_CT_MARK;
	/* Rules may look at 128 labels. */
	if (nf_ct_labels_find(ct))
		return NFZR_STAY_CT_LABELS;
	return NFZR_JUMP;
}

/* The checks of a packet that both families share. */
static __always_inline enum nfzr_stay nfzr_may_jump(const struct sk_buff *skb, const u8 pf,
						    const bool at_ingress,
						    const struct nf_hook_state *state,
						    const struct nf_conn *ct, u8 dir,
						    const struct nfzr_pass *p,
						    struct nfzr_ruleset *r)
{
	if (!nfzr_ruleset_is(state->net, pf, r))
		return NFZR_STAY_RULES;
	if (nfzr_has_policies(state->net))
		return NFZR_STAY_IPSEC;
	/* A packet that was queued to userspace continues with bottom halves on. */
	if (nfzr_is_peculiar(skb, at_ingress, state) || !softirq_count())
		return NFZR_STAY_PACKET;
	/* All earlier packets of a device came by its ingress. */
	if (at_ingress ? nfzr_has_stayed_early(r->observer, nfzr_early_of(skb, pf, state->in)) :
			 nfzr_has_stayed(r->observer, ct, dir))
		return NFZR_STAY_ORDER;
	if (unlikely(p->cached.path_hash) && p->cached.path_hash != nfzr_path_hash(skb))
		return NFZR_STAY_ROUTE;
	return nfzr_ct_stay(ct, p->ct_mark);
}

/*
 * Makes the headers up to `headers' linear, if `headers' is not 0, and writable, with room for the
 * headers of a device.
 */
static __always_inline bool nfzr_make_room(struct sk_buff *skb, unsigned int room,
					   unsigned int headers)
{
	if (headers && !pskb_may_pull(skb, headers))
		return false;
	return likely(skb_headroom(skb) >= room && !skb_cloned(skb)) || !skb_cow(skb, room);
}

/*
 * Returns whether a route has no metrics of its own, and no encapsulation: then its MTU is that of
 * the device.
 */
static __always_inline bool nfzr_has_device_mtu(const struct dst_entry *dst)
{
	return likely((READ_ONCE(dst->_metrics) & ~DST_METRICS_FLAGS) ==
		      (unsigned long)dst_default_metrics.metrics && !dst->lwtstate);
}

/* Returns whether a packet is no longer than an MTU, or its segments are not. */
static __always_inline bool nfzr_fits(const struct sk_buff *skb, unsigned int mtu)
{
	return likely(skb->len <= mtu) ||
	       (skb_is_gso(skb) && skb_gso_validate_network_len(skb, mtu));
}

/* Returns the MTU of ip_forward(), without its calls for most routes. */
static __always_inline unsigned int nfzr_mtu4(const struct net *net, const struct rtable *rt,
					      const struct net_device *out)
{
	if (nfzr_has_device_mtu(&rt->dst) && !rt->rt_mtu_locked &&
	    !READ_ONCE(net->ipv4.sysctl_ip_fwd_use_pmtu))
		return min_t(unsigned int, READ_ONCE(out->mtu), IP_MAX_MTU);
	return ip_dst_mtu_maybe_forward(&rt->dst, true);
}

static __always_inline const struct nf_conntrack_tuple *nfzr_other_tuple(const struct nf_conn *ct,
									  u8 dir)
{
	return &ct->tuplehash[!dir].tuple;
}

/* Returns the size of a connection's transport header, if its addresses or ports are translated. */
static __always_inline unsigned int nfzr_translated_size(const struct nf_conn *ct)
{
	if (!(READ_ONCE(ct->status) & IPS_NAT_MASK))
		return 0;
	return nf_ct_protonum(ct) == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
}

/*
 * Returns NFZR_JUMP if the kernel would send the packet, as far as its own code decides, the way that
 * the pass says. Then fills *x, and the packet's headers are writable. If x->is_outdated, the caller
 * must find out whether the route is still the kernel's choice.
 */
static __always_inline enum nfzr_stay nfzr_may_jump4(struct sk_buff *skb, const bool at_ingress,
						     const struct nf_hook_state *state,
						     const struct nf_conn *ct, u8 dir,
						     const struct nfzr_pass *p,
						     struct nfzr_ruleset *r, struct nfzr_exit *x)
{
	struct rtable *rt = dst_rtable(p->cached.dst);
	const struct in_device *in_dev = __in_dev_get_rcu(state->in);
	const struct iphdr *iph = ip_hdr(skb);
	enum nfzr_stay stay = nfzr_may_jump(skb, NFPROTO_IPV4, at_ingress, state, ct, dir, p,
					    r);
	unsigned int headers = nfzr_translated_size(ct);

	if (stay != NFZR_JUMP)
		return stay;
	if (!in_dev ||
	    !nfzr_is_entry(skb, state, nfzr_entry_rest4(state->net, iph, in_dev), &p->entry))
		return NFZR_STAY_ENTRY;
	if (!iph->tot_len || (!at_ingress && IPCB(skb)->frag_max_size))
		return NFZR_STAY_PACKET;
	if (iph->ttl <= 1)
		return NFZR_STAY_TTL;
	x->is_outdated = !nfzr_dst_is_valid4(&p->cached);
	if (nfzr_has_expired(&p->cached) ||
	    (unlikely(x->is_outdated) && nfzr_is_obsolete(p->cached.dst)))
		return NFZR_STAY_ROUTE;
	x->out = dst_dev_rcu(&rt->dst);
	if (!nfzr_fits(skb, nfzr_mtu4(state->net, rt, x->out)))
		return NFZR_STAY_MTU;
	if (!nfzr_make_room(skb, LL_RESERVED_SPACE(x->out) + rt->dst.header_len,
			    headers ? sizeof(*iph) + headers : 0))
		return NFZR_STAY_NO_MEMORY;
	x->skips_header_cache = unlikely(rt->rt_gw_family == AF_INET6);
	if (x->skips_header_cache) {
		x->neigh = ip_neigh_gw6(x->out, &rt->rt_gw6);
	} else {
		__be32 nexthop = rt->rt_gw_family ? rt->rt_gw4 :
						    nfzr_other_tuple(ct, dir)->src.u3.ip;

		x->neigh = __ipv4_neigh_lookup_noref(x->out, (__force u32)nexthop);
		if (unlikely(!x->neigh))
			x->neigh = __neigh_create(&arp_tbl, &nexthop, x->out, false);
	}
	return IS_ERR(x->neigh) ? NFZR_STAY_NEIGHBOUR : NFZR_JUMP;
}

/* Returns whether both devices forward packets, and nothing answers for the destination. */
static __always_inline bool nfzr_may_forward6(const struct net *net, const struct net_device *in,
					      const struct inet6_dev *out)
{
	const struct inet6_dev *idev = __in6_dev_get(in);

	return idev && out && !READ_ONCE(out->cnf.disable_ipv6) &&
	       !READ_ONCE(net->ipv6.devconf_all->proxy_ndp) &&
	       (READ_ONCE(net->ipv6.devconf_all->forwarding) ||
		READ_ONCE(idev->cnf.force_forwarding));
}

/*
 * Returns the lesser of the MTUs of ip6_forward() and __ip6_finish_output(), without their calls for
 * most routes.
 */
static __always_inline unsigned int nfzr_mtu6(const struct rt6_info *rt,
					      const struct net_device *out)
{
	const struct inet6_dev *idev = __in6_dev_get(out);
	unsigned int mtu;

	if (nfzr_has_device_mtu(&rt->dst) && likely(idev))
		return min_t(unsigned int, READ_ONCE(idev->cnf.mtu6), IP6_MAX_MTU);
	mtu = max_t(unsigned int, ip6_dst_mtu_maybe_forward(&rt->dst, true), IPV6_MIN_MTU);
	return min(mtu, dst_mtu(&rt->dst));
}

/* As nfzr_may_jump4(). */
static __always_inline enum nfzr_stay nfzr_may_jump6(struct sk_buff *skb, const bool at_ingress,
						     const struct nf_hook_state *state,
						     const struct nf_conn *ct, u8 dir,
						     const struct nfzr_pass *p,
						     struct nfzr_ruleset *r, struct nfzr_exit *x)
{
	struct rt6_info *rt = dst_rt6_info(p->cached.dst);
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);
	struct in6_addr to = nfzr_other_tuple(ct, dir)->src.u3.in6;
	enum nfzr_stay stay = nfzr_may_jump(skb, NFPROTO_IPV6, at_ingress, state, ct, dir, p,
					    r);
	unsigned int headers = nfzr_translated_size(ct);
	const struct in6_addr *nexthop;

	if (stay != NFZR_JUMP)
		return stay;
	if (!nfzr_is_entry(skb, state, nfzr_key_rest6(ip6h), &p->entry))
		return NFZR_STAY_ENTRY;
	if (!ip6h->payload_len)
		return NFZR_STAY_PACKET;
	if (!at_ingress && (IP6CB(skb)->frag_max_size || IP6CB(skb)->flags & IP6SKB_FRAGMENTED))
		return NFZR_STAY_PACKET;
	if (ip6h->hop_limit <= 1)
		return NFZR_STAY_TTL;
	x->is_outdated = !nfzr_dst_is_valid6(&p->cached);
	if (unlikely(x->is_outdated) && nfzr_is_obsolete(p->cached.dst))
		return NFZR_STAY_ROUTE;
	x->out = dst_dev_rcu(&rt->dst);
	if (!nfzr_may_forward6(state->net, state->in, ip6_dst_idev(&rt->dst)))
		return NFZR_STAY_DEVICE;
	if (!nfzr_fits(skb, nfzr_mtu6(rt, x->out)))
		return NFZR_STAY_MTU;
	if (!nfzr_make_room(skb, LL_RESERVED_SPACE(x->out), headers ? sizeof(*ip6h) + headers : 0))
		return NFZR_STAY_NO_MEMORY;
	nexthop = rt6_nexthop(rt, &to);
	x->skips_header_cache = false;
	x->neigh = __ipv6_neigh_lookup_noref(x->out, nexthop);
	if (unlikely(!x->neigh))
		x->neigh = __neigh_create(&nd_tbl, nexthop, x->out, false);
	return IS_ERR(x->neigh) ? NFZR_STAY_NEIGHBOUR : NFZR_JUMP;
}
