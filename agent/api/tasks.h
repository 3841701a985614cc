/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: the objects of class task, and the threads that run what they stand for (contract section
 * 3). A task's end is one change of its object, so one event, with the status last in the record.
 */
#ifndef FERRY_AGENT_API_TASKS_H
#define FERRY_AGENT_API_TASKS_H

#include "base/cancel.h"
#include "base/fault.h"
#include "schema/pool_db.h"
#include "xmlrpc/dispatch.h"

#include <stdbool.h>

/* Running at once; more: TOO_MANY_PENDING_TASKS. */
#define TASKS_MAX_RUNNING 512
/* Finished tasks are kept this long, and at most that many tasks in all. */
#define TASKS_KEEP_SEC 3900
#define TASKS_MAX_KEPT 200

/* Of other_config: the member whose transfer (transfer.h) the task shows. It ends the task,
 * whatever becomes of the coordinator. */
#define TASK_TRANSFER_KEY "ferry:transfer"

struct tasks;

/* pool is borrowed. */
struct tasks *tasks_new(struct pool_db *pool, const char *host_ref);
/* Waits for what runs. */
struct tasks *tasks_free(struct tasks *tasks);
/* No new ones. */
void tasks_close(struct tasks *tasks);

/* What a former run of the daemon left pending. A task that stands for a migration, or that another
 * host works on (its other_config names them) waits on for it, by `await` in a thread: 0 with
 * *ret_result, or a fault. One that shows a member's transfer is left to that member. The others
 * end as failed. */
typedef int (*tasks_await)(void *arg, const struct value *other_config, const char *task,
	struct cancel *cancel, struct value **ret_result, struct fault *fault);
int tasks_recover(struct tasks *tasks, tasks_await await, void *arg, struct fault *fault);

/* dispatch_hooks.task_start: takes call and args over. */
void tasks_start(struct tasks *tasks, struct call *call, bool async, struct value **args);

/* An object without a thread, for task.create. The caller frees *ret_ref. */
int tasks_create_object(struct tasks *tasks, const char *label, const char *description,
	const char *user, char **ret_ref, struct fault *fault);
/* The same for what can be cancelled: the token is requested when a client does, until
 * tasks_let_go(). */
int tasks_create_cancellable(struct tasks *tasks, const char *label, const char *description,
	const char *user, struct cancel *cancel, char **ret_ref, struct fault *fault);
/* The token is not to be touched any more. */
void tasks_let_go(struct tasks *tasks, const char *ref);

/* Its end: why is NULL, or what it failed of (TASK_CANCELLED: cancelled). -ENOENT: it is gone. */
int tasks_end_object(struct tasks *tasks, const char *ref, const struct fault *why);
/* The same of one that has done what it was for, with that result. */
int tasks_succeed_object(struct tasks *tasks, const char *ref, const struct value *result);

/* Marks it in current_operations and asks what runs to stop. Does not wait. A task that has ended
 * stays as it is. who: for the record of what is cancelled. */
int tasks_cancel(struct tasks *tasks, const char *ref, const char *who, struct fault *fault);
/* Removes it now, or when what runs has ended. */
int tasks_destroy(struct tasks *tasks, const char *ref, struct fault *fault);
size_t tasks_n_running(struct tasks *tasks);
/* Whether a task that this session started runs. */
bool tasks_session_is_busy(struct tasks *tasks, const char *session);

/* Removes finished tasks that are too old or too many, and ends those of members that are gone. */
void tasks_collect(struct tasks *tasks);

#endif
