// SPDX-License-Identifier: GPL-2.0
/*
 * Usage: watch kprobe|fentry OBJECT COMMAND [ARGUMENT...]
 *
 * Run COMMAND while the programs of that kind in OBJECT (watch.bpf.c) watch the
 * kernel, as far as it has the functions that they are for.
 */
#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Functions that the compiler has put into others are not there. */
static bool has_function(const char *name)
{
	char line[512], found[256];
	FILE *file = fopen("/proc/kallsyms", "r");
	bool has = false;

	if (!file)
		die("/proc/kallsyms");
	while (!has && fgets(line, sizeof(line), file))
		has = sscanf(line, "%*s %*s %255s", found) == 1 && !strcmp(found, name);
	fclose(file);
	return has;
}

int main(int argc, char **argv)
{
	struct bpf_program *program;
	struct bpf_object *object;
	const char *name;
	int status;
	size_t len;
	pid_t pid;

	if (argc < 4) {
		fprintf(stderr, "Usage: watch kprobe|fentry OBJECT COMMAND...\n");
		return 2;
	}
	len = strlen(argv[1]);
	object = bpf_object__open(argv[2]);
	if (!object)
		die(argv[2]);
	bpf_object__for_each_program(program, object) {
		name = bpf_program__name(program);
		bpf_program__set_autoload(program, !strncmp(name, argv[1], len) &&
					  has_function(name + len + 1));
	}
	if (bpf_object__load(object))
		die("bpf_object__load");
	bpf_object__for_each_program(program, object) {
		if (!bpf_program__autoload(program))
			continue;
		if (!bpf_program__attach(program))
			die(bpf_program__name(program));
		fprintf(stderr, "watch: %s\n", bpf_program__name(program));
	}
	pid = fork();
	if (!pid) {
		execvp(argv[3], argv + 3);
		die(argv[3]);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die(argv[3]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
