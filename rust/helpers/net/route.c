// SPDX-License-Identifier: GPL-2.0
/*
 * Checks of packets and routes that IPv4 and IPv6 share. All functions run in a netfilter hook:
 * softirq or process context, under rcu_read_lock().
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

/* Returns whether conntrack's tuple has the ports of this protocol. */
static __always_inline bool nfzr_has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/*
 * Returns whether the ports that routing looks at are those that conntrack and DNAT left: the
 * inverse of the other direction's tuple for the destination, this direction's tuple for the
 * source. A packet that was rewritten without conntrack's knowledge fails this check. `size' is the
 * size of the IP header.
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

/*
 * Reads the fields that both families share. Returns false if the packet has no connection or no
 * receiving device.
 */
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
	/* In later hooks, the dst is the one that routing chose. */
	if (skb_dst(skb) && state->hook == NF_INET_PRE_ROUTING)
		return NFZR_UNFIT_HAS_DST;
	if (nfzr_is_l3(state->in))
		return NFZR_UNFIT_L3MDEV;
	/* An ICMP error carries the connection that it is about, not one of its own addresses. */
	if (ctinfo == IP_CT_RELATED || ctinfo == IP_CT_RELATED_REPLY)
		return NFZR_UNFIT_RELATED;
	return NFZR_FIT;
}

/*
 * Returns whether rules select only by fields of the key; otherwise no route of the netns is
 * cached. If the ct's tuple has ports, the ct fixes them. For other protocols, the flow dissector
 * finds other values (an SPI).
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
 * The cookie of an IPv6 route is the netns' genid from before the lookup. Every completed insertion
 * into any table bumps the genid, as do changes of rules, devices and exceptions. The kernel's own
 * cookie covers only the table that holds the route. Its current value is passed to dst_check(),
 * which detects a deletion.
 */
static bool nfzr_valid6(struct dst_entry *dst, u32 cookie)
{
	return rt_genid_ipv6(dev_net_rcu(dst_dev_rcu(dst))) == cookie &&
	       dst_check(dst, rt6_get_cookie(dst_rt6_info(dst)));
}

/* Returns whether the route is still valid for the kernel. */
bool nfzr_helper_dst_valid(struct dst_entry *dst, u32 cookie)
{
	return dst->ops->family == AF_INET6 ? nfzr_valid6(dst, cookie) : !!dst_check(dst, cookie);
}

void nfzr_helper_dst_put(struct dst_entry *dst)
{
	dst_release(dst);
}

/* Writes a route's gateway to gw and returns its address family, or 0 if the route is on link. */
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
