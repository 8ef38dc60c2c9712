// SPDX-License-Identifier: GPL-2.0
/*
 * What the KUnit suites need while no traffic is there to make it: connections, routes, a device,
 * and a reader of files. Process context.
 */
#include <linux/etherdevice.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/rtnetlink.h>
#include <linux/uio.h>

struct net *nfzr_kunit_net(void)
{
	return &init_net;
}

/*
 * An unconfirmed UDP connection of the first netns, unlike any with another number, with the
 * caller's reference. zone counts in the directions whose bits are in zone_dirs. NULL: no memory.
 */
struct nf_conn *nfzr_kunit_ct(u32 number, u16 zone, u8 zone_dirs, bool ext)
{
	struct nf_conntrack_tuple orig = {
		.src.l3num = NFPROTO_IPV4,
		.src.u3.ip = htonl(0xc6120000 | number >> 16),	/* 198.18.0.0/15 */
		.src.u.udp.port = htons((u16)number),
		.dst.u3.ip = htonl(0xcb007101),			/* 203.0.113.1 */
		.dst.u.udp.port = htons(7),
		.dst.protonum = IPPROTO_UDP,
	};
	struct nf_conntrack_tuple reply = {
		.src.l3num = NFPROTO_IPV4,
		.src.u3 = orig.dst.u3,
		.src.u.udp.port = orig.dst.u.udp.port,
		.dst.u3 = orig.src.u3,
		.dst.u.udp.port = orig.src.u.udp.port,
		.dst.protonum = IPPROTO_UDP,
		.dst.dir = IP_CT_DIR_REPLY,
	};
	struct nf_conntrack_zone z;
	struct nf_conn *ct;

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
	return ct;
}

int nfzr_kunit_ct_refs(const struct nf_conn *ct)
{
	return refcount_read(&ct->ct_general.use);
}

void nfzr_kunit_ct_expire(struct nf_conn *ct)
{
	WRITE_ONCE(ct->timeout, nfct_time_stamp);
}

/* What the extension holds; 0 without one. */
u64 nfzr_kunit_ct_handle(const struct nf_conn *ct)
{
	bool has_ext;
	u64 handle;

	nfzr_read_ext(ct, &handle, &has_ext);
	return handle;
}

/* Writes what somebody else might into the extension. */
void nfzr_kunit_ct_scribble(struct nf_conn *ct, u64 handle)
{
	nfzr_helper_ct_ext_set(ct, handle);
}

/* A route over the loopback device, with the caller's reference; gw 0: on link. NULL: no memory. */
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

/* As after any change of the first netns' IPv4 routes. */
void nfzr_kunit_routes_changed(void)
{
	rt_genid_bump_ipv4(&init_net);
}

static netdev_tx_t nfzr_kunit_xmit(struct sk_buff *skb, struct net_device *dev)
{
	kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops nfzr_kunit_ops = {
	.ndo_start_xmit = nfzr_kunit_xmit,
};

/* A device of the first netns that swallows what it is to send. NULL: it could not be made. */
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

/* As the first process sees it: a kernel thread has a root of its own. NULL: no such file. */
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

/* Reads on in a file of seq_file's. */
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

/* At once: a kernel thread would otherwise leave it to a work item. */
void nfzr_kunit_close(struct file *file)
{
	__fput_sync(file);
}
