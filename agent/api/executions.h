/* SPDX-License-Identifier: Apache-2.0 */
/* On a member: what the coordinator asked this host to do. Each has an id, runs once, and its
 * outcome is kept for a while, so that it can be asked for again when an answer was lost. */
#ifndef FERRY_AGENT_API_EXECUTIONS_H
#define FERRY_AGENT_API_EXECUTIONS_H

#include "base/cancel.h"
#include "base/fault.h"
#include "base/value.h"
#include "xmlrpc/dispatch.h"

struct executions;

/* What runs in a thread: the method, or the wait for a migration of a former run. */
typedef int (*executions_run)(void *arg, const struct execution *execution,
	struct value **ret_result, struct fault *fault);

struct executions *executions_new(executions_run run, void *arg);
/* Ends the calls that wait (FERRY_HOST_STOPPING); what runs is ended by who does it. */
void executions_close(struct executions *executions);
/* Waits for what runs. NULL is fine; returns NULL. */
struct executions *executions_free(struct executions *executions);

/* Starts it unless it was, and keeps the call until it is done: it succeeds with {"result": ...} as
 * JSON, or fails as the method did. CALL_PENDING, or a fault. */
int executions_start(struct executions *executions, struct call *call, const char *id,
	const struct execution *execution, struct fault *fault);
/* The same for one that was started. -ESRCH: FERRY_EXECUTION_UNKNOWN [id], or TASK_CANCELLED [id]
 * when it was cancelled before. */
int executions_await(
	struct executions *executions, struct call *call, const char *id, struct fault *fault);
/* Asks it to stop; one that is not known yet, as soon as it begins. */
void executions_cancel(struct executions *executions, const char *id);

#endif
