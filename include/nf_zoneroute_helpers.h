/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C helpers of nf_zoneroute for what Rust cannot call or read itself: static inlines, bit-fields,
 * unions. They are grouped so that a packet costs few calls. This file has the prototypes and the
 * shared structs. bindgen reads it too, so both languages see one layout. Locking and context are
 * documented at each helper.
 */
#ifndef _NF_ZONEROUTE_HELPERS_H
#define _NF_ZONEROUTE_HELPERS_H

#include <linux/generic-radix-tree.h>
#include <linux/idr.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/proc_fs.h>
#include <linux/rhashtable.h>
#include <linux/seq_file.h>
#include <linux/siphash.h>
#include <net/dst.h>
#include <net/netfilter/nf_conntrack.h>

/*
 * Reasons why a packet, or the route that the kernel chose for it, is kept out of the cache.
 * NFZR_FIT: it may be cached. The names are in rust/route/miss.rs.
 */
enum nfzr_fit {
	NFZR_FIT = 0,
	/* reasons of the packet */
	NFZR_UNFIT_OPTIONS,
	NFZR_UNFIT_FRAGMENT,
	NFZR_UNFIT_NOT_HOST,
	NFZR_UNFIT_SOCKET,
	NFZR_UNFIT_SECPATH,
	NFZR_UNFIT_BRIDGE,
	NFZR_UNFIT_HAS_DST,
	NFZR_UNFIT_L3MDEV,
	NFZR_UNFIT_RELATED,
	NFZR_UNFIT_REWRITTEN,
	NFZR_UNFIT_SCOPE,
	/* reasons of the route */
	NFZR_UNFIT_NO_ROUTE,
	NFZR_UNFIT_NOT_UNICAST,
	NFZR_UNFIT_SAME_DEVICE,
	NFZR_UNFIT_LWTUNNEL,
	NFZR_UNFIT_PMTU,
	NFZR_UNFIT_UNCACHED,
	NFZR_UNFIT_MULTIPATH,
	NFZR_UNFIT_RULES,
	NFZR_UNFIT_GONE,
};

/* The routes that a change of a neighbour's state may affect. */
enum nfzr_neigh_effect {
	/* The choice among nexthops looks at all neighbours. */
	NFZR_NEIGH_ALL_ROUTES,
	/* Routes by groups of nexthop objects, if the neighbour is a gateway of such a group. */
	NFZR_NEIGH_GATEWAY_ROUTES,
};

/* The size of a set of gateways. Each gateway has one bit, which several gateways may share. */
#define NFZR_GATEWAY_WORDS 4
#define NFZR_GATEWAY_BITS (NFZR_GATEWAY_WORDS * 64)

struct nfzr_links;

/* The connection of a packet, and the direction in which the packet goes. */
struct nfzr_ct_ref {
	struct nf_conn *ct;	/* borrowed from the skb; never a template */
	u64 handle;		/* in the ct's extension; 0 when has_ext is false */
	struct nfzr_links *links;	/* of its entry; set by nfzr_helper_find_entry() only */
	enum ip_conntrack_info ctinfo;
	bool has_ext;
	bool confirmed;
	bool counted;		/* set by nfzr_helper_count_ct() and _find_entry() only */
};

/* Where the parts of nfzr_key.rest are. The flow label is in the lowest bits. */
#define NFZR_KEY_CLASS_SHIFT 20
#define NFZR_KEY_CLASS (0xffU << NFZR_KEY_CLASS_SHIFT)
#define NFZR_KEY_CHECK_SHIFT 28
/* Of IPv4 in struct nfzr_entry only: ip_forward() sets the packet's priority. */
#define NFZR_ENTRY_PRIORITY BIT(31)

/*
 * The fields of a packet that a route decision depends on beyond the connection, in host order.
 * The source check is how the receiving device checks sources, and is part of the key because no
 * event announces changes of these sysctls. rust/kapi/nf/key.rs repeats this struct.
 */
struct nfzr_key {
	u32 iif;	/* index of the receiving device */
	u32 mark;
	/*
	 * The flow label (0 for IPv4), the DSCP bits of the TOS byte or traffic class, and for IPv4
	 * rp_filter | src_valid_mark << 2.
	 */
	u32 rest;
};

/* A packet's key, and whether a cached route may serve the packet. */
struct nfzr_headers {
	struct nfzr_key key;
	enum nfzr_fit fit;	/* reasons of the packet */
	u16 path_hash;		/* see nfzr_path_hash() */
};

/* Flags of a choice. */
#define NFZR_MULTIPATH 1	/* the lookup set IPSKB_MULTIPATH or IP6SKB_MULTIPATH */
#define NFZR_ANY_DSCP 2		/* set by Rust: the choice does not depend on the DSCP */
#define NFZR_EXPIRES 4		/* IPv4: the route has a learned MTU, which expires */

/* What has become of a packet that a cached route was to serve. */
enum nfzr_served {
	NFZR_SERVED,
	NFZR_SERVED_NOT,	/* the packet may not take it, but others may */
	NFZR_SERVED_ENDED,	/* the route is not valid for the kernel any more */
};

/* How the kernel chose a route. */
struct nfzr_choice {
	u32 genid;		/* of the netns, before the lookup */
	u16 path_hash;		/* of the packet, if the nexthop was chosen by it, else 0 */
	u8 flags;		/* NFZR_MULTIPATH, NFZR_EXPIRES */
};

/* A cached route. rust/kapi/net/dst.rs repeats this struct. */
struct nfzr_cached {
	struct dst_entry *dst;
	u32 genid;		/* up to which no change can have changed the route */
	u16 path_hash;
	u8 flags;
	u8 family;		/* 0: IPv4, 1: IPv6, as rust/kapi/net/family.rs */
};

/* The route that the kernel chose for a packet. */
struct nfzr_route {
	struct dst_entry *dst;	/* the packet's; NULL unless fit is NFZR_FIT */
	struct nfzr_choice choice;
	u32 oif;
	enum nfzr_fit fit;	/* reasons of the route */
};

/* The addresses for which routing looks up a connection's packets of IPv4, in host order. */
struct nfzr_ends {
	u32 to;
	u32 from;
};

/* An IPv4 prefix. */
struct nfzr_prefix {
	u32 addr;		/* host order */
	u32 len;
};

/* A listener to messages about routes. */
struct nfzr_route_ear {
	/* Called with a prefix, or NULL: see nfzr_is_limited_route(). */
	void (*set)(void *data, const struct nfzr_prefix *prefix, bool is_new);
	void *data;
	spinlock_t lock;	/* held in calls */
};

/* The fields of a forwarded packet that the late POST_ROUTING hook needs. */
struct nfzr_forwarded {
	struct nfzr_ct_ref ct;	/* confirmed; not an ICMP error about the connection */
	const struct dst_entry *dst;	/* borrowed, for comparison only */
	u32 iif;
	bool unassured;		/* the ct may be dropped early */
	bool xfrm;		/* goes into IPsec, by another route than the one it was given */
};

/*
 * One direction of a connection, for display. Addresses are in network order, an IPv4 address in
 * the first four bytes. Ports are in host order.
 */
struct nfzr_tuple {
	u8 src[16];
	u8 dst[16];
	u16 sport;		/* or the ICMP id */
	u16 dport;		/* or ICMP type << 8 | code */
	u16 zone;		/* zone id of this direction */
	u16 l3num;
	u8 protonum;
};

/*
 * Reasons why a packet is left to conntrack: it was not looked up, or not attached to the
 * connection that was found. NFZR_TRACK: it is not left to conntrack. The names are in
 * rust/track/outcome.rs.
 */
enum nfzr_track {
	NFZR_TRACK = 0,
	NFZR_UNTRACK_UNKNOWN,
	/* reasons of the packet */
	NFZR_UNTRACK_PROTOCOL,
	NFZR_UNTRACK_OPTIONS,
	NFZR_UNTRACK_FRAGMENT,
	NFZR_UNTRACK_MALFORMED,
	NFZR_UNTRACK_CHECKSUM,
	NFZR_UNTRACK_TCP_FLAGS,
	/* reasons of the connection */
	NFZR_UNTRACK_GONE,
	NFZR_UNTRACK_UNREPLIED,
	NFZR_UNTRACK_UNASSURED,
	NFZR_UNTRACK_SEQ_ADJUST,
	NFZR_UNTRACK_CLASH,
	NFZR_UNTRACK_OFFLOAD,
	NFZR_UNTRACK_HELPER,
};

/* The fields of a packet that conntrack has not seen yet. Host order, except for the tuple. */
struct nfzr_probe {
	struct nf_conntrack_tuple tuple;
	u32 net_mix;		/* the netns' part of the hash key */
	u32 seq;		/* `seq' to `plain': TCP only */
	u32 ack;
	u32 end;		/* seq plus length */
	u16 win;
	u8 flags;		/* byte 13 of the header */
	bool plain;		/* without selective acknowledgments */
	bool has_checksum;
	bool is_tcp;
	u16 zone[IP_CT_DIR_MAX];	/* the packet's zone, for each direction */
	u32 dataoff;		/* offset of the transport header from skb->data */
};

/* The timeouts of a TCP connection in jiffies, and the sysctl nf_conntrack_tcp_max_retrans. */
struct nfzr_tcp_timeouts {
	u32 established;
	u32 retrans;
	u32 unack;
	u8 max_retrans;
};

/* The inputs of a UDP connection's timeout. Times in jiffies. */
struct nfzr_udp {
	u64 now;
	u64 since;
	u32 unreplied;
	u32 replied;
	bool assured;
};

/* The beginning of an object with a table: `Tabled' in rust/kapi/entry/table.rs. */
struct nfzr_tabled {
	struct rhashtable *table;
};

/* The seats of all limits of a netns: helpers/nf/seat.c. */
struct nfzr_seats {
	struct rhashtable by_ct;
	struct net *net;
	u32 jiffy;			/* the jiffy that `asked' belongs to */
	u32 asked;			/* seats asked about in it because a limit was full */
};

/* The seats that count against one limit. */
struct nfzr_limit {
	spinlock_t lock;		/* of `seats', and of writes to `count' */
	struct list_head seats;
	struct nfzr_seats *all;
	u32 count;
};

/*
 * The head of an entry of rust/kapi/entry: its two links, one for each direction, and their
 * connection. Aligned so that a link's direction and entry can be computed from its address. The
 * entry owns a reference to ct until it is unlinked. A reader under rcu_read_lock() may see an
 * unlinked entry, whose ct may have been freed, and used for another connection since.
 */
struct nfzr_links {
	struct rhash_head link[IP_CT_DIR_MAX];
	struct nf_conn *ct;
	u32 index;
	int state;		/* enum nfzr_state */
} __aligned(16);

/* The highest index of an entry; the lowest is 1. */
#define NFZR_MAX_INDEX 0x3fffffff

/* The life cycle of an entry. */
enum nfzr_state {
	NFZR_NEW,		/* being linked */
	NFZR_LIVE,
	NFZR_DEAD,		/* being unlinked, by the CPU that set this state */
};

/* The packets of a CPU that have something to commit: rust/kapi/nf/pending.rs. */
#define NFZR_PENDING 64
struct nfzr_pending {
	const struct sk_buff *skb[NFZR_PENDING];	/* by address, for comparison only */
};

/* Whether packets may skip the hooks of a family. The names are in rust/route/stay.rs. */
enum nfzr_ruleset_fit {
	NFZR_RULESET_FIT = 0,
	NFZR_RULESET_UNKNOWN,	/* there is a hook whose effects are not known */
	NFZR_RULESET_MANY,	/* there are more hooks or chains than are compared */
	NFZR_RULESET_BEHIND,	/* a hook comes after the one that observes packets */
};

#define NFZR_RULESET_HOOKS 48
#define NFZR_RULESET_CHAINS 16

/* A hook's function and argument. */
struct nfzr_ruleset_hook {
	const void *hook;
	const void *priv;
};

/* The hooks of a point: PRE_ROUTING, FORWARD or POST_ROUTING. */
struct nfzr_ruleset_point {
	const void *set;
	u16 count;		/* of hooks in the set */
};

/* A base chain of nf_tables. */
struct nfzr_ruleset_chain {
	const void *entry;	/* in its point's set */
	struct nfzr_ruleset_hook hook;
	const u8 *policy_at;	/* in the chain */
	u8 policy;
};

/*
 * The firewall that forwarded packets of a family pass, for comparison: helpers/nf/ruleset.c. The
 * pointers to hooks and chains may dangle.
 */
struct nfzr_ruleset {
	enum nfzr_ruleset_fit fit;
	u32 base_seq;
	u32 checked;		/* the jiffy in which all hooks were compared last */
	u8 pf;
	u8 gencursor;
	u8 chains;
	u8 hooks;
	bool is_early;		/* there is a chain before the module's first hook */
	struct nfzr_ruleset_point pre;
	struct nfzr_ruleset_point forward;
	struct nfzr_ruleset_point post;
	struct nfzr_ruleset_chain chain[NFZR_RULESET_CHAINS];
	struct nfzr_ruleset_hook hook[NFZR_RULESET_HOOKS];
	struct nfzr_observer __percpu *observer;
	char unknown[64];	/* the hook of NFZR_RULESET_UNKNOWN */
};

/* Why a packet does not jump. NFZR_JUMP: it may. The names are in rust/route/stay.rs. */
enum nfzr_stay {
	NFZR_JUMP = 0,
	NFZR_STAY_UNLEARNED,	/* its direction has no pass */
	/* reasons of the firewall */
	NFZR_STAY_RULES,	/* other rules than those that the packet's direction is known to pass */
	NFZR_STAY_IPSEC,	/* there are IPsec policies for forwarded packets */
	/* reasons of the packet */
	NFZR_STAY_PACKET,	/* of a kind that never jumps */
	NFZR_STAY_ENTRY,	/* not as the packet was that passed */
	NFZR_STAY_TTL,
	NFZR_STAY_MTU,
	/* reasons of the connection, the route and the way out */
	NFZR_STAY_CT_MARK,
	NFZR_STAY_CT_LABELS,
	NFZR_STAY_ROUTE,
	NFZR_STAY_DEVICE,	/* the device does not forward, or not send, packets of the family */
	NFZR_STAY_NEIGHBOUR,
	NFZR_STAY_NO_MEMORY,
	/* An earlier packet of the direction, which does not jump, may still be on its way. */
	NFZR_STAY_ORDER,
	/* Events of the connection wait to be reported. */
	NFZR_STAY_EVENTS,
	/* Conntrack may drop the connection early. */
	NFZR_STAY_UNASSURED,
};

/* What a packet has just before conntrack, beyond its connection, that rules may look at. */
struct nfzr_entry {
	struct nfzr_key key;	/* `rest' includes NFZR_ENTRY_PRIORITY */
	u32 priority;
	u8 source[ETH_ALEN];	/* if there is a link-layer header */
	u8 mac_len;		/* of that header: 0 or ETH_HLEN */
};

/* What becomes of the packets of a direction. rust/kapi/nf/jump.rs repeats this struct. */
struct nfzr_pass {
	struct nfzr_cached cached;
	struct nfzr_entry entry;
	u32 ct_mark;
	u32 mark;		/* when they leave */
	u32 priority;		/* when they leave */
	const struct nfzr_links *owner;	/* their entry: for comparison only */
};

/* A packet whose way is observed. */
struct nfzr_observed {
	const struct sk_buff *skb;	/* `skb' to `task': by address, for comparison only */
	const struct nf_conn *ct;
	const struct dst_entry *dst;	/* the cached route that it was given, or NULL */
	const struct task_struct *task;	/* in which it goes, or in a softirq over it */
	u64 stamp;		/* before it met rules */
	u32 epoch;		/* the number of the ruleset */
	u32 len;
	struct nfzr_entry entry;
	u32 ct_mark;
	u32 payload;		/* see nfzr_sum_payload() */
	u16 id;
	u16 frag_off;
	u8 tos;
	u8 ttl;
	u8 dir;
	bool in_task;
	/* In verify mode: whether the packet would have jumped, and how it would have left. */
	bool is_predicted;
	bool is_right;		/* it leaves that way and with those marks */
	u32 out_mark;
	u32 out_priority;
	const struct dst_entry *out_dst;	/* valid in the packet's read-side section */
};

/* How an observed packet leaves. */
enum nfzr_seen {
	NFZR_UNSEEN,		/* it is not the one that was observed, or it has waited */
	NFZR_SEEN_OTHERWISE,	/* not as a jump would have sent it */
	NFZR_SEEN,		/* as a jump would have sent it, but for its marks */
};

/*
 * The observed packets of a CPU, and the directions of which a packet did not jump and has not left:
 * see helpers/nf/observe.c.
 */
#define NFZR_OBSERVED 16
#define NFZR_STAYED 64
struct nfzr_observer {
	struct nfzr_observed packet[NFZR_OBSERVED];
	unsigned long stayed[NFZR_STAYED];
	u32 early[NFZR_STAYED];		/* packets that did not jump at ingress */
	u32 many_at[NFZR_STAYED];	/* when notes met at a place, in jiffies */
};

/* Where a packet leaves. */
struct nfzr_exit {
	struct net_device *out;
	struct neighbour *neigh;	/* without a reference */
	bool skips_header_cache;
	bool is_outdated;		/* the kernel may have changed the choice of the route */
};

/* What becomes of a packet at ingress. */
enum nfzr_ingress {
	NFZR_INGRESS_OTHER,	/* It is not IP, or goes to another device first. */
	NFZR_INGRESS_STAYS,
	NFZR_INGRESS_FOUND,	/* Its connection was found. */
};

/* The hook of a device: helpers/net/device_hooks.c. */
struct nfzr_device_hook {
	struct list_head list;
	struct nf_hook_ops ops;
	void *data;
	bool is_armed;		/* Packets may jump. */
	struct rcu_head rcu;
};

/* The hooks of a netns' devices. */
struct nfzr_device_hooks {
	struct notifier_block nb;
	struct net *net;
	struct list_head hooks;
	nf_hookfn *fn;
	void *data;
};

/* A lookup of a packet in the tables of its zones. */
struct nfzr_lookup {
	enum nfzr_track why;		/* NFZR_TRACK: the packet's connection was found */
	/* For each direction, the zone that was searched and how many other entries were met. */
	struct nfzr_tabled *zone[IP_CT_DIR_MAX];
	u32 met[IP_CT_DIR_MAX];
	struct nfzr_links *gone;	/* a matching entry of a dead connection, or NULL */
	/* The rest is valid only if the packet's connection was found. */
	u8 at;				/* the direction whose zone was searched last */
	struct nfzr_links *found;	/* with a reference to its ct for the caller */
	struct nfzr_tabled *found_in;	/* the zone in whose table it was found */
	u8 dir;				/* the direction in which the packet goes */
	struct nfzr_probe probe;
	struct nfzr_tcp_timeouts tcp;	/* for TCP only */
	struct nfzr_udp udp;		/* for UDP only */
	u32 len;			/* of the packet, at ingress: without padding */
	/* The rest is valid only if the connection was found, and passes were searched. */
	enum nfzr_stay stay;		/* NFZR_JUMP: the packet may jump */
	const struct nfzr_pass *pass;	/* of the direction, if the packet may jump */
	struct nfzr_exit exit;		/* if the packet may jump */
};

bool nfzr_helper_read_ct(const struct sk_buff *skb, struct nfzr_ct_ref *c);
bool nfzr_helper_count_ct(const struct sk_buff *skb, u64 first, u8 most, struct nfzr_ct_ref *c);
bool nfzr_helper_headers4(struct sk_buff *skb, const struct nf_hook_state *state,
			  const struct nfzr_ct_ref *c, struct nfzr_headers *h);
void nfzr_helper_route4(struct sk_buff *skb, struct nfzr_route *r);
enum nfzr_served nfzr_helper_serve4(struct sk_buff *skb, const struct nf_hook_state *state,
				    const struct nfzr_ct_ref *c, const struct nfzr_key *key,
				    const struct nfzr_cached *cached, atomic64_t *hits);
bool nfzr_helper_headers6(struct sk_buff *skb, const struct nf_hook_state *state,
			  const struct nfzr_ct_ref *c, struct nfzr_headers *h);
void nfzr_helper_route6(struct sk_buff *skb, struct nfzr_route *r);
enum nfzr_served nfzr_helper_serve6(struct sk_buff *skb, const struct nf_hook_state *state,
				    const struct nfzr_ct_ref *c, const struct nfzr_key *key,
				    const struct nfzr_cached *cached, atomic64_t *hits);
bool nfzr_helper_forwarded(struct sk_buff *skb, const struct nf_hook_state *state,
			   struct nfzr_forwarded *f);

void nfzr_helper_ruleset_record(const struct net *net, u8 pf,
				struct nfzr_observer __percpu *observer, struct nfzr_ruleset *r);
bool nfzr_helper_ruleset_is(const struct net *net, struct nfzr_ruleset *r);

enum nfzr_stay nfzr_helper_observe(struct nfzr_observer __percpu *observer,
				   const struct sk_buff *skb, const struct nf_hook_state *state,
				   const struct nf_conn *ct, u8 dir, u32 epoch, u64 stamp);
void nfzr_helper_observe_not(struct nfzr_observer __percpu *observer, const struct sk_buff *skb);
void nfzr_helper_goes_on(struct nfzr_observer __percpu *observer, const struct sk_buff *skb,
			 bool is_served, u32 mark, u32 mask);
bool nfzr_helper_leaves(struct nfzr_observer __percpu *observer, const struct sk_buff *skb,
			const struct nf_hook_state *state);
void nfzr_helper_predict(struct nfzr_observer __percpu *observer, const struct sk_buff *skb,
			 const struct nfzr_lookup *l);
bool nfzr_helper_entered(struct nfzr_observer __percpu *observer, struct sk_buff *skb,
			 const struct nf_hook_state *state, struct nfzr_observed *o,
			 struct nfzr_pass *p);
void nfzr_helper_observe_route(struct nfzr_observer __percpu *observer, const struct sk_buff *skb);
enum nfzr_seen nfzr_helper_observed(struct nfzr_observer __percpu *observer,
				    const struct sk_buff *skb, const struct nf_hook_state *state,
				    struct nfzr_observed *o, struct nfzr_pass *p);

bool nfzr_helper_dst_hold(struct dst_entry *dst);
bool nfzr_helper_dst_valid(const struct nfzr_cached *cached);
bool nfzr_helper_may_transform(const struct net *net);
bool nfzr_helper_same_way(const struct dst_entry *a, const struct dst_entry *b);
bool nfzr_helper_goes_by(struct sk_buff *skb, const struct dst_entry *dst, bool *known);
void nfzr_helper_dst_put(struct dst_entry *dst);
u16 nfzr_helper_dst_gateway(const struct dst_entry *dst, u8 gw[16]);

bool nfzr_helper_is_tracking_verified(void);
struct ip_ct_tcp *nfzr_helper_tcp_lock(struct nf_conn *ct);
void nfzr_helper_tcp_unlock(struct nf_conn *ct);
void nfzr_helper_attach(struct sk_buff *skb, struct nf_conn *ct, u8 dir, u32 timeout,
			u64 __percpu *in_zone, u64 __percpu *in_net);
void nfzr_helper_tcp_copy(struct nf_conn *ct, struct ip_ct_tcp *to);
bool nfzr_helper_ct_expiry(const struct nf_conn *ct, u32 *expiry);

int nfzr_helper_seats_init(struct nfzr_seats *s, struct net *net);
void nfzr_helper_seats_destroy(struct nfzr_seats *s);
void nfzr_helper_limit_init(struct nfzr_limit *l, struct nfzr_seats *all);
void nfzr_helper_limit_end(struct nfzr_limit *l);
u32 nfzr_helper_limit_count(const struct nfzr_limit *l);
bool nfzr_helper_limit_has_seat(const struct nfzr_limit *l, const struct nf_conn *ct);
int nfzr_helper_limit_take(struct nfzr_limit *l, const struct nf_conn *ct, u32 max);
int nfzr_helper_limit_admit(struct nfzr_limit *l, const struct nf_conn *ct, u32 max);
u32 nfzr_helper_limit_collect(struct nfzr_limit *l, u32 most);
void nfzr_helper_conn_walk(struct net *net, void (*visit)(void *context, struct nf_conn *ct),
			   void *context);
bool nfzr_helper_in_vrf_postrouting(const struct nf_hook_state *state);

void nfzr_helper_ct_get(struct nf_conn *ct);
void nfzr_helper_ct_put(struct nf_conn *ct);
bool nfzr_helper_ct_gone(const struct nf_conn *ct);
bool nfzr_helper_ct_assured(const struct nf_conn *ct);
bool nfzr_helper_ct_nearly_full(const struct net *net);
bool nfzr_helper_ct_is_on(const struct net *net, u8 pf);
bool nfzr_helper_forwards_tracked(struct net *net);
bool nfzr_helper_ct_delete(struct nf_conn *ct);
bool nfzr_helper_ct_is_ipv6(const struct nf_conn *ct);
void nfzr_helper_ct_ends(const struct nf_conn *ct, u8 dir, struct nfzr_ends *e);
bool nfzr_helper_ct_is_tcp(const struct nf_conn *ct);
u32 nfzr_helper_ct_mark(const struct nf_conn *ct);
u16 nfzr_helper_ct_own_zone(const struct nf_conn *ct);
u16 nfzr_helper_ct_zone(const struct nf_conn *ct, u8 dir);
void nfzr_helper_ct_tuple(const struct nf_conn *ct, u8 dir, struct nfzr_tuple *t);
bool nfzr_helper_ct_ext_add(struct nf_conn *ct, u64 handle);
bool nfzr_helper_ct_ext_replace(struct nf_conn *ct, u64 *old, u64 new);

void nfzr_helper_table_draw_secret(void);
int nfzr_helper_table_init(struct rhashtable *ht);
struct rhash_head *nfzr_helper_table_insert(struct rhashtable *ht, struct rhash_head *link);
bool nfzr_helper_table_remove(struct rhashtable *ht, struct rhash_head *link);
struct rhash_head *nfzr_helper_table_find(struct rhashtable *ht, const struct nf_conn *ct, u8 dir);
bool nfzr_helper_lookup4(struct sk_buff *skb, const struct nf_hook_state *state,
			 struct __genradix *zones, struct __genradix *passes,
			 struct nfzr_ruleset *r, struct nfzr_lookup *l);
bool nfzr_helper_lookup6(struct sk_buff *skb, const struct nf_hook_state *state,
			 struct __genradix *zones, struct __genradix *passes,
			 struct nfzr_ruleset *r, struct nfzr_lookup *l);
enum nfzr_ingress nfzr_helper_ingress(struct sk_buff *skb, const struct nf_hook_state *state,
				      struct __genradix *zones, struct __genradix *passes,
				      struct nfzr_ruleset *const r[2], struct nfzr_lookup *l);
void nfzr_helper_ingress_leave(struct sk_buff *skb, const struct nf_hook_state *state,
			       const struct nfzr_lookup *l, u32 timeout, u64 __percpu *in_zone,
			       u64 __percpu *in_net);
void nfzr_helper_ingress_stays(struct nfzr_observer __percpu *o, const struct sk_buff *skb,
			       const struct nf_hook_state *state);
int nfzr_helper_device_hooks_init(struct nfzr_device_hooks *d, struct net *net, nf_hookfn *fn,
				  void *data);
void nfzr_helper_device_hooks_end(struct nfzr_device_hooks *d);
int nfzr_helper_device_hook(struct nfzr_device_hooks *d, u32 ifindex);
void nfzr_helper_device_hooks_arm(struct nfzr_device_hooks *d);
void nfzr_helper_leave4(struct sk_buff *skb, const struct nf_hook_state *state,
			const struct nfzr_lookup *l, u32 timeout, u64 __percpu *in_zone,
			u64 __percpu *in_net);
void nfzr_helper_leave6(struct sk_buff *skb, const struct nf_hook_state *state,
			const struct nfzr_lookup *l, u32 timeout, u64 __percpu *in_zone,
			u64 __percpu *in_net);
bool nfzr_helper_find_entry(const struct sk_buff *skb, u64 first, u8 most, u64 zero,
			    struct __genradix *entries, struct nfzr_ct_ref *c);
bool nfzr_helper_links_get_ct(const struct nfzr_links *links);
int nfzr_helper_table_walk(struct rhashtable *ht,
			   void (*visit)(void *context, struct rhash_head *link), void *context);
u32 nfzr_helper_table_buckets(struct rhashtable *ht);
void nfzr_helper_table_destroy(struct rhashtable *ht);

void nfzr_helper_pending_note(struct nfzr_pending __percpu *pending, const struct sk_buff *skb);
void nfzr_helper_pending_forget(struct nfzr_pending __percpu *pending, const struct sk_buff *skb);
bool nfzr_helper_is_noted(const struct nfzr_pending __percpu *pending, const struct sk_buff *skb);
bool nfzr_helper_is_pending(const struct nfzr_pending __percpu *pending, const struct sk_buff *skb);

void *nfzr_helper_array_load(struct __genradix *array, u32 index);
int nfzr_helper_array_insert(struct __genradix *array, u32 index, void *entry);
void *nfzr_helper_array_replace(struct __genradix *array, u32 index, void *entry);
bool nfzr_helper_array_clear(struct __genradix *array, u32 index, void *entry);
void *nfzr_helper_array_next(struct __genradix *array, u32 *index, u32 places);
void nfzr_helper_array_free(struct __genradix *array);
int nfzr_helper_ida_alloc(struct ida *ida, u32 min, u32 max);
void nfzr_helper_ida_init(struct ida *ida);

void __percpu *nfzr_helper_percpu_alloc(size_t size);
void nfzr_helper_percpu_add(u64 __percpu *base, size_t index, u64 events);
void nfzr_helper_percpu_exchange(void __percpu *base, void *value, size_t size);
u64 nfzr_helper_percpu_sum(const u64 __percpu *base, size_t index);

void nfzr_helper_spin_lock_bh(spinlock_t *lock);
void nfzr_helper_spin_unlock_bh(spinlock_t *lock);
bool nfzr_helper_spin_trylock_bh(spinlock_t *lock);

void nfzr_helper_call_rcu_hurry(struct rcu_head *head, rcu_callback_t func);

void *nfzr_helper_net_generic(const struct net *net, unsigned int id);
struct net *nfzr_helper_dev_net(const struct net_device *dev);
int nfzr_helper_dev_ifindex(const struct net_device *dev);
bool nfzr_helper_ifname(struct net *net, u32 ifindex, char name[IFNAMSIZ]);

struct net_device *nfzr_helper_notifier_dev(void *info);
struct net *nfzr_helper_ifa4_net(void *info);
struct net *nfzr_helper_ifa6_net(void *info);
u32 nfzr_helper_fib_family(void *info);
bool nfzr_helper_fib_prefix(void *info, struct nfzr_prefix *prefix);
bool nfzr_helper_fib_has_dscp(unsigned long event, void *info);
bool nfzr_helper_rules_have_dscp(const struct net *net, u32 family);
struct socket *nfzr_helper_hear_routes(struct net *net, struct nfzr_route_ear *ear);
u32 nfzr_helper_genid4(struct net *net);
struct net *nfzr_helper_netevent_net(unsigned long event, void *info);
struct net *nfzr_helper_netfilter_socket_net(unsigned long event, void *info);
enum nfzr_neigh_effect nfzr_helper_neigh_effect(void *info, u32 *bit);
void nfzr_helper_group_gateways(const struct net *net, u64 set[NFZR_GATEWAY_WORDS]);
void nfzr_helper_wait_for_buckets(struct net *net);

struct proc_dir_entry *nfzr_helper_proc_mkdir(struct net *net, const char *name);
bool nfzr_helper_may_admin(struct file *file, const struct net *net);
void *nfzr_helper_seq_data(const struct seq_file *seq);

u32 nfzr_helper_jiffies_to_ms(u32 j);
void nfzr_helper_cond_resched(void);

struct workqueue_struct *nfzr_helper_queue_alloc(const char *name, int max);

#ifdef NFZR_KUNIT
void nfzr_kunit_bh_disable(void);
void nfzr_kunit_bh_enable(void);
struct net *nfzr_kunit_net(void);
void nfzr_kunit_nft(u32 base_seq, u8 gencursor);
struct nf_conn *nfzr_kunit_ct(u32 number, u16 zone, u8 zone_dirs, bool ext);
struct nf_conn *nfzr_kunit_tcp(u16 port);
void nfzr_kunit_tcp_set(struct nf_conn *ct, const struct ip_ct_tcp *to);
void nfzr_kunit_ct_status(struct nf_conn *ct, unsigned long set, unsigned long clear);
struct sk_buff *nfzr_kunit_segment(const struct nf_conn *ct, bool reply,
				   const struct nfzr_probe *p, u8 options);
const struct nf_hook_state *nfzr_kunit_state(void);
void nfzr_kunit_conntrack(struct sk_buff *skb);
void nfzr_kunit_skb_free(struct sk_buff *skb);
int nfzr_kunit_ct_refs(const struct nf_conn *ct);
void nfzr_kunit_ct_expire(struct nf_conn *ct);
u64 nfzr_kunit_ct_handle(const struct nf_conn *ct);
void nfzr_kunit_ct_scribble(struct nf_conn *ct, u64 handle);
struct dst_entry *nfzr_kunit_dst(__be32 gw);
void nfzr_kunit_dst_hold(struct dst_entry *dst);
u32 nfzr_kunit_dst_refs(struct dst_entry *dst);
void nfzr_kunit_routes_changed(void);
void nfzr_kunit_hash_policy_changes(void);
struct net_device *nfzr_kunit_dev(void);
void nfzr_kunit_dev_up_and_down(struct net_device *dev);
void nfzr_kunit_dev_event(struct net_device *dev, unsigned int event);
void nfzr_kunit_dev_free(struct net_device *dev);
struct file *nfzr_kunit_open(const char *path);
ssize_t nfzr_kunit_read(struct file *file, void *buf, size_t size);
void nfzr_kunit_close(struct file *file);
#endif

#endif
