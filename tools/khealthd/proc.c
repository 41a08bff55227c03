// SPDX-License-Identifier: GPL-2.0
/* Processes, as /proc shows them: who holds a socket, and what is he doing? */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "khealth.h"

/* The next process of /proc, or 0. */
pid_t proc_next(void *dir)
{
	struct dirent *e;

	while ((e = readdir(dir)))
		if (isdigit((unsigned char)e->d_name[0]))
			return atoi(e->d_name);
	return 0;
}

static ssize_t read_of(pid_t pid, const char *file, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	return read_at(AT_FDCWD, path, buf, size);
}

/*
 * What is read is cleaned before it goes to where it is wanted, here and below: that
 * can be memory that others look at when our time is up.
 */
bool proc_comm(pid_t pid, char *buf, size_t size)
{
	char comm[64];

	if (read_of(pid, "comm", comm, sizeof(comm)) < 0)
		return false;
	clean(comm);
	copy(buf, size, comm);
	return true;
}

const char *proc_state_word(char state)
{
	switch (state) {
	case 'T':	return "stopped by a signal";
	case 't':	return "stopped by a debugger";
	case 'D':	return "stuck in the kernel (state D)";
	case 'Z':	return "a zombie";
	case 'R':	return "running";
	case 'S':	return "asleep, as one that waits for something";
	default:	return NULL;
	}
}

static void read_state(pid_t pid, struct holder *h)
{
	char buf[512], *end;

	/* The name, in parentheses, can have anything in it. */
	if (read_of(pid, "stat", buf, sizeof(buf)) < 0)
		return;
	end = strrchr(buf, ')');
	if (end && end[1] == ' ')
		h->state = end[2];
}

/* The cgroup v2, or with v1 the one that systemd keeps. */
static void read_cgroup(pid_t pid, struct holder *h)
{
	char buf[4096], found[sizeof(h->cgroup)] = "", *line, *save = NULL, *path;

	if (read_of(pid, "cgroup", buf, sizeof(buf)) < 0)
		return;
	for (line = strtok_r(buf, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		path = NULL;
		if (!strncmp(line, "0::", 3))
			path = line + 3;
		else
			path = strstr(line, ":name=systemd:");
		if (path && path[0] == ':')
			path += strlen(":name=systemd:");
		if (!path || (found[0] && !strcmp(path, "/")))
			continue;
		copy(found, sizeof(found), path);
	}
	clean(found);
	copy(h->cgroup, sizeof(h->cgroup), found);
	cgroup_unit(h->cgroup, h->unit, sizeof(h->unit));
	cgroup_container(h->cgroup, h->container, sizeof(h->container));
}

static void read_cmdline(pid_t pid, struct holder *h)
{
	char buf[sizeof(h->cmdline)];
	ssize_t n = read_of(pid, "cmdline", buf, sizeof(buf)), i;

	for (i = 0; i < n; i++)
		if (!buf[i])
			buf[i] = ' ';
	if (n < 0)
		return;
	clean(buf);
	memcpy(h->cmdline, buf, sizeof(buf));
}

/* The command line last: that read can hang as long as the process does. */
void proc_describe(pid_t pid, struct holder *h)
{
	struct stat st;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (!stat(path, &st))
		h->uid = st.st_uid;
	proc_comm(pid, h->comm, sizeof(h->comm));
	read_state(pid, h);
	read_cgroup(pid, h);
	h->pid = pid;
	read_cmdline(pid, h);
}

static bool has_cookie(int pidfd, int number, uint64_t cookie)
{
	socklen_t len = sizeof(cookie);
	uint64_t is = 0;
	int fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);

	if (fd < 0)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &is, &len))
		is = 0;
	close(fd);
	return is && is == cookie;
}

/* Does it hold the socket: by its inode, or if that is not known, by its cookie? */
static bool holds(pid_t pid, uint64_t inode, uint64_t cookie)
{
	char path[32], wanted[40], is[40];
	struct dirent *e;
	bool found = false;
	int pidfd = -1;
	ssize_t n;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	snprintf(wanted, sizeof(wanted), "socket:[%llu]",
		 (unsigned long long)inode);
	dir = opendir(path);
	if (dir && !inode)
		pidfd = syscall(SYS_pidfd_open, pid, 0);
	while (dir && !found && facts_time_left() && (e = readdir(dir))) {
		n = readlinkat(dirfd(dir), e->d_name, is, sizeof(is) - 1);
		if (n < 0)
			continue;
		is[n] = '\0';
		if (inode)
			found = !strcmp(is, wanted);
		else if (!strncmp(is, "socket:[", 8) && pidfd >= 0)
			found = has_cookie(pidfd, atoi(e->d_name), cookie);
	}
	if (pidfd >= 0)
		close(pidfd);
	if (dir)
		closedir(dir);
	return found;
}

/* Is the process of the user that the alert names? */
static bool is_owners(DIR *proc, pid_t pid, const struct alert *a)
{
	struct stat st;
	char name[16];

	snprintf(name, sizeof(name), "%d", pid);
	return known(a, V_UID) && !fstatat(dirfd(proc), name, &st, AT_SYMLINK_NOFOLLOW) &&
	       st.st_uid == a->num[V_UID];
}

/*
 * Who holds the alert's socket now. Process 1 may hold it as well, for services
 * that it starts when something comes in; they are who reads it. First the
 * processes of the socket's owner: another user's many files cannot take the time.
 */
bool proc_find_holder(const struct alert *a, uint64_t inode, struct holder *h)
{
	pid_t pid, best = 0, self = getpid();
	DIR *dir = opendir("/proc");
	bool owners = true;
	int number = 0;

	for (int turn = 0; dir && turn < 2; turn++, owners = false) {
		rewinddir(dir);
		while (facts_time_left() && (pid = proc_next(dir))) {
			if (pid == self || is_owners(dir, pid, a) != owners ||
			    !holds(pid, inode, a->num[V_SOCK_COOKIE]))
				continue;
			number++;
			if (best > 1)
				continue;
			best = pid;
			h->pid = pid;
		}
	}
	if (dir)
		closedir(dir);
	if (!best)
		return false;
	h->more = number - 1;
	proc_describe(best, h);
	return true;
}
