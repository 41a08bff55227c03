// SPDX-License-Identifier: GPL-2.0
/* Sockets, as sock_diag(7) shows them: which inode has the one with this cookie? */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/netlink_diag.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/vm_sockets_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "khealth.h"

struct request {
	struct nlmsghdr header;
	union {
		struct inet_diag_req_v2 inet;
		struct netlink_diag_req netlink;
		struct packet_diag_req packet;
		struct vsock_diag_req vsock;
	};
};

static bool make_request(struct request *r, int family, int protocol,
			 uint16_t port)
{
	size_t len;

	memset(r, 0, sizeof(*r));
	switch (family) {
	case AF_INET:
	case AF_INET6:
		r->inet.sdiag_family = family;
		r->inet.sdiag_protocol = protocol;
		r->inet.idiag_states = ~0u;
		r->inet.idiag_ext = 1 << (INET_DIAG_SKMEMINFO - 1);
		r->inet.id.idiag_sport = htons(port);
		len = sizeof(r->inet);
		break;
	case AF_NETLINK:
		r->netlink.sdiag_family = family;
		r->netlink.sdiag_protocol = NDIAG_PROTO_ALL;
		len = sizeof(r->netlink);
		break;
	case AF_PACKET:
		r->packet.sdiag_family = family;
		len = sizeof(r->packet);
		break;
	case AF_VSOCK:
		r->vsock.sdiag_family = family;
		r->vsock.vdiag_states = ~0u;
		len = sizeof(r->vsock);
		break;
	default:
		return false;
	}
	r->header.nlmsg_len = NLMSG_LENGTH(len);
	r->header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	r->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	return true;
}

static uint64_t cookie_of(const __u32 *cookie)
{
	return cookie[0] | (uint64_t)cookie[1] << 32;
}

static void read_memory(const struct nlmsghdr *h, struct sock_info *s)
{
	struct rtattr *attr = (void *)((char *)NLMSG_DATA(h) +
				       NLMSG_ALIGN(sizeof(struct inet_diag_msg)));
	int left = h->nlmsg_len - NLMSG_LENGTH(sizeof(struct inet_diag_msg));
	__u32 info[SK_MEMINFO_VARS] = { 0 };
	size_t len;

	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left)) {
		if (attr->rta_type != INET_DIAG_SKMEMINFO)
			continue;
		len = RTA_PAYLOAD(attr);
		memcpy(info, RTA_DATA(attr), len < sizeof(info) ? len :
		       sizeof(info));
		s->memory = (uint64_t)info[SK_MEMINFO_RMEM_ALLOC] +
			    info[SK_MEMINFO_WMEM_QUEUED];
	}
}

static bool read_socket(const struct nlmsghdr *h, struct sock_info *s)
{
	size_t len = h->nlmsg_len - NLMSG_HDRLEN;
	union {
		struct inet_diag_msg inet;
		struct netlink_diag_msg netlink;
		struct packet_diag_msg packet;
		struct vsock_diag_msg vsock;
	} m = { 0 };

	memset(s, 0, sizeof(*s));
	if (!len)
		return false;
	memcpy(&m, NLMSG_DATA(h), len < sizeof(m) ? len : sizeof(m));
	/* The family is the first byte of each. */
	s->family = m.inet.idiag_family;
	switch (s->family) {
	case AF_INET:
	case AF_INET6:
		if (len < sizeof(m.inet))
			return false;
		s->cookie = cookie_of(m.inet.id.idiag_cookie);
		s->inode = m.inet.idiag_inode;
		s->uid = m.inet.idiag_uid;
		s->port = ntohs(m.inet.id.idiag_sport);
		read_memory(h, s);
		return true;
	case AF_NETLINK:
		s->cookie = cookie_of(m.netlink.ndiag_cookie);
		s->inode = m.netlink.ndiag_ino;
		return len >= sizeof(m.netlink);
	case AF_PACKET:
		s->cookie = cookie_of(m.packet.pdiag_cookie);
		s->inode = m.packet.pdiag_ino;
		return len >= sizeof(m.packet);
	case AF_VSOCK:
		s->cookie = cookie_of(m.vsock.vdiag_cookie);
		s->inode = m.vsock.vdiag_ino;
		return len >= sizeof(m.vsock);
	default:
		return false;
	}
}

/* 1: go on, 0: it is the end, -1: an error. */
static int read_answer(const void *buf, ssize_t len, sock_fn fn, void *data)
{
	const struct nlmsghdr *h = buf;
	struct sock_info s;

	for (; len >= (ssize_t)sizeof(*h) && NLMSG_OK(h, (size_t)len);
	     h = NLMSG_NEXT(h, len)) {
		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR)
			return -1;
		if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
		    read_socket(h, &s) && !fn(&s, data))
			return 0;
	}
	return 1;
}

/* Call fn for each socket, until it returns false. -1: this cannot be asked. */
int diag_dump(int family, int protocol, uint16_t port, sock_fn fn, void *data)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK }, from;
	struct timeval patience = { .tv_usec = 500000 };
	int fd, more = -1;
	char buf[16384] __attribute__((aligned(8)));
	socklen_t from_len;
	struct request r;
	ssize_t n;

	if (!make_request(&r, family, protocol, port))
		return -1;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (sendto(fd, &r, r.header.nlmsg_len, 0, (void *)&kernel,
		   sizeof(kernel)) > 0)
		more = 1;
	while (more > 0 && facts_time_left()) {
		from_len = sizeof(from);
		n = recvfrom(fd, buf, sizeof(buf), 0, (void *)&from, &from_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			more = -1;
		else if (!from.nl_pid)		/* the kernel's, nobody else's */
			more = read_answer(buf, n, fn, data);
	}
	close(fd);
	return more < 0 ? -1 : 0;
}

struct wanted {
	uint64_t cookie, inode;
};

static bool is_wanted(const struct sock_info *s, void *data)
{
	struct wanted *w = data;

	if (s->cookie != w->cookie)
		return true;
	w->inode = s->inode;
	return false;
}

/* The inode of the alert's socket, in the namespace that we are in; or 0. */
uint64_t diag_inode(const struct alert *a)
{
	struct wanted w = { .cookie = a->num[V_SOCK_COOKIE] };
	int protocol = a->num[V_PROTOCOL];

	if (!known(a, V_SOCK_COOKIE) || !known(a, V_FAMILY))
		return 0;
	if (a->num[V_FAMILY] == AF_INET || a->num[V_FAMILY] == AF_INET6)
		if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP &&
		    protocol != IPPROTO_SCTP && protocol != IPPROTO_UDPLITE)
			protocol = IPPROTO_RAW;
	diag_dump(a->num[V_FAMILY], protocol,
		  protocol == IPPROTO_RAW ? 0 : a->num[V_PORT], is_wanted, &w);
	return w.inode;
}
