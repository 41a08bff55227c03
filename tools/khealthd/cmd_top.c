// SPDX-License-Identifier: GPL-2.0
/* khealth top: the episodes that go on, refreshed; q ends it. */
#include <curses.h>
#include <linux/khealthd.h>
#include <stdlib.h>
#include <string.h>
#include <ynl.h>

#include "khealthd-user.h"
#include "khealth.h"

#define MONITORS_MAX	64
#define CACHE_MAX	64

/* Who it is does not change every second. */
static struct cached {
	uint64_t key, when;
	struct facts facts;
} cache[CACHE_MAX];
static const struct facts nobody;

static uint64_t crossings_before[MONITORS_MAX];
static bool seen_before;

/* Looks take a second of a refresh; what is left comes with the next one. */
static const struct facts *facts_of(const struct alert *a, uint64_t end)
{
	uint64_t key = alert_key(a), now = now_ms();
	struct cached *c = &cache[key % CACHE_MAX];

	if (now < end &&
	    (c->key != key || !c->when || now - c->when > 5000)) {
		facts_bounded(a, &c->facts, 300);
		c->key = key;
		c->when = now;
	}
	return c->key == key ? &c->facts : &nobody;
}

static void show_episode(int *line, const struct alert *a, uint64_t end)
{
	const struct facts *f = facts_of(a, end);
	char who[200], lasted[64], free_percent[16] = "?";

	if (*line >= LINES - 1)
		return;
	who_words(a, f, who, sizeof(who));
	duration_words(a->num[V_DURATION_MS], lasted, sizeof(lasted));
	if (known(a, V_FREE) && a->num[V_CAPACITY])
		snprintf(free_percent, sizeof(free_percent), "%.0f %%",
			 100.0 * a->num[V_FREE] / a->num[V_CAPACITY]);
	mvprintw((*line)++, 0, "%-12.12s %-9.9s %8s %7s %10s %-16.16s %.60s",
		 a->word[V_MONITOR], a->word[V_STATE], a->word[V_REFUSED],
		 free_percent, lasted,
		 f->holder.comm[0] ? f->holder.comm : "?", who);
}

static void show_monitor(int *line, const struct khealthd_monitor_get_rsp *m,
			 unsigned int i)
{
	uint64_t rate = 0;

	if (i < MONITORS_MAX) {
		if (seen_before)
			rate = m->crossings - crossings_before[i];
		crossings_before[i] = m->crossings;
	}
	if (*line < LINES - 1)
		mvprintw((*line)++, 0, "%-14s%-10s %8llu %10llu %8llu/s", m->name,
			 state_word(m->state), (unsigned long long)m->episodes,
			 (unsigned long long)m->crossings,
			 (unsigned long long)rate);
}

static bool refresh_all(struct ynl_sock *ys)
{
	struct khealthd_monitor_get_list *list = khealthd_monitor_get_dump(ys);
	uint64_t end = now_ms() + 1000;
	unsigned int i = 0, e;
	struct alert a;
	int line = 0;

	if (!list)
		return false;
	erase();
	attron(A_REVERSE);
	mvprintw(line++, 0, "%-14s%-10s %8s %10s %10s", "MONITOR", "STATE",
		 "EPISODES", "CROSSINGS", "");
	attroff(A_REVERSE);
	ynl_dump_foreach(list, m)
		show_monitor(&line, m, i++);
	line++;
	attron(A_REVERSE);
	mvprintw(line++, 0, "%-12s %-9s %8s %7s %10s %-16s %s", "MONITOR",
		 "STATE", "LOST", "FREE", "FOR", "PROCESS", "WHO");
	attroff(A_REVERSE);
	ynl_dump_foreach(list, m) {
		for (e = 0; e < m->NR_EPISODES; e++) {
			alert_set_episode(&a, m, &m->episode[e]);
			show_episode(&line, &a, end);
		}
	}
	mvprintw(LINES - 1, 0, "q: quit");
	refresh();
	seen_before = true;
	khealthd_monitor_get_list_free(list);
	return true;
}

int cmd_top(int argc, char **argv)
{
	struct ynl_sock *ys;
	bool good = true;
	char why[300];

	if (argc > 1)
		return nothing_to_do("top: unknown argument '%s'", argv[1]);
	ys = kernel_open(why, sizeof(why));
	if (!ys)
		return nothing_to_do("%s", why);
	conf_read();
	if (!initscr())
		return nothing_to_do("there is no terminal");
	cbreak();
	noecho();
	curs_set(0);
	timeout(1000);
	while (good) {
		good = refresh_all(ys);
		if (good && getch() == 'q')
			break;
	}
	endwin();
	if (!good)
		return nothing_to_do("the monitors cannot be read: %s",
				     ys->err.msg);
	ynl_sock_destroy(ys);
	return 0;
}
