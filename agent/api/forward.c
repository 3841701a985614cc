/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/forward.h"

#include "agent/api/context.h"
#include "agent/api/jobs.h"
#include "agent/api/placement.h"
#include "agent/pool/roster.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define MAX_CALLS 64
/* One wait for the result; a longer one is asked for again. */
#define AWAIT_USEC (60 * USEC_PER_SEC)
#define CALL_USEC  (10 * USEC_PER_SEC)
#define RETRY_USEC (200 * USEC_PER_MSEC)

/* --- Whose work it is --------------------------------------------------------------------------
 */

/* The host, for the caller to free; NULL: here. What cannot be told is done here, where the handler
 * says what is wrong. */
typedef int (*route_fn)(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault);

static int route_host(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	(void)fault;
	if (object_exists(api->pool, "host", value_string(arg, "")))
		*ret_host = xstrdup(value_string(arg, ""));
	return 0;
}

static char *text_field(struct api *api, const char *class, const char *ref, const char *field)
{
	char *text = NULL;

	return object_get_string(api->pool, class, ref, field, &text, NULL) < 0 ? NULL : text;
}

static int route_resident(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	(void)fault;
	*ret_host = text_field(api, "VM", value_string(arg, ""), "resident_on");
	return 0;
}

static int route_start(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	const char *vm = value_string(arg, "");
	char *resident CLEANUP_FREE = text_field(api, "VM", vm, "resident_on");

	if (!resident || !ref_is_null(resident))
		return 0;
	return placement_pick(api->pool, vm, ret_host, fault);
}

/* Where it runs, or where its disks are. */
static int route_vm(struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	const char *vm = value_string(arg, "");
	struct value *hosts CLEANUP_VALUE = NULL;
	char *resident CLEANUP_FREE = text_field(api, "VM", vm, "resident_on");

	(void)fault;
	if (!ref_is_null(resident)) {
		*ret_host = TAKE_PTR(resident);
		return 0;
	}
	if (placement_candidates(api->pool, vm, &hosts, NULL) < 0 ||
		value_contains_string(hosts, api->host_ref))
		return 0;
	*ret_host = xstrdup(hosts->array.items[0]->string);
	return 0;
}

/* The same, of what copies it: beside it stands no token. */
static int route_disks(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	return route_vm(api, arg, ret_host, fault);
}

/* A halted VM that several hosts reach is not sent by the one that it goes to. *host NULL: here. */
static void avoid_destination(
	struct api *api, const char *vm, const struct value *token, char **host)
{
	const char *there = value_find_string(token, "host", "");
	char *resident CLEANUP_FREE = text_field(api, "VM", vm, "resident_on");
	struct value *hosts CLEANUP_VALUE = NULL;

	if (strcmp(*host ? *host : api->host_ref, there) != 0 || !ref_is_null(resident) ||
		placement_candidates(api->pool, vm, &hosts, NULL) < 0)
		return;
	for (size_t i = 0; i < hosts->array.n_items; i++) {
		const char *other = hosts->array.items[i]->string;
		if (strcmp(other, there) == 0)
			continue;
		free(*host);
		*host = xstrdup(other);
		return;
	}
}

static int route_sr(struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	(void)fault;
	*ret_host = placement_of_sr(api->pool, value_string(arg, ""), api->host_ref);
	return 0;
}

/* An unplugged PBD has a host too. */
static int route_unplugged_sr(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	struct value *pbds CLEANUP_VALUE = NULL;
	int r = route_sr(api, arg, ret_host, fault);

	if (r < 0 || *ret_host ||
		object_find(api->pool, "PBD", "SR", value_string(arg, ""), &pbds, NULL) < 0 ||
		pbds->array.n_items == 0)
		return r;
	*ret_host = text_field(api, "PBD", pbds->array.items[0]->string, "host");
	return 0;
}

static int route_new_vdi(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	return route_sr(api, value_find(arg, "SR"), ret_host, fault);
}

static int route_vdi(struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	char *sr CLEANUP_FREE = text_field(api, "VDI", value_string(arg, ""), "SR");
	(void)fault;

	if (sr)
		*ret_host = placement_of_sr(api->pool, sr, api->host_ref);
	return 0;
}

/* The guest that has it is there. */
static int route_used_vdi(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(api->pool, "VBD", "VDI", value_string(arg, ""), &vbds, fault);

	(void)route_vdi(api, arg, ret_host, NULL);
	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		char *vm CLEANUP_FREE = text_field(api, "VBD", vbds->array.items[i]->string, "VM");
		char *host CLEANUP_FREE = vm ? text_field(api, "VM", vm, "resident_on") : NULL;
		if (!ref_is_null(host)) {
			free(*ret_host);
			*ret_host = TAKE_PTR(host);
		}
	}
	return r;
}

/* One at which both the disk and the SR that it is copied to are plugged in, if there is one. */
static void prefer_both(
	struct api *api, const struct value *vdi, const struct value *to, char **host)
{
	char *from CLEANUP_FREE = text_field(api, "VDI", value_string(vdi, ""), "SR");
	char *there CLEANUP_FREE = placement_of_sr(api->pool, value_string(to, ""), api->host_ref);

	if (!from || !there)
		return;
	free(*host);
	*host = placement_of_sr(api->pool, from, there);
}

static int route_pbd(struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	(void)fault;
	*ret_host = text_field(api, "PBD", value_string(arg, ""), "host");
	return 0;
}

/* Either side of it names its host. */
static int route_migration(
	struct api *api, const struct value *arg, char **ret_host, struct fault *fault)
{
	const char *self = value_string(arg, "");
	char *ref CLEANUP_FREE = NULL;
	char *uuid CLEANUP_FREE = text_field(api, "migration", self, "uuid");

	(void)fault;
	if (!uuid && object_get_by_uuid(api->pool, "migration", self, &ref, NULL) < 0)
		return 0;
	*ret_host = text_field(api, "migration", ref ? ref : self, "host");
	return 0;
}

/* Which host a method belongs to, by which of its parameters. All others are the coordinator's. */
static const struct route {
	const char *method;
	route_fn find;
	size_t arg;
} routes[] = {
	{"VM.start", route_start, 0},
	{"VM.start_on", route_host, 1},
	{"VM.pause", route_resident, 0},
	{"VM.unpause", route_resident, 0},
	{"VM.clean_shutdown", route_resident, 0},
	{"VM.hard_shutdown", route_resident, 0},
	{"VM.clean_reboot", route_resident, 0},
	{"VM.hard_reboot", route_resident, 0},
	{"VM.migrate_send", route_vm, 0},
	{"VM.pool_migrate", route_resident, 0},
	{"VM.assert_can_migrate", route_vm, 0},
	{"VM.clone", route_disks, 0},
	{"VM.copy", route_disks, 0},
	{"VM.snapshot", route_disks, 0},
	{"VM.revert", route_disks, 0},
	{"SR.create", route_host, 0},
	{"SR.destroy", route_unplugged_sr, 0},
	{"SR.forget", route_unplugged_sr, 0},
	{"SR.scan", route_unplugged_sr, 0},
	{"SR.update", route_unplugged_sr, 0},
	{"SR.set_shared", route_unplugged_sr, 0},
	{"VDI.create", route_new_vdi, 0},
	{"VDI.clone", route_vdi, 0},
	{"VDI.copy", route_vdi, 0},
	{"VDI.snapshot", route_used_vdi, 0},
	{"VDI.destroy", route_vdi, 0},
	{"VDI.resize", route_vdi, 0},
	{"VDI.pool_migrate", route_vdi, 0},
	{"PBD.plug", route_pbd, 0},
	{"PBD.unplug", route_pbd, 0},
	{"PBD.destroy", route_pbd, 0},
	{"doctor.examine", route_host, 0},
	{"doctor.fix", route_host, 0},
	{"host.get_servertime", route_host, 0},
	{"host.migrate_receive", route_host, 0},
	{"migration.cancel", route_migration, 0},
	{"migration.forget", route_migration, 0},
	{"migration.resolve", route_migration, 0},
	{"migration.resume", route_migration, 0},
	{"migration.set_bandwidth", route_migration, 0},
};

/* *ret_host NULL: here. */
static int find_host(struct api *api, const struct method *method, struct value *const *args,
	char **ret_host, struct fault *fault)
{
	char *host CLEANUP_FREE = NULL;
	int r = 0;

	*ret_host = NULL;
	if (!api->roster || roster_is_alone(api->roster))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct route *route = &routes[i];
		if (strcmp(route->method, method->name) != 0)
			continue;
		r = route->find(api, args[route->arg], &host, fault);
		/* What sends VMs has the token next to the VM. */
		if (r == 0 && route->find == route_vm)
			avoid_destination(api, value_string(args[0], ""), args[1], &host);
		if (r == 0 && strcmp(method->name, "VDI.copy") == 0)
			prefer_both(api, args[0], args[1], &host);
	}
	if (r == 0 && host && !ref_is_null(host) && strcmp(host, api->host_ref) != 0)
		*ret_host = TAKE_PTR(host);
	return r;
}

/* --- Calls under way ---------------------------------------------------------------------------
 */

struct forwarding {
	struct forwarding *next;
	struct api *api;
	const char *host;
	const char *id;     /* of the execution there; a task's ref if there is one */
	const char *task;   /* "": none */
	const char *method; /* NULL: the host was asked by a former run */
	const char *session;
	struct value *params;
	struct cancel *cancel;
	bool is_sent;      /* maybe */
	bool is_cancelled; /* the host was told */
};

struct forwards {
	struct api *api;
	struct jobs *jobs;
	pthread_mutex_t lock; /* over the list */
	struct forwarding *first;
};

static void enlist(struct forwards *forwards, struct forwarding *forwarding)
{
	SCOPE_LOCK(&forwards->lock);
	forwarding->next = forwards->first;
	forwards->first = forwarding;
}

static void strike(struct forwards *forwards, const struct forwarding *forwarding)
{
	SCOPE_LOCK(&forwards->lock);
	struct forwarding **at = &forwards->first;

	while (*at != forwarding)
		at = &(*at)->next;
	*at = forwarding->next;
}

static bool is_closing(const struct forwarding *forwarding)
{
	return cancel_is_requested(forwarding->api->closing);
}

static struct value *message(const struct forwarding *forwarding)
{
	struct value *args = value_new_array();
	struct buf params CLEANUP_BUF = BUF_INIT;

	value_append_string(args, forwarding->id);
	value_append_string(args, forwarding->task);
	if (forwarding->is_sent)
		return args;
	json_encode(forwarding->params, &params);
	value_append_string(args, forwarding->method);
	value_append_string(args, forwarding->session);
	return value_append_string(args, params.data);
}

static void tell_cancel(struct forwarding *forwarding, struct link *link)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct value *args = value_append_string(value_new_array(), forwarding->id);

	forwarding->is_cancelled =
		link_call(link, "cancel", args, CALL_USEC, NULL, &result, NULL) == 0;
}

static int take_result(const struct value *answer, struct value **ret_result, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = NULL;
	const char *text = value_string(answer, "");
	int r = json_decode(text, strlen(text), NULL, &document, fault);

	if (r < 0)
		return r;
	const struct value *result = value_find(document, "result");
	*ret_result = result && result->type != VALUE_NIL ? value_copy(result) : NULL;
	return 0;
}

/* A migration goes on when its host is back, and so does the wait for it. */
static bool is_migration(const struct forwarding *forwarding)
{
	struct value *config CLEANUP_VALUE = NULL;

	return *forwarding->task &&
	       object_get_field(forwarding->api->pool, "task", forwarding->task, "other_config",
		       &config, NULL) == 0 &&
	       value_find(config, "ferry:migration");
}

/* -EAGAIN: to be tried again. */
static int judge(struct forwarding *forwarding, struct link *link, int r, struct fault *why)
{
	if (r == -EREMOTEIO && fault_is(why, "FERRY_HOST_STOPPING")) {
		forwarding->is_sent = true;
		return -EAGAIN;
	}
	/* It is about to be a member, of this coordinator; or it is not, and falls silent. */
	if (r == -EREMOTEIO &&
		(fault_is(why, "FERRY_NOT_FOLLOWING") || fault_is(why, "FERRY_HOST_WAITING")))
		return -EAGAIN;
	if (r == -EREMOTEIO)
		return r;
	if (r == -ECANCELED && is_closing(forwarding))
		return -ESHUTDOWN;
	if (r == -ECANCELED) {
		forwarding->is_sent = true;
		tell_cancel(forwarding, link);
		return -EAGAIN;
	}
	if (!link_was_not_sent(r))
		forwarding->is_sent = true;
	return -EAGAIN;
}

static int call_once(struct forwarding *forwarding, struct value **ret_result, struct fault *fault)
{
	struct value *answer CLEANUP_VALUE = NULL;
	struct link *link = NULL;
	int r = roster_link(forwarding->api->roster, forwarding->host, &link, fault);

	if (r < 0)
		return forwarding->is_sent && is_migration(forwarding) ? -EAGAIN : r;
	r = link_call(link, forwarding->is_sent ? "await" : "execute", message(forwarding),
		AWAIT_USEC, forwarding->is_cancelled ? NULL : forwarding->cancel, &answer, fault);
	return r < 0 ? judge(forwarding, link, r, fault) : take_result(answer, ret_result, fault);
}

/* Blocks until the host has answered. */
static int run(struct forwarding *forwarding, struct value **ret_result, struct fault *fault)
{
	struct forwards *forwards = forwarding->api->forwards;
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r;

	enlist(forwards, forwarding);
	while ((r = call_once(forwarding, ret_result, &why)) == -EAGAIN && !is_closing(forwarding))
		cancel_sleep(forwarding->api->closing, RETRY_USEC);
	strike(forwards, forwarding);
	if (r == -EAGAIN || r == -ESHUTDOWN)
		return fault_text(fault, -ESHUTDOWN, "This host's agent is stopping");
	if (r < 0 && fault_is(&why, "FERRY_EXECUTION_UNKNOWN"))
		return fault_text(fault, -EIO,
			"Host %s was restarted while it worked on this; look what was done, and "
			"ask "
			"again",
			forwarding->host);
	if (r < 0 && fault)
		fault_move(fault, &why);
	return r;
}

/* --- From the dispatcher -----------------------------------------------------------------------
 */

static struct value *params_of(const struct method *method, struct value *const *args)
{
	struct value *params = value_new_array();

	for (size_t i = 0; i < method->n_params && args[i]; i++)
		value_append(params, value_copy(args[i]));
	return params;
}

static int forward_task(struct api *api, struct call *call, struct value *const *args,
	const char *host, struct value **ret_result, struct fault *fault)
{
	const struct method *method = call_method(call);
	struct value *params CLEANUP_VALUE = params_of(method, args);
	struct forwarding forwarding = {.api = api,
		.host = host,
		.id = call_task(call),
		.task = call_task(call),
		.method = method->name,
		.session = call_session(call),
		.params = params,
		.cancel = call_cancel(call)};
	/* Stored before it is sent: the next run of this daemon waits on. */
	int r = object_map_set(
		api->pool, "task", call_task(call), "other_config", TASK_HOST_KEY, host, fault);

	return r < 0 ? r : run(&forwarding, ret_result, fault);
}

int forward_execute(struct api *api, const char *host, const struct execution *execution,
	struct value **ret_result, struct fault *fault)
{
	struct value *params CLEANUP_VALUE = value_copy(execution->params);
	struct forwarding forwarding = {.api = api,
		.host = host,
		.id = execution->task,
		.task = execution->task,
		.method = execution->method,
		.session = execution->session,
		.params = params,
		.cancel = execution->cancel};

	if (strcmp(host, api->host_ref) == 0)
		return dispatcher_execute(api->dispatcher, execution, ret_result, fault);
	int r = object_map_set(
		api->pool, "task", execution->task, "other_config", TASK_HOST_KEY, host, fault);
	return r < 0 ? r : run(&forwarding, ret_result, fault);
}

int forward_await(struct api *api, const char *host, const char *task, struct cancel *cancel,
	struct value **ret_result, struct fault *fault)
{
	struct forwarding forwarding = {.api = api,
		.host = host,
		.id = task,
		.task = task,
		.session = "",
		.cancel = cancel,
		.is_sent = true};

	return run(&forwarding, ret_result, fault);
}

/* A call that is no task: on a thread of its own, as workers do not wait for hosts. */
struct errand {
	struct api *api;
	struct call *call;
	char *host;
	char *session;
	struct value *params;
};

static void errand_run(void *arg)
{
	struct errand *errand = arg;
	struct cancel *cancel CLEANUP(cleanup_cancel_free) = cancel_new();
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result = NULL;
	char *id CLEANUP_FREE = uuid_new();
	struct forwarding forwarding = {.api = errand->api,
		.host = errand->host,
		.id = id,
		.task = "",
		.method = call_method(errand->call)->name,
		.session = errand->session,
		.params = errand->params,
		.cancel = cancel};

	if (run(&forwarding, &result, &fault) < 0)
		call_fail(errand->call, &fault);
	else
		call_succeed(errand->call, result);
	value_free(errand->params);
	free(errand->session);
	free(errand->host);
	free(errand);
}

static int forward_errand(struct api *api, struct call *call, struct value *const *args,
	const char *host, struct fault *fault)
{
	struct errand *errand = xcalloc(1, sizeof(*errand));

	*errand = (struct errand){.api = api,
		.call = call,
		.host = xstrdup(host),
		.session = xstrdup(call_session(call)),
		.params = params_of(call_method(call), args)};
	int r = jobs_start(api->forwards->jobs, errand_run, errand);
	if (r == 0)
		return CALL_PENDING;
	value_free(errand->params);
	free(errand->session);
	free(errand->host);
	free(errand);
	return fault_set(fault, r, "TOO_MANY_PENDING_TASKS", NULL);
}

int forward_handle(struct api *api, struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	const struct method *method = call_method(call);
	char *host CLEANUP_FREE = NULL;
	int r = find_host(api, method, args, &host, fault);

	if (r < 0)
		return r;
	if (!host)
		return method->handle(call, args, ret_result, fault);
	return call_task(call) ? forward_task(api, call, args, host, ret_result, fault)
			       : forward_errand(api, call, args, host, fault);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

struct forwards *forwards_new(struct api *api)
{
	struct forwards *forwards = xcalloc(1, sizeof(*forwards));

	forwards->api = api;
	forwards->jobs = jobs_new(MAX_CALLS);
	pthread_mutex_init(&forwards->lock, NULL);
	return forwards;
}

void forwards_close(struct forwards *forwards)
{
	jobs_close(forwards->jobs);
	SCOPE_LOCK(&forwards->lock);
	for (struct forwarding *at = forwards->first; at; at = at->next)
		cancel_request(at->cancel, "the agent is stopping");
}

struct forwards *forwards_free(struct forwards *forwards)
{
	if (!forwards)
		return NULL;
	jobs_free(forwards->jobs);
	pthread_mutex_destroy(&forwards->lock);
	free(forwards);
	return NULL;
}
