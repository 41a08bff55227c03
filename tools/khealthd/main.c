// SPDX-License-Identifier: GPL-2.0
/* khealth, and under the name khealth-alert the kernel's helper. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

static const char usage[] =
"Usage: khealth COMMAND [ARGUMENT...]\n"
"\n"
"Which program loses packets, or is about to? What the kernel's khealthd knows:\n"
"\n"
"  status [--json]     who is short now: process, service or container, port, how\n"
"                      much is lost. Status 0: nobody; 1: little is left; 2:\n"
"                      something is lost; 3: unknown (a plugin for Nagios, Icinga)\n"
"  watch [--json]      a line for each alert, as it comes; no privilege needed\n"
"  top                 the same as status, refreshed every second; q ends it\n"
"  who COOKIE          which program holds the socket that an alert names\n"
"  explain [MONITOR]   what is watched, what it means, what is usually turned\n"
"\n"
"Alerts that reach a person:\n"
"\n"
"  check               is all set up? What is missing, what waits?\n"
"  check --settings    the settings that are in effect\n"
"  test [MONITOR]      a test alert (of sock_rcvbuf), to mail, chat, pager\n"
"  notify              send what waits, now\n"
"  metrics             counters for Prometheus; --file PATH writes them there\n"
"\n"
"For the first time, as root:\n"
"\n"
"  sysctl kernel.khealthd.enabled=1      and then: khealth status\n"
"\n"
"Root sees every network namespace, others their own. More: khealth(8), and in\n"
"the kernel's documentation admin-guide/khealthd and admin-guide/khealthd-alerts.\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "status", cmd_status }, { "watch", cmd_watch }, { "top", cmd_top },
	{ "who", cmd_who }, { "explain", cmd_explain }, { "check", cmd_check },
	{ "test", cmd_test }, { "metrics", cmd_metrics },
	{ "notify", cmd_notify },
};

/* The kernel may start us without some: what is opened next is to be none of them. */
static void open_standard(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv, char **environment)
{
	const char *name = argc && strrchr(argv[0], '/') ?
			   strrchr(argv[0], '/') + 1 : argc ? argv[0] : "";
	size_t i;

	open_standard();
	if (!strcmp(name, "khealth-alert"))
		return helper_main(environment);
	if (argc < 2) {
		fputs(usage, stderr);
		return 3;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help") ||
	    !strcmp(argv[1], "-h")) {
		fputs(usage, stdout);
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return nothing_to_do("there is no command '%.40s'; khealth --help lists them",
			     argv[1]);
}
