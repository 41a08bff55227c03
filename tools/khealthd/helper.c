// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's helper. One alert, from the environment into the spool, by this
 * process and one child at most; then whoever sends it is told. When memory is
 * short, that is the time to do little.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "khealth.h"

/* The socket of khealth-notify.socket: systemd starts the rest, in a sandbox. */
static bool hand_over(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = NOTIFY_SOCKET };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool done;

	if (fd < 0)
		return false;
	done = sendto(fd, "1", 1, 0, (void *)&to, sizeof(to)) == 1 ||
	       errno == EAGAIN;		/* many came before us: it is told */
	close(fd);
	return done;
}

static int to_memory(const char *data, size_t len)
{
	int fd = memfd_create("alert", 0);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len ||
	    lseek(fd, 0, SEEK_SET)) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* Nobody else does it: this process does, as somebody else. */
static int send_ourselves(int memory)
{
	static char *const environment[] = { "PATH=" SAFE_PATH, "LC_ALL=C",
					     "HOME=/", NULL };
	char number[16], path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *argv[] = { "khealth", "notify", "--seconds", "20", NULL, NULL,
			 NULL };

	if (memory >= 0) {
		snprintf(number, sizeof(number), "%d", memory);
		argv[4] = "--memory";
		argv[5] = number;
	}
	if (!become_sender()) {
		complain("privileges cannot be given up: nothing is sent");
		return 1;
	}
	path[len > 0 ? len : 0] = '\0';
	execve(path, argv, environment);
	complain("khealth cannot be run: %s", strerror(errno));
	return 1;
}

int helper_main(char **environment)
{
	static const struct rlimit no_core;
	struct json_object *entry;
	struct message message;
	struct alert alert;
	struct facts facts;
	const char *text;
	int memory;
	size_t len;

	umask(077);
	setrlimit(RLIMIT_CORE, &no_core);
	conf_read();
	if (alert_from_env(&alert, environment))
		return 1;
	facts_bounded(&alert, &facts, conf_num("facts_ms"));
	message_make(&alert, &facts, &message);
	entry = entry_json(&alert, &facts, &message);
	text = json_text(entry);
	len = strlen(text);
	free(message.text);
	if (spool_put(text, len, alert.time, alert.num[V_SEQ])) {
		complain("no disk has room for an alert: %s", message.summary);
		memory = to_memory(text, len);
		json_object_put(entry);
		return send_ourselves(memory);
	}
	json_object_put(entry);
	return hand_over() ? 0 : send_ourselves(-1);
}
