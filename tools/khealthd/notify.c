// SPDX-License-Identifier: GPL-2.0
/*
 * Send what waits: all outputs at once, one message of each at a time, within a
 * bounded time. No output waits for another one, and no message for one that is
 * not taken.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "khealth.h"

#define FAILURES_MAX	3	/* of one output, in one run */
#define LINGER_MS	20000	/* for a mail system that delivers by a child */
#define BACKOFF		60	/* seconds, doubled six times */

static struct job {
	pid_t pid;
	int err;
	uint64_t deadline;
	bool timed_out;
	bool memory;		/* it is in no queue */
	struct waiting w;
	struct json_object *entry;
	unsigned int failures;
} jobs[OUTPUTS_MAX];

static uint64_t run_end;
static bool failed;

static void requeue(const char *output, struct waiting *w)
{
	int dir = queue_dir(w->base, output, false);
	char from[128], to[128];
	unsigned int shift;

	waiting_name(w, from, sizeof(from));
	shift = w->attempts < 6 ? w->attempts : 6;
	w->attempts++;
	w->due = time(NULL) + (BACKOFF << shift);
	waiting_name(w, to, sizeof(to));
	if (dir < 0)
		return;
	renameat(dir, from, dir, to);
	close(dir);
}

/* As spool_remove(). */
static int remove_from(const char *output, const struct waiting *w, bool aside)
{
	int dir = queue_dir(w->base, output, false), left;
	char name[128];

	waiting_name(w, name, sizeof(name));
	if (dir < 0)
		return -1;
	if (aside)
		set_aside(dir, name, output);
	left = spool_remove(dir, output, name);
	close(dir);
	return left;
}

/* In seconds; after a reboot only the clock that can be set knows. */
static int64_t age(struct json_object *entry)
{
	int64_t since = json_int(entry, "uptime");

	if (since && !strcmp(json_str(entry, "boot"), boot_id()))
		return uptime() - since;
	return time(NULL) - json_int(entry, "time");
}

/* One that came late says so, or somebody gets up for what is long over. */
static void mark_late(struct json_object *entry)
{
	bool reboot = strcmp(json_str(entry, "boot"), boot_id());
	static const char *const marked[] = { "subject", "summary" };
	int64_t when = json_int(entry, "time");
	struct json_object *facts = NULL;
	char stamp[64], line[700];
	size_t i;

	if (!reboot && age(entry) < 600)
		return;
	print_time(stamp, sizeof(stamp), when);
	for (i = 0; i < ARRAY_SIZE(marked); i++) {
		snprintf(line, sizeof(line), "(of %s%s) %s", stamp,
			 reboot ? ", before the reboot" : "",
			 json_str(entry, marked[i]));
		json_put_str(entry, marked[i], line);
	}
	if (json_object_object_get_ex(entry, "facts", &facts)) {
		json_put_str(facts, "summary", line);
		json_object_object_add(facts, "late", json_object_new_boolean(1));
	}
}

/* Further ahead than anything ever is: the clock was set back. */
static bool is_due(const struct waiting *w)
{
	uint64_t now = time(NULL);

	return w->due <= now ||
	       w->due > now + (BACKOFF << 6) + conf_num("min_duration");
}

/* The first that is due and not too old; what is too old is set aside. */
static struct json_object *next_message(const char *output, struct waiting *found)
{
	int64_t max_age = conf_output_num(output, "max_age");
	struct json_object *entry = NULL;
	struct waiting *list;
	unsigned int number = waiting_list(output, &list), i;
	char name[128];
	int dir, error;

	for (i = 0; i < number && !entry; i++) {
		if (!is_due(&list[i]))
			continue;
		dir = queue_dir(list[i].base, output, false);
		if (dir < 0)
			continue;
		waiting_name(&list[i], name, sizeof(name));
		entry = entry_load(dir, name);
		error = errno;
		close(dir);
		*found = list[i];
		if (!entry && error != EBADMSG) {
			complain("%s: a message of %llu cannot be read: %s", output,
				 (unsigned long long)list[i].time, strerror(error));
			failed = true;
			continue;
		}
		if (entry && age(entry) > max_age) {
			complain("%s: a message of %llu is set aside: it is too old",
				 output, (unsigned long long)list[i].time);
			json_object_put(entry);
			entry = NULL;
		}
		if (!entry)
			remove_from(output, &list[i], true);
	}
	free(list);
	return entry;
}

static bool start(unsigned int i)
{
	struct job *j = &jobs[i];

	if (j->pid || j->failures >= FAILURES_MAX || now_ms() >= run_end ||
	    !output_is_on(outputs[i]))
		return j->pid;
	j->entry = next_message(outputs[i], &j->w);
	if (!j->entry)
		return false;
	mark_late(j->entry);
	j->timed_out = false;
	j->deadline = now_ms() + 1000 * conf_output_num(outputs[i], "timeout");
	if (j->deadline > run_end)
		j->deadline = run_end;
	j->pid = output_start(outputs[i], j->entry, j->deadline, &j->err);
	if (j->pid > 0)
		return true;
	j->pid = 0;
	j->failures++;
	failed = true;
	result_set(outputs[i], j->entry, "failed: it cannot be started");
	requeue(outputs[i], &j->w);
	json_object_put(j->entry);
	return false;
}

static void why(struct job *j, int status, char *buf, size_t size)
{
	ssize_t n = read(j->err, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	clean(buf);
	close(j->err);
	if (j->timed_out)
		copy(buf, size, "no answer in time");
	else if (!buf[0] && WIFSIGNALED(status))
		snprintf(buf, size, "it was ended by signal %d", WTERMSIG(status));
	else if (!buf[0])
		snprintf(buf, size, "it ended with %d", WEXITSTATUS(status));
}

/* What is still there would be sent again at once: not in this run. */
static bool take_out(unsigned int i, bool aside)
{
	int left = remove_from(outputs[i], &jobs[i].w, aside);

	if (!left)
		return true;
	jobs[i].failures += left < 0 ? FAILURES_MAX : 1;
	failed = true;
	return false;
}

/* It would be the last word: "It is over", of what is not. */
static void drop_recovered(const char *output, const struct waiting *sent)
{
	unsigned int recovered = event_rank("recovered"), number, i;
	struct waiting *list;

	if (sent->rank >= recovered)
		return;
	number = waiting_list(output, &list);
	for (i = 0; i < number; i++)
		if (list[i].rank == recovered && list[i].key == sent->key &&
		    waiting_newer(sent, &list[i]))
			remove_from(output, &list[i], false);
	free(list);
}

static void ended(unsigned int i, int status)
{
	bool sent = WIFEXITED(status) && !WEXITSTATUS(status);
	bool never = WIFEXITED(status) && WEXITSTATUS(status) == EX_DATAERR;
	struct job *j = &jobs[i];
	char text[200];

	why(j, status, text, sizeof(text));
	j->pid = 0;
	if ((sent || never) && !strcmp(outputs[i], "alertmanager"))
		labels_forget(j->entry);
	if (j->memory) {
		failed |= !sent;
		if (!sent)
			complain("%s: %s; it is lost", outputs[i], text);
	} else if (sent) {
		if (take_out(i, false))
			j->failures = 0;
		drop_recovered(outputs[i], &j->w);
		result_set(outputs[i], j->entry, "sent");
	} else if (never) {
		take_out(i, true);
		result_set(outputs[i], j->entry, "refused: %s", text);
		complain("%s: a message is set aside: %s", outputs[i], text);
	} else {
		j->failures++;
		failed = true;
		requeue(outputs[i], &j->w);
		result_set(outputs[i], j->entry, "failed: %s", text);
		complain("%s: %s; it is tried again", outputs[i], text);
	}
	json_object_put(j->entry);
	j->entry = NULL;
	limit_save();
}

/* Whether there are children, of an output's as well, that did not end yet. */
static bool reap(void)
{
	unsigned int i;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (i = 0; i < n_outputs; i++)
			if (jobs[i].pid == pid)
				ended(i, status);
	return !pid;
}

static pid_t parent_of(pid_t pid)
{
	char path[32], buf[512], *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (read_at(AT_FDCWD, path, buf, sizeof(buf)) < 0)
		return 0;
	p = strrchr(buf, ')');
	return p && strlen(p) > 4 ? atoi(p + 4) : 0;
}

/* It and all that it started: they stay in our process group, for the kernel. */
static void kill_tree(pid_t root)
{
	pid_t pids[64] = { root }, pid;
	unsigned int number = 1, i;
	bool more = true;
	DIR *dir;

	kill(root, SIGSTOP);
	while (more) {
		more = false;
		dir = opendir("/proc");
		while (dir && number < ARRAY_SIZE(pids) &&
		       (pid = proc_next(dir))) {
			pid_t parent = parent_of(pid);
			bool child = false;

			for (i = 0; i < number; i++) {
				child |= pids[i] == parent;
				if (pids[i] == pid)
					break;
			}
			if (i < number || !child)
				continue;
			kill(pid, SIGSTOP);
			pids[number++] = pid;
			more = true;
		}
		if (dir)
			closedir(dir);
	}
	while (number)
		kill(pids[--number], SIGKILL);
}

static int wait_ms(uint64_t until)
{
	uint64_t now = now_ms();
	unsigned int i;

	for (i = 0; i < n_outputs; i++)
		if (jobs[i].pid && !jobs[i].timed_out && jobs[i].deadline < until)
			until = jobs[i].deadline;
	return until > now ? (int)(until - now) : 0;
}

static void time_is_up(void)
{
	unsigned int i;

	for (i = 0; i < n_outputs; i++) {
		if (!jobs[i].pid || jobs[i].timed_out ||
		    now_ms() < jobs[i].deadline)
			continue;
		jobs[i].timed_out = true;
		kill_tree(jobs[i].pid);
	}
}

static void drain(int fd)
{
	char buf[256];

	while (fd >= 0 && read(fd, buf, sizeof(buf)) > 0)
		;
}

static int signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void send_all(int socket)
{
	struct pollfd fds[2] = { { .fd = signal_fd(), .events = POLLIN },
				 { .fd = socket, .events = POLLIN } };
	uint64_t idle_since = 0, until;
	bool busy, children, stuck = false;
	unsigned int i;

	for (;;) {
		drain(fds[0].fd);
		drain(socket);
		if (!stuck)
			stuck = !accept_all();
		failed |= stuck;
		time_is_up();
		children = reap();
		busy = false;
		for (i = 0; i < n_outputs; i++)
			busy |= start(i);
		if (busy)
			idle_since = 0;
		else if (!children)
			break;
		else if (!idle_since)
			idle_since = now_ms();
		else if (now_ms() >= idle_since + LINGER_MS)
			break;
		if (now_ms() >= run_end + 5000)
			break;
		until = busy ? run_end + 5000 : idle_since + LINGER_MS;
		poll(fds, socket >= 0 ? 2 : 1, wait_ms(until));
	}
	close(fds[0].fd);
}

/*
 * One at a time; the one before us may not have seen what we were started for. It is
 * the folder that is locked: in one that is read-only no file can be made for it.
 */
static int lock(void)
{
	int fd = state_dir(STATE_DIR, "", true), tries;

	for (tries = 0; fd >= 0 && tries < 200; tries++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return fd;
		usleep(50000);
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* No disk has room for it: to each output, once. */
static void send_from_memory(struct json_object *entry)
{
	unsigned int i;

	for (i = 0; i < n_outputs; i++) {
		struct job *j = &jobs[i];

		if (!output_wants(outputs[i], json_str(entry, "event")))
			continue;
		j->entry = json_object_get(entry);
		j->memory = true;
		j->failures = FAILURES_MAX;
		j->deadline = now_ms() +
			      1000 * conf_output_num(outputs[i], "timeout");
		j->pid = output_start(outputs[i], entry, j->deadline, &j->err);
		if (j->pid > 0)
			continue;
		complain("%s: it cannot be started; the alert is lost", outputs[i]);
		failed = true;
		json_object_put(j->entry);
		j->entry = NULL;
		j->pid = 0;
	}
}

/* What is not known yet is no reason to give an alert up: it waits. */
static bool ready(void)
{
	if (!become_sender())
		complain("privileges cannot be given up: nothing is sent");
	else if (!conf_read())
		complain("%s cannot be read: nothing is sent", CONF_FILE);
	else if (!outputs_find())
		complain("%s or %s cannot be read, or has nothing: nothing is sent",
			 VENDOR_OUTPUTS, OWN_OUTPUTS);
	else
		return true;
	return false;
}

int notify(int socket, struct json_object *in_memory, unsigned int seconds)
{
	int held;

	if (!ready()) {
		drain(socket);
		return 1;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	held = lock();
	if (held < 0 && !in_memory) {
		drain(socket);
		complain("%s cannot be used, or another run is at it for long",
			 STATE_DIR);
		return 1;
	}
	limit_load();
	run_end = now_ms() + 1000ull * seconds;
	if (in_memory)
		send_from_memory(in_memory);
	send_all(socket);
	if (held >= 0)
		close(held);
	return failed;
}
