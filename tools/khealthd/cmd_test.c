// SPDX-License-Identifier: GPL-2.0
/* khealth test: an alert from the kernel, followed to each output. */
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "khealth.h"

static struct json_object *result_of(struct json_object *results,
				     const char *output, const char *monitor,
				     time_t since)
{
	struct json_object *o;

	if (!json_object_object_get_ex(results, output, &o) ||
	    strcmp(json_str(o, "event"), "test") ||
	    strcmp(json_str(o, "monitor"), monitor) ||
	    json_int(o, "time") < since)
		return NULL;
	return o;
}

/* Is there a result for each output? */
static bool all_there(struct json_object *results, const char *monitor,
		      time_t since)
{
	unsigned int i;

	for (i = 0; i < n_outputs; i++)
		if (!result_of(results, outputs[i], monitor, since))
			return false;
	return true;
}

static int print_results(struct json_object *results, const char *monitor,
			 time_t since)
{
	struct json_object *o;
	char words[300];
	unsigned int i;
	int bad = 0;

	for (i = 0; i < n_outputs; i++) {
		o = result_of(results, outputs[i], monitor, since);
		copy(words, sizeof(words), o ? json_str(o, "result") :
		     "nothing became of it yet");
		clean(words);
		if (!strcmp(words, "off")) {
			printf("%-9s%s\n", "off", outputs[i]);
		} else if (!strcmp(words, "sent")) {
			printf("%-9s%s\n", "ok", outputs[i]);
		} else {
			printf("%-9s%s: %s\n", "MISSING", outputs[i], words);
			bad = 1;
		}
	}
	return bad;
}

int cmd_test(int argc, char **argv)
{
	const char *monitor = argc > 1 ? argv[1] : "sock_rcvbuf";
	struct json_object *results = NULL;
	char path[128], helper[300] = "";
	time_t since = time(NULL);
	int fd, tries, bad;

	if (argc > 2 || strspn(monitor, "abcdefghijklmnopqrstuvwxyz_") !=
			strlen(monitor))
		return nothing_to_do("test wants one monitor, such as sock_rcvbuf");
	conf_read();
	outputs_find();
	first_line(SYSCTL_DIR "/helper", helper, sizeof(helper));
	if (strcmp(helper, HELPER_PATH))
		return nothing_to_do("the helper is not %s; see khealth check",
				     HELPER_PATH);
	snprintf(path, sizeof(path), "%s/%.40s/test", SYSFS_DIR, monitor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		return nothing_to_do("no test alert of '%s': be root; see khealth explain",
				     monitor);
	close(fd);
	for (tries = 0; tries < 600; tries++) {
		if (results)
			json_object_put(results);
		results = results_load();
		if (all_there(results, monitor, since))
			break;
		usleep(100000);
	}
	printf("test alert of %s:\n", monitor);
	bad = print_results(results, monitor, since);
	json_object_put(results);
	return bad;
}
