// SPDX-License-Identifier: GPL-2.0
/*
 * khealthd_latency: how long from a crossing until a listener has the message, and
 * until the helper is in main(); compared with how long an eventfd takes to wake
 * another process up, and posix_spawn() to start the same program.
 *
 * Not a test: there is no number that would be wrong. Run as root on a machine
 * that has nothing else to do. Prints medians and what 99 of 100 are not above, in
 * nanoseconds, and ratios to the floors.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/un.h>
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

struct result {
	long long median, p99;
};

static struct result result_of(long long *samples)
{
	qsort(samples, ROUNDS, sizeof(*samples), compare);
	return (struct result){ samples[ROUNDS / 2], samples[(ROUNDS * 99 + 99) / 100 - 1] };
}

/* === eventfd ============================================================== */

static struct result measure_eventfd(void)
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
	return result_of(samples);
}

/* === khealthd ============================================================= */

static void listen_for_low(void)
{
	struct khealthd_family family;
	char text[1024];
	long long end;
	int fd;

	fd = genl_open();
	if (fd < 0 || find_family(fd, &family) || join_group(fd, family.all_alerts))
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

/* @took_until is called after each crossing, and says how long something took. */
static void measure_crossings(long long *samples, long long (*took_until)(void))
{
	char data[100] = { 0 };
	int i, fd = open_udp();

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
		samples[i] = took_until();
		while (recv(fd, data, sizeof(data), MSG_DONTWAIT) >= 0)
			;
	}
	close(fd);
}

static struct result measure_netlink(void)
{
	static long long samples[ROUNDS];
	pid_t pid = fork();

	if (!pid)
		listen_for_low();
	while (!shared->ready)
		usleep(1000);
	measure_crossings(samples, took);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return result_of(samples);
}

/* === The helper =========================================================== */

/* This program, as a helper: it says to a socket of ours when it was in main(). */
static char program[64];
static int reports;

static struct sockaddr_un report_address(const char *self)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.socket", self);
	return addr;
}

static int report(const char *self, long long when)
{
	struct sockaddr_un addr = report_address(self);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	return sendto(fd, &when, sizeof(when), 0, (struct sockaddr *)&addr,
		      sizeof(addr)) < 0;
}

static long long took_to_main(void)
{
	long long when;

	if (recv(reports, &when, sizeof(when), 0) != sizeof(when))
		die("recv");
	return when - shared->begin;
}

static void install_program(void)
{
	struct sockaddr_un addr;
	struct stat st;
	int in, out;

	snprintf(program, sizeof(program), "%s/latency", getenv("KHEALTHD_DIR"));
	in = open("/proc/self/exe", O_RDONLY);
	out = open(program, O_WRONLY | O_CREAT | O_EXCL, 0700);
	if (in < 0 || out < 0 || fstat(in, &st) ||
	    sendfile(out, in, NULL, st.st_size) != st.st_size)
		die(program);
	close(in);
	close(out);
	addr = report_address(program);
	reports = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (bind(reports, (struct sockaddr *)&addr, sizeof(addr)))
		die(addr.sun_path);
}

static struct result measure_spawn(void)
{
	static long long samples[ROUNDS];
	char * const argv[] = { program, NULL };
	char * const envp[] = { "KHEALTHD_EVENT=low", NULL };
	pid_t pid;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		start_round();
		shared->begin = now();
		if (posix_spawn(&pid, program, NULL, NULL, argv, envp))
			die("posix_spawn");
		samples[i] = took_to_main();
		waitpid(pid, NULL, 0);
	}
	return result_of(samples);
}

static struct result measure_helper(void)
{
	static long long samples[ROUNDS];

	if (set_sysctl("helper", program))
		die(program);
	measure_crossings(samples, took_to_main);
	set_sysctl("helper", "\n");
	return result_of(samples);
}

/* === All of it ============================================================ */

static void print_result(const char *name, struct result result, struct result floor)
{
	printf("%-8s median %lld ns, p99 %lld ns, ratio %.2f\n", name, result.median,
	       result.p99, (double)result.median / floor.median);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *event = getenv("KHEALTHD_EVENT");
	struct result floor;
	long long start = now();

	if (event && argc == 1)
		return strcmp(event, "low") ? 0 : report(argv[0], start);
	need_guard(argv);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	install_program();
	if (set_sysctl("helper", "\n") || set_sysctl("holdoff_ms", "0") ||
	    set_sysctl("quiet_ms", "1") || set_sysctl("sock_rcvbuf", "12 25") ||
	    set_sysctl("enabled", "1")) {
		fprintf(stderr, "khealthd_latency: no khealthd, or not root\n");
		return 1;
	}
	floor = measure_eventfd();
	print_result("eventfd", floor, floor);
	print_result("netlink", measure_netlink(), floor);
	floor = measure_spawn();
	print_result("spawn", floor, floor);
	print_result("helper", measure_helper(), floor);
	return 0;
}
