/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/tasks.h"

#include "agent/api/forward.h"
#include "agent/api/jobs.h"
#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "xmlrpc/codec.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct task {
	struct task *next;
	struct tasks *tasks;
	char *ref;
	struct call *call; /* NULL: taken over from a former run of the daemon */
	struct value **args;
	struct value *config; /* taken over: its other_config, which says what it waits for */
	struct cancel *cancel;
	bool async;
	bool destroy_at_end; /* under tasks->lock */
};

/* The token of an object without a thread. */
struct lent {
	struct lent *next;
	char *ref;
	struct cancel *cancel;
};

struct tasks {
	struct pool_db *pool;
	char *host_ref;
	struct jobs *jobs;
	tasks_await await; /* for tasks taken over */
	void *await_arg;
	pthread_mutex_t lock; /* over the lists */
	struct task *running;
	struct lent *lent;
};

static struct task *task_free(struct task *task)
{
	if (!task)
		return NULL;
	size_t n = task->call ? call_method(task->call)->n_params : 0;
	for (size_t i = 0; i < n; i++)
		value_free(task->args[i]);
	free(task->args);
	value_free(task->config);
	if (task->call)
		call_unref(task->call);
	cancel_free(task->cancel);
	free(task->ref);
	free(task);
	return NULL;
}

/* --- The object --------------------------------------------------------------------------------
 */

static struct value *operations_new(bool can_cancel)
{
	struct value *operations = value_new_array();

	return can_cancel ? value_append_string(operations, "cancel") : operations;
}

static int task_create_object(struct tasks *tasks, const char *label, const char *description,
	const char *user, bool can_cancel, char **ret_ref, struct fault *fault)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();

	value_set_string(fields, "name_label", label);
	value_set_string(fields, "name_description", description);
	value_set(fields, "allowed_operations", operations_new(can_cancel));
	value_set(fields, "created", value_new_datetime(clock_wall_sec()));
	value_set_string(fields, "status", "pending");
	value_set_string(fields, "resident_on", tasks->host_ref);
	value_set_string(fields, "user", user);
	return object_create(tasks->pool, "task", fields, ret_ref, fault);
}

int tasks_create_object(struct tasks *tasks, const char *label, const char *description,
	const char *user, char **ret_ref, struct fault *fault)
{
	return task_create_object(tasks, label, description, user, false, ret_ref, fault);
}

int tasks_create_cancellable(struct tasks *tasks, const char *label, const char *description,
	const char *user, struct cancel *cancel, char **ret_ref, struct fault *fault)
{
	int r = task_create_object(tasks, label, description, user, true, ret_ref, fault);

	if (r < 0)
		return r;
	struct lent *lent = xcalloc(1, sizeof(*lent));
	*lent = (struct lent){.ref = xstrdup(*ret_ref), .cancel = cancel};
	SCOPE_LOCK(&tasks->lock);
	lent->next = tasks->lent;
	tasks->lent = lent;
	return 0;
}

void tasks_let_go(struct tasks *tasks, const char *ref)
{
	SCOPE_LOCK(&tasks->lock);
	struct lent **at = &tasks->lent;

	while (*at && strcmp((*at)->ref, ref) != 0)
		at = &(*at)->next;
	struct lent *lent = *at;
	if (!lent)
		return;
	*at = lent->next;
	free(lent->ref);
	free(lent);
}

/* What every end has in common, in contract 3.2's order; status goes last. */
static struct value *end_fields_new(const char *status, const char *result, const struct fault *why)
{
	struct value *fields = value_new_struct();
	struct value *error = value_new_array();

	value_set(fields, "progress", value_new_double(1.0));
	value_set_string(fields, "result", result);
	if (why) {
		value_append_string(error, why->code);
		for (size_t i = 0; i < why->n_params; i++)
			value_append_string(error, why->params[i]);
	}
	value_set(fields, "error_info", error);
	value_set(fields, "finished", value_new_datetime(clock_wall_sec()));
	value_set(fields, "allowed_operations", value_new_array());
	value_set_string(fields, "status", status);
	return fields;
}

static int task_write_end(struct tasks *tasks, const char *ref, const char *status,
	const char *result, const struct fault *why)
{
	struct value *fields CLEANUP_VALUE = end_fields_new(status, result, why);
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	int r = object_set_fields(tasks->pool, "task", ref, fields, &fault);

	if (r < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("task-end-not-stored", "task=%s error=\"%s\"", ref, text);
	}
	return MIN(r, 0);
}

int tasks_end_object(struct tasks *tasks, const char *ref, const struct fault *why)
{
	const char *status = !why                              ? "success"
			     : fault_is(why, "TASK_CANCELLED") ? "cancelled"
							       : "failure";

	return task_write_end(tasks, ref, status, why ? "" : "<value></value>",
		strcmp(status, "failure") == 0 ? why : NULL);
}

int tasks_succeed_object(struct tasks *tasks, const char *ref, const struct value *result)
{
	char *fragment CLEANUP_FREE = xml_encode_fragment(result);

	return task_write_end(tasks, ref, "success", fragment, NULL);
}

static void task_end(struct task *task, int r, const struct value *result, const struct fault *why)
{
	if (r >= 0) {
		char *fragment CLEANUP_FREE = NULL;
		struct value *nothing CLEANUP_VALUE = value_new_string("");
		fragment = xml_encode_fragment(result ? result : nothing);
		task_write_end(task->tasks, task->ref, "success", fragment, NULL);
	} else if (fault_is(why, "TASK_CANCELLED")) {
		task_write_end(task->tasks, task->ref, "cancelled", "", NULL);
	} else {
		task_write_end(task->tasks, task->ref, "failure", "", why);
	}
}

/* --- Running -----------------------------------------------------------------------------------
 */

static void tasks_add(struct tasks *tasks, struct task *task)
{
	SCOPE_LOCK(&tasks->lock);
	task->next = tasks->running;
	tasks->running = task;
}

/* Takes it off the list; whether its object is to go too. */
static bool tasks_remove(struct tasks *tasks, struct task *task)
{
	struct task **p;

	SCOPE_LOCK(&tasks->lock);
	for (p = &tasks->running; *p != task; p = &(*p)->next)
		;
	*p = task->next;
	return task->destroy_at_end;
}

/* Under the lock. */
static struct task *tasks_find(struct tasks *tasks, const char *ref)
{
	struct task *task = tasks->running;

	while (task && strcmp(task->ref, ref) != 0)
		task = task->next;
	return task;
}

/* Stores the outcome, answers a synchronous call, forgets the task. One that is cut off because the
 * daemon stops stays pending when what it stands for goes on: the next run takes it over. */
static void task_finish(
	struct task *task, int r, struct value *result, const struct fault *why, bool goes_on)
{
	struct tasks *tasks = task->tasks;

	if (!goes_on)
		task_end(task, r, result, why);
	if (tasks_remove(tasks, task))
		object_destroy(tasks->pool, "task", task->ref, NULL);
	if (task->async)
		value_free(result);
	else if (r >= 0)
		call_succeed(task->call, result);
	else
		call_fail(task->call, why);
	task_free(task);
}

static void task_run(void *arg)
{
	struct task *task = arg;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result = NULL;
	int r = call_handle(task->call, task->args, &result, &fault);

	assert(r != CALL_PENDING);
	if (r < 0 && !fault.code)
		fault_errno(&fault, r, "%s failed", call_method(task->call)->name);
	task_finish(task, r, result, &fault, r == -ESHUTDOWN);
}

static void task_run_taken_over(void *arg)
{
	struct task *task = arg;
	struct tasks *tasks = task->tasks;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result = NULL;
	int r = tasks->await(
		tasks->await_arg, task->config, task->ref, task->cancel, &result, &fault);

	task_finish(task, r, result, &fault, r == -ESHUTDOWN);
}

/* The call is ended by its failure; nothing has been started. */
static void task_refuse(struct task *task, const struct fault *fault)
{
	call_fail(task->call, fault);
	task_free(task);
}

size_t tasks_n_running(struct tasks *tasks)
{
	size_t n = 0;

	SCOPE_LOCK(&tasks->lock);
	for (struct task *task = tasks->running; task; task = task->next)
		n++;
	return n;
}

void tasks_start(struct tasks *tasks, struct call *call, bool async, struct value **args)
{
	struct task *task = xcalloc(1, sizeof(*task));
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	bool can_cancel = call_method(call)->flags & METHOD_TASK;
	char *ref CLEANUP_FREE = NULL;
	int r;

	*task = (struct task){.tasks = tasks, .call = call_ref(call), .args = args, .async = async};
	task->cancel = cancel_new();
	if (tasks_n_running(tasks) >= TASKS_MAX_RUNNING) {
		fault_set(&fault, -EAGAIN, "TOO_MANY_PENDING_TASKS", NULL);
		task_refuse(task, &fault);
		return;
	}
	r = task_create_object(
		tasks, call_wire_name(call), "", call_user(call), can_cancel, &task->ref, &fault);
	if (r < 0) {
		task_refuse(task, &fault);
		return;
	}
	call_set_task(call, task->ref, task->cancel);
	tasks_add(tasks, task);
	/* The answer first: the task may have ended, and be freed, before jobs_start returns. */
	ref = xstrdup(task->ref);
	if (async)
		call_succeed(call, value_new_string(ref));
	r = jobs_start(tasks->jobs, task_run, task);
	if (r == -ESHUTDOWN)
		fault_text(&fault, r, "This host's agent is stopping; nothing was started");
	else if (r < 0)
		fault_set(&fault, r, "TOO_MANY_PENDING_TASKS", NULL);
	if (r < 0)
		task_finish(task, r, NULL, &fault, false);
}

/* --- What clients ask --------------------------------------------------------------------------
 */

static bool task_is_pending(struct tasks *tasks, const char *ref)
{
	char *status CLEANUP_FREE = NULL;

	return object_get_string(tasks->pool, "task", ref, "status", &status, NULL) == 0 &&
	       strcmp(status, "pending") == 0;
}

int tasks_cancel(struct tasks *tasks, const char *ref, const char *who, struct fault *fault)
{
	struct task *task;
	int r;

	if (!object_exists(tasks->pool, "task", ref))
		return fault_set(fault, -ENOENT, "HANDLE_INVALID", "task", ref, NULL);
	if (!task_is_pending(tasks, ref))
		return 0;
	r = object_map_set(tasks->pool, "task", ref, "current_operations", ref, "cancel", fault);
	if (r < 0)
		return r;
	SCOPE_LOCK(&tasks->lock);
	task = tasks_find(tasks, ref);
	if (task)
		cancel_request(task->cancel, who);
	for (struct lent *lent = tasks->lent; lent; lent = lent->next)
		if (strcmp(lent->ref, ref) == 0)
			cancel_request(lent->cancel, who);
	return 0;
}

static bool tasks_defer_destroy(struct tasks *tasks, const char *ref)
{
	struct task *task;

	SCOPE_LOCK(&tasks->lock);
	task = tasks_find(tasks, ref);
	if (task)
		task->destroy_at_end = true;
	return task != NULL;
}

int tasks_destroy(struct tasks *tasks, const char *ref, struct fault *fault)
{
	/* One that has ended goes at once, though its thread may not have let go of it yet. */
	if (task_is_pending(tasks, ref) && tasks_defer_destroy(tasks, ref)) {
		/* It may end, and go, right now: then there is nothing left to mark. */
		object_map_set(
			tasks->pool, "task", ref, "current_operations", ref, "destroy", NULL);
		return 0;
	}
	return object_destroy(tasks->pool, "task", ref, fault);
}

bool tasks_session_is_busy(struct tasks *tasks, const char *session)
{
	SCOPE_LOCK(&tasks->lock);
	for (struct task *task = tasks->running; task; task = task->next) {
		if (task->call && strcmp(call_session(task->call), session) == 0)
			return true;
	}
	return false;
}

/* --- Recovery and collection -------------------------------------------------------------------
 */

static int task_take_over(
	struct tasks *tasks, const char *ref, const struct value *config, struct fault *fault)
{
	struct task *task = xcalloc(1, sizeof(*task));

	*task = (struct task){.tasks = tasks,
		.ref = xstrdup(ref),
		.config = value_copy(config),
		.cancel = cancel_new(),
		.async = true};
	tasks_add(tasks, task);
	int r = jobs_start(tasks->jobs, task_run_taken_over, task);
	if (r < 0) {
		fault_errno(fault, r, "Cannot take over task %s", ref);
		task_finish(task, r, NULL, fault, false);
	}
	return r;
}

int tasks_recover(struct tasks *tasks, tasks_await await, void *arg, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct value *refs CLEANUP_VALUE = NULL;
	int r = object_find(tasks->pool, "task", "status", "pending", &refs, fault);

	tasks->await = await;
	tasks->await_arg = arg;
	fault_text(
		&why, -ECANCELED, "The agent was restarted while this task ran; ask for it again");
	for (size_t i = 0; r == 0 && i < refs->array.n_items; i++) {
		const char *ref = refs->array.items[i]->string;
		struct value *config CLEANUP_VALUE = NULL;
		r = object_get_field(tasks->pool, "task", ref, "other_config", &config, fault);
		if (r == 0 && (value_find(config, "ferry:migration") ||
				      value_find(config, TASK_HOST_KEY)))
			r = task_take_over(tasks, ref, config, fault);
		else if (r == 0 && !value_find(config, TASK_TRANSFER_KEY))
			task_write_end(tasks, ref, "failure", "", &why);
	}
	return r;
}

struct ended {
	const char *ref;
	int64_t finished;
};

static int ended_compare(const void *a, const void *b)
{
	const struct ended *x = a;
	const struct ended *y = b;

	return (x->finished > y->finished) - (x->finished < y->finished);
}

/* The finished tasks, oldest first. The caller frees the array; refs belong to records. */
static struct ended *list_ended(const struct value *records, size_t *ret_n)
{
	struct ended *ended = xcalloc(records->record.n_members + 1, sizeof(*ended));
	size_t n = 0;

	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value_member *member = &records->record.members[i];
		const struct value *finished = value_find(member->value, "finished");
		if (strcmp(value_find_string(member->value, "status", "pending"), "pending") == 0)
			continue;
		ended[n++] = (struct ended){member->name, finished ? finished->integer : 0};
	}
	qsort(ended, n, sizeof(*ended), ended_compare);
	*ret_n = n;
	return ended;
}

/* Shows a transfer of a host that has left the pool, and of which nobody will hear. */
static void end_of_gone(struct tasks *tasks, const struct value_member *task)
{
	const char *host =
		value_find_string(value_find(task->value, "other_config"), TASK_TRANSFER_KEY, NULL);
	struct fault gone CLEANUP_FAULT = FAULT_INIT;
	struct fault why CLEANUP_FAULT = FAULT_INIT;

	if (!host || strcmp(value_find_string(task->value, "status", ""), "pending") != 0 ||
		object_check(tasks->pool, "host", host, &gone) == 0 ||
		!fault_is(&gone, "HANDLE_INVALID"))
		return;
	fault_text(&why, -EHOSTDOWN, "The host that worked on this has left the pool");
	tasks_end_object(tasks, task->name, &why);
}

void tasks_collect(struct tasks *tasks)
{
	struct value *records CLEANUP_VALUE = NULL;
	struct ended *ended CLEANUP_FREE = NULL;
	int64_t oldest = clock_wall_sec() - TASKS_KEEP_SEC;
	size_t n_all;
	size_t n;

	if (object_get_all_records(tasks->pool, "task", &records, NULL) < 0)
		return;
	n_all = records->record.n_members;
	for (size_t i = 0; i < n_all; i++)
		end_of_gone(tasks, &records->record.members[i]);
	ended = list_ended(records, &n);
	for (size_t i = 0; i < n && (ended[i].finished < oldest || n_all > TASKS_MAX_KEPT); i++) {
		object_destroy(tasks->pool, "task", ended[i].ref, NULL);
		n_all--;
	}
}

/* --- Life ---------------------------------------------------------------------------------------
 */

struct tasks *tasks_new(struct pool_db *pool, const char *host_ref)
{
	struct tasks *tasks = xcalloc(1, sizeof(*tasks));

	tasks->pool = pool;
	tasks->host_ref = xstrdup(host_ref);
	tasks->jobs = jobs_new(TASKS_MAX_RUNNING);
	pthread_mutex_init(&tasks->lock, NULL);
	return tasks;
}

void tasks_close(struct tasks *tasks)
{
	jobs_close(tasks->jobs);
}

struct tasks *tasks_free(struct tasks *tasks)
{
	if (!tasks)
		return NULL;
	jobs_free(tasks->jobs);
	pthread_mutex_destroy(&tasks->lock);
	free(tasks->host_ref);
	free(tasks);
	return NULL;
}
