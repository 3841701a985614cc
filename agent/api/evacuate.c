/* SPDX-License-Identifier: Apache-2.0 */
/* Class host: moving all guests of one host to others of the pool. The coordinator plans, and has
 * each VM moved by VM.pool_migrate; a VM with a disk that no other host reaches stays. */
#include "agent/api/evacuate.h"

#include "agent/api/context.h"
#include "agent/api/forward.h"
#include "agent/api/placement.h"
#include "agent/api/tasks.h"
#include "agent/migrate/migration.h"
#include "agent/vm/operations.h"
#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* VMs at once, unless the caller says otherwise; the host's own queue lets fewer be sent. */
#define BATCH     10
#define MAX_BATCH 64
/* A host whose queue is full is asked again. */
#define FULL_USEC USEC_PER_SEC

/* --- The plan -----------------------------------------------------------------------------------
 */

/* One VM that is to leave. */
struct leaving {
	char *vm;
	char *uuid;
	char *to; /* the host; NULL: it cannot leave, fault says why */
	struct cancel *cancel;
	struct fault fault;
	bool is_done; /* it runs elsewhere, or no more */
	bool has_moved;
};

struct plan {
	struct leaving *leaving;
	size_t n;
};

static void plan_clear(struct plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		struct leaving *at = &plan->leaving[i];
		free(at->vm);
		free(at->uuid);
		free(at->to);
		cancel_free(at->cancel);
		fault_clear(&at->fault);
	}
	free(plan->leaving);
}

#define CLEANUP_PLAN CLEANUP(plan_clear)

/* What keeps it from going anywhere: the first disk that no other host reaches, if there is one. */
static int say_why(struct pool_db *pool, const char *vm, const char *host, struct fault *fault)
{
	struct value *vbds CLEANUP_VALUE = NULL;
	int r = object_find(pool, "VBD", "VM", vm, &vbds, fault);

	for (size_t i = 0; r == 0 && i < vbds->array.n_items; i++) {
		char *vdi CLEANUP_FREE = NULL;
		char *sr CLEANUP_FREE = NULL;
		bool reached = true;
		r = object_get_string(
			pool, "VBD", vbds->array.items[i]->string, "VDI", &vdi, fault);
		if (r < 0 || ref_is_null(vdi))
			continue;
		r = object_get_string(pool, "VDI", vdi, "SR", &sr, fault);
		if (r == 0)
			r = placement_others_reach(pool, sr, host, &reached, fault);
		if (r == 0 && !reached)
			return fault_set(fault, -ENOTCONN, "VM_REQUIRES_SR", vm, sr, NULL);
	}
	return r < 0 ? r : fault_set(fault, -EHOSTDOWN, "NO_HOSTS_AVAILABLE", vm, NULL);
}

/* The host with most free memory of those that reach its disks; `room` is what the plan leaves. */
static int choose_host(struct pool_db *pool, const char *vm, const char *from, struct value *room,
	char **ret_host, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = NULL;
	const char *best = NULL;
	int64_t most = -1;
	int64_t needed = 0;
	int r = object_get_int(pool, "VM", vm, "memory_dynamic_max", &needed, fault);

	if (r < 0)
		return r;
	if (placement_candidates(pool, vm, &hosts, NULL) < 0)
		return say_why(pool, vm, from, fault);
	for (size_t i = 0; i < hosts->array.n_items; i++) {
		const char *host = hosts->array.items[i]->string;
		if (strcmp(host, from) == 0)
			continue;
		if (!value_find(room, host))
			value_set_int(room, host, placement_free_memory(pool, host));
		if (value_find_int(room, host, 0) <= most)
			continue;
		most = value_find_int(room, host, 0);
		best = host;
	}
	if (!best)
		return say_why(pool, vm, from, fault);
	if (most < needed) {
		char *want CLEANUP_FREE = xasprintf("%lld", (long long)needed);
		char *have CLEANUP_FREE = xasprintf("%lld", (long long)most);
		return fault_set(fault, -ENOMEM, "HOST_NOT_ENOUGH_FREE_MEMORY", want, have, NULL);
	}
	value_set_int(room, best, most - needed);
	*ret_host = xstrdup(best);
	return 0;
}

static int plan_one(struct pool_db *pool, const char *host, const char *vm, struct value *room,
	struct leaving *leaving, struct fault *fault)
{
	int r = object_get_string(pool, "VM", vm, "uuid", &leaving->uuid, fault);

	if (r < 0)
		return r;
	leaving->vm = xstrdup(vm);
	leaving->cancel = cancel_new();
	r = vm_check_operation(pool, vm, "pool_migrate", &leaving->fault);
	if (r == 0)
		choose_host(pool, vm, host, room, &leaving->to, &leaving->fault);
	return 0;
}

static int make_plan(struct pool_db *pool, const char *host, struct plan *plan, struct fault *fault)
{
	struct value *room CLEANUP_VALUE = value_new_struct();
	struct value *vms CLEANUP_VALUE = NULL;
	int r = object_check(pool, "host", host, fault);

	if (r == 0)
		r = object_find(pool, "VM", "resident_on", host, &vms, fault);
	if (r < 0)
		return r;
	plan->leaving = xcalloc(vms->array.n_items + 1, sizeof(*plan->leaving));
	for (size_t i = 0; r == 0 && i < vms->array.n_items; i++) {
		const char *vm = vms->array.items[i]->string;
		bool is_control_domain = false;
		/* One that has ended, and was destroyed, since the list was made need not leave. */
		if (!object_exists(pool, "VM", vm))
			continue;
		r = object_get_bool(pool, "VM", vm, "is_control_domain", &is_control_domain, fault);
		if (r == 0 && !is_control_domain)
			r = plan_one(pool, host, vm, room, &plan->leaving[plan->n++], fault);
	}
	return r;
}

/* "CODE,parameter,...", as XenAPI puts several errors into one. */
static char *error_text(const struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	buf_append_string(&text, fault->code ? fault->code : "INTERNAL_ERROR");
	for (size_t i = 0; i < fault->n_params; i++)
		buf_printf(&text, ",%s", fault->params[i]);
	return buf_take_string(&text);
}

/* 0 when no VM has a fault. */
static int plan_verdict(const struct plan *plan, struct fault *fault)
{
	struct buf all CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < plan->n; i++) {
		if (!plan->leaving[i].fault.code)
			continue;
		char *text CLEANUP_FREE = error_text(&plan->leaving[i].fault);
		buf_printf(&all, "%s%s", all.length ? "|" : "", text);
	}
	return all.length ? fault_set(fault, -EBUSY, "CANNOT_EVACUATE_HOST", all.data, NULL) : 0;
}

int host_assert_can_evacuate(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct plan plan CLEANUP_PLAN = {0};
	int r = make_plan(api_of(call)->pool, arg_text(args, 0), &plan, fault);

	(void)ret_result;
	return r < 0 ? r : plan_verdict(&plan, fault);
}

int host_get_vms_which_prevent_evacuation(struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault)
{
	struct plan plan CLEANUP_PLAN = {0};
	struct value *vms CLEANUP_VALUE = value_new_struct();
	int r = make_plan(api_of(call)->pool, arg_text(args, 0), &plan, fault);

	if (r < 0)
		return r;
	for (size_t i = 0; i < plan.n; i++)
		if (plan.leaving[i].fault.code)
			value_set(vms, plan.leaving[i].vm, fault_to_list(&plan.leaving[i].fault));
	*ret_result = TAKE_PTR(vms);
	return 0;
}

/* --- The moves ----------------------------------------------------------------------------------
 */

struct evacuation {
	struct api *api;
	const char *host;
	const char *session;
	const char *user;
	const char *task;
	struct value *options; /* of each move */
	struct plan plan;
	int bell; /* an eventfd: a thread has ended */

	pthread_mutex_t lock; /* protects the rest */
	size_t next;
	size_t n_done;
	size_t n_threads;
};

static int move_there(struct evacuation *evacuation, struct leaving *leaving, const char *task)
{
	struct value *params CLEANUP_VALUE = value_new_array();
	struct value *result CLEANUP_VALUE = NULL;
	const struct execution execution = {.method = "VM.pool_migrate",
		.session = evacuation->session,
		.task = task,
		.cancel = leaving->cancel,
		.params = params};

	value_append_string(params, leaving->vm);
	value_append_string(params, leaving->to);
	value_append(params, value_copy(evacuation->options));
	int r = forward_execute(
		evacuation->api, evacuation->host, &execution, &result, &leaving->fault);
	if (r < 0 && !leaving->fault.code)
		fault_errno(&leaving->fault, r, "moving VM %s", leaving->uuid);
	if (r >= 0)
		fault_clear(&leaving->fault);
	return r;
}

/* *ret_is_full: the host's queue is; a task stands for one attempt, and this one never was. */
static int try_once(struct evacuation *evacuation, struct leaving *leaving, bool *ret_is_full)
{
	struct api *api = evacuation->api;
	char *task CLEANUP_FREE = NULL;
	char *what CLEANUP_FREE = xasprintf("evacuation: VM %s", leaving->uuid);
	int r = tasks_create_cancellable(api->tasks, "VM.pool_migrate", what, evacuation->user,
		leaving->cancel, &task, &leaving->fault);

	if (r < 0)
		return r;
	r = move_there(evacuation, leaving, task);
	tasks_let_go(api->tasks, task);
	*ret_is_full = r < 0 && fault_is(&leaving->fault, "TOO_MANY_STORAGE_MIGRATES");
	if (*ret_is_full) {
		object_destroy(api->pool, "task", task, NULL);
		return r;
	}
	/* When this daemon stops the move goes on, and its task waits for it in the next run. */
	if (r != -ESHUTDOWN)
		tasks_end_object(api->tasks, task, r < 0 ? &leaving->fault : NULL);
	return r;
}

static bool is_closing(const struct evacuation *evacuation)
{
	return cancel_is_requested(evacuation->api->closing);
}

/* A guest that ended, or was moved by somebody else, is in nobody's way. */
static bool has_gone(struct evacuation *evacuation, const struct leaving *leaving)
{
	char *host CLEANUP_FREE = NULL;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = object_get_string(
		evacuation->api->pool, "VM", leaving->vm, "resident_on", &host, &fault);

	return r < 0 ? fault_is(&fault, "HANDLE_INVALID") : strcmp(host, evacuation->host) != 0;
}

static void move_one(struct evacuation *evacuation, struct leaving *leaving)
{
	bool is_full = true;
	int r = -EAGAIN;

	while (is_full && !cancel_is_requested(leaving->cancel) && !is_closing(evacuation)) {
		is_full = false;
		r = try_once(evacuation, leaving, &is_full);
		if (is_full)
			cancel_sleep(leaving->cancel, FULL_USEC);
	}
	if (is_full)
		fault_set(&leaving->fault, -ECANCELED, "TASK_CANCELLED", evacuation->task, NULL);
	leaving->has_moved = r >= 0;
	leaving->is_done = leaving->has_moved || has_gone(evacuation, leaving);
	if (leaving->is_done)
		fault_clear(&leaving->fault);
}

/* In the task of the evacuation: what became of the VM, and how many are left. */
static void tell(struct evacuation *evacuation, const struct leaving *leaving)
{
	struct pool_db *pool = evacuation->api->pool;
	char *key CLEANUP_FREE = xasprintf("ferry:vm:%s", leaving->uuid);
	char *text CLEANUP_FREE = leaving->has_moved ? xstrdup("moved")
				  : leaving->is_done ? xstrdup("gone")
						     : error_text(&leaving->fault);

	pthread_mutex_lock(&evacuation->lock);
	double progress = (double)++evacuation->n_done / (double)(evacuation->plan.n + 1);
	pthread_mutex_unlock(&evacuation->lock);
	struct value *number CLEANUP_VALUE = value_new_double(progress);
	object_map_set(pool, "task", evacuation->task, "other_config", key, text, NULL);
	object_set_field(pool, "task", evacuation->task, "progress", number, NULL);
	log_info("EVACUATED", "host=%s vm=%s result=\"%s\"", evacuation->host, leaving->uuid, text);
}

static struct leaving *take_next(struct evacuation *evacuation)
{
	SCOPE_LOCK(&evacuation->lock);
	if (is_closing(evacuation) || evacuation->next == evacuation->plan.n)
		return NULL;
	return &evacuation->plan.leaving[evacuation->next++];
}

static void *worker_main(void *arg)
{
	struct evacuation *evacuation = arg;
	struct leaving *leaving;
	uint64_t one = 1;

	while ((leaving = take_next(evacuation))) {
		move_one(evacuation, leaving);
		tell(evacuation, leaving);
	}
	SCOPE_LOCK(&evacuation->lock);
	evacuation->n_threads--;
	if (write(evacuation->bell, &one, sizeof(one)) < 0)
		log_error("EVACUATION_BELL", "error=\"%m\"");
	return NULL;
}

static bool has_threads(struct evacuation *evacuation)
{
	SCOPE_LOCK(&evacuation->lock);
	return evacuation->n_threads > 0;
}

/* A cancel of the whole is one of each. */
static void await_threads(struct evacuation *evacuation, struct cancel *cancel)
{
	struct pollfd bell = {.fd = evacuation->bell, .events = POLLIN};
	uint64_t n;

	while (has_threads(evacuation)) {
		if (cancel_poll(cancel, &bell, 1, USEC_FOREVER) == -ECANCELED) {
			for (size_t i = 0; i < evacuation->plan.n; i++)
				cancel_request(
					evacuation->plan.leaving[i].cancel, cancel_reason(cancel));
			cancel = NULL;
		} else if (read(evacuation->bell, &n, sizeof(n)) < 0 && errno != EAGAIN) {
			log_error("EVACUATION_BELL", "error=\"%m\"");
		}
	}
}

static int move_all(
	struct evacuation *evacuation, size_t n_threads, struct cancel *cancel, struct fault *fault)
{
	pthread_t *threads CLEANUP_FREE = xcalloc(n_threads + 1, sizeof(*threads));
	size_t n = 0;
	int r = 0;

	evacuation->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (evacuation->bell < 0)
		return fault_errno(fault, -errno, "evacuating host %s", evacuation->host);
	pthread_mutex_init(&evacuation->lock, NULL);
	evacuation->n_threads = n_threads;
	while (r == 0 && n < n_threads)
		if ((r = -pthread_create(&threads[n], NULL, worker_main, evacuation)) == 0)
			n++;
	pthread_mutex_lock(&evacuation->lock);
	evacuation->n_threads -= n_threads - n;
	pthread_mutex_unlock(&evacuation->lock);
	await_threads(evacuation, cancel);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&evacuation->lock);
	close(evacuation->bell);
	/* With one thread fewer all are moved too. */
	return n_threads && !n ? fault_errno(fault, r, "starting the moves") : 0;
}

static int set_enabled(struct pool_db *pool, const char *host, bool enabled, struct fault *fault)
{
	struct value *value CLEANUP_VALUE = value_new_bool(enabled);

	return object_set_field(pool, "host", host, "enabled", value, fault);
}

/* One that came, or was started, while the host was being disabled. */
static int check_empty(struct pool_db *pool, const char *host, struct fault *fault)
{
	struct plan left CLEANUP_PLAN = {0};
	int r = make_plan(pool, host, &left, fault);

	if (r < 0 || left.n == 0)
		return r;
	char *text CLEANUP_FREE =
		xasprintf("OTHER_OPERATION_IN_PROGRESS,VM,%s", left.leaving[0].vm);
	return fault_set(fault, -EBUSY, "CANNOT_EVACUATE_HOST", text, NULL);
}

/* Nothing is moved, nor the host disabled, when a VM is known that cannot leave. */
static int prepare(struct evacuation *evacuation, struct fault *fault)
{
	struct pool_db *pool = evacuation->api->pool;
	struct plan first CLEANUP_PLAN = {0};
	bool was_enabled = false;
	int r = make_plan(pool, evacuation->host, &first, fault);

	if (r == 0)
		r = plan_verdict(&first, fault);
	if (r == 0)
		r = object_get_bool(pool, "host", evacuation->host, "enabled", &was_enabled, fault);
	if (r == 0)
		r = set_enabled(pool, evacuation->host, false, fault);
	if (r < 0)
		return r;
	r = make_plan(pool, evacuation->host, &evacuation->plan, fault);
	if (r == 0)
		r = plan_verdict(&evacuation->plan, fault);
	/* Somebody was quicker. */
	if (r < 0 && was_enabled)
		set_enabled(pool, evacuation->host, true, NULL);
	return r;
}

/* A cancel that comes when all have left is too late. */
static bool all_left(const struct plan *plan)
{
	for (size_t i = 0; i < plan->n; i++)
		if (!plan->leaving[i].is_done)
			return false;
	return true;
}

static int conclude(struct evacuation *evacuation, struct cancel *cancel, struct fault *fault)
{
	bool is_done = all_left(&evacuation->plan);

	/* Moves that have begun go on; the next run ends the task, saying so. */
	if (!is_done && is_closing(evacuation))
		return fault_text(fault, -ESHUTDOWN, "This host's agent is stopping");
	if (!is_done && cancel_is_requested(cancel))
		return fault_set(fault, -ECANCELED, "TASK_CANCELLED", evacuation->task, NULL);
	int r = plan_verdict(&evacuation->plan, fault);
	return r < 0 ? r : check_empty(evacuation->api->pool, evacuation->host, fault);
}

static size_t batch_of(const struct value *arg, size_t n)
{
	int64_t wanted = arg && arg->integer > 0 ? arg->integer : BATCH;

	return MIN(n, (size_t)MIN(wanted, MAX_BATCH));
}

int host_evacuate(struct call *call, struct value *const *args, struct value **ret_result,
	struct fault *fault)
{
	struct value *options CLEANUP_VALUE = value_new_struct();
	struct evacuation evacuation = {.api = api_of(call),
		.host = arg_text(args, 0),
		.session = call_session(call),
		.user = call_user(call),
		.task = call_task(call),
		.options = options};

	(void)ret_result;
	if (!ref_is_null(arg_text(args, 1)))
		value_set_string(options, "network", arg_text(args, 1));
	int r = prepare(&evacuation, fault);
	if (r == 0)
		r = move_all(&evacuation, batch_of(args[2], evacuation.plan.n), call_cancel(call),
			fault);
	if (r == 0)
		r = conclude(&evacuation, call_cancel(call), fault);
	plan_clear(&evacuation.plan);
	return r;
}
