// SPDX-License-Identifier: GPL-2.0
/*
 * A test module. It is notified of changes of routes, rules and nexthop objects after nf_zoneroute,
 * and delays the kernel before it makes them. Meanwhile, other CPUs do lookups while a change is
 * announced but not yet made.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <net/fib_notifier.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/nexthop.h>

static unsigned int delay_ms;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "Delay of each change, in ms");

static unsigned int held_up;
module_param(held_up, uint, 0444);
MODULE_PARM_DESC(held_up, "Number of delayed changes");

static unsigned int held_up_after;
module_param(held_up_after, uint, 0444);
MODULE_PARM_DESC(held_up_after, "Number of buckets delayed again after the whole chain was called");

static unsigned int nfzr_delay_id;

struct nfzr_delay {
	struct notifier_block fib;
	struct notifier_block nexthop;
};

static int nfzr_delay_event(struct notifier_block *nb, unsigned long event, void *info)
{
	unsigned int ms = READ_ONCE(delay_ms);

	if (ms) {
		mdelay(ms);
		WRITE_ONCE(held_up, held_up + 1);
	}
	return NOTIFY_DONE;
}

static int nfzr_delay_nexthop_event(struct notifier_block *nb, unsigned long event, void *info)
{
	unsigned int ms = READ_ONCE(delay_ms);

	if (ms) {
		msleep(ms);
		WRITE_ONCE(held_up, held_up + 1);
	}
	return NOTIFY_DONE;
}

static int __net_init nfzr_delay_init(struct net *net)
{
	struct nfzr_delay *d = net_generic(net, nfzr_delay_id);
	int err;

	/* The lowest priority: called after all other notifiers. */
	d->fib = (struct notifier_block){ .notifier_call = nfzr_delay_event, .priority = INT_MIN };
	d->nexthop = d->fib;
	d->nexthop.notifier_call = nfzr_delay_nexthop_event;
	err = register_fib_notifier(net, &d->fib, NULL, NULL);
	if (err)
		return err;
	err = register_nexthop_notifier(net, &d->nexthop, NULL);
	if (err)
		unregister_fib_notifier(net, &d->fib);
	return err;
}

static void __net_exit nfzr_delay_pre_exit(struct net *net)
{
	struct nfzr_delay *d = net_generic(net, nfzr_delay_id);

	unregister_nexthop_notifier(net, &d->nexthop);
	unregister_fib_notifier(net, &d->fib);
}

static struct pernet_operations nfzr_delay_ops = {
	.init = nfzr_delay_init,
	.pre_exit = nfzr_delay_pre_exit,
	.id = &nfzr_delay_id,
	.size = sizeof(struct nfzr_delay),
};

/* Returns 0, so that the return is probed, if the call announces a bucket. */
static int nfzr_delay_called(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	const void *chain = (void *)regs_get_kernel_argument(regs, 0);
	const struct net *net;
	int other = 1;

	if (regs_get_kernel_argument(regs, 1) != NEXTHOP_EVENT_BUCKET_REPLACE)
		return 1;
	rcu_read_lock();
	for_each_net_rcu(net)
		if (chain == &net->nexthop.notifier_chain)
			other = 0;
	rcu_read_unlock();
	return other;
}

static int nfzr_delay_told(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	unsigned int ms = READ_ONCE(delay_ms);

	if (ms) {
		mdelay(ms);
		WRITE_ONCE(held_up_after, held_up_after + 1);
	}
	return 0;
}

/*
 * When the handler runs, the task that announces a bucket has released the chain's semaphore, but
 * has not moved the bucket yet. The task is delayed there without being preempted, because a
 * probe's handler is not preempted.
 */
static struct kretprobe nfzr_delay_probe = {
	.kp.symbol_name = "blocking_notifier_call_chain",
	.entry_handler = nfzr_delay_called,
	.handler = nfzr_delay_told,
};

static int __init nfzr_delay_module_init(void)
{
	int err = register_kretprobe(&nfzr_delay_probe);

	if (err)
		return err;
	err = register_pernet_subsys(&nfzr_delay_ops);
	if (err)
		unregister_kretprobe(&nfzr_delay_probe);
	return err;
}
module_init(nfzr_delay_module_init);

static void __exit nfzr_delay_module_exit(void)
{
	unregister_pernet_subsys(&nfzr_delay_ops);
	unregister_kretprobe(&nfzr_delay_probe);
}
module_exit(nfzr_delay_module_exit);

MODULE_DESCRIPTION("Delays changes of routes for the tests of nf_zoneroute");
MODULE_LICENSE("GPL");
