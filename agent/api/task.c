/* SPDX-License-Identifier: Apache-2.0 */
/* Class task: what clients do with tasks, their own and those of Async. calls. */
#include "agent/api/context.h"
#include "agent/api/tasks.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>

static int task_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;
	int r = tasks_create_object(
		api_of(call)->tasks, arg_text(args, 0), arg_text(args, 1), &ref, fault);

	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

static int task_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return tasks_destroy(api_of(call)->tasks, arg_text(args, 0), fault);
}

static int task_cancel(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return tasks_cancel(api_of(call)->tasks, arg_text(args, 0), fault);
}

/* A task that its owner ends has an end like any other. */
static int task_set_status(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const char *status = arg_text(args, 1);
	bool is_end = strcmp(status, "pending") != 0 && strcmp(status, "cancelling") != 0;
	struct value *fields CLEANUP_VALUE = value_new_struct();

	(void)ret_result;
	if (is_end) {
		value_set(fields, "progress", value_new_double(1.0));
		value_set(fields, "finished", value_new_datetime(clock_wall_sec()));
		value_set(fields, "allowed_operations", value_new_array());
	}
	value_set_string(fields, "status", status);
	return object_set_fields(api_of(call)->pool, "task", arg_text(args, 0), fields, fault);
}

static int task_set_progress(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	(void)ret_result;
	if (!(args[1]->real >= 0 && args[1]->real <= 1)) {
		char *text CLEANUP_FREE = xasprintf("%g", args[1]->real);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "progress", text, NULL);
	}
	return object_set_field(
		api_of(call)->pool, "task", arg_text(args, 0), "progress", args[1], fault);
}

static int task_set_result(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return object_set_field(
		api_of(call)->pool, "task", arg_text(args, 0), "result", args[1], fault);
}

static int task_set_error_info(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	(void)ret_result;
	return object_set_field(
		api_of(call)->pool, "task", arg_text(args, 0), "error_info", args[1], fault);
}

static const struct param create_params[] = {
	{"label", PARAM_STRING, NULL},
	{"description", PARAM_STRING, NULL},
};
static const struct param self_params[] = {{"self", PARAM_STRING, "task ref"}};
static const struct param status_params[] = {
	{"self", PARAM_STRING, "task ref"},
	{"value", PARAM_STRING, "task_status"},
};
static const struct param progress_params[] = {
	{"self", PARAM_STRING, "task ref"},
	{"value", PARAM_DOUBLE, NULL},
};
static const struct param result_params[] = {
	{"self", PARAM_STRING, "task ref"},
	{"value", PARAM_STRING, NULL},
};
static const struct param error_params[] = {
	{"self", PARAM_STRING, "task ref"},
	{"value", PARAM_SET, NULL},
};

static const struct method rows[] = {
	{
		.name = "task.create",
		.handle = task_create,
		PARAMS(create_params),
		.result = "task ref",
		.doc = "Makes a task that the client itself keeps up to date.",
	},
	{
		.name = "task.destroy",
		.handle = task_destroy,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes the task; one that runs is not stopped, and goes when it ends.",
	},
	{
		.name = "task.cancel",
		.handle = task_cancel,
		PARAMS(self_params),
		.result = "void",
		.doc = "Asks the task to stop; returns at once.",
	},
	{
		.name = "task.set_status",
		.handle = task_set_status,
		PARAMS(status_params),
		.result = "void",
		.doc = "Sets the status; an end also sets progress and finished.",
	},
	{
		.name = "task.set_progress",
		.handle = task_set_progress,
		PARAMS(progress_params),
		.result = "void",
		.doc = "Sets the progress, 0 to 1.",
	},
	{
		.name = "task.set_result",
		.handle = task_set_result,
		PARAMS(result_params),
		.result = "void",
		.doc = "Sets the result.",
	},
	{
		.name = "task.set_error_info",
		.handle = task_set_error_info,
		PARAMS(error_params),
		.result = "void",
		.doc = "Sets code and parameters of the failure.",
	},
};

const struct method_table task_methods = {rows, ARRAY_SIZE(rows)};
