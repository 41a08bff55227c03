// SPDX-License-Identifier: GPL-2.0
/* Files, words, and errors. What is read is bounded, and made printable. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "khealth.h"

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Seconds since the boot, those asleep as well: nobody sets this clock. */
int64_t uptime(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec;
}

/* Text of somebody else's: one line of printable ASCII. */
void clean(char *s)
{
	size_t len = strlen(s);

	while (len && (s[len - 1] == '\n' || s[len - 1] == ' '))
		s[--len] = '\0';
	for (; *s; s++) {
		if (*s == '\n' || *s == '\t')
			*s = ' ';
		else if (*s < ' ' || *s > '~')
			*s = '?';
	}
}

void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
}

ssize_t read_fd(int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size - 1) {
		n = read(fd, buf + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += n;
	}
	buf[len] = '\0';
	return len;
}

ssize_t read_at(int dir, const char *path, char *buf, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
			O_NOFOLLOW);
	ssize_t n;

	buf[0] = '\0';
	if (fd < 0)
		return -1;
	n = read_fd(fd, buf, size);
	if (n < 0)
		buf[0] = '\0';
	close(fd);
	return n;
}

bool first_line(const char *path, char *buf, size_t size)
{
	if (read_at(AT_FDCWD, path, buf, size) < 0)
		return false;
	buf[strcspn(buf, "\n")] = '\0';
	clean(buf);
	return true;
}

/* A whole number, as the kernel writes it: no sign, no blanks, no leading 0. */
bool parse_u64(const char *s, uint64_t *value)
{
	size_t len = strspn(s, "0123456789");
	uint64_t number;

	if (!len || len > 20 || s[len] || (s[0] == '0' && len > 1))
		return false;
	errno = 0;
	number = strtoull(s, NULL, 10);
	if (errno)
		return false;
	*value = number;
	return true;
}

bool read_u64(const char *path, uint64_t *value)
{
	char buf[64];

	return first_line(path, buf, sizeof(buf)) && parse_u64(buf, value);
}

/* Root's, and nobody else can write to it? */
static bool is_roots(int fd, const char *path, char *why, size_t size)
{
	struct stat st;

	if (fstat(fd, &st)) {
		snprintf(why, size, "%s: %s", path, strerror(errno));
		return false;
	}
	if (st.st_uid || (!S_ISLNK(st.st_mode) && (st.st_mode & 022))) {
		snprintf(why, size,
			 "%s is not root's, or others can write to it", path);
		return false;
	}
	return true;
}

/* The rest of the path, with a link's target in place of the link. */
static bool splice_link(int fd, char *rest, size_t size, int *dir)
{
	char target[PATH_MAX], joined[2 * PATH_MAX];
	ssize_t n = readlinkat(fd, "", target, sizeof(target) - 1);

	if (n <= 0)
		return false;
	target[n] = '\0';
	if (snprintf(joined, sizeof(joined), "%s/%s", target, rest) >=
	    (int)size)
		return false;
	memcpy(rest, joined, strlen(joined) + 1);
	if (target[0] == '/') {
		close(*dir);
		*dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	return *dir >= 0;
}

/*
 * Open a file of which each directory on the way, each link, and itself are
 * root's alone: nobody else can have put it there, now or while we look.
 */
int trusted_open(const char *path, int flags, char *why, size_t size)
{
	char rest[PATH_MAX], part[NAME_MAX + 1];
	int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), fd, steps;
	struct stat st;

	copy(rest, sizeof(rest), path);
	for (steps = 0; dir >= 0 && steps < 64; steps++) {
		char *p = rest + strspn(rest, "/");
		size_t len = strcspn(p, "/");

		if (!len || len > NAME_MAX)
			break;
		snprintf(part, sizeof(part), "%.*s", (int)len, p);
		memmove(rest, p + len, strlen(p + len) + 1);
		fd = openat(dir, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st)) {
			snprintf(why, size, "%s: %s", path, strerror(errno));
			close(dir);
			return -1;
		}
		if (!is_roots(fd, path, why, size)) {
			close(fd);
			close(dir);
			errno = EPERM;
			return -1;
		}
		if (S_ISLNK(st.st_mode)) {
			bool good = splice_link(fd, rest, sizeof(rest), &dir);

			close(fd);
			if (!good)
				break;
			continue;
		}
		if (!rest[strspn(rest, "/")]) {
			char self[64];

			close(dir);
			if (flags & O_PATH)
				return fd;
			snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
			dir = open(self, flags | O_CLOEXEC | O_NONBLOCK);
			if (dir < 0)
				snprintf(why, size, "%s: %s", path,
					 strerror(errno));
			close(fd);
			return dir;
		}
		close(dir);
		dir = fd;
	}
	if (dir >= 0)
		close(dir);
	snprintf(why, size, "%s cannot be opened", path);
	errno = EINVAL;
	return -1;
}

bool is_trusted(const char *path, char *why, size_t size)
{
	int fd = trusted_open(path, O_PATH, why, size);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* A file that nobody sees half of, and that is on the disk when it has a name. */
int write_new_at(int dir, const char *name, const char *data, size_t len,
		 mode_t mode)
{
	char new[NAME_MAX + 1];
	struct stat st;
	int fd, err;

	snprintf(new, sizeof(new), ".%.200s.new", name);
	unlinkat(dir, new, 0);
	fd = openat(dir, new, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW |
		    O_CLOEXEC, mode);
	if (fd < 0)
		return -1;
	/* It is of whoever the folder is of: the one that is to read it. */
	if (!fstat(dir, &st) && geteuid() == 0 && st.st_uid &&
	    fchown(fd, st.st_uid, st.st_gid))
		goto fail;
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			goto fail;
		data += n;
		len -= n;
	}
	if (fchmod(fd, mode) || fsync(fd) || renameat(dir, new, dir, name))
		goto fail;
	close(fd);
	return fsync(dir);

fail:
	err = errno;
	close(fd);
	unlinkat(dir, new, 0);
	errno = err;
	return -1;
}

void print_time(char *buf, size_t size, time_t when)
{
	struct tm tm;

	if (!localtime_r(&when, &tm) ||
	    !strftime(buf, size, "%Y-%m-%d %H:%M:%S %z", &tm))
		snprintf(buf, size, "%lld", (long long)when);
}

/* To syslog, or else to the kernel's log; one that hangs is not waited for long. */
static void to_log(const char *line)
{
	struct sockaddr_un log = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	struct timeval patience = { .tv_usec = 200000 };
	char record[540];
	ssize_t done;
	int fd, len;

	len = snprintf(record, sizeof(record), "<27>khealth: %s", line);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	done = sendto(fd, record, len, 0, (void *)&log, sizeof(log));
	if (fd >= 0)
		close(fd);
	if (done == len)
		return;
	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	len = snprintf(record, sizeof(record), "<3>khealth: %s\n", line);
	if (fd >= 0 && write(fd, record, len) < 0)
		len = 0;		/* there is nobody else to tell */
	if (fd >= 0)
		close(fd);
}

/* To whoever looks after this program: a helper has no terminal. */
void complain(const char *format, ...)
{
	char line[500];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	clean(line);
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "khealth: %s\n", line);
	else
		to_log(line);
}

/* What a command says when it cannot do what it is for; status 3, unknown. */
int nothing_to_do(const char *format, ...)
{
	va_list args;

	fputs("khealth: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return 3;
}
