// SPDX-License-Identifier: GPL-2.0
/*
 * khealthd_listen [--all] [COUNT]: print khealthd's alerts, one a line, until COUNT
 * of them were printed or for ever. Those of this network namespace need no
 * privilege; --all are those of the machine, which need CAP_NET_ADMIN in the initial
 * network namespace.
 *
 * An example for who writes a daemon: raw generic netlink, no library.
 */
#include <stdbool.h>
#include <stdlib.h>

#include "khealthd_genl.h"

static int fail(const char *what, int err)
{
	fprintf(stderr, "khealthd_listen: %s: %s\n", what, strerror(-err));
	return 1;
}

int main(int argc, char **argv)
{
	bool all = argc > 1 && !strcmp(argv[1], "--all");
	long left = argc > 1 + all ? atol(argv[1 + all]) : -1;
	struct khealthd_family family;
	char text[1024];
	int fd, err;

	fd = genl_open();
	if (fd < 0)
		return fail("socket", fd);
	err = find_family(fd, &family);
	if (err)
		return fail("this kernel has no khealthd", err);
	err = join_group(fd, all ? family.all_alerts : family.alerts);
	if (err)
		return fail("cannot join the group", err);

	while (left) {
		err = next_alert(fd, &family, text, sizeof(text));
		if (err && err != -ENOBUFS)
			return fail("recv", err);
		/* A daemon would look at what is, for what happened is lost. */
		puts(err ? "lost" : text);
		fflush(stdout);
		left -= !err && left > 0;
	}
	return 0;
}
