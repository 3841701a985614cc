/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/compare.h"

#include "agent/copy/cursor.h"
#include "agent/copy/ledger.h"
#include "agent/copy/zero.h"
#include "base/alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define PIECE        (UINT64_C(64) << 10)
#define CHUNK_PIECES (DIGEST_CHUNK / PIECE)
#define BATCH_CHUNKS (PASS_MAX_BYTES / DIGEST_CHUNK)
#define BATCH_PIECES (BATCH_CHUNKS * CHUNK_PIECES)
#define ALIGNMENT    4096

_Static_assert(BATCH_PIECES <= PASS_MAX_EXTENTS, "a batch is one question");

struct place {
	struct ledger_entry entry;
	size_t first, n; /* of its pieces in the batch */
};

struct comparison {
	const struct copy_compare_params *params;
	const struct copy_params *copy;
	struct copy_progress *progress;
	uint64_t size_bytes;
	struct endpoint *source;
	struct cursor *cursor;
	struct ledger *ledger;
	struct fault *fault;
	unsigned char *data; /* a chunk */
	struct cursor_chunk chunk;
	struct place places[BATCH_CHUNKS];
	size_t n_places, n_pieces;
	struct extent pieces[BATCH_PIECES];
	unsigned char digests[BATCH_PIECES * DIGEST_BYTES];
	bool differs[BATCH_PIECES];
	struct extent same[BATCH_PIECES];
	bool found; /* data in the batch that need not be sent */
	bool asked; /* data in the batch at all */
};

static int source_fail(const struct comparison *c, const struct fault *cause)
{
	return fault_text(c->fault, -EIO,
		"comparison of disk %u, source: %s; the source was only read, the target is "
		"incomplete",
		c->copy->disk, cause->n_params ? cause->params[0] : "unknown error");
}

static int check_stop(const struct comparison *c)
{
	if (!cancel_is_requested(c->copy->cancel))
		return 0;
	return fault_text(c->fault, -ECANCELED, "comparison of disk %u: cancelled: %s",
		c->copy->disk, cancel_reason(c->copy->cancel));
}

/* --- Reading here ----------------------------------------------------------------------------- */

static int read_run(struct comparison *c, struct extent run)
{
	/* Nothing is sent here: what can be read now is lost until it is. */
	const struct salvage_source from = {
		.spec = &c->copy->source, .source = c->source, .cancel = c->copy->cancel};

	while (run.length) {
		struct fault cause CLEANUP_FAULT = FAULT_INIT;
		struct extent part = {run.offset, MIN(run.length, ENDPOINT_MAX_BYTES)};
		int r = check_stop(c);
		if (r < 0)
			return r;
		r = salvage_read(c->copy->salvage, &from, part,
			c->data + (part.offset - c->chunk.whole.offset), &cause);
		if (r == -ECANCELED)
			return check_stop(c);
		if (r < 0)
			return source_fail(c, &cause);
		run.offset += part.length;
		run.length -= part.length;
	}
	return 0;
}

/* The chunk into c->data; 1, or 0 when all of it is a hole and c->data is not set. */
static int read_chunk(struct comparison *c)
{
	const struct extent whole = c->chunk.whole;
	uint64_t at = whole.offset, end = whole.offset + whole.length;
	bool has_data = false;

	while (at < end) {
		struct fault cause CLEANUP_FAULT = FAULT_INIT;
		struct extent run = {0};
		int r = endpoint_next_data(c->source, at, &run, &cause);
		if (r == -ECANCELED)
			return check_stop(c);
		if (r < 0)
			return source_fail(c, &cause);
		if (run.length == 0 || run.offset >= end)
			break;
		if (!has_data)
			memset(c->data, 0, (size_t)whole.length);
		has_data = true;
		uint64_t start = MAX(run.offset, at);
		at = MIN(run.offset + run.length, end);
		r = read_run(c, (struct extent){start, at - start});
		if (r < 0)
			return r;
	}
	return has_data;
}

static bool is_in_log(const struct cursor_chunk *chunk, struct extent piece)
{
	for (size_t i = 0; i < chunk->n_extents; i++) {
		const struct extent *extent = &chunk->extents[i];
		if (extent->offset < piece.offset + piece.length &&
			piece.offset < extent->offset + extent->length)
			return true;
	}
	return false;
}

static int add_chunk(struct comparison *c)
{
	const struct extent whole = c->chunk.whole;
	int has_data = read_chunk(c);

	if (has_data < 0)
		return has_data;
	/* Of a hole there is nothing to save but questions. */
	uint64_t step = has_data ? PIECE : PASS_MAX_EXTENT;
	struct place *place = &c->places[c->n_places++];
	*place = (struct place){
		.entry = {.number = c->chunk.number, .log_bytes = c->chunk.log_bytes},
		.first = c->n_pieces};
	if (has_data)
		digest_chunk(c->data, (size_t)whole.length, place->entry.digest);
	for (uint64_t at = 0; at < whole.length; at += step) {
		struct extent piece = {whole.offset + at, MIN(step, whole.length - at)};
		unsigned char *digest = c->digests + c->n_pieces * DIGEST_BYTES;
		if (!is_in_log(&c->chunk, piece))
			continue;
		memset(digest, 0, DIGEST_BYTES);
		if (has_data)
			digest_chunk(c->data + at, (size_t)piece.length, digest);
		c->pieces[c->n_pieces++] = piece;
	}
	place->n = c->n_pieces - place->first;
	return 0;
}

/* --- What the answer says --------------------------------------------------------------------- */

static void count_piece(struct comparison *c, size_t i)
{
	bool is_zero = zero_is_all(c->digests + i * DIGEST_BYTES, DIGEST_BYTES);
	uint64_t length = c->pieces[i].length;

	if (is_zero && !c->differs[i])
		return;
	c->asked = true;
	atomic_fetch_add_explicit(&c->progress->compared, length, memory_order_relaxed);
	if (c->differs[i])
		return;
	c->found = true;
	atomic_fetch_add_explicit(&c->progress->same, length, memory_order_relaxed);
}

static bool is_same(const struct comparison *c, const struct place *place)
{
	for (size_t i = 0; i < place->n; i++)
		if (c->differs[place->first + i])
			return false;
	return true;
}

/* Chunks that are the same leave the log with their digests, pieces of others without. */
static int forget_same(struct comparison *c)
{
	size_t n_same = 0;
	int r = 0;

	for (size_t p = 0; p < c->n_places; p++) {
		const struct place *place = &c->places[p];
		if (is_same(c, place) && ledger_reserve(c->ledger)) {
			ledger_enter(c->ledger, &place->entry);
			continue;
		}
		for (size_t i = place->first; c->params->by_piece && i < place->first + place->n;
			i++)
			if (!c->differs[i])
				c->same[n_same++] = c->pieces[i];
	}
	if (ledger_begin_checkpoint(c->ledger, LEDGER_AT_END))
		r = ledger_commit(c->ledger, c->fault);
	return r < 0 || !n_same ? r
				: extent_log_remove(c->copy->db, c->copy->migration, c->copy->disk,
					  c->same, n_same, c->fault);
}

/* 1: go on; 0: nothing more is to be expected. */
static int settle(struct comparison *c)
{
	memset(c->differs, 0, sizeof(c->differs));
	c->found = c->asked = false;
	int r = c->params->ask(c->params->arg, c->copy->disk, c->pieces, c->n_pieces, c->digests,
		c->differs, c->fault);
	for (size_t i = 0; r == 0 && i < c->n_pieces; i++)
		count_piece(c, i);
	if (r == 0)
		r = forget_same(c);
	c->n_places = c->n_pieces = 0;
	return r < 0 ? r : c->params->whole_log || c->found || !c->asked;
}

static int compare_all(struct comparison *c)
{
	int more = 1, r = 1;

	while (r > 0 && more > 0) {
		more = cursor_claim(c->cursor, &c->chunk, c->fault);
		r = more > 0 ? add_chunk(c) : more;
		if (r < 0)
			return r;
		r = 1;
		if (c->n_places && (more == 0 || c->n_places == BATCH_CHUNKS))
			r = settle(c);
	}
	return MIN(r, 0);
}

/* --- Around it -------------------------------------------------------------------------------- */

/* What the target acknowledged before is to survive its host, if it stays. */
static int flush_target(const struct copy_params *copy, struct fault *fault)
{
	struct endpoint *target CLEANUP_ENDPOINT = NULL;
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = endpoint_open(&copy->target, copy->cancel, &target, &cause);

	if (r == 0)
		r = endpoint_flush(target, copy->cancel, &cause);
	if (r == -EIO || r == -ENOSPC)
		r = -EREMOTEIO;
	return r < 0 ? fault_text(fault, r, "comparison of disk %u, target: %s", copy->disk,
			       cause.n_params ? cause.params[0] : strerror(-r))
		     : 0;
}

static int open_source(struct comparison *c)
{
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = endpoint_open(&c->copy->source, c->copy->cancel, &c->source, &cause);

	if (r == -ECANCELED)
		return check_stop(c);
	if (r < 0)
		return source_fail(c, &cause);
	c->size_bytes = endpoint_size(c->source);
	return 0;
}

int copy_compare(const struct copy_compare_params *params, struct fault *fault)
{
	struct copy_progress unseen = {0};
	struct copy_params copy = *params->copy;
	struct comparison *c CLEANUP_FREE = xcalloc(1, sizeof(*c));
	unsigned char *data CLEANUP_FREE = aligned_alloc(ALIGNMENT, DIGEST_CHUNK);

	if (!data)
		return fault_errno(fault, -ENOMEM, "comparison of disk %u", copy.disk);
	copy.progress = copy.progress ? copy.progress : &unseen;
	c->params = params;
	c->copy = &copy;
	c->progress = copy.progress;
	c->fault = fault;
	c->data = data;
	int r = flush_target(&copy, fault);
	if (r == 0)
		r = open_source(c);
	if (r == 0) {
		struct cursor *cursor CLEANUP_CURSOR =
			cursor_new(copy.db, copy.migration, copy.disk, c->size_bytes);
		struct ledger *ledger CLEANUP_LEDGER = ledger_new(&copy, c->size_bytes, 1);
		c->cursor = cursor;
		c->ledger = ledger;
		r = compare_all(c);
	}
	endpoint_close(c->source);
	return r;
}
