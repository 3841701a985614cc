/* SPDX-License-Identifier: Apache-2.0 */
/* Pool.*: what hosts of one pool ask of each other, with the secret that a member shares with its
 * coordinator; and what a host asks that is about to join, or has left. */
#include "agent/api/context.h"
#include "agent/api/executions.h"
#include "agent/pool/handout.h"
#include "agent/pool/join.h"
#include "agent/pool/link.h"
#include "agent/pool/replica.h"
#include "agent/pool/roster.h"
#include "agent/pool/witness.h"
#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int require_coordinator(struct api *api, const struct method *method, struct fault *fault)
{
	if (api->roster)
		return 0;
	return fault_set(
		fault, -EPERM, "HOST_IS_SLAVE", api->coordinator_address, method->name, NULL);
}

static int require_member(struct api *api, const struct method *method, struct fault *fault)
{
	if (!api->roster)
		return 0;
	return fault_text(fault, -EPERM, "%s: this host is no member of a pool", method->name);
}

/* The host that calls; the caller frees it. */
static char *caller(struct call *call)
{
	struct link_caller caller CLEANUP_LINK_CALLER = {0};

	return xstrdup(link_session_parse(call_session(call), &caller) ? caller.host : "");
}

/* --- A member asks its coordinator -------------------------------------------------------------
 */

static int pool_db_run(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *host CLEANUP_FREE = caller(call);
	char *answer CLEANUP_FREE = NULL;
	int r = require_coordinator(api, call_method(call), fault);

	if (r == 0)
		r = pool_db_answer(api->pool, host, arg_text(args, 0), &answer, fault);
	if (r == 0)
		*ret_result = value_new_string(answer);
	return r;
}

/* Its address, or its certificate, may be another than before. */
static int update_link(struct api *api, const char *host, const char *url, const char *fingerprint,
	struct fault *fault)
{
	struct host_link link CLEANUP_HOST_LINK = {0};
	int r = host_link_get(api->pool, host, &link, fault);

	if (r <= 0 || (strcmp(link.url, url) == 0 && strcmp(link.fingerprint, fingerprint) == 0))
		return MIN(r, 0);
	free(link.url);
	free(link.fingerprint);
	link.url = xstrdup(url);
	link.fingerprint = xstrdup(fingerprint);
	r = host_link_set(api->pool, &link, fault);
	if (r == 0)
		roster_add(api->roster, &link);
	return r;
}

static int pool_greet(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *host CLEANUP_FREE = caller(call);
	int r = require_coordinator(api, call_method(call), fault);

	if (r < 0)
		return r;
	if (strcmp(arg_text(args, 0), FERRY_VERSION) != 0)
		return fault_text(fault, -EPROTONOSUPPORT,
			"the coordinator runs ferryd " FERRY_VERSION
			", this host %s: all hosts of a pool run the same version",
			arg_text(args, 0));
	r = update_link(api, host, arg_text(args, 1), arg_text(args, 2), fault);
	if (r < 0)
		return r;
	*ret_result = value_set_string(value_new_struct(), "coordinator", api->coordinator_ref);
	value_set(*ret_result, "term", value_new_format("%" PRId64, api->term));
	return 0;
}

static int pool_tick(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *host CLEANUP_FREE = caller(call);
	int r = require_coordinator(api, call_method(call), fault);

	(void)ret_result;
	if (r == 0)
		roster_heard(api->roster, host, args[0]->integer, args[1]->integer);
	return r;
}

static int pool_copy_offer(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = require_coordinator(api, call_method(call), fault);

	return r < 0 ? r
		     : handout_offer(api->handout, arg_text(args, 0), args[1]->boolean, ret_result,
			       fault);
}

static int pool_copy_read(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = require_coordinator(api, call_method(call), fault);

	return r < 0 ? r
		     : handout_read(api->handout, arg_text(args, 0), args[1]->integer, ret_result,
			       fault);
}

/* --- The coordinator asks a member -------------------------------------------------------------
 */

static int pool_execute(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct value *params CLEANUP_VALUE = NULL;
	int r = require_member(api, call_method(call), fault);

	(void)ret_result;
	if (r == 0)
		r = json_decode(arg_text(args, 4), strlen(arg_text(args, 4)), NULL, &params, fault);
	if (r == 0 && params->type != VALUE_ARRAY)
		r = fault_text(
			fault, -EBADMSG, "the parameters of %s are no list", arg_text(args, 2));
	if (r < 0)
		return r;
	const struct execution execution = {.method = arg_text(args, 2),
		.session = arg_text(args, 3),
		.task = arg_text(args, 1),
		.params = params};
	return executions_start(api->executions, call, arg_text(args, 0), &execution, fault);
}

/* One that this daemon does not know may stand for a migration, which goes on over restarts. */
static int resume(struct api *api, struct call *call, const char *task, struct fault *fault)
{
	struct value *params CLEANUP_VALUE = value_new_array();
	struct value *config CLEANUP_VALUE = NULL;
	const struct execution execution = {
		.method = "", .session = "", .task = task, .params = params};

	if (!*task || object_get_field(api->pool, "task", task, "other_config", &config, NULL) < 0)
		return 0;
	const char *migration = value_find_string(config, "ferry:migration", NULL);
	if (!migration)
		return 0;
	value_append_string(params, migration);
	fault_clear(fault);
	return executions_start(api->executions, call, task, &execution, fault);
}

static int pool_await(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = require_member(api, call_method(call), fault);

	(void)ret_result;
	if (r == 0)
		r = executions_await(api->executions, call, arg_text(args, 0), fault);
	if (r == -ESRCH && resume(api, call, arg_text(args, 1), fault) == CALL_PENDING)
		return CALL_PENDING;
	return r;
}

static int pool_cancel(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = require_member(api, call_method(call), fault);

	(void)ret_result;
	if (r == 0)
		executions_cancel(api->executions, arg_text(args, 0));
	return r;
}

/* What the coordinator has now is to be here before this is answered. */
static int pool_copy_now(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = require_member(api, call_method(call), fault);

	(void)args;
	(void)ret_result;
	return r < 0 ? r
		     : replica_fetch(api->link, api->state_dir, WITNESS_USEC, api->closing, fault);
}

/* --- Between two pools -------------------------------------------------------------------------
 */

static int pool_invite(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *secret CLEANUP_FREE = NULL;
	int r = require_coordinator(api, call_method(call), fault);

	if (r == 0 && strcmp(arg_text(args, 1), FERRY_VERSION) != 0)
		r = fault_set(fault, -EPROTONOSUPPORT,
			"POOL_JOINING_HOST_MUST_HAVE_SAME_PRODUCT_VERSION", arg_text(args, 1),
			FERRY_VERSION, NULL);
	if (r == 0)
		r = join_invite(api->pool, arg_text(args, 0), &secret, fault);
	if (r == 0)
		*ret_result = value_new_string(secret);
	return r;
}

static int pool_adopt(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	struct host_link link CLEANUP_HOST_LINK = {0};
	int r = require_coordinator(api, call_method(call), fault);

	(void)ret_result;
	if (r == 0)
		r = join_adopt(api->pool, api->host_ref, arg_text(args, 0), &link, fault);
	if (r == 0)
		roster_add(api->roster, &link);
	return r;
}

/* These three are asked by a host that the pool may not know: it proves itself by its secret, and
 * learns no more than what concerns itself. */
static int pool_resolve(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	bool joined = false;
	int r = require_coordinator(api, call_method(call), fault);

	if (r == 0)
		r = join_resolve(api->pool, arg_text(args, 1), arg_text(args, 2), &joined, fault);
	if (r == 0)
		*ret_result = value_new_bool(joined);
	return r;
}

static int pool_take_leave(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	char *bundle CLEANUP_FREE = NULL;
	int r = require_coordinator(api, call_method(call), fault);

	if (r == 0)
		r = host_departure_find(
			api->pool, arg_text(args, 1), arg_text(args, 2), &bundle, fault);
	if (r < 0)
		return r;
	*ret_result = value_new_string(bundle ? bundle : "");
	return 0;
}

static int pool_left(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = api_of(call);
	int r = require_coordinator(api, call_method(call), fault);

	(void)ret_result;
	return r < 0 ? r
		     : host_departure_forget(
			       api->pool, arg_text(args, 1), arg_text(args, 2), fault);
}

static const struct param request_params[] = {{"request", PARAM_STRING, "JSON"}};
static const struct param greet_params[] = {
	{"version", PARAM_STRING, NULL},
	{"url", PARAM_STRING, NULL},
	{"fingerprint", PARAM_STRING, NULL},
};
static const struct param tick_params[] = {
	{"memory_total", PARAM_INT, NULL},
	{"memory_free", PARAM_INT, NULL},
};
static const struct param offer_params[] = {
	{"have", PARAM_STRING, NULL},
	{"now", PARAM_BOOL, NULL},
};
static const struct param read_params[] = {
	{"copy", PARAM_STRING, NULL},
	{"offset", PARAM_INT, NULL},
};
static const struct param execute_params[] = {
	{"id", PARAM_STRING, NULL},
	{"task", PARAM_STRING, "task ref"},
	{"method", PARAM_STRING, NULL},
	{"caller", PARAM_STRING, "session ref"},
	{"params", PARAM_STRING, "JSON"},
};
static const struct param await_params[] = {
	{"id", PARAM_STRING, NULL},
	{"task", PARAM_STRING, "task ref"},
};
static const struct param id_params[] = {{"id", PARAM_STRING, NULL}};
static const struct param invite_params[] = {
	{"host", PARAM_STRING, "host ref"},
	{"version", PARAM_STRING, NULL},
};
/* The first takes the place of a session. */
static const struct param secret_params[] = {
	{"link", PARAM_STRING, NULL},
	{"host", PARAM_STRING, "host ref"},
	{"secret", PARAM_STRING, NULL},
};

#define HOST_FLAGS (METHOD_HIDDEN | METHOD_POOL)

static const struct method rows[] = {
	{
		.name = "Pool.db_run",
		.handle = pool_db_run,
		.flags = HOST_FLAGS,
		PARAMS(request_params),
		.result = "string",
		.doc = "Runs statements of a member on the pool's database.",
	},
	{
		.name = "Pool.greet",
		.handle = pool_greet,
		.flags = HOST_FLAGS,
		PARAMS(greet_params),
		.result = "struct",
		.doc = "A member has started, and is reached there; whom it follows.",
	},
	{
		.name = "Pool.tick",
		.handle = pool_tick,
		.flags = HOST_FLAGS,
		PARAMS(tick_params),
		.result = "void",
		.doc = "A member is there.",
	},
	{
		.name = "Pool.copy_offer",
		.handle = pool_copy_offer,
		.flags = HOST_FLAGS,
		PARAMS(offer_params),
		.result = "struct",
		.doc = "The newest copy of the pool's database, if the member has an older one.",
	},
	{
		.name = "Pool.copy_read",
		.handle = pool_copy_read,
		.flags = HOST_FLAGS,
		PARAMS(read_params),
		.result = "string",
		.doc = "A piece of such a copy, in Base64.",
	},
	{
		.name = "Pool.copy_now",
		.handle = pool_copy_now,
		.flags = HOST_FLAGS,
		.result = "void",
		.doc = "The member fetches a copy of what the coordinator has now.",
	},
	{
		.name = "Pool.execute",
		.handle = pool_execute,
		.flags = HOST_FLAGS,
		PARAMS(execute_params),
		.result = "string",
		.doc = "Runs a method on a member, once for each id; answers with its result as "
		       "JSON.",
	},
	{
		.name = "Pool.await",
		.handle = pool_await,
		.flags = HOST_FLAGS,
		PARAMS(await_params),
		.result = "string",
		.doc = "Waits on for what was begun by Pool.execute.",
	},
	{
		.name = "Pool.cancel",
		.handle = pool_cancel,
		.flags = HOST_FLAGS,
		PARAMS(id_params),
		.result = "void",
		.doc = "Asks it to stop.",
	},
	{
		.name = "Pool.invite",
		.role = USER_POOL_OPERATOR,
		.handle = pool_invite,
		.flags = METHOD_HIDDEN,
		PARAMS(invite_params),
		.result = "string",
		.doc = "The secret with which a host may join.",
	},
	{
		.name = "Pool.adopt",
		.role = USER_POOL_OPERATOR,
		.handle = pool_adopt,
		.flags = METHOD_HIDDEN,
		PARAMS(request_params),
		.result = "void",
		.doc = "Takes a host with its objects into the pool.",
	},
	{
		.name = "Pool.resolve",
		.handle = pool_resolve,
		.flags = METHOD_HIDDEN | METHOD_NO_SESSION,
		PARAMS(secret_params),
		.result = "bool",
		.doc = "Whether a host has joined; if not, its invitation ends.",
	},
	{
		.name = "Pool.take_leave",
		.handle = pool_take_leave,
		.flags = METHOD_HIDDEN | METHOD_NO_SESSION,
		PARAMS(secret_params),
		.result = "string",
		.doc = "What an ejected host takes along, as JSON.",
	},
	{
		.name = "Pool.left",
		.handle = pool_left,
		.flags = METHOD_HIDDEN | METHOD_NO_SESSION,
		PARAMS(secret_params),
		.result = "void",
		.doc = "The host has it.",
	},
};

const struct method_table pool_hosts_methods = {rows, ARRAY_SIZE(rows)};
