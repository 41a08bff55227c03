// SPDX-License-Identifier: GPL-2.0
/*
 * Usage: cost [--forever] ROW...
 *
 * What the kernel does for a packet, in instructions. Runs in QEMU with
 * "-icount shift=0", where the time stamp counter counts instructions; see
 * cost.sh.
 *
 * Each ROW is a loop. A batch of it lies between two ticks of the timer, so
 * that nothing else is in it, and begins after the loop has been through a few
 * times since the tick, so that what it takes from per-CPU caches is there. Its
 * result is the mean of its iterations: some of them do more than others, such
 * as to charge a page of memory to the socket.
 *
 * Printed are, for each ROW, the result that most batches agree on, how many of all
 * these are, and the least. They are the state that a row is in: two kernels
 * can be compared if most of their batches agree. Where the state is a matter of
 * chance, a row is set up several times, and the one with the fewest counts.
 *
 * --forever does the first ROW without an end, for cost.sh --trace.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define SIZE		512	/* bytes in a packet */
#define ITERATIONS	128	/* in a batch, unless a tick comes sooner */
#define WARM_UP		64
#define BATCHES		31
#define ETHERTYPE	0x88b5	/* for local experiments */

static char packet[SIZE];
static char buffer[2 * SIZE];
static int tx = -1, rx = -1;

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "cost: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void run(const char *command)
{
	check(!system(command), command);
}

/* === Rows ================================================================ */

/* Packets from tx to rx. */
static void udp(int family)
{
	struct sockaddr_storage addr = { .ss_family = family };
	socklen_t len = sizeof(addr);

	if (family == AF_INET)
		((struct sockaddr_in *)&addr)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)&addr)->sin6_addr = in6addr_loopback;
	rx = socket(family, SOCK_DGRAM, 0);
	check(!bind(rx, (struct sockaddr *)&addr, len), "bind");
	check(!getsockname(rx, (struct sockaddr *)&addr, &len), "getsockname");
	tx = socket(family, SOCK_DGRAM, 0);
	check(!connect(tx, (struct sockaddr *)&addr, len), "connect");
}

static void udp4(void)
{
	udp(AF_INET);
}

static void udp6(void)
{
	udp(AF_INET6);
}

static void send_only(void)
{
	check(send(tx, packet, SIZE, 0) == SIZE, "send");
}

static void send_and_receive(void)
{
	send_only();
	check(recv(rx, buffer, sizeof(buffer), MSG_DONTWAIT) >= SIZE, "recv");
}

static unsigned int meminfo(int field)
{
	unsigned int mem[SK_MEMINFO_VARS];
	socklen_t len = sizeof(mem);

	check(!getsockopt(rx, SOL_SOCKET, SO_MEMINFO, mem, &len), "SO_MEMINFO");
	return mem[field];
}

/*
 * Three packets stay, and with the next one so many percent of the buffer are
 * taken. Few packets, so that they go round in the same memory; it would take
 * thousands of iterations until those of a long queue do.
 */
static void fill(unsigned int percent, void (*send_one)(void))
{
	unsigned int i, half;

	for (i = 0; i < 3; i++)
		send_one();
	/* The kernel doubles what it is given. */
	half = meminfo(SK_MEMINFO_RMEM_ALLOC) / 3 * 4 * 100 / percent / 2;
	check(!setsockopt(rx, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half)), "SO_RCVBUF");
}

static void udp4_half(void)
{
	udp4();
	fill(70, send_only);
}

#define SHORT	95	/* percent: below the low watermark */

static void udp4_short(void)
{
	udp4();
	fill(SHORT, send_only);
}

static void udp4_full(void)
{
	udp4();
	while (!meminfo(SK_MEMINFO_DROPS))
		send_only();
}

/* Into a new network namespace; come_back() to the one that this returns. */
static int go_away(void)
{
	int home = open("/proc/self/ns/net", O_RDONLY);

	check(!unshare(CLONE_NEWNET), "unshare");
	return home;
}

static void come_back(int home)
{
	check(!setns(home, CLONE_NEWNET), "setns");
	close(home);
}

/* From another namespace, and by way of a CPU's backlog, as RPS wants it. */
static void across_veth(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int home;

	run("ip link del cost0 2>/dev/null || :");
	home = go_away();
	tx = socket(AF_INET, SOCK_DGRAM, 0);
	run("ip link add cost1 type veth peer name cost0 address 02:00:00:00:00:01 netns 1");
	run("ip address add 192.0.2.2/24 dev cost1; ip link set cost1 up");
	/* The other end's entry would be in the same chain as this one, or not. */
	run("ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev cost1 nud permanent");
	come_back(home);
	run("ip address add 192.0.2.1/24 dev cost0; ip link set cost0 up");
	run("echo 1 >/sys/class/net/cost0/queues/rx-0/rps_cpus");
	rx = socket(AF_INET, SOCK_DGRAM, 0);
	addr.sin_addr.s_addr = inet_addr("192.0.2.1");
	check(!bind(rx, (struct sockaddr *)&addr, len), "bind");
	check(!getsockname(rx, (struct sockaddr *)&addr, &len), "getsockname");
	check(!connect(tx, (struct sockaddr *)&addr, len), "connect");
}

static void tcp(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	socklen_t len = sizeof(addr);

	check(!bind(listener, (struct sockaddr *)&addr, len), "bind");
	check(!listen(listener, 1), "listen");
	check(!getsockname(listener, (struct sockaddr *)&addr, &len), "getsockname");
	tx = socket(AF_INET, SOCK_STREAM, 0);
	check(!connect(tx, (struct sockaddr *)&addr, len), "connect");
	rx = accept(listener, NULL, NULL);
	check(rx >= 0, "accept");
	check(!setsockopt(tx, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), "TCP_NODELAY");
	close(listener);
}

static void raw(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	rx = socket(AF_INET, SOCK_RAW, 253);
	check(rx >= 0, "SOCK_RAW");
	check(!bind(rx, (struct sockaddr *)&addr, sizeof(addr)), "bind");
	tx = socket(AF_INET, SOCK_RAW, 253);
	/* It wants packets from elsewhere, so that only rx gets these. */
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	check(!bind(tx, (struct sockaddr *)&addr, sizeof(addr)), "bind");
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check(!connect(tx, (struct sockaddr *)&addr, sizeof(addr)), "connect");
}

static void raw_short(void)
{
	raw();
	fill(SHORT, send_only);
}

static void netlink(void)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	socklen_t len = sizeof(addr);

	rx = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
	check(!bind(rx, (struct sockaddr *)&addr, len), "bind");
	check(!getsockname(rx, (struct sockaddr *)&addr, &len), "getsockname");
	tx = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
	check(!connect(tx, (struct sockaddr *)&addr, len), "connect");
}

static void netlink_short(void)
{
	netlink();
	fill(SHORT, send_only);
}

static struct sockaddr_ll loopback = { .sll_family = AF_PACKET };

static void packet_sockets(void)
{
	loopback.sll_ifindex = if_nametoindex("lo");
	loopback.sll_halen = 6;
	tx = socket(AF_PACKET, SOCK_DGRAM, 0);
	check(tx >= 0, "AF_PACKET");
	rx = socket(AF_PACKET, SOCK_DGRAM, 0);
}

static void packet_bind(void)
{
	loopback.sll_protocol = htons(ETHERTYPE);
	check(!bind(rx, (struct sockaddr *)&loopback, sizeof(loopback)), "bind");
}

static void packet_socket(void)
{
	packet_sockets();
	packet_bind();
}

static void packet_send(void)
{
	check(sendto(tx, packet, SIZE, 0, (struct sockaddr *)&loopback,
		     sizeof(loopback)) == SIZE, "sendto");
}

static void packet_short(void)
{
	packet_socket();
	fill(SHORT, packet_send);
}

static void packet_send_and_receive(void)
{
	packet_send();
	check(recv(rx, buffer, sizeof(buffer), MSG_DONTWAIT) >= SIZE, "recv");
}

/* The ring that libpcap asks for; frames are given back at once, or not. */
static struct tpacket_req ring_size = {
	.tp_block_size = 1 << 16,
	.tp_block_nr = 1,
	.tp_frame_size = 1 << 11,
	.tp_frame_nr = 32,
};

static char *frames;
static unsigned int frame;

static void ring(void)
{
	int version = TPACKET_V2;

	packet_sockets();
	check(!setsockopt(rx, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)),
	      "PACKET_VERSION");
	check(!setsockopt(rx, SOL_PACKET, PACKET_RX_RING, &ring_size, sizeof(ring_size)),
	      "PACKET_RX_RING");
	frames = mmap(NULL, ring_size.tp_block_size, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_POPULATE, rx, 0);
	check(frames != MAP_FAILED, "mmap");
	frame = 0;
	packet_bind();
}

static void ring_full(void)
{
	unsigned int i;

	ring();
	for (i = 0; i <= ring_size.tp_frame_nr; i++)
		packet_send();
}

static void ring_short(void)
{
	unsigned int i;

	ring();
	for (i = 0; i < ring_size.tp_frame_nr * SHORT / 100; i++)
		packet_send();
}

/* The oldest frame is given back. */
static void ring_send_and_receive(void)
{
	struct tpacket2_hdr *hdr = (void *)(frames + frame * ring_size.tp_frame_size);

	packet_send();
	check(__atomic_load_n(&hdr->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER,
	      "no frame in the ring");
	__atomic_store_n(&hdr->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	frame = (frame + 1) % ring_size.tp_frame_nr;
}

static void nothing(void)
{
}

/* === Rows of the second series =========================================== */

static void file(void)
{
	int fd = open("/dev/null", O_RDONLY);

	check(fd >= 0, "open");
	close(fd);
}

static void task(void)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	check(pid > 0 && waitpid(pid, NULL, 0) == pid, "vfork");
}

/* Each packet in two fragments. */
static void fragments(void)
{
	int home = go_away();

	run("ip link set lo mtu 300 up");
	udp4();
	come_back(home);
}

/* Each packet is of a new connection, for the last one ended at once. */
static void conntrack(void)
{
	int home = go_away();

	run("ip link set lo up");
	run("nft add table ip cost");
	run("nft 'add chain ip cost seen { type filter hook output priority 0; }'");
	run("nft add rule ip cost seen ct state new accept");
	run("echo 0 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout");
	run("echo 0 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream");
	udp4();
	come_back(home);
}

static struct sockaddr_in server, client;

static void bound_to(int fd, struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);

	addr->sin_family = AF_INET;
	addr->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check(!bind(fd, (struct sockaddr *)addr, len), "bind");
	check(!getsockname(fd, (struct sockaddr *)addr, &len), "getsockname");
}

static void listener(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	rx = socket(AF_INET, SOCK_STREAM, 0);
	bound_to(rx, &server);
	check(!listen(rx, 100), "listen");
	/* The same port each time: the kernel does not have to look for one. */
	bound_to(fd, &client);
	close(fd);
}

static void connection(void)
{
	int from = socket(AF_INET, SOCK_STREAM, 0), to;
	struct linger reset = { .l_onoff = 1 };

	bound_to(from, &client);
	check(!connect(from, (struct sockaddr *)&server, sizeof(server)), "connect");
	to = accept(rx, NULL, NULL);
	check(to >= 0, "accept");
	check(!setsockopt(from, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), "SO_LINGER");
	close(from);
	close(to);
}

static struct {
	struct nlmsghdr head;
	struct ndmsg neighbour;
	struct rtattr dst;
	struct in_addr addr;
	struct rtattr lladdr;
	unsigned char mac[8];
} request = {
	.neighbour.ndm_family = AF_INET,
	.neighbour.ndm_state = NUD_STALE,
	.dst = { RTA_LENGTH(sizeof(struct in_addr)), NDA_DST },
	.lladdr = { RTA_LENGTH(6), NDA_LLADDR },
	.mac = { 2 },
};

static void dummy_device(void)
{
	int home = go_away();

	run("ip link add cost2 type dummy; ip link set cost2 up");
	request.neighbour.ndm_ifindex = if_nametoindex("cost2");
	request.addr.s_addr = inet_addr("192.0.2.3");
	tx = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	come_back(home);
}

static void ask(unsigned int type, unsigned int flags)
{
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char more[64];
	} answer;

	request.head.nlmsg_len = sizeof(request);
	request.head.nlmsg_type = type;
	request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	check(send(tx, &request, sizeof(request), 0) == sizeof(request), "send");
	check(recv(tx, &answer, sizeof(answer), 0) > 0, "recv");
	errno = -answer.error.error;
	check(answer.head.nlmsg_type == NLMSG_ERROR && !errno, "rtnetlink");
}

static void neighbour(void)
{
	ask(RTM_NEWNEIGH, NLM_F_CREATE);
	ask(RTM_DELNEIGH, 0);
}

static const struct row {
	const char *name;
	void (*begin)(void);
	void (*once)(void);
	unsigned int setups;	/* the least of so many; 1 by default */
} rows[] = {
	/* Another socket may be in the same chain of UDP's hash tables. */
	{ "udp4",	udp4,		send_and_receive, 3 },
	{ "udp6",	udp6,		send_and_receive, 3 },
	{ "udp4_half",	udp4_half,	send_and_receive },
	{ "udp4_short",	udp4_short,	send_and_receive },
	{ "udp4_full",	udp4_full,	send_only },
	{ "tcp",	tcp,		send_and_receive },
	{ "raw",	raw,		send_and_receive },
	{ "raw_short",	raw_short,	send_and_receive },
	/* The kernel's hash table has four buckets; the sockets share one, or not. */
	{ "netlink",	netlink,	send_and_receive, 12 },
	{ "netlink_short", netlink_short, send_and_receive, 12 },
	{ "packet",	packet_socket,	packet_send_and_receive },
	{ "packet_short", packet_short,	packet_send_and_receive },
	/* Another entry may be in the same chain of the neighbours' hash table. */
	{ "veth",	across_veth,	send_and_receive, 6 },
	{ "ring",	ring,		ring_send_and_receive },
	{ "ring_short",	ring_short,	ring_send_and_receive },
	{ "ring_full",	ring_full,	packet_send },
	{ "accept",	listener,	connection },
	{ "conntrack",	conntrack,	send_and_receive },
	{ "neighbour",	dummy_device,	neighbour, 6 },
	{ "fragments",	fragments,	send_and_receive },
	{ "file",	nothing,	file },
	{ "task",	nothing,	task },
};

/* === Measuring =========================================================== */

/* The kernel writes this clock in the tick alone. */
static unsigned long tick(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void wait_for_tick(void)
{
	unsigned long start = tick();

	while (tick() == start)
		;
}

/* The mean of a batch, in tenths of an instruction. */
static unsigned long batch(void (*once)(void), unsigned int *iterations)
{
	unsigned long start, begin, end;
	unsigned int i, n = *iterations;

	for (;; n /= 2) {
		check(n, "not one iteration between two ticks");
		wait_for_tick();
		start = tick();
		for (i = 0; i < WARM_UP && i < n; i++)
			once();
		begin = __rdtsc();
		for (i = 0; i < n; i++)
			once();
		end = __rdtsc();
		if (tick() == start)
			break;
	}
	*iterations = n;
	return ((end - begin) * 10 + n / 2) / n;
}

static int compare(const void *a, const void *b)
{
	const unsigned long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Half an instruction more or less is where in the batch something happened. */
static bool agree(unsigned long a, unsigned long b)
{
	return a + 5 >= b && b + 5 >= a;
}

/* Of sorted results the one that most agree with, and how many these are. */
static unsigned long most_common(const unsigned long *results, unsigned int *count)
{
	unsigned int i, j, n;
	unsigned long best = 0;

	*count = 0;
	for (i = 0; i < BATCHES; i++) {
		for (j = 0, n = 0; j < BATCHES; j++)
			n += agree(results[i], results[j]);
		if (n > *count) {
			*count = n;
			best = results[i];
		}
	}
	return best;
}

struct result {
	unsigned long most;	/* tenths of instructions, in most batches */
	unsigned long least;
	unsigned int count;	/* batches that agree with most */
	unsigned int iterations;
};

static struct result measure_setup(const struct row *row, unsigned long empty)
{
	struct result result = { .iterations = ITERATIONS };
	unsigned long results[BATCHES];
	unsigned int i;

	row->begin();
	/* The kernel has been told what begin() did, and is done with it. */
	usleep(500000);
	for (i = 0; i < BATCHES; i++)
		results[i] = batch(row->once, &result.iterations) - empty;
	qsort(results, BATCHES, sizeof(*results), compare);
	result.most = most_common(results, &result.count);
	result.least = results[0];
	close(tx);
	close(rx);
	return result;
}

static void measure(const struct row *row, unsigned long empty)
{
	struct result best = measure_setup(row, empty), other;
	unsigned int i;

	for (i = 1; i < row->setups; i++) {
		other = measure_setup(row, empty);
		if (other.most < best.most)
			best = other;
	}
	printf("%s: %lu.%lu instructions, in %u of %u batches of %u; least %lu.%lu\n",
	       row->name, best.most / 10, best.most % 10, best.count, BATCHES,
	       best.iterations, best.least / 10, best.least % 10);
	fflush(stdout);
}

static const struct row *find(const char *name)
{
	unsigned int i;

	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	fprintf(stderr, "cost: unknown row '%s'; known are:", name);
	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		fprintf(stderr, " %s", rows[i].name);
	fprintf(stderr, "\n");
	exit(2);
}

static void forever(const struct row *row)
{
	row->begin();
	usleep(500000);
	/* The file tells cost-trace.py. */
	close(open("/run/share/ready", O_WRONLY | O_CREAT, 0644));
	for (;;) {
		/* Where an iteration begins, for cost-trace.py. */
		asm volatile(".globl mark\nmark:");
		row->once();
	}
}

int main(int argc, char **argv)
{
	unsigned long empty;
	unsigned int n = ITERATIONS;
	int i;

	if (argc == 3 && !strcmp(argv[1], "--forever"))
		forever(find(argv[2]));
	empty = batch(nothing, &n);
	for (i = 1; i < argc; i++)
		measure(find(argv[i]), empty);
	return 0;
}
