// SPDX-License-Identifier: GPL-2.0
/*
 * khealth metrics: every counter of sysfs, as text for Prometheus. One unit a
 * metric: bytes, pages and packets cannot be added up.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "khealth.h"

#define MONITORS_MAX 64

static struct monitor {
	char name[40], unit[32], state[32], code[16];
} monitors[MONITORS_MAX];
static unsigned int n_monitors;

static bool read_word(const char *folder, const char *file, char *buf, size_t size)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%.40s/%s", SYSFS_DIR, folder, file);
	return first_line(path, buf, size) && *buf;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct monitor *)a)->name,
		      ((const struct monitor *)b)->name);
}

static void find_monitors(void)
{
	DIR *dir = opendir(SYSFS_DIR);
	struct dirent *e;
	struct monitor *m;

	while (dir && n_monitors < MONITORS_MAX && (e = readdir(dir))) {
		m = &monitors[n_monitors];
		if (e->d_name[0] == '.' ||
		    strspn(e->d_name, "abcdefghijklmnopqrstuvwxyz_0123456789") !=
		    strlen(e->d_name) || strlen(e->d_name) >= sizeof(m->name) ||
		    !read_word(e->d_name, "code", m->code, sizeof(m->code)))
			continue;
		copy(m->name, sizeof(m->name), e->d_name);
		if (!read_word(m->name, "unit", m->unit, sizeof(m->unit)))
			copy(m->unit, sizeof(m->unit), "units");
		m->unit[strspn(m->unit, "abcdefghijklmnopqrstuvwxyz")] = '\0';
		read_word(m->name, "state", m->state, sizeof(m->state));
		n_monitors++;
	}
	if (dir)
		closedir(dir);
	qsort(monitors, n_monitors, sizeof(*monitors), by_name);
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP khealthd_%s %s\n# TYPE khealthd_%s %s\n", name, help,
		name, type);
}

static void print_states(FILE *out)
{
	static const char *const states[] = { "off", "ok", "low", "exhausted" };
	unsigned int i, s;

	head(out, "state", "gauge", "1 for the state that the monitor is in.");
	for (i = 0; i < n_monitors; i++)
		for (s = 0; s < ARRAY_SIZE(states); s++)
			fprintf(out, "khealthd_state{monitor=\"%s\",code=\"%s\",state=\"%s\"} %d\n",
				monitors[i].name, monitors[i].code, states[s],
				!strcmp(states[s], monitors[i].state));
}

static void print_counter(FILE *out, const char *file, const char *help)
{
	char name[64], value[32];
	unsigned int i;

	snprintf(name, sizeof(name), "%s_total", file);
	head(out, name, "counter", help);
	for (i = 0; i < n_monitors; i++)
		if (read_word(monitors[i].name, file, value, sizeof(value)))
			fprintf(out, "khealthd_%s{monitor=\"%s\",code=\"%s\"} %s\n",
				name, monitors[i].name, monitors[i].code, value);
}

static bool first_of_unit(unsigned int i)
{
	unsigned int j;

	for (j = 0; j < i; j++)
		if (!strcmp(monitors[j].unit, monitors[i].unit))
			return false;
	return true;
}

/* free and capacity, which are not there while all is well. */
static void print_level(FILE *out, const char *file, const char *help)
{
	char name[64], value[32];
	unsigned int i, j;
	bool headed;

	for (i = 0; i < n_monitors; i++) {
		if (!first_of_unit(i))
			continue;
		headed = false;
		snprintf(name, sizeof(name), "%s_%s", file, monitors[i].unit);
		for (j = i; j < n_monitors; j++) {
			if (strcmp(monitors[i].unit, monitors[j].unit) ||
			    !read_word(monitors[j].name, file, value,
				       sizeof(value)))
				continue;
			if (!headed)
				head(out, name, "gauge", help);
			headed = true;
			fprintf(out, "khealthd_%s{monitor=\"%s\",code=\"%s\"} %s\n",
				name, monitors[j].name, monitors[j].code, value);
		}
	}
}

static void print_helper(FILE *out, const char *file, const char *help)
{
	char name[64], value[32];

	if (!read_word("helper", file, value, sizeof(value)))
		return;
	snprintf(name, sizeof(name), "helper_%s_total", file);
	head(out, name, "counter", help);
	fprintf(out, "khealthd_%s %s\n", name, value);
}

/* What cannot be read is left out: 0 would say that all is well. */
static void print_queues(FILE *out)
{
	static const struct {
		const char *metric, *help;
		unsigned int (*count)(const char *output);
	} kinds[] = {
		{ "messages_waiting",
		  "Messages that wait to be sent by an output.", queue_count },
		{ "messages_aside",
		  "Messages that an output will never take.", aside_count },
	};
	unsigned int i, k;
	int dir;

	dir = state_dir(STATE_DIR, "", false);
	if (dir < 0)
		return;
	close(dir);
	head(out, "spool_waiting", "gauge",
	     "Alerts in the spool that nobody has sent yet.");
	fprintf(out, "khealthd_spool_waiting %u\n", spool_count());
	outputs_find();
	for (k = 0; k < ARRAY_SIZE(kinds); k++) {
		head(out, kinds[k].metric, "gauge", kinds[k].help);
		for (i = 0; i < n_outputs; i++)
			fprintf(out, "khealthd_%s{output=\"%s\"} %u\n",
				kinds[k].metric, outputs[i],
				kinds[k].count(outputs[i]));
	}
}

static void print_all(FILE *out)
{
	char value[32];

	find_monitors();
	print_states(out);
	print_level(out, "free", "Free space of the worst episode that goes on.");
	print_level(out, "capacity", "The capacity that belongs to it.");
	print_counter(out, "crossings", "Crossings of the low watermark since boot.");
	print_counter(out, "alerts", "Alerts since boot.");
	print_counter(out, "suppressed",
		      "Episodes without an alert of their own since boot.");
	print_helper(out, "runs", "Starts of the helper since boot.");
	print_helper(out, "failures", "Runs of the helper that failed since boot.");
	print_helper(out, "start_failures",
		     "Those of them in which it could not be started.");
	print_helper(out, "exit_failures",
		     "Those of them in which it ended with another status than 0.");
	print_helper(out, "signal_failures",
		     "Those of them in which a signal ended it.");
	print_helper(out, "retries", "Starts that were tried again since boot.");
	print_helper(out, "timeouts",
		     "Runs of the helper that took too long since boot.");
	print_helper(out, "dropped",
		     "Alerts since boot that the helper was not run for.");
	if (read_word("helper", "last_status", value, sizeof(value))) {
		head(out, "helper_last_status", "gauge",
		     "How the last run of the helper ended: 0 is well.");
		fprintf(out, "khealthd_helper_last_status %s\n", value);
	}
	print_queues(out);
}

/* Root writes into no folder of anybody else's: he could put a link there. */
static int write_file(const char *path)
{
	char folder[300], why[400], *name, *text = NULL;
	size_t size;
	FILE *out;
	int dir, err;

	copy(folder, sizeof(folder), path);
	name = strrchr(folder, '/');
	if (path[0] != '/' || !name || !name[1] || strlen(path) >= sizeof(folder))
		return nothing_to_do("metrics --file wants the whole path of a file");
	*name++ = '\0';
	if (geteuid() == 0)
		dir = trusted_open(folder, O_RDONLY | O_DIRECTORY, why, sizeof(why));
	else
		dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return nothing_to_do("metrics: %s", geteuid() ? strerror(errno) : why);
	out = open_memstream(&text, &size);
	if (!out)
		return 3;
	print_all(out);
	fclose(out);
	err = write_new_at(dir, name, text, size, 0644);
	if (err)
		nothing_to_do("metrics: %s cannot be written: %s", path,
			      strerror(errno));
	free(text);
	close(dir);
	return err ? 3 : 0;
}

int cmd_metrics(int argc, char **argv)
{
	conf_read();
	if (argc == 3 && !strcmp(argv[1], "--file"))
		return write_file(argv[2]);
	if (argc > 1)
		return nothing_to_do("metrics: unknown argument '%s'", argv[1]);
	print_all(stdout);
	return n_monitors ? 0 :
	       nothing_to_do("this kernel has no khealthd (CONFIG_KHEALTHD)");
}
