// SPDX-License-Identifier: GPL-2.0
/*
 * khealthd_guard PROGRAM [ARGUMENT...]: run a test, and put the machine back as it
 * was, however the test ended, and also if SIGINT, SIGTERM or SIGHUP ends this.
 *
 * What the test started is killed: it has the folder $KHEALTHD_DIR in its
 * environment, or is a helper in it. The folder is removed, and so are network
 * namespaces whose names begin with the folder's, and the trace instance. Settings
 * are written back.
 *
 * The folder is locked for as long as it is in use. One that nobody has locked is
 * from a guard that was killed, and is removed by the next one, with the same rest.
 */
#define _GNU_SOURCE
#include <ftw.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "../kselftest.h"
#include "khealthd_util.h"

/* Files, or folders of files, that are written back if they have changed. */
static const char * const kept[] = {
	SYSCTL,
	"/proc/sys/net/core",
	"/proc/sys/net/ipv[46]/*_mem",
	"/proc/sys/net/ipv4/udp_rmem_min",
	"/proc/sys/net/ipv4/ping_group_range",
	"/proc/sys/net/ipv[46]/*frag_*",
	"/proc/sys/net/ipv[46]/neigh/default/gc_*",
	"/proc/sys/net/netfilter",
	"/proc/sys/net/sctp",
	"/proc/sys/fs/file-max",
	"/proc/sys/kernel/pid_max",
	"/proc/sys/kernel/threads-max",
	"/sys/class/net/lo/queues",
	"/sys/devices/system/cpu/cpu*/online",
	"/sys/kernel/debug/fail*",
	"/sys/kernel/slab/skbuff_head_cache/failslab",
	"/sys/module/suspend/parameters",
	"/sys/power/pm_test",
};

/* The first where only root makes files, and programs run: on Debian not /run. */
static const char * const places[] = { "/run", "/var/lib", "/root" };

static struct setting {
	char *path;
	char *text;
} *settings;

static int nr_settings;

static void die(const char *what)
{
	fprintf(stderr, "khealthd_guard: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Read a setting: the whole file, or of "a [b] c" what is chosen. */
static bool read_setting(const char *path, char *text, size_t size)
{
	char *begin, *end;

	if (read_file(path, text, size) < 0)
		return false;
	begin = strchr(text, '[');
	end = begin ? strchr(begin, ']') : NULL;
	if (end) {
		*end = '\0';
		memmove(text, begin + 1, end - begin);
	}
	return true;
}

static int save(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	static char text[1 << 16];
	const mode_t rw = 0600;

	if (type != FTW_F || (st->st_mode & rw) != rw ||
	    !read_setting(path, text, sizeof(text)))
		return 0;
	settings = realloc(settings, (nr_settings + 1) * sizeof(*settings));
	if (!settings)
		die("realloc");
	settings[nr_settings].path = strdup(path);
	settings[nr_settings++].text = strdup(text);
	return 0;
}

static void save_settings(void)
{
	glob_t found = { 0 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kept); i++)
		glob(kept[i], i ? GLOB_APPEND : 0, NULL, &found);
	for (i = 0; i < found.gl_pathc; i++)
		nftw(found.gl_pathv[i], save, 16, FTW_PHYS);
	globfree(&found);
}

static bool write_back(const struct setting *s)
{
	static char text[1 << 16];

	if (!read_setting(s->path, text, sizeof(text)) || !strcmp(text, s->text))
		return false;
	snprintf(text, sizeof(text), "%s\n", s->text);
	write_file(s->path, text);
	return true;
}

static void restore_settings(void)
{
	int i, round, changed = 1;

	/* Episodes of the test's end without a word. */
	set_sysctl("enabled", "0");
	/* One may change with another: until nothing has to be written. */
	for (round = 0; changed && round < 4; round++)
		for (i = changed = 0; i < nr_settings; i++)
			changed += write_back(&settings[i]);
	for (i = 0; changed && i < nr_settings; i++)
		if (write_back(&settings[i]))
			fprintf(stderr, "khealthd_guard: cannot restore %s\n",
				settings[i].path);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	remove(path);
	return 0;
}

/* Remove a folder and all that goes by its name. */
static void clean(const char *dir)
{
	char pattern[PATH_MAX];
	glob_t found = { 0 };
	size_t i;

	kill_users(dir);
	snprintf(pattern, sizeof(pattern), "/run/netns%s*", strrchr(dir, '/'));
	glob(pattern, 0, NULL, &found);
	for (i = 0; i < found.gl_pathc; i++) {
		umount2(found.gl_pathv[i], MNT_DETACH);
		unlink(found.gl_pathv[i]);
	}
	globfree(&found);
	rmdir(TRACING);
	/* A helper that just started may still leave a file. */
	wait_until(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0);
	kill_users(dir);
}

/* Folders that no guard has locked. Are there any? */
static bool clean_unlocked(void)
{
	char pattern[PATH_MAX];
	glob_t found = { 0 };
	size_t i;
	bool cleaned = false;
	int fd;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(pattern, sizeof(pattern), "%s/khealthd.??????", places[i]);
		glob(pattern, i ? GLOB_APPEND : 0, NULL, &found);
	}
	for (i = 0; i < found.gl_pathc; i++) {
		fd = open(found.gl_pathv[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB)) {
			clean(found.gl_pathv[i]);
			cleaned = true;
		}
		close(fd);
	}
	globfree(&found);
	return cleaned;
}

/* A guard that is killed by that has had a folder, too, and so on. */
static void clean_unused(void)
{
	int i;

	for (i = 0; i < 5 && clean_unlocked(); i++)
		;
}

/* Make the folder, locked by the descriptor that is returned. */
static int make_dir(char *dir, size_t size)
{
	struct statvfs fs;
	struct stat st;
	size_t i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(places); i++)
		if (!stat(places[i], &st) && !statvfs(places[i], &fs) &&
		    !(st.st_mode & 022) && !(fs.f_flag & (ST_RDONLY | ST_NOEXEC)))
			break;
	if (i == ARRAY_SIZE(places)) {
		errno = EACCES;
		die("no place for the test's files");
	}
	snprintf(dir, size, "%s/khealthd.XXXXXX", places[i]);
	if (!mkdtemp(dir))
		die(dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX))
		die(dir);
	return fd;
}

int main(int argc, char **argv)
{
	int lock, sig, status = 0;
	sigset_t signals, before;
	char dir[64];
	pid_t pid;

	if (argc < 2 || !strcmp(argv[1], "--help")) {
		printf("Usage: khealthd_guard PROGRAM [ARGUMENT...]\n\n"
		       "Run a test of khealthd, and put the machine back as it was.\n");
		return argc < 2;
	}
	/* They wait until it is their turn. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, &before);

	clean_unused();
	lock = make_dir(dir, sizeof(dir));
	save_settings();
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		/* Should this be killed, the test ends as well. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigprocmask(SIG_SETMASK, &before, NULL);
		setenv("KHEALTHD_DIR", dir, 1);
		execvp(argv[1], argv + 1);
		die(argv[1]);
	}
	/* On some kernels, 6.1 for one, to be frozen meanwhile interrupts it. */
	do {
		sig = sigwaitinfo(&signals, NULL);
	} while ((sig < 0 && errno == EINTR) ||
		 (sig == SIGCHLD && waitpid(pid, &status, WNOHANG) != pid));

	set_sysctl("helper", "\n");
	close(lock);
	clean_unused();
	waitpid(pid, NULL, 0);
	restore_settings();

	/* End as the test did, or as this was told to. */
	if (sig == SIGCHLD && WIFEXITED(status))
		return WEXITSTATUS(status);
	sig = sig == SIGCHLD ? WTERMSIG(status) : sig;
	signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	raise(sig);
	return 128 + sig;
}
