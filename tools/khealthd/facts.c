// SPDX-License-Identifier: GPL-2.0
/*
 * Who it is. Nothing is executed for that, and the time is bounded: what is not
 * found by then stays unknown.
 */
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "khealth.h"

static uint64_t end;

bool facts_time_left(void)
{
	return now_ms() < end;
}

static void find_host(struct facts *f)
{
	struct utsname name;
	size_t len;

	copy(f->host, sizeof(f->host), conf("host"));
	if (!f->host[0] && !uname(&name))
		copy(f->host, sizeof(f->host), name.nodename);
	len = strspn(f->host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
	if (!len || f->host[len])
		copy(f->host, sizeof(f->host), "localhost");
}

/* From the file, and not from LDAP: that can take for ever. */
static void find_user(const struct alert *a, struct facts *f)
{
	FILE *file = known(a, V_UID) ? fopen("/etc/passwd", "re") : NULL;
	char line[512], *uid, *after;

	while (file && facts_time_left() && fgets(line, sizeof(line), file)) {
		uid = strchr(line, ':');
		if (uid)
			*uid++ = '\0';
		uid = uid ? strchr(uid, ':') : NULL;
		if (!uid || strtoull(uid + 1, &after, 10) != a->num[V_UID] ||
		    *after != ':')
			continue;
		clean(line);
		copy(f->user, sizeof(f->user), line);
		break;
	}
	if (file)
		fclose(file);
}

static void find_interface(const struct alert *a, struct facts *f)
{
	char name[IF_NAMESIZE];

	if (!known(a, V_IFINDEX) || !if_indextoname(a->num[V_IFINDEX], name))
		return;
	clean(name);
	copy(f->interface, sizeof(f->interface), name);
}

void facts_find(const struct alert *a, struct facts *f, unsigned int ms)
{
	int netns, back;

	end = now_ms() + ms;
	find_host(f);
	find_user(a, f);
	if (known(a, V_CGROUP)) {
		cgroup_path_of_id(a->num[V_CGROUP], f->made_in,
				  sizeof(f->made_in));
		cgroup_unit(f->made_in, f->made_in_unit,
			    sizeof(f->made_in_unit));
	}
	netns = netns_find(a, f);
	back = netns_enter(netns);
	/* An index means something in its own namespace only. */
	if (back >= 0 || !strcmp(f->netns_name, "initial") || !known(a, V_NETNS))
		find_interface(a, f);
	if (back >= 0 || netns < 0)
		f->inode = diag_inode(a);
	netns_leave(back);
	if (netns >= 0)
		close(netns);
	if (known(a, V_SOCK_COOKIE))
		proc_find_holder(a, f->inode, &f->holder);
	f->cut = !facts_time_left();
}

/*
 * A read from /proc can hang, whatever the time is. So it is done by a child, and
 * what it has found by then is in memory that is shared with it.
 */
void facts_bounded(const struct alert *a, struct facts *f, unsigned int ms)
{
	struct facts *shared;
	struct pollfd wait;
	pid_t child = -1;

	memset(f, 0, sizeof(*f));
	find_host(f);
	shared = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared != MAP_FAILED)
		child = fork();
	if (child < 0) {
		if (shared != MAP_FAILED)
			munmap(shared, sizeof(*f));
		return;
	}
	if (!child) {
		facts_find(a, shared, ms);
		_exit(0);
	}
	wait = (struct pollfd){ .fd = syscall(SYS_pidfd_open, child, 0),
				.events = POLLIN };
	if (wait.fd < 0 || poll(&wait, 1, ms + 200) != 1) {
		kill(child, SIGKILL);
		shared->cut = true;
		if (wait.fd >= 0)
			poll(&wait, 1, 200);
	}
	if (wait.fd >= 0)
		close(wait.fd);
	*f = *shared;
	if (!f->host[0])
		find_host(f);
	/* One that cannot be killed is left behind. */
	waitpid(child, NULL, WNOHANG);
	munmap(shared, sizeof(*f));
}
