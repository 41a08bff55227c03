// SPDX-License-Identifier: GPL-2.0
/*
 * An alert, as it is in the helper's environment. The kernel made that; who
 * knows. What is neither a number nor one of the kernel's words is left out.
 */
#include <ctype.h>
#include <string.h>

#include "khealth.h"

enum kind { WORD, NUMBER };

static const struct {
	const char *name, *key;
	enum kind kind;
} vars[V_MAX] = {
	[V_CODE]	= { "TROUBLED_DS", "code", NUMBER },
	[V_ABI]		= { "KHEALTHD_ABI", "abi", NUMBER },
	[V_MONITOR]	= { "KHEALTHD_MONITOR", "monitor", WORD },
	[V_EVENT]	= { "KHEALTHD_EVENT", "event", WORD },
	[V_STATE]	= { "KHEALTHD_STATE", "state", WORD },
	[V_SEQ]		= { "KHEALTHD_SEQ", "seq", NUMBER },
	[V_UNIT]	= { "KHEALTHD_UNIT", "unit", WORD },
	[V_LOW]		= { "KHEALTHD_LOW", "low", NUMBER },
	[V_HIGH]	= { "KHEALTHD_HIGH", "high", NUMBER },
	[V_CROSSINGS]	= { "KHEALTHD_CROSSINGS", "crossings", NUMBER },
	[V_CROSSINGS_OTHERS] = { "KHEALTHD_CROSSINGS_OTHERS",
				 "crossings_others", NUMBER },
	[V_REFUSED]	= { "KHEALTHD_REFUSED", "refused", NUMBER },
	[V_OTHERS]	= { "KHEALTHD_OTHERS", "others", NUMBER },
	[V_DURATION_MS]	= { "KHEALTHD_DURATION_MS", "duration_ms", NUMBER },
	[V_FREE]	= { "KHEALTHD_FREE", "free", NUMBER },
	[V_CAPACITY]	= { "KHEALTHD_CAPACITY", "capacity", NUMBER },
	[V_NODE]	= { "KHEALTHD_NODE", "node", NUMBER },
	[V_CPU]		= { "KHEALTHD_CPU", "cpu", NUMBER },
	[V_IFINDEX]	= { "KHEALTHD_IFINDEX", "ifindex", NUMBER },
	[V_FAMILY]	= { "KHEALTHD_FAMILY", "family", NUMBER },
	[V_PROTOCOL]	= { "KHEALTHD_PROTOCOL", "protocol", NUMBER },
	[V_PORT]	= { "KHEALTHD_PORT", "port", NUMBER },
	[V_UID]		= { "KHEALTHD_UID", "uid", NUMBER },
	[V_SOCK_COOKIE]	= { "KHEALTHD_SOCK_COOKIE", "sock_cookie", NUMBER },
	[V_NETNS]	= { "KHEALTHD_NETNS", "netns", NUMBER },
	[V_NETNS_COOKIE] = { "KHEALTHD_NETNS_COOKIE", "netns_cookie", NUMBER },
	[V_CGROUP]	= { "KHEALTHD_CGROUP", "cgroup", NUMBER },
};

const char *var_name(enum var v)
{
	return vars[v].name;
}

const char *var_key(enum var v)
{
	return vars[v].key;
}

bool var_is_word(enum var v)
{
	return vars[v].kind == WORD;
}

bool known(const struct alert *a, enum var v)
{
	return a->word[v][0];
}

static bool is_word(const char *s)
{
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyz_");

	return len && len <= 32 && !s[len];
}

bool alert_set(struct alert *a, enum var v, const char *value)
{
	if (vars[v].kind == WORD ? !is_word(value) :
				   !parse_u64(value, &a->num[v]))
		return false;
	copy(a->word[v], sizeof(a->word[v]), value);
	return true;
}

void alert_set_num(struct alert *a, enum var v, uint64_t value)
{
	a->num[v] = value;
	snprintf(a->word[v], sizeof(a->word[v]), "%llu",
		 (unsigned long long)value);
}

static bool is_event(const char *s)
{
	return !strcmp(s, "low") || !strcmp(s, "exhausted") ||
	       !strcmp(s, "repeat") || !strcmp(s, "recovered") ||
	       !strcmp(s, "test");
}

static void read_variable(struct alert *a, const char *variable)
{
	enum var v;

	for (v = 0; v < V_MAX; v++) {
		size_t len = strlen(vars[v].name);

		if (strncmp(variable, vars[v].name, len) || variable[len] != '=')
			continue;
		if (!alert_set(a, v, variable + len + 1))
			complain("%s has a value that the kernel does not set; it is left out",
				 vars[v].name);
		return;
	}
}

int alert_from_env(struct alert *a, char **environment)
{
	uint64_t seconds;

	memset(a, 0, sizeof(*a));
	for (; *environment; environment++)
		read_variable(a, *environment);
	if (!is_event(a->word[V_EVENT])) {
		complain("no alert is in the environment");
		return -1;
	}
	if (!known(a, V_MONITOR)) {
		complain("the alert names no monitor");
		return -1;
	}
	a->time = time(NULL);
	seconds = a->num[V_DURATION_MS] / 1000;
	a->begin = seconds < (uint64_t)a->time ? a->time - (time_t)seconds :
						 a->time;
	return 0;
}

/* Alerts that waited for the helper are one: it can be over with the first. */
bool alert_is_over(const struct alert *a)
{
	return !strcmp(a->word[V_EVENT], "recovered") ||
	       !strcmp(a->word[V_STATE], "ok");
}

bool alert_is_exhausted(const struct alert *a)
{
	return !strcmp(a->word[V_EVENT], "exhausted") ||
	       !strcmp(a->word[V_STATE], "exhausted");
}

/* Which instance it is. An interface is only where it began. */
uint64_t alert_key(const struct alert *a)
{
	static const enum var parts[] = { V_MONITOR, V_FAMILY, V_PROTOCOL, V_PORT,
		V_SOCK_COOKIE, V_CPU, V_NODE };
	bool shared = known(a, V_CPU) || known(a, V_NODE);
	uint64_t hash = 0xcbf29ce484222325ull;
	const char *s;
	size_t i;

	for (i = 0; i <= ARRAY_SIZE(parts); i++) {
		if (i < ARRAY_SIZE(parts))
			s = a->word[parts[i]];
		else
			s = shared ? "" : a->word[V_NETNS];
		for (; *s; s++)
			hash = (hash ^ (unsigned char)*s) * 0x100000001b3ull;
		hash = (hash ^ '.') * 0x100000001b3ull;
	}
	return hash;
}
