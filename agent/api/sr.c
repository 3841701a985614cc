/* SPDX-License-Identifier: Apache-2.0 */
/* Class SR: storage repositories. */
#include "agent/api/context.h"
#include "agent/api/record.h"

/* Positional, as in XenAPI; physical_size is what the directory's file system has. */
static int sr_create_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	static const char *const names[] = {
		"name_label", "name_description", "type", "content_type", "shared", "sm_config"};
	struct api *api = api_of(call);
	struct value *fields CLEANUP_VALUE = value_new_struct();
	char *ref CLEANUP_FREE = NULL;
	int r = object_check(api->pool, "host", arg_text(args, 0), fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (args[3 + i])
			value_set(fields, names[i], value_copy(args[3 + i]));
	}
	r = sr_create(api->storage, args[1], fields, &ref, fault);
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

static int check_sr(struct call *call, struct value *const *args, struct fault *fault)
{
	return object_check(api_of(call)->pool, "SR", arg_text(args, 0), fault);
}

static int sr_destroy_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_sr(call, args, fault);

	(void)ret_result;
	return r < 0 ? r : sr_destroy(api_of(call)->storage, arg_text(args, 0), fault);
}

static int sr_forget_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_sr(call, args, fault);

	(void)ret_result;
	return r < 0 ? r : sr_forget(api_of(call)->storage, arg_text(args, 0), fault);
}

static int sr_scan_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_sr(call, args, fault);

	(void)ret_result;
	return r < 0 ? r : sr_scan(api_of(call)->storage, arg_text(args, 0), fault);
}

static int sr_update_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_sr(call, args, fault);

	(void)ret_result;
	return r < 0 ? r : sr_refresh(api_of(call)->storage, arg_text(args, 0), fault);
}

/* Written by hand: the directory of a shared SR has a mark. */
static int sr_set_shared_call(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	int r = check_sr(call, args, fault);

	(void)ret_result;
	if (r < 0)
		return r;
	return sr_set_shared(api_of(call)->storage, arg_text(args, 0), args[1]->boolean, fault);
}

static const struct param create_params[] = {
	{"host", PARAM_STRING, "host ref"},
	{"device_config", PARAM_MAP, NULL},
	{"physical_size", PARAM_INT, NULL},
	{"name_label", PARAM_STRING, NULL},
	{"name_description", PARAM_STRING, NULL},
	{"type", PARAM_STRING, NULL},
	{"content_type", PARAM_STRING, NULL},
	{"shared", PARAM_BOOL, NULL},
	{"sm_config", PARAM_MAP, NULL},
};
static const struct param self_params[] = {{"sr", PARAM_STRING, "SR ref"}};

static const struct param shared_params[] = {
	{"self", PARAM_STRING, "SR ref"},
	{"value", PARAM_BOOL, NULL},
};

static const struct method rows[] = {
	{
		.name = "SR.create",
		.role = USER_POOL_OPERATOR,
		.handle = sr_create_call,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(create_params, 8),
		.result = "SR ref",
		.doc = "Makes a repository in a directory (type file, device_config location) and "
		       "the host's PBD; a shared one can get more.",
	},
	{
		.name = "SR.destroy",
		.role = USER_POOL_OPERATOR,
		.handle = sr_destroy_call,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes a repository that holds no disk; the directory stays.",
	},
	{
		.name = "SR.forget",
		.role = USER_POOL_OPERATOR,
		.handle = sr_forget_call,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes repository and disks from the database; the files stay.",
	},
	{
		.name = "SR.scan",
		.role = USER_POOL_OPERATOR,
		.handle = sr_scan_call,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(self_params),
		.result = "void",
		.doc = "Takes in image files that are new, marks disks whose file is gone.",
	},
	{
		.name = "SR.update",
		.role = USER_POOL_OPERATOR,
		.handle = sr_update_call,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(self_params),
		.result = "void",
		.doc = "Makes sizes and utilisation true.",
	},
	{
		.name = "SR.set_shared",
		.role = USER_POOL_OPERATOR,
		.handle = sr_set_shared_call,
		PARAMS(shared_params),
		.result = "void",
		.doc = "Whether other hosts may reach it too; refused while they do.",
	},
};

const struct method_table sr_methods = {rows, ARRAY_SIZE(rows)};
