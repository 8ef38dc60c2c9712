// SPDX-License-Identifier: GPL-2.0
/*
 * Hooks at the ingress of a netns' devices. RTNL protects the list. A device loses its hook in the event
 * that announces its end or its move to another netns. Unregistering the notifier replays that event for
 * all devices, so there is no hook without a notifier.
 *
 * Process context; all functions but nfzr_device_unhook() take RTNL.
 */
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_netdev.h>
#include <linux/rtnetlink.h>

/* Unregisters the hook of a device, if it has one. Under RTNL. */
static void nfzr_device_unhook(struct nfzr_device_hooks *d, const struct net_device *dev)
{
	struct nfzr_device_hook *h, *next;

	ASSERT_RTNL();
	list_for_each_entry_safe(h, next, &d->hooks, list) {
		if (h->ops.dev != dev)
			continue;
		nf_unregister_net_hook(dev_net(dev), &h->ops);
		list_del(&h->list);
		kfree_rcu(h, rcu);
	}
}

static int nfzr_device_hooks_event(struct notifier_block *nb, unsigned long event, void *info)
{
	struct nfzr_device_hooks *d = container_of(nb, struct nfzr_device_hooks, nb);

	if (event == NETDEV_UNREGISTER)
		nfzr_device_unhook(d, netdev_notifier_info_to_dev(info));
	return NOTIFY_DONE;
}

/* fn is called with the hook. Its data must stay valid until a grace period after the end. */
int nfzr_helper_device_hooks_init(struct nfzr_device_hooks *d, struct net *net, nf_hookfn *fn,
				  void *data)
{
	INIT_LIST_HEAD(&d->hooks);
	d->net = net;
	d->fn = fn;
	d->data = data;
	d->nb.notifier_call = nfzr_device_hooks_event;
	return register_netdevice_notifier_net(net, &d->nb);
}

/* Unregisters all hooks. Packets may still be in them. */
void nfzr_helper_device_hooks_end(struct nfzr_device_hooks *d)
{
	unregister_netdevice_notifier_net(d->net, &d->nb);
}

static bool nfzr_is_hooked(const struct nfzr_device_hooks *d, u32 ifindex)
{
	const struct nfzr_device_hook *h;

	list_for_each_entry(h, &d->hooks, list)
		if (h->ops.dev->ifindex == ifindex)
			return true;
	return false;
}

/* Returns whether no other hook comes after ours at the ingress of a device. */
static bool nfzr_is_last_ingress(const struct net_device *dev, const struct nfzr_device_hook *h)
{
	const struct nf_hook_entries *set;
	bool is_last = false;
	unsigned int i;

	rcu_read_lock();
	set = rcu_dereference(dev->nf_hooks_ingress);
	for (i = set ? set->num_hook_entries : 0; i-- && !is_last;) {
		is_last = READ_ONCE(set->hooks[i].priv) == h;
		/* A hook that ended has the first priority, and does nothing. */
		if (!is_last && READ_ONCE(nf_hook_entries_get_hook_ops(set)[i])->priority != INT_MIN)
			break;
	}
	rcu_read_unlock();
	return is_last;
}

static int nfzr_device_hook(struct nfzr_device_hooks *d, u32 ifindex)
{
	struct net_device *dev = __dev_get_by_index(d->net, ifindex);
	struct nfzr_device_hook *h;
	int err;

	if (!dev)
		return -ENODEV;
	if (nfzr_is_hooked(d, ifindex))
		return 0;
	h = kzalloc(sizeof(*h), GFP_KERNEL);
	if (!h)
		return -ENOMEM;
	h->data = d->data;
	h->ops = (struct nf_hook_ops) {
		.hook = d->fn,
		.priv = h,
		.dev = dev,
		.pf = NFPROTO_NETDEV,
		.hooknum = NF_NETDEV_INGRESS,
		.priority = INT_MAX,
	};
	err = nf_register_net_hook(d->net, &h->ops);
	if (err)
		goto err_free;
	/* Hooks that are registered later come before ours. */
	if (!nfzr_is_last_ingress(dev, h)) {
		err = -EBUSY;
		goto err_unregister;
	}
	list_add(&h->list, &d->hooks);
	return 1;

err_unregister:
	nf_unregister_net_hook(d->net, &h->ops);
err_free:
	kfree_rcu(h, rcu);
	return err;
}

/*
 * Registers the hook of a device, not armed, unless it has it. It comes after all others that the device
 * has; later ones come before it. Returns 1 if it was registered now, 0 if it was before, -ENODEV if
 * there is no such device, -EBUSY if another hook would come after it, -ENOMEM.
 */
int nfzr_helper_device_hook(struct nfzr_device_hooks *d, u32 ifindex)
{
	int err;

	rtnl_lock();
	err = nfzr_device_hook(d, ifindex);
	rtnl_unlock();
	return err;
}

/* Arms all hooks. The caller has waited for a grace period since they were registered. */
void nfzr_helper_device_hooks_arm(struct nfzr_device_hooks *d)
{
	struct nfzr_device_hook *h;

	rtnl_lock();
	list_for_each_entry(h, &d->hooks, list)
		WRITE_ONCE(h->is_armed, true);
	rtnl_unlock();
}
