// SPDX-License-Identifier: GPL-2.0
/*
 * IPv4: what the hooks read of a packet, the kernel's own route lookup, and the hand-over of a
 * cached route. All run in a netfilter hook: softirq or process context, under rcu_read_lock().
 */
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <linux/netfilter_bridge.h>
#include <net/dst_metadata.h>
#include <net/fib_rules.h>
#include <net/inet_dscp.h>
#include <net/ip.h>
#include <net/l3mdev.h>
#include <net/lwtunnel.h>
#include <net/route.h>
#include <net/xfrm.h>

static bool nfzr_is_l3(const struct net_device *dev)
{
	return netif_is_l3_master(dev) || netif_is_l3_slave(dev);
}

/* The protocols whose ports are in the tuple, as conntrack has them. */
static bool nfzr_has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/*
 * True when the addresses and ports that routing looks at are the ones that conntrack and DNAT
 * left: the inverse of the other direction's tuple for the destination, this direction's tuple
 * for the source. Whatever rewrites a packet behind conntrack's back fails this.
 */
static bool nfzr_is_tuple4(const struct sk_buff *skb, const struct iphdr *iph,
			   const struct nf_conn *ct, enum ip_conntrack_dir dir)
{
	const struct nf_conntrack_tuple *this = nf_ct_tuple(ct, dir);
	const struct nf_conntrack_tuple *other = nf_ct_tuple(ct, !dir);
	__be16 _ports[2];
	const __be16 *ports;

	if (iph->saddr != this->src.u3.ip || iph->daddr != other->src.u3.ip ||
	    iph->protocol != this->dst.protonum)
		return false;

	if (!nfzr_has_ports(iph->protocol))
		return true;
	ports = skb_header_pointer(skb, skb_network_offset(skb) + sizeof(*iph), sizeof(_ports),
				   _ports);
	return ports && ports[0] == this->src.u.all && ports[1] == other->src.u.all;
}

static enum nfzr_fit nfzr_packet_fit4(const struct sk_buff *skb, const struct iphdr *iph,
				      const struct nf_hook_state *state,
				      const struct nf_conn *ct, enum ip_conntrack_info ctinfo)
{
	if (iph->ihl != sizeof(*iph) / 4)
		return NFZR_UNFIT_OPTIONS;
	if (ip_is_fragment(iph) || IPCB(skb)->frag_max_size)
		return NFZR_UNFIT_FRAGMENT;
	if (skb->pkt_type != PACKET_HOST)
		return NFZR_UNFIT_NOT_HOST;
	if (skb->sk)
		return NFZR_UNFIT_SOCKET;
	if (skb_sec_path(skb))
		return NFZR_UNFIT_SECPATH;
	if (nf_bridge_info_exists(skb))
		return NFZR_UNFIT_BRIDGE;
	/* Later it is the one that was chosen. */
	if (skb_dst(skb) && state->hook == NF_INET_PRE_ROUTING)
		return NFZR_UNFIT_HAS_DST;
	if (nfzr_is_l3(state->in))
		return NFZR_UNFIT_L3MDEV;
	/* An ICMP error bears the connection it is about, not its own addresses. */
	if (ctinfo == IP_CT_RELATED || ctinfo == IP_CT_RELATED_REPLY)
		return NFZR_UNFIT_RELATED;
	if (!nfzr_is_tuple4(skb, iph, ct, CTINFO2DIR(ctinfo)))
		return NFZR_UNFIT_REWRITTEN;
	return NFZR_FIT;
}

/* False: the packet has no connection, or no place where one could be used. */
bool nfzr_helper_packet4(struct sk_buff *skb, const struct nf_hook_state *state,
			 struct nfzr_packet *p)
{
	enum ip_conntrack_info ctinfo;
	const struct in_device *in_dev;
	const struct iphdr *iph = ip_hdr(skb);
	struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (!ct || nf_ct_is_template(ct) || !state->in)
		return false;
	in_dev = __in_dev_get_rcu(state->in);
	if (!in_dev)
		return false;

	p->ct = ct;
	p->confirmed = nf_ct_is_confirmed(ct);
	nfzr_read_ext(ct, &p->handle, &p->has_ext);
	p->iif = state->in->ifindex;
	p->mark = skb->mark;
	p->dir = CTINFO2DIR(ctinfo);
	p->dscp = inet_dscp_to_dsfield(ip4h_dscp(iph));
	p->source_check = min(IN_DEV_RPFILTER(in_dev), 3) | !!IN_DEV_SRC_VMARK(in_dev) << 2;
	p->fit = nfzr_packet_fit4(skb, iph, state, ct, ctinfo);
	return true;
}

/*
 * Rules may select on more than the key has; then no route of this netns is cached. Ports are
 * fixed by the ct where they are in its tuple; elsewhere the flow dissector finds others (an SPI).
 */
static bool nfzr_rules_keyed4(const struct net *net, u8 protocol)
{
	const struct fib_rules_ops *ops = net->ipv4.rules_ops;
	const struct fib_rule *rule;

	if (!net->ipv4.fib_has_custom_rules || !ops)
		return true;
	if (READ_ONCE(net->ipv4.fib_rules_require_fldissect) && !nfzr_has_ports(protocol))
		return false;
	list_for_each_entry_rcu(rule, &ops->rules_list, list) {
		if (rule->tun_id)
			return false;
		if (!uid_eq(rule->uid_range.start, KUIDT_INIT(0)) ||
		    !uid_eq(rule->uid_range.end, KUIDT_INIT(~0)))
			return false;
	}
	return true;
}

/*
 * Whether the nexthop is chosen by what the connection fixes: its addresses (policy 0), and its
 * ports where it has some (policy 1; else the hash may be of an SPI or of a tunnelled packet).
 * Groups of nexthop objects look at neighbours whatever the sysctl says, and a change of a member
 * makes no route obsolete; a route does not tell whether it is of one.
 */
static bool nfzr_multipath_keyed4(const struct net *net, u8 protocol)
{
	u8 policy = READ_ONCE(net->ipv4.sysctl_fib_multipath_hash_policy);

	return !READ_ONCE(net->nexthop.rb_root.rb_node) &&
	       !READ_ONCE(net->ipv4.sysctl_fib_multipath_use_neigh) &&
	       (policy == 0 || (policy == 1 && nfzr_has_ports(protocol)));
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
	if (dst_xfrm(dst))
		return NFZR_UNFIT_XFRM;
	if (dst->lwtstate)
		return NFZR_UNFIT_LWTUNNEL;
	if (rt->rt_pmtu || READ_ONCE(dst->expires))
		return NFZR_UNFIT_PMTU;
	if ((IPCB(skb)->flags & IPSKB_MULTIPATH) && !nfzr_multipath_keyed4(net, protocol))
		return NFZR_UNFIT_MULTIPATH;
	if (!nfzr_rules_keyed4(net, protocol))
		return NFZR_UNFIT_RULES;
	return NFZR_FIT;
}

/*
 * The lookup that ip_rcv_finish() would do next, with its arguments. On success the packet has
 * its route as if the kernel had done it; on failure it has none, so that the kernel repeats the
 * lookup and drops the packet for a reason of its own.
 */
void nfzr_helper_route4(struct sk_buff *skb, struct nfzr_route *r)
{
	const struct iphdr *iph = ip_hdr(skb);
	struct net *net = dev_net_rcu(skb->dev);
	struct dst_entry *dst;
	int genid = rt_genid_ipv4(net);

	/* Pairs with the bump after a change: see below. */
	smp_rmb();
	r->dst = NULL;
	r->multipath = false;
	if (ip_route_input_noref(skb, iph->daddr, iph->saddr, ip4h_dscp(iph), skb->dev)) {
		r->fit = NFZR_UNFIT_NO_ROUTE;
		return;
	}
	dst = skb_dst(skb);
	r->fit = nfzr_route_fit4(net, skb);
	if (r->fit != NFZR_FIT)
		return;
	/*
	 * A route found before a change and allocated after it bears the new genid: the kernel sends
	 * this one packet by it, but it must not serve others.
	 */
	if (dst_rtable(dst)->rt_genid != genid || !dst_hold_safe(dst)) {
		r->fit = NFZR_UNFIT_GONE;
		return;
	}
	r->dst = dst;
	r->cookie = 0;	/* ipv4_dst_check() has no use for one */
	r->oif = dst_dev_rcu(dst)->ifindex;
	r->multipath = IPCB(skb)->flags & IPSKB_MULTIPATH;
}

/* Gives the packet the route if the kernel still holds it for valid. */
bool nfzr_helper_use_dst4(struct sk_buff *skb, struct dst_entry *dst, u32 cookie, bool multipath)
{
	if (!dst_check(dst, cookie))
		return false;
	/* Keeps list receive from using this packet's route as a hint for other flows. */
	if (multipath)
		IPCB(skb)->flags |= IPSKB_MULTIPATH;
	skb_dst_set_noref(skb, dst);
	return true;
}

bool nfzr_helper_dst_valid(struct dst_entry *dst, u32 cookie)
{
	return dst_check(dst, cookie);
}

/*
 * Whether the packet's route is dst, which is valid, or leads the same way: the kernel may keep several
 * routes of one nexthop. False in *known: nothing can be said.
 */
bool nfzr_helper_skb_goes_by4(const struct sk_buff *skb, const struct dst_entry *dst, bool *known)
{
	struct dst_entry *skb_has = skb_dst(skb);
	const struct rtable *a, *b = dst_rtable(dst);

	/*
	 * A route that is no longer valid was chosen before dst was. And policies are looked up later, and
	 * may have put a bundle in the route's place.
	 */
	*known = skb_has && !dst_xfrm(skb_has) && dst_check(skb_has, 0);
	if (!*known || skb_has == dst)
		return *known;
	a = dst_rtable(skb_has);
	return dst_dev_rcu(skb_has) == dst_dev_rcu(dst) && a->rt_type == b->rt_type &&
	       a->rt_flags == b->rt_flags && a->rt_uses_gateway == b->rt_uses_gateway &&
	       a->rt_gw_family == b->rt_gw_family &&
	       (a->rt_gw_family == AF_INET6 ? ipv6_addr_equal(&a->rt_gw6, &b->rt_gw6) :
					      a->rt_gw4 == b->rt_gw4);
}

void nfzr_helper_dst_put(struct dst_entry *dst)
{
	dst_release(dst);
}

/* The address family of an IPv4 route's gateway, which is written to *gw; 0: on link. */
u16 nfzr_helper_dst_gateway4(const struct dst_entry *dst, u8 gw[16])
{
	const struct rtable *rt = dst_rtable(dst);

	if (!rt->rt_uses_gateway)
		return 0;
	if (rt->rt_gw_family == AF_INET)
		memcpy(gw, &rt->rt_gw4, sizeof(rt->rt_gw4));
	else
		memcpy(gw, &rt->rt_gw6, sizeof(rt->rt_gw6));
	return rt->rt_gw_family;
}
