// SPDX-License-Identifier: GPL-2.0
/* What codes and numbers mean, in words. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "khealth.h"

const char *family_word(const struct alert *a, char *buf, size_t size)
{
	static const struct {
		unsigned int family;
		const char *word;
	} words[] = {
		{ AF_INET, "IPv4" }, { AF_INET6, "IPv6" },
		{ AF_NETLINK, "netlink" }, { AF_PACKET, "packet" },
		{ AF_CAN, "CAN" }, { AF_VSOCK, "vsock" },
		{ AF_BLUETOOTH, "bluetooth" }, { AF_IEEE802154, "6LoWPAN" },
	};
	size_t i;

	buf[0] = '\0';
	if (!known(a, V_FAMILY))
		return buf;
	snprintf(buf, size, "family %s", a->word[V_FAMILY]);
	for (i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].family == a->num[V_FAMILY])
			copy(buf, size, words[i].word);
	return buf;
}

static const char *netlink_protocol(uint64_t protocol)
{
	static const char *const words[] = {
		[0] = "route", [2] = "user", [4] = "sock_diag", [5] = "nflog",
		[6] = "xfrm", [7] = "selinux", [8] = "iscsi", [9] = "audit",
		[10] = "fib_lookup", [11] = "connector", [12] = "netfilter",
		[15] = "kobject_uevent", [16] = "generic", [18] = "scsitransport",
		[20] = "rdma", [21] = "crypto",
	};

	return protocol < ARRAY_SIZE(words) ? words[protocol] : NULL;
}

const char *protocol_word(const struct alert *a, char *buf, size_t size)
{
	uint64_t protocol = a->num[V_PROTOCOL], family = a->num[V_FAMILY];
	const char *word = NULL;

	buf[0] = '\0';
	if (!known(a, V_PROTOCOL) ||
	    (known(a, V_FAMILY) && family != AF_NETLINK && family != AF_INET &&
	     family != AF_INET6))
		return buf;
	if (family == AF_NETLINK) {
		word = netlink_protocol(protocol);
	} else {
		switch (protocol) {
		case IPPROTO_ICMP:
			word = "ICMP";
			break;
		case IPPROTO_TCP:
			word = "TCP";
			break;
		case IPPROTO_UDP:
			word = "UDP";
			break;
		case IPPROTO_FRAGMENT:
			word = "IPv6-Frag";
			break;
		case IPPROTO_ICMPV6:
			word = "ICMPv6";
			break;
		case IPPROTO_SCTP:
			word = "SCTP";
			break;
		case IPPROTO_RAW:
			word = "raw";
			break;
		}
	}
	if (word)
		copy(buf, size, word);
	else
		snprintf(buf, size, "protocol %s", a->word[V_PROTOCOL]);
	return buf;
}

static const struct monitor_words {
	const char *name, *what, *advice;
	const char *lost;		/* what is refused, if not a packet */
	const char *meaning;		/* what that does, whoever it is */
} monitors[] = {
	{
		.name = "skb_alloc",
		.what = "the memory reserve that packets are received with",
		.advice =
			"Memory for packets runs out: what eats it up? A larger reserve: vm.min_free_kbytes.",
		.lost = "allocation",
	},
	{
		.name = "backlog",
		.what = "a CPU's queue of received packets",
		.advice =
			"One CPU gets more than it can work on. Spread it (RPS, RSS), or take in longer bursts: net.core.netdev_max_backlog.",
	},
	{
		.name = "proto_mem",
		.what = "the memory of a protocol's sockets",
		.advice =
			"All sockets of a protocol together hold too much. Who holds most of it: khealth explain proto_mem.",
	},
	{
		.name = "sock_rcvbuf",
		.what = "the receive buffer of a socket",
		.advice =
			"The program does not read fast enough: is it stopped, stuck, starved of CPU? If it is only the bursts, a larger buffer: net.core.rmem_max and SO_RCVBUF, or net.core.rmem_default.",
	},
	{
		.name = "tcp_rcvbuf",
		.what = "the receive buffer of a TCP socket",
		.advice =
			"The program does not read fast enough. The third number of net.ipv4.tcp_rmem is the limit.",
	},
	{
		.name = "packet_ring",
		.what = "the ring of a packet socket",
		.advice =
			"The program that captures packets is too slow: a larger ring (tcpdump -B), a filter, more threads.",
	},
	{
		.name = "accept_queue",
		.what = "the queue of connections that wait for accept()",
		.advice =
			"The program does not accept connections fast enough: is it stopped, stuck, starved of CPU? If it is only the bursts, a longer queue: what it gives to listen() (its setting is often called backlog), up to net.core.somaxconn. ss -ltn shows both.",
		.lost = "connection",
		.meaning =
			"Clients that find no room wait and try again, and some believe that they are connected: the service seems slow or dead.",
	},
	{
		.name = "conntrack",
		.what = "the table of tracked connections",
		.advice =
			"What fills it: conntrack -L (in that network namespace). A larger one: net.netfilter.nf_conntrack_max; shorter time-outs (nf_conntrack_tcp_timeout_established); no tracking for what needs none (notrack).",
		.meaning =
			"When it is full, new connections through this network namespace fail. Those that are known go on.",
	},
	{
		.name = "neighbour",
		.what = "the table of neighbours (ARP, NDP)",
		.advice =
			"A large flat network, many containers, or a scan: ip neigh shows them. All network namespaces share the table: gc_thresh3 of neigh.default is its size, gc_thresh2 what is kept of it.",
		.meaning =
			"When it is full, machines and containers that are not in it yet cannot be reached.",
	},
	{
		.name = "reassembly",
		.what = "the memory for fragments of packets",
		.advice =
			"Fragments get lost on the way, or somebody sends many. Smaller datagrams or a larger MTU make less of them; the limits are net.ipv4.ipfrag_high_thresh and net.ipv6.ip6frag_high_thresh.",
		.lost = "fragment",
		.meaning =
			"A packet that lacks a fragment is lost as a whole: large UDP datagrams, as of NFS, robots (DDS) and DNS.",
	},
	{
		.name = "files",
		.what = "the machine's table of open files",
		.advice = "Which program has so many: lsof. fs.file-max is the limit.",
		.lost = "file",
		.meaning =
			"When it is full, open(), socket() and accept() fail for everybody but root (ENFILE).",
	},
	{
		.name = "threads",
		.what = "the machine's table of tasks",
		.advice =
			"Which program has so many: ps -eLf. The limits are kernel.threads-max and kernel.pid_max; a limit for one service is TasksMax=.",
		.lost = "task",
		.meaning =
			"When it is full, no program can be started (EAGAIN): no login, no cron, no helper of khealthd's either.",
	},
};

static const struct monitor_words *find(const char *monitor)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(monitors); i++)
		if (!strcmp(monitors[i].name, monitor))
			return &monitors[i];
	return NULL;
}

const char *monitor_what(const char *monitor)
{
	const struct monitor_words *m = find(monitor);

	return m ? m->what : monitor;
}

const char *monitor_advice(const char *monitor)
{
	const struct monitor_words *m = find(monitor);

	return m ? m->advice : NULL;
}

/* What is refused: packets, mostly. */
const char *monitor_lost(const struct alert *a)
{
	const struct monitor_words *m = find(a->word[V_MONITOR]);

	if (a->num[V_FAMILY] == AF_NETLINK)
		return "message";
	return m && m->lost ? m->lost : "packet";
}

/* What becomes of it. */
const char *monitor_fate(const struct alert *a)
{
	const struct monitor_words *m = find(a->word[V_MONITOR]);

	return m && m->meaning ? "refused" : "lost";
}

static const struct {
	unsigned int family, protocol, port;	/* 0: any; protocol of netlink + 1 */
	const char *text;
} meanings[] = {
	{ AF_NETLINK, 9 + 1, 0,
	  "Audit records of the kernel: what is lost is in no log (auditctl -s counts it)." },
	{ AF_NETLINK, 0 + 1, 0,
	  "Changes of links, addresses and routes: after a loss the program's picture of the network is wrong, until it asks for all of it again (ENOBUFS). A routing daemon may route by it."
	},
	{ AF_NETLINK, 15 + 1, 0,
	  "Events of devices: after a loss some may not have been set up (udevadm trigger)." },
	{ AF_NETLINK, 12 + 1, 0,
	  "Messages of netfilter: connection tracking, logged or queued packets. What is lost does not come again."
	},
	{ AF_NETLINK, 0, 0,
	  "Messages of the kernel: what is lost does not come again. The program is told by ENOBUFS."
	},
	{ AF_PACKET, 0, 0,
	  "Captured packets: the traffic itself is unharmed, but what the program sees of it has holes."
	},
	{ AF_CAN, 0, 0, "Frames of a CAN bus: they do not come again." },
	{ 0, IPPROTO_TCP, 0,
	  "TCP: the sender waits and sends again. It gets slow, but nothing is lost." },
	{ 0, IPPROTO_UDP, 53,
	  "DNS: who asked waits for seconds and asks again. Everything seems slow." },
	{ 0, IPPROTO_UDP, 67, "DHCP: machines may not get an address." },
	{ 0, IPPROTO_UDP, 123, "NTP: clocks drift until the next answer." },
	{ 0, IPPROTO_UDP, 161, "SNMP: after a loss the monitoring has gaps." },
	{ 0, IPPROTO_UDP, 162, "SNMP traps: what is lost does not come again." },
	{ 0, IPPROTO_UDP, 443, "QUIC: the sender sends again. It gets slow." },
	{ 0, IPPROTO_UDP, 500, "IKE: tunnels may not come up." },
	{ 0, IPPROTO_UDP, 514, "Syslog: a line that is lost is lost for good." },
	{ 0, IPPROTO_UDP, 1813, "RADIUS accounting: it may not come again." },
	{ 0, IPPROTO_UDP, 1900,
	  "SSDP (discovery), which is often read by nobody: then it hurts nobody." },
	{ 0, IPPROTO_UDP, 2055, "NetFlow: after a loss the traffic's statistics have holes." },
	{ 0, IPPROTO_UDP, 3784, "BFD: links may be taken for dead." },
	{ 0, IPPROTO_UDP, 4739, "IPFIX: after a loss the traffic's statistics have holes." },
	{ 0, IPPROTO_UDP, 4789, "VXLAN: the packets of other machines." },
	{ 0, IPPROTO_UDP, 5353,
	  "mDNS (discovery), which is often read by nobody: then it hurts nobody." },
	{ 0, IPPROTO_UDP, 6343, "sFlow: after a loss the traffic's statistics have holes." },
	{ 0, IPPROTO_UDP, 8125, "StatsD: after a loss the numbers are too low." },
	{ 0, IPPROTO_UDP, 0,
	  "UDP: what is lost is lost, unless the program has its own way to ask for it again." },
};

/* What it means, for this kind of listener if there is one, or NULL. */
const char *meaning(const struct alert *a)
{
	uint64_t family = a->num[V_FAMILY], protocol = a->num[V_PROTOCOL];
	const struct monitor_words *m = find(a->word[V_MONITOR]);
	size_t i;

	if (m && m->meaning)
		return m->meaning;
	if (!known(a, V_FAMILY))
		return NULL;
	if (family == AF_INET || family == AF_INET6)
		family = 0;
	else
		protocol++;
	for (i = 0; i < ARRAY_SIZE(meanings); i++) {
		if (meanings[i].family != family ||
		    (meanings[i].protocol && meanings[i].protocol != protocol) ||
		    (meanings[i].port && meanings[i].port != a->num[V_PORT]))
			continue;
		return meanings[i].text;
	}
	return NULL;
}

/* Who in a few words, for a subject, a log line, a line of a table. */
void who_words(const struct alert *a, const struct facts *f, char *buf,
	       size_t size)
{
	const char *service = f->holder.unit[0] ? f->holder.unit :
						  f->made_in_unit;
	char family[32], protocol[32];
	FILE *out = fmemopen(buf, size, "w");
	bool inet = a->num[V_FAMILY] == AF_INET || a->num[V_FAMILY] == AF_INET6;

	buf[0] = '\0';
	if (!out)
		return;
	family_word(a, family, sizeof(family));
	protocol_word(a, protocol, sizeof(protocol));
	if (known(a, V_PORT))
		fprintf(out, ", %s port %s", protocol, a->word[V_PORT]);
	else if (protocol[0] && (inet || !family[0]))
		fprintf(out, ", %s", protocol);
	else if (family[0])
		fprintf(out, ", %s%s%s%s", family, protocol[0] ? " " : "",
			protocol, known(a, V_SOCK_COOKIE) ? " socket" : "");
	if (f->interface[0])
		fprintf(out, ", %s", f->interface);
	if (known(a, V_CPU))
		fprintf(out, ", CPU %s", a->word[V_CPU]);
	if (known(a, V_NODE))
		fprintf(out, ", node %s", a->word[V_NODE]);
	if (f->netns_name[0] && strcmp(f->netns_name, "initial"))
		fprintf(out, ", netns %s", f->netns_name);
	if (f->holder.container[0])
		fprintf(out, ", %s", f->holder.container);
	if (service[0])
		fprintf(out, ", %s", service);
	/* A user's manager says whose it is, but not what. */
	if (f->holder.comm[0] && (!service[0] || !strncmp(service, "user@", 5)))
		fprintf(out, ", %s", f->holder.comm);
	fputc('\0', out);
	fclose(out);
	buf[size - 1] = '\0';
	if (!strncmp(buf, ", ", 2))
		memmove(buf, buf + 2, strlen(buf + 2) + 1);
}

void level_words(const struct alert *a, char *buf, size_t size)
{
	uint64_t free = a->num[V_FREE], capacity = a->num[V_CAPACITY];
	int n;

	buf[0] = '\0';
	if (!known(a, V_FREE) || !known(a, V_CAPACITY))
		return;
	n = snprintf(buf, size, "%s of %s %s free", a->word[V_FREE],
		     a->word[V_CAPACITY], a->word[V_UNIT]);
	if (capacity && free < UINT64_MAX / 100 && n < (int)size)
		snprintf(buf + n, size - n, " (%llu %%)",
			 (unsigned long long)(free * 100 / capacity));
}

void duration_words(uint64_t ms, char *buf, size_t size)
{
	unsigned long long s = ms / 1000;

	if (s < 120)
		snprintf(buf, size, "%llu.%llu s", s, ms % 1000 / 100ull);
	else if (s < 7200)
		snprintf(buf, size, "%llu min %llu s", s / 60, s % 60);
	else if (s < 2 * 86400)
		snprintf(buf, size, "%llu h %llu min", s / 3600, s / 60 % 60);
	else
		snprintf(buf, size, "%llu days %llu h", s / 86400,
			 s / 3600 % 24);
}
