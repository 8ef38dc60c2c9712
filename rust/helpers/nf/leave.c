// SPDX-License-Identifier: GPL-2.0
/*
 * The second step of a jump: a packet that may jump, and that was tracked, is attached to its
 * connection, translated and sent. Nothing can fail any more. Softirq, under rcu_read_lock().
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/checksum.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/neighbour.h>
#include <net/netfilter/nf_conntrack.h>

/*
 * Writes the ports that NAT gives a packet, and updates the transport checksum for them and for the
 * change of the addresses: what nf_nat_packet() does for both manipulations.
 */
static __always_inline void nfzr_translate_ports(struct sk_buff *skb, void *transport,
						 const struct nf_conntrack_tuple *other,
						 __wsum addrs, bool ipv6)
{
	const bool is_tcp = other->dst.protonum == IPPROTO_TCP;
	const __be16 sport = other->dst.u.all, dport = other->src.u.all;
	struct udphdr *uh = transport;
	struct tcphdr *th = transport;
	__sum16 *check = is_tcp ? &th->check : &uh->check;
	__wsum diff = addrs;

	/* The source and the destination port are the first two fields of both. */
	if (skb->ip_summed != CHECKSUM_PARTIAL) {
		diff = csum_sub(diff, (__force __wsum)uh->source);
		diff = csum_add(diff, (__force __wsum)sport);
		diff = csum_sub(diff, (__force __wsum)uh->dest);
		diff = csum_add(diff, (__force __wsum)dport);
	}
	if (is_tcp || *check) {
		inet_proto_csum_replace_by_diff(check, skb, diff, true, ipv6);
		if (!is_tcp && !*check)
			*check = CSUM_MANGLED_0;
	}
	uh->source = sport;
	uh->dest = dport;
}

/* Adds the difference between two addresses to a sum. */
static __always_inline __wsum nfzr_csum_diff(const __be32 *from, const __be32 *to,
					     unsigned int words, __wsum sum)
{
	unsigned int i;

	for (i = 0; i < words; i++)
		sum = csum_add(csum_sub(sum, (__force __wsum)from[i]), (__force __wsum)to[i]);
	return sum;
}

/* The last part of a jump, which both families share. */
static __always_inline void nfzr_leave(struct sk_buff *skb, const struct nfzr_pass *p,
				       const struct nfzr_exit *x)
{
	skb_clear_tstamp(skb);
	skb->mark = p->mark;
	skb->priority = p->priority;
	skb->dev = x->out;
	skb_dst_set_noref(skb, p->cached.dst);
	neigh_output(x->neigh, skb, x->skips_header_cache);
}

/*
 * Attaches a tracked packet to its connection, as nfzr_helper_attach(), and sends it: from
 * PRE_ROUTING's NAT to ip_finish_output2(). Consumes the packet.
 */
static __always_inline void nfzr_leave4(struct sk_buff *skb, const struct nf_hook_state *state,
					const struct nfzr_lookup *l, u32 timeout,
					u64 __percpu *in_zone, u64 __percpu *in_net)
{
	struct nf_conn *ct = l->found->ct;
	const struct nf_conntrack_tuple *other = nfzr_other_tuple(ct, l->dir);
	struct net *net = state->net;
	struct iphdr *iph = ip_hdr(skb);

	/* The packet had no ct when it was looked up. */
	nfzr_attach(skb, ct, l->dir, timeout, in_zone, in_net);
	skb_forward_csum(skb);
	if (unlikely(nfzr_translated_size(ct))) {
		const __be32 saddr = other->dst.u3.ip, daddr = other->src.u3.ip;
		__wsum diff = nfzr_csum_diff(&iph->saddr, &saddr, 1, 0);

		diff = nfzr_csum_diff(&iph->daddr, &daddr, 1, diff);
		csum_replace_by_diff(&iph->check, diff);
		iph->saddr = saddr;
		iph->daddr = daddr;
		nfzr_translate_ports(skb, iph + 1, other, diff, false);
	}
	ip_decrease_ttl(iph);
	__IP_INC_STATS(net, IPSTATS_MIB_OUTFORWDATAGRAMS);
	IP_UPD_PO_STATS(net, IPSTATS_MIB_OUT, skb->len);
	IPCB(skb)->flags |= IPSKB_FORWARDED;
	skb->protocol = htons(ETH_P_IP);
	nfzr_leave(skb, l->pass, &l->exit);
}

void nfzr_helper_leave4(struct sk_buff *skb, const struct nf_hook_state *state,
			const struct nfzr_lookup *l, u32 timeout, u64 __percpu *in_zone,
			u64 __percpu *in_net)
{
	nfzr_leave4(skb, state, l, timeout, in_zone, in_net);
}

/* As nfzr_leave4(). */
static __always_inline void nfzr_leave6(struct sk_buff *skb, const struct nf_hook_state *state,
					const struct nfzr_lookup *l, u32 timeout,
					u64 __percpu *in_zone, u64 __percpu *in_net)
{
	struct nf_conn *ct = l->found->ct;
	const struct nf_conntrack_tuple *other = nfzr_other_tuple(ct, l->dir);
	struct inet6_dev *idev = ip6_dst_idev(l->pass->cached.dst);
	struct net *net = state->net;
	struct ipv6hdr *ip6h = ipv6_hdr(skb);

	/* The packet had no ct when it was looked up. */
	nfzr_attach(skb, ct, l->dir, timeout, in_zone, in_net);
	skb_forward_csum(skb);
	if (unlikely(nfzr_translated_size(ct))) {
		__wsum diff = nfzr_csum_diff(ip6h->saddr.s6_addr32, other->dst.u3.ip6, 4, 0);

		diff = nfzr_csum_diff(ip6h->daddr.s6_addr32, other->src.u3.ip6, 4, diff);
		ip6h->saddr = other->dst.u3.in6;
		ip6h->daddr = other->src.u3.in6;
		nfzr_translate_ports(skb, ip6h + 1, other, diff, true);
	}
	ip6h->hop_limit--;
	__IP6_INC_STATS(net, idev, IPSTATS_MIB_OUTFORWDATAGRAMS);
	IP6_UPD_PO_STATS(net, idev, IPSTATS_MIB_OUT, skb->len);
	skb->protocol = htons(ETH_P_IPV6);
	nfzr_leave(skb, l->pass, &l->exit);
}

void nfzr_helper_leave6(struct sk_buff *skb, const struct nf_hook_state *state,
			const struct nfzr_lookup *l, u32 timeout, u64 __percpu *in_zone,
			u64 __percpu *in_net)
{
	nfzr_leave6(skb, state, l, timeout, in_zone, in_net);
}
