/* SPDX-License-Identifier: Apache-2.0 */
#include "base/value.h"
#include "cli/errors.h"
#include "cli/interrupt.h"
#include "cli/views.h"
#include "cli/wait.h"

#include <string.h>

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"ADDRESS", "address", COLUMN_TEXT, NULL},
	{"ENABLED", "enabled", COLUMN_BOOL, NULL},
	{"LIVE", "metrics", COLUMN_BOOL_AT, "host_metrics.live"},
	{"VMS", "resident_VMs", COLUMN_COUNT, NULL},
	{"DESCRIPTION", "name_description", COLUMN_TEXT, NULL},
	{"HOSTNAME", "hostname", COLUMN_TEXT, NULL},
	{"SOFTWARE", "software_version", COLUMN_MAP, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

const struct view host_view = {.class = "host", VIEW_COLUMNS(columns), .n_listed = 6};

static int host_list(struct context *context, struct fault *fault)
{
	return view_list(context, &host_view, fault);
}

static int host_show(struct context *context, struct fault *fault)
{
	return view_show(context, &host_view, fault);
}

#define VM_KEY "ferry:vm:"

/* A line for each VM, of what the task says became of it. */
static struct value *results_of(const struct value *task)
{
	struct value *results = value_new_struct();
	const struct value *config = value_find(task, "other_config");

	for (size_t i = 0; config && i < config->record.n_members; i++) {
		const struct value_member *member = &config->record.members[i];
		if (strncmp(member->name, VM_KEY, strlen(VM_KEY)) == 0)
			value_set_string(results, member->name + strlen(VM_KEY),
				value_string(member->value, ""));
	}
	return results;
}

static void put_results(struct context *context, const struct value *results)
{
	if (context->json) {
		context_put_json(context, results);
		return;
	}
	for (size_t i = 0; i < results->record.n_members; i++)
		buf_printf(&context->out, "%s  %s\n", results->record.members[i].name,
			value_string(results->record.members[i].value, ""));
}

/* The first Ctrl-C cancels what has not arrived. */
static int host_evacuate(struct context *context, struct fault *fault)
{
	struct object host CLEANUP_OBJECT = OBJECT_INIT;
	struct value *task CLEANUP_VALUE = NULL;
	struct value *record CLEANUP_VALUE = NULL;
	int r = view_find(context, &host_view, &host, fault);

	if (r < 0)
		return r;
	if (args_has(context->args, "check"))
		return session_call(context->session, NULL, fault, "host.assert_can_evacuate",
			value_new_string(host.ref), NULL);
	session_set_cancel(context->session, interrupt_second());
	r = session_call(context->session, &task, fault, "Async.host.evacuate",
		value_new_string(host.ref), NULL);
	const char *ref = value_string(task, "");
	if (r == 0)
		r = wait_for_task(context, ref, WAIT_CANCELS, &record, fault);
	if (r < 0)
		return r;
	(void)session_call(
		context->session, NULL, NULL, "task.destroy", value_new_string(ref), NULL);
	r = wait_outcome(ref, record, fault);
	struct value *results CLEANUP_VALUE = results_of(record);
	if (r == 0)
		put_results(context, results);
	for (size_t i = 0; r < 0 && i < results->record.n_members; i++)
		context_note(context, "%s: %s", results->record.members[i].name,
			value_string(results->record.members[i].value, ""));
	return r;
}

static const struct option evacuate_options[] = {
	{"check", NULL, NULL, "only say which VMs could not leave", false, false},
};

const struct command host_commands[N_HOST_COMMANDS] = {
	{"host", "list", host_list, .help = "lists the hosts of the pool"},
	{"host", "show", host_show, {{"HOST", "host", false}}, .help = "shows one host"},
	{"host", "evacuate", host_evacuate, {{"HOST", "host", false}},
		COMMAND_OPTIONS(evacuate_options),
		.help = "disables it and moves its running VMs to other hosts"},
};
