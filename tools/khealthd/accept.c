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
	spool_remove(dir, output, name);
	close(dir);
}

/*
 * What waits of the same instance may be void now: a low that did not last, or for
 * Alertmanager all that is older. Returns why the new one is not to be sent, or NULL.
 */
static const char *supersede(const char *output, struct json_object *entry,
			     const struct waiting *new, time_t now)
{
	bool worse = json_int(entry, "over") || new->rank == 0;
	bool latest = !strcmp(output, "alertmanager");
	const char *void_for = NULL;
	struct waiting *list;
	unsigned int number = waiting_list(output, &list), i;

	for (i = 0; i < number; i++) {
		bool early = list[i].due > (uint64_t)now && !list[i].attempts;

		if (list[i].key != new->key || !new->key)
			continue;
		if (early && worse && list[i].rank == event_rank("low")) {
			if (new->rank == event_rank("recovered"))
				void_for = "it was short";
		} else if (!latest) {
			continue;
		} else if (!waiting_newer(new, &list[i]) &&
			   list[i].time <= (uint64_t)now) {
			if (list[i].seq != new->seq)
				void_for = "there is a newer one";
			continue;
		}
		forget(output, &list[i]);
	}
	free(list);
	return void_for;
}

/* No more than so many wait: the least of them go, however often they were tried. */
static void bound(const char *output)
{
	unsigned int most = conf_num("waiting_max"), number;
	struct waiting *list;

	number = waiting_list(output, &list);
	if (number > most) {
		complain("%s: %u message(s) are given up: too many wait", output,
			 number - most);
		qsort(list, number, sizeof(*list), waiting_worse);
	}
	while (number > most)
		forget(output, &list[--number]);
	free(list);
}

/*
 * A link where the message is already, if it is in a spool, or else a copy where
 * there is room for it. False: it is in no queue.
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
		complain("%s: a message cannot be put into the queue%s", output,
			 from ? ": it stays in the spool" : "");
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
	const char *void_for;

	if (!output_wants(output, event)) {
		result_set(output, entry, "off");
		return true;
	}
	void_for = supersede(output, entry, &w, now);
	if (void_for) {
		result_set(output, entry, "not sent: %s", void_for);
		return true;
	}
	if (!strcmp(event, "low") && lasted < least) {
		if (json_int(entry, "over")) {
			result_set(output, entry, "not sent: it was short");
			return true;
		}
		w.due = w.time + least - lasted;
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

/* False: it stays there. */
static bool accept_file(unsigned int base, int spool, const char *name)
{
	struct json_object *entry = entry_load(spool, name);
	bool accepted = true;

	if (entry) {
		accepted = accept_entry(entry, base, spool, name);
		json_object_put(entry);
	} else if (errno != EBADMSG) {
		complain("%s/spool/%s cannot be read: %s", state_bases[base],
			 name, strerror(errno));
		accepted = false;
	} else {
		complain("%s/spool/%s is no message, and is set aside",
			 state_bases[base], name);
		set_aside(spool, name, "spool");
	}
	return accepted && spool_remove(spool, "spool", name) >= 0;
}

/*
 * The oldest first, as their names are sorted. What stays in the spool is for the
 * next run: it may be that there is room then.
 */
static bool accept_from(unsigned int base)
{
	int spool = state_dir(state_bases[base], "spool", false), n, i;
	int gone = base ? -1 : gone_open();
	unsigned int number = 0;
	struct dirent **list;
	bool done = true;

	n = spool < 0 ? 0 : scandirat(spool, ".", &list, NULL, alphasort);
	for (i = 0; i < n; i++) {
		if (list[i]->d_name[0] == '.')
			clear_half(spool, list[i]->d_name);
		else if (!is_gone(gone, spool, "spool", list[i]->d_name) &&
			 number++ < 1000)
			done &= accept_file(base, spool, list[i]->d_name);
		free(list[i]);
	}
	if (n > 0)
		free(list);
	if (spool >= 0)
		close(spool);
	if (gone >= 0)
		close(gone);
	return done && n >= 0;
}

static void put_digest(const char *output, time_t now)
{
	struct waiting w = { .time = now, .rank = event_rank("digest") };
	struct json_object *entry = limit_digest(output, now);

	if (entry)
		put(output, N_BASES, &w, -1, NULL, entry);
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
