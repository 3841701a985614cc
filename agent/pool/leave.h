/* SPDX-License-Identifier: Apache-2.0 */
/* A host leaves its pool and becomes one of its own again, with its repositories, their disks and
 * the VMs that live on them. The pool's transaction decides; what the host takes along is kept
 * there until the host has it. */
#ifndef FERRY_AGENT_POOL_LEAVE_H
#define FERRY_AGENT_POOL_LEAVE_H

#include "base/fault.h"
#include "schema/pool_db.h"

/* On the coordinator. OPERATION_NOT_ALLOWED for itself, HOST_HAS_RESIDENT_VMS [host],
 * INTERNAL_ERROR that names the VM or SR that keeps it. */
int leave_eject(
	struct pool_db *pool, const char *coordinator, const char *host, struct fault *fault);
/* On the host that was ejected: makes <state_dir>/pool.db from the bundle. Whole or not at all; may
 * be repeated. */
int leave_make_pool(
	const char *state_dir, const char *bundle, const char *pool_name, struct fault *fault);

#endif
