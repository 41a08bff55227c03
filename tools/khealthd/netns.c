// SPDX-License-Identifier: GPL-2.0
/* The network namespace that an alert names: its name, a way to enter it. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "khealth.h"

static struct stat own;

static bool is_it(int dir, const char *path, uint64_t inode)
{
	struct stat st;

	return !fstatat(dir, path, &st, 0) && st.st_ino == inode &&
	       st.st_dev == own.st_dev;
}

static int find_named(uint64_t inode, struct facts *f)
{
	struct dirent *e;
	DIR *dir = opendir("/run/netns");
	char name[sizeof(f->netns_name)];
	int fd = -1;

	while (dir && fd < 0 && facts_time_left() && (e = readdir(dir))) {
		if (!is_it(dirfd(dir), e->d_name, inode))
			continue;
		fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC);
		copy(name, sizeof(name), e->d_name);
		clean(name);
		copy(f->netns_name, sizeof(f->netns_name), name);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static int find_process(uint64_t inode, struct facts *f)
{
	DIR *dir = opendir("/proc");
	char path[32];
	int fd = -1;
	pid_t pid;

	while (dir && fd < 0 && facts_time_left() && (pid = proc_next(dir))) {
		snprintf(path, sizeof(path), "%d/ns/net", pid);
		if (!is_it(dirfd(dir), path, inode))
			continue;
		fd = openat(dirfd(dir), path, O_RDONLY | O_CLOEXEC);
		f->netns_pid = pid;
		proc_comm(pid, f->netns_comm, sizeof(f->netns_comm));
	}
	if (dir)
		closedir(dir);
	return fd;
}

/* A file to enter it by, or -1: it is our own, or it is not found. */
int netns_find(const struct alert *a, struct facts *f)
{
	uint64_t inode = a->num[V_NETNS];
	struct stat first;
	int fd;

	if (!known(a, V_NETNS) || stat("/proc/self/ns/net", &own))
		return -1;
	if (own.st_ino == inode) {
		if (stat("/proc/1/ns/net", &first) || first.st_ino == inode)
			copy(f->netns_name, sizeof(f->netns_name), "initial");
		return -1;
	}
	fd = find_named(inode, f);
	return fd < 0 ? find_process(inode, f) : fd;
}

/* The same, once it is found. */
int netns_open(const struct alert *a, const struct facts *f)
{
	struct stat st;
	char path[128];
	int fd;

	if (f->netns_pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/net", f->netns_pid);
	else if (f->netns_name[0] && strcmp(f->netns_name, "initial"))
		snprintf(path, sizeof(path), "/run/netns/%s", f->netns_name);
	else
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) || st.st_ino != a->num[V_NETNS])) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Enter it; what comes back is the way out. */
int netns_enter(int fd)
{
	int back;

	if (fd < 0)
		return -1;
	back = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (back >= 0 && setns(fd, CLONE_NEWNET)) {
		close(back);
		back = -1;
	}
	return back;
}

void netns_leave(int back)
{
	if (back < 0)
		return;
	if (setns(back, CLONE_NEWNET))
		complain("a network namespace cannot be left");
	close(back);
}
