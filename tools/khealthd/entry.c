// SPDX-License-Identifier: GPL-2.0
/*
 * An entry of the spool: all that an output needs, made once, while who it is can
 * still be found out. JSON, by json-c.
 */
#include <json-c/json.h>
#include <string.h>

#include "khealth.h"

const char *boot_id(void)
{
	static char id[64];

	if (!id[0])
		first_line("/proc/sys/kernel/random/boot_id", id, sizeof(id));
	return id;
}

const char *json_text(struct json_object *o)
{
	return json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE);
}

const char *json_str(struct json_object *o, const char *name)
{
	struct json_object *value;
	const char *s;

	if (!json_object_object_get_ex(o, name, &value) ||
	    !json_object_is_type(value, json_type_string))
		return "";
	s = json_object_get_string(value);
	return s ? s : "";
}

int64_t json_int(struct json_object *o, const char *name)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, name, &value))
		return 0;
	return json_object_get_int64(value);
}

void json_put_str(struct json_object *o, const char *name, const char *value)
{
	if (value && *value)
		json_object_object_add(o, name, json_object_new_string(value));
}

void json_put_num(struct json_object *o, const char *name, uint64_t value)
{
	char buf[32];

	/* Beyond that, JavaScript's numbers are not exact. */
	if (value < 1ull << 53) {
		json_object_object_add(o, name, json_object_new_int64(value));
		return;
	}
	snprintf(buf, sizeof(buf), "%llu", (unsigned long long)value);
	json_put_str(o, name, buf);
}

static void put_who(struct json_object *o, const struct facts *f)
{
	const struct holder *h = &f->holder;

	json_put_str(o, "user", f->user);
	if (h->pid) {
		json_put_str(o, "process", h->comm);
		json_put_num(o, "pid", h->pid);
		json_put_str(o, "process_state", proc_state_word(h->state));
		if (!strcmp(conf("cmdline"), "on"))
			json_put_str(o, "command", h->cmdline);
		json_put_str(o, "container", h->container);
	}
	json_put_str(o, "service", h->unit[0] ? h->unit : f->made_in_unit);
	json_put_str(o, "made_in_service", f->made_in_unit);
	json_put_str(o, "cgroup_path", h->cgroup[0] ? h->cgroup : f->made_in);
	json_put_str(o, "netns_name", f->netns_name);
	if (f->netns_pid)
		json_put_num(o, "netns_pid", f->netns_pid);
	json_put_str(o, "interface", f->interface);
}

/* The alert as a flat object: what webhooks, watch and status have. */
struct json_object *facts_json(const struct alert *a, const struct facts *f,
			       const struct message *m)
{
	struct json_object *o = json_object_new_object();
	char word[64];
	enum var v;

	for (v = 0; v < V_MAX; v++) {
		if (!known(a, v) || v == V_ABI)
			continue;
		if (var_is_word(v))
			json_put_str(o, var_key(v), a->word[v]);
		else
			json_put_num(o, var_key(v), a->num[v]);
	}
	json_put_num(o, "time", a->time);
	json_put_num(o, "begin", a->begin);
	json_put_str(o, "host", f->host);
	json_put_str(o, "severity", m->severity);
	json_put_str(o, "summary", m->summary);
	json_put_str(o, "family_name", family_word(a, word, sizeof(word)));
	json_put_str(o, "protocol_name", protocol_word(a, word, sizeof(word)));
	json_put_str(o, "meaning", meaning(a));
	put_who(o, f);
	return o;
}

static void instance_label(const struct facts *f, char *buf, size_t size)
{
	const char *from = conf("alertmanager_instance");
	size_t len = 0;

	for (; *from && len < size - 1; from++) {
		if (from[0] == '%' && from[1] == 'h') {
			len += snprintf(buf + len, size - len, "%s", f->host);
			from++;
		} else {
			buf[len++] = *from;
		}
		if (len > size - 1)
			len = size - 1;
	}
	buf[len] = '\0';
}

static void own_labels(struct json_object *o)
{
	char buf[1024], *word, *save = NULL, *value;

	copy(buf, sizeof(buf), conf("alertmanager_labels"));
	for (word = strtok_r(buf, " ", &save); word;
	     word = strtok_r(NULL, " ", &save)) {
		value = strchr(word, '=');
		if (!value || value == word)
			continue;
		*value++ = '\0';
		json_put_str(o, word, value);
	}
}

/*
 * Labels say which alert it is: one for each instance and severity. A socket's
 * cookie is what two sockets with the same port differ in, or two CPUs their
 * number. instance and nodename are as node_exporter has them.
 */
static struct json_object *labels(const struct alert *a, const struct facts *f,
				  const char *severity)
{
	static const enum var vars[] = { V_MONITOR, V_CODE, V_PORT, V_CPU, V_NODE };
	struct json_object *o = json_object_new_object();
	char word[160];
	size_t i;

	json_put_str(o, "alertname", "Khealthd");
	for (i = 0; i < ARRAY_SIZE(vars); i++)
		json_put_str(o, var_key(vars[i]), a->word[vars[i]]);
	json_put_str(o, "severity", severity);
	instance_label(f, word, sizeof(word));
	json_put_str(o, "instance", word);
	json_put_str(o, "nodename", f->host);
	json_put_str(o, "netns", f->netns_name[0] ? f->netns_name :
		     a->word[V_NETNS]);
	json_put_str(o, "family", family_word(a, word, sizeof(word)));
	json_put_str(o, "protocol", protocol_word(a, word, sizeof(word)));
	json_put_str(o, "socket", a->word[V_SOCK_COOKIE]);
	json_put_str(o, "service", f->holder.unit[0] ? f->holder.unit :
		     f->made_in_unit);
	json_put_str(o, "container", f->holder.container);
	own_labels(o);
	return o;
}

static void put_time(struct json_object *o, const char *name, time_t when)
{
	struct tm tm;
	char buf[64];

	if (gmtime_r(&when, &tm) &&
	    strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm))
		json_put_str(o, name, buf);
}

static struct json_object *annotations(const struct alert *a,
				       const struct facts *f,
				       const struct message *m)
{
	struct json_object *flat = facts_json(a, f, m);
	struct json_object *o = json_object_new_object();

	json_object_object_foreach(flat, name, value)
		json_put_str(o, name, json_object_get_string(value));
	json_put_str(o, "description", m->text);
	json_put_str(o, "runbook_url", conf("runbook"));
	json_object_put(flat);
	return o;
}

/*
 * All that Alertmanager has to know of this instance, whatever it was told before:
 * which severity there is now, and that there is no other one. What has ended has
 * ended some seconds ago: an end that is ahead of its clock is none.
 */
struct json_object *alertmanager_json(const struct alert *a,
				      const struct facts *f,
				      const struct message *m)
{
	static const char *const severities[] = { "critical", "warning", "info" };
	bool test = !strcmp(a->word[V_EVENT], "test");
	bool gone = !strcmp(a->word[V_EVENT], "recovered");
	struct json_object *list = json_object_new_array(), *o;
	time_t ends, past = a->time - 5;
	bool fires;
	size_t i;

	/* What is over, or a test, ends by itself: nothing more may come. */
	ends = a->time + (test || alert_is_over(a) ? 120 :
			  (time_t)conf_num("alertmanager_lifetime"));
	for (i = 0; i < ARRAY_SIZE(severities); i++) {
		fires = !gone && !strcmp(severities[i], m->severity);
		if (test && !fires)
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "labels", labels(a, f, severities[i]));
		json_object_object_add(o, "annotations", annotations(a, f, m));
		put_time(o, "startsAt", fires || a->begin < past ? a->begin :
			 past);
		put_time(o, "endsAt", fires ? ends : past);
		json_object_array_add(list, o);
	}
	return list;
}

static struct json_object *env_json(const struct alert *a)
{
	struct json_object *o = json_object_new_object();
	enum var v;

	for (v = 0; v < V_MAX; v++)
		json_put_str(o, var_name(v), a->word[v]);
	return o;
}

static struct json_object *match_json(const struct alert *a,
				      const struct facts *f)
{
	struct json_object *list = json_object_new_array(), *pair;
	struct match_words w;
	unsigned int i;

	match_words(a, f, &w);
	for (i = 0; i < w.number; i++) {
		pair = json_object_new_object();
		json_put_str(pair, "name", w.name[i]);
		json_put_str(pair, "value", w.value[i]);
		json_object_array_add(list, pair);
	}
	return list;
}

struct json_object *entry_json(const struct alert *a, const struct facts *f,
			       const struct message *m)
{
	struct json_object *o = json_object_new_object(), *facts;
	char key[20];

	snprintf(key, sizeof(key), "%016llx", (unsigned long long)alert_key(a));
	json_put_str(o, "boot", boot_id());
	json_put_num(o, "time", a->time);
	json_put_num(o, "uptime", uptime());
	json_put_num(o, "begin", a->begin);
	json_put_num(o, "seq", a->num[V_SEQ]);
	json_put_num(o, "duration_ms", a->num[V_DURATION_MS]);
	json_put_str(o, "monitor", a->word[V_MONITOR]);
	json_put_str(o, "event", a->word[V_EVENT]);
	json_put_num(o, "over", alert_is_over(a));
	json_put_str(o, "key", key);
	json_put_str(o, "owner", a->word[V_UID]);
	json_put_str(o, "host", f->host);
	json_put_str(o, "severity", m->severity);
	json_put_str(o, "summary", m->summary);
	json_put_str(o, "subject", m->subject);
	json_put_str(o, "text", m->text);
	json_object_object_add(o, "env", env_json(a));
	json_object_object_add(o, "match", match_json(a, f));
	facts = facts_json(a, f, m);
	json_put_str(facts, "text", m->text);
	json_put_str(facts, "runbook_url", conf("runbook"));
	json_object_object_add(o, "facts", facts);
	json_object_object_add(o, "alertmanager", alertmanager_json(a, f, m));
	return o;
}
