// SPDX-License-Identifier: GPL-2.0
/*
 * What waits. Below the state's folder, which is of the user that sends:
 *
 *   spool/           what the helper wrote, and nobody looked at yet
 *   queue/OUTPUT/    what waits for an output
 *   aside/OUTPUT/    what it will never take
 *   queue/.gone/     in memory: what is done with, but cannot be removed
 *
 * All of it is reached by open folders, and no link is ever followed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "khealth.h"

#define ASIDE_MAX	100
#define GONE		"queue/.gone"

/* The second one is for when the disk is full; it is gone after a boot. */
const char *const state_bases[N_BASES] = { STATE_DIR, RUN_DIR };

static int open_dir_at(int dir, const char *name, bool make, uid_t uid, gid_t gid)
{
	bool made = make && !mkdirat(dir, name, 0700);
	int fd;

	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && made && geteuid() == 0 && uid && fchown(fd, uid, gid)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* A folder that root has just made is of who sends, as the state's is. */
static void give_to_sender(int dir)
{
	struct stat st;

	fchmod(dir, 0711);
	if (!lstat(STATE_DIR, &st) && st.st_uid && fchown(dir, st.st_uid, st.st_gid))
		complain("a folder cannot be given to the user who sends: %s",
			 strerror(errno));
}

/* A folder below a base folder, which has to be of root's or of who we are. */
int state_dir(const char *base, const char *name, bool make)
{
	char rest[128], *part, *save = NULL, why[300];
	int dir, next;
	struct stat st;

	dir = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 && errno == ENOENT && make && geteuid() == 0) {
		/* /var/lib and /run are there, and are root's alone. */
		snprintf(rest, sizeof(rest), "%s", base);
		*strrchr(rest, '/') = '\0';
		if (!is_trusted(rest, why, sizeof(why)))
			return -1;
		mkdir(base, 0711);
		dir = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir >= 0)
			give_to_sender(dir);
	}
	if (dir < 0 || fstat(dir, &st))
		goto fail;
	copy(rest, sizeof(rest), name);
	for (part = strtok_r(rest, "/", &save); part;
	     part = strtok_r(NULL, "/", &save)) {
		next = open_dir_at(dir, part, make, st.st_uid, st.st_gid);
		close(dir);
		dir = next;
		if (dir < 0 || fstat(dir, &st))
			goto fail;
	}
	if (st.st_uid && st.st_uid != geteuid() && geteuid())
		goto fail;
	return dir;

fail:
	if (dir >= 0)
		close(dir);
	return -1;
}

/* Root becomes who the state's folder is of: in it, that one could fool him. */
bool become_sender(void)
{
	struct stat st;

	if (geteuid() || lstat(STATE_DIR, &st) || !st.st_uid)
		return true;
	return !setgroups(0, NULL) && !setgid(st.st_gid) && !setuid(st.st_uid);
}

int queue_dir(unsigned int base, const char *output, bool make)
{
	char path[64];

	snprintf(path, sizeof(path), "queue/%.32s", output);
	return state_dir(state_bases[base], path, make);
}

/* On the disk, or if that has no room, in memory: it is there till a reboot. */
int spool_put(const char *data, size_t len, time_t when, uint64_t seq)
{
	char name[64];
	int dir, err;
	size_t i;

	snprintf(name, sizeof(name), "%011lld.%020llu", (long long)when,
		 (unsigned long long)seq);
	for (i = 0; i < N_BASES; i++) {
		dir = state_dir(state_bases[i], "spool", true);
		if (dir < 0)
			continue;
		err = write_new_at(dir, name, data, len, 0600);
		close(dir);
		if (!err)
			return 0;
	}
	return -1;
}

unsigned int event_rank(const char *event)
{
	static const char *const ranks[] = { "exhausted", "low", "repeat",
		"recovered", "digest", "test" };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ranks) - 1 && strcmp(ranks[i], event); i++)
		;
	return i;
}

void waiting_name(const struct waiting *w, char *buf, size_t size)
{
	snprintf(buf, size, "%llu.%u.%llu.%llu.%016llx.%u",
		 (unsigned long long)w->due, w->rank, (unsigned long long)w->time,
		 (unsigned long long)w->seq, (unsigned long long)w->key,
		 w->attempts);
}

bool waiting_parse(const char *name, struct waiting *w)
{
	unsigned long long due, time, seq, key;
	char again[128];

	if (sscanf(name, "%llu.%u.%llu.%llu.%llx.%u", &due, &w->rank, &time, &seq,
		   &key, &w->attempts) != 6)
		return false;
	w->due = due;
	w->time = time;
	w->seq = seq;
	w->key = key;
	waiting_name(w, again, sizeof(again));
	return !strcmp(name, again);
}

bool waiting_newer(const struct waiting *a, const struct waiting *b)
{
	return a->time != b->time ? a->time > b->time : a->seq > b->seq;
}

/* For qsort(): the worst first, then the newest. */
int waiting_worse(const void *a, const void *b)
{
	const struct waiting *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return waiting_newer(x, y) ? -1 : waiting_newer(y, x);
}

/* What was tried already waits a little. */
static int compare(const void *a, const void *b)
{
	const struct waiting *x = a, *y = b;

	if (x->attempts != y->attempts)
		return x->attempts < y->attempts ? -1 : 1;
	return waiting_worse(a, b);
}

/*
 * Remove a message of an output's queue, or of the "spool". 1: it cannot be, as on a
 * disk that is read-only, but is_gone() knows; -1: it will be there again.
 */
int spool_remove(int dir, const char *output, const char *name)
{
	char mark[200];
	int gone, done;

	if (!unlinkat(dir, name, 0) || errno == ENOENT)
		return 0;
	complain("%s: a message cannot be taken out of the queue: %s", output,
		 strerror(errno));
	gone = state_dir(RUN_DIR, GONE, true);
	if (gone < 0)
		return -1;
	snprintf(mark, sizeof(mark), "%s:%s", output, name);
	done = write_new_at(gone, mark, "", 0, 0600) ? -1 : 1;
	close(gone);
	return done;
}

int gone_open(void)
{
	return state_dir(RUN_DIR, GONE, false);
}

/* It is not to be looked at any more; if it can be removed by now, it is. */
bool is_gone(int gone, int dir, const char *output, const char *name)
{
	char mark[200];

	snprintf(mark, sizeof(mark), "%s:%s", output, name);
	if (gone < 0 || faccessat(gone, mark, F_OK, 0))
		return false;
	if (!unlinkat(dir, name, 0))
		unlinkat(gone, mark, 0);
	return true;
}

static bool add_waiting(struct waiting **list, unsigned int *number,
			unsigned int *room, const struct waiting *w)
{
	struct waiting *more;

	if (*number == *room) {
		*room = *room ? *room * 2 : 64;
		more = realloc(*list, *room * sizeof(*w));
		if (!more)
			return false;
		*list = more;
	}
	(*list)[(*number)++] = *w;
	return true;
}

/* What waits for an output, in the order in which it is sent. */
unsigned int waiting_list(const char *output, struct waiting **list)
{
	unsigned int number = 0, room = 0, base;
	int fd, gone = gone_open();
	struct waiting w;
	struct dirent *e;
	DIR *d;

	*list = NULL;
	for (base = 0; base < N_BASES; base++) {
		fd = queue_dir(base, output, false);
		d = fd < 0 ? NULL : fdopendir(fd);
		while (d && (e = readdir(d))) {
			if (!waiting_parse(e->d_name, &w) ||
			    is_gone(base ? -1 : gone, fd, output, e->d_name))
				continue;
			w.base = base;
			if (!add_waiting(list, &number, &room, &w))
				break;
		}
		if (d)
			closedir(d);
	}
	if (gone >= 0)
		close(gone);
	if (number)
		qsort(*list, number, sizeof(w), compare);
	return number;
}

/* How many files an open folder has; it is closed. */
static unsigned int dir_count(int dir)
{
	DIR *d = dir < 0 ? NULL : fdopendir(dir);
	unsigned int number = 0;
	struct dirent *e;

	while (d && (e = readdir(d)))
		number += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return number;
}

/* How many alerts wait in the spool for the sender. */
unsigned int spool_count(void)
{
	unsigned int base, number = 0;

	for (base = 0; base < N_BASES; base++)
		number += dir_count(state_dir(state_bases[base], "spool", false));
	return number;
}

/* How many messages wait for an output. */
unsigned int queue_count(const char *output)
{
	unsigned int base, number = 0;

	for (base = 0; base < N_BASES; base++)
		number += dir_count(queue_dir(base, output, false));
	return number;
}

/* How many an output will never take. */
unsigned int aside_count(const char *output)
{
	char path[64];

	snprintf(path, sizeof(path), "aside/%.32s", output);
	return dir_count(state_dir(STATE_DIR, path, false));
}

static void bound_aside(int dir)
{
	char oldest[256] = "";
	struct timespec best = { 0 };
	unsigned int number = 0;
	struct dirent *e;
	struct stat st;
	DIR *d = fdopendir(dup(dir));

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' ||
		    fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		number++;
		if (!oldest[0] || st.st_ctim.tv_sec < best.tv_sec) {
			best = st.st_ctim;
			copy(oldest, sizeof(oldest), e->d_name);
		}
	}
	if (d)
		closedir(d);
	if (number > ASIDE_MAX)
		unlinkat(dir, oldest, 0);
}

/* What cannot be sent is not in front of what can. */
void set_aside(int dir, const char *name, const char *output)
{
	char path[64];
	int aside;

	snprintf(path, sizeof(path), "aside/%.32s", output);
	aside = state_dir(STATE_DIR, path, true);
	if (aside < 0 || renameat(dir, name, aside, name))
		unlinkat(dir, name, 0);
	if (aside < 0)
		return;
	bound_aside(aside);
	close(aside);
}

/*
 * NULL, with errno EBADMSG if it is no entry, or why it cannot be read now. What it
 * has is bounded, as what was written is.
 */
struct json_object *entry_load(int dir, const char *name)
{
	static const char *const needed[] = { "monitor", "event", "key", "text",
		"summary", "subject", "boot" };
	struct json_tokener *tokener;
	struct json_object *o = NULL;
	struct stat st;
	char *buf;
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int error = EBADMSG;
	ssize_t n = -1;
	size_t i;

	/* A link, or a socket. */
	if (fd < 0 && errno != ELOOP && errno != ENXIO)
		error = errno;
	buf = malloc(ENTRY_MAX + 1);
	if (!buf)
		error = ENOMEM;
	if (fd >= 0 && buf && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	    st.st_size <= ENTRY_MAX) {
		n = read_fd(fd, buf, ENTRY_MAX + 1);
		if (n < 0)
			error = errno;
	}
	if (fd >= 0)
		close(fd);
	tokener = n > 0 ? json_tokener_new_ex(8) : NULL;
	if (n > 0 && !tokener)
		error = ENOMEM;
	if (tokener) {
		o = json_tokener_parse_ex(tokener, buf, n);
		json_tokener_free(tokener);
	}
	free(buf);
	for (i = 0; o && i < ARRAY_SIZE(needed); i++) {
		if (*json_str(o, needed[i]))
			continue;
		json_object_put(o);
		o = NULL;
	}
	errno = error;
	return o;
}
