/* SPDX-License-Identifier: Apache-2.0 */
/* ferry doctor: what the hosts of a pool have that nobody accounts for. */
#include "base/alloc.h"
#include "base/json.h"
#include "cli/context.h"
#include "cli/errors.h"
#include "cli/object.h"
#include "cli/output.h"

#include <errno.h>

static void write_finding(const struct value *finding, struct buf *out)
{
	const char *error = value_find_string(finding, "error", "");
	const char *mark = value_find_bool(finding, "fixed", false)     ? "removed"
			   : *error                                     ? "NOT REMOVED"
			   : value_find_bool(finding, "fixable", false) ? "--fix removes it"
									: "look at it yourself";
	char *what CLEANUP_FREE = output_clean(value_find_string(finding, "what", ""));
	char *where CLEANUP_FREE = output_clean(value_find_string(finding, "where", ""));
	char *why CLEANUP_FREE = output_clean(value_find_string(finding, "why", ""));
	char *failure CLEANUP_FREE = output_clean(error);

	buf_printf(out, "  %s %s\n      in %s: %s [%s]\n", value_find_string(finding, "kind", ""),
		what, where, why, mark);
	if (*error)
		buf_printf(out, "      %s\n", failure);
}

/* What is left after it was looked at, and perhaps removed. */
static size_t count_left(const struct value *findings)
{
	size_t n = 0;

	for (size_t i = 0; i < findings->array.n_items; i++)
		n += !value_find_bool(findings->array.items[i], "fixed", false);
	return n;
}

static void write_host(const struct value *host, const struct value *findings, struct buf *out)
{
	char *name CLEANUP_FREE = output_clean(value_find_string(host, "name_label", ""));

	if (findings->array.n_items == 0)
		buf_printf(out, "%s: nothing found\n", name);
	else
		buf_printf(out, "%s: %zu found\n", name, findings->array.n_items);
	for (size_t i = 0; i < findings->array.n_items; i++)
		write_finding(findings->array.items[i], out);
}

struct visit {
	struct context *context;
	struct value *results; /* for JSON: array of {host, name, findings} */
	size_t n_left;
};

static int visit_host(
	struct visit *visit, const char *ref, const struct value *host, struct fault *fault)
{
	struct context *context = visit->context;
	struct value *findings CLEANUP_VALUE = NULL;
	const char *method = args_has(context->args, "fix") ? "doctor.fix" : "doctor.examine";
	int r = session_call(
		context->session, &findings, fault, method, value_new_string(ref), NULL);

	if (r < 0)
		return r;
	if (!findings || findings->type != VALUE_ARRAY)
		return cli_fail(fault, -EBADMSG, "%s: the server's answer is no list", method);
	visit->n_left += count_left(findings);
	if (!context->json) {
		write_host(host, findings, &context->out);
		return 0;
	}
	struct value *result = value_new_struct();
	value_set_string(result, "host", value_find_string(host, "uuid", ""));
	value_set_string(result, "name", value_find_string(host, "name_label", ""));
	value_set(result, "findings", TAKE_PTR(findings));
	value_append(visit->results, result);
	return 0;
}

static int visit_all(struct visit *visit, struct fault *fault)
{
	const struct value *hosts = NULL;
	int r = session_records(visit->context->session, "host", &hosts, fault);

	for (size_t i = 0; r == 0 && i < hosts->record.n_members; i++)
		r = visit_host(visit, hosts->record.members[i].name, hosts->record.members[i].value,
			fault);
	return r;
}

static int doctor(struct context *context, struct fault *fault)
{
	const char *name = args_value(context->args, "host", NULL);
	struct value *results CLEANUP_VALUE = value_new_array();
	struct visit visit = {.context = context, .results = results};
	int r = context_session(context, fault);

	if (r == 0 && name) {
		struct object host CLEANUP_OBJECT = OBJECT_INIT;
		r = object_find(context->session, "host", name, &host, fault);
		if (r == 0)
			r = visit_host(&visit, host.ref, host.record, fault);
	} else if (r == 0) {
		r = visit_all(&visit, fault);
	}
	if (r < 0)
		return r;
	if (context->json) {
		json_encode(results, &context->out);
		buf_append_char(&context->out, '\n');
	}
	return visit.n_left ? COMMAND_FOUND : 0;
}

static const struct option options[] = {
	{"host", "HOST", "host", "this host alone, instead of all of the pool", false, false},
	{"fix", NULL, NULL, "remove what belongs to dead migrations", false, false},
};

const struct command doctor_commands[N_DOCTOR_COMMANDS] = {
	{"doctor", NULL, doctor, COMMAND_OPTIONS(options),
		.help = "looks for what nobody accounts for; status 1 if there is any"},
};
