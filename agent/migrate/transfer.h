/* SPDX-License-Identifier: Apache-2.0 */
/* The COPYING state of a sender: every disk is copied until its log is empty and the digests agree,
 * through lost sessions and a peer that restarts; beside it a thread reports progress and asks
 * after the peer. */
#ifndef FERRY_AGENT_MIGRATE_TRANSFER_H
#define FERRY_AGENT_MIGRATE_TRANSFER_H

#include "agent/migrate/peer.h"

/* Keeps the exports of an answer to Peer.prepare or Peer.renew. -EBADMSG when they are not those of
 * the plan. */
int transfer_take_exports(
	struct migration *migration, const struct value *result, struct fault *fault);

/* Asks for exports that are valid now, after a session was lost. */
int transfer_renew(struct migration *migration, struct peer *peer, struct fault *fault);
/* The error of a copy that a renewed export may mend. */
bool transfer_is_session_loss(int error);

/* After the target failed a write: asks the destination, and makes the fault say so when one of its
 * SRs is full. Returns the error to go on with. */
int transfer_explain(
	struct migration *migration, struct peer *peer, int error, struct fault *fault);

/* Where a disk is written to; it borrows from the migration's exports. */
struct endpoint_spec transfer_target(struct migration *migration, unsigned disk);

/* What cannot be read of the disks is zeros, if the move's options say so (agent/copy/salvage.h).
 * Before anything reads them; fine when it was said before. */
int transfer_open_salvage(struct migration *migration, struct fault *fault);

int transfer_run(struct migration *migration, struct peer *peer, struct fault *fault);
/* Only the disks that no guest writes to, those of the snapshots. */
int transfer_run_still(struct migration *migration, struct peer *peer, struct fault *fault);

#endif
