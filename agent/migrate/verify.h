/* SPDX-License-Identifier: Apache-2.0 */
/* "Verify, then commit": compares the digests of what was sent with those of what the receiver
 * reads. */
#ifndef FERRY_AGENT_MIGRATE_VERIFY_H
#define FERRY_AGENT_MIGRATE_VERIFY_H

#include "agent/migrate/peer.h"

/* Compares the spans of disk `disk` from span `from` on. Chunks that differ go back to the extent
 * log; *ret_differ counts them. Blocks; sees the migration's cancel. */
int verify_disk(struct migration *migration, struct peer *peer, unsigned disk, uint64_t size_bytes,
	uint64_t from, uint64_t *ret_differ, struct fault *fault);

/* Sets ret_differs[i] where the receiver does not hold what digests (DIGEST_BYTES each) are of. As
 * pass_compare. */
int verify_extents(struct migration *migration, struct peer *peer, unsigned disk,
	const struct extent *extents, size_t n, const unsigned char *digests, bool *ret_differs,
	struct fault *fault);

/* Compares behind the copy: a thread that takes each span as soon as the log holds nothing at or
 * below it. It stops at the first error or difference, which verify_disk then meets again. */
struct verifier;

int verifier_start(struct migration *migration, unsigned disk, uint64_t size_bytes,
	struct verifier **ret_verifier, struct fault *fault);
/* Ends it; returns how many spans were found equal. Blocks for the span being compared. NULL gives
 * 0. */
uint64_t verifier_stop(struct verifier *verifier);

#endif
