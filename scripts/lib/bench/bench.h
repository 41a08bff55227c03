/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs of scripts/bench share: the clock, UDP sockets, how full these
 * are, and khealthd's alerts, each with the time at which it was received.
 */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "khealthd_genl.h"

#define NSEC_PER_MSEC	1000000LL
#define NSEC_PER_SEC	1000000000LL

static inline void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what,
		strerror(errno));
	exit(1);
}

static inline long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static inline void sleep_until(long long when)
{
	struct timespec ts = { when / NSEC_PER_SEC, when % NSEC_PER_SEC };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static inline pthread_t start_thread(void *(*main)(void *), void *argument)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, main, argument);
	check(!errno, "pthread_create");
	return thread;
}

/* === Sockets ============================================================= */

/* What is sent to tx is received by rx. */
struct pair {
	int tx, rx;
	unsigned int port;
	unsigned long long cookie;
};

static inline struct pair open_pair(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	struct pair pair;

	pair.rx = socket(AF_INET, SOCK_DGRAM, 0);
	check(!bind(pair.rx, (struct sockaddr *)&addr, len), "bind");
	check(!getsockname(pair.rx, (struct sockaddr *)&addr, &len), "getsockname");
	pair.port = ntohs(addr.sin_port);
	pair.tx = socket(AF_INET, SOCK_DGRAM, 0);
	check(!connect(pair.tx, (struct sockaddr *)&addr, len), "connect");
	len = sizeof(pair.cookie);
	check(!getsockopt(pair.rx, SOL_SOCKET, SO_COOKIE, &pair.cookie, &len),
	      "SO_COOKIE");
	return pair;
}

struct level {
	unsigned int used, capacity, drops;
};

static inline struct level level_of(const struct pair *pair)
{
	unsigned int mem[SK_MEMINFO_VARS];
	socklen_t len = sizeof(mem);

	check(!getsockopt(pair->rx, SOL_SOCKET, SO_MEMINFO, mem, &len), "SO_MEMINFO");
	return (struct level){ mem[SK_MEMINFO_RMEM_ALLOC], mem[SK_MEMINFO_RCVBUF],
			       mem[SK_MEMINFO_DROPS] };
}

static inline bool is_below(struct level level, unsigned int percent)
{
	unsigned int free = level.used < level.capacity ? level.capacity - level.used : 0;

	return free * 100ULL < level.capacity * (unsigned long long)percent;
}

static inline void send_bytes(const struct pair *pair, unsigned int size)
{
	static const char data[2048];

	check(send(pair->tx, data, size, 0) == size, "send");
}

/* Return how many packets there were. */
static inline unsigned int receive_all(const struct pair *pair)
{
	char data[2048];
	unsigned int n;

	for (n = 0; recv(pair->rx, data, sizeof(data), MSG_DONTWAIT) >= 0; n++)
		;
	return n;
}

/* The next sockets are opened in a network namespace of their own. */
static inline void new_namespace(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	check(!unshare(CLONE_NEWNET), "unshare");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	check(!ioctl(fd, SIOCSIFFLAGS, &lo), "lo up");
	close(fd);
}

/* === Alerts ============================================================== */

struct alert {
	long long when;
	unsigned int sent;	/* packets, as the generator counted */
	char text[480];
};

/* A thread that keeps the alerts of all namespaces. */
struct listener {
	int fd;
	struct khealthd_family family;
	const atomic_uint *sent;
	struct alert *alerts;
	unsigned int max;
	atomic_uint count;
	unsigned int lost;	/* messages that had no room */
};

static inline void *listen_main(void *argument)
{
	struct listener *listener = argument;
	struct alert *alert;
	struct genl_msg msg;
	long long when;
	int len;

	while (listener->count < listener->max) {
		len = genl_recv(listener->fd, &msg);
		when = now();
		if (len < 0) {
			listener->lost++;
			continue;
		}
		alert = &listener->alerts[listener->count];
		alert->when = when;
		alert->sent = *listener->sent;
		describe(msg.attrs, len - NLMSG_LENGTH(GENL_HDRLEN), alert_descs,
			 alert->text, sizeof(alert->text));
		listener->count++;
	}
	return NULL;
}

static inline void start_listener(struct listener *listener, unsigned int max,
				  const atomic_uint *sent)
{
	listener->sent = sent;
	listener->max = max;
	listener->alerts = calloc(max, sizeof(*listener->alerts));
	listener->fd = genl_open();
	check(listener->alerts && listener->fd >= 0 &&
	      !find_family(listener->fd, &listener->family) &&
	      !join_group(listener->fd, listener->family.all_alerts), "khealthd's family");
	start_thread(listen_main, listener);
}

static inline void print_alerts(const struct listener *listener)
{
	const struct alert *alert;
	unsigned int i;

	for (i = 0; i < listener->count; i++) {
		alert = &listener->alerts[i];
		printf("alert time=%lld sent=%u %s\n", alert->when, alert->sent, alert->text);
	}
	printf("listener lost=%u\n", listener->lost);
}

#endif /* BENCH_H */
