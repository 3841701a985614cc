/* SPDX-License-Identifier: Apache-2.0 */
/* What users see of a move that waits for its turn: its `migration` object, in state QUEUED. It has
 * no row in agent.db, and the VM knows nothing of it. */
#ifndef FERRY_AGENT_MIGRATE_REPORT_QUEUE_H
#define FERRY_AGENT_MIGRATE_REPORT_QUEUE_H

#include "agent/migrate/queue.h"
#include "agent/storage/storage.h"
#include "base/fault.h"
#include "base/value.h"

#define QUEUED_STATE "QUEUED"

/* peer: URL of the other side. The caller frees *ret_ref. */
int report_queued(const struct storage *storage, const struct queue_entry *entry, const char *peer,
	bool live, char **ret_ref, struct fault *fault);
/* Writes down the places of all that wait. */
void report_places(const struct storage *storage, struct queue *queue);
/* Whether the object shows one that waits. */
bool report_is_queued(struct pool_db *pool, const char *ref);
/* It will not begin: cancelled (by `who`), or the fault says why. Nothing changes if it has begun.
 */
void report_unqueued(
	struct pool_db *pool, const char *ref, const char *who, const struct fault *why);
/* What waited for its turn when the agent ended is shown as failed. */
int report_recover_queue(const struct storage *storage, struct fault *fault);

#endif
