// SPDX-License-Identifier: GPL-2.0
/*
 * Request-response pairs over TCP, one at a time: rr CLIENT-NETNS SERVER-NETNS ADDRESS COUNT
 *
 * Prints the average time of a pair in ns, including the work of both hosts and the router.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIZE 64

static int open_in(const char *netns)
{
	char path[64];
	int fd, one = 1;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "%s", netns);
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		err(1, "socket");
	return fd;
}

static void all(int fd, char *buf, ssize_t (*move)(int, char *, size_t))
{
	size_t done = 0;
	ssize_t n;

	for (; done < SIZE; done += n) {
		n = move(fd, buf + done, SIZE - done);
		if (n <= 0)
			exit(n < 0);
	}
}

static ssize_t put(int fd, char *buf, size_t size)
{
	return write(fd, buf, size);
}

static ssize_t get(int fd, char *buf, size_t size)
{
	return read(fd, buf, size);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(7000) };
	struct timespec begun, ended;
	char buf[SIZE] = "";
	int fd, conn, i, count;
	pid_t server;

	if (argc != 5 || inet_pton(AF_INET, argv[3], &to.sin_addr) != 1)
		errx(1, "usage: rr CLIENT-NETNS SERVER-NETNS ADDRESS COUNT");
	count = atoi(argv[4]);
	fd = open_in(argv[2]);
	if (bind(fd, (struct sockaddr *)&to, sizeof(to)) || listen(fd, 1))
		err(1, "%s", argv[3]);
	server = fork();
	if (!server) {
		conn = accept(fd, NULL, NULL);
		for (;;) {
			all(conn, buf, get);
			all(conn, buf, put);
		}
	}
	close(fd);
	fd = open_in(argv[1]);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		err(1, "connect");
	for (i = -100; i < count; i++) {
		if (i == 0)
			clock_gettime(CLOCK_MONOTONIC, &begun);
		all(fd, buf, put);
		all(fd, buf, get);
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	close(fd);
	waitpid(server, NULL, 0);
	printf("%lld\n", ((ended.tv_sec - begun.tv_sec) * 1000000000LL + ended.tv_nsec - begun.tv_nsec) / count);
	return 0;
}
