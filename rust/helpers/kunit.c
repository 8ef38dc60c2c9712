// SPDX-License-Identifier: GPL-2.0
/*
 * Fixtures of the KUnit suites, which run without traffic: connections, packets, routes, a device,
 * and functions to read files. Process context.
 */
#include <linux/etherdevice.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/rtnetlink.h>
#include <linux/uio.h>

void nfzr_kunit_bh_disable(void)
{
	local_bh_disable();
}

void nfzr_kunit_bh_enable(void)
{
	local_bh_enable();
}

struct net *nfzr_kunit_net(void)
{
	return &init_net;
}

/* Adds to base_seq, and flips gencursor: what a transaction of nf_tables does with both. */
void nfzr_kunit_nft(u32 base_seq, u8 gencursor)
{
	WRITE_ONCE(init_net.nft.base_seq, init_net.nft.base_seq + base_seq);
	WRITE_ONCE(init_net.nft.gencursor, init_net.nft.gencursor ^ gencursor);
}

/*
 * Makes a tuple from the given address (host order) and port to 203.0.113.1. The tuple is zeroed as
 * a whole, because tuples are compared including bytes that no member fills, and an initialiser may
 * leave the rest of a union as it was.
 */
static void nfzr_kunit_tuple(struct nf_conntrack_tuple *t, u8 protonum, u32 saddr, u16 sport,
			     u16 dport)
{
	memset(t, 0, sizeof(*t));
	t->src.l3num = NFPROTO_IPV4;
	t->src.u3.ip = htonl(saddr);
	t->src.u.all = htons(sport);
	t->dst.u3.ip = htonl(0xcb007101);
	t->dst.u.all = htons(dport);
	t->dst.protonum = protonum;
}

/*
 * Returns a UDP connection of init_net that is marked as confirmed, but is in no table, with a
 * reference for the caller, or NULL if there is no memory. Each number gives another tuple. zone applies to the directions whose bits
 * are set in zone_dirs.
 */
struct nf_conn *nfzr_kunit_ct(u32 number, u16 zone, u8 zone_dirs, bool ext)
{
	struct nf_conntrack_tuple orig, reply;
	struct nf_conntrack_zone z;
	struct nf_conn *ct;

	/* 198.18.0.0/15 */
	nfzr_kunit_tuple(&orig, IPPROTO_UDP, 0xc6120000 | number >> 16, (u16)number, 7);
	if (!nf_ct_invert_tuple(&reply, &orig))
		return NULL;
	nf_ct_zone_init(&z, zone, zone_dirs, 0);
	ct = nf_conntrack_alloc(&init_net, &z, &orig, &reply, GFP_KERNEL);
	if (IS_ERR(ct))
		return NULL;
	refcount_set(&ct->ct_general.use, 1);
	WRITE_ONCE(ct->timeout, nfct_time_stamp + 3600 * HZ);
	if (ext && !nf_ct_ext_add(ct, NF_CT_EXT_ACT_CT, GFP_KERNEL)) {
		nf_ct_put(ct);
		return NULL;
	}
	ct->status |= IPS_CONFIRMED;
	return ct;
}

/*
 * Returns an established TCP connection of init_net that has seen replies and that conntrack finds,
 * with a reference for the caller. The caller ends it with nf_ct_delete(). Returns NULL if there is
 * no memory or the connection exists.
 */
struct nf_conn *nfzr_kunit_tcp(u16 port)
{
	struct nf_conntrack_tuple orig, reply;
	struct nf_conn *ct;

	nfzr_kunit_tuple(&orig, IPPROTO_TCP, 0xc6120001, port, 80);
	if (!nf_ct_invert_tuple(&reply, &orig))
		return NULL;
	ct = nf_conntrack_alloc(&init_net, &nf_ct_zone_dflt, &orig, &reply, GFP_KERNEL);
	if (IS_ERR(ct))
		return NULL;
	WRITE_ONCE(ct->timeout, nfct_time_stamp + 3600 * HZ);
	ct->status |= IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED;
	if (nf_conntrack_hash_check_insert(ct)) {
		ct->status &= ~IPS_CONFIRMED;
		nf_conntrack_free(ct);
		return NULL;
	}
	return ct;
}

void nfzr_kunit_tcp_set(struct nf_conn *ct, const struct ip_ct_tcp *to)
{
	spin_lock_bh(&ct->lock);
	ct->proto.tcp = *to;
	spin_unlock_bh(&ct->lock);
}

void nfzr_kunit_ct_status(struct nf_conn *ct, unsigned long set, unsigned long clear)
{
	ct->status = (ct->status | set) & ~clear;
}

/*
 * Returns a segment of the connection as PRE_ROUTING sees it, or NULL if there is no memory.
 * options: 0 none, 1 the timestamp only, 2 a selective acknowledgment, 3 another option, 4 another
 * option and then a selective acknowledgment.
 */
struct sk_buff *nfzr_kunit_segment(const struct nf_conn *ct, bool reply, const struct nfzr_probe *p,
				   u8 options)
{
	static const u8 timestamp[] = { TCPOPT_NOP, TCPOPT_NOP, TCPOPT_TIMESTAMP, TCPOLEN_TIMESTAMP };
	static const u8 sack[] = { TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK,
				   TCPOLEN_SACK_BASE + TCPOLEN_SACK_PERBLOCK };
	static const u8 other[] = { TCPOPT_MPTCP, 12 };
	static const u8 other_sack[] = { TCPOPT_MPTCP, 2, TCPOPT_SACK,
					 TCPOLEN_SACK_BASE + TCPOLEN_SACK_PERBLOCK };
	const struct nf_conntrack_tuple *t = nf_ct_tuple(ct, reply);
	u32 header = sizeof(struct tcphdr) + (options ? 12 : 0);
	u32 len = sizeof(struct iphdr) + header + (p->end - p->seq);
	struct sk_buff *skb = alloc_skb(len, GFP_KERNEL);
	struct tcphdr *th;
	struct iphdr *iph;

	if (!skb)
		return NULL;
	skb->protocol = htons(ETH_P_IP);
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	skb_reset_network_header(skb);
	iph = skb_put_zero(skb, len);
	iph->version = 4;
	iph->ihl = sizeof(*iph) / 4;
	iph->tot_len = htons(len);
	iph->ttl = 64;
	iph->protocol = IPPROTO_TCP;
	iph->saddr = t->src.u3.ip;
	iph->daddr = t->dst.u3.ip;
	th = (void *)(iph + 1);
	th->source = t->src.u.tcp.port;
	th->dest = t->dst.u.tcp.port;
	th->seq = htonl(p->seq);
	th->ack_seq = htonl(p->ack);
	th->doff = header / 4;
	th->window = htons(p->win);
	((u8 *)th)[13] = p->flags;
	if (options == 1)
		memcpy(th + 1, timestamp, sizeof(timestamp));
	if (options == 3)
		memcpy(th + 1, other, sizeof(other));
	if (options == 2 || options == 4) {
		memcpy(th + 1, options == 2 ? sack : other_sack, sizeof(sack));
		put_unaligned_be32(p->ack + 1, (u8 *)(th + 1) + 4);
		put_unaligned_be32(p->ack + 2, (u8 *)(th + 1) + 8);
	}
	return skb;
}

static const struct nf_hook_state nfzr_kunit_hook_state = {
	.hook = NF_INET_PRE_ROUTING,
	.pf = NFPROTO_IPV4,
	.net = &init_net,
};

const struct nf_hook_state *nfzr_kunit_state(void)
{
	return &nfzr_kunit_hook_state;
}

/* Passes the packet through conntrack as its own hook does. */
void nfzr_kunit_conntrack(struct sk_buff *skb)
{
	rcu_read_lock();
	nf_conntrack_in(skb, &nfzr_kunit_hook_state);
	rcu_read_unlock();
}

void nfzr_kunit_skb_free(struct sk_buff *skb)
{
	kfree_skb(skb);
}

int nfzr_kunit_ct_refs(const struct nf_conn *ct)
{
	return refcount_read(&ct->ct_general.use);
}

void nfzr_kunit_ct_expire(struct nf_conn *ct)
{
	WRITE_ONCE(ct->timeout, nfct_time_stamp);
}

/* Returns the handle in the extension, or 0 without an extension. */
u64 nfzr_kunit_ct_handle(const struct nf_conn *ct)
{
	const struct nf_conn_act_ct_ext *ext = nf_conn_act_ct_ext_find(ct);

	return ext ? READ_ONCE(*(const u64 *)ext) : 0;
}

/* Overwrites the extension as another user of it might. */
void nfzr_kunit_ct_scribble(struct nf_conn *ct, u64 handle)
{
	struct nf_conn_act_ct_ext *ext = nf_conn_act_ct_ext_find(ct);

	if (ext)
		WRITE_ONCE(*(u64 *)ext, handle);
}

/*
 * Returns a route over the loopback device with a reference for the caller, or NULL if there is no
 * memory. gw 0: on link.
 */
struct dst_entry *nfzr_kunit_dst(__be32 gw)
{
	struct rtable *rt = rt_dst_alloc(init_net.loopback_dev, 0, RTN_UNICAST, false);

	if (!rt)
		return NULL;
	if (gw) {
		rt->rt_uses_gateway = 1;
		rt->rt_gw_family = AF_INET;
		rt->rt_gw4 = gw;
	}
	return &rt->dst;
}

void nfzr_kunit_dst_hold(struct dst_entry *dst)
{
	dst_hold(dst);
}

u32 nfzr_kunit_dst_refs(struct dst_entry *dst)
{
	return rcuref_read(&dst->__rcuref);
}

/* Bumps the genid, as any change of init_net's IPv4 routes does. */
void nfzr_kunit_routes_changed(void)
{
	rt_genid_bump_ipv4(&init_net);
}

void nfzr_kunit_hash_policy_changes(void)
{
	call_netevent_notifiers(NETEVENT_IPV4_MPATH_HASH_UPDATE, &init_net);
}

static netdev_tx_t nfzr_kunit_xmit(struct sk_buff *skb, struct net_device *dev)
{
	kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops nfzr_kunit_ops = {
	.ndo_start_xmit = nfzr_kunit_xmit,
};

/* Returns a device of init_net that drops all packets sent by it, or NULL on failure. */
struct net_device *nfzr_kunit_dev(void)
{
	struct net_device *dev = alloc_netdev(0, "nfzr%d", NET_NAME_ENUM, ether_setup);

	if (!dev)
		return NULL;
	dev->netdev_ops = &nfzr_kunit_ops;
	eth_hw_addr_random(dev);
	if (register_netdev(dev)) {
		free_netdev(dev);
		return NULL;
	}
	return dev;
}

void nfzr_kunit_dev_up_and_down(struct net_device *dev)
{
	rtnl_lock();
	if (!dev_open(dev, NULL))
		dev_close(dev);
	rtnl_unlock();
}

void nfzr_kunit_dev_event(struct net_device *dev, unsigned int event)
{
	rtnl_lock();
	call_netdevice_notifiers(event, dev);
	rtnl_unlock();
}

void nfzr_kunit_dev_free(struct net_device *dev)
{
	unregister_netdev(dev);
	free_netdev(dev);
}

/*
 * Opens a file below the root of process 1, because a kernel thread has a root of its own. Returns
 * NULL if there is no such file.
 */
struct file *nfzr_kunit_open(const char *path)
{
	struct pid *pid = find_get_pid(1);
	struct task_struct *init = get_pid_task(pid, PIDTYPE_PID);
	struct file *file;
	struct path root;

	put_pid(pid);
	if (!init)
		return NULL;
	task_lock(init);
	get_fs_root(init->fs, &root);
	task_unlock(init);
	put_task_struct(init);
	file = file_open_root(&root, path, O_RDONLY, 0);
	path_put(&root);
	return IS_ERR(file) ? NULL : file;
}

/* Reads from the current position of a seq_file. */
ssize_t nfzr_kunit_read(struct file *file, void *buf, size_t size)
{
	struct kvec vec = { .iov_base = buf, .iov_len = size };
	struct iov_iter to;
	struct kiocb iocb;
	ssize_t len;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = file->f_pos;
	iov_iter_kvec(&to, ITER_DEST, &vec, 1, size);
	len = seq_read_iter(&iocb, &to);
	file->f_pos = iocb.ki_pos;
	return len;
}

/* Closes the file at once. In a kernel thread, fput() would leave that to a work item. */
void nfzr_kunit_close(struct file *file)
{
	__fput_sync(file);
}
