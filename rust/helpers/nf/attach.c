// SPDX-License-Identifier: GPL-2.0
/*
 * Attaching a packet to its connection before conntrack sees it. In a PRE_ROUTING hook: softirq or
 * process context, under rcu_read_lock().
 */
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_core.h>

/*
 * Does the rest of conntrack's work for a packet that it would accept: refreshes the timeout (in
 * jiffies) and the counters, and attaches the ct in place of the template, if there is one. The
 * packet gets the caller's reference to the ct. Increments both counters on this CPU. Returns false,
 * and does nothing else, if the packet has a ct already, which it keeps.
 */
static __always_inline bool nfzr_attach(struct sk_buff *skb, struct nf_conn *ct, u8 dir, u32 timeout,
					u64 __percpu *in_zone, u64 __percpu *in_net)
{
	enum ip_conntrack_info ctinfo = dir == IP_CT_DIR_REPLY ? IP_CT_ESTABLISHED_REPLY :
								 IP_CT_ESTABLISHED;
	enum ip_conntrack_info was;
	struct nf_conn *tmpl = nf_ct_get(skb, &was);

	if (tmpl && !nf_ct_is_template(tmpl)) {
		nf_ct_put(ct);
		return false;
	}
	nf_ct_refresh_acct(ct, ctinfo, skb, timeout);
	/* nf_ct_set() requires an empty _nfct. */
	skb->_nfct = 0;
	nf_ct_set(skb, ct, ctinfo);
	if (tmpl)
		nf_ct_put(tmpl);
	this_cpu_inc(*in_zone);
	this_cpu_inc(*in_net);
	return true;
}

void nfzr_helper_attach(struct sk_buff *skb, struct nf_conn *ct, u8 dir, u32 timeout,
			u64 __percpu *in_zone, u64 __percpu *in_net)
{
	nfzr_attach(skb, ct, dir, timeout, in_zone, in_net);
}
