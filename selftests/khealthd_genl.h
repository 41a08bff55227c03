/* SPDX-License-Identifier: GPL-2.0 */
/*
 * khealthd's netlink family with nothing but the kernel's headers: find the
 * family, join its group, send requests, and make a line of text of a message.
 *
 * A line is "name=value name=value ...", each name that of a variable in the
 * helper's environment, in lower case and without KHEALTHD_.
 */
#ifndef KHEALTHD_GENL_H
#define KHEALTHD_GENL_H

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/genetlink.h>
#include <linux/khealthd.h>
#include <linux/netlink.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK	270
#endif

#define GENL_BUF	16384

/* A request on its way, or a reply. */
struct genl_msg {
	struct nlmsghdr nlh;
	struct genlmsghdr genl;
	char attrs[GENL_BUF];
};

struct khealthd_family {
	int id;
	int alerts;	/* numbers of the groups */
	int all_alerts;
};

/* === Attributes =========================================================== */

/* Walk @len bytes of attributes; those that do not fit end the walk. */
#define for_each_attr(a, first, len)					\
	for (const char *_end = (const char *)(first) + (len),		\
	     *_at = (const char *)(first);				\
	     (a = (const struct nlattr *)_at),				\
	     _end - _at >= NLA_HDRLEN && a->nla_len >= NLA_HDRLEN &&	\
	     a->nla_len <= _end - _at;					\
	     _at += NLA_ALIGN(a->nla_len))

static inline const void *attr_data(const struct nlattr *a)
{
	return (const char *)a + NLA_HDRLEN;
}

static inline int attr_len(const struct nlattr *a)
{
	return a->nla_len - NLA_HDRLEN;
}

static inline int attr_type(const struct nlattr *a)
{
	return a->nla_type & NLA_TYPE_MASK;
}

/* A number of whatever size: a "uint" has 4 bytes or 8. */
static inline unsigned long long attr_num(const struct nlattr *a)
{
	unsigned long long u64 = 0;
	unsigned int u32 = 0;
	unsigned short u16 = 0;

	switch (attr_len(a)) {
	case 8:
		memcpy(&u64, attr_data(a), 8);
		return u64;
	case 4:
		memcpy(&u32, attr_data(a), 4);
		return u32;
	case 2:
		memcpy(&u16, attr_data(a), 2);
		return u16;
	}
	return 0;
}

static inline void add_attr(struct genl_msg *msg, int type, const void *data,
			    size_t len)
{
	struct nlattr *a = (void *)&msg->nlh + NLMSG_ALIGN(msg->nlh.nlmsg_len);

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy((char *)a + NLA_HDRLEN, data, len);
	msg->nlh.nlmsg_len = NLMSG_ALIGN(msg->nlh.nlmsg_len) +
			     NLA_ALIGN(a->nla_len);
}

/* === Sockets ============================================================== */

static inline int genl_open(void)
{
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
	int on = 1;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on))) {
		close(fd);
		return -errno;
	}
	return fd;
}

static inline void start_request(struct genl_msg *msg, int family, int cmd,
				 int flags)
{
	memset(msg, 0, sizeof(*msg));
	msg->nlh.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	msg->nlh.nlmsg_type = family;
	msg->nlh.nlmsg_flags = NLM_F_REQUEST | flags;
	msg->genl.cmd = cmd;
	msg->genl.version = 1;
}

static inline int genl_send(int fd, const struct genl_msg *msg)
{
	return send(fd, msg, msg->nlh.nlmsg_len, 0) < 0 ? -errno : 0;
}

/* Receive one datagram. Return its length, or -errno. */
static inline int genl_recv(int fd, struct genl_msg *msg)
{
	ssize_t len = recv(fd, msg, sizeof(*msg), 0);

	return len < 0 ? -errno : len;
}

static inline int find_group(const struct nlattr *groups, const char *name)
{
	const struct nlattr *group, *a;

	for_each_attr(group, attr_data(groups), attr_len(groups)) {
		const char *found = "";
		int id = 0;

		for_each_attr(a, attr_data(group), attr_len(group)) {
			if (attr_type(a) == CTRL_ATTR_MCAST_GRP_NAME)
				found = attr_data(a);
			if (attr_type(a) == CTRL_ATTR_MCAST_GRP_ID)
				id = attr_num(a);
		}
		if (!strcmp(found, name))
			return id;
	}
	return 0;
}

/* Numbers of families and groups are given out at boot: ask for them. */
static inline int find_family(int fd, struct khealthd_family *family)
{
	struct genl_msg msg;
	const struct nlattr *a;
	int err, len;

	memset(family, 0, sizeof(*family));
	start_request(&msg, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	add_attr(&msg, CTRL_ATTR_FAMILY_NAME, KHEALTHD_FAMILY_NAME,
		 sizeof(KHEALTHD_FAMILY_NAME));
	err = genl_send(fd, &msg);
	if (err)
		return err;
	len = genl_recv(fd, &msg);
	if (len < 0)
		return len;
	if (msg.nlh.nlmsg_type != GENL_ID_CTRL)
		return -ENOENT;
	for_each_attr(a, msg.attrs, len - NLMSG_LENGTH(GENL_HDRLEN)) {
		if (attr_type(a) == CTRL_ATTR_FAMILY_ID)
			family->id = attr_num(a);
		if (attr_type(a) == CTRL_ATTR_MCAST_GROUPS) {
			family->alerts = find_group(a, KHEALTHD_MCGRP_ALERTS);
			family->all_alerts =
				find_group(a, KHEALTHD_MCGRP_ALL_ALERTS);
		}
	}
	return family->id && family->alerts && family->all_alerts ? 0 : -ENOENT;
}

/* Join the group of this network namespace, or that of all alerts. */
static inline int join_group(int fd, int group)
{
	return setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group,
			  sizeof(group)) ? -errno : 0;
}

/* === A line of text ======================================================= */

struct attr_desc {
	const char *name;
	enum { NUM, TEXT, EVENT, STATE, NEST } kind;
	const struct attr_desc *nest;	/* an array of ATTR_DESCS */
};

#define ATTR_DESCS	16

static const struct attr_desc level_descs[ATTR_DESCS] = {
	[KHEALTHD_A_LEVEL_FREE]		= { "free" },
	[KHEALTHD_A_LEVEL_CAPACITY]	= { "capacity" },
	[KHEALTHD_A_LEVEL_NETNS_COOKIE]	= { "netns_cookie" },
	[KHEALTHD_A_LEVEL_SOCK_COOKIE]	= { "sock_cookie" },
	[KHEALTHD_A_LEVEL_CGROUP]	= { "cgroup" },
	[KHEALTHD_A_LEVEL_CPU]		= { "cpu" },
	[KHEALTHD_A_LEVEL_NODE]		= { "node" },
	[KHEALTHD_A_LEVEL_IFINDEX]	= { "ifindex" },
	[KHEALTHD_A_LEVEL_NETNS]	= { "netns" },
	[KHEALTHD_A_LEVEL_FAMILY]	= { "family" },
	[KHEALTHD_A_LEVEL_PROTOCOL]	= { "protocol" },
	[KHEALTHD_A_LEVEL_PORT]		= { "port" },
	[KHEALTHD_A_LEVEL_UID]		= { "uid" },
};

static const struct attr_desc alert_descs[ATTR_DESCS] = {
	[KHEALTHD_A_ALERT_CODE]		= { "code" },
	[KHEALTHD_A_ALERT_MONITOR]	= { "monitor", TEXT },
	[KHEALTHD_A_ALERT_UNIT]		= { "unit", TEXT },
	[KHEALTHD_A_ALERT_EVENT]	= { "event", EVENT },
	[KHEALTHD_A_ALERT_STATE]	= { "state", STATE },
	[KHEALTHD_A_ALERT_SEQ]		= { "seq" },
	[KHEALTHD_A_ALERT_LOW]		= { "low" },
	[KHEALTHD_A_ALERT_HIGH]		= { "high" },
	[KHEALTHD_A_ALERT_CROSSINGS]	= { "crossings" },
	[KHEALTHD_A_ALERT_CROSSINGS_OTHERS] = { "crossings_others" },
	[KHEALTHD_A_ALERT_REFUSED]	= { "refused" },
	[KHEALTHD_A_ALERT_OTHERS]	= { "others" },
	[KHEALTHD_A_ALERT_DURATION_MS]	= { "duration_ms" },
	[KHEALTHD_A_ALERT_LEVEL]	= { "", NEST, level_descs },
};

static inline const char *event_name(unsigned long long event)
{
	static const char * const names[] = {
		[KHEALTHD_EVENT_LOW]		= "low",
		[KHEALTHD_EVENT_EXHAUSTED]	= "exhausted",
		[KHEALTHD_EVENT_REPEAT]		= "repeat",
		[KHEALTHD_EVENT_RECOVERED]	= "recovered",
		[KHEALTHD_EVENT_TEST]		= "test",
	};

	return event && event <= KHEALTHD_EVENT_TEST ? names[event] : "unknown";
}

static inline const char *state_name(unsigned long long state)
{
	static const char * const names[] = {
		[KHEALTHD_STATE_OFF]		= "off",
		[KHEALTHD_STATE_OK]		= "ok",
		[KHEALTHD_STATE_LOW]		= "low",
		[KHEALTHD_STATE_EXHAUSTED]	= "exhausted",
	};

	return state <= KHEALTHD_STATE_EXHAUSTED ? names[state] : "unknown";
}

/* Add to @text. What this program does not know, a later kernel does: skip it. */
static inline void describe(const void *attrs, int len,
			    const struct attr_desc *descs, char *text,
			    size_t size)
{
	const struct attr_desc *desc;
	const struct nlattr *a;
	size_t used;

	for_each_attr(a, attrs, len) {
		if (attr_type(a) >= ATTR_DESCS || !descs[attr_type(a)].name)
			continue;
		desc = &descs[attr_type(a)];
		used = strlen(text);
		switch (desc->kind) {
		case NUM:
			snprintf(text + used, size - used, "%s%s=%llu",
				 used ? " " : "", desc->name, attr_num(a));
			break;
		case TEXT:
			snprintf(text + used, size - used, "%s%s=%.*s",
				 used ? " " : "", desc->name, attr_len(a),
				 (const char *)attr_data(a));
			break;
		case EVENT:
			snprintf(text + used, size - used, "%s%s=%s",
				 used ? " " : "", desc->name,
				 event_name(attr_num(a)));
			break;
		case STATE:
			snprintf(text + used, size - used, "%s%s=%s",
				 used ? " " : "", desc->name,
				 state_name(attr_num(a)));
			break;
		case NEST:
			describe(attr_data(a), attr_len(a), desc->nest, text,
				 size);
			break;
		}
	}
}

/*
 * Wait for the next alert and make a line of it. Return 0, -ENOBUFS if alerts
 * were lost because this socket's buffer was full, or another error.
 */
static inline int next_alert(int fd, const struct khealthd_family *family,
			     char *text, size_t size)
{
	struct genl_msg msg;
	int len;

	do {
		len = genl_recv(fd, &msg);
		if (len < 0)
			return len;
	} while (msg.nlh.nlmsg_type != family->id ||
		 msg.genl.cmd != KHEALTHD_CMD_ALERT);
	text[0] = '\0';
	describe(msg.attrs, len - NLMSG_LENGTH(GENL_HDRLEN), alert_descs, text,
		 size);
	return 0;
}

#endif /* KHEALTHD_GENL_H */
