// SPDX-License-Identifier: GPL-2.0
/* khealth watch: a line for each alert, as it comes. */
#include <errno.h>
#include <json-c/json.h>
#include <linux/khealthd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ynl.h>

#include "khealthd-user.h"
#include "khealth.h"

static void from_netlink(struct alert *a, const struct khealthd_alert_rsp *r)
{
	const char *event = khealthd_event_str(r->event);

	memset(a, 0, sizeof(*a));
	a->time = time(NULL);
	a->begin = a->time - (time_t)(r->duration_ms / 1000);
	alert_set_num(a, V_CODE, r->code);
	if (r->monitor)
		alert_set(a, V_MONITOR, r->monitor);
	if (r->unit)
		alert_set(a, V_UNIT, r->unit);
	alert_set(a, V_EVENT, event ? event : "unknown");
	if (r->_present.state)
		alert_set(a, V_STATE, state_word(r->state));
	alert_set_if(a, V_SEQ, r, seq);
	alert_set_if(a, V_LOW, r, low);
	alert_set_if(a, V_HIGH, r, high);
	alert_set_if(a, V_CROSSINGS, r, crossings);
	alert_set_if(a, V_CROSSINGS_OTHERS, r, crossings_others);
	alert_set_if(a, V_REFUSED, r, refused);
	alert_set_if(a, V_OTHERS, r, others);
	alert_set_if(a, V_DURATION_MS, r, duration_ms);
	if (r->_present.level)
		alert_set_level(a, &r->level);
}

static void print_alert(const struct khealthd_alert_rsp *r, bool as_json)
{
	struct json_object *o;
	struct message m;
	struct alert a;
	struct facts f;
	char when[64];

	from_netlink(&a, r);
	facts_bounded(&a, &f, conf_num("facts_ms"));
	message_make(&a, &f, &m);
	if (as_json) {
		o = facts_json(&a, &f, &m);
		puts(json_text(o));
		json_object_put(o);
	} else {
		print_time(when, sizeof(when), a.time);
		printf("%s %s\n", when, m.summary);
	}
	free(m.text);
	fflush(stdout);
}

/* All of the machine's, if that is allowed; or those of our own namespace. */
static int subscribe(struct ynl_sock *ys)
{
	if (geteuid() == 0 && !ynl_subscribe(ys, "all-alerts"))
		return 0;
	return ynl_subscribe(ys, "alerts");
}

int cmd_watch(int argc, char **argv)
{
	bool as_json = argc > 1 && !strcmp(argv[1], "--json");
	struct ynl_ntf_base_type *ntf;
	struct ynl_sock *ys;
	struct pollfd wait;
	char why[300];

	if (argc > 1 + as_json)
		return nothing_to_do("watch: unknown argument '%s'", argv[1]);
	ys = kernel_open(why, sizeof(why));
	if (!ys)
		return nothing_to_do("%s", why);
	if (subscribe(ys))
		return nothing_to_do("no alerts can be had: %s", ys->err.msg);
	conf_read();
	wait = (struct pollfd){ .fd = ynl_socket_get_fd(ys), .events = POLLIN };
	for (;;) {
		if (poll(&wait, 1, -1) < 0 && errno != EINTR)
			return 3;
		if (ynl_ntf_check(ys) < 0) {
			fputs("khealth: alerts came too fast, some are lost: see khealth status\n",
			      stderr);
		}
		while ((ntf = ynl_ntf_dequeue(ys))) {
			if (ntf->cmd == KHEALTHD_CMD_ALERT)
				print_alert(&((struct khealthd_alert *)ntf)->obj,
					    as_json);
			ynl_ntf_free(ntf);
		}
		if (ferror(stdout))
			return 3;
	}
}
