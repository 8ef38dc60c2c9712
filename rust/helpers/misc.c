// SPDX-License-Identifier: GPL-2.0
/*
 * Small wrappers of inlines and macros: per-CPU counters, locks, RCU, network
 * devices and namespaces, /proc, time.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/seq_file_net.h>
#include <linux/spinlock.h>
#include <net/netns/generic.h>

void __percpu *nfzr_helper_percpu_alloc(size_t size)
{
	return __alloc_percpu_gfp(size, sizeof(u64), GFP_KERNEL_ACCOUNT);
}

void nfzr_helper_percpu_add(u64 __percpu *base, size_t index, u64 events)
{
	this_cpu_add(base[index], events);
}

/* Exchanges what value points to with what this CPU has. */
void nfzr_helper_percpu_exchange(void __percpu *base, void *value, size_t size)
{
	u8 *here, *there = value;
	size_t i;

	local_bh_disable();
	here = this_cpu_ptr(base);
	for (i = 0; i < size; i++)
		swap(here[i], there[i]);
	local_bh_enable();
}

/* Zeroes what all CPUs have. */
void nfzr_helper_percpu_clear(void __percpu *base, size_t size)
{
	int cpu;

	for_each_possible_cpu(cpu)
		memset(per_cpu_ptr(base, cpu), 0, size);
}

u64 nfzr_helper_percpu_sum(const u64 __percpu *base, size_t index)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(&base[index], cpu));
	return sum;
}

void nfzr_helper_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void nfzr_helper_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

bool nfzr_helper_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}

/* An inline function where the kernel has no lazy callbacks. */
void nfzr_helper_call_rcu_hurry(struct rcu_head *head, rcu_callback_t func)
{
	call_rcu_hurry(head, func);
}

void *nfzr_helper_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}

struct net *nfzr_helper_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

int nfzr_helper_dev_ifindex(const struct net_device *dev)
{
	return dev->ifindex;
}

/* Under rcu_read_lock(). False: no such device in the netns. */
bool nfzr_helper_ifname(struct net *net, u32 ifindex, char name[IFNAMSIZ])
{
	const struct net_device *dev = dev_get_by_index_rcu(net, ifindex);

	if (!dev)
		return false;
	strscpy(name, dev->name, IFNAMSIZ);
	return true;
}

struct proc_dir_entry *nfzr_helper_proc_mkdir(struct net *net, const char *name)
{
	return proc_net_mkdir(net, name, net->proc_net);
}

void *nfzr_helper_seq_data(const struct seq_file *seq)
{
	return pde_data(file_inode(seq->file));
}

/*
 * Whether who writes to an open file of a netns' seq_file, and who opened it, may administer the
 * netns: as for netlink, a file handed to somebody else gives him nothing.
 */
bool nfzr_helper_seq_may_admin(struct file *file)
{
	struct user_namespace *ns = seq_file_net(file->private_data)->user_ns;

	return ns_capable(ns, CAP_NET_ADMIN) && file_ns_capable(file, ns, CAP_NET_ADMIN);
}

u32 nfzr_helper_jiffies32(void)
{
	return (u32)jiffies;
}

u32 nfzr_helper_jiffies_to_ms(u32 j)
{
	return jiffies_to_msecs(j);
}

void nfzr_helper_cond_resched(void)
{
	cond_resched();
}
