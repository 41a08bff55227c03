// SPDX-License-Identifier: GPL-2.0
/*
 * Usage: scale SOCKETS NAMESPACES SHORT [COMMAND [ARGUMENT...]]
 *
 * Open so many UDP sockets, in so many network namespaces, of which so many are short
 * of space at once; print how long it takes from a further one's crossing until its
 * alert is traced, and until it is received, and how long one "ss -uanm"; and run
 * COMMAND meanwhile. khealthd is on and has a quiet_ms that is longer than all of this
 * takes; its alerts are traced, by the monotonic clock.
 */
#include "bench.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define TRACE	"/sys/kernel/tracing/trace"
#define PORTS	30000	/* an address; below those that connect() takes */
#define ROUNDS	15

static struct listener listener;
static const atomic_uint unused;
static unsigned int opened;

/* Return a socket with an address of its own. */
static int open_bound(struct sockaddr_in *addr)
{
	unsigned int n = opened++;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	*addr = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 * (1 + n / PORTS)),
		.sin_port = htons(1024 + n % PORTS),
	};
	check(fd >= 0 && !bind(fd, (struct sockaddr *)addr, sizeof(*addr)), "bind");
	return fd;
}

/* It takes some packets, and then no more. */
static void open_short(int tx)
{
	struct sockaddr_in addr;
	struct pair pair = { .tx = tx, .rx = open_bound(&addr) };
	int size = 1;

	check(!setsockopt(pair.rx, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), "SO_RCVBUF");
	while (!level_of(&pair).drops)
		check(sendto(tx, "", 1, 0, (struct sockaddr *)&addr, sizeof(addr)) == 1,
		      "sendto");
}

static void prepare(unsigned int sockets, unsigned int namespaces, unsigned int is_short)
{
	const struct rlimit files = { 1 << 20, 1 << 20 };
	int home = open("/proc/self/ns/net", O_RDONLY), tx;
	struct sockaddr_in addr;
	unsigned int i;

	check(!setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
	for (i = 1; i < namespaces; i++) {
		new_namespace();
		open_bound(&addr);
	}
	check(!setns(home, CLONE_NEWNET), "setns");
	tx = socket(AF_INET, SOCK_DGRAM, 0);
	for (i = 0; i < is_short; i++)
		open_short(tx);
	while (opened < sockets)
		open_bound(&addr);
}

static int compare(const void *a, const void *b)
{
	const long long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* When the alert was traced, in ns. The trace is emptied. */
static long long last_traced(const char *key)
{
	FILE *file = fopen(TRACE, "r");
	long long when = 0;
	char line[1024], *at;
	double seconds;

	check(file, TRACE);
	while (fgets(line, sizeof(line), file)) {
		at = strstr(line, ": khealthd_alert: ");
		if (!at || !strstr(at, key))
			continue;
		while (at > line && at[-1] != ' ')
			at--;
		seconds = strtod(at, NULL);
		when = seconds * NSEC_PER_SEC;
	}
	fclose(file);
	close(open(TRACE, O_WRONLY | O_TRUNC));
	return when;
}

struct took {
	long long traced, received;
};

/* From a new socket's crossing to its alert. */
static struct took to_alert(void)
{
	struct took took = { 0 };
	struct pair pair = open_pair();
	unsigned int before, used, i;
	struct level level;
	char name[40], key[40];
	long long begin;

	send_bytes(&pair, 512);
	used = level_of(&pair).used;
	do {
		send_bytes(&pair, 512);
		level = level_of(&pair);
		level.used += used;
	} while (!is_below(level, 12));
	sleep_until(now() + 20 * NSEC_PER_MSEC);
	before = listener.count;
	begin = now();
	send_bytes(&pair, 512);
	sleep_until(begin + NSEC_PER_SEC);
	snprintf(name, sizeof(name), "sock_cookie=%llu ", pair.cookie);
	snprintf(key, sizeof(key), " key=%llu ", pair.cookie);
	close(pair.rx);
	close(pair.tx);
	for (i = before; i < listener.count && !took.received; i++)
		if (strstr(listener.alerts[i].text, name))
			took.received = listener.alerts[i].when - begin;
	took.traced = last_traced(key) - begin;
	errno = ENOMSG;
	check(took.traced > 0 && took.received, name);
	return took;
}

/* The middle one, and from which to which. */
static void print_times(const char *what, long long *times)
{
	qsort(times, ROUNDS, sizeof(*times), compare);
	printf("%s: %lld ns, %lld to %lld\n", what, times[ROUNDS / 2], times[0],
	       times[ROUNDS - 1]);
}

static void run(char **argv)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execvp(argv[0], argv);
		_exit(127);
	}
	check(waitpid(pid, &status, 0) == pid && !status, argv[0]);
}

/* Of a CPU: the guest's files come from the host, and that takes any time. */
static long long children_took(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NSEC_PER_SEC +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static long long ss_takes(void)
{
	long long before = children_took();

	check(!system("exec ss -uanm >/dev/null"), "ss");
	return children_took() - before;
}

int main(int argc, char **argv)
{
	long long traced[ROUNDS], received[ROUNDS];
	struct took took;
	unsigned int i;

	if (argc < 4) {
		fprintf(stderr, "Usage: scale SOCKETS NAMESPACES SHORT [COMMAND...]\n");
		return 2;
	}
	prepare(atoi(argv[1]), atoi(argv[2]), atoi(argv[3]));
	start_listener(&listener, 4096, &unused);
	sleep_until(now() + 2 * NSEC_PER_SEC);
	for (i = 0; i < ROUNDS; i++) {
		took = to_alert();
		traced[i] = took.traced;
		received[i] = took.received;
	}
	printf("scale sockets=%u namespaces=%s short=%s\n", opened, argv[2], argv[3]);
	print_times("traced", traced);
	print_times("received", received);
	ss_takes();	/* its file is in memory then */
	printf("ss: %lld ns\n", ss_takes());
	fflush(stdout);
	if (argc > 4)
		run(argv + 4);
	return 0;
}
