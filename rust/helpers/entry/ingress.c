// SPDX-License-Identifier: GPL-2.0
/*
 * Jumps at the ingress of a device, before the packet enters IP: what ip_rcv() and ipv6_rcv() do, and
 * then the lookup. A packet in doubt is left alone, and goes on as if there was no hook. Softirq,
 * under rcu_read_lock().
 *
 * The zone is the default one, because no chain comes before the module's first hook in PRE_ROUTING:
 * nfzr_ruleset.is_early.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/ip.h>
#include <net/ipv6.h>

/* Returns the length of an IPv4 packet that ip_rcv_core() would accept, or 0. */
static __always_inline u32 nfzr_ingress_len4(struct sk_buff *skb)
{
	const struct iphdr *iph = ip_hdr(skb);
	u32 len;

	if (skb_headlen(skb) < sizeof(*iph) || iph->version != 4 || iph->ihl != sizeof(*iph) / 4 ||
	    ip_fast_csum(iph, sizeof(*iph) / 4))
		return 0;
	len = ntohs(iph->tot_len);
	return len >= sizeof(*iph) && len <= skb->len ? len : 0;
}

/* Returns the length of an IPv6 packet that ip6_rcv_core() would accept, or 0. */
static __always_inline u32 nfzr_ingress_len6(struct sk_buff *skb, const struct net_device *in)
{
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);
	const struct inet6_dev *idev = __in6_dev_get(in);
	u32 len;

	if (skb_headlen(skb) < sizeof(*ip6h) || ip6h->version != 6 || !ip6h->payload_len ||
	    !idev || READ_ONCE(idev->cnf.disable_ipv6))
		return 0;
	len = ntohs(ip6h->payload_len) + sizeof(*ip6h);
	return len <= skb->len ? len : 0;
}

static __always_inline enum nfzr_ingress
nfzr_ingress(struct sk_buff *skb, const u8 pf, const struct nf_hook_state *state,
	     struct __genradix *zones, struct __genradix *passes, struct nfzr_ruleset *r,
	     struct nfzr_lookup *l)
{
	u32 len;

	if (!r || r->is_early)
		return NFZR_INGRESS_STAYS;
	len = pf == NFPROTO_IPV4 ? nfzr_ingress_len4(skb) : nfzr_ingress_len6(skb, state->in);
	/* Only short packets have padding. With a sum that is to be made, trimming it may fail. */
	if (!len || (len != skb->len &&
		     (skb_is_nonlinear(skb) || skb->ip_summed == CHECKSUM_PARTIAL)))
		return NFZR_INGRESS_STAYS;
	skb_set_transport_header(skb, pf == NFPROTO_IPV4 ? sizeof(struct iphdr) :
							    sizeof(struct ipv6hdr));
	nfzr_lookup_begin(l);
	l->len = len;
	l->why = nfzr_lookup(skb, pf, true, len, state, NULL, zones, passes, l);
	if (l->why != NFZR_TRACK)
		return NFZR_INGRESS_STAYS;
	l->stay = nfzr_find_exit(skb, pf, true, state, r, l);
	return NFZR_INGRESS_FOUND;
}

static noinline __flatten enum nfzr_ingress
nfzr_ingress4(struct sk_buff *skb, const struct nf_hook_state *state, struct __genradix *zones,
	      struct __genradix *passes, struct nfzr_ruleset *r, struct nfzr_lookup *l)
{
	return nfzr_ingress(skb, NFPROTO_IPV4, state, zones, passes, r, l);
}

static noinline __flatten enum nfzr_ingress
nfzr_ingress6(struct sk_buff *skb, const struct nf_hook_state *state, struct __genradix *zones,
	      struct __genradix *passes, struct nfzr_ruleset *r, struct nfzr_lookup *l)
{
	return nfzr_ingress(skb, NFPROTO_IPV6, state, zones, passes, r, l);
}

/*
 * As nfzr_helper_lookup4() and nfzr_helper_lookup6() for a packet that may jump at ingress. r has the
 * firewalls of both families. If it returns NFZR_INGRESS_FOUND, the caller gets a reference to the
 * packet's connection.
 */
enum nfzr_ingress nfzr_helper_ingress(struct sk_buff *skb, const struct nf_hook_state *state,
				      struct __genradix *zones, struct __genradix *passes,
				      struct nfzr_ruleset *const r[2], struct nfzr_lookup *l)
{
	const bool is_ipv4 = skb->protocol == htons(ETH_P_IP);

	if (!is_ipv4 && skb->protocol != htons(ETH_P_IPV6))
		return NFZR_INGRESS_OTHER;
	/* The packet comes to another device first, of a VLAN, bridge or bond, or IP drops it. */
	if ((skb_vlan_tag_present(skb) && skb_vlan_tag_get_id(skb)) ||
	    rcu_access_pointer(state->in->rx_handler) || skb->pkt_type == PACKET_OTHERHOST)
		return NFZR_INGRESS_OTHER;
	/* The tag of VLAN 0 has a priority only. */
	if (skb_vlan_tag_present(skb) || skb_shared(skb) || skb->_nfct)
		return NFZR_INGRESS_STAYS;
	if (is_ipv4)
		return nfzr_ingress4(skb, state, zones, passes, r[0], l);
	return nfzr_ingress6(skb, state, zones, passes, r[1], l);
}

/* Does what ip_rcv_core() and ip6_rcv_core() do with a packet that they accept. */
static __always_inline void nfzr_enter_ip(struct sk_buff *skb, const u8 pf,
					  const struct nf_hook_state *state, u32 len)
{
	const u16 segments = max_t(u16, 1, skb_shinfo(skb)->gso_segs);
	struct inet6_dev *idev;
	u8 ecn;

	if (pf == NFPROTO_IPV4) {
		ecn = ip_hdr(skb)->tos & INET_ECN_MASK;
		__IP_UPD_PO_STATS(state->net, IPSTATS_MIB_IN, skb->len);
		__IP_ADD_STATS(state->net, IPSTATS_MIB_NOECTPKTS + ecn, segments);
		memset(IPCB(skb), 0, sizeof(*IPCB(skb)));
		IPCB(skb)->iif = skb->skb_iif;
	} else {
		idev = __in6_dev_get(state->in);
		ecn = ipv6_get_dsfield(ipv6_hdr(skb)) & INET_ECN_MASK;
		__IP6_UPD_PO_STATS(state->net, idev, IPSTATS_MIB_IN, skb->len);
		__IP6_ADD_STATS(state->net, idev, IPSTATS_MIB_NOECTPKTS + ecn, segments);
		memset(IP6CB(skb), 0, sizeof(*IP6CB(skb)));
		IP6CB(skb)->iif = state->in->ifindex;
		IP6CB(skb)->nhoff = offsetof(struct ipv6hdr, nexthdr);
	}
	/* The packet is linear if it has padding, so this cannot fail. */
	if (unlikely(skb->len != len))
		(void)pskb_trim_rcsum(skb, len);
	skb_orphan(skb);
}

/* As nfzr_helper_leave4() and nfzr_helper_leave6(), of a packet at ingress. */
void nfzr_helper_ingress_leave(struct sk_buff *skb, const struct nf_hook_state *state,
			       const struct nfzr_lookup *l, u32 timeout, u64 __percpu *in_zone,
			       u64 __percpu *in_net)
{
	if (l->probe.tuple.src.l3num == NFPROTO_IPV4) {
		nfzr_enter_ip(skb, NFPROTO_IPV4, state, l->len);
		nfzr_leave4(skb, state, l, timeout, in_zone, in_net);
	} else {
		nfzr_enter_ip(skb, NFPROTO_IPV6, state, l->len);
		nfzr_leave6(skb, state, l, timeout, in_zone, in_net);
	}
}
