// SPDX-License-Identifier: GPL-2.0
/*
 * Files in /proc/net.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/proc_fs.h>
#include <linux/seq_file_net.h>

struct proc_dir_entry *nfzr_helper_proc_mkdir(struct net *net, const char *name)
{
	return proc_net_mkdir(net, name, net->proc_net);
}

void *nfzr_helper_seq_data(const struct seq_file *seq)
{
	return pde_data(file_inode(seq->file));
}

/*
 * Returns whether both the writer and the opener of a file have CAP_NET_ADMIN in a netns. As with
 * netlink, a file descriptor passed to another process grants no privilege.
 */
bool nfzr_helper_may_admin(struct file *file, const struct net *net)
{
	struct user_namespace *ns = net->user_ns;

	return ns_capable(ns, CAP_NET_ADMIN) && file_ns_capable(file, ns, CAP_NET_ADMIN);
}
