// SPDX-License-Identifier: GPL-2.0
/*
 * Network namespaces.
 */
#include <net/netns/generic.h>

void *nfzr_helper_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}
