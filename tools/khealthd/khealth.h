/* SPDX-License-Identifier: GPL-2.0 */
/*
 * khealth: what its parts share.
 *
 *   env, conf, rules    what comes in, and is trusted no further than it goes
 *   facts               who it is: socket, process, unit, container, namespace
 *   words, text, entry  what a person and what programs read
 *   spool, limit        what waits, and what does not get through
 *   notify, output      the programs that bring it to somebody
 *   cmd_*               one command each
 */
#ifndef KHEALTH_H
#define KHEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <time.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define ETC_DIR		"/etc/khealthd"
#define SHARE_DIR	"/usr/share/khealthd"
#define VENDOR_OUTPUTS	"/usr/lib/khealthd/outputs"
#define OWN_OUTPUTS	ETC_DIR "/outputs"
#define CONF_FILE	ETC_DIR "/khealth.conf"
#define STATE_DIR	"/var/lib/khealthd"
#define RUN_DIR		"/run/khealthd"
#define NOTIFY_SOCKET	RUN_DIR "/notify"
#define HELPER_PATH	"/usr/sbin/khealth-alert"
#define SYSCTL_DIR	"/proc/sys/kernel/khealthd"
#define SYSFS_DIR	"/sys/kernel/khealthd"
#define SAFE_PATH	"/usr/sbin:/usr/bin:/sbin:/bin"

/* An entry of the spool is never larger. */
#define ENTRY_MAX	(128 * 1024)

/* util.c */
uint64_t now_ms(void);
int64_t uptime(void);
void clean(char *s);
void copy(char *to, size_t size, const char *from);
ssize_t read_at(int dir, const char *path, char *buf, size_t size);
ssize_t read_fd(int fd, char *buf, size_t size);
bool first_line(const char *path, char *buf, size_t size);
bool read_u64(const char *path, uint64_t *value);
bool parse_u64(const char *s, uint64_t *value);
int trusted_open(const char *path, int flags, char *why, size_t size);
bool is_trusted(const char *path, char *why, size_t size);
int write_new_at(int dir, const char *name, const char *data, size_t len,
		 mode_t mode);
void print_time(char *buf, size_t size, time_t when);
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
int nothing_to_do(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* env.c: an alert, as the kernel gives it away; also made of netlink's */
enum var {
	V_CODE, V_ABI, V_MONITOR, V_EVENT, V_STATE, V_SEQ, V_UNIT, V_LOW, V_HIGH,
	V_CROSSINGS, V_CROSSINGS_OTHERS, V_REFUSED, V_OTHERS, V_DURATION_MS,
	V_FREE, V_CAPACITY, V_NODE, V_CPU, V_IFINDEX, V_FAMILY, V_PROTOCOL,
	V_PORT, V_UID, V_SOCK_COOKIE, V_NETNS, V_NETNS_COOKIE, V_CGROUP, V_MAX
};

struct alert {
	char word[V_MAX][33];		/* empty: not known */
	uint64_t num[V_MAX];
	time_t time, begin;
};

const char *var_name(enum var v);	/* as in the environment */
const char *var_key(enum var v);	/* as in JSON and rules */
bool var_is_word(enum var v);
bool known(const struct alert *a, enum var v);
bool alert_set(struct alert *a, enum var v, const char *value);
void alert_set_num(struct alert *a, enum var v, uint64_t value);
/* A number of what YNL's library parsed, if it was there. */
#define alert_set_if(a, var, from, member) do {				\
		if ((from)->_present.member)				\
			alert_set_num(a, var, (from)->member);		\
	} while (0)
int alert_from_env(struct alert *a, char **environment);
bool alert_is_over(const struct alert *a);
bool alert_is_exhausted(const struct alert *a);
uint64_t alert_key(const struct alert *a);

/* facts.c */
struct holder {
	pid_t pid;
	int more;			/* other processes that hold it, too */
	char state;			/* as in /proc/PID/stat */
	unsigned int uid;
	char comm[64];
	char cmdline[200];
	char cgroup[256];
	char unit[128];
	char container[128];
};

struct facts {
	struct holder holder;
	uint64_t inode;
	char made_in[256];		/* the cgroup, by its number */
	char made_in_unit[128];
	char netns_name[64];
	pid_t netns_pid;
	char netns_comm[64];
	char interface[32];
	char user[64];
	char host[65];
	bool cut;			/* the time was up */
};

void facts_find(const struct alert *a, struct facts *f, unsigned int ms);
void facts_bounded(const struct alert *a, struct facts *f, unsigned int ms);
bool facts_time_left(void);

/* netns.c */
int netns_find(const struct alert *a, struct facts *f);
int netns_open(const struct alert *a, const struct facts *f);
int netns_enter(int fd);
void netns_leave(int own);

/* diag.c: sockets, by sock_diag */
struct sock_info {
	uint64_t cookie;
	uint64_t inode;
	uint64_t memory;
	uint32_t uid;
	uint16_t port;
	uint8_t family;
};

typedef bool (*sock_fn)(const struct sock_info *s, void *data);
int diag_dump(int family, int protocol, uint16_t port, sock_fn fn, void *data);
uint64_t diag_inode(const struct alert *a);

/* proc.c: processes */
bool proc_find_holder(const struct alert *a, uint64_t inode, struct holder *h);
void proc_describe(pid_t pid, struct holder *h);
bool proc_comm(pid_t pid, char *buf, size_t size);
pid_t proc_next(void *dir);
const char *proc_state_word(char state);

/* cgroup.c */
void cgroup_path_of_id(uint64_t id, char *buf, size_t size);
void cgroup_unit(const char *path, char *buf, size_t size);
void cgroup_container(const char *path, char *buf, size_t size);

/* words.c: what numbers mean */
const char *family_word(const struct alert *a, char *buf, size_t size);
const char *protocol_word(const struct alert *a, char *buf, size_t size);
const char *monitor_what(const char *monitor);
const char *monitor_advice(const char *monitor);
const char *monitor_lost(const struct alert *a);
const char *monitor_fate(const struct alert *a);
const char *meaning(const struct alert *a);
void who_words(const struct alert *a, const struct facts *f, char *buf,
	       size_t size);
void level_words(const struct alert *a, char *buf, size_t size);
void duration_words(uint64_t ms, char *buf, size_t size);

/* knobs.c */
void print_knobs(FILE *out, const struct alert *a, int netns);

/* text.c */
struct message {
	char severity[16];
	char who[200];
	char summary[400];
	char subject[300];
	char *text;
};

void message_make(const struct alert *a, const struct facts *f,
		  struct message *m);

/* entry.c */
struct json_object;
struct json_object *facts_json(const struct alert *a, const struct facts *f,
			       const struct message *m);
struct json_object *entry_json(const struct alert *a, const struct facts *f,
			       const struct message *m);
struct json_object *alertmanager_json(const struct alert *a,
				      const struct facts *f,
				      const struct message *m);
const char *json_text(struct json_object *o);
const char *json_str(struct json_object *o, const char *name);
int64_t json_int(struct json_object *o, const char *name);
void json_put_str(struct json_object *o, const char *name, const char *value);
void json_put_num(struct json_object *o, const char *name, uint64_t value);
const char *boot_id(void);

/* conf.c */
bool conf_read(void);
bool conf_bad(void);
const char *conf(const char *name);
uint64_t conf_num(const char *name);
const char *conf_output(const char *output, const char *name);
uint64_t conf_output_num(const char *output, const char *name);
void conf_each(void (*fn)(const char *name, const char *value, void *data),
	       void *data);
void conf_print(FILE *out);

/* rules.c */
struct match_words {
	const char *name[24];
	char value[24][256];
	unsigned int number;
};

void match_words(const struct alert *a, const struct facts *f,
		 struct match_words *w);
void rule_severity(const struct match_words *w, char *buf, size_t size);
bool rule_silenced(const struct match_words *w, time_t now);
bool rules_check(FILE *out);

/* spool.c */
struct waiting {
	uint64_t due, time, seq, key;
	unsigned int rank, attempts;
	unsigned int base;		/* which of the folders it is in */
};

#define N_BASES		2
extern const char *const state_bases[N_BASES];
int state_dir(const char *base, const char *name, bool make);
bool become_sender(void);
unsigned int spool_count(void);
unsigned int aside_count(const char *output);
unsigned int queue_count(const char *output);
int queue_dir(unsigned int base, const char *output, bool make);
int spool_remove(int dir, const char *output, const char *name);
int gone_open(void);
bool is_gone(int gone, int dir, const char *output, const char *name);
int spool_put(const char *data, size_t len, time_t time, uint64_t seq);
void waiting_name(const struct waiting *w, char *buf, size_t size);
bool waiting_parse(const char *name, struct waiting *w);
unsigned int waiting_list(const char *output, struct waiting **list);
int waiting_worse(const void *a, const void *b);
bool waiting_newer(const struct waiting *a, const struct waiting *b);
void set_aside(int dir, const char *name, const char *output);
struct json_object *entry_load(int dir, const char *name);
unsigned int event_rank(const char *event);

/* limit.c */
void limit_load(void);
void limit_save(void);
bool limit_pass(const char *output, struct json_object *entry, time_t now);
struct json_object *limit_digest(const char *output, time_t now);
void result_set(const char *output, struct json_object *entry,
		const char *format, ...) __attribute__((format(printf, 3, 4)));
struct json_object *results_load(void);
void labels_keep(struct json_object *entry);
void labels_forget(struct json_object *entry);

/* accept.c */
bool accept_all(void);

/* output.c */
#define OUTPUTS_MAX	32
extern char outputs[OUTPUTS_MAX][32];
extern unsigned int n_outputs;
bool outputs_find(void);
bool output_is_on(const char *output);
bool output_wants(const char *output, const char *event);
bool output_has(const char *output);
bool has_word(const char *list, const char *word);
pid_t output_start(const char *output, struct json_object *entry,
		   uint64_t deadline, int *err);

/* notify.c, helper.c */
int notify(int socket, struct json_object *in_memory, unsigned int seconds);
int helper_main(char **environment);

/* kernel.c: the netlink family */
struct ynl_sock;
struct khealthd_level;
struct khealthd_episode;
struct khealthd_monitor_get_rsp;
struct ynl_sock *kernel_open(char *why, size_t size);
void alert_set_level(struct alert *a, const struct khealthd_level *l);
void alert_set_episode(struct alert *a, const struct khealthd_monitor_get_rsp *m,
		       const struct khealthd_episode *e);
const char *state_word(unsigned int state);

/* cmd_*.c */
int cmd_status(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_who(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_test(int argc, char **argv);
int cmd_metrics(int argc, char **argv);
int cmd_notify(int argc, char **argv);

/* How YNL's generator names the number of a monitor's episodes; once it had another. */
#ifndef NR_EPISODES
#define NR_EPISODES	_count.episode
#endif

#endif
