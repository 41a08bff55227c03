// SPDX-License-Identifier: GPL-2.0
/* khealth explain MONITOR: what it means, and what is usually turned. */
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "khealth.h"

#define TOP		10
#define NAMESPACES	256

struct biggest {
	struct sock_info list[TOP];
	const char *protocol[TOP];
	unsigned int number;
	const char *now;
	uint64_t all;
};

static bool add_socket(const struct sock_info *s, void *data)
{
	struct biggest *b = data;
	unsigned int i;

	b->all += s->memory;
	if (!s->memory || !s->inode)
		return true;
	for (i = b->number < TOP ? b->number++ : TOP - 1;
	     i && b->list[i - 1].memory < s->memory; i--) {
		b->list[i] = b->list[i - 1];
		b->protocol[i] = b->protocol[i - 1];
	}
	if (i < TOP - 1 || b->list[i].memory < s->memory || b->number < TOP) {
		b->list[i] = *s;
		b->protocol[i] = b->now;
	}
	return true;
}

static void ask_here(struct biggest *b)
{
	b->now = "UDP";
	diag_dump(AF_INET, IPPROTO_UDP, 0, add_socket, b);
	diag_dump(AF_INET6, IPPROTO_UDP, 0, add_socket, b);
	b->now = "TCP";
	diag_dump(AF_INET, IPPROTO_TCP, 0, add_socket, b);
	diag_dump(AF_INET6, IPPROTO_TCP, 0, add_socket, b);
}

/* Each network namespace that a process is in, once. */
static void ask_all(struct biggest *b)
{
	ino_t seen[NAMESPACES];
	unsigned int number = 0, i;
	DIR *dir = opendir("/proc");
	char path[40];
	struct stat st;
	pid_t pid;
	int fd, back;

	while (dir && number < NAMESPACES && (pid = proc_next(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st)) {
			if (fd >= 0)
				close(fd);
			continue;
		}
		for (i = 0; i < number && seen[i] != st.st_ino; i++)
			;
		back = i == number ? netns_enter(fd) : -1;
		close(fd);
		if (back < 0)
			continue;
		seen[number++] = st.st_ino;
		ask_here(b);
		netns_leave(back);
	}
	if (dir)
		closedir(dir);
	if (!number)
		ask_here(b);
}

static void who_holds_most(void)
{
	struct biggest b = { .number = 0 };
	struct facts start;
	struct alert none = { 0 };
	struct holder h;
	unsigned int i;

	/* This begins the time for it. */
	facts_find(&none, memset(&start, 0, sizeof(start)), 5000);
	ask_all(&b);
	printf("\nWho holds most of it, of %llu bytes in all:\n",
	       (unsigned long long)b.all);
	for (i = 0; i < b.number; i++) {
		memset(&h, 0, sizeof(h));
		proc_find_holder(&none, b.list[i].inode, &h);
		printf("  %10llu bytes  %s port %u, %s (pid %d)%s%s\n",
		       (unsigned long long)b.list[i].memory, b.protocol[i],
		       b.list[i].port, h.comm[0] ? h.comm : "?", h.pid,
		       h.unit[0] ? ", " : "", h.unit);
	}
	if (!b.number)
		puts("  no socket holds any now");
}

static int list_monitors(void)
{
	struct dirent *e;
	char path[300];
	DIR *dir = opendir(SYSFS_DIR);

	puts("khealth explain MONITOR. The monitors of this kernel:\n");
	while (dir && (e = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s/code", SYSFS_DIR, e->d_name);
		if (e->d_name[0] != '.' && !access(path, F_OK))
			printf("  %-14s%s\n", e->d_name, monitor_what(e->d_name));
	}
	if (dir)
		closedir(dir);
	return dir ? 0 : nothing_to_do("this kernel has no khealthd (CONFIG_KHEALTHD)");
}

int cmd_explain(int argc, char **argv)
{
	struct alert a = { 0 };
	const char *advice;

	conf_read();
	if (argc < 2)
		return list_monitors();
	advice = monitor_advice(argv[1]);
	if (!advice || !alert_set(&a, V_MONITOR, argv[1]))
		return nothing_to_do("there is no monitor '%.40s'; khealth explain lists them",
				     argv[1]);
	printf("%s watches %s.\n\n%s\n", argv[1], monitor_what(argv[1]), advice);
	if (meaning(&a))
		printf("\n%s\n", meaning(&a));
	puts("\nlow: little is left, and nothing is lost yet. exhausted: something was refused,\n"
	     "which for most of them means that it is lost.");
	puts("\nWhat is usually turned, as it is now:");
	print_knobs(stdout, &a, -1);
	if (!strcmp(argv[1], "proto_mem"))
		who_holds_most();
	return 0;
}
