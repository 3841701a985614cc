/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the extent log once, chunk by chunk (DIGEST_CHUNK of the disk), handing each chunk to one
 * of many threads together with all extents that the log has in it. Rows are read in batches:
 * memory does not depend on the log's length. */
#ifndef FERRY_AGENT_COPY_CURSOR_H
#define FERRY_AGENT_COPY_CURSOR_H

#include "agent/copy/digest.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "schema/agent_db.h"
#include "schema/types.h"

#include <stddef.h>
#include <stdint.h>

/* Rows never touch, so no chunk holds more than every second sector. */
#define CURSOR_CHUNK_EXTENTS (DIGEST_CHUNK / 1024 + 1)

struct cursor_chunk {
	uint64_t number;
	struct extent whole; /* the last chunk of a disk may be shorter */
	uint64_t log_bytes;  /* sum of the extents */
	size_t n_extents;
	struct extent extents[CURSOR_CHUNK_EXTENTS]; /* ascending, within whole */
};

struct cursor;

/* db and migration are borrowed. */
struct cursor *cursor_new(
	struct agent_db *db, const char *migration, unsigned disk, uint64_t size_bytes);
struct cursor *cursor_free(struct cursor *cursor);

/* 1: *chunk is the caller's to copy. 0: the log was walked to its end. -EINVAL: the log has an
 * extent that is not within the disk. Any thread; blocks on the database. */
int cursor_claim(struct cursor *cursor, struct cursor_chunk *chunk, struct fault *fault);

DEFINE_CLEANUP(struct cursor *, cursor_free)
#define CLEANUP_CURSOR CLEANUP(cleanup_cursor_free)

#endif
