/* SPDX-License-Identifier: Apache-2.0 */
/* One round: walk the log, copy it in batches, settle each.
 *
 * Cold pieces go first and hot ones (heat.h) last, so that what stays as it is has been settled
 * when a round is cut short. The log is walked twice for it, unless it fits in the window. */
#include "agent/copy/pass_round.h"

#include "agent/copy/heat.h"
#include "agent/copy/pass_batch.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Rows of the log that are read at once. */
#define WINDOW 2048
/* On a slow link a batch is settled after this time, so that a lost session costs little. */
#define BATCH_USEC (2 * USEC_PER_SEC)
/* How often what differs at the receiver is sent again. */
#define MAX_RESENDS 2

_Static_assert(HEAT_REGION % PASS_PIECE == 0, "a piece lies in one region");

struct pass_round {
	const struct pass_params *params;
	struct pass_batch *batch;
	uint64_t due_usec; /* when the batch is to be settled */
	struct heat heat;
	struct extent window[WINDOW]; /* rows of the log */
	size_t n_window;
	bool window_is_log;  /* the log had no more when the round began */
	uint64_t n_hot;      /* pieces that the first walk left */
	uint64_t aside_usec; /* not spent on reading and sending */
	uint64_t n_compared;
	struct fault *fault; /* of the call */
	bool differs[PASS_MAX_EXTENTS];
	struct extent same[PASS_MAX_EXTENTS];
};

/* --- Settling --------------------------------------------------------------------------------- */

static int fail_differs(struct pass_round *round, size_t n_left)
{
	const struct extent *extent = pass_batch_extents(round->batch);

	for (size_t i = 0; !round->differs[i]; i++)
		extent++;
	return fault_text(round->fault, -EIO,
		"pass over disk %u: %zu extents, the first %" PRIu64 " bytes at offset %" PRIu64
		", are not at the receiver what was sent, after %d times; the source is untouched; "
		"check the memory of both hosts and the receiver's storage",
		round->params->disk, n_left, extent->length, extent->offset, MAX_RESENDS + 1);
}

/* What is the same leaves the log; *ret_left: how many are not. */
static int forget_same(struct pass_round *round, size_t *ret_left)
{
	const struct pass_params *params = round->params;
	const struct extent *extents = pass_batch_extents(round->batch);
	size_t n = pass_batch_count(round->batch), n_same = 0;

	for (size_t i = 0; i < n; i++) {
		if (!round->differs[i])
			round->same[n_same++] = extents[i];
	}
	round->n_compared += n_same;
	*ret_left = n - n_same;
	return n_same ? extent_log_remove(params->db, params->migration, params->disk, round->same,
				n_same, round->fault)
		      : 0;
}

/* Law 4: what was acknowledged leaves the log after a flush, and here after a comparison too. */
static int flush_and_compare(struct pass_round *round, size_t *ret_left)
{
	const struct pass_params *params = round->params;
	uint64_t before = clock_now_usec();
	size_t n = pass_batch_count(round->batch);
	int r = pass_batch_flush(round->batch, round->fault);

	memset(round->differs, 0, n * sizeof(round->differs[0]));
	if (r == 0)
		r = params->compare(params->arg, params->disk, pass_batch_extents(round->batch), n,
			pass_batch_digests(round->batch), round->differs, round->fault);
	if (r == 0)
		r = forget_same(round, ret_left);
	round->aside_usec += clock_now_usec() - before;
	return r;
}

static void begin_batch(struct pass_round *round)
{
	pass_batch_clear(round->batch);
	round->due_usec = clock_deadline(BATCH_USEC);
}

static int settle(struct pass_round *round)
{
	int r = pass_batch_finish(round->batch, round->fault);

	for (int n_resends = 0; r == 0 && pass_batch_count(round->batch); n_resends++) {
		size_t n_left = 0;
		r = flush_and_compare(round, &n_left);
		if (r < 0 || !n_left)
			break;
		if (n_resends == MAX_RESENDS)
			return fail_differs(round, n_left);
		log_warn("PASS_DIFFERS", "migration=%s disk=%u extents=%zu of=%zu",
			round->params->migration, round->params->disk, n_left,
			pass_batch_count(round->batch));
		r = pass_batch_send_again(round->batch, round->differs, round->fault);
	}
	begin_batch(round);
	return r;
}

static int add_piece(struct pass_round *round, struct extent piece)
{
	if (!pass_batch_has_room(round->batch) || clock_now_usec() >= round->due_usec) {
		int r = settle(round);
		if (r < 0)
			return r;
	}
	return pass_batch_add(round->batch, piece, round->fault);
}

/* --- Walking the log -------------------------------------------------------------------------- */

enum walk { WALK_COLD, WALK_HOT };

static int check_row(struct pass_round *round, struct extent row)
{
	uint64_t size = pass_batch_disk_bytes(round->batch);

	if (row.length && row.offset <= size && row.length <= size - row.offset)
		return 0;
	return fault_text(round->fault, -EINVAL,
		"extent log of disk %u: %" PRIu64 " bytes at %" PRIu64
		" are not within the disk of %" PRIu64 " bytes",
		round->params->disk, row.length, row.offset, size);
}

static int walk_row(struct pass_round *round, enum walk walk, struct extent row)
{
	int r = check_row(round, row);

	while (r == 0 && row.length) {
		uint64_t room = PASS_PIECE - row.offset % PASS_PIECE;
		struct extent piece = {row.offset, MIN(row.length, room)};
		bool hot = heat_is_hot(&round->heat, piece.offset);
		heat_touch(&round->heat, piece.offset);
		if (hot == (walk == WALK_HOT))
			r = add_piece(round, piece);
		else if (hot)
			round->n_hot++;
		row.offset += piece.length;
		row.length -= piece.length;
	}
	return r;
}

static int read_window(struct pass_round *round, uint64_t from)
{
	const struct pass_params *params = round->params;
	uint64_t before = clock_now_usec();
	int r = extent_log_read(params->db, params->migration, params->disk, from, round->window,
		WINDOW, &round->n_window, round->fault);

	round->window_is_log = from == 0 && round->n_window < WINDOW;
	round->aside_usec += clock_now_usec() - before;
	return r;
}

static int walk_log(struct pass_round *round, enum walk walk)
{
	uint64_t from = 0;
	bool more = true;

	while (more) {
		int r = 0;
		if (walk == WALK_COLD || !round->window_is_log)
			r = read_window(round, from);
		for (size_t i = 0; r == 0 && i < round->n_window; i++)
			r = walk_row(round, walk, round->window[i]);
		if (r < 0)
			return r;
		more = round->n_window == WINDOW;
		if (more)
			from = round->window[WINDOW - 1].offset + round->window[WINDOW - 1].length;
	}
	return 0;
}

int pass_round_run(struct pass_round *round, struct pass_result *ret_result, struct fault *fault)
{
	struct pass_batch_totals before = pass_batch_totals(round->batch);
	uint64_t began = clock_now_usec();

	round->fault = fault;
	round->aside_usec = round->n_hot = round->n_compared = 0;
	begin_batch(round);
	int r = walk_log(round, WALK_COLD);
	if (r == 0 && round->n_hot)
		r = walk_log(round, WALK_HOT);
	if (r == 0)
		r = settle(round);
	heat_end_round(&round->heat);
	struct pass_batch_totals after = pass_batch_totals(round->batch);
	uint64_t usec = clock_now_usec() - began;
	*ret_result = (struct pass_result){
		.sent_bytes = after.sent_bytes - before.sent_bytes,
		.zero_bytes = after.zero_bytes - before.zero_bytes,
		.n_extents = round->n_compared,
		.busy_usec = usec - round->aside_usec - (after.limited_usec - before.limited_usec),
		.usec = usec,
	};
	return r;
}

/* --- Life ------------------------------------------------------------------------------------- */

int pass_round_flush(struct pass_round *round, struct fault *fault)
{
	return pass_batch_flush(round->batch, fault);
}

int pass_round_idle(struct pass_round *round, int wake_fd, struct fault *fault)
{
	return pass_batch_idle(round->batch, wake_fd, fault);
}

int pass_round_open(const struct pass_params *params, struct cancel *stop,
	struct pass_round **ret_round, struct fault *fault)
{
	struct pass_round *round CLEANUP_PASS_ROUND = xcalloc(1, sizeof(*round));
	int r = pass_batch_open(params, stop, &round->batch, fault);

	if (r < 0)
		return r;
	round->params = params;
	*ret_round = TAKE_PTR(round);
	return 0;
}

struct pass_round *pass_round_free(struct pass_round *round)
{
	if (!round)
		return NULL;
	pass_batch_free(round->batch);
	free(round);
	return NULL;
}
