/* SPDX-License-Identifier: Apache-2.0 */
/* Class pool: hosts that join and leave. */
#include "agent/api/context.h"
#include "agent/pool/join.h"
#include "agent/pool/leave.h"
#include "agent/pool/roster.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* --- Joining: this host ------------------------------------------------------------------------
 */

static int pool_join(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	const struct join_params params = {
		.pool = api->pool,
		.state_dir = api->state_dir,
		.host = api->host_ref,
		.url = api->url,
		.fingerprint = api->fingerprint,
		.address = arg_text(args, 0),
		.username = arg_text(args, 1),
		.password = arg_text(args, 2),
		.pin = arg_text(args, 3),
	};
	int r = api_close_for_clients(api, fault);

	(void)ret_result;
	if (r < 0)
		return r;
	r = join_run(&params, call_cancel(call), fault);
	if (r == 0 || r == -EINPROGRESS)
		api->restart(api->restart_arg);
	else
		atomic_store(&api->is_joining, false);
	if (r == -ECANCELED)
		return fault_set(fault, r, "TASK_CANCELLED", call_task(call), NULL);
	return r;
}

/* --- Leaving: the coordinator ------------------------------------------------------------------
 */

static int pool_eject(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	const char *host = arg_text(args, 0);
	int r = leave_eject(api->pool, api->host_ref, host, fault);

	(void)ret_result;
	if (r == 0)
		roster_remove(api->roster, host);
	return r;
}

static const struct param join_params[] = {
	{"master_address", PARAM_STRING, NULL},
	{"master_username", PARAM_STRING, NULL},
	{"master_password", PARAM_STRING, NULL},
	{"master_fingerprint", PARAM_STRING, NULL},
};
static const struct param eject_params[] = {{"host", PARAM_STRING, "host ref"}};

static const struct method rows[] = {
	{
		.name = "pool.join",
		.role = USER_POOL_OPERATOR,
		.handle = pool_join,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(join_params, 3),
		.result = "void",
		.doc = "Makes this host, with its SRs and VMs, a member of the pool at that "
		       "address.",
	},
	{
		.name = "pool.join_force",
		.role = USER_POOL_OPERATOR,
		.handle = pool_join,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS_OPTIONAL(join_params, 3),
		.result = "void",
		.doc = "The same: there is nothing that may be passed over.",
	},
	{
		.name = "pool.eject",
		.role = USER_POOL_OPERATOR,
		.handle = pool_eject,
		.flags = METHOD_ASYNC | METHOD_TASK,
		PARAMS(eject_params),
		.result = "void",
		.doc = "Makes a member a pool of its own, with its SRs and the VMs on them.",
	},
};

const struct method_table pool_methods = {rows, ARRAY_SIZE(rows)};
