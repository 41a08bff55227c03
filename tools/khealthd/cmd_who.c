// SPDX-License-Identifier: GPL-2.0
/* khealth who COOKIE: which program holds this socket? */
#include <json-c/json.h>
#include <linux/khealthd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ynl.h>

#include "khealthd-user.h"
#include "khealth.h"

/* If it is short now, the kernel knows more of it than its cookie. */
static void from_episodes(struct alert *a)
{
	struct khealthd_monitor_get_list *list;
	struct ynl_sock *ys;
	unsigned int i;
	char why[300];

	ys = kernel_open(why, sizeof(why));
	list = ys ? khealthd_monitor_get_dump(ys) : NULL;
	if (list) {
		ynl_dump_foreach(list, m)
			for (i = 0; i < m->NR_EPISODES; i++)
				if (m->episode[i].level.sock_cookie ==
				    a->num[V_SOCK_COOKIE])
					alert_set_episode(a, m, &m->episode[i]);
		khealthd_monitor_get_list_free(list);
	}
	if (ys)
		ynl_sock_destroy(ys);
}

static void row(const char *name, const char *value)
{
	if (value && *value)
		printf("%-11s%s\n", name, value);
}

int cmd_who(int argc, char **argv)
{
	bool as_json = argc > 2 && !strcmp(argv[2], "--json");
	struct message m = { 0 };
	struct json_object *o;
	struct alert a = { 0 };
	struct facts f;
	char pid[64];

	if (argc != 2 + as_json || !alert_set(&a, V_SOCK_COOKIE, argv[1]))
		return nothing_to_do("who wants a socket's cookie, a number: as alerts and\n"
				     "status have it, and ss -e in hexadecimal");
	conf_read();
	from_episodes(&a);
	facts_bounded(&a, &f, 5000);
	if (!f.holder.pid)
		return nothing_to_do("no process was found that holds socket %s%s",
				     argv[1], geteuid() ?
				     "; root sees those of other users" : "");
	if (as_json) {
		o = facts_json(&a, &f, &m);
		puts(json_text(o));
		json_object_put(o);
		return 0;
	}
	snprintf(pid, sizeof(pid), "%s (pid %d)", f.holder.comm, f.holder.pid);
	row("Process", pid);
	row("It is", proc_state_word(f.holder.state));
	row("Command", f.holder.cmdline);
	row("Container", f.holder.container);
	row("Service", f.holder.unit);
	row("Cgroup", f.holder.cgroup);
	row("Made in", f.made_in);
	return 0;
}
