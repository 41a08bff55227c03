// SPDX-License-Identifier: GPL-2.0
/*
 * khealthd: overflow real sockets, and check what the helper was told.
 *
 * The helper is a shell script that the fixture writes; it leaves its whole
 * environment, byte by byte, in a file named after the alert's number. What the
 * helper says is compared with what the kernel says elsewhere: SO_MEMINFO,
 * SO_COOKIE, /proc/net/snmp.
 *
 * Nothing here depends on how long something takes: it is waited for, and only
 * if it never comes, the test fails after a long time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/sock_diag.h>

#include "../kselftest_harness.h"
#include "khealthd_util.h"

#define RCVBUF		65536

/* A storm's namespaces, the sockets in each, and its packets. */
#define STORM_NETNS	4
#define STORM_SOCKETS	8
#define STORM_BYTES	3000

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE	71
#endif

static const char * const settings[] = {
	"enabled", "helper", "helper_timeout_ms", "holdoff_ms",
	"holdoff_max_ms", "quiet_ms", "repeat_ms", "skb_alloc", "backlog",
	"proto_mem", "sock_rcvbuf", "tcp_rcvbuf", "packet_ring",
};

#define NR_SETTINGS	((int)ARRAY_SIZE(settings))

/* === Alerts =============================================================== */

/* What one run of the helper found: NAME=value strings, each ended by a NUL. */
struct alert {
	char env[4096];
	int len;
};

static const char *var(const struct alert *alert, const char *name)
{
	size_t len = strlen(name);
	const char *s;

	for (s = alert->env; s < alert->env + alert->len; s += strlen(s) + 1)
		if (!strncmp(s, name, len) && s[len] == '=')
			return s + len + 1;
	return NULL;
}

static long long num(const struct alert *alert, const char *name)
{
	const char *value = var(alert, name);

	return value ? atoll(value) : -1;
}

static int nr_vars(const struct alert *alert)
{
	const char *s;
	int n = 0;

	for (s = alert->env; s < alert->env + alert->len; s += strlen(s) + 1)
		n++;
	return n;
}

static bool load_alert(const char *dir, long long seq, struct alert *alert)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/alert.%lld", dir, seq);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	alert->len = read(fd, alert->env, sizeof(alert->env) - 1);
	close(fd);
	return alert->len > 0;
}

/* Return how many helpers left an alert; and in *last the highest number. */
static int count_alerts(const char *dir, long long *last)
{
	struct dirent *entry;
	DIR *d = opendir(dir);
	long long seq;
	int n = 0;

	if (last)
		*last = -1;
	while (d && (entry = readdir(d))) {
		if (sscanf(entry->d_name, "alert.%lld", &seq) != 1)
			continue;
		n++;
		if (last && seq > *last)
			*last = seq;
	}
	if (d)
		closedir(d);
	return n;
}

/* === The kernel's own counters ============================================ */

/* The value of @name in the lines of @path that begin with @prefix. */
static long long snmp(const char *path, const char *prefix, const char *name)
{
	char names[1024] = "", values[1024] = "", *n, *v, *sn, *sv;
	FILE *f = fopen(path, "r");
	long long result = -1;

	while (f && fgets(names, sizeof(names), f))
		if (!strncmp(names, prefix, strlen(prefix)) &&
		    fgets(values, sizeof(values), f))
			break;
	if (f)
		fclose(f);
	n = strtok_r(names, "\n ", &sn);
	v = strtok_r(values, "\n ", &sv);
	while (n && v) {
		if (!strcmp(n, name))
			result = atoll(v);
		n = strtok_r(NULL, "\n ", &sn);
		v = strtok_r(NULL, "\n ", &sv);
	}
	return result;
}

static long long snmp6(const char *path, const char *name)
{
	long long value, result = -1;
	FILE *f = fopen(path, "r");
	char word[64];

	while (f && fscanf(f, "%63s %lld", word, &value) == 2)
		if (!strcmp(word, name))
			result = value;
	if (f)
		fclose(f);
	return result;
}

/* Drops of all raw sockets: the last word of their lines. */
static long long raw_drops(void)
{
	FILE *f = fopen("/proc/net/raw", "r");
	char line[512], *word, *last, *save;
	long long sum = 0;

	while (f && fgets(line, sizeof(line), f)) {
		last = NULL;
		for (word = strtok_r(line, "\n ", &save); word;
		     word = strtok_r(NULL, "\n ", &save))
			last = word;
		sum += last ? atoll(last) : 0;
	}
	if (f)
		fclose(f);
	return sum;
}

/* === Sockets ============================================================== */

struct kind {
	const char *name;
	int family;
	int type;
	int protocol;
};

static const struct kind udp4 = { "udp4", AF_INET, SOCK_DGRAM, IPPROTO_UDP };
static const struct kind udp6 = { "udp6", AF_INET6, SOCK_DGRAM, IPPROTO_UDP };
static const struct kind raw4 = { "raw4", AF_INET, SOCK_RAW, 253 };

/* A receiver that does not read, and who sends to it. */
struct pair {
	const struct kind *kind;
	int rx;
	int tx;
	int port;
	struct sockaddr_storage to;
	socklen_t to_len;
};

static int open_pair(struct pair *p, const struct kind *kind, int rcvbuf)
{
	struct sockaddr_in6 *to6 = (void *)&p->to;
	struct sockaddr_in *to4 = (void *)&p->to;

	memset(p, 0, sizeof(*p));
	p->kind = kind;
	p->to.ss_family = kind->family;
	if (kind->family == AF_INET) {
		p->to_len = sizeof(*to4);
		to4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	} else {
		p->to_len = sizeof(*to6);
		to6->sin6_addr = in6addr_loopback;
	}
	p->rx = socket(kind->family, kind->type, kind->protocol);
	p->tx = socket(kind->family, kind->type, kind->protocol);
	if (p->rx < 0 || p->tx < 0 ||
	    setsockopt(p->rx, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf,
		       sizeof(rcvbuf)) ||
	    bind(p->rx, (struct sockaddr *)&p->to, p->to_len))
		return -errno;
	if (kind->type == SOCK_RAW) {
		/* It would get its own packets, too. */
		shutdown(p->tx, SHUT_RD);
		return 0;
	}
	if (getsockname(p->rx, (struct sockaddr *)&p->to, &p->to_len))
		return -errno;
	p->port = ntohs(to4->sin_port); /* at the same place in sockaddr_in6 */
	return 0;
}

static void close_pair(struct pair *p)
{
	close(p->rx);
	close(p->tx);
}

static void send_one(struct pair *p, size_t size)
{
	static char data[65000];

	if (sendto(p->tx, data, size, 0, (struct sockaddr *)&p->to,
		   p->to_len) < 0)
		perror("sendto");
}

static void drain(struct pair *p)
{
	char data[65536];

	while (recv(p->rx, data, sizeof(data), MSG_DONTWAIT) >= 0)
		;
}

static long long drops(struct pair *p)
{
	if (p->kind == &raw4)
		return raw_drops();
	if (p->kind == &udp6)
		return snmp6("/proc/net/snmp6", "Udp6RcvbufErrors");
	return snmp("/proc/net/snmp", "Udp:", "RcvbufErrors");
}

/* What the socket itself says: SK_MEMINFO_RMEM_ALLOC or _RCVBUF. */
static long long meminfo(struct pair *p, int which)
{
	unsigned int mem[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(mem);

	getsockopt(p->rx, SOL_SOCKET, SO_MEMINFO, mem, &len);
	return mem[which];
}

static unsigned long long sockopt64(int fd, int option)
{
	unsigned long long value = 0;
	socklen_t len = sizeof(value);

	getsockopt(fd, SOL_SOCKET, option, &value, &len);
	return value;
}

static unsigned long long netns_inode(void)
{
	struct stat st;

	return stat("/proc/self/ns/net", &st) ? 0 : st.st_ino;
}

/* Send packets one by one until @condition holds. */
#define send_until(pair, size, condition) ({				\
	int _n;								\
	bool _done = false;						\
									\
	for (_n = 0; !(_done = (condition)) && _n < 100000; _n++)	\
		send_one(pair, size);					\
	_done;								\
})

static bool loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	bool ok;

	ok = fd >= 0 && !ioctl(fd, SIOCGIFFLAGS, &ifr);
	ifr.ifr_flags |= IFF_UP;
	ok = ok && !ioctl(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
	return ok;
}

/* === Fixture ============================================================== */

FIXTURE(khealthd) {
	char dir[64];
	char helper[128];
	char saved[ARRAY_SIZE(settings)][256];
	long long crossings;	/* of sock_rcvbuf, when the test began */
	long long alerts;
};

/*
 * A test alert goes out in the same go as whatever else is to be told: once it
 * is out, nothing of an episode that is over will come any more.
 */
static bool all_told(const char *monitor)
{
	char name[64];
	long long n;

	snprintf(name, sizeof(name), "%s/alerts", monitor);
	n = get_count(name);
	return !send_test(monitor) && wait_until(get_count(name) > n);
}

static int count_event(const char *dir, const char *event)
{
	long long seq, last;
	struct alert alert;
	int n = 0;

	count_alerts(dir, &last);
	for (seq = last; seq >= 0 && seq > last - 1000; seq--)
		n += load_alert(dir, seq, &alert) &&
		     !strcmp(var(&alert, "KHEALTHD_EVENT") ?: "", event);
	return n;
}

/* Helpers run one after the other: once this one ran, none of before does. */
static bool helper_idle(const char *dir)
{
	char command[128];

	if (send_test("sock_rcvbuf") ||
	    !wait_until(count_event(dir, "test") == 1))
		return false;
	snprintf(command, sizeof(command), "rm -f %s/alert.*", dir);
	return !system(command);
}

FIXTURE_SETUP(khealthd)
{
	int i;

	snprintf(self->dir, sizeof(self->dir), "%s/XXXXXX", getenv("KHEALTHD_DIR"));
	ASSERT_NE(mkdtemp(self->dir), NULL);
	snprintf(self->helper, sizeof(self->helper), "%s/helper", self->dir);
	for (i = 0; i < NR_SETTINGS; i++)
		ASSERT_GE(get_sysctl(settings[i], self->saved[i],
				     sizeof(self->saved[i])), 0);

	/* No episode of somebody else's, and none left from the last test. */
	ASSERT_EQ(set_sysctl("enabled", "0"), 0);
	ASSERT_EQ(set_sysctl("helper", "\n"), 0);
	ASSERT_EQ(set_sysctl("holdoff_ms", "0"), 0);
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_EQ(set_sysctl("sock_rcvbuf", "12 25"), 0);
	ASSERT_EQ(set_sysctl("enabled", "1"), 0);
	ASSERT_TRUE(wait_until(state_is("sock_rcvbuf", "ok") &&
			       state_is("skb_alloc", "ok")));
	ASSERT_TRUE(all_told("sock_rcvbuf"));

	ASSERT_EQ(write_helper(self->dir, self->helper, ""), 0);
	ASSERT_EQ(set_sysctl("helper", self->helper), 0);
	ASSERT_TRUE(helper_idle(self->dir));
	/* An episode lasts until a test ends it, however slow the machine is. */
	ASSERT_EQ(set_sysctl("quiet_ms", "3600000"), 0);
	self->crossings = get_count("sock_rcvbuf/crossings");
	self->alerts = get_count("sock_rcvbuf/alerts");
}

FIXTURE_TEARDOWN(khealthd)
{
	char command[128];
	int i;

	/*
	 * Let an episode of the test's end, and nobody hear of it. A helper
	 * that still runs leaves no more files where there is no directory.
	 */
	set_sysctl("helper", "\n");
	set_sysctl("holdoff_ms", "0");
	set_sysctl("quiet_ms", "1");
	wait_until(state_is("sock_rcvbuf", "ok") ||
		   state_is("sock_rcvbuf", "off"));
	all_told("sock_rcvbuf");
	for (i = 0; i < NR_SETTINGS; i++)
		EXPECT_EQ(set_sysctl(settings[i], self->saved[i][0] ?
				     self->saved[i] : "\n"), 0);
	snprintf(command, sizeof(command), "rm -rf %s 2>/dev/null", self->dir);
	EXPECT_TRUE(wait_until(!system(command)));
	kill_users(self->dir);
}

/* The first alert with that event since the test began; waits for it. */
static bool find_event(const char *dir, const char *event, struct alert *alert)
{
	long long seq, last;

	count_alerts(dir, &last);
	for (seq = last; seq >= 0 && seq > last - 100; seq--)
		if (load_alert(dir, seq, alert) &&
		    !strcmp(var(alert, "KHEALTHD_EVENT") ?: "", event))
			return true;
	return false;
}

static long long sum_crossings(const char *dir)
{
	long long seq, last, sum = 0;
	struct alert alert;

	count_alerts(dir, &last);
	for (seq = last; seq >= 0 && seq > last - 1000; seq--)
		if (load_alert(dir, seq, &alert))
			sum += num(&alert, "KHEALTHD_CROSSINGS") +
			       num(&alert, "KHEALTHD_CROSSINGS_OTHERS");
	return sum;
}

/* The harness' own limit is shorter than our patience. */
#define KHEALTHD_TEST(name)	TEST_F_TIMEOUT(khealthd, name, 300)

/* === What the helper is told ============================================== */

/* All that a test alert says; and nothing else is in the environment. */
KHEALTHD_TEST(test_event)
{
	struct alert a;

	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(find_event(self->dir, "test", &a)));
	EXPECT_STREQ(var(&a, "TROUBLED_DS"), "4");
	EXPECT_STREQ(var(&a, "KHEALTHD_ABI"), "1");
	EXPECT_STREQ(var(&a, "KHEALTHD_MONITOR"), "sock_rcvbuf");
	EXPECT_STREQ(var(&a, "KHEALTHD_UNIT"), "bytes");
	EXPECT_STREQ(var(&a, "KHEALTHD_LOW"), "12");
	EXPECT_STREQ(var(&a, "KHEALTHD_HIGH"), "25");
	EXPECT_STREQ(var(&a, "KHEALTHD_CROSSINGS"), "0");
	EXPECT_STREQ(var(&a, "HOME"), "/");
	EXPECT_STREQ(var(&a, "PATH"), "/sbin:/bin:/usr/sbin:/usr/bin");
	EXPECT_GT(num(&a, "KHEALTHD_SEQ"), 0);
	EXPECT_STREQ(var(&a, "KHEALTHD_CROSSINGS_OTHERS"), "0");
	EXPECT_EQ(nr_vars(&a), 12);	/* these and KHEALTHD_EVENT */
}

/* Alerts are numbered without a gap, over all monitors. */
KHEALTHD_TEST(sequence)
{
	struct alert a, b;

	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(find_event(self->dir, "test", &a)));
	ASSERT_EQ(send_test("skb_alloc"), 0);
	ASSERT_TRUE(wait_until(load_alert(self->dir,
					  num(&a, "KHEALTHD_SEQ") + 1, &b)));
	EXPECT_STREQ(var(&b, "TROUBLED_DS"), "1");
	EXPECT_STREQ(var(&b, "KHEALTHD_MONITOR"), "skb_alloc");
	EXPECT_STREQ(var(&b, "KHEALTHD_UNIT"), "pages");
}

/* From healthy to low, to drops, and back; every variable on the way. */
static void overflow(struct __test_metadata *_metadata, const char *dir,
		     const struct kind *kind)
{
	long long crossings = get_count("sock_rcvbuf/crossings");
	long long alerts = get_count("sock_rcvbuf/alerts");
	long long drops_before, capacity, left;
	struct alert a;
	struct pair p;

	ASSERT_EQ(open_pair(&p, kind, RCVBUF), 0);
	drops_before = drops(&p);
	capacity = meminfo(&p, SK_MEMINFO_RCVBUF);

	/* Low, before anything is dropped. */
	ASSERT_TRUE(send_until(&p, 100, !state_is("sock_rcvbuf", "ok")));
	left = capacity - meminfo(&p, SK_MEMINFO_RMEM_ALLOC);
	EXPECT_TRUE(state_is("sock_rcvbuf", "low"));
	ASSERT_TRUE(wait_until(find_event(dir, "low", &a)));
	EXPECT_EQ(drops(&p), drops_before);
	EXPECT_STREQ(var(&a, "TROUBLED_DS"), "4");
	EXPECT_STREQ(var(&a, "KHEALTHD_MONITOR"), "sock_rcvbuf");
	EXPECT_EQ(num(&a, "KHEALTHD_FREE"), left);
	EXPECT_EQ(num(&a, "KHEALTHD_CAPACITY"), capacity);
	EXPECT_LT(left * 100, capacity * 12);
	EXPECT_GT(left, 0);
	EXPECT_EQ(num(&a, "KHEALTHD_CROSSINGS"), 1);
	EXPECT_EQ(num(&a, "KHEALTHD_REFUSED"), 0);
	EXPECT_STREQ(var(&a, "KHEALTHD_STATE"), "low");
	EXPECT_EQ(num(&a, "KHEALTHD_UID"), 0);
	EXPECT_EQ(num(&a, "KHEALTHD_OTHERS"), 0);
	EXPECT_EQ(num(&a, "KHEALTHD_FAMILY"), kind->family);
	EXPECT_EQ(num(&a, "KHEALTHD_PROTOCOL"), kind->protocol);
	EXPECT_EQ(num(&a, "KHEALTHD_SOCK_COOKIE"), sockopt64(p.rx, SO_COOKIE));
	EXPECT_EQ(num(&a, "KHEALTHD_NETNS"), netns_inode());
	EXPECT_EQ(num(&a, "KHEALTHD_NETNS_COOKIE"),
		  sockopt64(p.rx, SO_NETNS_COOKIE));
	EXPECT_EQ(num(&a, "KHEALTHD_PORT"),
		  kind->type == SOCK_RAW ? -1 : p.port);
	EXPECT_EQ(var(&a, "KHEALTHD_CPU"), NULL);

	/* Exhausted, when packets are dropped. */
	ASSERT_TRUE(send_until(&p, 100, drops(&p) > drops_before));
	EXPECT_TRUE(state_is("sock_rcvbuf", "exhausted"));
	ASSERT_TRUE(wait_until(find_event(dir, "exhausted", &a)));
	EXPECT_LT(num(&a, "KHEALTHD_FREE") * 100, capacity * 12);
	EXPECT_EQ(num(&a, "KHEALTHD_CAPACITY"), capacity);
	EXPECT_GE(num(&a, "KHEALTHD_DURATION_MS"), 0);
	EXPECT_GE(num(&a, "KHEALTHD_REFUSED"), 1);
	EXPECT_STREQ(var(&a, "KHEALTHD_STATE"), "exhausted");
	ASSERT_TRUE(send_until(&p, 100, drops(&p) > drops_before + 20));

	/* And once recovered, with all that was lost. */
	drain(&p);
	ASSERT_EQ(set_sysctl("quiet_ms", "300"), 0);
	ASSERT_TRUE(wait_until(find_event(dir, "recovered", &a)));
	EXPECT_TRUE(state_is("sock_rcvbuf", "ok"));
	EXPECT_EQ(num(&a, "KHEALTHD_REFUSED"), drops(&p) - drops_before);
	EXPECT_STREQ(var(&a, "KHEALTHD_STATE"), "ok");
	EXPECT_EQ(var(&a, "KHEALTHD_FREE"), NULL);
	EXPECT_EQ(count_event(dir, "low"), 1);
	EXPECT_EQ(count_event(dir, "exhausted"), 1);
	EXPECT_EQ(count_event(dir, "recovered"), 1);
	EXPECT_EQ(sum_crossings(dir),
		  get_count("sock_rcvbuf/crossings") - crossings);
	EXPECT_EQ(get_count("sock_rcvbuf/alerts") - alerts, 3);
	close_pair(&p);
}

KHEALTHD_TEST(overflow_udp4)
{
	overflow(_metadata, self->dir, &udp4);
}

KHEALTHD_TEST(overflow_udp6)
{
	overflow(_metadata, self->dir, &udp6);
}

KHEALTHD_TEST(overflow_raw)
{
	overflow(_metadata, self->dir, &raw4);
}

/* One packet that does not fit into a buffer with a third of it free. */
KHEALTHD_TEST(single_jump)
{
	long long drops_before, capacity;
	struct pair p;

	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF / 2), 0);
	capacity = meminfo(&p, SK_MEMINFO_RCVBUF);
	drops_before = drops(&p);
	ASSERT_TRUE(send_until(&p, 100,
			       meminfo(&p, SK_MEMINFO_RMEM_ALLOC) * 3 >
			       capacity * 2));
	EXPECT_TRUE(state_is("sock_rcvbuf", "ok"));
	EXPECT_EQ(drops(&p), drops_before);

	send_one(&p, 60000);
	send_one(&p, 60000);
	EXPECT_GT(drops(&p), drops_before);
	EXPECT_TRUE(state_is("sock_rcvbuf", "exhausted"));
	close_pair(&p);
}

/* An empty buffer takes one packet of any size: that is no shortage. */
KHEALTHD_TEST(big_packet_alone)
{
	struct pair p;
	int i;

	ASSERT_EQ(open_pair(&p, &udp4, 16384), 0);
	for (i = 0; i < 20; i++) {
		send_one(&p, 60000);
		drain(&p);
	}
	EXPECT_TRUE(state_is("sock_rcvbuf", "ok"));
	EXPECT_EQ(get_count("sock_rcvbuf/crossings"), self->crossings);
	close_pair(&p);
}

/* A reader that keeps up: not a word, however many packets. */
KHEALTHD_TEST(healthy)
{
	struct pair p;
	int i;

	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	for (i = 0; i < 20000; i++) {
		send_one(&p, 100);
		if (!(i % 10))
			drain(&p);
	}
	EXPECT_EQ(get_count("sock_rcvbuf/crossings"), self->crossings);
	EXPECT_EQ(get_count("sock_rcvbuf/alerts"), self->alerts);
	EXPECT_EQ(count_alerts(self->dir, NULL), 0);
	close_pair(&p);
}

/* Each time the level goes down through the watermark is a crossing. */
KHEALTHD_TEST(crossings_add_up)
{
	struct pair p;
	int i;

	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	for (i = 1; i <= 50; i++) {
		ASSERT_TRUE(send_until(&p, 100,
				       get_count("sock_rcvbuf/crossings") ==
				       self->crossings + i));
		drain(&p);
	}
	ASSERT_TRUE(wait_until(count_event(self->dir, "low") == 1));
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_TRUE(wait_until(count_event(self->dir, "recovered") == 1));
	EXPECT_EQ(sum_crossings(self->dir), 50);
	close_pair(&p);
}

/* In another namespace: seen all the same, and named. */
KHEALTHD_TEST(netns)
{
	unsigned long long told[2] = { 0 };
	struct alert a;
	int fds[2], status;
	pid_t pid;

	ASSERT_EQ(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		struct pair p;

		if (unshare(CLONE_NEWNET) || !loopback_up() ||
		    open_pair(&p, &udp4, RCVBUF))
			_exit(1);
		if (!send_until(&p, 100, !state_is("sock_rcvbuf", "ok")))
			_exit(2);
		told[0] = netns_inode();
		told[1] = sockopt64(p.rx, SO_COOKIE);
		if (write(fds[1], told, sizeof(told)) != sizeof(told))
			_exit(3);
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
	ASSERT_EQ(read(fds[0], told, sizeof(told)), sizeof(told));
	ASSERT_TRUE(wait_until(find_event(self->dir, "low", &a)));
	EXPECT_NE(told[0], netns_inode());
	EXPECT_EQ(num(&a, "KHEALTHD_NETNS"), told[0]);
	EXPECT_EQ(num(&a, "KHEALTHD_SOCK_COOKIE"), told[1]);
}

/* Full already when khealthd is enabled: the next packet says so. */
KHEALTHD_TEST(low_when_armed)
{
	struct alert a;
	struct pair p;

	ASSERT_EQ(set_sysctl("enabled", "0"), 0);
	EXPECT_TRUE(state_is("sock_rcvbuf", "off"));
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100,
			       meminfo(&p, SK_MEMINFO_RMEM_ALLOC) * 20 >
			       meminfo(&p, SK_MEMINFO_RCVBUF) * 19));
	EXPECT_EQ(get_count("sock_rcvbuf/crossings"), self->crossings);

	ASSERT_EQ(set_sysctl("enabled", "1"), 0);
	EXPECT_TRUE(state_is("sock_rcvbuf", "ok"));
	send_one(&p, 100);
	ASSERT_TRUE(wait_until(find_event(self->dir, "low", &a) ||
			       find_event(self->dir, "exhausted", &a)));
	EXPECT_EQ(num(&a, "KHEALTHD_CROSSINGS"), 1);
	close_pair(&p);
}

/* === When it is quiet ===================================================== */

KHEALTHD_TEST(monitor_off)
{
	struct pair p;

	ASSERT_EQ(set_sysctl("sock_rcvbuf", "0 0"), 0);
	EXPECT_TRUE(state_is("sock_rcvbuf", "off"));
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100, drops(&p) > 0));
	EXPECT_EQ(get_count("sock_rcvbuf/crossings"), self->crossings);
	EXPECT_EQ(count_alerts(self->dir, NULL), 0);
	close_pair(&p);
}

KHEALTHD_TEST(disabled)
{
	struct pair p;

	ASSERT_EQ(set_sysctl("enabled", "0"), 0);
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100, drops(&p) > 0));
	EXPECT_EQ(get_count("sock_rcvbuf/crossings"), self->crossings);
	EXPECT_EQ(count_alerts(self->dir, NULL), 0);
	close_pair(&p);
}

/* Make a buffer run low, and let the episode end. */
static bool low_once(struct pair *p)
{
	if (!send_until(p, 100, !state_is("sock_rcvbuf", "ok")))
		return false;
	drain(p);
	return wait_until(state_is("sock_rcvbuf", "ok"));
}

/*
 * An instance that flaps is notified once in its hold-off, and nothing that was
 * counted is missing: the rest is in the next alert, as crossings of others.
 */
KHEALTHD_TEST(holdoff)
{
	long long suppressed = get_count("sock_rcvbuf/suppressed");
	struct pair p, other;
	int i;

	ASSERT_EQ(set_sysctl("holdoff_ms", "3600000"), 0);
	ASSERT_EQ(set_sysctl("quiet_ms", "50"), 0);
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	for (i = 0; i < 5; i++)
		ASSERT_TRUE(low_once(&p));
	ASSERT_TRUE(wait_until(get_count("sock_rcvbuf/suppressed") ==
			       suppressed + 4));
	EXPECT_EQ(get_count("sock_rcvbuf/alerts"), self->alerts + 2);
	EXPECT_TRUE(wait_until(sum_crossings(self->dir) == 1));

	/* Another one does not wait for it. */
	ASSERT_EQ(open_pair(&other, &udp4, RCVBUF), 0);
	ASSERT_TRUE(low_once(&other));
	/* If the helper is slow, recovered is a part of low. */
	EXPECT_TRUE(wait_until(get_count("sock_rcvbuf/alerts") ==
			       self->alerts + 4));
	EXPECT_TRUE(wait_until(count_event(self->dir, "low") == 2));
	EXPECT_EQ(sum_crossings(self->dir), 6);
	close_pair(&other);
	close_pair(&p);
}

/* Packets are lost right after the first alert: that waits for no hold-off. */
KHEALTHD_TEST(exhausted_at_once)
{
	long long drops_before;
	struct alert a;
	struct pair p;

	ASSERT_EQ(set_sysctl("holdoff_ms", "3600000"), 0);
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100, !state_is("sock_rcvbuf", "ok")));
	ASSERT_TRUE(wait_until(find_event(self->dir, "low", &a)));
	drops_before = drops(&p);
	ASSERT_TRUE(send_until(&p, 100, drops(&p) > drops_before));
	ASSERT_TRUE(wait_until(find_event(self->dir, "exhausted", &a)));
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_TRUE(wait_until(find_event(self->dir, "recovered", &a)));
	close_pair(&p);
}

/*
 * One after the other, @n packets make a buffer run low, and one is read: the
 * sockets of several namespaces take turns.
 */
static bool cross_often(int n)
{
	struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
	struct pair pairs[STORM_NETNS * STORM_SOCKETS], *p;
	char data[STORM_BYTES];
	int i, rcvbuf;

	for (p = pairs; p < pairs + ARRAY_SIZE(pairs); p++) {
		if ((p - pairs) % STORM_SOCKETS == 0 &&
		    (unshare(CLONE_NEWNET) || !loopback_up()))
			return false;
		if (open_pair(p, &udp4, RCVBUF))
			return false;
		/*
		 * Two packets fill the buffer more than half, from where on it
		 * is looked at; a third one fills it to 95 percent.
		 */
		send_one(p, sizeof(data));
		send_one(p, sizeof(data));
		rcvbuf = meminfo(p, SK_MEMINFO_RMEM_ALLOC) / 2 * 3 * 100 / 95;
		rcvbuf /= 2;	/* the kernel takes it twice */
		setsockopt(p->rx, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf,
			   sizeof(rcvbuf));
		setsockopt(p->rx, SOL_SOCKET, SO_RCVTIMEO, &patience,
			   sizeof(patience));
	}
	for (i = 0; i < n; i++) {
		p = &pairs[i % ARRAY_SIZE(pairs)];
		send_one(p, sizeof(data));
		if (recv(p->rx, data, sizeof(data), 0) != sizeof(data))
			return false;
	}
	return true;
}

/*
 * However many cross: a few alerts, and each crossing is notified exactly once.
 * KHEALTHD_STORM is the number for a kernel that is too slow for a million.
 */
KHEALTHD_TEST(storm)
{
	const char *wanted = getenv("KHEALTHD_STORM");
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int n = wanted && *wanted ? atoi(wanted) : 1000000;
	long long crossings;
	int i, status;
	struct pair p;

	n -= n % cpus;
	ASSERT_EQ(set_sysctl("holdoff_ms", "3600000"), 0);
	for (i = 0; i < cpus; i++)
		if (!fork())
			_exit(!cross_often(n / cpus));
	for (i = 0; i < cpus; i++) {
		ASSERT_GT(wait(&status), 0);
		ASSERT_EQ(status, 0);
	}
	crossings = get_count("sock_rcvbuf/crossings") - self->crossings;
	EXPECT_GE(crossings, n);
	/* Eight episodes at once, and nothing else is new in an hour. */
	EXPECT_LE(get_count("sock_rcvbuf/alerts") - self->alerts, 8);

	/* What waits is in the alerts that come now. */
	ASSERT_EQ(set_sysctl("holdoff_ms", "0"), 0);
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_TRUE(wait_until(state_is("sock_rcvbuf", "ok")));
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(low_once(&p));
	EXPECT_TRUE(wait_until(sum_crossings(self->dir) == crossings + 1));
	close_pair(&p);
}

/* Without a helper there are alerts all the same. */
KHEALTHD_TEST(no_helper)
{
	long long runs = get_count("helper/runs");
	struct pair p;

	ASSERT_EQ(set_sysctl("helper", "\n"), 0);
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100, !state_is("sock_rcvbuf", "ok")));
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_TRUE(wait_until(get_count("sock_rcvbuf/alerts") ==
			       self->alerts + 2));
	EXPECT_EQ(get_count("helper/runs"), runs);
	close_pair(&p);
}

KHEALTHD_TEST(poll_state)
{
	struct pollfd pfd = { .events = POLLPRI };
	char text[32];
	struct pair p;

	pfd.fd = open(SYSFS "sock_rcvbuf/state", O_RDONLY);
	ASSERT_GE(pfd.fd, 0);
	ASSERT_EQ(pread(pfd.fd, text, sizeof(text), 0), 3);
	EXPECT_EQ(poll(&pfd, 1, 0), 0);

	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100, !state_is("sock_rcvbuf", "ok")));
	EXPECT_EQ(poll(&pfd, 1, PATIENCE_MS), 1);
	ASSERT_EQ(pread(pfd.fd, text, sizeof(text), 0), 4);
	EXPECT_EQ(strncmp(text, "low\n", 4), 0);
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	EXPECT_EQ(poll(&pfd, 1, PATIENCE_MS), 1);	/* recovered */
	close(pfd.fd);
	close_pair(&p);
}

/* === Helpers that misbehave =============================================== */

KHEALTHD_TEST(helper_missing)
{
	long long starts = get_count("helper/start_failures");
	long long failures = get_count("helper/failures");
	long long runs = get_count("helper/runs");

	ASSERT_EQ(set_sysctl("helper", "/nonexistent/helper"), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(get_count("helper/failures") == failures + 1));
	EXPECT_EQ(get_count("helper/start_failures"), starts + 1);
	EXPECT_EQ(get_count("helper/last_status"), -ENOENT);

	/* It is not tried again: the next one to run is the next alert's. */
	ASSERT_EQ(set_sysctl("helper", self->helper), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(get_count("helper/runs") == runs + 1));
	EXPECT_EQ(get_count("helper/failures"), failures + 1);
}

KHEALTHD_TEST(helper_not_executable)
{
	long long failures = get_count("helper/failures");

	ASSERT_EQ(chmod(self->helper, 0600), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(get_count("helper/failures") == failures + 1));
	EXPECT_EQ(get_count("helper/last_status"), -EACCES);
}

KHEALTHD_TEST(helper_fails)
{
	long long signals = get_count("helper/signal_failures");
	long long failures = get_count("helper/failures");
	long long exits = get_count("helper/exit_failures");
	long long retries = get_count("helper/retries");
	long long runs = get_count("helper/runs");

	ASSERT_EQ(write_helper(self->dir, self->helper, "exit 3"), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(get_count("helper/failures") == failures + 1));
	EXPECT_EQ(get_count("helper/exit_failures"), exits + 1);
	EXPECT_EQ(get_count("helper/last_status"), 3);

	/* Killed by a signal, it is run again; but only once. */
	ASSERT_EQ(write_helper(self->dir, self->helper, "kill -SEGV $$"), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	ASSERT_TRUE(wait_until(get_count("helper/failures") == failures + 2));
	EXPECT_EQ(get_count("helper/signal_failures"), signals + 1);
	EXPECT_EQ(get_count("helper/exit_failures"), exits + 1);
	EXPECT_EQ(get_count("helper/last_status"), 128 + SIGSEGV);
	EXPECT_EQ(get_count("helper/retries"), retries + 1);
	EXPECT_EQ(get_count("helper/runs"), runs + 3);
}

/* systemd sends SIGTERM to all when it switches the root: the alert is not lost. */
KHEALTHD_TEST(helper_killed)
{
	long long signals = get_count("helper/signal_failures");
	char more[512], path[PATH_MAX];

	snprintf(more, sizeof(more),
		 "[ -e %s/again ] || { touch %s/again; kill -TERM $$; }\n"
		 "touch %s/done", self->dir, self->dir, self->dir);
	ASSERT_EQ(write_helper(self->dir, self->helper, more), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	snprintf(path, sizeof(path), "%s/done", self->dir);
	EXPECT_TRUE(wait_until(!access(path, F_OK)));
	EXPECT_EQ(get_count("helper/signal_failures"), signals);
}

/* Prints more than any pipe holds, reads, and ends well: it's all /dev/null. */
KHEALTHD_TEST(helper_prints)
{
	long long failures = get_count("helper/failures");
	long long runs = get_count("helper/runs");
	char more[512], path[PATH_MAX], text[256];

	snprintf(more, sizeof(more),
		 "cat; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2\n"
		 "fds=$(readlink /proc/$$/fd/[012])\n"
		 "echo \"$fds\" >%s/fds.tmp\n"
		 "mv %s/fds.tmp %s/fds", self->dir, self->dir, self->dir);
	ASSERT_EQ(write_helper(self->dir, self->helper, more), 0);
	ASSERT_EQ(send_test("sock_rcvbuf"), 0);
	snprintf(path, sizeof(path), "%s/fds", self->dir);
	ASSERT_TRUE(wait_until(read_file(path, text, sizeof(text)) > 0));
	EXPECT_STREQ(text, "/dev/null\n/dev/null\n/dev/null");
	ASSERT_TRUE(wait_until(get_count("helper/last_status") == 0));
	EXPECT_EQ(get_count("helper/runs"), runs + 1);
	EXPECT_EQ(get_count("helper/failures"), failures);
}

/* Is a process with that in its command line alive? */
static bool is_running(const char *what)
{
	char command[128];

	snprintf(command, sizeof(command), "pgrep -f '%s' >/dev/null", what);
	return !system(command);
}

/* One that hangs is killed with its children, and holds up nothing else. */
KHEALTHD_TEST(helper_hangs)
{
	long long timeouts = get_count("helper/timeouts");
	long long runs = get_count("helper/runs");
	struct alert a;
	struct pair p;

	ASSERT_EQ(set_sysctl("helper_timeout_ms", "3600000"), 0);
	ASSERT_EQ(write_helper(self->dir, self->helper, "sleep 98765"), 0);
	ASSERT_EQ(send_test("skb_alloc"), 0);
	ASSERT_TRUE(wait_until(is_running("[s]leep 98765")));

	/* Other alerts go out meanwhile, but no second helper. */
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	ASSERT_TRUE(send_until(&p, 100, !state_is("sock_rcvbuf", "ok")));
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_TRUE(wait_until(get_count("sock_rcvbuf/alerts") ==
			       self->alerts + 2));
	EXPECT_EQ(get_count("helper/runs"), runs + 1);
	close_pair(&p);

	/*
	 * It ends; low and recovered of the same episode have become one run,
	 * which says that it was low and is over.
	 */
	ASSERT_EQ(set_sysctl("helper_timeout_ms", "5000"), 0);
	EXPECT_EQ(system("pkill -KILL -f '[s]leep 98765'"), 0);
	ASSERT_TRUE(wait_until(get_count("helper/timeouts") == timeouts + 1));
	/* Which is counted before it is dead. */
	ASSERT_TRUE(wait_until(!is_running("[s]leep 98765")));
	EXPECT_EQ(get_count("helper/runs"), runs + 2);
	EXPECT_EQ(get_count("helper/last_status"), 128 + SIGKILL);
	ASSERT_TRUE(wait_until(find_event(self->dir, "low", &a)));
	EXPECT_STREQ(var(&a, "KHEALTHD_STATE"), "ok");
	EXPECT_EQ(count_event(self->dir, "recovered"), 0);
	EXPECT_EQ(sum_crossings(self->dir), 1);
}

KHEALTHD_TEST(one_helper_at_a_time)
{
	long long runs = get_count("helper/runs");
	char more[512], path[PATH_MAX];
	int i;

	snprintf(more, sizeof(more),
		 "mkdir %s/running || touch %s/overlap\n"
		 "sleep 0.2\n"
		 "rmdir %s/running", self->dir, self->dir, self->dir);
	ASSERT_EQ(write_helper(self->dir, self->helper, more), 0);
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(send_test("sock_rcvbuf"), 0);
		ASSERT_EQ(send_test("skb_alloc"), 0);
		usleep(100000);
	}
	/* Tests that had to wait have become one. */
	ASSERT_TRUE(wait_until(get_count("helper/runs") >= runs + 3));
	snprintf(path, sizeof(path), "%s/overlap", self->dir);
	EXPECT_NE(access(path, F_OK), 0);
}

/*
 * While a helper runs, alerts wait, those of the same episode as one. There is
 * room for 32; if more come, the newest low are dropped, and no crossing is lost.
 */
KHEALTHD_TEST(waiting_alerts)
{
	long long crossings = get_count("sock_rcvbuf/crossings");
	long long dropped = get_count("helper/dropped");
	char command[256];
	struct pair p;
	int i;

	snprintf(command, sizeof(command),
		 "while [ ! -e %s/go ]; do sleep 0.1; done", self->dir);
	ASSERT_EQ(write_helper(self->dir, self->helper, command), 0);
	ASSERT_EQ(set_sysctl("quiet_ms", "1"), 0);
	ASSERT_EQ(open_pair(&p, &udp4, RCVBUF), 0);
	for (i = 0; i < 40; i++) {
		ASSERT_TRUE(low_once(&p));
		ASSERT_TRUE(all_told("sock_rcvbuf"));
	}
	close_pair(&p);
	EXPECT_GE(get_count("helper/dropped"), dropped + 6);
	snprintf(command, sizeof(command), "touch %s/go", self->dir);
	ASSERT_EQ(system(command), 0);
	/* On a busy machine a burst may take so long that it is two. */
	crossings = get_count("sock_rcvbuf/crossings") - crossings;
	EXPECT_GE(crossings, 40);
	EXPECT_TRUE(wait_until(sum_crossings(self->dir) == crossings));
	EXPECT_LE(count_alerts(self->dir, NULL), 34);
}

/* === Who may set what ===================================================== */

/* Bad values are refused and change nothing; a newline makes no difference. */
static void check_setting(struct __test_metadata *_metadata, const char *name,
			  const char * const *good, const char * const *bad)
{
	char before[300], after[300], line[300];

	for (; *good; good++) {
		EXPECT_EQ(set_sysctl(name, *good), 0)
			TH_LOG("%s: '%s'", name, *good);
		ASSERT_GE(get_sysctl(name, before, sizeof(before)), 0);
		EXPECT_STREQ(before, *good);
		snprintf(line, sizeof(line), "%s\n", *good);
		EXPECT_EQ(set_sysctl(name, line), 0);
		ASSERT_GE(get_sysctl(name, before, sizeof(before)), 0);
		EXPECT_STREQ(before, *good);
	}
	for (; *bad; bad++) {
		EXPECT_EQ(set_sysctl(name, *bad), -EINVAL)
			TH_LOG("%s: '%s'", name, *bad);
		ASSERT_GE(get_sysctl(name, after, sizeof(after)), 0);
		EXPECT_STREQ(before, after);
	}
}

#define GOOD(...) ((const char * const[]) { __VA_ARGS__, NULL })
#define BAD(...) GOOD(__VA_ARGS__)

KHEALTHD_TEST(bad_input)
{
	char fits[256] = "/", too_long[257] = "/";

	memset(fits + 1, 'x', 254);
	memset(too_long + 1, 'x', 255);

	check_setting(_metadata, "enabled", GOOD("0", "1"),
		      BAD("2", "-1", "\n", "yes", "1 0", "1x", "0x1",
			  "4294967297"));
	check_setting(_metadata, "helper", GOOD("/bin/true", "/a b", fits),
		      BAD("", "bin/true", " /bin/true", too_long, "/a\nb",
			  "/a\tb", "true"));
	check_setting(_metadata, "helper_timeout_ms",
		      GOOD("1", "30000", "86400000"),
		      BAD("0", "86400001", "-1", "\n", "1 2", "1s", "1.5",
			  "99999999999999999999"));
	check_setting(_metadata, "holdoff_ms", GOOD("0", "10000", "86400000"),
		      BAD("86400001", "-1", "+1", "\n", "1\n\n", "1 2", "10 s", "x"));
	check_setting(_metadata, "holdoff_max_ms", GOOD("0", "3600000", "86400000"),
		      BAD("86400001", "-1", "\n", "x"));
	check_setting(_metadata, "quiet_ms", GOOD("1", "5000", "86400000"),
		      BAD("0", "86400001", "-1", "\n", "1 2", "x"));
	check_setting(_metadata, "sock_rcvbuf", GOOD("0 0", "1 2", "49 50"),
		      BAD("0", "1", "2 1", "5 5", "0 5", "5 0", "5 51", "\n",
			  "-1 5", "5 -6", "1 2 3", "1,2", "a b", "1 2x", "1\n 2"));
	check_setting(_metadata, "packet_ring", GOOD("0 0", "12 25"),
		      BAD("12 26"));
	check_setting(_metadata, "skb_alloc", GOOD("0 0", "50 75", "99 100"),
		      BAD("75 50", "1 256", "257 258", "1"));
}

KHEALTHD_TEST(bad_test_write)
{
	EXPECT_EQ(write_file(SYSFS "sock_rcvbuf/test", "0"), -EINVAL);
	EXPECT_EQ(write_file(SYSFS "sock_rcvbuf/test", "x"), -EINVAL);
	EXPECT_EQ(write_file(SYSFS "sock_rcvbuf/test", "11"), -EINVAL);
	EXPECT_EQ(get_count("sock_rcvbuf/alerts"), self->alerts);
}

/* What is written in pieces is not taken for the last piece: 10000 is not 0. */
KHEALTHD_TEST(write_in_pieces)
{
	int fd = open(SYSCTL "holdoff_ms", O_WRONLY);
	char text[32];

	ASSERT_GE(fd, 0);
	EXPECT_EQ(write(fd, "10", 2), 2);
	EXPECT_EQ(write(fd, "000", 3), -1);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(pwrite(fd, "20", 2, 1), -1);
	EXPECT_EQ(errno, EINVAL);
	close(fd);
	ASSERT_GT(get_sysctl("holdoff_ms", text, sizeof(text)), 0);
	EXPECT_STREQ(text, "10");
}

/* Run @check in a child; its exit status is the number of what went wrong. */
static int in_child(int (*check)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(check());
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int as_nobody(void)
{
	char text[300];
	int i;

	if (setgid(65534) || setuid(65534))
		return 200;
	for (i = 0; i < NR_SETTINGS; i++)
		if (set_sysctl(settings[i], "1") != -EACCES)
			return 1 + i;
	if (get_sysctl("helper", text, sizeof(text)) != -EACCES)
		return 100;
	if (send_test("sock_rcvbuf") != -EACCES)
		return 101;
	if (get_sysfs("sock_rcvbuf/episodes", text, sizeof(text)) != -EACCES)
		return 102;
	if (get_sysfs("sock_rcvbuf/state", text, sizeof(text)) <= 0)
		return 103;
	return 0;
}

KHEALTHD_TEST(unprivileged)
{
	EXPECT_EQ(in_child(as_nobody), 0);
}

/* Root, but of a user namespace: the files' owner, without capabilities. */
static int as_namespace_root(void)
{
	char text[300];
	int i;

	if (unshare(CLONE_NEWUSER))
		return 200;
	if (write_file("/proc/self/uid_map", "0 0 1"))
		return 201;
	for (i = 0; i < NR_SETTINGS; i++)
		if (set_sysctl(settings[i], "1") != -EPERM)
			return 1 + i;
	if (send_test("sock_rcvbuf") != -EPERM)
		return 101;
	if (get_sysfs("sock_rcvbuf/episodes", text, sizeof(text)) != -EPERM)
		return 102;
	return 0;
}

KHEALTHD_TEST(user_namespace_root)
{
	if (access("/proc/self/ns/user", F_OK))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(in_child(as_namespace_root), 0);
}

int main(int argc, char **argv)
{
	if (access(SYSCTL "enabled", F_OK)) {
		ksft_print_header();
		ksft_exit_skip("this kernel has no khealthd\n");
	}
	if (geteuid()) {
		ksft_print_header();
		ksft_exit_skip("must be root\n");
	}
	need_guard(argv);
	return test_harness_run(argc, argv);
}
