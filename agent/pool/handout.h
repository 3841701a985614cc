/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's copies of pool.db, for members to keep. A copy is made when a member asks, is
 * shared by those that ask soon after, and is read piece by piece. May be used by any number of
 * threads. */
#ifndef FERRY_AGENT_POOL_HANDOUT_H
#define FERRY_AGENT_POOL_HANDOUT_H

#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stdint.h>

/* What a piece has at most. */
#define HANDOUT_PIECE ((size_t)4 << 20)

struct handout;

/* path: of pool.db. max_age_usec: how old a copy may be that is given to a member that asks. Opens
 * nothing yet. */
struct handout *handout_new(const char *path, uint64_t max_age_usec);
/* NULL is fine; returns NULL. */
struct handout *handout_free(struct handout *handout);

/* have: id of the copy that the member has, "" for none. *ret_offer: struct of the id of the newest
 * copy, and its size in bytes; without size when it is that one. now: whatever was committed before
 * this call is in it. Blocks while the copy is made. */
int handout_offer(struct handout *handout, const char *have, bool now, struct value **ret_offer,
	struct fault *fault);
/* *ret_piece: Base64 of what follows the offset. FERRY_COPY_GONE [id]: ask for an offer again. */
int handout_read(struct handout *handout, const char *id, int64_t offset, struct value **ret_piece,
	struct fault *fault);

#endif
