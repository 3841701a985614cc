/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator is lost: another host of the pool takes its place. What is called at a member,
 * with sessions of its own, and what the new coordinator does then. */
#include "agent/api/auth.h"
#include "agent/api/context.h"
#include "agent/api/locals.h"
#include "agent/pool/reign.h"
#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int refuse_coordinator(struct api *api, const struct method *method, struct fault *fault)
{
	if (!api->roster)
		return 0;
	char *text CLEANUP_FREE =
		xasprintf("%s: this host is the coordinator of its pool", method->name);
	return fault_set(fault, -EPERM, "NOT_IN_EMERGENCY_MODE", text, NULL);
}

/* --- At a member -------------------------------------------------------------------------------
 */

static int local_login(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = refuse_coordinator(api, call_method(call), fault);

	(void)ret_result;
	if (r == 0)
		r = auth_submit(api->auth, call, arg_text(args, 0), arg_text(args, 1), "", fault);
	return r < 0 ? r : CALL_PENDING;
}

static int local_logout(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = refuse_coordinator(api, call_method(call), fault);

	(void)args;
	(void)ret_result;
	if (r == 0)
		locals_logout(api->locals, call_session(call));
	return r;
}

static int load_membership(struct api *api, struct membership *ret_membership, struct fault *fault)
{
	int r = membership_load(api->state_dir, ret_membership, fault);

	if (r < 0)
		return r;
	if (r == 0 || ret_membership->kind == MEMBERSHIP_JOINING)
		return fault_set(fault, -EPERM, "NOT_IN_EMERGENCY_MODE",
			"this host is no member of a pool", NULL);
	if (ret_membership->kind == MEMBERSHIP_FULL)
		return 0;
	char *text CLEANUP_FREE = xasprintf(
		"this host was replaced as the coordinator by %s: pool.recover_slaves there takes "
		"it in",
		ret_membership->url);
	return fault_set(fault, -EPERM, "OPERATION_NOT_ALLOWED", text, NULL);
}

/* It starts anew as the coordinator. */
static void has_taken_over(struct api *api)
{
	api->has_taken_over = true;
	api->restart(api->restart_arg);
}

static int emergency_transition(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = api_of(call);
	struct membership membership CLEANUP_MEMBERSHIP = {0};
	int64_t age = 0;
	int r = refuse_coordinator(api, call_method(call), fault);

	(void)args;
	if (r == 0)
		r = load_membership(api, &membership, fault);
	if (r == 0)
		r = reign_check_lost(api->state_dir, &membership, &age, fault);
	if (r < 0)
		return r;
	SCOPE_LOCK(&api->changing);
	r = reign_take_over(api->state_dir, &membership, fault);
	if (r < 0)
		return r;
	log_warn("POOL_COPY_USED", "age=%" PRId64 "s: what was done later is not known any more",
		age);
	*ret_result = value_new_format("%" PRId64, age);
	has_taken_over(api);
	return 0;
}

/* --- At the new coordinator --------------------------------------------------------------------
 */

static int recover_slaves(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	const struct rank rank = {api->term, api->coordinator_ref};

	(void)args;
	return reign_recover(api->pool, &rank, api->url, api->fingerprint, ret_result, fault);
}

/* --- Between hosts -----------------------------------------------------------------------------
 */

/* Who calls has the right rank, or it would not be here. */
static int pool_whom(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);

	(void)args;
	(void)ret_result;
	SCOPE_LOCK(&api->changing);
	const struct rank next = {api->term + 1, api->host_ref};
	return api->has_taken_over ? reign_fault(fault, &next, api->url, api->fingerprint) : 0;
}

/* The coordinator wants this host to be the next one. */
static int pool_succeed(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct membership membership CLEANUP_MEMBERSHIP = {0};
	int r = refuse_coordinator(api, call_method(call), fault);

	(void)ret_result;
	if (r < 0)
		return r;
	SCOPE_LOCK(&api->changing);
	r = load_membership(api, &membership, fault);
	if (r == 0)
		r = reign_succeed(api->state_dir, &membership, arg_text(args, 0), fault);
	if (r == 0)
		has_taken_over(api);
	return r;
}

/* The caller coordinates the pool from now on. */
static int pool_follow(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct link_caller caller CLEANUP_LINK_CALLER = {0};

	(void)ret_result;
	if (!link_session_parse(call_session(call), &caller) ||
		strcmp(caller.host, api->host_ref) != 0)
		return fault_set(fault, -EACCES, "SESSION_INVALID", call_session(call), NULL);
	SCOPE_LOCK(&api->changing);
	const struct rank own = {api->term, api->coordinator_ref};
	if (rank_compare(&caller.rank, &own) == 0 && !api->is_overruled)
		return 0;
	const struct membership membership = {
		.host = caller.host,
		.url = (char *)arg_text(args, 0),
		.fingerprint = (char *)arg_text(args, 1),
		.secret = caller.secret,
		.coordinator = caller.coordinator,
		.term = caller.rank.term,
	};
	int r = reign_doubt(api->state_dir, fault);
	if (r == 0)
		r = membership_store(api->state_dir, &membership, fault);
	if (r < 0)
		return r;
	log_warn("COORDINATOR_NEW", "url=%s term=%" PRId64, membership.url, membership.term);
	api->restart(api->restart_arg);
	return 0;
}

static const struct param login_params[] = {
	{"uname", PARAM_STRING, NULL},
	{"pwd", PARAM_STRING, NULL},
};
static const struct param succeed_params[] = {{"task", PARAM_STRING, "task ref"}};
static const struct param follow_params[] = {
	{"url", PARAM_STRING, NULL},
	{"fingerprint", PARAM_STRING, NULL},
};

static const struct method rows[] = {
	{
		.name = "session.slave_local_login_with_password",
		.handle = local_login,
		.flags = METHOD_NO_SESSION | METHOD_EMERGENCY,
		PARAMS(login_params),
		.result = "session ref",
		.doc = "At a member: a session of this host alone, for "
		       "pool.emergency_transition_to_master.",
	},
	{
		.name = "session.local_logout",
		.role = USER_READ_ONLY,
		.handle = local_logout,
		.flags = METHOD_EMERGENCY,
		.result = "void",
		.doc = "Ends such a session.",
	},
	{
		.name = "pool.emergency_transition_to_master",
		.role = USER_POOL_OPERATOR,
		.handle = emergency_transition,
		.flags = METHOD_EMERGENCY,
		.result = "string",
		.doc = "At a member whose coordinator is lost: it becomes the coordinator, with "
		       "its "
		       "copy of the pool's database. The copy's age in seconds.",
	},
	{
		.name = "pool.recover_slaves",
		.role = USER_POOL_OPERATOR,
		.handle = recover_slaves,
		.flags = METHOD_ASYNC | METHOD_TASK,
		.result = "host ref set",
		.doc = "Makes the other hosts follow this coordinator; those that do.",
	},
	{
		.name = "Pool.whom",
		.handle = pool_whom,
		.flags = METHOD_HIDDEN | METHOD_POOL,
		.result = "void",
		.doc = "Fails when the host follows another coordinator than the caller does.",
	},
	{
		.name = "Pool.succeed",
		.handle = pool_succeed,
		.flags = METHOD_HIDDEN | METHOD_POOL,
		PARAMS(succeed_params),
		.result = "void",
		.doc = "The host becomes the coordinator, with what this one has now.",
	},
	{
		.name = "Pool.follow",
		.handle = pool_follow,
		.flags = METHOD_HIDDEN | METHOD_POOL,
		PARAMS(follow_params),
		.result = "void",
		.doc = "The caller, at that address, is the coordinator from now on.",
	},
};

const struct method_table emergency_methods = {rows, ARRAY_SIZE(rows)};
