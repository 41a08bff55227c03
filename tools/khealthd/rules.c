// SPDX-License-Identifier: GPL-2.0
/*
 * What an alert is worth, and which ones nobody wants to hear of: lines of words
 * that all have to match.
 *
 *   severity:  critical level=exhausted family=netlink
 *   silences:  until=2027-01-31 service=rsyslog.service
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

#define SEVERITY_FILE	ETC_DIR "/severity"
#define SILENCES_FILE	ETC_DIR "/silences"

static const char *const names[] = {
	"monitor", "event", "level", "family", "protocol", "port", "uid",
	"user", "service", "process", "container", "netns", "cpu", "node",
};

static void add(struct match_words *w, const char *name, const char *value)
{
	if (w->number == ARRAY_SIZE(w->name) || !*value)
		return;
	w->name[w->number] = name;
	copy(w->value[w->number++], sizeof(w->value[0]), value);
}

void match_words(const struct alert *a, const struct facts *f,
		 struct match_words *w)
{
	static const enum var vars[] = { V_MONITOR, V_EVENT, V_FAMILY, V_PROTOCOL,
		V_PORT, V_UID, V_CPU, V_NODE, V_NETNS };
	char word[64];
	size_t i;

	memset(w, 0, sizeof(*w));
	for (i = 0; i < ARRAY_SIZE(vars); i++)
		add(w, var_key(vars[i]), a->word[vars[i]]);
	add(w, "family", family_word(a, word, sizeof(word)));
	add(w, "protocol", protocol_word(a, word, sizeof(word)));
	add(w, "level", alert_is_exhausted(a) || a->num[V_REFUSED] ?
	    "exhausted" : "low");
	add(w, "user", f->user);
	add(w, "service", f->holder.unit[0] ? f->holder.unit : f->made_in_unit);
	add(w, "process", f->holder.comm);
	add(w, "container", f->holder.container);
	add(w, "netns", f->netns_name);
}

/* FROM-TO of numbers, or a pattern of the shell's. */
static bool value_matches(const char *wanted, const char *value)
{
	uint64_t from, to, is;
	char first[32];
	const char *dash = strchr(wanted, '-');

	if (dash && parse_u64(value, &is) && dash - wanted < 30) {
		snprintf(first, sizeof(first), "%.*s", (int)(dash - wanted),
			 wanted);
		if (parse_u64(first, &from) && parse_u64(dash + 1, &to))
			return is >= from && is <= to;
	}
	return !fnmatch(wanted, value, FNM_CASEFOLD);
}

static bool word_matches(const struct match_words *w, const char *name,
			 const char *wanted)
{
	unsigned int i;

	for (i = 0; i < w->number; i++)
		if (!strcmp(w->name[i], name) && value_matches(wanted, w->value[i]))
			return true;
	return false;
}

static bool is_name(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static time_t parse_until(const char *s)
{
	static const char *const formats[] = { "%Y-%m-%dT%H:%M", "%Y-%m-%d" };
	struct tm tm;
	size_t i;
	char *end;

	for (i = 0; i < ARRAY_SIZE(formats); i++) {
		memset(&tm, 0, sizeof(tm));
		tm.tm_isdst = -1;
		end = strptime(s, formats[i], &tm);
		if (end && !*end)
			return mktime(&tm);
	}
	return -1;
}

struct line {
	char first[64];
	time_t until;
	bool good, match;
	unsigned int conditions;
};

/* A line's words: do those that have a = all match? */
static void read_rule(char *text, const struct match_words *w, struct line *line)
{
	char *word, *save = NULL, *value;

	*line = (struct line){ .good = true, .match = true };
	for (word = strtok_r(text, " \t\n", &save); word;
	     word = strtok_r(NULL, " \t\n", &save)) {
		if (*word == '#')
			break;
		value = strchr(word, '=');
		if (!value) {
			line->good &= !line->first[0] && !line->conditions;
			copy(line->first, sizeof(line->first), word);
			continue;
		}
		*value++ = '\0';
		if (!strcmp(word, "until")) {
			line->until = parse_until(value);
			line->good &= line->until > 0;
			continue;
		}
		line->good &= is_name(word) && *value;
		line->conditions++;
		if (w)
			line->match &= word_matches(w, word, value);
	}
}

typedef bool (*line_fn)(const struct line *line, void *data);

static bool severity_line(const struct line *line, void *data)
{
	char *severity = data;

	if (!line->match)
		return false;
	copy(severity, 16, line->first);
	return true;
}

static bool silence_line(const struct line *line, void *data)
{
	return line->match && line->until > *(time_t *)data;
}

static bool is_good(const struct line *l, bool severity)
{
	if (!severity)
		return l->good && !l->first[0] && l->until && l->conditions;
	return l->good && !l->until &&
	       (!strcmp(l->first, "critical") || !strcmp(l->first, "warning") ||
		!strcmp(l->first, "info"));
}

/* Call fn for each line, until it says that it is this one. */
static bool each_line(const char *path, const struct match_words *w, line_fn fn,
		      void *data, FILE *complaints)
{
	bool severity = fn == severity_line, good = true, found = false;
	char why[300], *text = NULL;
	unsigned int number = 0;
	struct line line;
	size_t size = 0;
	FILE *file;
	int fd = trusted_open(path, O_RDONLY, why, sizeof(why));

	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (!file) {
		if (complaints && errno != ENOENT)
			fprintf(complaints, "%s\n", why);
		return complaints && errno == ENOENT;
	}
	while (!found && number++ < 10000 && getline(&text, &size, file) >= 0) {
		if (strspn(text, " \t\n") == strlen(text) ||
		    text[strspn(text, " \t")] == '#')
			continue;
		read_rule(text, w, &line);
		if (is_good(&line, severity)) {
			found = !complaints && fn(&line, data);
			continue;
		}
		good = false;
		if (complaints)
			fprintf(complaints, "%s, line %u cannot be understood\n",
				path, number);
	}
	free(text);
	fclose(file);
	return complaints ? good : found;
}

void rule_severity(const struct match_words *w, char *buf, size_t size)
{
	char severity[16] = "";

	if (!each_line(SEVERITY_FILE, w, severity_line, severity, NULL))
		each_line(SHARE_DIR "/severity", w, severity_line, severity, NULL);
	if (!severity[0])
		copy(severity, sizeof(severity),
		     word_matches(w, "event", "test") ? "info" :
		     word_matches(w, "level", "exhausted") ? "critical" :
		     "warning");
	copy(buf, size, severity);
}

bool rule_silenced(const struct match_words *w, time_t now)
{
	return each_line(SILENCES_FILE, w, silence_line, &now, NULL);
}

bool rules_check(FILE *out)
{
	char severity[16];
	time_t now = 0;
	bool good;

	good = each_line(SEVERITY_FILE, NULL, severity_line, severity, out);
	return each_line(SILENCES_FILE, NULL, silence_line, &now, out) && good;
}
