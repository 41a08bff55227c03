// SPDX-License-Identifier: GPL-2.0
/* What a person reads, at three in the morning. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

static void row(FILE *out, const char *name, const char *value)
{
	if (value && *value)
		fprintf(out, "%-11s%s\n", name, value);
}

/* In lines that fit a terminal. */
static void paragraph(FILE *out, const char *text)
{
	size_t column = 0, len;

	for (; *text; text += len) {
		text += strspn(text, " ");
		len = strcspn(text, " ");
		if (column && column + 1 + len > 78) {
			fputc('\n', out);
			column = 0;
		}
		column += fprintf(out, "%s%.*s", column ? " " : "", (int)len, text);
	}
	fputc('\n', out);
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

/* Loss, whether it goes on, and what it is that is short. */
static void headline_words(FILE *out, const struct alert *a)
{
	const char *event = a->word[V_EVENT], *lost = monitor_lost(a);
	const char *fate = monitor_fate(a);
	const char *what = monitor_what(a->word[V_MONITOR]);
	uint64_t n = a->num[V_REFUSED];
	bool over = alert_is_over(a);

	if (!strcmp(event, "test")) {
		fputs("This is a test. Nothing is short.", out);
		return;
	}
	if (!strcmp(event, "exhausted"))
		fprintf(out, "%c%ss %s %s: %s %s no room for them.%s",
			toupper(lost[0]), lost + 1, over ? "were" : "are", fate, what,
			over ? "had" : "has",
			over ? " It is over." : "");
	else if (!strcmp(event, "recovered"))
		fprintf(out, "It is over: %s is not seen to be short any more.",
			what);
	else if (!strcmp(event, "repeat"))
		fprintf(out, "It goes on: %s is short.", what);
	else
		fprintf(out, "Little %s left of %s.%s", over ? "was" : "is", what,
			over ? " It is over." : "");
	if (n)
		fprintf(out, " %llu %s%s %s refused%s.", (unsigned long long)n,
			lost, plural(n), n == 1 ? "was" : "were",
			over ? "" : " so far");
	else
		fprintf(out, over ? " Nothing was %s." : " Nothing is %s yet.", fate);
}

static void headline(FILE *out, const struct alert *a)
{
	char *text = NULL;
	size_t size;
	FILE *words = open_memstream(&text, &size);

	if (!words)
		return;
	headline_words(words, a);
	fclose(words);
	paragraph(out, text);
	free(text);
}

static void holder_rows(FILE *out, const struct facts *f)
{
	const struct holder *h = &f->holder;
	char text[600];

	if (!h->pid)
		return;
	snprintf(text, sizeof(text), "%s (pid %d)", h->comm, h->pid);
	if (h->more)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 ", and %d other%s", h->more, plural(h->more));
	row(out, "Process", text);
	row(out, "It is", proc_state_word(h->state));
	if (!strcmp(conf("cmdline"), "on"))
		row(out, "Command", h->cmdline);
	row(out, "Container", h->container);
}

static void service_rows(FILE *out, const struct facts *f)
{
	const struct holder *h = &f->holder;
	char text[600];

	if (!h->unit[0] && !h->cgroup[0]) {
		row(out, "Service", f->made_in_unit);
		row(out, "Cgroup", f->made_in);
		return;
	}
	/* With socket activation it is made in another one than it is read in. */
	copy(text, sizeof(text), h->unit);
	if (h->unit[0] && f->made_in_unit[0] && strcmp(h->unit, f->made_in_unit))
		snprintf(text, sizeof(text), "%s (the socket was made in %s)",
			 h->unit, f->made_in_unit);
	row(out, "Service", text);
	row(out, "Cgroup", h->cgroup);
}

static void place_rows(FILE *out, const struct alert *a, const struct facts *f)
{
	char text[300] = "";

	if (known(a, V_UID)) {
		snprintf(text, sizeof(text), "%s%s%s", a->word[V_UID],
			 f->user[0] ? ", " : "", f->user);
		row(out, "User", text);
	}
	service_rows(out, f);
	if (known(a, V_NETNS)) {
		if (!strcmp(f->netns_name, "initial"))
			snprintf(text, sizeof(text), "%s, the initial one",
				 a->word[V_NETNS]);
		else if (f->netns_name[0])
			snprintf(text, sizeof(text), "%s, %s", a->word[V_NETNS],
				 f->netns_name);
		else if (f->netns_pid)
			snprintf(text, sizeof(text),
				 "%s, process %d (%s) is in it",
				 a->word[V_NETNS], f->netns_pid, f->netns_comm);
		else
			copy(text, sizeof(text), a->word[V_NETNS]);
		row(out, "Namespace", text);
	}
	if (known(a, V_IFINDEX)) {
		snprintf(text, sizeof(text), "%s%sindex %s", f->interface,
			 f->interface[0] ? ", " : "", a->word[V_IFINDEX]);
		row(out, "Interface", text);
	}
	row(out, "CPU", a->word[V_CPU]);
	row(out, "Node", a->word[V_NODE]);
}

static void time_rows(FILE *out, const struct alert *a)
{
	char when[64], lasted[64], text[160];

	if (!strcmp(a->word[V_EVENT], "test"))
		return;
	duration_words(a->num[V_DURATION_MS], lasted, sizeof(lasted));
	if (alert_is_over(a)) {
		row(out, "Lasted", lasted);
		return;
	}
	print_time(when, sizeof(when), a->begin);
	snprintf(text, sizeof(text), "%s, %s ago", when, lasted);
	row(out, "Since", text);
}

static void level_rows(FILE *out, const struct alert *a)
{
	const char *monitor = a->word[V_MONITOR];
	char level[120], text[400], family[32], protocol[32];

	snprintf(text, sizeof(text), "%s (%s, code %s)", monitor_what(monitor),
		 monitor, known(a, V_CODE) ? a->word[V_CODE] : "?");
	row(out, "What", text);
	level_words(a, level, sizeof(level));
	if (level[0]) {
		snprintf(text, sizeof(text), "%s, low is %s %%", level,
			 known(a, V_LOW) ? a->word[V_LOW] : "?");
		row(out, "Level", text);
	}
	time_rows(out, a);
	row(out, "Refused", a->word[V_REFUSED]);
	copy(text, sizeof(text), a->word[V_CROSSINGS]);
	if (a->num[V_CROSSINGS_OTHERS])
		snprintf(text, sizeof(text), "%s, and %s of others",
			 a->word[V_CROSSINGS], a->word[V_CROSSINGS_OTHERS]);
	row(out, "Crossings", text);
	family_word(a, family, sizeof(family));
	protocol_word(a, protocol, sizeof(protocol));
	snprintf(text, sizeof(text), "%s%s%s%s%s%s%s", family,
		 family[0] && protocol[0] ? " " : "", protocol,
		 known(a, V_PORT) ? " port " : "", a->word[V_PORT],
		 known(a, V_SOCK_COOKIE) ? ", cookie " : "",
		 a->word[V_SOCK_COOKIE]);
	row(out, known(a, V_SOCK_COOKIE) ? "Socket" : "Protocol", text);
}

static void others(FILE *out, const struct alert *a)
{
	char path[128], line[300];
	unsigned int number = 0;
	FILE *file;

	if (!a->num[V_OTHERS])
		return;
	fprintf(out, "\n%s other%s of this kind %s short as well.\n",
		a->word[V_OTHERS], plural(a->num[V_OTHERS]),
		a->num[V_OTHERS] == 1 ? "is" : "are");
	snprintf(path, sizeof(path), "%s/%.32s/episodes", SYSFS_DIR,
		 a->word[V_MONITOR]);
	file = fopen(path, "re");
	while (file && number++ < 10 && fgets(line, sizeof(line), file)) {
		clean(line);
		fprintf(out, "  %s\n", line);
	}
	if (file)
		fclose(file);
}

/* What else comes, so that nobody waits for what does not. */
static const char *what_follows(const struct alert *a)
{
	const char *event = a->word[V_EVENT];

	if (!strcmp(event, "test"))
		return NULL;
	if (alert_is_over(a))
		return "Nothing more follows, unless it begins anew.";
	if (!strcmp(event, "low"))
		return "You hear again if something is lost, and when it is over.";
	return "You hear again when it is over. How it is now: khealth status";
}

static void anchor(const char *monitor, char *buf, size_t size)
{
	char *c;

	copy(buf, size, monitor);
	for (c = buf; *c; c++)
		if (*c == '_')
			*c = '-';
}

static char *make_text(const struct alert *a, const struct facts *f)
{
	const char *monitor = a->word[V_MONITOR];
	char when[64], alert_row[120], name[40];
	const char *words;
	char *text = NULL;
	size_t size;
	int netns;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	headline(out, a);
	words = strcmp(a->word[V_EVENT], "test") ? meaning(a) : NULL;
	if (words)
		paragraph(out, words);
	fputc('\n', out);
	row(out, "Machine", f->host);
	level_rows(out, a);
	holder_rows(out, f);
	place_rows(out, a, f);
	print_time(when, sizeof(when), a->time);
	snprintf(alert_row, sizeof(alert_row), "%s since boot, %s",
		 known(a, V_SEQ) ? a->word[V_SEQ] : "?", when);
	row(out, "Alert", alert_row);
	if (f->cut)
		row(out, "Note", "there was no time to find out more");
	others(out, a);
	words = what_follows(a);
	if (words)
		fprintf(out, "\n%s\n", words);
	words = monitor_advice(monitor);
	if (words) {
		fputc('\n', out);
		paragraph(out, words);
	}
	fputs("\nWhat is usually turned, as it is now:\n", out);
	netns = netns_open(a, f);
	print_knobs(out, a, netns);
	if (netns >= 0)
		close(netns);
	if (*conf("runbook")) {
		anchor(monitor, name, sizeof(name));
		fprintf(out, "\nWhat to do: %s#%s\n", conf("runbook"), name);
	}
	fclose(out);
	return text;
}

void message_make(const struct alert *a, const struct facts *f,
		  struct message *m)
{
	const char *event = a->word[V_EVENT], *monitor = a->word[V_MONITOR];
	bool test = !strcmp(event, "test");
	struct match_words words;
	char level[120], lost[64] = "";

	memset(m, 0, sizeof(*m));
	match_words(a, f, &words);
	rule_severity(&words, m->severity, sizeof(m->severity));
	if (!test)
		who_words(a, f, m->who, sizeof(m->who));
	level_words(a, level, sizeof(level));
	if (a->num[V_REFUSED])
		snprintf(lost, sizeof(lost), "%s %s", a->word[V_REFUSED],
			 monitor_fate(a));
	snprintf(m->summary, sizeof(m->summary), "%s: %s %s%s%s%s%s%s%s",
		 f->host, monitor, event, m->who[0] ? ": " : "", m->who,
		 lost[0] ? ": " : "", lost, level[0] && !test ? ": " : "",
		 test ? "" : level);
	snprintf(m->subject, sizeof(m->subject), "[khealthd] %s: %s %s%s%.160s%s%s",
		 f->host, monitor, event, m->who[0] ? ": " : "", m->who,
		 lost[0] ? ", " : "", lost);
	m->text = make_text(a, f);
}
