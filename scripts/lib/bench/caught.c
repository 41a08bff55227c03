// SPDX-License-Identifier: GPL-2.0
/*
 * Usage: caught [BURSTS [SEED]]
 *
 * Bursts of random length and depth to sockets that nobody reads until the burst is
 * over; a socket in each namespace is full all the time. What was sent, what was taken,
 * and when the first packet was lost is known here, from the sockets themselves.
 * Beside that run what is to notice it: a listener for khealthd's alerts, a poller
 * of what node_exporter and ss read, and drop_monitor. All of it is printed at the
 * end, one line a thing, for caught.py.
 */
#include "bench.h"

#include <linux/inet_diag.h>
#include <linux/net_dropmon.h>

#define VICTIMS		8	/* half of them in a container's namespace */
#define LOW		12	/* percent: the default */
#define MIN_GAP_MS	20000	/* between bursts: each is an event of its own */
#define MAX_GAP_MS	60000

static struct pair victims[VICTIMS], full[2];
static atomic_uint sent;	/* packets of this burst */
static atomic_bool over;
static struct listener listener;

/* xorshift64*: the same bursts for the same seed, everywhere. */
static unsigned long long seed = 1;

static unsigned int between(unsigned int min, unsigned int max)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return min + (unsigned int)(seed * 0x2545f4914f6cdd1dULL >> 33) % (max - min + 1);
}

/* === The truth =========================================================== */

struct burst {
	unsigned int victim, length_ms, packets, size;
	long long begin, end;
	long long below, lost;		/* when first; 0 is never */
	unsigned int below_at, lost_at;	/* after so many packets */
	unsigned int drops;
};

static void observe(struct burst *burst, const struct pair *victim, unsigned int drops)
{
	struct level level = level_of(victim);

	if (!burst->below && is_below(level, LOW)) {
		burst->below = now();
		burst->below_at = sent;
	}
	if (!burst->lost && level.drops != drops) {
		burst->lost = now();
		burst->lost_at = sent;
	}
}

static void do_burst(struct burst *burst)
{
	const struct pair *victim;
	unsigned int percent, drops, i, taken;
	struct level level;

	burst->victim = between(0, VICTIMS - 1);
	burst->length_ms = between(1, 200);
	burst->size = between(64, 1400);
	percent = between(30, 160);
	victim = &victims[burst->victim];
	drops = level_of(victim).drops;

	burst->begin = now();
	sent = 1;
	send_bytes(victim, burst->size);
	level = level_of(victim);
	burst->packets = (unsigned long long)level.capacity * percent / 100 / level.used;
	for (i = 1; i < burst->packets; i++) {
		sleep_until(burst->begin +
			    burst->length_ms * NSEC_PER_MSEC * i / burst->packets);
		sent = i + 1;
		send_bytes(victim, burst->size);
		observe(burst, victim, drops);
	}
	burst->end = now();
	burst->drops = level_of(victim).drops - drops;
	taken = receive_all(victim);
	check(taken + burst->drops == burst->packets, "the socket's own count");
}

static void do_bursts(struct burst *bursts, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		do_burst(&bursts[i]);
		sleep_until(now() + between(MIN_GAP_MS, MAX_GAP_MS) * NSEC_PER_MSEC);
		if (i % 50 == 49)
			fprintf(stderr, "burst %u of %u\n", i + 1, count);
	}
}

static void print_bursts(const struct burst *bursts, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		const struct burst *b = &bursts[i];

		printf("burst victim=%u length_ms=%u size=%u packets=%u begin=%lld end=%lld",
		       b->victim, b->length_ms, b->size, b->packets, b->begin, b->end);
		printf(" below=%lld below_at=%u lost=%lld lost_at=%u drops=%u\n",
		       b->below, b->below_at, b->lost, b->lost_at, b->drops);
	}
}

/* Packets for the sockets that are full. */
static void *full_main(void *argument)
{
	while (!over) {
		send_bytes(&full[0], 512);
		send_bytes(&full[1], 512);
		usleep(500000);
	}
	return argument;
}

/* === Polling ============================================================= */

/* Once a second; whoever polls every ten seconds sees each tenth of these. */
struct poll {
	long long when;
	unsigned long long errors;	/* RcvbufErrors of /proc/net/snmp */
	unsigned int drops[VICTIMS];	/* what "ss -uam" shows of its own namespace */
	bool below[VICTIMS];
};

static struct poll *polls;
static unsigned int poll_count, max_polls;

static unsigned long long rcvbuf_errors(void)
{
	unsigned long long value = 0;
	char line[512];
	FILE *file = fopen("/proc/net/snmp", "r");

	check(file, "/proc/net/snmp");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "Udp: %*u %*u %*u %*u %llu", &value) == 1)
			break;
	fclose(file);
	return value;
}

static void take_socket(struct poll *poll, const struct inet_diag_msg *diag, int len)
{
	unsigned int port = ntohs(diag->id.idiag_sport), i;
	const unsigned int *mem;
	const struct nlattr *a;
	struct level level;

	for_each_attr(a, diag + 1, len - (int)sizeof(*diag)) {
		if (attr_type(a) != INET_DIAG_SKMEMINFO)
			continue;
		mem = attr_data(a);
		level = (struct level){ mem[SK_MEMINFO_RMEM_ALLOC],
					mem[SK_MEMINFO_RCVBUF], mem[SK_MEMINFO_DROPS] };
		for (i = 0; i < VICTIMS / 2; i++) {
			if (victims[i].port != port || diag->id.idiag_dport)
				continue;
			poll->drops[i] = level.drops;
			poll->below[i] = is_below(level, LOW);
		}
	}
}

/* The request of "ss -uam". */
static void ask_sockets(int fd, struct poll *poll)
{
	struct {
		struct nlmsghdr nlh;
		struct inet_diag_req_v2 diag;
	} request = {
		.nlh = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.diag = {
			.sdiag_family = AF_INET,
			.sdiag_protocol = IPPROTO_UDP,
			.idiag_ext = 1 << (INET_DIAG_SKMEMINFO - 1),
			.idiag_states = -1,
		},
	};
	static char buffer[1 << 16];
	const struct nlmsghdr *nlh;
	int len;

	check(send(fd, &request, sizeof(request), 0) == sizeof(request), "sock_diag");
	for (;;) {
		len = recv(fd, buffer, sizeof(buffer), 0);
		check(len > 0, "sock_diag");
		for (nlh = (void *)buffer; NLMSG_OK(nlh, len); nlh = NLMSG_NEXT(nlh, len)) {
			if (nlh->nlmsg_type == NLMSG_DONE)
				return;
			check(nlh->nlmsg_type != NLMSG_ERROR, "sock_diag");
			take_socket(poll, NLMSG_DATA(nlh), NLMSG_PAYLOAD(nlh, 0));
		}
	}
}

static void *poll_main(void *argument)
{
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	long long next = now();
	struct poll *poll;

	check(fd >= 0, "NETLINK_SOCK_DIAG");
	while (!over && poll_count < max_polls) {
		poll = &polls[poll_count];
		poll->when = now();
		poll->errors = rcvbuf_errors();
		ask_sockets(fd, poll);
		poll_count++;
		next += NSEC_PER_SEC;
		sleep_until(next);
	}
	return argument;
}

static void print_polls(void)
{
	unsigned int i, j;

	for (i = 0; i < poll_count; i++) {
		printf("poll time=%lld errors=%llu", polls[i].when, polls[i].errors);
		for (j = 0; j < VICTIMS / 2; j++)
			printf(" %u%s", polls[i].drops[j], polls[i].below[j] ? "!" : "");
		printf("\n");
	}
}

/* === drop_monitor ======================================================== */

static struct drop {
	long long when;
	unsigned int port;
} *drops;
static unsigned int drop_count, max_drops, drops_lost;

/* Return the family's number and that of its group, or 0. */
static int drop_family(int fd, int *group)
{
	struct genl_msg msg;
	const struct nlattr *a;
	int len, id = 0;

	start_request(&msg, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	add_attr(&msg, CTRL_ATTR_FAMILY_NAME, "NET_DM", sizeof("NET_DM"));
	check(!genl_send(fd, &msg), "send");
	len = genl_recv(fd, &msg);
	if (len < 0 || msg.nlh.nlmsg_type != GENL_ID_CTRL)
		return 0;
	for_each_attr(a, msg.attrs, len - NLMSG_LENGTH(GENL_HDRLEN)) {
		if (attr_type(a) == CTRL_ATTR_FAMILY_ID)
			id = attr_num(a);
		if (attr_type(a) == CTRL_ATTR_MCAST_GROUPS)
			*group = find_group(a, "events");
	}
	return id;
}

static void take_drop(const struct genl_msg *msg, int len, long long when)
{
	const unsigned char *packet = NULL;
	const struct nlattr *a;
	bool rcvbuf = false;

	for_each_attr(a, msg->attrs, len - NLMSG_LENGTH(GENL_HDRLEN)) {
		if (attr_type(a) == NET_DM_ATTR_REASON)
			rcvbuf = !strcmp(attr_data(a), "SOCKET_RCVBUFF");
		if (attr_type(a) == NET_DM_ATTR_PAYLOAD && attr_len(a) >= 38)
			packet = attr_data(a);
	}
	/* Ethernet, IPv4, UDP. */
	if (rcvbuf && packet && drop_count < max_drops)
		drops[drop_count++] = (struct drop){ when, packet[36] << 8 | packet[37] };
}

static void *drop_main(void *argument)
{
	int fd = *(int *)argument, len;
	struct genl_msg msg;

	for (;;) {
		len = genl_recv(fd, &msg);
		if (len < 0)
			drops_lost++;
		else if (msg.genl.cmd == NET_DM_CMD_PACKET_ALERT)
			take_drop(&msg, len, now());
	}
	return NULL;
}

/* Return whether the kernel has one. */
static bool start_drop_monitor(void)
{
	static int fd;
	unsigned char mode = NET_DM_ALERT_MODE_PACKET;
	unsigned int truncate = 64;
	struct genl_msg msg;
	int group = 0, family;

	fd = genl_open();
	check(fd >= 0, "netlink");
	family = drop_family(fd, &group);
	if (!family)
		return false;
	drops = calloc(max_drops, sizeof(*drops));
	start_request(&msg, family, NET_DM_CMD_CONFIG, NLM_F_ACK);
	add_attr(&msg, NET_DM_ATTR_ALERT_MODE, &mode, sizeof(mode));
	add_attr(&msg, NET_DM_ATTR_TRUNC_LEN, &truncate, sizeof(truncate));
	check(!genl_send(fd, &msg) && genl_recv(fd, &msg) > 0, "NET_DM_CMD_CONFIG");
	check(!join_group(fd, group), "NET_DM's group");
	start_request(&msg, family, NET_DM_CMD_START, NLM_F_ACK);
	check(!genl_send(fd, &msg) && genl_recv(fd, &msg) > 0, "NET_DM_CMD_START");
	start_thread(drop_main, &fd);
	return true;
}

/* === All of it =========================================================== */

static void open_all(void)
{
	int home = open("/proc/self/ns/net", O_RDONLY);
	unsigned int i;

	for (i = 0; i < VICTIMS; i++) {
		if (i == 0)
			full[0] = open_pair();
		if (i == VICTIMS / 2) {
			new_namespace();
			full[1] = open_pair();
		}
		victims[i] = open_pair();
	}
	check(!setns(home, CLONE_NEWNET), "setns");
	for (i = 0; i < VICTIMS; i++)
		printf("victim port=%u cookie=%llu\n", victims[i].port, victims[i].cookie);
	for (i = 0; i < 2; i++) {
		printf("full port=%u cookie=%llu\n", full[i].port, full[i].cookie);
		while (!level_of(&full[i]).drops)
			send_bytes(&full[i], 512);
	}
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 1 ? atoi(argv[1]) : 1000, i;
	struct burst *bursts = calloc(count, sizeof(*bursts));
	bool drop_monitor;

	seed = argc > 2 ? atoll(argv[2]) : 20;
	max_polls = count * (MAX_GAP_MS / 1000 + 1) + 60;
	max_drops = count * 500;
	polls = calloc(max_polls, sizeof(*polls));
	check(bursts && polls, "calloc");
	start_listener(&listener, count * 8 + 16, &sent);
	open_all();
	drop_monitor = start_drop_monitor();
	start_thread(full_main, NULL);
	start_thread(poll_main, NULL);
	sleep_until(now() + 20 * NSEC_PER_SEC);

	do_bursts(bursts, count);
	over = true;
	sleep_until(now() + 20 * NSEC_PER_SEC);
	print_bursts(bursts, count);
	print_alerts(&listener);
	print_polls();
	printf("drop_monitor %s lost=%u\n", drop_monitor ? "yes" : "no", drops_lost);
	for (i = 0; i < drop_count; i++)
		printf("drop time=%lld port=%u\n", drops[i].when, drops[i].port);
	return 0;
}
