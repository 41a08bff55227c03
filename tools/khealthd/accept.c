// SPDX-License-Identifier: GPL-2.0
/* From the spool into the queue of each output that is to have it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "khealth.h"

static bool is_silenced(struct json_object *entry, time_t now)
{
	struct json_object *list, *pair;
	struct match_words w = { 0 };
	size_t i;

	if (!json_object_object_get_ex(entry, "match", &list) ||
	    !json_object_is_type(list, json_type_array))
		return false;
	for (i = 0; i < json_object_array_length(list) &&
	     w.number < ARRAY_SIZE(w.name); i++) {
		pair = json_object_array_get_idx(list, i);
		w.name[w.number] = json_str(pair, "name");
		copy(w.value[w.number++], sizeof(w.value[0]),
		     json_str(pair, "value"));
	}
	return rule_silenced(&w, now);
}

static void forget(const char *output, const struct waiting *w)
{
	int dir = queue_dir(w->base, output, false);
	char name[128];

	waiting_name(w, name, sizeof(name));
	if (dir < 0)
		return;
	unlinkat(dir, name, 0);
	close(dir);
}

/*
 * What waits of the same instance may be void now: a low that did not last, or for
 * Alertmanager all that is older. Returns whether a low was cancelled.
 */
static bool supersede(const char *output, struct json_object *entry,
		      const struct waiting *new, time_t now)
{
	bool latest = !strcmp(output, "alertmanager"), cancelled = false;
	bool worse = json_int(entry, "over") || new->rank == 0;
	struct waiting *list;
	unsigned int number = waiting_list(output, &list), i;

	for (i = 0; i < number; i++) {
		bool early = list[i].due > (uint64_t)now && !list[i].attempts;

		if (list[i].key != new->key || !new->key)
			continue;
		if (early && worse && list[i].rank == event_rank("low"))
			cancelled = true;
		else if (!latest || list[i].time > new->time)
			continue;
		forget(output, &list[i]);
	}
	free(list);
	return cancelled;
}

/* No more than so many wait: the last in the order go. */
static void bound(const char *output)
{
	unsigned int most = conf_num("waiting_max"), number;
	struct waiting *list;

	number = waiting_list(output, &list);
	if (number > most)
		complain("%s: %u message(s) are given up: too many wait", output,
			 number - most);
	while (number > most)
		forget(output, &list[--number]);
	free(list);
}

/*
 * A link where the message is already, or else a copy where there is room for it.
 * False: it is in no queue.
 */
static bool put(const char *output, unsigned int base, const struct waiting *w,
		int spool, const char *from, struct json_object *entry)
{
	const char *text = json_text(entry);
	bool done = false;
	char name[128];
	unsigned int i;
	int dir;

	waiting_name(w, name, sizeof(name));
	for (i = 0; i < N_BASES && !done; i++) {
		dir = queue_dir(i, output, true);
		if (dir < 0)
			continue;
		done = i == base &&
		       (!linkat(spool, from, dir, name, 0) || errno == EEXIST);
		done = done || !write_new_at(dir, name, text, strlen(text), 0600);
		close(dir);
	}
	if (!done)
		complain("%s: a message cannot be put into the queue: it stays in the spool",
			 output);
	return done;
}

/* False: it is to be tried again. */
static bool accept_for(const char *output, struct json_object *entry,
		       unsigned int base, int spool, const char *name)
{
	const char *event = json_str(entry, "event");
	time_t now = time(NULL);
	struct waiting w = {
		.time = json_int(entry, "time"),
		.seq = json_int(entry, "seq"),
		.rank = event_rank(event),
		.key = strtoull(json_str(entry, "key"), NULL, 16),
	};
	uint64_t least = strcmp(output, "log") ? conf_num("min_duration") : 0;
	uint64_t lasted = json_int(entry, "duration_ms") / 1000;
	bool cancelled;

	if (!output_wants(output, event)) {
		result_set(output, entry, "off");
		return true;
	}
	cancelled = supersede(output, entry, &w, now);
	if (!strcmp(event, "low") && lasted < least) {
		if (json_int(entry, "over")) {
			result_set(output, entry, "not sent: it was short");
			return true;
		}
		w.due = w.time + least - lasted;
	}
	if (cancelled && !strcmp(event, "recovered")) {
		result_set(output, entry, "not sent: it was short");
		return true;
	}
	if (!limit_pass(output, entry, now)) {
		result_set(output, entry, "held back by the limit");
		return true;
	}
	if (!put(output, base, &w, spool, name, entry))
		return false;
	bound(output);
	return true;
}

static bool accept_entry(struct json_object *entry, unsigned int base, int spool,
			 const char *name)
{
	bool silenced = is_silenced(entry, time(NULL)), done = true;
	unsigned int i;

	for (i = 0; i < n_outputs; i++) {
		if (silenced && strcmp(outputs[i], "log"))
			result_set(outputs[i], entry, "not sent: silenced");
		else
			done &= accept_for(outputs[i], entry, base, spool, name);
	}
	return done;
}

/* What a helper that was killed left behind. */
static void clear_half(int spool, const char *name)
{
	struct stat st;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return;
	if (!fstatat(spool, name, &st, AT_SYMLINK_NOFOLLOW) &&
	    st.st_mtime < time(NULL) - 60)
		unlinkat(spool, name, 0);
}

/* What stays in the spool is for the next run: it may be that there is room then. */
static bool accept_from(unsigned int base)
{
	int spool = state_dir(state_bases[base], "spool", false);
	DIR *d = spool < 0 ? NULL : fdopendir(dup(spool));
	struct json_object *entry;
	unsigned int number = 0;
	bool accepted, done = true;
	struct dirent *e;

	while (d && number < 1000 && (e = readdir(d))) {
		if (e->d_name[0] == '.') {
			clear_half(spool, e->d_name);
			continue;
		}
		number++;
		entry = entry_load(spool, e->d_name);
		if (entry) {
			accepted = accept_entry(entry, base, spool, e->d_name);
			json_object_put(entry);
			if (accepted)
				unlinkat(spool, e->d_name, 0);
			done &= accepted;
		} else {
			complain("%s/spool/%s is no message, and is set aside",
				 state_bases[base], e->d_name);
			set_aside(spool, e->d_name, "spool");
		}
	}
	if (d)
		closedir(d);
	if (spool >= 0)
		close(spool);
	return done;
}

static void put_digest(const char *output, time_t now)
{
	struct waiting w = { .time = now, .rank = event_rank("digest") };
	struct json_object *entry = limit_digest(output, now);
	const char *text;
	char name[128];
	int dir;

	if (!entry)
		return;
	waiting_name(&w, name, sizeof(name));
	text = json_text(entry);
	dir = queue_dir(0, output, true);
	if (dir >= 0) {
		write_new_at(dir, name, text, strlen(text), 0600);
		close(dir);
	}
	json_object_put(entry);
}

/* False: not all of it could be taken, and this run is not to try it again. */
bool accept_all(void)
{
	time_t now = time(NULL);
	unsigned int base, i;
	bool done = true;

	for (i = 0; i < n_outputs; i++)
		if (output_wants(outputs[i], "digest"))
			put_digest(outputs[i], now);
	for (base = 0; base < N_BASES; base++)
		done &= accept_from(base);
	limit_save();
	return done;
}
