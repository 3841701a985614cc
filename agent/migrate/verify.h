/* SPDX-License-Identifier: Apache-2.0 */
/* "Verify, then commit": compares the digests of what was sent with those of what the receiver
 * reads. */
#ifndef FERRY_AGENT_MIGRATE_VERIFY_H
#define FERRY_AGENT_MIGRATE_VERIFY_H

#include "agent/migrate/peer.h"

/* Compares disk `disk` of size_bytes. Chunks that differ go back to the extent log; *ret_differ
 * counts them. Blocks; sees the migration's cancel. */
int verify_disk(struct migration *migration, struct peer *peer, unsigned disk, uint64_t size_bytes,
	uint64_t *ret_differ, struct fault *fault);

#endif
