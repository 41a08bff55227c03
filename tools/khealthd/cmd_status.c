// SPDX-License-Identifier: GPL-2.0
/* khealth status: which program loses packets? Also a plugin for Nagios. */
#include <json-c/json.h>
#include <linux/khealthd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ynl.h>

#include "khealthd-user.h"
#include "khealth.h"

enum { OK, WARNING, CRITICAL, UNKNOWN };

struct summary {
	unsigned int worst;		/* of enum khealthd_state */
	unsigned int on, shown;
	uint64_t episodes;
	char first[300];		/* of the worst episode */
	unsigned int first_state;
	uint64_t end;			/* of the time to find out whose they are */
};

#define LOOK_MS		6000	/* all of it: Nagios waits for ten seconds */
#define LOOK_ONE_MS	3000

static void holder_words(const struct facts *f, char *buf, size_t size)
{
	const struct holder *h = &f->holder;
	const char *state = proc_state_word(h->state);

	buf[0] = '\0';
	if (h->pid)
		snprintf(buf, size, "%s (pid %d)%s%s", h->comm, h->pid,
			 state ? ", " : "", state ? state : "");
}

static void note_worst(struct summary *s, const struct alert *a,
		       const struct facts *f, unsigned int state)
{
	char who[200], level[120];

	if (state <= s->first_state)
		return;
	s->first_state = state;
	who_words(a, f, who, sizeof(who));
	level_words(a, level, sizeof(level));
	if (a->num[V_REFUSED] && strcmp(monitor_fate(a), "lost"))
		snprintf(s->first, sizeof(s->first), "%s: %s %s(s) %s: %s",
			 a->word[V_MONITOR], a->word[V_REFUSED],
			 monitor_lost(a), monitor_fate(a), who);
	else if (a->num[V_REFUSED])
		snprintf(s->first, sizeof(s->first), "%s lost %s %s(s), %s: %s",
			 f->holder.comm[0] ? f->holder.comm : "somebody",
			 a->word[V_REFUSED], monitor_lost(a),
			 a->word[V_MONITOR], who);
	else
		snprintf(s->first, sizeof(s->first), "%s %s: %s: %s",
			 a->word[V_MONITOR], a->word[V_STATE], who, level);
}

static void print_episode(FILE *out, const struct alert *a, const struct facts *f)
{
	char text[300], lasted[64], level[120];
	const char *words;

	duration_words(a->num[V_DURATION_MS], lasted, sizeof(lasted));
	level_words(a, level, sizeof(level));
	who_words(a, f, text, sizeof(text));
	fprintf(out, "  %-9s  %s\n", a->word[V_STATE], text);
	fprintf(out, "      for %s, %s %s(s) %s, %s crossing(s)\n", lasted,
		a->word[V_REFUSED], monitor_lost(a), monitor_fate(a), a->word[V_CROSSINGS]);
	if (level[0])
		fprintf(out, "      worst level: %s\n", level);
	holder_words(f, text, sizeof(text));
	if (text[0])
		fprintf(out, "      held by %s\n", text);
	if (f->holder.cmdline[0] && !strcmp(conf("cmdline"), "on"))
		fprintf(out, "      command %s\n", f->holder.cmdline);
	if (known(a, V_UID))
		fprintf(out, "      user %s%s%s\n", a->word[V_UID],
			f->user[0] ? ", " : "", f->user);
	if (known(a, V_NETNS) && strcmp(f->netns_name, "initial"))
		fprintf(out, "      network namespace %s%s%s\n", a->word[V_NETNS],
			f->netns_name[0] ? ", " : "", f->netns_name);
	if (known(a, V_SOCK_COOKIE))
		fprintf(out, "      socket cookie %s\n", a->word[V_SOCK_COOKIE]);
	words = meaning(a);
	if (words)
		fprintf(out, "      %s\n", words);
}

static struct json_object *episode_json(const struct alert *a,
					const struct facts *f)
{
	struct message m = { 0 };

	return facts_json(a, f, &m);
}

static struct json_object *
monitor_json(const struct khealthd_monitor_get_rsp *m)
{
	struct json_object *o = json_object_new_object();

	json_put_str(o, "monitor", m->name);
	json_put_num(o, "code", m->code);
	json_put_str(o, "unit", m->unit);
	json_put_str(o, "state", state_word(m->state));
	json_put_num(o, "low", m->low);
	json_put_num(o, "high", m->high);
	json_put_num(o, "crossings", m->crossings);
	json_put_num(o, "alerts", m->alerts);
	json_put_num(o, "suppressed", m->suppressed);
	json_put_num(o, "episodes_all", m->episodes);
	json_object_object_add(o, "episodes", json_object_new_array());
	return o;
}

static void show_monitor(FILE *out, struct json_object *json,
			 const struct khealthd_monitor_get_rsp *m,
			 struct summary *s)
{
	struct json_object *o = json ? monitor_json(m) : NULL, *list = NULL;
	uint64_t now, left;
	struct alert a;
	struct facts f;
	unsigned int i;

	if (o) {
		json_object_array_add(json, o);
		json_object_object_get_ex(o, "episodes", &list);
	} else {
		fprintf(out, "%-14s%-10s %8llu %10llu %8llu\n", m->name,
			state_word(m->state), (unsigned long long)m->episodes,
			(unsigned long long)m->crossings,
			(unsigned long long)m->alerts);
	}
	s->on += m->state != KHEALTHD_STATE_OFF;
	s->episodes += m->episodes;
	if (m->state > s->worst)
		s->worst = m->state;
	for (i = 0; i < m->NR_EPISODES; i++) {
		alert_set_episode(&a, m, &m->episode[i]);
		now = now_ms();
		left = s->end > now ? s->end - now : 0;
		facts_bounded(&a, &f, left < LOOK_ONE_MS ? left : LOOK_ONE_MS);
		note_worst(s, &a, &f, m->episode[i].state);
		s->shown++;
		if (o)
			json_object_array_add(list, episode_json(&a, &f));
		else
			print_episode(out, &a, &f);
	}
}

static int verdict(const struct summary *s, char *buf, size_t size)
{
	const char *who = s->first[0] ? s->first :
		s->episodes ? "in another network namespace; root sees more" : "";

	if (!s->on) {
		snprintf(buf, size, "UNKNOWN - khealthd is off: sysctl kernel.khealthd.enabled=1");
		return UNKNOWN;
	}
	if (s->worst == KHEALTHD_STATE_EXHAUSTED) {
		snprintf(buf, size, "CRITICAL - %s", who);
		return CRITICAL;
	}
	if (s->worst == KHEALTHD_STATE_LOW) {
		snprintf(buf, size, "WARNING - %s", who);
		return WARNING;
	}
	snprintf(buf, size, "OK - nothing is short, nobody loses packets");
	return OK;
}

static void print_all(const char *line, const char *table, struct json_object *json,
		      const struct summary *s)
{
	struct json_object *o;

	if (json) {
		o = json_object_new_object();
		json_put_str(o, "summary", line);
		json_object_object_add(o, "monitors", json);
		puts(json_text(o));
		json_object_put(o);
		return;
	}
	printf("%s\n\n%-14s%-10s %8s %10s %8s\n%s", line, "MONITOR", "STATE",
	       "EPISODES", "CROSSINGS", "ALERTS", table);
	if (s->shown < s->episodes)
		printf("\n%llu episode(s) are not shown: they are of other network namespaces, or\n"
		       "of the whole machine. Root, in the initial namespace, sees all of them.\n",
		       (unsigned long long)(s->episodes - s->shown));
}

int cmd_status(int argc, char **argv)
{
	bool as_json = argc > 1 && !strcmp(argv[1], "--json");
	struct khealthd_monitor_get_list *list;
	struct json_object *json = NULL;
	struct summary s = { .end = now_ms() + LOOK_MS };
	char why[300], *table = NULL, line[400];
	struct ynl_sock *ys;
	size_t size;
	FILE *out;
	int code;

	if (argc > 1 + as_json)
		return nothing_to_do("status: unknown argument '%s'", argv[1]);
	ys = kernel_open(why, sizeof(why));
	if (!ys)
		return nothing_to_do("%s", why);
	conf_read();
	list = khealthd_monitor_get_dump(ys);
	if (!list)
		return nothing_to_do("the monitors cannot be read: %s",
				     ys->err.msg);
	if (as_json)
		json = json_object_new_array();
	out = open_memstream(&table, &size);
	if (!out)
		return UNKNOWN;
	ynl_dump_foreach(list, m)
		show_monitor(out, json, m, &s);
	fclose(out);
	code = verdict(&s, line, sizeof(line));
	print_all(line, table, json, &s);
	free(table);
	khealthd_monitor_get_list_free(list);
	ynl_sock_destroy(ys);
	return code;
}
