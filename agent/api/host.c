/* SPDX-License-Identifier: Apache-2.0 */
/* Class host: being the destination of a move, and maintenance. */
#include "agent/api/context.h"
#include "agent/api/evacuate.h"
#include "base/clock.h"

#include <errno.h>

static int host_migrate_receive(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	const char *host = arg_text(args, 0);
	const char *network = arg_text(args, 1);

	int r = object_check(api->pool, "host", host, fault);

	if (r == 0)
		r = object_check(api->pool, "network", network, fault);
	return r < 0 ? r
		     : supervisor_receive(api->supervisor, call_session(call), host, network,
			       ret_result, fault);
}

static int host_set_enabled(
	struct call *call, struct value *const *args, bool enabled, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = value_new_bool(enabled);

	return object_set_field(
		api_of(call)->pool, "host", arg_text(args, 0), "enabled", value, fault);
}

static int host_enable(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return host_set_enabled(call, args, true, fault);
}

static int host_disable(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	(void)ret_result;
	return host_set_enabled(call, args, false, fault);
}

/* Its own clock, as it would go into a date: the call is executed on that host. */
static int host_get_servertime(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	int r = object_check(api_of(call)->pool, "host", arg_text(args, 0), fault);

	if (r == 0)
		*ret_result = value_new_datetime(clock_wall_sec());
	return r;
}

static const struct param receive_params[] = {
	{"host", PARAM_STRING, "host ref"},
	{"network", PARAM_STRING, "network ref"},
	{"options", PARAM_MAP, NULL},
};
static const struct param self_params[] = {{"host", PARAM_STRING, "host ref"}};

static const struct param evacuate_params[] = {
	{"host", PARAM_STRING, "host ref"},
	{"network", PARAM_STRING, "network ref"},
	{"evacuate_batch_size", PARAM_INT, NULL},
};

static const struct method rows[] = {
	{
		.name = "host.migrate_receive",
		.role = USER_VM_POWER_ADMIN,
		.handle = host_migrate_receive,
		.flags = METHOD_ASYNC,
		PARAMS(receive_params),
		.result = "(string -> string) map",
		.doc = "Makes the token that VM.migrate_send on the source takes as dest.",
	},
	{
		.name = "host.enable",
		.role = USER_POOL_OPERATOR,
		.handle = host_enable,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Lets VMs start and arrive here.",
	},
	{
		.name = "host.disable",
		.role = USER_POOL_OPERATOR,
		.handle = host_disable,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Lets no new VM start or arrive here.",
	},
	{
		.name = "host.get_servertime",
		.role = USER_READ_ONLY,
		.handle = host_get_servertime,
		PARAMS(self_params),
		.result = "datetime",
		.doc = "What that host's clock says.",
	},
	{
		.name = "host.evacuate",
		.role = USER_POOL_OPERATOR,
		.handle = host_evacuate,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(evacuate_params, 1),
		.result = "void",
		.doc = "Disables the host and moves its running VMs to other hosts of the pool.",
	},
	{
		.name = "host.assert_can_evacuate",
		.role = USER_READ_ONLY,
		.handle = host_assert_can_evacuate,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "void",
		.doc = "Fails with an error for each VM that could not leave.",
	},
	{
		.name = "host.get_vms_which_prevent_evacuation",
		.role = USER_READ_ONLY,
		.handle = host_get_vms_which_prevent_evacuation,
		.flags = METHOD_ASYNC,
		PARAMS(self_params),
		.result = "(VM ref -> string set) map",
		.doc = "Those VMs, each with its error: code and parameters.",
	},
};

const struct method_table host_methods = {rows, ARRAY_SIZE(rows)};
