// SPDX-License-Identifier: GPL-2.0
/*
 * Packet fields that the hooks read in the same way for both families, and the checks of packets
 * and routes that both families share. All functions run in a netfilter hook: softirq or process
 * context, under rcu_read_lock().
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netfilter_bridge.h>
#include <net/dst_metadata.h>
#include <net/fib_rules.h>
#include <net/inet_dscp.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/lwtunnel.h>
#include <net/route.h>
#include <net/xfrm.h>

static __always_inline bool nfzr_is_l3(const struct net_device *dev)
{
	return netif_is_l3_master(dev) || netif_is_l3_slave(dev);
}

/*
 * Returns the hash by which policy 1 chooses a nexthop if the packet has one (from the receiving
 * device, or from a local sender, who changes it to leave a dead path), folded to 15 bits, with the
 * highest bit set. Without such a hash, the kernel hashes the addresses and ports: returns 1. Never
 * 0. If two hashes are folded to one value, a sender that changes one to the other stays on its path
 * until it changes the hash again.
 */
static __always_inline u16 nfzr_path_hash(const struct sk_buff *skb)
{
	u32 hash = skb_get_hash_raw(skb);

	return skb->l4_hash ? (u16)(hash ^ hash >> 16) | BIT(15) : 1;
}

/* Returns whether a route serves packets with the last part of this key, though it has another one. */
static __always_inline bool nfzr_is_any_dscp(u32 rest, const struct nfzr_key *key,
					     const struct nfzr_cached *cached)
{
	return cached->flags & NFZR_ANY_DSCP && !((rest ^ key->rest) & ~NFZR_KEY_CLASS);
}

/*
 * Returns whether a route that was chosen for packets with a key was chosen for this packet, too.
 * `rest' is that part of the packet's key.
 */
static __always_inline bool nfzr_is_for(const struct sk_buff *skb,
					const struct nf_hook_state *state, u32 rest,
					const struct nfzr_key *key,
					const struct nfzr_cached *cached)
{
	return state->in->ifindex == key->iif && skb->mark == key->mark &&
	       (likely(rest == key->rest) || nfzr_is_any_dscp(rest, key, cached)) &&
	       (likely(!cached->path_hash) || cached->path_hash == nfzr_path_hash(skb));
}

/* Returns the tuple of the packet's direction, or of the other one. */
static __always_inline const struct nf_conntrack_tuple *nfzr_tuple_of(const struct nfzr_ct_ref *c,
								       bool other)
{
	bool reply = (c->ctinfo >= IP_CT_IS_REPLY) != other;

	return reply ? &c->ct->tuplehash[IP_CT_DIR_REPLY].tuple :
		       &c->ct->tuplehash[IP_CT_DIR_ORIGINAL].tuple;
}

/* Returns whether conntrack's tuple has the ports of this protocol. */
static __always_inline bool nfzr_has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* Returns whether a packet has these ports, which are not in its linear part. */
static noinline bool nfzr_has_paged_ports(const struct sk_buff *skb, const void *at, __be16 sport,
					  __be16 dport)
{
	__be16 ports[2];

	return !skb_copy_bits(skb, at - (const void *)skb->data, ports, sizeof(ports)) &&
	       ports[0] == sport && ports[1] == dport;
}

/*
 * Returns whether the ports that routing looks at are those that conntrack and DNAT left: the
 * inverse of the other direction's tuple for the destination, this direction's tuple for the
 * source. A packet that was rewritten without conntrack's knowledge fails this check. `size' is the
 * size of the IP header.
 */
static __always_inline bool nfzr_is_tuple_ports(const struct sk_buff *skb, unsigned int size,
						u8 protocol,
						const struct nf_conntrack_tuple *this,
						const struct nf_conntrack_tuple *other)
{
	const __be16 *ports = (void *)(skb_network_header(skb) + size);

	if (protocol != this->dst.protonum)
		return false;
	if (!nfzr_has_ports(protocol))
		return true;
	if (unlikely((void *)(ports + 2) > (void *)skb_tail_pointer(skb)))
		return nfzr_has_paged_ports(skb, ports, this->src.u.all, other->src.u.all);
	return ports[0] == this->src.u.all && ports[1] == other->src.u.all;
}

static __always_inline enum nfzr_fit nfzr_packet_fit(const struct sk_buff *skb,
						     const struct nf_hook_state *state,
						     const struct nfzr_ct_ref *c)
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
	if (nfzr_is_related(c))
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

/* IPv6 has no flag for forwarded packets, but records the receiving device of a packet. */
static bool nfzr_is_forwarded(const struct sk_buff *skb, const struct nf_hook_state *state)
{
	if (state->pf == NFPROTO_IPV4)
		return IPCB(skb)->flags & IPSKB_FORWARDED;
	return IP6CB(skb)->iif && !ipv6_addr_is_multicast(&ipv6_hdr(skb)->daddr);
}

/* At POST_ROUTING. Returns false unless skb is a forwarded packet of a confirmed connection. */
bool nfzr_helper_forwarded(struct sk_buff *skb, const struct nf_hook_state *state,
			   struct nfzr_forwarded *f)
{
	const struct nf_conn *ct;

	if (skb->sk || state->sk || !state->in || !nfzr_is_forwarded(skb, state))
		return false;
	if (!nfzr_read_ct(skb, &f->ct) || !f->ct.confirmed || nfzr_is_related(&f->ct))
		return false;
	ct = f->ct.ct;
	/* NAT_CLASH: the original tuple of this ct belongs to another connection. */
	if (nf_ct_is_dying(ct) || test_bit(IPS_NAT_CLASH_BIT, &ct->status))
		return false;

	f->dst = skb_dst(skb);
	f->iif = state->in->ifindex;
	f->xfrm = !!dst_xfrm(f->dst);
	f->unassured = !test_bit(IPS_ASSURED_BIT, &ct->status);
	return true;
}

/* Returns whether forwarded packets of the netns may go into IPsec, as xfrm_route_forward() does. */
bool nfzr_helper_may_transform(const struct net *net)
{
#ifdef CONFIG_XFRM
	return READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_OUT]) ||
	       READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_OUT]) != XFRM_USERPOLICY_ACCEPT;
#else
	return false;
#endif
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
 * or was replaced. Runs first in FORWARD, before any other hook modifies the packet.
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
