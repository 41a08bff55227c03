/* SPDX-License-Identifier: GPL-2.0 */
/*
 * khealthd's files in /proc/sys and /sys, a helper, and how long to wait for what
 * they say; and how a test gets below khealthd_guard.
 */
#ifndef KHEALTHD_UTIL_H
#define KHEALTHD_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSCTL	"/proc/sys/kernel/khealthd/"
#define SYSFS	"/sys/kernel/khealthd/"

/* A trace of the tests' own: nobody else's is changed. */
#define TRACING	"/sys/kernel/tracing/instances/khealthd/"

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

/* Has that file of a process, of strings that end with NULs, @text in it? */
static inline bool proc_has(const char *path, const char *text)
{
	static char data[1 << 16];
	int fd = open(path, O_RDONLY);
	ssize_t len = read(fd, data, sizeof(data));

	close(fd);
	return len > 0 && memmem(data, len, text, strlen(text));
}

/* How many processes run that are helpers in @dir, or know it? Kill them. */
static inline int kill_each(const char *dir)
{
	char path[PATH_MAX];
	glob_t found;
	int n = 0;
	size_t i;
	pid_t pid;

	if (glob("/proc/[0-9]*", 0, NULL, &found))
		return 0;
	for (i = 0; i < found.gl_pathc; i++) {
		pid = atoi(found.gl_pathv[i] + strlen("/proc/"));
		/* A helper, with all that it started. */
		snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
		if (proc_has(path, dir))
			n += !kill(-pid, SIGKILL);
		snprintf(path, sizeof(path), "/proc/%d/environ", pid);
		if (proc_has(path, dir))
			n += !kill(pid, SIGKILL);
	}
	globfree(&found);
	return n;
}

static inline void kill_users(const char *dir)
{
	wait_until(!kill_each(dir));
}

/* Let main() begin again below khealthd_guard, which puts everything back. */
static inline void need_guard(char **argv)
{
	char self[PATH_MAX] = "", guard[PATH_MAX], **args;
	int n;

	if (getenv("KHEALTHD_DIR"))
		return;
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		self[0] = '\0';
	snprintf(guard, sizeof(guard), "%.*s/khealthd_guard",
		 (int)(strrchr(self, '/') - self), self);
	for (n = 0; argv[n]; n++)
		;
	args = calloc(n + 2, sizeof(*args));
	memcpy(args + 1, argv, n * sizeof(*args));
	args[0] = guard;
	args[1] = self;
	execv(guard, args);
	perror(guard);
	exit(1);
}

#endif /* KHEALTHD_UTIL_H */
