// SPDX-License-Identifier: GPL-2.0
/*
 * What IPv4 and IPv6 have in common of packets and routes. All run in a netfilter hook: softirq or
 * process context, under rcu_read_lock().
 */
#include <linux/netfilter_bridge.h>
#include <net/dst_metadata.h>
#include <net/fib_rules.h>
#include <net/ip6_route.h>
#include <net/l3mdev.h>
#include <net/lwtunnel.h>
#include <net/route.h>
#include <net/xfrm.h>

static __always_inline bool nfzr_is_l3(const struct net_device *dev)
{
	return netif_is_l3_master(dev) || netif_is_l3_slave(dev);
}

/* The protocols whose ports are in the tuple, as conntrack has them. */
static __always_inline bool nfzr_has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/*
 * True when the ports that routing looks at are the ones that conntrack and DNAT left: the inverse of
 * the other direction's tuple for the destination, this direction's tuple for the source. Whatever
 * rewrites a packet behind conntrack's back fails this. `size' is that of the IP header.
 */
static __always_inline bool nfzr_is_tuple_ports(const struct sk_buff *skb, unsigned int size, u8 protocol,
				const struct nf_conn *ct, enum ip_conntrack_dir dir)
{
	const struct nf_conntrack_tuple *this = nf_ct_tuple(ct, dir);
	const struct nf_conntrack_tuple *other = nf_ct_tuple(ct, !dir);
	__be16 _ports[2];
	const __be16 *ports;

	if (protocol != this->dst.protonum)
		return false;
	if (!nfzr_has_ports(protocol))
		return true;
	ports = skb_header_pointer(skb, skb_network_offset(skb) + size, sizeof(_ports), _ports);
	return ports && ports[0] == this->src.u.all && ports[1] == other->src.u.all;
}

/* What both families read of a packet. False: it has no connection, or no receiving device. */
static __always_inline bool nfzr_packet_begin(const struct sk_buff *skb, const struct nf_hook_state *state,
			      struct nfzr_packet *p, enum ip_conntrack_info *ctinfo)
{
	struct nf_conn *ct = nf_ct_get(skb, ctinfo);

	if (!ct || nf_ct_is_template(ct) || !state->in)
		return false;
	p->ct = ct;
	p->confirmed = nf_ct_is_confirmed(ct);
	nfzr_read_ext(ct, &p->handle, &p->has_ext);
	p->iif = state->in->ifindex;
	p->mark = skb->mark;
	p->dir = CTINFO2DIR(*ctinfo);
	return true;
}

static __always_inline enum nfzr_fit nfzr_packet_fit(const struct sk_buff *skb, const struct nf_hook_state *state,
				     enum ip_conntrack_info ctinfo)
{
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
	return NFZR_FIT;
}

/*
 * Whether rules select only on what the key has; else no route of the netns is cached. Ports are
 * fixed by the ct where they are in its tuple; elsewhere the flow dissector finds others (an SPI).
 */
static bool nfzr_rules_keyed(const struct fib_rules_ops *ops, bool by_ports, u8 protocol)
{
	const struct fib_rule *rule;

	if (!ops)
		return true;
	if (by_ports && !nfzr_has_ports(protocol))
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
 * The cookie of an IPv6 route is the netns' genid from before the lookup, which every insertion into
 * any table bumps when it is done, as rules, devices and exceptions do. The kernel's own cookie knows
 * of the table that the route is in only, and is asked as it is now: for a deletion.
 */
static bool nfzr_valid6(struct dst_entry *dst, u32 cookie)
{
	return rt_genid_ipv6(dev_net_rcu(dst_dev_rcu(dst))) == cookie &&
	       dst_check(dst, rt6_get_cookie(dst_rt6_info(dst)));
}

/* Whether the kernel still holds the route for valid. */
bool nfzr_helper_dst_valid(struct dst_entry *dst, u32 cookie)
{
	return dst->ops->family == AF_INET6 ? nfzr_valid6(dst, cookie) : !!dst_check(dst, cookie);
}

void nfzr_helper_dst_put(struct dst_entry *dst)
{
	dst_release(dst);
}

/* The address family of a route's gateway, which is written to *gw; 0: on link. */
u16 nfzr_helper_dst_gateway(const struct dst_entry *dst, u8 gw[16])
{
	const struct rtable *rt = dst_rtable(dst);

	if (dst->ops->family == AF_INET6) {
		const struct rt6_info *rt6 = dst_rt6_info(dst);

		if (!(rt6->rt6i_flags & RTF_GATEWAY))
			return 0;
		memcpy(gw, &rt6->rt6i_gateway, sizeof(rt6->rt6i_gateway));
		return AF_INET6;
	}
	if (!rt->rt_uses_gateway)
		return 0;
	if (rt->rt_gw_family == AF_INET)
		memcpy(gw, &rt->rt_gw4, sizeof(rt->rt_gw4));
	else
		memcpy(gw, &rt->rt_gw6, sizeof(rt->rt_gw6));
	return rt->rt_gw_family;
}
