// SPDX-License-Identifier: GPL-2.0
/*
 * Sends the benchmark's packets: both ends of many connections through a router, in one process.
 *
 *   send PROTO FAMILY FLOWS PORTS SNAT CLIENT-NETNS CLIENT-DEV ROUTER-MAC SERVER-NETNS SERVER-DEV ROUTER-MAC
 *
 * PROTO: udp or tcp. FAMILY: 4 or 6. PORTS: the number of connections per client address. SNAT: 1
 * if the router translates client 10.1.x.y (fd00:1::y) to 10.2.x.y (fd00:2::y). CLIENT-DEV and
 * SERVER-DEV are the devices to send from, to the ROUTER-MAC that follows each.
 *
 * Then each line of standard input is a command, and is answered by a line:
 *
 *   open       opens the connections, with one packet in each direction
 *   run N      sends N packets on them, half from the clients and half from the server
 *   one N      the same, from the clients only
 *   slice N [FIRST]
 *              from now on sends only on N connections from FIRST (0) on
 *   cpu N      from now on runs on this CPU
 *   new N      N connections: opened, one request and its answer, closed
 *   forget ROUTER
 *              from now on `new' ends with the deletion of all connections in the netns ROUTER
 *   churn HZ ROUTER
 *              from now on adds or deletes HZ unrelated routes per second in the netns ROUTER while
 *              packets are sent
 *   quote HZ   from now on the client sends HZ ICMP errors per second while packets are sent. Each
 *              says that a packet which the router sent to some other host was too big
 *   yield      from now on lets other threads run after each batch, such as those that receive it
 *
 * Packets are sent in batches of up to 64: a batch from the clients, then one of the same size from
 * the server. The answer to `run', `one' and `new' has the number of packets (new: connections),
 * the time in ns (if the clock counts instructions: their number), and the number of routes changed
 * or errors sent meanwhile. TCP segments have timestamps, as those of Linux.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define PAYLOAD 64
#define SERVER_PORT 7
#define FIRST_PORT 1024
#define NSEC 1000000000ULL

enum { FIN = 1, SYN = 2, PSH = 8, ACK = 16 };
enum dir { CLIENT, SERVER };

struct end {
	int sock;
	uint8_t mac[6];		/* the end's own address */
	uint8_t router[6];
};

struct flow {
	uint32_t seq[2];	/* next sequence numbers of CLIENT and SERVER */
};

static bool tcp, six, snat;
static unsigned int flows, ports, slice, slice_first;
static struct end ends[2];
static struct flow *table;
static int churn_sock = -1;
static unsigned int churn_hz, quote_hz, churned;
static uint64_t churn_next;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC + t.tv_nsec;
}

/* Unrelated routes. */

static void churn(void)
{
	static unsigned int number;
	struct {
		struct nlmsghdr nlh;
		struct rtmsg rtm;
		struct rtattr dst_attr;
		uint8_t dst[16];
	} m;
	unsigned int size = six ? 16 : 4;

	if (!churn_hz)
		return;
	for (; now() >= churn_next; churn_next += NSEC / churn_hz, number++) {
		memset(&m, 0, sizeof(m));
		m.nlh.nlmsg_len = NLMSG_LENGTH(sizeof(m.rtm)) + RTA_LENGTH(size);
		m.nlh.nlmsg_type = number % 2 ? RTM_DELROUTE : RTM_NEWROUTE;
		m.nlh.nlmsg_flags = NLM_F_REQUEST | (number % 2 ? 0 : NLM_F_CREATE);
		m.rtm.rtm_family = six ? AF_INET6 : AF_INET;
		m.rtm.rtm_dst_len = six ? 128 : 32;
		m.rtm.rtm_table = RT_TABLE_MAIN;
		m.rtm.rtm_protocol = RTPROT_STATIC;
		m.rtm.rtm_scope = RT_SCOPE_UNIVERSE;
		m.rtm.rtm_type = RTN_BLACKHOLE;
		m.dst_attr.rta_type = RTA_DST;
		m.dst_attr.rta_len = RTA_LENGTH(size);
		if (six)
			memcpy(m.dst, "\xfd\x00\x00\x77", 4);
		else
			memcpy(m.dst, "\x0a\x4d\x00", 3);
		m.dst[size - 1] = number / 2;
		if (send(churn_sock, &m, m.nlh.nlmsg_len, 0) < 0)
			err(1, "route");
		/* The kernel answers only a request that it rejects. */
		if (recv(churn_sock, &m, sizeof(m), MSG_DONTWAIT) >= 0)
			errx(1, "a route was rejected");
		churned++;
	}
}

/* Frames. */

static uint32_t sum(const void *data, unsigned int size, uint32_t total)
{
	const uint8_t *bytes = data;
	unsigned int i;

	for (i = 0; i + 1 < size; i += 2)
		total += bytes[i] << 8 | bytes[i + 1];
	if (size & 1)
		total += bytes[size - 1] << 8;
	return total;
}

static uint16_t fold(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total;
}

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

/* Writes the address of a client: its own, or the one that the router translates it to. */
static void client_address(uint8_t *at, unsigned int client, bool translated)
{
	if (six) {
		memset(at, 0, 16);
		put32(at, translated ? 0xfd000002 : 0xfd000001);
		put32(at + 12, client + 16);
	} else {
		put32(at, (translated ? 0x0a020000 : 0x0a010000) + client + 16);
	}
}

static void server_address(uint8_t *at)
{
	if (six) {
		memset(at, 0, 16);
		put32(at, 0xfd000009);
		at[15] = 9;
	} else {
		put32(at, 0x0a090909);
	}
}

/* Builds the frame of a packet from one end. Returns its size. */
static unsigned int build(uint8_t *frame, enum dir from, unsigned int client, uint16_t port,
			  uint8_t flags, unsigned int payload, struct flow *f)
{
	unsigned int ip_size = six ? 40 : 20, addr = six ? 16 : 4;
	unsigned int header = !tcp ? 8 : flags & SYN ? 40 : 32;
	uint8_t *ip = frame + ETH_HLEN, *l4 = ip + ip_size;
	uint8_t *src = ip + (six ? 8 : 12), *dst = src + addr;
	uint32_t total;

	memcpy(frame, ends[from].router, 6);
	memcpy(frame + 6, ends[from].mac, 6);
	put16(frame + 12, six ? ETH_P_IPV6 : ETH_P_IP);
	if (six) {
		put32(ip, 6u << 28);
		put16(ip + 4, header + payload);
		ip[6] = tcp ? IPPROTO_TCP : IPPROTO_UDP;
		ip[7] = 64;
	} else {
		put16(ip, 0x4500);
		put16(ip + 2, ip_size + header + payload);
		put32(ip + 4, 0x4000);
		ip[8] = 64;
		ip[9] = tcp ? IPPROTO_TCP : IPPROTO_UDP;
		put16(ip + 10, 0);
	}
	if (from == CLIENT) {
		client_address(src, client, false);
		server_address(dst);
	} else {
		server_address(src);
		client_address(dst, client, snat);
	}
	if (!six)
		put16(ip + 10, fold(sum(ip, ip_size, 0)));
	put16(l4, from == CLIENT ? port : SERVER_PORT);
	put16(l4 + 2, from == CLIENT ? SERVER_PORT : port);
	if (tcp) {
		put32(l4 + 4, f->seq[from]);
		put32(l4 + 8, flags & ACK ? f->seq[!from] : 0);
		l4[12] = header / 4 << 4;
		l4[13] = flags;
		put16(l4 + 14, 64240);
		put32(l4 + 16, 0);
		if (flags & SYN) {
			/* MSS, SACK permitted, timestamps, no operation, window scale. */
			memcpy(l4 + 20, "\x02\x04\x05\xb4\x04\x02\x08\x0a", 8);
			put32(l4 + 28, 1);
			put32(l4 + 32, flags & ACK ? 1 : 0);
			memcpy(l4 + 36, "\x01\x03\x03\x07", 4);
		} else {
			memcpy(l4 + 20, "\x01\x01\x08\x0a", 4);
			put32(l4 + 24, 1);
			put32(l4 + 28, 1);
		}
		f->seq[from] += payload + !!(flags & (SYN | FIN));
	} else {
		put16(l4 + 4, header + payload);
		put16(l4 + 6, 0);
	}
	memset(l4 + header, 'x', payload);
	total = sum(src, 2 * addr, (tcp ? IPPROTO_TCP : IPPROTO_UDP) + header + payload);
	total = fold(sum(l4, header + payload, total));
	/* In UDP, 0 means no checksum. */
	put16(l4 + (tcp ? 16 : 6), total || tcp ? total : 0xffff);
	return ETH_HLEN + ip_size + header + payload;
}

/*
 * Builds an ICMP error that the client sends to the router: an echo reply of the router to host
 * `number' of 10.8.0.0/16 (fd00:8::/64) was too big. Returns its size.
 */
static unsigned int build_error(uint8_t *frame, uint16_t number)
{
	unsigned int ip_size = six ? 40 : 20, addr = six ? 16 : 4, size = 8 + ip_size + 8;
	uint8_t *ip = frame + ETH_HLEN, *icmp = ip + ip_size, *inner = icmp + 8;
	uint8_t *src = ip + (six ? 8 : 12), *inner_src = inner + (six ? 8 : 12);

	memset(frame, 0, ETH_HLEN + ip_size + size);
	memcpy(frame, ends[CLIENT].router, 6);
	memcpy(frame + 6, ends[CLIENT].mac, 6);
	put16(frame + 12, six ? ETH_P_IPV6 : ETH_P_IP);
	if (six) {
		put32(ip, 6u << 28);
		put16(ip + 4, size);
		ip[6] = IPPROTO_ICMPV6;
		ip[7] = 64;
		put32(src, 0xfd00000a);
		src[15] = 2;
		put32(src + addr, 0xfd00000a);
		src[addr + 15] = 1;
		icmp[0] = 2;	/* Packet Too Big */
		put16(icmp + 6, 1300);
		put32(inner, 6u << 28);
		put16(inner + 4, 8);
		inner[6] = IPPROTO_ICMPV6;
		inner[7] = 64;
		memcpy(inner_src, src + addr, addr);
		put32(inner_src + addr, 0xfd000008);
		put16(inner_src + addr + 14, number);
		inner[ip_size] = 129;	/* echo reply */
		put16(icmp + 2, fold(sum(icmp, size, sum(src, 2 * addr, IPPROTO_ICMPV6 + size))));
	} else {
		put16(ip, 0x4500);
		put16(ip + 2, ip_size + size);
		ip[8] = 64;
		ip[9] = IPPROTO_ICMP;
		put32(src, 0x0a000102);
		put32(src + addr, 0x0a000101);
		put16(ip + 10, fold(sum(ip, ip_size, 0)));
		icmp[0] = 3;	/* fragmentation needed */
		icmp[1] = 4;
		put16(icmp + 6, 1300);
		put16(inner, 0x4500);
		put16(inner + 2, ip_size + 8);
		put32(inner + 4, 0x4000);
		inner[8] = 64;
		inner[9] = IPPROTO_ICMP;
		put32(inner_src, 0x0a000101);
		put32(inner_src + addr, 0x0a080000 + number);
		put16(inner + 10, fold(sum(inner, ip_size, 0)));
		put16(icmp + 2, fold(sum(icmp, size, 0)));
	}
	return ETH_HLEN + ip_size + size;
}

static void quote(void)
{
	static uint16_t number;
	uint8_t frame[ETH_FRAME_LEN];

	if (!quote_hz)
		return;
	for (; now() >= churn_next; churn_next += NSEC / quote_hz, churned++)
		if (send(ends[CLIENT].sock, frame, build_error(frame, ++number), 0) < 0)
			err(1, "send");
}

static uint8_t frames[BATCH][ETH_FRAME_LEN];
static struct iovec iov[BATCH];
static struct mmsghdr batch[BATCH];

static bool yields;

static void flush(enum dir from, unsigned int count)
{
	unsigned int done = 0;
	int n;

	for (; done < count; done += n) {
		n = sendmmsg(ends[from].sock, batch + done, count - done, 0);
		if (n <= 0)
			err(1, "sendmmsg");
	}
	if (yields)
		sched_yield();
}

static void add(unsigned int slot, enum dir from, unsigned int client, uint16_t port, uint8_t flags,
		unsigned int payload, struct flow *f)
{
	iov[slot].iov_len = build(frames[slot], from, client, port, flags, payload, f);
}

/* Sends one packet on each of `count` connections. */
static void packets(enum dir from, unsigned int first, unsigned int count, uint8_t flags,
		    unsigned int payload)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		add(i, from, (first + i) / ports, FIRST_PORT + (first + i) % ports, flags, payload,
		    &table[first + i]);
	flush(from, count);
}

/* Waits until all packets were processed: ksoftirqd may still have some. */
static void settle(void)
{
	struct timespec t = { .tv_nsec = 1 };

	nanosleep(&t, NULL);
}

static unsigned int up_to(unsigned int most)
{
	return most < BATCH ? most : BATCH;
}

static void do_open(void)
{
	unsigned int first, count, i;

	for (first = 0; first < flows; first += count) {
		count = up_to(flows - first);
		for (i = first; i < first + count; i++)
			table[i] = (struct flow){ { 1000, 2000 } };
		if (tcp) {
			packets(CLIENT, first, count, SYN, 0);
			packets(SERVER, first, count, SYN | ACK, 0);
			packets(CLIENT, first, count, ACK, 0);
		}
		packets(CLIENT, first, count, PSH | ACK, PAYLOAD);
		packets(SERVER, first, count, PSH | ACK, PAYLOAD);
	}
	settle();
}

static void do_run(unsigned int total, bool one_way)
{
	unsigned int sent = 0, first = 0, count;
	uint64_t begun = now();

	churned = 0;
	if (churn_hz || quote_hz)
		churn_next = begun + NSEC / (churn_hz ?: quote_hz) / 2;
	while (sent < total) {
		count = up_to(slice - first);
		packets(CLIENT, slice_first + first, count, PSH | ACK, PAYLOAD);
		if (!one_way)
			packets(SERVER, slice_first + first, count, PSH | ACK, PAYLOAD);
		sent += one_way ? count : 2 * count;
		first = first + count < slice ? first + count : 0;
		churn();
		quote();
	}
	settle();
	printf("%u %llu %u\n", sent, (unsigned long long)(now() - begun), churned);
}

static int forget_sock = -1;

/* Deletes all connections of the router, and waits until they are. */
static void forget(void)
{
	struct {
		struct nlmsghdr nlh;
		struct nfgenmsg msg;
	} request = {
		.nlh = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
		},
	};
	char answer[256];

	if (send(forget_sock, &request, sizeof(request), 0) < 0 ||
	    recv(forget_sock, answer, sizeof(answer), 0) < 0)
		err(1, "ctnetlink");
}

static void do_new(unsigned int total)
{
	static const struct {
		enum dir from;
		uint8_t flags;
		unsigned int payload;
	} script[] = {
		{ CLIENT, SYN, 0 }, { SERVER, SYN | ACK, 0 }, { CLIENT, ACK, 0 },
		{ CLIENT, PSH | ACK, PAYLOAD }, { SERVER, PSH | ACK, PAYLOAD }, { CLIENT, FIN | ACK, 0 },
		{ SERVER, FIN | ACK, 0 }, { CLIENT, ACK, 0 },
	};
	static unsigned int number;
	struct flow f[BATCH];
	unsigned int done, count, i, step;
	uint64_t begun = now();

	for (done = 0; done < total; done += count, number += count) {
		count = up_to(total - done);
		for (i = 0; i < count; i++)
			f[i] = (struct flow){ { 1000, 2000 } };
		for (step = 0; step < sizeof(script) / sizeof(*script); step++) {
			for (i = 0; i < count; i++)
				add(i, script[step].from, 20000 + (number + i) / 20000,
				    40000 + (number + i) % 20000, script[step].flags,
				    script[step].payload, &f[i]);
			flush(script[step].from, count);
		}
	}
	if (forget_sock >= 0)
		forget();
	settle();
	printf("%u %llu 0\n", total, (unsigned long long)(now() - begun));
}

static void enter(const char *netns)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "%s", netns);
	close(fd);
}

static void open_end(struct end *end, char **args)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	struct ifreq req = { };
	int one = 1;

	enter(args[0]);
	/* Protocol 0: the socket receives no packets. */
	end->sock = socket(AF_PACKET, SOCK_RAW, 0);
	strncpy(req.ifr_name, args[1], IFNAMSIZ - 1);
	if (end->sock < 0 || ioctl(end->sock, SIOCGIFHWADDR, &req))
		err(1, "%s", args[1]);
	memcpy(end->mac, req.ifr_hwaddr.sa_data, 6);
	to.sll_ifindex = if_nametoindex(args[1]);
	if (bind(end->sock, (struct sockaddr *)&to, sizeof(to)) ||
	    setsockopt(end->sock, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)))
		err(1, "%s", args[1]);
	if (sscanf(args[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &end->router[0], &end->router[1],
		   &end->router[2], &end->router[3], &end->router[4], &end->router[5]) != 6)
		errx(1, "%s is not a link-layer address", args[2]);
}

static void do_churn(unsigned int hz, const char *router)
{
	enter(router);
	if (churn_sock < 0)
		churn_sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	if (churn_sock < 0)
		err(1, "rtnetlink");
	churn_hz = hz;
	puts("churn");
}

static void do_forget(const char *router)
{
	enter(router);
	forget_sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	if (forget_sock < 0)
		err(1, "ctnetlink");
	puts("forget");
}

static void do_cpu(unsigned int number)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(number, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %u", number);
	puts("cpu");
}

int main(int argc, char **argv)
{
	char line[64], router[16];
	unsigned int i, n;

	if (argc != 12)
		errx(1, "see the comment at the top of send.c for the usage");
	tcp = !strcmp(argv[1], "tcp");
	six = !strcmp(argv[2], "6");
	flows = strtoul(argv[3], NULL, 10);
	slice = flows;
	ports = strtoul(argv[4], NULL, 10);
	snat = !strcmp(argv[5], "1");
	table = calloc(flows, sizeof(*table));
	if (!flows || !ports || !table)
		errx(1, "no connections");
	open_end(&ends[CLIENT], argv + 6);
	open_end(&ends[SERVER], argv + 9);
	for (i = 0; i < BATCH; i++) {
		iov[i].iov_base = frames[i];
		batch[i].msg_hdr.msg_iov = &iov[i];
		batch[i].msg_hdr.msg_iovlen = 1;
	}
	prctl(PR_SET_TIMERSLACK, 1);
	setlinebuf(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "open\n")) {
			do_open();
			puts("open");
		} else if (!strcmp(line, "yield\n")) {
			yields = true;
			puts("yield");
		} else if (sscanf(line, "run %u", &n) == 1) {
			do_run(n, false);
		} else if (sscanf(line, "one %u", &n) == 1) {
			do_run(n, true);
		} else if (sscanf(line, "slice %u %u", &n, &i) == 2) {
			slice_first = i < flows ? i : 0;
			slice = n < flows - slice_first ? n : flows - slice_first;
			puts("slice");
		} else if (sscanf(line, "slice %u", &n) == 1) {
			slice_first = 0;
			slice = n < flows ? n : flows;
			puts("slice");
		} else if (sscanf(line, "cpu %u", &n) == 1) {
			do_cpu(n);
		} else if (sscanf(line, "new %u", &n) == 1) {
			do_new(n);
		} else if (sscanf(line, "forget %15s", router) == 1) {
			do_forget(router);
		} else if (sscanf(line, "churn %u %15s", &n, router) == 2) {
			do_churn(n, router);
		} else if (sscanf(line, "quote %u", &quote_hz) == 1) {
			puts("quote");
		} else {
			errx(1, "unknown command: %s", line);
		}
	}
	return 0;
}
