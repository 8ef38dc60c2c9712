// SPDX-License-Identifier: GPL-2.0
/*
 * The order of a direction's packets. Packets that are received as a batch pass PRE_ROUTING one after
 * the other before the first of them goes on. So a packet that jumps would overtake an earlier one
 * that does not. That earlier packet is noted at the end of PRE_ROUTING and lets no other of its
 * direction jump on this CPU until one of them is at the end of POST_ROUTING.
 *
 * The notes are hashed by connection. If another direction has the place of a note, no direction of
 * that place jumps until a packet of one of them leaves: then the batch has passed PRE_ROUTING. If
 * rules drop all packets, none of them would jump anyway. Softirq or process context.
 */
#include <linux/hash.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/percpu.h>
#include <net/netfilter/nf_conntrack.h>

/* A note: more than one direction. */
#define NFZR_STAYED_MANY 1UL

static __always_inline unsigned int nfzr_stayed_place(const struct nf_conn *ct)
{
	return hash_ptr(ct, ilog2(NFZR_STAYED));
}

/* Returns a direction's note. The address of a ct is a multiple of more than 2. */
static __always_inline unsigned long nfzr_stayed_note(const struct nf_conn *ct, u8 dir)
{
	return (unsigned long)ct | (dir ? 2 : 0);
}

/* Returns whether an earlier packet of the direction may still be on its way. */
static __always_inline bool nfzr_has_stayed(const struct nfzr_observer __percpu *o,
					    const struct nf_conn *ct, u8 dir)
{
	unsigned long note = this_cpu_read(o->stayed[nfzr_stayed_place(ct)]);

	return unlikely(note) && (note == NFZR_STAYED_MANY || note == nfzr_stayed_note(ct, dir));
}

/* Notes a packet that goes on from PRE_ROUTING. */
static void nfzr_note_stayed(struct nfzr_observer __percpu *o, const struct nf_conn *ct, u8 dir)
{
	const unsigned int place = nfzr_stayed_place(ct);
	const unsigned long note = nfzr_stayed_note(ct, dir);
	const unsigned long was = this_cpu_read(o->stayed[place]);

	if (was != note)
		this_cpu_write(o->stayed[place], was ? NFZR_STAYED_MANY : note);
}

/* Ends the note of a packet that leaves POST_ROUTING. */
static void nfzr_note_left(struct nfzr_observer __percpu *o, const struct nf_conn *ct, u8 dir)
{
	if (unlikely(nfzr_has_stayed(o, ct, dir)))
		this_cpu_write(o->stayed[nfzr_stayed_place(ct)], 0);
}

/*
 * Devices receive a batch in the same way: all packets pass the ingress hook before the first of them
 * reaches PRE_ROUTING. At ingress, the connection of a packet that does not jump may be unknown. So such
 * packets are noted by their family, device and addresses. A note keeps later ones from jumping at
 * ingress until the first of them reaches PRE_ROUTING: the batch goes on before the CPU receives another.
 *
 * If notes meet at a place, no packet of that place jumps for two jiffies: a batch takes less.
 */

/* Returns the note of packets between two addresses, which is not 0. */
static __always_inline u32 nfzr_early(u32 from, u32 to, u8 pf, const struct net_device *in)
{
	return (from + rol32(to, 13) + (u32)in->ifindex * GOLDEN_RATIO_32 + pf) | 1;
}

static __always_inline u32 nfzr_early4(const struct iphdr *iph, const struct net_device *in)
{
	return nfzr_early((__force u32)iph->saddr, (__force u32)iph->daddr, NFPROTO_IPV4, in);
}

static __always_inline u32 nfzr_fold(const struct in6_addr *addr)
{
	const u32 *words = (__force const u32 *)addr->s6_addr32;

	return words[0] ^ words[1] ^ words[2] ^ words[3];
}

static __always_inline u32 nfzr_early6(const struct ipv6hdr *ip6h, const struct net_device *in)
{
	return nfzr_early(nfzr_fold(&ip6h->saddr), nfzr_fold(&ip6h->daddr), NFPROTO_IPV6, in);
}

/* Returns the note of a packet whose IP header is linear. */
static __always_inline u32 nfzr_early_of(const struct sk_buff *skb, const u8 pf,
					 const struct net_device *in)
{
	return pf == NFPROTO_IPV4 ? nfzr_early4(ip_hdr(skb), in) : nfzr_early6(ipv6_hdr(skb), in);
}

static __always_inline unsigned int nfzr_early_place(u32 note)
{
	return hash_32(note, ilog2(NFZR_STAYED));
}

static __always_inline bool nfzr_has_stayed_early(const struct nfzr_observer __percpu *o, u32 note)
{
	const unsigned int place = nfzr_early_place(note);

	return unlikely(this_cpu_read(o->early[place]) == note ||
			(u32)jiffies - this_cpu_read(o->many_at[place]) <= 2);
}

/* Ends the note of a packet that is in PRE_ROUTING. Only a device with hooks at ingress has notes. */
static __always_inline void nfzr_note_arrived(struct nfzr_observer __percpu *o,
					      const struct sk_buff *skb, const u8 pf,
					      const struct net_device *in)
{
	unsigned int place;
	u32 note;

	if (likely(!rcu_access_pointer(in->nf_hooks_ingress)))
		return;
	note = nfzr_early_of(skb, pf, in);
	place = nfzr_early_place(note);
	if (this_cpu_read(o->early[place]) == note)
		this_cpu_write(o->early[place], 0);
}

/* Notes a packet that does not jump at ingress. Its network header may not be linear. */
void nfzr_helper_ingress_stays(struct nfzr_observer __percpu *o, const struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	struct ipv6hdr _ip6h __uninitialized;
	struct iphdr _iph __uninitialized;
	const struct ipv6hdr *ip6h;
	const struct iphdr *iph;
	unsigned int place;
	u32 note, was;

	if (skb->protocol == htons(ETH_P_IP)) {
		iph = skb_header_pointer(skb, 0, sizeof(_iph), &_iph);
		if (!iph)
			return;
		note = nfzr_early4(iph, state->in);
	} else {
		ip6h = skb_header_pointer(skb, 0, sizeof(_ip6h), &_ip6h);
		if (!ip6h)
			return;
		note = nfzr_early6(ip6h, state->in);
	}
	place = nfzr_early_place(note);
	was = this_cpu_read(o->early[place]);
	if (was && was != note)
		this_cpu_write(o->many_at[place], (u32)jiffies);
	this_cpu_write(o->early[place], note);
}
