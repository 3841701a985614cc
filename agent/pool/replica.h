/* SPDX-License-Identifier: Apache-2.0 */
/* A member's copy of its coordinator's pool.db: <state_dir>/pool.copy.db, which takes its place
 * when the coordinator is lost. It is whole at any moment; the generation in it, and the file's
 * time, say what it holds: all that was committed before that time. */
#ifndef FERRY_AGENT_POOL_REPLICA_H
#define FERRY_AGENT_POOL_REPLICA_H

#include "agent/pool/link.h"
#include "base/cancel.h"
#include "base/fault.h"

#include <stdint.h>

struct replica;

struct replica_params {
	struct link *link;     /* borrowed */
	const char *state_dir; /* copied */
	/* It asks twice as often, and is given what is half as old: all that was acknowledged
	 * longer ago than this, and than the copy takes, is in it. */
	uint64_t interval_usec;
};

int replica_start(
	const struct replica_params *params, struct replica **ret_replica, struct fault *fault);
/* NULL is fine; returns NULL. */
struct replica *replica_stop(struct replica *replica);

/* Fetches what the coordinator has now, durably. Blocks, for so long at most. */
int replica_fetch(struct link *link, const char *state_dir, uint64_t timeout_usec,
	struct cancel *cancel, struct fault *fault);
/* When what it holds was what the coordinator had, in seconds since 1970: 1; 0 when there is none.
 */
int replica_time(const char *state_dir, int64_t *ret_time, struct fault *fault);
/* The file; the caller frees it. */
char *replica_path(const char *state_dir);
/* Of another pool, or of a host that is no member any more. */
int replica_remove(const char *state_dir, struct fault *fault);

#endif
