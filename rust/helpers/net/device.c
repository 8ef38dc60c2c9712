// SPDX-License-Identifier: GPL-2.0
/*
 * Network devices.
 */
#include <linux/netdevice.h>

struct net *nfzr_helper_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

int nfzr_helper_dev_ifindex(const struct net_device *dev)
{
	return dev->ifindex;
}

/* Returns false if the netns has no such device. Under rcu_read_lock(). */
bool nfzr_helper_ifname(struct net *net, u32 ifindex, char name[IFNAMSIZ])
{
	const struct net_device *dev = dev_get_by_index_rcu(net, ifindex);

	if (!dev)
		return false;
	strscpy(name, dev->name, IFNAMSIZ);
	return true;
}
