// SPDX-License-Identifier: GPL-2.0
/*
 * For libFuzzer: all that khealth reads of others. An input has up to nine parts: an
 * environment, the three files of settings, four files of a process in /proc, and
 * a message of netlink's. Their files are in folders that fuzz.py has made for it.
 */
#include <assert.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

/* These have parts that are reached from here alone. */
#include "conf.c"
#include "diag.c"
#include "output.c"

#define SEPARATOR	0xfd
#define VARS_MAX	64

struct part {
	const uint8_t *data;
	size_t len;
};

enum { ENVIRONMENT, SETTINGS, SEVERITY, SILENCES, STAT, COMM, CGROUP, CMDLINE, NETLINK, PARTS };

static pid_t process;

/* In place of complain(): nobody wants to read these. */
void __wrap_complain(const char *format, ...)
{
	char line[500];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	clean(line);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	process = atoi(getenv("FUZZ_PROCESS"));
	umask(022);
	return 0;
}

static void split(const uint8_t *data, size_t len, struct part *parts)
{
	const uint8_t *end;
	unsigned int i;

	for (i = 0; i < PARTS; i++) {
		end = i < PARTS - 1 && len ? memchr(data, SEPARATOR, len) : NULL;
		parts[i].data = data;
		parts[i].len = end ? (size_t)(end - data) : len;
		len -= parts[i].len + !!end;
		data += parts[i].len + !!end;
	}
}

static void put(const char *path, const struct part *p)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert(fd >= 0 && write(fd, p->data, p->len) == (ssize_t)p->len);
	close(fd);
}

static void put_of_process(const char *name, const struct part *p)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", process, name);
	put(path, p);
}

static void forget_settings(void)
{
	while (n_own) {
		free(own[--n_own].name);
		free(own[n_own].value);
		own[n_own].name = NULL;
		own[n_own].value = NULL;
	}
	bad = false;
}

static bool count(const struct sock_info *s, void *data)
{
	*(uint64_t *)data += s->inode + s->memory;
	return true;
}

/* What YNL's library makes of an episode, the message, and the entry of it. */
static void message_and_entry(struct alert *a, struct facts *f)
{
	struct environment e = { 0 };
	struct match_words w;
	struct json_object *entry, *again;
	struct message m;
	const char *text;

	message_make(a, f, &m);
	entry = entry_json(a, f, &m);
	text = json_text(entry);
	assert(strlen(text) < ENTRY_MAX);
	/* All of it is one line's text, and what is written is what is read. */
	again = json_tokener_parse(text);
	assert(again && json_object_equal(entry, again));
	make_environment(&e, "mail", again);
	while (e.number)
		free(e.var[--e.number]);
	match_words(a, f, &w);
	rule_silenced(&w, a->time);
	json_object_put(again);
	json_object_put(entry);
	free(m.text);
}

/* Of two strings of one type YNL's code forgets the first; the kernel sends one. */
const char *__lsan_default_suppressions(void)
{
	return "leak:_rsp_parse\n";
}

/* As if the kernel had told of episodes. */
static void feed_family(const struct nlmsghdr *h)
{
	struct ynl_sock *ys = calloc(1, sizeof(*ys) + 65536);
	struct khealthd_monitor_get_rsp *rsp = calloc(1, sizeof(*rsp));
	struct ynl_parse_arg yarg = { .ys = ys, .rsp_policy = &khealthd_monitor_nest,
				      .data = rsp };
	struct facts f = { 0 };
	struct alert a;
	unsigned int i;

	ys->family = &ynl_khealthd_family;
	if (khealthd_monitor_get_rsp_parse(h, &yarg) == YNL_PARSE_CB_OK) {
		for (i = 0; i < rsp->NR_EPISODES && i < 4; i++) {
			alert_set_episode(&a, rsp, &rsp->episode[i]);
			message_and_entry(&a, &f);
		}
	}
	khealthd_monitor_get_rsp_free(rsp);
	free(ys);
}

/* One that is as long as it says, so that what is read beyond it is found. */
static void feed_netlink(const struct part *p)
{
	size_t size = NLMSG_HDRLEN + p->len;
	struct nlmsghdr *h = calloc(1, size);
	uint64_t sum = 0;

	memcpy((char *)h + NLMSG_HDRLEN, p->data, p->len);
	h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	h->nlmsg_len = size;
	read_answer(h, size, count, &sum);
	if (p->len >= GENL_HDRLEN)
		feed_family(h);
	/* And one with its own header, of which the kernel's are several in one buffer. */
	memcpy(h, p->data, p->len);
	read_answer(h, p->len, count, &sum);
	free(h);
}

static void feed_environment(const struct part *p, struct alert *a)
{
	char *text = calloc(1, p->len + 1), *vars[VARS_MAX + 1] = { text };
	unsigned int number = 1;
	size_t i;

	memcpy(text, p->data, p->len);
	for (i = 0; i < p->len && number < VARS_MAX; i++)
		if (!text[i])
			vars[number++] = text + i + 1;
	alert_from_env(a, vars);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct part parts[PARTS];
	struct facts f = { 0 };
	struct alert a;

	split(data, len, parts);
	put(CONF_FILE, &parts[SETTINGS]);
	put(ETC_DIR "/severity", &parts[SEVERITY]);
	put(ETC_DIR "/silences", &parts[SILENCES]);
	put_of_process("stat", &parts[STAT]);
	put_of_process("comm", &parts[COMM]);
	put_of_process("cgroup", &parts[CGROUP]);
	put_of_process("cmdline", &parts[CMDLINE]);
	conf_read();
	feed_environment(&parts[ENVIRONMENT], &a);
	copy(f.host, sizeof(f.host), "demo");
	proc_describe(process, &f.holder);
	message_and_entry(&a, &f);
	feed_netlink(&parts[NETLINK]);
	forget_settings();
	return 0;
}
