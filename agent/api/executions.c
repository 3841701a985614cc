/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/executions.h"

#include "agent/api/jobs.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define MAX_RUNNING 512
#define KEEP_USEC   (600 * USEC_PER_SEC)
#define MAX_EARLY   64

struct work {
	struct work *next;
	struct executions *executions;
	char *id;
	char *method;
	char *session;
	char *task;
	struct value *params;
	struct cancel *cancel;
	/* executions->lock guards the rest. */
	struct call *waiting; /* NULL: nobody */
	bool is_done;
	uint64_t done_usec;
	char *result; /* {"result": ...} */
	struct fault fault;
};

struct executions {
	executions_run run;
	void *arg;
	struct jobs *jobs;
	pthread_mutex_t lock; /* guards the rest */
	struct work *first;
	bool is_closed;
	/* Cancelled before they were known here: the two calls come by two connections. */
	char *early[MAX_EARLY];
	size_t n_early; /* that there were */
};

static void work_free(struct work *work)
{
	fault_clear(&work->fault);
	free(work->result);
	cancel_free(work->cancel);
	value_free(work->params);
	free(work->task);
	free(work->session);
	free(work->method);
	free(work->id);
	free(work);
}

static void answer(struct call *call, const char *result, const struct fault *fault)
{
	if (fault->code)
		call_fail(call, fault);
	else
		call_succeed(call, value_new_string(result));
}

static void answer_stopping(struct call *call)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	fault_set(&fault, -ESHUTDOWN, "FERRY_HOST_STOPPING", NULL);
	call_fail(call, &fault);
}

/* --- Running -----------------------------------------------------------------------------------
 */

static char *wrap(struct value *result)
{
	struct value *document CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;

	value_set(document, "result", result ? result : value_new_nil());
	json_encode(document, &text);
	return buf_take_string(&text);
}

static void work_run(void *arg)
{
	struct work *work = arg;
	struct executions *executions = work->executions;
	const struct execution execution = {.method = work->method,
		.session = work->session,
		.task = work->task,
		.cancel = work->cancel,
		.params = work->params};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result = NULL;
	int r = executions->run(executions->arg, &execution, &result, &fault);

	/* What was tried again and then went well may have left its text. */
	if (r >= 0)
		fault_clear(&fault);
	/* What it stands for goes on in the next run, and can be waited for there. */
	if (r == -ESHUTDOWN)
		fault_set(&fault, r, "FERRY_HOST_STOPPING", NULL);
	else if (r < 0 && !fault.code)
		fault_errno(&fault, r, "%s failed", work->method);
	char *text CLEANUP_FREE = r < 0 ? NULL : wrap(result);
	struct fault told CLEANUP_FAULT = FAULT_INIT;
	fault_copy(&told, &fault);

	pthread_mutex_lock(&executions->lock);
	struct call *waiting = TAKE_PTR(work->waiting);
	work->is_done = true;
	work->done_usec = clock_now_usec();
	work->result = text ? xstrdup(text) : NULL;
	fault_move(&work->fault, &fault);
	pthread_mutex_unlock(&executions->lock);
	if (waiting)
		answer(waiting, text, &told);
}

/* With the lock held. */
static struct work *find(struct executions *executions, const char *id)
{
	struct work *work = executions->first;

	while (work && strcmp(work->id, id) != 0)
		work = work->next;
	return work;
}

/* With the lock held: those that nobody will ask for any more. */
static void drop_old(struct executions *executions)
{
	struct work **at = &executions->first;

	while (*at) {
		struct work *work = *at;
		if (!work->is_done || clock_now_usec() - work->done_usec < KEEP_USEC) {
			at = &work->next;
			continue;
		}
		*at = work->next;
		work_free(work);
	}
}

static struct work *work_new(
	struct executions *executions, const char *id, const struct execution *execution)
{
	struct work *work = xcalloc(1, sizeof(*work));

	work->executions = executions;
	work->id = xstrdup(id);
	work->method = xstrdup(execution->method);
	work->session = xstrdup(execution->session);
	work->task = xstrdup(execution->task);
	work->params = value_copy(execution->params);
	work->cancel = cancel_new();
	return work;
}

/* --- Asking ------------------------------------------------------------------------------------
 */

/* The call is given an outcome that is there, or waits. A call that waited until now is let go: its
 * connection is lost, or it would not have asked again. */
static void attach(struct executions *executions, struct work *work, struct call *call)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *text CLEANUP_FREE = NULL;
	struct call *before = NULL;

	pthread_mutex_lock(&executions->lock);
	bool is_done = work->is_done;
	if (is_done) {
		text = work->result ? xstrdup(work->result) : NULL;
		fault_copy(&fault, &work->fault);
	} else {
		before = work->waiting;
		work->waiting = call;
	}
	pthread_mutex_unlock(&executions->lock);
	if (is_done)
		answer(call, text, &fault);
	if (before)
		answer_stopping(before);
}

static bool is_early(const struct executions *executions, const char *id)
{
	for (size_t i = 0; i < MAX_EARLY; i++)
		if (executions->early[i] && strcmp(executions->early[i], id) == 0)
			return true;
	return false;
}

int executions_start(struct executions *executions, struct call *call, const char *id,
	const struct execution *execution, struct fault *fault)
{
	struct work *fresh = NULL;

	pthread_mutex_lock(&executions->lock);
	bool is_closed = executions->is_closed;
	drop_old(executions);
	struct work *work = is_closed ? NULL : find(executions, id);
	if (!work && !is_closed) {
		work = fresh = work_new(executions, id, execution);
		work->next = executions->first;
		executions->first = work;
		if (is_early(executions, id))
			cancel_request(work->cancel, "task.cancel");
	}
	pthread_mutex_unlock(&executions->lock);
	if (is_closed)
		return fault_set(fault, -ESHUTDOWN, "FERRY_HOST_STOPPING", NULL);
	attach(executions, work, call);
	if (fresh && jobs_start(executions->jobs, work_run, fresh) < 0) {
		struct fault busy CLEANUP_FAULT = FAULT_INIT;
		fault_set(&busy, -EAGAIN, "TOO_MANY_PENDING_TASKS", NULL);
		pthread_mutex_lock(&executions->lock);
		struct call *waiting = TAKE_PTR(fresh->waiting);
		fresh->is_done = true;
		fresh->done_usec = clock_now_usec();
		fault_copy(&fresh->fault, &busy);
		pthread_mutex_unlock(&executions->lock);
		if (waiting)
			call_fail(waiting, &busy);
	}
	return CALL_PENDING;
}

int executions_await(
	struct executions *executions, struct call *call, const char *id, struct fault *fault)
{
	pthread_mutex_lock(&executions->lock);
	bool is_closed = executions->is_closed;
	struct work *work = is_closed ? NULL : find(executions, id);
	bool is_cancelled = is_early(executions, id);
	pthread_mutex_unlock(&executions->lock);
	if (is_closed)
		return fault_set(fault, -ESHUTDOWN, "FERRY_HOST_STOPPING", NULL);
	if (!work && is_cancelled)
		return fault_set(fault, -ESRCH, "TASK_CANCELLED", id, NULL);
	if (!work)
		return fault_set(fault, -ESRCH, "FERRY_EXECUTION_UNKNOWN", id, NULL);
	attach(executions, work, call);
	return CALL_PENDING;
}

void executions_cancel(struct executions *executions, const char *id)
{
	SCOPE_LOCK(&executions->lock);
	struct work *work = find(executions, id);

	if (work) {
		cancel_request(work->cancel, "task.cancel");
		return;
	}
	char **place = &executions->early[executions->n_early++ % MAX_EARLY];
	free(*place);
	*place = xstrdup(id);
}

/* --- Life ---------------------------------------------------------------------------------------
 */

struct executions *executions_new(executions_run run, void *arg)
{
	struct executions *executions = xcalloc(1, sizeof(*executions));

	executions->run = run;
	executions->arg = arg;
	executions->jobs = jobs_new(MAX_RUNNING);
	pthread_mutex_init(&executions->lock, NULL);
	return executions;
}

/* One call that waits; NULL when none does. */
static struct call *take_waiting(struct executions *executions)
{
	SCOPE_LOCK(&executions->lock);
	executions->is_closed = true;
	for (struct work *work = executions->first; work; work = work->next)
		if (work->waiting)
			return TAKE_PTR(work->waiting);
	return NULL;
}

void executions_close(struct executions *executions)
{
	struct call *call;

	jobs_close(executions->jobs);
	while ((call = take_waiting(executions)))
		answer_stopping(call);
}

struct executions *executions_free(struct executions *executions)
{
	if (!executions)
		return NULL;
	executions_close(executions);
	jobs_free(executions->jobs);
	while (executions->first) {
		struct work *work = executions->first;
		executions->first = work->next;
		work_free(work);
	}
	for (size_t i = 0; i < MAX_EARLY; i++)
		free(executions->early[i]);
	pthread_mutex_destroy(&executions->lock);
	free(executions);
	return NULL;
}
