/* SPDX-License-Identifier: Apache-2.0 */
/* Which host of the pool has a VM, a disk or a repository, or could have it. */
#ifndef FERRY_AGENT_API_PLACEMENT_H
#define FERRY_AGENT_API_PLACEMENT_H

#include "base/fault.h"
#include "schema/pool_db.h"

#include <stdbool.h>
#include <stdint.h>

/* A host at which the SR is plugged: the preferred one, else one that is live, else any; NULL when
 * there is none. The caller frees it. */
char *placement_of_sr(struct pool_db *pool, const char *sr, const char *preferred);
/* Refs of the hosts that reach all disks of the VM, are live and enabled: array. VM_REQUIRES_SR
 * [vm, sr] when a disk's SR is plugged nowhere, NO_HOSTS_AVAILABLE [vm]. */
int placement_candidates(
	struct pool_db *pool, const char *vm, struct value **ret_hosts, struct fault *fault);
/* Whether the VM could start there: HANDLE_INVALID, HOST_DISABLED [host], HOST_NOT_LIVE [],
 * VM_REQUIRES_SR [vm, sr], HOST_NOT_ENOUGH_FREE_MEMORY [needed, free]. */
int placement_check(struct pool_db *pool, const char *vm, const char *host, struct fault *fault);
/* Whether a host besides this one reaches the SR, is live and enabled. */
int placement_others_reach(struct pool_db *pool, const char *sr, const char *host,
	bool *ret_reached, struct fault *fault);
/* Bytes, as its agent said last. */
int64_t placement_free_memory(struct pool_db *pool, const char *host);
/* Where a halted VM is to start: its affinity, if that can, else the host with most free memory.
 * The caller frees it. */
int placement_pick(struct pool_db *pool, const char *vm, char **ret_host, struct fault *fault);

#endif
