// SPDX-License-Identifier: GPL-2.0
/* khealth notify: send what waits. Started by systemd, the helper, or a person. */
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

#define LISTEN_FD 3

/* The socket that systemd has for us, or -1: see sd_listen_fds(3). */
static int listen_fd(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");

	if (!pid || !fds || atoi(pid) != getpid() || atoi(fds) != 1)
		return -1;
	if (fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC) ||
	    fcntl(LISTEN_FD, F_SETFL, O_NONBLOCK))
		return -1;
	return LISTEN_FD;
}

static struct json_object *from_memory(int fd)
{
	struct json_object *o = NULL;
	char *buf = malloc(ENTRY_MAX + 1);

	if (buf && read_fd(fd, buf, ENTRY_MAX + 1) > 0)
		o = json_tokener_parse(buf);
	free(buf);
	close(fd);
	return o;
}

int cmd_notify(int argc, char **argv)
{
	struct json_object *entry = NULL;
	unsigned int seconds = 120;
	int i, memory = -1, status;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--memory") && i + 1 < argc)
			memory = atoi(argv[++i]);
		else
			return nothing_to_do("notify: unknown argument '%s'",
					     argv[i]);
	}
	if (memory >= 0)
		entry = from_memory(memory);
	status = notify(listen_fd(), entry, seconds);
	json_object_put(entry);
	return status;
}
