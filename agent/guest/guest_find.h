/* SPDX-License-Identifier: Apache-2.0 */
/* Looking for a QEMU among the processes of this host. */
#ifndef FERRY_AGENT_GUEST_GUEST_FIND_H
#define FERRY_AGENT_GUEST_GUEST_FIND_H

#include "base/fault.h"
#include "base/run.h"

#include <stdint.h>

/* The process of this user whose arguments name that uuid and a pidfile in that run folder: 1 and a
 * child to be freed, 0 when there is none. Looks at all processes rather than into the pidfile,
 * which is not there yet when an agent dies right after it has started one. */
int guest_find_process(
	const char *uuid, const char *run_dir, struct child **ret_child, struct fault *fault);

/* Bytes of memory that the process has; 0 when unknown. */
uint64_t guest_process_resident(pid_t pid);

#endif
