// SPDX-License-Identifier: GPL-2.0
/* The kernel's netlink family, by YNL; its levels and episodes as our alerts. */
#include <linux/khealthd.h>
#include <stdlib.h>
#include <string.h>
#include <ynl.h>

#include "khealthd-user.h"
#include "khealth.h"

struct ynl_sock *kernel_open(char *why, size_t size)
{
	struct ynl_error err = { 0 };
	struct ynl_sock *ys = ynl_sock_create(&ynl_khealthd_family, &err);

	if (!ys)
		snprintf(why, size,
			 "this kernel has no khealthd (CONFIG_KHEALTHD): %s",
			 err.msg);
	return ys;
}

const char *state_word(unsigned int state)
{
	const char *word = khealthd_state_str(state);

	return word ? word : "unknown";
}

void alert_set_level(struct alert *a, const struct khealthd_level *l)
{
	alert_set_if(a, V_FREE, l, free);
	alert_set_if(a, V_CAPACITY, l, capacity);
	alert_set_if(a, V_NETNS_COOKIE, l, netns_cookie);
	alert_set_if(a, V_SOCK_COOKIE, l, sock_cookie);
	alert_set_if(a, V_CGROUP, l, cgroup);
	alert_set_if(a, V_CPU, l, cpu);
	alert_set_if(a, V_NODE, l, node);
	alert_set_if(a, V_IFINDEX, l, ifindex);
	alert_set_if(a, V_NETNS, l, netns);
	alert_set_if(a, V_FAMILY, l, family);
	alert_set_if(a, V_PROTOCOL, l, protocol);
	alert_set_if(a, V_PORT, l, port);
	alert_set_if(a, V_UID, l, uid);
}

void alert_set_episode(struct alert *a, const struct khealthd_monitor_get_rsp *m,
		       const struct khealthd_episode *e)
{
	memset(a, 0, sizeof(*a));
	a->time = time(NULL);
	alert_set_num(a, V_CODE, m->code);
	alert_set(a, V_MONITOR, m->name ? m->name : "unknown");
	alert_set(a, V_UNIT, m->unit ? m->unit : "units");
	alert_set(a, V_STATE, state_word(e->state));
	if (m->_present.low)
		alert_set_num(a, V_LOW, m->low);
	if (m->_present.high)
		alert_set_num(a, V_HIGH, m->high);
	alert_set_num(a, V_CROSSINGS, e->crossings);
	alert_set_num(a, V_REFUSED, e->refused);
	alert_set_num(a, V_DURATION_MS, e->duration_ms);
	a->begin = a->time - (time_t)(e->duration_ms / 1000);
	if (e->_present.level)
		alert_set_level(a, &e->level);
}
