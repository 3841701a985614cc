/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/holes.h"

#include "agent/copy/digest.h"
#include "agent/copy/salvage.h"

#include <errno.h>
#include <stdatomic.h>

#define BATCH 256
/* The longest stretch that is not looked at, after data was met in one chunk after another. */
#define MAX_STRIDE 64

struct walk {
	const struct copy_params *params;
	size_t n;
	struct extent holes[BATCH]; /* whole chunks */
};

static int log_bytes(const struct copy_params *params, uint64_t *ret_bytes, struct fault *fault)
{
	uint64_t rows;

	return extent_log_total(
		params->db, params->migration, params->disk, ret_bytes, &rows, fault);
}

static int take_out(struct agent_db *db, void *arg, struct fault *fault)
{
	const struct walk *walk = arg;

	return extent_log_remove(
		db, walk->params->migration, walk->params->disk, walk->holes, walk->n, fault);
}

static int settle(struct walk *walk, struct fault *fault)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < walk->n; i++)
		r = salvage_is_read(walk->params->salvage, walk->holes[i], fault);
	if (r == 0 && walk->n)
		r = agent_db_transaction(walk->params->db, take_out, walk, fault);
	walk->n = 0;
	return r;
}

/* Where data may begin at or after `at`; the disk's size: nowhere. */
static int first_data(const struct copy_params *params, struct endpoint *source, uint64_t at,
	uint64_t *ret_start, struct fault *fault)
{
	const struct extent rest = {at, endpoint_size(source) - at};
	struct fault cause CLEANUP_FAULT = FAULT_INIT;
	int r = cancel_is_requested(params->cancel)
			? -ECANCELED
			: endpoint_first_data(source, rest, ret_start, &cause);

	if (r == -ECANCELED)
		return fault_text(fault, r, "copy of disk %u: cancelled: %s", params->disk,
			cancel_reason(params->cancel));
	return r < 0 ? fault_text(fault, -EIO, "copy of disk %u, source: %s", params->disk,
			       cause.n_params ? cause.params[0] : "its map cannot be read")
		     : 0;
}

static int walk_source(struct walk *walk, struct endpoint *source, struct fault *fault)
{
	uint64_t size_bytes = endpoint_size(source), stride = 1;
	int r = 0;

	/* `at` is the start of a chunk. The first one is left: even for a disk that is one hole the
	 * threads open the target and look whether it is the right one. */
	for (uint64_t at = DIGEST_CHUNK, start; r == 0 && at < size_bytes;) {
		r = first_data(walk->params, source, at, &start, fault);
		if (r < 0)
			return r;
		uint64_t end = start < size_bytes ? start / DIGEST_CHUNK * DIGEST_CHUNK : start;
		if (end > at) {
			walk->holes[walk->n++] = (struct extent){at, end - at};
			stride = 1;
		}
		at = end + stride * DIGEST_CHUNK;
		stride = MIN(2 * stride, (uint64_t)MAX_STRIDE);
		if (walk->n == BATCH)
			r = settle(walk, fault);
	}
	return r < 0 ? r : settle(walk, fault);
}

int holes_settle(const struct copy_params *params, struct endpoint *source, struct fault *fault)
{
	struct walk walk = {.params = params};
	uint64_t before = 0, after = 0;
	int r = log_bytes(params, &before, fault);

	if (r == 0)
		r = walk_source(&walk, source, fault);
	if (r == 0)
		r = log_bytes(params, &after, fault);
	if (r < 0)
		return r;
	atomic_fetch_add(&params->progress->skipped_hole, before - after);
	atomic_fetch_add(&params->progress->log_done, before - after);
	return 0;
}
