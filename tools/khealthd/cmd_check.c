// SPDX-License-Identifier: GPL-2.0
/* khealth check: what is set, what is missing, what waits. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "khealth.h"

static bool bad;

static void __attribute__((format(printf, 2, 3)))
line(const char *word, const char *format, ...)
{
	va_list args;

	bad |= !strcmp(word, "MISSING");
	printf("%-9s", word);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

static void expect(bool is, const char *good, const char *missing)
{
	line(is ? "ok" : "MISSING", "%s", is ? good : missing);
}

static void check_helper_path(void)
{
	char value[300] = "", why[400];

	first_line(SYSCTL_DIR "/helper", value, sizeof(value));
	if (strcmp(value, HELPER_PATH))
		line("MISSING", "the helper is another: sysctl kernel.khealthd.helper=%s",
		     HELPER_PATH);
	else if (!is_trusted(HELPER_PATH, why, sizeof(why)))
		line("MISSING", "%s", why);
	else
		line("ok", "the helper is %s", HELPER_PATH);
}

static void check_counters(void)
{
	static const char *const names[] = { "runs", "failures", "timeouts",
					     "dropped" };
	char path[128];
	uint64_t value;
	size_t i;

	printf("%-9shelper:", "");
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/helper/%s", SYSFS_DIR, names[i]);
		if (read_u64(path, &value))
			printf(" %llu %s", (unsigned long long)value, names[i]);
	}
	putchar('\n');
}

static void check_kernel(void)
{
	uint64_t value = 0;

	if (access(SYSCTL_DIR, F_OK)) {
		line("MISSING", "this kernel has no khealthd (CONFIG_KHEALTHD)");
		return;
	}
	read_u64(SYSCTL_DIR "/enabled", &value);
	expect(value, "khealthd is enabled",
	       "khealthd is off: sysctl kernel.khealthd.enabled=1");
	check_helper_path();
	if (read_u64(SYSCTL_DIR "/helper_timeout_ms", &value))
		expect(value >= conf_num("facts_ms") + 5000,
		       "the kernel waits long enough for it",
		       "time for the helper: sysctl kernel.khealthd.helper_timeout_ms=30000");
	check_counters();
}

static void check_sender(void)
{
	struct stat st;

	if (!stat(NOTIFY_SOCKET, &st) && S_ISSOCK(st.st_mode))
		line("ok", "systemd sends: khealth-notify.socket");
	else if (!access("/run/systemd/system", F_OK))
		line("MISSING",
		     "systemctl enable --now khealth-notify.socket khealth-notify.timer");
	else
		line("ok", "the helper sends by itself: there is no systemd");
}

static bool have_program(const char *name)
{
	static const char *const folders[] = { "/usr/sbin", "/usr/bin", "/sbin",
					       "/bin" };
	char path[128];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", folders[i], name);
		if (!access(path, X_OK))
			return true;
	}
	return false;
}

/* What it needs that is not there, or NULL. */
static const char *output_lacks(const char *output)
{
	static char text[400];

	if (!strcmp(output, "mail")) {
		if (!output_has(output)) {
			snprintf(text, sizeof(text), "%s", conf("mail_command"));
			return text;
		}
	} else if (!strcmp(output, "webhook") || !strcmp(output, "alertmanager")) {
		if (!output_has(output)) {
			snprintf(text, sizeof(text), "the setting %s_url", output);
			return text;
		}
		if (!have_program("curl"))
			return "the program curl";
	} else if (!strcmp(output, "apprise")) {
		if (!output_has(output))
			return "the setting apprise_config";
		if (!have_program("apprise"))
			return "the program apprise";
	}
	return NULL;
}

static void check_alertmanager(void)
{
	uint64_t repeat = 0;

	if (!read_u64(SYSCTL_DIR "/repeat_ms", &repeat))
		return;
	if (!repeat || repeat >= 1000 * conf_num("alertmanager_lifetime"))
		line("MISSING",
		     "alertmanager: a repeat within alertmanager_lifetime: sysctl kernel.khealthd.repeat_ms=300000");
}

static void check_output(const char *output)
{
	char path[128], why[400];
	const char *lacks;
	unsigned int n;

	if (!output_is_on(output)) {
		line("off", "%s", output);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", OWN_OUTPUTS, output);
	if (access(path, F_OK))
		snprintf(path, sizeof(path), "%s/%s", VENDOR_OUTPUTS, output);
	lacks = output_lacks(output);
	if (lacks)
		line("MISSING", "%s: %s", output, lacks);
	else if (!is_trusted(path, why, sizeof(why)))
		line("MISSING", "%s: %s", output, why);
	else
		line("ok", "%s", output);
	n = queue_count(output);
	if (n)
		line("MISSING", "%s: %u message(s) wait", output, n);
	n = aside_count(output);
	if (n)
		line("", "%s: %u message(s) were refused for good, in %s/aside/%s",
		     output, n, STATE_DIR, output);
	if (!strcmp(output, "alertmanager"))
		check_alertmanager();
}

/* Somebody who sends nothing is seen by what waits for him. */
static void check_spool(void)
{
	unsigned int n = spool_count();

	if (n)
		line("MISSING", "%u alert(s) wait in the spool: nobody has sent them yet",
		     n);
}

static bool sender_can_read(const char *path)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		_exit(!become_sender() || access(path, R_OK));
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

/* What root can read need not be readable for who sends. */
static void check_readable(void)
{
	const char *const paths[] = { CONF_FILE, ETC_DIR "/silences", OWN_OUTPUTS,
		conf("webhook_curl"), conf("alertmanager_curl"),
		conf("apprise_config") };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(paths); i++)
		if (!geteuid() && !access(paths[i], F_OK) &&
		    !sender_can_read(paths[i]))
			line("MISSING", "%s: the user who sends cannot read it",
			     paths[i]);
}

int cmd_check(int argc, char **argv)
{
	unsigned int i;

	conf_read();
	if (argc == 2 && !strcmp(argv[1], "--settings")) {
		conf_print(stdout);
		return conf_bad();
	}
	if (argc > 1)
		return nothing_to_do("check: unknown argument '%s'", argv[1]);
	expect(!conf_bad(), "settings", "settings that can be understood: see the log");
	expect(rules_check(stdout), "severity and silences",
	       "severity and silences that can be understood: see above");
	check_readable();
	check_kernel();
	check_sender();
	check_spool();
	outputs_find();
	if (!n_outputs)
		line("MISSING", "outputs, in %s", VENDOR_OUTPUTS);
	for (i = 0; i < n_outputs; i++)
		check_output(outputs[i]);
	return bad;
}
