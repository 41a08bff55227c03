// SPDX-License-Identifier: GPL-2.0
/*
 * Settings: NAME=VALUE lines of khealth.conf. A bad line changes nothing, and is
 * named by its number: its value can be a secret.
 */
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

enum kind {
	SWITCH, EVENTS, NUMBER, COUNT, NAME, INSTANCE, ADDRESSES, ADDRESS, PATHNAME,
	SECRET_FILE, URLS, LABELS, ANYTHING,
};

static const char *const patterns[] = {
	[SWITCH]	= "(on|off|auto)",
	[EVENTS]	= "((low|exhausted|repeat|recovered|test|digest)( |$))*",
	[NUMBER]	= "(0|[1-9][0-9]{0,8})",
	[COUNT]		= "[1-9][0-9]{0,8}",
	[NAME]		= "[A-Za-z0-9_.-]{0,64}",
	[INSTANCE]	= "[A-Za-z0-9_.:%-]{0,64}",
	[ADDRESSES]	= "[A-Za-z0-9_.%+=@-]+(, ?[A-Za-z0-9_.%+=@-]+)*",
	[ADDRESS]	= "[A-Za-z0-9_.%+=@-]*",
	[PATHNAME]	= "/[A-Za-z0-9_.+@:/-]+",
	[SECRET_FILE]	= "(/[A-Za-z0-9_.+@:/-]+)?",
	[URLS]		= "(https?://[^\"\\ ]+( |$))*",
	[LABELS]	= "([a-zA-Z_][a-zA-Z0-9_]*=[A-Za-z0-9_.:/@+-]+( |$))*",
	[ANYTHING]	= "[ -~]*",
};

static const struct setting {
	const char *name;
	enum kind kind;
	const char *value;
} settings[] = {
	{ "host", NAME, "" },
	{ "runbook", ANYTHING,
	  "https://docs.kernel.org/admin-guide/khealthd-alerts.html" },
	{ "facts_ms", NUMBER, "2000" },
	{ "cmdline", SWITCH, "on" },
	{ "min_duration", NUMBER, "0" },
	{ "waiting_max", COUNT, "500" },
	{ "log", SWITCH, "on" },
	{ "mail", SWITCH, "auto" },
	{ "mail_events", EVENTS, "low exhausted recovered test digest" },
	{ "mail_limit", NUMBER, "10" },
	{ "mail_timeout", NUMBER, "20" },
	{ "mail_max_age", NUMBER, "86400" },
	{ "mail_to", ADDRESSES, "root" },
	{ "mail_from", ADDRESS, "" },
	{ "mail_command", PATHNAME, "/usr/sbin/sendmail" },
	{ "webhook", SWITCH, "auto" },
	{ "webhook_events", EVENTS, "low exhausted recovered test digest" },
	{ "webhook_limit", NUMBER, "20" },
	{ "webhook_timeout", NUMBER, "20" },
	{ "webhook_max_age", NUMBER, "86400" },
	{ "webhook_url", URLS, "" },
	{ "webhook_curl", SECRET_FILE, "" },
	{ "alertmanager", SWITCH, "auto" },
	{ "alertmanager_events", EVENTS, "low exhausted repeat recovered test" },
	{ "alertmanager_limit", NUMBER, "0" },
	{ "alertmanager_timeout", NUMBER, "20" },
	{ "alertmanager_max_age", NUMBER, "900" },
	{ "alertmanager_url", URLS, "" },
	{ "alertmanager_curl", SECRET_FILE, "" },
	{ "alertmanager_instance", INSTANCE, "%h:9100" },
	{ "alertmanager_labels", LABELS, "" },
	{ "alertmanager_lifetime", NUMBER, "900" },
	{ "apprise", SWITCH, "auto" },
	{ "apprise_events", EVENTS, "low exhausted recovered test digest" },
	{ "apprise_limit", NUMBER, "10" },
	{ "apprise_timeout", NUMBER, "30" },
	{ "apprise_max_age", NUMBER, "86400" },
	{ "apprise_config", SECRET_FILE, "" },
};

/* What each output has, an administrator's own as well. */
static const struct setting of_each[] = {
	{ "", SWITCH, "on" },
	{ "events", EVENTS, "low exhausted repeat recovered test digest" },
	{ "limit", NUMBER, "0" },
	{ "timeout", NUMBER, "20" },
	{ "max_age", NUMBER, "86400" },
};

#define OWN_MAX 256
static struct {
	char *name, *value;
} own[OWN_MAX];
static unsigned int n_own;
static bool bad;

bool conf_bad(void)
{
	return bad;
}

static bool matches(enum kind kind, const char *value)
{
	char pattern[256];
	const char *c;
	regex_t regex;
	bool good;

	snprintf(pattern, sizeof(pattern), "^%s$", patterns[kind]);
	for (c = value; *c; c++)
		if (*c < ' ' || *c > '~')
			return false;
	if (c - value > 1000)
		return false;
	if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB))
		return false;
	good = !regexec(&regex, value, 0, NULL, 0);
	regfree(&regex);
	return good;
}

/* OUTPUT_WORD of a program in the administrator's own folder. */
static bool is_of_own_output(const char *name, enum kind *kind)
{
	size_t len = strcspn(name, "_"), i;
	char path[128];

	if (!len || len > 24)
		return false;
	snprintf(path, sizeof(path), "%s/%.*s", OWN_OUTPUTS, (int)len, name);
	if (access(path, X_OK))
		return false;
	*kind = ANYTHING;
	name += len + (name[len] == '_');
	for (i = 0; i < ARRAY_SIZE(of_each); i++)
		if (!strcmp(name, of_each[i].name))
			*kind = of_each[i].kind;
	return true;
}

static bool find_kind(const char *name, enum kind *kind)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		if (!strcmp(name, settings[i].name)) {
			*kind = settings[i].kind;
			return true;
		}
	}
	/* The outputs that come with it have the usual ones, too. */
	if (!strncmp(name, "log_", 4)) {
		for (i = 1; i < ARRAY_SIZE(of_each); i++) {
			if (!strcmp(name + 4, of_each[i].name)) {
				*kind = of_each[i].kind;
				return true;
			}
		}
	}
	return is_of_own_output(name, kind);
}

static void bad_line(unsigned int line, const char *what, const char *name)
{
	bad = true;
	if (name && strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name) &&
	    strlen(name) < 33)
		complain("%s, line %u: %s: %s", CONF_FILE, line, name, what);
	else
		complain("%s, line %u: %s", CONF_FILE, line, what);
}

/* Does it replace one of labels()? Such as the severity, by which alerts are muted. */
static bool takes_own_label(const char *value)
{
	static const char *const own_labels[] = { "alertname", "monitor", "code",
		"port", "cpu", "node", "severity", "instance", "nodename", "netns",
		"family", "protocol", "socket", "service", "container" };
	size_t i, len;

	while (*value) {
		len = strcspn(value, "=");
		for (i = 0; i < ARRAY_SIZE(own_labels); i++)
			if (strlen(own_labels[i]) == len &&
			    !strncmp(value, own_labels[i], len))
				return true;
		value += strcspn(value, " ");
		value += strspn(value, " ");
	}
	return false;
}

static void set(unsigned int line, const char *name, const char *value)
{
	unsigned int i;
	enum kind kind;
	char why[300];

	if (!find_kind(name, &kind)) {
		bad_line(line, "there is no such setting", name);
		return;
	}
	if (!matches(kind, value)) {
		bad_line(line, "it cannot have this value, and stays as it is",
			 name);
		return;
	}
	if (kind == LABELS && takes_own_label(value)) {
		bad_line(line, "a label of this name is there already", name);
		return;
	}
	if (kind == SECRET_FILE && *value &&
	    !is_trusted(value, why, sizeof(why))) {
		bad_line(line, why, name);
		return;
	}
	for (i = 0; i < n_own && strcmp(own[i].name, name); i++)
		;
	if (i == OWN_MAX) {
		bad_line(line, "there are too many settings", name);
		return;
	}
	if (i == n_own) {
		own[i].name = strdup(name);
		n_own++;
	} else {
		free(own[i].value);
	}
	own[i].value = strdup(value);
	if (!own[i].name || !own[i].value)
		abort();
}

static void read_line(unsigned int number, char *line)
{
	char *value;

	line[strcspn(line, "\n")] = '\0';
	if (!*line || *line == '#')
		return;
	value = strchr(line, '=');
	if (!value) {
		bad_line(number, "it is not NAME=VALUE", NULL);
		return;
	}
	*value++ = '\0';
	set(number, line, value);
}

/*
 * Without the file, or with one that somebody else can write to: the defaults.
 * False: it cannot be read, so nobody knows what is to be done.
 */
bool conf_read(void)
{
	unsigned int number = 0;
	char why[300], *line = NULL;
	size_t size = 0;
	FILE *file;
	bool good;
	int fd;

	if (access(CONF_FILE, F_OK) && errno == ENOENT)
		return true;
	fd = trusted_open(CONF_FILE, O_RDONLY, why, sizeof(why));
	if (fd < 0 && errno == EACCES && geteuid())
		return false;		/* a command of anybody's goes on */
	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (!file) {
		good = fd < 0 && errno == EPERM;
		bad = true;
		complain("the settings are left out: %s",
			 fd < 0 ? why : strerror(errno));
		return good;
	}
	while (number < 10000 && getline(&line, &size, file) >= 0)
		read_line(++number, line);
	good = !ferror(file);
	free(line);
	fclose(file);
	return good;
}

const char *conf(const char *name)
{
	unsigned int i;

	for (i = 0; i < n_own; i++)
		if (!strcmp(own[i].name, name))
			return own[i].value;
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (!strcmp(settings[i].name, name))
			return settings[i].value;
	return NULL;
}

uint64_t conf_num(const char *name)
{
	const char *value = conf(name);

	return value ? strtoull(value, NULL, 10) : 0;
}

const char *conf_output(const char *output, const char *name)
{
	const char *value;
	char full[80];
	size_t i;

	snprintf(full, sizeof(full), "%.40s%s%s", output, *name ? "_" : "", name);
	value = conf(full);
	for (i = 0; !value && i < ARRAY_SIZE(of_each); i++)
		if (!strcmp(of_each[i].name, name))
			value = of_each[i].value;
	return value ? value : "";
}

uint64_t conf_output_num(const char *output, const char *name)
{
	return strtoull(conf_output(output, name), NULL, 10);
}

void conf_each(void (*fn)(const char *name, const char *value, void *data),
	       void *data)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		fn(settings[i].name, conf(settings[i].name), data);
	for (i = 0; i < n_own; i++)
		fn(own[i].name, own[i].value, data);
}

void conf_print(FILE *out)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		fprintf(out, "%s=%s\n", settings[i].name, conf(settings[i].name));
}
