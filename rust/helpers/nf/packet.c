// SPDX-License-Identifier: GPL-2.0
/*
 * Packet fields that the hooks read in the same way for both families. All functions run in a
 * netfilter hook: softirq or process context, under rcu_read_lock().
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/xfrm.h>

bool nfzr_helper_is_unconfirmed(const struct sk_buff *skb)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	return ct && !nf_ct_is_confirmed(ct);
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
	enum ip_conntrack_info ctinfo;
	struct nf_conn *ct;

	if (skb->sk || state->sk || !state->in || !nfzr_is_forwarded(skb, state))
		return false;
	ct = nf_ct_get(skb, &ctinfo);
	if (!ct || nf_ct_is_template(ct) || !nf_ct_is_confirmed(ct) || nf_ct_is_dying(ct))
		return false;
	if (ctinfo == IP_CT_RELATED || ctinfo == IP_CT_RELATED_REPLY)
		return false;
	/* The original tuple of this ct belongs to another connection. */
	if (test_bit(IPS_NAT_CLASH_BIT, &ct->status))
		return false;

	f->ct = ct;
	nfzr_read_ext(ct, &f->handle, &f->has_ext);
	f->dst = skb_dst(skb);
	f->iif = state->in->ifindex;
	f->dir = CTINFO2DIR(ctinfo);
	f->xfrm = !!dst_xfrm(f->dst);
	f->unassured = !test_bit(IPS_ASSURED_BIT, &ct->status);
	return true;
}
