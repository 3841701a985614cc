/* SPDX-License-Identifier: Apache-2.0 */
/* Following a task to its end, by events. A lost connection is made again: the task goes on
 * meanwhile. */
#ifndef FERRY_CLI_WAIT_H
#define FERRY_CLI_WAIT_H

#include "base/fault.h"
#include "base/value.h"
#include "cli/context.h"

/* What the first Ctrl-C does; the second one always leaves the task running. */
enum wait_interrupt { WAIT_LEAVES, WAIT_CANCELS };

/* 0: *ret_task is the record of the ended task, however it ended. -ECANCELED: interrupted, it goes
 * on. Other values: it cannot be followed any more. */
int wait_for_task(struct context *context, const char *task, enum wait_interrupt interrupt,
	struct value **ret_task, struct fault *fault);

/* How an ended task ended: 0, -ECANCELED with TASK_CANCELLED, or -EREMOTEIO with its error. */
int wait_outcome(const char *task, const struct value *record, struct fault *fault);
/* The ref in a task's result, "<value>OpaqueRef:...</value>". The caller frees it. */
char *wait_result(const struct value *record);

#endif
