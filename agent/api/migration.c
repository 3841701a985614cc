/* SPDX-License-Identifier: Apache-2.0 */
/* Class migration, Ferry's own: one object per move, on both sides; read by the accessors. */
#include "agent/api/context.h"
#include "base/alloc.h"

#include <errno.h>

/* By ref, or by the uuid that logs and errors name it by. */
static int migration_uuid(
	struct pool_db *pool, const char *self, char **ret_uuid, struct fault *fault)
{
	if (!object_exists(pool, "migration", self)) {
		char *ref CLEANUP_FREE = NULL;
		int r = object_get_by_uuid(pool, "migration", self, &ref, fault);
		if (r < 0)
			return r;
		*ret_uuid = xstrdup(self);
		return 0;
	}
	return object_get_string(pool, "migration", self, "uuid", ret_uuid, fault);
}

static int migration_cancel(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *who CLEANUP_FREE = NULL;
	char *user CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = NULL;
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);

	(void)ret_result;
	if (r == 0)
		r = object_get_string(
			api->pool, "session", call_session(call), "auth_user_name", &user, fault);
	if (r < 0)
		return r;
	who = xasprintf("%s at %s", user, call_peer_address(call));
	return supervisor_cancel(api->supervisor, uuid, who, fault);
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

static int migration_set_bandwidth(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	char *uuid CLEANUP_FREE = NULL;
	int64_t value = args[1]->integer;

	(void)ret_result;
	if (value < 0) {
		char *text CLEANUP_FREE = xasprintf("%lld", (long long)value);
		return fault_set(fault, -EINVAL, "INVALID_VALUE", "value", text, NULL);
	}
	int r = migration_uuid(api->pool, arg_text(args, 0), &uuid, fault);
	return r < 0 ? r : supervisor_set_bandwidth(api->supervisor, uuid, (uint64_t)value, fault);
}

static const struct param self_params[] = {{"self", PARAM_STRING, "migration ref or uuid"}};

static const struct param bandwidth_params[] = {
	{"self", PARAM_STRING, "migration ref or uuid"},
	{"value", PARAM_INT, "bytes a second; 0: unlimited"},
};

static const struct method rows[] = {
	{
		.name = "migration.cancel",
		.handle = migration_cancel,
		PARAMS(self_params),
		.result = "void",
		.doc = "Asks the migration to stop; refused once it is committed.",
	},
	{
		.name = "migration.forget",
		.handle = migration_forget_aborted,
		PARAMS(self_params),
		.result = "void",
		.doc = "Ends an aborted one whose destination is gone for ever.",
	},
	{
		.name = "migration.set_bandwidth",
		.handle = migration_set_bandwidth,
		PARAMS(bandwidth_params),
		.result = "void",
		.doc = "Limits a migration that is under way, at the side that sends it.",
	},
};

const struct method_table migration_methods = {rows, ARRAY_SIZE(rows)};
