/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/cursor.h"

#include "base/alloc.h"

#include <errno.h>

#define BATCH 1024

struct cursor {
	struct agent_db *db;
	const char *migration;
	unsigned disk;
	uint64_t size_bytes;
	pthread_mutex_t lock; /* protects claimed; what follows belongs to whoever has set it */
	pthread_cond_t released;
	bool claimed;
	uint64_t from; /* where the next batch begins */
	size_t at, n;  /* in batch; its first extent may be partly consumed */
	struct extent batch[BATCH];
};

struct cursor *cursor_new(
	struct agent_db *db, const char *migration, unsigned disk, uint64_t size_bytes)
{
	struct cursor *cursor = xcalloc(1, sizeof(*cursor));

	cursor->db = db;
	cursor->migration = migration;
	cursor->disk = disk;
	cursor->size_bytes = size_bytes;
	pthread_mutex_init(&cursor->lock, NULL);
	pthread_cond_init(&cursor->released, NULL);
	return cursor;
}

struct cursor *cursor_free(struct cursor *cursor)
{
	if (!cursor)
		return NULL;
	pthread_cond_destroy(&cursor->released);
	pthread_mutex_destroy(&cursor->lock);
	free(cursor);
	return NULL;
}

/* The lock is not held over the database's I/O: the cursor is lent to one thread instead. The wait
 * is short, a read of a batch. */
static void acquire(struct cursor *cursor)
{
	SCOPE_LOCK(&cursor->lock);
	while (cursor->claimed)
		pthread_cond_wait(&cursor->released, &cursor->lock);
	cursor->claimed = true;
}

static void release(struct cursor *cursor)
{
	SCOPE_LOCK(&cursor->lock);
	cursor->claimed = false;
	pthread_cond_signal(&cursor->released);
}

/* Makes batch[at] what comes next in the log. 1, or 0 at its end. */
static int peek(struct cursor *cursor, struct fault *fault)
{
	if (cursor->at < cursor->n)
		return 1;
	cursor->at = cursor->n = 0;
	int r = extent_log_read(cursor->db, cursor->migration, cursor->disk, cursor->from,
		cursor->batch, BATCH, &cursor->n, fault);
	if (r < 0 || cursor->n == 0)
		return r;
	for (size_t i = 0; i < cursor->n; i++) {
		struct extent extent = cursor->batch[i];
		if (extent.length && extent.offset >= cursor->from &&
			extent.offset <= cursor->size_bytes &&
			extent.length <= cursor->size_bytes - extent.offset) {
			cursor->from = extent.offset + extent.length;
			continue;
		}
		cursor->n = 0; /* Nor does another thread get any of it. */
		return fault_text(fault, -EINVAL,
			"extent log of disk %u: %llu bytes at %llu are out of order or not within "
			"the disk of %llu bytes",
			cursor->disk, (unsigned long long)extent.length,
			(unsigned long long)extent.offset, (unsigned long long)cursor->size_bytes);
	}
	return 1;
}

static int claim(struct cursor *cursor, struct cursor_chunk *chunk, struct fault *fault)
{
	int r = peek(cursor, fault);

	if (r <= 0)
		return r;
	chunk->number = cursor->batch[cursor->at].offset / DIGEST_CHUNK;
	chunk->whole.offset = chunk->number * DIGEST_CHUNK;
	chunk->whole.length = MIN(DIGEST_CHUNK, cursor->size_bytes - chunk->whole.offset);
	chunk->log_bytes = 0;
	chunk->n_extents = 0;
	uint64_t end = chunk->whole.offset + chunk->whole.length;
	for (; r > 0 && cursor->batch[cursor->at].offset < end; r = peek(cursor, fault)) {
		struct extent *next = &cursor->batch[cursor->at];
		struct extent part = {next->offset, MIN(next->length, end - next->offset)};
		if (chunk->n_extents == CURSOR_CHUNK_EXTENTS)
			return fault_text(fault, -EINVAL,
				"extent log of disk %u: rows at %llu are not coalesced",
				cursor->disk, (unsigned long long)part.offset);
		chunk->extents[chunk->n_extents++] = part;
		chunk->log_bytes += part.length;
		next->offset += part.length;
		next->length -= part.length;
		if (next->length == 0)
			cursor->at++;
	}
	return r < 0 ? r : 1;
}

int cursor_claim(struct cursor *cursor, struct cursor_chunk *chunk, struct fault *fault)
{
	acquire(cursor);
	int r = claim(cursor, chunk, fault);
	release(cursor);
	return r;
}
