// SPDX-License-Identifier: GPL-2.0
/*
 * Packets whose whole way is observed, to learn what becomes of the packets of their direction. A
 * packet is noted before it meets rules, its route when it gets one, and its form when it leaves. The
 * notes are per CPU, hashed by the packet's address. Softirq or process context, under
 * rcu_read_lock().
 *
 * A packet may leave on another CPU, or never. So a note may be of an earlier packet at the address of
 * another one; but every packet that goes on from PRE_ROUTING ends the note at its address there,
 * unless it is the one that was noted.
 */
#include <linux/hash.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>

static struct nfzr_observed *nfzr_observed_at(const struct nfzr_observer __percpu *observer,
					      const struct sk_buff *skb)
{
	const struct nfzr_observer *o = this_cpu_ptr(observer);

	return (struct nfzr_observed *)&o->packet[hash_ptr(skb, ilog2(NFZR_OBSERVED))];
}

/* Returns whether this CPU has noted a packet at the address of skb. Bottom halves may be on. */
static __always_inline bool nfzr_is_observed(const struct nfzr_observer __percpu *observer,
					     const struct sk_buff *skb)
{
	return this_cpu_read(observer->packet[hash_ptr(skb, ilog2(NFZR_OBSERVED))].skb) == skb;
}

/* Ends the note at a packet's address. Bottom halves may be on. */
void nfzr_helper_observe_not(struct nfzr_observer __percpu *observer, const struct sk_buff *skb)
{
	if (unlikely(nfzr_is_observed(observer, skb)))
		this_cpu_write(observer->packet[hash_ptr(skb, ilog2(NFZR_OBSERVED))].skb, NULL);
}

/*
 * Returns the sum of all of a packet that its kind of NAT leaves as it is, behind the IP header. The
 * packet is TCP or UDP.
 */
static u32 nfzr_sum_payload(const struct sk_buff *skb, unsigned int offset, u8 protocol)
{
	const unsigned int end = skb->len;
	struct udphdr _uh __uninitialized;
	const struct udphdr *uh;
	__wsum sum;

	if (end < offset + (protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(_uh)))
		return 0;
	if (protocol == IPPROTO_TCP) {
		/* From the sequence number to the window. */
		sum = skb_checksum(skb, offset + 4, 12, 0);
		offset += offsetof(struct tcphdr, urg_ptr);
	} else {
		uh = skb_header_pointer(skb, offset, sizeof(_uh), &_uh);
		/* A sum of 0 stays 0. */
		sum = (__force __wsum)(uh ? uh->len + !uh->check : 0);
		offset += sizeof(_uh);
	}
	/* The sum of the same bytes may differ by where they lie, until it is folded. */
	return (__force u32)csum_fold(skb_checksum(skb, offset, end - offset, sum));
}

/*
 * Notes a packet that is about to meet the rules of an epoch, unless its kind never jumps; `stamp'
 * was taken before. Returns the reason why not.
 */
enum nfzr_stay nfzr_helper_observe(struct nfzr_observer __percpu *observer,
				   const struct sk_buff *skb, const struct nf_hook_state *state,
				   const struct nf_conn *ct, u8 dir, u32 epoch, u64 stamp)
{
	const struct in_device *in_dev = __in_dev_get_rcu(state->in);
	const struct iphdr *iph = ip_hdr(skb);
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);
	struct nfzr_observed *o;
	u32 mark = READ_ONCE(ct->mark);
	enum nfzr_stay stay;

	if (!softirq_count())
		return NFZR_STAY_PACKET;
	o = nfzr_observed_at(observer, skb);
	o->skb = NULL;
	if (nfzr_has_policies(state->net))
		return NFZR_STAY_IPSEC;
	if (nfzr_is_peculiar(skb, false, state))
		return NFZR_STAY_PACKET;
	if (!test_bit(IPS_ASSURED_BIT, &ct->status))
		return NFZR_STAY_UNASSURED;
	stay = nfzr_ct_stay(ct, mark);
	if (stay != NFZR_JUMP)
		return stay;
	if (!skb_frags_readable(skb))
		return NFZR_STAY_PACKET;
	if (state->pf == NFPROTO_IPV4) {
		if (!in_dev)
			return NFZR_STAY_DEVICE;
		nfzr_read_entry(skb, state, nfzr_entry_rest4(state->net, iph, in_dev), &o->entry);
		o->id = ntohs(iph->id);
		o->frag_off = ntohs(iph->frag_off);
		o->tos = iph->tos;
		o->ttl = iph->ttl;
		o->payload = nfzr_sum_payload(skb, sizeof(*iph), iph->protocol);
	} else {
		nfzr_read_entry(skb, state, nfzr_key_rest6(ip6h), &o->entry);
		o->id = 0;
		o->frag_off = 0;
		o->tos = ipv6_get_dsfield(ip6h);
		o->ttl = ip6h->hop_limit;
		o->payload = nfzr_sum_payload(skb, sizeof(*ip6h), ip6h->nexthdr);
	}
	o->ct = ct;
	o->dst = NULL;
	o->stamp = stamp;
	o->epoch = epoch;
	o->len = skb->len;
	o->ct_mark = mark;
	o->dir = dir;
	o->task = current;
	o->in_task = in_task();
	o->is_predicted = false;
	o->out_dst = NULL;
	o->out_mark = 0;
	o->out_priority = 0;
	o->skb = skb;
	return NFZR_JUMP;
}

/* Adds to the note of an observed packet that it would have jumped as a lookup found. */
void nfzr_helper_predict(struct nfzr_observer __percpu *observer, const struct sk_buff *skb,
			 const struct nfzr_lookup *l)
{
	struct nfzr_observed *o;

	if (!nfzr_is_observed(observer, skb))
		return;
	o = nfzr_observed_at(observer, skb);
	o->is_predicted = true;
	o->out_mark = l->pass->mark;
	o->out_priority = l->pass->priority;
	o->out_dst = l->pass->cached.dst;
}

/* Adds to the note of an observed packet that the kernel chose the cached route for it. In FORWARD. */
void nfzr_helper_observe_route(struct nfzr_observer __percpu *observer, const struct sk_buff *skb)
{
	if (softirq_count() && nfzr_is_observed(observer, skb))
		nfzr_observed_at(observer, skb)->dst = skb_dst(skb);
}

/* Fills all of the pass of an observed packet but its route and its owner. */
static void nfzr_fill_pass(struct nfzr_pass *p, const struct nfzr_observed *o,
			   const struct sk_buff *skb)
{
	p->entry = o->entry;
	p->ct_mark = o->ct_mark;
	p->mark = skb->mark;
	p->priority = skb->priority;
}

/*
 * Notes what becomes of a packet at the end of PRE_ROUTING: its route, if it is a cached one and the
 * packet is observed; and that it goes on, if its connection has the mark.
 */
void nfzr_helper_goes_on(struct nfzr_observer __percpu *observer, const struct sk_buff *skb,
			 bool is_served, u32 mark, u32 mask)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (!ct || !mask || (READ_ONCE(ct->mark) & mask) != mark)
		return;
	nfzr_note_stayed(observer, ct, CTINFO2DIR(ctinfo));
	if (!nfzr_is_observed(observer, skb))
		return;
	if (is_served && softirq_count())
		nfzr_observed_at(observer, skb)->dst = skb_dst(skb);
	else
		nfzr_helper_observe_not(observer, skb);
}

/* Returns whether ip_forward() or ip6_forward() bring a packet that has a route to FORWARD. */
static bool nfzr_reaches_forward(struct sk_buff *skb, const struct nf_hook_state *state)
{
	const struct dst_entry *dst = skb_dst(skb);
	const struct net_device *out;

	if (!dst)
		return false;
	out = dst_dev_rcu(dst);
	/* They make the same room, for which there may be no memory. */
	if (!nfzr_make_room(skb, LL_RESERVED_SPACE(out) + dst->header_len, 0))
		return false;
	if (state->pf == NFPROTO_IPV4)
		return ip_hdr(skb)->ttl > 1 &&
		       nfzr_fits(skb, nfzr_mtu4(state->net, dst_rtable(dst), out));
	return ipv6_hdr(skb)->hop_limit > 1 &&
	       nfzr_may_forward6(state->net, state->in, ip6_dst_idev(dst)) &&
	       nfzr_fits(skb, nfzr_mtu6(dst_rt6_info(dst), out));
}

/*
 * Ends the note of a packet at the end of PRE_ROUTING, and that of its direction: none of its packets
 * jumps. Returns true if the note was this packet's, and it goes to FORWARD by its route. Then writes the
 * note, and all of the pass but its route and its owner.
 */
bool nfzr_helper_entered(struct nfzr_observer __percpu *observer, struct sk_buff *skb,
			 const struct nf_hook_state *state, struct nfzr_observed *o,
			 struct nfzr_pass *p)
{
	struct nfzr_observed *noted;
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (ct)
		nfzr_note_left(observer, ct, CTINFO2DIR(ctinfo));
	if (!softirq_count() || !nfzr_is_observed(observer, skb))
		return false;
	noted = nfzr_observed_at(observer, skb);
	*o = *noted;
	noted->skb = NULL;
	o->dst = skb_dst(skb);
	nfzr_fill_pass(p, o, skb);
	return ct && ct == o->ct && CTINFO2DIR(ctinfo) == o->dir &&
	       nfzr_reaches_forward(skb, state);
}

/* Notes that a packet leaves POST_ROUTING. Returns whether it was observed. */
bool nfzr_helper_leaves(struct nfzr_observer __percpu *observer, const struct sk_buff *skb,
			const struct nf_hook_state *state)
{
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	/* A packet of this host, as of a tunnel, may leave while a batch is in PRE_ROUTING. */
	if (ct && state->in && !skb->sk && nfzr_is_forwarded(skb, state))
		nfzr_note_left(observer, ct, CTINFO2DIR(ctinfo));
	return nfzr_is_observed(observer, skb);
}

/* Returns whether a packet's ports are the connection's, and the rest is as it was. */
static bool nfzr_leaves_as(const struct sk_buff *skb, const struct nfzr_observed *o,
			   const struct nf_conntrack_tuple *other, unsigned int offset, u8 protocol)
{
	const __be16 *ports = (const __be16 *)(skb->data + offset);

	return protocol == other->dst.protonum && ports[0] == other->dst.u.all &&
	       ports[1] == other->src.u.all && skb_frags_readable(skb) &&
	       nfzr_sum_payload(skb, offset, protocol) == o->payload;
}

/* Returns whether a packet leaves as a jump would have sent the one that was noted. */
static bool nfzr_leaves_as4(const struct sk_buff *skb, const struct nfzr_observed *o,
			    const struct nf_conntrack_tuple *other)
{
	const struct iphdr *iph = ip_hdr(skb);

	return skb_headlen(skb) >= sizeof(*iph) + 4 && iph->ihl == sizeof(*iph) / 4 &&
	       IPCB(skb)->flags & IPSKB_FORWARDED && !(IPCB(skb)->flags & IPSKB_REROUTED) &&
	       IPCB(skb)->iif == o->entry.key.iif && iph->ttl + 1 == o->ttl && iph->tos == o->tos &&
	       ntohs(iph->id) == o->id && ntohs(iph->frag_off) == o->frag_off &&
	       iph->saddr == other->dst.u3.ip && iph->daddr == other->src.u3.ip &&
	       nfzr_leaves_as(skb, o, other, sizeof(*iph), iph->protocol);
}

static bool nfzr_leaves_as6(const struct sk_buff *skb, const struct nfzr_observed *o,
			    const struct nf_conntrack_tuple *other)
{
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);

	return skb_headlen(skb) >= sizeof(*ip6h) + 4 && IP6CB(skb)->iif == o->entry.key.iif &&
	       !(IP6CB(skb)->flags & (IP6SKB_REROUTED | IP6SKB_FRAGMENTED)) &&
	       ip6h->hop_limit + 1 == o->ttl && ipv6_get_dsfield(ip6h) == o->tos &&
	       ntohl(ip6_flowlabel(ip6h)) == (o->entry.key.rest & (BIT(NFZR_KEY_CLASS_SHIFT) - 1)) &&
	       ipv6_addr_equal(&ip6h->saddr, &other->dst.u3.in6) &&
	       ipv6_addr_equal(&ip6h->daddr, &other->src.u3.in6) &&
	       nfzr_leaves_as(skb, o, other, sizeof(*ip6h), ip6h->nexthdr);
}

/*
 * Returns whether a packet that was noted has not waited for a verdict of userspace, after which it goes
 * on in the task that gives it. Neither has it found the queue full: then it goes on at once, but queueing
 * took a reference to its route. So does the translation of a source.
 */
static bool nfzr_has_not_waited(const struct sk_buff *skb, const struct nfzr_observed *o,
				const struct nf_conn *ct)
{
	return o->task == current && o->in_task == in_task() &&
	       ((READ_ONCE(ct->status) & IPS_NAT_MASK) || skb_dst_is_noref(skb));
}

/* Returns whether a packet that was noted leaves POST_ROUTING as a jump would have sent it. */
static bool nfzr_leaves_as_jump(const struct sk_buff *skb, const struct nf_hook_state *state,
				const struct nfzr_observed *o, const struct nf_conn *ct)
{
	const struct nf_conntrack_tuple *other = nfzr_other_tuple(ct, o->dir);

	if (!o->dst || o->dst != skb_dst(skb) || state->in->ifindex != o->entry.key.iif ||
	    skb->len != o->len || nfzr_is_marked(skb))
		return false;
#ifdef CONFIG_NETWORK_SECMARK
	if (skb->secmark)
		return false;
#endif
#ifdef CONFIG_IP_ROUTE_CLASSID
	/* The kernel counts packets by realm. */
	if (o->dst->tclassid)
		return false;
#endif
	return state->pf == NFPROTO_IPV4 ? nfzr_leaves_as4(skb, o, other) :
					   nfzr_leaves_as6(skb, o, other);
}

/*
 * Ends the note of a packet that leaves, in POST_ROUTING after all rules. Unless it returns NFZR_UNSEEN,
 * writes the note, and all of the pass but its route and its owner.
 */
enum nfzr_seen nfzr_helper_observed(struct nfzr_observer __percpu *observer,
				    const struct sk_buff *skb, const struct nf_hook_state *state,
				    struct nfzr_observed *o, struct nfzr_pass *p)
{
	struct nfzr_observed *noted;
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (!softirq_count())
		return NFZR_UNSEEN;
	noted = nfzr_observed_at(observer, skb);
	if (noted->skb != skb)
		return NFZR_UNSEEN;
	*o = *noted;
	noted->skb = NULL;
	if (!ct || ct != o->ct || CTINFO2DIR(ctinfo) != o->dir || !state->in ||
	    !nfzr_has_not_waited(skb, o, ct))
		return NFZR_UNSEEN;
	/* By now, no packet would jump. */
	if (nfzr_ct_stay(ct, o->ct_mark) != NFZR_JUMP || nfzr_has_policies(state->net))
		return NFZR_UNSEEN;
	o->is_right = o->is_predicted && skb->mark == o->out_mark &&
		      skb->priority == o->out_priority && nfzr_same_way(o->out_dst, skb_dst(skb));
	nfzr_fill_pass(p, o, skb);
	return nfzr_leaves_as_jump(skb, state, o, ct) ? NFZR_SEEN : NFZR_SEEN_OTHERWISE;
}
