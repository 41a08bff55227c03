// SPDX-License-Identifier: GPL-2.0
/* What is usually turned, and its value today. */
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "khealth.h"

static const struct knob {
	const char *monitor;
	int of;				/* a protocol or a family; 0: any */
	const char *name, *meaning;
} knobs[] = {
	{ "skb_alloc", 0, "vm.min_free_kbytes",
	  "a larger one keeps more for receiving" },
	{ "skb_alloc", 0, "vm.watermark_scale_factor",
	  "a larger one wakes reclaim earlier" },
	{ "backlog", 0, "net.core.netdev_max_backlog",
	  "the queue's length in packets" },
	{ "backlog", 0, "net.core.netdev_budget",
	  "packets that are worked on in one go" },
	{ "backlog", 0, "net.core.netdev_budget_usecs",
	  "and the time that this may take" },
	{ "proto_mem", IPPROTO_TCP, "net.ipv4.tcp_mem",
	  "low, pressure and limit, in pages; the second counts" },
	{ "proto_mem", IPPROTO_UDP, "net.ipv4.udp_mem",
	  "low, pressure and limit, in pages; the first counts" },
	{ "proto_mem", IPPROTO_SCTP, "net.sctp.sctp_mem",
	  "low, pressure and limit, in pages; the second counts" },
	{ "sock_rcvbuf", 0, "net.core.rmem_default",
	  "what a socket gets that asks for nothing" },
	{ "sock_rcvbuf", 0, "net.core.rmem_max",
	  "the most that a program can ask for (SO_RCVBUF)" },
	{ "tcp_rcvbuf", 0, "net.ipv4.tcp_rmem",
	  "least, first, and largest size in bytes" },
	{ "tcp_rcvbuf", 0, "net.core.rmem_max",
	  "the most that a program can ask for (SO_RCVBUF)" },
	{ "accept_queue", 0, "net.core.somaxconn",
	  "the most that listen() can ask for" },
	{ "accept_queue", 0, "net.ipv4.tcp_abort_on_overflow",
	  "1 tells a client that is turned away at once" },
	{ "conntrack", 0, "net.netfilter.nf_conntrack_max",
	  "the most entries of a network namespace" },
	{ "conntrack", 0, "net.netfilter.nf_conntrack_buckets",
	  "an eighth to all of it, or it gets slow" },
	{ "conntrack", 0, "net.netfilter.nf_conntrack_tcp_timeout_established",
	  "seconds that a silent connection is kept" },
	{ "neighbour", AF_INET, "net.ipv4.neigh.default.gc_thresh3",
	  "the most entries, of IPv4" },
	{ "neighbour", AF_INET, "net.ipv4.neigh.default.gc_thresh2",
	  "as many are kept for longer than 5 s; half of it" },
	{ "neighbour", AF_INET6, "net.ipv6.neigh.default.gc_thresh3",
	  "the most entries, of IPv6" },
	{ "neighbour", AF_INET6, "net.ipv6.neigh.default.gc_thresh2",
	  "as many are kept for longer than 5 s; half of it" },
	{ "reassembly", AF_INET, "net.ipv4.ipfrag_high_thresh",
	  "the most memory in bytes, of IPv4" },
	{ "reassembly", AF_INET, "net.ipv4.ipfrag_time",
	  "seconds that the rest of a packet is waited for" },
	{ "reassembly", AF_INET6, "net.ipv6.ip6frag_high_thresh",
	  "the most memory in bytes, of IPv6" },
	{ "reassembly", AF_INET6, "net.netfilter.nf_conntrack_frag6_high_thresh",
	  "the same where IPv6 connections are tracked" },
	{ "reassembly", AF_INET6, "net.ipv6.ip6frag_time",
	  "seconds that the rest of a packet is waited for" },
	{ "files", 0, "fs.file-max", "the limit" },
	{ "threads", 0, "kernel.threads-max", "the limit of tasks" },
	{ "threads", 0, "kernel.pid_max", "and that of their numbers" },
};

/* As it is in that namespace; or, if it is nobody's own, in ours. */
static bool read_knob(const char *path, int netns, char *buf, size_t size)
{
	int back = netns_enter(netns);
	bool found = back >= 0 && first_line(path, buf, size);

	netns_leave(back);
	return found || first_line(path, buf, size);
}

static void print_knob(FILE *out, const char *name, const char *meaning, int netns)
{
	char path[128], value[128], *c;

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	for (c = path + strlen("/proc/sys/"); *c; c++)
		if (*c == '.')
			*c = '/';
	if (read_knob(path, netns, value, sizeof(value)))
		fprintf(out, "  %s = %s\n      %s\n", name, value, meaning);
}

void print_knobs(FILE *out, const struct alert *a, int netns)
{
	const char *monitor = a->word[V_MONITOR];
	char name[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		const struct knob *k = &knobs[i];

		if (strcmp(k->monitor, monitor))
			continue;
		if (k->of && (known(a, V_PROTOCOL) || known(a, V_FAMILY)) &&
		    k->of != (int)a->num[V_PROTOCOL] &&
		    k->of != (int)a->num[V_FAMILY])
			continue;
		print_knob(out, k->name, k->meaning, netns);
	}
	snprintf(name, sizeof(name), "kernel.khealthd.%.32s", monitor);
	print_knob(out, name,
		   "LOW HIGH in percent: where an alert begins and ends", -1);
}
