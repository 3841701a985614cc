/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.*, Ferry's own: what a host has that nobody accounts for. */
#include "agent/migrate/doctor.h"
#include "agent/api/context.h"

#include <errno.h>
#include <string.h>

/* A call for another host was sent there. */
static int examine(struct call *call, struct value *const *args, bool fix,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	const char *host = arg_text(args, 0);
	int r = object_check(api->pool, "host", host, fault);

	if (r == 0 && strcmp(host, api->host_ref) != 0)
		r = fault_set(fault, -EHOSTDOWN, "HOST_OFFLINE", host, NULL);
	return r < 0 ? r : doctor_examine(api->supervisor, fix, ret_result, fault);
}

static int doctor_examine_host(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	return examine(call, args, false, ret_result, fault);
}

static int doctor_fix_host(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	return examine(call, args, true, ret_result, fault);
}

static const struct param host_params[] = {{"host", PARAM_STRING, "host ref"}};

static const struct method rows[] = {
	{
		.name = "doctor.examine",
		.role = USER_POOL_OPERATOR,
		.handle = doctor_examine_host,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(host_params),
		.result = "struct set",
		.doc = "What is on the host that nobody accounts for: kind, what, where, why, "
		       "fixable, fixed, error.",
	},
	{
		.name = "doctor.fix",
		.role = USER_POOL_OPERATOR,
		.handle = doctor_fix_host,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(host_params),
		.result = "struct set",
		.doc = "The same, and removes what belongs to dead migrations.",
	},
};

const struct method_table doctor_methods = {rows, ARRAY_SIZE(rows)};
