// SPDX-License-Identifier: GPL-2.0
/* What the path of a cgroup says: unit of systemd, container, pod. */
#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

/* A number as it is in KHEALTHD_CGROUP is a file handle of cgroup2's. */
void cgroup_path_of_id(uint64_t id, char *buf, size_t size)
{
	static const char *const mounts[] = { "/sys/fs/cgroup",
					      "/sys/fs/cgroup/unified" };
	union {
		struct file_handle handle;
		char space[sizeof(struct file_handle) + sizeof(id)];
	} h = { .handle = { .handle_bytes = sizeof(id), .handle_type = 0xfe } };
	char link[64], path[512];
	size_t i, prefix;
	ssize_t n;
	int mount, fd;

	buf[0] = '\0';
	memcpy(h.handle.f_handle, &id, sizeof(id));
	for (i = 0; i < ARRAY_SIZE(mounts); i++) {
		mount = open(mounts[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (mount < 0)
			continue;
		fd = open_by_handle_at(mount, &h.handle, O_PATH | O_CLOEXEC);
		close(mount);
		if (fd < 0)
			continue;
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, path, sizeof(path) - 1);
		close(fd);
		prefix = strlen(mounts[i]);
		if (n <= 0)
			continue;
		path[n] = '\0';
		if (strncmp(path, mounts[i], prefix))
			continue;
		clean(path);
		copy(buf, size, path[prefix] ? path + prefix : "/");
		return;
	}
}

static bool has_suffix(const char *s, size_t len, const char *suffix)
{
	size_t n = strlen(suffix);

	return len > n && !strncmp(s + len - n, suffix, n);
}

/*
 * The unit that the path is of: the outermost one, since whom it is delegated to
 * can name what is below as he likes. A user's manager is a delegate, too, but
 * user@1000.service alone says little: whose it is stands beside it.
 */
void cgroup_unit(const char *path, char *buf, size_t size)
{
	size_t len;

	buf[0] = '\0';
	for (; *path; path += len) {
		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (has_suffix(path, len, ".service") ||
		    has_suffix(path, len, ".scope")) {
			snprintf(buf, size, "%.*s", (int)len, path);
			return;
		}
	}
}

static size_t hex_len(const char *s)
{
	return strspn(s, "0123456789abcdef");
}

static bool find_id(const char *path, const char *prefix, const char *kind,
		    char *buf, size_t size)
{
	const char *p = path;

	while ((p = strstr(p, prefix))) {
		p += strlen(prefix);
		if (hex_len(p) == 64) {
			snprintf(buf, size, "%s %.12s", kind, p);
			return true;
		}
	}
	return false;
}

static void add_pod(const char *path, char *buf, size_t size)
{
	const char *p = strstr(path, "kubepods");
	size_t len, have = strlen(buf);
	char pod[40], *c;

	p = p ? strstr(p + strcspn(p, "/-"), "pod") : NULL;
	while (p && hex_len(p + 3) != 8)
		p = strstr(p + 3, "pod");
	if (!p)
		return;
	p += 3;
	len = strspn(p, "0123456789abcdef_-");
	snprintf(pod, sizeof(pod), "%.*s", len > 36 ? 36 : (int)len, p);
	for (c = pod; *c; c++)
		if (*c == '_')
			*c = '-';
	snprintf(buf + have, size - have, "%spod %s", have ? ", " : "", pod);
}

static void add_named(const char *path, const char *prefix, const char *kind,
		      char *buf, size_t size)
{
	const char *p = strstr(path, prefix);
	size_t len;

	if (!p || buf[0])
		return;
	p += strlen(prefix);
	len = strcspn(p, "/");
	if (has_suffix(p, len, ".scope"))
		len -= strlen(".scope");
	snprintf(buf, size, "%s %.*s", kind, (int)(len > 64 ? 64 : len), p);
}

void cgroup_container(const char *path, char *buf, size_t size)
{
	static const struct {
		const char *prefix, *kind;
	} ids[] = {
		{ "/docker-", "docker" }, { "/docker/", "docker" },
		{ "/libpod-", "podman" }, { "/libpod_", "podman" },
		{ "/cri-containerd-", "containerd" }, { "/crio-", "cri-o" },
		{ ":cri-containerd:", "containerd" }, { ":crio:", "cri-o" },
		{ ":docker:", "docker" }, { "/nerdctl-", "containerd" },
	};
	size_t i;

	buf[0] = '\0';
	/* Below a user's manager all names are his: only he is misled by podman's. */
	if (strstr(path, "/user@")) {
		find_id(path, "/libpod-", "podman", buf, size);
		return;
	}
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		if (find_id(path, ids[i].prefix, ids[i].kind, buf, size))
			break;
	/* kubelet without systemd: .../pod<uid>/<id> */
	if (!buf[0] && strstr(path, "kubepods") && strrchr(path, '/') &&
	    hex_len(strrchr(path, '/') + 1) == 64)
		snprintf(buf, size, "container %.12s", strrchr(path, '/') + 1);
	add_pod(path, buf, size);
	add_named(path, "/lxc.payload.", "lxc", buf, size);
	add_named(path, "/lxc/", "lxc", buf, size);
	add_named(path, "/machine.slice/machine-", "machine", buf, size);
}
