/* SPDX-License-Identifier: Apache-2.0 */
/* Class VDI: disks. */
#include "agent/api/context.h"
#include "agent/api/record.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static int vdi_create_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct value *fields CLEANUP_VALUE = NULL;
	char *ref CLEANUP_FREE = NULL;
	int r = record_take(api->pool, "VDI", args[0], &fields, fault);

	if (r == 0)
		r = record_require("VDI", fields, "SR", fault);
	if (r == 0)
		r = record_require("VDI", fields, "virtual_size", fault);
	if (r < 0)
		return r;
	r = vdi_create(api->storage, fields, &ref, fault);
	if (r == 0)
		*ret_result = value_new_string(ref);
	return r;
}

static int check_vdi(struct call *call, struct value *const *args, struct fault *fault)
{
	return object_check(api_of(call)->pool, "VDI", arg_text(args, 0), fault);
}

static int vdi_destroy_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_vdi(call, args, fault);

	(void)ret_result;
	return r < 0 ? r : vdi_destroy(api_of(call)->storage, arg_text(args, 0), fault);
}

static int vdi_resize_call(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	int r = check_vdi(call, args, fault);

	(void)ret_result;
	if (r < 0)
		return r;
	return vdi_resize(api_of(call)->storage, arg_text(args, 0), args[1]->integer, fault);
}

/* What the clients of other servers may ask for and this one cannot do is refused, not left out. */
static int check_options(const struct value *options, struct fault *fault)
{
	const char *format = value_find_string(options, "dest-img-format", "");
	const char *unreadable = value_find_string(options, "on_read_error", "fail");

	if (strcmp(unreadable, "fail") != 0) {
		char *why CLEANUP_FREE = xasprintf("%s (allowed: fail)", unreadable);
		return fault_set(
			fault, -EINVAL, "INVALID_VALUE", "options:on_read_error", why, NULL);
	}
	if (!*format)
		return 0;
	return fault_set(fault, -EINVAL, "INVALID_VALUE", "options:dest-img-format", format, NULL);
}

static int vdi_pool_migrate(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = check_vdi(call, args, fault);

	if (r == 0)
		r = object_check(api->pool, "SR", arg_text(args, 1), fault);
	if (r == 0)
		r = check_options(args[2], fault);
	if (r == 0)
		r = supervisor_move_vdi(api->supervisor, arg_text(args, 0), arg_text(args, 1),
			call_task(call), call_cancel(call), fault);
	if (r == 0)
		*ret_result = value_new_string(arg_text(args, 0));
	return r;
}

static const struct param create_params[] = {{"args", PARAM_STRUCT, "VDI record"}};
static const struct param self_params[] = {{"self", PARAM_STRING, "VDI ref"}};
static const struct param resize_params[] = {
	{"vdi", PARAM_STRING, "VDI ref"},
	{"size", PARAM_INT, NULL},
};

static const struct param migrate_params[] = {
	{"vdi", PARAM_STRING, "VDI ref"},
	{"sr", PARAM_STRING, "SR ref"},
	{"options", PARAM_MAP, NULL},
};

static const struct method rows[] = {
	{
		.name = "VDI.create",
		.role = USER_VM_ADMIN,
		.handle = vdi_create_call,
		.flags = METHOD_ASYNC,
		PARAMS(create_params),
		.result = "VDI ref",
		.doc = "Makes an empty disk; SR and virtual_size (bytes) are needed.",
	},
	{
		.name = "VDI.destroy",
		.role = USER_VM_ADMIN,
		.handle = vdi_destroy_call,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Removes the disk and its content.",
	},
	{
		.name = "VDI.resize",
		.role = USER_VM_ADMIN,
		.handle = vdi_resize_call,
		.flags = METHOD_ASYNC,
		PARAMS(resize_params),
		.result = "void",
		.doc = "Grows the disk to so many bytes.",
	},
	{
		.name = "VDI.pool_migrate",
		.role = USER_VM_POWER_ADMIN,
		.handle = vdi_pool_migrate,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(migrate_params),
		.result = "VDI ref",
		.doc = "Moves the disk to another SR of its host, also while its VM runs.",
	},
};

const struct method_table vdi_methods = {rows, ARRAY_SIZE(rows)};
