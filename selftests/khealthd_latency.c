// SPDX-License-Identifier: GPL-2.0
/*
 * khealthd_latency: how long from a crossing until a listener has the message,
 * compared with how long an eventfd takes to wake another process up.
 *
 * Not a test: there is no number that would be wrong. Run as root on a machine
 * that has nothing else to do. Prints medians in nanoseconds and their ratio.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <linux/sock_diag.h>

#include "khealthd_genl.h"
#include "khealthd_util.h"

#define ROUNDS	201

/* What the two processes share. */
static struct shared {
	atomic_llong begin;	/* just before the event */
	atomic_llong end;		/* the other one has it; 0: not yet */
	atomic_int ready;
} *shared;

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static long long took(void)
{
	while (!shared->end)
		usleep(1000);
	return shared->end - shared->begin;
}

/* Let the other process go to sleep before it is to be woken. */
static void start_round(void)
{
	shared->end = 0;
	usleep(20000);
}

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

static long long median(long long *samples)
{
	qsort(samples, ROUNDS, sizeof(*samples), compare);
	return samples[ROUNDS / 2];
}

/* === eventfd ============================================================== */

static long long measure_eventfd(void)
{
	static long long samples[ROUNDS];
	unsigned long long one = 1;
	int fd = eventfd(0, 0), i;
	pid_t pid = fork();

	while (!pid) {
		if (read(fd, &one, sizeof(one)) != sizeof(one))
			_exit(1);
		shared->end = now();
	}
	for (i = 0; i < ROUNDS; i++) {
		start_round();
		shared->begin = now();
		if (write(fd, &one, sizeof(one)) != sizeof(one))
			die("write");
		samples[i] = took();
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return median(samples);
}

/* === khealthd ============================================================= */

static void listen_for_low(void)
{
	struct khealthd_family family;
	char text[1024];
	long long end;
	int fd;

	fd = genl_open();
	if (fd < 0 || find_family(fd, &family) || join_alerts(fd, &family))
		_exit(1);
	shared->ready = 1;
	for (;;) {
		struct genl_msg msg;
		int len = genl_recv(fd, &msg);

		end = now();
		if (len < 0)
			continue;
		text[0] = '\0';
		describe(msg.attrs, len - NLMSG_LENGTH(GENL_HDRLEN),
			 alert_descs, text, sizeof(text));
		if (strstr(text, "event=low"))
			shared->end = end;
	}
}

/* A socket that sends to itself. */
static int open_udp(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 65536;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) ||
	    connect(fd, (struct sockaddr *)&addr, len))
		die("socket");
	return fd;
}

/* Is the next packet the one that crosses 12 percent? */
static bool is_next(int fd)
{
	unsigned int mem[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(mem);
	static unsigned int packet;
	unsigned int used, capacity;

	getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len);
	used = mem[SK_MEMINFO_RMEM_ALLOC];
	capacity = mem[SK_MEMINFO_RCVBUF];
	if (used && !packet)
		packet = used;
	return packet && (capacity - used - packet) * 100ULL < capacity * 12ULL;
}

static long long measure_khealthd(void)
{
	static long long samples[ROUNDS];
	char data[100] = { 0 };
	int i, fd = open_udp();
	pid_t pid = fork();

	if (!pid)
		listen_for_low();
	while (!shared->ready)
		usleep(1000);
	for (i = 0; i < ROUNDS; i++) {
		if (!wait_until(state_is("sock_rcvbuf", "ok")))
			die("no recovery");
		while (!is_next(fd))
			if (send(fd, data, sizeof(data), 0) < 0)
				die("send");
		start_round();
		shared->begin = now();
		if (send(fd, data, sizeof(data), 0) < 0)
			die("send");
		samples[i] = took();
		while (recv(fd, data, sizeof(data), MSG_DONTWAIT) >= 0)
			;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return median(samples);
}

int main(void)
{
	long long event, alert;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	if (set_sysctl("helper", "\n") || set_sysctl("holdoff_ms", "0") ||
	    set_sysctl("quiet_ms", "1") || set_sysctl("sock_rcvbuf", "12 25") ||
	    set_sysctl("enabled", "1")) {
		fprintf(stderr, "khealthd_latency: no khealthd, or not root\n");
		return 1;
	}
	event = measure_eventfd();
	alert = measure_khealthd();
	printf("eventfd %lld ns, khealthd %lld ns, ratio %.2f\n", event, alert,
	       (double)alert / event);
	return 0;
}
