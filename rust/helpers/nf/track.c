// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking of packets whose connection is in a zone's table: reads a packet before conntrack sees
 * it, and does what conntrack would do with it. All functions run in a PRE_ROUTING hook: softirq or
 * process context, under rcu_read_lock(). nfzr_helper_tcp_lock() takes ct->lock; no other lock
 * nests inside it.
 *
 * Buffers of skb_header_pointer() are __uninitialized, because most kernels zero variables otherwise.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netfilter_bridge.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/version.h>
#include <net/ip6_checksum.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_helper.h>
#include <net/netfilter/nf_conntrack_l4proto.h>
#include <net/netfilter/nf_conntrack_timeout.h>
#include <net/netfilter/nf_conntrack_zones.h>
#include <net/netns/hash.h>
#include <net/tcp.h>

/* rust/kapi/nf/tcp.rs repeats these values. */
static_assert(TCP_CONNTRACK_ESTABLISHED == 3);
static_assert(IP_CT_TCP_FLAG_SACK_PERM == 0x02);
static_assert(IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED == 0x10);
static_assert(IP_CT_TCP_FLAG_MAXACK_SET == 0x20);

/*
 * The series of kernels with which selftests/zone/verify.sh has compared the copy of conntrack's
 * tracking: here, in rust/track/tcp.rs and in rust/track/udp.rs.
 */
#define NFZR_VERIFIED_SERIES KERNEL_VERSION(7, 3, 0)

/* Returns whether the module was built for a kernel of that series. */
bool nfzr_helper_is_tracking_verified(void)
{
	return LINUX_VERSION_CODE >> 8 == NFZR_VERIFIED_SERIES >> 8;
}

/* Reads the protocol and the offset of the transport header. */
static __always_inline enum nfzr_track nfzr_probe_ipv4(const struct sk_buff *skb,
						       struct nfzr_probe *p, u8 *protocol)
{
	const struct iphdr *iph = ip_hdr(skb);

	if (ip_is_fragment(iph))
		return NFZR_UNTRACK_FRAGMENT;
	if (iph->ihl != sizeof(*iph) / 4)
		return NFZR_UNTRACK_OPTIONS;
	p->dataoff = skb_network_offset(skb) + sizeof(*iph);
	*protocol = iph->protocol;
	return NFZR_TRACK;
}

/* With an extension header, the protocol is neither TCP nor UDP. */
static __always_inline enum nfzr_track nfzr_probe_ipv6(const struct sk_buff *skb,
						       struct nfzr_probe *p, u8 *protocol)
{
	p->dataoff = skb_network_offset(skb) + sizeof(struct ipv6hdr);
	*protocol = ipv6_hdr(skb)->nexthdr;
	return NFZR_TRACK;
}

/* Completes a tuple whose ports were read. No byte of it is left out, because all are compared. */
static __always_inline void nfzr_probe_tuple(const struct sk_buff *skb, u8 pf, u8 protocol,
					     struct nf_conntrack_tuple *t)
{
	const struct iphdr *iph = ip_hdr(skb);
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);

	t->src.l3num = pf;
	t->dst.protonum = protocol;
	t->dst.dir = 0;
	if (pf == NFPROTO_IPV4) {
		memset(&t->src.u3, 0, sizeof(t->src.u3));
		memset(&t->dst.u3, 0, sizeof(t->dst.u3));
		t->src.u3.ip = iph->saddr;
		t->dst.u3.ip = iph->daddr;
	} else {
		t->src.u3.in6 = ip6h->saddr;
		t->dst.u3.in6 = ip6h->daddr;
	}
}

/* Returns whether tcp_sack() would find no selective acknowledgment among these options. */
static noinline bool nfzr_tcp_has_no_sack(const u8 *option, int length)
{
	const int base = TCPOLEN_SACK_BASE, block = TCPOLEN_SACK_PERBLOCK;
	int size;

	for (; length > 0 && option[0] != TCPOPT_EOL; option += size, length -= size) {
		size = 1;
		if (option[0] == TCPOPT_NOP)
			continue;
		/* tcp_sack() looks at no options after one whose length is wrong. */
		if (length < 2 || option[1] < 2 || option[1] > length)
			return true;
		size = option[1];
		if (option[0] == TCPOPT_SACK && size >= base + block && (size - base) % block == 0)
			return false;
	}
	return true;
}

/* Returns whether tcp_sack() would find no selective acknowledgment in a segment. */
static __always_inline bool nfzr_tcp_is_plain(const struct sk_buff *skb, const struct nfzr_probe *p,
					      const struct tcphdr *th)
{
	u8 _options[MAX_TCP_OPTION_SPACE] __uninitialized;
	int length = th->doff * 4 - sizeof(*th);
	const u8 *options;

	if (!length)
		return true;
	options = skb_header_pointer(skb, p->dataoff + sizeof(*th), length, _options);
	if (!options)
		return false;
	/* In most cases there is only the timestamp. */
	if (length == TCPOLEN_TSTAMP_ALIGNED &&
	    get_unaligned_be32(options) == ((TCPOPT_NOP << 24) | (TCPOPT_NOP << 16) |
					    (TCPOPT_TIMESTAMP << 8) | TCPOLEN_TIMESTAMP))
		return true;
	return nfzr_tcp_has_no_sack(options, length);
}

/* Mirrors tcp_error() and segment_seq_plus_len(). */
static __always_inline enum nfzr_track nfzr_probe_tcp(const struct sk_buff *skb, u32 end,
						       struct nfzr_probe *p)
{
	struct tcphdr _th __uninitialized;
	const struct tcphdr *th = skb_header_pointer(skb, p->dataoff, sizeof(_th), &_th);
	u32 len = end - p->dataoff;

	if (!th || th->doff * 4 < sizeof(*th) || len < th->doff * 4)
		return NFZR_UNTRACK_MALFORMED;
	/* rust/track/tcp.rs leaves segments that open or close a connection to conntrack. */
	p->flags = tcp_flag_byte(th);
	if ((p->flags & (TCPHDR_FIN | TCPHDR_SYN | TCPHDR_RST | TCPHDR_ACK)) != TCPHDR_ACK)
		return NFZR_UNTRACK_TCP_FLAGS;
	p->tuple.src.u.tcp.port = th->source;
	p->tuple.dst.u.tcp.port = th->dest;
	p->has_checksum = true;
	p->is_tcp = true;
	p->win = ntohs(th->window);
	p->seq = ntohl(th->seq);
	p->ack = ntohl(th->ack_seq);
	p->end = p->seq + len - th->doff * 4 + th->syn + th->fin;
	p->plain = nfzr_tcp_is_plain(skb, p, th);
	return NFZR_TRACK;
}

/* Mirrors udp_error(). */
static __always_inline enum nfzr_track nfzr_probe_udp(const struct sk_buff *skb, u32 end,
						       struct nfzr_probe *p)
{
	struct udphdr _uh __uninitialized;
	const struct udphdr *uh = skb_header_pointer(skb, p->dataoff, sizeof(_uh), &_uh);
	u32 len;

	if (!uh)
		return NFZR_UNTRACK_MALFORMED;
	len = udp_get_len(skb, uh, p->dataoff);
	if (len > end - p->dataoff || len < sizeof(*uh))
		return NFZR_UNTRACK_MALFORMED;
	p->tuple.src.u.udp.port = uh->source;
	p->tuple.dst.u.udp.port = uh->dest;
	p->has_checksum = uh->check;
	p->is_tcp = false;
	p->seq = p->ack = p->end = 0;
	p->win = 0;
	p->flags = 0;
	p->plain = false;
	return NFZR_TRACK;
}

/*
 * Reads a packet that conntrack has not seen yet, and that ends at the offset `end' from skb->data;
 * padding may follow. Fills *p if it returns NFZR_TRACK: the packet is of a kind that is looked up.
 */
static __always_inline enum nfzr_track nfzr_probe(const struct sk_buff *skb, const u8 pf, u32 end,
						  const struct nf_hook_state *state,
						  const struct nf_conn *tmpl, struct nfzr_probe *p)
{
	const struct nf_conntrack_zone *zone;
	struct nf_conntrack_zone tmp __uninitialized;
	enum nfzr_track why;
	u8 protocol;

	if (pf == NFPROTO_IPV4)
		why = nfzr_probe_ipv4(skb, p, &protocol);
	else
		why = nfzr_probe_ipv6(skb, p, &protocol);
	if (why != NFZR_TRACK)
		return why;
	if (protocol == IPPROTO_TCP)
		why = nfzr_probe_tcp(skb, end, p);
	else if (protocol == IPPROTO_UDP)
		why = nfzr_probe_udp(skb, end, p);
	else
		why = NFZR_UNTRACK_PROTOCOL;
	if (why != NFZR_TRACK)
		return why;

	nfzr_probe_tuple(skb, pf, protocol, &p->tuple);
	if (tmpl) {
		zone = nf_ct_zone_tmpl(tmpl, skb, &tmp);
		p->zone[IP_CT_DIR_ORIGINAL] = nf_ct_zone_id(zone, IP_CT_DIR_ORIGINAL);
		p->zone[IP_CT_DIR_REPLY] = nf_ct_zone_id(zone, IP_CT_DIR_REPLY);
	} else {
		p->zone[IP_CT_DIR_ORIGINAL] = NF_CT_DEFAULT_ZONE_ID;
		p->zone[IP_CT_DIR_REPLY] = NF_CT_DEFAULT_ZONE_ID;
	}
	p->net_mix = net_hash_mix(state->net);
	return NFZR_TRACK;
}

/* Returns the reason why a status rules the ct out, or NFZR_TRACK. */
static enum nfzr_track nfzr_status_why(const struct nf_conn *ct, unsigned long status)
{
	if (!(status & IPS_CONFIRMED) || status & IPS_DYING)
		return NFZR_UNTRACK_GONE;
	if (!(status & IPS_SEEN_REPLY))
		return NFZR_UNTRACK_UNREPLIED;
	/* For UDP, the prediction itself checks IPS_ASSURED. */
	if (!(status & IPS_ASSURED) && nf_ct_protonum(ct) == IPPROTO_TCP)
		return NFZR_UNTRACK_UNASSURED;
	if (status & IPS_SEQ_ADJUST)
		return NFZR_UNTRACK_SEQ_ADJUST;
	if (status & IPS_NAT_CLASH)
		return NFZR_UNTRACK_CLASH;
	if (status & (IPS_OFFLOAD | IPS_HW_OFFLOAD))
		return NFZR_UNTRACK_OFFLOAD;
	return NFZR_TRACK;
}

/*
 * Returns NFZR_TRACK if conntrack would do no more with a packet of the ct than is predicted here,
 * else the reason why not.
 */
static __always_inline enum nfzr_track nfzr_ct_why(const struct nf_conn *ct)
{
	const unsigned long good = IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED;
	const unsigned long bad = IPS_DYING | IPS_SEQ_ADJUST | IPS_NAT_CLASH | IPS_OFFLOAD |
				  IPS_HW_OFFLOAD;
	unsigned long status = READ_ONCE(ct->status);
	enum nfzr_track why;

	/* In most cases nothing rules the ct out. */
	if (unlikely((status & (good | bad)) != good)) {
		why = nfzr_status_why(ct, status);
		if (why != NFZR_TRACK)
			return why;
	}
	if (nf_ct_ext_exist(ct, NF_CT_EXT_HELPER))
		return NFZR_UNTRACK_HELPER;
	return NFZR_TRACK;
}

/*
 * As nf_checksum() for a linear packet whose sum is not known, without its calls. Returns true if the
 * checksum is right, and leaves the sum in the skb if `keep' is set. Returns false if nf_checksum() is
 * to decide.
 */
static __always_inline bool nfzr_checksum_linear(struct sk_buff *skb, const u8 pf, u32 end,
						 const struct nfzr_probe *p, const bool keep)
{
	const u8 protocol = p->tuple.dst.protonum;
	const int len = end - p->dataoff;
	__wsum sum, header = 0;
	__sum16 rest;

	if (skb->ip_summed != CHECKSUM_NONE || skb_is_nonlinear(skb) || skb_shared(skb))
		return false;
	if (pf == NFPROTO_IPV4) {
		/* The IP header's sum is 0, which was checked before. */
		sum = csum_partial(skb->data, end, 0);
		rest = csum_tcpudp_magic(ip_hdr(skb)->saddr, ip_hdr(skb)->daddr, len, protocol, sum);
	} else {
		header = csum_partial(skb->data, p->dataoff, 0);
		sum = csum_partial(skb->data + p->dataoff, len, 0);
		rest = csum_ipv6_magic(&ipv6_hdr(skb)->saddr, &ipv6_hdr(skb)->daddr, len, protocol,
				       sum);
	}
	if (rest)
		return false;
	if (!keep)
		return true;
	skb->csum = csum_add(header, sum);
	skb->ip_summed = CHECKSUM_COMPLETE;
	skb->csum_complete_sw = 1;
	skb->csum_valid = 1;
	return true;
}

/*
 * Returns whether nf_checksum() may decide. It leaves its result in the skb. At ingress that must be
 * the same as when conntrack calls it, and there may be padding.
 */
static __always_inline bool nfzr_may_checksum(const struct sk_buff *skb, const bool at_ingress,
					      u32 end)
{
	return !at_ingress || (skb->ip_summed == CHECKSUM_COMPLETE && end == skb->len);
}

/*
 * Mirrors the checksum check of tcp_error() and udp_error(). The result stays in the skb for the
 * kernel's own check, but not at ingress.
 */
static __always_inline bool nfzr_checksum_good(struct sk_buff *skb, const u8 pf,
						const bool at_ingress, u32 end,
						const struct nf_hook_state *state,
						const struct nfzr_probe *p)
{
	/* nf_checksum() looks at no other packets. */
	if (skb->ip_summed != CHECKSUM_NONE && skb->ip_summed != CHECKSUM_COMPLETE)
		return true;
	if (!p->has_checksum || !state->net->ct.sysctl_checksum ||
	    nfzr_checksum_linear(skb, pf, end, p, !at_ingress))
		return true;
	return nfzr_may_checksum(skb, at_ingress, end) &&
	       !nf_checksum(skb, NF_INET_PRE_ROUTING, p->dataoff, p->tuple.dst.protonum, pf);
}

/* Reads the timeouts that a TCP connection may get. */
static __always_inline void nfzr_read_tcp(struct net *net, const struct nf_conn *ct,
					  struct nfzr_tcp_timeouts *t)
{
	const struct nf_tcp_net *tn = nf_tcp_pernet(net);
	const unsigned int *timeouts = nf_ct_timeout_lookup(ct);

	if (!timeouts)
		timeouts = tn->timeouts;
	t->established = READ_ONCE(timeouts[TCP_CONNTRACK_ESTABLISHED]);
	t->retrans = READ_ONCE(timeouts[TCP_CONNTRACK_RETRANS]);
	t->unack = READ_ONCE(timeouts[TCP_CONNTRACK_UNACK]);
	t->max_retrans = READ_ONCE(tn->tcp_max_retrans);
}

/* Reads the inputs of a UDP connection's timeout. */
static __always_inline void nfzr_read_udp(struct net *net, const struct nf_conn *ct,
					  struct nfzr_udp *u)
{
	const unsigned int *timeouts = nf_ct_timeout_lookup(ct);

	if (!timeouts)
		timeouts = nf_udp_pernet(net)->timeouts;
	u->now = jiffies;
	u->since = ct->proto.udp.stream_ts;
	u->unreplied = READ_ONCE(timeouts[UDP_CT_UNREPLIED]);
	u->replied = READ_ONCE(timeouts[UDP_CT_REPLIED]);
	u->assured = test_bit(IPS_ASSURED_BIT, &ct->status);
}

/*
 * Locks a TCP connection and returns its state. Returns NULL, without the lock, if sequence numbers
 * of the connection are rewritten.
 */
struct ip_ct_tcp *nfzr_helper_tcp_lock(struct nf_conn *ct)
{
	spin_lock_bh(&ct->lock);
	/*
	 * The bit is set before the lock is taken to write the offsets. If the bit is clear here,
	 * no offset is set either.
	 */
	if (test_bit(IPS_SEQ_ADJUST_BIT, &ct->status)) {
		spin_unlock_bh(&ct->lock);
		return NULL;
	}
	return &ct->proto.tcp;
}

void nfzr_helper_tcp_unlock(struct nf_conn *ct)
{
	spin_unlock_bh(&ct->lock);
}

/* Copies the state of a TCP connection under its lock. */
void nfzr_helper_tcp_copy(struct nf_conn *ct, struct ip_ct_tcp *to)
{
	spin_lock_bh(&ct->lock);
	*to = ct->proto.tcp;
	spin_unlock_bh(&ct->lock);
}

/* Writes the time when the ct expires, in jiffies. Returns false if its timeout is fixed. */
bool nfzr_helper_ct_expiry(const struct nf_conn *ct, u32 *expiry)
{
	*expiry = READ_ONCE(ct->timeout);
	return !test_bit(IPS_FIXED_TIMEOUT_BIT, &ct->status);
}
