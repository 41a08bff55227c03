// SPDX-License-Identifier: GPL-2.0
/*
 * The programs that bring a message to somebody: one file each, in our folder or
 * the administrator's, whose comes first. All that they need is in their
 * environment, the text on standard input.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "khealth.h"

char outputs[OUTPUTS_MAX][32];
unsigned int n_outputs;

static bool output_known(const char *name)
{
	unsigned int i;

	for (i = 0; i < n_outputs; i++)
		if (!strcmp(outputs[i], name))
			return true;
	return false;
}

static bool find_in(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *e;
	struct stat st;
	size_t len;

	if (!dir)
		return false;
	while (n_outputs < OUTPUTS_MAX && (e = readdir(dir))) {
		len = strspn(e->d_name, "abcdefghijklmnopqrstuvwxyz0123456789-");
		if (!len || e->d_name[len] || len >= sizeof(outputs[0]) ||
		    output_known(e->d_name) ||
		    fstatat(dirfd(dir), e->d_name, &st, 0) ||
		    !S_ISREG(st.st_mode) || !(st.st_mode & 0111))
			continue;
		copy(outputs[n_outputs++], sizeof(outputs[0]), e->d_name);
	}
	closedir(dir);
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* False: not all of them are found. The administrator may have none. */
bool outputs_find(void)
{
	bool good;

	n_outputs = 0;
	good = find_in(OWN_OUTPUTS) || errno == ENOENT;
	good &= find_in(VENDOR_OUTPUTS);
	qsort(outputs, n_outputs, sizeof(outputs[0]), by_name);
	return good && n_outputs;
}

/* "auto" is on if what it needs is there. */
bool output_has(const char *output)
{
	if (!strcmp(output, "mail"))
		return !access(conf("mail_command"), X_OK);
	if (!strcmp(output, "apprise"))
		return *conf("apprise_config");
	return *conf_output(output, "url");
}

bool output_is_on(const char *output)
{
	const char *is = conf_output(output, "");

	return !strcmp(is, "on") || (!strcmp(is, "auto") && output_has(output));
}

/* Is the word in the list, whose words blanks separate? */
bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);
	const char *p = list;

	while ((p = strstr(p, word))) {
		if ((p == list || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
		p += len;
	}
	return false;
}

bool output_wants(const char *output, const char *event)
{
	return output_is_on(output) &&
	       has_word(conf_output(output, "events"), event);
}

struct environment {
	char *var[160];
	unsigned int number;
	const char *output;
	char seconds[16];	/* that it really has */
};

/* PREFIX and the name in capitals, with _ for what is neither letter nor digit. */
static void add_var(struct environment *e, const char *prefix, const char *name,
		    const char *value)
{
	size_t len = strlen(prefix), i;
	char *var;

	if (e->number >= ARRAY_SIZE(e->var) - 1 ||
	    asprintf(&var, "%s%s=%s", prefix, name, value) < 0)
		return;
	for (i = len; var[i] != '='; i++)
		var[i] = isalnum((unsigned char)var[i]) ?
			 toupper((unsigned char)var[i]) : '_';
	e->var[e->number++] = var;
}

static void add_setting(const char *name, const char *value, void *data)
{
	struct environment *e = data;
	size_t len = strlen(e->output);

	if (!strncmp(name, e->output, len) && name[len] == '_')
		add_var(e, "KHEALTH_", name,
			strcmp(name + len, "_timeout") ? value : e->seconds);
}

static void add_object(struct environment *e, const char *prefix,
		       struct json_object *entry, const char *member)
{
	struct json_object *o;

	if (!json_object_object_get_ex(entry, member, &o) ||
	    !json_object_is_type(o, json_type_object))
		return;
	json_object_object_foreach(o, name, value)
		add_var(e, prefix, name, json_object_get_string(value));
}

static void add_json(struct environment *e, struct json_object *entry,
		     const char *name, const char *member)
{
	struct json_object *o;

	if (json_object_object_get_ex(entry, member, &o))
		add_var(e, "KHEALTH_", name,
			json_text(o));
}

static void make_environment(struct environment *e, const char *output,
			     struct json_object *entry)
{
	e->output = output;
	add_var(e, "", "PATH", SAFE_PATH);
	add_var(e, "", "LC_ALL", "C");
	add_var(e, "", "HOME", "/");
	add_object(e, "", entry, "env");
	add_object(e, "KHEALTH_", entry, "facts");
	add_var(e, "KHEALTH_", "output", output);
	add_var(e, "KHEALTH_", "subject", json_str(entry, "subject"));
	add_var(e, "KHEALTH_", "severity", json_str(entry, "severity"));
	add_var(e, "KHEALTH_", "boot", json_str(entry, "boot"));
	add_var(e, "KHEALTH_", "key", json_str(entry, "key"));
	add_json(e, entry, "json", "facts");
	add_json(e, entry, "alerts", "alertmanager");
	conf_each(add_setting, e);
	e->var[e->number] = NULL;
}

static int text_file(const char *text)
{
	int fd = memfd_create("text", MFD_CLOEXEC);

	if (fd < 0)
		return -1;
	if (write(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void run_program(const char *path, const struct environment *e, int text,
			int err)
{
	char *argv[] = { (char *)path, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (null < 0 || dup2(text, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(err, 2) < 0 || chdir("/"))
		_exit(126);
	execve(path, argv, e->var);
	_exit(127);
}

/* Start it. *err is what it has to say; nobody of another user's is started. */
pid_t output_start(const char *output, struct json_object *entry,
		   uint64_t deadline, int *err)
{
	struct environment e = { 0 };
	uint64_t now = now_ms();
	char path[128], why[300];
	int text, pipes[2];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/%s", OWN_OUTPUTS, output);
	if (access(path, F_OK))
		snprintf(path, sizeof(path), "%s/%s", VENDOR_OUTPUTS, output);
	if (!is_trusted(path, why, sizeof(why))) {
		complain("%s is not run: %s", output, why);
		return -1;
	}
	text = text_file(json_str(entry, "text"));
	if (text < 0 || pipe2(pipes, O_CLOEXEC | O_NONBLOCK)) {
		if (text >= 0)
			close(text);
		return -1;
	}
	snprintf(e.seconds, sizeof(e.seconds), "%llu", deadline > now ?
		 (unsigned long long)(deadline - now + 999) / 1000 : 1);
	if (!strcmp(output, "alertmanager"))
		labels_keep(entry);
	make_environment(&e, output, entry);
	pid = fork();
	if (!pid)
		run_program(path, &e, text, pipes[1]);
	while (e.number)
		free(e.var[--e.number]);
	close(text);
	close(pipes[1]);
	*err = pipes[0];
	if (pid < 0)
		close(pipes[0]);
	return pid;
}
