/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/api.h"

#include "agent/api/accessors.h"
#include "agent/api/auth.h"
#include "agent/api/callers.h"
#include "agent/api/context.h"
#include "agent/api/events.h"
#include "agent/api/executions.h"
#include "agent/api/forward.h"
#include "agent/api/jobs.h"
#include "agent/api/locals.h"
#include "agent/api/sessions.h"
#include "agent/api/tasks.h"
#include "agent/api/transfers.h"
#include "agent/api/waiting.h"
#include "agent/pool/handout.h"
#include "agent/pool/reign.h"
#include "agent/pool/roster.h"
#include "agent/pool/witness.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_TIMEOUT_USEC   (UINT64_C(86400) * USEC_PER_SEC)
#define HOUSEKEEPING_MAX_USEC  (UINT64_C(30) * USEC_PER_SEC)
#define HOUSEKEEPING_MIN_USEC  (UINT64_C(100) * USEC_PER_MSEC)
#define PEER_CALLS_MAX_RUNNING 64
/* What big answers took goes back to the system, but for this. */
#define MALLOC_KEEP_BYTES ((size_t)1 << 20)

static const struct method_table *const tables[] = {
	&session_methods,
	&task_methods,
	&user_methods,
	&event_methods,
	&host_methods,
	&sr_methods,
	&pbd_methods,
	&vdi_methods,
	&copies_methods,
	&vm_methods,
	&vm_power_methods,
	&vm_limits_methods,
	&vbd_methods,
	&vif_methods,
	&network_methods,
	&migration_methods,
	&doctor_methods,
	&peer_methods,
	&pool_methods,
	&pool_hosts_methods,
	&emergency_methods,
	&handover_methods,
};

/* --- Who did what -------------------------------------------------------------------------------
 */

/* What was asked for by somebody who logged in and is more than looking, and what came of it.
 * Values are left out: they may be secret. args: NULL when it was refused. */
static void audit_call(
	struct call *call, struct value *const *args, int r, const struct fault *fault)
{
	const struct method *method = call_method(call);
	const char *object = args && method->n_params ? value_string(args[0], "") : "";

	if (!*call_user(call) || (args && method->role == USER_READ_ONLY))
		return;
	log_info("AUDIT", "user=\"%s\" role=%s address=%s method=%s object=%s task=%s outcome=%s",
		call_user(call), role_name((enum user_role)call_role(call)),
		call_peer_address(call), call_wire_name(call),
		strncmp(object, REF_PREFIX, strlen(REF_PREFIX)) == 0 ? object : "",
		call_task(call) ? call_task(call) : "",
		r == CALL_PENDING ? "pending"
		: r < 0           ? (fault && fault->code ? fault->code : "failed")
				  : "done");
}

/* --- Hooks of the dispatcher -------------------------------------------------------------------
 */

/* A member serves its peers, and its coordinator; clients are sent there. A host that is joining a
 * pool serves nobody. */
static int hook_admit(void *arg, const struct method *method, struct fault *fault)
{
	struct api *api = arg;
	bool is_internal = method->flags & (METHOD_PEER | METHOD_POOL);

	if (api->waiting)
		return waiting_admit(api, method, fault);
	if (api->coordinator_address && !is_internal &&
		!(method->flags & (METHOD_BARE | METHOD_EMERGENCY)))
		return fault_set(fault, -EPERM, "HOST_IS_SLAVE", api->coordinator_address, NULL);
	if (atomic_load(&api->is_joining) && !is_internal)
		return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "pool",
			api->pool_ref, "join", "", NULL);
	return 0;
}

/* A session of a migration serves its peer calls and nothing else, and those no other session. */
static int check_kind(const struct method *method, enum session_kind kind, struct fault *fault)
{
	if ((kind == SESSION_MIGRATION) == ((method->flags & METHOD_PEER) != 0))
		return 0;
	return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", method->name,
		kind == SESSION_MIGRATION
			? "The session of a migration may make its Peer calls only"
			: "Peer calls need the session that host.migrate_receive made",
		NULL);
}

static int check_role(
	const struct method *method, const struct session_owner *owner, struct fault *fault)
{
	if ((int)owner->role <= method->role)
		return 0;
	char *text CLEANUP_FREE = xasprintf("it is for the role %s; user %s is %s",
		role_name((enum user_role)method->role), owner->user, role_name(owner->role));
	return fault_set(fault, -EACCES, "RBAC_PERMISSION_DENIED", method->name, text, NULL);
}

static int hook_session_check(void *arg, struct call *call, struct fault *fault)
{
	struct api *api = arg;
	const struct method *method = call_method(call);
	struct session_owner owner CLEANUP_SESSION_OWNER = {0};

	if (method->flags & METHOD_POOL)
		return callers_check(api, method, call_session(call), fault);
	if (api->waiting && (method->flags & METHOD_PEER))
		return 0; /* nothing is done for it */
	bool is_local = api->locals && (method->flags & METHOD_EMERGENCY);
	int r = is_local ? locals_check(api->locals, call_session(call), &owner, fault)
			 : sessions_check(api->sessions, call_session(call), &owner, fault);
	if (r == 0)
		r = check_kind(method, owner.kind, fault);
	if (r < 0 || owner.kind == SESSION_MIGRATION)
		return r;
	call_set_user(call, owner.user, (int)owner.role);
	r = check_role(method, &owner, fault);
	if (r < 0)
		audit_call(call, NULL, r, fault);
	return r;
}

static void hook_task_start(void *arg, struct call *call, bool async, struct value **args)
{
	struct api *api = arg;

	if (*call_user(call) && call_method(call)->role != USER_READ_ONLY)
		log_info("AUDIT", "user=\"%s\" method=%s outcome=begun", call_user(call),
			call_wire_name(call));
	tasks_start(api->tasks, call, async, args);
}

static int hook_handle(void *arg, struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct api *api = arg;

	if (api->waiting && (call_method(call)->flags & METHOD_PEER))
		return waiting_hold(api->waiting, call, fault);
	struct call *kept = call_ref(call); /* it may end before its handler returns */
	int r = forward_handle(arg, call, args, ret_result, fault);

	audit_call(kept, args, r, fault);
	call_unref(kept);
	return r;
}

/* --- What the parts tell each other ------------------------------------------------------------
 */

static bool session_is_busy(void *arg, const char *session)
{
	struct api *api = arg;

	return tasks_session_is_busy(api->tasks, session);
}

static void session_ended(void *arg, const char *session)
{
	struct api *api = arg;

	events_end_session(api->events, session);
}

static void login_admitted(void *arg, struct call *call, const char *user, const char *originator)
{
	struct api *api = arg;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *ref CLEANUP_FREE = NULL;
	int r = api->locals ? locals_login(api->locals, user, &ref, &fault)
			    : sessions_login(api->sessions, user, originator, &ref, &fault);

	if (r < 0)
		call_fail(call, &fault);
	else
		call_succeed(call, value_new_string(ref));
}

static void *housekeeper_main(void *arg)
{
	struct api *api = arg;
	uint64_t pause = sessions_timeout_usec(api->sessions) / 4;

	pause = MAX(MIN(pause, HOUSEKEEPING_MAX_USEC), HOUSEKEEPING_MIN_USEC);
	while (cancel_sleep(api->closing, pause) == 0) {
		if (api->roster) {
			sessions_expire(api->sessions);
			tasks_collect(api->tasks);
		}
		malloc_trim(MALLOC_KEEP_BYTES);
	}
	return NULL;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

static bool is_taken(void *arg, const char *name)
{
	(void)arg;
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		for (size_t j = 0; j < tables[i]->n; j++) {
			if (strcmp(tables[i]->methods[j].name, name) == 0)
				return true;
		}
	}
	return false;
}

static void build_methods(struct api *api)
{
	const struct dispatch_hooks hooks = {
		.admit = hook_admit,
		.handle = hook_handle,
		.session_check = hook_session_check,
		.task_start = hook_task_start,
		.arg = api,
	};
	const struct method *rows;
	size_t n;

	api->dispatcher = dispatcher_new(&hooks, api);
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		dispatcher_add(api->dispatcher, tables[i]->methods, tables[i]->n);
	api->accessors = accessors_new(is_taken, NULL);
	rows = accessors_rows(api->accessors, &n);
	dispatcher_add(api->dispatcher, rows, n);
}

static int await_migration(struct api *api, const char *migration, const char *task,
	struct cancel *cancel, struct value **ret_result, struct fault *fault)
{
	char *vm CLEANUP_FREE = NULL;
	int r = supervisor_await(api->supervisor, migration, task, cancel, &vm, fault);
	char *method CLEANUP_FREE = NULL;

	if (r < 0)
		return r;
	/* The result of VM.migrate_send; VM.pool_migrate has none. */
	object_get_string(api->pool, "task", task, "name_label", &method, NULL);
	if (!method || !strstr(method, "VM.pool_migrate"))
		*ret_result = value_new_string(vm);
	return r;
}

static int await_task(void *arg, const struct value *config, const char *task,
	struct cancel *cancel, struct value **ret_result, struct fault *fault)
{
	struct api *api = arg;
	const char *host = value_find_string(config, TASK_HOST_KEY, NULL);

	if (host)
		return forward_await(api, host, task, cancel, ret_result, fault);
	return await_migration(api, value_find_string(config, "ferry:migration", ""), task, cancel,
		ret_result, fault);
}

/* On a member, for the coordinator. Without a method it is the wait for a migration. */
static int run_execution(void *arg, const struct execution *execution, struct value **ret_result,
	struct fault *fault)
{
	struct api *api = arg;

	if (*execution->method)
		return dispatcher_execute(api->dispatcher, execution, ret_result, fault);
	return await_migration(api, value_string(execution->params->array.items[0], ""),
		execution->task, execution->cancel, ret_result, fault);
}

/* From the roster's thread: another host has taken over. */
static void overruled(void *arg, struct membership *by)
{
	struct api *api = arg;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (atomic_exchange(&api->is_deposed, true))
		return;
	if (reign_end(api->state_dir, api->pool, api->host_ref, by, &fault) == 0) {
		api->restart(api->restart_arg);
		return;
	}
	char *text CLEANUP_FREE = fault_describe(&fault);
	log_error("COORDINATOR_IN_DOUBT", "error=\"%s\"", text);
}

/* What the coordinator alone does for all: it knows the hosts, and what they work on. */
static int start_coordinator(struct api *api, const struct api_params *params, struct fault *fault)
{
	int r = pool_db_get_term(api->pool, &api->term, fault);
	const struct roster_params roster = {.pool = api->pool,
		.rank = {api->term, api->host_ref},
		.overruled = overruled,
		.arg = api};
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", api->state_dir ? api->state_dir : ".");

	if (r == 0)
		r = roster_new(&roster, &api->roster, fault);
	if (r == 0)
		api->handout = handout_new(path, params->copy_usec / 2);
	if (r == 0 && params->witness) {
		api->witness = params->witness;
		witness_of_coordinator(api->witness, api->roster);
	}
	return r < 0 ? r : tasks_recover(api->tasks, await_task, api, fault);
}

static int find_hash(void *pool, const char *user, char **ret_hash, struct fault *fault)
{
	return pool_db_get_user(pool, user, ret_hash, fault);
}

static int start_auth(struct api *api, const struct api_params *params, struct fault *fault)
{
	const struct auth_params auth = {
		.find = api->locals ? locals_find_hash : find_hash,
		.find_arg = api->locals ? (void *)api->locals : (void *)api->pool,
		.pam_socket = params->pam_socket,
		.delay_usec = params->login_delay_usec,
		.admit = login_admitted,
		.arg = api,
	};

	return auth_new(&auth, &api->auth, fault);
}

static int start_parts(struct api *api, const struct api_params *params, struct fault *fault)
{
	const struct sessions_params sessions = {
		.pool = api->pool,
		.host_ref = api->host_ref,
		.is_member = api->coordinator_address != NULL,
		.timeout_usec = params->session_timeout_usec ? params->session_timeout_usec
							     : SESSION_TIMEOUT_USEC,
		.is_busy = session_is_busy,
		.ended = session_ended,
		.arg = api,
	};
	int r;

	api->tasks = tasks_new(api->pool, api->host_ref);
	/* Before tasks are told in general that they were cut off. */
	transfers_recover(api);
	r = api->coordinator_address ? 0 : start_coordinator(api, params, fault);
	if (r == 0)
		r = events_new(api->pool, &api->events, fault);
	if (r == 0)
		r = sessions_new(&sessions, &api->sessions, fault);
	if (r == 0)
		r = start_auth(api, params, fault);
	if (r < 0)
		return r;
	r = -pthread_create(&api->housekeeper, NULL, housekeeper_main, api);
	if (r < 0)
		return fault_errno(fault, r, "Cannot start the housekeeping thread");
	api->has_housekeeper = true;
	return 0;
}

static char *copy_or_null(const char *text)
{
	return text ? xstrdup(text) : NULL;
}

int api_caller(struct call *call, char **ret_who, struct fault *fault)
{
	char *user CLEANUP_FREE = NULL;
	int r = object_get_string(
		api_of(call)->pool, "session", call_session(call), "auth_user_name", &user, fault);

	if (r == 0)
		*ret_who = xasprintf("%s at %s", user, call_peer_address(call));
	return r;
}

int api_close_for_clients(struct api *api, struct fault *fault)
{
	bool was_joining = atomic_exchange(&api->is_joining, true);

	if (!was_joining && tasks_n_running(api->tasks) <= 1 &&
		transfers_n_running(api->transfers) == 0)
		return 0;
	if (!was_joining)
		atomic_store(&api->is_joining, false);
	return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "pool", api->pool_ref, NULL);
}

static void copy_pool_params(struct api *api, const struct api_params *params)
{
	api->state_dir = copy_or_null(params->state_dir);
	api->url = copy_or_null(params->url);
	api->fingerprint = copy_or_null(params->fingerprint);
	api->coordinator_address = copy_or_null(params->coordinator);
	const struct membership *membership = params->membership;
	api->link = params->link;
	api->secret = copy_or_null(membership ? membership->secret : NULL);
	api->term = membership ? membership->term : 0; /* the coordinator's is in pool.db */
	api->coordinator_ref = xstrdup(membership ? membership->coordinator : params->host_ref);
	api->coordinator_url = copy_or_null(membership ? membership->url : params->url);
	api->coordinator_fingerprint =
		copy_or_null(membership ? membership->fingerprint : params->fingerprint);
	api->is_overruled = membership && membership->kind == MEMBERSHIP_OVERRULED;
	if (membership)
		api->locals = locals_new(params->state_dir);
	if (params->is_waiting)
		api->waiting = waiting_new();
	api->restart = params->restart;
	api->restart_arg = params->restart_arg;
}

int api_new(const struct api_params *params, struct api **ret_api, struct fault *fault)
{
	struct api *api CLEANUP_API = xcalloc(1, sizeof(*api));
	int r;

	api->storage = params->storage;
	api->pool = params->storage ? params->storage->pool : NULL;
	pthread_mutex_init(&api->changing, NULL);
	api->supervisor = params->supervisor;
	api->guests = params->guests;
	api->host_ref = xstrdup(params->host_ref);
	api->pool_ref = xstrdup(params->pool_ref);
	copy_pool_params(api, params);
	api->closing = cancel_new();
	api->forwards = forwards_new(api);
	api->executions = executions_new(run_execution, api);
	api->peer_jobs = jobs_new(PEER_CALLS_MAX_RUNNING);
	api->transfers = transfers_new(api);
	build_methods(api);
	r = api->waiting ? start_auth(api, params, fault) : start_parts(api, params, fault);
	if (r < 0)
		return r;
	*ret_api = TAKE_PTR(api);
	return 0;
}

struct dispatcher *api_dispatcher(struct api *api)
{
	return api->dispatcher;
}

const struct http_streams *api_streams(struct api *api)
{
	return transfers_streams(api->transfers);
}

void api_close(struct api *api)
{
	cancel_request(api->closing, "the agent is stopping");
	if (api->waiting)
		waiting_close(api->waiting);
	jobs_close(api->peer_jobs);
	transfers_close(api->transfers);
	executions_close(api->executions);
	forwards_close(api->forwards);
	if (api->tasks)
		tasks_close(api->tasks);
	if (api->auth)
		auth_close(api->auth);
	if (api->events)
		events_close(api->events);
}

struct api *api_free(struct api *api)
{
	if (!api)
		return NULL;
	api_close(api);
	if (api->has_housekeeper)
		pthread_join(api->housekeeper, NULL);
	jobs_free(api->peer_jobs);
	transfers_free(api->transfers);
	executions_free(api->executions);
	tasks_free(api->tasks);
	forwards_free(api->forwards);
	if (api->witness)
		witness_of_coordinator(api->witness, NULL);
	roster_free(api->roster);
	handout_free(api->handout);
	auth_free(api->auth);
	sessions_free(api->sessions);
	events_free(api->events);
	dispatcher_free(api->dispatcher);
	accessors_free(api->accessors);
	cancel_free(api->closing);
	free(api->host_ref);
	free(api->pool_ref);
	free(api->state_dir);
	free(api->url);
	free(api->fingerprint);
	free(api->coordinator_address);
	free(api->coordinator_ref);
	free(api->coordinator_url);
	free(api->coordinator_fingerprint);
	locals_free(api->locals);
	waiting_free(api->waiting);
	pthread_mutex_destroy(&api->changing);
	free(api->secret);
	free(api);
	return NULL;
}
