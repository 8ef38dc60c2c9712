/* SPDX-License-Identifier: GPL-2.0 */
/*
 * bindgen input: the C headers whose types and functions rust/bindings offers to rust/kapi.
 */
#include <linux/delay.h>
#include <linux/generic-radix-tree.h>
#include <linux/idr.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netlink.h>
#include <linux/notifier.h>
#include <linux/proc_fs.h>
#include <linux/rhashtable.h>
#include <linux/rtnetlink.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/sysctl.h>
#include <linux/workqueue.h>
#include <net/addrconf.h>
#include <net/fib_notifier.h>
#include <net/net_namespace.h>
#include <net/netevent.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/nexthop.h>

#include "nf_zoneroute_helpers.h"
