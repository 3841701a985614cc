/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"
#include "cli/record.h"
#include "cli/view.h"
#include "cli/wait.h"

static const struct column columns[] = {
	{"UUID", "uuid", COLUMN_TEXT, NULL},
	{"NAME", "name_label", COLUMN_TEXT, NULL},
	{"STATUS", "status", COLUMN_TEXT, NULL},
	{"PROGRESS", "progress", COLUMN_PERCENT, NULL},
	{"CREATED", "created", COLUMN_TIME, NULL},
	{"FINISHED", "finished", COLUMN_TIME, NULL},
	{"ERROR", "error_info", COLUMN_SET, NULL},
	{"ALLOWED", "allowed_operations", COLUMN_SET, NULL},
	{"RESULT", "result", COLUMN_TEXT, NULL},
	{"OTHER", "other_config", COLUMN_MAP, NULL},
};

static const struct view view = {.class = "task", VIEW_COLUMNS(columns), .n_listed = 6};

static int task_list(struct context *context, struct fault *fault)
{
	return view_list(context, &view, fault);
}

static int task_show(struct context *context, struct fault *fault)
{
	return view_show(context, &view, fault);
}

static int task_wait(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	struct value *record CLEANUP_VALUE = NULL;
	int r = view_find(context, &view, &object, fault);

	if (r == 0)
		r = wait_for_task(context, object.ref, WAIT_LEAVES, &record, fault);
	if (r == 0)
		r = wait_outcome(object.ref, record, fault);
	if (r < 0)
		return r;
	if (!context->json)
		return view_write(context, &view, record, fault);
	struct value *json CLEANUP_VALUE = record_for_json(object.ref, record);
	context_put_json(context, json);
	return 0;
}

static int task_cancel(struct context *context, struct fault *fault)
{
	struct object object CLEANUP_OBJECT = OBJECT_INIT;
	int r = view_find(context, &view, &object, fault);

	if (r < 0)
		return r;
	return session_call(
		context->session, NULL, fault, "task.cancel", value_new_string(object.ref), NULL);
}

const struct command task_commands[N_TASK_COMMANDS] = {
	{"task", "list", task_list, .help = "lists running calls and those that ended lately"},
	{"task", "show", task_show, {{"TASK", "task", false}}, .help = "shows one"},
	{"task", "wait", task_wait, {{"TASK", "task", false}},
		.help = "waits for its end, which becomes the exit status"},
	{"task", "cancel", task_cancel, {{"TASK", "task", false}}, .help = "asks it to stop"},
};
