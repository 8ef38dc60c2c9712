// SPDX-License-Identifier: GPL-2.0
/*
 * The messages of rtnetlink about IPv4 routes. The kernel sends those about new and replaced routes
 * under RTNL, in process context.
 */
#include <linux/net.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ip_fib.h>
#include <net/netlink.h>
#include <net/sock.h>

/*
 * Returns whether a change of an IPv4 route of a type only matters to packets from or to its prefix.
 * A local route may change how all sources are checked, as may routes with realms:
 * fib_validate_source().
 */
static bool nfzr_is_limited_route(struct net *net, u8 type)
{
	switch (type) {
	case RTN_UNICAST:
	case RTN_BLACKHOLE:
	case RTN_UNREACHABLE:
	case RTN_PROHIBIT:
	case RTN_THROW:
		return !fib_num_tclassid_users(net);
	default:
		return false;
	}
}

/*
 * Tells the listener of a message: rtmsg_fib(). Messages of a privileged process, which may send to
 * the group, too, and of drivers about the offload of a route, which come without RTNL, are ignored.
 */
static void nfzr_hear_route(const struct sock *sk, const struct sk_buff *skb)
{
	const struct nfzr_route_ear *ear = sk->sk_user_data;
	const struct nlmsghdr *nlh = nlmsg_hdr(skb);
	struct nfzr_prefix prefix = {};
	const struct rtmsg *rtm;
	const struct nlattr *to;

	if (NETLINK_CB(skb).portid || !nlmsg_ok(nlh, skb->len) || nlh->nlmsg_type != RTM_NEWROUTE ||
	    !(nlh->nlmsg_flags & (NLM_F_CREATE | NLM_F_REPLACE)) || nlmsg_len(nlh) < sizeof(*rtm))
		return;
	rtm = nlmsg_data(nlh);
	if (rtm->rtm_family != AF_INET)
		return;
	to = nlmsg_find_attr(nlh, sizeof(*rtm), RTA_DST);
	if (to)
		prefix.addr = ntohl(nla_get_be32(to));
	prefix.len = rtm->rtm_dst_len;
	ear->set(ear->data, nfzr_is_limited_route(sock_net(sk), rtm->rtm_type) ? &prefix : NULL,
		 nlh->nlmsg_flags & NLM_F_CREATE);
}

/*
 * Handles what was received. Under a lock, because another sender may run this at the same time, and
 * a message must be handled before its own sender lets go of RTNL.
 */
static void nfzr_routes_ready(struct sock *sk)
{
	struct nfzr_route_ear *ear = sk->sk_user_data;
	struct sk_buff *skb;

	spin_lock_bh(&ear->lock);
	while ((skb = skb_dequeue(&sk->sk_receive_queue))) {
		nfzr_hear_route(sk, skb);
		consume_skb(skb);
	}
	spin_unlock_bh(&ear->lock);
}

/* Joins the group, with a port that no process chooses: netlink_autobind() takes these if need be. */
static int nfzr_join_group(struct socket *sock)
{
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
		.nl_groups = BIT(RTNLGRP_IPV4_ROUTE - 1),
	};
	int tries, err = -EADDRINUSE;

	for (tries = 0; tries < 16 && err == -EADDRINUSE; tries++) {
		addr.nl_pid = S32_MIN + get_random_u32_below(-4096 - S32_MIN);
		err = kernel_bind(sock, (struct sockaddr_unsized *)&addr, sizeof(addr));
	}
	return err;
}

static int nfzr_start_hearing(struct socket *sock, struct nfzr_route_ear *ear)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int err, on = 1;

	/* A message that cannot be delivered does not matter: its bump stays unexplained. */
	err = sock->ops->setsockopt(sock, SOL_NETLINK, NETLINK_NO_ENOBUFS, KERNEL_SOCKPTR(&on),
				    sizeof(on));
	if (err)
		return err;
	spin_lock_init(&ear->lock);
	sock->sk->sk_user_data = ear;
	sock->sk->sk_data_ready = nfzr_routes_ready;
	err = nfzr_join_group(sock);
	/*
	 * From here on, only the kernel can send to this socket itself. Releasing the socket waits for
	 * senders to the group only.
	 */
	return err ?: kernel_connect(sock, (struct sockaddr_unsized *)&kernel, sizeof(kernel), 0);
}

/*
 * Makes a socket that passes each new or replaced IPv4 route of a netns to a listener. It does not
 * keep the netns. Releasing it waits until the listener is not called any more. Returns an ERR_PTR on
 * error. Process context, but not in a call of netlink's notifier chain; sleeps.
 */
struct socket *nfzr_helper_hear_routes(struct net *net, struct nfzr_route_ear *ear)
{
	struct socket *sock;
	int err;

	err = sock_create_kern(net, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, &sock);
	if (err)
		return ERR_PTR(err);
	err = nfzr_start_hearing(sock, ear);
	if (err) {
		sock_release(sock);
		return ERR_PTR(err);
	}
	return sock;
}
