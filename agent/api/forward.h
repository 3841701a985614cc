/* SPDX-License-Identifier: Apache-2.0 */
/* Calls whose work belongs to another host of the pool: sent there as a whole, executed by the same
 * handlers, the result or fault passed back unchanged. */
#ifndef FERRY_AGENT_API_FORWARD_H
#define FERRY_AGENT_API_FORWARD_H

#include "base/cancel.h"
#include "base/fault.h"
#include "base/value.h"
#include "xmlrpc/dispatch.h"

struct api;
struct forwards;

/* In the other_config of a task that another host works on: its ref. */
#define TASK_HOST_KEY "ferry:host"

struct forwards *forwards_new(struct api *api);
/* Lets go of the calls under way: those of tasks go on, and are taken up by the next run. */
void forwards_close(struct forwards *forwards);
/* Waits for its threads. NULL is fine; returns NULL. */
struct forwards *forwards_free(struct forwards *forwards);

/* dispatch_hooks.handle: here, or there. */
int forward_handle(struct api *api, struct call *call, struct value *const *args,
	struct value **ret_result, struct fault *fault);
/* Runs the method at the host, or here, for a task that has no thread of its own: blocks. */
int forward_execute(struct api *api, const char *host, const struct execution *execution,
	struct value **ret_result, struct fault *fault);
/* Waits for what a host was asked to do for a task by a former run. */
int forward_await(struct api *api, const char *host, const char *task, struct cancel *cancel,
	struct value **ret_result, struct fault *fault);

#endif
