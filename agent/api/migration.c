/* SPDX-License-Identifier: Apache-2.0 */
/* Class migration, Ferry's own: one object per move, on both sides; read by the accessors. */
#include "agent/api/context.h"
#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

/* By ref, or by the uuid that logs and errors name it by. */
static int migration_uuid(
	struct pool_db *pool, const char *self, char **ret_uuid, struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;

	if (strncmp(self, REF_PREFIX, strlen(REF_PREFIX)) == 0)
		return object_get_string(pool, "migration", self, "uuid", ret_uuid, fault);
	int r = object_get_by_uuid(pool, "migration", self, &ref, fault);
	if (r == 0)
		*ret_uuid = xstrdup(self);
	return r;
}

static int migration_cancel(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *who CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = NULL;
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);

	(void)ret_result;
	if (r == 0)
		r = api_caller(call, &who, fault);
	return r < 0 ? r : supervisor_cancel(api->supervisor, uuid, who, fault);
}

static int migration_forget_aborted(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	char *uuid CLEANUP_FREE = NULL;
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);

	(void)ret_result;
	return r < 0 ? r : supervisor_forget(api->supervisor, uuid, fault);
}

static int migration_resume(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *who CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = NULL;
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);

	(void)ret_result;
	if (r == 0)
		r = api_caller(call, &who, fault);
	return r < 0 ? r : supervisor_resume(api->supervisor, uuid, who, fault);
}

static int migration_resolve(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	const char *assume = arg_text(args, 1);
	bool committed = strcmp(assume, "committed") == 0;
	char *who CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = NULL;

	(void)ret_result;
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);
	if (r < 0)
		return r;
	if (!committed && strcmp(assume, "aborted") != 0)
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "assume", assume, NULL);
	if (!args[2]->boolean)
		return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED",
			"A wrong word makes two running copies of the VM, or none: look at the "
			"destination first, and say with the last parameter that you have",
			NULL);
	r = api_caller(call, &who, fault);
	return r < 0 ? r : supervisor_resolve(api->supervisor, uuid, committed, who, fault);
}

static int migration_set_bandwidth(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	char *uuid CLEANUP_FREE = NULL;
	int64_t value = args[1]->integer;

	(void)ret_result;
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);
	if (r == 0 && value < 0) {
		char *text CLEANUP_FREE = xasprintf("%lld", (long long)value);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "value", text, NULL);
	}
	return r < 0 ? r : supervisor_set_bandwidth(api->supervisor, uuid, (uint64_t)value, fault);
}

static const struct param self_params[] = {{"self", PARAM_STRING, "migration ref"}};

static const struct param resolve_params[] = {
	{"self", PARAM_STRING, "migration ref"},
	{"assume", PARAM_STRING, NULL},
	{"checked", PARAM_BOOL, NULL},
};

static const struct param bandwidth_params[] = {
	{"self", PARAM_STRING, "migration ref"},
	{"value", PARAM_INT, NULL},
};

static const struct method rows[] = {
	{
		.name = "migration.cancel",
		.role = USER_VM_POWER_ADMIN,
		.handle = migration_cancel,
		PARAMS(self_params),
		.result = "void",
		.doc = "Asks the migration to stop; refused once it is committed. As with "
		       "the others, self may be its uuid.",
	},
	{
		.name = "migration.forget",
		.role = USER_POOL_OPERATOR,
		.handle = migration_forget_aborted,
		PARAMS(self_params),
		.result = "void",
		.doc = "Ends an aborted one whose destination is gone for ever.",
	},
	{
		.name = "migration.resolve",
		.role = USER_POOL_OPERATOR,
		.handle = migration_resolve,
		PARAMS(resolve_params),
		.result = "void",
		.doc = "Says what was decided (committed or aborted) about one in doubt, whose "
		       "destination cannot be asked; a wrong word makes two runners.",
	},
	{
		.name = "migration.resume",
		.role = USER_VM_POWER_ADMIN,
		.handle = migration_resume,
		PARAMS(self_params),
		.result = "void",
		.doc = "Makes one that waits to try something again try it now.",
	},
	{
		.name = "migration.set_bandwidth",
		.role = USER_VM_POWER_ADMIN,
		.handle = migration_set_bandwidth,
		PARAMS(bandwidth_params),
		.result = "void",
		.doc = "Limits a migration that is under way, at the side that sends it, to bytes "
		       "a second; 0: unlimited.",
	},
};

const struct method_table migration_methods = {rows, ARRAY_SIZE(rows)};
