/* SPDX-License-Identifier: GPL-2.0 */
/*
 * khealthd's files in /proc/sys and /sys, a helper, and how long to wait for what
 * they say.
 */
#ifndef KHEALTHD_UTIL_H
#define KHEALTHD_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSCTL	"/proc/sys/kernel/khealthd/"
#define SYSFS	"/sys/kernel/khealthd/"

/* Long enough for a slow machine; nobody waits for it if all is well. */
#define PATIENCE_MS	60000

/* Read a file into @text, without its trailing newline. Return the length. */
static inline int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = read(fd, text, size - 1);
	if (len < 0)
		len = -errno;
	close(fd);
	if (len > 0 && text[len - 1] == '\n')
		len--;
	text[len > 0 ? len : 0] = '\0';
	return len;
}

/* Write all of @text with one write(). Return 0 or -errno. */
static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = write(fd, text, strlen(text));
	if (len < 0)
		len = -errno;
	close(fd);
	return len < 0 ? len : 0;
}

static inline int get_sysctl(const char *name, char *text, size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSCTL "%s", name);
	return read_file(path, text, size);
}

static inline int set_sysctl(const char *name, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSCTL "%s", name);
	return write_file(path, text);
}

static inline int get_sysfs(const char *name, char *text, size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSFS "%s", name);
	return read_file(path, text, size);
}

static inline long long get_count(const char *name)
{
	char text[32];

	return get_sysfs(name, text, sizeof(text)) < 0 ? -1 : atoll(text);
}

static inline bool state_is(const char *monitor, const char *state)
{
	char name[64], text[32];

	snprintf(name, sizeof(name), "%s/state", monitor);
	return get_sysfs(name, text, sizeof(text)) > 0 && !strcmp(text, state);
}

static inline int send_test(const char *monitor)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSFS "%s/test", monitor);
	return write_file(path, "1\n");
}

/*
 * Write the helper: it leaves its environment, and then does @more. A new file
 * takes the old one's place: a shell reads a script while it runs it.
 */
static inline int write_helper(const char *dir, const char *path, const char *more)
{
	char new[256];
	FILE *f;

	snprintf(new, sizeof(new), "%s.new", path);
	f = fopen(new, "w");
	if (!f)
		return -errno;
	fprintf(f, "#!/bin/sh\n"
		"cat /proc/$$/environ >%s/tmp.$$\n"
		"mv %s/tmp.$$ %s/alert.$KHEALTHD_SEQ\n"
		"%s\n", dir, dir, dir, more);
	fclose(f);
	return chmod(new, 0700) || rename(new, path);
}

/* Wait until @condition holds; evaluates to false if it never did. */
#define wait_until(condition) ({					\
	int _ms;							\
	bool _done = false;						\
									\
	for (_ms = 0; !(_done = (condition)) && _ms < PATIENCE_MS; _ms += 10) \
		usleep(10000);						\
	_done;								\
})

#endif /* KHEALTHD_UTIL_H */
