/* SPDX-License-Identifier: Apache-2.0 */
/* Class task: what clients do with tasks, their own and those of Async. calls. */
#include "agent/api/context.h"
#include "agent/api/tasks.h"
#include "agent/migrate/supervisor.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>

static int task_create(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;
	int r = tasks_create_object(api_of(call)->tasks, arg_text(args, 0), arg_text(args, 1),
		call_user(call), &ref, fault);

	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

/* A task is for whoever made it to change; operators may change any. */
static int check_owner(struct call *call, const char *task, struct fault *fault)
{
	char *owner CLEANUP_FREE = NULL;
	int r = 0;

	if (call_role(call) > USER_POOL_OPERATOR)
		r = object_get_string(api_of(call)->pool, "task", task, "user", &owner, fault);
	if (r < 0 || !owner || strcmp(owner, call_user(call)) == 0)
		return r;
	return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", call_method(call)->name,
		"The task was made by another user", NULL);
}

static int task_destroy(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_owner(call, arg_text(args, 0), fault);

	(void)ret_result;
	return r < 0 ? r : tasks_destroy(api_of(call)->tasks, arg_text(args, 0), fault);
}

/* A move that this host sends answers for itself: it may be too late, and who asked stands in its
 * record. 0 when the task is no such move's. */
static int cancel_migration(struct api *api, const char *task, const char *who, struct fault *fault)
{
	struct value *config CLEANUP_VALUE = NULL;
	char *status CLEANUP_FREE = NULL;

	if (!api->supervisor ||
		object_get_string(api->pool, "task", task, "status", &status, NULL) < 0 ||
		strcmp(status, "pending") != 0 ||
		object_get_field(api->pool, "task", task, "other_config", &config, NULL) < 0)
		return 0;
	const char *uuid = value_find_string(config, "ferry:migration", "");
	return supervisor_sends(api->supervisor, uuid, task)
		       ? supervisor_cancel(api->supervisor, uuid, who, fault)
		       : 0;
}

static int task_cancel(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	const char *task = arg_text(args, 0);
	char *who CLEANUP_FREE = NULL;
	int r = check_owner(call, task, fault);

	(void)ret_result;
	if (r == 0)
		r = api_caller(call, &who, fault);
	if (r == 0)
		r = cancel_migration(api_of(call), task, who, fault);
	return r < 0 ? r : tasks_cancel(api_of(call)->tasks, task, who, fault);
}

static int set_fields(
	struct call *call, const char *task, const struct value *fields, struct fault *fault)
{
	int r = check_owner(call, task, fault);

	return r < 0 ? r : object_set_fields(api_of(call)->pool, "task", task, fields, fault);
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
	return set_fields(call, arg_text(args, 0), fields, fault);
}

/* Sets the field that the row names. */
static int task_set_field(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();

	(void)ret_result;
	value_set(fields, call_method(call)->data, value_copy(args[1]));
	return set_fields(call, arg_text(args, 0), fields, fault);
}

static int task_set_progress(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	if (args[1]->real >= 0 && args[1]->real <= 1)
		return task_set_field(call, args, ret_result, fault);
	char *text CLEANUP_FREE = xasprintf("%g", args[1]->real);
	return fault_set(fault, -EINVAL, "INVALID_VALUE", "progress", text, NULL);
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
		.role = USER_READ_ONLY,
		.handle = task_create,
		PARAMS(create_params),
		.result = "task ref",
		.doc = "Makes a task that the client itself keeps up to date.",
	},
	{
		.name = "task.destroy",
		.role = USER_READ_ONLY,
		.handle = task_destroy,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes the task; one that runs is not stopped, and goes when it ends.",
	},
	{
		.name = "task.cancel",
		.role = USER_READ_ONLY,
		.handle = task_cancel,
		PARAMS(self_params),
		.result = "void",
		.doc = "Asks the task to stop; returns at once.",
	},
	{
		.name = "task.set_status",
		.role = USER_READ_ONLY,
		.handle = task_set_status,
		PARAMS(status_params),
		.result = "void",
		.doc = "Sets the status; an end also sets progress and finished.",
	},
	{
		.name = "task.set_progress",
		.role = USER_READ_ONLY,
		.handle = task_set_progress,
		.data = "progress",
		PARAMS(progress_params),
		.result = "void",
		.doc = "Sets the progress, 0 to 1.",
	},
	{
		.name = "task.set_result",
		.role = USER_READ_ONLY,
		.handle = task_set_field,
		.data = "result",
		PARAMS(result_params),
		.result = "void",
		.doc = "Sets the result.",
	},
	{
		.name = "task.set_error_info",
		.role = USER_READ_ONLY,
		.handle = task_set_field,
		.data = "error_info",
		PARAMS(error_params),
		.result = "void",
		.doc = "Sets code and parameters of the failure.",
	},
};

const struct method_table task_methods = {rows, ARRAY_SIZE(rows)};
