// SPDX-License-Identifier: GPL-2.0
/*
 * What was sent: how many messages of one kind an output has in an hour, what became
 * of the last one, and the labels by which Alertmanager knows an instance. A bucket
 * is of an output, a monitor, an event and the socket's owner, so that no user can
 * use up another one's. How many users can have alerts, and how often, is the
 * kernel's to bound.
 */
#include <fcntl.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

#define WINDOW		3600
#define BUCKETS_MAX	500
#define LABELS_MAX	200	/* instances */
#define FILE_MAX	(1024 * 1024)	/* what 500 of them can have */

static struct json_object *buckets, *results, *sent_labels;
static bool dirty;

/* With the queue: the folder above it may be root's. */
static int open_dir(unsigned int base)
{
	return state_dir(state_bases[base], base ? "queue" : "", false);
}

static struct json_object *load_from(unsigned int base, const char *name)
{
	struct json_object *o = NULL;
	char *buf = malloc(FILE_MAX);
	int dir = open_dir(base);

	if (dir >= 0 && buf && read_at(dir, name, buf, FILE_MAX) > 0)
		o = json_tokener_parse(buf);
	free(buf);
	if (dir >= 0)
		close(dir);
	if (o && !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = NULL;
	}
	return o;
}

/* If it is in memory, that one is newer. */
static struct json_object *load(const char *name)
{
	struct json_object *o = NULL;
	unsigned int base;

	for (base = N_BASES; base-- && !o;)
		o = load_from(base, name);
	return o ? o : json_object_new_object();
}

/* On the disk, or if that has no room, in memory, as what waits is. */
static void save(const char *name, struct json_object *o)
{
	const char *text = json_text(o);
	unsigned int base;
	bool done = false;
	int dir;

	for (base = 0; base < N_BASES; base++) {
		dir = open_dir(base);
		if (dir < 0)
			continue;
		if (done)
			unlinkat(dir, name, 0);
		else
			done = !write_new_at(dir, name, text, strlen(text), 0600);
		close(dir);
	}
	if (!done)
		complain("what was sent cannot be noted: a limit may let more through");
}

void limit_load(void)
{
	buckets = load("limits");
	results = load("results");
	sent_labels = load("labels");
}

void limit_save(void)
{
	if (!dirty)
		return;
	dirty = false;
	save("limits", buckets);
	save("results", results);
}

struct json_object *results_load(void)
{
	return load("results");
}

static void put_int(struct json_object *o, const char *name, int64_t value)
{
	dirty = true;
	json_object_object_add(o, name, json_object_new_int64(value));
}

void result_set(const char *output, struct json_object *entry,
		const char *format, ...)
{
	struct json_object *o = json_object_new_object();
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put_int(o, "seq", json_int(entry, "seq"));
	put_int(o, "time", json_int(entry, "time"));
	json_put_str(o, "monitor", json_str(entry, "monitor"));
	json_put_str(o, "event", json_str(entry, "event"));
	json_put_str(o, "result", text);
	json_object_object_add(results, output, o);
}

/* Those that are over go; if that is not enough, the oldest one. */
static void make_room(time_t now)
{
	const char *oldest = NULL;
	int64_t start, first = INT64_MAX;
	struct json_object *left;

	if (json_object_object_length(buckets) < BUCKETS_MAX)
		return;
	left = json_object_new_object();
	json_object_object_foreach(buckets, name, b) {
		start = json_int(b, "start");
		if (start + WINDOW <= now && !json_int(b, "held"))
			continue;
		json_object_object_add(left, name, json_object_get(b));
		if (start < first) {
			first = start;
			oldest = name;
		}
	}
	if (oldest && json_object_object_length(left) >= BUCKETS_MAX)
		json_object_object_del(left, oldest);
	json_object_put(buckets);
	buckets = left;
}

static struct json_object *bucket(const char *name, time_t now)
{
	struct json_object *b;
	int64_t start;

	if (!json_object_object_get_ex(buckets, name, &b)) {
		make_room(now);
		b = json_object_new_object();
		json_object_object_add(buckets, name, b);
	}
	start = json_int(b, "start");
	if (start + WINDOW <= now || start > now) {
		put_int(b, "start", now);
		put_int(b, "sent", 0);
	}
	return b;
}

/* May it be sent? If not, it is counted, and a digest tells of it. */
bool limit_pass(const char *output, struct json_object *entry, time_t now)
{
	int64_t limit = conf_output_num(output, "limit");
	const char *event = json_str(entry, "event");
	struct json_object *b;
	char name[128];

	if (!limit || !strcmp(event, "test") || !strcmp(event, "digest"))
		return true;
	snprintf(name, sizeof(name), "%.31s %.32s %.32s %.20s", output,
		 json_str(entry, "monitor"), event, json_str(entry, "owner"));
	b = bucket(name, now);
	if (json_int(b, "sent") < limit) {
		put_int(b, "sent", json_int(b, "sent") + 1);
		return true;
	}
	put_int(b, "held", json_int(b, "held") + 1);
	json_put_str(b, "last", json_str(entry, "summary"));
	json_put_str(b, "host", json_str(entry, "host"));
	return false;
}

static struct json_object *digest_entry(const char *host, int64_t held,
					const char *text, time_t now)
{
	struct json_object *o = json_object_new_object();
	struct json_object *facts = json_object_new_object();
	char line[200];

	snprintf(line, sizeof(line), "%.64s: %lld more alert%s in the last hour",
		 host, (long long)held, held == 1 ? "" : "s");
	json_put_str(o, "summary", line);
	json_put_str(facts, "summary", line);
	snprintf(line, sizeof(line),
		 "[khealthd] %.64s: %lld more alert%s in the last hour", host,
		 (long long)held, held == 1 ? "" : "s");
	json_put_str(o, "subject", line);
	json_put_str(o, "boot", boot_id());
	json_put_str(o, "monitor", "digest");
	json_put_str(o, "event", "digest");
	json_put_str(o, "severity", "warning");
	json_put_str(o, "key", "0000000000000000");
	json_put_str(o, "host", host);
	json_put_str(o, "text", text);
	put_int(o, "time", now);
	put_int(facts, "time", now);
	put_int(facts, "held", held);
	json_put_str(facts, "event", "digest");
	json_put_str(facts, "host", host);
	json_put_str(facts, "text", text);
	json_object_object_add(o, "facts", facts);
	return o;
}

/* What was held back in an hour that is over, or NULL. */
struct json_object *limit_digest(const char *output, time_t now)
{
	struct json_object *entry = NULL;
	char host[65] = "localhost";
	size_t len = strlen(output), size;
	char *text = NULL;
	int64_t held, all = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "The limit (%s_limit) held these back; the log has each of them.\n\n",
		output);
	json_object_object_foreach(buckets, name, b) {
		held = json_int(b, "held");
		if (!held || strncmp(name, output, len) || name[len] != ' ' ||
		    json_int(b, "start") + WINDOW > now)
			continue;
		all += held;
		fprintf(out, "%6lld %s; the last one:\n       %s\n",
			(long long)held, name + len + 1, json_str(b, "last"));
		if (*json_str(b, "host"))
			copy(host, sizeof(host), json_str(b, "host"));
		put_int(b, "held", 0);
	}
	fclose(out);
	if (all)
		entry = digest_entry(host, all, text, now);
	free(text);
	return entry;
}

/* Those that have to be found out: the next time others are found, or none. */
static void copy_found(struct json_object *to, struct json_object *from)
{
	static const char *const found[] = { "netns", "service", "container" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(found); i++) {
		json_object_object_del(to, found[i]);
		json_put_str(to, found[i], json_str(from, found[i]));
	}
}

/* The oldest one goes: it is the first, as in a file that was read. */
static void remember(const char *name, struct json_object *first)
{
	if (json_object_object_length(sent_labels) >= LABELS_MAX)
		json_object_object_del(sent_labels,
				       json_object_get_object(sent_labels)->head->k);
	json_object_object_add(sent_labels, name, first);
	save("labels", sent_labels);
}

static void instance_name(struct json_object *entry, char *buf, size_t size)
{
	snprintf(buf, size, "%.64s %.16s", json_str(entry, "boot"),
		 json_str(entry, "key"));
}

static bool get_object(struct json_object *o, const char *name,
		       struct json_object **value)
{
	return json_object_object_get_ex(o, name, value) &&
	       json_object_is_type(*value, json_type_object);
}

/* What ends an alert must have its labels: the first ones stay until it is over. */
void labels_keep(struct json_object *entry)
{
	bool stays = !json_int(entry, "over") &&
		     strcmp(json_str(entry, "event"), "test");
	struct json_object *list, *labels, *first;
	char name[100];
	size_t i;

	if (!json_object_object_get_ex(entry, "alertmanager", &list) ||
	    !json_object_is_type(list, json_type_array))
		return;
	instance_name(entry, name, sizeof(name));
	for (i = 0; i < json_object_array_length(list); i++) {
		if (!get_object(json_object_array_get_idx(list, i), "labels",
				&labels))
			continue;
		if (get_object(sent_labels, name, &first)) {
			copy_found(labels, first);
		} else if (stays) {
			first = json_object_new_object();
			copy_found(first, labels);
			remember(name, first);
		}
	}
}

/* Once it is over, and that was sent, or will never be taken. */
void labels_forget(struct json_object *entry)
{
	char name[100];

	instance_name(entry, name, sizeof(name));
	if (!json_int(entry, "over") ||
	    !json_object_object_get_ex(sent_labels, name, NULL))
		return;
	json_object_object_del(sent_labels, name);
	save("labels", sent_labels);
}
