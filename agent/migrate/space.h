/* SPDX-License-Identifier: Apache-2.0 */
/* The destination says with each heartbeat what is free below each disk. A move that will not fit
 * any more ends before a write fails: tgtd tells of that as a medium error, and the disks of others
 * in the same repository would meet it too. */
#ifndef FERRY_AGENT_MIGRATE_SPACE_H
#define FERRY_AGENT_MIGRATE_SPACE_H

#include "agent/migrate/migration.h"

/* status: the answer to Peer.status. -ENOSPC, with SR_BACKEND_FAILURE_44 and the figures: less is
 * free than is left to be sent, and it is about to run out. What a peer says otherwise, or leaves
 * out, is taken for room enough. */
int space_check(struct migration *migration, const struct value *status, struct fault *fault);

#endif
